//! The topics that some readers want, and the sessions of those readers.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use slab::Slab;
use ticker_market::{Instrument, Pattern, Time, Topic};
use ticker_proto::message::{Limit, Request};
use ticker_proto::{Code, Frame, Notice, VERSION};

use crate::catalogue::{Catalogue, Refusal};
use crate::join::interval_of;
use crate::limits::Limits;
use crate::plan::Due;
use crate::session::{Beginning, Bucket, Ending, Mode, Opening, Saying, Session};
use crate::topic::TopicState;

/// Names a session for as long as the hub lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SessionId {
    key: u32,
    generation: u32,
}

/// Something that a hub needs from upstream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Need {
    /// Readers want what this pattern (or topic) matches; answered by [`Hub::added`].
    Want(Pattern),
    /// No reader wants it any more.
    Unwant(Pattern),
    /// Older events; answered by [`Hub::backfilled`].
    Backfill {
        /// Names the answer.
        ticket: u64,
        /// Of which topics.
        topics: Vec<Arc<Topic>>,
        /// Events after this cursor, or `earliest`.
        from: Option<String>,
        /// Instead of `from`: the last so many of each topic.
        recent: u32,
        /// At most so many events.
        limit: u32,
    },
}

/// Older events.
#[derive(Debug, Default)]
pub struct Page {
    /// In the order of the tape.
    pub frames: Vec<Arc<Frame>>,
    /// All events of the topics up to this place are here or before.
    pub through: u64,
    /// Topics whose older events the tape no longer holds.
    pub expired: Vec<Arc<Topic>>,
}

/// See the crate's documentation.
#[derive(Debug)]
pub struct Hub {
    pub(crate) limits: Limits,
    pub(crate) epoch: Option<Arc<str>>,
    /// Everything up to this place on the tape has come.
    pub(crate) position: u64,
    pub(crate) catalogue: Catalogue,
    /// A topic keeps its index for as long as the hub lives.
    pub(crate) topics: Vec<TopicState>,
    pub(crate) index: HashMap<Topic, u32>,
    pub(crate) sessions: Slab<Session>,
    /// Sessions with joins on their way.
    pub(crate) joining: HashSet<usize>,
    /// How many subscriptions want each pattern.
    wants: HashMap<Pattern, u32>,
    pub(crate) needs: Vec<Need>,
    /// Which session a backfill is for.
    pub(crate) tickets: HashMap<u64, usize>,
    tickets_given: u64,
    ready: Vec<SessionId>,
    /// Counts the owner's passes: a state topic keeps the events of one.
    pass: u64,
    /// When sessions may send again, or joins stop waiting.
    pub(crate) timers: BinaryHeap<Reverse<(Time, u32, u32)>>,
    /// When heartbeats are due: all sessions have one interval, so this is in order.
    heartbeats: VecDeque<(Time, SessionId)>,
    generations: u32,
    pub(crate) due: Vec<Due>,
}

impl Hub {
    /// A hub without topics and sessions.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            epoch: None,
            position: 0,
            catalogue: Catalogue::default(),
            topics: Vec::new(),
            index: HashMap::new(),
            sessions: Slab::new(),
            joining: HashSet::new(),
            wants: HashMap::new(),
            needs: Vec::new(),
            tickets: HashMap::new(),
            tickets_given: 0,
            ready: Vec::new(),
            pass: 0,
            timers: BinaryHeap::new(),
            heartbeats: VecDeque::new(),
            generations: 0,
            due: Vec::new(),
        }
    }

    /// Which topics exist.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// The tape's epoch, once upstream has told it.
    pub fn epoch(&self) -> Option<&str> {
        self.epoch.as_deref()
    }

    /// Everything up to this place on the tape has come.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// How many sessions there are.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    // ---- What comes from upstream.

    /// The stream from upstream has begun, or has gone on without a hole (`resumed`).
    pub fn opened(&mut self, epoch: &str, seq: u64, resumed: bool, now: Time) {
        let same = self.epoch.as_deref() == Some(epoch);
        if resumed && same {
            return;
        }
        let first = self.epoch.is_none();
        let before = self.position;
        self.epoch = Some(epoch.into());
        self.position = seq;
        for topic in &mut self.topics {
            topic.forget();
            topic.readers.clear();
        }
        if !same {
            self.catalogue.clear();
        }
        let keys: Vec<usize> = self.sessions.iter().map(|(k, _)| k).collect();
        for key in keys {
            if !same && !first {
                let session = &mut self.sessions[key];
                session.cursor = 0;
                session.before.push_back(Beginning::Gap(None));
                session.before.push_back(Beginning::Welcome);
            }
            self.rejoin(key, same.then_some(before), now);
        }
    }

    /// Instruments, all or new ones.
    pub fn instruments(&mut self, instruments: Vec<Instrument>, now: Time) {
        let mut topics = Vec::new();
        for instrument in instruments {
            if self.catalogue.insert(instrument.clone()) {
                topics.extend(instrument.topics());
            }
        }
        self.join_new_topics(&topics, now);
    }

    /// Upstream sends these topics from here on. Each comes with the place of its last event (0 if it had none), and for
    /// state and book topics with their newest value. After a resume without a hole there is none: what is known holds.
    pub fn added(&mut self, topics: Vec<(Topic, u64, Option<Arc<Frame>>)>, resumed: bool, now: Time) {
        for (topic, last, snapshot) in topics {
            let index = self.topic_index(&topic) as usize;
            if resumed && self.topics[index].last_seq() <= last {
                self.topics[index].hold_on();
            } else if !self.topics[index].held {
                self.topics[index].hold(last, snapshot);
            }
        }
        self.advance_all(now);
    }

    /// Upstream no longer sends these topics.
    pub fn removed(&mut self, topics: &[Topic]) {
        for topic in topics {
            if let Some(index) = self.index.get(topic) {
                self.topics[*index as usize].forget();
            }
        }
    }

    /// Events, in the order of the tape.
    pub fn publish(&mut self, frames: &[Arc<Frame>], now: Time) {
        for frame in frames {
            self.position = self.position.max(frame.event.seq);
            let Some(index) = self.index.get(&*frame.event.topic) else { continue };
            let topic = &mut self.topics[*index as usize];
            if !topic.held {
                continue;
            }
            topic.push(Arc::clone(frame), self.pass, &self.limits);
            for reader in &topic.readers {
                let session = &mut self.sessions[reader.session as usize];
                let sub = &mut session.subs[reader.sub as usize];
                if !sub.dirty {
                    sub.dirty = true;
                    session.dirty.push(reader.sub);
                }
                if !session.listed && !session.blocked {
                    session.listed = true;
                    self.ready.push(SessionId { key: reader.session, generation: session.generation });
                }
            }
        }
        if !self.joining.is_empty() {
            self.advance_all(now);
        }
    }

    /// Everything up to this place has come.
    pub fn progress(&mut self, seq: u64, now: Time) {
        if seq > self.position {
            self.position = seq;
            if !self.joining.is_empty() {
                self.advance_all(now);
            }
        }
    }

    // ---- What comes from readers.

    /// A reader has come. In [`Mode::Stream`] it is welcomed.
    pub fn open(&mut self, opening: Opening, now: Time) -> Result<SessionId, Refusal> {
        if self.epoch.is_none() {
            return Err(Refusal::new(Code::Draining, "this edge has not reached its fanout yet; try again soon"));
        }
        if self.sessions.len() >= self.limits.sessions_max {
            let max = self.limits.sessions_max;
            return Err(Refusal::new(Code::TooManySessions, format!("there are {max} sessions here already")));
        }
        self.generations = self.generations.wrapping_add(1);
        let mut session = Session::new(self.generations, opening, now);
        session.requests_left = self.limits.requests_per_second_max;
        if opening.mode == Mode::Stream {
            session.before.push_back(Beginning::Welcome);
        }
        let key = self.sessions.insert(session);
        let id = SessionId { key: key as u32, generation: self.generations };
        if opening.mode == Mode::Stream {
            self.heartbeats.push_back((now.plus_millis(i64::from(self.limits.heartbeat_ms)), id));
            self.list(key);
        }
        Ok(id)
    }

    /// A request of a reader. What cannot be done changes nothing, and is the result: the owner answers it with
    /// [`Hub::refuse`], or ends a session that was opened for this one request.
    pub fn request(&mut self, id: SessionId, request: Request, now: Time) -> Result<(), Refusal> {
        let Some(key) = self.key(id) else { return Ok(()) };
        let result = self.allow(key, now).and_then(|()| match &request {
            Request::Subscribe(subscribe) => self.subscribe(key, subscribe, now),
            Request::Unsubscribe(unsubscribe) => {
                self.unsubscribe(key, &unsubscribe.topics)?;
                let topics = unsubscribe.topics.clone();
                self.say(key, Notice::Unsubscribed { id: unsubscribe.id, topics });
                Ok(())
            }
            Request::Limit(limit) => self.limit(key, limit, now),
            Request::Ping(ping) => {
                self.say(key, Notice::Pong { id: ping.id });
                Ok(())
            }
            Request::Auth(_) => {
                Err(Refusal::new(Code::NotImplemented, "`auth` is not implemented yet: no token is needed"))
            }
            Request::Signal(_) => Err(Refusal::new(Code::NotImplemented, "`signal` is not implemented yet")),
        });
        self.list(key);
        result
    }

    /// Answers a request with an error.
    pub fn refuse(&mut self, id: SessionId, request: Option<u64>, why: Refusal) {
        if let Some(key) = self.key(id) {
            self.say(key, Notice::error(request, why.code, why.message));
        }
    }

    /// Ends a session with last words, after which [`Hub::commit`] tells how it closed.
    pub fn end(&mut self, id: SessionId, ending: Ending) {
        if let Some(key) = self.key(id) {
            self.sessions[key].ending.get_or_insert_with(|| Box::new(ending));
            self.list(key);
        }
    }

    /// Says `goodbye` to every session; each is to come back after a delay that differs for each, up to
    /// `spread_ms`. `random` gives numbers below its argument.
    pub fn goodbye(&mut self, reason: &str, spread_ms: u32, mut random: impl FnMut(u32) -> u32) {
        let keys: Vec<usize> = self.sessions.iter().map(|(k, _)| k).collect();
        for key in keys {
            let retry_ms = 250 + random(spread_ms.max(1));
            self.sessions[key].after.push_back(Saying::Goodbye { reason: reason.to_owned(), retry_ms });
            self.list(key);
        }
    }

    /// A reader is gone.
    pub fn close(&mut self, id: SessionId) {
        let Some(key) = self.key(id) else { return };
        while let Some(at) = self.sessions[key].subs.len().checked_sub(1) {
            self.remove_sub(key, at);
        }
        let joins = std::mem::take(&mut self.sessions[key].joins);
        for join in &joins {
            if let Some(ticket) = join.ticket {
                self.tickets.remove(&ticket);
            }
            self.drop_join(join);
        }
        for (pattern, _) in std::mem::take(&mut self.sessions[key].patterns) {
            self.unwant(&pattern);
        }
        self.joining.remove(&key);
        self.sessions.remove(key);
    }

    /// A session's transport takes messages again.
    pub fn writable(&mut self, id: SessionId) {
        if let Some(key) = self.key(id) {
            self.sessions[key].blocked = false;
            if self.sessions[key].has_news() {
                self.list(key);
            }
        }
    }

    // ---- What the owner asks.

    /// Takes the sessions that have something to send, and begins a new pass.
    pub fn take_ready(&mut self, out: &mut Vec<SessionId>) {
        self.pass += 1;
        out.clear();
        std::mem::swap(out, &mut self.ready);
        for id in out.iter() {
            if let Some(session) = self.sessions.get_mut(id.key as usize) {
                session.listed = false;
            }
        }
    }

    /// Is there a session that has something to send?
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes what is needed from upstream.
    pub fn take_needs(&mut self) -> Vec<Need> {
        std::mem::take(&mut self.needs)
    }

    /// Has the session begun all that it asked for, and was told so?
    pub fn is_settled(&self, id: SessionId) -> bool {
        self.key(id).is_some_and(|key| self.sessions[key].joins.is_empty() && self.sessions[key].after.is_empty())
    }

    /// The cursor at which a session stands, once all that was planned for it is sent.
    pub fn cursor(&self, id: SessionId) -> Option<String> {
        let session = &self.sessions[self.key(id)?];
        Some(self.cursor_of(self.safe_seq(session).max(session.cursor)))
    }

    /// When [`Hub::tick`] wants to be called next.
    pub fn next_timer(&self) -> Option<Time> {
        let timer = self.timers.peek().map(|Reverse((at, _, _))| *at);
        let heartbeat = self.heartbeats.front().map(|(at, _)| *at);
        timer.into_iter().chain(heartbeat).min()
    }

    /// It is `now`: heartbeats and what waited for a limit become due.
    pub fn tick(&mut self, now: Time) {
        while let Some((at, id)) = self.heartbeats.front().copied().filter(|(at, _)| *at <= now) {
            self.heartbeats.pop_front();
            let Some(key) = self.key(id) else { continue };
            let session = &mut self.sessions[key];
            if !session.after.iter().any(|s| matches!(s, Saying::Heartbeat)) {
                session.after.push_back(Saying::Heartbeat);
                self.list(key);
            }
            // From when it was due, so that the interval is kept; from now, if the owner was away for longer.
            let interval = i64::from(self.limits.heartbeat_ms);
            let next = if now.since(at) > interval * 1_000_000 { now } else { at };
            self.heartbeats.push_back((next.plus_millis(interval), id));
        }
        while let Some(Reverse((at, key, generation))) =
            self.timers.peek().copied().filter(|Reverse((at, ..))| *at <= now)
        {
            self.timers.pop();
            let key = key as usize;
            let Some(session) = self.sessions.get_mut(key).filter(|s| s.generation == generation) else { continue };
            if session.wake_at <= at {
                session.wake_at = Time(i64::MAX);
            }
            self.advance_joins(key, now);
            self.list(key);
        }
    }

    // ---- Within the crate.

    pub(crate) fn key(&self, id: SessionId) -> Option<usize> {
        let key = id.key as usize;
        self.sessions.get(key).is_some_and(|s| s.generation == id.generation).then_some(key)
    }

    /// Puts a session on the list of ready ones, unless its transport is blocked.
    pub(crate) fn list(&mut self, key: usize) {
        if let Some(session) = self.sessions.get_mut(key)
            && !session.listed
            && !session.blocked
        {
            session.listed = true;
            self.ready.push(SessionId { key: key as u32, generation: session.generation });
        }
    }

    pub(crate) fn wake_session_at(&mut self, key: usize, at: Time) {
        let session = &mut self.sessions[key];
        if at < session.wake_at {
            session.wake_at = at;
            self.timers.push(Reverse((at, key as u32, session.generation)));
        }
    }

    pub(crate) fn topic_index(&mut self, topic: &Topic) -> u32 {
        if let Some(index) = self.index.get(topic) {
            return *index;
        }
        let index = self.topics.len() as u32;
        self.topics.push(TopicState::new(Arc::new(topic.clone())));
        self.index.insert(topic.clone(), index);
        index
    }

    pub(crate) fn want(&mut self, pattern: &Pattern) {
        let count = self.wants.entry(pattern.clone()).or_insert(0);
        *count += 1;
        if *count == 1 {
            self.needs.push(Need::Want(pattern.clone()));
        }
    }

    pub(crate) fn unwant(&mut self, pattern: &Pattern) {
        if let Some(count) = self.wants.get_mut(pattern) {
            *count -= 1;
            if *count == 0 {
                self.wants.remove(pattern);
                self.needs.push(Need::Unwant(pattern.clone()));
            }
        }
    }

    pub(crate) fn unwant_topic(&mut self, index: u32) {
        let topic = Topic::clone(&self.topics[index as usize].topic);
        self.unwant(&topic.into());
    }

    pub(crate) fn next_ticket(&mut self) -> u64 {
        self.tickets_given += 1;
        self.tickets_given
    }

    pub(crate) fn welcome(&self, cursor: String) -> Notice {
        Notice::Welcome {
            version: VERSION.to_owned(),
            epoch: self.epoch.as_deref().unwrap_or("").to_owned(),
            cursor,
            heartbeat_ms: self.limits.heartbeat_ms,
        }
    }

    /// Removes a subscription; the last one takes its index.
    pub(crate) fn remove_sub(&mut self, key: usize, at: usize) {
        let session = &mut self.sessions[key];
        let sub = session.subs.swap_remove(at);
        let moved_from = session.subs.len() as u32;
        if session.next_at.len() > at {
            session.next_at.resize(session.subs.len() + 1, Time(0));
            session.next_at.swap_remove(at);
        }
        session.dirty.retain(|d| *d != at as u32);
        for dirty in session.dirty.iter_mut().filter(|d| **d == moved_from) {
            *dirty = at as u32;
        }
        if let Some(moved) = session.subs.get(at) {
            self.topics[moved.topic as usize].readers[moved.slot as usize].sub = at as u32;
        }
        let options = session.options[usize::from(sub.options)];
        let topic = &mut self.topics[sub.topic as usize];
        if topic.class == ticker_market::Class::Event || !options.conflate {
            topic.retain -= 1;
        }
        topic.readers.swap_remove(sub.slot as usize);
        if let Some(moved) = topic.readers.get(sub.slot as usize) {
            self.sessions[moved.session as usize].subs[moved.sub as usize].slot = sub.slot;
        }
        if sub.exactness == 3 {
            self.unwant_topic(sub.topic);
        }
    }

    pub(crate) fn set_kbps(&mut self, key: usize, kbps: f64, now: Time) -> Result<(), Refusal> {
        if kbps == 0.0 {
            self.sessions[key].bucket = None;
        } else if kbps.is_finite() && (1.0..=1e8).contains(&kbps) {
            self.sessions[key].bucket = Some(Box::new(Bucket::new(kbps, now)));
        } else {
            let message =
                format!("max_kbps is {kbps}: expected kilobits a second, from 1 to 100000000, or 0 for no limit");
            return Err(Refusal::new(Code::BadRequest, message));
        }
        Ok(())
    }

    pub(crate) fn wake_joins_at(&mut self, at: Time) {
        let waiting: Vec<usize> = self
            .sessions
            .iter()
            .filter(|(_, s)| s.joins.iter().any(|j| j.deadline == Some(at)))
            .map(|(k, _)| k)
            .collect();
        for key in waiting {
            let generation = self.sessions[key].generation;
            self.timers.push(Reverse((at, key as u32, generation)));
        }
    }

    fn advance_all(&mut self, now: Time) {
        let keys: Vec<usize> = self.joining.iter().copied().collect();
        for key in keys {
            self.advance_joins(key, now);
        }
    }

    fn say(&mut self, key: usize, notice: Notice) {
        self.sessions[key].after.push_back(Saying::Notice(notice));
        self.list(key);
    }

    /// Counts a request against the session's limit.
    fn allow(&mut self, key: usize, now: Time) -> Result<(), Refusal> {
        let max = self.limits.requests_per_second_max;
        let session = &mut self.sessions[key];
        if now.since(session.requests_since) >= 1_000_000_000 {
            session.requests_since = now;
            session.requests_left = max;
        }
        if session.requests_left == 0 {
            return Err(Refusal::new(Code::RateLimited, format!("more than {max} requests in a second")));
        }
        session.requests_left -= 1;
        Ok(())
    }

    fn limit(&mut self, key: usize, limit: &Limit, now: Time) -> Result<(), Refusal> {
        if limit.max_rate.is_some() {
            let interval_nanos = interval_of(limit.max_rate)?;
            let session = &mut self.sessions[key];
            let all = session.options.iter_mut().chain(session.patterns.iter_mut().map(|(_, o)| o));
            for options in all.chain(session.joins.iter_mut().map(|j| &mut j.options)) {
                options.interval_nanos = interval_nanos;
            }
            session.next_at.clear();
        }
        if let Some(kbps) = limit.max_kbps {
            self.set_kbps(key, kbps, now)?;
        }
        Ok(())
    }

    fn unsubscribe(&mut self, key: usize, topics: &[String]) -> Result<(), Refusal> {
        let mut patterns = Vec::new();
        for text in topics {
            let pattern: Pattern =
                text.parse().map_err(|e: ticker_market::TopicError| Refusal::new(Code::BadRequest, e.to_string()))?;
            patterns.push(pattern);
        }
        for pattern in patterns {
            if let Some(at) = self.sessions[key].patterns.iter().position(|(p, _)| *p == pattern) {
                self.sessions[key].patterns.swap_remove(at);
                self.unwant(&pattern);
            }
            let mut at = 0;
            while at < self.sessions[key].subs.len() {
                let session = &self.sessions[key];
                let sub = &session.subs[at];
                let topic = &self.topics[sub.topic as usize].topic;
                let other = session.patterns.iter().any(|(p, _)| p.exactness() <= sub.exactness && p.matches(topic));
                let gone =
                    sub.exactness == pattern.exactness() && pattern.matches(topic) && (!other || sub.exactness == 3);
                if gone {
                    self.remove_sub(key, at);
                } else {
                    at += 1;
                }
            }
            let mut joins = std::mem::take(&mut self.sessions[key].joins);
            for join in &mut joins {
                let leaves = |topic: &Topic, exactness: u8| exactness == pattern.exactness() && pattern.matches(topic);
                let gone: HashSet<(u32, u8)> =
                    join.topics.iter().copied().filter(|(t, e)| leaves(&self.topics[*t as usize].topic, *e)).collect();
                join.topics.retain(|t| !gone.contains(t));
                let every = !join.options.conflate;
                for (index, exactness) in gone {
                    let topic = &mut self.topics[index as usize];
                    if every || topic.class == ticker_market::Class::Event {
                        topic.retain -= 1;
                    }
                    if exactness == 3 {
                        self.unwant_topic(index);
                    }
                }
            }
            self.sessions[key].joins = joins;
        }
        Ok(())
    }
}
