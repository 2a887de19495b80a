//! A fanout, an edge in front of it and the one source of what happens, in this process, over real sockets on free ports.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ticker_client::trust::certificate_hashes;
use ticker_client::{Options, Subscription, Trust};
use ticker_edge::Edge;
use ticker_fanout::Fanout;
use ticker_market::Epoch;
use ticker_runtime::{Drain, Health};
use tokio::task::JoinHandle;

use crate::screen::Screen;
use crate::source::Source;
use crate::transport::{At, Transport};

const FREE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What happens, happens within this time, or the trial fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Short, so that no trial waits long for one.
pub(crate) const HEARTBEAT_MS: u32 = 200;

/// Largest request that the fanout takes here.
pub(crate) const REQUEST_BYTES_MAX: usize = 1 << 20;

/// Waits for something that is sure to happen.
pub(crate) async fn bounded<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

/// How the services of a trial are configured.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) edge: ticker_edge::Config,
    pub(crate) fanout: ticker_fanout::Config,
    /// What the source publishes was recorded.
    pub(crate) recorded: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            // One shard: whatever one reader does to it, it does to all.
            edge: ticker_edge::Config {
                listen: FREE,
                tls_listen: Some(FREE),
                rtc_listen: Some(FREE),
                shards: 1,
                heartbeat_ms: HEARTBEAT_MS,
                ..Default::default()
            },
            fanout: ticker_fanout::Config {
                backlog_events_max: 1_024,
                heartbeat_ms: HEARTBEAT_MS,
                message_bytes_max: REQUEST_BYTES_MAX,
                ..Default::default()
            },
            recorded: false,
        }
    }
}

/// A running fanout.
struct RunningFanout {
    drain: Drain,
    served: JoinHandle<()>,
    address: SocketAddr,
}

impl RunningFanout {
    async fn start(setup: &Setup, address: SocketAddr, epoch: &str) -> Self {
        let drain = Drain::new();
        let epoch = Epoch::new(epoch).expect("a name");
        let fanout = Fanout::with_epoch(setup.fanout.clone(), drain.clone(), epoch);
        let listener = tokio::net::TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(fanout.clone().maintain());
        let served = tokio::spawn(async move { fanout.serve_listener(listener).await.expect("it serves") });
        Self { drain, served, address }
    }
}

/// One trial: a transport, the services, and the source.
pub(crate) struct Stage {
    pub(crate) transport: &'static Transport,
    pub(crate) source: Source,
    setup: Setup,
    fanout: RunningFanout,
    edge: RunningEdge,
}

/// A running edge.
pub(crate) struct RunningEdge {
    pub(crate) http: String,
    tls: String,
    trust: Trust,
    drain: Drain,
    edge: Edge,
}

impl RunningEdge {
    async fn start(setup: &Setup, grpc: &str) -> Self {
        let (drain, health) = (Drain::new(), Health::new());
        let channel = ticker_edge::connect(grpc).expect("a URL");
        let edge = Edge::start(&setup.edge, channel, &health, &drain).expect("it starts");
        let ready = async {
            while !health.readiness().ready {
                tokio::task::yield_now().await;
            }
        };
        bounded("an edge is ready", ready).await;
        let http = format!("http://{}", edge.local_addr());
        let tls = format!("https://{}", edge.tls_addr().expect("configured"));
        let options = Options { http: http.clone(), ..Options::default() };
        let hashes = bounded("the certificate's hash", certificate_hashes(&options)).await.expect("it is told");
        Self { http, tls, trust: Trust::Hashes(hashes), drain, edge }
    }

    async fn stop(self) {
        self.drain.start("the trial is over");
        bounded("an edge drains", self.edge.stopped()).await;
    }
}

impl Stage {
    /// Services as they come, with a source that has announced `A-USD` and `B-USD`.
    pub(crate) async fn start(transport: &'static Transport) -> Self {
        Self::with(transport, Setup::default()).await
    }

    /// The same, configured.
    pub(crate) async fn with(transport: &'static Transport, setup: Setup) -> Self {
        let fanout = RunningFanout::start(&setup, FREE, "first").await;
        let grpc = format!("http://{}", fanout.address);
        let edge = RunningEdge::start(&setup, &grpc).await;
        let mut source = Source::open(&grpc, setup.recorded).await;
        source.announce("A-USD").await;
        source.announce("B-USD").await;
        let stage = Self { transport, source, setup, fanout, edge };
        stage.until_known("B-USD").await;
        stage
    }

    /// Where this trial's transport is served.
    pub(crate) fn url(&self) -> String {
        match self.transport.at {
            At::Edge if self.transport.secure => self.edge.tls.clone(),
            At::Edge => self.edge.http.clone(),
            At::Fanout => format!("http://{}", self.fanout.address),
        }
    }

    /// Where the edge's HTTP is.
    pub(crate) fn edge_url(&self) -> String {
        self.edge.http.clone()
    }

    /// How to reach these services over this trial's transport.
    pub(crate) fn options(&self) -> Options {
        self.options_of(self.transport)
    }

    /// How to reach them over another.
    pub(crate) fn options_of(&self, transport: &Transport) -> Options {
        let (over, http2, trust) = (transport.over, transport.http2, self.edge.trust.clone());
        let http = match transport.secure && !transport.is_quic() {
            true => self.edge.tls.clone(),
            false => self.edge.http.clone(),
        };
        let grpc = match transport.at {
            At::Edge => http.clone(),
            At::Fanout => format!("http://{}", self.fanout.address),
        };
        let quic = self.edge.tls.clone();
        // Longer than any trial waits for an event, but for those that wait for the answer without one.
        Options { over, http, grpc, quic, http2, trust, poll_wait_s: 5, ..Options::default() }
    }

    /// A reader over this trial's transport.
    pub(crate) async fn open(&self, subscription: Subscription) -> Screen {
        Screen::open(self.options(), subscription).await
    }

    /// A reader over this trial's transport, of these topics and nothing else asked.
    pub(crate) async fn watch(&self, topics: &[&str]) -> Screen {
        self.open(of(topics)).await
    }

    /// Waits until an instrument is known wherever readers come.
    pub(crate) async fn until_known(&self, symbol: &str) {
        let options = Options { http: self.edge.http.clone(), ..Options::default() };
        let known = async {
            loop {
                let topic = format!("status/alpha/{symbol}");
                if ticker_client::http::snapshot(&options, &[topic]).await.is_ok() {
                    return;
                }
            }
        };
        bounded("an instrument is known to the edge", known).await;
    }

    /// A second edge of the same fanout, which takes the first one's place once that one drains.
    pub(crate) async fn second_edge(&mut self) -> RunningEdge {
        let second = RunningEdge::start(&self.setup, &format!("http://{}", self.fanout.address)).await;
        std::mem::replace(&mut self.edge, second)
    }

    /// Begins the drain of the service that serves this trial's transport.
    pub(crate) fn drain(&self) {
        match self.transport.at {
            At::Edge => self.edge.drain.start("the trial says so"),
            At::Fanout => self.fanout.drain.start("the trial says so"),
        }
    }

    /// Another life of the fanout, with an empty tape of another epoch, on the same port; the source begins anew as well.
    pub(crate) async fn restart_fanout(&mut self) {
        self.fanout.drain.start("restarted");
        let address = self.fanout.address;
        let _ = bounded("the fanout ends", &mut self.fanout.served).await;
        self.fanout = RunningFanout::start(&self.setup, address, "second").await;
        self.source = Source::open(&format!("http://{address}"), self.setup.recorded).await;
        self.source.announce("A-USD").await;
        self.source.announce("B-USD").await;
    }

    /// The end of a trial. Its readers should be gone.
    pub(crate) async fn stop(self) {
        let Self { source, fanout, edge, .. } = self;
        drop(source);
        edge.stop().await;
        fanout.drain.start("the trial is over");
        fanout.served.abort();
    }
}

impl RunningEdge {
    /// How many sessions it has.
    pub(crate) fn readers(&self) -> usize {
        self.edge.readers()
    }

    /// Begins its drain.
    pub(crate) fn drain(&self) {
        self.drain.start("the trial says so");
    }

    /// Waits until it has drained.
    pub(crate) async fn stopped(self) {
        bounded("an edge drains", self.edge.stopped()).await;
    }
}

/// A subscription to these topics, and nothing else asked.
pub(crate) fn of(topics: &[&str]) -> Subscription {
    Subscription { topics: topics.iter().map(|t| (*t).to_owned()).collect(), ..Subscription::default() }
}
