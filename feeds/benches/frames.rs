//! What a frame costs each decoder, and what an update costs the simulated market. The frames are made here: small ones
//! as venues send most, and snapshots.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ticker_feeds::kraken::{self, Kraken};
use ticker_feeds::synthetic::Synthetic;
use ticker_feeds::{Adapter, Conn, Out, adapter};
use ticker_market::{Book, Level, Levels, Time, decimal};

/// A Coinbase snapshot with so many levels a side, as text.
fn coinbase_snapshot(levels: usize) -> String {
    let level = |side: &str, cents: usize| {
        format!(
            r#"{{"side":"{side}","event_time":"2026-01-05T10:00:00.123456Z","price_level":"{}.{:02}","new_quantity":"0.{:08}"}}"#,
            cents / 100,
            cents % 100,
            1 + cents % 99_999
        )
    };
    let bids = (0..levels).map(|i| level("bid", 6_500_000 - i));
    let asks = (0..levels).map(|i| level("offer", 6_500_001 + i));
    let updates: Vec<String> = bids.chain(asks).collect();
    format!(
        r#"{{"channel":"l2_data","timestamp":"2026-01-05T10:00:00.1Z","sequence_num":0,"events":[{{"type":"snapshot","product_id":"BTC-USD","updates":[{}]}}]}}"#,
        updates.join(",")
    )
}

fn coinbase(c: &mut Criterion) {
    let snapshot = coinbase_snapshot(20_000);
    let mut group = c.benchmark_group("coinbase");
    group.throughput(Throughput::Bytes(snapshot.len() as u64)).sample_size(20);
    group.bench_function("snapshot of 40,000 levels", |b| {
        b.iter_batched(
            || adapter("coinbase", &[]).expect("ours"),
            |mut adapter| {
                let mut out = Out::default();
                adapter.frame(Conn(0), snapshot.as_bytes(), Time(0), &mut out);
                out
            },
            BatchSize::PerIteration,
        );
    });
    let updates: Vec<String> = (0..1_000)
        .map(|i| {
            let (bid, ask) = (6_500_000 - i % 50, 6_500_001 + i % 70);
            format!(
                r#"{{"channel":"l2_data","timestamp":"2026-01-05T10:00:00.1Z","sequence_num":{},"events":[{{"type":"update","product_id":"BTC-USD","updates":[{{"side":"bid","event_time":"2026-01-05T10:00:00.1Z","price_level":"{}.{:02}","new_quantity":"0.{:08}"}},{{"side":"offer","event_time":"2026-01-05T10:00:00.1Z","price_level":"{}.{:02}","new_quantity":"0.{:08}"}}]}}]}}"#,
                i + 1, bid / 100, bid % 100, 7 + i, ask / 100, ask % 100, 9 + i
            )
        })
        .collect();
    group.throughput(Throughput::Elements(updates.len() as u64));
    group.bench_function("update of two levels", |b| {
        b.iter_batched(
            || {
                let mut adapter = adapter("coinbase", &[]).expect("ours");
                adapter.frame(Conn(0), snapshot.as_bytes(), Time(0), &mut Out::default());
                adapter
            },
            |mut adapter| feed(adapter.as_mut(), &updates),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn kraken(c: &mut Criterion) {
    let level = |price: String, size: String| Level {
        price: decimal::parse(&price).expect("a price"),
        size: decimal::parse(&size).expect("a size"),
    };
    let text = |level: &Level| format!(r#"{{"price":{},"qty":{}}}"#, level.price, level.size);
    let bids: Vec<Level> = (0..25).map(|i| level(format!("{}.0", 64_000 - i), format!("0.{i:08}1"))).collect();
    let asks: Vec<Level> = (0..25).map(|i| level(format!("{}.0", 64_001 + i), format!("1.{i:08}"))).collect();
    let mut book = Book::new();
    book.replace(&Levels { bids: bids.clone(), asks: asks.clone(), ..Levels::default() }).expect("fits");
    let frame = |kind: &str, bids: &[Level], asks: &[Level], checksum: u32| {
        let list = |l: &[Level]| l.iter().map(text).collect::<Vec<_>>().join(",");
        format!(
            r#"{{"channel":"book","type":"{kind}","data":[{{"symbol":"BTC/USD","bids":[{}],"asks":[{}],"checksum":{checksum},"timestamp":"2026-01-05T10:00:00.123456Z"}}]}}"#,
            list(bids),
            list(asks)
        )
    };
    let ack = r#"{"method":"subscribe","result":{"channel":"book","depth":25,"symbol":"BTC/USD"},"success":true}"#;
    let snapshot = frame("snapshot", &bids, &asks, kraken::checksum(&book));
    let updates: Vec<String> = (0..1_000usize)
        .map(|i| {
            let bid = level(format!("{}.0", 64_000 - i % 25), format!("0.{:08}", i + 1));
            book.apply(&Levels { bids: vec![bid], ..Levels::default() }).expect("fits");
            frame("update", &[bid], &[], kraken::checksum(&book))
        })
        .collect();
    let mut group = c.benchmark_group("kraken");
    group.throughput(Throughput::Elements(updates.len() as u64));
    group.bench_function("update of one level, checksum verified", |b| {
        b.iter_batched(
            || {
                let mut adapter = Kraken::new(&[]);
                adapter.frame(Conn(0), ack.as_bytes(), Time(0), &mut Out::default());
                adapter.frame(Conn(0), snapshot.as_bytes(), Time(0), &mut Out::default());
                assert!(adapter.book("BTC/USD").is_some());
                adapter
            },
            |mut adapter| feed(&mut adapter, &updates),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn binance(c: &mut Criterion) {
    let side = |from: i64, step: i64| {
        let list: Vec<String> = (0..5_000)
            .map(|i| from + i * step)
            .map(|cents| format!(r#"["{}.{:02}000000","1.50000000"]"#, cents / 100, cents % 100))
            .collect();
        list.join(",")
    };
    let snapshot = format!(r#"{{"lastUpdateId":0,"bids":[{}],"asks":[{}]}}"#, side(6_500_000, -1), side(6_500_001, 1));
    let url = "https://api.binance.com/api/v3/depth?symbol=BTCUSDT&limit=5000";
    let mut group = c.benchmark_group("binance");
    let depths: Vec<String> = (0..1_000)
        .map(|i| {
            let levels: Vec<String> = (0..10)
                .map(|k| format!(r#"["649{:02}.{:02}000000","0.{:08}"]"#, 99 - k, (i + k) % 100, 1 + i * 10 + k))
                .collect();
            format!(
                r#"{{"stream":"btcusdt@depth@100ms","data":{{"e":"depthUpdate","E":1767607200000,"s":"BTCUSDT","U":{},"u":{},"b":[{}],"a":[]}}}}"#,
                i + 1, i + 1, levels.join(",")
            )
        })
        .collect();
    group.throughput(Throughput::Elements(depths.len() as u64));
    group.bench_function("difference of ten levels", |b| {
        b.iter_batched(
            || {
                let mut adapter = adapter("binance", &[]).expect("ours");
                adapter.response(url, snapshot.as_bytes(), Time(0), &mut Out::default());
                adapter
            },
            |mut adapter| feed(adapter.as_mut(), &depths),
            BatchSize::PerIteration,
        );
    });
    let tickers: Vec<String> = (0..1_000)
        .map(|i| {
            format!(
                r#"{{"stream":"btcusdt@bookTicker","data":{{"u":{i},"s":"BTCUSDT","b":"65000.00000000","B":"1.{i:08}","a":"65000.01000000","A":"2.00000000"}}}}"#
            )
        })
        .collect();
    group.bench_function("bookTicker", |b| {
        b.iter_batched(
            || adapter("binance", &[]).expect("ours"),
            |mut adapter| feed(adapter.as_mut(), &tickers),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// The cheapest frame that changes a book, at the other venues.
fn one_level(c: &mut Criterion) {
    let size = |i: usize| format!("1.{:05}", i + 1);
    bench_one_level(
        c,
        "binance-usdm",
        &[r#"{"lastUpdateId":10,"bids":[["65000.00","1"]],"asks":[["65000.10","2"]]}"#],
        |i| {
            let (before, last) = (10 + i, 11 + i);
            let levels = format!(r#""b":[["65000.00","{}"]],"a":[]"#, size(i));
            format!(
                r#"{{"stream":"btcusdt@depth@100ms","data":{{"e":"depthUpdate","E":1,"T":1,"s":"BTCUSDT","U":{last},"u":{last},"pu":{before},{levels}}}}}"#
            )
        },
    );
    let bybit = |kind: &str, u: usize, bids: &str, asks: &str| {
        format!(
            r#"{{"topic":"orderbook.200.BTCUSDT","type":"{kind}","ts":1,"data":{{"s":"BTCUSDT","b":[{bids}],"a":[{asks}],"u":{u},"seq":1}},"cts":1}}"#
        )
    };
    let first = bybit("snapshot", 10, r#"["65000.00","1"]"#, r#"["65000.10","2"]"#);
    bench_one_level(c, "bybit-linear", &[&first], |i| {
        bybit("delta", 11 + i, &format!(r#"["65000.00","{}"]"#, size(i)), "")
    });
    let okx = |action: &str, before: i64, last: usize, bids: &str, asks: &str| {
        format!(
            r#"{{"arg":{{"channel":"books","instId":"BTC-USDT"}},"action":"{action}","data":[{{"asks":[{asks}],"bids":[{bids}],"ts":"1","checksum":0,"seqId":{last},"prevSeqId":{before}}}]}}"#
        )
    };
    let first = okx("snapshot", -1, 10, r#"["65000","1","0","1"]"#, r#"["65000.1","2","0","1"]"#);
    bench_one_level(c, "okx", &[&first], |i| {
        okx("update", 10 + i as i64, 11 + i, &format!(r#"["65000","{}","0","1"]"#, size(i)), "")
    });
    let coinbase = r#"{"type":"snapshot","product_id":"BTC-USD","bids":[["65000.00","1"]],"asks":[["65000.10","2"]]}"#;
    bench_one_level(c, "coinbase-exchange", &[coinbase], |i| {
        let (size, time) = (size(i), "2026-01-05T10:00:00.123456Z");
        format!(
            r#"{{"type":"l2update","product_id":"BTC-USD","changes":[["buy","65000.00","{size}"]],"time":"{time}"}}"#
        )
    });
    let gemini = |last: usize, bids: &str, asks: &str| {
        let before = last - 1;
        format!(r#"{{"e":"depthUpdate","E":1,"s":"btcusd","U":{before},"u":{last},"b":[{bids}],"a":[{asks}]}}"#)
    };
    let first = gemini(10, r#"["65000.00","1"]"#, r#"["65000.10","2"]"#);
    bench_one_level(c, "gemini", &[&first], |i| gemini(11 + i, &format!(r#"["65000.00","{}"]"#, size(i)), ""));
    let begin = [
        r#"{"event":"conf","status":"OK","flags":65536}"#,
        r#"{"event":"subscribed","channel":"book","chanId":7,"symbol":"tBTCUSD","prec":"P0"}"#,
        "[7,[[65000,1,1],[65001,1,-2]],1]",
    ];
    bench_one_level(c, "bitfinex", &begin, |i| format!("[7,[65000,1,{}],{}]", size(i), i + 2));
}

/// `begin` are the frames that make the book live; one that begins as a REST snapshot does is given as an answer.
fn bench_one_level(c: &mut Criterion, venue: &str, begin: &[&str], update: impl Fn(usize) -> String) {
    let updates: Vec<String> = (0..1_000).map(update).collect();
    let mut group = c.benchmark_group(venue);
    group.throughput(Throughput::Elements(updates.len() as u64));
    group.bench_function("update of one level", |b| {
        b.iter_batched(
            || {
                let (mut adapter, mut out) = (adapter(venue, &[]).expect("ours"), Out::default());
                for frame in begin {
                    if frame.starts_with(r#"{"lastUpdateId"#) {
                        adapter.response("?symbol=BTCUSDT", frame.as_bytes(), Time(0), &mut out);
                    } else {
                        adapter.frame(Conn(0), frame.as_bytes(), Time(0), &mut out);
                    }
                }
                adapter
            },
            |mut adapter| {
                let told = feed(adapter.as_mut(), &updates);
                assert!(told >= updates.len(), "{venue}: a book that does not follow");
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn synthetic(c: &mut Criterion) {
    let mut group = c.benchmark_group("synthetic");
    let mut market = Synthetic::new(1, 200, 1_000);
    let mut out = Out::default();
    let mut now = Time(0);
    market.advance(now, &mut out);
    // 200 instruments at 1000 a second: a step of 5 ms is a thousand updates.
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("update", |b| {
        b.iter(|| {
            out.clear();
            now = now.plus_millis(5);
            market.advance(now, &mut out);
            black_box(out.updates.len())
        });
    });
    group.finish();
}

fn feed(adapter: &mut dyn Adapter, frames: &[String]) -> usize {
    let mut out = Out::default();
    let mut updates = 0;
    for frame in frames {
        out.clear();
        adapter.frame(Conn(0), frame.as_bytes(), Time(0), &mut out);
        assert!(out.reports.is_empty(), "{:?}", out.reports);
        updates += out.updates.len();
    }
    updates
}

criterion_group!(benches, coinbase, kraken, binance, one_level, synthetic);
criterion_main!(benches);
