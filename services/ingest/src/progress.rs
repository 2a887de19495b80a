//! How the sources do, for a person to see.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Rates are measured over at least so long.
const RATE_OVER: Duration = Duration::from_secs(1);

/// How the sources of one ingest service do. Clones show the same.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    sources: Mutex<Vec<Arc<Source>>>,
    pub(crate) publisher: Publisher,
}

/// What [`Progress::summary`] shows.
#[derive(Clone, PartialEq, Debug)]
pub struct Summary {
    /// Every source, in the order of their start.
    pub sources: Vec<SourceSummary>,
    /// The stream to the fanout.
    pub publisher: PublisherSummary,
}

/// What kind of source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SourceKind {
    /// A live venue.
    Venue,
    /// A replay of recordings.
    Replay,
    /// The simulated market.
    Synthetic,
}

/// One source.
#[derive(Clone, PartialEq, Debug)]
pub struct SourceSummary {
    /// Its name: that of the venue.
    pub name: String,
    /// What kind of source.
    pub kind: SourceKind,
    /// What it does, for a person (`connected`, `reconnecting in 2.1 s: connection refused`, `replay ended`).
    pub state: String,
    /// Does it give events now?
    pub connected: bool,
    /// Instruments that it told of.
    pub instruments: u64,
    /// Events that it told of since its start.
    pub events: u64,
    /// Events a second, over the last second or the time since the last summary.
    pub events_per_second: f64,
}

/// The stream to the fanout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PublisherSummary {
    /// Does the fanout answer?
    pub connected: bool,
    /// Events that are on the tape.
    pub accepted: u64,
    /// Events that the fanout refused.
    pub refused: u64,
    /// Bytes that are sent and not yet on the tape.
    pub unacked_bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Publisher {
    pub(crate) connected: AtomicBool,
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) unacked_bytes: AtomicU64,
}

/// One source's part of the progress.
#[derive(Debug)]
pub(crate) struct Source {
    name: String,
    kind: SourceKind,
    state: Mutex<State>,
    connected: AtomicBool,
    pub(crate) instruments: AtomicU64,
    pub(crate) events: AtomicU64,
}

#[derive(Debug)]
struct State {
    text: String,
    /// When the rate was measured, the events then, and the rate.
    measured: (Instant, u64, f64),
}

impl Progress {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything as it is now.
    pub fn summary(&self) -> Summary {
        let now = Instant::now();
        let publisher = &self.inner.publisher;
        Summary {
            sources: lock(&self.inner.sources).iter().map(|s| s.summary(now)).collect(),
            publisher: PublisherSummary {
                connected: publisher.connected.load(Relaxed),
                accepted: publisher.accepted.load(Relaxed),
                refused: publisher.refused.load(Relaxed),
                unacked_bytes: publisher.unacked_bytes.load(Relaxed),
            },
        }
    }

    pub(crate) fn source(&self, name: &str, kind: SourceKind) -> Arc<Source> {
        let source = Arc::new(Source {
            name: name.to_owned(),
            kind,
            state: Mutex::new(State { text: "starting".to_owned(), measured: (Instant::now(), 0, 0.0) }),
            connected: AtomicBool::new(false),
            instruments: AtomicU64::new(0),
            events: AtomicU64::new(0),
        });
        lock(&self.inner.sources).push(Arc::clone(&source));
        source
    }

    pub(crate) fn publisher(&self) -> &Publisher {
        &self.inner.publisher
    }
}

impl Source {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn set(&self, connected: bool, state: impl Into<String>) {
        self.connected.store(connected, Relaxed);
        lock(&self.state).text = state.into();
    }

    fn summary(&self, now: Instant) -> SourceSummary {
        let events = self.events.load(Relaxed);
        let mut state = lock(&self.state);
        let (since, before, _) = state.measured;
        let elapsed = now.saturating_duration_since(since);
        if elapsed >= RATE_OVER {
            state.measured = (now, events, (events - before) as f64 / elapsed.as_secs_f64());
        }
        SourceSummary {
            name: self.name.clone(),
            kind: self.kind,
            state: state.text.clone(),
            connected: self.connected.load(Relaxed),
            instruments: self.instruments.load(Relaxed),
            events,
            events_per_second: state.measured.2,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is one assignment: a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_measured_between_summaries() {
        let progress = Progress::new();
        let source = progress.source("kraken", SourceKind::Venue);
        source.events.store(50, Relaxed);
        source.set(true, "connected");
        let (start, _, _) = lock(&source.state).measured;
        let summary = source.summary(start + Duration::from_secs(2));
        assert_eq!((summary.events_per_second, summary.events, summary.connected), (25.0, 50, true));
        source.events.store(60, Relaxed);
        assert_eq!(source.summary(start + Duration::from_millis(2_100)).events_per_second, 25.0, "too soon");
        assert_eq!(source.summary(start + Duration::from_secs(4)).events_per_second, 5.0);
        assert_eq!(progress.summary().sources.len(), 1);
    }
}
