//! Coinbase Advanced Trade (docs.cdp.coinbase.com/coinbase-app/advanced-trade-apis/websocket/websocket-channels).
//!
//! `sequence_num` rises by one with each frame of a connection, acknowledgements and heartbeats included, so that a gap
//! suspects every book on it: the connection is made anew, whose snapshots fill in the books and the missed trades.
//!
//! The `ticker` channel speaks only when there is a trade; between trades the best prices of the book are the news.

mod scan;
mod wire;

use std::time::Duration;

use compact_str::{CompactString, ToCompactString};
use hashbrown::HashMap;
use ticker_market::{Book, Integrity, Levels, Side, Time, Trade};

use self::wire::{BookEvent, Envelope, Products, SubscriptionsEvent, Ticker, TickerEvent, TradesEvent, WireTrade};
use crate::keeper::{QuoteSource, Stamp, Ways};
use crate::resync::{RESYNC_ANSWER_MAX_MS, Resync};
use crate::roster::{Roster, Steps};
use crate::sequence::{Place, Sequence};
use crate::wire::{is_object, side_of_quote, undecodable};
use crate::{Adapter, Command, Conn, Fault, Out, Report, Rules};

/// Products of the REST list that are remembered.
pub const PRODUCTS_MAX: usize = 20_000;

/// Products in one subscription.
pub const PRODUCTS_PER_SUBSCRIPTION_MAX: usize = 100;

/// Where the WebSocket is.
pub const WEBSOCKET_URL: &str = "wss://advanced-trade-ws.coinbase.com";

/// Where products are listed.
pub const PRODUCTS_URL: &str = "https://api.coinbase.com/api/v3/brokerage/market/products";

/// Coinbase's decoder.
#[derive(Debug)]
pub struct Coinbase {
    roster: Roster,
    products: HashMap<CompactString, Steps>,
    /// Once for all connections, because a new one has a new name.
    reconnect: Resync,
    list: Resync,
    conns: HashMap<Conn, Sequence>,
}

impl Coinbase {
    /// For these symbols in normal form (which is Coinbase's own); none for whatever comes.
    pub fn new(symbols: &[String]) -> Self {
        let ways = Ways { integrity: Integrity::Sequenced, quotes: QuoteSource::TickerAndBook };
        Self {
            roster: Roster::new("coinbase", ways, symbols),
            products: HashMap::new(),
            reconnect: Resync::default(),
            list: Resync::default(),
            conns: HashMap::new(),
        }
    }

    /// The book of a product while it is live.
    pub fn book(&self, native: &str) -> Option<&Book> {
        self.roster.iter().find(|k| k.instrument().native == native && k.is_live()).map(|k| k.book())
    }

    fn decode(&mut self, conn: Conn, bytes: &[u8], recv: Time, out: &mut Out) -> Result<(), serde_json::Error> {
        if let Some(frame) = scan::book(bytes, out) {
            if self.count(conn, Some(frame.sequence_num), recv, out) {
                let stamp = Stamp { ts: Time::parse_rfc3339(frame.timestamp), recv };
                self.take_book(conn, frame.product_id, frame.is_snapshot, frame.levels, stamp, out);
            }
            self.due(recv, out);
            return Ok(());
        }
        if let Some(frame) = scan::trades(bytes) {
            if self.count(conn, Some(frame.sequence_num), recv, out) {
                frame.rows.for_each(|trade| self.trade(conn, &trade, recv, out));
            }
            self.due(recv, out);
            return Ok(());
        }
        if let Some(frame) = scan::tickers(bytes) {
            if self.count(conn, Some(frame.sequence_num), recv, out) {
                let stamp = Stamp { ts: Time::parse_rfc3339(frame.timestamp), recv };
                frame.rows.for_each(|ticker| self.ticker(conn, &ticker, stamp, out));
            }
            self.due(recv, out);
            return Ok(());
        }
        let envelope: Envelope<'_> = serde_json::from_slice(bytes)?;
        if envelope.channel.is_empty() {
            if envelope.kind == "error" {
                let detail = envelope.message.unwrap_or_default();
                out.reports.push(Report { fault: Fault::Refused, native: None, detail });
            }
            return Ok(());
        }
        let events = envelope.events.map_or("[]", |raw| raw.get());
        let stamp = Stamp { ts: Time::parse_rfc3339(&envelope.timestamp), recv };
        // Decoded before it is counted: a frame that cannot be decoded leaves a gap behind it, as one that never came.
        match &*envelope.channel {
            "l2_data" => {
                let events: Vec<BookEvent<'_>> = serde_json::from_str(events)?;
                if self.count(conn, envelope.sequence_num, recv, out) {
                    self.books(conn, &events, stamp, out);
                }
            }
            "market_trades" => {
                let events: Vec<TradesEvent<'_>> = serde_json::from_str(events)?;
                if self.count(conn, envelope.sequence_num, recv, out) {
                    // Newest first inside an event.
                    let trades = events.iter().flat_map(|event| event.trades.iter().rev());
                    trades.for_each(|trade| self.trade(conn, trade, recv, out));
                }
            }
            "ticker" | "ticker_batch" => {
                let events: Vec<TickerEvent<'_>> = serde_json::from_str(events)?;
                if self.count(conn, envelope.sequence_num, recv, out) {
                    let tickers = events.iter().flat_map(|event| &event.tickers);
                    tickers.for_each(|ticker| self.ticker(conn, ticker, stamp, out));
                }
            }
            "subscriptions" => {
                let events: Vec<SubscriptionsEvent> = serde_json::from_str(events)?;
                if self.count(conn, envelope.sequence_num, recv, out) {
                    for product in events.iter().flat_map(|e| &e.subscriptions.level2) {
                        if let Some(keeper) = self.roster.keep(product, || describe(product, &self.products), out) {
                            keeper.heard(conn, recv, out);
                        }
                    }
                }
            }
            // Candles, heartbeats and what is not known yet count in the sequence all the same.
            channel => {
                self.count(conn, envelope.sequence_num, recv, out);
                if channel != "heartbeats" {
                    out.pass_over(channel);
                }
            }
        }
        self.due(recv, out);
        Ok(())
    }

    /// Counts a frame of a connection. Returns whether it is to be taken: a repeated one is not.
    fn count(&mut self, conn: Conn, number: Option<u64>, recv: Time, out: &mut Out) -> bool {
        let Some(number) = number else { return true };
        let sequence = self.conns.entry(conn).or_default();
        let place = sequence.place(number);
        let after = number.saturating_add(1);
        match place {
            Place::Next => sequence.next = Some(after),
            Place::Again => {
                let detail = format!("frame {number} came twice");
                out.reports.push(Report { fault: Fault::Gap, native: None, detail });
                return false;
            }
            // While broken, the order of the rest says nothing new.
            Place::Gap { expected } if sequence.broken => sequence.next = Some(after.max(expected)),
            Place::Gap { expected } => {
                sequence.next = Some(after);
                sequence.broken = true;
                let detail = format!("frame {number} came, {expected} was expected");
                out.reports.push(Report { fault: Fault::Gap, native: None, detail });
                for keeper in self.roster.iter_mut().filter(|k| k.owner() == Some(conn)) {
                    keeper.invalidate(Fault::Gap.as_str(), recv, out);
                    // The new connection brings the snapshot.
                    keeper.resync.done();
                }
                self.reconnect.request(recv);
            }
        }
        true
    }

    fn books(&mut self, conn: Conn, events: &[BookEvent<'_>], stamp: Stamp, out: &mut Out) {
        for event in events {
            self.take_book(conn, &event.product_id, event.kind == "snapshot", event.levels(), stamp, out);
        }
    }

    fn take_book(&mut self, conn: Conn, product: &str, is_snapshot: bool, levels: Levels, stamp: Stamp, out: &mut Out) {
        let Some(keeper) = self.roster.keep(product, || describe(product, &self.products), out) else { return };
        keeper.heard(conn, stamp.recv, out);
        if is_snapshot {
            keeper.snapshot(conn, levels, |_| Ok(()), stamp, out);
            if let Some(sequence) = self.conns.get_mut(&conn) {
                // From here on this book's frames are in sequence again.
                sequence.broken = false;
            }
        } else {
            if keeper.owner() == Some(conn) {
                keeper.update(&levels, |_| Ok(()), stamp, out);
            }
            out.recycle(levels);
        }
    }

    fn trade(&mut self, conn: Conn, trade: &WireTrade<'_>, recv: Time, out: &mut Out) {
        let product = &*trade.product_id;
        let Ok(id) = trade.trade_id.parse::<u64>() else {
            let detail = format!("trade id {:?} is no number", trade.trade_id);
            let native = Some(product.to_owned());
            return out.reports.push(Report { fault: Fault::Undecodable, native, detail });
        };
        let Some(keeper) = self.roster.keep(product, || describe(product, &self.products), out) else { return };
        keeper.heard(conn, recv, out);
        // The venue gives the maker's side: in recordings `SELL` trades are at the ask. The contract wants the
        // taker's.
        let side = match &*trade.side {
            "SELL" => Some(Side::Buy),
            "BUY" => Some(Side::Sell),
            _ => None,
        };
        let (price, size) = (trade.price.0, trade.size.0);
        let told = Trade { price, size, side, trade_id: id.to_compact_string(), reference: None };
        keeper.trade(id, told, Stamp { ts: Time::parse_rfc3339(&trade.time), recv }, out);
    }

    fn ticker(&mut self, conn: Conn, ticker: &Ticker<'_>, stamp: Stamp, out: &mut Out) {
        let product = &*ticker.product_id;
        let Some(keeper) = self.roster.keep(product, || describe(product, &self.products), out) else { return };
        keeper.heard(conn, stamp.recv, out);
        let bid = ticker.best_bid.0.zip(ticker.best_bid_quantity.0).and_then(|(p, s)| side_of_quote(p, s));
        let ask = ticker.best_ask.0.zip(ticker.best_ask_quantity.0).and_then(|(p, s)| side_of_quote(p, s));
        keeper.ticker(bid, ask, stamp, out);
    }

    fn due(&mut self, now: Time, out: &mut Out) {
        self.resync_due(now, out);
        self.reconnect_due(now, out);
    }

    /// Subscribes anew the single books that are due.
    fn resync_due(&mut self, now: Time, out: &mut Out) {
        for keeper in self.roster.iter_mut().filter(|k| k.resync.is_due(now)) {
            keeper.resync.asked(now);
            let Some(conn) = keeper.owner() else { continue };
            let product = &keeper.instrument().native;
            for method in ["unsubscribe", "subscribe"] {
                let text = format!(r#"{{"type":"{method}","product_ids":["{product}"],"channel":"level2"}}"#);
                out.commands.push(Command::Send(conn, text));
            }
        }
    }

    /// Makes the broken connections anew, if it is time.
    fn reconnect_due(&mut self, now: Time, out: &mut Out) {
        if !self.reconnect.is_due(now) {
            return;
        }
        let mut broken: Vec<Conn> = self.conns.iter().filter(|(_, s)| s.broken).map(|(conn, _)| *conn).collect();
        broken.sort_unstable_by_key(|conn| conn.0);
        if broken.is_empty() {
            return self.reconnect.done();
        }
        self.reconnect.asked(now);
        out.commands.extend(broken.into_iter().map(|conn| Command::Reconnect(conn, Fault::Gap.as_str())));
    }
}

impl Adapter for Coinbase {
    fn rules(&self) -> Rules {
        Rules {
            venue: "coinbase",
            websocket_url: WEBSOCKET_URL.to_owned(),
            instruments_url: Some(PRODUCTS_URL.to_owned()),
            // Heartbeats come once a second; a snapshot of 5 MB may hold them up.
            silence_max: Duration::from_secs(10),
            ping_text: None,
            ping_every: Duration::from_secs(30),
            age_max: None,
            // Eight for connections without a key, by the venue's rate limits.
            sends_per_second_max: 8,
            ticket_url: None,
            symbols_max: None,
        }
    }

    fn opened(&mut self, conn: Conn, _url: &str, now: Time, out: &mut Out) {
        self.roster.report_unusable(out);
        self.conns.insert(conn, Sequence::default());
        let mut products: Vec<CompactString> = self.roster.wanted().to_vec();
        if !self.products.is_empty() {
            // One unknown product makes the venue refuse the whole subscription.
            products.retain(|product| {
                let known = self.products.contains_key(product);
                if !known {
                    let detail = "not in the venue's list of products".to_owned();
                    out.reports.push(Report { fault: Fault::Refused, native: Some(product.to_string()), detail });
                }
                known
            });
        }
        for product in &products {
            if let Some(keeper) = self.roster.keep(product, || describe(product, &self.products), out) {
                keeper.opened(conn, now, out);
                keeper.resync.expect(now.plus_millis(RESYNC_ANSWER_MAX_MS));
            }
        }
        if products.is_empty() {
            return;
        }
        // First, because channels without it close after 60 to 90 idle seconds.
        out.commands.push(Command::Send(conn, r#"{"type":"subscribe","channel":"heartbeats"}"#.to_owned()));
        for part in products.chunks(PRODUCTS_PER_SUBSCRIPTION_MAX) {
            let list: Vec<String> = part.iter().map(|p| format!("\"{p}\"")).collect();
            let list = list.join(",");
            for channel in ["market_trades", "ticker", "level2"] {
                let text = format!(r#"{{"type":"subscribe","product_ids":[{list}],"channel":"{channel}"}}"#);
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
        if !url.contains("/products") {
            return;
        }
        let Ok(list) = serde_json::from_slice::<Products<'_>>(body) else { return undecodable(body, out) };
        self.list.done();
        for product in &list.products {
            if !self.roster.wants(&product.product_id) {
                continue;
            }
            let steps = Steps { tick: product.price_increment.0, lot: product.base_increment.0 };
            if self.products.len() < PRODUCTS_MAX || self.products.contains_key(&*product.product_id) {
                self.products.insert(product.product_id.to_compact_string(), steps);
            }
            if let Some(keeper) = self.roster.by_native(&product.product_id) {
                keeper.describe(steps.tick, steps.lot, out);
                keeper.halt(product.trading_disabled.then_some("trading_disabled"), recv, out);
            }
        }
    }

    fn failed(&mut self, url: &str, now: Time, _out: &mut Out) {
        if url.contains("/products") {
            self.list.request(now);
            self.list.asked(now);
        }
    }

    fn closed(&mut self, conn: Conn, reason: &str, now: Time, out: &mut Out) {
        self.conns.remove(&conn);
        self.roster.lost(conn, reason, now, out);
    }

    fn silent(&mut self, conn: Conn, now: Time, out: &mut Out) {
        self.roster.lost(conn, "silent", now, out);
        out.commands.push(Command::Reconnect(conn, "silent"));
    }

    fn next_timer(&self) -> Option<Time> {
        self.roster.next_resync().into_iter().chain(self.reconnect.at()).chain(self.list.at()).min()
    }

    fn timer(&mut self, now: Time, out: &mut Out) {
        self.resync_due(now, out);
        self.reconnect_due(now, out);
        if self.list.is_due(now) {
            self.list.asked(now);
            out.commands.push(Command::Fetch(PRODUCTS_URL.to_owned()));
        }
    }

    fn retell(&self, now: Time, out: &mut Out) {
        self.roster.retell(now, out);
    }

    fn end(&mut self, reason: &str, now: Time, out: &mut Out) {
        self.reconnect.done();
        self.list.done();
        self.roster.end(reason, now, out);
    }
}

fn describe(product: &str, products: &HashMap<CompactString, Steps>) -> (CompactString, Steps) {
    (product.into(), products.get(product).copied().unwrap_or_default())
}

#[cfg(test)]
#[path = "coinbase/tests.rs"]
mod tests;
