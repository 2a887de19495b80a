use super::*;
use crate::rig::{Rig, frames};

const SESSION: &str = include_str!("../../fixtures/okx/session.jsonl");
const CHECKSUMS: &str = include_str!("../../fixtures/okx/checksums.jsonl");
const SNAPSHOT: &str = include_str!("../../fixtures/okx/books.json");
const LIST: &str = include_str!("../../fixtures/okx/instruments.json");
const SNAPSHOT_URL: &str = "https://www.okx.com/api/v5/market/books?instId=BTC-USDT&sz=400&source=0";

fn rig() -> Rig<Okx> {
    let mut rig = Rig::new(Okx::new(&["BTC-USDT".to_owned()]));
    rig.open(1, WEBSOCKET_URL);
    rig
}

fn play(rig: &mut Rig<Okx>, numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    let session = frames(SESSION);
    numbers.into_iter().flat_map(|n| rig.frame(1, session[n])).collect()
}

fn resubscribed() -> [String; 2] {
    ["unsubscribe", "subscribe"]
        .map(|op| format!(r#"send 1: {{"op":"{op}","args":[{{"channel":"books","instId":"BTC-USDT"}}]}}"#))
}

#[test]
fn it_subscribes_within_the_limit() {
    let rig = rig();
    let asked = rig.asked();
    assert_eq!(
        asked,
        [concat!(
            r#"send 1: {"op":"subscribe","args":[{"channel":"bbo-tbt","instId":"BTC-USDT"},"#,
            r#"{"channel":"trades","instId":"BTC-USDT"},{"channel":"books","instId":"BTC-USDT"}]}"#
        )]
    );
    assert_eq!(rig.adapter.rules().ping_text, Some("ping"));
    let symbols: Vec<String> = (0..250).map(|i| format!("A{i}-USDT-PERP")).collect();
    let mut rig = Rig::new(Okx::new(&symbols));
    rig.open(1, WEBSOCKET_URL);
    assert_eq!(rig.asked().len(), 8);
    for text in rig.asked() {
        let text = text.strip_prefix("send 1: ").expect("sent");
        assert!(text.len() < 65_536);
        let frame: serde_json::Value = serde_json::from_str(text).expect("JSON");
        assert!(frame["args"].as_array().expect("a list").len() <= ARGS_PER_SUBSCRIPTION_MAX);
    }
}

#[test]
fn a_book_follows_the_chain_of_ids() {
    let mut rig = rig();
    let told = play(&mut rig, 0..7);
    assert_eq!(
        told,
        [
            "BTC-USDT book snapshot 2/2",
            "BTC-USDT quote 1.5@50000 2@50000.1",
            "BTC-USDT status live -",
            "BTC-USDT book [1.4@50000] []",
            "BTC-USDT quote 1.4@50000 2@50000.1",
            "BTC-USDT book [0@49999.9] [0.7@50000.2]",
            "BTC-USDT book [1.3@50000] []",
            "BTC-USDT quote 1.3@50000 2@50000.1",
            "BTC-USDT book [] [0@50000.3]",
        ],
        "a quiet minute says nothing, and maintenance goes on below"
    );
    assert!(rig.faults().is_empty());
}

#[test]
fn a_gap_subscribes_that_book_anew() {
    let mut rig = rig();
    play(&mut rig, 0..2);
    let told = play(&mut rig, [4]);
    assert_eq!(rig.faults(), ["gap"]);
    assert_eq!(told, ["BTC-USDT book invalid gap", "BTC-USDT quote invalid gap", "BTC-USDT status resyncing gap"]);
    assert_eq!(rig.asked(), resubscribed());
    assert!(play(&mut rig, [5]).is_empty(), "what is under way changes nothing");
    assert_eq!(play(&mut rig, [1])[0], "BTC-USDT book snapshot 2/2");
    assert_eq!(play(&mut rig, [2])[0], "BTC-USDT book [1.4@50000] []");
}

#[test]
fn without_a_snapshot_in_band_it_is_fetched() {
    let mut rig = rig();
    play(&mut rig, [0, 2]);
    assert_eq!(rig.asked(), [format!("fetch {SNAPSHOT_URL}")]);
    assert!(play(&mut rig, [4]).is_empty());
    assert!(rig.asked().is_empty(), "asked for once");
    // 1003 lies inside the first one that waits.
    let told = rig.response(SNAPSHOT_URL, SNAPSHOT);
    assert_eq!(told[0], "BTC-USDT book snapshot 1/2");
    assert_eq!(told[2], "BTC-USDT status live -");
    assert!(rig.response(SNAPSHOT_URL, SNAPSHOT).is_empty(), "an answer that came twice");
    assert_eq!(play(&mut rig, [5])[0], "BTC-USDT book [1.3@50000] []");
    // After a gap too.
    rig.frame(1, &frames(SESSION)[6].replace("\"prevSeqId\":5", "\"prevSeqId\":6"));
    assert_eq!(rig.faults(), ["gap"]);
    rig.wait();
    assert_eq!(rig.asked(), [format!("fetch {SNAPSHOT_URL}")]);
}

#[test]
fn a_snapshot_that_does_not_fit_is_fetched_again() {
    let mut rig = rig();
    play(&mut rig, [4]);
    assert!(rig.response(SNAPSHOT_URL, SNAPSHOT).is_empty(), "older than what waits");
    rig.wait();
    assert_eq!(rig.asked(), [format!("fetch {SNAPSHOT_URL}")]);
    rig.response(SNAPSHOT_URL, &SNAPSHOT.replace(",\"seqId\":1003", ""));
    assert_eq!(rig.faults(), ["refused"], "nothing can continue it");
    rig.step(|a, now, out| a.failed(SNAPSHOT_URL, now, out));
    rig.wait();
    assert_eq!(rig.asked(), [format!("fetch {SNAPSHOT_URL}")]);
}

#[test]
fn a_subscription_without_a_snapshot_falls_back() {
    let mut rig = rig();
    play(&mut rig, 0..2);
    play(&mut rig, [4]);
    assert_eq!(rig.asked(), resubscribed());
    play(&mut rig, [5]);
    rig.wait();
    assert_eq!(rig.asked(), [format!("fetch {SNAPSHOT_URL}")], "no snapshot came with it");
}

#[test]
fn checksums_are_verified_where_there_are_any() {
    let mut rig = Rig::new(Okx::new(&[]));
    let session = frames(CHECKSUMS);
    for frame in &session {
        rig.frame(1, frame);
        assert!(rig.faults().is_empty(), "{frame}");
    }
    assert_eq!(rig.book("ELF-USDT-PERP").expect("live").asks().len(), 2);
    let told = rig.frame(1, &session[1].replace("\"99\"", "\"99.0\""));
    assert_eq!(rig.faults(), ["checksum"], "the digits of the wire count");
    assert_eq!(told[0], "ELF-USDT-PERP book invalid checksum");
    assert_eq!(rig.asked().len(), 2);
    assert_eq!(rig.frame(1, session[0])[0], "ELF-USDT-PERP book snapshot 2/1");
}

#[test]
fn quotes_and_trades_have_channels_of_their_own() {
    let mut rig = rig();
    assert_eq!(play(&mut rig, [7]), ["BTC-USDT quote 1.5@50000 2@50000.1"]);
    assert_eq!(play(&mut rig, [8, 8]), ["BTC-USDT trade 77 buy 0.25@50000.1"]);
    let told = play(&mut rig, 1..3);
    assert!(told.iter().all(|t| !t.contains("quote")), "{told:?}");
}

#[test]
fn pongs_errors_and_notices() {
    let mut rig = rig();
    assert!(rig.frame(1, "pong").is_empty() && rig.faults().is_empty());
    play(&mut rig, [9]);
    assert_eq!(rig.faults(), ["refused"]);
    play(&mut rig, [10]);
    assert_eq!(rig.asked(), ["reconnect 1: notice"]);
    for bad in ["", "ping", "[]", r#"{"arg":{"channel":"books","instId":"X"},"data":[{}]}"#] {
        assert!(rig.frame(1, bad).is_empty());
        assert_eq!(rig.faults(), ["undecodable"], "{bad}");
    }
}

#[test]
fn a_new_connection_takes_over() {
    let mut rig = rig();
    play(&mut rig, 0..3);
    rig.open(2, WEBSOCKET_URL);
    assert!(rig.frame(2, frames(SESSION)[4]).is_empty(), "not before its snapshot");
    assert_eq!(rig.frame(2, frames(SESSION)[1])[0], "BTC-USDT book snapshot 2/2");
    assert!(play(&mut rig, [4]).is_empty() && rig.faults().is_empty(), "the new connection has it");
    assert!(rig.step(|a, now, out| a.closed(Conn(1), "age", now, out)).is_empty());
    let told = rig.step(|a, now, out| a.silent(Conn(2), now, out));
    assert_eq!(told, ["BTC-USDT book invalid stale", "BTC-USDT quote invalid stale", "BTC-USDT status stale silent"]);
    assert_eq!(rig.asked(), ["reconnect 2: silent"]);
}

#[test]
fn steps_come_from_the_lists_that_are_needed() {
    let symbols = ["BTC-USDT", "BTC-USDT-PERP", "BTC-USD-20260925-70000-C"].map(str::to_owned);
    let mut rig = Rig::new(Okx::new(&symbols));
    let url = rig.adapter.rules().instruments_url.expect("a list");
    assert!(url.ends_with("instType=OPTION&instFamily=BTC-USD"));
    rig.response(&url, r#"{"code":"0","msg":"","data":[]}"#);
    assert!(rig.asked()[0].ends_with("instType=SPOT"));
    rig.response("https://www.okx.com/api/v5/public/instruments?instType=SPOT", LIST);
    assert!(rig.asked()[0].ends_with("instType=SWAP"));
    rig.open(1, WEBSOCKET_URL);
    let instrument = &rig.out.instruments[0].1;
    assert_eq!(instrument.tick_size, Some(ticker_market::Decimal::new(1, 1)));
    assert_eq!(instrument.lot_size, Some(ticker_market::Decimal::new(1, 8)));
    assert_eq!(rig.out.instruments[2].1.native, "BTC-USD-260925-70000-C");
}

#[test]
fn five_levels_are_the_book_where_it_does_not_come() {
    let mut rig = Rig::new(Okx::new(&[]));
    let frame = r#"{"arg":{"channel":"books5","instId":"ETH-USDT"},"data":[{"asks":[["3001","2","0","4"]],"bids":[["3000","1","0","2"]],"instId":"ETH-USDT","ts":"1767607200000","seqId":5}]}"#;
    assert_eq!(rig.frame(1, frame)[1], "ETH-USDT book snapshot 1/1");
    assert_eq!(rig.frame(1, &frame.replace("3000", "2999"))[0], "ETH-USDT book [0@3000,1@2999] []");
}
