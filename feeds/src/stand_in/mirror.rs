//! A book as the venue wrote it: levels with their digits untouched.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use ticker_market::{Decimal, decimal};

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
        let (price, size) = (price.get(), size.get());
        let number = |text: &str| decimal::parse(text.trim_matches('"'));
        let (Some(key), Some(amount)) = (number(price), number(size)) else { return };
        let side = if bid { &mut self.bids } else { &mut self.asks };
        if amount.is_zero() {
            side.remove(&key);
        } else {
            side.insert(key, Level { price: price.into(), size: size.into() });
            self.cut(LEVELS_MAX);
        }
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

    /// Best first.
    pub(super) fn bids(&self) -> impl Iterator<Item = &Level> {
        self.bids.values().rev()
    }

    /// Best first.
    pub(super) fn asks(&self) -> impl Iterator<Item = &Level> {
        self.asks.values()
    }
}

/// Levels as a JSON array, each written by `form`.
pub(super) fn listed<'a>(levels: impl Iterator<Item = &'a Level>, form: impl Fn(&Level) -> String) -> String {
    let all: Vec<String> = levels.map(form).collect();
    format!("[{}]", all.join(","))
}
