//! Coinbase Exchange: one request may subscribe to several channels and products, and is answered with all that the
//! connection has now. `level2` and `level2_batch` begin with a snapshot, `matches` with the last trade.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde_json::value::RawValue;
use ticker_market::{Data, Instrument, Kind, Side};

use super::mirror::{Level, Mirror, listed};
use super::{Dialect, SESSIONS_MAX, SUBSCRIPTIONS_MAX, Said, Session, quoted, recv};
use crate::Update;
use crate::recording::{Line, Payload};
use crate::roster::INSTRUMENTS_MAX;

/// The channels that are played.
const CHANNELS: [&str; 6] = ["heartbeat", "level2", "level2_batch", "matches", "ticker", "ticker_batch"];

#[derive(Debug, Default)]
pub(super) struct CoinbaseExchange {
    products: BTreeMap<String, Product>,
    sessions: BTreeMap<Session, Subscriptions>,
    /// Of the synthetic market: each one's last trade, and the second of its last heartbeat.
    synthetic: HashMap<String, (String, i64)>,
}

#[derive(Debug, Default)]
struct Product {
    mirror: Mirror,
    /// The venue's time of the last frame of its book.
    time: String,
    /// The last trade, as a frame.
    last_match: Option<String>,
}

/// By channel and product; of the books: has it got its snapshot?
type Subscriptions = BTreeMap<String, BTreeMap<String, bool>>;

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    product_id: Cow<'a, str>,
    #[serde(borrow, default)]
    bids: Vec<[&'a RawValue; 2]>,
    #[serde(borrow, default)]
    asks: Vec<[&'a RawValue; 2]>,
    /// Side, price, size.
    #[serde(borrow, default)]
    changes: Vec<[&'a RawValue; 3]>,
    #[serde(borrow, default)]
    time: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Request {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    product_ids: Vec<String>,
    #[serde(default)]
    channels: Vec<Channel>,
}

/// By its name alone, it is of the request's products.
#[derive(Deserialize)]
#[serde(untagged)]
enum Channel {
    Named(String),
    Of {
        name: String,
        #[serde(default)]
        product_ids: Vec<String>,
    },
}

/// The channel, without its speed, that carries frames of this type.
fn channel(kind: &str) -> Option<&'static str> {
    match kind {
        "snapshot" | "l2update" => Some("level2"),
        "match" | "last_match" => Some("matches"),
        "ticker" => Some("ticker"),
        "heartbeat" => Some("heartbeat"),
        _ => None,
    }
}

fn without_speed(channel: &str) -> &str {
    channel.strip_suffix("_batch").unwrap_or(channel)
}

fn list(subscriptions: &Subscriptions) -> String {
    let channels: Vec<String> = subscriptions
        .iter()
        .map(|(name, products)| {
            let products: Vec<String> = products.keys().map(|p| quoted(p)).collect();
            format!(r#"{{"name":{},"product_ids":[{}],"account_ids":null}}"#, quoted(name), products.join(","))
        })
        .collect();
    format!(r#"{{"type":"subscriptions","channels":[{}]}}"#, channels.join(","))
}

fn refusal(reason: &str) -> String {
    format!(r#"{{"type":"error","message":"Failed to subscribe","reason":{}}}"#, quoted(reason))
}

impl Request {
    /// Its channels and their products; or why it is refused. One unknown name refuses all of it, as at the venue.
    fn wanted(self, known: &BTreeMap<String, Product>) -> Result<Vec<(String, Vec<String>)>, String> {
        let of_all = self.product_ids;
        let mut wanted = Vec::new();
        for channel in self.channels {
            let (name, mut products) = match channel {
                Channel::Named(name) => (name, Vec::new()),
                Channel::Of { name, product_ids } => (name, product_ids),
            };
            if !CHANNELS.contains(&name.as_str()) {
                return Err(format!("{name} is not a valid channel"));
            }
            products.extend(of_all.iter().cloned());
            if let Some(unknown) = products.iter().find(|p| !known.contains_key(*p)) {
                return Err(format!("{unknown} is not a valid product"));
            }
            wanted.push((name, products));
        }
        Ok(wanted)
    }
}

impl Product {
    fn take_in(&mut self, frame: &Frame<'_>) {
        if frame.kind == "snapshot" {
            self.mirror.begin();
            for (bid, levels) in [(true, &frame.bids), (false, &frame.asks)] {
                levels.iter().for_each(|[price, size]| self.mirror.set(bid, price, size));
            }
        }
        for [side, price, size] in &frame.changes {
            self.mirror.set(side.get() == "\"buy\"", price, size);
        }
        self.time = frame.time.clone().into_owned();
    }

    fn snapshot(&self, name: &str) -> String {
        let form = |level: &Level| format!("[{},{}]", level.price, level.size);
        let (asks, bids) = (listed(self.mirror.asks(), form), listed(self.mirror.bids(), form));
        let (name, time) = (quoted(name), quoted(&self.time));
        format!(r#"{{"type":"snapshot","product_id":{name},"asks":{asks},"bids":{bids},"time":{time}}}"#)
    }
}

impl CoinbaseExchange {
    fn product(&mut self, name: &str) -> Option<&mut Product> {
        if !self.products.contains_key(name) && self.products.len() < INSTRUMENTS_MAX {
            self.products.insert(name.to_owned(), Product::default());
        }
        self.products.get_mut(name)
    }

    fn subscribe(&mut self, session: Session, wanted: Vec<(String, Vec<String>)>, said: &mut Vec<Said>) {
        let Some(subscriptions) = self.sessions.get_mut(&session) else { return };
        let mut first = Vec::new();
        for (channel, products) in wanted {
            let of_books = without_speed(&channel) == "level2";
            let of_trades = channel == "matches";
            let all = subscriptions.entry(channel).or_default();
            for name in products {
                let Some(product) = self.products.get(&name).filter(|_| all.len() < SUBSCRIPTIONS_MAX) else {
                    continue;
                };
                if of_trades && !all.contains_key(&name) {
                    first.extend(product.last_match.clone());
                }
                let begun = all.entry(name.clone()).or_insert(false);
                if of_books && !*begun && product.mirror.is_whole {
                    *begun = true;
                    first.push(product.snapshot(&name));
                }
            }
        }
        said.push(Said::Text(session, list(subscriptions)));
        said.extend(first.into_iter().map(|text| Said::Text(session, text)));
    }
}

impl Dialect for CoinbaseExchange {
    fn look(&mut self, line: &Line<'_>) {
        let Line::Recv { data, .. } = line else { return };
        if let Ok(frame) = serde_json::from_slice::<Frame<'_>>(data.bytes())
            && channel(&frame.kind).is_some()
        {
            self.product(&frame.product_id);
        }
    }

    fn opened(&mut self, session: Session, _url: &str, said: &mut Vec<Said>) {
        if self.sessions.len() >= SESSIONS_MAX {
            return said.push(Said::Close(session));
        }
        self.sessions.insert(session, Subscriptions::default());
    }

    fn heard(&mut self, session: Session, text: &str, said: &mut Vec<Said>) {
        let request = match serde_json::from_str::<Request>(text) {
            Ok(request) if matches!(&*request.kind, "subscribe" | "unsubscribe") => request,
            _ => return said.push(Said::Text(session, refusal("Malformed JSON"))),
        };
        let subscribes = request.kind == "subscribe";
        let wanted = match request.wanted(&self.products) {
            Ok(wanted) => wanted,
            Err(reason) => return said.push(Said::Text(session, refusal(&reason))),
        };
        if subscribes {
            return self.subscribe(session, wanted, said);
        }
        let Some(subscriptions) = self.sessions.get_mut(&session) else { return };
        for (channel, products) in wanted {
            if let Some(all) = subscriptions.get_mut(&channel) {
                // Without products: all of the channel.
                all.retain(|product, _| !products.is_empty() && !products.contains(product));
            }
        }
        subscriptions.retain(|_, products| !products.is_empty());
        said.push(Said::Text(session, list(subscriptions)));
    }

    fn closed(&mut self, session: Session) {
        self.sessions.remove(&session);
    }

    fn recv(&mut self, _conn: &str, data: &Payload<'_>, said: &mut Vec<Said>) -> bool {
        let Payload::Text(text) = data else { return false };
        let Ok(frame) = serde_json::from_str::<Frame<'_>>(text) else { return false };
        let Some(channel) = channel(&frame.kind) else { return false };
        let Some(product) = self.product(&frame.product_id) else { return false };
        match channel {
            "level2" => product.take_in(&frame),
            "matches" => product.last_match = Some(text.replacen("\"type\":\"match\"", "\"type\":\"last_match\"", 1)),
            _ => {}
        }
        for (session, subscriptions) in &mut self.sessions {
            let mut wanted = false;
            for (_, products) in subscriptions.iter_mut().filter(|(name, _)| without_speed(name) == channel) {
                let Some(begun) = products.get_mut(&*frame.product_id) else { continue };
                *begun |= channel != "level2" || frame.kind == "snapshot";
                wanted |= *begun;
            }
            if wanted {
                said.push(Said::Text(*session, text.clone().into_owned()));
            }
        }
        channel != "heartbeat"
    }

    fn is_wanted(&self) -> bool {
        self.sessions.values().any(|subscriptions| !subscriptions.is_empty())
    }

    fn begun_again(&mut self) {
        self.products.values_mut().for_each(|product| *product = Product::default());
        for (_, products) in self.sessions.values_mut().flatten().filter(|(name, _)| without_speed(name) == "level2") {
            products.values_mut().for_each(|begun| *begun = false);
        }
    }

    fn tell(&mut self, update: &Update, instrument: &Instrument, lines: &mut Vec<Line<'static>>) {
        self.product(&instrument.symbol);
        let product = quoted(&instrument.symbol);
        let at = update.ts.unwrap_or(update.recv);
        let time = at.to_rfc3339();
        let text = match &update.data {
            Data::Book(levels) if update.kind == Kind::Snapshot => {
                let side = |levels: &[ticker_market::Level]| {
                    let all: Vec<String> = levels.iter().map(|l| format!(r#"["{}","{}"]"#, l.price, l.size)).collect();
                    all.join(",")
                };
                let (bids, asks) = (side(&levels.bids), side(&levels.asks));
                format!(
                    r#"{{"type":"snapshot","product_id":{product},"asks":[{asks}],"bids":[{bids}],"time":"{time}"}}"#
                )
            }
            Data::Book(levels) => {
                let form = |side: &str, l: &ticker_market::Level| format!(r#"["{side}","{}","{}"]"#, l.price, l.size);
                let bids = levels.bids.iter().map(|l| form("buy", l));
                let all: Vec<String> = bids.chain(levels.asks.iter().map(|l| form("sell", l))).collect();
                let changes = all.join(",");
                format!(r#"{{"type":"l2update","product_id":{product},"changes":[{changes}],"time":"{time}"}}"#)
            }
            Data::Trade(t) => {
                // The maker's side.
                let side = if t.side == Some(Side::Sell) { "buy" } else { "sell" };
                let (id, price, size) = (&t.trade_id, t.price, t.size);
                self.synthetic.entry(instrument.symbol.to_string()).or_default().0 = id.to_string();
                format!(
                    r#"{{"type":"match","trade_id":{id},"side":"{side}","size":"{size}","price":"{price}","product_id":{product},"time":"{time}"}}"#
                )
            }
            _ => return,
        };
        lines.push(recv(update, text));
        let second = at.millis() / 1_000;
        if let Some((trade, told)) = self.synthetic.get_mut(&*instrument.symbol)
            && std::mem::replace(told, second) < second
        {
            let text = format!(
                r#"{{"type":"heartbeat","last_trade_id":{trade},"product_id":{product},"sequence":0,"time":"{time}"}}"#
            );
            lines.push(recv(update, text));
        }
    }
}
