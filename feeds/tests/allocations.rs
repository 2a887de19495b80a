//! On the hot path nothing is allocated for each event: once buffers have grown, frames become events in the memory that
//! is there. Alone in its binary, because it counts what everybody allocates.

#[path = "allocations/counting.rs"]
mod counting;

use counting::allocations;
use ticker_feeds::itch::Itch;
use ticker_feeds::{Conn, Out, adapter};
use ticker_market::{Channel, Integrity, Time};

const FRAMES: usize = 4_000;

/// Plays `frame(0)`, `frame(1)`, … after the beginning, and counts the allocations of the second half.
fn count(venue: &str, begin: &[&str], channel: Channel, frame: impl Fn(usize) -> String) -> u64 {
    let (mut adapter, mut out) = (adapter(venue, &[]).expect("a venue of ours"), Out::default());
    let frames: Vec<String> = (0..FRAMES).map(frame).collect();
    for frame in begin {
        if frame.starts_with(r#"{"lastUpdateId"#) {
            adapter.response("?symbol=BTCUSDT", frame.as_bytes(), Time(0), &mut out);
        } else {
            adapter.frame(Conn(0), frame.as_bytes(), Time(0), &mut out);
        }
    }
    let (mut before, mut told) = (0, 0);
    for (i, frame) in frames.iter().enumerate() {
        if i == FRAMES / 2 {
            before = allocations();
        }
        out.clear();
        adapter.frame(Conn(0), frame.as_bytes(), Time::from_millis(i as i64), &mut out);
        told += usize::from(out.updates.iter().any(|u| u.channel == channel));
        assert!(out.reports.is_empty(), "{venue}: {:?}", out.reports);
    }
    let counted = allocations() - before;
    assert_eq!(told, FRAMES, "{venue}: every frame tells something");
    counted
}

/// One test, so that nothing else runs beside it.
#[test]
fn nothing_is_allocated_for_each_event() {
    let snapshot =
        r#"{"lastUpdateId":0,"bids":[["65000.00000000","1"],["64999.00000000","1"]],"asks":[["65001.00000000","2"]]}"#;
    let ticker = |i: usize| {
        format!(
            r#"{{"stream":"btcusdt@bookTicker","data":{{"u":{i},"s":"BTCUSDT","b":"65000.00000000","B":"1.{i:08}","a":"65000.01000000","A":"2.00000000"}}}}"#
        )
    };
    assert_eq!(count("binance", &[], Channel::Quote, ticker), 0, "bookTicker");
    let trade = |i: usize| {
        format!(
            r#"{{"stream":"btcusdt@trade","data":{{"e":"trade","E":1,"s":"BTCUSDT","t":{},"p":"65000.00000000","q":"0.{i:08}1","T":1,"m":true,"M":true}}}}"#,
            7 + i
        )
    };
    assert_eq!(count("binance", &[], Channel::Trade, trade), 0, "trade");
    let depth = |i: usize| {
        format!(
            r#"{{"stream":"btcusdt@depth@100ms","data":{{"e":"depthUpdate","E":1,"s":"BTCUSDT","U":{},"u":{},"b":[["6499{}.00000000","0.{i:08}1"],["64000.5","{}"]],"a":[["65001.00000000","1.{i:08}"]]}}}}"#,
            i + 1,
            i + 1,
            i % 9,
            i % 2
        )
    };
    assert_eq!(count("binance", &[snapshot], Channel::Book, depth), 0, "depth");
    let coinbase = |i: usize| {
        let change = |side: &str, price: usize, size: usize| {
            format!(
                r#"{{"side":"{side}","event_time":"2026-01-05T10:00:00.1Z","price_level":"{price}.25","new_quantity":"0.{size:08}"}}"#
            )
        };
        let kind = if i == 0 { "snapshot" } else { "update" };
        let changes = [change("bid", 64_000 - i % 50, i + 1), change("offer", 64_001 + i % 70, i + 2)].join(",");
        format!(
            r#"{{"channel":"l2_data","client_id":"","timestamp":"2026-01-05T10:00:00.1Z","sequence_num":{i},"events":[{{"type":"{kind}","product_id":"BTC-USD","updates":[{changes}]}}]}}"#
        )
    };
    assert_eq!(count("coinbase", &[], Channel::Book, coinbase), 0, "l2_data");
    itch();
}

/// Orders that come and go, at a few prices of a few stocks.
fn itch() {
    let mut itch = Itch::new(&[], Time(0), Integrity::Sequenced);
    let mut out = Out::default();
    let mut messages: Vec<Vec<u8>> = Vec::new();
    let head = |kind: u8, locate: u16| [&[kind][..], &locate.to_be_bytes(), &[0; 8]].concat();
    messages.push([head(b'S', 0), b"O".to_vec()].concat());
    for n in 0..FRAMES as u64 {
        let locate = 1 + (n % 5) as u16;
        let side = if n % 2 == 0 { b'B' } else { b'S' };
        let price: u32 = if n % 2 == 0 { 100_000 - (n % 7) as u32 * 100 } else { 100_100 + (n % 7) as u32 * 100 };
        let stock = format!("S{locate:<7}");
        let fields =
            [&(10 + n).to_be_bytes()[..], &[side], &100u32.to_be_bytes(), stock.as_bytes(), &price.to_be_bytes()];
        messages.push([head(b'A', locate), fields.concat()].concat());
        if n >= 100 {
            messages.push([head(b'D', 1 + ((n - 100) % 5) as u16), (10 + n - 100).to_be_bytes().to_vec()].concat());
        }
    }
    let (mut before, mut told) = (0, 0);
    for (i, message) in messages.iter().enumerate() {
        if i == messages.len() / 2 {
            before = allocations();
        }
        out.clear();
        itch.message(message, None, &mut out).expect("a message");
        told += out.updates.len();
    }
    assert_eq!(allocations() - before, 0, "ITCH");
    assert!(told > FRAMES);
}
