//! Long polls and snapshots: a session that is read once, and its answer.

use bytes::Bytes;
use ticker_market::Time;
use ticker_proto::Encoded;
use ticker_proto::message::Subscribe;
use ticker_session::catalogue::Refusal;
use ticker_session::{Outgoing, SessionId};
use tokio::sync::oneshot;

use crate::params;

/// Events that one answer holds, at most, unless they are snapshots: a reader who is further behind goes on from the
/// answer's cursor.
pub(crate) const POLL_EVENTS_MAX: usize = 20_000;

/// Who waits for the answer.
#[derive(Debug)]
pub(crate) enum Asker {
    /// A connection of the shard, and whether it stays open.
    Conn { key: u32, keep_alive: bool },
    /// A task of the HTTP library.
    Task(Option<oneshot::Sender<Result<Bytes, Refusal>>>),
}

/// A limit holds over all polls of a reader, of which each is a session of its own: so the answer is late enough that
/// this one and those before it keep to it together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    began: Time,
    interval_nanos: i64,
    bytes_per_second: f64,
}

/// An answer is held back for so long at most, whatever the limit: clients and proxies give up on a connection.
const HELD_SECONDS_MAX: f64 = params::WAIT_SECONDS_MAX as f64;

impl Pace {
    /// Takes what a poll asked for, and leaves of it what its session is to keep to.
    pub(crate) fn of(subscribe: &mut Subscribe, now: Time) -> Self {
        let rate = subscribe.max_rate.filter(|rate| *rate > 0.0);
        if let Some(rate) = rate {
            // Less often than a poll may last: then once a poll.
            subscribe.max_rate = Some(rate.max(1.0 / HELD_SECONDS_MAX));
        }
        let seconds = rate.map_or(0.0, |rate| (1.0 / rate).min(HELD_SECONDS_MAX));
        let bytes_per_second = subscribe.max_kbps.filter(|kbps| *kbps > 0.0).map_or(0.0, |kbps| kbps * 1_000.0 / 8.0);
        Self { began: now, interval_nanos: (seconds * 1e9) as i64, bytes_per_second }
    }

    /// Does the session's own way of keeping to kilobits a second not apply?
    pub(crate) fn holds_bytes(&self) -> bool {
        self.bytes_per_second > 0.0
    }

    /// `max_rate`: the states of the answer before this one came when it was asked for, or earlier.
    pub(crate) fn not_before(&self, waits: bool) -> Time {
        if waits { self.began.plus_nanos(self.interval_nanos) } else { self.began }
    }

    /// `max_kbps`: when an answer of so many bytes may go out. A first one may take what a quiet second saves up.
    pub(crate) fn send_at(&self, bytes: usize, waits: bool) -> Time {
        if self.bytes_per_second <= 0.0 {
            return self.began;
        }
        let saved = if waits { 0.0 } else { 1.0 };
        let seconds = (bytes as f64 / self.bytes_per_second - saved).clamp(0.0, HELD_SECONDS_MAX);
        self.began.plus_nanos((seconds * 1e9) as i64)
    }
}

/// A session that is read once.
#[derive(Debug)]
pub(crate) struct Poll {
    pub(crate) session: SessionId,
    pub(crate) generation: u32,
    pub(crate) asker: Asker,
    /// When it is answered with nothing.
    pub(crate) deadline: Time,
    /// The reader holds something already: there is no answer until there is news.
    pub(crate) waits: bool,
    /// What the reader asked to be held to.
    pub(crate) pace: Pace,
    /// The answer is made, and waits for this time.
    pub(crate) held: Option<(Time, Bytes)>,
    events: Vec<Encoded>,
    notices: Vec<Encoded>,
}

impl Poll {
    pub(crate) fn new(
        session: SessionId,
        generation: u32,
        asker: Asker,
        deadline: Time,
        waits: bool,
        pace: Pace,
    ) -> Self {
        // States come when the rate lets them: a poll that ended before would never bring them.
        let deadline = deadline.max(pace.not_before(waits));
        Self { session, generation, asker, deadline, waits, pace, held: None, events: Vec::new(), notices: Vec::new() }
    }

    /// Takes what the session gives.
    pub(crate) fn take(&mut self, plan: &[Outgoing]) {
        for item in plan {
            if item.is_event {
                self.events.push(item.encoded().clone());
            } else if !item.encoded().bytes.starts_with(b"{\"op\":\"subscribed\"") {
                // `subscribed` would say nothing that the answer's cursor does not.
                self.notices.push(item.encoded().clone());
            }
        }
    }

    /// Is there an answer? `settled`: the session has begun all that it asked for.
    pub(crate) fn is_due(&self, settled: bool, now: Time) -> bool {
        let news = !self.events.is_empty() || !self.notices.is_empty();
        (settled && (news || !self.waits) && now >= self.pace.not_before(self.waits))
            || now >= self.deadline
            || self.events.len() >= POLL_EVENTS_MAX
    }

    /// The answer's body.
    pub(crate) fn body(&self, cursor: &str) -> Bytes {
        let bytes: usize = self.events.iter().chain(&self.notices).map(|e| e.bytes.len() + 1).sum();
        let mut out = Vec::with_capacity(bytes + 64);
        out.extend_from_slice(b"{\"cursor\":\"");
        out.extend_from_slice(cursor.as_bytes());
        out.extend_from_slice(b"\",\"events\":[");
        join(&mut out, &self.events);
        out.extend_from_slice(b"],\"notices\":[");
        join(&mut out, &self.notices);
        out.extend_from_slice(b"]}");
        out.into()
    }
}

fn join(out: &mut Vec<u8>, list: &[Encoded]) {
    for (i, message) in list.iter().flat_map(Encoded::messages).enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_late_enough_for_the_limits() {
        let now = Time::from_millis(1_000);
        let at = |millis: i64| Time::from_millis(1_000 + millis);
        let mut subscribe = Subscribe { max_rate: Some(4.0), max_kbps: Some(8.0), ..Subscribe::default() };
        let pace = Pace::of(&mut subscribe, now);
        assert_eq!((pace.not_before(false), pace.not_before(true)), (now, at(250)));
        assert_eq!((pace.send_at(500, false), pace.send_at(1_500, false)), (now, at(500)));
        assert_eq!(pace.send_at(500, true), at(500));
        let mut slowest = Subscribe { max_rate: Some(0.001), max_kbps: Some(1.0), ..Subscribe::default() };
        let pace = Pace::of(&mut slowest, now);
        assert_eq!((pace.not_before(true), pace.send_at(1 << 20, true)), (at(60_000), at(60_000)));
        assert_eq!(slowest.max_rate, Some(1.0 / 60.0));
        let pace = Pace::of(&mut Subscribe::default(), now);
        assert!(!pace.holds_bytes());
        assert_eq!((pace.not_before(true), pace.send_at(1 << 20, true)), (now, now));
    }
}
