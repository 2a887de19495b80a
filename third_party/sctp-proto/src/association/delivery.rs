//! How much a path holds: what it delivers in its shortest round trip.
//!
//! TCP Westwood+ (Mascolo et al., 2001; Grieco and Mascolo, 2004; Linux' `tcp_westwood.c`): after a loss the window is what the
//! path was seen to deliver, and not half of what it was. Packets that are lost by themselves, as over radio, then do not slow a
//! stream down that the path bears; where a queue was full, the shortest round trip leaves the queue out, so that it empties.

use std::time::{Duration, Instant};

/// The shortest time in which the rate is measured: in less, receipts come in lumps.
const MEASURE_MIN: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Default, Debug)]
pub(crate) struct Delivery {
    /// Bytes confirmed since then.
    acked: u64,
    since: Option<Instant>,
    /// Bytes a second, filtered once and twice.
    once: f64,
    twice: f64,
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
        let rate = self.acked as f64 / elapsed.as_secs_f64();
        if self.once == 0.0 {
            (self.once, self.twice) = (rate, rate);
        } else {
            self.once = (7.0 * self.once + rate) / 8.0;
            self.twice = (7.0 * self.twice + self.once) / 8.0;
        }
        (self.acked, self.since) = (0, Some(now));
    }

    /// What the path holds, in bytes, once that is known.
    pub(crate) fn holds(&self) -> Option<u32> {
        let shortest = self.shortest.filter(|_| self.twice > 0.0)?;
        Some((self.twice * shortest.as_secs_f64()) as u32)
    }
}
