//! The publisher: one feed, in open loop, into one server. What is late is sent as soon as can be and keeps its scheduled time.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ticker_proto::v1;

use crate::feed::{Event, Feed, Schedule, symbol};
use crate::histogram::Histogram;

/// Where more than so many events a second are due, they are sent in batches.
const BATCH_EVERY: Duration = Duration::from_millis(1);
/// How long a server may take to accept the first events.
const PATIENCE: Duration = Duration::from_secs(20);
/// Batches on their way to a fanout that has not answered.
const BATCHES_MAX: usize = 256;

/// Microseconds since 1970.
pub(crate) fn now_micros() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
}

/// Where events go.
pub(crate) enum Target {
    /// A fanout's gRPC.
    Fanout(tokio::sync::mpsc::Sender<Vec<Event>>),
    /// Bun: one WebSocket message for each event, the topic before it.
    Socket(TcpStream),
    /// nchan: one POST for each event.
    Posts(TcpStream),
}

/// A publisher that runs.
pub(crate) struct Publisher {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<(u64, Histogram), String>>,
}

impl Publisher {
    /// Publishes the feed from now on.
    pub(crate) fn start(feed: Feed, mut target: Target) -> Result<Self, String> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("publisher".into()).spawn(move || {
            let mut schedule = Schedule::new(feed, now_micros() + 1_000);
            let (mut sent, mut late, mut batch) = (0, Histogram::new(), Vec::new());
            let batched = feed.events_per_second() * BATCH_EVERY.as_secs_f64() > 1.0;
            while !stopped.load(Ordering::Relaxed) {
                let now = now_micros();
                while let Some(event) = schedule.take(now) {
                    late.record((now - event.ts).max(0) as u64);
                    batch.push(event);
                }
                sent += batch.len() as u64;
                if !batch.is_empty() {
                    target.send(&feed, sent, &mut batch).map_err(|e| format!("publisher: {e}"))?;
                }
                let due = Duration::from_micros((schedule.next_due() - now_micros()).max(0) as u64);
                // Never long, so that it can be stopped.
                let wait = if batched { due.max(BATCH_EVERY) } else { due };
                std::thread::sleep(wait.min(Duration::from_millis(50)));
            }
            Ok((sent, late))
        });
        Ok(Self { stop, thread: thread.map_err(|e| e.to_string())? })
    }

    /// Events sent, and how late they were.
    pub(crate) fn stop(self) -> Result<(u64, Histogram), String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the publisher panicked".to_owned())?
    }
}

impl Target {
    /// Gives every topic a first value.
    pub(crate) fn prime(&mut self, feed: &Feed) -> Result<(), String> {
        let mut first = feed.first(now_micros());
        while !first.is_empty() {
            let mut batch: Vec<Event> = first.drain(..first.len().min(1_000)).collect();
            self.send(feed, feed.topics() as u64, &mut batch).map_err(|e| format!("first events: {e}"))?;
        }
        Ok(())
    }

    fn send(&mut self, feed: &Feed, seq: u64, batch: &mut Vec<Event>) -> io::Result<()> {
        let ended = || io::Error::other("the server's stream has ended");
        match self {
            Self::Fanout(batches) => batches.blocking_send(std::mem::take(batch)).map_err(|_| ended()),
            Self::Socket(socket) => {
                let mut out = Vec::with_capacity(batch.len() * 256);
                let now = now_micros();
                for (at, event) in batch.drain(..).enumerate() {
                    let mut json = feed.topic(event.topic).into_bytes();
                    event.json(feed, 1_000 + seq + at as u64, now, &mut json);
                    // RFC 6455 §5.2: text, masked by zeros; longer than 125 bytes, shorter than 64 KiB.
                    out.extend_from_slice(&[0x81, 0x80 | 126]);
                    out.extend_from_slice(&(json.len() as u16).to_be_bytes());
                    out.extend_from_slice(&[0; 4]);
                    out.extend_from_slice(&json);
                }
                socket.write_all(&out)
            }
            Self::Posts(socket) => {
                let mut json = Vec::new();
                for (at, event) in batch.drain(..).enumerate() {
                    json.clear();
                    event.json(feed, 1_000 + seq + at as u64, now_micros(), &mut json);
                    let topic = feed.topic(event.topic);
                    let length = json.len();
                    let mut out =
                        format!("POST /pub?id={topic} HTTP/1.1\r\nhost: bench\r\ncontent-length: {length}\r\n\r\n")
                            .into_bytes();
                    out.extend_from_slice(&json);
                    socket.write_all(&out)?;
                    answered(socket)?;
                }
                Ok(())
            }
        }
    }

    /// A WebSocket to Bun's `/feed`.
    pub(crate) fn socket(addr: SocketAddr) -> Result<Self, String> {
        let mut socket = TcpStream::connect(addr).map_err(|e| e.to_string())?;
        socket.set_nodelay(true).map_err(|e| e.to_string())?;
        socket.set_write_timeout(Some(PATIENCE)).map_err(|e| e.to_string())?;
        let request = "GET /feed HTTP/1.1\r\nhost: bench\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                       sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        socket.write_all(request.as_bytes()).map_err(|e| e.to_string())?;
        answered(&mut socket).map_err(|e| e.to_string())?;
        Ok(Self::Socket(socket))
    }

    /// A connection to nchan's publisher location.
    pub(crate) fn posts(addr: SocketAddr) -> Result<Self, String> {
        let socket = TcpStream::connect(addr).map_err(|e| e.to_string())?;
        socket.set_nodelay(true).map_err(|e| e.to_string())?;
        Ok(Self::Posts(socket))
    }
}

/// Waits for an answer's head and body.
fn answered(socket: &mut TcpStream) -> io::Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    let (mut all, mut buffer) = (Vec::new(), [0; 1024]);
    loop {
        if let Some(end) = memchr::memmem::find(&all, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&all[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|l| l.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
            if !matches!(head.get(9..10), Some("1" | "2")) {
                return Err(io::Error::other(format!("refused: {}", head.lines().next().unwrap_or_default())));
            }
            if all.len() >= end + 4 + length.unwrap_or(0) {
                return Ok(());
            }
        }
        match socket.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => all.extend_from_slice(&buffer[..n]),
        }
    }
}

/// A publisher's stream into a fanout, on a thread of its own.
pub(crate) struct Stream {
    accepted: Arc<AtomicU64>,
    _thread: JoinHandle<()>,
}

impl Stream {
    /// Opens it, and announces the feed's instruments. Events then go to the target.
    pub(crate) fn open(fanout: SocketAddr, feed: Feed) -> Result<(Self, Target), String> {
        let (sender, mut events) = tokio::sync::mpsc::channel::<Vec<Event>>(BATCHES_MAX);
        let (batches, requests) = tokio::sync::mpsc::channel::<v1::PublishRequest>(BATCHES_MAX);
        let accepted = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&accepted);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        let run = async move {
            let mut client = v1::ingest_client::IngestClient::connect(format!("http://{fanout}"))
                .await
                .map_err(|e| format!("cannot publish: {e}"))?;
            let first = v1::PublishRequest {
                source: format!("bench-{}", now_micros()),
                batch: 1,
                instruments: (0..feed.topics()).map(|t| instrument(&feed, t)).collect(),
                ..Default::default()
            };
            let forward = tokio::spawn(async move {
                let _ = batches.send(first).await;
                let mut batch = 1;
                while let Some(all) = events.recv().await {
                    batch += 1;
                    let recv = now_micros() * 1_000;
                    let events = all.iter().map(|e| new_event(e, recv)).collect();
                    let request = v1::PublishRequest { batch, events, ..Default::default() };
                    if batches.send(request).await.is_err() {
                        return;
                    }
                }
            });
            let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
            let mut answers = client.publish(requests).await.map_err(|e| format!("cannot publish: {e}"))?.into_inner();
            while let Some(answer) = answers.message().await.map_err(|e| format!("publishing ended: {e}"))? {
                if answer.refused > 0 {
                    return Err(format!("{} events of a batch were refused", answer.refused));
                }
                counted.fetch_add(answer.accepted, Ordering::Relaxed);
            }
            forward.abort();
            Ok::<_, String>(())
        };
        let thread = std::thread::Builder::new().name("publisher-grpc".into()).spawn(move || {
            if let Err(error) = runtime.block_on(run) {
                // Its sender sees that the channel is closed.
                let _ = writeln!(io::stderr(), "{error}");
            }
        });
        Ok((Self { accepted, _thread: thread.map_err(|e| e.to_string())? }, Target::Fanout(sender)))
    }

    /// Waits until so many events are on the tape.
    pub(crate) fn wait_for(&self, events: u64) -> Result<(), String> {
        let until = std::time::Instant::now() + PATIENCE;
        while self.accepted.load(Ordering::Relaxed) < events {
            if std::time::Instant::now() > until {
                return Err("the fanout does not take the first events".to_owned());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

fn instrument(feed: &Feed, number: usize) -> v1::NumberedInstrument {
    let channel = if feed.is_trade(number) { "trade" } else { "quote" };
    let instrument = v1::Instrument {
        venue: "bench".into(),
        symbol: symbol(number),
        native: symbol(number),
        channels: vec![channel.into()],
        ..Default::default()
    };
    v1::NumberedInstrument { number: number as u32, instrument: Some(instrument) }
}

fn new_event(event: &Event, recv_nanos: i64) -> v1::NewEvent {
    let data = if event.trade {
        v1::event::Data::Trade(v1::Trade {
            price: event.price(),
            size: event.size(),
            side: v1::Side::Buy.into(),
            trade_id: event.number.to_string(),
            r#ref: String::new(),
        })
    } else {
        v1::event::Data::Quote(v1::Quote {
            bid: Some(event.price()),
            bid_size: Some(event.size()),
            ask: Some("70000.5".into()),
            ask_size: Some(event.size()),
            ..Default::default()
        })
    };
    let wire = v1::Event {
        kind: v1::Kind::Update.into(),
        ts: event.ts * 1_000,
        recv: recv_nanos,
        data: Some(data),
        ..Default::default()
    };
    v1::NewEvent {
        instrument: event.topic as u32,
        channel: if event.trade { "trade" } else { "quote" }.into(),
        event: Some(wire),
    }
}
