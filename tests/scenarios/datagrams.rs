//! States by an unreliable way.

use ticker_client::Subscription;
use ticker_market::{Kind, Topic};

use crate::rig::{Stage, of};
use crate::screen::Begun;
use crate::transport::Transport;

const QUOTE: &str = "quote/alpha/A-USD";
const TRADE: &str = "trade/alpha/A-USD";

/// The newest quotes come as whole snapshots and never go back, the trades all come by the stream, and the cursor is theirs.
pub(crate) async fn datagrams(transport: &'static Transport) {
    let mut stage = Stage::start(transport).await;
    let quotes = stage.source.quotes(QUOTE, 1);
    stage.source.flood(quotes).await;
    let delivery = Some("datagram".to_owned());
    let mut screen = stage.open(Subscription { delivery, ..of(&[QUOTE, TRADE]) }).await;
    screen.catch_up(&stage.source.record, &[QUOTE]).await;
    for _ in 0..40 {
        let quotes = stage.source.quotes(QUOTE, 25);
        stage.source.flood(quotes).await;
        let trades = stage.source.trades(TRADE, 5);
        stage.source.flood(trades).await;
        screen.catch_up(&stage.source.record, &[QUOTE, TRADE]).await;
    }
    screen.lay(&stage.source.record, Begun::Here);
    assert_eq!(screen.of(TRADE).count(), 200, "every trade, once");
    assert!(screen.of(QUOTE).all(|e| e.kind == Kind::Snapshot && e.prev == 0), "each is whole");
    let places: Vec<u64> = screen.of(QUOTE).map(|e| e.seq).collect();
    assert!(places.is_sorted(), "{places:?} goes back");
    let topic: Topic = QUOTE.parse().expect("a topic");
    assert_eq!(screen.board.last(&topic).map(|e| e.seq), Some(stage.source.record.last(QUOTE)));
    let last = stage.source.record.cursor();
    screen.until("the cursor is at the end of the tape", |s| s.reader.cursor() == Some(last.as_str())).await;
    drop(screen);
    stage.stop().await;
}
