//! BitMEX (bitmex.com/app/wsAPI; `GET /api/v1/instrument/active`).
//!
//! A table begins with a `partial`, which is the whole of it, and is followed by `insert`, `update` and `delete`. Rows of
//! a book have ids, and an update may carry no price: the price is that of the id. There is no sequence. An id that is
//! not known is the only sign that something is missing, and that one book is subscribed anew; and each now and then all
//! the same ([`REFRESH_EVERY_MS`](crate::resync::REFRESH_EVERY_MS)).
//!
//! Before a table's partial, what comes is of the past and passed over, as the documents demand.

mod scan;

use std::borrow::Cow;
use std::time::Duration;

use compact_str::{CompactString, ToCompactString, format_compact};
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use serde::Deserialize;
use serde_json::value::RawValue;
use ticker_market::book::{BookSide, LEVELS_PER_SIDE_MAX};
use ticker_market::{Book, Decimal, Integrity, Level, Levels, Side, Time, Trade};

use self::scan::Changes;
use crate::keeper::{Keeper, QuoteSource, Stamp, Ways, Wrong};
use crate::resync::{RESYNC_ANSWER_MAX_MS, Refresh, Resync};
use crate::roster::{Listing, Roster, Steps};
use crate::wire::{Number, for_each, is_object, side_of_quote, undecodable};
use crate::{Adapter, Command, Conn, Fault, Out, Report, Rules};

/// Tables in one subscription.
pub const TABLES_PER_SUBSCRIPTION_MAX: usize = 60;

/// Where the WebSocket is.
pub const WEBSOCKET_URL: &str = "wss://ws.bitmex.com/realtime";

/// Where instruments are listed.
pub const INSTRUMENTS_URL: &str = "https://www.bitmex.com/api/v1/instrument/active";

/// BitMEX's decoder.
#[derive(Debug)]
pub struct Bitmex {
    roster: Roster,
    /// What only BitMEX keeps of an instrument, by its number.
    own: Vec<Own>,
    listing: Listing,
    list: Resync,
    refresh: Refresh,
    /// A connection that was opened before the list came, without which no name is known.
    waiting: Option<Conn>,
    /// Of a frame, kept for their capacity.
    changes: Vec<Change>,
}

#[derive(Default, Debug)]
struct Own {
    /// Rows of the book by id.
    rows: HashMap<u64, (BookSide, Decimal)>,
    /// The table of trades has begun once.
    trades_begun: bool,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    table: Cow<'a, str>,
    #[serde(borrow, default)]
    action: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    filter: Option<Filter<'a>>,
    #[serde(borrow, default)]
    error: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Filter<'a> {
    #[serde(borrow, default)]
    symbol: Cow<'a, str>,
}

/// `orderBookL2`
#[derive(Deserialize, Debug)]
struct Row<'a> {
    #[serde(borrow)]
    symbol: Cow<'a, str>,
    id: u64,
    #[serde(borrow)]
    side: Cow<'a, str>,
    #[serde(default)]
    size: Option<Number>,
    #[serde(default)]
    price: Option<Number>,
    #[serde(borrow, default)]
    timestamp: Cow<'a, str>,
}

/// What a row says, but of whom and when.
#[derive(Clone, Copy, Debug)]
struct Change {
    id: u64,
    side: Option<BookSide>,
    size: Option<Decimal>,
    price: Option<Decimal>,
}

impl Change {
    #[inline]
    fn of(row: &Row<'_>) -> Self {
        Self { id: row.id, side: side(row), size: row.size.map(|n| n.0), price: row.price.map(|n| n.0) }
    }
}

/// `quote`
#[derive(Deserialize)]
struct WireQuote<'a> {
    #[serde(borrow)]
    timestamp: Cow<'a, str>,
    #[serde(borrow)]
    symbol: Cow<'a, str>,
    #[serde(default, rename = "bidPrice")]
    bid: Option<Number>,
    #[serde(default, rename = "bidSize")]
    bid_size: Option<Number>,
    #[serde(default, rename = "askPrice")]
    ask: Option<Number>,
    #[serde(default, rename = "askSize")]
    ask_size: Option<Number>,
}

/// `trade`
#[derive(Deserialize, Debug)]
struct WireTrade<'a> {
    #[serde(borrow)]
    timestamp: Cow<'a, str>,
    #[serde(borrow)]
    symbol: Cow<'a, str>,
    /// The taker's; none of an index, whose prices are listed as trades of nothing.
    #[serde(borrow, default)]
    side: Option<Cow<'a, str>>,
    #[serde(default)]
    size: Option<Number>,
    price: Number,
    #[serde(borrow, rename = "trdMatchID")]
    id: Cow<'a, str>,
}

/// REST `instrument/active`
#[derive(Deserialize)]
struct Listed<'a> {
    #[serde(borrow)]
    symbol: Cow<'a, str>,
    #[serde(borrow, default)]
    state: Cow<'a, str>,
    #[serde(borrow, default)]
    typ: Cow<'a, str>,
    #[serde(borrow, default)]
    underlying: Cow<'a, str>,
    #[serde(borrow, default, rename = "quoteCurrency")]
    quote: Cow<'a, str>,
    #[serde(default, rename = "tickSize")]
    tick: Option<Number>,
    #[serde(default, rename = "lotSize")]
    lot: Option<Number>,
}

impl Bitmex {
    /// For these symbols in normal form; none for whatever comes.
    pub fn new(symbols: &[String]) -> Self {
        // Nothing numbers the frames: of what is missing only an id tells.
        let ways = Ways { integrity: Integrity::Ordered, quotes: QuoteSource::Ticker };
        Self {
            roster: Roster::new("bitmex", ways, symbols),
            own: Vec::new(),
            listing: Listing::default(),
            list: Resync::default(),
            refresh: Refresh::default(),
            waiting: None,
            changes: Vec::new(),
        }
    }

    /// The book of an instrument, by the venue's own name, while it is live.
    pub fn book(&self, native: &str) -> Option<&Book> {
        self.roster.iter().find(|k| k.instrument().native == native && k.is_live()).map(Keeper::book)
    }

    fn keep(&mut self, native: &str, out: &mut Out) -> Option<(&mut Keeper, &mut Own)> {
        let describe = || self.listing.describe(native, || native.into());
        let keeper = self.roster.keep(native, describe, out)?;
        let number = keeper.number() as usize;
        if self.own.len() <= number {
            self.own.resize_with(number + 1, Own::default);
        }
        Some((keeper, &mut self.own[number]))
    }

    fn decode(&mut self, conn: Conn, bytes: &[u8], recv: Time, out: &mut Out) -> Result<(), serde_json::Error> {
        let mut rows = std::mem::take(&mut self.changes);
        let is_book = self.book_frame(conn, bytes, &mut rows, recv, out);
        self.changes = rows;
        if is_book {
            self.resync_due(recv, out);
            return Ok(());
        }
        if let Some(trades) = scan::trades(bytes) {
            trades.for_each(|trade| self.trade(conn, false, &trade, recv, out));
            return Ok(());
        }
        let envelope: Envelope<'_> = serde_json::from_slice(bytes)?;
        if let Some(error) = envelope.error {
            out.reports.push(Report { fault: Fault::Refused, native: None, detail: error.into_owned() });
            return Ok(());
        }
        let data = envelope.data.map_or("[]", RawValue::get);
        match &*envelope.table {
            "orderBookL2" | "orderBookL2_25" => {
                let rows: Vec<Row<'_>> = serde_json::from_str(data)?;
                if envelope.action == "partial" {
                    let of = envelope.filter.map(|f| f.symbol).or_else(|| rows.first().map(|r| r.symbol.clone()));
                    if let Some(native) = of {
                        let own = || rows.iter().filter(|row| row.symbol == native);
                        let changes: Vec<Change> = own().map(Change::of).collect();
                        self.partial(conn, &native, &changes, stamp(own(), recv), out);
                    }
                } else {
                    // Rows of one frame are of one symbol, or of several one after the other.
                    for rows in rows.chunk_by(|a, b| a.symbol == b.symbol) {
                        let (native, stamp) = (&rows[0].symbol, stamp(rows.iter(), recv));
                        let changes: Vec<Change> = rows.iter().map(Change::of).collect();
                        self.changes(conn, native, &envelope.action, &changes, stamp, out);
                    }
                }
                self.resync_due(recv, out);
            }
            "quote" => for_each(data, |quote: WireQuote<'_>| self.quote(conn, &quote, recv, out))?,
            "trade" => {
                let mut is_empty = true;
                for_each(data, |trade: WireTrade<'_>| {
                    is_empty = false;
                    self.trade(conn, envelope.action == "partial", &trade, recv, out);
                })?;
                if let Some(filter) = envelope.filter
                    && is_empty
                    && let Some((_, own)) = self.keep(&filter.symbol, out)
                {
                    own.trades_begun = true;
                }
            }
            // What was asked for is answered, and the connection begins, without one.
            "" => {}
            table => out.pass_over(table),
        }
        Ok(())
    }

    /// Takes a frame of the usual form. Returns whether it is one.
    fn book_frame(&mut self, conn: Conn, bytes: &[u8], rows: &mut Vec<Change>, recv: Time, out: &mut Out) -> bool {
        if let Some(Changes { action, symbol, ts }) = scan::changes(bytes, rows) {
            self.changes(conn, symbol, action, rows, Stamp { ts, recv }, out);
        } else if let Some(Changes { symbol, ts, .. }) = scan::partial(bytes, rows) {
            self.partial(conn, symbol, rows, Stamp { ts, recv }, out);
        } else {
            return false;
        }
        true
    }

    /// The whole book.
    fn partial(&mut self, conn: Conn, native: &str, rows: &[Change], stamp: Stamp, out: &mut Out) {
        let Some((keeper, own)) = self.keep(native, out) else { return };
        keeper.with_book();
        keeper.heard(conn, stamp.recv, out);
        own.rows.clear();
        let mut levels = Levels::default();
        for row in rows {
            let (Some(side), Some(price), Some(size)) = (row.side, row.price, row.size) else {
                let detail = format!("row {} of a partial without side, price or size", row.id);
                return keeper.fault(Wrong { fault: Fault::Undecodable, detail }, Stamp::here(stamp.recv), out);
            };
            own.rows.insert(row.id, (side, price));
            list(&mut levels, side).push(Level { price, size });
        }
        if !keeper.snapshot(conn, levels, |_| Ok(()), stamp, out) {
            own.rows.clear();
        }
        self.refresh.begin(stamp.recv);
    }

    fn changes(&mut self, conn: Conn, native: &str, action: &str, rows: &[Change], stamp: Stamp, out: &mut Out) {
        let Some((keeper, own)) = self.keep(native, out) else { return };
        keeper.with_book();
        keeper.heard(conn, stamp.recv, out);
        if !keeper.is_live() || keeper.owner() != Some(conn) {
            return;
        }
        let mut levels = Levels { bids: out.spare(), asks: out.spare(), ..Levels::default() };
        let is_good = match own.changes(action, rows, &mut levels) {
            Ok(()) => keeper.update(&levels, |_| Ok(()), stamp, out),
            Err(wrong) => {
                keeper.fault(wrong, stamp, out);
                false
            }
        };
        if !is_good {
            own.rows.clear();
        }
        out.recycle(levels);
    }

    fn quote(&mut self, conn: Conn, quote: &WireQuote<'_>, recv: Time, out: &mut Out) {
        let Some((keeper, _)) = self.keep(&quote.symbol, out) else { return };
        keeper.heard(conn, recv, out);
        let side = |price: &Option<Number>, size: &Option<Number>| {
            price.as_ref().zip(size.as_ref()).and_then(|(p, s)| side_of_quote(p.0, s.0))
        };
        let (bid, ask) = (side(&quote.bid, &quote.bid_size), side(&quote.ask, &quote.ask_size));
        keeper.ticker(bid, ask, Stamp { ts: Time::parse_rfc3339(&quote.timestamp), recv }, out);
    }

    fn trade(&mut self, conn: Conn, partial: bool, trade: &WireTrade<'_>, recv: Time, out: &mut Out) {
        let Some(size) = trade.size.map(|size| size.0).filter(|size| !size.is_zero()) else { return };
        let Some((keeper, own)) = self.keep(&trade.symbol, out) else { return };
        keeper.heard(conn, recv, out);
        // The first partial is of the past; a later one fills the hole that a broken connection left.
        let past = partial && !own.trades_begun;
        own.trades_begun = true;
        if past {
            return keeper.past_trade(&trade.id);
        }
        let told = Trade {
            price: trade.price.0,
            size,
            side: match trade.side.as_deref().unwrap_or_default() {
                "Buy" => Some(Side::Buy),
                "Sell" => Some(Side::Sell),
                _ => None,
            },
            trade_id: out.id(&trade.id),
            reference: None,
        };
        keeper.named_trade(told, Stamp { ts: Time::parse_rfc3339(&trade.timestamp), recv }, out);
    }

    /// Subscribes anew the books that are due.
    fn resync_due(&mut self, now: Time, out: &mut Out) {
        self.roster.resync_due(now, out, subscribe_anew);
    }

    fn listed(&mut self, body: &[u8], recv: Time, out: &mut Out) -> Result<(), serde_json::Error> {
        let list: Vec<Listed<'_>> = serde_json::from_slice(body)?;
        self.list.done();
        out.commands.extend(self.waiting.take().map(|conn| Command::Reconnect(conn, "listed")));
        for listed in &list {
            let symbol = normal(listed);
            if !self.roster.wants(&symbol) {
                continue;
            }
            let steps = Steps { tick: listed.tick.map(|n| n.0), lot: listed.lot.map(|n| n.0) };
            self.listing.insert(&listed.symbol, symbol, steps);
            if let Some(keeper) = self.roster.by_native(&listed.symbol) {
                keeper.describe(steps.tick, steps.lot, out);
                let halted = !matches!(&*listed.state, "" | "Open");
                keeper.halt(halted.then_some("closed"), recv, out);
            }
        }
        Ok(())
    }
}

impl Own {
    fn changes(&mut self, action: &str, rows: &[Change], levels: &mut Levels) -> Result<(), Wrong> {
        let wrong = |fault, detail| Wrong { fault, detail };
        for row in rows {
            let unknown = || wrong(Fault::Gap, format!("{action} of row {}, which never came", row.id));
            let side = row.side.ok_or_else(|| wrong(Fault::Undecodable, format!("row {} without a side", row.id)))?;
            let (price, size) = match action {
                "delete" => {
                    let (side, price) = self.rows.remove(&row.id).ok_or_else(unknown)?;
                    list(levels, side).push(Level { price, size: Decimal::ZERO });
                    continue;
                }
                "update" => {
                    let (old_side, old_price) = *self.rows.get(&row.id).ok_or_else(unknown)?;
                    let price = row.price.unwrap_or(old_price);
                    if (old_side, old_price) != (side, price) {
                        list(levels, old_side).push(Level { price: old_price, size: Decimal::ZERO });
                        self.rows.insert(row.id, (side, price));
                    }
                    // Nothing but its time changed.
                    let Some(size) = row.size else { continue };
                    (price, size)
                }
                "insert" => {
                    let (Some(price), Some(size)) = (row.price, row.size) else {
                        return Err(wrong(Fault::Undecodable, format!("row {} without price or size", row.id)));
                    };
                    if self.rows.len() >= 2 * LEVELS_PER_SIDE_MAX {
                        return Err(wrong(Fault::Undecodable, "more rows than a book can have".to_owned()));
                    }
                    match self.rows.entry(row.id) {
                        Entry::Occupied(_) => {
                            return Err(wrong(Fault::Gap, format!("insert of row {}, which is there", row.id)));
                        }
                        Entry::Vacant(place) => _ = place.insert((side, price)),
                    }
                    (price, size)
                }
                _ => return Err(wrong(Fault::Undecodable, format!("the action `{action}`"))),
            };
            list(levels, side).push(Level { price, size });
        }
        Ok(())
    }
}

impl Adapter for Bitmex {
    fn rules(&self) -> Rules {
        Rules {
            venue: "bitmex",
            websocket_url: WEBSOCKET_URL.to_owned(),
            instruments_url: Some(INSTRUMENTS_URL.to_owned()),
            // Its answers to our pings come at least that often.
            silence_max: Duration::from_secs(20),
            ping_text: Some("ping"),
            ping_every: Duration::from_secs(5),
            age_max: None,
            sends_per_second_max: 5,
            ticket_url: None,
            symbols_max: None,
        }
    }

    fn opened(&mut self, conn: Conn, _url: &str, now: Time, out: &mut Out) {
        self.roster.report_unusable(out);
        if self.listing.is_empty() && !self.roster.wanted().is_empty() {
            self.waiting = Some(conn);
            return;
        }
        let mut tables = Vec::new();
        for native in self.listing.natives(self.roster.wanted(), |symbol| symbol.into(), out) {
            if let Some((keeper, _)) = self.keep(&native, out) {
                keeper.opened(conn, now, out);
                if !keeper.is_live() {
                    keeper.resync.expect(now.plus_millis(RESYNC_ANSWER_MAX_MS));
                }
                tables.extend(["trade", "quote", "orderBookL2"].map(|table| format!("\"{table}:{native}\"")));
            }
        }
        for part in tables.chunks(TABLES_PER_SUBSCRIPTION_MAX) {
            out.commands.push(Command::Send(conn, request("subscribe", &part.join(","))));
        }
    }

    fn frame(&mut self, conn: Conn, bytes: &[u8], recv: Time, out: &mut Out) {
        if bytes == b"pong" {
            return;
        }
        if !is_object(bytes) || self.decode(conn, bytes, recv, out).is_err() {
            undecodable(bytes, out);
            // Nothing numbers the frames: nothing later would show what it changed.
            self.roster.suspect(conn, recv, out);
            self.resync_due(recv, out);
        }
    }

    fn response(&mut self, url: &str, body: &[u8], recv: Time, out: &mut Out) {
        if url.contains("/instrument") && self.listed(body, recv, out).is_err() {
            undecodable(body, out);
        }
    }

    fn failed(&mut self, url: &str, now: Time, _out: &mut Out) {
        if url.contains("/instrument") {
            self.list.request(now);
            self.list.asked(now);
        }
    }

    fn closed(&mut self, conn: Conn, reason: &str, now: Time, out: &mut Out) {
        self.waiting = self.waiting.filter(|waiting| *waiting != conn);
        for keeper in self.roster.iter().filter(|k| k.owner() == Some(conn)) {
            if let Some(own) = self.own.get_mut(keeper.number() as usize) {
                own.rows.clear();
            }
        }
        self.roster.lost(conn, reason, now, out);
    }

    fn next_timer(&self) -> Option<Time> {
        self.roster.next_resync().into_iter().chain(self.list.at()).chain(self.refresh.at()).min()
    }

    fn timer(&mut self, now: Time, out: &mut Out) {
        self.resync_due(now, out);
        self.roster.refresh_due(&mut self.refresh, now, out, |_| true, subscribe_anew);
        if self.list.is_due(now) {
            self.list.asked(now);
            out.commands.push(Command::Fetch(INSTRUMENTS_URL.to_owned()));
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

fn subscribe_anew(conn: Conn, keeper: &Keeper, out: &mut Out) {
    let table = format!("\"orderBookL2:{}\"", keeper.instrument().native);
    for method in ["unsubscribe", "subscribe"] {
        out.commands.push(Command::Send(conn, request(method, &table)));
    }
}

fn side(row: &Row<'_>) -> Option<BookSide> {
    match &*row.side {
        "Buy" => Some(BookSide::Bid),
        "Sell" => Some(BookSide::Ask),
        _ => None,
    }
}

fn list(levels: &mut Levels, side: BookSide) -> &mut Vec<Level> {
    match side {
        BookSide::Bid => &mut levels.bids,
        BookSide::Ask => &mut levels.asks,
    }
}

/// Rows have their time since 2023.
fn stamp<'a>(rows: impl Iterator<Item = &'a Row<'a>>, recv: Time) -> Stamp {
    Stamp { ts: rows.filter_map(|row| Time::parse_rfc3339(&row.timestamp)).max(), recv }
}

fn request(method: &str, tables: &str) -> String {
    format!(r#"{{"op":"{method}","args":[{tables}]}}"#)
}

/// The normal form: `XBTUSD` is `BTC-USD-PERP`, `XBT_USDT` on the spot market `BTC-USDT`; dated futures keep their name.
fn normal(listed: &Listed<'_>) -> CompactString {
    let base = if listed.underlying == "XBT" { "BTC" } else { &listed.underlying };
    match &*listed.typ {
        typ if typ.starts_with("FFW") => format_compact!("{base}-{}-PERP", listed.quote),
        "IFXXXP" => format_compact!("{base}-{}", listed.quote),
        _ => listed.symbol.to_compact_string(),
    }
}

#[cfg(test)]
#[path = "bitmex/tests.rs"]
mod tests;
