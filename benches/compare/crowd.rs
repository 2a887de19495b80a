//! A crowd of readers on one thread, on the other core than the server's.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::feed::Feed;
use crate::process::thread_cpu_micros;
use crate::publish::now_micros;
use crate::tally::{Seen, Tally, Watch};
use crate::wire::{self, Over, Parser};

/// The thread looks at its commands this often, whatever comes.
const TICK: Duration = Duration::from_millis(20);
/// How often the age of the readers' state is looked at.
const SAMPLE_EVERY: Duration = Duration::from_millis(50);
/// The head of a request holds so many topics; the rest follows in messages.
const TOPICS_IN_HEAD: usize = 100;
/// How long an answer of the thread may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who reads what, and how.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) over: Over,
    pub(crate) readers: usize,
    /// Each reader's topics are neighbours; the next reader's begin behind them.
    pub(crate) topics_per_reader: usize,
    /// All readers' topics are among these numbers.
    pub(crate) topics: std::ops::Range<usize>,
    /// Connections that are being made at once.
    pub(crate) connecting_max: usize,
    /// A reader is served when it has so many snapshots; with 0, when its request is accepted.
    pub(crate) snapshots: u32,
}

/// What a crowd has to say.
#[derive(Clone)]
pub(crate) struct Report {
    pub(crate) tally: Tally,
    /// Readers that were served so far, and the microseconds from the first connection to the last of them.
    pub(crate) served: usize,
    pub(crate) served_micros: u64,
    /// Readers whose connection has ended, and why the first did.
    pub(crate) ended: usize,
    pub(crate) why: Option<String>,
    /// Readers that do not have, of each of their quote topics, an event that was due after the thaw. See [`Crowd::thaw`].
    pub(crate) behind: usize,
    /// Since the last reset.
    pub(crate) seconds: f64,
    pub(crate) cpu_micros: u64,
}

enum Command {
    Reset,
    Report,
    Freeze(usize),
    Thaw,
}

/// A running crowd. It ends when it is dropped.
pub(crate) struct Crowd {
    commands: Option<Sender<Command>>,
    reports: Receiver<Result<Report, String>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Crowd {
    pub(crate) fn start(target: SocketAddr, wish: Wish, feed: Feed) -> Result<Self, String> {
        if !target.ip().is_loopback() {
            return Err(format!("{target} is not on this machine"));
        }
        let (commands, received) = channel();
        let (sender, reports) = channel();
        let run = move || {
            let result = State::new(target, wish, feed)
                .map_err(|e| e.to_string())
                .and_then(|mut state| state.run(&received, &sender));
            if let Err(error) = result {
                let _ = sender.send(Err(error));
            }
        };
        let thread = std::thread::Builder::new().name("crowd".into()).spawn(run).map_err(|e| e.to_string())?;
        Ok(Self { commands: Some(commands), reports, thread: Some(thread) })
    }

    fn command(&self, command: Command) -> Result<(), String> {
        let commands = self.commands.as_ref().expect("there until the crowd is dropped");
        // A thread that is gone has left a report of why.
        let _ = commands.send(command);
        Ok(())
    }

    pub(crate) fn reset(&self) -> Result<(), String> {
        self.command(Command::Reset)
    }

    /// From now on the first `readers` read nothing.
    pub(crate) fn freeze(&self, readers: usize) -> Result<(), String> {
        self.command(Command::Freeze(readers))
    }

    /// They read again.
    pub(crate) fn thaw(&self) -> Result<(), String> {
        self.command(Command::Thaw)
    }

    pub(crate) fn report(&self) -> Result<Report, String> {
        self.command(Command::Report)?;
        match self.reports.recv_timeout(PATIENCE) {
            Ok(report) => report,
            Err(RecvTimeoutError::Timeout) => Err("the readers do not answer".to_owned()),
            Err(RecvTimeoutError::Disconnected) => Err("the readers are gone".to_owned()),
        }
    }

    /// Waits until all readers are served.
    pub(crate) fn wait_served(&self, readers: usize, within: Duration) -> Result<Report, String> {
        let until = Instant::now() + within;
        loop {
            let report = self.report()?;
            if report.served >= readers {
                return Ok(report);
            }
            if Instant::now() > until || report.ended > 0 {
                let why = report.why.unwrap_or_default();
                return Err(format!(
                    "{} of {readers} readers are served after {within:?}; {} ended {why}",
                    report.served, report.ended
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        drop(self.commands.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Reader {
    socket: TcpStream,
    parser: Parser,
    seen: Seen,
    first: usize,
    /// What is still to be written.
    out: Vec<u8>,
    opened: bool,
    served: bool,
    ended: bool,
}

struct State {
    target: SocketAddr,
    authority: String,
    wish: Wish,
    feed: Feed,
    poll: Poll,
    readers: Vec<Reader>,
    opened: usize,
    served: usize,
    served_micros: u64,
    ended: usize,
    why: Option<String>,
    watch: Watch,
    buffer: Vec<u8>,
    begun: Instant,
    since: (Instant, u64),
    sampled: Instant,
    /// So many of the first readers do not read.
    frozen: usize,
    /// When they read again, in microseconds; 0 before.
    thawed_at: i64,
}

impl State {
    fn new(target: SocketAddr, wish: Wish, feed: Feed) -> io::Result<Self> {
        Ok(Self {
            target,
            authority: target.to_string(),
            readers: Vec::with_capacity(wish.readers),
            wish,
            feed,
            poll: Poll::new()?,
            opened: 0,
            served: 0,
            served_micros: 0,
            ended: 0,
            why: None,
            watch: Watch::new(feed),
            buffer: vec![0; 256 * 1024],
            begun: Instant::now(),
            since: (Instant::now(), thread_cpu_micros()),
            sampled: Instant::now(),
            frozen: 0,
            thawed_at: 0,
        })
    }

    fn run(&mut self, commands: &Receiver<Command>, reports: &Sender<Result<Report, String>>) -> Result<(), String> {
        let mut events = Events::with_capacity(1024);
        loop {
            match commands.try_recv() {
                Ok(Command::Reset) => {
                    self.watch.reset();
                    self.since = (Instant::now(), thread_cpu_micros());
                }
                Ok(Command::Report) => drop(reports.send(Ok(self.report()))),
                Ok(Command::Freeze(readers)) => self.frozen = readers,
                Ok(Command::Thaw) => {
                    self.thawed_at = now_micros();
                    // What has come meanwhile was told once, and is not told again.
                    for number in 0..std::mem::take(&mut self.frozen) {
                        self.look(number, false, true, false);
                    }
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
            self.connect_more().map_err(|e| format!("cannot connect to {}: {e}", self.target))?;
            self.turn(&mut events)?;
            if self.sampled.elapsed() > SAMPLE_EVERY && self.feed.trade_topics > 0 {
                self.sampled = Instant::now();
                let open = self.readers.iter().filter(|r| !r.ended).map(|r| &r.seen);
                self.watch.sample(open, now_micros());
            }
        }
    }

    fn report(&self) -> Report {
        Report {
            tally: self.watch.tally.clone(),
            served: self.served,
            served_micros: self.served_micros,
            ended: self.ended,
            why: self.why.clone(),
            behind: self.readers.iter().filter(|r| self.watch.is_behind(&r.seen, self.thawed_at)).count(),
            seconds: self.since.0.elapsed().as_secs_f64(),
            cpu_micros: thread_cpu_micros() - self.since.1,
        }
    }

    fn topics(&self, first: usize) -> Vec<String> {
        let all = self.wish.topics.len();
        let numbers = (0..self.wish.topics_per_reader).map(|i| self.wish.topics.start + (first + i) % all);
        numbers.map(|n| self.feed.topic(n)).collect()
    }

    fn connect_more(&mut self) -> io::Result<()> {
        let mut made = 0;
        while self.readers.len() < self.wish.readers
            && self.readers.len() - self.opened - self.ended < self.wish.connecting_max
            // What comes for those who are connected must be read meanwhile.
            && made < 256
        {
            made += 1;
            let number = self.readers.len();
            let first = number * self.wish.topics_per_reader % self.wish.topics.len();
            let mut topics = self.topics(first);
            topics.truncate(TOPICS_IN_HEAD);
            let mut socket = TcpStream::connect(self.target)?;
            self.poll.registry().register(&mut socket, Token(number), Interest::READABLE | Interest::WRITABLE)?;
            let out = wire::request(self.wish.over, &self.authority, &topics);
            let seen = Seen::new(self.wish.topics.start + first, self.wish.topics_per_reader);
            let parser = Parser::new(self.wish.over);
            self.readers.push(Reader { socket, parser, seen, first, out, opened: false, served: false, ended: false });
        }
        Ok(())
    }

    /// Reads what has come for any reader.
    fn turn(&mut self, events: &mut Events) -> Result<(), String> {
        match self.poll.poll(events, Some(TICK)) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other.map_err(|e| e.to_string())?,
        }
        for event in &*events {
            let Token(number) = event.token();
            if number >= self.frozen {
                self.look(number, event.is_writable(), event.is_readable(), event.is_read_closed());
            }
        }
        Ok(())
    }

    /// Does what a reader's socket is ready for.
    fn look(&mut self, number: usize, writable: bool, readable: bool, closed: bool) {
        let result = self.ready(number, writable, readable, closed);
        let reader = &mut self.readers[number];
        if let Err(why) = result
            && !reader.ended
        {
            reader.ended = true;
            let _ = self.poll.registry().deregister(&mut reader.socket);
            let _ = reader.socket.shutdown(std::net::Shutdown::Both);
            self.ended += 1;
            self.opened -= usize::from(reader.opened);
            self.why.get_or_insert(why);
        }
    }

    fn ready(&mut self, number: usize, writable: bool, readable: bool, closed: bool) -> Result<(), String> {
        let reader = &mut self.readers[number];
        if writable {
            reader.write().map_err(|e| e.to_string())?;
        }
        if !readable {
            return Ok(());
        }
        loop {
            let n = match reader.socket.read(&mut self.buffer) {
                Ok(0) => return Err("the server closed the connection".to_owned()),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e.to_string()),
            };
            let (now, mut sink) = (now_micros(), self.watch.of(&mut reader.seen));
            reader.parser.feed(&self.buffer[..n], now, &mut sink)?;
            reader.out.append(&mut reader.parser.reply);
            if let Some(cursor) = reader.parser.polled.take() {
                let topics = (0..self.wish.topics_per_reader).map(|i| (reader.first + i) % self.wish.topics.len());
                let topics: Vec<String> = topics.map(|n| self.feed.topic(self.wish.topics.start + n)).collect();
                reader.out.extend_from_slice(&wire::poll_again(&self.authority, &topics, &cursor));
            }
            if !reader.out.is_empty() {
                reader.write().map_err(|e| e.to_string())?;
            }
            if n < self.buffer.len() && !closed {
                // A shorter read has emptied the socket: what comes later is told anew.
                break;
            }
        }
        if !reader.opened && (reader.parser.is_open() || reader.parser.joined) {
            reader.opened = true;
            self.opened += 1;
            if self.wish.topics_per_reader > TOPICS_IN_HEAD {
                let first = reader.first;
                let topics = self.topics(first);
                let reader = &mut self.readers[number];
                for (at, some) in topics[TOPICS_IN_HEAD..].chunks(TOPICS_IN_HEAD).enumerate() {
                    subscribe(at + 1, some, &mut reader.out);
                }
                reader.write().map_err(|e| e.to_string())?;
            }
        }
        let reader = &mut self.readers[number];
        if !reader.served && reader.opened && reader.seen.snapshots >= self.wish.snapshots {
            reader.served = true;
            self.served += 1;
            self.served_micros = self.begun.elapsed().as_micros() as u64;
        }
        Ok(())
    }
}

/// The request for more topics, as a text message masked by zeros.
fn subscribe(id: usize, topics: &[String], out: &mut Vec<u8>) {
    let json = serde_json::json!({"op": "subscribe", "id": id, "topics": topics}).to_string();
    out.extend_from_slice(&[0x81, 0x80 | 126]);
    out.extend_from_slice(&(json.len() as u16).to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(json.as_bytes());
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
}
