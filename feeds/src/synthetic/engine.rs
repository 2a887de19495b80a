//! One simulated order book: orders rest in queues, and match by price, then time.

use std::collections::VecDeque;

use fastrand::Rng;
use ticker_market::book::BookSide;

/// Levels that a side has at least, after it was first filled.
pub const DEPTH_MIN: usize = 30;

/// Levels that a side has at most.
pub const DEPTH_MAX: usize = 100;

/// Levels a side at the start.
const DEPTH_START: usize = 50;

/// Orders that wait at one price, at most.
const QUEUE_MAX: usize = 32;

/// A price level: its orders in the order of their coming, in lots.
#[derive(Debug)]
struct Queue {
    /// In ticks.
    price: i64,
    /// In lots; never empty between actions.
    orders: VecDeque<u32>,
    total: u64,
}

/// One side. The best level is last, where most changes are.
#[derive(Default, Debug)]
struct Half {
    levels: Vec<Queue>,
}

/// A resting order was hit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Match {
    /// In ticks.
    pub(super) price: i64,
    pub(super) lots: u32,
    /// Was the taker a buyer?
    pub(super) buy: bool,
}

/// A level that an action touched, and its size in lots before and after.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Touch {
    pub(super) side: BookSide,
    pub(super) price: i64,
    before: u64,
    pub(super) after: u64,
}

/// A simulated book and the traders at it.
#[derive(Debug)]
pub(super) struct Engine {
    rng: Rng,
    /// Where the traders think that the price belongs, in ticks.
    fair: i64,
    /// It never falls below.
    fair_min: i64,
    order_lots: u32,
    bids: Half,
    asks: Half,
    matches: Vec<Match>,
    touches: Vec<Touch>,
}

impl Engine {
    pub(super) fn new(seed: u64, fair: i64, order_lots: u32) -> Self {
        let fair_min = i64::try_from(DEPTH_MAX).unwrap_or(i64::MAX) * 4;
        let mut engine = Self {
            rng: Rng::with_seed(seed),
            fair: fair.max(fair_min),
            fair_min,
            order_lots: order_lots.max(10),
            bids: Half::default(),
            asks: Half::default(),
            matches: Vec::new(),
            touches: Vec::new(),
        };
        for i in 0..DEPTH_START as i64 {
            let step = i + 1;
            for _ in 0..1 + engine.rng.usize(0..3) {
                let lots = engine.lots();
                engine.rest(BookSide::Bid, engine.fair - step, lots);
                let lots = engine.lots();
                engine.rest(BookSide::Ask, engine.fair + step, lots);
            }
        }
        engine.touches.clear();
        engine
    }

    /// Price in ticks and size in lots of a side's levels, best first.
    pub(super) fn levels(&self, side: BookSide) -> impl Iterator<Item = (i64, u64)> + '_ {
        self.half(side).levels.iter().rev().map(|q| (q.price, q.total))
    }

    pub(super) fn best(&self, side: BookSide) -> Option<(i64, u64)> {
        self.half(side).levels.last().map(|q| (q.price, q.total))
    }

    /// Somebody does something. Returns the matches, in order, and the levels that changed, bids before asks and best
    /// first; there is always at least one.
    pub(super) fn act(&mut self) -> (&[Match], &[Touch]) {
        self.matches.clear();
        self.touches.clear();
        // Now and then the fair price moves; resting orders on its wrong side will be hit.
        if self.rng.u32(0..8) == 0 {
            let step = 1 + self.rng.i64(0..3);
            self.fair = (self.fair + if self.rng.bool() { step } else { -step }).max(self.fair_min);
        }
        let mut tries = 0;
        loop {
            self.act_once(tries);
            tries += 1;
            self.touches.retain(|t| t.before != t.after);
            if !self.touches.is_empty() {
                break;
            }
        }
        self.touches.sort_unstable_by_key(|t| match t.side {
            BookSide::Bid => (0, -t.price),
            BookSide::Ask => (1, t.price),
        });
        (&self.matches, &self.touches)
    }

    fn act_once(&mut self, tries: u32) {
        let side = if self.rng.bool() { BookSide::Bid } else { BookSide::Ask };
        if self.half(side).levels.len() < DEPTH_MIN {
            return self.deepen(side);
        }
        match self.rng.u32(0..100) {
            // A new order near the fair price; it may match at once.
            0..50 => self.limit(side),
            50..93 => self.cancel(side),
            _ if tries < 4 => {
                let lots = (self.lots() / 2).max(1);
                self.take(side, None, lots);
            }
            _ => self.deepen(side),
        }
    }

    /// An order with a price, close to the fair price more often than far from it.
    fn limit(&mut self, side: BookSide) {
        let spread = 1 + self.rng.i64(0..3).min(self.rng.i64(0..3));
        let far = self.rng.i64(0..8) * self.rng.i64(0..8);
        let price = match side {
            BookSide::Bid => self.fair - spread - far,
            BookSide::Ask => self.fair + spread + far,
        };
        let lots = self.lots();
        let rest = self.take(side, Some(price), lots);
        if rest > 0 {
            self.rest(side, price, rest);
        }
    }

    /// Matches an order of `side` against the other side, up to its price. Returns what is left of it.
    fn take(&mut self, side: BookSide, limit: Option<i64>, mut lots: u32) -> u32 {
        let buy = side == BookSide::Bid;
        let other = if buy { BookSide::Ask } else { BookSide::Bid };
        // Taken out, because a queue borrows the book.
        let mut matches = std::mem::take(&mut self.matches);
        while lots > 0 {
            // A market order stops before it empties the book.
            let deep = self.half(other).levels.len() > DEPTH_MIN / 2;
            let Some(queue) = self.half_mut(other).levels.last_mut() else { break };
            let price = queue.price;
            let reached = limit.map_or(deep, |limit| if buy { price <= limit } else { price >= limit });
            if !reached {
                break;
            }
            let before = queue.total;
            while lots > 0
                && let Some(first) = queue.orders.front_mut()
            {
                let hit = lots.min(*first);
                *first -= hit;
                lots -= hit;
                queue.total -= u64::from(hit);
                if *first == 0 {
                    queue.orders.pop_front();
                }
                matches.push(Match { price, lots: hit, buy });
            }
            let after = queue.total;
            if after == 0 {
                self.half_mut(other).levels.pop();
            }
            self.touch(other, price, before, after);
        }
        self.matches = matches;
        lots
    }

    /// Lets an order wait behind those that came before it at its price.
    fn rest(&mut self, side: BookSide, price: i64, lots: u32) {
        let found = self.half(side).find(side, price);
        let half = self.half_mut(side);
        let (before, after) = match found {
            Ok(at) => {
                let queue = &mut half.levels[at];
                let before = queue.total;
                if queue.orders.len() >= QUEUE_MAX {
                    // The oldest goes: its owner lost patience.
                    queue.total -= u64::from(queue.orders.pop_front().unwrap_or(0));
                }
                queue.orders.push_back(lots);
                queue.total += u64::from(lots);
                (before, queue.total)
            }
            Err(at) => {
                half.levels.insert(at, Queue { price, orders: VecDeque::from([lots]), total: u64::from(lots) });
                (0, u64::from(lots))
            }
        };
        self.touch(side, price, before, after);
        if self.half(side).levels.len() > DEPTH_MAX {
            let worst = self.half_mut(side).levels.remove(0);
            self.touch(side, worst.price, worst.total, 0);
        }
    }

    /// Takes an order back, near the best price more often than far from it.
    fn cancel(&mut self, side: BookSide) {
        let len = self.half(side).levels.len();
        if len <= DEPTH_MIN {
            return self.deepen(side);
        }
        let from_best = self.rng.usize(0..len).min(self.rng.usize(0..len));
        let at = len - 1 - from_best;
        let order = self.rng.usize(0..QUEUE_MAX);
        let half = self.half_mut(side);
        let queue = &mut half.levels[at];
        let (price, before) = (queue.price, queue.total);
        let gone = queue.orders.remove(order % queue.orders.len().max(1)).unwrap_or(0);
        queue.total -= u64::from(gone);
        let after = queue.total;
        if after == 0 {
            half.levels.remove(at);
        }
        self.touch(side, price, before, after);
    }

    /// A new order behind the worst level.
    fn deepen(&mut self, side: BookSide) {
        let step = 1 + self.rng.i64(0..2);
        let price = match (self.half(side).levels.first(), side) {
            (Some(worst), BookSide::Bid) => worst.price - step,
            (Some(worst), BookSide::Ask) => worst.price + step,
            (None, BookSide::Bid) => self.best(BookSide::Ask).map_or(self.fair, |(ask, _)| ask.min(self.fair + 1)) - 1,
            (None, BookSide::Ask) => self.best(BookSide::Bid).map_or(self.fair, |(bid, _)| bid.max(self.fair - 1)) + 1,
        };
        if price > 0 {
            let lots = self.lots();
            self.rest(side, price, lots);
        }
    }

    fn lots(&mut self) -> u32 {
        // Round sizes are as common as odd ones.
        let lots = self.order_lots / 10 + self.rng.u32(0..self.order_lots);
        if self.rng.bool() { (lots / 10).max(1) * 10 } else { lots.max(1) }
    }

    fn touch(&mut self, side: BookSide, price: i64, before: u64, after: u64) {
        match self.touches.iter_mut().find(|t| t.side == side && t.price == price) {
            Some(touch) => touch.after = after,
            None => self.touches.push(Touch { side, price, before, after }),
        }
    }

    fn half(&self, side: BookSide) -> &Half {
        match side {
            BookSide::Bid => &self.bids,
            BookSide::Ask => &self.asks,
        }
    }

    fn half_mut(&mut self, side: BookSide) -> &mut Half {
        match side {
            BookSide::Bid => &mut self.bids,
            BookSide::Ask => &mut self.asks,
        }
    }
}

impl Half {
    fn find(&self, side: BookSide, price: i64) -> Result<usize, usize> {
        self.levels.binary_search_by(|queue| match side {
            BookSide::Bid => queue.price.cmp(&price),
            BookSide::Ask => price.cmp(&queue.price),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_are_by_price_then_time() {
        let mut engine = Engine::new(1, 10_000, 100);
        engine.asks.levels.clear();
        engine.bids.levels.clear();
        engine.rest(BookSide::Ask, 101, 5);
        engine.rest(BookSide::Ask, 100, 3);
        engine.rest(BookSide::Ask, 100, 4);
        engine.touches.clear();
        let left = engine.take(BookSide::Bid, Some(101), 9);
        assert_eq!(left, 0);
        let hits: Vec<(i64, u32)> = engine.matches.iter().map(|m| (m.price, m.lots)).collect();
        assert_eq!(hits, [(100, 3), (100, 4), (101, 2)]);
        assert_eq!(engine.best(BookSide::Ask), Some((101, 3)));
        assert_eq!(engine.take(BookSide::Bid, Some(100), 7), 7, "not at that price");
    }

    #[test]
    fn books_stay_within_their_depth_and_never_cross() {
        let mut engine = Engine::new(7, 5_000, 1_000);
        let mut matches = 0;
        for i in 0..200_000 {
            let (hit, touched) = engine.act();
            assert!(!touched.is_empty());
            matches += hit.len();
            let (bid, ask) = (engine.best(BookSide::Bid), engine.best(BookSide::Ask));
            assert!(bid.expect("bids").0 < ask.expect("asks").0);
            for side in [BookSide::Bid, BookSide::Ask] {
                let depth = engine.half(side).levels.len();
                assert!((DEPTH_MIN / 2..=DEPTH_MAX).contains(&depth), "{depth} levels after {i} actions");
                assert!(engine.levels(side).all(|(price, lots)| price > 0 && lots > 0));
            }
        }
        assert!(matches > 5_000, "{matches} matches");
    }
}
