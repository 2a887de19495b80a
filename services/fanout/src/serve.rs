//! Listeners, health, reflection, and the end in good order.

use std::time::Duration;

use futures_util::Stream;
use ticker_proto::DESCRIPTORS;
use ticker_proto::v1::ingest_server::IngestServer;
use ticker_proto::v1::market_data_server::MarketDataServer;
use ticker_proto::v1::relay_server::RelayServer;
use ticker_runtime::Health;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::MissedTickBehavior;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::{Connected, TcpIncoming};
use tonic_health::ServingStatus;
use tonic_health::server::HealthService;

use crate::{Fanout, FanoutError};

/// How often [`Fanout::sweep`] is called: a fraction of the shortest grace that makes sense.
const SWEEP_EVERY: Duration = Duration::from_millis(250);

/// HTTP/2 flow control. A follower's connection carries all of an edge's events, a publisher's all of an ingest
/// service's: the 64 KiB of the standard would let each wait for the round trip.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// Streams of one connection: an edge's `Backfill` requests run side by side.
const CONNECTION_STREAMS_MAX: u32 = 1_024;

/// A peer that vanished without a word is noticed after both.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs a fanout on its configured address until its drain has ended: what `ticker fanout` does.
pub async fn serve(fanout: Fanout, health: &Health) -> Result<(), FanoutError> {
    let listener = ticker_runtime::admin::bind(fanout.config().listen, "listen").await?;
    let component = health.component("fanout");
    let maintenance = tokio::spawn(fanout.clone().maintain());
    component.set_ready();
    tracing::info!(listen = %fanout.config().listen, epoch = %fanout.core().tape().epoch(), "serving gRPC");
    let served = fanout.serve_listener(listener).await;
    component.set_waiting("its end");
    maintenance.abort();
    served
}

impl Fanout {
    /// All gRPC services of this fanout: `Ingest`, `Relay`, `MarketData`, health, reflection.
    pub fn routes(&self) -> Routes {
        let bytes_max = self.config().message_bytes_max;
        let v1 = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1();
        let v1alpha = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1alpha();
        Routes::new(MarketDataServer::new(self.clone()).max_decoding_message_size(bytes_max))
            .add_service(IngestServer::new(self.clone()).max_decoding_message_size(bytes_max))
            .add_service(RelayServer::new(self.clone()).max_decoding_message_size(bytes_max))
            .add_service(tonic_health::pb::health_server::HealthServer::new(HealthService::from_health_reporter(
                self.health().clone(),
            )))
            .add_service(v1.expect("the descriptors were written by this build"))
            .add_service(v1alpha.expect("the descriptors were written by this build"))
    }

    /// Serves TCP connections until the drain has ended.
    pub async fn serve_listener(&self, listener: tokio::net::TcpListener) -> Result<(), FanoutError> {
        // Small events must not wait for a full segment.
        self.serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true))).await
    }

    /// Serves connections of any kind (in-memory pipes too) until the drain has ended: once it begins no connection is
    /// taken, streams end with `draining`, and after a grace whatever is left is cut off.
    pub async fn serve_with_incoming<I, IO, E>(&self, incoming: I) -> Result<(), FanoutError>
    where
        I: Stream<Item = Result<IO, E>>,
        IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.set_serving(ServingStatus::Serving).await;
        let drain = self.drain().clone();
        let started = async move { drain.started().await };
        let server = Server::builder()
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(CONNECTION_STREAMS_MAX)
            .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .add_routes(self.routes())
            .serve_with_incoming_shutdown(incoming, started);
        let cut_off = async {
            self.drain().started().await;
            self.set_serving(ServingStatus::NotServing).await;
            tokio::time::sleep(Duration::from_millis(self.config().drain_grace_ms.into())).await;
        };
        tokio::select! {
            served = server => Ok(served?),
            () = cut_off => {
                tracing::warn!("some connections did not end within the grace");
                Ok(())
            }
        }
    }

    /// Calls [`Fanout::sweep`] as long as the future is polled, until the drain begins.
    pub async fn maintain(self) {
        let mut interval = tokio::time::interval(SWEEP_EVERY);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = interval.tick() => self.sweep(),
                () = self.inner.drain.started() => return,
            }
        }
    }

    async fn set_serving(&self, status: ServingStatus) {
        // The empty name is the server as a whole (gRPC health checking protocol).
        for service in ["", "ticker.v1.MarketData", "ticker.v1.Ingest", "ticker.v1.Relay"] {
            self.health().set_service_status(service, status).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use ticker_proto::v1::ListInstrumentsRequest;
    use ticker_proto::v1::market_data_client::MarketDataClient;
    use ticker_runtime::Drain;

    use super::*;
    use crate::Config;

    #[tokio::test]
    async fn tcp_is_served_and_a_port_in_use_is_told() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let listen: SocketAddr = listener.local_addr().expect("bound");
        let drain = Drain::new();
        let fanout = Fanout::new(Config { listen, ..Config::default() }, drain.clone());
        let health = Health::new();
        let in_use = serve(fanout.clone(), &health).await.expect_err("the port is ours");
        assert!(matches!(in_use, FanoutError::Bind(_)), "{in_use}");
        assert!(health.readiness().components.is_empty(), "what could not listen is not part of the process");
        drop(listener);

        let serving = health.clone();
        let served = tokio::spawn(async move { serve(fanout, &serving).await });
        // The listener is bound before the component is ready.
        while !health.component("fanout").is_ready() {
            tokio::task::yield_now().await;
        }
        let mut client = MarketDataClient::connect(format!("http://{listen}")).await.expect("served");
        client.list_instruments(ListInstrumentsRequest::default()).await.expect("answered");
        drain.start("test");
        served.await.expect("does not panic").expect("ends well");
        assert!(!health.readiness().ready);
    }
}
