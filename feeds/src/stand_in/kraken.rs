//! Kraken v2: a subscription is acknowledged for each symbol; books begin with a snapshot at any time, with the checksum
//! that the venue gave last. `depth` is the recording's, whatever was asked for, and the acknowledgement says so.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Deserialize;
use serde_json::value::RawValue;
use ticker_market::{Book as Levels, Data, Instrument, Kind};

use super::mirror::{Level, Mirror, listed};
use super::{Dialect, SESSIONS_MAX, SUBSCRIPTIONS_MAX, Said, Session, quoted, recv};
use crate::Update;
use crate::kraken::{DEPTHS, checksum};
use crate::recording::{Line, Payload};
use crate::roster::INSTRUMENTS_MAX;

#[derive(Default)]
pub(super) struct Kraken {
    books: BTreeMap<String, Book>,
    sessions: BTreeMap<Session, Subscriptions>,
    /// The synthetic market's books, for their checksums.
    synthetic: HashMap<String, Levels>,
}

#[derive(Debug, Default)]
struct Book {
    mirror: Mirror,
    depth: Option<usize>,
    checksum: u32,
    timestamp: String,
}

#[derive(Debug, Default)]
struct Subscriptions {
    /// Has it got its snapshot?
    books: HashMap<String, bool>,
    others: HashSet<(String, String)>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    channel: Cow<'a, str>,
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Cow<'a, str>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    req_id: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct Params {
    #[serde(default)]
    channel: String,
    #[serde(default)]
    symbol: Vec<String>,
}

#[derive(Deserialize)]
struct Acknowledged {
    channel: String,
    symbol: Option<String>,
    depth: Option<usize>,
}

#[derive(Deserialize)]
struct BookFrame<'a> {
    #[serde(borrow)]
    symbol: Cow<'a, str>,
    #[serde(borrow, default)]
    bids: Vec<Change<'a>>,
    #[serde(borrow, default)]
    asks: Vec<Change<'a>>,
    #[serde(default)]
    checksum: u32,
    #[serde(borrow, default)]
    timestamp: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Change<'a> {
    #[serde(borrow)]
    price: &'a RawValue,
    #[serde(borrow)]
    qty: &'a RawValue,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    symbol: Cow<'a, str>,
}

impl Kraken {
    fn book(&mut self, symbol: &str) -> Option<&mut Book> {
        if !self.books.contains_key(symbol) {
            if self.books.len() >= INSTRUMENTS_MAX {
                return None;
            }
            self.books.insert(symbol.to_owned(), Book::default());
        }
        self.books.get_mut(symbol)
    }

    fn take_in(&mut self, snapshot: bool, frame: &BookFrame<'_>) {
        let Some(book) = self.book(&frame.symbol) else { return };
        if snapshot {
            book.mirror.begin();
        }
        for (bid, changes) in [(true, &frame.bids), (false, &frame.asks)] {
            for change in changes {
                book.mirror.set(bid, change.price, change.qty);
            }
        }
        let levels = frame.bids.len().max(frame.asks.len());
        let depth = *book.depth.get_or_insert_with(|| DEPTHS.into_iter().find(|d| *d >= levels).unwrap_or(levels));
        book.mirror.cut(depth);
        book.checksum = frame.checksum;
        book.timestamp = frame.timestamp.clone().into_owned();
    }

    fn subscribe(&mut self, session: Session, params: &Params, req_id: &str, said: &mut Vec<Said>) {
        let channel = params.channel.as_str();
        let Some(subscriptions) = self.sessions.get_mut(&session) else { return };
        if channel == "instrument" {
            let pairs: Vec<String> =
                self.books.keys().map(|s| format!(r#"{{"symbol":{},"status":"online"}}"#, quoted(s))).collect();
            said.push(Said::Text(
                session,
                acknowledged("subscribe", r#""channel":"instrument","snapshot":true"#, req_id),
            ));
            let data = format!(r#"{{"assets":[],"pairs":[{}]}}"#, pairs.join(","));
            said.push(Said::Text(session, format!(r#"{{"channel":"instrument","type":"snapshot","data":{data}}}"#)));
            return;
        }
        for symbol in params.symbol.iter().take(SUBSCRIPTIONS_MAX) {
            let name = quoted(symbol);
            let Some(book) = self.books.get(symbol) else {
                let error = quoted(&format!("Currency pair not supported {symbol}"));
                said.push(Said::Text(
                    session,
                    format!(r#"{{"error":{error},"method":"subscribe","success":false,"symbol":{name}{req_id}}}"#),
                ));
                continue;
            };
            if channel != "book" {
                subscriptions.others.insert((channel.to_owned(), symbol.clone()));
                let result = format!(r#""channel":{},"snapshot":true,"symbol":{name}"#, quoted(channel));
                said.push(Said::Text(session, acknowledged("subscribe", &result, req_id)));
                continue;
            }
            let depth = book.depth.unwrap_or(DEPTHS[0]);
            let result = format!(r#""channel":"book","depth":{depth},"snapshot":true,"symbol":{name}"#);
            said.push(Said::Text(session, acknowledged("subscribe", &result, req_id)));
            let whole = book.mirror.is_whole;
            if whole {
                said.push(Said::Text(session, snapshot(symbol, book)));
            }
            subscriptions.books.insert(symbol.clone(), whole);
        }
    }
}

fn acknowledged(method: &str, result: &str, req_id: &str) -> String {
    format!(r#"{{"method":"{method}","result":{{{result}}},"success":true{req_id}}}"#)
}

fn snapshot(symbol: &str, book: &Book) -> String {
    let form = |level: &Level| format!(r#"{{"price":{},"qty":{}}}"#, level.price, level.size);
    let (bids, asks) = (listed(book.mirror.bids(), form), listed(book.mirror.asks(), form));
    let (symbol, timestamp) = (quoted(symbol), quoted(&book.timestamp));
    format!(
        r#"{{"channel":"book","type":"snapshot","data":[{{"symbol":{symbol},"bids":{bids},"asks":{asks},"checksum":{},"timestamp":{timestamp}}}]}}"#,
        book.checksum
    )
}

impl Dialect for Kraken {
    fn look(&mut self, line: &Line<'_>) {
        let Line::Recv { data, .. } = line else { return };
        let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(data.bytes()) else { return };
        let ack = envelope.result.and_then(|raw| serde_json::from_str::<Acknowledged>(raw.get()).ok());
        if let Some(Acknowledged { channel, symbol: Some(symbol), depth }) = ack
            && envelope.method == "subscribe"
            && let Some(book) = self.book(&symbol)
            && channel == "book"
        {
            book.depth = book.depth.or(depth);
        }
        if let ("book" | "trade" | "ticker", Some(raw)) = (&*envelope.channel, envelope.data)
            && let Ok(named) = serde_json::from_str::<Vec<Named<'_>>>(raw.get())
        {
            for item in named {
                self.book(&item.symbol);
            }
        }
    }

    fn opened(&mut self, session: Session, _url: &str, said: &mut Vec<Said>) {
        if self.sessions.len() >= SESSIONS_MAX {
            return said.push(Said::Close(session));
        }
        self.sessions.insert(session, Subscriptions::default());
        let id = session.0;
        let status = format!(
            r#"{{"channel":"status","type":"update","data":[{{"version":"2.0.10","system":"online","api_version":"v2","connection_id":{id}}}]}}"#
        );
        said.push(Said::Text(session, status));
    }

    fn heard(&mut self, session: Session, text: &str, said: &mut Vec<Said>) {
        let Ok(envelope) = serde_json::from_str::<Envelope<'_>>(text) else {
            let error = r#"{"error":"Malformed request","success":false}"#.to_owned();
            return said.push(Said::Text(session, error));
        };
        let req_id = envelope.req_id.map_or_else(String::new, |id| format!(r#","req_id":{}"#, id.get()));
        let params = envelope.params.and_then(|raw| serde_json::from_str::<Params>(raw.get()).ok()).unwrap_or_default();
        match &*envelope.method {
            "ping" => said.push(Said::Text(session, format!(r#"{{"method":"pong"{req_id}}}"#))),
            "subscribe" => self.subscribe(session, &params, &req_id, said),
            "unsubscribe" => {
                let Some(subscriptions) = self.sessions.get_mut(&session) else { return };
                for symbol in &params.symbol {
                    if params.channel == "book" {
                        subscriptions.books.remove(symbol);
                    } else {
                        subscriptions.others.remove(&(params.channel.clone(), symbol.clone()));
                    }
                    let result = format!(r#""channel":{},"symbol":{}"#, quoted(&params.channel), quoted(symbol));
                    said.push(Said::Text(session, acknowledged("unsubscribe", &result, &req_id)));
                }
            }
            _ => {}
        }
    }

    fn closed(&mut self, session: Session) {
        self.sessions.remove(&session);
    }

    fn recv(&mut self, _conn: &str, data: &Payload<'_>, said: &mut Vec<Said>) -> bool {
        let Payload::Text(text) = data else { return false };
        let Ok(envelope) = serde_json::from_str::<Envelope<'_>>(text) else { return false };
        let raw = envelope.data.map_or("null", |raw| raw.get());
        match &*envelope.channel {
            "book" => {
                let snapshot = envelope.kind == "snapshot";
                let Ok(frames) = serde_json::from_str::<Vec<BookFrame<'_>>>(raw) else { return false };
                frames.iter().for_each(|frame| self.take_in(snapshot, frame));
                for (session, subscriptions) in &mut self.sessions {
                    let mut wanted = false;
                    for frame in &frames {
                        if let Some(begun) = subscriptions.books.get_mut(&*frame.symbol) {
                            *begun |= snapshot;
                            wanted |= *begun;
                        }
                    }
                    if wanted {
                        said.push(Said::Text(*session, text.clone().into_owned()));
                    }
                }
                true
            }
            channel @ ("trade" | "ticker" | "ohlc") => {
                let Ok(named) = serde_json::from_str::<Vec<Named<'_>>>(raw) else { return false };
                for (session, subscriptions) in &self.sessions {
                    let wanted = |n: &Named<'_>| {
                        subscriptions.others.contains(&(channel.to_owned(), n.symbol.clone().into_owned()))
                    };
                    if named.iter().any(wanted) {
                        said.push(Said::Text(*session, text.clone().into_owned()));
                    }
                }
                true
            }
            "status" | "heartbeat" => {
                said.extend(self.sessions.keys().map(|session| Said::Text(*session, text.clone().into_owned())));
                false
            }
            // Answers to what the recorder asked for, and channels that nobody here reads.
            _ => false,
        }
    }

    fn is_wanted(&self) -> bool {
        self.sessions.values().any(|s| !s.books.is_empty() || !s.others.is_empty())
    }

    fn begun_again(&mut self) {
        self.books.values_mut().for_each(|book| book.mirror.clear());
        self.sessions.values_mut().for_each(|s| s.books.values_mut().for_each(|begun| *begun = false));
    }

    fn tell(&mut self, update: &Update, instrument: &Instrument, lines: &mut Vec<Line<'static>>) {
        let symbol = instrument.symbol.replacen('-', "/", 1);
        let name = quoted(&symbol);
        let timestamp = update.ts.unwrap_or(update.recv).to_rfc3339();
        let frame = |channel: &str, kind: &str, data: String| {
            format!(r#"{{"channel":"{channel}","type":"{kind}","data":[{{"symbol":{name},{data}}}]}}"#)
        };
        let text = match &update.data {
            Data::Book(levels) => {
                let snapshot = update.kind == Kind::Snapshot;
                let book = self.synthetic.entry(symbol.clone()).or_default();
                let applied = if snapshot { book.replace(levels) } else { book.apply(levels) };
                if applied.is_err() {
                    return;
                }
                let sum = checksum(book);
                if let Some(book) = self.book(&symbol) {
                    book.depth = DEPTHS.last().copied();
                }
                let side = |levels: &[ticker_market::Level]| {
                    let all: Vec<String> =
                        levels.iter().map(|l| format!(r#"{{"price":{},"qty":{}}}"#, l.price, l.size)).collect();
                    all.join(",")
                };
                let (bids, asks) = (side(&levels.bids), side(&levels.asks));
                let data = format!(r#""bids":[{bids}],"asks":[{asks}],"checksum":{sum},"timestamp":"{timestamp}""#);
                frame("book", if snapshot { "snapshot" } else { "update" }, data)
            }
            Data::Trade(t) => {
                let side = if t.side == Some(ticker_market::Side::Sell) { "sell" } else { "buy" };
                let data = format!(
                    r#""side":"{side}","price":{},"qty":{},"ord_type":"market","trade_id":{},"timestamp":"{timestamp}""#,
                    t.price, t.size, t.trade_id
                );
                frame("trade", "update", data)
            }
            Data::Quote(q) => {
                let (Some(bid), Some(ask)) = (&q.bid, &q.ask) else { return };
                let data = format!(
                    r#""bid":{},"bid_qty":{},"ask":{},"ask_qty":{},"timestamp":"{timestamp}""#,
                    bid.price, bid.size, ask.price, ask.size
                );
                frame("ticker", "update", data)
            }
            _ => return,
        };
        lines.push(recv(update, text));
    }
}
