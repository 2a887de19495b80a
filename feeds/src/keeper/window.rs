//! Books made of windows: of the best levels, as some channels tell them, all of them each time.

use ticker_market::{Decimal, Level, Levels};

use super::{BookState, Keeper, Stamp, Wrong, uncrossed};
use crate::{Conn, Out};

impl Keeper {
    /// A window of so many levels a side came. It makes the book where the book itself did not come: a recording may have
    /// nothing else. Of several depths the deepest counts.
    pub fn window(&mut self, conn: Conn, depth: usize, levels: &Levels, stamp: Stamp, out: &mut Out) {
        if depth < self.window_depth {
            return;
        }
        self.window_depth = depth;
        self.heard(conn, stamp.recv, out);
        if self.book_state == BookState::Window {
            let mut changes = Levels { bids: out.spare(), asks: out.spare(), ..Levels::default() };
            let sides = [
                (&mut changes.bids, self.book.bids(), &levels.bids),
                (&mut changes.asks, self.book.asks(), &levels.asks),
            ];
            for (changes, shown, window) in sides {
                let gone = shown.filter(|old| !window.iter().any(|new| new.price == old.price));
                changes.extend(gone.map(|old| Level { price: old.price, size: Decimal::ZERO }));
                changes.extend_from_slice(window);
            }
            self.change(&changes, |_| Ok(()), stamp, out);
            return out.recycle(changes);
        }
        if let Err(wrong) = self.book.replace(levels).map_err(Wrong::from).and_then(|()| uncrossed(&self.book)) {
            return self.fault(wrong, stamp, out);
        }
        self.show(conn, BookState::Window, stamp, out);
    }
}
