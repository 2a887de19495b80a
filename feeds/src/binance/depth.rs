//! Depth differences and the snapshot that they continue: "How to manage a local order book correctly", in
//! developers.binance.com/docs/binance-spot-api-docs/web-socket-streams.

use std::collections::VecDeque;

use ticker_market::{Levels, Time};

/// Differences of one instrument that wait for its snapshot, at most: ten come a second, so these are minutes. Then
/// the oldest is dropped, and an older snapshot no longer fits.
pub const DIFFS_BUFFERED_MAX: usize = 2_000;

/// Levels in the differences of one instrument that wait for its snapshot, at most.
pub const LEVELS_BUFFERED_MAX: usize = 200_000;

/// A `depthUpdate`: the changes of the updates `first` to `last`.
#[derive(Clone, Debug)]
pub(super) struct Diff {
    /// `U`
    pub(super) first: u64,
    /// `u`
    pub(super) last: u64,
    pub(super) levels: Levels,
    pub(super) ts: Option<Time>,
}

impl Diff {
    fn weight(&self) -> usize {
        self.levels.bids.len() + self.levels.asks.len()
    }
}

/// What a difference means for the book.
#[derive(Debug)]
pub(super) enum Step {
    /// It continues the book.
    Apply(Diff),
    /// The book has it already.
    Old,
    /// It waits for the snapshot.
    Buffered,
    /// Updates are missing before it. It waits for the snapshot.
    Gap { expected: u64, first: u64 },
}

/// Why a snapshot does not fit.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Misfit {
    /// Older than the first difference that waits: another one is to be fetched.
    TooOld { id: u64, first: u64 },
    /// The differences that wait have a hole themselves.
    Hole { expected: u64, first: u64 },
}

/// The place of one instrument's book in the venue's sequence.
#[derive(Clone, Default, Debug)]
pub(super) struct DepthSync {
    /// The last update that the book has; none while it waits for a snapshot.
    last: Option<u64>,
    buffer: VecDeque<Diff>,
    weight: usize,
}

impl DepthSync {
    pub(super) fn is_synced(&self) -> bool {
        self.last.is_some()
    }

    pub(super) fn is_buffering(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Starts anew: nothing that came before counts.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Takes a difference.
    pub(super) fn diff(&mut self, diff: Diff) -> Step {
        let Some(last) = self.last else {
            self.push(diff);
            return Step::Buffered;
        };
        if diff.last <= last {
            return Step::Old;
        }
        if diff.first > last.saturating_add(1) {
            let gap = Step::Gap { expected: last.saturating_add(1), first: diff.first };
            self.reset();
            self.push(diff);
            return gap;
        }
        // The first one after a snapshot may begin before it; sizes are absolute, so that what is there twice is right.
        self.last = Some(diff.last);
        Step::Apply(diff)
    }

    /// Takes a snapshot's `lastUpdateId`. Returns the differences that follow it, in order.
    pub(super) fn snapshot(&mut self, id: u64) -> Result<Vec<Diff>, Misfit> {
        while self.buffer.front().is_some_and(|diff| diff.last <= id) {
            self.pop();
        }
        let mut last = id;
        for (i, diff) in self.buffer.iter().enumerate() {
            let expected = last.saturating_add(1);
            if diff.first > expected {
                let first = diff.first;
                if i == 0 {
                    return Err(Misfit::TooOld { id, first });
                }
                // What lies before the hole is of no use any more.
                for _ in 0..i {
                    self.pop();
                }
                return Err(Misfit::Hole { expected, first });
            }
            last = last.max(diff.last);
        }
        self.last = Some(last);
        self.weight = 0;
        Ok(self.buffer.drain(..).collect())
    }

    fn push(&mut self, diff: Diff) {
        self.weight += diff.weight();
        self.buffer.push_back(diff);
        while self.buffer.len() > DIFFS_BUFFERED_MAX || (self.weight > LEVELS_BUFFERED_MAX && self.buffer.len() > 1) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(diff) = self.buffer.pop_front() {
            self.weight -= diff.weight();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diff(first: u64, last: u64) -> Diff {
        Diff { first, last, levels: Levels::default(), ts: None }
    }

    fn ids(diffs: &[Diff]) -> Vec<u64> {
        diffs.iter().map(|d| d.last).collect()
    }

    #[test]
    fn the_documented_rule() {
        let mut sync = DepthSync::default();
        for (first, last) in [(1, 5), (6, 8), (9, 9), (10, 14)] {
            assert!(matches!(sync.diff(diff(first, last)), Step::Buffered));
        }
        assert_eq!(ids(&sync.snapshot(8).expect("fits")), [9, 14]);
        assert!(matches!(sync.diff(diff(12, 14)), Step::Old));
        assert!(matches!(sync.diff(diff(15, 17)), Step::Apply(_)));
        assert!(matches!(sync.diff(diff(19, 20)), Step::Gap { expected: 18, first: 19 }));
        assert!(!sync.is_synced());
        assert!(matches!(sync.diff(diff(21, 22)), Step::Buffered));
        assert_eq!(sync.snapshot(17).expect_err("older"), Misfit::TooOld { id: 17, first: 19 });
        assert_eq!(ids(&sync.snapshot(20).expect("fits")), [22]);
    }

    #[test]
    fn the_first_difference_may_begin_before_the_snapshot() {
        let mut sync = DepthSync::default();
        sync.diff(diff(5, 12));
        assert_eq!(ids(&sync.snapshot(10).expect("fits")), [12]);
        let mut quiet = DepthSync::default();
        assert!(quiet.snapshot(10).expect("nothing waits").is_empty());
        assert!(matches!(quiet.diff(diff(8, 13)), Step::Apply(_)));
    }

    #[test]
    fn a_hole_in_what_waits_is_found() {
        let mut sync = DepthSync::default();
        sync.diff(diff(1, 5));
        sync.diff(diff(7, 8));
        assert_eq!(sync.snapshot(4).expect_err("hole"), Misfit::Hole { expected: 6, first: 7 });
        assert_eq!(ids(&sync.snapshot(6).expect("a later snapshot covers it")), [8]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut sync = DepthSync::default();
        for i in 0..10_000 {
            sync.diff(diff(i, i));
        }
        assert_eq!(sync.buffer.len(), DIFFS_BUFFERED_MAX);
        assert!(matches!(sync.snapshot(3), Err(Misfit::TooOld { .. })));
    }
}
