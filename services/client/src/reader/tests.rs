//! Tests of the parent module, against servers that say what the contract says.

use super::*;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::{Message as Frame, protocol::CloseFrame};

const QUICK: Resume = Resume::Backoff { first_ms: 1, max_ms: 2 };

fn trade(seq: u64, prev: u64) -> String {
    format!(r#"{{"topic":"trade/x/A","seq":{seq},"prev":{prev},"kind":"update","price":"1","size":"1"}}"#)
}

async fn listen(over: Over) -> (TcpListener, Options) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let http = format!("http://{}", listener.local_addr().expect("bound"));
    (listener, Options { over, grpc: http.clone(), http, ..Options::default() })
}

fn topics() -> Subscription {
    Subscription { topics: vec!["trade/x/A".into()], ..Subscription::default() }
}

/// Takes a connection and reads the head of its request.
async fn accept(listener: &TcpListener) -> (TcpStream, String) {
    let (mut socket, _) = listener.accept().await.expect("a connection");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.expect("a request"));
    }
    (socket, String::from_utf8(head).expect("text"))
}

async fn answer(socket: &mut TcpStream, kind: &str, body: &str, whole: bool) {
    let length = if whole { format!("content-length: {}\r\n", body.len()) } else { String::new() };
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{length}\r\n{body}");
    socket.write_all(head.as_bytes()).await.expect("the reader is there");
}

fn seq(message: Option<Message>) -> u64 {
    match message {
        Some(Message::Event(part)) => part.event.seq,
        other => panic!("an event, not {other:?}"),
    }
}

#[tokio::test]
async fn server_sent_events_go_on_from_their_last_id_and_repeat_nothing() {
    let (listener, mut options) = listen(Over::Sse).await;
    options.resume = QUICK;
    let server = tokio::spawn(async move {
        let (mut socket, head) = accept(&listener).await;
        assert!(head.starts_with("GET /v1/stream?topics=trade/x/A HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("accept: text/event-stream"), "{head}");
        let body = format!("id: e-5\ndata: {}\n\ndata: {}\n\n", trade(5, 0), trade(7, 5));
        answer(&mut socket, "text/event-stream", &body, false).await;
        drop(socket);
        let (mut socket, head) = accept(&listener).await;
        assert!(head.starts_with("GET /v1/stream?topics=trade/x/A&from=e-5 "), "{head}");
        let body = format!("id: e-7\ndata: {}\n\nid: e-9\ndata: {}\n\n", trade(7, 5), trade(9, 7));
        answer(&mut socket, "text/event-stream; charset=utf-8", &body, false).await;
        socket
    });
    let mut reader = connect(options, topics()).await.expect("connects");
    assert_eq!(seq(reader.next().await.expect("an event")), 5);
    assert_eq!(reader.cursor(), Some("e-5"));
    assert_eq!(seq(reader.next().await.expect("an event")), 7);
    assert_eq!(reader.cursor(), Some("e-5"), "an event without id does not move it");
    assert_eq!(seq(reader.next().await.expect("an event")), 9, "7 was had before");
    assert_eq!((reader.cursor(), reader.resumed()), (Some("e-9"), 1));
    server.await.expect("as expected");
}

#[tokio::test]
async fn lines_end_in_good_order_without_resume() {
    let (listener, options) = listen(Over::Ndjson).await;
    let server = tokio::spawn(async move {
        let (mut socket, head) = accept(&listener).await;
        assert!(head.contains("accept: application/x-ndjson"), "{head}");
        let body = format!("{}\n\n{{\"op\":\"heartbeat\",\"cursor\":\"e-8\",\"conflated\":0}}\n", trade(5, 0));
        answer(&mut socket, "application/x-ndjson", &body, true).await;
    });
    let mut reader = connect(options, topics()).await.expect("connects");
    assert_eq!(seq(reader.next().await.expect("an event")), 5);
    assert!(matches!(reader.next().await, Ok(Some(Message::Notice(Notice::Heartbeat { .. })))));
    assert_eq!(reader.next().await, Ok(None));
    assert_eq!(reader.next().await, Ok(None));
    server.await.expect("as expected");
}

#[tokio::test]
async fn polls_carry_their_cursor_on_over_one_connection() {
    let (listener, options) = listen(Over::Poll).await;
    let server = tokio::spawn(async move {
        let (mut socket, head) = accept(&listener).await;
        assert!(head.starts_with("GET /v1/poll?topics=trade/x/A "), "{head}");
        answer(&mut socket, "application/json", r#"{"cursor":"e-4","events":[],"notices":[]}"#, true).await;
        let mut head = vec![0; 1024];
        let n = socket.read(&mut head).await.expect("a request");
        let head = String::from_utf8_lossy(&head[..n]).into_owned();
        assert!(head.starts_with("GET /v1/poll?topics=trade/x/A&cursor=e-4&wait=25 "), "{head}");
        let body = format!(r#"{{"cursor":"e-9","events":[{},{}],"notices":[]}}"#, trade(6, 0), trade(8, 6));
        answer(&mut socket, "application/json", &body, true).await;
        socket
    });
    let mut reader = connect(options, topics()).await.expect("connects");
    assert_eq!(seq(reader.next().await.expect("an event")), 6);
    assert_eq!(reader.cursor(), Some("e-6"));
    assert_eq!(seq(reader.next().await.expect("an event")), 8);
    assert_eq!(reader.cursor(), Some("e-9"));
    server.await.expect("as expected");
}

#[tokio::test]
async fn problem_details_refuse_every_http_way() {
    for over in [Over::Sse, Over::Ndjson, Over::Poll, Over::Ws] {
        let (listener, mut options) = listen(over).await;
        options.resume = QUICK;
        let server = tokio::spawn(async move {
            let (mut socket, _) = accept(&listener).await;
            let body = Code::UnknownTopic.problem("no instrument x:A");
            let head = format!(
                "HTTP/1.1 404 Not Found\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            socket.write_all(head.as_bytes()).await.expect("the reader is there");
            socket
        });
        let error = connect(options, topics()).await.expect_err("refused");
        assert_eq!(error.code(), Some(Code::UnknownTopic), "{over}: {error}");
        assert!(over == Over::Ws || error.to_string().contains("no instrument x:A"), "{over}: {error}");
        server.await.expect("as expected");
    }
}

#[tokio::test]
async fn a_websocket_session_renews_its_subscriptions_and_knows_its_close_codes() {
    let (listener, mut options) = listen(Over::Ws).await;
    options.resume = QUICK;
    let server = tokio::spawn(async move {
        let session = async || {
            let (socket, _) = listener.accept().await.expect("a connection");
            tokio_tungstenite::accept_async(socket).await.expect("a handshake")
        };
        let text = async |ws: &mut tokio_tungstenite::WebSocketStream<TcpStream>| {
            ws.next().await.expect("a frame").expect("well formed").into_text().expect("text").to_string()
        };
        let mut ws = session().await;
        assert_eq!(text(&mut ws).await, r#"{"op":"subscribe","id":1,"topics":["trade/x/A"]}"#);
        let welcome = r#"{"op":"welcome","version":"1","epoch":"e","cursor":"e-4","heartbeat_ms":1000}"#;
        ws.send(Frame::text(welcome)).await.expect("sent");
        ws.send(Frame::text(r#"{"op":"subscribed","id":1,"topics":["trade/x/A"],"cursor":"e-4"}"#))
            .await
            .expect("sent");
        ws.send(Frame::text(trade(6, 0))).await.expect("sent");
        assert_eq!(text(&mut ws).await, r#"{"op":"subscribe","id":2,"topics":["quote/x/B"]}"#);
        ws.send(Frame::text(r#"{"op":"subscribed","id":2,"topics":["quote/x/B"],"cursor":"e-7"}"#))
            .await
            .expect("sent");
        ws.send(Frame::text(r#"{"op":"goodbye","reason":"draining","cursor":"e-8","retry_ms":3}"#))
            .await
            .expect("sent");
        drop(ws);
        let mut ws = session().await;
        assert_eq!(text(&mut ws).await, r#"{"op":"subscribe","id":1,"topics":["trade/x/A"],"from":"e-8"}"#);
        assert_eq!(text(&mut ws).await, r#"{"op":"subscribe","id":2,"topics":["quote/x/B"],"from":"e-8"}"#);
        let close = CloseFrame { code: Code::Forbidden.websocket_close().into(), reason: "not yours".into() };
        ws.send(Frame::Close(Some(close))).await.expect("sent");
        while let Some(Ok(_)) = ws.next().await {}
    });
    let mut reader = connect(options, topics()).await.expect("connects");
    for _ in 0..2 {
        assert!(matches!(reader.next().await, Ok(Some(Message::Notice(_)))));
    }
    assert_eq!(seq(reader.next().await.expect("an event")), 6);
    assert_eq!(reader.cursor(), Some("e-6"));
    let more = Subscription { id: 2, topics: vec!["quote/x/B".into()], ..Subscription::default() };
    reader.send(Request::Subscribe(more)).await.expect("sent");
    assert!(matches!(reader.next().await, Ok(Some(Message::Notice(Notice::Subscribed { id: 2, .. })))));
    assert!(matches!(reader.next().await, Ok(Some(Message::Notice(Notice::Goodbye { .. })))));
    let Ok(Some(Step::Lost { retry, .. })) = reader.step().await else { panic!("lost") };
    assert_eq!(retry, Duration::from_millis(3), "the server's word");
    assert_eq!(reader.step().await, Ok(Some(Step::Resumed)));
    let error = reader.next().await.expect_err("closed");
    assert_eq!((error.code(), error.to_string()), (Some(Code::Forbidden), "not yours (forbidden)".to_owned()));
    server.await.expect("as expected");
}

#[tokio::test]
async fn nobody_there_is_a_clear_error_on_every_way() {
    for over in Over::ALL {
        let (listener, mut options) = listen(over).await;
        drop(listener);
        // Over UDP nobody says no.
        let says = if matches!(over, Over::H3 | Over::WebTransport | Over::Quic) {
            options.quic = options.http.replace("http", "https");
            options.connect_timeout = Duration::from_millis(100);
            "no answer in time; is `ticker up` running?"
        } else {
            "connection refused; is `ticker up` running?"
        };
        let error = connect(options, topics()).await.expect_err("nobody is there").to_string();
        assert!(error.contains(says), "{over}: {error}");
    }
    let error = connect(Options { over: Over::Sse, ..Options::default() }, Subscription::default()).await;
    assert!(matches!(error, Err(Error::Options(_))), "no topics");
}
