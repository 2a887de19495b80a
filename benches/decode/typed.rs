//! What is measured, and the frames as types: the baseline. Text stays text, numbers that are prices stay as they are.

#![expect(dead_code, reason = "fields are read by serde alone: that is what is measured")]

use std::hint::black_box;

use serde::Deserialize;
use serde_json::value::RawValue;

/// The frames of one kind in one recording.
pub(crate) struct Case {
    pub(crate) venue: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) file: &'static str,
    pub(crate) is_measured: fn(&str) -> bool,
    /// The other frames are not needed to decode these.
    pub(crate) is_alone: bool,
    pub(crate) typed: fn(&[u8]),
}

macro_rules! typed {
    ($type:ty) => {
        |bytes| {
            black_box(serde_json::from_slice::<$type>(bytes).expect("a frame of that type"));
        }
    };
}

const SPOT: &str = "binance-spot/2024-08-08_btcusdt_depth_bookTicker_trade.jsonl.zst";
const SPOT_TEN: &str = "binance-spot/2021-04-05_10sym_depth_bookTicker_aggTrade.jsonl.zst";
const USDM: &str = "binance-usdm/2024-08-08_btcusdt_depth0ms_bookTicker_trade.jsonl.zst";
const COINBASE: &str = "coinbase-advanced/2026-08-09_BTC-ETH_l2_ticker_trades_candles_heartbeats.jsonl.zst";
const KRAKEN: &str = "kraken-v2/2026-08-02_btcusd_book_sample.jsonl.zst";
const BYBIT: &str = "bybit-v5/2026-08-09_linear_spot_ob200_tickers_trades_kline.jsonl.zst";
const OKX: &str = "okx/2022-02-27_books-l2-tbt_tickers_trades.jsonl.zst";
const BITGET: &str = "bitget-v1/2022-04-07_books_ticker_trade_candle.jsonl.zst";
const EXCHANGE: &str = "coinbase-exchange/2021-04-17_10prod_level2_ticker_matches.jsonl.zst";
const GEMINI: &str = "gemini/2026-08-09_10sym_l2_trades.jsonl.zst";
const DERIBIT: &str = "deribit/2021-07-22_book_ticker_trades_raw.jsonl.zst";
const KUCOIN: &str = "kucoin/2021-04-25_level2_ticker_match_candles.jsonl.zst";
const GATEIO: &str = "gateio/2021-04-22_book_trades_ticker.jsonl.zst";
const BITMEX: &str = "bitmex/2021-07-22_orderBookL2_quote_trade.jsonl.zst";
const BITFINEX: &str = "bitfinex/2021-04-17_book_trades_ticker.jsonl.zst";
const BITSTAMP: &str = "bitstamp/2022-01-05_diff_order_book_live_trades.jsonl.zst";

pub(crate) const CASES: &[Case] = &[
    case("binance", "bookTicker", SPOT, |t| t.contains("@bookTicker"), true, typed!(Combined<'_, Ticker<'_>>)),
    case("binance", "trade", SPOT, |t| t.contains("@trade"), true, typed!(Combined<'_, Trade<'_>>)),
    case("binance", "depth", SPOT, |t| t.contains("@depth"), true, typed!(Combined<'_, Depth<'_>>)),
    case(
        "binance",
        "aggTrade, ten symbols",
        SPOT_TEN,
        |t| t.contains("@aggTrade"),
        true,
        typed!(Combined<'_, Trade<'_>>),
    ),
    case("binance", "depth, ten symbols", SPOT_TEN, |t| t.contains("@depth"), true, typed!(Combined<'_, Depth<'_>>)),
    case("binance-usdm", "bookTicker", USDM, |t| t.contains("@bookTicker"), true, typed!(Combined<'_, Ticker<'_>>)),
    case("binance-usdm", "trade", USDM, |t| t.contains("@trade"), true, typed!(Combined<'_, Trade<'_>>)),
    case("binance-usdm", "depth", USDM, |t| t.contains("@depth"), true, typed!(Combined<'_, Depth<'_>>)),
    case("coinbase", "l2_data", COINBASE, is_l2, false, typed!(Events<'_, BookEvent<'_>>)),
    case("coinbase", "l2_data snapshot", COINBASE, is_l2_snapshot, false, typed!(Events<'_, BookEvent<'_>>)),
    case("coinbase", "l2_data update", COINBASE, is_l2_update, false, typed!(Events<'_, BookEvent<'_>>)),
    case("coinbase", "market_trades", COINBASE, is_trades, false, typed!(Events<'_, TradesEvent<'_>>)),
    case(
        "coinbase",
        "ticker",
        COINBASE,
        |t| t.contains("\"ticker\",\"time"),
        false,
        typed!(Events<'_, TickersEvent<'_>>),
    ),
    case("kraken", "book", KRAKEN, |t| t.contains("\"book\",\"type"), false, typed!(KrakenBook<'_>)),
    case("bybit", "orderbook", BYBIT, |t| t.contains("\"orderbook."), false, typed!(BybitBook<'_>)),
    case("bybit", "publicTrade", BYBIT, |t| t.contains("\"publicTrade."), true, typed!(BybitTrades<'_>)),
    case("okx", "books", OKX, |t| t.contains("\"action\""), false, typed!(OkxBook<'_>)),
    case(
        "bitget",
        "books",
        BITGET,
        |t| t.contains("\"books\"") && t.contains("\"data\""),
        false,
        typed!(BitgetBook<'_>),
    ),
    case("coinbase-exchange", "l2update", EXCHANGE, |t| t.contains("l2update"), false, typed!(ExchangeUpdate<'_>)),
    case("gemini", "l2_updates", GEMINI, |t| t.contains("l2_updates"), false, typed!(GeminiUpdates<'_>)),
    case("deribit", "book", DERIBIT, |t| t.contains("\"book.") && t.contains("params"), false, typed!(DeribitBook<'_>)),
    case("kucoin", "level2", KUCOIN, |t| t.contains("l2update"), true, typed!(KucoinBook<'_>)),
    case("gateio", "order_book_update", GATEIO, is_gateio_book, false, typed!(GateioBook<'_>)),
    case("bitmex", "orderBookL2", BITMEX, |t| t.contains("orderBookL2\",\"action"), true, typed!(BitmexBook<'_>)),
    case("bitfinex", "all", BITFINEX, |t| t.starts_with('['), false, typed!(Vec<&RawValue>)),
    case("bitstamp", "diff_order_book", BITSTAMP, |t| t.contains("\"data\"}"), true, typed!(BitstampBook<'_>)),
];

const fn case(
    venue: &'static str,
    kind: &'static str,
    file: &'static str,
    is_measured: fn(&str) -> bool,
    is_alone: bool,
    typed: fn(&[u8]),
) -> Case {
    Case { venue, kind, file, is_measured, is_alone, typed }
}

fn is_l2(text: &str) -> bool {
    text.starts_with("{\"channel\":\"l2_data\"")
}

fn is_l2_snapshot(text: &str) -> bool {
    is_l2(text) && text.contains("\"type\":\"snapshot\"")
}

fn is_l2_update(text: &str) -> bool {
    is_l2(text) && !is_l2_snapshot(text)
}

fn is_trades(text: &str) -> bool {
    text.starts_with("{\"channel\":\"market_trades\"")
}

fn is_gateio_book(text: &str) -> bool {
    text.contains("order_book_update") && text.contains("\"event\":\"update\"")
}

#[derive(Deserialize)]
struct Combined<'a, T> {
    #[serde(borrow)]
    stream: &'a str,
    data: T,
}

#[derive(Deserialize)]
struct Ticker<'a> {
    u: u64,
    #[serde(borrow)]
    s: &'a str,
    b: &'a str,
    #[serde(rename = "B")]
    bid_size: &'a str,
    a: &'a str,
    #[serde(rename = "A")]
    ask_size: &'a str,
}

#[derive(Deserialize)]
struct Trade<'a> {
    #[serde(alias = "a", rename = "t")]
    id: u64,
    #[serde(borrow)]
    s: &'a str,
    p: &'a str,
    q: &'a str,
    #[serde(rename = "T")]
    time: u64,
    m: bool,
}

type Pair<'a> = (&'a str, &'a str);

#[derive(Deserialize)]
struct Depth<'a> {
    #[serde(borrow)]
    s: &'a str,
    #[serde(rename = "E")]
    time: u64,
    #[serde(rename = "U")]
    first: u64,
    u: u64,
    #[serde(borrow)]
    b: Vec<Pair<'a>>,
    #[serde(borrow)]
    a: Vec<Pair<'a>>,
}

#[derive(Deserialize)]
struct Events<'a, E> {
    #[serde(borrow)]
    channel: &'a str,
    timestamp: &'a str,
    sequence_num: u64,
    events: Vec<E>,
}

#[derive(Deserialize)]
struct BookEvent<'a> {
    #[serde(borrow, rename = "type")]
    kind: &'a str,
    product_id: &'a str,
    #[serde(borrow)]
    updates: Vec<Change<'a>>,
}

#[derive(Deserialize)]
struct Change<'a> {
    #[serde(borrow)]
    side: &'a str,
    price_level: &'a str,
    new_quantity: &'a str,
}

#[derive(Deserialize)]
struct TradesEvent<'a> {
    #[serde(borrow)]
    trades: Vec<CoinbaseTrade<'a>>,
}

#[derive(Deserialize)]
struct CoinbaseTrade<'a> {
    #[serde(borrow)]
    product_id: &'a str,
    trade_id: &'a str,
    price: &'a str,
    size: &'a str,
    time: &'a str,
    side: &'a str,
}

#[derive(Deserialize)]
struct TickersEvent<'a> {
    #[serde(borrow)]
    tickers: Vec<CoinbaseTicker<'a>>,
}

#[derive(Deserialize)]
struct CoinbaseTicker<'a> {
    #[serde(borrow)]
    product_id: &'a str,
    best_bid: &'a str,
    best_bid_quantity: &'a str,
    best_ask: &'a str,
    best_ask_quantity: &'a str,
}

#[derive(Deserialize)]
struct KrakenBook<'a> {
    #[serde(borrow)]
    data: Vec<KrakenLevels<'a>>,
}

#[derive(Deserialize)]
struct KrakenLevels<'a> {
    #[serde(borrow)]
    symbol: &'a str,
    #[serde(borrow)]
    bids: Vec<KrakenLevel<'a>>,
    #[serde(borrow)]
    asks: Vec<KrakenLevel<'a>>,
    checksum: u32,
    timestamp: &'a str,
}

#[derive(Deserialize)]
struct KrakenLevel<'a> {
    #[serde(borrow)]
    price: &'a RawValue,
    #[serde(borrow)]
    qty: &'a RawValue,
}

#[derive(Deserialize)]
struct BybitBook<'a> {
    #[serde(borrow)]
    topic: &'a str,
    ts: u64,
    #[serde(borrow)]
    data: BybitLevels<'a>,
}

#[derive(Deserialize)]
struct BybitLevels<'a> {
    #[serde(borrow)]
    s: &'a str,
    #[serde(borrow)]
    b: Vec<Pair<'a>>,
    #[serde(borrow)]
    a: Vec<Pair<'a>>,
    u: u64,
}

#[derive(Deserialize)]
struct BybitTrades<'a> {
    #[serde(borrow)]
    data: Vec<BybitTrade<'a>>,
}

#[derive(Deserialize)]
struct BybitTrade<'a> {
    #[serde(rename = "T")]
    time: u64,
    #[serde(borrow)]
    s: &'a str,
    #[serde(rename = "S")]
    side: &'a str,
    v: &'a str,
    p: &'a str,
    i: &'a str,
}

#[derive(Deserialize)]
struct OkxBook<'a> {
    #[serde(borrow)]
    data: Vec<OkxLevels<'a>>,
}

#[derive(Deserialize)]
struct OkxLevels<'a> {
    #[serde(borrow)]
    asks: Vec<(&'a str, &'a str, &'a str, &'a str)>,
    #[serde(borrow)]
    bids: Vec<(&'a str, &'a str, &'a str, &'a str)>,
    ts: &'a str,
    checksum: i64,
}

#[derive(Deserialize)]
struct BitgetBook<'a> {
    #[serde(borrow)]
    data: Vec<BitgetLevels<'a>>,
}

#[derive(Deserialize)]
struct BitgetLevels<'a> {
    #[serde(borrow)]
    asks: Vec<(&'a str, &'a str)>,
    #[serde(borrow)]
    bids: Vec<(&'a str, &'a str)>,
    ts: &'a str,
    checksum: i64,
}

#[derive(Deserialize)]
struct ExchangeUpdate<'a> {
    #[serde(borrow)]
    product_id: &'a str,
    #[serde(borrow)]
    changes: Vec<(&'a str, &'a str, &'a str)>,
    time: &'a str,
}

#[derive(Deserialize)]
struct GeminiUpdates<'a> {
    #[serde(borrow)]
    symbol: &'a str,
    #[serde(borrow)]
    changes: Vec<(&'a str, &'a str, &'a str)>,
}

#[derive(Deserialize)]
struct DeribitBook<'a> {
    #[serde(borrow)]
    params: DeribitParams<'a>,
}

#[derive(Deserialize)]
struct DeribitParams<'a> {
    #[serde(borrow)]
    channel: &'a str,
    #[serde(borrow)]
    data: DeribitLevels<'a>,
}

#[derive(Deserialize)]
struct DeribitLevels<'a> {
    timestamp: u64,
    change_id: u64,
    #[serde(borrow)]
    bids: Vec<(&'a str, &'a RawValue, &'a RawValue)>,
    #[serde(borrow)]
    asks: Vec<(&'a str, &'a RawValue, &'a RawValue)>,
}

#[derive(Deserialize)]
struct KucoinBook<'a> {
    #[serde(borrow)]
    data: KucoinData<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KucoinData<'a> {
    sequence_start: u64,
    sequence_end: u64,
    #[serde(borrow)]
    symbol: &'a str,
    #[serde(borrow)]
    changes: KucoinChanges<'a>,
}

#[derive(Deserialize)]
struct KucoinChanges<'a> {
    #[serde(borrow)]
    asks: Vec<(&'a str, &'a str, &'a str)>,
    #[serde(borrow)]
    bids: Vec<(&'a str, &'a str, &'a str)>,
}

#[derive(Deserialize)]
struct GateioBook<'a> {
    #[serde(borrow)]
    result: GateioLevels<'a>,
}

#[derive(Deserialize)]
struct GateioLevels<'a> {
    #[serde(borrow)]
    s: &'a str,
    #[serde(rename = "U")]
    first: u64,
    u: u64,
    #[serde(borrow)]
    b: Vec<Pair<'a>>,
    #[serde(borrow)]
    a: Vec<Pair<'a>>,
}

#[derive(Deserialize)]
struct BitmexBook<'a> {
    #[serde(borrow)]
    action: &'a str,
    #[serde(borrow)]
    data: Vec<BitmexRow<'a>>,
}

#[derive(Deserialize)]
struct BitmexRow<'a> {
    #[serde(borrow)]
    symbol: &'a str,
    id: u64,
    side: &'a str,
    #[serde(default)]
    size: Option<u64>,
    #[serde(borrow, default)]
    price: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct BitstampBook<'a> {
    #[serde(borrow)]
    channel: &'a str,
    #[serde(borrow)]
    data: BitstampLevels<'a>,
}

#[derive(Deserialize)]
struct BitstampLevels<'a> {
    #[serde(borrow)]
    microtimestamp: &'a str,
    #[serde(borrow)]
    bids: Vec<Pair<'a>>,
    #[serde(borrow)]
    asks: Vec<Pair<'a>>,
}
