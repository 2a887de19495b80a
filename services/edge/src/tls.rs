//! The TLS listener: HTTP/1.1 and HTTP/2 by ALPN, all through the HTTP library.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustls::ServerConfig;
use rustls::server::ServerSessionMemoryCache;
use rustls::version::{TLS12, TLS13};
use ticker_runtime::admin::BindError;
use ticker_runtime::{Drain, clock};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::certificate::{self, Certificates};
use crate::config::Config;
use crate::library::{self, Connections};
use crate::{EdgeError, shard, steering};

/// What the address is called in errors: the flag that moves it.
pub(crate) const WHAT: &str = "tls-listen";

/// What the listener speaks, by ALPN.
pub(crate) const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// How long a handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Sessions that may be resumed; the oldest go first.
const SESSIONS_MAX: usize = 2_048;

/// How often a free port is looked for that is free for TCP and UDP.
const PORT_TRIES_MAX: usize = 20;

/// After the system could not accept a connection (it has no descriptors left, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The sockets of the TLS address: TCP, and UDP on the same port.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) tcp: std::net::TcpListener,
    /// As many as QUIC has endpoints.
    pub(crate) udp: Vec<UdpSocket>,
    pub(crate) addr: SocketAddr,
}

impl Sockets {
    /// Binds one for TCP, and for UDP as many as QUIC has endpoints. Where the port is left to the system, one is taken that
    /// is free for both.
    pub(crate) fn bind(addr: SocketAddr, endpoints: usize) -> Result<Self, EdgeError> {
        let wrong = |why| BindError::new(addr, WHAT, why);
        let mut tries = PORT_TRIES_MAX;
        loop {
            let tcp = std::net::TcpListener::bind(addr).map_err(wrong)?;
            let bound = tcp.local_addr().map_err(wrong)?;
            tcp.set_nonblocking(true).map_err(wrong)?;
            if endpoints == 0 {
                return Ok(Self { tcp, udp: Vec::new(), addr: bound });
            }
            match steering::bind(bound, endpoints) {
                Ok(udp) => return Ok(Self { tcp, udp, addr: bound }),
                Err(_) if addr.port() == 0 && tries > 0 => tries -= 1,
                Err(why) => return Err(wrong(why).into()),
            }
        }
    }
}

/// The certificates that the configuration names, or those for development.
pub(crate) fn certificates(config: &Config, addr: SocketAddr) -> Result<Arc<Certificates>, EdgeError> {
    let files = (config.tls_certificate.as_deref(), config.tls_key.as_deref());
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if !addr.ip().is_unspecified() && !addr.ip().is_loopback() {
        names.push(addr.ip().to_string());
    }
    names.extend(config.tls_names.iter().cloned());
    let now = ticker_market::Time(clock::now_nanos());
    Ok(Arc::new(Certificates::open(files, names, now)?))
}

/// What TLS connections agree on, over TCP or (`quic`: TLS 1.3 alone) over UDP. A session may be resumed once, by the edge
/// that gave its ticket: whoever replays early data to it is refused that data.
pub(crate) fn server_config(
    certificates: Arc<Certificates>,
    alpn: &[&[u8]],
    quic: bool,
    early_data: bool,
) -> ServerConfig {
    let versions = if quic { &[&TLS13][..] } else { &[&TLS13, &TLS12] };
    let mut config = ServerConfig::builder_with_provider(Arc::new(certificate::provider()))
        .with_protocol_versions(versions)
        .expect("ring has cipher suites for both versions")
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
    if early_data {
        // QUIC knows no other value but 0: what comes early is bounded as all that a reader sends.
        config.max_early_data_size = u32::MAX;
    }
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    config
}

/// How many connections there may be, and how slow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) connections_max: usize,
    /// How long a reader may take nothing of what is sent.
    pub(crate) write_timeout: Duration,
}

/// Serves connections until the drain; they end as the library's do.
pub(crate) async fn serve(
    listener: std::net::TcpListener,
    config: ServerConfig,
    limits: Limits,
    service: Router,
    connections: Connections,
    drain: Drain,
) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the TLS listener has failed"),
    };
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let room = Arc::new(Semaphore::new(limits.connections_max));
    let open = metrics::gauge!("ticker_edge_tls_connections");
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.started() => return,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a TLS connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            metrics::counter!("ticker_edge_tls_connections_refused_total").increment(1);
            continue;
        };
        set_options(&stream, limits.write_timeout);
        let (acceptor, service, drain, open) = (acceptor.clone(), service.clone(), drain.clone(), open.clone());
        connections.spawn(async move {
            let _place = place;
            let accepted = tokio::select! {
                accepted = tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)) => accepted,
                () = drain.started() => return,
            };
            let Ok(Ok(stream)) = accepted else {
                metrics::counter!("ticker_edge_tls_handshakes_failed_total").increment(1);
                return;
            };
            open.increment(1);
            library::connection(stream, Some(from), service, drain).await;
            open.decrement(1);
        });
    }
}

fn set_options(stream: &TcpStream, write_timeout: Duration) {
    library::end_where_nothing_is_taken(stream, write_timeout);
    let _ = stream.set_nodelay(true);
    let socket = socket2::SockRef::from(stream);
    let _ = socket.set_tcp_notsent_lowat(shard::NOTSENT_LOWAT_BYTES);
    let _ = socket.set_keepalive(true);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn tcp_and_udp_have_the_same_port() {
        for endpoints in [1, 3] {
            let sockets = Sockets::bind((Ipv4Addr::LOCALHOST, 0).into(), endpoints).expect("a free port");
            assert!(sockets.udp.iter().all(|udp| udp.local_addr().expect("bound") == sockets.addr));
            assert!((1..=endpoints).contains(&sockets.udp.len()));
            assert_ne!(sockets.addr.port(), 0);
            let taken = Sockets::bind(sockets.addr, endpoints).expect_err("taken");
            assert!(taken.to_string().contains("--tls-listen"), "{taken}");
        }
    }
}
