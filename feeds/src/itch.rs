//! Nasdaq TotalView-ITCH 5.0, and what carries it.
//!
//! Sources: "Nasdaq TotalView-ITCH 5.0" (the messages), "MoldUDP64 Protocol Specification 1.00" (packets) and
//! "BinaryFILE Version 1.00" (files), all of nasdaqtrader.com.
//!
//! - [`Message`], [`decode`]: the 23 message types;
//! - [`moldudp`]: packets in order, and requests for what is missing;
//! - [`Itch`]: order-by-order books, trades and trading states from messages;
//! - [`ItchFile`]: a file of messages, as an [`Archive`](crate::archive::Archive).
//!
//! Order references from before the start are unknown: where the messages do not begin with "start of messages", they
//! are counted and passed over, and the books' integrity is `none`, because what was there before is missing in them.
//! GLIMPSE, which tells a book at a point in the sequence, is not read: after a loss nothing shows a book before the
//! next day begins.

mod day;
mod file;
mod message;
pub mod moldudp;

use std::collections::VecDeque;

use compact_str::{CompactString, ToCompactString};
use hashbrown::HashMap;
use ticker_market::book::BookSide;
use ticker_market::{Channel, Decimal, Instrument, Integrity, Side, Time};

pub use self::day::{midnight, midnight_of_file};
pub use self::file::ItchFile;
pub use self::message::{
    AddOrder, CrossTrade, DirectListing, Head, Imbalance, Message, MessageError, NonCrossTrade, Stock, StockDirectory,
    decode, length,
};
use crate::archive::symbol_of;
use crate::by_order::{Change, Crossing, Listing, ORDERS_EXPECTED, Order, OrderBooks, Refused};
use crate::keeper::Stamp;
use crate::{Fault, Out, Report};

/// The venue's name in topics.
pub const VENUE: &str = "nasdaq";

/// Digits of a price after the point.
pub const PRICE_SCALE: u32 = 4;

/// So many of the latest trades are remembered, for broken ones: a broken trade is told by its number alone.
pub const TRADES_REMEMBERED_MAX: usize = 1 << 18;

/// What was counted. None of it is told one by one.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Messages decoded.
    pub messages: u64,
    /// Messages that named an order from before the start.
    pub unknown_orders: u64,
    /// Executions that are not to be counted as trades (`C` with printable `N`).
    pub not_printable: u64,
    /// Broken trades.
    pub broken_trades: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Unknown,
    /// Not asked for.
    Unwanted,
    /// Kept, by that number.
    Kept(u32),
}

#[derive(Clone, Copy, Debug)]
struct Remembered {
    match_number: u64,
    number: u32,
    price: i64,
    size: u64,
    side: Option<Side>,
}

/// Books, trades and trading states from messages. A state machine without I/O.
#[derive(Debug)]
pub struct Itch {
    /// As they are in normal form; empty for all.
    wanted: Vec<CompactString>,
    midnight: Time,
    /// Of books that are whole.
    integrity: Integrity,
    books: OrderBooks,
    /// By stock locate.
    places: Vec<Place>,
    /// By number.
    listings: Vec<Listing>,
    /// May orders cross, by number?
    crossings: Vec<Crossing>,
    by_stock: HashMap<Stock, u32>,
    /// Were all messages of the day seen?
    whole: bool,
    trades: VecDeque<Remembered>,
    counts: Counts,
}

impl Itch {
    /// For these symbols in normal form, none for all of them. `midnight` is that of the day in New York; `integrity`
    /// what proves that no message is missing: [`Integrity::Sequenced`] with [`moldudp`], [`Integrity::Ordered`] of a
    /// file.
    pub fn new(symbols: &[String], midnight: Time, integrity: Integrity) -> Self {
        Self {
            wanted: symbols.iter().map(CompactString::from).collect(),
            midnight,
            integrity,
            books: OrderBooks::new(),
            places: Vec::new(),
            listings: Vec::new(),
            crossings: Vec::new(),
            by_stock: HashMap::new(),
            whole: false,
            trades: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// All orders, and the books by the instruments' numbers.
    pub fn books(&self) -> &OrderBooks {
        &self.books
    }

    /// The instrument of that symbol in normal form.
    pub fn listing(&self, symbol: &str) -> Option<&Listing> {
        self.listings.iter().find(|l| l.instrument().symbol == symbol)
    }

    /// When a message of that day happened.
    pub fn time(&self, head: Head) -> Time {
        self.midnight.plus_nanos(i64::try_from(head.nanos).unwrap_or(i64::MAX))
    }

    /// Decodes a message, and tells what it changes. `recv` is when it was received; without it, when it happened.
    /// Returns when it happened.
    pub fn message(&mut self, bytes: &[u8], recv: Option<Time>, out: &mut Out) -> Result<Time, MessageError> {
        let (head, message) = decode(bytes)?;
        let ts = self.time(head);
        self.take(head, message, Stamp { ts: Some(ts), recv: recv.unwrap_or(ts) }, out);
        Ok(ts)
    }

    /// Messages are missing and will not come: no book can be trusted before the next day begins.
    pub fn lost(&mut self, detail: String, recv: Time, out: &mut Out) {
        out.reports.push(Report { fault: Fault::Gap, native: None, detail });
        self.whole = false;
        self.books.clear_all();
        for listing in &mut self.listings {
            listing.break_off(Fault::Gap.as_str(), Stamp::here(recv), out);
        }
    }

    /// Tells everything again.
    pub fn retell(&self, now: Time, out: &mut Out) {
        for listing in &self.listings {
            listing.retell(&self.books, listing.number(), now, out);
        }
    }

    /// Every instrument is closed for `reason`.
    pub fn end(&mut self, reason: &str, now: Time, out: &mut Out) {
        for listing in &mut self.listings {
            listing.end(reason, now, out);
        }
    }

    fn take(&mut self, head: Head, message: Message, stamp: Stamp, out: &mut Out) {
        self.counts.messages += 1;
        match message {
            Message::Add(order) => {
                let Some(number) = self.keep(head.locate, order.stock, stamp, out) else { return };
                let side = book_side(order.side);
                match self.books.add(order.reference, number, side, order.price.into(), order.shares) {
                    Ok(change) => self.settle(&[change], stamp, out),
                    Err(why) => self.refused(number, order.reference, why, stamp, out),
                }
            }
            Message::Executed { reference, shares, match_number } => {
                if let Some((order, change)) = self.reduce(head.locate, reference, shares, stamp, out) {
                    self.trade(order.book(), order.price, shares.into(), taker(&order), match_number, stamp, out);
                    self.settle(&[change], stamp, out);
                }
            }
            Message::ExecutedWithPrice { reference, shares, match_number, printable, price } => {
                if let Some((order, change)) = self.reduce(head.locate, reference, shares, stamp, out) {
                    if printable {
                        self.trade(order.book(), price.into(), shares.into(), taker(&order), match_number, stamp, out);
                    } else {
                        self.counts.not_printable += 1;
                    }
                    self.settle(&[change], stamp, out);
                }
            }
            Message::Cancel { reference, shares } => {
                if let Some((_, change)) = self.reduce(head.locate, reference, shares, stamp, out) {
                    self.settle(&[change], stamp, out);
                }
            }
            Message::Delete { reference } => match self.books.delete(reference) {
                Ok((_, change)) => self.settle(&[change], stamp, out),
                Err(_) => self.unknown(head.locate, reference, stamp, out),
            },
            Message::Replace { reference, new_reference, shares, price } => {
                match self.books.replace(reference, new_reference, price.into(), shares) {
                    Ok((gone, Ok(came))) => self.settle(&[gone, came], stamp, out),
                    Ok((gone, Err(why))) => {
                        self.settle(&[gone], stamp, out);
                        self.refused(gone.book, new_reference, why, stamp, out);
                    }
                    Err(_) => self.unknown(head.locate, reference, stamp, out),
                }
            }
            Message::NonCross(trade) => {
                if let Some(number) = self.keep(head.locate, trade.stock, stamp, out) {
                    // The side has said `B` for every trade since 2014.
                    self.trade(number, trade.price.into(), trade.shares.into(), None, trade.match_number, stamp, out);
                }
            }
            Message::Cross(trade) => {
                if let Some(number) = self.keep(head.locate, trade.stock, stamp, out)
                    && trade.shares > 0
                {
                    self.trade(number, trade.price.into(), trade.shares, None, trade.match_number, stamp, out);
                }
            }
            Message::BrokenTrade { match_number } => self.broken(head.locate, match_number, stamp, out),
            Message::StockDirectory(directory) => {
                if let Some(number) = self.keep(head.locate, directory.stock, stamp, out) {
                    let lot = if directory.round_lots_only { directory.round_lot_size } else { 1 };
                    // Prices below a dollar move in steps of a hundredth of a cent (Rule 612 of Regulation NMS).
                    let tick = Decimal::new(1, PRICE_SCALE);
                    self.listings[number as usize].describe(Some(tick), Some(lot.into()), out);
                }
            }
            Message::TradingAction { stock, state, .. } => {
                let reason = match state {
                    b'H' => Some("halt"),
                    b'P' => Some("pause"),
                    b'Q' => Some("quotation_only"),
                    _ => None,
                };
                self.halt(head.locate, stock, reason, stamp, out);
            }
            Message::OperationalHalt { stock, market: b'Q', action } => {
                self.halt(head.locate, stock, (action == b'H').then_some("operational_halt"), stamp, out);
            }
            Message::SystemEvent(b'O') => self.begin(),
            _ => {}
        }
    }

    /// A day begins, whose every message will be seen.
    fn begin(&mut self) {
        self.whole = true;
        self.books.clear_all();
        self.books.reserve(ORDERS_EXPECTED);
        self.places.clear();
        self.trades.clear();
        for listing in &mut self.listings {
            listing.begin(self.integrity);
        }
    }

    /// The number of a stock, announced now if it is new and wanted.
    fn keep(&mut self, locate: u16, stock: Stock, stamp: Stamp, out: &mut Out) -> Option<u32> {
        let at = usize::from(locate);
        match self.places.get(at) {
            Some(Place::Kept(number)) => return Some(*number),
            Some(Place::Unwanted) => return None,
            _ => {}
        }
        if self.places.len() <= at {
            self.places.resize(at + 1, Place::Unknown);
        }
        let symbol = symbol_of(stock.trimmed())?;
        if !self.wanted.is_empty() && !self.wanted.contains(&symbol) {
            self.places[at] = Place::Unwanted;
            return None;
        }
        let known = self.by_stock.get(&stock).copied();
        let number = match known {
            Some(number) => number,
            None => {
                let number = u32::try_from(self.listings.len()).ok()?;
                let native = String::from_utf8_lossy(stock.trimmed()).into();
                let instrument = Instrument {
                    venue: VENUE.into(),
                    symbol,
                    native,
                    tick_size: None,
                    lot_size: None,
                    channels: vec![Channel::Quote, Channel::Trade, Channel::Book],
                };
                let integrity = if self.whole { self.integrity } else { Integrity::None };
                self.listings.push(Listing::new(number, instrument, PRICE_SCALE, integrity, out));
                self.crossings.push(Crossing::Fault);
                self.by_stock.insert(stock, number);
                number
            }
        };
        self.places[at] = Place::Kept(number);
        let crossing = self.crossings[number as usize];
        self.listings[number as usize].settle(&self.books, number, crossing, stamp, out);
        Some(number)
    }

    fn settle(&mut self, changes: &[Change], stamp: Stamp, out: &mut Out) {
        let Some(number) = changes.first().map(|c| c.book) else { return };
        let listing = &mut self.listings[number as usize];
        for change in changes {
            listing.touch(change);
        }
        listing.settle(&self.books, number, self.crossings[number as usize], stamp, out);
    }

    fn reduce(&mut self, locate: u16, reference: u64, by: u32, stamp: Stamp, out: &mut Out) -> Option<(Order, Change)> {
        match self.books.reduce(reference, by) {
            Ok((order, change)) => {
                if by > order.size {
                    let detail = format!("{by} are taken from order {reference}, which has {}", order.size);
                    self.listings[order.book() as usize].fault(Fault::Gap, detail, stamp, out);
                }
                Some((order, change))
            }
            Err(_) => {
                self.unknown(locate, reference, stamp, out);
                None
            }
        }
    }

    /// An order that is not known: from before the start, or (where we saw the start) a sign that something is missing.
    fn unknown(&mut self, locate: u16, reference: u64, stamp: Stamp, out: &mut Out) {
        let place = self.places.get(usize::from(locate)).copied().unwrap_or(Place::Unknown);
        if place == Place::Unwanted {
            return;
        }
        self.counts.unknown_orders += 1;
        if let (true, Place::Kept(number)) = (self.whole, place) {
            let detail = format!("order {reference} never came");
            self.listings[number as usize].fault(Fault::Gap, detail, stamp, out);
        }
    }

    fn refused(&mut self, number: u32, reference: u64, why: Refused, stamp: Stamp, out: &mut Out) {
        let detail = format!("order {reference}: {why}");
        self.listings[number as usize].fault(Fault::Undecodable, detail, stamp, out);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a trade, which come from four messages")]
    fn trade(
        &mut self,
        number: u32,
        price: i64,
        size: u64,
        side: Option<Side>,
        match_number: u64,
        stamp: Stamp,
        out: &mut Out,
    ) {
        self.listings[number as usize].trade(price, size, side, match_number.to_compact_string(), stamp, out);
        if self.trades.len() == TRADES_REMEMBERED_MAX {
            self.trades.pop_front();
        }
        self.trades.push_back(Remembered { match_number, number, price, size, side });
    }

    fn broken(&mut self, locate: u16, match_number: u64, stamp: Stamp, out: &mut Out) {
        self.counts.broken_trades += 1;
        let found = self.trades.iter().rev().find(|t| t.match_number == match_number).copied();
        let place = self.places.get(usize::from(locate)).copied().unwrap_or(Place::Unknown);
        let (number, price, size, side) = match (found, place) {
            (Some(t), _) => (t.number, t.price, t.size, t.side),
            (None, Place::Kept(number)) => (number, 0, 0, None),
            _ => return,
        };
        self.listings[number as usize].cancel(price, size, side, match_number.to_compact_string(), stamp, out);
    }

    fn halt(&mut self, locate: u16, stock: Stock, reason: Option<&str>, stamp: Stamp, out: &mut Out) {
        let Some(number) = self.keep(locate, stock, stamp, out) else { return };
        let crossing = if reason.is_some() { Crossing::Auction } else { Crossing::Fault };
        self.crossings[number as usize] = crossing;
        self.listings[number as usize].halt(reason, stamp, out);
    }
}

fn book_side(side: Side) -> BookSide {
    match side {
        Side::Buy => BookSide::Bid,
        Side::Sell => BookSide::Ask,
    }
}

/// Who takes from an order is on the other side of it.
fn taker(order: &Order) -> Option<Side> {
    Some(match order.side() {
        BookSide::Bid => Side::Sell,
        BookSide::Ask => Side::Buy,
    })
}

#[cfg(test)]
#[path = "itch/tests.rs"]
mod tests;
