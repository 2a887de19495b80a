//! All price levels of one instrument, with the two sums that prove them.

mod side;

use std::cmp::Ordering;

pub use self::side::Best;
use self::side::Side;

use crate::event::{Level, Levels};
use crate::{Decimal, decimal};

/// Levels that a side holds at most; a venue that sends more is refused (the largest real side in the recordings has
/// 27,236).
pub const LEVELS_PER_SIDE_MAX: usize = 200_000;

/// Why a change was refused. The book is then in an undefined state and must be replaced by a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BookError {
    /// A negative price's size.
    #[error("a level has a negative size")]
    NegativeSize,
    /// More levels than [`LEVELS_PER_SIDE_MAX`].
    #[error("one side of the book has more than {LEVELS_PER_SIDE_MAX} levels")]
    TooManyLevels,
}

/// An order book by price level.
#[derive(Clone, Debug)]
pub struct Book {
    bids: Side,
    asks: Side,
    /// [`Book::sum`], where it is kept.
    sum: Option<u32>,
    /// A level's text, kept for its capacity.
    text: Vec<u8>,
}

impl Default for Book {
    fn default() -> Self {
        Self { bids: Side::bids(), asks: Side::asks(), sum: Some(0), text: Vec::new() }
    }
}

/// How levels follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InOrder {
    /// Each is worse than the one before it, or there is none.
    BestFirst,
    /// As they came; a price may come again.
    AsTheyCame,
}

/// One side of a book.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BookSide {
    /// Buy orders.
    Bid,
    /// Sell orders.
    Ask,
}

impl Book {
    /// An empty book.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty book that does not keep its sum, for whoever does not read it with each change: to keep it costs more
    /// than all else that a change does. [`Book::sum`] then goes through all levels.
    pub fn without_sum() -> Self {
        Self { sum: None, ..Self::default() }
    }

    /// Replaces everything by `levels`, in any order; zero sizes are left out, of two levels with one price the later
    /// holds.
    pub fn replace(&mut self, levels: &Levels) -> Result<(), BookError> {
        self.clear();
        if levels.bids.len() > LEVELS_PER_SIDE_MAX || levels.asks.len() > LEVELS_PER_SIDE_MAX {
            return Err(BookError::TooManyLevels);
        }
        // Best first on the wire, best last here: taken backwards, each is better than all before it.
        for (side, list) in [(BookSide::Bid, &levels.bids), (BookSide::Ask, &levels.asks)] {
            for level in list.iter().rev() {
                let is_better = self.side(side).best().is_none_or(|best| match side {
                    BookSide::Bid => order(best.price, level.price).is_lt(),
                    BookSide::Ask => order(level.price, best.price).is_lt(),
                });
                if is_better && !level.size.is_zero() && !level.size.is_sign_negative() {
                    self.side_mut(side).push(*level);
                    self.sum_up(side, *level);
                } else if self.side(side).find(&level.price).is_none() {
                    self.set(side, *level)?;
                }
            }
        }
        Ok(())
    }

    /// Applies changed levels.
    pub fn apply(&mut self, levels: &Levels) -> Result<(), BookError> {
        self.exchange_all(BookSide::Bid, &levels.bids, |_, _| {})?;
        self.exchange_all(BookSide::Ask, &levels.asks, |_, _| {})?;
        Ok(())
    }

    /// Sets one level; a size of zero removes it. Returns whether the book changed.
    pub fn set(&mut self, side: BookSide, level: Level) -> Result<bool, BookError> {
        Ok(self.exchange(side, level)? != level.size)
    }

    /// As [`Book::set`]. Returns the size that the price had before; zero where it had none.
    pub fn exchange(&mut self, side: BookSide, level: Level) -> Result<Decimal, BookError> {
        let mut before = Decimal::ZERO;
        self.exchange_all(side, &[level], |_, was| before = *was)?;
        Ok(before)
    }

    /// As [`Book::exchange`] for several levels. `told` is given each with the size that its price had before: best first
    /// where they come in order, one way or the other, which is quickest. Returns in what order.
    #[inline]
    pub fn exchange_all(
        &mut self,
        side: BookSide,
        levels: &[Level],
        mut told: impl FnMut(&Level, &Decimal),
    ) -> Result<InOrder, BookError> {
        let list = match side {
            BookSide::Bid => &mut self.bids,
            BookSide::Ask => &mut self.asks,
        };
        let Some(sum) = &mut self.sum else { return list.exchange_all(levels, told) };
        let text = &mut self.text;
        let mut part = |level: Level| if level.size.is_zero() { 0 } else { level_crc_by(text, side, level) };
        list.exchange_all(levels, |level, before| {
            if !is_same(before, &level.size) {
                let gone = part(Level { size: *before, ..*level });
                *sum = sum.wrapping_sub(gone).wrapping_add(part(*level));
            }
            told(level, before);
        })
    }

    /// Removes every level.
    pub fn clear(&mut self) {
        self.bids.clear();
        self.asks.clear();
        self.sum = self.sum.map(|_| 0);
    }

    /// Cuts a side to its `depth` best levels, and appends what was cut off to `removed` with size zero.
    pub fn truncate(&mut self, side: BookSide, depth: usize, removed: &mut Vec<Level>) {
        let first = removed.len();
        self.side_mut(side).truncate(depth, removed);
        for level in &mut removed[first..] {
            self.unsum(side, *level);
            level.size = Decimal::ZERO;
        }
    }

    /// Bids, best first.
    pub fn bids(&self) -> Best<'_> {
        self.bids.iter()
    }

    /// Asks, best first.
    pub fn asks(&self) -> Best<'_> {
        self.asks.iter()
    }

    /// How many levels a side has.
    pub fn levels(&self, side: BookSide) -> usize {
        self.side(side).len()
    }

    /// The best bid.
    pub fn best_bid(&self) -> Option<Level> {
        self.bids.best().copied()
    }

    /// The best ask.
    pub fn best_ask(&self) -> Option<Level> {
        self.asks.best().copied()
    }

    /// The size at a price, if there is a level.
    pub fn size_at(&self, side: BookSide, price: Decimal) -> Option<Decimal> {
        self.side(side).find(&price).map(|level| level.size)
    }

    /// Is the best bid at or above the best ask? In continuous trading that is a fault.
    pub fn is_crossed(&self) -> bool {
        matches!((self.bids.best(), self.asks.best()), (Some(b), Some(a)) if b.price >= a.price)
    }

    /// The whole book as the levels of a snapshot.
    pub fn to_levels(&self) -> Levels {
        self.to_levels_of(usize::MAX)
    }

    /// The `depth` best levels of each side as the levels of a snapshot; `sum` and `crc` are of those alone.
    pub fn to_levels_of(&self, depth: usize) -> Levels {
        let bids: Vec<Level> = self.bids().take(depth).copied().collect();
        let asks: Vec<Level> = self.asks().take(depth).copied().collect();
        let is_whole = bids.len() == self.bids.len() && asks.len() == self.asks.len();
        let sum = self.sum.filter(|_| is_whole).unwrap_or_else(|| sum_of(bids.iter(), asks.iter()));
        Levels { crc: self.crc(), sum, bids, asks }
    }

    /// CRC-32 (IEEE 802.3) of `price:size;` over the ten best bids, then the ten best asks, in canonical text.
    pub fn crc(&self) -> u32 {
        let mut text = Vec::with_capacity(512);
        for level in self.bids().take(10).chain(self.asks().take(10)) {
            write_level(&mut text, *level);
        }
        crc32fast::hash(&text)
    }

    /// Over all levels, the sum modulo 2³² of the CRC-32 of `b<price>:<size>;` or `a<price>:<size>;`. It proves the
    /// whole book, whatever the order of its changes, and is kept in O(changed levels).
    pub fn sum(&self) -> u32 {
        self.sum.unwrap_or_else(|| sum_of(self.bids(), self.asks()))
    }

    fn side(&self, side: BookSide) -> &Side {
        match side {
            BookSide::Bid => &self.bids,
            BookSide::Ask => &self.asks,
        }
    }

    fn side_mut(&mut self, side: BookSide) -> &mut Side {
        match side {
            BookSide::Bid => &mut self.bids,
            BookSide::Ask => &mut self.asks,
        }
    }

    /// A level came.
    fn sum_up(&mut self, side: BookSide, level: Level) {
        if let Some(sum) = &mut self.sum
            && !level.size.is_zero()
        {
            *sum = sum.wrapping_add(level_crc_by(&mut self.text, side, level));
        }
    }

    /// A level went.
    fn unsum(&mut self, side: BookSide, level: Level) {
        if let Some(sum) = &mut self.sum
            && !level.size.is_zero()
        {
            *sum = sum.wrapping_sub(level_crc_by(&mut self.text, side, level));
        }
    }
}

impl PartialEq for Book {
    fn eq(&self, other: &Self) -> bool {
        self.bids().eq(other.bids()) && self.asks().eq(other.asks())
    }
}

/// Are two numbers the same, however they are written?
#[inline]
pub fn is_same(a: &Decimal, b: &Decimal) -> bool {
    let (x, y) = (a.unpack(), b.unpack());
    if x.scale == y.scale && x.negative == y.negative {
        (x.lo ^ y.lo) | (x.mid ^ y.mid) | (x.hi ^ y.hi) == 0
    } else {
        order_across(*a, *b).is_eq()
    }
}

/// The order of two prices. Those of one instrument have one scale at nearly every venue, and then the digits decide.
#[inline]
pub fn order(a: Decimal, b: Decimal) -> Ordering {
    let (x, y) = (a.unpack(), b.unpack());
    if x.scale == y.scale && !x.negative && !y.negative {
        (x.hi, u64::from(x.mid) << 32 | u64::from(x.lo)).cmp(&(y.hi, u64::from(y.mid) << 32 | u64::from(y.lo)))
    } else {
        order_across(a, b)
    }
}

/// As [`order`], of any two: the digits decide, those of the one with fewer behind the point with zeros after them.
#[inline(never)]
fn order_across(a: Decimal, b: Decimal) -> Ordering {
    let (x, y) = (a.mantissa(), b.mantissa());
    let zeros = |fewer: Decimal, more: Decimal| more.scale().checked_sub(fewer.scale()).map(|zeros| zeros as usize);
    match (zeros(a, b), zeros(b, a)) {
        (Some(zeros @ ..ZEROS_MAX), _) => (x * i128::from(decimal::POWERS[zeros])).cmp(&y),
        (_, Some(zeros @ ..ZEROS_MAX)) => x.cmp(&(y * i128::from(decimal::POWERS[zeros]))),
        _ => a.cmp(&b),
    }
}

/// With so many zeros behind it a mantissa of 96 bits always fits.
const ZEROS_MAX: usize = decimal::POWERS.len();

fn sum_of<'a>(bids: impl Iterator<Item = &'a Level>, asks: impl Iterator<Item = &'a Level>) -> u32 {
    let mut text = Vec::new();
    let mut sum = 0u32;
    for level in bids {
        sum = sum.wrapping_add(level_crc_by(&mut text, BookSide::Bid, *level));
    }
    for level in asks {
        sum = sum.wrapping_add(level_crc_by(&mut text, BookSide::Ask, *level));
    }
    sum
}

/// The part of [`Book::sum`] that one level makes.
pub fn level_crc(side: BookSide, level: Level) -> u32 {
    level_crc_by(&mut Vec::with_capacity(48), side, level)
}

fn level_crc_by(text: &mut Vec<u8>, side: BookSide, level: Level) -> u32 {
    text.clear();
    text.push(match side {
        BookSide::Bid => b'b',
        BookSide::Ask => b'a',
    });
    write_level(text, level);
    crc32fast::hash(text)
}

fn write_level(text: &mut Vec<u8>, level: Level) {
    decimal::write(text, level.price);
    text.push(b':');
    decimal::write(text, level.size);
    text.push(b';');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(price: &str, size: &str) -> Level {
        Level { price: decimal::parse(price).expect(price), size: decimal::parse(size).expect(size) }
    }

    fn book() -> Book {
        let mut book = Book::new();
        book.replace(&Levels {
            bids: vec![level("100.0", "1"), level("99.5", "2"), level("99", "0.50")],
            asks: vec![level("100.5", "3"), level("101", "4")],
            ..Levels::default()
        })
        .expect("a good snapshot");
        book
    }

    #[test]
    fn both_sums_follow_the_contract_to_the_letter() {
        let book = book();
        assert_eq!(book.crc(), crc32fast::hash(b"100:1;99.5:2;99:0.5;100.5:3;101:4;"));
        let parts = ["b100:1;", "b99.5:2;", "b99:0.5;", "a100.5:3;", "a101:4;"];
        let sum = parts.iter().fold(0u32, |s, p| s.wrapping_add(crc32fast::hash(p.as_bytes())));
        assert_eq!(book.sum(), sum);
    }

    #[test]
    fn the_sum_does_not_depend_on_the_way() {
        let mut one = book();
        let mut other = book();
        one.set(BookSide::Bid, level("99.7", "7")).expect("fits");
        one.set(BookSide::Bid, level("99.70", "0")).expect("fits");
        one.set(BookSide::Ask, level("101", "5")).expect("fits");
        other.set(BookSide::Ask, level("101.0", "5.0")).expect("fits");
        assert_eq!((one.sum(), one.crc()), (other.sum(), other.crc()));
        assert_eq!(one, other);
        other.clear();
        assert_eq!(other.sum(), 0);
    }

    #[test]
    fn truncation_reports_what_it_cut_off() {
        let mut book = book();
        let mut removed = Vec::new();
        book.truncate(BookSide::Bid, 2, &mut removed);
        assert_eq!(removed, vec![level("99", "0")]);
        assert_eq!(book.bids().len(), 2);
        let mut again = Book::new();
        again.replace(&book.to_levels()).expect("fits");
        assert_eq!(again.sum(), book.sum());
    }

    #[test]
    fn sides_are_best_first_and_crossing_is_seen() {
        let mut book = book();
        let prices: Vec<String> = book.bids().map(|l| decimal::to_text(l.price)).collect();
        assert_eq!(prices, ["100", "99.5", "99"]);
        assert!(!book.is_crossed());
        book.set(BookSide::Bid, level("100.5", "1")).expect("fits");
        assert!(book.is_crossed());
    }

    #[test]
    fn many_levels_stay_sorted_under_any_order_of_changes() {
        let mut book = Book::new();
        let mut x = 12345u64;
        for _ in 0..5_000 {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let price = Decimal::new((x >> 33) as i64 % 900 + 1, 1);
            let size = Decimal::from((x >> 20) % 4);
            book.set(BookSide::Bid, Level { price, size }).expect("fits");
            book.set(BookSide::Ask, Level { price, size }).expect("fits");
        }
        assert!(book.bids().is_sorted_by(|a, b| a.price > b.price));
        assert!(book.asks().is_sorted_by(|a, b| a.price < b.price));
        let mut again = Book::new();
        again.replace(&book.to_levels()).expect("fits");
        assert_eq!((again.sum(), &again), (book.sum(), &book));
        let mut without = Book::without_sum();
        without.replace(&book.to_levels()).expect("fits");
        assert_eq!((without.sum(), without.to_levels().sum), (book.sum(), book.sum()));
    }

    #[test]
    fn prices_are_ordered_whatever_their_digits() {
        for (low, high) in [
            ("1.0", "1.01"),
            ("-1", "1.00"),
            ("-1.50", "-1.5000001"),
            ("99.9", "100"),
            ("0", "0.00"),
            ("-0.0", "0"),
            ("5", "5.0000000001"),
            ("0.123456789", "79228162514264337593543950335"),
            ("-79228162514264337593543950335", "-0.1234567890"),
        ] {
            let [low, high] = [low, high].map(|text| decimal::parse(text).expect(text));
            assert_eq!(order(low, high), low.cmp(&high));
            assert_eq!(order(high, low), high.cmp(&low));
            assert_eq!(is_same(&low, &high), low == high);
            assert!(is_same(&low, &low) && is_same(&high, &high));
        }
        let mut book = Book::new();
        let before = book.exchange(BookSide::Bid, level("100", "2")).expect("fits");
        let again = book.exchange(BookSide::Bid, level("100.00", "2.50")).expect("fits");
        let gone = book.exchange(BookSide::Bid, level("100.000", "0")).expect("fits");
        let none = book.exchange(BookSide::Bid, level("100.000", "0")).expect("fits");
        assert_eq!([before, again, gone, none], ["0", "2", "2.5", "0"].map(|t| decimal::parse(t).expect(t)));
        assert_eq!((book.sum(), book.bids.len()), (0, 0));
    }

    #[test]
    fn a_negative_size_is_refused() {
        assert_eq!(Book::new().set(BookSide::Bid, level("1", "-1")), Err(BookError::NegativeSize));
    }
}
