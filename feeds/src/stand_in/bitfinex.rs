//! Bitfinex v2: each subscription has a channel number of its own; a connection that asked for it has a sequence over all
//! its frames, and a checksum after each change of a book. Both are made anew for each connection; the checksum is over the
//! recorded digits, and not told while a book looks crossed, as it may between two changes of one moment.

mod checksum;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::value::RawValue;
use ticker_market::{Data, Instrument, Kind, Side};

use self::checksum::checksum;
use super::mirror::{Level, Mirror, Shelf, listed, told};
use super::readers::{Begins, Readers};
use super::{Dialect, Said, Session, quoted, recv};
use crate::Update;
use crate::recording::{Line, Payload};
use crate::roster::INSTRUMENTS_MAX;
use crate::symbols::joined;

const SEQ_ALL: u64 = 65_536;
const OB_CHECKSUM: u64 = 131_072;

/// Channels of one connection.
const CHANNELS_MAX: usize = 25;

#[derive(Debug, Default)]
pub(super) struct Bitfinex {
    symbols: BTreeSet<String>,
    /// By connection of the recording: its flags, and the topics of its channels.
    recorded: BTreeMap<String, Recorded>,
    /// By symbol. A level's size is `count,amount`, where what is asked has an amount below zero.
    books: Shelf<Mirror>,
    /// Topics are `book/tBTCUSD`, and `asked` is the channel's number.
    readers: Readers,
    links: BTreeMap<Session, Link>,
}

#[derive(Debug, Default)]
struct Recorded {
    flags: u64,
    channels: BTreeMap<u64, String>,
}

/// What a connection of a reader has besides its subscriptions.
#[derive(Debug, Default)]
struct Link {
    flags: u64,
    channels: u64,
    sequence: u64,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow, default)]
    channel: Cow<'a, str>,
    #[serde(borrow, default)]
    symbol: Cow<'a, str>,
    #[serde(rename = "chanId", default)]
    number: Option<u64>,
    #[serde(default)]
    flags: Option<u64>,
    #[serde(borrow, default)]
    cid: Option<&'a RawValue>,
    #[serde(borrow, default)]
    prec: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    freq: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    len: Option<&'a RawValue>,
}

/// Price, count, amount.
type Row<'a> = [&'a RawValue; 3];

fn error(code: u32, message: &str, about: &Event<'_>) -> String {
    let (channel, symbol) = (quoted(&about.channel), quoted(&about.symbol));
    format!(r#"{{"event":"error","msg":"{message}","code":{code},"channel":{channel},"symbol":{symbol}}}"#)
}

/// A frame of a channel, without its number and its place in the sequence.
fn payload<'a>(parts: &[&'a RawValue], is_counted: bool) -> Vec<&'a str> {
    let end = parts.len() - usize::from(is_counted && parts.len() > 2);
    parts.get(1..end).unwrap_or_default().iter().map(|part| part.get()).collect()
}

fn set(mirror: &mut Mirror, [price, count, amount]: &Row<'_>) {
    let amount = amount.get();
    let size = format!("{},{amount}", count.get());
    mirror.put(!amount.starts_with('-'), price.get(), (count.get() != "0").then_some(&size));
}

fn snapshot(mirror: &Mirror) -> String {
    let form = |level: &Level| format!("[{},{}]", level.price, level.size);
    let (bids, asks) = (listed(mirror.bids(), form), listed(mirror.asks(), form));
    let inner = |list: &str| list[1..list.len() - 1].to_owned();
    let both: Vec<String> = [inner(&bids), inner(&asks)].into_iter().filter(|side| !side.is_empty()).collect();
    format!("[{}]", both.join(","))
}

impl Link {
    /// A frame of a channel, in its place in the sequence.
    fn frame(&mut self, channel: &str, payload: &str) -> String {
        if self.flags & SEQ_ALL == 0 {
            return format!("[{channel},{payload}]");
        }
        self.sequence += 1;
        format!("[{channel},{payload},{}]", self.sequence)
    }
}

impl Bitfinex {
    fn know(&mut self, symbol: &str) {
        if self.symbols.len() < INSTRUMENTS_MAX {
            self.symbols.insert(symbol.to_owned());
        }
    }

    /// Plays what a channel says to its readers. With it goes a checksum, if there is one now, to those who asked for it.
    fn play(&mut self, topic: &str, is_snapshot: bool, payload: &str, sum: Option<i32>, said: &mut Vec<Said>) {
        for (session, channel) in self.readers.of(topic, is_snapshot) {
            let Some(link) = self.links.get_mut(&session) else { continue };
            said.push(Said::Text(session, link.frame(channel, payload)));
            if let Some(sum) = sum.filter(|_| link.flags & OB_CHECKSUM != 0) {
                said.push(Said::Text(session, link.frame(channel, &format!(r#""cs",{sum}"#))));
            }
        }
    }

    fn subscribe(&mut self, session: Session, event: &Event<'_>, said: &mut Vec<Said>) {
        let topic = format!("{}/{}", event.channel, event.symbol);
        let refusal = match () {
            () if !matches!(&*event.channel, "book" | "trades" | "ticker") => Some((10_302, "channel: unknown")),
            () if !self.symbols.contains(&*event.symbol) => Some((10_300, "symbol: invalid")),
            () if self.readers.has(session, &topic) => Some((10_301, "subscribe: dup")),
            () if self.readers.asked(session).count() >= CHANNELS_MAX => Some((10_305, "subscribe: limit")),
            () => None,
        };
        if let Some((code, message)) = refusal {
            return said.push(Said::Text(session, error(code, message, event)));
        }
        let Some(link) = self.links.get_mut(&session) else { return };
        link.channels += 1;
        let number = u64::from(session.0) * 1_000 + link.channels;
        let is_book = event.channel == "book";
        let book = self.books.get(&event.symbol).filter(|book| is_book && book.is_whole);
        let begins = Begins::of(is_book, book.is_some());
        if !self.readers.subscribe(session, &topic, &number.to_string(), begins) {
            return;
        }
        let options = if is_book {
            let (prec, freq) = (event.prec.as_deref().unwrap_or("P0"), event.freq.as_deref().unwrap_or("F0"));
            let len = quoted(event.len.map_or("25", |len| len.get().trim_matches('"')));
            format!(r#","prec":{},"freq":{},"len":{len}"#, quoted(prec), quoted(freq))
        } else {
            String::new()
        };
        let (channel, symbol) = (quoted(&event.channel), quoted(&event.symbol));
        let pair = quoted(event.symbol.get(1..).unwrap_or_default());
        let text = format!(
            r#"{{"event":"subscribed","channel":{channel},"chanId":{number},"symbol":{symbol}{options},"pair":{pair}}}"#
        );
        said.push(Said::Text(session, text));
        said.extend(book.map(|book| Said::Text(session, link.frame(&number.to_string(), &snapshot(book)))));
    }

    fn unsubscribe(&mut self, session: Session, event: &Event<'_>, said: &mut Vec<Said>) {
        let number = event.number.unwrap_or(0).to_string();
        let topic = self.readers.asked(session).find(|(_, asked)| *asked == number).map(|(topic, _)| topic.to_owned());
        let text = match topic.filter(|topic| self.readers.unsubscribe(session, topic)) {
            Some(_) => format!(r#"{{"event":"unsubscribed","status":"OK","chanId":{number}}}"#),
            None => format!(r#"{{"event":"error","msg":"unsubscribe: invalid","code":10400,"chanId":{number}}}"#),
        };
        said.push(Said::Text(session, text));
    }

    /// Learns the recorder's channels.
    fn learn(&mut self, conn: &str, event: &Event<'_>) {
        let recorded = self.recorded.entry(conn.to_owned()).or_default();
        match (&*event.event, event.number) {
            ("conf", _) => recorded.flags = event.flags.unwrap_or(0),
            ("subscribed", Some(number)) => {
                recorded.channels.insert(number, format!("{}/{}", event.channel, event.symbol));
                self.know(&event.symbol);
            }
            _ => {}
        }
    }
}

impl Dialect for Bitfinex {
    fn look(&mut self, line: &Line<'_>) {
        let Line::Recv { conn, data: Payload::Text(text), .. } = line else { return };
        if text.starts_with('{')
            && let Ok(event) = serde_json::from_str::<Event<'_>>(text)
        {
            self.learn(conn, &event);
        }
    }

    fn opened(&mut self, session: Session, _url: &str, said: &mut Vec<Said>) {
        if self.readers.open(session, said) {
            self.links.insert(session, Link::default());
            let text = r#"{"event":"info","version":2,"serverId":"stand-in","platform":{"status":1}}"#.to_owned();
            said.push(Said::Text(session, text));
        }
    }

    fn heard(&mut self, session: Session, text: &str, said: &mut Vec<Said>) {
        let Ok(event) = serde_json::from_str::<Event<'_>>(text) else {
            let error = r#"{"event":"error","msg":"invalid","code":10000}"#.to_owned();
            return said.push(Said::Text(session, error));
        };
        match &*event.event {
            "ping" => {
                let cid = event.cid.map_or_else(String::new, |cid| format!(r#","cid":{}"#, cid.get()));
                said.push(Said::Text(session, format!(r#"{{"event":"pong"{cid}}}"#)));
            }
            "conf" => {
                let Some(link) = self.links.get_mut(&session) else { return };
                link.flags = event.flags.unwrap_or(0);
                let flags = link.flags;
                said.push(Said::Text(session, format!(r#"{{"event":"conf","status":"OK","flags":{flags}}}"#)));
            }
            "subscribe" => self.subscribe(session, &event, said),
            "unsubscribe" => self.unsubscribe(session, &event, said),
            _ => said.push(Said::Text(session, r#"{"event":"error","msg":"event: unknown","code":10000}"#.to_owned())),
        }
    }

    fn closed(&mut self, session: Session) {
        self.readers.close(session);
        self.links.remove(&session);
    }

    fn recv(&mut self, conn: &str, data: &Payload<'_>, said: &mut Vec<Said>) -> bool {
        let Payload::Text(text) = data else { return false };
        if let Ok(event) = serde_json::from_str::<Event<'_>>(text) {
            self.learn(conn, &event);
            return false;
        }
        let Ok(parts) = serde_json::from_str::<Vec<&RawValue>>(text) else { return false };
        let Some(recorded) = self.recorded.get(conn) else { return false };
        let number = parts.first().and_then(|number| number.get().parse().ok()).unwrap_or(0);
        let Some(topic) = recorded.channels.get(&number).cloned() else { return false };
        let payload = payload(&parts, recorded.flags & SEQ_ALL != 0);
        let (Some(first), joined) = (payload.first(), payload.join(",")) else { return false };
        let (mut is_snapshot, mut sum) = (false, None);
        match topic.strip_prefix("book/") {
            // The recorded ones are of the recorder's connection; every reader has its own.
            Some(_) if *first == "\"cs\"" => return false,
            Some(symbol) if !first.starts_with('"') => {
                let Some(mirror) = self.books.keep(symbol) else { return false };
                if first.starts_with("[[") || *first == "[]" {
                    let Ok(rows) = serde_json::from_str::<Vec<Row<'_>>>(first) else { return false };
                    is_snapshot = true;
                    mirror.begin();
                    rows.iter().for_each(|row| set(mirror, row));
                } else {
                    let Ok(row) = serde_json::from_str::<Row<'_>>(first) else { return false };
                    set(mirror, &row);
                    sum = (mirror.is_whole && !mirror.is_crossed()).then(|| checksum(mirror));
                }
            }
            _ => {}
        }
        self.play(&topic, is_snapshot, &joined, sum, said);
        *first != "\"hb\""
    }

    fn is_wanted(&self) -> bool {
        self.readers.is_wanted()
    }

    fn begun_again(&mut self) {
        self.books.clear();
        self.readers.begin_again();
    }

    fn tell(&mut self, update: &Update, instrument: &Instrument, lines: &mut Vec<Line<'static>>) {
        let symbol = format!("t{}", joined(&instrument.symbol));
        self.know(&symbol);
        let at = update.ts.unwrap_or(update.recv).millis();
        // What is told is told by channels of its own, one for each topic.
        let recorded = self.recorded.entry("synthetic".to_owned()).or_default();
        let mut channel = |kind: &str| {
            let topic = format!("{kind}/{symbol}");
            let known = recorded.channels.iter().find(|(_, t)| **t == topic).map(|(number, _)| *number);
            let number = known.unwrap_or(recorded.channels.len() as u64 + 1);
            recorded.channels.insert(number, topic);
            number
        };
        let row = |level: &ticker_market::Level, sign: &str| match level.size.is_zero() {
            true => format!("[{},0,{sign}1]", level.price.normalize()),
            false => format!("[{},1,{sign}{}]", level.price.normalize(), level.size.normalize()),
        };
        match &update.data {
            Data::Book(levels) => {
                let number = channel("book");
                let (bids, asks) = (told(&levels.bids, |l| row(l, "")), told(&levels.asks, |l| row(l, "-")));
                if update.kind == Kind::Snapshot {
                    let both = format!("{},{}", &bids[..bids.len() - 1], &asks[1..]);
                    lines.push(recv(update, format!("[{number},{both}]")));
                    return;
                }
                for (list, sign) in [(&levels.bids, ""), (&levels.asks, "-")] {
                    lines.extend(list.iter().map(|l| recv(update, format!("[{number},{}]", row(l, sign)))));
                }
            }
            Data::Trade(t) => {
                let number = channel("trades");
                let sign = if t.side == Some(Side::Sell) { "-" } else { "" };
                let trade = format!("[{},{at},{sign}{},{}]", t.trade_id, t.size.normalize(), t.price.normalize());
                for word in ["te", "tu"] {
                    lines.push(recv(update, format!(r#"[{number},"{word}",{trade}]"#)));
                }
            }
            _ => {}
        }
    }
}
