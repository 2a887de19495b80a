//! What a fanout is to a hub: one stream in the order of the tape, changed by what the hub needs.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use ticker_market::{Instrument, Pattern, Time, Topic};
use ticker_session::{Hub, Need, Page};

use crate::tape::{Entry, Tape};

pub(crate) struct Upstream {
    /// Everything up to here has been told.
    pub(crate) told: u64,
    at: usize,
    /// How often each pattern is wanted: never negative, never twice.
    pub(crate) wants: HashMap<Pattern, i32>,
    pub(crate) carried: BTreeSet<Topic>,
    pub(crate) changes: VecDeque<Need>,
    pub(crate) backfills: VecDeque<Need>,
    known: Vec<Instrument>,
    /// Instruments that the hub has just been told of.
    pub(crate) announced: Vec<Instrument>,
    pub(crate) fetched: usize,
    /// Topics that the hub has just been told are no longer carried.
    pub(crate) removed: Vec<Topic>,
}

impl Upstream {
    pub(crate) fn new() -> Self {
        Self {
            told: 0,
            at: 0,
            wants: HashMap::new(),
            carried: BTreeSet::new(),
            changes: VecDeque::new(),
            backfills: VecDeque::new(),
            known: Vec::new(),
            announced: Vec::new(),
            fetched: 0,
            removed: Vec::new(),
        }
    }

    /// Takes what the hub needs.
    pub(crate) fn take(&mut self, hub: &mut Hub) {
        for need in hub.take_needs() {
            match &need {
                Need::Want(pattern) => {
                    let count = self.wants.entry(pattern.clone()).or_insert(0);
                    *count += 1;
                    assert_eq!(*count, 1, "{pattern} is wanted twice");
                    self.changes.push_back(need);
                }
                Need::Unwant(pattern) => {
                    assert_eq!(self.wants.remove(pattern), Some(1), "{pattern} was not wanted");
                    self.changes.push_back(need);
                }
                Need::Backfill { .. } => self.backfills.push_back(need),
            }
        }
    }

    fn wanted(&self, topic: &Topic) -> bool {
        self.wants.keys().any(|p| p.matches(topic)) && !self.is_pending(topic)
    }

    fn is_pending(&self, topic: &Topic) -> bool {
        self.changes.iter().any(|c| matches!(c, Need::Want(p) if p.matches(topic)))
            && !self
                .wants
                .keys()
                .any(|p| p.matches(topic) && !self.changes.iter().any(|c| matches!(c, Need::Want(q) if q == p)))
    }

    /// Tells the hub of so many places.
    pub(crate) fn deliver(&mut self, tape: &Tape, hub: &mut Hub, places: usize, now: Time) {
        let mut batch = Vec::new();
        for _ in 0..places {
            let Some(entry) = tape.entries.get(self.at) else { break };
            self.at += 1;
            self.told = entry.seq();
            match entry {
                Entry::Events(_, frames) => {
                    batch.extend(frames.iter().filter(|f| self.carried.contains(&f.event.topic)).cloned());
                }
                Entry::Instrument(_, instrument) => {
                    hub.publish(&std::mem::take(&mut batch), now);
                    self.known.push(instrument.clone());
                    self.announced.push(instrument.clone());
                    hub.instruments(vec![instrument.clone()], now);
                    hub.progress(self.told, now);
                    let new: Vec<Topic> = instrument.topics().filter(|t| self.wanted(t)).collect();
                    self.carried.extend(new.iter().cloned());
                    if !new.is_empty() {
                        hub.added(new.into_iter().map(|t| (t, 0, None)).collect(), false, now);
                    }
                }
            }
        }
        hub.publish(&batch, now);
        if self.told.is_multiple_of(3) || self.at == tape.entries.len() {
            hub.progress(self.told, now);
        }
    }

    /// At the head: takes a change of interest in.
    pub(crate) fn change(&mut self, tape: &Tape, hub: &mut Hub, now: Time) {
        self.take(hub);
        if self.at < tape.entries.len() {
            self.deliver(tape, hub, usize::MAX, now);
        }
        match self.changes.pop_front() {
            Some(Need::Want(pattern)) => {
                let topics: Vec<Topic> = self
                    .known
                    .iter()
                    .flat_map(Instrument::topics)
                    .filter(|t| pattern.matches(t) && !self.carried.contains(t))
                    .collect();
                self.carried.extend(topics.iter().cloned());
                let added = topics
                    .into_iter()
                    .map(|t| {
                        let last = tape.events_of(&t).last().map_or(0, |f| f.event.seq);
                        let snapshot = tape.snapshot(&t);
                        (t, last, snapshot)
                    })
                    .collect();
                hub.added(added, false, now);
            }
            Some(Need::Unwant(_)) => {
                let (keep, gone): (Vec<Topic>, Vec<Topic>) =
                    std::mem::take(&mut self.carried).into_iter().partition(|t| self.wanted(t));
                self.carried.extend(keep);
                hub.removed(&gone);
                self.removed.extend(gone);
            }
            _ => {}
        }
        self.take(hub);
    }

    /// Answers a request for older events.
    pub(crate) fn backfill(&mut self, tape: &Tape, hub: &mut Hub, which: usize, fails: bool, now: Time) {
        self.take(hub);
        if self.backfills.is_empty() {
            return;
        }
        let which = which % self.backfills.len();
        let Some(Need::Backfill { ticket, topics, from, recent, limit }) = self.backfills.remove(which) else { return };
        self.fetched += 1;
        let page = if fails { Err("it broke".to_owned()) } else { Ok(page(tape, &topics, from, recent, limit)) };
        hub.backfilled(ticket, page, now);
        self.take(hub);
    }

    /// The stream broke and goes on without a hole.
    pub(crate) fn resume(&mut self, tape: &Tape, hub: &mut Hub, now: Time) {
        self.take(hub);
        hub.opened(&tape.epoch, self.told, true, now);
        let carried =
            self.carried.iter().map(|t| (t.clone(), tape.last_at(t, self.told).map_or(0, |f| f.event.seq), None));
        hub.added(carried.collect(), true, now);
    }

    /// The stream begins anew at the tape's head.
    pub(crate) fn anew(&mut self, tape: &Tape, hub: &mut Hub, instruments: &[Instrument], now: Time) {
        self.take(hub);
        self.at = tape.entries.len();
        self.told = tape.head;
        self.carried.clear();
        self.changes = self.wants.keys().map(|p| Need::Want(p.clone())).collect();
        self.changes.make_contiguous().sort_by_key(|n| format!("{n:?}"));
        self.known = instruments.to_vec();
        hub.opened(&tape.epoch, self.told, false, now);
        hub.instruments(instruments.to_vec(), now);
        self.announced.extend(instruments.iter().cloned());
        self.take(hub);
    }
}

fn page(tape: &Tape, topics: &[Arc<Topic>], from: Option<String>, recent: u32, limit: u32) -> Page {
    let mut page = Page { through: tape.head, ..Page::default() };
    let kept = |t: &Topic, after: u64| {
        let after = after.max(tape.evicted(t));
        tape.events_of(t).iter().filter(move |f| f.event.seq > after).cloned().collect::<Vec<_>>()
    };
    if let Some(from) = from {
        let after = match from.as_str() {
            "earliest" => 0,
            cursor => {
                let (epoch, seq) = cursor.split_once('-').expect("a cursor");
                if epoch != &*tape.epoch {
                    page.expired = topics.to_vec();
                    return page;
                }
                let seq = seq.parse().expect("a cursor");
                page.expired = topics.iter().filter(|t| tape.evicted(t) > seq).cloned().collect();
                seq
            }
        };
        let mut all: Vec<_> = topics.iter().flat_map(|t| kept(t, after)).collect();
        all.sort_by_key(|f| f.event.seq);
        for frame in all {
            if let Some(last) = page.frames.last().filter(|l| l.event.seq != frame.event.seq)
                && page.frames.len() >= limit as usize
            {
                page.through = last.event.seq;
                break;
            }
            page.frames.push(frame);
        }
    } else {
        assert!(recent > 0 && limit >= recent);
        for topic in topics {
            let mut all = kept(topic, 0);
            all.retain(|f| !topic.channel.is_bar() || f.event.is_closed_bar());
            page.frames.extend_from_slice(&all[all.len().saturating_sub(recent as usize)..]);
        }
        page.frames.sort_by_key(|f| f.event.seq);
    }
    page
}
