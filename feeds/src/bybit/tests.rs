use super::*;
use crate::rig::{Rig, frames};

const SESSION: &str = include_str!("../../fixtures/bybit/session.jsonl");
const LIST: &str = include_str!("../../fixtures/bybit/instruments.json");
const LINEAR_URL: &str = "wss://stream.bybit.com/v5/public/linear";

fn rig() -> Rig<Bybit> {
    let mut rig = Rig::new(Bybit::new(Category::Linear, &["BTC-USDT-PERP".to_owned()]));
    rig.open(1, LINEAR_URL);
    rig
}

fn play(rig: &mut Rig<Bybit>, numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    let session = frames(SESSION);
    numbers.into_iter().flat_map(|n| rig.frame(1, session[n])).collect()
}

#[test]
fn it_subscribes_within_the_limit() {
    let rig = rig();
    assert_eq!(
        rig.asked(),
        [r#"send 1: {"op":"subscribe","args":["orderbook.1.BTCUSDT","publicTrade.BTCUSDT","orderbook.200.BTCUSDT"]}"#]
    );
    let rules = rig.adapter.rules();
    assert_eq!((rules.venue, rules.websocket_url.as_str()), ("bybit-linear", LINEAR_URL));
    assert_eq!(rules.ping_text, Some(r#"{"op":"ping"}"#));
    let symbols: Vec<String> = (0..25).map(|i| format!("A{i}-USDT")).collect();
    let mut rig = Rig::new(Bybit::new(Category::Spot, &symbols));
    rig.open(1, "");
    assert_eq!(rig.asked().len(), 8);
    for text in rig.asked() {
        let frame: serde_json::Value =
            serde_json::from_str(text.strip_prefix("send 1: ").expect("sent")).expect("JSON");
        assert!(frame["args"].as_array().expect("a list").len() <= TOPICS_PER_SUBSCRIPTION_MAX);
    }
    let symbols: Vec<String> = (0..1_000).map(|i| format!("A{i}-USDT")).collect();
    let mut rig = Rig::new(Bybit::new(Category::Spot, &symbols));
    rig.open(1, "");
    assert!(rig.asked().iter().map(|text| text.len() - 40).sum::<usize>() < TOPICS_BYTES_MAX);
    assert!(rig.faults().len() > 500);
}

#[test]
fn a_book_is_a_snapshot_and_deltas_one_by_one() {
    let mut rig = rig();
    let told = play(&mut rig, 0..5);
    assert_eq!(
        told,
        [
            "BTC-USDT-PERP book snapshot 2/2",
            "BTC-USDT-PERP quote 1.5@50000 2@50000.1",
            "BTC-USDT-PERP status live -",
            "BTC-USDT-PERP book [1.4@50000] []",
            "BTC-USDT-PERP quote 1.4@50000 2@50000.1",
            "BTC-USDT-PERP book [0@49999.9] [0@50000.1,0.7@50000.2]",
            "BTC-USDT-PERP quote 1.4@50000 0.7@50000.2",
            "BTC-USDT-PERP book [] [1.1@50000.3]",
        ]
    );
    assert_eq!(rig.out.updates[0].ts, Some(Time::from_millis(1_767_607_200_300)), "the matching engine's");
    assert!(play(&mut rig, [4, 2]).is_empty() && rig.faults().is_empty(), "repeated");
}

#[test]
fn a_gap_subscribes_that_topic_anew() {
    let mut rig = rig();
    play(&mut rig, 0..3);
    let told = play(&mut rig, [4]);
    assert_eq!(rig.faults(), ["gap"]);
    assert_eq!(
        told,
        ["BTC-USDT-PERP book invalid gap", "BTC-USDT-PERP quote invalid gap", "BTC-USDT-PERP status resyncing gap"]
    );
    let asked = [
        r#"send 1: {"op":"unsubscribe","args":["orderbook.200.BTCUSDT"]}"#,
        r#"send 1: {"op":"subscribe","args":["orderbook.200.BTCUSDT"]}"#,
    ];
    assert_eq!(rig.asked(), asked);
    assert!(play(&mut rig, [3]).is_empty(), "what is under way changes nothing");
    assert_eq!(play(&mut rig, [1])[0], "BTC-USDT-PERP book snapshot 2/2");
    play(&mut rig, [3]);
    assert_eq!(rig.faults(), ["gap"]);
    assert!(rig.asked().is_empty(), "the last one was a moment ago");
    rig.wait();
    assert_eq!(rig.asked(), asked);
}

#[test]
fn a_reset_is_a_snapshot_whatever_it_calls_itself() {
    let mut rig = rig();
    play(&mut rig, 0..4);
    let told = play(&mut rig, [5]);
    assert_eq!(told, ["BTC-USDT-PERP book snapshot 1/1", "BTC-USDT-PERP quote 0.5@49000 0.6@49001"]);
    assert_eq!(play(&mut rig, [6])[0], "BTC-USDT-PERP book [0.55@49000] []");
    assert!(rig.faults().is_empty());
}

#[test]
fn a_snapshot_that_comes_again_is_no_news() {
    let mut rig = rig();
    play(&mut rig, 0..2);
    assert!(play(&mut rig, [1]).is_empty());
    play(&mut rig, [2]);
    assert!(rig.faults().is_empty());
}

#[test]
fn quotes_come_from_the_book_of_depth_one() {
    let mut rig = rig();
    assert_eq!(play(&mut rig, [7]), ["BTC-USDT-PERP quote 1.5@50000 2@50000.1"]);
    assert!(play(&mut rig, [7]).is_empty(), "again after three quiet seconds");
    assert_eq!(play(&mut rig, [8]), ["BTC-USDT-PERP quote 3@49999.9 2@50000.1"]);
    assert_eq!(play(&mut rig, [9]), ["BTC-USDT-PERP quote invalid gap"]);
    assert_eq!(rig.faults(), ["gap"]);
    assert!(play(&mut rig, [9]).is_empty(), "until the next snapshot");
    assert_eq!(play(&mut rig, [7]), ["BTC-USDT-PERP quote anew 1.5@50000 2@50000.1"]);
    let told = play(&mut rig, 1..3);
    assert!(told.iter().all(|t| !t.contains("quote")), "{told:?}");
}

#[test]
fn trades_are_told_once() {
    let mut rig = rig();
    assert_eq!(
        play(&mut rig, [10]),
        [
            "BTC-USDT-PERP trade a9188a0a-82bc-50de-be60-03eedbe3cdd7 buy 0.25@50000.1",
            "BTC-USDT-PERP trade 0c188a0a-82bc-50de-be60-03eedbe3cdd7 sell 0.1@50000",
        ]
    );
    rig.open(2, LINEAR_URL);
    assert!(rig.frame(2, frames(SESSION)[10]).is_empty());
}

#[test]
fn pongs_and_other_topics_say_nothing_and_refusals_are_reported() {
    let mut rig = rig();
    assert!(play(&mut rig, [0, 11, 12, 14]).is_empty() && rig.faults().is_empty());
    assert!(play(&mut rig, [13]).is_empty());
    assert_eq!(rig.faults(), ["refused"]);
    for bad in ["", "[]", r#"{"topic":"orderbook.200.X","data":{}}"#, r#"{"topic":"publicTrade.X","data":[{}]}"#] {
        assert!(rig.frame(1, bad).is_empty());
        assert_eq!(rig.faults(), ["undecodable"], "{bad}");
    }
}

#[test]
fn a_crossed_book_is_not_shown() {
    let mut rig = rig();
    play(&mut rig, 0..2);
    let told = rig.frame(1, &frames(SESSION)[2].replace("50000.00", "50000.10"));
    assert_eq!(told[0], "BTC-USDT-PERP book invalid crossed");
    assert_eq!(rig.faults(), ["crossed"]);
    assert!(rig.book("BTC-USDT-PERP").is_none());
}

#[test]
fn a_lost_connection_and_a_new_one() {
    let mut rig = rig();
    play(&mut rig, [0, 1, 7]);
    rig.open(2, LINEAR_URL);
    assert_eq!(rig.frame(2, frames(SESSION)[1])[0], "BTC-USDT-PERP book snapshot 2/2");
    assert!(play(&mut rig, [2]).is_empty(), "the new connection has it");
    let told = rig.step(|a, now, out| a.silent(Conn(2), now, out));
    assert_eq!(told.last().map(String::as_str), Some("BTC-USDT-PERP status stale silent"));
    assert_eq!(rig.asked(), ["reconnect 2: silent"]);
    let told = rig.step(|a, now, out| a.closed(Conn(1), "eof", now, out));
    assert!(told.is_empty());
}

#[test]
fn a_subscription_without_an_answer_is_asked_for_again() {
    let mut rig = rig();
    rig.wait();
    assert_eq!(rig.asked().len(), 2);
}

#[test]
fn names_and_steps_come_from_the_list() {
    let mut rig = Rig::new(Bybit::new(Category::Linear, &["BTC-USDT-20260925".to_owned(), "X-USDT-PERP".to_owned()]));
    rig.response("https://api.bybit.com/v5/market/instruments-info?category=linear", LIST);
    assert!(rig.asked()[0].ends_with("category=linear&limit=1000&cursor=page2"), "{:?}", rig.asked());
    rig.open(1, LINEAR_URL);
    assert_eq!(rig.faults(), ["refused"], "not in the list");
    assert!(rig.asked()[0].contains("orderbook.1.BTCUSDT-25SEP26"));
    let instrument = &rig.out.instruments[0].1;
    assert_eq!((&*instrument.symbol, &*instrument.native), ("BTC-USDT-20260925", "BTCUSDT-25SEP26"));
    assert_eq!(instrument.tick_size, Some(ticker_market::Decimal::new(1, 1)));
    assert_eq!(instrument.lot_size, Some(ticker_market::Decimal::new(1, 3)));
}

#[test]
fn names_are_known_without_the_list() {
    for (category, native, symbol) in [
        (Category::Spot, "BTCUSDT", "BTC-USDT"),
        (Category::Linear, "BTCUSDT", "BTC-USDT-PERP"),
        (Category::Linear, "BTCPERP", "BTC-USDC-PERP"),
        (Category::Linear, "BTCUSDT-25SEP26", "BTC-USDT-20260925"),
        (Category::Linear, "ETH-5JAN27", "ETH-USDC-20270105"),
        (Category::Inverse, "BTCUSD", "BTC-USD-PERP"),
    ] {
        assert_eq!(category.by_name(native), symbol);
        assert_eq!(category.native(symbol), native);
    }
    assert_eq!(Category::Inverse.by_name("BTCUSDZ26"), "BTCUSDZ26");
}

#[test]
fn several_categories_play_as_one() {
    let mut rig = Rig::new(all());
    rig.open(1, "wss://stream.bybit.com/v5/public/spot");
    rig.open(2, LINEAR_URL);
    let session = frames(SESSION);
    assert_eq!(rig.frame(2, session[1])[1], "BTC-USDT-PERP book snapshot 2/2");
    assert_eq!(rig.out.instruments[0].1.venue, "bybit-linear");
    assert_eq!(rig.frame(1, session[1])[1], "BTC-USDT book snapshot 2/2");
    assert_eq!((rig.out.instruments[0].0, &*rig.out.instruments[0].1.venue), (1, "bybit-spot"));
    let told = rig.step(|a, now, out| a.closed(Conn(2), "eof", now, out));
    assert!(told.iter().all(|t| t.starts_with("BTC-USDT-PERP")), "{told:?}");
    assert_eq!(rig.step(|a, now, out| a.end("over", now, out)).len(), 2);
}

#[test]
fn a_recording_of_depth_one_alone_has_that_book() {
    let top = |u: u64, bid: &str| {
        format!(
            r#"{{"topic":"orderbook.1.BTCUSDT","type":"snapshot","ts":1767607200002,"data":{{"s":"BTCUSDT","b":[["{bid}","1.5"]],"a":[["50000.10","2"]],"u":{u},"seq":{u}}},"cts":1767607200000}}"#
        )
    };
    let mut rig = Rig::new(Bybit::new(Category::Linear, &[]));
    let told = rig.frame(1, &top(7, "50000.00"));
    assert_eq!(
        told,
        [
            "BTC-USDT-PERP status resyncing awaiting_snapshot",
            "BTC-USDT-PERP quote 1.5@50000 2@50000.1",
            "BTC-USDT-PERP book snapshot 1/1",
            "BTC-USDT-PERP status live -",
        ]
    );
    let told = rig.frame(1, &top(8, "49999.90"));
    assert_eq!(told[1], "BTC-USDT-PERP book [0@50000,1.5@49999.9] []");
    // A deeper book has the place, with its snapshot: changes alone do not.
    let session = frames(SESSION);
    assert!(rig.frame(1, session[2]).is_empty());
    assert_eq!(rig.frame(1, session[1])[0], "BTC-USDT-PERP book snapshot 2/2");
    assert_eq!(rig.frame(1, &top(9, "50000.05")), ["BTC-USDT-PERP quote 1.5@50000.05 2@50000.1"]);
    // Live, the deep book is on its way.
    let mut rig = self::rig();
    assert_eq!(rig.frame(1, &top(7, "50000.00")), ["BTC-USDT-PERP quote 1.5@50000 2@50000.1"]);
}
