//! An instrument whose book is built order by order, and what was told of it.

use compact_str::CompactString;
use ticker_market::book::BookSide;
use ticker_market::{
    Channel, Data, Decimal, Instrument, Integrity, Kind, Level, Levels, Quote, Side, State, Status, Time, Trade,
};

use super::orders::{Change, OrderBooks, Rung};
use crate::keeper::Stamp;
use crate::{Fault, Out, Report, Update};

/// What a crossed book means. It is never shown, whatever it means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crossing {
    /// Trading is continuous: something is wrong.
    Fault,
    /// Orders are collected for an auction, and may cross until it.
    Auction,
}

/// The reason of an instrument whose orders cross before an auction.
pub const AUCTION: &str = "auction";

type Best = (Option<(i64, u64)>, Option<(i64, u64)>);

/// One instrument. Its number in [`Out::instruments`] is the number of its book in [`OrderBooks`] too, where several
/// share one.
#[derive(Debug)]
pub struct Listing {
    number: u32,
    instrument: Instrument,
    /// Digits of a price after the point.
    scale: u32,
    integrity: Integrity,
    /// A book was told, and is followed.
    shown: bool,
    /// Why no book is shown, until the venue begins anew; a crossed book is shown again by itself.
    broken: Option<&'static str>,
    crossed: Option<Crossing>,
    quote: Option<Best>,
    quote_invalidated: bool,
    halted: Option<CompactString>,
    ended: Option<CompactString>,
    status_told: Option<(State, Option<CompactString>)>,
    last_verified: Option<Time>,
    /// Changed prices that were not told yet, with their sizes before.
    touched: Vec<(BookSide, i64, u64)>,
}

impl Listing {
    /// Announces an instrument whose prices have `scale` digits after the point.
    pub fn new(number: u32, instrument: Instrument, scale: u32, integrity: Integrity, out: &mut Out) -> Self {
        out.instruments.push((number, instrument.clone()));
        Self {
            number,
            instrument,
            scale,
            integrity,
            shown: false,
            broken: None,
            crossed: None,
            quote: None,
            quote_invalidated: false,
            halted: None,
            ended: None,
            status_told: None,
            last_verified: None,
            touched: Vec::new(),
        }
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The instrument.
    pub fn instrument(&self) -> &Instrument {
        &self.instrument
    }

    /// Is its book shown?
    pub fn is_shown(&self) -> bool {
        self.shown
    }

    /// The venue told its tick and lot size; announced again if that is news.
    pub fn describe(&mut self, tick: Option<Decimal>, lot: Option<Decimal>, out: &mut Out) {
        if (self.instrument.tick_size, self.instrument.lot_size) != (tick, lot) {
            self.instrument.tick_size = tick;
            self.instrument.lot_size = lot;
            out.instruments.push((self.number, self.instrument.clone()));
        }
    }

    /// A price of its book changed; told by [`Listing::settle`].
    pub fn touch(&mut self, change: &Change) {
        self.touched.push((change.side, change.price, change.before));
    }

    /// All messages of one moment are in: tells what they changed. `books` has its book under `book`.
    pub fn settle(&mut self, books: &OrderBooks, book: u32, crossing: Crossing, stamp: Stamp, out: &mut Out) {
        if self.broken.is_some() || (self.shown && self.touched.is_empty()) {
            self.touched.clear();
            return;
        }
        self.ended = None;
        let best = (books.best(book, BookSide::Bid), books.best(book, BookSide::Ask));
        if matches!(best, (Some(bid), Some(ask)) if bid.price >= ask.price) {
            self.touched.clear();
            return self.cross(best, crossing, stamp, out);
        }
        self.crossed = None;
        self.last_verified = Some(stamp.recv);
        if self.shown {
            let levels = self.changes(books, book, out);
            if !levels.bids.is_empty() || !levels.asks.is_empty() {
                self.push(Channel::Book, Kind::Update, stamp, Data::Book(levels), out);
            } else {
                out.recycle(levels);
            }
        } else {
            self.shown = true;
            self.touched.clear();
            self.push(Channel::Book, Kind::Snapshot, stamp, Data::Book(self.whole(books, book)), out);
        }
        let of = |rung: Option<Rung>| rung.map(|r| (r.price, r.size));
        self.tell_best((of(best.0), of(best.1)), stamp, out);
        self.tell_status(stamp.recv, out);
    }

    /// The best prices alone came, without a book.
    pub fn quote(&mut self, bid: Option<(i64, u64)>, ask: Option<(i64, u64)>, stamp: Stamp, out: &mut Out) {
        self.ended = None;
        if matches!((bid, ask), (Some(bid), Some(ask)) if bid.0 >= ask.0) {
            // Such as before an auction: not shown.
            self.crossed = Some(Crossing::Auction);
            self.invalidate_quote(Fault::Crossed.as_str(), stamp, out);
        } else {
            self.crossed = None;
            self.tell_best((bid, ask), stamp, out);
        }
        self.tell_status(stamp.recv, out);
    }

    /// A trade. `id` is the venue's.
    pub fn trade(&mut self, price: i64, size: u64, side: Option<Side>, id: CompactString, stamp: Stamp, out: &mut Out) {
        let data = Data::Trade(self.told(price, size, side, id, None));
        self.push(Channel::Trade, Kind::Update, stamp, data, out);
    }

    /// The venue took back the trade of that id. What it was is zero where it was not remembered.
    pub fn cancel(
        &mut self,
        price: i64,
        size: u64,
        side: Option<Side>,
        id: CompactString,
        stamp: Stamp,
        out: &mut Out,
    ) {
        let data = Data::Trade(self.told(price, size, side, id.clone(), Some(id)));
        self.push(Channel::Trade, Kind::Cancel, stamp, data, out);
    }

    /// The venue halted its trading for `reason`, or (with `None`) lets it go on.
    pub fn halt(&mut self, reason: Option<&str>, stamp: Stamp, out: &mut Out) {
        self.halted = reason.map(CompactString::from);
        self.tell_status(stamp.recv, out);
    }

    /// Its book is found wrong: not shown until [`Listing::begin`]. Told once.
    pub fn fault(&mut self, fault: Fault, detail: String, stamp: Stamp, out: &mut Out) {
        if self.broken.is_none() {
            out.reports.push(Report { fault, native: Some(self.instrument.native.to_string()), detail });
            self.break_off(fault.as_str(), stamp, out);
        }
    }

    /// As [`Listing::fault`], where the report is of the whole feed.
    pub fn break_off(&mut self, reason: &'static str, stamp: Stamp, out: &mut Out) {
        self.hide(reason, stamp, out);
        self.broken = Some(reason);
        self.tell_status(stamp.recv, out);
    }

    /// The venue begins its book anew: what was wrong with it is of the past, and what is told next is a snapshot.
    pub fn begin(&mut self, integrity: Integrity) {
        self.integrity = integrity;
        self.broken = None;
        self.shown = false;
        self.touched.clear();
    }

    /// No more will come of it.
    pub fn end(&mut self, reason: &str, now: Time, out: &mut Out) {
        self.ended = Some(reason.into());
        self.tell_status(now, out);
    }

    /// Tells everything again, for a receiver who knows nothing. `books` has its book under `book`.
    pub fn retell(&self, books: &OrderBooks, book: u32, now: Time, out: &mut Out) {
        let here = Stamp::here(now);
        out.instruments.push((self.number, self.instrument.clone()));
        let (state, reason) = self.status();
        let why = reason.clone().unwrap_or_else(|| crate::keeper::AWAITING_SNAPSHOT.into());
        self.push(Channel::Status, Kind::Update, here, self.status_data(state, reason), out);
        if let Some(best) = self.quote {
            self.push(Channel::Quote, Kind::Snapshot, here, self.quote_data(best), out);
        } else if self.quote_invalidated {
            self.push(Channel::Quote, Kind::Invalid, here, Data::Invalid(why.clone()), out);
        }
        if self.shown {
            // What was touched and not settled yet is of a moment that is not over; it is told with it.
            let mut levels = self.whole(books, book);
            self.undo(&mut levels);
            self.push(Channel::Book, Kind::Snapshot, here, Data::Book(levels), out);
        } else if self.instrument.channels.contains(&Channel::Book) {
            self.push(Channel::Book, Kind::Invalid, here, Data::Invalid(why), out);
        }
    }

    fn cross(&mut self, best: (Option<Rung>, Option<Rung>), crossing: Crossing, stamp: Stamp, out: &mut Out) {
        if self.crossed != Some(Crossing::Fault)
            && crossing == Crossing::Fault
            && let (Some(bid), Some(ask)) = best
        {
            let (bid, ask) = (self.decimal(bid.price), self.decimal(ask.price));
            let detail = format!("best bid {bid} at or above best ask {ask}");
            out.reports.push(Report {
                fault: Fault::Crossed,
                native: Some(self.instrument.native.to_string()),
                detail,
            });
        }
        self.crossed = Some(crossing);
        self.hide(Fault::Crossed.as_str(), stamp, out);
        self.tell_status(stamp.recv, out);
    }

    fn hide(&mut self, reason: &'static str, stamp: Stamp, out: &mut Out) {
        if std::mem::take(&mut self.shown) {
            self.push(Channel::Book, Kind::Invalid, stamp, Data::Invalid(reason.into()), out);
        }
        self.invalidate_quote(reason, stamp, out);
        self.touched.clear();
    }

    fn invalidate_quote(&mut self, reason: &'static str, stamp: Stamp, out: &mut Out) {
        if self.quote.take().is_some() {
            self.quote_invalidated = true;
            self.push(Channel::Quote, Kind::Invalid, stamp, Data::Invalid(reason.into()), out);
        }
    }

    /// The touched prices whose size is another than before, best first.
    fn changes(&mut self, books: &OrderBooks, book: u32, out: &mut Out) -> Levels {
        if self.touched.len() > 1 {
            // Stable: of several changes of one price the first has the size before them all.
            self.touched.sort_by_key(|&(side, price, _)| match side {
                BookSide::Bid => (false, price.wrapping_neg()),
                BookSide::Ask => (true, price),
            });
            self.touched.dedup_by_key(|&mut (side, price, _)| (side, price));
        }
        let mut levels = Levels { bids: out.spare(), asks: out.spare(), ..Levels::default() };
        for &(side, price, before) in &self.touched {
            let size = books.size_at(book, side, price);
            if size != before {
                let level = Level { price: self.decimal(price), size: size.into() };
                match side {
                    BookSide::Bid => levels.bids.push(level),
                    BookSide::Ask => levels.asks.push(level),
                }
            }
        }
        self.touched.clear();
        levels
    }

    /// All levels, without the sums: who puts them on the tape computes both.
    fn whole(&self, books: &OrderBooks, book: u32) -> Levels {
        let list = |side| books.side(book, side).map(|r| self.level(r.price, r.size)).collect();
        Levels { bids: list(BookSide::Bid), asks: list(BookSide::Ask), ..Levels::default() }
    }

    fn undo(&self, levels: &mut Levels) {
        for &(side, price, before) in self.touched.iter().rev() {
            let price = self.decimal(price);
            let list = match side {
                BookSide::Bid => &mut levels.bids,
                BookSide::Ask => &mut levels.asks,
            };
            let found = list.binary_search_by(|level| match side {
                BookSide::Bid => price.cmp(&level.price),
                BookSide::Ask => level.price.cmp(&price),
            });
            match (found, before) {
                (Ok(at), 0) => _ = list.remove(at),
                (Ok(at), _) => list[at].size = before.into(),
                (Err(_), 0) => {}
                (Err(at), _) => list.insert(at, Level { price, size: before.into() }),
            }
        }
    }

    fn tell_best(&mut self, best: Best, stamp: Stamp, out: &mut Out) {
        if self.quote == Some(best) {
            return;
        }
        self.quote = Some(best);
        let kind = if std::mem::take(&mut self.quote_invalidated) { Kind::Snapshot } else { Kind::Update };
        self.push(Channel::Quote, kind, stamp, self.quote_data(best), out);
    }

    fn quote_data(&self, best: Best) -> Data {
        let level = |side: Option<(i64, u64)>| side.map(|(price, size)| self.level(price, size));
        Data::Quote(Quote { bid: level(best.0), ask: level(best.1), bid_venue: None, ask_venue: None })
    }

    fn told(
        &self,
        price: i64,
        size: u64,
        side: Option<Side>,
        trade_id: CompactString,
        reference: Option<CompactString>,
    ) -> Trade {
        Trade { price: self.decimal(price), size: size.into(), side, trade_id, reference }
    }

    fn tell_status(&mut self, now: Time, out: &mut Out) {
        let (state, reason) = self.status();
        if self.status_told.as_ref().is_some_and(|told| told.0 == state && told.1 == reason) {
            return;
        }
        self.status_told = Some((state, reason.clone()));
        self.push(Channel::Status, Kind::Update, Stamp::here(now), self.status_data(state, reason), out);
    }

    fn status_data(&self, state: State, reason: Option<CompactString>) -> Data {
        Data::Status(Status { state, integrity: self.integrity, reason, last_verified: self.last_verified })
    }

    fn status(&self) -> (State, Option<CompactString>) {
        if let Some(reason) = &self.ended {
            return (State::Closed, Some(reason.clone()));
        }
        if let Some(reason) = self.broken {
            return (State::Resyncing, Some(reason.into()));
        }
        if let Some(reason) = &self.halted {
            return (State::Halted, Some(reason.clone()));
        }
        match self.crossed {
            Some(Crossing::Fault) => (State::Resyncing, Some(Fault::Crossed.as_str().into())),
            Some(Crossing::Auction) => (State::Halted, Some(AUCTION.into())),
            None => (State::Live, None),
        }
    }

    fn level(&self, price: i64, size: u64) -> Level {
        Level { price: self.decimal(price), size: size.into() }
    }

    fn decimal(&self, price: i64) -> Decimal {
        Decimal::new(price, self.scale)
    }

    fn push(&self, channel: Channel, kind: Kind, stamp: Stamp, data: Data, out: &mut Out) {
        out.updates.push(Update { instrument: self.number, channel, kind, ts: stamp.ts, recv: stamp.recv, data });
    }
}
