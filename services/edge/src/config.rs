//! The edge's configuration.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;

use crate::steering;

/// `[edge]` of the configuration file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where readers come: HTTP/1.1 and HTTP/2 without TLS.
    pub listen: SocketAddr,
    /// Where readers come over TLS (HTTP/1.1 and HTTP/2), and over QUIC (HTTP/3) on the UDP port of the same number; neither
    /// where it is left out.
    pub tls_listen: Option<SocketAddr>,
    /// The certificate and those between it and its root, as a PEM file. It is read again when it changes, and at SIGHUP.
    /// Without it there is a self-signed one, for development only.
    pub tls_certificate: Option<PathBuf>,
    /// Its private key, as a PEM file.
    pub tls_key: Option<PathBuf>,
    /// Names and addresses that the certificate for development is for, besides `localhost` and those of loopback.
    pub tls_names: Vec<String>,
    /// TLS connections; more are closed.
    pub tls_connections_max: usize,
    /// QUIC beside TLS.
    pub quic: bool,
    /// UDP sockets on that port, each with a task that reads it and the shards of its sessions; 0 for one a shard (one in all
    /// where the kernel does not steer packets). A reader who changes its address stays with its own.
    pub quic_endpoints: usize,
    /// Whoever has been here before may send with its first packet (0-RTT). Such a request can be replayed by others, so only
    /// those that change nothing are answered before the handshake is complete; the others wait for it.
    pub quic_early_data: bool,
    /// QUIC connections; more are refused.
    pub quic_connections_max: usize,
    /// With so many QUIC handshakes under way, whoever begins one must first show that it is where it says (RFC 9000
    /// §8.1.2): a round trip more for them, against answers to forged addresses.
    pub quic_handshakes_unvalidated_max: usize,
    /// Several QUIC packets a system call (GSO). Worth turning off where the log complains of it: some kernels and
    /// network drivers get it wrong.
    pub quic_segmentation_offload: bool,
    /// How QUIC finds the rate that a path bears.
    pub quic_congestion: Congestion,
    /// A reader over TLS, HTTP/2 or QUIC who takes nothing for so long while messages wait is ended, in milliseconds.
    pub write_timeout_ms: u32,
    /// The UDP address of WebRTC, for all peers; none where it is left out.
    pub rtc_listen: Option<SocketAddr>,
    /// Where peers reach that, if not there: addresses, such as `203.0.113.7` or `[2001:db8::7]:30444`, behind a NAT or in a
    /// cluster. Where the address to listen on is unspecified and this is empty, those of the routes to elsewhere.
    pub rtc_advertise: Vec<String>,
    /// Takes connections of TCP too, for peers whose network lets no UDP through: at the same addresses and port numbers.
    pub rtc_tcp: bool,
    /// WebRTC peers; more are refused.
    pub rtc_peers_max: usize,
    /// Peers that have been answered and are not connected yet; more are refused.
    pub rtc_handshakes_max: usize,
    /// Offers of one address (of IPv6: of one /64) in a minute; more are refused.
    pub rtc_offers_per_address_max: u32,
    /// Offers with one token in a minute, likewise.
    pub rtc_offers_per_token_max: u32,
    /// Offers in a second, likewise.
    pub rtc_offers_max: u32,
    /// A peer of whom nothing is heard for so long, in milliseconds, is gone. After a third of it, it is sent a heartbeat,
    /// whose receipt it confirms.
    pub rtc_silence_ms: u32,
    /// STUN and TURN servers that readers are told of, such as `turn:turn.example.org:3478?transport=udp`.
    pub rtc_ice_servers: Vec<String>,
    /// The secret that is shared with the TURN servers (coturn: `static-auth-secret`), for credentials that expire.
    pub rtc_turn_secret: Option<String>,
    /// For how long, in seconds, such credentials are good.
    pub rtc_turn_seconds: u32,
    /// `/livez`, `/readyz`, `/metrics`.
    pub admin: SocketAddr,
    /// The fanout's gRPC address.
    pub fanout: String,
    /// Listen beyond loopback without TLS and tokens.
    pub insecure: bool,
    /// Threads that own readers' sockets; 0 for one a core.
    pub shards: usize,
    /// How shards write to readers' sockets.
    pub io: Io,
    /// Topics of one session.
    pub session_topics_max: usize,
    /// Sessions of the whole edge.
    pub sessions_max: usize,
    /// Events that a topic keeps, so the backlog that a reader of an event channel may have.
    pub backlog_events_max: usize,
    /// How often a session hears a heartbeat, in milliseconds.
    pub heartbeat_ms: u32,
    /// A topic that no reader wants any more is held for so long, so that a reader who comes back (or polls) finds it.
    pub linger_ms: u64,
    /// At drain, the readers are told to come back within so many milliseconds, each after another delay.
    pub drain_spread_ms: u32,
    /// Large messages go compressed to WebSocket readers who offer permessage-deflate. Worth turning off where a proxy
    /// compresses anyway, or bandwidth costs nothing.
    pub websocket_deflate: bool,
}

/// How QUIC finds the rate that a path bears.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Congestion {
    /// By what arrives (BBR): packets that are lost by themselves, as over radio, do not slow a reader down.
    Bbr,
    /// By what is lost (RFC 9438), as most of TCP: fairer where many share a narrow path.
    Cubic,
}

/// How shards write to readers' sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Io {
    /// By io_uring where the kernel and the container allow it, else one by one. The log and the metric
    /// `ticker_edge_io_uring` say which.
    Auto,
    /// By io_uring; where that is not to be had, the edge does not start.
    IoUring,
    /// One system call for each write.
    Write,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 8080).into(),
            tls_listen: None,
            tls_certificate: None,
            tls_key: None,
            tls_names: Vec::new(),
            tls_connections_max: 20_000,
            quic: true,
            quic_endpoints: 0,
            quic_early_data: true,
            quic_connections_max: 20_000,
            quic_handshakes_unvalidated_max: 64,
            quic_segmentation_offload: true,
            quic_congestion: Congestion::Bbr,
            write_timeout_ms: 60_000,
            rtc_listen: None,
            rtc_advertise: Vec::new(),
            rtc_tcp: true,
            rtc_peers_max: 5_000,
            rtc_handshakes_max: 256,
            rtc_offers_per_address_max: 120,
            rtc_offers_per_token_max: 120,
            rtc_offers_max: 200,
            rtc_silence_ms: 9_000,
            rtc_ice_servers: Vec::new(),
            rtc_turn_secret: None,
            rtc_turn_seconds: 3_600,
            admin: (Ipv4Addr::LOCALHOST, 9092).into(),
            fanout: "http://127.0.0.1:50051".into(),
            insecure: false,
            shards: 0,
            io: Io::Auto,
            session_topics_max: 1_000,
            sessions_max: 100_000,
            backlog_events_max: 1_024,
            heartbeat_ms: 15_000,
            linger_ms: 60_000,
            drain_spread_ms: 5_000,
            websocket_deflate: true,
        }
    }
}

impl Config {
    /// The number of QUIC endpoints; none without QUIC.
    pub(crate) fn quic_endpoint_count(&self) -> usize {
        let wanted = match self.quic_endpoints {
            0 if cfg!(target_os = "linux") => self.shard_count(),
            n => n,
        };
        if self.quic { wanted.clamp(1, steering::ENDPOINTS_MAX) } else { 0 }
    }

    /// The number of shards: as configured, or one a core.
    pub fn shard_count(&self) -> usize {
        match self.shards {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        }
    }
}
