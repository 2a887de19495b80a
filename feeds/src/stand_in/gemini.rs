//! Gemini: the streams of its WebSocket, whose depth begins with a snapshot where the URL asks for one (`snapshot=-1`), and
//! Market Data v2, which it archived and recordings still hold. A recording of the one is played in its own form to who
//! asks by the other.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Deserialize;
use serde_json::value::RawValue;
use ticker_market::{Data, Instrument, Kind, Side};

use super::mirror::{Level, Mirror, Shelf, listed, pair, told_pairs};
use super::readers::{Begins, Readers};
use super::{Dialect, Said, Session, quoted, recv};
use crate::Update;
use crate::recording::{Line, Payload};
use crate::roster::INSTRUMENTS_MAX;
use crate::symbols::{joined, query};

#[derive(Debug, Default)]
pub(super) struct Gemini {
    symbols: BTreeSet<String>,
    books: Shelf<Book>,
    /// Topics are `depth/BTCUSD`, `trade/…`, `bookTicker/…`.
    readers: Readers,
    /// Does the connection begin books with snapshots?
    with_snapshots: BTreeMap<Session, bool>,
    /// The synthetic market's update ids.
    synthetic: HashMap<String, u64>,
}

/// A book, and what the venue's last frame said of it besides its levels.
#[derive(Debug, Default)]
struct Book {
    mirror: Mirror,
    made: String,
    /// None in Market Data v2.
    last: Option<u64>,
}

/// Of both: the streams name their event, or have a field of their own.
#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    e: Cow<'a, str>,
    #[serde(borrow, default, rename = "E")]
    made: Option<&'a RawValue>,
    #[serde(borrow, default, alias = "symbol")]
    s: Cow<'a, str>,
    #[serde(borrow, default)]
    t: Option<&'a RawValue>,
    #[serde(rename = "U", default)]
    before: Option<u64>,
    #[serde(rename = "u", default)]
    last: Option<u64>,
    #[serde(borrow, default)]
    b: Option<&'a RawValue>,
    #[serde(borrow, default)]
    a: Option<&'a RawValue>,
    /// Side, price, size.
    #[serde(borrow, default)]
    changes: Vec<[&'a RawValue; 3]>,
    /// Of a snapshot of Market Data v2.
    #[serde(borrow, default)]
    trades: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Cow<'a, str>,
    #[serde(default)]
    params: Vec<String>,
    /// Of Market Data v2.
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(default)]
    subscriptions: Vec<Subscription>,
}

#[derive(Deserialize)]
struct Subscription {
    name: String,
    symbols: Vec<String>,
}

/// Levels; the best prices, which are no lists, are none.
fn pairs(raw: Option<&RawValue>) -> Vec<[&RawValue; 2]> {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
}

impl Frame<'_> {
    fn channel(&self) -> Option<&'static str> {
        match (&*self.kind, &*self.e) {
            ("l2_updates", _) | (_, "depthUpdate") => Some("depth"),
            ("trade", _) => Some("trade"),
            ("", "") if self.t.is_some() => Some("trade"),
            ("", "") if self.last.is_some() => Some("bookTicker"),
            _ => None,
        }
    }

    /// The first of a subscription says so in Market Data v2 by what it has besides; on the streams it continues nothing.
    fn is_snapshot(&self) -> bool {
        self.trades.is_some() || (self.e == "depthUpdate" && self.before.is_some() && self.before == self.last)
    }
}

impl Book {
    fn take_in(&mut self, frame: &Frame<'_>) {
        if frame.is_snapshot() {
            self.mirror.begin();
        }
        for [side, price, size] in &frame.changes {
            self.mirror.set(side.get() == "\"buy\"", price, size);
        }
        self.mirror.set_pairs(&pairs(frame.b), &pairs(frame.a));
        self.made = frame.made.map_or("0", RawValue::get).to_owned();
        self.last = frame.last;
    }

    fn snapshot(&self, symbol: &str) -> String {
        let symbol = quoted(symbol);
        let Some(last) = self.last else {
            let form = |side: &'static str| move |l: &Level| format!(r#"["{side}",{},{}]"#, l.price, l.size);
            let bids = self.mirror.bids().map(form("buy"));
            let all: Vec<String> = bids.chain(self.mirror.asks().map(form("sell"))).collect();
            let changes = all.join(",");
            return format!(
                r#"{{"type":"l2_updates","symbol":{symbol},"changes":[{changes}],"trades":[],"auction_events":[]}}"#
            );
        };
        let (bids, asks, made) = (listed(self.mirror.bids(), pair), listed(self.mirror.asks(), pair), &self.made);
        let symbol = symbol.to_ascii_lowercase();
        format!(r#"{{"e":"depthUpdate","E":{made},"s":{symbol},"U":{last},"u":{last},"b":{bids},"a":{asks}}}"#)
    }
}

impl Gemini {
    fn know(&mut self, symbol: &str) {
        if self.symbols.len() < INSTRUMENTS_MAX {
            self.symbols.insert(symbol.to_owned());
        }
    }

    fn subscribe(&mut self, session: Session, channel: &str, symbol: &str, said: &mut Vec<Said>) {
        let is_book = channel == "depth" && self.with_snapshots.get(&session) == Some(&true);
        let topic = format!("{channel}/{symbol}");
        let book = self.books.get(symbol).filter(|book| is_book && book.mirror.is_whole);
        let begins = Begins::of(is_book, book.is_some());
        if !self.readers.has(session, &topic) && self.readers.subscribe(session, &topic, "", begins) {
            said.extend(book.map(|book| Said::Text(session, book.snapshot(symbol))));
        }
    }

    /// By the streams: `btcusd@depth@100ms`.
    fn streams(&mut self, session: Session, request: &Request<'_>, said: &mut Vec<Said>) {
        let id = request.id.map_or("null", RawValue::get);
        let mut wanted = Vec::new();
        for name in &request.params {
            let mut parts = name.split('@');
            let (symbol, channel) = (parts.next().unwrap_or_default().to_ascii_uppercase(), parts.next());
            let channel = channel.filter(|c| matches!(*c, "depth" | "trade" | "bookTicker"));
            let Some(channel) = channel.filter(|_| self.symbols.contains(&symbol)) else {
                let message = quoted(&format!("Invalid stream {name}"));
                let text = format!(r#"{{"id":{id},"status":400,"error":{{"code":-1121,"msg":{message}}}}}"#);
                return said.push(Said::Text(session, text));
            };
            wanted.push((channel, symbol));
        }
        said.push(Said::Text(session, format!(r#"{{"id":{id},"status":200}}"#)));
        for (channel, symbol) in wanted {
            if request.method == "subscribe" {
                self.subscribe(session, channel, &symbol, said);
            } else {
                self.readers.unsubscribe(session, &format!("{channel}/{symbol}"));
            }
        }
    }

    /// By Market Data v2, which acknowledges nothing, and tells trades with the book.
    fn subscriptions(&mut self, session: Session, request: &Request<'_>, said: &mut Vec<Said>) {
        for symbol in request.subscriptions.iter().filter(|s| s.name == "l2").flat_map(|s| &s.symbols) {
            if !self.symbols.contains(symbol) {
                let message = quoted(&format!("Unsupported symbol: {symbol}"));
                let text = format!(r#"{{"result":"error","reason":"InvalidSymbol","message":{message}}}"#);
                return said.push(Said::Text(session, text));
            }
        }
        for symbol in request.subscriptions.iter().filter(|s| s.name == "l2").flat_map(|s| &s.symbols) {
            for channel in ["trade", "depth"] {
                if request.kind == "subscribe" {
                    self.subscribe(session, channel, symbol, said);
                } else {
                    self.readers.unsubscribe(session, &format!("{channel}/{symbol}"));
                }
            }
        }
    }
}

impl Dialect for Gemini {
    fn look(&mut self, line: &Line<'_>) {
        let Line::Recv { data, .. } = line else { return };
        let Ok(frame) = serde_json::from_slice::<Frame<'_>>(data.bytes()) else { return };
        if frame.channel().is_some() {
            self.know(&frame.s.to_ascii_uppercase());
        }
    }

    fn opened(&mut self, session: Session, url: &str, said: &mut Vec<Said>) {
        if self.readers.open(session, said) {
            let with_snapshots = url.contains("/marketdata") || query(url, "snapshot") == Some("-1");
            self.with_snapshots.insert(session, with_snapshots);
        }
    }

    fn heard(&mut self, session: Session, text: &str, said: &mut Vec<Said>) {
        let Ok(request) = serde_json::from_str::<Request<'_>>(text) else {
            let error = r#"{"result":"error","reason":"InvalidJson"}"#.to_owned();
            return said.push(Said::Text(session, error));
        };
        match (&*request.method, &*request.kind) {
            ("subscribe" | "unsubscribe", _) => self.streams(session, &request, said),
            (_, "subscribe" | "unsubscribe") => self.subscriptions(session, &request, said),
            ("ping", _) => {
                let id = request.id.map_or("null", RawValue::get);
                said.push(Said::Text(session, format!(r#"{{"id":{id},"status":200,"result":{{}}}}"#)));
            }
            _ => said.push(Said::Text(session, r#"{"result":"error","reason":"InvalidMessage"}"#.to_owned())),
        }
    }

    fn closed(&mut self, session: Session) {
        self.readers.close(session);
        self.with_snapshots.remove(&session);
    }

    fn recv(&mut self, _conn: &str, data: &Payload<'_>, said: &mut Vec<Said>) -> bool {
        let Payload::Text(text) = data else { return false };
        let Ok(frame) = serde_json::from_str::<Frame<'_>>(text) else { return false };
        let Some(channel) = frame.channel() else {
            if frame.kind == "heartbeat" {
                said.extend(self.readers.sessions().map(|session| Said::Text(session, text.clone().into_owned())));
            }
            return false;
        };
        let symbol = frame.s.to_ascii_uppercase();
        let mut is_snapshot = false;
        if channel == "depth" {
            let Some(book) = self.books.keep(&symbol) else { return false };
            is_snapshot = frame.is_snapshot();
            book.take_in(&frame);
        }
        self.readers.play(&format!("{channel}/{symbol}"), is_snapshot, text, said);
        true
    }

    fn is_wanted(&self) -> bool {
        self.readers.is_wanted()
    }

    fn begun_again(&mut self) {
        self.books.clear();
        self.readers.begin_again();
    }

    fn tell(&mut self, update: &Update, instrument: &Instrument, lines: &mut Vec<Line<'static>>) {
        let name = joined(&instrument.symbol);
        self.know(&name);
        let name = name.to_ascii_lowercase().into_string();
        let nanos = update.ts.unwrap_or(update.recv).0;
        let id = self.synthetic.entry(name.clone()).or_insert(1_000);
        let text = match &update.data {
            Data::Book(levels) => {
                let before = *id;
                *id += 5;
                let (bids, asks) = (told_pairs(&levels.bids), told_pairs(&levels.asks));
                let before = if update.kind == Kind::Snapshot { *id } else { before };
                format!(r#"{{"e":"depthUpdate","E":{nanos},"s":"{name}","U":{before},"u":{id},"b":{bids},"a":{asks}}}"#)
            }
            Data::Quote(q) => {
                let (Some(bid), Some(ask)) = (&q.bid, &q.ask) else { return };
                format!(
                    r#"{{"u":{id},"E":{nanos},"s":"{name}","b":"{}","B":"{}","a":"{}","A":"{}"}}"#,
                    bid.price, bid.size, ask.price, ask.size
                )
            }
            Data::Trade(t) => {
                let (trade, price, size) = (&t.trade_id, t.price, t.size);
                let is_sale = t.side == Some(Side::Sell);
                format!(r#"{{"E":{nanos},"s":"{name}","t":{trade},"p":"{price}","q":"{size}","m":{is_sale}}}"#)
            }
            _ => return,
        };
        lines.push(recv(update, text));
    }
}
