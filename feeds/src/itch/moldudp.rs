//! MoldUDP64: numbered messages in UDP packets, and requests for those that are missing ("MoldUDP64 Protocol
//! Specification 1.00", nasdaqtrader.com).
//!
//! A [`Receiver`] puts packets in order. What comes early is held; what is missing is asked for from a re-request
//! server ([`Receiver::request`]), whose answers are packets like any other; what does not come at all is given up, and
//! told once as [`Delivery::Lost`].

use std::collections::BTreeMap;

use ticker_market::Time;

/// Packets that are held because an earlier one is missing, at most. Beyond, what is missing is given up.
pub const HELD_PACKETS_MAX: usize = 4_096;

/// Bytes of held packets, at most. Beyond, what is missing is given up.
pub const HELD_BYTES_MAX: usize = 8 << 20;

/// A request is repeated after so many milliseconds.
pub const REQUEST_RETRY_MS: i64 = 100;

/// What was asked for so often and did not come is given up.
pub const REQUESTS_MAX: u32 = 10;

/// Messages in one request, at most: an answer is one packet, of which no more than this is to be expected.
pub const REQUEST_MESSAGES_MAX: u64 = 1_000;

/// Bytes of a packet before its messages, and of a request.
pub const HEADER_BYTES: usize = 20;

/// The count of a packet that ends the session.
pub const END_OF_SESSION: u16 = 0xffff;

/// Names a session: ten characters.
pub type Session = [u8; 10];

/// Why a packet could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PacketError {
    /// Shorter than its header.
    #[error("a packet of {0} bytes, shorter than its header of {HEADER_BYTES}")]
    Header(usize),
    /// It ends within a message.
    #[error("the packet ends within message {at} of {count}")]
    Cut {
        /// From 0.
        at: u16,
        /// How many it says that it has.
        count: u16,
    },
    /// The numbers of its messages do not fit 64 bits.
    #[error("message numbers beyond 64 bits")]
    Sequence,
}

/// A packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet<'a> {
    /// Session.
    pub session: Session,
    /// Number of its first message; of the next one to come, where it has none.
    pub sequence: u64,
    /// Messages in it: 0 for a heartbeat, [`END_OF_SESSION`] for the session's end.
    pub count: u16,
    body: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads a packet whole, so that no message of it is taken if one is cut off. What follows the last is passed over.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PacketError> {
        let Some((head, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(PacketError::Header(bytes.len()));
        };
        let (session, rest) = head.split_first_chunk::<10>().expect("the header has 20 bytes");
        let (sequence, count) = rest.split_first_chunk::<8>().expect("the header has 20 bytes");
        let sequence = u64::from_be_bytes(*sequence);
        let count = u16::from_be_bytes([count[0], count[1]]);
        let packet = Self { session: *session, sequence, count, body };
        let told = usize::from(packet.messages_told());
        let read = packet.messages().count();
        if read < told {
            return Err(PacketError::Cut { at: read.try_into().unwrap_or(u16::MAX), count });
        }
        sequence.checked_add(told as u64).ok_or(PacketError::Sequence)?;
        Ok(packet)
    }

    /// Its messages.
    pub fn messages(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = self.body;
        (0..self.messages_told()).map_while(move |_| {
            let (length, after) = rest.split_first_chunk::<2>()?;
            let (message, after) = after.split_at_checked(u16::from_be_bytes(*length).into())?;
            rest = after;
            Some(message)
        })
    }

    fn messages_told(&self) -> u16 {
        if self.count == END_OF_SESSION { 0 } else { self.count }
    }
}

/// What a packet brings about, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery<'a> {
    /// A session begins: what came of another one is over.
    Began(Session),
    /// The next message, with its number.
    Message(u64, &'a [u8]),
    /// The messages `from` up to before `to` were given up.
    Lost {
        /// The first that is missing.
        from: u64,
        /// The first that is not.
        to: u64,
    },
    /// The session is over.
    Ended,
}

/// Puts packets in order. A state machine without I/O.
#[derive(Default, Debug)]
pub struct Receiver {
    session: Option<Session>,
    /// The number of the next message.
    next: u64,
    /// One past the last message that is known to exist.
    known: u64,
    /// By the number of the first message.
    held: BTreeMap<u64, Vec<u8>>,
    held_bytes: usize,
    requested: Option<(Time, u64)>,
    requests: u32,
    end: bool,
    over: bool,
}

impl Receiver {
    /// Takes whatever session comes first, from wherever it is: what was sent before that is not asked for.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of the next message.
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    /// Is something missing?
    pub fn is_missing(&self) -> bool {
        self.session.is_some() && self.next < self.known
    }

    /// Takes a packet, and tells `deliver` what it brings about.
    pub fn packet(&mut self, bytes: &[u8], deliver: &mut dyn FnMut(Delivery<'_>)) -> Result<(), PacketError> {
        let packet = Packet::parse(bytes)?;
        if self.session != Some(packet.session) {
            *self = Self { session: Some(packet.session), next: packet.sequence, ..Self::default() };
            self.known = self.next;
            deliver(Delivery::Began(packet.session));
        }
        self.end |= packet.count == END_OF_SESSION;
        let after = packet.sequence + u64::from(packet.messages_told());
        self.known = self.known.max(after);
        if packet.sequence <= self.next {
            self.deliver(&packet, deliver);
            self.deliver_held(deliver);
        } else if after > packet.sequence {
            self.hold(packet.sequence, bytes);
            while self.held.len() > HELD_PACKETS_MAX || self.held_bytes > HELD_BYTES_MAX {
                self.give_up(deliver);
            }
        }
        self.tell_end(deliver);
        Ok(())
    }

    /// The request for what is missing, if one is due: a packet for the re-request server. Where enough were in vain,
    /// what is missing is given up instead.
    pub fn request(&mut self, now: Time, deliver: &mut dyn FnMut(Delivery<'_>)) -> Option<[u8; HEADER_BYTES]> {
        if !self.is_missing() {
            (self.requested, self.requests) = (None, 0);
            return None;
        }
        match self.requested {
            Some((at, from)) if from == self.next && now.since(at) < REQUEST_RETRY_MS * 1_000_000 => return None,
            Some((_, from)) if from == self.next && self.requests >= REQUESTS_MAX => {
                self.give_up(deliver);
                self.tell_end(deliver);
                return self.request(now, deliver);
            }
            Some((_, from)) if from == self.next => {}
            _ => self.requests = 0,
        }
        let to = self.held.first_key_value().map_or(self.known, |(first, _)| *first);
        let count = (to - self.next).min(REQUEST_MESSAGES_MAX);
        self.requested = Some((now, self.next));
        self.requests += 1;
        let mut request = [0; HEADER_BYTES];
        request[..10].copy_from_slice(&self.session?);
        request[10..18].copy_from_slice(&self.next.to_be_bytes());
        request[18..].copy_from_slice(&u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes());
        Some(request)
    }

    /// When [`Receiver::request`] wants to be called next; `None` while nothing is missing.
    pub fn next_request(&self) -> Option<Time> {
        let again = |(at, from): (Time, u64)| {
            if from == self.next { at.plus_millis(REQUEST_RETRY_MS) } else { Time(i64::MIN) }
        };
        self.is_missing().then(|| self.requested.map_or(Time(i64::MIN), again))
    }

    /// Gives up what is missing before the first held packet, or before the last message known.
    pub fn give_up(&mut self, deliver: &mut dyn FnMut(Delivery<'_>)) {
        let to = self.held.first_key_value().map_or(self.known, |(first, _)| *first);
        if to > self.next {
            deliver(Delivery::Lost { from: self.next, to });
            self.next = to;
        }
        (self.requested, self.requests) = (None, 0);
        self.deliver_held(deliver);
    }

    fn deliver(&mut self, packet: &Packet<'_>, deliver: &mut dyn FnMut(Delivery<'_>)) {
        for (number, message) in (packet.sequence..).zip(packet.messages()) {
            if number == self.next {
                self.next += 1;
                deliver(Delivery::Message(number, message));
            }
        }
    }

    fn deliver_held(&mut self, deliver: &mut dyn FnMut(Delivery<'_>)) {
        while let Some(first) = self.held.first_entry().filter(|first| *first.key() <= self.next) {
            let bytes = first.remove();
            self.held_bytes -= bytes.len();
            let packet = Packet::parse(&bytes).expect("it was parsed before it was held");
            self.deliver(&packet, deliver);
        }
    }

    fn hold(&mut self, sequence: u64, bytes: &[u8]) {
        // The longer of two with one beginning has what the other has.
        let held = self.held.entry(sequence).or_default();
        if held.len() < bytes.len() {
            self.held_bytes += bytes.len() - held.len();
            *held = bytes.to_vec();
        }
    }

    fn tell_end(&mut self, deliver: &mut dyn FnMut(Delivery<'_>)) {
        if self.end && !self.is_missing() && !std::mem::replace(&mut self.over, true) {
            deliver(Delivery::Ended);
        }
    }
}

#[cfg(test)]
#[path = "moldudp_tests.rs"]
mod tests;
