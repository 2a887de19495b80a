//! The messages of a session, and their JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use ticker_market::Event;

use crate::{Code, v1};

/// Topics named by one request, at most; a session's own limit may be lower.
pub const REQUEST_TOPICS_MAX: usize = 1_000;

/// A request that could not be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RequestError {
    /// Not JSON, or not a request.
    #[error(
        "not a request: {0}; expected an object such as {{\"op\":\"subscribe\",\"id\":1,\"topics\":[\"quote/kraken/BTC-USD\"]}}"
    )]
    Json(String),
    /// Not the protobuf message `ticker.v1.SessionRequest`.
    #[error("not a ticker.v1.SessionRequest: {0}")]
    Protobuf(String),
}

/// What a reader wants of some topics.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Subscribe {
    /// Names the request in its answer.
    pub id: u64,
    /// Topics or patterns.
    pub topics: Vec<String>,
    /// A cursor, or `earliest`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// So many past events of the event channels first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recent: Option<u32>,
    /// Updates a second for each state or book topic, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rate: Option<f64>,
    /// Kilobits a second for the session, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_kbps: Option<f64>,
    /// Keeps only these fields, besides `topic`, `seq`, `prev`, `kind`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fields: Option<Vec<String>>,
    /// `false`: every event of every channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conflate: Option<bool>,
    /// Books that the reader holds.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub have: BTreeMap<String, u64>,
    /// `datagram`: by an unreliable way, where the transport has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<String>,
}

/// Reader to edge.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Begins subscriptions.
    Subscribe(Subscribe),
    /// Ends subscriptions.
    Unsubscribe(Unsubscribe),
    /// Changes the session's limits.
    Limit(Limit),
    /// Shows who the reader is.
    Auth(Auth),
    /// Asks for a pong.
    Ping(Ping),
    /// Agrees to be reached by others, or carries an SDP or a candidate to one of them.
    Signal(Signal),
}

/// See [`Request::Unsubscribe`].
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "the names are the contract's")]
pub struct Unsubscribe {
    pub id: u64,
    pub topics: Vec<String>,
}

/// See [`Request::Limit`]. What is left out stays; 0 is no limit.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "the names are the contract's")]
pub struct Limit {
    pub id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_kbps: Option<f64>,
}

/// See [`Request::Auth`].
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "the names are the contract's")]
pub struct Auth {
    pub id: u64,
    pub token: String,
}

/// See [`Request::Ping`].
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "the names are the contract's")]
pub struct Ping {
    pub id: u64,
}

/// See [`Request::Signal`].
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "the names are the contract's")]
pub struct Signal {
    pub id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reachable: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    pub data: serde_json::Value,
}

impl Request {
    /// Reads a request from JSON text.
    pub fn from_json(text: &[u8]) -> Result<Self, RequestError> {
        serde_json::from_slice(text).map_err(|e| RequestError::Json(e.to_string()))
    }

    /// Reads a request from protobuf bytes (`ticker.v1.SessionRequest`).
    pub fn from_protobuf(bytes: &[u8]) -> Result<Self, RequestError> {
        let wrong = |e: &dyn std::fmt::Display| RequestError::Protobuf(e.to_string());
        let request = <v1::SessionRequest as prost::Message>::decode(bytes).map_err(|e| wrong(&e))?;
        Self::from_wire(request).ok_or_else(|| wrong(&"it is empty"))
    }

    /// From the generated type; `None` if it is empty.
    pub fn from_wire(request: v1::SessionRequest) -> Option<Self> {
        use v1::session_request::Message as M;
        Some(match request.message? {
            M::Subscribe(s) => Request::Subscribe(Subscribe {
                id: s.id,
                topics: s.topics,
                from: (!s.from.is_empty()).then_some(s.from),
                recent: (s.recent > 0).then_some(s.recent),
                max_rate: (s.max_rate != 0.0).then_some(s.max_rate),
                max_kbps: s.max_kbps,
                fields: (!s.fields.is_empty()).then_some(s.fields),
                conflate: s.conflate,
                have: s.have.into_iter().collect(),
                delivery: (!s.delivery.is_empty()).then_some(s.delivery),
            }),
            M::Unsubscribe(u) => Request::Unsubscribe(Unsubscribe { id: u.id, topics: u.topics }),
            M::Limit(l) => Request::Limit(Limit { id: l.id, max_rate: l.max_rate, max_kbps: l.max_kbps }),
            M::Auth(a) => Request::Auth(Auth { id: a.id, token: a.token }),
            M::Ping(p) => Request::Ping(Ping { id: p.id }),
            M::Signal(s) => Request::Signal(Signal {
                id: s.id,
                reachable: s.reachable,
                to: (!s.to.is_empty()).then_some(s.to),
                data: if s.data.is_empty() { serde_json::Value::Null } else { json_of(s.data) },
            }),
        })
    }

    /// The request's id.
    pub fn id(&self) -> u64 {
        match self {
            Request::Subscribe(r) => r.id,
            Request::Unsubscribe(r) => r.id,
            Request::Limit(r) => r.id,
            Request::Auth(r) => r.id,
            Request::Ping(r) => r.id,
            Request::Signal(r) => r.id,
        }
    }
}

/// What is no JSON is a string.
pub(crate) fn json_of(text: String) -> serde_json::Value {
    serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text))
}

impl From<v1::SubscribeRequest> for Subscribe {
    fn from(s: v1::SubscribeRequest) -> Self {
        Subscribe {
            id: 0,
            topics: s.topics,
            from: (!s.from.is_empty()).then_some(s.from),
            recent: (s.recent > 0).then_some(s.recent),
            max_rate: (s.max_rate != 0.0).then_some(s.max_rate),
            max_kbps: (s.max_kbps != 0.0).then_some(s.max_kbps),
            fields: (!s.fields.is_empty()).then_some(s.fields),
            conflate: s.conflate,
            have: s.have.into_iter().collect(),
            delivery: None,
        }
    }
}

/// Edge to reader, besides events.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names are the contract's")]
pub enum Notice {
    /// The first message of a session, and again when the epoch changes.
    Welcome { version: String, epoch: String, cursor: String, heartbeat_ms: u32 },
    /// The reader has joined these topics at this cursor.
    Subscribed { id: u64, topics: Vec<String>, cursor: String },
    /// The reader has left these topics.
    Unsubscribed { id: u64, topics: Vec<String> },
    /// A request failed, or (without id) the session ends, with a cursor to go on from.
    Error {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
        code: String,
        message: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
    },
    /// Events are missing here; without a topic: on all of the session's.
    Gap {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        topic: Option<String>,
        reason: String,
    },
    /// Moves a quiet reader's cursor on.
    Heartbeat { cursor: String, conflated: u64 },
    /// Answers a ping.
    Pong { id: u64 },
    /// The edge goes away.
    Goodbye { reason: String, cursor: String, retry_ms: u32 },
    /// From another reader; or the name under which this one can be reached, in answer to its request.
    Signal {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peer: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        data: Option<serde_json::Value>,
    },
}

impl Notice {
    /// An error that answers a request.
    pub fn error(id: Option<u64>, code: Code, message: impl Into<String>) -> Self {
        Notice::Error { id, code: code.as_str().to_owned(), message: message.into(), cursor: None }
    }

    /// A reader's name, in answer to its request.
    pub fn signal_name(id: u64, name: String) -> Self {
        Notice::Signal { id: Some(id), peer: Some(name), from: None, data: None }
    }

    /// The cursor that it carries.
    pub fn cursor(&self) -> Option<&str> {
        match self {
            Notice::Welcome { cursor, .. }
            | Notice::Subscribed { cursor, .. }
            | Notice::Heartbeat { cursor, .. }
            | Notice::Goodbye { cursor, .. } => Some(cursor),
            Notice::Error { cursor, .. } => cursor.as_deref(),
            _ => None,
        }
    }

    /// Its JSON.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and integers always serialise")
    }

    /// The generated type.
    pub fn to_wire(&self) -> v1::SessionResponse {
        use v1::session_response::Message as M;
        let message = match self.clone() {
            Notice::Welcome { version, epoch, cursor, heartbeat_ms } => {
                M::Welcome(v1::Welcome { version, epoch, cursor, heartbeat_ms })
            }
            Notice::Subscribed { id, topics, cursor } => M::Subscribed(v1::Subscribed { id, topics, cursor }),
            Notice::Unsubscribed { id, topics } => M::Unsubscribed(v1::Unsubscribed { id, topics }),
            Notice::Error { id, code, message, cursor } => M::Error(v1::Error {
                id: id.unwrap_or(0),
                code: Code::from_name(&code).unwrap_or(Code::Internal).to_wire() as i32,
                message,
                cursor: cursor.unwrap_or_default(),
            }),
            Notice::Gap { topic, reason } => M::Gap(v1::Gap { topic: topic.unwrap_or_default(), reason }),
            Notice::Heartbeat { cursor, conflated } => M::Heartbeat(v1::Heartbeat { cursor, conflated }),
            Notice::Pong { id } => M::Pong(v1::Pong { id }),
            Notice::Goodbye { reason, cursor, retry_ms } => M::Goodbye(v1::Goodbye { reason, cursor, retry_ms }),
            Notice::Signal { id, peer, from, data } => M::Signal(v1::Signal {
                id: id.unwrap_or(0),
                peer: peer.unwrap_or_default(),
                from: from.unwrap_or_default(),
                data: data.map(|d| d.to_string()).unwrap_or_default(),
                ..v1::Signal::default()
            }),
        };
        v1::SessionResponse { message: Some(message) }
    }
}

/// One part of an event; most events have only one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// The event, with the levels of this part.
    pub event: Event,
    /// Which part, from 1; 0 where there is only one.
    pub part: u32,
    /// How many parts; 0 where there is only one.
    pub parts: u32,
    /// Fields that a reader's `fields` left out make an event incomplete: then this is the JSON as it came.
    pub raw: Option<String>,
}

/// Anything that an edge says to a reader.
#[derive(Clone, PartialEq, Debug)]
pub enum Message {
    /// An event, or a part of one.
    Event(Box<Part>),
    /// Anything else.
    Notice(Notice),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_the_contract_are_read() {
        let text = br#"{"op":"subscribe","id":1,"topics":["quote/coinbase/BTC-USD"],"from":"k3f9-184460","recent":50,"max_rate":4,"fields":["bid","ask"],"conflate":true}"#;
        let Request::Subscribe(s) = Request::from_json(text).expect("a request") else { panic!("not a subscribe") };
        assert_eq!((s.id, s.recent, s.max_rate, s.conflate), (1, Some(50), Some(4.0), Some(true)));
        for text in [
            r#"{"op":"unsubscribe","id":2,"topics":["quote/coinbase/BTC-USD"]}"#,
            r#"{"op":"limit","id":3,"max_rate":1,"max_kbps":64}"#,
            r#"{"op":"auth","id":4,"token":"x"}"#,
            r#"{"op":"ping","id":5}"#,
            r#"{"op":"signal","id":6,"to":"p","data":{}}"#,
            r#"{"op":"ping"}"#,
        ] {
            Request::from_json(text.as_bytes()).expect(text);
        }
    }

    #[test]
    fn a_wrong_request_says_what_is_wrong() {
        for (text, says) in [
            ("", "EOF"),
            ("{", "EOF"),
            ("7", "invalid type"),
            (r#"{"op":"subcribe"}"#, "unknown variant `subcribe`"),
            (r#"{"op":"subscribe","topcis":[]}"#, "unknown field `topcis`"),
            (r#"{"op":"subscribe","topics":"a"}"#, "invalid type: string"),
        ] {
            let error = Request::from_json(text.as_bytes()).expect_err(text).to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn notices_have_the_contracts_json() {
        let heartbeat = Notice::Heartbeat { cursor: "k3f9-184999".into(), conflated: 112 };
        assert_eq!(heartbeat.to_json(), br#"{"op":"heartbeat","cursor":"k3f9-184999","conflated":112}"#);
        let error = Notice::error(Some(1), Code::UnknownTopic, "no");
        assert_eq!(error.to_json(), br#"{"op":"error","id":1,"code":"unknown_topic","message":"no"}"#);
    }
}
