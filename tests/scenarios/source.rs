//! The only one who publishes: it decides what happens and when, and keeps the record that readers are held against.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ticker_market::{
    Book, Channel, Cursor, Data, Decimal, Event, Instrument, Integrity, Kind, Level, Levels, Quote, Side, State,
    Status, Time, Topic, Trade,
};
use ticker_proto::convert::{event_to_wire, instrument_to_wire};
use ticker_proto::v1::{self, ingest_client::IngestClient};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::rig::bounded;

/// Batches that are under way at once.
const BATCHES_MAX: usize = 64;

/// Events in one batch of a flood.
const FLOOD_BATCH: usize = 500;

/// Everything that was published, with its place on the tape.
#[derive(Default)]
pub(crate) struct Record {
    events: BTreeMap<String, Vec<Event>>,
    books: HashMap<String, Book>,
    /// The sum of a book topic (derived ones included) after each change of the book.
    sums: HashMap<String, BTreeMap<u64, u32>>,
    /// The tape's last place.
    pub(crate) cursor: Option<Cursor>,
}

impl Record {
    fn take(&mut self, topic: &Topic, event: Event) {
        let seq = event.seq;
        if let Data::Book(levels) = &event.data {
            let book = self.books.entry(topic.symbol.to_string()).or_default();
            match event.kind {
                Kind::Snapshot => book.replace(levels).expect("fits"),
                _ => book.apply(levels).expect("fits"),
            }
            for (channel, sum) in [
                (Channel::Book, book.sum()),
                (Channel::Book10, book.to_levels_of(10).sum),
                (Channel::Book50, book.to_levels_of(50).sum),
            ] {
                let topic = format!("{}/{}/{}", channel.as_str(), topic.venue, topic.symbol);
                self.sums.entry(topic).or_default().insert(seq, sum);
            }
        }
        self.events.entry(topic.to_string()).or_default().push(event);
    }

    /// What was published on a topic, in order.
    pub(crate) fn of(&self, topic: &str) -> &[Event] {
        self.events.get(topic).map_or(&[], Vec::as_slice)
    }

    /// The event of a topic at a place.
    pub(crate) fn at(&self, topic: &str, seq: u64) -> Option<&Event> {
        let all = self.of(topic);
        all.binary_search_by_key(&seq, |e| e.seq).ok().map(|at| &all[at])
    }

    /// The place of the last event of a topic; 0 if there was none.
    pub(crate) fn last(&self, topic: &str) -> u64 {
        self.of(topic).last().map_or(0, |e| e.seq)
    }

    /// The sum of a book topic at a place.
    pub(crate) fn sum_at(&self, topic: &str, seq: u64) -> Option<u32> {
        self.sums.get(topic)?.range(..=seq).next_back().map(|(_, sum)| *sum)
    }

    /// The whole book of a symbol.
    pub(crate) fn book(&self, symbol: &str) -> &Book {
        &self.books[symbol]
    }

    /// The tape's last place, as a cursor.
    pub(crate) fn cursor(&self) -> String {
        self.cursor.as_ref().expect("something was published").to_string()
    }
}

/// One stream of batches into a fanout.
pub(crate) struct Source {
    pub(crate) record: Record,
    pub(crate) rng: fastrand::Rng,
    requests: mpsc::Sender<v1::PublishRequest>,
    answers: Streaming<v1::PublishResponse>,
    batch: u64,
    numbers: HashMap<String, u32>,
    said: u64,
    /// When what is published next happens, by the venue's clock and by ours.
    pub(crate) time: Time,
}

impl Source {
    /// `recorded`: for what is derived, time goes on with what is published.
    pub(crate) async fn open(grpc: &str, recorded: bool) -> Self {
        let mut client = bounded("a connection to the fanout", IngestClient::connect(grpc.to_owned())).await;
        let client = client.as_mut().expect("it is there");
        let (requests, receiver) = mpsc::channel(BATCHES_MAX);
        // The stream opens with its first message.
        let first = v1::PublishRequest { source: "trial".into(), batch: 1, recorded, ..Default::default() };
        requests.try_send(first).expect("room");
        let answers = client.publish(ReceiverStream::new(receiver)).await.expect("it is open").into_inner();
        let mut source = Self {
            record: Record::default(),
            rng: fastrand::Rng::with_seed(7),
            requests,
            answers,
            batch: 1,
            numbers: HashMap::new(),
            said: 0,
            time: Time(5_000),
        };
        source.answer(0).await;
        source
    }

    /// An instrument appears, with every channel that an ingest service gives.
    pub(crate) async fn announce(&mut self, symbol: &str) {
        self.announce_at("alpha", symbol).await;
    }

    /// The same, at a venue.
    pub(crate) async fn announce_at(&mut self, venue: &str, symbol: &str) {
        let number = self.numbers.len() as u32;
        self.numbers.insert(format!("{venue}/{symbol}"), number);
        let instrument = Instrument {
            venue: venue.into(),
            symbol: symbol.into(),
            native: symbol.into(),
            tick_size: None,
            lot_size: None,
            channels: vec![Channel::Quote, Channel::Trade, Channel::Book],
        };
        let instrument = v1::NumberedInstrument { number, instrument: Some(instrument_to_wire(&instrument)) };
        self.send(vec![instrument], Vec::new()).await;
        self.answer(0).await;
    }

    /// Publishes one event and waits until it is on the tape. Returns its place.
    pub(crate) async fn put(&mut self, topic: &str, kind: Kind, data: Data) -> u64 {
        self.flood(vec![(topic.to_owned(), kind, data)]).await
    }

    /// Publishes many, and waits until the last is on the tape. Returns its place.
    pub(crate) async fn flood(&mut self, all: Vec<(String, Kind, Data)>) -> u64 {
        let mut open = Vec::new();
        for batch in all.chunks(FLOOD_BATCH) {
            let events: Vec<(Topic, Event)> = batch
                .iter()
                .map(|(topic, kind, data)| {
                    let topic: Topic = topic.parse().expect("a topic");
                    (topic.clone(), event(&topic, *kind, data.clone(), self.time))
                })
                .collect();
            let wire = events
                .iter()
                .map(|(topic, event)| v1::NewEvent {
                    instrument: self.numbers[&format!("{}/{}", topic.venue, topic.symbol)],
                    channel: topic.channel.as_str().to_owned(),
                    event: Some(event_to_wire(event)),
                })
                .collect();
            self.send(Vec::new(), wire).await;
            open.push(events);
            if open.len() == BATCHES_MAX / 2 {
                self.settle(&mut open).await;
            }
        }
        self.settle(&mut open).await;
        self.record.cursor.as_ref().expect("something was published").seq
    }

    async fn settle(&mut self, open: &mut Vec<Vec<(Topic, Event)>>) {
        for batch in open.drain(..) {
            let last = self.answer(batch.len() as u64).await;
            // Nobody else publishes: the batch's events have the places up to its last one, in order.
            let first = last + 1 - batch.len() as u64;
            for (seq, (topic, event)) in (first..).zip(batch) {
                self.record.take(&topic, Event { seq, ..event });
            }
        }
    }

    async fn send(&mut self, instruments: Vec<v1::NumberedInstrument>, events: Vec<v1::NewEvent>) {
        self.batch += 1;
        let request = v1::PublishRequest { batch: self.batch, instruments, events, ..Default::default() };
        bounded("a batch goes out", self.requests.send(request)).await.expect("the stream is open");
    }

    /// Waits for a batch's answer; returns the tape's last place after it.
    async fn answer(&mut self, events: u64) -> u64 {
        let answer = bounded("a batch is answered", self.answers.message()).await;
        let answer = answer.expect("the stream is open").expect("it goes on");
        assert_eq!((answer.accepted, answer.refused), (events, 0), "everything is put on the tape");
        let cursor: Cursor = answer.cursor.parse().expect("a cursor");
        let seq = cursor.seq;
        self.record.cursor = Some(cursor);
        seq
    }

    // ---- What can happen.

    /// A trade with an id of its own.
    pub(crate) fn trade(&mut self) -> Data {
        self.said += 1;
        Data::Trade(Trade {
            price: Decimal::new(1_000 + (self.said % 97) as i64, 2),
            size: Decimal::new(1 + (self.said % 13) as i64, 3),
            side: Some(if self.said.is_multiple_of(2) { Side::Buy } else { Side::Sell }),
            trade_id: self.said.to_string().into(),
            reference: None,
        })
    }

    /// A quote that differs from every other.
    pub(crate) fn quote(&mut self) -> Data {
        self.said += 1;
        let said = self.said as i64;
        let level = |price, size| Some(Level { price: Decimal::new(price, 2), size: Decimal::new(size, 3) });
        Data::Quote(Quote { bid: level(10_000, said), ask: level(10_001, 2 * said), ..Quote::default() })
    }

    /// A book of so many levels on each side.
    pub(crate) fn book(&mut self, levels: i64) -> Data {
        let side = |sign: i64| (1..=levels).map(|i| level(100_000 + sign * i, 1 + i % 50)).collect();
        Data::Book(Levels { bids: side(-1), asks: side(1), ..Levels::default() })
    }

    /// A change of some levels among the best `depth` of each side.
    pub(crate) fn change(&mut self, depth: i64) -> Data {
        let mut side = |sign: i64| -> Vec<Level> {
            let count = self.rng.usize(0..4);
            (0..count)
                .map(|_| {
                    let size = if self.rng.u8(0..3) == 0 { 0 } else { self.rng.i64(1..1_000) };
                    level(100_000 + sign * self.rng.i64(1..=depth), size)
                })
                .collect()
        };
        let (bids, mut asks) = (side(-1), side(1));
        if bids.is_empty() && asks.is_empty() {
            asks.push(level(100_001, self.rng.i64(1..1_000)));
        }
        Data::Book(Levels { bids, asks, ..Levels::default() })
    }

    /// Both books begin.
    pub(crate) async fn begin_books(&mut self, levels: i64) {
        for symbol in ["A-USD", "B-USD"] {
            let book = self.book(levels);
            self.put(&format!("book/alpha/{symbol}"), Kind::Snapshot, book).await;
        }
    }

    /// Many things happen, one after the other, to `A-USD` and `B-USD`; their books must have begun.
    pub(crate) async fn bustle(&mut self, events: usize) {
        for _ in 0..events {
            let symbol = if self.rng.bool() { "A-USD" } else { "B-USD" };
            let (channel, data) = match self.rng.u8(0..5) {
                0 | 1 => ("trade", self.trade()),
                2 => ("quote", self.quote()),
                3 if self.rng.u8(0..4) == 0 => ("status", self.status()),
                _ => ("book", self.change(80)),
            };
            self.put(&format!("{channel}/alpha/{symbol}"), Kind::Update, data).await;
        }
    }

    fn status(&mut self) -> Data {
        let state = State::ALL[self.rng.usize(0..State::ALL.len())];
        Data::Status(Status { state, integrity: Integrity::Sequenced, reason: None, last_verified: None })
    }

    /// So many trades.
    pub(crate) fn trades(&mut self, topic: &str, count: usize) -> Vec<(String, Kind, Data)> {
        (0..count).map(|_| (topic.to_owned(), Kind::Update, self.trade())).collect()
    }

    /// So many quotes.
    pub(crate) fn quotes(&mut self, topic: &str, count: usize) -> Vec<(String, Kind, Data)> {
        (0..count).map(|_| (topic.to_owned(), Kind::Update, self.quote())).collect()
    }
}

fn level(price: i64, size: i64) -> Level {
    Level { price: Decimal::new(price, 2), size: Decimal::new(size, 3) }
}

fn event(topic: &Topic, kind: Kind, data: Data, time: Time) -> Event {
    let (topic, recv) = (Arc::new(topic.clone()), time.plus_nanos(1_000));
    Event { topic, seq: 0, prev: 0, kind, ts: Some(time), recv, published: Time(0), data }
}
