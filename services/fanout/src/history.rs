//! Bars and trades by time: closed bars as they were kept, trades as far as the tape reaches back. In memory, a page at a
//! time.

use std::collections::VecDeque;
use std::sync::Arc;

use ticker_market::{Channel, Data, Event, Interval, Time};
use ticker_tape::TopicId;

use crate::core::Core;

/// Events in one page, at most.
pub const PAGE_EVENTS_MAX: usize = 1_000;

/// Events that one page looks at, at most: the core is locked for so long.
const SCAN_EVENTS_MAX: usize = 100_000;

/// Closed bars that are kept of each instrument. All of them take some 250 KiB.
pub const fn bars_kept(interval: Interval) -> usize {
    match interval {
        // Five minutes, eight hours, a day, a week, a month.
        Interval::S1 => 300,
        Interval::M1 => 480,
        Interval::M5 => 288,
        Interval::H1 => 168,
        Interval::D1 => 31,
    }
}

/// Keeps the newest `max`.
pub(crate) fn keep(queue: &mut VecDeque<Arc<Event>>, event: Arc<Event>, max: usize) {
    if queue.len() >= max {
        queue.pop_front();
    }
    queue.push_back(event);
}

/// What is asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Range {
    /// Not before this.
    pub start: Option<Time>,
    /// Before this.
    pub end: Option<Time>,
    /// At most so many.
    pub limit: usize,
    /// Only what lies behind this place on the tape.
    pub after: Option<u64>,
}

impl Range {
    /// As it comes over the wire: 0 where nothing is said.
    pub fn new(start: i64, end: i64, limit: u32) -> Self {
        let some = |nanos: i64| (nanos != 0).then_some(Time(nanos));
        let limit = if limit == 0 { PAGE_EVENTS_MAX } else { PAGE_EVENTS_MAX.min(limit as usize) };
        Self { start: some(start), end: some(end), limit, after: None }
    }

    fn has(&self, at: Time) -> bool {
        self.start.is_none_or(|start| start <= at) && self.end.is_none_or(|end| at < end)
    }

    /// Without a beginning the newest are meant.
    fn is_newest(&self) -> bool {
        self.start.is_none() && self.after.is_none()
    }
}

/// Some history, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HistoryPage {
    /// The events.
    pub events: Vec<Arc<Event>>,
    /// There may be more behind this place.
    pub next: Option<u64>,
}

impl Core {
    /// Closed bars that begin in that time.
    pub fn bars(&self, topic: TopicId, range: &Range) -> HistoryPage {
        let Some(closed) = self.closed_bars(topic) else { return HistoryPage::default() };
        page(closed.iter(), range, |event| match &event.data {
            Data::Bar(bar) => bar.start,
            _ => event.recv,
        })
    }

    /// Trades, corrections and cancellations of that time, by the venue's clock where it tells.
    pub fn trades(&self, topic: TopicId, range: &Range) -> HistoryPage {
        let at = |event: &Event| event.ts.unwrap_or(event.recv);
        let tape = self.tape();
        if range.is_newest() {
            return page(tape.last_of(&[topic], SCAN_EVENTS_MAX).map(|(_, e)| e), range, at);
        }
        page(tape.events_of(&[topic], range.after.unwrap_or(0)).map(|(_, e)| e), range, at)
    }

    /// The closed bars that are kept of a topic; `None` where it has none.
    pub(crate) fn closed_bars(&self, topic: TopicId) -> Option<&VecDeque<Arc<Event>>> {
        let state = &self.topics[topic.index()];
        let Channel::Bar(interval) = state.topic.channel else { return None };
        Some(self.instruments[state.instrument?.0 as usize].trading.as_ref()?.closed(interval))
    }
}

fn page<'a>(events: impl Iterator<Item = &'a Arc<Event>>, range: &Range, at: impl Fn(&Event) -> Time) -> HistoryPage {
    let mut some = VecDeque::new();
    for (i, event) in events.enumerate() {
        if range.after.is_some_and(|after| event.seq <= after) {
            continue;
        }
        if i >= SCAN_EVENTS_MAX {
            return HistoryPage { events: some.into(), next: Some(event.seq - 1) };
        }
        if !range.has(at(event)) {
            continue;
        }
        if some.len() >= range.limit {
            if !range.is_newest() {
                let next = some.back().map(|e: &Arc<Event>| e.seq);
                return HistoryPage { events: some.into(), next };
            }
            some.pop_front();
        }
        some.push_back(Arc::clone(event));
    }
    HistoryPage { events: some.into(), next: None }
}
