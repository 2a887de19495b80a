//! What a hub keeps of one topic: its last events, its newest value, its book.

use std::collections::VecDeque;
use std::sync::Arc;

use ticker_market::{Book, Class, Data, Event, Kind, Level, Levels, Topic};
use ticker_proto::Frame;

use crate::limits::Limits;
use crate::session::Options;

/// A reader of a topic: which session, and which of its subscriptions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader {
    pub(crate) session: u32,
    pub(crate) sub: u32,
}

/// A topic that some reader wants or that is held for a while after.
#[derive(Debug)]
pub(crate) struct TopicState {
    pub(crate) topic: Arc<Topic>,
    pub(crate) class: Class,
    /// Does upstream send its events?
    pub(crate) held: bool,
    pub(crate) readers: Vec<Reader>,
    /// Sessions with joins that wait until upstream sends it.
    pub(crate) waiting: Vec<u32>,
    /// Subscriptions and joins that want every event: while there are some, a state or book topic keeps its events as an
    /// event channel does.
    pub(crate) retain: u32,
    /// The newest event.
    pub(crate) last: Option<Arc<Frame>>,
    ring: VecDeque<Arc<Frame>>,
    /// The ordinal (count of this topic's events since it was held) of the ring's first event.
    base: u64,
    /// Every event of the topic after this place on the tape is in the ring.
    covered: u64,
    /// Levels in the ring's events.
    ring_levels: usize,
    /// Of bars: the last closed ones, with their ordinals. They are kept for longer than the ring's events, since no
    /// reader may miss one.
    closed: VecDeque<(u64, Arc<Frame>)>,
    /// Every closed bar from this ordinal on is kept, and every one after this place on the tape.
    closed_base: u64,
    closed_covered: u64,
    /// The pass in which the ring was last added to, and the ordinal of the first event of it. A state topic keeps the events
    /// of two passes: in the later one not every reader has had its turn yet.
    pass: u64,
    pass_base: u64,
    book: Book,
    /// The book as a snapshot, and the ordinal after it. It serves as long as the ring holds what came since.
    book_snapshot: Option<(u64, Arc<Frame>)>,
    /// The newest value as a snapshot, for state topics.
    state_snapshot: Option<Arc<Frame>>,
    /// Merged updates from an ordinal to the end, for readers who are equally far behind.
    merged: Vec<(u64, Arc<Frame>)>,
}

/// While some reader wants each event, a book topic keeps so many times the levels.
const RETAINED_LEVELS: usize = 8;

/// Merged updates kept of one topic; more are made anew.
const MERGED_MAX: usize = 8;

impl TopicState {
    pub(crate) fn new(topic: Arc<Topic>) -> Self {
        Self {
            class: topic.channel.class(),
            topic,
            held: false,
            readers: Vec::new(),
            waiting: Vec::new(),
            retain: 0,
            last: None,
            ring: VecDeque::new(),
            base: 0,
            covered: 0,
            ring_levels: 0,
            closed: VecDeque::new(),
            closed_base: 0,
            closed_covered: 0,
            pass: 0,
            pass_base: 0,
            book: Book::new(),
            book_snapshot: None,
            state_snapshot: None,
            merged: Vec::new(),
        }
    }

    /// Upstream sends everything after the topic's event at `last` from here on (0: it had none yet); `snapshot` is the
    /// newest value there, if there is one.
    pub(crate) fn hold(&mut self, last: u64, snapshot: Option<Arc<Frame>>) {
        let end = self.end();
        self.forget();
        self.base = end;
        self.held = true;
        self.covered = last;
        (self.closed_base, self.closed_covered) = (end, last);
        if let Some(frame) = &snapshot
            && let Data::Book(levels) = &frame.event.data
        {
            // The fanout applied the same levels to the same type of book before it sent them.
            let _ = self.book.replace(levels);
        }
        self.last = snapshot;
    }

    /// Forgets all that was known of it, but for its readers.
    pub(crate) fn forget(&mut self) {
        self.base = self.end();
        self.held = false;
        self.last = None;
        self.ring = VecDeque::new();
        self.ring_levels = 0;
        self.closed = VecDeque::new();
        self.book.clear();
        self.book_snapshot = None;
        self.state_snapshot = None;
        self.merged = Vec::new();
    }

    /// Adds an event.
    pub(crate) fn push(&mut self, frame: Arc<Frame>, pass: u64, limits: &Limits) {
        self.state_snapshot = None;
        self.merged.clear();
        if let Data::Book(levels) = &frame.event.data {
            let applied = match frame.event.kind {
                Kind::Snapshot => self.book.replace(levels),
                _ => self.book.apply(levels),
            };
            debug_assert!(applied.is_ok(), "the fanout applied the same levels before");
            self.ring_levels += levels.bids.len() + levels.asks.len();
        }
        if pass != self.pass {
            let needed = if pass == self.pass + 1 { self.pass_base } else { self.end() };
            while self.class == Class::State && self.retain == 0 && self.base < needed && self.evict() {}
            (self.pass, self.pass_base) = (pass, self.end());
        }
        if frame.event.is_closed_bar() {
            self.closed.push_back((self.end(), Arc::clone(&frame)));
            while self.closed.len() > limits.backlog_events_max
                && let Some((ordinal, gone)) = self.closed.pop_front()
            {
                (self.closed_base, self.closed_covered) = (ordinal + 1, gone.event.seq);
            }
        }
        self.last = Some(Arc::clone(&frame));
        self.ring.push_back(frame);
        let (events, levels) = match self.class {
            Class::Event | Class::State => (limits.backlog_events_max, usize::MAX),
            Class::Book if self.retain > 0 => (limits.backlog_events_max, RETAINED_LEVELS * limits.book_levels_max),
            Class::Book => (limits.book_updates_max, limits.book_levels_max),
        };
        while self.ring.len() > events || (self.ring_levels > levels && self.ring.len() > 1) {
            self.evict();
        }
    }

    /// Where the next event will be.
    pub(crate) fn end(&self) -> u64 {
        self.base + self.ring.len() as u64
    }

    /// The ordinal of the oldest event that is kept.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// How many events are kept.
    pub(crate) fn kept(&self) -> u64 {
        self.ring.len() as u64
    }

    /// Every event after this place on the tape is kept.
    pub(crate) fn covered(&self) -> u64 {
        self.covered
    }

    /// The ordinal of the first kept event after `seq`.
    pub(crate) fn ordinal_after(&self, seq: u64) -> u64 {
        self.base + self.ring.partition_point(|f| f.event.seq <= seq) as u64
    }

    /// Of bars: the closed ones that are kept, from an ordinal on, with their ordinals.
    pub(crate) fn closed_from(&self, ordinal: u64) -> impl ExactSizeIterator<Item = &(u64, Arc<Frame>)> {
        self.closed.range(self.closed.partition_point(|(o, _)| *o < ordinal)..)
    }

    /// Has a closed bar from this ordinal on been forgotten?
    pub(crate) fn has_lost_closed(&self, ordinal: u64) -> bool {
        ordinal < self.closed_base
    }

    /// Of bars: every closed one after this place on the tape is kept.
    pub(crate) fn closed_covered(&self) -> u64 {
        self.closed_covered
    }

    /// Of bars: the ordinal of the first kept closed one after `seq`.
    pub(crate) fn closed_after(&self, seq: u64) -> u64 {
        let at = self.closed.partition_point(|(_, frame)| frame.event.seq <= seq);
        self.closed.get(at).map_or(self.end(), |(ordinal, _)| *ordinal)
    }

    /// How many past events there are for `recent`.
    pub(crate) fn past(&self) -> u64 {
        if self.topic.channel.is_bar() { self.closed.len() as u64 } else { self.kept() }
    }

    /// The ordinal of the last but so many closed bars.
    pub(crate) fn recent_at(&self, recent: u32) -> u64 {
        let at = self.closed.len().saturating_sub(recent as usize);
        self.closed.get(at).map_or(self.end(), |(ordinal, _)| *ordinal)
    }

    /// Does a reader with these options get the closed bars, and of the running one the newest state?
    pub(crate) fn is_conflated_bar(&self, options: &Options) -> bool {
        self.topic.channel.is_bar() && options.conflate
    }

    /// The place on the tape of the first event from an ordinal on that such a reader must not miss.
    pub(crate) fn next_due(&self, options: &Options, ordinal: u64) -> Option<u64> {
        if self.is_conflated_bar(options) {
            return self.closed_from(ordinal).next().map(|(_, frame)| frame.event.seq);
        }
        self.at(ordinal).filter(|_| options.wants_every(self.class)).map(|frame| frame.event.seq)
    }

    /// The event at an ordinal, if it is kept.
    pub(crate) fn at(&self, ordinal: u64) -> Option<&Arc<Frame>> {
        self.ring.get(usize::try_from(ordinal.checked_sub(self.base)?).ok()?)
    }

    /// The place on the tape of the newest event; 0 if there is none.
    pub(crate) fn last_seq(&self) -> u64 {
        self.last.as_ref().map_or(0, |f| f.event.seq)
    }

    /// What a new reader begins with, and the ordinal that follows it: a snapshot, or `invalid` where there is nothing to
    /// be trusted; `None` where nothing has happened yet. A book's snapshot may be some updates old, but not older than
    /// `floor`: what the reader has had of the topic lies at or below that place.
    pub(crate) fn beginning(&mut self, floor: u64) -> Option<(Arc<Frame>, u64)> {
        let last = self.last.as_ref()?;
        if last.event.kind == Kind::Invalid || self.class == Class::Event {
            return Some((Arc::clone(last), self.end()));
        }
        if self.class == Class::Book {
            return Some(self.book_snapshot(floor));
        }
        let end = self.end();
        let snapshot = self.state_snapshot.get_or_insert_with(|| {
            if last.event.kind == Kind::Snapshot && last.event.prev == 0 {
                return Arc::clone(last);
            }
            let event = Event { kind: Kind::Snapshot, prev: 0, ..last.event.clone() };
            Arc::new(Frame::new(event, last.epoch().into()))
        });
        Some((Arc::clone(snapshot), end))
    }

    /// The newest value as a whole: a snapshot, or `invalid`; `None` where nothing has happened yet.
    pub(crate) fn whole(&mut self) -> Option<Arc<Frame>> {
        self.beginning(u64::MAX).map(|(frame, _)| frame)
    }

    /// The newest value, as a snapshot for a new reader or as it came, and the ordinal that follows it.
    pub(crate) fn newest(&mut self, fresh: bool) -> Option<(Arc<Frame>, u64)> {
        if fresh {
            return self.beginning(u64::MAX);
        }
        self.last.clone().map(|last| (last, self.end()))
    }

    /// For a reader at `place`, before the end: one event that brings it on, and the ordinal that follows it.
    pub(crate) fn catch_up(&mut self, place: u64) -> Option<(Arc<Frame>, u64)> {
        let last = self.last.clone()?;
        if self.class != Class::Book || last.event.kind == Kind::Invalid || place + 1 == self.end() {
            return Some((last, self.end()));
        }
        let whole =
            place < self.base || (place..self.end()).any(|o| self.at(o).is_none_or(|f| f.event.kind != Kind::Update));
        if whole {
            // One that is kept lies after what made the whole book necessary, and so after what the reader has had.
            return Some(self.book_snapshot(0));
        }
        if let Some((_, frame)) = self.merged.iter().find(|(from, _)| *from == place) {
            return Some((Arc::clone(frame), self.end()));
        }
        let frame = Arc::new(self.merge(place, &last));
        if self.merged.len() < MERGED_MAX {
            self.merged.push((place, Arc::clone(&frame)));
        }
        Some((frame, self.end()))
    }

    fn merge(&self, place: u64, last: &Frame) -> Frame {
        let mut levels = Levels::default();
        for ordinal in place..self.end() {
            if let Some(frame) = self.at(ordinal)
                && let Data::Book(some) = &frame.event.data
            {
                levels.bids.extend_from_slice(&some.bids);
                levels.asks.extend_from_slice(&some.asks);
                (levels.crc, levels.sum) = (some.crc, some.sum);
            }
        }
        newest_of_each(&mut levels.bids, false);
        newest_of_each(&mut levels.asks, true);
        let Event { seq, kind, ts, recv, published, .. } = last.event;
        let (topic, prev) = (Arc::clone(&last.event.topic), self.at(place).map_or(0, |f| f.event.prev));
        let event = Event { topic, seq, prev, kind, ts, recv, published, data: Data::Book(levels) };
        Frame::new(event, last.epoch().into())
    }

    fn book_snapshot(&mut self, floor: u64) -> (Arc<Frame>, u64) {
        if let Some((ordinal, frame)) = &self.book_snapshot
            && *ordinal >= self.base
            && frame.event.seq >= floor.min(self.last_seq())
            && (*ordinal..self.end()).all(|o| self.at(o).is_some_and(|f| f.event.kind == Kind::Update))
        {
            return (Arc::clone(frame), *ordinal);
        }
        let last = self.last.as_ref().expect("a book topic with a value has a last event");
        let Event { seq, ts, recv, published, .. } = last.event;
        let (topic, data) = (Arc::clone(&last.event.topic), Data::Book(self.book.to_levels()));
        let event = Event { topic, seq, prev: 0, kind: Kind::Snapshot, ts, recv, published, data };
        let frame = Arc::new(Frame::new(event, last.epoch().into()));
        self.book_snapshot = Some((self.end(), Arc::clone(&frame)));
        (frame, self.end())
    }

    fn evict(&mut self) -> bool {
        let Some(frame) = self.ring.pop_front() else { return false };
        self.base += 1;
        self.covered = self.covered.max(frame.event.seq);
        if let Data::Book(levels) = &frame.event.data {
            self.ring_levels -= levels.bids.len() + levels.asks.len();
        }
        true
    }
}

/// Keeps the last entry of each price, best price first.
fn newest_of_each(levels: &mut Vec<Level>, ascending: bool) {
    // A stable sort keeps equal prices in order of time; taken backwards, the newest comes first.
    levels.sort_by(|a, b| if ascending { a.price.cmp(&b.price) } else { b.price.cmp(&a.price) });
    levels.reverse();
    levels.dedup_by(|later, kept| later.price == kept.price);
    levels.reverse();
}

#[cfg(test)]
mod tests {
    use super::*;
    use ticker_market::Decimal;

    #[test]
    fn merging_keeps_the_newest_size_of_each_price() {
        let level = |p: i64, s: i64| Level { price: Decimal::from(p), size: Decimal::from(s) };
        let mut bids = vec![level(5, 1), level(3, 1), level(5, 0), level(4, 7), level(3, 2)];
        newest_of_each(&mut bids, false);
        assert_eq!(bids, [level(5, 0), level(4, 7), level(3, 2)]);
        let mut asks = vec![level(5, 1), level(3, 1), level(5, 9)];
        newest_of_each(&mut asks, true);
        assert_eq!(asks, [level(3, 1), level(5, 9)]);
    }
}
