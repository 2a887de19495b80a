//! Every real recording of our venues, decoded to its last frame and laid against an independent pass (`EXPECTED.json`).
//!
//! The recordings are in `$TICKER_RECORDINGS`, or in `../shared/recordings` beside the repository. Where one is missing
//! its trial is ignored, and its name says so.
//!
//! `EXPECTED.json` counts the trades of update frames alone, and its last price is that of the trade listed last, which
//! at Coinbase is the oldest of its frame. What Coinbase sends as a snapshot of trades before the first update is told by
//! the adapter as well. So both are read from the recording here, on a way of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use ticker_feeds::recording::{Line, Player};
use ticker_feeds::{Fault, Out, Update, adapter};
use ticker_market::{Book, Channel, Data, Decimal, Kind, Level, Quote, State, Time, decimal};

/// What there is to decode; a recording that is not here and lies in one of these folders is tried as well.
const RECORDINGS: &[&str] = &[
    "binance-coinm/2021-07-22_depth_bookTicker_kline.jsonl.zst",
    "binance-coinm/2024-08-08_btcusd_perp_depth0ms_bookTicker_trade.jsonl.zst",
    "binance-spot/2021-04-05_10sym_depth_bookTicker_aggTrade.jsonl.zst",
    "binance-spot/2021-10-12_4sym_depth_bookTicker_kline_aggTrade.jsonl.zst",
    "binance-spot/2024-08-08_btcusdt_depth_bookTicker_trade.jsonl.zst",
    "binance-spot/2024-08-09_btcusdt_depth_bookTicker_trade.jsonl.zst",
    "binance-usdm/2021-07-22_depth_bookTicker_kline_aggTrade.jsonl.zst",
    "binance-usdm/2024-07-18_btcusdt_depth0ms_bookTicker_trade.jsonl.zst",
    "binance-usdm/2024-08-08_btcusdt_depth0ms_bookTicker_trade.jsonl.zst",
    "bitfinex/2021-04-17_book_trades_ticker.jsonl.zst",
    "bitget-v1/2022-04-07_books_ticker_trade_candle.jsonl.zst",
    "bitmex/2021-07-22_orderBookL2_quote_trade.jsonl.zst",
    "bitstamp/2021-04-17_diff_order_book_live_trades.jsonl.zst",
    "bitstamp/2022-01-05_diff_order_book_live_trades.jsonl.zst",
    "bitstamp/2026-08-24_btcusd_live_orders_L3.jsonl.zst",
    "bybit-v5/2026-08-09_linear_spot_ob200_tickers_trades_kline.jsonl.zst",
    "coinbase-advanced/2026-08-09_BTC-ETH_l2_ticker_trades_candles_heartbeats.jsonl.zst",
    "coinbase-exchange/2021-04-17_10prod_level2_ticker_matches.jsonl.zst",
    "deribit/2021-04-17_book_ticker_trades_raw.jsonl.zst",
    "deribit/2021-07-22_book_ticker_trades_raw.jsonl.zst",
    "gateio/2021-04-22_book_trades_ticker.jsonl.zst",
    "gemini/2021-06-24_10sym_l2.jsonl.zst",
    "gemini/2026-08-09_10sym_l2_trades.jsonl.zst",
    "kraken-v2/2026-08-01_btcusd_book_l2.jsonl.zst",
    "kraken-v2/2026-08-02_btcusd_book_sample.jsonl.zst",
    "kraken-v2/2026-08-02_xrpusd_book_sample.jsonl.zst",
    "kraken-v2/2026-08-24_btcusd_book_short.jsonl.zst",
    "kucoin/2021-04-25_level2_ticker_match_candles.jsonl.zst",
    "okx/2021-07-22_v5_ws1.jsonl.zst",
    "okx/2022-02-27_books-l2-tbt_tickers_trades.jsonl.zst",
    "okx/2026-08-24_BTC-USDT_books_seqId.jsonl.zst",
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let root = std::env::var_os("TICKER_RECORDINGS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/recordings"), PathBuf::from);
    let mut names: BTreeSet<String> = RECORDINGS.iter().map(|name| (*name).to_owned()).collect();
    let folders: BTreeSet<&str> = RECORDINGS.iter().filter_map(|name| name.split('/').next()).collect();
    for folder in folders {
        for entry in std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            if file.ends_with(".jsonl.zst") {
                names.insert(format!("{folder}/{file}"));
            }
        }
    }
    let trials = names
        .into_iter()
        .map(|name| {
            let path = root.join(&name);
            let expected = root.join("EXPECTED.json");
            if path.exists() && expected.exists() {
                Trial::test(name.clone(), move || decode(&name, &path, &expected))
            } else {
                Trial::test(format!("missing: {}", path.display()), || Ok(())).with_ignored_flag(true)
            }
        })
        .collect();
    let mut trials: Vec<Trial> = trials;
    for name in RECORDINGS.iter().filter(|name| CHAINED.iter().any(|folder| name.starts_with(folder))) {
        let path = root.join(name);
        if path.exists() {
            trials.push(Trial::test(format!("{name} without one frame"), move || without_a_frame(&path)));
        }
    }
    for (venue, exchanges) in SINGLE_FRAMES {
        let path = root.join("single-frames/tardis_mappers.jsonl.zst");
        if path.exists() {
            trials
                .push(Trial::test(format!("single-frames of {venue}"), move || single_frames(venue, exchanges, &path)));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Folders of the venues whose rule shows every lost frame of a book.
const CHAINED: &[&str] =
    &["binance-", "bitfinex/", "bitget-v1/", "bybit-v5/", "deribit/", "gateio/", "kucoin/", "okx/"];

/// Recordings hold no loss. Without one frame that changed a book, that book must not be shown from where it shows.
fn without_a_frame(path: &Path) -> Result<(), Failed> {
    let text = zstd::decode_all(std::fs::File::open(path)?)?;
    let lines: Vec<&[u8]> = text.split(|c| *c == b'\n').filter(|line| !line.is_empty()).collect();
    let Line::Header { venue, .. } = Line::parse(lines[0])? else { return Err("no header".into()) };
    let play = |dropped: Option<usize>| -> Result<Vec<(usize, Option<Update>)>, Failed> {
        let mut player = Player::new(adapter(&venue, &[]).ok_or("a venue without an adapter")?);
        let (mut out, mut now, mut told) = (Out::default(), Time(0), Vec::new());
        for (number, line) in lines.iter().enumerate().skip(1).filter(|(number, _)| Some(*number) != dropped) {
            let line = Line::parse(line)?;
            now = line.ts().unwrap_or(now);
            out.clear();
            player.feed(&line, now, &mut out)?;
            told.extend(out.reports.iter().map(|_| (number, None)));
            let books = out.updates.drain(..).filter(|u| u.channel == Channel::Book);
            told.extend(books.map(|update| (number, Some(update))));
        }
        Ok(told)
    };
    let clean = play(None)?;
    let changes: Vec<(usize, u32)> = clean
        .iter()
        .filter_map(|(number, update)| Some((*number, update.as_ref().filter(|u| u.kind == Kind::Update)?.instrument)))
        .collect();
    // One in the middle whose book changes again.
    let again = |(number, instrument): &(usize, u32)| changes.iter().any(|(n, i)| n > number && i == instrument);
    let Some(&(dropped, instrument)) = changes[changes.len() / 2..].iter().find(|change| again(change)) else {
        return Ok(());
    };
    let told = play(Some(dropped))?;
    let found = told.iter().find(|(_, update)| update.is_none()).ok_or("nobody noticed")?.0;
    let before = |update: &Update| matches!(update.data, Data::Book(_)) && update.instrument == instrument;
    let shown = told.iter().any(|(n, u)| (dropped..found).contains(n) && u.as_ref().is_some_and(before));
    let after = told.iter().any(|(n, u)| *n >= found && u.as_ref().is_some_and(before));
    if shown || after { Err(format!("line {dropped} is missing, and the book was shown").into()) } else { Ok(()) }
}

/// Our venues, and what the collection of single frames calls them.
const SINGLE_FRAMES: &[(&str, &[&str])] = &[
    ("binance", &["binance"]),
    ("binance-coinm", &["binance-delivery"]),
    ("binance-usdm", &["binance-futures"]),
    ("bitfinex", &["bitfinex", "bitfinex-derivatives"]),
    ("bitget", &["bitget", "bitget-futures"]),
    ("bitmex", &["bitmex"]),
    ("bitstamp", &["bitstamp"]),
    ("bybit-linear", &["bybit"]),
    ("bybit-spot", &["bybit-spot"]),
    ("coinbase-exchange", &["coinbase"]),
    ("deribit", &["deribit"]),
    ("gateio", &["gate-io"]),
    ("gemini", &["gemini"]),
    ("kucoin", &["kucoin"]),
    ("okx", &["okex", "okex-futures", "okex-options", "okex-spreads", "okex-swap"]),
];

/// Frames by themselves, some made by hand: each is decoded, or passed over, whatever protocol it is of.
fn single_frames(venue: &str, exchanges: &[&str], path: &Path) -> Result<(), Failed> {
    let text = zstd::decode_all(std::fs::File::open(path)?)?;
    let mut adapter = adapter(venue, &[]).ok_or("a venue without an adapter")?;
    let (mut out, mut fed) = (Out::default(), 0);
    for line in text.split(|c| *c == b'\n').filter(|line| !line.is_empty()) {
        let row: Value = serde_json::from_slice(line)?;
        if !exchanges.iter().any(|exchange| row["exchange"] == *exchange) {
            continue;
        }
        fed += 1;
        out.clear();
        adapter.frame(ticker_feeds::Conn(0), row["raw"].to_string().as_bytes(), Time(0), &mut out);
        // One has a size of `0.-10000`, which is no number; two have a change that is not of theirs.
        let report = out.reports.iter().find(|report| report.fault == Fault::Undecodable);
        let known = ["\"0.-", "\"1636276324361\"", "\"8005280396\""];
        if let Some(report) = report.filter(|report| !known.iter().any(|known| report.detail.contains(known))) {
            return Err(format!("{}: {report:?}", row["raw"]).into());
        }
    }
    if fed > 0 { Ok(()) } else { Err("no frame of it".into()) }
}

/// What a reader makes of one instrument's updates.
#[derive(Default)]
struct Seen {
    venue: String,
    native: String,
    book: Book,
    book_good: bool,
    quote: Option<Quote>,
    trades: Vec<(u64, Decimal, Decimal)>,
    ids: BTreeSet<String>,
    state: Option<(State, Option<String>)>,
    was_live: bool,
}

fn decode(name: &str, path: &Path, expected: &Path) -> Result<(), Failed> {
    let text = zstd::decode_all(std::fs::File::open(path)?)?;
    let mut lines = text.split(|c| *c == b'\n').filter(|line| !line.is_empty());
    let first = lines.next().ok_or("an empty recording")?;
    let Line::Header { venue, .. } = Line::parse(first)? else { return Err("no header".into()) };
    let mut player = Player::new(adapter(&venue, &[]).ok_or("a venue without an adapter")?);
    let (mut out, mut retold) = (Out::default(), Out::default());
    let mut seen: Vec<Seen> = Vec::new();
    let mut listed: BTreeMap<String, Listed> = BTreeMap::new();
    let mut urls: BTreeMap<String, String> = BTreeMap::new();
    let mut now = Time(0);
    for (number, line) in lines.enumerate() {
        let line = Line::parse(line).map_err(|error| format!("line {}: {error}", number + 2))?;
        now = line.ts().unwrap_or(now);
        collect_listed(&line, &mut listed);
        if let Line::Connect { conn, url, .. } = &line {
            urls.insert(conn.to_string(), url.to_string());
        }
        out.clear();
        player.feed(&line, now, &mut out)?;
        if let Some(report) = out.reports.first() {
            return Err(format!("line {}: {report:?}", number + 2).into());
        }
        for (instrument, described) in &out.instruments {
            if *instrument as usize == seen.len() {
                let (venue, native) = (described.venue.to_string(), described.native.to_string());
                seen.push(Seen { venue, native, ..Seen::default() });
            }
        }
        for update in &out.updates {
            take(&mut seen[update.instrument as usize], update).map_err(|e| format!("line {}: {e}", number + 2))?;
        }
        if out.updates.iter().any(|u| u.channel == Channel::Book) {
            retold.clear();
            player.adapter().retell(now, &mut retold);
            same_books(&seen, &retold).map_err(|e| format!("line {}: {e}", number + 2))?;
        }
    }
    let expected: Value = serde_json::from_slice(&std::fs::read(expected)?)?;
    let nothing = serde_json::Map::new();
    let symbols = match expected[name]["symbols"].as_object() {
        None if KNOWN.iter().any(|(folder, ..)| name.starts_with(folder)) => {
            laid_against_itself(name, &seen)?;
            &nothing
        }
        symbols => symbols.ok_or("nothing is expected of this recording")?,
    };
    for (venue, native, expected) in by_instrument(symbols, &urls) {
        let is_it = |s: &&Seen| s.native == native && venue.is_none_or(|venue| s.venue == venue);
        let seen = seen.iter().find(is_it).ok_or_else(|| format!("{native} never came"))?;
        let listed = listed.remove(&native).unwrap_or_default();
        lay_against(seen, &listed, &expected).map_err(|error| format!("{native}: {error}"))?;
    }
    ends_closed(&mut player, now, seen.len())
}

/// What is known of recordings that `EXPECTED.json` does not have: how many books become live, and how many trades come.
const KNOWN: &[(&str, usize, usize)] = &[("bitstamp/2026-", 1, 0), ("gateio/", 10, 9), ("kucoin/", 9, 18)];

fn laid_against_itself(name: &str, seen: &[Seen]) -> Result<(), Failed> {
    let (_, books, trades) =
        KNOWN.iter().find(|k| name.starts_with(k.0)).ok_or("nothing is known of this recording")?;
    equal("books", seen.iter().filter(|s| s.book_good).count(), *books)?;
    equal("trades", seen.iter().map(|s| s.trades.len()).sum(), *trades)?;
    equal("live", seen.iter().filter(|s| s.was_live).count(), *books)?;
    Ok(())
}

/// What is expected of each instrument: its venue, where a recording holds several, its native name, its book and trades.
/// Bybit's are by connection and topic (`BYBIT.ws.2:orderbook.200.BTCUSDT`), Bitget's have the kind behind (`BTCUSDT:sp`).
fn by_instrument<'a>(
    symbols: &serde_json::Map<String, Value>,
    urls: &'a BTreeMap<String, String>,
) -> Vec<(Option<&'a str>, String, Value)> {
    let mut found: Vec<(Option<&str>, String, Value)> = Vec::new();
    for (key, expected) in symbols {
        let by_topic = key.split_once(':').and_then(|(conn, topic)| Some((urls.get(conn)?, topic.rsplit_once('.')?.1)));
        let Some((url, native)) = by_topic else {
            let native = key.strip_suffix(":sp").or_else(|| key.strip_suffix(":mc")).unwrap_or(key);
            found.push((None, native.to_owned(), expected.clone()));
            continue;
        };
        let venue = if url.ends_with("/spot") { "bybit-spot" } else { "bybit-linear" };
        let at = found.iter().position(|(v, n, _)| *v == Some(venue) && n == native).unwrap_or_else(|| {
            found.push((Some(venue), native.to_owned(), Value::Object(serde_json::Map::new())));
            found.len() - 1
        });
        for part in ["book", "trades"] {
            if !expected[part].is_null() {
                found[at].2[part] = expected[part].clone();
            }
        }
    }
    found
}

/// What a recording itself says of an instrument's trades.
#[derive(Default)]
struct Listed {
    /// Trades from before the first update.
    history: BTreeSet<u64>,
    /// The trade listed last in the last update.
    last: Option<u64>,
    /// The number of its trades' channel.
    channel: Option<u64>,
    /// Trades that the venue gave no ids, of updates.
    unnamed: u64,
}

fn collect_listed(line: &Line<'_>, listed: &mut BTreeMap<String, Listed>) {
    let Line::Recv { data, .. } = line else { return };
    let head = &data.bytes()[..data.bytes().len().min(200)];
    let head = String::from_utf8_lossy(head);
    if head.contains("\"last_match\"") {
        let frame: Value = serde_json::from_slice(data.bytes()).expect("JSON");
        let listed = listed.entry(frame["product_id"].as_str().expect("a product").to_owned()).or_default();
        listed.history.extend(frame["trade_id"].as_u64());
    }
    if head.contains("\"l2_updates\"") || head.contains("\"auction_events\"") {
        let frame: Value = serde_json::from_slice(data.bytes()).expect("JSON");
        let listed = listed.entry(frame["symbol"].as_str().expect("a symbol").to_owned()).or_default();
        listed.history.extend(frame["trades"].as_array().into_iter().flatten().filter_map(|t| t["event_id"].as_u64()));
    }
    if head.contains("\"update\"") && head.contains("\"trade\"") {
        let frame: Value = serde_json::from_slice(data.bytes()).expect("JSON");
        let listed = listed.entry(frame["arg"]["instId"].as_str().expect("a name").to_owned()).or_default();
        listed.unnamed += frame["data"].as_array().map_or(0, |rows| rows.len() as u64);
    }
    // Bitfinex's channels have numbers, and names only when they begin.
    if head.contains("\"subscribed\"") && head.contains("\"trades\"") {
        let frame: Value = serde_json::from_slice(data.bytes()).expect("JSON");
        listed.entry(frame["symbol"].as_str().expect("a symbol").to_owned()).or_default().channel =
            frame["chanId"].as_u64();
    } else if head.starts_with('[') {
        let frame: Value = serde_json::from_slice(data.bytes()).expect("JSON");
        let number = frame[0].as_u64();
        if let Some(listed) = listed.values_mut().find(|l| l.channel.is_some() && l.channel == number) {
            listed.history.extend(frame[1].as_array().into_iter().flatten().filter_map(|trade| trade[0].as_u64()));
        }
    }
    if !head.contains("market_trades") {
        return;
    }
    let frame: Value = serde_json::from_slice(data.bytes()).expect("JSON");
    for event in frame["events"].as_array().into_iter().flatten() {
        for trade in event["trades"].as_array().into_iter().flatten() {
            let id = trade["trade_id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
            let listed = listed.entry(trade["product_id"].as_str().expect("a product").to_owned()).or_default();
            if event["type"] == "snapshot" {
                listed.history.insert(id);
            } else {
                listed.last = Some(id);
            }
        }
    }
}

fn take(seen: &mut Seen, update: &Update) -> Result<(), String> {
    if !update.data.fits(update.channel) {
        return Err(format!("{:?} on {}", update.data, update.channel));
    }
    match (&update.data, update.kind) {
        (Data::Invalid(reason), _) => return Err(format!("{} became invalid: {reason}", update.channel)),
        (Data::Book(levels), Kind::Snapshot) => {
            seen.book.replace(levels).map_err(|e| e.to_string())?;
            seen.book_good = true;
        }
        (Data::Book(levels), _) => {
            if !seen.book_good {
                return Err("an update before the snapshot".to_owned());
            }
            if levels.bids.is_empty() && levels.asks.is_empty() {
                return Err("an update of nothing".to_owned());
            }
            let sorted = levels.bids.is_sorted_by(|a, b| a.price > b.price)
                && levels.asks.is_sorted_by(|a, b| a.price < b.price);
            let before = seen.book.sum();
            let mut changed = 0;
            for (side, list) in
                [(ticker_market::book::BookSide::Bid, &levels.bids), (ticker_market::book::BookSide::Ask, &levels.asks)]
            {
                for level in list {
                    changed += usize::from(seen.book.set(side, *level).map_err(|e| e.to_string())?);
                }
            }
            if !sorted || changed != levels.bids.len() + levels.asks.len() || before == seen.book.sum() {
                return Err(format!("an update with levels that did not change: {levels:?}"));
            }
        }
        (Data::Quote(quote), _) => {
            if matches!((quote.bid, quote.ask), (Some(b), Some(a)) if b.price >= a.price) {
                return Err(format!("a crossed quote: {quote:?}"));
            }
            if seen.quote.replace(quote.clone()).as_ref() == Some(quote) {
                return Err("a quote came twice".to_owned());
            }
        }
        (Data::Trade(trade), _) => {
            // Ids that are no numbers count up in the order in which they are told.
            let id = trade.trade_id.parse().unwrap_or(seen.trades.len() as u64);
            if !seen.ids.insert(trade.trade_id.to_string()) {
                return Err(format!("trade {} was told twice", trade.trade_id));
            }
            seen.trades.push((id, trade.price, trade.size));
        }
        (Data::Status(status), _) => {
            let state = (status.state, status.reason.as_ref().map(ToString::to_string));
            if seen.state.as_ref() == Some(&state) {
                return Err("a status came twice".to_owned());
            }
            if seen.was_live && status.state != State::Live {
                return Err(format!("{state:?} after it was live"));
            }
            seen.was_live |= status.state == State::Live;
            seen.state = Some(state);
        }
        (Data::Bar(_) | Data::Stats(_), _) => return Err("what is derived from the tape".to_owned()),
    }
    if seen.book_good && seen.book.is_crossed() {
        return Err("a crossed book".to_owned());
    }
    Ok(())
}

/// The books made of the updates are the adapter's.
fn same_books(seen: &[Seen], retold: &Out) -> Result<(), String> {
    for update in &retold.updates {
        let seen = &seen[update.instrument as usize];
        match &update.data {
            Data::Book(levels) => {
                let same = seen.book_good
                    && seen.book.bids().eq(levels.bids.iter())
                    && seen.book.asks().eq(levels.asks.iter());
                if !same {
                    return Err(format!("the book of {} differs from the adapter's", seen.native));
                }
            }
            Data::Invalid(_) if update.channel == Channel::Book && seen.book_good => {
                return Err(format!("the adapter does not trust the book of {}", seen.native));
            }
            _ => {}
        }
    }
    Ok(())
}

fn lay_against(seen: &Seen, listed: &Listed, expected: &Value) -> Result<(), String> {
    let ids: Vec<u64> = seen.trades.iter().map(|t| t.0).collect();
    if !ids.is_sorted_by(|a, b| a < b) {
        return Err("trades out of order, or told twice".to_owned());
    }
    if !listed.history.iter().all(|id| ids.binary_search(id).is_ok()) {
        return Err("a trade of the history is missing".to_owned());
    }
    let trades: Vec<_> = seen.trades.iter().filter(|t| !listed.history.contains(&t.0)).collect();
    let told = &expected["trades"];
    equal("trades", trades.len() as u64, told["count"].as_u64().unwrap_or(listed.unnamed))?;
    let last = listed.last.map_or(trades.last(), |id| trades.iter().find(|t| t.0 == id));
    if let Some(last) = last.filter(|_| !told.is_null()) {
        let sum: Decimal = trades.iter().map(|t| t.2).sum();
        equal("sum of sizes", sum, number(&told["qty_sum"]))?;
        equal("last price", last.1, number(&told["last_price"]))?;
    }
    let book = &expected["book"];
    if book.is_null() && seen.book_good {
        // Its snapshot was of an empty book, and nothing came after it.
        return equal("levels", seen.book.bids().len() + seen.book.asks().len(), 0);
    }
    if book.is_null() {
        let waits = (State::Resyncing, Some("awaiting_snapshot".to_owned()));
        return equal("status", seen.state.as_ref(), Some(&waits));
    }
    equal("bids", seen.book.bids().len() as u64, book["n_bids"].as_u64().unwrap_or(0))?;
    equal("asks", seen.book.asks().len() as u64, book["n_asks"].as_u64().unwrap_or(0))?;
    equal("best bids", seen.book.bids().take(5).copied().collect(), levels(&book["bids"]))?;
    equal("best asks", seen.book.asks().take(5).copied().collect(), levels(&book["asks"]))?;
    equal("status", seen.state.as_ref(), Some(&(State::Live, None)))?;
    let quote = seen.quote.as_ref().ok_or("no quote")?;
    if quote.bid.is_none() != (book["n_bids"] == 0) || quote.ask.is_none() != (book["n_asks"] == 0) {
        return Err(format!("half a quote: {quote:?}"));
    }
    Ok(())
}

/// At the end of a recording every instrument is closed, once.
fn ends_closed(player: &mut Player, now: Time, instruments: usize) -> Result<(), Failed> {
    let mut out = Out::default();
    player.adapter_mut().end("replay_ended", now, &mut out);
    let closed = out.updates.iter().filter(|u| matches!(&u.data, Data::Status(s) if s.state == State::Closed)).count();
    equal("closed instruments", closed, instruments)?;
    // After the last frame comes what no decoder may choke on.
    player.adapter_mut().frame(ticker_feeds::Conn(0), b"{\"channel\":", now, &mut out);
    equal("reports", out.reports.len(), 1)?;
    equal("the report", out.reports[0].fault, Fault::Undecodable)?;
    Ok(())
}

fn number(value: &Value) -> Decimal {
    decimal::parse(value.as_str().expect("a decimal as text")).expect("a decimal")
}

fn levels(value: &Value) -> Vec<Level> {
    let list = value.as_array().expect("levels");
    list.iter().map(|level| Level { price: number(&level[0]), size: number(&level[1]) }).collect()
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found:?}, expected {expected:?}")) }
}
