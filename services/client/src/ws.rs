//! WebSocket, JSON or Protobuf.

use futures_util::{SinkExt, StreamExt};
use ticker_proto::{Message, Request, convert, json, v1};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message as Frame, client::IntoClientRequest};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::error::Error;
use crate::grpc::request_to_wire;
use crate::options::{Endpoint, Options, Over, Subscription};
use crate::transport::{FIRST_ID, Item};

/// Far above the contract's 64 KiB: a server that breaks it is told so by [`crate::Board`], not by a lost connection.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

pub(crate) struct Ws {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    protobuf: bool,
}

impl Ws {
    pub(crate) async fn open(options: &Options, subscription: &Subscription) -> Result<Self, Error> {
        let endpoint = Endpoint::parse(&options.http)?;
        let protobuf = options.over == Over::WsProtobuf;
        let scheme = if endpoint.secure { "wss" } else { "ws" };
        let url = format!("{scheme}://{}{}/v1/ws", endpoint.authority, endpoint.prefix);
        let mut request = url.into_client_request().map_err(|e| Error::Options(format!("not a request: {e}")))?;
        if protobuf {
            request.headers_mut().insert("sec-websocket-protocol", ::http::HeaderValue::from_static("ticker.v1.proto"));
        }
        if let Some(token) = &options.token {
            let value = format!("Bearer {token}").parse();
            let value =
                value.map_err(|_| Error::Options("the token has characters that no header can carry".into()))?;
            request.headers_mut().insert("authorization", value);
        }
        let socket = endpoint.connect(options, b"http/1.1").await?;
        let config = WebSocketConfig::default()
            .read_buffer_size(16 * 1024)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let handshake = tokio_tungstenite::client_async_with_config(request, socket, Some(config));
        let (stream, _) = tokio::time::timeout(options.connect_timeout, handshake)
            .await
            .map_err(|_| Error::Lost(format!("no answer from {} in {:?}", endpoint.url, options.connect_timeout)))?
            .map_err(from_tungstenite)?;
        let mut ws = Self { stream, protobuf };
        if !subscription.topics.is_empty() {
            ws.send(&Request::Subscribe(Subscription { id: FIRST_ID, ..subscription.clone() })).await?;
        }
        Ok(ws)
    }

    pub(crate) async fn send(&mut self, request: &Request) -> Result<(), Error> {
        let frame = if self.protobuf {
            Frame::binary(prost::Message::encode_to_vec(&request_to_wire(request)))
        } else {
            let text = serde_json::to_string(request).map_err(|e| Error::Options(format!("not a request: {e}")))?;
            Frame::text(text)
        };
        self.stream.send(frame).await.map_err(from_tungstenite)
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Item>, Error> {
        loop {
            let frame = match self.stream.next().await {
                None => return Err(Error::Lost("the server ended the connection without a close frame".into())),
                Some(frame) => frame.map_err(from_tungstenite)?,
            };
            let message: Message = match frame {
                Frame::Text(text) => json::read_message(&text).map_err(|e| Error::Protocol(e.to_string()))?,
                Frame::Binary(bytes) => {
                    let wire = <v1::SessionResponse as prost::Message>::decode(bytes)
                        .map_err(|e| Error::Protocol(e.to_string()))?;
                    convert::message_from_wire(wire).map_err(|e| Error::Protocol(e.to_string()))?
                }
                Frame::Close(Some(close)) if u16::from(close.code) != 1000 => {
                    return Err(Error::from_close(close.code.into(), &close.reason));
                }
                Frame::Close(_) => return Ok(None),
                // The library answers pings by itself.
                Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_) => continue,
            };
            return Ok(Some(message.into()));
        }
    }
}

fn from_tungstenite(error: tungstenite::Error) -> Error {
    match error {
        tungstenite::Error::Http(response) => {
            let retry = response.headers().get("retry-after").and_then(|v| v.to_str().ok());
            let body = response.body().as_deref().unwrap_or_default();
            Error::from_http(response.status().as_u16(), retry, body)
        }
        tungstenite::Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)
        | tungstenite::Error::Io(_)
        | tungstenite::Error::ConnectionClosed
        | tungstenite::Error::AlreadyClosed => Error::lost(&error),
        other => Error::Protocol(other.to_string()),
    }
}
