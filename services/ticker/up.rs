//! `ticker up`: ingest, fanout and edge in one process, over the same gRPC as in three.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::Context;
use ticker_edge::Edge;
use ticker_fanout::Fanout;
use ticker_ingest::Ingest;
use ticker_runtime::config::check_exposure;
use ticker_runtime::{Drain, admin};
use tokio::task::JoinHandle;

use crate::cli::Up;
use crate::pipe;
use crate::services::{LOG_FILTER, LOG_FILTER_WATCHED, Process};
use crate::settings::Settings;
use crate::status::{self, Banner};

/// The contract's admin address of `ticker up`.
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// The contract's TLS address of `ticker up`.
const TLS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8443);

/// The contract's WebRTC address of `ticker up`.
const RTC: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8444);

pub(crate) async fn run(args: Up) -> anyhow::Result<ExitCode> {
    // A person at a terminal has the status line; what goes well need not be told twice.
    let watched = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let (mut settings, metrics) = Settings::load(&args.common, if watched { LOG_FILTER_WATCHED } else { LOG_FILTER })?;
    settings.set_sources(args.sources);
    settings.default_market();
    settings.edge.listen = args.listen.unwrap_or(settings.edge.listen);
    settings.fanout.listen = args.grpc.unwrap_or(settings.fanout.listen);
    settings.edge.tls_listen = args.tls_listen.or(settings.edge.tls_listen).filter(|_| !args.no_tls);
    // Nobody asked for the default address, so that it is taken is no reason not to start.
    let tls_by_default = settings.edge.tls_listen.is_none() && !args.no_tls;
    if tls_by_default {
        settings.edge.tls_listen = Some(TLS);
    }
    settings.edge.rtc_listen = args.rtc_listen.or(settings.edge.rtc_listen).filter(|_| !args.no_rtc);
    let rtc_by_default = settings.edge.rtc_listen.is_none() && !args.no_rtc;
    if rtc_by_default {
        settings.edge.rtc_listen = Some(RTC);
    }
    settings.check_edge_exposure()?;
    check_exposure("gRPC", settings.fanout.listen, false, settings.insecure)?;

    // Everything that can be refused is refused before anything runs.
    let ingest = Ingest::new(settings.ingest.clone())?;
    let grpc = admin::bind(settings.fanout.listen, "grpc").await?;
    let grpc_addr = grpc.local_addr().context("the gRPC listener")?;
    let process = Process::start(&settings, ADMIN, metrics, &["publish", "upstream"]).await?;

    // The fanout ends last: what ingest has told goes on the tape, and readers are told goodbye, while it still runs.
    let last = Drain::new();
    let fanout = Fanout::new(settings.fanout.clone(), last.clone());
    let (connector, pipes) = pipe::listen();
    let maintenance = tokio::spawn(fanout.clone().maintain());
    let over_network = tokio::spawn({
        let fanout = fanout.clone();
        async move { fanout.serve_listener(grpc).await }
    });
    let in_memory = tokio::spawn(async move { fanout.serve_with_incoming(pipes).await });

    let start = |config: &_| Edge::start(config, connector.channel(), &process.health, &process.drain);
    let edge = loop {
        match start(&settings.edge) {
            Err(error) if tls_by_default && error.is_tls_address_in_use() => settings.edge.tls_listen = None,
            Err(error) if rtc_by_default && error.is_rtc_address_in_use() => settings.edge.rtc_listen = None,
            started => break started?,
        }
    };
    let http_addr = edge.local_addr();
    let readers = edge.reader_count();
    let progress = ingest.progress();
    let mut ingesting = tokio::spawn(ingest.run(connector.channel(), process.health.clone(), process.drain.clone()));

    let topic = topic_to_try(&settings);
    let synthetic_only = settings.ingest.venues.is_empty() && settings.ingest.replay.is_none();
    let banner = Banner {
        http: http_addr,
        tls: edge.tls_addr(),
        tls_is_taken: (tls_by_default && edge.tls_addr().is_none()).then_some(TLS),
        rtc: edge.rtc_addr(),
        rtc_is_taken: (rtc_by_default && edge.rtc_addr().is_none()).then_some(RTC),
        grpc: grpc_addr,
        admin: process.admin,
        synthetic_only,
        topic: &topic,
    };
    // Whoever closed our output has no use for the banner, but perhaps for the service.
    let _ = banner.show();
    let count = move || u64::try_from(readers.load(Ordering::Relaxed)).ok();
    let shown = tokio::spawn(status::show(progress, count, process.drain.clone()));

    let early = tokio::select! {
        () = process.drain.started() => None,
        ended = &mut ingesting => {
            // Ingest ends when it is asked to, or because it failed.
            process.drain.start("ingest ended");
            Some(ended)
        }
    };
    let ingested = match early {
        Some(ended) => ended,
        None => ingesting.await,
    };
    edge.stopped().await;
    last.start("drained");
    let _ = shown.await;
    maintenance.abort();
    join(over_network, "gRPC").await?;
    join(in_memory, "the fanout").await?;
    ingested.context("ingest")??;
    let _ = writeln!(std::io::stdout(), "drained, goodbye");
    Ok(ExitCode::SUCCESS)
}

async fn join<E>(task: JoinHandle<Result<(), E>>, what: &'static str) -> anyhow::Result<()>
where
    E: std::error::Error + Send + Sync + 'static,
{
    task.await.context(what)?.context(what)
}

/// A topic on which something happens.
fn topic_to_try(settings: &Settings) -> String {
    let ingest = &settings.ingest;
    match (ingest.venues.first(), &ingest.replay, &ingest.synthetic) {
        (Some(venue), _, _) => format!("quote/{venue}/*"),
        (None, Some(_), _) => "quote/*/*".to_owned(),
        (None, None, _) => "quote/synthetic/*".to_owned(),
    }
}
