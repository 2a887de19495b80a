//! The one UDP socket of all peers: packets that came together are read together, packets that go together are sent
//! together (GRO and GSO, where the kernel has them).

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use tokio::io::Interest;

/// Reads of the kernel that one call makes, at most.
const READS: usize = 8;

/// Bytes of one read: packets of one sender, put together by the kernel.
const READ_BYTES: usize = 64 * 1024;

/// Bytes that go in one call, at most (a length of UDP has 16 bits).
const WRITE_BYTES_MAX: usize = 60_000;

/// What the kernel keeps for us in each direction, if it may: a burst to a thousand peers.
const KERNEL_BYTES: usize = 4 << 20;

/// A way through the network: another end's address, and ours that it uses (where the socket has several).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Path {
    pub(super) remote: SocketAddr,
    pub(super) local: Option<IpAddr>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: tokio::net::UdpSocket,
    state: UdpSocketState,
    addr: SocketAddr,
}

/// Where packets are read to.
pub(super) struct Buffers {
    bytes: Vec<u8>,
    metas: [RecvMeta; READS],
}

impl Buffers {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; READS * READ_BYTES], metas: [RecvMeta::default(); READS] }
    }
}

impl Socket {
    /// Binds it. `[::]` takes IPv4 too.
    pub(crate) fn bind(addr: SocketAddr) -> io::Result<Self> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::DGRAM, None)?;
        if addr.is_ipv6() {
            socket.set_only_v6(!addr.ip().is_unspecified())?;
        }
        // The kernel gives what its limits allow.
        let _ = socket.set_recv_buffer_size(KERNEL_BYTES);
        let _ = socket.set_send_buffer_size(KERNEL_BYTES);
        socket.bind(&addr.into())?;
        let state = UdpSocketState::new((&socket).into())?;
        let socket = tokio::net::UdpSocket::from_std(UdpSocket::from(socket))?;
        Ok(Self { addr: socket.local_addr()?, socket, state })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Reads what there is, and gives each packet to `each`.
    pub(super) async fn read(&self, buffers: &mut Buffers, mut each: impl FnMut(Path, &[u8])) -> io::Result<()> {
        let Buffers { bytes, metas } = buffers;
        let read = self.socket.async_io(Interest::READABLE, || {
            let mut slices = bytes.chunks_exact_mut(READ_BYTES).map(IoSliceMut::new);
            let mut slices: [IoSliceMut<'_>; READS] =
                std::array::from_fn(|_| slices.next().expect("there are as many buffers as reads"));
            self.state.recv((&self.socket).into(), &mut slices, metas)
        });
        let count = read.await?;
        for (meta, bytes) in metas.iter().zip(bytes.chunks_exact(READ_BYTES)).take(count) {
            let remote = SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port());
            let path = Path { remote, local: meta.dst_ip.filter(|_| self.addr.ip().is_unspecified()) };
            bytes[..meta.len].chunks(meta.stride.max(1)).for_each(|packet| each(path, packet));
        }
        Ok(())
    }

    /// Sends `contents`: packets of `size` bytes, the last of which may be smaller. What the kernel has no room for is lost,
    /// as it may be anywhere on the way.
    fn send(&self, path: Path, contents: &[u8], size: usize) {
        let destination = match path.remote {
            SocketAddr::V4(v4) if self.addr.is_ipv6() => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
            other => other,
        };
        let segment_size = (contents.len() > size).then_some(size);
        let transmit = Transmit { destination, ecn: None, contents, segment_size, src_ip: path.local };
        if let Err(error) = self.state.try_send((&self.socket).into(), &transmit) {
            metrics::counter!("ticker_edge_rtc_sends_failed_total").increment(1);
            tracing::debug!(%error, "packets to a peer could not be sent");
        }
    }
}

/// Packets of one peer that wait until all that is to be said now has been said.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    /// Where each goes, and how long it is.
    packets: Vec<(SocketAddr, usize)>,
}

impl Outgoing {
    pub(super) fn push(&mut self, to: SocketAddr, packet: Vec<u8>) {
        self.packets.push((to, packet.len()));
        if self.bytes.is_empty() {
            // Mostly it is the only one.
            self.bytes = packet;
        } else {
            self.bytes.extend_from_slice(&packet);
        }
    }

    /// Sends all of it, and keeps no memory.
    pub(super) fn send(&mut self, socket: &Socket, local: Option<IpAddr>) {
        let Self { bytes, packets } = std::mem::take(self);
        let (mut rest, mut at) = (&bytes[..], 0);
        while at < packets.len() {
            let (remote, size) = packets[at];
            let count = together(&packets[at..], socket.state.max_gso_segments());
            let length = packets[at..at + count].iter().map(|(_, n)| n).sum();
            let (now, later) = rest.split_at(length);
            socket.send(Path { remote, local }, now, size);
            (rest, at) = (later, at + count);
        }
    }
}

/// How many of these packets go in one call: to one place, of one size but for the last, which may be smaller.
fn together(packets: &[(SocketAddr, usize)], segments_max: usize) -> usize {
    let Some(&(to, size)) = packets.first() else { return 0 };
    let most = segments_max.min(WRITE_BYTES_MAX / size.max(1)).max(1);
    let same = packets.iter().take(most).take_while(|p| **p == (to, size)).count();
    let smaller = same < most && packets.get(same).is_some_and(|(next, n)| *next == to && *n < size);
    same + usize::from(smaller)
}

/// Where peers are told to come: what is configured, or else where the socket can be reached, as far as can be told.
pub(crate) fn addresses(advertised: &[String], bound: SocketAddr) -> Result<Vec<SocketAddr>, String> {
    let read = |text: &String| {
        let address = text.parse().or_else(|_| text.parse().map(|ip| SocketAddr::new(ip, bound.port())));
        address.map_err(|_| text.clone())
    };
    let told: Vec<SocketAddr> = advertised.iter().map(read).collect::<Result<_, _>>()?;
    if !told.is_empty() {
        return Ok(told);
    }
    if !bound.ip().is_unspecified() {
        return Ok(vec![bound]);
    }
    // Addresses for documentation: nothing is sent there, the kernel only says by which of ours it would be.
    let elsewhere: &[SocketAddr] =
        &[(Ipv4Addr::new(203, 0, 113, 1), 9).into(), (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9).into()];
    let families = if bound.is_ipv6() { elsewhere } else { &elsewhere[..1] };
    let mut found: Vec<SocketAddr> =
        families.iter().filter_map(|to| route(*to)).map(|ip| SocketAddr::new(ip, bound.port())).collect();
    if found.is_empty() {
        found.push((Ipv4Addr::LOCALHOST, bound.port()).into());
    }
    Ok(found)
}

fn route(to: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr =
        if to.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(to).ok()?;
    socket.local_addr().ok().map(|a| a.ip()).filter(|ip| !ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_one_size_go_together() {
        let (a, b): (SocketAddr, SocketAddr) = (([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into());
        assert_eq!(together(&[(a, 9), (a, 9), (a, 4), (a, 9)], 64), 3);
        assert_eq!(together(&[(a, 4), (a, 9)], 64), 1);
        assert_eq!(together(&[(a, 9), (b, 9)], 64), 1);
        assert_eq!(together(&[(a, 9), (a, 9), (a, 9)], 2), 2);
        assert_eq!(together(&[(a, 9), (a, 9), (a, 9)], 1), 1);
        assert_eq!(together(&[(a, 1_200); 100], 64), 50);
        assert_eq!(together(&[], 64), 0);
    }

    #[test]
    fn addresses_are_those_that_are_told() {
        let bound: SocketAddr = ([127, 0, 0, 1], 8444).into();
        assert_eq!(addresses(&[], bound), Ok(vec![bound]));
        let told = ["203.0.113.7".to_owned(), "[2001:db8::7]:30444".to_owned()];
        let expected = ["203.0.113.7:8444", "[2001:db8::7]:30444"].map(|a| a.parse().expect("an address"));
        assert_eq!(addresses(&told, bound), Ok(expected.to_vec()));
        assert_eq!(addresses(&["edge.example".to_owned()], bound), Err("edge.example".to_owned()));
        let anywhere = addresses(&[], ([0, 0, 0, 0], 8444).into()).expect("some address");
        assert!(anywhere.iter().all(|a| !a.ip().is_unspecified() && a.port() == 8444), "{anywhere:?}");
    }
}
