//! The server's side of RFC 6455, as far as a shard needs it: the handshake's answer and frames from readers.
//!
//! Frames to readers are encoded once in `ticker_proto::frame`.

use base64::Engine as _;
use sha1::{Digest, Sha1};

use crate::deflate;

/// Largest message that a reader may send, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// The value of `Sec-WebSocket-Accept` (RFC 6455 §4.2.2).
pub fn accept_key(key: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    base64::engine::general_purpose::STANDARD.encode(hash.finalize())
}

/// Something that a reader sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Incoming {
    /// A whole text message.
    Text(Vec<u8>),
    /// A whole binary message.
    Binary(Vec<u8>),
    /// To be answered with a pong of the same payload.
    Ping(Vec<u8>),
    /// An answer; nothing is to be done.
    Pong,
    /// The reader closes, with its code if it gave one.
    Close(Option<u16>),
}

/// A frame that breaks the protocol. The connection closes with the code.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// RFC 6455 §7.4.1, code 1002.
    #[error("WebSocket protocol error: {0}")]
    Protocol(&'static str),
    /// The message is larger than [`MESSAGE_BYTES_MAX`].
    #[error("message larger than {MESSAGE_BYTES_MAX} bytes")]
    TooLarge,
}

/// Puts messages together from bytes as they come.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Bytes of a frame that is not whole yet. Empty (and without memory) while nothing is under way.
    buffer: Vec<u8>,
    /// The message that came in fragments so far.
    fragments: Option<Vec<u8>>,
    /// The first byte of that message's first frame.
    first: u8,
    /// permessage-deflate was agreed on: messages may be compressed.
    deflate: bool,
}

impl Decoder {
    /// For a connection with or without permessage-deflate.
    pub fn new(deflate: bool) -> Self {
        Self { deflate, ..Self::default() }
    }

    /// Was permessage-deflate agreed on?
    pub fn deflates(&self) -> bool {
        self.deflate
    }

    /// Takes bytes, and gives each whole message to `each`, which says whether to go on.
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(Incoming) -> bool) -> Result<(), FrameError> {
        if self.buffer.is_empty() {
            let used = self.frames(bytes, &mut each)?;
            self.buffer.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.extend_from_slice(bytes);
        let used = self.frames(&buffer, &mut each)?;
        if used < buffer.len() {
            buffer.drain(..used);
            self.buffer = buffer;
        }
        Ok(())
    }

    /// Decodes whole frames; returns how many bytes they took.
    fn frames(&mut self, bytes: &[u8], each: &mut impl FnMut(Incoming) -> bool) -> Result<usize, FrameError> {
        let mut used = 0;
        while let Some((frame, length)) = frame(&bytes[used..], self.deflate)? {
            used += length;
            if let Some(incoming) = self.frame(frame)?
                && !each(incoming)
            {
                break;
            }
        }
        Ok(used)
    }

    fn frame(&mut self, frame: RawFrame) -> Result<Option<Incoming>, FrameError> {
        let fin = frame.first & 0x80 != 0;
        match (frame.first & 0x0f, fin) {
            (0x8..=0xa, false) => Err(FrameError::Protocol("a control frame in fragments")),
            (0x8, _) => match frame.payload.len() {
                0 => Ok(Some(Incoming::Close(None))),
                1 => Err(FrameError::Protocol("a close code of one byte")),
                _ => Ok(Some(Incoming::Close(Some(u16::from_be_bytes([frame.payload[0], frame.payload[1]]))))),
            },
            (0x9, _) => Ok(Some(Incoming::Ping(frame.payload))),
            (0xa, _) => Ok(Some(Incoming::Pong)),
            (0x1 | 0x2, fin) => {
                if self.fragments.is_some() {
                    return Err(FrameError::Protocol("a new message inside a fragmented one"));
                }
                if fin {
                    return whole(frame.first, frame.payload).map(Some);
                }
                (self.first, self.fragments) = (frame.first, Some(frame.payload));
                Ok(None)
            }
            (0x0, fin) => {
                let Some(mut message) = self.fragments.take() else {
                    return Err(FrameError::Protocol("a continuation without a beginning"));
                };
                if message.len() + frame.payload.len() > MESSAGE_BYTES_MAX {
                    return Err(FrameError::TooLarge);
                }
                message.extend_from_slice(&frame.payload);
                if fin {
                    return whole(self.first, message).map(Some);
                }
                self.fragments = Some(message);
                Ok(None)
            }
            _ => Err(FrameError::Protocol("an unknown opcode")),
        }
    }
}

/// `first` is the first byte of the message's first frame.
fn whole(first: u8, mut message: Vec<u8>) -> Result<Incoming, FrameError> {
    if first & RSV1 != 0 {
        message = deflate::inflate(&message)?;
    }
    if first & 0x0f == 0x2 {
        return Ok(Incoming::Binary(message));
    }
    match std::str::from_utf8(&message) {
        Ok(_) => Ok(Incoming::Text(message)),
        Err(_) => Err(FrameError::Protocol("a text message that is not UTF-8")),
    }
}

/// Says on a message's first frame that it is compressed (RFC 7692 §6).
const RSV1: u8 = 0x40;

struct RawFrame {
    first: u8,
    payload: Vec<u8>,
}

/// Reads one frame (RFC 6455 §5.2) and its length, if it is whole.
fn frame(bytes: &[u8], deflate: bool) -> Result<Option<(RawFrame, usize)>, FrameError> {
    let [first, second, ..] = *bytes else { return Ok(None) };
    let compressed = deflate && first & 0x70 == RSV1 && matches!(first & 0x0f, 0x1 | 0x2);
    if first & 0x70 != 0 && !compressed {
        return Err(FrameError::Protocol("a reserved bit is set"));
    }
    if second & 0x80 == 0 {
        return Err(FrameError::Protocol("a frame that is not masked"));
    }
    let (opcode, short) = (first & 0x0f, usize::from(second & 0x7f));
    let (length, mask_at) = match short {
        126 => match bytes.get(2..4) {
            Some(b) => (usize::from(u16::from_be_bytes([b[0], b[1]])), 4),
            None => return Ok(None),
        },
        127 => match bytes.get(2..10).and_then(|b| b.try_into().ok()) {
            Some(b) => (usize::try_from(u64::from_be_bytes(b)).unwrap_or(usize::MAX), 10),
            None => return Ok(None),
        },
        n => (n, 2),
    };
    if opcode >= 0x8 && length > 125 {
        return Err(FrameError::Protocol("a control frame of more than 125 bytes"));
    }
    // Said before the payload comes: nothing of it needs to be kept.
    if length > MESSAGE_BYTES_MAX {
        return Err(FrameError::TooLarge);
    }
    let from = mask_at + 4;
    let (Some(mask), Some(masked)) = (bytes.get(mask_at..from), bytes.get(from..from + length)) else {
        return Ok(None);
    };
    let payload = masked.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m).collect();
    Ok(Some((RawFrame { first, payload }, from + length)))
}

/// A close frame with a code and a reason, cut to what a control frame can hold.
pub fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    let mut end = reason.len().min(123);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(&reason.as_bytes()[..end]);
    let mut out = Vec::with_capacity(payload.len() + 2);
    ticker_proto::frame::websocket_frame(&mut out, 0x8, &payload);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        match payload.len() {
            n @ 0..=125 => out.push(0x80 | n as u8),
            n => {
                out.push(0x80 | 126);
                out.extend_from_slice(&(n as u16).to_be_bytes());
            }
        }
        let mask = [1, 2, 3, 4];
        out.extend_from_slice(&mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
        out
    }

    fn decode(decoder: &mut Decoder, bytes: &[u8]) -> Result<Vec<Incoming>, FrameError> {
        let mut all = Vec::new();
        decoder.feed(bytes, |i| {
            all.push(i);
            true
        })?;
        Ok(all)
    }

    #[test]
    fn the_handshake_answer_is_the_rfcs() {
        assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn messages_come_whole_however_the_bytes_are_cut() {
        let long = vec![b'x'; 300];
        let mut bytes = masked(0x81, b"hello");
        bytes.extend(masked(0x01, b"in "));
        bytes.extend(masked(0x89, b"ping"));
        bytes.extend(masked(0x80, b"parts"));
        bytes.extend(masked(0x82, &long));
        bytes.extend(masked(0x88, &[0x03, 0xe8]));
        let want = [
            Incoming::Text(b"hello".to_vec()),
            Incoming::Ping(b"ping".to_vec()),
            Incoming::Text(b"in parts".to_vec()),
            Incoming::Binary(long),
            Incoming::Close(Some(1000)),
        ];
        for size in [1, 2, 3, 7, bytes.len()] {
            let mut decoder = Decoder::default();
            let mut got = Vec::new();
            for chunk in bytes.chunks(size) {
                got.extend(decode(&mut decoder, chunk).expect("well formed"));
            }
            assert_eq!(got, want, "in chunks of {size}");
            assert_eq!(decoder.buffer.capacity(), 0, "an idle reader owns no buffer");
        }
    }

    #[test]
    fn compressed_messages_are_read_where_that_was_agreed_on() {
        let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        let mut bytes = masked(0xc1, &hello);
        bytes.extend(masked(0x41, &hello[..3]));
        bytes.extend(masked(0x89, b"ping"));
        bytes.extend(masked(0x80, &hello[3..]));
        bytes.extend(masked(0x81, b"plain"));
        let text = |t: &[u8]| Incoming::Text(t.to_vec());
        let want = [text(b"Hello"), Incoming::Ping(b"ping".to_vec()), text(b"Hello"), text(b"plain")];
        assert_eq!(decode(&mut Decoder::new(true), &bytes).expect("well formed"), want);
        assert!(matches!(decode(&mut Decoder::new(false), &bytes), Err(FrameError::Protocol(_))));
        // Control frames and continuations are never marked; the other bits have no meaning.
        let mut begun = masked(0x41, &hello[..3]);
        begun.extend(masked(0xc0, &hello[3..]));
        for bytes in [begun, masked(0xc9, b""), masked(0xa1, &hello), masked(0x91, &hello), masked(0xf1, &hello)] {
            assert!(matches!(decode(&mut Decoder::new(true), &bytes), Err(FrameError::Protocol(_))), "{bytes:x?}");
        }
        let size = std::mem::size_of::<Decoder>();
        assert!(size <= 56, "{size} bytes for each reader");
    }

    #[test]
    fn what_breaks_the_protocol_is_refused() {
        let unmasked = [0x81, 0x01, b'x'];
        let large = [&[0x82, 0xff], (1u64 << 20).to_be_bytes().as_slice(), &[0; 4]].concat();
        let huge = [&[0x82, 0xff], u64::MAX.to_be_bytes().as_slice(), &[0; 4]].concat();
        let cases: [(&[u8], bool); 8] = [
            (&unmasked, false),
            (&large, true),
            (&huge, true),
            (&masked(0xc1, b"x"), false),
            (&masked(0x83, b"x"), false),
            (&masked(0x80, b"x"), false),
            (&masked(0x09, b"x"), false),
            (&masked(0x81, &[0xff]), false),
        ];
        for (bytes, too_large) in cases {
            let error = decode(&mut Decoder::default(), bytes).expect_err("refused");
            assert_eq!(matches!(error, FrameError::TooLarge), too_large, "{bytes:?}");
        }
        let mut decoder = Decoder::default();
        let half = vec![b'x'; 60_000];
        decode(&mut decoder, &masked(0x01, &half)).expect("fits");
        assert_eq!(decode(&mut decoder, &masked(0x80, &half)), Err(FrameError::TooLarge));
    }
}
