//! A limit on HTTP/3's frames (RFC 9114 §7.1), looked at as their bytes pass: h3 keeps every frame but DATA until it is whole,
//! however large it says that it is.

/// Largest frame that a client may send, but for DATA: a head has [`crate::http1::HEAD_BYTES_MAX`] when it is decoded, and
/// settings and the like are smaller.
pub const FRAME_BYTES_MAX: u64 = 2 * crate::http1::HEAD_BYTES_MAX as u64;

const DATA: u64 = 0;

/// The type of a unidirectional stream that has frames (§6.2.1).
const CONTROL: u64 = 0;

/// A frame is larger than [`FRAME_BYTES_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a frame of more than {FRAME_BYTES_MAX} bytes")]
pub struct TooLarge;

/// What comes next.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// The type of a unidirectional stream.
    Stream,
    Type,
    /// Of a frame of this type.
    Length(u64),
    /// So many bytes more of a frame.
    Payload(u64),
    /// No frames.
    Anything,
}

/// Follows the frames of one stream.
#[derive(Debug)]
pub struct FrameLimit {
    next: Next,
    /// The bytes of a varint that is not whole: its value so far, and how many are missing.
    varint: Option<(u64, u8)>,
}

impl FrameLimit {
    /// For a request's stream.
    pub fn request() -> Self {
        Self { next: Next::Type, varint: None }
    }

    /// For a unidirectional stream, from its beginning.
    pub fn unidirectional() -> Self {
        Self { next: Next::Stream, varint: None }
    }

    /// Looks at bytes as they come.
    pub fn pass(&mut self, mut bytes: &[u8]) -> Result<(), TooLarge> {
        while let Some((first, rest)) = bytes.split_first() {
            match self.next {
                Next::Anything => return Ok(()),
                Next::Payload(left) => {
                    let taken = left.min(bytes.len() as u64);
                    bytes = &bytes[taken as usize..];
                    self.next = if left == taken { Next::Type } else { Next::Payload(left - taken) };
                    continue;
                }
                Next::Stream | Next::Type | Next::Length(_) => bytes = rest,
            }
            // A varint (RFC 9000 §16): the first two bits are its length.
            let (value, missing) = match self.varint.take() {
                None => (u64::from(first & 0x3f), (1 << (first >> 6)) - 1),
                Some((value, missing)) => ((value << 8) | u64::from(*first), missing - 1),
            };
            if missing > 0 {
                self.varint = Some((value, missing));
                continue;
            }
            self.next = match self.next {
                Next::Stream if value == CONTROL => Next::Type,
                Next::Stream => Next::Anything,
                Next::Type => Next::Length(value),
                Next::Length(kind) if kind != DATA && value > FRAME_BYTES_MAX => return Err(TooLarge),
                Next::Length(_) if value == 0 => Next::Type,
                Next::Length(_) => Next::Payload(value),
                Next::Payload(_) | Next::Anything => self.next,
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(mut limit: FrameLimit, bytes: &[u8], size: usize) -> Result<(), TooLarge> {
        bytes.chunks(size).try_for_each(|piece| limit.pass(piece))
    }

    #[test]
    fn frames_are_told_apart_however_their_bytes_are_cut() {
        // HEADERS of 3 bytes, DATA of 2, an unknown type of two bytes with nothing in it, DATA of more than may be elsewhere.
        let good =
            [&[1, 3, 7, 7, 7][..], &[0, 2, 0xff, 0xff], &[0x40, 0x21, 0], &[0, 0x80, 1, 0, 0], &[9; 70_000]].concat();
        // HEADERS of 2^61 bytes, after DATA.
        let bad = [&[0, 1, 1][..], &[1, 0xe0, 0, 0, 0, 0, 0, 0, 0]].concat();
        for size in [1, 2, 3, 1_000] {
            assert_eq!(passes(FrameLimit::request(), &good[..5 + 4 + 3 + 5 + 65_536], size), Ok(()));
            assert_eq!(passes(FrameLimit::request(), &bad, size), Err(TooLarge));
            // Settings of a control stream; another stream has no frames.
            assert_eq!(passes(FrameLimit::unidirectional(), &[0, 4, 0x80, 0, 0x80, 1], size), Err(TooLarge));
            assert_eq!(passes(FrameLimit::unidirectional(), &[0, 4, 0x80, 0, 0x80, 0], size), Ok(()));
            assert_eq!(passes(FrameLimit::unidirectional(), &[2, 4, 0x80, 0, 0x80, 1], size), Ok(()));
        }
    }
}
