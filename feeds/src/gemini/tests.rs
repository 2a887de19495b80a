use super::*;
use crate::rig::{Rig, frames};

const SESSION: &str = include_str!("../../fixtures/gemini/session.jsonl");
const V2: &str = include_str!("../../fixtures/gemini/v2.jsonl");
const DETAILS: &str = include_str!("../../fixtures/gemini/details.json");

fn rig() -> Rig<Gemini> {
    let mut rig = Rig::new(Gemini::new(&["BTC-USD".to_owned()]));
    rig.open(1, WEBSOCKET_URL);
    rig
}

fn play(rig: &mut Rig<Gemini>, numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    let session = frames(SESSION);
    numbers.into_iter().flat_map(|n| rig.frame(1, session[n])).collect()
}

#[test]
fn it_subscribes_within_the_limit() {
    assert_eq!(
        rig().asked(),
        [concat!(
            r#"send 1: {"id":"1","method":"subscribe","#,
            r#""params":["btcusd@bookTicker","btcusd@trade","btcusd@depth@100ms"]}"#
        )]
    );
    assert_eq!(rig().adapter.rules().ping_text, Some(r#"{"id":"0","method":"ping"}"#));
    let symbols: Vec<String> = (0..50).map(|i| format!("A{i}-USD")).collect();
    let mut rig = Rig::new(Gemini::new(&symbols));
    rig.open(1, WEBSOCKET_URL);
    assert_eq!(rig.asked().len(), 2);
}

#[test]
fn the_first_frame_is_the_book_and_each_later_one_names_the_one_before() {
    let mut rig = rig();
    let told = play(&mut rig, 0..5);
    assert_eq!(
        told,
        [
            "BTC-USD book snapshot 2/1",
            "BTC-USD quote 1.5@50000 2@50001",
            "BTC-USD status live -",
            "BTC-USD book [1.4@50000] []",
            "BTC-USD quote 1.4@50000 2@50001",
            "BTC-USD book [0@49999] [4@50002]",
            "BTC-USD book [] [0@50002]",
        ]
    );
    assert_eq!(rig.out.updates[0].ts, Some(Time(1_767_607_200_300_000_000)));
    assert!(play(&mut rig, [3, 1]).is_empty() && rig.faults().is_empty(), "old ones");
}

#[test]
fn a_gap_subscribes_that_book_anew_once_the_old_one_is_gone() {
    let mut rig = rig();
    play(&mut rig, 0..2);
    let told = play(&mut rig, [3]);
    assert_eq!(rig.faults(), ["gap"]);
    assert_eq!(told[0], "BTC-USD book invalid gap");
    assert_eq!(rig.asked(), [r#"send 1: {"id":"2","method":"unsubscribe","params":["btcusd@depth@100ms"]}"#]);
    assert!(play(&mut rig, [4]).is_empty(), "of the old subscription");
    rig.frame(1, r#"{"id":"2","status":200}"#);
    assert_eq!(rig.asked(), [r#"send 1: {"id":"3","method":"subscribe","params":["btcusd@depth@100ms"]}"#]);
    assert_eq!(play(&mut rig, [1])[0], "BTC-USD book snapshot 2/1");
    play(&mut rig, [2]);
    assert!(rig.faults().is_empty());
    play(&mut rig, [4]);
    assert_eq!(rig.faults(), ["gap"]);
    assert!(rig.asked().is_empty(), "the last one was a moment ago");
    rig.wait();
    assert!(rig.asked()[0].starts_with("fetch "), "the details of the symbol were due");
    rig.wait();
    assert!(rig.asked().iter().any(|a| a.contains("unsubscribe")), "{:?}", rig.asked());
}

#[test]
fn quotes_and_trades_have_streams_of_their_own() {
    let mut rig = rig();
    assert_eq!(play(&mut rig, [5]), ["BTC-USD quote 1.5@50000 2@50001"]);
    assert_eq!(play(&mut rig, [6]), ["BTC-USD quote - -"], "an empty book");
    assert!(play(&mut rig, [5]).is_empty(), "an old one");
    assert_eq!(play(&mut rig, [7, 7]), ["BTC-USD trade 2840141014190422 buy 0.25@50001"]);
}

#[test]
fn a_connection_without_snapshots_shows_no_book() {
    let mut rig = Rig::new(Gemini::new(&[]));
    rig.open(1, "wss://ws.gemini.com");
    let told = play(&mut rig, 1..4);
    assert_eq!(told, ["BTC-USD status resyncing awaiting_snapshot"]);
}

#[test]
fn answers_errors_and_a_lost_connection() {
    let mut rig = rig();
    assert!(play(&mut rig, [0, 8, 10]).is_empty() && rig.faults().is_empty());
    play(&mut rig, [9]);
    assert_eq!(rig.faults(), ["refused"]);
    play(&mut rig, [1]);
    rig.open(2, WEBSOCKET_URL);
    assert_eq!(rig.frame(2, frames(SESSION)[1])[0], "BTC-USD book snapshot 2/1");
    assert!(play(&mut rig, [2]).is_empty(), "the new connection has it");
    assert!(rig.step(|a, now, out| a.closed(Conn(1), "eof", now, out)).is_empty());
    let told = rig.step(|a, now, out| a.silent(Conn(2), now, out));
    assert_eq!(told.last().map(String::as_str), Some("BTC-USD status stale silent"));
    assert_eq!(rig.asked(), ["reconnect 2: silent"]);
    for bad in ["", "[]", r#"{"e":"depthUpdate","s":"x"}"#, r#"{"t":1}"#, r#"{"type":"l2_updates"}"#] {
        assert!(rig.frame(1, bad).is_empty());
        assert_eq!(rig.faults(), ["undecodable"], "{bad}");
    }
}

#[test]
fn the_archived_protocol_plays_without_proof() {
    let mut rig = Rig::new(Gemini::new(&[]));
    rig.open(1, "wss://api.gemini.com/v2/marketdata/");
    let session = frames(V2);
    let told = rig.frame(1, session[0]);
    assert_eq!(told[0], "BTC-USD status resyncing awaiting_snapshot");
    assert_eq!(told[1], "BTC-USD book snapshot 1/1");
    assert_eq!(told[4..], ["BTC-USD trade 71 buy 0.1@50001", "BTC-USD trade 72 sell 0.2@50000"]);
    assert_eq!(rig.frame(1, session[1])[0], "BTC-USD book [0@50000,1@49999] []");
    assert_eq!(rig.frame(1, session[2]), ["BTC-USD trade 73 buy 0.3@50001"]);
    assert!(rig.frame(1, session[3]).is_empty() && rig.faults().is_empty());
    let mut out = Out::default();
    rig.adapter.retell(rig.now, &mut out);
    assert!(out.updates.iter().any(|u| match &u.data {
        ticker_market::Data::Status(status) => status.integrity == Integrity::None,
        _ => false,
    }));
    rig.frame(1, &session[1].replace("49999.00", "50001.00"));
    assert_eq!(rig.faults(), ["crossed"]);
    assert_eq!(rig.asked(), ["reconnect 1: crossed"]);
}

#[test]
fn steps_come_symbol_by_symbol() {
    let mut rig = Rig::new(Gemini::new(&["BTC-USD".to_owned(), "ETH-USD".to_owned()]));
    let url = rig.adapter.rules().instruments_url.expect("details");
    assert_eq!(url, "https://api.gemini.com/v1/symbols/details/btcusd");
    rig.response(&url, DETAILS);
    assert_eq!(rig.asked(), ["fetch https://api.gemini.com/v1/symbols/details/ethusd"]);
    rig.open(1, WEBSOCKET_URL);
    let instrument = &rig.out.instruments[0].1;
    assert_eq!(instrument.tick_size, Some(ticker_market::Decimal::new(1, 2)));
    assert_eq!(instrument.lot_size, Some(ticker_market::Decimal::new(1, 8)));
}

#[test]
fn names_have_dollar_coins_at_their_end() {
    for (native, symbol) in [
        ("BTCUSD", "BTC-USD"),
        ("BTCRLUSD", "BTC-RLUSD"),
        ("BTCGUSDPERP", "BTC-GUSD-PERP"),
        ("GUSDGBP", "GUSD-GBP"),
        ("GUSDUSD", "GUSD-USD"),
    ] {
        assert_eq!(normal(native), symbol);
        assert_eq!(joined(symbol), native);
    }
}
