//! The valve for QUIC: packets are held back by not passing them on, and a connection is cut by passing nothing of it on in
//! either direction.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::net::UdpSocket;
use tokio::sync::watch;

use super::Shared;

/// More than any packet has.
const PACKET_BYTES: usize = 65_536;

/// Passes packets between the readers who send to `socket` and the service, each by a socket of its own towards the service,
/// so that it tells them apart as they are.
pub(super) async fn pass(
    socket: UdpSocket,
    service: SocketAddr,
    is_shut: watch::Receiver<bool>,
    is_cut: watch::Receiver<u64>,
    shared: Arc<Shared>,
) {
    let socket = Arc::new(socket);
    let mut ways: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut buffer = vec![0; PACKET_BYTES];
    loop {
        let Ok((size, reader)) = socket.recv_from(&mut buffer).await else { continue };
        let way = match ways.get(&reader) {
            Some(way) => Arc::clone(way),
            None => {
                let way = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port"));
                way.connect(service).await.expect("an address");
                let back = Back {
                    number: shared.connections.fetch_add(1, Ordering::SeqCst),
                    left: shared.budgets.lock().expect("nobody panics with it").pop().unwrap_or(usize::MAX),
                    way: Arc::clone(&way),
                    socket: Arc::clone(&socket),
                    reader,
                };
                tokio::spawn(back.pass(is_shut.clone(), is_cut.clone(), Arc::clone(&shared)));
                ways.insert(reader, Arc::clone(&way));
                way
            }
        };
        // Once it is cut nobody listens at the other end: what is sent is lost, as it should be.
        if Arc::strong_count(&way) > 2 {
            let _ = way.send(&buffer[..size]).await;
        }
    }
}

/// The way back to one reader.
struct Back {
    number: u64,
    left: usize,
    way: Arc<UdpSocket>,
    socket: Arc<UdpSocket>,
    reader: SocketAddr,
}

impl Back {
    async fn pass(mut self, is_shut: watch::Receiver<bool>, mut is_cut: watch::Receiver<u64>, shared: Arc<Shared>) {
        let mut buffer = vec![0; PACKET_BYTES];
        // Not every so many-th: what comes in a rhythm might lose each beat of it.
        let mut rng = fastrand::Rng::with_seed(self.number);
        loop {
            let received = tokio::select! {
                received = self.way.recv(&mut buffer) => received,
                _ = is_cut.wait_for(|cut| *cut > self.number) => return,
            };
            let Ok(size) = received else { continue };
            if *is_shut.borrow() {
                continue;
            }
            let loses = shared.loses.load(Ordering::SeqCst);
            if loses > 0 && rng.u64(0..loses) == 0 {
                shared.lost.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            if self.left < size {
                return;
            }
            self.left -= size;
            shared.bytes.fetch_add(size as u64, Ordering::SeqCst);
            let _ = self.socket.send_to(&buffer[..size], self.reader).await;
        }
    }
}
