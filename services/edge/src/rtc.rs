//! WebRTC: the edge as a peer of browsers. One UDP socket serves all of them; an offer comes by HTTP and is answered there
//! (the form of WHEP), channel `ticker` carries the session, channel `ticker-live` what may be lost.
//!
//! Layout: [`socket`], packets; [`tcp`], packets where UDP is closed; [`peer`], one peer and its session; [`inbox`], what waits for it; [`http`], offers and what is said of them later;
//! [`admission`], how many; [`relay`], the servers that readers are told of. Here: who is there.

mod admission;
mod http;
mod inbox;
mod peer;
mod relay;
mod socket;
mod tcp;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use ticker_rtc::agent::{AgentError, Certificate};
use ticker_rtc::{str0m, stun};
use ticker_runtime::admin::BindError;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::EdgeError;
use crate::config::Config;
use crate::pace::Pace;
use admission::{Admission, Rates};
use relay::IceServers;
use socket::{Buffers, Path, Socket};

pub(crate) use http::{end, offer, options, restart};

/// What the address is called in errors: the flag that moves it.
pub(crate) const WHAT: &str = "rtc-listen";

/// Packets that wait for a peer, at most: more than a window of what readers send.
const INBOX_MAX: usize = 64;

/// Words to a peer from elsewhere, at most.
const CONTROLS_MAX: usize = 4;

/// Addresses that lead to one peer, at most; the oldest is forgotten.
const SOURCES_MAX: usize = 8;

/// New peers get a new certificate after so long.
const CERTIFICATE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Ports that are tried, where any will do.
const BIND_TRIES: u32 = 16;

/// After the socket could not be read.
const READ_PAUSE: Duration = Duration::from_millis(100);

/// A packet for a peer.
struct Packet {
    path: Path,
    over: Over,
    bytes: Bytes,
}

/// What a packet came by.
enum Over {
    Udp,
    /// With a check of ICE, the connection on which to answer.
    Tcp(Option<tcp::Writer>),
}

/// A word to a peer from elsewhere.
enum Control {
    /// It is to end.
    End,
    /// ICE begins anew: the other end's credentials and ours.
    Restart { remote: str0m::IceCreds, local: str0m::IceCreds, done: oneshot::Sender<()> },
}

/// Who is there.
#[derive(Default)]
struct Table {
    /// By the id that only its owner was told.
    peers: HashMap<String, Entry>,
    /// By our username fragment.
    fragments: HashMap<String, inbox::Sender<Packet>>,
    /// By addresses from which they have proven to be who they are.
    sources: HashMap<SocketAddr, inbox::Sender<Packet>>,
}

/// A peer, as others see it.
#[derive(Clone)]
struct Entry {
    control: inbox::Sender<Control>,
    /// Our username fragment: names the present run of ICE.
    fragment: String,
    /// The other end's.
    remote: String,
    /// The name of its medium.
    mid: String,
    /// Its end has been asked for.
    is_ending: bool,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    peers_max: usize,
    handshakes_max: usize,
    silence: Duration,
}

/// See the module.
pub(crate) struct Service {
    socket: Socket,
    /// Taken by whoever takes its connections.
    listener: Mutex<Option<TcpListener>>,
    /// Where peers are told to come.
    addresses: Vec<SocketAddr>,
    /// The same for TCP, if it is on.
    tcp: Vec<SocketAddr>,
    limits: Limits,
    ice_servers: IceServers,
    admission: Mutex<Admission>,
    certificate: Mutex<(Certificate, Instant)>,
    pace: Arc<Pace>,
    /// Peers that have been answered and are not connected yet.
    connecting: AtomicUsize,
    table: Mutex<Table>,
}

impl Service {
    /// Binds the socket, where one is configured.
    pub(crate) fn open(config: &Config, pace: Arc<Pace>) -> Result<Option<Arc<Self>>, EdgeError> {
        let Some(listen) = config.rtc_listen else { return Ok(None) };
        let secret = config.rtc_turn_secret.as_deref();
        let ice_servers = IceServers::new(&config.rtc_ice_servers, secret, config.rtc_turn_seconds).map_err(|url| {
            EdgeError::Rtc(format!("rtc_ice_servers: `{url}` is not the URL of a STUN or TURN server"))
        })?;
        let (socket, listener) = bind(listen, config.rtc_tcp).map_err(|why| BindError::new(listen, WHAT, why))?;
        let addresses = socket::addresses(&config.rtc_advertise, socket.local_addr())
            .map_err(|text| EdgeError::Rtc(format!("rtc_advertise: `{text}` is not an address")))?;
        let rates = Rates {
            per_address: config.rtc_offers_per_address_max,
            per_token: config.rtc_offers_per_token_max,
            all: config.rtc_offers_max,
        };
        let certificate = Certificate::generate(SystemTime::now()).map_err(|e| EdgeError::Rtc(e.to_string()))?;
        let now = Instant::now();
        Ok(Some(Arc::new(Self {
            socket,
            tcp: if listener.is_some() { addresses.clone() } else { Vec::new() },
            listener: Mutex::new(listener),
            addresses,
            limits: Limits {
                peers_max: config.rtc_peers_max,
                handshakes_max: config.rtc_handshakes_max,
                silence: Duration::from_millis(config.rtc_silence_ms.into()),
            },
            ice_servers,
            admission: Mutex::new(Admission::new(rates, now)),
            certificate: Mutex::new((certificate, now)),
            pace,
            connecting: AtomicUsize::new(0),
            table: Mutex::default(),
        })))
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.socket.local_addr()
    }

    /// Reads packets and gives them to those they are for, for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        match listener {
            Some(listener) => {
                tokio::join!(self.read(), tcp::serve(Arc::clone(&self), listener));
            }
            None => self.read().await,
        }
    }

    async fn read(&self) {
        let mut buffers = Buffers::new();
        let unknown = metrics::counter!("ticker_edge_rtc_packets_unknown_total");
        let full = metrics::counter!("ticker_edge_rtc_inbox_full_total");
        loop {
            let read = self.socket.read(&mut buffers, |path, bytes| {
                let Some(peer) = self.addressee(path.remote, bytes) else { return unknown.increment(1) };
                if peer.try_send(Packet { path, over: Over::Udp, bytes: Bytes::copy_from_slice(bytes) }).is_err() {
                    full.increment(1);
                }
            });
            if let Err(error) = read.await {
                tracing::warn!(%error, "the socket of WebRTC could not be read");
                tokio::time::sleep(READ_PAUSE).await;
            }
        }
    }

    fn addressee(&self, from: SocketAddr, bytes: &[u8]) -> Option<inbox::Sender<Packet>> {
        let table = self.table();
        match stun::Packet::of(bytes) {
            stun::Packet::Check { to, .. } => table.fragments.get(to).cloned(),
            stun::Packet::Dtls => table.sources.get(&from).cloned(),
            stun::Packet::Stun | stun::Packet::Other => None,
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which of our addresses a packet came to, as peers were told them: behind a NAT none is the socket's own.
    fn destination(&self, path: Path) -> SocketAddr {
        let local = path.local.map(|ip| ip.to_canonical());
        let same_family = |a: &&SocketAddr| a.is_ipv4() == path.remote.is_ipv4();
        let exact = self.addresses.iter().find(|a| Some(a.ip()) == local);
        *exact.or_else(|| self.addresses.iter().find(same_family)).unwrap_or(&self.addresses[0])
    }

    /// The certificate for a new peer.
    fn certificate(&self, now: Instant) -> Result<Certificate, AgentError> {
        let mut held = self.certificate.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(held.1) >= CERTIFICATE_MAX {
            *held = (Certificate::generate(SystemTime::now())?, now);
        }
        Ok(held.0.clone())
    }
}

/// The socket, and the listener beside it: of the same number.
fn bind(listen: SocketAddr, tcp: bool) -> std::io::Result<(Socket, Option<TcpListener>)> {
    let mut tries = if listen.port() == 0 { BIND_TRIES } else { 1 };
    loop {
        let socket = Socket::bind(listen)?;
        if !tcp {
            return Ok((socket, None));
        }
        tries -= 1;
        match tcp::bind(socket.local_addr()) {
            Ok(listener) => return Ok((socket, Some(listener))),
            // A number that is free for the one may be taken for the other.
            Err(error) if tries == 0 => return Err(error),
            Err(_) => {}
        }
    }
}

/// A peer's place in the table, for as long as it lives.
struct Registration {
    service: Arc<Service>,
    id: String,
    fragment: String,
    packets: inbox::Sender<Packet>,
    sources: Vec<SocketAddr>,
    is_connecting: bool,
}

impl Registration {
    fn new(service: &Arc<Service>, id: &str, entry: Entry, packets: inbox::Sender<Packet>) -> Self {
        let fragment = entry.fragment.clone();
        let mut table = service.table();
        table.fragments.insert(fragment.clone(), packets.clone());
        table.peers.insert(id.to_owned(), entry);
        drop(table);
        service.connecting.fetch_add(1, Ordering::Relaxed);
        metrics::gauge!("ticker_edge_rtc_peers").increment(1);
        let (service, id) = (Arc::clone(service), id.to_owned());
        Self { service, id, fragment, packets, sources: Vec::new(), is_connecting: true }
    }

    /// Its handshakes are over.
    fn connected(&mut self) {
        if std::mem::take(&mut self.is_connecting) {
            self.service.connecting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// It has proven to be at that address. Whoever proved it last has it: addresses are used again.
    fn bind(&mut self, source: SocketAddr) {
        let mut table = self.service.table();
        table.sources.insert(source, self.packets.clone());
        if self.sources.contains(&source) {
            return;
        }
        if self.sources.len() == SOURCES_MAX {
            release(&mut table, self.sources.remove(0), &self.packets);
        }
        self.sources.push(source);
    }

    /// ICE begins anew, under another name.
    fn rename(&mut self, fragment: &str, remote: &str) {
        let mut table = self.service.table();
        table.fragments.remove(&self.fragment);
        table.fragments.insert(fragment.to_owned(), self.packets.clone());
        if let Some(entry) = table.peers.get_mut(&self.id) {
            (entry.fragment, entry.remote) = (fragment.to_owned(), remote.to_owned());
        }
        self.fragment = fragment.to_owned();
    }
}

/// Takes an address from a peer, if it still has it.
fn release(table: &mut Table, source: SocketAddr, packets: &inbox::Sender<Packet>) {
    if table.sources.get(&source).is_some_and(|p| p.same(packets)) {
        table.sources.remove(&source);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut table = self.service.table();
        table.peers.remove(&self.id);
        table.fragments.remove(&self.fragment);
        self.sources.iter().for_each(|source| release(&mut table, *source, &self.packets));
        drop(table);
        self.connected();
        metrics::gauge!("ticker_edge_rtc_peers").decrement(1);
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
