//! A session on one bidirectional QUIC stream, with datagrams beside it: what WebTransport and QUIC without HTTP share.

use std::io::Cursor;

use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream};
use ticker_proto::message::Request;
use ticker_proto::{Code, Encoded, Form};
use ticker_session::catalogue::Refusal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::framing::{self, Decoder, Framing};
use crate::pipe::{Pipe, Requests};

/// Bytes that are read at once.
const READ_BYTES: usize = 4 * 1024;

/// A datagram of ours is no larger: what every path and browser takes.
const DATAGRAM_BYTES_MAX: usize = 1_100;

/// The form of a session's messages that are framed so.
pub(crate) fn form(framing: Framing) -> Form {
    match framing {
        Framing::Lines => Form::Ndjson,
        Framing::Lengths => Form::Protobuf,
    }
}

/// Where a session's datagrams go.
pub(crate) struct Datagrams {
    pub(crate) connection: Connection,
    /// What each begins with.
    pub(crate) prefix: Vec<u8>,
}

impl Datagrams {
    /// Sends a message, if it fits and the reader takes datagrams. When the network is slow, the oldest that wait go.
    fn send(&self, message: &[u8]) -> bool {
        let room = self.connection.max_datagram_size().unwrap_or(0).min(DATAGRAM_BYTES_MAX);
        if self.prefix.len() + message.len() > room {
            metrics::counter!("ticker_edge_datagrams_too_large_total").increment(1);
            return false;
        }
        metrics::counter!("ticker_edge_datagrams_total").increment(1);
        self.connection.send_datagram([&self.prefix[..], message].concat().into()).is_ok()
    }
}

/// How a session ended, for its transport to tell.
pub(crate) struct Ended {
    /// As WebSocket's close codes.
    pub(crate) code: u16,
    pub(crate) reason: String,
}

/// Carries a session until it ends by itself; `None` if the reader is gone.
pub(crate) async fn run(
    mut pipe: Pipe,
    framing: Framing,
    send: &mut SendStream,
    (first, receive): (Bytes, RecvStream),
    datagrams: &Datagrams,
) -> Option<Ended> {
    let requests = pipe.requests();
    let writing = async {
        while let Some(batch) = pipe.next().await {
            let bytes = written(&batch, framing, datagrams);
            if !bytes.is_empty() && send.write_all(&bytes).await.is_err() {
                return None;
            }
        }
        let _ = send.shutdown().await;
        Some(match pipe.closing() {
            Some(closing) => {
                let code = closing.ending.code;
                Ended { code: code.websocket_close(), reason: format!("{code} {}", closing.cursor) }
            }
            None => Ended { code: Code::Draining.websocket_close(), reason: Code::Draining.to_string() },
        })
    };
    tokio::select! {
        () = read(Cursor::new(first).chain(receive), framing, &requests) => None,
        ended = writing => ended,
    }
}

/// Sends what goes by datagram, and gives the bytes of the rest.
fn written(batch: &[Encoded], framing: Framing, datagrams: &Datagrams) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(batch.iter().map(|e| e.bytes.len() + 4).sum());
    for encoded in batch {
        let one = &encoded.bytes;
        if encoded.by_datagram
            && datagrams.send(one.strip_suffix(b"\n").filter(|_| framing == Framing::Lines).unwrap_or(one))
        {
            continue;
        }
        match framing {
            Framing::Lines => bytes.extend_from_slice(one),
            Framing::Lengths => encoded.messages().for_each(|m| framing::with_length(&mut bytes, &m)),
        }
    }
    bytes
}

/// Reads requests until the reader is gone. Whoever only ends its side of the stream goes on being served.
async fn read(mut reader: impl tokio::io::AsyncRead + Unpin, framing: Framing, requests: &Requests) {
    let mut decoder = Decoder::new(framing);
    let mut deaf = false;
    loop {
        let mut buffer = [0; READ_BYTES];
        let n = match reader.read(&mut buffer).await {
            Ok(0) => return std::future::pending().await,
            Ok(_) if deaf => continue,
            Ok(n) => n,
            Err(_) => return,
        };
        let mut all = Vec::new();
        let result = decoder.feed(&buffer[..n], |message| {
            all.push(match framing {
                Framing::Lines => Request::from_json(message),
                Framing::Lengths => Request::from_protobuf(message),
            });
        });
        for request in all {
            requests.send(request.map_err(|e| Refusal::new(Code::BadRequest, e.to_string()))).await;
        }
        if let Err(error) = result {
            // The session ends, with a cursor; whatever still comes is passed over.
            deaf = true;
            let message = format!("{error}: send smaller requests");
            requests.send(Err(Refusal::new(Code::MessageTooLarge, message))).await;
        }
    }
}
