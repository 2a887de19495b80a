//! The best levels of a book as text, for checksums over the wire's own digits. A frame changes few of them: only those are
//! written.

use std::cmp::Ordering;

use ticker_market::book::{Book, BookSide, order};
use ticker_market::{Level, Levels};

use crate::Fault;
use crate::keeper::Wrong;

/// Lines of a side beyond those that the checksum covers that are written with them: when a level goes, the next is there.
const LINES_BEYOND: usize = 8;

/// Changes of a side that are written one by one, at most. After more, the lines are laid beside the book's levels.
const EDITS_MAX: usize = 8;

/// Bytes that a line seldom has more of.
const LINE_USUAL: usize = 32;

/// Both sides of a book, as one venue writes them. What is written are the book's best levels, as long as it is told of
/// each change ([`Written::follow`]); where it is not, it is to forget them.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    depth: usize,
    /// Appends one level.
    write: fn(&mut Vec<u8>, BookSide, &Level),
    bids: Lines,
    asks: Lines,
    /// Those of a side before a change, kept for their capacity.
    before: Lines,
    /// Both sides in turn.
    in_turn: Vec<u8>,
    /// The last checksum, and how many lines of each side are what they were then.
    crc: u32,
    same: usize,
}

/// One side, best first.
#[derive(Clone, Default, Debug)]
struct Lines {
    levels: Vec<Level>,
    /// Where the text of each ends.
    ends: Vec<usize>,
    text: Vec<u8>,
    /// A line, kept for its capacity.
    line: Vec<u8>,
}

impl Written {
    /// Of so many levels a side.
    pub(crate) fn new(depth: usize, write: fn(&mut Vec<u8>, BookSide, &Level)) -> Self {
        let [bids, asks, before] = [(); 3].map(|()| Lines::default());
        Self { depth, write, bids, asks, before, in_turn: Vec::new(), crc: 0, same: 0 }
    }

    /// The book is another.
    pub(crate) fn forget(&mut self) {
        self.bids.cut(0);
        self.asks.cut(0);
        self.same = 0;
    }

    /// Is nothing written?
    pub(crate) fn is_empty(&self) -> bool {
        self.bids.levels.is_empty() && self.asks.levels.is_empty()
    }

    /// These levels of the book were set, and no others.
    pub(crate) fn follow(&mut self, book: &Book, changes: &Levels) {
        let Self { depth, write, bids, asks, before, .. } = self;
        for (side, lines, changes) in [(BookSide::Bid, bids, &changes.bids), (BookSide::Ask, asks, &changes.asks)] {
            let first = lines.follow(book, side, changes, *depth, *write, before);
            self.same = self.same.min(first);
        }
    }

    /// CRC-32 over all asks, then all bids.
    pub(crate) fn crc_by_side(&mut self) -> u32 {
        if self.same < self.depth {
            let mut hasher = crc32fast::Hasher::new();
            for lines in [&self.asks, &self.bids] {
                hasher.update(&lines.text[..lines.start(self.depth)]);
            }
            (self.crc, self.same) = (hasher.finalize(), self.depth);
        }
        self.crc
    }

    /// Is CRC-32 over the levels of both sides in turn, bids first, joined by colons, what was expected? Each is written with
    /// a colon behind it.
    pub(crate) fn prove_in_turn(&mut self, expected: i64) -> Result<(), Wrong> {
        if self.same < self.depth {
            let text = self.in_turn();
            let crc = crc32fast::hash(text.strip_suffix(b":").unwrap_or(text));
            (self.crc, self.same) = (crc, self.depth);
        }
        let found = i64::from(self.crc.cast_signed());
        if found == expected {
            return Ok(());
        }
        Err(Wrong { fault: Fault::Checksum, detail: format!("checksum {found}, expected {expected}") })
    }

    /// The levels of both sides in turn, bids first, as long as there are any.
    fn in_turn(&mut self) -> &[u8] {
        let (bids, asks, text) = (&self.bids, &self.asks, &mut self.in_turn);
        let (mut bid, mut ask) = (bids.start(self.same), asks.start(self.same));
        let mut length = bid + ask;
        let most = bids.text.len() + asks.text.len() + LINE_USUAL;
        if text.len() < most {
            text.resize(most, 0);
        }
        let mut put = |lines: &Lines, at: usize, start: &mut usize| {
            let Some(end) = lines.ends.get(at) else { return };
            let (to, line, bytes) = (&mut text[length..], &lines.text[*start..], end - *start);
            // A copy of known length is quicker: what is too much is written over.
            match (to.first_chunk_mut::<LINE_USUAL>(), line.first_chunk()) {
                (Some(to), Some(line)) if bytes <= LINE_USUAL => *to = *line,
                _ => to[..bytes].copy_from_slice(&line[..bytes]),
            }
            (length, *start) = (length + bytes, *end);
        };
        for at in self.same..self.depth {
            put(bids, at, &mut bid);
            put(asks, at, &mut ask);
        }
        &text[..length]
    }
}

impl Lines {
    /// Returns the first line that is another now.
    fn follow(
        &mut self,
        book: &Book,
        side: BookSide,
        changes: &[Level],
        depth: usize,
        write: fn(&mut Vec<u8>, BookSide, &Level),
        before: &mut Self,
    ) -> usize {
        let mut first = usize::MAX;
        if changes.len() > EDITS_MAX {
            let best = changes.iter().max_by(|a, b| against(side, a, b));
            if best.is_some_and(|best| self.place(side, best).is_some()) {
                std::mem::swap(self, before);
                first = self.renew(before, side, levels(book, side).take(depth + LINES_BEYOND), write);
            }
        } else {
            for level in changes {
                let (at, is_there) = match self.place(side, level) {
                    // What is worse than all lines is taken from the book when it is wanted.
                    Some((at, is_there)) if is_there || !level.size.is_zero() => (at, is_there),
                    _ => continue,
                };
                first = first.min(at);
                if level.size.is_zero() {
                    self.remove(at);
                } else {
                    write(&mut self.line, side, level);
                    self.put(at, is_there, level);
                }
            }
        }
        let most = book.levels(side).min(depth + 2 * LINES_BEYOND);
        if self.levels.len() > most {
            self.cut(most);
            first = first.min(most);
        }
        if self.levels.len() < depth {
            first = first.min(self.levels.len());
            for level in levels(book, side).take(depth + LINES_BEYOND).skip(self.levels.len()) {
                write(&mut self.line, side, level);
                self.put(self.levels.len(), false, level);
            }
        }
        debug_assert!(self.is_of(book, side), "a change of the book was not told");
        first
    }

    /// Writes these levels, but for those that were written before. Returns the first line that is another now.
    fn renew<'a>(
        &mut self,
        before: &Self,
        side: BookSide,
        levels: impl Iterator<Item = &'a Level>,
        write: fn(&mut Vec<u8>, BookSide, &Level),
    ) -> usize {
        self.cut(0);
        let (mut old, mut first) = (0, usize::MAX);
        for (at, level) in levels.enumerate() {
            while before.levels.get(old).is_some_and(|line| against(side, level, line).is_lt()) {
                old += 1;
            }
            match before.levels.get(old) {
                Some(line) if digits(line) == digits(level) => {
                    self.text.extend_from_slice(&before.text[before.start(old)..before.ends[old]]);
                    first = if old == at { first } else { first.min(at) };
                }
                _ => {
                    write(&mut self.text, side, level);
                    first = first.min(at);
                }
            }
            self.levels.push(*level);
            self.ends.push(self.text.len());
        }
        // Fewer lines are others as well.
        first.min(self.levels.len())
    }

    /// Where the line of a price is, or would be: none where that is behind the last. And is it there?
    #[inline]
    fn place(&self, side: BookSide, level: &Level) -> Option<(usize, bool)> {
        // Most that is not near the best price is not near at all.
        if against(side, level, self.levels.last()?).is_lt() {
            return None;
        }
        self.levels.iter().enumerate().find_map(|(at, line)| {
            let found = against(side, level, line);
            found.is_ge().then_some((at, found.is_eq()))
        })
    }

    /// Puts the line that was written to its place.
    fn put(&mut self, at: usize, is_there: bool, level: &Level) {
        let start = self.start(at);
        if is_there {
            self.levels[at] = *level;
        } else {
            self.levels.insert(at, *level);
            self.ends.insert(at, start);
        }
        self.exchange(at, start..self.ends[at]);
    }

    fn remove(&mut self, at: usize) {
        let old = self.start(at)..self.ends[at];
        self.levels.remove(at);
        self.ends.remove(at);
        self.exchange(at, old);
    }

    /// Puts the line that was written, or nothing, to where that text is: lines from there on end elsewhere then.
    fn exchange(&mut self, at: usize, old: std::ops::Range<usize>) {
        let (length, new, gone) = (self.text.len(), self.line.len(), old.len());
        for end in &mut self.ends[at..] {
            *end = *end + new - gone;
        }
        // Quicker than to splice, which takes what is new byte by byte.
        if new > gone {
            self.text.resize(length + new - gone, 0);
        }
        self.text.copy_within(old.end..length, old.start + new);
        self.text.truncate(length + new - gone);
        self.text[old.start..][..new].copy_from_slice(&self.line);
        self.line.clear();
    }

    /// Leaves so many lines.
    fn cut(&mut self, count: usize) {
        self.text.truncate(self.start(count));
        self.levels.truncate(count);
        self.ends.truncate(count);
    }

    /// Where a line starts; the end of the text behind the last.
    fn start(&self, at: usize) -> usize {
        at.min(self.ends.len()).checked_sub(1).map_or(0, |last| self.ends[last])
    }

    /// Are these the book's best levels, digit for digit?
    fn is_of(&self, book: &Book, side: BookSide) -> bool {
        self.levels.iter().map(digits).eq(levels(book, side).take(self.levels.len()).map(digits))
    }
}

/// What the text of a level follows from.
#[inline]
fn digits(level: &Level) -> impl PartialEq + use<> {
    (level.price.unpack(), level.size.unpack())
}

/// Greater is better.
#[inline]
fn against(side: BookSide, level: &Level, other: &Level) -> Ordering {
    match side {
        BookSide::Bid => order(level.price, other.price),
        BookSide::Ask => order(other.price, level.price),
    }
}

fn levels(book: &Book, side: BookSide) -> impl Iterator<Item = &Level> {
    match side {
        BookSide::Bid => book.bids(),
        BookSide::Ask => book.asks(),
    }
}

#[cfg(test)]
mod tests {
    use ticker_market::Decimal;
    use ticker_market::decimal::write_as_is;

    use super::*;

    fn write(text: &mut Vec<u8>, side: BookSide, level: &Level) {
        text.push(if side == BookSide::Bid { b'b' } else { b'a' });
        write_as_is(text, level.price);
        text.push(b':');
        write_as_is(text, level.size);
        text.push(b':');
    }

    #[test]
    fn what_is_kept_is_what_would_be_written() {
        let (mut rng, mut book) = (fastrand::Rng::with_seed(5), Book::without_sum());
        let (mut by_side, mut in_turn) = (Written::new(5, write), Written::new(5, write));
        for round in 0..20_000 {
            let mut changes = Levels::default();
            for _ in 0..if rng.bool() { rng.usize(..4) } else { rng.usize(..24) } {
                let (list, price) = (if rng.bool() { &mut changes.bids } else { &mut changes.asks }, rng.i64(1..40));
                // The digits alone may change: `1.50` for `1.5`.
                let mut price = Decimal::from(price);
                price.rescale(rng.u32(..2));
                let mut size = Decimal::from(rng.i64(0..4));
                size.rescale(rng.u32(..3));
                list.push(Level { price, size });
            }
            book.apply(&changes).expect("good levels");
            // Some venues' books are as deep as their checksum.
            if round > 10_000 {
                book.truncate(BookSide::Bid, 5, &mut Vec::new());
            }
            for written in [&mut by_side, &mut in_turn] {
                if rng.u8(..50) == 0 {
                    written.forget();
                }
                written.follow(&book, &changes);
            }
            let (mut bids, mut asks, mut turns) = (Vec::new(), Vec::new(), Vec::new());
            for at in 0..5 {
                for (level, side, sides) in
                    [(book.bids().nth(at), BookSide::Bid, &mut bids), (book.asks().nth(at), BookSide::Ask, &mut asks)]
                {
                    let Some(level) = level else { continue };
                    write(sides, side, level);
                    write(&mut turns, side, level);
                }
            }
            assert_eq!(by_side.crc_by_side(), crc32fast::hash(&[asks, bids].concat()));
            turns.pop();
            in_turn.prove_in_turn(i64::from(crc32fast::hash(&turns).cast_signed())).expect("the same text");
        }
    }
}
