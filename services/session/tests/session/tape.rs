//! A tape that remembers everything, and makes events up.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use ticker_market::book::BookSide;
use ticker_market::{
    Bar, Book, Channel, Class, Data, Decimal, Event, Instrument, Integrity, Kind, Level, Levels, Quote, Side, State,
    Status, Time, Topic, Trade,
};
use ticker_proto::Frame;

/// What happened at one place of the tape.
pub(crate) enum Entry {
    Events(u64, Vec<Arc<Frame>>),
    Instrument(u64, Instrument),
}

impl Entry {
    pub(crate) fn seq(&self) -> u64 {
        match self {
            Entry::Events(seq, _) | Entry::Instrument(seq, _) => *seq,
        }
    }
}

pub(crate) struct Tape {
    pub(crate) epoch: Arc<str>,
    pub(crate) head: u64,
    pub(crate) entries: Vec<Entry>,
    pub(crate) instruments: Vec<Instrument>,
    events: BTreeMap<Topic, Vec<Arc<Frame>>>,
    books: BTreeMap<Topic, Book>,
    /// Up to where a topic's events can no longer be had.
    pub(crate) evicted: BTreeMap<Topic, u64>,
    rng: Rng,
}

pub(crate) fn topic(text: &str) -> Topic {
    text.parse().expect(text)
}

pub(crate) fn instrument(venue: &str, symbol: &str) -> Instrument {
    Instrument {
        venue: venue.into(),
        symbol: symbol.into(),
        native: symbol.into(),
        tick_size: None,
        lot_size: None,
        channels: vec![Channel::Quote, Channel::Trade, Channel::Book],
    }
}

impl Tape {
    pub(crate) fn new(epoch: &str, start: u64, seed: u64) -> Self {
        Self {
            epoch: epoch.into(),
            head: start,
            entries: Vec::new(),
            instruments: Vec::new(),
            events: BTreeMap::new(),
            books: BTreeMap::new(),
            evicted: BTreeMap::new(),
            rng: Rng::with_seed(seed),
        }
    }

    pub(crate) fn announce(&mut self, instrument: Instrument) {
        self.head += 1;
        self.instruments.push(instrument.clone());
        self.entries.push(Entry::Instrument(self.head, instrument));
    }

    pub(crate) fn events_of(&self, topic: &Topic) -> &[Arc<Frame>] {
        self.events.get(topic).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn first_after(&self, topic: &Topic, seq: u64) -> Option<&Arc<Frame>> {
        let events = self.events_of(topic);
        events.get(events.partition_point(|f| f.event.seq <= seq))
    }

    pub(crate) fn at(&self, topic: &Topic, seq: u64) -> Option<&Arc<Frame>> {
        seq.checked_sub(1).and_then(|before| self.first_after(topic, before)).filter(|f| f.event.seq == seq)
    }

    pub(crate) fn last_at(&self, topic: &Topic, seq: u64) -> Option<&Arc<Frame>> {
        let events = self.events_of(topic);
        events[..events.partition_point(|f| f.event.seq <= seq)].last()
    }

    /// How many events of the topic lie strictly between two places.
    pub(crate) fn between(&self, topic: &Topic, from: u64, to: u64) -> u64 {
        let events = self.events_of(topic);
        let (a, b) = (events.partition_point(|f| f.event.seq <= from), events.partition_point(|f| f.event.seq < to));
        b.saturating_sub(a) as u64
    }

    /// Of those, the ones that a reader must not miss: all, or only the closed bars.
    pub(crate) fn owed(&self, topic: &Topic, closed_only: bool, from: u64, to: u64) -> u64 {
        if !closed_only {
            return self.between(topic, from, to);
        }
        let events = self.events_of(topic).iter().map(|f| &f.event);
        events.filter(|e| e.is_closed_bar() && e.seq > from && e.seq < to).count() as u64
    }

    pub(crate) fn evicted(&self, topic: &Topic) -> u64 {
        self.evicted.get(topic).copied().unwrap_or(0)
    }

    /// The newest value of a state or book topic, as a fanout gives it.
    pub(crate) fn snapshot(&self, topic: &Topic) -> Option<Arc<Frame>> {
        if topic.channel.class() == Class::Event {
            return None;
        }
        let last = self.events_of(topic).last()?;
        let data = match (&last.event.kind, self.books.get(topic)) {
            (Kind::Invalid, _) | (_, None) => last.event.data.clone(),
            (_, Some(book)) => Data::Book(book.to_levels()),
        };
        let kind = if last.event.kind == Kind::Invalid { Kind::Invalid } else { Kind::Snapshot };
        Some(Arc::new(Frame::new(Event { kind, prev: 0, data, ..last.event.clone() }, Arc::clone(&self.epoch))))
    }

    /// The next place: one event of that topic, and what is derived from it.
    pub(crate) fn happen(&mut self, topic: &Topic, now: Time) {
        self.head += 1;
        let invalid = self.events_of(topic).last().is_some_and(|f| f.event.kind == Kind::Invalid);
        let dice = self.rng.u8(..);
        let mut frames = Vec::new();
        match topic.channel {
            Channel::Trade => {
                let reference = (dice < 16).then(|| "t1".into());
                let kind = if dice < 8 {
                    Kind::Cancel
                } else if dice < 16 {
                    Kind::Correction
                } else {
                    Kind::Update
                };
                let side = [None, Some(Side::Buy), Some(Side::Sell)][usize::from(dice % 3)];
                let (price, size) = (self.number(1000), self.number(50));
                let trade = Trade { price, size, side, trade_id: format!("t{}", self.head).into(), reference };
                frames.push(self.put(topic, kind, Data::Trade(trade), now));
            }
            Channel::Book | Channel::Book10 | Channel::Book50 => {
                let book = topic.with_channel(Channel::Book);
                let ten = topic.with_channel(Channel::Book10);
                let mut whole = self.books.remove(&book).unwrap_or_default();
                let first = self.events_of(&book).is_empty();
                if dice < 6 && !first && !invalid {
                    for t in [&book, &ten] {
                        frames.push(self.put(t, Kind::Invalid, Data::Invalid("checksum".into()), now));
                    }
                    whole.clear();
                } else {
                    let fresh = first || self.events_of(&book).last().is_some_and(|f| f.event.kind == Kind::Invalid);
                    let mut changes = Levels::default();
                    for _ in 0..self.rng.usize(1..if fresh { 40 } else { 6 }) {
                        let bid = self.rng.bool();
                        let at = self.rng.i64(0..25);
                        let price = Decimal::new(if bid { 1000 - at } else { 1001 + at }, 1);
                        let level = Level { price, size: Decimal::from(self.rng.u32(0..4)) };
                        let side = if bid { &mut changes.bids } else { &mut changes.asks };
                        side.retain(|l| l.price != price);
                        side.push(level);
                    }
                    whole.apply(&changes).expect("small");
                    let (crc, sum) = (whole.crc(), whole.sum());
                    let (kind, levels) = if fresh {
                        (Kind::Snapshot, whole.to_levels())
                    } else {
                        (Kind::Update, Levels { crc, sum, ..changes })
                    };
                    frames.push(self.put(&book, kind, Data::Book(levels), now));
                    let mut best = Book::new();
                    best.replace(&whole.to_levels_of(10)).expect("small");
                    let old = self.books.insert(ten.clone(), best.clone()).unwrap_or_default();
                    let levels = if fresh { best.to_levels() } else { difference(&old, &best) };
                    if fresh || !levels.bids.is_empty() || !levels.asks.is_empty() {
                        frames.push(self.put(&ten, kind, Data::Book(levels), now));
                    }
                }
                self.books.insert(book, whole);
            }
            Channel::Bar(_) => {
                // The first is never a closed one: there was a trade in it before.
                let closed = dice < 100 && !self.events_of(topic).is_empty();
                let [open, close] = [(); 2].map(|()| self.number(1000));
                let bar = Bar {
                    start: now,
                    open,
                    high: open.max(close),
                    low: open.min(close),
                    close,
                    volume: self.number(50),
                    vwap: None,
                    trades: 2,
                    closed,
                };
                frames.push(self.put(topic, Kind::Update, Data::Bar(bar), now));
            }
            Channel::Status => {
                let status = Status {
                    state: State::ALL[usize::from(dice) % State::ALL.len()],
                    integrity: Integrity::Sequenced,
                    reason: None,
                    last_verified: None,
                };
                frames.push(self.put(topic, Kind::Update, Data::Status(status), now));
            }
            _ => {
                if dice < 10 && !invalid && !self.events_of(topic).is_empty() {
                    frames.push(self.put(topic, Kind::Invalid, Data::Invalid("gap".into()), now));
                } else {
                    let level = |n: Decimal, s: Decimal| Some(Level { price: n, size: s });
                    let bid = level(self.number(1000), self.number(9));
                    let quote = Quote { bid, ask: level(self.number(1000), self.number(9)), ..Quote::default() };
                    let kind = if invalid { Kind::Snapshot } else { Kind::Update };
                    frames.push(self.put(topic, kind, Data::Quote(quote), now));
                }
            }
        }
        self.entries.push(Entry::Events(self.head, frames));
    }

    fn number(&mut self, below: i64) -> Decimal {
        Decimal::new(self.rng.i64(1..below), 2)
    }

    fn put(&mut self, topic: &Topic, kind: Kind, data: Data, now: Time) -> Arc<Frame> {
        let list = self.events.entry(topic.clone()).or_default();
        let prev = if kind == Kind::Snapshot { 0 } else { list.last().map_or(0, |f| f.event.seq) };
        let event = Event {
            topic: Arc::new(topic.clone()),
            seq: self.head,
            prev,
            kind,
            ts: Some(now),
            recv: now,
            published: now,
            data,
        };
        let frame = Arc::new(Frame::new(event, Arc::clone(&self.epoch)));
        list.push(Arc::clone(&frame));
        frame
    }
}

/// The changes from one book to another.
fn difference(old: &Book, new: &Book) -> Levels {
    let side = |old: Vec<Level>, new: Vec<Level>, which: BookSide, new_book: &Book, old_book: &Book| {
        let gone = old.iter().filter(|l| new_book.size_at(which, l.price).is_none());
        let mut levels: Vec<Level> = gone.map(|l| Level { price: l.price, size: Decimal::ZERO }).collect();
        levels.extend(new.iter().filter(|l| old_book.size_at(which, l.price) != Some(l.size)));
        levels
    };
    let list = |i: &mut dyn Iterator<Item = &Level>| i.copied().collect::<Vec<_>>();
    Levels {
        bids: side(list(&mut old.bids()), list(&mut new.bids()), BookSide::Bid, new, old),
        asks: side(list(&mut old.asks()), list(&mut new.asks()), BookSide::Ask, new, old),
        crc: new.crc(),
        sum: new.sum(),
    }
}
