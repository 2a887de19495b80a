//! Several UDP sockets on one port, and which of them a QUIC packet comes to.
//!
//! One socket has one task that reads it. Several share the port (`SO_REUSEPORT`), but the kernel would choose by the
//! client's address, and a client that moves to another network would come to a socket that knows nothing of it. So our
//! connection ids say whose they are, and a program in the kernel reads that: the first byte of the destination's connection
//! id, modulo the number of sockets. A client chooses its first id at random and goes wherever that leads; whichever endpoint
//! answers gives it ids that lead there again.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use quinn::{ConnectionId, ConnectionIdGenerator};
use rustls::crypto::{SecureRandom, ring};

/// Sockets of one port, at most: a byte tells them apart.
pub(crate) const ENDPOINTS_MAX: usize = 64;

/// Length of our connection ids, in bytes.
const ID_BYTES: usize = 8;

/// Binds so many sockets to an address that nobody has. Where the kernel does not steer, there is one.
pub(crate) fn bind(addr: SocketAddr, count: usize) -> io::Result<Vec<UdpSocket>> {
    // With SO_REUSEPORT a second program on the same port would share it in silence: look first without it.
    let alone = UdpSocket::bind(addr)?;
    if count <= 1 {
        return Ok(vec![alone]);
    }
    let addr = alone.local_addr()?;
    drop(alone);
    let sockets: Vec<UdpSocket> = (0..count).map(|_| shared(addr)).collect::<io::Result<_>>()?;
    match steer(&sockets) {
        Ok(()) => Ok(sockets),
        Err(error) => {
            tracing::warn!(%error, "one QUIC endpoint instead of {count}: this system does not steer packets");
            drop(sockets);
            Ok(vec![UdpSocket::bind(addr)?])
        }
    }
}

fn shared(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::DGRAM, None)?;
    socket.set_reuse_port(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// Has the kernel give each packet to the socket whose turn, in the order of binding, its connection id names.
#[cfg(target_os = "linux")]
fn steer(sockets: &[UdpSocket]) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;

    let Some(first) = sockets.first() else { return Ok(()) };
    let mut program = program(sockets.len() as u32);
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which lives until the call has returned; its length is its own.
    #[allow(
        unsafe_code,
        reason = "no crate that is here has a safe call for this option, and without it migration is lost"
    )]
    let result = unsafe {
        libc::setsockopt(
            first.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            std::ptr::from_ref(&filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
fn steer(_: &[UdpSocket]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A classic BPF program over a UDP payload. In a packet with a long header (RFC 9000 §17.2) the connection id begins after
/// flags, version and length; in one with a short header (§17.3) after the flags. A packet too short for that ends the
/// program with 0, the first socket.
#[cfg(target_os = "linux")]
fn program(sockets: u32) -> [libc::sock_filter; 7] {
    use libc::{BPF_A, BPF_ABS, BPF_ALU, BPF_B, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_MOD, BPF_RET};

    let op = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    [
        op(BPF_LD | BPF_B | BPF_ABS, 0, 0, 0),
        op(BPF_JMP | BPF_JSET | BPF_K, 0, 2, 0x80),
        op(BPF_LD | BPF_B | BPF_ABS, 0, 0, 6),
        op(BPF_JMP | libc::BPF_JA, 0, 0, 1),
        op(BPF_LD | BPF_B | BPF_ABS, 0, 0, 1),
        op(BPF_ALU | BPF_MOD | BPF_K, 0, 0, sockets),
        op(BPF_RET | BPF_A, 0, 0, 0),
    ]
}

/// Connection ids that lead to one of several sockets. All but the first byte is random, and so is that but for its
/// remainder: nobody outside can tell from two of them that they are one connection's.
#[derive(Debug)]
pub(crate) struct SteeredIds {
    index: u8,
    count: u8,
    random: &'static dyn SecureRandom,
}

impl SteeredIds {
    /// For socket `index` of `count`.
    pub(crate) fn new(index: usize, count: usize) -> Self {
        let byte = |n: usize| u8::try_from(n).expect("there are few endpoints");
        Self { index: byte(index), count: byte(count.max(1)), random: ring::default_provider().secure_random }
    }
}

impl ConnectionIdGenerator for SteeredIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut bytes = [0; ID_BYTES];
        self.random.fill(&mut bytes).expect("the system has random bytes");
        // The largest multiple that still fits, so that each value of the byte is as likely.
        let multiples = u8::MAX / self.count;
        bytes[0] = bytes[0] % multiples * self.count + self.index;
        ConnectionId::new(&bytes)
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

/// The shards of the sessions over one of `count` endpoints: each has some of its own, so an id that leads to the endpoint
/// leads to them. Where there are fewer shards than endpoints, some share one.
pub(crate) fn shards_of(index: usize, count: usize, shards: usize) -> impl Iterator<Item = usize> {
    (index % shards.max(1)..shards).step_by(count.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    #[test]
    fn ids_name_their_endpoint_and_nothing_else() {
        for count in [1, 2, 3, 7, ENDPOINTS_MAX] {
            for index in [0, count / 2, count - 1] {
                let mut ids = SteeredIds::new(index, count);
                let all: Vec<ConnectionId> = (0..200).map(|_| ids.generate_cid()).collect();
                assert!(all.iter().all(|id| id.len() == ids.cid_len() && usize::from(id[0]) % count == index));
                let mut rest: Vec<&[u8]> = all.iter().map(|id| &id[1..]).collect();
                rest.sort_unstable();
                rest.dedup();
                assert_eq!(rest.len(), all.len(), "random");
            }
        }
    }

    #[test]
    fn each_endpoint_has_shards_of_its_own() {
        let all = |count, shards| -> Vec<Vec<usize>> {
            (0..count).map(|index| shards_of(index, count, shards).collect()).collect()
        };
        assert_eq!(all(1, 3), [[0, 1, 2]]);
        assert_eq!(all(2, 5), [vec![0, 2, 4], vec![1, 3]]);
        assert_eq!(all(3, 3), [[0], [1], [2]]);
        assert_eq!(all(3, 2), [[0], [1], [0]]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn packets_come_to_the_socket_that_their_connection_id_names() {
        const COUNT: usize = 3;
        let sockets = bind((Ipv4Addr::LOCALHOST, 0).into(), COUNT).expect("a free port");
        if sockets.len() == 1 {
            // This system does not steer.
            return;
        }
        let addr = sockets[0].local_addr().expect("bound");
        for socket in &sockets {
            socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
        }
        for byte in 0..=u8::MAX {
            let short = [0x40, byte, 1, 2, 3, 4, 5, 6, 7, 8];
            let long = [0xc0, 0, 0, 0, 1, 8, byte, 1, 2, 3, 4, 5, 6, 7];
            for packet in [&short[..], &long] {
                // From another port each time, as a client that moves.
                let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
                client.send_to(packet, addr).expect("it is sent");
                let mut got = [0; 64];
                let socket = &sockets[usize::from(byte) % COUNT];
                let (size, from) = socket.recv_from(&mut got).expect("it comes to this one");
                assert_eq!((&got[..size], from), (packet, client.local_addr().expect("bound")));
            }
        }
        assert!(UdpSocket::bind(addr).is_err(), "nobody else shares the port");
        assert!(bind(addr, COUNT).is_err(), "not even another edge");
    }
}
