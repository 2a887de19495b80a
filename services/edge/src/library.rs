//! Connections that go to the HTTP library: everything but a shard's own three paths over HTTP/1.1.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::{Extension, Router};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use ticker_runtime::Drain;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tower::{Layer as _, ServiceExt as _};

use crate::command::Stalled;
use crate::http1;
use crate::shard::Handover;

/// How long connections of the library may take to end when the edge drains.
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(4);

/// Requests of one HTTP/2 or HTTP/3 connection at a time.
pub(crate) const STREAMS_MAX: u32 = 256;

/// What a client may send on one stream, and on all, before it is read: requests are small.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;

/// What waits for the reader of an HTTP/2 stream, about; the library's own is 400 KiB.
const SEND_BYTES_MAX: usize = 64 * 1024;

/// The tasks that must end before the edge has: connections, and what they were upgraded to.
pub(crate) type Connections = TaskTracker;

/// Serves what shards hand over until the drain has started.
pub(crate) async fn serve(
    mut handovers: mpsc::Receiver<Handover>,
    service: Router,
    tasks: Connections,
    write_timeout: Duration,
    drain: Drain,
) {
    loop {
        let handover = tokio::select! {
            handover = handovers.recv() => handover,
            () = drain.started() => None,
        };
        let Some(Handover { stream, head }) = handover else { break };
        let (service, drain) = (service.clone(), drain.clone());
        tasks.spawn(async move {
            let Ok(stream) = TcpStream::from_std(stream) else { return };
            end_where_nothing_is_taken(&stream, write_timeout);
            let from = stream.peer_addr().ok();
            connection(Begun { head, stream }, from, service, drain).await;
        });
    }
}

/// Waits until all have ended that were begun, but not for ever.
pub(crate) async fn ended(tasks: Connections) {
    tasks.close();
    let _ = tokio::time::timeout(DRAIN_MAX, tasks.wait()).await;
}

/// Has the kernel end a connection whose client takes nothing of what is under way, answers that are no sessions included.
/// Later than a session is ended, whose end is counted.
pub(crate) fn end_where_nothing_is_taken(stream: &TcpStream, write_timeout: Duration) {
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(stream).set_tcp_user_timeout(Some(write_timeout * 2));
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, write_timeout);
}

/// Whose connection a request came on, among its extensions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct From(pub(crate) SocketAddr);

/// Serves one connection: HTTP/1.1 or HTTP/2, whichever the client begins with.
pub(crate) async fn connection<I>(io: I, from: Option<SocketAddr>, service: Router, drain: Drain)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(10))
        .max_buf_size(http1::HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BYTES_MAX)
        .max_header_list_size(http1::HEAD_BYTES_MAX as u32)
        .keep_alive_interval(Some(Duration::from_secs(20)))
        .enable_connect_protocol();
    let stalled = Stalled::default();
    let service = Extension(stalled.clone()).layer(service);
    let service = service.map_request(move |mut request: http::Request<Incoming>| {
        if let Some(from) = from {
            request.extensions_mut().insert(From(from));
        }
        request
    });
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(io), TowerToHyperService::new(service));
    tokio::pin!(connection);
    tokio::select! {
        // How a client left is its own business.
        _ = connection.as_mut() => return,
        // A reader of one of its streams takes nothing. The library cannot be told to end that stream alone.
        () = stalled.told() => return,
        () = drain.started() => connection.as_mut().graceful_shutdown(),
    }
    let _ = tokio::time::timeout(DRAIN_MAX, connection).await;
}

/// A connection of which some bytes have been read already.
struct Begun {
    head: Vec<u8>,
    stream: TcpStream,
}

impl AsyncRead for Begun {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.head.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let n = self.head.len().min(buf.remaining());
        buf.put_slice(&self.head[..n]);
        self.head.drain(..n);
        if self.head.is_empty() {
            self.head = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Begun {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
