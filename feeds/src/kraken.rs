//! Kraken spot, WebSocket v2 (docs.kraken.com/api/docs/websocket-v2/book, /trade, /ticker, /instrument).
//!
//! Every book frame carries a CRC-32 over its ten best levels, after the change and after truncation to the subscribed
//! depth; a book whose checksum differs is subscribed anew, alone. The checksum is blind below ten levels, so deeper
//! books are subscribed anew now and then even while it matches ([`REFRESH_EVERY_MS`](crate::resync::REFRESH_EVERY_MS)).

mod scan;
mod wire;

use std::time::Duration;

use compact_str::{CompactString, ToCompactString, format_compact};
use hashbrown::HashMap;
use ticker_market::{Book, Decimal, Integrity, Level, Levels, Side, Time, Trade};

use self::wire::{Ack, BookFrame, Changes, Envelope, Instruments, SystemStatus, Ticker, WireTrade};
use crate::keeper::{Keeper, QuoteSource, Stamp, Ways, Wrong};
use crate::resync::{RENEWAL_MAX_MS, RESYNC_ANSWER_MAX_MS, Refresh};
use crate::roster::{Roster, Steps};
use crate::wire::{Number, for_each, is_object, side_of_quote, undecodable};
use crate::written::Written;
use crate::{Adapter, Command, Conn, Fault, Out, Report, Rules};

/// Levels a side that are subscribed to when live.
pub const DEPTH: usize = 25;

/// Levels a side where the venue did not say: the default of its `book` channel.
pub const DEPTH_DEFAULT: usize = 10;

/// The depths that the `book` channel has.
pub const DEPTHS: [usize; 5] = [10, 25, 100, 500, 1_000];

/// Levels a side that the checksum covers.
pub const CHECKSUM_LEVELS: usize = 10;

/// Symbols in one subscription.
pub const SYMBOLS_PER_SUBSCRIPTION_MAX: usize = 200;

/// Pairs of the `instrument` channel that are remembered.
pub const PAIRS_MAX: usize = 20_000;

/// Where the WebSocket is.
pub const WEBSOCKET_URL: &str = "wss://ws.kraken.com/v2";

/// Kraken's decoder.
#[derive(Debug)]
pub struct Kraken {
    roster: Roster,
    /// What the checksum of each book is over, by the instrument's number.
    written: Vec<Written>,
    pairs: HashMap<CompactString, Steps>,
    /// The matching engine's state, if it is not `online`.
    halt: Option<CompactString>,
    refresh: Refresh,
}

impl Kraken {
    /// For these symbols in normal form; none for whatever comes.
    pub fn new(symbols: &[String]) -> Self {
        let ways = Ways { integrity: Integrity::Verified, quotes: QuoteSource::Ticker };
        Self {
            roster: Roster::new("kraken", ways, symbols),
            written: Vec::new(),
            pairs: HashMap::new(),
            halt: None,
            refresh: Refresh::default(),
        }
    }

    /// The book of an instrument, by the venue's own name, while it is live.
    pub fn book(&self, native: &str) -> Option<&Book> {
        self.roster.iter().find(|k| k.instrument().native == native && k.is_live()).map(|k| k.book())
    }

    fn decode(&mut self, conn: Conn, bytes: &[u8], recv: Time, out: &mut Out) -> Result<(), serde_json::Error> {
        if let Some(update) = scan::update(bytes, out) {
            self.take_book(conn, false, &update, recv, out);
            out.recycle(update.levels);
            self.resync_due(recv, out);
            return Ok(());
        }
        if let Some(trades) = scan::trades(bytes) {
            trades.for_each(|trade| self.trade(conn, &trade, recv, out));
            return Ok(());
        }
        let envelope: Envelope<'_> = serde_json::from_slice(bytes)?;
        if envelope.channel.is_empty() {
            return self.answer(&envelope, recv, out);
        }
        let data = envelope.data.map_or("null", |raw| raw.get());
        match &*envelope.channel {
            "book" => self.books(conn, &envelope.kind, &serde_json::from_str::<Vec<BookFrame<'_>>>(data)?, recv, out),
            "trade" if envelope.kind == "snapshot" => {
                let mut trades: Vec<WireTrade<'_>> = serde_json::from_str(data)?;
                // The order of the history is not documented; that of the ids is.
                trades.sort_by_key(|trade| trade.trade_id);
                trades.iter().for_each(|trade| self.trade(conn, trade, recv, out));
            }
            "trade" => for_each(data, |trade: WireTrade<'_>| self.trade(conn, &trade, recv, out))?,
            "ticker" => for_each(data, |ticker: Ticker<'_>| self.ticker(conn, &ticker, recv, out))?,
            "instrument" => self.instruments(&serde_json::from_str(data)?, recv, out),
            "status" => {
                if let Some(status) = serde_json::from_str::<Vec<SystemStatus<'_>>>(data)?.last() {
                    self.system(&status.system, recv, out);
                }
            }
            // They say that the connection lives; its owner knows that from any frame.
            "heartbeat" => {}
            // Channels that we did not subscribe to are somebody else's.
            channel => out.pass_over(channel),
        }
        Ok(())
    }

    fn books(&mut self, conn: Conn, kind: &str, frames: &[BookFrame<'_>], recv: Time, out: &mut Out) {
        for frame in frames {
            self.take_book(conn, kind == "snapshot", &frame.changes(), recv, out);
        }
        self.resync_due(recv, out);
    }

    fn take_book(&mut self, conn: Conn, is_snapshot: bool, frame: &Changes<'_>, recv: Time, out: &mut Out) {
        let Some(keeper) = self.roster.keep(frame.symbol, || describe(frame.symbol, &self.pairs), out) else { return };
        let levels = frame.levels.bids.len().max(frame.levels.asks.len());
        if is_snapshot && (keeper.depth() == usize::MAX || levels > keeper.depth()) {
            // A recording that begins after the acknowledgement.
            keeper.set_depth(DEPTHS.into_iter().find(|depth| *depth >= levels).unwrap_or(levels));
        }
        keeper.heard(conn, recv, out);
        let stamp = Stamp { ts: Time::parse_rfc3339(frame.timestamp), recv };
        let known = [keeper.instrument().tick_size, keeper.instrument().lot_size];
        let number = keeper.number() as usize;
        if self.written.len() <= number {
            self.written.resize_with(number + 1, written);
        }
        let written = &mut self.written[number];
        if is_snapshot {
            written.forget();
        }
        let prove = |book: &Book| {
            written.follow(book, &frame.levels);
            prove(written, book, known, frame.checksum)
        };
        if is_snapshot {
            if self.halt.is_some() {
                keeper.halt(self.halt.as_deref(), recv, out);
            }
            keeper.snapshot(conn, frame.levels.clone(), prove, stamp, out);
            self.refresh.begin(recv);
        } else if keeper.owner() == Some(conn) {
            keeper.update(&frame.levels, prove, stamp, out);
        }
    }

    fn trade(&mut self, conn: Conn, trade: &WireTrade<'_>, recv: Time, out: &mut Out) {
        let Some(keeper) = self.roster.keep(&trade.symbol, || describe(&trade.symbol, &self.pairs), out) else {
            return;
        };
        keeper.heard(conn, recv, out);
        let side = match &*trade.side {
            "buy" => Some(Side::Buy),
            "sell" => Some(Side::Sell),
            _ => None,
        };
        let told = Trade {
            price: trade.price.0,
            size: trade.qty.0,
            side,
            trade_id: trade.trade_id.to_compact_string(),
            reference: None,
        };
        keeper.trade(trade.trade_id, told, Stamp { ts: Time::parse_rfc3339(&trade.timestamp), recv }, out);
    }

    fn ticker(&mut self, conn: Conn, ticker: &Ticker<'_>, recv: Time, out: &mut Out) {
        let Some(keeper) = self.roster.keep(&ticker.symbol, || describe(&ticker.symbol, &self.pairs), out) else {
            return;
        };
        keeper.heard(conn, recv, out);
        let side = |price: Option<Number>, size: Option<Number>| side_of_quote(price?.0, size?.0);
        let stamp = Stamp { ts: Time::parse_rfc3339(&ticker.timestamp), recv };
        keeper.ticker(side(ticker.bid, ticker.bid_qty), side(ticker.ask, ticker.ask_qty), stamp, out);
    }

    fn instruments(&mut self, list: &Instruments<'_>, recv: Time, out: &mut Out) {
        for pair in &list.pairs {
            if !self.roster.wants(&normal(&pair.symbol)) {
                continue;
            }
            let steps = Steps { tick: pair.price_increment.map(|n| n.0), lot: pair.qty_increment.map(|n| n.0) };
            if self.pairs.len() < PAIRS_MAX || self.pairs.contains_key(&*pair.symbol) {
                self.pairs.insert(pair.symbol.to_compact_string(), steps);
            }
            let engine = self.halt.clone();
            if let Some(keeper) = self.roster.by_native(&pair.symbol) {
                keeper.describe(steps.tick, steps.lot, out);
                keeper.halt(halt_of(&pair.status).or(engine.as_deref()), recv, out);
            }
        }
    }

    fn system(&mut self, state: &str, recv: Time, out: &mut Out) {
        self.halt = halt_of(state).map(CompactString::from);
        for keeper in self.roster.iter_mut() {
            keeper.halt(self.halt.as_deref(), recv, out);
        }
    }

    /// The answer to a method of ours, or (in a recording) of somebody else.
    fn answer(&mut self, envelope: &Envelope<'_>, recv: Time, out: &mut Out) -> Result<(), serde_json::Error> {
        if envelope.success == Some(false) {
            let error = envelope.error.as_deref().unwrap_or("no reason given");
            let said = error.to_ascii_lowercase();
            let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
            let detail = format!("{}: {error}", envelope.method);
            out.reports.push(Report { fault: Fault::Refused, native: envelope.symbol.clone(), detail });
            if envelope.method == "subscribe"
                && !has(&["already subscribed"])
                && let Some(keeper) = envelope.symbol.as_deref().and_then(|s| self.roster.by_native(s))
                && !keeper.is_live()
            {
                // What is wrong for now (a limit, a service that is away) is asked for again, at growing distances.
                if has(&["not supported", "not in iso", "invalid", "unknown"]) {
                    keeper.end("refused", recv, out);
                } else {
                    keeper.resync.request(recv);
                }
            }
            return Ok(());
        }
        let Some(ack) = envelope.result.map(|raw| serde_json::from_str::<Ack>(raw.get())) else { return Ok(()) };
        // Answers to other methods (`ping`, `pong`) have results of other forms.
        let (Ok(ack), "subscribe" | "unsubscribe") = (ack, &*envelope.method) else { return Ok(()) };
        let (Some(symbol), "book") = (ack.symbol.as_deref(), ack.channel.as_str()) else { return Ok(()) };
        let Some(keeper) = self.roster.keep(symbol, || describe(symbol, &self.pairs), out) else { return Ok(()) };
        if envelope.method == "subscribe" {
            keeper.set_depth(ack.depth.unwrap_or(DEPTH_DEFAULT));
        } else if keeper.is_live() {
            // A renewal: what is shown stays good for the moment until the next snapshot, but not for longer.
            keeper.resync.expect(recv.plus_millis(RENEWAL_MAX_MS));
        }
        Ok(())
    }

    /// Subscribes anew the books that are due.
    fn resync_due(&mut self, now: Time, out: &mut Out) {
        self.roster.resync_due(now, out, subscribe_anew);
    }

    /// Subscribes anew one live book that is deeper than its checksum, in turn.
    fn refresh_due(&mut self, now: Time, out: &mut Out) {
        let is_deeper = |keeper: &Keeper| keeper.depth() > CHECKSUM_LEVELS;
        self.roster.refresh_due(&mut self.refresh, now, out, is_deeper, subscribe_anew);
    }
}

impl Adapter for Kraken {
    fn rules(&self) -> Rules {
        Rules {
            venue: "kraken",
            websocket_url: WEBSOCKET_URL.to_owned(),
            // The `instrument` channel tells the steps in band.
            instruments_url: None,
            // A heartbeat comes about once a second; the documents advise five.
            silence_max: Duration::from_secs(5),
            ping_text: None,
            ping_every: Duration::from_secs(30),
            age_max: None,
            sends_per_second_max: 10,
            ticket_url: None,
            symbols_max: None,
        }
    }

    fn opened(&mut self, conn: Conn, _url: &str, now: Time, out: &mut Out) {
        self.roster.report_unusable(out);
        let wanted: Vec<CompactString> = self.roster.wanted().to_vec();
        for symbol in &wanted {
            let native = native(symbol);
            if let Some(keeper) = self.roster.keep(&native, || describe(&native, &self.pairs), out) {
                keeper.set_depth(DEPTH);
                keeper.opened(conn, now, out);
                keeper.resync.expect(now.plus_millis(RESYNC_ANSWER_MAX_MS));
            }
        }
        if wanted.is_empty() {
            return;
        }
        out.commands
            .push(Command::Send(conn, r#"{"method":"subscribe","params":{"channel":"instrument"}}"#.to_owned()));
        for part in wanted.chunks(SYMBOLS_PER_SUBSCRIPTION_MAX) {
            let list: Vec<String> = part.iter().map(|s| format!("\"{}\"", native(s))).collect();
            let list = list.join(",");
            for params in [
                format!(r#""channel":"book","depth":{DEPTH}"#),
                r#""channel":"trade","snapshot":true"#.to_owned(),
                r#""channel":"ticker","event_trigger":"bbo""#.to_owned(),
            ] {
                let text = format!(r#"{{"method":"subscribe","params":{{{params},"symbol":[{list}]}}}}"#);
                out.commands.push(Command::Send(conn, text));
            }
        }
    }

    fn frame(&mut self, conn: Conn, bytes: &[u8], recv: Time, out: &mut Out) {
        if !is_object(bytes) || self.decode(conn, bytes, recv, out).is_err() {
            undecodable(bytes, out);
        }
    }

    fn response(&mut self, _url: &str, _body: &[u8], _recv: Time, _out: &mut Out) {}

    fn failed(&mut self, _url: &str, _now: Time, _out: &mut Out) {}

    fn closed(&mut self, conn: Conn, reason: &str, now: Time, out: &mut Out) {
        self.roster.lost(conn, reason, now, out);
    }

    fn next_timer(&self) -> Option<Time> {
        self.roster.next_resync().into_iter().chain(self.refresh.at()).min()
    }

    fn timer(&mut self, now: Time, out: &mut Out) {
        self.resync_due(now, out);
        self.refresh_due(now, out);
    }

    fn retell(&self, now: Time, out: &mut Out) {
        self.roster.retell(now, out);
    }

    fn end(&mut self, reason: &str, now: Time, out: &mut Out) {
        self.refresh.end();
        self.roster.end(reason, now, out);
    }
}

fn subscribe_anew(conn: Conn, keeper: &Keeper, out: &mut Out) {
    let (native, depth) = (&keeper.instrument().native, keeper.depth());
    for method in ["unsubscribe", "subscribe"] {
        let text =
            format!(r#"{{"method":"{method}","params":{{"channel":"book","depth":{depth},"symbol":["{native}"]}}}}"#);
        out.commands.push(Command::Send(conn, text));
    }
}

/// `BTC/USD` is `BTC-USD` in normal form.
fn normal(native: &str) -> CompactString {
    native.chars().map(|c| if c == '/' { '-' } else { c.to_ascii_uppercase() }).collect()
}

fn native(symbol: &str) -> CompactString {
    match symbol.split_once('-') {
        Some((base, quote)) => format_compact!("{base}/{quote}"),
        None => symbol.into(),
    }
}

fn describe(native: &str, pairs: &HashMap<CompactString, Steps>) -> (CompactString, Steps) {
    (normal(native), pairs.get(native).copied().unwrap_or_default())
}

/// Is nothing matched in this state? (docs.kraken.com/api/docs/websocket-v2/status: `online`, `maintenance`,
/// `cancel_only`, `post_only`, and of a pair also `limit_only`, `reduce_only`, `delisted`, `work_in_progress`.)
fn halt_of(state: &str) -> Option<&str> {
    matches!(state, "maintenance" | "cancel_only" | "post_only" | "delisted" | "work_in_progress").then_some(state)
}

fn prove(written: &mut Written, book: &Book, steps: [Option<Decimal>; 2], expected: u32) -> Result<(), Wrong> {
    let found = written.crc_by_side();
    // The venue writes every digit of the pair's precision, and its documents' examples leave out zeros at the end.
    if found == expected || hash(book, precision(book, steps)) == expected {
        return Ok(());
    }
    Err(Wrong { fault: Fault::Checksum, detail: format!("checksum {found}, expected {expected}") })
}

/// The venue's checksum (docs.kraken.com/api/docs/guides/spot-ws-book-v2): CRC-32 over the ten best asks, then the ten
/// best bids, price and size of each without point and leading zeros.
pub fn checksum(book: &Book) -> u32 {
    let mut written = written();
    written.follow(book, &Levels::default());
    written.crc_by_side()
}

fn written() -> Written {
    Written::new(CHECKSUM_LEVELS, |text, _, level| put_level(text, level))
}

/// Digits after the point of sizes, where the pair is not known: `qty_precision` of nearly all.
const SIZE_DIGITS: u32 = 8;

/// Digits after the point of the prices and of the sizes, where some of them leave out zeros: those of the steps, and of
/// the level that has the most.
fn precision(book: &Book, [tick, lot]: [Option<Decimal>; 2]) -> [u32; 2] {
    let steps = [tick.map_or(0, |tick| tick.scale()), lot.map_or(SIZE_DIGITS, |lot| lot.scale())];
    book.asks()
        .chain(book.bids())
        .fold(steps, |[price, size], level| [price.max(level.price.scale()), size.max(level.size.scale())])
}

/// Over so many digits after the point.
fn hash(book: &Book, [price, size]: [u32; 2]) -> u32 {
    let mut text = Vec::new();
    for level in book.asks().take(CHECKSUM_LEVELS).chain(book.bids().take(CHECKSUM_LEVELS)) {
        let mut level = *level;
        level.price.rescale(price);
        level.size.rescale(size);
        put_level(&mut text, &level);
    }
    crc32fast::hash(&text)
}

fn put_level(text: &mut Vec<u8>, level: &Level) {
    let mut digits = [0; 2 * DIGITS_MAX];
    let price = put_digits(&mut digits, level.price);
    let length = price + put_digits(&mut digits[price..], level.size);
    text.extend_from_slice(&digits[..length]);
}

/// Digits of a [`Decimal`], at most.
const DIGITS_MAX: usize = 29;

/// The wire's digits without point and leading zeros are those of the mantissa, because the scale is the wire's. Returns
/// how many there are.
fn put_digits(text: &mut [u8], value: Decimal) -> usize {
    let number = value.mantissa().unsigned_abs();
    match (u64::try_from(number), text.first_chunk_mut::<16>()) {
        (Ok(number @ ..10_000_000_000_000_000), Some(text)) => {
            let (high, low) = (number / 100_000_000, number % 100_000_000);
            let digits = u128::from(eight_digits(low)) << 64 | u128::from(eight_digits(high));
            let zeros = digits.trailing_zeros() / 8;
            let ascii = digits.checked_shr(8 * zeros).unwrap_or(0) | u128::from_ne_bytes([b'0'; 16]);
            *text = ascii.to_le_bytes();
            16 - zeros as usize
        }
        _ => put_many_digits(text, number),
    }
}

/// The digits of a number below a hundred million, a byte each, the first in the lowest: fours, then pairs, then all.
fn eight_digits(number: u64) -> u64 {
    let fours = (number / 10_000) | ((number % 10_000) << 32);
    let hundreds = ((fours * 10_486) >> 20) & 0x0000_007f_0000_007f;
    let pairs = hundreds | ((fours - 100 * hundreds) << 16);
    let tens = ((pairs * 103) >> 10) & 0x000f_000f_000f_000f;
    tens | ((pairs - 10 * tens) << 8)
}

fn put_many_digits(text: &mut [u8], mut rest: u128) -> usize {
    let mut digits = [0u8; DIGITS_MAX];
    let mut at = digits.len();
    while rest > 0 {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let length = digits.len() - at;
    text[..length].copy_from_slice(&digits[at..]);
    length
}

#[cfg(test)]
#[path = "kraken/tests.rs"]
mod tests;
