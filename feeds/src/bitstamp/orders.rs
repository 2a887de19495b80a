//! A book of orders: `live_orders_<pair>`, and its beginning, REST `order_book/<pair>/?group=2`.
//!
//! Each event names the one before it (`pre_event_id`), so that a lost one shows. The first half of an event's id is its
//! time in microseconds: that is what tells which events a snapshot has already. An event says all there is to know of its
//! order, so one that comes twice changes nothing, and one of an order that is not known (it lies beyond the snapshot, or
//! never rested) removes nothing.
//!
//! An order that will trade is told before its trades are: the book is crossed for a moment, and is not told meanwhile.

use std::collections::VecDeque;

use hashbrown::HashMap;
use ticker_market::book::BookSide;
use ticker_market::{Book, Decimal, Level, Levels};

use crate::Fault;
use crate::keeper::Wrong;

/// Events of one pair that wait for its snapshot, at most: minutes of a busy one.
pub(super) const EVENTS_WAITING_MAX: usize = 100_000;

/// Orders of one pair, at most.
pub(super) const ORDERS_MAX: usize = 1_000_000;

/// Longer than this a book that is crossed is wrong.
pub(super) const CROSSED_MAX_US: u64 = 1_000_000;

/// What an event does to its order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Order {
    pub(super) id: u64,
    pub(super) side: BookSide,
    pub(super) price: Decimal,
    /// What is left of it; zero where it is gone.
    pub(super) size: Decimal,
}

/// An event, and its place in the chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Event {
    pub(super) before: u128,
    pub(super) id: u128,
    pub(super) order: Order,
}

/// What an event means for what is told.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Nothing: it is old, changes nothing, or is not told yet.
    Nothing,
    /// It waits for the snapshot.
    Waiting,
    /// The whole book can be told.
    Whole,
    /// These levels changed.
    Changed(Levels),
    /// Something is wrong; the event waits for a snapshot.
    Wrong(Wrong),
}

/// The orders of one pair.
#[derive(Clone, Debug)]
pub(super) struct Orders {
    /// The last event.
    last: Option<u128>,
    waiting: VecDeque<Event>,
    /// The time of the snapshot; none while it is waited for.
    since: Option<u64>,
    resting: HashMap<u64, Order>,
    book: Book,
    /// What changed since the book was last told; none before the first time.
    untold: Option<Vec<(BookSide, Decimal)>>,
    crossed_since: Option<u64>,
}

impl Default for Orders {
    fn default() -> Self {
        Self {
            last: None,
            waiting: VecDeque::new(),
            since: None,
            resting: HashMap::new(),
            book: Book::without_sum(),
            untold: None,
            crossed_since: None,
        }
    }
}

/// The time in an event's id, in microseconds since the Unix epoch.
fn micros(id: u128) -> u64 {
    u64::try_from(id >> 64).expect("64 bits are left")
}

impl Orders {
    /// Does it wait for a snapshot?
    pub(super) fn is_waiting(&self) -> bool {
        self.since.is_none()
    }

    /// Was an event heard?
    pub(super) fn has_begun(&self) -> bool {
        self.last.is_some()
    }

    /// The book, which is to be told when [`Step::Whole`] says so.
    pub(super) fn book(&self) -> &Book {
        &self.book
    }

    /// Takes an event.
    pub(super) fn event(&mut self, event: Event) -> Step {
        match self.last {
            Some(last) if event.before == last => {}
            Some(last) if event.id == last || micros(event.id) <= micros(last) => return Step::Nothing,
            Some(last) => {
                let detail = format!("what follows order event {:032x} came, the last was {last:032x}", event.before);
                return self.wrong(Fault::Gap, detail, event);
            }
            None if self.since.is_some_and(|since| micros(event.id) > since && micros(event.before) > since) => {
                let detail = format!("what follows order event {:032x} came after the snapshot", event.before);
                return self.wrong(Fault::Gap, detail, event);
            }
            None => {}
        }
        self.last = Some(event.id);
        let Some(since) = self.since else {
            self.wait(event);
            return Step::Waiting;
        };
        if micros(event.id) <= since {
            return Step::Nothing;
        }
        if let Err(detail) = self.apply(event.order) {
            return self.wrong(Fault::Undecodable, detail, event);
        }
        self.tell(micros(event.id)).unwrap_or_else(|detail| self.wrong(Fault::Crossed, detail, event))
    }

    /// Takes a snapshot of that time; [`Step::Waiting`] where it does not reach what waits, and a newer one is needed.
    pub(super) fn snapshot(&mut self, since: u64, orders: impl Iterator<Item = Order>) -> Step {
        if self.waiting.front().is_some_and(|first| micros(first.before) > since) {
            return Step::Waiting;
        }
        self.since = Some(since);
        let waiting = std::mem::take(&mut self.waiting);
        let newer = waiting.into_iter().filter(|event| micros(event.id) > since).map(|event| event.order);
        let applied = orders.chain(newer).try_for_each(|order| self.apply(order));
        let told = applied.map_err(|detail| (Fault::Undecodable, detail)).and_then(|()| {
            let now = self.last.map_or(since, |last| micros(last).max(since));
            self.tell(now).map_err(|detail| (Fault::Crossed, detail))
        });
        told.unwrap_or_else(|(fault, detail)| {
            *self = Self { last: self.last, ..Self::default() };
            Step::Wrong(Wrong { fault, detail })
        })
    }

    /// Starts anew, with what comes next.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    fn wrong(&mut self, fault: Fault, detail: String, event: Event) -> Step {
        self.reset();
        self.last = Some(event.id);
        self.wait(event);
        Step::Wrong(Wrong { fault, detail })
    }

    fn wait(&mut self, event: Event) {
        self.waiting.push_back(event);
        if self.waiting.len() > EVENTS_WAITING_MAX {
            self.waiting.pop_front();
        }
    }

    fn apply(&mut self, order: Order) -> Result<(), String> {
        let before = if order.size.is_zero() {
            self.resting.remove(&order.id)
        } else if self.resting.len() >= ORDERS_MAX && !self.resting.contains_key(&order.id) {
            return Err(format!("more than {ORDERS_MAX} orders"));
        } else {
            self.resting.insert(order.id, order)
        };
        if let Some(before) = before {
            self.change(before.side, before.price, -before.size)?;
        }
        if order.size.is_zero() { Ok(()) } else { self.change(order.side, order.price, order.size) }
    }

    fn change(&mut self, side: BookSide, price: Decimal, by: Decimal) -> Result<(), String> {
        let held = self.book.size_at(side, price).unwrap_or_default();
        let size = held.checked_add(by).ok_or("a size beyond all decimals")?;
        self.book.set(side, Level { price, size }).map_err(|error| error.to_string())?;
        if let Some(untold) = &mut self.untold
            && untold.last() != Some(&(side, price))
        {
            untold.push((side, price));
        }
        Ok(())
    }

    /// What is to be told now, unless the book is crossed.
    fn tell(&mut self, now: u64) -> Result<Step, String> {
        if self.book.is_crossed() {
            let crossed_since = *self.crossed_since.get_or_insert(now);
            return if now.saturating_sub(crossed_since) > CROSSED_MAX_US {
                Err(format!("crossed for longer than {CROSSED_MAX_US} µs"))
            } else {
                Ok(Step::Nothing)
            };
        }
        self.crossed_since = None;
        let Some(untold) = &mut self.untold else {
            self.untold = Some(Vec::new());
            return Ok(Step::Whole);
        };
        let mut levels = Levels::default();
        for (side, price) in untold.drain(..) {
            let size = self.book.size_at(side, price).unwrap_or_default();
            match side {
                BookSide::Bid => levels.bids.push(Level { price, size }),
                BookSide::Ask => levels.asks.push(Level { price, size }),
            }
        }
        Ok(if levels.bids.is_empty() && levels.asks.is_empty() { Step::Nothing } else { Step::Changed(levels) })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn event(n: u64, id: u64, side: BookSide, price: i64, size: i64) -> Event {
        let place = |n: u64| u128::from(1_000 + n / 2) << 64 | u128::from(n);
        let order = Order { id, side, price: price.into(), size: size.into() };
        Event { before: place(n - 1), id: place(n), order }
    }

    type Pairs = Vec<(Decimal, Decimal)>;

    fn list(book: &Book) -> (Pairs, Pairs) {
        let pairs = |l: &Level| (l.price, l.size);
        (book.bids().map(pairs).collect(), book.asks().map(pairs).collect())
    }

    /// Against a sum over a list of orders, with a snapshot in the middle, each event of two connections, and a reader
    /// that has only what was told.
    #[test]
    fn prices_hold_what_their_orders_sum_to() {
        let mut rng = fastrand::Rng::with_seed(11);
        let (mut orders, mut model) = (Orders::default(), BTreeMap::<u64, Order>::new());
        let mut reader: Option<Book> = None;
        for n in 1..4_000u64 {
            let any = model.keys().copied().nth(rng.usize(..model.len().max(1)));
            let event = match any.filter(|_| rng.u8(..3) > 0) {
                Some(id) => {
                    let old = model[&id];
                    let size = if rng.bool() { Decimal::ZERO } else { Decimal::from(rng.i64(1..9)) };
                    Event { order: Order { size, ..old }, ..event(n, id, old.side, 1, 1) }
                }
                None => {
                    // Now and then one crosses for as long as it is there.
                    let (side, far) = if rng.bool() { (BookSide::Bid, 90) } else { (BookSide::Ask, 110) };
                    let far = if rng.u8(..20) == 0 { 200 - far } else { far };
                    event(n, n, side, far + rng.i64(-9..10), rng.i64(1..9))
                }
            };
            if event.order.size.is_zero() {
                model.remove(&event.order.id);
            } else {
                model.insert(event.order.id, event.order);
            }
            let steps = [orders.event(event), orders.event(event)];
            assert!(n > 101 || steps == [Step::Waiting, Step::Nothing]);
            for step in steps {
                match step {
                    Step::Changed(levels) => reader.as_mut().expect("told whole").apply(&levels).expect("fits"),
                    Step::Whole => reader = Some(orders.book().clone()),
                    Step::Wrong(wrong) => panic!("{wrong:?}"),
                    _ => {}
                }
            }
            // The next one has another time.
            if n == 101 {
                let since = micros(event.id);
                if orders.snapshot(since, model.values().copied()) == Step::Whole {
                    reader = Some(orders.book().clone());
                }
            }
            let mut sums: [BTreeMap<Decimal, Decimal>; 2] = Default::default();
            for order in model.values() {
                *sums[usize::from(order.side == BookSide::Ask)].entry(order.price).or_default() += order.size;
            }
            if n > 101 {
                let ours = list(orders.book());
                assert!(ours.0.into_iter().rev().eq(sums[0].clone()) && ours.1.into_iter().eq(sums[1].clone()), "{n}");
                if let Some(reader) = reader.as_ref().filter(|_| !orders.book().is_crossed()) {
                    assert_eq!(list(reader), list(orders.book()), "{n}");
                }
            }
        }
        assert!(reader.is_some());
    }

    #[test]
    fn gaps_old_snapshots_and_crossed_books() {
        let mut orders = Orders::default();
        orders.event(event(10, 1, BookSide::Bid, 100, 1));
        assert_eq!(orders.snapshot(1_003, std::iter::empty()), Step::Waiting, "older than what waits");
        assert!(orders.is_waiting());
        assert_eq!(orders.snapshot(1_004, std::iter::empty()), Step::Whole);
        assert!(matches!(orders.event(event(12, 2, BookSide::Ask, 101, 1)), Step::Wrong(w) if w.fault == Fault::Gap));
        assert!(orders.is_waiting());
        // After a snapshot that nothing was heard before.
        let mut orders = Orders::default();
        let resting = Order { id: 1, side: BookSide::Bid, price: 100.into(), size: 1.into() };
        assert_eq!(orders.snapshot(1_004, std::iter::once(resting)), Step::Whole);
        assert_eq!(orders.event(event(3, 9, BookSide::Bid, 99, 1)), Step::Nothing, "it has it");
        let mut late = orders.clone();
        late.last = None;
        assert!(matches!(late.event(event(12, 2, BookSide::Ask, 101, 1)), Step::Wrong(w) if w.fault == Fault::Gap));
        // Crossed: told when it is no longer, and wrong when it stays so.
        let mut orders = Orders::default();
        orders.snapshot(1_004, std::iter::once(resting));
        assert_eq!(orders.event(event(10, 2, BookSide::Ask, 99, 1)), Step::Nothing);
        let Step::Changed(levels) = orders.event(event(11, 1, BookSide::Bid, 100, 0)) else { panic!("told") };
        assert_eq!((levels.bids.len(), levels.asks.len()), (1, 1));
        orders.event(event(12, 3, BookSide::Bid, 99, 1));
        let mut late = event(13, 4, BookSide::Bid, 98, 1);
        late.id += u128::from(CROSSED_MAX_US + 1) << 64;
        assert!(matches!(orders.event(late), Step::Wrong(w) if w.fault == Fault::Crossed));
    }
}
