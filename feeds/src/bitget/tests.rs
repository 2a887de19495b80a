use super::*;
use crate::rig::{Rig, frames};

const SESSION: &str = include_str!("../../fixtures/bitget/session.jsonl");
const SYMBOLS: &str = include_str!("../../fixtures/bitget/symbols.json");
const CONTRACTS: &str = include_str!("../../fixtures/bitget/contracts.json");

fn rig(symbols: &[&str]) -> Rig<Bitget> {
    let symbols: Vec<String> = symbols.iter().map(|symbol| (*symbol).to_owned()).collect();
    let mut rig = Rig::new(Bitget::new(&symbols));
    rig.open(1, WEBSOCKET_URL);
    rig
}

fn play(rig: &mut Rig<Bitget>, numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    let session = frames(SESSION);
    numbers.into_iter().flat_map(|n| rig.frame(1, session[n])).collect()
}

fn resubscribed() -> [String; 2] {
    ["unsubscribe", "subscribe"].map(|op| {
        let arg = r#"{"instType":"SPOT","channel":"books","instId":"BTCUSDT"}"#;
        format!(r#"send 1: {{"op":"{op}","args":[{arg}]}}"#)
    })
}

#[test]
fn it_subscribes_within_the_limits() {
    let rig = rig(&["BTC-USDC-PERP"]);
    assert_eq!(
        rig.asked(),
        [concat!(
            r#"send 1: {"op":"subscribe","args":[{"instType":"USDC-FUTURES","channel":"books1","instId":"BTCPERP"},"#,
            r#"{"instType":"USDC-FUTURES","channel":"trade","instId":"BTCPERP"},"#,
            r#"{"instType":"USDC-FUTURES","channel":"books","instId":"BTCPERP"}]}"#
        )]
    );
    let symbols: Vec<String> = (0..SYMBOLS_MAX).map(|i| format!("LONGNAME{i}-USDT-PERP")).collect();
    let mut rig = Rig::new(Bitget::new(&symbols));
    rig.open(1, WEBSOCKET_URL);
    assert_eq!(rig.asked().len(), 3);
    assert!(rig.asked().iter().all(|text| text.len() < 4_096));
}

#[test]
fn a_book_is_proven_by_chain_and_checksum() {
    let mut rig = rig(&["BTC-USDT"]);
    assert_eq!(
        play(&mut rig, 0..5),
        [
            "BTC-USDT book snapshot 2/2",
            "BTC-USDT quote 1.5@50000 2@50000.1",
            "BTC-USDT status live -",
            "BTC-USDT book [1.4@50000] []",
            "BTC-USDT quote 1.4@50000 2@50000.1",
            "BTC-USDT book [0@49999.9,0.5@49999.8] [0.7@50000.2]",
            "BTC-USDT book [1.3@50000] [4@50000.3]",
            "BTC-USDT quote 1.3@50000 2@50000.1",
        ]
    );
    assert!(rig.faults().is_empty());
    assert!(play(&mut rig, [4]).is_empty() && rig.faults().is_empty(), "the same frame again is old");
    let status = rig.step(|a, now, out| a.retell(now, out));
    assert!(status.contains(&"BTC-USDT status live -".to_owned()));
    let verified =
        |u: &crate::Update| matches!(&u.data, ticker_market::Data::Status(s) if s.integrity == Integrity::Verified);
    assert!(rig.out.updates.iter().any(verified));
}

#[test]
fn a_gap_or_a_wrong_checksum_subscribes_that_book_anew() {
    let session = frames(SESSION);
    let other = session[3].replace("\"0.50\"", "\"0.5\"").replace("50000.20", "50000.25");
    for (bad, cause) in [(session[3], "gap"), (&*other.replace("\"pseq\":103", "\"pseq\":100"), "checksum")] {
        let mut rig = rig(&["BTC-USDT"]);
        play(&mut rig, [0, 1]);
        let told = rig.frame(1, bad);
        assert_eq!(rig.faults(), [cause]);
        assert_eq!(told[0], format!("BTC-USDT book invalid {cause}"));
        assert_eq!(told[2], format!("BTC-USDT status resyncing {cause}"));
        assert_eq!(rig.asked(), resubscribed());
        assert!(play(&mut rig, [4]).is_empty(), "what is under way changes nothing");
        assert_eq!(play(&mut rig, [1])[0], "BTC-USDT book snapshot 2/2");
        assert_eq!(play(&mut rig, [2])[0], "BTC-USDT book [1.4@50000] []");
    }
}

#[test]
fn without_a_chain_the_order_counts() {
    let mut rig = rig(&["BTC-USDT"]);
    let unchained = |n: usize| {
        let frame = frames(SESSION)[n].replace("\"pseq\"", "\"was\"");
        let (head, tail) = frame.split_once("\"checksum\":").expect("one");
        format!("{head}\"checksum\":0{}", &tail[tail.find(',').expect("more")..])
    };
    rig.frame(1, &unchained(1));
    rig.frame(1, &unchained(4));
    assert!(rig.faults().is_empty());
    rig.frame(1, &unchained(3));
    assert_eq!(rig.faults(), ["gap"]);
}

#[test]
fn resubscriptions_keep_to_the_hour() {
    let symbols: Vec<String> = (0..SYMBOLS_MAX).map(|i| format!("A{i}-USDT")).collect();
    let mut rig = Rig::new(Bitget::new(&symbols));
    rig.open(1, WEBSOCKET_URL);
    let (begin, mut asked) = (rig.now, 0);
    loop {
        rig.wait();
        if rig.now.since(begin) > 3_600_000_000_000 {
            break;
        }
        asked += rig.asked().len();
    }
    assert_eq!(asked, 2 * RESUBSCRIPTIONS_PER_HOUR_MAX);
}

#[test]
fn quotes_and_trades() {
    let mut rig = rig(&["BTC-USDT"]);
    assert_eq!(play(&mut rig, [5]), ["BTC-USDT quote 1.3@50000 1.9@50000.1"]);
    assert!(play(&mut rig, [6]).is_empty(), "the past");
    let two = ["BTC-USDT trade 1234 buy 0.25@50000.1", "BTC-USDT trade 1235 sell 0.02@50000.1"];
    assert_eq!(play(&mut rig, [7, 7]), two, "the newest comes first, each is told once");
    let again = frames(SESSION)[6].replace("1232", "1236");
    assert_eq!(rig.frame(1, &again), ["BTC-USDT trade 1236 buy 0.3@50000.1"], "what a new connection missed");
}

#[test]
fn one_name_is_several_instruments() {
    let mut rig = rig(&["BTC-USDT", "BTC-USDT-PERP"]);
    play(&mut rig, [1]);
    assert_eq!(play(&mut rig, [9]), ["BTC-USDT-PERP quote 2.71@50010 8.76@50010.2"]);
    assert_eq!(play(&mut rig, [10])[0], "BTC-USDT-PERP book snapshot 1/1");
    assert_eq!(play(&mut rig, [11]), ["BTC-USDT-PERP book [2.5@50010] []"]);
    assert_eq!(play(&mut rig, [12]), ["BTC-USDT-PERP trade 77 buy 0.01@50010.2"]);
    assert_eq!(rig.book("BTC-USDT").expect("live").bids().len(), 2);
    // A book is subscribed anew by the name of its kind.
    rig.frame(
        1,
        &frames(SESSION)[11].replace("\"pseq\":\"1343064377779269632\"", "\"pseq\":\"1\"").replace("9699", "9799"),
    );
    assert!(rig.asked()[0].contains(r#""instType":"USDT-FUTURES","channel":"books","instId":"BTCUSDT""#));
}

#[test]
fn the_old_protocol_differs_little() {
    let mut rig = Rig::new(Bitget::new(&[]));
    let told = play(&mut rig, 13..15);
    assert_eq!(told[1], "UNI-USDT-PERP book snapshot 1/1");
    assert_eq!(told[4], "UNI-USDT-PERP book [] [0@9.97,5@9.98]");
    assert!(play(&mut rig, [15]).is_empty());
    assert_eq!(
        play(&mut rig, [16]),
        ["UNI-USDT-PERP trade 1 sell 4@9.965", "UNI-USDT-PERP trade 2 buy 7@9.97"],
        "they have no ids"
    );
    assert!(play(&mut rig, 17..20).is_empty() && rig.faults().is_empty());
}

#[test]
fn pongs_errors_and_nonsense() {
    let mut rig = rig(&["BTC-USDT"]);
    assert!(rig.frame(1, "pong").is_empty() && rig.faults().is_empty());
    play(&mut rig, [8]);
    assert_eq!(rig.faults(), ["refused"]);
    for bad in ["", "ping", "[]", r#"{"arg":{"instType":"SPOT","channel":"books","instId":"X"},"data":[{"seq":"x"}]}"#]
    {
        assert!(rig.frame(1, bad).is_empty());
        assert_eq!(rig.faults(), ["undecodable"], "{bad}");
    }
    let told = rig.step(|a, now, out| a.silent(Conn(1), now, out));
    assert_eq!(told, ["BTC-USDT status stale silent"]);
    assert_eq!(rig.asked(), ["reconnect 1: silent"]);
}

#[test]
fn steps_come_from_the_lists_that_are_needed() {
    let mut rig = Rig::new(Bitget::new(&["BTC-USDT", "BTC-USDT-PERP", "ETH-USDT"].map(str::to_owned)));
    let url = rig.adapter.rules().instruments_url.expect("a list");
    assert!(url.ends_with("/spot/public/symbols"));
    rig.response(&url, SYMBOLS);
    let url = rig.asked()[0].strip_prefix("fetch ").expect("the other one").to_owned();
    assert!(url.ends_with("productType=USDT-FUTURES"));
    rig.response(&url, r#"{"code":"40017","msg":"no","data":null}"#);
    assert_eq!(rig.faults(), ["refused"]);
    rig.response(&url, CONTRACTS);
    rig.open(1, WEBSOCKET_URL);
    let steps: Vec<_> = rig.out.instruments.iter().map(|(_, i)| (i.tick_size, i.lot_size)).collect();
    let step = |units, digits| Some(Decimal::new(units, digits));
    assert_eq!(steps[..2], [(step(1, 2), step(1, 6)), (step(5, 1), step(1, 3))]);
    rig.step(|a, now, out| a.failed(&url, now, out));
    rig.wait();
    assert!(rig.asked().contains(&format!("fetch {}", rig.adapter.list_url().expect("one"))));
    // Dated contracts have their day from the list.
    let mut rig = Rig::new(Bitget::new(&["BTC-USD-20261225".to_owned()]));
    rig.response("https://api.bitget.com/api/v2/mix/market/contracts?productType=COIN-FUTURES", CONTRACTS);
    rig.open(1, WEBSOCKET_URL);
    assert_eq!(rig.out.instruments[0].1.native, "BTCUSDZ26");
    assert_eq!(rig.out.instruments[0].1.lot_size, step(1, 3));
}

#[test]
fn a_few_levels_are_the_book_where_it_does_not_come() {
    let mut rig = rig(&[]);
    let frame = |channel: &str, bids: &str| {
        format!(
            r#"{{"action":"snapshot","arg":{{"instType":"SPOT","channel":"{channel}","instId":"ETHUSDT"}},"data":[{{"asks":[["3001","2"]],"bids":{bids},"checksum":0,"seq":7,"ts":"1767607200000"}}],"ts":1767607200001}}"#
        )
    };
    assert_eq!(rig.frame(1, &frame("books5", r#"[["3000","1"]]"#))[1], "ETH-USDT book snapshot 1/1");
    let told = rig.frame(1, &frame("books15", r#"[["3000","1"],["2999","5"]]"#));
    assert_eq!(told[0], "ETH-USDT book [5@2999] []");
    assert!(rig.frame(1, &frame("books5", "[]")).is_empty(), "the deeper one is told");
}
