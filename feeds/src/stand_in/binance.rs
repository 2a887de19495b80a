//! Binance, spot and futures: the URL subscribes, or `SUBSCRIBE`; a book begins with `GET …/depth`, answered for this place of the
//! recording. Before the recording's own snapshot there is none to give: the request waits for it.

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
use crate::symbols::{by_suffix, joined, query};

/// Levels a side in an answer that names no limit (the venue's default), and at most.
const LIMITS: (usize, usize) = (100, 5_000);

#[derive(Debug)]
pub(super) struct Binance {
    books: Fetched,
    /// Topics are streams without their speed: `btcusdt@depth`.
    readers: Readers,
    /// The synthetic market's update ids.
    synthetic: HashMap<String, u64>,
}

impl Default for Binance {
    fn default() -> Self {
        Self::of(false, |book, _name, path| answer(book, path, ""))
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// `depthUpdate`
#[derive(Deserialize)]
struct DepthUpdate<'a> {
    #[serde(rename = "U")]
    first: u64,
    #[serde(rename = "u")]
    last: u64,
    #[serde(borrow, rename = "E", default)]
    made: Option<&'a RawValue>,
    #[serde(borrow, default)]
    b: Vec<[&'a RawValue; 2]>,
    #[serde(borrow, default)]
    a: Vec<[&'a RawValue; 2]>,
}

/// Of any stream.
#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    s: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Depth<'a> {
    #[serde(rename = "lastUpdateId")]
    id: u64,
    #[serde(borrow)]
    bids: Vec<[&'a RawValue; 2]>,
    #[serde(borrow)]
    asks: Vec<[&'a RawValue; 2]>,
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(default)]
    params: Vec<String>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
}

/// `btcusdt@depth@100ms` is the stream `depth` of `btcusdt`.
fn stream(name: &str) -> Option<(String, &str)> {
    let (symbol, rest) = name.split_once('@')?;
    Some((symbol.to_ascii_lowercase(), rest.split('@').next().unwrap_or(rest)))
}

fn topic(name: &str) -> Option<String> {
    stream(name).map(|(symbol, stream)| format!("{symbol}@{stream}"))
}

fn difference(raw: &str) -> Option<Difference<'_>> {
    let update: DepthUpdate<'_> = serde_json::from_str(raw).ok()?;
    let (first, last) = (update.first, update.last);
    let made = update.made.map_or("0", RawValue::get);
    Some(Difference { first, last, made, changes: changes(last, &update.b, &update.a) })
}

/// `more` comes before the levels.
fn answer(book: &Book, path: &str, more: &str) -> String {
    let limit = query(path, "limit").and_then(|n| n.parse().ok()).unwrap_or(LIMITS.0).clamp(1, LIMITS.1);
    let (bids, asks) = (listed(book.mirror.bids().take(limit), pair), listed(book.mirror.asks().take(limit), pair));
    format!(r#"{{"lastUpdateId":{}{more},"bids":{bids},"asks":{asks}}}"#, book.last)
}

impl Binance {
    fn of(overlaps: bool, answer: fn(&Book, &str, &str) -> String) -> Self {
        let books = Fetched::new(Form { depth: usize::MAX, overlaps, difference, answer });
        Self { books, readers: Readers::default(), synthetic: HashMap::new() }
    }

    /// Of a futures market, USD-M or COIN-M: "Drop any event where u is < lastUpdateId in the snapshot", not the one that
    /// ends there.
    pub(super) fn futures() -> Self {
        Self::of(true, |book, _name, path| answer(book, path, &format!(r#","E":{0},"T":{0}"#, book.made)))
    }
}

impl Dialect for Binance {
    fn look(&mut self, line: &Line<'_>) {
        let Line::Recv { data, .. } = line else { return };
        let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(data.bytes()) else { return };
        if let Some((symbol, _)) = stream(&envelope.stream) {
            self.books.know(&symbol.to_ascii_uppercase());
        }
    }

    fn opened(&mut self, session: Session, url: &str, said: &mut Vec<Said>) {
        if !self.readers.open(session, said) {
            return;
        }
        let list = query(url, "streams").map(str::to_owned);
        let list = list.or_else(|| url.split_once("/ws/").map(|(_, list)| list.to_owned())).unwrap_or_default();
        for topic in list.split('/').filter_map(topic) {
            self.readers.subscribe(session, &topic, "", Begins::Anywhere);
        }
    }

    fn heard(&mut self, session: Session, text: &str, said: &mut Vec<Said>) {
        let Ok(request) = serde_json::from_str::<Request<'_>>(text) else {
            let error = r#"{"error":{"code":3,"msg":"Invalid JSON"}}"#.to_owned();
            return said.push(Said::Text(session, error));
        };
        for topic in request.params.iter().filter_map(|name| topic(name)) {
            match &*request.method {
                "SUBSCRIBE" => _ = self.readers.subscribe(session, &topic, "", Begins::Anywhere),
                "UNSUBSCRIBE" => _ = self.readers.unsubscribe(session, &topic),
                _ => {}
            }
        }
        let id = request.id.map_or("null", |id| id.get());
        said.push(Said::Text(session, format!(r#"{{"result":null,"id":{id}}}"#)));
    }

    fn closed(&mut self, session: Session) {
        self.readers.close(session);
    }

    fn recv(&mut self, _conn: &str, data: &Payload<'_>, said: &mut Vec<Said>) -> bool {
        let Payload::Text(text) = data else { return false };
        let Ok(envelope) = serde_json::from_str::<Envelope<'_>>(text) else { return false };
        let (Some((symbol, stream)), Some(raw)) = (stream(&envelope.stream), envelope.data) else { return false };
        if stream == "depth"
            && let Ok(Named { s }) = serde_json::from_str::<Named<'_>>(raw.get())
        {
            self.books.take_in(&s, raw.get());
        }
        self.readers.play(&format!("{symbol}@{stream}"), false, text, said);
        true
    }

    fn http(&mut self, url: &str, body: &str, said: &mut Vec<Said>) {
        let Ok(depth) = serde_json::from_str::<Depth<'_>>(body) else { return };
        // A recording of one symbol may leave the URL out.
        let only = {
            let mut names = self.books.names();
            names.next().filter(|_| names.next().is_none()).map(str::to_owned)
        };
        let Some(symbol) = query(url, "symbol").map(str::to_owned).or(only) else { return };
        let Depth { id: number, bids, asks } = depth;
        self.books.begin(&symbol, &Snapshot { number, made: "0", bids, asks }, said);
    }

    fn asked(&mut self, request: u64, path: &str, said: &mut Vec<Said>) -> bool {
        let wrong = |code: i32, msg: &str| {
            let body = format!(r#"{{"code":{code},"msg":"{msg}"}}"#);
            Said::Answer { request, status: 400, body }
        };
        let place = path.split('?').next().unwrap_or(path);
        if place.ends_with("/exchangeInfo") {
            let symbols: Vec<String> = self
                .books
                .names()
                .map(|native| {
                    // `_PERP`, or a day of delivery.
                    let normal = by_suffix(native.split('_').next().unwrap_or(native));
                    let (base, quote) = normal.split_once('-').unwrap_or((native, ""));
                    format!(
                        r#"{{"symbol":{},"status":"TRADING","baseAsset":{},"quoteAsset":{},"filters":[]}}"#,
                        quoted(native),
                        quoted(base),
                        quoted(quote)
                    )
                })
                .collect();
            let body = format!(r#"{{"timezone":"UTC","symbols":[{}]}}"#, symbols.join(","));
            said.push(Said::Answer { request, status: 200, body });
            return true;
        }
        if !place.ends_with("/depth") {
            return false;
        }
        match query(path, "symbol").filter(|symbol| self.books.knows(symbol)) {
            None => said.push(wrong(-1121, "Invalid symbol.")),
            Some(symbol) => {
                if !self.books.ask(request, symbol, path, said) {
                    said.push(wrong(-1003, "Too many requests."));
                }
            }
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
        let native = joined(&instrument.symbol);
        self.books.know(&native);
        let (at, lower) = (update.ts.unwrap_or(update.recv).millis(), native.to_ascii_lowercase());
        let id = self.synthetic.entry(native.to_string()).or_insert(1);
        let (name, data) = match &update.data {
            Data::Book(levels) => {
                let (bids, asks) = (told_pairs(&levels.bids), told_pairs(&levels.asks));
                if update.kind == Kind::Snapshot {
                    let url = format!("https://api.binance.com/api/v3/depth?symbol={native}&limit=5000");
                    let body = format!(r#"{{"lastUpdateId":{id},"bids":{bids},"asks":{asks}}}"#);
                    let (ts, data) = (Some(update.recv), Payload::Text(body.into()));
                    lines.push(Line::Http { ts, conn: "synthetic".into(), url: url.into(), data });
                    return;
                }
                *id += 1;
                let (b, a) = (bids, asks);
                (
                    "depth@100ms",
                    format!(r#"{{"e":"depthUpdate","E":{at},"s":"{native}","U":{id},"u":{id},"b":{b},"a":{a}}}"#),
                )
            }
            Data::Trade(t) => {
                let (trade, price, size) = (&t.trade_id, t.price, t.size);
                let maker = t.side == Some(Side::Sell);
                let data = format!(
                    r#"{{"e":"trade","E":{at},"s":"{native}","t":{trade},"p":"{price}","q":"{size}","T":{at},"m":{maker},"M":true}}"#
                );
                ("trade", data)
            }
            Data::Quote(q) => {
                let (Some(bid), Some(ask)) = (&q.bid, &q.ask) else { return };
                let data = format!(
                    r#"{{"u":{id},"s":"{native}","b":"{}","B":"{}","a":"{}","A":"{}"}}"#,
                    bid.price, bid.size, ask.price, ask.size
                );
                ("bookTicker", data)
            }
            _ => return,
        };
        lines.push(recv(update, format!(r#"{{"stream":"{lower}@{name}","data":{data}}}"#)));
    }
}
