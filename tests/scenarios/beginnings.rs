//! How subscriptions begin, and what they bring.

use std::cell::Cell;

use futures_util::future::join_all;
use ticker_client::{Options, Over, Subscription, connect};
use ticker_market::{Class, Data, Decimal, Kind, Topic, Trade};
use ticker_proto::message::{Subscribe, Unsubscribe};
use ticker_proto::{MESSAGE_BYTES_MAX, Message, Notice, Request};

use crate::rig::{PATIENCE, Setup, Stage, bounded, of};
use crate::screen::{Begun, Screen, lay};
use crate::transport::{At, TRANSPORTS, Transport};

/// Everything that happens to both instruments.
pub(crate) const ALL: [&str; 12] = [
    "quote/alpha/A-USD",
    "quote/alpha/B-USD",
    "trade/alpha/A-USD",
    "trade/alpha/B-USD",
    "status/alpha/A-USD",
    "status/alpha/B-USD",
    "book/alpha/A-USD",
    "book/alpha/B-USD",
    "book-10/alpha/A-USD",
    "book-10/alpha/B-USD",
    "book-50/alpha/A-USD",
    "book-50/alpha/B-USD",
];

/// A reader who comes while much happens gets each state once as a snapshot, then everything that follows.
pub(crate) async fn snapshot_then_updates(transport: &'static Transport) {
    let mut stage = Stage::start(transport).await;
    stage.source.begin_books(120).await;
    stage.source.bustle(60).await;
    let options = stage.options();
    let (source, has_read) = (&mut stage.source, Cell::new(false));
    let reading = async {
        let mut opened = Screen::open(options, of(&ALL)).await;
        opened.until("some of it", |s| s.got.len() > 100).await;
        has_read.set(true);
        opened
    };
    // However late the reader comes, and however much of it is conflated for them: it goes on until they have read.
    let happening = async {
        while !has_read.get() {
            source.bustle(20).await;
        }
    };
    let ((), mut screen) = tokio::join!(happening, reading);
    stage.source.bustle(40).await;
    screen.catch_up(&stage.source.record, &ALL).await;
    screen.lay(&stage.source.record, Begun::Here);
    for name in ALL {
        let topic: Topic = name.parse().expect("a topic");
        let mut of = screen.of(name);
        if topic.channel.class() != Class::Event
            && let Some(first) = of.next()
        {
            assert_eq!((first.kind, first.prev), (Kind::Snapshot, 0), "{name} begins with a snapshot");
            // An answer to a poll may give another: it is read at once what stands there.
            assert!(transport.is_polled() || of.all(|e| e.kind != Kind::Snapshot), "{name}: one snapshot is enough");
        }
    }
    for symbol in ["A-USD", "B-USD"] {
        let topic: Topic = format!("book/alpha/{symbol}").parse().expect("a topic");
        assert_eq!(screen.board.book(&topic), Some(stage.source.record.book(symbol)), "the whole book");
    }
    drop(screen);
    stage.stop().await;
}

/// A topic to which nothing has happened yet begins with its first event.
pub(crate) async fn first_events(transport: &'static Transport) {
    let mut stage = Stage::start(transport).await;
    let mut screen = stage.watch(&["quote/alpha/A-USD", "trade/alpha/A-USD", "book/alpha/A-USD"]).await;
    if !transport.is_polled() {
        screen.until_notice("subscribed", |n| matches!(n, Notice::Subscribed { .. })).await;
        assert_eq!(screen.got.len(), 0, "nothing has happened yet");
    }
    stage.source.begin_books(5).await;
    stage.source.bustle(40).await;
    screen.catch_up(&stage.source.record, &["quote/alpha/A-USD", "trade/alpha/A-USD", "book/alpha/A-USD"]).await;
    screen.lay(&stage.source.record, Begun::Here);
    let first = stage.source.record.of("trade/alpha/A-USD")[0].seq;
    assert_eq!(screen.of("trade/alpha/A-USD").next().map(|e| e.seq), Some(first), "from the first trade on");
    drop(screen);
    stage.stop().await;
}

/// `recent` gives so many past events of each event channel, then goes on.
pub(crate) async fn recent(transport: &'static Transport) {
    let mut stage = Stage::start(transport).await;
    for topic in ["trade/alpha/A-USD", "trade/alpha/B-USD", "trade/alpha/A-USD"] {
        let trades = stage.source.trades(topic, 20);
        stage.source.flood(trades).await;
    }
    let topics = ["trade/alpha/A-USD", "trade/alpha/B-USD"];
    let mut screen = stage.open(Subscription { recent: Some(7), ..of(&topics) }).await;
    screen.until("the past events", |s| s.got.len() >= 14).await;
    for topic in topics {
        let trades = stage.source.trades(topic, 5);
        stage.source.flood(trades).await;
    }
    screen.catch_up(&stage.source.record, &topics).await;
    screen.lay(&stage.source.record, Begun::Here);
    for topic in topics {
        assert_eq!(screen.of(topic).count(), 12, "seven past ones of {topic}, five new ones");
    }
    drop(screen);
    stage.stop().await;
}

/// `fields` keeps what it names, and what names the event.
pub(crate) async fn fields(transport: &'static Transport) {
    let mut stage = Stage::start(transport).await;
    let quote = stage.source.quote();
    stage.source.put("quote/alpha/A-USD", Kind::Update, quote).await;
    let topics = ["quote/alpha/A-USD", "trade/alpha/A-USD"];
    let fields = Some(vec!["bid".to_owned(), "bid_size".to_owned(), "price".to_owned()]);
    let mut screen = stage.open(Subscription { fields, ..of(&topics) }).await;
    screen.until_has(topics[0], 1).await;
    if !transport.is_polled() {
        screen.until_notice("subscribed", |n| matches!(n, Notice::Subscribed { .. })).await;
    }
    let (quote, trade) = (stage.source.quote(), stage.source.trade());
    let seq = stage.source.put(topics[0], Kind::Update, quote).await;
    stage.source.put(topics[1], Kind::Update, trade).await;
    screen.catch_up(&stage.source.record, &topics).await;
    for got in &screen.got {
        let event = &got.event;
        let published = &stage.source.record.at(&event.topic.to_string(), event.seq).expect("published").data;
        match (&event.data, published) {
            (Data::Quote(came), Data::Quote(published)) => {
                assert_eq!((came.bid, came.ask), (published.bid, None));
            }
            (Data::Trade(came), Data::Trade(published)) => {
                assert_eq!((came.price, came.side, came.size), (published.price, None, Decimal::ZERO));
            }
            other => panic!("{other:?}"),
        }
        if let Some(raw) = &got.raw {
            let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(raw).expect("JSON");
            let names: Vec<&str> = object.keys().map(String::as_str).collect();
            let allowed = ["topic", "seq", "prev", "kind", "bid", "bid_size", "price"];
            assert!(names.iter().all(|n| allowed.contains(n)), "{names:?}");
        }
    }
    assert!(screen.of(topics[0]).any(|e| e.seq == seq));
    drop(screen);
    stage.stop().await;
}

/// With `conflate=false` every event of every channel comes, and is resumed.
pub(crate) async fn every_event(transport: &'static Transport) {
    let mut stage = Stage::start(transport).await;
    stage.source.begin_books(30).await;
    stage.source.bustle(100).await;
    let every = |from: &str| Subscription { from: Some(from.to_owned()), conflate: Some(false), ..of(&ALL) };
    let mut first = stage.open(every("earliest")).await;
    stage.source.bustle(100).await;
    let topics: Vec<&str> = ALL.into_iter().filter(|t| !t.starts_with("book-")).collect();
    for topic in &topics {
        first.until_has(topic, stage.source.record.last(topic)).await;
    }
    // Nothing happens now: what it has is all that there is.
    let from = stage.source.record.cursor();
    stage.source.bustle(100).await;
    let mut second = stage.open(every(&from)).await;
    (second.board, second.got) = (std::mem::take(&mut first.board), std::mem::take(&mut first.got));
    second.board.joining();
    drop(first);
    stage.source.bustle(100).await;
    for topic in &topics {
        second.until_has(topic, stage.source.record.last(topic)).await;
    }
    lay(&second.got, &stage.source.record, Begun::After(0), true);
    for topic in &topics {
        assert_eq!(second.of(topic).count(), stage.source.record.of(topic).len(), "every event of {topic}");
    }
    assert_eq!(second.gaps(), []);
    drop(second);
    stage.stop().await;
}

/// A reader who says which books it holds gets the updates since, not the whole.
pub(crate) async fn have(transport: &'static Transport) {
    let mut stage = Stage::start(transport).await;
    let topics = ["book/alpha/A-USD", "book-10/alpha/A-USD"];
    stage.source.begin_books(100).await;
    stage.source.bustle(60).await;
    // Somebody else holds the topic here, so that its last updates are there.
    let mut first = stage.watch(&topics).await;
    first.catch_up(&stage.source.record, &topics).await;
    stage.source.bustle(30).await;
    first.catch_up(&stage.source.record, &topics).await;
    let (have, board, got) = (first.board.have(), std::mem::take(&mut first.board), first.got.len());
    assert_eq!(have.len(), 2);
    let from = Some(stage.source.record.cursor());
    stage.source.bustle(40).await;
    let mut second = stage.open(Subscription { from, have, ..of(&topics) }).await;
    second.board = board;
    second.board.joining();
    second.catch_up(&stage.source.record, &topics).await;
    stage.source.bustle(20).await;
    second.catch_up(&stage.source.record, &topics).await;
    second.lay(&stage.source.record, Begun::Here);
    // What it asks for later it no longer holds as it said: only the first word counts.
    let first_words = topics.map(|t| second.of(t).next().map(|e| e.kind));
    // A session of the fanout has a hub to itself, which holds nothing before it: a snapshot is always right.
    let word = if transport.at == At::Fanout { Kind::Snapshot } else { Kind::Update };
    assert_eq!(first_words, [Some(word); 2], "the first reader had {got} events");
    drop((first, second));
    stage.stop().await;
}

/// A book of thousands of levels comes in parts, none larger than the contract allows, and adds up.
pub(crate) async fn parts(transport: &'static Transport) {
    let mut stage = Stage::start(transport).await;
    let topic = "book/alpha/A-USD";
    stage.source.begin_books(6_000).await;
    let mut screen = stage.watch(&[topic]).await;
    screen.catch_up(&stage.source.record, &[topic]).await;
    let whole = stage.source.book(5_000);
    stage.source.put(topic, Kind::Snapshot, whole).await;
    screen.catch_up(&stage.source.record, &[topic]).await;
    screen.lay(&stage.source.record, Begun::Here);
    for got in &screen.got {
        assert!(got.parts > 1, "12,000 levels do not fit into one message");
        assert!(got.raw.as_ref().is_none_or(|r| r.len() <= MESSAGE_BYTES_MAX), "a message is too large");
    }
    drop(screen);
    stage.stop().await;
}

/// A pattern brings what it matches, once, with the options of the most exact one; also what appears later.
pub(crate) async fn patterns(transport: &'static Transport) {
    let mut stage = Stage::start(transport).await;
    let quote = stage.source.quote();
    stage.source.put("quote/alpha/A-USD", Kind::Update, quote).await;
    let mut screen = stage.watch(&["quote/alpha/*", "*/alpha/A-USD", "quote/alpha/A-USD", "trade/*/*"]).await;
    screen.until_has("quote/alpha/A-USD", 1).await;
    stage.source.begin_books(5).await;
    stage.source.announce("LATE-USD").await;
    for _ in 0..20 {
        for symbol in ["A-USD", "LATE-USD"] {
            let (quote, trade) = (stage.source.quote(), stage.source.trade());
            stage.source.put(&format!("quote/alpha/{symbol}"), Kind::Update, quote).await;
            stage.source.put(&format!("trade/alpha/{symbol}"), Kind::Update, trade).await;
        }
    }
    let topics = ["quote/alpha/A-USD", "trade/alpha/A-USD", "quote/alpha/LATE-USD", "trade/alpha/LATE-USD"];
    screen.catch_up(&stage.source.record, &topics).await;
    screen.catch_up(&stage.source.record, &["book/alpha/A-USD"]).await;
    screen.lay(&stage.source.record, Begun::Here);
    let late = &stage.source.record.of("trade/alpha/LATE-USD")[0];
    assert_eq!(screen.of("trade/alpha/LATE-USD").next().map(|e| e.seq), Some(late.seq), "from its first trade on");
    let stray = screen.got.iter().map(|g| g.event.topic.to_string()).find(|t| t == "book/alpha/B-USD");
    assert_eq!(stray, None, "no pattern matches it");
    drop(screen);
    stage.stop().await;
}

/// After `invalid` a topic brings nothing until its next snapshot, for who was there and for who comes.
pub(crate) async fn invalid(transport: &'static Transport) {
    let mut stage = Stage::start(transport).await;
    let topics = ["quote/alpha/A-USD", "book/alpha/A-USD"];
    stage.source.begin_books(20).await;
    stage.source.bustle(40).await;
    let mut there = stage.watch(&topics).await;
    there.catch_up(&stage.source.record, &topics).await;
    for topic in topics {
        stage.source.put(topic, Kind::Invalid, Data::Invalid("gap".into())).await;
    }
    let parsed = topics.map(|t| t.parse::<Topic>().expect("a topic"));
    let are_invalid = |s: &Screen| parsed.iter().all(|t| s.board.is_invalid(t));
    there.until("what is shown is called invalid", are_invalid).await;
    let mut comes = stage.watch(&topics).await;
    comes.until("what there is is invalid", are_invalid).await;
    let (book, quote) = (stage.source.book(15), stage.source.quote());
    stage.source.put(topics[1], Kind::Snapshot, book).await;
    stage.source.put(topics[0], Kind::Update, quote).await;
    for screen in [&mut there, &mut comes] {
        screen.catch_up(&stage.source.record, &topics).await;
        assert!(parsed.iter().all(|t| !screen.board.is_invalid(t)), "the snapshot ends that");
    }
    drop((there, comes));
    stage.stop().await;
}

/// A venue's changes to earlier trades are events like any other.
pub(crate) async fn corrections(transport: &'static Transport) {
    let mut stage = Stage::start(transport).await;
    let topic = "trade/alpha/A-USD";
    let from = stage.source.record.cursor();
    let begun = Begun::After(stage.source.record.cursor.as_ref().expect("a place").seq);
    for kind in [Kind::Update, Kind::Correction, Kind::Update, Kind::Cancel] {
        let Data::Trade(trade) = stage.source.trade() else { panic!("a trade") };
        let reference = (kind != Kind::Update).then(|| "1".into());
        stage.source.put(topic, kind, Data::Trade(Trade { reference, ..trade })).await;
    }
    let mut screen = stage.open(Subscription { from: Some(from), ..of(&[topic]) }).await;
    screen.catch_up(&stage.source.record, &[topic]).await;
    screen.lay(&stage.source.record, begun);
    let kinds: Vec<Kind> = screen.of(topic).map(|e| e.kind).collect();
    assert_eq!(kinds, [Kind::Update, Kind::Correction, Kind::Update, Kind::Cancel]);
    drop(screen);
    stage.stop().await;
}

/// Topics come and go while the session runs.
pub(crate) async fn changing_topics(transport: &'static Transport) {
    let mut stage = Stage::start(transport).await;
    stage.source.begin_books(20).await;
    stage.source.bustle(20).await;
    let mut screen = stage.watch(&["trade/alpha/A-USD"]).await;
    screen.until_notice("subscribed", |n| matches!(n, Notice::Subscribed { id: 1, .. })).await;
    stage.source.bustle(40).await;
    let more = ["quote/alpha/A-USD", "book/alpha/A-USD", "trade/alpha/B-USD"].map(str::to_owned).to_vec();
    screen.send(Request::Subscribe(Subscribe { id: 2, topics: more, ..Subscribe::default() })).await;
    stage.source.bustle(60).await;
    screen.until_notice("subscribed", |n| matches!(n, Notice::Subscribed { id: 2, .. })).await;
    stage.source.bustle(60).await;
    let has = ["trade/alpha/A-USD", "quote/alpha/A-USD", "book/alpha/A-USD", "trade/alpha/B-USD"];
    screen.catch_up(&stage.source.record, &has).await;
    // They did not all begin at one place.
    lay(&screen.got, &stage.source.record, Begun::Here, false);
    let gone = ["trade/alpha/A-USD".to_owned()].to_vec();
    screen.send(Request::Unsubscribe(Unsubscribe { id: 3, topics: gone })).await;
    screen.until_notice("unsubscribed", |n| matches!(n, Notice::Unsubscribed { id: 3, .. })).await;
    let had = screen.of("trade/alpha/A-USD").count();
    stage.source.bustle(60).await;
    screen.catch_up(&stage.source.record, &has[1..]).await;
    assert_eq!(screen.of("trade/alpha/A-USD").count(), had, "nothing more of what was left");
    drop(screen);
    stage.stop().await;
}

/// Peers of WebRTC that offer at once.
const CROWD: usize = 200;

/// So many peers of WebRTC offer at once, and each has its first price.
pub(crate) async fn crowd_of_peers() {
    let transport = TRANSPORTS.iter().find(|t| t.over == Over::Rtc).expect("it is among them");
    let mut setup = Setup::default();
    setup.edge.rtc_offers_per_address_max = u32::MAX;
    setup.edge.rtc_offers_max = u32::MAX;
    let mut stage = Stage::with(transport, setup).await;
    let quotes = stage.source.quotes(ALL[0], 1);
    stage.source.flood(quotes).await;
    let peers = (0..CROWD).map(|_| {
        let options = Options { connect_timeout: PATIENCE, ..stage.options() };
        async move {
            let mut reader = connect(options, of(&[ALL[0]])).await.expect("it is accepted");
            loop {
                if let Some(Message::Event(_)) = reader.next().await.expect("the session goes on") {
                    return reader;
                }
            }
        }
    });
    let readers = bounded("every peer has its first price", join_all(peers)).await;
    assert_eq!(readers.len(), CROWD);
    drop(readers);
    stage.stop().await;
}
