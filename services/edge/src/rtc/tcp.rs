//! Peers over TCP, where UDP is closed: connections that they make (RFC 6544, passive), on which packets come one after the
//! other, each behind its length (RFC 4571). The first is a check of ICE, which says whom the connection is for.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ticker_rtc::framing::Frames;
use ticker_rtc::stun;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::rtc::socket::Path;
use crate::rtc::{Over, Packet, Service, inbox};

/// Connections that have not proven whose they are, at most.
const UNPROVEN_MAX: usize = 256;

/// How long they may take to.
const UNPROVEN: Duration = Duration::from_secs(5);

/// Bytes that wait to be written to one connection, at most. What is beyond is lost, as it is where a path is full.
const WAITING_BYTES_MAX: usize = 256 * 1024;

/// Writes that wait, at most.
const WRITES_MAX: usize = 256;

/// Who takes nothing for so long is gone.
const WRITE_MAX: Duration = Duration::from_secs(10);

/// After a connection could not be taken: the process may have no more files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Binds the listener.
pub(super) fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    const BACKLOG: i32 = 1_024;
    let socket = socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None)?;
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A connection, for the peer that writes to it. It ends with the last of these.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    writes: mpsc::Sender<Vec<u8>>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Its other end knows the peer's password.
    is_proven: AtomicBool,
    waiting: AtomicUsize,
}

impl Writer {
    pub(super) fn prove(&self) {
        self.state.is_proven.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.writes.is_closed()
    }

    /// Writes packets that are framed.
    pub(super) fn write(&self, packets: Vec<u8>) {
        let length = packets.len();
        let fits = self.state.waiting.fetch_add(length, Ordering::Relaxed) + length <= WAITING_BYTES_MAX;
        if !fits || self.writes.try_send(packets).is_err() {
            self.state.waiting.fetch_sub(length, Ordering::Relaxed);
            metrics::counter!("ticker_edge_rtc_sends_failed_total").increment(1);
        }
    }
}

/// Counts a connection for as long as it has proven nothing.
struct Unproven(Arc<AtomicUsize>);

impl Drop for Unproven {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes connections, for ever.
pub(super) async fn serve(service: Arc<Service>, listener: TcpListener) {
    let refused = metrics::counter!("ticker_edge_rtc_tcp_refused_total");
    let (mut connections, unproven) = (JoinSet::new(), Arc::<AtomicUsize>::default());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, from)) => {
                if unproven.fetch_add(1, Ordering::Relaxed) >= UNPROVEN_MAX {
                    unproven.fetch_sub(1, Ordering::Relaxed);
                    refused.increment(1);
                    continue;
                }
                let guard = Unproven(Arc::clone(&unproven));
                connections.spawn(connection(Arc::clone(&service), stream, from, guard));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection of WebRTC could not be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves a connection to its end.
async fn connection(service: Arc<Service>, mut stream: TcpStream, from: SocketAddr, unproven: Unproven) {
    let remote = SocketAddr::new(from.ip().to_canonical(), from.port());
    let Ok(local) = stream.local_addr() else { return };
    let path = Path { remote, local: Some(local.ip()) };
    // Its packets are written as they are to go.
    let _ = stream.set_nodelay(true);
    let (mut reader, mut writer) = stream.split();
    let (writes, mut written) = mpsc::channel::<Vec<u8>>(WRITES_MAX);
    let (weak, state) = (writes.downgrade(), Arc::<State>::default());
    // The peer has them from the first check on; without a peer the connection ends.
    let mut first = Some(Writer { writes, state: Arc::clone(&state) });
    let (mut frames, mut peer) = (Frames::default(), None::<inbox::Sender<Packet>>);
    let (mut unproven, deadline) = (Some(unproven), tokio::time::Instant::now() + UNPROVEN);
    let counted = |name: &'static str| metrics::counter!(name).increment(1);
    loop {
        if state.is_proven.load(Ordering::Relaxed) && unproven.take().is_some() {
            counted("ticker_edge_rtc_tcp_connections_total");
        }
        tokio::select! {
            read = reader.read_buf(frames.buffer()) => {
                if !read.is_ok_and(|count| count > 0) {
                    return;
                }
                let taken = frames.take(|bytes| {
                    let over = match stun::Packet::of(bytes) {
                        stun::Packet::Check { .. } => {
                            peer = service.addressee(remote, bytes).or_else(|| peer.take());
                            let again = || weak.upgrade().map(|writes| Writer { writes, state: Arc::clone(&state) });
                            Over::Tcp(first.take().or_else(again))
                        }
                        // Nobody but who knows the peer's password reaches its DTLS.
                        stun::Packet::Dtls if unproven.is_none() || state.is_proven.load(Ordering::Relaxed) => {
                            Over::Tcp(None)
                        }
                        _ => return counted("ticker_edge_rtc_packets_unknown_total"),
                    };
                    match &peer {
                        Some(peer) => {
                            if peer.try_send(Packet { path, over, bytes: Bytes::copy_from_slice(bytes) }).is_err() {
                                counted("ticker_edge_rtc_inbox_full_total");
                            }
                        }
                        None => counted("ticker_edge_rtc_packets_unknown_total"),
                    }
                });
                if taken.is_err() || peer.is_none() && frames.is_empty() {
                    return counted("ticker_edge_rtc_tcp_refused_total");
                }
            }
            packets = written.recv() => {
                // Its peer is gone, or would not have it.
                let Some(packets) = packets else { return };
                state.waiting.fetch_sub(packets.len(), Ordering::Relaxed);
                if !tokio::time::timeout(WRITE_MAX, writer.write_all(&packets)).await.is_ok_and(|r| r.is_ok()) {
                    return;
                }
            }
            () = tokio::time::sleep_until(deadline), if unproven.is_some() => {
                if !state.is_proven.load(Ordering::Relaxed) {
                    return counted("ticker_edge_rtc_tcp_refused_total");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_has_a_limit() {
        let (writes, mut written) = mpsc::channel(WRITES_MAX);
        let writer = Writer { writes, state: Arc::default() };
        (0..WRITES_MAX * 2).for_each(|_| writer.write(vec![0; 4_000]));
        let mut bytes = 0;
        while let Ok(write) = written.try_recv() {
            bytes += write.len();
        }
        assert!(bytes <= WAITING_BYTES_MAX && bytes > WAITING_BYTES_MAX - 4_000, "{bytes}");
        assert_eq!(writer.state.waiting.load(Ordering::Relaxed), bytes);
    }
}
