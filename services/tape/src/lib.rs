//! The tape: the one ordered record of all events, in memory.
//!
//! Layout: [`Tape`] and its [`Entry`]s in this file; [`merge`] walks the events of some topics in tape order. One flat
//! queue holds everything in order of `seq`, derived events right behind their cause and with its `seq`; beside it each
//! topic has the list of its own entries, so that a backfill costs what it returns and not what the tape holds.
//!
//! The tape is bounded by bytes and by age, oldest out first. What it forgets is remembered as one number a topic, so
//! that "the tape no longer reaches back" can be told exactly: a quiet topic is not called expired because a busy one
//! pushed its neighbours out.
//!
//! Deliberately absent: clocks (time is an argument), I/O, threads, and the meaning of events: `prev` chains, last
//! values and books belong to whoever appends.

mod merge;

use std::collections::VecDeque;
use std::sync::Arc;

use ticker_market::{Cursor, Epoch, Event, Instrument, Time};

pub use merge::Merge;

/// A topic's number: dense, from 0, given by whoever keeps the table of topics.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TopicId(pub u32);

impl TopicId {
    /// The number as an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// How much a tape holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Memory of all entries, in bytes, roughly.
    pub bytes_max: usize,
    /// Age of the oldest entry, in nanoseconds since it was published.
    pub age_nanos_max: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes_max: 256 << 20, age_nanos_max: 15 * 60 * 1_000_000_000 }
    }
}

/// Why the tape could not answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TapeError {
    /// Something after that place was already forgotten.
    #[error("the tape no longer reaches back to {after}: all up to {evicted} is gone")]
    Expired {
        /// The place that was asked for.
        after: u64,
        /// The last place that was forgotten.
        evicted: u64,
    },
    /// That place has not been reached yet.
    #[error("the tape has not reached {after} yet: its last place is {head}")]
    Ahead {
        /// The place that was asked for.
        after: u64,
        /// The last place of the tape.
        head: u64,
    },
}

/// Which time goes on: one tape may hold what happens now beside recordings of another year.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Clock(pub u64);

impl Clock {
    /// The clock on the wall. Every other is that of a recording.
    pub const WALL: Clock = Clock(0);
}

/// What stands at a place.
#[derive(Clone, Debug)]
pub enum Record {
    /// Something that happened to a topic.
    Event(TopicId, Arc<Event>),
    /// An instrument appeared or changed.
    Instrument(Arc<Instrument>),
    /// A clock has come to that time: what time alone causes (a bar that closes) is derived from this, so that it stands
    /// at the same place for everyone who reads the tape.
    Tick(Clock, Time),
}

/// One record and its place. Derived events share the place of their cause.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The place.
    pub seq: u64,
    /// When it got its place.
    pub published: Time,
    /// What stands there.
    pub record: Record,
}

/// Bytes that an entry costs besides its event: itself, the counters of its `Arc`, its line in the topic's list.
const ENTRY_BYTES: usize = size_of::<Entry>() + 2 * size_of::<usize>() + size_of::<u64>();

impl Entry {
    fn memory_bytes(&self) -> usize {
        ENTRY_BYTES
            + match &self.record {
                Record::Event(_, event) => event.memory_bytes(),
                Record::Instrument(instrument) => size_of::<Instrument>() + instrument.channels.len(),
                Record::Tick(..) => 0,
            }
    }
}

/// A topic's own entries.
#[derive(Default, Debug)]
struct TopicLog {
    /// Ordinals of its entries, oldest first.
    ordinals: VecDeque<u64>,
    /// The `seq` of the last of its events that was forgotten; 0 if none was.
    evicted: u64,
}

/// The ordered log. See the crate's documentation.
#[derive(Debug)]
pub struct Tape {
    epoch: Epoch,
    limits: Limits,
    entries: VecDeque<Entry>,
    /// Ordinal of the first entry: entries are numbered one by one, also those that share a `seq`.
    first: u64,
    topics: Vec<TopicLog>,
    head: u64,
    evicted: u64,
    bytes: usize,
    now: Time,
}

impl Tape {
    /// An empty tape. Its first record gets the place 1.
    pub fn new(epoch: Epoch, limits: Limits) -> Self {
        Self {
            epoch,
            limits,
            entries: VecDeque::new(),
            first: 0,
            topics: Vec::new(),
            head: 0,
            evicted: 0,
            bytes: 0,
            now: Time(i64::MIN),
        }
    }

    /// Puts an event on the tape: gives it its `seq` and its `published`, which never runs backwards.
    pub fn append(&mut self, topic: TopicId, mut event: Event, now: Time) -> Arc<Event> {
        self.advance(now);
        event.seq = self.head;
        event.published = self.now;
        self.push_event(topic, event)
    }

    /// Puts an event behind the last record, with that record's `seq` and `published`: it was derived from it.
    ///
    /// A topic has at most one event for each `seq`; the caller keeps to that.
    pub fn derive(&mut self, topic: TopicId, mut event: Event) -> Arc<Event> {
        event.seq = self.head;
        event.published = self.now;
        self.push_event(topic, event)
    }

    /// Puts an instrument's appearance or change on the tape.
    pub fn announce(&mut self, instrument: Arc<Instrument>, now: Time) -> u64 {
        self.advance(now);
        self.push(Entry { seq: self.head, published: self.now, record: Record::Instrument(instrument) });
        self.head
    }

    /// Puts on the tape that a clock has come to `time`.
    pub fn tick(&mut self, clock: Clock, time: Time, now: Time) -> u64 {
        self.advance(now);
        self.push(Entry { seq: self.head, published: self.now, record: Record::Tick(clock, time) });
        self.head
    }

    /// Forgets what is too old or too much. Appending does it too; a quiet tape needs it now and then.
    pub fn evict(&mut self, now: Time) {
        let oldest = now.0.saturating_sub(self.limits.age_nanos_max);
        // The newest record stays, whatever its size: readers at the head must find it.
        while let Some(front) = self.entries.front()
            && front.seq < self.head
            && (self.bytes > self.limits.bytes_max || front.published.0 < oldest)
        {
            let seq = front.seq;
            // What shares a place goes together, so that a place is either whole or gone.
            while self.entries.front().is_some_and(|e| e.seq == seq) {
                self.pop();
            }
            self.evicted = seq;
        }
    }

    /// The name of this tape's life.
    pub fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    /// The last place; 0 while the tape has never held anything.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// The last place as a cursor.
    pub fn cursor(&self) -> Cursor {
        self.cursor_at(self.head)
    }

    /// A place of this tape as a cursor.
    pub fn cursor_at(&self, seq: u64) -> Cursor {
        Cursor { epoch: self.epoch.clone(), seq }
    }

    /// The oldest place that the tape holds.
    pub fn oldest(&self) -> Option<u64> {
        self.entries.front().map(|e| e.seq)
    }

    /// When the oldest entry was published.
    pub fn oldest_published(&self) -> Option<Time> {
        self.entries.front().map(|e| e.published)
    }

    /// The last place that was forgotten; 0 if nothing was.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Memory of all entries, in bytes, roughly.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many entries the tape holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Does it hold nothing?
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Everything after the place `after`, in order.
    ///
    /// # Errors
    /// Where something after it was forgotten, or where the tape has not come that far.
    pub fn since(&self, after: u64) -> Result<impl ExactSizeIterator<Item = &Entry>, TapeError> {
        self.check(after)?;
        // A reader who follows is near the head, where a few steps back cost less than a search of everything.
        let near = self.entries.iter().rev().take(8).take_while(|e| e.seq > after).count();
        let from = match near {
            n if n < 8 => self.entries.len() - n,
            _ => self.entries.partition_point(|e| e.seq <= after),
        };
        Ok(self.entries.range(from..))
    }

    /// Is everything after `after` still here?
    ///
    /// # Errors
    /// As [`Tape::since`].
    pub fn check(&self, after: u64) -> Result<(), TapeError> {
        if after > self.head {
            return Err(TapeError::Ahead { after, head: self.head });
        }
        if after < self.evicted {
            return Err(TapeError::Expired { after, evicted: self.evicted });
        }
        Ok(())
    }

    /// Are all of the topic's events after `after` still here?
    pub fn is_complete(&self, topic: TopicId, after: u64) -> bool {
        self.log(topic).is_none_or(|log| log.evicted <= after)
    }

    /// The `seq` of the topic's last event at or before `at`; 0 where it had none, or where that is no longer known.
    pub fn last_at(&self, topic: TopicId, at: u64) -> u64 {
        let Some(log) = self.log(topic) else { return 0 };
        match log.ordinals.partition_point(|o| self.entry(*o).seq <= at) {
            0 => Some(log.evicted).filter(|e| *e <= at).unwrap_or(0),
            n => self.entry(log.ordinals[n - 1]).seq,
        }
    }

    /// The events of these topics after the place `after`, in tape order. Topics named twice are given twice.
    pub fn events_of(&self, topics: &[TopicId], after: u64) -> Merge<'_> {
        Merge::new(
            self,
            topics.iter().filter_map(|topic| {
                let log = self.log(*topic)?;
                Some((*topic, log.ordinals.partition_point(|o| self.entry(*o).seq <= after)))
            }),
        )
    }

    /// The last `count` events of each of these topics, in tape order.
    pub fn last_of(&self, topics: &[TopicId], count: usize) -> Merge<'_> {
        Merge::new(
            self,
            topics.iter().filter_map(|topic| Some((*topic, self.log(*topic)?.ordinals.len().saturating_sub(count)))),
        )
    }

    fn log(&self, topic: TopicId) -> Option<&TopicLog> {
        self.topics.get(topic.index())
    }

    fn entry(&self, ordinal: u64) -> &Entry {
        &self.entries[(ordinal - self.first) as usize]
    }

    fn advance(&mut self, now: Time) {
        self.now = self.now.max(now);
        self.evict(self.now);
        self.head += 1;
    }

    fn push_event(&mut self, topic: TopicId, event: Event) -> Arc<Event> {
        if self.topics.len() <= topic.index() {
            self.topics.resize_with(topic.index() + 1, TopicLog::default);
        }
        self.topics[topic.index()].ordinals.push_back(self.first + self.entries.len() as u64);
        let event = Arc::new(event);
        self.push(Entry { seq: self.head, published: self.now, record: Record::Event(topic, Arc::clone(&event)) });
        event
    }

    fn push(&mut self, entry: Entry) {
        self.bytes += entry.memory_bytes();
        self.entries.push_back(entry);
    }

    fn pop(&mut self) {
        let Some(entry) = self.entries.pop_front() else { return };
        self.first += 1;
        self.bytes -= entry.memory_bytes();
        if let Record::Event(topic, _) = entry.record {
            let log = &mut self.topics[topic.index()];
            log.ordinals.pop_front();
            log.evicted = entry.seq;
        }
    }
}

#[cfg(test)]
mod tests;
