//! From recorded frames to readers, over real sockets: every trade exactly once and in order, every book equal to an
//! independent rebuild after every event, every bar equal to one made anew from the trades, over every transport, and over changes of transport in mid-stream.

#![allow(clippy::panic, reason = "a test says what it found, and dies of it")]

mod bars;
mod independent;
mod live;
mod rig;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use ticker_client::board::{Applied, Board};
use ticker_client::{Over, Subscription, connect};
use ticker_market::{Book, Channel, Data, Side, State};
use ticker_proto::{Message, Notice};

use independent::{Expected, RawTrade};
use rig::Rig;

/// The recordings of the venues that are supported, as the folders name them.
const RECORDINGS: [(&str, &str); 9] = [
    ("kraken", "kraken-v2/2026-08-01_btcusd_book_l2.jsonl.zst"),
    ("kraken", "kraken-v2/2026-08-02_btcusd_book_sample.jsonl.zst"),
    ("kraken", "kraken-v2/2026-08-02_xrpusd_book_sample.jsonl.zst"),
    ("kraken", "kraken-v2/2026-08-24_btcusd_book_short.jsonl.zst"),
    ("coinbase", "coinbase-advanced/2026-08-09_BTC-ETH_l2_ticker_trades_candles_heartbeats.jsonl.zst"),
    ("binance", "binance-spot/2021-04-05_10sym_depth_bookTicker_aggTrade.jsonl.zst"),
    ("binance", "binance-spot/2021-10-12_4sym_depth_bookTicker_kline_aggTrade.jsonl.zst"),
    ("binance", "binance-spot/2024-08-08_btcusdt_depth_bookTicker_trade.jsonl.zst"),
    ("binance", "binance-spot/2024-08-09_btcusdt_depth_bookTicker_trade.jsonl.zst"),
];

/// A reader hears something within so long, or the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Trials that run at once, where the command line says nothing: those of stand-ins mostly wait.
const THREADS: usize = 6;

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let root = std::env::var_os("TICKER_RECORDINGS")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/recordings"));
    let mut trials = Vec::new();
    for (venue, file) in RECORDINGS {
        let path = root.join(file);
        let stem = file.trim_end_matches(".jsonl.zst");
        if !path.exists() {
            trials
                .push(Trial::test(format!("missing recording: {}", path.display()), || Ok(())).with_ignored_flag(true));
            continue;
        }
        let (a, b) = (path.clone(), path);
        trials.push(Trial::test(format!("every transport: {stem}"), move || run(every_transport(a, venue))));
        trials.push(Trial::test(format!("changing transports: {stem}"), move || run(changing_transports(b, venue))));
    }
    for (venue, file, speed) in live::PLAYED {
        let path = root.join(file);
        if path.exists() {
            let stem = file.trim_end_matches(".jsonl.zst");
            let test = move || run(live::without_faults(path, venue, speed));
            trials.push(Trial::test(format!("as the venue: {stem}"), test));
        }
    }
    for (played, fault, outcome) in live::FAULTS {
        let (venue, file, speed) = live::PLAYED[played];
        let path = root.join(file);
        if path.exists() {
            let test = move || {
                let recorder = PrometheusBuilder::new().build_recorder();
                let metrics = recorder.handle();
                run_on(&counting(recorder), live::with_fault(path, (venue, speed), (fault, outcome), &metrics))
            };
            trials.push(Trial::test(format!("as the venue: {venue}, {fault}"), test));
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn run(test: impl Future<Output = Result<(), String>>) -> Result<(), Failed> {
    run_on(&threads().build().expect("a runtime"), test)
}

fn threads() -> tokio::runtime::Builder {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all();
    builder
}

fn run_on(runtime: &tokio::runtime::Runtime, test: impl Future<Output = Result<(), String>>) -> Result<(), Failed> {
    runtime.block_on(test).map_err(Failed::from)
}

/// A runtime whose threads count for themselves: other trials run at the same time.
fn counting(recorder: PrometheusRecorder) -> tokio::runtime::Runtime {
    let recorder: &'static PrometheusRecorder = Box::leak(Box::new(recorder));
    let start = move || std::mem::forget(metrics::set_default_local_recorder(recorder));
    threads().on_thread_start(start).build().expect("a runtime")
}

/// What a reader received, to be held against a recording.
#[derive(Default)]
struct Received {
    board: Board,
    trades: BTreeMap<String, Vec<RawTrade>>,
    sums: BTreeMap<String, Vec<u32>>,
    /// Kraken's checksum of this reader's book, for each sum; and the decimals that it is made with.
    checksums: BTreeMap<String, Vec<u32>>,
    scales: BTreeMap<String, (u32, u32)>,
    /// Every event, in order.
    events: Vec<(String, u64)>,
    ended: BTreeSet<String>,
    bars: bars::Bars,
}

/// Kraken's own checksum of a book (WebSocket v2 documentation, "Book checksum"): the ten best asks, then the ten best
/// bids, each price and size without its point and leading zeros.
fn kraken_checksum(book: &Book, scales: (u32, u32)) -> u32 {
    let digits = |mut value: ticker_market::Decimal, scale| {
        value.rescale(scale);
        value.mantissa().to_string()
    };
    let levels = book.asks().take(10).chain(book.bids().take(10));
    let text: String = levels.map(|l| digits(l.price, scales.0) + &digits(l.size, scales.1)).collect();
    crc32fast::hash(text.as_bytes())
}

impl Received {
    fn expecting(expected: &BTreeMap<String, Expected>, venue: &str) -> Self {
        let scales = expected.iter().filter(|_| venue == "kraken").map(|(symbol, e)| (symbol.clone(), e.scales));
        Self { scales: scales.collect(), ..Self::default() }
    }

    fn take(&mut self, message: &Message) -> Result<(), String> {
        if let Message::Notice(Notice::Gap { topic, reason }) = message {
            return Err(format!("a gap on {topic:?}: {reason}"));
        }
        if let Message::Notice(Notice::Error { code, message, .. }) = message {
            return Err(format!("{code}: {message}"));
        }
        let Applied::Event(event) = self.board.apply(message).map_err(|v| v.to_string())? else { return Ok(()) };
        self.events.push((event.topic.to_string(), event.seq));
        self.bars.take(&event);
        let symbol = event.topic.symbol.to_string();
        match &event.data {
            Data::Trade(t) => {
                let side = if t.side == Some(Side::Buy) { "buy" } else { "sell" };
                let trade = (t.trade_id.to_string(), t.price, t.size, side);
                self.trades.entry(symbol).or_default().push(trade);
            }
            Data::Book(_) if event.topic.channel == Channel::Book => {
                let book = self.board.book(&event.topic).ok_or("a book event without a book")?;
                let sums = self.sums.entry(symbol.clone()).or_default();
                if sums.last() != Some(&book.sum()) {
                    sums.push(book.sum());
                    if let Some(scales) = self.scales.get(&symbol) {
                        self.checksums.entry(symbol).or_default().push(kraken_checksum(book, *scales));
                    }
                }
            }
            Data::Status(status) if status.state == State::Closed => {
                self.ended.insert(symbol);
            }
            _ => {}
        }
        Ok(())
    }

    fn check(&self, venue: &str, expected: &BTreeMap<String, Expected>) -> Result<(), String> {
        for (symbol, expected) in expected {
            let none = Vec::new();
            let trades = self.trades.get(symbol).unwrap_or(&none);
            if *trades != expected.trades {
                let at = trades.iter().zip(&expected.trades).position(|(a, b)| a != b);
                let (got, want) = (trades.len(), expected.trades.len());
                return Err(format!("{symbol}: {got} trades, the recording has {want}; first difference at {at:?}"));
            }
            let none = Vec::new();
            let sums = self.sums.get(symbol).unwrap_or(&none);
            let aligned = (0..=expected.optional).any(|skip| expected.sums.get(skip..) == Some(sums));
            if !aligned {
                let at = sums.iter().zip(&expected.sums).position(|(a, b)| a != b);
                let (got, want) = (sums.len(), expected.sums.len());
                return Err(format!(
                    "{symbol}: {got} states of the book, the recording has {want}; first difference at {at:?}"
                ));
            }
            if expected.sums.is_empty() {
                continue;
            }
            if venue == "kraken" && self.checksums.get(symbol) != Some(&expected.checksums) {
                return Err(format!("{symbol}: the venue's checksum and that of the reader's book differ"));
            }
            let topic = ticker_market::Topic::new(Channel::Book, venue, symbol).map_err(|e| e.to_string())?;
            let book: &Book = self.board.book(&topic).ok_or_else(|| format!("{symbol}: no book at the end"))?;
            let same = book.bids().map(|l| (l.price, l.size)).eq(expected.bids.iter().rev().map(|(p, s)| (*p, *s)))
                && book.asks().map(|l| (l.price, l.size)).eq(expected.asks.iter().map(|(p, s)| (*p, *s)));
            if !same {
                return Err(format!("{symbol}: the book at the end differs from the independent one"));
            }
        }
        Ok(())
    }
}

fn everything(venue: &str) -> Subscription {
    Subscription {
        topics: vec![format!("*/{venue}/*")],
        from: Some("earliest".into()),
        conflate: Some(false),
        ..Subscription::default()
    }
}

/// Reads until every instrument of the recording has ended, or until `limit` events have come and a place on the tape is
/// complete: then the next message is thrown away, as by a reader that dies. Returns the cursor to go on from.
async fn read(
    rig: &Rig,
    over: Over,
    from: Subscription,
    symbols: usize,
    limit: usize,
    into: &mut Received,
) -> Result<String, String> {
    into.board.joining();
    let mut reader = connect(rig.options(over), from).await.map_err(|e| format!("{over}: {e}"))?;
    let start = into.events.len();
    let mut last = 0;
    while into.ended.len() < symbols {
        let cursor = reader.cursor().unwrap_or_default().to_owned();
        let next = tokio::time::timeout(PATIENCE, reader.next()).await;
        let message =
            next.map_err(|_| format!("{over}: nothing for {PATIENCE:?} after {} events", into.events.len()))?;
        let message = message.map_err(|e| format!("{over}: {e}"))?.ok_or_else(|| format!("{over}: it ended"))?;
        if let Message::Event(part) = &message {
            // Snapshots do not move the cursor: after one there is no place yet at which to stop.
            let complete = part.event.seq > last && cursor.ends_with(&format!("-{last}"));
            if into.events.len() - start >= limit && complete {
                return Ok(cursor);
            }
            last = part.event.seq;
        }
        into.take(&message).map_err(|e| format!("{over}: {e}"))?;
    }
    Ok(reader.cursor().unwrap_or_default().to_owned())
}

async fn every_transport(path: PathBuf, venue: &'static str) -> Result<(), String> {
    let expected = independent::read(&path, venue);
    let rig = Rig::start(ticker_edge::Config { backlog_events_max: 1 << 20, ..Default::default() }).await;
    rig.replay(path);
    // Instruments are known to readers once they have appeared.
    let mut first: Option<Vec<(String, u64)>> = None;
    for over in Over::ALL {
        let mut received = Received::expecting(&expected, venue);
        read(&rig, over, everything(venue), expected.len(), usize::MAX, &mut received).await?;
        received.check(venue, &expected).map_err(|e| format!("{over}: {e}"))?;
        received.bars.check().map_err(|e| format!("{over}: {e}"))?;
        match &first {
            None => first = Some(received.events),
            // One subscription means the same on every transport: each topic's events are the same ones in the same order.
            Some(first) if by_topic(first) != by_topic(&received.events) => {
                return Err(format!("{over} gave {} events, ws gave {}", received.events.len(), first.len()));
            }
            Some(_) => {}
        }
    }
    rig.stop().await;
    Ok(())
}

fn by_topic(events: &[(String, u64)]) -> BTreeMap<&str, Vec<u64>> {
    let mut all: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (topic, seq) in events {
        all.entry(topic).or_default().push(*seq);
    }
    all
}

async fn changing_transports(path: PathBuf, venue: &'static str) -> Result<(), String> {
    let expected = independent::read(&path, venue);
    let rig = Rig::start(ticker_edge::Config { backlog_events_max: 1 << 20, ..Default::default() }).await;
    rig.replay(path);
    let mut received = Received::expecting(&expected, venue);
    let mut subscription = everything(venue);
    let total: usize = expected.values().map(|e| e.trades.len() + e.sums.len()).sum();
    let stretch = (total / 12).clamp(1, 2_000);
    for over in
        [Over::Ws, Over::H3, Over::Sse, Over::WebTransport, Over::Poll, Over::Quic, Over::Grpc].into_iter().cycle()
    {
        if received.ended.len() >= expected.len() {
            break;
        }
        let cursor = read(&rig, over, subscription.clone(), expected.len(), stretch, &mut received).await?;
        subscription.from = Some(cursor);
    }
    received.check(venue, &expected)?;
    received.bars.check()?;
    rig.stop().await;
    Ok(())
}
