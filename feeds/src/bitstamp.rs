//! Bitstamp's WebSocket v2 (bitstamp.net/websocket/v2): `diff_order_book` and `live_trades`.
//!
//! Differences have no sequence. `microtimestamp` tells their order, and which of them a REST snapshot has already; a
//! lost one shows only if it leaves the book crossed (`integrity` is `ordered`). Every difference since the subscription
//! is kept until the snapshot comes, and the snapshot must not be older than the first of them: the venue's REST answers
//! lag behind by a second. Now and then a snapshot is held against the live book ([`REFRESH_EVERY_MS`](crate::resync::REFRESH_EVERY_MS)),
//! because a difference that was lost shows nowhere else.
//!
//! Orders one by one (`live_orders`) are not subscribed to: they are a hundred times the frames. Where they come instead of
//! differences, the book is built of them, and their chain proves that none is missing (`sequenced`).

mod orders;
mod scan;
mod wire;

use std::time::Duration;

use compact_str::{CompactString, ToCompactString};
use hashbrown::HashSet;
use ticker_market::book::BookSide;
use ticker_market::{Book, Decimal, Integrity, Levels, Side, Time, Trade};

use self::orders::{Event, Order, Orders};
use self::wire::{BookData, Envelope, Market, OrderBook, Refusal, WireOrder, WireTrade};
use crate::depth::{DepthSync, Diff, Misfit, Rule, Step};
use crate::keeper::{AWAITING_SNAPSHOT, Keeper, QuoteSource, Stamp, Ways, Wrong};
use crate::resync::{Budget, Refresh, Resync};
use crate::roster::{Listing, Roster, Steps};
use crate::symbols::{by_suffix, joined};
use crate::wire::{is_object, undecodable};
use crate::{Adapter, Command, Conn, Fault, Out, Report, Rules, audit, rest_books};

/// Snapshots fetched in any second, at most.
pub const SNAPSHOTS_PER_SECOND_MAX: usize = 10;

/// Levels a side of the channel `order_book`, which is not subscribed to.
const WINDOW_LEVELS: usize = 100;

/// A quiet pair's snapshot is fetched so many milliseconds after the connection opened: longer than REST lags behind.
/// Others at their first difference.
pub const SNAPSHOT_DELAY_MS: i64 = 5_000;

/// Where the WebSocket is.
pub const WEBSOCKET_URL: &str = "wss://ws.bitstamp.net";

/// Where markets are listed.
pub const MARKETS_URL: &str = "https://www.bitstamp.net/api/v2/markets/";

/// Bitstamp's decoder.
#[derive(Debug)]
pub struct Bitstamp {
    roster: Roster,
    /// What only Bitstamp keeps of an instrument, by its number.
    own: Vec<Own>,
    /// Books that are built order by order, by the venue's own name.
    by_order: HashSet<CompactString>,
    listing: Listing,
    list: Resync,
    refresh: Refresh,
    snapshots: Budget,
    /// The connection that was opened last.
    newest: Option<Conn>,
}

#[derive(Clone, Debug)]
struct Own {
    sync: DepthSync,
    /// The last difference, and the connection that it came by.
    seen: Option<(Conn, u64)>,
    /// The book's orders; none where differences make it.
    orders: Option<Box<Orders>>,
}

impl Bitstamp {
    /// For these symbols in normal form; none for whatever comes.
    pub fn new(symbols: &[String]) -> Self {
        let ways = Ways { integrity: Integrity::Ordered, quotes: QuoteSource::Ticker };
        Self {
            roster: Roster::new("bitstamp", ways, symbols),
            own: Vec::new(),
            by_order: HashSet::new(),
            listing: Listing::default(),
            list: Resync::default(),
            refresh: Refresh::default(),
            snapshots: Budget::new(SNAPSHOTS_PER_SECOND_MAX, 1_000),
            newest: None,
        }
    }

    /// The book of an instrument, by the venue's own name, while it is live.
    pub fn book(&self, native: &str) -> Option<&Book> {
        self.roster.iter().find(|k| k.instrument().native == native && k.is_live()).map(|k| k.book())
    }

    fn keep(&mut self, native: &str, out: &mut Out) -> Option<(&mut Keeper, &mut Own)> {
        let describe = || self.listing.describe(native, || by_suffix(&native.to_ascii_uppercase()));
        let keeper = self.roster.keep(native, describe, out)?;
        let number = keeper.number() as usize;
        if self.own.len() <= number {
            self.own.resize(number + 1, Own { sync: DepthSync::new(Rule::Ranges), seen: None, orders: None });
        }
        Some((keeper, &mut self.own[number]))
    }

    fn decode(&mut self, conn: Conn, bytes: &[u8], recv: Time, out: &mut Out) -> Result<(), serde_json::Error> {
        if let Some((native, book)) = scan::diff(bytes, out) {
            self.diff(conn, native, book, recv, out);
            return Ok(());
        }
        let envelope: Envelope<'_> = serde_json::from_slice(bytes)?;
        let data = envelope.data.map_or("null", |raw| raw.get());
        match &*envelope.event {
            "data" => {
                if let Some(native) = envelope.channel.strip_prefix("diff_order_book_") {
                    self.diff(conn, native, serde_json::from_str(data)?, recv, out);
                } else if let Some(native) = envelope.channel.strip_prefix("order_book_") {
                    self.window(conn, native, serde_json::from_str(data)?, recv, out);
                } else {
                    out.pass_over(envelope.channel.rsplit_once('_').map_or("data", |(kind, _)| kind));
                }
            }
            "trade" => {
                if let Some(native) = envelope.channel.strip_prefix("live_trades_") {
                    self.trade(conn, native, &serde_json::from_str(data)?, recv, out);
                }
            }
            "order_created" | "order_changed" | "order_deleted" => {
                if let Some(native) = envelope.channel.strip_prefix("live_orders_") {
                    self.order(conn, native, &envelope, serde_json::from_str(data)?, recv, out);
                }
            }
            "bts:request_reconnect" => out.commands.push(Command::Reconnect(conn, "request_reconnect")),
            "bts:error" => {
                let refusal: Refusal = serde_json::from_str(data)?;
                let native = envelope.channel.rsplit_once('_').map(|(_, native)| native.to_owned());
                let detail = format!("{}: {}", refusal.code.unwrap_or_default(), refusal.message);
                out.reports.push(Report { fault: Fault::Refused, native, detail });
            }
            "bts:subscription_succeeded" | "bts:unsubscription_succeeded" | "bts:heartbeat" => {}
            // What we did not subscribe to is somebody else's.
            event => out.pass_over(event),
        }
        Ok(())
    }

    fn diff(&mut self, conn: Conn, native: &str, book: BookData<'_>, recv: Time, out: &mut Out) {
        let newest = self.newest == Some(conn);
        if self.by_order.contains(native) && !self.leave_orders(native, recv, out) {
            return;
        }
        let Some((keeper, own)) = self.keep(native, out) else { return };
        keeper.heard(conn, recv, out);
        let Some(last) = micros(&book.microtimestamp) else {
            let detail = format!("microtimestamp {:?} is no number", book.microtimestamp);
            out.reports.push(Report { fault: Fault::Undecodable, native: Some(native.to_owned()), detail });
            return self.suspect(conn, recv, out);
        };
        let ts = Some(Time::from_micros(last.cast_signed()));
        let stamp = Stamp { ts, recv };
        let same = own.seen.filter(|(from, _)| *from == conn).map(|(_, seen)| seen);
        if let Some(seen) = same.filter(|seen| last < *seen) {
            let detail = format!("a difference of {last} came after one of {seen}");
            own.sync.reset();
            keeper.fault(Wrong { fault: Fault::Gap, detail }, stamp, out);
            return self.fetch_due(recv, out);
        }
        // Of what came before the first difference of a connection, nothing is known but that the subscription stood.
        let before = same.unwrap_or(last.saturating_sub(1));
        let first = same.is_none() && own.sync.is_synced();
        own.seen = Some((conn, last));
        let levels = Levels { bids: book.bids.0, asks: book.asks.0, ..Levels::default() };
        let before = if first { 0 } else { before };
        match own.sync.diff(Diff { before, last, conn, levels, ts }) {
            // While one connection replaces another, both deliver, and what the other one told already is old.
            Step::Old if newest => keeper.adopt(conn),
            Step::Old => {}
            Step::Apply(diff) => {
                if newest {
                    keeper.adopt(conn);
                }
                if !keeper.update(&diff.levels, |_| Ok(()), stamp, out) {
                    own.sync.reset();
                }
                out.recycle(diff.levels);
                audit::settle(&mut own.sync, keeper, recv, out);
            }
            Step::Buffered => {
                if !keeper.resync.is_asked() {
                    keeper.resync.request(recv);
                }
            }
            Step::Gap { last, before } => {
                let detail = format!("what follows {before} came, the book is of {last}");
                keeper.fault(Wrong { fault: Fault::Gap, detail }, stamp, out);
            }
        }
        self.fetch_due(recv, out);
    }

    /// The best levels of a book, all of them each time.
    fn window(&mut self, conn: Conn, native: &str, book: BookData<'_>, recv: Time, out: &mut Out) {
        let ts = micros(&book.microtimestamp).map(|micros| Time::from_micros(micros.cast_signed()));
        let levels = Levels { bids: book.bids.0, asks: book.asks.0, ..Levels::default() };
        if let Some((keeper, _)) = self.keep(native, out) {
            keeper.window(conn, WINDOW_LEVELS, &levels, Stamp { ts, recv }, out);
        }
    }

    fn trade(&mut self, conn: Conn, native: &str, trade: &WireTrade<'_>, recv: Time, out: &mut Out) {
        let Some((keeper, _)) = self.keep(native, out) else { return };
        keeper.heard(conn, recv, out);
        let told = Trade {
            price: trade.price_str.0,
            size: trade.amount_str.0,
            side: match trade.side {
                0 => Some(Side::Buy),
                1 => Some(Side::Sell),
                _ => None,
            },
            trade_id: trade.id.to_compact_string(),
            reference: None,
        };
        let ts = micros(&trade.microtimestamp).map(|micros| Time::from_micros(micros.cast_signed()));
        keeper.trade(trade.id, told, Stamp { ts, recv }, out);
    }

    /// An event of an order. Where differences came before, they make the book.
    fn order(&mut self, conn: Conn, native: &str, event: &Envelope<'_>, order: WireOrder, recv: Time, out: &mut Out) {
        let newest = self.newest == Some(conn);
        let Some((keeper, own)) = self.keep(native, out) else { return };
        let ids = (event_number(&event.pre_event_id), event_number(&event.event_id));
        // Events had no ids once: nothing would show that one is missing.
        let (Some(before), Some(id)) = ids else { return keeper.heard(conn, recv, out) };
        if own.seen.is_some() || own.sync.is_synced() {
            return keeper.heard(conn, recv, out);
        }
        let first = own.orders.is_none();
        keeper.set_integrity(Integrity::Sequenced);
        keeper.heard(conn, recv, out);
        let size = if event.event == "order_deleted" { Decimal::ZERO } else { order.amount_str.0 };
        let order = Order { id: order.id, side: order.side(), price: order.price_str.0, size };
        let step = own.orders.get_or_insert_default().event(Event { before, id, order });
        if newest {
            keeper.adopt(conn);
        }
        let ts = u64::try_from(id >> 64).ok().and_then(|micros| i64::try_from(micros).ok()).map(Time::from_micros);
        Self::told(conn, keeper, own, step, Stamp { ts, recv }, out);
        if first {
            self.by_order.insert(native.into());
        }
        self.fetch_due(recv, out);
    }

    /// Tells what an event or a snapshot of orders led to.
    fn told(conn: Conn, keeper: &mut Keeper, own: &mut Own, step: orders::Step, stamp: Stamp, out: &mut Out) {
        let Some(orders) = &mut own.orders else { return };
        let live = match step {
            orders::Step::Nothing => true,
            orders::Step::Waiting => {
                if !keeper.resync.is_asked() {
                    keeper.resync.request(stamp.recv);
                }
                true
            }
            orders::Step::Whole => keeper.snapshot_book(conn, orders.book().clone(), stamp, out),
            orders::Step::Changed(levels) => keeper.update(&levels, |_| Ok(()), stamp, out),
            orders::Step::Wrong(wrong) => {
                keeper.fault(wrong, stamp, out);
                true
            }
        };
        if !live {
            orders.reset();
        }
    }

    /// Differences came of a book that waits for its orders' snapshot: they make it.
    fn leave_orders(&mut self, native: &str, now: Time, out: &mut Out) -> bool {
        let Some(keeper) = self.roster.by_native(native) else { return false };
        let Some(own) = self.own.get_mut(keeper.number() as usize) else { return false };
        let waits = own.orders.as_ref().is_none_or(|orders| orders.is_waiting() || !orders.has_begun());
        if waits {
            own.orders = None;
            if keeper.is_live() {
                keeper.invalidate(AWAITING_SNAPSHOT, now, out);
            }
            keeper.set_integrity(Integrity::Ordered);
            self.by_order.remove(native);
        }
        waits
    }

    /// A snapshot of a book's orders.
    fn orders(&mut self, url: &str, body: &[u8], recv: Time, out: &mut Out) {
        let Some(native) = url.split_once("/?group=2").and_then(|(url, _)| pair_of(url)) else { return };
        let snapshot = serde_json::from_slice::<OrderBook<'_>>(body).ok();
        let Some((since, snapshot)) = snapshot.and_then(|s| Some((micros(&s.microtimestamp)?, s))) else {
            return undecodable(body, out);
        };
        let Some((keeper, own)) = self.keep(native, out) else { return };
        // A recording may begin with it.
        let begins = own.seen.is_none() && !own.sync.is_synced();
        if !own.orders.as_ref().map_or(begins, |orders| orders.is_waiting()) || keeper.is_stale() {
            return;
        }
        let first = own.orders.is_none();
        let conn = keeper.owner().unwrap_or(Conn(0));
        let sides = [(BookSide::Bid, snapshot.bids), (BookSide::Ask, snapshot.asks)];
        let resting = sides.into_iter().flat_map(|(side, list)| {
            list.into_iter().map(move |order| Order { id: order.id.0, side, price: order.price.0, size: order.size.0 })
        });
        let step = own.orders.get_or_insert_default().snapshot(since, resting);
        keeper.set_integrity(Integrity::Sequenced);
        let stamp = Stamp { ts: Some(Time::from_micros(since.cast_signed())), recv };
        if step == orders::Step::Waiting {
            keeper.resync.request(recv);
        }
        Self::told(conn, keeper, own, step, stamp, out);
        if first {
            self.by_order.insert(native.into());
        }
        self.fetch_due(recv, out);
    }

    fn snapshot(&mut self, url: &str, body: &[u8], recv: Time, out: &mut Out) {
        let Some(native) = pair_of(url) else { return };
        let snapshot = serde_json::from_slice::<BookData<'_>>(body).ok();
        let Some((id, snapshot)) = snapshot.and_then(|s| Some((micros(&s.microtimestamp)?, s))) else {
            return undecodable(body, out);
        };
        let Some((keeper, own)) = self.keep(native, out) else { return };
        let levels = Levels { bids: snapshot.bids.0, asks: snapshot.asks.0, ..Levels::default() };
        if own.sync.is_audited() && keeper.is_live() {
            audit::answered(&mut own.sync, keeper, (id, levels), recv, out);
            return self.fetch_due(recv, out);
        }
        if own.sync.is_synced() || keeper.is_stale() || own.orders.is_some() {
            // An answer to a question asked twice, or one that came too late.
            return;
        }
        let ts = Some(Time::from_micros(id.cast_signed()));
        match rest_books::begin(&mut own.sync, keeper, (id, &levels, ts), recv, out) {
            Ok(()) => self.refresh.begin(recv),
            Err(Misfit::TooOld { .. } | Misfit::Hole { .. }) => keeper.resync.request(recv),
        }
        self.fetch_due(recv, out);
    }

    fn markets(&mut self, body: &[u8], recv: Time, out: &mut Out) {
        let Ok(markets) = serde_json::from_slice::<Vec<Market<'_>>>(body) else { return undecodable(body, out) };
        self.list.done();
        for market in &markets {
            let symbol: CompactString = market.name.chars().map(|c| if c == '/' { '-' } else { c }).collect();
            if !self.roster.wants(&symbol) {
                continue;
            }
            let step = |decimals: u32| (decimals <= 28).then(|| Decimal::new(1, decimals));
            let steps = Steps { tick: step(market.counter_decimals), lot: step(market.base_decimals) };
            self.listing.insert(&market.market_symbol, symbol, steps);
            if let Some(keeper) = self.roster.by_native(&market.market_symbol) {
                keeper.describe(steps.tick, steps.lot, out);
                keeper.halt((market.trading == "Disabled").then_some("trading_disabled"), recv, out);
            }
        }
    }

    /// Nothing later would show what an undecodable frame changed.
    fn suspect(&mut self, conn: Conn, now: Time, out: &mut Out) {
        for keeper in self.roster.iter().filter(|k| k.owner() == Some(conn)) {
            if let Some(own) = self.own.get_mut(keeper.number() as usize) {
                own.sync.reset();
                own.orders.iter_mut().for_each(|orders| orders.reset());
            }
        }
        self.roster.suspect(conn, now, out);
        self.fetch_due(now, out);
    }

    /// Fetches a snapshot of the live book whose turn it is, to hold the two against each other: a lost difference shows
    /// nowhere else.
    fn refresh_due(&mut self, now: Time, out: &mut Out) {
        let turn = self.roster.audit_due(&mut self.refresh, &mut self.snapshots, now, out, snapshot_url);
        if let Some(own) = turn.and_then(|number| self.own.get_mut(number)) {
            own.sync.begin_audit();
        }
    }

    /// Fetches the snapshots that are due, as far as the limit allows.
    fn fetch_due(&mut self, now: Time, out: &mut Out) {
        let by_order = &self.by_order;
        self.roster.fetch_due(&mut self.snapshots, now, out, |native| {
            let url = snapshot_url(native);
            if by_order.contains(native) { url + "?group=2" } else { url }
        });
    }
}

impl Adapter for Bitstamp {
    fn rules(&self) -> Rules {
        Rules {
            venue: "bitstamp",
            websocket_url: WEBSOCKET_URL.to_owned(),
            instruments_url: Some(MARKETS_URL.to_owned()),
            // Heartbeats come only in answer to ours.
            silence_max: Duration::from_secs(30),
            ping_text: Some(r#"{"event":"bts:heartbeat"}"#),
            ping_every: Duration::from_secs(15),
            // Cut at 90 days.
            age_max: Some(Duration::from_secs(89 * 86_400)),
            sends_per_second_max: 20,
            ticket_url: None,
            symbols_max: None,
        }
    }

    fn opened(&mut self, conn: Conn, _url: &str, now: Time, out: &mut Out) {
        self.roster.report_unusable(out);
        self.newest = Some(conn);
        let lower = |symbol: &str| joined(symbol).to_ascii_lowercase().to_compact_string();
        let natives = self.listing.natives(self.roster.wanted(), lower, out);
        for native in &natives {
            if let Some((keeper, _)) = self.keep(native, out) {
                keeper.opened(conn, now, out);
                if !keeper.is_live() {
                    keeper.resync.expect(now.plus_millis(SNAPSHOT_DELAY_MS));
                }
            }
        }
        // One channel a message.
        for channel in ["live_trades", "diff_order_book"] {
            for native in &natives {
                let text = format!(r#"{{"event":"bts:subscribe","data":{{"channel":"{channel}_{native}"}}}}"#);
                out.commands.push(Command::Send(conn, text));
            }
        }
    }

    fn frame(&mut self, conn: Conn, bytes: &[u8], recv: Time, out: &mut Out) {
        if !is_object(bytes) || self.decode(conn, bytes, recv, out).is_err() {
            undecodable(bytes, out);
            self.suspect(conn, recv, out);
        }
    }

    fn response(&mut self, url: &str, body: &[u8], recv: Time, out: &mut Out) {
        if url.contains("/markets") || url.contains("/trading-pairs-info") {
            self.markets(body, recv, out);
        } else if url.contains("group=2") {
            self.orders(url, body, recv, out);
        } else {
            self.snapshot(url, body, recv, out);
        }
    }

    fn failed(&mut self, url: &str, now: Time, _out: &mut Out) {
        if url.contains("/markets") {
            self.list.request(now);
            self.list.asked(now);
        } else if let Some(keeper) =
            pair_of(url.trim_end_matches("?group=2")).and_then(|native| self.roster.by_native(native))
            && !keeper.is_live()
        {
            keeper.resync.request(now);
        }
    }

    fn closed(&mut self, conn: Conn, reason: &str, now: Time, out: &mut Out) {
        for keeper in self.roster.iter_mut().filter(|k| k.owner() == Some(conn)) {
            if let Some(own) = self.own.get_mut(keeper.number() as usize) {
                own.sync.reset();
                own.seen = None;
                own.orders.iter_mut().for_each(|orders| orders.reset());
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
            out.commands.push(Command::Fetch(MARKETS_URL.to_owned()));
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

fn snapshot_url(native: &str) -> String {
    format!("https://www.bitstamp.net/api/v2/order_book/{native}/")
}

/// The pair that an order book's URL names: `…/order_book/btcusd/`. Books order by order (`?group=2`) are other ones.
fn pair_of(url: &str) -> Option<&str> {
    let (_, pair) = url.split_once("/order_book/")?;
    let pair = pair.strip_suffix('/').unwrap_or(pair);
    (!pair.is_empty() && !pair.contains(['/', '?'])).then_some(pair)
}

/// `000659d4-cba2-b200-0000-000101000020`
fn event_number(text: &str) -> Option<u128> {
    if text.len() > 36 {
        return None;
    }
    let digits: CompactString = text.chars().filter(|c| *c != '-').collect();
    u128::from_str_radix(&digits, 16).ok()
}

fn micros(text: &str) -> Option<u64> {
    text.parse().ok().filter(|micros| i64::try_from(*micros).is_ok())
}

#[cfg(test)]
#[path = "bitstamp/tests.rs"]
mod tests;
