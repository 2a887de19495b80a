//! Bybit v5: spot, linear and inverse contracts (bybit-exchange.github.io/docs/v5/websocket/public/orderbook, …/trade),
//! one adapter for each category.
//!
//! `u` rises by one with each frame of a book's topic; a frame with `u` of 1 is a snapshot after a restart of the venue's
//! service, whatever it calls itself. A gap concerns one topic alone, which is subscribed anew. The book of depth 1 comes
//! ten times as often as the deep one: it gives the quotes. It is sent again, unchanged, after three quiet seconds. Where
//! a recording has no deeper one, it is the book.

mod scan;
mod wire;

use std::time::Duration;

use compact_str::{CompactString, format_compact};
use ticker_market::{Book, Integrity, Level, Levels, Side, Time, Trade};

use self::wire::{BookData, Envelope, Instruments, Listed, WireTrade};
use crate::keeper::{Keeper, QuoteSource, Stamp, Ways, Wrong};
use crate::resync::{RESYNC_ANSWER_MAX_MS, Resync};
use crate::roster::{Listing, Roster, Steps};
use crate::split::Split;
use crate::symbols::{by_suffix, day_from_millis, day_from_name, joined, name_from_day};
use crate::wire::{for_each, is_object, undecodable};
use crate::{Adapter, Command, Conn, Fault, Out, Report, Rules};

/// Levels a side that are subscribed to when live.
pub const DEPTH: usize = 200;

/// Topics in one subscription: spot's limit, kept to everywhere.
pub const TOPICS_PER_SUBSCRIPTION_MAX: usize = 10;

/// Length of all topics of one connection, in bytes: linear's and inverse's limit, kept to everywhere.
pub const TOPICS_BYTES_MAX: usize = 21_000;

/// Symbols on one connection: so many fit into [`TOPICS_BYTES_MAX`] with names of 20 letters, and few have more.
pub const SYMBOLS_MAX: usize = 190;

/// Pages of the list of instruments that are fetched, at most; each holds up to 1000.
pub const LIST_PAGES_MAX: usize = 10;

/// A category of Bybit's instruments, each with a feed of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Category {
    /// Spot.
    Spot,
    /// Contracts that are settled in a dollar coin.
    Linear,
    /// Contracts that are settled in the base coin.
    Inverse,
}

impl Category {
    const fn venue(self) -> &'static str {
        match self {
            Category::Spot => "bybit-spot",
            Category::Linear => "bybit-linear",
            Category::Inverse => "bybit-inverse",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Category::Spot => "spot",
            Category::Linear => "linear",
            Category::Inverse => "inverse",
        }
    }

    /// The normal form of a name that the list did not explain: `BTCUSDT`, `BTCPERP` (in USDC), `BTCUSDT-25SEP26`,
    /// `BTC-25SEP26` (in USDC), `BTCUSD`. The quarters of inverse contracts (`BTCUSDZ26`) need the list.
    fn by_name(self, native: &str) -> CompactString {
        if self == Category::Spot {
            return by_suffix(native);
        }
        let pair = |name: &str| match by_suffix(name) {
            pair if pair.contains('-') => pair,
            base => format_compact!("{base}-USDC"),
        };
        if let Some((name, day)) = native.split_once('-') {
            return day_from_name(day).map_or_else(|| native.into(), |day| format_compact!("{}-{day}", pair(name)));
        }
        match native.strip_suffix("PERP") {
            Some(base) => format_compact!("{base}-USDC-PERP"),
            None if by_suffix(native).contains('-') => format_compact!("{}-PERP", by_suffix(native)),
            None => native.into(),
        }
    }

    fn by_list(self, listed: &Listed<'_>) -> CompactString {
        let pair = format_compact!("{}-{}", listed.base, listed.quote);
        match (self, listed.delivery.parse::<i64>().unwrap_or(0)) {
            (Category::Spot, _) => pair,
            (_, 0) => format_compact!("{pair}-PERP"),
            (_, delivery) => format_compact!("{pair}-{}", day_from_millis(delivery)),
        }
    }

    /// Bybit's own name of a symbol in normal form, without the list.
    fn native(self, symbol: &str) -> CompactString {
        let contract = symbol.rsplit_once('-').filter(|_| self != Category::Spot);
        let Some((pair, delivery)) = contract else { return joined(symbol) };
        let in_usdc = pair.strip_suffix("-USDC");
        match (delivery, in_usdc) {
            ("PERP", Some(base)) => format_compact!("{base}PERP"),
            ("PERP", None) => joined(pair),
            _ => {
                let day = name_from_day(delivery).unwrap_or_else(|| delivery.into());
                format_compact!("{}-{day}", in_usdc.map_or_else(|| joined(pair), CompactString::from))
            }
        }
    }
}

/// All categories as one, for recordings that hold several.
pub fn all() -> Split {
    let part = |category| Box::new(Bybit::new(category, &[])) as Box<dyn Adapter>;
    Split::new(
        "bybit",
        vec![
            (&["/public/linear", "category=linear"], part(Category::Linear)),
            (&["/public/spot", "category=spot"], part(Category::Spot)),
            (&["/public/inverse", "category=inverse"], part(Category::Inverse)),
        ],
    )
}

/// The decoder of one of Bybit's categories.
#[derive(Debug)]
pub struct Bybit {
    category: Category,
    roster: Roster,
    /// What only Bybit keeps of an instrument, by its number.
    own: Vec<Own>,
    listing: Listing,
    list: Resync,
    pages: usize,
}

#[derive(Clone, Default, Debug)]
struct Own {
    /// The last `u` of the deep book.
    last: u64,
    /// The best prices, by the book of depth 1, while it is in sequence.
    top: Option<Top>,
}

#[derive(Clone, Copy, Debug)]
struct Top {
    conn: Conn,
    last: u64,
    bid: Option<Level>,
    ask: Option<Level>,
}

impl Bybit {
    /// For these symbols in normal form; none for whatever comes.
    pub fn new(category: Category, symbols: &[String]) -> Self {
        let ways = Ways { integrity: Integrity::Sequenced, quotes: QuoteSource::Ticker };
        Self {
            category,
            roster: Roster::new(category.venue(), ways, symbols),
            own: Vec::new(),
            listing: Listing::default(),
            list: Resync::default(),
            pages: 0,
        }
    }

    /// The book of an instrument, by the venue's own name, while it is live.
    pub fn book(&self, native: &str) -> Option<&Book> {
        self.roster.iter().find(|k| k.instrument().native == native && k.is_live()).map(|k| k.book())
    }

    fn keep(&mut self, native: &str, out: &mut Out) -> Option<(&mut Keeper, &mut Own)> {
        let category = self.category;
        let describe = || self.listing.describe(native, || category.by_name(native));
        let keeper = self.roster.keep(native, describe, out)?;
        let number = keeper.number() as usize;
        if self.own.len() <= number {
            self.own.resize(number + 1, Own::default());
        }
        Some((keeper, &mut self.own[number]))
    }

    fn decode(&mut self, conn: Conn, bytes: &[u8], recv: Time, out: &mut Out) -> Result<(), serde_json::Error> {
        if let Some(frame) = scan::book(bytes, out) {
            let ts = frame.cts.or(frame.ts).map(Time::from_millis);
            self.book_frame(conn, frame.topic, frame.kind, frame.book, Stamp { ts, recv }, out);
            return Ok(());
        }
        if let Some(trades) = scan::trades(bytes) {
            trades.for_each(|trade| self.trade(conn, &trade, recv, out));
            return Ok(());
        }
        let envelope: Envelope<'_> = serde_json::from_slice(bytes)?;
        let data = envelope.data.map_or("null", |raw| raw.get());
        match envelope.topic.split('.').next() {
            Some("orderbook") => {
                let ts = envelope.cts.or(envelope.ts).map(Time::from_millis);
                let book = serde_json::from_str(data)?;
                self.book_frame(conn, &envelope.topic, &envelope.kind, book, Stamp { ts, recv }, out);
            }
            Some("publicTrade") => for_each(data, |trade: WireTrade<'_>| self.trade(conn, &trade, recv, out))?,
            // What we did not subscribe to is somebody else's.
            _ if !envelope.topic.is_empty() => {
                out.pass_over(envelope.topic.split('.').next().unwrap_or_default());
            }
            _ if envelope.success == Some(false) => {
                let detail = format!("{}: {}", envelope.op, envelope.ret_msg.unwrap_or_default());
                out.reports.push(Report { fault: Fault::Refused, native: None, detail });
            }
            _ => {}
        }
        Ok(())
    }

    /// Of the topic `orderbook.<depth>.<symbol>`.
    fn book_frame(&mut self, conn: Conn, topic: &str, kind: &str, book: BookData<'_>, stamp: Stamp, out: &mut Out) {
        let snapshot = kind == "snapshot" || book.u == 1;
        match topic.split('.').nth(1).and_then(|depth| depth.parse().ok()) {
            Some(1) => self.top(conn, book, snapshot, stamp, out),
            Some(depth) => self.deep(conn, book, depth, snapshot, stamp, out),
            // Depths that are no numbers, such as `rpi`, are other books.
            None => out.pass_over("orderbook"),
        }
    }

    fn deep(&mut self, conn: Conn, book: BookData<'_>, depth: usize, snapshot: bool, stamp: Stamp, out: &mut Out) {
        let levels = Levels { bids: book.b.0, asks: book.a.0, ..Levels::default() };
        let Some((keeper, own)) = self.keep(&book.s, out) else { return };
        if keeper.depth() != usize::MAX && keeper.depth() > depth {
            // A recording with several depths of one book: the deepest is told.
            return out.recycle(levels);
        }
        keeper.with_book();
        keeper.heard(conn, stamp.recv, out);
        let ours = keeper.owner() == Some(conn);
        if snapshot {
            if ours && keeper.is_live() && keeper.depth() == depth && book.u == own.last && book.u != 1 {
                // Sent again in a quiet time.
                return out.recycle(levels);
            }
            keeper.set_depth(depth);
            own.last = book.u;
            keeper.snapshot(conn, levels, |_| Ok(()), stamp, out);
        } else {
            if ours && keeper.is_live() && keeper.depth() == depth && book.u > own.last {
                let expected = own.last.saturating_add(1);
                own.last = book.u;
                if book.u == expected {
                    keeper.update(&levels, |_| Ok(()), stamp, out);
                } else {
                    let detail = format!("update {} came, {expected} was expected", book.u);
                    keeper.fault(Wrong { fault: Fault::Gap, detail }, stamp, out);
                }
            }
            out.recycle(levels);
        }
        self.resync_due(stamp.recv, out);
    }

    fn top(&mut self, conn: Conn, book: BookData<'_>, snapshot: bool, stamp: Stamp, out: &mut Out) {
        // Live, the deep book is on its way.
        let is_recording = self.roster.wanted().is_empty();
        let Some((keeper, own)) = self.keep(&book.s, out) else { return };
        keeper.heard(conn, stamp.recv, out);
        let mut top = match own.top {
            // While one connection replaces another, both deliver: the one that is ahead is told.
            Some(top) if snapshot && top.conn != conn && book.u < top.last && book.u != 1 => return,
            _ if snapshot => Top { conn, last: book.u, bid: None, ask: None },
            Some(top) if top.conn != conn || book.u <= top.last => return,
            Some(top) if top.last.saturating_add(1) == book.u => Top { last: book.u, ..top },
            Some(top) => {
                let expected = top.last.saturating_add(1);
                let detail = format!("update {} of depth 1 came, {expected} was expected", book.u);
                let native = Some(keeper.instrument().native.to_string());
                out.reports.push(Report { fault: Fault::Gap, native, detail });
                // The next snapshot is at most three quiet seconds away.
                own.top = None;
                return keeper.invalidate_quote(Fault::Gap.as_str(), stamp.recv, out);
            }
            None => return,
        };
        for (side, changes) in [(&mut top.bid, &book.b.0), (&mut top.ask, &book.a.0)] {
            for level in changes {
                if !level.size.is_zero() {
                    *side = Some(*level);
                } else if side.is_some_and(|best| best.price == level.price) {
                    *side = None;
                }
            }
        }
        own.top = Some(top);
        keeper.ticker(top.bid, top.ask, stamp, out);
        let mut levels = Levels { bids: book.b.0, asks: book.a.0, ..Levels::default() };
        if is_recording {
            for (list, best) in [(&mut levels.bids, top.bid), (&mut levels.asks, top.ask)] {
                list.clear();
                list.extend(best);
            }
            keeper.window(conn, 1, &levels, stamp, out);
        }
        out.recycle(levels);
    }

    fn trade(&mut self, conn: Conn, trade: &WireTrade<'_>, recv: Time, out: &mut Out) {
        let Some((keeper, _)) = self.keep(&trade.s, out) else { return };
        keeper.heard(conn, recv, out);
        let side = match &*trade.side {
            "Buy" => Some(Side::Buy),
            "Sell" => Some(Side::Sell),
            _ => None,
        };
        let told =
            Trade { price: trade.price.0, size: trade.size.0, side, trade_id: out.id(&trade.id), reference: None };
        keeper.named_trade(told, Stamp { ts: Some(Time::from_millis(trade.trade_ms)), recv }, out);
    }

    fn instruments(&mut self, body: &[u8], recv: Time, out: &mut Out) {
        let Ok(page) = serde_json::from_slice::<Instruments<'_>>(body) else { return undecodable(body, out) };
        if page.code != 0 {
            let detail = format!("{}: {}", page.code, page.message);
            return out.reports.push(Report { fault: Fault::Refused, native: None, detail });
        }
        self.list.done();
        for listed in &page.result.list {
            let symbol = self.category.by_list(listed);
            if !self.roster.wants(&symbol) {
                continue;
            }
            let steps = Steps { tick: listed.price.tick.0, lot: listed.lot.step.0.or(listed.lot.precision.0) };
            self.listing.insert(&listed.symbol, symbol, steps);
            if let Some(keeper) = self.roster.by_native(&listed.symbol) {
                keeper.describe(steps.tick, steps.lot, out);
                let halted = matches!(&*listed.status, "PreLaunch" | "Settling" | "Delivering" | "Closed");
                keeper.halt(halted.then_some("halt"), recv, out);
            }
        }
        if let Some(next) = page.result.next.filter(|next| !next.is_empty() && self.pages < LIST_PAGES_MAX) {
            self.pages += 1;
            out.commands.push(Command::Fetch(format!("{}&cursor={next}", self.list_url())));
        }
    }

    fn list_url(&self) -> String {
        format!("https://api.bybit.com/v5/market/instruments-info?category={}&limit=1000", self.category.name())
    }

    /// Subscribes anew the books that are due.
    fn resync_due(&mut self, now: Time, out: &mut Out) {
        for keeper in self.roster.iter_mut().filter(|k| k.resync.is_due(now)) {
            keeper.resync.asked(now);
            let Some(conn) = keeper.owner() else { continue };
            let depth = if keeper.depth() == usize::MAX { DEPTH } else { keeper.depth() };
            let native = &keeper.instrument().native;
            for op in ["unsubscribe", "subscribe"] {
                let text = format!(r#"{{"op":"{op}","args":["orderbook.{depth}.{native}"]}}"#);
                out.commands.push(Command::Send(conn, text));
            }
        }
    }
}

impl Adapter for Bybit {
    fn rules(&self) -> Rules {
        Rules {
            venue: self.category.venue(),
            websocket_url: format!("wss://stream.bybit.com/v5/public/{}", self.category.name()),
            instruments_url: Some(self.list_url()),
            // A ping every 20 seconds is asked for, and answered in band.
            silence_max: Duration::from_secs(30),
            ping_text: Some(r#"{"op":"ping"}"#),
            ping_every: Duration::from_secs(20),
            age_max: None,
            sends_per_second_max: 10,
            ticket_url: None,
            symbols_max: Some(SYMBOLS_MAX),
        }
    }

    fn opened(&mut self, conn: Conn, _url: &str, now: Time, out: &mut Out) {
        self.roster.report_unusable(out);
        let category = self.category;
        let mut natives = self.listing.natives(self.roster.wanted(), |symbol| category.native(symbol), out);
        let mut room = TOPICS_BYTES_MAX;
        let fits = natives.iter().take_while(|native| {
            let topics = 3 * native.len() + "orderbook.1.publicTrade.orderbook.200.".len() + 3 * r#""",""#.len();
            room.checked_sub(topics).map(|left| room = left).is_some()
        });
        for native in natives.split_off(fits.count()) {
            let detail = format!("more than {TOPICS_BYTES_MAX} bytes of topics on one connection");
            out.reports.push(Report { fault: Fault::Refused, native: Some(native.into()), detail });
        }
        for native in &natives {
            if let Some((keeper, _)) = self.keep(native, out) {
                keeper.opened(conn, now, out);
                keeper.resync.expect(now.plus_millis(RESYNC_ANSWER_MAX_MS));
            }
        }
        let topics: Vec<String> = ["orderbook.1".to_owned(), "publicTrade".to_owned(), format!("orderbook.{DEPTH}")]
            .iter()
            .flat_map(|topic| natives.iter().map(move |native| format!("\"{topic}.{native}\"")))
            .collect();
        for part in topics.chunks(TOPICS_PER_SUBSCRIPTION_MAX) {
            out.commands.push(Command::Send(conn, format!(r#"{{"op":"subscribe","args":[{}]}}"#, part.join(","))));
        }
    }

    fn frame(&mut self, conn: Conn, bytes: &[u8], recv: Time, out: &mut Out) {
        if !is_object(bytes) || self.decode(conn, bytes, recv, out).is_err() {
            undecodable(bytes, out);
        }
    }

    fn response(&mut self, url: &str, body: &[u8], recv: Time, out: &mut Out) {
        if url.contains("instruments-info") {
            self.instruments(body, recv, out);
        }
    }

    fn failed(&mut self, url: &str, now: Time, _out: &mut Out) {
        if url.contains("instruments-info") {
            self.list.request(now);
            self.list.asked(now);
        }
    }

    fn closed(&mut self, conn: Conn, reason: &str, now: Time, out: &mut Out) {
        for own in self.own.iter_mut().filter(|own| own.top.is_some_and(|top| top.conn == conn)) {
            own.top = None;
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
            self.pages = 0;
            out.commands.push(Command::Fetch(self.list_url()));
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

#[cfg(test)]
#[path = "bybit/tests.rs"]
mod tests;
