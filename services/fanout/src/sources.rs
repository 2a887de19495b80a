//! Who publishes: each ingest service by name, with the last batch of it that is on the tape.

use hashbrown::HashMap;
use ticker_market::{Channel, Data, Event, Kind, Time};
use ticker_tape::Clock;

use crate::append::Times;
use crate::core::{Core, InstrumentId};

/// A source's number, for as long as it is remembered. Never given twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SourceId(u64);

/// One stream of a source. A newer stream of the same source ends it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stream {
    /// The source.
    pub source: SourceId,
    generation: u64,
}

/// Why a batch cannot be taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SourceError {
    /// The batches before it are not on this tape: the source must begin anew, under another name.
    #[error(
        "unknown source `{name}` at batch {batch}: the last batch known of it is {last}; begin anew with a new name and batch 1"
    )]
    Unknown {
        /// The source's name.
        name: String,
        /// The batch that it sent.
        batch: u64,
        /// The last batch that is on the tape; 0 if there is none.
        last: u64,
    },
    /// Not a source's name, or batch 0.
    #[error("a source has a name of 1 to 128 bytes, and its batches are numbered from 1")]
    Malformed,
    /// The source has opened another stream.
    #[error("the source has opened a newer stream")]
    Superseded,
    /// No more sources are taken.
    #[error("{0} sources publish already: the limit")]
    TooMany(usize),
}

/// What a batch is to the tape.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// The next one.
    Next,
    /// It is on the tape already.
    Known,
}

#[derive(Debug)]
struct Source {
    name: String,
    last: u64,
    generation: u64,
    /// Since when it has no stream; `None` while it has one.
    away_since: Option<Time>,
    lost: bool,
    /// What it publishes was recorded: it has a clock of its own.
    recorded: bool,
}

/// All sources that are remembered.
#[derive(Debug)]
pub(crate) struct Sources {
    max: usize,
    next: u64,
    by_id: HashMap<SourceId, Source>,
    by_name: HashMap<String, SourceId>,
}

/// Longest name of a source, in bytes.
const NAME_BYTES_MAX: usize = 128;

impl Sources {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, next: 0, by_id: HashMap::new(), by_name: HashMap::new() }
    }

    /// How many have a stream.
    pub(crate) fn connected(&self) -> usize {
        self.by_id.values().filter(|s| s.away_since.is_none()).count()
    }

    /// Those that are away for longer than they may, and are not called lost yet.
    pub(crate) fn overdue(&self, now: Time, grace_nanos: i64) -> Vec<SourceId> {
        let overdue = |s: &Source| !s.lost && s.away_since.is_some_and(|since| now.since(since) >= grace_nanos);
        let mut ids: Vec<_> = self.by_id.iter().filter(|(_, s)| overdue(s)).map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    /// The clock that a source's instruments go by.
    pub(crate) fn clock_of(&self, id: SourceId) -> Clock {
        let recorded = self.by_id.get(&id).is_some_and(|s| s.recorded);
        // The first is that of the wall.
        if recorded { Clock(id.0 + 1) } else { Clock::WALL }
    }

    /// Is there a source whose clock that is?
    pub(crate) fn has_clock(&self, clock: Clock) -> bool {
        self.by_id.iter().any(|(id, s)| s.recorded && Clock(id.0 + 1) == clock)
    }

    fn insert(&mut self, name: &str) -> Result<SourceId, SourceError> {
        if self.by_id.len() >= self.max {
            // One that is lost has told its readers so already; the one that is away longest goes first.
            let lost = self.by_id.iter().filter(|(_, s)| s.lost).min_by_key(|(id, s)| (s.away_since, **id));
            let id = *lost.ok_or(SourceError::TooMany(self.max))?.0;
            if let Some(source) = self.by_id.remove(&id) {
                self.by_name.remove(&source.name);
            }
        }
        let id = SourceId(self.next);
        self.next += 1;
        self.by_name.insert(name.to_owned(), id);
        let (name, last, generation) = (name.to_owned(), 0, 0);
        self.by_id.insert(id, Source { name, last, generation, away_since: None, lost: false, recorded: false });
        Ok(id)
    }
}

impl Core {
    /// A source opens a stream, whose first batch has this number.
    pub fn attach(&mut self, name: &str, batch: u64, now: Time) -> Result<Stream, SourceError> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX || batch == 0 {
            return Err(SourceError::Malformed);
        }
        let known = self.sources.by_name.get(name).copied();
        let last = known.and_then(|id| self.sources.by_id.get(&id)).map_or(0, |s| s.last);
        if batch > last + 1 {
            return Err(SourceError::Unknown { name: name.to_owned(), batch, last });
        }
        let id = match known {
            Some(id) => id,
            None => self.sources.insert(name)?,
        };
        let source = self.sources.by_id.get_mut(&id).expect("a source that has a name is remembered");
        source.generation += 1;
        source.away_since = None;
        let stream = Stream { source: id, generation: source.generation };
        if std::mem::take(&mut source.lost) {
            self.restore(id, now);
        }
        Ok(stream)
    }

    /// What the source of that stream publishes was recorded: for what is derived, time goes on with its events. To be said
    /// before its instruments are announced.
    pub fn set_recorded(&mut self, stream: Stream) {
        if let Some(source) = self.sources.by_id.get_mut(&stream.source) {
            source.recorded = true;
        }
    }

    /// What a batch of a stream is to the tape.
    pub fn admit(&self, stream: Stream, batch: u64) -> Result<Admission, SourceError> {
        let source = self.sources.by_id.get(&stream.source).filter(|s| s.generation == stream.generation);
        let source = source.ok_or(SourceError::Superseded)?;
        match batch {
            0 => Err(SourceError::Malformed),
            n if n <= source.last => Ok(Admission::Known),
            n if n == source.last + 1 => Ok(Admission::Next),
            n => Err(SourceError::Unknown { name: source.name.clone(), batch: n, last: source.last }),
        }
    }

    /// A batch of a stream is on the tape.
    pub fn admitted(&mut self, stream: Stream, batch: u64) {
        if let Some(source) = self.sources.by_id.get_mut(&stream.source) {
            source.last = batch;
        }
    }

    /// A stream has ended. Its source may be back before it is missed.
    pub fn detach(&mut self, stream: Stream, now: Time) {
        if let Some(source) = self.sources.by_id.get_mut(&stream.source)
            && source.generation == stream.generation
        {
            source.away_since = Some(now);
        }
    }

    /// A source is away for too long: nothing of its instruments can be trusted.
    pub(crate) fn lose(&mut self, id: SourceId, now: Time) {
        let Some(source) = self.sources.by_id.get_mut(&id) else { return };
        source.lost = true;
        tracing::warn!(source = source.name, "the publisher is away: its instruments are stale");
        let times = Times { ts: None, recv: now };
        for instrument in self.owned(id) {
            self.instruments[instrument.0 as usize].lost = true;
            self.show_status(instrument, times, now);
            self.distrust(instrument, times, now);
        }
    }

    /// A lost source is back, and goes on where it was: what we hold is as good as it was.
    fn restore(&mut self, id: SourceId, now: Time) {
        let times = Times { ts: None, recv: now };
        for instrument in self.owned(id) {
            let state = &mut self.instruments[instrument.0 as usize];
            state.lost = false;
            let quote = state.quote.clone();
            self.show_status(instrument, times, now);
            let state = &self.instruments[instrument.0 as usize];
            let (quote_topic, book_topic) = (state.topic(Channel::Quote), state.topic(Channel::Book));
            if let (Some(topic), Some(quote)) = (quote_topic, quote) {
                self.append(topic, Event { kind: Kind::Snapshot, ..Event::clone(&quote) }, now);
            }
            let state = &self.instruments[instrument.0 as usize];
            if let (Some(topic), Some(book)) = (book_topic, state.book.as_ref().filter(|b| b.is_good())) {
                let (whole, ten, fifty) = (book.whole(), book.ten(), book.fifty());
                let event = self.event(topic, Kind::Snapshot, times, Data::Book(whole));
                self.append(topic, event, now);
                self.derive_books(instrument, Kind::Snapshot, Some(ten), Some(fifty), times);
            }
        }
    }

    /// Another source publishes an instrument from here on. What the former one left cannot be gone on with.
    pub(crate) fn take_over(&mut self, id: InstrumentId, owner: SourceId, now: Time) {
        let times = Times { ts: None, recv: now };
        self.distrust(id, times, now);
        self.follow_clock(id, self.sources.clock_of(owner));
        let state = &mut self.instruments[id.0 as usize];
        state.owner = owner;
        state.lost = false;
        state.crossed = false;
        state.quote = None;
        state.told = None;
        if let Some(book) = &mut state.book {
            book.spoil();
        }
        self.show_status(id, times, now);
    }

    /// Calls an instrument's quote and books stale, where they have been shown.
    fn distrust(&mut self, id: InstrumentId, times: Times, now: Time) {
        if let Some(topic) = self.instruments[id.0 as usize].topic(Channel::Quote) {
            self.invalidate(topic, "stale", times, now);
        }
        self.invalidate_book(id, "stale", times, now);
    }

    fn owned(&self, id: SourceId) -> Vec<InstrumentId> {
        (0..).zip(&self.instruments).filter(|(_, i)| i.owner == id).map(|(n, _)| InstrumentId(n)).collect()
    }
}
