//! `ticker ingest`, `ticker fanout`, `ticker edge`: one service in a process of its own.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use anyhow::Context;
use ticker_runtime::config::check_exposure;
use ticker_runtime::{Drain, Health, admin, drain};

use crate::cli;
use crate::settings::{Metrics, Settings};

/// What services log unless `TICKER_LOG` says otherwise. What str0m warns of is what strangers send.
pub(crate) const LOG_FILTER: &str = "info,str0m=error,is=error";

/// The same where somebody watches.
pub(crate) const LOG_FILTER_WATCHED: &str = "warn,str0m=error,is=error";

/// Ingest has no listener but its admin port; the other two have theirs in their configurations.
const INGEST_ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9093);

/// `ticker ingest`.
pub(crate) async fn ingest(args: cli::Ingest) -> anyhow::Result<ExitCode> {
    let (mut settings, metrics) = Settings::load(&args.common, LOG_FILTER)?;
    settings.set_sources(args.sources);
    if let Some(fanout) = args.fanout {
        settings.ingest.fanout = fanout;
    }
    let ingest = ticker_ingest::Ingest::new(settings.ingest.clone())?;
    let channel = ticker_ingest::connect(&settings.ingest.fanout)?;
    let process = Process::start(&settings, INGEST_ADMIN, metrics, &["publish"]).await?;
    tracing::info!(fanout = settings.ingest.fanout, "ingest runs");
    let (health, drain) = (process.health.clone(), process.drain.clone());
    process.run(ingest.run(channel, health, drain)).await
}

/// `ticker fanout`.
pub(crate) async fn fanout(args: cli::Fanout) -> anyhow::Result<ExitCode> {
    let (mut settings, metrics) = Settings::load(&args.common, LOG_FILTER)?;
    settings.fanout.listen = args.listen.unwrap_or(settings.fanout.listen);
    check_exposure("gRPC", settings.fanout.listen, false, settings.insecure)?;
    let process = Process::start(&settings, settings.fanout.admin, metrics, &["fanout"]).await?;
    let fanout = ticker_fanout::Fanout::new(settings.fanout, process.drain.clone());
    let health = process.health.clone();
    process.run(async move { ticker_fanout::serve(fanout, &health).await }).await
}

/// `ticker edge`.
pub(crate) async fn edge(args: cli::Edge) -> anyhow::Result<ExitCode> {
    let (mut settings, metrics) = Settings::load(&args.common, LOG_FILTER)?;
    settings.edge.listen = args.listen.unwrap_or(settings.edge.listen);
    if let Some(fanout) = args.fanout {
        settings.edge.fanout = fanout;
    }
    settings.edge.tls_listen = args.tls_listen.or(settings.edge.tls_listen);
    settings.edge.rtc_listen = args.rtc_listen.or(settings.edge.rtc_listen);
    settings.check_edge_exposure()?;
    let channel = ticker_edge::connect(&settings.edge.fanout)?;
    let process = Process::start(&settings, settings.edge.admin, metrics, &["upstream"]).await?;
    let edge = ticker_edge::Edge::start(&settings.edge, channel, &process.health, &process.drain)?;
    let tls = edge.tls_addr().map(tracing::field::display);
    let rtc = edge.rtc_addr().map(tracing::field::display);
    tracing::info!(listen = %edge.local_addr(), tls, rtc, fanout = settings.edge.fanout, "edge runs");
    let stopped = async {
        edge.stopped().await;
        Ok::<_, std::convert::Infallible>(())
    };
    process.run(stopped).await
}

/// What every process has: health, a drain that signals begin, and the admin listener.
pub(crate) struct Process {
    pub(crate) health: Health,
    pub(crate) drain: Drain,
    pub(crate) admin: SocketAddr,
}

impl Process {
    /// Listens for signals and on the admin address. The process is not ready before all of `components` are: they are
    /// registered before anybody can ask.
    pub(crate) async fn start(
        settings: &Settings,
        default: SocketAddr,
        metrics: Metrics,
        components: &[&str],
    ) -> anyhow::Result<Self> {
        let addr = settings.admin.unwrap_or(default);
        check_exposure("admin", addr, false, settings.insecure)?;
        let (health, drain) = (Health::new(), Drain::new());
        components.iter().for_each(|name| drop(health.component(name)));
        drain::signals(drain.clone()).context("cannot listen for signals")?;
        let listener = admin::bind(addr, "admin").await?;
        let addr = listener.local_addr().context("the admin listener")?;
        let serving = admin::serve(listener, health.clone(), metrics, drain.clone());
        tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "the admin listener has failed");
            }
        });
        Ok(Self { health, drain, admin: addr })
    }

    /// Runs a service to its end.
    pub(crate) async fn run<E>(self, service: impl Future<Output = Result<(), E>>) -> anyhow::Result<ExitCode>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        service.await?;
        tracing::info!("drained, goodbye");
        Ok(ExitCode::SUCCESS)
    }
}
