//! How subscriptions begin: fresh with a snapshot, or resumed after a cursor with what the tape still holds.
//!
//! A join waits until upstream sends all its topics, then until their older events are fetched as far back as the rings
//! of the topics reach; then all its subscriptions begin at once, and `subscribed` follows. Until then its topics give
//! nothing live, so no message of theirs can move the reader's cursor past an event that is still to come.
//!
//! Older events are fetched a page at a time, for one join of a session at a time, and the next page when the last is on
//! its way to the reader, so that a session's backlog is bounded. What is due besides is merged with it by `seq`.
//!
//! Nobody is told about joins that nobody asked for (a topic that appeared, upstream that began anew), so these may not
//! show: while one is on its way, nothing is sent that lies beyond what it has got.

use std::sync::Arc;

use hashbrown::HashMap;
use ticker_market::{Class, Pattern, Time, Topic};
use ticker_proto::{Code, Fields, Notice};

use crate::catalogue::Refusal;
use crate::hub::{Hub, Need, Page};
use crate::session::{Beginning, Ending, Mode, Options, Saying, Sub};
use crate::topic::TopicState;

/// Past events that one `recent` brings at most, over all its topics; each topic gives fewer where it would be more.
pub(crate) const RECENT_TOTAL_MAX: u32 = 10_000;

/// How often a page is asked for again before the session ends with `internal`, and the first delay; it doubles.
const RETRIES_MAX: u32 = 5;
const RETRY_MS: i64 = 100;

/// Subscriptions on their way.
#[derive(Debug)]
pub(crate) struct Join {
    /// `subscribed` names this request; `None` where nobody asked (a topic that appeared, a new epoch).
    pub(crate) id: Option<u64>,
    /// As the reader wrote them.
    pub(crate) asked: Vec<String>,
    pub(crate) topics: Vec<Wanted>,
    /// Upstream does not know its topics (after a restart): there is nothing of them to be missed yet.
    pub(crate) dormant: bool,
    /// The reader's cursor, if it resumes.
    pub(crate) from: Option<u64>,
    /// All that the tape holds was asked for: that it begins late is no gap.
    pub(crate) earliest: bool,
    /// So many past events first.
    pub(crate) recent: u32,
    /// A page has come.
    pub(crate) fetched: bool,
    /// The page that was asked for upstream.
    pub(crate) ticket: Option<u64>,
    /// The least place after which that page begins.
    page_after: u64,
    /// The topics that upstream does not send yet know that this session waits for them.
    pub(crate) watching: bool,
    /// A cursor from further ahead is waited for until then.
    deadline: Option<Time>,
    /// Pages that could not be fetched in a row, and when to try again.
    failures: u32,
    retry_at: Time,
}

/// A topic of a join.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Its index in the hub.
    pub(crate) topic: u32,
    /// How exact the pattern was that brought it.
    pub(crate) exactness: u8,
    pub(crate) options: Options,
    /// Where every event is wanted: those up to this place have been had.
    pub(crate) after: Option<u64>,
    /// The reader holds it (a book) as it was at this place.
    pub(crate) have: Option<u64>,
    /// Of a bar that goes on: its state has not been shown to the reader, or not as it now wants it. Then it begins with a
    /// snapshot, after the closed ones that are due.
    pub(crate) unseen: bool,
}

impl Wanted {
    /// Is it a bar of which only the closed ones are wanted up to its beginning?
    pub(crate) fn is_closed_only(&self, topic: &TopicState) -> bool {
        topic.topic.channel.is_bar() && (self.options.conflate || self.unseen)
    }

    /// Every event that is wanted of older ones is kept after this place on the tape.
    fn covered(&self, topic: &TopicState) -> u64 {
        if self.is_closed_only(topic) { topic.closed_covered() } else { topic.covered() }
    }
}

enum Step {
    Wait,
    Ready,
    Refused(Refusal),
}

impl Join {
    pub(crate) fn new(id: Option<u64>) -> Self {
        Self {
            id,
            asked: Vec::new(),
            topics: Vec::new(),
            dormant: false,
            from: None,
            earliest: false,
            recent: 0,
            fetched: false,
            ticket: None,
            page_after: 0,
            watching: false,
            deadline: None,
            failures: 0,
            retry_at: Time(i64::MIN),
        }
    }

    /// The least place after which some topic's events are still to come; beyond all if there is none.
    pub(crate) fn least_after(&self) -> u64 {
        let places = self.topics.iter().filter_map(|w| w.after).filter(|_| !self.dormant);
        places.min().unwrap_or(u64::MAX)
    }

    /// A new epoch: places of the old one mean nothing. Event channels go on at the beginning of the new one's part that
    /// is followed, the others begin with a snapshot.
    pub(crate) fn begin_anew(&mut self, position: u64, topics: &[TopicState]) {
        let recent = self.recent > 0 && !self.fetched;
        for wanted in &mut self.topics {
            let topic = &topics[wanted.topic as usize];
            let goes_on = (topic.class == Class::Event || topic.is_conflated_bar(&wanted.options)) && !recent;
            wanted.after = goes_on.then_some(if self.earliest { 0 } else { position });
            wanted.have = None;
        }
        self.from = None;
        (self.fetched, self.ticket, self.deadline) = (false, None, None);
        (self.failures, self.retry_at) = (0, Time(i64::MIN));
    }
}

impl Hub {
    pub(crate) fn begin(&mut self, key: usize, join: Join, now: Time) {
        self.push_join(key, join);
        self.advance_joins(key, now);
    }

    pub(crate) fn push_join(&mut self, key: usize, join: Join) {
        for wanted in &join.topics {
            let topic = &mut self.topics[wanted.topic as usize];
            topic.retain += u32::from(wanted.options.wants_every(topic.class));
        }
        self.sessions[key].joins.push(Box::new(join));
    }

    /// Adds a join that nobody asked for, unless it is empty.
    pub(crate) fn push_unasked(&mut self, key: usize, topics: Vec<Wanted>) {
        if !topics.is_empty() {
            self.push_join(key, Join { topics, ..Join::new(None) });
        }
    }

    /// Goes on with the joins of a session as far as they can go.
    pub(crate) fn advance_joins(&mut self, key: usize, now: Time) {
        let mut at = 0;
        while at < self.sessions[key].joins.len() {
            match self.advance_join(key, at, now) {
                Step::Wait => at += 1,
                Step::Ready => {
                    let join = self.sessions[key].joins.remove(at);
                    self.finish(key, *join, now);
                }
                Step::Refused(why) => {
                    let join = self.sessions[key].joins.remove(at);
                    self.drop_join(&join);
                    let patterns: Vec<Pattern> = join.asked.iter().filter_map(|t| t.parse().ok()).collect();
                    patterns.iter().for_each(|pattern| self.unwish(key, pattern));
                    self.say(key, Saying::Notice(Notice::error(join.id, why.code, why.message)));
                }
            }
        }
        if self.sessions[key].joins.is_empty() {
            self.sessions[key].joins = Vec::new();
        }
    }

    fn advance_join(&mut self, key: usize, at: usize, now: Time) -> Step {
        if self.sessions[key].joins[at].ticket.is_some() || !self.is_held(key, at) {
            return Step::Wait;
        }
        let join = &mut self.sessions[key].joins[at];
        let most = join.topics.iter().filter_map(|w| w.after).chain(join.from).max();
        let ahead = most.filter(|after| *after > self.position);
        if let Some(after) = ahead {
            self.ahead.insert(key);
            if join.id.is_none() {
                return Step::Wait;
            }
            // Gained on an edge that is further. It is waited for, but not for ever: it may never have been a cursor.
            let wait = i64::from(self.limits.cursor_ahead_ms_max);
            let deadline = *join.deadline.get_or_insert(now.plus_millis(wait));
            if now >= deadline {
                let message = format!("the cursor {after} is ahead of the tape, which is at {}", self.position);
                return Step::Refused(Refusal::new(Code::BadRequest, message));
            }
            self.wake_session_at(key, deadline);
            return Step::Wait;
        }
        let topics = &self.topics;
        let join = &self.sessions[key].joins[at];
        if join.recent > 0 && !join.fetched {
            let recent = u64::from(join.recent);
            let wanted = || join.topics.iter().filter(|w| is_recent(w, &topics[w.topic as usize]));
            let here =
                wanted().map(|w| (w, &topics[w.topic as usize])).all(|(w, t)| w.covered(t) == 0 || t.past() >= recent);
            if !here {
                let indexes: Vec<u32> = wanted().map(|w| w.topic).collect();
                let count = join.recent;
                return self.fetch(key, at, &indexes, None, count, now);
            }
        }
        let wanted = || join.topics.iter().filter(|w| w.after.is_some());
        if wanted().all(|w| Some(w.covered(&topics[w.topic as usize])) <= w.after) {
            return Step::Ready;
        }
        let indexes: Vec<u32> = wanted().map(|w| w.topic).collect();
        let after = wanted().filter_map(|w| w.after).min().unwrap_or(0);
        let earliest = join.earliest && !join.fetched;
        let from = if earliest { "earliest".to_owned() } else { self.cursor_of(after) };
        let count = self.limits.backfill_page_events;
        self.sessions[key].joins[at].page_after = after;
        self.fetch(key, at, &indexes, Some(from), count, now)
    }

    /// Does upstream send all topics of a join? If not, the join is woken when it does. What nobody asked for does not
    /// wait for all: a venue that comes back late after a restart holds up its own topics only.
    fn is_held(&mut self, key: usize, at: usize) -> bool {
        let topics = &mut self.topics;
        let join = &mut self.sessions[key].joins[at];
        if join.topics.iter().all(|w| topics[w.topic as usize].held) {
            join.dormant = false;
            return true;
        }
        if join.id.is_none() {
            let held: Vec<Wanted> = join.topics.extract_if(.., |w| topics[w.topic as usize].held).collect();
            let is_unknown = |w: &mut Wanted| self.catalogue.check(&topics[w.topic as usize].topic).is_err();
            let unknown: Vec<Wanted> = join.topics.extract_if(.., is_unknown).collect();
            let fetched = join.fetched;
            // One of the three stays; at least one is not empty.
            join.dormant = join.topics.is_empty() && !unknown.is_empty();
            let (stays, goes) = if join.topics.is_empty() { (unknown, Vec::new()) } else { (Vec::new(), unknown) };
            join.topics.extend(stays);
            for (topics, dormant) in [(held, false), (goes, true)] {
                if !topics.is_empty() {
                    let part = Join { topics, dormant, fetched, ..Join::new(None) };
                    self.sessions[key].joins.push(Box::new(part));
                }
            }
        }
        let join = &mut self.sessions[key].joins[at];
        if !std::mem::replace(&mut join.watching, true) {
            for wanted in &join.topics {
                let topic = &mut topics[wanted.topic as usize];
                if !topic.held {
                    topic.waiting.push(key as u32);
                }
            }
        }
        false
    }

    /// Asks for a page, unless the session has not taken the last one yet.
    fn fetch(&mut self, key: usize, at: usize, topics: &[u32], from: Option<String>, count: u32, now: Time) -> Step {
        let session = &self.sessions[key];
        let join = &session.joins[at];
        // What holds up the backlog itself must not wait for it.
        let is_free =
            session.backlog.front().is_none_or(|(f, _)| join.id.is_none() && join.least_after() < f.event.seq);
        if !is_free || session.joins.iter().any(|j| j.ticket.is_some()) {
            return Step::Wait;
        }
        let retry_at = join.retry_at;
        if now < retry_at {
            self.wake_session_at(key, retry_at);
            return Step::Wait;
        }
        self.tickets_given += 1;
        let ticket = self.tickets_given;
        let recent = if from.is_none() { count } else { 0 };
        self.tickets.insert(ticket, key);
        self.need(Need::Backfill {
            ticket,
            topics: topics.iter().map(|t| Arc::clone(&self.topics[*t as usize].topic)).collect(),
            from,
            recent,
            limit: if recent > 0 { recent.saturating_mul(topics.len() as u32) } else { count },
        });
        self.sessions[key].joins[at].ticket = Some(ticket);
        Step::Wait
    }

    /// The answer to a [`Need::Backfill`].
    pub fn backfilled(&mut self, ticket: u64, page: Result<Page, String>, now: Time) {
        let Some(key) = self.tickets.remove(&ticket) else { return };
        let Some(at) = self.sessions[key].joins.iter().position(|j| j.ticket == Some(ticket)) else { return };
        self.sessions[key].joins[at].ticket = None;
        if let Err(why) = page.and_then(|page| self.take_page(key, at, page)) {
            let session = &mut self.sessions[key];
            let join = &mut session.joins[at];
            join.failures += 1;
            join.retry_at = now.plus_millis(RETRY_MS << join.failures);
            if join.failures > RETRIES_MAX {
                let message = format!("older events could not be fetched: {why}; go on from the cursor");
                session.end(Ending { code: Code::Internal, message });
            }
        }
        self.advance_joins(key, now);
        self.list(key);
    }

    fn take_page(&mut self, key: usize, at: usize, page: Page) -> Result<(), String> {
        let session = &mut self.sessions[key];
        let join = &mut session.joins[at];
        let recent = join.recent > 0 && !join.fetched;
        let resumes = !recent && (!join.earliest || join.fetched);
        // The page may reach further than the stream: what is beyond comes with the stream.
        let through = page.through.min(self.position);
        // The places after which each topic's events of the page are new, how they are to look, and whether only closed bars
        // are wanted of them.
        let mut places: HashMap<&Topic, (u64, Fields, bool)> = HashMap::new();
        let mut goes_on = recent;
        for wanted in &mut join.topics {
            let topic = &self.topics[wanted.topic as usize];
            let asked = if recent { is_recent(wanted, topic) } else { wanted.after.is_some() };
            if !asked {
                continue;
            }
            let place = wanted.after.unwrap_or(0);
            let expired = resumes && page.expired.iter().any(|e| **e == *topic.topic);
            if expired && place > join.page_after {
                // What is gone may be what it has had: it is asked for once more, from its own place on.
                continue;
            }
            goes_on |= wanted.after < Some(through);
            wanted.after = wanted.after.max(Some(through));
            if expired {
                session.before.push_back(Beginning::Gap(Some(Arc::clone(&topic.topic))));
                if topic.class != Class::Event && !wanted.is_closed_only(topic) {
                    // Changes of a state that is not known are worth nothing: it begins with a snapshot.
                    wanted.after = None;
                    continue;
                }
            }
            // Past bars say nothing of the one that is running.
            wanted.unseen |= recent;
            places.insert(&topic.topic, (place, wanted.options.fields, wanted.is_closed_only(topic)));
        }
        if !goes_on {
            return Err("a page brought nothing new".into());
        }
        (join.fetched, join.failures) = (true, 0);
        for frame in page.frames {
            if let Some((after, fields, closed_only)) = places.get(&*frame.event.topic)
                && (*after + 1..=through).contains(&frame.event.seq)
                && (!closed_only || frame.event.is_closed_bar())
            {
                session.backlog.push_back((frame, *fields));
            }
        }
        // It is in order already, unless another join's page is still in it.
        session.backlog.make_contiguous().sort_by_key(|(f, _)| f.event.seq);
        Ok(())
    }

    /// Lets go of what a join held.
    pub(crate) fn drop_join(&mut self, join: &Join) {
        if let Some(ticket) = join.ticket {
            self.tickets.remove(&ticket);
        }
        for wanted in &join.topics {
            self.drop_wanted(wanted);
        }
    }

    pub(crate) fn drop_wanted(&mut self, wanted: &Wanted) {
        self.release(wanted);
        if wanted.exactness == 3 {
            self.unwant_topic(wanted.topic);
        }
    }

    /// A topic need not keep its events for this one.
    pub(crate) fn release(&mut self, wanted: &Wanted) {
        let topic = &mut self.topics[wanted.topic as usize];
        topic.retain -= u32::from(wanted.options.wants_every(topic.class));
    }

    /// All is there: the subscriptions begin.
    fn finish(&mut self, key: usize, join: Join, now: Time) {
        let once = self.sessions[key].opening.mode == Mode::Once;
        // A reader who polls has had something a moment ago: its rate holds from one poll to the next.
        let waits = once && join.from.is_some();
        let mut wake = Time(i64::MAX);
        self.sessions[key].subs.reserve_exact(join.topics.len());
        for wanted in &join.topics {
            let topic = &self.topics[wanted.topic as usize];
            let every = wanted.options.wants_every(topic.class);
            let end = topic.end();
            let held = wanted.have.filter(|seq| topic.covered() <= *seq && *seq <= self.position);
            let seen = once && join.from.is_some_and(|from| topic.last_seq() <= from);
            let is_bar = topic.topic.channel.is_bar();
            let (place, fresh) = match (wanted.after, held) {
                // The closed ones go on; of the running one there is a snapshot, as of every state.
                (Some(after), _) if wanted.is_closed_only(topic) => (topic.closed_after(after), every || !seen),
                (Some(after), _) => (topic.ordinal_after(after), false),
                (None, _) if is_bar && join.recent > 0 => (topic.recent_at(join.recent), true),
                (None, _) if topic.class == Class::Event => (end - topic.kept().min(u64::from(join.recent)), false),
                // Nothing has happened yet: its first event is the first that the reader gets.
                (None, _) if every && topic.last.is_none() && topic.covered() == 0 => (end, false),
                (None, Some(seq)) if !every => (topic.ordinal_after(seq), false),
                _ if seen && !every && topic.class == Class::State => (end, false),
                _ => (end, true),
            };
            // A poll does not answer with what the one before has brought. A book's snapshot comes with its next change: that
            // the reader holds what the change is of is not known unless it says so. A state's change is whole.
            let dirty = place < end || (fresh && (every || !seen));
            let (topic, exactness) = (wanted.topic, wanted.exactness);
            let options = self.sessions[key].option_index(wanted.options);
            self.add_sub(key, Sub { place, topic, slot: 0, options, exactness, dirty, fresh });
            let interval = wanted.options.interval_nanos;
            if waits && interval > 0 && !every {
                let session = &mut self.sessions[key];
                session.next_at.resize(session.subs.len(), Time(0));
                session.next_at[session.subs.len() - 1] = now.plus_nanos(interval);
                wake = wake.min(now.plus_nanos(interval));
            }
        }
        if wake < Time(i64::MAX) {
            self.wake_session_at(key, wake);
        }
        if let Some(id) = join.id {
            self.sessions[key].after.push_back(Saying::Subscribed { id, topics: join.asked });
        }
        self.list(key);
    }

    /// Instruments have appeared: sessions whose patterns match their topics get them.
    pub(crate) fn join_new_topics(&mut self, topics: &[Topic], now: Time) {
        let keys: Vec<usize> = self.sessions.iter().filter(|(_, s)| !s.wishes.is_empty()).map(|(k, _)| k).collect();
        for key in keys {
            let mut had = self.topics_of(key);
            let mut new = Vec::new();
            for topic in topics {
                let Some((exactness, options, since)) = self.wish_for(key, topic) else { continue };
                let index = self.topic_index(topic);
                if had.contains(&index) {
                    continue;
                }
                if had.len() >= self.limits.session_topics_max {
                    let message = format!("{topic} appeared, and the session has its {} topics already", had.len());
                    self.say(key, Saying::Notice(Notice::error(None, Code::TooManyTopics, message)));
                    break;
                }
                had.insert(index);
                // State and book topics begin with a snapshot; where every event is wanted, nothing since is left out.
                let after = options.goes_on(topic.channel).then_some(since);
                new.push(Wanted { topic: index, exactness, options, after, have: None, unseen: false });
            }
            self.push_unasked(key, new);
            self.advance_joins(key, now);
        }
    }

    /// What the session's most exact pattern for a topic says.
    pub(crate) fn wish_for(&self, key: usize, topic: &Topic) -> Option<(u8, Options, u64)> {
        let exactness = |pattern: &Pattern| pattern.exactness();
        let wishes = self.sessions[key].wishes.iter().filter(|w| w.pattern.matches(topic));
        wishes.max_by_key(|w| exactness(&w.pattern)).map(|w| (exactness(&w.pattern), w.options, w.since))
    }

    /// Upstream begins anew: every subscription of a session becomes a join, after what it has been sent.
    pub(crate) fn unjoin(&mut self, key: usize) {
        let mut wanted = Vec::new();
        self.sessions[key].dirty.clear();
        while let Some(at) = self.sessions[key].subs.len().checked_sub(1) {
            wanted.push(self.part_from(key, at));
        }
        wanted.reverse();
        self.push_unasked(key, wanted);
        self.sessions[key].joins.iter_mut().for_each(|j| j.watching = false);
    }

    /// Takes a subscription back to where it can be joined again without a hole. What it wanted of upstream goes with it.
    pub(crate) fn part_from(&mut self, key: usize, at: usize) -> Wanted {
        let after = self.delivered(key, at);
        let options = self.sessions[key].options_of(at);
        let sub = self.remove_sub(key, at);
        self.sessions[key].floor = self.position;
        Wanted {
            topic: sub.topic,
            exactness: sub.exactness,
            options,
            after,
            have: None,
            unseen: sub.fresh || options.conflate,
        }
    }
}

/// Does `recent` ask for past events of this topic?
fn is_recent(wanted: &Wanted, topic: &crate::topic::TopicState) -> bool {
    (topic.class == Class::Event || topic.topic.channel.is_bar()) && wanted.after.is_none()
}
