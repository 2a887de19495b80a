//! WebTransport over HTTP/3 (draft-ietf-webtrans-http3), `/v1/wt`: the session on the first bidirectional stream that the
//! reader opens, datagrams for what it wants so, and the session's end as a capsule on the CONNECT stream.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::response::IntoResponse as _;
use bytes::Bytes;
use h3::server::RequestStream;
use quinn::{Connection, RecvStream, SendStream, VarInt};
use ticker_proto::Code;
use ticker_session::catalogue::Refusal;
use tokio::sync::oneshot;

use crate::byte_session::{self, Datagrams, Ended};
use crate::framing::Framing;
use crate::http3::Rest;
use crate::http3::streams::Both;
use crate::pipe::Pipe;
use crate::routes::Web;
use crate::{http3, params, routes};

/// Sessions of one connection.
pub(crate) const SESSIONS_MAX: usize = 16;

/// Streams of one connection that came before their session was answered, at most.
const EARLY_MAX: usize = 8;

/// How long a session may be without its stream.
const STREAM_MAX: Duration = Duration::from_secs(10);

/// How long a reader who has been told all may take to go.
const CLOSING_MAX: Duration = Duration::from_secs(2);

/// Begins a bidirectional stream of a session (§4.3).
const STREAM_SIGNAL: u64 = 0x41;

/// The type of the capsule that ends a session (§6).
const CLOSE_SESSION: u64 = 0x2843;

/// WEBTRANSPORT_BUFFERED_STREAM_REJECTED.
const REJECTED: u32 = 0x3994_bd84;

/// How a bidirectional stream begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Begins {
    /// As a request of HTTP/3.
    Request,
    /// It belongs to a session: the id of its CONNECT stream; so many bytes said that.
    Session {
        /// Which.
        id: u64,
        /// Where the stream's own bytes begin.
        length: usize,
    },
}

/// Reads how a stream begins; `None` while that cannot be told.
pub fn begins(bytes: &[u8]) -> Option<Begins> {
    let (signal, length) = varint(bytes)?;
    if signal != STREAM_SIGNAL {
        return Some(Begins::Request);
    }
    let (id, more) = varint(&bytes[length..])?;
    Some(Begins::Session { id, length: length + more })
}

/// A QUIC varint (RFC 9000 §16) and its length.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let length = 1 << (bytes.first()? >> 6);
    let all = bytes.get(..length)?;
    // The first two bits are the length.
    let value = all[1..].iter().fold(u64::from(all[0] & 0x3f), |value, b| (value << 8) | u64::from(*b));
    Some((value, length))
}

fn put_varint(out: &mut Vec<u8>, value: u64) {
    match value {
        0..0x40 => out.push(value as u8),
        0x40..0x4000 => out.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        0x4000..0x4000_0000 => out.extend_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.extend_from_slice(&(value | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

/// The capsule that ends a session, with a code and a reason.
fn close_capsule(ended: &Ended) -> Vec<u8> {
    let mut out = Vec::with_capacity(ended.reason.len() + 10);
    put_varint(&mut out, CLOSE_SESSION);
    put_varint(&mut out, 4 + ended.reason.len() as u64);
    out.extend_from_slice(&u32::from(ended.code).to_be_bytes());
    out.extend_from_slice(ended.reason.as_bytes());
    out
}

/// A bidirectional stream of a session.
#[derive(Debug)]
pub(crate) struct SessionStream {
    pub(crate) session: u64,
    pub(crate) send: SendStream,
    pub(crate) receive: RecvStream,
    /// What was read already.
    pub(crate) first: Bytes,
}

impl SessionStream {
    fn reject(mut self) {
        // It may have ended already.
        let _ = self.send.reset(VarInt::from_u32(REJECTED));
        let _ = self.receive.stop(VarInt::from_u32(REJECTED));
    }
}

/// The sessions of one connection.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<Streams>);

#[derive(Debug, Default)]
struct Streams {
    /// Until a session has its stream, the way to give it one.
    open: HashMap<u64, Option<oneshot::Sender<SessionStream>>>,
    early: Vec<SessionStream>,
}

impl Sessions {
    /// Gives a stream to its session, or keeps it for one that is not answered yet.
    pub(crate) fn route(&self, stream: SessionStream) {
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match streams.open.get_mut(&stream.session).map(Option::take) {
            Some(Some(waiting)) => {
                if let Err(stream) = waiting.send(stream) {
                    stream.reject();
                }
            }
            // A session has one.
            Some(None) => stream.reject(),
            None if streams.early.len() < EARLY_MAX => streams.early.push(stream),
            None => stream.reject(),
        }
    }

    /// A session begins; its stream will come this way. `None` if there are too many.
    fn open(&self, id: u64) -> Option<oneshot::Receiver<SessionStream>> {
        let (sender, receiver) = oneshot::channel();
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if streams.open.len() >= SESSIONS_MAX {
            return None;
        }
        let early: Vec<_> = streams.early.extract_if(.., |s| s.session == id).collect();
        streams.open.insert(id, Some(sender));
        drop(streams);
        early.into_iter().for_each(|stream| self.route(stream));
        Some(receiver)
    }

    fn forget(&self, id: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).open.remove(&id);
    }
}

/// Counts a session for as long as it lives: its task is dropped where the connection ends.
struct Counted;

impl Counted {
    fn new() -> Self {
        metrics::gauge!("ticker_edge_webtransport_sessions").increment(1);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::gauge!("ticker_edge_webtransport_sessions").decrement(1);
    }
}

/// Answers a CONNECT. The session, to its end, is what is left to do.
pub(crate) async fn begin(
    request: http::Request<()>,
    mut stream: RequestStream<Both, Bytes>,
    connection: Connection,
    web: &Web,
    sessions: Arc<Sessions>,
) -> Option<Rest> {
    let id = stream.id().into_inner();
    let (pipe, framing, waiting) = match open(&request, id, web, &sessions).await {
        Ok(opened) => opened,
        Err(refusal) => {
            let (send, _) = stream.split();
            return http3::respond(send, routes::problem(&refusal), web.write_timeout).await;
        }
    };
    let accepted = ([("sec-webtransport-http3-draft", "draft02")], ()).into_response();
    if stream.send_response(accepted.map(drop)).await.is_err() {
        sessions.forget(id);
        return None;
    }
    let mut prefix = Vec::new();
    put_varint(&mut prefix, id / 4);
    let datagrams = Datagrams::new(connection, prefix);
    Some(Box::pin(serve(id, sessions, stream, pipe, framing, waiting, datagrams)))
}

/// Serves a session to its end.
fn serve(
    id: u64,
    sessions: Arc<Sessions>,
    stream: RequestStream<Both, Bytes>,
    mut pipe: Pipe,
    framing: Framing,
    waiting: oneshot::Receiver<SessionStream>,
    mut datagrams: Datagrams,
) -> impl Future<Output = ()> + Send {
    // Not a function that is `async`: that would keep two places for each of these.
    let (mut send, mut receive) = stream.split();
    async move {
        let _counted = Counted::new();
        let session = async {
            let Ok(Ok(stream)) = Box::pin(tokio::time::timeout(STREAM_MAX, waiting)).await else {
                let reason = format!("{}: open a bidirectional stream for the session", Code::BadRequest);
                return Some(Ended { code: Code::BadRequest.websocket_close(), reason });
            };
            let SessionStream { mut send, receive, first, .. } = stream;
            let ended = byte_session::run(&mut pipe, framing, &mut send, (first, receive), &mut datagrams).await;
            if ended.is_some() {
                // The end of the session must not overtake its last words.
                let _ = Box::pin(tokio::time::timeout(CLOSING_MAX, send.stopped())).await;
            }
            ended
        };
        // The reader ends a session by ending its CONNECT stream, with a capsule or without.
        let gone = async { while let Ok(Some(_)) = receive.recv_data().await {} };
        tokio::pin!(gone);
        let ended = tokio::select! {
            ended = session => ended,
            () = gone.as_mut() => None,
        };
        sessions.forget(id);
        let told = Box::pin(async {
            if let Some(ended) = &ended {
                send.send_data(close_capsule(ended).into()).await?;
            }
            send.finish().await
        });
        match Box::pin(tokio::time::timeout(CLOSING_MAX, told)).await {
            Ok(Ok(())) if ended.is_some() => {
                let _ = Box::pin(tokio::time::timeout(CLOSING_MAX, gone)).await;
            }
            Ok(_) => {}
            // A reader who takes nothing does not hear of its end either; its CONNECT stream ends all the same.
            Err(_) => send.stop_stream(h3::error::Code::H3_REQUEST_CANCELLED),
        }
    }
}

/// Answers a CONNECT: its session, how that is framed, and the way that its stream will come.
async fn open(
    request: &http::Request<()>,
    id: u64,
    web: &Web,
    sessions: &Sessions,
) -> Result<(Pipe, Framing, oneshot::Receiver<SessionStream>), Refusal> {
    if request.uri().path() != "/v1/wt" {
        return Err(Refusal::new(Code::BadRequest, "WebTransport is at /v1/wt"));
    }
    let (framing, query) = framing_of(request.uri().query().unwrap_or(""))?;
    let params = if query.is_empty() { None } else { Some(params::parse(&query)?) };
    let too_many = || Refusal::new(Code::TooManySessions, format!("a connection has {SESSIONS_MAX} sessions at most"));
    let pipe = Pipe::open_with_datagrams(web.shard(), byte_session::form(framing), params.map(|p| p.subscribe)).await?;
    Ok((pipe.paced(&web.pace), framing, sessions.open(id).ok_or_else(too_many)?))
}

/// Takes `format` out of a query: `json` (the default) or `proto`.
pub(crate) fn framing_of(query: &str) -> Result<(Framing, String), Refusal> {
    let (formats, rest): (Vec<&str>, Vec<&str>) = query.split('&').partition(|pair| pair.starts_with("format="));
    let framing = match formats.last().and_then(|pair| pair.split_once('=')).map(|(_, value)| value) {
        None | Some("json") => Framing::Lines,
        Some("proto") => Framing::Lengths,
        Some(other) => {
            return Err(Refusal::new(Code::BadRequest, format!("`format` is `{other}`: expected json or proto")));
        }
    };
    Ok((framing, rest.join("&")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_says_to_which_session_it_belongs() {
        // A HEADERS frame of HTTP/3; a session's stream; bytes that are not enough to tell.
        assert_eq!(begins(&[0x01, 0x10]), Some(Begins::Request));
        assert_eq!(begins(&[0x40, 0x41, 0x04, b'{']), Some(Begins::Session { id: 4, length: 3 }));
        assert_eq!(begins(&[0x40, 0x41, 0x80, 0, 1, 0]), Some(Begins::Session { id: 256, length: 6 }));
        for short in [&[][..], &[0x40], &[0x40, 0x41], &[0x40, 0x41, 0x80, 0, 1]] {
            assert_eq!(begins(short), None, "{short:x?}");
        }
    }

    #[test]
    fn varints_are_the_rfcs() {
        // RFC 9000, appendix A.1.
        for (value, bytes) in [
            (151_288_809_941_952_652, &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..]),
            (494_878_333, &[0x9d, 0x7f, 0x3e, 0x7d]),
            (15_293, &[0x7b, 0xbd]),
            (37, &[0x25]),
        ] {
            assert_eq!(varint(bytes), Some((value, bytes.len())));
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out, bytes);
        }
    }

    #[test]
    fn the_format_is_taken_out_of_the_query() {
        assert_eq!(framing_of("").ok(), Some((Framing::Lines, String::new())));
        assert_eq!(
            framing_of("topics=a&format=proto&recent=1").ok(),
            Some((Framing::Lengths, "topics=a&recent=1".into()))
        );
        assert!(framing_of("format=xml").is_err());
    }
}
