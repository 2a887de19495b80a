//! How long messages are gathered into a QUIC packet: not at all while the process has time to spare, so that nothing is later
//! than it must be, and longer the less it has. A packet costs as much as about five messages in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ticker_runtime::Drain;
use ticker_runtime::process::Process;
use tokio::time::Instant;

/// What messages are gathered into: the packet that every path of QUIC takes (RFC 9000 §14.1).
pub(crate) const PACKET_BYTES: usize = 1_200;

/// How long they are gathered at most.
const GATHERING_MAX: Duration = Duration::from_millis(4);

/// Of the CPU time that the process could use, what it uses where gathering begins, and where it is as long as it gets.
const BUSY: std::ops::Range<f64> = 0.25..0.5;

/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// How long messages are gathered now.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    micros: AtomicU32,
}

impl Pace {
    pub(crate) fn gathering(&self) -> Duration {
        Duration::from_micros(self.micros.load(Ordering::Relaxed).into())
    }

    /// The process has used that part of the CPU time that it could use. Half of what is new counts, so that one moment does
    /// not decide.
    pub(crate) fn used(&self, part: f64) {
        let aim = ((part - BUSY.start) / (BUSY.end - BUSY.start)).clamp(0.0, 1.0) * GATHERING_MAX.as_micros() as f64;
        let before = f64::from(self.micros.load(Ordering::Relaxed));
        self.micros.store(f64::midpoint(before, aim) as u32, Ordering::Relaxed);
    }
}

/// Keeps it up to date until the drain. Where the system does not tell a process's CPU time nothing is gathered.
pub(crate) async fn keep(pace: Arc<Pace>, drain: Drain) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let gauge = metrics::gauge!("ticker_edge_quic_gathering_seconds");
    let (mut since, mut before) = (Instant::now(), Process::read_cpu_seconds());
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = drain.started() => return,
        }
        let (now, used) = (Instant::now(), Process::read_cpu_seconds());
        let (Some(more), Some(used_before)) = (used, before) else { return };
        pace.used((more - used_before) / (now - since).as_secs_f64() / cores);
        gauge.set(pace.gathering().as_secs_f64());
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
            pace.gathering().as_micros()
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
        assert_eq!(pace.gathering(), GATHERING_MAX / 2);
        pace.used(0.0);
        assert_eq!(pace.gathering(), GATHERING_MAX / 4);
    }
}
