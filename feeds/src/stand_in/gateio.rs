//! Gate.io spot, API v4: each request is acknowledged or refused as a whole; a book begins with `GET /spot/order_book`, and
//! its differences follow [`DEPTH`] levels a side.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use ticker_market::{Data, Instrument, Kind, Side};

use super::fetched::{Book, Difference, Fetched, Form, Snapshot, changes};
use super::mirror::{listed, pair, told_pairs};
use super::readers::{Begins, Readers};
use super::{Dialect, Said, Session, quoted, recv};
use crate::Update;
use crate::recording::{Line, Payload};
use crate::symbols::query;

/// Levels a side of a book.
const DEPTH: usize = 100;

/// Levels a side of an answer, if none are asked for.
const LIMIT: usize = 10;

const FORM: Form = Form { depth: DEPTH, overlaps: false, difference, answer };

#[derive(Debug)]
pub(super) struct Gateio {
    books: Fetched,
    /// Topics are `spot.trades/BTC_USDT`.
    readers: Readers,
    /// The synthetic market's ids.
    synthetic: HashMap<String, u64>,
}

impl Default for Gateio {
    fn default() -> Self {
        Self { books: Fetched::new(FORM), readers: Readers::default(), synthetic: HashMap::new() }
    }
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow, default)]
    channel: Cow<'a, str>,
    #[serde(borrow, default)]
    event: Cow<'a, str>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
}

/// The instrument of a result, by the names that the channels have for it.
#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow, alias = "currency_pair", alias = "n")]
    s: Cow<'a, str>,
}

/// `spot.order_book_update`
#[derive(Deserialize)]
struct DepthUpdate<'a> {
    #[serde(borrow)]
    t: &'a RawValue,
    #[serde(rename = "U")]
    first: u64,
    #[serde(rename = "u")]
    last: u64,
    #[serde(borrow, default)]
    b: Vec<[&'a RawValue; 2]>,
    #[serde(borrow, default)]
    a: Vec<[&'a RawValue; 2]>,
}

#[derive(Deserialize)]
struct Whole<'a> {
    id: u64,
    #[serde(borrow, default)]
    update: Option<&'a RawValue>,
    #[serde(borrow)]
    bids: Vec<[&'a RawValue; 2]>,
    #[serde(borrow)]
    asks: Vec<[&'a RawValue; 2]>,
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow, default)]
    time: Option<&'a RawValue>,
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow, default)]
    event: Cow<'a, str>,
    #[serde(default)]
    payload: Vec<String>,
}

fn difference(raw: &str) -> Option<Difference<'_>> {
    let update: DepthUpdate<'_> = serde_json::from_str(raw).ok()?;
    let (first, last) = (update.first, update.last);
    Some(Difference { first, last, made: update.t.get(), changes: changes(last, &update.b, &update.a) })
}

fn answer(book: &Book, _name: &str, path: &str) -> String {
    let limit = query(path, "limit").and_then(|n| n.parse().ok()).unwrap_or(LIMIT);
    let (bids, asks) = (listed(book.mirror.bids().take(limit), pair), listed(book.mirror.asks().take(limit), pair));
    let id = if query(path, "with_id") == Some("true") { format!(r#""id":{},"#, book.last) } else { String::new() };
    let made = &book.made;
    format!(r#"{{{id}"current":{made},"update":{made},"asks":{asks},"bids":{bids}}}"#)
}

/// The instruments of a request; `None` where there is no such channel.
fn names(channel: &str, payload: &[String]) -> Option<Vec<String>> {
    Some(match channel {
        "spot.trades" | "spot.tickers" | "spot.book_ticker" => payload.to_vec(),
        // The pair, and how often, or of how many levels.
        "spot.order_book_update" | "spot.order_book" => payload.first().cloned().into_iter().collect(),
        // `["1m","BTC_USDT"]`
        "spot.candlesticks" => vec![payload.join("_")],
        _ => return None,
    })
}

/// `1m_BTC_USDT` is of `BTC_USDT`.
fn instrument<'a>(channel: &str, name: &'a str) -> &'a str {
    if channel == "spot.candlesticks" { name.split_once('_').map_or(name, |(_, pair)| pair) } else { name }
}

impl Dialect for Gateio {
    fn look(&mut self, line: &Line<'_>) {
        let data = match line {
            Line::Recv { data, .. } => data,
            Line::Http { url, .. } if url.contains("/order_book") => {
                return query(url, "currency_pair").into_iter().for_each(|name| self.books.know(name));
            }
            _ => return,
        };
        let Ok(frame) = serde_json::from_slice::<Frame<'_>>(data.bytes()) else { return };
        let named = frame.result.and_then(|raw| serde_json::from_str::<Named<'_>>(raw.get()).ok());
        if let Some(named) = named.filter(|_| frame.event == "update") {
            self.books.know(instrument(&frame.channel, &named.s));
        }
    }

    fn opened(&mut self, session: Session, _url: &str, said: &mut Vec<Said>) {
        self.readers.open(session, said);
    }

    fn heard(&mut self, session: Session, text: &str, said: &mut Vec<Said>) {
        let Ok(request) = serde_json::from_str::<Request<'_>>(text) else {
            let error =
                r#"{"time":0,"channel":"","event":"","error":{"code":1,"message":"invalid json"},"result":null}"#;
            return said.push(Said::Text(session, error.to_owned()));
        };
        let Request { channel, event, payload, .. } = &request;
        let time = request.time.map_or("0", RawValue::get);
        let answer = |channel: &str, error: Option<(u32, String)>| {
            let result = match error {
                Some((code, why)) => {
                    format!(r#""error":{{"code":{code},"message":{}}},"result":null"#, quoted(&why))
                }
                None => r#""error":null,"result":{"status":"success"}"#.to_owned(),
            };
            let (channel, event) = (quoted(channel), quoted(event));
            Said::Text(session, format!(r#"{{"time":{time},"channel":{channel},"event":{event},{result}}}"#))
        };
        if channel == "spot.ping" {
            let pong = format!(r#"{{"time":{time},"channel":"spot.pong","event":"","error":null,"result":null}}"#);
            return said.push(Said::Text(session, pong));
        }
        let subscribes = event == "subscribe";
        if !subscribes && event != "unsubscribe" {
            return said.push(answer(channel, Some((2, format!("unknown event: {event}")))));
        }
        let Some(names) = names(channel, payload) else {
            return said.push(answer(channel, Some((2, format!("unknown channel: {channel}")))));
        };
        if let Some(name) = names.iter().find(|name| !self.books.knows(instrument(channel, name))) {
            return said.push(answer(channel, Some((2, format!("unknown currency pair: {name}")))));
        }
        said.push(answer(channel, None));
        for name in &names {
            let topic = format!("{channel}/{name}");
            if subscribes {
                self.readers.subscribe(session, &topic, "", Begins::Anywhere);
            } else {
                self.readers.unsubscribe(session, &topic);
            }
        }
    }

    fn closed(&mut self, session: Session) {
        self.readers.close(session);
    }

    fn recv(&mut self, _conn: &str, data: &Payload<'_>, said: &mut Vec<Said>) -> bool {
        let Payload::Text(text) = data else { return false };
        let Ok(frame) = serde_json::from_str::<Frame<'_>>(text) else { return false };
        let Some(raw) = frame.result.filter(|_| frame.event == "update").map(RawValue::get) else { return false };
        let Ok(Named { s: name }) = serde_json::from_str::<Named<'_>>(raw) else { return false };
        if frame.channel == "spot.order_book_update" {
            self.books.take_in(&name, raw);
        }
        self.readers.play(&format!("{}/{name}", frame.channel), false, text, said);
        true
    }

    fn http(&mut self, url: &str, body: &str, said: &mut Vec<Said>) {
        let Some(name) = query(url, "currency_pair").filter(|_| url.contains("/order_book")) else { return };
        let Ok(Whole { id: number, update, bids, asks }) = serde_json::from_str::<Whole<'_>>(body) else { return };
        let made = update.map_or("0", RawValue::get);
        self.books.begin(name, &Snapshot { number, made, bids, asks }, said);
    }

    fn asked(&mut self, request: u64, path: &str, said: &mut Vec<Said>) -> bool {
        if !path.contains("/spot/order_book") {
            return false;
        }
        let name = query(path, "currency_pair").unwrap_or_default();
        if !self.books.knows(name) {
            let why = quoted(&format!("Invalid currency pair {name}"));
            let body = format!(r#"{{"label":"INVALID_CURRENCY_PAIR","message":{why}}}"#);
            said.push(Said::Answer { request, status: 400, body });
        } else if !self.books.ask(request, name, path, said) {
            let body = r#"{"label":"TOO_MANY_REQUESTS","message":"Request Rate Limit Exceeded"}"#.to_owned();
            said.push(Said::Answer { request, status: 429, body });
        }
        true
    }

    fn is_wanted(&self) -> bool {
        self.readers.is_wanted()
    }

    fn begun_again(&mut self) {
        self.books.begin_again();
    }

    fn tell(&mut self, update: &Update, instrument: &Instrument, lines: &mut Vec<Line<'static>>) {
        let name = instrument.symbol.replace('-', "_");
        self.books.know(&name);
        let at = update.ts.unwrap_or(update.recv).millis();
        let id = self.synthetic.entry(name.clone()).or_insert(1_000);
        let (channel, result) = match &update.data {
            Data::Book(levels) => {
                let (bids, asks) = (told_pairs(&levels.bids), told_pairs(&levels.asks));
                if update.kind == Kind::Snapshot {
                    let url = format!(
                        "https://api.gateio.ws/api/v4/spot/order_book?currency_pair={name}&limit=100&with_id=true"
                    );
                    let body = format!(r#"{{"id":{id},"current":{at},"update":{at},"asks":{asks},"bids":{bids}}}"#);
                    let (ts, data) = (Some(update.recv), Payload::Text(body.into()));
                    lines.push(Line::Http { ts, conn: "synthetic".into(), url: url.into(), data });
                    return;
                }
                *id += 1;
                let result = format!(
                    r#"{{"t":{at},"e":"depthUpdate","E":{},"s":"{name}","U":{id},"u":{id},"b":{bids},"a":{asks}}}"#,
                    at / 1_000
                );
                ("spot.order_book_update", result)
            }
            Data::Quote(q) => {
                let (Some(bid), Some(ask)) = (&q.bid, &q.ask) else { return };
                let result = format!(
                    r#"{{"t":{at},"u":{id},"s":"{name}","b":"{}","B":"{}","a":"{}","A":"{}"}}"#,
                    bid.price, bid.size, ask.price, ask.size
                );
                ("spot.book_ticker", result)
            }
            Data::Trade(t) => {
                let side = if t.side == Some(Side::Sell) { "sell" } else { "buy" };
                let (id, price, size) = (&t.trade_id, t.price, t.size);
                let result = format!(
                    r#"{{"id":{id},"create_time":{},"create_time_ms":"{at}.000","side":"{side}","currency_pair":"{name}","amount":"{size}","price":"{price}"}}"#,
                    at / 1_000
                );
                ("spot.trades", result)
            }
            _ => return,
        };
        let time = at / 1_000;
        let text = format!(r#"{{"time":{time},"channel":"{channel}","event":"update","result":{result}}}"#);
        lines.push(recv(update, text));
    }
}
