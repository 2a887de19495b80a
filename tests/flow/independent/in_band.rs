//! Venues whose books begin with a snapshot in its place among the frames.

use std::collections::BTreeMap;

use serde_json::Value;
use ticker_market::Decimal;

use super::{Expected, exact, normal, number, text};

type All = BTreeMap<String, Expected>;

/// What the lines before said, that later ones need.
#[derive(Default)]
pub(super) struct Context {
    /// Bitfinex: the channels by their numbers. BitMEX: its names by the list.
    names: BTreeMap<String, String>,
    /// BitMEX: the price and the side of each row, by symbol and id.
    rows: BTreeMap<(String, String), (bool, String)>,
}

fn pairs(list: &Value) -> impl Iterator<Item = (&str, &str)> {
    list.as_array().into_iter().flatten().map(|level| (text(&level[0]), text(&level[1])))
}

fn taker(side: &str) -> &'static str {
    if side.eq_ignore_ascii_case("buy") { "buy" } else { "sell" }
}

pub(super) fn bybit(all: &mut All, url: &str, spot: bool, data: &str) {
    let frame: Value = serde_json::from_str(data).expect("a frame is JSON");
    let of_market = url.ends_with(if spot { "/spot" } else { "/linear" });
    let Some(topic) = frame["topic"].as_str().filter(|_| of_market) else { return };
    let parts: Vec<&str> = topic.split('.').collect();
    match parts[..] {
        ["orderbook", depth, native] => {
            let book = all.entry(normal(native, spot)).or_default();
            if frame["type"] == "snapshot" {
                book.clear();
            }
            for (side, bid) in [("b", true), ("a", false)] {
                pairs(&frame["data"][side]).for_each(|(price, size)| book.set(bid, price, size));
            }
            book.cut(depth.parse().expect("a depth"));
            book.changed();
        }
        ["publicTrade", native] => {
            let book = all.entry(normal(native, spot)).or_default();
            for trade in frame["data"].as_array().expect("trades") {
                let (id, side) = (text(&trade["i"]).to_owned(), taker(text(&trade["S"])));
                book.trades.push((id, number(text(&trade["p"])), number(text(&trade["v"])), side));
            }
        }
        _ => {}
    }
}

/// Version 1: trades have no ids, and are counted. The first of each instrument are of the past.
pub(super) fn bitget(all: &mut All, data: &str) {
    let frame: Value = serde_json::from_str(data).expect("a frame is JSON");
    let arg = &frame["arg"];
    let Some(native) = arg["instId"].as_str().filter(|_| frame["event"].is_null()) else { return };
    let book = all.entry(normal(native, arg["instType"] == "sp")).or_default();
    let items = frame["data"].as_array().expect("data");
    match text(&arg["channel"]) {
        "books" => {
            for item in items {
                if frame["action"] == "snapshot" {
                    book.clear();
                }
                for (side, bid) in [("bids", true), ("asks", false)] {
                    pairs(&item[side]).for_each(|(price, size)| book.set(bid, price, size));
                }
                book.changed();
            }
        }
        "trade" if frame["action"] == "update" => {
            let newest_first = items.first().map(|t| text(&t[0])) > items.last().map(|t| text(&t[0]));
            let mut items: Vec<&Value> = items.iter().collect();
            if newest_first {
                items.reverse();
            }
            for trade in items {
                let id = (book.trades.len() + 1).to_string();
                book.trades.push((id, number(text(&trade[1])), number(text(&trade[2])), taker(text(&trade[3]))));
            }
        }
        _ => {}
    }
}

pub(super) fn deribit(all: &mut All, data: &str) {
    let frame = exact(data);
    let Some(channel) = frame["params"]["channel"].as_str() else { return };
    let data = &frame["params"]["data"];
    if channel.starts_with("book.") {
        let book = all.entry(text(&data["instrument_name"]).to_owned()).or_default();
        if data["type"] == "snapshot" {
            book.clear();
        }
        for (side, bid) in [("bids", true), ("asks", false)] {
            for row in data[side].as_array().expect("rows") {
                book.set(bid, text(&row[1]), if row[0] == "delete" { "0" } else { text(&row[2]) });
            }
        }
        book.changed();
    }
}

pub(super) fn bitfinex(all: &mut All, context: &mut Context, data: &str) {
    let frame = exact(data);
    if frame["event"] == "subscribed" {
        let topic = format!("{} {}", text(&frame["channel"]), text(&frame["symbol"]));
        context.names.insert(text(&frame["chanId"]).to_owned(), topic);
    }
    let Some(parts) = frame.as_array() else { return };
    let topic = context.names.get(text(&parts[0])).map_or("", String::as_str);
    let (channel, native) = topic.split_once(' ').unwrap_or(("", ""));
    let said = &parts[1];
    if said.is_string() {
        return;
    }
    let pair = native.trim_start_matches('t');
    let (base, quote) = pair.split_once(':').unwrap_or_else(|| pair.split_at(pair.len().min(3)));
    let world = |code: &str| match code {
        "IOT" => "IOTA".to_owned(),
        "MNA" => "MANA".to_owned(),
        other => other.to_owned(),
    };
    let symbol = format!("{}-{}", world(base), world(quote));
    match channel {
        "book" => {
            let book = all.entry(symbol).or_default();
            let is_snapshot = said[0].is_array() || said.as_array().is_some_and(Vec::is_empty);
            if is_snapshot {
                book.clear();
            }
            let rows = if is_snapshot { said.as_array().expect("rows").iter().collect() } else { vec![said] };
            for row in rows {
                let (price, amount) = (text(&row[0]), text(&row[2]));
                let size = if row[1] == "0" { "0" } else { amount.trim_start_matches('-') };
                book.set(!amount.starts_with('-'), price, size);
            }
            book.changed();
        }
        "trades" => {
            let book = all.entry(symbol).or_default();
            // Newest first.
            for trade in said.as_array().expect("trades").iter().rev() {
                let amount = text(&trade[2]);
                let side = if amount.starts_with('-') { "sell" } else { "buy" };
                let (price, size) = (number(text(&trade[3])), number(amount.trim_start_matches('-')));
                book.trades.push((text(&trade[0]).to_owned(), price, size, side));
            }
        }
        _ => {}
    }
}

/// Rows are known by their ids; what comes of one later has no price.
pub(super) fn bitmex(all: &mut All, context: &mut Context, data: &str) {
    let frame = exact(data);
    if let Some(list) = frame.as_array() {
        for listed in list {
            let native = text(&listed["symbol"]).to_owned();
            let base = text(&listed["underlying"]).replace("XBT", "BTC");
            let is_perpetual = text(&listed["typ"]).starts_with("FFW");
            let symbol = format!("{base}-{}-PERP", text(&listed["quoteCurrency"]));
            context.names.insert(native.clone(), if is_perpetual { symbol } else { native });
        }
        return;
    }
    let Some(table) = frame["table"].as_str() else { return };
    let partial = frame["action"] == "partial";
    let symbol = |context: &Context, native: &str| context.names.get(native).expect("it is listed").clone();
    if partial && table == "orderBookL2" {
        let native = text(&frame["filter"]["symbol"]);
        all.entry(symbol(context, native)).or_default().clear();
    }
    for row in frame["data"].as_array().expect("rows") {
        let native = text(&row["symbol"]);
        let book = all.entry(symbol(context, native)).or_default();
        match table {
            "orderBookL2" => {
                let key = (native.to_owned(), text(&row["id"]).to_owned());
                if frame["action"] == "delete" {
                    let (bid, price) = context.rows.remove(&key).expect("it came before");
                    book.set(bid, &price, "0");
                    continue;
                }
                if let Some(price) = row["price"].as_str() {
                    context.rows.insert(key.clone(), (row["side"] == "Buy", price.to_owned()));
                }
                let (bid, price) = &context.rows[&key];
                book.set(*bid, price, text(&row["size"]));
            }
            "trade" if !partial => {
                let (price, size) = (number(text(&row["price"])), number(text(&row["size"])));
                book.trades.push((text(&row["trdMatchID"]).to_owned(), price, size, taker(text(&row["side"]))));
            }
            _ => {}
        }
    }
    if table == "orderBookL2" {
        let native = frame["filter"]["symbol"].as_str().or_else(|| frame["data"][0]["symbol"].as_str());
        if let Some(book) = native.and_then(|native| all.get_mut(&symbol(context, native))) {
            book.changed();
        }
    }
}

/// Market Data v2. The first of each symbol is whole, and has the trades before it.
pub(super) fn gemini(all: &mut All, data: &str) {
    let frame = exact(data);
    let Some(native) = frame["symbol"].as_str() else { return };
    let quotes = ["USDT", "USDC", "USD", "EUR", "GBP"];
    let name = native.strip_suffix("PERP").unwrap_or(native);
    let quote = quotes.iter().find(|quote| name.ends_with(**quote)).expect("a known quote asset");
    let kind = if name == native { "" } else { "-PERP" };
    let symbol = format!("{}-{quote}{kind}", &name[..name.len() - quote.len()]);
    let book = all.entry(symbol).or_default();
    let mut trades: Vec<&Value> = Vec::new();
    match text(&frame["type"]) {
        "l2_updates" => {
            if let Some(before) = frame["trades"].as_array() {
                book.clear();
                trades.extend(before);
            }
            for change in frame["changes"].as_array().expect("changes") {
                book.set(change[0] == "buy", text(&change[1]), text(&change[2]));
            }
            book.changed();
        }
        "trade" => trades.push(&frame),
        _ => {}
    }
    let id = |trade: &Value| text(&trade["event_id"]).parse::<u64>().expect("ids are numbers");
    trades.sort_by_key(|trade| id(trade));
    for trade in trades {
        if id(trade) <= book.last_trade {
            continue;
        }
        book.last_trade = id(trade);
        let (price, size): (Decimal, Decimal) = (number(text(&trade["price"])), number(text(&trade["quantity"])));
        book.trades.push((id(trade).to_string(), price, size, taker(text(&trade["side"]))));
    }
}
