//! The configuration file, the environment and the flags, into the configurations of the services.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use serde::Deserialize;
use ticker_ingest::config::{ReplayConfig, SyntheticConfig};
use ticker_runtime::{LogFormat, config, telemetry};

use crate::cli::{Common, Playing, Sources, VenueAt};

/// The whole file: a table for each service, so that one file can serve them all.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// `/livez`, `/readyz`, `/metrics` of this process; each service has its own default.
    pub(crate) admin: Option<SocketAddr>,
    /// Listen beyond this machine without tokens and TLS.
    pub(crate) insecure: bool,
    pub(crate) log_format: LogFormat,
    pub(crate) ingest: ticker_ingest::Config,
    pub(crate) fanout: ticker_fanout::Config,
    pub(crate) edge: ticker_edge::Config,
}

/// The metrics of the process, once logs and metrics are set up.
pub(crate) type Metrics = telemetry::Metrics;

impl Settings {
    /// Reads the file and the environment, lays the flags over them, and sets up logs and metrics.
    pub(crate) fn load(common: &Common, log_filter: &str) -> anyhow::Result<(Self, Metrics)> {
        let mut settings: Self = config::load(common.config.as_deref(), config::PREFIX)?;
        settings.admin = common.admin.or(settings.admin);
        settings.insecure |= common.insecure;
        settings.log_format = common.log_format.unwrap_or(settings.log_format);
        telemetry::init(settings.log_format, log_filter)?;
        let metrics = telemetry::metrics().context("metrics")?;
        Ok((settings, metrics))
    }

    /// Lays the source flags over the file's sources: whoever names one names all.
    pub(crate) fn set_sources(&mut self, sources: Sources) {
        let ingest = &mut self.ingest;
        let Sources { synthetic, seed, venues, symbols, venue_at, replay, speed, from, to, repeat, shift_to_now } =
            sources;
        if synthetic.is_some() || !venues.is_empty() || !replay.is_empty() {
            (ingest.synthetic, ingest.venues) = (None, venues);
            // What the file says of archives (their day, their columns) holds for those that the flags name.
            ingest.replay = ingest.replay.take().filter(|_| !replay.is_empty());
        }
        if let Some(market) = synthetic {
            let default = SyntheticConfig::default();
            ingest.synthetic = Some(SyntheticConfig {
                instruments: market.instruments,
                updates_per_second: market.updates_per_second.unwrap_or(default.updates_per_second),
                ..default
            });
        }
        if let Some(seed) = seed {
            ingest.synthetic.get_or_insert_with(small_market).seed = seed;
        }
        self.set_symbols(&symbols);
        self.set_servers(venue_at);
        if !replay.is_empty() {
            self.set_replay(replay, Playing { speed, from, to, repeat, shift_to_now });
        }
    }

    /// Refuses an edge that would be open to the network without tokens.
    pub(crate) fn check_edge_exposure(&self) -> Result<(), config::ConfigError> {
        let insecure = self.insecure || self.edge.insecure;
        config::check_exposure("HTTP", self.edge.listen, false, insecure)?;
        let tls = self.edge.tls_listen.map(|addr| ("TLS", addr));
        let rtc = self.edge.rtc_listen.map(|addr| ("WebRTC", addr));
        tls.into_iter().chain(rtc).try_for_each(|(what, addr)| config::check_exposure(what, addr, false, insecure))
    }

    /// Asks every venue for these instruments, if there are any.
    pub(crate) fn set_symbols(&mut self, symbols: &[String]) {
        let ingest = &mut self.ingest;
        for venue in ingest.venues.iter().filter(|_| !symbols.is_empty()) {
            ingest.venue.entry(venue.clone()).or_default().symbols = symbols.to_vec();
        }
    }

    /// Other servers than the venues' own.
    pub(crate) fn set_servers(&mut self, servers: Vec<VenueAt>) {
        for VenueAt { venue, server } in servers {
            let particular = self.ingest.venue.entry(venue).or_default();
            particular.websocket_url = Some(format!("ws://{server}"));
            particular.rest_url = Some(format!("http://{server}"));
        }
    }

    /// Recordings and archives to play. What the file says of archives (their day, their symbols, their columns) stays.
    pub(crate) fn set_replay(&mut self, paths: Vec<PathBuf>, playing: Playing) {
        let Playing { speed, from, to, repeat, shift_to_now } = playing;
        let speed = speed.unwrap_or_default();
        let ReplayConfig { day, symbols, mapping, .. } = self.ingest.replay.take().unwrap_or_default();
        self.ingest.replay = Some(ReplayConfig {
            paths,
            speed,
            repeat,
            shift_to_now,
            day,
            symbols,
            mapping,
            from,
            to,
            ..ReplayConfig::default()
        });
    }

    /// A small synthetic market, if no source was named at all. Says whether it was needed.
    pub(crate) fn default_market(&mut self) -> bool {
        let ingest = &mut self.ingest;
        let none = ingest.venues.is_empty() && ingest.synthetic.is_none() && ingest.replay.is_none();
        if none {
            ingest.synthetic = Some(small_market());
        }
        none
    }
}

/// What `ticker up` runs when nobody says otherwise: enough to fill a screen.
fn small_market() -> SyntheticConfig {
    SyntheticConfig { instruments: 10, ..SyntheticConfig::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Synthetic;

    #[test]
    fn whoever_names_one_source_names_all() {
        let mut settings = Settings::default();
        settings.ingest.venues = vec!["kraken".into()];
        let market = Synthetic { instruments: 3, updates_per_second: Some(7) };
        settings.set_sources(Sources { synthetic: Some(market), seed: Some(9), ..Sources::default() });
        assert!(settings.ingest.venues.is_empty());
        let market = settings.ingest.synthetic.as_ref().expect("named");
        assert_eq!((market.instruments, market.updates_per_second, market.seed), (3, 7, 9));
        assert!(!settings.default_market());
    }

    #[test]
    fn without_a_source_there_is_a_small_market() {
        let mut settings = Settings::default();
        settings.set_sources(Sources::default());
        assert!(settings.default_market());
        assert_eq!(settings.ingest.synthetic.map(|m| m.instruments), Some(10));
    }

    #[test]
    fn symbols_are_asked_of_each_venue() {
        let mut settings = Settings::default();
        settings.set_sources(Sources {
            venues: vec!["kraken".into(), "coinbase".into()],
            symbols: vec!["BTC-USD".into()],
            venue_at: vec!["kraken=127.0.0.1:9100".parse().expect("a server")],
            ..Sources::default()
        });
        assert_eq!(settings.ingest.venue["coinbase"].symbols, ["BTC-USD"]);
        assert_eq!(settings.ingest.venue["coinbase"].rest_url, None);
        assert_eq!(settings.ingest.venue["kraken"].websocket_url.as_deref(), Some("ws://127.0.0.1:9100"));
    }
}
