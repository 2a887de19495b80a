//! The traits that h3 wants of a QUIC implementation, for quinn.
//!
//! Streams that belong to a WebTransport session begin with a signal of their own (draft-ietf-webtrans-http3 §4.2): they are
//! told apart here, before h3 sees them, so that h3 need not know of WebTransport.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use quinn::VarInt;
use tokio::io::ReadBuf;

use crate::frame_limit::FrameLimit;
use crate::webtransport::{self, Begins, SessionStream, Sessions};

/// Bytes that are read at once: requests are small.
const READ_BYTES: usize = 4 * 1024;

/// Bytes that tell whose a stream is: two varints.
const BEGINNING_BYTES: usize = 16;

type Pending<T> = Pin<Box<dyn Future<Output = Result<T, quinn::ConnectionError>> + std::marker::Send>>;

/// A QUIC connection, as h3 sees it.
pub(crate) struct Transport {
    connection: quinn::Connection,
    bidirectional: Pending<(quinn::SendStream, quinn::RecvStream)>,
    unidirectional: Pending<quinn::RecvStream>,
    opener: Opener,
    /// Streams of which it cannot be told yet whose they are. There are no more than a reader may open.
    beginnings: Vec<Beginning>,
    sessions: Arc<Sessions>,
}

impl Transport {
    pub(crate) fn new(connection: quinn::Connection, sessions: Arc<Sessions>) -> Self {
        Self {
            beginnings: Vec::new(),
            sessions,
            bidirectional: accept_bidirectional(&connection),
            unidirectional: accept_unidirectional(&connection),
            opener: Opener { connection: connection.clone(), opening: None },
            connection,
        }
    }
}

fn accept_bidirectional(connection: &quinn::Connection) -> Pending<(quinn::SendStream, quinn::RecvStream)> {
    let connection = connection.clone();
    Box::pin(async move { connection.accept_bi().await })
}

fn accept_unidirectional(connection: &quinn::Connection) -> Pending<quinn::RecvStream> {
    let connection = connection.clone();
    Box::pin(async move { connection.accept_uni().await })
}

impl quic::Connection<Bytes> for Transport {
    type RecvStream = Receive;
    type OpenStreams = Opener;

    fn poll_accept_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Receive, ConnectionErrorIncoming>> {
        let accepted = ready!(self.unidirectional.as_mut().poll(cx));
        self.unidirectional = accept_unidirectional(&self.connection);
        Poll::Ready(
            accepted.map(|s| Receive::new(s, Bytes::new(), FrameLimit::unidirectional())).map_err(connection_error),
        )
    }

    fn poll_accept_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Both, ConnectionErrorIncoming>> {
        while let Poll::Ready(accepted) = self.bidirectional.as_mut().poll(cx) {
            self.bidirectional = accept_bidirectional(&self.connection);
            let (send, receive) = accepted.map_err(connection_error)?;
            self.beginnings.push(Beginning { send, receive, bytes: Vec::new() });
        }
        let mut at = 0;
        while let Some(beginning) = self.beginnings.get_mut(at) {
            let Poll::Ready(begins) = beginning.poll(cx) else {
                at += 1;
                continue;
            };
            let Beginning { send, receive, bytes } = self.beginnings.swap_remove(at);
            if self.beginnings.is_empty() {
                // It keeps no memory for the next ones.
                self.beginnings = Vec::new();
            }
            match begins {
                Begins::Request => {
                    return Poll::Ready(Ok(Both {
                        send: Send::new(send),
                        receive: Receive::new(receive, bytes.into(), FrameLimit::request()),
                    }));
                }
                Begins::Session { id, length } => {
                    let first = Bytes::from(bytes).slice(length..);
                    self.sessions.route(SessionStream { session: id, send, receive, first });
                }
            }
        }
        Poll::Pending
    }

    fn opener(&self) -> Opener {
        Opener { connection: self.connection.clone(), opening: None }
    }
}

impl quic::OpenStreams<Bytes> for Transport {
    type BidiStream = Both;
    type SendStream = Send;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Both, StreamErrorIncoming>> {
        self.opener.poll_open_bidi(cx)
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Send, StreamErrorIncoming>> {
        self.opener.poll_open_send(cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.opener.close(code, reason);
    }
}

/// A stream whose first bytes are awaited.
struct Beginning {
    send: quinn::SendStream,
    receive: quinn::RecvStream,
    bytes: Vec<u8>,
}

impl Beginning {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Begins> {
        loop {
            if let Some(begins) = webtransport::begins(&self.bytes) {
                return Poll::Ready(begins);
            }
            let mut bytes = [0; BEGINNING_BYTES];
            match ready!(self.receive.poll_read(cx, &mut bytes)) {
                Ok(n) if n > 0 => self.bytes.extend_from_slice(&bytes[..n]),
                // It has ended: h3 knows what to answer.
                _ => return Poll::Ready(Begins::Request),
            }
        }
    }
}

/// Opens the server's own streams.
pub(crate) struct Opener {
    connection: quinn::Connection,
    opening: Option<Pending<quinn::SendStream>>,
}

impl quic::OpenStreams<Bytes> for Opener {
    type BidiStream = Both;
    type SendStream = Send;

    fn poll_open_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<Both, StreamErrorIncoming>> {
        // A server of HTTP/3 has none (RFC 9114 §6.1).
        Poll::Ready(Err(StreamErrorIncoming::Unknown("a server opens no bidirectional streams".into())))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Send, StreamErrorIncoming>> {
        let connection = &self.connection;
        let opening = self.opening.get_or_insert_with(|| {
            let connection = connection.clone();
            Box::pin(async move { connection.open_uni().await })
        });
        let opened = ready!(opening.as_mut().poll(cx));
        self.opening = None;
        Poll::Ready(opened.map(Send::new).map_err(|e| lost(&e)))
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.connection.close(error_code(code.value()), reason);
    }
}

/// A stream in both directions.
pub(crate) struct Both {
    send: Send,
    receive: Receive,
}

impl quic::BidiStream<Bytes> for Both {
    type SendStream = Send;
    type RecvStream = Receive;

    fn split(self) -> (Send, Receive) {
        (self.send, self.receive)
    }
}

impl quic::RecvStream for Both {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.receive.poll_data(cx)
    }

    fn stop_sending(&mut self, code: u64) {
        self.receive.stop_sending(code);
    }

    fn recv_id(&self) -> StreamId {
        self.receive.recv_id()
    }
}

impl quic::SendStream<Bytes> for Both {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_finish(cx)
    }

    fn reset(&mut self, code: u64) {
        self.send.reset(code);
    }

    fn send_id(&self) -> StreamId {
        self.send.send_id()
    }
}

/// A stream, or the half of one, that the reader sends on.
pub(crate) struct Receive(Box<Receiving>);

/// Apart: h3 has places for more streams than there are.
struct Receiving {
    stream: quinn::RecvStream,
    /// What was read already.
    first: Bytes,
    limit: FrameLimit,
}

impl Receive {
    fn new(stream: quinn::RecvStream, first: Bytes, limit: FrameLimit) -> Self {
        Self(Box::new(Receiving { stream, first, limit }))
    }

    /// Gives bytes to h3, unless it would have to keep too many of them.
    fn pass(&mut self, bytes: Bytes) -> Result<Option<Bytes>, StreamErrorIncoming> {
        if self.0.limit.pass(&bytes).is_ok() {
            return Ok(Some(bytes));
        }
        let error_code = Code::H3_EXCESSIVE_LOAD.value();
        // It may have ended already.
        let _ = self.0.stream.stop(self::error_code(error_code));
        Err(StreamErrorIncoming::StreamTerminated { error_code })
    }
}

impl quic::RecvStream for Receive {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        if !self.0.first.is_empty() {
            let first = std::mem::take(&mut self.0.first);
            return Poll::Ready(self.pass(first));
        }
        let mut bytes = [0; READ_BYTES];
        let mut buffer = ReadBuf::new(&mut bytes);
        match ready!(self.0.stream.poll_read_buf(cx, &mut buffer)) {
            Ok(()) if buffer.filled().is_empty() => Poll::Ready(Ok(None)),
            Ok(()) => Poll::Ready(self.pass(Bytes::copy_from_slice(buffer.filled()))),
            Err(error) => Poll::Ready(Err(read_error(error))),
        }
    }

    fn stop_sending(&mut self, code: u64) {
        // It may have ended already.
        let _ = self.0.stream.stop(error_code(code));
    }

    fn recv_id(&self) -> StreamId {
        stream_id(self.0.stream.id())
    }
}

impl Drop for Receive {
    fn drop(&mut self) {
        // Whoever still sends may stop: that its answer comes without the rest is no error (RFC 9114 §4.1). Where all has
        // been read there is nothing to say.
        let _ = self.0.stream.stop(error_code(Code::H3_NO_ERROR.value()));
    }
}

/// A stream, or the half of one, that the server sends on.
pub(crate) struct Send {
    stream: quinn::SendStream,
    /// Apart: it is large, and a connection has five streams that hardly ever write.
    writing: Option<Box<WriteBuf<Bytes>>>,
}

impl Send {
    fn new(stream: quinn::SendStream) -> Self {
        Self { stream, writing: None }
    }
}

impl quic::SendStream<Bytes> for Send {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        if let Some(data) = &mut self.writing {
            while data.has_remaining() {
                let written = ready!(Pin::new(&mut self.stream).poll_write(cx, data.chunk())).map_err(write_error)?;
                data.advance(written);
            }
        }
        self.writing = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        if self.writing.is_some() {
            let error = ConnectionErrorIncoming::InternalError("data before the stream was ready".to_owned());
            return Err(StreamErrorIncoming::ConnectionErrorIncoming { connection_error: error });
        }
        self.writing = Some(Box::new(data.into()));
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        Poll::Ready(self.stream.finish().map_err(|e| StreamErrorIncoming::Unknown(Box::new(e))))
    }

    fn reset(&mut self, code: u64) {
        // It may have ended already.
        let _ = self.stream.reset(error_code(code));
    }

    fn send_id(&self) -> StreamId {
        stream_id(self.stream.id())
    }
}

fn stream_id(id: quinn::StreamId) -> StreamId {
    u64::from(id).try_into().expect("QUIC's stream ids have 62 bits, as HTTP/3's")
}

fn error_code(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

fn connection_error(error: quinn::ConnectionError) -> ConnectionErrorIncoming {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: close.error_code.into_inner() }
        }
        quinn::ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        other => ConnectionErrorIncoming::Undefined(Arc::new(other)),
    }
}

fn lost(error: &quinn::ConnectionError) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming { connection_error: connection_error(error.clone()) }
}

fn read_error(error: quinn::ReadError) -> StreamErrorIncoming {
    match error {
        quinn::ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        quinn::ReadError::ConnectionLost(error) => lost(&error),
        other => StreamErrorIncoming::Unknown(Box::new(other)),
    }
}

fn write_error(error: quinn::WriteError) -> StreamErrorIncoming {
    match error {
        quinn::WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
        quinn::WriteError::ConnectionLost(error) => lost(&error),
        other => StreamErrorIncoming::Unknown(Box::new(other)),
    }
}
