//! What follows from trades, quotes and time: bars and statistics, the consolidated quote, and the ticks that they go by.
//!
//! All of it follows from the tape alone. Time is on the tape as ticks: that of the wall clock, or, for what a source says
//! was recorded, the greatest time of receipt so far. A tick is put on the tape before the first event of each second, so
//! before the first trade of a new bar; each closes at most one bar of each topic, and where more are due another tick
//! follows. So a topic has one event at most for each place. Before an instrument of a clock has traded there are no ticks.
//!
//! Bars are kept up to date with each trade. What is told of them is less: a running bar and the statistics at most every
//! [`TELL_EVERY_NANOS`] with the trade that changed them, and what is left over with the next tick. Told with each trade,
//! they would be six events beside it, and the tape would reach back a fraction of the time.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use ticker_market::bar::{BarSeries, Taken};
use ticker_market::best::Best;
use ticker_market::stats::RollingStats;
use ticker_market::{Channel, Data, Decimal, Event, Interval, Kind, Quote, State, Time};
use ticker_tape::{Clock, TopicId};

use crate::append::Times;
use crate::core::{Core, InstrumentId};
use crate::history::{bars_kept, keep};

/// An instrument's running bars and statistics are told at most so often, in nanoseconds, besides at ticks.
pub(crate) const TELL_EVERY_NANOS: i64 = 250_000_000;

/// How often a clock ticks, in nanoseconds: the shortest interval of bars.
const TICK_EVERY_NANOS: i64 = Interval::S1.nanos();

/// A recording whose times go back by more than that, in nanoseconds, has begun again.
const BACK_NANOS_MAX: i64 = 60_000_000_000;

/// Trades that bars leave out, by place in [`Interval::ALL`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct LeftOut {
    /// Their bar was closed.
    pub(crate) late: [u64; Interval::ALL.len()],
    /// Their time lay too far ahead.
    pub(crate) ahead: [u64; Interval::ALL.len()],
}

/// What is derived from an instrument's trades.
#[derive(Debug)]
pub(crate) struct Trading {
    /// By place in [`Interval::ALL`].
    bars: [Bars; Interval::ALL.len()],
    stats: RollingStats,
    stats_news: bool,
    told_at: Time,
}

#[derive(Debug)]
struct Bars {
    series: BarSeries,
    /// The running bar is not as it was told.
    news: bool,
    /// The last closed ones, oldest first; see [`bars_kept`].
    closed: VecDeque<Arc<Event>>,
}

impl Trading {
    fn new() -> Self {
        let bars = |interval| Bars { series: BarSeries::new(interval), news: false, closed: VecDeque::new() };
        let (bars, stats) = (Interval::ALL.map(bars), RollingStats::default());
        Self { bars, stats, stats_news: false, told_at: Time(i64::MIN) }
    }

    /// Time begins anew. What was closed stays.
    fn begin_again(&mut self) {
        for bars in &mut self.bars {
            (bars.series, bars.news) = (BarSeries::new(bars.series.interval()), false);
        }
        (self.stats, self.stats_news, self.told_at) = (RollingStats::default(), false, Time(i64::MIN));
    }

    /// The closed bars of an interval, oldest first.
    pub(crate) fn closed(&self, interval: Interval) -> &VecDeque<Arc<Event>> {
        let at = Interval::ALL.iter().position(|i| *i == interval).expect("ALL has every interval");
        &self.bars[at].closed
    }

    /// Is there something to tell at a tick?
    fn is_due(&self, now: Time) -> bool {
        let due = |at: Option<Time>| at.is_some_and(|at| at <= now);
        self.stats_news || due(self.stats.next_due()) || self.bars.iter().any(|b| b.news || due(b.series.next_due()))
    }
}

/// How far a clock has come.
#[derive(Debug)]
struct ClockState {
    time: Time,
    /// The first time at which it ticks again.
    next_tick: Time,
    /// Instruments that have traded.
    trading: Vec<InstrumentId>,
}

impl Default for ClockState {
    fn default() -> Self {
        Self { time: Time(i64::MIN), next_tick: Time(i64::MIN), trading: Vec::new() }
    }
}

/// All clocks.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    wall: ClockState,
    /// One for each source that publishes what was recorded.
    recorded: HashMap<Clock, ClockState>,
}

impl Clocks {
    fn get(&mut self, clock: Clock) -> &mut ClockState {
        match clock {
            Clock::WALL => &mut self.wall,
            _ => self.recorded.entry(clock).or_default(),
        }
    }
}

/// The consolidated quotes.
#[derive(Debug, Default)]
pub(crate) struct Bests {
    list: Vec<BestQuote>,
    by_topic: HashMap<TopicId, usize>,
}

/// The consolidated quote of a symbol.
#[derive(Debug)]
struct BestQuote {
    topic: TopicId,
    best: Best,
    told: Quote,
}

impl Core {
    /// A clock has come to `at`: puts ticks on the tape, where it is time for some, and what follows from them.
    pub(crate) fn pass_time(&mut self, clock: Clock, at: Time, now: Time) {
        let state = self.clocks.get(clock);
        if at <= state.time {
            if clock != Clock::WALL && state.time.since(at) > BACK_NANOS_MAX {
                self.begin_again(clock, at);
            }
            return;
        }
        state.time = at;
        if at >= state.next_tick && !state.trading.is_empty() {
            self.tick(clock, now);
        }
    }

    fn tick(&mut self, clock: Clock, now: Time) {
        let state = self.clocks.get(clock);
        let time = state.time;
        state.next_tick = next_tick(time);
        let trading = std::mem::take(&mut state.trading);
        let mut more = true;
        while more {
            self.tape.tick(clock, time, now);
            more = false;
            for id in &trading {
                more |= self.tick_instrument(*id, time);
            }
        }
        self.clocks.get(clock).trading = trading;
    }

    /// Derives what a tick causes for an instrument. Returns whether there is more, for another tick.
    fn tick_instrument(&mut self, id: InstrumentId, time: Time) -> bool {
        let Some(mut trading) = self.instruments[id.0 as usize].trading.take_if(|t| t.is_due(time)) else {
            return false;
        };
        let times = Times { ts: None, recv: time };
        for bars in &mut trading.bars {
            let interval = bars.series.interval();
            let Some(topic) = self.instruments[id.0 as usize].topic(Channel::Bar(interval)) else { continue };
            if let Some(bar) = bars.series.close(time) {
                let event = self.derive_state(topic, times, Data::Bar(bar));
                keep(&mut bars.closed, event, bars_kept(interval));
                // A newer one may be running: it must not stay hidden behind the closed one.
                bars.news = bars.series.running().is_some();
            } else if std::mem::take(&mut bars.news)
                && let Some(bar) = bars.series.running()
            {
                self.derive_state(topic, times, Data::Bar(bar));
            }
        }
        if trading.stats.advance(time) | std::mem::take(&mut trading.stats_news) {
            self.tell_stats(id, &trading.stats, times);
        }
        let more = trading.is_due(time);
        self.instruments[id.0 as usize].trading = Some(trading);
        more
    }

    /// An instrument is about to trade. With the first one its clock begins to tick.
    pub(crate) fn begin_trading(&mut self, id: InstrumentId) {
        let state = &mut self.instruments[id.0 as usize];
        if state.trading.is_none() {
            state.trading = Some(Box::new(Trading::new()));
            let clock = self.clocks.get(state.clock);
            if clock.trading.is_empty() {
                clock.next_tick = next_tick(clock.time);
            }
            clock.trading.push(id);
        }
    }

    /// Derives what an event that has just got its place causes besides books.
    pub(crate) fn follow(&mut self, topic: TopicId, event: &Event) {
        let Some(id) = self.topics[topic.index()].instrument else { return };
        let best = self.instruments[id.0 as usize].best;
        let times = Times { ts: event.ts, recv: event.recv };
        match (&event.data, event.topic.channel, best) {
            (Data::Trade(trade), ..) if event.kind == Kind::Update => {
                self.take_trade(id, trade.price, trade.size, times);
            }
            (Data::Quote(quote), _, Some((best, at))) => {
                self.bests.list[best].best.set_quote(at, Some(quote));
                self.tell_best(best, times);
            }
            (Data::Invalid(_), Channel::Quote, Some((best, at))) => {
                self.bests.list[best].best.set_quote(at, None);
                self.tell_best(best, times);
            }
            (Data::Status(status), _, Some((best, at))) => {
                self.bests.list[best].best.set_live(at, status.state == State::Live);
                self.tell_best(best, times);
            }
            _ => {}
        }
    }

    fn take_trade(&mut self, id: InstrumentId, price: Decimal, size: Decimal, times: Times) {
        let at = times.ts.unwrap_or(times.recv);
        let state = &mut self.instruments[id.0 as usize];
        let time = self.clocks.get(state.clock).time;
        let Some(mut trading) = state.trading.take() else { return };
        let tells = time.since(trading.told_at) >= TELL_EVERY_NANOS;
        for (place, bars) in trading.bars.iter_mut().enumerate() {
            match bars.series.trade(at, price, size, time) {
                Taken::Newest => bars.news = true,
                Taken::Older => {}
                Taken::Late => self.left_out.late[place] += 1,
                Taken::Ahead => self.left_out.ahead[place] += 1,
            }
            let channel = Channel::Bar(bars.series.interval());
            let Some(topic) = self.instruments[id.0 as usize].topic(channel) else { continue };
            // The first one is told at once, so that a topic's first event is not a closed bar.
            if (tells || self.topics[topic.index()].last.is_none())
                && std::mem::take(&mut bars.news)
                && let Some(bar) = bars.series.running()
            {
                self.derive_state(topic, times, Data::Bar(bar));
                trading.told_at = time;
            }
        }
        trading.stats_news |= trading.stats.trade(at, price, size, time);
        if tells && std::mem::take(&mut trading.stats_news) {
            self.tell_stats(id, &trading.stats, times);
            trading.told_at = time;
        }
        self.instruments[id.0 as usize].trading = Some(trading);
    }

    fn tell_stats(&mut self, id: InstrumentId, stats: &RollingStats, times: Times) {
        if let (Some(topic), Some(stats)) = (self.instruments[id.0 as usize].topic(Channel::Stats), stats.stats()) {
            self.derive_state(topic, times, Data::Stats(Box::new(stats)));
        }
    }

    fn derive_state(&mut self, topic: TopicId, times: Times, data: Data) -> Arc<Event> {
        let kind = if self.topics[topic.index()].is_valid() { Kind::Update } else { Kind::Snapshot };
        let event = self.event(topic, kind, times, data);
        self.derive(topic, event)
    }

    /// An instrument has a part in the consolidated quote of its symbol.
    pub(crate) fn join_best(&mut self, id: InstrumentId, topic: TopicId) {
        let Bests { list, by_topic } = &mut self.bests;
        let at = *by_topic.entry(topic).or_insert(list.len());
        if at == list.len() {
            list.push(BestQuote { topic, best: Best::default(), told: Quote::default() });
        }
        let state = &mut self.instruments[id.0 as usize];
        state.best = Some((at, list[at].best.join(&state.instrument.venue)));
    }

    fn tell_best(&mut self, at: usize, times: Times) {
        let best = &mut self.bests.list[at];
        let quote = best.best.quote();
        if quote != best.told {
            best.told.clone_from(&quote);
            let topic = best.topic;
            self.derive_state(topic, times, Data::Quote(quote));
        }
    }

    /// An instrument goes by another clock from here on. What it had of the former one's time is not gone on with.
    pub(crate) fn follow_clock(&mut self, id: InstrumentId, clock: Clock) {
        let state = &mut self.instruments[id.0 as usize];
        let former = std::mem::replace(&mut state.clock, clock);
        if former == clock {
            return;
        }
        if let Some(trading) = &mut state.trading {
            trading.begin_again();
            self.clocks.get(former).trading.retain(|other| *other != id);
            self.clocks.get(clock).trading.push(id);
        }
        let sources = &self.sources;
        self.clocks.recorded.retain(|clock, state| !state.trading.is_empty() || sources.has_clock(*clock));
    }

    /// A recording has begun again.
    fn begin_again(&mut self, clock: Clock, at: Time) {
        let state = self.clocks.get(clock);
        (state.time, state.next_tick) = (at, Time(i64::MIN));
        for id in state.trading.clone() {
            if let Some(trading) = &mut self.instruments[id.0 as usize].trading {
                trading.begin_again();
            }
        }
    }
}

fn next_tick(time: Time) -> Time {
    Interval::S1.start_of(time).plus_nanos(TICK_EVERY_NANOS)
}

#[cfg(test)]
mod tests;
