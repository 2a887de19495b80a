//! OKX v5: each channel of a request is acknowledged or refused by itself, `books` begins with a snapshot, `ping` is text. A
//! recording of `books-l2-tbt`, which is the same book told more often, is played to who asks for `books` as that.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use ticker_market::{Data, Instrument, Kind, Side};

use super::mirror::{Level, Mirror, Shelf, listed, told};
use super::readers::{Begins, Readers};
use super::{Dialect, Said, Session, quoted, recv};
use crate::Update;
use crate::recording::{Line, Payload};

#[derive(Debug, Default)]
pub(super) struct Okx {
    books: Shelf<Book>,
    /// Topics are `trades/BTC-USDT`, and `asked` is the channel as the reader calls it, quoted.
    readers: Readers,
    /// The synthetic market's `seqId`s.
    synthetic: HashMap<String, i64>,
}

#[derive(Debug, Default)]
struct Book {
    mirror: Mirror,
    place: Place,
}

/// What the venue's last frame said of a book, besides its levels.
#[derive(Clone, Debug, Default)]
struct Place {
    ts: String,
    checksum: Option<i64>,
    last: Option<i64>,
}

#[derive(Deserialize, Default)]
struct Arg<'a> {
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
    /// Price, size, and two more.
    #[serde(borrow, default)]
    bids: Vec<Vec<&'a RawValue>>,
    #[serde(borrow, default)]
    asks: Vec<Vec<&'a RawValue>>,
    #[serde(borrow, default)]
    ts: Cow<'a, str>,
    #[serde(default)]
    checksum: Option<i64>,
    #[serde(rename = "seqId", default)]
    last: Option<i64>,
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    op: Cow<'a, str>,
    #[serde(borrow, default)]
    args: Vec<Arg<'a>>,
}

/// Is this the channel of whole books, at one of its two speeds?
fn is_book(channel: &str) -> bool {
    matches!(channel, "books" | "books-l2-tbt")
}

/// With one name for both speeds of whole books.
fn topic(channel: &str, instrument: &str) -> String {
    format!("{}/{instrument}", if is_book(channel) { "books" } else { channel })
}

fn arg(channel: &str, instrument: &str) -> String {
    format!(r#""arg":{{"channel":{},"instId":{}}}"#, quoted(channel), quoted(instrument))
}

fn error(code: &str, message: &str) -> String {
    format!(r#"{{"event":"error","code":"{code}","msg":{}}}"#, quoted(message))
}

impl Book {
    fn take_in(&mut self, snapshot: bool, data: &BookData<'_>) {
        if snapshot {
            self.mirror.begin();
        }
        for (bid, levels) in [(true, &data.bids), (false, &data.asks)] {
            for level in levels {
                if let [price, size, ..] = level[..] {
                    self.mirror.set(bid, price, size);
                }
            }
        }
        self.place = Place { ts: data.ts.clone().into_owned(), checksum: data.checksum, last: data.last };
    }

    fn snapshot(&self, channel: &str, instrument: &str) -> String {
        let form = |level: &Level| format!(r#"[{},{},"0","1"]"#, level.price, level.size);
        let (bids, asks) = (listed(self.mirror.bids(), form), listed(self.mirror.asks(), form));
        let Place { ts, checksum, last } = &self.place;
        let checksum = checksum.map_or_else(String::new, |sum| format!(r#","checksum":{sum}"#));
        let place = last.map_or_else(String::new, |id| format!(r#","seqId":{id},"prevSeqId":-1"#));
        let (arg, ts) = (arg(channel, instrument), quoted(ts));
        format!(r#"{{{arg},"action":"snapshot","data":[{{"asks":{asks},"bids":{bids},"ts":{ts}{checksum}{place}}}]}}"#)
    }
}

impl Okx {
    fn subscribe(&mut self, session: Session, arg_: &Arg<'_>, said: &mut Vec<Said>) {
        let (channel, instrument) = (&*arg_.channel, &*arg_.instrument);
        let Some(book) = self.books.get(instrument) else {
            let message = format!("Wrong URL or channel:{channel},instId:{instrument} doesn't exist.");
            return said.push(Said::Text(session, error("60018", &message)));
        };
        let book = Some(book).filter(|book| is_book(channel) && book.mirror.is_whole);
        let begins = Begins::of(is_book(channel), book.is_some());
        if self.readers.subscribe(session, &topic(channel, instrument), &quoted(channel), begins) {
            said.push(Said::Text(session, format!(r#"{{"event":"subscribe",{}}}"#, arg(channel, instrument))));
            said.extend(book.map(|book| Said::Text(session, book.snapshot(channel, instrument))));
        }
    }
}

impl Dialect for Okx {
    fn look(&mut self, line: &Line<'_>) {
        let Line::Recv { data, .. } = line else { return };
        let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(data.bytes()) else { return };
        if envelope.data.is_some() && !envelope.arg.instrument.is_empty() {
            self.books.keep(&envelope.arg.instrument);
        }
    }

    fn opened(&mut self, session: Session, _url: &str, said: &mut Vec<Said>) {
        self.readers.open(session, said);
    }

    fn heard(&mut self, session: Session, text: &str, said: &mut Vec<Said>) {
        if text == "ping" {
            return said.push(Said::Text(session, "pong".to_owned()));
        }
        let Ok(request) = serde_json::from_str::<Request<'_>>(text) else {
            return said.push(Said::Text(session, error("60012", &format!("Illegal request: {text}"))));
        };
        for arg_ in &request.args {
            match &*request.op {
                "subscribe" => self.subscribe(session, arg_, said),
                "unsubscribe" => {
                    let (channel, instrument) = (&*arg_.channel, &*arg_.instrument);
                    self.readers.unsubscribe(session, &topic(channel, instrument));
                    let text = format!(r#"{{"event":"unsubscribe",{}}}"#, arg(channel, instrument));
                    said.push(Said::Text(session, text));
                }
                _ => {}
            }
        }
    }

    fn closed(&mut self, session: Session) {
        self.readers.close(session);
    }

    fn recv(&mut self, _conn: &str, data: &Payload<'_>, said: &mut Vec<Said>) -> bool {
        let Payload::Text(text) = data else { return false };
        let Ok(envelope) = serde_json::from_str::<Envelope<'_>>(text) else { return false };
        let (channel, instrument) = (&*envelope.arg.channel, &*envelope.arg.instrument);
        let Some(raw) = envelope.data.map(RawValue::get) else { return false };
        let is_snapshot = envelope.action == "snapshot";
        if is_book(channel) {
            let Ok(frames) = serde_json::from_str::<Vec<BookData<'_>>>(raw) else { return false };
            let Some(book) = self.books.keep(instrument) else { return false };
            frames.iter().for_each(|frame| book.take_in(is_snapshot, frame));
        }
        self.readers.play_as((&topic(channel, instrument), &quoted(channel)), is_snapshot, text, said);
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
        let name = &instrument.symbol;
        self.books.keep(name);
        let at = update.ts.unwrap_or(update.recv).millis();
        let id = self.synthetic.entry(name.to_string()).or_insert(1_000);
        let side =
            |levels: &[ticker_market::Level]| told(levels, |l| format!(r#"["{}","{}","0","1"]"#, l.price, l.size));
        let text = match &update.data {
            Data::Book(levels) => {
                let (action, before) = if update.kind == Kind::Snapshot { ("snapshot", -1) } else { ("update", *id) };
                *id += 3;
                let (arg, bids, asks) = (arg("books", name), side(&levels.bids), side(&levels.asks));
                format!(
                    r#"{{{arg},"action":"{action}","data":[{{"asks":{asks},"bids":{bids},"ts":"{at}","checksum":0,"seqId":{id},"prevSeqId":{before}}}]}}"#
                )
            }
            Data::Trade(t) => {
                let taker = if t.side == Some(Side::Sell) { "sell" } else { "buy" };
                let (arg, trade, price, size) = (arg("trades", name), &t.trade_id, t.price, t.size);
                format!(
                    r#"{{{arg},"data":[{{"instId":"{name}","tradeId":"{trade}","px":"{price}","sz":"{size}","side":"{taker}","ts":"{at}"}}]}}"#
                )
            }
            Data::Quote(q) => {
                let (arg, bids, asks) = (arg("bbo-tbt", name), side(q.bid.as_slice()), side(q.ask.as_slice()));
                format!(r#"{{{arg},"data":[{{"asks":{asks},"bids":{bids},"ts":"{at}","seqId":{id}}}]}}"#)
            }
            _ => return,
        };
        lines.push(recv(update, text));
    }
}
