//! Whatever bytes come, no decoder panics, and no book is told crossed. Runs for a moment as an ordinary test, and as
//! long as one likes under `cargo bolero`.

use ticker_feeds::recording::{Line, Payload, Player};
use ticker_feeds::stand_in::{Session, StandIn};
use ticker_feeds::{Conn, Out, adapter};
use ticker_market::{Book, Channel, Data, Kind, Time};

const RUNS: usize = 2_000;
const SESSIONS: u64 = 150;
const OPERATIONS: usize = 400;

const KRAKEN: [&str; 3] = [
    include_str!("../fixtures/kraken/book.jsonl"),
    include_str!("../fixtures/kraken/again.jsonl"),
    include_str!("../fixtures/kraken/other.jsonl"),
];
const COINBASE: [&str; 2] =
    [include_str!("../fixtures/coinbase/session.jsonl"), include_str!("../fixtures/coinbase/products.json")];
const BINANCE: [&str; 3] = [
    include_str!("../fixtures/binance/session.jsonl"),
    include_str!("../fixtures/binance/depth.json"),
    include_str!("../fixtures/binance/exchangeInfo.json"),
];
const BINANCE_USDM: [&str; 3] = [
    include_str!("../fixtures/binance-usdm/session.jsonl"),
    include_str!("../fixtures/binance-usdm/depth.json"),
    include_str!("../fixtures/binance-usdm/exchangeInfo.json"),
];
const BYBIT: [&str; 2] =
    [include_str!("../fixtures/bybit/session.jsonl"), include_str!("../fixtures/bybit/instruments.json")];
const OKX: [&str; 4] = [
    include_str!("../fixtures/okx/session.jsonl"),
    include_str!("../fixtures/okx/checksums.jsonl"),
    include_str!("../fixtures/okx/books.json"),
    include_str!("../fixtures/okx/instruments.json"),
];
const COINBASE_EXCHANGE: [&str; 2] = [
    include_str!("../fixtures/coinbase-exchange/session.jsonl"),
    include_str!("../fixtures/coinbase-exchange/products.json"),
];
const BITSTAMP: [&str; 4] = [
    include_str!("../fixtures/bitstamp/session.jsonl"),
    include_str!("../fixtures/bitstamp/orders.jsonl"),
    include_str!("../fixtures/bitstamp/order_book.json"),
    include_str!("../fixtures/bitstamp/markets.json"),
];
const GEMINI: [&str; 3] = [
    include_str!("../fixtures/gemini/session.jsonl"),
    include_str!("../fixtures/gemini/v2.jsonl"),
    include_str!("../fixtures/gemini/details.json"),
];
const BITFINEX: [&str; 2] =
    [include_str!("../fixtures/bitfinex/session.jsonl"), include_str!("../fixtures/bitfinex/pairs.json")];

const BITGET: [&str; 3] = [
    include_str!("../fixtures/bitget/session.jsonl"),
    include_str!("../fixtures/bitget/symbols.json"),
    include_str!("../fixtures/bitget/contracts.json"),
];
const BITMEX: [&str; 2] =
    [include_str!("../fixtures/bitmex/session.jsonl"), include_str!("../fixtures/bitmex/instruments.json")];
const DERIBIT: [&str; 2] =
    [include_str!("../fixtures/deribit/session.jsonl"), include_str!("../fixtures/deribit/instruments.json")];
const GATEIO: [&str; 3] = [
    include_str!("../fixtures/gateio/session.jsonl"),
    include_str!("../fixtures/gateio/depth.json"),
    include_str!("../fixtures/gateio/pairs.json"),
];
const KUCOIN: [&str; 3] = [
    include_str!("../fixtures/kucoin/session.jsonl"),
    include_str!("../fixtures/kucoin/depth.json"),
    include_str!("../fixtures/kucoin/symbols.json"),
];

const URLS: &[&str] = &[
    "https://www.bitstamp.net/api/v2/order_book/btcusd/?group=2",
    "https://api.bitget.com/api/v2/spot/public/symbols",
    "https://api.bitget.com/api/v2/mix/market/contracts?productType=USDT-FUTURES",
    "https://www.bitmex.com/api/v1/instrument/active",
    "https://www.deribit.com/api/v2/public/get_instruments?currency=any",
    "https://api.gateio.ws/api/v4/spot/order_book?currency_pair=BTC_USDT&limit=100&with_id=true",
    "https://api.gateio.ws/api/v4/spot/currency_pairs",
    "https://api.kucoin.com/api/v3/market/orderbook/level2?symbol=BTC-USDT",
    "https://api.kucoin.com/api/v2/symbols",
    "https://api.kucoin.com/api/v1/bullet-public",
    "https://api.gemini.com/v1/symbols/details/btcusd",
    "https://api-pub.bitfinex.com/v2/conf/pub:list:pair:exchange",
    "https://api.exchange.coinbase.com/products",
    "https://www.bitstamp.net/api/v2/order_book/btcusd/",
    "https://www.bitstamp.net/api/v2/markets/",
    "https://www.okx.com/api/v5/market/books?instId=BTC-USDT&sz=400&source=0",
    "https://www.okx.com/api/v5/public/instruments?instType=SPOT",
    "https://api.bybit.com/v5/market/instruments-info?category=linear&limit=1000",
    "wss://stream.bybit.com/v5/public/spot",
    "https://fapi.binance.com/fapi/v1/depth?symbol=BTCUSDT&limit=1000",
    "https://api.binance.com/api/v3/depth?symbol=BTCUSDT&limit=5000",
    "https://api.binance.com/api/v3/exchangeInfo",
    "https://api.coinbase.com/api/v3/brokerage/market/products",
    "wss://stream.binance.com:9443/stream?streams=btcusdt@trade/zilusdt@aggTrade/@/x@depth",
    "",
];

/// Every decoder, with frames that it knows.
const VENUES: &[(&str, &[&str])] = &[
    ("binance", &BINANCE),
    ("binance-usdm", &BINANCE_USDM),
    ("bitfinex", &BITFINEX),
    ("bitget", &BITGET),
    ("bitmex", &BITMEX),
    ("bitstamp", &BITSTAMP),
    ("bybit", &BYBIT),
    ("coinbase", &COINBASE),
    ("coinbase-exchange", &COINBASE_EXCHANGE),
    ("deribit", &DERIBIT),
    ("gateio", &GATEIO),
    ("gemini", &GEMINI),
    ("kraken", &KRAKEN),
    ("kucoin", &KUCOIN),
    ("okx", &OKX),
];

/// Does to an adapter what the bytes say: each operation is two bytes, a code and an argument.
fn drive(venue: &str, fixtures: &[&str], bytes: &[u8]) {
    let frames: Vec<&str> = fixtures.iter().flat_map(|f| f.lines()).collect();
    let mut adapter = adapter(venue, &[]).expect("a venue of ours");
    let mut out = Out::default();
    let mut books: Vec<Option<Book>> = Vec::new();
    let mut now = Time(0);
    // Most of the time the session goes on as it should; the operations disturb it.
    let mut next = 0;
    for operation in bytes.chunks(2) {
        let (code, argument) = (operation[0], usize::from(*operation.get(1).unwrap_or(&0)));
        let conn = Conn((argument % 3) as u32);
        now = now.plus_millis(argument as i64);
        out.clear();
        match code {
            0..160 => {
                adapter.frame(Conn(0), frames[next % frames.len()].as_bytes(), now, &mut out);
                next += 1;
            }
            160..175 => adapter.frame(conn, frames[argument % frames.len()].as_bytes(), now, &mut out),
            175..190 => {
                // One byte of a frame is another.
                let mut frame = frames[next % frames.len()].as_bytes().to_vec();
                let at = argument * 7 % frame.len();
                frame[at] = frame[at].wrapping_add(code);
                adapter.frame(Conn(0), &frame, now, &mut out);
                next += 1;
            }
            190..200 => {
                let frame = frames[argument % frames.len()].as_bytes();
                adapter.frame(conn, &frame[..frame.len() * usize::from(code - 190) / 10], now, &mut out);
            }
            200..210 => adapter.frame(conn, bytes, now, &mut out),
            210..220 => {
                let frame = frames[(next + argument) % frames.len()].as_bytes();
                adapter.response(URLS[argument % URLS.len()], frame, now, &mut out);
            }
            220..225 => adapter.closed(conn, "eof", now, &mut out),
            225..235 => adapter.opened(conn, URLS[argument % URLS.len()], now, &mut out),
            235..240 => adapter.silent(conn, now, &mut out),
            240..245 => adapter.failed(URLS[argument % URLS.len()], now, &mut out),
            245..253 => {
                now = adapter.next_timer().unwrap_or(now).max(now);
                adapter.timer(now, &mut out);
            }
            _ => adapter.end("fuzzed", now, &mut out),
        }
        for update in &out.updates {
            let number = update.instrument as usize;
            if books.len() <= number {
                books.resize(number + 1, None);
            }
            match (&update.data, update.kind) {
                (Data::Book(levels), Kind::Snapshot) => {
                    let mut book = Book::new();
                    book.replace(levels).expect("a snapshot that can be applied");
                    books[number] = Some(book);
                }
                (Data::Book(levels), _) => {
                    let book = books[number].as_mut().expect("an update of a book that is good");
                    book.apply(levels).expect("an update that can be applied");
                }
                (Data::Invalid(_), _) if update.channel == Channel::Book => books[number] = None,
                _ => {}
            }
            assert!(books[number].as_ref().is_none_or(|book| !book.is_crossed()), "a crossed book was told");
        }
    }
    out.clear();
    adapter.retell(now, &mut out);
    for update in &out.updates {
        if let Data::Book(levels) = &update.data {
            let book = books[update.instrument as usize].as_ref().expect("the adapter's book is good, so is ours");
            assert!(book.bids().eq(&levels.bids) && book.asks().eq(&levels.asks), "our book is not the adapter's");
        }
    }
}

/// Longer sessions than the fuzzer makes by itself; a failure names its seed.
#[test]
fn long_sessions() {
    for (venue, fixtures) in VENUES {
        for seed in 0..SESSIONS {
            let mut rng = fastrand::Rng::with_seed(seed);
            // From hardly disturbed to hardly anything else.
            let disturbed = 1 + rng.u8(0..255);
            let operations: Vec<u8> = (0..OPERATIONS)
                .flat_map(|_| [if rng.u8(..) < disturbed { rng.u8(..) } else { 0 }, rng.u8(..)])
                .collect();
            let run = std::panic::catch_unwind(|| drive(venue, fixtures, &operations));
            assert!(run.is_ok(), "{venue}, seed {seed}");
        }
    }
}

#[test]
fn kraken() {
    bolero::check!().with_iterations(RUNS).for_each(|bytes: &[u8]| drive("kraken", &KRAKEN, bytes));
}

#[test]
fn coinbase() {
    bolero::check!().with_iterations(RUNS).for_each(|bytes: &[u8]| drive("coinbase", &COINBASE, bytes));
}

#[test]
fn binance() {
    bolero::check!().with_iterations(RUNS).for_each(|bytes: &[u8]| drive("binance", &BINANCE, bytes));
}

#[test]
fn binance_usdm() {
    bolero::check!().with_iterations(RUNS).for_each(|bytes: &[u8]| drive("binance-usdm", &BINANCE_USDM, bytes));
}

#[test]
fn bitfinex() {
    bolero::check!().with_iterations(RUNS).for_each(|bytes: &[u8]| drive("bitfinex", &BITFINEX, bytes));
}

#[test]
fn bitget() {
    bolero::check!().with_iterations(RUNS).for_each(|bytes: &[u8]| drive("bitget", &BITGET, bytes));
}

#[test]
fn bitmex() {
    bolero::check!().with_iterations(RUNS).for_each(|bytes: &[u8]| drive("bitmex", &BITMEX, bytes));
}

#[test]
fn bitstamp() {
    bolero::check!().with_iterations(RUNS).for_each(|bytes: &[u8]| drive("bitstamp", &BITSTAMP, bytes));
}

#[test]
fn bybit() {
    bolero::check!().with_iterations(RUNS).for_each(|bytes: &[u8]| drive("bybit", &BYBIT, bytes));
}

#[test]
fn coinbase_exchange() {
    bolero::check!()
        .with_iterations(RUNS)
        .for_each(|bytes: &[u8]| drive("coinbase-exchange", &COINBASE_EXCHANGE, bytes));
}

#[test]
fn deribit() {
    bolero::check!().with_iterations(RUNS).for_each(|bytes: &[u8]| drive("deribit", &DERIBIT, bytes));
}

#[test]
fn gateio() {
    bolero::check!().with_iterations(RUNS).for_each(|bytes: &[u8]| drive("gateio", &GATEIO, bytes));
}

#[test]
fn gemini() {
    bolero::check!().with_iterations(RUNS).for_each(|bytes: &[u8]| drive("gemini", &GEMINI, bytes));
}

#[test]
fn kucoin() {
    bolero::check!().with_iterations(RUNS).for_each(|bytes: &[u8]| drive("kucoin", &KUCOIN, bytes));
}

#[test]
fn okx() {
    bolero::check!().with_iterations(RUNS).for_each(|bytes: &[u8]| drive("okx", &OKX, bytes));
}

#[test]
fn recording() {
    bolero::check!().with_iterations(RUNS).for_each(|bytes: &[u8]| {
        // Bytes of any kind, as a line and as a frame in a line.
        if let Ok(line) = Line::parse(bytes) {
            let mut text = Vec::new();
            line.write(&mut text);
            assert_eq!(Line::parse(&text).expect("what was written is read"), line);
        }
        let line = Line::Recv { ts: None, conn: "ws".into(), data: Payload::Binary(bytes.into()) };
        let mut text = Vec::new();
        line.write(&mut text);
        let line = Line::parse(&text).expect("what was written is read");
        let mut player = Player::new(adapter("kraken", &[]).expect("a venue of ours"));
        player.feed(&line, Time(0), &mut Out::default()).expect("one connection");
    });
}

/// What readers ask of a stand-in: good requests, so that bytes have something to disturb.
const ASKED: [&str; 13] = [
    r#"{"method":"subscribe","params":{"channel":"book","symbol":["BTC/USD","ETH/USD"]},"req_id":7}"#,
    r#"{"method":"unsubscribe","params":{"channel":"book","symbol":["BTC/USD"]}}"#,
    r#"{"method":"subscribe","params":{"channel":"instrument"}}"#,
    r#"{"type":"subscribe","product_ids":["BTC-USD"],"channel":"level2"}"#,
    r#"{"type":"unsubscribe","product_ids":["BTC-USD"],"channel":"level2"}"#,
    r#"{"method":"SUBSCRIBE","params":["btcusdt@depth@100ms","btcusdt@trade"],"id":1}"#,
    r#"{"method":"UNSUBSCRIBE","params":["@","btcusdt@depth"],"id":null}"#,
    r#"{"op":"subscribe","args":["x"]}"#,
    r#"{"op":"subscribe","args":["orderBookL2:XBTUSD","orderbook.200.BTCUSDT"]}"#,
    r#"{"event":"subscribe","channel":"book","symbol":"tBTCUSD"}"#,
    r#"{"event":"conf","flags":196608}"#,
    r#"{"id":1,"type":"subscribe","topic":"/market/level2:BTC-USDT","response":true}"#,
    r#"{"jsonrpc":"2.0","id":1,"method":"public/subscribe","params":{"channels":["book.BTC-PERPETUAL.raw"]}}"#,
];

/// Does to a stand-in what the bytes say, as [`drive`] does to an adapter.
fn stand_in(venue: &str, fixtures: &[&str], bytes: &[u8]) {
    let frames: Vec<&str> = fixtures.iter().flat_map(|f| f.lines()).collect();
    let faults = ["corrupt:1/9", "alter:1/9", "reorder:1/9", "double:1/9", "drop:1/9"];
    let faults = faults.iter().map(|text| text.parse().expect("a fault")).collect();
    let mut stand_in = StandIn::new(venue, faults, 1).expect("a venue of ours");
    let mut said = Vec::new();
    let recv = |data: &[u8]| {
        let data = String::from_utf8_lossy(data).into_owned();
        Line::Recv { ts: None, conn: "ws".into(), data: Payload::Text(data.into()) }
    };
    for (next, operation) in bytes.chunks(2).enumerate() {
        let (code, argument) = (operation[0], usize::from(*operation.get(1).unwrap_or(&0)));
        let session = Session((argument % 3) as u32);
        let frame = frames[(next + argument) % frames.len()].as_bytes();
        match code {
            0..60 => stand_in.line(&recv(frame), &mut said),
            60..90 => {
                let (url, data) = (URLS[argument % URLS.len()], String::from_utf8_lossy(frame));
                stand_in.line(
                    &Line::Http { ts: None, conn: "h".into(), url: url.into(), data: Payload::Text(data) },
                    &mut said,
                );
            }
            90..110 => stand_in.line(&recv(&frame[..frame.len() * usize::from(code - 90) / 20]), &mut said),
            110..120 => stand_in.line(&recv(bytes), &mut said),
            120..140 => stand_in.look(&recv(frame)),
            140..160 => stand_in.opened(session, URLS[argument % URLS.len()], &mut said),
            160..200 => stand_in.heard(session, ASKED[argument % ASKED.len()].as_bytes(), &mut said),
            200..210 => stand_in.heard(session, bytes, &mut said),
            210..230 => stand_in.asked(next as u64, URLS[argument % URLS.len()], &mut said),
            230..240 => stand_in.closed(session),
            240..245 => stand_in.begun_again(),
            _ => _ = stand_in.is_wanted(),
        }
        // One line becomes at most a few messages for each session.
        assert!(said.len() <= 64, "{} messages", said.len());
        said.clear();
    }
}

#[test]
fn stand_ins() {
    bolero::check!().with_iterations(RUNS).for_each(|bytes: &[u8]| {
        stand_in("kraken", &KRAKEN, bytes);
        stand_in("coinbase", &COINBASE, bytes);
        stand_in("binance", &BINANCE, bytes);
        stand_in("okx", &OKX, bytes);
    });
}

#[test]
fn long_sessions_with_stand_ins() {
    for (venue, fixtures) in VENUES {
        for seed in 0..SESSIONS {
            let mut rng = fastrand::Rng::with_seed(seed);
            let operations: Vec<u8> = (0..2 * OPERATIONS).map(|_| rng.u8(..)).collect();
            let run = std::panic::catch_unwind(|| stand_in(venue, fixtures, &operations));
            assert!(run.is_ok(), "{venue}, seed {seed}");
        }
    }
}
