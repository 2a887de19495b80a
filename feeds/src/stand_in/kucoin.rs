//! KuCoin spot: a connection needs a token of `POST /api/v1/bullet-public`; requests are acknowledged where they ask for it;
//! a book begins with `GET …/orderbook/level2`, and each of its changes has a number of its own.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use ticker_market::{Data, Instrument, Kind, Side};

use super::fetched::{Book, Change, Difference, Fetched, Form, Snapshot};
use super::mirror::{listed, pair, told, told_pairs};
use super::readers::{Begins, Readers};
use super::{Dialect, Said, Session, quoted, recv};
use crate::Update;
use crate::recording::{Line, Payload};
use crate::symbols::query;

/// The path of a request for a token, and the beginning of one.
const BULLET: &str = "/api/v1/bullet-public";
const TOKEN: &str = "stand-in-";

const FORM: Form = Form { depth: usize::MAX, overlaps: false, difference, answer };

#[derive(Debug)]
pub(super) struct Kucoin {
    books: Fetched,
    /// Topics are `/market/level2:BTC-USDT`.
    readers: Readers,
    /// Tokens that were given.
    tokens: u64,
    /// The synthetic market's sequences.
    synthetic: HashMap<String, u64>,
}

impl Default for Kucoin {
    fn default() -> Self {
        Self { books: Fetched::new(FORM), readers: Readers::default(), tokens: 0, synthetic: HashMap::new() }
    }
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    topic: Cow<'a, str>,
    #[serde(borrow, default)]
    subject: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// `trade.l2update`
#[derive(Deserialize)]
struct Level2<'a> {
    #[serde(borrow, rename = "sequenceStart")]
    first: &'a RawValue,
    #[serde(borrow, rename = "sequenceEnd")]
    last: &'a RawValue,
    #[serde(borrow)]
    changes: Sides<'a>,
    #[serde(borrow, default)]
    time: Option<&'a RawValue>,
}

/// Price, size, number.
#[derive(Deserialize)]
struct Sides<'a> {
    #[serde(borrow, default)]
    asks: Vec<[&'a RawValue; 3]>,
    #[serde(borrow, default)]
    bids: Vec<[&'a RawValue; 3]>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    data: Whole<'a>,
}

#[derive(Deserialize)]
struct Whole<'a> {
    #[serde(borrow)]
    sequence: &'a RawValue,
    #[serde(borrow, default)]
    time: Option<&'a RawValue>,
    #[serde(borrow)]
    bids: Vec<[&'a RawValue; 2]>,
    #[serde(borrow)]
    asks: Vec<[&'a RawValue; 2]>,
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    topic: Cow<'a, str>,
    #[serde(default)]
    response: bool,
}

/// A whole number, in quotes or not.
fn number(raw: &RawValue) -> Option<u64> {
    raw.get().trim_matches('"').parse().ok()
}

fn difference(raw: &str) -> Option<Difference<'_>> {
    let update: Level2<'_> = serde_json::from_str(raw).ok()?;
    let mut changes = Vec::new();
    for (is_bid, list) in [(true, &update.changes.bids), (false, &update.changes.asks)] {
        for [price, size, own] in list {
            // A price of zero only moves the sequence on.
            if price.get().trim_matches('"') != "0" {
                changes.push(Change { number: number(own)?, is_bid, price, size });
            }
        }
    }
    changes.sort_by_key(|change| change.number);
    let made = update.time.map_or("0", RawValue::get);
    Some(Difference { first: number(update.first)?, last: number(update.last)?, made, changes })
}

fn answer(book: &Book, _name: &str, path: &str) -> String {
    let place = path.split('?').next().unwrap_or(path);
    let limit = place.rsplit_once("level2_").and_then(|(_, n)| n.parse().ok()).unwrap_or(usize::MAX);
    let (bids, asks) = (listed(book.mirror.bids().take(limit), pair), listed(book.mirror.asks().take(limit), pair));
    let (time, sequence) = (&book.made, book.last);
    format!(r#"{{"code":"200000","data":{{"time":{time},"sequence":"{sequence}","bids":{bids},"asks":{asks}}}}}"#)
}

/// The channel and the instruments of a topic, if it is one of theirs.
fn topic(text: &str) -> Option<(&str, impl Iterator<Item = &str>)> {
    let (channel, names) = text.split_once(':')?;
    let is_channel = matches!(
        channel,
        "/market/match"
            | "/market/ticker"
            | "/market/level2"
            | "/market/snapshot"
            | "/market/candles"
            | "/spotMarket/level2Depth5"
            | "/spotMarket/level2Depth50"
            | "/spotMarket/level1"
    );
    is_channel.then(|| (channel, names.split(',')))
}

/// `BTC-USDT_1min` is of `BTC-USDT`.
fn instrument(name: &str) -> &str {
    name.split('_').next().unwrap_or(name)
}

impl Kucoin {
    fn token(&mut self) -> String {
        self.tokens += 1;
        let token = format!("{TOKEN}{}", self.tokens);
        format!(
            r#"{{"code":"200000","data":{{"token":"{token}","instanceServers":[{{"endpoint":"wss://ws-api-spot.kucoin.com/","encrypt":true,"protocol":"websocket","pingInterval":18000,"pingTimeout":10000}}]}}}}"#
        )
    }
}

impl Dialect for Kucoin {
    fn look(&mut self, line: &Line<'_>) {
        let data = match line {
            Line::Recv { data, .. } => data,
            Line::Http { url, .. } if url.contains("/orderbook/level2") => {
                return query(url, "symbol").into_iter().for_each(|name| self.books.know(name));
            }
            _ => return,
        };
        let Ok(frame) = serde_json::from_slice::<Frame<'_>>(data.bytes()) else { return };
        if let Some((_, names)) = topic(&frame.topic).filter(|_| frame.kind == "message") {
            names.for_each(|name| self.books.know(instrument(name)));
        }
    }

    fn opened(&mut self, session: Session, url: &str, said: &mut Vec<Said>) {
        let token = query(url, "token").and_then(|token| token.strip_prefix(TOKEN)?.parse::<u64>().ok());
        if token.is_none_or(|token| token > self.tokens) {
            let id = session.0;
            let text = format!(r#"{{"id":"{id}","type":"error","code":401,"data":"token is invalid"}}"#);
            said.extend([Said::Text(session, text), Said::Close(session)]);
        } else if self.readers.open(session, said) {
            said.push(Said::Text(session, format!(r#"{{"id":"{}","type":"welcome"}}"#, session.0)));
        }
    }

    fn heard(&mut self, session: Session, text: &str, said: &mut Vec<Said>) {
        let Ok(request) = serde_json::from_str::<Request<'_>>(text) else {
            let error = r#"{"id":"","type":"error","code":400,"data":"bad request"}"#.to_owned();
            return said.push(Said::Text(session, error));
        };
        // An id comes back as it was, but always as text.
        let id = request.id.map_or_else(|| quoted(""), |id| quoted(id.get().trim_matches('"')));
        let error = |code: u32, why: String| {
            Said::Text(session, format!(r#"{{"id":{id},"type":"error","code":{code},"data":{}}}"#, quoted(&why)))
        };
        match &*request.kind {
            "ping" => said.push(Said::Text(session, format!(r#"{{"id":{id},"type":"pong"}}"#))),
            kind @ ("subscribe" | "unsubscribe") => {
                let not_found = || error(404, format!("topic {} is not found", request.topic));
                let Some((channel, names)) = topic(&request.topic) else { return said.push(not_found()) };
                let names: Vec<&str> = names.collect();
                if !names.iter().all(|name| self.books.knows(instrument(name))) {
                    return said.push(not_found());
                }
                if request.response {
                    said.push(Said::Text(session, format!(r#"{{"id":{id},"type":"ack"}}"#)));
                }
                for name in names {
                    let topic = format!("{channel}:{name}");
                    if kind == "subscribe" {
                        self.readers.subscribe(session, &topic, "", Begins::Anywhere);
                    } else {
                        self.readers.unsubscribe(session, &topic);
                    }
                }
            }
            kind => said.push(error(403, format!("type {kind} is not supported"))),
        }
    }

    fn closed(&mut self, session: Session) {
        self.readers.close(session);
    }

    fn recv(&mut self, _conn: &str, data: &Payload<'_>, said: &mut Vec<Said>) -> bool {
        let Payload::Text(text) = data else { return false };
        let Ok(frame) = serde_json::from_str::<Frame<'_>>(text) else { return false };
        // Answers to what the recorder asked for have no data.
        let (Some((_, name)), Some(raw)) = (frame.topic.split_once(':'), frame.data) else { return false };
        if frame.subject == "trade.l2update" {
            self.books.take_in(name, raw.get());
        }
        self.readers.play(&frame.topic, false, text, said);
        true
    }

    fn http(&mut self, url: &str, body: &str, said: &mut Vec<Said>) {
        let Some(name) = query(url, "symbol").filter(|_| url.contains("/orderbook/level2")) else { return };
        let Ok(Answer { data }) = serde_json::from_str::<Answer<'_>>(body) else { return };
        let Some(number) = number(data.sequence) else { return };
        let made = data.time.map_or("0", RawValue::get);
        self.books.begin(name, &Snapshot { number, made, bids: data.bids, asks: data.asks }, said);
    }

    fn asked(&mut self, request: u64, path: &str, said: &mut Vec<Said>) -> bool {
        let mut error = |code: &str, why: &str| {
            let body = format!(r#"{{"code":"{code}","msg":"{why}"}}"#);
            said.push(Said::Answer { request, status: 200, body });
        };
        if path.starts_with(BULLET) {
            let body = self.token();
            said.push(Said::Answer { request, status: 200, body });
        } else if path.contains("/orderbook/level2") {
            match query(path, "symbol").filter(|name| self.books.knows(name)) {
                None => error("900001", "symbol not exists"),
                Some(name) => {
                    if !self.books.ask(request, name, path, said) {
                        let body = r#"{"code":"429000","msg":"too many requests"}"#.to_owned();
                        said.push(Said::Answer { request, status: 429, body });
                    }
                }
            }
        } else {
            return false;
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
        let name = &instrument.symbol;
        self.books.know(name);
        let at = update.ts.unwrap_or(update.recv);
        let ms = at.millis();
        let sequence = self.synthetic.entry(name.to_string()).or_insert(1_000);
        let (channel, subject, data) = match &update.data {
            Data::Book(levels) if update.kind == Kind::Snapshot => {
                let (bids, asks) = (told_pairs(&levels.bids), told_pairs(&levels.asks));
                let url = format!("https://api.kucoin.com/api/v3/market/orderbook/level2?symbol={name}");
                let body = format!(
                    r#"{{"code":"200000","data":{{"time":{ms},"sequence":"{sequence}","bids":{bids},"asks":{asks}}}}}"#
                );
                let (ts, data) = (Some(update.recv), Payload::Text(body.into()));
                lines.push(Line::Http { ts, conn: "synthetic".into(), url: url.into(), data });
                return;
            }
            Data::Book(levels) => {
                let first = *sequence + 1;
                let mut side = |levels: &[ticker_market::Level]| {
                    told(levels, |l| {
                        *sequence += 1;
                        format!(r#"["{}","{}","{sequence}"]"#, l.price, l.size)
                    })
                };
                let (bids, asks) = (side(&levels.bids), side(&levels.asks));
                let data = format!(
                    r#"{{"changes":{{"asks":{asks},"bids":{bids}}},"sequenceStart":{first},"sequenceEnd":{sequence},"symbol":"{name}","time":{ms}}}"#
                );
                ("level2", "trade.l2update", data)
            }
            Data::Quote(q) => {
                let (Some(bid), Some(ask)) = (&q.bid, &q.ask) else { return };
                let data = format!(
                    r#"{{"sequence":"{sequence}","bestBid":"{}","bestBidSize":"{}","bestAsk":"{}","bestAskSize":"{}","time":{ms}}}"#,
                    bid.price, bid.size, ask.price, ask.size
                );
                ("ticker", "trade.ticker", data)
            }
            Data::Trade(t) => {
                let side = if t.side == Some(Side::Sell) { "sell" } else { "buy" };
                let (id, price, size, nanos) = (&t.trade_id, t.price, t.size, at.0);
                let data = format!(
                    r#"{{"symbol":"{name}","sequence":"{id}","side":"{side}","size":"{size}","price":"{price}","time":"{nanos}","tradeId":"{id}","type":"match"}}"#
                );
                ("match", "trade.l3match", data)
            }
            _ => return,
        };
        let text =
            format!(r#"{{"data":{data},"subject":"{subject}","topic":"/market/{channel}:{name}","type":"message"}}"#);
        lines.push(recv(update, text));
    }
}
