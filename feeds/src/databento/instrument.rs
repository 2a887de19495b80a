//! One instrument of a file: what its records do to its book.

use compact_str::{CompactString, ToCompactString, format_compact};
use dbn::{BidAskPair, ConsolidatedBidAskPair, UNDEF_PRICE, flags};
use ticker_market::book::BookSide;
use ticker_market::{Channel, Decimal, Instrument, Integrity, Side, Time};

use crate::by_order::{Crossing, Listing, OrderBooks, Refused};
use crate::keeper::Stamp;
use crate::{Fault, Out};

/// Digits of a price after the point.
const PRICE_SCALE: u32 = 9;

/// Its book's number: each instrument has orders of its own, because ids are the venue's and may come twice in a file.
const BOOK: u32 = 0;

/// The fields of an `mbo` record that say something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    pub(super) id: u64,
    pub(super) action: u8,
    pub(super) side: u8,
    pub(super) price: i64,
    pub(super) size: u32,
    pub(super) flags: u8,
    pub(super) sequence: u32,
}

/// A trade.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traded {
    pub(super) price: i64,
    pub(super) size: u32,
    pub(super) side: u8,
    pub(super) sequence: u32,
}

/// The best prices.
#[derive(Clone, Copy, Debug)]
pub(super) struct BestPair {
    bid: Option<(i64, u64)>,
    ask: Option<(i64, u64)>,
}

impl BestPair {
    pub(super) fn of(pair: &BidAskPair) -> Self {
        Self { bid: level(pair.bid_px, pair.bid_sz), ask: level(pair.ask_px, pair.ask_sz) }
    }

    pub(super) fn consolidated(pair: &ConsolidatedBidAskPair) -> Self {
        Self { bid: level(pair.bid_px, pair.bid_sz), ask: level(pair.ask_px, pair.ask_sz) }
    }
}

fn level(price: i64, size: u32) -> Option<(i64, u64)> {
    (price != UNDEF_PRICE && size > 0).then_some((price, size.into()))
}

fn level_id(side: BookSide, price: i64) -> u64 {
    price.cast_unsigned() << 1 | u64::from(side == BookSide::Ask)
}

#[derive(Debug)]
pub(super) struct Tracked {
    listing: Listing,
    books: OrderBooks,
    /// It began with a clear, so that every order of it is known.
    whole: bool,
    crossing: Crossing,
    /// A status record said whether there is trading.
    status_known: bool,
    /// The last trade's sequence, and how many trades had it.
    last_trade: (u32, u32),
}

impl Tracked {
    pub(super) fn new(
        number: u32,
        venue: &str,
        symbol: CompactString,
        native: &str,
        channels: Vec<Channel>,
        out: &mut Out,
    ) -> Self {
        let instrument = Instrument {
            venue: venue.into(),
            symbol,
            native: native.into(),
            tick_size: None,
            lot_size: None,
            channels,
        };
        Self {
            // Until a clear says otherwise.
            listing: Listing::new(number, instrument, PRICE_SCALE, Integrity::None, out),
            books: OrderBooks::new(),
            whole: false,
            crossing: Crossing::Auction,
            status_known: false,
            last_trade: (0, 0),
        }
    }

    pub(super) fn symbol(&self) -> &CompactString {
        &self.listing.instrument().symbol
    }

    /// Takes an `mbo` record. Returns how many orders it named that are from before the start.
    pub(super) fn order(&mut self, order: Order, stamp: Stamp, out: &mut Out) -> u64 {
        let mut unknown = 0;
        if order.flags & flags::MAYBE_BAD_BOOK != 0 && order.action != b'R' {
            self.whole = false;
            self.books.clear_all();
            self.listing.fault(Fault::Gap, "the file says that the book may be bad".to_owned(), stamp, out);
        }
        let side = match order.side {
            b'B' => Some(BookSide::Bid),
            b'A' => Some(BookSide::Ask),
            _ => None,
        };
        match (order.action, side) {
            (b'A', Some(side)) => self.add(order, side, stamp, out),
            (b'M', Some(side)) => match self.books.delete(order.id) {
                Ok((_, change)) => {
                    self.listing.touch(&change);
                    self.add(order, side, stamp, out);
                }
                Err(_) => {
                    unknown += self.unknown(order, stamp, out);
                    // A change says everything of an order.
                    self.add(order, side, stamp, out);
                }
            },
            (b'C', _) => match self.books.reduce(order.id, order.size) {
                Ok((before, change)) => {
                    self.listing.touch(&change);
                    if order.size > before.size {
                        let detail =
                            format!("{} are taken from order {}, which has {}", order.size, order.id, before.size);
                        self.listing.fault(Fault::Gap, detail, stamp, out);
                    }
                }
                Err(_) => unknown += self.unknown(order, stamp, out),
            },
            (b'R', _) => {
                self.books.clear_all();
                self.whole = true;
                // Orders are collected anew.
                if !self.status_known {
                    self.crossing = Crossing::Auction;
                }
                self.listing.begin(Integrity::Sequenced);
            }
            (b'T', _) => {
                let Order { price, size, side, sequence, .. } = order;
                self.trade(Traded { price, size, side, sequence }, stamp, out);
            }
            // Fills are told by the cancellation or change that follows; the rest says nothing.
            _ => {}
        }
        if order.flags & flags::LAST != 0 {
            self.listing.settle(&self.books, BOOK, self.crossing, stamp, out);
        }
        unknown
    }

    pub(super) fn trade(&mut self, trade: Traded, stamp: Stamp, out: &mut Out) {
        if !self.status_known {
            self.crossing = Crossing::Fault;
        }
        if trade.price == UNDEF_PRICE || trade.size == 0 {
            return;
        }
        // The side of a trade is the aggressor's.
        let side = match trade.side {
            b'B' => Some(Side::Buy),
            b'A' => Some(Side::Sell),
            _ => None,
        };
        self.last_trade = match self.last_trade {
            (sequence, count) if sequence == trade.sequence => (sequence, count + 1),
            _ => (trade.sequence, 1),
        };
        // Trades have no ids in these files: the venue's message and the place in it.
        let id = match self.last_trade {
            (sequence, 1) => sequence.to_compact_string(),
            (sequence, count) => format_compact!("{sequence}.{count}"),
        };
        self.listing.trade(trade.price, trade.size.into(), side, id, stamp, out);
    }

    /// Takes the levels of an `mbp-10` record, which are all that is known of the book.
    pub(super) fn levels(&mut self, pairs: &[BidAskPair], flags: u8, stamp: Stamp, out: &mut Out) {
        if flags & dbn::flags::MAYBE_BAD_BOOK != 0 {
            self.whole = false;
            self.books.clear_all();
            return self.listing.fault(Fault::Gap, "the file says that the book may be bad".to_owned(), stamp, out);
        }
        if !std::mem::replace(&mut self.whole, true) {
            self.listing.begin(Integrity::Sequenced);
        }
        for side in [BookSide::Bid, BookSide::Ask] {
            let of = |pair: &BidAskPair| match side {
                BookSide::Bid => level(pair.bid_px, pair.bid_sz),
                BookSide::Ask => level(pair.ask_px, pair.ask_sz),
            };
            // Each price is one order, whose number is made of it.
            let gone: Vec<i64> = self
                .books
                .side(BOOK, side)
                .filter(|rung| !pairs.iter().any(|pair| of(pair) == Some((rung.price, rung.size))))
                .map(|rung| rung.price)
                .collect();
            for price in gone {
                if let Ok((_, change)) = self.books.delete(level_id(side, price)) {
                    self.listing.touch(&change);
                }
            }
            for (price, size) in pairs.iter().filter_map(of) {
                let size = u32::try_from(size).unwrap_or(u32::MAX);
                // What is there already is as it was.
                if let Ok(change) = self.books.add(level_id(side, price), BOOK, side, price, size) {
                    self.listing.touch(&change);
                }
            }
        }
        if flags & dbn::flags::LAST != 0 {
            self.listing.settle(&self.books, BOOK, self.crossing, stamp, out);
        }
    }

    pub(super) fn best(&mut self, best: BestPair, stamp: Stamp, out: &mut Out) {
        self.listing.quote(best.bid, best.ask, stamp, out);
    }

    /// Takes a `status` record: `action` is a `StatusAction`.
    pub(super) fn status(&mut self, action: u16, is_trading: u8, stamp: Stamp, out: &mut Out) {
        let reason = match action {
            1 => Some("pre_open"),
            2 | 4 | 5 => Some("auction"),
            3 => Some("quotation_only"),
            8 | 10 => Some("halt"),
            9 => Some("pause"),
            12 | 13 | 15 => Some("closed"),
            7 | 11 => None,
            _ if is_trading == b'Y' => None,
            // No change.
            _ => return,
        };
        self.status_known = true;
        self.crossing = if reason.is_some() { Crossing::Auction } else { Crossing::Fault };
        self.listing.halt(reason, stamp, out);
    }

    /// Takes a `definition` record's smallest steps; those that are not defined say nothing.
    pub(super) fn define(&mut self, tick: i64, lot: i32, out: &mut Out) {
        let tick = (tick > 0 && tick != UNDEF_PRICE).then(|| Decimal::new(tick, PRICE_SCALE));
        let lot = (lot > 0 && lot != i32::MAX).then(|| lot.into());
        self.listing.describe(tick, lot, out);
    }

    pub(super) fn retell(&self, now: Time, out: &mut Out) {
        self.listing.retell(&self.books, BOOK, now, out);
    }

    pub(super) fn end(&mut self, reason: &str, now: Time, out: &mut Out) {
        self.listing.end(reason, now, out);
    }

    fn add(&mut self, order: Order, side: BookSide, stamp: Stamp, out: &mut Out) {
        if order.price == UNDEF_PRICE {
            return;
        }
        match self.books.add(order.id, BOOK, side, order.price, order.size) {
            Ok(change) => self.listing.touch(&change),
            // An order that was changed to nothing is gone.
            Err(Refused::Empty) => {}
            Err(why) => {
                let detail = format!("order {}: {why}", order.id);
                self.listing.fault(Fault::Undecodable, detail, stamp, out);
            }
        }
    }

    fn unknown(&mut self, order: Order, stamp: Stamp, out: &mut Out) -> u64 {
        if self.whole {
            self.listing.fault(Fault::Gap, format!("order {} never came", order.id), stamp, out);
        }
        1
    }
}
