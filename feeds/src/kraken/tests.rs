use ticker_market::Levels;

use super::*;
use crate::rig::{Rig, frames};

const BOOK: &str = include_str!("../../fixtures/kraken/book.jsonl");
const AGAIN: &str = include_str!("../../fixtures/kraken/again.jsonl");
const OTHER: &str = include_str!("../../fixtures/kraken/other.jsonl");

fn rig() -> Rig<Kraken> {
    let mut rig = Rig::new(Kraken::new(&["BTC-USD".to_owned(), "XRP-EUR".to_owned()]));
    rig.open(1, WEBSOCKET_URL);
    rig
}

/// The frames that update one symbol's book.
fn updates(symbol: &str) -> Vec<&'static str> {
    let is_update = |f: &&str| f.contains(r#""type":"update""#) && f.contains(r#""channel":"book""#);
    frames(BOOK).into_iter().filter(|f| is_update(f) && f.contains(symbol)).collect()
}

/// Everything before the first update.
fn begin(rig: &mut Rig<Kraken>) {
    for frame in frames(BOOK).into_iter().take(5) {
        rig.frame(1, frame);
        assert!(rig.faults().is_empty(), "{frame}");
    }
    assert!(rig.book("BTC-USD").is_some() && rig.book("XRP-EUR").is_some());
}

#[test]
fn it_subscribes_and_announces() {
    let mut rig = Rig::new(Kraken::new(&["BTC-USD".to_owned(), "no such".to_owned()]));
    let told = rig.open(1, WEBSOCKET_URL);
    assert_eq!(told, ["BTC-USD status resyncing awaiting_snapshot"]);
    assert_eq!(rig.faults(), ["refused"], "a symbol that cannot be");
    let asked = rig.asked();
    assert_eq!(
        asked[1],
        r#"send 1: {"method":"subscribe","params":{"channel":"book","depth":25,"symbol":["BTC/USD"]}}"#
    );
    assert_eq!(asked.len(), 4);
    for text in asked {
        let text = text.strip_prefix("send 1: ").expect("sent");
        serde_json::from_str::<serde_json::Value>(text).expect("JSON");
    }
}

#[test]
fn a_whole_session_is_verified_frame_by_frame() {
    let mut rig = rig();
    for frame in frames(BOOK) {
        rig.frame(1, frame);
        assert!(rig.faults().is_empty(), "{frame}");
    }
    assert_eq!(rig.book("BTC-USD").expect("live").asks().len(), 10);
    assert_eq!(rig.book("XRP-EUR").expect("live").asks().len(), 25);
    assert!(rig.adapter.book("BTC/USD").is_some());
}

#[test]
fn levels_below_the_depth_are_removed() {
    let mut rig = rig();
    begin(&mut rig);
    let told = rig.frame(1, updates("BTC/USD")[0]);
    let removed: Vec<&String> = told.iter().filter(|t| t.contains("book") && t.contains(",0@")).collect();
    assert_eq!(removed.len(), 1, "the new best bid pushes out the worst: {told:?}");
    assert_eq!(rig.book("BTC-USD").expect("live").bids().len(), 10);
}

#[test]
fn the_depth_is_that_of_the_snapshot_where_nobody_said_it() {
    let mut rig = Rig::new(Kraken::new(&[]));
    // A change from before the snapshot does not say it.
    rig.frame(1, updates("XRP/EUR")[0]);
    for frame in frames(BOOK).into_iter().skip(3) {
        rig.frame(1, frame);
        assert!(rig.faults().is_empty(), "{frame}");
    }
    assert_eq!(rig.book("XRP-EUR").expect("live").asks().len(), 25);
}

#[test]
fn a_dropped_frame_resyncs_that_symbol_alone() {
    let mut rig = rig();
    begin(&mut rig);
    let updates = updates("BTC/USD");
    // The first changes the top of the book; the second, without it, cannot match.
    let told = rig.frame(1, updates[3]);
    assert_eq!(rig.faults(), ["checksum"]);
    assert_eq!(
        told,
        ["BTC-USD book invalid checksum", "BTC-USD quote invalid checksum", "BTC-USD status resyncing checksum"]
    );
    let asked = rig.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked[0].contains("unsubscribe") && asked[0].contains("BTC/USD"));
    assert!(asked[1].contains(r#""method":"subscribe""#) && asked[1].contains(r#""depth":10"#));
    // What is still under way changes nothing.
    assert!(rig.frame(1, updates[4]).is_empty());
    assert!(rig.book("XRP-EUR").is_some());
    let told = rig.frame(1, frames(AGAIN)[0]);
    assert!(told[0].starts_with("BTC-USD book snapshot "), "{told:?}");
    assert!(told[1].starts_with("BTC-USD quote anew "), "{told:?}");
    assert_eq!(told[2], "BTC-USD status live -");
}

#[test]
fn a_bad_checksum_is_not_shown_and_resyncs_are_rate_limited() {
    let mut rig = rig();
    begin(&mut rig);
    let head = frames(AGAIN)[0].split(r#""checksum":"#).next().expect("a frame with a checksum");
    let bad = format!(r#"{head}"checksum":1,"timestamp":""}}]}}"#);
    rig.frame(1, &bad);
    assert_eq!(rig.faults(), ["checksum"]);
    assert_eq!(rig.asked().len(), 2, "at once");
    rig.frame(1, &bad);
    assert_eq!(rig.faults(), ["checksum"]);
    assert!(rig.asked().is_empty(), "not yet");
    let before = rig.now;
    rig.wait();
    assert_eq!(rig.asked().len(), 2);
    assert!(rig.now.since(before) > 900_000_000, "a second later");
    assert!(rig.book("BTC-USD").is_none());
    rig.frame(1, frames(AGAIN)[0]);
    assert!(rig.book("BTC-USD").is_some());
}

#[test]
fn frames_in_the_wrong_order_are_found() {
    let mut rig = rig();
    begin(&mut rig);
    let updates = updates("BTC/USD");
    rig.frame(1, updates[1]);
    assert_eq!(rig.faults(), ["checksum"]);
    assert!(rig.frame(1, updates[0]).is_empty());
    assert!(rig.book("BTC-USD").is_none());
}

#[test]
fn a_repeated_frame_changes_nothing() {
    let mut rig = rig();
    begin(&mut rig);
    let updates = updates("BTC/USD");
    rig.frame(1, updates[0]);
    let told = rig.frame(1, updates[0]);
    assert!(told.is_empty() && rig.faults().is_empty(), "{told:?}");
}

#[test]
fn a_closed_connection_makes_everything_stale() {
    let mut rig = rig();
    begin(&mut rig);
    let told = rig.step(|a, now, out| a.closed(Conn(1), "eof", now, out));
    assert_eq!(told.iter().filter(|t| t.contains("invalid stale")).count(), 4, "books and quotes: {told:?}");
    assert_eq!(told.iter().filter(|t| t.ends_with("status stale eof")).count(), 2);
    let told = rig.open(2, WEBSOCKET_URL);
    assert_eq!(told.iter().filter(|t| t.ends_with("resyncing awaiting_snapshot")).count(), 2);
    rig.frame(2, frames(AGAIN)[0]);
    assert!(rig.book("BTC-USD").is_some() && rig.book("XRP-EUR").is_none());
}

#[test]
fn a_mute_connection_is_stale_and_made_anew() {
    let mut rig = rig();
    begin(&mut rig);
    let told = rig.step(|a, now, out| a.silent(Conn(1), now, out));
    assert!(told.contains(&"BTC-USD status stale silent".to_owned()), "{told:?}");
    assert_eq!(rig.asked(), ["reconnect 1: silent"]);
}

#[test]
fn a_subscription_without_an_answer_is_asked_for_again() {
    let mut rig = rig();
    rig.wait();
    assert_eq!(rig.asked().len(), 4, "both books: {:?}", rig.asked());
}

#[test]
fn a_book_that_somebody_unsubscribed_does_not_stay_live() {
    let mut rig = rig();
    begin(&mut rig);
    rig.frame(1, &frames(BOOK)[1].replace(r#""method":"subscribe""#, r#""method":"unsubscribe""#));
    assert!(rig.book("BTC-USD").is_some(), "a renewal is under way");
    rig.wait();
    assert_eq!(rig.faults(), ["gap"]);
    assert!(rig.book("BTC-USD").is_none());
}

#[test]
fn deep_books_are_refreshed_now_and_then() {
    let mut rig = rig();
    begin(&mut rig);
    let mut asked = Vec::new();
    for _ in 0..4 {
        rig.wait();
        asked.extend(rig.asked());
    }
    assert!(asked.iter().any(|a| a.contains("XRP/EUR")), "{asked:?}");
    assert!(!asked.iter().any(|a| a.contains("BTC/USD")), "the checksum sees all ten levels: {asked:?}");
}

#[test]
fn a_new_connection_takes_over_with_its_snapshot() {
    let mut rig = rig();
    begin(&mut rig);
    rig.open(2, WEBSOCKET_URL);
    let updates = updates("BTC/USD");
    assert!(!rig.frame(1, updates[0]).is_empty(), "the old one goes on");
    rig.frame(2, frames(BOOK)[3]);
    assert!(rig.frame(1, updates[1]).is_empty(), "the new one has it");
    let told = rig.step(|a, now, out| a.closed(Conn(1), "eof", now, out));
    assert!(!told.iter().any(|t| t.starts_with("BTC-USD")), "{told:?}");
    assert!(rig.book("BTC-USD").is_some());
}

#[test]
fn trades_are_told_once_and_oldest_first() {
    let mut rig = Rig::new(Kraken::new(&[]));
    let other = frames(OTHER);
    let told = rig.frame(1, other[1]);
    assert_eq!(
        told[1..],
        ["BTC-USD trade 101 sell 0.1@64000", "BTC-USD trade 102 buy 0.2@64000.1", "BTC-USD trade 103 buy 0.5@64000.2"]
    );
    assert_eq!(rig.frame(1, other[2]), ["BTC-USD trade 104 sell 0.000051@63999.9"]);
    assert!(rig.frame(1, other[1]).is_empty(), "a new connection's history");
}

#[test]
fn quotes_come_from_the_ticker_once_it_speaks() {
    let mut rig = rig();
    begin(&mut rig);
    let other = frames(OTHER);
    assert_eq!(rig.frame(1, other[3]), ["BTC-USD quote 0.51@63999.9 0.25@64000.1"]);
    let told = rig.frame(1, updates("BTC/USD")[0]);
    assert!(told.iter().all(|t| !t.contains("quote")), "{told:?}");
    assert_eq!(rig.frame(1, other[4]), ["BTC-USD quote 0.000051@64000 0.25@64000.1"]);
    let crossed = other[4].replace("\"bid\":64000.0", "\"bid\":64000.1");
    assert_eq!(rig.frame(1, &crossed), ["BTC-USD quote invalid crossed"]);
    assert_eq!(rig.frame(1, other[4]), ["BTC-USD quote anew 0.000051@64000 0.25@64000.1"]);
}

#[test]
fn steps_refusals_and_halts_are_told() {
    let mut rig = rig();
    begin(&mut rig);
    let other = frames(OTHER);
    rig.frame(1, other[0]);
    let steps: Vec<_> = rig.out.instruments.iter().map(|(_, i)| (i.tick_size, i.lot_size)).collect();
    assert_eq!(steps[0], (Some(Decimal::new(1, 1)), Some(Decimal::new(1, 8))));
    assert_eq!(steps.len(), 2);
    rig.frame(1, other[5]);
    assert_eq!(rig.faults(), ["refused"]);
    let told = rig.frame(1, other[6]);
    assert_eq!(told, ["BTC-USD status halted maintenance", "XRP-EUR status halted maintenance"]);
    assert_eq!(rig.frame(1, other[7]), ["BTC-USD status live -", "XRP-EUR status live -"]);
    assert!(rig.frame(1, other[8]).is_empty() && rig.faults().is_empty());
}

/// A frame with its numbers as most JSON libraries write them.
fn without_zeros(frame: &str) -> String {
    let parts = frame.split_inclusive([',', '}']).map(|part| match part.rsplit_once(':') {
        Some((key, value)) if key.ends_with("\"price\"") || key.ends_with("\"qty\"") => {
            let (number, end) = value.split_at(value.len() - 1);
            format!("{key}:{}{end}", number.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => part.to_owned(),
    });
    parts.collect()
}

#[test]
fn a_checksum_is_over_zeros_that_the_frame_leaves_out() {
    let mut rig = rig();
    for frame in frames(BOOK) {
        let short = without_zeros(frame);
        assert!(short.len() < frame.len() || !frame.contains("qty"), "{short}");
        rig.frame(1, &short);
        assert!(rig.faults().is_empty(), "{short}");
    }
    assert_eq!(rig.book("BTC-USD").expect("live").asks().len(), 10);
}

#[test]
fn what_is_refused_for_now_is_asked_for_again() {
    let mut rig = Rig::new(Kraken::new(&["BTC-USD".to_owned()]));
    rig.open(1, WEBSOCKET_URL);
    let refused =
        |error: &str| format!(r#"{{"method":"subscribe","success":false,"error":"{error}","symbol":"BTC/USD"}}"#);
    let mut waits = Vec::new();
    for _ in 0..3 {
        assert!(rig.frame(1, &refused("EService:Unavailable")).is_empty(), "it still waits for its book");
        let since = rig.now;
        rig.wait();
        assert!(rig.asked().iter().any(|asked| asked.contains(r#""subscribe","params":{"channel":"book""#)));
        waits.push(rig.now.since(since) / 1_000_000);
    }
    assert_eq!(waits, [1, 1_000, 2_000], "at growing distances");
    assert_eq!(rig.frame(1, &refused("Currency pair not supported BTC/USD")), ["BTC-USD status closed refused"]);
}

#[test]
fn what_cannot_be_decoded_is_reported_and_changes_nothing() {
    let mut rig = rig();
    begin(&mut rig);
    let long = format!("{{\"channel\":\"book\",{}", "x".repeat(1_000));
    for bad in ["", "null", "[]", "{\"channel\":\"book\",\"data\":[{}]}", "\u{0}", long.as_str()] {
        assert!(rig.frame(1, bad).is_empty(), "{bad}");
        assert_eq!(rig.faults(), ["undecodable"], "{bad}");
        assert!(rig.out.reports[0].detail.len() <= crate::REPORT_BYTES);
    }
    let told = rig.step(|a, now, out| a.frame(Conn(1), &[0xff, 0xfe], now, out));
    assert!(told.is_empty());
    assert_eq!(rig.faults(), ["undecodable"]);
}

#[test]
fn the_checksum_is_that_of_the_documents() {
    // The wire's digits, not the value: 0.00005100 counts as 5100.
    let mut book = Book::new();
    let level = |price: &str, size: &str| ticker_market::Level {
        price: ticker_market::decimal::parse(price).expect(price),
        size: ticker_market::decimal::parse(size).expect(size),
    };
    let levels =
        Levels { bids: vec![level("64.10", "0.00005100")], asks: vec![level("64.2", "1.50")], ..Levels::default() };
    book.replace(&levels).expect("fits");
    assert_eq!(checksum(&book), crc32fast::hash(b"64215064105100"));
}

#[test]
fn digits_are_those_of_the_number() {
    let put = |value: Decimal| {
        let mut text = [0; 64];
        let length = put_digits(&mut text, value);
        String::from_utf8(text[..length].to_vec()).expect("digits")
    };
    assert_eq!(put(Decimal::ZERO), "");
    let mut rng = fastrand::Rng::with_seed(17);
    for _ in 0..100_000 {
        let number = rng.u128(..1 << 96) >> rng.u32(..96);
        if number > 0 {
            assert_eq!(put(Decimal::from_i128_with_scale(number as i128, rng.u32(..28))), number.to_string());
        }
    }
}
