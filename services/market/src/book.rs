//! All price levels of one instrument, with the two sums that prove them.

use std::cmp::Ordering;

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
///
/// Each side is a vector sorted so that the best level is last: most changes happen near the best price, where a vector
/// moves few elements and a binary search stays in cache.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// Ascending: the best (highest) bid is last.
    bids: Vec<Level>,
    /// Descending: the best (lowest) ask is last.
    asks: Vec<Level>,
    sum: u32,
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

    /// Replaces everything by `levels`, in any order; zero sizes are left out, of two levels with one price the later
    /// holds.
    pub fn replace(&mut self, levels: &Levels) -> Result<(), BookError> {
        self.clear();
        if levels.bids.len() > LEVELS_PER_SIDE_MAX || levels.asks.len() > LEVELS_PER_SIDE_MAX {
            return Err(BookError::TooManyLevels);
        }
        // Best first on the wire, best last here: taken backwards, each insertion is a push.
        for (side, list) in [(BookSide::Bid, &levels.bids), (BookSide::Ask, &levels.asks)] {
            for level in list.iter().rev() {
                if self.find(side, level.price).is_err() {
                    self.set(side, *level)?;
                }
            }
        }
        Ok(())
    }

    /// Applies changed levels.
    pub fn apply(&mut self, levels: &Levels) -> Result<(), BookError> {
        for level in &levels.bids {
            self.set(BookSide::Bid, *level)?;
        }
        for level in &levels.asks {
            self.set(BookSide::Ask, *level)?;
        }
        Ok(())
    }

    /// Sets one level; a size of zero removes it. Returns whether the book changed.
    pub fn set(&mut self, side: BookSide, level: Level) -> Result<bool, BookError> {
        if level.size.is_sign_negative() && !level.size.is_zero() {
            return Err(BookError::NegativeSize);
        }
        let found = self.find(side, level.price);
        let list = match side {
            BookSide::Bid => &mut self.bids,
            BookSide::Ask => &mut self.asks,
        };
        match found {
            Ok(at) if level.size.is_zero() => {
                self.sum = self.sum.wrapping_sub(level_crc(side, list[at]));
                list.remove(at);
                Ok(true)
            }
            Ok(at) => {
                let changed = list[at].size != level.size;
                if changed {
                    self.sum = self.sum.wrapping_sub(level_crc(side, list[at])).wrapping_add(level_crc(side, level));
                }
                list[at] = level;
                Ok(changed)
            }
            Err(_) if level.size.is_zero() => Ok(false),
            Err(_) if list.len() >= LEVELS_PER_SIDE_MAX => Err(BookError::TooManyLevels),
            Err(at) => {
                self.sum = self.sum.wrapping_add(level_crc(side, level));
                list.insert(at, level);
                Ok(true)
            }
        }
    }

    /// Removes every level.
    pub fn clear(&mut self) {
        self.bids.clear();
        self.asks.clear();
        self.sum = 0;
    }

    /// Cuts a side to its `depth` best levels, and appends what was cut off to `removed` with size zero.
    pub fn truncate(&mut self, side: BookSide, depth: usize, removed: &mut Vec<Level>) {
        let list = match side {
            BookSide::Bid => &mut self.bids,
            BookSide::Ask => &mut self.asks,
        };
        let extra = list.len().saturating_sub(depth);
        for level in list.drain(..extra) {
            self.sum = self.sum.wrapping_sub(level_crc(side, level));
            removed.push(Level { price: level.price, size: Decimal::ZERO });
        }
    }

    /// Bids, best first.
    pub fn bids(&self) -> impl ExactSizeIterator<Item = &Level> + DoubleEndedIterator {
        self.bids.iter().rev()
    }

    /// Asks, best first.
    pub fn asks(&self) -> impl ExactSizeIterator<Item = &Level> + DoubleEndedIterator {
        self.asks.iter().rev()
    }

    /// The best bid.
    pub fn best_bid(&self) -> Option<Level> {
        self.bids.last().copied()
    }

    /// The best ask.
    pub fn best_ask(&self) -> Option<Level> {
        self.asks.last().copied()
    }

    /// The size at a price, if there is a level.
    pub fn size_at(&self, side: BookSide, price: Decimal) -> Option<Decimal> {
        let at = self.find(side, price).ok()?;
        Some(match side {
            BookSide::Bid => self.bids[at].size,
            BookSide::Ask => self.asks[at].size,
        })
    }

    /// Is the best bid at or above the best ask? In continuous trading that is a fault.
    pub fn is_crossed(&self) -> bool {
        matches!((self.bids.last(), self.asks.last()), (Some(b), Some(a)) if b.price >= a.price)
    }

    /// The whole book as the levels of a snapshot.
    pub fn to_levels(&self) -> Levels {
        self.to_levels_of(usize::MAX)
    }

    /// The `depth` best levels of each side as the levels of a snapshot; `sum` and `crc` are of those alone.
    pub fn to_levels_of(&self, depth: usize) -> Levels {
        let bids: Vec<Level> = self.bids().take(depth).copied().collect();
        let asks: Vec<Level> = self.asks().take(depth).copied().collect();
        let sum = if bids.len() == self.bids.len() && asks.len() == self.asks.len() {
            self.sum
        } else {
            let of = |side, list: &[Level]| list.iter().fold(0u32, |s, l| s.wrapping_add(level_crc(side, *l)));
            of(BookSide::Bid, &bids).wrapping_add(of(BookSide::Ask, &asks))
        };
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
        self.sum
    }

    fn find(&self, side: BookSide, price: Decimal) -> Result<usize, usize> {
        match side {
            BookSide::Bid => search(&self.bids, |l| l.price.cmp(&price)),
            BookSide::Ask => search(&self.asks, |l| price.cmp(&l.price)),
        }
    }
}

impl PartialEq for Book {
    fn eq(&self, other: &Self) -> bool {
        self.bids == other.bids && self.asks == other.asks
    }
}

/// Binary search that first gallops from the end, where the best prices are.
fn search(list: &[Level], cmp: impl Fn(&Level) -> Ordering) -> Result<usize, usize> {
    let mut width = 8;
    while width < list.len() {
        let from = list.len() - width;
        if cmp(&list[from]) != Ordering::Greater {
            return list[from..].binary_search_by(&cmp).map(|i| i + from).map_err(|i| i + from);
        }
        width *= 8;
    }
    list.binary_search_by(cmp)
}

/// The part of [`Book::sum`] that one level makes.
pub fn level_crc(side: BookSide, level: Level) -> u32 {
    let mut text = Vec::with_capacity(48);
    text.push(match side {
        BookSide::Bid => b'b',
        BookSide::Ask => b'a',
    });
    write_level(&mut text, level);
    crc32fast::hash(&text)
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
        assert!(book.bids.windows(2).all(|w| w[0].price < w[1].price));
        assert!(book.asks.windows(2).all(|w| w[0].price > w[1].price));
        let mut again = Book::new();
        again.replace(&book.to_levels()).expect("fits");
        assert_eq!((again.sum(), again.bids, again.asks), (book.sum(), book.bids, book.asks));
    }

    #[test]
    fn a_negative_size_is_refused() {
        assert_eq!(Book::new().set(BookSide::Bid, level("1", "-1")), Err(BookError::NegativeSize));
    }
}
