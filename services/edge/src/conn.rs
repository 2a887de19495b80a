//! One reader's socket, as a shard holds it.

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes};
use mio::net::TcpStream;
use ticker_session::{Outgoing, SessionId};

use crate::websocket::Decoder;

/// Bytes of several messages that go in one write, at most.
const JOINED_BYTES_MAX: usize = 64 * 1024;

/// What a connection is in the middle of.
#[derive(Debug)]
pub(crate) enum Stage {
    /// The head of a request is coming.
    Head,
    /// `/v1/ws`.
    WebSocket {
        decoder: Decoder,
        protobuf: bool,
        /// Its last message was refused: whatever still comes is passed over.
        deaf: bool,
    },
    /// `/v1/stream`: whatever the reader sends means nothing.
    Stream,
    /// A long poll is parked; the index of the shard's poll.
    Poll(u32),
    /// All has been said: waits for the reader to go, or for the deadline.
    Closing,
}

/// One reader's socket. Idle, it owns no buffer.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) stream: TcpStream,
    pub(crate) generation: u32,
    pub(crate) stage: Stage,
    pub(crate) session: Option<SessionId>,
    /// What a write left over: it must go out before anything else.
    rest: Bytes,
    /// The bytes of a head that is not whole, or that came while a poll was parked.
    pub(crate) head: Vec<u8>,
    /// The socket took less than it was given; it says when it takes more.
    pub(crate) blocked: bool,
}

/// How a write went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Written {
    /// Messages that are out, or of which a part is out and the rest kept.
    pub(crate) taken: usize,
    /// Bytes that are out.
    pub(crate) bytes: usize,
    /// The socket takes nothing more for now.
    pub(crate) blocked: bool,
}

impl Conn {
    pub(crate) fn new(stream: TcpStream, generation: u32) -> Self {
        Self {
            stream,
            generation,
            stage: Stage::Head,
            session: None,
            rest: Bytes::new(),
            head: Vec::new(),
            blocked: false,
        }
    }

    /// Reads into `scratch`; `Ok(None)` if there is nothing now, `Ok(Some(0))` if the reader is gone.
    pub(crate) fn read(&mut self, scratch: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match self.stream.read(scratch) {
                Ok(n) => return Ok(Some(n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Is everything out that was given to [`Conn::write`] and [`Conn::append`]?
    pub(crate) fn is_flushed(&self) -> bool {
        self.rest.is_empty()
    }

    /// Are large messages compressed for this reader?
    pub(crate) fn deflates(&self) -> bool {
        matches!(&self.stage, Stage::WebSocket { decoder, .. } if decoder.deflates())
    }

    /// Writes what was left over. Returns whether all of it is out.
    pub(crate) fn write_rest(&mut self) -> io::Result<bool> {
        while !self.rest.is_empty() {
            match self.stream.write(&self.rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.rest.advance(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked = true;
                    return Ok(false);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.rest = Bytes::new();
        self.blocked = false;
        Ok(true)
    }

    /// Writes bytes that belong to no session's plan (a head, a pong, a close), after what is left over.
    pub(crate) fn append(&mut self, bytes: impl Into<Bytes>) -> io::Result<bool> {
        let bytes = bytes.into();
        self.rest = match self.rest.is_empty() {
            true => bytes,
            false => [&self.rest[..], &bytes].concat().into(),
        };
        self.write_rest()
    }

    /// Puts the messages of a plan together for one write, into `joined` if there are several: copying them costs less than
    /// having the kernel gather them. Returns how many go into it.
    pub(crate) fn gather(plan: &[Outgoing], joined: &mut Vec<u8>) -> usize {
        joined.clear();
        let [first, second, ..] = plan else { return plan.len() };
        if first.encoded().bytes.len() + second.encoded().bytes.len() > JOINED_BYTES_MAX {
            return 1;
        }
        for (at, item) in plan.iter().enumerate() {
            let bytes = &item.encoded().bytes;
            if joined.len() + bytes.len() > JOINED_BYTES_MAX {
                return at;
            }
            joined.extend_from_slice(bytes);
        }
        plan.len()
    }

    /// The bytes that [`Conn::gather`] put together.
    pub(crate) fn gathered<'a>(plan: &'a [Outgoing], joined: &'a [u8]) -> &'a [u8] {
        match plan {
            [first, ..] if joined.is_empty() => &first.encoded().bytes,
            _ => joined,
        }
    }

    /// Writes bytes once.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    /// What a write of the first `gathered` messages of a plan, `length` bytes, means, with its result; what it left over is
    /// kept.
    pub(crate) fn wrote(
        &mut self,
        plan: &[Outgoing],
        gathered: usize,
        length: usize,
        result: io::Result<usize>,
    ) -> io::Result<Written> {
        let bytes = match result {
            Ok(n) if n == length => return Ok(Written { taken: gathered, bytes: n, blocked: false }),
            Ok(n) => n,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                self.blocked = true;
                return Ok(Written { taken: 0, bytes: 0, blocked: true });
            }
            Err(e) => return Err(e),
        };
        let mut left = bytes;
        for (at, item) in plan[..gathered].iter().enumerate() {
            let length = item.encoded().bytes.len();
            if left < length {
                self.blocked = true;
                if left > 0 {
                    self.rest = item.encoded().bytes.slice(left..);
                }
                return Ok(Written { taken: at + usize::from(left > 0), bytes, blocked: true });
            }
            left -= length;
        }
        Ok(Written { taken: gathered, bytes, blocked: false })
    }
}
