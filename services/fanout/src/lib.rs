//! The fanout: puts events on the tape, derives from it, and serves it over gRPC.
//!
//! Layout, in the order in which an event meets it:
//! - [`publish`]: the service `Ingest`, a stream of batches from each ingest service;
//! - [`sources`]: which batches are on the tape already, and who is missed;
//! - [`append`]: an event gets its place, books their sums, and what is derived stands behind it;
//! - `depth`: a venue's book and the derived ones; `derive`: bars, statistics, the consolidated quote, and the time that
//!   they go by;
//! - [`core`]: the tape, topics, instruments, newest values;
//! - [`reader`]: a follower's place on the tape; [`steps`]: what it is told, on the wire;
//! - [`relay`]: the service `Relay`, for edges; [`backfill`]: older events; [`history`]: bars and trades by time;
//! - [`market_data`] and [`subscribe`]: the service `MarketData`, for everyone;
//! - [`serve`](mod@serve): listeners, health, reflection, the end in good order; [`telemetry`]: the metrics.
//!
//! `core`, `append`, `sources`, `depth`, `derive`, `reader`, `backfill` and `history` do no I/O and know no clock. One mutex guards the core:
//! it is held for one batch or one pass of one reader, never over an await.
//!
//! Deliberately absent: venues, the readers of edges, and every queue: a slow follower falls off the tape's end, and is
//! told so.

pub mod append;
pub mod backfill;
pub mod config;
pub mod core;
mod depth;
mod derive;
#[cfg(test)]
mod fixture;
pub mod history;
pub mod market_data;
pub mod publish;
pub mod reader;
pub mod relay;
pub mod serve;
pub mod sources;
pub mod steps;
pub mod subscribe;
pub mod telemetry;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ticker_market::{Epoch, Time};
use ticker_proto::Code;
use ticker_runtime::{Drain, clock};
use ticker_tape::Tape;
use tokio::sync::watch;

pub use crate::config::Config;
pub use crate::core::Core;
pub use crate::serve::serve;

/// Why a fanout ended other than by draining.
#[derive(Debug, thiserror::Error)]
pub enum FanoutError {
    /// The address could not be listened on.
    #[error(transparent)]
    Bind(#[from] ticker_runtime::BindError),
    /// The gRPC server failed.
    #[error("the gRPC server failed: {0}")]
    Server(#[from] tonic::transport::Error),
}

/// A fanout's state, behind every listener and service of it. Clones are the same fanout.
#[derive(Clone, Debug)]
pub struct Fanout {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Config,
    core: Mutex<Core>,
    /// The tape's last place: wakes whoever follows.
    head: watch::Sender<u64>,
    streams: relay::Streams,
    sessions: subscribe::SessionCount,
    health: tonic_health::server::HealthReporter,
    drain: Drain,
}

impl Fanout {
    /// A fanout with an empty tape, whose epoch is named after this moment.
    pub fn new(config: Config, drain: Drain) -> Self {
        // Random bits behind the seconds: two tapes that begin at once must not share a name.
        let seconds = (clock::now_nanos() / 1_000_000_000).unsigned_abs();
        Self::with_epoch(config, drain, Epoch::from_number((seconds << 20) | fastrand::u64(..1 << 20)))
    }

    /// A fanout with an empty tape of that epoch.
    pub fn with_epoch(config: Config, drain: Drain, epoch: Epoch) -> Self {
        telemetry::describe();
        let core = Core::new(Tape::new(epoch, config.tape_limits()), config.core_limits());
        let inner = Inner {
            core: Mutex::new(core),
            head: watch::Sender::new(0),
            streams: relay::Streams::default(),
            sessions: subscribe::SessionCount::default(),
            health: tonic_health::server::HealthReporter::new(),
            drain,
            config,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// The core, locked. Not to be held over an await.
    pub fn core(&self) -> MutexGuard<'_, Core> {
        // A panic in a change of the core is a bug of ours; what is on the tape stands all the same.
        self.inner.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tape's last place, for whoever waits for it to move on.
    pub fn head(&self) -> watch::Receiver<u64> {
        self.inner.head.subscribe()
    }

    /// Calls stale what nobody publishes any more, forgets what is too old, and shows the metrics. To be called a few
    /// times a second.
    pub fn sweep(&self) {
        let now = now();
        let mut core = self.core();
        let moved = core.sweep(now);
        let sessions = self.inner.sessions.load(std::sync::atomic::Ordering::Relaxed);
        telemetry::show(&core, now, self.inner.streams.len(), sessions);
        let head = core.tape().head();
        drop(core);
        if moved {
            self.wake(head);
        }
    }

    /// Wakes the followers: the tape has come to `head`.
    pub(crate) fn wake(&self, head: u64) {
        // Two batches may get here in the other order.
        self.inner.head.send_if_modified(|known| {
            let moved = head > *known;
            *known = head.max(*known);
            moved
        });
    }

    pub(crate) fn drain(&self) -> &Drain {
        &self.inner.drain
    }

    pub(crate) fn streams(&self) -> &relay::Streams {
        &self.inner.streams
    }

    pub(crate) fn session_count(&self) -> &subscribe::SessionCount {
        &self.inner.sessions
    }

    pub(crate) fn health(&self) -> &tonic_health::server::HealthReporter {
        &self.inner.health
    }
}

/// The time, by this machine's clock.
pub(crate) fn now() -> Time {
    Time(clock::now_nanos())
}

/// The status of a stream or request that ends because the service does.
pub(crate) fn draining() -> tonic::Status {
    Code::Draining.status("the fanout is going away: connect again")
}
