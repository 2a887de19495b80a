use super::*;
use crate::rig::{Rig, frames};

const SESSION: &str = include_str!("../../fixtures/kucoin/session.jsonl");
const DEPTH: &str = include_str!("../../fixtures/kucoin/depth.json");
const SYMBOLS: &str = include_str!("../../fixtures/kucoin/symbols.json");
const DEPTH_URL: &str = "https://api.kucoin.com/api/v3/market/orderbook/level2?symbol=BTC-USDT";

fn play(rig: &mut Rig<Kucoin>, which: impl IntoIterator<Item = usize>) -> Vec<String> {
    let session = frames(SESSION);
    which.into_iter().flat_map(|i| rig.frame(1, session[i])).collect()
}

fn live() -> Rig<Kucoin> {
    let mut rig = Rig::new(Kucoin::new(&["BTC-USDT".to_owned()]));
    rig.open(1, WEBSOCKET_URL);
    play(&mut rig, 0..5);
    rig.response(DEPTH_URL, DEPTH);
    rig
}

#[test]
fn it_subscribes_and_announces() {
    let mut rig = Rig::new(Kucoin::new(&["BTC-USDT".to_owned(), "ETH-USDT".to_owned()]));
    rig.response(SYMBOLS_URL, SYMBOLS);
    rig.open(1, WEBSOCKET_URL);
    assert_eq!(rig.out.instruments[0].1.lot_size, Some(ticker_market::Decimal::new(1, 8)));
    let asked = rig.asked();
    assert_eq!(asked.len(), 3);
    assert!(asked[2].contains(r#""topic":"/market/level2:BTC-USDT,ETH-USDT""#), "{asked:?}");
}

#[test]
fn changes_that_the_snapshot_has_are_passed_over_one_by_one() {
    let mut rig = Rig::new(Kucoin::new(&[]));
    assert_eq!(play(&mut rig, 0..3), ["BTC-USDT status resyncing awaiting_snapshot", "BTC-USDT quote 3@100 4@102"]);
    play(&mut rig, 3..5);
    let told = rig.response(DEPTH_URL, DEPTH);
    // Of the frame 100..103 the snapshot has all but the last, which says 8.
    assert_eq!(told, ["BTC-USDT book snapshot 2/2", "BTC-USDT quote 8@100 5@102", "BTC-USDT status live -"]);
    assert_eq!(play(&mut rig, [5]), ["BTC-USDT book [0@100] [1@101.5]", "BTC-USDT quote 3@99 1@101.5"]);
    assert_eq!(play(&mut rig, [6, 6]), ["BTC-USDT trade 6085c09769bc506996295e36 buy 0.5@101.5"]);
    assert!(play(&mut rig, [7]).is_empty(), "the ticker is later than the book");
    assert_eq!(play(&mut rig, [8]), ["BTC-USDT book [] [0.5@101.5]", "BTC-USDT quote 3@99 0.5@101.5"]);
    assert!(play(&mut rig, [8]).is_empty() && rig.faults().is_empty(), "again");
}

#[test]
fn a_gap_fetches_that_symbols_snapshot_again() {
    let mut rig = live();
    let told = play(&mut rig, [8]);
    assert_eq!(told, ["BTC-USDT book invalid gap", "BTC-USDT quote invalid gap", "BTC-USDT status resyncing gap"]);
    assert_eq!(rig.faults(), ["gap"]);
    rig.wait();
    assert_eq!(rig.asked(), [format!("fetch {DEPTH_URL}")]);
    let told = rig.response(DEPTH_URL, &DEPTH.replace("\"102\",\"bids\"", "\"106\",\"bids\""));
    assert_eq!(told[0], "BTC-USDT book snapshot 2/3");
    assert_eq!(told[2], "BTC-USDT status live -");
}

#[test]
fn a_closed_connection_makes_everything_stale() {
    let mut rig = live();
    let told = rig.step(|a, now, out| a.closed(Conn(1), "eof", now, out));
    assert_eq!(told, ["BTC-USDT book invalid stale", "BTC-USDT quote invalid stale", "BTC-USDT status stale eof"]);
    assert!(rig.response(DEPTH_URL, DEPTH).is_empty(), "too late");
    rig.step(|a, now, out| a.silent(Conn(1), now, out));
    assert_eq!(rig.asked(), ["reconnect 1: silent"]);
}

#[test]
fn refusals_and_nonsense_are_reported() {
    let mut rig = live();
    rig.response(DEPTH_URL, r#"{"code":"400100","msg":"Unsupported trading pair"}"#);
    assert_eq!(rig.faults(), ["refused"]);
    rig.frame(1, r#"{"id":"1","type":"error","code":404,"data":"topic does not exist"}"#);
    assert_eq!(rig.faults(), ["refused"]);
    let outside = frames(SESSION)[8].replace("\"107\"]", "\"109\"]");
    let wrong = [outside.as_str(), "", "[]", r#"{"type":"message","subject":"trade.l2update","data":[]}"#];
    for bad in wrong {
        assert!(rig.frame(1, bad).is_empty());
        assert_eq!(rig.faults(), ["undecodable"], "{bad}");
    }
    let told = rig.response(SYMBOLS_URL, &SYMBOLS.replace("true", "false"));
    assert_eq!(told, ["BTC-USDT status halted trading_disabled"]);
    rig.step(|a, now, out| a.failed(SYMBOLS_URL, now, out));
    rig.wait();
    assert_eq!(rig.asked(), [format!("fetch {SYMBOLS_URL}")]);
}

#[test]
fn a_connection_needs_a_ticket() {
    let mut rig = Rig::new(Kucoin::new(&["BTC-USDT".to_owned()]));
    assert_eq!(rig.adapter.rules().ticket_url, Some(TICKET_URL));
    let ticket = |endpoint: &str, token: &str| {
        format!(
            r#"{{"code":"200000","data":{{"token":"{token}","instanceServers":[{{"endpoint":"{endpoint}","encrypt":true,"protocol":"websocket","pingInterval":9000,"pingTimeout":10000}}]}}}}"#
        )
    };
    rig.response(TICKET_URL, &ticket("wss://ws-api-spot.kucoin.com/", "a-b_c+==.d"));
    let rules = rig.adapter.rules();
    assert_eq!(rules.websocket_url, "wss://ws-api-spot.kucoin.com/?token=a-b_c%2B==.d");
    assert_eq!((rules.ping_every, rules.silence_max), (Duration::from_secs(9), Duration::from_secs(22)));
    for (endpoint, token) in [("http://x/", "a"), ("wss://x/", "a&b"), ("wss://x/", "")] {
        rig.response(TICKET_URL, &ticket(endpoint, token));
        assert_eq!(rig.faults().len(), 1, "{endpoint} {token}");
        assert_eq!(rig.adapter.rules().websocket_url, WEBSOCKET_URL);
    }
    rig.response(TICKET_URL, r#"{"code":"429000","msg":"too many"}"#);
    assert_eq!(rig.faults().len(), 1);
    rig.step(|a, now, out| a.failed(TICKET_URL, now, out));
    assert!(rig.asked().is_empty() && rig.adapter.next_timer().is_none(), "the next connection asks again");
}

#[test]
fn a_side_of_the_ticker_may_be_null() {
    let mut rig = Rig::new(Kucoin::new(&["BTC-USDT".to_owned()]));
    rig.open(1, WEBSOCKET_URL);
    let frame = frames(SESSION)[2].replace("\"102\"", "null").replace("\"4\"", "null");
    let told = rig.frame(1, &frame);
    assert!(rig.faults().is_empty());
    assert_eq!(told.last().map(String::as_str), Some("BTC-USDT quote 3@100 -"));
}

#[test]
fn sequences_may_be_in_quotes() {
    let mut rig = live();
    let frame = frames(SESSION)[5];
    let quoted: String = [r#""sequenceStart":"#, r#""sequenceEnd":"#].iter().fold(frame.to_owned(), |text, key| {
        let (before, rest) = text.split_once(key).expect("a field");
        let digits = rest.find(|c: char| !c.is_ascii_digit()).expect("more follows");
        format!("{before}{key}\"{}\"{}", &rest[..digits], &rest[digits..])
    });
    let told = rig.frame(1, &quoted);
    assert_eq!(told, live().frame(1, frame));
    assert!(!told.is_empty() && rig.faults().is_empty());
}

#[test]
fn answers_to_what_others_asked_are_passed_over() {
    let mut rig = live();
    for url in [
        "https://api.kucoin.com/api/v1/bullet-private",
        "https://api.kucoin.com/api/v1/market/candles?type=1min&symbol=BTC-USDT",
        "",
    ] {
        assert!(rig.response(url, r#"{"code":"200000","data":{}}"#).is_empty() && rig.faults().is_empty(), "{url}");
    }
}

#[test]
fn the_best_levels_are_the_book_where_it_does_not_come() {
    let mut rig = Rig::new(Kucoin::new(&[]));
    let frame = |topic: &str| {
        format!(
            r#"{{"type":"message","topic":"{topic}:ETH-USDT","subject":"level2","data":{{"asks":[["3001","2"]],"bids":[["3000","1"]],"timestamp":1767607200000}}}}"#
        )
    };
    assert_eq!(rig.frame(1, &frame("/spotMarket/level2Depth50"))[1], "ETH-USDT book snapshot 1/1");
    assert!(rig.frame(1, &frame("/contractMarket/level2Depth5")).is_empty() && rig.faults().is_empty());
}
