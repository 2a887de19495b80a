//! What an operator can set.

use std::net::SocketAddr;

use serde::Deserialize;
use ticker_tape::Limits;

use crate::core::CoreLimits;

/// The fanout's configuration: the table `[fanout]` of the file. Every limit has a metric that tells when it is hit.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where gRPC is served.
    pub listen: SocketAddr,
    /// Where `/livez`, `/readyz` and `/metrics` are served.
    pub admin: SocketAddr,
    /// Memory of the tape, in bytes.
    pub tape_bytes_max: usize,
    /// Age of the tape's oldest event, in seconds.
    pub tape_age_max_seconds: u32,
    /// Instruments of all venues.
    pub instruments_max: usize,
    /// Ingest services that are remembered.
    pub sources_max: usize,
    /// How long an ingest service may be away before its instruments are called stale.
    pub source_grace_ms: u32,
    /// Events in one batch of an ingest service.
    pub batch_events_max: usize,
    /// Size of one gRPC request.
    pub message_bytes_max: usize,
    /// Edges that follow at once.
    pub streams_max: usize,
    /// Subscriptions and sessions served without an edge.
    pub sessions_max: usize,
    /// Topics of one such session.
    pub session_topics_max: usize,
    /// How often such a session hears a heartbeat, in milliseconds.
    pub heartbeat_ms: u32,
    /// Events of one topic that may wait for a consumer who subscribes here: beyond that it is closed as too slow.
    pub backlog_events_max: usize,
    /// Topics and patterns that one edge follows.
    pub interest_max: usize,
    /// Events in one page of a backfill.
    pub backfill_events_max: usize,
    /// Topics in one request for snapshots or older events, patterns expanded.
    pub request_topics_max: usize,
    /// How long streams may take to end once the service drains.
    pub drain_grace_ms: u32,
}

impl Default for Config {
    fn default() -> Self {
        let tape = Limits::default();
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 50051)),
            admin: SocketAddr::from(([127, 0, 0, 1], 9091)),
            tape_bytes_max: tape.bytes_max,
            tape_age_max_seconds: (tape.age_nanos_max / 1_000_000_000) as u32,
            instruments_max: 100_000,
            sources_max: 256,
            source_grace_ms: 5_000,
            batch_events_max: 65_536,
            message_bytes_max: 16 << 20,
            streams_max: 256,
            sessions_max: 1_000,
            session_topics_max: 1_000,
            heartbeat_ms: 15_000,
            backlog_events_max: 16_384,
            interest_max: 600_000,
            backfill_events_max: 1_000,
            request_topics_max: 10_000,
            drain_grace_ms: 5_000,
        }
    }
}

impl Config {
    pub(crate) fn tape_limits(&self) -> Limits {
        Limits { bytes_max: self.tape_bytes_max, age_nanos_max: i64::from(self.tape_age_max_seconds) * 1_000_000_000 }
    }

    pub(crate) fn core_limits(&self) -> CoreLimits {
        CoreLimits {
            instruments_max: self.instruments_max,
            sources_max: self.sources_max,
            source_grace_nanos: i64::from(self.source_grace_ms) * 1_000_000,
        }
    }
}
