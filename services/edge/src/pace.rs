//! How long messages are gathered into a packet of QUIC or WebRTC: not at all while the process has time to spare, so that
//! nothing is later than it must be, and longer the less it has. A packet costs as much as about five messages in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ticker_runtime::Drain;
use ticker_runtime::process::Process;
use tokio::time::Instant;

/// What messages are gathered into for QUIC: the packet that every path of QUIC takes (RFC 9000 §14.1).
pub(crate) const PACKET_BYTES: usize = 1_200;

/// How long they are gathered for it at most.
pub(crate) const QUIC_MAX: Duration = Duration::from_millis(4);

/// Of the CPU time that the process could use, what it uses where gathering begins, and where it is as long as it gets.
const BUSY: std::ops::Range<f64> = 0.25..0.5;

/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// What the longest gathering is counted in.
const WHOLE: u32 = 1_000;

/// How long messages are gathered now.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Of the longest, so many thousandths.
    part: AtomicU32,
}

impl Pace {
    /// Where it is `longest` at most.
    pub(crate) fn gathering(&self, longest: Duration) -> Duration {
        longest * self.part.load(Ordering::Relaxed) / WHOLE
    }

    /// The process has used that part of the CPU time that it could use. Half of what is new counts, so that one moment does
    /// not decide.
    pub(crate) fn used(&self, part: f64) {
        let aim = ((part - BUSY.start) / (BUSY.end - BUSY.start)).clamp(0.0, 1.0) * f64::from(WHOLE);
        let before = f64::from(self.part.load(Ordering::Relaxed));
        self.part.store(f64::midpoint(before, aim) as u32, Ordering::Relaxed);
    }
}

/// Keeps it up to date until the drain. Where the system does not tell a process's CPU time nothing is gathered.
pub(crate) async fn keep(pace: Arc<Pace>, drain: Drain) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let gauge = metrics::gauge!("ticker_edge_gathering_ratio");
    let (mut since, mut before) = (Instant::now(), Process::read_cpu_seconds());
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = drain.started() => return,
        }
        let (now, used) = (Instant::now(), Process::read_cpu_seconds());
        let (Some(more), Some(used_before)) = (used, before) else { return };
        pace.used((more - used_before) / (now - since).as_secs_f64() / cores);
        gauge.set(pace.gathering(Duration::from_secs(1)).as_secs_f64());
        (since, before) = (now, used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_time_gathers_nothing_and_who_has_little_gathers_longest() {
        let pace = Pace::default();
        let after_a_while = |part: f64| {
            (0..32).for_each(|_| pace.used(part));
            pace.gathering(QUIC_MAX).as_micros()
        };
        assert_eq!(after_a_while(0.0), 0);
        assert_eq!(after_a_while(0.25), 0);
        assert_eq!(after_a_while(0.375).div_ceil(10), 200, "half of it");
        assert_eq!(after_a_while(0.9).div_ceil(10), 400);
        assert_eq!(after_a_while(0.0), 0);
    }

    #[test]
    fn one_busy_moment_does_not_decide() {
        let pace = Pace::default();
        pace.used(1.0);
        assert_eq!(pace.gathering(QUIC_MAX), QUIC_MAX / 2);
        pace.used(0.0);
        assert_eq!(pace.gathering(QUIC_MAX), QUIC_MAX / 4);
    }
}
