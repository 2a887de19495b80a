//! What waits to be sent to a venue, at the pace that the venue allows.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Messages that wait, at most. An adapter asks for a few for each symbol.
pub(super) const WAITING_MAX: usize = 10_000;

#[derive(Debug)]
pub(super) struct Sends {
    waiting: VecDeque<String>,
    /// The time between two messages. Evenly spaced, so that no second, wherever the venue lets it begin, has too many.
    every: Duration,
    next_at: Instant,
}

impl Sends {
    pub(super) fn new(per_second_max: u32, now: Instant) -> Self {
        let every = Duration::from_secs(1) / per_second_max.max(1);
        Self { waiting: VecDeque::new(), every, next_at: now }
    }

    /// False if too many wait already.
    #[must_use]
    pub(super) fn push(&mut self, text: String) -> bool {
        let fits = self.waiting.len() < WAITING_MAX;
        if fits {
            self.waiting.push_back(text);
        }
        fits
    }

    /// When the next message may go; `None` if none waits.
    pub(super) fn next_at(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then_some(self.next_at)
    }

    /// The next message, if it may go now.
    pub(super) fn pop(&mut self, now: Instant) -> Option<String> {
        if now < self.next_at {
            return None;
        }
        let text = self.waiting.pop_front()?;
        self.sent(now);
        Some(text)
    }

    /// Something was sent beside the queue: it counts.
    pub(super) fn sent(&mut self, now: Instant) {
        self.next_at = now.max(self.next_at) + self.every;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_second_has_more_than_the_venue_allows() {
        let start = Instant::now();
        let mut sends = Sends::new(5, start);
        for i in 0..23 {
            assert!(sends.push(i.to_string()));
        }
        let mut at = Vec::new();
        while let Some(next) = sends.next_at() {
            tokio::time::sleep_until(next).await;
            while sends.pop(Instant::now()).is_some() {
                at.push(Instant::now() - start);
            }
        }
        assert_eq!(at.len(), 23);
        for (i, first) in at.iter().enumerate() {
            let within = at[i..].iter().take_while(|t| **t - *first < Duration::from_millis(990)).count();
            assert!(within <= 5, "{within} in a second from {first:?}");
        }
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut sends = Sends::new(5, Instant::now());
        let taken = (0..2 * WAITING_MAX).filter(|_| sends.push(String::new())).count();
        assert_eq!(taken, WAITING_MAX);
    }
}
