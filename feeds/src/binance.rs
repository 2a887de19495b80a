//! Binance: spot (developers.binance.com/docs/binance-spot-api-docs/web-socket-streams) and the two futures markets,
//! USD-M and COIN-M (…/docs/derivatives/usds-margined-futures/websocket-market-streams and …/coin-margined-futures/…),
//! which differ from it in the sequence of their differences ([`Market`]).
//!
//! The subscription is in the URL. A book is a REST snapshot and the differences that continue it (see
//! [`DIFFS_BUFFERED_MAX`](crate::depth::DIFFS_BUFFERED_MAX)); a gap concerns one symbol alone, whose snapshot is fetched again. Levels outside the
//! snapshot are unknown to it until they change. `bookTicker` has the same update ids: where it and the book are of one
//! update and differ, the book is wrong. Futures' sizes are an exception: now and then they differ while nothing is wrong
//! (5 of 322 times on COIN-M in April 2021, prices never), so that a snapshot is asked which of the two is right.

mod market;
mod partial;
mod rest;
mod scan;
mod wire;

use std::time::Duration;

use compact_str::{CompactString, ToCompactString};
use hashbrown::HashMap;
use ticker_market::{Book, Integrity, Level, Levels, Side, Time, Trade};

pub use self::market::{FUTURES_SNAPSHOT_LEVELS, Market, SNAPSHOT_LEVELS};

use self::wire::{BookTicker, DepthUpdate, Envelope, Frame, Head, Parsed, parse};
use crate::depth::{DepthSync, Diff, Step};
use crate::keeper::{Keeper, QuoteSource, Stamp, Ways, Wrong};
use crate::resync::{Budget, Refresh, Resync};
use crate::roster::{INSTRUMENTS_MAX, Roster, Steps};
use crate::symbols::query;
use crate::wire::{Quoted, is_list_of_objects, is_object, side_of_quote, undecodable};
use crate::{Adapter, Command, Conn, Fault, Out, Report, Rules, audit};

/// Snapshots fetched in any minute, at most: one with 5000 levels weighs 250 of the 6000 that an address has a minute on
/// spot, one with 1000 levels 20 of 2400 on futures.
pub const SNAPSHOTS_PER_MINUTE_MAX: usize = 20;

/// Books of futures whose best sizes differ from `bookTicker` are held against a snapshot no more often than this.
pub const DOUBTS_APART_MS: i64 = 60_000;

/// A quiet symbol's snapshot is fetched so many milliseconds after the connection opened; others at their first
/// difference.
pub const SNAPSHOT_DELAY_MS: i64 = 1_000;

/// Symbols on one connection: three streams each, of the 1024 that it may have.
pub const SYMBOLS_MAX: usize = 341;

/// Symbols on one connection to COIN-M, which may have 200 streams.
pub const COINM_SYMBOLS_MAX: usize = 66;

/// Symbols of `exchangeInfo` that are remembered.
pub const SYMBOLS_KNOWN_MAX: usize = 20_000;

/// The decoder of one of Binance's markets.
#[derive(Debug)]
pub struct Binance {
    market: Market,
    roster: Roster,
    /// What only Binance keeps of an instrument, by its number.
    own: Vec<Own>,
    /// What `exchangeInfo` says of a name, or (without steps) what we were asked for under it.
    known: HashMap<CompactString, (CompactString, Steps)>,
    snapshots: Budget,
    list: Resync,
    refresh: Refresh,
    /// The connection that was opened last.
    newest: Option<Conn>,
}

#[derive(Clone, Debug)]
struct Own {
    sync: DepthSync,
    trades: TradeStream,
    /// `u` of the last `bookTicker`: while one connection replaces another, both deliver.
    ticker_update: u64,
    /// What it said.
    top: (Option<Level>, Option<Level>),
    /// When its sizes were last a reason to look at a snapshot.
    doubted: Option<Time>,
}

impl Own {
    /// Do the book and the last `bookTicker` say different things of the same update?
    fn is_doubtful(&self, book: &Book) -> bool {
        self.sync.last() == Some(self.ticker_update) && self.top != (book.best_bid(), book.best_ask())
    }

    /// Is that enough to call the book wrong?
    fn is_contradicted(&self, market: Market, book: &Book) -> bool {
        let price = |level: Option<Level>| level.map(|level| level.price);
        let prices = |(bid, ask)| (price(bid), price(ask));
        let differ = || prices(self.top) != prices((book.best_bid(), book.best_ask()));
        self.is_doubtful(book) && (market == Market::Spot || differ())
    }
}

/// Which stream an instrument's trades come from; both together would tell each trade twice.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum TradeStream {
    #[default]
    Unknown,
    Trade,
    Aggregate,
}

impl Binance {
    /// Of spot, for these symbols in normal form; none for whatever comes.
    pub fn new(symbols: &[String]) -> Self {
        Self::of(Market::Spot, symbols)
    }

    /// Of that market, for these symbols in normal form; none for whatever comes.
    pub fn of(market: Market, symbols: &[String]) -> Self {
        let ways = Ways { integrity: Integrity::Sequenced, quotes: QuoteSource::Ticker };
        let roster = Roster::new(market.venue(), ways, symbols);
        let asked_for = |symbol: &CompactString| (market.native(symbol), (symbol.clone(), Steps::default()));
        Self {
            market,
            known: roster.wanted().iter().map(asked_for).collect(),
            roster,
            own: Vec::new(),
            snapshots: Budget::new(SNAPSHOTS_PER_MINUTE_MAX, 60_000),
            list: Resync::default(),
            refresh: Refresh::default(),
            newest: None,
        }
    }

    /// The book of an instrument, by the venue's own name, while it is live.
    pub fn book(&self, native: &str) -> Option<&Book> {
        self.roster.iter().find(|k| k.instrument().native == native && k.is_live()).map(|k| k.book())
    }

    fn keep(&mut self, native: &str, out: &mut Out) -> Option<(&mut Keeper, &mut Own)> {
        let market = self.market;
        let describe = || self.known.get(native).cloned().unwrap_or_else(|| (market.by_name(native), Steps::default()));
        let keeper = self.roster.keep(native, describe, out)?;
        let number = keeper.number() as usize;
        if self.own.len() <= number {
            let (sync, trades) = (DepthSync::new(market.rule()), TradeStream::Unknown);
            self.own.resize(number + 1, Own { sync, trades, ticker_update: 0, top: (None, None), doubted: None });
        }
        Some((keeper, &mut self.own[number]))
    }

    fn decode(&mut self, conn: Conn, bytes: &[u8], recv: Time, out: &mut Out) -> Result<(), serde_json::Error> {
        let frame = match scan::frame(bytes, out) {
            Some(frame) => frame,
            None => match parse(bytes)? {
                Parsed::Frame(frame) => frame,
                Parsed::Other(envelope, payload) => return self.other(conn, &envelope, payload, recv, out),
            },
        };
        match frame {
            Frame::Depth(update) => self.depth(conn, update, recv, out),
            Frame::Ticker(ticker) => self.book_ticker(conn, &ticker, recv, out),
            Frame::Trade(trade) if !trade.is_of_the_market() => {}
            Frame::Trade(trade) => {
                let (stream, told) = (TradeStream::Trade, told(trade.t, trade.p, trade.q, trade.m));
                self.trade(conn, stream, &trade.s, trade.t, told, trade.trade_ms, recv, out);
            }
            Frame::Aggregate(trade) => {
                let (stream, told) = (TradeStream::Aggregate, told(trade.a, trade.p, trade.q, trade.m));
                self.trade(conn, stream, &trade.s, trade.a, told, trade.trade_ms, recv, out);
            }
        }
        Ok(())
    }

    /// Frames that are neither of the market-data streams that we read.
    fn other(
        &mut self,
        conn: Conn,
        envelope: &Envelope<'_>,
        payload: &str,
        recv: Time,
        out: &mut Out,
    ) -> Result<(), serde_json::Error> {
        if let Some(error) = &envelope.error {
            let detail = format!("{}: {}", error.code, error.msg);
            out.reports.push(Report { fault: Fault::Refused, native: None, detail });
            return Ok(());
        }
        if let Some((name, depth)) = partial::stream(&envelope.stream) {
            return self.window(conn, name, depth, payload, recv, out);
        }
        // Streams of all symbols (`!ticker@arr`, `!markPrice@arr`) carry lists, and none of what we read.
        if payload.starts_with('[') {
            out.pass_over(&envelope.stream);
            return Ok(());
        }
        let head: Head<'_> = serde_json::from_str(payload)?;
        match &*head.e {
            "serverShutdown" => out.commands.push(Command::Reconnect(conn, "server_shutdown")),
            // A raw stream's bookTicker names no event.
            "" if envelope.stream.is_empty() => {
                if let Ok(ticker) = serde_json::from_str(payload) {
                    self.book_ticker(conn, &ticker, recv, out);
                }
            }
            "" => {}
            event => out.pass_over(event),
        }
        Ok(())
    }

    fn depth(&mut self, conn: Conn, update: DepthUpdate<'_>, recv: Time, out: &mut Out) {
        let (newest, market) = (self.newest == Some(conn), self.market);
        let Some((keeper, own)) = self.keep(&update.s, out) else { return };
        keeper.with_book();
        keeper.heard(conn, recv, out);
        let ts = Some(Time::from_millis(update.event_ms));
        let levels = Levels { bids: update.b.0, asks: update.a.0, ..Levels::default() };
        let before = update.before.unwrap_or(update.first.saturating_sub(1));
        let diff = Diff { before, last: update.last, conn, levels, ts };
        let mut doubtful = false;
        // While one connection replaces another both deliver, and what the other one told already is old. The newer one
        // has the book as soon as its differences reach what the book has.
        match own.sync.diff(diff) {
            Step::Old if newest => keeper.adopt(conn),
            Step::Old => {}
            Step::Apply(diff) => {
                if newest {
                    keeper.adopt(conn);
                }
                let prove = |book: &Book| if own.is_contradicted(market, book) { Err(contradicted()) } else { Ok(()) };
                if !keeper.update(&diff.levels, prove, Stamp { ts, recv }, out) {
                    own.sync.reset();
                }
                audit::settle(&mut own.sync, keeper, recv, out);
                doubtful = keeper.is_live() && own.is_doubtful(keeper.book());
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
        // What others wait for is the timer's.
        let due = keeper.resync.is_due(recv);
        if doubtful {
            self.doubt(&update.s, recv, out);
        }
        if due {
            self.fetch_due(recv, out);
        }
    }

    fn book_ticker(&mut self, conn: Conn, ticker: &BookTicker<'_>, recv: Time, out: &mut Out) {
        let market = self.market;
        let Some((keeper, own)) = self.keep(&ticker.s, out) else { return };
        keeper.heard(conn, recv, out);
        if ticker.u < own.ticker_update {
            return;
        }
        own.ticker_update = ticker.u;
        let bid = side_of_quote(ticker.bid.0, ticker.bid_size.0);
        let ask = side_of_quote(ticker.ask.0, ticker.ask_size.0);
        own.top = (bid, ask);
        let stamp = Stamp { ts: ticker.made_ms.map(Time::from_millis), recv };
        keeper.ticker(bid, ask, stamp, out);
        if !keeper.is_live() || !own.is_doubtful(keeper.book()) {
            return;
        }
        if own.is_contradicted(market, keeper.book()) {
            own.sync.reset();
            keeper.fault(contradicted(), stamp, out);
            self.fetch_due(recv, out);
        } else {
            self.doubt(&ticker.s, recv, out);
        }
    }

    /// Holds the live book against a snapshot, out of turn.
    fn doubt(&mut self, native: &str, now: Time, out: &mut Out) {
        let Some(keeper) = self.roster.by_native(native) else { return };
        let own = &mut self.own[keeper.number() as usize];
        let lately = own.doubted.is_some_and(|at| now < at.plus_millis(DOUBTS_APART_MS));
        if !lately && !own.sync.is_audited() && self.snapshots.take(now) {
            own.doubted = Some(now);
            own.sync.begin_audit();
            out.refreshes += 1;
            out.commands.push(Command::Fetch(self.market.snapshot_url(native)));
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of two streams that differ in their names only")]
    fn trade(
        &mut self,
        conn: Conn,
        stream: TradeStream,
        native: &str,
        id: u64,
        trade: Trade,
        trade_ms: i64,
        recv: Time,
        out: &mut Out,
    ) {
        let Some((keeper, own)) = self.keep(native, out) else { return };
        keeper.heard(conn, recv, out);
        match (own.trades, stream) {
            (TradeStream::Trade, TradeStream::Aggregate) => return,
            (TradeStream::Aggregate, TradeStream::Trade) => keeper.forget_trades(),
            _ => {}
        }
        own.trades = stream;
        keeper.trade(id, trade, Stamp { ts: Some(Time::from_millis(trade_ms)), recv }, out);
    }

    /// Learns from a connection's URL which streams it carries: `…/stream?streams=btcusdt@trade/btcusdt@depth@100ms`.
    fn streams(&mut self, conn: Conn, url: &str, now: Time, out: &mut Out) {
        let Some(list) = query(url, "streams") else { return };
        let mut symbols: Vec<(CompactString, [bool; 3])> = Vec::new();
        for stream in list.split('/').take(INSTRUMENTS_MAX) {
            let Some((name, stream)) = stream.split_once('@') else { continue };
            let native: CompactString = name.chars().map(|c| c.to_ascii_uppercase()).collect();
            let at = symbols.iter().position(|(n, _)| *n == native).unwrap_or_else(|| {
                symbols.push((native, [false; 3]));
                symbols.len() - 1
            });
            let [depth, trade, aggregate] = &mut symbols[at].1;
            match stream {
                "trade" => *trade = true,
                "aggTrade" => *aggregate = true,
                _ if stream.starts_with("depth") => *depth = true,
                _ => {}
            }
        }
        for (native, [depth, trade, aggregate]) in symbols {
            let Some((keeper, own)) = self.keep(&native, out) else { continue };
            own.trades = match (trade, aggregate) {
                (true, _) => TradeStream::Trade,
                (_, true) => TradeStream::Aggregate,
                _ => own.trades,
            };
            if depth {
                keeper.with_book();
                keeper.opened(conn, now, out);
                if !keeper.is_live() {
                    keeper.resync.expect(now.plus_millis(SNAPSHOT_DELAY_MS));
                }
            } else {
                keeper.without_book();
                keeper.opened(conn, now, out);
            }
        }
    }
}

impl Adapter for Binance {
    fn rules(&self) -> Rules {
        let market = self.market;
        let symbols = || self.roster.wanted().iter().take(market.symbols_max()).map(|s| market.native(s));
        let streams: Vec<String> = symbols()
            .map(|s| s.to_ascii_lowercase())
            .flat_map(|s| ["bookTicker", "trade", "depth@100ms"].map(|stream| format!("{s}@{stream}")))
            .collect();
        // The whole list is tens of megabytes; a few symbols are asked for by name.
        let instruments_url = match self.roster.wanted().len() {
            0 => None,
            // The futures markets' lists are smaller, and cannot be asked for in part.
            _ if market != Market::Spot => Some(format!("{}/exchangeInfo", market.rest())),
            1..=100 => {
                let list: Vec<String> = symbols().map(|s| format!("%22{s}%22")).collect();
                Some(format!("https://api.binance.com/api/v3/exchangeInfo?symbols=%5B{}%5D", list.join(",")))
            }
            _ => Some("https://api.binance.com/api/v3/exchangeInfo?permissions=SPOT".to_owned()),
        };
        Rules {
            venue: market.venue(),
            websocket_url: format!("{}?streams={}", market.websocket(), streams.join("/")),
            instruments_url,
            // No heartbeat in band, and the venue's pings come every 20 seconds on spot, every three minutes on
            // futures: a quiet pair is not a mute connection.
            silence_max: Duration::from_secs(if market == Market::Spot { 60 } else { 200 }),
            ping_text: None,
            ping_every: Duration::from_secs(60),
            // Cut at 24 hours.
            age_max: Some(Duration::from_secs(23 * 3_600 + 1_800)),
            sends_per_second_max: 5,
            ticket_url: None,
            symbols_max: Some(market.symbols_max()),
        }
    }

    fn share(&mut self, adapters: usize) {
        self.snapshots = Budget::new((SNAPSHOTS_PER_MINUTE_MAX / adapters.max(1)).max(1), 60_000);
    }

    fn opened(&mut self, conn: Conn, url: &str, now: Time, out: &mut Out) {
        self.roster.report_unusable(out);
        let most = self.market.symbols_max();
        for symbol in self.roster.wanted().iter().skip(most) {
            let detail = format!("more than {most} symbols on one connection");
            out.reports.push(Report { fault: Fault::Refused, native: Some(symbol.to_string()), detail });
        }
        self.newest = Some(conn);
        self.streams(conn, url, now, out);
    }

    fn frame(&mut self, conn: Conn, bytes: &[u8], recv: Time, out: &mut Out) {
        // A list is a stream of all symbols by itself.
        let is_read = is_list_of_objects(bytes) || is_object(bytes) && self.decode(conn, bytes, recv, out).is_ok();
        if !is_read {
            undecodable(bytes, out);
        }
    }

    fn response(&mut self, url: &str, body: &[u8], recv: Time, out: &mut Out) {
        if url.contains("exchangeInfo") {
            self.exchange_info(body, recv, out);
        } else if !url.starts_with("http") || url.contains("/depth") {
            // Recordings may hold the answers to what others asked.
            self.snapshot(url, body, recv, out);
        }
    }

    fn failed(&mut self, url: &str, now: Time, _out: &mut Out) {
        if url.contains("exchangeInfo") {
            self.list.request(now);
            self.list.asked(now);
        } else if let Some(keeper) = query(url, "symbol").and_then(|native| self.roster.by_native(native))
            && !keeper.is_live()
        {
            keeper.resync.request(now);
        }
    }

    fn closed(&mut self, conn: Conn, reason: &str, now: Time, out: &mut Out) {
        for keeper in self.roster.iter_mut().filter(|k| k.owner() == Some(conn)) {
            if let Some(own) = self.own.get_mut(keeper.number() as usize) {
                own.sync.reset();
            }
        }
        self.roster.lost(conn, reason, now, out);
    }

    fn next_timer(&self) -> Option<Time> {
        let snapshot = self.roster.next_resync().map(|at| self.snapshots.earliest(at));
        let held = self.own.iter().filter_map(|own| own.sync.held_until());
        snapshot.into_iter().chain(self.list.at()).chain(self.refresh.at()).chain(held).min()
    }

    fn timer(&mut self, now: Time, out: &mut Out) {
        let books = self.roster.iter_mut().zip(self.own.iter_mut().map(|own| &mut own.sync));
        audit::settle_due(books, now, out);
        self.fetch_due(now, out);
        self.refresh_due(now, out);
        if self.list.is_due(now) {
            self.list.asked(now);
            out.commands.extend(self.rules().instruments_url.map(Command::Fetch));
        }
    }

    fn retell(&self, now: Time, out: &mut Out) {
        self.roster.retell(now, out);
    }

    fn end(&mut self, reason: &str, now: Time, out: &mut Out) {
        self.list.done();
        self.refresh.end();
        self.roster.end(reason, now, out);
    }
}

fn contradicted() -> Wrong {
    Wrong { fault: Fault::Mismatch, detail: "bookTicker has other best prices at the same update".to_owned() }
}

fn told(id: u64, price: Quoted, size: Quoted, buyer_is_maker: bool) -> Trade {
    Trade {
        price: price.0,
        size: size.0,
        side: Some(if buyer_is_maker { Side::Sell } else { Side::Buy }),
        trade_id: id.to_compact_string(),
        reference: None,
    }
}

#[cfg(test)]
#[path = "binance/futures_tests.rs"]
mod futures_tests;
#[cfg(test)]
#[path = "binance/tests.rs"]
mod tests;
