//! One WebSocket connection to a venue.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Uri, header};
use rustls::ClientConfig;
use ticker_feeds::{Conn, Rules};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config};

use super::care::{Heard, Silences};
use super::fetch::{USER_AGENT, retry_after};
use super::sends::Sends;
use crate::config::ConnectionConfig;
use crate::error::told;

/// A message of a venue is not larger. The largest in the recordings, a snapshot of Coinbase, has 5.8 MB.
pub(super) const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// A connection stands after so long, or the try failed.
const CONNECT_MAX: Duration = Duration::from_secs(15);

/// A venue takes a message within so long, or the connection is given up.
const SEND_MAX: Duration = Duration::from_secs(10);

/// How long a venue may take over our goodbye.
const CLOSE_MAX: Duration = Duration::from_millis(500);

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub(super) struct Link {
    pub(super) conn: Conn,
    socket: Socket,
    pub(super) opened: Instant,
    /// When the venue last gave a sign of life: a frame or a ping, not the answer to a ping of ours, which a proxy
    /// before a mute venue gives as well.
    pub(super) heard: Instant,
    /// When each channel was heard.
    pub(super) channels: Heard,
    /// When we last sent something.
    spoke: Instant,
    pub(super) sends: Sends,
}

/// Why there is no socket.
#[derive(Debug)]
pub(super) struct NoSocket {
    /// For a person.
    pub(super) why: String,
    /// How long the venue asks to be left alone (`Retry-After`).
    pub(super) wait: Option<Duration>,
}

impl From<String> for NoSocket {
    fn from(why: String) -> Self {
        Self { why, wait: None }
    }
}

impl From<Error> for NoSocket {
    fn from(error: Error) -> Self {
        let wait = match &error {
            Error::Http(response) => retry_after(response.headers()),
            _ => None,
        };
        Self { why: told(&error), wait }
    }
}

/// Connects.
pub(super) async fn connect(uri: Uri, tls: Arc<ClientConfig>) -> Result<Socket, NoSocket> {
    let mut request = uri.into_client_request()?;
    request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    let config =
        WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX)).max_frame_size(Some(MESSAGE_BYTES_MAX));
    let connecting = connect_async_tls_with_config(request, Some(config), true, Some(Connector::Rustls(tls)));
    match timeout(CONNECT_MAX, connecting).await {
        Err(_) => Err(format!("no connection in {CONNECT_MAX:?}").into()),
        Ok(Err(error)) => Err(error.into()),
        Ok(Ok((socket, _))) => Ok(socket),
    }
}

impl Link {
    pub(super) fn new(conn: Conn, socket: Socket, rules: &Rules, now: Instant) -> Self {
        let sends = Sends::new(rules.sends_per_second_max, now);
        Self { conn, socket, opened: now, heard: now, channels: Heard::default(), spoke: now, sends }
    }

    /// After how long a silence it counts as mute.
    pub(super) fn patience(&self, rules: &Rules, config: &ConnectionConfig, silences: &Silences) -> Duration {
        silences.patience(self.heard - self.opened, config, rules.silence_max)
    }

    /// It gave a sign of life.
    pub(super) fn hear(&mut self, now: Instant, silences: &mut Silences) {
        silences.of_all(now.saturating_duration_since(self.heard));
        self.heard = now;
    }

    /// When to ping.
    pub(super) fn ping_at(&self, rules: &Rules) -> Instant {
        self.spoke + rules.ping_every
    }

    /// Pings as the venue wants it.
    pub(super) async fn ping(&mut self, rules: &Rules, now: Instant) -> Result<(), Error> {
        let message = match rules.ping_text {
            Some(text) => Message::text(text),
            None => Message::Ping(Vec::new().into()),
        };
        self.sends.sent(now);
        self.send(message, now).await
    }

    /// Sends what waits and may go now, and tells `wrote` of each message. Returns how many went.
    pub(super) async fn send_due(&mut self, now: Instant, wrote: &mut (impl FnMut(&str) + Send)) -> Result<u64, Error> {
        let mut sent = 0;
        while let Some(text) = self.sends.pop(now) {
            wrote(&text);
            self.send(Message::text(text), now).await?;
            sent += 1;
        }
        Ok(sent)
    }

    /// Says goodbye.
    pub(super) async fn close(mut self) {
        let _gone_anyway = timeout(CLOSE_MAX, self.socket.close(None)).await;
    }

    async fn send(&mut self, message: Message, now: Instant) -> Result<(), Error> {
        self.spoke = now;
        let late = |_| Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "the venue takes no messages"));
        timeout(SEND_MAX, self.socket.send(message)).await.unwrap_or_else(|e| Err(late(e)))
    }
}

/// The next message of any of these, with the place of its link; `None` at the end of one. Never completes for none.
pub(super) async fn next_message(links: &mut [Link]) -> (usize, Option<Result<Message, Error>>) {
    std::future::poll_fn(|cx| {
        // The newest first: its snapshot is what the older one is only kept for.
        for (i, link) in links.iter_mut().enumerate().rev() {
            if let Poll::Ready(message) = link.socket.poll_next_unpin(cx) {
                return Poll::Ready((i, message));
            }
        }
        Poll::Pending
    })
    .await
}
