//! How much a path holds: what it delivered in its shortest round trip, at its best of late, and a quarter more.
//!
//! After a loss the window is that, where it is more than half of what it was. Packets that are lost by themselves, as over radio,
//! then do not slow a stream down that the path bears; where a queue was full, it empties. The best, as BBR has it
//! (draft-ietf-ccwg-bbr), not the average: what a window that is too small lets through is no measure of the path. BBR's
//! factor of 2 would never give way where the queue holds less than a round trip.

use std::time::{Duration, Instant};

/// The shortest time in which a rate is measured: in less, receipts come in lumps.
const MEASURE_MIN: Duration = Duration::from_millis(50);

/// While something is confirmed, a rate counts for so long at least, and not for more than twice that.
const BEST_OF: Duration = Duration::from_secs(5);

/// Room for the rate to grow, and for receipts that are held back.
const GAIN: f64 = 1.25;

/// See the module.
#[derive(Default, Debug)]
pub(crate) struct Delivery {
    /// Bytes confirmed since then.
    acked: u64,
    since: Option<Instant>,
    /// Bytes a second at the best: now, and in the time before.
    best: f64,
    best_before: f64,
    best_since: Option<Instant>,
    /// The shortest round trip.
    shortest: Option<Duration>,
    latest: Duration,
}

impl Delivery {
    /// A round trip took that.
    pub(crate) fn round_trip(&mut self, took: Duration) {
        self.shortest = Some(self.shortest.map_or(took, |shortest| shortest.min(took)));
        self.latest = took;
    }

    /// So many bytes were confirmed.
    pub(crate) fn acked(&mut self, bytes: u64, now: Instant) {
        let since = *self.since.get_or_insert(now);
        self.acked += bytes;
        let elapsed = now.saturating_duration_since(since);
        if elapsed <= self.latest.max(MEASURE_MIN) {
            return;
        }
        if now.saturating_duration_since(*self.best_since.get_or_insert(now)) >= BEST_OF {
            (self.best_before, self.best, self.best_since) = (self.best, 0.0, Some(now));
        }
        self.best = self.best.max(self.acked as f64 / elapsed.as_secs_f64());
        (self.acked, self.since) = (0, Some(now));
    }

    /// What the path holds, in bytes, once that is known.
    pub(crate) fn holds(&self) -> Option<u32> {
        let best = self.best.max(self.best_before);
        let shortest = self.shortest.filter(|_| best > 0.0)?;
        Some((GAIN * best * shortest.as_secs_f64()) as u32)
    }
}
