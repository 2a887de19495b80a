//! One follower's place on the tape, and what it wants of it.
//!
//! A reader has no queue: each pass copies pointers from the tape beyond its place, as many as one pass may. What it
//! wants changes only where it has come to the tape's head, so that the values it is given there and what follows on the
//! tape fit together without a seam. Topics that appear later are joined at their place on the tape, before their first
//! event, while the reader goes by.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashSet;
use ticker_market::{Data, Event, Instrument, Pattern, Topic};
use ticker_tape::{Entry, Record, TapeError, TopicId};

use crate::core::Core;

/// Entries that one pass looks at, at most: the core is locked for so long.
const SCAN_ENTRIES_MAX: usize = 16_384;

/// Events that one pass copies, at most.
const PASS_EVENTS_MAX: usize = 1_024;

/// Book levels in the events of one pass, after which it ends.
const PASS_LEVELS_MAX: usize = 40_000;

/// Topics that one pass compares with patterns, about.
const MATCH_TOPICS_MAX: usize = 200_000;

/// Topics that one pass joins, at most.
const JOIN_TOPICS_MAX: usize = 512;

/// Book levels in the snapshots of one pass, after which it joins no more topics.
const JOIN_LEVELS_MAX: usize = 20_000;

/// A change of what a reader wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Also this.
    Add(Pattern),
    /// No longer this.
    Remove(Pattern),
}

/// A topic that a reader is given from here on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Joined {
    /// Its number.
    pub id: TopicId,
    /// The topic.
    pub topic: Arc<Topic>,
    /// Its last event at the place of joining; 0 if it had none.
    pub last: u64,
}

/// One thing to tell a follower, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Piece {
    /// An instrument appeared or changed at that place.
    Instrument(u64, Arc<Instrument>),
    /// Topics are carried from that place on.
    Added {
        /// The place.
        seq: u64,
        /// The topics.
        topics: Vec<Joined>,
        /// Their newest values there.
        snapshots: Vec<(TopicId, Event)>,
    },
    /// Topics are carried no longer.
    Removed(Vec<TopicId>),
    /// Something happened.
    Event(TopicId, Arc<Event>),
}

/// What the reader has of a topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Mark {
    #[default]
    Unwanted,
    /// Joined at one of the next passes.
    Pending,
    Carried,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Reader {
    /// Everything up to here has been told.
    position: u64,
    /// By topic number. As long as the topics that the reader has gone by.
    marks: Vec<Mark>,
    exact: HashSet<Topic>,
    patterns: Vec<Pattern>,
    pending: VecDeque<TopicId>,
}

impl Reader {
    /// A reader at the tape's head that wants nothing yet.
    pub fn at_head(core: &Core) -> Self {
        Self { position: core.tape().head(), marks: vec![Mark::default(); core.topics.len()], ..Self::default() }
    }

    /// A reader that goes on after the place `after`, with the topics that it had there.
    ///
    /// # Errors
    /// Where the tape does not reach back to that place, or has not reached it.
    pub fn resume(core: &Core, after: u64, wanted: Vec<Pattern>) -> Result<(Self, Option<Piece>), TapeError> {
        core.tape().check(after)?;
        let known = core.topics.partition_point(|t| t.born <= after);
        let mut reader = Self { position: after, marks: vec![Mark::default(); known], ..Self::default() };
        let mut topics = Vec::new();
        for pattern in wanted {
            for id in core.matching(&pattern) {
                if let Some(mark @ Mark::Unwanted) = reader.marks.get_mut(id.index()) {
                    *mark = Mark::Carried;
                    topics.push(Joined { id, topic: Arc::clone(core.topic(id)), last: core.tape().last_at(id, after) });
                }
            }
            reader.want(pattern);
        }
        let added = Piece::Added { seq: after, topics, snapshots: Vec::new() };
        Ok((reader, Some(added).filter(|a| !matches!(a, Piece::Added { topics, .. } if topics.is_empty()))))
    }

    /// Everything up to here has been told.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// One pass: appends to `out` what comes next, and takes `changes` in where the reader has come to the head. Returns
    /// whether another pass would find more at once.
    ///
    /// # Errors
    /// [`TapeError::Expired`] where the tape has forgotten what the reader has not been told yet.
    pub fn pass(
        &mut self,
        core: &Core,
        changes: &mut VecDeque<Change>,
        out: &mut Vec<Piece>,
    ) -> Result<bool, TapeError> {
        let start = out.len();
        let mut levels = 0;
        let mut entries = core.tape().since(self.position)?.enumerate().peekable();
        while let Some((i, entry)) = entries.next() {
            levels += self.pass_entry(core, entry, out);
            // What shares a place is told in one pass: a position means that all of it has been.
            if entries.peek().is_some_and(|(_, next)| next.seq == entry.seq) {
                continue;
            }
            self.position = entry.seq;
            let full = out.len() - start >= PASS_EVENTS_MAX || levels >= PASS_LEVELS_MAX;
            if full || i + 1 >= SCAN_ENTRIES_MAX {
                break;
            }
        }
        if self.position < core.tape().head() {
            return Ok(true);
        }
        debug_assert_eq!(self.marks.len(), core.topics.len(), "at the head every topic has been gone by");
        let mut matched = 0;
        while matched < MATCH_TOPICS_MAX
            && let Some(change) = changes.pop_front()
        {
            let (Change::Add(pattern) | Change::Remove(pattern)) = &change;
            matched += pattern.exact().map_or(core.topics.len(), |_| 1);
            match change {
                Change::Add(pattern) => self.add(core, pattern),
                Change::Remove(pattern) => self.remove(core, &pattern, out),
            }
        }
        self.join(core, out);
        Ok(!self.pending.is_empty() || !changes.is_empty())
    }

    /// Returns the book levels in what it has appended.
    fn pass_entry(&mut self, core: &Core, entry: &Entry, out: &mut Vec<Piece>) -> usize {
        match &entry.record {
            Record::Event(id, event) if self.marks.get(id.index()) == Some(&Mark::Carried) => {
                out.push(Piece::Event(*id, Arc::clone(event)));
                match &event.data {
                    Data::Book(book) => book.bids.len() + book.asks.len(),
                    _ => 0,
                }
            }
            Record::Event(..) | Record::Tick(..) => 0,
            Record::Instrument(instrument) => {
                out.push(Piece::Instrument(entry.seq, Arc::clone(instrument)));
                let mut topics = Vec::new();
                while let Some(state) = core.topics.get(self.marks.len()).filter(|t| t.born <= entry.seq) {
                    let id = TopicId(self.marks.len() as u32);
                    let wanted = self.wants(&state.topic);
                    self.marks.push(if wanted { Mark::Carried } else { Mark::Unwanted });
                    if wanted {
                        topics.push(Joined { id, topic: Arc::clone(&state.topic), last: 0 });
                    }
                }
                if !topics.is_empty() {
                    out.push(Piece::Added { seq: entry.seq, topics, snapshots: Vec::new() });
                }
                0
            }
        }
    }

    fn add(&mut self, core: &Core, pattern: Pattern) {
        for id in core.matching(&pattern) {
            let mark = &mut self.marks[id.index()];
            if *mark == Mark::Unwanted {
                *mark = Mark::Pending;
                self.pending.push_back(id);
            }
        }
        self.want(pattern);
    }

    fn remove(&mut self, core: &Core, pattern: &Pattern, out: &mut Vec<Piece>) {
        match pattern.exact() {
            Some(topic) => {
                self.exact.remove(&topic);
            }
            None => self.patterns.retain(|p| p != pattern),
        }
        let mut removed = Vec::new();
        for id in core.matching(pattern) {
            if self.wants(core.topic(id)) {
                continue;
            }
            match std::mem::take(&mut self.marks[id.index()]) {
                Mark::Carried => removed.push(id),
                Mark::Pending => self.pending.retain(|p| *p != id),
                Mark::Unwanted => {}
            }
        }
        if !removed.is_empty() {
            out.push(Piece::Removed(removed));
        }
    }

    /// Joins some of the pending topics, here at the head.
    fn join(&mut self, core: &Core, out: &mut Vec<Piece>) {
        let (mut topics, mut snapshots, mut levels) = (Vec::new(), Vec::new(), 0);
        while topics.len() < JOIN_TOPICS_MAX
            && levels < JOIN_LEVELS_MAX
            && let Some(id) = self.pending.pop_front()
        {
            self.marks[id.index()] = Mark::Carried;
            let state = &core.topics[id.index()];
            topics.push(Joined { id, topic: Arc::clone(&state.topic), last: state.last_seq() });
            if let Some(event) = core.snapshot(id) {
                if let Data::Book(book) = &event.data {
                    levels += book.bids.len() + book.asks.len();
                }
                snapshots.push((id, event));
            }
        }
        if !topics.is_empty() {
            out.push(Piece::Added { seq: self.position, topics, snapshots });
        }
    }

    fn want(&mut self, pattern: Pattern) {
        match pattern.exact() {
            Some(topic) => {
                self.exact.insert(topic);
            }
            None if self.patterns.contains(&pattern) => {}
            None => self.patterns.push(pattern),
        }
    }

    fn wants(&self, topic: &Topic) -> bool {
        self.exact.contains(topic) || self.patterns.iter().any(|p| p.matches(topic))
    }
}

#[cfg(test)]
mod tests;
