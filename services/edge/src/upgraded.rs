//! WebSocket over connections that the HTTP library serves: HTTP/1.1 over TLS, and HTTP/2 by extended CONNECT (RFC 8441).
//! The frames are those that shards send; the session comes through a pipe.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::ext::Protocol;
use hyper_util::rt::TokioIo;
use ticker_proto::message::Request as Asked;
use ticker_proto::{Code, Encoded, Form};
use ticker_session::catalogue::Refusal;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::mpsc;

use crate::command::Stalled;
use crate::params::Params;
use crate::pipe::{Pipe, Requests};
use crate::routes::{self, Web};
use crate::websocket::{self, Decoder, FrameError, Incoming};
use crate::{deflate, http1};

/// Bytes that are read at once.
const READ_BYTES: usize = 4 * 1024;

/// Answers of our own (pongs) that wait to be written, at most; more are left out.
const OWN_MAX: usize = 4;

/// How long a reader may take to go once all has been said.
const CLOSING_MAX: Duration = Duration::from_secs(2);

/// A handshake that can be answered.
struct Handshake {
    /// The value of `Sec-WebSocket-Accept`; `None` over HTTP/2, which has none.
    accept: Option<String>,
    protocol: Option<&'static str>,
    deflate: Option<&'static str>,
    params: Option<Params>,
}

/// `/v1/ws`.
pub(crate) async fn websocket(State(web): State<Web>, mut request: Request) -> Response {
    let Handshake { accept, protocol, deflate, params } = match handshake(&request) {
        Ok(handshake) => handshake,
        Err(refusal) => return routes::problem(&refusal),
    };
    let protobuf = protocol == Some("ticker.v1.proto");
    let form = match (protobuf, deflate.is_some()) {
        (false, false) => Form::WebSocketJson,
        (true, false) => Form::WebSocketProtobuf,
        (false, true) => Form::WebSocketJsonDeflate,
        (true, true) => Form::WebSocketProtobufDeflate,
    };
    let pipe = match Pipe::open(web.shard(), form, params.map(|p| p.subscribe), Stalled::default()).await {
        Ok(pipe) => pipe,
        Err(refusal) => return routes::problem(&refusal),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let decoder = Decoder::new(deflate.is_some());
    web.connections.spawn(async move {
        // Without an upgrade the pipe goes, and with it the session.
        if let Ok(upgraded) = upgrade.await {
            run(TokioIo::new(upgraded), pipe, decoder, protobuf).await;
        }
    });
    let mut response = match accept {
        Some(accept) => {
            let headers = [
                (header::UPGRADE, "websocket"),
                (header::CONNECTION, "Upgrade"),
                (header::SEC_WEBSOCKET_ACCEPT, &accept),
            ];
            (StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response()
        }
        None => StatusCode::OK.into_response(),
    };
    let extras = [(header::SEC_WEBSOCKET_PROTOCOL, protocol), (header::SEC_WEBSOCKET_EXTENSIONS, deflate)];
    for (name, value) in extras {
        if let Some(value) = value {
            response.headers_mut().insert(name, http::HeaderValue::from_static(value));
        }
    }
    response
}

fn handshake(request: &Request) -> Result<Handshake, Refusal> {
    let header = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok());
    let is_websocket = |p: &Protocol| p.as_str().eq_ignore_ascii_case("websocket");
    let connects = request.method() == Method::CONNECT && request.extensions().get().is_some_and(is_websocket);
    let upgrades = header("upgrade").is_some_and(|u| u.eq_ignore_ascii_case("websocket"))
        && http1::lists(header("connection"), "upgrade");
    let accept = match (connects, header("sec-websocket-key")) {
        (true, _) => None,
        (false, Some(key)) if upgrades && request.method() == Method::GET => {
            Some(websocket::accept_key(key.as_bytes()))
        }
        _ => {
            let message = "/v1/ws wants a WebSocket handshake: RFC 6455 over HTTP/1.1, extended CONNECT (RFC 8441) over HTTP/2; without one use /v1/stream";
            return Err(Refusal::new(Code::BadRequest, message));
        }
    };
    let (protocol, params) = http1::websocket_terms(request.uri().query().unwrap_or(""), &header)?;
    let offers = request.headers().get_all(header::SEC_WEBSOCKET_EXTENSIONS).iter().map(|v| v.as_bytes());
    Ok(Handshake { accept, protocol, deflate: deflate::negotiate(offers), params })
}

/// What goes out between the session's messages.
enum Own {
    Pong(Vec<u8>),
    /// The last frame: the reader closes, or broke the protocol.
    Last(Vec<u8>),
}

/// Carries a session until either side ends it.
async fn run(io: impl AsyncRead + AsyncWrite, mut pipe: Pipe, decoder: Decoder, protobuf: bool) {
    let (mut reader, mut writer) = tokio::io::split(io);
    let (own, mut owns) = mpsc::channel(OWN_MAX);
    let (requests, stalled) = (pipe.requests(), pipe.stalled());
    let reading = async {
        if let Some(last) = read(&mut reader, decoder, &requests, protobuf, &own).await {
            // Whoever reads nothing any more never gets it, and is not waited for.
            let _ = own.send(Own::Last(last)).await;
            tokio::time::sleep(CLOSING_MAX).await;
        }
    };
    let writing = async {
        let written = loop {
            let (bytes, last) = tokio::select! {
                batch = pipe.next() => match batch {
                    Some(batch) => (joined(&batch), false),
                    None => (goodbye(&pipe).into(), true),
                },
                Some(own) = owns.recv() => match own {
                    Own::Pong(pong) => (pong.into(), false),
                    Own::Last(frame) => (frame.into(), true),
                },
            };
            let written = async {
                writer.write_all(&bytes).await?;
                writer.flush().await
            };
            match written.await {
                Ok(()) if !last => {}
                result => break result,
            }
        };
        if written.is_ok() {
            let _ = writer.shutdown().await;
            // Closing before the reader does could take our words back.
            tokio::time::sleep(CLOSING_MAX).await;
        }
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
        () = stalled.told() => {}
    }
}

/// Messages as one piece.
pub(crate) fn joined(batch: &[Encoded]) -> Bytes {
    match batch {
        [one] => one.bytes.clone(),
        all => all.iter().map(|e| &e.bytes[..]).collect::<Vec<_>>().concat().into(),
    }
}

/// The close frame after a session's own last words.
fn goodbye(pipe: &Pipe) -> Vec<u8> {
    match pipe.closing() {
        Some(closing) => {
            let code = closing.ending.code;
            websocket::close_frame(code.websocket_close(), &format!("{code} {}", closing.cursor))
        }
        None => websocket::close_frame(Code::Draining.websocket_close(), Code::Draining.as_str()),
    }
}

/// Reads until the reader closes or breaks the protocol: then the last frame for it. `None`: it is gone.
async fn read(
    reader: &mut (impl AsyncRead + Unpin),
    mut decoder: Decoder,
    requests: &Requests,
    protobuf: bool,
    own: &mpsc::Sender<Own>,
) -> Option<Vec<u8>> {
    let mut deaf = false;
    loop {
        let bytes = match poll_fn(|cx| poll_some(Pin::new(&mut *reader), cx)).await {
            Ok(bytes) if bytes.is_empty() => return None,
            Err(_) => return None,
            Ok(_) if deaf => continue,
            Ok(bytes) => bytes,
        };
        let mut incoming = Vec::new();
        let result = decoder.feed(&bytes, |i| {
            incoming.push(i);
            true
        });
        for message in incoming {
            let request = match message {
                Incoming::Text(text) => Asked::from_json(&text).map_err(bad),
                Incoming::Binary(bytes) if protobuf => Asked::from_protobuf(&bytes).map_err(bad),
                Incoming::Binary(_) => {
                    let why = "a binary message; this session's are JSON text (offer the subprotocol ticker.v1.proto for protobuf)";
                    Err(Refusal::new(Code::BadRequest, why))
                }
                Incoming::Ping(payload) => {
                    let mut pong = Vec::with_capacity(payload.len() + 2);
                    ticker_proto::frame::websocket_frame(&mut pong, 0xa, &payload);
                    // A reader who pings without reading is not owed more pongs than fit.
                    let _ = own.try_send(Own::Pong(pong));
                    continue;
                }
                Incoming::Pong => continue,
                Incoming::Close(code) => {
                    let code = code.filter(|c| (1000..5000).contains(c)).unwrap_or(1000);
                    return Some(websocket::close_frame(code, ""));
                }
            };
            requests.send(request).await;
        }
        match result {
            Ok(()) => {}
            Err(error @ FrameError::TooLarge) => {
                // The session ends, with a cursor; whatever still comes is passed over.
                deaf = true;
                let message = format!("{error}: send smaller requests");
                requests.send(Err(Refusal::new(Code::MessageTooLarge, message))).await;
            }
            Err(error) => return Some(websocket::close_frame(1002, &error.to_string())),
        }
    }
}

/// Reads what there is. The buffer is here only while there is something: an idle reader has none.
fn poll_some(reader: Pin<&mut impl AsyncRead>, cx: &mut Context<'_>) -> Poll<std::io::Result<Vec<u8>>> {
    let mut bytes = [0; READ_BYTES];
    let mut buffer = ReadBuf::new(&mut bytes);
    ready!(reader.poll_read(cx, &mut buffer))?;
    Poll::Ready(Ok(buffer.filled().to_vec()))
}

fn bad(error: ticker_proto::message::RequestError) -> Refusal {
    Refusal::new(Code::BadRequest, error.to_string())
}
