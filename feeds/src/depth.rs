//! Differences of a book and the snapshot that they continue, where the venue gives the two by different ways: "How to
//! manage a local order book correctly", in developers.binance.com/docs/binance-spot-api-docs/web-socket-streams and
//! …/derivatives/usds-margined-futures/websocket-market-streams.
//!
//! Venues differ in how a difference names its place. Here every one says which update it ends with and which one came
//! before it.

use std::collections::VecDeque;

use ticker_market::{Levels, Time};

use crate::Conn;

/// Differences of one instrument that wait for its snapshot, at most: ten come a second, so these are minutes. Then
/// the oldest is dropped, and an older snapshot no longer fits.
pub const DIFFS_BUFFERED_MAX: usize = 2_000;

/// Levels in the differences of one instrument that wait for its snapshot, at most.
pub const LEVELS_BUFFERED_MAX: usize = 200_000;

/// Differences that are older than the one before them by the same connection, in a row, before that one counts as wrong.
const BEHIND_MAX: u8 = 3;

/// How a venue's differences are joined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rule {
    /// By ranges: one may begin before the book's last update, but not after it.
    Ranges,
    /// By a chain: each names the last update of the one before it, which must be exactly that one. Only the first one
    /// after a snapshot, or after another connection's, may begin earlier. The one that ends where the snapshot does is
    /// applied to it: on Binance's futures the snapshot may lack a part of it.
    Chain,
}

impl Rule {
    /// Has a snapshot with that last update all of a difference that ends so?
    fn has_all(self, id: u64, last: u64) -> bool {
        match self {
            Rule::Ranges => last <= id,
            Rule::Chain => last < id,
        }
    }
}

/// The changes of the updates after `before`, up to `last`.
#[derive(Clone, Debug)]
pub(crate) struct Diff {
    /// The last update that is not in it: of those before it, the last.
    pub(crate) before: u64,
    /// The last update that is in it.
    pub(crate) last: u64,
    /// The connection that it came by.
    pub(crate) conn: Conn,
    pub(crate) levels: Levels,
    pub(crate) ts: Option<Time>,
}

impl Diff {
    fn weight(&self) -> usize {
        self.levels.bids.len() + self.levels.asks.len()
    }
}

/// What a difference means for the book.
#[derive(Debug)]
pub(crate) enum Step {
    /// It continues the book.
    Apply(Diff),
    /// The book has it already.
    Old,
    /// It waits for the snapshot.
    Buffered,
    /// It does not continue the book, whose last update is `last`. It waits for the snapshot.
    Gap { last: u64, before: u64 },
}

/// Why a snapshot does not fit.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Misfit {
    /// Older than the first difference that waits: another one is to be fetched.
    TooOld { id: u64, before: u64 },
    /// The differences that wait have a hole themselves.
    Hole { last: u64, before: u64 },
}

/// The place of one instrument's book in the venue's sequence.
#[derive(Clone, Debug)]
pub(crate) struct DepthSync {
    rule: Rule,
    /// The last update that the book has; none while it waits for a snapshot.
    last: Option<u64>,
    /// The connection whose difference brought it; none after a snapshot.
    chain: Option<Conn>,
    /// The last difference that was applied, and its connection: what comes after it by the same one is newer.
    applied: Option<(Conn, u64)>,
    /// How many that are older came by it since.
    behind: u8,
    /// What waits for the snapshot; or, while a synced book is audited, what was applied since the audit began.
    buffer: VecDeque<Diff>,
    weight: usize,
    is_audited: bool,
    /// The snapshot that came for the audit, until the book has reached it.
    held: Option<Held>,
}

/// A snapshot to hold a book against.
#[derive(Clone, Debug)]
struct Held {
    id: u64,
    levels: Levels,
    /// What it has has come by then, or is lost.
    until: Time,
}

/// What an audit of a book compares.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Audit {
    /// The snapshot.
    pub(crate) snapshot: Levels,
    /// What the book has besides it.
    pub(crate) changes: Vec<Levels>,
}

impl DepthSync {
    pub(crate) fn new(rule: Rule) -> Self {
        Self {
            rule,
            last: None,
            chain: None,
            applied: None,
            behind: 0,
            buffer: VecDeque::new(),
            weight: 0,
            is_audited: false,
            held: None,
        }
    }

    /// A snapshot of the synced book is asked for, to hold the two against each other: what is applied from here on is
    /// kept for it.
    pub(crate) fn begin_audit(&mut self) {
        if self.is_synced() {
            (self.is_audited, self.held) = (true, None);
            self.buffer.clear();
            self.weight = 0;
        }
    }

    /// Is a snapshot awaited, or held, to hold the book against?
    pub(crate) fn is_audited(&self) -> bool {
        self.is_audited
    }

    /// The snapshot for the audit came, with its last update. The book may have to reach it first.
    pub(crate) fn hold(&mut self, id: u64, levels: Levels, until: Time) {
        self.held = Some(Held { id, levels, until });
    }

    /// Until when the book may reach the snapshot that is held.
    pub(crate) fn held_until(&self) -> Option<Time> {
        self.held.as_ref().map(|held| held.until)
    }

    /// What is to be compared now, once. A snapshot from before the audit began says nothing.
    pub(crate) fn audit(&mut self, now: Time) -> Option<Audit> {
        let last = self.last?;
        let held = self.held.take_if(|held| held.id <= last || held.until <= now)?;
        self.is_audited = false;
        self.weight = 0;
        let kept: Vec<Diff> = self.buffer.drain(..).collect();
        let from = kept.first().map_or(last, |diff| diff.before);
        let is_new = |diff: &Diff| !self.rule.has_all(held.id, diff.last);
        let changes = kept.into_iter().filter(is_new).map(|diff| diff.levels).collect();
        (from <= held.id).then_some(Audit { snapshot: held.levels, changes })
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.last.is_some()
    }

    /// The last update that the book has.
    pub(crate) fn last(&self) -> Option<u64> {
        self.last
    }

    pub(crate) fn is_buffering(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Starts anew: nothing that came before counts.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.rule);
    }

    /// The book is that of a snapshot which came in its place among the differences. What waited is old.
    pub(crate) fn snapshot_in_band(&mut self, id: u64, conn: Conn) {
        self.reset();
        self.last = Some(id);
        self.chain = Some(conn);
    }

    /// Takes a difference.
    pub(crate) fn diff(&mut self, diff: Diff) -> Step {
        let Some(last) = self.last else {
            self.push(diff);
            return Step::Buffered;
        };
        if self.continues(last, self.chain, &diff) {
            self.last = Some(diff.last);
            self.chain = Some(diff.conn);
            (self.applied, self.behind) = (Some((diff.conn, diff.last)), 0);
            if self.is_audited {
                self.push(diff.clone());
            }
            return Step::Apply(diff);
        }
        if diff.last <= last {
            // A number that was wrong, and too high, makes all that follows old.
            self.behind += u8::from(diff.last < last && self.applied == Some((diff.conn, last)));
            if self.behind < BEHIND_MAX {
                return Step::Old;
            }
        }
        let gap = Step::Gap { last, before: diff.before };
        self.reset();
        self.push(diff);
        gap
    }

    /// Takes a snapshot with its last update. Returns the differences that follow it, in order.
    pub(crate) fn snapshot(&mut self, id: u64) -> Result<Vec<Diff>, Misfit> {
        while self.buffer.front().is_some_and(|diff| self.rule.has_all(id, diff.last)) {
            self.pop();
        }
        let (mut last, mut chain) = (id, None);
        // While one connection replaces another both deliver: what comes a second time is older than the book by then.
        let mut is_new = Vec::with_capacity(self.buffer.len());
        for i in 0..self.buffer.len() {
            let diff = &self.buffer[i];
            let continues = self.continues(last, chain, diff);
            is_new.push(continues);
            if continues {
                (last, chain) = (diff.last, Some(diff.conn));
            } else if diff.last > last {
                let before = diff.before;
                if i == 0 {
                    return Err(Misfit::TooOld { id, before });
                }
                // What lies before the hole is of no use any more.
                for _ in 0..i {
                    self.pop();
                }
                return Err(Misfit::Hole { last, before });
            }
        }
        (self.last, self.chain) = (Some(last), chain);
        self.weight = 0;
        Ok(self.buffer.drain(..).zip(is_new).filter_map(|(diff, is_new)| is_new.then_some(diff)).collect())
    }

    fn continues(&self, last: u64, chain: Option<Conn>, diff: &Diff) -> bool {
        match self.rule {
            // A chain may be broken on purpose: after maintenance OKX goes on below where it was.
            Rule::Chain if chain == Some(diff.conn) => diff.before == last && diff.last != last,
            Rule::Chain if chain.is_none() => diff.before <= last && !self.rule.has_all(last, diff.last),
            // What is there twice is right, because sizes are absolute.
            Rule::Chain | Rule::Ranges => diff.before <= last && diff.last > last,
        }
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

    const CONN: Conn = Conn(1);

    fn diff(first: u64, last: u64) -> Diff {
        Diff { before: first.saturating_sub(1), last, conn: CONN, levels: Levels::default(), ts: None }
    }

    fn ids(diffs: &[Diff]) -> Vec<u64> {
        diffs.iter().map(|d| d.last).collect()
    }

    #[test]
    fn the_documented_rule() {
        for rule in [Rule::Ranges, Rule::Chain] {
            let mut sync = DepthSync::new(rule);
            for (first, last) in [(1, 5), (6, 8), (9, 9), (10, 14)] {
                assert!(matches!(sync.diff(diff(first, last)), Step::Buffered));
            }
            // A snapshot of futures may lack a part of what it ends with.
            let again: &[u64] = if rule == Rule::Chain { &[8] } else { &[] };
            assert_eq!(ids(&sync.snapshot(8).expect("fits")), [again, &[9, 14]].concat());
            assert!(matches!(sync.diff(diff(12, 14)), Step::Old));
            assert!(matches!(sync.diff(diff(15, 17)), Step::Apply(_)));
            assert!(matches!(sync.diff(diff(19, 20)), Step::Gap { last: 17, before: 18 }));
            assert!(!sync.is_synced());
            assert!(matches!(sync.diff(diff(21, 22)), Step::Buffered));
            assert_eq!(sync.snapshot(17).expect_err("older"), Misfit::TooOld { id: 17, before: 18 });
            let again: &[u64] = if rule == Rule::Chain { &[20] } else { &[] };
            assert_eq!(ids(&sync.snapshot(20).expect("fits")), [again, &[22]].concat());
        }
    }

    #[test]
    fn the_first_difference_may_begin_before_the_snapshot() {
        for rule in [Rule::Ranges, Rule::Chain] {
            let mut sync = DepthSync::new(rule);
            sync.diff(diff(5, 12));
            assert_eq!(ids(&sync.snapshot(10).expect("fits")), [12]);
            let mut quiet = DepthSync::new(rule);
            assert!(quiet.snapshot(10).expect("nothing waits").is_empty());
            assert!(matches!(quiet.diff(diff(8, 13)), Step::Apply(_)));
        }
    }

    #[test]
    fn later_ones_may_overlap_by_range_and_not_by_chain() {
        let mut ranges = DepthSync::new(Rule::Ranges);
        let mut chain = DepthSync::new(Rule::Chain);
        for sync in [&mut ranges, &mut chain] {
            sync.snapshot(10).expect("nothing waits");
            assert!(matches!(sync.diff(diff(9, 12)), Step::Apply(_)));
        }
        assert!(matches!(ranges.diff(diff(12, 14)), Step::Apply(_)));
        // Another connection may have cut the same updates at other places.
        let other = |first, last| Diff { conn: Conn(2), ..diff(first, last) };
        assert!(matches!(chain.clone().diff(other(12, 14)), Step::Apply(_)));
        assert!(matches!(chain.clone().diff(other(14, 14)), Step::Gap { .. }));
        assert!(matches!(chain.diff(diff(12, 14)), Step::Gap { last: 12, before: 11 }));
    }

    #[test]
    fn what_two_connections_told_before_the_snapshot_counts_once() {
        for rule in [Rule::Ranges, Rule::Chain] {
            let mut sync = DepthSync::new(rule);
            let again = |first, last| Diff { conn: Conn(2), ..diff(first, last) };
            for told in [diff(1, 5), diff(6, 8), again(1, 5), diff(9, 9), again(6, 8), again(9, 9), again(10, 11)] {
                sync.diff(told);
            }
            let again: &[u64] = if rule == Rule::Chain { &[5] } else { &[] };
            assert_eq!(ids(&sync.snapshot(5).expect("fits")), [again, &[8, 9, 11]].concat());
            assert!(matches!(sync.diff(diff(10, 11)), Step::Old));
        }
    }

    #[test]
    fn what_ends_where_the_snapshot_does_is_applied_to_it_once() {
        for (rule, is_applied) in [(Rule::Ranges, false), (Rule::Chain, true)] {
            let mut sync = DepthSync::new(rule);
            sync.snapshot(10).expect("nothing waits");
            assert!(matches!(sync.diff(diff(7, 9)), Step::Old));
            assert_eq!(matches!(sync.diff(diff(8, 10)), Step::Apply(_)), is_applied, "{rule:?}");
            for conn in [CONN, Conn(2)] {
                assert!(matches!(sync.diff(Diff { conn, ..diff(8, 10) }), Step::Old), "{rule:?}");
            }
            assert!(matches!(sync.diff(diff(11, 12)), Step::Apply(_)));
        }
    }

    #[test]
    fn a_chain_may_go_on_below() {
        let mut sync = DepthSync::new(Rule::Chain);
        sync.snapshot_in_band(100, CONN);
        let down = Diff { before: 100, ..diff(0, 7) };
        assert!(matches!(sync.diff(down), Step::Apply(_)));
        assert!(matches!(sync.diff(diff(8, 9)), Step::Apply(_)));
        assert!(matches!(sync.diff(Diff { before: 9, ..diff(0, 9) }), Step::Old), "nothing happened");
    }

    #[test]
    fn a_connection_that_goes_back_is_wrong() {
        for rule in [Rule::Ranges, Rule::Chain] {
            let mut sync = DepthSync::new(rule);
            sync.snapshot(10).expect("nothing waits");
            assert!(matches!(sync.diff(diff(11, 9_012)), Step::Apply(_)), "a wrong number");
            assert!(matches!(sync.diff(diff(11, 9_012)), Step::Old), "the same again");
            let other = Diff { conn: Conn(2), ..diff(13, 13) };
            assert!(matches!(sync.diff(other), Step::Old), "another connection may be behind");
            assert!(matches!(sync.diff(diff(13, 13)), Step::Old), "one may have been sent again");
            assert!(matches!(sync.diff(diff(14, 14)), Step::Old));
            assert!(matches!(sync.diff(diff(15, 15)), Step::Gap { last: 9_012, before: 14 }));
        }
    }

    #[test]
    fn a_hole_in_what_waits_is_found() {
        let mut sync = DepthSync::new(Rule::Ranges);
        sync.diff(diff(1, 5));
        sync.diff(diff(7, 8));
        assert_eq!(sync.snapshot(4).expect_err("hole"), Misfit::Hole { last: 5, before: 6 });
        assert_eq!(ids(&sync.snapshot(6).expect("a later snapshot covers it")), [8]);
    }

    #[test]
    fn an_audit_of_a_chain_has_what_the_snapshot_may_lack() {
        let mut sync = DepthSync::new(Rule::Chain);
        sync.snapshot(10).expect("nothing waits");
        sync.begin_audit();
        assert!(matches!(sync.diff(diff(11, 12)), Step::Apply(_)));
        sync.hold(12, Levels::default(), Time(0));
        assert_eq!(sync.audit(Time(0)).expect("reached").changes.len(), 1);
    }

    #[test]
    fn a_snapshot_for_an_audit_is_of_a_moment_that_was_kept() {
        let mut sync = DepthSync::new(Rule::Ranges);
        sync.begin_audit();
        assert!(!sync.is_audited(), "there is no book");
        sync.snapshot(10).expect("nothing waits");
        for (id, wanted) in [(9, None), (10, Some(2)), (11, Some(2)), (12, Some(1)), (15, Some(0))] {
            let mut sync = sync.clone();
            sync.begin_audit();
            for (first, last) in [(11, 12), (13, 15)] {
                assert!(matches!(sync.diff(diff(first, last)), Step::Apply(_)));
            }
            sync.hold(id, Levels::default(), Time(9));
            let found = sync.audit(Time(0)).map(|audit| audit.changes.len());
            assert_eq!((found, sync.is_audited(), sync.last()), (wanted, false, Some(15)), "{id}");
        }
    }

    #[test]
    fn an_audit_waits_until_the_book_has_reached_the_snapshot_but_not_longer() {
        let mut sync = DepthSync::new(Rule::Ranges);
        sync.snapshot(10).expect("nothing waits");
        sync.begin_audit();
        sync.hold(12, Levels::default(), Time(9));
        assert_eq!((sync.audit(Time(8)), sync.held_until()), (None, Some(Time(9))));
        let mut quiet = sync.clone();
        assert!(matches!(sync.diff(diff(11, 13)), Step::Apply(_)));
        assert_eq!(sync.audit(Time(8)).expect("reached").changes.len(), 1);
        assert_eq!((sync.audit(Time(9)), sync.is_audited()), (None, false), "once");
        assert_eq!(quiet.audit(Time(9)).expect("nothing more comes").changes.len(), 0);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut sync = DepthSync::new(Rule::Ranges);
        for i in 0..10_000 {
            sync.diff(diff(i, i));
        }
        assert_eq!(sync.buffer.len(), DIFFS_BUFFERED_MAX);
        assert!(matches!(sync.snapshot(3), Err(Misfit::TooOld { .. })));
    }
}
