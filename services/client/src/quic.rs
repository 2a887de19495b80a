//! Over QUIC: NDJSON over HTTP/3, a session over WebTransport (one JSON object a line), a session without HTTP (Protobuf
//! with a varint length before each message).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use h3::client::SendRequest;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use ticker_proto::message::Limit;
use ticker_proto::{Message, Request, convert, json, v1};
use tokio::task::JoinHandle;

use crate::error::Error;
use crate::grpc::request_to_wire;
use crate::lines::Parser;
use crate::newest::Newest;
use crate::options::{Options, Over, Subscription, query};
use crate::transport::{FIRST_ID, Item};
use crate::trust;

/// What waits here for whoever reads, on a stream and in all. What lies behind it waits at the server, where it can still be
/// conflated.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 512 * 1024;

/// Bytes that are taken from the network at once.
const READ_BYTES_MAX: usize = 64 * 1024;

/// Far above the contract's 64 KiB.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Begins a bidirectional stream of a WebTransport session (draft-ietf-webtrans-http3 §4.3), as a varint of two bytes.
const STREAM_SIGNAL: [u8; 2] = [0x40, 0x41];

type RequestStream = h3::client::RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

pub(crate) struct Quic {
    connection: Connection,
    way: Way,
    /// For topics that come by datagram as well.
    newest: Option<Newest>,
    // Dropping it would stop the connection's packets.
    _endpoint: Endpoint,
}

enum Way {
    /// HTTP/3: lines in the body of a GET.
    Lines { _http: Http, body: RequestStream, parser: Parser },
    /// WebTransport: lines on a stream; the CONNECT request's stream ends with the session.
    WebTransport { _http: Http, connect: RequestStream, send: SendStream, receive: RecvStream, parser: Parser },
    /// Without HTTP: messages with their length before them.
    Lengths { send: SendStream, receive: RecvStream, buffer: BytesMut },
}

/// What keeps an HTTP/3 connection going.
struct Http {
    // Dropping the last of them would close the connection.
    sender: SendRequest<h3_quinn::OpenStreams, Bytes>,
    driver: JoinHandle<()>,
}

impl Drop for Http {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Quic {
    pub(crate) async fn open(options: &Options, subscription: &Subscription) -> Result<Self, Error> {
        let alpn: &[u8] = if options.over == Over::Quic { b"ticker/1" } else { b"h3" };
        let (endpoint, connection) = connect(options, alpn).await?;
        let opening = async {
            match options.over {
                Over::Quic => {
                    let (send, receive) = connection.open_bi().await.map_err(|e| lost(&e))?;
                    Ok(Way::Lengths { send, receive, buffer: BytesMut::new() })
                }
                Over::WebTransport => webtransport(options, &connection).await,
                _ => lines(options, &connection, subscription).await,
            }
        };
        let late = || Error::Lost(format!("no answer from {} in {:?}", options.quic, options.connect_timeout));
        let way = tokio::time::timeout(options.connect_timeout, opening).await.map_err(|_| late())??;
        let newest = Newest::of(subscription);
        let mut quic = Self { connection, way, newest, _endpoint: endpoint };
        if options.over != Over::H3 {
            if !subscription.topics.is_empty() {
                quic.send(&Request::Subscribe(Subscription { id: FIRST_ID, ..subscription.clone() })).await?;
            }
            // Protobuf's Subscribe has no max_kbps: it is a limit of the session.
            if let Some(kbps) = subscription.max_kbps.filter(|_| options.over == Over::Quic) {
                quic.send(&Request::Limit(Limit { max_kbps: Some(kbps), ..Limit::default() })).await?;
            }
        }
        Ok(quic)
    }

    pub(crate) async fn send(&mut self, request: &Request) -> Result<(), Error> {
        let (send, bytes) = match &mut self.way {
            Way::Lines { .. } => {
                return Err(Error::Options("this transport has no back channel: connect again with the cursor".into()));
            }
            Way::WebTransport { send, .. } => {
                let mut text =
                    serde_json::to_vec(request).map_err(|e| Error::Options(format!("not a request: {e}")))?;
                text.push(b'\n');
                (send, text)
            }
            Way::Lengths { send, .. } => {
                (send, prost::Message::encode_length_delimited_to_vec(&request_to_wire(request)))
            }
        };
        send.write_all(&bytes).await.map_err(|error| match error {
            quinn::WriteError::ConnectionLost(error) => lost(&error),
            other => Error::lost(&other),
        })
    }

    /// Safe to cancel: what was read is in a buffer before anything is awaited again.
    pub(crate) async fn next(&mut self) -> Result<Option<Item>, Error> {
        let Some(newest) = &mut self.newest else { return self.way.next(&self.connection).await };
        loop {
            let item = tokio::select! {
                item = self.way.next(&self.connection) => item?,
                // Where the connection is lost, the stream says how.
                Ok(datagram) = self.connection.read_datagram() => Some(self.way.datagram(&datagram)?),
            };
            match item {
                Some(item) if !newest.admits(&item) => {}
                item => return Ok(item),
            }
        }
    }
}

impl Way {
    async fn next(&mut self, connection: &Connection) -> Result<Option<Item>, Error> {
        match self {
            Way::Lines { body, parser, .. } => loop {
                if let Some(item) = line(parser)? {
                    return Ok(Some(item));
                }
                match body.recv_data().await {
                    Ok(Some(mut data)) => parser.push(&data.copy_to_bytes(data.remaining())),
                    Ok(None) => return Ok(None),
                    Err(error) => return Err(Error::lost(&error)),
                }
            },
            Way::WebTransport { connect, receive, parser, .. } => loop {
                if let Some(item) = line(parser)? {
                    return Ok(Some(item));
                }
                match read(receive).await? {
                    Some(data) => parser.push(&data),
                    None => return closing(connect).await,
                }
            },
            Way::Lengths { receive, buffer, .. } => loop {
                if let Some(message) = delimited(buffer)? {
                    return Ok(Some(message.into()));
                }
                match read(receive).await? {
                    Some(data) => buffer.extend_from_slice(&data),
                    None => return Err(lost(&connection.closed().await)),
                }
            },
        }
    }

    /// A message that came as a datagram.
    fn datagram(&self, datagram: &[u8]) -> Result<Item, Error> {
        let wrong = |why: String| Error::Protocol(format!("a datagram: {why}"));
        let message = match self {
            Way::Lengths { .. } => message(datagram)?,
            _ => {
                // It begins with the session: that of the connection's first stream.
                let text = datagram.strip_prefix(&[0]).ok_or_else(|| wrong("of another session".into()))?;
                let text = std::str::from_utf8(text).map_err(|e| wrong(e.to_string()))?;
                json::read_message(text).map_err(|e| wrong(e.to_string()))?
            }
        };
        Ok(message.into())
    }
}

async fn read(receive: &mut RecvStream) -> Result<Option<Bytes>, Error> {
    match receive.read_chunk(READ_BYTES_MAX, true).await {
        Ok(chunk) => Ok(chunk.map(|c| c.bytes)),
        Err(quinn::ReadError::ConnectionLost(error)) => Err(lost(&error)),
        Err(error) => Err(Error::lost(&error)),
    }
}

fn line(parser: &mut Parser) -> Result<Option<Item>, Error> {
    while let Some(line) = parser.line()? {
        if !line.is_empty() {
            let message = json::read_message(&line).map_err(|e| Error::Protocol(e.to_string()))?;
            return Ok(Some(message.into()));
        }
    }
    Ok(None)
}

fn message(bytes: &[u8]) -> Result<Message, Error> {
    let wire = <v1::SessionResponse as prost::Message>::decode(bytes).map_err(|e| Error::Protocol(e.to_string()))?;
    convert::message_from_wire(wire).map_err(|e| Error::Protocol(e.to_string()))
}

/// Takes the first message off, if it is whole.
fn delimited(buffer: &mut BytesMut) -> Result<Option<Message>, Error> {
    let mut rest = &buffer[..];
    let Ok(length) = prost::decode_length_delimiter(&mut rest) else {
        // Ten bytes hold any length.
        return if buffer.len() < 10 { Ok(None) } else { Err(Error::Protocol("a length that is no number".into())) };
    };
    if length > MESSAGE_BYTES_MAX {
        return Err(Error::Protocol(format!("a message of {length} bytes")));
    }
    let Some(bytes) = rest.get(..length) else { return Ok(None) };
    let message = message(bytes)?;
    let used = buffer.len() - rest.len() + length;
    buffer.advance(used);
    Ok(Some(message))
}

/// How a WebTransport session ended: its capsule on the CONNECT stream.
async fn closing(connect: &mut RequestStream) -> Result<Option<Item>, Error> {
    let mut bytes = Vec::new();
    while let Some(mut data) = connect.recv_data().await.map_err(|e| Error::lost(&e))? {
        bytes.extend_from_slice(&data.copy_to_bytes(data.remaining()));
        if bytes.len() > READ_BYTES_MAX {
            return Err(Error::Protocol("a capsule that has no end".into()));
        }
    }
    // CLOSE_WEBTRANSPORT_SESSION: its type in two bytes, a length in one or two, a code of 32 bits, the reason.
    match &bytes[..] {
        [] => Ok(None),
        [0x68, 0x43, short, rest @ ..] => {
            let rest = if short & 0xc0 == 0 { rest } else { rest.get(1..).unwrap_or_default() };
            let Some((code, reason)) = rest.split_first_chunk::<4>() else {
                return Err(Error::Protocol("the end of the session has no code".into()));
            };
            let code = u16::try_from(u32::from_be_bytes(*code)).unwrap_or(u16::MAX);
            Err(Error::from_close(code, &String::from_utf8_lossy(reason)))
        }
        _ => Err(Error::Protocol("a capsule that is not the end of the session".into())),
    }
}

async fn http(connection: &Connection) -> Result<Http, Error> {
    let mut builder = h3::client::builder();
    builder.enable_extended_connect(true).enable_datagram(true);
    let transport = h3_quinn::Connection::new(connection.clone());
    let (mut driver, sender) = builder.build(transport).await.map_err(|e| Error::lost(&e))?;
    // How a connection ends is told to whoever waits for its answer; the driver has nothing to add.
    let driver = tokio::spawn(async move { drop(driver.wait_idle().await) });
    Ok(Http { sender, driver })
}

async fn lines(options: &Options, connection: &Connection, subscription: &Subscription) -> Result<Way, Error> {
    let url = format!("{}/v1/stream{}", options.quic.trim_end_matches('/'), query(subscription, "from"));
    let request = ::http::Request::get(url).header("accept", "application/x-ndjson");
    let mut http = http(connection).await?;
    let mut body = ask(&mut http, request, options).await?;
    // A server that needs nothing more of the request may say so before its end is out: that is no error (RFC 9114 §4.1).
    let _ = body.finish().await;
    expect_ok(&mut body).await?;
    Ok(Way::Lines { _http: http, body, parser: Parser::default() })
}

async fn webtransport(options: &Options, connection: &Connection) -> Result<Way, Error> {
    let url = format!("{}/v1/wt", options.quic.trim_end_matches('/'));
    let request =
        ::http::Request::builder().method(::http::Method::CONNECT).uri(url).extension(h3::ext::Protocol::WEB_TRANSPORT);
    let mut http = http(connection).await?;
    let mut connect = ask(&mut http, request, options).await?;
    expect_ok(&mut connect).await?;
    let (mut send, receive) = connection.open_bi().await.map_err(|e| lost(&e))?;
    // The session's id is that of the CONNECT stream: the connection's first, so 0.
    let id = u8::try_from(connect.id().into_inner()).ok().filter(|id| *id < 0x40);
    let id = id.ok_or_else(|| Error::Protocol("the first stream has a large id".into()))?;
    let begin = [&STREAM_SIGNAL[..], &[id]].concat();
    send.write_all(&begin).await.map_err(|e| Error::lost(&e))?;
    Ok(Way::WebTransport { _http: http, connect, send, receive, parser: Parser::default() })
}

async fn ask(http: &mut Http, request: ::http::request::Builder, options: &Options) -> Result<RequestStream, Error> {
    let request = match &options.token {
        Some(token) => request.header("authorization", format!("Bearer {token}")),
        None => request,
    };
    let request = request.body(()).map_err(|e| Error::Options(format!("not a request: {e}")))?;
    http.sender.send_request(request).await.map_err(|e| Error::lost(&e))
}

async fn expect_ok(stream: &mut RequestStream) -> Result<(), Error> {
    let response = stream.recv_response().await.map_err(|e| Error::lost(&e))?;
    if response.status() == 200 {
        return Ok(());
    }
    let mut body = Vec::new();
    while let Ok(Some(mut data)) = stream.recv_data().await {
        body.extend_from_slice(&data.copy_to_bytes(data.remaining()));
        if body.len() > READ_BYTES_MAX {
            break;
        }
    }
    let retry = response.headers().get("retry-after").and_then(|v| v.to_str().ok());
    Err(Error::from_http(response.status().as_u16(), retry, &body))
}

fn lost(error: &ConnectionError) -> Error {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let code = u16::try_from(close.error_code.into_inner()).unwrap_or(u16::MAX);
            Error::from_close(code, &String::from_utf8_lossy(&close.reason))
        }
        other => Error::Lost(other.to_string()),
    }
}

async fn connect(options: &Options, alpn: &[u8]) -> Result<(Endpoint, Connection), Error> {
    let url = &options.quic;
    let wrong = |why: &str| Error::Options(format!("`{url}` is no address: {why}; expected https://HOST:PORT"));
    let uri: ::http::Uri = url.parse().map_err(|_| wrong("it cannot be parsed"))?;
    if uri.scheme_str() != Some("https") {
        return Err(wrong("it does not begin with https://"));
    }
    let host = uri.host().ok_or_else(|| wrong("it has no host"))?;
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let io = |error: &std::io::Error| Error::connect(url, error);
    let found = tokio::net::lookup_host((name, uri.port_u16().unwrap_or(443))).await.map_err(|e| io(&e))?.next();
    let address = found.ok_or_else(|| io(&std::io::ErrorKind::NotFound.into()))?;
    let local: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let tls = trust::config(options, &[alpn]).await?;
    let crypto = QuicClientConfig::try_from(tls).map_err(|e| Error::Options(e.to_string()))?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    let mut transport = quinn::TransportConfig::default();
    transport
        .max_idle_timeout(Some(options.quic_idle.try_into().map_err(|_| wrong("quic_idle is too long"))?))
        .keep_alive_interval(Some(options.quic_idle / 3))
        .stream_receive_window(STREAM_WINDOW_BYTES.into())
        .receive_window(CONNECTION_WINDOW_BYTES.into());
    config.transport_config(Arc::new(transport));
    let endpoint = Endpoint::client(local).map_err(|e| io(&e))?;
    let connecting = endpoint.connect_with(config, address, name).map_err(|e| wrong(&e.to_string()))?;
    match tokio::time::timeout(options.connect_timeout, connecting).await {
        Ok(Ok(connection)) => Ok((endpoint, connection)),
        Ok(Err(error)) => Err(Error::Connect { url: url.clone(), reason: error.to_string() }),
        Err(_) => Err(io(&std::io::ErrorKind::TimedOut.into())),
    }
}
