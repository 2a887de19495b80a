use super::*;
use crate::rig::{Rig, frames};

const SESSION: &str = include_str!("../../fixtures/coinbase-exchange/session.jsonl");
const PRODUCTS: &str = include_str!("../../fixtures/coinbase-exchange/products.json");

fn rig() -> Rig<CoinbaseExchange> {
    let mut rig = Rig::new(CoinbaseExchange::new(&["BTC-USD".to_owned()]));
    rig.open(1, WEBSOCKET_URL);
    rig
}

fn play(rig: &mut Rig<CoinbaseExchange>, numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    let session = frames(SESSION);
    numbers.into_iter().flat_map(|n| rig.frame(1, session[n])).collect()
}

fn resubscribed() -> [String; 2] {
    ["unsubscribe", "subscribe"]
        .map(|method| format!(r#"send 1: {{"type":"{method}","product_ids":["BTC-USD"],"channels":["level2_batch"]}}"#))
}

#[test]
fn it_subscribes_within_the_limit() {
    assert_eq!(
        rig().asked(),
        [r#"send 1: {"type":"subscribe","product_ids":["BTC-USD"],"channels":["heartbeat","matches","level2_batch"]}"#]
    );
    let symbols: Vec<String> = (0..250).map(|i| format!("A{i}-USD")).collect();
    let mut rig = Rig::new(CoinbaseExchange::new(&symbols));
    rig.open(1, WEBSOCKET_URL);
    assert_eq!(rig.asked().len(), 3);
}

#[test]
fn a_book_and_its_trades_which_nothing_proves() {
    let mut rig = rig();
    let told = play(&mut rig, 0..6);
    assert_eq!(
        told,
        [
            "BTC-USD trade 70 buy 0.1@50000.01",
            "BTC-USD book snapshot 2/1",
            "BTC-USD quote 1@50000 2@50000.01",
            "BTC-USD status live -",
            "BTC-USD book [0@49999] [1.5@50000.01]",
            "BTC-USD quote 1@50000 1.5@50000.01",
            "BTC-USD trade 71 sell 0.2@50000",
        ],
        "sides are the taker's"
    );
    let mut out = Out::default();
    rig.adapter.retell(rig.now, &mut out);
    let integrity = out.updates.iter().find_map(|u| match &u.data {
        ticker_market::Data::Status(status) => Some(status.integrity),
        _ => None,
    });
    assert_eq!(integrity, Some(Integrity::None));
}

#[test]
fn a_missing_trade_subscribes_that_book_anew() {
    let mut rig = rig();
    play(&mut rig, 0..5);
    let told = play(&mut rig, [7]);
    assert_eq!(rig.faults(), ["gap"]);
    assert_eq!(told[0], "BTC-USD trade 73 buy 0.3@50000.01");
    assert_eq!(told[1], "BTC-USD book invalid gap");
    assert_eq!(rig.asked(), resubscribed());
    assert!(play(&mut rig, [4]).is_empty(), "what is under way changes nothing");
    assert_eq!(play(&mut rig, [3])[0], "BTC-USD book snapshot 2/1");
    assert!(play(&mut rig, [7]).is_empty() && rig.faults().is_empty(), "repeated");
}

#[test]
fn two_heartbeats_tell_a_missing_trade() {
    let mut rig = rig();
    play(&mut rig, 0..6);
    assert!(play(&mut rig, [6]).is_empty() && rig.faults().is_empty(), "it may come yet");
    let told = play(&mut rig, [6]);
    assert_eq!(rig.faults(), ["gap"]);
    assert_eq!(told[0], "BTC-USD book invalid gap");
    // And where it comes, nothing is wrong.
    let mut rig = self::rig();
    play(&mut rig, 0..7);
    rig.frame(1, &frames(SESSION)[5].replace("71", "72"));
    play(&mut rig, [6, 6, 6]);
    assert!(rig.faults().is_empty());
}

#[test]
fn a_crossed_book_and_a_lost_connection_are_not_shown() {
    let mut rig = rig();
    play(&mut rig, 0..5);
    let told =
        rig.frame(1, &frames(SESSION)[4].replace("[\"buy\",\"49999.00\",\"0\"]", "[\"buy\",\"50000.01\",\"9\"]"));
    assert_eq!(rig.faults(), ["crossed"]);
    assert_eq!(told[0], "BTC-USD book invalid crossed");
    play(&mut rig, [3]);
    let told = rig.step(|a, now, out| a.silent(Conn(1), now, out));
    assert_eq!(told.last().map(String::as_str), Some("BTC-USD status stale silent"));
    assert_eq!(rig.asked(), ["reconnect 1: silent"]);
    rig.open(2, WEBSOCKET_URL);
    assert_eq!(rig.frame(2, frames(SESSION)[3])[0], "BTC-USD book snapshot 2/1");
}

#[test]
fn steps_come_from_the_list_and_errors_are_reported() {
    let mut rig = Rig::new(CoinbaseExchange::new(&["BTC-USD".to_owned(), "NO-PE".to_owned()]));
    rig.response(PRODUCTS_URL, PRODUCTS);
    rig.open(1, WEBSOCKET_URL);
    assert_eq!(rig.faults(), ["refused"], "not in the list");
    let instrument = &rig.out.instruments[0].1;
    assert_eq!(instrument.tick_size, Some(ticker_market::Decimal::new(1, 2)));
    assert_eq!(instrument.lot_size, Some(ticker_market::Decimal::new(1, 8)));
    rig.frame(1, r#"{"type":"error","message":"Failed to subscribe","reason":"NO-PE is not a valid product"}"#);
    assert_eq!(rig.faults(), ["refused"]);
    for bad in ["", "[]", "{}", r#"{"type":"l2update","product_id":"X","changes":[["buy"]]}"#] {
        assert!(rig.frame(1, bad).is_empty());
        assert_eq!(rig.faults(), ["undecodable"], "{bad}");
    }
}

#[test]
fn after_what_cannot_be_read_the_books_are_asked_for_again() {
    let mut rig = rig();
    play(&mut rig, 0..5);
    let told = rig.frame(1, r#"{"type":"l2update","product_id":"BTC-USD","changes":[["buy","1","0.-1"]]}"#);
    assert_eq!(told[0], "BTC-USD book invalid undecodable");
    assert_eq!(rig.faults(), ["undecodable"]);
    assert_eq!(rig.asked(), resubscribed());
}

#[test]
fn a_book_that_nothing_proves_is_asked_for_now_and_then() {
    let mut rig = rig();
    play(&mut rig, 0..6);
    let begun = rig.now;
    rig.wait();
    assert!(rig.now.since(begun) > (crate::resync::REFRESH_EVERY_MS - 1_000) * 1_000_000, "not at once");
    assert_eq!((rig.asked(), rig.out.refreshes), (resubscribed().to_vec(), 1));
    assert!(rig.book("BTC-USD").is_some(), "what is shown stays until the new one is there");
    let snapshot = frames(SESSION).into_iter().find(|f| f.contains(r#""type":"snapshot""#)).expect("one");
    assert!(rig.frame(1, snapshot)[0].contains("book snapshot"));
    rig.wait();
    assert_eq!((rig.asked(), rig.faults()), (resubscribed().to_vec(), vec![]));
    rig.wait();
    assert_eq!(rig.faults(), ["gap"], "this one did not come");
    assert!(rig.book("BTC-USD").is_none());
}
