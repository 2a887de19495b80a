//! On the hot path nothing is allocated for each event: once buffers have grown, frames become events in the memory that
//! is there. Alone in its binary, because it counts what everybody allocates.

#[path = "allocations/counting.rs"]
mod counting;

use counting::allocations;
use ticker_feeds::itch::Itch;
use ticker_feeds::{Conn, Out, adapter, kraken};
use ticker_market::book::BookSide;
use ticker_market::{Book, Channel, Decimal, Integrity, Level, Time};

const FRAMES: usize = 4_000;

/// Instead of a URL.
const FRAME: &str = "";

/// Plays `frame(0)`, `frame(1)`, … after the beginning (frames, and answers with their URLs), and counts the allocations of
/// the second half.
fn count(venue: &str, begin: &[(&str, &str)], channel: Channel, frame: impl Fn(usize) -> String) -> u64 {
    let (mut adapter, mut out) = (adapter(venue, &[]).expect("a venue of ours"), Out::default());
    let frames: Vec<String> = (0..FRAMES).map(frame).collect();
    for (url, bytes) in begin {
        match *url {
            FRAME => adapter.frame(Conn(0), bytes.as_bytes(), Time(0), &mut out),
            url => adapter.response(url, bytes.as_bytes(), Time(0), &mut out),
        }
    }
    let (mut before, mut told) = (0, 0);
    for (i, frame) in frames.iter().enumerate() {
        if i == FRAMES / 2 {
            before = allocations();
        }
        out.clear();
        adapter.frame(Conn(0), frame.as_bytes(), Time::from_millis(i as i64), &mut out);
        told += usize::from(out.updates.iter().any(|u| u.channel == channel));
        assert!(out.reports.is_empty(), "{venue}: {:?}", out.reports);
    }
    let counted = allocations() - before;
    assert_eq!(told, FRAMES, "{venue}: every frame tells something");
    counted
}

/// One test, so that nothing else runs beside it.
#[test]
fn nothing_is_allocated_for_each_event() {
    let snapshot =
        r#"{"lastUpdateId":0,"bids":[["65000.00000000","1"],["64999.00000000","1"]],"asks":[["65001.00000000","2"]]}"#;
    let ticker = |i: usize| {
        format!(
            r#"{{"stream":"btcusdt@bookTicker","data":{{"u":{i},"s":"BTCUSDT","b":"65000.00000000","B":"1.{i:08}","a":"65000.01000000","A":"2.00000000"}}}}"#
        )
    };
    assert_eq!(count("binance", &[], Channel::Quote, ticker), 0, "bookTicker");
    let trade = |i: usize| {
        format!(
            r#"{{"stream":"btcusdt@trade","data":{{"e":"trade","E":1,"s":"BTCUSDT","t":{},"p":"65000.00000000","q":"0.{i:08}1","T":1,"m":true,"M":true}}}}"#,
            7 + i
        )
    };
    assert_eq!(count("binance", &[], Channel::Trade, trade), 0, "trade");
    let depth = |i: usize| {
        format!(
            r#"{{"stream":"btcusdt@depth@100ms","data":{{"e":"depthUpdate","E":1,"s":"BTCUSDT","U":{},"u":{},"b":[["6499{}.00000000","0.{i:08}1"],["64000.5","{}"]],"a":[["65001.00000000","1.{i:08}"]]}}}}"#,
            i + 1,
            i + 1,
            i % 9,
            i % 2
        )
    };
    assert_eq!(count("binance", &[("?symbol=BTCUSDT", snapshot)], Channel::Book, depth), 0, "depth");
    let coinbase = |i: usize| {
        let change = |side: &str, price: usize, size: usize| {
            format!(
                r#"{{"side":"{side}","event_time":"2026-01-05T10:00:00.1Z","price_level":"{price}.25","new_quantity":"0.{size:08}"}}"#
            )
        };
        let kind = if i == 0 { "snapshot" } else { "update" };
        let changes = [change("bid", 64_000 - i % 50, i + 1), change("offer", 64_001 + i % 70, i + 2)].join(",");
        format!(
            r#"{{"channel":"l2_data","client_id":"","timestamp":"2026-01-05T10:00:00.1Z","sequence_num":{i},"events":[{{"type":"{kind}","product_id":"BTC-USD","updates":[{changes}]}}]}}"#
        )
    };
    assert_eq!(count("coinbase", &[], Channel::Book, coinbase), 0, "l2_data");
    coinbase_lists();
    for case in BOOKS {
        assert_eq!(count(case.venue, case.begin, Channel::Book, case.frame), 0, "books of {}", case.venue);
    }
    for case in TRADES {
        assert_eq!(count(case.venue, case.begin, Channel::Trade, case.frame), 0, "trades of {}", case.venue);
    }
    kraken();
    itch();
}

/// A venue's frames after their beginning.
struct Case {
    venue: &'static str,
    begin: &'static [(&'static str, &'static str)],
    frame: fn(usize) -> String,
}

/// Each frame changes the size of a bid.
const BOOKS: &[Case] = &[
    Case {
        venue: "bybit-linear",
        begin: &[(
            FRAME,
            r#"{"topic":"orderbook.200.BTCUSDT","type":"snapshot","ts":1,"data":{"s":"BTCUSDT","b":[["50000.00","1.5"]],"a":[["50000.10","2"]],"u":1000,"seq":1},"cts":1}"#,
        )],
        frame: |i| {
            format!(
                r#"{{"topic":"orderbook.200.BTCUSDT","type":"delta","ts":1,"data":{{"s":"BTCUSDT","b":[["4999{}.00","1.{i:04}1"]],"a":[],"u":{},"seq":1}},"cts":1}}"#,
                i % 9,
                1_001 + i
            )
        },
    },
    Case {
        venue: "okx",
        begin: &[(
            FRAME,
            r#"{"arg":{"channel":"books","instId":"BTC-USDT"},"action":"snapshot","data":[{"asks":[["50000.1","2","0","4"]],"bids":[["50000","1.5","0","2"]],"ts":"1","checksum":0,"seqId":1000,"prevSeqId":-1}]}"#,
        )],
        frame: |i| {
            format!(
                r#"{{"arg":{{"channel":"books","instId":"BTC-USDT"}},"action":"update","data":[{{"asks":[],"bids":[["4999{}","1.{i:04}1","0","2"]],"ts":"1","checksum":0,"seqId":{},"prevSeqId":{}}}]}}"#,
                i % 9,
                1_001 + i,
                1_000 + i
            )
        },
    },
    Case {
        venue: "coinbase-exchange",
        begin: &[(
            FRAME,
            r#"{"type":"snapshot","product_id":"BTC-USD","bids":[["50000.00","1"]],"asks":[["50000.01","2"]]}"#,
        )],
        frame: |i| {
            format!(
                r#"{{"type":"l2update","product_id":"BTC-USD","changes":[["buy","4999{}.00","1.{i:04}1"]],"time":"2026-01-05T10:00:00.000001Z"}}"#,
                i % 9
            )
        },
    },
    Case {
        venue: "gemini",
        begin: &[(
            FRAME,
            r#"{"e":"depthUpdate","E":1767607200000000000,"s":"btcusd","U":1000,"u":1000,"b":[["50000.00","1"]],"a":[["50001.00","2"]]}"#,
        )],
        frame: |i| {
            format!(
                r#"{{"e":"depthUpdate","E":1767607200000000000,"s":"btcusd","U":{},"u":{},"b":[["4999{}.00","1.{i:04}1"]],"a":[]}}"#,
                1_000 + i,
                1_001 + i,
                i % 9
            )
        },
    },
    Case {
        venue: "gemini",
        begin: &[(
            FRAME,
            r#"{"type":"l2_updates","symbol":"BTCUSD","changes":[["buy","50000.00","1"],["sell","50001.00","2"]],"trades":[]}"#,
        )],
        frame: |i| {
            format!(r#"{{"changes":[["buy","4999{}.00","1.{i:04}1"]],"symbol":"BTCUSD","type":"l2_updates"}}"#, i % 9)
        },
    },
    Case {
        venue: "deribit",
        begin: &[(
            FRAME,
            r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"book.BTC-PERPETUAL.100ms","data":{"type":"snapshot","timestamp":1,"instrument_name":"BTC-PERPETUAL","change_id":1000,"bids":[["new",50000.5,1.0]],"asks":[["new",50001.0,2.0]]}}}"#,
        )],
        frame: |i| {
            format!(
                r#"{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"book.BTC-PERPETUAL.100ms","data":{{"type":"change","timestamp":1,"prev_change_id":{},"instrument_name":"BTC-PERPETUAL","change_id":{},"bids":[["change",4999{}.5,1.{i:04}1]],"asks":[]}}}}}}"#,
                1_000 + i,
                1_001 + i,
                i % 9
            )
        },
    },
    Case {
        venue: "kucoin",
        begin: &[(
            "https://api.kucoin.com/api/v3/market/orderbook/level2?symbol=BTC-USDT",
            r#"{"code":"200000","data":{"sequence":"1000","bids":[["50000","1"]],"asks":[["50001","2"]]}}"#,
        )],
        frame: |i| {
            let number = 1_001 + i;
            format!(
                r#"{{"data":{{"sequenceStart":{number},"symbol":"BTC-USDT","changes":{{"asks":[],"bids":[["4999{}","1.{i:04}1","{number}"]]}},"sequenceEnd":{number}}},"subject":"trade.l2update","topic":"/market/level2:BTC-USDT","type":"message"}}"#,
                i % 9
            )
        },
    },
    Case {
        venue: "gateio",
        begin: &[(
            "https://api.gateio.ws/api/v4/spot/order_book?currency_pair=BTC_USDT&limit=100&with_id=true",
            r#"{"id":1000,"bids":[["50000","1"]],"asks":[["50001","2"]]}"#,
        )],
        frame: |i| {
            let number = 1_001 + i;
            format!(
                r#"{{"time":1,"channel":"spot.order_book_update","event":"update","result":{{"t":1,"e":"depthUpdate","E":1,"s":"BTC_USDT","U":{number},"u":{number},"b":[["4999{}","1.{i:04}1"]],"a":[]}}}}"#,
                i % 9
            )
        },
    },
    Case {
        venue: "bitmex",
        begin: &[(
            FRAME,
            r#"{"table":"orderBookL2","action":"partial","filter":{"symbol":"XBTUSD"},"data":[{"symbol":"XBTUSD","id":1,"side":"Sell","size":200,"price":50001.5},{"symbol":"XBTUSD","id":2,"side":"Buy","size":1,"price":50000}]}"#,
        )],
        frame: |i| {
            format!(
                r#"{{"table":"orderBookL2","action":"update","data":[{{"symbol":"XBTUSD","id":2,"side":"Buy","size":{}}}]}}"#,
                i + 2
            )
        },
    },
    Case {
        venue: "bitfinex",
        begin: &[
            (
                FRAME,
                r#"{"event":"subscribed","channel":"book","chanId":11,"symbol":"tBTCUSD","prec":"P0","freq":"F0","len":"250"}"#,
            ),
            (FRAME, "[11,[[50000,2,1.5],[50001,1,-2]]]"),
        ],
        frame: |i| format!("[11,[4999{},1,1.{i:04}1]]", i % 9),
    },
    Case {
        venue: "bitstamp",
        begin: &[(
            "https://www.bitstamp.net/api/v2/order_book/btcusd/",
            r#"{"timestamp":"1","microtimestamp":"1000","bids":[["50000.00","1"]],"asks":[["50001.00","2"]]}"#,
        )],
        frame: |i| {
            format!(
                r#"{{"data":{{"timestamp":"1","microtimestamp":"{}","bids":[["4999{}.00","1.{i:04}1"]],"asks":[]}},"channel":"diff_order_book_btcusd","event":"data"}}"#,
                1_001 + i,
                i % 9
            )
        },
    },
];

/// Each frame is a trade with the next id. Bitget is not here: its frames go through serde, which allocates where it passes
/// over a list of objects.
const TRADES: &[Case] = &[
    Case {
        venue: "bybit-linear",
        begin: &[],
        frame: |i| {
            format!(
                r#"{{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":1,"data":[{{"T":1,"s":"BTCUSDT","S":"Buy","v":"0.250","p":"50000.10","L":"PlusTick","i":"a9188a0a-82bc-50de-be60-{i:012}","BT":false,"RPI":false,"seq":9100}}]}}"#
            )
        },
    },
    Case {
        venue: "kraken",
        begin: &[],
        frame: |i| {
            format!(
                r#"{{"channel":"trade","type":"update","data":[{{"symbol":"BTC/USD","side":"sell","price":64200.1,"qty":0.00250000,"ord_type":"limit","trade_id":{},"timestamp":"2026-01-05T10:00:00.123456Z"}}]}}"#,
                7 + i
            )
        },
    },
    Case {
        venue: "okx",
        begin: &[],
        frame: |i| {
            format!(
                r#"{{"arg":{{"channel":"trades","instId":"BTC-USDT"}},"data":[{{"instId":"BTC-USDT","tradeId":"{}","px":"50000.1","sz":"0.25","side":"buy","ts":"1767607200005","count":"2"}}]}}"#,
                7 + i
            )
        },
    },
    Case {
        venue: "deribit",
        begin: &[],
        frame: |i| {
            let sequence = 7 + i;
            format!(
                r#"{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"trades.BTC-PERPETUAL.100ms","data":[{{"trade_seq":{sequence},"trade_id":"{sequence}","timestamp":1767607200120,"tick_direction":1,"price":50001.0,"mark_price":50000.5,"instrument_name":"BTC-PERPETUAL","index_price":50000.1,"direction":"buy","amount":10.0}}]}}}}"#
            )
        },
    },
    Case {
        venue: "bitmex",
        begin: &[],
        frame: |i| {
            format!(
                r#"{{"table":"trade","action":"insert","data":[{{"timestamp":"2026-01-05T10:00:00.400Z","symbol":"XBTUSD","side":"Sell","size":10,"price":50000,"tickDirection":"MinusTick","trdMatchID":"39744121-c20e-44ba-8cc8-{i:012}","grossValue":899444,"homeNotional":16.73101673101673}}]}}"#
            )
        },
    },
    Case {
        venue: "coinbase-exchange",
        begin: &[],
        frame: |i| {
            format!(
                r#"{{"type":"match","trade_id":{},"maker_order_id":"a","taker_order_id":"b","side":"sell","size":"0.1","price":"50000.01","product_id":"BTC-USD","sequence":9,"time":"2026-01-05T10:00:00.000001Z"}}"#,
                7 + i
            )
        },
    },
    Case {
        venue: "gemini",
        begin: &[],
        frame: |i| {
            format!(
                r#"{{"E":1767607200000000001,"s":"btcusd","t":{},"p":"50000.00","q":"0.10000000","m":true}}"#,
                7 + i
            )
        },
    },
    Case {
        venue: "kucoin",
        begin: &[],
        frame: |i| {
            format!(
                r#"{{"data":{{"symbol":"BTC-USDT","sequence":"{}","side":"buy","size":"0.1","price":"50000","time":"1619378327896516815","type":"match","tradeId":"6085c097{i:016}"}},"subject":"trade.l3match","topic":"/market/match:BTC-USDT","type":"message"}}"#,
                7 + i
            )
        },
    },
    Case {
        venue: "gateio",
        begin: &[],
        frame: |i| {
            format!(
                r#"{{"time":1,"channel":"spot.trades","event":"update","result":{{"id":{},"create_time":1,"create_time_ms":"1619093553605.789","side":"sell","currency_pair":"BTC_USDT","amount":"0.1","price":"50000"}}}}"#,
                7 + i
            )
        },
    },
    Case {
        venue: "bitfinex",
        begin: &[(
            FRAME,
            r#"{"event":"subscribed","channel":"trades","chanId":10,"symbol":"tBTCUSD","pair":"BTCUSD"}"#,
        )],
        frame: |i| format!(r#"[10,"te",[{},1767607200100,0.25,50001]]"#, 7 + i),
    },
    Case {
        venue: "bitstamp",
        begin: &[],
        frame: |i| {
            format!(
                r#"{{"data":{{"id":{},"timestamp":"1","amount":0.1,"amount_str":"0.10000000","price":50000.5,"price_str":"50000.5","type":0,"microtimestamp":"1641343699596000"}},"channel":"live_trades_btcusd","event":"trade"}}"#,
                7 + i
            )
        },
    },
];

fn coinbase_lists() {
    let frame = |channel: &str, i: usize, rows: &str| {
        format!(
            r#"{{"channel":"{channel}","timestamp":"2026-01-05T10:00:00.1Z","sequence_num":{i},"events":[{{"type":"update",{rows}}}]}}"#
        )
    };
    let trades = |i: usize| {
        let trade = |id: usize| {
            format!(
                r#"{{"product_id":"BTC-USD","trade_id":"{id}","price":"65083.67","size":"0.00008746","time":"2026-01-05T10:00:00.1Z","side":"SELL"}}"#
            )
        };
        frame("market_trades", i, &format!(r#""trades":[{},{}]"#, trade(2 * i + 8), trade(2 * i + 7)))
    };
    assert_eq!(count("coinbase", &[], Channel::Trade, trades), 0, "market_trades");
    let tickers = |i: usize| {
        let ticker = format!(
            r#"{{"type":"ticker","product_id":"BTC-USD","price":"100.02","best_bid":"100.01","best_ask":"100.02","best_bid_quantity":"1.{i:04}1","best_ask_quantity":"0.7"}}"#
        );
        frame("ticker", i, &format!(r#""tickers":[{ticker}]"#))
    };
    assert_eq!(count("coinbase", &[], Channel::Quote, tickers), 0, "ticker");
}

/// With the venue's checksum.
fn kraken() {
    let level = |price: i64, size: i64| Level { price: Decimal::new(price, 1), size: Decimal::new(size, 8) };
    let checksum = |size: i64| {
        let mut book = Book::new();
        book.set(BookSide::Bid, level(500_000, size)).expect("fits");
        book.set(BookSide::Ask, level(500_010, 200_000_000)).expect("fits");
        kraken::checksum(&book)
    };
    let frame = |kind: &str, size: i64, asks: &str| {
        format!(
            r#"{{"channel":"book","type":"{kind}","data":[{{"symbol":"BTC/USD","bids":[{{"price":50000.0,"qty":{}}}],"asks":[{asks}],"checksum":{},"timestamp":"2026-01-05T10:00:00.000001Z"}}]}}"#,
            Decimal::new(size, 8),
            checksum(size)
        )
    };
    let snapshot = frame("snapshot", 100_000_000, r#"{"price":50001.0,"qty":2.00000000}"#);
    let update = |i: usize| frame("update", 100_000_001 + i as i64, "");
    assert_eq!(count("kraken", &[(FRAME, &snapshot)], Channel::Book, update), 0, "Kraken's book");
}

/// Orders that come and go, at a few prices of a few stocks.
fn itch() {
    let mut itch = Itch::new(&[], Time(0), Integrity::Sequenced);
    let mut out = Out::default();
    let mut messages: Vec<Vec<u8>> = Vec::new();
    let head = |kind: u8, locate: u16| [&[kind][..], &locate.to_be_bytes(), &[0; 8]].concat();
    messages.push([head(b'S', 0), b"O".to_vec()].concat());
    for n in 0..FRAMES as u64 {
        let locate = 1 + (n % 5) as u16;
        let side = if n % 2 == 0 { b'B' } else { b'S' };
        let price: u32 = if n % 2 == 0 { 100_000 - (n % 7) as u32 * 100 } else { 100_100 + (n % 7) as u32 * 100 };
        let stock = format!("S{locate:<7}");
        let fields =
            [&(10 + n).to_be_bytes()[..], &[side], &100u32.to_be_bytes(), stock.as_bytes(), &price.to_be_bytes()];
        messages.push([head(b'A', locate), fields.concat()].concat());
        if n >= 100 {
            messages.push([head(b'D', 1 + ((n - 100) % 5) as u16), (10 + n - 100).to_be_bytes().to_vec()].concat());
        }
    }
    let (mut before, mut told) = (0, 0);
    for (i, message) in messages.iter().enumerate() {
        if i == messages.len() / 2 {
            before = allocations();
        }
        out.clear();
        itch.message(message, None, &mut out).expect("a message");
        told += out.updates.len();
    }
    assert_eq!(allocations() - before, 0, "ITCH");
    assert!(told > FRAMES);
}
