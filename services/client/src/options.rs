//! Where to connect, over what, for which topics.

use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::MaybeTlsStream;

use crate::error::Error;
use crate::trust::{self, Trust};

/// What a reader wants: topics, where to go on from, limits. `id` is the client's own business; `delivery` is for WebTransport,
/// QUIC and WebRTC.
pub use ticker_proto::message::Subscribe as Subscription;

/// The way of the messages.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Over {
    /// WebSocket, JSON.
    Ws,
    /// WebSocket, Protobuf (`ticker.v1.proto`).
    WsProtobuf,
    /// Server-sent events.
    Sse,
    /// One JSON object a line.
    Ndjson,
    /// Long polling.
    Poll,
    /// gRPC `Subscribe`.
    Grpc,
    /// gRPC `Session`.
    GrpcSession,
    /// One JSON object a line, over HTTP/3.
    H3,
    /// WebTransport, JSON.
    WebTransport,
    /// QUIC without HTTP, Protobuf.
    Quic,
    /// WebRTC data channels, JSON.
    Rtc,
}

impl Over {
    /// Every way.
    pub const ALL: [Over; 11] = [
        Over::Ws,
        Over::WsProtobuf,
        Over::Sse,
        Over::Ndjson,
        Over::Poll,
        Over::Grpc,
        Over::GrpcSession,
        Over::H3,
        Over::WebTransport,
        Over::Quic,
        Over::Rtc,
    ];

    /// Its name on a command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Over::Ws => "ws",
            Over::WsProtobuf => "ws-proto",
            Over::Sse => "sse",
            Over::Ndjson => "ndjson",
            Over::Poll => "poll",
            Over::Grpc => "grpc",
            Over::GrpcSession => "grpc-session",
            Over::H3 => "h3",
            Over::WebTransport => "wt",
            Over::Quic => "quic",
            Over::Rtc => "rtc",
        }
    }

    /// Can subscriptions change while it runs ([`crate::Reader::send`])?
    pub const fn is_duplex(self) -> bool {
        matches!(self, Over::Ws | Over::WsProtobuf | Over::GrpcSession | Over::WebTransport | Over::Quic | Over::Rtc)
    }
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Over {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|o| o.as_str() == name).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|o| o.as_str()).collect();
            Error::Options(format!("`{name}` is not a transport of this client: expected one of {}", names.join(", ")))
        })
    }
}

/// What to do when the connection is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resume {
    /// Give the error to the caller.
    Never,
    /// Connect again and go on from the cursor. The wait doubles from `first_ms` up to `max_ms`, each time a random half
    /// to whole of it, so that many readers do not come back at once; a server's own word (`retry_ms`) goes before.
    Backoff {
        /// The first wait, in milliseconds.
        first_ms: u64,
        /// The longest wait, in milliseconds.
        max_ms: u64,
    },
}

/// Where to connect and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The way of the messages.
    pub over: Over,
    /// Base URL of the edge's HTTP, such as `http://127.0.0.1:8080` or, by TLS, `https://127.0.0.1:8443`.
    pub http: String,
    /// URL of the gRPC port, such as `http://127.0.0.1:50051`; by TLS, that of the edge's, such as `https://127.0.0.1:8443`.
    pub grpc: String,
    /// URL of the edge's TLS and QUIC port, such as `https://127.0.0.1:8443`.
    pub quic: String,
    /// Whose certificates are good.
    pub trust: Trust,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<String>,
    /// HTTP/2 for server-sent events, NDJSON and polls (without TLS: by prior knowledge); otherwise HTTP/1.1.
    pub http2: bool,
    /// What to do when the connection is lost.
    pub resume: Resume,
    /// How long a connection, and the first answer on it, may take.
    pub connect_timeout: Duration,
    /// What a long poll asks for as `wait`, in seconds.
    pub poll_wait_s: u32,
    /// A server of whom nothing is heard for so long over QUIC is gone. A quiet connection is asked for a sign of life three
    /// times within it.
    pub quic_idle: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            over: Over::Ws,
            http: "http://127.0.0.1:8080".to_owned(),
            grpc: "http://127.0.0.1:50051".to_owned(),
            quic: "https://127.0.0.1:8443".to_owned(),
            trust: Trust::Public,
            token: None,
            http2: false,
            resume: Resume::Never,
            connect_timeout: Duration::from_secs(10),
            poll_wait_s: 25,
            quic_idle: Duration::from_secs(30),
        }
    }
}

/// A base URL in its parts. `ws` and `wss` are as good as `http` and `https`.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// The URL as it was given, without a slash at the end.
    pub(crate) url: String,
    /// `host:port` for the socket and the `Host` header.
    pub(crate) authority: String,
    /// A path before `/v1/…`, for edges behind a proxy.
    pub(crate) prefix: String,
    /// By TLS.
    pub(crate) secure: bool,
    /// For the certificate.
    host: String,
}

impl Endpoint {
    pub(crate) fn parse(url: &str) -> Result<Self, Error> {
        let wrong = |why: &str| Error::Options(format!("`{url}` is no base URL: {why}; expected http[s]://HOST:PORT"));
        let uri: ::http::Uri = url.parse().map_err(|_| wrong("it cannot be parsed"))?;
        let secure = match uri.scheme_str() {
            Some("http" | "ws") => false,
            Some("https" | "wss") => true,
            _ => return Err(wrong("it does not begin with http:// or https://")),
        };
        if uri.query().is_some() {
            return Err(wrong("it has a query"));
        }
        let host = uri.host().ok_or_else(|| wrong("it has no host"))?;
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            authority: format!("{host}:{}", uri.port_u16().unwrap_or(if secure { 443 } else { 80 })),
            prefix: uri.path().trim_end_matches('/').to_owned(),
            secure,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
        })
    }

    /// `http` or `https`.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    /// A connection, without delay for small writes; by TLS, it is for `alpn`.
    pub(crate) async fn connect(&self, options: &Options, alpn: &[u8]) -> Result<MaybeTlsStream<TcpStream>, Error> {
        let failed = |error: &std::io::Error| Error::connect(&self.url, error);
        let connecting = async {
            let socket = TcpStream::connect(&self.authority).await.map_err(|e| failed(&e))?;
            socket.set_nodelay(true).map_err(|e| failed(&e))?;
            if !self.secure {
                return Ok(MaybeTlsStream::Plain(socket));
            }
            let connector = TlsConnector::from(Arc::new(trust::config(options, &[alpn]).await?));
            let name = ServerName::try_from(self.host.clone())
                .map_err(|_| Error::Options(format!("`{}`: no certificate can be for this host", self.url)))?;
            let stream = connector.connect(name, socket).await.map_err(|e| failed(&e))?;
            Ok(MaybeTlsStream::Rustls(stream))
        };
        let late = |_| failed(&std::io::ErrorKind::TimedOut.into());
        tokio::time::timeout(options.connect_timeout, connecting).await.map_err(late)?
    }
}

/// What stays readable in a query; topics are full of slashes.
const QUERY: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'*').remove(b',').remove(b'~');

/// The subscription as a query, `start` (`from` or `cursor`) naming where to go on from.
pub(crate) fn query(subscription: &Subscription, start: &str) -> String {
    let mut query = String::new();
    let mut add = |name: &str, value: &str| {
        let separator = if query.is_empty() { '?' } else { '&' };
        // Writing to a string cannot fail.
        let _ = write!(query, "{separator}{name}={}", utf8_percent_encode(value, QUERY));
    };
    add("topics", &subscription.topics.join(","));
    if let Some(from) = &subscription.from {
        add(start, from);
    }
    if let Some(recent) = subscription.recent {
        add("recent", &recent.to_string());
    }
    if let Some(rate) = subscription.max_rate {
        add("max_rate", &rate.to_string());
    }
    if let Some(kbps) = subscription.max_kbps {
        add("max_kbps", &kbps.to_string());
    }
    if let Some(fields) = &subscription.fields {
        add("fields", &fields.join(","));
    }
    if let Some(conflate) = subscription.conflate {
        add("conflate", if conflate { "true" } else { "false" });
    }
    if !subscription.have.is_empty() {
        let have: Vec<String> = subscription.have.iter().map(|(topic, seq)| format!("{topic}:{seq}")).collect();
        add("have", &have.join(","));
    }
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_becomes_the_contracts_query() {
        let subscription = Subscription {
            topics: vec!["quote/kraken/BTC-USD".into(), "trade/*/ETH-USD".into()],
            from: Some("k3f9-7".into()),
            max_rate: Some(4.0),
            fields: Some(vec!["bid".into(), "ask".into()]),
            conflate: Some(false),
            have: [("book/kraken/BTC-USD".to_owned(), 5)].into(),
            ..Subscription::default()
        };
        assert_eq!(
            query(&subscription, "from"),
            "?topics=quote/kraken/BTC-USD,trade/*/ETH-USD&from=k3f9-7&max_rate=4&fields=bid,ask&conflate=false&have=book/kraken/BTC-USD%3A5"
        );
        let odd = Subscription { topics: vec!["a b&c=d".into()], ..Subscription::default() };
        assert_eq!(query(&odd, "cursor"), "?topics=a%20b%26c%3Dd");
    }

    #[test]
    fn urls_are_checked_before_anything_is_sent() {
        let endpoint = Endpoint::parse("http://127.0.0.1:8080/base/").expect("a URL");
        assert_eq!((endpoint.authority.as_str(), endpoint.prefix.as_str()), ("127.0.0.1:8080", "/base"));
        assert_eq!(Endpoint::parse("http://[::1]:81").expect("a URL").authority, "[::1]:81");
        let endpoint = Endpoint::parse("wss://[::1]").expect("a URL");
        assert_eq!((endpoint.authority.as_str(), endpoint.host.as_str(), endpoint.secure), ("[::1]:443", "::1", true));
        for (url, says) in [
            ("127.0.0.1:8080", "http"),
            ("ftp://x", "does not begin"),
            ("http://x?y", "query"),
            ("", "cannot be parsed"),
        ] {
            let error = Endpoint::parse(url).expect_err(url).to_string();
            assert!(error.contains(says), "{url}: {error}");
        }
    }

    #[test]
    fn every_transport_has_a_name_that_reads_back() {
        for over in Over::ALL {
            assert_eq!(over.as_str().parse(), Ok(over));
        }
        assert!("carrier-pigeon".parse::<Over>().is_err());
    }
}
