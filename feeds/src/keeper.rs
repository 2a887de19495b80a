//! What every adapter keeps of an instrument: its book, the quote that follows from it, its status.
//!
//! The rules that hold for every venue live here and nowhere else: a snapshot replaces, an update carries only what
//! changed, a book that is not proven is never shown, a status is told when it changes. Where a recording has nothing but a
//! book's best levels, all of them each time, those are the book ([`Keeper::window`]).

mod changer;
mod window;

use compact_str::{CompactString, ToCompactString};
use ticker_market::book::{Book, BookError, BookSide, is_same, order};
use ticker_market::{
    Channel, Data, Decimal, Instrument, Integrity, Kind, Level, Levels, Quote, State, Status, Time, Trade,
};

use self::changer::Changer;
use crate::resync::Resync;
use crate::trades::{SeenNames, SeenTrades};
use crate::{Conn, Fault, Out, Report, Update};

/// The reason of a book that waits for its first snapshot.
pub const AWAITING_SNAPSHOT: &str = "awaiting_snapshot";

/// The reason of what can no longer be trusted because its connection is gone or mute.
pub const STALE: &str = "stale";

/// The times of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// The venue's time; `None` where it gives none.
    pub ts: Option<Time>,
    /// When it was received.
    pub recv: Time,
}

impl Stamp {
    /// Something that happened here, not at the venue.
    pub fn here(recv: Time) -> Self {
        Self { ts: None, recv }
    }
}

/// What was found wrong with a book.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wrong {
    /// What kind.
    pub fault: Fault,
    /// What was found, what was expected.
    pub detail: String,
}

impl From<BookError> for Wrong {
    fn from(error: BookError) -> Self {
        Self { fault: Fault::Undecodable, detail: error.to_string() }
    }
}

/// Where an instrument's quotes come from. Until the first ticker frame they always come from the book.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QuoteSource {
    /// The ticker channel follows every change of the best prices.
    Ticker,
    /// The ticker channel speaks only when there is a trade, so that the book's best prices are news as well.
    TickerAndBook,
}

/// What proves a venue's books, and where its quotes come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ways {
    /// What proves the book.
    pub integrity: Integrity,
    /// Where quotes come from.
    pub quotes: QuoteSource,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum BookState {
    /// The venue was asked for none.
    None,
    Awaiting,
    Live,
    /// Made of windows, until the book itself comes.
    Window,
    /// Found wrong; waits for a snapshot.
    Faulty(&'static str),
}

/// One instrument of one venue.
#[derive(Debug)]
pub struct Keeper {
    number: u32,
    instrument: Instrument,
    ways: Ways,
    /// The connection whose frames make the book. While one connection replaces another, both deliver.
    owner: Option<Conn>,
    book: Book,
    book_state: BookState,
    /// Levels a side of the deepest window that came; all of them once the book itself came.
    window_depth: usize,
    /// Levels a side that the venue keeps; what falls below is removed.
    depth: usize,
    quote: Quote,
    quote_valid: bool,
    quote_invalidated: bool,
    quote_from_book: bool,
    ticker_seen: bool,
    top: (Option<Level>, Option<Level>),
    trades: SeenTrades,
    named_trades: SeenNames,
    stale: Option<CompactString>,
    halted: Option<CompactString>,
    ended: Option<CompactString>,
    last_verified: Option<Time>,
    status_sent: Option<(State, Option<CompactString>)>,
    /// When its book is to be asked for again.
    pub resync: Resync,
    changer: Changer,
    cut: Vec<Level>,
}

impl Keeper {
    /// Keeps an instrument from now on, and announces it.
    pub fn new(number: u32, instrument: Instrument, ways: Ways, out: &mut Out) -> Self {
        out.instruments.push((number, instrument.clone()));
        Self {
            number,
            instrument,
            ways,
            owner: None,
            book: Book::without_sum(),
            book_state: BookState::Awaiting,
            window_depth: 0,
            depth: usize::MAX,
            quote: Quote::default(),
            quote_valid: false,
            quote_invalidated: false,
            quote_from_book: false,
            ticker_seen: false,
            top: (None, None),
            trades: SeenTrades::default(),
            named_trades: SeenNames::default(),
            stale: None,
            halted: None,
            ended: None,
            last_verified: None,
            status_sent: None,
            resync: Resync::default(),
            changer: Changer::default(),
            cut: Vec::new(),
        }
    }

    /// Its number in the adapter.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The instrument.
    pub fn instrument(&self) -> &Instrument {
        &self.instrument
    }

    /// Its book. Only while [`Keeper::is_live`] does it mean anything.
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// Is the book proven and followed?
    pub fn is_live(&self) -> bool {
        self.book_state == BookState::Live
    }

    /// The connection whose frames make the book.
    pub fn owner(&self) -> Option<Conn> {
        self.owner
    }

    /// That connection makes the book from now on.
    pub fn adopt(&mut self, conn: Conn) {
        self.owner = Some(conn);
    }

    /// Is its connection gone or mute?
    pub fn is_stale(&self) -> bool {
        self.stale.is_some()
    }

    /// Levels a side that the venue keeps.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// The venue keeps so many levels a side.
    pub fn set_depth(&mut self, depth: usize) {
        self.depth = depth;
    }

    /// The venue is asked for no book of it: its status does not wait for one.
    pub fn without_book(&mut self) {
        if self.book_state == BookState::Awaiting {
            self.book_state = BookState::None;
        }
    }

    /// A book comes after all.
    pub fn with_book(&mut self) {
        if self.book_state == BookState::None {
            self.book_state = BookState::Awaiting;
        }
    }

    /// What proves the book, where it is not the same for all of a venue's protocols. Before anything is told of it.
    pub fn set_integrity(&mut self, integrity: Integrity) {
        self.ways.integrity = integrity;
    }

    /// The venue told its tick and lot size; announced again if that is news.
    pub fn describe(&mut self, tick: Option<Decimal>, lot: Option<Decimal>, out: &mut Out) {
        if (self.instrument.tick_size, self.instrument.lot_size) != (tick, lot) {
            self.instrument.tick_size = tick;
            self.instrument.lot_size = lot;
            out.instruments.push((self.number, self.instrument.clone()));
        }
    }

    /// A connection that was asked for this instrument is open.
    pub fn opened(&mut self, conn: Conn, now: Time, out: &mut Out) {
        // While one connection replaces another, the old one goes on until the new one's snapshot.
        if self.owner.is_none() || self.stale.is_some() {
            self.owner = Some(conn);
            self.stale = None;
            self.ended = None;
            self.tell_status(Stamp::here(now), out);
        }
    }

    /// A frame of this instrument came by that connection.
    pub fn heard(&mut self, conn: Conn, recv: Time, out: &mut Out) {
        if self.owner.is_none() || self.stale.is_some() || self.ended.is_some() || self.status_sent.is_none() {
            if self.owner.is_none() || self.stale.is_some() {
                self.owner = Some(conn);
            }
            self.stale = None;
            self.ended = None;
            self.tell_status(Stamp::here(recv), out);
        }
    }

    /// A snapshot came: it replaces the book, if `prove` finds nothing wrong with it. `levels` may be in any order.
    /// Returns whether the book is live.
    pub fn snapshot(
        &mut self,
        conn: Conn,
        mut levels: Levels,
        prove: impl FnOnce(&Book) -> Result<(), Wrong>,
        stamp: Stamp,
        out: &mut Out,
    ) -> bool {
        // The book takes a side quickest when it comes best first. Of two levels with one price the later holds, hence
        // a stable sort.
        if !levels.bids.is_sorted_by(|a, b| order(a.price, b.price).is_ge()) {
            levels.bids.sort_by_key(|level| std::cmp::Reverse(level.price));
        }
        if !levels.asks.is_sorted_by(|a, b| order(a.price, b.price).is_le()) {
            levels.asks.sort_by_key(|level| level.price);
        }
        if let Err(error) = self.book.replace(&levels) {
            self.fault(error.into(), stamp, out);
            return false;
        }
        self.snapshot_in_place(conn, prove, stamp, out)
    }

    /// A snapshot came, with changes buffered since that are part of it: as [`Keeper::snapshot`].
    pub fn snapshot_book(&mut self, conn: Conn, book: Book, stamp: Stamp, out: &mut Out) -> bool {
        self.book = book;
        self.snapshot_in_place(conn, |_| Ok(()), stamp, out)
    }

    fn snapshot_in_place(
        &mut self,
        conn: Conn,
        prove: impl FnOnce(&Book) -> Result<(), Wrong>,
        stamp: Stamp,
        out: &mut Out,
    ) -> bool {
        self.cut.clear();
        self.book.truncate(BookSide::Bid, self.depth, &mut self.cut);
        self.book.truncate(BookSide::Ask, self.depth, &mut self.cut);
        if let Err(wrong) = prove(&self.book).and_then(|()| uncrossed(&self.book)) {
            self.fault(wrong, stamp, out);
            return false;
        }
        self.window_depth = usize::MAX;
        self.show(conn, BookState::Live, stamp, out);
        true
    }

    /// The book that is here now is shown.
    fn show(&mut self, conn: Conn, state: BookState, stamp: Stamp, out: &mut Out) {
        self.owner = Some(conn);
        self.stale = None;
        self.ended = None;
        self.book_state = state;
        self.last_verified = Some(stamp.recv);
        self.resync.done();
        self.push(Channel::Book, Kind::Snapshot, stamp, Data::Book(whole(&self.book)), out);
        self.follow_book(stamp, out);
        self.tell_status(stamp, out);
    }

    /// Changed levels came; a size of zero removes. Nothing happens while the book is not live. Returns whether it
    /// still is: `prove` is asked after the change and after truncation to the depth.
    pub fn update(
        &mut self,
        changes: &Levels,
        prove: impl FnOnce(&Book) -> Result<(), Wrong>,
        stamp: Stamp,
        out: &mut Out,
    ) -> bool {
        self.book_state == BookState::Live && self.change(changes, prove, stamp, out)
    }

    fn change(
        &mut self,
        changes: &Levels,
        prove: impl FnOnce(&Book) -> Result<(), Wrong>,
        stamp: Stamp,
        out: &mut Out,
    ) -> bool {
        match self.apply(changes, prove, out) {
            Err(wrong) => {
                self.fault(wrong, stamp, out);
                false
            }
            Ok(levels) => {
                self.last_verified = Some(stamp.recv);
                if !levels.bids.is_empty() || !levels.asks.is_empty() {
                    self.push(Channel::Book, Kind::Update, stamp, Data::Book(levels), out);
                    self.follow_book(stamp, out);
                } else {
                    out.recycle(levels);
                }
                true
            }
        }
    }

    /// Another word of the venue says the same as the live book.
    pub fn verified(&mut self, now: Time) {
        self.last_verified = Some(now);
    }

    /// The ticker channel told the best prices. Only while they are not crossed are they shown.
    pub fn ticker(&mut self, bid: Option<Level>, ask: Option<Level>, stamp: Stamp, out: &mut Out) {
        self.ticker_seen = true;
        if matches!((bid, ask), (Some(b), Some(a)) if order(b.price, a.price).is_ge()) {
            self.report(Fault::Crossed, "the ticker's best bid is not below its best ask".to_owned(), out);
            return self.invalidate_quote(Fault::Crossed.as_str(), stamp.recv, out);
        }
        self.quote_from_book = false;
        self.tell_quote(bid, ask, stamp, out);
    }

    /// A trade; told once, whatever overlaps. `id` is `trade_id` as a number.
    pub fn trade(&mut self, id: u64, trade: Trade, stamp: Stamp, out: &mut Out) {
        if self.trades.insert(id) {
            self.push(Channel::Trade, Kind::Update, stamp, Data::Trade(trade), out);
        }
    }

    /// As [`Keeper::trade`], at a venue whose ids do not rise.
    pub fn named_trade(&mut self, trade: Trade, stamp: Stamp, out: &mut Out) {
        if self.named_trades.insert(&trade.trade_id) {
            self.push(Channel::Trade, Kind::Update, stamp, Data::Trade(trade), out);
        } else {
            out.take_back(Data::Trade(trade));
        }
    }

    /// A trade of a source that tells each one once.
    pub fn new_trade(&mut self, trade: Trade, stamp: Stamp, out: &mut Out) {
        self.push(Channel::Trade, Kind::Update, stamp, Data::Trade(trade), out);
    }

    /// A trade at a venue whose ids do not rise that is history from before we joined: it is not told, not even when it
    /// comes again.
    pub fn past_trade(&mut self, id: &str) {
        self.named_trades.insert(id);
    }

    /// Trade ids are of another kind from now on.
    pub fn forget_trades(&mut self) {
        self.trades.clear();
    }

    /// The book was found wrong: nothing of it is shown until a snapshot, which [`Keeper::resync`] says when to ask for.
    pub fn fault(&mut self, wrong: Wrong, stamp: Stamp, out: &mut Out) {
        self.report(wrong.fault, wrong.detail, out);
        self.invalidate(wrong.fault.as_str(), stamp.recv, out);
        self.resync.request(stamp.recv);
    }

    /// As [`Keeper::fault`], where the report and the resync are those of the whole connection.
    pub fn invalidate(&mut self, reason: &'static str, now: Time, out: &mut Out) {
        if self.is_shown() {
            self.push(Channel::Book, Kind::Invalid, Stamp::here(now), Data::Invalid(reason.into()), out);
            if self.quote_from_book {
                self.invalidate_quote(reason, now, out);
            }
        }
        self.book.clear();
        if self.book_state != BookState::None {
            self.book_state = BookState::Faulty(reason);
        }
        self.tell_status(Stamp::here(now), out);
    }

    /// The quote can no longer be trusted.
    pub fn invalidate_quote(&mut self, reason: &str, now: Time, out: &mut Out) {
        if std::mem::take(&mut self.quote_valid) {
            self.quote_invalidated = true;
            self.push(Channel::Quote, Kind::Invalid, Stamp::here(now), Data::Invalid(reason.into()), out);
        }
    }

    /// Its connection is gone or mute: nothing that was shown can be trusted, and the book starts anew.
    pub fn lost(&mut self, reason: &str, now: Time, out: &mut Out) {
        if self.is_shown() {
            self.push(Channel::Book, Kind::Invalid, Stamp::here(now), Data::Invalid(STALE.into()), out);
        }
        self.invalidate_quote(STALE, now, out);
        self.book.clear();
        if self.book_state != BookState::None {
            self.book_state = BookState::Awaiting;
        }
        self.ticker_seen = false;
        self.resync.done();
        self.stale = Some(reason.into());
        self.tell_status(Stamp::here(now), out);
    }

    /// The venue halted its trading for `reason`, or (with `None`) lets it go on.
    pub fn halt(&mut self, reason: Option<&str>, now: Time, out: &mut Out) {
        if self.halted.as_deref() != reason {
            self.halted = reason.map(CompactString::from);
            self.tell_status(Stamp::here(now), out);
        }
    }

    /// No more will come of it.
    pub fn end(&mut self, reason: &str, now: Time, out: &mut Out) {
        self.resync.done();
        self.ended = Some(reason.into());
        self.tell_status(Stamp::here(now), out);
    }

    /// Tells everything again, for a receiver who knows nothing: the instrument, its status, its quote, its book.
    pub fn retell(&self, now: Time, out: &mut Out) {
        let here = Stamp::here(now);
        out.instruments.push((self.number, self.instrument.clone()));
        let (state, reason) = self.status();
        let invalid = || Data::Invalid(reason.clone().unwrap_or_else(|| STALE.into()));
        let status =
            Status { state, integrity: self.ways.integrity, reason: reason.clone(), last_verified: self.last_verified };
        self.push(Channel::Status, Kind::Update, here, Data::Status(status), out);
        if self.quote_valid {
            self.push(Channel::Quote, Kind::Snapshot, here, Data::Quote(self.quote.clone()), out);
        } else if self.quote_invalidated {
            self.push(Channel::Quote, Kind::Invalid, here, invalid(), out);
        }
        match self.book_state {
            BookState::Live | BookState::Window => {
                self.push(Channel::Book, Kind::Snapshot, here, Data::Book(whole(&self.book)), out);
            }
            BookState::None => {}
            BookState::Awaiting | BookState::Faulty(_) => {
                self.push(Channel::Book, Kind::Invalid, here, invalid(), out);
            }
        }
    }

    fn apply(
        &mut self,
        changes: &Levels,
        prove: impl FnOnce(&Book) -> Result<(), Wrong>,
        out: &mut Out,
    ) -> Result<Levels, Wrong> {
        let (book, depth) = (&mut self.book, self.depth);
        let bids = self.changer.apply(book, BookSide::Bid, &changes.bids, depth, out.spare())?;
        let asks = self.changer.apply(book, BookSide::Ask, &changes.asks, depth, out.spare())?;
        prove(&self.book)?;
        uncrossed(&self.book)?;
        Ok(Levels { bids, asks, ..Levels::default() })
    }

    /// The quote that follows from the book, where quotes come from it.
    fn follow_book(&mut self, stamp: Stamp, out: &mut Out) {
        let top = (self.book.best_bid(), self.book.best_ask());
        let news = !is_same_top(top, self.top) || !self.quote_valid;
        self.top = top;
        if news && (self.ways.quotes == QuoteSource::TickerAndBook || !self.ticker_seen) {
            self.quote_from_book = true;
            self.tell_quote(top.0, top.1, stamp, out);
        }
    }

    fn tell_quote(&mut self, bid: Option<Level>, ask: Option<Level>, stamp: Stamp, out: &mut Out) {
        if self.quote_valid && is_same_top((self.quote.bid, self.quote.ask), (bid, ask)) {
            return;
        }
        self.quote = Quote { bid, ask, bid_venue: None, ask_venue: None };
        self.quote_valid = true;
        // A quote is always the whole state; it says so where it ends an `invalid`.
        let kind = if std::mem::take(&mut self.quote_invalidated) { Kind::Snapshot } else { Kind::Update };
        self.push(Channel::Quote, kind, stamp, Data::Quote(self.quote.clone()), out);
    }

    /// Tells the status if its state or reason changed.
    fn tell_status(&mut self, stamp: Stamp, out: &mut Out) {
        let (state, reason) = self.status();
        if self.status_sent.as_ref().is_some_and(|sent| sent.0 == state && sent.1 == reason) {
            return;
        }
        self.status_sent = Some((state, reason.clone()));
        let status = Status { state, integrity: self.ways.integrity, reason, last_verified: self.last_verified };
        self.push(Channel::Status, Kind::Update, Stamp::here(stamp.recv), Data::Status(status), out);
    }

    fn status(&self) -> (State, Option<CompactString>) {
        if let Some(reason) = &self.ended {
            return (State::Closed, Some(reason.clone()));
        }
        if let Some(reason) = &self.stale {
            return (State::Stale, Some(reason.clone()));
        }
        if let Some(reason) = &self.halted {
            return (State::Halted, Some(reason.clone()));
        }
        match self.book_state {
            BookState::None | BookState::Live | BookState::Window => (State::Live, None),
            BookState::Awaiting => (State::Resyncing, Some(AWAITING_SNAPSHOT.into())),
            BookState::Faulty(reason) => (State::Resyncing, Some(reason.to_compact_string())),
        }
    }

    fn is_shown(&self) -> bool {
        matches!(self.book_state, BookState::Live | BookState::Window)
    }

    fn report(&self, fault: Fault, detail: String, out: &mut Out) {
        out.reports.push(Report { fault, native: Some(self.instrument.native.to_string()), detail });
    }

    fn push(&self, channel: Channel, kind: Kind, stamp: Stamp, data: Data, out: &mut Out) {
        out.updates.push(Update { instrument: self.number, channel, kind, ts: stamp.ts, recv: stamp.recv, data });
    }
}

/// Are the best levels the same, however they are written?
fn is_same_top(a: (Option<Level>, Option<Level>), b: (Option<Level>, Option<Level>)) -> bool {
    let is_same_level = |a: Option<Level>, b: Option<Level>| match (a, b) {
        (Some(a), Some(b)) => is_same(&a.price, &b.price) && is_same(&a.size, &b.size),
        (a, b) => a.is_none() && b.is_none(),
    };
    is_same_level(a.0, b.0) && is_same_level(a.1, b.1)
}

/// All levels, without the sums: who puts them on the tape computes both.
fn whole(book: &Book) -> Levels {
    Levels { bids: book.bids().copied().collect(), asks: book.asks().copied().collect(), ..Levels::default() }
}

/// Best bid below best ask: anything else is a fault in continuous trading.
fn uncrossed(book: &Book) -> Result<(), Wrong> {
    match (book.best_bid(), book.best_ask()) {
        (Some(bid), Some(ask)) if order(bid.price, ask.price).is_ge() => Err(Wrong {
            fault: Fault::Crossed,
            detail: format!("best bid {} at or above best ask {}", bid.price, ask.price),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
