//! What a recording says, read without any of the product's decoders: straight from the venues' documents, slowly and
//! plainly. What readers receive is held against this.

mod fetched;
mod in_band;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::Value;
use ticker_market::Decimal;

/// A trade, in words that need no type of ours: id, price, size, taker's side.
pub(crate) type RawTrade = (String, Decimal, Decimal, &'static str);

/// What one instrument of a recording went through.
#[derive(Default)]
pub(crate) struct Expected {
    /// Every trade, in order.
    pub(crate) trades: Vec<RawTrade>,
    /// The sum (as the contract defines it) of the whole book after each change, without repeats.
    pub(crate) sums: Vec<u32>,
    /// Kraken: the venue's own checksum that belongs to each sum, and the decimals of its prices and sizes.
    pub(crate) checksums: Vec<u32>,
    pub(crate) scales: (u32, u32),
    /// How many of the first sums lie before the buffered changes were all applied: a decoder may leave them out.
    pub(crate) optional: usize,
    /// Binance: the trades come by a stream that is not subscribed to when live.
    pub(crate) only_aggregates: bool,
    /// The book at the end.
    pub(crate) bids: BTreeMap<Decimal, Decimal>,
    /// The book at the end.
    pub(crate) asks: BTreeMap<Decimal, Decimal>,
    sum: u32,
    /// Binance: the last applied update; changes that came before the snapshot.
    last_update: Option<u64>,
    buffered: Vec<Value>,
    last_trade: u64,
}

impl Expected {
    fn set(&mut self, bid: bool, price: &str, size: &str) {
        let (price, size) = (number(price), number(size));
        let side = if bid { &mut self.bids } else { &mut self.asks };
        let before = if size.is_zero() { side.remove(&price) } else { side.insert(price, size) };
        let letter = if bid { 'b' } else { 'a' };
        if let Some(before) = before {
            self.sum = self.sum.wrapping_sub(part(letter, price, before));
        }
        if !size.is_zero() {
            self.sum = self.sum.wrapping_add(part(letter, price, size));
        }
    }

    fn clear(&mut self) {
        self.bids.clear();
        self.asks.clear();
        self.sum = 0;
    }

    fn changed(&mut self) -> bool {
        let changed = self.sums.last() != Some(&self.sum);
        if changed {
            self.sums.push(self.sum);
        }
        changed
    }

    /// Kraken cuts to the depth that was subscribed to.
    fn cut(&mut self, depth: usize) {
        while self.bids.len() > depth {
            let (price, size) = self.bids.pop_first().expect("it has more than depth");
            self.sum = self.sum.wrapping_sub(part('b', price, size));
        }
        while self.asks.len() > depth {
            let (price, size) = self.asks.pop_last().expect("it has more than depth");
            self.sum = self.sum.wrapping_sub(part('a', price, size));
        }
    }
}

fn number(text: &str) -> Decimal {
    let plain = text.parse().ok().or_else(|| Decimal::from_scientific(text).ok());
    plain.unwrap_or_else(|| panic!("{text} is no number"))
}

fn part(letter: char, price: Decimal, size: Decimal) -> u32 {
    crc32fast::hash(format!("{letter}{}:{};", price.normalize(), size.normalize()).as_bytes())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// Reads a recording of `venue` (as in topics). The result is by symbol in normal form.
pub(crate) fn read(path: &Path, venue: &str) -> BTreeMap<String, Expected> {
    let file = BufReader::new(zstd::Decoder::new(File::open(path).expect("it opens")).expect("it is zstd"));
    let mut all = BTreeMap::new();
    let mut depth = BTreeMap::new();
    let (mut urls, mut names, mut context) = (BTreeMap::new(), BTreeMap::new(), in_band::Context::default());
    let mut whole_trades: Option<bool> = None;
    for line in file.lines() {
        let line: Value = serde_json::from_str(&line.expect("it reads")).expect("a line is JSON");
        let kind = text(&line["t"]);
        if venue.starts_with("binance") && kind == "connect" {
            whole_trades = line["url"].as_str().map(|url| url.contains("@trade"));
        }
        let conn = line["conn"].as_str().unwrap_or("").to_owned();
        if kind == "connect" {
            urls.insert(conn.clone(), line["url"].as_str().unwrap_or("").to_owned());
        }
        if !matches!(kind, "recv" | "http") {
            continue;
        }
        let data = text(&line["data"]);
        let url = line["url"].as_str().unwrap_or("");
        match venue {
            "kraken" => kraken(&mut all, &mut depth, data),
            "coinbase" if kind == "recv" => coinbase(&mut all, data),
            "coinbase-exchange" if kind == "recv" => coinbase_exchange(&mut all, data),
            "binance" | "binance-usdm" | "binance-coinm" => {
                binance(&mut all, url, data, whole_trades, venue == "binance");
            }
            "bybit-spot" | "bybit-linear" if kind == "recv" => {
                let url = urls.get(&conn).map_or("", String::as_str);
                in_band::bybit(&mut all, url, venue == "bybit-spot", data);
            }
            "bitget" => in_band::bitget(&mut all, data),
            "deribit" => in_band::deribit(&mut all, data),
            "bitfinex" if kind == "recv" => in_band::bitfinex(&mut all, &mut context, data),
            "bitmex" => in_band::bitmex(&mut all, &mut context, data),
            "gemini" if kind == "recv" => in_band::gemini(&mut all, data),
            "kucoin" => fetched::kucoin(&mut all, url, data),
            "gateio" => fetched::gateio(&mut all, url, data),
            "bitstamp" => fetched::bitstamp(&mut all, &mut names, url, data),
            _ => {}
        }
    }
    all.retain(|_, e: &mut Expected| !e.trades.is_empty() || !e.sums.is_empty());
    if is_fetched(venue) && venue != "binance" {
        // Of some a recording has differences, and no answer that they continue.
        all.retain(|_, e| !e.sums.is_empty());
    }
    all
}

/// Do the venue's books begin with an answer, wherever it finds them?
pub(crate) fn is_fetched(venue: &str) -> bool {
    venue.starts_with("binance") || matches!(venue, "bitstamp" | "gateio" | "kucoin")
}

/// JSON whose numbers are text, so that they keep their digits.
fn exact(data: &str) -> Value {
    let (mut out, mut in_text, mut in_number, mut escaped) =
        (String::with_capacity(2 * data.len()), false, false, false);
    for c in data.chars() {
        let starts = !in_text && (c.is_ascii_digit() || c == '-');
        let goes_on = in_number && (c.is_ascii_digit() || "+-.eE".contains(c));
        if (starts && !in_number) || (in_number && !goes_on) {
            out.push('"');
            in_number = !in_number;
        }
        if c == '"' && !escaped {
            in_text = !in_text;
        }
        escaped = in_text && c == '\\' && !escaped;
        out.push(c);
    }
    serde_json::from_str(&out).expect("a frame is JSON")
}

/// Numbers keep their digits: `serde_json` must not make floats of them, so they are quoted first.
fn quoted(data: &str, keys: &[&str]) -> Value {
    let mut out = data.to_owned();
    for key in keys {
        let mut done = String::with_capacity(out.len() + 64);
        let mut rest = out.as_str();
        let needle = format!("\"{key}\":");
        while let Some(at) = rest.find(&needle) {
            let (head, tail) = rest.split_at(at + needle.len());
            let end = tail.find([',', '}']).expect("a value ends");
            done.push_str(head);
            done.push('"');
            done.push_str(tail[..end].trim());
            done.push('"');
            rest = &tail[end..];
        }
        done.push_str(rest);
        out = done;
    }
    serde_json::from_str(&out).expect("a frame is JSON")
}

fn kraken(all: &mut BTreeMap<String, Expected>, depth: &mut BTreeMap<String, usize>, data: &str) {
    let frame = if data.contains("\"channel\":\"book\"") || data.contains("\"channel\":\"trade\"") {
        quoted(data, &["price", "qty"])
    } else {
        serde_json::from_str(data).expect("a frame is JSON")
    };
    if frame["method"] == "subscribe" && frame["result"]["channel"] == "book" {
        let levels = frame["result"]["depth"].as_u64().expect("a depth") as usize;
        depth.insert(text(&frame["result"]["symbol"]).to_owned(), levels);
    }
    let Some(channel) = frame["channel"].as_str() else { return };
    for item in frame["data"].as_array().into_iter().flatten() {
        let Some(native) = item["symbol"].as_str() else { continue };
        let book = all.entry(native.replace('/', "-")).or_default();
        match channel {
            "book" => {
                if frame["type"] == "snapshot" {
                    book.clear();
                }
                for (side, bid) in [("bids", true), ("asks", false)] {
                    for level in item[side].as_array().into_iter().flatten() {
                        let (price, size) = (text(&level["price"]), text(&level["qty"]));
                        book.scales = (number(price).scale(), number(size).scale());
                        book.set(bid, price, size);
                    }
                }
                book.cut(*depth.get(native).unwrap_or(&10));
                if book.changed() {
                    book.checksums.push(item["checksum"].as_u64().expect("every book frame has one") as u32);
                }
            }
            "trade" => {
                let id = item["trade_id"].to_string();
                let side = if item["side"] == "buy" { "buy" } else { "sell" };
                book.trades.push((id, number(text(&item["price"])), number(text(&item["qty"])), side));
            }
            _ => {}
        }
    }
}

fn coinbase(all: &mut BTreeMap<String, Expected>, data: &str) {
    let frame: Value = serde_json::from_str(data).expect("a frame is JSON");
    for event in frame["events"].as_array().into_iter().flatten() {
        match frame["channel"].as_str() {
            Some("l2_data") => {
                let book = all.entry(text(&event["product_id"]).to_owned()).or_default();
                if event["type"] == "snapshot" {
                    book.clear();
                }
                for update in event["updates"].as_array().into_iter().flatten() {
                    let bid = update["side"] == "bid";
                    book.set(bid, text(&update["price_level"]), text(&update["new_quantity"]));
                }
                book.changed();
            }
            Some("market_trades") => {
                // Newest first in a frame; the first frame overlaps with nothing.
                for trade in event["trades"].as_array().into_iter().flatten().rev() {
                    let book = all.entry(text(&trade["product_id"]).to_owned()).or_default();
                    let id: u64 = text(&trade["trade_id"]).parse().expect("ids are numbers");
                    if id <= book.last_trade {
                        continue;
                    }
                    book.last_trade = id;
                    // The side is the maker's.
                    let side = if trade["side"] == "SELL" { "buy" } else { "sell" };
                    let (price, size) = (number(text(&trade["price"])), number(text(&trade["size"])));
                    book.trades.push((id.to_string(), price, size, side));
                }
            }
            _ => {}
        }
    }
}

fn coinbase_exchange(all: &mut BTreeMap<String, Expected>, data: &str) {
    let frame: Value = serde_json::from_str(data).expect("a frame is JSON");
    let Some(product) = frame["product_id"].as_str() else { return };
    let book = all.entry(product.to_owned()).or_default();
    match text(&frame["type"]) {
        "snapshot" => {
            book.clear();
            for (side, bid) in [("bids", true), ("asks", false)] {
                for level in frame[side].as_array().expect("levels") {
                    book.set(bid, text(&level[0]), text(&level[1]));
                }
            }
            book.changed();
        }
        "l2update" => {
            for change in frame["changes"].as_array().expect("changes") {
                book.set(change[0] == "buy", text(&change[1]), text(&change[2]));
            }
            book.changed();
        }
        "match" | "last_match" => {
            // The side is the maker's.
            let side = if frame["side"] == "sell" { "buy" } else { "sell" };
            let (price, size) = (number(text(&frame["price"])), number(text(&frame["size"])));
            book.trades.push((frame["trade_id"].to_string(), price, size, side));
        }
        _ => {}
    }
}

const QUOTES: [&str; 12] = ["USDT", "USDC", "BUSD", "TUSD", "BTC", "ETH", "BNB", "EUR", "GBP", "BRL", "AUD", "TRY"];

fn normal(native: &str, spot: bool) -> String {
    // Contracts of COIN-M.
    if let Some((pair, term)) = native.split_once('_') {
        let base = pair.strip_suffix("USD").expect("in dollars");
        return if term == "PERP" { format!("{base}-USD-PERP") } else { format!("{base}-USD-20{term}") };
    }
    if !spot {
        return normal(native, true) + "-PERP";
    }
    let quote = QUOTES.iter().find(|q| native.ends_with(**q) && native.len() > q.len()).expect("a known quote asset");
    format!("{}-{quote}", &native[..native.len() - quote.len()])
}

fn binance(all: &mut BTreeMap<String, Expected>, url: &str, data: &str, whole_trades: Option<bool>, spot: bool) {
    let frame: Value = serde_json::from_str(data).expect("a frame is JSON");
    if !frame["lastUpdateId"].is_null() {
        // A recording of one symbol may leave the URL out.
        let named = url.split("symbol=").nth(1).and_then(|u| u.split('&').next()).map(|native| normal(native, spot));
        let symbol = named.or_else(|| all.keys().next().cloned()).expect("a symbol");
        let book = all.entry(symbol).or_default();
        let id = frame["lastUpdateId"].as_u64().expect("an id");
        book.clear();
        for (side, bid) in [("bids", true), ("asks", false)] {
            for level in frame[side].as_array().expect("levels") {
                book.set(bid, text(&level[0]), text(&level[1]));
            }
        }
        book.last_update = Some(id);
        book.changed();
        for diff in std::mem::take(&mut book.buffered) {
            apply_diff(book, &diff);
        }
        book.optional = book.sums.len() - 1;
        return;
    }
    let data = &frame["data"];
    match data["e"].as_str() {
        Some("depthUpdate") => {
            let book = all.entry(normal(text(&data["s"]), spot)).or_default();
            if book.last_update.is_none() {
                book.buffered.push(data.clone());
            } else {
                apply_diff(book, data);
            }
        }
        Some(kind @ ("trade" | "aggTrade")) => {
            let id = if kind == "trade" { &data["t"] } else { &data["a"] };
            if kind == "aggTrade" && whole_trades == Some(true) {
                return;
            }
            let book = all.entry(normal(text(&data["s"]), spot)).or_default();
            book.only_aggregates = kind == "aggTrade";
            let side = if data["m"] == true { "sell" } else { "buy" };
            book.trades.push((id.to_string(), number(text(&data["p"])), number(text(&data["q"])), side));
        }
        _ => {}
    }
}

fn apply_diff(book: &mut Expected, diff: &Value) {
    let (first, last) = (diff["U"].as_u64().expect("U"), diff["u"].as_u64().expect("u"));
    let known = book.last_update.expect("a snapshot came before");
    if last < known || (last == known && diff["pu"].is_null()) {
        return;
    }
    // Futures name the one before; the first after a snapshot only has to hold its id.
    let follows = diff["pu"].as_u64().map_or(first <= known + 1, |before| before == known || first <= known);
    assert!(follows, "the recordings have no holes: {first} after {known}");
    for (side, bid) in [("b", true), ("a", false)] {
        for level in diff[side].as_array().expect("levels") {
            book.set(bid, text(&level[0]), text(&level[1]));
        }
    }
    book.last_update = Some(last);
    book.changed();
}
