//! A valve between a reader and the service: it stops the bytes that go to the reader, counts them, loses some of the packets,
//! or cuts the connection after some bytes, wherever in a message that may be.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ticker_client::Options;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::watch;

use crate::rig::Stage;

mod packets;

/// Small, so that the service notices soon that nothing is taken any more.
const RECEIVE_BYTES: u32 = 32_768;

/// See the module.
pub(crate) struct Valve {
    /// Where readers connect, as a URL.
    pub(crate) url: String,
    shut: watch::Sender<bool>,
    /// Connections of a smaller number are cut.
    cut: watch::Sender<u64>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Bytes that went to readers.
    bytes: AtomicU64,
    /// Connections so far.
    connections: AtomicU64,
    /// After how many bytes new connections are cut, as long as there is something here.
    budgets: Mutex<Vec<usize>>,
    /// One of so many packets to readers is lost; none where this is 0.
    loses: AtomicU64,
    /// Packets that were lost so.
    lost: AtomicU64,
}

impl Valve {
    /// A valve before the service of a trial.
    pub(crate) async fn before(stage: &Stage) -> Self {
        let url = stage.url();
        let (scheme, service) = url.split_once("://").expect("a URL");
        let service: SocketAddr = service.parse().expect("an address");
        let (shut, is_shut) = watch::channel(false);
        let (cut, is_cut) = watch::channel(0);
        let shared = Arc::<Shared>::default();
        let address = if stage.transport.is_quic() {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
            let address = socket.local_addr().expect("bound");
            tokio::spawn(packets::pass(socket, service, is_shut, is_cut, Arc::clone(&shared)));
            address
        } else {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
            let address = listener.local_addr().expect("bound");
            tokio::spawn(accept(listener, service, is_shut, is_cut, Arc::clone(&shared)));
            address
        };
        Self { url: format!("{scheme}://{address}"), shut, cut, shared }
    }

    /// How to reach the service of a trial through it.
    pub(crate) fn options(&self, stage: &Stage) -> Options {
        let url = || self.url.clone();
        match stage.transport.is_quic() {
            true => Options { quic: url(), ..stage.options() },
            false => Options { http: url(), grpc: url(), ..stage.options() },
        }
    }

    /// Nothing more goes to the readers.
    pub(crate) fn shut(&self) {
        self.shut.send_replace(true);
    }

    /// What was held back goes on.
    pub(crate) fn open(&self) {
        self.shut.send_replace(false);
    }

    /// Of the packets of QUIC that go to the readers, one of so many is lost from here on.
    pub(crate) fn lose_one_of(&self, packets: u64) {
        self.shared.loses.store(packets, Ordering::SeqCst);
    }

    /// How many were lost so.
    pub(crate) fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::SeqCst)
    }

    /// Ends all connections that there are.
    pub(crate) fn cut(&self) {
        self.cut.send_replace(self.shared.connections.load(Ordering::SeqCst));
    }

    /// Each of the next connections ends after as many bytes, the last of these first.
    pub(crate) fn cut_after(&self, bytes: Vec<usize>) {
        *self.shared.budgets.lock().expect("nobody panics with it") = bytes;
    }

    /// Connections that are still to be cut so.
    pub(crate) fn cuts_left(&self) -> usize {
        self.shared.budgets.lock().expect("nobody panics with it").len()
    }

    /// Bytes that went to readers.
    pub(crate) fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::SeqCst)
    }
}

async fn accept(
    listener: TcpListener,
    service: SocketAddr,
    is_shut: watch::Receiver<bool>,
    is_cut: watch::Receiver<u64>,
    shared: Arc<Shared>,
) {
    while let Ok((reader, _)) = listener.accept().await {
        let number = shared.connections.fetch_add(1, Ordering::SeqCst);
        let pass = pass(reader, service, is_shut.clone(), Arc::clone(&shared));
        let mut is_cut = is_cut.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = pass => {}
                _ = is_cut.wait_for(|cut| *cut > number) => {}
            }
        });
    }
}

/// Passes bytes on until an end is gone, or the budget is used up.
async fn pass(
    reader: TcpStream,
    service: SocketAddr,
    mut is_shut: watch::Receiver<bool>,
    shared: Arc<Shared>,
) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(RECEIVE_BYTES)?;
    let service = socket.connect(service).await?;
    service.set_nodelay(true)?;
    reader.set_nodelay(true)?;
    let mut left = shared.budgets.lock().expect("nobody panics with it").pop().unwrap_or(usize::MAX);
    let (mut from_reader, mut to_reader) = reader.into_split();
    let (mut from_service, mut to_service) = service.into_split();
    let up = async {
        tokio::io::copy(&mut from_reader, &mut to_service).await?;
        to_service.shutdown().await?;
        // The other direction says when it is over.
        std::future::pending::<std::io::Result<()>>().await
    };
    let down = async {
        let mut buffer = [0; 2_048];
        while left > 0 {
            let most = left.min(buffer.len());
            // What is read while it is shut waits here.
            let _ = is_shut.wait_for(|shut| !*shut).await;
            let read = from_service.read(&mut buffer[..most]).await?;
            if read == 0 {
                break;
            }
            let _ = is_shut.wait_for(|shut| !*shut).await;
            to_reader.write_all(&buffer[..read]).await?;
            shared.bytes.fetch_add(read as u64, Ordering::SeqCst);
            left -= read;
        }
        Ok(())
    };
    tokio::select! {
        ended = up => ended,
        ended = down => ended,
    }
}
