//! Tests of the parent module: what each venue answers, as its documents say.

use super::*;

/// A stand-in for what these frames are a recording of, played to its end, and how it is asked.
struct Asked(StandIn);

impl Asked {
    fn of(venue: &str, url: &str, frames: &str) -> Self {
        let mut asked = Self(StandIn::new(venue, Vec::new(), 1).expect("a venue of ours"));
        let connect = Line::Connect { ts: None, conn: "a".into(), url: url.to_owned().into() };
        let recv = |text: &str| Line::Recv { ts: None, conn: "a".into(), data: Payload::Text(text.to_owned().into()) };
        let lines: Vec<Line<'_>> =
            std::iter::once(connect).chain(frames.lines().filter(|frame| !frame.is_empty()).map(recv)).collect();
        lines.iter().for_each(|line| asked.0.look(line));
        lines.iter().for_each(|line| asked.0.line(line, &mut Vec::new()));
        asked
    }

    fn open(&mut self, session: u32, url: &str) -> Vec<String> {
        let mut said = Vec::new();
        self.0.opened(Session(session), url, &mut said);
        texts(session, said)
    }

    fn ask(&mut self, session: u32, text: &str) -> Vec<String> {
        let mut said = Vec::new();
        self.0.heard(Session(session), text.as_bytes(), &mut said);
        texts(session, said)
    }

    fn fetch(&mut self, path: &str) -> (u16, String) {
        let mut said = Vec::new();
        self.0.asked(1, path, &mut said);
        match said.pop() {
            Some(Said::Answer { request: 1, status, body }) if said.is_empty() => (status, body),
            other => panic!("{other:?} after {said:?}"),
        }
    }
}

fn texts(session: u32, said: Vec<Said>) -> Vec<String> {
    let text = |said| match said {
        Said::Text(to, text) if to == Session(session) => text,
        other => panic!("{other:?}"),
    };
    said.into_iter().map(text).collect()
}

#[test]
fn bybit_takes_or_refuses_a_request_as_a_whole() {
    let frames = r#"{"topic":"orderbook.50.BTCUSDT","type":"snapshot","ts":5,"data":{"s":"BTCUSDT","b":[["9.50","1"],["9","2.0"]],"a":[["10","3"]],"u":7,"seq":70},"cts":4}
{"topic":"orderbook.50.BTCUSDT","type":"delta","ts":6,"data":{"s":"BTCUSDT","b":[["9","0"]],"a":[["10.0","4.20"]],"u":8,"seq":71},"cts":5}"#;
    let mut asked = Asked::of("bybit", "wss://stream.bybit.com/v5/public/linear", frames);
    asked.open(1, "/v5/public/linear");
    let request =
        |topic: &str| format!(r#"{{"op":"subscribe","req_id":"q","args":["orderbook.50.BTCUSDT","{topic}"]}}"#);
    let refused = asked.ask(1, &request("publicTrade.NOUSDT"));
    assert!(refused.len() == 1 && refused[0].contains("handler not found,topic:publicTrade.NOUSDT"), "{refused:?}");
    assert!(!asked.0.is_wanted());
    let taken = asked.ask(1, &request("publicTrade.BTCUSDT"));
    assert_eq!(taken[0], r#"{"success":true,"ret_msg":"","conn_id":"1","req_id":"q","op":"subscribe"}"#);
    let snapshot = r#"{"topic":"orderbook.50.BTCUSDT","type":"snapshot","ts":6,"data":{"s":"BTCUSDT","b":[["9.50","1"]],"a":[["10.0","4.20"]],"u":8,"seq":71},"cts":5}"#;
    assert_eq!(taken[1..], [snapshot]);
    assert!(asked.ask(1, &request("publicTrade.BTCUSDT"))[0].contains("already subscribed"));
    assert!(asked.ask(1, r#"{"op":"ping"}"#)[0].contains("\"ret_msg\":\"pong\""));
    // Of another market, nothing is there.
    asked.open(2, "/v5/public/spot");
    assert!(asked.ask(2, &request("publicTrade.BTCUSDT"))[0].contains("Invalid symbol :[orderbook.50.BTCUSDT]"));
    let (status, list) = asked.fetch("/v5/market/instruments-info?category=linear");
    assert!(status == 200 && list.contains(r#""symbol":"BTCUSDT","status":"Trading","baseCoin":"BTC""#), "{list}");
    asked.ask(1, r#"{"op":"unsubscribe","args":["orderbook.50.BTCUSDT","publicTrade.BTCUSDT"]}"#);
    assert!(!asked.0.is_wanted());
}

#[test]
fn bitget_answers_each_channel_by_itself_and_plays_v1_as_v2() {
    let frames = r#"{"action":"snapshot","arg":{"instType":"mc","channel":"books","instId":"BTCUSDT"},"data":[{"asks":[["10","3"]],"bids":[["9.50","1"],["9","2.0"]],"checksum":-5,"ts":"7"}]}
{"action":"update","arg":{"instType":"mc","channel":"books","instId":"BTCUSDT"},"data":[{"asks":[],"bids":[["9","0"]],"checksum":-6,"ts":"8"}]}"#;
    let mut asked = Asked::of("bitget-v1", "wss://ws.bitget.com/mix/v1/stream", frames);
    asked.open(1, "/v2/ws/public");
    let arg =
        |channel: &str, name: &str| format!(r#"{{"instType":"USDT-FUTURES","channel":"{channel}","instId":"{name}"}}"#);
    let args = [arg("books", "BTCUSDT"), arg("books", "NOUSDT"), arg("bookz", "BTCUSDT")].join(",");
    let answers = asked.ask(1, &format!(r#"{{"op":"subscribe","args":[{args}]}}"#));
    assert_eq!(answers.len(), 4, "{answers:?}");
    assert_eq!(answers[0], format!(r#"{{"event":"subscribe","arg":{}}}"#, arg("books", "BTCUSDT")));
    let snapshot = r#"{"action":"snapshot","arg":{"instType":"USDT-FUTURES","channel":"books","instId":"BTCUSDT"},"data":[{"asks":[["10","3"]],"bids":[["9.50","1"]],"checksum":-6,"ts":"8"}]}"#;
    assert_eq!(answers[1], snapshot);
    assert!(answers[2..].iter().all(|refused| refused.contains("30001") && refused.contains("doesn't exist")));
    let mut said = Vec::new();
    let update = frames.lines().last().expect("two").to_owned();
    asked.0.line(&Line::Recv { ts: None, conn: "a".into(), data: Payload::Text(update.clone().into()) }, &mut said);
    assert_eq!(texts(1, said), [update.replace("\"mc\"", "\"USDT-FUTURES\"")]);
    assert_eq!(asked.ask(1, "ping"), ["pong"]);
    let (_, list) = asked.fetch("/api/v2/mix/market/contracts?productType=USDT-FUTURES");
    assert!(list.contains(r#""symbol":"BTCUSDT","baseCoin":"BTC","quoteCoin":"USDT""#), "{list}");
    asked.ask(1, &format!(r#"{{"op":"unsubscribe","args":[{}]}}"#, arg("books", "BTCUSDT")));
    assert!(!asked.0.is_wanted());
}

#[test]
fn kucoin_wants_its_token_and_answers_for_a_book_once_there_is_one() {
    let frames = r#"{"data":{"sequenceStart":11,"symbol":"A-B","changes":{"asks":[["10","3","11"]],"bids":[["0","0","12"]]},"sequenceEnd":12},"subject":"trade.l2update","topic":"/market/level2:A-B","type":"message"}"#;
    let mut asked = Asked::of("kucoin", "wss://x", frames);
    let mut said = Vec::new();
    asked.0.opened(Session(1), "/endpoint?token=other", &mut said);
    assert!(matches!(&said[..], [Said::Text(_, text), Said::Close(Session(1))] if text.contains("401")), "{said:?}");
    assert!(asked.fetch("/api/v1/bullet-public").1.contains(r#""token":"stand-in-1","instanceServers""#));
    assert_eq!(asked.open(2, "/?token=stand-in-1"), [r#"{"id":"2","type":"welcome"}"#]);
    let ask = |topic: &str| format!(r#"{{"id":5,"type":"subscribe","topic":"/market/{topic}","response":true}}"#);
    assert_eq!(asked.ask(2, &ask("level2:A-B")), [r#"{"id":"5","type":"ack"}"#]);
    assert!(asked.ask(2, &ask("level2:A-B,C-D"))[0].contains("topic /market/level2:A-B,C-D is not found"));
    assert_eq!(asked.ask(2, r#"{"id":"p","type":"ping"}"#), [r#"{"id":"p","type":"pong"}"#]);
    assert!(asked.fetch("/api/v3/market/orderbook/level2?symbol=C-D").1.contains("900001"));
    // The recording's own snapshot is still to come.
    said.clear();
    asked.0.asked(9, "/api/v3/market/orderbook/level2?symbol=A-B", &mut said);
    assert!(said.is_empty());
    let body = r#"{"code":"200000","data":{"time":6,"sequence":"11","bids":[["9.0","1"]],"asks":[["10","7"]]}}"#;
    let url = "https://api.kucoin.com/api/v3/market/orderbook/level2?symbol=A-B";
    let data = Payload::Text(body.into());
    asked.0.line(&Line::Http { ts: None, conn: "h".into(), url: url.into(), data }, &mut said);
    let Some(Said::Answer { request: 9, status: 200, body }) = said.pop() else { panic!("{said:?}") };
    // Of the change that the snapshot has already, its size is the newer one.
    assert!(body.contains(r#""sequence":"12","bids":[["9.0","1"]],"asks":[["10","7"]]"#), "{body}");
}

#[test]
fn gateio_answers_with_the_channel_that_was_asked() {
    let frames = include_str!("../../fixtures/gateio/session.jsonl");
    let mut asked = Asked::of("gateio", "wss://api.gateio.ws/ws/v4/", frames);
    asked.open(1, "/ws/v4/");
    let pong = asked.ask(1, r#"{"time":3,"channel":"spot.ping"}"#);
    assert_eq!(pong, [r#"{"time":3,"channel":"spot.pong","event":"","error":null,"result":null}"#]);
    let ask = |pair: &str| {
        format!(r#"{{"time":3,"channel":"spot.order_book_update","event":"subscribe","payload":["{pair}","100ms"]}}"#)
    };
    let taken = r#"{"time":3,"channel":"spot.order_book_update","event":"subscribe","error":null,"result":{"status":"success"}}"#;
    assert_eq!(asked.ask(1, &ask("BTC_USDT")), [taken]);
    assert!(
        asked.ask(1, &ask("NO_USDT"))[0].contains(r#""error":{"code":2,"message":"unknown currency pair: NO_USDT"}"#)
    );
    let (status, body) = asked.fetch("/api/v4/spot/order_book?currency_pair=NO_USDT&limit=100&with_id=true");
    assert!(status == 400 && body.contains("INVALID_CURRENCY_PAIR"), "{body}");
    asked.ask(1, &ask("BTC_USDT").replace("\"subscribe\"", "\"unsubscribe\""));
    assert!(!asked.0.is_wanted());
}

#[test]
fn deribit_leaves_out_what_it_does_not_know_and_tells_at_the_interval_that_was_asked_for() {
    let frames = r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"book.BTC-PERPETUAL.raw","data":{"type":"snapshot","timestamp":5,"instrument_name":"BTC-PERPETUAL","change_id":7,"bids":[["new",9.50,1e-5]],"asks":[["new",10.0,3.0]]}}}
{"jsonrpc":"2.0","method":"subscription","params":{"channel":"book.BTC-PERPETUAL.raw","data":{"type":"change","timestamp":6,"prev_change_id":7,"instrument_name":"BTC-PERPETUAL","change_id":9,"bids":[],"asks":[["delete",10.0,0.0],["new",11.0,2.0]]}}}"#;
    let mut asked = Asked::of("deribit", "wss://www.deribit.com/ws/api/v2", frames);
    asked.open(1, "/ws/api/v2");
    let ask = |method: &str, params: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":4,"method":"public/{method}","params":{params}}}"#)
    };
    let channels = r#"{"channels":["book.BTC-PERPETUAL.100ms","book.NO-PERPETUAL.100ms"]}"#;
    let answers = asked.ask(1, &ask("subscribe", channels));
    assert_eq!(answers[0], r#"{"jsonrpc":"2.0","id":4,"result":["book.BTC-PERPETUAL.100ms"],"testnet":false}"#);
    let snapshot = r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"book.BTC-PERPETUAL.100ms","data":{"type":"snapshot","timestamp":6,"instrument_name":"BTC-PERPETUAL","change_id":9,"bids":[["new",9.50,1e-5]],"asks":[["new",11.0,2.0]]}}}"#;
    assert_eq!(answers[1..], [snapshot]);
    let mut said = Vec::new();
    let change = frames.lines().last().expect("two");
    asked.0.line(&Line::Recv { ts: None, conn: "a".into(), data: Payload::Text(change.into()) }, &mut said);
    assert_eq!(texts(1, said), [change.replace(".raw", ".100ms")]);
    assert!(asked.ask(1, &ask("set_heartbeat", r#"{"interval":10}"#))[0].contains(r#""result":"ok""#));
    assert!(asked.ask(1, &ask("test", "{}"))[0].contains("version"));
    assert!(asked.ask(1, &ask("nothing", "{}"))[0].contains("-32601"));
    assert!(asked.ask(1, &ask("subscribe", "{}"))[0].contains("-32602"));
    assert!(asked.ask(1, &ask("unsubscribe", channels))[0].contains(r#""result":["book.BTC-PERPETUAL.100ms"]"#));
    assert!(!asked.0.is_wanted());
}

#[test]
fn bitfinex_numbers_the_channels_and_the_frames_of_each_connection() {
    let frames = r#"{"event":"conf","status":"OK","flags":65536}
{"event":"subscribed","channel":"book","chanId":70,"symbol":"tBTCUSD","prec":"P0","freq":"F0","len":"25","pair":"BTCUSD"}
[70,[[9.5,2,1.5],[10,1,-3]],1]
[70,[10,0,-1],2]
[70,[11,1,-2e-7],3]"#;
    let mut asked = Asked::of("bitfinex", "wss://api-pub.bitfinex.com/ws/2", frames);
    assert!(asked.open(1, "/ws/2")[0].contains(r#""event":"info","version":2"#));
    assert_eq!(
        asked.ask(1, r#"{"event":"conf","flags":196608}"#),
        [r#"{"event":"conf","status":"OK","flags":196608}"#]
    );
    let ask = |symbol: &str| {
        format!(r#"{{"event":"subscribe","channel":"book","symbol":"{symbol}","prec":"P0","len":"250"}}"#)
    };
    let answers = asked.ask(1, &ask("tBTCUSD"));
    let subscribed = r#"{"event":"subscribed","channel":"book","chanId":1001,"symbol":"tBTCUSD","prec":"P0","freq":"F0","len":"250","pair":"BTCUSD"}"#;
    assert_eq!(answers, [subscribed, "[1001,[[9.5,2,1.5],[11,1,-2e-7]],1]"]);
    let mut play = |frame: &str| {
        let mut said = Vec::new();
        asked
            .0
            .line(&Line::Recv { ts: None, conn: "a".into(), data: Payload::Text(frame.to_owned().into()) }, &mut said);
        texts(1, said)
    };
    let sum = crc32fast::hash(b"9.5:0.7:11:-2e-7").cast_signed();
    assert_eq!(play("[70,[9.5,1,0.7],4]"), ["[1001,[9.5,1,0.7],2]".to_owned(), format!(r#"[1001,"cs",{sum},3]"#)]);
    // While it looks crossed, no checksum is told.
    assert_eq!(play("[70,[12,1,1],5]"), ["[1001,[12,1,1],4]"]);
    assert_eq!(play(r#"[70,"hb",6]"#), [r#"[1001,"hb",5]"#]);
    assert!(asked.ask(1, &ask("tBTCUSD"))[0].contains("10301"));
    assert!(asked.ask(1, &ask("tNOUSD"))[0].contains("10300"));
    assert_eq!(asked.ask(1, r#"{"event":"ping","cid":6}"#), [r#"{"event":"pong","cid":6}"#]);
    assert!(asked.ask(1, r#"{"event":"unsubscribe","chanId":70}"#)[0].contains("10400"));
    assert!(asked.ask(1, r#"{"event":"unsubscribe","chanId":1001}"#)[0].contains("unsubscribed"));
    assert!(!asked.0.is_wanted());
}

#[test]
fn bitmex_begins_each_table_with_a_partial() {
    let frames = r#"{"table":"orderBookL2","action":"partial","filter":{"symbol":"XBTUSD"},"data":[{"symbol":"XBTUSD","id":8,"side":"Sell","size":3,"price":10.50},{"symbol":"XBTUSD","id":9,"side":"Buy","size":2,"price":9}]}
{"table":"orderBookL2","action":"update","data":[{"symbol":"XBTUSD","id":9,"side":"Buy","size":20}]}
{"table":"orderBookL2","action":"delete","data":[{"symbol":"XBTUSD","id":8,"side":"Sell"}]}
{"table":"orderBookL2","action":"insert","data":[{"symbol":"XBTUSD","id":7,"side":"Sell","size":1,"price":11}]}
{"table":"trade","action":"insert","data":[{"timestamp":"2026-01-05T10:00:00.000Z","symbol":"XBTUSD","side":"Buy","size":1,"price":11,"trdMatchID":"x"}]}"#;
    let mut asked = Asked::of("bitmex", "wss://ws.bitmex.com/realtime", frames);
    assert!(asked.open(1, "/realtime")[0].contains("Welcome"));
    let request = r#"{"op":"subscribe","args":["orderBookL2:XBTUSD","trade:XBTUSD","trade:NOUSD","nothing:XBTUSD"]}"#;
    let answers = asked.ask(1, request);
    assert_eq!(answers[0], format!(r#"{{"success":true,"subscribe":"orderBookL2:XBTUSD","request":{request}}}"#));
    let rows = r#"{"symbol":"XBTUSD","id":7,"side":"Sell","size":1,"price":11},{"symbol":"XBTUSD","id":9,"side":"Buy","size":20,"price":9}"#;
    assert_eq!(
        answers[1],
        format!(r#"{{"table":"orderBookL2","action":"partial","filter":{{"symbol":"XBTUSD"}},"data":[{rows}]}}"#)
    );
    assert!(answers[3].contains(r#""table":"trade","action":"partial""#) && answers[3].contains("trdMatchID"));
    assert!(answers[4].contains("Unknown or expired symbol."), "{}", answers[4]);
    assert!(answers[5].contains("Unknown table: nothing"), "{}", answers[5]);
    assert!(asked.ask(1, r#"{"op":"subscribe","args":"trade:XBTUSD"}"#)[0].contains("already subscribed"));
    assert_eq!(asked.ask(1, "ping"), ["pong"]);
    asked.ask(1, r#"{"op":"unsubscribe","args":["orderBookL2:XBTUSD","trade:XBTUSD"]}"#);
    assert!(!asked.0.is_wanted());
}

#[test]
fn bitstamp_takes_one_channel_a_request() {
    let frames = include_str!("../../fixtures/bitstamp/session.jsonl");
    let mut asked = Asked::of("bitstamp", "wss://ws.bitstamp.net", frames);
    asked.open(1, "/");
    let ask = |event: &str, channel: &str| format!(r#"{{"event":"bts:{event}","data":{{"channel":"{channel}"}}}}"#);
    let succeeded = r#"{"event":"bts:subscription_succeeded","channel":"diff_order_book_btcusd","data":{}}"#;
    assert_eq!(asked.ask(1, &ask("subscribe", "diff_order_book_btcusd")), [succeeded]);
    assert!(asked.ask(1, &ask("subscribe", "diff_order_book_nousd"))[0].contains("bts:error"));
    assert!(asked.ask(1, r#"{"event":"bts:heartbeat"}"#)[0].contains("success"));
    let (status, _) = asked.fetch("/api/v2/order_book/nousd/");
    assert_eq!(status, 404);
    let succeeded = r#"{"event":"bts:unsubscription_succeeded","channel":"diff_order_book_btcusd","data":{}}"#;
    assert_eq!(asked.ask(1, &ask("unsubscribe", "diff_order_book_btcusd")), [succeeded]);
    assert!(!asked.0.is_wanted());
}

#[test]
fn gemini_speaks_its_streams_and_what_was_before_them() {
    let frames = r#"{"e":"depthUpdate","E":5,"s":"btcusd","U":7,"u":7,"b":[["9.50","1"]],"a":[["10","3"]]}
{"e":"depthUpdate","E":6,"s":"btcusd","U":7,"u":9,"b":[],"a":[["10","0"],["11","2.0"]]}"#;
    let mut asked = Asked::of("gemini", "wss://ws.gemini.com/?snapshot=-1", frames);
    asked.open(1, "/?snapshot=-1");
    let answers = asked.ask(1, r#"{"id":"3","method":"subscribe","params":["btcusd@depth@100ms"]}"#);
    let snapshot = r#"{"e":"depthUpdate","E":6,"s":"btcusd","U":9,"u":9,"b":[["9.50","1"]],"a":[["11","2.0"]]}"#;
    assert_eq!(answers, [r#"{"id":"3","status":200}"#, snapshot]);
    assert!(asked.ask(1, r#"{"id":"4","method":"subscribe","params":["nousd@trade"]}"#)[0].contains(r#""status":400"#));
    asked.ask(1, r#"{"id":"5","method":"unsubscribe","params":["btcusd@depth@100ms"]}"#);
    assert!(!asked.0.is_wanted());

    let mut asked =
        Asked::of("gemini", "wss://api.gemini.com/v2/marketdata/", include_str!("../../fixtures/gemini/v2.jsonl"));
    asked.open(1, "/v2/marketdata/");
    let answers = asked.ask(1, r#"{"type":"subscribe","subscriptions":[{"name":"l2","symbols":["BTCUSD"]}]}"#);
    assert!(
        answers.len() == 1 && answers[0].starts_with(r#"{"type":"l2_updates","symbol":"BTCUSD","changes":["#),
        "{answers:?}"
    );
    let refused = asked.ask(1, r#"{"type":"subscribe","subscriptions":[{"name":"l2","symbols":["NOUSD"]}]}"#);
    assert!(refused[0].contains("InvalidSymbol"), "{refused:?}");
}
