//! Coinbase Advanced Trade: `sequence_num` counts the frames of each connection, so it is written anew in each; a
//! subscription is acknowledged by a `subscriptions` frame, and `level2` begins with a snapshot (in frames: `l2_data`).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Deserialize;
use serde_json::value::RawValue;
use ticker_market::{Data, Instrument, Kind, Side};

use super::mirror::{Level, Mirror};
use super::{Dialect, SESSIONS_MAX, SUBSCRIPTIONS_MAX, Said, Session, quoted, recv};
use crate::Update;
use crate::recording::{Line, Payload};
use crate::roster::INSTRUMENTS_MAX;

#[derive(Debug, Default)]
pub(super) struct Coinbase {
    books: BTreeMap<String, Mirror>,
    sessions: BTreeMap<Session, Subscriptions>,
    /// The venue's clock, as the last frame gave it.
    timestamp: String,
}

#[derive(Debug, Default)]
struct Subscriptions {
    /// By channel and product; of `level2`: has it got its snapshot?
    wanted: BTreeMap<String, HashMap<String, bool>>,
    next: u64,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    channel: Cow<'a, str>,
    #[serde(borrow, default)]
    timestamp: Cow<'a, str>,
    #[serde(borrow, default)]
    events: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    product_id: Cow<'a, str>,
    #[serde(borrow, default)]
    updates: Vec<Change<'a>>,
    #[serde(borrow, default)]
    trades: Vec<Named<'a>>,
    #[serde(borrow, default)]
    tickers: Vec<Named<'a>>,
    #[serde(borrow, default)]
    candles: Vec<Named<'a>>,
}

#[derive(Deserialize)]
struct Change<'a> {
    #[serde(borrow)]
    side: Cow<'a, str>,
    #[serde(borrow)]
    price_level: &'a RawValue,
    #[serde(borrow)]
    new_quantity: &'a RawValue,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow, default)]
    product_id: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Request {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    product_ids: Vec<String>,
    #[serde(default)]
    channel: String,
}

impl Event<'_> {
    fn products(&self) -> impl Iterator<Item = &str> {
        let named = self.trades.iter().chain(&self.tickers).chain(&self.candles).map(|n| &*n.product_id);
        std::iter::once(&*self.product_id).chain(named).filter(|product| !product.is_empty())
    }
}

impl Subscriptions {
    /// A frame of this connection: the number is the next one.
    fn numbered(&mut self, channel: &str, timestamp: &str, events: &str) -> String {
        let number = self.next;
        self.next += 1;
        let (channel, timestamp) = (quoted(channel), quoted(timestamp));
        format!(
            r#"{{"channel":{channel},"client_id":"","timestamp":{timestamp},"sequence_num":{number},"events":{events}}}"#
        )
    }

    fn list(&self) -> String {
        let channels: Vec<String> = self
            .wanted
            .iter()
            .map(|(channel, products)| {
                let products: BTreeSet<&String> = products.keys().collect();
                let list: Vec<String> = products.into_iter().map(|p| quoted(p)).collect();
                format!("{}:[{}]", quoted(channel), list.join(","))
            })
            .collect();
        format!(r#"[{{"subscriptions":{{{}}}}}]"#, channels.join(","))
    }
}

fn snapshot(product: &str, book: &Mirror, timestamp: &str) -> String {
    let time = quoted(timestamp);
    let level = |side: &str, level: &Level| {
        let Level { price, size } = level;
        format!(r#"{{"side":"{side}","event_time":{time},"price_level":{price},"new_quantity":{size}}}"#)
    };
    let bids = book.bids().map(|l| level("bid", l));
    let updates: Vec<String> = bids.chain(book.asks().map(|l| level("offer", l))).collect();
    format!(r#"[{{"type":"snapshot","product_id":{},"updates":[{}]}}]"#, quoted(product), updates.join(","))
}

fn subscription(channel: &str) -> &str {
    if channel == "l2_data" { "level2" } else { channel }
}

impl Coinbase {
    fn book(&mut self, product: &str) -> Option<&mut Mirror> {
        if !self.books.contains_key(product) && self.books.len() < INSTRUMENTS_MAX {
            self.books.insert(product.to_owned(), Mirror::default());
        }
        self.books.get_mut(product)
    }

    fn take_in(&mut self, events: &[Event<'_>]) {
        for event in events {
            let Some(book) = self.book(&event.product_id) else { continue };
            if event.kind == "snapshot" {
                book.begin();
            }
            for change in &event.updates {
                book.set(change.side == "bid", change.price_level, change.new_quantity);
            }
        }
    }
}

impl Dialect for Coinbase {
    fn look(&mut self, line: &Line<'_>) {
        let Line::Recv { data, .. } = line else { return };
        let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(data.bytes()) else { return };
        let events = envelope.events.and_then(|raw| serde_json::from_str::<Vec<Event<'_>>>(raw.get()).ok());
        for event in events.iter().flatten() {
            for product in event.products() {
                self.book(product);
            }
        }
    }

    fn opened(&mut self, session: Session, _url: &str, said: &mut Vec<Said>) {
        if self.sessions.len() >= SESSIONS_MAX {
            return said.push(Said::Close(session));
        }
        self.sessions.insert(session, Subscriptions::default());
    }

    fn heard(&mut self, session: Session, text: &str, said: &mut Vec<Said>) {
        let Some(subscriptions) = self.sessions.get_mut(&session) else { return };
        let request = match serde_json::from_str::<Request>(text) {
            Ok(request) if matches!(&*request.kind, "subscribe" | "unsubscribe") => request,
            _ => {
                let error = r#"{"type":"error","message":"failure to parse the request"}"#.to_owned();
                return said.push(Said::Text(session, error));
            }
        };
        // One unknown product refuses the whole subscription, as at the venue.
        if let Some(unknown) = request.product_ids.iter().find(|p| !self.books.contains_key(*p)) {
            let message = quoted(&format!("{unknown} is not a valid product"));
            return said.push(Said::Text(session, format!(r#"{{"type":"error","message":{message}}}"#)));
        }
        let is_book = request.channel == "level2";
        let products = subscriptions.wanted.entry(request.channel).or_default();
        if request.kind == "unsubscribe" {
            request.product_ids.iter().for_each(|product| _ = products.remove(product));
        }
        let mut due = Vec::new();
        if request.kind == "subscribe" {
            for product in request.product_ids.into_iter().take(SUBSCRIPTIONS_MAX) {
                let book = self.books.get(&product).filter(|book| is_book && book.is_whole);
                let begun = products.entry(product.clone()).or_insert(false);
                if !*begun && let Some(book) = book {
                    *begun = true;
                    due.push(snapshot(&product, book, &self.timestamp));
                }
            }
        }
        subscriptions.wanted.retain(|channel, products| !products.is_empty() || channel == "heartbeats");
        for events in due {
            said.push(Said::Text(session, subscriptions.numbered("l2_data", &self.timestamp, &events)));
        }
        let list = subscriptions.list();
        said.push(Said::Text(session, subscriptions.numbered("subscriptions", &self.timestamp, &list)));
    }

    fn closed(&mut self, session: Session) {
        self.sessions.remove(&session);
    }

    fn recv(&mut self, _conn: &str, data: &Payload<'_>, said: &mut Vec<Said>) -> bool {
        let Payload::Text(text) = data else { return false };
        let Ok(envelope) = serde_json::from_str::<Envelope<'_>>(text) else { return false };
        let Some(raw) = envelope.events else { return false };
        let channel = &*envelope.channel;
        if channel == "subscriptions" {
            return false;
        }
        let Ok(events) = serde_json::from_str::<Vec<Event<'_>>>(raw.get()) else { return false };
        self.timestamp = envelope.timestamp.clone().into_owned();
        if channel == "l2_data" {
            self.take_in(&events);
        }
        for (session, subscriptions) in &mut self.sessions {
            let Some(products) = subscriptions.wanted.get_mut(subscription(channel)) else { continue };
            let mut wanted = channel == "heartbeats";
            for event in &events {
                for product in event.products() {
                    let Some(begun) = products.get_mut(product) else { continue };
                    *begun |= channel == "l2_data" && event.kind == "snapshot";
                    wanted |= *begun || channel != "l2_data";
                }
            }
            if wanted {
                said.push(Said::Text(*session, subscriptions.numbered(channel, &envelope.timestamp, raw.get())));
            }
        }
        channel != "heartbeats"
    }

    fn is_wanted(&self) -> bool {
        let is_of_products = |s: &Subscriptions| s.wanted.values().any(|products| !products.is_empty());
        self.sessions.values().any(is_of_products)
    }

    fn begun_again(&mut self) {
        self.books.values_mut().for_each(Mirror::clear);
        for products in self.sessions.values_mut().filter_map(|s| s.wanted.get_mut("level2")) {
            products.values_mut().for_each(|begun| *begun = false);
        }
    }

    fn tell(&mut self, update: &Update, instrument: &Instrument, lines: &mut Vec<Line<'static>>) {
        self.book(&instrument.symbol);
        let product = quoted(&instrument.symbol);
        let time = update.ts.unwrap_or(update.recv).to_rfc3339();
        let (channel, events) = match &update.data {
            Data::Book(levels) => {
                let kind = if update.kind == Kind::Snapshot { "snapshot" } else { "update" };
                let level = |side: &str, l: &ticker_market::Level| {
                    let (price, size) = (l.price, l.size);
                    format!(
                        r#"{{"side":"{side}","event_time":"{time}","price_level":"{price}","new_quantity":"{size}"}}"#
                    )
                };
                let bids = levels.bids.iter().map(|l| level("bid", l));
                let all: Vec<String> = bids.chain(levels.asks.iter().map(|l| level("offer", l))).collect();
                let all = all.join(",");
                ("l2_data", format!(r#"{{"type":"{kind}","product_id":{product},"updates":[{all}]}}"#))
            }
            Data::Trade(t) => {
                // The maker's side.
                let side = if t.side == Some(Side::Sell) { "BUY" } else { "SELL" };
                let (id, price, size) = (&t.trade_id, t.price, t.size);
                let trade = format!(
                    r#"{{"product_id":{product},"trade_id":"{id}","price":"{price}","size":"{size}","time":"{time}","side":"{side}"}}"#
                );
                ("market_trades", format!(r#"{{"type":"update","trades":[{trade}]}}"#))
            }
            Data::Quote(q) => {
                let (Some(bid), Some(ask)) = (&q.bid, &q.ask) else { return };
                let ticker = format!(
                    r#"{{"type":"ticker","product_id":{product},"price":"{}","best_bid":"{}","best_bid_quantity":"{}","best_ask":"{}","best_ask_quantity":"{}"}}"#,
                    bid.price, bid.price, bid.size, ask.price, ask.size
                );
                ("ticker", format!(r#"{{"type":"update","tickers":[{ticker}]}}"#))
            }
            _ => return,
        };
        let text = format!(r#"{{"channel":"{channel}","timestamp":"{time}","sequence_num":0,"events":[{events}]}}"#);
        lines.push(recv(update, text));
    }
}
