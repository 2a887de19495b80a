//! The consolidated quote: of all venues that are live, the highest bid and the lowest ask.
//!
//! Each side names one venue and has that venue's size alone. Of two at the same price the one with the larger size is
//! named, and of two of the same size the one whose name comes first. One venue's bid may lie above another's ask: venues
//! differ, and that is shown as it is.

use std::cmp::Ordering;

use compact_str::CompactString;

use crate::{Level, Quote};

/// The quotes of one symbol at all its venues.
#[derive(Clone, Debug, Default)]
pub struct Best {
    venues: Vec<Venue>,
}

#[derive(Clone, Debug)]
struct Venue {
    name: CompactString,
    live: bool,
    bid: Option<Level>,
    ask: Option<Level>,
}

impl Best {
    /// Another venue has the symbol: returns its index. It is not live and has no quote yet.
    pub fn join(&mut self, venue: &str) -> usize {
        self.venues.push(Venue { name: venue.into(), live: false, bid: None, ask: None });
        self.venues.len() - 1
    }

    /// Is the venue live? While it is not, its quote does not count.
    pub fn set_live(&mut self, at: usize, live: bool) {
        if let Some(venue) = self.venues.get_mut(at) {
            venue.live = live;
        }
    }

    /// The venue's quote; `None` where what was shown of it cannot be trusted.
    pub fn set_quote(&mut self, at: usize, quote: Option<&Quote>) {
        if let Some(venue) = self.venues.get_mut(at) {
            (venue.bid, venue.ask) = quote.map_or((None, None), |q| (q.bid, q.ask));
        }
    }

    /// The consolidated quote. A side without any is empty.
    pub fn quote(&self) -> Quote {
        let mut bid: Option<(Level, &Venue)> = None;
        let mut ask: Option<(Level, &Venue)> = None;
        for venue in self.venues.iter().filter(|v| v.live) {
            if let Some(level) = venue.bid
                && bid.is_none_or(|than| is_before(level.price.cmp(&than.0.price).reverse(), (level, venue), than))
            {
                bid = Some((level, venue));
            }
            if let Some(level) = venue.ask
                && ask.is_none_or(|than| is_before(level.price.cmp(&than.0.price), (level, venue), than))
            {
                ask = Some((level, venue));
            }
        }
        Quote {
            bid: bid.map(|(level, _)| level),
            ask: ask.map(|(level, _)| level),
            bid_venue: bid.map(|(_, venue)| venue.name.clone()),
            ask_venue: ask.map(|(_, venue)| venue.name.clone()),
        }
    }
}

fn is_before(price: Ordering, this: (Level, &Venue), than: (Level, &Venue)) -> bool {
    price.then_with(|| than.0.size.cmp(&this.0.size)).then_with(|| this.1.name.cmp(&than.1.name)) == Ordering::Less
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Decimal;

    fn level(price: i64, size: i64) -> Level {
        Level { price: Decimal::from(price), size: Decimal::from(size) }
    }

    fn quote(bid: (i64, i64), ask: (i64, i64)) -> Quote {
        Quote { bid: Some(level(bid.0, bid.1)), ask: Some(level(ask.0, ask.1)), ..Quote::default() }
    }

    type Named = Option<(Level, String)>;

    fn sides(best: &Best) -> (Named, Named) {
        let Quote { bid, ask, bid_venue, ask_venue } = best.quote();
        let name = |v: Option<CompactString>| v.map(|v| v.to_string());
        assert_eq!((bid.is_some(), ask.is_some()), (bid_venue.is_some(), ask_venue.is_some()));
        (bid.zip(name(bid_venue)), ask.zip(name(ask_venue)))
    }

    #[test]
    fn the_best_of_live_venues_is_named() {
        let mut best = Best::default();
        let (b, a) = (best.join("b"), best.join("a"));
        best.set_quote(b, Some(&quote((99, 1), (101, 5))));
        assert_eq!(sides(&best), (None, None), "nobody is live");
        best.set_live(b, true);
        best.set_live(a, true);
        assert_eq!(sides(&best), (Some((level(99, 1), "b".into())), Some((level(101, 5), "b".into()))));
        best.set_quote(a, Some(&quote((100, 1), (102, 9))));
        assert_eq!(sides(&best), (Some((level(100, 1), "a".into())), Some((level(101, 5), "b".into()))));
        best.set_quote(a, Some(&quote((99, 1), (101, 4))));
        assert_eq!(sides(&best), (Some((level(99, 1), "a".into())), Some((level(101, 5), "b".into()))), "ties");
        best.set_live(b, false);
        assert_eq!(sides(&best), (Some((level(99, 1), "a".into())), Some((level(101, 4), "a".into()))));
        best.set_quote(a, None);
        assert_eq!(sides(&best), (None, None));
        best.set_live(b, true);
        assert_eq!(sides(&best).0, Some((level(99, 1), "b".into())), "its quote was good all the while");
    }

    /// Whatever the venues say, the sides are those that a plain search finds.
    #[test]
    fn it_equals_a_search() {
        let steps = bolero::produce::<Vec<(u8, u8, u8, u8)>>().with().len(0..=100_usize);
        bolero::check!().with_generator(steps).with_iterations(400).for_each(|steps| it_equals_a_search_in(steps));
    }

    fn it_equals_a_search_in(steps: &[(u8, u8, u8, u8)]) {
        let names = ["d", "a", "c", "b"];
        let mut best = Best::default();
        for name in names {
            best.join(name);
        }
        let mut plain: [(bool, Option<Quote>); 4] = Default::default();
        for (what, prices, sizes, at) in steps {
            let at = usize::from(at % 4);
            let (bid, ask) = (90 + i64::from(prices % 10), 95 + i64::from(prices / 26));
            let (bid_size, ask_size) = (1 + i64::from(sizes % 2), 1 + i64::from(sizes / 128));
            match what % 4 {
                0 => plain[at].0 = !plain[at].0,
                1 => plain[at].1 = None,
                _ => plain[at].1 = Some(quote((bid, bid_size), (ask, ask_size))),
            }
            best.set_live(at, plain[at].0);
            best.set_quote(at, plain[at].1.as_ref());
            let all = || names.iter().zip(&plain).filter(|(_, p)| p.0).filter_map(|(n, p)| Some((n, p.1.as_ref()?)));
            let bid = all().filter_map(|(n, q)| Some((q.bid?, *n)));
            let bid = bid.max_by_key(|(l, n)| (l.price, l.size, std::cmp::Reverse(*n)));
            let ask = all().filter_map(|(n, q)| Some((q.ask?, *n)));
            let ask = ask.min_by_key(|(l, n)| (l.price, std::cmp::Reverse(l.size), *n));
            let named = |side: Option<(Level, &str)>| side.map(|(l, n)| (l, n.to_owned()));
            assert_eq!(sides(&best), (named(bid), named(ask)));
        }
    }
}
