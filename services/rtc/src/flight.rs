//! The last flight of a DTLS server (RFC 6347 §4.2.4), said again until the other end goes on.
//!
//! dimpl waits twice as long after each repetition, also after one that the other end has asked for: where a tenth of the
//! packets is lost, a browser that says its last flight every tenth of a second got the answer after six seconds, or never.
//! Here each repetition of the other end's is answered, and what is not answered is said again after a fraction of a second.
//! The packets are those that were sent before: of a record that has arrived already the other end takes no second one.

use std::time::{Duration, Instant};

/// What is not answered is sent again after so long, and then half as long again each time.
pub(crate) const REPEAT_FIRST: Duration = Duration::from_millis(150);
const REPEAT_MAX: Duration = Duration::from_millis(500);

/// How long to wait after so many repetitions.
pub(crate) fn pause(repeats: u32) -> Duration {
    REPEAT_FIRST.mul_f64(1.5f64.powi(repeats.min(8) as i32)).min(REPEAT_MAX)
}

/// How often in all: each has the size of a flight, and some are asked for by packets that nobody has proven to be true.
const REPEATS_MAX: u32 = 40;

/// A flight has no more packets.
const PACKETS_MAX: usize = 8;

/// Types of records (RFC 5246 §6.2.1).
const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    packets: Vec<Vec<u8>>,
    /// How many of them are still to be said again.
    again: usize,
    /// The other end has said something since: what comes next is a new flight, or it has heard nothing of this one.
    heard: bool,
    due: Option<Instant>,
    repeats: u32,
    /// The other end has gone on.
    over: bool,
}

impl Flight {
    /// The other end says this.
    pub(crate) fn incoming(&mut self, packet: &[u8]) {
        self.heard |= !self.over && is_handshake(packet);
    }

    /// This goes out.
    pub(crate) fn outgoing(&mut self, packet: &[u8], now: Instant) {
        if self.over || !is_handshake(packet) {
            return;
        }
        if std::mem::take(&mut self.heard) {
            self.packets.clear();
            self.again = 0;
        }
        if self.packets.len() < PACKETS_MAX {
            self.packets.push(packet.to_vec());
        }
        self.due = Some(now + pause(self.repeats));
    }

    /// All that there was to say of what was heard has been said.
    pub(crate) fn said(&mut self, now: Instant) {
        if std::mem::take(&mut self.heard) {
            self.repeat(now);
        }
    }

    /// Something has come that only who has finished can say.
    pub(crate) fn over(&mut self) {
        *self = Self { over: true, ..Self::default() };
    }

    /// When [`Self::handle_timeout`] is to be called, or has left packets to be said.
    pub(crate) fn timeout(&self, now: Instant) -> Option<Instant> {
        if self.again > 0 { Some(now) } else { self.due }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.due.is_some_and(|due| due <= now) {
            self.repeat(now);
        }
    }

    /// The next packet that goes out again.
    pub(crate) fn next(&mut self) -> Option<&[u8]> {
        let at = self.packets.len().checked_sub(self.again).filter(|_| self.again > 0)?;
        self.again -= 1;
        self.packets.get(at).map(Vec::as_slice)
    }

    fn repeat(&mut self, now: Instant) {
        self.due = None;
        if self.repeats < REPEATS_MAX && !self.packets.is_empty() {
            self.repeats += 1;
            self.again = self.packets.len();
            self.due = Some(now + pause(self.repeats));
        }
    }
}

fn is_handshake(packet: &[u8]) -> bool {
    matches!(packet.first(), Some(&(CHANGE_CIPHER_SPEC | HANDSHAKE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(flight: &mut Flight) -> Vec<u8> {
        std::iter::from_fn(|| flight.next().map(|packet| packet[1])).collect()
    }

    #[test]
    fn what_is_asked_for_again_and_what_is_not_answered_is_said_again() {
        let (mut flight, mut now) = (Flight::default(), Instant::now());
        flight.incoming(&[HANDSHAKE, 0]);
        flight.outgoing(&[HANDSHAKE, 1], now);
        flight.outgoing(&[HANDSHAKE, 2], now);
        flight.said(now);
        assert!(all(&mut flight).is_empty(), "it has just been said");
        flight.incoming(&[HANDSHAKE, 0]);
        flight.said(now);
        assert_eq!(all(&mut flight), [1, 2], "asked for");
        assert!(all(&mut flight).is_empty());
        for _ in 0..3 {
            now = flight.timeout(now).expect("it is not answered");
            flight.handle_timeout(now);
            assert_eq!(all(&mut flight), [1, 2]);
        }
        flight.incoming(&[HANDSHAKE, 3]);
        flight.outgoing(&[CHANGE_CIPHER_SPEC, 4], now);
        flight.outgoing(&[23, 5], now);
        flight.said(now);
        flight.handle_timeout(now + REPEAT_MAX);
        assert_eq!(all(&mut flight), [4], "the next flight, and nothing else");
        flight.over();
        flight.incoming(&[HANDSHAKE, 3]);
        flight.said(now);
        assert_eq!((all(&mut flight).len(), flight.timeout(now)), (0, None));
    }

    #[test]
    fn it_ends() {
        let (mut flight, now) = (Flight::default(), Instant::now());
        flight.outgoing(&[HANDSHAKE, 1], now);
        let mut repeats = 0;
        while let Some(due) = flight.timeout(now) {
            flight.handle_timeout(due);
            repeats += all(&mut flight).len();
        }
        assert_eq!(repeats, REPEATS_MAX as usize);
        flight.incoming(&[HANDSHAKE, 0]);
        flight.said(now);
        assert!(all(&mut flight).is_empty());
    }
}
