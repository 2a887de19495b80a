//! A clock that never goes back: the wall clock at the start, and the time that has passed since.

use std::time::Instant;

use ticker_market::Time;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    base: Time,
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { base: Time(ticker_runtime::clock::now_nanos()), start: Instant::now() }
    }

    pub(crate) fn now(&self) -> Time {
        self.base.plus_nanos(i64::try_from(self.start.elapsed().as_nanos()).unwrap_or(i64::MAX))
    }
}
