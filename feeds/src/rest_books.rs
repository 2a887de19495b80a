//! Books that are a REST snapshot and the differences that continue it, of one adapter: what to buffer, when to fetch,
//! when a book is whole. The rule itself is [`DepthSync`]'s: the first difference begins at or before the update after
//! the snapshot, and each later one at the update after the one before it.

use compact_str::CompactString;
use ticker_market::{Book, Levels, Time};

use crate::depth::{DepthSync, Diff, Misfit, Rule, Step};
use crate::keeper::{Keeper, Stamp, Wrong};
use crate::resync::Budget;
use crate::roster::{Roster, Steps};
use crate::{Conn, Fault, Out};

/// The book is that of a snapshot, of its last update and its time, and of the differences since, if there are any. Where
/// that is no good book the differences are buffered anew.
pub(crate) fn begin(
    sync: &mut DepthSync,
    keeper: &mut Keeper,
    (id, levels, ts): (u64, &Levels, Option<Time>),
    recv: Time,
    out: &mut Out,
) -> Result<(), Misfit> {
    let diffs = sync.snapshot(id)?;
    let mut book = Book::without_sum();
    let applied = book.replace(levels).and_then(|()| diffs.iter().try_for_each(|d| book.apply(&d.levels)));
    let stamp = Stamp { ts: diffs.last().map_or(ts, |d| d.ts), recv };
    let is_live = match applied {
        Ok(()) => keeper.snapshot_book(keeper.owner().unwrap_or(Conn(0)), book, stamp, out),
        Err(error) => {
            keeper.fault(error.into(), stamp, out);
            false
        }
    };
    if !is_live {
        sync.reset();
    }
    Ok(())
}

/// The differences do not continue the snapshot: a newer one is asked for, and what is missing among them is a fault.
pub(crate) fn misfits(keeper: &mut Keeper, misfit: Misfit, recv: Time, out: &mut Out) {
    match misfit {
        Misfit::TooOld { .. } => keeper.resync.request(recv),
        Misfit::Hole { last, before } => {
            let detail = format!("what follows update {before} came after {last}");
            keeper.fault(Wrong { fault: Fault::Gap, detail }, Stamp::here(recv), out);
        }
    }
}

/// How a venue's snapshots are fetched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fetching {
    /// A snapshot's URL, without the venue's name of the instrument.
    pub(crate) url: &'static str,
    /// What comes after the name.
    pub(crate) url_end: &'static str,
    /// Snapshots fetched in any minute, at most.
    pub(crate) per_minute_max: usize,
    /// Levels a side that the differences follow.
    pub(crate) depth: usize,
}

/// The books of one adapter.
#[derive(Debug)]
pub(crate) struct RestBooks {
    pub(crate) roster: Roster,
    fetching: Fetching,
    /// By the instrument's number.
    syncs: Vec<DepthSync>,
    snapshots: Budget,
    /// The connection that was opened last.
    newest: Option<Conn>,
}

impl RestBooks {
    pub(crate) fn new(roster: Roster, fetching: Fetching) -> Self {
        let snapshots = Budget::new(fetching.per_minute_max, 60_000);
        Self { roster, fetching, syncs: Vec::new(), snapshots, newest: None }
    }

    pub(crate) fn keep(
        &mut self,
        native: &str,
        describe: impl FnOnce() -> (CompactString, Steps),
        out: &mut Out,
    ) -> Option<(&mut Keeper, &mut DepthSync)> {
        let keeper = self.roster.keep(native, describe, out)?;
        let number = keeper.number() as usize;
        if self.syncs.len() <= number {
            self.syncs.resize_with(number + 1, || DepthSync::new(Rule::Ranges));
            keeper.set_depth(self.fetching.depth);
        }
        Some((keeper, &mut self.syncs[number]))
    }

    /// A connection was opened that will carry this instrument; a quiet one's snapshot is fetched by the timer.
    pub(crate) fn opened(&mut self, conn: Conn, native: &str, delay_ms: i64, now: Time, out: &mut Out) {
        self.newest = Some(conn);
        if let Some(keeper) = self.roster.by_native(native) {
            keeper.opened(conn, now, out);
            if !keeper.is_live() {
                keeper.resync.expect(now.plus_millis(delay_ms));
            }
        }
    }

    /// Differences of an instrument that is kept, in order, as they came in one frame.
    pub(crate) fn diffs(
        &mut self,
        conn: Conn,
        native: &str,
        diffs: impl IntoIterator<Item = Diff>,
        recv: Time,
        out: &mut Out,
    ) {
        let newest = self.newest.is_none_or(|newest| newest == conn);
        let Some(keeper) = self.roster.by_native(native) else { return };
        let Some(sync) = self.syncs.get_mut(keeper.number() as usize) else { return };
        keeper.with_book();
        keeper.heard(conn, recv, out);
        for diff in diffs {
            let ts = diff.ts;
            // While one connection replaces another both deliver, and what the other one told already is old.
            match sync.diff(diff) {
                Step::Old if newest && sync.is_synced() => keeper.adopt(conn),
                Step::Old => {}
                Step::Apply(diff) => {
                    if newest {
                        keeper.adopt(conn);
                    }
                    if !keeper.update(&diff.levels, |_| Ok(()), Stamp { ts, recv }, out) {
                        sync.reset();
                    }
                    out.recycle(diff.levels);
                }
                Step::Buffered => {
                    if !keeper.resync.is_asked() {
                        keeper.resync.request(recv);
                    }
                }
                Step::Gap { last, before } => {
                    let detail = format!("what follows update {before} came, the book is at {last}");
                    keeper.fault(Wrong { fault: Fault::Gap, detail }, Stamp { ts, recv }, out);
                }
            }
        }
        self.fetch_due(recv, out);
    }

    /// A snapshot came, which has the updates up to `id`.
    pub(crate) fn snapshot(&mut self, native: &str, id: u64, levels: Levels, recv: Time, out: &mut Out) {
        let Some(keeper) = self.roster.by_native(native) else { return };
        let Some(sync) = self.syncs.get_mut(keeper.number() as usize) else { return };
        if sync.is_synced() || keeper.is_stale() {
            // An answer to a question asked twice, or one that came too late.
            return;
        }
        if let Err(misfit) = begin(sync, keeper, (id, &levels, None), recv, out) {
            misfits(keeper, misfit, recv, out);
        }
        self.fetch_due(recv, out);
    }

    /// A snapshot came in its place among the differences.
    pub(crate) fn snapshot_in_band(
        &mut self,
        conn: Conn,
        native: &str,
        id: u64,
        levels: Levels,
        stamp: Stamp,
        out: &mut Out,
    ) {
        let Some(keeper) = self.roster.by_native(native) else { return };
        let Some(sync) = self.syncs.get_mut(keeper.number() as usize) else { return };
        keeper.with_book();
        keeper.heard(conn, stamp.recv, out);
        // While one connection replaces another both deliver, and what the other one told already is old.
        if keeper.owner() != Some(conn) && sync.last().is_some_and(|last| last > id) {
            return;
        }
        if keeper.snapshot(conn, levels, |_| Ok(()), stamp, out) {
            sync.snapshot_in_band(id, conn);
        } else {
            sync.reset();
        }
        self.fetch_due(stamp.recv, out);
    }

    /// A snapshot could not be fetched.
    pub(crate) fn failed(&mut self, native: &str, now: Time) {
        if let Some(keeper) = self.roster.by_native(native)
            && !keeper.is_live()
        {
            keeper.resync.request(now);
        }
    }

    /// Fetches the snapshots that are due, as far as the limit allows.
    pub(crate) fn fetch_due(&mut self, now: Time, out: &mut Out) {
        let Fetching { url, url_end, .. } = self.fetching;
        self.roster.fetch_due(&mut self.snapshots, now, out, |native| format!("{url}{native}{url_end}"));
    }

    /// When [`RestBooks::fetch_due`] wants to be called next.
    pub(crate) fn next_fetch(&self) -> Option<Time> {
        self.roster.next_resync().map(|at| self.snapshots.earliest(at))
    }

    /// What came by that connection can no longer be trusted.
    pub(crate) fn closed(&mut self, conn: Conn, reason: &str, now: Time, out: &mut Out) {
        for keeper in self.roster.iter().filter(|k| k.owner() == Some(conn)) {
            if let Some(sync) = self.syncs.get_mut(keeper.number() as usize) {
                sync.reset();
            }
        }
        self.roster.lost(conn, reason, now, out);
    }
}
