//! One side of a book: levels in runs, of which the best is last, and within each the best level.
//!
//! Most changes happen near the best price: the last run is looked through first. A change far from it moves the rest of
//! its run, never the rest of the side, so that a side of thirty thousand levels costs little more than one of ten, and
//! one of ten is a single vector.

use std::cmp::Ordering;

use crate::Decimal;
use crate::event::Level;

/// Levels of a run, at most: 4 KiB. One that is full is divided.
const RUN_MAX: usize = 128;

/// Two neighbours that have no more than this together become one.
const RUNS_JOINED: usize = 48;

/// Levels of a run that is filled from a snapshot: room is left for changes.
const RUN_FILLED: usize = 96;

/// Empty runs that are kept for their room, at most.
const SPARE_MAX: usize = 8;

#[derive(Clone, Debug, Default)]
pub(super) struct Side {
    /// None is empty.
    runs: Vec<Vec<Level>>,
    /// The first price of each run, which is its worst: close together, because they are looked through often.
    worst: Vec<Decimal>,
    len: usize,
    spare: Vec<Vec<Level>>,
}

/// Where a level is, or would be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    run: usize,
    at: usize,
}

impl Side {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn best(&self) -> Option<&Level> {
        self.runs.last()?.last()
    }

    /// Best first.
    pub(super) fn iter(&self) -> Best<'_> {
        Best { runs: self.runs.iter(), front: [].iter(), back: [].iter(), left: self.len }
    }

    /// Looks for a price. `cmp` says how a price of this side compares with it: `Less` where it is worse.
    #[inline]
    pub(super) fn find(&self, cmp: impl Fn(Decimal) -> Ordering) -> Result<Place, Place> {
        // The last run whose worst price is not better.
        let run = match self.worst.last() {
            None => return Err(Place { run: 0, at: 0 }),
            Some(worst) if cmp(*worst) != Ordering::Greater => self.worst.len() - 1,
            Some(_) => self.worst.partition_point(|worst| cmp(*worst) != Ordering::Greater).saturating_sub(1),
        };
        match search(&self.runs[run], &cmp) {
            Ok(at) => Ok(Place { run, at }),
            Err(at) => Err(Place { run, at }),
        }
    }

    pub(super) fn at_mut(&mut self, place: Place) -> &mut Level {
        // Of one price the digits may differ, so that this may change the worst as it is written, not its place.
        &mut self.runs[place.run][place.at]
    }

    pub(super) fn at(&self, place: Place) -> &Level {
        &self.runs[place.run][place.at]
    }

    pub(super) fn insert(&mut self, mut place: Place, level: Level) {
        self.len += 1;
        if self.runs.is_empty() {
            let run = self.run();
            self.runs.push(run);
            self.worst.push(level.price);
        }
        if self.runs[place.run].len() >= RUN_MAX {
            let half = RUN_MAX / 2;
            let mut upper = self.run();
            upper.extend(self.runs[place.run].drain(half..));
            self.worst.insert(place.run + 1, upper[0].price);
            self.runs.insert(place.run + 1, upper);
            if place.at > half {
                place = Place { run: place.run + 1, at: place.at - half };
            }
        }
        self.runs[place.run].insert(place.at, level);
        if place.at == 0 {
            self.worst[place.run] = level.price;
        }
    }

    pub(super) fn remove(&mut self, place: Place) -> Level {
        let Place { run, at } = place;
        let level = self.runs[run].remove(at);
        self.len -= 1;
        let left = self.runs[run].len();
        if left == 0 {
            self.give_up(run);
        } else {
            if at == 0 {
                self.worst[run] = self.runs[run][0].price;
            }
            if run > 0 && left + self.runs[run - 1].len() <= RUNS_JOINED {
                let (before, after) = self.runs.split_at_mut(run);
                before[run - 1].append(&mut after[0]);
                self.give_up(run);
            }
        }
        level
    }

    /// Appends a level that is better than all others.
    pub(super) fn push(&mut self, level: Level) {
        self.len += 1;
        match self.runs.last_mut() {
            Some(run) if run.len() < RUN_FILLED => run.push(level),
            _ => {
                let mut run = self.run();
                run.push(level);
                self.runs.push(run);
                self.worst.push(level.price);
            }
        }
    }

    /// Removes the worst levels until `depth` are left, and appends them to `removed`.
    pub(super) fn truncate(&mut self, depth: usize, removed: &mut Vec<Level>) {
        let mut extra = self.len.saturating_sub(depth);
        self.len -= extra;
        while extra > 0 {
            let run = &mut self.runs[0];
            let count = run.len().min(extra);
            removed.extend(run.drain(..count));
            extra -= count;
            match run.first() {
                Some(level) => self.worst[0] = level.price,
                None => self.give_up(0),
            }
        }
    }

    pub(super) fn clear(&mut self) {
        while !self.runs.is_empty() {
            self.runs[self.worst.len() - 1].clear();
            self.give_up(self.worst.len() - 1);
        }
        self.len = 0;
    }

    fn run(&mut self) -> Vec<Level> {
        self.spare.pop().unwrap_or_default()
    }

    /// Takes an empty run out.
    fn give_up(&mut self, run: usize) {
        self.worst.remove(run);
        let run = self.runs.remove(run);
        if self.spare.len() < SPARE_MAX {
            self.spare.push(run);
        }
    }
}

/// How many of a run's best levels are looked through one by one, before the rest is halved.
const NEAR: usize = 4;

/// The place in a run.
#[inline]
fn search(run: &[Level], cmp: &impl Fn(Decimal) -> Ordering) -> Result<usize, usize> {
    let far = run.len().saturating_sub(NEAR);
    for at in (far..run.len()).rev() {
        match cmp(run[at].price) {
            Ordering::Less => return Err(at + 1),
            Ordering::Equal => return Ok(at),
            Ordering::Greater => {}
        }
    }
    run[..far].binary_search_by(|level| cmp(level.price))
}

/// Levels of a side, best first.
#[derive(Clone, Debug)]
pub struct Best<'a> {
    runs: std::slice::Iter<'a, Vec<Level>>,
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
                Some(run) => self.front = run.iter(),
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
                Some(run) => self.front = run.iter(),
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
                Some(run) => self.back = run.iter(),
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
        let mut x = 99u64;
        let mut random = move |below: u64| {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (x >> 33) % below
        };
        let (mut side, mut map) = (Side::default(), BTreeMap::new());
        for round in 0..60_000u64 {
            let price = if random(3) == 0 { random(20_000) } else { 19_000 + random(1_000) };
            let price = Decimal::from(price);
            let grows = round < 40_000;
            let level = Level { price, size: Decimal::from(round) };
            match side.find(|other| other.cmp(&price)) {
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
                    assert!(!map.contains_key(&price));
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
        let (before, worst) = (side.len(), *map.first_key_value().expect("some are left").0);
        side.truncate(before - 100, &mut cut);
        assert_eq!((cut.len(), cut[0].price), (100, worst), "the worst first");
        cut.iter().for_each(|level| _ = map.remove(&level.price));
        same(&side, &map);
        while let Some(price) = map.keys().next().copied() {
            let place = side.find(|other| other.cmp(&price)).expect("there");
            side.remove(place);
            map.remove(&price);
        }
        same(&side, &map);
    }

    fn same(side: &Side, map: &BTreeMap<Decimal, Decimal>) {
        let theirs: Vec<Level> = map.iter().rev().map(|(p, s)| Level { price: *p, size: *s }).collect();
        assert!(side.iter().eq(&theirs));
        assert!(side.iter().rev().eq(theirs.iter().rev()));
        assert_eq!((side.iter().len(), side.len(), side.best()), (theirs.len(), theirs.len(), theirs.first()));
        assert!(side.runs.iter().zip(&side.worst).all(|(run, worst)| run[0].price == *worst && run.len() <= RUN_MAX));
    }

    #[test]
    fn both_ends_meet() {
        let mut side = Side::default();
        for price in 0..300u32 {
            side.push(Level { price: price.into(), size: Decimal::ONE });
        }
        for skip in [0, 1, 95, 96, 97, 200, 299, 300, 301] {
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
