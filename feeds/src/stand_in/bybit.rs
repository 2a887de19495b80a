//! Bybit v5: the URL names the market, a request is taken or refused as a whole, and a book begins with a snapshot that has
//! the last `u`. Books have the depths that the recording has; another depth is acknowledged, and silent.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Deserialize;
use serde_json::value::RawValue;
use ticker_market::{Data, Instrument, Kind, Side};

use super::mirror::{Mirror, Shelf, listed, pair, told_pairs};
use super::readers::{Begins, Readers};
use super::{Dialect, Said, Session, quoted, recv};
use crate::Update;
use crate::recording::{Line, Payload};
use crate::roster::INSTRUMENTS_MAX;
use crate::symbols::{by_suffix, joined, query};

/// The market of a connection whose URL is not known, as the synthetic one's.
const SPOT: &str = "spot";

/// Depths of the books, and the synthetic market's.
const DEPTHS: [&str; 5] = ["1", "50", "200", "500", "1000"];
const DEPTH: usize = 200;

/// Topics of one request on the spot market.
const SPOT_ARGS_MAX: usize = 10;

#[derive(Debug, Default)]
pub(super) struct Bybit {
    /// By the connection's name in the recording: its market.
    conns: BTreeMap<String, String>,
    /// By the reader's connection.
    markets: BTreeMap<Session, String>,
    /// As `linear/BTCUSDT`.
    symbols: BTreeSet<String>,
    /// By market: its list of instruments, as it was recorded.
    lists: BTreeMap<String, String>,
    /// By topic with its market: `linear/orderbook.200.BTCUSDT`.
    books: Shelf<Book>,
    readers: Readers,
    /// The synthetic market's last `u`.
    synthetic: HashMap<String, u64>,
}

/// A book, and what the venue's last frame said of it besides its levels.
#[derive(Debug, Default)]
struct Book {
    mirror: Mirror,
    ts: String,
    cts: String,
    u: u64,
    seq: u64,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    topic: Cow<'a, str>,
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    ts: Option<&'a RawValue>,
    #[serde(borrow, default)]
    cts: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct BookData<'a> {
    #[serde(borrow, default)]
    b: Vec<[&'a RawValue; 2]>,
    #[serde(borrow, default)]
    a: Vec<[&'a RawValue; 2]>,
    u: u64,
    #[serde(default)]
    seq: u64,
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    op: Cow<'a, str>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(borrow, default)]
    req_id: Option<Cow<'a, str>>,
}

/// The last part of `wss://stream.bybit.com/v5/public/linear`.
fn market(url: &str) -> &str {
    let path = url.split('?').next().unwrap_or(url).trim_end_matches('/');
    path.rsplit('/').next().filter(|last| !last.is_empty()).unwrap_or(SPOT)
}

/// The depth of a book's topic.
fn depth(topic: &str) -> Option<usize> {
    topic.strip_prefix("orderbook.")?.split('.').next()?.parse().ok()
}

/// The symbol of a topic, if it is one.
fn symbol(topic: &str) -> Option<&str> {
    let (channel, symbol) = topic.rsplit_once('.')?;
    let is_channel = match channel.split_once('.') {
        Some(("orderbook", depth)) => DEPTHS.contains(&depth),
        Some(("kline", _)) => true,
        _ => matches!(channel, "publicTrade" | "tickers" | "liquidation" | "allLiquidation"),
    };
    is_channel.then_some(symbol)
}

impl Book {
    fn take_in(&mut self, depth: usize, envelope: &Envelope<'_>, data: &BookData<'_>) {
        // The venue's engine was restarted where it counts from 1.
        if envelope.kind == "snapshot" || data.u == 1 {
            self.mirror.begin();
        }
        self.mirror.set_pairs(&data.b, &data.a);
        self.mirror.cut(depth);
        let number = |raw: Option<&RawValue>| raw.map_or("0", RawValue::get).to_owned();
        (self.ts, self.cts) = (number(envelope.ts), number(envelope.cts));
        (self.u, self.seq) = (data.u, data.seq);
    }

    fn snapshot(&self, topic: &str) -> String {
        let (bids, asks) = (listed(self.mirror.bids(), pair), listed(self.mirror.asks(), pair));
        let (name, topic) = (quoted(topic.rsplit('.').next().unwrap_or(topic)), quoted(topic));
        let Self { ts, cts, u, seq, .. } = self;
        format!(
            r#"{{"topic":{topic},"type":"snapshot","ts":{ts},"data":{{"s":{name},"b":{bids},"a":{asks},"u":{u},"seq":{seq}}},"cts":{cts}}}"#
        )
    }
}

impl Bybit {
    fn market_of(&self, conn: &str) -> String {
        self.conns.get(conn).map_or(SPOT, String::as_str).to_owned()
    }

    fn know(&mut self, market: &str, symbol: &str) {
        if self.symbols.len() < INSTRUMENTS_MAX {
            self.symbols.insert(format!("{market}/{symbol}"));
        }
    }

    /// Why a request is refused, as the venue words it for each market.
    fn refusal(&self, session: Session, market: &str, args: &[String]) -> Option<String> {
        if market == SPOT && args.len() > SPOT_ARGS_MAX {
            return Some(format!("args size >{SPOT_ARGS_MAX}"));
        }
        let is_known =
            |topic: &str| symbol(topic).is_some_and(|symbol| self.symbols.contains(&format!("{market}/{symbol}")));
        if let Some(topic) = args.iter().find(|topic| !is_known(topic)) {
            return Some(match market {
                SPOT => format!("Invalid symbol :[{topic}]"),
                _ => format!("error:handler not found,topic:{topic}"),
            });
        }
        let again = args.iter().find(|topic| self.readers.has(session, &format!("{market}/{topic}")))?;
        Some(format!("error:already subscribed,topic:{again}"))
    }

    fn list(&self, market: &str) -> String {
        let of_market = |name: &&String| name.strip_prefix(market).is_some_and(|rest| rest.starts_with('/'));
        let form = |name: &String| {
            let native = &name[market.len() + 1..];
            let normal = by_suffix(native);
            let (base, quote) = normal.split_once('-').unwrap_or((native, ""));
            let delivery = if market == SPOT { "" } else { r#","deliveryTime":"0""# };
            let (native, base, quote) = (quoted(native), quoted(base), quoted(quote));
            format!(r#"{{"symbol":{native},"status":"Trading","baseCoin":{base},"quoteCoin":{quote}{delivery}}}"#)
        };
        let all: Vec<String> = self.symbols.iter().filter(of_market).map(form).collect();
        let (market, all) = (quoted(market), all.join(","));
        format!(r#"{{"retCode":0,"retMsg":"OK","result":{{"category":{market},"list":[{all}],"nextPageCursor":""}}}}"#)
    }
}

impl Dialect for Bybit {
    fn look(&mut self, line: &Line<'_>) {
        match line {
            Line::Connect { conn, url, .. } => {
                self.conns.insert(conn.clone().into_owned(), market(url).to_owned());
            }
            Line::Http { url, data: Payload::Text(body), .. } if url.contains("/instruments-info") => {
                let market = query(url, "category").unwrap_or(SPOT).to_owned();
                self.lists.entry(market).or_insert_with(|| body.clone().into_owned());
            }
            Line::Recv { conn, data, .. } => {
                let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(data.bytes()) else { return };
                if let Some(symbol) = symbol(&envelope.topic) {
                    self.know(&self.market_of(conn), symbol);
                }
            }
            _ => {}
        }
    }

    fn opened(&mut self, session: Session, url: &str, said: &mut Vec<Said>) {
        if self.readers.open(session, said) {
            self.markets.insert(session, market(url).to_owned());
        }
    }

    fn heard(&mut self, session: Session, text: &str, said: &mut Vec<Said>) {
        let Some(market) = self.markets.get(&session).cloned() else { return };
        let Ok(request) = serde_json::from_str::<Request<'_>>(text) else {
            let error = r#"{"success":false,"ret_msg":"Params Error","conn_id":"","req_id":"","op":""}"#.to_owned();
            return said.push(Said::Text(session, error));
        };
        let id = quoted(request.req_id.as_deref().unwrap_or_default());
        let mut answer = |success: bool, message: &str, op: &str| {
            let (message, op, conn) = (quoted(message), quoted(op), session.0);
            let text =
                format!(r#"{{"success":{success},"ret_msg":{message},"conn_id":"{conn}","req_id":{id},"op":{op}}}"#);
            said.push(Said::Text(session, text));
        };
        match &*request.op {
            "ping" => answer(true, "pong", "ping"),
            "subscribe" => {
                if let Some(refusal) = self.refusal(session, &market, &request.args) {
                    return answer(false, &refusal, "subscribe");
                }
                answer(true, if market == SPOT { "subscribe" } else { "" }, "subscribe");
                for asked in &request.args {
                    let topic = format!("{market}/{asked}");
                    let book = self.books.get(&topic).filter(|book| book.mirror.is_whole);
                    let begins = Begins::of(depth(asked).is_some(), book.is_some());
                    if self.readers.subscribe(session, &topic, asked, begins) {
                        said.extend(book.map(|book| Said::Text(session, book.snapshot(asked))));
                    }
                }
            }
            "unsubscribe" => {
                for topic in &request.args {
                    self.readers.unsubscribe(session, &format!("{market}/{topic}"));
                }
                answer(true, "", "unsubscribe");
            }
            op => answer(false, &format!("error:unknown op:{op}"), op),
        }
    }

    fn closed(&mut self, session: Session) {
        self.readers.close(session);
        self.markets.remove(&session);
    }

    fn recv(&mut self, conn: &str, data: &Payload<'_>, said: &mut Vec<Said>) -> bool {
        let Payload::Text(text) = data else { return false };
        let Ok(envelope) = serde_json::from_str::<Envelope<'_>>(text) else { return false };
        // Answers to what the recorder asked for have none.
        let (false, Some(raw)) = (envelope.topic.is_empty(), envelope.data) else { return false };
        let topic = format!("{}/{}", self.market_of(conn), envelope.topic);
        let mut is_snapshot = false;
        if let Some(depth) = depth(&envelope.topic) {
            let Ok(data) = serde_json::from_str::<BookData<'_>>(raw.get()) else { return false };
            let Some(book) = self.books.keep(&topic) else { return false };
            is_snapshot = envelope.kind == "snapshot" || data.u == 1;
            book.take_in(depth, &envelope, &data);
        }
        self.readers.play(&topic, is_snapshot, text, said);
        true
    }

    fn asked(&mut self, request: u64, path: &str, said: &mut Vec<Said>) -> bool {
        if !path.contains("/instruments-info") {
            return false;
        }
        // Of one market, whatever else the recorder asked for.
        let market = query(path, "category").unwrap_or(SPOT);
        let body = self.lists.get(market).cloned().unwrap_or_else(|| self.list(market));
        said.push(Said::Answer { request, status: 200, body });
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
        self.know(SPOT, &name);
        let at = update.ts.unwrap_or(update.recv).millis();
        let u = self.synthetic.entry(name.to_string()).or_insert(1_000);
        let book = |depth: usize, kind: &str, bids: &[ticker_market::Level], asks: &[ticker_market::Level], u: u64| {
            let (b, a) = (told_pairs(bids), told_pairs(asks));
            format!(
                r#"{{"topic":"orderbook.{depth}.{name}","ts":{at},"type":"{kind}","data":{{"s":"{name}","b":{b},"a":{a},"u":{u},"seq":{u}}},"cts":{at}}}"#
            )
        };
        let text = match &update.data {
            Data::Book(levels) => {
                *u += 1;
                let kind = if update.kind == Kind::Snapshot { "snapshot" } else { "delta" };
                book(DEPTH, kind, &levels.bids, &levels.asks, *u)
            }
            Data::Quote(q) => book(1, "snapshot", q.bid.as_slice(), q.ask.as_slice(), *u),
            Data::Trade(t) => {
                let side = if t.side == Some(Side::Sell) { "Sell" } else { "Buy" };
                let (id, price, size) = (&t.trade_id, t.price, t.size);
                format!(
                    r#"{{"topic":"publicTrade.{name}","ts":{at},"type":"snapshot","data":[{{"i":"{id}","T":{at},"p":"{price}","v":"{size}","S":"{side}","s":"{name}","BT":false}}]}}"#
                )
            }
            _ => return,
        };
        lines.push(recv(update, text));
    }
}
