//! The program as a user meets it: one process and three give the same, it ends in good order, and what is wrong with a
//! command line or a configuration is said clearly.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const TICKER: &str = env!("CARGO_BIN_EXE_ticker");

/// What happens within this time or not at all.
const PATIENCE: Duration = Duration::from_secs(30);

/// A port that is free now. Another program could take it before it is used; the test then says so.
fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr()).expect("a free port").port()
}

fn ticker() -> Command {
    let mut command = Command::new(TICKER);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TICKER_")) {
        command.env_remove(name);
    }
    command
}

/// A running program; ended with the test, however that ends.
struct Running {
    child: Child,
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let child = ticker().args(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
        Self { child }
    }

    /// Ctrl-C, and what it says and returns.
    fn interrupt(mut self) -> (Option<i32>, String) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
        let mut said = String::new();
        if let Some(out) = &mut self.child.stdout {
            out.read_to_string(&mut said).expect("text");
        }
        (self.child.wait().expect("it ends").code(), said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until an admin port says that the process is ready.
fn wait_ready(admin: u16) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if get(admin, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            return;
        }
        assert!(Instant::now() < deadline, "not ready after {PATIENCE:?}");
        std::thread::yield_now();
    }
}

/// A whole HTTP answer, if somebody listens.
fn get(port: u16, path: &str) -> Option<String> {
    use std::io::Write;
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn run(arguments: &[&str]) -> Output {
    ticker().args(arguments).output().expect("it runs")
}

/// The program refuses this command line, and says all of that.
fn refuses(arguments: &[&str], says: &[&str]) {
    let output = run(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{arguments:?} succeeded: {said}");
    for what in says {
        assert!(said.contains(what), "{arguments:?} does not say `{what}`:\n{said}");
    }
}

fn recording() -> Option<PathBuf> {
    let root = std::env::var_os("TICKER_RECORDINGS")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/recordings"));
    Some(root.join("kraken-v2/2026-08-01_btcusd_book_l2.jsonl.zst")).filter(|path| path.exists())
}

/// The events of a tail that ends by itself, without what differs from run to run: places and times of ours.
fn tail(arguments: &[&str]) -> Vec<String> {
    let mut child = ticker()
        .args(["tail", "--json", "--from", "earliest", "--no-conflate", "book/kraken/*", "status/kraken/*"])
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut events = Vec::new();
    for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
        let event: serde_json::Value = serde_json::from_str(&line.expect("text")).expect("a line is JSON");
        events.push(format!(
            "{} {} {} {} {} {}",
            event["topic"], event["kind"], event["ts"], event["recv"], event["bids"], event["asks"]
        ));
        if event["reason"] == "replay_ended" {
            break;
        }
    }
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    events
}

#[test]
fn one_process_and_three_give_the_same() {
    let Some(path) = recording() else {
        eprintln!("missing recording: kraken-v2/2026-08-01_btcusd_book_l2.jsonl.zst; tests/flow counts it as ignored");
        return;
    };
    let path = path.to_str().expect("a path in UTF-8");
    let [http, grpc, admin, edge_admin, ingest_admin] = std::array::from_fn(|_| free_port());
    let at = |port: u16| format!("127.0.0.1:{port}");
    let (url, fanout_url) = (format!("http://{}", at(http)), format!("http://{}", at(grpc)));

    let replay = ["--replay", path, "--speed", "max"];
    let up = ["up", "--listen", &at(http), "--grpc", &at(grpc), "--admin", &at(admin)];
    let one = Running::start(&[&up[..], &replay[..]].concat());
    wait_ready(admin);
    let mut all: Vec<Vec<String>> = Vec::new();
    for over in ["ws", "sse", "poll", "grpc"] {
        all.push(tail(&["--over", over, "--url", &url, "--grpc", &fanout_url]));
    }
    let (code, said) = one.interrupt();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.ends_with("drained, goodbye\n"), "{said}");

    let fanout = Running::start(&["fanout", "--listen", &at(grpc), "--admin", &at(admin)]);
    let edge = Running::start(&["edge", "--listen", &at(http), "--fanout", &fanout_url, "--admin", &at(edge_admin)]);
    let ingest = ["ingest", "--fanout", &fanout_url, "--admin", &at(ingest_admin)];
    let ingest = Running::start(&[&ingest[..], &replay[..]].concat());
    for admin in [admin, edge_admin, ingest_admin] {
        wait_ready(admin);
    }
    for over in ["ws", "sse", "poll", "grpc"] {
        all.push(tail(&["--over", over, "--url", &url, "--grpc", &fanout_url]));
    }
    for service in [ingest, edge, fanout] {
        assert_eq!(service.interrupt().0, Some(0));
    }
    assert!(all[0].len() > 200, "{} events", all[0].len());
    for (i, events) in all.iter().enumerate() {
        assert!(*events == all[0], "reader {i} got {} events, the first one {}", events.len(), all[0].len());
    }
}

#[test]
fn what_is_wrong_is_said_clearly() {
    refuses(&["up", "--nope"], &["unexpected argument '--nope'"]);
    refuses(&["up", "--replay", "/does/not/exist"], &["/does/not/exist"]);
    refuses(&["up", "--venues", "mtgox"], &["mtgox", "kraken"]);
    refuses(&["up", "--listen", "0.0.0.0:0"], &["--insecure"]);
    refuses(&["tail", "quote/kraken/BTC-USD", "--over", "pigeon"], &["pigeon", "ws", "grpc"]);
    refuses(&["edge", "--config", "/does/not/exist.toml"], &["/does/not/exist.toml"]);
}

#[test]
fn an_unknown_key_is_named() {
    let folder = std::env::temp_dir().join(format!("ticker-test-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("edge.toml");
    std::fs::write(&file, "[edge]\nlisten = \"127.0.0.1:0\"\nlissten = 1\n").expect("written");
    refuses(&["edge", "--config", file.to_str().expect("UTF-8")], &["lissten", "listen"]);
    std::fs::remove_dir_all(&folder).expect("removed");
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = taken.local_addr().expect("bound").port();
    let (taken, free) = (format!("127.0.0.1:{port}"), "127.0.0.1:0");
    let says = [port.to_string(), "in use".to_owned()];
    let says: Vec<&str> = says.iter().map(String::as_str).collect();
    refuses(&["up", "--listen", &taken, "--grpc", free, "--admin", free], &says);
    refuses(&["up", "--listen", free, "--grpc", &taken, "--admin", free], &says);
    refuses(&["up", "--listen", free, "--grpc", free, "--admin", &taken], &says);
}
