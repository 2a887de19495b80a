//! When a line is played, and which time it has then.

use std::time::Duration;

use ticker_market::Time;
use tokio::time::Instant;

use crate::config::Speed;

/// Recorded time in which nothing happens is played only up to so long: between two files lie days.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The clock of a replay.
#[derive(Debug)]
pub(crate) struct Pace {
    speed: Speed,
    shift: bool,
    /// What is played at which moment; set by the first line that has a time.
    anchor: Option<Anchor>,
    last: Time,
}

#[derive(Clone, Copy, Debug)]
struct Anchor {
    recorded: Time,
    instant: Instant,
    wall: Time,
}

/// When to play a line.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Turn {
    /// Not before then; `None` for at once.
    pub(crate) not_before: Option<Instant>,
    /// When it happens, for the adapter.
    pub(crate) at: Time,
    /// By how many nanoseconds the venue's times are shifted.
    pub(crate) shift_nanos: i64,
    /// So much recorded time was left out before it.
    pub(crate) left_out: Option<Duration>,
}

impl Pace {
    pub(crate) fn new(speed: Speed, shift: bool) -> Self {
        Self { speed, shift, anchor: None, last: Time(i64::MIN) }
    }

    /// The turn of a line that was recorded at `ts` (`None`: not recorded). `now` and `wall` are the same moment, by two
    /// clocks.
    pub(crate) fn turn(&mut self, ts: Option<Time>, now: Instant, wall: Time) -> Turn {
        let Some(ts) = ts else { return Turn { not_before: None, at: wall, shift_nanos: 0, left_out: None } };
        let fresh = Anchor { recorded: ts, instant: now, wall };
        let before = std::mem::replace(&mut self.last, ts);
        let mut anchor = *self.anchor.get_or_insert(fresh);
        let quiet = Duration::from_nanos(u64::try_from(ts.0.saturating_sub(before.0)).unwrap_or(0));
        // Clocks of recorders step back, too; that is no pause, and what follows must not come in a burst.
        let jumped =
            before.0 != i64::MIN && (quiet > PAUSE_MAX || before.0.saturating_sub(ts.0) > PAUSE_MAX.as_nanos() as i64);
        if jumped {
            anchor = fresh;
            self.anchor = Some(fresh);
        }
        let (not_before, moment) = match self.speed {
            Speed::Max => (None, wall),
            Speed::Times(times) => {
                let nanos = (ts.since(anchor.recorded) as f64 / times) as i64;
                let instant = anchor.instant + Duration::from_nanos(u64::try_from(nanos).unwrap_or(0));
                (Some(instant), anchor.wall.plus_nanos(nanos))
            }
        };
        let at = if self.shift { moment } else { ts };
        Turn { not_before, at, shift_nanos: at.since(ts), left_out: jumped.then_some(quiet) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Time = Time(1_700_000_000_000_000_000);

    fn at(ms: i64) -> Option<Time> {
        Some(Time::from_millis(1_000_000 + ms))
    }

    #[test]
    fn the_recorded_distance_is_kept_or_divided() {
        let now = Instant::now();
        for (times, expected_ms) in [(1.0, 500), (10.0, 50), (0.5, 1_000)] {
            let mut pace = Pace::new(Speed::Times(times), false);
            assert_eq!(pace.turn(at(0), now, DAY).not_before, Some(now));
            let turn = pace.turn(at(500), now, DAY);
            assert_eq!(turn.not_before, Some(now + Duration::from_millis(expected_ms)));
            assert_eq!((turn.at, turn.shift_nanos), (at(500).expect("set"), 0), "as recorded");
        }
    }

    #[test]
    fn shifted_times_keep_their_distances() {
        let now = Instant::now();
        let mut pace = Pace::new(Speed::Times(2.0), true);
        assert_eq!(pace.turn(at(0), now, DAY).at, DAY);
        let turn = pace.turn(at(1_000), now + Duration::from_millis(3), DAY.plus_millis(3));
        assert_eq!(turn.at, DAY.plus_millis(500), "planned, whatever the delay");
        assert_eq!(turn.shift_nanos, DAY.plus_millis(500).since(at(1_000).expect("set")));
        let mut pace = Pace::new(Speed::Max, true);
        assert_eq!(pace.turn(at(0), now, DAY).at, DAY);
        assert_eq!(pace.turn(at(900_000), now, DAY.plus_millis(1)).at, DAY.plus_millis(1), "never in the future");
    }

    #[test]
    fn days_between_files_are_left_out() {
        let now = Instant::now();
        let mut pace = Pace::new(Speed::Times(1.0), true);
        pace.turn(at(0), now, DAY);
        let later = now + Duration::from_millis(10);
        let turn = pace.turn(at(86_400_000), later, DAY.plus_millis(10));
        assert_eq!((turn.not_before, turn.at), (Some(later), DAY.plus_millis(10)));
        assert_eq!(turn.left_out, Some(Duration::from_secs(86_400)));
        let turn = pace.turn(at(86_400_100), later, DAY.plus_millis(10));
        assert_eq!(turn.not_before, Some(later + Duration::from_millis(100)));
        let turn = pace.turn(at(0), later, DAY.plus_millis(10));
        assert_eq!(turn.not_before, Some(later), "a step back is played at once");
    }

    #[test]
    fn a_line_without_a_time_is_played_at_once() {
        let now = Instant::now();
        let mut pace = Pace::new(Speed::Times(1.0), false);
        pace.turn(at(0), now, DAY);
        let turn = pace.turn(None, now, DAY);
        assert_eq!((turn.not_before, turn.at), (None, DAY));
    }
}
