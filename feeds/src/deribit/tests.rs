use super::*;
use crate::rig::{Rig, frames};

const SESSION: &str = include_str!("../../fixtures/deribit/session.jsonl");
const INSTRUMENTS: &str = include_str!("../../fixtures/deribit/instruments.json");

fn play(rig: &mut Rig<Deribit>, which: impl IntoIterator<Item = usize>) -> Vec<String> {
    let session = frames(SESSION);
    which.into_iter().flat_map(|i| rig.frame(1, session[i])).collect()
}

fn live() -> Rig<Deribit> {
    let mut rig = Rig::new(Deribit::new(&["BTC-USD-PERP".to_owned()]));
    rig.open(1, WEBSOCKET_URL);
    play(&mut rig, 0..2);
    rig
}

#[test]
fn names_are_read_both_ways() {
    for (name, symbol) in [
        ("BTC-PERPETUAL", "BTC-USD-PERP"),
        ("SOL_USDC-PERPETUAL", "SOL-USDC-PERP"),
        ("BTC_USDC", "BTC-USDC"),
        ("BTC-26SEP25", "BTC-26SEP25"),
        ("BTC-25MAR22-50000-C", "BTC-25MAR22-50000-C"),
    ] {
        assert_eq!((normal(name).as_str(), native(symbol).as_str()), (symbol, name));
    }
    assert_eq!(normal("XRP_USDC-30JUN23-0d5-C"), "XRP_USDC-30JUN23-0D5-C");
}

#[test]
fn it_subscribes_to_what_is_listed() {
    let option = "XRP_USDC-30JUN23-0D5-C".to_owned();
    let mut rig = Rig::new(Deribit::new(&["SOL-USDC-PERP".to_owned(), option]));
    rig.response(INSTRUMENTS_URL, INSTRUMENTS);
    rig.open(1, WEBSOCKET_URL);
    let asked = rig.asked();
    assert_eq!(asked.len(), 2);
    assert!(asked[1].contains(r#""book.SOL_USDC-PERPETUAL.100ms""#), "{asked:?}");
    assert!(asked[1].contains(r#""trades.XRP_USDC-30JUN23-0d5-C.100ms""#), "its own letters: {asked:?}");
    assert_eq!(rig.out.instruments[0].1.tick_size, Some(Decimal::new(1, 3)));
}

#[test]
fn a_whole_session() {
    let mut rig = Rig::new(Deribit::new(&[]));
    assert_eq!(
        play(&mut rig, 0..2),
        [
            "BTC-USD-PERP status resyncing awaiting_snapshot",
            "BTC-USD-PERP book snapshot 2/1",
            "BTC-USD-PERP quote 10@50000 5@50001",
            "BTC-USD-PERP status live -"
        ]
    );
    assert_eq!(
        play(&mut rig, [2]),
        ["BTC-USD-PERP book [30@50000,0@49999.5] [7@50002.5]", "BTC-USD-PERP quote 30@50000 5@50001"]
    );
    assert!(play(&mut rig, [3]).is_empty(), "the same quote");
    assert_eq!(play(&mut rig, [4, 4]), ["BTC-USD-PERP trade 900 buy 10@50001", "BTC-USD-PERP trade 901 sell 10@50000"]);
    assert_eq!(play(&mut rig, [5]), ["BTC-USD-PERP book [] [0@50002.5]"]);
    assert_eq!(play(&mut rig, [6]), ["BTC-USD-PERP book [1@49000] []"]);
    let told = play(&mut rig, [7]);
    assert_eq!(told[1], "ETH-7MAY21-2100-C quote 2@0.0001 -", "an exponent");
    play(&mut rig, [8]);
    assert_eq!(rig.asked(), [r#"send 1: {"jsonrpc":"2.0","id":8,"method":"public/test","params":{}}"#]);
    assert!(rig.faults().is_empty());
}

#[test]
fn a_gap_subscribes_that_book_alone_anew() {
    let mut rig = live();
    let told = play(&mut rig, [5]);
    assert_eq!(
        told,
        ["BTC-USD-PERP book invalid gap", "BTC-USD-PERP quote invalid gap", "BTC-USD-PERP status resyncing gap"]
    );
    assert_eq!(rig.faults(), ["gap"]);
    let channel = r#"{"channels":["book.BTC-PERPETUAL.100ms"]}"#;
    assert_eq!(
        rig.asked(),
        ["unsubscribe", "subscribe"]
            .map(|m| format!(r#"send 1: {{"jsonrpc":"2.0","id":1,"method":"public/{m}","params":{channel}}}"#))
    );
    assert!(play(&mut rig, [6]).is_empty(), "nothing before the snapshot");
    let told = play(&mut rig, [1]);
    assert_eq!(told[0], "BTC-USD-PERP book snapshot 2/1");
    play(&mut rig, [5]);
    assert_eq!(rig.faults(), ["gap"]);
    assert!(rig.asked().is_empty(), "not at once again");
    rig.wait();
    assert_eq!(rig.asked().len(), 2);
}

#[test]
fn a_crossed_book_is_not_shown() {
    let mut rig = live();
    let crossed = frames(SESSION)[2].replace("50002.5,7.0", "49999.0,7.0");
    assert_eq!(rig.frame(1, &crossed)[0], "BTC-USD-PERP book invalid crossed");
    assert_eq!(rig.faults(), ["crossed"]);
}

#[test]
fn a_closed_connection_makes_everything_stale() {
    let mut rig = live();
    let told = rig.step(|a, now, out| a.closed(Conn(1), "eof", now, out));
    assert_eq!(
        told,
        ["BTC-USD-PERP book invalid stale", "BTC-USD-PERP quote invalid stale", "BTC-USD-PERP status stale eof"]
    );
    rig.open(2, WEBSOCKET_URL);
    assert!(rig.frame(2, frames(SESSION)[2]).is_empty(), "no change before the snapshot");
    assert_eq!(rig.frame(2, frames(SESSION)[1])[0], "BTC-USD-PERP book snapshot 2/1");
    rig.step(|a, now, out| a.silent(Conn(2), now, out));
    assert_eq!(rig.asked(), ["reconnect 2: silent"]);
}

#[test]
fn refusals_halts_and_nonsense_are_reported() {
    let mut rig = live();
    rig.frame(1, r#"{"jsonrpc":"2.0","id":1,"error":{"code":13778,"message":"raw_subscriptions_not_available"}}"#);
    assert_eq!(rig.faults(), ["refused"]);
    for bad in ["", "[]", r#"{"method":"subscription","params":{"channel":"book.X.raw","data":{}}}"#] {
        assert!(rig.frame(1, bad).is_empty());
        assert_eq!(rig.faults(), ["undecodable"], "{bad}");
    }
    let told = rig.response(INSTRUMENTS_URL, &INSTRUMENTS.replace("true", "false"));
    assert_eq!(told, ["BTC-USD-PERP status halted closed"]);
    rig.step(|a, now, out| a.failed(INSTRUMENTS_URL, now, out));
    rig.wait();
    assert!(rig.asked().contains(&format!("fetch {INSTRUMENTS_URL}")));
}

#[test]
fn books_of_grouped_prices_are_others() {
    let mut rig = live();
    let window = |group: &str, sides: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"book.BTC-PERPETUAL.{group}.10.100ms","data":{{"timestamp":1767607200500,"instrument_name":"BTC-PERPETUAL","change_id":900,{sides}}}}}}}"#
        )
    };
    let empty = r#""bids":[],"asks":[]"#;
    let full = r#""bids":[[49990,2e1]],"asks":[[50010,5.0]]"#;
    for frame in [window("5", full), window("5", empty), window("none", full), window("none", empty)] {
        assert!(rig.frame(1, &frame).is_empty() && rig.faults().is_empty(), "the book itself is there: {frame}");
    }
    let mut rig = Rig::new(Deribit::new(&[]));
    assert!(rig.frame(1, &window("5", full)).is_empty());
    let told = rig.frame(1, &window("none", full));
    assert_eq!(told[1], "BTC-USD-PERP book snapshot 1/1");
    assert_eq!(rig.frame(1, &window("none", empty))[0], "BTC-USD-PERP book [0@49990] [0@50010]");
}
