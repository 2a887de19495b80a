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
            let grows = round < 40_000;
            let level = Level { price, size: Decimal::from(round) };
            let key = side.key(&price);
            let (place, is_there) = side.settle(side.found(key), &price);
            assert_eq!(side.find(&price).map(|level| level.size), map.get(&price).copied(), "{price}");
            if is_there {
                assert_eq!(Some(&side.at(place).size), map.get(&price));
                if random(3) == 0 || !grows {
                    side.remove(place);
                    map.remove(&price).expect("in the map");
                } else {
                    let before = map.insert(price, level.size);
                    let told = side.exchange_all(&[level], |_, was| assert_eq!(Some(*was), before));
                    assert!(told.is_ok());
                }
            } else {
                assert!(!map.contains_key(&price), "{price}");
                if grows {
                    side.insert(place, key, &level);
                    map.insert(price, level.size);
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
            let key = side.key(&price);
            let (place, is_there) = side.settle(side.found(key), &price);
            assert!(is_there);
            side.remove(place);
            map.remove(&price);
        }
        same(&side, &map);
    }
}

/// Many at once, in any order, against one after the other: runs are divided, joined and emptied meanwhile.
#[test]
fn many_changes_are_those_of_one_after_the_other() {
    let mut x = 7u64;
    let mut random = move |below: u32| {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (x >> 33) as u32 % below
    };
    for (new, digits) in [(Side::bids as fn() -> Side, 0), (Side::asks, 0), (Side::bids, 2), (Side::asks, 2)] {
        let (mut side, mut map) = (new(), BTreeMap::new());
        for round in 0..3_000 {
            // Now it grows, now it shrinks: to hundreds, and to nothing.
            let gone_in = if round / 300 % 2 == 0 { 4 } else { 1 };
            let (from, wide) = (random(900), 1 + random(299));
            let mut changes: Vec<Level> = (0..random(90))
                .map(|_| {
                    // Some have more digits than all before them, and some more than a key has.
                    let large = if digits > 0 && random(4) == 0 { 10_000_000_000_000_000_000 } else { 0 };
                    let mut price = Decimal::from_i128_with_scale(i128::from(from + random(wide)) + large, 0);
                    price.rescale(random(digits + 1));
                    Level { price, size: if random(gone_in) == 0 { Decimal::ZERO } else { (1 + random(8)).into() } }
                })
                .collect();
            let order = random(3);
            if order < 2 {
                changes.sort_by_key(|level| level.price);
                changes.dedup_by_key(|level| level.price);
                if order == 1 {
                    changes.reverse();
                }
            }
            let mut told = Vec::new();
            let in_order = side.exchange_all(&changes, |level, was| told.push((*level, *was))).expect("fits");
            let is_worse_first = matches!(&changes[..], [first, .., last] if (first.price < last.price) != side.is_ask);
            let is_told_backwards = in_order == InOrder::BestFirst && is_worse_first;
            if is_told_backwards {
                changes.reverse();
            }
            let expected: Vec<(Level, Decimal)> = changes
                .iter()
                .map(|level| {
                    let was = match level.size.is_zero() {
                        true => map.remove(&level.price),
                        false => map.insert(level.price, level.size),
                    };
                    (*level, was.unwrap_or_default())
                })
                .collect();
            assert_eq!(told, expected);
            let best_first = |a: &(Level, Decimal), b: &(Level, Decimal)| (a.0.price < b.0.price) == side.is_ask;
            assert!(in_order == InOrder::AsTheyCame || told.is_sorted_by(best_first));
            assert!(digits > 0 || order == 2 || in_order == InOrder::BestFirst);
            same(&side, &map);
        }
    }
}

#[test]
fn keys_keep_the_order_whatever_the_digits() {
    let texts = ["-79228162514264337593543950335", "-1.5", "-0.0000000001", "0", "0.0000000000000000000000000001"]
        .into_iter()
        .chain(["0.5", "0.50000000000000000001", "0.51", "7", "92233720368547758.07", "79228162514264337593543950335"]);
    let prices: Vec<Decimal> = texts.map(|text| text.parse().expect(text)).collect();
    for scale in 0..=SCALE_MAX {
        for pair in prices.windows(2) {
            assert!(scaled(&pair[0], scale) <= scaled(&pair[1], scale), "{pair:?} {scale}");
        }
    }
    assert_eq!(scaled(&Decimal::new(-15, 1), 0), -2, "down, not towards zero");
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
        let (keys, rest) = run.keys.split_at(run.levels.len());
        assert!(keys.iter().copied().eq(run.levels.iter().map(|level| side.key(&level.price))));
        assert!(keys[0] == *worst && rest.iter().all(|key| *key == NO_KEY));
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
