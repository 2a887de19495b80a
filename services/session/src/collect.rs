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
                    datagram: !sub.fresh && topic.is_trusted(),
                });
                continue;
            }
            let mut begins = sub.fresh;
            let mut push = |frame: &Arc<Frame>, place: u64, conflated: u64| {
                let fields = options.fields;
                let begins = std::mem::take(&mut begins);
                let frame = Arc::clone(frame);
                due.push(Due { sub: *index, frame, fields, place, conflated, every, begins, datagram: false });
            };
            // What follows one by one from here on, if anything.
            let mut from = sub.place;
            if let Some(next) = session.next_at.get(at).filter(|next| limited && **next > now) {
                wake = wake.min(*next);
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
            } else {
                let in_turn = !session.behind && !limited && sub.place >= topic.base() && session.bucket.is_none();
                let in_turn = in_turn && !(once && topic.end() - sub.place > EVENTS_MAX as u64);
                if !in_turn && sub.place < topic.end() {
                    let Some((frame, place)) = topic.catch_up(sub.place) else { continue };
                    push(&frame, place, place - sub.place - 1);
                    from = if limited { topic.end() } else { place };
                }
            }
            let end = topic.end().min(from + EVENTS_MAX as u64);
            for place in from..end {
                push(topic.at(place).expect("what follows a snapshot or a place in the ring is kept"), place + 1, 0);
            }
            match topic.at(end) {
                Some(next) if every => stop = stop.min(next.event.seq),
                Some(_) => more = true,
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
