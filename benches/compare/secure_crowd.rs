//! Readers over TLS, QUIC and WebRTC, on one thread, on the other core than the server's. What comes is counted, and of each event
//! only `pub` is read.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use memchr::memmem::Finder;
use prost::Message as _;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use ticker_proto::v1;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Semaphore, oneshot};

use crate::histogram::Histogram;
use crate::publish::now_micros;
use crate::rtc_reader;
use crate::wire::{self, Over};

/// Connections that are being made at once.
const CONNECTING_MAX: usize = 32;

/// How readers read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// SSE over HTTP/1.1 and TLS.
    Tls,
    /// SSE over HTTP/3.
    Http3,
    /// WebTransport, all on the session's stream.
    WebTransport,
    /// WebTransport, states as datagrams.
    Datagrams,
    /// A session without HTTP, `ticker/1`. Only connected: its events are not looked at.
    Session,
    /// WebRTC.
    Rtc(Channels),
}

/// How readers over WebRTC read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Channels {
    /// States on the channel without retransmits; without it all on the session's channel.
    pub(crate) live: bool,
    /// Protobuf instead of JSON.
    pub(crate) protobuf: bool,
}

impl Way {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tls => "SSE over TCP with TLS",
            Self::Http3 => "SSE over HTTP/3",
            Self::WebTransport => "WebTransport, stream",
            Self::Datagrams => "WebTransport, datagrams",
            Self::Rtc(Channels { live: false, protobuf: false }) => "WebRTC, channel `ticker`",
            Self::Rtc(Channels { live: true, protobuf: false }) => "WebRTC, `ticker-live`",
            Self::Rtc(Channels { live: false, protobuf: true }) => "WebRTC, channel `ticker`, Protobuf",
            Self::Rtc(Channels { live: true, protobuf: true }) => "WebRTC, `ticker-live`, Protobuf",
            Self::Session => "session over QUIC, `ticker/1`",
        }
    }
}

/// What all of them have received since the last reset.
pub(crate) struct Seen {
    pub(crate) events: u64,
    pub(crate) bytes: u64,
    /// From `pub` to receipt, in microseconds.
    pub(crate) latency: Histogram,
    /// Readers whose subscription was answered.
    pub(crate) served: usize,
    pub(crate) ended: usize,
    pub(crate) why: Option<String>,
    pub(crate) since: Instant,
    published: Finder<'static>,
}

impl Seen {
    fn new() -> Self {
        Self {
            events: 0,
            bytes: 0,
            latency: Histogram::new(),
            served: 0,
            ended: 0,
            why: None,
            since: Instant::now(),
            published: Finder::new(b"\"pub\":"),
        }
    }

    /// Counts the events in that text.
    pub(crate) fn take(&mut self, mut text: &[u8]) {
        while let Some(at) = self.published.find(text) {
            text = &text[at + 6..];
            self.take_one(wire::number(text));
        }
    }

    /// Counts an event that was published then.
    pub(crate) fn take_one(&mut self, published: i64) {
        self.events += 1;
        self.latency.record(u64::try_from(now_micros() - published).unwrap_or(0));
    }
}

pub(crate) type Shared = Arc<Mutex<Seen>>;

pub(crate) fn lock(shared: &Shared) -> MutexGuard<'_, Seen> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Readers that run. They end when it is dropped.
pub(crate) struct SecureCrowd {
    shared: Shared,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl SecureCrowd {
    /// Readers of these topics, each of its own.
    pub(crate) fn start(target: SocketAddr, way: Way, topics: Vec<Vec<String>>) -> Result<Self, String> {
        let shared = Arc::new(Mutex::new(Seen::new()));
        let (stop, stopped) = oneshot::channel();
        let run = {
            let shared = Arc::clone(&shared);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                match runtime {
                    Ok(runtime) => runtime.block_on(readers(target, way, topics, shared, stopped)),
                    Err(error) => lock(&shared).why = Some(error.to_string()),
                }
            }
        };
        let thread = std::thread::Builder::new().name("crowd".into()).spawn(run).map_err(|e| e.to_string())?;
        Ok(Self { shared, stop: Some(stop), thread: Some(thread) })
    }

    pub(crate) fn wait_served(&self, readers: usize, within: Duration) -> Result<(), String> {
        let until = Instant::now() + within;
        loop {
            let (served, ended, why) = self.with(|seen| (seen.served, seen.ended, seen.why.clone()));
            if served >= readers {
                return Ok(());
            }
            if Instant::now() > until || ended > 0 {
                return Err(format!("{served} of {readers} readers are served; {}", why.unwrap_or_default()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn with<R>(&self, look: impl FnOnce(&mut Seen) -> R) -> R {
        look(&mut lock(&self.shared))
    }

    pub(crate) fn reset(&self) {
        self.with(|seen| {
            (seen.events, seen.bytes, seen.latency, seen.since) = (0, 0, Histogram::new(), Instant::now());
        });
    }
}

impl Drop for SecureCrowd {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn readers(
    target: SocketAddr,
    way: Way,
    topics: Vec<Vec<String>>,
    shared: Shared,
    stopped: oneshot::Receiver<()>,
) {
    let connecting = Arc::new(Semaphore::new(CONNECTING_MAX));
    let dial = match Dial::new(target, if way == Way::Session { b"ticker/1" } else { b"h3" }) {
        Ok(dial) => Arc::new(dial),
        Err(why) => return lock(&shared).why = Some(why),
    };
    for topics in topics {
        let (dial, shared, connecting) = (Arc::clone(&dial), Arc::clone(&shared), Arc::clone(&connecting));
        tokio::spawn(async move {
            let permit = connecting.acquire_owned().await;
            let served = || {
                drop(permit);
                lock(&shared).served += 1;
            };
            let result = match way {
                Way::Tls => over_tls(&dial, &topics, &shared, served).await,
                Way::Http3 => over_http3(&dial, &topics, &shared, served).await,
                Way::WebTransport => over_webtransport(&dial, &topics, false, &shared, served).await,
                Way::Datagrams => over_webtransport(&dial, &topics, true, &shared, served).await,
                Way::Rtc(channels) => rtc_reader::read(target, &topics, channels, &shared, served).await,
                Way::Session => over_quic(&dial, topics, &shared, served).await,
            };
            let mut seen = lock(&shared);
            seen.ended += 1;
            seen.why.get_or_insert(result.err().unwrap_or_else(|| "the server ended the stream".into()));
        });
    }
    let _ = stopped.await;
}

/// What it takes to connect.
struct Dial {
    target: SocketAddr,
    tls: tokio_rustls::TlsConnector,
    endpoint: quinn::Endpoint,
}

impl Dial {
    /// What QUIC speaks is `alpn`.
    fn new(target: SocketAddr, alpn: &[u8]) -> Result<Self, String> {
        let provider = Arc::new(ring::default_provider());
        let config = |alpn: &[u8]| -> Result<rustls::ClientConfig, String> {
            let mut config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .map_err(|e| e.to_string())?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anyone(Arc::clone(&provider))))
                .with_no_client_auth();
            config.alpn_protocols = vec![alpn.to_vec()];
            Ok(config)
        };
        let crypto = QuicClientConfig::try_from(config(alpn)?).map_err(|e| e.to_string())?;
        let mut endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).map_err(|e| e.to_string())?;
        endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
        Ok(Self { target, tls: Arc::new(config(b"http/1.1")?).into(), endpoint })
    }

    async fn quic(&self) -> Result<quinn::Connection, String> {
        let connecting = self.endpoint.connect(self.target, "localhost").map_err(|e| e.to_string())?;
        connecting.await.map_err(|e| e.to_string())
    }
}

/// Counts whole lines, and keeps what is left of the last.
struct Lines(Vec<u8>);

impl Lines {
    fn take(&mut self, shared: &Shared, bytes: &[u8]) {
        let mut seen = lock(shared);
        seen.bytes += bytes.len() as u64;
        self.0.extend_from_slice(bytes);
        let Some(end) = memchr::memrchr(b'\n', &self.0) else { return };
        seen.take(&self.0[..end]);
        self.0.drain(..=end);
    }
}

async fn over_tls(dial: &Dial, topics: &[String], shared: &Shared, served: impl FnOnce()) -> Result<(), String> {
    let text = |e: std::io::Error| e.to_string();
    let tcp = tokio::net::TcpStream::connect(dial.target).await.map_err(text)?;
    let name = ServerName::try_from("localhost").map_err(|e| e.to_string())?;
    let mut stream = dial.tls.connect(name, tcp).await.map_err(text)?;
    stream.write_all(&wire::request(Over::Sse, "localhost", topics)).await.map_err(text)?;
    let (mut buffer, mut lines, mut served) = (vec![0; 16 * 1024], Lines(Vec::new()), Some(served));
    loop {
        let n = stream.read(&mut buffer).await.map_err(text)?;
        if n == 0 {
            return Ok(());
        }
        lines.take(shared, &buffer[..n]);
        if let Some(served) = served.take() {
            served();
        }
    }
}

type Sender = h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>;
type Stream = h3::client::RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

/// The sender must live as long as the connection.
async fn http3(connection: &quinn::Connection, request: http::Request<()>) -> Result<(Sender, Stream), String> {
    let mut builder = h3::client::builder();
    builder.enable_extended_connect(true).enable_datagram(true);
    let transport = h3_quinn::Connection::new(connection.clone());
    let (mut driver, mut sender) = builder.build::<_, _, Bytes>(transport).await.map_err(|e| e.to_string())?;
    tokio::spawn(async move { drop(driver.wait_idle().await) });
    let mut stream = sender.send_request(request).await.map_err(|e| e.to_string())?;
    let response = stream.recv_response().await.map_err(|e| e.to_string())?;
    if response.status() != 200 {
        return Err(format!("answered with {}", response.status()));
    }
    Ok((sender, stream))
}

async fn over_http3(dial: &Dial, topics: &[String], shared: &Shared, served: impl FnOnce()) -> Result<(), String> {
    let connection = dial.quic().await?;
    let request = http::Request::get(format!("https://localhost/v1/stream?topics={}", topics.join(",")))
        .header("accept", "text/event-stream")
        .body(())
        .map_err(|e| e.to_string())?;
    let (_sender, mut stream) = http3(&connection, request).await?;
    served();
    let mut lines = Lines(Vec::new());
    while let Some(mut data) = stream.recv_data().await.map_err(|e| e.to_string())? {
        lines.take(shared, &data.copy_to_bytes(data.remaining()));
    }
    Ok(())
}

async fn over_webtransport(
    dial: &Dial,
    topics: &[String],
    datagrams: bool,
    shared: &Shared,
    served: impl FnOnce(),
) -> Result<(), String> {
    let connection = dial.quic().await?;
    let request = http::Request::builder()
        .method(http::Method::CONNECT)
        .uri("https://localhost/v1/wt")
        .extension(h3::ext::Protocol::WEB_TRANSPORT)
        .body(())
        .map_err(|e| e.to_string())?;
    let (_sender, connect) = http3(&connection, request).await?;
    let (mut send, mut receive) = connection.open_bi().await.map_err(|e| e.to_string())?;
    // How a stream of a session begins (draft-ietf-webtrans-http3 §4.3); the id is that of the first stream.
    let id = u8::try_from(connect.id().into_inner()).ok().filter(|id| *id < 0x40).ok_or("a large stream id")?;
    let mut json = serde_json::json!({"op": "subscribe", "id": 1, "topics": topics});
    if datagrams {
        json["delivery"] = "datagram".into();
    }
    let opening = [&[0x40, 0x41, id], json.to_string().as_bytes(), b"\n"].concat();
    send.write_all(&opening).await.map_err(|e| e.to_string())?;
    let on_stream = async {
        let (mut buffer, mut lines, mut served) = (vec![0; 16 * 1024], Lines(Vec::new()), Some(served));
        loop {
            let Some(n) = receive.read(&mut buffer).await.map_err(|e| e.to_string())? else { return Ok(()) };
            lines.take(shared, &buffer[..n]);
            if let Some(served) = served.take() {
                served();
            }
        }
    };
    let by_datagram = async {
        loop {
            let datagram = connection.read_datagram().await.map_err(|e| e.to_string())?;
            let mut seen = lock(shared);
            seen.bytes += datagram.len() as u64;
            seen.take(&datagram);
        }
    };
    tokio::select! {
        ended = on_stream => ended,
        ended = by_datagram => ended,
    }
}

/// Events are Protobuf, so they are not counted.
async fn over_quic(dial: &Dial, topics: Vec<String>, shared: &Shared, served: impl FnOnce()) -> Result<(), String> {
    let connection = dial.quic().await?;
    let (mut send, mut receive) = connection.open_bi().await.map_err(|e| e.to_string())?;
    let subscribe = v1::Subscribe { id: 1, topics, ..v1::Subscribe::default() };
    let request = v1::SessionRequest { message: Some(v1::session_request::Message::Subscribe(subscribe)) };
    send.write_all(&request.encode_length_delimited_to_vec()).await.map_err(|e| e.to_string())?;
    let (mut buffer, mut served) = (vec![0; 16 * 1024], Some(served));
    loop {
        let Some(n) = receive.read(&mut buffer).await.map_err(|e| e.to_string())? else { return Ok(()) };
        lock(shared).bytes += n as u64;
        if let Some(served) = served.take() {
            served();
        }
    }
}

/// The server is one that the bench has started, on this machine.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
