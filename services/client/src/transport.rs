//! What the ways have in common: messages one by one, and requests where the way has a back channel.

use ticker_proto::{Message, Request};

use crate::error::Error;
use crate::options::{Options, Over, Subscription};
use crate::{grpc, lines, poll, quic, rtc, ws};

/// The id of the subscription that a reader begins with.
pub(crate) const FIRST_ID: u64 = 1;

/// A message, and the cursor where the transport tells it.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) message: Option<Message>,
    pub(crate) cursor: Option<String>,
}

impl From<Message> for Item {
    fn from(message: Message) -> Self {
        Self { message: Some(message), cursor: None }
    }
}

/// One open connection.
pub(crate) enum Transport {
    Ws(Box<ws::Ws>),
    Lines(Box<lines::Lines>),
    Poll(Box<poll::Poll>),
    Grpc(Box<grpc::Grpc>),
    Quic(Box<quic::Quic>),
    Rtc(Box<rtc::WebRtc>),
}

impl Transport {
    /// Connects and asks for the subscription.
    pub(crate) async fn open(options: &Options, subscription: &Subscription) -> Result<Self, Error> {
        Ok(match options.over {
            Over::Ws | Over::WsProtobuf => Transport::Ws(Box::new(ws::Ws::open(options, subscription).await?)),
            Over::Sse | Over::Ndjson => Transport::Lines(Box::new(lines::Lines::open(options, subscription).await?)),
            Over::Poll => Transport::Poll(Box::new(poll::Poll::open(options, subscription).await?)),
            Over::Grpc | Over::GrpcSession => Transport::Grpc(Box::new(grpc::Grpc::open(options, subscription).await?)),
            Over::H3 | Over::WebTransport | Over::Quic => {
                Transport::Quic(Box::new(quic::Quic::open(options, subscription).await?))
            }
            Over::Rtc => Transport::Rtc(Box::new(rtc::WebRtc::open(options, subscription).await?)),
        })
    }

    /// The next message; `None` when the server ended it in good order. Safe to cancel: nothing is lost.
    pub(crate) async fn next(&mut self) -> Result<Option<Item>, Error> {
        match self {
            Transport::Ws(ws) => ws.next().await,
            Transport::Lines(lines) => lines.next().await,
            Transport::Poll(poll) => poll.next().await,
            Transport::Grpc(grpc) => grpc.next().await,
            Transport::Quic(quic) => quic.next().await,
            Transport::Rtc(rtc) => rtc.next().await,
        }
    }

    /// Sends a request.
    pub(crate) async fn send(&mut self, request: &Request) -> Result<(), Error> {
        match self {
            Transport::Ws(ws) => ws.send(request).await,
            Transport::Grpc(grpc) => grpc.send(request).await,
            Transport::Quic(quic) => quic.send(request).await,
            Transport::Rtc(rtc) => rtc.send(request).await,
            Transport::Lines(_) | Transport::Poll(_) => {
                Err(Error::Options("this transport has no back channel: connect again with the cursor".into()))
            }
        }
    }
}
