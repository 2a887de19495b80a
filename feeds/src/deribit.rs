//! Deribit, API v2 (docs.deribit.com: `book.{instrument}.{interval}`, `quote.{instrument}`, `ticker.…`, `trades.…`,
//! `public/get_instruments`, `public/set_heartbeat`).
//!
//! A book begins with a snapshot and is followed by changes, each of which names the one before it (`prev_change_id`);
//! after a gap that one channel is subscribed anew. Prices and amounts are JSON numbers, small ones with an exponent:
//! they are read from their digits.

mod scan;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use compact_str::{CompactString, ToCompactString, format_compact};
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;
use ticker_market::{Book, Decimal, Integrity, Level, Levels, Side, Time, Trade};

use crate::keeper::{Keeper, QuoteSource, Stamp, Ways, Wrong};
use crate::resync::{RESYNC_ANSWER_MAX_MS, Resync};
use crate::roster::{Listing, Roster, Steps};
use crate::wire::{Number, for_each, is_object, side_of_quote, undecodable};
use crate::{Adapter, Command, Conn, Fault, Out, Report, Rules};

/// Channels in one subscription; the venue allows 500.
pub const CHANNELS_PER_SUBSCRIPTION_MAX: usize = 300;

/// Where the WebSocket is.
pub const WEBSOCKET_URL: &str = "wss://www.deribit.com/ws/api/v2";

/// Where instruments are listed.
pub const INSTRUMENTS_URL: &str = "https://www.deribit.com/api/v2/public/get_instruments?currency=any&expired=false";

/// Deribit's decoder.
#[derive(Debug)]
pub struct Deribit {
    roster: Roster,
    /// The last `change_id` of each book, by the instrument's number; none while it waits for its snapshot.
    changes: Vec<Option<u64>>,
    /// By the venue's name: the normal form, and the steps.
    listing: Listing,
    list: Resync,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    method: Cow<'a, str>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<WireError>,
}

#[derive(Deserialize)]
struct WireError {
    code: i64,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(borrow, default)]
    channel: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    /// Of a heartbeat.
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'a, str>,
}

/// `book.…`
#[derive(Deserialize, Debug)]
struct WireBook<'a> {
    /// `snapshot` or `change`; none in frames of 2019.
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(rename = "timestamp")]
    time_ms: i64,
    #[serde(borrow, rename = "instrument_name")]
    name: Cow<'a, str>,
    change_id: u64,
    #[serde(default)]
    prev_change_id: Option<u64>,
    #[serde(default)]
    bids: Rows,
    #[serde(default)]
    asks: Rows,
}

/// `book.{instrument}.none.{depth}.{interval}`, which is not subscribed to: the best levels, all of them each time.
#[derive(Deserialize)]
struct WireWindow<'a> {
    #[serde(rename = "timestamp")]
    time_ms: i64,
    #[serde(borrow, rename = "instrument_name")]
    name: Cow<'a, str>,
    bids: Vec<(Number, Number)>,
    asks: Vec<(Number, Number)>,
}

/// Changes of one side.
#[derive(Default, Debug)]
struct Rows(Vec<Level>);

impl<'de> Deserialize<'de> for Rows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Rows;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of changes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Rows, A::Error> {
                let mut rows = Vec::new();
                while let Some(Row(what, price, size)) = seq.next_element::<Row<'de>>()? {
                    let size = if what == "delete" { Decimal::ZERO } else { size.0 };
                    rows.push(Level { price: price.0, size });
                }
                Ok(Rows(rows))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

/// `new`, `change` or `delete`; price; amount.
#[derive(Deserialize)]
struct Row<'a>(#[serde(borrow)] Cow<'a, str>, Number, Number);

/// `quote.…`, `ticker.…`
#[derive(Deserialize)]
struct Ticker<'a> {
    #[serde(rename = "timestamp")]
    time_ms: i64,
    #[serde(borrow, rename = "instrument_name")]
    name: Cow<'a, str>,
    #[serde(default, rename = "best_bid_price")]
    bid: Option<Number>,
    #[serde(default, rename = "best_bid_amount")]
    bid_size: Option<Number>,
    #[serde(default, rename = "best_ask_price")]
    ask: Option<Number>,
    #[serde(default, rename = "best_ask_amount")]
    ask_size: Option<Number>,
    #[serde(borrow, default)]
    state: Option<Cow<'a, str>>,
}

/// `trades.…`
#[derive(Deserialize, Debug)]
struct WireTrade<'a> {
    #[serde(rename = "timestamp")]
    time_ms: i64,
    #[serde(borrow, rename = "instrument_name")]
    name: Cow<'a, str>,
    price: Number,
    amount: Number,
    /// The taker's.
    #[serde(borrow)]
    direction: Cow<'a, str>,
    #[serde(rename = "trade_seq")]
    sequence: u64,
    #[serde(borrow)]
    trade_id: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Instruments<'a> {
    #[serde(borrow)]
    result: Vec<Listed<'a>>,
}

#[derive(Deserialize)]
struct Listed<'a> {
    #[serde(borrow, rename = "instrument_name")]
    name: Cow<'a, str>,
    tick_size: Number,
    #[serde(default)]
    min_trade_amount: Option<Number>,
    #[serde(borrow, default)]
    base_currency: Cow<'a, str>,
    #[serde(borrow, default)]
    quote_currency: Cow<'a, str>,
    #[serde(default)]
    is_active: Option<bool>,
}

impl Deribit {
    /// For these symbols in normal form; none for whatever comes.
    pub fn new(symbols: &[String]) -> Self {
        let ways = Ways { integrity: Integrity::Sequenced, quotes: QuoteSource::Ticker };
        let roster = Roster::new("deribit", ways, symbols);
        Self { roster, listing: Listing::default(), changes: Vec::new(), list: Resync::default() }
    }

    /// The book of an instrument, by the venue's own name, while it is live.
    pub fn book(&self, native: &str) -> Option<&Book> {
        self.roster.iter().find(|k| k.instrument().native == native && k.is_live()).map(Keeper::book)
    }

    fn keep(&mut self, name: &str, out: &mut Out) -> Option<(&mut Keeper, &mut Option<u64>)> {
        let describe = || self.listing.describe(name, || normal(name));
        let keeper = self.roster.keep(name, describe, out)?;
        let number = keeper.number() as usize;
        if self.changes.len() <= number {
            self.changes.resize(number + 1, None);
        }
        Some((keeper, &mut self.changes[number]))
    }

    fn decode(&mut self, conn: Conn, bytes: &[u8], recv: Time, out: &mut Out) -> Result<(), serde_json::Error> {
        if let Some(frame) = scan::book(bytes, out) {
            self.book_frame(conn, frame, recv, out);
            return Ok(());
        }
        if let Some(trades) = scan::trades(bytes) {
            trades.for_each(|trade| self.trade(conn, &trade, recv, out));
            return Ok(());
        }
        let envelope: Envelope<'_> = serde_json::from_slice(bytes)?;
        if let Some(error) = envelope.error {
            let detail = format!("{}: {}", error.code, error.message);
            out.reports.push(Report { fault: Fault::Refused, native: None, detail });
            return Ok(());
        }
        let Some(params) = envelope.params else { return Ok(()) };
        let params: Params<'_> = serde_json::from_str(params.get())?;
        match &*envelope.method {
            "heartbeat" if params.kind == "test_request" => {
                let text = r#"{"jsonrpc":"2.0","id":8,"method":"public/test","params":{}}"#.to_owned();
                out.commands.push(Command::Send(conn, text));
            }
            "subscription" => {
                let data = params.data.map_or("{}", RawValue::get);
                match params.channel.split('.').next().unwrap_or_default() {
                    // `book.BTC-PERPETUAL.none.20.100ms`; with grouped prices it is another book.
                    "book" if params.channel.split('.').count() > 3 => match window_depth(&params.channel) {
                        Some(depth) => self.window(conn, depth, serde_json::from_str(data)?, recv, out),
                        None => out.pass_over("book"),
                    },
                    "book" => self.book_frame(conn, serde_json::from_str(data)?, recv, out),
                    "quote" | "ticker" => self.ticker(conn, &serde_json::from_str(data)?, recv, out),
                    "trades" => for_each(data, |trade: WireTrade<'_>| self.trade(conn, &trade, recv, out))?,
                    kind => out.pass_over(kind),
                }
            }
            // The one that came is answered by the next.
            "heartbeat" => {}
            method => out.pass_over(method),
        }
        Ok(())
    }

    fn book_frame(&mut self, conn: Conn, frame: WireBook<'_>, recv: Time, out: &mut Out) {
        let stamp = Stamp { ts: Some(Time::from_millis(frame.time_ms)), recv };
        let Some((keeper, last)) = self.keep(&frame.name, out) else { return };
        keeper.with_book();
        keeper.heard(conn, recv, out);
        let levels = Levels { bids: frame.bids.0, asks: frame.asks.0, ..Levels::default() };
        if frame.kind == "snapshot" {
            let live = keeper.snapshot(conn, levels, |_| Ok(()), stamp, out);
            *last = live.then_some(frame.change_id);
        } else if keeper.owner() == Some(conn)
            && let Some(expected) = *last
        {
            if frame.prev_change_id == Some(expected) {
                let live = keeper.update(&levels, |_| Ok(()), stamp, out);
                *last = live.then_some(frame.change_id);
                out.recycle(levels);
            } else if frame.change_id != expected {
                // Not the same one again, which changes nothing.
                *last = None;
                let came = frame.prev_change_id.map_or("none".to_owned(), |id| id.to_string());
                let detail = format!("a change after {came} came, one after {expected} was expected");
                keeper.fault(Wrong { fault: Fault::Gap, detail }, stamp, out);
            }
        }
        self.resync_due(recv, out);
    }

    fn window(&mut self, conn: Conn, depth: usize, window: WireWindow<'_>, recv: Time, out: &mut Out) {
        let stamp = Stamp { ts: Some(Time::from_millis(window.time_ms)), recv };
        let side = |list: &[(Number, Number)]| list.iter().map(|(p, s)| Level { price: p.0, size: s.0 }).collect();
        let levels = Levels { bids: side(&window.bids), asks: side(&window.asks), ..Levels::default() };
        if let Some((keeper, _)) = self.keep(&window.name, out) {
            keeper.window(conn, depth, &levels, stamp, out);
        }
    }

    fn ticker(&mut self, conn: Conn, ticker: &Ticker<'_>, recv: Time, out: &mut Out) {
        let Some((keeper, _)) = self.keep(&ticker.name, out) else { return };
        keeper.heard(conn, recv, out);
        let side = |price: &Option<Number>, size: &Option<Number>| {
            price.as_ref().zip(size.as_ref()).and_then(|(p, s)| side_of_quote(p.0, s.0))
        };
        let (bid, ask) = (side(&ticker.bid, &ticker.bid_size), side(&ticker.ask, &ticker.ask_size));
        keeper.ticker(bid, ask, Stamp { ts: Some(Time::from_millis(ticker.time_ms)), recv }, out);
        if let Some(state) = ticker.state.as_deref() {
            keeper.halt((state != "open").then_some(state), recv, out);
        }
    }

    fn trade(&mut self, conn: Conn, trade: &WireTrade<'_>, recv: Time, out: &mut Out) {
        let Some((keeper, _)) = self.keep(&trade.name, out) else { return };
        keeper.heard(conn, recv, out);
        let told = Trade {
            price: trade.price.0,
            size: trade.amount.0,
            side: match &*trade.direction {
                "buy" => Some(Side::Buy),
                "sell" => Some(Side::Sell),
                _ => None,
            },
            trade_id: trade.trade_id.to_compact_string(),
            reference: None,
        };
        // `trade_seq` rises by one with each trade of an instrument; the id is text at some currencies.
        keeper.trade(trade.sequence, told, Stamp { ts: Some(Time::from_millis(trade.time_ms)), recv }, out);
    }

    /// Subscribes anew the books that are due.
    fn resync_due(&mut self, now: Time, out: &mut Out) {
        for keeper in self.roster.iter_mut().filter(|k| k.resync.is_due(now)) {
            keeper.resync.asked(now);
            let Some(conn) = keeper.owner() else { continue };
            let channel = format!("\"{}\"", book_channel(&keeper.instrument().native));
            for method in ["unsubscribe", "subscribe"] {
                out.commands.push(Command::Send(conn, request(method, &channel)));
            }
        }
    }

    fn listed(&mut self, body: &[u8], recv: Time, out: &mut Out) -> Result<(), serde_json::Error> {
        let list: Instruments<'_> = serde_json::from_slice(body)?;
        self.list.done();
        for listed in &list.result {
            let symbol = match listed.name.split_once("-PERPETUAL") {
                Some(_) => format_compact!("{}-{}-PERP", listed.base_currency, listed.quote_currency),
                None => normal(&listed.name),
            };
            if !self.roster.wants(&symbol) {
                continue;
            }
            let steps = Steps { tick: Some(listed.tick_size.0), lot: listed.min_trade_amount.map(|n| n.0) };
            self.listing.insert(&listed.name, symbol, steps);
            if let Some(keeper) = self.roster.by_native(&listed.name) {
                keeper.describe(steps.tick, steps.lot, out);
                keeper.halt((listed.is_active == Some(false)).then_some("closed"), recv, out);
            }
        }
        Ok(())
    }
}

impl Adapter for Deribit {
    fn rules(&self) -> Rules {
        Rules {
            venue: "deribit",
            websocket_url: WEBSOCKET_URL.to_owned(),
            instruments_url: Some(INSTRUMENTS_URL.to_owned()),
            // The heartbeat that we ask for comes every ten seconds.
            silence_max: Duration::from_secs(25),
            ping_text: None,
            ping_every: Duration::from_secs(30),
            age_max: None,
            sends_per_second_max: 5,
            ticket_url: None,
            symbols_max: None,
        }
    }

    fn opened(&mut self, conn: Conn, _url: &str, now: Time, out: &mut Out) {
        self.roster.report_unusable(out);
        let natives = self.listing.natives(self.roster.wanted(), native, out);
        for native in &natives {
            if let Some((keeper, _)) = self.keep(native, out) {
                keeper.opened(conn, now, out);
                if !keeper.is_live() {
                    keeper.resync.expect(now.plus_millis(RESYNC_ANSWER_MAX_MS));
                }
            }
        }
        if natives.is_empty() {
            return;
        }
        let text = r#"{"jsonrpc":"2.0","id":9,"method":"public/set_heartbeat","params":{"interval":10}}"#.to_owned();
        out.commands.push(Command::Send(conn, text));
        let channels: Vec<String> = natives
            .iter()
            .flat_map(|n| [format!("trades.{n}.100ms"), format!("quote.{n}"), book_channel(n)])
            .map(|channel| format!("\"{channel}\""))
            .collect();
        for part in channels.chunks(CHANNELS_PER_SUBSCRIPTION_MAX) {
            out.commands.push(Command::Send(conn, request("subscribe", &part.join(","))));
        }
    }

    fn frame(&mut self, conn: Conn, bytes: &[u8], recv: Time, out: &mut Out) {
        if !is_object(bytes) || self.decode(conn, bytes, recv, out).is_err() {
            undecodable(bytes, out);
        }
    }

    fn response(&mut self, url: &str, body: &[u8], recv: Time, out: &mut Out) {
        if url.contains("get_instruments") && (!is_object(body) || self.listed(body, recv, out).is_err()) {
            undecodable(body, out);
        }
    }

    fn failed(&mut self, url: &str, now: Time, _out: &mut Out) {
        if url.contains("get_instruments") {
            self.list.request(now);
            self.list.asked(now);
        }
    }

    fn closed(&mut self, conn: Conn, reason: &str, now: Time, out: &mut Out) {
        for keeper in self.roster.iter().filter(|k| k.owner() == Some(conn)) {
            if let Some(last) = self.changes.get_mut(keeper.number() as usize) {
                *last = None;
            }
        }
        self.roster.lost(conn, reason, now, out);
    }

    fn next_timer(&self) -> Option<Time> {
        self.roster.next_resync().into_iter().chain(self.list.at()).min()
    }

    fn timer(&mut self, now: Time, out: &mut Out) {
        self.resync_due(now, out);
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
        self.roster.end(reason, now, out);
    }
}

/// Levels a side of a channel of windows; `None` where it groups prices.
fn window_depth(channel: &str) -> Option<usize> {
    let mut parts = channel.split('.').skip(2);
    parts.next().filter(|group| *group == "none").and(parts.next())?.parse().ok()
}

fn book_channel(native: &str) -> String {
    format!("book.{native}.100ms")
}

fn request(method: &str, channels: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"public/{method}","params":{{"channels":[{channels}]}}}}"#)
}

/// The normal form of a name: `BTC-PERPETUAL` is `BTC-USD-PERP`, `SOL_USDC-PERPETUAL` is `SOL-USDC-PERP`, `BTC_USDC`
/// is `BTC-USDC`; dated futures and options keep their name, in capitals.
fn normal(native: &str) -> CompactString {
    let upper = native.to_ascii_uppercase();
    match upper.strip_suffix("-PERPETUAL") {
        Some(pair) if pair.contains('_') => format_compact!("{}-PERP", pair.replace('_', "-")),
        Some(base) => format_compact!("{base}-USD-PERP"),
        None if upper.contains('-') => upper.into(),
        None => upper.replace('_', "-").into(),
    }
}

/// The name of a normal form, as far as its form alone tells it.
fn native(symbol: &str) -> CompactString {
    match symbol.strip_suffix("-PERP") {
        Some(pair) => match pair.strip_suffix("-USD") {
            Some(base) => format_compact!("{base}-PERPETUAL"),
            None => format_compact!("{}-PERPETUAL", pair.replace('-', "_")),
        },
        // A pair of the spot market has two parts, without digits; `BTC-26SEP25` is a future.
        None if symbol.split('-').count() == 2 && !symbol.bytes().any(|c| c.is_ascii_digit()) => {
            symbol.replace('-', "_").into()
        }
        None => symbol.into(),
    }
}

#[cfg(test)]
#[path = "deribit/tests.rs"]
mod tests;
