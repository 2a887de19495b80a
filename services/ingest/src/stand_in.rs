//! `ticker venue`: stands in for a venue on a local port, over its own protocol ([`ticker_feeds::stand_in`]).
//!
//! One task has the recording and all readers ([`hub`]), so that everybody sees everything in one order; each connection
//! has a task of its own ([`connection`]). The recording plays while somebody is subscribed, and stands still otherwise:
//! nobody misses its beginning, and who connects again goes on where it stood.

mod connection;
mod hub;
mod source;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ticker_feeds::stand_in::StandIn;
pub use ticker_feeds::stand_in::faults::{Injection, InjectionKind};
use ticker_runtime::{Drain, admin};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};

use self::hub::Hub;
use self::source::{Played, Source};
use crate::IngestError;
use crate::config::{Speed, SyntheticConfig};
use crate::replay::files::{self, Group};

/// Connections at a time, REST requests included; more wait.
const CONNECTIONS_MAX: usize = 512;

/// Questions of connections that wait for the hub.
const ASKS_MAX: usize = 1_024;

/// A listener that cannot accept (no more files) tries again after so long.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// What is played, how, and what goes wrong on purpose.
#[derive(Clone, PartialEq, Debug)]
pub struct StandInConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Recordings of one venue: files or folders.
    pub paths: Vec<PathBuf>,
    /// Instead of recordings: the synthetic market, as this venue (one of [`StandIn::SYNTHETIC`]).
    pub synthetic: Option<(String, SyntheticConfig)>,
    /// How fast recordings are played.
    pub speed: Speed,
    /// Begin again at the end.
    pub repeat: bool,
    /// What goes wrong.
    pub injections: Vec<Injection>,
    /// Of the faults: the same seed, the same faults.
    pub seed: u64,
}

/// A stand-in that listens and does not answer yet.
#[derive(Debug)]
pub struct Server {
    config: StandInConfig,
    venue: String,
    group: Option<Group>,
    listener: TcpListener,
    addr: SocketAddr,
}

impl Server {
    /// Checks the configuration, looks for the recordings, and listens.
    pub async fn bind(config: StandInConfig) -> Result<Self, IngestError> {
        let setting = |setting: &str, why: String| IngestError::Setting { setting: setting.to_owned(), why };
        let (venue, group) = match &config.synthetic {
            Some((venue, market)) => {
                if !config.paths.is_empty() {
                    return Err(setting("synthetic", "recordings cannot be played at the same time".to_owned()));
                }
                if !StandIn::SYNTHETIC.contains(&venue.as_str()) {
                    let known = StandIn::SYNTHETIC.join(", ");
                    return Err(setting(
                        "as",
                        format!("the synthetic market cannot be played as `{venue}`, but as {known}"),
                    ));
                }
                market.check()?;
                (venue.clone(), None)
            }
            None => {
                let mut groups = files::find(&config.paths)?;
                if groups.len() > 1 {
                    let venues: Vec<&str> = groups.iter().map(|g| g.venue.as_str()).collect();
                    let why = format!("recordings of {}: a stand-in is one venue", venues.join(", "));
                    return Err(setting("paths", why));
                }
                let group = groups.pop().ok_or_else(|| setting("paths", "no recording is named".to_owned()))?;
                (group.venue.clone(), Some(group))
            }
        };
        let listener = admin::bind(config.listen, "listen").await.map_err(|why| setting("listen", why.to_string()))?;
        let addr = listener.local_addr().map_err(|why| setting("listen", why.to_string()))?;
        Ok(Self { config, venue, group, listener, addr })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Whom it stands in for, as in topics.
    pub fn venue(&self) -> &str {
        &self.venue
    }

    /// Plays and answers until `drain` begins.
    pub async fn run(self, drain: Drain) -> Result<(), IngestError> {
        let Self { config, venue, group, listener, .. } = self;
        let unknown = || IngestError::UnknownVenue { venue: venue.clone() };
        let mut stand_in = StandIn::new(&venue, config.injections.clone(), config.seed).ok_or_else(unknown)?;
        let played = match (group, config.synthetic) {
            (Some(group), _) => {
                let files = group.files.clone();
                let looked =
                    tokio::task::spawn_blocking(move || source::look(&files, &mut stand_in).map(|()| stand_in));
                let task =
                    |why: tokio::task::JoinError| IngestError::Source { name: venue.clone(), why: why.to_string() };
                stand_in = looked.await.map_err(task)??;
                Played::Recording(group)
            }
            (None, Some((_, market))) => Played::Synthetic(market),
            (None, None) => return Err(IngestError::NoSource),
        };
        let source = Source::new(played, config.speed, config.repeat, &mut stand_in)?;
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        let accepting = tokio::spawn(accept(listener, asks));
        let done = Hub::new(stand_in, source, asked).run(&drain).await;
        accepting.abort();
        done
    }
}

async fn accept(listener: TcpListener, asks: mpsc::Sender<hub::Ask>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut sessions = 0u32;
    while let Ok(place) = Arc::clone(&room).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let asks = asks.clone();
                sessions = sessions.wrapping_add(1);
                let session = ticker_feeds::stand_in::Session(sessions);
                tokio::spawn(async move {
                    connection::serve(stream, session, asks).await;
                    drop(place);
                });
            }
            Err(why) => {
                tracing::warn!(%why, "cannot accept");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}
