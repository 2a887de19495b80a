//! The state that a reader rebuilds from the messages, and the checker of what the service promises.
//!
//! A [`Board`] takes every message of a reader, keeps the newest value and the book of each topic, and refuses what breaks
//! a promise of the contract: holes, repeats, going back, books that do not add up, parts that do not fit.

use std::collections::HashMap;
use std::sync::Arc;

use ticker_market::{Book, BookError, Class, Cursor, Data, Epoch, Event, Kind, Levels, Topic};
use ticker_proto::{Message, Notice, Part};

/// The reason of the gap that begins a new epoch.
pub(crate) const EPOCH_CHANGED: &str = "epoch_changed";

/// A promise that was broken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts and the contract's names say what the fields are")]
pub enum Violation {
    /// An event came a second time.
    #[error("{topic}: seq {seq} came twice")]
    Duplicate { topic: Arc<Topic>, seq: u64 },
    /// An event came after a later one of its topic.
    #[error("{topic}: seq {seq} came after {last}")]
    Back { topic: Arc<Topic>, seq: u64, last: u64 },
    /// `prev` does not name the event before: something is missing between them.
    #[error("{topic}: seq {seq} follows {prev}, but the last one here is {last}: something is missing")]
    Hole { topic: Arc<Topic>, seq: u64, prev: u64, last: u64 },
    /// `prev` is not before `seq`, or not 0 on a snapshot, or lies before what this reader already had.
    #[error("{topic}: prev {prev} of seq {seq} cannot be")]
    Prev { topic: Arc<Topic>, seq: u64, prev: u64 },
    /// An update of a state or a book of which this reader has no snapshot.
    #[error("{topic}: update {seq} without a snapshot before it")]
    NoSnapshot { topic: Arc<Topic>, seq: u64 },
    /// A snapshot on an event channel.
    #[error("{topic}: a snapshot on an event channel (seq {seq})")]
    Snapshot { topic: Arc<Topic>, seq: u64 },
    /// A kind or data that this channel does not have.
    #[error("{topic}: seq {seq} is of a kind that this channel does not have")]
    Kind { topic: Arc<Topic>, seq: u64 },
    /// The book's CRC-32 over the ten best levels of each side differs.
    #[error("{topic}: the crc at seq {seq} is {theirs}, of this book {ours}")]
    Crc { topic: Arc<Topic>, seq: u64, theirs: u32, ours: u32 },
    /// The book's sum over all levels differs.
    #[error("{topic}: the sum at seq {seq} is {theirs}, of this book {ours}")]
    Sum { topic: Arc<Topic>, seq: u64, theirs: u32, ours: u32 },
    /// A derived book has more levels than its name says.
    #[error("{topic}: more than {depth} levels on a side at seq {seq}")]
    Depth { topic: Arc<Topic>, seq: u64, depth: usize },
    /// A book that cannot be.
    #[error("{topic}: seq {seq}: {error}")]
    Book { topic: Arc<Topic>, seq: u64, error: BookError },
    /// Parts out of order, or another event of the topic between them.
    #[error("{topic}: part {part} of {parts} at seq {seq} does not follow what was there")]
    Part { topic: Arc<Topic>, seq: u64, part: u32, parts: u32 },
    /// An event of an event channel, or a closed bar, came after its place had been passed.
    #[error("{topic}: seq {seq} came after the session had passed {passed}")]
    Late { topic: Arc<Topic>, seq: u64, passed: u64 },
    /// A cursor went back, or is none.
    #[error("the cursor {cursor} came after the session had passed {passed}")]
    Cursor { cursor: String, passed: u64 },
}

/// What a message did.
#[derive(Clone, PartialEq, Debug)]
pub enum Applied {
    /// An event, whole; a book that came in parts has all its levels.
    Event(Event),
    /// A part of a larger event, whose last part has not come yet.
    Part,
    /// A notice; the board is as it was, but for holes that it announced.
    Notice,
}

#[derive(Debug, Default)]
struct Entry {
    last: Option<Event>,
    /// The last event's `seq`: what the next one's `prev` must name. `None` where a hole was announced.
    seq: Option<u64>,
    book: Option<Book>,
    invalid: bool,
    parts: Option<Pending>,
    /// Events of a state topic that were passed over, as breaks of `prev`.
    conflated: u64,
}

#[derive(Debug)]
struct Pending {
    event: Event,
    part: u32,
    parts: u32,
}

/// What one reader has been told. One board lives as long as the reader's cursor does: over lost connections and changes of
/// transport.
#[derive(Debug, Default)]
pub struct Board {
    topics: HashMap<Arc<Topic>, Entry>,
    epoch: Option<Epoch>,
    /// The greatest place that the session has passed: every event of an event channel up to it must have come.
    passed: u64,
    /// The last heartbeat's cursor: the next one's is not before it.
    beat: u64,
    /// A subscription that `subscribed` has not closed: older events may come.
    joining: bool,
    conflated: u64,
}

impl Board {
    /// An empty board, before a first subscription.
    pub fn new() -> Self {
        Self { joining: true, ..Self::default() }
    }

    /// A request for more topics goes out, or another connection is made: until `subscribed` older events may come.
    pub fn joining(&mut self) {
        self.joining = true;
    }

    /// Takes a message in.
    ///
    /// # Errors
    /// The promise that it breaks. The board is then in an undefined state.
    pub fn apply(&mut self, message: &Message) -> Result<Applied, Violation> {
        match message {
            Message::Notice(notice) => self.notice(notice).map(|()| Applied::Notice),
            Message::Event(part) => match self.whole(part)? {
                None => Ok(Applied::Part),
                Some(event) => {
                    self.event(&event)?;
                    Ok(Applied::Event(event))
                }
            },
        }
    }

    /// The topic's newest event.
    pub fn last(&self, topic: &Topic) -> Option<&Event> {
        self.topics.get(topic)?.last.as_ref()
    }

    /// The topic's book.
    pub fn book(&self, topic: &Topic) -> Option<&Book> {
        self.topics.get(topic)?.book.as_ref()
    }

    /// Is what is shown of this topic not to be trusted?
    pub fn is_invalid(&self, topic: &Topic) -> bool {
        self.topics.get(topic).is_some_and(|e| e.invalid)
    }

    /// Every topic of which something came.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.topics.keys()
    }

    /// The books that this reader holds, as a subscription's `have`.
    pub fn have(&self) -> std::collections::BTreeMap<String, u64> {
        let held = self.topics.iter().filter(|(_, e)| e.book.is_some() && !e.invalid);
        held.filter_map(|(topic, e)| Some((topic.to_string(), e.seq?))).collect()
    }

    /// Breaks of `prev` on this state topic: each stands for one or more events that were conflated.
    pub fn breaks(&self, topic: &Topic) -> u64 {
        self.topics.get(topic).map_or(0, |e| e.conflated)
    }

    /// Events conflated for this reader, as the heartbeats told.
    pub fn conflated(&self) -> u64 {
        self.conflated
    }

    fn notice(&mut self, notice: &Notice) -> Result<(), Violation> {
        match notice {
            Notice::Welcome { epoch, .. } => {
                let epoch = Epoch::new(epoch).ok();
                if self.epoch.is_some() && self.epoch != epoch {
                    self.topics.clear();
                    self.passed = 0;
                }
                self.beat = 0;
                self.epoch = epoch;
                self.joining = true;
                return Ok(());
            }
            Notice::Gap { topic: Some(topic), .. } => {
                let entry = topic.parse::<Topic>().ok().and_then(|t| self.topics.get_mut(&t));
                if let Some(entry) = entry {
                    (entry.seq, entry.parts) = (None, None);
                }
            }
            // Places of another epoch mean nothing here; `welcome` follows, but for polls, which have no session.
            Notice::Gap { topic: None, reason } if reason == EPOCH_CHANGED => {
                self.topics.clear();
                (self.epoch, self.passed, self.beat, self.joining) = (None, 0, 0, true);
            }
            Notice::Gap { topic: None, .. } => {
                for entry in self.topics.values_mut() {
                    (entry.seq, entry.parts) = (None, None);
                }
            }
            Notice::Unsubscribed { topics, .. } => {
                self.topics.retain(|topic, _| !topics.iter().any(|t| t.parse().is_ok_and(|t: Topic| t == **topic)));
            }
            Notice::Heartbeat { conflated, .. } => self.conflated += conflated,
            Notice::Subscribed { .. } => self.joining = false,
            _ => {}
        }
        let Some(text) = notice.cursor() else { return Ok(()) };
        let wrong = |passed| Violation::Cursor { cursor: text.to_owned(), passed };
        let cursor: Cursor = text.parse().map_err(|_| wrong(self.passed))?;
        if self.epoch.get_or_insert_with(|| cursor.epoch.clone()) != &cursor.epoch {
            return Err(wrong(self.passed));
        }
        // A heartbeat may stay behind what state topics have shown, but not behind the one before.
        if matches!(notice, Notice::Heartbeat { .. }) {
            if cursor.seq < self.beat {
                return Err(wrong(self.beat));
            }
            self.beat = cursor.seq;
        }
        if !self.joining {
            self.passed = self.passed.max(cursor.seq);
        }
        Ok(())
    }

    /// Puts parts together; `None` until the last is there.
    fn whole(&mut self, part: &Part) -> Result<Option<Event>, Violation> {
        let Part { event, part: number, parts, .. } = part;
        let (number, parts) = (*number, *parts);
        let entry = self.topics.entry(Arc::clone(&event.topic)).or_default();
        let wrong = || Violation::Part { topic: Arc::clone(&event.topic), seq: event.seq, part: number, parts };
        if parts == 0 {
            return if entry.parts.is_none() && number == 0 { Ok(Some(event.clone())) } else { Err(wrong()) };
        }
        match entry.parts.take() {
            None if number == 1 && parts > 1 => {
                entry.parts = Some(Pending { event: event.clone(), part: 1, parts });
                Ok(None)
            }
            Some(mut pending)
                if pending.parts == parts
                    && pending.part + 1 == number
                    && (pending.event.seq, pending.event.kind) == (event.seq, event.kind) =>
            {
                let (Data::Book(all), Data::Book(more)) = (&mut pending.event.data, &event.data) else {
                    return Err(wrong());
                };
                all.bids.extend_from_slice(&more.bids);
                all.asks.extend_from_slice(&more.asks);
                (all.crc, all.sum) = (more.crc, more.sum);
                if number == parts {
                    return Ok(Some(pending.event));
                }
                entry.parts = Some(Pending { part: number, ..pending });
                Ok(None)
            }
            _ => Err(wrong()),
        }
    }

    fn event(&mut self, event: &Event) -> Result<(), Violation> {
        let topic = &event.topic;
        let seq = event.seq;
        let entry = self.topics.entry(Arc::clone(topic)).or_default();
        check_kind(event)?;
        check_order(entry, event)?;
        if !event.is_conflatable() && !self.joining && seq < self.passed {
            return Err(Violation::Late { topic: Arc::clone(topic), seq, passed: self.passed });
        }
        if event.kind != Kind::Snapshot {
            self.passed = self.passed.max(if self.joining { 0 } else { seq });
        }
        match (event.kind, &event.data) {
            (Kind::Invalid, _) => entry.invalid = true,
            (kind, Data::Book(levels)) => {
                apply_book(entry, event, levels)?;
                if kind == Kind::Snapshot {
                    entry.invalid = false;
                }
            }
            (Kind::Snapshot, _) => entry.invalid = false,
            _ => {}
        }
        entry.seq = Some(seq);
        entry.last = Some(event.clone());
        Ok(())
    }
}

fn check_kind(event: &Event) -> Result<(), Violation> {
    let topic = || Arc::clone(&event.topic);
    let seq = event.seq;
    match (event.kind, event.topic.channel.class()) {
        (Kind::Snapshot, Class::Event) => Err(Violation::Snapshot { topic: topic(), seq }),
        (Kind::Snapshot, _) if event.prev != 0 => Err(Violation::Prev { topic: topic(), seq, prev: event.prev }),
        (Kind::Correction | Kind::Cancel, Class::State | Class::Book) => Err(Violation::Kind { topic: topic(), seq }),
        _ if !event.data.fits(event.topic.channel) => Err(Violation::Kind { topic: topic(), seq }),
        _ => Ok(()),
    }
}

/// Lays `seq` and `prev` beside what came before on the topic.
fn check_order(entry: &mut Entry, event: &Event) -> Result<(), Violation> {
    let topic = || Arc::clone(&event.topic);
    let (seq, prev) = (event.seq, event.prev);
    let newest = entry.last.as_ref().map(|e| e.seq);
    if event.kind == Kind::Snapshot {
        // A snapshot may repeat the state that the reader already has: after a resume it does.
        return match newest {
            Some(last) if seq < last => Err(Violation::Back { topic: topic(), seq, last }),
            _ => Ok(()),
        };
    }
    match newest {
        Some(last) if seq == last => return Err(Violation::Duplicate { topic: topic(), seq }),
        Some(last) if seq < last => return Err(Violation::Back { topic: topic(), seq, last }),
        _ => {}
    }
    if prev >= seq {
        return Err(Violation::Prev { topic: topic(), seq, prev });
    }
    let class = event.topic.channel.class();
    match (class, entry.seq) {
        (Class::Event | Class::Book, Some(last)) if prev != last => {
            Err(Violation::Hole { topic: topic(), seq, prev, last })
        }
        (Class::State, Some(last)) if prev < last => Err(Violation::Prev { topic: topic(), seq, prev }),
        (Class::State, Some(last)) => {
            entry.conflated += u64::from(prev != last);
            Ok(())
        }
        // The first event that a topic ever had may be an update: there was no state to begin with.
        // A closed bar is an event: what is running is not told by it.
        (Class::State, None) if prev != 0 && event.kind == Kind::Update && !event.is_closed_bar() => {
            Err(Violation::NoSnapshot { topic: topic(), seq })
        }
        _ => Ok(()),
    }
}

fn apply_book(entry: &mut Entry, event: &Event, levels: &Levels) -> Result<(), Violation> {
    let topic = || Arc::clone(&event.topic);
    let seq = event.seq;
    if event.kind == Kind::Snapshot {
        let book = entry.book.get_or_insert_with(Book::new);
        book.replace(levels).map_err(|error| Violation::Book { topic: topic(), seq, error })?;
    } else {
        let trusted = entry.seq.is_some() && !entry.invalid;
        let book = entry.book.as_mut().filter(|_| trusted);
        let book = book.ok_or_else(|| Violation::NoSnapshot { topic: topic(), seq })?;
        book.apply(levels).map_err(|error| Violation::Book { topic: topic(), seq, error })?;
    }
    let book = entry.book.as_ref().expect("both ways above leave a book");
    let (crc, sum) = (book.crc(), book.sum());
    if crc != levels.crc {
        return Err(Violation::Crc { topic: topic(), seq, theirs: levels.crc, ours: crc });
    }
    if sum != levels.sum {
        return Err(Violation::Sum { topic: topic(), seq, theirs: levels.sum, ours: sum });
    }
    match event.topic.channel.derived_depth() {
        Some(depth) if book.bids().len() > depth || book.asks().len() > depth => {
            Err(Violation::Depth { topic: topic(), seq, depth })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ticker_market::{Decimal, Level};
    use ticker_proto::json;

    fn apply(board: &mut Board, text: &str) -> Result<Applied, Violation> {
        board.apply(&json::read_message(text).expect(text))
    }

    fn trade(seq: u64, prev: u64) -> String {
        format!(
            r#"{{"topic":"trade/x/A","seq":{seq},"prev":{prev},"kind":"update","price":"1","size":"1","trade_id":"{seq}"}}"#
        )
    }

    fn quote(seq: u64, prev: u64, kind: &str) -> String {
        format!(r#"{{"topic":"quote/x/A","seq":{seq},"prev":{prev},"kind":"{kind}","bid":"1","bid_size":"1"}}"#)
    }

    fn cursor(op: &str, seq: u64) -> String {
        match op {
            "subscribed" => format!(r#"{{"op":"subscribed","id":1,"topics":[],"cursor":"e-{seq}"}}"#),
            _ => format!(r#"{{"op":"heartbeat","cursor":"e-{seq}","conflated":2}}"#),
        }
    }

    fn level(price: i64, size: i64) -> Level {
        Level { price: Decimal::new(price, 0), size: Decimal::new(size, 0) }
    }

    fn book_event(book: &Book, changed: Option<Vec<Level>>, seq: u64, prev: u64) -> Message {
        let snapshot = changed.is_none();
        let levels = match changed {
            None => book.to_levels(),
            Some(bids) => Levels { bids, asks: Vec::new(), crc: book.crc(), sum: book.sum() },
        };
        let event = Event {
            topic: Arc::new("book/x/A".parse().expect("a topic")),
            seq,
            prev,
            kind: if snapshot { Kind::Snapshot } else { Kind::Update },
            ts: None,
            recv: ticker_market::Time(0),
            published: ticker_market::Time(0),
            data: Data::Book(levels),
        };
        Message::Event(Box::new(Part { event, part: 0, parts: 0, raw: None }))
    }

    #[test]
    fn trades_are_a_chain_without_holes() {
        let mut board = Board::new();
        apply(&mut board, &trade(5, 3)).expect("the first may follow anything");
        apply(&mut board, &trade(9, 5)).expect("follows");
        assert!(matches!(apply(&mut board, &trade(9, 5)), Err(Violation::Duplicate { seq: 9, .. })));
        assert!(matches!(apply(&mut board, &trade(8, 5)), Err(Violation::Back { seq: 8, last: 9, .. })));
        assert!(matches!(apply(&mut board, &trade(20, 15)), Err(Violation::Hole { prev: 15, last: 9, .. })));
        apply(&mut board, r#"{"op":"gap","topic":"trade/x/A","reason":"cursor_expired"}"#).expect("announced");
        apply(&mut board, &trade(20, 15)).expect("a hole that was announced");
        assert!(apply(&mut board, &trade(21, 21)).is_err());
    }

    #[test]
    fn states_begin_with_a_snapshot_and_count_what_was_conflated() {
        let topic: Topic = "quote/x/A".parse().expect("a topic");
        let mut board = Board::new();
        assert!(matches!(apply(&mut board, &quote(4, 3, "update")), Err(Violation::NoSnapshot { .. })));
        let mut board = Board::new();
        apply(&mut board, &quote(4, 0, "snapshot")).expect("a snapshot");
        apply(&mut board, &quote(6, 4, "update")).expect("follows");
        apply(&mut board, &quote(9, 8, "update")).expect("conflated");
        assert_eq!(board.breaks(&topic), 1);
        assert!(matches!(apply(&mut board, &quote(12, 7, "update")), Err(Violation::Prev { .. })));
        apply(&mut board, r#"{"topic":"quote/x/A","seq":13,"prev":9,"kind":"invalid","reason":"stale"}"#)
            .expect("may be");
        assert!(board.is_invalid(&topic));
        apply(&mut board, &quote(13, 0, "snapshot")).expect("ends that");
        assert!(!board.is_invalid(&topic));
        assert!(matches!(apply(&mut board, &quote(7, 0, "snapshot")), Err(Violation::Back { .. })));
    }

    #[test]
    fn an_event_must_not_come_after_its_place_was_passed() {
        let mut board = Board::new();
        apply(&mut board, &trade(3, 0)).expect("backfill");
        apply(&mut board, &quote(50, 0, "snapshot")).expect("a snapshot");
        apply(&mut board, &trade(7, 3)).expect("backfill");
        apply(&mut board, &cursor("subscribed", 51)).expect("joined");
        apply(&mut board, &cursor("heartbeat", 60)).expect("a heartbeat");
        assert_eq!(board.conflated(), 2);
        assert!(matches!(apply(&mut board, &trade(55, 7)), Err(Violation::Late { passed: 60, .. })));
        assert!(matches!(apply(&mut board, &cursor("heartbeat", 59)), Err(Violation::Cursor { passed: 60, .. })));
        apply(&mut board, r#"{"op":"welcome","version":"1","epoch":"f","cursor":"f-1","heartbeat_ms":1}"#)
            .expect("anew");
        apply(&mut board, &trade(1, 0)).expect("another epoch");
        apply(&mut board, &trade(9, 1)).expect("follows");
        apply(&mut board, r#"{"op":"gap","reason":"epoch_changed"}"#).expect("anew");
        apply(&mut board, &trade(2, 1)).expect("a third epoch");
    }

    #[test]
    fn a_book_is_proven_at_every_event() {
        let topic: Topic = "book/x/A".parse().expect("a topic");
        let mut book = Book::new();
        book.set(ticker_market::book::BookSide::Bid, level(10, 1)).expect("fits");
        let mut board = Board::new();
        board.apply(&book_event(&book, None, 3, 0)).expect("a snapshot");
        book.set(ticker_market::book::BookSide::Bid, level(9, 2)).expect("fits");
        board.apply(&book_event(&book, Some(vec![level(9, 2)]), 4, 3)).expect("follows");
        assert_eq!(board.book(&topic), Some(&book));
        assert_eq!(board.have(), [("book/x/A".to_owned(), 4)].into());
        let wrong = book_event(&book, Some(vec![level(9, 3)]), 5, 4);
        assert!(matches!(board.apply(&wrong), Err(Violation::Crc { .. })));
        let mut board = Board::new();
        let early = book_event(&book, Some(vec![level(9, 3)]), 5, 4);
        assert!(matches!(board.apply(&early), Err(Violation::NoSnapshot { .. })));
    }

    #[test]
    fn parts_are_put_together() {
        let mut book = Book::new();
        for price in 1..=30 {
            book.set(ticker_market::book::BookSide::Bid, level(price, 1)).expect("fits");
        }
        let Message::Event(whole) = book_event(&book, None, 3, 0) else { panic!("an event") };
        let Data::Book(all) = &whole.event.data else { panic!("a book") };
        let part = |number: u32, from: usize, to: usize| {
            let levels = Levels { bids: all.bids[from..to].to_vec(), ..all.clone() };
            let event = Event { data: Data::Book(levels), ..whole.event.clone() };
            Message::Event(Box::new(Part { event, part: number, parts: 3, raw: None }))
        };
        let mut board = Board::new();
        assert_eq!(board.apply(&part(1, 0, 10)), Ok(Applied::Part));
        assert_eq!(board.apply(&part(2, 10, 20)), Ok(Applied::Part));
        assert_eq!(board.apply(&part(3, 20, 30)), Ok(Applied::Event(whole.event.clone())));
        let mut board = Board::new();
        board.apply(&part(1, 0, 10)).expect("the first");
        assert!(matches!(board.apply(&part(3, 20, 30)), Err(Violation::Part { part: 3, .. })));
    }
}
