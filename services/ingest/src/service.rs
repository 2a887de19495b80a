//! Runs the sources and the publisher.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use ticker_runtime::{Drain, Health};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

use crate::config::{Config, ConnectionConfig, default_symbols};
use crate::feed::Intake;
use crate::progress::{Progress, SourceKind};
use crate::publisher::Publisher;
use crate::replay::archives::{self, ArchiveGroup};
use crate::replay::files::Group;
use crate::replay::{How, Replay};
use crate::venue::care::Turns;
use crate::venue::{Servers, Venue, VenuesHealth, fetch};
use crate::{IngestError, passed_over, publisher, synthetic, venue};

/// Once the drain has begun, sources end within so long.
const SOURCES_END_MAX: Duration = Duration::from_secs(2);

/// Once the sources have ended, what they told is put on the tape within so long, or given up.
const FLUSH_MAX: Duration = Duration::from_secs(5);

/// A connection to the fanout stands after so long, or the try failed.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Where one venue's symbols need several connections, two tries are so far apart, also when all were lost together:
/// Bitfinex allows 20 a minute for each address, Binance one a second.
const CONNECTIONS_APART: Duration = Duration::from_secs(3);

/// How often an idle connection to the fanout is proven, and how long the proof may take.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// An ingest service that has not been started: everything in its configuration that can be checked has been.
#[derive(Debug)]
pub struct Ingest {
    config: Config,
    venues: Vec<LiveVenue>,
    recordings: Vec<Group>,
    archives: Vec<ArchiveGroup>,
    progress: Progress,
}

#[derive(Debug)]
pub(crate) struct LiveVenue {
    name: String,
    pub(crate) symbols: Vec<String>,
    pub(crate) servers: Servers,
    pub(crate) connection: ConnectionConfig,
}

impl LiveVenue {
    /// What runs it: as many connections as its symbols need, which begin apart.
    pub(crate) fn connections(
        self,
        progress: &Progress,
        intake: &Intake,
        tls: &Arc<rustls::ClientConfig>,
        health: &Arc<VenuesHealth>,
    ) -> Result<Vec<Venue>, IngestError> {
        let Self { name, symbols, servers, connection } = self;
        let adapters = ticker_feeds::adapters(&name, &symbols, connection.symbols_max);
        let adapters = adapters.ok_or_else(|| IngestError::UnknownVenue { venue: name.clone() })?;
        let turns = Arc::new(Turns::new(if adapters.len() > 1 { CONNECTIONS_APART } else { Duration::ZERO }));
        let run = |(number, adapter)| {
            let name = if number == 1 { name.clone() } else { format!("{name}-{number}") };
            let source = progress.source(&name, SourceKind::Venue);
            let feed = intake.feed(source.clone());
            Venue::new(adapter, servers.clone(), tls.clone(), feed, source, health.clone())
                .configured(connection)
                .in_turn(Arc::clone(&turns))
        };
        Ok((1..).zip(adapters).map(run).collect())
    }
}

impl Ingest {
    /// Checks the configuration, and that every recording is there and can be replayed. Reads the beginnings of files.
    pub fn new(config: Config) -> Result<Self, IngestError> {
        config.check()?;
        let replay = config.replay.as_ref();
        let (recordings, archives) = replay.map_or_else(|| Ok(Default::default()), archives::find)?;
        let mut played = recordings.iter().map(|g| &g.venue).chain(archives.iter().map(|g| &g.venue));
        if let Some(twice) = played.find(|venue| config.venues.contains(venue)) {
            let why = format!("{twice} would come live and from a recording at once");
            return Err(IngestError::Setting { setting: "venues".to_owned(), why });
        }
        let venues = config.venues.iter().map(|name| live_venue(name, &config)).collect::<Result<_, _>>()?;
        Ok(Self { config, venues, recordings, archives, progress: Progress::new() })
    }

    /// How its sources do, also while it runs.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Runs until `drain` begins: then sources end, what they told is put on the tape, and it returns. Replays that have
    /// ended do not end it.
    pub async fn run(self, fanout: Channel, health: Health, drain: Drain) -> Result<(), IngestError> {
        describe_metrics();
        let Self { config, venues, recordings, archives, progress } = self;
        // Beside anything live, time is that of the clock.
        let recorded = config.replay.is_some() && config.synthetic.is_none() && venues.is_empty();
        let health_of = health.component("publish");
        let (publisher, intake) = Publisher::new(&config.name, recorded, config.limits, &progress, health_of);
        let mut sources: JoinSet<Result<(), IngestError>> = JoinSet::new();
        if let Some(market) = config.synthetic {
            let source = progress.source(ticker_feeds::synthetic::VENUE, SourceKind::Synthetic);
            let running = synthetic::run(market, intake.feed(source.clone()), source, drain.clone());
            sources.spawn(async {
                running.await;
                Ok(())
            });
        }
        if let Some(replay) = config.replay {
            let feed = |venue: &String| {
                let source = progress.source(venue, SourceKind::Replay);
                (intake.feed(source.clone()), source)
            };
            let feeds = recordings.iter().map(|g| feed(&g.venue)).collect();
            let archive_feeds = archives.iter().map(|g| feed(&g.venue)).collect();
            let how = How::from(&replay);
            let replay = Replay::new(recordings, how, feeds)?.with_archives(archives, archive_feeds)?;
            sources.spawn(replay.run(drain.clone()));
        }
        if !venues.is_empty() {
            let tls = fetch::tls()?;
            let venues_health = Arc::new(VenuesHealth::new(health.component("venues")));
            for live in venues {
                for venue in live.connections(&progress, &intake, &tls, &venues_health)? {
                    sources.spawn(venue.run(drain.clone()));
                }
            }
        }
        // The queue ends when the last source has.
        drop(intake);
        let publisher = Arc::new(publisher);
        let mut publishing = {
            let publisher = publisher.clone();
            tokio::spawn(async move { publisher.run(fanout).await })
        };
        let failed = all_end(&mut sources, &drain).await;
        sources.abort_all();
        while sources.join_next().await.is_some() {}
        if failed.is_none() && !drain.is_started() {
            // The sources ended by themselves: all that they told is to arrive, however long that takes.
            tokio::select! {
                () = drain.started() => {}
                _ended = &mut publishing => return Ok(()),
            }
        }
        // The queue has ended with the last source, and publishing ends once it is empty.
        if !publisher.is_done() && timeout(FLUSH_MAX, &mut publishing).await.is_err() {
            let events = publisher.unacked_events();
            tracing::warn!(events, "the fanout did not take the last events in time: they may be lost");
        }
        publishing.abort();
        failed.map_or(Ok(()), Err)
    }
}

/// Waits until all sources have ended; once the drain has begun, not much longer. Returns why one failed.
async fn all_end(sources: &mut JoinSet<Result<(), IngestError>>, drain: &Drain) -> Option<IngestError> {
    let ended = async {
        while let Some(ended) = sources.join_next().await {
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(why)) => return Some(why),
                Err(why) => return Some(IngestError::Source { name: "task".to_owned(), why: why.to_string() }),
            }
        }
        None
    };
    tokio::select! {
        failed = ended => failed,
        () = async { drain.started().await; tokio::time::sleep(SOURCES_END_MAX).await } => {
            tracing::warn!("sources did not end in time: the fanout takes nothing");
            None
        }
    }
}

pub(crate) fn live_venue(name: &str, config: &Config) -> Result<LiveVenue, IngestError> {
    let particular = config.venue.get(name).cloned().unwrap_or_default();
    let server = |key: &str, url: Option<String>, schemes: [&str; 2]| {
        let Some(url) = url else { return Ok(None) };
        let wrong = |why: String| IngestError::Setting { setting: format!("venue.{name}.{key}"), why };
        let uri: Uri = url.parse().map_err(|why| wrong(format!("`{url}` is not a URL: {why}")))?;
        match uri.scheme_str() {
            Some(scheme) if schemes.contains(&scheme) => Ok(Some(uri)),
            _ => Err(wrong(format!("`{url}` begins with neither {}:// nor {}://", schemes[0], schemes[1]))),
        }
    };
    let servers = Servers {
        websocket: server("websocket_url", particular.websocket_url, ["ws", "wss"])?,
        rest: server("rest_url", particular.rest_url, ["http", "https"])?,
    };
    let symbols = if particular.symbols.is_empty() { default_symbols(name) } else { particular.symbols };
    let connection = particular.connection;
    Ok(LiveVenue { name: name.to_owned(), symbols, servers, connection })
}

/// [`Ingest::new`] and [`Ingest::run`] in one, for whoever does not show the progress.
pub async fn run(config: Config, fanout: Channel, health: Health, drain: Drain) -> Result<(), IngestError> {
    Ingest::new(config)?.run(fanout, health, drain).await
}

/// A channel to the fanout at `uri` (`http://host:port`), which connects when it is needed, and again when it breaks.
/// Must be called inside a tokio runtime.
pub fn connect(uri: &str) -> Result<Channel, IngestError> {
    let wrong = |why: String| IngestError::Fanout { uri: uri.to_owned(), why };
    let parsed: Uri = uri.parse().map_err(|why: http::uri::InvalidUri| wrong(why.to_string()))?;
    if parsed.scheme_str() != Some("http") || parsed.authority().is_none() {
        return Err(wrong("expected http://host:port (TLS between services comes later)".to_owned()));
    }
    let endpoint = Endpoint::from(parsed)
        .connect_timeout(CONNECT_MAX)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true);
    Ok(endpoint.connect_lazy())
}

/// Tells the metrics recorder what this crate's metrics mean. [`Ingest::run`] does it.
pub fn describe_metrics() {
    metrics::describe_counter!("ticker_ingest_events_total", "Events that a source told of.");
    metrics::describe_counter!("ticker_ingest_events_dropped_total", "Events of instruments beyond the limit.");
    publisher::describe();
    venue::meters::describe();
    passed_over::describe();
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
