//! The program as a user meets it: one process and three give the same, it ends in good order, and what is wrong with a
//! command line or a configuration is said clearly. Three processes survive the death of each.

#![allow(clippy::panic, reason = "a test says what it found, and dies of it")]

mod recordings;

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ticker_client::board::Applied;
use ticker_client::{Board, Options, Over, Reader, Resume, Step, Subscription, connect};
use ticker_market::Kind;
use ticker_proto::{Message, Notice};

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

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("it runs");
    }

    /// Ctrl-C, and what it says and returns.
    fn interrupt(mut self) -> (Option<i32>, String) {
        self.signal(rustix::process::Signal::INT);
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

/// The three services, each a process of its own, on a synthetic market.
struct Three {
    ports: [u16; 5],
    fanout: Running,
    edge: Running,
    _ingest: Running,
}

impl Three {
    fn start() -> Self {
        let ports = std::array::from_fn(|_| free_port());
        let (fanout, edge) = (Self::fanout(ports), Self::edge(ports));
        let (url, admin) = (format!("http://127.0.0.1:{}", ports[0]), format!("127.0.0.1:{}", ports[4]));
        let ingest = Running::start(&["ingest", "--fanout", &url, "--admin", &admin, "--synthetic", "6@40"]);
        let three = Self { ports, fanout, edge, _ingest: ingest };
        three.wait_ready();
        three
    }

    fn fanout(ports: [u16; 5]) -> Running {
        let [listen, admin] = [ports[0], ports[1]].map(|port| format!("127.0.0.1:{port}"));
        Running::start(&["fanout", "--listen", &listen, "--admin", &admin])
    }

    fn edge(ports: [u16; 5]) -> Running {
        let [listen, admin] = [ports[2], ports[3]].map(|port| format!("127.0.0.1:{port}"));
        let fanout = format!("http://127.0.0.1:{}", ports[0]);
        Running::start(&["edge", "--listen", &listen, "--fanout", &fanout, "--admin", &admin])
    }

    fn wait_ready(&self) {
        [self.ports[1], self.ports[3], self.ports[4]].into_iter().for_each(wait_ready);
    }

    /// Readers of the edge, gRPC included.
    fn options(&self, over: Over) -> Options {
        let http = format!("http://127.0.0.1:{}", self.ports[2]);
        let resume = Resume::Backoff { first_ms: 20, max_ms: 200 };
        Options { over, grpc: http.clone(), http, resume, poll_wait_s: 2, ..Options::default() }
    }
}

/// A reader, and a board that refuses holes, repeats and books that do not add up.
struct Watching {
    over: Over,
    reader: Reader,
    board: Board,
    events: Vec<(Kind, u64)>,
    notices: Vec<Notice>,
    resumed: usize,
}

impl Watching {
    async fn open(options: Options, topics: &[&str]) -> Self {
        let topics = topics.iter().map(|t| (*t).to_owned()).collect();
        let over = options.over;
        let reader = connect(options, Subscription { topics, ..Subscription::default() }).await.expect("accepted");
        Self { over, reader, board: Board::new(), events: Vec::new(), notices: Vec::new(), resumed: 0 }
    }

    async fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !is_so(self) {
            let step = tokio::time::timeout_at(deadline, self.reader.step()).await;
            let step = step.unwrap_or_else(|_| panic!("{}: {what}: not within {PATIENCE:?}", self.over));
            match step.unwrap_or_else(|e| panic!("{}: {e}, before {what}", self.over)) {
                Some(Step::Message(message)) => {
                    let applied = self.board.apply(&message).unwrap_or_else(|v| panic!("{}: {v}", self.over));
                    if let Applied::Event(event) = applied {
                        self.events.push((event.kind, event.seq));
                    } else if let Message::Notice(notice) = message {
                        self.notices.push(notice);
                    }
                }
                Some(Step::Resumed) => {
                    self.board.joining();
                    self.resumed += 1;
                }
                Some(Step::Lost { .. }) => {}
                None => panic!("{}: it ended before {what}", self.over),
            }
        }
    }

    async fn more(&mut self, count: usize) {
        let end = self.events.len() + count;
        self.until("more events", |w| w.events.len() >= end).await;
    }
}

const EVERYTHING: [&str; 4] = ["quote/synthetic/*", "trade/synthetic/*", "book/synthetic/*", "book-10/synthetic/*"];

fn block_on(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(test);
}

#[test]
fn a_fanout_that_is_killed_comes_back_with_a_new_epoch_and_readers_go_on() {
    let mut three = Three::start();
    block_on(async {
        let mut readers = Vec::new();
        for over in [Over::Ws, Over::WsProtobuf, Over::Sse, Over::Poll, Over::Grpc, Over::GrpcSession] {
            readers.push(Watching::open(three.options(over), &EVERYTHING).await);
        }
        for _ in 0..3 {
            for reader in &mut readers {
                reader.more(60).await;
                reader.notices.clear();
            }
            three.fanout.child.kill().expect("it runs");
            three.fanout.child.wait().expect("it ends");
            three.fanout = Three::fanout(three.ports);
            three.wait_ready();
            for reader in &mut readers {
                let had = reader.events.len();
                let is_gap = |n: &Notice| matches!(n, Notice::Gap { topic: None, reason } if reason == "epoch_changed");
                reader.until("a gap", |w| w.notices.iter().any(is_gap)).await;
                let begins = |n: &Notice| matches!(n, Notice::Welcome { .. });
                if reader.over != Over::Poll {
                    // A poll that begins after the restart is no session that could be welcomed anew.
                    reader.until("welcome", |w| w.notices.iter().skip_while(|n| !is_gap(n)).any(begins)).await;
                }
                let is_back = |w: &Watching| {
                    let new = || w.events[had..].iter();
                    new().any(|(kind, _)| *kind == Kind::Snapshot)
                        && new().filter(|(k, _)| *k == Kind::Update).count() > 60
                };
                reader.until("snapshots and updates", is_back).await;
                assert_eq!(reader.resumed, 0, "{}: its connection has not ended", reader.over);
            }
        }
    });
}

#[test]
fn an_edge_that_is_killed_costs_no_event() {
    let mut three = Three::start();
    block_on(async {
        for over in [Over::Ws, Over::Sse, Over::Poll, Over::Grpc] {
            let mut reader = Watching::open(three.options(over), &EVERYTHING).await;
            reader.more(150).await;
            three.edge.child.kill().expect("it runs");
            three.edge.child.wait().expect("it ends");
            three.edge = Three::edge(three.ports);
            three.wait_ready();
            if over != Over::Poll {
                reader.until("a connection", |w| w.resumed > 0).await;
            }
            // The board refuses a hole: each trade names the one before it.
            reader.more(150).await;
            let gap = reader.notices.iter().find(|n| matches!(n, Notice::Gap { .. }));
            assert_eq!(gap, None, "{over}");
        }
    });
}

#[test]
fn an_edge_that_is_asked_to_end_says_goodbye_with_a_cursor() {
    let mut three = Three::start();
    block_on(async {
        let mut readers = Vec::new();
        for over in [Over::Ws, Over::WsProtobuf, Over::Sse, Over::Ndjson, Over::Grpc, Over::GrpcSession] {
            let mut reader = Watching::open(three.options(over), &EVERYTHING).await;
            reader.more(100).await;
            readers.push(reader);
        }
        three.edge.signal(rustix::process::Signal::TERM);
        for reader in &mut readers {
            let is_goodbye = |n: &Notice| matches!(n, Notice::Goodbye { cursor, .. } if cursor.contains('-'));
            reader.until("goodbye", |w| w.notices.iter().any(is_goodbye)).await;
        }
        assert_eq!(three.edge.child.wait().expect("it ends").code(), Some(0));
        three.edge = Three::edge(three.ports);
        three.wait_ready();
        for reader in &mut readers {
            reader.until("a connection", |w| w.resumed > 0).await;
            reader.more(150).await;
            assert!(!reader.notices.iter().any(|n| matches!(n, Notice::Gap { .. })), "{}", reader.over);
        }
    });
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
    recording_of("kraken-v2/2026-08-01_btcusd_book_l2.jsonl.zst")
}

fn recording_of(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("TICKER_RECORDINGS")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/recordings"));
    Some(root.join(name)).filter(|path| path.exists())
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
    assert!(!said.contains("WARN"), "nothing is wrong, and nobody comes back for those who have gone: {said}");

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
    refuses(&["record", "--venues", "mtgox"], &["mtgox", "kraken"]);
    refuses(&["replay", "/does/not/exist"], &["/does/not/exist"]);
    refuses(&["venue", "/does/not/exist"], &["/does/not/exist"]);
    refuses(&["venue", "--synthetic", "5", "--as", "nasdaq"], &["nasdaq", "kraken"]);
    refuses(&["venue", "x", "--listen", "0.0.0.0:0"], &["--insecure"]);
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
