//! Frames that an adapter made nothing of: channels and kinds of events that it does not know, or does not read. They are no
//! fault, but nobody would notice otherwise that a venue says something new.

use std::collections::BTreeMap;

use metrics::{Counter, counter, describe_counter};
use ticker_feeds::Out;

/// Kinds of one venue that are counted by themselves; more are counted as [`OTHER`].
const KINDS_MAX: usize = 32;

const OTHER: &str = "other";

/// Those of one venue, by kind.
pub(crate) struct PassedOver {
    venue: String,
    kinds: BTreeMap<String, (u64, Counter)>,
}

impl PassedOver {
    pub(crate) fn new(venue: &str) -> Self {
        Self { venue: venue.to_owned(), kinds: BTreeMap::new() }
    }

    /// Counts what `out` has of them.
    pub(crate) fn take(&mut self, out: &mut Out) {
        for kind in out.passed_over.drain(..) {
            let is_known = self.kinds.contains_key(&*kind);
            let kind = if is_known || self.kinds.len() < KINDS_MAX { &*kind } else { OTHER };
            if !self.kinds.contains_key(kind) {
                let (venue, label) = (self.venue.clone(), kind.to_owned());
                let metric = counter!("ticker_ingest_frames_passed_over_total", "venue" => venue, "kind" => label);
                self.kinds.insert(kind.to_owned(), (0, metric));
            }
            if let Some((count, metric)) = self.kinds.get_mut(kind) {
                *count += 1;
                metric.increment(1);
            }
        }
    }

    /// How many of each kind, for a person: `candle1m 70, kline 12`.
    pub(crate) fn told(&self) -> String {
        let all: Vec<String> = self.kinds.iter().map(|(kind, (count, _))| format!("{kind} {count}")).collect();
        if all.is_empty() { "none".to_owned() } else { all.join(", ") }
    }

    /// What is played begins anew.
    pub(crate) fn clear(&mut self) {
        self.kinds.clear();
    }
}

/// Tells the recorder what the metric means.
pub(crate) fn describe() {
    describe_counter!(
        "ticker_ingest_frames_passed_over_total",
        "Frames that nothing was made of: their channel or event is unknown, or not read. By kind."
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_counted_and_so_many_at_most() {
        let mut passed_over = PassedOver::new("x");
        let mut out = Out::default();
        assert_eq!(passed_over.told(), "none");
        out.passed_over.extend(["kline", "candle", "kline"].map(Into::into));
        passed_over.take(&mut out);
        assert!(out.passed_over.is_empty());
        assert_eq!(passed_over.told(), "candle 1, kline 2");
        out.passed_over.extend((0..100).map(|i| format!("k{i}").into()));
        passed_over.take(&mut out);
        assert!(passed_over.kinds.len() <= KINDS_MAX + 1, "{}", passed_over.told());
        assert!(passed_over.told().contains("other 70"), "{}", passed_over.told());
        passed_over.clear();
        assert_eq!(passed_over.told(), "none");
    }
}
