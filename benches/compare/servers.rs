//! The servers that are compared: ours in its three processes, the peers, and the bare loop. Each on one core.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::feed::Feed;
use crate::process::{LOAD_CORE, SERVER_CORE, Started, Usage, free_port, run, say, tail};
use crate::publish::{Stream, Target};
use crate::server;
use crate::wire::Over;

/// Whom a measurement is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Subject {
    /// By io_uring, where the kernel allows it.
    Ours,
    /// One system call a write.
    OursByWrite,
    Bun,
    Nchan,
    /// So many messages in one write().
    Bare(usize),
    /// The bare loop with send() instead.
    Send,
}

impl Subject {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Ours => "ticker edge".into(),
            Self::OursByWrite => "ticker edge, io = write".into(),
            Self::Bun => "Bun (uWebSockets)".into(),
            Self::Nchan => "nginx nchan".into(),
            Self::Send => "bare send() loop".into(),
            Self::Bare(1) => "bare write() loop".into(),
            Self::Bare(n) => format!("bare write() loop, {n} messages a write"),
        }
    }
}

/// Where things are.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// Logs and configurations.
    pub(crate) scratch: PathBuf,
    /// The benches' own folder.
    pub(crate) benches: PathBuf,
    /// Our binary, and more lines for the edge's configuration.
    pub(crate) ticker: String,
    pub(crate) edge_lines: Vec<String>,
}

impl Places {
    fn bun(&self) -> PathBuf {
        self.benches.join("node_modules/@oven/bun-linux-x64/bin/bun")
    }

    /// Installs what is missing: Bun from npm into the benches' folder, nchan from Debian.
    pub(crate) fn install(&self) -> Result<(), String> {
        if !self.bun().exists() {
            say("installing Bun from npm");
            let folder = self.benches.to_string_lossy().into_owned();
            run("npm", &["install", "--no-save", "--no-package-lock", "--prefix", &folder, "@oven/bun-linux-x64"])?;
        }
        if !modules().join("ngx_nchan_module.so").exists() {
            say("installing nginx and nchan from Debian");
            let install = ["install", "-y", "--no-install-recommends", "nginx", "libnginx-mod-nchan"];
            if run("apt-get", &install).is_err() {
                run("apt-get", &["update"])?;
                run("apt-get", &install)?;
            }
        }
        if run("caddy", &["version"]).is_err() {
            say("installing Caddy from Debian");
            run("apt-get", &["install", "-y", "--no-install-recommends", "caddy"])?;
        }
        Ok(())
    }

    /// Writes a configuration, and gives its path.
    fn write(&self, name: &str, text: String) -> Result<String, String> {
        let path = self.scratch.join(name);
        std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(path.to_string_lossy().into_owned())
    }

    /// The versions of what is compared.
    pub(crate) fn versions(&self) -> Vec<String> {
        let first = |text: Result<String, String>| match text {
            Ok(text) => text.lines().next().unwrap_or_default().trim().to_owned(),
            Err(_) => "missing".to_owned(),
        };
        // Another binary (`--ticker`) may be of any source.
        let commit = match self.ticker == env!("CARGO_BIN_EXE_ticker") {
            true => first(run("git", &["-C", &self.benches.to_string_lossy(), "describe", "--always", "--dirty"])),
            false => "not known (--ticker)".to_owned(),
        };
        let bun = first(run(&self.bun().to_string_lossy(), &["--version"]));
        let nchan = first(run("dpkg-query", &["-W", "-f", "${Version}", "libnginx-mod-nchan"]));
        vec![
            format!("{}, source {commit}", first(run(&self.ticker, &["--version"]))),
            format!("Bun {bun} (npm `@oven/bun-linux-x64`)"),
            format!("Caddy {} (Debian)", first(run("caddy", &["version"]))),
            format!("{}, nchan {nchan} (Debian `libnginx-mod-nchan`)", first(run("nginx", &["-v"]))),
        ]
    }
}

fn modules() -> &'static Path {
    Path::new("/usr/lib/nginx/modules")
}

/// A server that runs, and the way into it.
pub(crate) struct Rig {
    pub(crate) measured: Started,
    others: Vec<Started>,
    pub(crate) readers_at: SocketAddr,
    /// Of ours: the fanout's address, and the last of its instruments.
    fanout: Option<(SocketAddr, String)>,
    target: Option<Target>,
    _stream: Option<Stream>,
}

impl Rig {
    pub(crate) fn start(subject: Subject, feed: Feed, over: Over, readers: usize, at: &Places) -> Result<Self, String> {
        match subject {
            Subject::Ours => Self::ours(feed, "", at),
            Subject::OursByWrite => Self::ours(feed, "io = \"write\"\n", at),
            Subject::Bun => Self::bun(at),
            Subject::Nchan => Self::nchan(at),
            Subject::Bare(messages) => Self::bare(feed, over, readers, messages, false, at),
            Subject::Send => Self::bare(feed, over, readers, 1, true, at),
        }
    }

    /// Ours, with its TLS address: for readers whose requests come that way.
    pub(crate) fn with_tls(feed: Feed, at: &Places) -> Result<(Self, SocketAddr), String> {
        let secure = free_port()?;
        Ok((Self::ours(feed, &format!("tls_listen = \"{secure}\"\n"), at)?, secure))
    }

    /// Ours as a peer of WebRTC, for readers who all come from one address.
    pub(crate) fn with_rtc(feed: Feed, at: &Places) -> Result<Self, String> {
        let many = ["rtc_offers_per_address_max", "rtc_offers_max", "rtc_handshakes_max"];
        let limits: String = many.iter().map(|key| format!("{key} = 100_000\n")).collect();
        Self::ours(feed, &format!("rtc_listen = \"127.0.0.1:0\"\n{limits}"), at)
    }

    /// Once: where the publisher sends. The bare loop publishes to itself.
    pub(crate) fn target(&mut self) -> Option<Target> {
        self.target.take()
    }

    /// Everything that runs but for the measured process.
    pub(crate) fn others(&self) -> Usage {
        let mut all = Usage::default();
        for one in self.others.iter().map(Started::usage) {
            all.cpu_micros += one.cpu_micros;
        }
        all
    }

    fn ours(feed: Feed, line: &str, at: &Places) -> Result<Self, String> {
        let [grpc, admin] = [free_port()?, free_port()?];
        let config = at.write("fanout.toml", format!("admin = \"{admin}\"\n[fanout]\nlisten = \"{grpc}\"\n"))?;
        let log = at.scratch.join("fanout.log");
        let mut fanout = Started::new(&at.ticker, &["fanout".into(), "--config".into(), config], LOAD_CORE, &log)?;
        fanout.wait_listening(grpc).map_err(|e| format!("{e}: {}", tail(&log)))?;
        let (stream, mut target) = Stream::open(grpc, feed)?;
        target.prime(&feed)?;
        stream.wait_for(feed.topics() as u64)?;

        let last = crate::feed::symbol(feed.topics() - 1);
        let (edge, http) = Self::edge(grpc, line, &last, 0, at)?;
        Ok(Self {
            measured: edge,
            others: vec![fanout],
            readers_at: http,
            fanout: Some((grpc, last)),
            target: Some(target),
            _stream: Some(stream),
        })
    }

    /// Another edge of the same fanout as ours.
    pub(crate) fn another_edge(&self, number: usize, at: &Places) -> Result<(Started, SocketAddr), String> {
        let (fanout, last) = self.fanout.as_ref().ok_or("only our edges have a fanout")?;
        Self::edge(*fanout, "", last, number, at)
    }

    /// An edge that knows its instruments, of which `last` is one.
    fn edge(
        fanout: SocketAddr,
        line: &str,
        last: &str,
        number: usize,
        at: &Places,
    ) -> Result<(Started, SocketAddr), String> {
        let [http, admin] = [free_port()?, free_port()?];
        let lines = at.edge_lines.join("\n");
        let config = at.write(
            &format!("edge-{number}.toml"),
            format!(
                "admin = \"{admin}\"\n[edge]\nfanout = \"http://{fanout}\"\nlisten = \"{http}\"\nshards = 1\n{line}{lines}\n"
            ),
        )?;
        let log = at.scratch.join(format!("edge-{number}.log"));
        let mut edge = Started::new(&at.ticker, &["edge".into(), "--config".into(), config], SERVER_CORE, &log)?;
        edge.wait_until("does not know its instruments", || {
            server::get(http, "/v1/instruments?venue=bench").is_ok_and(|body| body.contains(last))
        })
        .map_err(|e| format!("{e}: {}", tail(&log)))?;
        Ok((edge, http))
    }

    fn bun(at: &Places) -> Result<Self, String> {
        let addr = free_port()?;
        let script = at.benches.join("compare/bun.mjs").to_string_lossy().into_owned();
        let log = at.scratch.join("bun.log");
        let args = [script, addr.port().to_string()];
        let mut bun = Started::new(&at.bun().to_string_lossy(), &args, SERVER_CORE, &log)?;
        bun.wait_listening(addr).map_err(|e| format!("{e}: {}", tail(&log)))?;
        let target = Some(Target::socket(addr)?);
        Ok(Self { measured: bun, others: Vec::new(), readers_at: addr, fanout: None, target, _stream: None })
    }

    fn nchan(at: &Places) -> Result<Self, String> {
        let addr = free_port()?;
        let folder = at.scratch.join("nginx");
        std::fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
        let template = std::fs::read_to_string(at.benches.join("compare/nginx.conf")).map_err(|e| e.to_string())?;
        let config = template
            .replace("FOLDER", &folder.to_string_lossy())
            .replace("MODULES", &modules().to_string_lossy())
            .replace("PORT", &addr.port().to_string());
        let path = folder.join("nginx.conf");
        std::fs::write(&path, config).map_err(|e| e.to_string())?;
        let log = at.scratch.join("nginx.log");
        let args = ["-c".to_owned(), path.to_string_lossy().into_owned()];
        let mut nginx = Started::new("nginx", &args, SERVER_CORE, &log)?;
        nginx.wait_listening(addr).map_err(|e| format!("{e}: {}", tail(&log)))?;
        let target = Some(Target::posts(addr)?);
        Ok(Self { measured: nginx, others: Vec::new(), readers_at: addr, fanout: None, target, _stream: None })
    }

    fn bare(feed: Feed, over: Over, readers: usize, messages: usize, send: bool, at: &Places) -> Result<Self, String> {
        let addr = free_port()?;
        let own = std::env::current_exe().map_err(|e| e.to_string())?;
        let mut args = vec![
            "--bare".to_owned(),
            format!("--bare-listen={addr}"),
            format!("--bare-over={}", if over == Over::Ws { "ws" } else { "sse" }),
            format!("--bare-readers={readers}"),
            format!("--bare-rate={}", feed.events_per_second()),
            format!("--bare-messages={messages}"),
        ];
        if send {
            args.push("--bare-send".to_owned());
        }
        let log = at.scratch.join("bare.log");
        let mut bare = Started::new(&own.to_string_lossy(), &args, SERVER_CORE, &log)?;
        bare.wait_listening(addr).map_err(|e| format!("{e}: {}", tail(&log)))?;
        Ok(Self { measured: bare, others: Vec::new(), readers_at: addr, fanout: None, target: None, _stream: None })
    }
}
