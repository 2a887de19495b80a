//! A venue's book with the books of limited depth that are derived from it.

use std::cmp::Ordering;

use ticker_market::book::{BookSide, level_crc};
use ticker_market::{Book, BookError, Decimal, Level, Levels};

/// Why a change of a book was refused. The book then waits for a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BookFault {
    /// The levels could not be applied.
    Levels(BookError),
    /// The best bid is not below the best ask.
    Crossed,
}

/// What a change makes of the book topics: the change itself with its sums, and what it does to each derived book.
#[derive(Debug)]
pub(crate) struct BookChange {
    /// For `book`.
    pub(crate) book: Levels,
    /// For `book-10`, where it changed.
    pub(crate) ten: Option<Levels>,
    /// For `book-50`, where it changed.
    pub(crate) fifty: Option<Levels>,
}

/// A book and what is derived from it.
#[derive(Debug)]
pub(crate) struct DepthBook {
    book: Book,
    ten: Derived,
    fifty: Derived,
    /// The ten best levels of the book are those of every derived book, so one checksum serves all.
    crc: u32,
    good: bool,
}

impl DepthBook {
    /// An empty book that waits for its first snapshot.
    pub(crate) fn new() -> Self {
        Self { book: Book::new(), ten: Derived::new(10), fifty: Derived::new(50), crc: 0, good: false }
    }

    /// May updates be applied?
    pub(crate) fn is_good(&self) -> bool {
        self.good
    }

    /// From here on it waits for a snapshot.
    pub(crate) fn spoil(&mut self) {
        self.good = false;
        self.book.clear();
        self.ten.clear();
        self.fifty.clear();
    }

    /// Replaces everything.
    pub(crate) fn replace(&mut self, mut levels: Levels) -> Result<BookChange, BookFault> {
        let replaced = self.book.replace(&levels).map_err(BookFault::Levels);
        self.settle(replaced)?;
        self.crc = self.book.crc();
        self.ten.reset(&self.book);
        self.fifty.reset(&self.book);
        // The venue's own list is passed on where it is in order already; copying a large book costs more than looking.
        if !is_whole(&levels) {
            levels = self.book.to_levels();
        }
        Ok(BookChange {
            book: Levels { crc: self.crc, sum: self.book.sum(), ..levels },
            ten: Some(self.ten.levels(self.crc)),
            fifty: Some(self.fifty.levels(self.crc)),
        })
    }

    /// Applies changed levels.
    pub(crate) fn apply(&mut self, mut levels: Levels) -> Result<BookChange, BookFault> {
        put_in_order(&mut levels.bids, BookSide::Bid);
        put_in_order(&mut levels.asks, BookSide::Ask);
        let applied = self.book.apply(&levels).map_err(BookFault::Levels);
        self.settle(applied)?;
        let ten = self.ten.follow(&self.book, &levels);
        let fifty = self.fifty.follow(&self.book, &levels);
        if ten.is_some() {
            self.crc = self.book.crc();
        }
        let sealed = |side: &Derived, levels: Levels| Levels { crc: self.crc, sum: side.sum, ..levels };
        Ok(BookChange {
            ten: ten.map(|l| sealed(&self.ten, l)),
            fifty: fifty.map(|l| sealed(&self.fifty, l)),
            book: Levels { crc: self.crc, sum: self.book.sum(), ..levels },
        })
    }

    /// All levels, as a snapshot.
    pub(crate) fn whole(&self) -> Levels {
        self.book.to_levels()
    }

    /// The ten best levels of each side, as a snapshot.
    pub(crate) fn ten(&self) -> Levels {
        self.ten.levels(self.crc)
    }

    /// The fifty best levels of each side, as a snapshot.
    pub(crate) fn fifty(&self) -> Levels {
        self.fifty.levels(self.crc)
    }

    fn settle(&mut self, done: Result<(), BookFault>) -> Result<(), BookFault> {
        let fault = match done {
            Ok(()) if self.book.is_crossed() => BookFault::Crossed,
            Ok(()) => {
                self.good = true;
                return Ok(());
            }
            Err(fault) => fault,
        };
        self.spoil();
        Err(fault)
    }
}

/// The best levels of each side, as they were last told.
#[derive(Debug)]
struct Derived {
    depth: usize,
    bids: Vec<Level>,
    asks: Vec<Level>,
    sum: u32,
}

impl Derived {
    fn new(depth: usize) -> Self {
        Self { depth, bids: Vec::new(), asks: Vec::new(), sum: 0 }
    }

    fn clear(&mut self) {
        self.bids.clear();
        self.asks.clear();
        self.sum = 0;
    }

    fn reset(&mut self, book: &Book) {
        let levels = book.to_levels_of(self.depth);
        (self.bids, self.asks, self.sum) = (levels.bids, levels.asks, levels.sum);
    }

    fn levels(&self, crc: u32) -> Levels {
        Levels { bids: self.bids.clone(), asks: self.asks.clone(), crc, sum: self.sum }
    }

    /// What the change of the book has changed here, if anything. Its sums are left to the caller.
    fn follow(&mut self, book: &Book, changed: &Levels) -> Option<Levels> {
        let mut levels = Levels::default();
        for side in [BookSide::Bid, BookSide::Ask] {
            let (shown, changed, out) = match side {
                BookSide::Bid => (&mut self.bids, &changed.bids, &mut levels.bids),
                BookSide::Ask => (&mut self.asks, &changed.asks, &mut levels.asks),
            };
            // In order, best first: if the best change lies behind the last level shown, all do.
            let Some(first) = changed.first() else { continue };
            if shown.len() == self.depth && shown.last().is_some_and(|last| is_better(side, last.price, first.price)) {
                continue;
            }
            follow_side(side, self.depth, shown, changed, out, &mut self.sum);
            refill(side, self.depth, shown, book, out, &mut self.sum);
            out.sort_unstable_by(|a, b| best_first(side, a, b));
        }
        (!levels.bids.is_empty() || !levels.asks.is_empty()).then_some(levels)
    }
}

/// Does to the levels shown what the change does to them, and appends what differs to `out`. What must move in from
/// below is left to [`refill`]. Costs what the change is long, not what is shown.
fn follow_side(
    side: BookSide,
    depth: usize,
    shown: &mut Vec<Level>,
    changed: &[Level],
    out: &mut Vec<Level>,
    sum: &mut u32,
) {
    let find = |shown: &[Level], price| match shown.partition_point(|s| is_better(side, s.price, price)) {
        at if shown.get(at).is_some_and(|s| s.price == price) => Ok(at),
        at => Err(at),
    };
    // Before anything moves in: what was there and is gone or has another size.
    for level in changed {
        let Ok(at) = find(shown, level.price) else { continue };
        if shown[at].size == level.size {
            continue;
        }
        *sum = sum.wrapping_sub(level_crc(side, shown[at]));
        if level.size.is_zero() {
            shown.remove(at);
        } else {
            *sum = sum.wrapping_add(level_crc(side, *level));
            shown[at] = *level;
        }
        out.push(*level);
    }
    let moved_in = out.len();
    for level in changed.iter().filter(|l| !l.size.is_zero()) {
        // Behind the last level shown the book may hold better ones than this.
        if let Err(at) = find(shown, level.price)
            && at < shown.len()
        {
            *sum = sum.wrapping_add(level_crc(side, *level));
            shown.insert(at, *level);
            out.push(*level);
        }
    }
    while shown.len() > depth
        && let Some(gone) = shown.pop()
    {
        *sum = sum.wrapping_sub(level_crc(side, gone));
        match out.iter().position(|o| o.price == gone.price) {
            // It moved in a moment ago and was never told: it is taken back.
            Some(at) if at >= moved_in => {
                out.remove(at);
            }
            Some(at) => out[at].size = Decimal::ZERO,
            None => out.push(Level { price: gone.price, size: Decimal::ZERO }),
        }
    }
}

/// Lets the book's next levels move in where there is room.
fn refill(side: BookSide, depth: usize, shown: &mut Vec<Level>, book: &Book, out: &mut Vec<Level>, sum: &mut u32) {
    // Everything better than the last level shown has been followed, so what comes next in the book comes next here.
    let (at, room) = (shown.len(), depth.saturating_sub(shown.len()));
    let mut push = |level: &Level| {
        *sum = sum.wrapping_add(level_crc(side, *level));
        shown.push(*level);
        out.push(*level);
    };
    match side {
        BookSide::Bid => book.bids().skip(at).take(room).for_each(&mut push),
        BookSide::Ask => book.asks().skip(at).take(room).for_each(&mut push),
    }
}

fn best_first(side: BookSide, a: &Level, b: &Level) -> Ordering {
    match side {
        BookSide::Bid => b.price.cmp(&a.price),
        BookSide::Ask => a.price.cmp(&b.price),
    }
}

fn is_better(side: BookSide, price: Decimal, than: Decimal) -> bool {
    match side {
        BookSide::Bid => price > than,
        BookSide::Ask => price < than,
    }
}

/// Are the levels those of a whole book: best first, each price once, no zero sizes?
fn is_whole(levels: &Levels) -> bool {
    let sorted = |side, list: &[Level]| list.windows(2).all(|w| is_better(side, w[0].price, w[1].price));
    let sized = |list: &[Level]| list.iter().all(|l| !l.size.is_zero());
    sorted(BookSide::Bid, &levels.bids)
        && sorted(BookSide::Ask, &levels.asks)
        && sized(&levels.bids)
        && sized(&levels.asks)
}

/// Best first, each price once: of two changes of one price the later holds.
fn put_in_order(levels: &mut Vec<Level>, side: BookSide) {
    if levels.windows(2).all(|w| is_better(side, w[0].price, w[1].price)) {
        return;
    }
    // Backwards before the stable sort, so that of equal prices the latest comes first and is kept.
    levels.reverse();
    levels.sort_by(|a, b| best_first(side, a, b));
    levels.dedup_by(|later, kept| later.price == kept.price);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(price: i64, size: i64) -> Level {
        Level { price: Decimal::new(price, 2), size: Decimal::from(size) }
    }

    /// The best levels of a plain sorted map: an independent recomputation.
    fn best(map: &std::collections::BTreeMap<Decimal, Decimal>, side: BookSide, depth: usize) -> Vec<Level> {
        let level = |(price, size): (&Decimal, &Decimal)| Level { price: *price, size: *size };
        match side {
            BookSide::Bid => map.iter().rev().take(depth).map(level).collect(),
            BookSide::Ask => map.iter().take(depth).map(level).collect(),
        }
    }

    #[test]
    fn derived_books_rebuilt_from_their_changes_equal_a_recomputation_after_every_event() {
        let mut rng = fastrand::Rng::with_seed(20_240_501);
        let mut book = DepthBook::new();
        let (mut bids, mut asks) = (std::collections::BTreeMap::new(), std::collections::BTreeMap::new());
        let mut rebuilt = [Book::new(), Book::new(), Book::new()];
        for step in 0..4_000 {
            let change = if step % 500 == 0 {
                let side =
                    |from: i64, sign: i64| (0..80).map(|i| level(from + sign * i * 3, 1 + i)).collect::<Vec<_>>();
                let levels = Levels { bids: side(9_999, -1), asks: side(10_001, 1), ..Levels::default() };
                bids = levels.bids.iter().map(|l| (l.price, l.size)).collect();
                asks = levels.asks.iter().map(|l| (l.price, l.size)).collect();
                let change = book.replace(levels).expect("a good snapshot");
                for (rebuilt, levels) in
                    rebuilt.iter_mut().zip([Some(&change.book), change.ten.as_ref(), change.fifty.as_ref()])
                {
                    rebuilt.replace(levels.expect("a snapshot for each")).expect("fits");
                }
                change
            } else {
                let mut some = |from: i64, sign: i64| {
                    (0..rng.usize(0..9))
                        .map(|_| level(from + sign * rng.i64(0..260), if rng.bool() { 0 } else { rng.i64(1..9) }))
                        .collect::<Vec<_>>()
                };
                let levels = Levels { bids: some(9_999, -1), asks: some(10_001, 1), ..Levels::default() };
                for (map, list) in [(&mut bids, &levels.bids), (&mut asks, &levels.asks)] {
                    for l in list {
                        if l.size.is_zero() {
                            map.remove(&l.price)
                        } else {
                            map.insert(l.price, l.size)
                        };
                    }
                }
                let change = book.apply(levels).expect("a good update");
                rebuilt[0].apply(&change.book).expect("fits");
                for (rebuilt, levels) in rebuilt[1..].iter_mut().zip([change.ten.as_ref(), change.fifty.as_ref()]) {
                    let Some(levels) = levels else { continue };
                    for (side, list) in [(BookSide::Bid, &levels.bids), (BookSide::Ask, &levels.asks)] {
                        for level in list {
                            assert!(rebuilt.set(side, *level).expect("fits"), "only what has changed is told");
                        }
                    }
                }
                change
            };
            for (rebuilt, (depth, levels)) in rebuilt.iter().zip([
                (usize::MAX, Some(&change.book)),
                (10, change.ten.as_ref()),
                (50, change.fifty.as_ref()),
            ]) {
                assert_eq!(
                    rebuilt.bids().copied().collect::<Vec<_>>(),
                    best(&bids, BookSide::Bid, depth),
                    "step {step}"
                );
                assert_eq!(
                    rebuilt.asks().copied().collect::<Vec<_>>(),
                    best(&asks, BookSide::Ask, depth),
                    "step {step}"
                );
                if let Some(levels) = levels {
                    assert_eq!((levels.crc, levels.sum), (rebuilt.crc(), rebuilt.sum()), "step {step}");
                    assert!(levels.bids.windows(2).all(|w| w[0].price > w[1].price), "best first");
                }
            }
            assert_eq!(
                (book.ten().sum, book.fifty().sum, book.whole().crc),
                (rebuilt[1].sum(), rebuilt[2].sum(), rebuilt[0].crc())
            );
        }
    }

    #[test]
    fn changes_below_a_derived_depth_do_not_touch_it() {
        let mut book = DepthBook::new();
        let bids = (0..60).map(|i| level(1_000 - i, 1)).collect();
        book.replace(Levels { bids, ..Levels::default() }).expect("good");
        let change = book.apply(Levels { bids: vec![level(970, 5)], ..Levels::default() }).expect("good");
        assert!(change.ten.is_none() && change.fifty.is_some());
        let change = book.apply(Levels { bids: vec![level(1_000, 0)], ..Levels::default() }).expect("good");
        assert_eq!(change.ten.expect("changed").bids, [level(1_000, 0), level(990, 1)], "what moves in is told");
        let change = book.apply(Levels { bids: vec![level(1_000, 1)], ..Levels::default() }).expect("good");
        assert_eq!(change.ten.expect("changed").bids, [level(1_000, 1), level(990, 0)], "what moves out too");
    }

    #[test]
    fn a_crossed_or_broken_book_waits_for_a_snapshot() {
        let mut book = DepthBook::new();
        let good = Levels { bids: vec![level(99, 1)], asks: vec![level(101, 1)], ..Levels::default() };
        book.replace(good.clone()).expect("good");
        let fault = book.apply(Levels { bids: vec![level(101, 1)], ..Levels::default() }).expect_err("crossed");
        assert_eq!((fault, book.is_good()), (BookFault::Crossed, false));
        book.replace(good).expect("good again");
        assert!(book.apply(Levels { bids: vec![level(98, -1)], ..Levels::default() }).is_err());
        assert!(!book.is_good());
    }

    #[test]
    fn lists_in_disorder_are_put_in_order() {
        let mut book = DepthBook::new();
        let levels = Levels { bids: vec![level(1, 1), level(3, 1), level(2, 0), level(3, 7)], ..Levels::default() };
        assert_eq!(book.replace(levels.clone()).expect("good").book.bids, [level(3, 7), level(1, 1)]);
        assert_eq!(book.apply(levels).expect("good").book.bids, [level(3, 7), level(2, 0), level(1, 1)]);
    }
}
