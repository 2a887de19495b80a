//! Gate.io spot, API v4 (gate.com/docs/developers/apiv4/ws/en: `spot.order_book_update`, `spot.book_ticker`,
//! `spot.trades`; …/apiv4/en: `GET /spot/order_book`, `GET /spot/currency_pairs`).
//!
//! A book is a REST snapshot with its id and the differences that continue it: the first has `U` ≤ id + 1 ≤ `u`, each
//! later one `U` = `u` + 1 of the one before. The differences follow [`DEPTH`] levels a side. A frame that says `full` is
//! the whole book.

mod scan;

use std::borrow::Cow;
use std::time::Duration;

use compact_str::{CompactString, ToCompactString};
use serde::Deserialize;
use serde_json::value::RawValue;
use ticker_market::{Book, Decimal, Integrity, Levels, Side, Time, Trade};

use crate::depth::Diff;
use crate::keeper::{Keeper, QuoteSource, Stamp, Ways};
use crate::rest_books::{Fetching, RestBooks};
use crate::resync::Resync;
use crate::roster::{Listing, Roster, Steps};
use crate::symbols::query;
use crate::wire::{LevelPairs, MaybeQuoted, Number, Quoted, is_object, side_of_quote, undecodable};
use crate::{Adapter, Command, Conn, Fault, Out, Report, Rules};

/// Levels a side that `spot.order_book_update` at 100 ms follows, and of a snapshot.
pub const DEPTH: usize = 100;

/// Snapshots fetched in any minute, at most; the venue allows 200 in ten seconds.
pub const SNAPSHOTS_PER_MINUTE_MAX: usize = 300;

/// A quiet pair's snapshot is fetched so many milliseconds after the connection opened.
pub const SNAPSHOT_DELAY_MS: i64 = 1_000;

/// Where the WebSocket is.
pub const WEBSOCKET_URL: &str = "wss://api.gateio.ws/ws/v4/";

/// Where pairs are listed.
pub const PAIRS_URL: &str = "https://api.gateio.ws/api/v4/spot/currency_pairs";

const FETCHING: Fetching = Fetching {
    url: "https://api.gateio.ws/api/v4/spot/order_book?currency_pair=",
    url_end: "&limit=100&with_id=true",
    per_minute_max: SNAPSHOTS_PER_MINUTE_MAX,
    depth: DEPTH,
};

/// Gate.io's decoder.
#[derive(Debug)]
pub struct Gateio {
    books: RestBooks,
    listing: Listing,
    list: Resync,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    channel: Cow<'a, str>,
    #[serde(borrow, default)]
    event: Cow<'a, str>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<WireError>,
}

#[derive(Deserialize)]
struct WireError {
    code: i64,
    #[serde(default)]
    message: String,
}

/// `spot.order_book_update`
#[derive(Deserialize, Debug)]
struct DepthUpdate<'a> {
    #[serde(rename = "t")]
    time_ms: i64,
    #[serde(borrow)]
    s: Cow<'a, str>,
    #[serde(rename = "U")]
    first: u64,
    #[serde(rename = "u")]
    last: u64,
    /// Is it the whole book instead of a difference?
    #[serde(default)]
    full: bool,
    #[serde(default)]
    b: LevelPairs,
    #[serde(default)]
    a: LevelPairs,
}

/// `spot.order_book`
#[derive(Deserialize)]
struct Window<'a> {
    #[serde(rename = "t")]
    time_ms: i64,
    #[serde(borrow)]
    s: Cow<'a, str>,
    #[serde(default)]
    bids: LevelPairs,
    #[serde(default)]
    asks: LevelPairs,
}

/// `spot.book_ticker`
#[derive(Deserialize)]
struct BookTicker<'a> {
    #[serde(rename = "t")]
    time_ms: i64,
    #[serde(borrow)]
    s: Cow<'a, str>,
    #[serde(rename = "b", default)]
    bid: MaybeQuoted,
    #[serde(rename = "B", default)]
    bid_size: MaybeQuoted,
    #[serde(rename = "a", default)]
    ask: MaybeQuoted,
    #[serde(rename = "A", default)]
    ask_size: MaybeQuoted,
}

/// `spot.trades`
#[derive(Deserialize)]
struct WireTrade<'a> {
    id: u64,
    /// With fractions of a millisecond.
    create_time_ms: Number,
    #[serde(borrow)]
    side: Cow<'a, str>,
    #[serde(borrow)]
    currency_pair: Cow<'a, str>,
    amount: Quoted,
    price: Quoted,
}

/// REST `order_book`
#[derive(Deserialize)]
struct Snapshot {
    id: u64,
    bids: LevelPairs,
    asks: LevelPairs,
}

/// REST `currency_pairs`
#[derive(Deserialize)]
struct Pair<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    precision: u32,
    amount_precision: u32,
    #[serde(borrow, default)]
    trade_status: Cow<'a, str>,
}

/// A REST error.
#[derive(Deserialize)]
struct Refusal {
    label: String,
    #[serde(default)]
    message: String,
}

impl Gateio {
    /// For these symbols in normal form; none for whatever comes.
    pub fn new(symbols: &[String]) -> Self {
        let ways = Ways { integrity: Integrity::Sequenced, quotes: QuoteSource::Ticker };
        let books = RestBooks::new(Roster::new("gateio", ways, symbols), FETCHING);
        Self { books, listing: Listing::default(), list: Resync::default() }
    }

    /// The book of a pair, by the venue's own name, while it is live.
    pub fn book(&self, native: &str) -> Option<&Book> {
        self.books.roster.iter().find(|k| k.instrument().native == native && k.is_live()).map(Keeper::book)
    }

    fn keep(&mut self, native: &str, out: &mut Out) -> Option<&mut Keeper> {
        let describe = || self.listing.describe(native, || normal(native));
        self.books.keep(native, describe, out).map(|(keeper, _)| keeper)
    }

    fn decode(&mut self, conn: Conn, bytes: &[u8], recv: Time, out: &mut Out) -> Result<(), serde_json::Error> {
        if let Some(update) = scan::update(bytes, out) {
            self.depth(conn, update, recv, out);
            return Ok(());
        }
        let envelope: Envelope<'_> = serde_json::from_slice(bytes)?;
        if let Some(error) = envelope.error {
            let detail = format!("{}: {}: {}", envelope.channel, error.code, error.message);
            out.reports.push(Report { fault: Fault::Refused, native: None, detail });
            return Ok(());
        }
        let result = envelope.result.map_or("{}", RawValue::get);
        match (&*envelope.channel, &*envelope.event) {
            ("spot.order_book_update", "update") => {
                let update: DepthUpdate<'_> = serde_json::from_str(result)?;
                self.depth(conn, update, recv, out);
            }
            ("spot.order_book", "update") => {
                let window: Window<'_> = serde_json::from_str(result)?;
                let levels = Levels { bids: window.bids.0, asks: window.asks.0, ..Levels::default() };
                let stamp = Stamp { ts: Some(Time::from_millis(window.time_ms)), recv };
                if let Some(keeper) = self.keep(&window.s, out) {
                    // Of how many levels it is, only the subscription says.
                    keeper.window(conn, 1, &levels, stamp, out);
                }
            }
            ("spot.book_ticker", "update") => {
                let ticker: BookTicker<'_> = serde_json::from_str(result)?;
                let Some(keeper) = self.keep(&ticker.s, out) else { return Ok(()) };
                keeper.heard(conn, recv, out);
                let bid = ticker.bid.0.zip(ticker.bid_size.0).and_then(|(p, s)| side_of_quote(p, s));
                let ask = ticker.ask.0.zip(ticker.ask_size.0).and_then(|(p, s)| side_of_quote(p, s));
                keeper.ticker(bid, ask, Stamp { ts: Some(Time::from_millis(ticker.time_ms)), recv }, out);
            }
            ("spot.trades", "update") => {
                let trade: WireTrade<'_> = serde_json::from_str(result)?;
                let Some(keeper) = self.keep(&trade.currency_pair, out) else { return Ok(()) };
                keeper.heard(conn, recv, out);
                let told = Trade {
                    price: trade.price.0,
                    size: trade.amount.0,
                    side: match &*trade.side {
                        "buy" => Some(Side::Buy),
                        "sell" => Some(Side::Sell),
                        _ => None,
                    },
                    trade_id: trade.id.to_compact_string(),
                    reference: None,
                };
                keeper.trade(trade.id, told, Stamp { ts: nanos(trade.create_time_ms.0), recv }, out);
            }
            // Answers to what was asked for.
            (_, "subscribe" | "unsubscribe") | ("spot.pong", _) => {}
            (channel, _) => out.pass_over(channel),
        }
        Ok(())
    }

    fn depth(&mut self, conn: Conn, update: DepthUpdate<'_>, recv: Time, out: &mut Out) {
        if self.keep(&update.s, out).is_some() {
            let levels = Levels { bids: update.b.0, asks: update.a.0, ..Levels::default() };
            let ts = Some(Time::from_millis(update.time_ms));
            if update.full {
                return self.books.snapshot_in_band(conn, &update.s, update.last, levels, Stamp { ts, recv }, out);
            }
            let diff = Diff { before: update.first.saturating_sub(1), last: update.last, conn, levels, ts };
            self.books.diffs(conn, &update.s, [diff], recv, out);
        }
    }

    fn pairs(&mut self, body: &[u8], recv: Time, out: &mut Out) {
        let Ok(list) = serde_json::from_slice::<Vec<Pair<'_>>>(body) else { return refused(None, body, out) };
        self.list.done();
        for pair in &list {
            let symbol = normal(&pair.id);
            if !self.books.roster.wants(&symbol) {
                continue;
            }
            // A precision is a number of digits.
            let step = |digits: u32| (digits <= 28).then(|| Decimal::new(1, digits));
            let steps = Steps { tick: step(pair.precision), lot: step(pair.amount_precision) };
            self.listing.insert(&pair.id, symbol, steps);
            if let Some(keeper) = self.books.roster.by_native(&pair.id) {
                keeper.describe(steps.tick, steps.lot, out);
                keeper.halt((pair.trade_status == "untradable").then_some("untradable"), recv, out);
            }
        }
    }
}

impl Adapter for Gateio {
    fn rules(&self) -> Rules {
        Rules {
            venue: "gateio",
            websocket_url: WEBSOCKET_URL.to_owned(),
            instruments_url: Some(PAIRS_URL.to_owned()),
            // Its answers to our pings come at least that often.
            silence_max: Duration::from_secs(30),
            ping_text: Some(r#"{"time":0,"channel":"spot.ping"}"#),
            ping_every: Duration::from_secs(10),
            age_max: None,
            sends_per_second_max: 20,
            ticket_url: None,
            symbols_max: None,
        }
    }

    fn opened(&mut self, conn: Conn, _url: &str, now: Time, out: &mut Out) {
        self.books.roster.report_unusable(out);
        let natives = self.listing.natives(self.books.roster.wanted(), |symbol| symbol.replace('-', "_").into(), out);
        for native in &natives {
            if self.keep(native, out).is_some() {
                self.books.opened(conn, native, SNAPSHOT_DELAY_MS, now, out);
            }
        }
        if natives.is_empty() {
            return;
        }
        let seconds = now.millis() / 1_000;
        let list: Vec<String> = natives.iter().map(|n| format!("\"{n}\"")).collect();
        for channel in ["spot.trades", "spot.book_ticker"] {
            out.commands.push(Command::Send(conn, subscribe(seconds, channel, &list.join(","))));
        }
        for native in &list {
            let payload = format!(r#"{native},"100ms""#);
            out.commands.push(Command::Send(conn, subscribe(seconds, "spot.order_book_update", &payload)));
        }
    }

    fn frame(&mut self, conn: Conn, bytes: &[u8], recv: Time, out: &mut Out) {
        if !is_object(bytes) || self.decode(conn, bytes, recv, out).is_err() {
            undecodable(bytes, out);
        }
    }

    fn response(&mut self, url: &str, body: &[u8], recv: Time, out: &mut Out) {
        if url.contains("currency_pairs") {
            return self.pairs(body, recv, out);
        }
        // Recordings may hold the answers to what others asked.
        let Some(native) = query(url, "currency_pair").filter(|_| url.contains("/order_book")) else { return };
        match serde_json::from_slice::<Snapshot>(body) {
            Ok(snapshot) if is_object(body) => {
                if self.keep(native, out).is_some() {
                    let levels = Levels { bids: snapshot.bids.0, asks: snapshot.asks.0, ..Levels::default() };
                    self.books.snapshot(native, snapshot.id, levels, recv, out);
                }
            }
            _ => refused(Some(native), body, out),
        }
    }

    fn failed(&mut self, url: &str, now: Time, _out: &mut Out) {
        if url.contains("currency_pairs") {
            self.list.request(now);
            self.list.asked(now);
        } else if let Some(native) = query(url, "currency_pair") {
            self.books.failed(native, now);
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
            out.commands.push(Command::Fetch(PAIRS_URL.to_owned()));
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

/// The normal form of a pair: `BTC_USDT` is `BTC-USDT`.
fn normal(native: &str) -> CompactString {
    native.replace('_', "-").into()
}

fn subscribe(seconds: i64, channel: &str, payload: &str) -> String {
    format!(r#"{{"time":{seconds},"channel":"{channel}","event":"subscribe","payload":[{payload}]}}"#)
}

/// A time in milliseconds with a fraction.
fn nanos(millis: Decimal) -> Option<Time> {
    let nanos = millis.checked_mul(Decimal::from(1_000_000))?.trunc();
    i64::try_from(nanos).ok().map(Time)
}

fn refused(native: Option<&str>, body: &[u8], out: &mut Out) {
    match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => {
            let detail = format!("{}: {}", refusal.label, refusal.message);
            out.reports.push(Report { fault: Fault::Refused, native: native.map(str::to_owned), detail });
        }
        Err(_) => undecodable(body, out),
    }
}

#[cfg(test)]
#[path = "gateio/tests.rs"]
mod tests;
