//! BitMEX: each table of a request is acknowledged or refused by itself, and begins with a `partial`. Rows of a book are known
//! by their ids; what is told of one later has no price.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::value::RawValue;
use ticker_market::{Data, Instrument, Kind, Side};

use super::mirror::{LEVELS_MAX, Shelf};
use super::readers::{Begins, Readers};
use super::{Dialect, Said, Session, quoted, recv};
use crate::Update;
use crate::recording::{Line, Payload};
use crate::roster::INSTRUMENTS_MAX;

/// Where the synthetic market's instruments are listed, as the venue's.
const INSTRUMENTS: &str = "/api/v1/instrument";

#[derive(Debug, Default)]
pub(super) struct Bitmex {
    symbols: BTreeSet<String>,
    books: Shelf<Book>,
    /// By topic, of the other tables: the last row.
    last: Shelf<Option<String>>,
    /// Topics are `orderBookL2:XBTUSD`.
    readers: Readers,
    /// The synthetic market's instruments, and the numbers of its rows.
    synthetic: BTreeMap<String, Told>,
}

#[derive(Debug, Default)]
struct Book {
    /// By id: the rows, as the venue wrote them first, and their sizes as it wrote them last.
    rows: BTreeMap<u64, Row>,
    is_whole: bool,
}

#[derive(Debug)]
struct Row {
    side: String,
    size: String,
    price: String,
}

#[derive(Debug, Default)]
struct Told {
    listed: String,
    /// By side and price.
    ids: BTreeMap<(bool, String), u64>,
    next: u64,
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow, default)]
    table: Cow<'a, str>,
    #[serde(borrow, default)]
    action: Cow<'a, str>,
    #[serde(borrow, default)]
    filter: Option<Named<'a>>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow, default)]
    symbol: Cow<'a, str>,
}

#[derive(Deserialize)]
struct BookRow<'a> {
    #[serde(borrow)]
    symbol: Cow<'a, str>,
    id: u64,
    #[serde(borrow)]
    side: Cow<'a, str>,
    #[serde(borrow, default)]
    size: Option<&'a RawValue>,
    #[serde(borrow, default)]
    price: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Request {
    op: String,
    #[serde(default)]
    args: Args,
}

/// One argument may come without its list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Args {
    One(String),
    Many(Vec<String>),
}

impl Default for Args {
    fn default() -> Self {
        Args::Many(Vec::new())
    }
}

impl Args {
    fn list(&self) -> &[String] {
        match self {
            Args::One(one) => std::slice::from_ref(one),
            Args::Many(many) => many,
        }
    }
}

fn is_book(table: &str) -> bool {
    matches!(table, "orderBookL2" | "orderBookL2_25")
}

impl Book {
    fn take_in(&mut self, action: &str, row: &BookRow<'_>) {
        match action {
            "delete" => _ = self.rows.remove(&row.id),
            "update" => {
                if let (Some(known), Some(size)) = (self.rows.get_mut(&row.id), row.size) {
                    known.size = size.get().to_owned();
                }
            }
            _ if self.rows.len() < 2 * LEVELS_MAX => {
                let (Some(size), Some(price)) = (row.size, row.price) else { return };
                let (size, price) = (size.get().to_owned(), price.get().to_owned());
                self.rows.insert(row.id, Row { side: row.side.clone().into_owned(), size, price });
            }
            _ => {}
        }
    }

    fn partial(&self, table: &str, name: &str) -> String {
        let symbol = quoted(name);
        let rows: Vec<String> = self
            .rows
            .iter()
            .map(|(id, Row { side, size, price })| {
                format!(r#"{{"symbol":{symbol},"id":{id},"side":"{side}","size":{size},"price":{price}}}"#)
            })
            .collect();
        partial(table, name, &rows.join(","))
    }
}

fn partial(table: &str, symbol: &str, rows: &str) -> String {
    let (table, symbol) = (quoted(table), quoted(symbol));
    format!(r#"{{"table":{table},"action":"partial","filter":{{"symbol":{symbol}}},"data":[{rows}]}}"#)
}

impl Bitmex {
    fn know(&mut self, symbol: &str) {
        if self.symbols.len() < INSTRUMENTS_MAX {
            self.symbols.insert(symbol.to_owned());
        }
    }

    /// Why an argument is refused.
    fn refusal(&self, session: Session, topic: &str) -> Option<(u16, String)> {
        let (table, symbol) = topic.split_once(':').unwrap_or((topic, ""));
        if !is_book(table) && !matches!(table, "trade" | "quote" | "instrument") {
            return Some((400, format!("Unknown table: {table}")));
        }
        if !self.symbols.contains(symbol) {
            return Some((400, "Unknown or expired symbol.".to_owned()));
        }
        let again = self.readers.has(session, topic);
        again.then(|| (400, format!("You are already subscribed to this topic: {topic}")))
    }
}

impl Dialect for Bitmex {
    fn look(&mut self, line: &Line<'_>) {
        let Line::Recv { data, .. } = line else { return };
        let Ok(frame) = serde_json::from_slice::<Frame<'_>>(data.bytes()) else { return };
        let named = frame.data.and_then(|raw| serde_json::from_str::<Vec<Named<'_>>>(raw.get()).ok());
        for named in frame.filter.iter().chain(named.iter().flatten()).filter(|named| !named.symbol.is_empty()) {
            self.know(&named.symbol);
        }
    }

    fn opened(&mut self, session: Session, _url: &str, said: &mut Vec<Said>) {
        if self.readers.open(session, said) {
            let text = r#"{"info":"Welcome to the BitMEX Realtime API.","version":"2.0.0","docs":"https://www.bitmex.com/app/wsAPI","limit":{"remaining":39}}"#;
            said.push(Said::Text(session, text.to_owned()));
        }
    }

    fn heard(&mut self, session: Session, text: &str, said: &mut Vec<Said>) {
        if text == "ping" {
            return said.push(Said::Text(session, "pong".to_owned()));
        }
        let request = serde_json::from_str::<Request>(text).ok();
        let Some(request) = request.filter(|request| matches!(&*request.op, "subscribe" | "unsubscribe")) else {
            let error = r#"{"status":400,"error":"Unrecognized request. See the docs for help."}"#.to_owned();
            return said.push(Said::Text(session, error));
        };
        for topic in request.args.list() {
            if request.op == "unsubscribe" {
                let done = self.readers.unsubscribe(session, topic);
                let topic = quoted(topic);
                said.push(Said::Text(
                    session,
                    format!(r#"{{"success":{done},"unsubscribe":{topic},"request":{text}}}"#),
                ));
                continue;
            }
            if let Some((status, error)) = self.refusal(session, topic) {
                let error = quoted(&error);
                let text = format!(r#"{{"status":{status},"error":{error},"meta":{{}},"request":{text}}}"#);
                said.push(Said::Text(session, text));
                continue;
            }
            let (table, symbol) = topic.split_once(':').unwrap_or((topic, ""));
            let book = self.books.get(symbol).filter(|book| is_book(table) && book.is_whole);
            let last = self.last.get(topic).and_then(Option::as_deref);
            let partial = book.map(|book| book.partial(table, symbol)).or_else(|| Some(partial(table, symbol, last?)));
            let begins = Begins::of(is_book(table), book.is_some());
            if self.readers.subscribe(session, topic, table, begins) {
                let topic = quoted(topic);
                said.push(Said::Text(session, format!(r#"{{"success":true,"subscribe":{topic},"request":{text}}}"#)));
                said.extend(partial.map(|text| Said::Text(session, text)));
            }
        }
    }

    fn closed(&mut self, session: Session) {
        self.readers.close(session);
    }

    fn recv(&mut self, _conn: &str, data: &Payload<'_>, said: &mut Vec<Said>) -> bool {
        let Payload::Text(text) = data else { return false };
        let Ok(frame) = serde_json::from_str::<Frame<'_>>(text) else { return false };
        let (Some(raw), false) = (frame.data.map(RawValue::get), frame.table.is_empty()) else { return false };
        let is_snapshot = frame.action == "partial";
        let Ok(named) = serde_json::from_str::<Vec<Named<'_>>>(raw) else { return false };
        let symbols: BTreeSet<&str> = frame.filter.iter().chain(&named).map(|named| &*named.symbol).collect();
        if is_book(&frame.table) {
            let Ok(rows) = serde_json::from_str::<Vec<BookRow<'_>>>(raw) else { return false };
            for symbol in symbols.iter().filter(|_| is_snapshot) {
                let Some(book) = self.books.keep(symbol) else { continue };
                book.rows.clear();
                book.is_whole = true;
            }
            for row in &rows {
                if let Some(book) = self.books.keep(&row.symbol) {
                    book.take_in(&frame.action, row);
                }
            }
        } else if let Ok(rows) = serde_json::from_str::<Vec<&RawValue>>(raw) {
            for (row, named) in rows.iter().zip(&named) {
                if let Some(last) = self.last.keep(&format!("{}:{}", frame.table, named.symbol)) {
                    *last = Some(row.get().to_owned());
                }
            }
        }
        // A frame is of one symbol; if it is of several, it goes to those who want any of them, once.
        let mut told = BTreeSet::new();
        for symbol in symbols {
            for (session, _) in self.readers.of(&format!("{}:{symbol}", frame.table), is_snapshot) {
                told.insert(session);
            }
        }
        said.extend(told.into_iter().map(|session| Said::Text(session, text.clone().into_owned())));
        true
    }

    fn listed(&self, path: &str) -> Option<String> {
        let all: Vec<&str> = self.synthetic.values().map(|told| told.listed.as_str()).collect();
        path.starts_with(INSTRUMENTS).then(|| format!("[{}]", all.join(",")))
    }

    fn is_wanted(&self) -> bool {
        self.readers.is_wanted()
    }

    fn begun_again(&mut self) {
        self.books.clear();
        self.last.clear();
        self.readers.begin_again();
    }

    fn tell(&mut self, update: &Update, instrument: &Instrument, lines: &mut Vec<Line<'static>>) {
        let name = instrument.symbol.replace('-', "_");
        self.know(&name);
        let told = self.synthetic.entry(name.clone()).or_default();
        if told.listed.is_empty() {
            let (base, quote) = instrument.symbol.split_once('-').unwrap_or((&instrument.symbol, ""));
            let step = |step: Option<ticker_market::Decimal>| step.map_or("null".to_owned(), |step| step.to_string());
            let (tick, lot) = (step(instrument.tick_size), step(instrument.lot_size));
            told.listed = format!(
                r#"{{"symbol":"{name}","state":"Open","typ":"IFXXXP","underlying":"{base}","quoteCurrency":"{quote}","tickSize":{tick},"lotSize":{lot}}}"#
            );
        }
        let time = update.ts.unwrap_or(update.recv).to_rfc3339();
        let mut frame = |table: &str, action: &str, rows: &[String]| {
            if rows.is_empty() {
                return;
            }
            let filter =
                if action == "partial" { format!(r#""filter":{{"symbol":"{name}"}},"#) } else { String::new() };
            let rows = rows.join(",");
            let text = format!(r#"{{"table":"{table}","action":"{action}",{filter}"data":[{rows}]}}"#);
            lines.push(recv(update, text));
        };
        match &update.data {
            Data::Book(levels) => {
                let mut rows: BTreeMap<&str, Vec<String>> = BTreeMap::new();
                for (is_bid, list) in [(true, &levels.bids), (false, &levels.asks)] {
                    let side = if is_bid { "Buy" } else { "Sell" };
                    for level in list {
                        let key = (is_bid, level.price.normalize().to_string());
                        let known = told.ids.get(&key).copied();
                        let (action, id) = match (known, level.size.is_zero()) {
                            (None, true) => continue,
                            (Some(id), true) => ("delete", id),
                            (Some(id), false) if update.kind != Kind::Snapshot => ("update", id),
                            (known, false) => {
                                told.next += 1;
                                ("insert", known.unwrap_or(told.next))
                            }
                        };
                        let more = match action {
                            "delete" => String::new(),
                            "update" => format!(r#","size":{}"#, level.size),
                            _ => format!(r#","size":{},"price":{}"#, level.size, level.price),
                        };
                        if action == "delete" {
                            told.ids.remove(&key);
                        } else {
                            told.ids.insert(key, id);
                        }
                        let row =
                            format!(r#"{{"symbol":"{name}","id":{id},"side":"{side}"{more},"timestamp":"{time}"}}"#);
                        rows.entry(action).or_default().push(row);
                    }
                }
                if update.kind == Kind::Snapshot {
                    return frame("orderBookL2", "partial", rows.get("insert").map_or(&[], Vec::as_slice));
                }
                // What is gone first, so that nothing crosses in between.
                for action in ["delete", "update", "insert"] {
                    frame("orderBookL2", action, rows.get(action).map_or(&[], Vec::as_slice));
                }
            }
            Data::Quote(q) => {
                let (Some(bid), Some(ask)) = (&q.bid, &q.ask) else { return };
                let row = format!(
                    r#"{{"timestamp":"{time}","symbol":"{name}","bidSize":{},"bidPrice":{},"askPrice":{},"askSize":{}}}"#,
                    bid.size, bid.price, ask.price, ask.size
                );
                frame("quote", "insert", &[row]);
            }
            Data::Trade(t) => {
                let side = if t.side == Some(Side::Sell) { "Sell" } else { "Buy" };
                let (id, price, size) = (&t.trade_id, t.price, t.size);
                let row = format!(
                    r#"{{"timestamp":"{time}","symbol":"{name}","side":"{side}","size":{size},"price":{price},"trdMatchID":"{id}"}}"#
                );
                frame("trade", "insert", &[row]);
            }
            _ => {}
        }
    }
}
