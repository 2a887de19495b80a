//! Tests of the parent module: whole services, over real sockets.

use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use ticker_proto::v1;
use ticker_proto::v1::ingest_server::{Ingest as Fanout, IngestServer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::config::{ReplayConfig, SyntheticConfig, VenueConfig};

/// Takes everything, and counts it.
struct Counting(watch::Sender<u64>);

#[tonic::async_trait]
impl Fanout for Counting {
    type PublishStream = Pin<Box<dyn Stream<Item = Result<v1::PublishResponse, Status>> + Send>>;

    async fn publish(
        &self,
        request: Request<Streaming<v1::PublishRequest>>,
    ) -> Result<Response<Self::PublishStream>, Status> {
        let count = self.0.clone();
        let answers = request.into_inner().map(move |request| {
            let request = request?;
            let accepted = request.events.len() as u64;
            count.send_modify(|n| *n += accepted);
            Ok(v1::PublishResponse { batch: request.batch, cursor: "e-1".to_owned(), accepted, refused: 0 })
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

#[tokio::test]
async fn a_service_publishes_and_drains_without_a_rest() {
    let (count, mut counted) = watch::channel(0);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let uri = format!("http://{}", listener.local_addr().expect("bound"));
    let server = Server::builder().add_service(IngestServer::new(Counting(count)));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let synthetic = SyntheticConfig { instruments: 5, updates_per_second: 1_000, seed: 3 };
    let config = Config { synthetic: Some(synthetic), ..Config::default() };
    let ingest = Ingest::new(config).expect("can run");
    let (progress, health, drain) = (ingest.progress(), Health::new(), Drain::new());
    let running = tokio::spawn(ingest.run(connect(&uri).expect("an address"), health.clone(), drain.clone()));
    counted.wait_for(|n| *n > 1_000).await.expect("the fanout runs");
    assert!(health.readiness().ready);
    let summary = progress.summary();
    assert_eq!((summary.sources[0].name.as_str(), summary.sources[0].instruments), ("synthetic", 5));
    assert!(summary.sources[0].connected && summary.publisher.connected);
    drain.start("test");
    running.await.expect("does not panic").expect("ends well");
    let summary = progress.summary();
    assert_eq!(summary.sources[0].events, *counted.borrow(), "everything that was told has arrived");
    assert_eq!(summary.publisher.accepted, *counted.borrow());
}

#[tokio::test]
async fn a_service_without_a_fanout_still_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let uri = format!("http://{}", listener.local_addr().expect("bound"));
    drop(listener);
    let config = Config { synthetic: Some(SyntheticConfig::default()), ..Config::default() };
    let (drain, health) = (Drain::new(), Health::new());
    drain.start("test");
    run(config, connect(&uri).expect("an address"), health.clone(), drain).await.expect("ends well");
    assert!(!health.readiness().ready);
}

#[test]
fn what_cannot_run_is_refused_before_anything_starts() {
    let error = |config: Config| Ingest::new(config).expect_err("refused").to_string();
    let replay = ReplayConfig { paths: vec!["/no/such/recording".into()], ..ReplayConfig::default() };
    assert!(error(Config { replay: Some(replay), ..Config::default() }).contains("/no/such/recording"));
    let mut config = Config { venues: vec!["kraken".to_owned()], ..Config::default() };
    let particular = VenueConfig { websocket_url: Some("http://x".to_owned()), ..VenueConfig::default() };
    config.venue.insert("kraken".to_owned(), particular);
    assert!(error(config).contains("venue.kraken.websocket_url"));
    assert!(connect("https://x:1").expect_err("no TLS yet").to_string().contains("https://x:1"));
    assert!(connect("127.0.0.1:1").is_err());
}
