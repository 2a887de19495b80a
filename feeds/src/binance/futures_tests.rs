use super::*;
use crate::rig::{Rig, frames};

const SESSION: &str = include_str!("../../fixtures/binance-usdm/session.jsonl");
const DEPTH: &str = include_str!("../../fixtures/binance-usdm/depth.json");
const INFO: &str = include_str!("../../fixtures/binance-usdm/exchangeInfo.json");
const DEPTH_URL: &str = "https://fapi.binance.com/fapi/v1/depth?symbol=BTCUSDT&limit=1000";

fn rig() -> Rig<Binance> {
    let adapter = Binance::of(Market::UsdM, &["BTC-USDT-PERP".to_owned()]);
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
fn each_market_has_its_addresses() {
    let rules = rig().adapter.rules();
    assert_eq!(rules.venue, "binance-usdm");
    assert_eq!(
        rules.websocket_url,
        "wss://fstream.binance.com/public/stream?streams=btcusdt@bookTicker/btcusdt@trade/btcusdt@depth@100ms"
    );
    assert_eq!(rules.instruments_url.as_deref(), Some("https://fapi.binance.com/fapi/v1/exchangeInfo"));
    let rules = Binance::of(Market::CoinM, &["BTC-USD-PERP".to_owned()]).rules();
    assert_eq!(rules.venue, "binance-coinm");
    assert!(rules.websocket_url.starts_with("wss://dstream.binance.com/stream?streams=btcusd_perp@bookTicker/"));
}

#[test]
fn a_book_follows_the_chain() {
    let mut rig = rig();
    play(&mut rig, [0, 1]);
    assert_eq!(rig.asked(), [format!("fetch {DEPTH_URL}")]);
    let told = play(&mut rig, 2..6);
    assert_eq!(told, ["BTC-USDT-PERP trade 71 buy 0.25@50000.1"], "what the insurance fund takes over is no trade");
    // 1050 lies inside the second difference.
    let told = rig.response(DEPTH_URL, DEPTH);
    assert_eq!(told[0], "BTC-USDT-PERP book snapshot 2/1");
    assert_eq!(told[1], "BTC-USDT-PERP status live -");
    let told = play(&mut rig, 6..9);
    assert!(rig.faults().is_empty());
    assert_eq!(
        told,
        [
            "BTC-USDT-PERP book [] [1.75@50000.1]",
            "BTC-USDT-PERP book [0.9@50000] [4@50001]",
            "BTC-USDT-PERP book [0@49999.9] []"
        ]
    );
    assert!(play(&mut rig, [8, 7, 1]).is_empty() && rig.faults().is_empty(), "old ones");
}

#[test]
fn the_difference_that_ends_where_the_snapshot_does_is_applied_to_it() {
    // 1060 is the last of the third frame; the snapshot lacks what that says of 49999.90.
    let short = DEPTH.replace("1050", "1060").replace("3.000", "2.000");
    let size = |rig: &Rig<Binance>| rig.book("BTC-USDT-PERP").and_then(|book| book.bids().next_back()).map(|l| l.size);
    let whole = Some(ticker_market::Decimal::new(3, 0));
    let mut waited = rig();
    play(&mut waited, 0..3);
    waited.response(DEPTH_URL, &short);
    assert_eq!(size(&waited), whole);
    let mut late = rig();
    play(&mut late, 0..2);
    late.response(DEPTH_URL, &short);
    assert_eq!(play(&mut late, [2]), ["BTC-USDT-PERP book [3@49999.9] []"]);
    assert_eq!(play(&mut late, [6]), ["BTC-USDT-PERP book [] [1.75@50000.1]"], "the chain goes on");
    assert!(late.faults().is_empty() && waited.faults().is_empty());
}

#[test]
fn a_broken_chain_fetches_the_snapshot_again() {
    let mut rig = rig();
    play(&mut rig, 0..3);
    rig.response(DEPTH_URL, DEPTH);
    // The frame that spot would call a gap is none here; one whose `pu` is another one's is.
    play(&mut rig, [6]);
    assert!(rig.faults().is_empty());
    let told = play(&mut rig, [8]);
    assert_eq!(rig.faults(), ["gap"]);
    assert_eq!(told, ["BTC-USDT-PERP book invalid gap", "BTC-USDT-PERP status resyncing gap"]);
    rig.wait();
    assert_eq!(rig.asked(), [format!("fetch {DEPTH_URL}")]);
    let told = rig.response(DEPTH_URL, &DEPTH.replace("1050", "1155"));
    assert_eq!(told, ["BTC-USDT-PERP book snapshot 1/1", "BTC-USDT-PERP status live -"]);
    let overlapping = frames(SESSION)[8].replace("1150", "1156").replace("1160", "1170").replace("1120", "1158");
    rig.frame(1, &overlapping);
    assert_eq!(rig.faults(), ["gap"], "`pu` is below the last `u`: not what the venue promises");
}

#[test]
fn a_quote_has_the_engines_time_and_a_lost_connection_ends_it() {
    let mut rig = rig();
    assert_eq!(play(&mut rig, [0]), ["BTC-USDT-PERP quote 1.5@50000 2@50000.1"]);
    assert_eq!(rig.out.updates[0].ts, Some(Time::from_millis(1_767_607_200_000)));
    let told = rig.step(|a, now, out| a.silent(Conn(1), now, out));
    assert_eq!(told, ["BTC-USDT-PERP quote invalid stale", "BTC-USDT-PERP status stale silent"]);
    assert_eq!(rig.asked(), ["reconnect 1: silent"]);
}

#[test]
fn the_list_names_contracts() {
    let mut rig = Rig::new(Binance::of(Market::UsdM, &[]));
    rig.response("https://fapi.binance.com/fapi/v1/exchangeInfo", INFO);
    for native in ["BTCUSDT", "BTCUSDT_260327"] {
        rig.frame(1, &frames(SESSION)[0].replace("BTCUSDT", native));
        let instrument = &rig.out.instruments[0].1;
        assert_eq!(instrument.tick_size, Some(ticker_market::Decimal::new(1, 1)));
        assert_eq!(instrument.lot_size, Some(ticker_market::Decimal::new(1, 3)));
        assert_eq!(instrument.symbol, if native == "BTCUSDT" { "BTC-USDT-PERP" } else { "BTC-USDT-20260327" });
    }
}

#[test]
fn other_sizes_of_the_ticker_are_a_doubt_and_other_prices_a_fault() {
    let mut rig = rig();
    play(&mut rig, 1..3);
    rig.response(DEPTH_URL, DEPTH);
    let top =
        (rig.book("BTC-USDT-PERP").expect("live").best_bid(), rig.book("BTC-USDT-PERP").expect("live").best_ask());
    let (bid, ask) = (top.0.expect("a bid"), top.1.expect("an ask"));
    let at = |bid_price: &str, bid_size: &str| {
        format!(
            r#"{{"stream":"btcusdt@bookTicker","data":{{"e":"bookTicker","u":1060,"s":"BTCUSDT","b":"{bid_price}","B":"{bid_size}","a":"{}","A":"{}","T":1767607200200,"E":1767607200201}}}}"#,
            ask.price, ask.size
        )
    };
    let price = bid.price.to_string();
    rig.frame(1, &at(&price, &bid.size.to_string()));
    assert!(rig.faults().is_empty() && rig.asked().is_empty());
    rig.frame(1, &at(&price, "77"));
    assert!(rig.faults().is_empty(), "a snapshot decides");
    assert_eq!(rig.asked(), [format!("fetch {DEPTH_URL}")]);
    rig.frame(1, &at(&price, "78"));
    assert!(rig.asked().is_empty(), "asked for once");
    // The book goes on; the snapshot has another size than it had then.
    play(&mut rig, [6]);
    let other = DEPTH.replace(":1050", ":1060").replace("3.000", "9.000");
    let told = rig.response(DEPTH_URL, &other);
    assert_eq!((rig.faults(), &*told[0]), (vec!["mismatch"], "BTC-USDT-PERP book invalid mismatch"));
    // What came before the fault does not reach the next snapshot.
    rig.response(DEPTH_URL, &DEPTH.replace(":1050", ":1090"));
    rig.frame(1, &at("50000.00", "1.5").replace("1060", "1090"));
    assert!(rig.faults().is_empty());
    rig.frame(1, &at("1.5", "1").replace("1060", "1090"));
    assert_eq!(rig.faults(), ["mismatch"], "at once");
}

#[test]
fn a_raw_stream_names_the_event_of_its_best_prices() {
    let mut rig = Rig::new(Binance::of(Market::UsdM, &[]));
    let told = rig.frame(
        1,
        r#"{"e":"bookTicker","u":9,"s":"BTCUSDT","b":"50000.0","B":"1.5","a":"50000.1","A":"2","T":1767607200000,"E":1767607200001}"#,
    );
    assert_eq!(told[1], "BTC-USDT-PERP quote 1.5@50000 2@50000.1");
    assert_eq!(rig.out.updates[1].ts, Some(Time::from_millis(1_767_607_200_000)));
}

#[test]
fn the_best_levels_are_the_book_where_it_does_not_come() {
    let frame = r#"{"stream":"ethusdt@depth20@100ms","data":{"e":"depthUpdate","E":1767607200001,"T":1767607200000,"s":"ETHUSDT","U":7,"u":9,"pu":-1,"b":[["3000.00","1"]],"a":[]}}"#;
    let mut rig = Rig::new(Binance::of(Market::UsdM, &[]));
    assert_eq!(rig.frame(1, frame)[1], "ETH-USDT-PERP book snapshot 1/0");
    let frame =
        r#"{"stream":"ethusdt@depth5","data":{"lastUpdateId":7,"bids":[["3000.00","1"]],"asks":[["3001.00","2"]]}}"#;
    let mut rig = Rig::new(Binance::new(&[]));
    assert_eq!(rig.frame(1, frame)[1], "ETH-USDT book snapshot 1/1");
}
