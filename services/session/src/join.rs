//! How subscriptions begin: fresh with a snapshot, or resumed after a cursor with what the tape still holds.
//!
//! A join waits until upstream sends all its topics, then until their older events are fetched as far back as the rings
//! of the topics reach; then all its subscriptions begin at once, and `subscribed` follows. Until then its topics give
//! nothing live, so no message of theirs can move the reader's cursor past an event that is still to come.

use std::collections::BTreeMap;
use std::sync::Arc;

use ticker_market::{Class, Cursor, From, Pattern, Time, Topic};
use ticker_proto::message::Subscribe;
use ticker_proto::{Code, Fields, Notice};

use crate::catalogue::{Refusal, not_served};
use crate::hub::{Hub, Need, Page};
use crate::session::{Beginning, Mode, Options, Saying, Sub};

/// Subscriptions on their way.
#[derive(Debug)]
pub(crate) struct Join {
    /// `subscribed` names this request; `None` where nobody asked (a topic that appeared, a new epoch).
    pub(crate) id: Option<u64>,
    /// As the reader wrote them.
    pub(crate) asked: Vec<String>,
    /// The hub's indexes of the topics, and how exact the pattern was that brought each.
    pub(crate) topics: Vec<(u32, u8)>,
    pub(crate) options: Options,
    /// Events up to this place have been had.
    pub(crate) after: Option<u64>,
    /// All that the tape holds was asked for: that it begins late is no gap.
    pub(crate) earliest: bool,
    /// So many past events first.
    pub(crate) recent: u32,
    /// Books that the reader holds.
    pub(crate) have: BTreeMap<u32, u64>,
    /// The page that was asked for upstream.
    pub(crate) ticket: Option<u64>,
    /// A cursor from further ahead is waited for until then.
    pub(crate) deadline: Option<Time>,
}

impl Join {
    fn wants_every_event(&self, class: Class) -> bool {
        class == Class::Event || !self.options.conflate
    }
}

/// Indexes into a session's joins change when one is done; this names one for good.
type Ticket = u64;

impl Hub {
    /// A `subscribe` request.
    pub(crate) fn subscribe(&mut self, key: usize, request: &Subscribe, now: Time) -> Result<(), Refusal> {
        let bad = |message: String| Refusal::new(Code::BadRequest, message);
        if request.topics.is_empty() {
            return Err(bad("no topics: name at least one, such as `quote/kraken/BTC-USD`".into()));
        }
        let limits = &self.limits;
        if request.topics.len() > limits.session_topics_max {
            let (n, max) = (request.topics.len(), limits.session_topics_max);
            return Err(Refusal::new(Code::TooManyTopics, format!("{n} topics in one request; at most {max}")));
        }
        let options = options_of(request)?;
        let mut patterns = Vec::with_capacity(request.topics.len());
        for text in &request.topics {
            let pattern: Pattern = text.parse().map_err(|e: ticker_market::TopicError| bad(e.to_string()))?;
            match pattern.exact() {
                Some(topic) => self.catalogue.check(&topic)?,
                None => {
                    if let Some(channel) = pattern.channel().filter(|c| !c.is_served()) {
                        return Err(not_served(channel));
                    }
                }
            }
            patterns.push(pattern);
        }
        let from = match &request.from {
            Some(text) => Some(text.parse::<From>().map_err(|e| bad(e.to_string()))?),
            None => None,
        };
        let mut have = BTreeMap::new();
        for (text, seq) in &request.have {
            let topic: Topic = text.parse().map_err(|e: ticker_market::TopicError| bad(e.to_string()))?;
            have.insert(topic, *seq);
        }
        self.check_room(key, &patterns)?;
        if let Some(kbps) = request.max_kbps {
            self.set_kbps(key, kbps, now)?;
        }
        let mut join = Join {
            id: Some(request.id),
            asked: request.topics.clone(),
            topics: Vec::new(),
            options,
            after: None,
            earliest: false,
            recent: request.recent.unwrap_or(0).min(self.limits.recent_events_max),
            have: BTreeMap::new(),
            ticket: None,
            deadline: None,
        };
        match from {
            None => {}
            Some(From::Earliest) => (join.after, join.earliest) = (Some(0), true),
            Some(From::After(cursor)) if Some(cursor.epoch.as_str()) == self.epoch.as_deref() => {
                join.after = Some(cursor.seq);
            }
            Some(From::After(_)) => {
                let session = &mut self.sessions[key];
                session.before.push_back(Beginning::Gap(None));
            }
        }
        for pattern in patterns {
            self.ask(key, pattern, options, &mut join);
        }
        join.have = have.into_iter().filter_map(|(t, s)| Some((*self.index.get(&t)?, s))).collect();
        self.begin(key, join, now);
        Ok(())
    }

    /// Puts a pattern's topics into a join, and remembers the pattern if it has a `*`.
    fn ask(&mut self, key: usize, pattern: Pattern, options: Options, join: &mut Join) {
        let exactness = pattern.exactness();
        match pattern.exact() {
            Some(topic) => {
                let index = self.topic_index(&topic);
                self.want(&pattern);
                self.put_into(key, index, exactness, join);
            }
            None => {
                self.want(&pattern);
                let topics: Vec<Topic> = self.catalogue.matching(&pattern).collect();
                for topic in topics {
                    let index = self.topic_index(&topic);
                    self.put_into(key, index, exactness, join);
                }
                let session = &mut self.sessions[key];
                if let Some(old) = session.patterns.iter_mut().find(|(p, _)| *p == pattern) {
                    old.1 = options;
                    self.unwant(&pattern);
                } else {
                    session.patterns.push((pattern, options));
                }
            }
        }
    }

    /// A topic that the session has by a more exact pattern stays as it is; otherwise this request takes it over.
    fn put_into(&mut self, key: usize, index: u32, exactness: u8, join: &mut Join) {
        if let Some(at) = join.topics.iter().position(|(t, _)| *t == index) {
            if exactness == 3 && join.topics[at].1 == 3 {
                self.unwant_topic(index);
            }
            join.topics[at].1 = join.topics[at].1.max(exactness);
            return;
        }
        let session = &self.sessions[key];
        if let Some(at) = session.subs.iter().position(|s| s.topic == index) {
            if session.subs[at].exactness > exactness {
                return;
            }
            self.remove_sub(key, at);
        }
        let mut dropped_exact = false;
        for old in &mut self.sessions[key].joins {
            if let Some(at) = old.topics.iter().position(|(t, _)| *t == index) {
                if old.topics[at].1 > exactness {
                    return;
                }
                dropped_exact = old.topics[at].1 == 3;
                let retained = old.wants_every_event(self.topics[index as usize].class);
                old.topics.remove(at);
                if retained {
                    self.topics[index as usize].retain -= 1;
                }
            }
        }
        if dropped_exact {
            self.unwant_topic(index);
        }
        join.topics.push((index, exactness));
    }

    fn begin(&mut self, key: usize, join: Join, now: Time) {
        for (index, _) in &join.topics {
            let topic = &mut self.topics[*index as usize];
            if join.wants_every_event(topic.class) {
                topic.retain += 1;
            }
        }
        self.sessions[key].joins.push(Box::new(join));
        self.advance_joins(key, now);
    }

    /// Goes on with the joins of a session as far as they can go.
    pub(crate) fn advance_joins(&mut self, key: usize, now: Time) {
        self.joining.insert(key);
        let mut at = 0;
        while at < self.sessions[key].joins.len() {
            if self.advance_join(key, at, now) {
                let join = self.sessions[key].joins.remove(at);
                self.finish(key, *join);
            } else {
                at += 1;
            }
        }
        if self.sessions[key].joins.is_empty() {
            self.joining.remove(&key);
        }
    }

    /// Returns whether the join is ready to finish.
    fn advance_join(&mut self, key: usize, at: usize, now: Time) -> bool {
        let page = self.limits.backfill_page_events;
        let join = &self.sessions[key].joins[at];
        if join.ticket.is_some() || join.topics.iter().any(|(t, _)| !self.topics[*t as usize].held) {
            return false;
        }
        let every: Vec<u32> = join
            .topics
            .iter()
            .map(|(t, _)| *t)
            .filter(|t| join.wants_every_event(self.topics[*t as usize].class))
            .collect();
        if join.recent > 0 && join.after.is_none() {
            let topics: Vec<u32> =
                every.iter().copied().filter(|t| self.topics[*t as usize].class == Class::Event).collect();
            let recent = join.recent;
            let here = topics.iter().all(|t| {
                let topic = &self.topics[*t as usize];
                topic.covered() == 0 || topic.end() - topic.base() >= u64::from(recent)
            });
            if here || topics.is_empty() {
                return true;
            }
            return self.fetch(key, at, &topics, None, recent);
        }
        let Some(after) = join.after else { return true };
        if after > self.position {
            // Gained on an edge that is further ahead: this one gets there within moments.
            let wait = i64::from(self.limits.cursor_ahead_ms_max);
            let deadline = *self.sessions[key].joins[at].deadline.get_or_insert(now.plus_millis(wait));
            self.wake_joins_at(deadline);
            if now >= deadline {
                let message = format!("the cursor {after} is ahead of the tape, which is at {}", self.position);
                self.refuse_join(key, at, Refusal::new(Code::BadRequest, message));
            }
            return false;
        }
        if every.iter().all(|t| self.topics[*t as usize].covered() <= after) {
            return true;
        }
        if self.sessions[key].backlog.len() >= page as usize {
            return false;
        }
        let earliest = join.earliest && after == 0;
        self.fetch(key, at, &every, Some((after, earliest)), page)
    }

    fn fetch(&mut self, key: usize, at: usize, topics: &[u32], from: Option<(u64, bool)>, count: u32) -> bool {
        let ticket = self.next_ticket();
        let epoch = self.epoch.clone().unwrap_or_else(|| "".into());
        let from = from.map(|(seq, earliest)| if earliest { "earliest".to_owned() } else { format!("{epoch}-{seq}") });
        self.needs.push(Need::Backfill {
            ticket,
            topics: topics.iter().map(|t| Arc::clone(&self.topics[*t as usize].topic)).collect(),
            recent: if from.is_none() { count } else { 0 },
            from,
            limit: count.max(self.limits.backfill_page_events),
        });
        self.tickets.insert(ticket, key);
        self.sessions[key].joins[at].ticket = Some(ticket);
        false
    }

    /// The answer to a [`Need::Backfill`].
    pub fn backfilled(&mut self, ticket: Ticket, page: Result<Page, String>, now: Time) {
        let Some(key) = self.tickets.remove(&ticket) else { return };
        let Some(at) = self.sessions[key].joins.iter().position(|j| j.ticket == Some(ticket)) else { return };
        let session = &mut self.sessions[key];
        let join = &mut session.joins[at];
        join.ticket = None;
        match page {
            Ok(page) => {
                let topics: Vec<&Topic> = join.topics.iter().map(|(t, _)| &*self.topics[*t as usize].topic).collect();
                if !join.earliest && join.recent == 0 {
                    for topic in page.expired.iter().filter(|e| topics.contains(&&***e)) {
                        session.before.push_back(Beginning::Gap(Some(Arc::clone(topic))));
                    }
                }
                join.earliest = false;
                join.recent = 0;
                join.after = Some(page.through.max(join.after.unwrap_or(0)));
                session.backlog.extend(page.frames.into_iter().filter(|f| topics.contains(&&*f.event.topic)));
            }
            Err(why) => {
                let message = format!("older events could not be fetched: {why}");
                self.refuse_join(key, at, Refusal::new(Code::Internal, message));
            }
        }
        self.advance_joins(key, now);
        self.list(key);
    }

    fn refuse_join(&mut self, key: usize, at: usize, why: Refusal) {
        let join = self.sessions[key].joins.remove(at);
        self.drop_join(&join);
        let session = &mut self.sessions[key];
        session.after.push_back(Saying::Notice(Notice::error(join.id, why.code, why.message)));
        self.list(key);
    }

    /// Lets go of what a join held.
    pub(crate) fn drop_join(&mut self, join: &Join) {
        for (index, exactness) in &join.topics {
            let topic = &mut self.topics[*index as usize];
            if join.wants_every_event(topic.class) {
                topic.retain -= 1;
            }
            if *exactness == 3 {
                self.unwant_topic(*index);
            }
        }
    }

    /// All is there: the subscriptions begin.
    fn finish(&mut self, key: usize, join: Join) {
        let once = self.sessions[key].opening.mode == Mode::Once;
        let options = self.sessions[key].option_index(join.options);
        for (index, exactness) in &join.topics {
            let topic = &mut self.topics[*index as usize];
            let every = join.wants_every_event(topic.class);
            let end = topic.end();
            let after = join.after.unwrap_or(u64::MAX);
            let (place, fresh) = if every {
                match (join.after, topic.class) {
                    (Some(after), _) => (topic.ordinal_after(after), false),
                    (None, Class::Event) => (end.saturating_sub(u64::from(join.recent)).max(topic.base()), false),
                    (None, _) => (end, true),
                }
            } else if let Some(seq) = join.have.get(index).filter(|s| topic.covered() <= **s) {
                (topic.ordinal_after(*seq), false)
            } else if once && topic.last_seq() <= after && join.after.is_some() {
                (end, false)
            } else {
                (end, true)
            };
            let slot = topic.readers.len() as u32;
            let sub = self.sessions[key].subs.len() as u32;
            topic.readers.push(crate::topic::Reader { session: key as u32, sub });
            let dirty = fresh || place < end;
            let session = &mut self.sessions[key];
            session.subs.push(Sub { place, topic: *index, slot, options, exactness: *exactness, dirty, fresh });
            if dirty {
                session.dirty.push(sub);
            }
        }
        let session = &mut self.sessions[key];
        session.subs.shrink_to_fit();
        if let Some(id) = join.id {
            session.after.push_back(Saying::Subscribed { id, topics: join.asked });
        }
        self.list(key);
    }

    /// Instruments have appeared: sessions whose patterns match their topics get them, from the first event on.
    pub(crate) fn join_new_topics(&mut self, topics: &[Topic], now: Time) {
        let keys: Vec<usize> = self.sessions.iter().filter(|(_, s)| !s.patterns.is_empty()).map(|(k, _)| k).collect();
        for key in keys {
            let mut joins: Vec<Join> = Vec::new();
            for topic in topics {
                let session = &self.sessions[key];
                let best = session.patterns.iter().filter(|(p, _)| p.matches(topic)).max_by_key(|(p, _)| p.exactness());
                let Some((pattern, options)) = best.map(|(p, o)| (p.exactness(), *o)) else { continue };
                let has = session.subs.len() + joins.iter().map(|j| j.topics.len()).sum::<usize>();
                if has >= self.limits.session_topics_max {
                    let message = format!("{topic} appeared, and the session has its {has} topics already");
                    let notice = Notice::error(None, Code::TooManyTopics, message);
                    self.sessions[key].after.push_back(Saying::Notice(notice));
                    self.list(key);
                    break;
                }
                let index = self.topic_index(topic);
                let join = match joins.iter().position(|j| j.options == options) {
                    Some(at) => &mut joins[at],
                    None => {
                        joins.push(Join::unasked(options));
                        joins.last_mut().expect("just pushed")
                    }
                };
                if !self.sessions[key].subs.iter().any(|s| s.topic == index)
                    && !self.sessions[key].joins.iter().any(|j| j.topics.iter().any(|(t, _)| *t == index))
                {
                    // Its first event is still to come: nothing of it may be missed.
                    join.after = Some(0);
                    join.topics.push((index, pattern));
                }
            }
            for join in joins.into_iter().filter(|j| !j.topics.is_empty()) {
                self.begin(key, join, now);
            }
        }
    }

    /// Upstream began anew: every subscription of a session begins anew, after the place `after` where that still means
    /// something.
    pub(crate) fn rejoin(&mut self, key: usize, after: Option<u64>, now: Time) {
        let session = &mut self.sessions[key];
        let subs = std::mem::take(&mut session.subs);
        session.dirty.clear();
        session.next_at.clear();
        session.backlog.clear();
        let mut joins: Vec<Join> = Vec::new();
        for sub in subs {
            let options = session.options[usize::from(sub.options)];
            let at = joins.iter().position(|j| j.options == options).unwrap_or_else(|| {
                joins.push(Join { after, ..Join::unasked(options) });
                joins.len() - 1
            });
            joins[at].topics.push((sub.topic, sub.exactness));
        }
        for join in &mut session.joins {
            if let Some(ticket) = join.ticket.take() {
                self.tickets.remove(&ticket);
            }
            if after.is_none() {
                (join.after, join.earliest) = (None, false);
            }
        }
        for join in joins {
            // The topics still count the retained subscriptions: the join takes that over.
            self.sessions[key].joins.push(Box::new(join));
        }
        self.advance_joins(key, now);
        self.list(key);
    }

    fn check_room(&self, key: usize, patterns: &[Pattern]) -> Result<(), Refusal> {
        let session = &self.sessions[key];
        let stars = patterns.iter().filter(|p| p.exactness() < 3).count();
        let max = self.limits.session_patterns_max;
        if session.patterns.len() + stars > max {
            return Err(Refusal::new(Code::TooManyTopics, format!("more than {max} patterns with `*` in one session")));
        }
        let asked: usize =
            patterns.iter().map(|p| if p.exactness() == 3 { 1 } else { self.catalogue.matching(p).count() }).sum();
        let has = session.subs.len() + session.joins.iter().map(|j| j.topics.len()).sum::<usize>();
        let max = self.limits.session_topics_max;
        if has + asked > max {
            let message = format!("the session has {has} topics, and the request adds {asked}: at most {max}");
            return Err(Refusal::new(Code::TooManyTopics, message));
        }
        Ok(())
    }
}

impl Join {
    fn unasked(options: Options) -> Self {
        Self {
            id: None,
            asked: Vec::new(),
            topics: Vec::new(),
            options,
            after: None,
            earliest: false,
            recent: 0,
            have: BTreeMap::new(),
            ticket: None,
            deadline: None,
        }
    }
}

fn options_of(request: &Subscribe) -> Result<Options, Refusal> {
    let bad = |message: String| Refusal::new(Code::BadRequest, message);
    let fields = match &request.fields {
        None => Fields::ALL,
        Some(names) => Fields::of(names).map_err(|name| bad(format!("no event has a field `{name}`")))?,
    };
    if request.delivery.as_deref().is_some_and(|d| d != "datagram") {
        return Err(bad("`delivery` can only be \"datagram\"".into()));
    }
    let interval_nanos = interval_of(request.max_rate)?;
    Ok(Options { interval_nanos, fields, conflate: request.conflate.unwrap_or(true) })
}

/// Nanoseconds between two updates for a rate a second; 0 for none.
pub(crate) fn interval_of(max_rate: Option<f64>) -> Result<i64, Refusal> {
    match max_rate {
        None | Some(0.0) => Ok(0),
        Some(rate) if rate.is_finite() && (0.001..=1e6).contains(&rate) => Ok((1e9 / rate) as i64),
        Some(rate) => Err(Refusal::new(
            Code::BadRequest,
            format!("max_rate is {rate}: expected updates a second, from 0.001 to 1000000, or 0 for no limit"),
        )),
    }
}

/// The cursor at a place of an epoch, as text.
pub(crate) fn cursor_text(epoch: &str, seq: u64) -> String {
    match ticker_market::Epoch::new(epoch) {
        Ok(epoch) => Cursor { epoch, seq }.to_string(),
        Err(_) => format!("{epoch}-{seq}"),
    }
}
