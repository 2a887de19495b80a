//! Keeping a session's subscriptions, the topics' lists of readers and the marks between them in step.

use ticker_market::Time;
use ticker_proto::Code;

use crate::hub::Hub;
use crate::session::{Ending, Sub};
use crate::topic::Reader;

impl Hub {
    /// Begins a subscription at a place of its topic, with news or not. The topic's `retain` counts it already: its join did.
    pub(crate) fn add_sub(&mut self, key: usize, mut sub: Sub) {
        let session = &mut self.sessions[key];
        let at = session.subs.len() as u32;
        let topic = &mut self.topics[sub.topic as usize];
        sub.slot = topic.readers.len() as u32;
        topic.readers.push(Reader { session: key as u32, sub: at });
        if sub.dirty {
            session.dirty.push(at);
        }
        session.subs.push(sub);
    }

    /// Removes a subscription; the last one takes its index. What it wanted of upstream is left to the caller.
    pub(crate) fn remove_sub(&mut self, key: usize, at: usize) -> Sub {
        let session = &mut self.sessions[key];
        let options = session.options_of(at);
        let sub = session.subs.swap_remove(at);
        let moved_from = session.subs.len() as u32;
        if session.next_at.len() > at {
            session.next_at.resize(session.subs.len() + 1, Time(0));
            session.next_at.swap_remove(at);
        }
        if let Some(unreliable) = &mut session.unreliable {
            unreliable.removed(at, session.subs.len() + 1);
        }
        session.dirty.retain(|d| *d != at as u32);
        for dirty in session.dirty.iter_mut().filter(|d| **d == moved_from) {
            *dirty = at as u32;
        }
        if let Some(moved) = session.subs.get(at) {
            self.topics[moved.topic as usize].readers[moved.slot as usize].sub = at as u32;
        }
        let topic = &mut self.topics[sub.topic as usize];
        if options.wants_every(topic.class) {
            topic.retain -= 1;
        }
        topic.readers.swap_remove(sub.slot as usize);
        if let Some(moved) = topic.readers.get(sub.slot as usize) {
            self.sessions[moved.session as usize].subs[moved.sub as usize].slot = sub.slot;
        }
        sub
    }

    /// Removes a subscription for good.
    pub(crate) fn drop_sub(&mut self, key: usize, at: usize) {
        let sub = self.remove_sub(key, at);
        if sub.exactness == 3 {
            self.unwant_topic(sub.topic);
        }
    }

    /// The place on the tape up to which a subscription has been sent every event of its topic, so that another can go on
    /// there; `None` where it does not get every event (of a bar: the closed ones). A reader who lags beyond what is kept is ended.
    pub(crate) fn delivered(&mut self, key: usize, at: usize) -> Option<u64> {
        let session = &mut self.sessions[key];
        let sub = &session.subs[at];
        let topic = &self.topics[sub.topic as usize];
        if topic.topic.channel.is_bar() && (session.options_of(at).conflate || sub.fresh) {
            let place = sub.place;
            if topic.has_lost_closed(place) {
                session.end(slow(topic, place));
                return Some(session.cursor);
            }
            return Some(topic.closed_from(place).next().map_or(self.position, |(_, next)| next.event.seq - 1));
        }
        if !session.options_of(at).wants_every(topic.class) || sub.fresh {
            return None;
        }
        let place = sub.place;
        if place < topic.base() {
            session.end(slow(topic, place));
            return Some(session.cursor);
        }
        Some(topic.at(place).map_or(self.position, |next| next.event.seq - 1))
    }
}

/// The end of a reader whose event channels have outgrown their limit.
pub(crate) fn slow(topic: &crate::topic::TopicState, place: u64) -> Ending {
    let waiting = topic.end() - place;
    let message = format!("{} has {waiting} events waiting: more than are kept; go on from the cursor", topic.topic);
    Ending { code: Code::SlowConsumer, message }
}
