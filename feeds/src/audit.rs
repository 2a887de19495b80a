//! A live book held against another word of the venue: a snapshot, and what changed since. Where nothing numbers the
//! differences, a lost one shows nowhere else.

use ticker_market::book::BookSide;
use ticker_market::{Book, Decimal, Level, Levels, Time};

use crate::depth::{Audit, DepthSync};
use crate::keeper::{Keeper, Stamp, Wrong};
use crate::{Fault, Out};

/// The differences of what a snapshot has come within so many milliseconds after it, if they come at all.
pub(crate) const REACHED_MAX_MS: i64 = 15_000;

/// The snapshot came that [`DepthSync::begin_audit`] was for, with its last update.
pub(crate) fn answered(
    sync: &mut DepthSync,
    keeper: &mut Keeper,
    (id, snapshot): (u64, Levels),
    recv: Time,
    out: &mut Out,
) {
    sync.hold(id, snapshot, recv.plus_millis(REACHED_MAX_MS));
    settle(sync, keeper, recv, out);
}

/// Compares the live book with the snapshot that is held, if there is one and the book has reached it, or should have.
pub(crate) fn settle(sync: &mut DepthSync, keeper: &mut Keeper, now: Time, out: &mut Out) {
    let Some(Audit { snapshot, changes }) = sync.audit(now) else { return };
    match audit(keeper.book(), &snapshot, &changes) {
        Ok(()) => keeper.verified(now),
        Err(wrong) => {
            sync.reset();
            keeper.fault(wrong, Stamp::here(now), out);
        }
    }
}

/// As [`settle`], for those of these books that have not reached their snapshot in time: what it has was lost.
pub(crate) fn settle_due<'a>(
    books: impl Iterator<Item = (&'a mut Keeper, &'a mut DepthSync)>,
    now: Time,
    out: &mut Out,
) {
    for (keeper, sync) in books {
        if sync.held_until().is_some_and(|until| until <= now) {
            settle(sync, keeper, now, out);
        }
    }
}

/// Is the book that of the snapshot after these changes? What lies beyond the snapshot's last levels is not known to it.
fn audit(book: &Book, snapshot: &Levels, changes: &[Levels]) -> Result<(), Wrong> {
    let mut theirs = Book::without_sum();
    theirs.replace(snapshot)?;
    for levels in changes {
        theirs.apply(levels)?;
    }
    let bids = is_same(snapshot.bids.iter().map(|l| l.price).min(), book.bids(), theirs.bids(), BookSide::Bid);
    let asks = is_same(snapshot.asks.iter().map(|l| l.price).max(), book.asks(), theirs.asks(), BookSide::Ask);
    if bids && asks {
        return Ok(());
    }
    Err(Wrong { fault: Fault::Mismatch, detail: "a snapshot of the book has other levels".to_owned() })
}

/// Have these the same levels, as far as the `last` price?
fn is_same<'a>(
    last: Option<Decimal>,
    ours: impl Iterator<Item = &'a Level>,
    theirs: impl Iterator<Item = &'a Level>,
    side: BookSide,
) -> bool {
    let is_known = |level: &&Level| {
        last.is_some_and(|last| match side {
            BookSide::Bid => level.price >= last,
            BookSide::Ask => level.price <= last,
        })
    };
    ours.take_while(is_known).eq(theirs.take_while(is_known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(bids: &[(i64, i64)], asks: &[(i64, i64)]) -> Levels {
        let list = |list: &[(i64, i64)]| {
            list.iter().map(|(price, size)| Level { price: (*price).into(), size: (*size).into() }).collect()
        };
        Levels { bids: list(bids), asks: list(asks), ..Levels::default() }
    }

    #[test]
    fn a_book_is_held_against_what_the_snapshot_knows() {
        let mut book = Book::new();
        book.replace(&levels(&[(100, 1), (99, 2), (50, 9)], &[(101, 1), (300, 7)])).expect("fits");
        let snapshot = levels(&[(100, 1), (98, 3)], &[(101, 5)]);
        let changes = [levels(&[(99, 2)], &[(101, 1)]), levels(&[(98, 0)], &[])];
        assert_eq!(audit(&book, &snapshot, &changes), Ok(()), "50 and 300 are beyond it");
        for other in [&changes[..1], &changes[1..]] {
            let wrong = audit(&book, &snapshot, other).expect_err("another book");
            assert_eq!(wrong.fault, Fault::Mismatch);
        }
    }
}
