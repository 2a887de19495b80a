//! Bitget v2: each channel of a request is acknowledged or refused by itself, `books` begins with a snapshot that has the
//! last `seq` and checksum, `ping` is text. A recording of v1, which calls the kinds of instruments otherwise, is played to
//! who asks by v2, and the other way round.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use serde::Deserialize;
use serde_json::value::RawValue;
use ticker_market::{Data, Instrument, Kind, Side};

use super::mirror::{Mirror, Shelf, listed, pair, told_pairs};
use super::readers::{Begins, Readers};
use super::{Dialect, Said, Session, quoted, recv};
use crate::Update;
use crate::recording::{Line, Payload};
use crate::roster::INSTRUMENTS_MAX;
use crate::symbols::{by_suffix, joined};

#[derive(Debug, Default)]
pub(super) struct Bitget {
    /// As `SPOT/BTCUSDT`.
    names: BTreeSet<String>,
    /// By that name.
    books: Shelf<Book>,
    /// Topics are `SPOT/books/BTCUSDT`, and `asked` is the kind as the reader calls it.
    readers: Readers,
    /// The synthetic market's `seq`s.
    synthetic: HashMap<String, i64>,
}

/// A book, and what the venue's last frame said of it besides its levels.
#[derive(Debug, Default)]
struct Book {
    mirror: Mirror,
    checksum: Option<i64>,
    seq: Option<String>,
    ts: String,
}

#[derive(Deserialize, Default)]
struct Arg<'a> {
    #[serde(borrow, default, rename = "instType")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    channel: Cow<'a, str>,
    #[serde(borrow, default, rename = "instId")]
    instrument: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    arg: Arg<'a>,
    #[serde(borrow, default)]
    action: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct BookData<'a> {
    #[serde(borrow, default)]
    asks: Vec<[&'a RawValue; 2]>,
    #[serde(borrow, default)]
    bids: Vec<[&'a RawValue; 2]>,
    #[serde(default)]
    checksum: Option<i64>,
    #[serde(borrow, default)]
    seq: Option<&'a RawValue>,
    #[serde(borrow, default)]
    ts: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    op: Cow<'a, str>,
    #[serde(borrow, default)]
    args: Vec<Arg<'a>>,
}

impl Arg<'_> {
    /// The kind by v2; v1 has one word for all contracts.
    fn kind(&self) -> Option<&'static str> {
        let is = |name: &str| self.kind.eq_ignore_ascii_case(name);
        let contracts = [("USDT", "USDT-FUTURES"), ("PERP", "USDC-FUTURES"), ("", "COIN-FUTURES")];
        match () {
            () if is("SP") || is("SPOT") => Some("SPOT"),
            () if is("MC") => {
                contracts.into_iter().find(|(end, _)| self.instrument.ends_with(end)).map(|(_, kind)| kind)
            }
            () => contracts.into_iter().map(|(_, kind)| kind).find(|kind| is(kind)),
        }
    }

    fn name(&self) -> Option<String> {
        Some(format!("{}/{}", self.kind()?, self.instrument))
    }

    fn topic(&self) -> Option<String> {
        let is_channel = matches!(&*self.channel, "books" | "books1" | "books5" | "books15" | "trade" | "ticker")
            || self.channel.starts_with("candle");
        Some(format!("{}/{}/{}", self.kind()?, self.channel, self.instrument)).filter(|_| is_channel)
    }

    fn json(&self) -> String {
        let Self { kind, channel, instrument } = self;
        let (channel, instrument) = (quoted(channel), quoted(instrument));
        format!(r#""arg":{{{},"channel":{channel},"instId":{instrument}}}"#, inst_type(kind))
    }
}

/// The field by which a frame names the kind.
fn inst_type(kind: &str) -> String {
    format!(r#""instType":{}"#, quoted(kind))
}

impl Book {
    fn take_in(&mut self, is_snapshot: bool, data: &BookData<'_>) {
        if is_snapshot {
            self.mirror.begin();
        }
        self.mirror.set_pairs(&data.bids, &data.asks);
        self.checksum = data.checksum;
        self.seq = data.seq.map(|seq| seq.get().to_owned());
        self.ts = data.ts.map_or(r#""0""#, RawValue::get).to_owned();
    }

    fn snapshot(&self, arg: &Arg<'_>) -> String {
        let (bids, asks) = (listed(self.mirror.bids(), pair), listed(self.mirror.asks(), pair));
        let checksum = self.checksum.map_or_else(String::new, |sum| format!(r#","checksum":{sum}"#));
        let seq = self.seq.as_ref().map_or_else(String::new, |seq| format!(r#","seq":{seq},"pseq":0"#));
        let (arg, ts) = (arg.json(), &self.ts);
        format!(r#"{{"action":"snapshot",{arg},"data":[{{"asks":{asks},"bids":{bids}{checksum}{seq},"ts":{ts}}}]}}"#)
    }
}

impl Bitget {
    fn know(&mut self, name: String) {
        if self.names.len() < INSTRUMENTS_MAX {
            self.names.insert(name);
        }
    }

    fn subscribe(&mut self, session: Session, arg: &Arg<'_>, said: &mut Vec<Said>) {
        let known = arg.name().filter(|name| self.names.contains(name));
        let (Some(name), Some(topic)) = (known, arg.topic()) else {
            let Arg { kind, channel, instrument } = arg;
            let message = quoted(&format!("instType:{kind},channel:{channel},instId:{instrument} doesn't exist"));
            let arg = arg.json();
            let text = format!(r#"{{"event":"error",{arg},"code":30001,"msg":{message},"op":"subscribe"}}"#);
            return said.push(Said::Text(session, text));
        };
        let book = self.books.get(&name).filter(|book| arg.channel == "books" && book.mirror.is_whole);
        let begins = Begins::of(arg.channel == "books", book.is_some());
        if self.readers.subscribe(session, &topic, &inst_type(&arg.kind), begins) {
            said.push(Said::Text(session, format!(r#"{{"event":"subscribe",{}}}"#, arg.json())));
            said.extend(book.map(|book| Said::Text(session, book.snapshot(arg))));
        }
    }
}

impl Dialect for Bitget {
    fn look(&mut self, line: &Line<'_>) {
        let Line::Recv { data, .. } = line else { return };
        let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(data.bytes()) else { return };
        if let (Some(_), Some(name)) = (envelope.data, envelope.arg.name()) {
            self.know(name);
        }
    }

    fn opened(&mut self, session: Session, _url: &str, said: &mut Vec<Said>) {
        self.readers.open(session, said);
    }

    fn heard(&mut self, session: Session, text: &str, said: &mut Vec<Said>) {
        if text == "ping" {
            return said.push(Said::Text(session, "pong".to_owned()));
        }
        let request = serde_json::from_str::<Request<'_>>(text).ok();
        let Some(request) = request.filter(|request| matches!(&*request.op, "subscribe" | "unsubscribe")) else {
            let error = r#"{"event":"error","code":30003,"msg":"INVALID op"}"#.to_owned();
            return said.push(Said::Text(session, error));
        };
        for arg in &request.args {
            if request.op == "subscribe" {
                self.subscribe(session, arg, said);
            } else if arg.topic().is_some_and(|topic| self.readers.unsubscribe(session, &topic)) {
                said.push(Said::Text(session, format!(r#"{{"event":"unsubscribe",{}}}"#, arg.json())));
            }
        }
    }

    fn closed(&mut self, session: Session) {
        self.readers.close(session);
    }

    fn recv(&mut self, _conn: &str, data: &Payload<'_>, said: &mut Vec<Said>) -> bool {
        let Payload::Text(text) = data else { return false };
        let Ok(Envelope { arg, action, data: Some(raw) }) = serde_json::from_str::<Envelope<'_>>(text) else {
            return false;
        };
        let (Some(name), Some(topic)) = (arg.name(), arg.topic()) else { return false };
        let is_snapshot = action == "snapshot";
        if arg.channel == "books" {
            let Ok(frames) = serde_json::from_str::<Vec<BookData<'_>>>(raw.get()) else { return false };
            let Some(book) = self.books.keep(&name) else { return false };
            frames.iter().for_each(|frame| book.take_in(is_snapshot, frame));
        }
        self.readers.play_as((&topic, &inst_type(&arg.kind)), is_snapshot, text, said);
        true
    }

    fn listed(&self, path: &str) -> Option<String> {
        let kind = match path.split_once("productType=") {
            Some((_, kind)) => kind.split('&').next().unwrap_or(kind).to_ascii_uppercase(),
            None if path.contains("/spot/public/symbols") => "SPOT".to_owned(),
            None => return None,
        };
        let native = |name: &'_ String| name.strip_prefix(&kind)?.strip_prefix('/').map(str::to_owned);
        let form = |native: String| {
            let normal = by_suffix(&native);
            let (base, quote) = match native.strip_suffix("PERP") {
                Some(base) => (base, "USDC"),
                None => normal.split_once('-').unwrap_or((&native, "")),
            };
            let (native, base, quote) = (quoted(&native), quoted(base), quoted(quote));
            format!(r#"{{"symbol":{native},"baseCoin":{base},"quoteCoin":{quote},"status":"online"}}"#)
        };
        let all: Vec<String> = self.names.iter().filter_map(native).map(form).collect();
        Some(format!(r#"{{"code":"00000","msg":"success","requestTime":0,"data":[{}]}}"#, all.join(",")))
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
        self.know(format!("SPOT/{name}"));
        let at = update.ts.unwrap_or(update.recv).millis();
        let seq = self.synthetic.entry(name.to_string()).or_insert(1_000);
        let (channel, action, data) = match &update.data {
            Data::Book(levels) => {
                let is_snapshot = update.kind == Kind::Snapshot;
                let before = if is_snapshot { 0 } else { *seq };
                *seq += 7;
                let (asks, bids) = (told_pairs(&levels.asks), told_pairs(&levels.bids));
                let data =
                    format!(r#"{{"asks":{asks},"bids":{bids},"checksum":0,"seq":{seq},"pseq":{before},"ts":"{at}"}}"#);
                ("books", if is_snapshot { "snapshot" } else { "update" }, data)
            }
            Data::Quote(q) => {
                let (asks, bids) = (told_pairs(q.ask.as_slice()), told_pairs(q.bid.as_slice()));
                let data = format!(r#"{{"asks":{asks},"bids":{bids},"checksum":0,"seq":{seq},"pseq":0,"ts":"{at}"}}"#);
                ("books1", "snapshot", data)
            }
            Data::Trade(t) => {
                let side = if t.side == Some(Side::Sell) { "sell" } else { "buy" };
                let (id, price, size) = (&t.trade_id, t.price, t.size);
                let data =
                    format!(r#"{{"ts":"{at}","price":"{price}","size":"{size}","side":"{side}","tradeId":"{id}"}}"#);
                ("trade", "update", data)
            }
            _ => return,
        };
        let arg = Arg { kind: "SPOT".into(), channel: channel.into(), instrument: name.as_str().into() }.json();
        lines.push(recv(update, format!(r#"{{"action":"{action}",{arg},"data":[{data}],"ts":{at}}}"#)));
    }
}
