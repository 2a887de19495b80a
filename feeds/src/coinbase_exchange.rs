//! Coinbase Exchange (docs.cdp.coinbase.com/exchange/websocket-feed/channels).
//!
//! The channels that need no key have books without a sequence: nothing proves them (`integrity` is `none`), and a lost
//! update shows only if it leaves the book crossed. Trades are counted: ids rise by one for each product, and a heartbeat
//! tells the last one. Where a trade is missing, frames were lost, so that product's book is subscribed anew; and each book
//! now and then all the same ([`REFRESH_EVERY_MS`](crate::resync::REFRESH_EVERY_MS)).

mod scan;
mod wire;

use std::time::Duration;

use compact_str::ToCompactString;
use ticker_market::{Book, Integrity, Levels, Side, Time, Trade};

use self::wire::{BookUpdate, Head, Heartbeat, Match, Product, Snapshot};
use crate::keeper::{Keeper, QuoteSource, Stamp, Ways, Wrong};
use crate::resync::{RESYNC_ANSWER_MAX_MS, Refresh, Resync};
use crate::roster::{Listing, Roster, Steps};
use crate::wire::{is_object, undecodable};
use crate::{Adapter, Command, Conn, Fault, Out, Report, Rules};

/// Products in one subscription.
pub const PRODUCTS_PER_SUBSCRIPTION_MAX: usize = 100;

/// Where the WebSocket is.
pub const WEBSOCKET_URL: &str = "wss://ws-feed.exchange.coinbase.com";

/// Where products are listed.
pub const PRODUCTS_URL: &str = "https://api.exchange.coinbase.com/products";

/// Coinbase Exchange's decoder.
#[derive(Debug)]
pub struct CoinbaseExchange {
    roster: Roster,
    /// What only this venue keeps of an instrument, by its number.
    own: Vec<Own>,
    listing: Listing,
    list: Resync,
    refresh: Refresh,
}

#[derive(Clone, Default, Debug)]
struct Own {
    /// The last trade, and the connection that it came by.
    trade: Option<(Conn, u64)>,
    /// A trade that a heartbeat told of before it came: by the next heartbeat it must be there.
    awaited: Option<u64>,
}

impl CoinbaseExchange {
    /// For these symbols in normal form (which is Coinbase's own); none for whatever comes.
    pub fn new(symbols: &[String]) -> Self {
        let ways = Ways { integrity: Integrity::None, quotes: QuoteSource::Ticker };
        Self {
            roster: Roster::new("coinbase-exchange", ways, symbols),
            own: Vec::new(),
            listing: Listing::default(),
            list: Resync::default(),
            refresh: Refresh::default(),
        }
    }

    /// The book of a product while it is live.
    pub fn book(&self, native: &str) -> Option<&Book> {
        self.roster.iter().find(|k| k.instrument().native == native && k.is_live()).map(|k| k.book())
    }

    fn keep(&mut self, product: &str, out: &mut Out) -> Option<(&mut Keeper, &mut Own)> {
        let describe = || self.listing.describe(product, || product.into());
        let keeper = self.roster.keep(product, describe, out)?;
        let number = keeper.number() as usize;
        if self.own.len() <= number {
            self.own.resize(number + 1, Own::default());
        }
        Some((keeper, &mut self.own[number]))
    }

    fn decode(&mut self, conn: Conn, bytes: &[u8], recv: Time, out: &mut Out) -> Result<(), serde_json::Error> {
        if let Some(update) = scan::update(bytes, out) {
            self.update(conn, update, recv, out);
            self.resync_due(recv, out);
            return Ok(());
        }
        let head: Head<'_> = serde_json::from_slice(bytes)?;
        match &*head.kind {
            "l2update" => self.update(conn, serde_json::from_slice(bytes)?, recv, out),
            "snapshot" => self.snapshot(conn, serde_json::from_slice(bytes)?, recv, out),
            "match" | "last_match" => self.trade(conn, &serde_json::from_slice(bytes)?, recv, out),
            "heartbeat" => self.heartbeat(conn, &serde_json::from_slice(bytes)?, recv, out),
            "error" => {
                let (message, reason) = (head.message.unwrap_or_default(), head.reason.unwrap_or_default());
                let detail = format!("{message}: {reason}");
                out.reports.push(Report { fault: Fault::Refused, native: None, detail });
            }
            "subscriptions" => {}
            // What we did not subscribe to is somebody else's.
            kind => out.pass_over(kind),
        }
        self.resync_due(recv, out);
        Ok(())
    }

    fn snapshot(&mut self, conn: Conn, snapshot: Snapshot<'_>, recv: Time, out: &mut Out) {
        let Some((keeper, _)) = self.keep(&snapshot.product_id, out) else { return };
        keeper.heard(conn, recv, out);
        let levels = Levels { bids: snapshot.bids.0, asks: snapshot.asks.0, ..Levels::default() };
        keeper.snapshot(conn, levels, |_| Ok(()), Stamp { ts: Time::parse_rfc3339(&snapshot.time), recv }, out);
        self.refresh.begin(recv);
    }

    fn update(&mut self, conn: Conn, update: BookUpdate<'_>, recv: Time, out: &mut Out) {
        let Some((keeper, _)) = self.keep(&update.product_id, out) else { return };
        keeper.heard(conn, recv, out);
        let levels = update.changes.0;
        if keeper.owner() == Some(conn) && keeper.is_live() {
            keeper.update(&levels, |_| Ok(()), Stamp { ts: Time::parse_rfc3339(&update.time), recv }, out);
        }
        out.recycle(levels);
    }

    fn trade(&mut self, conn: Conn, trade: &Match<'_>, recv: Time, out: &mut Out) {
        let Some((keeper, own)) = self.keep(&trade.product_id, out) else { return };
        keeper.heard(conn, recv, out);
        let id = trade.trade_id;
        let told = Trade {
            price: trade.price.0,
            size: trade.size.0,
            // The venue gives the maker's.
            side: match &*trade.side {
                "sell" => Some(Side::Buy),
                "buy" => Some(Side::Sell),
                _ => None,
            },
            trade_id: id.to_compact_string(),
            reference: None,
        };
        let stamp = Stamp { ts: Time::parse_rfc3339(&trade.time), recv };
        keeper.trade(id, told, stamp, out);
        // While one connection replaces another, each has a count of its own; the book's counts.
        if keeper.owner() != Some(conn) {
            return;
        }
        match own.trade {
            Some((from, last)) if from == conn && id > last.saturating_add(1) => {
                let detail = format!("trade {id} came, {} was expected", last.saturating_add(1));
                keeper.fault(Wrong { fault: Fault::Gap, detail }, stamp, out);
            }
            Some((from, last)) if from == conn && id <= last => return,
            _ => {}
        }
        own.trade = Some((conn, id));
        own.awaited = own.awaited.filter(|awaited| *awaited > id);
    }

    fn heartbeat(&mut self, conn: Conn, heartbeat: &Heartbeat<'_>, recv: Time, out: &mut Out) {
        let Some((keeper, own)) = self.keep(&heartbeat.product_id, out) else { return };
        keeper.heard(conn, recv, out);
        let told = heartbeat.last_trade_id;
        let Some((_, last)) = own.trade.filter(|(from, last)| *from == conn && told > *last) else { return };
        match own.awaited {
            Some(awaited) => {
                let detail = format!("trade {awaited} did not come, the last was {last}");
                own.trade = Some((conn, told));
                own.awaited = None;
                keeper.fault(Wrong { fault: Fault::Gap, detail }, Stamp::here(recv), out);
            }
            None => own.awaited = Some(told),
        }
    }

    fn products(&mut self, body: &[u8], recv: Time, out: &mut Out) {
        let Ok(products) = serde_json::from_slice::<Vec<Product<'_>>>(body) else { return undecodable(body, out) };
        self.list.done();
        for product in &products {
            if !self.roster.wants(&product.id) {
                continue;
            }
            let steps = Steps { tick: product.quote_increment.map(|n| n.0), lot: product.base_increment.map(|n| n.0) };
            self.listing.insert(&product.id, product.id.to_compact_string(), steps);
            if let Some(keeper) = self.roster.by_native(&product.id) {
                keeper.describe(steps.tick, steps.lot, out);
                keeper.halt(product.trading_disabled.then_some("trading_disabled"), recv, out);
            }
        }
    }

    /// Subscribes anew the books that are due.
    fn resync_due(&mut self, now: Time, out: &mut Out) {
        self.roster.resync_due(now, out, subscribe_anew);
    }
}

impl Adapter for CoinbaseExchange {
    fn rules(&self) -> Rules {
        Rules {
            venue: "coinbase-exchange",
            websocket_url: WEBSOCKET_URL.to_owned(),
            instruments_url: Some(PRODUCTS_URL.to_owned()),
            // A heartbeat comes once a second for each product.
            silence_max: Duration::from_secs(10),
            ping_text: None,
            ping_every: Duration::from_secs(30),
            age_max: None,
            sends_per_second_max: 8,
            ticket_url: None,
            symbols_max: None,
        }
    }

    fn opened(&mut self, conn: Conn, _url: &str, now: Time, out: &mut Out) {
        self.roster.report_unusable(out);
        let products = self.listing.natives(self.roster.wanted(), |symbol| symbol.into(), out);
        for product in &products {
            if let Some((keeper, _)) = self.keep(product, out) {
                keeper.opened(conn, now, out);
                if !keeper.is_live() {
                    keeper.resync.expect(now.plus_millis(RESYNC_ANSWER_MAX_MS));
                }
            }
        }
        for part in products.chunks(PRODUCTS_PER_SUBSCRIPTION_MAX) {
            let list: Vec<String> = part.iter().map(|p| format!("\"{p}\"")).collect();
            out.commands.push(Command::Send(
                conn,
                format!(
                    r#"{{"type":"subscribe","product_ids":[{}],"channels":["heartbeat","matches","level2_batch"]}}"#,
                    list.join(",")
                ),
            ));
        }
    }

    fn frame(&mut self, conn: Conn, bytes: &[u8], recv: Time, out: &mut Out) {
        if !is_object(bytes) || self.decode(conn, bytes, recv, out).is_err() {
            undecodable(bytes, out);
            self.roster.suspect(conn, recv, out);
            self.resync_due(recv, out);
        }
    }

    fn response(&mut self, url: &str, body: &[u8], recv: Time, out: &mut Out) {
        if url.contains("/products") {
            self.products(body, recv, out);
        }
    }

    fn failed(&mut self, url: &str, now: Time, _out: &mut Out) {
        if url.contains("/products") {
            self.list.request(now);
            self.list.asked(now);
        }
    }

    fn closed(&mut self, conn: Conn, reason: &str, now: Time, out: &mut Out) {
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
            out.commands.push(Command::Fetch(PRODUCTS_URL.to_owned()));
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
    let product = &keeper.instrument().native;
    for method in ["unsubscribe", "subscribe"] {
        let text = format!(r#"{{"type":"{method}","product_ids":["{product}"],"channels":["level2_batch"]}}"#);
        out.commands.push(Command::Send(conn, text));
    }
}

#[cfg(test)]
#[path = "coinbase_exchange/tests.rs"]
mod tests;
