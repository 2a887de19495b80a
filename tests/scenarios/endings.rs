//! Quiet times, and the end of a service.

use ticker_client::Subscription;
use ticker_market::Cursor;
use ticker_proto::{Code, Notice};

use crate::raw;
use crate::rig::{HEARTBEAT_MS, Stage, bounded, of};
use crate::screen::{Begun, Screen, lay};
use crate::transport::{At, Transport, code_of, query};

const TRADE: &str = "trade/alpha/A-USD";

/// A quiet reader's cursor moves on with the tape.
pub(crate) async fn heartbeat(transport: &'static Transport) {
    let mut stage = Stage::start(transport).await;
    let begun = stage.source.record.cursor();
    if transport.is_polled() {
        let quotes = stage.source.quotes("quote/alpha/B-USD", 20);
        let moved = stage.source.flood(quotes).await;
        let path = format!("/v1/poll{}&cursor={begun}&wait=1", query(&of(&[TRADE])));
        let answer = bounded("an answer", ticker_client::http::get(&stage.options(), &path)).await.expect("it comes");
        let answer: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(answer["events"], serde_json::json!([]));
        let cursor: Cursor = answer["cursor"].as_str().expect("a text").parse().expect("a cursor");
        assert_eq!(cursor.seq, moved, "the answer's cursor is the tape's");
        return stage.stop().await;
    }
    let mut screen = stage.watch(&[TRADE]).await;
    screen.until_notice("welcome", |n| matches!(n, Notice::Welcome { heartbeat_ms: HEARTBEAT_MS, .. })).await;
    for _ in 0..3 {
        let quotes = stage.source.quotes("quote/alpha/B-USD", 20);
        let moved = stage.source.flood(quotes).await;
        let beyond = |n: &Notice| match n {
            Notice::Heartbeat { cursor, conflated: 0 } => cursor.parse::<Cursor>().is_ok_and(|c| c.seq >= moved),
            _ => false,
        };
        screen.until_notice("a heartbeat with the tape's place", beyond).await;
    }
    assert_eq!(screen.got.len(), 0);
    assert_eq!(screen.cursor(), stage.source.record.cursor());
    drop(screen);
    stage.stop().await;
}

/// Before a service goes away it says so, to each reader with its cursor and a delay of its own, and the reader goes on
/// at another.
pub(crate) async fn goodbye(transport: &'static Transport) {
    let mut stage = Stage::start(transport).await;
    let begun = Begun::After(stage.source.record.cursor.as_ref().expect("a place").seq);
    let from = Some(stage.source.record.cursor());
    let subscription = Subscription { from, ..of(&[TRADE]) };
    let mut readers = Vec::new();
    for _ in 0..3 {
        readers.push(stage.open(subscription.clone()).await);
    }
    let bare = raw::Slow::open(transport, &stage.url(), TRADE).await;
    let trades = stage.source.trades(TRADE, 50);
    stage.source.flood(trades).await;
    for screen in &mut readers {
        screen.catch_up(&stage.source.record, &[TRADE]).await;
    }
    // An edge is replaced by another; a fanout of this version has its tape to itself, and the tape goes with it.
    let gone = match transport.at {
        At::Edge => Some(stage.second_edge().await),
        At::Fanout => None,
    };
    let reading = readers.iter_mut().map(|s| s.until_notice("goodbye", |n| matches!(n, Notice::Goodbye { .. })));
    let draining = async {
        match &gone {
            Some(edge) => {
                // A poll that is not under way hears nothing.
                while edge.readers() < 3 {
                    tokio::task::yield_now().await;
                }
                edge.drain();
            }
            None => stage.drain(),
        }
    };
    tokio::join!(futures_util::future::join_all(reading), draining);
    let mut delays = Vec::new();
    let mut cursor = None;
    for screen in &mut readers {
        let Some(Notice::Goodbye { cursor: at, retry_ms, .. }) = screen.notices.last() else { panic!("the last word") };
        delays.push(*retry_ms);
        let place: Cursor = at.parse().expect("a cursor");
        assert!(place.seq >= stage.source.record.last(TRADE), "it has had everything up to {at}");
        cursor = Some(at.clone());
        ends_well(screen).await;
    }
    delays.sort_unstable();
    delays.dedup();
    assert_eq!(delays.len(), 3, "each comes back at another time: {delays:?}");
    if !transport.is_polled() {
        bounded("the transport's own end", bare.ends_with(Code::Draining)).await;
    }
    let mut got = std::mem::take(&mut readers[0].got);
    drop(readers);
    if let Some(edge) = gone {
        edge.stopped().await;
        let trades = stage.source.trades(TRADE, 50);
        stage.source.flood(trades).await;
        let mut screen = stage.open(Subscription { from: cursor, ..of(&[TRADE]) }).await;
        screen.catch_up(&stage.source.record, &[TRADE]).await;
        got.append(&mut screen.got);
        lay(&got, &stage.source.record, begun, false);
        assert_eq!(got.len(), 100, "every trade, once");
    }
    stage.stop().await;
}

/// After its goodbye a stream ends, with `draining` or without a word. (A poller asks again, and nobody is there.)
async fn ends_well(screen: &mut Screen) {
    loop {
        match screen.step().await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                let code = code_of(&error).0;
                assert!(code.is_none_or(|c| c == Code::Draining), "{error}");
                return;
            }
        }
    }
}
