//! Messages on a byte stream, as a reader sends them over WebTransport and QUIC: one JSON object a line, or Protobuf messages
//! with their length before them (a varint, as in Protobuf's delimited streams).

/// Largest message that a reader may send, in bytes.
pub const MESSAGE_BYTES_MAX: usize = crate::websocket::MESSAGE_BYTES_MAX;

/// A varint of 64 bits has no more bytes.
const VARINT_BYTES_MAX: usize = 10;

/// How messages are told apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// One a line; empty lines mean nothing.
    Lines,
    /// A length before each.
    Lengths,
}

/// A message is larger than [`MESSAGE_BYTES_MAX`], or its length is no number of 64 bits: where the next one begins is not
/// known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("message larger than {MESSAGE_BYTES_MAX} bytes")]
pub struct TooLarge;

/// Puts messages together from bytes as they come.
#[derive(Debug)]
pub struct Decoder {
    framing: Framing,
    /// Bytes of a message that is not whole yet. Empty (and without memory) while nothing is under way.
    buffer: Vec<u8>,
    /// So many of them are known to hold no line's end.
    looked_at: usize,
}

impl Decoder {
    /// For a stream that is framed so.
    pub fn new(framing: Framing) -> Self {
        Self { framing, buffer: Vec::new(), looked_at: 0 }
    }

    /// Takes bytes, and gives each whole message to `each`. After an error nothing more can be read.
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), TooLarge> {
        self.buffer.extend_from_slice(bytes);
        let mut used = 0;
        while let Some((from, to, next)) = self.message(used)? {
            let message = &self.buffer[from..to];
            if !message.is_empty() || self.framing == Framing::Lengths {
                each(message);
            }
            used = next;
            self.looked_at = used;
        }
        if used == self.buffer.len() {
            self.buffer = Vec::new();
        } else {
            self.buffer.drain(..used);
        }
        self.looked_at -= used;
        Ok(())
    }

    /// The message that begins at `at`, if it is whole: where it is, and where the next begins.
    fn message(&mut self, at: usize) -> Result<Option<(usize, usize, usize)>, TooLarge> {
        let rest = &self.buffer[at..];
        match self.framing {
            Framing::Lines => {
                let from = self.looked_at.max(at);
                let end = self.buffer[from..].iter().position(|b| *b == b'\n').map(|n| from + n);
                self.looked_at = self.buffer.len();
                if end.unwrap_or(self.buffer.len()) - at > MESSAGE_BYTES_MAX {
                    return Err(TooLarge);
                }
                let Some(end) = end else { return Ok(None) };
                let to = if self.buffer[at..end].ends_with(b"\r") { end - 1 } else { end };
                Ok(Some((at, to, end + 1)))
            }
            Framing::Lengths => {
                let Some(last) = rest.iter().take(VARINT_BYTES_MAX).position(|b| b & 0x80 == 0) else {
                    return if rest.len() < VARINT_BYTES_MAX { Ok(None) } else { Err(TooLarge) };
                };
                let length = rest[..=last].iter().rev().fold(0u128, |all, b| (all << 7) | u128::from(b & 0x7f));
                // Said before the message comes: nothing of it needs to be kept.
                let length = usize::try_from(length).ok().filter(|n| *n <= MESSAGE_BYTES_MAX).ok_or(TooLarge)?;
                let from = at + last + 1;
                Ok((self.buffer.len() >= from + length).then_some((from, from + length, from + length)))
            }
        }
    }
}

/// Appends a message with its length before it.
pub fn with_length(out: &mut Vec<u8>, message: &[u8]) {
    put_length(out, message.len());
    out.extend_from_slice(message);
}

/// Appends what comes before a message of that length.
pub(crate) fn put_length(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(framing: Framing, pieces: &[&[u8]]) -> Result<Vec<Vec<u8>>, TooLarge> {
        let (mut decoder, mut all) = (Decoder::new(framing), Vec::new());
        for piece in pieces {
            decoder.feed(piece, |m| all.push(m.to_vec()))?;
        }
        assert!(decoder.buffer.is_empty() == (decoder.buffer.capacity() == 0), "an idle reader owns no buffer");
        Ok(all)
    }

    #[test]
    fn messages_come_whole_however_the_bytes_are_cut() {
        let lines = b"{\"op\":\"ping\"}\n\n\r\n{}\r\nrest";
        let mut lengths = Vec::new();
        let long = vec![7; 300];
        for message in [&b"one"[..], b"", &long] {
            with_length(&mut lengths, message);
        }
        for size in [1, 2, 3, 1_000] {
            let pieces: Vec<&[u8]> = lines.chunks(size).collect();
            assert_eq!(decode(Framing::Lines, &pieces), Ok(vec![b"{\"op\":\"ping\"}".to_vec(), b"{}".to_vec()]));
            let pieces: Vec<&[u8]> = lengths.chunks(size).collect();
            assert_eq!(decode(Framing::Lengths, &pieces), Ok(vec![b"one".to_vec(), Vec::new(), long.clone()]));
        }
    }

    #[test]
    fn what_is_too_large_is_refused_before_it_is_kept() {
        let most = vec![b'x'; MESSAGE_BYTES_MAX];
        assert_eq!(decode(Framing::Lines, &[&most, b"\n"]).map(|m| m.len()), Ok(1));
        assert_eq!(decode(Framing::Lines, &[&most, b"x"]), Err(TooLarge));
        assert_eq!(decode(Framing::Lines, &[&[&most[..], b"x\n"].concat()]), Err(TooLarge));
        let mut framed = Vec::new();
        with_length(&mut framed, &most);
        assert_eq!(decode(Framing::Lengths, &[&framed]).map(|m| m.len()), Ok(1));
        // 65,537; 2^63; more than 64 bits; a number without an end.
        for length in
            [&[0x81, 0x80, 0x04][..], &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01], &[0xff; 10]]
        {
            assert_eq!(decode(Framing::Lengths, &[length]), Err(TooLarge), "{length:x?}");
        }
        assert_eq!(decode(Framing::Lengths, &[&[0xff; 9]]), Ok(Vec::new()));
    }
}
