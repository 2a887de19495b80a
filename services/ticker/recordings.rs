//! `ticker record`, `ticker replay`, `ticker venue`: recordings are written, played, and served as their venue would.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use ticker_ingest::config::SyntheticConfig;
use ticker_ingest::stand_in::{Injection, Server, StandInConfig};
use ticker_ingest::{Ingest, RecordConfig, Recorder};
use ticker_runtime::config::check_exposure;
use ticker_runtime::{Drain, drain, telemetry};

use crate::cli::{Record, Replay, Venue};
use crate::services::{LOG_FILTER, Process};
use crate::settings::Settings;

/// The admin addresses of `ticker record` and `ticker replay`, which may run beside all other services.
const RECORD_ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9094);
/// See [`RECORD_ADMIN`].
const REPLAY_ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9095);

/// `ticker record`.
pub(crate) async fn record(args: Record) -> anyhow::Result<ExitCode> {
    let (mut settings, metrics) = Settings::load(&args.common, LOG_FILTER)?;
    settings.ingest.venues = args.venues;
    settings.set_symbols(&args.symbols);
    settings.set_servers(args.venue_at);
    let recorder = Recorder::new(RecordConfig {
        folder: args.out.clone(),
        venues: settings.ingest.venues.clone(),
        venue: settings.ingest.venue.clone(),
        flush_every: Duration::from_millis(args.flush_ms),
        file_bytes_max: args.rotate_mib << 20,
        file_age_max: Duration::from_secs(60 * args.rotate_minutes),
    })?;
    let process = Process::start(&settings, RECORD_ADMIN, metrics, &["venues"]).await?;
    tracing::info!(folder = %args.out.display(), venues = settings.ingest.venues.join(","), "recording");
    let (health, drain) = (process.health.clone(), process.drain.clone());
    process.run(recorder.run(health, drain)).await
}

/// `ticker replay`.
pub(crate) async fn replay(args: Replay) -> anyhow::Result<ExitCode> {
    let (mut settings, metrics) = Settings::load(&args.common, LOG_FILTER)?;
    settings.set_replay(args.paths, args.playing);
    let ingest = &mut settings.ingest;
    (ingest.venues, ingest.synthetic) = (Vec::new(), None);
    if let Some(replay) = &mut ingest.replay {
        replay.exit = true;
    }
    if ingest.name == ticker_ingest::Config::default().name {
        // So that the fanout's log tells it from an ingest service.
        ingest.name = "replay".to_owned();
    }
    if let Some(fanout) = args.fanout {
        ingest.fanout = fanout;
    }
    let replay = Ingest::new(ingest.clone())?;
    let channel = ticker_ingest::connect(&ingest.fanout)?;
    let process = Process::start(&settings, REPLAY_ADMIN, metrics, &["publish"]).await?;
    tracing::info!(fanout = settings.ingest.fanout, "replaying");
    let (health, drain) = (process.health.clone(), process.drain.clone());
    process.run(replay.run(channel, health, drain)).await
}

/// `ticker venue`.
pub(crate) async fn venue(args: Venue) -> anyhow::Result<ExitCode> {
    check_exposure("HTTP", args.listen, false, args.insecure)?;
    telemetry::init(args.log_format, LOG_FILTER)?;
    let mut injections = args.fault;
    if let Some(of) = args.drop {
        injections.push(format!("drop:1/{of}").parse::<Injection>().context("--drop")?);
    }
    let market = args.synthetic.map(|market| {
        let default = SyntheticConfig::default();
        SyntheticConfig {
            instruments: market.instruments,
            updates_per_second: market.updates_per_second.unwrap_or(default.updates_per_second),
            seed: args.seed,
        }
    });
    let server = Server::bind(StandInConfig {
        listen: args.listen,
        paths: args.paths,
        synthetic: args.venue.zip(market),
        speed: args.speed,
        repeat: args.repeat,
        injections,
        seed: args.seed,
    })
    .await?;
    let drain = Drain::new();
    drain::signals(drain.clone()).context("cannot listen for signals")?;
    let (venue, addr) = (server.venue().to_owned(), server.local_addr());
    // Whoever closed our output has no use for this, but perhaps for the stand-in.
    let _ =
        writeln!(std::io::stdout(), "{venue} stands at {addr}: ticker up --venues {venue} --venue-at {venue}={addr}");
    server.run(drain).await?;
    Ok(ExitCode::SUCCESS)
}
