//! Readers without a client of ours between them and the bytes: what no good client does, and what a client does not show.

use std::time::Duration;

use ticker_client::Over;
use ticker_proto::v1::market_data_client::MarketDataClient;
use ticker_proto::{Code, v1};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::Channel;

use crate::rig::{REQUEST_BYTES_MAX, bounded};
use crate::transport::{At, Form, Transport};

/// More than any request of the contract may have.
const LARGE: usize = 80_000;

/// More than a request to the fanout may have here.
const LARGE_FANOUT: usize = REQUEST_BYTES_MAX + 10_000;

async fn connect(url: &str) -> TcpStream {
    TcpStream::connect(url.trim_start_matches("http://")).await.expect("somebody listens")
}

/// Sends a request head, and gives the status and all that follows until the end.
async fn ask(url: &str, head: &str) -> (u16, String) {
    let mut stream = connect(url).await;
    // The answer may come before all of it is written.
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = bounded("an answer", stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    (status, answer)
}

/// A WebSocket (RFC 6455), frame by frame.
#[derive(Debug)]
pub(crate) struct WebSocket {
    stream: TcpStream,
    read: Vec<u8>,
}

/// Opens one; the status and the answer, if it is refused.
pub(crate) async fn handshake(url: &str, over: Over, query: &str) -> Result<WebSocket, (u16, String)> {
    let mut stream = connect(url).await;
    let protocol = if over == Over::WsProtobuf { "ticker.v1.proto" } else { "ticker.v1.json" };
    let head = format!(
        "GET /v1/ws{query} HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         sec-websocket-protocol: {protocol}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("it is taken");
    let mut read = Vec::new();
    loop {
        let ended = bounded("an answer", stream.read_buf(&mut read)).await.expect("it comes") == 0;
        let text = String::from_utf8_lossy(&read).into_owned();
        let status = text.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        if let Some(end) = text.find("\r\n\r\n").filter(|_| status == 101) {
            assert!(text.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{text}");
            read.drain(..end + 4);
            return Ok(WebSocket { stream, read });
        }
        if ended {
            return Err((status, text));
        }
    }
}

impl WebSocket {
    /// One frame: its first byte, and whether it is masked, as they should not be or should.
    async fn send(&mut self, first: u8, masked: bool, payload: &[u8]) {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![first];
        match payload.len() {
            n @ 0..=125 => frame.push(mask | n as u8),
            n @ 126..=65_535 => {
                frame.push(mask | 126);
                frame.extend_from_slice(&(n as u16).to_be_bytes());
            }
            n => {
                frame.push(mask | 127);
                frame.extend_from_slice(&(n as u64).to_be_bytes());
            }
        }
        if masked {
            // A mask of zeros is a mask.
            frame.extend_from_slice(&[0; 4]);
        }
        frame.extend_from_slice(payload);
        // The service may have closed before it has read all.
        let _ = self.stream.write_all(&frame).await;
    }

    /// The next frame: its opcode and payload. `None` at the end.
    async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let [first, second, rest @ ..] = &self.read[..] {
                let (length, head) = match second {
                    126 => (rest.get(..2).map(|b| usize::from(u16::from_be_bytes([b[0], b[1]]))), 4),
                    127 => (rest.get(..8).map(|b| u64::from_be_bytes(b.try_into().expect("eight")) as usize), 10),
                    n => (Some(usize::from(*n)), 2),
                };
                if let Some(length) = length.filter(|l| self.read.len() >= head + l) {
                    let frame = (first & 0x0f, self.read[head..head + length].to_vec());
                    self.read.drain(..head + length);
                    return Some(frame);
                }
            }
            if bounded("a frame", self.stream.read_buf(&mut self.read)).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// Reads to the close frame: its code.
    async fn closes(&mut self) -> u16 {
        loop {
            match self.next().await {
                Some((0x8, payload)) => return u16::from_be_bytes([payload[0], payload[1]]),
                Some(_) => {}
                None => panic!("no close frame"),
            }
        }
    }

    /// Reads to an `error` message: its code.
    async fn refuses(&mut self) -> Code {
        loop {
            let (opcode, payload) = self.next().await.expect("an error before the end");
            let code = match opcode {
                0x1 => {
                    let message: serde_json::Value = serde_json::from_slice(&payload).expect("JSON");
                    message["code"].as_str().map(|c| Code::from_name(c).expect("a code of the contract"))
                }
                0x2 => {
                    let message = <v1::SessionResponse as prost::Message>::decode(&payload[..]).expect("protobuf");
                    match message.message {
                        Some(v1::session_response::Message::Error(error)) => Some(Code::from_wire(error.code)),
                        _ => None,
                    }
                }
                other => panic!("a frame of opcode {other} before the error"),
            };
            if let Some(code) = code {
                return code;
            }
        }
    }
}

/// A reader that shows how its transport itself ends.
pub(crate) enum Slow {
    WebSocket(Box<WebSocket>),
    Subscribe(Box<tonic::Streaming<v1::SubscribeResponse>>),
    Session(Box<tonic::Streaming<v1::SessionResponse>>, tokio::sync::mpsc::Sender<v1::SessionRequest>),
    /// HTTP has no word for the end of a body but its end, a stream of QUIC none that is shown here: the `error` before it
    /// says it all.
    Http,
}

impl Slow {
    pub(crate) async fn open(transport: &Transport, url: &str, topic: &str) -> Self {
        let topics = vec![topic.to_owned()];
        match transport.over {
            // Without TLS it is shown.
            _ if transport.secure => Slow::Http,
            Over::Ws | Over::WsProtobuf => {
                let socket = handshake(url, transport.over, &format!("?topics={topic}")).await;
                Slow::WebSocket(Box::new(socket.map_err(|(_, text)| text).expect("it opens")))
            }
            Over::Grpc => {
                let request = v1::SubscribeRequest { topics, ..Default::default() };
                let stream = client(url).await.subscribe(request).await.expect("it opens").into_inner();
                Slow::Subscribe(Box::new(stream))
            }
            Over::GrpcSession => {
                let (sender, receiver) = tokio::sync::mpsc::channel(4);
                let subscribe = v1::Subscribe { id: 1, topics, ..Default::default() };
                let message = Some(v1::session_request::Message::Subscribe(subscribe));
                sender.try_send(v1::SessionRequest { message }).expect("room");
                let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
                let stream = client(url).await.session(requests).await.expect("it opens").into_inner();
                Slow::Session(Box::new(stream), sender)
            }
            Over::Sse | Over::Ndjson | Over::Poll => Slow::Http,
            Over::H3 | Over::WebTransport | Over::Quic | Over::Rtc => Slow::Http,
        }
    }

    /// Reads to the end, which tells of this code: as a close code, or as a status.
    pub(crate) async fn ends_with(self, code: Code) {
        match self {
            Slow::WebSocket(mut socket) => assert_eq!(socket.closes().await, code.websocket_close()),
            Slow::Subscribe(mut stream) => loop {
                match stream.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("the stream ended with OK"),
                    Err(status) => return told(&status, code),
                }
            },
            Slow::Session(mut stream, _sender) => loop {
                match stream.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("the stream ended with OK"),
                    Err(status) => return told(&status, code),
                }
            },
            Slow::Http => {}
        }
    }
}

/// A status of the contract: its number, and the code in its metadata.
fn told(status: &tonic::Status, code: Code) {
    let named = status.metadata().get("ticker-code").and_then(|v| v.to_str().ok());
    assert_eq!((status.code(), named), (code.grpc(), Some(code.as_str())), "{status}");
}

async fn client(url: &str) -> MarketDataClient<Channel> {
    MarketDataClient::connect(url.to_owned()).await.expect("it is there")
}

/// A request that is larger than requests may be.
pub(crate) async fn too_large(transport: &Transport, url: &str) {
    let code = Code::MessageTooLarge;
    let large = if transport.at == At::Fanout { LARGE_FANOUT } else { LARGE };
    match transport.over {
        Over::Ws | Over::WsProtobuf => {
            for parts in [1, 2] {
                let mut socket = handshake(url, transport.over, "").await.map_err(|e| e.1).expect("it opens");
                let opcode = if transport.over == Over::Ws { 0x1 } else { 0x2 };
                if parts == 1 {
                    socket.send(0x80 | opcode, true, &vec![b'x'; LARGE]).await;
                } else {
                    socket.send(opcode, true, &vec![b'x'; LARGE / 2]).await;
                    socket.send(0x80, true, &vec![b'x'; LARGE / 2]).await;
                }
                assert_eq!(socket.refuses().await, code);
                assert_eq!(socket.closes().await, code.websocket_close());
            }
        }
        Over::GrpcSession => {
            let (sender, receiver) = tokio::sync::mpsc::channel(4);
            let data = "x".repeat(large);
            let message = Some(v1::session_request::Message::Signal(v1::Signal { data, ..Default::default() }));
            sender.try_send(v1::SessionRequest { message }).expect("room");
            let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
            let stream = client(url).await.session(requests).await.expect("it opens").into_inner();
            bounded("an end", Slow::Session(Box::new(stream), sender).ends_with(code)).await;
        }
        Over::Grpc => {
            let request = v1::SubscribeRequest { topics: vec!["x".repeat(large)], ..Default::default() };
            let status = client(url).await.subscribe(request).await.expect_err("it is too large");
            // The library's own word, before the service sees the request; or the contract's.
            let code = status.code();
            assert!(matches!(code, tonic::Code::OutOfRange | tonic::Code::InvalidArgument), "{status}");
        }
        Over::Sse | Over::Ndjson | Over::Poll if !transport.http2 => {
            let path = if transport.over == Over::Poll { "/v1/poll" } else { "/v1/stream" };
            let head = format!("GET {path}?topics={} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(LARGE));
            let (status, answer) = ask(url, &head).await;
            assert_eq!(status, code.http_status(), "{answer}");
            assert!(answer.contains("application/problem+json") && answer.contains(code.as_str()), "{answer}");
        }
        Over::Sse | Over::Ndjson | Over::Poll => {
            let options = ticker_client::Options { http: url.to_owned(), http2: true, ..Default::default() };
            let answer = ticker_client::http::get(&options, &format!("/v1/poll?topics={}", "x".repeat(20_000))).await;
            // 431 is the HTTP library's (RFC 6585 §5); or it ends the stream.
            assert!(answer.as_ref().map_or(true, |a| a.status == 431), "{answer:?}");
        }
        Over::H3 | Over::WebTransport | Over::Quic | Over::Rtc => unreachable!("listed as unfit"),
    }
}

/// Random bytes, at the very beginning of a connection: it ends.
pub(crate) async fn noise(url: &str, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut stream = connect(url).await;
    let bytes: Vec<u8> = (0..20_000).map(|_| rng.u8(..)).collect();
    let _ = stream.write_all(&bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = bounded("the end of a connection", stream.read_to_end(&mut answer)).await;
}

/// What breaks the transport's own rules, and what means nothing in it.
pub(crate) async fn garbage(transport: &Transport, url: &str) {
    match transport.form() {
        _ if matches!(transport.over, Over::Ws | Over::WsProtobuf) => garbage_frames(transport.over, url).await,
        Form::Problem => {
            for (head, status) in [
                ("GET /v1/stream?topics=%ff HTTP/1.1\r\nhost: x\r\n\r\n", 400),
                ("GET /v1/poll?nonsense HTTP/1.1\r\nhost: x\r\n\r\n", 400),
                ("GET /v1/stream HTTP/1.1\r\nhost: x\r\n\r\n", 400),
                ("GET /v1/ws HTTP/1.1\r\nhost: x\r\n\r\n", 400),
                ("GET /v1/stream HTTP/1.1\r\nhost x\r\n\r\n", 400),
                ("DELETE /v1/stream HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", 405),
                ("GET /v1/nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", 404),
            ] {
                let (got, answer) = ask(url, head).await;
                assert_eq!(got, status, "{head}: {answer}");
            }
        }
        _ => garbage_messages(transport.over, url).await,
    }
}

async fn garbage_frames(over: Over, url: &str) {
    const PROTOCOL_ERROR: u16 = 1002;
    let open = async || handshake(url, over, "").await.map_err(|e| e.1).expect("it opens");
    for (first, masked, payload) in [
        (0x81, false, &b"{}"[..]),
        (0xf1, true, b"{}"),
        (0x83, true, b"{}"),
        (0x80, true, b"{}"),
        (0x09, true, b"{}"),
        (0x89, true, &[0; 126]),
        (0x88, true, b"x"),
        (0x81, true, &[0xff, 0xfe]),
    ] {
        let mut socket = open().await;
        socket.send(first, masked, payload).await;
        assert_eq!(socket.closes().await, PROTOCOL_ERROR, "{first:x} {masked} {payload:?}");
        assert_eq!(socket.next().await, None, "nothing after the close");
    }
    // Well-formed frames with nonsense in them are refused, and the session goes on.
    let mut socket = open().await;
    let opcode = if over == Over::Ws { 0x81 } else { 0x82 };
    for nonsense in [&b"{nonsense"[..], &[0xff; 40], b"\x0a"] {
        if over == Over::Ws && std::str::from_utf8(nonsense).is_err() {
            continue;
        }
        socket.send(opcode, true, nonsense).await;
        assert_eq!(socket.refuses().await, Code::BadRequest);
    }
    socket.send(0x89, true, b"still there?").await;
    loop {
        match socket.next().await.expect("the session goes on") {
            (0xa, payload) => return assert_eq!(payload, b"still there?"),
            (opcode, _) => assert!(matches!(opcode, 0x1 | 0x2)),
        }
    }
}

/// gRPC messages that are no messages of that method.
async fn garbage_messages(over: Over, url: &str) {
    let channel = Channel::from_shared(url.to_owned()).expect("a URL").connect().await.expect("it is there");
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.expect("it is ready");
    // Field 1 is a number here, and a text or a message there.
    let nonsense = v1::Ping { id: 5 };
    if over == Over::Grpc {
        let codec = tonic_prost::ProstCodec::<v1::Ping, v1::SubscribeResponse>::default();
        let path = http::uri::PathAndQuery::from_static("/ticker.v1.MarketData/Subscribe");
        let answer = grpc.server_streaming(tonic::Request::new(nonsense), path, codec).await;
        let status = answer.expect_err("it is refused");
        assert!(matches!(status.code(), tonic::Code::Internal | tonic::Code::InvalidArgument), "{status}");
        return;
    }
    let codec = tonic_prost::ProstCodec::<v1::Ping, v1::SessionResponse>::default();
    let path = http::uri::PathAndQuery::from_static("/ticker.v1.MarketData/Session");
    // The stream of requests stays open: it is the message that ends the session.
    let requests = futures_util::StreamExt::chain(tokio_stream::once(nonsense), tokio_stream::pending());
    let stream = grpc.streaming(tonic::Request::new(requests), path, codec).await.expect("it opens").into_inner();
    let (sender, _) = tokio::sync::mpsc::channel(1);
    let ends = Slow::Session(Box::new(stream), sender).ends_with(Code::BadRequest);
    assert!(tokio::time::timeout(Duration::from_secs(10), ends).await.is_ok(), "nonsense ends the session");
}
