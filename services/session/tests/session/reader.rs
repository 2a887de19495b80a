//! A reader who checks every promise against the tape.

use std::collections::BTreeMap;

use ticker_market::{Book, Class, Event, Kind, Pattern, Time, Topic};
use ticker_proto::message::Subscribe;
use ticker_proto::{Form, Notice};
use ticker_session::{Closing, Hub, Mode, Opening, SessionId};

use crate::tape::Tape;

pub(crate) type Tapes = BTreeMap<String, Tape>;

/// What a subscription asked for.
#[derive(Clone, Default, PartialEq, Debug)]
pub(crate) struct Asked {
    pub(crate) conflate: Option<bool>,
    pub(crate) fields: Option<Vec<String>>,
    pub(crate) max_rate: Option<f64>,
}

/// One topic of the reader.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) asked: Asked,
    pub(crate) exactness: u8,
    /// The request that brought it.
    pub(crate) request: u64,
    pub(crate) every: bool,
    /// Of every event: had up to here. Of bars: of the closed ones, where only they are owed.
    pub(crate) pos: Option<u64>,
    /// It is a bar of which only the closed ones are owed: of one of which every event is wanted, until its state has come.
    pub(crate) closed_only: bool,
    pub(crate) gap: bool,
    /// Of states: the place of the newest event that was had.
    pub(crate) last: u64,
    /// A snapshot was had.
    pub(crate) shown: bool,
    pub(crate) valid: bool,
    pub(crate) book: Book,
    pub(crate) sent_at: Option<Time>,
    pub(crate) events: u64,
}

/// A request whose `subscribed` has not come.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) topics: Vec<Topic>,
    pub(crate) from: Option<u64>,
    pub(crate) earliest: bool,
    pub(crate) epoch: String,
}

impl View {
    /// Are there events that it must not miss?
    pub(crate) fn owes(&self) -> bool {
        self.every || self.closed_only
    }

    pub(crate) fn exactness(&self) -> u8 {
        self.exactness
    }

    /// The first update after a new limit may come at once.
    pub(crate) fn limited(&mut self, rate: f64) {
        self.asked.max_rate = Some(rate);
        self.sent_at = None;
    }

    /// The session that brought it is over.
    pub(crate) fn forget_request(&mut self) {
        (self.exactness, self.request, self.pos, self.gap) = (0, u64::MAX, None, false);
    }

    pub(crate) fn is_requested(&self) -> bool {
        self.request != u64::MAX
    }
}

#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) name: String,
    pub(crate) id: Option<SessionId>,
    pub(crate) form: Form,
    pub(crate) mode: Mode,
    pub(crate) epoch: String,
    pub(crate) views: BTreeMap<Topic, View>,
    pub(crate) wishes: Vec<(Pattern, Asked, u64)>,
    pub(crate) pending: BTreeMap<u64, Pending>,
    /// The reader's cursor, as promise 2 defines it.
    pub(crate) cursor: Option<u64>,
    pub(crate) sse_id: Option<u64>,
    pub(crate) notices: Vec<Notice>,
    pub(crate) closing: Option<Closing>,
    pub(crate) conflated_told: u64,
    pub(crate) conflated_seen: u64,
    /// Conflation can be counted to the last event: nothing began anew.
    pub(crate) countable: bool,
    pub(crate) gaps: u64,
    pub(crate) gap_all_allowed: bool,
    pub(crate) requests: u64,
    pub(crate) bytes: usize,
    pub(crate) events: u64,
    /// How its transport is: bytes for one plan, messages taken of it, and whether it takes any.
    pub(crate) budget: usize,
    pub(crate) takes: usize,
    pub(crate) frozen: bool,
    pub(crate) parts: Vec<Event>,
    pub(crate) asked: BTreeMap<u64, Vec<String>>,
    /// Something has come in this session.
    pub(crate) heard: bool,
    pub(crate) trace: bool,
    /// What came: topic, place, kind.
    pub(crate) log: Vec<(String, u64, Kind)>,
}

impl Reader {
    pub(crate) fn new(name: &str, form: Form, mode: Mode) -> Self {
        Self {
            name: name.to_owned(),
            id: None,
            form,
            mode,
            epoch: String::new(),
            views: BTreeMap::new(),
            wishes: Vec::new(),
            pending: BTreeMap::new(),
            cursor: None,
            sse_id: None,
            notices: Vec::new(),
            closing: None,
            conflated_told: 0,
            conflated_seen: 0,
            countable: true,
            gaps: 0,
            gap_all_allowed: false,
            requests: 0,
            bytes: 0,
            events: 0,
            budget: 64 * 1024,
            takes: usize::MAX,
            frozen: false,
            parts: Vec::new(),
            asked: BTreeMap::new(),
            heard: false,
            log: Vec::new(),
            trace: std::env::var_os("SESSION_TRACE").is_some(),
        }
    }

    pub(crate) fn open(&mut self, hub: &mut Hub, now: Time) {
        let opening = Opening { form: self.form, mode: self.mode };
        self.id = Some(hub.open(opening, now).expect("there is room"));
        let epoch = hub.epoch().expect("open").to_owned();
        if epoch != self.epoch {
            self.views.clear();
            self.cursor = None;
        }
        self.epoch = epoch;
        self.sse_id = None;
        self.pending.clear();
        (self.frozen, self.closing, self.heard) = (false, None, false);
    }

    pub(crate) fn next_request(&mut self) -> u64 {
        self.requests += 1;
        self.requests
    }

    /// What a `subscribe` that the hub took means.
    pub(crate) fn subscribed(&mut self, hub: &Hub, request: &Subscribe) {
        let asked = Asked { conflate: request.conflate, fields: request.fields.clone(), max_rate: request.max_rate };
        let mut from = None;
        let mut earliest = false;
        match request.from.as_deref() {
            Some("earliest") => (from, earliest) = (Some(0), true),
            Some(cursor) => {
                let (epoch, seq) = cursor.split_once('-').expect("a cursor");
                if Some(epoch) == hub.epoch() {
                    from = Some(seq.parse::<u64>().expect("a cursor"));
                } else {
                    self.gap_all_allowed = true;
                }
            }
            None => {}
        }
        let mut topics: BTreeMap<Topic, u8> = BTreeMap::new();
        for text in &request.topics {
            let pattern: Pattern = text.parse().expect("a pattern");
            match pattern.exact() {
                Some(topic) => drop(topics.insert(topic, 3)),
                None => {
                    for topic in hub.catalogue().matching(&pattern) {
                        let at = topics.entry(topic).or_insert(0);
                        *at = pattern.exactness().max(*at);
                    }
                    match self.wishes.iter_mut().find(|(p, ..)| *p == pattern) {
                        Some(old) => *old = (pattern, asked.clone(), from.unwrap_or(old.2)),
                        None => {
                            let cursor = self.id.and_then(|id| hub.cursor(id)).expect("open");
                            let cursor = cursor.split_once('-').expect("a cursor").1.parse().expect("a cursor");
                            let since = from.unwrap_or(hub.position().max(cursor));
                            self.wishes.push((pattern, asked.clone(), since));
                        }
                    }
                }
            }
        }
        self.asked.insert(request.id, request.topics.clone());
        let mut taken = Vec::new();
        for (topic, exactness) in topics {
            let old = self.views.get(&topic);
            if old.is_some_and(|v| v.exactness > exactness) {
                continue;
            }
            self.countable &= old.is_none();
            let mut view = self.view(&topic, &asked, exactness, request.id, from);
            view.gap |= earliest && view.owes();
            self.views.insert(topic.clone(), view);
            taken.push(topic);
        }
        let pending = Pending { topics: taken, from, earliest, epoch: hub.epoch().expect("open").to_owned() };
        self.pending.insert(request.id, pending);
    }

    /// A view of a topic that is subscribed to (again).
    fn view(&self, topic: &Topic, asked: &Asked, exactness: u8, request: u64, from: Option<u64>) -> View {
        let class = topic.channel.class();
        let every = class == Class::Event || asked.conflate == Some(false);
        let old = self.views.get(topic);
        let bar = topic.channel.is_bar();
        let goes_on = old.filter(|v| (v.every && every) || bar).and_then(|v| v.pos);
        let pos = if every || bar { from.or(goes_on) } else { None };
        let anew = from.is_none() && (goes_on.is_none() || old.is_some_and(|v| v.closed_only));
        let closed_only = bar && (!every || anew);
        let shown = every && !closed_only && pos.is_some() && old.is_some_and(|v| v.shown);
        View {
            asked: asked.clone(),
            exactness,
            request,
            every,
            pos,
            closed_only,
            gap: old.is_some_and(|v| v.gap) && from.is_none(),
            last: old.filter(|_| shown).map_or(0, |v| v.last),
            shown,
            valid: old.is_some_and(|v| v.valid && v.pos == pos),
            book: old.map(|v| v.book.clone()).unwrap_or_default(),
            sent_at: None,
            events: 0,
        }
    }

    /// An `unsubscribe` that the hub took.
    pub(crate) fn unsubscribed(&mut self, topics: &[String]) {
        let patterns: Vec<Pattern> = topics.iter().map(|t| t.parse().expect("a pattern")).collect();
        self.wishes.retain(|(p, ..)| !patterns.contains(p));
        let topics: Vec<Topic> = self.views.keys().cloned().collect();
        for topic in topics {
            let exactness = self.views[&topic].exactness;
            if patterns.iter().any(|p| p.exactness() == exactness && p.matches(&topic)) {
                self.countable = false;
                let best = self.wishes.iter().filter(|(p, ..)| p.matches(&topic)).max_by_key(|(p, ..)| p.exactness());
                match best.map(|(p, asked, _)| (p.exactness(), asked.clone())) {
                    None => drop(self.views.remove(&topic)),
                    Some((exactness, asked)) => {
                        let request = self.views[&topic].request;
                        let view = self.view(&topic, &asked, exactness, request, None);
                        self.views.insert(topic, view);
                    }
                }
            }
        }
    }

    /// An instrument appeared.
    pub(crate) fn appeared(&mut self, topic: &Topic) {
        if self.id.is_none() || self.views.contains_key(topic) {
            return;
        }
        let best = self.wishes.iter().filter(|(p, ..)| p.matches(topic)).max_by_key(|(p, ..)| p.exactness());
        if let Some((pattern, asked, since)) = best.cloned() {
            let every = topic.channel.class() == Class::Event || asked.conflate == Some(false);
            let from = (every || topic.channel.is_bar()).then_some(since);
            let view = self.view(topic, &asked, pattern.exactness(), 0, from);
            self.views.insert(topic.clone(), view);
        }
    }

    /// Upstream began anew in the same epoch: state topics begin with snapshots, in whose count nobody can see.
    pub(crate) fn began_anew(&mut self) {
        self.countable = false;
    }

    /// The cursor to resume with: over server-sent events the last id, else what promise 2 says.
    pub(crate) fn resume_cursor(&self) -> Option<u64> {
        if self.form == Form::Sse { self.sse_id } else { self.cursor }
    }
}
