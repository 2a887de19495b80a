//! How connections are looked after: when one is replaced by a new one, what silence means, who may connect when.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ticker_feeds::Update;
use ticker_market::Channel;
use tokio::time::Instant;

use crate::config::ConnectionConfig;

/// A channel is mute only after so many times its longest silence so far.
const SILENCES: u32 = 4;

/// A channel's silence is not waited for longer.
const CHANNEL_SILENT_MAX: Duration = Duration::from_secs(4 * 3_600);

/// A connection that has never been silent for long counts as mute after this, where the venue's own rule waits longer.
const SILENT_AFTER: Duration = Duration::from_secs(10);

/// What a connection's silences are like is known when it has spoken for so long.
const SPOKE_MIN: Duration = Duration::from_secs(20);

/// The channels whose silence is noticed.
const CHANNELS: [Channel; 3] = [Channel::Quote, Channel::Trade, Channel::Book];

/// When a connection's channels were heard last.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Heard([Option<Instant>; CHANNELS.len()]);

/// How long each channel of a venue was silent at the most, over all connections; and how long all of a connection.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Silences([Duration; CHANNELS.len()], Duration);

impl Silences {
    /// Nothing at all was heard for so long.
    pub(super) fn of_all(&mut self, silence: Duration) {
        self.1 = self.1.max(silence);
    }

    /// After how long a silence a connection counts as mute that has spoken for `spoke`: four times its longest one so far,
    /// and no longer than its venue's rule says.
    pub(super) fn patience(&self, spoke: Duration, config: &ConnectionConfig, of_venue: Duration) -> Duration {
        match config.silence_ms {
            Some(ms) => Duration::from_millis(ms),
            None if spoke < SPOKE_MIN => of_venue,
            None => (self.1 * SILENCES).max(SILENT_AFTER).min(of_venue),
        }
    }
}

impl Heard {
    /// These came by the connection.
    pub(super) fn updates(&mut self, updates: &[Update], now: Instant, silences: &mut Silences) {
        for (i, channel) in CHANNELS.iter().enumerate() {
            if updates.iter().any(|update| update.channel == *channel)
                && let Some(before) = self.0[i].replace(now)
            {
                silences.0[i] = silences.0[i].max(now.saturating_duration_since(before));
            }
        }
    }

    /// We did not listen: nobody was silent.
    pub(super) fn pause(&mut self, now: Instant) {
        for heard in self.0.iter_mut().flatten() {
            *heard = now;
        }
    }

    /// When the first of the channels counts as mute.
    pub(super) fn mute_at(&self, config: &ConnectionConfig, silences: &Silences) -> Option<Instant> {
        let at = |(heard, longest): (&Option<Instant>, &Duration)| {
            Some((*heard)? + (*longest * SILENCES).clamp(config.channel_silent_after(), CHANNEL_SILENT_MAX))
        };
        self.0.iter().zip(&silences.0).filter_map(at).min()
    }

    /// The channels that are mute. Their silence counts from here on.
    pub(super) fn mute(&mut self, config: &ConnectionConfig, silences: &mut Silences, now: Instant) -> Vec<Channel> {
        let mut mute = Vec::new();
        for (i, channel) in CHANNELS.iter().enumerate() {
            let Some(heard) = self.0[i] else { continue };
            let patience = (silences.0[i] * SILENCES).clamp(config.channel_silent_after(), CHANNEL_SILENT_MAX);
            if heard + patience <= now {
                // If the new connection is as silent, the market is: then the next alarm comes later.
                silences.0[i] = silences.0[i].max(now - heard);
                self.0[i] = None;
                mute.push(*channel);
            }
        }
        mute
    }
}

/// The least distance from the venue's clock to ours over a while: what the network takes and what the clocks differ by.
/// It is measured and shown, and no time is changed by it. Negative where the venue's clock runs ahead.
#[derive(Debug)]
pub(super) struct Skew {
    /// Of this window and of the one before, in nanoseconds.
    least: [Option<i64>; 2],
    ends: Instant,
}

/// A window of the clock's skew: the least of the last one to two of them is shown.
const SKEW_WINDOW: Duration = Duration::from_secs(60);

impl Skew {
    pub(super) fn new(now: Instant) -> Self {
        Self { least: [None; 2], ends: now + SKEW_WINDOW }
    }

    /// Takes in the updates of a frame. Returns the least distance in nanoseconds.
    pub(super) fn updates(&mut self, updates: &[Update], now: Instant) -> Option<i64> {
        if now >= self.ends {
            let is_old = now >= self.ends + SKEW_WINDOW;
            self.least = [None, self.least[0].filter(|_| !is_old)];
            self.ends = now + SKEW_WINDOW;
        }
        let least = updates.iter().filter_map(|u| Some(u.recv.since(u.ts?))).min();
        self.least[0] = self.least[0].into_iter().chain(least).min();
        self.least.into_iter().flatten().min()
    }
}

/// Who may connect when: the connections of one venue one after the other, however many were lost together.
#[derive(Debug)]
pub(crate) struct Turns {
    apart: Duration,
    next: Mutex<Option<Instant>>,
}

impl Turns {
    pub(crate) fn new(apart: Duration) -> Self {
        Self { apart, next: Mutex::new(None) }
    }

    /// When it may be that somebody connects who wants to at `at`.
    pub(super) fn take(&self, at: Instant) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = next.map_or(at, |next| next.max(at));
        *next = Some(turn + self.apart);
        turn
    }
}

#[cfg(test)]
mod tests {
    use ticker_feeds::Update;
    use ticker_market::{Data, Kind, Quote, Time};

    use super::*;

    fn update(channel: Channel, ts: Option<i64>, recv: i64) -> Update {
        let (ts, recv) = (ts.map(Time::from_millis), Time::from_millis(recv));
        Update { instrument: 0, channel, kind: Kind::Update, ts, recv, data: Data::Quote(Quote::default()) }
    }

    fn later(start: Instant, secs: u64) -> Instant {
        start + Duration::from_secs(secs)
    }

    #[test]
    fn a_channel_that_was_never_heard_is_not_mute_and_long_silences_are_learnt() {
        let (start, care) = (Instant::now(), ConnectionConfig::default());
        let (mut heard, mut silences) = (Heard::default(), Silences::default());
        assert_eq!(heard.mute_at(&care, &silences), None);
        for at in [0, 50] {
            heard.updates(&[update(Channel::Book, None, 0)], later(start, at), &mut silences);
        }
        let mute_at = heard.mute_at(&care, &silences);
        assert_eq!(mute_at, Some(later(start, 50 + 200)), "four times the longest silence");
        assert!(heard.mute(&care, &mut silences, later(start, 249)).is_empty());
        assert_eq!(heard.mute(&care, &mut silences, later(start, 250)), [Channel::Book]);
        assert_eq!(heard.mute_at(&care, &silences), None, "told once");
        let mut next = Heard::default();
        next.updates(&[update(Channel::Book, None, 0)], later(start, 251), &mut silences);
        assert_eq!(next.mute_at(&care, &silences), Some(later(start, 251 + 800)));
        next.pause(later(start, 900));
        assert_eq!(next.mute_at(&care, &silences), Some(later(start, 900 + 800)));
    }

    #[test]
    fn a_connection_that_always_spoke_is_mute_sooner_than_a_quiet_one() {
        let secs = Duration::from_secs;
        let (mut silences, care) = (Silences::default(), ConnectionConfig::default());
        silences.of_all(Duration::from_millis(400));
        let after = |silences: &Silences, spoke| silences.patience(secs(spoke), &care, secs(60));
        assert_eq!(after(&silences, 19), secs(60), "too new to say");
        assert_eq!(after(&silences, 20), secs(10));
        assert_eq!(silences.patience(secs(20), &care, secs(5)), secs(5), "the venue's rule is stricter");
        silences.of_all(secs(10));
        assert_eq!(after(&silences, 500), secs(40), "it may have been the market's silence");
        silences.of_all(secs(26));
        assert_eq!(after(&silences, 500), secs(60));
        let set = ConnectionConfig { silence_ms: Some(700), ..care };
        assert_eq!(silences.patience(secs(0), &set, secs(60)), Duration::from_millis(700));
    }

    #[test]
    fn the_skew_is_the_least_of_one_to_two_windows() {
        let start = Instant::now();
        let mut skew = Skew::new(start);
        assert_eq!(skew.updates(&[update(Channel::Quote, None, 5)], start), None);
        let frame = [update(Channel::Quote, Some(100), 130), update(Channel::Trade, Some(40), 130)];
        assert_eq!(skew.updates(&frame, later(start, 1)), Some(30_000_000));
        assert_eq!(skew.updates(&[update(Channel::Quote, Some(90), 140)], later(start, 2)), Some(30_000_000));
        assert_eq!(skew.updates(&[update(Channel::Quote, Some(90), 140)], later(start, 61)), Some(30_000_000));
        assert_eq!(skew.updates(&[update(Channel::Quote, Some(90), 140)], later(start, 122)), Some(50_000_000));
        assert_eq!(skew.updates(&[update(Channel::Quote, Some(190), 140)], later(start, 123)), Some(-50_000_000));
        assert_eq!(skew.updates(&[], later(start, 400)), None);
    }

    #[test]
    fn those_lost_together_come_back_one_after_the_other() {
        let start = Instant::now();
        let turns = Turns::new(Duration::from_secs(3));
        let taken: Vec<Instant> = [0, 0, 1, 20].map(|at| turns.take(later(start, at))).into();
        assert_eq!(taken, [0, 3, 6, 20].map(|at| later(start, at)));
        let alone = Turns::new(Duration::ZERO);
        assert_eq!([alone.take(start), alone.take(start)], [start; 2]);
    }
}
