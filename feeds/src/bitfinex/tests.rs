use super::*;
use crate::rig::{Rig, frames};

const SESSION: &str = include_str!("../../fixtures/bitfinex/session.jsonl");
const PAIRS: &str = include_str!("../../fixtures/bitfinex/pairs.json");

fn rig() -> Rig<Bitfinex> {
    let mut rig = Rig::new(Bitfinex::new(&["BTC-USD".to_owned()]));
    rig.open(1, WEBSOCKET_URL);
    rig
}

fn play(rig: &mut Rig<Bitfinex>, numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    let session = frames(SESSION);
    numbers.into_iter().flat_map(|n| rig.frame(1, session[n])).collect()
}

#[test]
fn it_asks_for_sequence_and_checksum() {
    assert_eq!(
        rig().asked(),
        [
            r#"send 1: {"event":"conf","flags":196608}"#,
            r#"send 1: {"event":"subscribe","channel":"trades","symbol":"tBTCUSD"}"#,
            r#"send 1: {"event":"subscribe","channel":"book","symbol":"tBTCUSD","prec":"P0","freq":"F0","len":"250"}"#,
        ]
    );
    let symbols: Vec<String> = (10..40).map(|i| format!("A{i}-USD")).collect();
    let mut rig = Rig::new(Bitfinex::new(&symbols));
    rig.open(1, WEBSOCKET_URL);
    assert_eq!(rig.asked().len(), 1 + 2 * SYMBOLS_MAX);
    assert_eq!(rig.faults().len(), 30 - SYMBOLS_MAX);
}

#[test]
fn a_session_is_counted_and_verified() {
    let mut rig = rig();
    let told = play(&mut rig, 0..15);
    assert!(rig.faults().is_empty());
    assert_eq!(
        told,
        [
            "BTC-USD trade 101 buy 0.1@50001",
            "BTC-USD trade 102 sell 0.2@50000",
            "BTC-USD book snapshot 2/2",
            "BTC-USD quote 1.5@50000 2@50001",
            "BTC-USD status live -",
            "BTC-USD book [1.25@50000] []",
            "BTC-USD quote 1.25@50000 2@50001",
            "BTC-USD trade 103 buy 0.25@50001",
            "BTC-USD book [0.5@50001] [0@50001]",
            "BTC-USD quote 0.5@50001 0.0000001@50002",
        ],
        "the bid that met the ask waited for the ask to go"
    );
}

#[test]
fn a_bad_checksum_subscribes_that_book_anew() {
    let mut rig = rig();
    play(&mut rig, 0..16);
    let told = play(&mut rig, [16]);
    assert_eq!(rig.faults(), ["checksum"]);
    assert_eq!(told[0], "BTC-USD book invalid checksum");
    assert_eq!(told.last().map(String::as_str), Some("BTC-USD status resyncing checksum"));
    let asked = rig.asked();
    assert_eq!(asked[0], r#"send 1: {"event":"unsubscribe","chanId":11}"#);
    assert!(asked[1].contains(r#""channel":"book","symbol":"tBTCUSD""#));
    rig.frame(1, r#"{"event":"unsubscribed","status":"OK","chanId":11}"#);
    assert!(rig.frame(1, "[11,[49997,1,1],14]").is_empty(), "what is under way changes nothing");
    rig.frame(1, &frames(SESSION)[4].replace("\"chanId\":11", "\"chanId\":12"));
    let told = rig.frame(1, "[12,[[50000,2,1.5],[50001,1,-2]],15]");
    assert_eq!(told[0], "BTC-USD book snapshot 1/1");
    assert!(rig.faults().is_empty());
}

#[test]
fn a_gap_suspects_every_book_and_makes_the_connection_anew() {
    let mut rig = rig();
    play(&mut rig, 0..7);
    let told = play(&mut rig, [9]);
    assert_eq!(rig.faults(), ["gap"]);
    assert_eq!(told, ["BTC-USD book invalid gap", "BTC-USD quote invalid gap", "BTC-USD status resyncing gap"]);
    assert_eq!(rig.asked(), ["reconnect 1: gap"]);
    assert!(play(&mut rig, [14]).is_empty() && rig.faults().is_empty(), "said once");
    rig.step(|a, now, out| a.closed(Conn(1), "gap", now, out));
    rig.open(2, WEBSOCKET_URL);
    for frame in frames(SESSION).into_iter().take(7) {
        rig.frame(2, frame);
        assert!(rig.faults().is_empty(), "{frame}");
    }
    assert!(rig.book("BTC-USD").is_some());
}

#[test]
fn a_repeated_frame_is_told_and_not_taken() {
    let mut rig = rig();
    play(&mut rig, 0..8);
    assert!(play(&mut rig, [7]).is_empty());
    assert_eq!(rig.faults(), ["gap"]);
    assert!(rig.book("BTC-USD").is_some());
}

#[test]
fn what_stays_crossed_is_not_shown() {
    let mut rig = rig();
    play(&mut rig, 0..13);
    assert!(rig.book("BTC-USD").is_some(), "it waits");
    let told = rig.frame(1, "[11,\"cs\",7,10]");
    assert_eq!(told[0], "BTC-USD book invalid checksum");
    let mut rig = self::rig();
    play(&mut rig, 0..7);
    for n in 0..=WAITING_MAX {
        rig.frame(1, &format!("[11,[50003,1,{}],{}]", n + 1, n + 4));
    }
    assert_eq!(rig.faults(), ["crossed"]);
}

#[test]
fn info_errors_and_a_lost_connection() {
    let mut rig = rig();
    play(&mut rig, 0..7);
    play(&mut rig, [17]);
    assert_eq!(rig.asked(), ["reconnect 1: restart"]);
    play(&mut rig, [18]);
    assert_eq!(rig.faults(), ["refused"]);
    let told = rig.frame(1, r#"{"event":"info","code":20060,"msg":"maintenance"}"#);
    assert_eq!(told, ["BTC-USD status halted maintenance"]);
    let told = rig.frame(1, r#"{"event":"info","code":20061,"msg":"maintenance ended"}"#);
    assert_eq!(told, ["BTC-USD status live -"]);
    let told = rig.step(|a, now, out| a.silent(Conn(1), now, out));
    assert_eq!(told.last().map(String::as_str), Some("BTC-USD status stale silent"));
    for bad in ["", "[]", "[\"a\"]", "[11,[1,2],7]", "[11,\"cs\",[],7]", "{\"event\":1}"] {
        assert!(rig.frame(1, bad).is_empty());
        assert_eq!(rig.faults(), ["undecodable"], "{bad}");
    }
}

#[test]
fn names_come_from_the_list() {
    let mut rig = Rig::new(Bitfinex::new(&["BTC-USDT-PERP".to_owned(), "NO-PE".to_owned()]));
    rig.response(PAIRS_URL, PAIRS);
    rig.open(1, WEBSOCKET_URL);
    assert_eq!(rig.faults(), ["refused"], "not in the list");
    let instrument = &rig.out.instruments[0].1;
    assert_eq!((&*instrument.native, instrument.lot_size), ("tBTCF0:USTF0", Some(Decimal::new(1, 8))));
}

#[test]
fn numbers_are_written_as_scripts_do() {
    for (wire, script) in [
        ("50000.10", "50000.1"),
        ("1e-7", "1e-7"),
        ("0.000001", "0.000001"),
        ("0.00000012", "1.2e-7"),
        ("-0.00000001", "-1e-8"),
        ("0", "0"),
    ] {
        let mut text = Vec::new();
        write_script_number(&mut text, decimal::parse(wire).expect(wire));
        assert_eq!(String::from_utf8_lossy(&text), script);
    }
}

#[test]
fn with_the_flag_for_it_only_the_first_list_is_a_snapshot() {
    let mut rig = Rig::new(Bitfinex::new(&[]));
    rig.open(1, WEBSOCKET_URL);
    let flags = SEQ_ALL | BULK_UPDATES;
    rig.frame(1, &format!(r#"{{"event":"conf","status":"OK","flags":{flags}}}"#));
    rig.frame(1, frames(SESSION)[4]);
    let told = rig.frame(1, "[11,[[50000,2,1.5],[49999,1,3],[50001,1,-2]],1]");
    assert_eq!(told[0], "BTC-USD book snapshot 2/1");
    let told = rig.frame(1, "[11,[[50001,0,-1],[50002,1,-4],[49999,1,2.5]],2]");
    assert_eq!(told[0], "BTC-USD book [2.5@49999] [0@50001,4@50002]");
    assert_eq!(rig.book("BTC-USD").expect("live").levels(ticker_market::book::BookSide::Bid), 2);
    // A new subscription begins with a snapshot again.
    rig.frame(1, &frames(SESSION)[4].replace("11", "12"));
    assert_eq!(rig.frame(1, "[12,[[50000,1,1]],3]")[0], "BTC-USD book snapshot 1/0");
    assert!(rig.faults().is_empty());
}

#[test]
fn a_trade_may_have_more_fields_than_are_known() {
    let mut rig = Rig::new(Bitfinex::new(&[]));
    rig.open(1, WEBSOCKET_URL);
    rig.frame(1, frames(SESSION)[2]);
    let told = rig.frame(1, r#"[10,"te",[103,1767607200100,-0.25,50001,null,"X"]]"#);
    assert_eq!(told, ["BTC-USD trade 103 sell 0.25@50001"]);
    rig.frame(1, r#"[10,"te",[104,1767607200100,-0.25]]"#);
    assert_eq!(rig.faults(), ["undecodable"]);
}
