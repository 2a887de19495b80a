//! gRPC: `MarketData.Subscribe` and `MarketData.Session`.

use std::sync::{Arc, Mutex, PoisonError};

use hyper_util::rt::TokioIo;
use ticker_proto::v1::market_data_client::MarketDataClient;
use ticker_proto::{Message, Request, convert, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use crate::error::Error;
use crate::options::{Endpoint as Address, Options, Over, Subscription};
use crate::transport::{FIRST_ID, Item};

/// Requests that wait for the network, at most; more wait for room.
const REQUESTS_MAX: usize = 16;

/// Far above the contract's 64 KiB, as with the other ways.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

pub(crate) enum Grpc {
    Subscribe(Streaming<v1::SubscribeResponse>),
    Session { requests: mpsc::Sender<v1::SessionRequest>, responses: Streaming<v1::SessionResponse> },
}

impl Grpc {
    pub(crate) async fn open(options: &Options, subscription: &Subscription) -> Result<Self, Error> {
        let mut client = client(options).await?.max_decoding_message_size(MESSAGE_BYTES_MAX);
        let from_status = |status: tonic::Status| Error::from_status(&status);
        if options.over == Over::Grpc {
            let request = authorized(options, subscribe_request(subscription))?;
            return Ok(Self::Subscribe(client.subscribe(request).await.map_err(from_status)?.into_inner()));
        }
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        if !subscription.topics.is_empty() {
            let first = Request::Subscribe(Subscription { id: FIRST_ID, ..subscription.clone() });
            requests.try_send(request_to_wire(&first)).expect("the channel is new and empty");
        }
        let request = authorized(options, ReceiverStream::new(receiver))?;
        let responses = client.session(request).await.map_err(from_status)?.into_inner();
        Ok(Self::Session { requests, responses })
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Item>, Error> {
        let wire = match self {
            Self::Subscribe(stream) => stream.message().await.map(|m| m.map(session_response)),
            Self::Session { responses, .. } => responses.message().await,
        };
        let Some(wire) = wire.map_err(|status| Error::from_status(&status))? else { return Ok(None) };
        let message: Message = convert::message_from_wire(wire).map_err(|e| Error::Protocol(e.to_string()))?;
        Ok(Some(message.into()))
    }

    pub(crate) async fn send(&mut self, request: &Request) -> Result<(), Error> {
        match self {
            Self::Subscribe(_) => {
                Err(Error::Options("gRPC Subscribe has no back channel: use the transport grpc-session".into()))
            }
            Self::Session { requests, .. } => requests
                .send(request_to_wire(request))
                .await
                .map_err(|_| Error::Lost("the session takes no more requests".into())),
        }
    }
}

async fn client(options: &Options) -> Result<MarketDataClient<Channel>, Error> {
    if let Ok(address) = Address::parse(&options.grpc)
        && address.secure
    {
        return secure_client(options, address).await;
    }
    let endpoint = Endpoint::from_shared(options.grpc.clone())
        .map_err(|e| Error::Options(format!("`{}` is no URL: {e}; expected http://HOST:PORT", options.grpc)))?;
    let endpoint = endpoint.connect_timeout(options.connect_timeout).tcp_nodelay(true);
    match endpoint.connect().await {
        Ok(channel) => Ok(MarketDataClient::new(channel)),
        Err(error) => {
            let mut cause: &(dyn std::error::Error + 'static) = &error;
            while let Some(deeper) = cause.source() {
                cause = deeper;
                if let Some(io) = cause.downcast_ref::<std::io::Error>() {
                    return Err(Error::connect(&options.grpc, io));
                }
            }
            Err(Error::Connect { url: options.grpc.clone(), reason: cause.to_string() })
        }
    }
}

/// By TLS. The library is given a connection; its own TLS would know other authorities than the other ways.
async fn secure_client(options: &Options, address: Address) -> Result<MarketDataClient<Channel>, Error> {
    let wrong = |e: String| Error::Options(format!("`{}` is no URL: {e}; expected https://HOST:PORT", options.grpc));
    let origin: ::http::Uri = format!("https://{}", address.authority).parse().map_err(|e| wrong(format!("{e}")))?;
    let endpoint = Endpoint::from_shared(format!("http://{}", address.authority)).map_err(|e| wrong(e.to_string()))?;
    // The error is kept aside as it is: the library would wrap it.
    let failed = Arc::new(Mutex::new(None));
    let told = Arc::clone(&failed);
    let options = options.clone();
    let connect = tower::service_fn(move |_| {
        let (address, options, told) = (address.clone(), options.clone(), Arc::clone(&told));
        async move {
            match address.connect(&options, b"h2").await {
                Ok(stream) => Ok(TokioIo::new(stream)),
                Err(error) => {
                    let text = error.to_string();
                    *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    Err(std::io::Error::other(text))
                }
            }
        }
    });
    match endpoint.origin(origin).connect_with_connector(connect).await {
        Ok(channel) => Ok(MarketDataClient::new(channel)),
        Err(error) => {
            let first = failed.lock().unwrap_or_else(PoisonError::into_inner).take();
            Err(first.unwrap_or_else(|| Error::lost(&error)))
        }
    }
}

fn authorized<T>(options: &Options, message: T) -> Result<tonic::Request<T>, Error> {
    let mut request = tonic::Request::new(message);
    if let Some(token) = &options.token {
        let value = format!("Bearer {token}").parse();
        let value = value.map_err(|_| Error::Options("the token has characters that no header can carry".into()))?;
        request.metadata_mut().insert("authorization", value);
    }
    Ok(request)
}

fn subscribe_request(s: &Subscription) -> v1::SubscribeRequest {
    v1::SubscribeRequest {
        topics: s.topics.clone(),
        from: s.from.clone().unwrap_or_default(),
        recent: s.recent.unwrap_or_default(),
        max_rate: s.max_rate.unwrap_or_default(),
        max_kbps: s.max_kbps.unwrap_or_default(),
        fields: s.fields.clone().unwrap_or_default(),
        conflate: s.conflate,
        have: s.have.clone().into_iter().collect(),
    }
}

/// The two messages have the same bytes, and so the same variants.
fn session_response(wire: v1::SubscribeResponse) -> v1::SessionResponse {
    use v1::session_response::Message as To;
    use v1::subscribe_response::Message as Of;
    let message = wire.message.map(|m| match m {
        Of::Event(m) => To::Event(m),
        Of::Welcome(m) => To::Welcome(m),
        Of::Subscribed(m) => To::Subscribed(m),
        Of::Unsubscribed(m) => To::Unsubscribed(m),
        Of::Error(m) => To::Error(m),
        Of::Gap(m) => To::Gap(m),
        Of::Heartbeat(m) => To::Heartbeat(m),
        Of::Pong(m) => To::Pong(m),
        Of::Goodbye(m) => To::Goodbye(m),
        Of::Signal(m) => To::Signal(m),
    });
    v1::SessionResponse { message }
}

/// A request on the wire.
pub(crate) fn request_to_wire(request: &Request) -> v1::SessionRequest {
    use v1::session_request::Message as M;
    let message = match request.clone() {
        Request::Subscribe(s) => M::Subscribe(v1::Subscribe {
            id: s.id,
            topics: s.topics,
            from: s.from.unwrap_or_default(),
            recent: s.recent.unwrap_or_default(),
            max_rate: s.max_rate.unwrap_or_default(),
            fields: s.fields.unwrap_or_default(),
            conflate: s.conflate,
            have: s.have.into_iter().collect(),
            delivery: s.delivery.unwrap_or_default(),
            max_kbps: s.max_kbps,
        }),
        Request::Unsubscribe(u) => M::Unsubscribe(v1::Unsubscribe { id: u.id, topics: u.topics }),
        Request::Limit(l) => M::Limit(v1::Limit { id: l.id, max_rate: l.max_rate, max_kbps: l.max_kbps }),
        Request::Auth(a) => M::Auth(v1::Auth { id: a.id, token: a.token }),
        Request::Ping(p) => M::Ping(v1::Ping { id: p.id }),
        Request::Signal(s) => M::Signal(v1::Signal {
            id: s.id,
            to: s.to.unwrap_or_default(),
            data: if s.data.is_null() { String::new() } else { s.data.to_string() },
            reachable: s.reachable,
            ..v1::Signal::default()
        }),
    };
    v1::SessionRequest { message: Some(message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_back_as_written() {
        let subscription = Subscription {
            id: 3,
            topics: vec!["quote/x/A".into()],
            from: Some("e-1".into()),
            recent: Some(5),
            max_rate: Some(2.5),
            max_kbps: Some(64.0),
            fields: Some(vec!["bid".into()]),
            conflate: Some(false),
            have: [("book/x/A".to_owned(), 7)].into(),
            ..Subscription::default()
        };
        for request in [
            Request::Subscribe(subscription),
            Request::Unsubscribe(ticker_proto::message::Unsubscribe { id: 4, topics: vec!["quote/x/A".into()] }),
            Request::Limit(ticker_proto::message::Limit { id: 5, max_rate: Some(1.0), max_kbps: None }),
            Request::Ping(ticker_proto::message::Ping { id: 6 }),
        ] {
            assert_eq!(Request::from_wire(request_to_wire(&request)), Some(request));
        }
    }
}
