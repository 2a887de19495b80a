//! The best levels of a book as text, for checksums over the wire's own digits. A frame changes few of them: what was written
//! for the frame before is taken from there.

use ticker_market::book::{Book, BookSide, order};
use ticker_market::{Decimal, Level};

use crate::Fault;
use crate::keeper::Wrong;

/// Both sides of a book, as one venue writes them.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    depth: usize,
    /// Appends one level.
    write: fn(&mut Vec<u8>, BookSide, &Level),
    bids: Lines,
    asks: Lines,
    /// Both sides in turn, kept for its capacity.
    in_turn: Vec<u8>,
}

/// One side.
#[derive(Clone, Default, Debug)]
struct Lines {
    now: Text,
    /// What it was until the last change.
    before: Text,
}

#[derive(Clone, Default, Debug)]
struct Text {
    /// Best first.
    levels: Vec<Level>,
    /// Where the text of each ends.
    ends: Vec<usize>,
    bytes: Vec<u8>,
}

impl Written {
    /// Of so many levels a side.
    pub(crate) fn new(depth: usize, write: fn(&mut Vec<u8>, BookSide, &Level)) -> Self {
        Self { depth, write, bids: Lines::default(), asks: Lines::default(), in_turn: Vec::new() }
    }

    /// Writes the book's levels that are new or have changed.
    pub(crate) fn renew(&mut self, book: &Book) {
        let Self { depth, write, bids, asks, .. } = self;
        bids.renew(BookSide::Bid, book.bids().take(*depth), *write);
        asks.renew(BookSide::Ask, book.asks().take(*depth), *write);
    }

    /// The text of one side.
    pub(crate) fn side(&self, side: BookSide) -> &[u8] {
        match side {
            BookSide::Bid => &self.bids.now.bytes,
            BookSide::Ask => &self.asks.now.bytes,
        }
    }

    /// Is CRC-32 over the levels of both sides in turn, bids first, joined by colons, what was expected? Each is written with a
    /// colon behind it.
    pub(crate) fn prove_in_turn(&mut self, book: &Book, expected: i64) -> Result<(), Wrong> {
        self.renew(book);
        let text = self.in_turn();
        let found = i64::from(crc32fast::hash(text.strip_suffix(b":").unwrap_or(text)).cast_signed());
        if found == expected {
            return Ok(());
        }
        Err(Wrong { fault: Fault::Checksum, detail: format!("checksum {found}, expected {expected}") })
    }

    /// The levels of both sides in turn, bids first, as long as there are any.
    fn in_turn(&mut self) -> &[u8] {
        let (bids, asks, text) = (&self.bids.now, &self.asks.now, &mut self.in_turn);
        text.clear();
        for at in 0..bids.ends.len().max(asks.ends.len()) {
            text.extend_from_slice(bids.line(at));
            text.extend_from_slice(asks.line(at));
        }
        text
    }
}

impl Lines {
    fn renew<'a>(
        &mut self,
        side: BookSide,
        levels: impl Iterator<Item = &'a Level>,
        write: fn(&mut Vec<u8>, BookSide, &Level),
    ) {
        std::mem::swap(&mut self.now, &mut self.before);
        let (now, before) = (&mut self.now, &self.before);
        now.clear();
        // The next of those before, and the first of them that are the same and wait to be taken together.
        let (mut next, mut first) = (0, 0);
        for level in levels {
            let is_gone = |old: &Level| match side {
                BookSide::Bid => order(old.price, level.price).is_gt(),
                BookSide::Ask => order(old.price, level.price).is_lt(),
            };
            let mut at = next;
            while before.levels.get(at).is_some_and(is_gone) {
                at += 1;
            }
            let is_same = before.levels.get(at).is_some_and(|old| is_written_alike(old, level));
            if !is_same || at != next {
                now.take(before, first..next);
                first = at;
            }
            next = at;
            if is_same {
                next += 1;
            } else {
                write(&mut now.bytes, side, level);
                now.levels.push(*level);
                now.ends.push(now.bytes.len());
            }
        }
        now.take(before, first..next);
    }
}

impl Text {
    fn clear(&mut self) {
        self.levels.clear();
        self.ends.clear();
        self.bytes.clear();
    }

    fn start(&self, at: usize) -> usize {
        at.checked_sub(1).and_then(|last| self.ends.get(last)).copied().unwrap_or(0)
    }

    /// Empty behind the last.
    fn line(&self, at: usize) -> &[u8] {
        self.ends.get(at).map_or(&[], |end| &self.bytes[self.start(at)..*end])
    }

    /// Appends these of another one.
    fn take(&mut self, from: &Text, lines: std::ops::Range<usize>) {
        if lines.is_empty() {
            return;
        }
        let (start, length) = (from.start(lines.start), self.bytes.len());
        self.levels.extend_from_slice(&from.levels[lines.clone()]);
        self.ends.extend(from.ends[lines.clone()].iter().map(|end| end - start + length));
        self.bytes.extend_from_slice(&from.bytes[start..from.start(lines.end)]);
    }
}

/// Have both numbers the same digits and scale?
fn is_written_alike(a: &Level, b: &Level) -> bool {
    let is_alike = |a: Decimal, b: Decimal| a.unpack() == b.unpack();
    is_alike(a.price, b.price) && is_alike(a.size, b.size)
}

#[cfg(test)]
mod tests {
    use ticker_market::decimal::write_as_is;

    use super::*;

    fn write(text: &mut Vec<u8>, side: BookSide, level: &Level) {
        text.push(if side == BookSide::Bid { b'b' } else { b'a' });
        write_as_is(text, level.price);
        text.push(b':');
        write_as_is(text, level.size);
        text.push(b' ');
    }

    #[test]
    fn what_is_taken_from_before_is_what_would_be_written() {
        let (mut rng, mut book) = (fastrand::Rng::with_seed(5), Book::without_sum());
        let mut written = Written::new(5, write);
        for _ in 0..5_000 {
            for _ in 0..rng.usize(..4) {
                let (side, price) = (if rng.bool() { BookSide::Bid } else { BookSide::Ask }, rng.i64(1..12));
                // The digits alone may change: `1.50` for `1.5`.
                let price = Decimal::new(price * 10_i64.pow(rng.u32(..2)), 0).max(Decimal::ONE);
                let mut size = Decimal::from(rng.i64(0..4));
                size.rescale(rng.u32(..3));
                book.set(side, Level { price, size }).expect("a good level");
            }
            written.renew(&book);
            let mut anew = Written::new(5, write);
            anew.renew(&book);
            for side in [BookSide::Bid, BookSide::Ask] {
                assert_eq!(written.side(side), anew.side(side));
            }
            let (mut bids, mut asks, mut wanted) = (book.bids().take(5), book.asks().take(5), Vec::new());
            for _ in 0..5 {
                bids.next().into_iter().for_each(|level| write(&mut wanted, BookSide::Bid, level));
                asks.next().into_iter().for_each(|level| write(&mut wanted, BookSide::Ask, level));
            }
            assert_eq!(written.in_turn(), wanted);
        }
    }
}
