//! KuCoin spot (docs.kucoin.com: "Level-2 Market Data", "Symbol Ticker", "Match Execution Data"; `GET
//! /api/v3/market/orderbook/level2`, `GET /api/v2/symbols`).
//!
//! A book is a REST snapshot with its sequence and the changes that continue it. A frame has the changes `sequenceStart`
//! to `sequenceEnd`, each with a number of its own; those that a snapshot has already are passed over one by one. A
//! price of zero moves the sequence on and changes nothing.
//!
//! The ticker comes every 100 ms at most, later than the book: it is told only while no book is live.
//!
//! Whoever opens the WebSocket needs a ticket: `POST /api/v1/bullet-public` answers with a token, and with the address to
//! put before it.

mod scan;

use std::borrow::Cow;
use std::time::Duration;

use compact_str::ToCompactString;
use serde::de::{Deserialize, Deserializer, Error};
use serde_json::value::RawValue;
use ticker_market::{Book, Integrity, Level, Levels, Side, Time, Trade};

use crate::depth::Diff;
use crate::keeper::{Keeper, QuoteSource, Stamp, Ways};
use crate::rest_books::{Fetching, RestBooks};
use crate::resync::Resync;
use crate::roster::{Listing, Roster, Steps};
use crate::symbols::query;
use crate::wire::{LevelPairs, MaybeQuoted, Quoted, is_object, side_of_quote, undecodable};
use crate::{Adapter, Command, Conn, Fault, Out, Report, Rules};

/// Snapshots fetched in any minute, at most: one weighs 3 of the 2000 in 30 seconds that an address has.
pub const SNAPSHOTS_PER_MINUTE_MAX: usize = 100;

/// A quiet symbol's snapshot is fetched so many milliseconds after the connection opened.
pub const SNAPSHOT_DELAY_MS: i64 = 1_000;

/// Symbols in one subscription.
pub const SYMBOLS_PER_SUBSCRIPTION_MAX: usize = 100;

/// Symbols on one connection, which may have 400 topics.
pub const SYMBOLS_MAX: usize = 133;

/// Where the WebSocket is; a token must follow.
pub const WEBSOCKET_URL: &str = "wss://ws-api-spot.kucoin.com/";

/// Where a token is had.
pub const TICKET_URL: &str = "https://api.kucoin.com/api/v1/bullet-public";

/// A token has 200 bytes or so.
const TOKEN_BYTES_MAX: usize = 4_096;

/// How often to ping, where no ticket says it.
const PING_EVERY: Duration = Duration::from_secs(18);

/// Where symbols are listed.
pub const SYMBOLS_URL: &str = "https://api.kucoin.com/api/v2/symbols";

const FETCHING: Fetching = Fetching {
    url: "https://api.kucoin.com/api/v3/market/orderbook/level2?symbol=",
    url_end: "",
    per_minute_max: SNAPSHOTS_PER_MINUTE_MAX,
    depth: usize::MAX,
};

/// KuCoin's decoder.
#[derive(Debug)]
pub struct Kucoin {
    books: RestBooks,
    listing: Listing,
    list: Resync,
    ticket: Option<Ticket>,
}

/// What the venue said of the next connection.
#[derive(Debug)]
struct Ticket {
    websocket_url: String,
    ping_every: Duration,
}

#[derive(serde::Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    topic: Cow<'a, str>,
    #[serde(borrow, default)]
    subject: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    /// A number, or text.
    #[serde(borrow, default)]
    code: Option<&'a RawValue>,
}

/// A whole number, which was in quotes once, and still is in some frames.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = <&RawValue>::deserialize(deserializer)?.get().trim_matches('"');
    text.parse().map_err(|_| D::Error::custom("not a whole number"))
}

/// `trade.l2update`
#[derive(serde::Deserialize)]
struct Level2<'a> {
    #[serde(borrow)]
    symbol: Cow<'a, str>,
    #[serde(rename = "sequenceStart", deserialize_with = "whole")]
    first: u64,
    #[serde(rename = "sequenceEnd", deserialize_with = "whole")]
    last: u64,
    #[serde(borrow)]
    changes: Changes<'a>,
    #[serde(default, rename = "time")]
    time_ms: Option<i64>,
}

#[derive(serde::Deserialize)]
struct Changes<'a> {
    #[serde(borrow, default)]
    bids: Vec<Change<'a>>,
    #[serde(borrow, default)]
    asks: Vec<Change<'a>>,
}

/// Price, size, sequence.
#[derive(serde::Deserialize)]
struct Change<'a>(Quoted, Quoted, #[serde(borrow)] Cow<'a, str>);

/// `/spotMarket/level2Depth5`, `/spotMarket/level2Depth50`
#[derive(serde::Deserialize)]
struct Window {
    #[serde(default)]
    bids: LevelPairs,
    #[serde(default)]
    asks: LevelPairs,
    #[serde(default, rename = "timestamp")]
    time_ms: Option<i64>,
}

/// `trade.ticker`
#[derive(serde::Deserialize)]
struct Ticker {
    #[serde(default, rename = "bestBid")]
    bid: MaybeQuoted,
    #[serde(default, rename = "bestBidSize")]
    bid_size: MaybeQuoted,
    #[serde(default, rename = "bestAsk")]
    ask: MaybeQuoted,
    #[serde(default, rename = "bestAskSize")]
    ask_size: MaybeQuoted,
    #[serde(default, rename = "time")]
    time_ms: Option<i64>,
}

/// `trade.l3match`
#[derive(serde::Deserialize)]
struct Match<'a> {
    #[serde(borrow)]
    symbol: Cow<'a, str>,
    #[serde(deserialize_with = "whole")]
    sequence: u64,
    /// The taker's.
    #[serde(borrow)]
    side: Cow<'a, str>,
    size: Quoted,
    price: Quoted,
    /// Nanoseconds.
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(borrow, rename = "tradeId")]
    id: Cow<'a, str>,
}

#[derive(serde::Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    code: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    msg: Cow<'a, str>,
}

#[derive(serde::Deserialize)]
struct Snapshot {
    #[serde(deserialize_with = "whole")]
    sequence: u64,
    bids: LevelPairs,
    asks: LevelPairs,
}

/// `bullet-public`
#[derive(serde::Deserialize)]
struct Bullet<'a> {
    #[serde(borrow)]
    token: Cow<'a, str>,
    #[serde(borrow, rename = "instanceServers")]
    servers: Vec<Server<'a>>,
}

#[derive(serde::Deserialize)]
struct Server<'a> {
    #[serde(borrow)]
    endpoint: Cow<'a, str>,
    #[serde(default, rename = "pingInterval")]
    ping_ms: Option<u64>,
}

#[derive(serde::Deserialize)]
struct SymbolInfo<'a> {
    #[serde(borrow)]
    symbol: Cow<'a, str>,
    #[serde(rename = "priceIncrement")]
    tick: Quoted,
    #[serde(rename = "baseIncrement")]
    lot: Quoted,
    #[serde(default, rename = "enableTrading")]
    trading: Option<bool>,
}

impl Kucoin {
    /// For these symbols in normal form (which is KuCoin's own); none for whatever comes.
    pub fn new(symbols: &[String]) -> Self {
        let ways = Ways { integrity: Integrity::Sequenced, quotes: QuoteSource::TickerAndBook };
        let books = RestBooks::new(Roster::new("kucoin", ways, symbols), FETCHING);
        Self { books, listing: Listing::default(), ticket: None, list: Resync::default() }
    }

    /// The book of a symbol while it is live.
    pub fn book(&self, native: &str) -> Option<&Book> {
        self.books.roster.iter().find(|k| k.instrument().native == native && k.is_live()).map(Keeper::book)
    }

    fn keep(&mut self, native: &str, out: &mut Out) -> Option<&mut Keeper> {
        let describe = || self.listing.describe(native, || native.into());
        self.books.keep(native, describe, out).map(|(keeper, _)| keeper)
    }

    fn decode(&mut self, conn: Conn, bytes: &[u8], recv: Time, out: &mut Out) -> Result<(), serde_json::Error> {
        if let Some(update) = scan::level2(bytes, out) {
            // The usual frame follows the book, and is one difference; any other is told change by change.
            let last = self
                .books
                .keep(update.symbol, || self.listing.describe(update.symbol, || update.symbol.into()), out)
                .and_then(|(_, sync)| sync.last());
            if last.is_some_and(|last| last.checked_add(1) == Some(update.first)) {
                let scan::Level2 { symbol, first, last, levels, time_ms } = update;
                let ts = time_ms.map(Time::from_millis);
                let diff = Diff { before: first.saturating_sub(1), last, conn, levels, ts };
                self.books.diffs(conn, symbol, [diff], recv, out);
                return Ok(());
            }
            out.recycle(update.levels);
        }
        let envelope: Envelope<'_> = serde_json::from_slice(bytes)?;
        let data = envelope.data.map_or("{}", RawValue::get);
        match (&*envelope.kind, &*envelope.subject) {
            ("message", "trade.l2update") => {
                let update: Level2<'_> = serde_json::from_str(data)?;
                let native = update.symbol.to_compact_string();
                let describe = || self.listing.describe(&native, || native.clone());
                if let Some((_, sync)) = self.books.keep(&native, describe, out) {
                    let continues = sync.last().is_some_and(|last| last.checked_add(1) == Some(update.first));
                    let Some(diffs) = diffs(update, conn, continues) else {
                        undecodable(bytes, out);
                        return Ok(());
                    };
                    self.books.diffs(conn, &native, diffs, recv, out);
                }
            }
            ("message", "trade.ticker") => {
                let ticker: Ticker = serde_json::from_str(data)?;
                let Some((_, native)) = envelope.topic.split_once(':') else { return Ok(()) };
                let Some(keeper) = self.keep(native, out) else { return Ok(()) };
                keeper.heard(conn, recv, out);
                if !keeper.is_live() {
                    let bid = ticker.bid.0.zip(ticker.bid_size.0).and_then(|(p, s)| side_of_quote(p, s));
                    let ask = ticker.ask.0.zip(ticker.ask_size.0).and_then(|(p, s)| side_of_quote(p, s));
                    keeper.ticker(bid, ask, Stamp { ts: ticker.time_ms.map(Time::from_millis), recv }, out);
                }
            }
            ("message", "level2") => {
                let Some((kind, native)) = envelope.topic.split_once(':') else { return Ok(()) };
                let depth = match kind {
                    "/spotMarket/level2Depth5" => 5,
                    "/spotMarket/level2Depth50" => 50,
                    // Of futures.
                    _ => {
                        out.pass_over("level2");
                        return Ok(());
                    }
                };
                let window: Window = serde_json::from_str(data)?;
                let levels = Levels { bids: window.bids.0, asks: window.asks.0, ..Levels::default() };
                let stamp = Stamp { ts: window.time_ms.map(Time::from_millis), recv };
                if let Some(keeper) = self.keep(native, out) {
                    keeper.window(conn, depth, &levels, stamp, out);
                }
            }
            ("message", "trade.l3match") => {
                let trade: Match<'_> = serde_json::from_str(data)?;
                let Some(keeper) = self.keep(&trade.symbol, out) else { return Ok(()) };
                keeper.heard(conn, recv, out);
                let told = Trade {
                    price: trade.price.0,
                    size: trade.size.0,
                    side: match &*trade.side {
                        "buy" => Some(Side::Buy),
                        "sell" => Some(Side::Sell),
                        _ => None,
                    },
                    trade_id: trade.id.to_compact_string(),
                    reference: None,
                };
                keeper.trade(trade.sequence, told, Stamp { ts: trade.time.parse().ok().map(Time), recv }, out);
            }
            ("error", _) => {
                let detail = format!("{}: {data}", envelope.code.map_or("", RawValue::get));
                out.reports.push(Report { fault: Fault::Refused, native: None, detail });
            }
            ("message", subject) => out.pass_over(subject),
            ("welcome" | "ack" | "pong", _) => {}
            (kind, _) => out.pass_over(kind),
        }
        Ok(())
    }

    fn listed(&mut self, data: &str, recv: Time, out: &mut Out) -> Result<(), serde_json::Error> {
        let list: Vec<SymbolInfo<'_>> = serde_json::from_str(data)?;
        self.list.done();
        for info in &list {
            if !self.books.roster.wants(&info.symbol) {
                continue;
            }
            let steps = Steps { tick: Some(info.tick.0), lot: Some(info.lot.0) };
            self.listing.insert(&info.symbol, info.symbol.to_compact_string(), steps);
            if let Some(keeper) = self.books.roster.by_native(&info.symbol) {
                keeper.describe(steps.tick, steps.lot, out);
                keeper.halt((info.trading == Some(false)).then_some("trading_disabled"), recv, out);
            }
        }
        Ok(())
    }

    fn answered(&mut self, url: &str, body: &[u8], recv: Time, out: &mut Out) -> Result<(), serde_json::Error> {
        let answer: Answer<'_> = serde_json::from_slice(body)?;
        let native = query(url, "symbol");
        let (true, Some(data)) = (answer.code == "200000", answer.data) else {
            let detail = format!("{}: {}", answer.code, answer.msg);
            out.reports.push(Report { fault: Fault::Refused, native: native.map(str::to_owned), detail });
            return Ok(());
        };
        if url == TICKET_URL {
            let bullet: Bullet<'_> = serde_json::from_str(data.get())?;
            self.ticket = ticket(&bullet);
            if self.ticket.is_none() {
                undecodable(body, out);
            }
            return Ok(());
        }
        if url.contains("/symbols") {
            return self.listed(data.get(), recv, out);
        }
        // Recordings may hold the answers to what others asked.
        let Some(native) = native.filter(|_| url.contains("/orderbook/")) else { return Ok(()) };
        let snapshot: Snapshot = serde_json::from_str(data.get())?;
        if self.keep(native, out).is_some() {
            let levels = Levels { bids: snapshot.bids.0, asks: snapshot.asks.0, ..Levels::default() };
            self.books.snapshot(native, snapshot.sequence, levels, recv, out);
        }
        Ok(())
    }
}

/// The next connection's address; `None` where it would be none.
fn ticket(bullet: &Bullet<'_>) -> Option<Ticket> {
    let server = bullet.servers.first().filter(|server| server.endpoint.starts_with("wss://"))?;
    let fits = |c: u8| c.is_ascii_alphanumeric() || b"-_.~=+/".contains(&c);
    if bullet.token.is_empty() || bullet.token.len() > TOKEN_BYTES_MAX || !bullet.token.bytes().all(fits) {
        return None;
    }
    // In a query a plus is a space.
    let token = bullet.token.replace('+', "%2B");
    let ping_every = server.ping_ms.map_or(PING_EVERY, Duration::from_millis);
    Some(Ticket {
        websocket_url: format!("{}?token={token}", server.endpoint),
        ping_every: ping_every.clamp(Duration::from_secs(1), PING_EVERY),
    })
}

/// A frame's changes. Where it may begin before a snapshot, each change comes by itself: sizes are those of their own
/// number, so that an older one must not follow a snapshot that is newer. `None`: a number that is none, or not of the
/// frame.
fn diffs(update: Level2<'_>, conn: Conn, continues: bool) -> Option<Vec<Diff>> {
    let ts = update.time_ms.map(Time::from_millis);
    let (bids, asks) = (update.changes.bids.len(), update.changes.asks.len());
    let sides = std::iter::repeat_n(true, bids).chain(std::iter::repeat_n(false, asks));
    let mut changes = Vec::with_capacity(bids + asks);
    for (bid, Change(price, size, number)) in sides.zip(update.changes.bids.into_iter().chain(update.changes.asks)) {
        let number: u64 = number.parse().ok().filter(|n| (update.first..=update.last).contains(n))?;
        changes.push((number, bid, Level { price: price.0, size: size.0 }));
    }
    changes.sort_by_key(|(number, ..)| *number);
    let mut diffs: Vec<Diff> = Vec::new();
    let mut first = update.first;
    for (number, bid, level) in changes {
        // Of one number or, where nothing is to be passed over, of one frame.
        if diffs.is_empty() || (!continues && first <= number) {
            diffs.push(Diff { before: first.saturating_sub(1), last: number, conn, levels: Levels::default(), ts });
            first = number.saturating_add(1);
        }
        let diff = diffs.last_mut()?;
        diff.last = diff.last.max(number);
        if !level.price.is_zero() {
            let list = if bid { &mut diff.levels.bids } else { &mut diff.levels.asks };
            list.push(level);
        }
    }
    match diffs.last_mut() {
        Some(last) => last.last = update.last,
        None => diffs.push(Diff {
            before: update.first.saturating_sub(1),
            last: update.last,
            conn,
            levels: Levels::default(),
            ts,
        }),
    }
    Some(diffs)
}

impl Adapter for Kucoin {
    fn rules(&self) -> Rules {
        let ping_every = self.ticket.as_ref().map_or(PING_EVERY, |ticket| ticket.ping_every);
        Rules {
            venue: "kucoin",
            websocket_url: self.ticket.as_ref().map_or(WEBSOCKET_URL, |ticket| &ticket.websocket_url).to_owned(),
            instruments_url: Some(SYMBOLS_URL.to_owned()),
            // Its answers to our pings come at least that often.
            silence_max: 2 * ping_every + Duration::from_secs(4),
            ping_text: Some(r#"{"id":"ping","type":"ping"}"#),
            ping_every,
            age_max: Some(Duration::from_secs(23 * 3_600 + 1_800)),
            // A hundred in ten seconds.
            sends_per_second_max: 10,
            ticket_url: Some(TICKET_URL),
            symbols_max: Some(SYMBOLS_MAX),
        }
    }

    fn opened(&mut self, conn: Conn, _url: &str, now: Time, out: &mut Out) {
        self.books.roster.report_unusable(out);
        let natives = self.listing.natives(self.books.roster.wanted(), |symbol| symbol.into(), out);
        for native in &natives {
            if self.keep(native, out).is_some() {
                self.books.opened(conn, native, SNAPSHOT_DELAY_MS, now, out);
            }
        }
        for part in natives.chunks(SYMBOLS_PER_SUBSCRIPTION_MAX) {
            for topic in ["match", "ticker", "level2"] {
                let text = format!(
                    r#"{{"id":"{topic}","type":"subscribe","topic":"/market/{topic}:{}","privateChannel":false,"response":true}}"#,
                    part.join(",")
                );
                out.commands.push(Command::Send(conn, text));
            }
        }
    }

    fn frame(&mut self, conn: Conn, bytes: &[u8], recv: Time, out: &mut Out) {
        if !is_object(bytes) || self.decode(conn, bytes, recv, out).is_err() {
            undecodable(bytes, out);
        }
    }

    fn response(&mut self, url: &str, body: &[u8], recv: Time, out: &mut Out) {
        if !is_object(body) || self.answered(url, body, recv, out).is_err() {
            undecodable(body, out);
        }
    }

    fn failed(&mut self, url: &str, now: Time, _out: &mut Out) {
        match query(url, "symbol") {
            Some(native) => self.books.failed(native, now),
            // Without a ticket there is no connection, and the next one asks for it again.
            None if url == TICKET_URL => self.ticket = None,
            None => {
                self.list.request(now);
                self.list.asked(now);
            }
        }
    }

    fn closed(&mut self, conn: Conn, reason: &str, now: Time, out: &mut Out) {
        self.books.closed(conn, reason, now, out);
    }

    fn next_timer(&self) -> Option<Time> {
        self.books.next_fetch().into_iter().chain(self.list.at()).min()
    }

    fn timer(&mut self, now: Time, out: &mut Out) {
        self.books.fetch_due(now, out);
        if self.list.is_due(now) {
            self.list.asked(now);
            out.commands.push(Command::Fetch(SYMBOLS_URL.to_owned()));
        }
    }

    fn retell(&self, now: Time, out: &mut Out) {
        self.books.roster.retell(now, out);
    }

    fn end(&mut self, reason: &str, now: Time, out: &mut Out) {
        self.list.done();
        self.books.roster.end(reason, now, out);
    }
}

#[cfg(test)]
#[path = "kucoin/tests.rs"]
mod tests;
