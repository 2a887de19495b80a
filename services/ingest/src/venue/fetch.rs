//! TLS to venues, and their REST answers.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use tokio::time::Instant;

use crate::IngestError;
use crate::error::told;

/// A REST answer is not larger (Binance's whole list of instruments has about 20 MB).
pub(crate) const BODY_BYTES_MAX: usize = 64 << 20;

/// A REST answer is there after so long, or it failed.
const FETCH_MAX: Duration = Duration::from_secs(20);

/// A venue that asks for more patience than this is asked again all the same.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// Who we are: some venues refuse requests that do not say.
pub(crate) const USER_AGENT: &str = concat!("ticker/", env!("CARGO_PKG_VERSION"));

/// TLS 1.2 and 1.3 with ring, trusting the roots that Mozilla trusts.
pub(crate) fn tls() -> Result<Arc<ClientConfig>, IngestError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|why| IngestError::Tls(why.to_string()))?
        .with_webpki_roots()
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Why a REST answer did not come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("not a URL: {0}")]
    Url(String),
    #[error("no answer: {0}")]
    Transport(String),
    #[error("status {0}")]
    Status(StatusCode),
    #[error("no complete answer in {FETCH_MAX:?}")]
    Slow,
}

impl FetchError {
    /// A short stable word.
    pub(crate) fn cause(&self) -> &'static str {
        match self {
            FetchError::Url(_) => "url",
            FetchError::Transport(_) => "transport",
            FetchError::Status(s) if *s == StatusCode::TOO_MANY_REQUESTS || s.as_u16() == 418 => "rate_limited",
            FetchError::Status(_) => "status",
            FetchError::Slow => "timeout",
        }
    }
}

/// Fetches from one venue. Clones share their connections.
#[derive(Clone, Debug)]
pub(crate) struct Fetcher {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    /// Replaces scheme and authority of every URL.
    base: Option<Uri>,
    /// The venue asked to be left alone until then.
    quiet_until: Arc<Mutex<Option<Instant>>>,
}

impl Fetcher {
    pub(crate) fn new(tls: &Arc<ClientConfig>, base: Option<Uri>) -> Self {
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(ClientConfig::clone(tls))
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Self { client, base, quiet_until: Arc::default() }
    }

    /// The body of `url`'s answer.
    pub(crate) async fn fetch(&self, url: &str) -> Result<Bytes, FetchError> {
        self.ask(Method::GET, url).await
    }

    /// The body of the answer to a POST without a body.
    pub(crate) async fn post(&self, url: &str) -> Result<Bytes, FetchError> {
        self.ask(Method::POST, url).await
    }

    async fn ask(&self, method: Method, url: &str) -> Result<Bytes, FetchError> {
        let quiet_until = *self.quiet();
        if let Some(until) = quiet_until {
            tokio::time::sleep_until(until).await;
        }
        let uri = rebase(url, self.base.as_ref()).map_err(FetchError::Url)?;
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::ACCEPT, "application/json")
            .body(Empty::new())
            .map_err(|why| FetchError::Url(why.to_string()))?;
        tokio::time::timeout(FETCH_MAX, self.answer(request)).await.unwrap_or(Err(FetchError::Slow))
    }

    async fn answer(&self, request: Request<Empty<Bytes>>) -> Result<Bytes, FetchError> {
        let response = self.client.request(request).await.map_err(|why| FetchError::Transport(told(&why)))?;
        let status = response.status();
        if !status.is_success() {
            if let Some(wait) = retry_after(response.headers()) {
                *self.quiet() = Some(Instant::now() + wait);
            }
            return Err(FetchError::Status(status));
        }
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
        Ok(body.map_err(|why| FetchError::Transport(why.to_string()))?.to_bytes())
    }

    fn quiet(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For how long an answer asks to be left alone.
pub(super) fn retry_after(headers: &http::HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// The URL with scheme and authority of `base`; its path and query too, if it has any.
pub(crate) fn rebase(url: &str, base: Option<&Uri>) -> Result<Uri, String> {
    let uri: Uri = url.parse().map_err(|why: http::uri::InvalidUri| why.to_string())?;
    let Some(base) = base else { return Ok(uri) };
    let mut parts = base.clone().into_parts();
    if matches!(base.path(), "" | "/") && base.query().is_none() {
        parts.path_and_query = uri.into_parts().path_and_query;
    }
    Uri::from_parts(parts).map_err(|why| why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_venue_says_how_long_it_is_to_be_left_alone() {
        let wait = |value: &str| {
            let value = value.parse().expect("a header");
            retry_after(&http::HeaderMap::from_iter([(header::RETRY_AFTER, value)]))
        };
        assert_eq!(wait(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(wait("86400"), Some(RETRY_AFTER_MAX));
        assert_eq!((wait("Wed, 21 Oct 2026 07:28:00 GMT"), retry_after(&http::HeaderMap::new())), (None, None));
    }

    #[test]
    fn another_server_keeps_the_path() {
        let base: Uri = "http://127.0.0.1:9".parse().expect("a URL");
        let uri = rebase("https://api.binance.com/api/v3/depth?symbol=BTCUSDT", Some(&base)).expect("a URL");
        assert_eq!(uri.to_string(), "http://127.0.0.1:9/api/v3/depth?symbol=BTCUSDT");
        let base: Uri = "ws://127.0.0.1:9/v2".parse().expect("a URL");
        assert_eq!(rebase("wss://x/v1?a", Some(&base)).expect("a URL").to_string(), "ws://127.0.0.1:9/v2");
        assert!(rebase("not a url", None).is_err());
    }
}
