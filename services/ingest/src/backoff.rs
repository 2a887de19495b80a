//! How long to wait before the next try: exponential, with full jitter, so that many clients do not come back at once
//! (<https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>).

use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Backoff {
    /// No wait is shorter, so that a peer which hangs up at once is not called in a loop.
    floor: Duration,
    /// The first wait's upper end; doubled with every try.
    first: Duration,
    /// No wait is longer.
    max: Duration,
    tries: u32,
}

impl Backoff {
    pub(crate) fn new(floor: Duration, first: Duration, max: Duration) -> Self {
        Self { floor, first, max, tries: 0 }
    }

    /// The next wait.
    pub(crate) fn next(&mut self) -> Duration {
        let ceiling = self.first.saturating_mul(1 << self.tries.min(20)).min(self.max);
        self.tries = self.tries.saturating_add(1);
        ceiling.mul_f64(fastrand::f64()).max(self.floor)
    }

    /// It worked: the next wait is a first one again.
    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_within_their_ends() {
        let (floor, first, max) = (Duration::from_millis(50), Duration::from_millis(200), Duration::from_secs(5));
        let mut backoff = Backoff::new(floor, first, max);
        let mut longest = Duration::ZERO;
        for _ in 0..2_000 {
            let wait = backoff.next();
            assert!((floor..=max).contains(&wait), "{wait:?}");
            longest = longest.max(wait);
        }
        assert!(longest > max / 2, "{longest:?}");
        backoff.reset();
        assert!(backoff.next() <= first);
    }
}
