//! WebSocket frames compressed by permessage-deflate (RFC 7692), once for all readers.
//!
//! That works because no connection has a compressor of its own: each message is compressed by itself
//! (`server_no_context_takeover`), so the same bytes serve whoever has agreed to the extension. Small messages are left as
//! they are, which the RFC allows for each message (§6): their first byte says so.
//!
//! The other direction is in the edge, next to its decoder of frames.

use std::cell::RefCell;

use flate2::{Compress, Compression, FlushCompress};

use crate::frame::{Encoded, websocket_frame};

/// A message with less payload, in bytes, is not compressed. Starting the compressor costs some 9 µs whatever the size, as
/// much as a write to a socket; below 1 KiB that saves some hundred bytes of one packet, and never a packet.
pub const DEFLATE_BYTES_MIN: usize = 1024;

/// What ends a compressed block that is flushed; it is left out on the wire (RFC 7692 §7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// The bit of a frame's first byte that says that its message is compressed (RFC 7692 §6).
const RSV1: u8 = 0x40;

thread_local! {
    /// Some 300 KiB, so it is kept; one for each thread that encodes (a shard). Reset before each message.
    /// Level 1: level 6 makes a snapshot of 47 KB a tenth smaller, in nine times the time.
    static COMPRESS: RefCell<Compress> = RefCell::new(Compress::new(Compression::fast(), false));
}

/// The frames of `plain`, those of large messages compressed.
pub(crate) fn deflated(plain: &Encoded) -> Encoded {
    let mut out = Vec::with_capacity(plain.bytes.len() / 2);
    let mut ends = Vec::new();
    for message in plain.messages() {
        if !out.is_empty() {
            ends.push(out.len() as u32);
        }
        let (opcode, payload) = (message[0] & 0x0f, &message[head_bytes(message[1])..]);
        match deflate(payload) {
            Some(smaller) => websocket_frame(&mut out, RSV1 | opcode, &smaller),
            None => out.extend_from_slice(&message),
        }
    }
    out.shrink_to_fit();
    Encoded::compressed(out.into(), ends, plain.bytes.len())
}

/// The head of an unmasked frame, in bytes, by its second one.
fn head_bytes(second: u8) -> usize {
    match second {
        126 => 4,
        127 => 10,
        _ => 2,
    }
}

/// The payload, compressed; `None` where that does not make it smaller.
fn deflate(payload: &[u8]) -> Option<Vec<u8>> {
    if payload.len() < DEFLATE_BYTES_MIN {
        return None;
    }
    // What does not fit in here is not smaller.
    let mut out = Vec::with_capacity(payload.len());
    COMPRESS.with_borrow_mut(|compress| {
        compress.reset();
        compress.compress_vec(payload, &mut out, FlushCompress::Sync).ok()?;
        (compress.total_in() == payload.len() as u64).then_some(())
    })?;
    // A flush that did not fit has no tail, or fills all there is.
    if out.len() == out.capacity() || !out.ends_with(&TAIL) {
        return None;
    }
    out.truncate(out.len() - TAIL.len());
    Some(out)
}

#[cfg(test)]
mod tests {
    use flate2::{Decompress, FlushDecompress};

    use super::*;

    fn inflated(payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(1 << 20);
        let whole = [payload, &TAIL].concat();
        Decompress::new(false).decompress_vec(&whole, &mut out, FlushDecompress::Sync).expect("well formed");
        out
    }

    fn frames(payloads: &[&[u8]]) -> Encoded {
        let (mut out, mut ends) = (Vec::new(), Vec::new());
        for payload in payloads {
            if !out.is_empty() {
                ends.push(out.len() as u32);
            }
            websocket_frame(&mut out, 0x1, payload);
        }
        let bytes = out.len();
        Encoded::compressed(out.into(), ends, bytes)
    }

    #[test]
    fn only_large_messages_are_compressed() {
        let (small, large) = (b"x".repeat(DEFLATE_BYTES_MIN - 1), b"0123456789".repeat(2_000));
        let plain = frames(&[&small, &large, &large, &small]);
        let encoded = deflated(&plain);
        let messages: Vec<_> = encoded.messages().collect();
        assert_eq!(messages[0], plain.messages().next().expect("the first"));
        assert_eq!(messages[3], messages[0]);
        assert_eq!(messages[1], messages[2], "each by itself");
        let large_frame = &messages[1];
        assert_eq!(large_frame[0], 0xc1);
        assert_eq!(inflated(&large_frame[head_bytes(large_frame[1])..]), large);
        assert!(encoded.is_compressed() && !plain.is_compressed());
        assert_eq!(encoded.uncompressed_bytes(), plain.bytes.len());
    }

    #[test]
    fn what_cannot_be_made_smaller_stays() {
        let mut random = 1u64;
        let noise: Vec<u8> = (0..4_096)
            .map(|_| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (random >> 56) as u8
            })
            .collect();
        let plain = frames(&[&noise]);
        assert_eq!(deflated(&plain).bytes, plain.bytes);
        assert!(!deflated(&plain).is_compressed());
    }
}
