//! The edge: pushes events to people's screens.
//!
//! One thread a core, a *shard*, owns listeners and readers' sockets; upstream, one stream from the fanout brings what all
//! readers of the edge want, and each event is made a frame once for all of them.
//!
//! Layout, in the order in which an event passes: [`upstream`] and [`follow`], the stream from the fanout; [`shard`], the
//! loop; [`round`] and [`ring`], its writes; [`readers`], its sockets, with [`conn`], [`http1`], [`params`],
//! [`websocket`], [`deflate`]; [`asks`] and [`poll`], long polls,
//! and [`pipe`], the sessions of transports that tasks serve: [`library`], the HTTP library; [`routes`], what it answers, and [`history`], what it asks the fanout for;
//! [`grpc`], `ticker.v1.MarketData` on the same port; [`tls`] and [`certificate`], the TLS address; [`upgraded`], WebSocket
//! there and over HTTP/2; [`quic`], [`steering`], [`pace`], [`http3`] and [`frame_limit`], the same address over UDP; [`webtransport`],
//! [`byte_session`], [`framing`], sessions there that are no requests; [`rtc`], WebRTC; [`switchboard`], signals between
//! readers.
//!
//! Deliberately absent: what a session is (crate `ticker-session`), and any knowledge of the other services but their
//! protocol.

mod asks;
mod batches;
mod byte_session;
mod certificate;
mod clock;
mod command;
mod config;
mod conn;
pub mod deflate;
mod follow;
pub mod frame_limit;
pub mod framing;
mod grpc;
pub mod history;
pub mod http1;
mod http3;
mod library;
mod pace;
pub mod params;
mod pipe;
mod poll;
mod quic;
mod readers;
mod ring;
mod round;
mod routes;
mod rtc;
mod shard;
mod steering;
mod switchboard;
mod tls;
mod upgraded;
mod upstream;
pub mod websocket;
pub mod webtransport;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub use certificate::CertificateError;
pub use config::{Config, Io};
use pace::Pace;
use ticker_runtime::admin::BindError;
use ticker_runtime::{Drain, Health};
use ticker_session::Limits;
use tokio::sync::mpsc;
use tonic::transport::Channel;

use command::{Command, ShardHandle};
use shard::{Parts, Shard};

/// Connections that wait for the HTTP library, at most; more are closed.
const HANDOVERS_MAX: usize = 1_024;

/// Connections that the kernel keeps for a shard that is busy.
const BACKLOG: i32 = 4_096;

/// Why an edge could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// The listener.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A thread or its queue of events.
    #[error("a shard could not be started: {0}")]
    Shard(#[source] std::io::Error),
    /// `io = "io_uring"` where there is none.
    #[error(
        "io = \"io_uring\" is not possible here: {0}; set io = \"auto\" or \"write\", or allow io_uring (in containers its system calls are often forbidden)"
    )]
    IoUring(#[source] std::io::Error),
    /// The certificate of the TLS address.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// WebRTC.
    #[error("{0}")]
    Rtc(String),
    /// The fanout's address.
    #[error("`{0}` is not the address of a fanout: expected a URL such as http://127.0.0.1:50051")]
    Fanout(String),
}

impl EdgeError {
    /// Is it that another program has the TLS address?
    pub fn is_tls_address_in_use(&self) -> bool {
        matches!(self, EdgeError::Bind(BindError::InUse { what, .. }) if what == tls::WHAT)
    }

    /// Is it that another program has the address of WebRTC?
    pub fn is_rtc_address_in_use(&self) -> bool {
        matches!(self, EdgeError::Bind(BindError::InUse { what, .. }) if what == rtc::WHAT)
    }
}

/// A running edge.
#[derive(Debug)]
pub struct Edge {
    local_addr: SocketAddr,
    tls_addr: Option<SocketAddr>,
    rtc_addr: Option<SocketAddr>,
    readers: Arc<AtomicUsize>,
    done: mpsc::Receiver<()>,
}

impl Edge {
    /// Starts an edge that follows the fanout behind `channel`, until `drain` starts and its readers are gone.
    pub fn start(config: &Config, channel: Channel, health: &Health, drain: &Drain) -> Result<Self, EdgeError> {
        describe_metrics();
        let count = config.shard_count();
        let uses_ring = uses_ring(config.io)?;
        let (listeners, local_addr) = listen(config.listen, count)?;
        let secure = secure(config)?;
        let pace = Arc::<Pace>::default();
        let rtc = rtc::Service::open(config, Arc::clone(&pace))?;
        let (needs, needs_taken) = mpsc::channel(command::NEEDS_MAX);
        let (http, handovers) = mpsc::channel(HANDOVERS_MAX);
        let readers = Arc::new(AtomicUsize::new(0));
        let (done_sender, done) = mpsc::channel(1);
        let mut shards: Vec<ShardHandle> = Vec::with_capacity(count);
        let switchboard = Arc::<switchboard::Switchboard>::default();
        for (index, listener) in listeners.into_iter().enumerate() {
            let parts = Parts {
                index,
                listener,
                limits: limits(config, count),
                uses_ring,
                needs: needs.clone(),
                http: http.clone(),
                readers: Arc::clone(&readers),
                drain_spread_ms: config.drain_spread_ms,
                deflate: config.websocket_deflate,
                write_timeout_ms: config.write_timeout_ms,
                switchboard: Arc::clone(&switchboard),
            };
            let (shard, handle) = Shard::new(parts).map_err(EdgeError::Shard)?;
            let done = done_sender.clone();
            let thread = std::thread::Builder::new().name(format!("shard-{index}"));
            thread
                .spawn(move || {
                    if let Err(error) = shard.run() {
                        tracing::error!(%error, index, "a shard has stopped");
                    }
                    drop(done);
                })
                .map_err(EdgeError::Shard)?;
            shards.push(handle);
        }
        let directory = upstream::SharedDirectory::default();
        let linger = Duration::from_millis(config.linger_ms);
        let history = history::History::new(channel.clone());
        let link =
            upstream::Link::new(channel, shards.clone(), needs_taken, Arc::clone(&directory), linger, drain.clone());
        let component = health.component("upstream");
        let follow = tokio::spawn(link.run(component));
        let connections = library::Connections::new();
        let write_timeout = Duration::from_millis(config.write_timeout_ms.into());
        let web = routes::Web {
            shards: shards.clone().into(),
            turn: Arc::default(),
            directory,
            history,
            connections: connections.clone(),
            write_timeout,
            secure: secure.as_ref().map(|(sockets, certificates)| routes::Secure {
                certificates: Arc::clone(certificates),
                port: sockets.addr.port(),
            }),
            rtc: rtc.clone(),
            pace: None,
        };
        let rtc_addr = rtc.as_ref().map(|service| service.local_addr());
        let packets = rtc.map(|service| tokio::spawn(service.run()));
        let service = routes::service(web.clone());
        let tls_addr = secure.as_ref().map(|(sockets, _)| sockets.addr);
        if let Some((sockets, certificates)) = secure {
            let addr = sockets.addr;
            let mut service = service.clone();
            if !sockets.udp.is_empty() {
                let tls = tls::server_config(Arc::clone(&certificates), &quic::ALPN, true, config.quic_early_data);
                let limits = quic::Limits {
                    connections_max: config.quic_connections_max,
                    handshakes_unvalidated_max: config.quic_handshakes_unvalidated_max,
                    segmentation_offload: config.quic_segmentation_offload,
                    congestion: config.quic_congestion,
                };
                let endpoints =
                    quic::endpoints(sockets.udp, tls, limits).map_err(|e| BindError::new(addr, tls::WHAT, e))?;
                let alternative = |service| routes::with_alternative(service, addr.port());
                service = alternative(service);
                let count = endpoints.len();
                let served = endpoints.into_iter().enumerate().map(|(index, endpoint)| {
                    let web = web.of_endpoint(index, count, &pace);
                    quic::Served { endpoint, service: alternative(routes::service(web.clone())), web }
                });
                connections.spawn(quic::serve(served.collect(), limits, drain.clone()));
            }
            let tls = tls::server_config(Arc::clone(&certificates), &tls::ALPN, false, false);
            let limits = tls::Limits { connections_max: config.tls_connections_max, write_timeout };
            tokio::spawn(tls::serve(sockets.tcp, tls, limits, service, connections.clone(), drain.clone()));
            tokio::spawn(certificates.keep_fresh(drain.clone()));
        }
        tokio::spawn(library::serve(handovers, service, connections.clone(), write_timeout, drain.clone()));
        if tls_addr.is_some() || rtc_addr.is_some() {
            tokio::spawn(pace::keep(pace, drain.clone()));
        }
        let drain = drain.clone();
        tokio::spawn(async move {
            drain.started().await;
            let reason = drain.reason().unwrap_or("draining").to_owned();
            for shard in &shards {
                shard.tell(Command::Drain { reason: reason.clone() }).await;
            }
            library::ended(connections).await;
            follow.abort();
            packets.inspect(|packets| packets.abort());
            drop(done_sender);
        });
        Ok(Self { local_addr, tls_addr, rtc_addr, readers, done })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where it listens over TLS, if it does.
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls_addr
    }

    /// Where it listens for packets of WebRTC, if it does.
    pub fn rtc_addr(&self) -> Option<SocketAddr> {
        self.rtc_addr
    }

    /// How many sessions there are now.
    pub fn readers(&self) -> usize {
        self.readers.load(Ordering::Relaxed)
    }

    /// A handle to the number of sessions, for whoever shows it.
    pub fn reader_count(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.readers)
    }

    /// Waits until the edge has drained.
    pub async fn stopped(mut self) {
        // Nothing is ever sent: the channel closes when the last shard is done.
        while self.done.recv().await.is_some() {}
    }
}

/// The sockets of the TLS address and the certificates for it, where it is configured.
fn secure(config: &Config) -> Result<Option<(tls::Sockets, Arc<certificate::Certificates>)>, EdgeError> {
    let Some(addr) = config.tls_listen else { return Ok(None) };
    // First what does not depend on what else runs here.
    let certificates = tls::certificates(config, addr)?;
    Ok(Some((tls::Sockets::bind(addr, config.quic_endpoint_count())?, certificates)))
}

/// Whether shards write by io_uring, as configured and as the kernel allows. Says which.
fn uses_ring(io: Io) -> Result<bool, EdgeError> {
    let opened = match io {
        Io::Write => Ok(false),
        Io::Auto | Io::IoUring => ring::Ring::open().map(|_| true),
    };
    let (used, why) = match opened {
        Ok(used) => (used, String::new()),
        Err(error) if io == Io::IoUring => return Err(EdgeError::IoUring(error)),
        Err(error) => (false, error.to_string()),
    };
    metrics::gauge!("ticker_edge_io_uring").set(f64::from(u8::from(used)));
    match (used, why.is_empty()) {
        (true, _) => tracing::info!(io = "io_uring", "readers are written to in batches"),
        (false, true) => tracing::info!(io = "write", "readers are written to one by one, as configured"),
        (false, false) => tracing::info!(io = "write", why, "readers are written to one by one: no io_uring here"),
    }
    Ok(used)
}

/// A lazy connection to a fanout, for an edge that runs alone.
pub fn connect(fanout: &str) -> Result<Channel, EdgeError> {
    let wrong = || EdgeError::Fanout(fanout.to_owned());
    let endpoint = tonic::transport::Endpoint::from_shared(fanout.to_owned()).map_err(|_| wrong())?;
    if endpoint.uri().scheme().is_none() || endpoint.uri().host().is_none() {
        return Err(wrong());
    }
    Ok(endpoint
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(Some(4 << 20))
        .initial_connection_window_size(Some(8 << 20))
        .connect_lazy())
}

fn limits(config: &Config, shards: usize) -> Limits {
    Limits {
        session_topics_max: config.session_topics_max,
        sessions_max: config.sessions_max.div_ceil(shards),
        backlog_events_max: config.backlog_events_max,
        heartbeat_ms: config.heartbeat_ms,
        ..Limits::default()
    }
}

/// One listener for each shard on one address: the kernel spreads connections over them (`SO_REUSEPORT`).
fn listen(addr: SocketAddr, count: usize) -> Result<(Vec<std::net::TcpListener>, SocketAddr), EdgeError> {
    let wrong = |why| BindError::new(addr, "listen", why);
    // With SO_REUSEPORT a second program on the same port would share it in silence: look first without it.
    let probe = bind(addr, false).map_err(wrong)?;
    let addr = probe.local_addr().map_err(wrong)?;
    drop(probe);
    let listeners: Result<Vec<_>, _> = (0..count).map(|_| bind(addr, true)).collect();
    Ok((listeners.map_err(wrong)?, addr))
}

fn bind(addr: SocketAddr, shared: bool) -> std::io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&addr.into())?;
    if shared {
        socket.listen(BACKLOG)?;
    } else {
        socket.listen(1)?;
    }
    Ok(socket.into())
}

fn describe_metrics() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_gauge!("ticker_edge_sessions", Unit::Count, "Sessions of readers.");
    describe_gauge!("ticker_edge_connections", Unit::Count, "Connections that shards own.");
    describe_counter!("ticker_edge_messages_total", Unit::Count, "Messages sent to readers.");
    describe_counter!("ticker_edge_bytes_total", Unit::Bytes, "Bytes of messages sent to readers.");
    describe_counter!("ticker_edge_writes_total", Unit::Count, "Writes to readers' sockets.");
    describe_counter!(
        "ticker_edge_writes_blocked_total",
        Unit::Count,
        "Writes that a reader's socket did not take whole."
    );
    describe_counter!(
        "ticker_edge_slow_consumers_total",
        Unit::Count,
        "Sessions closed because their event channels outgrew their limit."
    );
    describe_counter!(
        "ticker_edge_write_timeouts_total",
        Unit::Count,
        "Readers over TLS, HTTP/2 or QUIC ended because they took nothing for too long (write_timeout_ms)."
    );
    describe_gauge!("ticker_edge_io_uring", Unit::Count, "1 while readers are written to by io_uring, 0 for write().");
    describe_counter!("ticker_edge_requests_refused_total", Unit::Count, "Requests answered with an error.");
    describe_counter!(
        "ticker_edge_deflated_events_total",
        Unit::Count,
        "Events sent compressed (permessage-deflate), once for each reader."
    );
    describe_counter!(
        "ticker_edge_deflated_from_bytes_total",
        Unit::Bytes,
        "Bytes of those events before compression."
    );
    describe_counter!("ticker_edge_deflated_to_bytes_total", Unit::Bytes, "Bytes of those events as they were sent.");
    describe_counter!(
        "ticker_edge_shard_queue_full_total",
        Unit::Count,
        "Times that somebody waited for a shard's queue."
    );
    describe_counter!(
        "ticker_edge_needs_full_total",
        Unit::Count,
        "Passes after which needs stayed in a shard, because too many waited for upstream."
    );
    describe_counter!(
        "ticker_edge_interest_full_total",
        Unit::Count,
        "Changes of interest that waited for an earlier one to reach the fanout."
    );
    describe_counter!(
        "ticker_edge_handovers_refused_total",
        Unit::Count,
        "Connections closed because the HTTP library had too many waiting."
    );
    describe_gauge!("ticker_edge_tls_connections", Unit::Count, "TLS connections (TCP).");
    describe_counter!(
        "ticker_edge_tls_connections_refused_total",
        Unit::Count,
        "TLS connections closed because there were too many (tls_connections_max)."
    );
    describe_counter!(
        "ticker_edge_tls_handshakes_failed_total",
        Unit::Count,
        "TLS handshakes (TCP) that failed or took too long."
    );
    describe_gauge!("ticker_edge_quic_connections", Unit::Count, "QUIC connections.");
    describe_counter!(
        "ticker_edge_quic_refused_total",
        Unit::Count,
        "QUIC connections refused because there were too many (quic_connections_max), or at a drain."
    );
    describe_counter!(
        "ticker_edge_quic_retries_total",
        Unit::Count,
        "QUIC handshakes whose client had to show its address first, because many were under way."
    );
    describe_counter!(
        "ticker_edge_quic_early_requests_total",
        Unit::Count,
        "Requests that came before the handshake was complete (0-RTT): answered at once, or delayed until it was."
    );
    describe_counter!(
        "ticker_edge_quic_handshakes_failed_total",
        Unit::Count,
        "QUIC handshakes that failed or took too long."
    );
    describe_counter!("ticker_edge_http3_requests_total", Unit::Count, "Requests over HTTP/3.");
    describe_gauge!("ticker_edge_webtransport_sessions", Unit::Count, "Sessions over WebTransport.");
    describe_counter!(
        "ticker_edge_lossy_paths_total",
        Unit::Count,
        "Times that a reader's path was found to lose packets: what goes to it by datagram is repeated sooner."
    );
    describe_gauge!(
        "ticker_edge_gathering_ratio",
        Unit::Count,
        "How long messages are gathered into packets, of the longest (4 ms for QUIC, 20 ms for WebRTC): the busier the process the longer."
    );
    describe_counter!("ticker_edge_datagrams_total", Unit::Count, "Messages that went as QUIC datagrams.");
    describe_counter!(
        "ticker_edge_datagrams_too_large_total",
        Unit::Count,
        "Messages that were too large for a datagram and went on the ordered stream."
    );
    describe_counter!("ticker_edge_signals_total", Unit::Count, "Signals between readers.");
    describe_counter!(
        "ticker_edge_signals_dropped_total",
        Unit::Count,
        "Signals that their reader did not take: it had too many, or was gone."
    );
    describe_gauge!("ticker_edge_rtc_peers", Unit::Count, "WebRTC peers, those that are connecting included.");
    describe_histogram!(
        "ticker_edge_rtc_connect_seconds",
        Unit::Seconds,
        "From a WebRTC offer to the open channel of its session."
    );
    describe_counter!("ticker_edge_rtc_offers_refused_total", Unit::Count, "WebRTC offers that were refused.");
    describe_counter!(
        "ticker_edge_rtc_handshakes_failed_total",
        Unit::Count,
        "WebRTC peers that were answered and did not connect in time."
    );
    describe_counter!(
        "ticker_edge_rtc_vanished_total",
        Unit::Count,
        "WebRTC peers of whom nothing was heard for too long (rtc_silence_ms)."
    );
    describe_counter!("ticker_edge_rtc_live_messages_total", Unit::Count, "Messages on channels without retransmits.");
    describe_counter!(
        "ticker_edge_rtc_live_too_large_total",
        Unit::Count,
        "Messages that were too large for a packet and went on the ordered channel."
    );
    describe_counter!(
        "ticker_edge_rtc_packets_unknown_total",
        Unit::Count,
        "Packets at the address of WebRTC that were for nobody here."
    );
    describe_counter!(
        "ticker_edge_rtc_checks_refused_total",
        Unit::Count,
        "Checks of ICE that named a peer and did not know its password."
    );
    describe_counter!(
        "ticker_edge_rtc_inbox_full_total",
        Unit::Count,
        "Packets that were dropped because their peer had too many waiting."
    );
    describe_counter!(
        "ticker_edge_rtc_tcp_connections_total",
        Unit::Count,
        "Connections of WebRTC peers over TCP that have proven whose they are."
    );
    describe_counter!(
        "ticker_edge_rtc_tcp_refused_total",
        Unit::Count,
        "Those that have not in time, were one too many, or carried what is no packet."
    );
    describe_counter!("ticker_edge_rtc_sends_failed_total", Unit::Count, "Packets to WebRTC peers that were not sent.");
    describe_counter!("ticker_edge_certificate_reloads_total", Unit::Count, "Changes of the certificate.");
    describe_counter!(
        "ticker_edge_certificate_reload_failures_total",
        Unit::Count,
        "Times that the certificate could not be read again; the one before served on."
    );
    describe_gauge!("ticker_edge_upstream_connected", Unit::Count, "1 while the stream from the fanout is open.");
    describe_counter!("ticker_edge_upstream_reconnects_total", Unit::Count, "Ends of the stream from the fanout.");
    describe_counter!("ticker_edge_upstream_events_total", Unit::Count, "Events from the fanout.");
    describe_histogram!(
        "ticker_edge_upstream_lag_seconds",
        Unit::Seconds,
        "From an event's place on the tape to this edge."
    );
    describe_gauge!("ticker_edge_position", Unit::Count, "The place on the tape up to which this edge has everything.");
    describe_gauge!("ticker_edge_interest", Unit::Count, "Topics and patterns that readers want.");
    describe_gauge!(
        "ticker_edge_interest_lingering",
        Unit::Count,
        "Topics and patterns held although no reader wants them now."
    );
    describe_counter!("ticker_edge_backfills_total", Unit::Count, "Pages of older events asked of the fanout.");
}
