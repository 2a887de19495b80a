//! Applies a frame's changes to a book, and finds out what is different.

use std::cmp::Ordering;

use ticker_market::book::{Book, BookError, BookSide, InOrder, is_same, order};
use ticker_market::{Decimal, Level};

/// What it needs meanwhile, kept for its capacity.
#[derive(Default, Debug)]
pub(super) struct Changer {
    /// What the changed levels of a frame had before.
    before: Vec<Decimal>,
    touched: Vec<Touched>,
    cut: Vec<Level>,
}

/// What a frame did to a price.
#[derive(Clone, Copy, Debug)]
struct Touched {
    level: Level,
    /// The size that it had before.
    before: Decimal,
    /// Its place in the frame.
    place: usize,
}

impl Changer {
    /// Applies one side's changes, cuts it to the depth, and returns what is different from before, best first, in
    /// `changed`, which is empty.
    pub(super) fn apply(
        &mut self,
        book: &mut Book,
        side: BookSide,
        changes: &[Level],
        depth: usize,
        mut changed: Vec<Level>,
    ) -> Result<Vec<Level>, BookError> {
        // Many frames change one side.
        if changes.is_empty() && book.levels(side) <= depth {
            return Ok(changed);
        }
        let before = &mut self.before;
        before.clear();
        let in_order = book.exchange_all(side, changes, |level, was| {
            if !is_same(was, &level.size) {
                changed.push(*level);
                before.push(*was);
            }
        })?;
        // Most venues send a side in order, one way or the other, and each price once.
        let is_best_first = in_order == InOrder::BestFirst;
        if book.levels(side) > depth || !is_best_first {
            self.settle(book, side, depth, &mut changed);
        }
        Ok(changed)
    }

    /// Cuts a side to the depth, and puts what is different best first, each price once.
    fn settle(&mut self, book: &mut Book, side: BookSide, depth: usize, changed: &mut Vec<Level>) {
        self.cut.clear();
        book.truncate(side, depth, &mut self.cut);
        self.touched.clear();
        let changes = changed.drain(..).zip(self.before.iter().copied());
        // What a level that is cut had before is not zero, unless it came in this frame: then that is said by its first
        // place.
        let cut = self.cut.iter().map(|level| (*level, Decimal::ONE));
        let all = changes.chain(cut).enumerate();
        self.touched.extend(all.map(|(place, (level, before))| Touched { level, before, place }));
        self.touched.sort_unstable_by(|a, b| best_first(side, &a.level, &b.level).then(a.place.cmp(&b.place)));
        // Of several changes of one price, the first says what it was, and the last what it is.
        for of_one in self.touched.chunk_by(|a, b| order(a.level.price, b.level.price).is_eq()) {
            if let ([first, ..], [.., last]) = (of_one, of_one)
                && !is_same(&first.before, &last.level.size)
            {
                changed.push(last.level);
            }
        }
    }
}

fn best_first(side: BookSide, a: &Level, b: &Level) -> Ordering {
    match side {
        BookSide::Bid => order(b.price, a.price),
        BookSide::Ask => order(a.price, b.price),
    }
}
