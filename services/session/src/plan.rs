//! What is sent to a reader next, and in which order.
//!
//! Promise 2 of the contract rules the order: nothing with `seq` S goes out before every event-channel event of the
//! session at or below S. So what is due is merged by `seq`, event channels first among equals; under `max_kbps` event
//! channels go first altogether, then the topics with news, in the order in which the news came.
//!
//! Which messages move the reader's cursor (and carry an `id` over server-sent events) follows from the same promise: one
//! does if, with it, everything of the event channels up to its place has been sent, that of joins on their way included.
//! An `id` waits besides until all that a subscription begins with is out (past events; the snapshots of topics of which
//! every event is wanted): who resumes gets what comes after the `id`, and not those again. Elsewhere the reader knows that
//! by `subscribed`.

use std::collections::VecDeque;
use std::sync::Arc;

use ticker_market::{Class, Kind, Time};
use ticker_proto::frame::encode_notice;
use ticker_proto::{Encoded, Fields, Form, Frame, Notice};

use crate::collect::{BACKLOG, Collected};
use crate::hub::{Hub, SessionId};
use crate::join::Wanted;
use crate::session::{Beginning, Bucket, Ending, Mode, Saying, Session};

/// One or more whole messages for a reader.
#[derive(Debug)]
pub struct Outgoing {
    body: Body,
    /// Is it an event (and not a notice)?
    pub is_event: bool,
    /// It goes by an unreliable way, if it fits there: a whole snapshot, which may be lost.
    pub is_datagram: bool,
    /// The place to which it moves the reader's cursor; 0 if it does not.
    moves: u64,
    effect: Effect,
}

/// Where the bytes are. An event that many readers get is not copied for each, nor are its bytes counted twice.
#[derive(Debug)]
enum Body {
    Shared(Arc<Frame>, Form),
    Own(Encoded),
}

impl Outgoing {
    /// The messages, laid out in the session's form.
    pub fn encoded(&self) -> &Encoded {
        match &self.body {
            Body::Shared(frame, form) => frame.encoded(*form),
            Body::Own(encoded) => encoded,
        }
    }

    /// The same for a transport that is told with each message which way it goes.
    pub fn for_pipe(&self) -> Encoded {
        let mut encoded = self.encoded().clone();
        encoded.by_datagram = self.is_datagram;
        encoded
    }
}

/// What having sent it means.
#[derive(Debug)]
enum Effect {
    /// An older event of a join.
    Backlog,
    /// The subscription stands at `place` now; `conflated` events were left out or merged for it. It has begun, unless this
    /// comes before that.
    Sub {
        sub: u32,
        place: u64,
        conflated: u64,
        is_before: bool,
    },
    /// A notice before the data.
    Before,
    /// A notice after the data.
    After,
    Heartbeat,
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

/// A plan in the making.
struct Draft<'a> {
    out: &'a mut Vec<Outgoing>,
    form: Form,
    budget: usize,
    used: usize,
    /// The reader's cursor once this is sent.
    cursor: u64,
    /// Events conflated since the last heartbeat, once this is sent.
    conflated: u64,
    room: Option<Bucket>,
    /// Beginnings that a reader of server-sent events has still to be given once this is sent; see [`Hub::owed`].
    owed: usize,
}

impl Draft<'_> {
    /// Is there room for another event?
    fn has_room(&self) -> bool {
        self.used < self.budget && self.room.as_ref().is_none_or(Bucket::has_room)
    }

    fn push(&mut self, body: Body, is_event: bool, moves: u64, effect: Effect) {
        let item = Outgoing { body, is_event, is_datagram: false, moves, effect };
        let bytes = item.encoded().bytes.len();
        self.used += bytes;
        if let Some(room) = &mut self.room {
            room.take(item.encoded().uncompressed_bytes());
        }
        self.cursor = self.cursor.max(moves);
        self.out.push(item);
    }

    fn event(&mut self, frame: Arc<Frame>, fields: Fields, moves: bool, effect: Effect) {
        let form = self.form_of(moves && self.owed == 0);
        let moves = if moves { frame.event.seq } else { 0 };
        let body = match frame.narrowed(form, fields) {
            Some(narrowed) => Body::Own(narrowed),
            None => Body::Shared(frame, form),
        };
        self.push(body, true, moves, effect);
    }

    /// `id`: it may be resumed at.
    fn notice(&mut self, notice: &Notice, moves: u64, id: bool, effect: Effect) {
        let form = self.form_of(id && self.owed == 0);
        self.push(Body::Own(Encoded::one(encode_notice(form, notice))), false, moves, effect);
    }

    fn form_of(&self, id: bool) -> Form {
        if self.form == Form::Sse && !id { Form::SseNoId } else { self.form }
    }
}

impl Hub {
    /// What to send to a session now, up to about `budget` bytes, in order (in [`Mode::Once`]: all that there is). Nothing
    /// is taken off until [`Hub::commit`] says how much of it the transport took; between the two nothing may be asked of
    /// the session.
    pub fn plan(&mut self, id: SessionId, budget: usize, now: Time, out: &mut Vec<Outgoing>) {
        out.clear();
        let Some(key) = self.key(id) else { return };
        if self.sessions[key].ended {
            return;
        }
        let owed = if self.sessions[key].opening.form == Form::Sse { self.owed(key) } else { 0 };
        let session = &mut self.sessions[key];
        session.more = false;
        if let Some(bucket) = &mut session.bucket {
            bucket.fill(now);
        }
        let mut draft = Draft {
            out,
            form: session.opening.form,
            budget: if session.opening.mode == Mode::Once { usize::MAX } else { budget },
            used: 0,
            cursor: session.cursor,
            conflated: session.conflated,
            room: session.bucket.as_deref().copied(),
            owed,
        };
        self.plan_before(key, &mut draft);
        let whole = self.sessions[key].ending.is_none() && self.plan_data(key, now, &mut draft);
        self.plan_after(key, whole, &mut draft);
        let session = &mut self.sessions[key];
        if let Some(room) = draft.room.filter(|room| session.more && !room.has_room()) {
            session.more = false;
            self.wake_session_at(key, room.room_at());
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
        let mut wake = Time(i64::MAX);
        let mut repeat = Time(i64::MAX);
        for item in planned.drain(..).take(taken) {
            let session = &mut self.sessions[key];
            session.cursor = session.cursor.max(item.moves);
            if let Some(bucket) = &mut session.bucket {
                bucket.take(item.encoded().uncompressed_bytes());
            }
            match item.effect {
                Effect::Backlog => backlog += 1,
                Effect::Sub { sub, place, conflated, is_before } => {
                    session.conflated += conflated;
                    let interval = session.options_of(sub as usize).interval_nanos;
                    if interval > 0 && !is_before {
                        let next = now.plus_nanos(interval);
                        session.next_at.resize(session.subs.len(), Time(0));
                        session.next_at[sub as usize] = next;
                        wake = wake.min(next);
                    }
                    let at = sub as usize;
                    let sub = &mut session.subs[at];
                    if let Some(unreliable) = session.unreliable.as_mut().filter(|_| item.is_datagram) {
                        repeat = repeat.min(unreliable.sent(at, sub.place == place, self.limits.heartbeat_ms, now));
                    }
                    (sub.place, sub.fresh) = (place, sub.fresh && is_before);
                }
                Effect::Before => drop(session.before.pop_front()),
                Effect::After => drop(session.after.pop_front()),
                Effect::Heartbeat => (session.heartbeat, session.conflated) = (false, 0),
                Effect::Ending => {
                    session.ended = true;
                    let ending = session.ending.as_deref().expect("an ending was planned").clone();
                    closing = Some(Closing { ending, cursor: self.cursor_of(item.moves) });
                }
            }
        }
        let session = &mut self.sessions[key];
        session.backlog.drain(..backlog);
        // An idle session keeps no room for what it rarely has.
        free_if_empty(&mut session.backlog);
        free_if_empty(&mut session.before);
        free_if_empty(&mut session.after);
        session.blocked = blocked;
        session.behind = blocked || (session.behind && !all);
        self.settle(key);
        if backlog > 0 && !self.sessions[key].joins.is_empty() {
            self.advance_joins(key, now);
        }
        let session = &self.sessions[key];
        if wake < Time(i64::MAX) && !session.dirty.is_empty() {
            // What a limit held back has nothing else that would wake it.
            self.wake_session_at(key, wake);
        }
        if repeat < Time(i64::MAX) {
            self.wake_session_at(key, repeat);
        }
        let session = &self.sessions[key];
        if !blocked && (session.more || !all) && session.has_news() {
            // The budget alone held it back: nothing else would wake it.
            self.list(key);
        }
        closing
    }

    /// Drops the marks of subscriptions that have caught up, and what memory a long list of marks took.
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
            session.dirty = Vec::new();
        }
    }

    fn plan_before(&self, key: usize, draft: &mut Draft<'_>) {
        for beginning in &self.sessions[key].before {
            match beginning {
                Beginning::Gap(topic) => {
                    let reason = if topic.is_some() { "cursor_expired" } else { "epoch_changed" };
                    let topic = topic.as_ref().map(ToString::to_string);
                    draft.notice(&Notice::Gap { topic, reason: reason.into() }, 0, false, Effect::Before);
                }
                Beginning::Welcome => {
                    let seq = self.standing(key);
                    let id = seq <= self.sent_up_to(key);
                    draft.notice(&self.welcome(self.cursor_of(seq)), seq, id, Effect::Before);
                }
            }
        }
    }

    /// Returns whether all event-channel events and first snapshots are in the plan.
    fn plan_data(&mut self, key: usize, now: Time, draft: &mut Draft<'_>) -> bool {
        self.mark_repeats(key, now);
        if self.sessions[key].dirty.is_empty() && self.sessions[key].backlog.is_empty() {
            return !is_rejoining(&self.sessions[key]);
        }
        if !draft.has_room() {
            self.sessions[key].more = true;
            return false;
        }
        let mut due = std::mem::take(&mut self.due);
        let collected = self.collect(key, now, &mut due);
        let mut whole = matches!(collected, Collected::Whole | Collected::More) && !is_rejoining(&self.sessions[key]);
        if due.len() > 1 {
            if draft.room.is_some() {
                // Stable: the event channels by seq, then the states in the order in which their news came.
                due.sort_by_key(|d| (!d.every, if d.every { d.frame.event.seq } else { 0 }));
            } else {
                // Datagrams move no cursor: the last event of a place must be one that does.
                due.sort_by_key(|d| (d.frame.event.seq, !d.datagram, !d.every));
            }
        }
        let session = &mut self.sessions[key];
        session.more = matches!(collected, Collected::More | Collected::Part);
        let safe = joined(session);
        let mut rest = due.drain(..).peekable();
        while rest.peek().is_some() {
            if !draft.has_room() {
                whole &= !rest.any(|d| d.every || session.subs[d.sub as usize].fresh);
                session.more = true;
                break;
            }
            let Some(d) = rest.next() else { break };
            let seq = d.frame.event.seq;
            // Of events with one seq only the last moves the cursor: a reader cut off between them gets all again.
            let last_of_seq = rest.peek().is_none_or(|n| n.frame.event.seq != seq);
            let moves = d.frame.event.kind != Kind::Snapshot && last_of_seq && seq > draft.cursor && seq <= safe;
            draft.conflated += d.conflated;
            draft.owed = draft.owed.saturating_sub(usize::from(d.begins && d.every));
            let effect = match d.sub {
                BACKLOG => Effect::Backlog,
                sub => Effect::Sub { sub, place: d.place, conflated: d.conflated, is_before: d.is_before },
            };
            draft.event(d.frame, d.fields, moves, effect);
            if let Some(item) = draft.out.last_mut() {
                item.is_datagram = d.datagram;
            }
        }
        drop(rest);
        due.shrink_to(DUE_KEPT);
        self.due = due;
        whole
    }

    fn plan_after(&mut self, key: usize, whole: bool, draft: &mut Draft<'_>) {
        let session = &self.sessions[key];
        if session.after.is_empty() && !session.heartbeat && session.ending.is_none() {
            return;
        }
        // With event-channel events still to come, the cursor stays where the last message before them put it.
        let end = if whole { joined(session).min(self.position) } else { self.standing(key) };
        let mut seq = end.max(draft.cursor);
        let id = whole || seq <= self.sent_up_to(key);
        if session.heartbeat {
            let notice = Notice::Heartbeat { cursor: self.cursor_of(seq), conflated: draft.conflated };
            draft.notice(&notice, seq, id, Effect::Heartbeat);
        }
        for saying in &session.after {
            match saying {
                Saying::Notice(notice) => draft.notice(notice, 0, false, Effect::After),
                // What was asked for must be on its way before it is confirmed.
                Saying::Subscribed { .. } if !whole => break,
                Saying::Subscribed { id: request, topics } => {
                    // Other requests that are on their way stand where they began: they do not hold this one back.
                    seq = seq.max(self.position);
                    let notice =
                        Notice::Subscribed { id: *request, topics: topics.clone(), cursor: self.cursor_of(seq) };
                    draft.notice(&notice, seq, id, Effect::After);
                }
                Saying::Goodbye { reason, retry_ms } => {
                    let (reason, retry_ms) = (reason.clone(), *retry_ms);
                    let notice = Notice::Goodbye { reason, cursor: self.cursor_of(seq), retry_ms };
                    draft.notice(&notice, seq, id, Effect::After);
                }
            }
        }
        if let Some(ending) = &session.ending {
            let (code, message) = (ending.code.as_str().to_owned(), ending.message.clone());
            let cursor = Some(self.cursor_of(seq));
            draft.notice(&Notice::Error { id: None, code, message, cursor }, seq, id, Effect::Ending);
        }
    }

    /// Where a reader stands: the place up to which it has been sent everything of its event channels.
    pub(crate) fn standing(&self, key: usize) -> u64 {
        let session = &self.sessions[key];
        if session.before.iter().any(|b| matches!(b, Beginning::Gap(Some(_)))) {
            // Whoever is cut off before it hears of a gap must come to it again.
            return session.cursor;
        }
        let mut seq = self.sent_up_to(key);
        // A reader who only resumes stands where it says, even if that is ahead of this hub.
        let ahead = session.joins.iter().map(|j| j.from.filter(|_| session.subs.is_empty())).min().flatten();
        seq = seq.min(ahead.unwrap_or(0).max(self.position));
        seq.max(session.cursor)
    }

    /// The place up to which everything has been sent that is due of event channels, past events that were asked for
    /// included; beyond all if nothing is due.
    fn sent_up_to(&self, key: usize) -> u64 {
        let session = &self.sessions[key];
        let older = session.backlog.front().map_or(u64::MAX, |(f, _)| f.event.seq - 1);
        joined(session).min(older).min(self.undelivered(session))
    }

    /// What the reader has still to be given before it can resume at any place at all: requests with past events or with
    /// snapshots of topics of which it wants every event, and such snapshots that are due.
    fn owed(&self, key: usize) -> usize {
        let session = &self.sessions[key];
        let joins = session.joins.iter().filter(|j| {
            let begins = |w: &&Wanted| {
                let topic = &self.topics[w.topic as usize];
                let has_past = topic.class == Class::Event || topic.topic.channel.is_bar();
                (has_past && j.recent > 0) || (topic.class != Class::Event && !w.options.conflate)
            };
            !j.dormant && j.topics.iter().filter(|w| w.after.is_none()).any(|w| begins(&w))
        });
        let subs = session.dirty.iter().filter(|at| {
            let sub = &session.subs[**at as usize];
            let topic = &self.topics[sub.topic as usize];
            sub.fresh && topic.last.is_some() && session.options_of(**at as usize).wants_every(topic.class)
        });
        joins.count() + subs.count()
    }

    /// The place before the first event-channel event that a session's subscriptions have not sent; beyond all if there is
    /// none.
    fn undelivered(&self, session: &Session) -> u64 {
        let places = session.dirty.iter().filter_map(|at| {
            let sub = &session.subs[*at as usize];
            let topic = &self.topics[sub.topic as usize];
            let options = session.options_of(*at as usize);
            let every = options.wants_every(topic.class);
            if topic.is_conflated_bar(&options) {
                let next = topic.next_due(&options, sub.place).map(|seq| seq - 1);
                return if topic.has_lost_closed(sub.place) { Some(session.cursor) } else { next };
            }
            // Before its snapshot is out, a topic lets nothing move on. What is no longer kept lies beyond what is known of
            // the reader's cursor: it is being closed.
            let next = topic.at(sub.place).filter(|_| !sub.fresh);
            every.then(|| next.map_or(session.cursor, |next| next.event.seq - 1))
        });
        places.min().unwrap_or(u64::MAX)
    }

    /// A cursor of this epoch, as text.
    pub(crate) fn cursor_of(&self, seq: u64) -> String {
        format!("{}-{seq}", self.epoch.as_deref().unwrap_or("0"))
    }
}

fn free_if_empty<T>(queue: &mut VecDeque<T>) {
    if queue.is_empty() {
        *queue = VecDeque::new();
    }
}

/// Room for events that are due which a hub keeps from one plan to the next.
const DUE_KEPT: usize = 4_096;

/// Are there joins that the reader does not know of? Then it has not all that it was promised.
fn is_rejoining(session: &Session) -> bool {
    session.joins.iter().any(|j| j.id.is_none() && !j.dormant)
}

/// The place beyond which nothing may be sent, because joins that the reader does not know of are on their way.
pub(crate) fn held_at(session: &Session) -> u64 {
    let unasked = session.joins.iter().filter(|j| j.id.is_none());
    unasked.map(|j| j.least_after()).min().unwrap_or(u64::MAX)
}

/// The place up to which a session's joins have been given all that they want; beyond all if they want nothing older.
fn joined(session: &Session) -> u64 {
    session.joins.iter().map(|j| j.least_after()).min().unwrap_or(u64::MAX)
}
