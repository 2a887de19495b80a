//! TLS for quinn. Its own session keeps all of rustls' connection as long as there is a connection of QUIC; here it goes with
//! the handshake, since then only the secrets of the next keys are needed.

use std::any::Any;
use std::io;
use std::sync::Arc;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::crypto::{self, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, UnsupportedVersion};
use quinn::{ConnectionId, Side, TransportErrorCode};
use quinn_proto::TransportError;
use quinn_proto::transport_parameters::TransportParameters;
use rustls::AlertDescription;
use rustls::quic::{KeyChange, PacketKeySet, Secrets, ServerConnection, Version};

use super::ALPN;

/// What every connection begins with.
pub(super) struct Config {
    tls: Arc<rustls::ServerConfig>,
    /// For what comes before there is a connection.
    initial: QuicServerConfig,
}

impl Config {
    pub(super) fn new(tls: rustls::ServerConfig) -> io::Result<Self> {
        let tls = Arc::new(tls);
        let initial = QuicServerConfig::try_from(Arc::clone(&tls)).map_err(io::Error::other)?;
        Ok(Self { tls, initial })
    }
}

impl crypto::ServerConfig for Config {
    fn initial_keys(&self, version: u32, dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.initial.initial_keys(version, dst_cid)
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.initial.retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, params: &TransportParameters) -> Box<dyn crypto::Session> {
        let mut ours = Vec::new();
        params.write(&mut ours);
        let tls = ServerConnection::new(Arc::clone(&self.tls), tls_version(version), ours)
            .expect("TLS 1.3 is allowed, and early data as QUIC wants it: `tls::server_config`");
        Box::new(Session { config: self, version, tls: Some(Box::new(tls)), protocol: None, next: None })
    }
}

/// How TLS is used in a version of QUIC (RFC 9001 §5; its drafts from 29 to 32 have another salt).
fn tls_version(version: u32) -> Version {
    match version {
        0xff00_001d..=0xff00_0020 => Version::V1Draft,
        // `initial_keys` has refused those that there are not.
        _ => Version::V1,
    }
}

/// What was negotiated: see [`quinn::Connection::handshake_data`].
pub(super) struct Protocol(pub(super) Option<&'static [u8]>);

/// TLS for one connection.
struct Session {
    config: Arc<Config>,
    version: u32,
    /// Until the handshake is over.
    tls: Option<Box<ServerConnection>>,
    /// Once the client's first message is read.
    protocol: Option<Option<&'static [u8]>>,
    /// What the next keys are made of.
    next: Option<Secrets>,
}

impl crypto::Session for Session {
    fn initial_keys(&self, dst_cid: &ConnectionId, _: Side) -> Keys {
        let keys = crypto::ServerConfig::initial_keys(&*self.config, self.version, dst_cid);
        keys.expect("the version is one that the connection has begun with")
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        Some(Box::new(Protocol(self.protocol?)))
    }

    /// Readers have no certificates.
    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        None
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        let keys = self.tls.as_ref()?.zero_rtt_keys()?;
        Some((Box::new(keys.header), Box::new(keys.packet)))
    }

    /// A client's question.
    fn early_data_accepted(&self) -> Option<bool> {
        None
    }

    fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        let Some(tls) = &mut self.tls else {
            // Clients have nothing more to say: QUIC has its own key updates (RFC 9001 §6), and nobody asked for a certificate.
            let code = TransportErrorCode::crypto(AlertDescription::UnexpectedMessage.into());
            return Err(refused(code, "a message after the handshake"));
        };
        tls.read_hs(bytes).map_err(|error| {
            let alert = tls.alert().map(|alert| TransportErrorCode::crypto(alert.into()));
            refused(alert.unwrap_or(TransportErrorCode::PROTOCOL_VIOLATION), &error.to_string())
        })?;
        let is_known = tls.alpn_protocol().is_some() || tls.server_name().is_some() || !tls.is_handshaking();
        if self.protocol.is_some() || !is_known {
            return Ok(false);
        }
        self.protocol = Some(ALPN.into_iter().find(|one| tls.alpn_protocol() == Some(one)));
        Ok(true)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let theirs = self.tls.as_ref().and_then(|tls| tls.quic_transport_parameters());
        Ok(theirs.map(|mut bytes| TransportParameters::read(Side::Server, &mut bytes)).transpose()?)
    }

    fn write_handshake(&mut self, bytes: &mut Vec<u8>) -> Option<Keys> {
        let tls = self.tls.as_mut()?;
        let keys = match tls.write_hs(bytes) {
            Some(KeyChange::Handshake { keys }) => keys,
            Some(KeyChange::OneRtt { keys, next }) => {
                self.next = Some(next);
                keys
            }
            None => {
                if !tls.is_handshaking() {
                    // Its last messages, the tickets, are written.
                    self.tls = None;
                }
                return None;
            }
        };
        Some(Keys {
            header: KeyPair { local: Box::new(keys.local.header), remote: Box::new(keys.remote.header) },
            packet: KeyPair { local: Box::new(keys.local.packet), remote: Box::new(keys.remote.packet) },
        })
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        let PacketKeySet { local, remote } = self.next.as_mut()?.next_packet_keys();
        Some(KeyPair { local: Box::new(local), remote: Box::new(remote) })
    }

    /// Clients are told to try again.
    fn is_valid_retry(&self, _: &ConnectionId, _: &[u8], _: &[u8]) -> bool {
        false
    }

    /// Nothing here is bound to a connection's keys.
    fn export_keying_material(&self, _: &mut [u8], _: &[u8], _: &[u8]) -> Result<(), ExportKeyingMaterialError> {
        Err(ExportKeyingMaterialError)
    }
}

fn refused(code: TransportErrorCode, why: &str) -> TransportError {
    TransportError { code, frame: None, reason: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use quinn::crypto::Session as _;
    use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
    use rustls::quic::ClientConnection;
    use rustls::version::TLS13;

    use super::*;
    use crate::certificate;

    /// A session and its client, who trusts the server's certificate.
    fn pair() -> (Session, ClientConnection) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("it can be made");
        let certificate = made.cert.der().clone();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into();
        let provider = Arc::new(certificate::provider());
        let mut server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .expect("ring has cipher suites for it")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .expect("the key is the certificate's");
        server.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
        let config = Arc::new(Config::new(server).expect("ring has the suite of Initial packets"));
        let ours = ServerConnection::new(Arc::clone(&config.tls), Version::V1, Vec::new()).expect("TLS 1.3 is allowed");
        let session = Session { config, version: 1, tls: Some(Box::new(ours)), protocol: None, next: None };

        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate).expect("a certificate");
        let mut client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .expect("ring has cipher suites for it")
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![b"ticker/1".to_vec()];
        let name = ServerName::try_from("localhost").expect("a name");
        let client =
            ClientConnection::new(Arc::new(client), Version::V1, name, Vec::new()).expect("TLS 1.3 is allowed");
        (session, client)
    }

    #[test]
    fn after_the_handshake_only_secrets_are_kept() {
        let (mut session, mut client) = pair();
        assert!(session.handshake_data().is_none());
        let mut told = 0;
        while client.is_handshaking() || session.is_handshaking() {
            let mut bytes = Vec::new();
            while client.write_hs(&mut bytes).is_some() {}
            told += usize::from(session.read_handshake(&bytes).expect("the client's messages are right"));
            loop {
                // What comes with other keys is read by itself.
                let mut bytes = Vec::new();
                let keys = session.write_handshake(&mut bytes);
                client.read_hs(&bytes).expect("the server's messages are right");
                if keys.is_none() {
                    break;
                }
            }
        }
        assert_eq!(told, 1, "what was negotiated is told once");
        assert!(session.tls.is_none());
        let data = session.handshake_data().and_then(|data| data.downcast::<Protocol>().ok());
        assert_eq!(data.map(|data| data.0), Some(Some(&b"ticker/1"[..])));
        assert!(session.next_1rtt_keys().is_some() && session.next_1rtt_keys().is_some());
        let error = session.read_handshake(&[24, 0, 0, 1, 0]).expect_err("a KeyUpdate of TLS");
        assert_eq!(error.code, TransportErrorCode::crypto(10));
    }
}
