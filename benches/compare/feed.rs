//! What is published: topics, rates, and the events in the order of their scheduled times. The same for every server.

use std::io::Write as _;

/// Topics and rates. Each topic's events come at equal distances, so a reader can tell what it has missed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Feed {
    pub(crate) quote_topics: usize,
    pub(crate) trade_topics: usize,
    /// Events a second over all topics.
    pub(crate) quotes_per_second: f64,
    pub(crate) trades_per_second: f64,
    /// Quote topics behind the others, which have a first value and nothing more. Only where there are no trades.
    pub(crate) quiet_topics: usize,
    /// So many neighbours of each channel have their events at the same time.
    pub(crate) burst: usize,
}

impl Feed {
    pub(crate) fn quotes(topics: usize, per_second: f64) -> Self {
        Self {
            quote_topics: topics,
            trade_topics: 0,
            quotes_per_second: per_second,
            trades_per_second: 0.0,
            quiet_topics: 0,
            burst: 1,
        }
    }

    pub(crate) fn topics(&self) -> usize {
        self.quote_topics + self.trade_topics + self.quiet_topics
    }

    /// Where there are as many of both, a reader of neighbouring topics has as many of both.
    pub(crate) fn is_trade(&self, topic: usize) -> bool {
        match (self.quote_topics, self.trade_topics) {
            (_, 0) => false,
            (0, _) => true,
            _ => topic % 2 == 1,
        }
    }

    pub(crate) fn events_per_second(&self) -> f64 {
        self.quotes_per_second + self.trades_per_second
    }

    pub(crate) fn quote_period_micros(&self) -> i64 {
        period(self.quote_topics, self.quotes_per_second)
    }

    pub(crate) fn trade_period_micros(&self) -> i64 {
        period(self.trade_topics, self.trades_per_second)
    }

    /// The name of a topic: all are equally long.
    pub(crate) fn topic(&self, number: usize) -> String {
        format!("{}/bench/{}", if self.is_trade(number) { "trade" } else { "quote" }, symbol(number))
    }

    /// The topics of a channel in the order in which their events come: always the same, and but for bursts no reader's
    /// neighbours are neighbours here, or whole batches would fall to a few readers.
    fn order(&self, trade: bool) -> Vec<usize> {
        let of = if trade { self.trade_topics } else { self.quote_topics };
        let mixed = self.quote_topics > 0 && self.trade_topics > 0;
        let order: Vec<usize> = (0..of).map(|at| if mixed { at * 2 + usize::from(trade) } else { at }).collect();
        // Fisher and Yates, with the constants of Knuth's MMIX. Bursts of both channels come at the same times.
        let mut state = 0x7469_636b_6572u64 + u64::from(trade && self.burst == 1);
        let mut bursts: Vec<usize> = (0..of.div_ceil(self.burst)).collect();
        for at in (1..bursts.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bursts.swap(at, (state >> 33) as usize % (at + 1));
        }
        bursts.iter().flat_map(|burst| order.chunks(self.burst).nth(*burst).unwrap_or_default()).copied().collect()
    }

    /// The first events of all topics, so that each has a value.
    pub(crate) fn first(&self, now_micros: i64) -> Vec<Event> {
        (0..self.topics())
            .map(|topic| Event { topic, trade: self.is_trade(topic), number: 0, ts: now_micros })
            .collect()
    }
}

fn period(topics: usize, per_second: f64) -> i64 {
    if per_second > 0.0 { (topics as f64 / per_second * 1e6).round().max(1.0) as i64 } else { i64::MAX / 4 }
}

/// The symbol of a topic's instrument.
pub(crate) fn symbol(number: usize) -> String {
    format!("B{number:05}-USD")
}

/// What is to be published.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) topic: usize,
    pub(crate) trade: bool,
    /// Rises by one with each event of the channel.
    pub(crate) number: u64,
    /// When it is to be published, in microseconds since 1970.
    pub(crate) ts: i64,
}

impl Event {
    /// A price and a size that change from event to event.
    pub(crate) fn price(&self) -> String {
        format!("{}.{}", 60_000 + self.number % 9_000, 11 + self.number % 8)
    }

    pub(crate) fn size(&self) -> String {
        format!("0.{}", 523 + self.number % 7 * 10)
    }

    /// The JSON that our edge sends for it, for the servers that only pass bytes on.
    pub(crate) fn json(&self, feed: &Feed, seq: u64, now_micros: i64, out: &mut Vec<u8>) {
        let (topic, price, size) = (feed.topic(self.topic), self.price(), self.size());
        let prev = seq.saturating_sub(feed.topics() as u64);
        let Self { ts, number, .. } = self;
        let head = format!(
            r#"{{"topic":"{topic}","seq":{seq},"prev":{prev},"kind":"update","ts":{ts},"recv":{now_micros},"pub":{now_micros}"#
        );
        let _ = out.write_all(head.as_bytes());
        let _ = if self.trade {
            write!(out, r#","price":"{price}","size":"{size}","side":"buy","trade_id":"{number}"}}"#)
        } else {
            write!(out, r#","bid":"{price}","bid_size":"{size}","ask":"70000.5","ask_size":"{size}"}}"#)
        };
    }
}

/// The events of a feed as their time comes.
pub(crate) struct Schedule {
    feed: Feed,
    start: i64,
    quotes: Vec<usize>,
    trades: Vec<usize>,
    next_quote: u64,
    next_trade: u64,
}

impl Schedule {
    pub(crate) fn new(feed: Feed, start_micros: i64) -> Self {
        let (quotes, trades) = (feed.order(false), feed.order(true));
        Self { feed, start: start_micros, quotes, trades, next_quote: 0, next_trade: 0 }
    }

    /// When the next event is due, in microseconds since 1970.
    pub(crate) fn next_due(&self) -> i64 {
        self.due(false).min(self.due(true))
    }

    /// A topic's events are exactly a period apart, and the topics share the period evenly.
    fn due(&self, trade: bool) -> i64 {
        let (topics, period, at) = if trade {
            (self.feed.trade_topics, self.feed.trade_period_micros(), self.next_trade)
        } else {
            (self.feed.quote_topics, self.feed.quote_period_micros(), self.next_quote)
        };
        if topics == 0 || period == i64::MAX / 4 {
            return i64::MAX;
        }
        let (round, place) = (at / topics as u64, at % topics as u64);
        let place = place - place % self.feed.burst as u64;
        self.start + round as i64 * period + place as i64 * period / topics as i64
    }

    /// The next event, if its time has come.
    pub(crate) fn take(&mut self, now_micros: i64) -> Option<Event> {
        let (quote, trade) = (self.due(false), self.due(true));
        let is_trade = trade < quote;
        let ts = quote.min(trade);
        if ts > now_micros {
            return None;
        }
        let (next, order) = match is_trade {
            true => (&mut self.next_trade, &self.trades),
            false => (&mut self.next_quote, &self.quotes),
        };
        let number = *next;
        *next += 1;
        Some(Event { topic: order[(number % order.len() as u64) as usize], trade: is_trade, number, ts })
    }
}
