//! What is derived from trades, quotes and time: bars, statistics, the consolidated quote.

use std::collections::BTreeMap;

use ticker_client::{Options, Subscription};
use ticker_market::{Bar, Data, Decimal, Event, Integrity, Kind, Level, Quote, State, Status, Time};
use ticker_proto::Notice;

use crate::rig::{Setup, Stage, of};
use crate::screen::{Got, Screen};
use crate::transport::{TRANSPORTS, Transport};

const TRADE: &str = "trade/alpha/A-USD";
const BAR: &str = "bar-1s/alpha/A-USD";
const MINUTE: &str = "bar-1m/alpha/A-USD";

const SECOND: i64 = 1_000_000_000;

/// A moment at the beginning of an hour: time goes on with what is published.
const HOUR: Time = Time(1_786_309_200 * SECOND);

async fn stage(transport: &'static Transport) -> Stage {
    let mut stage = Stage::with(transport, Setup { recorded: true, ..Setup::default() }).await;
    stage.source.time = HOUR;
    stage
}

/// So many trades, a third of a second apart.
async fn trade(stage: &mut Stage, count: usize) {
    for _ in 0..count {
        stage.source.time = stage.source.time.plus_millis(334);
        let trade = stage.source.trade();
        stage.source.put(TRADE, Kind::Update, trade).await;
    }
}

fn bar_of(event: &Event) -> Bar {
    match &event.data {
        Data::Bar(bar) => bar.clone(),
        other => panic!("{other:?}"),
    }
}

fn closed<'a>(got: impl IntoIterator<Item = &'a Got>, topic: &str) -> Vec<Bar> {
    let events = got.into_iter().map(|g| &g.event).filter(|e| e.is_closed_bar() && e.topic.to_string() == topic);
    events.map(bar_of).collect()
}

/// What is known of a bar without its average: start, trades, open, high, low, close, volume.
type Row = (Time, u64, [Decimal; 4], Decimal);

fn row(bar: &Bar) -> Row {
    (bar.start, bar.trades, [bar.open, bar.high, bar.low, bar.close], bar.volume)
}

/// The bars of the trades that were published, made plainly.
fn rebuilt(stage: &Stage) -> BTreeMap<Time, Row> {
    let mut bars: BTreeMap<Time, Row> = BTreeMap::new();
    for event in stage.source.record.of(TRADE) {
        let Data::Trade(trade) = &event.data else { panic!("a trade") };
        let at = event.ts.expect("told").0;
        let start = Time(at - at % SECOND);
        let (price, size) = (trade.price, trade.size);
        let (_, trades, [_, high, low, close], volume) =
            bars.entry(start).or_insert((start, 0, [price; 4], Decimal::ZERO));
        *trades += 1;
        (*high, *low, *close) = (price.max(*high), price.min(*low), price);
        *volume += size;
    }
    bars
}

/// The time of the last bar that is sure to be closed.
fn closed_until(stage: &Stage) -> Time {
    let now = stage.source.time.0;
    Time(now - now % SECOND - 3 * SECOND)
}

/// Closed bars come once, in order, none missing, whichever transport goes on with the cursor; and they are what the trades
/// make of them.
pub(crate) async fn closed_bars(transport: &'static Transport) {
    let mut stage = stage(transport).await;
    let mut from = Some(stage.source.record.cursor());
    let mut all = Vec::new();
    let at = TRANSPORTS.iter().position(|t| t.name == transport.name).expect("it is in the table");
    for next in TRANSPORTS.iter().cycle().skip(at).take(4) {
        trade(&mut stage, 15).await;
        let topics = [BAR, TRADE];
        let mut screen = Screen::open(stage.options_of(next), Subscription { from: from.take(), ..of(&topics) }).await;
        trade(&mut stage, 15).await;
        let last = closed_until(&stage);
        screen.until("a closed bar", |s| closed(&s.got, BAR).last().is_some_and(|b| b.start >= last)).await;
        assert_eq!(screen.gaps(), [], "over {}", next.name);
        let (cursor, got) = screen.die();
        from = Some(cursor);
        all.extend(got);
    }
    let mut screen = Screen::open(stage.options(), Subscription { from, ..of(&[BAR]) }).await;
    trade(&mut stage, 10).await;
    let last = closed_until(&stage);
    screen.until("the last closed bar", |s| closed(&s.got, BAR).last().is_some_and(|b| b.start >= last)).await;
    all.extend(std::mem::take(&mut screen.got));
    let bars = closed(&all, BAR);
    let starts: Vec<Time> = bars.iter().map(|b| b.start).collect();
    let whole: Vec<Time> = (0..bars.len() as i64).map(|n| HOUR.plus_nanos(n * SECOND)).collect();
    assert_eq!(starts, whole, "each once, in order, none missing");
    let rebuilt = rebuilt(&stage);
    for bar in &bars {
        assert_eq!(rebuilt.get(&bar.start), Some(&row(bar)));
    }
    drop(screen);
    stage.stop().await;
}

/// A running bar begins with a snapshot and comes to what the trades make of it; one event of it is enough.
pub(crate) async fn running_bars(transport: &'static Transport) {
    let mut stage = stage(transport).await;
    trade(&mut stage, 10).await;
    let mut screen = stage.watch(&[MINUTE, "stats/alpha/A-USD"]).await;
    screen.until("both", |s| s.board.topics().count() == 2).await;
    assert!(screen.got.iter().all(|g| g.event.kind == Kind::Snapshot), "they begin so");
    trade(&mut stage, 30).await;
    let trades = |s: &Screen, topic: &str| {
        s.board.last(&topic.parse().expect("a topic")).map_or(0, |e| match &e.data {
            Data::Bar(bar) => bar.trades,
            Data::Stats(stats) => stats.trades,
            other => panic!("{other:?}"),
        })
    };
    // Each is a third of a second after the one before: all are told.
    screen.until("all trades", |s| trades(s, MINUTE) == 40 && trades(s, "stats/alpha/A-USD") == 40).await;
    let bar = bar_of(screen.board.last(&MINUTE.parse().expect("a topic")).expect("it is there"));
    assert_eq!((bar.start, bar.closed), (HOUR, false));
    let volume: Decimal = rebuilt(&stage).values().map(|(.., volume)| *volume).sum();
    assert_eq!(bar.volume, volume);
    drop(screen);
    stage.stop().await;
}

/// `recent` gives closed bars of the past, then the running one, and goes on.
pub(crate) async fn past_bars(transport: &'static Transport) {
    let mut stage = stage(transport).await;
    trade(&mut stage, 60).await;
    let mut screen = stage.open(Subscription { recent: Some(5), ..of(&[BAR]) }).await;
    screen.until("the running one", |s| s.got.iter().any(|g| g.event.kind == Kind::Snapshot)).await;
    if !transport.is_polled() {
        screen.until_notice("subscribed", |n| matches!(n, Notice::Subscribed { .. })).await;
    }
    let past = closed(&screen.got, BAR);
    assert_eq!(past.len(), 5);
    trade(&mut stage, 12).await;
    let last = closed_until(&stage);
    screen.until("a closed bar", |s| closed(&s.got, BAR).last().is_some_and(|b| b.start >= last)).await;
    let bars = closed(&screen.got, BAR);
    assert!(bars.windows(2).all(|w| w[1].start.since(w[0].start) == SECOND), "one after the other");
    let rebuilt = rebuilt(&stage);
    assert!(bars.iter().all(|b| rebuilt.get(&b.start) == Some(&row(b))));
    drop(screen);
    history(&stage, &rebuilt).await;
    stage.stop().await;
}

/// The history over HTTP, page by page, is that of the trades.
async fn history(stage: &Stage, rebuilt: &BTreeMap<Time, Row>) {
    let options = Options { http: stage.edge_url(), ..Options::default() };
    let get = async |path: String| {
        let answer = ticker_client::http::get(&options, &path).await.expect("an answer");
        let value: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        (answer.status, value)
    };
    let (mut starts, mut trades, mut cursor) = (Vec::new(), 0, String::new());
    loop {
        let query = format!("interval=1s&start={}&limit=7{cursor}", HOUR.micros());
        let (status, page) = get(format!("/v1/bars/alpha/A-USD?{query}")).await;
        assert_eq!(status, 200, "{page}");
        for bar in page["bars"].as_array().expect("a list") {
            starts.push(Time::from_micros(bar["start"].as_i64().expect("a time")));
            trades += bar["trades"].as_u64().expect("a number");
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let expected: Vec<&Row> = rebuilt.values().take(starts.len()).collect();
    assert!(starts.len() > 20);
    assert_eq!(starts, expected.iter().map(|r| r.0).collect::<Vec<_>>());
    assert_eq!(trades, expected.iter().map(|r| r.1).sum::<u64>());
    let (_, page) = get(format!("/v1/trades/alpha/A-USD?end={}", HOUR.plus_nanos(SECOND).micros())).await;
    assert_eq!(page["trades"].as_array().map(Vec::len), Some(2), "of the first second: {page}");
    for (path, status) in [
        ("/v1/bars/alpha/A-USD?interval=2m", 400),
        ("/v1/bars/alpha/A-USD", 400),
        ("/v1/bars/alpha/X-USD?interval=1m", 404),
        ("/v1/bars/best/A-USD?interval=1m", 404),
        ("/v1/trades/alpha/A-USD?start=now", 400),
        ("/v1/trades/alpha/A-USD?from=5", 400),
        ("/v1/trades/alpha/A-USD?start=2000000&end=1000000", 400),
    ] {
        let (got, problem) = get(path.to_owned()).await;
        assert_eq!((got, problem["status"].as_u64()), (status, Some(u64::from(status))), "{path}: {problem}");
    }
}

/// The consolidated quote names the best venue of each side, and drops one the moment that it is not live.
pub(crate) async fn best(transport: &'static Transport) {
    let mut stage = Stage::start(transport).await;
    stage.source.announce_at("beta", "A-USD").await;
    let quote = |bid: i64, ask: i64| {
        let level = |price| Some(Level { price: Decimal::from(price), size: Decimal::ONE });
        Data::Quote(Quote { bid: level(bid), ask: level(ask), ..Quote::default() })
    };
    let status = |state| Data::Status(Status { state, integrity: Integrity::None, reason: None, last_verified: None });
    for venue in ["alpha", "beta"] {
        stage.source.put(&format!("status/{venue}/A-USD"), Kind::Update, status(State::Live)).await;
    }
    stage.source.put("quote/alpha/A-USD", Kind::Update, quote(99, 103)).await;
    stage.source.put("quote/beta/A-USD", Kind::Update, quote(98, 102)).await;
    let topic = "quote/best/A-USD";
    let mut screen = stage.watch(&[topic, "status/alpha/A-USD"]).await;
    let venues = |s: &Screen| match s.board.last(&topic.parse().expect("a topic")).map(|e| e.data.clone()) {
        Some(Data::Quote(q)) => (q.bid_venue.unwrap_or_default(), q.ask_venue.unwrap_or_default()),
        _ => Default::default(),
    };
    screen.until("both venues", |s| venues(s) == ("alpha".into(), "beta".into())).await;
    let seq = stage.source.put("status/alpha/A-USD", Kind::Update, status(State::Stale)).await;
    screen.until("without the stale one", |s| venues(s) == ("beta".into(), "beta".into())).await;
    let last = screen.board.last(&topic.parse().expect("a topic")).expect("it is there");
    assert_eq!(last.seq, seq, "it has the place of its cause");
    stage.source.put("status/alpha/A-USD", Kind::Update, status(State::Live)).await;
    screen.until("both again", |s| venues(s) == ("alpha".into(), "beta".into())).await;
    is_listed(&stage).await;
    drop(screen);
    stage.stop().await;
}

/// The consolidated venue is listed beside those that it is made of, with as many instruments as it has.
async fn is_listed(stage: &Stage) {
    let options = Options { http: stage.edge_url(), ..Options::default() };
    let get = async |path: &str| -> serde_json::Value {
        let answer = ticker_client::http::get(&options, path).await.expect("an answer");
        serde_json::from_slice(&answer.body).expect("JSON")
    };
    let listed = get("/v1/venues").await;
    let venues = listed["venues"].as_array().expect("a list");
    let names: Vec<&str> = venues.iter().filter_map(|venue| venue["venue"].as_str()).collect();
    assert_eq!(names, ["alpha", "best", "beta"]);
    let instruments = get("/v1/instruments?venue=best").await;
    let count = instruments["instruments"].as_array().map(Vec::len);
    assert_eq!(venues[1]["instruments"].as_u64(), count.map(|n| n as u64), "{listed}");
    assert!(venues[1]["states"].as_object().is_some_and(serde_json::Map::is_empty), "its venues have states: {listed}");
}
