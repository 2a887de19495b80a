use super::*;
use crate::rig::{Rig, frames};

const SESSION: &str = include_str!("../../fixtures/bitstamp/session.jsonl");
const SNAPSHOT: &str = include_str!("../../fixtures/bitstamp/order_book.json");
const MARKETS: &str = include_str!("../../fixtures/bitstamp/markets.json");
const SNAPSHOT_URL: &str = "https://www.bitstamp.net/api/v2/order_book/btcusd/";

fn rig() -> Rig<Bitstamp> {
    let mut rig = Rig::new(Bitstamp::new(&["BTC-USD".to_owned()]));
    rig.open(1, WEBSOCKET_URL);
    rig
}

fn play(rig: &mut Rig<Bitstamp>, numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    let session = frames(SESSION);
    numbers.into_iter().flat_map(|n| rig.frame(1, session[n])).collect()
}

#[test]
fn it_subscribes_one_channel_a_message() {
    assert_eq!(
        rig().asked(),
        [
            r#"send 1: {"event":"bts:subscribe","data":{"channel":"live_trades_btcusd"}}"#,
            r#"send 1: {"event":"bts:subscribe","data":{"channel":"diff_order_book_btcusd"}}"#,
        ]
    );
    assert_eq!(rig().adapter.rules().ping_text, Some(r#"{"event":"bts:heartbeat"}"#));
}

#[test]
fn a_book_is_a_snapshot_and_what_is_later() {
    let mut rig = rig();
    play(&mut rig, [0, 1]);
    assert_eq!(rig.asked(), [format!("fetch {SNAPSHOT_URL}")]);
    assert!(play(&mut rig, 2..4).is_empty(), "the book waits");
    let told = rig.response(SNAPSHOT_URL, SNAPSHOT);
    assert_eq!(
        told,
        ["BTC-USD book snapshot 1/2", "BTC-USD quote 1.1@50000 1.9@50001", "BTC-USD status live -"],
        "the last difference is part of it"
    );
    assert_eq!(rig.out.updates[0].ts, Some(Time::from_micros(1_767_607_200_000_300)));
    assert_eq!(play(&mut rig, [4, 4])[0], "BTC-USD book [0.5@50000] []");
    assert_eq!(play(&mut rig, [5, 5]), ["BTC-USD trade 501 buy 0.25@50001"]);
    assert!(rig.faults().is_empty());
}

#[test]
fn a_snapshot_from_before_the_stream_is_fetched_again() {
    let mut rig = rig();
    play(&mut rig, [3]);
    assert!(rig.response(SNAPSHOT_URL, SNAPSHOT).is_empty());
    rig.wait();
    assert_eq!(rig.asked(), [format!("fetch {SNAPSHOT_URL}")]);
    rig.step(|a, now, out| a.failed(SNAPSHOT_URL, now, out));
    rig.wait();
    assert_eq!(rig.asked(), [format!("fetch {SNAPSHOT_URL}")]);
    let told = rig.response(SNAPSHOT_URL, &SNAPSHOT.replace("000200", "000350"));
    assert_eq!(told[0], "BTC-USD book snapshot 2/1");
    assert!(rig.response(SNAPSHOT_URL, SNAPSHOT).is_empty(), "an answer that came twice");
}

#[test]
fn a_quiet_pairs_snapshot_is_fetched_by_the_timer() {
    let mut rig = rig();
    rig.wait();
    assert_eq!(rig.asked(), [format!("fetch {SNAPSHOT_URL}")]);
    assert_eq!(rig.response(SNAPSHOT_URL, SNAPSHOT)[0], "BTC-USD book snapshot 2/1");
    assert_eq!(play(&mut rig, [3])[0], "BTC-USD book [0@49999] [4@50002]");
    assert!(rig.faults().is_empty());
}

#[test]
fn differences_out_of_order_and_a_crossed_book_are_found() {
    let mut rig = rig();
    play(&mut rig, 0..3);
    rig.response(SNAPSHOT_URL, SNAPSHOT);
    play(&mut rig, [4]);
    let told = play(&mut rig, [3]);
    assert_eq!(rig.faults(), ["gap"]);
    assert_eq!(told[0], "BTC-USD book invalid gap");
    rig.wait();
    assert_eq!(rig.asked(), [format!("fetch {SNAPSHOT_URL}")]);
    assert_eq!(rig.response(SNAPSHOT_URL, &SNAPSHOT.replace("000200", "000500"))[0], "BTC-USD book snapshot 2/1");
    let crossing = frames(SESSION)[4].replace("000400", "000600").replace("50000.00", "50001.00");
    assert_eq!(rig.frame(1, &crossing)[0], "BTC-USD book invalid crossed");
    assert_eq!(rig.faults(), ["crossed"]);
}

#[test]
fn heartbeats_reconnects_and_refusals() {
    let mut rig = rig();
    assert!(play(&mut rig, [0, 6]).is_empty() && rig.faults().is_empty());
    play(&mut rig, [7]);
    assert_eq!(rig.asked(), ["reconnect 1: request_reconnect"]);
    play(&mut rig, [8]);
    assert_eq!(rig.faults(), ["refused"]);
    for bad in ["", "[]", "{}", r#"{"event":"data","channel":"diff_order_book_x","data":{}}"#] {
        assert!(rig.frame(1, bad).is_empty());
        assert_eq!(rig.faults(), ["undecodable"], "{bad}");
    }
}

#[test]
fn one_connection_replaces_another_without_a_break() {
    let mut rig = rig();
    play(&mut rig, 0..3);
    rig.response(SNAPSHOT_URL, SNAPSHOT);
    rig.open(2, WEBSOCKET_URL);
    assert_eq!(play(&mut rig, [3]).len(), 1);
    assert!(rig.frame(2, frames(SESSION)[3]).is_empty());
    assert!(rig.step(|a, now, out| a.closed(Conn(1), "age", now, out)).is_empty());
    assert_eq!(rig.frame(2, frames(SESSION)[4]).len(), 2);
    let told = rig.step(|a, now, out| a.silent(Conn(2), now, out));
    assert_eq!(told.last().map(String::as_str), Some("BTC-USD status stale silent"));
    assert_eq!(rig.asked(), ["reconnect 2: silent"]);
}

#[test]
fn steps_and_names_come_from_the_list() {
    let mut rig = Rig::new(Bitstamp::new(&["BTC-USD".to_owned(), "NO-PE".to_owned()]));
    rig.response(MARKETS_URL, MARKETS);
    rig.open(1, WEBSOCKET_URL);
    assert_eq!(rig.faults(), ["refused"], "not in the list");
    let instrument = &rig.out.instruments[0].1;
    assert_eq!((&*instrument.native, instrument.tick_size), ("btcusd", Some(Decimal::new(1, 2))));
    assert_eq!(instrument.lot_size, Some(Decimal::new(1, 8)));
    assert_eq!(pair_of("https://www.bitstamp.net/api/v2/order_book/btcusd/?group=2"), None);
    assert_eq!(pair_of("https://www.bitstamp.net/api/v2/order_book/btcusd"), Some("btcusd"));
}

#[test]
fn after_what_cannot_be_read_the_book_is_asked_for_again() {
    let mut rig = rig();
    play(&mut rig, 0..3);
    rig.response(SNAPSHOT_URL, SNAPSHOT);
    let told = rig.frame(1, &frames(SESSION)[3].replace("\"4.00000000\"", "4"));
    assert_eq!(told[0], "BTC-USD book invalid undecodable");
    assert_eq!(rig.faults(), ["undecodable"]);
    rig.wait();
    assert_eq!(rig.asked(), [format!("fetch {SNAPSHOT_URL}")]);
    play(&mut rig, [4]);
    assert!(rig.faults().is_empty(), "it waits for the snapshot");
}

#[test]
fn a_book_is_built_order_by_order() {
    let mut rig = Rig::new(Bitstamp::new(&[]));
    let url = format!("{SNAPSHOT_URL}?group=2");
    let at = |n: u64| 1_767_607_200_000_000 + 1_000 * n;
    let order = |what: &str, n: u64, before: u64, id: u64, side: u8, price: &str, amount: &str| {
        let place = |n: u64| {
            format!("{:08x}-{:04x}-{:04x}-0000-00010100{n:04x}", at(n) >> 32, at(n) >> 16 & 0xffff, at(n) & 0xffff)
        };
        let (place, before) = (place(n), place(before));
        format!(
            r#"{{"data":{{"id":{id},"id_str":"{id}","order_type":{side},"order_subtype":5,"microtimestamp":"{}","amount":1,"amount_str":"{amount}","price":1,"price_str":"{price}","is_liquidation":false}},"channel":"live_orders_btcusd","event":"order_{what}","event_id":"{place}","pre_event_id":"{before}","order_source":"orderbook"}}"#,
            at(n)
        )
    };
    let snapshot = |n: u64| {
        format!(
            r#"{{"timestamp":"1","microtimestamp":"{}","bids":[["100.00","1.5","1"],["100.00","0.5","2"]],"asks":[["101.00","2","3"]]}}"#,
            at(n)
        )
    };
    assert_eq!(
        rig.frame(1, &order("created", 2, 1, 4, 0, "99.00", "1"))[0],
        "BTC-USD status resyncing awaiting_snapshot"
    );
    assert_eq!(rig.asked(), [format!("fetch {url}")]);
    rig.frame(1, &order("created", 3, 2, 5, 1, "102.00", "1"));
    assert!(rig.response(&url, &snapshot(0)).is_empty(), "older than the first event");
    rig.wait();
    assert_eq!(rig.asked(), [format!("fetch {url}")]);
    let told = rig.response(&url, &snapshot(2));
    assert_eq!(told[0], "BTC-USD book snapshot 1/2", "the first event is in it already");
    let told = rig.frame(1, &order("changed", 4, 3, 1, 0, "100.00", "0.25"));
    assert_eq!(told[0], "BTC-USD book [0.75@100] []");
    assert_eq!(rig.frame(1, &order("deleted", 5, 4, 3, 1, "101.00", "2"))[0], "BTC-USD book [] [0@101]");
    // One that trades at once is crossed until its trades are told.
    assert!(rig.frame(1, &order("created", 6, 5, 6, 0, "103.00", "1")).is_empty());
    assert_eq!(rig.frame(1, &order("deleted", 7, 6, 5, 1, "102.00", "0"))[0], "BTC-USD book [1@103] [0@102]");
    assert!(rig.frame(1, &order("deleted", 8, 7, 77, 1, "999.00", "1")).is_empty(), "beyond the snapshot");
    assert!(rig.response(SNAPSHOT_URL, SNAPSHOT).is_empty(), "of the other kind");
    assert!(rig.faults().is_empty());
    let told = rig.frame(1, &order("created", 10, 9, 8, 1, "110.00", "1"));
    assert_eq!((rig.faults(), &*told[0]), (vec!["gap"], "BTC-USD book invalid gap"));
    rig.wait();
    assert_eq!(rig.asked(), [format!("fetch {url}")]);
    rig.step(|a, now, out| a.failed(&url, now, out));
    rig.wait();
    assert_eq!(rig.response(&url, &snapshot(9))[0], "BTC-USD book snapshot 1/2");
    rig.frame(1, "{");
    assert_eq!(rig.faults(), ["undecodable"]);
    assert!(rig.book("BTC-USD").is_none());
}

#[test]
fn differences_come_before_orders() {
    let mut rig = Rig::new(Bitstamp::new(&[]));
    let url = format!("{SNAPSHOT_URL}?group=2");
    let empty = r#"{"timestamp":"1","microtimestamp":"1767607200000000","bids":[],"asks":[["101.00","2","3"]]}"#;
    assert!(rig.response(&url, empty)[0].starts_with("BTC-USD book snapshot"));
    let told = play(&mut rig, 1..3);
    assert_eq!(told[0], "BTC-USD book invalid awaiting_snapshot", "nothing of it goes on");
    assert_eq!(rig.response(SNAPSHOT_URL, SNAPSHOT)[0], "BTC-USD book snapshot 2/1");
    assert!(rig.response(&url, empty).is_empty());
}

#[test]
fn a_live_book_is_held_against_a_snapshot_now_and_then() {
    let mut rig = rig();
    play(&mut rig, 0..4);
    rig.response(SNAPSHOT_URL, SNAPSHOT);
    let begun = rig.now;
    rig.wait();
    assert_eq!((rig.asked(), rig.out.refreshes), (vec![format!("fetch {SNAPSHOT_URL}")], 1));
    assert!(rig.now.since(begun) > (crate::resync::REFRESH_EVERY_MS - 1_000) * 1_000_000, "not at once");
    // Of a moment from before: it says nothing.
    assert!(rig.response(SNAPSHOT_URL, SNAPSHOT).is_empty());
    let same = SNAPSHOT.replace("000200", "000300");
    rig.wait();
    let (live, told) = (rig.book("BTC-USD").cloned(), rig.response(SNAPSHOT_URL, &same));
    assert!(told.iter().any(|t| t == "BTC-USD book invalid mismatch"), "without the last difference: {told:?}");
    assert_eq!((rig.faults(), rig.book("BTC-USD")), (vec!["mismatch"], None));
    assert_eq!(rig.asked(), [format!("fetch {SNAPSHOT_URL}")], "and the book is fetched");
    let told = rig.response(SNAPSHOT_URL, &same);
    assert_eq!(told[0], "BTC-USD book snapshot 2/1");
    rig.wait();
    assert!(rig.response(SNAPSHOT_URL, &same).is_empty(), "now they are the same");
    assert!(rig.faults().is_empty() && rig.book("BTC-USD") != live.as_ref());
}

#[test]
fn a_snapshot_that_the_book_has_not_reached_waits_for_what_it_has() {
    let later = SNAPSHOT.replace("000200", "000900");
    let mut rig = rig();
    play(&mut rig, 0..4);
    rig.response(SNAPSHOT_URL, SNAPSHOT);
    rig.wait();
    assert_eq!(rig.asked(), [format!("fetch {SNAPSHOT_URL}")]);
    assert!(rig.response(SNAPSHOT_URL, &later).is_empty(), "what it has may be on its way");
    rig.wait();
    assert_eq!(rig.faults(), ["mismatch"], "and is not");
    assert_eq!(rig.book("BTC-USD"), None);
}

#[test]
fn the_best_levels_are_the_book_where_it_does_not_come() {
    let mut rig = Rig::new(Bitstamp::new(&[]));
    let frame = r#"{"data":{"timestamp":"1767607200","microtimestamp":"1767607200000400","bids":[["50000","1"]],"asks":[["50001","2"]]},"channel":"order_book_btcusd","event":"data"}"#;
    assert_eq!(rig.frame(1, frame)[1], "BTC-USD book snapshot 1/1");
    assert_eq!(rig.frame(1, &frame.replace("50001\",\"2\"", "50001\",\"3\""))[0], "BTC-USD book [] [3@50001]");
}
