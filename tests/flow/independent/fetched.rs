//! Venues whose books begin with a REST answer.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Expected, number, text};

type All = BTreeMap<String, Expected>;

/// What one frame does to a book, as it is kept while there is none.
struct Difference {
    last: u64,
    /// Number, bid, price, size.
    changes: Vec<(u64, bool, String, String)>,
}

fn whole(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| text(value).parse().expect("a whole number"))
}

fn after<'a>(url: &'a str, name: &str) -> &'a str {
    url.split(name).nth(1).and_then(|rest| rest.split(['&', '/']).next()).expect("it is in the URL")
}

fn begin(book: &mut Expected, answer: &Value, id: u64, depth: usize, read: fn(&Value) -> Difference) {
    book.clear();
    for (side, bid) in [("bids", true), ("asks", false)] {
        for level in answer[side].as_array().expect("levels") {
            book.set(bid, text(&level[0]), text(&level[1]));
        }
    }
    book.last_update = Some(id);
    book.changed();
    for frame in std::mem::take(&mut book.buffered) {
        go_on(book, &read(&frame), depth);
    }
}

fn go_on(book: &mut Expected, difference: &Difference, depth: usize) {
    let known = book.last_update.expect("a snapshot came before");
    if difference.last <= known {
        return;
    }
    for (_, bid, price, size) in difference.changes.iter().filter(|(number, ..)| *number > known) {
        if price != "0" {
            book.set(*bid, price, size);
        }
    }
    book.cut(depth);
    book.last_update = Some(difference.last);
    book.changed();
}

fn take(book: &mut Expected, frame: &Value, depth: usize, read: fn(&Value) -> Difference) {
    match book.last_update {
        Some(_) => go_on(book, &read(frame), depth),
        None => book.buffered.push(frame.clone()),
    }
}

fn levels(frame: &Value, last: u64, sides: [(&str, bool); 2]) -> Difference {
    let mut changes = Vec::new();
    for (side, bid) in sides {
        for level in frame[side].as_array().expect("levels") {
            changes.push((last, bid, text(&level[0]).to_owned(), text(&level[1]).to_owned()));
        }
    }
    Difference { last, changes }
}

pub(super) fn kucoin(all: &mut All, url: &str, data: &str) {
    fn read(frame: &Value) -> Difference {
        let mut changes = Vec::new();
        for (side, bid) in [("bids", true), ("asks", false)] {
            for level in frame["changes"][side].as_array().expect("changes") {
                changes.push((whole(&level[2]), bid, text(&level[0]).to_owned(), text(&level[1]).to_owned()));
            }
        }
        changes.sort_by_key(|(number, ..)| *number);
        Difference { last: whole(&frame["sequenceEnd"]), changes }
    }
    let frame: Value = serde_json::from_str(data).expect("a frame is JSON");
    let data = &frame["data"];
    if url.contains("/level2") {
        let book = all.entry(after(url, "symbol=").to_owned()).or_default();
        return begin(book, data, whole(&data["sequence"]), usize::MAX, read);
    }
    match frame["subject"].as_str() {
        Some("trade.l2update") => {
            take(all.entry(text(&data["symbol"]).to_owned()).or_default(), data, usize::MAX, read);
        }
        Some("trade.l3match") => {
            let side = if data["side"] == "buy" { "buy" } else { "sell" };
            let (price, size) = (number(text(&data["price"])), number(text(&data["size"])));
            let book = all.entry(text(&data["symbol"]).to_owned()).or_default();
            book.trades.push((text(&data["tradeId"]).to_owned(), price, size, side));
        }
        _ => {}
    }
}

pub(super) fn gateio(all: &mut All, url: &str, data: &str) {
    const DEPTH: usize = 100;
    fn read(frame: &Value) -> Difference {
        levels(frame, whole(&frame["u"]), [("b", true), ("a", false)])
    }
    let frame: Value = serde_json::from_str(data).expect("a frame is JSON");
    if url.contains("/order_book") {
        let book = all.entry(after(url, "currency_pair=").replace('_', "-")).or_default();
        return begin(book, &frame, whole(&frame["id"]), DEPTH, read);
    }
    let result = &frame["result"];
    match frame["channel"].as_str().filter(|_| frame["event"] == "update") {
        Some("spot.order_book_update") => {
            take(all.entry(text(&result["s"]).replace('_', "-")).or_default(), result, DEPTH, read);
        }
        Some("spot.trades") => {
            let side = if result["side"] == "buy" { "buy" } else { "sell" };
            let (price, size) = (number(text(&result["price"])), number(text(&result["amount"])));
            let book = all.entry(text(&result["currency_pair"]).replace('_', "-")).or_default();
            book.trades.push((result["id"].to_string(), price, size, side));
        }
        _ => {}
    }
}

/// The names are those of the list, which comes first.
pub(super) fn bitstamp(all: &mut All, names: &mut BTreeMap<String, String>, url: &str, data: &str) {
    fn read(frame: &Value) -> Difference {
        levels(frame, whole(&frame["microtimestamp"]), [("bids", true), ("asks", false)])
    }
    let frame: Value = serde_json::from_str(data).expect("a frame is JSON");
    if let Some(list) = frame.as_array() {
        let name = |pair: &Value| (text(&pair["url_symbol"]).to_owned(), text(&pair["name"]).replace('/', "-"));
        return names.extend(list.iter().map(name));
    }
    if url.contains("/order_book/") {
        let book = all.entry(names[after(url, "order_book/")].clone()).or_default();
        return begin(book, &frame, whole(&frame["microtimestamp"]), usize::MAX, read);
    }
    let (Some(channel), data) = (frame["channel"].as_str(), &frame["data"]) else { return };
    let Some((kind, pair)) = channel.rsplit_once('_') else { return };
    let book = all.entry(names[pair].clone()).or_default();
    match (kind, text(&frame["event"])) {
        ("diff_order_book", "data") => take(book, data, usize::MAX, read),
        ("live_trades", "trade") => {
            let side = if data["type"] == 0 { "buy" } else { "sell" };
            let (price, size) = (number(text(&data["price_str"])), number(text(&data["amount_str"])));
            book.trades.push((data["id"].to_string(), price, size, side));
        }
        _ => {}
    }
}
