//! One hub between an upstream and some readers, and what may happen to them.

use ticker_market::{Class, Time};
use ticker_proto::message::{Limit, Request, Subscribe, Unsubscribe};
use ticker_proto::{Code, Form};
use ticker_session::{Hub, Limits, Mode, Outgoing, SessionId};

use crate::reader::{Asked, Reader, Tapes};
use crate::tape::{Tape, instrument, topic};
use crate::upstream::Upstream;

/// Everything small, so that every limit is met.
pub(crate) fn small_limits() -> Limits {
    Limits {
        session_topics_max: 64,
        session_patterns_max: 8,
        sessions_max: 64,
        backlog_events_max: 40,
        book_updates_max: 6,
        book_levels_max: 40,
        requests_per_second_max: 1_000_000,
        backfill_page_events: 7,
        recent_events_max: 20,
        heartbeat_ms: 500,
        cursor_ahead_ms_max: 2_000,
    }
}

pub(crate) struct World {
    pub(crate) tapes: Tapes,
    pub(crate) epoch: String,
    pub(crate) epochs: u32,
    pub(crate) hub: Hub,
    heartbeat_ms: u32,
    pub(crate) upstream: Upstream,
    pub(crate) readers: Vec<Reader>,
    pub(crate) now: Time,
    pub(crate) plan: Vec<Outgoing>,
    /// A topic of which so many more events come in the midst of passes, one after each reader's turn.
    pub(crate) interrupting: Option<&'static str>,
    pub(crate) interruptions: usize,
    pub(crate) ids: Vec<SessionId>,
    /// Of each reader: when its poll is answered with nothing, and the cursor that the last one gave.
    pub(crate) polls: Vec<(Time, Option<u64>, bool)>,
    pub(crate) slow_closings: usize,
    pub(crate) passes: usize,
    pub(crate) named: usize,
}

pub(crate) const INSTRUMENTS: [(&str, &str); 4] = [("va", "AAA"), ("va", "BBB"), ("vb", "AAA"), ("vb", "CCC")];

impl World {
    pub(crate) fn new(limits: Limits) -> Self {
        let mut world = Self {
            tapes: Tapes::new(),
            epoch: String::new(),
            epochs: 0,
            heartbeat_ms: limits.heartbeat_ms,
            hub: Hub::new(limits),
            upstream: Upstream::new(),
            readers: Vec::new(),
            now: Time::from_millis(1_700_000_000_000),
            plan: Vec::new(),
            interrupting: None,
            interruptions: 0,
            ids: Vec::new(),
            polls: Vec::new(),
            slow_closings: 0,
            passes: 0,
            named: 0,
        };
        world.new_epoch(2);
        world
    }

    /// A world whose limits are the usual ones.
    pub(crate) fn usual() -> Self {
        Self::new(Limits::default())
    }

    pub(crate) fn tape(&mut self) -> &mut Tape {
        self.tapes.get_mut(&self.epoch).expect("there is always one")
    }

    pub(crate) fn tape_ref(&self) -> &Tape {
        &self.tapes[&self.epoch]
    }

    pub(crate) fn new_epoch(&mut self, instruments: usize) {
        self.epochs += 1;
        self.epoch = format!("e{}", self.epochs);
        let mut tape = Tape::new(&self.epoch, u64::from(self.epochs % 3) * 50, u64::from(self.epochs));
        for (venue, symbol) in &INSTRUMENTS[..instruments] {
            tape.announce(instrument(venue, symbol));
        }
        self.readers.iter_mut().for_each(Reader::epoch_changed);
        self.upstream.anew(&tape, &mut self.hub, &tape.instruments.clone(), self.now);
        self.tapes.insert(self.epoch.clone(), tape);
        self.appeared();
    }

    /// The stream breaks; the fanout cannot go on where it was.
    pub(crate) fn anew(&mut self) {
        self.readers.iter_mut().for_each(Reader::began_anew);
        let tape = &self.tapes[&self.epoch];
        self.upstream.anew(tape, &mut self.hub, &tape.instruments, self.now);
        self.appeared();
    }

    pub(crate) fn resume(&mut self) {
        self.upstream.resume(&self.tapes[&self.epoch], &mut self.hub, self.now);
    }

    fn appeared(&mut self) {
        for instrument in std::mem::take(&mut self.upstream.announced) {
            for topic in instrument.topics() {
                self.readers.iter_mut().for_each(|r| r.appeared(&topic));
            }
        }
    }

    pub(crate) fn happen(&mut self, name: &str) {
        let now = self.now;
        self.tape().happen(&topic(name), now);
    }

    pub(crate) fn deliver(&mut self, places: usize) {
        self.upstream.deliver(&self.tapes[&self.epoch], &mut self.hub, places, self.now);
        self.upstream.take(&mut self.hub);
        self.appeared();
    }

    pub(crate) fn change(&mut self) {
        self.upstream.change(&self.tapes[&self.epoch], &mut self.hub, self.now);
        self.appeared();
        for topic in std::mem::take(&mut self.upstream.removed) {
            self.readers.iter_mut().filter(|r| r.views.contains_key(&topic)).for_each(Reader::began_anew);
        }
    }

    pub(crate) fn backfill(&mut self, which: usize, fails: bool) {
        self.upstream.backfill(&self.tapes[&self.epoch], &mut self.hub, which, fails, self.now);
    }

    pub(crate) fn reader(&mut self, name: &str, form: Form) -> usize {
        let mut reader = Reader::new(name, form, Mode::Stream);
        reader.open(&mut self.hub, self.now);
        self.readers.push(reader);
        self.polls.push((self.now, None, false));
        self.readers.len() - 1
    }

    pub(crate) fn poller(&mut self, name: &str) -> usize {
        self.readers.push(Reader::new(name, Form::Json, Mode::Once));
        self.polls.push((self.now, None, false));
        self.readers.len() - 1
    }

    pub(crate) fn subscribe(
        &mut self,
        at: usize,
        mut request: Subscribe,
    ) -> Result<u64, ticker_session::catalogue::Refusal> {
        let reader = &mut self.readers[at];
        let Some(id) = reader.id else { return Ok(0) };
        request.id = reader.next_request();
        if std::env::var_os("SESSION_TRACE").is_some() {
            eprintln!("    {}: {request:?}", reader.name);
        }
        self.hub.request(id, Request::Subscribe(request.clone()), self.now)?;
        reader.subscribed(&self.hub, &request);
        Ok(request.id)
    }

    pub(crate) fn unsubscribe(&mut self, at: usize, topics: &[&str]) {
        let reader = &mut self.readers[at];
        let Some(id) = reader.id else { return };
        let topics: Vec<String> = topics.iter().map(|t| (*t).to_owned()).collect();
        let request = Unsubscribe { id: reader.next_request(), topics: topics.clone() };
        self.hub.request(id, Request::Unsubscribe(request), self.now).expect("good");
        reader.unsubscribed(&topics);
    }

    pub(crate) fn limit(&mut self, at: usize, max_rate: Option<f64>, max_kbps: Option<f64>) {
        let reader = &mut self.readers[at];
        let Some(id) = reader.id else { return };
        let request = Limit { id: 0, max_rate, max_kbps };
        self.hub.request(id, Request::Limit(request), self.now).expect("good");
        if let Some(rate) = max_rate {
            reader.views.values_mut().for_each(|v| v.limited(rate));
            reader.wishes.iter_mut().for_each(|w| w.1.max_rate = Some(rate));
        }
    }

    /// What the owner does in one pass of its loop. Returns whether there was anything to do.
    pub(crate) fn pass(&mut self) -> bool {
        self.pass_cut(usize::MAX, usize::MAX)
    }

    /// The same; of what reader `victim` is sent only `cut` messages arrive.
    pub(crate) fn pass_cut(&mut self, victim: usize, cut: usize) -> bool {
        self.passes += 1;
        self.upstream.take(&mut self.hub);
        let mut ids = std::mem::take(&mut self.ids);
        self.hub.take_ready(&mut ids);
        for id in &ids {
            let Some(at) = self.readers.iter().position(|r| r.id == Some(*id)) else { continue };
            if self.readers[at].mode == Mode::Once {
                self.answer(at);
                continue;
            }
            let reader = &mut self.readers[at];
            self.hub.plan(*id, reader.budget, self.now, &mut self.plan);
            if self.plan.is_empty() {
                continue;
            }
            let taken = if reader.frozen { 0 } else { reader.takes.min(self.plan.len()) };
            let cut = if victim == at { cut } else { usize::MAX };
            reader.receive(&self.tapes, &self.plan[..taken], cut, self.now);
            if let Some(closing) = self.hub.commit(*id, &mut self.plan, taken, reader.frozen, self.now) {
                let seq = closing.cursor.split_once('-').expect("a cursor").1.parse().expect("a cursor");
                if cut == usize::MAX {
                    reader.cursor_is_safe(&self.tapes, seq, "closing");
                }
                self.slow_closings += usize::from(closing.ending.code == Code::SlowConsumer);
                reader.closing = Some(closing);
                self.hub.close(*id);
                reader.id = None;
            }
            if let Some(name) = self.interrupting.filter(|_| self.interruptions > 0) {
                self.interruptions -= 1;
                self.happen(name);
                self.deliver(usize::MAX);
                self.upstream.take(&mut self.hub);
            }
        }
        let any = !ids.is_empty();
        self.ids = ids;
        self.upstream.take(&mut self.hub);
        any
    }

    /// Passes until there is nothing left to do.
    pub(crate) fn passes(&mut self) {
        for _ in 0..10_000 {
            if !self.pass() {
                return;
            }
        }
        panic!("there is always something to do");
    }

    /// Upstream does all that is asked of it, and the readers take all that there is.
    pub(crate) fn settle(&mut self) {
        for _ in 0..10_000 {
            self.deliver(usize::MAX);
            self.passes();
            if !self.upstream.changes.is_empty() {
                self.change();
            } else if !self.upstream.backfills.is_empty() {
                self.backfill(0, false);
            } else if self.upstream.told == self.tape_ref().head && !self.hub.has_ready() {
                return;
            }
        }
        panic!("upstream is asked for ever more");
    }

    /// Time passes, and the hub is called whenever it wants to be.
    pub(crate) fn pass_time(&mut self, millis: i64) {
        let until = self.now.plus_millis(millis);
        while let Some(at) = self.hub.next_timer().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.hub.tick(self.now);
            self.passes();
        }
        self.now = until;
        self.hub.tick(self.now);
        for at in 0..self.readers.len() {
            if self.readers[at].mode == Mode::Once && self.readers[at].id.is_some() {
                self.answer(at);
            }
        }
        self.passes();
    }

    pub(crate) fn thaw(&mut self, at: usize) {
        self.readers[at].frozen = false;
        if let Some(id) = self.readers[at].id {
            self.hub.writable(id);
        }
    }

    /// A long poll begins.
    pub(crate) fn poll(&mut self, at: usize, topics: Vec<String>, wait_ms: i64) {
        if self.readers[at].id.is_some() {
            return;
        }
        let cursor = self.polls[at].1.map(|seq| format!("{}-{seq}", self.readers[at].epoch));
        let epoch = self.readers[at].epoch.clone();
        self.readers[at].open(&mut self.hub, self.now);
        if epoch != self.readers[at].epoch {
            self.readers[at].epoch_changed();
        }
        self.readers[at].wishes.clear();
        for view in self.readers[at].views.values_mut() {
            view.asked = Asked::default();
        }
        self.polls[at] = (self.now.plus_millis(wait_ms), None, cursor.is_some());
        let request = Subscribe { topics, from: cursor, ..Subscribe::default() };
        if self.subscribe(at, request).is_err() {
            self.hub.close(self.readers[at].id.take().expect("open"));
            return;
        }
        self.readers[at].events = 0;
        self.answer(at);
    }

    fn answer(&mut self, at: usize) {
        let Some(id) = self.readers[at].id else { return };
        self.hub.plan(id, usize::MAX, self.now, &mut self.plan);
        let before = self.readers[at].notices.len();
        self.readers[at].receive(&self.tapes, &self.plan, usize::MAX, self.now);
        let taken = self.plan.len();
        let ended = self.hub.commit(id, &mut self.plan, taken, false, self.now).is_some();
        let reader = &mut self.readers[at];
        let told = reader.notices[before..].iter().any(|n| !matches!(n, ticker_proto::Notice::Subscribed { .. }));
        let news = reader.events > 0 || told;
        let (deadline, _, waits) = self.polls[at];
        if !(ended || (self.hub.is_settled(id) && (news || !waits)) || self.now >= deadline) {
            return;
        }
        let cursor = self.hub.cursor(id).expect("open");
        let (epoch, seq) = cursor.split_once('-').expect("a cursor");
        assert_eq!(epoch, reader.epoch);
        let seq = seq.parse().expect("a cursor");
        reader.cursor_is_safe(&self.tapes, seq, "poll");
        for (topic, view) in &reader.views {
            if topic.channel.class() == Class::Event || topic.channel.is_bar() {
                assert!(view.pos <= Some(seq), "{}: {topic} would be repeated after {seq}", reader.name);
            }
        }
        self.polls[at].1 = Some(seq);
        self.hub.close(id);
        reader.id = None;
    }

    /// The connection breaks after so many messages of the next plan; the reader comes back with its cursor.
    pub(crate) fn cut(&mut self, at: usize, messages: usize) {
        self.pass_cut(at, messages);
        self.reconnect(at);
    }

    pub(crate) fn reconnect(&mut self, at: usize) {
        if let Some(id) = self.readers[at].id.take() {
            self.hub.close(id);
        }
        if self.readers[at].mode == Mode::Once {
            // What an answer that never came brought, the reader has not had.
            let name = self.readers[at].name.clone();
            self.readers[at] = Reader::new(&name, Form::Json, Mode::Once);
            self.polls[at].1 = None;
            return;
        }
        let reader = &mut self.readers[at];
        let (epoch, mut cursor) = (reader.epoch.clone(), reader.resume_cursor());
        let mut earliest = false;
        if reader.form != Form::Sse || cursor.is_none() {
            for pending in reader.pending.values().filter(|p| p.epoch == epoch) {
                earliest |= pending.earliest;
                cursor = pending.from.into_iter().chain(cursor).min();
            }
        }
        let mut groups: Vec<(Asked, Vec<String>)> = Vec::new();
        let mut put = |asked: &Asked, text: String| match groups.iter_mut().find(|(a, _)| a == asked) {
            Some((_, topics)) => topics.push(text),
            None => groups.push((asked.clone(), vec![text])),
        };
        for (topic, view) in &reader.views {
            if view.exactness() == 3 && self.hub.catalogue().check(topic).is_ok() {
                put(&view.asked, topic.to_string());
            }
        }
        reader.wishes.iter().for_each(|(p, asked, _)| put(asked, p.to_string()));
        reader.wishes.clear();
        reader.parts.clear();
        reader.views.values_mut().for_each(|v| v.forget_request());
        reader.countable = false;
        reader.notices.clear();
        reader.open(&mut self.hub, self.now);
        let from = match cursor {
            _ if earliest => Some("earliest".to_owned()),
            Some(seq) => Some(format!("{epoch}-{seq}")),
            None => None,
        };
        for (asked, topics) in groups {
            let request = Subscribe {
                topics,
                from: from.clone(),
                max_rate: asked.max_rate,
                fields: asked.fields,
                conflate: asked.conflate,
                ..Subscribe::default()
            };
            self.subscribe(at, request).expect("it was good before");
        }
        self.readers[at].views.retain(|_, v| v.is_requested());
    }

    /// Everything moves freely until nothing moves any more: then every reader must have what there is. Only sessions
    /// that the hub lists are looked at, so a wake-up that is lost shows.
    pub(crate) fn converge(&mut self) {
        for at in 0..self.readers.len() {
            let reader = &mut self.readers[at];
            (reader.takes, reader.budget) = (usize::MAX, 64 * 1024);
            let closed = reader.id.is_none() && reader.mode == Mode::Stream;
            self.thaw(at);
            if closed {
                self.reconnect(at);
            }
        }
        for _ in 0..40 {
            self.settle();
            self.pass_time(600);
        }
        self.settle();
        for at in 0..self.readers.len() {
            if self.readers[at].id.is_none() && self.readers[at].mode == Mode::Stream {
                self.reconnect(at);
                self.settle();
            }
        }
        for _ in 0..10 {
            self.settle();
            self.pass_time(600);
        }
        for reader in self.readers.iter().filter(|r| r.mode == Mode::Stream) {
            reader.converged(&self.tapes, &self.epoch, self.heartbeat_ms < 20_000);
        }
    }

    /// Everybody leaves: nothing of them is left.
    pub(crate) fn leave(&mut self) {
        for reader in &mut self.readers {
            if let Some(id) = reader.id.take() {
                self.hub.close(id);
            }
        }
        self.upstream.take(&mut self.hub);
        assert!(self.upstream.wants.is_empty(), "still wanted: {:?}", self.upstream.wants);
        self.audit();
    }

    pub(crate) fn audit(&self) {
        if let Err(why) = self.hub.audit() {
            panic!("{why}");
        }
    }
}
