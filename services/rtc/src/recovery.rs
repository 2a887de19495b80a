//! What SCTP (RFC 9260) has sent and the other end has not got is sent again within a round trip or two.
//!
//! str0m repeats a packet once when three receipts in a row miss it, and after that waits for a timer of a second at least,
//! which also takes nearly all of its window. Over a path that loses one packet in fifty, some ten times a minute the
//! repetition is lost too, and everything waits. Here a packet counts as lost if one that was sent later has been received
//! and it has had its time (as RACK does for TCP, RFC 8985), or if nothing at all is heard; it is then sent as it was. str0m does
//! not know of it, and goes on deciding how much may be under way.
//!
//! Unordered data (§3.3.1, bit U) is that of the channel without retransmits: it is let go, but that it was (FORWARD TSN,
//! RFC 3758) must arrive.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::association::{CHUNK, DATA, SACK, chunks, packet, word};

const FORWARD_TSN: u8 = 192;

/// Flags of a DATA chunk: not in order.
const UNORDERED: u8 = 4;

/// Packets that are kept until they are received, at most: more than a connection has under way.
const KEPT_MAX: usize = 256;

/// A receipt may be late by that, besides by a round trip: str0m's own repetition comes first, and what is sent twice for
/// nothing has receipts of its own, which str0m takes for losses.
const LATE: Duration = Duration::from_millis(50);

/// Of a packet alone the receipt may be late by 200 ms (§6.2).
const RECEIPT_MAX: Duration = Duration::from_millis(220);

/// Packets that one receipt has sent again, at most; the next ones have the rest.
const REPEATS_AT_ONCE: usize = 8;

/// Where no receipt comes, the oldest packet asks for one, so often, each time after twice as long; then it is left to the
/// timer of SCTP.
const PROBES_MAX: u32 = 5;

#[derive(Debug)]
struct Kept {
    /// The number of its last data, or up to which it says that data was let go.
    tsn: u32,
    forward: bool,
    sent: Instant,
    repeats: u32,
    /// How many packets had been sent before it was, the last time.
    turn: u64,
    packet: Vec<u8>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    kept: VecDeque<Kept>,
    /// Round trips, receipts' delays included.
    round_trip: Option<Duration>,
    turns: u64,
    again: VecDeque<Vec<u8>>,
    /// The last receipt, or the last packet that asked for one, and how many did since.
    heard: Option<Instant>,
    probes: u32,
}

impl Recovery {
    /// A packet goes out.
    pub(crate) fn sent(&mut self, packet: &[u8], now: Instant) {
        let data = chunks(packet).filter(|c| c[0] == DATA && !may_be_lost(c)).filter_map(word).last();
        let forward = chunks(packet).filter(|c| c[0] == FORWARD_TSN).filter_map(word).last();
        let Some(tsn) = data.or(forward) else { return };
        self.turns += 1;
        let (turn, forward) = (self.turns, data.is_none());
        if forward {
            // The newest says what those before it said.
            self.kept.retain(|kept| !kept.forward);
        } else if let Some(known) = self.kept.iter_mut().find(|kept| kept.tsn == tsn && !kept.forward) {
            (known.sent, known.turn, known.repeats) = (now, turn, known.repeats + 1);
            return;
        }
        if self.kept.len() < KEPT_MAX {
            self.kept.push_back(Kept { tsn, forward, sent: now, repeats: 0, turn, packet: packet.to_vec() });
        }
    }

    /// The other end says this.
    pub(crate) fn heard(&mut self, packet: &[u8], now: Instant) {
        if self.kept.is_empty() {
            return;
        }
        for sack in chunks(packet).filter(|c| c[0] == SACK) {
            let Some(cumulative) = word(sack) else { continue };
            // Serial numbers (RFC 1982).
            let is_received = |tsn: u32| {
                let beyond = tsn.wrapping_sub(cumulative);
                beyond.wrapping_sub(1) >= 1 << 31 || gaps(sack).any(|(from, to)| (from..=to).contains(&beyond))
            };
            let (mut newest, mut sample) = (None, None);
            self.kept.retain(|kept| {
                let received = is_received(kept.tsn);
                if received {
                    newest = newest.max(Some(kept.turn));
                    // Of what was sent twice nobody knows which came.
                    sample = Some(kept.sent).filter(|_| kept.repeats == 0).or(sample);
                }
                !received
            });
            if let Some(sent) = sample {
                let took = now.saturating_duration_since(sent);
                self.round_trip = Some(self.round_trip.map_or(took, |known| (known * 7 + took) / 8));
            }
            (self.heard, self.probes) = (Some(now), 0);
            if let Some((newest, late)) = newest.zip(self.late()) {
                self.repeat(now, REPEATS_AT_ONCE, |kept| kept.turn < newest && kept.sent + late <= now);
            }
        }
    }

    /// When [`Self::handle_timeout`] is to be called, or has left packets to be sent.
    pub(crate) fn timeout(&self, now: Instant) -> Option<Instant> {
        if !self.again.is_empty() {
            return Some(now);
        }
        let oldest = self.kept.iter().map(|kept| kept.sent).min().filter(|_| self.probes < PROBES_MAX)?;
        Some(self.heard.map_or(oldest, |heard| heard.max(oldest)) + self.silence()?)
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.again.is_empty() && self.timeout(now).is_some_and(|due| due <= now) {
            let oldest = self.kept.iter().map(|kept| kept.turn).min();
            (self.heard, self.probes) = (Some(now), self.probes + 1);
            self.repeat(now, 1, |kept| Some(kept.turn) == oldest);
        }
    }

    /// The next packet that is sent again.
    pub(crate) fn next(&mut self) -> Option<Vec<u8>> {
        self.again.pop_front()
    }

    fn repeat(&mut self, now: Instant, most: usize, is_lost: impl Fn(&Kept) -> bool) {
        for kept in self.kept.iter_mut().filter(|kept| is_lost(kept)).take(most) {
            self.turns += 1;
            (kept.sent, kept.turn, kept.repeats) = (now, self.turns, kept.repeats + 1);
            self.again.push_back(lasting(&kept.packet));
        }
    }

    /// How old a packet is that counts as lost once a later one was received; unknown before the first round trip.
    fn late(&self) -> Option<Duration> {
        self.round_trip.map(|round_trip| round_trip * 2 + LATE)
    }

    /// How long a packet waits for any receipt.
    fn silence(&self) -> Option<Duration> {
        self.round_trip.map(|round_trip| (round_trip * 2 + RECEIPT_MAX) * (1 << self.probes))
    }
}

fn may_be_lost(chunk: &[u8]) -> bool {
    chunk[0] == DATA && chunk[1] & UNORDERED != 0
}

/// The packet without what may be lost.
fn lasting(bytes: &[u8]) -> Vec<u8> {
    if !chunks(bytes).any(may_be_lost) {
        return bytes.to_vec();
    }
    let mut rest = Vec::new();
    for chunk in chunks(bytes).filter(|chunk| !may_be_lost(chunk)) {
        rest.extend_from_slice(chunk);
        rest.resize(rest.len().next_multiple_of(4), 0);
    }
    packet([bytes[0], bytes[1], bytes[2], bytes[3]], [bytes[4], bytes[5], bytes[6], bytes[7]], &rest)
}

/// What has come beyond the cumulative number, as distances from it (§3.3.4).
fn gaps(sack: &[u8]) -> impl Iterator<Item = (u32, u32)> {
    let at = |n: usize| sack.get(n..n + 2).and_then(|b| b.try_into().ok()).map(u16::from_be_bytes);
    let count = usize::from(at(CHUNK + 8).unwrap_or(0));
    (0..count).map_while(move |n| {
        let block = CHUNK + 12 + n * 4;
        Some((at(block)?.into(), at(block + 2)?.into()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::association::HEADER;

    fn data(tsn: u32, flags: u8) -> Vec<u8> {
        let mut packet = vec![0; HEADER];
        packet.extend_from_slice(&[DATA, flags, 0, 8]);
        packet.extend_from_slice(&tsn.to_be_bytes());
        packet
    }

    fn sack(cumulative: u32, blocks: &[(u16, u16)]) -> Vec<u8> {
        let mut packet = vec![0; HEADER];
        let length = u16::try_from(16 + blocks.len() * 4).expect("few");
        packet.extend_from_slice(&[SACK, 0]);
        packet.extend_from_slice(&length.to_be_bytes());
        packet.extend_from_slice(&cumulative.to_be_bytes());
        packet.extend_from_slice(&[0; 4]);
        packet.extend_from_slice(&[0, blocks.len() as u8, 0, 0]);
        for (from, to) in blocks {
            packet.extend_from_slice(&from.to_be_bytes());
            packet.extend_from_slice(&to.to_be_bytes());
        }
        packet
    }

    fn all(recovery: &mut Recovery) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| recovery.next()).collect()
    }

    const RTT: Duration = Duration::from_millis(40);

    #[test]
    fn what_a_later_receipt_misses_is_sent_again_and_again() {
        let (mut recovery, now) = (Recovery::default(), Instant::now());
        let first = u32::MAX;
        recovery.sent(&data(first, 0), now);
        recovery.heard(&sack(first, &[]), now + RTT);
        for n in 1..4 {
            recovery.sent(&data(first.wrapping_add(n), 0), now);
        }
        recovery.heard(&sack(first, &[(2, 2)]), now + RTT);
        assert!(all(&mut recovery).is_empty(), "it may still come");
        recovery.heard(&sack(first, &[(2, 3)]), now + RTT * 4);
        assert_eq!(all(&mut recovery), [data(0, 0)]);
        // That is lost too; what is sent after it is not.
        recovery.sent(&data(3, 0), now + RTT * 4);
        recovery.heard(&sack(first, &[(2, 4)]), now + RTT * 5);
        assert!(all(&mut recovery).is_empty());
        recovery.sent(&data(4, 0), now + RTT * 6);
        recovery.heard(&sack(first, &[(2, 5)]), now + RTT * 10);
        assert_eq!(all(&mut recovery), [data(0, 0)]);
        recovery.heard(&sack(4, &[]), now + RTT * 11);
        assert_eq!((recovery.kept.len(), recovery.timeout(now)), (0, None));
    }

    #[test]
    fn the_last_packet_is_sent_again_and_what_may_be_lost_is_not() {
        let (mut recovery, mut now) = (Recovery::default(), Instant::now());
        recovery.sent(&data(1, 0), now);
        now += RTT;
        recovery.heard(&sack(1, &[]), now);
        recovery.sent(&data(2, UNORDERED), now);
        assert_eq!(recovery.timeout(now), None);
        let mut forward = data(2, 0);
        forward[HEADER] = FORWARD_TSN;
        for packet in [data(3, 0), forward] {
            recovery.sent(&packet, now);
        }
        let mut sent = Vec::new();
        while let Some(due) = recovery.timeout(now) {
            assert!(due > now && due <= now + (RTT * 2 + RECEIPT_MAX) * (1 << PROBES_MAX));
            now = due;
            recovery.handle_timeout(now);
            sent.extend(all(&mut recovery));
        }
        assert_eq!(sent.len(), PROBES_MAX as usize, "then it is left to SCTP");
        assert!(sent[0] == data(3, 0) && sent[1][HEADER] == FORWARD_TSN, "the oldest first");
        recovery.heard(&sack(3, &[]), now);
        assert!(recovery.kept.is_empty());
    }

    #[test]
    fn what_may_be_lost_is_left_out() {
        let both = [&data(1, UNORDERED)[..], &data(2, 0)[HEADER..]].concat();
        let rest = lasting(&both);
        assert_eq!(rest[HEADER..], data(2, 0)[HEADER..]);
        assert_eq!(rest, packet([0; 4], [0; 4], &data(2, 0)[HEADER..]), "with a checksum of its own");
        assert_eq!(lasting(&data(2, 0)), data(2, 0));
    }

    #[test]
    fn hostile_packets_do_no_harm() {
        let now = Instant::now();
        bolero::check!().with_iterations(20_000).for_each(|bytes: &[u8]| {
            let mut recovery = Recovery::default();
            for part in bytes.chunks(48) {
                recovery.sent(&data(u32::from(part[0]), 0), now);
                recovery.heard(&[&[0; HEADER][..], &[SACK], part].concat(), now);
                recovery.heard(part, now);
                recovery.sent(part, now);
            }
            assert!(recovery.kept.len() <= KEPT_MAX && recovery.again.len() <= KEPT_MAX);
        });
    }
}
