//! From a venue's own protocol to readers: a stand-in plays a recording over a real socket to an ingest service that
//! takes it for the venue. Faults on the way are noticed, and no state of a book is shown that the recording does not have.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use ticker_client::{Over, connect};
use ticker_ingest::config::{Speed, VenueConfig};
use ticker_ingest::stand_in::{Server, StandInConfig};
use ticker_market::{Channel, Data, State};
use ticker_proto::Message;

use crate::independent::{self, Expected};
use crate::rig::{FREE, Rig};
use crate::{PATIENCE, Received, everything};

/// Recordings that are played as venues, and how fast: Binance's books begin with a request, which takes a moment.
pub(crate) const PLAYED: [(&str, &str, Speed); 4] = [
    ("kraken", "kraken-v2/2026-08-01_btcusd_book_l2.jsonl.zst", Speed::Max),
    ("kraken", "kraken-v2/2026-08-02_xrpusd_book_sample.jsonl.zst", Speed::Max),
    ("coinbase", "coinbase-advanced/2026-08-09_BTC-ETH_l2_ticker_trades_candles_heartbeats.jsonl.zst", Speed::Max),
    ("binance", "binance-spot/2021-10-12_4sym_depth_bookTicker_kline_aggTrade.jsonl.zst", Speed::Times(20.0)),
];

/// Faults, and the reason with which they are told to readers; `None` where the venue's protocol makes them harmless.
pub(crate) const FAULTS: [(usize, &str, Option<&str>); 12] = [
    (0, "drop:150", Some("checksum")),
    (0, "reorder:150", Some("checksum")),
    (0, "double:100", None),
    (0, "disconnect:100", Some("stale")),
    (0, "stall:100", Some("stale")),
    (0, "corrupt:150", Some("checksum")),
    (2, "drop:300", Some("gap")),
    (2, "double:300", None),
    (2, "disconnect:300", Some("stale")),
    (3, "drop:100", Some("gap")),
    (3, "double:100", None),
    (3, "disconnect:100", Some("stale")),
];

/// What a reader of the live feed saw.
struct Seen {
    received: Received,
    reasons: BTreeSet<String>,
    states: BTreeMap<String, State>,
}

/// Plays a recording as its venue, and reads until every book is live and where the recording leaves it.
async fn watch(path: PathBuf, venue: &'static str, speed: Speed, faults: &[&str]) -> Result<Seen, String> {
    let expected = independent::read(&path, venue);
    let injections = faults.iter().map(|text| text.parse().expect("a fault")).collect();
    let config =
        StandInConfig { listen: FREE, paths: vec![path], synthetic: None, speed, repeat: false, injections, seed: 1 };
    let server = Server::bind(config).await.map_err(|e| e.to_string())?;
    let at = server.local_addr();
    let rig = Rig::start(ticker_edge::Config { backlog_events_max: 1 << 20, ..Default::default() }).await;
    let playing = tokio::spawn(server.run(rig.drain.clone()));
    let particular = VenueConfig {
        symbols: expected.keys().cloned().collect(),
        websocket_url: Some(format!("ws://{at}")),
        rest_url: Some(format!("http://{at}")),
        ..VenueConfig::default()
    };
    rig.ingest(ticker_ingest::Config {
        venues: vec![venue.to_owned()],
        venue: BTreeMap::from([(venue.to_owned(), particular)]),
        ..Default::default()
    });
    let mut seen =
        Seen { received: Received::expecting(&expected, venue), reasons: BTreeSet::new(), states: BTreeMap::new() };
    seen.received.board.joining();
    let mut reader = connect(rig.options(Over::Ws), everything(venue)).await.map_err(|e| e.to_string())?;
    while !seen.has_arrived(&expected, faults.is_empty()) {
        let next = tokio::time::timeout(PATIENCE, reader.next()).await;
        let message = next.map_err(|_| format!("nothing for {PATIENCE:?}: {}", seen.place(&expected)))?;
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
                Data::Status(status) => _ = self.states.insert(symbol, status.state),
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
        let whole = if venue == "binance" { expected.sums.ends_with(sums) } else { *sums == expected.sums };
        if !whole {
            return Err(format!(
                "{symbol}: {} states of the book, the recording has {}",
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

/// With a fault: it is told by its reason, mended, and nothing that was shown was wrong.
pub(crate) async fn with_fault(
    path: PathBuf,
    (venue, speed): (&'static str, Speed),
    (fault, reason): (&'static str, Option<&'static str>),
) -> Result<(), String> {
    let expected = independent::read(&path, venue);
    let seen = watch(path, venue, speed, &[fault]).await?;
    let told: Vec<&str> = seen.reasons.iter().map(String::as_str).collect();
    if !told.iter().copied().eq(reason) {
        return Err(format!("told {told:?}, expected {reason:?}"));
    }
    for (symbol, expected) in &expected {
        let mut rest = expected.sums.iter();
        let sums = &seen.received.sums[symbol];
        if let Some(at) = sums.iter().position(|sum| !rest.any(|s| s == sum)) {
            return Err(format!("{symbol}: state {at} of {} is not one of the recording, in its order", sums.len()));
        }
    }
    Ok(())
}
