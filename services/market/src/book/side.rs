//! One side of a book: levels in runs, of which the best is last, and within each the best level.
//!
//! A price has a key: a whole number of a common scale, in the order of this side, worst first. Keys lie close together,
//! and are all that a search looks through until it has found its place. A change far from the best price moves the rest
//! of its run, never the rest of the side, so that a side of thirty thousand levels costs little more than one of ten.
//!
//! Nearly always a key is the price. Where a price has more digits than the scale, or more than fit, keys keep the order
//! but two prices may share one: then the prices themselves are compared.

use std::cmp::Ordering;

use super::order;
use crate::Decimal;
use crate::event::Level;

/// Levels of a run, at most: 2.5 KiB. One that is full is divided.
const RUN_MAX: usize = 64;

/// Two neighbours that have no more than this together become one.
const RUNS_JOINED: usize = 24;

/// Levels of a run that is filled from a snapshot: room is left for changes.
const RUN_FILLED: usize = 48;

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
}

#[derive(Clone, Default, Debug)]
struct Run {
    keys: Vec<i64>,
    levels: Vec<Level>,
}

/// Where a level is, or would be.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Place {
    pub(super) run: usize,
    at: usize,
    key: i64,
}

impl Side {
    pub(super) fn bids() -> Self {
        Self { is_ask: false, scale: 0, runs: Vec::new(), worst: Vec::new(), len: 0, spare: Vec::new() }
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

    /// Looks for a price, quickest where it is in the run `near` or close to it.
    #[inline]
    pub(super) fn find(&self, price: Decimal, near: usize) -> Result<Place, Place> {
        let key = self.key(price);
        let Some(near) = self.worst.len().checked_sub(1).map(|last| last.min(near)) else {
            return Err(Place { run: 0, at: 0, key });
        };
        // The last run whose worst price is not better: this one, the one before it, or wherever it is.
        let run = if self.worst[near] > key {
            match near.checked_sub(1) {
                None => 0,
                Some(before) if self.worst[before] <= key => before,
                Some(before) => self.worst[..before].partition_point(|worst| *worst <= key).saturating_sub(1),
            }
        } else {
            match self.worst.get(near + 1) {
                Some(next) if *next <= key => near + self.worst[near + 1..].partition_point(|worst| *worst <= key),
                _ => near,
            }
        };
        let found = &self.runs[run];
        let at = found.keys.partition_point(|other| *other < key);
        let place = Place { run, at, key };
        match found.levels.get(at) {
            Some(level) if found.keys[at] == key => match order(level.price, price) {
                Ordering::Equal => Ok(place),
                _ => self.find_by_price(price, key),
            },
            _ => Err(place),
        }
    }

    /// Looks for a price that shares its key with another one.
    #[cold]
    fn find_by_price(&self, price: Decimal, key: i64) -> Result<Place, Place> {
        let cmp = |level: &Level| if self.is_ask { order(price, level.price) } else { order(level.price, price) };
        let run = self.runs.partition_point(|run| cmp(&run.levels[0]).is_le()).saturating_sub(1);
        match self.runs[run].levels.binary_search_by(cmp) {
            Ok(at) => Ok(Place { run, at, key }),
            Err(at) => Err(Place { run, at, key }),
        }
    }

    pub(super) fn at_mut(&mut self, place: Place) -> &mut Level {
        // Of one price the digits may differ, so that this may change how it is written, not its key.
        &mut self.runs[place.run].levels[place.at]
    }

    pub(super) fn at(&self, place: Place) -> &Level {
        &self.runs[place.run].levels[place.at]
    }

    pub(super) fn insert(&mut self, mut place: Place, level: Level) {
        if self.rescale(level.price) {
            place.key = self.key(level.price);
        }
        self.len += 1;
        if self.runs.is_empty() {
            let run = self.run();
            self.runs.push(run);
            self.worst.push(place.key);
        }
        if self.runs[place.run].keys.len() >= RUN_MAX {
            let half = RUN_MAX / 2;
            let mut upper = self.run();
            let lower = &mut self.runs[place.run];
            upper.keys.extend(lower.keys.drain(half..));
            upper.levels.extend(lower.levels.drain(half..));
            self.worst.insert(place.run + 1, upper.keys[0]);
            self.runs.insert(place.run + 1, upper);
            if place.at > half {
                place = Place { run: place.run + 1, at: place.at - half, ..place };
            }
        }
        let run = &mut self.runs[place.run];
        run.keys.insert(place.at, place.key);
        run.levels.insert(place.at, level);
        if place.at == 0 {
            self.worst[place.run] = place.key;
        }
    }

    pub(super) fn remove(&mut self, place: Place) -> Level {
        let Place { run, at, .. } = place;
        let level = self.runs[run].levels.remove(at);
        self.runs[run].keys.remove(at);
        self.len -= 1;
        let left = self.runs[run].keys.len();
        if left == 0 {
            self.give_up(run);
        } else {
            if at == 0 {
                self.worst[run] = self.runs[run].keys[0];
            }
            if run > 0 && left + self.runs[run - 1].keys.len() <= RUNS_JOINED {
                let (before, after) = self.runs.split_at_mut(run);
                before[run - 1].keys.append(&mut after[0].keys);
                before[run - 1].levels.append(&mut after[0].levels);
                self.give_up(run);
            }
        }
        level
    }

    /// Appends a level that is better than all others.
    pub(super) fn push(&mut self, level: Level) {
        self.rescale(level.price);
        let key = self.key(level.price);
        self.len += 1;
        match self.runs.last_mut() {
            Some(run) if run.keys.len() < RUN_FILLED => {
                run.keys.push(key);
                run.levels.push(level);
            }
            _ => {
                let mut run = self.run();
                run.keys.push(key);
                run.levels.push(level);
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
            let count = run.keys.len().min(extra);
            run.keys.drain(..count);
            removed.extend(run.levels.drain(..count));
            extra -= count;
            match run.keys.first() {
                Some(key) => self.worst[0] = *key,
                None => self.give_up(0),
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.worst.clear();
        while let Some(mut run) = self.runs.pop() {
            run.keys.clear();
            run.levels.clear();
            self.keep(run);
        }
        self.len = 0;
    }

    /// An empty run. The first grows as it must, because most books are small; where there are others it has its room.
    fn run(&mut self) -> Run {
        let room = if self.runs.is_empty() { 0 } else { RUN_MAX };
        self.spare.pop().unwrap_or_else(|| Run { keys: Vec::with_capacity(room), levels: Vec::with_capacity(room) })
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
    fn key(&self, price: Decimal) -> i64 {
        let key = scaled(price, self.scale);
        // Not its negative, which the least number does not have.
        if self.is_ask { !key } else { key }
    }

    /// Makes the scale of the keys that of a price with more digits, if all fit. Returns whether it is another now.
    #[inline]
    fn rescale(&mut self, price: Decimal) -> bool {
        if price.scale() <= self.scale && self.len > 0 {
            return false;
        }
        self.rescale_to(price)
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
        for at in 0..self.runs.len() {
            let mut keys = std::mem::take(&mut self.runs[at].keys);
            keys.clear();
            keys.extend(self.runs[at].levels.iter().map(|level| self.key(level.price)));
            self.worst[at] = keys[0];
            self.runs[at].keys = keys;
        }
        true
    }
}

/// A price with so many digits behind the point, as a whole number: rounded down, and kept within what fits.
#[inline]
fn scaled(price: Decimal, scale: u32) -> i64 {
    match i64::try_from(price.mantissa()) {
        Ok(digits) if price.scale() == scale => digits,
        _ => scaled_anew(price, scale),
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
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Against a map, with prices far and near, until it has grown to thousands and shrunk to nothing.
    #[test]
    fn levels_are_those_of_a_map() {
        for (mut side, digits) in [(Side::bids(), 0), (Side::asks(), 0), (Side::bids(), 3), (Side::asks(), 3)] {
            let mut x = 99u64;
            let mut random = move |below: u64| {
                x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (x >> 33) % below
            };
            let mut map = BTreeMap::new();
            for round in 0..60_000u64 {
                let price = if random(3) == 0 { random(20_000) } else { 19_000 + random(1_000) };
                // With digits, numbers so large that no common scale holds them and the small ones: keys are shared.
                let large = if digits > 0 && random(2) == 0 { 10_000_000_000_000_000_000 } else { 0 };
                let mut price = Decimal::from_i128_with_scale(i128::from(price) + large, 0);
                price.rescale(random(1 + digits) as u32);
                let price = if digits > 0 && random(9) == 0 { -price } else { price };
                let near = [usize::MAX, 0, random(400) as usize][random(3) as usize];
                let grows = round < 40_000;
                let level = Level { price, size: Decimal::from(round) };
                match side.find(price, near) {
                    Ok(place) => {
                        assert_eq!(Some(&side.at(place).size), map.get(&price));
                        if random(3) == 0 || !grows {
                            assert_eq!(side.remove(place).size, map.remove(&price).expect("in the map"));
                        } else {
                            *side.at_mut(place) = level;
                            map.insert(price, level.size);
                        }
                    }
                    Err(place) => {
                        assert!(!map.contains_key(&price), "{price}");
                        if grows {
                            side.insert(place, level);
                            map.insert(price, level.size);
                        }
                    }
                }
                if round % 1_000 == 0 || side.len() < 20 {
                    same(&side, &map);
                }
            }
            let mut cut = Vec::new();
            let ends = [map.first_key_value(), map.last_key_value()].map(|end| *end.expect("some are left").0);
            let before = side.len();
            side.truncate(before - 100, &mut cut);
            assert_eq!((cut.len(), cut[0].price), (100, ends[usize::from(side.is_ask)]), "the worst first");
            cut.iter().for_each(|level| _ = map.remove(&level.price));
            same(&side, &map);
            while let Some(price) = map.keys().next().copied() {
                let place = side.find(price, 3).expect("there");
                side.remove(place);
                map.remove(&price);
            }
            same(&side, &map);
        }
    }

    #[test]
    fn keys_keep_the_order_whatever_the_digits() {
        let texts = ["-79228162514264337593543950335", "-1.5", "-0.0000000001", "0", "0.0000000000000000000000000001"]
            .into_iter()
            .chain([
                "0.5",
                "0.50000000000000000001",
                "0.51",
                "7",
                "92233720368547758.07",
                "79228162514264337593543950335",
            ]);
        let prices: Vec<Decimal> = texts.map(|text| text.parse().expect(text)).collect();
        for scale in 0..=SCALE_MAX {
            for pair in prices.windows(2) {
                assert!(scaled(pair[0], scale) <= scaled(pair[1], scale), "{pair:?} {scale}");
            }
        }
        assert_eq!(scaled(Decimal::new(-15, 1), 0), -2, "down, not towards zero");
    }

    fn same(side: &Side, map: &BTreeMap<Decimal, Decimal>) {
        let mut theirs: Vec<Level> = map.iter().rev().map(|(p, s)| Level { price: *p, size: *s }).collect();
        if side.is_ask {
            theirs.reverse();
        }
        assert!(side.iter().eq(&theirs));
        assert!(side.iter().rev().eq(theirs.iter().rev()));
        assert_eq!((side.iter().len(), side.len(), side.best()), (theirs.len(), theirs.len(), theirs.first()));
        for (run, worst) in side.runs.iter().zip(&side.worst) {
            assert!(run.keys.iter().copied().eq(run.levels.iter().map(|level| side.key(level.price))));
            assert!(run.keys[0] == *worst && run.keys.len() <= RUN_MAX);
        }
        assert_eq!(side.runs.len(), side.worst.len());
    }

    #[test]
    fn both_ends_meet() {
        let mut side = Side::bids();
        for price in 0..300u32 {
            side.push(Level { price: price.into(), size: Decimal::ONE });
        }
        for skip in [0, 1, 47, 48, 49, 95, 96, 97, 200, 299, 300, 301] {
            let (mut iter, mut slowly) = (side.iter(), side.iter());
            (0..skip).for_each(|_| _ = slowly.next());
            assert_eq!((iter.nth(skip), iter.len()), (slowly.next(), slowly.len()), "{skip}");
            assert!(iter.eq(slowly));
        }
        let mut iter = side.iter();
        let (mut front, mut back) = (Vec::new(), Vec::new());
        while let Some(level) = iter.next() {
            front.push(level.price);
            back.extend(iter.next_back().map(|level| level.price));
        }
        assert_eq!((front.len(), back.len(), iter.len()), (150, 150, 0));
        back.reverse();
        assert!(front.into_iter().chain(back).eq((0..300u32).rev().map(Decimal::from)));
        side.clear();
        assert!(side.iter().next().is_none() && side.best().is_none());
    }
}
