//! An open-loop load generator: many readers on one thread, over any transport, against a server on this machine.
//!
//! `cargo bench --bench load -- --over ws --readers 1000 --topics-per-reader 20 --seconds 10` starts `ticker up` on a
//! synthetic market, measures it, and ends it. With `--url` (and `--pid`) it measures a server that runs already.
//! It prints what the server delivered, and at what cost in CPU, memory and delay.

mod histogram;
mod server;
mod wire;

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser as _;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use wire::{Over, Parser, Tally};

/// Readers, at most: what the loopback's ports and one thread can hold.
const READERS_MAX: usize = 20_000;
/// Connections that are being made at once.
const CONNECTING_MAX: usize = 128;
/// How long all readers may take to be connected.
const CONNECT_WITHIN: Duration = Duration::from_secs(60);
/// The time is looked at this often, whatever comes.
const TICK: Duration = Duration::from_millis(20);

/// Many readers against a server on this machine.
#[derive(clap::Parser, Debug)]
struct Args {
    /// Transport: ws, sse, poll or grpc
    #[arg(long, default_value = "ws", value_parser = over)]
    over: Over,
    /// Readers
    #[arg(long, default_value_t = 1000)]
    readers: usize,
    /// Topics of each reader
    #[arg(long, default_value_t = 20)]
    topics_per_reader: usize,
    /// Channels of those topics
    #[arg(long, value_delimiter = ',', default_value = "quote")]
    channels: Vec<String>,
    /// How long to measure, in seconds (at most 600)
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// How long to wait before, once all readers are connected
    #[arg(long, default_value_t = 2.0)]
    warmup: f64,
    /// A server that runs already: its HTTP address, on this machine
    #[arg(long)]
    url: Option<String>,
    /// Its gRPC address
    #[arg(long, default_value = "http://127.0.0.1:50051")]
    grpc: String,
    /// Its process, whose CPU and memory are to be measured
    #[arg(long, requires = "url")]
    pid: Option<u32>,
    /// Otherwise: the synthetic market of the server that is started
    #[arg(long, default_value = "200@25")]
    synthetic: String,
    /// Otherwise: the binary that is started
    #[arg(long, default_value = env!("CARGO_BIN_EXE_ticker"))]
    server: String,
    /// Cargo says this
    #[arg(long, hide = true)]
    bench: bool,
}

fn over(name: &str) -> Result<Over, String> {
    match name {
        "ws" => Ok(Over::Ws),
        "sse" => Ok(Over::Sse),
        "poll" => Ok(Over::Poll),
        "grpc" => Ok(Over::Grpc),
        _ => Err(format!("`{name}` is none of ws, sse, poll, grpc")),
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    histogram::check();
    if !args.bench {
        // `cargo test --all-targets` runs benches too, and must not wait for a measurement.
        let _ = writeln!(io::stderr(), "this is a measurement: run it with `cargo bench --bench load`");
        return ExitCode::SUCCESS;
    }
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    if !(1..=READERS_MAX).contains(&args.readers) || !(0.1..=600.0).contains(&args.seconds) {
        return Err(format!("readers must be 1 to {READERS_MAX}, seconds 0.1 to 600"));
    }
    // A start-up cost, so its limit is the machine's: raised to what is allowed.
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit);
    let started = match &args.url {
        Some(_) => None,
        None => Some(server::Started::up(&args.server, &args.synthetic)?),
    };
    let http = started.as_ref().map_or_else(|| loopback(args.url.as_deref().unwrap_or_default()), |s| Ok(s.http))?;
    let grpc = started.as_ref().map_or_else(|| loopback(&args.grpc), |s| Ok(s.grpc))?;
    let pid = started.as_ref().map(server::Started::pid).or(args.pid).map(|pid| pid.to_string());
    let usage = || pid.as_deref().and_then(server::Usage::of);

    let topics = wait_for_topics(http, args)?;
    let idle = usage();
    let idle_since = Instant::now();
    std::thread::sleep(Duration::from_secs(2));
    let idle_micros_per_second =
        idle.zip(usage()).map(|(a, b)| (b.cpu_micros - a.cpu_micros) as f64 / idle_since.elapsed().as_secs_f64());

    let target = if args.over == Over::Grpc { grpc } else { http };
    let mut load = Load::new(target, args, topics).map_err(|e| e.to_string())?;
    let connecting = Instant::now();
    while load.joined < args.readers {
        if connecting.elapsed() > CONNECT_WITHIN {
            return Err(format!(
                "only {} of {} readers are connected after {CONNECT_WITHIN:?}",
                load.joined, args.readers
            ));
        }
        load.connect_more().map_err(|e| format!("cannot connect to {target}: {e}"))?;
        load.turn()?;
    }
    let connected = connecting.elapsed();
    load.run_for(Duration::from_secs_f64(args.warmup.clamp(0.0, 600.0)))?;

    load.tally = Tally::new();
    let (before, own_before) = (usage(), server::Usage::of("self"));
    let since = Instant::now();
    load.run_for(Duration::from_secs_f64(args.seconds))?;
    let elapsed = since.elapsed().as_secs_f64();
    let (after, own_after) = (usage(), server::Usage::of("self"));

    let tally = &load.tally;
    let events = tally.events as f64;
    let mut report = String::new();
    let mut line = |name: &str, value: String| report.push_str(&format!("{name:<34}{value}\n"));
    line("transport", format!("{:?}", args.over).to_lowercase());
    line("readers × topics", format!("{} × {}", args.readers, args.topics_per_reader));
    line("connected within", format!("{:.2} s", connected.as_secs_f64()));
    line("delivered events a second", format!("{:.0}", events / elapsed));
    line("delivered snapshots", tally.snapshots.to_string());
    line("megabytes a second", format!("{:.2}", tally.bytes as f64 / elapsed / 1e6));
    match before.zip(after) {
        Some((before, after)) => {
            let cpu = (after.cpu_micros - before.cpu_micros) as f64;
            line("server CPU", format!("{:.0} % of one core", cpu / elapsed / 1e4));
            line("server CPU µs a delivered event", format!("{:.2}", cpu / events));
            if let Some(idle) = idle_micros_per_second {
                line("  without what it uses unread", format!("{:.2}", (cpu - idle * elapsed).max(0.0) / events));
            }
            let resident = after.resident_kib.saturating_sub(idle.map_or(0, |i| i.resident_kib));
            line("resident KiB a reader", format!("{:.1}", resident as f64 / args.readers as f64));
        }
        None => line("server CPU and memory", "not measured: no --pid".to_owned()),
    }
    let quantile = |part| format!("{:.2} ms", tally.latency.quantile(part) as f64 / 1e3);
    line("latency, pub to receipt, p50", quantile(0.5));
    line("                         p99", quantile(0.99));
    line("                         p99.9", quantile(0.999));
    line("                         max", format!("{:.2} ms", tally.latency.max() as f64 / 1e3));
    if let Some((before, after)) = own_before.zip(own_after) {
        let busy = (after.cpu_micros - before.cpu_micros) as f64 / elapsed / 1e4;
        let beware = if busy > 85.0 { " (the generator is the bottleneck: latencies are its own)" } else { "" };
        line("generator CPU", format!("{busy:.0} % of one core{beware}"));
    }
    drop(load);
    drop(started);
    io::stdout().write_all(report.as_bytes()).map_err(|e| e.to_string())
}

/// The server may still be learning its instruments.
fn wait_for_topics(http: SocketAddr, args: &Args) -> Result<Vec<String>, String> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let topics = server::topics(http, &args.channels)?;
        if topics.len() >= args.topics_per_reader.max(1) {
            return Ok(topics);
        }
        if Instant::now() > until {
            return Err(format!("the server has {} topics; {} are needed", topics.len(), args.topics_per_reader));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The address of a URL, if it is on this machine: this program is no weapon.
fn loopback(url: &str) -> Result<SocketAddr, String> {
    let authority = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    let mut all = authority.to_socket_addrs().map_err(|e| format!("`{url}` is no address: {e}"))?;
    let addr = all.next().ok_or_else(|| format!("`{url}` has no address"))?;
    let local = match addr.ip() {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.to_canonical().is_loopback(),
    };
    if local { Ok(addr) } else { Err(format!("{addr} is not on this machine: only loopback targets are allowed")) }
}

struct Reader {
    socket: TcpStream,
    parser: Parser,
    topics: Vec<String>,
    /// What is still to be written.
    out: Vec<u8>,
    joined: bool,
}

struct Load {
    target: SocketAddr,
    authority: String,
    over: Over,
    topics: Vec<String>,
    topics_per_reader: usize,
    readers_wanted: usize,
    readers: Vec<Reader>,
    joined: usize,
    poll: Poll,
    events: Option<Events>,
    buffer: Vec<u8>,
    tally: Tally,
}

impl Load {
    fn new(target: SocketAddr, args: &Args, topics: Vec<String>) -> io::Result<Self> {
        Ok(Self {
            target,
            authority: target.to_string(),
            over: args.over,
            topics,
            topics_per_reader: args.topics_per_reader.max(1),
            readers_wanted: args.readers,
            readers: Vec::with_capacity(args.readers),
            joined: 0,
            poll: Poll::new()?,
            events: Some(Events::with_capacity(1024)),
            buffer: vec![0; 256 * 1024],
            tally: Tally::new(),
        })
    }

    fn connect_more(&mut self) -> io::Result<()> {
        while self.readers.len() < self.readers_wanted && self.readers.len() - self.joined < CONNECTING_MAX {
            let number = self.readers.len();
            // Neighbours overlap not at all until the topics run out: all topics are read by equally many.
            let first = number * self.topics_per_reader;
            let topics: Vec<String> =
                (0..self.topics_per_reader).map(|i| self.topics[(first + i) % self.topics.len()].clone()).collect();
            let mut socket = TcpStream::connect(self.target)?;
            self.poll.registry().register(&mut socket, Token(number), Interest::READABLE | Interest::WRITABLE)?;
            let out = wire::request(self.over, &self.authority, &topics);
            self.readers.push(Reader { socket, parser: Parser::new(self.over), topics, out, joined: false });
        }
        Ok(())
    }

    fn run_for(&mut self, time: Duration) -> Result<(), String> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.turn()?;
        }
        Ok(())
    }

    /// Reads what has come for any reader.
    fn turn(&mut self) -> Result<(), String> {
        let mut events = self.events.take().expect("put back at the end of each turn");
        match self.poll.poll(&mut events, Some(TICK)) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => other.map_err(|e| e.to_string())?,
        }
        for event in &events {
            let Token(number) = event.token();
            let ended = |e: String| format!("reader {number} of {}: {e}", self.authority);
            let reader = &mut self.readers[number];
            if event.is_writable() {
                reader.write().map_err(|e| ended(e.to_string()))?;
            }
            if event.is_readable() {
                reader.read(&mut self.buffer, &self.authority, &mut self.tally).map_err(ended)?;
                if reader.parser.joined && !reader.joined {
                    reader.joined = true;
                    self.joined += 1;
                }
            }
        }
        self.events = Some(events);
        Ok(())
    }
}

impl Reader {
    fn write(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            match self.socket.write(&self.out) {
                Ok(n) => drop(self.out.drain(..n)),
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8], authority: &str, tally: &mut Tally) -> Result<(), String> {
        loop {
            let n = match self.socket.read(buffer) {
                Ok(0) => return Err("the server closed the connection".to_owned()),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e.to_string()),
            };
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64);
            self.parser.feed(&buffer[..n], now, tally)?;
            self.out.append(&mut self.parser.reply);
            if let Some(cursor) = self.parser.polled.take() {
                self.out.extend_from_slice(&wire::poll_again(authority, &self.topics, &cursor));
            }
            if !self.out.is_empty() {
                self.write().map_err(|e| e.to_string())?;
            }
        }
    }
}
