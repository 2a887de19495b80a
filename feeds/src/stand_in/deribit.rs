//! Deribit, API v2: JSON-RPC; what cannot be subscribed to is left out of the answer; a book begins with a snapshot that has
//! the last `change_id`. A channel at another interval than the recording's is played as that: the changes are the same.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use serde::Deserialize;
use serde_json::value::RawValue;
use ticker_market::{Data, Instrument, Kind, Side};

use super::mirror::{Level, Mirror, Shelf, listed, told};
use super::readers::{Begins, Readers};
use super::{Dialect, Said, Session, quoted, recv};
use crate::Update;
use crate::recording::{Line, Payload};
use crate::roster::INSTRUMENTS_MAX;

#[derive(Debug, Default)]
pub(super) struct Deribit {
    names: BTreeSet<String>,
    /// By the instrument's name.
    books: Shelf<Book>,
    /// Topics are channels without their interval, and `asked` is the whole of it as JSON.
    readers: Readers,
    /// The synthetic market's ids.
    synthetic: HashMap<String, u64>,
}

/// A book, and what the venue's last frame said of it besides its levels.
#[derive(Debug, Default)]
struct Book {
    mirror: Mirror,
    change_id: u64,
    timestamp: i64,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    method: Cow<'a, str>,
    #[serde(borrow, default)]
    params: Option<Params<'a>>,
}

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(borrow, default)]
    channel: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// Rows are what is done, price and amount.
#[derive(Deserialize)]
struct BookData<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'a, str>,
    timestamp: i64,
    change_id: u64,
    #[serde(borrow, default)]
    bids: Vec<[&'a RawValue; 3]>,
    #[serde(borrow, default)]
    asks: Vec<[&'a RawValue; 3]>,
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Channels {
    channels: Vec<String>,
}

/// A channel without its interval.
fn topic(channel: &str) -> &str {
    let kind = channel.split('.').next().unwrap_or(channel);
    match channel.rsplit_once('.') {
        Some((topic, _)) if matches!(kind, "book" | "ticker" | "trades") => topic,
        _ => channel,
    }
}

/// The instrument of a channel, if there is such a channel.
fn name(channel: &str) -> Option<&str> {
    let mut parts = channel.split('.');
    let kind = parts.next()?;
    parts.next().filter(|_| matches!(kind, "book" | "quote" | "ticker" | "trades"))
}

/// Is a topic that of a whole book? With more parts it is one of grouped prices, or of the best levels.
fn is_book(topic: &str) -> bool {
    topic.starts_with("book.") && topic.split('.').count() == 2
}

impl Book {
    fn take_in(&mut self, data: &BookData<'_>) {
        if data.kind == "snapshot" {
            self.mirror.begin();
        }
        for (bid, rows) in [(true, &data.bids), (false, &data.asks)] {
            for [what, price, amount] in rows {
                let is_gone = what.get() == "\"delete\"";
                self.mirror.put(bid, price.get(), (!is_gone).then(|| amount.get()));
            }
        }
        (self.change_id, self.timestamp) = (data.change_id, data.timestamp);
    }

    fn snapshot(&self, name: &str, channel: &str) -> String {
        let form = |level: &Level| format!(r#"["new",{},{}]"#, level.price, level.size);
        let (bids, asks) = (listed(self.mirror.bids(), form), listed(self.mirror.asks(), form));
        let (name, channel) = (quoted(name), quoted(channel));
        let (at, id) = (self.timestamp, self.change_id);
        format!(
            r#"{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":{channel},"data":{{"type":"snapshot","timestamp":{at},"instrument_name":{name},"change_id":{id},"bids":{bids},"asks":{asks}}}}}}}"#
        )
    }
}

impl Deribit {
    fn know(&mut self, name: &str) {
        if self.names.len() < INSTRUMENTS_MAX {
            self.names.insert(name.to_owned());
        }
    }

    /// Returns what was subscribed to or not any more, and the snapshots that follow.
    fn change(&mut self, session: Session, subscribes: bool, channels: &[String]) -> (Vec<String>, Vec<String>) {
        let (mut done, mut snapshots) = (Vec::new(), Vec::new());
        for channel in channels {
            let Some(name) = name(channel).filter(|name| self.names.contains(*name)) else { continue };
            let topic = topic(channel);
            let has_it = self.readers.asked(session).any(|(_, asked)| asked == quoted(channel));
            if !subscribes {
                if has_it {
                    self.readers.unsubscribe(session, topic);
                    done.push(quoted(channel));
                }
                continue;
            }
            done.push(quoted(channel));
            if has_it {
                continue;
            }
            let book = self.books.get(name).filter(|book| is_book(topic) && book.mirror.is_whole);
            let begins = Begins::of(is_book(topic), book.is_some());
            if self.readers.subscribe(session, topic, &quoted(channel), begins) {
                snapshots.extend(book.map(|book| book.snapshot(name, channel)));
            }
        }
        (done, snapshots)
    }
}

impl Dialect for Deribit {
    fn look(&mut self, line: &Line<'_>) {
        let Line::Recv { data, .. } = line else { return };
        let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(data.bytes()) else { return };
        if let Some(params) = envelope.params.filter(|_| envelope.method == "subscription")
            && let Some(name) = name(&params.channel)
        {
            self.know(name);
        }
    }

    fn opened(&mut self, session: Session, _url: &str, said: &mut Vec<Said>) {
        self.readers.open(session, said);
    }

    fn heard(&mut self, session: Session, text: &str, said: &mut Vec<Said>) {
        let error = |id: &str, code: i32, message: &str| {
            let text =
                format!(r#"{{"jsonrpc":"2.0",{id}"error":{{"message":"{message}","code":{code}}},"testnet":false}}"#);
            Said::Text(session, text)
        };
        let Ok(request) = serde_json::from_str::<Request<'_>>(text) else {
            return said.push(error("", -32_700, "Parse error"));
        };
        let id = request.id.map_or_else(String::new, |id| format!(r#""id":{},"#, id.get()));
        let mut snapshots = Vec::new();
        let result = match &*request.method {
            "public/set_heartbeat" | "public/disable_heartbeat" => r#""ok""#.to_owned(),
            "public/test" => r#"{"version":"1.2.26"}"#.to_owned(),
            method @ ("public/subscribe" | "public/unsubscribe") => {
                let params = request.params.and_then(|raw| serde_json::from_str::<Channels>(raw.get()).ok());
                let Some(Channels { channels }) = params else {
                    return said.push(error(&id, -32_602, "Invalid params"));
                };
                let done;
                (done, snapshots) = self.change(session, method == "public/subscribe", &channels);
                format!("[{}]", done.join(","))
            }
            _ => return said.push(error(&id, -32_601, "Method not found")),
        };
        said.push(Said::Text(session, format!(r#"{{"jsonrpc":"2.0",{id}"result":{result},"testnet":false}}"#)));
        said.extend(snapshots.into_iter().map(|text| Said::Text(session, text)));
    }

    fn closed(&mut self, session: Session) {
        self.readers.close(session);
    }

    fn recv(&mut self, _conn: &str, data: &Payload<'_>, said: &mut Vec<Said>) -> bool {
        let Payload::Text(text) = data else { return false };
        let Ok(Envelope { params: Some(params), method }) = serde_json::from_str::<Envelope<'_>>(text) else {
            return false;
        };
        // Answers to what the recorder asked for, and its heartbeats, have none.
        let Some(raw) = params.data.filter(|_| method == "subscription") else { return false };
        let (topic, mut is_snapshot) = (topic(&params.channel), false);
        if is_book(topic) {
            let Ok(data) = serde_json::from_str::<BookData<'_>>(raw.get()) else { return false };
            let Some(book) = name(topic).and_then(|name| self.books.keep(name)) else { return false };
            is_snapshot = data.kind == "snapshot";
            book.take_in(&data);
        }
        self.readers.play_as((topic, &quoted(&params.channel)), is_snapshot, text, said);
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
        let name = instrument.symbol.replace('-', "_");
        self.know(&name);
        let at = update.ts.unwrap_or(update.recv).millis();
        let id = self.synthetic.entry(name.clone()).or_insert(1_000);
        let (channel, data) = match &update.data {
            Data::Book(levels) => {
                let before = *id;
                *id += 3;
                let is_snapshot = update.kind == Kind::Snapshot;
                let side = |levels: &[ticker_market::Level]| {
                    told(levels, |level| {
                        let what = match () {
                            () if level.size.is_zero() => "delete",
                            () if is_snapshot => "new",
                            () => "change",
                        };
                        format!(r#"["{what}",{},{}]"#, level.price, level.size)
                    })
                };
                let (bids, asks) = (side(&levels.bids), side(&levels.asks));
                let kind = if is_snapshot { "snapshot" } else { "change" };
                let before = if is_snapshot { String::new() } else { format!(r#""prev_change_id":{before},"#) };
                let data = format!(
                    r#"{{"type":"{kind}","timestamp":{at},{before}"instrument_name":"{name}","change_id":{id},"bids":{bids},"asks":{asks}}}"#
                );
                (format!("book.{name}.100ms"), data)
            }
            Data::Quote(q) => {
                let (Some(bid), Some(ask)) = (&q.bid, &q.ask) else { return };
                let data = format!(
                    r#"{{"timestamp":{at},"instrument_name":"{name}","best_bid_price":{},"best_bid_amount":{},"best_ask_price":{},"best_ask_amount":{}}}"#,
                    bid.price, bid.size, ask.price, ask.size
                );
                (format!("quote.{name}"), data)
            }
            Data::Trade(t) => {
                let side = if t.side == Some(Side::Sell) { "sell" } else { "buy" };
                let (id, price, size) = (&t.trade_id, t.price, t.size);
                let data = format!(
                    r#"[{{"trade_seq":{id},"trade_id":"{id}","timestamp":{at},"price":{price},"instrument_name":"{name}","direction":"{side}","amount":{size}}}]"#
                );
                (format!("trades.{name}.100ms"), data)
            }
            _ => return,
        };
        let channel = quoted(&channel);
        let params = format!(r#"{{"channel":{channel},"data":{data}}}"#);
        lines.push(recv(update, format!(r#"{{"jsonrpc":"2.0","method":"subscription","params":{params}}}"#)));
    }
}
