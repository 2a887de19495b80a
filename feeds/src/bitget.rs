//! Bitget v2 (bitget.com/api-doc, "Spot" and "Contract", "WebSocket", "Public": "Depth Channel", "New Trades Channel",
//! "Tickers Channel"): spot and contracts, which share one feed.
//!
//! A frame of a book names the one before it (`pseq`), and has a checksum over 25 levels in the wire's own digits; each is
//! verified where it is there: v1, which recordings hold, has the checksum alone, v3 calls the fields otherwise. Levels that
//! are no longer among the venue's come with a size of zero. `books1` gives the quotes; where a recording has none of it,
//! `ticker` does.

mod names;
mod scan;
mod wire;

use std::time::Duration;

use compact_str::{CompactString, ToCompactString};
use ticker_market::{Decimal, Integrity, Levels, Side, Time, Trade};

use self::names::{Kind, native};
use self::wire::{Answer, Arg, BookData, Envelope, Integer, Listed, Ticker, WireTrade};
use crate::keeper::{Keeper, QuoteSource, Stamp, Ways, Wrong};
use crate::okx::Proof;
use crate::resync::{Budget, RESYNC_ANSWER_MAX_MS, Resync};
use crate::roster::{Listing, Roster, Steps};
use crate::wire::{MaybeQuoted, is_object, side_of_quote, undecodable};
use crate::{Adapter, Command, Conn, Fault, Out, Report, Rules};

/// Channels in one subscription, which may have 4096 bytes.
pub const ARGS_PER_SUBSCRIPTION_MAX: usize = 20;

/// Symbols on one connection: three channels each, and the venue asks for no more than fifty.
pub const SYMBOLS_MAX: usize = 16;

/// Books subscribed anew in any hour, at most: each takes two of the 240 requests that a connection has.
pub const RESUBSCRIPTIONS_PER_HOUR_MAX: usize = 100;

/// Where the WebSocket is.
pub const WEBSOCKET_URL: &str = "wss://ws.bitget.com/v2/ws/public";

const REST: &str = "https://api.bitget.com/api/v2";

/// Bitget's decoder.
#[derive(Debug)]
pub struct Bitget {
    roster: Roster,
    /// What only Bitget keeps of an instrument, by its number.
    own: Vec<Own>,
    listing: Listing,
    /// The lists that hold what is wanted, and how many of them came.
    lists: Vec<Kind>,
    listed: usize,
    list: Resync,
    resubscriptions: Budget,
}

#[derive(Clone, Default, Debug)]
struct Own {
    /// The last `seq` of the book.
    last: Option<i64>,
    /// When the last `books1` was made, and whether there was any since the connection opened.
    top_ms: i64,
    has_top: bool,
    /// The first snapshot of trades is of the past; a later one fills the hole that a broken connection left.
    trades_begun: bool,
    /// Trades that the venue gave no id.
    unnamed: u64,
    proof: Proof,
}

impl Bitget {
    /// For these symbols in normal form; none for whatever comes.
    pub fn new(symbols: &[String]) -> Self {
        let ways = Ways { integrity: Integrity::Sequenced, quotes: QuoteSource::Ticker };
        let roster = Roster::new("bitget", ways, symbols);
        let mut lists: Vec<Kind> = roster.wanted().iter().map(|symbol| Kind::of_symbol(symbol)).collect();
        lists.sort();
        lists.dedup();
        Self {
            roster,
            own: Vec::new(),
            listing: Listing::default(),
            lists,
            listed: 0,
            list: Resync::default(),
            resubscriptions: Budget::new(RESUBSCRIPTIONS_PER_HOUR_MAX, 3_600_000),
        }
    }

    fn keep(&mut self, kind: Kind, native: &str, out: &mut Out) -> Option<(&mut Keeper, &mut Own)> {
        let key = kind.key(native);
        let describe = || self.listing.describe(&key, || kind.normal(native));
        let keeper = self.roster.keep_as(&key, native, describe, out)?;
        let number = keeper.number() as usize;
        if self.own.len() <= number {
            self.own.resize(number + 1, Own::default());
        }
        Some((keeper, &mut self.own[number]))
    }

    fn decode(&mut self, conn: Conn, bytes: &[u8], recv: Time, out: &mut Out) -> Result<(), serde_json::Error> {
        if let Some(scan::BookFrame { arg, action, book }) = scan::book(bytes, out) {
            if let Some(kind) = Kind::of(&arg.inst_type, &arg.native) {
                self.books(conn, (kind, &arg.native), action == "snapshot", book, recv, out);
            }
            return Ok(());
        }
        if let Some(scan::TradesFrame { arg, action, trades, is_newest_first }) = scan::trades(bytes) {
            if let Some(kind) = Kind::of(&arg.inst_type, &arg.native) {
                let (of, snapshot) = ((kind, &*arg.native), action == "snapshot");
                if is_newest_first {
                    self.trades(conn, of, snapshot, trades, recv, out);
                } else {
                    self.trades(conn, of, snapshot, trades.rev(), recv, out);
                }
            }
            return Ok(());
        }
        let envelope: Envelope<'_> = serde_json::from_slice(bytes)?;
        let arg = envelope.arg.unwrap_or_default();
        if !envelope.event.is_empty() {
            if envelope.event == "error" {
                let code = envelope.code.map_or("", |code| code.get().trim_matches('"'));
                let native = Some(arg.native.into_owned()).filter(|native| !native.is_empty());
                let detail = format!("{code}: {}", envelope.msg.unwrap_or_default());
                out.reports.push(Report { fault: Fault::Refused, native, detail });
            }
            return Ok(());
        }
        let data = envelope.data.map_or("[]", |raw| raw.get());
        let Arg { inst_type, channel, native } = &arg;
        let Some(kind) = Kind::of(inst_type, native) else { return Ok(()) };
        let snapshot = envelope.action == "snapshot";
        match &**channel {
            "books" => {
                for book in serde_json::from_str::<Vec<BookData>>(data)? {
                    self.books(conn, (kind, native), snapshot, book, recv, out);
                }
            }
            "books5" | "books15" => {
                let depth = if *channel == "books5" { 5 } else { 15 };
                for book in serde_json::from_str::<Vec<BookData>>(data)? {
                    let stamp = Stamp { ts: time(book.ts), recv };
                    let [bids, asks] = [book.bids, book.asks].map(|side| side.unwrap_or_default().0);
                    let levels = Levels { bids, asks, ..Levels::default() };
                    if let Some((keeper, _)) = self.keep(kind, native, out) {
                        keeper.window(conn, depth, &levels, stamp, out);
                    }
                }
            }
            "books1" => {
                for top in serde_json::from_str::<Vec<BookData>>(data)? {
                    self.top(conn, (kind, native), &top, recv, out);
                }
            }
            "ticker" | "tickers" => {
                for ticker in serde_json::from_str::<Vec<Ticker>>(data)? {
                    self.ticker(conn, (kind, native), &ticker, recv, out);
                }
            }
            "trade" | "publicTrade" => {
                let mut trades = serde_json::from_str::<Vec<WireTrade<'_>>>(data)?;
                if trades.first().map(order) > trades.last().map(order) {
                    trades.reverse();
                }
                self.trades(conn, (kind, native), snapshot, trades.into_iter(), recv, out);
            }
            // What we did not subscribe to is somebody else's.
            channel => out.pass_over(channel),
        }
        Ok(())
    }

    fn books(
        &mut self,
        conn: Conn,
        (kind, native): (Kind, &str),
        snapshot: bool,
        book: BookData,
        recv: Time,
        out: &mut Out,
    ) {
        let Some((keeper, own)) = self.keep(kind, native, out) else { return };
        let checksum = book.checksum.unwrap_or(0);
        if snapshot {
            keeper.set_integrity(match (checksum, book.seq, book.pseq) {
                (0, Some(_), Some(_)) => Integrity::Sequenced,
                (0, ..) => Integrity::Ordered,
                _ => Integrity::Verified,
            });
        }
        keeper.heard(conn, recv, out);
        let stamp = Stamp { ts: time(book.ts), recv };
        let seq = book.seq.map(|seq| seq.0);
        let [bids, asks] = [book.bids, book.asks].map(|side| side.unwrap_or_default().0);
        let levels = Levels { bids, asks, ..Levels::default() };
        if snapshot {
            own.last = seq;
            keeper.snapshot(conn, levels, |book| own.proof.prove_whole(book, checksum), stamp, out);
        } else if keeper.owner() == Some(conn) && keeper.is_live() {
            let before = book.pseq.map(|pseq| pseq.0).filter(|pseq| *pseq != 0);
            match place(own.last, before, seq) {
                Place::Next => {
                    own.last = seq.or(own.last);
                    keeper.update(&levels, |book| own.proof.prove(book, &levels, checksum), stamp, out);
                }
                Place::Again => {}
                Place::Gap(detail) => keeper.fault(Wrong { fault: Fault::Gap, detail }, stamp, out),
            }
            out.recycle(levels);
        }
        self.resync_due(recv, out);
    }

    fn top(&mut self, conn: Conn, (kind, native): (Kind, &str), top: &BookData, recv: Time, out: &mut Out) {
        let Some((keeper, own)) = self.keep(kind, native, out) else { return };
        keeper.heard(conn, recv, out);
        own.has_top = true;
        let best = |side: &Option<crate::wire::LevelPairs>| {
            let level = side.as_ref().and_then(|levels| levels.0.first());
            level.and_then(|level| side_of_quote(level.price, level.size))
        };
        let ts = time(top.ts);
        if own.newer(ts, keeper.owner() == Some(conn)) {
            keeper.ticker(best(&top.bids), best(&top.asks), Stamp { ts, recv }, out);
        }
    }

    fn ticker(&mut self, conn: Conn, (kind, native): (Kind, &str), ticker: &Ticker, recv: Time, out: &mut Out) {
        let value = |number: Option<MaybeQuoted>| number.and_then(|number| number.0).unwrap_or_default();
        if ticker.bid_size.is_none() || ticker.ask_size.is_none() {
            return;
        }
        let Some((keeper, own)) = self.keep(kind, native, out) else { return };
        keeper.heard(conn, recv, out);
        let ts = time(ticker.ts);
        if !own.has_top && own.newer(ts, keeper.owner() == Some(conn)) {
            let bid = side_of_quote(value(ticker.bid), value(ticker.bid_size));
            let ask = side_of_quote(value(ticker.ask), value(ticker.ask_size));
            keeper.ticker(bid, ask, Stamp { ts, recv }, out);
        }
    }

    /// The oldest of these trades comes first.
    fn trades<'a>(
        &mut self,
        conn: Conn,
        (kind, native): (Kind, &str),
        snapshot: bool,
        trades: impl Iterator<Item = WireTrade<'a>>,
        recv: Time,
        out: &mut Out,
    ) {
        let Some((keeper, own)) = self.keep(kind, native, out) else { return };
        keeper.heard(conn, recv, out);
        let past = snapshot && !std::mem::replace(&mut own.trades_begun, true);
        for trade in trades {
            let side = match trade.side.as_bytes() {
                [b'b' | b'B', ..] => Some(Side::Buy),
                [b's' | b'S', ..] => Some(Side::Sell),
                _ => None,
            };
            let stamp = Stamp { ts: Some(Time::from_millis(trade.ts.0)), recv };
            let (price, size) = (trade.price.0, trade.size.0);
            let told = |trade_id| Trade { price, size, side, trade_id, reference: None };
            match trade.id {
                Some(id) if past => keeper.past_trade(&id),
                Some(id) => keeper.named_trade(told(id.to_compact_string()), stamp, out),
                // Nothing says which of a snapshot's were told already.
                None if snapshot => {}
                None => {
                    own.unnamed += 1;
                    keeper.new_trade(told(own.unnamed.to_compact_string()), stamp, out);
                }
            }
        }
    }

    fn instruments(&mut self, kind: Kind, list: Vec<Listed<'_>>, recv: Time, out: &mut Out) {
        for listed in list {
            let delivery = listed.delivery.and_then(|millis| millis.parse().ok()).filter(|millis| *millis > 0);
            let symbol = kind.listed(&listed.base, &listed.quote, delivery);
            if !self.roster.wants(&symbol) {
                continue;
            }
            let step = |digits: Option<Integer>, units: i64| {
                let digits = u32::try_from(digits?.0).ok().filter(|digits| *digits <= 28)?;
                Some(Decimal::new(units, digits).normalize())
            };
            let tick = step(listed.price_digits, listed.price_step.map_or(1, |units| units.0));
            let lot = listed.lot.and_then(|lot| lot.0).or_else(|| step(listed.size_digits, 1));
            let key = kind.key(&listed.symbol);
            self.listing.insert(&key, symbol, Steps { tick, lot });
            if let Some(keeper) = self.roster.by_native(&key) {
                keeper.describe(tick, lot, out);
                let halted = matches!(&*listed.status, "halt" | "offline" | "maintain" | "off");
                keeper.halt(halted.then_some("halt"), recv, out);
            }
        }
        self.list.done();
        self.listed += 1;
        if self.listed < self.lists.len() {
            out.commands.extend(self.list_url().map(Command::Fetch));
        }
    }

    /// The list that has not come yet.
    fn list_url(&self) -> Option<String> {
        Some(match self.lists.get(self.listed).or(self.lists.first())? {
            Kind::Spot => format!("{REST}/spot/public/symbols"),
            kind => format!("{REST}/mix/market/contracts?productType={}", kind.name()),
        })
    }

    /// Subscribes anew the books that are due.
    fn resync_due(&mut self, now: Time, out: &mut Out) {
        for keeper in self.roster.iter_mut().filter(|k| k.resync.is_due(now)) {
            if !self.resubscriptions.take(now) {
                break;
            }
            keeper.resync.asked(now);
            let Some(conn) = keeper.owner() else { continue };
            let kind = Kind::of_symbol(&keeper.instrument().symbol);
            let arg = arg(kind, "books", &keeper.instrument().native);
            for op in ["unsubscribe", "subscribe"] {
                out.commands.push(Command::Send(conn, format!(r#"{{"op":"{op}","args":[{arg}]}}"#)));
            }
        }
    }
}

impl Own {
    /// Is this not older than what was told? While one connection replaces another, both deliver.
    fn newer(&mut self, ts: Option<Time>, ours: bool) -> bool {
        let made_ms = ts.map_or(0, Time::millis);
        let newer = ours || made_ms >= self.top_ms;
        if newer {
            self.top_ms = made_ms;
        }
        newer
    }
}

/// Where a frame of a book stands in its chain.
enum Place {
    Next,
    Again,
    Gap(String),
}

fn place(last: Option<i64>, before: Option<i64>, seq: Option<i64>) -> Place {
    match (last, before, seq) {
        (Some(last), Some(before), _) if before == last => Place::Next,
        (Some(last), _, Some(seq)) if seq == last => Place::Again,
        (Some(last), Some(before), _) => Place::Gap(format!("what follows {before} came, the book is at {last}")),
        (Some(last), None, Some(seq)) if seq < last => Place::Gap(format!("{seq} came after {last}")),
        _ => Place::Next,
    }
}

/// What the order of trades is by: ids rise, as times do.
fn order(trade: &WireTrade<'_>) -> (i64, u64) {
    (trade.ts.0, trade.id.as_ref().and_then(|id| id.parse().ok()).unwrap_or(0))
}

fn time(millis: Option<Integer>) -> Option<Time> {
    millis.map(|millis| Time::from_millis(millis.0))
}

/// One channel of a subscription.
fn arg(kind: Kind, channel: &str, native: &str) -> String {
    format!(r#"{{"instType":"{}","channel":"{channel}","instId":"{native}"}}"#, kind.name())
}

impl Adapter for Bitget {
    fn rules(&self) -> Rules {
        Rules {
            venue: "bitget",
            websocket_url: WEBSOCKET_URL.to_owned(),
            instruments_url: self.list_url(),
            // A ping every 30 seconds is asked for, and answered in band.
            silence_max: Duration::from_secs(40),
            ping_text: Some("ping"),
            ping_every: Duration::from_secs(25),
            // Cut at 24 hours.
            age_max: Some(Duration::from_secs(23 * 3_600)),
            sends_per_second_max: 5,
            ticket_url: None,
            symbols_max: Some(SYMBOLS_MAX),
        }
    }

    fn opened(&mut self, conn: Conn, _url: &str, now: Time, out: &mut Out) {
        self.roster.report_unusable(out);
        let names: Vec<(Kind, CompactString)> =
            self.roster.wanted().iter().map(|symbol| (Kind::of_symbol(symbol), native(symbol))).collect();
        for (kind, native) in &names {
            if let Some((keeper, own)) = self.keep(*kind, native, out) {
                own.has_top = false;
                keeper.opened(conn, now, out);
                keeper.resync.expect(now.plus_millis(RESYNC_ANSWER_MAX_MS));
            }
        }
        let args: Vec<String> = ["books1", "trade", "books"]
            .iter()
            .flat_map(|channel| names.iter().map(move |(kind, native)| arg(*kind, channel, native)))
            .collect();
        for part in args.chunks(ARGS_PER_SUBSCRIPTION_MAX) {
            out.commands.push(Command::Send(conn, format!(r#"{{"op":"subscribe","args":[{}]}}"#, part.join(","))));
        }
    }

    fn frame(&mut self, conn: Conn, bytes: &[u8], recv: Time, out: &mut Out) {
        if bytes == b"pong" {
            return;
        }
        if !is_object(bytes) || self.decode(conn, bytes, recv, out).is_err() {
            undecodable(bytes, out);
        }
    }

    fn response(&mut self, url: &str, body: &[u8], recv: Time, out: &mut Out) {
        let kind = match url.split_once("productType=").map(|(_, rest)| rest) {
            Some(product) => Kind::of(product.split('&').next().unwrap_or_default(), ""),
            None => Some(Kind::Spot).filter(|_| url.contains("/spot/public/symbols")),
        };
        let Some(kind) = kind else { return };
        let Ok(answer) = serde_json::from_slice::<Answer<'_>>(body) else { return undecodable(body, out) };
        if answer.code != "00000" {
            let detail = format!("{}: {}", answer.code, answer.msg.unwrap_or_default());
            return out.reports.push(Report { fault: Fault::Refused, native: None, detail });
        }
        self.instruments(kind, answer.data.unwrap_or_default(), recv, out);
    }

    fn failed(&mut self, url: &str, now: Time, _out: &mut Out) {
        if url.contains("/public/symbols") || url.contains("/market/contracts") {
            self.list.request(now);
            self.list.asked(now);
        }
    }

    fn closed(&mut self, conn: Conn, reason: &str, now: Time, out: &mut Out) {
        self.roster.lost(conn, reason, now, out);
    }

    fn next_timer(&self) -> Option<Time> {
        let resync = self.roster.next_resync().map(|at| self.resubscriptions.earliest(at));
        resync.into_iter().chain(self.list.at()).min()
    }

    fn timer(&mut self, now: Time, out: &mut Out) {
        self.resync_due(now, out);
        if self.list.is_due(now) {
            self.list.asked(now);
            out.commands.extend(self.list_url().map(Command::Fetch));
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
#[path = "bitget/tests.rs"]
mod tests;
