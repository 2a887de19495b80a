//! A simulated market: seeded limit-order books, so that everything works anywhere and a test can be repeated.
//!
//! In each instrument orders arrive, rest, are taken back and match by price and time around a fair price that walks at
//! random. What is told is consistent: a trade is at a price of the book, the book after a match reflects it, the quote
//! is the top of the book, and nothing ever crosses.

mod engine;
mod names;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use compact_str::ToCompactString;
use fastrand::Rng;
use ticker_market::book::BookSide;
use ticker_market::{
    Channel, Data, Decimal, Instrument, Integrity, Kind, Level, Levels, Quote, Side, State, Status, Time, Trade,
};

pub use self::engine::{DEPTH_MAX, DEPTH_MIN};

use self::engine::Engine;
use crate::{Out, Update};

/// The venue's name.
pub const VENUE: &str = "synthetic";

/// Instruments, at most.
pub const INSTRUMENTS_MAX: usize = 10_000;

/// Updates a second for each instrument, where nobody says otherwise.
pub const UPDATES_PER_SECOND: u32 = 25;

/// Updates a second for each instrument, at most.
pub const UPDATES_PER_SECOND_MAX: u32 = 1_000_000;

/// The simulated market.
#[derive(Debug)]
pub struct Synthetic {
    instruments: Vec<Instrument>,
    markets: Vec<Market>,
    /// When each instrument acts next; of two at the same time the one with the lower number acts first.
    due: BinaryHeap<Reverse<(Time, u32)>>,
    updates_per_second: u32,
    started: bool,
}

#[derive(Debug)]
struct Market {
    engine: Engine,
    /// For the times between actions alone, so that the pace does not change what happens.
    pace: Rng,
    tick_scale: u32,
    lot_scale: u32,
    trade_id: u64,
    quote: Top,
}

/// Best bid and ask, each in ticks and lots.
type Top = (Option<(i64, u64)>, Option<(i64, u64)>);

impl Synthetic {
    /// A market of so many instruments (at most [`INSTRUMENTS_MAX`]). Each has its updates at that average rate; an
    /// update is one event on one channel: a trade, a change of the book, or a change of the quote.
    pub fn new(seed: u64, instruments: usize, updates_per_second: u32) -> Self {
        let count = instruments.min(INSTRUMENTS_MAX);
        let mut listed = Vec::with_capacity(count);
        let mut markets = Vec::with_capacity(count);
        for number in 0..count {
            let spec = names::spec(number);
            // Each instrument has its own randomness: more of them do not change those that were there.
            let mut seeds = Rng::with_seed(seed ^ (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            listed.push(Instrument {
                venue: VENUE.into(),
                symbol: spec.symbol.clone(),
                native: spec.symbol,
                tick_size: Some(Decimal::new(1, spec.tick_scale)),
                lot_size: Some(Decimal::new(1, spec.lot_scale)),
                channels: vec![Channel::Quote, Channel::Trade, Channel::Book],
            });
            markets.push(Market {
                engine: Engine::new(seeds.u64(..), spec.fair_ticks, spec.order_lots),
                pace: Rng::with_seed(seeds.u64(..)),
                tick_scale: spec.tick_scale,
                lot_scale: spec.lot_scale,
                trade_id: 0,
                quote: (None, None),
            });
        }
        Self {
            instruments: listed,
            markets,
            due: BinaryHeap::with_capacity(count),
            updates_per_second: updates_per_second.clamp(1, UPDATES_PER_SECOND_MAX),
            started: false,
        }
    }

    /// The instruments; each one's place is its number in [`Update::instrument`].
    pub fn instruments(&self) -> &[Instrument] {
        &self.instruments
    }

    /// Tells everything up to and including `until`, in the order of simulated time.
    ///
    /// The first call sets the market's clock: it announces the instruments, with a live status, a snapshot of the book
    /// and a quote each, all at `until`. From then on it does not matter how time is sliced.
    pub fn advance(&mut self, until: Time, out: &mut Out) {
        if !self.started {
            self.started = true;
            return self.start(until, out);
        }
        while let Some(&Reverse((at, number))) = self.due.peek()
            && at <= until
        {
            self.due.pop();
            let market = &mut self.markets[number as usize];
            let told = out.updates.len();
            market.act(number, at, out);
            let next = market.next(at, out.updates.len() - told, self.updates_per_second);
            self.due.push(Reverse((next, number)));
        }
    }

    /// When the next event is due; none before the first [`Synthetic::advance`].
    pub fn next_due(&self) -> Option<Time> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }

    /// Tells everything again, as a receiver needs it who knows nothing: every instrument, its live status, a snapshot of
    /// its book and of its quote, all at `now`.
    pub fn retell(&self, now: Time, out: &mut Out) {
        for (number, market) in (0u32..).zip(&self.markets) {
            out.instruments.push((number, self.instruments[number as usize].clone()));
            let levels = Levels {
                bids: market.engine.levels(BookSide::Bid).map(|l| market.level(l)).collect(),
                asks: market.engine.levels(BookSide::Ask).map(|l| market.level(l)).collect(),
                ..Levels::default()
            };
            let status =
                Status { state: State::Live, integrity: Integrity::Sequenced, reason: None, last_verified: Some(now) };
            let mut tell = |channel, kind, data| {
                out.updates.push(Update { instrument: number, channel, kind, ts: Some(now), recv: now, data });
            };
            tell(Channel::Status, Kind::Update, Data::Status(status));
            tell(Channel::Book, Kind::Snapshot, Data::Book(levels));
            tell(Channel::Quote, Kind::Snapshot, Data::Quote(market.quote_of(market.top())));
        }
    }

    fn start(&mut self, now: Time, out: &mut Out) {
        self.retell(now, out);
        for (number, market) in (0u32..).zip(&mut self.markets) {
            market.quote = market.top();
            let first = market.next(now, 1, self.updates_per_second);
            self.due.push(Reverse((first, number)));
        }
    }
}

impl Market {
    fn act(&mut self, number: u32, at: Time, out: &mut Out) {
        let (tick_scale, lot_scale) = (self.tick_scale, self.lot_scale);
        let size = |lots: u64| Decimal::new(i64::try_from(lots).unwrap_or(i64::MAX), lot_scale);
        let (matches, touches) = self.engine.act();
        let mut tell = |channel, data| {
            out.updates.push(Update { instrument: number, channel, kind: Kind::Update, ts: Some(at), recv: at, data });
        };
        for matched in matches {
            self.trade_id += 1;
            let trade = Trade {
                price: Decimal::new(matched.price, tick_scale),
                size: size(u64::from(matched.lots)),
                side: Some(if matched.buy { Side::Buy } else { Side::Sell }),
                trade_id: self.trade_id.to_compact_string(),
                reference: None,
            };
            tell(Channel::Trade, Data::Trade(trade));
        }
        let mut levels = Levels::default();
        for touch in touches {
            let level = Level { price: Decimal::new(touch.price, tick_scale), size: size(touch.after) };
            match touch.side {
                BookSide::Bid => levels.bids.push(level),
                BookSide::Ask => levels.asks.push(level),
            }
        }
        tell(Channel::Book, Data::Book(levels));
        self.tell_quote(number, at, out);
    }

    fn tell_quote(&mut self, number: u32, at: Time, out: &mut Out) {
        let top = self.top();
        if top == self.quote {
            return;
        }
        self.quote = top;
        let data = Data::Quote(self.quote_of(top));
        let (channel, kind) = (Channel::Quote, Kind::Update);
        out.updates.push(Update { instrument: number, channel, kind, ts: Some(at), recv: at, data });
    }

    fn top(&self) -> Top {
        (self.engine.best(BookSide::Bid), self.engine.best(BookSide::Ask))
    }

    fn quote_of(&self, (bid, ask): Top) -> Quote {
        Quote { bid: bid.map(|l| self.level(l)), ask: ask.map(|l| self.level(l)), bid_venue: None, ask_venue: None }
    }

    /// When to act after so many updates: the average pause is so long that the rate comes out right.
    fn next(&mut self, at: Time, updates: usize, updates_per_second: u32) -> Time {
        let mean = 1_000_000_000 * updates.max(1) as u64 / u64::from(updates_per_second);
        let pause = self.pace.u64(0..=mean.saturating_mul(2));
        at.plus_nanos(i64::try_from(pause).unwrap_or(i64::MAX).max(1))
    }

    fn level(&self, (ticks, lots): (i64, u64)) -> Level {
        let lots = i64::try_from(lots).unwrap_or(i64::MAX);
        Level { price: Decimal::new(ticks, self.tick_scale), size: Decimal::new(lots, self.lot_scale) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ticker_market::{Book, topic};

    fn run(slices: &[i64]) -> Vec<Update> {
        let mut market = Synthetic::new(42, 7, 100);
        let mut out = Out::default();
        let start = Time::from_millis(1_000);
        market.advance(start, &mut out);
        for millis in slices {
            market.advance(start.plus_millis(*millis), &mut out);
        }
        out.updates
    }

    #[test]
    fn the_same_seed_tells_the_same_however_time_is_sliced() {
        let one = run(&[5_000]);
        let many: Vec<i64> = (1..=5_000).collect();
        assert_eq!(one, run(&many));
        assert_eq!(one, run(&[1, 17, 17, 900, 4_999, 5_000]));
        let mut other = Synthetic::new(43, 7, 100);
        let mut out = Out::default();
        other.advance(Time::from_millis(1_000), &mut out);
        other.advance(Time::from_millis(6_000), &mut out);
        assert_ne!(one, out.updates);
    }

    #[test]
    fn what_is_told_is_consistent() {
        let mut market = Synthetic::new(3, 4, 200);
        let mut out = Out::default();
        let mut books = vec![Book::new(); 4];
        let mut now = Time::from_millis(1);
        let mut trades = 0;
        for _ in 0..3_000 {
            out.clear();
            market.advance(now, &mut out);
            now = now.plus_millis(10);
            for update in &out.updates {
                let book = &mut books[update.instrument as usize];
                match &update.data {
                    Data::Book(levels) => {
                        match update.kind {
                            Kind::Snapshot => book.replace(levels).expect("good"),
                            _ => book.apply(levels).expect("good"),
                        }
                        assert!(!book.is_crossed());
                        assert!((DEPTH_MIN / 2..=DEPTH_MAX).contains(&book.bids().len()));
                    }
                    Data::Trade(trade) => {
                        trades += 1;
                        let best = match trade.side.expect("told") {
                            Side::Buy => (BookSide::Ask, book.best_ask()),
                            Side::Sell => (BookSide::Bid, book.best_bid()),
                        };
                        assert!(book.size_at(best.0, trade.price).expect("a level of the book") >= trade.size);
                    }
                    Data::Quote(quote) => assert_eq!((quote.bid, quote.ask), (book.best_bid(), book.best_ask())),
                    _ => {}
                }
            }
        }
        assert!(trades > 100, "{trades} trades");
    }

    #[test]
    fn the_rate_is_kept() {
        let mut market = Synthetic::new(9, 50, 25);
        let mut out = Out::default();
        market.advance(Time(0), &mut out);
        out.clear();
        market.advance(Time::from_millis(20_000), &mut out);
        let rate = out.updates.len() as f64 / 20.0 / 50.0;
        assert!((23.0..27.0).contains(&rate), "{rate} updates a second");
        assert!(out.updates.is_sorted_by_key(|u| u.recv));
    }

    #[test]
    fn instruments_have_names_of_their_own() {
        let market = Synthetic::new(1, 200, 25);
        let mut names: Vec<&str> = market.instruments().iter().map(|i| i.symbol.as_str()).collect();
        assert!(names.iter().all(|n| topic::is_symbol(n)));
        assert_eq!((names[0], names[40]), ("BTC-USD", "SYN0041-USD"));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 200);
    }
}
