//! The beginning of an SCTP association (RFC 9260 §5), between str0m and DTLS.
//!
//! str0m sends its first messages again after 3 s, browsers after 1 s and then 2 s, and neither lets it be set: where a tenth
//! of the packets is lost each way, one connection in thirty needs more than 3 s for these four messages alone. Both ends may
//! begin (RFC 8841 §9.3 has them both do so), so ours always does, and repeats what is not answered after a fraction of that.
//! str0m is told that its own first message was answered, once the two ends have agreed. Its first packets with data are
//! repeated likewise until they are confirmed, since SCTP knows no round trip yet and would wait for 3 s here too.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::flight::{REPEAT_FIRST, pause};

/// How often: by then some ten seconds have passed.
const REPEATS_MAX: u32 = 22;

/// How often the last answer is given again, while nothing shows that it has arrived.
const ACKS: u32 = 3;

/// Packets with data that are repeated: so many of the first, so often; then SCTP knows a round trip.
const EARLY_MAX: usize = 8;
const EARLY_REPEATS_MAX: u32 = 8;

/// Packets that come before str0m may see them, at most; what is lost here comes again.
const HELD_MAX: usize = 16;

/// Largest packet that is part of this, in bytes.
const PACKET_BYTES_MAX: usize = 1_500;

/// Bytes of the common header, and of that of a chunk (§3.1, §3.2).
pub(crate) const HEADER: usize = 12;
pub(crate) const CHUNK: usize = 4;

/// Bytes of an INIT without parameters (§3.3.2).
const INIT_BYTES: usize = CHUNK + 16;

/// Chunks (§3.2) and a parameter (§3.3.3).
pub(crate) const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
pub(crate) const SACK: u8 = 3;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const STATE_COOKIE: u16 = 7;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Under way.
    Opening,
    /// Agreed; str0m does not know it yet.
    Agreed,
    /// All packets pass. Where both halves were exchanged in advance it begins so.
    Open,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Opening {
    stage: Stage,
    /// DTLS carries packets.
    connected: bool,
    /// The ports of str0m's packets, as they stand in the header.
    ports: [u8; 4],
    /// str0m's INIT, a chunk.
    own: Option<Vec<u8>>,
    /// The other end's INIT or what it answered ours with, as an INIT ACK without a cookie.
    peer: Option<Vec<u8>>,
    /// What it wants to see again.
    cookie: Option<Vec<u8>>,
    /// Packets for the other end, and for str0m.
    to_peer: VecDeque<Vec<u8>>,
    to_self: VecDeque<Vec<u8>>,
    /// Of the other end, for when str0m is ready.
    held: Vec<Vec<u8>>,
    /// The first packets with data that are not confirmed, by the last TSN in each, and how many more may be kept.
    early: Vec<(u32, Vec<u8>)>,
    early_left: usize,
    due: Due,
    repeats: u32,
    acks: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Due {
    Never,
    /// After that; when it is, is not known yet.
    In(Duration),
    At(Instant),
}

impl Opening {
    pub(crate) fn new() -> Self {
        Self {
            stage: Stage::Opening,
            connected: false,
            ports: [0; 4],
            own: None,
            peer: None,
            cookie: None,
            to_peer: VecDeque::new(),
            to_self: VecDeque::new(),
            held: Vec::new(),
            early: Vec::new(),
            early_left: EARLY_MAX,
            due: Due::Never,
            repeats: 0,
            acks: 0,
        }
    }

    /// DTLS carries packets from here on.
    pub(crate) fn connected(&mut self) {
        self.connected = true;
        self.begin();
    }

    /// When [`Self::handle_timeout`] is to be called; `now` stands for at once.
    pub(crate) fn timeout(&self, now: Instant) -> Option<Instant> {
        match self.due {
            Due::Never => None,
            Due::In(_) => Some(now),
            Due::At(at) => Some(at),
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        match self.due {
            Due::In(pause) => self.due = Due::At(now + pause),
            Due::At(at) if at <= now => self.repeat(now),
            Due::Never | Due::At(_) => {}
        }
    }

    /// The next packet for the other end.
    pub(crate) fn next_to_peer(&mut self) -> Option<Vec<u8>> {
        self.to_peer.pop_front()
    }

    /// The next packet for str0m.
    pub(crate) fn next_to_self(&mut self) -> Option<Vec<u8>> {
        self.to_self.pop_front()
    }

    /// str0m says this. Returns whether it goes to the other end.
    pub(crate) fn outgoing(&mut self, packet: &[u8]) -> bool {
        if self.stage == Stage::Open {
            self.keep(packet);
            return true;
        }
        match packet.get(HEADER) {
            Some(&INIT) if packet.len() >= HEADER + INIT_BYTES => {
                if self.own.is_none() {
                    self.ports.copy_from_slice(&packet[..4]);
                    self.own = Some(packet[HEADER..].to_vec());
                    for early in std::mem::take(&mut self.held) {
                        self.incoming(&early);
                    }
                    self.begin();
                }
                false
            }
            Some(&COOKIE_ECHO) if self.stage == Stage::Agreed => {
                let answer = self.packet(true, &chunk(COOKIE_ACK, &[]));
                self.to_self.push_back(answer);
                self.to_self.extend(std::mem::take(&mut self.held));
                self.stage = Stage::Open;
                false
            }
            // It needs no beginning.
            _ if self.own.is_none() => {
                (self.stage, self.held) = (Stage::Open, Vec::new());
                self.keep(packet);
                true
            }
            _ => false,
        }
    }

    /// The other end says this. Returns whether it goes to str0m as it is.
    pub(crate) fn incoming(&mut self, packet: &[u8]) -> bool {
        let Some(&kind) = packet.get(HEADER) else { return false };
        let Some(own) = &self.own else {
            // The other end was quicker; or else there is nothing to begin, since nobody else knows a tag of ours.
            if kind != INIT {
                self.stage = Stage::Open;
            } else if self.stage == Stage::Opening {
                self.hold(packet);
            }
            self.confirmed(packet);
            return self.stage == Stage::Open;
        };
        let is_for_us = packet[4..8] == own[CHUNK..CHUNK + 4];
        match kind {
            INIT | INIT_ACK => {
                // Later ones are late ones.
                if self.stage == Stage::Opening && (kind == INIT || is_for_us) {
                    self.learn(kind, &packet[HEADER..]);
                }
                false
            }
            COOKIE_ECHO => {
                if is_for_us && self.peer.is_some() && value(&packet[HEADER..]) == Some(&self.own_cookie()[..]) {
                    self.say(&chunk(COOKIE_ACK, &[]));
                    self.acks = ACKS;
                    self.agreed();
                    (self.due, self.repeats) = (Due::In(REPEAT_FIRST), 0);
                    let length = (CHUNK + COOKIE_BYTES).next_multiple_of(4);
                    if let Some(rest) = packet.get(HEADER + length..).filter(|rest| !rest.is_empty()) {
                        let rest = self.packet(true, rest);
                        self.give(rest);
                    }
                }
                false
            }
            COOKIE_ACK => {
                if is_for_us && self.peer.is_some() {
                    self.agreed();
                }
                false
            }
            _ if !is_for_us || self.peer.is_none() => self.stage == Stage::Open,
            _ => {
                // It has heard our last answer, or has given one that was lost.
                self.agreed();
                self.acks = 0;
                self.confirmed(packet);
                if self.stage == Stage::Open && self.to_self.is_empty() {
                    return true;
                }
                self.give(packet.to_vec());
                false
            }
        }
    }

    /// The first message goes out, once there is one and a way for it.
    fn begin(&mut self) {
        if self.connected && self.stage == Stage::Opening && self.own.is_some() && self.due == Due::Never {
            self.say_again();
            self.due = Due::In(REPEAT_FIRST);
        }
    }

    /// One of the first packets with data goes out.
    fn keep(&mut self, packet: &[u8]) {
        if self.early_left == 0 || packet.get(HEADER) != Some(&DATA) {
            return;
        }
        if let Some(tsn) = chunks(packet).filter(|c| c[0] == DATA).filter_map(word).last() {
            self.early_left -= 1;
            self.early.push((tsn, packet.to_vec()));
            (self.due, self.repeats) = (Due::In(REPEAT_FIRST), 0);
        }
    }

    /// The other end may confirm some of them. Where nothing waits for an answer any more, nothing is repeated.
    fn confirmed(&mut self, packet: &[u8]) {
        if !self.early.is_empty()
            && let Some(acked) = chunks(packet).filter(|c| c[0] == SACK).filter_map(word).last()
        {
            // Serial numbers (RFC 1982).
            self.early.retain(|(tsn, _)| tsn.wrapping_sub(acked).wrapping_sub(1) < 1 << 31);
        }
        if self.early.is_empty() && self.acks == 0 && self.stage != Stage::Opening {
            self.due = Due::Never;
        }
    }

    fn repeat(&mut self, now: Instant) {
        self.repeats += 1;
        if self.stage == Stage::Opening {
            self.say_again();
        } else if self.acks > 0 {
            self.acks -= 1;
            self.say(&chunk(COOKIE_ACK, &[]));
        }
        if self.connected {
            self.to_peer.extend(self.early.iter().map(|(_, packet)| packet.clone()));
        }
        if self.repeats >= EARLY_REPEATS_MAX {
            self.early.clear();
        }
        let on = match self.stage {
            Stage::Opening => self.repeats < REPEATS_MAX,
            Stage::Agreed | Stage::Open => self.acks > 0 || !self.early.is_empty(),
        };
        self.due = if on { Due::At(now + pause(self.repeats)) } else { Due::Never };
    }

    /// What waits for an answer.
    fn say_again(&mut self) {
        match (&self.cookie, &self.own) {
            (Some(cookie), _) => self.say(&chunk(COOKIE_ECHO, cookie)),
            // The tag of the other end is not used here (§8.5.1).
            (None, Some(own)) => self.to_peer.push_back(packet(self.ports, [0; 4], own)),
            (None, None) => {}
        }
    }

    /// An INIT of the other end, or its answer to ours.
    fn learn(&mut self, kind: u8, bytes: &[u8]) {
        let Some((peer, cookie)) = as_answer(bytes) else { return };
        let tag = peer[CHUNK..CHUNK + 4].to_vec();
        // In answer to ours it tells the same tag as in its own (§5.2.1).
        if self.peer.as_ref().is_some_and(|known| known[CHUNK..CHUNK + 4] != tag) {
            return;
        }
        self.peer.get_or_insert(peer);
        if kind == INIT {
            let Some(own) = self.own.clone() else { return };
            let answer = with_cookie(&own, &self.own_cookie());
            self.say(&answer);
        } else if let Some(cookie) = cookie
            && self.cookie.is_none()
        {
            self.cookie = Some(cookie);
            self.say_again();
            (self.due, self.repeats) = (Due::In(REPEAT_FIRST), 0);
        }
    }

    /// The two ends agree: str0m hears it.
    fn agreed(&mut self) {
        if self.stage != Stage::Opening {
            return;
        }
        let Some(peer) = &self.peer else { return };
        let answer = with_cookie(peer, &self.own_cookie());
        let answer = self.packet(true, &answer);
        self.to_self.push_back(answer);
        (self.stage, self.due) = (Stage::Agreed, Due::Never);
    }

    /// For str0m, after what it is to hear before.
    fn give(&mut self, packet: Vec<u8>) {
        match self.stage {
            Stage::Open => self.to_self.push_back(packet),
            Stage::Opening | Stage::Agreed => self.hold(&packet),
        }
    }

    fn hold(&mut self, packet: &[u8]) {
        if self.held.len() < HELD_MAX && packet.len() <= PACKET_BYTES_MAX {
            self.held.push(packet.to_vec());
        }
    }

    fn say(&mut self, chunk: &[u8]) {
        let packet = self.packet(false, chunk);
        self.to_peer.push_back(packet);
    }

    /// A packet of the other end, or to it.
    fn packet(&self, of_peer: bool, chunks: &[u8]) -> Vec<u8> {
        let tag = |init: &Option<Vec<u8>>| {
            init.as_ref().and_then(|i| i.get(CHUNK..CHUNK + 4)?.try_into().ok()).unwrap_or([0; 4])
        };
        let [a, b, c, d] = self.ports;
        match of_peer {
            true => packet([c, d, a, b], tag(&self.own), chunks),
            false => packet(self.ports, tag(&self.peer), chunks),
        }
    }

    /// It proves nothing: DTLS has proven who the other end is.
    fn own_cookie(&self) -> [u8; COOKIE_BYTES] {
        let mut cookie = *b"ticker\0\0";
        if let Some(own) = &self.own {
            cookie[4..].copy_from_slice(&own[CHUNK..CHUNK + 4]);
        }
        cookie
    }
}

/// Bytes of our cookie.
const COOKIE_BYTES: usize = 8;

/// A chunk, padded.
fn chunk(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(CHUNK + value.len()).unwrap_or(u16::MAX);
    let mut bytes = vec![kind, 0];
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The chunks of a packet, as far as they are whole.
pub(crate) fn chunks(packet: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = packet.get(HEADER..).unwrap_or(&[]);
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_be_bytes(rest.get(2..CHUNK)?.try_into().ok()?));
        let whole = rest.get(..length).filter(|whole| whole.len() >= CHUNK)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(whole)
    })
}

/// The first number in a chunk: the TSN of data, or up to which it is confirmed.
pub(crate) fn word(chunk: &[u8]) -> Option<u32> {
    chunk.get(CHUNK..CHUNK + 4)?.try_into().ok().map(u32::from_be_bytes)
}

/// The value of the first chunk.
fn value(bytes: &[u8]) -> Option<&[u8]> {
    let length = usize::from(u16::from_be_bytes(bytes.get(2..CHUNK)?.try_into().ok()?));
    bytes.get(CHUNK..length)
}

/// An INIT or INIT ACK, as an INIT ACK without its cookie, and that.
fn as_answer(bytes: &[u8]) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    let value = value(bytes).filter(|v| v.len() >= INIT_BYTES - CHUNK)?;
    let (fixed, mut rest) = value.split_at(INIT_BYTES - CHUNK);
    let (mut kept, mut cookie) = (fixed.to_vec(), None);
    // Parameters are padded; the last need not be (§3.2.1).
    while rest.len() >= CHUNK {
        let kind = u16::from_be_bytes([rest[0], rest[1]]);
        let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        let whole = rest.get(..length).filter(|whole| whole.len() >= CHUNK)?;
        if kind == STATE_COOKIE {
            cookie = Some(whole[CHUNK..].to_vec());
        } else {
            kept.resize(kept.len().next_multiple_of(4), 0);
            kept.extend_from_slice(whole);
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    let length = u16::try_from(CHUNK + kept.len()).ok()?;
    let mut chunk = chunk(INIT_ACK, &kept);
    chunk[2..CHUNK].copy_from_slice(&length.to_be_bytes());
    Some((chunk, cookie))
}

/// That INIT or INIT ACK as an INIT ACK with a cookie.
fn with_cookie(init: &[u8], cookie: &[u8]) -> Vec<u8> {
    let mut body = value(init).unwrap_or(&[]).to_vec();
    body.resize(body.len().next_multiple_of(4), 0);
    body.extend_from_slice(&STATE_COOKIE.to_be_bytes());
    body.extend_from_slice(&u16::try_from(CHUNK + cookie.len()).unwrap_or(u16::MAX).to_be_bytes());
    body.extend_from_slice(cookie);
    chunk(INIT_ACK, &body)
}

pub(crate) fn packet(ports: [u8; 4], tag: [u8; 4], chunks: &[u8]) -> Vec<u8> {
    let mut bytes = [&ports[..], &tag, &[0; 4], chunks].concat();
    let sum = crc32c(&bytes);
    bytes[8..HEADER].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// The checksum of SCTP (RFC 9260 appendix A), bit by bit: these packets are few and small.
fn crc32c(bytes: &[u8]) -> u32 {
    const REVERSED: u32 = 0x82f6_3b78;
    !bytes
        .iter()
        .fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (REVERSED * (sum & 1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An INIT of that tag, with a parameter of an odd length.
    fn init(tag: u8) -> Vec<u8> {
        let mut body = vec![tag; 4];
        body.extend_from_slice(&[0, 1, 0, 0, 0, 9, 0, 9, 0, 0, 0, tag]);
        body.extend_from_slice(&[0x80, 8, 0, 6, 130, 192]);
        packet([0x13, 0x88, 0x13, 0x88], [0; 4], &chunk(INIT, &body))
    }

    fn kind(packet: &[u8]) -> u8 {
        packet[HEADER]
    }

    #[test]
    fn the_checksum_is_that_of_sctp() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_cookie_is_taken_out_and_put_in() {
        let bytes = init(7);
        let (answer, none) = as_answer(&bytes[HEADER..]).expect("an INIT");
        assert_eq!((answer[0], none), (INIT_ACK, None));
        let (again, cookie) = as_answer(&with_cookie(&answer, b"cookie")).expect("an INIT ACK");
        assert_eq!((again, cookie), (answer, Some(b"cookie".to_vec())));
    }

    #[test]
    fn what_needs_no_beginning_passes() {
        let mut opening = Opening::new();
        opening.connected();
        let data = packet([0; 4], [1; 4], &chunk(DATA, b"data"));
        assert!(opening.incoming(&data) && opening.outgoing(&data) && opening.incoming(&data));
        assert!(opening.next_to_peer().is_none() && opening.timeout(Instant::now()).is_some());
        assert!(opening.incoming(&packet([0; 4], [1; 4], &chunk(SACK, b"data"))));
        assert!(opening.timeout(Instant::now()).is_none());
    }

    #[test]
    fn the_first_data_is_repeated_until_it_is_confirmed() {
        let (mut opening, mut now) = (Opening::new(), Instant::now());
        opening.connected();
        let of = |kind, tsn: u32| packet([0; 4], [1; 4], &chunk(kind, &tsn.to_be_bytes()));
        let first = u32::MAX - 1;
        for n in 0..20 {
            assert!(opening.outgoing(&of(DATA, first.wrapping_add(n))));
        }
        let mut wait = |opening: &mut Opening, seconds: u32| {
            let mut sent = Vec::new();
            for _ in 0..seconds * 100 {
                opening.handle_timeout(now);
                sent.extend(std::iter::from_fn(|| opening.next_to_peer()));
                now += Duration::from_millis(10);
            }
            sent
        };
        let sent = wait(&mut opening, 1);
        assert!(sent.len() >= 2 * EARLY_MAX && sent[0] == of(DATA, first), "{}", sent.len());
        assert!(opening.incoming(&of(SACK, first.wrapping_add(5))));
        assert!(wait(&mut opening, 1).iter().all(|p| *p == of(DATA, 4) || *p == of(DATA, 5)));
        assert!(opening.incoming(&of(SACK, 5)) && wait(&mut opening, 1).is_empty());
        // Nobody confirms: SCTP's own timer has it from some time on.
        let mut other = Opening::new();
        other.connected();
        assert!(other.outgoing(&of(DATA, 1)));
        assert_eq!(wait(&mut other, 20).len(), EARLY_REPEATS_MAX as usize);
    }

    /// Two ends that both begin, or one of which only answers; of their packets some are lost.
    #[test]
    fn two_ends_agree_whatever_is_lost() {
        for seed in 0..2_000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut ends, mut now) = ([Opening::new(), Opening::new()], Instant::now());
            let (mut told, began) = ([false; 2], now);
            for (end, tag) in ends.iter_mut().zip([1, 2]) {
                assert!(!end.outgoing(&init(tag)));
                end.connected();
            }
            while told != [true; 2] {
                for at in 0..2 {
                    ends[at].handle_timeout(now);
                    while let Some(packet) = ends[at].next_to_peer() {
                        if rng.u8(..100) >= 30 {
                            ends[1 - at].incoming(&packet);
                        }
                    }
                    // As str0m does.
                    while let Some(packet) = ends[at].next_to_self() {
                        match kind(&packet) {
                            INIT_ACK => assert!(!ends[at].outgoing(&packet_of(COOKIE_ECHO))),
                            COOKIE_ACK => told[at] = true,
                            _ => {}
                        }
                    }
                }
                // An end that is open says something, which shows the other that it is.
                for at in 0..2 {
                    let data = ends[at].packet(false, &chunk(DATA, b"data"));
                    if ends[at].stage == Stage::Open && rng.u8(..100) >= 30 {
                        ends[1 - at].incoming(&data);
                    }
                }
                now += Duration::from_millis(50);
                assert!(now < began + Duration::from_secs(5), "seed {seed}: {ends:?}");
            }
        }
    }

    fn packet_of(kind: u8) -> Vec<u8> {
        packet([0; 4], [0; 4], &chunk(kind, &[]))
    }

    #[test]
    fn hostile_packets_do_no_harm() {
        bolero::check!().with_iterations(20_000).for_each(|bytes: &[u8]| {
            let mut opening = Opening::new();
            opening.outgoing(&init(1));
            opening.connected();
            for part in bytes.chunks(40) {
                // Some of them get as far as chunks that mean something.
                let mut packet = [&[0x13, 0x88, 0x13, 0x88, 1, 1, 1, 1, 0, 0, 0, 0], part].concat();
                if let Some(kind) = packet.get_mut(HEADER) {
                    *kind %= 16;
                }
                opening.incoming(&packet);
                opening.incoming(part);
            }
            assert!(opening.held.len() <= HELD_MAX);
            drop((opening.next_to_self(), opening.next_to_peer()));
        });
    }
}
