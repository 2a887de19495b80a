//! The head of an HTTP/1.1 request (RFC 9112), as far as a shard needs it, and the answers that a shard gives itself.
//!
//! A shard keeps `GET /v1/ws`, `/v1/stream` and `/v1/poll`; everything else goes to the HTTP library with the bytes that
//! were read.

use ticker_proto::Code;
use ticker_session::catalogue::Refusal;

use crate::params::{self, Params};
use crate::{deflate, websocket};

/// Largest head of a request, in bytes.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

const HEADERS_MAX: usize = 64;

/// What a request asks of a shard.
#[derive(Debug)]
pub enum Asked {
    /// `/v1/ws`, with a whole handshake.
    WebSocket {
        /// The value of `Sec-WebSocket-Accept`.
        accept: String,
        /// The subprotocol was asked for and is confirmed.
        protocol: Option<&'static str>,
        /// Messages are protobuf.
        protobuf: bool,
        /// The answer to the offered permessage-deflate, if it can be honoured.
        deflate: Option<&'static str>,
        /// Subscribed to at once, if the query names topics.
        params: Option<Params>,
    },
    /// `/v1/stream`.
    Stream {
        /// One JSON object a line instead of server-sent events.
        ndjson: bool,
        /// What is subscribed to.
        params: Params,
    },
    /// `/v1/poll`.
    Poll {
        /// What is subscribed to.
        params: Params,
        /// The connection stays open for the next request.
        keep_alive: bool,
    },
    /// To be answered with problem details.
    Refused(Refusal),
    /// Not a shard's: for the HTTP library.
    Other,
}

/// Reads a head. `None` while it is not whole; otherwise what is asked, and the length of the head.
pub fn parse(bytes: &[u8]) -> Option<(Asked, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return None,
        // The library gives the right answer to what is malformed, and speaks HTTP/2.
        Err(_) => return Some((Asked::Other, 0)),
    };
    let (path, query) = request.path.unwrap_or("/").split_once('?').unwrap_or((request.path.unwrap_or("/"), ""));
    let ours = request.method == Some("GET") && request.version == Some(1);
    let header = |name: &str| {
        request
            .headers
            .iter()
            .find(|h| h.name.eq_ignore_ascii_case(name))
            .and_then(|h| std::str::from_utf8(h.value).ok())
    };
    // A body has no meaning here; where one is announced, the library reads it off.
    let body = header("transfer-encoding").is_some() || header("content-length").is_some_and(|l| l.trim() != "0");
    if !ours || body {
        return Some((Asked::Other, 0));
    }
    let asked = match path {
        "/v1/ws" => {
            let is_offer = |h: &&httparse::Header<'_>| h.name.eq_ignore_ascii_case("sec-websocket-extensions");
            let offers = request.headers.iter().filter(is_offer).map(|h| h.value);
            websocket_asked(query, &header, deflate::negotiate(offers))
        }
        "/v1/stream" => stream_asked(query, &header),
        "/v1/poll" => match params::parse(query) {
            Ok(params) => Asked::Poll { params, keep_alive: !lists(header("connection"), "close") },
            Err(refusal) => Asked::Refused(refusal),
        },
        _ => return Some((Asked::Other, 0)),
    };
    Some((asked, length))
}

fn stream_asked<'a>(query: &str, header: &impl Fn(&str) -> Option<&'a str>) -> Asked {
    let ndjson = header("accept").is_some_and(|a| a.contains("application/x-ndjson"));
    match params::parse(query) {
        Ok(mut params) => {
            if let Some(id) = header("last-event-id").filter(|id| !id.is_empty()) {
                params.subscribe.from = Some(id.to_owned());
            }
            Asked::Stream { ndjson, params }
        }
        Err(refusal) => Asked::Refused(refusal),
    }
}

fn websocket_asked<'a>(query: &str, header: &impl Fn(&str) -> Option<&'a str>, deflate: Option<&'static str>) -> Asked {
    let bad = |message: &str| Asked::Refused(Refusal::new(Code::BadRequest, message));
    let upgrade = header("upgrade").is_some_and(|u| u.eq_ignore_ascii_case("websocket"));
    let Some(key) = header("sec-websocket-key").filter(|_| upgrade && lists(header("connection"), "upgrade")) else {
        return bad("/v1/ws wants a WebSocket handshake (RFC 6455): connect with a WebSocket client to ws://…/v1/ws");
    };
    match websocket_terms(query, header) {
        Ok((protocol, params)) => {
            let accept = websocket::accept_key(key.as_bytes());
            Asked::WebSocket { accept, protocol, protobuf: protocol == Some("ticker.v1.proto"), deflate, params }
        }
        Err(refusal) => Asked::Refused(refusal),
    }
}

/// What a WebSocket handshake settles whatever the version of HTTP: the subprotocol, and what is subscribed to at once.
pub(crate) fn websocket_terms<'a>(
    query: &str,
    header: &impl Fn(&str) -> Option<&'a str>,
) -> Result<(Option<&'static str>, Option<Params>), Refusal> {
    if header("sec-websocket-version") != Some("13") {
        return Err(Refusal::new(Code::BadRequest, "Sec-WebSocket-Version must be 13 (RFC 6455)"));
    }
    let offered = header("sec-websocket-protocol").unwrap_or("");
    let protocol = match offered.split(',').map(str::trim).find(|p| p.starts_with("ticker.v1.")) {
        Some("ticker.v1.json") => Some("ticker.v1.json"),
        Some("ticker.v1.proto") => Some("ticker.v1.proto"),
        _ if offered.is_empty() => None,
        _ => {
            let message =
                "none of the offered subprotocols is spoken here: there are ticker.v1.json and ticker.v1.proto";
            return Err(Refusal::new(Code::BadRequest, message));
        }
    };
    let params = if query.is_empty() { None } else { Some(params::parse(query)?) };
    Ok((protocol, params))
}

pub(crate) fn lists(value: Option<&str>, token: &str) -> bool {
    value.is_some_and(|v| v.split(',').any(|t| t.trim().eq_ignore_ascii_case(token)))
}

/// The head of a `101` (RFC 6455 §4.2.2).
pub fn switching(accept: &str, protocol: Option<&str>, extensions: Option<&str>) -> Vec<u8> {
    let mut out = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: {accept}\r\n"
    );
    for (name, value) in [("sec-websocket-protocol", protocol), ("sec-websocket-extensions", extensions)] {
        if let Some(value) = value {
            out.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    out.push_str("\r\n");
    out.into_bytes()
}

/// The head of a stream that ends with its connection.
pub fn streaming(ndjson: bool) -> Vec<u8> {
    let content_type = if ndjson { "application/x-ndjson" } else { "text/event-stream; charset=utf-8" };
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncache-control: no-store\r\nx-accel-buffering: no\r\naccess-control-allow-origin: *\r\nconnection: close\r\n\r\n"
    )
    .into_bytes()
}

/// A whole answer with a JSON body.
pub fn json(status: u16, content_type: &str, body: &[u8], keep_alive: bool) -> Vec<u8> {
    let reason = http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("");
    let connection = if keep_alive { "" } else { "connection: close\r\n" };
    let mut out = format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\ncache-control: no-store\r\naccess-control-allow-origin: *\r\n{connection}\r\n",
        body.len()
    )
    .into_bytes();
    out.extend_from_slice(body);
    out
}

/// Problem details (RFC 9457).
pub fn problem(refusal: &Refusal) -> Vec<u8> {
    let body = refusal.code.problem(&refusal.message);
    json(refusal.code.http_status(), "application/problem+json", body.as_bytes(), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_keeps_only_its_own_paths() {
        let other = |text: &str| matches!(parse(text.as_bytes()), Some((Asked::Other, _)));
        assert!(other("GET / HTTP/1.1\r\nhost: x\r\n\r\n"));
        assert!(other("POST /v1/poll?topics=a HTTP/1.1\r\nhost: x\r\n\r\n"));
        assert!(other("GET /v1/poll?topics=a HTTP/1.1\r\ncontent-length: 3\r\n\r\n"));
        assert!(other("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
        assert!(other("\0\0\0garbage\r\n\r\n"));
        assert!(parse(b"GET /v1/poll?topics=a HTTP/1.1\r\nhost:").is_none());
        let (asked, length) = parse(b"GET /v1/poll?topics=a HTTP/1.1\r\nhost: x\r\n\r\nGET").expect("whole");
        assert!(matches!(asked, Asked::Poll { keep_alive: true, .. }));
        assert_eq!(length, "GET /v1/poll?topics=a HTTP/1.1\r\nhost: x\r\n\r\n".len());
    }

    #[test]
    fn last_event_id_goes_before_from() {
        let text =
            "GET /v1/stream?topics=a&from=e-1 HTTP/1.1\r\nLast-Event-ID: e-2\r\nAccept: application/x-ndjson\r\n\r\n";
        let Some((Asked::Stream { ndjson: true, params }, _)) = parse(text.as_bytes()) else { panic!("a stream") };
        assert_eq!(params.subscribe.from.as_deref(), Some("e-2"));
    }

    #[test]
    fn a_websocket_needs_a_whole_handshake() {
        let ask = |extra: &str| parse(format!("GET /v1/ws HTTP/1.1\r\n{extra}\r\n").as_bytes()).expect("whole").0;
        let good = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        assert!(matches!(ask(good), Asked::WebSocket { protocol: None, protobuf: false, .. }));
        let proto = format!("{good}Sec-WebSocket-Protocol: other, ticker.v1.proto\r\n");
        assert!(matches!(ask(&proto), Asked::WebSocket { protobuf: true, deflate: None, .. }));
        let offer = "Sec-WebSocket-Extensions: ";
        let deflate = format!("{good}{offer}x\r\n{offer}permessage-deflate; client_max_window_bits\r\n");
        assert!(matches!(ask(&deflate), Asked::WebSocket { deflate: Some(_), .. }));
        assert!(matches!(ask(""), Asked::Refused(_)));
        assert!(matches!(ask(&format!("{good}Sec-WebSocket-Protocol: graphql\r\n")), Asked::Refused(_)));
    }
}
