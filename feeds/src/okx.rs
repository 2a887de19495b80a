//! OKX v5 (okx.com/docs-v5/en, "Order Book Trading", "WS / Order book channel"): spot, swaps, futures and options, which
//! share one feed.
//!
//! Each frame of a book names the one before it: `prevSeqId` is the last `seqId`. The ids are no counters, and after
//! maintenance they go on below where they were. The first frame of a subscription was a snapshot; by the notice of
//! February 2026 it is to go, and the snapshot comes by REST: both ways are taken. The checksum is always 0 since June
//! 2026; where it is another, as in older recordings, it is verified.

mod names;
mod scan;
mod wire;

use std::time::Duration;

use compact_str::{CompactString, ToCompactString};
use ticker_market::{Book, Integrity, Level, Levels, Side, Time, Trade, decimal};

use self::names::{list_of, native, normal};
use self::wire::{Answer, BookData, Envelope, Listed, WireTrade};
use crate::depth::{DepthSync, Diff, Misfit, Rule, Step};
use crate::keeper::{Keeper, QuoteSource, Stamp, Ways, Wrong};
use crate::resync::{Budget, RESYNC_ANSWER_MAX_MS, Resync};
use crate::roster::{Listing, Roster, Steps};
use crate::symbols::query;
use crate::wire::{for_each, is_object, undecodable};
use crate::written::Written;
use crate::{Adapter, Command, Conn, Fault, Out, Report, Rules, rest_books};

/// Levels a side of the `books` channel, and of the snapshots that are fetched for it.
pub const DEPTH: usize = 400;

/// Levels a side that the checksum covers.
pub const CHECKSUM_LEVELS: usize = 25;

/// Channels in one subscription; a message may be 64 KiB long.
pub const ARGS_PER_SUBSCRIPTION_MAX: usize = 100;

/// Snapshots fetched in any two seconds, at most: half of what an address may.
pub const SNAPSHOTS_PER_TWO_SECONDS_MAX: usize = 20;

/// Where the WebSocket is.
pub const WEBSOCKET_URL: &str = "wss://ws.okx.com:8443/ws/v5/public";

const REST: &str = "https://www.okx.com/api/v5";

/// OKX's decoder.
#[derive(Debug)]
pub struct Okx {
    roster: Roster,
    /// What only OKX keeps of an instrument, by its number.
    own: Vec<Own>,
    listing: Listing,
    /// The lists that hold what is wanted, and how many of them came.
    lists: Vec<CompactString>,
    listed: usize,
    list: Resync,
    snapshots: Budget,
    /// The connection that was opened last.
    newest: Option<Conn>,
}

#[derive(Clone, Debug)]
struct Own {
    sync: DepthSync,
    /// Did the subscription begin with a snapshot? Then a new subscription brings one.
    in_band: bool,
    /// When the last `bbo-tbt` was made: while one connection replaces another, both deliver.
    top_ms: i64,
    proof: Proof,
}

impl Okx {
    /// For these symbols in normal form; none for whatever comes.
    pub fn new(symbols: &[String]) -> Self {
        let ways = Ways { integrity: Integrity::Sequenced, quotes: QuoteSource::Ticker };
        let roster = Roster::new("okx", ways, symbols);
        let mut lists: Vec<CompactString> = roster.wanted().iter().map(|symbol| list_of(&native(symbol))).collect();
        lists.sort();
        lists.dedup();
        Self {
            roster,
            own: Vec::new(),
            listing: Listing::default(),
            lists,
            listed: 0,
            list: Resync::default(),
            snapshots: Budget::new(SNAPSHOTS_PER_TWO_SECONDS_MAX, 2_000),
            newest: None,
        }
    }

    /// The book of an instrument, by the venue's own name, while it is live.
    pub fn book(&self, native: &str) -> Option<&Book> {
        self.roster.iter().find(|k| k.instrument().native == native && k.is_live()).map(|k| k.book())
    }

    fn keep(&mut self, native: &str, out: &mut Out) -> Option<(&mut Keeper, &mut Own)> {
        let describe = || self.listing.describe(native, || normal(native));
        let keeper = self.roster.keep(native, describe, out)?;
        let number = keeper.number() as usize;
        if self.own.len() <= number {
            let sync = DepthSync::new(Rule::Chain);
            self.own.resize(number + 1, Own { sync, in_band: false, top_ms: 0, proof: Proof::default() });
        }
        Some((keeper, &mut self.own[number]))
    }

    fn decode(&mut self, conn: Conn, bytes: &[u8], recv: Time, out: &mut Out) -> Result<(), serde_json::Error> {
        if let Some(frame) = scan::book(bytes, out) {
            self.take_book(conn, frame.channel, frame.native, frame.action, frame.book, recv, out);
            return Ok(());
        }
        if let Some(trades) = scan::trades(bytes) {
            trades.for_each(|trade| self.trade(conn, &trade, recv, out));
            return Ok(());
        }
        let envelope: Envelope<'_> = serde_json::from_slice(bytes)?;
        if !envelope.event.is_empty() {
            self.event(conn, envelope, out);
            return Ok(());
        }
        let data = envelope.data.map_or("[]", |raw| raw.get());
        match &*envelope.arg.channel {
            channel @ ("books" | "books-l2-tbt" | "books50-l2-tbt" | "books5" | "bbo-tbt") => {
                for_each(data, |book: BookData<'_>| {
                    self.take_book(conn, channel, &envelope.arg.native, &envelope.action, book, recv, out);
                })?;
            }
            "trades" | "trades-all" => {
                for_each(data, |trade: WireTrade<'_>| self.trade(conn, &trade, recv, out))?;
            }
            // What we did not subscribe to is somebody else's.
            channel => out.pass_over(channel),
        }
        Ok(())
    }

    /// The answer to an operation, or a notice.
    fn event(&mut self, conn: Conn, envelope: Envelope<'_>, out: &mut Out) {
        match &*envelope.event {
            "error" => {
                let (code, msg) = (envelope.code.unwrap_or_default(), envelope.msg.unwrap_or_default());
                let native = Some(envelope.arg.native.into_owned()).filter(|native| !native.is_empty());
                out.reports.push(Report { fault: Fault::Refused, native, detail: format!("{code}: {msg}") });
            }
            // The venue closes the connection soon.
            "notice" => out.commands.push(Command::Reconnect(conn, "notice")),
            "subscribe" | "unsubscribe" | "channel-conn-count" => {}
            event => out.pass_over(event),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one frame")]
    fn take_book(
        &mut self,
        conn: Conn,
        channel: &str,
        native: &str,
        action: &str,
        book: BookData<'_>,
        recv: Time,
        out: &mut Out,
    ) {
        let depth = match channel {
            "books" | "books-l2-tbt" => DEPTH,
            "books50-l2-tbt" => 50,
            "bbo-tbt" => return self.top(conn, native, book, recv, out),
            "books5" => {
                let stamp = Stamp { ts: millis(&book.ts), recv };
                let levels = Levels { bids: book.bids.0, asks: book.asks.0, ..Levels::default() };
                if let Some((keeper, _)) = self.keep(native, out) {
                    keeper.window(conn, 5, &levels, stamp, out);
                }
                return out.recycle(levels);
            }
            // What we did not subscribe to is somebody else's.
            _ => return,
        };
        let snapshot = action == "snapshot" || book.before == Some(-1);
        self.books(conn, native, depth, snapshot, book, recv, out);
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one frame")]
    fn books(
        &mut self,
        conn: Conn,
        native: &str,
        depth: usize,
        snapshot: bool,
        book: BookData<'_>,
        recv: Time,
        out: &mut Out,
    ) {
        let newest = self.newest == Some(conn);
        let Some((keeper, own)) = self.keep(native, out) else { return };
        if book.last.is_none() {
            keeper.set_integrity(Integrity::Verified);
        }
        keeper.heard(conn, recv, out);
        let ours = keeper.owner() == Some(conn);
        let stamp = Stamp { ts: millis(&book.ts), recv };
        let levels = Levels { bids: book.bids.0, asks: book.asks.0, ..Levels::default() };
        let checksum = book.checksum.unwrap_or(0);
        let proof = &mut own.proof;
        if snapshot {
            keeper.set_depth(depth);
            own.in_band = true;
            if keeper.snapshot(conn, levels, |book| proof.prove_whole(book, checksum), stamp, out) {
                own.sync.snapshot_in_band(id(book.last), conn);
            } else {
                own.sync.reset();
            }
        } else if book.last.is_none() {
            // From before the ids: the checksum alone proves it.
            if ours {
                keeper.update(&levels, |book| proof.prove(book, &levels, checksum), stamp, out);
            }
            out.recycle(levels);
        } else if ours || !own.in_band {
            // While one connection replaces another, both deliver. Where each begins with a snapshot, that is when the
            // newer one takes over; elsewhere as soon as it reaches what the book has.
            let diff = Diff { before: id(book.before), last: id(book.last), conn, levels, ts: stamp.ts };
            match own.sync.diff(diff) {
                Step::Old if newest => keeper.adopt(conn),
                Step::Old => {}
                Step::Apply(diff) => {
                    if newest {
                        keeper.adopt(conn);
                    }
                    let prove = |book: &Book| proof.prove(book, &diff.levels, checksum);
                    if !keeper.update(&diff.levels, prove, stamp, out) {
                        own.sync.reset();
                    }
                    out.recycle(diff.levels);
                }
                Step::Buffered => {
                    if !keeper.is_live() && !own.in_band && !keeper.resync.is_asked() && !keeper.resync.is_due(recv) {
                        keeper.set_depth(depth);
                        keeper.resync.request(recv);
                    }
                }
                Step::Gap { last, before } => {
                    let detail = format!("what follows {before} came, the book is at {last}");
                    keeper.fault(Wrong { fault: Fault::Gap, detail }, stamp, out);
                }
            }
        }
        self.resync_due(recv, out);
    }

    fn top(&mut self, conn: Conn, native: &str, top: BookData<'_>, recv: Time, out: &mut Out) {
        let Some((keeper, own)) = self.keep(native, out) else { return };
        keeper.heard(conn, recv, out);
        let ts = millis(&top.ts);
        let made_ms = ts.map_or(0, Time::millis);
        if made_ms < own.top_ms && keeper.owner() != Some(conn) {
            return;
        }
        own.top_ms = made_ms;
        let best = |levels: &[Level]| levels.first().copied().filter(|level| !level.size.is_zero());
        keeper.ticker(best(&top.bids.0), best(&top.asks.0), Stamp { ts, recv }, out);
        out.recycle(Levels { bids: top.bids.0, asks: top.asks.0, ..Levels::default() });
    }

    fn trade(&mut self, conn: Conn, trade: &WireTrade<'_>, recv: Time, out: &mut Out) {
        let Ok(id) = trade.id.parse::<u64>() else {
            let detail = format!("trade id {:?} is no number", trade.id);
            let native = Some(trade.native.to_string());
            return out.reports.push(Report { fault: Fault::Undecodable, native, detail });
        };
        let Some((keeper, _)) = self.keep(&trade.native, out) else { return };
        keeper.heard(conn, recv, out);
        let side = match &*trade.side {
            "buy" => Some(Side::Buy),
            "sell" => Some(Side::Sell),
            _ => None,
        };
        let (price, size) = (trade.price.0, trade.size.0);
        let told = Trade { price, size, side, trade_id: id.to_compact_string(), reference: None };
        keeper.trade(id, told, Stamp { ts: millis(&trade.ts), recv }, out);
    }

    /// A snapshot by REST.
    fn snapshot(&mut self, url: &str, data: &str, recv: Time, out: &mut Out) -> Result<(), serde_json::Error> {
        let Some(native) = query(url, "instId") else { return Ok(()) };
        let Some(book) = serde_json::from_str::<Vec<BookData<'_>>>(data)?.pop() else { return Ok(()) };
        let Some(last) = book.last else {
            let detail = "a snapshot without `seqId` cannot be continued".to_owned();
            out.reports.push(Report { fault: Fault::Refused, native: Some(native.to_owned()), detail });
            return Ok(());
        };
        let Some((keeper, own)) = self.keep(native, out) else { return Ok(()) };
        if own.sync.is_synced() || keeper.is_stale() {
            // An answer to a question asked twice, or one that came too late.
            return Ok(());
        }
        let levels = Levels { bids: book.bids.0, asks: book.asks.0, ..Levels::default() };
        own.proof.forget();
        match rest_books::begin(&mut own.sync, keeper, (id(Some(last)), &levels, millis(&book.ts)), recv, out) {
            Ok(()) => {}
            Err(Misfit::TooOld { .. }) => keeper.resync.request(recv),
            Err(Misfit::Hole { last, before }) => {
                let detail = format!("what follows {before} came after {last}");
                keeper.fault(Wrong { fault: Fault::Gap, detail }, Stamp::here(recv), out);
            }
        }
        self.resync_due(recv, out);
        Ok(())
    }

    fn instruments(&mut self, data: &str, recv: Time, out: &mut Out) -> Result<(), serde_json::Error> {
        for listed in serde_json::from_str::<Vec<Listed<'_>>>(data)? {
            let symbol = normal(&listed.native);
            if !self.roster.wants(&symbol) {
                continue;
            }
            let steps = Steps { tick: listed.tick.0, lot: listed.lot.0 };
            self.listing.insert(&listed.native, symbol, steps);
            if let Some(keeper) = self.roster.by_native(&listed.native) {
                keeper.describe(steps.tick, steps.lot, out);
                let halted = matches!(&*listed.state, "suspend" | "preopen");
                keeper.halt(halted.then_some("halt"), recv, out);
            }
        }
        self.list.done();
        self.listed += 1;
        if self.listed < self.lists.len() {
            out.commands.extend(self.list_url().map(Command::Fetch));
        }
        Ok(())
    }

    /// The list that has not come yet.
    fn list_url(&self) -> Option<String> {
        let list = self.lists.get(self.listed).or(self.lists.first())?;
        Some(format!("{REST}/public/instruments?instType={list}"))
    }

    fn resync_due(&mut self, now: Time, out: &mut Out) {
        for keeper in self.roster.iter_mut().filter(|k| k.resync.is_due(now)) {
            let own = &mut self.own[keeper.number() as usize];
            let native = &keeper.instrument().native;
            if !own.in_band && own.sync.is_buffering() {
                if !self.snapshots.take(now) {
                    break;
                }
                out.commands.push(Command::Fetch(format!("{REST}/market/books?instId={native}&sz={DEPTH}&source=0")));
            } else if let Some(conn) = keeper.owner() {
                // If no snapshot comes with it, the next one is fetched.
                own.in_band = false;
                for op in ["unsubscribe", "subscribe"] {
                    let text = format!(r#"{{"op":"{op}","args":[{{"channel":"books","instId":"{native}"}}]}}"#);
                    out.commands.push(Command::Send(conn, text));
                }
            }
            keeper.resync.asked(now);
        }
    }
}

impl Adapter for Okx {
    fn rules(&self) -> Rules {
        Rules {
            venue: "okx",
            websocket_url: WEBSOCKET_URL.to_owned(),
            instruments_url: self.list_url(),
            // A connection is cut after 30 seconds without a frame either way; a ping is answered in band.
            silence_max: Duration::from_secs(30),
            ping_text: Some("ping"),
            ping_every: Duration::from_secs(20),
            age_max: None,
            sends_per_second_max: 3,
            ticket_url: None,
            symbols_max: None,
        }
    }

    fn opened(&mut self, conn: Conn, _url: &str, now: Time, out: &mut Out) {
        self.roster.report_unusable(out);
        self.newest = Some(conn);
        let natives: Vec<CompactString> = self.roster.wanted().iter().map(|symbol| native(symbol)).collect();
        for native in &natives {
            if let Some((keeper, own)) = self.keep(native, out) {
                keeper.opened(conn, now, out);
                if !keeper.is_live() {
                    own.in_band = false;
                    keeper.resync.expect(now.plus_millis(RESYNC_ANSWER_MAX_MS));
                }
            }
        }
        let args: Vec<String> = ["bbo-tbt", "trades", "books"]
            .iter()
            .flat_map(|channel| natives.iter().map(move |n| format!(r#"{{"channel":"{channel}","instId":"{n}"}}"#)))
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
        let (is_book, is_list) = (url.contains("/market/books"), url.contains("/public/instruments"));
        if !is_book && !is_list {
            return;
        }
        let Ok(answer) = serde_json::from_slice::<Answer<'_>>(body) else { return undecodable(body, out) };
        if answer.code != "0" {
            let native = query(url, "instId").map(str::to_owned);
            let detail = format!("{}: {}", answer.code, answer.msg);
            return out.reports.push(Report { fault: Fault::Refused, native, detail });
        }
        let data = answer.data.map_or("[]", |raw| raw.get());
        let done = if is_book { self.snapshot(url, data, recv, out) } else { self.instruments(data, recv, out) };
        if done.is_err() {
            undecodable(body, out);
        }
    }

    fn failed(&mut self, url: &str, now: Time, _out: &mut Out) {
        if url.contains("/public/instruments") {
            self.list.request(now);
            self.list.asked(now);
        } else if let Some(keeper) = query(url, "instId").and_then(|native| self.roster.by_native(native))
            && !keeper.is_live()
        {
            keeper.resync.request(now);
        }
    }

    fn closed(&mut self, conn: Conn, reason: &str, now: Time, out: &mut Out) {
        for keeper in self.roster.iter_mut().filter(|k| k.owner() == Some(conn)) {
            if let Some(own) = self.own.get_mut(keeper.number() as usize) {
                own.sync.reset();
                own.in_band = false;
            }
        }
        self.roster.lost(conn, reason, now, out);
    }

    fn next_timer(&self) -> Option<Time> {
        let resync = self.roster.next_resync().map(|at| self.snapshots.earliest(at));
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

/// OKX's own ids are not negative; -1 before a snapshot means none.
fn id(id: Option<i64>) -> u64 {
    id.and_then(|id| u64::try_from(id).ok()).unwrap_or(0)
}

fn millis(text: &str) -> Option<Time> {
    text.parse().ok().map(Time::from_millis)
}

/// The checksum of the documents up to 2026: CRC-32 over `price:size` of the 25 best bids and asks in turn, joined by
/// colons, in the wire's own digits.
#[derive(Clone, Debug)]
pub(crate) struct Proof(Written);

impl Default for Proof {
    fn default() -> Self {
        Self(Written::new(CHECKSUM_LEVELS, |text, _, level| {
            for number in [level.price, level.size] {
                decimal::write_as_is(text, number);
                text.push(b':');
            }
        }))
    }
}

impl Proof {
    /// The book is another.
    fn forget(&mut self) {
        self.0.forget();
    }

    /// As [`Proof::prove`], of another book.
    pub(crate) fn prove_whole(&mut self, book: &Book, expected: i64) -> Result<(), Wrong> {
        self.forget();
        self.prove(book, &Levels::default(), expected)
    }

    /// Is the checksum what was expected, after these changes? Zero proves nothing.
    pub(crate) fn prove(&mut self, book: &Book, changes: &Levels, expected: i64) -> Result<(), Wrong> {
        if expected == 0 {
            self.forget();
            return Ok(());
        }
        self.0.follow(book, changes);
        self.0.prove_in_turn(expected)
    }
}

#[cfg(test)]
#[path = "okx/tests.rs"]
mod tests;
