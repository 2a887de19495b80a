//! Rolling statistics of the last 24 hours.
//!
//! Trades are kept by buckets of [`BUCKET_NANOS`], so memory is bounded ([`BUCKETS_MAX`] of them, some 100 bytes each), and
//! the window begins with a whole bucket: it spans 24 hours and up to five minutes more. A trade belongs to the bucket that
//! its own time lies in; `last` is the last one in the tape's order.

use std::collections::VecDeque;

use crate::bar::{AHEAD_NANOS_MAX, average};
use crate::{Decimal, Time};

/// The resolution of the window's beginning, in nanoseconds.
pub const BUCKET_NANOS: i64 = 300_000_000_000;

/// Whole buckets in 24 hours.
const BUCKETS: i64 = 288;

/// Buckets at once: those of 24 hours, the one that began before, and those of clocks that run ahead.
pub const BUCKETS_MAX: usize = BUCKETS as usize + 2;

/// Digits after the point of a change in percent.
pub const PERCENT_SCALE: u32 = 4;

/// What trades made of the last 24 hours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stats {
    /// The last price; older than the window where nothing was traded in it.
    pub last: Decimal,
    /// The first price of the window.
    pub open: Decimal,
    /// The highest price.
    pub high: Decimal,
    /// The lowest price.
    pub low: Decimal,
    /// Traded, in the base currency.
    pub volume: Decimal,
    /// Traded, in the quote currency.
    pub quote_volume: Decimal,
    /// The price, averaged by volume; `None` where there was none.
    pub vwap: Option<Decimal>,
    /// `last` less `open`.
    pub change: Decimal,
    /// The same, in percent of `open`, rounded to [`PERCENT_SCALE`]; `None` where `open` is zero.
    pub change_pct: Option<Decimal>,
    /// How many trades.
    pub trades: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Bucket {
    number: i64,
    open: Decimal,
    sums: Sums,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Sums {
    high: Decimal,
    low: Decimal,
    volume: Decimal,
    turnover: Decimal,
    trades: u64,
}

impl Sums {
    fn of(price: Decimal, size: Decimal) -> Self {
        Self { high: price, low: price, volume: size, turnover: price.saturating_mul(size), trades: 1 }
    }

    fn add(&mut self, other: &Sums) {
        self.high = self.high.max(other.high);
        self.low = self.low.min(other.low);
        self.volume = self.volume.saturating_add(other.volume);
        self.turnover = self.turnover.saturating_add(other.turnover);
        self.trades += other.trades;
    }
}

/// The statistics of one instrument as they go on.
#[derive(Clone, Debug, Default)]
pub struct RollingStats {
    /// By number; those without trades are not there.
    buckets: VecDeque<Bucket>,
    /// Over all buckets.
    sums: Option<Sums>,
    last: Option<Decimal>,
}

impl RollingStats {
    /// A trade at its own time `at`, when the tape's time is `now`. `false`: it lies outside of the window, or too far
    /// ahead, and is left out.
    pub fn trade(&mut self, at: Time, price: Decimal, size: Decimal, now: Time) -> bool {
        self.advance(now);
        let number = number_of(at);
        if number < oldest(now) || at > now.plus_nanos(AHEAD_NANOS_MAX) {
            return false;
        }
        self.last = Some(price);
        let one = Sums::of(price, size);
        match &mut self.sums {
            Some(sums) => sums.add(&one),
            None => self.sums = Some(one),
        }
        // Nearly always the last.
        let mut place = self.buckets.len();
        while place > 0 && self.buckets[place - 1].number > number {
            place -= 1;
        }
        match place.checked_sub(1).map(|at| &mut self.buckets[at]).filter(|b| b.number == number) {
            Some(bucket) => bucket.sums.add(&one),
            None => self.buckets.insert(place, Bucket { number, open: price, sums: one }),
        }
        true
    }

    /// The tape's time has come to `now`. Returns whether something left the window.
    pub fn advance(&mut self, now: Time) -> bool {
        let oldest = oldest(now);
        let mut left = false;
        while self.buckets.front().is_some_and(|b| b.number < oldest) {
            self.buckets.pop_front();
            left = true;
        }
        if left {
            // Anew from the buckets: what was rounded on its way in could not be taken out exactly.
            self.sums = self.buckets.iter().map(|b| b.sums).reduce(|mut all, some| {
                all.add(&some);
                all
            });
        }
        left
    }

    /// When something leaves the window next, if anything does.
    pub fn next_due(&self) -> Option<Time> {
        self.buckets.front().map(|b| Time((b.number + BUCKETS + 1) * BUCKET_NANOS))
    }

    /// The statistics; `None` before the first trade.
    pub fn stats(&self) -> Option<Stats> {
        let last = self.last?;
        let nothing = Sums { high: last, low: last, volume: Decimal::ZERO, turnover: Decimal::ZERO, trades: 0 };
        let Sums { high, low, volume, turnover, trades } = self.sums.unwrap_or(nothing);
        let open = self.buckets.front().map_or(last, |b| b.open);
        let change = last.saturating_sub(open);
        let percent = change.saturating_mul(Decimal::ONE_HUNDRED).checked_div(open.abs());
        Some(Stats {
            last,
            open,
            high,
            low,
            volume,
            quote_volume: turnover,
            vwap: average(turnover, volume),
            change,
            change_pct: percent.map(|p| p.round_dp(PERCENT_SCALE)),
            trades,
        })
    }
}

fn number_of(at: Time) -> i64 {
    at.0.div_euclid(BUCKET_NANOS)
}

/// The first bucket of which a part lies within 24 hours before `now`.
fn oldest(now: Time) -> i64 {
    number_of(now) - BUCKETS
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000_000_000;

    fn number(n: i64) -> Decimal {
        Decimal::new(n, 2)
    }

    #[test]
    fn a_day_goes_by() {
        let mut stats = RollingStats::default();
        assert_eq!(stats.stats(), None);
        assert!(stats.trade(Time(0), number(20_000), number(100), Time(0)));
        let noon = Time(12 * 60 * MINUTE);
        assert!(stats.trade(noon, number(25_000), number(300), noon));
        let s = stats.stats().expect("two trades");
        assert_eq!((s.last, s.open, s.high, s.low), (number(25_000), number(20_000), number(25_000), number(20_000)));
        assert_eq!((s.volume, s.quote_volume, s.trades), (number(400), number(95_000), 2));
        assert_eq!((s.vwap, s.change, s.change_pct), (Some(number(23_750)), number(5_000), Some(number(2_500))));
        let due = stats.next_due().expect("the first trade leaves");
        assert_eq!(due, Time(24 * 60 * MINUTE + 5 * MINUTE));
        assert!(!stats.advance(Time(due.0 - 1)));
        assert!(stats.advance(due));
        let s = stats.stats().expect("one is left");
        assert_eq!((s.open, s.volume, s.trades, s.change), (number(25_000), number(300), 1, Decimal::ZERO));
        let later = Time(48 * 60 * MINUTE);
        assert!(stats.advance(later));
        let s = stats.stats().expect("the last price stays");
        assert_eq!((s.last, s.high, s.volume, s.vwap, s.trades), (number(25_000), number(25_000), number(0), None, 0));
        assert!(!stats.trade(noon, number(1), number(1), later), "older than the window");
        assert!(!stats.trade(later.plus_millis(10_001), number(1), number(1), later), "too far ahead");
    }

    /// However trades come, the statistics are those of the trades in the window.
    #[test]
    fn they_equal_a_rebuild() {
        let steps = bolero::produce::<Vec<(u16, u16, u16, u8)>>().with().len(0..=200_usize);
        bolero::check!().with_generator(steps).with_iterations(400).for_each(|steps| they_equal_a_rebuild_in(steps));
    }

    fn they_equal_a_rebuild_in(steps: &[(u16, u16, u16, u8)]) {
        let mut stats = RollingStats::default();
        let (mut now, mut all) = (Time(1_700_000_000_000_000_000), Vec::new());
        for (wait, offset, price, size) in steps {
            // Up to two hours later; up to two and a half hours behind and 9 s ahead.
            now = now.plus_millis(i64::from(*wait) * 107);
            let at = now.plus_millis(i64::from(offset % 9_000) - i64::from(offset / 9_000) * 1_500_000);
            let (price, size) = (i64::from(price % 500 + 1), i64::from(*size));
            assert!(stats.trade(at, number(price), number(size), now));
            all.push((at, number(price), number(size)));
            let inside = |t: &&(Time, Decimal, Decimal)| number_of(t.0) >= number_of(now) - 288;
            let window: Vec<_> = all.iter().filter(inside).collect();
            let s = stats.stats().expect("there was one");
            assert_eq!(s.trades, window.len() as u64);
            assert_eq!(s.high, window.iter().map(|t| t.1).max().expect("some"));
            assert_eq!(s.low, window.iter().map(|t| t.1).min().expect("some"));
            assert_eq!(s.volume, window.iter().map(|t| t.2).sum::<Decimal>());
            assert_eq!(s.quote_volume, window.iter().map(|t| t.1 * t.2).sum::<Decimal>());
            let first = window.iter().map(|t| number_of(t.0)).min().expect("some");
            let open = window.iter().find(|t| number_of(t.0) == first).expect("some").1;
            assert_eq!((s.open, s.last, s.change), (open, number(price), number(price) - open));
            assert!(stats.buckets.len() <= BUCKETS_MAX);
        }
    }
}
