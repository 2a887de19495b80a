//! OKX v5: each channel of a request is acknowledged or refused by itself, `books` begins with a snapshot, `ping` is text. A
//! recording of `books-l2-tbt`, which is the same book told more often, is played to who asks for `books` as that.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Deserialize;
use serde_json::value::RawValue;
use ticker_market::{Data, Instrument, Kind, Side};

use super::mirror::{Level, Mirror, listed};
use super::{Dialect, SESSIONS_MAX, SUBSCRIPTIONS_MAX, Said, Session, quoted, recv};
use crate::Update;
use crate::recording::{Line, Payload};
use crate::roster::INSTRUMENTS_MAX;

#[derive(Debug, Default)]
pub(super) struct Okx {
    books: BTreeMap<String, Book>,
    sessions: BTreeMap<Session, Subscriptions>,
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

#[derive(Debug, Default)]
struct Subscriptions {
    /// By instrument: the channel's name, and has it got its snapshot?
    books: BTreeMap<String, (String, bool)>,
    others: BTreeSet<(String, String)>,
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

/// Is this the channel of whole books? With one name for its two speeds.
fn is_book(channel: &str) -> bool {
    matches!(channel, "books" | "books-l2-tbt")
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
    fn book(&mut self, instrument: &str) -> Option<&mut Book> {
        if !self.books.contains_key(instrument) && self.books.len() < INSTRUMENTS_MAX {
            self.books.insert(instrument.to_owned(), Book::default());
        }
        self.books.get_mut(instrument)
    }

    fn subscribe(&mut self, session: Session, arg_: &Arg<'_>, said: &mut Vec<Said>) {
        let (channel, instrument) = (&*arg_.channel, &*arg_.instrument);
        let Some(subscriptions) = self.sessions.get_mut(&session) else { return };
        let Some(book) = self.books.get(instrument) else {
            let message = format!("Wrong URL or channel:{channel},instId:{instrument} doesn't exist.");
            return said.push(Said::Text(session, error("60018", &message)));
        };
        if subscriptions.books.len() + subscriptions.others.len() >= SUBSCRIPTIONS_MAX {
            return;
        }
        said.push(Said::Text(session, format!(r#"{{"event":"subscribe",{}}}"#, arg(channel, instrument))));
        if !is_book(channel) {
            subscriptions.others.insert((channel.to_owned(), instrument.to_owned()));
            return;
        }
        if book.mirror.is_whole {
            said.push(Said::Text(session, book.snapshot(channel, instrument)));
        }
        subscriptions.books.insert(instrument.to_owned(), (channel.to_owned(), book.mirror.is_whole));
    }
}

impl Dialect for Okx {
    fn look(&mut self, line: &Line<'_>) {
        let Line::Recv { data, .. } = line else { return };
        let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(data.bytes()) else { return };
        if envelope.data.is_some() && !envelope.arg.instrument.is_empty() {
            self.book(&envelope.arg.instrument);
        }
    }

    fn opened(&mut self, session: Session, _url: &str, said: &mut Vec<Said>) {
        if self.sessions.len() >= SESSIONS_MAX {
            return said.push(Said::Close(session));
        }
        self.sessions.insert(session, Subscriptions::default());
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
                    let Some(subscriptions) = self.sessions.get_mut(&session) else { return };
                    let (channel, instrument) = (&*arg_.channel, &*arg_.instrument);
                    if is_book(channel) {
                        subscriptions.books.remove(instrument);
                    } else {
                        subscriptions.others.remove(&(channel.to_owned(), instrument.to_owned()));
                    }
                    let text = format!(r#"{{"event":"unsubscribe",{}}}"#, arg(channel, instrument));
                    said.push(Said::Text(session, text));
                }
                _ => {}
            }
        }
    }

    fn closed(&mut self, session: Session) {
        self.sessions.remove(&session);
    }

    fn recv(&mut self, _conn: &str, data: &Payload<'_>, said: &mut Vec<Said>) -> bool {
        let Payload::Text(text) = data else { return false };
        let Ok(envelope) = serde_json::from_str::<Envelope<'_>>(text) else { return false };
        let (channel, instrument) = (&*envelope.arg.channel, &*envelope.arg.instrument);
        let Some(raw) = envelope.data.map(RawValue::get) else { return false };
        if !is_book(channel) {
            let wanted = (channel.to_owned(), instrument.to_owned());
            let readers = self.sessions.iter().filter(|(_, s)| s.others.contains(&wanted));
            said.extend(readers.map(|(session, _)| Said::Text(*session, text.clone().into_owned())));
            return true;
        }
        let Ok(frames) = serde_json::from_str::<Vec<BookData<'_>>>(raw) else { return false };
        let snapshot = envelope.action == "snapshot";
        let Some(book) = self.book(instrument) else { return false };
        frames.iter().for_each(|frame| book.take_in(snapshot, frame));
        for (session, subscriptions) in &mut self.sessions {
            let Some((asked, begun)) = subscriptions.books.get_mut(instrument) else { continue };
            *begun |= snapshot;
            if *begun {
                let text = if asked == channel {
                    text.clone().into_owned()
                } else {
                    text.replacen(&quoted(channel), &quoted(asked), 1)
                };
                said.push(Said::Text(*session, text));
            }
        }
        true
    }

    fn is_wanted(&self) -> bool {
        self.sessions.values().any(|s| !s.books.is_empty() || !s.others.is_empty())
    }

    fn begun_again(&mut self) {
        self.books.values_mut().for_each(|book| *book = Book::default());
        for (_, begun) in self.sessions.values_mut().flat_map(|s| s.books.values_mut()) {
            *begun = false;
        }
    }

    fn tell(&mut self, update: &Update, instrument: &Instrument, lines: &mut Vec<Line<'static>>) {
        let name = &instrument.symbol;
        self.book(name);
        let at = update.ts.unwrap_or(update.recv).millis();
        let id = self.synthetic.entry(name.to_string()).or_insert(1_000);
        let side = |levels: &[ticker_market::Level]| {
            let all: Vec<String> = levels.iter().map(|l| format!(r#"["{}","{}","0","1"]"#, l.price, l.size)).collect();
            format!("[{}]", all.join(","))
        };
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
