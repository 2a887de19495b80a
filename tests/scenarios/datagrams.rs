//! States by an unreliable way.

use ticker_client::Subscription;
use ticker_market::{Kind, Topic};

use crate::rig::{Stage, of};
use crate::screen::{Begun, Screen};
use crate::transport::Transport;
use crate::valve::Valve;

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

/// Over a path that loses packets the reader still comes to the newest quote each time, never back to an older one, and has
/// all trades.
pub(crate) async fn datagrams_over_loss(transport: &'static Transport) {
    const LOST: u64 = 20;
    let mut stage = Stage::start(transport).await;
    let quotes = stage.source.quotes(QUOTE, 1);
    stage.source.flood(quotes).await;
    let valve = Valve::before(&stage).await;
    let delivery = Some("datagram".to_owned());
    let mut screen = Screen::open(valve.options(&stage), Subscription { delivery, ..of(&[QUOTE, TRADE]) }).await;
    screen.catch_up(&stage.source.record, &[QUOTE]).await;
    valve.lose_one_of(4);
    let mut trades_made = 0;
    while valve.lost() < LOST {
        let quotes = stage.source.quotes(QUOTE, 5);
        stage.source.flood(quotes).await;
        let trades = stage.source.trades(TRADE, 5);
        stage.source.flood(trades).await;
        trades_made += 5;
        screen.catch_up(&stage.source.record, &[QUOTE, TRADE]).await;
    }
    screen.lay(&stage.source.record, Begun::Here);
    assert_eq!(screen.of(TRADE).count(), trades_made, "every trade, once");
    let places: Vec<u64> = screen.of(QUOTE).map(|e| e.seq).collect();
    assert!(places.is_sorted(), "{places:?} goes back");
    let topic: Topic = QUOTE.parse().expect("a topic");
    assert_eq!(screen.board.last(&topic).map(|e| e.seq), Some(stage.source.record.last(QUOTE)));
    drop(screen);
    stage.stop().await;
}
