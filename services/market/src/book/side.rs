//! One side of a book: levels in runs, of which the best is last, and within each the best level.
//!
//! A price has a key: a whole number of a common scale, in the order of this side, worst first. Keys lie close together,
//! and are all that a search looks through until it has found its place. A change far from the best price moves the rest
//! of its run, never the rest of the side, so that a side of thirty thousand levels costs little more than one of ten.
//!
//! Nearly always a key is the price. Where a price has more digits than the scale, or more than fit, keys keep the order
//! but two prices may share one: then the prices themselves are compared.

use std::hint::select_unpredictable;

use super::{BookError, InOrder, LEVELS_PER_SIDE_MAX, is_same, order};
use crate::event::Level;
use crate::{Decimal, decimal};

/// Levels of a run, at most: 1.2 KiB. One that is full is divided. One less than a power of two: then as many questions
/// as it has bits find every place.
const RUN_MAX: usize = 31;

/// Two neighbours that have no more than this together become one.
const RUNS_JOINED: usize = 12;

/// Levels of a run that is filled from a snapshot: room is left for changes.
const RUN_FILLED: usize = 24;

/// Runs next to the best price that are looked at all at once.
const RUNS_NEAR: usize = 8;

/// Empty runs that are kept for their room, at most.
const SPARE_MAX: usize = 8;

/// Digits behind the point of a key, at most: a price with as many may be as large as nine.
const SCALE_MAX: u32 = 18;

#[derive(Clone, Debug)]
pub(super) struct Side {
    is_ask: bool,
    /// Digits behind the point of the keys.
    scale: u32,
    /// None is empty.
    runs: Vec<Run>,
    /// The first key of each run, which is its worst: close together, because they are looked through often.
    worst: Vec<i64>,
    len: usize,
    spare: Vec<Run>,
    /// Where the levels of a change are, kept for its capacity.
    found: Vec<Found>,
}

#[derive(Clone, Debug)]
struct Run {
    /// One for each level; behind them [`NO_KEY`].
    keys: Box<[i64; RUN_MAX + 1]>,
    levels: Vec<Level>,
}

/// Not below any key.
const NO_KEY: i64 = i64::MAX;

/// Where a level is, or would be: its run, and its place there. One number, so that it never goes by memory.
#[derive(Clone, Copy, Debug)]
struct Place(u64);

impl Place {
    #[inline]
    fn new(run: usize, at: usize) -> Self {
        Self((run as u64) << 32 | at as u64)
    }

    #[inline]
    fn run(self) -> usize {
        (self.0 >> 32) as usize
    }

    #[inline]
    fn at(self) -> usize {
        self.0 as u32 as usize
    }
}

/// What is known of a changed level before it is set.
#[derive(Clone, Copy, Debug)]
struct Found {
    key: i64,
    place: Place,
    /// Is the key there?
    is_there: bool,
}

impl Side {
    pub(super) fn bids() -> Self {
        Self {
            is_ask: false,
            scale: 0,
            runs: Vec::new(),
            worst: Vec::new(),
            len: 0,
            spare: Vec::new(),
            found: Vec::new(),
        }
    }

    pub(super) fn asks() -> Self {
        Self { is_ask: true, ..Self::bids() }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn best(&self) -> Option<&Level> {
        self.runs.last()?.levels.last()
    }

    /// Best first.
    pub(super) fn iter(&self) -> Best<'_> {
        Best { runs: self.runs.iter(), front: [].iter(), back: [].iter(), left: self.len }
    }

    /// Looks for a price.
    pub(super) fn find(&self, price: &Decimal) -> Option<&Level> {
        let (place, is_there) = self.settle(self.found(self.key(price)), price);
        is_there.then(|| self.at(place))
    }

    fn found(&self, key: i64) -> Found {
        let run = self.run_of(key);
        let (at, is_there) = self.runs.get(run).map_or((0, false), |run| run.search(key));
        Found { key, place: Place::new(run, at), is_there }
    }

    /// The last run whose worst price is not better, or the first one. Most changes are near the best price.
    ///
    /// To begin at the run of the change before is slower: what cannot be foretold holds up the searches after it.
    #[inline(always)]
    fn run_of(&self, key: i64) -> usize {
        match self.worst.last_chunk::<RUNS_NEAR>() {
            Some(near) if near[0] <= key => {
                let others = near[1..].iter().map(|worst| usize::from(*worst <= key)).sum::<usize>();
                self.worst.len() - RUNS_NEAR + others
            }
            _ => self.worst.partition_point(|worst| *worst <= key).saturating_sub(1),
        }
    }

    /// Is the price there? And if it is not, as its key is another's: where is it?
    #[inline(always)]
    fn settle(&self, found: Found, price: &Decimal) -> (Place, bool) {
        let place = found.place;
        if !found.is_there {
            return (place, false);
        }
        match self.runs.get(place.run()).and_then(|run| run.levels.get(place.at())) {
            Some(level) if is_same(&level.price, price) => (place, true),
            Some(_) => self.find_by_price(price),
            None => (place, false),
        }
    }

    /// Sets levels, as [`Book::exchange_all`](super::Book::exchange_all). `told` is given each before it is set.
    #[inline]
    pub(super) fn exchange_all(
        &mut self,
        levels: &[Level],
        mut told: impl FnMut(&Level, &Decimal),
    ) -> Result<InOrder, BookError> {
        let mut all = std::mem::take(&mut self.found);
        if all.len() < levels.len() {
            all.resize(levels.len(), Found { key: 0, place: Place(0), is_there: false });
        }
        let result = self.exchange_found(levels, &mut all[..levels.len()], &mut told);
        self.found = all;
        result
    }

    #[inline]
    fn exchange_found(
        &mut self,
        levels: &[Level],
        all: &mut [Found],
        told: &mut impl FnMut(&Level, &Decimal),
    ) -> Result<InOrder, BookError> {
        // First all runs, then all places, then all changes: of what does not depend on each other the processor does
        // several at once.
        let (mut is_best_first, mut is_best_last, mut last) = (true, true, None);
        for (found, level) in all.iter_mut().zip(levels) {
            let key = self.key(&level.price);
            if let Some(last) = last {
                is_best_first &= key < last;
                is_best_last &= key > last;
            }
            last = Some(key);
            found.key = key;
            found.place = Place::new(self.run_of(key), 0);
        }
        for found in all.iter_mut() {
            let run = found.place.run();
            let (at, is_there) = self.runs.get(run).map_or((0, false), |run| run.search(found.key));
            found.place = Place::new(run, at);
            found.is_there = is_there;
        }
        let in_order = if is_best_first || is_best_last { InOrder::BestFirst } else { InOrder::AsTheyCame };
        // From best to worst no change moves what comes after it, unless runs are divided or joined. Places from this run
        // on are to be looked for again.
        let mut stale = if in_order == InOrder::BestFirst { usize::MAX } else { 0 };
        let (scale, mut runs) = (self.scale, self.runs.len());
        for i in 0..levels.len() {
            let i = if is_best_first || !is_best_last { i } else { levels.len() - 1 - i };
            let (Some(level), Some(found)) = (levels.get(i), all.get(i)) else { break };
            let run = if found.place.run() >= stale {
                self.exchange(self.found(self.key(&level.price)), level, told)?
            } else {
                self.exchange(*found, level, told)?
            };
            if self.runs.len() != runs {
                (runs, stale) = (self.runs.len(), stale.min(run));
            }
            if self.scale != scale {
                stale = 0;
            }
        }
        Ok(in_order)
    }

    /// Sets one level, of which that is known. Returns its run.
    #[inline(always)]
    fn exchange(
        &mut self,
        found: Found,
        level: &Level,
        told: &mut impl FnMut(&Level, &Decimal),
    ) -> Result<usize, BookError> {
        let is_gone = level.size.is_zero();
        if level.size.is_sign_negative() && !is_gone {
            return Err(BookError::NegativeSize);
        }
        let (place, is_there) = self.settle(found, &level.price);
        if !is_there && !is_gone && self.len >= LEVELS_PER_SIDE_MAX {
            return Err(BookError::TooManyLevels);
        }
        let before = if is_there { self.at(place).size } else { Decimal::ZERO };
        told(level, &before);
        match (is_there, is_gone) {
            (true, true) => self.remove(place),
            // Of one price the digits may differ, so that this may change how it is written, not its key. The digits of
            // the wire are those of the last change, for venues that prove them.
            (true, false) => self.runs[place.run()].levels[place.at()] = *level,
            (false, true) => {}
            (false, false) => self.insert(place, found.key, level),
        }
        Ok(place.run())
    }

    /// Looks for a price that shares its key with another one.
    #[cold]
    fn find_by_price(&self, price: &Decimal) -> (Place, bool) {
        let cmp = |level: &Level| if self.is_ask { order(*price, level.price) } else { order(level.price, *price) };
        let run = self.runs.partition_point(|run| cmp(&run.levels[0]).is_le()).saturating_sub(1);
        match self.runs[run].levels.binary_search_by(cmp) {
            Ok(at) => (Place::new(run, at), true),
            Err(at) => (Place::new(run, at), false),
        }
    }

    fn at(&self, place: Place) -> &Level {
        &self.runs[place.run()].levels[place.at()]
    }

    fn insert(&mut self, place: Place, key: i64, level: &Level) {
        let key = if self.rescale(&level.price) { self.key(&level.price) } else { key };
        let (mut run, mut at) = (place.run(), place.at());
        self.len += 1;
        if self.runs.is_empty() {
            let run = self.run();
            self.runs.push(run);
            self.worst.push(key);
        }
        if self.runs[run].levels.len() >= RUN_MAX {
            let half = RUN_MAX / 2;
            let mut upper = self.run();
            self.runs[run].give(half, &mut upper);
            self.worst.insert(run + 1, upper.keys[0]);
            self.runs.insert(run + 1, upper);
            if at > half {
                (run, at) = (run + 1, at - half);
            }
        }
        self.runs[run].insert(at, key, *level);
        if at == 0 {
            self.worst[run] = key;
        }
    }

    fn remove(&mut self, place: Place) {
        let (run, at) = (place.run(), place.at());
        self.runs[run].remove(at);
        self.len -= 1;
        let left = self.runs[run].levels.len();
        if left == 0 {
            self.give_up(run);
        } else {
            if at == 0 {
                self.worst[run] = self.runs[run].keys[0];
            }
            if run > 0 && left + self.runs[run - 1].levels.len() <= RUNS_JOINED {
                let (before, after) = self.runs.split_at_mut(run);
                after[0].give(0, &mut before[run - 1]);
                self.give_up(run);
            }
        }
    }

    /// Appends a level that is better than all others.
    pub(super) fn push(&mut self, level: Level) {
        self.rescale(&level.price);
        let key = self.key(&level.price);
        self.len += 1;
        match self.runs.last_mut() {
            Some(run) if run.levels.len() < RUN_FILLED => run.insert(run.levels.len(), key, level),
            _ => {
                let mut run = self.run();
                run.insert(0, key, level);
                self.runs.push(run);
                self.worst.push(key);
            }
        }
    }

    /// Removes the worst levels until `depth` are left, and appends them to `removed`.
    pub(super) fn truncate(&mut self, depth: usize, removed: &mut Vec<Level>) {
        let mut extra = self.len.saturating_sub(depth);
        self.len -= extra;
        while extra > 0 {
            let run = &mut self.runs[0];
            let count = run.levels.len().min(extra);
            run.cut(count, removed);
            extra -= count;
            if run.levels.is_empty() {
                self.give_up(0);
            } else {
                self.worst[0] = run.keys[0];
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.worst.clear();
        while let Some(mut run) = self.runs.pop() {
            run.clear();
            self.keep(run);
        }
        self.len = 0;
    }

    /// An empty run. The first grows as it must, because most books are small; where there are others it has its room.
    fn run(&mut self) -> Run {
        let room = if self.runs.is_empty() { 0 } else { RUN_MAX };
        self.spare
            .pop()
            .unwrap_or_else(|| Run { keys: Box::new([NO_KEY; RUN_MAX + 1]), levels: Vec::with_capacity(room) })
    }

    /// Takes an empty run out.
    fn give_up(&mut self, run: usize) {
        self.worst.remove(run);
        let run = self.runs.remove(run);
        self.keep(run);
    }

    fn keep(&mut self, run: Run) {
        if self.spare.len() < SPARE_MAX {
            self.spare.push(run);
        }
    }

    #[inline]
    fn key(&self, price: &Decimal) -> i64 {
        key_of(price, self.scale, self.is_ask)
    }

    /// Makes the scale of the keys that of a price with more digits, if all fit. Returns whether it is another now.
    #[inline]
    fn rescale(&mut self, price: &Decimal) -> bool {
        if price.scale() <= self.scale && self.len > 0 {
            return false;
        }
        self.rescale_to(*price)
    }

    fn rescale_to(&mut self, price: Decimal) -> bool {
        let scale = price.scale().min(SCALE_MAX);
        let ends = [self.runs.first().and_then(|run| run.levels.first()), self.best()];
        let fits = |price: Decimal| {
            let up = 10i128.pow(scale.saturating_sub(price.scale()));
            i64::try_from(price.mantissa().saturating_mul(up)).is_ok()
        };
        if scale == self.scale || !fits(price) || !ends.into_iter().flatten().all(|level| fits(level.price)) {
            return false;
        }
        self.scale = scale;
        let is_ask = self.is_ask;
        for (run, worst) in self.runs.iter_mut().zip(&mut self.worst) {
            for (key, level) in run.keys.iter_mut().zip(&run.levels) {
                *key = key_of(&level.price, scale, is_ask);
            }
            *worst = run.keys[0];
        }
        true
    }
}

impl Run {
    /// The place of the first key that is not below this one, and whether it is this one.
    #[inline(always)]
    fn search(&self, key: i64) -> (usize, bool) {
        let mut at = 0;
        for half in [16, 8, 4, 2, 1] {
            // Chance decides, so that no branch can be foretold.
            at = select_unpredictable(self.keys[at + half - 1] < key, at + half, at);
        }
        (at, self.keys[at] == key)
    }

    fn insert(&mut self, at: usize, key: i64, level: Level) {
        self.keys.copy_within(at..self.levels.len(), at + 1);
        self.keys[at] = key;
        self.levels.insert(at, level);
    }

    fn remove(&mut self, at: usize) {
        self.levels.remove(at);
        self.keys.copy_within(at + 1.., at);
    }

    /// Gives the levels from there on to another, which has worse ones, or none.
    fn give(&mut self, from: usize, to: &mut Run) {
        let (count, room) = (self.levels.len(), to.levels.len());
        to.keys[room..room + count - from].copy_from_slice(&self.keys[from..count]);
        to.levels.extend(self.levels.drain(from..));
        self.keys[from..count].fill(NO_KEY);
    }

    /// Moves the first levels to `removed`.
    fn cut(&mut self, count: usize, removed: &mut Vec<Level>) {
        removed.extend(self.levels.drain(..count));
        self.keys.copy_within(count.., 0);
        self.keys[RUN_MAX + 1 - count..].fill(NO_KEY);
    }

    fn clear(&mut self) {
        self.keys[..self.levels.len()].fill(NO_KEY);
        self.levels.clear();
    }
}

#[inline]
fn key_of(price: &Decimal, scale: u32, is_ask: bool) -> i64 {
    let key = scaled(price, scale);
    // Not its negative, which the least number does not have.
    if is_ask { !key } else { key }
}

/// A price with so many digits behind the point, as a whole number: rounded down, and kept within what fits.
#[inline]
fn scaled(price: &Decimal, scale: u32) -> i64 {
    let parts = price.unpack();
    match i64::try_from(u64::from(parts.mid) << 32 | u64::from(parts.lo)) {
        Ok(digits) if parts.hi == 0 && !parts.negative && parts.scale == scale => digits,
        // Some venues leave out zeros at the end.
        Ok(digits) if parts.hi == 0 && !parts.negative && parts.scale < scale => {
            let zeros = decimal::POWERS.get((scale - parts.scale) as usize);
            zeros.and_then(|zeros| digits.checked_mul(*zeros)).unwrap_or_else(|| scaled_anew(*price, scale))
        }
        _ => scaled_anew(*price, scale),
    }
}

fn scaled_anew(price: Decimal, scale: u32) -> i64 {
    let digits = price.mantissa();
    let scaled = match scale.checked_sub(price.scale()) {
        Some(up) => digits.saturating_mul(10i128.pow(up)),
        None => digits.div_euclid(10i128.pow(price.scale() - scale)),
    };
    match i64::try_from(scaled) {
        Ok(scaled) => scaled,
        Err(_) if scaled < 0 => i64::MIN,
        Err(_) => i64::MAX,
    }
}

/// Levels of a side, best first.
#[derive(Clone, Debug)]
pub struct Best<'a> {
    runs: std::slice::Iter<'a, Run>,
    /// What is left of the run at the front, and of that at the back.
    front: std::slice::Iter<'a, Level>,
    back: std::slice::Iter<'a, Level>,
    left: usize,
}

impl<'a> Iterator for Best<'a> {
    type Item = &'a Level;

    #[inline]
    fn next(&mut self) -> Option<&'a Level> {
        loop {
            if let Some(level) = self.front.next_back() {
                self.left -= 1;
                return Some(level);
            }
            match self.runs.next_back() {
                Some(run) => self.front = run.levels.iter(),
                None => {
                    let level = self.back.next_back()?;
                    self.left -= 1;
                    return Some(level);
                }
            }
        }
    }

    fn nth(&mut self, mut n: usize) -> Option<&'a Level> {
        // Whole runs are passed over at once.
        while n >= self.front.len() {
            n -= self.front.len();
            self.left -= self.front.len();
            match self.runs.next_back() {
                Some(run) => self.front = run.levels.iter(),
                None => {
                    self.front = [].iter();
                    let level = self.back.nth_back(n);
                    self.left = self.back.len();
                    return level;
                }
            }
        }
        self.left -= n + 1;
        self.front.nth_back(n)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl DoubleEndedIterator for Best<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(level) = self.back.next() {
                self.left -= 1;
                return Some(level);
            }
            match self.runs.next() {
                Some(run) => self.back = run.levels.iter(),
                None => {
                    let level = self.front.next()?;
                    self.left -= 1;
                    return Some(level);
                }
            }
        }
    }
}

impl ExactSizeIterator for Best<'_> {}

#[cfg(test)]
#[path = "side/tests.rs"]
mod tests;
