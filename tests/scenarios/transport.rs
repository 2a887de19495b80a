//! Every transport there is, one line each, and how each says no.

use ticker_client::{Error, Over, Subscription, connect};
use ticker_proto::v1::market_data_client::MarketDataClient;
use ticker_proto::{Code, Message, Notice, v1};

use crate::rig::{Stage, bounded};

/// Whose port it is served on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum At {
    Edge,
    Fanout,
}

/// A way from the service to a reader.
#[derive(Debug)]
pub(crate) struct Transport {
    /// Its name in trials.
    pub(crate) name: &'static str,
    pub(crate) over: Over,
    pub(crate) at: At,
    /// HTTP/2 where the way is HTTP.
    pub(crate) http2: bool,
    /// At the TLS address.
    pub(crate) secure: bool,
}

/// A new transport joins here; every scenario runs over it from then on.
pub(crate) const TRANSPORTS: &[Transport] = &[
    plain("ws", Over::Ws, At::Edge, false),
    plain("ws-proto", Over::WsProtobuf, At::Edge, false),
    plain("sse", Over::Sse, At::Edge, false),
    plain("sse-h2", Over::Sse, At::Edge, true),
    plain("ndjson", Over::Ndjson, At::Edge, false),
    plain("poll", Over::Poll, At::Edge, false),
    plain("poll-h2", Over::Poll, At::Edge, true),
    plain("grpc-edge", Over::Grpc, At::Edge, true),
    plain("grpc-session-edge", Over::GrpcSession, At::Edge, true),
    secure("ws-tls", Over::Ws, false),
    secure("sse-tls", Over::Sse, false),
    secure("sse-h2-tls", Over::Sse, true),
    secure("poll-h2-tls", Over::Poll, true),
    secure("grpc-tls", Over::Grpc, true),
    secure("grpc-session-tls", Over::GrpcSession, true),
    secure("h3", Over::H3, false),
    secure("wt", Over::WebTransport, false),
    secure("quic", Over::Quic, false),
    plain("rtc", Over::Rtc, At::Edge, false),
    plain("grpc-fanout", Over::Grpc, At::Fanout, true),
    plain("grpc-session-fanout", Over::GrpcSession, At::Fanout, true),
];

const fn plain(name: &'static str, over: Over, at: At, http2: bool) -> Transport {
    Transport { name, over, at, http2, secure: false }
}

const fn secure(name: &'static str, over: Over, http2: bool) -> Transport {
    Transport { name, over, at: At::Edge, http2, secure: true }
}

/// How a transport tells that a request is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// An `error` message; the session goes on.
    Notice,
    /// An HTTP status with problem details (RFC 9457).
    Problem,
    /// A gRPC status with the code in its metadata.
    Status,
}

impl Transport {
    /// Can subscriptions and limits change while it runs?
    pub(crate) fn is_duplex(&self) -> bool {
        self.over.is_duplex()
    }

    /// Is each answer asked for?
    pub(crate) fn is_polled(&self) -> bool {
        self.over == Over::Poll
    }

    /// Is it QUIC below?
    pub(crate) fn is_quic(&self) -> bool {
        matches!(self.over, Over::H3 | Over::WebTransport | Over::Quic)
    }

    /// Must requests be made by the client, because nothing else here speaks it?
    pub(crate) fn is_clients(&self) -> bool {
        self.secure || self.over == Over::Rtc
    }

    pub(crate) fn form(&self) -> Form {
        match self.over {
            Over::Ws | Over::WsProtobuf | Over::GrpcSession => Form::Notice,
            Over::WebTransport | Over::Quic | Over::Rtc => Form::Notice,
            Over::Sse | Over::Ndjson | Over::Poll | Over::H3 => Form::Problem,
            Over::Grpc => Form::Status,
        }
    }
}

/// A subscription is refused with this code, in the transport's own form, and with a message that says `says`.
pub(crate) async fn refused(stage: &Stage, subscription: Subscription, code: Code, says: &str) {
    let what = format!("{subscription:?}");
    let told = match stage.transport.form() {
        Form::Notice => told_by_notice(stage, subscription).await,
        Form::Status | Form::Problem if stage.transport.is_clients() => told_by_client(stage, subscription).await,
        Form::Problem => told_by_problem(stage, &subscription, code).await,
        Form::Status => told_by_status(stage, &subscription, code).await,
    };
    assert_eq!(told.0, code, "{what}: {}", told.1);
    assert!(told.1.contains(says), "{what}: `{}` does not say `{says}`", told.1);
}

/// The session says no, and goes on: it answers a ping.
async fn told_by_notice(stage: &Stage, subscription: Subscription) -> (Code, String) {
    use ticker_proto::Request;
    use ticker_proto::message::Ping;
    let none = Subscription::default();
    let mut reader = bounded("a session", connect(stage.options(), none)).await.expect("it opens");
    reader.send(Request::Subscribe(Subscription { id: 5, ..subscription })).await.expect("it is open");
    reader.send(Request::Ping(Ping { id: 6 })).await.expect("it is open");
    let mut told = None;
    loop {
        match bounded("an answer", reader.next()).await.expect("the session goes on") {
            Some(Message::Notice(Notice::Error { id, code, message, .. })) => {
                assert_eq!(id, Some(5), "the answer names its request");
                told = Some((Code::from_name(&code).expect("a code of the contract"), message));
            }
            Some(Message::Notice(Notice::Pong { id: 6 })) => return told.expect("an error before the pong"),
            Some(Message::Notice(Notice::Subscribed { .. })) => panic!("it was accepted"),
            Some(_) => {}
            None => panic!("the session ended"),
        }
    }
}

async fn told_by_problem(stage: &Stage, subscription: &Subscription, code: Code) -> (Code, String) {
    let path = if stage.transport.is_polled() { "/v1/poll" } else { "/v1/stream" };
    let path = format!("{path}{}", query(subscription));
    let answer = bounded("an answer", ticker_client::http::get(&stage.options(), &path)).await.expect("it comes");
    assert_eq!(answer.status, code.http_status(), "{}", String::from_utf8_lossy(&answer.body));
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    let problem: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(problem["status"], code.http_status());
    assert_eq!(problem["type"], format!("urn:ticker:error:{}", code.as_str()));
    let named = problem["code"].as_str().and_then(Code::from_name).expect("a code of the contract");
    (named, problem["detail"].as_str().expect("a detail").to_owned())
}

/// As the client that has read the problem details says.
async fn told_by_client(stage: &Stage, subscription: Subscription) -> (Code, String) {
    match bounded("an answer", connect(stage.options(), subscription)).await {
        Err(Error::Refused { code, message, .. }) => (code, message),
        // What it need not ask for to know.
        Err(Error::Options(message)) => (Code::BadRequest, message),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was accepted"),
    }
}

async fn told_by_status(stage: &Stage, subscription: &Subscription, code: Code) -> (Code, String) {
    let mut client = MarketDataClient::connect(stage.url()).await.expect("it is there");
    let request = v1::SubscribeRequest {
        topics: subscription.topics.clone(),
        from: subscription.from.clone().unwrap_or_default(),
        max_rate: subscription.max_rate.unwrap_or_default(),
        max_kbps: subscription.max_kbps.unwrap_or_default(),
        fields: subscription.fields.clone().unwrap_or_default(),
        ..Default::default()
    };
    let status = match bounded("an answer", client.subscribe(request)).await {
        Err(status) => status,
        Ok(_) => panic!("it was accepted"),
    };
    assert_eq!(status.code(), code.grpc(), "{status}");
    let named = status.metadata().get("ticker-code").and_then(|v| v.to_str().ok()).and_then(Code::from_name);
    (named.expect("the metadata has the contract's code"), status.message().to_owned())
}

/// The query of a subscription, written here once more: the client under test has its own.
pub(crate) fn query(s: &Subscription) -> String {
    let mut pairs = vec![("topics", s.topics.join(","))];
    pairs.extend(s.from.clone().map(|v| ("from", v)));
    pairs.extend(s.max_rate.map(|v| ("max_rate", v.to_string())));
    pairs.extend(s.max_kbps.map(|v| ("max_kbps", v.to_string())));
    pairs.extend(s.fields.clone().map(|v| ("fields", v.join(","))));
    let pairs: Vec<String> = pairs.into_iter().map(|(k, v)| format!("{k}={}", v.replace(' ', "%20"))).collect();
    format!("?{}", pairs.join("&"))
}

/// The reader ends with this code: with it the cursor, where the service gave one.
pub(crate) fn code_of(error: &Error) -> (Option<Code>, Option<String>) {
    match error {
        Error::Refused { code, cursor, .. } => (Some(*code), cursor.clone()),
        _ => (None, None),
    }
}
