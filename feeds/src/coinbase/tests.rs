use super::*;
use crate::rig::{Rig, frames};

const SESSION: &str = include_str!("../../fixtures/coinbase/session.jsonl");
const PRODUCTS: &str = include_str!("../../fixtures/coinbase/products.json");

fn rig() -> Rig<Coinbase> {
    let mut rig = Rig::new(Coinbase::new(&["BTC-USD".to_owned(), "ETH-USD".to_owned()]));
    rig.response(PRODUCTS_URL, PRODUCTS);
    rig.open(1, WEBSOCKET_URL);
    rig
}

/// Feeds the session's frames of these numbers.
fn play(rig: &mut Rig<Coinbase>, conn: u32, numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    let session = frames(SESSION);
    numbers.into_iter().flat_map(|n| rig.frame(conn, session[n])).collect()
}

#[test]
fn it_subscribes_to_products_that_are_listed() {
    let mut rig = Rig::new(Coinbase::new(&["BTC-USD".to_owned(), "FOO-USD".to_owned()]));
    rig.response(PRODUCTS_URL, PRODUCTS);
    assert!(rig.out.instruments.is_empty(), "not the whole list");
    let told = rig.open(1, WEBSOCKET_URL);
    assert_eq!(told, ["BTC-USD status resyncing awaiting_snapshot"]);
    assert_eq!(rig.faults(), ["refused"], "FOO-USD");
    assert_eq!(rig.out.instruments[0].1.tick_size, Some(ticker_market::Decimal::new(1, 2)));
    let asked = rig.asked();
    assert_eq!(asked.len(), 4);
    assert_eq!(asked[3], r#"send 1: {"type":"subscribe","product_ids":["BTC-USD"],"channel":"level2"}"#);
}

#[test]
fn a_whole_session() {
    let mut rig = rig();
    let count = frames(SESSION).len();
    let told = play(&mut rig, 1, 0..count);
    assert!(rig.faults().is_empty());
    let trades: Vec<&String> = told.iter().filter(|t| t.contains(" trade ")).collect();
    // The venue gives the maker's side, newest first, and repeats what the history had.
    assert_eq!(
        trades,
        [
            "BTC-USD trade 10 sell 0.1@100.01",
            "BTC-USD trade 11 sell 0.2@100.01",
            "BTC-USD trade 12 buy 0.3@100.02",
            "BTC-USD trade 13 buy 0.05@100.02",
            "BTC-USD trade 14 buy 0.15@100.02",
        ]
    );
    assert!(told.contains(&"BTC-USD book [3@99.75] [0.5@100.02]".to_owned()), "no delete of the unknown: {told:?}");
    assert!(told.contains(&"BTC-USD quote 1.5@100.01 0.5@100.02".to_owned()), "the top moved between trades");
    assert!(told.contains(&"ETH-USD quote 2@10.4 -".to_owned()), "a side may be empty");
    assert_eq!(rig.book("BTC-USD").expect("live").bids().len(), 3);
    let ts: Vec<_> = rig.out.updates.iter().map(|u| u.ts).collect();
    assert_eq!(ts, [Time::parse_rfc3339("2026-01-05T10:00:00.123456789Z")]);
}

#[test]
fn a_gap_suspects_every_book_of_the_connection() {
    let mut rig = rig();
    play(&mut rig, 1, 0..7);
    let told = play(&mut rig, 1, [8]);
    assert_eq!(rig.faults(), ["gap"]);
    assert_eq!(rig.asked(), ["reconnect 1: gap"]);
    for told_of_it in ["BTC-USD book invalid gap", "ETH-USD book invalid gap", "ETH-USD status resyncing gap"] {
        assert!(told.contains(&told_of_it.to_owned()), "{told_of_it}: {told:?}");
    }
    // Trades are as true as before; books wait.
    assert_eq!(told.iter().filter(|t| t.contains("trade")).count(), 2);
    let told = play(&mut rig, 1, 9..15);
    assert!(told.iter().all(|t| !t.contains("book")), "{told:?}");
    assert!(rig.faults().is_empty() && rig.asked().is_empty(), "asked for once");
    // The new connection begins at zero, and its snapshots end it.
    rig.step(|a, now, out| a.closed(Conn(1), "gap", now, out));
    rig.open(2, WEBSOCKET_URL);
    let told = play(&mut rig, 2, 0..8);
    assert!(rig.faults().is_empty());
    assert!(told.contains(&"BTC-USD status live -".to_owned()) && told.contains(&"ETH-USD status live -".to_owned()));
    assert!(told.iter().all(|t| !t.contains("trade")), "the history was told already: {told:?}");
}

#[test]
fn any_lost_frame_is_a_gap_heartbeats_and_answers_too() {
    for lost in 1..14 {
        let mut rig = rig();
        play(&mut rig, 1, 0..lost);
        play(&mut rig, 1, [lost + 1]);
        assert_eq!(rig.faults(), ["gap"], "frame {lost}");
    }
}

#[test]
fn a_repeated_frame_is_passed_over_and_a_late_one_is_a_gap() {
    let mut rig = rig();
    play(&mut rig, 1, 0..8);
    assert!(play(&mut rig, 1, [7]).is_empty());
    assert_eq!(rig.faults(), ["gap"], "reported");
    assert!(rig.book("BTC-USD").is_some(), "and nothing is lost");
    play(&mut rig, 1, [9]);
    assert!(rig.book("BTC-USD").is_none());
    play(&mut rig, 1, [8, 10]);
    assert!(rig.book("BTC-USD").is_none());
}

#[test]
fn what_cannot_be_decoded_leaves_a_gap() {
    let mut rig = rig();
    play(&mut rig, 1, 0..7);
    let broken = frames(SESSION)[7].replace("new_quantity", "old_quantity");
    assert!(rig.frame(1, &broken).is_empty());
    assert_eq!(rig.faults(), ["undecodable"]);
    assert!(rig.book("BTC-USD").is_some());
    play(&mut rig, 1, [8]);
    assert_eq!(rig.faults(), ["gap"]);
    assert!(rig.book("BTC-USD").is_none());
}

#[test]
fn a_crossed_book_is_subscribed_anew_alone() {
    let mut rig = rig();
    play(&mut rig, 1, 0..7);
    let crossed = frames(SESSION)[7].replace("\"99.75\"", "\"100.03\"");
    rig.frame(1, &crossed);
    assert_eq!(rig.faults(), ["crossed"]);
    assert_eq!(rig.asked().len(), 2);
    assert!(rig.asked()[1].contains(r#"{"type":"subscribe","product_ids":["BTC-USD"],"channel":"level2"}"#));
    assert!(rig.book("ETH-USD").is_some());
}

#[test]
fn reconnects_are_rate_limited() {
    let mut rig = rig();
    let mut reconnects = Vec::new();
    for conn in 1..6 {
        play(&mut rig, conn, [0, 2]);
        if rig.asked().is_empty() {
            rig.wait();
        }
        while !rig.asked().iter().any(|a| a.starts_with("reconnect")) {
            rig.wait();
        }
        reconnects.push(rig.now);
        rig.step(|a, now, out| a.closed(Conn(conn), "gap", now, out));
        rig.open(conn + 1, WEBSOCKET_URL);
    }
    let waits: Vec<i64> = reconnects.windows(2).map(|w| w[1].since(w[0]) / 1_000_000_000).collect();
    assert_eq!(waits, [1, 2, 4, 8]);
}

#[test]
fn a_closed_connection_makes_everything_stale() {
    let mut rig = rig();
    play(&mut rig, 1, 0..7);
    let told = rig.step(|a, now, out| a.closed(Conn(1), "eof", now, out));
    assert_eq!(told.iter().filter(|t| t.contains("invalid stale")).count(), 4);
    assert_eq!(told.iter().filter(|t| t.ends_with("status stale eof")).count(), 2);
    let told = rig.step(|a, now, out| a.end("replay_ended", now, out));
    assert_eq!(told, ["BTC-USD status closed replay_ended", "ETH-USD status closed replay_ended"]);
}

#[test]
fn a_missing_snapshot_is_asked_for() {
    let mut rig = rig();
    play(&mut rig, 1, 0..3);
    rig.wait();
    assert_eq!(rig.asked().len(), 4, "{:?}", rig.asked());
}

#[test]
fn errors_and_a_failed_list_are_handled() {
    let mut rig = rig();
    rig.frame(1, r#"{"type":"error","message":"rate limit exceeded"}"#);
    assert_eq!(rig.faults(), ["refused"]);
    rig.step(|a, now, out| a.failed(PRODUCTS_URL, now, out));
    assert!(rig.asked().is_empty());
    while !rig.asked().iter().any(|a| a.starts_with("fetch")) {
        rig.wait();
    }
    rig.response(PRODUCTS_URL, "<html>");
    assert_eq!(rig.faults(), ["undecodable"]);
}

#[test]
fn a_product_that_cannot_trade_is_halted() {
    let mut rig = rig();
    play(&mut rig, 1, 0..7);
    let told = rig.response(PRODUCTS_URL, &PRODUCTS.replacen("false", "true", 1));
    assert_eq!(told, ["BTC-USD status halted trading_disabled"]);
}
