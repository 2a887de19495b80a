//! What is due to a session, whatever fits into its plan.

use std::sync::Arc;

use ticker_market::Time;
use ticker_proto::{Fields, Frame};

use crate::hub::Hub;
use crate::plan::held_at;
use crate::session::Mode;
use crate::subs::slow;

/// Events of one subscription (or of the backlog) that one plan considers, at most: a reader who is far behind is planned
/// for again and again.
const EVENTS_MAX: usize = 256;

/// One event that is due. The hub keeps the list, so that its memory is used again.
#[derive(Debug)]
pub(crate) struct Due {
    /// Whose it is; [`BACKLOG`] for an older event of a join.
    pub(crate) sub: u32,
    pub(crate) frame: Arc<Frame>,
    pub(crate) fields: Fields,
    /// Where the subscription stands once it is sent.
    pub(crate) place: u64,
    /// How many events are left out or merged for it.
    pub(crate) conflated: u64,
    /// The reader is to have every event of the topic.
    pub(crate) every: bool,
    /// The subscription begins with it.
    pub(crate) begins: bool,
    /// It comes before that with which the subscription begins: a closed bar before the state.
    pub(crate) is_before: bool,
    /// It goes by an unreliable way.
    pub(crate) datagram: bool,
}

/// See [`Due::sub`].
pub(crate) const BACKLOG: u32 = u32::MAX;

/// How a collection went.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Collected {
    /// All that is due.
    Whole,
    /// All that is due but for the newest of some states: there is more of them at once.
    More,
    /// All that is due up to some place on the tape; there is more at once.
    Part,
    /// All that is due up to some place on the tape; more when a join has gone on.
    Held,
    /// Nothing: the session is too slow, and ends.
    Slow,
}

impl Hub {
    /// Collects what is due.
    pub(crate) fn collect(&mut self, key: usize, now: Time, due: &mut Vec<Due>) -> Collected {
        let session = &mut self.sessions[key];
        let mut wake = Time(i64::MAX);
        // Nothing at or beyond this place on the tape may be sent yet.
        let mut stop = u64::MAX;
        let mut is_slow = None;
        let mut more = false;
        let once = session.opening.mode == Mode::Once;
        // An answer that is given once must end with the newest: its reader is not told of what was left out.
        let floor = if once { u64::MAX } else { session.floor };
        for (frame, fields) in session.backlog.iter().take(EVENTS_MAX) {
            due.push(Due {
                sub: BACKLOG,
                frame: Arc::clone(frame),
                fields: *fields,
                place: 0,
                conflated: 0,
                every: true,
                begins: false,
                is_before: false,
                datagram: false,
            });
        }
        if let Some((frame, _)) = session.backlog.get(EVENTS_MAX) {
            stop = frame.event.seq;
        }
        for index in &session.dirty {
            let at = *index as usize;
            let sub = &session.subs[at];
            let options = session.options_of(at);
            let topic = &mut self.topics[sub.topic as usize];
            let every = options.wants_every(topic.class);
            let limited = options.interval_nanos > 0 && !every;
            if options.datagram && !every && session.unreliable.is_some() && topic.may_be_lost() {
                if let Some(next) = session.next_at.get(at).filter(|next| limited && **next > now && !sub.fresh) {
                    wake = wake.min(*next);
                    continue;
                }
                let Some(frame) = topic.whole() else { continue };
                let place = topic.end();
                due.push(Due {
                    sub: *index,
                    frame,
                    fields: options.fields,
                    place,
                    conflated: if sub.fresh { 0 } else { place.saturating_sub(sub.place + 1) },
                    every,
                    begins: sub.fresh,
                    is_before: false,
                    datagram: !sub.fresh && topic.is_trusted(),
                });
                continue;
            }
            // What follows one by one from here on, if anything.
            let mut from = sub.place;
            let is_limited = session.next_at.get(at).is_some_and(|next| limited && *next > now);
            let in_turn = !session.behind && !limited && from >= topic.base() && session.bucket.is_none();
            let in_turn = in_turn && !(once && topic.end() - from > EVENTS_MAX as u64);
            if topic.topic.channel.is_bar() && (sub.fresh || !(every || in_turn)) {
                // The closed bars go first: the state that follows is newer than all of them.
                if topic.has_lost_closed(from) {
                    is_slow = Some(slow(topic, from));
                    break;
                }
                let first = due.len();
                for (ordinal, frame) in topic.closed_from(from) {
                    if due.len() - first >= EVENTS_MAX {
                        stop = stop.min(frame.event.seq);
                        break;
                    }
                    due.push(Due {
                        sub: *index,
                        frame: Arc::clone(frame),
                        fields: options.fields,
                        place: ordinal + 1,
                        conflated: if sub.fresh { 0 } else { ordinal - from },
                        every: true,
                        begins: false,
                        is_before: sub.fresh,
                        datagram: false,
                    });
                    from = ordinal + 1;
                }
                if from < topic.end() || sub.fresh {
                    if is_limited {
                        wake = wake.min(session.next_at[at]);
                    } else if let Some((frame, end)) = topic.newest(sub.fresh) {
                        due.push(Due {
                            sub: *index,
                            frame,
                            fields: options.fields,
                            place: end,
                            conflated: if sub.fresh { 0 } else { end - from - 1 },
                            every,
                            begins: sub.fresh,
                            is_before: false,
                            datagram: false,
                        });
                    }
                }
                continue;
            }
            let mut begins = sub.fresh;
            let mut push = |frame: &Arc<Frame>, place: u64, conflated: u64| {
                let (sub, fields, every) = (*index, options.fields, every || frame.event.is_closed_bar());
                let (begins, is_before, datagram) = (std::mem::take(&mut begins), false, false);
                let frame = Arc::clone(frame);
                due.push(Due { sub, frame, fields, place, conflated, every, begins, is_before, datagram });
            };
            if is_limited {
                wake = wake.min(session.next_at[at]);
                continue;
            }
            if sub.fresh {
                let Some((frame, place)) = topic.beginning(floor) else { continue };
                push(&frame, place, 0);
                from = if limited { topic.end() } else { place };
            } else if every {
                if sub.place < topic.base() {
                    is_slow = Some(slow(topic, sub.place));
                    break;
                }
            } else if !in_turn && sub.place < topic.end() {
                let Some((frame, place)) = topic.catch_up(sub.place) else { continue };
                push(&frame, place, place - sub.place - 1);
                from = if limited { topic.end() } else { place };
            }
            let end = topic.end().min(from + EVENTS_MAX as u64);
            for place in from..end {
                push(topic.at(place).expect("what follows a snapshot or a place in the ring is kept"), place + 1, 0);
            }
            match topic.at(end) {
                Some(next) if every => stop = stop.min(next.event.seq),
                Some(_) => {
                    more = true;
                    // A closed bar among them holds up what lies beyond it.
                    stop = stop.min(topic.next_due(&options, end).unwrap_or(u64::MAX));
                }
                None => {}
            }
        }
        if let Some(ending) = is_slow {
            due.clear();
            session.end(ending);
            return Collected::Slow;
        }
        if wake < Time(i64::MAX) {
            self.wake_session_at(key, wake);
        }
        let held = held_at(&self.sessions[key]).saturating_add(1);
        if stop.min(held) == u64::MAX {
            return if more { Collected::More } else { Collected::Whole };
        }
        due.retain(|d| d.frame.event.seq < stop.min(held));
        if stop < held { Collected::Part } else { Collected::Held }
    }
}
