//! Tests of [`Out::pass_over`](crate::Out): what an adapter makes nothing of is named, and what it knows is not.

use ticker_market::Time;

use crate::{Conn, KIND_BYTES_MAX, Out, adapter};

fn passed_over(venue: &str, frame: &str) -> Vec<String> {
    let mut adapter = adapter(venue, &[]).expect("a venue of ours");
    let mut out = Out::default();
    adapter.opened(Conn(0), "", Time(0), &mut out);
    adapter.frame(Conn(0), frame.as_bytes(), Time(0), &mut out);
    assert!(out.reports.is_empty(), "{venue}: {:?}", out.reports);
    out.passed_over.iter().map(ToString::to_string).collect()
}

#[test]
fn frames_of_unknown_channels_are_named() {
    for (venue, frame, kind) in [
        ("kraken", r#"{"channel":"ohlc","type":"update","data":[]}"#, "ohlc"),
        ("coinbase", r#"{"channel":"candles","timestamp":"","sequence_num":0,"events":[]}"#, "candles"),
        ("coinbase-exchange", r#"{"type":"status"}"#, "status"),
        ("okx", r#"{"arg":{"channel":"mark-price","instId":"A-B"},"data":[]}"#, "mark-price"),
        ("binance", r#"{"stream":"btcusdt@kline_1m","data":{"e":"kline","s":"BTCUSDT"}}"#, "kline"),
        ("bybit-linear", r#"{"topic":"kline.1.BTCUSDT","type":"snapshot","ts":1,"data":[]}"#, "kline"),
        (
            "bitget",
            r#"{"action":"update","arg":{"instType":"SPOT","channel":"candle1m","instId":"BTCUSDT"},"data":[]}"#,
            "candle1m",
        ),
        (
            "kucoin",
            r#"{"type":"message","topic":"/market/candles:A-B_1min","subject":"trade.candles.add","data":{}}"#,
            "trade.candles.add",
        ),
        ("gateio", r#"{"time":1,"channel":"spot.candlesticks","event":"update","result":{}}"#, "spot.candlesticks"),
        (
            "deribit",
            r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"deribit_price_index.btc_usd","data":{}}}"#,
            "deribit_price_index",
        ),
        ("bitfinex", "[7,[1,2,3]]", "channel"),
        ("bitmex", r#"{"table":"funding","action":"insert","data":[]}"#, "funding"),
        ("bitstamp", r#"{"event":"something new, and long","channel":"x","data":{}}"#, "something_new__and_long"),
        ("gemini", r#"{"e":"contractStatus","E":1,"s":"x","n":"Approved"}"#, "contractStatus"),
    ] {
        assert_eq!(passed_over(venue, frame), [kind], "{venue}");
    }
}

#[test]
fn answers_and_heartbeats_are_not() {
    for (venue, frame) in [
        ("kraken", r#"{"channel":"heartbeat"}"#),
        ("coinbase", r#"{"channel":"heartbeats","timestamp":"","sequence_num":0,"events":[]}"#),
        ("coinbase-exchange", r#"{"type":"subscriptions","channels":[]}"#),
        ("okx", r#"{"event":"subscribe","arg":{"channel":"books","instId":"A-B"}}"#),
        ("binance", r#"{"result":null,"id":1}"#),
        ("bybit-linear", r#"{"success":true,"ret_msg":"pong","conn_id":"x","op":"ping"}"#),
        ("bitget", r#"{"event":"subscribe","arg":{"instType":"SPOT","channel":"books","instId":"A"}}"#),
        ("kucoin", r#"{"id":"1","type":"ack"}"#),
        ("gateio", r#"{"time":1,"channel":"spot.pong","event":"","result":null}"#),
        ("deribit", r#"{"jsonrpc":"2.0","id":1,"result":"ok"}"#),
        ("bitfinex", r#"{"event":"info","version":2}"#),
        ("bitmex", r#"{"success":true,"subscribe":"trade:XBTUSD"}"#),
        ("bitstamp", r#"{"event":"bts:subscription_succeeded","channel":"live_trades_btcusd","data":{}}"#),
        ("gemini", r#"{"id":"1","status":200}"#),
    ] {
        assert_eq!(passed_over(venue, frame), [""; 0], "{venue}");
    }
}

#[test]
fn kinds_are_short_and_plain() {
    let mut out = Out::default();
    out.pass_over(&"é\"".repeat(100));
    assert!(out.passed_over[0].len() == KIND_BYTES_MAX && out.passed_over[0].bytes().all(|c| c == b'_'));
    out.clear();
    assert!(out.passed_over.is_empty());
}
