//! DTLS by dimpl, with ring, as str0m calls it.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use dimpl::crypto::CryptoProvider;
use str0m::config::DtlsVersion;
use str0m::crypto::CryptoError;
use str0m::crypto::dtls::{DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, ProtocolVersion};

use super::keys::{GROUPS, Keys};
use super::suites::{Hashes, SUITES, SUITES_13};
use super::{Ring, der};
use crate::agent::MTU;
use crate::association::Opening;
use crate::flight::Flight;

/// A flight that is not answered is sent again after so long, then after twice as much, and so on. RFC 6347 §4.2.4.1
/// recommends a second; but the path is one that ICE has just found to work, and what is lost on it should be noticed
/// before a person notices. Longer than most ways there and back, because dimpl is slow to take flights that come twice.
const FLIGHT_FIRST: Duration = Duration::from_millis(400);

/// How often: more than the handshake's time allows, since dimpl counts what the other end asks for as well, and gives up.
const FLIGHT_RETRIES: usize = 40;

/// How long a handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Packets of our own that are given to dimpl at once.
const REPEATS_AT_ONCE: usize = 4;

/// Records of one connection that have been read and not been asked for, at most; with more it ends.
pub const RECORDS_MAX: usize = 128;

/// What every connection has in common. dimpl proves a provider, with test vectors, whenever it makes one of these.
fn config() -> Result<Arc<dimpl::Config>, CryptoError> {
    static CONFIG: OnceLock<Result<Arc<dimpl::Config>, String>> = OnceLock::new();
    let made = CONFIG.get_or_init(|| {
        let provider = CryptoProvider {
            kx_groups: GROUPS,
            signature_verification: &Keys,
            key_provider: &Keys,
            secure_random: &Keys,
            hash_provider: &Hashes,
            hmac_provider: &Hashes,
            cipher_suites: SUITES,
            dtls13_cipher_suites: SUITES_13,
        };
        dimpl::Config::builder()
            .with_crypto_provider(provider)
            // ICE has shown that the other end is where it says.
            .use_server_cookie(false)
            .mtu(MTU)
            .max_queue_rx(RECORDS_MAX)
            .flight_start_rto(FLIGHT_FIRST)
            .flight_retries(FLIGHT_RETRIES)
            .handshake_timeout(HANDSHAKE_MAX)
            .build()
            .map(Arc::new)
            .map_err(|e| e.to_string())
    });
    made.clone().map_err(CryptoError::Other)
}

impl DtlsProvider for Ring {
    /// Certificates are made by [`crate::agent::certificate`].
    fn generate_certificate(&self) -> Option<DtlsCert> {
        None
    }

    fn new_dtls(
        &self,
        cert: &DtlsCert,
        now: Instant,
        _version: DtlsVersion,
        _mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        if der::public_key(&cert.certificate).is_none() {
            return Err(CryptoError::Other("the certificate is not one of ours".to_owned()));
        }
        let dtls = dimpl::Dtls::new_12(config()?, cert.clone(), now);
        Ok(Box::new(Dtls { dtls, now, is_gone: false, opening: Opening::new(), flight: Flight::default() }))
    }
}

struct Dtls {
    dtls: dimpl::Dtls,
    now: Instant,
    /// The other end has said that it closes.
    is_gone: bool,
    /// How the association of SCTP begins, which is carried here.
    opening: Opening,
    /// What was said last in the handshake.
    flight: Flight,
}

impl Dtls {
    /// Sends what the beginning of the association asks for, some of it. dimpl takes ten packets,
    /// and with one more from str0m the connection would be over. Returns whether there was something.
    fn repeat(&mut self) -> bool {
        let mut sent = false;
        for _ in 0..REPEATS_AT_ONCE {
            let Some(packet) = self.opening.next_to_peer() else { break };
            // What cannot be sent now is sent again later.
            let _ = self.dtls.send_application_data(&packet);
            sent = true;
        }
        sent
    }
}

impl std::fmt::Debug for Dtls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dtls")
    }
}

impl DtlsInstance for Dtls {
    fn set_active(&mut self, active: bool) {
        self.dtls.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.flight.incoming(packet);
        self.dtls.handle_packet(packet)
    }

    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        // To be polled, and told the time, again at once.
        let again = DtlsOutput::Timeout(self.now);
        if let Some(packet) = self.opening.next_to_self() {
            let Some(room) = buf.get_mut(..packet.len()) else { return again };
            room.copy_from_slice(&packet);
            return DtlsOutput::ApplicationData(room);
        }
        if let Some(packet) = self.flight.next() {
            let Some(room) = buf.get_mut(..packet.len()) else { return again };
            room.copy_from_slice(packet);
            return DtlsOutput::Packet(room);
        }
        match self.dtls.poll_output(buf) {
            // Keys for media, of which there is none.
            DtlsOutput::KeyingMaterial(..) => again,
            DtlsOutput::CloseNotify => {
                self.is_gone = true;
                DtlsOutput::CloseNotify
            }
            DtlsOutput::Connected => {
                self.opening.connected();
                DtlsOutput::Connected
            }
            DtlsOutput::ApplicationData(data) => {
                self.flight.over();
                if self.opening.incoming(data) { DtlsOutput::ApplicationData(data) } else { again }
            }
            DtlsOutput::Packet(packet) => {
                self.flight.outgoing(packet, self.now);
                DtlsOutput::Packet(packet)
            }
            // All that dimpl had has gone out.
            DtlsOutput::Timeout(_) if self.repeat() => again,
            DtlsOutput::Timeout(at) => {
                self.flight.said(self.now);
                let (opening, flight) = (self.opening.timeout(self.now), self.flight.timeout(self.now));
                DtlsOutput::Timeout([opening, flight].into_iter().flatten().fold(at, Instant::min))
            }
            output => output,
        }
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.now = now;
        self.opening.handle_timeout(now);
        self.flight.handle_timeout(now);
        self.dtls.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        if !self.opening.outgoing(data) {
            return Ok(data.len());
        }
        match self.dtls.send_application_data(data) {
            // The other end has closed, which str0m learns only when it has asked for all output.
            Err(DtlsImplError::ConnectionClosed) => Ok(data.len()),
            accepted => accepted,
        }
    }

    fn is_active(&self) -> bool {
        self.dtls.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.dtls.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.dtls.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.is_gone || self.dtls.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        // str0m answers the other end's close with ours, which dimpl takes for an error, since it has done so itself.
        if self.is_gone { Ok(()) } else { self.dtls.close() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_provider_proves_itself() {
        config().expect("dimpl's test vectors pass");
    }
}
