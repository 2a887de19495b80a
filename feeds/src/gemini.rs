//! Gemini (developer.gemini.com/websocket/streams), and its archived Market Data v2, which recordings still hold.
//!
//! The connection asks for snapshots (`?snapshot=-1`), so that the first depth frame of a subscription is the whole book.
//! Each later one names the one before it: `U` is the last `u`. The ids are shared by all symbols, so a gap shows by that
//! alone. A snapshot carries no mark; a book is subscribed anew only after the venue confirmed that the old subscription
//! is gone, so that the next frame is the snapshot.
//!
//! Market Data v2 has no sequence: nothing proves its books.

mod scan;
mod wire;

use std::time::Duration;

use compact_str::{CompactString, ToCompactString, format_compact};
use hashbrown::HashMap;
use ticker_market::{Book, Integrity, Levels, Side, Time, Trade};

use self::wire::{BookTicker, DepthUpdate, Details, Head, L2Updates, RequestId, V2Trade, WireTrade};
use crate::keeper::{Keeper, QuoteSource, Stamp, Ways, Wrong};
use crate::resync::{Budget, RESYNC_ANSWER_MAX_MS, Resync};
use crate::roster::{Listing, Roster, Steps};
use crate::symbols::{by_suffix, joined};
use crate::wire::{is_object, side_of_quote, undecodable};
use crate::{Adapter, Command, Conn, Fault, Out, Report, Rules};

/// Streams in one subscription.
pub const STREAMS_PER_SUBSCRIPTION_MAX: usize = 100;

/// Details of symbols fetched in any minute, at most: half of what an address may.
pub const DETAILS_PER_MINUTE_MAX: usize = 60;

/// Connections whose subscriptions are remembered for each symbol: one replaces another, so there are two at most.
pub const CONNECTIONS_MAX: usize = 4;

/// Where the WebSocket is. Without the slash a client would ask for the query alone, which is no path.
pub const WEBSOCKET_URL: &str = "wss://ws.gemini.com/?snapshot=-1";

const DETAILS_URL: &str = "https://api.gemini.com/v1/symbols/details/";

/// Gemini's decoder.
#[derive(Debug)]
pub struct Gemini {
    roster: Roster,
    /// Market Data v2 came.
    is_archived: bool,
    /// What only Gemini keeps of an instrument, by its number.
    own: Vec<Own>,
    listing: Listing,
    /// Connections that begin with snapshots.
    conns: HashMap<Conn, bool>,
    /// The symbols whose details are still to be fetched: the venue gives them one by one.
    details: Vec<CompactString>,
    details_due: Resync,
    budget: Budget,
    requests: u64,
}

#[derive(Clone, Default, Debug)]
struct Own {
    /// The connections whose snapshot came; what they send now continues it.
    joined: Vec<Conn>,
    /// The request that ends the old subscription, and its connection.
    unsubscribing: Option<(Conn, u64)>,
    /// The last `u` of the book.
    last: u64,
    /// `u` of the last `bookTicker`: while one connection replaces another, both deliver.
    ticker_update: u64,
}

impl Gemini {
    /// For these symbols in normal form; none for whatever comes.
    pub fn new(symbols: &[String]) -> Self {
        let ways = Ways { integrity: Integrity::Sequenced, quotes: QuoteSource::Ticker };
        let roster = Roster::new("gemini", ways, symbols);
        Self {
            details: roster.wanted().iter().rev().map(|symbol| joined(symbol)).collect(),
            roster,
            is_archived: false,
            own: Vec::new(),
            listing: Listing::default(),
            conns: HashMap::new(),
            details_due: Resync::default(),
            budget: Budget::new(DETAILS_PER_MINUTE_MAX, 60_000),
            requests: 0,
        }
    }

    /// The book of an instrument, by the venue's own name, while it is live.
    pub fn book(&self, native: &str) -> Option<&Book> {
        self.roster.iter().find(|k| k.instrument().native == native && k.is_live()).map(|k| k.book())
    }

    /// Names come in small letters, and in Market Data v2 in large ones: those are kept.
    fn keep(&mut self, native: &str, out: &mut Out) -> Option<(&mut Keeper, &mut Own)> {
        let upper: CompactString;
        let native = if native.bytes().any(|c| c.is_ascii_lowercase()) {
            upper = native.chars().map(|c| c.to_ascii_uppercase()).collect();
            upper.as_str()
        } else {
            native
        };
        let describe = || self.listing.describe(native, || normal(native));
        let keeper = self.roster.keep(native, describe, out)?;
        let number = keeper.number() as usize;
        if self.own.len() <= number {
            self.own.resize(number + 1, Own::default());
        }
        Some((keeper, &mut self.own[number]))
    }

    fn decode(&mut self, conn: Conn, bytes: &[u8], recv: Time, out: &mut Out) -> Result<(), serde_json::Error> {
        match scan::update(bytes, out) {
            Some(scan::Update::Depth(update)) => {
                self.depth(conn, update, recv, out);
                return Ok(());
            }
            Some(scan::Update::L2(updates)) => {
                self.l2_updates(conn, updates, recv, out);
                return Ok(());
            }
            None => {}
        }
        let head: Head<'_> = serde_json::from_slice(bytes)?;
        match (&*head.e, &*head.kind) {
            ("depthUpdate", _) => self.depth(conn, serde_json::from_slice(bytes)?, recv, out),
            ("", "l2_updates") => self.l2_updates(conn, serde_json::from_slice(bytes)?, recv, out),
            ("", "trade") => self.v2_trade(conn, &serde_json::from_slice(bytes)?, recv, out),
            ("", "") if head.id.is_some() => self.answer(conn, head, recv, out),
            ("", "") if head.t.is_some() => self.trade(conn, &serde_json::from_slice(bytes)?, recv, out),
            ("", "") if head.u.is_some() => self.book_ticker(conn, &serde_json::from_slice(bytes)?, recv, out),
            ("", "heartbeat") => {}
            // Contract states, and what we did not subscribe to.
            ("", kind) => out.pass_over(kind),
            (event, _) => out.pass_over(event),
        }
        Ok(())
    }

    fn depth(&mut self, conn: Conn, update: DepthUpdate<'_>, recv: Time, out: &mut Out) {
        let whole = self.conns.get(&conn).copied().unwrap_or(true);
        let Some((keeper, own)) = self.keep(&update.s, out) else { return };
        keeper.heard(conn, recv, out);
        let stamp = Stamp { ts: Some(Time(update.event_ns)), recv };
        let levels = Levels { bids: update.b.0, asks: update.a.0, ..Levels::default() };
        if !own.joined.contains(&conn) {
            if whole {
                if own.joined.len() >= CONNECTIONS_MAX {
                    own.joined.remove(0);
                }
                own.joined.push(conn);
                own.last = update.last;
                keeper.snapshot(conn, levels, |_| Ok(()), stamp, out);
            }
        } else if keeper.owner() == Some(conn) && keeper.is_live() && update.last > own.last {
            let last = std::mem::replace(&mut own.last, update.last);
            // Sizes are absolute, so what is there twice is right.
            if update.before <= last {
                keeper.update(&levels, |_| Ok(()), stamp, out);
                out.recycle(levels);
            } else {
                let detail = format!("what follows {} came, the book is at {last}", update.before);
                keeper.fault(Wrong { fault: Fault::Gap, detail }, stamp, out);
            }
        }
        self.resync_due(recv, out);
    }

    fn book_ticker(&mut self, conn: Conn, ticker: &BookTicker<'_>, recv: Time, out: &mut Out) {
        let Some((keeper, own)) = self.keep(&ticker.s, out) else { return };
        keeper.heard(conn, recv, out);
        if ticker.u < own.ticker_update {
            return;
        }
        own.ticker_update = ticker.u;
        let bid = ticker.bid.0.zip(ticker.bid_size.0).and_then(|(price, size)| side_of_quote(price, size));
        let ask = ticker.ask.0.zip(ticker.ask_size.0).and_then(|(price, size)| side_of_quote(price, size));
        keeper.ticker(bid, ask, Stamp { ts: Some(Time(ticker.event_ns)), recv }, out);
    }

    fn trade(&mut self, conn: Conn, trade: &WireTrade<'_>, recv: Time, out: &mut Out) {
        let Some((keeper, _)) = self.keep(&trade.s, out) else { return };
        keeper.heard(conn, recv, out);
        let told = Trade {
            price: trade.p.0,
            size: trade.q.0,
            side: Some(if trade.m { Side::Sell } else { Side::Buy }),
            trade_id: trade.t.to_compact_string(),
            reference: None,
        };
        keeper.trade(trade.t, told, Stamp { ts: Some(Time(trade.event_ns)), recv }, out);
    }

    fn l2_updates(&mut self, conn: Conn, mut updates: L2Updates<'_>, recv: Time, out: &mut Out) {
        self.is_archived = true;
        let Some((keeper, _)) = self.keep(&updates.symbol, out) else { return };
        keeper.set_integrity(Integrity::None);
        keeper.heard(conn, recv, out);
        let levels = updates.changes.0;
        match &mut updates.trades {
            Some(trades) => {
                keeper.snapshot(conn, levels, |_| Ok(()), Stamp::here(recv), out);
                trades.sort_by_key(|trade| trade.event_id);
                for trade in trades {
                    self.v2_trade(conn, trade, recv, out);
                }
            }
            None => {
                let ours = keeper.owner() == Some(conn) && keeper.is_live();
                if ours && !keeper.update(&levels, |_| Ok(()), Stamp::here(recv), out) {
                    // The archived protocol has no way to ask for one book again that could be told from its updates.
                    keeper.resync.done();
                    out.commands.push(Command::Reconnect(conn, Fault::Crossed.as_str()));
                }
                out.recycle(levels);
            }
        }
    }

    fn v2_trade(&mut self, conn: Conn, trade: &V2Trade<'_>, recv: Time, out: &mut Out) {
        let Some((keeper, _)) = self.keep(&trade.symbol, out) else { return };
        keeper.heard(conn, recv, out);
        let told = Trade {
            price: trade.price.0,
            size: trade.quantity.0,
            side: match &*trade.side {
                "buy" => Some(Side::Buy),
                "sell" => Some(Side::Sell),
                _ => None,
            },
            trade_id: trade.event_id.to_compact_string(),
            reference: None,
        };
        keeper.trade(trade.event_id, told, Stamp { ts: Some(Time::from_millis(trade.timestamp)), recv }, out);
    }

    /// The answer to a method of ours.
    fn answer(&mut self, conn: Conn, head: Head<'_>, recv: Time, out: &mut Out) {
        if let Some(error) = head.error {
            let detail = format!("{}: {}", error.code, error.msg);
            out.reports.push(Report { fault: Fault::Refused, native: None, detail });
        }
        let id = match head.id {
            Some(RequestId::Number(id)) => Some(id),
            Some(RequestId::Text(id)) => id.parse().ok(),
            None => None,
        };
        let asked = self.own.iter().position(|own| id.is_some_and(|id| own.unsubscribing == Some((conn, id))));
        let Some(number) = asked else { return };
        // Refused or not, the old subscription is gone: the next frame begins the new one.
        self.own[number].unsubscribing = None;
        self.own[number].joined.retain(|other| *other != conn);
        self.requests += 1;
        if let Some(keeper) = self.roster.at(number) {
            keeper.resync.expect(recv.plus_millis(RESYNC_ANSWER_MAX_MS));
            out.commands.push(Command::Send(conn, depth(&keeper.instrument().native, "subscribe", self.requests)));
        }
    }

    /// Ends the subscriptions of the books that are due, to begin them anew.
    fn resync_due(&mut self, now: Time, out: &mut Out) {
        for keeper in self.roster.iter_mut().filter(|k| k.resync.is_due(now)) {
            keeper.resync.asked(now);
            let Some(conn) = keeper.owner() else { continue };
            self.requests += 1;
            self.own[keeper.number() as usize].unsubscribing = Some((conn, self.requests));
            out.commands.push(Command::Send(conn, depth(&keeper.instrument().native, "unsubscribe", self.requests)));
        }
    }

    /// Fetches what the list says of one symbol after the other.
    fn details_due(&mut self, now: Time, out: &mut Out) {
        if self.details_due.is_due(now)
            && let Some(native) = self.details.last()
            && self.budget.take(now)
        {
            self.details_due.asked(now);
            out.commands.push(Command::Fetch(format!("{DETAILS_URL}{}", native.to_ascii_lowercase())));
        }
    }
}

impl Adapter for Gemini {
    fn rules(&self) -> Rules {
        let first = self.details.last();
        Rules {
            venue: "gemini",
            websocket_url: WEBSOCKET_URL.to_owned(),
            instruments_url: first.map(|native| format!("{DETAILS_URL}{}", native.to_ascii_lowercase())),
            silence_max: Duration::from_secs(60),
            ping_text: Some(r#"{"id":"0","method":"ping"}"#),
            ping_every: Duration::from_secs(20),
            age_max: None,
            sends_per_second_max: 10,
            ticket_url: None,
            symbols_max: None,
        }
    }

    fn opened(&mut self, conn: Conn, url: &str, now: Time, out: &mut Out) {
        self.roster.report_unusable(out);
        self.conns.insert(conn, !url.contains("ws.gemini.com") || url.contains("snapshot=-1"));
        let natives: Vec<CompactString> = self.roster.wanted().iter().map(|symbol| joined(symbol)).collect();
        for native in &natives {
            if let Some((keeper, _)) = self.keep(native, out) {
                keeper.opened(conn, now, out);
                keeper.resync.expect(now.plus_millis(RESYNC_ANSWER_MAX_MS));
            }
        }
        if !self.details.is_empty() && self.details_due.at().is_none() {
            self.details_due.request(now);
        }
        let streams: Vec<String> = ["bookTicker", "trade", "depth@100ms"]
            .iter()
            .flat_map(|stream| natives.iter().map(move |n| format!("\"{}@{stream}\"", n.to_ascii_lowercase())))
            .collect();
        for part in streams.chunks(STREAMS_PER_SUBSCRIPTION_MAX) {
            self.requests += 1;
            let (id, list) = (self.requests, part.join(","));
            out.commands
                .push(Command::Send(conn, format!(r#"{{"id":"{id}","method":"subscribe","params":[{list}]}}"#)));
        }
    }

    fn frame(&mut self, conn: Conn, bytes: &[u8], recv: Time, out: &mut Out) {
        if !is_object(bytes) || self.decode(conn, bytes, recv, out).is_err() {
            undecodable(bytes, out);
            if self.is_archived {
                // Without a sequence nothing later would show what it changed.
                self.roster.suspect(conn, recv, out);
            }
        }
    }

    fn response(&mut self, url: &str, body: &[u8], recv: Time, out: &mut Out) {
        if !url.contains("/symbols/details/") {
            return;
        }
        let Ok(details) = serde_json::from_slice::<Details<'_>>(body) else { return undecodable(body, out) };
        let native = details.symbol.to_ascii_uppercase();
        let steps = Steps { tick: Some(details.quote_increment.0), lot: Some(details.tick_size.0) };
        let symbol = match (&*details.base_currency, &*details.quote_currency, &*details.product_type) {
            ("", _, _) | (_, "", _) => normal(&native),
            (base, quote, "swap") => format_compact!("{base}-{quote}-PERP"),
            (base, quote, _) => format_compact!("{base}-{quote}"),
        };
        self.listing.insert(&native, symbol, steps);
        self.details.retain(|other| *other != native);
        self.details_due.done();
        if !self.details.is_empty() {
            self.details_due.expect(recv);
        }
        if let Some(keeper) = self.roster.by_native(&native) {
            keeper.describe(steps.tick, steps.lot, out);
            keeper.halt((details.status == "closed").then_some("halt"), recv, out);
        }
        self.details_due(recv, out);
    }

    fn failed(&mut self, url: &str, now: Time, _out: &mut Out) {
        if url.contains("/symbols/details/") {
            self.details_due.request(now);
        }
    }

    fn closed(&mut self, conn: Conn, reason: &str, now: Time, out: &mut Out) {
        self.conns.remove(&conn);
        for own in &mut self.own {
            own.joined.retain(|other| *other != conn);
        }
        self.roster.lost(conn, reason, now, out);
    }

    fn next_timer(&self) -> Option<Time> {
        let details = self.details_due.at().map(|at| self.budget.earliest(at));
        self.roster.next_resync().into_iter().chain(details).min()
    }

    fn timer(&mut self, now: Time, out: &mut Out) {
        self.resync_due(now, out);
        self.details_due(now, out);
    }

    fn retell(&self, now: Time, out: &mut Out) {
        self.roster.retell(now, out);
    }

    fn end(&mut self, reason: &str, now: Time, out: &mut Out) {
        self.details_due.done();
        self.roster.end(reason, now, out);
    }
}

fn depth(native: &str, method: &str, id: u64) -> String {
    format!(r#"{{"id":"{id}","method":"{method}","params":["{}@depth@100ms"]}}"#, native.to_ascii_lowercase())
}

/// The normal form of a name in large letters: `BTCUSD`, `BTCRLUSD`, `BTCGUSDPERP`.
fn normal(native: &str) -> CompactString {
    let pair = |pair: &str| {
        // Dollar coins that elsewhere would be a base that ends with these letters.
        let dollar = ["RLUSD", "GUSD"].into_iter().find_map(|q| Some((pair.strip_suffix(q)?, q)));
        match dollar {
            Some((base, quote)) if !base.is_empty() => format_compact!("{base}-{quote}"),
            _ => by_suffix(pair),
        }
    };
    match native.strip_suffix("PERP") {
        Some(name) => format_compact!("{}-PERP", pair(name)),
        None => pair(native),
    }
}

#[cfg(test)]
#[path = "gemini/tests.rs"]
mod tests;
