//! Requests over HTTP/1.1 or HTTP/2, with TLS or without.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinHandle;

use crate::error::Error;
use crate::options::{Endpoint, Options};

/// A whole answer is at most so large: the snapshot of a thousand deep books.
const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// A whole answer of [`get`].
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: ::http::HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// Asks for a path such as `/v1/instruments?venue=kraken` and reads the whole answer, whatever its status.
///
/// # Errors
/// [`Error::Connect`] and [`Error::Lost`]; a status that tells of an error is an answer too, not an error here.
pub async fn get(options: &Options, path: &str) -> Result<Answer, Error> {
    let mut connection = Connection::open(options).await?;
    let response = connection.get(path, None, None).await?;
    let (parts, body) = response.into_parts();
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body: read_whole(body).await? })
}

/// The newest values of state and book topics, once: the cursor and the messages of `/v1/snapshot`.
///
/// # Errors
/// As [`get`], and [`Error::Refused`] with the service's code.
pub async fn snapshot(options: &Options, topics: &[String]) -> Result<(String, Vec<ticker_proto::Message>), Error> {
    let subscription = crate::Subscription { topics: topics.to_vec(), ..Default::default() };
    let path = format!("/v1/snapshot{}", crate::options::query(&subscription, "from"));
    let answer = get(options, &path).await?;
    if answer.status != 200 {
        return Err(Error::from_http(answer.status, None, &answer.body));
    }
    let text = std::str::from_utf8(&answer.body).map_err(|e| Error::Protocol(e.to_string()))?;
    ticker_proto::json::read_poll(text).map_err(|e| Error::Protocol(e.to_string()))
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// A connection that serves one request after the other. Dropping it closes it.
pub(crate) struct Connection {
    endpoint: Endpoint,
    token: Option<String>,
    timeout: Duration,
    sender: Sender,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    pub(crate) async fn open(options: &Options) -> Result<Self, Error> {
        let endpoint = Endpoint::parse(&options.http)?;
        let alpn: &[u8] = if options.http2 { b"h2" } else { b"http/1.1" };
        let io = TokioIo::new(endpoint.connect(options, alpn).await?);
        // How a connection ends is told to whoever waits for its answer; the driver has nothing to add.
        let (sender, driver) = if options.http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.map_err(|e| Error::lost(&e))?;
            (Sender::Http2(sender), tokio::spawn(async move { drop(connection.await) }))
        } else {
            let (sender, connection) = http1::handshake(io).await.map_err(|e| Error::lost(&e))?;
            (Sender::Http1(sender), tokio::spawn(async move { drop(connection.await) }))
        };
        Ok(Self { endpoint, token: options.token.clone(), timeout: options.connect_timeout, sender, driver })
    }

    /// Sends a GET and waits for the head of its answer, `wait` longer than for other answers where the server may take
    /// its time.
    pub(crate) async fn get(
        &mut self,
        path: &str,
        accept: Option<&str>,
        wait: Option<Duration>,
    ) -> Result<::http::Response<Incoming>, Error> {
        let mut request = self.request(::http::Method::GET, path);
        if let Some(accept) = accept {
            request = request.header("accept", accept);
        }
        self.answer(request, Bytes::new(), wait.unwrap_or_default()).await
    }

    /// Sends a body of that type, and waits for the head of the answer.
    pub(crate) async fn post(
        &mut self,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<::http::Response<Incoming>, Error> {
        let request = self.request(::http::Method::POST, path).header("content-type", content_type);
        self.answer(request, body, Duration::ZERO).await
    }

    fn request(&self, method: ::http::Method, path: &str) -> ::http::request::Builder {
        let Endpoint { authority, prefix, .. } = &self.endpoint;
        let scheme = self.endpoint.scheme();
        let mut request = ::http::Request::builder().method(method).uri(match self.sender {
            Sender::Http1(_) => format!("{prefix}{path}"),
            Sender::Http2(_) => format!("{scheme}://{authority}{prefix}{path}"),
        });
        if matches!(self.sender, Sender::Http1(_)) {
            request = request.header("host", authority);
        }
        match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    async fn answer(
        &mut self,
        request: ::http::request::Builder,
        body: Bytes,
        wait: Duration,
    ) -> Result<::http::Response<Incoming>, Error> {
        let request = request.body(Full::new(body)).map_err(|e| Error::Options(format!("not a request: {e}")))?;
        let timeout = self.timeout + wait;
        let url = self.endpoint.url.clone();
        let answer = async {
            match &mut self.sender {
                Sender::Http1(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
                Sender::Http2(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
            }
        };
        match tokio::time::timeout(timeout, answer).await {
            Ok(Err(error)) if error.is_closed() || error.is_canceled() => {
                Err(Error::Lost("the server closed the connection".into()))
            }
            Ok(answer) => answer.map_err(|e| Error::lost(&e)),
            Err(_) => Err(Error::Lost(format!("no answer from {url} in {timeout:?}"))),
        }
    }
}

/// The body, if the status is 200; the error that it tells of, if not.
pub(crate) async fn expect_ok(response: ::http::Response<Incoming>) -> Result<Incoming, Error> {
    expect(response, 200).await
}

/// The same for another status.
pub(crate) async fn expect(response: ::http::Response<Incoming>, status: u16) -> Result<Incoming, Error> {
    if response.status() == status {
        return Ok(response.into_body());
    }
    let status = response.status().as_u16();
    let retry = response.headers().get("retry-after").and_then(|v| v.to_str().ok()).map(str::to_owned);
    let body = read_whole(response.into_body()).await.unwrap_or_default();
    Err(Error::from_http(status, retry.as_deref(), &body))
}

pub(crate) async fn read_whole(body: Incoming) -> Result<Bytes, Error> {
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(Error::lost(error.as_ref())),
    }
}
