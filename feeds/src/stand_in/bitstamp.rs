//! Bitstamp v2: one channel a request, acknowledged or refused; a book begins with `GET /api/v2/order_book/…/`, and
//! `microtimestamp` says which differences it has. Orders one by one (`live_orders`) are played to who asks for them.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use ticker_market::{Data, Instrument, Kind, Side};

use super::fetched::{Book, Difference, Fetched, Form, Snapshot, changes};
use super::mirror::{listed, pair, told_pairs};
use super::readers::{Begins, Readers};
use super::{Dialect, Said, Session, path_of, quoted, recv, without_query};
use crate::Update;
use crate::recording::{Line, Payload};
use crate::symbols::joined;

const FORM: Form = Form { depth: usize::MAX, overlaps: false, difference, answer };

/// Where books are, before the pair.
const ORDER_BOOK: &str = "/api/v2/order_book/";

/// Where markets are listed, now and before.
const MARKETS: &str = "/api/v2/markets/";
const PAIRS_BEFORE: &str = "/trading-pairs-info";

#[derive(Debug)]
pub(super) struct Bitstamp {
    books: Fetched,
    /// Topics are `diff_order_book_btcusd`.
    readers: Readers,
    /// The list of markets, if it was recorded under its former name.
    markets: Option<String>,
    /// The synthetic market's last `microtimestamp`s.
    synthetic: HashMap<String, i64>,
}

impl Default for Bitstamp {
    fn default() -> Self {
        Self { books: Fetched::new(FORM), readers: Readers::default(), markets: None, synthetic: HashMap::new() }
    }
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow, default)]
    channel: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// `diff_order_book`, and the answer of `order_book`.
#[derive(Deserialize)]
struct BookData<'a> {
    #[serde(borrow)]
    microtimestamp: &'a RawValue,
    #[serde(borrow, default)]
    bids: Vec<[&'a RawValue; 2]>,
    #[serde(borrow, default)]
    asks: Vec<[&'a RawValue; 2]>,
}

#[derive(Deserialize)]
struct Wanted<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
}

impl<'a> BookData<'a> {
    fn micros(&self) -> Option<u64> {
        self.microtimestamp.get().trim_matches('"').parse().ok()
    }
}

fn difference(raw: &str) -> Option<Difference<'_>> {
    let data: BookData<'_> = serde_json::from_str(raw).ok()?;
    let last = data.micros()?;
    let changes = changes(last, &data.bids, &data.asks);
    // Nothing says what it continues: a snapshot that is older than it may have a hole before it.
    Some(Difference { first: last.saturating_add(1), last, made: data.microtimestamp.get(), changes })
}

fn answer(book: &Book, _name: &str, _path: &str) -> String {
    let (bids, asks) = (listed(book.mirror.bids(), pair), listed(book.mirror.asks(), pair));
    let (seconds, micros) = (book.last / 1_000_000, book.last);
    format!(r#"{{"timestamp":"{seconds}","microtimestamp":"{micros}","bids":{bids},"asks":{asks}}}"#)
}

/// The pair of a channel, if it is one of theirs.
fn instrument(channel: &str) -> Option<&str> {
    let (kind, pair) = channel.rsplit_once('_')?;
    let kinds = ["live_trades", "live_orders", "order_book", "detail_order_book", "diff_order_book"];
    kinds.contains(&kind).then_some(pair)
}

/// The pair of a request for a book. With orders one by one, it is another answer.
fn pair_of(path: &str) -> Option<&str> {
    without_query(path).strip_prefix(ORDER_BOOK).filter(|_| !path.contains("group=2"))
}

impl Dialect for Bitstamp {
    fn look(&mut self, line: &Line<'_>) {
        let data = match line {
            Line::Recv { data, .. } => data,
            Line::Http { url, data: Payload::Text(body), .. } if url.contains(PAIRS_BEFORE) => {
                // Its present name, and that of its field.
                self.markets.get_or_insert_with(|| body.replace("\"url_symbol\"", "\"market_symbol\""));
                return;
            }
            Line::Http { url, .. } => return pair_of(path_of(url)).into_iter().for_each(|pair| self.books.know(pair)),
            _ => return,
        };
        let Ok(frame) = serde_json::from_slice::<Frame<'_>>(data.bytes()) else { return };
        if let Some(pair) = instrument(&frame.channel).filter(|_| !frame.event.starts_with("bts:")) {
            self.books.know(pair);
        }
    }

    fn opened(&mut self, session: Session, _url: &str, said: &mut Vec<Said>) {
        self.readers.open(session, said);
    }

    fn heard(&mut self, session: Session, text: &str, said: &mut Vec<Said>) {
        let error = |channel: &str, message: &str| {
            let channel = quoted(channel);
            let data = format!(r#"{{"code":null,"message":"{message}"}}"#);
            Said::Text(session, format!(r#"{{"event":"bts:error","channel":{channel},"data":{data}}}"#))
        };
        let Ok(request) = serde_json::from_str::<Frame<'_>>(text) else {
            return said.push(error("", "Incorrect JSON format."));
        };
        if request.event == "bts:heartbeat" {
            let text = r#"{"event":"bts:heartbeat","channel":"","data":{"status":"success"}}"#.to_owned();
            return said.push(Said::Text(session, text));
        }
        let wanted = request.data.and_then(|raw| serde_json::from_str::<Wanted<'_>>(raw.get()).ok());
        let Some(Wanted { channel }) = wanted else { return said.push(error("", "Incorrect JSON format.")) };
        let done = match &*request.event {
            "bts:subscribe" if instrument(&channel).is_some_and(|pair| self.books.knows(pair)) => {
                self.readers.subscribe(session, &channel, "", Begins::Anywhere).then_some("subscription")
            }
            "bts:unsubscribe" => self.readers.unsubscribe(session, &channel).then_some("unsubscription"),
            "bts:subscribe" => None,
            _ => return said.push(error("", "Bad subscription string.")),
        };
        said.push(match done {
            None => error(&channel, "Bad subscription string."),
            Some(done) => {
                let channel = quoted(&channel);
                Said::Text(session, format!(r#"{{"event":"bts:{done}_succeeded","channel":{channel},"data":{{}}}}"#))
            }
        });
    }

    fn closed(&mut self, session: Session) {
        self.readers.close(session);
    }

    fn recv(&mut self, _conn: &str, data: &Payload<'_>, said: &mut Vec<Said>) -> bool {
        let Payload::Text(text) = data else { return false };
        let Ok(frame) = serde_json::from_str::<Frame<'_>>(text) else { return false };
        // Answers to what the recorder asked for.
        let (false, Some(raw)) = (frame.event.starts_with("bts:"), frame.data) else { return false };
        if let Some(pair) = frame.channel.strip_prefix("diff_order_book_") {
            self.books.take_in(pair, raw.get());
        }
        self.readers.play(&frame.channel, false, text, said);
        true
    }

    fn http(&mut self, url: &str, body: &str, said: &mut Vec<Said>) {
        let Some(pair) = pair_of(url) else { return };
        let Ok(data) = serde_json::from_str::<BookData<'_>>(body) else { return };
        let Some(number) = data.micros() else { return };
        let made = data.microtimestamp.get();
        self.books.begin(pair, &Snapshot { number, made, bids: data.bids, asks: data.asks }, said);
    }

    fn asked(&mut self, request: u64, path: &str, said: &mut Vec<Said>) -> bool {
        let Some(pair) = pair_of(path) else { return false };
        if !self.books.knows(pair) {
            let body = r#"{"status":"error","reason":"Invalid currency pair","code":"404"}"#.to_owned();
            said.push(Said::Answer { request, status: 404, body });
        } else if !self.books.ask(request, pair, path, said) {
            let body = r#"{"status":"error","reason":"Too many requests","code":"400.002"}"#.to_owned();
            said.push(Said::Answer { request, status: 429, body });
        }
        true
    }

    fn listed(&self, path: &str) -> Option<String> {
        self.markets.clone().filter(|_| path.starts_with(MARKETS))
    }

    fn is_wanted(&self) -> bool {
        self.readers.is_wanted()
    }

    fn begun_again(&mut self) {
        self.books.begin_again();
    }

    fn tell(&mut self, update: &Update, instrument: &Instrument, lines: &mut Vec<Line<'static>>) {
        let pair = joined(&instrument.symbol).to_ascii_lowercase().into_string();
        self.books.know(&pair);
        let at = update.ts.unwrap_or(update.recv).0 / 1_000;
        let (event, channel, data) = match &update.data {
            Data::Book(levels) => {
                // Of two in one microsecond, the later one is later.
                let last = self.synthetic.entry(pair.clone()).or_default();
                *last = at.max(*last + 1);
                let (seconds, bids, asks) = (*last / 1_000_000, told_pairs(&levels.bids), told_pairs(&levels.asks));
                let data =
                    format!(r#"{{"timestamp":"{seconds}","microtimestamp":"{last}","bids":{bids},"asks":{asks}}}"#);
                if update.kind == Kind::Snapshot {
                    let url = format!("https://www.bitstamp.net{ORDER_BOOK}{pair}/");
                    let (ts, data) = (Some(update.recv), Payload::Text(data.into()));
                    lines.push(Line::Http { ts, conn: "synthetic".into(), url: url.into(), data });
                    return;
                }
                ("data", "diff_order_book", data)
            }
            Data::Trade(t) => {
                let side = u8::from(t.side == Some(Side::Sell));
                let (id, price, size) = (&t.trade_id, t.price, t.size);
                let data = format!(
                    r#"{{"id":{id},"timestamp":"{}","amount":{size},"amount_str":"{size}","price":{price},"price_str":"{price}","type":{side},"microtimestamp":"{at}"}}"#,
                    at / 1_000_000
                );
                ("trade", "live_trades", data)
            }
            _ => return,
        };
        lines.push(recv(update, format!(r#"{{"data":{data},"channel":"{channel}_{pair}","event":"{event}"}}"#)));
    }
}
