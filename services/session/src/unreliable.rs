//! What goes by an unreliable way (contract: `"delivery":"datagram"`): whole snapshots of states (but bars) and of `book-10`,
//! which move no cursor. The newest is repeated after a quiet time, less and less often, so that a lost one leaves no stale screen.
//!
//! A subscription's first snapshot and `invalid` go by the ordered way: the one so that there is a picture from the
//! beginning, the other so that no wrong price stays up because a packet was lost.

use ticker_market::{Channel, Class, Kind, Time};

use crate::hub::{Hub, SessionId};
use crate::topic::TopicState;

/// After so much quiet the newest value is repeated for the first time: for so long a lost one may leave a stale screen. What
/// changes more often is hardly ever repeated.
const FIRST_QUIET_MS: u32 = 200;

/// After so much it is repeated again; then after twice as much, and so on up to the heartbeat's interval.
const QUIET_MS: u32 = 1_000;

/// Where the path loses packets it is repeated after so much already, before [`FIRST_QUIET_MS`].
const LOSSY_QUIET_MS: u32 = 5;

/// What a session keeps whose transport has an unreliable way.
#[derive(Debug)]
pub(crate) struct Unreliable {
    /// For each subscription, as far as there are any.
    repeats: Vec<Repeat>,
    /// The earliest of them.
    next: Time,
    /// The path loses packets.
    is_lossy: bool,
}

/// When the newest value goes out again.
#[derive(Clone, Copy, Debug)]
struct Repeat {
    at: Time,
    quiet_ms: u32,
}

const NONE: Repeat = Repeat { at: Time(i64::MAX), quiet_ms: 0 };

impl Default for Unreliable {
    fn default() -> Self {
        Self { repeats: Vec::new(), next: NONE.at, is_lossy: false }
    }
}

impl Unreliable {
    /// A subscription's value has gone out; `again`: for the second time or more. Returns when it is to go out once more.
    pub(crate) fn sent(&mut self, sub: usize, again: bool, heartbeat_ms: u32, now: Time) -> Time {
        if self.repeats.len() <= sub {
            self.repeats.resize(sub + 1, NONE);
        }
        let before = self.repeats[sub].quiet_ms;
        let quiet_ms = match (again, before) {
            (false, _) if self.is_lossy => LOSSY_QUIET_MS,
            (false, _) | (true, LOSSY_QUIET_MS) => FIRST_QUIET_MS,
            (true, FIRST_QUIET_MS) => QUIET_MS,
            (true, _) => before.saturating_mul(2).min(heartbeat_ms).max(QUIET_MS),
        };
        let at = now.plus_millis(i64::from(quiet_ms));
        self.repeats[sub] = Repeat { at, quiet_ms };
        self.next = self.next.min(at);
        at
    }

    /// A subscription is gone, and the last one (of `subs`) took its place.
    pub(crate) fn removed(&mut self, at: usize, subs: usize) {
        if self.repeats.len() > at {
            self.repeats.resize(subs, NONE);
            self.repeats.swap_remove(at);
        }
    }
}

impl Hub {
    /// The session's transport has an unreliable way: subscriptions that ask for it are served by it from here on.
    pub fn allow_datagrams(&mut self, id: SessionId) {
        if let Some(key) = self.key(id) {
            self.sessions[key].unreliable = Some(Box::default());
        }
    }

    /// The path to such a session's reader loses packets, or does so no more. While it does, what is lost is late by a little,
    /// and not until the next of its topic.
    pub fn path_is_lossy(&mut self, id: SessionId, is_lossy: bool) {
        if let Some(unreliable) = self.key(id).and_then(|key| self.sessions[key].unreliable.as_mut()) {
            unreliable.is_lossy = is_lossy;
        }
    }

    /// Marks the subscriptions whose value is due again.
    pub(crate) fn mark_repeats(&mut self, key: usize, now: Time) {
        let session = &mut self.sessions[key];
        let Some(unreliable) = &mut session.unreliable else { return };
        if unreliable.next <= now {
            unreliable.next = NONE.at;
            unreliable.repeats.truncate(session.subs.len());
            for (at, repeat) in unreliable.repeats.iter_mut().enumerate() {
                if repeat.at <= now {
                    // Should it not be sent now, it is after another while.
                    repeat.at = now.plus_millis(i64::from(repeat.quiet_ms));
                    let sub = &mut session.subs[at];
                    if !sub.dirty {
                        sub.dirty = true;
                        session.dirty.push(at as u32);
                    }
                }
                unreliable.next = unreliable.next.min(repeat.at);
            }
        }
        let next = unreliable.next;
        if next < NONE.at {
            self.wake_session_at(key, next);
        }
    }
}

impl TopicState {
    /// Does it go by an unreliable way where the reader asks?
    pub(crate) fn may_be_lost(&self) -> bool {
        // Bars come in order: among them are the closed ones, of which none may be lost.
        (self.class == Class::State && !self.topic.channel.is_bar()) || self.topic.channel == Channel::Book10
    }

    /// May its newest event be lost? Not if it says that nothing is to be trusted.
    pub(crate) fn is_trusted(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.event.kind != Kind::Invalid)
    }
}
