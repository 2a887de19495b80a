use super::*;
use crate::rig::{Rig, frames};

const SESSION: &str = include_str!("../../fixtures/binance/session.jsonl");
const DEPTH: &str = include_str!("../../fixtures/binance/depth.json");
const INFO: &str = include_str!("../../fixtures/binance/exchangeInfo.json");
const DEPTH_URL: &str = "https://api.binance.com/api/v3/depth?symbol=BTCUSDT&limit=5000";

fn rig() -> Rig<Binance> {
    let adapter = Binance::new(&["BTC-USDT".to_owned()]);
    let url = adapter.rules().websocket_url;
    let mut rig = Rig::new(adapter);
    rig.open(1, &url);
    rig
}

fn play(rig: &mut Rig<Binance>, numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    let session = frames(SESSION);
    numbers.into_iter().flat_map(|n| rig.frame(1, session[n])).collect()
}

#[test]
fn the_subscription_is_in_the_url() {
    let rig = rig();
    let rules = rig.adapter.rules();
    assert_eq!(
        rules.websocket_url,
        "wss://stream.binance.com:9443/stream?streams=btcusdt@bookTicker/btcusdt@trade/btcusdt@depth@100ms"
    );
    assert_eq!(
        rules.instruments_url.as_deref(),
        Some("https://api.binance.com/api/v3/exchangeInfo?symbols=%5B%22BTCUSDT%22%5D")
    );
    assert_eq!(rig.out.instruments[0].1.symbol, "BTC-USDT");
    assert!(rig.out.commands.is_empty());
}

#[test]
fn a_book_is_a_snapshot_and_what_continues_it() {
    let mut rig = rig();
    play(&mut rig, [0, 1]);
    assert_eq!(rig.asked(), [format!("fetch {DEPTH_URL}")]);
    let told = play(&mut rig, 2..5);
    assert_eq!(told, ["BTC-USDT trade 7001 buy 0.1@50000.01"], "the book waits");
    assert!(rig.asked().is_empty(), "asked for once");
    // 103: the first difference is old, the second one spans it.
    let told = rig.response(DEPTH_URL, DEPTH);
    assert_eq!(told, ["BTC-USDT book snapshot 3/1", "BTC-USDT status live -"]);
    assert_eq!(rig.out.updates[0].ts, Some(Time::from_millis(1_767_607_200_109)), "of the last difference");
    let told = play(&mut rig, 5..11);
    assert_eq!(
        told,
        [
            "BTC-USDT book [] [1.8@50000.01]",
            "BTC-USDT trade 7002 sell 0.2@50000",
            "BTC-USDT quote 0.9@50000 1.8@50000.01",
            "BTC-USDT book [0.9@50000,1@49000] [2.5@50001]",
            "BTC-USDT book [0@49000] [0@50001,1@50002]",
        ]
    );
    let quote_ts: Vec<_> = rig.out.updates.iter().filter(|u| u.channel == ticker_market::Channel::Quote).collect();
    assert!(quote_ts.iter().all(|u| u.ts.is_none()), "bookTicker has no time");
}

#[test]
fn a_gap_fetches_that_symbols_snapshot_again() {
    let mut rig = rig();
    play(&mut rig, 0..5);
    rig.response(DEPTH_URL, DEPTH);
    let told = play(&mut rig, [8]);
    assert_eq!(rig.faults(), ["gap"]);
    assert_eq!(told, ["BTC-USDT book invalid gap", "BTC-USDT status resyncing gap"], "the quote is the ticker's own");
    assert!(rig.asked().is_empty(), "the last one was a moment ago");
    rig.wait();
    assert_eq!(rig.asked(), [format!("fetch {DEPTH_URL}")]);
    // One that is older than what waits is of no use.
    assert!(rig.response(DEPTH_URL, DEPTH).is_empty());
    rig.wait();
    assert_eq!(rig.asked(), [format!("fetch {DEPTH_URL}")]);
    let told = rig.response(DEPTH_URL, &DEPTH.replace(":103,", ":112,"));
    assert_eq!(told[0], "BTC-USDT book snapshot 4/3");
    assert_eq!(told[1], "BTC-USDT status live -");
    play(&mut rig, [10]);
    assert!(rig.faults().is_empty());
}

#[test]
fn old_and_repeated_differences_are_passed_over() {
    let mut rig = rig();
    play(&mut rig, 0..6);
    rig.response(DEPTH_URL, DEPTH);
    assert!(play(&mut rig, [5, 4, 2, 1]).is_empty());
    assert!(rig.faults().is_empty());
    assert!(rig.response(DEPTH_URL, DEPTH).is_empty(), "an answer that came twice");
    // In the wrong order: the later one shows a gap, the earlier one waits behind it.
    play(&mut rig, [10]);
    assert_eq!(rig.faults(), ["gap"]);
    play(&mut rig, [8]);
    assert!(rig.book("BTC-USDT").is_none());
}

#[test]
fn a_quiet_symbols_snapshot_is_fetched_by_the_timer() {
    let mut rig = rig();
    rig.wait();
    assert_eq!(rig.asked(), [format!("fetch {DEPTH_URL}")]);
    rig.step(|a, now, out| a.failed(DEPTH_URL, now, out));
    rig.wait();
    assert_eq!(rig.asked(), [format!("fetch {DEPTH_URL}")]);
    let told = rig.response(DEPTH_URL, DEPTH);
    assert_eq!(told[0], "BTC-USDT book snapshot 3/2");
    assert_eq!(told[1], "BTC-USDT quote 1.1@50000 1.95@50000.01", "until the ticker speaks");
    play(&mut rig, [2]);
    assert!(rig.faults().is_empty(), "the first difference may begin before the snapshot");
}

#[test]
fn snapshots_keep_to_the_venues_limit() {
    let symbols: Vec<String> = (0..50).map(|i| format!("A{i}-USDT")).collect();
    let adapter = Binance::new(&symbols);
    let url = adapter.rules().websocket_url;
    let mut rig = Rig::new(adapter);
    rig.open(1, &url);
    rig.wait();
    assert_eq!(rig.asked().len(), SNAPSHOTS_PER_MINUTE_MAX);
    let first = rig.now;
    rig.wait();
    assert_eq!(rig.asked().len(), SNAPSHOTS_PER_MINUTE_MAX);
    assert!(rig.now.since(first) >= 59_000_000_000);
}

#[test]
fn without_a_snapshot_quotes_and_trades_flow() {
    let mut rig = Rig::new(Binance::new(&[]));
    let told = play(&mut rig, 0..11);
    assert_eq!(told.iter().filter(|t| t.contains(" trade ")).count(), 2);
    assert_eq!(told.iter().filter(|t| t.contains(" quote ")).count(), 2);
    assert!(told.iter().all(|t| !t.contains(" book ")));
    assert_eq!(told[0], "BTC-USDT status resyncing awaiting_snapshot");
}

#[test]
fn a_snapshot_of_unknown_url_is_the_only_waiting_books() {
    let mut rig = Rig::new(Binance::new(&[]));
    play(&mut rig, 0..5);
    let told = rig.response("REST depth snapshot (URL not recorded)", DEPTH);
    assert_eq!(told[0], "BTC-USDT book snapshot 3/1");
}

#[test]
fn aggregates_are_trades_where_there_are_no_others() {
    let url = "wss://stream.binance.com:9443/stream?streams=zilusdt@aggTrade/btcusdt@aggTrade/btcusdt@trade";
    let mut rig = Rig::new(Binance::new(&[]));
    let told = rig.open(1, url);
    assert_eq!(told, ["ZIL-USDT status live -", "BTC-USDT status live -"], "no book was asked for");
    let told = play(&mut rig, [11, 12, 12]);
    assert_eq!(told, ["ZIL-USDT trade 31 sell 5@0.021", "ZIL-USDT trade 32 buy 7@0.0211"]);
    let aggregate = frames(SESSION)[11].replace("zilusdt", "btcusdt").replace("ZILUSDT", "BTCUSDT");
    assert!(rig.frame(1, &aggregate).is_empty(), "it would be told twice");
    assert_eq!(play(&mut rig, [3]).len(), 1);
}

#[test]
fn one_connection_replaces_another_without_a_break() {
    let mut rig = rig();
    play(&mut rig, 0..5);
    rig.response(DEPTH_URL, DEPTH);
    let url = rig.adapter.rules().websocket_url;
    rig.open(2, &url);
    let session = frames(SESSION);
    for frame in [session[5], session[7]] {
        assert_eq!(rig.frame(1, frame).len(), 1);
        assert!(rig.frame(2, frame).is_empty());
    }
    let told = rig.step(|a, now, out| a.closed(Conn(1), "age", now, out));
    assert!(told.is_empty(), "{told:?}");
    assert_eq!(rig.frame(2, session[8]).len(), 1);
    let told = rig.step(|a, now, out| a.closed(Conn(2), "eof", now, out));
    assert_eq!(told, ["BTC-USDT book invalid stale", "BTC-USDT quote invalid stale", "BTC-USDT status stale eof"]);
    assert!(rig.response(DEPTH_URL, DEPTH).is_empty(), "too late");
}

#[test]
fn a_shutdown_is_heeded() {
    let mut rig = rig();
    for frame in [r#"{"e":"serverShutdown","E":1}"#, r#"{"stream":"","data":{"e":"serverShutdown","E":1}}"#] {
        rig.frame(1, frame);
        assert_eq!(rig.asked(), ["reconnect 1: server_shutdown"], "{frame}");
    }
    rig.step(|a, now, out| a.silent(Conn(1), now, out));
    assert_eq!(rig.asked(), ["reconnect 1: silent"]);
}

#[test]
fn raw_streams_are_read_too() {
    let mut rig = Rig::new(Binance::new(&[]));
    for frame in frames(SESSION).into_iter().take(11) {
        let raw = frame.split_once(r#""data":"#).expect("combined").1;
        rig.frame(1, &raw[..raw.len() - 1]);
        assert!(rig.faults().is_empty(), "{raw}");
    }
    let told = rig.response(DEPTH_URL, DEPTH);
    assert!(told[0].starts_with("BTC-USDT book snapshot"), "{told:?}");
}

#[test]
fn steps_and_names_come_from_the_list() {
    let mut rig = Rig::new(Binance::new(&[]));
    rig.response("https://api.binance.com/api/v3/exchangeInfo", INFO);
    assert!(rig.out.instruments.is_empty());
    rig.frame(1, &frames(SESSION)[0].replace("BTCUSDT", "ABCXYZ"));
    assert_eq!(rig.out.instruments[0].1.symbol, "ABC-XYZ");
    rig.frame(1, frames(SESSION)[0]);
    let instrument = &rig.out.instruments[0].1;
    assert_eq!(instrument.tick_size, Some(ticker_market::Decimal::new(1, 2)));
    assert_eq!(instrument.lot_size, Some(ticker_market::Decimal::new(1, 5)));
}

#[test]
fn refusals_and_nonsense_are_reported() {
    let mut rig = rig();
    rig.response(DEPTH_URL, r#"{"code":-1121,"msg":"Invalid symbol."}"#);
    assert_eq!(rig.faults(), ["refused"]);
    rig.frame(1, r#"{"error":{"code":2,"msg":"Invalid request"},"id":1}"#);
    assert_eq!(rig.faults(), ["refused"]);
    assert!(rig.frame(1, r#"{"result":null,"id":1}"#).is_empty() && rig.faults().is_empty());
    for bad in ["", "[]", "7", r#"{"stream":"btcusdt@trade","data":{}}"#, r#"{"stream":"btcusdt@depth","data":[1]}"#] {
        assert!(rig.frame(1, bad).is_empty());
        assert_eq!(rig.faults(), ["undecodable"], "{bad}");
    }
}

#[test]
fn a_book_that_the_ticker_contradicts_is_fetched_again() {
    let mut rig = rig();
    play(&mut rig, 0..5);
    rig.response(DEPTH_URL, DEPTH);
    let at = |u: u64, bid: &str| {
        format!(
            r#"{{"stream":"btcusdt@bookTicker","data":{{"u":{u},"s":"BTCUSDT","b":"50000.00000000","B":"{bid}","a":"50000.01000000","A":"1.90000000"}}}}"#
        )
    };
    rig.frame(1, &at(108, "7"));
    assert!(rig.faults().is_empty(), "of another moment");
    rig.frame(1, &at(109, "1.1"));
    assert!(rig.faults().is_empty(), "the book's own");
    let told = rig.frame(1, &at(109, "7"));
    assert_eq!(rig.faults(), ["mismatch"]);
    assert!(told.contains(&"BTC-USDT book invalid mismatch".to_owned()), "{told:?}");
}

#[test]
fn a_live_book_is_held_against_a_snapshot_now_and_then() {
    let mut rig = rig();
    play(&mut rig, 0..5);
    rig.response(DEPTH_URL, DEPTH);
    rig.wait();
    assert_eq!((rig.asked(), rig.out.refreshes), (vec![format!("fetch {DEPTH_URL}")], 1));
    // Since then 110 came; the snapshot is of 109, and lacks what 105 to 109 changed.
    play(&mut rig, [5]);
    let told = rig.response(DEPTH_URL, &DEPTH.replace(":103,", ":109,"));
    assert_eq!(rig.faults(), ["mismatch"]);
    assert_eq!(told[0], "BTC-USDT book invalid mismatch");
    assert_eq!(rig.asked(), [format!("fetch {DEPTH_URL}")]);
}

#[test]
fn a_snapshot_that_the_book_does_not_reach_is_held_for_a_while() {
    let mut rig = rig();
    play(&mut rig, 0..5);
    rig.response(DEPTH_URL, DEPTH);
    rig.wait();
    // It is ahead of the book, and no difference comes any more.
    assert!(rig.response(DEPTH_URL, &DEPTH.replace(":103,", ":209,")).is_empty() && rig.faults().is_empty());
    let held = rig.now;
    let told = rig.wait();
    assert!(rig.now.since(held) >= crate::audit::REACHED_MAX_MS * 1_000_000, "not before");
    assert_eq!((rig.faults(), &*told[0]), (vec!["mismatch"], "BTC-USDT book invalid mismatch"));
    assert_eq!(rig.asked(), [format!("fetch {DEPTH_URL}")]);
}

#[test]
fn streams_of_all_symbols_are_read_or_passed_over() {
    let mut rig = Rig::new(Binance::new(&[]));
    let told = rig.frame(
        1,
        r#"{"stream":"!bookTicker","data":{"u":9,"s":"BTCUSDT","b":"50000.00","B":"1","a":"50001.00","A":"2"}}"#,
    );
    assert_eq!(told[1], "BTC-USDT quote 1@50000 2@50001");
    let list = r#"[{"e":"24hrTicker","E":1767607200000,"s":"BTCUSDT","c":"50000.00"}]"#;
    for frame in [format!(r#"{{"stream":"!ticker@arr","data":{list}}}"#), list.to_owned()] {
        assert!(rig.frame(1, &frame).is_empty() && rig.faults().is_empty(), "{frame}");
    }
    rig.frame(1, &list[..list.len() - 1]);
    assert_eq!(rig.faults(), ["undecodable"]);
}

#[test]
fn answers_to_what_others_asked_are_passed_over() {
    let mut rig = Rig::new(Binance::new(&[]));
    play(&mut rig, 0..2);
    assert!(rig.response("https://api.binance.com/api/v3/trades?symbol=BTCUSDT", "[]").is_empty());
    assert!(rig.faults().is_empty());
}
