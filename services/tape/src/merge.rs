//! The events of some topics, in tape order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use ticker_market::Event;

use crate::{Record, Tape, TopicId};

/// Walks the events of some topics in tape order. Made by [`Tape::events_of`] and [`Tape::last_of`].
pub struct Merge<'a> {
    tape: &'a Tape,
    /// For each topic that has more: the ordinal of its next entry, the topic, and where in the topic's list that is.
    next: BinaryHeap<Reverse<(u64, TopicId, usize)>>,
}

impl<'a> Merge<'a> {
    pub(crate) fn new(tape: &'a Tape, starts: impl Iterator<Item = (TopicId, usize)>) -> Self {
        let next = starts
            .filter_map(|(topic, at)| {
                let ordinal = *tape.topics[topic.index()].ordinals.get(at)?;
                Some(Reverse((ordinal, topic, at)))
            })
            .collect();
        Self { tape, next }
    }
}

impl<'a> Iterator for Merge<'a> {
    type Item = (TopicId, &'a Arc<Event>);

    fn next(&mut self) -> Option<Self::Item> {
        let Reverse((ordinal, topic, at)) = self.next.pop()?;
        if let Some(following) = self.tape.topics[topic.index()].ordinals.get(at + 1) {
            self.next.push(Reverse((*following, topic, at + 1)));
        }
        match &self.tape.entry(ordinal).record {
            Record::Event(_, event) => Some((topic, event)),
            Record::Instrument(_) | Record::Tick(..) => unreachable!("only events are in a topic's list"),
        }
    }
}

impl std::fmt::Debug for Merge<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Merge").field("topics", &self.next.len()).finish_non_exhaustive()
    }
}
