//! Binance, spot and futures: the URL subscribes, or `SUBSCRIBE`; a book begins with `GET …/depth`, answered for this place of the
//! recording. Before the recording's own snapshot there is none to give: the request waits for it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Deserialize;
use serde_json::value::RawValue;
use ticker_market::{Data, Instrument, Kind, Side};

use super::mirror::{Level, Mirror, listed};
use super::{Dialect, SESSIONS_MAX, SUBSCRIPTIONS_MAX, Said, Session, WAITING_MAX, quoted, recv};
use crate::Update;
use crate::recording::{Line, Payload};
use crate::roster::INSTRUMENTS_MAX;
use crate::symbols::{by_suffix, joined, query};

/// Differences that are kept of a symbol while it has no snapshot.
const BUFFERED_MAX: usize = 10_000;

/// Levels a side in an answer that names no limit (the venue's default), and at most.
const LIMITS: (usize, usize) = (100, 5_000);

#[derive(Debug, Default)]
pub(super) struct Binance {
    /// USD-M or COIN-M.
    futures: bool,
    books: BTreeMap<String, Book>,
    /// What each one gets: symbol in lower case and the stream's name without its speed.
    sessions: BTreeMap<Session, BTreeSet<(String, String)>>,
    waiting: Vec<(u64, String, usize)>,
    /// The synthetic market's update ids.
    synthetic: HashMap<String, u64>,
}

#[derive(Debug, Default)]
struct Book {
    mirror: Mirror,
    last: u64,
    /// When the venue made the last difference, in milliseconds.
    made_ms: i64,
    buffered: Vec<String>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Difference<'a> {
    #[serde(borrow)]
    s: Cow<'a, str>,
    u: u64,
    #[serde(rename = "E", default)]
    made_ms: i64,
    #[serde(borrow, default)]
    b: Vec<[&'a RawValue; 2]>,
    #[serde(borrow, default)]
    a: Vec<[&'a RawValue; 2]>,
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
fn stream(name: &str) -> Option<(String, String)> {
    let (symbol, rest) = name.split_once('@')?;
    Some((symbol.to_ascii_lowercase(), rest.split('@').next().unwrap_or(rest).to_owned()))
}

impl Book {
    fn set(&mut self, bids: &[[&RawValue; 2]], asks: &[[&RawValue; 2]]) {
        for (bid, levels) in [(true, bids), (false, asks)] {
            levels.iter().for_each(|[price, size]| self.mirror.set(bid, price, size));
        }
    }

    fn apply(&mut self, difference: &Difference<'_>) {
        if difference.u > self.last {
            self.set(&difference.b, &difference.a);
            (self.last, self.made_ms) = (difference.u, difference.made_ms);
        }
    }

    fn answer(&self, limit: usize, futures: bool) -> String {
        let form = |level: &Level| format!("[{},{}]", level.price, level.size);
        let bids = listed(self.mirror.bids().take(limit), form);
        let asks = listed(self.mirror.asks().take(limit), form);
        let made = if futures { format!(r#","E":{0},"T":{0}"#, self.made_ms) } else { String::new() };
        format!(r#"{{"lastUpdateId":{}{made},"bids":{bids},"asks":{asks}}}"#, self.last)
    }
}

impl Binance {
    /// Of a futures market.
    pub(super) fn futures() -> Self {
        Self { futures: true, ..Self::default() }
    }

    fn book(&mut self, symbol: &str) -> Option<&mut Book> {
        if !self.books.contains_key(symbol) && self.books.len() < INSTRUMENTS_MAX {
            self.books.insert(symbol.to_owned(), Book::default());
        }
        self.books.get_mut(symbol)
    }

    fn take_in(&mut self, raw: &str) {
        let Ok(difference) = serde_json::from_str::<Difference<'_>>(raw) else { return };
        let Some(book) = self.book(&difference.s) else { return };
        if book.mirror.is_whole {
            book.apply(&difference);
        } else if book.buffered.len() < BUFFERED_MAX {
            book.buffered.push(raw.to_owned());
        }
    }
}

impl Dialect for Binance {
    fn look(&mut self, line: &Line<'_>) {
        let Line::Recv { data, .. } = line else { return };
        let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(data.bytes()) else { return };
        if let Some((symbol, _)) = stream(&envelope.stream) {
            self.book(&symbol.to_ascii_uppercase());
        }
    }

    fn opened(&mut self, session: Session, url: &str, said: &mut Vec<Said>) {
        if self.sessions.len() >= SESSIONS_MAX {
            return said.push(Said::Close(session));
        }
        let list = query(url, "streams").map(str::to_owned);
        let list = list.or_else(|| url.split_once("/ws/").map(|(_, list)| list.to_owned())).unwrap_or_default();
        let streams = list.split('/').filter_map(stream).take(SUBSCRIPTIONS_MAX).collect();
        self.sessions.insert(session, streams);
    }

    fn heard(&mut self, session: Session, text: &str, said: &mut Vec<Said>) {
        let Some(streams) = self.sessions.get_mut(&session) else { return };
        let Ok(request) = serde_json::from_str::<Request<'_>>(text) else {
            let error = r#"{"error":{"code":3,"msg":"Invalid JSON"}}"#.to_owned();
            return said.push(Said::Text(session, error));
        };
        for name in request.params.iter().filter_map(|name| stream(name)) {
            match &*request.method {
                "SUBSCRIBE" if streams.len() < SUBSCRIPTIONS_MAX => _ = streams.insert(name),
                "UNSUBSCRIBE" => _ = streams.remove(&name),
                _ => {}
            }
        }
        let id = request.id.map_or("null", |id| id.get());
        said.push(Said::Text(session, format!(r#"{{"result":null,"id":{id}}}"#)));
    }

    fn closed(&mut self, session: Session) {
        self.sessions.remove(&session);
    }

    fn recv(&mut self, _conn: &str, data: &Payload<'_>, said: &mut Vec<Said>) -> bool {
        let Payload::Text(text) = data else { return false };
        let Ok(envelope) = serde_json::from_str::<Envelope<'_>>(text) else { return false };
        let (Some(name), Some(raw)) = (stream(&envelope.stream), envelope.data) else { return false };
        if name.1 == "depth" {
            self.take_in(raw.get());
        }
        let readers = self.sessions.iter().filter(|(_, streams)| streams.contains(&name));
        said.extend(readers.map(|(session, _)| Said::Text(*session, text.clone().into_owned())));
        true
    }

    fn http(&mut self, url: &str, body: &str, said: &mut Vec<Said>) {
        let Ok(depth) = serde_json::from_str::<Depth<'_>>(body) else { return };
        // A recording of one symbol may leave the URL out.
        let only = || self.books.keys().next().filter(|_| self.books.len() == 1).cloned();
        let Some(symbol) = query(url, "symbol").map(str::to_owned).or_else(only) else { return };
        let Some(book) = self.book(&symbol) else { return };
        if book.mirror.is_whole && book.last >= depth.id {
            return;
        }
        book.mirror.begin();
        book.set(&depth.bids, &depth.asks);
        book.last = depth.id;
        for raw in std::mem::take(&mut book.buffered) {
            if let Ok(difference) = serde_json::from_str(&raw) {
                book.apply(&difference);
            }
        }
        let (book, futures) = (&self.books[&symbol], self.futures);
        self.waiting.retain(|(request, wanted, limit)| {
            if *wanted == symbol {
                said.push(Said::Answer { request: *request, status: 200, body: book.answer(*limit, futures) });
            }
            *wanted != symbol
        });
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
                .keys()
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
        let limit = query(path, "limit").and_then(|n| n.parse().ok()).unwrap_or(LIMITS.0).clamp(1, LIMITS.1);
        let symbol = query(path, "symbol").unwrap_or_default();
        match self.books.get(symbol) {
            None => said.push(wrong(-1121, "Invalid symbol.")),
            Some(book) if book.mirror.is_whole => {
                said.push(Said::Answer { request, status: 200, body: book.answer(limit, self.futures) });
            }
            Some(_) if self.waiting.len() >= WAITING_MAX => said.push(wrong(-1003, "Too many requests.")),
            Some(_) => self.waiting.push((request, symbol.to_owned(), limit)),
        }
        true
    }

    fn is_wanted(&self) -> bool {
        self.sessions.values().any(|streams| !streams.is_empty())
    }

    fn begun_again(&mut self) {
        self.books.values_mut().for_each(|book| *book = Book::default());
    }

    fn tell(&mut self, update: &Update, instrument: &Instrument, lines: &mut Vec<Line<'static>>) {
        let native = joined(&instrument.symbol);
        self.book(&native);
        let (at, lower) = (update.ts.unwrap_or(update.recv).millis(), native.to_ascii_lowercase());
        let id = self.synthetic.entry(native.to_string()).or_insert(1);
        let side = |levels: &[ticker_market::Level]| {
            let all: Vec<String> = levels.iter().map(|l| format!(r#"["{}","{}"]"#, l.price, l.size)).collect();
            format!("[{}]", all.join(","))
        };
        let (name, data) = match &update.data {
            Data::Book(levels) => {
                let (bids, asks) = (side(&levels.bids), side(&levels.asks));
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
