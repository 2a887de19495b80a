//! A book as the venue wrote it: levels with their digits untouched.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use ticker_market::{Decimal, decimal};

use crate::roster::INSTRUMENTS_MAX;

/// Levels of a side, at most; what is further away is forgotten.
pub(super) const LEVELS_MAX: usize = 200_000;

#[derive(Debug, Default)]
pub(super) struct Mirror {
    bids: BTreeMap<Decimal, Level>,
    asks: BTreeMap<Decimal, Level>,
    /// A snapshot began it.
    pub(super) is_whole: bool,
}

/// Price and size as JSON, quotes included where the venue has them.
#[derive(Debug)]
pub(super) struct Level {
    pub(super) price: Box<str>,
    pub(super) size: Box<str>,
}

impl Mirror {
    pub(super) fn begin(&mut self) {
        self.bids.clear();
        self.asks.clear();
        self.is_whole = true;
    }

    pub(super) fn clear(&mut self) {
        self.begin();
        self.is_whole = false;
    }

    /// Sets or removes a level. What is no number is left out.
    pub(super) fn set(&mut self, bid: bool, price: &RawValue, size: &RawValue) {
        if let Some(amount) = number(size.get()) {
            self.put(bid, price.get(), (!amount.is_zero()).then(|| size.get()));
        }
    }

    /// Sets or removes a level, whose size may be anything that goes with a price.
    pub(super) fn put(&mut self, bid: bool, price: &str, size: Option<&str>) {
        let Some(key) = number(price) else { return };
        let side = if bid { &mut self.bids } else { &mut self.asks };
        match size {
            None => _ = side.remove(&key),
            Some(size) => {
                side.insert(key, Level { price: price.into(), size: size.into() });
                self.cut(LEVELS_MAX);
            }
        }
    }

    /// Is the best bid at or above the best ask?
    pub(super) fn is_crossed(&self) -> bool {
        let best = self.bids.last_key_value().zip(self.asks.first_key_value());
        best.is_some_and(|((bid, _), (ask, _))| bid >= ask)
    }

    /// Keeps the best levels of each side.
    pub(super) fn cut(&mut self, depth: usize) {
        while self.bids.len() > depth {
            self.bids.pop_first();
        }
        while self.asks.len() > depth {
            self.asks.pop_last();
        }
    }

    /// Sets or removes levels that are `[price,size]`.
    pub(super) fn set_pairs(&mut self, bids: &[[&RawValue; 2]], asks: &[[&RawValue; 2]]) {
        for (bid, levels) in [(true, bids), (false, asks)] {
            levels.iter().for_each(|[price, size]| self.set(bid, price, size));
        }
    }

    /// Best first.
    pub(super) fn bids(&self) -> impl Iterator<Item = &Level> {
        self.bids.values().rev()
    }

    /// Best first.
    pub(super) fn asks(&self) -> impl Iterator<Item = &Level> {
        self.asks.values()
    }
}

/// Something of each instrument, by the venue's name of it, for as many as an adapter may have.
#[derive(Debug)]
pub(super) struct Shelf<T>(BTreeMap<String, T>);

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Default> Shelf<T> {
    pub(super) fn get(&self, name: &str) -> Option<&T> {
        self.0.get(name)
    }

    /// A new one, where there is none yet.
    pub(super) fn keep(&mut self, name: &str) -> Option<&mut T> {
        if !self.0.contains_key(name) && self.0.len() < INSTRUMENTS_MAX {
            self.0.insert(name.to_owned(), T::default());
        }
        self.0.get_mut(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The names stay.
    pub(super) fn clear(&mut self) {
        self.0.values_mut().for_each(|own| *own = T::default());
    }
}

/// Levels of the synthetic market as a JSON array, each written by `form`.
pub(super) fn told(levels: &[ticker_market::Level], form: impl FnMut(&ticker_market::Level) -> String) -> String {
    let all: Vec<String> = levels.iter().map(form).collect();
    format!("[{}]", all.join(","))
}

/// As [`told`], each as `["price","size"]`.
pub(super) fn told_pairs(levels: &[ticker_market::Level]) -> String {
    told(levels, |level| format!(r#"["{}","{}"]"#, level.price, level.size))
}

/// A level as `[price,size]`, as the venue wrote them.
pub(super) fn pair(level: &Level) -> String {
    format!("[{},{}]", level.price, level.size)
}

fn number(text: &str) -> Option<Decimal> {
    decimal::parse(text.trim_matches('"'))
}

/// Levels as a JSON array, each written by `form`.
pub(super) fn listed<'a>(levels: impl Iterator<Item = &'a Level>, form: impl Fn(&Level) -> String) -> String {
    let all: Vec<String> = levels.map(form).collect();
    format!("[{}]", all.join(","))
}
