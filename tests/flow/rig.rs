//! All services in one process, over real sockets on free ports.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ticker_client::{Options, Over};
use ticker_edge::Edge;
use ticker_fanout::Fanout;
use ticker_ingest::config::{ReplayConfig, Speed};
use ticker_ingest::{Ingest, Progress};
use ticker_runtime::{Drain, Health};

/// Any free port of this machine.
pub(crate) const FREE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A fanout and an edge, and whatever ingest was started.
pub(crate) struct Rig {
    /// Everybody's drain.
    pub(crate) drain: Drain,
    /// Base URL of the edge.
    pub(crate) http: String,
    /// URL of the fanout's gRPC.
    pub(crate) grpc: String,
    /// URL of the edge's TLS and QUIC port.
    pub(crate) quic: String,
    health: Health,
    edge: Option<Edge>,
}

impl Rig {
    /// Starts a fanout and an edge that follows it.
    pub(crate) async fn start(edge_config: ticker_edge::Config) -> Self {
        let (drain, health) = (Drain::new(), Health::new());
        let config =
            ticker_fanout::Config { tape_bytes_max: 2 << 30, backlog_events_max: 1 << 20, ..Default::default() };
        let fanout = Fanout::new(config, drain.clone());
        let listener = tokio::net::TcpListener::bind(FREE).await.expect("a free port");
        let grpc = format!("http://{}", listener.local_addr().expect("bound"));
        tokio::spawn(fanout.clone().maintain());
        tokio::spawn(async move { fanout.serve_listener(listener).await });
        let config = ticker_edge::Config {
            listen: FREE,
            tls_listen: Some(FREE),
            rtc_listen: Some(FREE),
            shards: 2,
            ..edge_config
        };
        let channel = ticker_edge::connect(&grpc).expect("a URL");
        let edge = Edge::start(&config, channel, &health, &drain).expect("it starts");
        let quic = format!("https://{}", edge.tls_addr().expect("configured"));
        let http = format!("http://{}", edge.local_addr());
        let rig = Self { http, grpc, quic, drain, health, edge: Some(edge) };
        rig.ready().await;
        rig
    }

    /// Waits until every component is ready.
    pub(crate) async fn ready(&self) {
        let ready = async {
            while !self.health.readiness().ready {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), ready).await.expect("ready in time");
    }

    /// Starts an ingest service that is told what to run.
    pub(crate) fn ingest(&self, config: ticker_ingest::Config) -> Progress {
        let ingest = Ingest::new(config).expect("a good configuration");
        let progress = ingest.progress();
        let channel = ticker_ingest::connect(&self.grpc).expect("a URL");
        let (health, drain) = (Health::new(), self.drain.clone());
        tokio::spawn(async move { ingest.run(channel, health, drain).await.expect("ingest runs") });
        progress
    }

    /// Replays a recording as fast as it goes.
    pub(crate) fn replay(&self, path: PathBuf) -> Progress {
        let replay = ReplayConfig { paths: vec![path], speed: Speed::Max, ..Default::default() };
        self.ingest(ticker_ingest::Config { replay: Some(replay), ..Default::default() })
    }

    /// How to reach this rig over a transport.
    pub(crate) fn options(&self, over: Over) -> Options {
        Options {
            over,
            http: self.http.clone(),
            grpc: self.grpc.clone(),
            quic: self.quic.clone(),
            poll_wait_s: 5,
            ..Options::default()
        }
    }

    /// Drains everything, and waits until the edge has.
    pub(crate) async fn stop(mut self) {
        self.drain.start("the test is over");
        if let Some(edge) = self.edge.take() {
            tokio::time::timeout(Duration::from_secs(15), edge.stopped()).await.expect("the edge drains in time");
        }
    }
}
