//! A session on one bidirectional QUIC stream, with datagrams beside it: what WebTransport and QUIC without HTTP share.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream, VarInt};
use ticker_proto::message::Request;
use ticker_proto::{Code, Encoded, Form};
use ticker_session::catalogue::Refusal;

use crate::framing::{self, Decoder, Framing};
use crate::pipe::{Pipe, Requests};

/// Bytes that are read at once.
const READ_BYTES: usize = 4 * 1024;

/// Smaller messages are copied together rather than kept one by one: each piece costs some memory of its own.
const SHARED_BYTES_MIN: usize = 1_024;

/// A datagram of ours is no larger: what every path and browser takes.
const DATAGRAM_BYTES_MAX: usize = 1_100;

/// Whether a path loses packets is looked at after so many batches.
const LOSS_LOOK: u32 = 64;

/// Where a round trip takes less, what is lost did not find room somewhere, and more of it would make that worse.
const FAR: Duration = Duration::from_millis(5);

/// The form of a session's messages that are framed so.
pub(crate) fn form(framing: Framing) -> Form {
    match framing {
        Framing::Lines => Form::Ndjson,
        Framing::Lengths => Form::Protobuf,
    }
}

/// Where a session's datagrams go.
pub(crate) struct Datagrams {
    connection: Connection,
    /// What each begins with.
    prefix: Vec<u8>,
    loss: Loss,
    /// Batches until that is looked at again.
    until_look: u32,
    sent: metrics::Counter,
    too_large: metrics::Counter,
}

/// What a path loses.
#[derive(Debug, Default)]
struct Loss {
    /// Packets that had been sent, and lost, at the last look.
    before: (u64, u64),
    is_lossy: bool,
}

impl Loss {
    /// So many are enough to tell a path that loses 1 % from one that loses one now and then.
    const PACKETS: u64 = 512;

    /// It is a path that loses packets, if it has lost that many of them.
    const LOST: u64 = 3;

    /// So many packets have been sent and lost until now, over a path whose round trip takes that at least.
    fn look(&mut self, sent: u64, lost: u64, round_trip: Duration) {
        let (sent_before, lost_before) = self.before;
        if lost.saturating_sub(lost_before) >= Self::LOST {
            self.is_lossy = round_trip >= FAR;
        } else if sent.saturating_sub(sent_before) < Self::PACKETS {
            return;
        } else {
            self.is_lossy = false;
        }
        self.before = (sent, lost);
    }
}

impl Datagrams {
    /// Each of them begins with `prefix`.
    pub(crate) fn new(connection: Connection, prefix: Vec<u8>) -> Self {
        Self {
            connection,
            prefix,
            loss: Loss::default(),
            until_look: LOSS_LOOK,
            sent: metrics::counter!("ticker_edge_datagrams_total"),
            too_large: metrics::counter!("ticker_edge_datagrams_too_large_total"),
        }
    }

    /// How long a message may be to go by datagram: nothing where the reader takes none.
    fn room(&self) -> usize {
        let room = self.connection.max_datagram_size().unwrap_or(0).min(DATAGRAM_BYTES_MAX);
        room.saturating_sub(self.prefix.len())
    }

    /// Sends a message that fits. Waits while others wait for the network: what is new meanwhile is conflated where it is
    /// still known by topic. Returns whether it is on its way.
    async fn send(&self, message: &[u8]) -> bool {
        self.sent.increment(1);
        self.connection.send_datagram_wait([&self.prefix[..], message].concat().into()).await.is_ok()
    }

    /// Looks now and then whether the path loses packets.
    fn is_lossy(&mut self) -> bool {
        self.until_look -= 1;
        if self.until_look == 0 {
            self.until_look = LOSS_LOOK;
            let path = self.connection.stats().path;
            self.loss.look(path.sent_packets, path.lost_packets, path.min_rtt);
        }
        self.loss.is_lossy
    }
}

/// How a session ended, for its transport to tell.
pub(crate) struct Ended {
    /// As WebSocket's close codes.
    pub(crate) code: u16,
    pub(crate) reason: String,
}

/// Carries a session until it ends by itself; `None` if the reader is gone.
#[allow(clippy::manual_async_fn, reason = "an async fn keeps its arguments beside what it makes of them")]
pub(crate) fn run<'a>(
    pipe: &'a mut Pipe,
    framing: Framing,
    send: &'a mut SendStream,
    (first, receive): (Bytes, RecvStream),
    datagrams: &'a mut Datagrams,
) -> impl Future<Output = Option<Ended>> + Send + use<'a> {
    async move {
        let (requests, stalled) = (pipe.requests(), pipe.stalled());
        let writing = async {
            while let Some(batch) = pipe.next().await {
                // Apart: it is large, and lasts for a moment.
                let mut pieces = Box::pin(written(&batch, framing, datagrams)).await;
                drop(batch);
                pipe.path_is_lossy(datagrams.is_lossy());
                if send.write_all_chunks(&mut pieces).await.is_err() {
                    return None;
                }
            }
            let _ = send.finish();
            Some(match pipe.closing() {
                Some(closing) => {
                    let code = closing.ending.code;
                    Ended { code: code.websocket_close(), reason: format!("{code} {}", closing.cursor) }
                }
                None => Ended { code: Code::Draining.websocket_close(), reason: Code::Draining.to_string() },
            })
        };
        tokio::select! {
            () = read(first, receive, framing, &requests) => return None,
            ended = writing => return ended,
            () = stalled.told() => {}
        }
        // What it has not taken is let go.
        let _ = send.reset(VarInt::from_u32(0));
        Some(Ended { code: Code::SlowConsumer.websocket_close(), reason: Code::SlowConsumer.to_string() })
    }
}

/// Sends what goes by datagram, and gives the bytes of the rest. Small messages are put together; a large one, or one that
/// is alone, goes as it was encoded for all readers, so that those who are slow hold the same bytes.
async fn written(batch: &[Encoded], framing: Framing, datagrams: &Datagrams) -> Vec<Bytes> {
    let room = if batch.iter().any(|e| e.by_datagram) { datagrams.room() } else { 0 };
    let (mut pieces, mut small) = (Vec::new(), Vec::new());
    let mut put = |small: &mut Vec<u8>, message: Bytes| {
        if message.len() < SHARED_BYTES_MIN && batch.len() > 1 {
            return small.extend_from_slice(&message);
        }
        if !small.is_empty() {
            pieces.push(std::mem::take(small).into());
        }
        pieces.push(message);
    };
    for encoded in batch {
        let one = &encoded.bytes;
        if encoded.by_datagram {
            let message = one.strip_suffix(b"\n").filter(|_| framing == Framing::Lines).unwrap_or(one);
            match message.len() <= room {
                true if datagrams.send(message).await => continue,
                true => {}
                false => datagrams.too_large.increment(1),
            }
        }
        match framing {
            Framing::Lines => put(&mut small, one.clone()),
            Framing::Lengths => {
                for message in encoded.messages() {
                    framing::put_length(&mut small, message.len());
                    put(&mut small, message);
                }
            }
        }
    }
    if !small.is_empty() {
        pieces.push(small.into());
    }
    pieces
}

/// Reads requests until the reader is gone. Whoever only ends its side of the stream goes on being served.
#[allow(clippy::manual_async_fn, reason = "an async fn keeps its arguments beside what it makes of them")]
fn read(
    mut bytes: Bytes,
    mut receive: RecvStream,
    framing: Framing,
    requests: &Requests,
) -> impl Future<Output = ()> + Send {
    async move {
        let mut decoder = Decoder::new(framing);
        let mut deaf = false;
        loop {
            let mut all = Vec::new();
            // Taken, so that nothing of it is kept while the next is awaited.
            let result = decoder.feed(&std::mem::take(&mut bytes), |message| {
                all.push(match framing {
                    Framing::Lines => Request::from_json(message),
                    Framing::Lengths => Request::from_protobuf(message),
                });
            });
            // The session ends, with a cursor; whatever still comes is passed over.
            deaf |= result.is_err();
            let all = all.into_iter().map(|request| request.map_err(|e| Refusal::new(Code::BadRequest, e.to_string())));
            let last = result
                .err()
                .map(|error| Err(Refusal::new(Code::MessageTooLarge, format!("{error}: send smaller requests"))));
            // Apart, since a session hardly ever sends one.
            Box::pin(async {
                for request in all.chain(last) {
                    requests.send(request).await;
                }
            })
            .await;
            bytes = loop {
                // Chunks are the connection's own: an idle reader has no buffer here.
                match receive.read_chunk(READ_BYTES, true).await {
                    Ok(None) => return std::future::pending().await,
                    Ok(Some(_)) if deaf => {}
                    Ok(Some(chunk)) => break chunk.bytes,
                    Err(_) => return,
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_loses_packets_is_told_from_one_that_lost_some() {
        let mut loss = Loss::default();
        let (mut sent, mut lost) = (0, 0);
        let mut go = |more, more_lost| {
            (sent, lost) = (sent + more, lost + more_lost);
            loss.look(sent, lost, FAR);
            loss.is_lossy
        };
        assert!(!go(600, 2), "two of six hundred");
        assert!(!go(100, 0));
        assert!(!go(500, 2));
        assert!(go(100, 3), "three of a hundred");
        assert!(go(100, 0), "too few to tell");
        assert!(!go(500, 1), "it has ceased");
        loss.look(sent + 100, lost + 50, FAR / 2);
        assert!(!loss.is_lossy, "it is overrun");
    }
}
