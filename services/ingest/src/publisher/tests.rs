//! Tests of the parent module, against a fanout that does what each test tells it.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use futures_util::future::poll_immediate;
use hyper_util::rt::TokioIo;
use ticker_feeds::{Out, Update};
use ticker_market::{Channel as Kanal, Data, Decimal, Instrument, Kind, Level, Levels, Time, Trade};
use ticker_proto::v1;
use ticker_proto::v1::ingest_server::{Ingest, IngestServer};
use ticker_runtime::Health;
use tokio::io::DuplexStream;
use tokio::task::{JoinHandle, unconstrained};
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tonic::transport::{Endpoint, Server};
use tonic::{Response, Streaming};

use super::*;
use crate::feed::Feed;
use crate::progress::SourceKind;

/// One stream, as the fanout sees it.
struct Served {
    requests: Streaming<v1::PublishRequest>,
    answers: mpsc::Sender<Result<v1::PublishResponse, Status>>,
}

impl Served {
    async fn next(&mut self) -> v1::PublishRequest {
        self.requests.message().await.expect("a good stream").expect("a request")
    }

    async fn ack(&self, batch: u64, accepted: u64) {
        let answer = v1::PublishResponse { batch, cursor: format!("e-{batch}"), accepted, refused: 0 };
        self.answers.send(Ok(answer)).await.expect("the publisher listens");
    }

    async fn fail(self, status: Status) {
        self.answers.send(Err(status)).await.expect("the publisher listens");
    }

    /// Reads and acknowledges until so many events came; returns them.
    async fn take(&mut self, events: usize) -> Vec<v1::NewEvent> {
        let mut taken = Vec::new();
        while taken.len() < events {
            let mut request = self.next().await;
            let count = request.events.len();
            taken.append(&mut request.events);
            self.ack(request.batch, count as u64).await;
        }
        taken
    }
}

struct Fake(mpsc::UnboundedSender<Served>);

#[tonic::async_trait]
impl Ingest for Fake {
    type PublishStream = Pin<Box<dyn futures_util::Stream<Item = Result<v1::PublishResponse, Status>> + Send>>;

    async fn publish(
        &self,
        request: Request<Streaming<v1::PublishRequest>>,
    ) -> Result<Response<Self::PublishStream>, Status> {
        let (answers, stream) = mpsc::channel(64);
        let served = Served { requests: request.into_inner(), answers };
        self.0.send(served).map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

struct World {
    streams: mpsc::UnboundedReceiver<Served>,
    /// May the publisher connect?
    reachable: Arc<AtomicBool>,
    publishing: JoinHandle<()>,
    intake: Intake,
    progress: Progress,
    health: Health,
}

impl World {
    fn new(limits: Limits) -> Self {
        let (to_test, streams) = mpsc::unbounded_channel();
        let (to_server, pipes) = mpsc::unbounded_channel::<Result<DuplexStream, std::io::Error>>();
        let server = Server::builder().add_service(IngestServer::new(Fake(to_test)));
        tokio::spawn(server.serve_with_incoming(UnboundedReceiverStream::new(pipes)));
        let reachable = Arc::new(AtomicBool::new(true));
        let may = Arc::clone(&reachable);
        let connector = tower::service_fn(move |_| {
            let (to_server, may) = (to_server.clone(), may.load(SeqCst));
            async move {
                if !may {
                    return Err(std::io::Error::other("the fanout is away"));
                }
                let (ours, theirs) = tokio::io::duplex(64 * 1024);
                to_server.send(Ok(theirs)).map_err(std::io::Error::other)?;
                Ok(TokioIo::new(ours))
            }
        });
        let channel = Endpoint::from_static("http://fanout").connect_with_connector_lazy(connector);
        let (progress, health) = (Progress::new(), Health::new());
        let (publisher, intake) = Publisher::new("test", false, limits, &progress, health.component("publish"));
        let publishing = tokio::spawn(async move { publisher.run(channel).await });
        Self { streams, reachable, publishing, intake, progress, health }
    }

    fn feed(&self) -> Feed {
        self.intake.feed(self.progress.source("kraken", SourceKind::Venue))
    }

    async fn stream(&mut self) -> Served {
        self.streams.recv().await.expect("the server runs")
    }

    /// No more sources: the publisher must come to its end.
    async fn end(self, stream: Served) {
        drop(self.intake);
        // A fanout ends its answers when the requests end.
        drop(stream);
        self.publishing.await.expect("the publisher does not panic");
    }
}

fn listed() -> Out {
    let instrument = Instrument {
        venue: "kraken".into(),
        symbol: "BTC-USD".into(),
        native: "BTC/USD".into(),
        tick_size: None,
        lot_size: None,
        channels: vec![Kanal::Trade, Kanal::Book],
    };
    Out { instruments: vec![(0, instrument)], ..Out::default() }
}

fn trades(ids: std::ops::Range<u32>) -> Out {
    let mut out = Out::default();
    for id in ids {
        let trade = Trade {
            price: Decimal::from(id),
            size: Decimal::ONE,
            side: None,
            trade_id: id.to_string().into(),
            reference: None,
        };
        out.updates.push(update(Kanal::Trade, Kind::Update, Data::Trade(trade)));
    }
    out
}

fn book(kind: Kind) -> Out {
    let levels = Levels { bids: vec![Level { price: Decimal::ONE, size: Decimal::ONE }], ..Levels::default() };
    Out { updates: vec![update(Kanal::Book, kind, Data::Book(levels))], ..Out::default() }
}

fn update(channel: Kanal, kind: Kind, data: Data) -> Update {
    Update { instrument: 0, channel, kind, ts: Some(Time(5)), recv: Time(7), data }
}

fn ids(events: &[v1::NewEvent]) -> Vec<u32> {
    events
        .iter()
        .filter_map(|e| match e.event.as_ref()?.data.as_ref()? {
            v1::event::Data::Trade(t) => t.trade_id.parse().ok(),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn events_arrive_in_order_behind_their_instrument() {
    let mut world = World::new(Limits::default());
    let mut feed = world.feed();
    let mut stream = world.stream().await;
    let hello = stream.next().await;
    assert_eq!((hello.batch, hello.events.len()), (1, 0), "the fanout hears who is there");
    assert!(hello.source.starts_with("test-"), "{}", hello.source);
    assert!(!world.health.readiness().ready);
    stream.ack(1, 0).await;
    feed.publish(&mut listed()).await.expect("runs");
    feed.publish(&mut trades(0..3)).await.expect("runs");
    let mut request = stream.next().await;
    assert_eq!((request.batch, request.source.as_str()), (2, ""), "the name is told once");
    let instrument = request.instruments.pop().expect("announced").instrument.expect("set");
    assert_eq!((instrument.venue.as_str(), instrument.symbol.as_str()), ("kraken", "BTC-USD"));
    stream.ack(2, request.events.len() as u64).await;
    let mut events = request.events;
    events.append(&mut stream.take(3 - events.len()).await);
    assert_eq!(ids(&events), [0, 1, 2]);
    let event = events[0].event.as_ref().expect("set");
    assert_eq!((event.ts, event.recv, events[0].channel.as_str()), (5, 7, "trade"));
    drop(feed);
    world.end(stream).await;
}

#[tokio::test]
async fn a_broken_stream_loses_and_renames_nothing() {
    let mut world = World::new(Limits::default());
    let mut feed = world.feed();
    feed.publish(&mut listed()).await.expect("runs");
    feed.publish(&mut trades(0..2)).await.expect("runs");
    let mut stream = world.stream().await;
    let first = stream.next().await;
    feed.publish(&mut trades(2..4)).await.expect("runs");
    let second = stream.next().await;
    stream.ack(first.batch, 2).await;
    stream.fail(Status::unavailable("going away")).await;
    let mut stream = world.stream().await;
    let again = stream.next().await;
    assert!(again.batch <= second.batch && again.source == first.source, "the same source goes on");
    assert_eq!(again.instruments.len(), 1, "numbers hold for one stream only");
    // The acknowledgement may have been lost with the stream; then the fanout leaves the first batch out by its number.
    let mut got = if again.batch == first.batch { Vec::new() } else { ids(&again.events) };
    stream.ack(again.batch, 2).await;
    if got.is_empty() {
        got = ids(&stream.next().await.events);
        stream.ack(second.batch, 2).await;
    }
    assert_eq!((ids(&first.events), got), (vec![0, 1], vec![2, 3]));
    feed.publish(&mut trades(4..5)).await.expect("runs");
    assert_eq!(ids(&stream.take(1).await), [4]);
    drop(feed);
    world.end(stream).await;
}

#[tokio::test]
async fn to_a_fanout_that_knows_nothing_everything_is_told_again() {
    let mut world = World::new(Limits::default());
    let mut feed = world.feed();
    let mut stream = world.stream().await;
    let hello = stream.next().await;
    stream.ack(hello.batch, 0).await;
    feed.publish(&mut listed()).await.expect("runs");
    let _lost = stream.next().await;
    stream.fail(Status::failed_precondition("unknown source `test`")).await;
    feed.retell_wanted().await.expect("runs");
    // Told before the retelling, but after the fanout began anew.
    feed.publish(&mut book(Kind::Update)).await.expect("runs");
    feed.publish(&mut trades(7..8)).await.expect("runs");
    feed.retelling();
    assert!(!feed.is_retell_wanted());
    feed.publish(&mut listed()).await.expect("runs");
    feed.publish(&mut book(Kind::Snapshot)).await.expect("runs");
    let mut stream = world.stream().await;
    let first = stream.next().await;
    assert_eq!(first.batch, 1);
    assert_ne!(first.source, hello.source);
    assert_eq!(first.instruments[0].number, 0);
    stream.ack(1, 0).await;
    let mut events = first.events;
    let missing = 2usize.saturating_sub(events.len());
    events.append(&mut stream.take(missing).await);
    let kinds: Vec<_> = events.iter().map(|e| (e.channel.as_str(), e.event.as_ref().expect("set").kind())).collect();
    assert_eq!(kinds, [("trade", v1::Kind::Update), ("book", v1::Kind::Snapshot)], "no update without a snapshot");
    drop(feed);
    world.end(stream).await;
}

#[tokio::test]
async fn while_the_fanout_is_away_memory_is_bounded_and_nothing_is_lost() {
    let limits = Limits { queue_bytes_max: 1 << 16, ..Limits::default() };
    let mut world = World::new(limits);
    world.reachable.store(false, SeqCst);
    let mut feed = world.feed();
    feed.publish(&mut listed()).await.expect("runs");
    let mut told = 0u32;
    let mut waiting = loop {
        let mut out = trades(told..told + 10);
        told += 10;
        assert!(told < 100_000, "the queue has no end");
        // Publishing owns the feed while it waits, as a source's task does.
        let mut publishing = Box::pin(async move {
            let done = feed.publish(&mut out).await;
            (feed, done)
        });
        match poll_immediate(unconstrained(&mut publishing)).await {
            Some((back, done)) => {
                done.expect("runs");
                feed = back;
            }
            None => break publishing,
        }
    };
    assert!(world.intake.room.available_permits() < 1 << 16);
    assert!(poll_immediate(&mut waiting).await.is_none(), "the source waits");
    assert!(!world.health.readiness().ready);
    world.reachable.store(true, SeqCst);
    let mut stream = world.stream().await;
    let (events, (feed, done)) = tokio::join!(stream.take(told as usize), waiting);
    done.expect("runs");
    assert_eq!(ids(&events), (0..told).collect::<Vec<_>>());
    drop(feed);
    world.end(stream).await;
}

#[tokio::test]
async fn unacknowledged_batches_are_bounded() {
    let limits = Limits { unacked_batches_max: 3, ..Limits::default() };
    let mut world = World::new(limits);
    let mut feed = world.feed();
    feed.publish(&mut listed()).await.expect("runs");
    let mut stream = world.stream().await;
    let mut requests = vec![stream.next().await];
    for id in 0..2 {
        feed.publish(&mut trades(id..id + 1)).await.expect("runs");
        requests.push(stream.next().await);
    }
    feed.publish(&mut trades(2..3)).await.expect("runs");
    assert!(poll_immediate(Box::pin(stream.next())).await.is_none(), "three are not acknowledged");
    stream.ack(1, 0).await;
    let next = stream.next().await;
    assert_eq!((next.batch, ids(&next.events)), (4, vec![2]));
    stream.ack(4, 3).await;
    drop(feed);
    world.end(stream).await;
}

#[tokio::test]
async fn a_batch_that_is_refused_again_and_again_is_given_up() {
    let mut world = World::new(Limits::default());
    let mut feed = world.feed();
    let mut name = String::new();
    for _ in 0..REFUSALS_MAX {
        let mut stream = world.stream().await;
        name = stream.next().await.source;
        stream.fail(Status::out_of_range("too large")).await;
    }
    feed.retell_wanted().await.expect("runs");
    let mut stream = world.stream().await;
    let request = stream.next().await;
    assert_eq!(request.batch, 1);
    assert_ne!(request.source, name);
    stream.ack(1, 0).await;
    drop(feed);
    world.end(stream).await;
}
