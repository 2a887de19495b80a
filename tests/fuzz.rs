//! Whatever bytes a reader, an edge or a fanout sends, nothing panics, and what is read back means what was written. Runs
//! for a moment as an ordinary test, and as long as one likes under `cargo bolero`. The venues' decoders and the session
//! have targets of their own, beside them.

use prost::Message as _;
use ticker_edge::frame_limit::FrameLimit;
use ticker_edge::framing::{self, Framing};
use ticker_edge::websocket::{Decoder, Incoming, MESSAGE_BYTES_MAX};
use ticker_edge::{deflate, history, http1, params, webtransport};
use ticker_market::{Cursor, Decimal, Pattern, Topic, decimal};
use ticker_proto::message::Request;
use ticker_proto::{convert, json, v1};

const RUNS: usize = 20_000;

#[test]
fn http_heads() {
    bolero::check!().with_iterations(RUNS).for_each(|bytes: &[u8]| {
        let whole = [b"GET /v1/", bytes, b" HTTP/1.1\r\nhost: x\r\n\r\n"].concat();
        for head in [bytes, &whole] {
            if let Some((_, length)) = http1::parse(head) {
                assert!(length <= head.len());
            }
        }
    });
}

#[test]
fn http3_frames() {
    bolero::check!().with_iterations(RUNS).for_each(|bytes: &[u8]| {
        for limit in [FrameLimit::request, FrameLimit::unidirectional] {
            let (mut whole, mut cut) = (limit(), limit());
            assert_eq!(whole.pass(bytes), bytes.chunks(3).try_for_each(|piece| cut.pass(piece)));
        }
    });
}

#[test]
fn queries() {
    bolero::check!().with_iterations(RUNS).for_each(|bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let _ = params::parse(&text);
        let _ = params::parse(&format!("topics=a&{text}"));
        for name in ["", "start=", "end=", "limit=", "interval="] {
            let asked = history::parse(&format!("{name}{text}"), &["interval", "start", "end", "limit", "cursor"]);
            assert!(asked.is_err() || asked.is_ok_and(|a| a.start.is_none_or(|start| start.0 > 0)));
        }
    });
}

#[test]
fn websocket_frames() {
    bolero::check!().with_iterations(RUNS).for_each(|bytes: &[u8]| {
        // The first byte says whether compression was agreed on. Cut in two, the same messages come as in one piece.
        let (deflate, bytes) = bytes.split_first().map_or((false, bytes), |(first, rest)| (first & 1 != 0, rest));
        let decode = |pieces: &[&[u8]]| {
            let (mut decoder, mut all) = (Decoder::new(deflate), Vec::new());
            for piece in pieces {
                let result = decoder.feed(piece, |incoming| {
                    all.push(incoming);
                    true
                });
                if result.is_err() {
                    return (all, true);
                }
            }
            (all, false)
        };
        let whole = decode(&[bytes]);
        let (head, tail) = bytes.split_at(bytes.len() / 2);
        assert_eq!(decode(&[head, tail]), whole);
        for incoming in whole.0 {
            if let Incoming::Text(m) | Incoming::Binary(m) = incoming {
                assert!(m.len() <= MESSAGE_BYTES_MAX);
            }
        }
    });
}

#[test]
fn messages_on_byte_streams() {
    bolero::check!().with_iterations(RUNS).for_each(|bytes: &[u8]| {
        for framing in [Framing::Lines, Framing::Lengths] {
            // Cut in two, the same messages come as in one piece.
            let decode = |pieces: &[&[u8]]| {
                let (mut decoder, mut all) = (framing::Decoder::new(framing), Vec::new());
                let result = pieces.iter().try_for_each(|p| decoder.feed(p, |m| all.push(m.to_vec())));
                (all, result)
            };
            let whole = decode(&[bytes]);
            let (head, tail) = bytes.split_at(bytes.len() / 2);
            assert_eq!(decode(&[head, tail]), whole);
            assert!(whole.0.iter().all(|m| m.len() <= framing::MESSAGE_BYTES_MAX));
        }
        let mut framed = Vec::new();
        framing::with_length(&mut framed, bytes);
        let mut all = Vec::new();
        framing::Decoder::new(Framing::Lengths).feed(&framed, |m| all.push(m.to_vec())).expect("it is small");
        assert_eq!(all, [bytes]);
    });
}

#[test]
fn beginnings_of_streams() {
    bolero::check!().with_iterations(RUNS).for_each(|bytes: &[u8]| {
        for bytes in [bytes, &[&[0x40, 0x41], bytes].concat()] {
            if let Some(webtransport::Begins::Session { id, length }) = webtransport::begins(bytes) {
                assert!(length <= bytes.len() && id < 1 << 62);
            }
        }
    });
}

#[test]
fn compressed_messages() {
    bolero::check!().with_iterations(RUNS).for_each(|bytes: &[u8]| {
        let bytes = &bytes[..bytes.len().min(125)];
        // Masked with zeros: the payload is what the fuzzer says.
        let head = [0xc2, 0x80 | bytes.len() as u8, 0, 0, 0, 0];
        let mut decoder = Decoder::new(true);
        let _ = decoder.feed(&[&head, bytes].concat(), |incoming| {
            assert!(matches!(incoming, Incoming::Binary(m) if m.len() <= MESSAGE_BYTES_MAX));
            true
        });
    });
}

#[test]
fn offers_of_compression() {
    bolero::check!().with_iterations(RUNS).for_each(|bytes: &[u8]| {
        let offered = |tail: &[u8]| deflate::negotiate([&[b"permessage-deflate".as_slice(), tail].concat()[..]]);
        for answer in [deflate::negotiate([bytes]), offered(bytes), offered(&[b"; ", bytes].concat())] {
            assert!(answer.is_none_or(|a| a.contains("server_no_context_takeover; client_no_context_takeover")));
        }
    });
}

#[test]
fn requests_and_messages() {
    bolero::check!().with_iterations(RUNS).for_each(|bytes: &[u8]| {
        if let Ok(request) = Request::from_json(bytes) {
            let again = serde_json::to_vec(&request).expect("it serialises");
            assert_eq!(Request::from_json(&again).expect("it reads back").id(), request.id());
        }
        let _ = Request::from_protobuf(bytes);
        let _ = json::read_message(&String::from_utf8_lossy(bytes));
        if let Ok(wire) = v1::SessionResponse::decode(bytes) {
            let _ = convert::message_from_wire(wire);
        }
        if let Ok(wire) = v1::Instrument::decode(bytes) {
            let _ = convert::instrument_from_wire(wire);
        }
    });
}

#[test]
fn names_and_numbers_read_back_as_written() {
    bolero::check!().with_iterations(RUNS).for_each(|bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        if let Ok(topic) = text.parse::<Topic>() {
            assert_eq!(topic.to_string(), text);
        }
        if let Ok(pattern) = text.parse::<Pattern>() {
            assert_eq!(pattern.to_string(), text);
        }
        if let Ok(cursor) = text.parse::<Cursor>() {
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        if let Some(number) = decimal::parse(&text) {
            let written = decimal::to_text(number);
            assert_eq!(written.parse::<Decimal>().expect("it reads back"), number);
        }
    });
}
