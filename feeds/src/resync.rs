//! When to ask for a resync: at once after a calm time, then at growing distances, and again where no answer came; and
//! how many may be asked for together.

use std::collections::VecDeque;

use ticker_market::Time;

/// Least distance between two resyncs of the same book, in milliseconds; doubled with each attempt.
pub const RESYNC_DELAY_MIN_MS: i64 = 1_000;

/// Greatest distance between two resyncs of the same book, in milliseconds.
pub const RESYNC_DELAY_MAX_MS: i64 = 60_000;

/// A resync that was not answered after so many milliseconds is asked for again. A snapshot of 5 MB over a slow line
/// takes seconds.
pub const RESYNC_ANSWER_MAX_MS: i64 = 15_000;

/// After so many milliseconds without a resync, the next one is asked for at once, however many there were before.
pub const RESYNC_CALM_MS: i64 = 120_000;

/// Likewise after so many times the distance that has been come to: one fault now and then is mended at once.
pub const RESYNC_CALM_TIMES: i64 = 10;

/// Each live book that its venue's rule does not prove whole is asked for again so often, in milliseconds. Those of one
/// adapter take turns, so that never two are asked for together.
pub const REFRESH_EVERY_MS: i64 = 15 * 60_000;

/// Two books of one adapter are asked for again so far apart, in milliseconds, however many there are: what a venue allows
/// is first for those that are wrong.
pub const REFRESHES_APART_MS: i64 = 10_000;

/// A live book that is asked for again counts as wrong if it does not come for so many milliseconds.
pub const RENEWAL_MAX_MS: i64 = 5_000;

/// When books that are not proven whole are asked for again, though nothing is known to be wrong with them.
#[derive(Clone, Default, Debug)]
pub struct Refresh {
    at: Option<Time>,
    turn: usize,
}

impl Refresh {
    /// There is a live book.
    pub fn begin(&mut self, now: Time) {
        self.at.get_or_insert(now.plus_millis(REFRESH_EVERY_MS));
    }

    /// Nothing is to be asked for any more.
    pub fn end(&mut self) {
        self.at = None;
    }

    /// When somebody's turn comes.
    pub fn at(&self) -> Option<Time> {
        self.at
    }

    /// Whose turn it is among `books`, if it is time.
    pub fn take(&mut self, books: usize, now: Time) -> Option<usize> {
        self.at.filter(|at| *at <= now)?;
        let books = books.max(1);
        let apart = REFRESH_EVERY_MS / i64::try_from(books).unwrap_or(i64::MAX);
        self.at = Some(now.plus_millis(apart.max(REFRESHES_APART_MS)));
        self.turn = (self.turn + 1) % books;
        Some(self.turn)
    }
}

/// The rate limit of one thing that can be resynced.
#[derive(Clone, Default, Debug)]
pub struct Resync {
    at: Option<Time>,
    asked: Option<Time>,
    attempts: u32,
    /// Asked for, and not answered yet.
    open: bool,
}

impl Resync {
    /// One is needed: it is due at once, or when the last one is long enough ago.
    pub fn request(&mut self, now: Time) {
        let calm_ms = (self.delay_ms() * RESYNC_CALM_TIMES).min(RESYNC_CALM_MS);
        if self.asked.is_none_or(|asked| now.since(asked) > calm_ms * 1_000_000) {
            self.attempts = 0;
        }
        let earliest = self.asked.map_or(now, |asked| asked.plus_millis(self.delay_ms()));
        self.at = Some(now.max(earliest));
        self.open = false;
    }

    /// Something is expected to come by itself until then; if not, a resync is due.
    pub fn expect(&mut self, by: Time) {
        self.at = Some(by);
        self.open = false;
    }

    /// Is one due?
    pub fn is_due(&self, now: Time) -> bool {
        self.at.is_some_and(|at| at <= now)
    }

    /// It was asked for; if no answer comes, it is due again.
    pub fn asked(&mut self, now: Time) {
        self.attempts = self.attempts.saturating_add(1);
        self.asked = Some(now);
        self.open = true;
        self.at = Some(now.plus_millis(self.delay_ms().max(RESYNC_ANSWER_MAX_MS)));
    }

    /// The answer came, or nothing is to be asked for any more.
    pub fn done(&mut self) {
        self.at = None;
        self.open = false;
    }

    /// Was it asked for, and not answered yet?
    pub fn is_asked(&self) -> bool {
        self.open
    }

    /// When one will be due.
    pub fn at(&self) -> Option<Time> {
        self.at
    }

    fn delay_ms(&self) -> i64 {
        match self.attempts {
            0 => 0,
            n => (RESYNC_DELAY_MIN_MS << (n - 1).min(16)).min(RESYNC_DELAY_MAX_MS),
        }
    }
}

/// A limit on how often something may be asked for: so many times in any window of time.
#[derive(Clone, Debug)]
pub struct Budget {
    most: usize,
    window_ms: i64,
    spent: VecDeque<Time>,
}

impl Budget {
    /// At most so many times in any so many milliseconds.
    pub fn new(most: usize, window_ms: i64) -> Self {
        Self { most, window_ms, spent: VecDeque::new() }
    }

    /// Spends one, if there is one.
    pub fn take(&mut self, now: Time) -> bool {
        while self.spent.front().is_some_and(|at| now >= at.plus_millis(self.window_ms)) {
            self.spent.pop_front();
        }
        let there = self.spent.len() < self.most;
        if there {
            self.spent.push_back(now);
        }
        there
    }

    /// When what is wanted at `at` can be had, as far as is known.
    pub fn earliest(&self, at: Time) -> Time {
        match self.spent.front() {
            Some(first) if self.spent.len() >= self.most => at.max(first.plus_millis(self.window_ms)),
            _ => at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_kept_in_any_window() {
        let mut budget = Budget::new(2, 1_000);
        let at = Time::from_millis;
        let had: Vec<bool> = [0, 900, 950, 1_000, 1_100, 1_900].into_iter().map(|ms| budget.take(at(ms))).collect();
        assert_eq!(had, [true, true, false, true, false, true]);
        assert_eq!(budget.earliest(at(1_950)), at(2_000));
        assert_eq!(budget.earliest(at(2_500)), at(2_500));
    }

    #[test]
    fn the_first_is_at_once_and_the_distance_grows() {
        let mut resync = Resync::default();
        let mut now = Time::from_millis(1_000_000);
        resync.request(now);
        assert!(resync.is_due(now));
        let mut waits = Vec::new();
        for _ in 0..8 {
            let asked = now;
            resync.asked(now);
            assert!(!resync.is_due(now));
            resync.done();
            resync.request(now.plus_millis(10));
            now = resync.at().expect("requested");
            waits.push(now.since(asked) / 1_000_000);
        }
        assert_eq!(waits, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
        let later = now.plus_millis(RESYNC_CALM_MS * 2);
        resync.request(later);
        assert!(resync.is_due(later), "calm again");
    }

    #[test]
    fn a_fault_now_and_then_is_mended_at_once() {
        let mut resync = Resync::default();
        for i in 0..20 {
            let now = Time::from_millis(1_000_000 + i * 11_000);
            resync.request(now);
            assert!(resync.is_due(now), "{i}");
            resync.asked(now);
            resync.done();
        }
        let soon = Time::from_millis(1_000_000 + 19 * 11_000 + 900);
        resync.request(soon);
        assert!(!resync.is_due(soon));
    }

    #[test]
    fn books_are_refreshed_in_turn() {
        let mut refresh = Refresh::default();
        assert_eq!((refresh.take(3, Time(0)), refresh.at()), (None, None));
        refresh.begin(Time(0));
        refresh.begin(Time(5));
        let mut turns = Vec::new();
        while turns.len() < 6 {
            let at = refresh.at().expect("it goes on");
            assert_eq!(refresh.take(3, at.plus_millis(-1)), None);
            turns.push((at.millis() / 60_000, refresh.take(3, at).expect("due")));
        }
        assert_eq!(turns, [(15, 1), (20, 2), (25, 0), (30, 1), (35, 2), (40, 0)], "each every 15 minutes");
        let at = refresh.at().expect("it goes on");
        refresh.take(4_000, at);
        assert_eq!(refresh.at(), Some(at.plus_millis(REFRESHES_APART_MS)), "many take longer");
    }

    #[test]
    fn without_an_answer_it_is_due_again() {
        let mut resync = Resync::default();
        resync.request(Time(0));
        resync.asked(Time(0));
        assert!(resync.is_due(Time::from_millis(RESYNC_ANSWER_MAX_MS)));
        resync.done();
        assert_eq!(resync.at(), None);
    }
}
