//! From a venue's own protocol to readers: a stand-in plays a recording over a real socket to an ingest service that
//! takes it for the venue. Faults on the way are noticed, and no state of a book is shown that the recording does not have.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use ticker_client::{Over, connect};
use ticker_ingest::config::{ConnectionConfig, Speed, VenueConfig};
use ticker_ingest::stand_in::{Server, StandInConfig};
use ticker_market::{Channel, Data, Integrity, State};
use ticker_proto::Message;

use crate::independent::{self, Expected};
use crate::rig::{FREE, Rig};
use crate::{Received, everything};

/// Recordings that are played as venues, and how fast: Binance's books begin with a request, which takes a moment.
pub(crate) const PLAYED: [(&str, &str, Speed); 17] = [
    ("kraken", "kraken-v2/2026-08-01_btcusd_book_l2.jsonl.zst", Speed::Max),
    ("kraken", "kraken-v2/2026-08-02_xrpusd_book_sample.jsonl.zst", Speed::Max),
    ("coinbase", "coinbase-advanced/2026-08-09_BTC-ETH_l2_ticker_trades_candles_heartbeats.jsonl.zst", Speed::Max),
    ("binance", "binance-spot/2021-10-12_4sym_depth_bookTicker_kline_aggTrade.jsonl.zst", Speed::Times(20.0)),
    ("coinbase-exchange", "coinbase-exchange/2021-04-17_10prod_level2_ticker_matches.jsonl.zst", Speed::Max),
    ("binance-usdm", "binance-usdm/2021-07-22_depth_bookTicker_kline_aggTrade.jsonl.zst", Speed::Times(20.0)),
    ("bybit-linear", "bybit-v5/2026-08-09_linear_spot_ob200_tickers_trades_kline.jsonl.zst", Speed::Max),
    ("bybit-spot", "bybit-v5/2026-08-09_linear_spot_ob200_tickers_trades_kline.jsonl.zst", Speed::Max),
    ("bitget", "bitget-v1/2022-04-07_books_ticker_trade_candle.jsonl.zst", Speed::Max),
    ("kucoin", "kucoin/2021-04-25_level2_ticker_match_candles.jsonl.zst", Speed::Times(20.0)),
    ("gateio", "gateio/2021-04-22_book_trades_ticker.jsonl.zst", Speed::Times(20.0)),
    ("deribit", "deribit/2021-04-17_book_ticker_trades_raw.jsonl.zst", Speed::Max),
    ("bitfinex", "bitfinex/2021-04-17_book_trades_ticker.jsonl.zst", Speed::Max),
    ("bitmex", "bitmex/2021-07-22_orderBookL2_quote_trade.jsonl.zst", Speed::Max),
    ("bitstamp", "bitstamp/2022-01-05_diff_order_book_live_trades.jsonl.zst", Speed::Times(20.0)),
    ("gemini", "gemini/2026-08-09_10sym_l2_trades.jsonl.zst", Speed::Max),
    ("binance-coinm", "binance-coinm/2021-07-22_depth_bookTicker_kline.jsonl.zst", Speed::Times(20.0)),
];

/// What becomes of a fault.
#[derive(Clone, Copy)]
pub(crate) enum Outcome {
    /// It is told to readers by this reason, counted by this metric and cause, and mended.
    Noticed(&'static str, (&'static str, &'static str)),
    /// As [`Outcome::Noticed`], but only by what comes after it: until then a state is shown that the venue never had, which
    /// is why `integrity` is no more than this.
    Late(Integrity, (&'static str, (&'static str, &'static str))),
    /// It changes nothing.
    Harmless,
    /// The venue's rule proves nothing that would show it. What is said of the feed's `integrity` promises no more, and
    /// the book is right again once the venue tells the same levels anew.
    Unproven(Integrity),
}

use Outcome::{Harmless, Late, Noticed, Unproven};

const FAULTS_TOTAL: &str = "ticker_ingest_faults_total";
const DISCONNECTS_TOTAL: &str = "ticker_ingest_venue_disconnects_total";

const CHECKSUM: Outcome = Noticed("checksum", (FAULTS_TOTAL, "checksum"));
const GAP: Outcome = Noticed("gap", (FAULTS_TOTAL, "gap"));
const MISMATCH: Outcome = Noticed("mismatch", (FAULTS_TOTAL, "mismatch"));
const UNDECODABLE: Outcome = Noticed("undecodable", (FAULTS_TOTAL, "undecodable"));
/// What could not be decoded is missing.
const UNDECODABLE_GAP: Outcome = Noticed("gap", (FAULTS_TOTAL, "undecodable"));
const UNDECODABLE_CHECKSUM: Outcome = Noticed("checksum", (FAULTS_TOTAL, "undecodable"));
const ENDED: Outcome = Noticed("stale", (DISCONNECTS_TOTAL, "error"));
const MUTE: Outcome = Noticed("stale", (DISCONNECTS_TOTAL, "silent"));

/// Every fault at every venue. The frame is one of a book, where nothing else is said.
pub(crate) const FAULTS: [(usize, &str, Outcome); 87] = [
    (0, "drop:150", CHECKSUM),
    (0, "reorder:150", CHECKSUM),
    (0, "double:100", Harmless),
    (0, "disconnect:100", ENDED),
    (0, "stall:100", MUTE),
    (0, "corrupt:150", UNDECODABLE_CHECKSUM),
    (0, "alter:150", CHECKSUM),
    (2, "drop:300", GAP),
    (2, "reorder:300", GAP),
    (2, "double:300", Harmless),
    (2, "disconnect:300", ENDED),
    (2, "stall:300", MUTE),
    (2, "corrupt:300", UNDECODABLE_GAP),
    // A digit of its number, and one of a size.
    (2, "alter:222", GAP),
    (2, "alter:188", Unproven(Integrity::Sequenced)),
    (3, "drop:100", GAP),
    (3, "reorder:100", GAP),
    (3, "double:100", Harmless),
    (3, "disconnect:100", ENDED),
    (3, "stall:100", MUTE),
    (3, "corrupt:100", UNDECODABLE_GAP),
    // A digit of its number, and one of the best bid's size, of which `bookTicker` says another.
    (3, "alter:69", GAP),
    (3, "alter:98", MISMATCH),
    (4, "drop:504", Unproven(Integrity::None)),
    // A trade.
    (4, "drop:2438", GAP),
    (4, "reorder:504", Unproven(Integrity::None)),
    (4, "double:500", Harmless),
    (4, "disconnect:500", ENDED),
    (4, "stall:500", MUTE),
    (4, "corrupt:500", UNDECODABLE),
    // A size.
    (4, "alter:504", Unproven(Integrity::None)),
    (6, "drop:600", GAP),
    // The third after it is the next one of the same book.
    (6, "reorder:600+3", GAP),
    (6, "double:600", Harmless),
    (6, "disconnect:600", ENDED),
    (6, "stall:600", MUTE),
    (6, "corrupt:600", UNDECODABLE_GAP),
    (8, "drop:300", CHECKSUM),
    // The seventh after it is the next one of the same book.
    (8, "reorder:240+7", CHECKSUM),
    (8, "double:300", Harmless),
    (8, "disconnect:300", ENDED),
    (8, "stall:300", MUTE),
    (8, "corrupt:300", UNDECODABLE_CHECKSUM),
    (8, "alter:300", CHECKSUM),
    (9, "drop:1883", GAP),
    (9, "reorder:1883", GAP),
    (9, "double:1883", Harmless),
    (9, "disconnect:1883", ENDED),
    (9, "stall:1883", MUTE),
    (9, "corrupt:1883", UNDECODABLE_GAP),
    (10, "drop:104", GAP),
    (10, "reorder:104", GAP),
    (10, "double:104", Harmless),
    (10, "disconnect:104", ENDED),
    (10, "stall:104", MUTE),
    (10, "corrupt:104", UNDECODABLE_GAP),
    (11, "drop:28", GAP),
    (11, "reorder:28", GAP),
    (11, "double:28", Harmless),
    (11, "disconnect:28", ENDED),
    (11, "stall:28", MUTE),
    (11, "corrupt:28", UNDECODABLE_GAP),
    (12, "drop:643", GAP),
    (12, "reorder:643", GAP),
    (12, "double:643", Harmless),
    (12, "disconnect:643", ENDED),
    (12, "stall:643", MUTE),
    (12, "corrupt:643", UNDECODABLE_GAP),
    (13, "drop:837", Unproven(Integrity::Ordered)),
    // Two sizes change places: nothing numbers the frames, and each row is known. A row is changed before it comes: it is
    // not known.
    (13, "reorder:837", Unproven(Integrity::Ordered)),
    (13, "reorder:1148", GAP),
    (13, "double:837", Harmless),
    (13, "disconnect:837", ENDED),
    (13, "stall:837", MUTE),
    (13, "corrupt:837", UNDECODABLE),
    (14, "drop:348", Unproven(Integrity::Ordered)),
    // What comes out of order is noticed by its time, once the later one was shown.
    (14, "reorder:348", Late(Integrity::Ordered, ("gap", (FAULTS_TOTAL, "gap")))),
    (14, "double:348", Harmless),
    (14, "disconnect:348", ENDED),
    (14, "stall:348", MUTE),
    (14, "corrupt:348", UNDECODABLE),
    // Market Data v2 proves nothing, and has no way to ask for one book again: the levels come right when they are told
    // anew. What is subscribed to today is numbered (`feeds` tests that with the synthetic market).
    (15, "drop:165", Unproven(Integrity::None)),
    (15, "reorder:164", Unproven(Integrity::None)),
    (15, "double:103", Harmless),
    (15, "disconnect:103", ENDED),
    (15, "stall:103", MUTE),
    (15, "corrupt:103", UNDECODABLE),
];

/// A recording is played, and what was spoilt in it mended, within so long, or the test fails.
const LONGEST: Duration = Duration::from_secs(120);

/// Five pings of the stand-in's.
const SILENCE_MS: u64 = 5_000;

/// What a reader of the live feed saw.
struct Seen {
    received: Received,
    reasons: BTreeSet<String>,
    states: BTreeMap<String, State>,
    integrity: BTreeSet<&'static str>,
}

/// Plays a recording as its venue, and reads until every book is live and where the recording leaves it.
async fn watch(path: PathBuf, venue: &'static str, speed: Speed, faults: &[&str]) -> Result<Seen, String> {
    let expected = independent::read(&path, venue);
    let injections = faults.iter().map(|text| text.parse().expect("a fault")).collect();
    let config =
        StandInConfig { listen: FREE, paths: vec![path], synthetic: None, speed, repeat: false, injections, seed: 2 };
    let server = Server::bind(config).await.map_err(|e| e.to_string())?;
    let at = server.local_addr();
    let rig = Rig::start(ticker_edge::Config { backlog_events_max: 1 << 20, ..Default::default() }).await;
    let playing = tokio::spawn(server.run(rig.drain.clone()));
    // Some venues are silent for a minute, and nobody waits so long for a test.
    let silence_ms = faults.iter().any(|fault| fault.starts_with("stall")).then_some(SILENCE_MS);
    let particular = VenueConfig {
        connection: ConnectionConfig { silence_ms, ..Default::default() },
        symbols: expected.keys().cloned().collect(),
        websocket_url: Some(format!("ws://{at}")),
        rest_url: Some(format!("http://{at}")),
    };
    rig.ingest(ticker_ingest::Config {
        venues: vec![venue.to_owned()],
        venue: BTreeMap::from([(venue.to_owned(), particular)]),
        ..Default::default()
    });
    let mut seen = Seen {
        received: Received::expecting(&expected, venue),
        reasons: BTreeSet::new(),
        states: BTreeMap::new(),
        integrity: BTreeSet::new(),
    };
    seen.received.board.joining();
    let mut reader = connect(rig.options(Over::Ws), everything(venue)).await.map_err(|e| e.to_string())?;
    // Over all, since there are heartbeats where nothing happens any more.
    let deadline = tokio::time::Instant::now() + LONGEST;
    while !seen.has_arrived(&expected, faults.is_empty()) {
        let next = tokio::time::timeout_at(deadline, reader.next()).await;
        let message = next.map_err(|_| format!("not after {LONGEST:?}: {}", seen.place(&expected)))?;
        let message = message.map_err(|e| e.to_string())?.ok_or("it ended")?;
        seen.take(&message)?;
    }
    rig.stop().await;
    playing.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    Ok(seen)
}

impl Seen {
    fn take(&mut self, message: &Message) -> Result<(), String> {
        if let Message::Event(part) = message {
            let symbol = part.event.topic.symbol.to_string();
            match &part.event.data {
                Data::Invalid(reason) if part.event.topic.channel == Channel::Book => {
                    self.reasons.insert(reason.to_string());
                }
                Data::Status(status) => {
                    // Which protocol is spoken may show with the first frame only.
                    if status.state == State::Live {
                        self.integrity.insert(status.integrity.as_str());
                    }
                    self.states.insert(symbol, status.state);
                }
                _ => {}
            }
        }
        self.received.take(message)
    }

    fn has_arrived(&self, expected: &BTreeMap<String, Expected>, with_trades: bool) -> bool {
        expected.iter().all(|(symbol, expected)| {
            let trades = self.received.trades.get(symbol).map_or(0, Vec::len);
            let last = self.received.sums.get(symbol).and_then(|sums| sums.last());
            let has_trades = !with_trades || trades >= expected.trades.len() || expected.only_aggregates;
            has_trades && last == expected.sums.last() && self.states.get(symbol) == Some(&State::Live)
        })
    }

    fn place(&self, expected: &BTreeMap<String, Expected>) -> String {
        let of = |symbol: &String| {
            let sums = self.received.sums.get(symbol).map_or(0, Vec::len);
            let trades = self.received.trades.get(symbol).map_or(0, Vec::len);
            let wanted = &expected[symbol];
            format!(
                "{symbol} {:?}, {sums} of {} states, {trades} of {} trades",
                self.states.get(symbol),
                wanted.sums.len(),
                wanted.trades.len()
            )
        };
        expected.keys().map(of).collect::<Vec<_>>().join("; ")
    }
}

/// Without faults: every trade once and in order, every state of every book.
pub(crate) async fn without_faults(path: PathBuf, venue: &'static str, speed: Speed) -> Result<(), String> {
    let expected = independent::read(&path, venue);
    let seen = watch(path, venue, speed, &[]).await?;
    if !seen.reasons.is_empty() {
        return Err(format!("books were invalid: {:?}", seen.reasons));
    }
    for (symbol, expected) in &expected {
        let sums = &seen.received.sums[symbol];
        // A book that is fetched begins where the answer finds it; from there on nothing is missing.
        let whole = if independent::is_fetched(venue) { expected.sums.ends_with(sums) } else { *sums == expected.sums };
        if !whole {
            let same = sums.iter().rev().zip(expected.sums.iter().rev()).take_while(|(a, b)| a == b).count();
            return Err(format!(
                "{symbol}: {} states of the book, the recording has {}; the last {same} are the same",
                sums.len(),
                expected.sums.len()
            ));
        }
        let trades = seen.received.trades.get(symbol).cloned().unwrap_or_default();
        if trades != expected.trades && !expected.only_aggregates {
            return Err(format!("{symbol}: {} trades, the recording has {}", trades.len(), expected.trades.len()));
        }
        if venue == "kraken" && seen.received.checksums.get(symbol) != Some(&expected.checksums) {
            return Err(format!("{symbol}: the venue's checksum and that of the reader's book differ"));
        }
    }
    Ok(())
}

/// With a fault: it is told by its reason, counted by its cause and mended, and nothing that was shown was wrong. Where the
/// venue's rule cannot show it, `integrity` says so.
pub(crate) async fn with_fault(
    path: PathBuf,
    (venue, speed): (&'static str, Speed),
    (fault, outcome): (&'static str, Outcome),
    metrics: &PrometheusHandle,
) -> Result<(), String> {
    let expected = independent::read(&path, venue);
    let seen = watch(path, venue, speed, &[fault]).await?;
    let told: Vec<&str> = seen.reasons.iter().map(String::as_str).collect();
    let noticed = if let Noticed(reason, counted) | Late(_, (reason, counted)) = outcome {
        Some((reason, counted))
    } else {
        None
    };
    let reason = noticed.map(|(reason, _)| reason);
    if !told.iter().copied().eq(reason) {
        return Err(format!("told {told:?}, expected {reason:?}"));
    }
    let counted = metrics.render();
    if let Some((_, (metric, cause))) = noticed
        && !counted.lines().any(|line| line.starts_with(metric) && line.contains(&format!("cause=\"{cause}\"")))
    {
        return Err(format!("no {metric} of the cause {cause} was counted"));
    }
    let faults: Vec<&str> = counted.lines().filter(|line| line.starts_with(FAULTS_TOTAL)).collect();
    if matches!(outcome, Unproven(_)) && !faults.is_empty() {
        return Err(format!("counted {faults:?}"));
    }
    let mut wrong = None;
    for (symbol, expected) in &expected {
        let mut rest = expected.sums.iter();
        let sums = &seen.received.sums[symbol];
        if let Some(at) = sums.iter().position(|sum| !rest.any(|s| s == sum)) {
            wrong.get_or_insert(format!("{symbol}: state {at} of {} is not one of the recording", sums.len()));
        }
    }
    match (outcome, wrong) {
        (Unproven(integrity) | Late(integrity, _), Some(_)) if seen.integrity.iter().eq([&integrity.as_str()]) => {
            Ok(())
        }
        (Unproven(_) | Late(..), Some(_)) => Err(format!("integrity is {:?}", seen.integrity)),
        (Unproven(_) | Late(..), None) => Err("the fault changed nothing".to_owned()),
        (_, Some(wrong)) => Err(wrong),
        (_, None) => Ok(()),
    }
}
