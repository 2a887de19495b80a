//! Older events of some topics, a page at a time.

use std::sync::Arc;

use ticker_market::{Data, Event, From};
use ticker_tape::TopicId;

use crate::core::Core;

/// Events that `recent` gives at most, over all topics of a request; each topic gets fewer where it would be more.
pub const RECENT_EVENTS_MAX: usize = 10_000;

/// Book levels in one page, after which it ends.
const PAGE_LEVELS_MAX: usize = 40_000;

/// Older events, in the order of the tape.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Page {
    /// The events.
    pub events: Vec<Arc<Event>>,
    /// All events of the topics up to this place are in this page or before it.
    pub through: u64,
    /// Topics of which events after the place that was asked for are gone.
    pub expired: Vec<TopicId>,
}

impl Core {
    /// The events of these topics after a place: about `limit` of them, and never a part of those that share a place.
    /// What is kept of an expired topic is given as well. `None` where the cursor is ahead of the tape.
    pub fn backfill(&self, topics: &[TopicId], from: &From, limit: usize) -> Option<Page> {
        let tape = self.tape();
        let mut page = Page { through: tape.head(), ..Page::default() };
        let after = match from {
            From::Earliest => 0,
            // Places of another life of the tape mean nothing on this one.
            From::After(cursor) if cursor.epoch != *tape.epoch() => {
                page.expired = topics.to_vec();
                return Some(page);
            }
            From::After(cursor) if cursor.seq > tape.head() => return None,
            From::After(cursor) => {
                page.expired = topics.iter().copied().filter(|t| !tape.is_complete(*t, cursor.seq)).collect();
                cursor.seq
            }
        };
        let mut levels = 0;
        for (_, event) in tape.events_of(topics, after) {
            let full = page.events.len() >= limit.max(1) || levels >= PAGE_LEVELS_MAX;
            if let Some(last) = page.events.last().filter(|l| full && l.seq != event.seq) {
                page.through = last.seq;
                break;
            }
            if let Data::Book(book) = &event.data {
                levels += book.bids.len() + book.asks.len();
            }
            page.events.push(Arc::clone(event));
        }
        Some(page)
    }

    /// The last `count` events of each topic (of bars: the last closed ones, which are kept for longer than the tape
    /// reaches back), in one page: fewer of each where all together would be more than [`RECENT_EVENTS_MAX`].
    pub fn recent(&self, topics: &[TopicId], count: usize) -> Page {
        let count = count.min(RECENT_EVENTS_MAX / topics.len().max(1)).max(1);
        let (bars, others): (Vec<TopicId>, Vec<TopicId>) =
            topics.iter().partition(|id| self.topic(**id).channel.is_bar());
        let events = self.tape().last_of(&others, count).take(RECENT_EVENTS_MAX.max(topics.len()));
        let mut events: Vec<Arc<Event>> = events.map(|(_, e)| Arc::clone(e)).collect();
        for closed in bars.into_iter().filter_map(|id| self.closed_bars(id)) {
            events.extend(closed.range(closed.len().saturating_sub(count)..).cloned());
        }
        events.sort_by_key(|e| e.seq);
        Page { events, through: self.tape().head(), expired: Vec::new() }
    }
}
