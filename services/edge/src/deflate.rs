//! permessage-deflate (RFC 7692): what a reader offers, and messages that it compressed.
//!
//! Both sides do without context takeover, always: what goes to readers is compressed once for all of them
//! (`ticker_proto::deflate`), and no connection owns a window.

use std::cell::RefCell;

use flate2::{Decompress, FlushDecompress, Status};

use crate::websocket::{FrameError, MESSAGE_BYTES_MAX};

const NAME: &str = "permessage-deflate";

/// The parameters that an offer may have (RFC 7692 §7.1), each once.
const PARAMETERS: [&str; 4] =
    ["server_no_context_takeover", "client_no_context_takeover", "server_max_window_bits", "client_max_window_bits"];

/// Reads the values of all `Sec-WebSocket-Extensions` headers of a request, and answers the first offer that can be
/// honoured with the value of the response's. `None`: the extension is not used, because nobody offered it, no offer can
/// be honoured, or a header is malformed (RFC 6455 §9.1).
pub fn negotiate<'a>(headers: impl IntoIterator<Item = &'a [u8]>) -> Option<&'static str> {
    let mut answer = None;
    for header in headers {
        let header = std::str::from_utf8(header).ok()?;
        for offer in header.split(',').map(trim).filter(|o| !o.is_empty()) {
            let mut parts = offer.split(';').map(trim);
            let name = parts.next().filter(|n| is_token(n))?;
            // All is read, so that what is malformed counts wherever it stands.
            let parameters = parts.map(parameter).collect::<Option<Vec<_>>>()?;
            if name == NAME {
                answer = answer.or_else(|| answer_to(&parameters));
            }
        }
    }
    answer
}

type Parameter<'a> = (&'a str, Option<&'a str>);

/// `name`, `name=value` or `name="value"`.
fn parameter(text: &str) -> Option<Parameter<'_>> {
    let Some((name, value)) = text.split_once('=') else { return is_token(text).then_some((text, None)) };
    let (name, value) = (trim(name), trim(value));
    let value = value.strip_prefix('"').map_or(Some(value), |v| v.strip_suffix('"'))?;
    // A quoted value must be a token too (RFC 6455 §9.1).
    (is_token(name) && is_token(value)).then_some((name, Some(value)))
}

fn answer_to(parameters: &[Parameter<'_>]) -> Option<&'static str> {
    let mut seen = [false; PARAMETERS.len()];
    for (name, value) in parameters {
        let at = PARAMETERS.iter().position(|p| p == name)?;
        if std::mem::replace(&mut seen[at], true) {
            return None;
        }
        match (at, *value) {
            (0 | 1, None) | (3, None) => {}
            // One compression serves all readers, so there is one window: the whole one. Who wants less gets none.
            (2, Some("15")) => {}
            // What a reader sends is read whatever its window.
            (3, Some("8" | "9" | "10" | "11" | "12" | "13" | "14" | "15")) => {}
            _ => return None,
        }
    }
    // A window that was asked for must be confirmed (§7.1.2.1); no context takeover may be asked for by the answer (§7.1.1).
    Some(match seen[2] {
        true => "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15",
        false => "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    })
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// RFC 9110 §5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// What was left out at the end of a compressed message (RFC 7692 §7.2.2).
const TAIL: &[u8] = &[0, 0, 0xff, 0xff];

thread_local! {
    /// One for each shard, reset before each message.
    static DECOMPRESS: RefCell<Decompress> = RefCell::new(Decompress::new(false));
}

/// A compressed message, as it was.
pub(crate) fn inflate(payload: &[u8]) -> Result<Vec<u8>, FrameError> {
    DECOMPRESS.with_borrow_mut(|state| {
        state.reset(false);
        let mut out = Vec::with_capacity((4 * payload.len()).min(MESSAGE_BYTES_MAX));
        inflate_part(state, payload, &mut out)?;
        inflate_part(state, TAIL, &mut out)?;
        Ok(out)
    })
}

fn inflate_part(state: &mut Decompress, mut input: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
    let unreadable = FrameError::Protocol("a compressed message that cannot be read");
    // Where the room is used up, there may be more to come of what was read already.
    while !input.is_empty() || out.len() == out.capacity() {
        if out.len() == out.capacity() {
            // In the end there is room for one byte too many, so that a message that is too large shows.
            out.reserve_exact(out.len().max(256).min(MESSAGE_BYTES_MAX + 1 - out.len()));
        }
        let (read, written) = (state.total_in(), out.len());
        let status = state.decompress_vec(input, out, FlushDecompress::Sync).map_err(|_| unreadable)?;
        if out.len() > MESSAGE_BYTES_MAX {
            return Err(FrameError::TooLarge);
        }
        let used = (state.total_in() - read) as usize;
        input = &input[used..];
        if status == Status::StreamEnd {
            // A final block need not be the message's last (RFC 7692 §7.2.3.4).
            state.reset(false);
        } else if used == 0 && out.len() == written {
            if !input.is_empty() {
                return Err(unreadable);
            }
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    fn answer(headers: &[&str]) -> Option<&'static str> {
        negotiate(headers.iter().map(|h| h.as_bytes()))
    }

    #[test]
    fn offers_that_can_be_honoured_are_taken() {
        let window = format!("{PLAIN}; server_max_window_bits=15");
        let cases: [(&[&str], Option<&str>); 13] = [
            (&["permessage-deflate"], Some(PLAIN)),
            // What browsers, Python's `websockets` and Node's `ws` send.
            (&["permessage-deflate; client_max_window_bits"], Some(PLAIN)),
            (&["permessage-deflate; server_no_context_takeover;client_no_context_takeover"], Some(PLAIN)),
            (&["permessage-deflate; client_max_window_bits=9"], Some(PLAIN)),
            (&["permessage-deflate; client_max_window_bits = \"10\""], Some(PLAIN)),
            (&["permessage-deflate; server_max_window_bits=15"], Some(&window)),
            // The first that can be honoured, in any header.
            (&["permessage-deflate; server_max_window_bits=10, permessage-deflate"], Some(PLAIN)),
            (&["x-webkit-deflate-frame, , permessage-deflate; client_max_window_bits"], Some(PLAIN)),
            (&["permessage-bzip2; level=9", "permessage-deflate"], Some(PLAIN)),
            (&[], None),
            (&[""], None),
            (&["x-webkit-deflate-frame"], None),
            (&["permessage-deflate; server_max_window_bits=8"], None),
        ];
        for (headers, want) in cases {
            assert_eq!(answer(headers), want, "{headers:?}");
        }
    }

    #[test]
    fn offers_that_make_no_sense_are_not() {
        for offer in [
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_max_window_bits=010",
            "permessage-deflate; client_max_window_bits=",
            "permessage-deflate; client_max_window_bits=\"10",
            "permessage-deflate; server_no_context_takeover=true",
            "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
            "permessage-deflate; mu=1",
            "permessage-deflate;",
            "permessage deflate",
            // A quoted string is not a place to hide an offer in.
            "foo; x=\", permessage-deflate, \"",
            "permessage-deflate, =",
        ] {
            assert_eq!(answer(&[offer]), None, "{offer}");
        }
        assert_eq!(negotiate([&b"permessage-deflate"[..], b"\xff"]), None);
    }

    #[test]
    fn messages_are_inflated_as_in_the_rfc() {
        // RFC 7692 §7.2.3: one block; without compression; a final block; two blocks.
        let cases: [&[u8]; 4] = [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
        ];
        for payload in cases {
            assert_eq!(inflate(payload).as_deref(), Ok(&b"Hello"[..]), "{payload:x?}");
        }
        assert_eq!(inflate(&[]).as_deref(), Ok(&b""[..]));
        assert!(matches!(inflate(&[0xff; 32]), Err(FrameError::Protocol(_))));
    }

    #[test]
    fn a_message_may_be_as_large_as_any_and_no_larger() {
        for (bytes, fits) in [(MESSAGE_BYTES_MAX - 1, true), (MESSAGE_BYTES_MAX, true), (MESSAGE_BYTES_MAX + 1, false)]
        {
            let payload = deflated(&vec![b'x'; bytes]);
            assert!(payload.len() < 512);
            assert_eq!(inflate(&payload).map(|m| m.len()), if fits { Ok(bytes) } else { Err(FrameError::TooLarge) });
        }
        assert_eq!(inflate(&deflated(&vec![0; 64 << 20])), Err(FrameError::TooLarge));
    }

    fn deflated(message: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(1 << 20);
        let mut compress = flate2::Compress::new(flate2::Compression::best(), false);
        compress.compress_vec(message, &mut out, flate2::FlushCompress::Sync).expect("there is room");
        out.truncate(out.len() - TAIL.len());
        out
    }
}
