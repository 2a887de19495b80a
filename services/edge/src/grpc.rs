//! `ticker.v1.MarketData` on the edge's public port: the same sessions as on every other transport.

use std::pin::Pin;

use axum::Router;
use futures_util::{Stream, StreamExt, stream};
use prost::Message as _;
use ticker_proto::message::{Request as Asked, Subscribe};
use ticker_proto::v1::market_data_server::{MarketData, MarketDataServer};
use ticker_proto::v1::session_response::Message;
use ticker_proto::v1::{self};
use ticker_proto::{Code, Encoded, EncodedMessage, Form, convert};
use ticker_session::Ending;
use ticker_session::catalogue::Refusal;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use crate::command::Stalled;
use crate::params;
use crate::pipe::Pipe;
use crate::routes::Web;
use crate::websocket::MESSAGE_BYTES_MAX;

type Events = Pin<Box<dyn Stream<Item = Result<EncodedMessage, Status>> + Send>>;

/// The gRPC routes, to be merged with the others.
pub(crate) fn router(web: Web) -> Router {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(ticker_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let built = "the descriptors were written by this build";
    // Serving for as long as the port is open: a draining edge closes it.
    let health = tonic_health::server::HealthService::from_health_reporter(tonic_health::server::HealthReporter::new());
    let routes = Routes::new(MarketDataServer::new(Service { web }).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(tonic_health::pb::health_server::HealthServer::new(health))
        .add_service(reflection().build_v1().expect(built))
        .add_service(reflection().build_v1alpha().expect(built));
    // What is no gRPC method is the other routes' business.
    routes.prepare().into_axum_router().reset_fallback()
}

struct Service {
    web: Web,
}

fn status(refusal: Refusal) -> Status {
    refusal.code.status(refusal.message)
}

/// What its connection gives up by.
fn stalled<T>(request: &Request<T>) -> Stalled {
    request.extensions().get().cloned().unwrap_or_default()
}

/// The messages of a pipe, as they were encoded for all readers.
fn messages(pipe: Pipe) -> Events {
    let batches = stream::unfold(Some(pipe), |pipe| async move {
        let mut pipe = pipe?;
        match pipe.next().await {
            Some(batch) => Some((Ok(batch), Some(pipe))),
            // The stream's own end says why, as the last message does.
            None => pipe.closing().map(|c| (Err(c.ending.code.status(c.ending.message.clone())), None)),
        }
    });
    let all = batches.flat_map(|batch: Result<Vec<Encoded>, Status>| {
        let messages: Vec<_> = match batch {
            Err(status) => vec![Err(status)],
            Ok(batch) => batch.iter().flat_map(Encoded::messages).map(|m| Ok(EncodedMessage::new(m))).collect(),
        };
        stream::iter(messages)
    });
    Box::pin(all)
}

#[tonic::async_trait]
impl MarketData for Service {
    type SubscribeStream = Events;
    type SessionStream = Events;

    async fn subscribe(
        &self,
        request: Request<v1::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let stalled = stalled(&request);
        let subscribe = Subscribe::from(request.into_inner());
        let pipe = Pipe::open(self.web.shard(), Form::Protobuf, Some(subscribe), stalled)
            .await
            .map_err(status)?
            .paced(&self.web.pace);
        Ok(Response::new(messages(pipe)))
    }

    async fn session(
        &self,
        request: Request<Streaming<v1::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let pipe = Pipe::open(self.web.shard(), Form::Protobuf, None, stalled(&request))
            .await
            .map_err(status)?
            .paced(&self.web.pace);
        let requests = pipe.requests();
        let mut incoming = request.into_inner();
        tokio::spawn(async move {
            // Ends with the reader's side of the stream; the session lives on until the other side ends.
            loop {
                let wire = match incoming.message().await {
                    Ok(Some(wire)) => wire,
                    Ok(None) => return,
                    Err(status) => {
                        let (code, message) = (Code::of_unreadable(&status), status.message().to_owned());
                        return requests.end(Ending { code, message }).await;
                    }
                };
                let request = Asked::from_wire(wire).ok_or_else(|| Refusal::new(Code::BadRequest, "an empty request"));
                requests.send(request).await;
            }
        });
        Ok(Response::new(messages(pipe)))
    }

    async fn get_snapshot(
        &self,
        request: Request<v1::GetSnapshotRequest>,
    ) -> Result<Response<v1::GetSnapshotResponse>, Status> {
        let topics = request.into_inner().topics;
        params::check_snapshot(&topics).map_err(status)?;
        let subscribe = Subscribe { topics, ..Subscribe::default() };
        let mut pipe =
            Pipe::open(self.web.shard(), Form::Protobuf, Some(subscribe), Stalled::default()).await.map_err(status)?;
        let collect = async {
            let mut answer = v1::GetSnapshotResponse::default();
            while let Some(batch) = pipe.next().await {
                for bytes in batch.iter().flat_map(Encoded::messages) {
                    let wire = v1::SessionResponse::decode(bytes).map_err(|e| Code::Internal.status(e.to_string()))?;
                    match wire.message {
                        Some(Message::Event(event)) => answer.events.push(event),
                        Some(Message::Subscribed(subscribed)) => {
                            answer.cursor = subscribed.cursor;
                            return Ok(answer);
                        }
                        Some(Message::Error(error)) => return Err(Code::from_wire(error.code).status(error.message)),
                        _ => {}
                    }
                }
            }
            Err(Code::Draining.status("the edge is going away"))
        };
        let late = || Code::Internal.status("the fanout did not give the topics in time");
        tokio::time::timeout(params::SNAPSHOT_WAIT, collect).await.map_err(|_| late())?.map(Response::new)
    }

    async fn list_instruments(
        &self,
        request: Request<v1::ListInstrumentsRequest>,
    ) -> Result<Response<v1::ListInstrumentsResponse>, Status> {
        let venue = request.into_inner().venue;
        let directory = self.web.directory.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let wanted = |i: &&ticker_market::Instrument| venue.is_empty() || i.venue == venue;
        let instruments = directory
            .catalogue
            .instruments()
            .filter(wanted)
            .map(|i| v1::ListedInstrument {
                instrument: Some(convert::instrument_to_wire(i)),
                status: directory.status(i).map(convert::status_to_wire),
            })
            .collect();
        Ok(Response::new(v1::ListInstrumentsResponse { instruments }))
    }

    async fn get_bars(&self, request: Request<v1::GetBarsRequest>) -> Result<Response<v1::GetBarsResponse>, Status> {
        self.web.history.bars(request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn get_trades(
        &self,
        request: Request<v1::GetTradesRequest>,
    ) -> Result<Response<v1::GetTradesResponse>, Status> {
        self.web.history.trades(request.into_inner()).await.map(Response::new).map_err(status)
    }
}
