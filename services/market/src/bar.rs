//! Bars: open, high, low, close and volume of an interval, made of trades.
//!
//! A trade belongs to the interval that its own time lies in; order within a bar is that of the tape, because a venue's
//! clock decides no order here. A bar is closed by the tape's time, [`GRACE_NANOS`] after its end: what comes later is told
//! to the caller and left out. Where no trade fell into an interval, its bar repeats the last close with no volume.
//!
//! Volumes and turnovers are exact up to 28 digits; `vwap` is rounded to [`VWAP_DIGITS`].

use std::collections::VecDeque;

use crate::{Decimal, Interval, Time};

/// How long after its interval's end a bar waits for late trades, in nanoseconds of the tape's time.
pub const GRACE_NANOS: i64 = 2_000_000_000;

/// How far a trade's time may lie ahead of the tape's, in nanoseconds: venues' clocks are wrong by seconds. With it, the
/// bars that are open at once are few.
pub const AHEAD_NANOS_MAX: i64 = 10_000_000_000;

/// Empty bars in a row, after which an instrument rests until it trades again: of what hardly trades, seconds would fill
/// the tape.
pub const EMPTY_BARS_MAX: u32 = 1_000;

/// Where time leaps by more than that, in nanoseconds, nobody knows whether there were trades: no empty bars are made up.
pub const LEAP_NANOS_MAX: i64 = 300_000_000_000;

/// Significant digits of an average price.
pub const VWAP_DIGITS: u32 = 15;

/// What trades made of an interval.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bar {
    /// When the interval began.
    pub start: Time,
    /// The first price.
    pub open: Decimal,
    /// The highest price.
    pub high: Decimal,
    /// The lowest price.
    pub low: Decimal,
    /// The last price.
    pub close: Decimal,
    /// Traded, in the base currency.
    pub volume: Decimal,
    /// The price, averaged by volume; `None` where there was none.
    pub vwap: Option<Decimal>,
    /// How many trades.
    pub trades: u64,
    /// It will not change any more.
    pub closed: bool,
}

/// What became of a trade.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// It is in the newest bar.
    Newest,
    /// It is in an older bar, which is still open.
    Older,
    /// Its bar is closed: it is left out.
    Late,
    /// Its time lies too far ahead: it is left out.
    Ahead,
}

/// A bar in the making.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Open {
    start: Time,
    open: Decimal,
    high: Decimal,
    low: Decimal,
    close: Decimal,
    volume: Decimal,
    turnover: Decimal,
    trades: u64,
}

impl Open {
    fn new(start: Time, price: Decimal) -> Self {
        let (volume, turnover) = (Decimal::ZERO, Decimal::ZERO);
        Self { start, open: price, high: price, low: price, close: price, volume, turnover, trades: 0 }
    }

    fn take(&mut self, price: Decimal, size: Decimal) {
        self.high = self.high.max(price);
        self.low = self.low.min(price);
        self.close = price;
        self.volume = self.volume.saturating_add(size);
        self.turnover = self.turnover.saturating_add(price.saturating_mul(size));
        self.trades += 1;
    }

    fn bar(&self, closed: bool) -> Bar {
        let Self { start, open, high, low, close, volume, turnover, trades } = *self;
        Bar { start, open, high, low, close, volume, vwap: average(turnover, volume), trades, closed }
    }
}

/// The bars of one instrument and interval, one after the other.
#[derive(Clone, Debug)]
pub struct BarSeries {
    interval: Interval,
    /// By start. Few: see [`AHEAD_NANOS_MAX`].
    open: VecDeque<Open>,
    /// The start of the next one to be closed; `None` before the first trade, and while the instrument rests.
    next: Option<Time>,
    /// What ends up to here is closed.
    closed: Time,
    last_close: Decimal,
    empty: u32,
}

impl BarSeries {
    /// No bars yet.
    pub fn new(interval: Interval) -> Self {
        let (closed, last_close) = (Time(i64::MIN), Decimal::ZERO);
        Self { interval, open: VecDeque::new(), next: None, closed, last_close, empty: 0 }
    }

    /// The interval.
    pub fn interval(&self) -> Interval {
        self.interval
    }

    /// A trade at its own time `at`, when the tape's time is `now`.
    pub fn trade(&mut self, at: Time, price: Decimal, size: Decimal, now: Time) -> Taken {
        let start = self.interval.start_of(at);
        if start < self.closed || self.due_at(start) <= now {
            return Taken::Late;
        }
        if at > now.plus_nanos(AHEAD_NANOS_MAX) {
            return Taken::Ahead;
        }
        // Nearly always the last.
        let mut place = self.open.len();
        while place > 0 && self.open[place - 1].start > start {
            place -= 1;
        }
        if place == 0 || self.open[place - 1].start != start {
            self.open.insert(place, Open::new(start, price));
            place += 1;
        }
        self.open[place - 1].take(price, size);
        if self.next.is_none_or(|next| start < next) {
            self.next = Some(start);
        }
        if place == self.open.len() { Taken::Newest } else { Taken::Older }
    }

    /// When the next bar is to be closed, if one is.
    pub fn next_due(&self) -> Option<Time> {
        self.next.map(|start| self.due_at(start))
    }

    /// The tape's time has come to `now`: closes a bar, if one is due. There may be more.
    pub fn close(&mut self, now: Time) -> Option<Bar> {
        let start = self.next.filter(|start| self.due_at(*start) <= now)?;
        let bar = match self.open.front().filter(|o| o.start == start) {
            Some(open) => {
                (self.empty, self.last_close) = (0, open.close);
                let bar = open.bar(true);
                self.open.pop_front();
                bar
            }
            None => {
                self.empty += 1;
                let [open, high, low, close] = [self.last_close; 4];
                Bar { start, open, high, low, close, volume: Decimal::ZERO, vwap: None, trades: 0, closed: true }
            }
        };
        self.closed = start.plus_nanos(self.interval.nanos());
        let rests = self.empty >= EMPTY_BARS_MAX || now.since(self.due_at(self.closed)) > LEAP_NANOS_MAX;
        self.next = if rests { self.open.front().map(|o| o.start) } else { Some(self.closed) };
        Some(bar)
    }

    /// The newest bar that is not closed.
    pub fn running(&self) -> Option<Bar> {
        self.open.back().map(|o| o.bar(false))
    }

    fn due_at(&self, start: Time) -> Time {
        start.plus_nanos(self.interval.nanos() + GRACE_NANOS)
    }
}

/// An average price; `None` where nothing was traded.
pub(crate) fn average(turnover: Decimal, volume: Decimal) -> Option<Decimal> {
    let price = turnover.checked_div(volume)?;
    let digits = price.mantissa().unsigned_abs().checked_ilog10().map_or(0, |n| n + 1);
    Some(price.round_dp(price.scale().saturating_sub(digits.saturating_sub(VWAP_DIGITS))))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn number(n: i64) -> Decimal {
        Decimal::new(n, 2)
    }

    fn bar(start: i64, prices: [i64; 4], volume: i64, vwap: Option<i64>, trades: u64) -> Bar {
        let [open, high, low, close] = prices.map(number);
        let vwap = vwap.map(number);
        Bar { start: Time(start), open, high, low, close, volume: number(volume), vwap, trades, closed: true }
    }

    #[test]
    fn a_bar_is_closed_two_seconds_after_its_end_and_a_later_trade_left_out() {
        let mut series = BarSeries::new(Interval::M1);
        let at = |seconds: i64| Time(seconds * SECOND);
        assert_eq!(series.trade(at(60), number(100), number(100), at(60)), Taken::Newest);
        assert_eq!(series.trade(at(119), number(300), number(300), at(119)), Taken::Newest);
        assert_eq!(series.trade(at(121), number(500), number(100), at(121)), Taken::Newest);
        assert_eq!(series.trade(at(118), number(50), number(100), at(121)), Taken::Older);
        assert_eq!(series.close(at(121)), None);
        assert_eq!(series.trade(at(118), number(50), number(100), at(122)), Taken::Late);
        let closed = bar(60 * SECOND, [100, 300, 50, 50], 500, Some(210), 3);
        assert_eq!(series.close(at(122)), Some(closed));
        assert_eq!(series.close(at(122)), None);
        assert_eq!(series.running().map(|b| (b.start, b.trades, b.closed)), Some((at(120), 1, false)));
        assert_eq!(series.trade(at(200), number(1), number(1), at(189)), Taken::Ahead);
    }

    #[test]
    fn intervals_without_trades_repeat_the_last_close_until_the_instrument_rests() {
        let mut series = BarSeries::new(Interval::S1);
        series.trade(Time(0), number(700), number(100), Time(0));
        assert_eq!(series.close(Time(3 * SECOND)), Some(bar(0, [700; 4], 100, Some(700), 1)));
        let mut empty = Vec::new();
        for second in 4..5_000 {
            empty.extend(series.close(Time(second * SECOND)));
        }
        assert_eq!(empty.len(), EMPTY_BARS_MAX as usize);
        assert_eq!(empty[0], bar(SECOND, [700; 4], 0, None, 0));
        assert!(empty.windows(2).all(|w| w[1].start.since(w[0].start) == SECOND));
        let now = Time(5_000 * SECOND);
        assert_eq!(series.trade(now, number(800), number(1), now), Taken::Newest);
        assert_eq!(series.close(Time(5_003 * SECOND)).map(|b| b.start), Some(now), "what it rested is not made up");
    }

    #[test]
    fn averages_have_so_many_digits() {
        let text =
            |t: i64, v: i64, scale| average(Decimal::new(t, scale), Decimal::from(v)).map(crate::decimal::to_text);
        assert_eq!(text(2, 3, 0).as_deref(), Some("0.666666666666667"));
        assert_eq!(text(200_000, 3, 0).as_deref(), Some("66666.6666666667"));
        assert_eq!(text(2, 3, 20).as_deref(), Some("0.0000000000000000000066666667"), "28 digits after the point");
        assert_eq!(text(10, 4, 0).as_deref(), Some("2.5"));
        assert_eq!(text(0, 4, 0).as_deref(), Some("0"));
        assert_eq!(text(1, 0, 0), None);
    }

    #[test]
    fn a_leap_of_time_makes_up_nothing() {
        let mut series = BarSeries::new(Interval::S1);
        series.trade(Time(0), number(700), number(100), Time(0));
        let later = Time(LEAP_NANOS_MAX + 10 * SECOND);
        assert_eq!(series.close(later).map(|b| b.trades), Some(1));
        assert_eq!(series.close(later), None);
    }

    /// Bars of a list of trades, made at once: which of them count is known.
    fn rebuilt(interval: Interval, trades: &[(Time, Decimal, Decimal)]) -> BTreeMap<Time, Bar> {
        let mut by_start: BTreeMap<Time, Vec<(Decimal, Decimal)>> = BTreeMap::new();
        for (at, price, size) in trades {
            by_start.entry(interval.start_of(*at)).or_default().push((*price, *size));
        }
        let made = |(start, list): (Time, Vec<(Decimal, Decimal)>)| {
            let volume: Decimal = list.iter().map(|(_, s)| s).sum();
            let turnover: Decimal = list.iter().map(|(p, s)| p * s).sum();
            let bar = Bar {
                start,
                open: list[0].0,
                high: list.iter().map(|(p, _)| *p).max().expect("some"),
                low: list.iter().map(|(p, _)| *p).min().expect("some"),
                close: list[list.len() - 1].0,
                volume,
                vwap: (!volume.is_zero()).then(|| turnover / volume),
                trades: list.len() as u64,
                closed: true,
            };
            (start, bar)
        };
        by_start.into_iter().map(made).collect()
    }

    /// Whatever comes when, the closed bars are those of the trades that were taken, each once, without a hole.
    #[test]
    fn closed_bars_equal_a_rebuild() {
        let steps = bolero::produce::<Vec<(u16, i16, u16, u8)>>().with().len(0..=300_usize);
        bolero::check!().with_generator(steps).with_iterations(400).for_each(|steps| {
            for interval in [Interval::S1, Interval::M1, Interval::M5] {
                closed_bars_of(interval, steps);
            }
        });
    }

    fn closed_bars_of(interval: Interval, steps: &[(u16, i16, u16, u8)]) {
        let mut series = BarSeries::new(interval);
        let (mut now, mut taken, mut closed) = (Time(1_700_000_000 * SECOND), Vec::new(), Vec::new());
        for (wait, offset, price, size) in steps {
            // Up to 4 s later; up to 8 s behind and 12 s ahead.
            now = now.plus_millis(i64::from(wait % 4_000));
            let offset = i64::from(*offset) % 8_000 + if *offset > 16_000 { 4_000 } else { 0 };
            let (price, size) = (i64::from(price % 500 + 1), i64::from(*size));
            while let Some(bar) = series.close(now) {
                closed.push(bar);
            }
            let at = now.plus_millis(offset);
            match series.trade(at, number(price), number(size), now) {
                Taken::Newest | Taken::Older => taken.push((at, number(price), number(size))),
                Taken::Late => assert!(interval.start_of(at).plus_nanos(interval.nanos() + GRACE_NANOS) <= now),
                Taken::Ahead => assert!(offset > 10_000),
            }
            assert!(series.open.len() <= 16);
        }
        now = now.plus_nanos(interval.nanos() + 20 * SECOND);
        while let Some(bar) = series.close(now) {
            closed.push(bar);
        }
        let mut expected = rebuilt(interval, &taken);
        let mut last: Option<Bar> = None;
        for bar in closed {
            if let Some(last) = &last {
                assert_eq!(bar.start.since(last.start), interval.nanos(), "one after the other");
            }
            match expected.remove(&bar.start) {
                Some(made) => {
                    let off = bar.vwap.zip(made.vwap).map_or(Decimal::ZERO, |(a, b)| (a - b).abs() / b);
                    assert!(off < Decimal::new(1, 14), "{bar:?} {made:?}");
                    assert_eq!(bar.vwap.is_some(), made.vwap.is_some());
                    assert_eq!(Bar { vwap: None, ..bar.clone() }, Bar { vwap: None, ..made });
                }
                None => {
                    let close = last.as_ref().expect("the first has trades").close;
                    assert_eq!((bar.open, bar.high, bar.low, bar.close), (close, close, close, close));
                    assert_eq!((bar.volume, bar.vwap, bar.trades), (Decimal::ZERO, None, 0));
                }
            }
            last = Some(bar);
        }
        assert!(expected.is_empty(), "{expected:?}");
    }
}
