//! Connections that go to the HTTP library: everything but a shard's own three paths over HTTP/1.1.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use ticker_runtime::Drain;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::routes::{self, Web};
use crate::shard::Handover;
use crate::{grpc, http1};

/// How long connections of the library may take to end when the edge drains.
const DRAIN_MAX: Duration = Duration::from_secs(4);

/// Serves connections until the drain has started and they have ended.
pub(crate) async fn serve(mut handovers: mpsc::Receiver<Handover>, web: Web, drain: Drain) {
    let service = routes::router(web.clone()).merge(grpc::router(web));
    let tasks = TaskTracker::new();
    loop {
        let handover = tokio::select! {
            handover = handovers.recv() => handover,
            () = drain.started() => None,
        };
        let Some(Handover { stream, head }) = handover else { break };
        let (service, drain) = (service.clone(), drain.clone());
        tasks.spawn(async move {
            let Ok(stream) = TcpStream::from_std(stream) else { return };
            let io = TokioIo::new(Begun { head, stream });
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder
                .http1()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .max_buf_size(http1::HEAD_BYTES_MAX);
            builder
                .http2()
                .timer(TokioTimer::new())
                .max_concurrent_streams(256)
                .max_header_list_size(http1::HEAD_BYTES_MAX as u32)
                .keep_alive_interval(Some(Duration::from_secs(20)))
                .enable_connect_protocol();
            let connection = builder.serve_connection_with_upgrades(io, TowerToHyperService::new(service));
            tokio::pin!(connection);
            tokio::select! {
                // How a client left is its own business.
                _ = connection.as_mut() => return,
                () = drain.started() => connection.as_mut().graceful_shutdown(),
            }
            let _ = tokio::time::timeout(DRAIN_MAX, connection).await;
        });
    }
    tasks.close();
    let _ = tokio::time::timeout(DRAIN_MAX, tasks.wait()).await;
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
