//! The error codes of the contract, the same on every transport.

use crate::v1;

/// Why a request failed or a session ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Code {
    /// Malformed, or not allowed in this form.
    BadRequest,
    /// No such instrument or channel.
    UnknownTopic,
    /// No token, or not a valid one.
    Unauthorized,
    /// The token does not cover it.
    Forbidden,
    /// More topics than one session may have.
    TooManyTopics,
    /// More sessions than this address, token or edge may have.
    TooManySessions,
    /// Too many requests in a short time.
    RateLimited,
    /// A message beyond the limit.
    MessageTooLarge,
    /// The reader's event channels outgrew their limit.
    SlowConsumer,
    /// The service is going away.
    Draining,
    /// It comes with a later version.
    NotImplemented,
    /// A fault of ours.
    Internal,
}

impl Code {
    /// Every code, in the contract's order.
    pub const ALL: [Code; 12] = [
        Code::BadRequest,
        Code::UnknownTopic,
        Code::Unauthorized,
        Code::Forbidden,
        Code::TooManyTopics,
        Code::TooManySessions,
        Code::RateLimited,
        Code::MessageTooLarge,
        Code::SlowConsumer,
        Code::Draining,
        Code::NotImplemented,
        Code::Internal,
    ];

    /// The stable word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Code::BadRequest => "bad_request",
            Code::UnknownTopic => "unknown_topic",
            Code::Unauthorized => "unauthorized",
            Code::Forbidden => "forbidden",
            Code::TooManyTopics => "too_many_topics",
            Code::TooManySessions => "too_many_sessions",
            Code::RateLimited => "rate_limited",
            Code::MessageTooLarge => "message_too_large",
            Code::SlowConsumer => "slow_consumer",
            Code::Draining => "draining",
            Code::NotImplemented => "not_implemented",
            Code::Internal => "internal",
        }
    }

    /// The code of that word.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.as_str() == name)
    }

    /// The WebSocket close code: 4000 and up, in the contract's order (RFC 6455 §7.4.2: private use).
    pub fn websocket_close(self) -> u16 {
        4000 + Self::ALL.iter().position(|c| *c == self).expect("ALL holds every code") as u16
    }

    /// The HTTP status (RFC 9110) that goes with its problem details.
    pub const fn http_status(self) -> u16 {
        match self {
            Code::BadRequest => 400,
            Code::UnknownTopic => 404,
            Code::Unauthorized => 401,
            Code::Forbidden => 403,
            Code::TooManyTopics => 422,
            Code::TooManySessions | Code::RateLimited => 429,
            Code::MessageTooLarge => 413,
            Code::SlowConsumer => 503,
            Code::Draining => 503,
            Code::NotImplemented => 501,
            Code::Internal => 500,
        }
    }

    /// The gRPC status code.
    pub const fn grpc(self) -> tonic::Code {
        match self {
            Code::BadRequest | Code::MessageTooLarge => tonic::Code::InvalidArgument,
            Code::UnknownTopic => tonic::Code::NotFound,
            Code::Unauthorized => tonic::Code::Unauthenticated,
            Code::Forbidden => tonic::Code::PermissionDenied,
            Code::TooManyTopics | Code::TooManySessions | Code::RateLimited => tonic::Code::ResourceExhausted,
            Code::SlowConsumer => tonic::Code::Aborted,
            Code::Draining => tonic::Code::Unavailable,
            Code::NotImplemented => tonic::Code::Unimplemented,
            Code::Internal => tonic::Code::Internal,
        }
    }

    /// A gRPC status whose metadata `ticker-code` carries this code.
    pub fn status(self, message: impl Into<String>) -> tonic::Status {
        let mut status = tonic::Status::new(self.grpc(), message);
        status.metadata_mut().insert("ticker-code", tonic::metadata::MetadataValue::from_static(self.as_str()));
        status
    }

    /// The code on the wire.
    pub fn to_wire(self) -> v1::ErrorCode {
        let number = 1 + Self::ALL.iter().position(|c| *c == self).expect("ALL holds every code") as i32;
        v1::ErrorCode::try_from(number).unwrap_or(v1::ErrorCode::Internal)
    }

    /// The code of a wire number; what is unknown counts as internal.
    pub fn from_wire(number: i32) -> Self {
        usize::try_from(number - 1).ok().and_then(|i| Self::ALL.get(i).copied()).unwrap_or(Code::Internal)
    }

    /// Why a gRPC message could not be read, by the library's own status.
    pub fn of_unreadable(status: &tonic::Status) -> Self {
        match status.code() {
            tonic::Code::OutOfRange | tonic::Code::ResourceExhausted => Code::MessageTooLarge,
            _ => Code::BadRequest,
        }
    }

    /// RFC 9457 problem details, as JSON.
    pub fn problem(self, detail: &str) -> String {
        serde_json::json!({
            "type": format!("urn:ticker:error:{}", self.as_str()),
            "title": self.title(),
            "status": self.http_status(),
            "detail": detail,
            "code": self.as_str(),
        })
        .to_string()
    }

    const fn title(self) -> &'static str {
        match self {
            Code::BadRequest => "The request is not well formed",
            Code::UnknownTopic => "There is no such topic",
            Code::Unauthorized => "A valid token is needed",
            Code::Forbidden => "The token does not allow this",
            Code::TooManyTopics => "Too many topics in one session",
            Code::TooManySessions => "Too many sessions",
            Code::RateLimited => "Too many requests",
            Code::MessageTooLarge => "The message is too large",
            Code::SlowConsumer => "The reader was too slow",
            Code::Draining => "The service is going away",
            Code::NotImplemented => "Not implemented yet",
            Code::Internal => "Internal error",
        }
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_keeps_its_numbers() {
        assert_eq!(Code::BadRequest.websocket_close(), 4000);
        assert_eq!(Code::SlowConsumer.websocket_close(), 4008);
        assert_eq!(Code::Internal.websocket_close(), 4011);
        for code in Code::ALL {
            assert_eq!(Code::from_wire(code.to_wire() as i32), code);
            assert_eq!(Code::from_name(code.as_str()), Some(code));
            let wire = code.to_wire().as_str_name();
            assert_eq!(wire, format!("ERROR_CODE_{}", code.as_str().to_uppercase()));
        }
    }
}
