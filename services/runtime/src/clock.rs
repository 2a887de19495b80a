//! The wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since the Unix epoch, by the machine's clock. It may step back when the clock is set: order by place on
/// the tape, measure durations by [`std::time::Instant`].
pub fn now_nanos() -> i64 {
    // Before 1970 the clock is not set at all, and i64 nanoseconds reach to 2262.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_clock_is_set() {
        assert!(super::now_nanos() > 1_700_000_000_000_000_000);
    }
}
