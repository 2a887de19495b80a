use super::*;
use crate::rig::{Rig, frames};

const SESSION: &str = include_str!("../../fixtures/gateio/session.jsonl");
const DEPTH: &str = include_str!("../../fixtures/gateio/depth.json");
const PAIRS: &str = include_str!("../../fixtures/gateio/pairs.json");
const DEPTH_URL: &str = "https://api.gateio.ws/api/v4/spot/order_book?currency_pair=BTC_USDT&limit=100&with_id=true";

fn play(rig: &mut Rig<Gateio>, which: impl IntoIterator<Item = usize>) -> Vec<String> {
    let session = frames(SESSION);
    which.into_iter().flat_map(|i| rig.frame(1, session[i])).collect()
}

fn live() -> Rig<Gateio> {
    let mut rig = Rig::new(Gateio::new(&["BTC-USDT".to_owned()]));
    rig.open(1, WEBSOCKET_URL);
    play(&mut rig, 0..3);
    rig.response(DEPTH_URL, DEPTH);
    rig
}

#[test]
fn it_subscribes_and_fetches() {
    let mut rig = Rig::new(Gateio::new(&["BTC-USDT".to_owned()]));
    assert_eq!(rig.open(1, WEBSOCKET_URL), ["BTC-USDT status resyncing awaiting_snapshot"]);
    let asked = rig.asked();
    assert_eq!(asked.len(), 3);
    assert!(
        asked[2].ends_with(r#""channel":"spot.order_book_update","event":"subscribe","payload":["BTC_USDT","100ms"]}"#)
    );
    play(&mut rig, [1]);
    assert_eq!(rig.asked(), [format!("fetch {DEPTH_URL}")]);
    play(&mut rig, [2]);
    assert!(rig.asked().is_empty(), "asked already");
    let mut quiet = Rig::new(Gateio::new(&["BTC-USDT".to_owned()]));
    quiet.open(1, WEBSOCKET_URL);
    quiet.wait();
    assert_eq!(quiet.asked(), [format!("fetch {DEPTH_URL}")]);
}

#[test]
fn a_book_is_a_snapshot_and_what_continues_it() {
    let mut rig = Rig::new(Gateio::new(&[]));
    play(&mut rig, 0..3);
    let told = rig.response(DEPTH_URL, DEPTH);
    assert_eq!(told, ["BTC-USDT book snapshot 1/2", "BTC-USDT quote 1.5@50000 2@50001", "BTC-USDT status live -"]);
    assert_eq!(play(&mut rig, [3]), ["BTC-USDT book [] [0@50001]", "BTC-USDT quote 1.5@50000 3@50002"]);
    assert!(play(&mut rig, [4]).is_empty(), "the same quote");
    assert_eq!(play(&mut rig, [5]), ["BTC-USDT trade 309143071 sell 0.201@50000.5"]);
    assert_eq!(rig.out.updates[0].ts, Some(Time(1_767_607_200_320_264_200)));
    assert!(play(&mut rig, [5, 3]).is_empty(), "again");
    assert!(rig.faults().is_empty());
}

#[test]
fn a_gap_fetches_that_pairs_snapshot_again() {
    let mut rig = live();
    play(&mut rig, [3]);
    let told = play(&mut rig, [7]);
    assert_eq!(told, ["BTC-USDT book invalid gap", "BTC-USDT quote invalid gap", "BTC-USDT status resyncing gap"]);
    assert_eq!(rig.faults(), ["gap"]);
    assert!(rig.asked().is_empty(), "too soon after the last one");
    rig.wait();
    assert_eq!(rig.asked(), [format!("fetch {DEPTH_URL}")]);
    assert!(rig.response(DEPTH_URL, DEPTH).is_empty(), "older than what waits");
    rig.wait();
    let told = rig.response(DEPTH_URL, &DEPTH.replace("\"id\":101", "\"id\":106"));
    assert_eq!(told, ["BTC-USDT book snapshot 2/1", "BTC-USDT quote anew 2@50000 3@50002", "BTC-USDT status live -"]);
}

#[test]
fn a_closed_connection_makes_everything_stale() {
    let mut rig = live();
    let told = rig.step(|a, now, out| a.closed(Conn(1), "eof", now, out));
    assert_eq!(told, ["BTC-USDT book invalid stale", "BTC-USDT quote invalid stale", "BTC-USDT status stale eof"]);
    rig.open(2, WEBSOCKET_URL);
    rig.wait();
    let told = rig.response(DEPTH_URL, DEPTH);
    assert_eq!(told[0], "BTC-USDT book snapshot 2/1");
    rig.step(|a, now, out| a.silent(Conn(2), now, out));
    assert_eq!(rig.asked(), ["reconnect 2: silent"]);
}

#[test]
fn steps_and_halts_come_from_the_list() {
    let mut rig = live();
    rig.response(PAIRS_URL, PAIRS);
    let instrument = &rig.out.instruments[0].1;
    assert_eq!((instrument.tick_size, instrument.lot_size), (Some(Decimal::new(1, 1)), Some(Decimal::new(1, 6))));
    let told = rig.response(PAIRS_URL, &PAIRS.replace("\"tradable\"", "\"untradable\""));
    assert_eq!(told, ["BTC-USDT status halted untradable"]);
}

#[test]
fn refusals_and_nonsense_are_reported() {
    let mut rig = live();
    rig.response(DEPTH_URL, r#"{"label":"INVALID_CURRENCY_PAIR","message":"invalid"}"#);
    assert_eq!(rig.faults(), ["refused"]);
    rig.frame(1, r#"{"time":1,"channel":"spot.trades","event":"subscribe","error":{"code":2,"message":"unknown"},"result":null}"#);
    assert_eq!(rig.faults(), ["refused"]);
    for bad in ["", "[]", "7", r#"{"channel":"spot.trades","event":"update","result":{}}"#] {
        assert!(rig.frame(1, bad).is_empty());
        assert_eq!(rig.faults(), ["undecodable"], "{bad}");
    }
    rig.step(|a, now, out| a.failed(PAIRS_URL, now, out));
    rig.wait();
    assert_eq!(rig.asked(), [format!("fetch {PAIRS_URL}")]);
}

#[test]
fn answers_to_what_others_asked_are_passed_over() {
    let mut rig = live();
    assert!(rig.response("https://api.gateio.ws/api/v4/spot/trades?currency_pair=BTC_USDT", "[]").is_empty());
    assert!(rig.faults().is_empty());
}

#[test]
fn a_side_without_changes_may_be_null() {
    let mut rig = live();
    let frame = |first: u64, sides: &str| {
        format!(
            r#"{{"time":1767607200,"channel":"spot.order_book_update","event":"update","result":{{"t":1767607200300,"e":"depthUpdate","E":1767607200,"s":"BTC_USDT","U":{first},"u":{first},{sides}}}}}"#
        )
    };
    let last = live().adapter.books.keep("BTC_USDT", Default::default, &mut Out::default()).expect("kept").1.last();
    let next = last.expect("live") + 1;
    let told = rig.frame(1, &frame(next, r#""b":null,"a":[["59000","1"]]"#));
    assert_eq!((told, rig.faults().len()), (vec!["BTC-USDT book [] [1@59000]".to_owned()], 0));
}

#[test]
fn the_best_levels_are_the_book_where_it_does_not_come() {
    let mut rig = Rig::new(Gateio::new(&[]));
    let frame = r#"{"time":1767607200,"channel":"spot.order_book","event":"update","result":{"t":1767607200123,"lastUpdateId":48,"s":"ETH_USDT","bids":[["3000","1"]],"asks":[["3001","2"]]}}"#;
    assert_eq!(rig.frame(1, frame)[1], "ETH-USDT book snapshot 1/1");
    assert!(live().frame(1, &frame.replace("ETH", "BTC")).is_empty(), "the book itself is there");
}

#[test]
fn a_frame_may_be_the_whole_book() {
    let frame = |first: u64, last: u64, rest: &str| {
        format!(
            r#"{{"time":1767607200,"time_ms":1767607200400,"channel":"spot.order_book_update","event":"update","result":{{"t":1767607200300,"e":"depthUpdate","E":1767607200,"s":"BTC_USDT","U":{first},"u":{last},{rest}}}}}"#
        )
    };
    let whole = frame(900, 910, r#""full":true,"l":"100","b":[["50000","1"],["49999","2"]],"a":[["50001","3"]]"#);
    let next = frame(911, 912, r#""b":[["50000","0"]],"a":[]"#);
    // In a recording that has no other snapshot, and in the place of what was there.
    for mut rig in [Rig::new(Gateio::new(&[])), live()] {
        let told = rig.frame(1, &whole);
        assert!(told.iter().any(|told| told == "BTC-USDT book snapshot 2/1"), "{told:?}");
        assert_eq!(rig.frame(1, &next)[0], "BTC-USDT book [0@50000] []");
        assert!(rig.faults().is_empty());
        rig.frame(1, &frame(914, 914, r#""b":[],"a":[]"#));
        assert_eq!(rig.faults(), ["gap"]);
    }
    // What a connection tells that is about to go may be older than the book.
    let mut rig = live();
    rig.frame(1, &whole);
    rig.open(2, WEBSOCKET_URL);
    assert!(rig.frame(2, &frame(880, 890, r#""full":true,"b":[],"a":[]"#)).is_empty());
}
