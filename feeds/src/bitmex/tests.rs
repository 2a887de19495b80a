use super::*;
use crate::rig::{Rig, frames};

const SESSION: &str = include_str!("../../fixtures/bitmex/session.jsonl");
const INSTRUMENTS: &str = include_str!("../../fixtures/bitmex/instruments.json");

fn play(rig: &mut Rig<Bitmex>, which: impl IntoIterator<Item = usize>) -> Vec<String> {
    let session = frames(SESSION);
    which.into_iter().flat_map(|i| rig.frame(1, session[i])).collect()
}

fn live() -> Rig<Bitmex> {
    let mut rig = Rig::new(Bitmex::new(&["BTC-USD-PERP".to_owned()]));
    rig.response(INSTRUMENTS_URL, INSTRUMENTS);
    rig.open(1, WEBSOCKET_URL);
    play(&mut rig, 0..4);
    rig
}

#[test]
fn it_subscribes_to_what_is_listed() {
    let mut rig = Rig::new(Bitmex::new(&["BTC-USD-PERP".to_owned(), "NO-SUCH".to_owned()]));
    rig.response(INSTRUMENTS_URL, INSTRUMENTS);
    rig.open(1, WEBSOCKET_URL);
    let tables = r#"["trade:XBTUSD","quote:XBTUSD","orderBookL2:XBTUSD"]"#;
    assert_eq!(rig.asked(), [format!(r#"send 1: {{"op":"subscribe","args":{tables}}}"#)]);
    assert_eq!(rig.faults(), ["refused"]);
    assert_eq!(rig.out.instruments[0].1.tick_size, Some(Decimal::new(5, 1)));
}

#[test]
fn a_whole_session() {
    let mut rig = Rig::new(Bitmex::new(&[]));
    rig.response(INSTRUMENTS_URL, INSTRUMENTS);
    assert_eq!(play(&mut rig, 0..3), ["BTC-USD-PERP status resyncing awaiting_snapshot"], "before the partial");
    assert_eq!(
        play(&mut rig, [3]),
        ["BTC-USD-PERP book snapshot 2/1", "BTC-USD-PERP quote 100@50000 200@50001.5", "BTC-USD-PERP status live -"]
    );
    assert_eq!(
        play(&mut rig, [4]),
        ["BTC-USD-PERP book [120@50000] []", "BTC-USD-PERP quote 120@50000 200@50001.5"],
        "a price that is told again is the same"
    );
    assert_eq!(play(&mut rig, [5]), ["BTC-USD-PERP book [] [7@50001]", "BTC-USD-PERP quote 120@50000 7@50001"]);
    assert_eq!(play(&mut rig, [6]), ["BTC-USD-PERP book [0@49999] []"]);
    assert!(play(&mut rig, [7]).is_empty(), "the same quote");
    assert!(play(&mut rig, [8]).is_empty(), "a trade of the past");
    assert_eq!(play(&mut rig, [9, 9]), ["BTC-USD-PERP trade 00000000-006d-1000-0000-000e8737d540 sell 10@50000"]);
    assert_eq!(play(&mut rig, [10]), ["BTC-USD-PERP book [] [8@50001]"], "the ticker has the quotes");
    assert!(rig.faults().is_empty());
}

#[test]
fn an_unknown_row_subscribes_that_book_alone_anew() {
    let mut rig = live();
    let told = play(&mut rig, [10]);
    assert_eq!(
        told,
        ["BTC-USD-PERP book invalid gap", "BTC-USD-PERP quote invalid gap", "BTC-USD-PERP status resyncing gap"]
    );
    assert_eq!(rig.faults(), ["gap"]);
    let asked =
        ["unsubscribe", "subscribe"].map(|m| format!(r#"send 1: {{"op":"{m}","args":["orderBookL2:XBTUSD"]}}"#));
    assert_eq!(rig.asked(), asked);
    assert!(play(&mut rig, [5]).is_empty(), "nothing before the partial");
    assert_eq!(play(&mut rig, [3])[0], "BTC-USD-PERP book snapshot 2/1");
    play(&mut rig, [5]);
    play(&mut rig, [5]);
    assert_eq!(rig.faults(), ["gap"], "inserted twice");
    assert!(rig.asked().is_empty(), "not at once again");
    rig.wait();
    assert_eq!(rig.asked().len(), 2);
}

#[test]
fn a_closed_connection_makes_everything_stale() {
    let mut rig = live();
    play(&mut rig, [8, 9]);
    let told = rig.step(|a, now, out| a.closed(Conn(1), "eof", now, out));
    assert_eq!(
        told,
        ["BTC-USD-PERP book invalid stale", "BTC-USD-PERP quote invalid stale", "BTC-USD-PERP status stale eof"]
    );
    rig.open(2, WEBSOCKET_URL);
    assert_eq!(rig.frame(2, frames(SESSION)[3])[0], "BTC-USD-PERP book snapshot 2/1");
    // The table of trades begins anew: what was missed is told, what was told is not.
    let missed = frames(SESSION)[8].replace("39744121", "39744122");
    assert!(rig.frame(2, frames(SESSION)[8]).is_empty());
    assert_eq!(rig.frame(2, &missed).len(), 1);
    rig.step(|a, now, out| a.silent(Conn(2), now, out));
    assert_eq!(rig.asked(), ["reconnect 2: silent"]);
}

#[test]
fn refusals_halts_and_nonsense_are_reported() {
    let mut rig = live();
    rig.frame(1, r#"{"status":400,"error":"Unknown table: x","meta":{},"request":{"op":"subscribe","args":"x"}}"#);
    assert_eq!(rig.faults(), ["refused"]);
    assert!(rig.frame(1, "pong").is_empty() && rig.faults().is_empty());
    for (at, bad) in ["", "[]", r#"{"table":"quote","action":"insert","data":[{}]}"#].into_iter().enumerate() {
        // Nothing would show what it changed.
        let told = rig.frame(1, bad);
        assert_eq!(told.iter().any(|told| told.contains("invalid")), at == 0, "{told:?}");
        assert_eq!(rig.faults(), ["undecodable"], "{bad}");
    }
    let told = rig.response(INSTRUMENTS_URL, &INSTRUMENTS.replace("Open", "Closed"));
    assert_eq!(told, ["BTC-USD-PERP status halted closed"]);
    rig.step(|a, now, out| a.failed(INSTRUMENTS_URL, now, out));
    // The book that is suspect is asked for as well.
    let mut asked = Vec::new();
    for _ in 0..3 {
        rig.wait();
        asked.extend(rig.asked());
    }
    assert!(asked.contains(&format!("fetch {INSTRUMENTS_URL}")), "{asked:?}");
}

#[test]
fn prices_of_an_index_are_no_trades() {
    let mut rig = live();
    let row = r#"{"timestamp":"2026-01-05T10:00:00.000Z","symbol":"XBTUSD","side":null,"size":null,"price":90000.1,"trdMatchID":"00000000-0000-0000-0000-000000000000","trdType":"Referential"}"#;
    for row in [row.to_owned(), row.replace("\"size\":null", "\"size\":0")] {
        assert!(rig.frame(1, &format!(r#"{{"table":"trade","action":"insert","data":[{row}]}}"#)).is_empty());
        assert!(rig.faults().is_empty());
    }
}
