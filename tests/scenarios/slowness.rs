//! A reader that takes nothing for a while: what it gets then, what it is told, and that others do not notice.

use ticker_client::{Error, Subscription};
use ticker_market::{Cursor, Kind};
use ticker_proto::Code;

use crate::raw;
use crate::rig::{Stage, bounded, of};
use crate::screen::{Begun, Screen, lay};
use crate::transport::{Transport, code_of};
use crate::valve::Valve;

const QUOTE: &str = "quote/alpha/A-USD";
const BOOK: &str = "book/alpha/A-USD";
const TRADE: &str = "trade/alpha/A-USD";

/// More than all buffers between the service and the reader hold.
const QUOTES: usize = 60_000;

/// Changes of the book meanwhile: as many as a topic keeps for merging, and not more.
const CHANGES: usize = 100;

/// Its states are conflated and its books merged, it is told how much was, and what it has at the end is right.
pub(crate) async fn slow_reader(transport: &'static Transport) {
    let mut stage = Stage::start(transport).await;
    let topics = [QUOTE, BOOK];
    stage.source.begin_books(40).await;
    let quotes = stage.source.quotes(QUOTE, 1);
    stage.source.flood(quotes).await;
    let valve = Valve::before(&stage).await;
    let options = valve.options(&stage);
    let mut slow = Screen::open(options, of(&topics)).await;
    let mut other = stage.watch(&topics).await;
    slow.catch_up(&stage.source.record, &topics).await;
    other.catch_up(&stage.source.record, &topics).await;
    let had = slow.got.len();

    valve.shut();
    for _ in 0..60 {
        let quotes = stage.source.quotes(QUOTE, QUOTES / 60);
        stage.source.flood(quotes).await;
        other.catch_up(&stage.source.record, &topics).await;
    }
    for _ in 0..CHANGES {
        let change = stage.source.change(60);
        stage.source.put(BOOK, Kind::Update, change).await;
    }
    other.catch_up(&stage.source.record, &topics).await;
    other.lay(&stage.source.record, Begun::Here);

    valve.open();
    slow.catch_up(&stage.source.record, &topics).await;
    slow.lay(&stage.source.record, Begun::Here);
    let count =
        |slow: &Screen, topic: &str| slow.got[had..].iter().filter(|g| g.event.topic.to_string() == topic).count();
    let (quotes, changes) = (count(&slow, QUOTE), count(&slow, BOOK));
    assert!(quotes < QUOTES * 3 / 4, "{quotes} quotes were delivered one by one");
    if transport.is_polled() {
        assert_eq!((quotes, changes), (1, 1), "an answer has the newest of each");
    } else {
        assert!(changes < CHANGES / 2, "{changes} changes of the book came one by one");
        let kinds = slow.got[had..].iter().filter(|g| g.event.topic.to_string() == BOOK).map(|g| g.event.kind);
        assert!(kinds.clone().all(|k| k == Kind::Update), "merged, not begun anew");
        let left_out = (QUOTES - quotes + CHANGES - changes) as u64;
        slow.until("a heartbeat tells how many were conflated", |s| s.board.conflated() >= left_out).await;
        assert_eq!(slow.board.conflated(), left_out);
    }
    drop((slow, other));
    stage.stop().await;
}

/// Event channels are never conflated: a reader whose backlog outgrows the limit is told so, with a cursor to go on from.
pub(crate) async fn slow_consumer(transport: &'static Transport) {
    let mut stage = Stage::start(transport).await;
    let begun = Begun::After(stage.source.record.cursor.as_ref().expect("a place").seq);
    let from = Some(stage.source.record.cursor());
    let valve = Valve::before(&stage).await;
    let options = valve.options(&stage);
    let mut slow = Screen::open(options, Subscription { from: from.clone(), ..of(&[TRADE]) }).await;
    let bare = raw::Slow::open(transport, &valve.url, TRADE).await;
    let mut other = stage.open(Subscription { from, ..of(&[TRADE]) }).await;
    let trades = stage.source.trades(TRADE, 5);
    stage.source.flood(trades).await;
    slow.catch_up(&stage.source.record, &[TRADE]).await;

    valve.shut();
    for _ in 0..100 {
        // Never more at once than a reader may have waiting.
        let trades = stage.source.trades(TRADE, 300);
        stage.source.flood(trades).await;
        other.catch_up(&stage.source.record, &[TRADE]).await;
    }
    other.lay(&stage.source.record, begun);

    valve.open();
    let error: Error = loop {
        match slow.step().await {
            Ok(true) => {}
            Ok(false) => panic!("it ended without a word"),
            Err(error) => break error,
        }
    };
    let (code, cursor) = code_of(&error);
    assert_eq!(code, Some(Code::SlowConsumer), "{error}");
    let cursor = cursor.expect("a cursor to go on from");
    let place: Cursor = cursor.parse().expect("a place");
    assert!(slow.got.last().is_none_or(|g| g.event.seq <= place.seq), "nothing is beyond the cursor");
    let mut again = stage.open(Subscription { from: Some(cursor), ..of(&[TRADE]) }).await;
    again.catch_up(&stage.source.record, &[TRADE]).await;
    assert_eq!(again.gaps(), []);
    slow.got.append(&mut again.got);
    lay(&slow.got, &stage.source.record, begun, false);
    assert_eq!(slow.got.len(), stage.source.record.of(TRADE).len(), "every trade, once");
    bounded("the transport's own end", bare.ends_with(Code::SlowConsumer)).await;
    drop((slow, other, again));
    stage.stop().await;
}
