//! HTTP/3: the same router as over TCP, through h3, and WebTransport's sessions beside it.

pub(crate) mod streams;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Buf, Bytes};
use futures_util::future::OptionFuture;
use futures_util::stream;
use h3::error::Code;
use h3::ext::Protocol;
use h3::server::{RequestResolver, RequestStream};
use http_body_util::BodyExt as _;
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tower::ServiceExt as _;

use crate::library::STREAMS_MAX;
use crate::quic::{Confirmed, QUIC_DRAIN_MAX, STREAMS_FIRST, Shared};
use crate::webtransport::Sessions;
use crate::{http1, library, webtransport};
use streams::{Receive, Send, Transport};

/// How long a request's head may take.
const HEAD_MAX: Duration = Duration::from_secs(10);

/// How long a reader who has been told all may take to close.
const CLOSING_MAX: Duration = Duration::from_secs(1);

type Resolver = RequestResolver<Transport, Bytes>;

/// Serves a connection to its end. At a drain it takes no more requests (GOAWAY) and lets those that it has come to theirs.
#[allow(clippy::manual_async_fn, reason = "an async fn keeps its arguments beside what it makes of them")]
pub(crate) fn serve(
    connection: quinn::Connection,
    shared: Arc<Shared>,
    confirmed: Arc<Confirmed>,
) -> impl Future<Output = ()> + std::marker::Send {
    async move {
        let mut builder = h3::server::builder();
        builder
            .max_field_section_size(http1::HEAD_BYTES_MAX as u64)
            .enable_extended_connect(true)
            .enable_datagram(true)
            .enable_webtransport(true)
            .max_webtransport_sessions(webtransport::SESSIONS_MAX as u64);
        let sessions = Arc::<Sessions>::default();
        let transport = Transport::new(connection.clone(), Arc::clone(&sessions));
        let Ok(mut h3) = Box::pin(builder.build::<_, Bytes>(transport)).await else { return };
        let mut requests = JoinSet::new();
        let mut streams = STREAMS_FIRST;
        // Of a drain, once there is one.
        let mut deadline: Option<Pin<Box<Sleep>>> = None;
        loop {
            tokio::select! {
                accepted = h3.accept() => match accepted {
                    Ok(Some(resolver)) => {
                        metrics::counter!("ticker_edge_http3_requests_total").increment(1);
                        if requests.len() as u32 * 2 >= streams && streams < STREAMS_MAX {
                            streams = STREAMS_MAX.min(streams * 2);
                            connection.set_max_concurrent_bi_streams(streams.into());
                        }
                        let of = Of {
                            shared: Arc::clone(&shared),
                            connection: connection.clone(),
                            sessions: Arc::clone(&sessions),
                            confirmed: Arc::clone(&confirmed),
                        };
                        requests.spawn(request(resolver, of));
                    }
                    // The reader has gone, and with it whatever it asked for.
                    Ok(None) | Err(_) => return,
                },
                Some(_) = requests.join_next(), if !requests.is_empty() => {
                    if let Some(deadline) = deadline.as_mut().filter(|_| requests.is_empty()) {
                        deadline.as_mut().reset(tokio::time::Instant::now() + CLOSING_MAX);
                    }
                }
                () = shared.drain.started(), if deadline.is_none() => {
                    let wait = if requests.is_empty() { CLOSING_MAX } else { QUIC_DRAIN_MAX };
                    deadline = Some(Box::pin(tokio::time::sleep(wait)));
                    if Box::pin(h3.shutdown(0)).await.is_err() {
                        return;
                    }
                }
                Some(()) = OptionFuture::from(deadline.as_mut()) => return,
            }
        }
    }
}

/// What is left to do for a request, in memory of its own: the task of a reader who stays is to cost little.
pub(crate) type Rest = Pin<Box<dyn Future<Output = ()> + std::marker::Send>>;

/// The connection of a request.
struct Of {
    shared: Arc<Shared>,
    connection: quinn::Connection,
    sessions: Arc<Sessions>,
    confirmed: Arc<Confirmed>,
}

/// Answers a request.
fn request(resolver: Resolver, of: Of) -> impl Future<Output = ()> + std::marker::Send {
    // What happens once is in memory of its own too, which goes when it is done, as in `quic::begin`.
    let begun = Box::pin(begin(resolver, of));
    async move {
        if let Some(rest) = begun.await {
            rest.await;
        }
    }
}

async fn begin(resolver: Resolver, of: Of) -> Option<Rest> {
    let Of { shared, connection, sessions, confirmed } = of;
    let (request, stream) = tokio::time::timeout(HEAD_MAX, resolver.resolve_request()).await.ok()?.ok()?;
    if !confirmed.is_done() {
        // Early data. Methods that are safe (RFC 9110 §9.2.1) change nothing however often they come; the others wait, which
        // RFC 8470 §3 prefers to 425.
        let is_harmless = request.method().is_safe();
        let answer = if is_harmless { "at_once" } else { "delayed" };
        metrics::counter!("ticker_edge_quic_early_requests_total", "answer" => answer).increment(1);
        if !is_harmless {
            confirmed.wait().await;
        }
    }
    drop(confirmed);
    if request.extensions().get() == Some(&Protocol::WEB_TRANSPORT) {
        return webtransport::begin(request, stream, connection, &shared.web, sessions).await;
    }
    let (send, receive) = stream.split();
    let mut request = request.map(|()| body_of(receive));
    request.extensions_mut().insert(library::From(connection.remote_address()));
    let response = match shared.service.clone().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    respond(send, response, shared.web.write_timeout).await
}

/// The body of a request, as far as its handler reads it.
fn body_of(receive: RequestStream<Receive, Bytes>) -> Body {
    let chunks = stream::unfold(receive, |mut receive| async {
        match receive.recv_data().await {
            Ok(Some(mut chunk)) => Some((Ok(chunk.copy_to_bytes(chunk.remaining())), receive)),
            Ok(None) => None,
            Err(error) => Some((Err(error), receive)),
        }
    });
    Body::from_stream(chunks)
}

/// Sends the head of an answer; its body is what is left to do.
pub(crate) async fn respond(
    mut send: RequestStream<Send, Bytes>,
    response: http::Response<Body>,
    write_timeout: Duration,
) -> Option<Rest> {
    let (parts, body) = response.into_parts();
    send.send_response(http::Response::from_parts(parts, ())).await.ok()?;
    Some(Box::pin(async move {
        // How a client left is its own business.
        let _ = send_body(&mut send, body, write_timeout).await;
    }))
}

/// Sends the body of an answer, as long as its reader takes it: a piece that is not taken within `write_timeout` is the last.
async fn send_body(
    send: &mut RequestStream<Send, Bytes>,
    mut body: Body,
    write_timeout: Duration,
) -> Result<(), h3::error::StreamError> {
    while let Some(frame) = body.frame().await {
        match frame.map(hyper::body::Frame::into_data) {
            Ok(Ok(data)) if data.is_empty() => {}
            Ok(Ok(data)) => match tokio::time::timeout(write_timeout, send.send_data(data)).await {
                Ok(sent) => sent?,
                Err(_) => {
                    metrics::counter!("ticker_edge_write_timeouts_total", "shard" => "none").increment(1);
                    send.stop_stream(Code::H3_REQUEST_CANCELLED);
                    return Ok(());
                }
            },
            Ok(Err(frame)) => {
                if let Ok(trailers) = frame.into_trailers() {
                    Box::pin(send.send_trailers(trailers)).await?;
                }
            }
            Err(_) => {
                send.stop_stream(Code::H3_INTERNAL_ERROR);
                return Ok(());
            }
        }
    }
    Box::pin(send.finish()).await
}
