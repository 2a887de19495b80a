//! Every order by its reference, and what each price holds.

use std::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use ticker_market::book::{BookSide, LEVELS_PER_SIDE_MAX};

/// Orders kept at the same time, at most: some 450 MB. A busy day at Nasdaq has two to three million open at once.
pub const ORDERS_MAX: usize = 1 << 24;

/// Orders for which there is room from the start of a day: growing to as many would move each of them twice.
/// No more, so that the table stays at 2^20 places (25 MB).
pub const ORDERS_EXPECTED: usize = 900_000;

/// Places an order reference in the map.
///
/// References are numbers that the venue counts up, and nobody who could choose them to collide can reach us, so that
/// the map needs no keyed hash. And most orders are cancelled soon after they came: references that are near each other
/// are wanted near each other in time. So only the number of a block of 64 is mixed, and a reference keeps its place
/// within its block: neighbours share cache lines, which a hash that scatters everything never lets them.
///
/// hashbrown takes the place in its table from the low bits, and the highest seven to tell entries apart.
#[derive(Clone, Copy, Default, Debug)]
struct RefHasher(u64);

/// 2^64 divided by the golden ratio (Knuth, "The Art of Computer Programming", vol. 3, section 6.4).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for RefHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, reference: u64) {
        // A multiplication mixes upwards only: its upper half is folded into the lower.
        let block = (reference >> 6).wrapping_mul(GOLDEN);
        let place = (block ^ block >> 32) << 6 | reference & 63;
        let tag = reference.wrapping_mul(GOLDEN) >> 57 << 57;
        self.0 = place & (u64::MAX >> 7) | tag;
    }
}

type ByRef = HashMap<u64, Order, BuildHasherDefault<RefHasher>>;

/// An order in a book.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Order {
    /// Price, in the venue's steps.
    pub price: i64,
    /// What is left of it.
    pub size: u32,
    book: BookAndSide,
}

impl Order {
    /// The book's number.
    pub fn book(&self) -> u32 {
        self.book.0 >> 1
    }

    /// Its side.
    pub fn side(&self) -> BookSide {
        if self.book.0 & 1 == 0 { BookSide::Bid } else { BookSide::Ask }
    }
}

/// Both in four bytes, so that an order with its reference takes 24.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct BookAndSide(u32);

impl BookAndSide {
    fn new(book: u32, side: BookSide) -> Self {
        Self(book << 1 | u32::from(side == BookSide::Ask))
    }
}

/// What a price holds.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Rung {
    /// Price, in the venue's steps.
    pub price: i64,
    /// The sum of its orders; no order is of nothing, so that a price without orders is one of size zero.
    pub size: u64,
}

/// A price of a book that changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// The book's number.
    pub book: u32,
    /// Its side.
    pub side: BookSide,
    /// The price, in the venue's steps.
    pub price: i64,
    /// What it held before.
    pub before: u64,
    /// What it holds now.
    pub after: u64,
}

/// Why an order was not taken. Where the venue's messages are complete none of these happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// No order of that reference: from before the start, or of a book that is not kept.
    #[error("no such order")]
    Unknown,
    /// There is an order of that reference already.
    #[error("the order is there already")]
    Again,
    /// More than [`ORDERS_MAX`] orders, or more prices than a side may have.
    #[error("more than {ORDERS_MAX} orders, or more than {LEVELS_PER_SIDE_MAX} prices on a side")]
    Full,
    /// An order of nothing.
    #[error("an order of size zero")]
    Empty,
}

/// Sides sorted so that the best price is last: most changes happen there, where a vector moves few elements.
#[derive(Clone, Default, Debug)]
struct Ladder {
    bids: Vec<Rung>,
    asks: Vec<Rung>,
}

impl Ladder {
    fn side(&self, side: BookSide) -> &Vec<Rung> {
        match side {
            BookSide::Bid => &self.bids,
            BookSide::Ask => &self.asks,
        }
    }

    fn side_mut(&mut self, side: BookSide) -> &mut Vec<Rung> {
        match side {
            BookSide::Bid => &mut self.bids,
            BookSide::Ask => &mut self.asks,
        }
    }

    fn find(&self, side: BookSide, price: i64) -> Result<usize, usize> {
        match side {
            BookSide::Bid => search(&self.bids, |rung| rung.price < price, price),
            BookSide::Ask => search(&self.asks, |rung| rung.price > price, price),
        }
    }
}

/// Rungs looked through one by one from the best, before the rest is halved.
const NEAR: usize = 8;

/// The place of a price, where `before` says of each rung whether it is worse.
fn search(list: &[Rung], before: impl Fn(&Rung) -> bool, price: i64) -> Result<usize, usize> {
    let far = list.len().saturating_sub(NEAR);
    let near = list[far..].iter().rposition(&before);
    let at = match near {
        Some(at) => far + at + 1,
        None => list[..far].partition_point(before),
    };
    if list.get(at).is_some_and(|rung| rung.price == price) { Ok(at) } else { Err(at) }
}

/// All orders of several books, and the books.
#[derive(Clone, Default, Debug)]
pub struct OrderBooks {
    orders: ByRef,
    /// By number.
    books: Vec<Ladder>,
}

impl OrderBooks {
    /// No orders.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes room for so many orders more.
    pub fn reserve(&mut self, orders: usize) {
        self.orders.reserve(orders.min(ORDERS_MAX));
    }

    /// How many orders there are.
    pub fn len(&self) -> usize {
        self.orders.len()
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.orders.is_empty()
    }

    /// The order of that reference.
    pub fn order(&self, reference: u64) -> Option<&Order> {
        self.orders.get(&reference)
    }

    /// What a side of a book holds, best price first.
    pub fn side(&self, book: u32, side: BookSide) -> impl ExactSizeIterator<Item = &Rung> {
        self.books.get(book as usize).map_or(&[][..], |ladder| ladder.side(side)).iter().rev()
    }

    /// The best price of a side.
    pub fn best(&self, book: u32, side: BookSide) -> Option<Rung> {
        self.books.get(book as usize)?.side(side).last().copied()
    }

    /// What a price holds.
    pub fn size_at(&self, book: u32, side: BookSide, price: i64) -> u64 {
        let Some(ladder) = self.books.get(book as usize) else { return 0 };
        ladder.find(side, price).map_or(0, |at| ladder.side(side)[at].size)
    }

    /// A new order. `book` is a small number, such as a place in a list.
    pub fn add(&mut self, reference: u64, book: u32, side: BookSide, price: i64, size: u32) -> Result<Change, Refused> {
        if size == 0 {
            return Err(Refused::Empty);
        }
        if self.orders.len() >= ORDERS_MAX {
            return Err(Refused::Full);
        }
        let number = book as usize;
        if self.books.len() <= number {
            self.books.resize_with(number + 1, Ladder::default);
        }
        let Entry::Vacant(place) = self.orders.entry(reference) else { return Err(Refused::Again) };
        let ladder = &mut self.books[number];
        let found = ladder.find(side, price);
        let list = ladder.side_mut(side);
        let (before, after) = match found {
            Ok(at) => {
                let rung = &mut list[at];
                let before = rung.size;
                rung.size += u64::from(size);
                (before, rung.size)
            }
            Err(_) if list.len() >= LEVELS_PER_SIDE_MAX => return Err(Refused::Full),
            Err(at) => {
                list.insert(at, Rung { price, size: size.into() });
                (0, size.into())
            }
        };
        place.insert(Order { price, size, book: BookAndSide::new(book, side) });
        Ok(Change { book, side, price, before, after })
    }

    /// Takes `by` from an order (an execution, a partial cancellation); one of which nothing is left is gone. Returns the
    /// order as it was before. Where `by` is more than it had, it is gone too: then the venue's messages are not whole.
    pub fn reduce(&mut self, reference: u64, by: u32) -> Result<(Order, Change), Refused> {
        let Entry::Occupied(mut place) = self.orders.entry(reference) else { return Err(Refused::Unknown) };
        let order = *place.get();
        if by >= order.size {
            place.remove();
            let change = self.lower(&order, order.size);
            return Ok((order, change));
        }
        place.get_mut().size -= by;
        let change = self.lower(&order, by);
        Ok((order, change))
    }

    /// Removes an order whole. Returns it as it was.
    pub fn delete(&mut self, reference: u64) -> Result<(Order, Change), Refused> {
        let order = self.orders.remove(&reference).ok_or(Refused::Unknown)?;
        let change = self.lower(&order, order.size);
        Ok((order, change))
    }

    /// An order is replaced by one of another reference, on the same side of the same book. Where the new one is
    /// refused, the old one is gone all the same.
    pub fn replace(
        &mut self,
        old: u64,
        new: u64,
        price: i64,
        size: u32,
    ) -> Result<(Change, Result<Change, Refused>), Refused> {
        let (order, gone) = self.delete(old)?;
        Ok((gone, self.add(new, order.book(), order.side(), price, size)))
    }

    /// Removes every order of a book. Costs a look at every order, of other books too: venues clear one rarely.
    pub fn clear(&mut self, book: u32) {
        if let Some(ladder) = self.books.get_mut(book as usize) {
            if ladder.bids.is_empty() && ladder.asks.is_empty() {
                return;
            }
            *ladder = Ladder::default();
            self.orders.retain(|_, order| order.book() != book);
        }
    }

    /// Removes everything.
    pub fn clear_all(&mut self) {
        self.orders.clear();
        self.books.clear();
    }

    fn lower(&mut self, order: &Order, by: u32) -> Change {
        let (book, side, price) = (order.book(), order.side(), order.price);
        let ladder = &mut self.books[book as usize];
        let at = ladder.find(side, price).expect("an order's price is in its book as long as the order is");
        let list = ladder.side_mut(side);
        let rung = &mut list[at];
        let before = rung.size;
        rung.size -= u64::from(by);
        let after = rung.size;
        if after == 0 {
            list.remove(at);
        }
        Change { book, side, price, before, after }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn rungs(books: &OrderBooks, side: BookSide) -> Vec<(i64, u64)> {
        books.side(3, side).map(|r| (r.price, r.size)).collect()
    }

    #[test]
    fn an_orders_life() {
        let mut books = OrderBooks::new();
        assert_eq!(books.add(1, 3, BookSide::Bid, 100, 50).map(|c| (c.before, c.after)), Ok((0, 50)));
        assert_eq!(books.add(2, 3, BookSide::Bid, 100, 20).map(|c| (c.before, c.after)), Ok((50, 70)));
        assert_eq!(books.add(3, 3, BookSide::Bid, 101, 5).map(|c| c.after), Ok(5));
        assert_eq!(books.add(3, 3, BookSide::Ask, 105, 5), Err(Refused::Again));
        assert_eq!(books.add(4, 3, BookSide::Ask, 105, 0), Err(Refused::Empty));
        assert_eq!(rungs(&books, BookSide::Bid), [(101, 5), (100, 70)]);
        let (order, change) = books.reduce(1, 10).expect("known");
        assert_eq!((order.size, order.side(), change.after), (50, BookSide::Bid, 60));
        let (gone, came) = books.replace(3, 30, 99, 7).expect("known");
        let came = came.expect("room");
        assert_eq!((gone.price, gone.after, came.price, came.after), (101, 0, 99, 7));
        assert_eq!(books.reduce(1, 40).map(|(o, c)| (o.size, c.after)), Ok((40, 20)), "the last of it");
        assert_eq!(books.reduce(1, 1), Err(Refused::Unknown));
        assert_eq!(books.reduce(2, 21).map(|(o, c)| (o.size, c.after)), Ok((20, 0)), "more than it had");
        assert_eq!(rungs(&books, BookSide::Bid), [(99, 7)]);
        assert_eq!(books.delete(30).map(|(o, _)| o.size), Ok(7));
        assert_eq!(books.delete(30), Err(Refused::Unknown));
        assert!(books.is_empty() && books.best(3, BookSide::Bid).is_none());
    }

    #[test]
    fn references_are_spread_over_the_table_whatever_their_distance() {
        let hash = |reference: u64| {
            let mut hasher = RefHasher::default();
            hasher.write_u64(reference);
            hasher.finish()
        };
        for distance in [1, 2, 4, 64, 1_000, 1 << 20, 1 << 32, (1 << 40) + 4] {
            // In which of 256 parts of a table of 16,384: within one, probing finds its way.
            let mut parts = [0u32; 256];
            for n in 0..1 << 13 {
                parts[(hash(7 + n * distance) >> 6 & 0xff) as usize] += 1;
            }
            assert!(parts.iter().all(|n| *n <= 128), "{distance}: {:?}", parts.iter().max());
        }
    }

    #[test]
    fn a_book_is_cleared_alone() {
        let mut books = OrderBooks::new();
        for reference in 0..10 {
            books.add(reference, (reference % 2) as u32, BookSide::Ask, 7, 1).expect("room");
        }
        books.clear(0);
        books.clear(77);
        assert_eq!((books.len(), books.size_at(0, BookSide::Ask, 7), books.size_at(1, BookSide::Ask, 7)), (5, 0, 5));
        assert_eq!(books.delete(0), Err(Refused::Unknown));
    }

    /// Against a book that is made anew from a list of orders, each time.
    #[test]
    fn prices_hold_what_their_orders_sum_to() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut books = OrderBooks::new();
        let mut model: BTreeMap<u64, (bool, i64, u32)> = BTreeMap::new();
        for reference in 0..4_000u64 {
            let any = model.keys().copied().nth(rng.usize(..model.len().max(1)));
            match (rng.u8(0..5), any) {
                (0 | 1, _) | (_, None) => {
                    let (bid, price, size) = (rng.bool(), rng.i64(-40..40), rng.u32(1..9));
                    let side = if bid { BookSide::Bid } else { BookSide::Ask };
                    books.add(reference, 3, side, price, size).expect("room");
                    model.insert(reference, (bid, price, size));
                }
                (2, Some(any)) => {
                    let order = model.get_mut(&any).expect("from the model");
                    let by = rng.u32(1..=order.2);
                    books.reduce(any, by).expect("known");
                    order.2 -= by;
                    if order.2 == 0 {
                        model.remove(&any);
                    }
                }
                (3, Some(any)) => {
                    books.delete(any).expect("known");
                    model.remove(&any);
                }
                (_, Some(any)) => {
                    let (price, size) = (rng.i64(-40..40), rng.u32(1..9));
                    books.replace(any, reference, price, size).expect("known").1.expect("room");
                    let (bid, ..) = model.remove(&any).expect("from the model");
                    model.insert(reference, (bid, price, size));
                }
            }
            for (side, is_bid) in [(BookSide::Bid, true), (BookSide::Ask, false)] {
                let mut sums: BTreeMap<i64, u64> = BTreeMap::new();
                for (_, price, size) in model.values().filter(|(bid, ..)| *bid == is_bid) {
                    *sums.entry(*price).or_default() += u64::from(*size);
                }
                let mut expected: Vec<_> = sums.into_iter().collect();
                if is_bid {
                    expected.reverse();
                }
                assert_eq!(rungs(&books, side), expected);
            }
        }
    }
}
