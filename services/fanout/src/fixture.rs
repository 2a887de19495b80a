//! What the tests of this crate stand on: a random venue, and a checker that lays what a follower got against the tape.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use ticker_market::{
    Book, Channel, Class, Data, Decimal, Epoch, Event, Instrument, Integrity, Kind, Level, Levels, Quote, State,
    Status, Time, Topic, Trade,
};
use ticker_proto::convert::event_from_wire;
use ticker_proto::v1::{self, follow_response::Step};
use ticker_runtime::Drain;
use ticker_tape::{Limits, Tape, TopicId};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::core::{Core, CoreLimits};
use crate::sources::Stream;
use crate::{Config, Fanout};

pub(crate) const LIMITS: CoreLimits =
    CoreLimits { instruments_max: 1_000, sources_max: 4, source_grace_nanos: 5_000_000_000 };

pub(crate) fn core() -> Core {
    core_with(Limits::default())
}

pub(crate) fn core_with(limits: Limits) -> Core {
    Core::new(Tape::new(Epoch::new("e1").expect("valid"), limits), LIMITS)
}

pub(crate) fn instrument(symbol: &str) -> Instrument {
    Instrument {
        venue: "kraken".into(),
        symbol: symbol.into(),
        native: symbol.into(),
        tick_size: None,
        lot_size: None,
        channels: vec![Channel::Quote, Channel::Trade, Channel::Book],
    }
}

pub(crate) fn topic(text: &str) -> Topic {
    text.parse().expect(text)
}

pub(crate) fn level(price: i64, size: i64) -> Level {
    Level { price: Decimal::new(price, 2), size: Decimal::new(size, 3) }
}

pub(crate) fn levels(bids: &[(i64, i64)], asks: &[(i64, i64)]) -> Data {
    let side = |list: &[(i64, i64)]| list.iter().map(|(p, s)| level(*p, *s)).collect();
    Data::Book(Levels { bids: side(bids), asks: side(asks), ..Levels::default() })
}

pub(crate) fn quote(bid: i64, ask: i64) -> Data {
    Data::Quote(Quote { bid: Some(level(bid, 1_000)), ask: Some(level(ask, 1_000)), ..Quote::default() })
}

pub(crate) fn trade(id: u64) -> Data {
    Data::Trade(Trade {
        price: Decimal::ONE,
        size: Decimal::ONE,
        side: None,
        trade_id: id.to_string().into(),
        reference: None,
    })
}

pub(crate) fn status(state: State) -> Data {
    Data::Status(Status { state, integrity: Integrity::Sequenced, reason: None, last_verified: None })
}

/// An event as it comes from an ingest service.
pub(crate) fn event(topic: &Topic, kind: Kind, data: Data) -> Event {
    let topic = Arc::new(topic.clone());
    Event { topic, seq: 0, prev: 0, kind, ts: Some(Time(5)), recv: Time(6), published: Time(0), data }
}

/// A core that one source publishes to.
pub(crate) struct Published {
    pub(crate) core: Core,
    pub(crate) stream: Stream,
    pub(crate) now: Time,
}

impl Published {
    pub(crate) fn new(core: Core, symbols: &[&str]) -> Self {
        let mut core = core;
        let stream = core.attach("s1", 1, Time(0)).expect("a new source");
        let mut published = Self { core, stream, now: Time(0) };
        symbols.iter().for_each(|s| published.announce(s));
        published
    }

    pub(crate) fn announce(&mut self, symbol: &str) {
        self.core.announce(self.stream.source, instrument(symbol), self.now).expect("fits");
    }

    pub(crate) fn put(&mut self, text: &str, kind: Kind, data: Data) -> Result<(), crate::append::Refusal> {
        self.now = self.now.plus_millis(1);
        let topic = topic(text);
        let id = self.core.topic_id(&topic).expect("announced");
        self.core.put(id, event(&topic, kind, data), self.now)
    }

    pub(crate) fn id(&self, text: &str) -> TopicId {
        self.core.topic_id(&topic(text)).expect("announced")
    }

    /// The topic's newest event.
    pub(crate) fn last(&self, text: &str) -> Event {
        Event::clone(self.core.topics[self.id(text).index()].last.as_ref().expect("something happened"))
    }
}

/// A random venue: everything that it says can be applied.
pub(crate) struct Venue {
    rng: fastrand::Rng,
    symbols: usize,
    synced: HashSet<usize>,
    said: u64,
}

impl Venue {
    pub(crate) fn new(seed: u64, symbols: usize) -> Self {
        Self { rng: fastrand::Rng::with_seed(seed), symbols, synced: HashSet::new(), said: 0 }
    }

    pub(crate) fn symbol(at: usize) -> String {
        format!("S{at}-USD")
    }

    pub(crate) fn add_symbol(&mut self) -> String {
        self.symbols += 1;
        Self::symbol(self.symbols - 1)
    }

    /// Which instrument, and what happens to it.
    pub(crate) fn say(&mut self) -> (usize, Event) {
        self.said += 1;
        let at = self.rng.usize(..self.symbols);
        let named = |channel: &str| topic(&format!("{channel}/kraken/{}", Self::symbol(at)));
        let event = match self.rng.u8(..20) {
            0 => event(&named("status"), Kind::Update, status(State::ALL[self.rng.usize(..6)])),
            1..=4 => event(&named("trade"), Kind::Update, trade(self.said)),
            5 if self.rng.bool() => event(&named("quote"), Kind::Invalid, Data::Invalid("gap".into())),
            5..=8 => event(&named("quote"), Kind::Update, quote(self.rng.i64(1..99), self.rng.i64(101..200))),
            _ if !self.synced.contains(&at) => {
                self.synced.insert(at);
                let side = |from: i64, sign: i64| (0..70).map(|i| (from + sign * i * 2, 1 + i)).collect::<Vec<_>>();
                event(&named("book"), Kind::Snapshot, levels(&side(9_999, -1), &side(10_001, 1)))
            }
            9 if self.rng.u8(..4) == 0 => {
                self.synced.remove(&at);
                event(&named("book"), Kind::Invalid, Data::Invalid("gap".into()))
            }
            _ => {
                let mut side = |from: i64, sign: i64| {
                    let size = |rng: &mut fastrand::Rng| if rng.bool() { 0 } else { rng.i64(1..50) };
                    (0..self.rng.usize(..3))
                        .map(|_| (from + sign * self.rng.i64(0..150), size(&mut self.rng)))
                        .collect::<Vec<_>>()
                };
                let (bids, asks) = (side(9_999, -1), side(10_001, 1));
                event(&named("book"), Kind::Update, levels(&bids, &asks))
            }
        };
        (at, event)
    }
}

/// A time in which a follower carried a topic.
#[derive(Debug)]
pub(crate) struct Carried {
    topic: Topic,
    number: u32,
    /// It was joined here, with this as its last event.
    since: u64,
    last: u64,
    /// After a resume there are none.
    with_snapshot: bool,
    snapshot: Option<Event>,
    events: Vec<Event>,
    until: Option<u64>,
}

/// Reads what a follower is told, and lays it against the tape.
#[derive(Default)]
pub(crate) struct Checker {
    pub(crate) opened: Option<v1::Opened>,
    pub(crate) instruments: Vec<String>,
    pub(crate) carried: Vec<Carried>,
    pub(crate) parts: HashMap<(u32, u64), Vec<v1::Event>>,
    /// Everything up to here has been told.
    pub(crate) position: u64,
    pub(crate) events: usize,
}

impl Checker {
    pub(crate) fn is_carried(&self, text: &str) -> bool {
        self.carried.iter().any(|c| c.until.is_none() && c.topic == topic(text))
    }

    pub(crate) fn last_given(&self, text: &str) -> Option<u64> {
        self.carried.iter().rfind(|c| c.topic == topic(text)).map(|c| c.last)
    }

    pub(crate) fn take(&mut self, message: v1::FollowResponse) {
        match message.step.expect("a step") {
            Step::Opened(opened) => {
                assert!(self.opened.is_none(), "once");
                self.position = opened.cursor.parse::<ticker_market::Cursor>().expect("a cursor").seq;
                self.opened = Some(opened);
            }
            Step::Instruments(list) => self.instruments.extend(list.instruments.into_iter().map(|i| i.symbol)),
            Step::Added(added) => self.added(added),
            Step::Removed(removed) => {
                for number in removed.topics {
                    let carried = self.carrying(number).expect("carried");
                    carried.until = Some(0);
                    let at = self.position;
                    self.carried.iter_mut().filter(|c| c.until == Some(0)).for_each(|c| c.until = Some(at));
                }
            }
            Step::Events(events) => {
                for numbered in events.events {
                    let event = numbered.event.expect("an event");
                    assert!(event.seq > self.position, "nothing at or below a place that was called complete");
                    if let Some(whole) = self.whole(numbered.topic, event) {
                        self.events += 1;
                        let carried = self.carrying(numbered.topic).expect("only of carried topics");
                        assert!(whole.seq > carried.since);
                        let topic = Arc::new(carried.topic.clone());
                        carried.events.push(event_from_wire(topic, whole).expect("valid"));
                    }
                }
                assert!(events.seq >= self.position);
                self.position = events.seq;
            }
            Step::Progress(progress) => {
                assert!(progress.seq >= self.position);
                self.position = progress.seq;
            }
        }
    }

    fn added(&mut self, added: v1::Added) {
        assert!(added.seq >= self.position);
        self.position = added.seq;
        let resumed = self.opened.as_ref().is_some_and(|o| {
            o.resumed && o.cursor.parse::<ticker_market::Cursor>().expect("a cursor").seq == added.seq
        });
        for numbered in added.topics {
            let topic = topic(&numbered.topic);
            assert!(self.instruments.contains(&topic.symbol.to_string()), "instruments come before topics");
            assert!(!self.is_carried(&numbered.topic), "given twice: {topic}");
            self.carried.push(Carried {
                topic,
                number: numbered.number,
                since: added.seq,
                last: numbered.last,
                with_snapshot: !resumed,
                snapshot: None,
                events: Vec::new(),
                until: None,
            });
        }
        for numbered in added.snapshots {
            if let Some(whole) = self.whole(numbered.topic, numbered.event.expect("an event")) {
                let carried = self.carrying(numbered.topic).expect("its topic came before or with it");
                let topic = Arc::new(carried.topic.clone());
                assert!(carried.snapshot.is_none());
                carried.snapshot = Some(event_from_wire(topic, whole).expect("valid"));
            }
        }
    }

    fn carrying(&mut self, number: u32) -> Option<&mut Carried> {
        self.carried.iter_mut().find(|c| c.number == number && c.until.is_none())
    }

    /// Puts parts together.
    fn whole(&mut self, topic: u32, event: v1::Event) -> Option<v1::Event> {
        if event.parts == 0 {
            return Some(event);
        }
        let key = (topic, event.seq);
        let parts = self.parts.entry(key).or_default();
        assert_eq!(event.part as usize, parts.len() + 1, "parts come in order");
        let done = event.part == event.parts;
        parts.push(event);
        if !done {
            return None;
        }
        let parts = self.parts.remove(&key).expect("just there");
        let mut whole = v1::Event { part: 0, parts: 0, ..parts[0].clone() };
        let Some(v1::event::Data::Book(book)) = &mut whole.data else { panic!("only books come in parts") };
        for part in &parts[1..] {
            let Some(v1::event::Data::Book(some)) = &part.data else { panic!("only books come in parts") };
            book.bids.extend(some.bids.iter().cloned());
            book.asks.extend(some.asks.iter().cloned());
        }
        Some(whole)
    }

    /// Nothing is missing, nothing is doubled, and each snapshot is what the tape makes of the topic at its place. The
    /// tape must have forgotten nothing.
    pub(crate) fn check(&self, core: &Core) {
        assert!(self.parts.is_empty());
        let tape = core.tape();
        for carried in &self.carried {
            let id = core.topic_id(&carried.topic).expect("known");
            let until = carried.until.unwrap_or(self.position);
            let expected: Vec<Event> =
                tape.events_of(&[id], carried.since).map(|(_, e)| Event::clone(e)).filter(|e| e.seq <= until).collect();
            let seqs = |list: &[Event]| list.iter().map(|e| e.seq).collect::<Vec<_>>();
            assert_eq!(seqs(&carried.events), seqs(&expected), "{} after {}", carried.topic, carried.since);
            assert_eq!(carried.events, expected);
            assert_eq!(carried.last, tape.last_at(id, carried.since), "{} at {}", carried.topic, carried.since);
            let value = value_at(core, id, carried.since);
            if carried.with_snapshot {
                assert_eq!(carried.snapshot, value, "{} at {}", carried.topic, carried.since);
            } else {
                assert_eq!(carried.snapshot, None);
            }
            // The rebuilt book proves itself after every event.
            let mut book = Book::new();
            let mut good = false;
            for event in value.iter().chain(&carried.events) {
                apply(&mut book, &mut good, event);
            }
        }
    }
}

/// Applies an event to a book, and checks its sums.
pub(crate) fn apply(book: &mut Book, good: &mut bool, event: &Event) {
    let Data::Book(levels) = &event.data else {
        *good = *good && event.kind != Kind::Invalid;
        return;
    };
    match event.kind {
        Kind::Snapshot => book.replace(levels).expect("fits"),
        _ => {
            assert!(*good, "no update comes before a snapshot: {} at {}", event.topic, event.seq);
            book.apply(levels).expect("fits");
        }
    }
    *good = true;
    assert_eq!((levels.crc, levels.sum), (book.crc(), book.sum()), "{} at {}", event.topic, event.seq);
    assert!(event.topic.channel.derived_depth().is_none_or(|depth| book.bids().len().max(book.asks().len()) <= depth));
}

/// What the tape alone makes of a topic at a place: independent of what the core holds.
pub(crate) fn value_at(core: &Core, id: TopicId, at: u64) -> Option<Event> {
    let (mut book, mut good) = (Book::new(), false);
    let mut last = None;
    for (_, event) in core.tape().events_of(&[id], 0).filter(|(_, e)| e.seq <= at) {
        apply(&mut book, &mut good, event);
        last = Some(Event::clone(event));
    }
    let last = last?;
    match last.topic.channel.class() {
        Class::Event => None,
        _ if last.kind == Kind::Invalid => Some(Event { prev: 0, ..last }),
        Class::Book => Some(Event { prev: 0, kind: Kind::Snapshot, data: Data::Book(book.to_levels()), ..last }),
        Class::State => Some(Event { prev: 0, kind: Kind::Snapshot, ..last }),
    }
}

/// Lays the whole tape against an independent recomputation: chains, sums, derived books.
pub(crate) fn check_tape(core: &Core) {
    let mut last: HashMap<Topic, u64> = HashMap::new();
    let mut books: BTreeMap<String, (Book, bool)> = BTreeMap::new();
    let mut group: Vec<Event> = Vec::new();
    for entry in core.tape().since(0).expect("nothing was forgotten") {
        let ticker_tape::Record::Event(_, event) = &entry.record else { continue };
        let before = last.insert(Topic::clone(&event.topic), event.seq).unwrap_or(0);
        assert!(before < event.seq, "one event for each place and topic");
        assert_eq!(event.prev, if event.kind == Kind::Snapshot { 0 } else { before });
        if event.topic.channel.class() == Class::State && before == 0 {
            assert_ne!(event.kind, Kind::Update, "a state topic begins with a snapshot");
        }
        if group.first().is_some_and(|g| g.seq != event.seq) {
            check_group(&mut books, &group);
            group.clear();
        }
        group.push(Event::clone(event));
    }
    check_group(&mut books, &group);
}

fn check_group(books: &mut BTreeMap<String, (Book, bool)>, group: &[Event]) {
    for event in group.iter().filter(|e| e.topic.channel.class() == Class::Book) {
        let (book, good) = books.entry(event.topic.to_string()).or_default();
        apply(book, good, event);
    }
    let Some(cause) = group.first().filter(|e| e.topic.channel == Channel::Book) else { return };
    assert!(group.iter().all(|e| e.published == cause.published && e.kind == cause.kind));
    let best = |channel: Channel, depth: usize| {
        let levels = books[&cause.topic.to_string()].0.to_levels_of(depth);
        let (derived, good) = &books[&cause.topic.with_channel(channel).to_string()];
        assert_eq!(*good, cause.kind != Kind::Invalid);
        if *good {
            let levels = (levels.bids, levels.asks, levels.sum);
            let derived = derived.to_levels();
            assert_eq!((derived.bids, derived.asks, derived.sum), levels, "{channel} at {}", cause.seq);
        }
    };
    best(Channel::Book10, 10);
    best(Channel::Book50, 50);
}

/// A fanout behind in-memory pipes.
pub(crate) struct Served {
    pub(crate) fanout: Fanout,
    pub(crate) drain: Drain,
    connect: mpsc::Sender<Result<DuplexStream, std::io::Error>>,
    pub(crate) server: tokio::task::JoinHandle<Result<(), crate::FanoutError>>,
}

impl Served {
    pub(crate) fn new(config: Config) -> Self {
        let drain = Drain::new();
        let fanout = Fanout::with_epoch(config, drain.clone(), Epoch::new("e1").expect("valid"));
        let (connect, incoming) = mpsc::channel(4);
        let serving = fanout.clone();
        let server = tokio::spawn(async move { serving.serve_with_incoming(ReceiverStream::new(incoming)).await });
        Self { fanout, drain, connect, server }
    }

    pub(crate) async fn channel(&self) -> tonic::transport::Channel {
        let connect = self.connect.clone();
        let connector = tower::service_fn(move |_: http::Uri| {
            let connect = connect.clone();
            async move {
                let (ours, theirs) = tokio::io::duplex(64 << 10);
                connect.send(Ok(theirs)).await.map_err(std::io::Error::other)?;
                Ok::<_, std::io::Error>(TokioIo::new(ours))
            }
        });
        tonic::transport::Endpoint::from_static("http://fanout")
            .connect_with_connector(connector)
            .await
            .expect("in memory")
    }
}
