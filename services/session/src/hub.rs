//! The topics that some readers want, and the sessions of those readers.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;

use hashbrown::HashMap;
use slab::Slab;
use ticker_market::{Class, Instrument, Pattern, Time, Topic};
use ticker_proto::{Code, Frame, Notice, VERSION};

use crate::catalogue::{Catalogue, Refusal};
use crate::collect::Due;
use crate::limits::Limits;
use crate::session::{Beginning, Ending, Mode, Opening, Saying, Session};
use crate::signal::Beyond;
use crate::topic::TopicState;

/// The shortest delay of a `goodbye`.
const RETRY_MS_MIN: u32 = 250;

/// Fewer needs are never looked through; see [`Hub::need`].
const NEEDS_MAX_LEAST: usize = 1_024;

/// A heartbeat may come early by this part of its interval, so that it goes out together with others.
const HEARTBEAT_EARLY_PART: i64 = 100;

/// Names a session for as long as the hub lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SessionId {
    pub(crate) key: u32,
    pub(crate) generation: u32,
}

impl SessionId {
    /// A small number that no other session of the hub has while this one lives: for the owner's own tables.
    pub fn index(self) -> usize {
        self.key as usize
    }
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
    /// Sessions with joins to be looked at when the tape moves on: their cursor is ahead of it, or topics were removed.
    pub(crate) ahead: BTreeSet<usize>,
    /// How many subscriptions want each pattern.
    pub(crate) wants: HashMap<Pattern, u32>,
    /// Not taken yet, in order; see [`Hub::need`].
    pub(crate) needs: VecDeque<Need>,
    /// At so many the needs are looked through for those that undo each other.
    needs_max: usize,
    /// Which session a backfill is for.
    pub(crate) tickets: HashMap<u64, usize>,
    pub(crate) tickets_given: u64,
    pub(crate) ready: Vec<SessionId>,
    /// Counts the owner's passes: a state topic keeps the events of two.
    pass: u64,
    /// When sessions may send again, or joins stop waiting.
    pub(crate) timers: BinaryHeap<Reverse<(Time, u32, u32)>>,
    /// When heartbeats are due: all sessions have one interval, so this is in order.
    heartbeats: VecDeque<(Time, SessionId)>,
    generations: u32,
    pub(crate) due: Vec<Due>,
    /// What goes beyond this hub; `None` where the owner does not carry it.
    pub(crate) beyond: Option<VecDeque<Beyond>>,
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
            ahead: BTreeSet::new(),
            wants: HashMap::new(),
            needs: VecDeque::new(),
            needs_max: NEEDS_MAX_LEAST,
            tickets: HashMap::new(),
            tickets_given: 0,
            ready: Vec::new(),
            pass: 0,
            timers: BinaryHeap::new(),
            heartbeats: VecDeque::new(),
            generations: 0,
            due: Vec::new(),
            beyond: None,
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
        let keys: Vec<usize> = self.sessions.iter().map(|(k, _)| k).collect();
        for key in &keys {
            self.unjoin(*key);
        }
        self.epoch = Some(epoch.into());
        self.position = seq;
        for topic in &mut self.topics {
            topic.forget();
            topic.waiting = Vec::new();
        }
        if !same {
            self.catalogue.clear();
            self.tickets.clear();
            keys.iter().for_each(|key| self.begin_anew(*key));
        }
        for key in keys {
            self.advance_joins(key, now);
            self.list(key);
        }
    }

    /// The epoch has changed: what the session knew of its place means nothing any more.
    fn begin_anew(&mut self, key: usize) {
        let topics = &self.topics;
        let session = &mut self.sessions[key];
        let unsaid = matches!(session.before.front(), Some(Beginning::Welcome));
        let empty = session.subs.is_empty() && session.joins.is_empty();
        session.before.clear();
        session.before.push_back(Beginning::Welcome);
        if !unsaid {
            session.before.push_front(Beginning::Gap(None));
        } else if !empty {
            session.before.push_back(Beginning::Gap(None));
        }
        // Who is read once has not been given the new epoch's states yet: see [`Hub::cursor`].
        session.cursor = if session.opening.mode == Mode::Once { 0 } else { self.position };
        session.floor = 0;
        session.backlog = VecDeque::new();
        session.joins.iter_mut().for_each(|j| j.begin_anew(self.position, topics));
        session.wishes.iter_mut().for_each(|w| w.since = self.position);
    }

    /// Instruments, all or new ones.
    pub fn instruments(&mut self, instruments: Vec<Instrument>, now: Time) {
        let mut topics = Vec::new();
        for instrument in instruments {
            if self.catalogue.insert(instrument.clone()) {
                topics.extend(instrument.topics().chain(instrument.best_topic()));
            }
        }
        if topics.is_empty() {
            return;
        }
        // Who had one before a restart waits for it in earnest now.
        let known = topics.iter().filter_map(|t| self.index.get(t));
        let waiting: BTreeSet<u32> = known.flat_map(|i| self.topics[*i as usize].waiting.iter().copied()).collect();
        for key in
            waiting.into_iter().map(|key| key as usize).filter(|key| self.sessions.contains(*key)).collect::<Vec<_>>()
        {
            self.advance_joins(key, now);
        }
        self.join_new_topics(&topics, now);
    }

    /// Upstream sends these topics from here on. Each comes with the place of its last event (0 if it had none), and for
    /// state and book topics with their newest value. After a resume without a hole there is none: what is known holds.
    pub fn added(&mut self, topics: Vec<(Topic, u64, Option<Arc<Frame>>)>, resumed: bool, now: Time) {
        let mut waiting = BTreeSet::new();
        for (topic, last, snapshot) in topics {
            let index = self.topic_index(&topic) as usize;
            let topic = &mut self.topics[index];
            // A book that was not held before the resume cannot be built from what comes: it goes on waiting.
            let unknown = resumed && topic.class == Class::Book && last > 0 && snapshot.is_none();
            if !topic.held && !unknown {
                topic.hold(last, snapshot);
                waiting.extend(std::mem::take(&mut topic.waiting));
            }
        }
        for key in waiting {
            if self.sessions.contains(key as usize) {
                self.advance_joins(key as usize, now);
            }
        }
    }

    /// Upstream no longer sends these topics. Who came to want one again meanwhile goes on when it is added again.
    pub fn removed(&mut self, topics: &[Topic]) {
        for topic in topics {
            let Some(index) = self.index.get(topic).copied() else { continue };
            while let Some(reader) = self.topics[index as usize].readers.last().copied() {
                let (key, at) = (reader.session as usize, reader.sub as usize);
                let wanted = self.part_from(key, at);
                self.push_unasked(key, vec![wanted]);
            }
            self.topics[index as usize].forget();
        }
        // Joins that had all their topics may have to wait for them once more.
        for (key, session) in &mut self.sessions {
            if !session.joins.is_empty() {
                session.joins.iter_mut().for_each(|j| j.watching = false);
                self.ahead.insert(key);
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
        self.advance_ahead(now);
    }

    /// Everything up to this place has come.
    pub fn progress(&mut self, seq: u64, now: Time) {
        if seq > self.position {
            self.position = seq;
            self.advance_ahead(now);
        }
    }

    /// Goes on with joins whose cursor was ahead of the tape.
    fn advance_ahead(&mut self, now: Time) {
        for key in std::mem::take(&mut self.ahead) {
            if self.sessions.contains(key) {
                self.advance_joins(key, now);
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
        let mut session = Session::new(self.generations, opening, self.position, now);
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

    /// Ends a session with last words, after which [`Hub::commit`] tells how it closed.
    pub fn end(&mut self, id: SessionId, ending: Ending) {
        if let Some(key) = self.key(id) {
            self.sessions[key].end(ending);
            self.list(key);
        }
    }

    /// Says `goodbye` to every session; each is to come back after a delay that differs for each, spread over
    /// `spread_ms`. `random` gives numbers below its argument.
    pub fn goodbye(&mut self, reason: &str, spread_ms: u32, mut random: impl FnMut(u32) -> u32) {
        let keys: Vec<usize> = self.sessions.iter().map(|(k, _)| k).collect();
        let all = keys.len().max(1) as u64;
        for (i, key) in keys.into_iter().enumerate() {
            // Each has a part of the spread of its own, and a random place in it.
            let part = |i: u64| (u64::from(spread_ms) * i / all) as u32;
            let (from, to) = (part(i as u64), part(i as u64 + 1));
            let retry_ms = RETRY_MS_MIN + from + random((to - from).max(1));
            self.say(key, Saying::Goodbye { reason: reason.to_owned(), retry_ms });
        }
    }

    /// A reader is gone.
    pub fn close(&mut self, id: SessionId) {
        let Some(key) = self.key(id) else { return };
        self.sessions[key].dirty.clear();
        self.forget_reach(key);
        while let Some(at) = self.sessions[key].subs.len().checked_sub(1) {
            self.drop_sub(key, at);
        }
        for join in std::mem::take(&mut self.sessions[key].joins) {
            self.drop_join(&join);
        }
        for wish in std::mem::take(&mut self.sessions[key].wishes) {
            self.unwant(&wish.pattern);
        }
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

    /// Takes the sessions that have something to send, and begins a new pass. Events may be published while the owner gives
    /// them their turns: who has had its turn is given them in the next pass.
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
        std::mem::take(&mut self.needs).into()
    }

    /// Takes the first of what is needed. What the owner leaves here is bounded: at most one need for each pattern that its
    /// sessions want or wanted, and one for each session with older events to come (twice as many for a while).
    pub fn take_need(&mut self) -> Option<Need> {
        self.needs.pop_front()
    }

    /// Is something needed from upstream?
    pub fn has_needs(&self) -> bool {
        !self.needs.is_empty()
    }

    /// Has the session begun all that it asked for, and was told so? What upstream does not know (after a restart) is not
    /// waited for, but by a session that is read once: its reader would be told that it has seen what it has not.
    pub fn is_settled(&self, id: SessionId) -> bool {
        self.key(id).is_some_and(|key| {
            let session = &self.sessions[key];
            let once = session.opening.mode == Mode::Once;
            session.joins.iter().all(|j| j.dormant && !once) && session.after.is_empty()
        })
    }

    /// The cursor at which a session stands, once all that was planned for it is sent.
    pub fn cursor(&self, id: SessionId) -> Option<String> {
        let key = self.key(id)?;
        let session = &self.sessions[key];
        // Read once, and answered before what began anew could be given: the next answer gives it.
        let waits = session.opening.mode == Mode::Once && session.joins.iter().any(|j| j.id.is_none());
        Some(self.cursor_of(if waits { session.cursor } else { self.standing(key) }))
    }

    /// A heartbeat is due now, besides those of the interval: its transport has heard nothing of the reader for a while.
    pub fn heartbeat(&mut self, id: SessionId) {
        if let Some(key) = self.key(id) {
            self.sessions[key].heartbeat = self.sessions[key].ending.is_none();
            self.list(key);
        }
    }

    /// When [`Hub::tick`] wants to be called next.
    pub fn next_timer(&self) -> Option<Time> {
        let timer = self.timers.peek().map(|Reverse((at, _, _))| *at);
        let heartbeat = self.heartbeats.front().map(|(at, _)| *at);
        timer.into_iter().chain(heartbeat).min()
    }

    /// It is `now`: heartbeats and what waited for a limit become due.
    pub fn tick(&mut self, now: Time) {
        let interval = i64::from(self.limits.heartbeat_ms);
        let due = self.heartbeats.front().is_some_and(|(at, _)| *at <= now);
        // Those that would be due a little later go with it: one pass and one submission for many sockets.
        let end = now.plus_millis(if due { interval / HEARTBEAT_EARLY_PART } else { 0 });
        while let Some((at, id)) = self.heartbeats.front().copied().filter(|(at, _)| *at <= end) {
            self.heartbeats.pop_front();
            let Some(key) = self.key(id) else { continue };
            self.sessions[key].heartbeat = self.sessions[key].ending.is_none();
            self.list(key);
            // From when it was due, so that the interval is kept; from now, if the owner was away for longer.
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

    /// Adds a need. Where the owner takes none for long, those that undo each other go.
    pub(crate) fn need(&mut self, need: Need) {
        if self.needs.len() >= self.needs_max {
            // Of each pattern they come in turn, so an even number of them says nothing.
            let mut odd: HashMap<Pattern, bool> = HashMap::new();
            for need in &self.needs {
                if let Need::Want(pattern) | Need::Unwant(pattern) = need {
                    *odd.entry(pattern.clone()).or_default() ^= true;
                }
            }
            let tickets = &self.tickets;
            self.needs.retain(|need| match need {
                // The first says it, and no other.
                Need::Want(pattern) | Need::Unwant(pattern) => odd.insert(pattern.clone(), false) == Some(true),
                Need::Backfill { ticket, .. } => tickets.contains_key(ticket),
            });
            self.needs_max = NEEDS_MAX_LEAST.max(2 * self.needs.len());
        }
        self.needs.push_back(need);
    }

    pub(crate) fn want(&mut self, pattern: &Pattern) {
        let count = self.wants.entry(pattern.clone()).or_insert(0);
        *count += 1;
        if *count == 1 {
            self.need(Need::Want(pattern.clone()));
        }
    }

    pub(crate) fn unwant(&mut self, pattern: &Pattern) {
        if let Some(count) = self.wants.get_mut(pattern) {
            *count -= 1;
            if *count == 0 {
                self.wants.remove(pattern);
                self.need(Need::Unwant(pattern.clone()));
            }
        }
    }

    pub(crate) fn unwant_topic(&mut self, index: u32) {
        let topic = Topic::clone(&self.topics[index as usize].topic);
        self.unwant(&topic.into());
    }

    pub(crate) fn welcome(&self, cursor: String) -> Notice {
        Notice::Welcome {
            version: VERSION.to_owned(),
            epoch: self.epoch.as_deref().unwrap_or("").to_owned(),
            cursor,
            heartbeat_ms: self.limits.heartbeat_ms,
        }
    }
}
