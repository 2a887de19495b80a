//! What the HTTP library answers: pages, lists, and (over TLS, HTTP/2 and HTTP/3) the streams and polls that shards answer
//! themselves over plain HTTP/1.1.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Query, RawQuery, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, patch, post};
use axum::{Extension, Router};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use ticker_market::topic::BEST;
use ticker_market::{Channel, decimal};
use ticker_proto::{Code, Form};
use ticker_rtc::sdp::BYTES_MAX as SDP_BYTES_MAX;
use ticker_session::catalogue::Refusal;
use tokio::sync::oneshot;

use crate::certificate::Certificates;
use crate::command::{Ask, Command, ShardHandle, Stalled};
use crate::history::{self, History};
use crate::library::Connections;
use crate::pace::Pace;
use crate::params::{self, Params};
use crate::pipe::Pipe;
use crate::upstream::SharedDirectory;
use crate::{grpc, rtc, steering, upgraded};

/// What handlers need.
#[derive(Clone)]
pub(crate) struct Web {
    pub(crate) shards: Arc<[ShardHandle]>,
    /// The next session of the library goes to this shard.
    pub(crate) turn: Arc<AtomicUsize>,
    pub(crate) directory: SharedDirectory,
    pub(crate) history: History,
    /// Tasks that must end before the edge has.
    pub(crate) connections: Connections,
    /// How long a reader may take nothing of what is sent.
    pub(crate) write_timeout: Duration,
    /// The TLS address, where there is one.
    pub(crate) secure: Option<Secure>,
    /// WebRTC, where it is on.
    pub(crate) rtc: Option<Arc<rtc::Service>>,
    /// How messages are gathered into packets, where the answers go in packets of QUIC.
    pub(crate) pace: Option<Arc<Pace>>,
}

/// What readers are told of the TLS address.
#[derive(Clone)]
pub(crate) struct Secure {
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) port: u16,
}

impl Web {
    /// The same for the sessions of one of `count` QUIC endpoints: see [`steering::shards_of`].
    pub(crate) fn of_endpoint(&self, index: usize, count: usize, pace: &Arc<Pace>) -> Self {
        let own = steering::shards_of(index, count, self.shards.len()).map(|shard| self.shards[shard].clone());
        Self { shards: own.collect(), turn: Arc::default(), pace: Some(Arc::clone(pace)), ..self.clone() }
    }

    pub(crate) fn shard(&self) -> ShardHandle {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.shards[turn % self.shards.len()].clone()
    }
}

/// All that the edge's public port serves.
pub(crate) fn service(web: Web) -> Router {
    router(web.clone()).merge(grpc::router(web))
}

fn router(web: Web) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/app.js", get(|| asset("text/javascript; charset=utf-8", include_bytes!("../static/app.js"))))
        .route("/style.css", get(|| asset("text/css; charset=utf-8", include_bytes!("../static/style.css"))))
        .route("/favicon.svg", get(|| asset("image/svg+xml", include_bytes!("../static/favicon.svg"))))
        .route("/v1/instruments", get(instruments))
        .route("/v1/venues", get(venues))
        .route("/v1/snapshot", get(snapshot))
        .route("/v1/stream", get(stream_events))
        .route("/v1/poll", get(poll))
        // CONNECT too: RFC 8441.
        .route("/v1/ws", any(upgraded::websocket))
        .route("/v1/bars/{venue}/{symbol}", get(history::bars))
        .route("/v1/trades/{venue}/{symbol}", get(history::trades))
        .route("/v1/wt", any(webtransport_elsewhere))
        .route("/v1/rtc", post(rtc::offer).options(rtc::options).layer(DefaultBodyLimit::max(SDP_BYTES_MAX)))
        .route(
            "/v1/rtc/{id}",
            patch(rtc::restart).delete(rtc::end).options(rtc::options).layer(DefaultBodyLimit::max(SDP_BYTES_MAX)),
        )
        .route("/v1/certificate-hashes", get(certificate_hashes))
        .route("/openapi.json", get(|| later("the contract as OpenAPI")))
        .route("/asyncapi.json", get(|| later("the contract as AsyncAPI")))
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        .with_state(web)
}

/// Says on every response that there is HTTP/3 on that port (RFC 7838).
pub(crate) fn with_alternative(router: Router, port: u16) -> Router {
    let value = format!("h3=\":{port}\"; ma=86400");
    let value = http::HeaderValue::try_from(value).expect("digits and quotes are visible characters");
    router.layer(map_response(move |mut response: Response| {
        response.headers_mut().insert(header::ALT_SVC, value.clone());
        async { response }
    }))
}

async fn page(State(web): State<Web>) -> Response {
    // WebTransport is at another port than a page that came without TLS.
    let secure = web.secure.as_ref().map_or_else(String::new, |s| format!(" https://*:{}", s.port));
    let policy = format!(
        "default-src 'self'; connect-src 'self' ws: wss:{secure}; object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
    );
    let headers =
        [(header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()), (header::CONTENT_SECURITY_POLICY, policy)];
    (headers, include_str!("../static/index.html")).into_response()
}

async fn asset(content_type: &'static str, bytes: &'static [u8]) -> Response {
    ([(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "no-cache")], bytes).into_response()
}

/// An error as problem details (RFC 9457).
pub(crate) fn problem(refusal: &Refusal) -> Response {
    let status = StatusCode::from_u16(refusal.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = [(header::CONTENT_TYPE, "application/problem+json"), (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")];
    (status, headers, refusal.code.problem(&refusal.message)).into_response()
}

async fn later(what: &'static str) -> Response {
    problem(&Refusal::new(Code::NotImplemented, format!("{what} comes with a later version")))
}

async fn nothing_here(uri: Uri) -> Response {
    let body = serde_json::json!({
        "type": "urn:ticker:error:not_found",
        "title": "There is nothing here",
        "status": 404,
        "detail": format!("no resource {}; see the README for the paths, GET / for the page", uri.path()),
        "code": "bad_request",
    });
    let headers = [(header::CONTENT_TYPE, "application/problem+json")];
    (StatusCode::NOT_FOUND, headers, body.to_string()).into_response()
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let body = serde_json::json!({
        "type": "urn:ticker:error:bad_request",
        "title": "The method is not allowed here",
        "status": 405,
        "detail": format!("{} does not take {method}; most resources take only GET", uri.path()),
        "code": "bad_request",
    });
    let headers = [(header::CONTENT_TYPE, "application/problem+json")];
    (StatusCode::METHOD_NOT_ALLOWED, headers, body.to_string()).into_response()
}

pub(crate) fn json(body: impl Into<Body>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    ];
    (headers, body.into()).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfVenue {
    venue: Option<String>,
}

#[derive(Serialize)]
struct ListedInstrument {
    venue: String,
    symbol: String,
    /// The consolidated venue has no names of its own.
    native: Option<String>,
    tick_size: Option<String>,
    lot_size: Option<String>,
    channels: Vec<&'static str>,
    status: Option<ListedStatus>,
}

#[derive(Serialize)]
struct ListedStatus {
    state: &'static str,
    integrity: &'static str,
    reason: Option<String>,
    last_verified: Option<i64>,
}

async fn instruments(
    State(web): State<Web>,
    query: Result<Query<OfVenue>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Ok(Query(OfVenue { venue })) = query else {
        return problem(&Refusal::new(Code::BadRequest, "the only parameter is `venue`, such as ?venue=kraken"));
    };
    let directory = web.directory.read().unwrap_or_else(PoisonError::into_inner);
    let wanted = |i: &&ticker_market::Instrument| venue.as_deref().is_none_or(|v| i.venue == v);
    let mut list: Vec<ListedInstrument> = directory
        .catalogue
        .instruments()
        .filter(wanted)
        .map(|i| ListedInstrument {
            venue: i.venue.to_string(),
            symbol: i.symbol.to_string(),
            native: Some(i.native.to_string()),
            tick_size: i.tick_size.map(decimal::to_text),
            lot_size: i.lot_size.map(decimal::to_text),
            channels: i.topics().map(|t| t.channel.as_str()).collect(),
            status: directory.status(i).map(|s| ListedStatus {
                state: s.state.as_str(),
                integrity: s.integrity.as_str(),
                reason: s.reason.as_ref().map(ToString::to_string),
                last_verified: s.last_verified.map(ticker_market::Time::micros),
            }),
        })
        .collect();
    // Only by its name, as in a pattern.
    if venue.as_deref() == Some(BEST) {
        list.extend(directory.catalogue.consolidated().map(|symbol| ListedInstrument {
            venue: BEST.to_owned(),
            symbol: symbol.to_owned(),
            native: None,
            tick_size: None,
            lot_size: None,
            channels: vec![Channel::Quote.as_str()],
            status: None,
        }));
    }
    if let Some(venue) = venue.filter(|_| list.is_empty()) {
        let message = format!("no instruments of a venue `{venue}`; GET /v1/venues lists the venues");
        return problem(&Refusal::new(Code::UnknownTopic, message));
    }
    json(serde_json::json!({ "instruments": list }).to_string())
}

async fn venues(State(web): State<Web>) -> Response {
    let directory = web.directory.read().unwrap_or_else(PoisonError::into_inner);
    let mut venues: std::collections::BTreeMap<String, (u64, std::collections::BTreeMap<&str, u64>)> =
        Default::default();
    for instrument in directory.catalogue.instruments() {
        let (count, states) = venues.entry(instrument.venue.to_string()).or_default();
        *count += 1;
        if let Some(status) = directory.status(instrument) {
            *states.entry(status.state.as_str()).or_default() += 1;
        }
    }
    // It has no `status`: its venues do.
    let consolidated = directory.catalogue.consolidated().count() as u64;
    if consolidated > 0 {
        venues.insert(BEST.to_owned(), (consolidated, Default::default()));
    }
    let list: Vec<_> = venues
        .into_iter()
        .map(|(venue, (instruments, states))| {
            serde_json::json!({ "venue": venue, "instruments": instruments, "states": states })
        })
        .collect();
    json(serde_json::json!({ "venues": list }).to_string())
}

async fn webtransport_elsewhere() -> Response {
    let message = "/v1/wt wants WebTransport over HTTP/3: connect with WebTransport to https://…/v1/wt at the TLS port";
    problem(&Refusal::new(Code::BadRequest, message))
}

/// The TLS port, and the hashes of its certificate where it is one for development: what a page gives to `WebTransport`.
async fn certificate_hashes(State(web): State<Web>) -> Response {
    let port = web.secure.as_ref().map(|s| s.port);
    let hashes = web.secure.as_ref().map(|s| s.certificates.hashes()).unwrap_or_default();
    json(serde_json::json!({ "port": port, "hashes": hashes }).to_string())
}

/// Reads what is asked for, from the query and (for a stream that goes on) the header.
fn asked(query: Option<String>, headers: &HeaderMap) -> Result<Params, Refusal> {
    let mut params = params::parse(query.as_deref().unwrap_or(""))?;
    if let Some(id) = headers.get("last-event-id").and_then(|v| v.to_str().ok()).filter(|id| !id.is_empty()) {
        params.subscribe.from = Some(id.to_owned());
    }
    Ok(params)
}

async fn ask(web: &Web, params: Params, wait: Duration) -> Response {
    let (reply, answer) = oneshot::channel();
    let ask = Ask { subscribe: params.subscribe, wait, reply };
    let gone = || problem(&Refusal::new(Code::Draining, "the edge is going away"));
    if !web.shard().tell(Command::Ask(Box::new(ask))).await {
        return gone();
    }
    match answer.await {
        Ok(Ok(body)) => json(body),
        Ok(Err(refusal)) => problem(&refusal),
        Err(_) => gone(),
    }
}

async fn snapshot(State(web): State<Web>, RawQuery(query): RawQuery) -> Response {
    let mut params = match params::parse(query.as_deref().unwrap_or("")) {
        Ok(params) => params,
        Err(refusal) => return problem(&refusal),
    };
    if let Err(refusal) = params::check_snapshot(&params.subscribe.topics) {
        return problem(&refusal);
    }
    (params.subscribe.from, params.subscribe.recent) = (None, None);
    ask(&web, params, params::SNAPSHOT_WAIT).await
}

async fn poll(State(web): State<Web>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    match asked(query, &headers) {
        Ok(params) => {
            let wait = Duration::from_secs(params.wait_seconds);
            ask(&web, params, wait).await
        }
        Err(refusal) => problem(&refusal),
    }
}

async fn stream_events(
    State(web): State<Web>,
    stalled: Option<Extension<Stalled>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
    let ndjson = accept.contains("application/x-ndjson");
    let form = if ndjson { Form::Ndjson } else { Form::Sse };
    let opened = match asked(query, &headers) {
        Ok(params) => {
            let Extension(stalled) = stalled.unwrap_or_default();
            Pipe::open(web.shard(), form, Some(params.subscribe), stalled).await.map(|pipe| pipe.paced(&web.pace))
        }
        Err(refusal) => Err(refusal),
    };
    let pipe = match opened {
        Ok(pipe) => pipe,
        Err(refusal) => return problem(&refusal),
    };
    let batches = stream::unfold(pipe, |mut pipe| async move {
        let batch = pipe.next().await?;
        Some((Ok::<Bytes, Infallible>(upgraded::joined(&batch)), pipe))
    });
    let content_type = if ndjson { "application/x-ndjson" } else { "text/event-stream; charset=utf-8" };
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    ];
    (headers, Body::from_stream(batches)).into_response()
}
