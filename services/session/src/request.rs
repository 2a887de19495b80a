//! What readers ask for. A request that cannot be done changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use ticker_market::{Channel, Class, From, Pattern, Time, Topic, TopicError};
use ticker_proto::message::{Limit, Request, Subscribe};
use ticker_proto::{Code, Fields, Notice};

use crate::catalogue::{Refusal, not_served};
use crate::hub::{Hub, SessionId};
use crate::join::{Join, RECENT_TOTAL_MAX, Wanted};
use crate::session::{Beginning, Bucket, Ending, Options, Saying, Wish};

/// Answers that wait for a reader who asks but does not read, at most: then it ends with `slow_consumer`.
const SAYINGS_MAX: usize = 256;

/// A `subscribe` request that has been found good.
struct Checked {
    options: Options,
    kbps: Option<Option<Bucket>>,
    from: Option<From>,
    /// Patterns with `*`.
    patterns: Vec<Pattern>,
    /// All topics, and how exact the pattern was that brought each.
    topics: Vec<(Topic, u8)>,
    have: BTreeMap<Topic, u64>,
}

impl Hub {
    /// A request of a reader. What cannot be done changes nothing, and is the result: the owner answers it with
    /// [`Hub::refuse`], or ends a session that was opened for this one request.
    pub fn request(&mut self, id: SessionId, request: Request, now: Time) -> Result<(), Refusal> {
        let Some(key) = self.key(id) else { return Ok(()) };
        let result = self.allow(key, now).and_then(|()| match request {
            Request::Subscribe(subscribe) => self.subscribe(key, subscribe, now),
            Request::Unsubscribe(unsubscribe) => {
                self.unsubscribe(key, &unsubscribe.topics, now)?;
                let (id, topics) = (unsubscribe.id, unsubscribe.topics);
                self.say(key, Saying::Notice(Notice::Unsubscribed { id, topics }));
                Ok(())
            }
            Request::Limit(limit) => self.limit(key, &limit, now),
            Request::Ping(ping) => {
                self.say(key, Saying::Notice(Notice::Pong { id: ping.id }));
                Ok(())
            }
            Request::Auth(_) => {
                Err(Refusal::new(Code::NotImplemented, "`auth` is not implemented yet: no token is needed"))
            }
            Request::Signal(signal) => self.signal(key, signal, now),
        });
        self.list(key);
        result
    }

    /// Answers a request with an error.
    pub fn refuse(&mut self, id: SessionId, request: Option<u64>, why: Refusal) {
        if let Some(key) = self.key(id) {
            self.say(key, Saying::Notice(Notice::error(request, why.code, why.message)));
        }
    }

    pub(crate) fn say(&mut self, key: usize, saying: Saying) {
        let session = &mut self.sessions[key];
        if session.after.len() >= SAYINGS_MAX {
            let message = format!("{SAYINGS_MAX} answers are waiting to be read; go on from the cursor");
            session.end(Ending { code: Code::SlowConsumer, message });
        } else {
            session.after.push_back(saying);
        }
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
        let interval = limit.max_rate.map(|rate| interval_of(Some(rate))).transpose()?;
        let bucket = limit.max_kbps.map(|kbps| bucket_of(kbps, now)).transpose()?;
        let session = &mut self.sessions[key];
        if let Some(interval_nanos) = interval {
            let all = session.options.iter_mut().chain(session.wishes.iter_mut().map(|w| &mut w.options));
            let joining = session.joins.iter_mut().flat_map(|j| j.topics.iter_mut().map(|w| &mut w.options));
            for options in all.chain(joining) {
                options.interval_nanos = interval_nanos;
            }
            session.next_at = Vec::new();
        }
        if let Some(bucket) = bucket {
            session.bucket = bucket.map(Box::new);
        }
        Ok(())
    }

    fn subscribe(&mut self, key: usize, request: Subscribe, now: Time) -> Result<(), Refusal> {
        let checked = self.check(key, &request, now)?;
        if let Some(bucket) = checked.kbps {
            self.sessions[key].bucket = bucket.map(Box::new);
        }
        let mut join = Join::new(Some(request.id));
        join.asked = request.topics;
        let after = match &checked.from {
            None => None,
            Some(From::Earliest) => {
                join.earliest = true;
                Some(0)
            }
            Some(From::After(cursor)) if Some(cursor.epoch.as_str()) == self.epoch.as_deref() => Some(cursor.seq),
            Some(From::After(_)) => {
                self.sessions[key].before.push_back(Beginning::Gap(None));
                None
            }
        };
        if let Some(after) = after {
            // The reader's cursor is where it says, until it is told another.
            let session = &mut self.sessions[key];
            // What it had beyond its cursor came from a hub that was no further than this one is now.
            session.floor = after.max(self.position);
            if session.is_unwelcomed() && session.subs.is_empty() && session.joins.is_empty() {
                session.cursor = after;
            } else if session.is_unwelcomed() {
                session.cursor = session.cursor.min(after);
            }
        }
        // A reader whose cursor is ahead of this hub begins where that is, whatever else it asks for.
        let ahead = Some(self.sessions[key].cursor).filter(|cursor| *cursor > self.position);
        join.from = after.or(ahead);
        for pattern in checked.patterns {
            self.wish(key, pattern, checked.options, after, ahead);
        }
        let had = self.topics_of(key);
        let mut replaced = HashSet::new();
        for (topic, exactness) in checked.topics {
            let index = self.topic_index(&topic);
            if exactness == 3 {
                self.want(&topic.clone().into());
            }
            // Of a bar: the closed ones.
            let every = checked.options.goes_on(topic.channel);
            let (place, unseen) = match had.contains(&index) {
                false => (None, false),
                true => match self.take_over(key, index, exactness) {
                    Some(place) => place,
                    // The session has it by a more exact pattern: it stays as it is.
                    None => continue,
                },
            };
            // Whoever subscribes again, and does not say from where, goes on where it was.
            let resumes = after.is_some();
            let after = after.or(place).filter(|_| every);
            if resumes || !every {
                replaced.insert(index);
            }
            let have = checked.have.get(&topic).copied().filter(|_| resumes);
            let unseen = unseen && !resumes;
            join.topics.push(Wanted { topic: index, exactness, options: checked.options, after, have, unseen });
        }
        self.forget_backlog(key, &replaced);
        self.narrow_backlog(key, &join.topics);
        let has_past = |channel: Channel| channel.class() == Class::Event || channel.is_bar();
        let counts = |w: &&Wanted| w.after.is_none() && has_past(self.topics[w.topic as usize].topic.channel);
        let events = join.topics.iter().filter(counts).count().max(1) as u32;
        let recent = request.recent.unwrap_or(0).min(self.limits.recent_events_max);
        join.recent = recent.min((RECENT_TOTAL_MAX / events).max(1));
        self.begin(key, join, now);
        Ok(())
    }

    fn check(&self, key: usize, request: &Subscribe, now: Time) -> Result<Checked, Refusal> {
        if request.topics.is_empty() {
            return Err(bad("no topics: name at least one, such as `quote/kraken/BTC-USD`"));
        }
        let max = self.limits.session_topics_max;
        if request.topics.len() > max || request.have.len() > max {
            let n = request.topics.len().max(request.have.len());
            return Err(Refusal::new(Code::TooManyTopics, format!("{n} topics in one request; at most {max}")));
        }
        let options = options_of(request)?;
        let kbps = request.max_kbps.map(|kbps| bucket_of(kbps, now)).transpose()?;
        let from =
            request.from.as_deref().map(|text| text.parse::<From>().map_err(|e| bad(e.to_string()))).transpose()?;
        let have = request
            .have
            .iter()
            .map(|(text, seq)| Ok((text.parse().map_err(|e: TopicError| bad(e.to_string()))?, *seq)))
            .collect::<Result<_, Refusal>>()?;
        let (mut patterns, mut topics, mut places) = (Vec::new(), Vec::new(), HashMap::new());
        let mut put = |topic: Topic, exactness: u8| {
            let at = *places.entry(topic.clone()).or_insert(topics.len());
            match topics.get_mut(at) {
                Some((_, most)) => *most = exactness.max(*most),
                None => topics.push((topic, exactness)),
            }
        };
        for text in &request.topics {
            let pattern: Pattern = text.parse().map_err(|e: TopicError| bad(e.to_string()))?;
            if let Some(topic) = pattern.exact() {
                self.catalogue.check(&topic)?;
                put(topic, 3);
                continue;
            }
            if let Some(channel) = pattern.channel().filter(|c| !c.is_served()) {
                return Err(not_served(channel));
            }
            if !patterns.contains(&pattern) {
                self.catalogue.matching(&pattern).for_each(|topic| put(topic, pattern.exactness()));
                patterns.push(pattern);
            }
        }
        self.check_room(key, &patterns, &topics)?;
        Ok(Checked { options, kbps, from, patterns, topics, have })
    }

    fn check_room(&self, key: usize, patterns: &[Pattern], topics: &[(Topic, u8)]) -> Result<(), Refusal> {
        let wishes = &self.sessions[key].wishes;
        let new = patterns.iter().filter(|p| wishes.iter().all(|w| w.pattern != **p)).count();
        let max = self.limits.session_patterns_max;
        if wishes.len() + new > max {
            return Err(Refusal::new(Code::TooManyTopics, format!("more than {max} patterns with `*` in one session")));
        }
        let had = self.topics_of(key);
        let new = topics.iter().filter(|(t, _)| self.index.get(t).is_none_or(|i| !had.contains(i))).count();
        let (has, max) = (had.len(), self.limits.session_topics_max);
        if has + new > max {
            let message = format!("the session has {has} topics, and the request adds {new}: at most {max}");
            return Err(Refusal::new(Code::TooManyTopics, message));
        }
        Ok(())
    }

    /// The indexes of all topics that a session has or is about to have.
    pub(crate) fn topics_of(&self, key: usize) -> HashSet<u32> {
        let session = &self.sessions[key];
        let joining = session.joins.iter().flat_map(|j| j.topics.iter().map(|w| w.topic));
        session.subs.iter().map(|s| s.topic).chain(joining).collect()
    }

    /// Remembers a pattern with `*`.
    fn wish(&mut self, key: usize, pattern: Pattern, options: Options, after: Option<u64>, ahead: Option<u64>) {
        let position = self.position;
        let wishes = &mut self.sessions[key].wishes;
        if let Some(old) = wishes.iter_mut().find(|w| w.pattern == pattern) {
            old.options = options;
            old.since = after.unwrap_or(old.since);
            return;
        }
        let since = after.or(ahead).unwrap_or(position);
        self.want(&pattern);
        self.sessions[key].wishes.push(Wish { pattern, options, since });
    }

    /// A request takes over a topic that the session has: returns up to which place its events have been sent, if each
    /// of them was to be, and whether its state has not been shown yet. `None` if the session has it by a more exact
    /// pattern.
    fn take_over(&mut self, key: usize, index: u32, exactness: u8) -> Option<(Option<u64>, bool)> {
        if let Some(at) = self.sessions[key].subs.iter().position(|s| s.topic == index) {
            if self.sessions[key].subs[at].exactness > exactness {
                return None;
            }
            let (place, unseen) = (self.delivered(key, at), self.is_unseen(key, at));
            self.drop_sub(key, at);
            self.sessions[key].floor = self.position;
            return Some((place, unseen));
        }
        let joins = &mut self.sessions[key].joins;
        let (join, at) = joins.iter_mut().find_map(|j| {
            let at = j.topics.iter().position(|w| w.topic == index)?;
            Some((j, at))
        })?;
        if join.topics[at].exactness > exactness {
            return None;
        }
        let wanted = join.topics.swap_remove(at);
        self.drop_wanted(&wanted);
        Some((wanted.after, wanted.unseen || wanted.options.conflate))
    }

    /// Has a subscription not shown its state yet, or not every event since?
    fn is_unseen(&self, key: usize, at: usize) -> bool {
        let session = &self.sessions[key];
        session.subs[at].fresh || session.options_of(at).conflate
    }

    /// Drops older events (and gaps) that wait to be sent, of topics that are no longer wanted or begin elsewhere.
    fn forget_backlog(&mut self, key: usize, topics: &HashSet<u32>) {
        if topics.is_empty() {
            return;
        }
        let stays = |topic: &Topic| self.index.get(topic).is_none_or(|i| !topics.contains(i));
        let session = &mut self.sessions[key];
        session.backlog.retain(|(f, _)| stays(&f.event.topic));
        session.before.retain(|b| !matches!(b, Beginning::Gap(Some(topic)) if !stays(topic)));
    }

    /// Older events that wait to be sent look as the topic's new options say.
    fn narrow_backlog(&mut self, key: usize, topics: &[Wanted]) {
        if self.sessions[key].backlog.is_empty() {
            return;
        }
        let wanted: HashMap<u32, (Fields, bool)> = topics
            .iter()
            .map(|w| (w.topic, (w.options.fields, w.is_closed_only(&self.topics[w.topic as usize]))))
            .collect();
        let index = &self.index;
        self.sessions[key].backlog.retain_mut(|(frame, fields)| {
            let Some((new, closed_only)) = index.get(&*frame.event.topic).and_then(|i| wanted.get(i)) else {
                return true;
            };
            *fields = *new;
            // Of a bar whose every event was wanted before, what was running is past.
            !closed_only || frame.event.is_closed_bar()
        });
    }

    fn unsubscribe(&mut self, key: usize, topics: &[String], now: Time) -> Result<(), Refusal> {
        let max = self.limits.session_topics_max;
        if topics.len() > max {
            let n = topics.len();
            return Err(Refusal::new(Code::TooManyTopics, format!("{n} topics in one request; at most {max}")));
        }
        let patterns: Vec<Pattern> = topics
            .iter()
            .map(|text| text.parse().map_err(|e: TopicError| bad(e.to_string())))
            .collect::<Result<_, Refusal>>()?;
        // Topics that another pattern of the session matches as well go on with that one's options.
        let (mut left, mut kept) = (Vec::new(), Vec::new());
        // Whose older events are not to be sent any more.
        let mut gone = HashSet::new();
        patterns.iter().for_each(|pattern| self.unwish(key, pattern));
        for pattern in &patterns {
            let exact = pattern.exact().map(|topic| self.index.get(&topic).copied());
            let leaves = |topics: &[crate::topic::TopicState], index: u32, exactness: u8| match exact {
                Some(wanted) => exactness == 3 && wanted == Some(index),
                None => exactness == pattern.exactness() && pattern.matches(&topics[index as usize].topic),
            };
            let mut at = 0;
            while let Some(sub) = self.sessions[key].subs.get(at) {
                if leaves(&self.topics, sub.topic, sub.exactness) {
                    left.push(self.part_from(key, at));
                } else {
                    at += 1;
                }
            }
            let from = left.len();
            for join in &mut self.sessions[key].joins {
                left.extend(join.topics.extract_if(.., |w| leaves(&self.topics, w.topic, w.exactness)));
            }
            left[from..].iter().for_each(|wanted| self.release(wanted));
        }
        for wanted in left {
            if wanted.exactness == 3 {
                self.unwant_topic(wanted.topic);
            }
            let topic = Arc::clone(&self.topics[wanted.topic as usize].topic);
            match self.wish_for(key, &topic) {
                Some((exactness, options, _)) => {
                    let every = options.goes_on(topic.channel);
                    let after = wanted.after.filter(|_| every);
                    if !every {
                        gone.insert(wanted.topic);
                    }
                    let unseen = wanted.unseen || wanted.options.conflate;
                    kept.push(Wanted { exactness, options, after, have: None, unseen, ..wanted });
                }
                None => drop(gone.insert(wanted.topic)),
            }
        }
        self.forget_backlog(key, &gone);
        self.narrow_backlog(key, &kept);
        self.push_unasked(key, kept);
        self.advance_joins(key, now);
        Ok(())
    }

    /// Forgets a pattern with `*`.
    pub(crate) fn unwish(&mut self, key: usize, pattern: &Pattern) {
        let wishes = &mut self.sessions[key].wishes;
        if let Some(at) = wishes.iter().position(|w| w.pattern == *pattern) {
            wishes.remove(at);
            self.unwant(pattern);
        }
    }
}

fn bad(message: impl Into<String>) -> Refusal {
    Refusal::new(Code::BadRequest, message)
}

fn options_of(request: &Subscribe) -> Result<Options, Refusal> {
    let fields = match &request.fields {
        None => Fields::ALL,
        Some(names) => Fields::of(names).map_err(|name| bad(format!("no event has a field `{name}`")))?,
    };
    if request.delivery.as_deref().is_some_and(|d| d != "datagram") {
        return Err(bad("`delivery` can only be \"datagram\""));
    }
    let interval_nanos = interval_of(request.max_rate)?;
    let datagram = request.delivery.is_some();
    Ok(Options { interval_nanos, fields, conflate: request.conflate.unwrap_or(true), datagram })
}

/// Nanoseconds between two updates for a rate a second; 0 for none.
fn interval_of(max_rate: Option<f64>) -> Result<i64, Refusal> {
    match max_rate {
        None | Some(0.0) => Ok(0),
        Some(rate) if (0.001..=1e6).contains(&rate) => Ok((1e9 / rate) as i64),
        Some(rate) => {
            Err(bad(format!("max_rate is {rate}: expected updates a second, from 0.001 to 1000000, or 0 for no limit")))
        }
    }
}

/// The bucket of a limit in kilobits a second; none for 0.
fn bucket_of(kbps: f64, now: Time) -> Result<Option<Bucket>, Refusal> {
    match kbps {
        0.0 => Ok(None),
        _ if (1.0..=1e8).contains(&kbps) => Ok(Some(Bucket::new(kbps, now))),
        _ => {
            Err(bad(format!("max_kbps is {kbps}: expected kilobits a second, from 1 to 100000000, or 0 for no limit")))
        }
    }
}
