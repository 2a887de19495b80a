//! One connection: a WebSocket, a REST request, or the admin paths of the stand-in itself.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ticker_feeds::stand_in::Session;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::hub::{Ask, FRAMES_MAX};

/// Where the stand-in's own paths begin: no venue's do.
const OWN: &str = "/stand-in";

/// A message of a reader is not larger: it only subscribes.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// A reader takes a frame within so long, or its connection ends.
const SEND_MAX: Duration = Duration::from_secs(30);

type Answer = Response<Full<Bytes>>;

/// Serves a connection to its end. `session` names its WebSocket, if it becomes one.
pub(super) async fn serve(stream: TcpStream, session: Session, asks: mpsc::Sender<Ask>) {
    if let Err(why) = stream.set_nodelay(true) {
        tracing::debug!(%why, "nodelay");
    }
    let service = service_fn(move |request| {
        let asks = asks.clone();
        async move { Ok::<_, Infallible>(answer(request, session, asks).await) }
    });
    let serving =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
    if let Err(why) = serving.await {
        tracing::debug!(%why, "a connection ended");
    }
}

async fn answer(mut request: Request<Incoming>, session: Session, asks: mpsc::Sender<Ask>) -> Answer {
    let path = request.uri().path_and_query().map_or("/", |p| p.as_str()).to_owned();
    if let Some(own) = path.strip_prefix(OWN) {
        return administer(request.method(), own, &asks).await;
    }
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).cloned();
    let Some(key) = key else {
        let (answer, answered) = oneshot::channel();
        return ask(&asks, Ask::Fetch { path, answer }, answered).await;
    };
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgraded.await {
            Ok(io) => {
                let config = WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX));
                let socket = WebSocketStream::from_raw_socket(TokioIo::new(io), Role::Server, Some(config)).await;
                converse(socket, session, path, asks).await;
            }
            Err(why) => tracing::debug!(%why, "no WebSocket"),
        }
    });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

async fn administer(method: &Method, path: &str, asks: &mpsc::Sender<Ask>) -> Answer {
    if method == Method::GET && path.is_empty() {
        let (answer, answered) = oneshot::channel();
        return ask(asks, Ask::Show { answer }, answered).await;
    }
    match path.strip_prefix("/fault/").map(str::parse) {
        Some(Ok(kind)) if method == Method::POST => match asks.send(Ask::Inject { kind }).await {
            Ok(()) => json(200, "{}".to_owned()),
            Err(_) => gone(),
        },
        Some(Err(why)) => json(400, format!("{{\"error\":{:?}}}", why.to_string())),
        _ => json(404, r#"{"error":"GET /stand-in or POST /stand-in/fault/KIND"}"#.to_owned()),
    }
}

async fn ask(asks: &mpsc::Sender<Ask>, ask: Ask, answered: oneshot::Receiver<(u16, String)>) -> Answer {
    if asks.send(ask).await.is_err() {
        return gone();
    }
    match answered.await {
        Ok((status, body)) => json(status, body),
        Err(_) => gone(),
    }
}

fn gone() -> Answer {
    json(503, r#"{"error":"the stand-in ends"}"#.to_owned())
}

fn json(status: u16, body: String) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

async fn converse(
    mut socket: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>,
    session: Session,
    url: String,
    asks: mpsc::Sender<Ask>,
) {
    let (frames, mut frame) = mpsc::channel(FRAMES_MAX);
    if asks.send(Ask::Opened { session, url, frames }).await.is_err() {
        return;
    }
    loop {
        tokio::select! {
            heard = socket.next() => match heard {
                Some(Ok(message)) if message.is_text() || message.is_binary() => {
                    // The hub may be waiting for us to take a frame: waiting for it as well would be for ever.
                    if asks.try_send(Ask::Heard { session, bytes: message.into_data() }).is_err() {
                        tracing::warn!(session = session.0, "a reader asks more than can be answered");
                        break;
                    }
                }
                // Without room for it, the next one is soon enough.
                Some(Ok(Message::Pong(bytes))) => _ = asks.try_send(Ask::Ponged { session, bytes }),
                Some(Ok(message)) if message.is_close() => break,
                // Pings are answered by the library.
                Some(Ok(_)) => {}
                Some(Err(_)) | None => break,
            },
            next = frame.recv() => {
                // The hub has given this connection up.
                let Some(message) = next else { break };
                if !matches!(timeout(SEND_MAX, socket.send(message)).await, Ok(Ok(()))) {
                    break;
                }
            }
        }
    }
    drop(frame);
    // A hub that is gone needs not hear of it.
    let _ = asks.send(Ask::Closed { session }).await;
}
