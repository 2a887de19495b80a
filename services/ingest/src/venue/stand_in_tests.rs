//! A live venue's connections against its stand-in, over real sockets, by the venue's own adapter.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Mutex;

use prost::Message as _;
use ticker_market::{Book, Channel, Data, Kind, State, Topic};
use ticker_proto::{convert, v1};
use ticker_runtime::Health;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use super::*;
use crate::config::{Speed, SyntheticConfig};
use crate::feed::{Bundle, Intake, Numbers};
use crate::progress::{Progress, SourceKind};
use crate::stand_in::{Server, StandInConfig};

/// The venue's adapter, with what it hears and finds wrong written down.
struct Watched {
    adapter: Box<dyn Adapter>,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Watched {
    fn hear(&self, what: String) {
        self.heard.lock().expect("not poisoned").push(what);
    }

    fn found(&self, out: &Out, before: usize) {
        out.reports[before..].iter().for_each(|report| self.hear(format!("fault {}", report.fault.as_str())));
    }
}

impl Adapter for Watched {
    fn rules(&self) -> Rules {
        self.adapter.rules()
    }

    fn opened(&mut self, conn: Conn, url: &str, now: Time, out: &mut Out) {
        self.hear(format!("opened {}", conn.0));
        self.adapter.opened(conn, url, now, out);
    }

    fn frame(&mut self, conn: Conn, bytes: &[u8], recv: Time, out: &mut Out) {
        let before = out.reports.len();
        self.adapter.frame(conn, bytes, recv, out);
        self.found(out, before);
    }

    fn response(&mut self, url: &str, body: &[u8], recv: Time, out: &mut Out) {
        let before = out.reports.len();
        self.adapter.response(url, body, recv, out);
        self.found(out, before);
    }

    fn failed(&mut self, url: &str, now: Time, out: &mut Out) {
        self.adapter.failed(url, now, out);
    }

    fn closed(&mut self, conn: Conn, reason: &str, now: Time, out: &mut Out) {
        self.hear(format!("closed {} {reason}", conn.0));
        self.adapter.closed(conn, reason, now, out);
    }

    fn silent(&mut self, conn: Conn, now: Time, out: &mut Out) {
        self.adapter.silent(conn, now, out);
    }

    fn next_timer(&self) -> Option<Time> {
        self.adapter.next_timer()
    }

    fn timer(&mut self, now: Time, out: &mut Out) {
        let before = out.reports.len();
        self.adapter.timer(now, out);
        self.found(out, before);
    }

    fn retell(&self, now: Time, out: &mut Out) {
        self.adapter.retell(now, out);
    }

    fn end(&mut self, reason: &str, now: Time, out: &mut Out) {
        self.adapter.end(reason, now, out);
    }
}

/// What a reader makes of one instrument.
#[derive(Default)]
struct Seen {
    /// None while it is not to be trusted.
    book: Option<Book>,
    book_changes: u32,
    invalid: u32,
    state: Option<State>,
    trades: Vec<String>,
}

struct Stage {
    bundles: mpsc::Receiver<Bundle>,
    /// The publisher's: without it the venue ends.
    _retell: watch::Sender<u64>,
    heard: Arc<Mutex<Vec<String>>>,
    drain: Drain,
    running: JoinHandle<Result<(), IngestError>>,
    playing: JoinHandle<Result<(), IngestError>>,
    names: BTreeMap<u32, String>,
    seen: BTreeMap<String, Seen>,
}

impl Stage {
    async fn new(venue: &str, paths: Vec<PathBuf>, symbols: &[&str], config: ConnectionConfig) -> Self {
        Self::with_faults(venue, paths, symbols, config, &[]).await
    }

    async fn with_faults(
        venue: &str,
        paths: Vec<PathBuf>,
        symbols: &[&str],
        config: ConnectionConfig,
        faults: &[&str],
    ) -> Self {
        let injections = faults.iter().map(|fault| fault.parse().expect("a fault")).collect();
        let market = SyntheticConfig { instruments: 2, updates_per_second: 200, seed: 5 };
        let synthetic = paths.is_empty().then(|| (venue.to_owned(), market));
        let listen = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        let (speed, repeat, seed) = (Speed::Times(1.0), false, 1);
        let server = StandInConfig { listen, paths, synthetic, speed, repeat, injections, seed };
        let server = Server::bind(server).await.expect("a free port");
        let at = server.local_addr();
        let drain = Drain::new();
        let playing = tokio::spawn({
            let drain = drain.clone();
            async move { server.run(drain).await }
        });
        let symbols: Vec<String> = symbols.iter().map(|s| (*s).to_owned()).collect();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let adapter = ticker_feeds::adapter(venue, &symbols).expect("a venue of ours");
        let adapter = Box::new(Watched { adapter, heard: Arc::clone(&heard) });
        let (queue, bundles) = mpsc::channel(64);
        let (retell, wanted) = watch::channel(0);
        let room_bytes = 8 << 20;
        let room = Arc::new(Semaphore::new(room_bytes));
        let intake = Intake { queue, room, room_bytes, numbers: Arc::new(Numbers::default()), retell: wanted };
        let source = Progress::new().source(venue, SourceKind::Venue);
        let venues = Arc::new(VenuesHealth::new(Health::new().component("venues")));
        let url = |scheme: &str| Some(format!("{scheme}://{at}").parse::<Uri>().expect("a URL"));
        let servers = Servers { websocket: url("ws"), rest: url("http") };
        let tls = fetch::tls().expect("ring is there");
        let venue = Venue::new(adapter, servers, tls, intake.feed(source.clone()), source, venues).configured(config);
        let running = tokio::spawn(venue.run(drain.clone()));
        let (names, seen) = (BTreeMap::new(), BTreeMap::new());
        Self { bundles, _retell: retell, heard, drain, running, playing, names, seen }
    }

    /// Reads on until that is so.
    async fn until(&mut self, is_so: impl Fn(&Self) -> bool) {
        while !is_so(self) {
            let bundle = tokio::time::timeout(Duration::from_secs(30), self.bundles.recv()).await;
            let Some(bundle) = bundle.unwrap_or_else(|_| panic!("nothing came: {:?}", self.heard())) else {
                panic!("the venue runs")
            };
            let request = v1::PublishRequest::decode(bundle.fields).expect("encoded");
            for listed in request.instruments {
                self.names.insert(listed.number, listed.instrument.expect("set").symbol);
            }
            for event in request.events {
                self.take(event);
            }
        }
    }

    fn take(&mut self, event: v1::NewEvent) {
        let channel = Channel::from_name(&event.channel).expect("a channel");
        let topic = Topic { channel, venue: "x".into(), symbol: "X".into() };
        let wire = event.event.expect("set");
        let event_of = convert::event_from_wire(Arc::new(topic), wire).expect("encoded by ourselves");
        let seen = self.seen.entry(self.names[&event.instrument].clone()).or_default();
        match (event_of.data, event_of.kind) {
            (Data::Invalid(_), _) if channel == Channel::Book => {
                seen.invalid += 1;
                seen.book = None;
            }
            (Data::Book(levels), Kind::Snapshot) => {
                seen.book.insert(Book::new()).replace(&levels).expect("a good book");
            }
            (Data::Book(levels), _) => {
                let book = seen.book.as_mut().expect("a snapshot came before");
                book.apply(&levels).expect("good changes");
                assert!(!book.is_crossed());
                seen.book_changes += 1;
            }
            (Data::Status(status), _) => seen.state = Some(status.state),
            (Data::Trade(trade), _) => seen.trades.push(trade.trade_id.to_string()),
            _ => {}
        }
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().expect("not poisoned").clone()
    }

    async fn end(self) {
        self.drain.start("test");
        drop(self.bundles);
        self.running.await.expect("does not panic").expect("ends well");
        self.playing.await.expect("does not panic").expect("ends well");
    }
}

/// Each connection is replaced by a newer one, twice, and nothing is missing or comes twice.
async fn replaced_by_age(venue: &str) {
    let config = ConnectionConfig { age_max_ms: Some(1_500), handover_ms: Some(1_300), ..ConnectionConfig::default() };
    let mut stage = Stage::new(venue, Vec::new(), &["BTC-USD", "ETH-USD"], config).await;
    let replaced = |stage: &Stage| stage.heard().iter().filter(|heard| heard.ends_with("replaced")).count();
    let changes = |stage: &Stage| stage.seen.values().map(|seen| seen.book_changes).sum::<u32>();
    stage.until(|stage| replaced(stage) >= 2).await;
    let before = changes(&stage);
    stage.until(|stage| changes(stage) > before + 20).await;
    let heard = stage.heard();
    assert!(!heard.iter().any(|heard| heard.starts_with("fault")), "{heard:?}");
    let place = |what: &str| heard.iter().position(|heard| heard == what);
    assert!(place("opened 1") < place("closed 0 replaced"), "the new one is there before: {heard:?}");
    assert_eq!(stage.seen.len(), 2);
    for (symbol, seen) in &stage.seen {
        assert_eq!((seen.invalid, seen.state), (0, Some(State::Live)), "{symbol}");
        // The market counts its trades: each came, and once.
        let ids: Vec<u64> = seen.trades.iter().map(|id| id.parse().expect("a number")).collect();
        assert!(ids.len() > 5 && ids.windows(2).all(|two| two[1] == two[0] + 1), "{symbol}: {ids:?}");
    }
    stage.end().await;
}

#[tokio::test]
async fn kraken_is_connected_anew_by_age_without_a_hole() {
    replaced_by_age("kraken").await;
}

#[tokio::test]
async fn coinbase_is_connected_anew_by_age_without_a_hole() {
    replaced_by_age("coinbase").await;
}

#[tokio::test]
async fn coinbase_exchange_is_connected_anew_by_age_without_a_hole() {
    replaced_by_age("coinbase-exchange").await;
}

#[tokio::test]
async fn okx_is_connected_anew_by_age_without_a_hole() {
    replaced_by_age("okx").await;
}

#[tokio::test]
async fn binance_is_connected_anew_by_age_without_a_hole() {
    replaced_by_age("binance").await;
}

#[tokio::test]
async fn bitfinex_is_connected_anew_by_age_without_a_hole() {
    replaced_by_age("bitfinex").await;
}

#[tokio::test]
async fn bitget_is_connected_anew_by_age_without_a_hole() {
    replaced_by_age("bitget").await;
}

#[tokio::test]
async fn bitmex_is_connected_anew_by_age_without_a_hole() {
    replaced_by_age("bitmex").await;
}

#[tokio::test]
async fn bitstamp_is_connected_anew_by_age_without_a_hole() {
    replaced_by_age("bitstamp").await;
}

#[tokio::test]
async fn bybit_spot_is_connected_anew_by_age_without_a_hole() {
    replaced_by_age("bybit-spot").await;
}

#[tokio::test]
async fn deribit_is_connected_anew_by_age_without_a_hole() {
    replaced_by_age("deribit").await;
}

#[tokio::test]
async fn gateio_is_connected_anew_by_age_without_a_hole() {
    replaced_by_age("gateio").await;
}

#[tokio::test]
async fn gemini_is_connected_anew_by_age_without_a_hole() {
    replaced_by_age("gemini").await;
}

#[tokio::test]
async fn kucoin_is_connected_anew_by_age_without_a_hole() {
    replaced_by_age("kucoin").await;
}

/// Some frames as a recording, after a list of instruments.
fn recording(venue: &str, (url, list): (&str, &str), frames: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let mut text = format!("{{\"t\":\"header\",\"format\":\"mdrec/1\",\"venue\":\"{venue}\"}}\n");
    let mut line = |t: &str, url: &str, data: &str| {
        text += &format!(
            "{{\"t\":\"{t}\",\"ts\":1785542400000000000,\"conn\":\"a\",\"url\":\"{url}\",\"data\":{data:?}}}\n"
        );
    };
    line("http", url, list.trim());
    let adapter = ticker_feeds::adapter(venue, &[]).expect("a venue of ours");
    line("connect", &adapter.rules().websocket_url, "");
    frames.iter().for_each(|frame| line("recv", "", frame));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.jsonl");
    std::fs::write(&path, text).expect("room");
    (folder, path)
}

/// A fault on the way is noticed by its cause, told, and the book is live again.
async fn mended(venue: &str, symbol: &str, list: (&str, &str), frames: &str, fault: &str, cause: Option<&str>) {
    let frames: Vec<&str> = frames.lines().take(6).collect();
    let (_folder, path) = recording(venue, list, &frames);
    let config = ConnectionConfig::default();
    let mut stage = Stage::with_faults(venue, vec![path], &[symbol], config, &[fault]).await;
    let is_mended = |stage: &Stage| {
        let noticed = cause.is_none_or(|cause| stage.heard().contains(&format!("fault {cause}")));
        let has_changed = |seen: &Seen| seen.book_changes > 0 || cause.is_some();
        let live = |seen: &Seen| seen.state == Some(State::Live) && seen.book.is_some() && has_changed(seen);
        let told =
            |seen: &Seen| seen.invalid == u32::from(fault.starts_with("drop") || fault.starts_with("disconnect"));
        noticed && stage.seen.get(symbol).is_some_and(|seen| live(seen) && told(seen))
    };
    stage.until(is_mended).await;
    stage.end().await;
}

/// Of the frames of these, the acknowledgement is not counted; then come a snapshot and a change of the book.
#[tokio::test]
async fn faults_in_frames_of_our_own_making_are_mended() {
    let deribit = (
        "https://www.deribit.com/api/v2/public/get_instruments?currency=any&expired=false",
        include_str!("../../../../feeds/fixtures/deribit/instruments.json"),
    );
    let bybit = (
        "https://api.bybit.com/v5/market/instruments-info?category=linear&limit=1000",
        include_str!("../../../../feeds/fixtures/bybit/instruments.json"),
    );
    let bitget = (
        "https://api.bitget.com/api/v2/spot/public/symbols",
        include_str!("../../../../feeds/fixtures/bitget/symbols.json"),
    );
    let venues = [
        ("deribit", "BTC-USD-PERP", deribit, include_str!("../../../../feeds/fixtures/deribit/session.jsonl")),
        ("bybit-linear", "BTC-USDT-PERP", bybit, include_str!("../../../../feeds/fixtures/bybit/session.jsonl")),
        ("bitget", "BTC-USDT", bitget, include_str!("../../../../feeds/fixtures/bitget/session.jsonl")),
    ];
    for (venue, symbol, list, frames) in venues {
        for (fault, cause) in [("drop:2", Some("gap")), ("disconnect:3", None), ("double:2", None)] {
            mended(venue, symbol, list, frames, fault, cause).await;
        }
    }
}
