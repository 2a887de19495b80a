//! What is sent to a reader next, and in which order.
//!
//! Promise 2 of the contract rules the order: nothing with `seq` S goes out before every event-channel event of the
//! session at or below S. So what is due is merged by `seq`, event channels first among equals; under `max_kbps` event
//! channels go first altogether, then the topics with news, in the order in which the news came.

use std::sync::Arc;

use ticker_market::{Class, Kind, Time};
use ticker_proto::frame::encode_notice;
use ticker_proto::{Encoded, Form, Frame, Notice};

use crate::hub::{Hub, SessionId};
use crate::join::cursor_text;
use crate::session::{Beginning, Ending, Mode, Options, Saying, Session};

/// One or more whole messages for a reader.
#[derive(Debug)]
pub struct Outgoing {
    /// The messages, laid out in the session's form.
    pub encoded: Encoded,
    /// Is it an event (and not a notice)?
    pub is_event: bool,
    effect: Effect,
}

/// What having sent it means.
#[derive(Debug)]
enum Effect {
    /// An older event of a join.
    Backlog { seq: u64 },
    /// The subscription stands at `place` now; `moves` is the cursor that the message carries (0 if none), `conflated`
    /// the number of events that were left out or merged for it.
    Sub { sub: u32, place: u64, moves: u64, conflated: u64 },
    /// A notice before the data, and the cursor that it carries (0 if none).
    Before { moves: u64 },
    /// A notice after the data, and the cursor that it carries (0 if none).
    After { moves: u64, heartbeat: bool },
    /// The last words.
    Ending,
}

/// The session is over: what its transport says last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Closing {
    /// Why.
    pub ending: Ending,
    /// Where to go on from.
    pub cursor: String,
}

/// One event that is due. The hub keeps the list, so that its memory is used again.
#[derive(Debug)]
pub(crate) struct Due {
    sub: u32,
    frame: Arc<Frame>,
    place: u64,
    conflated: u64,
    event_class: bool,
}

impl Hub {
    /// What to send to a session now, up to about `budget` bytes, in order. Nothing is taken off until
    /// [`Hub::commit`] says how much of it the transport took.
    pub fn plan(&mut self, id: SessionId, budget: usize, now: Time, out: &mut Vec<Outgoing>) {
        out.clear();
        let Some(key) = self.key(id) else { return };
        let mut used = 0;
        self.sessions[key].more = false;
        self.plan_before(key, out, &mut used);
        if self.sessions[key].ending.is_none() {
            let whole =
                self.plan_backlog(key, budget, out, &mut used) && self.plan_data(key, budget, now, out, &mut used);
            self.plan_after(key, whole, out);
        }
        let session = &self.sessions[key];
        if let Some(ending) = &session.ending
            && !session.ended
        {
            let cursor = self.cursor_of(session.cursor);
            let notice = Notice::Error {
                id: None,
                code: ending.code.as_str().to_owned(),
                message: ending.message.clone(),
                cursor: Some(cursor),
            };
            push_notice(out, session.opening.form, &notice, Effect::Ending);
        }
    }

    /// The transport took the first `taken` of `planned`; `blocked`: it takes nothing more until
    /// [`Hub::writable`]. Returns how the session ends, once its last words are on their way.
    pub fn commit(
        &mut self,
        id: SessionId,
        planned: &mut Vec<Outgoing>,
        taken: usize,
        blocked: bool,
        now: Time,
    ) -> Option<Closing> {
        let key = self.key(id)?;
        let all = taken >= planned.len();
        let mut closing = None;
        let mut backlog = 0;
        for item in planned.drain(..).take(taken) {
            let session = &mut self.sessions[key];
            if let Some(bucket) = &mut session.bucket {
                bucket.take(item.encoded.bytes.len());
            }
            match item.effect {
                Effect::Backlog { seq } => {
                    session.cursor = session.cursor.max(seq);
                    backlog += 1;
                }
                Effect::Sub { sub, place, moves, conflated } => {
                    session.cursor = session.cursor.max(moves);
                    session.conflated += conflated;
                    let interval = session.options[usize::from(session.subs[sub as usize].options)].interval_nanos;
                    if interval > 0 {
                        session.next_at.resize(session.subs.len(), Time(0));
                        session.next_at[sub as usize] = now.plus_nanos(interval);
                    }
                    let sub = &mut session.subs[sub as usize];
                    (sub.place, sub.fresh) = (place, false);
                }
                Effect::Before { moves } => {
                    session.cursor = session.cursor.max(moves);
                    session.before.pop_front();
                }
                Effect::After { moves, heartbeat } => {
                    session.cursor = session.cursor.max(moves);
                    if heartbeat {
                        session.conflated = 0;
                    }
                    session.after.pop_front();
                }
                Effect::Ending => {
                    session.ended = true;
                    let ending = session.ending.as_deref().expect("an ending was planned").clone();
                    closing = Some(Closing { ending, cursor: String::new() });
                }
            }
        }
        planned.clear();
        let session = &mut self.sessions[key];
        session.backlog.drain(..backlog.min(session.backlog.len()));
        if session.backlog.is_empty() {
            session.backlog.shrink_to_fit();
        }
        session.blocked = blocked;
        session.behind = blocked || (session.behind && !all);
        self.settle(key);
        if backlog > 0 && !self.sessions[key].joins.is_empty() {
            self.advance_joins(key, now);
        }
        let session = &self.sessions[key];
        if !blocked && (session.more || !all) && session.has_news() {
            // The budget alone held it back: nothing else would wake it.
            self.list(key);
        }
        if let Some(closing) = &mut closing {
            closing.cursor = self.cursor_of(self.sessions[key].cursor);
        }
        closing
    }

    /// Drops the marks of subscriptions that have caught up.
    fn settle(&mut self, key: usize) {
        let session = &mut self.sessions[key];
        let topics = &self.topics;
        let subs = &mut session.subs;
        session.dirty.retain(|at| {
            let sub = &mut subs[*at as usize];
            let topic = &topics[sub.topic as usize];
            sub.dirty = (sub.fresh && topic.last.is_some()) || sub.place < topic.end();
            sub.dirty
        });
        if session.dirty.is_empty() && session.dirty.capacity() > 16 {
            session.dirty.shrink_to_fit();
        }
    }

    fn plan_before(&self, key: usize, out: &mut Vec<Outgoing>, used: &mut usize) {
        let session = &self.sessions[key];
        for saying in &session.before {
            let (notice, moves) = match saying {
                Beginning::Gap(topic) => {
                    let (topic, reason) = match topic {
                        Some(topic) => (Some(topic.to_string()), "cursor_expired"),
                        None => (None, "epoch_changed"),
                    };
                    (Notice::Gap { topic, reason: reason.into() }, 0)
                }
                // A reader who resumes has not had what lies between its cursor and now.
                Beginning::Welcome => {
                    let seq = self.safe_seq(session).max(session.cursor);
                    (self.welcome(self.cursor_of(seq)), seq)
                }
            };
            push_notice(out, session.opening.form, &notice, Effect::Before { moves });
            *used += out.last().map_or(0, |o| o.encoded.bytes.len());
        }
    }

    /// Returns whether all of the backlog is in the plan.
    fn plan_backlog(&mut self, key: usize, budget: usize, out: &mut Vec<Outgoing>, used: &mut usize) -> bool {
        let session = &mut self.sessions[key];
        let fields = session.joins.first().map_or_else(Options::default, |j| j.options).fields;
        for frame in &session.backlog {
            if *used >= budget {
                session.more = true;
                return false;
            }
            let form = match session.opening.form {
                Form::Sse if frame.event.seq <= session.cursor => Form::SseNoId,
                form => form,
            };
            let encoded = frame.narrowed(form, fields);
            *used += encoded.bytes.len();
            out.push(Outgoing { encoded, is_event: true, effect: Effect::Backlog { seq: frame.event.seq } });
        }
        true
    }

    /// Returns whether all event-channel events are in the plan.
    fn plan_data(&mut self, key: usize, budget: usize, now: Time, out: &mut Vec<Outgoing>, used: &mut usize) -> bool {
        if self.sessions[key].dirty.is_empty() {
            return true;
        }
        let limited = self.sessions[key].bucket.is_some();
        if let Some(bucket) = &mut self.sessions[key].bucket
            && !bucket.has_room(now)
        {
            let at = bucket.room_at();
            self.wake_session_at(key, at);
            return false;
        }
        let mut due = std::mem::take(&mut self.due);
        let slow = self.collect(key, now, &mut due);
        if slow {
            due.clear();
            self.due = due;
            return false;
        }
        if due.len() > 1 {
            if limited {
                // Stable: within the event channels by seq, the states in the order in which their news came.
                due.sort_by_key(|d| (!d.event_class, if d.event_class { d.frame.event.seq } else { 0 }));
            } else {
                due.sort_by_key(|d| (d.frame.event.seq, !d.event_class));
            }
        }
        let mut whole = true;
        let session = &mut self.sessions[key];
        let form = session.opening.form;
        let mut cursor = session.cursor;
        let mut room = session.bucket.as_deref().copied();
        let backfilling = !session.joins.is_empty() && session.joins.iter().any(|j| j.after.is_some());
        for (at, d) in due.iter().enumerate() {
            let over = *used >= budget && (session.opening.mode == Mode::Stream);
            if over || room.as_mut().is_some_and(|r| !r.has_room(now)) {
                whole = !due[at..].iter().any(|d| d.event_class || session.subs[d.sub as usize].fresh);
                session.more = over;
                if let Some(room) = room.filter(|_| !over) {
                    session.wake_at = session.wake_at.min(room.room_at());
                    let at = session.wake_at;
                    self.timers.push(std::cmp::Reverse((at, key as u32, session.generation)));
                }
                break;
            }
            let seq = d.frame.event.seq;
            // Of events with one seq only the last moves the cursor: a reader cut off between them gets all again.
            let last_of_seq = due.get(at + 1).is_none_or(|n| n.frame.event.seq != seq);
            let moves = d.frame.event.kind != Kind::Snapshot && seq > cursor && last_of_seq;
            let form = match form {
                Form::Sse if !moves || backfilling => Form::SseNoId,
                form => form,
            };
            if moves {
                cursor = seq;
            }
            let sub = &session.subs[d.sub as usize];
            let encoded = d.frame.narrowed(form, session.options[usize::from(sub.options)].fields);
            *used += encoded.bytes.len();
            if let Some(room) = &mut room {
                room.take(encoded.bytes.len());
            }
            let moves = if moves && !(backfilling && form == Form::SseNoId) { seq } else { 0 };
            let effect = Effect::Sub { sub: d.sub, place: d.place, moves, conflated: d.conflated };
            out.push(Outgoing { encoded, is_event: true, effect });
        }
        due.clear();
        self.due = due;
        whole
    }

    /// Collects what is due. Returns true if the session is too slow and ends.
    fn collect(&mut self, key: usize, now: Time, due: &mut Vec<Due>) -> bool {
        let session = &mut self.sessions[key];
        let mut wake = i64::MAX;
        for index in &session.dirty {
            let sub = &session.subs[*index as usize];
            let options = session.options[usize::from(sub.options)];
            let topic = &mut self.topics[sub.topic as usize];
            let every = topic.class == Class::Event || !options.conflate;
            if sub.fresh {
                if let Some((frame, place)) = topic.beginning() {
                    due.push(Due { sub: *index, frame, place, conflated: 0, event_class: false });
                    for place in place..topic.end() {
                        let frame = Arc::clone(topic.at(place).expect("a snapshot is kept only while its updates are"));
                        due.push(Due { sub: *index, frame, place: place + 1, conflated: 0, event_class: every });
                    }
                }
                continue;
            }
            if every {
                if sub.place < topic.base() {
                    let message = format!(
                        "{} has {} events waiting: more than are kept; go on from the cursor",
                        topic.topic,
                        topic.end() - sub.place
                    );
                    session.ending = Some(Box::new(Ending { code: ticker_proto::Code::SlowConsumer, message }));
                    return true;
                }
                for place in sub.place..topic.end() {
                    let frame = Arc::clone(topic.at(place).expect("between base and end"));
                    due.push(Due { sub: *index, frame, place: place + 1, conflated: 0, event_class: true });
                }
                continue;
            }
            if options.interval_nanos > 0
                && let Some(at) = session.next_at.get(*index as usize).filter(|at| **at > now)
            {
                wake = wake.min(at.0);
                continue;
            }
            let waiting = topic.end() - sub.place;
            if waiting == 0 {
                continue;
            }
            let in_turn =
                !session.behind && options.interval_nanos == 0 && sub.place >= topic.base() && session.bucket.is_none();
            if in_turn {
                for place in sub.place..topic.end() {
                    let frame = Arc::clone(topic.at(place).expect("between base and end"));
                    due.push(Due { sub: *index, frame, place: place + 1, conflated: 0, event_class: false });
                }
            } else if topic.class == Class::Book {
                if let Some((frame, place)) = topic.catch_up(sub.place) {
                    // A snapshot that is reused may lie before the reader's place only if the ring has moved on.
                    due.push(Due { sub: *index, frame, place, conflated: waiting - 1, event_class: false });
                    for place in place..topic.end() {
                        let frame = Arc::clone(topic.at(place).expect("a snapshot is kept only while its updates are"));
                        due.push(Due { sub: *index, frame, place: place + 1, conflated: 0, event_class: false });
                    }
                }
            } else if let Some(frame) = topic.last.clone() {
                due.push(Due { sub: *index, frame, place: topic.end(), conflated: waiting - 1, event_class: false });
            }
        }
        if wake < i64::MAX {
            self.wake_session_at(key, Time(wake));
        }
        false
    }

    fn plan_after(&mut self, key: usize, whole: bool, out: &mut Vec<Outgoing>) {
        if self.sessions[key].after.is_empty() {
            return;
        }
        // With event-channel events still to come, the cursor stays where the last message before them put it.
        let planned = out.iter().map(|o| match o.effect {
            Effect::Backlog { seq: moves } | Effect::Sub { moves, .. } | Effect::Before { moves } => moves,
            Effect::After { .. } | Effect::Ending => 0,
        });
        let planned = planned.max().unwrap_or(0);
        let seq = if whole { self.safe_seq(&self.sessions[key]) } else { 0 }.max(planned);
        let session = &self.sessions[key];
        let form = session.opening.form;
        for saying in &session.after {
            let seq = seq.max(session.cursor);
            let cursor = || self.cursor_of(seq);
            let (notice, moves, heartbeat) = match saying {
                Saying::Notice(notice) => (notice.clone(), 0, false),
                // What was asked for must be on its way before it is confirmed.
                Saying::Subscribed { .. } if !whole => break,
                Saying::Subscribed { id, topics } => {
                    (Notice::Subscribed { id: *id, topics: topics.clone(), cursor: cursor() }, seq, false)
                }
                Saying::Heartbeat => (Notice::Heartbeat { cursor: cursor(), conflated: session.conflated }, seq, true),
                Saying::Goodbye { reason, retry_ms } => {
                    let notice = Notice::Goodbye { reason: reason.clone(), cursor: cursor(), retry_ms: *retry_ms };
                    (notice, seq, false)
                }
            };
            push_notice(out, form, &notice, Effect::After { moves, heartbeat });
        }
    }

    /// The place up to which a session has had everything once its plan is sent: the hub's, but for joins that still
    /// fetch older events.
    pub(crate) fn safe_seq(&self, session: &Session) -> u64 {
        session.joins.iter().filter_map(|j| j.after).fold(self.position, u64::min)
    }

    pub(crate) fn cursor_of(&self, seq: u64) -> String {
        cursor_text(self.epoch.as_deref().unwrap_or("0"), seq)
    }
}

fn push_notice(out: &mut Vec<Outgoing>, form: Form, notice: &Notice, effect: Effect) {
    let encoded = Encoded::one(encode_notice(form, notice));
    out.push(Outgoing { encoded, is_event: false, effect });
}
