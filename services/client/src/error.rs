//! What can go wrong for a reader.

use std::time::Duration;

use ticker_proto::Code;

/// Why a reader has no more messages.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers there.
    #[error("cannot connect to {url}: {reason}; is `ticker up` running?")]
    Connect {
        /// Where to.
        url: String,
        /// Why not.
        reason: String,
    },
    /// The service said no, or ended the session, with one of the contract's codes.
    #[error("{message} ({code})")]
    Refused {
        /// The code, the same on every transport.
        code: Code,
        /// What the service said.
        message: String,
        /// Where to go on from, if the service said so.
        cursor: Option<String>,
        /// How long to wait first, if the service said so.
        retry: Option<Duration>,
    },
    /// The connection ended without a word.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// The other end does not keep to the contract.
    #[error("not as the contract says: {0}")]
    Protocol(String),
    /// The options make no sense, or this client cannot do it.
    #[error("{0}")]
    Options(String),
}

impl Error {
    /// The contract's code, if the service gave one.
    pub fn code(&self) -> Option<Code> {
        match self {
            Error::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Can the same request succeed later? Then a reader may try again, with its cursor.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Connect { .. } | Error::Lost(_) => true,
            Error::Refused { code, .. } => matches!(
                code,
                Code::TooManySessions | Code::RateLimited | Code::SlowConsumer | Code::Draining | Code::Internal
            ),
            Error::Protocol(_) | Error::Options(_) => false,
        }
    }

    pub(crate) fn refused(code: Code, message: impl Into<String>) -> Self {
        Error::Refused { code, message: message.into(), cursor: None, retry: None }
    }

    pub(crate) fn connect(url: &str, error: &std::io::Error) -> Self {
        let reason = match error.kind() {
            std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            std::io::ErrorKind::TimedOut => "no answer in time".to_owned(),
            _ => error.to_string(),
        };
        Error::Connect { url: url.to_owned(), reason }
    }

    pub(crate) fn lost(error: &(dyn std::error::Error + 'static)) -> Self {
        // The outermost error of hyper and tonic says little; the cause at the end of the chain says why.
        let mut deepest = error;
        while let Some(cause) = deepest.source() {
            deepest = cause;
        }
        Error::Lost(deepest.to_string())
    }

    /// From problem details (RFC 9457), or whatever else came with that HTTP status.
    pub(crate) fn from_http(status: u16, retry_after: Option<&str>, body: &[u8]) -> Self {
        #[derive(serde::Deserialize)]
        struct Problem {
            code: Option<String>,
            detail: Option<String>,
            title: Option<String>,
        }
        let problem: Option<Problem> = serde_json::from_slice(body).ok();
        let named = problem.as_ref().and_then(|p| Code::from_name(p.code.as_deref()?));
        let code = named.unwrap_or_else(|| {
            Code::ALL.into_iter().find(|c| c.http_status() == status).unwrap_or(match status {
                // RFC 9110 §15.5.15 and RFC 6585 §5: the head of the request, or its first line, is too long.
                414 | 431 => Code::MessageTooLarge,
                400..=499 => Code::BadRequest,
                _ => Code::Internal,
            })
        });
        let message = problem.and_then(|p| p.detail.or(p.title)).unwrap_or_else(|| {
            let text: String = String::from_utf8_lossy(body).trim().chars().take(200).collect();
            if text.is_empty() { format!("HTTP status {status}") } else { format!("HTTP status {status}: {text}") }
        });
        let retry = retry_after.and_then(|s| s.trim().parse().ok()).map(Duration::from_secs);
        Error::Refused { code, message, cursor: None, retry }
    }

    /// From a WebSocket close code: those of the contract begin at 4000, in its order.
    pub(crate) fn from_close(close: u16, reason: &str) -> Self {
        match Code::ALL.into_iter().find(|c| c.websocket_close() == close) {
            Some(code) => Error::refused(code, if reason.is_empty() { "the session was closed" } else { reason }),
            // RFC 6455 §7.4.1: 1001 is "going away".
            None if close == 1001 => Error::refused(Code::Draining, "the server goes away"),
            None => Error::Lost(format!("closed with code {close} {reason}").trim_end().to_owned()),
        }
    }

    pub(crate) fn from_status(status: &tonic::Status) -> Self {
        let named = status.metadata().get("ticker-code").and_then(|v| Code::from_name(v.to_str().ok()?));
        let code = match (named, status.code()) {
            (Some(code), _) => code,
            // Without our code it is the transport that speaks.
            (None, tonic::Code::Unavailable | tonic::Code::Unknown | tonic::Code::Cancelled) => {
                return Error::lost(status);
            }
            // The library's word for a message that is too large.
            (None, tonic::Code::OutOfRange) => Code::MessageTooLarge,
            (None, grpc) => Code::ALL.into_iter().find(|c| c.grpc() == grpc).unwrap_or(Code::Internal),
        };
        Error::refused(code, status.message())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problem_details_keep_their_code_and_text() {
        let body = Code::UnknownTopic.problem("no instrument kraken:BTC-USX");
        let error = Error::from_http(404, None, body.as_bytes());
        assert_eq!(error.code(), Some(Code::UnknownTopic));
        assert_eq!(error.to_string(), "no instrument kraken:BTC-USX (unknown_topic)");
        assert!(!error.is_transient());
        let error = Error::from_http(503, Some("3"), Code::Draining.problem("going away").as_bytes());
        assert!(matches!(error, Error::Refused { retry: Some(d), .. } if d == Duration::from_secs(3)));
        assert!(error.is_transient());
        let error = Error::from_http(404, None, b"<html>not ours</html>");
        assert_eq!(error.to_string(), "HTTP status 404: <html>not ours</html> (unknown_topic)");
    }

    #[test]
    fn close_codes_are_the_contracts() {
        assert_eq!(Error::from_close(4008, "too slow").code(), Some(Code::SlowConsumer));
        assert_eq!(Error::from_close(1001, "").code(), Some(Code::Draining));
        assert!(matches!(Error::from_close(1006, ""), Error::Lost(_)));
    }

    #[test]
    fn a_refused_connection_says_what_to_do() {
        let error = Error::connect("http://127.0.0.1:8080", &std::io::ErrorKind::ConnectionRefused.into());
        assert_eq!(
            error.to_string(),
            "cannot connect to http://127.0.0.1:8080: connection refused; is `ticker up` running?"
        );
    }
}
