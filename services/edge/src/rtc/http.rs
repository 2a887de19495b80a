//! Offers, and what is said of them later, by HTTP: the form of WHEP (draft-ietf-wish-whep) and WHIP (RFC 9725).

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::extract::rejection::BytesRejection;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use ticker_proto::Code;
use ticker_proto::message::Subscribe;
use ticker_rtc::agent::{self, AgentError, Local, MESSAGE_BYTES_MAX, Role};
use ticker_rtc::crypto;
use ticker_rtc::sdp::{Description, Fragment, SdpError, Setup};
use ticker_rtc::str0m::IceCreds;
use ticker_session::catalogue::Refusal;
use tokio::sync::oneshot;

use crate::framing::Framing;
use crate::library::From;
use crate::pipe::Pipe;
use crate::routes::{Web, problem};
use crate::rtc::peer::Peer;
use crate::rtc::{CONTROLS_MAX, Control, Entry, INBOX_MAX, Registration, Service, inbox};
use crate::{byte_session, params, webtransport};

/// What an offer is, and what is added to one.
const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// Characters of a peer's id: 5 bits each.
const ID_CHARS: usize = 26;

/// What a page of another origin may send and see.
const CORS: [(HeaderName, &str); 3] = [
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    (header::ACCESS_CONTROL_EXPOSE_HEADERS, "Location, Link, ETag, Retry-After"),
    (header::CACHE_CONTROL, "no-store"),
];

fn refused(code: Code, message: impl Into<String>) -> Response {
    problem(&Refusal::new(code, message))
}

fn off() -> Response {
    refused(Code::NotImplemented, "WebRTC is off here: its address is set by rtc_listen")
}

/// A status that the codes do not have, with its problem document.
fn status(status: StatusCode, code: Code, message: &str) -> Response {
    let mut response = refused(code, message);
    *response.status_mut() = status;
    response
}

/// Before a page of another origin may ask.
pub(crate) async fn options() -> Response {
    let allowed = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "POST, PATCH, DELETE"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "Authorization, Content-Type, If-Match"),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
        (HeaderName::from_static("accept-post"), SDP),
        (HeaderName::from_static("accept-patch"), FRAGMENT),
    ];
    (StatusCode::NO_CONTENT, CORS, allowed).into_response()
}

/// `POST /v1/rtc`: an offer, answered at once.
pub(crate) async fn offer(
    State(web): State<Web>,
    from: Option<Extension<From>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let Some(service) = &web.rtc else { return off() };
    let count_refused = |response: Response| {
        metrics::counter!("ticker_edge_rtc_offers_refused_total").increment(1);
        response
    };
    if let Err(response) = service.admit(from.map(|Extension(From(addr))| addr.ip()), query.as_deref(), &headers) {
        return count_refused(response);
    }
    let text = match text_of(&headers, SDP, body) {
        Ok(text) => text,
        Err(response) => return count_refused(response),
    };
    match service.answer(&web, query.as_deref().unwrap_or(""), &text).await {
        Ok((id, answer, tag)) => {
            let mut response = (StatusCode::CREATED, CORS, [(header::CONTENT_TYPE, SDP)], answer).into_response();
            let location = HeaderValue::try_from(format!("/v1/rtc/{id}")).expect("letters and digits");
            response.headers_mut().insert(header::LOCATION, location);
            response.headers_mut().insert(header::ETAG, tag_of(&tag));
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            for link in service.ice_servers.links(now) {
                // URLs were looked at when they were configured.
                if let Ok(link) = HeaderValue::try_from(link) {
                    response.headers_mut().append(header::LINK, link);
                }
            }
            response
        }
        Err(refusal) => count_refused(problem(&refusal)),
    }
}

/// `DELETE /v1/rtc/{id}`: the peer is gone.
pub(crate) async fn end(State(web): State<Web>, Path(id): Path<String>) -> Response {
    let Some(service) = &web.rtc else { return off() };
    match service.take_leave(&id) {
        Some(control) => {
            // Should its words be full, it is told so already.
            let _ = control.try_send(Control::End);
            (StatusCode::NO_CONTENT, CORS).into_response()
        }
        None => gone(),
    }
}

fn gone() -> Response {
    status(StatusCode::NOT_FOUND, Code::BadRequest, "there is no such peer, or no longer: offer again")
}

/// `PATCH /v1/rtc/{id}`: more candidates, or ICE begins anew.
pub(crate) async fn restart(
    State(web): State<Web>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let Some(service) = &web.rtc else { return off() };
    let Some(entry) = service.entry(&id) else { return gone() };
    let text = match text_of(&headers, FRAGMENT, body) {
        Ok(text) => text,
        Err(response) => return response,
    };
    let Fragment { credentials, .. } = match Fragment::parse(&text) {
        Ok(fragment) => fragment,
        Err(error) => return problem(&malformed(&error)),
    };
    let of_this_run = match headers.get(header::IF_MATCH).map(HeaderValue::as_bytes) {
        None | Some(b"*") => true,
        Some(tags) => tags == tag_of(&entry.fragment).as_bytes(),
    };
    if !of_this_run {
        let why = "ICE has begun anew since: the ETag is another";
        return status(StatusCode::PRECONDITION_FAILED, Code::BadRequest, why);
    }
    let Some((ufrag, pwd)) = credentials.filter(|(ufrag, _)| *ufrag != entry.remote) else {
        // We check no addresses: those at which the reader can be reached are told by its own checks (RFC 8445 §2.5).
        return (StatusCode::NO_CONTENT, CORS).into_response();
    };
    let Ok(local) = agent::credentials() else {
        return refused(Code::Internal, "there is no randomness for new credentials");
    };
    let (done, is_done) = oneshot::channel();
    let remote = IceCreds { ufrag, pass: pwd };
    let control = Control::Restart { remote, local: local.clone(), done };
    if entry.control.try_send(control).is_err() || is_done.await.is_err() {
        return gone();
    }
    let answer = Fragment::answer(&local.ufrag, &local.pass, &entry.mid, &service.addresses, &service.tcp);
    let mut response = (StatusCode::OK, CORS, [(header::CONTENT_TYPE, FRAGMENT)], answer).into_response();
    response.headers_mut().insert(header::ETAG, tag_of(&local.ufrag));
    response
}

fn tag_of(fragment: &str) -> HeaderValue {
    HeaderValue::try_from(format!("\"{fragment}\"")).expect("letters and digits")
}

#[allow(clippy::result_large_err, reason = "the response goes out as it is")]
fn text_of(headers: &HeaderMap, expected: &str, body: Result<Bytes, BytesRejection>) -> Result<String, Response> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    if !content_type.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case(expected) {
        let why = format!("the body is {content_type:?}: expected {expected}");
        return Err(status(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::BadRequest, &why));
    }
    let body = body.map_err(|_| refused(Code::MessageTooLarge, SdpError::TooLarge.to_string()))?;
    String::from_utf8(body.into()).map_err(|_| refused(Code::BadRequest, "the body is not UTF-8"))
}

fn malformed(error: &SdpError) -> Refusal {
    let code = if *error == SdpError::TooLarge { Code::MessageTooLarge } else { Code::BadRequest };
    Refusal::new(code, error.to_string())
}

/// What an offer's query asks for.
struct Asked {
    framing: Framing,
    /// The channels have ids that are agreed on.
    negotiated: bool,
    subscribe: Option<Subscribe>,
}

fn asked(query: &str) -> Result<Asked, Refusal> {
    let (framing, query) = webtransport::framing_of(query)?;
    let (negotiated, rest): (Vec<&str>, Vec<&str>) =
        query.split('&').partition(|pair| pair.split('=').next() == Some("negotiated"));
    let negotiated = match negotiated.last() {
        None | Some(&"negotiated=false") => false,
        Some(&"negotiated=true") => true,
        Some(other) => return Err(Refusal::new(Code::BadRequest, format!("`{other}`: expected true or false"))),
    };
    // A token is no business of the subscription's.
    let query = rest.into_iter().filter(|pair| !pair.starts_with("token=")).collect::<Vec<_>>().join("&");
    let subscribe = if query.is_empty() { None } else { Some(params::parse(&query)?.subscribe) };
    Ok(Asked { framing, negotiated, subscribe })
}

/// The SHA-256 of the token that comes with a request.
fn token_of(query: Option<&str>, headers: &HeaderMap) -> Option<[u8; 32]> {
    let header = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let query = query.unwrap_or("").split('&').find_map(|pair| pair.strip_prefix("token=")).map(str::as_bytes);
    header.or(query).map(crypto::sha256)
}

impl Service {
    fn entry(&self, id: &str) -> Option<Entry> {
        self.table().peers.get(id).filter(|entry| !entry.is_ending).cloned()
    }

    /// The way to a peer that is to end: from here on it is not there, however long its last words take.
    fn take_leave(&self, id: &str) -> Option<inbox::Sender<Control>> {
        let mut table = self.table();
        let entry = table.peers.get_mut(id).filter(|entry| !entry.is_ending)?;
        entry.is_ending = true;
        Some(entry.control.clone())
    }

    /// May whoever asks offer now? Otherwise what to answer.
    #[allow(clippy::result_large_err, reason = "the response goes out as it is")]
    fn admit(&self, address: Option<IpAddr>, query: Option<&str>, headers: &HeaderMap) -> Result<(), Response> {
        let mut admission = self.admission.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let admitted = admission.admit(address, token_of(query, headers), Instant::now());
        drop(admission);
        admitted.map_err(|too_many| {
            later(Code::RateLimited, &format!("too many offers {}", too_many.of), too_many.retry)
        })?;
        let peers = self.table().peers.len();
        if peers >= self.limits.peers_max {
            let why = format!("there are {peers} peers here already");
            return Err(later(Code::TooManySessions, &why, Duration::from_secs(5)));
        }
        let connecting = self.connecting.load(Ordering::Relaxed);
        if connecting >= self.limits.handshakes_max {
            let why = format!("{connecting} peers are connecting already");
            return Err(later(Code::RateLimited, &why, Duration::from_secs(1)));
        }
        Ok(())
    }

    /// Answers an offer: the peer's id, the answer, and the name of its run of ICE. From here on the peer may come.
    async fn answer(self: &Arc<Self>, web: &Web, query: &str, text: &str) -> Result<(String, String, String), Refusal> {
        let offered = Description::parse(text).map_err(|e| malformed(&e))?;
        let Asked { framing, negotiated, subscribe } = asked(query)?;
        let pipe = Pipe::open_with_datagrams(web.shard(), byte_session::form(framing), subscribe).await?;
        let now = Instant::now();
        let failed = |error: AgentError| {
            let code = if matches!(error, AgentError::SctpInit) { Code::BadRequest } else { Code::Internal };
            Refusal::new(code, error.to_string())
        };
        let certificate = self.certificate(now).map_err(failed)?;
        let fingerprint = certificate.fingerprint;
        let mut local = Local::new(certificate).map_err(failed)?;
        let id = agent::name::<ID_CHARS>().map_err(|e| failed(e.into()))?;
        let IceCreds { ufrag, pass } = local.credentials.clone();
        let sctp_init = match &offered.sctp_init {
            Some(_) => Some(local.sctp_init().map_err(failed)?),
            None => None,
        };
        let mut rtc = agent::begin(local, &offered, Role::Server, negotiated, now).map_err(failed)?;
        let addresses = self.addresses.iter().map(|at| (at, false)).chain(self.tcp.iter().map(|at| (at, true)));
        for (address, tcp) in addresses {
            if let Ok(candidate) = agent::address(*address, tcp) {
                rtc.add_local_candidate(candidate);
            }
        }
        let mid = offered.media[offered.data].mid.clone().unwrap_or_default();
        let answer = Description {
            lite: true,
            ufrag: ufrag.clone(),
            pwd: pass.clone(),
            fingerprint,
            setup: if offered.setup == Setup::Passive { Setup::Active } else { Setup::Passive },
            message_bytes_max: MESSAGE_BYTES_MAX,
            sctp_init,
            candidates: self.addresses.clone(),
            tcp: self.tcp.clone(),
            media: offered.media,
            data: offered.data,
        };
        let (packets, received) = inbox::queue(INBOX_MAX);
        let (control, controls) = inbox::queue(CONTROLS_MAX);
        let entry = Entry { control, fragment: ufrag.clone(), remote: offered.ufrag, mid, is_ending: false };
        let registration = Registration::new(self, &id, entry, packets);
        let peer = Peer::new(registration, rtc, (received, controls), (pipe, framing), pass, now);
        web.connections.spawn(Box::new(peer).run());
        Ok((id, answer.to_string(), ufrag))
    }
}

/// A refusal for now.
fn later(code: Code, message: &str, after: Duration) -> Response {
    let mut response = refused(code, message);
    let seconds = after.as_secs_f64().ceil() as u64;
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_asks_for_form_channels_and_topics() {
        let read = asked("format=proto&negotiated=true&topics=quote/a/B&token=x").expect("a query");
        assert_eq!((read.framing, read.negotiated), (Framing::Lengths, true));
        assert_eq!(read.subscribe.map(|s| s.topics), Some(vec!["quote/a/B".to_owned()]));
        let read = asked("token=x").expect("a query");
        assert!(read.subscribe.is_none() && !read.negotiated && read.framing == Framing::Lines);
        for wrong in ["negotiated=1", "format=xml", "nonsense=1"] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_counts_wherever_it_stands() {
        let mut headers = HeaderMap::new();
        assert_eq!(token_of(Some("topics=a"), &headers), None);
        assert_eq!(token_of(Some("topics=a&token=x"), &headers), Some(crypto::sha256(b"x")));
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer y"));
        assert_eq!(token_of(None, &headers), Some(crypto::sha256(b"Bearer y")));
    }
}
