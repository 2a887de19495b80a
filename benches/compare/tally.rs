//! What the readers of a crowd have received: delays, what is missing, and how old their state is.

use memchr::memmem::Finder;

use crate::feed::Feed;
use crate::histogram::Histogram;
use crate::wire::{Sink, number};

/// What one reader knows of its topics.
pub(crate) struct Seen {
    /// The topics' numbers go up by one from here, and begin again behind the last.
    first: usize,
    /// The scheduled time of the last event of each topic, in microseconds; 0 before the first.
    last: Box<[i64]>,
    /// Snapshots and notices so far: the reader is served once it has as many as it has topics.
    pub(crate) snapshots: u32,
}

impl Seen {
    pub(crate) fn new(first: usize, topics: usize) -> Self {
        Self { first, last: vec![0; topics].into(), snapshots: 0 }
    }
}

/// What all readers of a crowd have received.
#[derive(Clone)]
pub(crate) struct Tally {
    pub(crate) bytes: u64,
    pub(crate) snapshots: u64,
    pub(crate) quotes: u64,
    pub(crate) trades: u64,
    /// Events of a topic between two that a reader got.
    pub(crate) quotes_missing: u64,
    pub(crate) trades_missing: u64,
    /// From the time at which the event should have been published (open loop: a late publisher counts) to its receipt.
    pub(crate) from_schedule: Histogram,
    /// From `pub` to receipt.
    pub(crate) from_pub: Histogram,
    /// How long the newest quote that a reader does not have yet has been out, over all readers and topics, sampled.
    pub(crate) state_age: Histogram,
}

impl Tally {
    fn new() -> Self {
        Self {
            bytes: 0,
            snapshots: 0,
            quotes: 0,
            trades: 0,
            quotes_missing: 0,
            trades_missing: 0,
            from_schedule: Histogram::new(),
            from_pub: Histogram::new(),
            state_age: Histogram::new(),
        }
    }

    pub(crate) fn events(&self) -> u64 {
        self.quotes + self.trades
    }
}

/// The tally, and what it takes to fill it.
pub(crate) struct Watch {
    pub(crate) tally: Tally,
    feed: Feed,
    topic: Finder<'static>,
    kind: Finder<'static>,
    ts: Finder<'static>,
    published: Finder<'static>,
}

impl Watch {
    pub(crate) fn new(feed: Feed) -> Self {
        Self {
            tally: Tally::new(),
            feed,
            topic: Finder::new(b"\"topic\":\""),
            kind: Finder::new(b"\"kind\":\""),
            ts: Finder::new(b"\"ts\":"),
            published: Finder::new(b"\"pub\":"),
        }
    }

    pub(crate) fn reset(&mut self) {
        self.tally = Tally::new();
    }

    /// Looks at how old each reader's state is.
    pub(crate) fn sample<'a>(&mut self, readers: impl Iterator<Item = &'a Seen>, now: i64) {
        let period = self.feed.quote_period_micros();
        for seen in readers {
            for (slot, last) in seen.last.iter().enumerate() {
                if *last != 0 && !self.feed.is_trade((seen.first + slot) % self.feed.topics()) {
                    self.tally.state_age.record((now - last - period).max(0) as u64);
                }
            }
        }
    }

    /// Is there a quote topic of which this reader has no event that was due after `since`?
    pub(crate) fn is_behind(&self, seen: &Seen, since: i64) -> bool {
        let quotes = seen
            .last
            .iter()
            .enumerate()
            .filter(|(slot, last)| **last != 0 && !self.feed.is_trade((seen.first + slot) % self.feed.topics()));
        quotes.into_iter().any(|(_, last)| *last <= since)
    }

    /// The sink of one reader's bytes.
    pub(crate) fn of<'a>(&'a mut self, seen: &'a mut Seen) -> Of<'a> {
        Of { watch: self, seen }
    }

    fn event(&mut self, seen: &mut Seen, topic: usize, [ts, published]: [i64; 2], now: i64) {
        let trade = self.feed.is_trade(topic);
        let tally = &mut self.tally;
        if trade {
            tally.trades += 1;
        } else {
            tally.quotes += 1;
        }
        tally.from_schedule.record(u64::try_from(now - ts).unwrap_or(0));
        tally.from_pub.record(u64::try_from(now - published).unwrap_or(0));
        let topics = self.feed.topics();
        let slot = (topic + topics - seen.first) % topics;
        let Some(last) = seen.last.get_mut(slot) else { return };
        if *last != 0 {
            let period = if trade { self.feed.trade_period_micros() } else { self.feed.quote_period_micros() };
            // Times are whole microseconds and periods are much longer: the nearest whole number is meant.
            let missing = ((ts - *last + period / 2) / period - 1).max(0) as u64;
            if trade {
                tally.trades_missing += missing;
            } else {
                tally.quotes_missing += missing;
            }
        }
        *last = ts;
    }
}

/// See [`Watch::of`].
pub(crate) struct Of<'a> {
    watch: &'a mut Watch,
    seen: &'a mut Seen,
}

impl Sink for Of<'_> {
    fn bytes(&mut self, count: usize) {
        self.watch.tally.bytes += count as u64;
    }

    fn json(&mut self, mut text: &[u8], now: i64) {
        // The keys come in this order: the contract's own, which the peers' publisher keeps to.
        while let Some(at) = self.watch.topic.find(text) {
            text = &text[at + 9..];
            // quote/bench/B00001-USD: the digits are at a fixed place.
            let topic = number(text.get(13..18).unwrap_or_default()) as usize;
            let Some(at) = self.watch.kind.find(text) else { return };
            text = &text[at + 8..];
            let update = text.first() == Some(&b'u');
            let Some(at) = self.watch.ts.find(text) else { return };
            text = &text[at + 5..];
            let ts = number(text);
            let Some(at) = self.watch.published.find(text) else { return };
            text = &text[at + 6..];
            if update {
                self.watch.event(self.seen, topic, [ts, number(text)], now);
            } else {
                self.watch.tally.snapshots += 1;
                self.seen.snapshots += 1;
            }
        }
    }

    fn protobuf(&mut self, _: &[u8], _: i64) {}
}
