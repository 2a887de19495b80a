//! One end of a connection: its certificate, its credentials, and str0m made for data channels alone.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use str0m::channel::{ChannelConfig, Reliability, SctpInitData};
use str0m::config::{DtlsCert, Fingerprint};
use str0m::net::TcpType;
use str0m::rtp::ExtensionMap;
use str0m::{Candidate, Event, IceCreds, Rtc, RtcConfig};

use crate::crypto::{self, NoRandomness};
use crate::sdp::{Description, Media, Setup};

/// The channel that carries the session: ordered, reliable.
pub const SESSION: &str = "ticker";

/// The channel for what may be lost: unordered, no retransmits.
pub const LIVE: &str = "ticker-live";

/// The ids of the two where they are agreed on without asking (`negotiated`).
pub const SESSION_ID: u16 = 0;
/// See [`SESSION_ID`].
pub const LIVE_ID: u16 = 1;

/// A packet of ours is no larger (without the headers of IP and UDP), in bytes: what every path of IPv6 bears (1,280 bytes, RFC 8200
/// §5) through a channel of TURN. Browsers send the same: SCTP packets of up to 1,191 bytes in records of DTLS.
pub const MTU: usize = 1_228;

/// Messages that are written together go in one packet if that is the sum of what each takes ([`message_bytes`]), at most:
/// the MTU without what DTLS and str0m's SCTP put before them.
pub const PACKET_BYTES: usize = 1_172;

/// What a message takes of a packet: itself, the header of a chunk of data before it (RFC 9260 §3.3.1), padding behind it.
pub const fn message_bytes(length: usize) -> usize {
    (16 + length).next_multiple_of(4)
}

/// Largest message that we take, in bytes.
pub const MESSAGE_BYTES_MAX: u32 = 64 * 1024;

/// Bytes that wait in one connection to be sent or confirmed, at most.
pub const SEND_BYTES_MAX: usize = 1024 * 1024;

/// A check that is not answered is sent again after so long, then after twice as much each time. Browsers do so every 50 ms
/// until one is answered.
const CHECK_FIRST: Duration = Duration::from_millis(100);

/// A certificate begins so long before it is made, for whoever's clock is behind ours.
const EARLY: Duration = Duration::from_secs(60 * 60);

/// It is valid for so long.
const VALID: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Characters of a username fragment, and of a password: 5 bits each, so 40 and 130 (RFC 8445 §5.3 wants 24 and 128).
const UFRAG_CHARS: usize = 8;
const PWD_CHARS: usize = 26;

/// What went wrong before anything was sent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// See there.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// A certificate could not be made.
    #[error("a certificate could not be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The other end's half of a handshake in advance cannot be used.
    #[error("the SDP's sctp-init is not as it must be")]
    SctpInit,
    /// str0m refuses.
    #[error("the connection cannot begin: {0}")]
    Begin(#[from] str0m::RtcError),
}

/// A key, and the certificate that the other end knows by its fingerprint.
#[derive(Clone, Debug)]
pub struct Certificate {
    certificate: DtlsCert,
    /// SHA-256 of it.
    pub fingerprint: [u8; 32],
}

impl Certificate {
    /// Makes one: P-256, signed by itself.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate(now: SystemTime) -> Result<Self, AgentError> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = rcgen::CertificateParams::default();
        (params.not_before, params.not_after) = ((now - EARLY).into(), (now + VALID).into());
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "ticker");
        let certificate = params.self_signed(&key)?.der().to_vec();
        let fingerprint = crypto::sha256(&certificate);
        Ok(Self { certificate: DtlsCert { certificate, private_key: key.serialize_der() }, fingerprint })
    }
}

/// Credentials for ICE that nobody can guess.
///
/// # Errors
/// When the system has no randomness to give.
pub fn credentials() -> Result<IceCreds, NoRandomness> {
    Ok(IceCreds { ufrag: name::<UFRAG_CHARS>()?, pass: name::<PWD_CHARS>()? })
}

/// A name of so many letters and digits that nobody can guess: 5 bits each.
///
/// # Errors
/// When the system has no randomness to give.
pub fn name<const CHARS: usize>() -> Result<String, NoRandomness> {
    const CHARACTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bytes = crypto::random::<CHARS>()?;
    Ok(bytes.iter().map(|b| char::from(CHARACTERS[usize::from(b & 31)])).collect())
}

/// Which end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Answers: ICE-lite, waits for the other's handshakes.
    Server,
    /// Offers: checks addresses, begins the handshakes.
    Client,
}

/// What one end says of itself, and will prove itself with.
#[derive(Debug)]
pub struct Local {
    /// For ICE.
    pub credentials: IceCreds,
    /// For DTLS.
    pub certificate: Certificate,
    /// Our half of SCTP's handshake in advance.
    pub sctp: SctpInitData,
}

impl Local {
    /// Fresh credentials with that certificate.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn new(certificate: Certificate) -> Result<Self, AgentError> {
        Ok(Self { credentials: credentials()?, certificate, sctp: SctpInitData::new() })
    }

    /// An offer of a channel for data, without addresses: whoever answers learns of ours by our checks.
    ///
    /// # Errors
    /// As [`Self::sctp_init`].
    pub fn offer(&mut self) -> Result<Description, AgentError> {
        Ok(Description {
            lite: false,
            ufrag: self.credentials.ufrag.clone(),
            pwd: self.credentials.pass.clone(),
            fingerprint: self.certificate.fingerprint,
            setup: Setup::ActPass,
            media: vec![Media::data("0")],
            data: 0,
            message_bytes_max: MESSAGE_BYTES_MAX,
            sctp_init: Some(self.sctp_init()?),
            candidates: Vec::new(),
            tcp: Vec::new(),
        })
    }

    /// Our half of SCTP's handshake.
    ///
    /// # Errors
    /// None that is known; str0m's signature has one.
    pub fn sctp_init(&mut self) -> Result<String, AgentError> {
        self.sctp.local_init_string().map_err(|_| AgentError::SctpInit)
    }
}

/// Begins a connection to whoever is so described. Addresses of our own are still to be added.
///
/// # Errors
/// When the description cannot be used.
pub fn begin(
    local: Local,
    remote: &Description,
    role: Role,
    negotiated: bool,
    now: Instant,
) -> Result<Rtc, AgentError> {
    let server = role == Role::Server;
    let mut config = RtcConfig::new();
    config.set_initial_stun_rto(CHECK_FIRST);
    let mut rtc = config
        .clear_codecs()
        .set_extension_map(ExtensionMap::empty())
        .set_crypto_provider(provider())
        .set_dtls_cert(local.certificate.certificate)
        .set_local_ice_credentials(local.credentials)
        .set_ice_lite(server)
        .set_sctp_max_message_size(MESSAGE_BYTES_MAX)
        .set_sctp_max_buffered_amount(SEND_BYTES_MAX)
        .set_mtu(MTU..=usize::MAX)
        .build(now);
    let mut api = rtc.direct_api();
    api.set_ice_controlling(!server);
    api.set_remote_ice_credentials(IceCreds { ufrag: remote.ufrag.clone(), pass: remote.pwd.clone() });
    api.set_remote_fingerprint(Fingerprint { hash_func: "sha-256".to_owned(), bytes: remote.fingerprint.to_vec() });
    // Whoever begins the handshake waits until there is a way for it; see [`on_event`].
    if remote.setup == Setup::Active || remote.setup == Setup::ActPass && server {
        api.start_dtls(false)?;
    }
    match &remote.sctp_init {
        Some(init) => {
            let mut sctp = local.sctp;
            // Ours was told to the other end, or is made now.
            sctp.local_init_chunk().map_err(|_| AgentError::SctpInit)?;
            sctp.set_remote_init_string(init).map_err(|_| AgentError::SctpInit)?;
            api.start_sctp_with_snap(!server, sctp).map_err(|_| AgentError::SctpInit)?;
        }
        // Both begin, and whoever's first message arrives first has begun: see `association`.
        None => api.start_sctp(true),
    }
    if negotiated {
        api.create_data_channel(session_channel(Some(SESSION_ID)));
        api.create_data_channel(live_channel(Some(LIVE_ID)));
    }
    Ok(rtc)
}

/// To be told of all events: once ICE has found a way, the handshake begins.
///
/// # Errors
/// As str0m's.
pub fn on_event(rtc: &mut Rtc, event: &Event) -> Result<(), str0m::RtcError> {
    if matches!(event, Event::IceConnectionStateChange(state) if state.is_connected()) {
        // Where the other end begins it, this does nothing.
        rtc.direct_api().start_dtls(true)?;
    }
    Ok(())
}

/// An address of ours, for packets of UDP or for connections of TCP, which the other end makes.
///
/// # Errors
/// When it is none that anybody could reach.
pub fn address(at: SocketAddr, tcp: bool) -> Result<Candidate, AgentError> {
    let built = match tcp {
        true => Candidate::builder().tcp().host(at).tcptype(TcpType::Passive).build(),
        false => Candidate::builder().udp().host(at).build(),
    };
    built.map_err(|error| AgentError::Begin(error.into()))
}

/// The channel of the session.
pub fn session_channel(negotiated: Option<u16>) -> ChannelConfig {
    ChannelConfig { label: SESSION.to_owned(), negotiated, ..ChannelConfig::default() }
}

/// The channel of what may be lost.
pub fn live_channel(negotiated: Option<u16>) -> ChannelConfig {
    ChannelConfig {
        label: LIVE.to_owned(),
        ordered: false,
        reliability: Reliability::MaxRetransmits { retransmits: 0 },
        negotiated,
        ..ChannelConfig::default()
    }
}

fn provider() -> std::sync::Arc<str0m::crypto::CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<std::sync::Arc<str0m::crypto::CryptoProvider>> = std::sync::OnceLock::new();
    std::sync::Arc::clone(PROVIDER.get_or_init(|| std::sync::Arc::new(crypto::provider())))
}

#[cfg(test)]
mod tests;
