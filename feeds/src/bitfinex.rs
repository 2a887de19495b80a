//! Bitfinex's WebSocket v2 (docs.bitfinex.com/docs/ws-general, …/reference/ws-public-books).
//!
//! Two flags are asked for: a sequence over all frames of a connection (65536), so that a gap suspects every book on it
//! and the connection is made anew; and a checksum after each change of a book (131072), over its 25 best levels a side: a
//! book whose checksum differs is subscribed anew, alone.
//!
//! A book's changes come one level a frame, so that between two frames it may look crossed: such changes wait for the
//! next ones, at most until the checksum. Prices have five significant digits and so no fixed step.

mod names;
mod scan;
mod wire;

use std::io::Write as _;
use std::time::Duration;

use compact_str::{CompactString, ToCompactString, format_compact};
use hashbrown::HashMap;
use ticker_market::book::{BookSide, order};
use ticker_market::{Book, Decimal, Integrity, Level, Levels, Side, Time, Trade, decimal};

use self::names::{native, normal};
use self::scan::{Body, Frame};
use self::wire::{ChannelFrame, Event, WireLevel, WireTrade};
use crate::keeper::{Keeper, QuoteSource, Stamp, Ways};
use crate::resync::{RESYNC_ANSWER_MAX_MS, Resync};
use crate::roster::{Listing, Roster, Steps};
use crate::sequence::{Place, Sequence};
use crate::wire::undecodable;
use crate::written::Written;
use crate::{Adapter, Command, Conn, Fault, Out, Report, Rules};

/// Levels a side that are subscribed to when live: the most that the venue gives.
pub const DEPTH: usize = 250;

/// Levels a side that the checksum covers.
pub const CHECKSUM_LEVELS: usize = 25;

/// Symbols on one connection: two channels each, of the 25 that it may have.
pub const SYMBOLS_MAX: usize = 12;

/// Changes of one book that wait because it would look crossed, at most.
pub const WAITING_MAX: usize = 64;

/// Channels of one connection that are remembered.
pub const CHANNELS_MAX: usize = 1_024;

/// Where the WebSocket is.
pub const WEBSOCKET_URL: &str = "wss://api-pub.bitfinex.com/ws/2";

/// Where pairs are listed.
pub const PAIRS_URL: &str = "https://api-pub.bitfinex.com/v2/conf/pub:list:pair:exchange,pub:list:pair:futures";

const SEQ_ALL: u64 = 65_536;
const OB_CHECKSUM: u64 = 131_072;
/// Changes come many in a frame, which then looks like a snapshot. Not asked for.
const BULK_UPDATES: u64 = 536_870_912;

/// Bitfinex's decoder.
#[derive(Debug)]
pub struct Bitfinex {
    roster: Roster,
    /// What only Bitfinex keeps of an instrument, by its number.
    own: Vec<Own>,
    listing: Listing,
    list: Resync,
    conns: HashMap<Conn, Link>,
    /// Once for all connections, because a new one has a new name.
    reconnect: Resync,
}

#[derive(Debug)]
struct Own {
    /// Changes that wait.
    waiting: Levels,
    /// What the checksum is over.
    written: Written,
}

/// What is known of a connection.
#[derive(Default, Debug)]
struct Link {
    flags: u64,
    sequence: Sequence,
    channels: HashMap<u64, Subscribed>,
}

/// A channel of a connection.
#[derive(Clone, Debug)]
struct Subscribed {
    kind: Kind,
    native: CompactString,
    /// Its instrument's, if it is kept: each frame would have to look for it by its name.
    number: Option<u32>,
    /// Its snapshot came.
    has_begun: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Book,
    Trades,
}

impl Bitfinex {
    /// For these symbols in normal form; none for whatever comes.
    pub fn new(symbols: &[String]) -> Self {
        let ways = Ways { integrity: Integrity::Verified, quotes: QuoteSource::Ticker };
        Self {
            roster: Roster::new("bitfinex", ways, symbols),
            own: Vec::new(),
            listing: Listing::default(),
            list: Resync::default(),
            conns: HashMap::new(),
            reconnect: Resync::default(),
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
            let own = || Own { waiting: Levels::default(), written: Written::new(CHECKSUM_LEVELS, write_level) };
            self.own.resize_with(number + 1, own);
        }
        Some((keeper, &mut self.own[number]))
    }

    fn number(&mut self, native: &str, out: &mut Out) -> Option<u32> {
        self.keep(native, out).map(|(keeper, _)| keeper.number())
    }

    /// What [`Bitfinex::keep`] gave that number.
    fn kept(&mut self, number: u32) -> Option<(&mut Keeper, &mut Own)> {
        self.roster.at(number as usize).zip(self.own.get_mut(number as usize))
    }

    fn channel(&mut self, conn: Conn, bytes: &[u8], recv: Time, out: &mut Out) -> Result<(), serde_json::Error> {
        if let Some(Frame { channel, body, sequence }) = scan::frame(bytes)
            && let Some(link) = self.conns.get_mut(&conn)
            && let Some(subscribed) = link.channels.get_mut(&channel).filter(|channel| channel.kind == Kind::Book)
            && let Some(of) = subscribed.number
        {
            let number = sequence.filter(|_| link.flags & SEQ_ALL != 0);
            let is_list = matches!(body, Body::List(_));
            let is_bulk = link.flags & BULK_UPDATES != 0 && subscribed.has_begun;
            subscribed.has_begun |= is_list;
            let is_next = number.is_none_or(|number| link.sequence.advance(number));
            if is_next || self.count(conn, number, recv, out) {
                match body {
                    Body::Level(level) => self.levels(conn, of, [level], false, recv, out),
                    Body::List(levels) => self.levels(conn, of, levels, !is_bulk, recv, out),
                    Body::Checksum(checksum) => self.checksum(conn, of, checksum, recv, out),
                    Body::Heartbeat => {}
                }
            }
            self.resync_due(recv, out);
            self.reconnect_due(recv, out);
            return Ok(());
        }
        let frame: ChannelFrame<'_> = serde_json::from_slice(bytes)?;
        let link = self.conns.entry(conn).or_default();
        let channel = link.channels.get(&frame.channel).cloned();
        let counted = link.flags & SEQ_ALL != 0;
        let is_bulk = link.flags & BULK_UPDATES != 0 && channel.as_ref().is_some_and(|channel| channel.has_begun);
        // Decoded before it is counted: a frame that cannot be decoded leaves a gap behind it, as one that never came.
        let data = frame.data();
        let number = frame.sequence().filter(|_| counted);
        match (channel.map(|channel| (channel.kind, channel.native)), frame.word()) {
            (Some((Kind::Book, native)), None) => {
                let is_list = data.starts_with("[[") || data == "[]";
                let levels: Vec<WireLevel> =
                    if is_list { serde_json::from_str(data)? } else { vec![serde_json::from_str(data)?] };
                if self.count(conn, number, recv, out)
                    && let Some(of) = self.number(&native, out)
                {
                    self.levels(conn, of, levels, is_list && !is_bulk, recv, out);
                }
                if let Some(channel) = self.conns.get_mut(&conn).and_then(|link| link.channels.get_mut(&frame.channel))
                {
                    channel.has_begun = true;
                }
            }
            (Some((Kind::Book, native)), Some("cs")) => {
                let checksum: i64 = serde_json::from_str(data)?;
                if self.count(conn, number, recv, out)
                    && let Some(of) = self.number(&native, out)
                {
                    self.checksum(conn, of, checksum, recv, out);
                }
            }
            (Some((Kind::Trades, native)), word @ (None | Some("te" | "tu"))) => {
                let (mut history, one): (Vec<WireTrade>, Option<WireTrade>) = match word {
                    None => (serde_json::from_str(data)?, None),
                    Some(_) => (Vec::new(), Some(serde_json::from_str(data)?)),
                };
                if self.count(conn, number, recv, out) {
                    // Newest first in the history.
                    history.sort_by_key(|trade| trade.0);
                    for trade in history.iter().chain(&one) {
                        self.trade(conn, &native, trade, recv, out);
                    }
                }
            }
            // Heartbeats count in the sequence, and so does what we did not subscribe to.
            (_, word) => {
                self.count(conn, number, recv, out);
                if word != Some("hb") {
                    out.pass_over(word.unwrap_or("channel"));
                }
            }
        }
        self.resync_due(recv, out);
        self.reconnect_due(recv, out);
        Ok(())
    }

    /// Counts a frame of a connection. Returns whether it is to be taken: a repeated one is not.
    fn count(&mut self, conn: Conn, number: Option<u64>, recv: Time, out: &mut Out) -> bool {
        let Some(number) = number else { return true };
        let sequence = &mut self.conns.entry(conn).or_default().sequence;
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

    fn levels(
        &mut self,
        conn: Conn,
        of: u32,
        list: impl IntoIterator<Item = WireLevel>,
        snapshot: bool,
        recv: Time,
        out: &mut Out,
    ) {
        let broken = snapshot && self.conns.get(&conn).is_some_and(|link| link.sequence.broken);
        let Some((keeper, Own { waiting, written })) = self.kept(of) else { return };
        keeper.heard(conn, recv, out);
        if !snapshot && (keeper.owner() != Some(conn) || !keeper.is_live()) {
            return;
        }
        let mut levels = Levels::default();
        let into = if snapshot { &mut levels } else { &mut *waiting };
        for (level, is_bid) in list.into_iter().map(|level| level.level()) {
            if is_bid { into.bids.push(level) } else { into.asks.push(level) }
        }
        if snapshot {
            *waiting = Levels::default();
            written.forget();
            // What comes by a broken connection may have holes already; the new one is on its way.
            if !broken {
                keeper.snapshot(conn, levels, |_| Ok(()), Stamp::here(recv), out);
            }
        } else if !crosses(keeper.book(), waiting) || waiting.bids.len() + waiting.asks.len() > WAITING_MAX {
            let follow = |book: &Book| {
                // Without checksums there is nothing to write.
                if !written.is_empty() {
                    written.follow(book, waiting);
                }
                Ok(())
            };
            keeper.update(waiting, follow, Stamp::here(recv), out);
            waiting.bids.clear();
            waiting.asks.clear();
        }
    }

    fn checksum(&mut self, conn: Conn, of: u32, expected: i64, recv: Time, out: &mut Out) {
        let Some((keeper, Own { waiting, written })) = self.kept(of) else { return };
        if keeper.owner() == Some(conn) && keeper.is_live() {
            let prove = |book: &Book| {
                written.follow(book, waiting);
                written.prove_in_turn(expected)
            };
            keeper.update(waiting, prove, Stamp::here(recv), out);
            waiting.bids.clear();
            waiting.asks.clear();
        }
    }

    fn trade(&mut self, conn: Conn, native: &str, trade: &WireTrade, recv: Time, out: &mut Out) {
        let Some((keeper, _)) = self.keep(native, out) else { return };
        keeper.heard(conn, recv, out);
        let WireTrade(id, made_ms, amount, price) = trade;
        let told = Trade {
            price: price.0,
            size: amount.0.abs(),
            side: Some(if amount.0.is_sign_negative() { Side::Sell } else { Side::Buy }),
            trade_id: id.to_compact_string(),
            reference: None,
        };
        keeper.trade(*id, told, Stamp { ts: Some(Time::from_millis(*made_ms)), recv }, out);
    }

    fn event(&mut self, conn: Conn, event: &Event<'_>, recv: Time, out: &mut Out) {
        match (&*event.event, event.code) {
            ("conf", _) => {
                let link = self.conns.entry(conn).or_default();
                link.flags = event.flags.unwrap_or(0);
            }
            ("subscribed", _) => self.subscribed(conn, event, recv, out),
            ("unsubscribed", _) => {
                if let (Some(link), Some(number)) = (self.conns.get_mut(&conn), event.number) {
                    link.channels.remove(&number);
                }
            }
            ("info", Some(20_051)) => out.commands.push(Command::Reconnect(conn, "restart")),
            ("info", Some(20_060)) => {
                for keeper in self.roster.iter_mut() {
                    keeper.halt(Some("maintenance"), recv, out);
                }
            }
            ("info", Some(20_061)) => {
                for keeper in self.roster.iter_mut() {
                    keeper.halt(None, recv, out);
                }
                out.commands.push(Command::Reconnect(conn, "maintenance_ended"));
            }
            ("error", code) => {
                let native = Some(event.symbol.to_string()).filter(|native| !native.is_empty());
                let detail = format!("{}: {}", code.unwrap_or_default(), event.msg.as_deref().unwrap_or_default());
                out.reports.push(Report { fault: Fault::Refused, native, detail });
            }
            ("info" | "pong", _) => {}
            (event, _) => out.pass_over(event),
        }
    }

    fn subscribed(&mut self, conn: Conn, event: &Event<'_>, recv: Time, out: &mut Out) {
        let kind = match &*event.channel {
            // Coarser books, and those by order (`R0`), are others.
            "book" if matches!(&*event.prec, "" | "P0") => Kind::Book,
            "trades" if event.symbol.starts_with('t') => Kind::Trades,
            _ => return,
        };
        let link = self.conns.entry(conn).or_default();
        let Some(number) = event.number.filter(|_| link.channels.len() < CHANNELS_MAX) else { return };
        // One subscription replaces another, whose last frames may still come: they count, and are not read.
        link.channels.retain(|_, old| old.kind != kind || old.native != event.symbol);
        let integrity = match link.flags {
            flags if flags & OB_CHECKSUM != 0 => Integrity::Verified,
            flags if flags & SEQ_ALL != 0 => Integrity::Sequenced,
            _ => Integrity::None,
        };
        let kept = self.keep(&event.symbol, out).map(|(keeper, _)| {
            keeper.set_integrity(integrity);
            keeper.heard(conn, recv, out);
            keeper.number()
        });
        let subscribed = Subscribed { kind, native: event.symbol.to_compact_string(), number: kept, has_begun: false };
        self.conns.entry(conn).or_default().channels.insert(number, subscribed);
    }

    fn pairs(&mut self, body: &[u8], recv: Time, out: &mut Out) {
        let Ok(lists) = serde_json::from_slice::<Vec<Vec<String>>>(body) else { return undecodable(body, out) };
        self.list.done();
        for pair in lists.iter().flatten() {
            let native: CompactString = format_compact!("t{pair}");
            let symbol = normal(&native);
            if !self.roster.wants(&symbol) {
                continue;
            }
            // Amounts have eight decimals everywhere.
            let steps = Steps { tick: None, lot: Some(Decimal::new(1, 8)) };
            self.listing.insert(&native, symbol, steps);
            if let Some(keeper) = self.roster.by_native(&native) {
                keeper.describe(steps.tick, steps.lot, out);
                keeper.halt(None, recv, out);
            }
        }
    }

    /// Subscribes anew the books that are due.
    fn resync_due(&mut self, now: Time, out: &mut Out) {
        for keeper in self.roster.iter_mut().filter(|k| k.resync.is_due(now)) {
            keeper.resync.asked(now);
            let Some(conn) = keeper.owner() else { continue };
            let native = &keeper.instrument().native;
            let channels = self.conns.get(&conn).map(|link| &link.channels);
            let is_its = |channel: &Subscribed| channel.kind == Kind::Book && channel.native == *native;
            let old = channels.and_then(|c| c.iter().find(|(_, channel)| is_its(channel)));
            if let Some((number, _)) = old {
                out.commands.push(Command::Send(conn, format!(r#"{{"event":"unsubscribe","chanId":{number}}}"#)));
            }
            out.commands.push(Command::Send(conn, subscription("book", native)));
        }
    }

    /// Makes the broken connections anew, if it is time.
    fn reconnect_due(&mut self, now: Time, out: &mut Out) {
        if !self.reconnect.is_due(now) {
            return;
        }
        let mut broken: Vec<Conn> =
            self.conns.iter().filter(|(_, link)| link.sequence.broken).map(|(conn, _)| *conn).collect();
        broken.sort_unstable_by_key(|conn| conn.0);
        if broken.is_empty() {
            return self.reconnect.done();
        }
        self.reconnect.asked(now);
        out.commands.extend(broken.into_iter().map(|conn| Command::Reconnect(conn, Fault::Gap.as_str())));
    }
}

impl Adapter for Bitfinex {
    fn rules(&self) -> Rules {
        Rules {
            venue: "bitfinex",
            websocket_url: WEBSOCKET_URL.to_owned(),
            instruments_url: Some(PAIRS_URL.to_owned()),
            // A heartbeat comes every 15 seconds for each channel.
            silence_max: Duration::from_secs(30),
            ping_text: None,
            ping_every: Duration::from_secs(30),
            age_max: None,
            sends_per_second_max: 5,
            ticket_url: None,
            symbols_max: Some(SYMBOLS_MAX),
        }
    }

    fn opened(&mut self, conn: Conn, _url: &str, now: Time, out: &mut Out) {
        self.roster.report_unusable(out);
        self.conns.insert(conn, Link::default());
        let mut natives = self.listing.natives(self.roster.wanted(), native, out);
        for native in natives.drain(natives.len().min(SYMBOLS_MAX)..) {
            let detail = format!("more than {SYMBOLS_MAX} symbols on one connection");
            out.reports.push(Report { fault: Fault::Refused, native: Some(native.into()), detail });
        }
        for native in &natives {
            if let Some((keeper, _)) = self.keep(native, out) {
                keeper.opened(conn, now, out);
                keeper.resync.expect(now.plus_millis(RESYNC_ANSWER_MAX_MS));
            }
        }
        if natives.is_empty() {
            return;
        }
        out.commands.push(Command::Send(conn, format!(r#"{{"event":"conf","flags":{}}}"#, SEQ_ALL | OB_CHECKSUM)));
        for channel in ["trades", "book"] {
            out.commands.extend(natives.iter().map(|n| Command::Send(conn, subscription(channel, n))));
        }
    }

    fn frame(&mut self, conn: Conn, bytes: &[u8], recv: Time, out: &mut Out) {
        let done = match bytes.trim_ascii_start().first() {
            Some(b'[') => self.channel(conn, bytes, recv, out),
            Some(b'{') => serde_json::from_slice(bytes).map(|event| self.event(conn, &event, recv, out)),
            _ => return undecodable(bytes, out),
        };
        if done.is_err() {
            undecodable(bytes, out);
        }
    }

    fn response(&mut self, url: &str, body: &[u8], recv: Time, out: &mut Out) {
        if url.contains("pub:list:pair") {
            self.pairs(body, recv, out);
        }
    }

    fn failed(&mut self, url: &str, now: Time, _out: &mut Out) {
        if url.contains("pub:list:pair") {
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
            out.commands.push(Command::Fetch(PAIRS_URL.to_owned()));
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

fn subscription(channel: &str, native: &str) -> String {
    let book = format!(r#","prec":"P0","freq":"F0","len":"{DEPTH}""#);
    let options = if channel == "book" { book.as_str() } else { "" };
    format!(r#"{{"event":"subscribe","channel":"{channel}","symbol":"{native}"{options}}}"#)
}

/// Would the book, which does not, look crossed after these changes?
fn crosses(book: &Book, changes: &Levels) -> bool {
    // Most are one.
    match (&changes.bids[..], &changes.asks[..]) {
        ([bid], []) => {
            return !bid.size.is_zero() && book.best_ask().is_some_and(|ask| order(bid.price, ask.price).is_ge());
        }
        ([], [ask]) => {
            return !ask.size.is_zero() && book.best_bid().is_some_and(|bid| order(ask.price, bid.price).is_le());
        }
        _ => {}
    }
    // Of several changes of one price the last holds.
    let last = |changes: &[Level], price: Decimal| changes.iter().rev().find(|c| c.price == price).map(|c| c.size);
    let stays = |changes: &[Level], level: &Level| last(changes, level.price).is_none_or(|size| !size.is_zero());
    let new = |c: &&Level, changes: &[Level]| !c.size.is_zero() && stays(changes, c);
    let bid = book.bids().find(|level| stays(&changes.bids, level)).map(|level| level.price);
    let ask = book.asks().find(|level| stays(&changes.asks, level)).map(|level| level.price);
    let bid = changes.bids.iter().filter(|c| new(c, &changes.bids)).map(|c| c.price).chain(bid).max();
    let ask = changes.asks.iter().filter(|c| new(c, &changes.asks)).map(|c| c.price).chain(ask).min();
    matches!((bid, ask), (Some(bid), Some(ask)) if bid >= ask)
}

/// For the checksum of the documents (docs.bitfinex.com/docs/ws-websocket-checksum), over the 25 best bids and asks in turn: asks
/// have amounts below zero, and numbers are as JavaScript writes them.
fn write_level(text: &mut Vec<u8>, side: BookSide, level: &Level) {
    write_script_number(text, level.price);
    text.push(b':');
    if side == BookSide::Ask {
        text.push(b'-');
    }
    write_script_number(text, level.size);
    text.push(b':');
}

/// As JavaScript writes numbers: without trailing zeros, and below a millionth with an exponent.
fn write_script_number(text: &mut Vec<u8>, value: Decimal) {
    if value.is_zero() || value.abs() >= Decimal::new(1, 6) {
        return decimal::write(text, value);
    }
    let value = value.normalize();
    if value.is_sign_negative() {
        text.push(b'-');
    }
    let digits = value.mantissa().unsigned_abs().to_string();
    let (first, rest) = digits.split_at(1);
    let exponent = value.scale() as usize - rest.len();
    let point = if rest.is_empty() { "" } else { "." };
    write!(text, "{first}{point}{rest}e-{exponent}").expect("a Vec takes it");
}

#[cfg(test)]
#[path = "bitfinex/tests.rs"]
mod tests;
