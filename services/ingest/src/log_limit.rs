//! Logs that a venue can cause as often as it likes are limited, and say how many were left out.

use std::time::{Duration, Instant};

/// Lines in one [`WINDOW`], at most.
pub(crate) const LINES_MAX: u32 = 10;

/// How long the lines are counted.
pub(crate) const WINDOW: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct LogLimit {
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl LogLimit {
    pub(crate) fn new(now: Instant) -> Self {
        Self { since: now, lines: 0, left_out: 0 }
    }

    /// May a line be written now? Then with it, how many were left out before it.
    pub(crate) fn admit(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.since) >= WINDOW {
            (self.since, self.lines) = (now, 0);
        }
        if self.lines >= LINES_MAX {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_told_with_the_next_line() {
        let start = Instant::now();
        let mut limit = LogLimit::new(start);
        let written = (0..100).filter(|_| limit.admit(start).is_some()).count();
        assert_eq!(written, LINES_MAX as usize);
        assert_eq!(limit.admit(start + WINDOW), Some(100 - u64::from(LINES_MAX)));
        assert_eq!(limit.admit(start + WINDOW), Some(0));
    }
}
