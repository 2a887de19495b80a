//! QUIC on the UDP port of the TLS address: HTTP/3 (ALPN `h3`), and sessions without HTTP (ALPN `ticker/1`): one on the
//! first bidirectional stream, Protobuf messages with their length before them.

mod crypto;

use std::future::Future;
use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use futures_util::future::join_all;
use quinn::{Connection, Endpoint, EndpointConfig, Incoming, ServerConfig, TransportConfig, VarInt};
use ticker_runtime::Drain;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use crate::byte_session::{self, Datagrams, Ended};
use crate::config::Congestion;
use crate::framing::Framing;
use crate::http3::{self, Rest};
use crate::library::{self, DRAIN_MAX};
use crate::pipe::Pipe;
use crate::routes::Web;
use crate::steering::SteeredIds;

/// What the endpoint speaks, by ALPN.
pub(crate) const ALPN: [&[u8]; 2] = [b"h3", b"ticker/1"];

/// How long a handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Connections that wait to be looked at, at most.
const INCOMING_MAX: usize = 1_024;

/// Bytes that those may send meanwhile, together.
const INCOMING_BYTES_MAX: u64 = 4 << 20;

/// A reader of whom nothing is heard for so long is gone.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// A quiet connection is kept open, also in the tables of whatever lies between.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Streams in both directions that a reader may have open at first. quinn keeps a place for each that may be, about 80 bytes,
/// so a reader who needs more is given more: [`http3::serve`].
pub(crate) const STREAMS_FIRST: u32 = 8;

/// Streams in one direction that a reader may have open: HTTP/3 needs three. With the others they fit into a table of 16
/// places, which takes 14 before it grows, and is asked for one more whenever a stream is stopped.
const UNI_STREAMS_MAX: u32 = 5;

/// What a reader may send before we have taken it: requests are small.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;

/// What waits for a reader in one connection. What lies behind it can still be conflated.
const SEND_WINDOW_BYTES: u64 = 128 * 1024;

/// Datagrams from readers mean nothing here.
const DATAGRAMS_IN_BYTES_MAX: usize = 4 * 1024;

/// Datagrams to a reader that wait for the network, a few packets of them. What is new behind them is conflated: more
/// would only be older when it arrives (over a path that loses 2 %, 64 KiB were a sixth of a second).
const DATAGRAMS_OUT_BYTES_MAX: usize = 4 * 1024;

/// How long the last packets may take at the end.
const LAST_PACKETS_MAX: Duration = Duration::from_secs(1);

/// How many connections there may be, and how packets are sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) connections_max: usize,
    /// With so many handshakes under way, the address of whoever begins another is validated.
    pub(crate) handshakes_unvalidated_max: usize,
    /// Several packets a system call (GSO).
    pub(crate) segmentation_offload: bool,
    pub(crate) congestion: Congestion,
}

/// What every connection of an endpoint gets.
pub(crate) struct Shared {
    pub(crate) service: Router,
    pub(crate) web: Web,
    pub(crate) drain: Drain,
    limits: Limits,
    /// How many handshakes are under way.
    handshakes: Arc<AtomicUsize>,
}

/// One endpoint for each socket. Tickets and tokens that one gave are good at each.
pub(crate) fn endpoints(
    sockets: Vec<UdpSocket>,
    tls: rustls::ServerConfig,
    limits: Limits,
) -> io::Result<Vec<Endpoint>> {
    let mut server = ServerConfig::with_crypto(Arc::new(crypto::Config::new(tls)?));
    server
        .transport_config(Arc::new(transport(limits)))
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_MAX);
    let count = sockets.len();
    let endpoint = |(index, socket)| {
        let mut config = EndpointConfig::default();
        config.cid_generator(move || Box::new(SteeredIds::new(index, count)));
        Endpoint::new(config, Some(server.clone()), socket, Arc::new(quinn::TokioRuntime))
    };
    sockets.into_iter().enumerate().map(endpoint).collect()
}

fn transport(limits: Limits) -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(STREAMS_FIRST.into())
        .max_concurrent_uni_streams(UNI_STREAMS_MAX.into())
        .max_idle_timeout(Some(IDLE_MAX.try_into().expect("half a minute fits into 62 bits")))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .stream_receive_window(STREAM_WINDOW_BYTES.into())
        .receive_window(CONNECTION_WINDOW_BYTES.into())
        .send_window(SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(Some(DATAGRAMS_IN_BYTES_MAX))
        .datagram_send_buffer_size(DATAGRAMS_OUT_BYTES_MAX)
        .congestion_controller_factory(congestion(limits.congestion))
        .enable_segmentation_offload(limits.segmentation_offload);
    config
}

fn congestion(chosen: Congestion) -> Arc<dyn quinn::congestion::ControllerFactory + Send + Sync> {
    match chosen {
        Congestion::Bbr => Arc::new(quinn::congestion::BbrConfig::default()),
        Congestion::Cubic => Arc::new(quinn::congestion::CubicConfig::default()),
    }
}

/// An endpoint with what its connections are served by.
pub(crate) struct Served {
    pub(crate) endpoint: Endpoint,
    pub(crate) service: Router,
    pub(crate) web: Web,
}

/// Serves connections until the drain, and until they have ended.
pub(crate) async fn serve(served: Vec<Served>, limits: Limits, drain: Drain) {
    let tasks = TaskTracker::new();
    let handshakes = Arc::<AtomicUsize>::default();
    let endpoints: Vec<Endpoint> = served.iter().map(|one| one.endpoint.clone()).collect();
    let accepting = join_all(served.into_iter().map(|Served { endpoint, service, web }| {
        let handshakes = Arc::clone(&handshakes);
        let shared = Shared { service, web, drain: drain.clone(), limits, handshakes };
        accept(endpoint, endpoints.len(), tasks.clone(), Arc::new(shared))
    }));
    let draining = async {
        drain.started().await;
        library::ended(tasks.clone()).await;
    };
    tokio::select! {
        _ = accepting => {}
        () = draining => {}
    }
    for endpoint in &endpoints {
        endpoint.close(VarInt::from_u32(0), b"draining");
    }
    let idle = join_all(endpoints.iter().map(Endpoint::wait_idle));
    let _ = tokio::time::timeout(LAST_PACKETS_MAX, idle).await;
}

/// Accepts connections of one of `count` endpoints. At a drain whoever comes is refused, so that it goes elsewhere at once.
async fn accept(endpoint: Endpoint, count: usize, tasks: TaskTracker, shared: Arc<Shared>) {
    let Limits { connections_max, handshakes_unvalidated_max, .. } = shared.limits;
    while let Some(incoming) = endpoint.accept().await {
        if shared.drain.is_started() || endpoint.open_connections() >= connections_max.div_ceil(count) {
            metrics::counter!("ticker_edge_quic_refused_total").increment(1);
            incoming.refuse();
        } else if shared.handshakes.load(Ordering::Relaxed) >= handshakes_unvalidated_max && incoming.may_retry() {
            metrics::counter!("ticker_edge_quic_retries_total").increment(1);
            // It may retry, so this cannot fail.
            let _ = incoming.retry();
        } else {
            shared.handshakes.fetch_add(1, Ordering::Relaxed);
            tasks.spawn(begin(incoming, Arc::clone(&shared), UnderWay(Arc::clone(&shared.handshakes))));
        }
    }
}

/// Whether a handshake is complete. Until it is, what the reader sent may be a replay of what another sent before (RFC 9001
/// §9.2): none who replays can complete it.
#[derive(Debug, Default)]
pub(crate) struct Confirmed {
    done: AtomicBool,
    told: Notify,
}

impl Confirmed {
    pub(crate) fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    pub(crate) async fn wait(&self) {
        let told = self.told.notified();
        if !self.is_done() {
            told.await;
        }
    }

    fn tell(&self) {
        self.done.store(true, Ordering::Release);
        self.told.notify_waiters();
    }
}

/// A handshake that is under way, for as long as this lives.
struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves a connection to its end.
fn begin(incoming: Incoming, shared: Arc<Shared>, under_way: UnderWay) -> impl Future<Output = ()> + Send {
    // What happens once is in memory of its own, which goes when it is done: a reader who stays is to cost little. And no
    // function that is `async`: that would keep two places for each argument.
    let heard = Box::pin(async {
        let mut connecting = incoming.accept().ok()?;
        // The client's first message must be whole before the connection is used: else some never come to life.
        tokio::time::timeout(HANDSHAKE_MAX, connecting.handshake_data()).await.ok()?.ok()?;
        connecting.into_0rtt().ok()
    });
    async move {
        let confirmed = Arc::<Confirmed>::default();
        if let Some((connection, complete)) = heard.await {
            // What it tells besides means nothing at a server, and that it is over may mean that the connection is.
            let complete = Box::pin(tokio::time::timeout(HANDSHAKE_MAX, complete));
            let watching = async {
                if complete.await.is_ok() && connection.close_reason().is_none() {
                    drop(under_way);
                    metrics::gauge!("ticker_edge_quic_connections").increment(1);
                    confirmed.tell();
                    std::future::pending().await
                }
            };
            let serving: Rest = match alpn(&connection) {
                // Its requests change nothing but the session itself: a replay of them is harmless.
                Some(b"ticker/1") => Box::pin(session(connection.clone(), shared)),
                _ => Box::pin(http3::serve(connection.clone(), shared, Arc::clone(&confirmed))),
            };
            tokio::select! {
                () = watching => connection.close(VarInt::from_u32(0), b""),
                () = serving => {}
            }
        }
        match confirmed.is_done() {
            true => metrics::gauge!("ticker_edge_quic_connections").decrement(1),
            false => metrics::counter!("ticker_edge_quic_handshakes_failed_total").increment(1),
        }
    }
}

/// A connection that is one session.
async fn session(connection: Connection, shared: Arc<Shared>) {
    let ended = async {
        let Ok((mut send, receive)) = tokio::time::timeout(HANDSHAKE_MAX, connection.accept_bi()).await.ok()? else {
            return None;
        };
        let framing = Framing::Lengths;
        let mut pipe = match Pipe::open_with_datagrams(shared.web.shard(), byte_session::form(framing), None).await {
            Ok(pipe) => pipe.paced(&shared.web.pace),
            Err(refusal) => {
                let reason = format!("{}: {}", refusal.code, refusal.message);
                return Some(Ended { code: refusal.code.websocket_close(), reason });
            }
        };
        let mut datagrams = Datagrams::new(connection.clone(), Vec::new());
        let ended = byte_session::run(&mut pipe, framing, &mut send, (Bytes::new(), receive), &mut datagrams).await;
        if ended.is_some() {
            // The end of the connection must not overtake its last words.
            let _ = tokio::time::timeout(LAST_PACKETS_MAX, send.stopped()).await;
        }
        ended
    };
    let Ended { code, reason } = ended.await.unwrap_or(Ended { code: 0, reason: String::new() });
    connection.close(VarInt::from_u32(u32::from(code)), reason.as_bytes());
}

fn alpn(connection: &Connection) -> Option<&'static [u8]> {
    connection.handshake_data()?.downcast::<crypto::Protocol>().ok()?.0
}

/// How long connections of QUIC may take to end when the edge drains: shorter than all the edge waits.
pub(crate) const QUIC_DRAIN_MAX: Duration = Duration::from_millis(DRAIN_MAX.as_millis() as u64 - 500);
