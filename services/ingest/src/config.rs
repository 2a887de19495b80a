//! Which sources run, and the limits of what is kept for the fanout.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use ticker_market::Time;

use crate::IngestError;

/// Where the fanout is, unless said otherwise.
pub const FANOUT: &str = "http://127.0.0.1:50051";

/// Symbols of one venue, at most.
pub const SYMBOLS_MAX: usize = 200;

/// What `ingest` runs. Every key has its default; with none set there is no source, which [`crate::Ingest::new`] refuses.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Names this service to the fanout, in its logs and metrics: 1 to 64 of `a-z0-9-`.
    pub name: String,
    /// Where the fanout's gRPC port is. Not used where the caller brings a channel.
    pub fanout: String,
    /// Live venues to connect to.
    pub venues: Vec<String>,
    /// What is particular for a venue, by its name.
    pub venue: BTreeMap<String, VenueConfig>,
    /// The simulated market, if there is one.
    pub synthetic: Option<SyntheticConfig>,
    /// Recordings to replay, if there are any.
    pub replay: Option<ReplayConfig>,
    /// Limits of what waits for the fanout.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: "ingest".to_owned(),
            fanout: FANOUT.to_owned(),
            venues: Vec::new(),
            venue: BTreeMap::new(),
            synthetic: None,
            replay: None,
            limits: Limits::default(),
        }
    }
}

/// What is particular for one live venue.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VenueConfig {
    /// Instruments in normal form (`BTC-USD`). Empty: [`default_symbols`].
    pub symbols: Vec<String>,
    /// Another WebSocket server than the venue's own (`ws://127.0.0.1:9999`). Without a path the venue's is kept.
    pub websocket_url: Option<String>,
    /// Another REST server than the venue's own (`http://127.0.0.1:9998`): replaces scheme and authority.
    pub rest_url: Option<String>,
    /// How its connections are looked after.
    pub connection: ConnectionConfig,
}

/// When a connection is replaced because of its age, the old one goes on so long beside the new one: snapshots of all
/// its books are there by then.
const HANDOVER: Duration = Duration::from_secs(20);

/// A channel that was heard before and is silent for so long counts as mute, unless it was silent for longer before: in
/// the recordings a healthy pair was silent for 25.8 seconds.
const CHANNEL_SILENT_AFTER: Duration = Duration::from_secs(120);

/// What may be set for a venue's connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectionConfig {
    /// A connection of this age is replaced, in milliseconds: the new one is open, and has its snapshots, before the old
    /// one goes. Unset: shortly before the venue would cut it, where it says when.
    pub age_max_ms: Option<u64>,
    /// How long old and new deliver side by side, in milliseconds. Unset: 20,000.
    pub handover_ms: Option<u64>,
    /// A connection is replaced likewise if one of its channels (quotes, trades, books; all instruments together) is silent
    /// for so long while others are heard, in milliseconds. After a silence that was none of the venue's doing it takes
    /// four times as long. Unset: 120,000.
    pub channel_silence_ms: Option<u64>,
    /// A connection that says nothing at all for so long is closed, in milliseconds. Unset: as the venue's habits demand, or
    /// sooner where it was never silent for long.
    pub silence_ms: Option<u64>,
    /// Symbols on one connection, at most; more are spread over several. Unset: as many as the venue allows.
    pub symbols_max: Option<usize>,
}

impl ConnectionConfig {
    pub(crate) fn age_max(&self, of_venue: Option<Duration>) -> Option<Duration> {
        self.age_max_ms.map(Duration::from_millis).or(of_venue)
    }

    pub(crate) fn handover(&self) -> Duration {
        self.handover_ms.map_or(HANDOVER, Duration::from_millis)
    }

    pub(crate) fn channel_silent_after(&self) -> Duration {
        self.channel_silence_ms.map_or(CHANNEL_SILENT_AFTER, Duration::from_millis)
    }
}

/// The simulated market.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SyntheticConfig {
    /// How many instruments.
    pub instruments: usize,
    /// Updates a second of each instrument.
    pub updates_per_second: u32,
    /// The same seed gives the same market.
    pub seed: u64,
}

impl Default for SyntheticConfig {
    fn default() -> Self {
        Self { instruments: 20, updates_per_second: ticker_feeds::synthetic::UPDATES_PER_SECOND, seed: 1 }
    }
}

impl SyntheticConfig {
    pub(crate) fn check(&self) -> Result<(), IngestError> {
        let setting = |setting: &str, why: String| Err(IngestError::Setting { setting: setting.to_owned(), why });
        let Self { instruments, updates_per_second, .. } = *self;
        let most = ticker_feeds::synthetic::INSTRUMENTS_MAX;
        if !(1..=most).contains(&instruments) {
            return setting("synthetic.instruments", format!("{instruments} is not from 1 to {most}"));
        }
        let most = ticker_feeds::synthetic::UPDATES_PER_SECOND_MAX;
        if !(1..=most).contains(&updates_per_second) {
            return setting("synthetic.updates_per_second", format!("{updates_per_second} is not from 1 to {most}"));
        }
        Ok(())
    }
}

/// Recordings to replay.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReplayConfig {
    /// Files, or folders of them: recordings (`.jsonl`, `.jsonl.zst`), ITCH, DBN, tables; compressed or not.
    pub paths: Vec<PathBuf>,
    /// How fast.
    pub speed: Speed,
    /// Begin again at the end.
    #[serde(rename = "loop")]
    pub repeat: bool,
    /// Times become those of today, as if it all happened now.
    pub shift_to_now: bool,
    /// The day of ITCH files in New York (`2020-01-30`), which they do not say. Without it their name does
    /// (`01302020.NASDAQ_ITCH50`).
    pub day: Option<String>,
    /// Of ITCH files, only these symbols; none for all.
    pub symbols: Vec<String>,
    /// What the columns of tables (CSV, JSONL) mean: a TOML file. One that is named as the table and `.toml` goes before.
    pub mapping: Option<PathBuf>,
    /// Begin with the state of this moment of the recording: what lies before is read, and not told.
    pub from: Option<Moment>,
    /// End after this moment of the recording.
    pub to: Option<Moment>,
    /// At the end, end the service instead of staying for a fanout that asks for everything again.
    pub exit: bool,
}

/// A moment of a recording, by its local clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment(pub Time);

impl FromStr for Moment {
    type Err = IngestError;

    fn from_str(text: &str) -> Result<Self, IngestError> {
        let nanos = || text.parse().ok().map(Time);
        Time::parse_rfc3339(text).or_else(nanos).map(Moment).ok_or_else(|| IngestError::Setting {
            setting: "time".to_owned(),
            why: format!("`{text}` is neither like 2026-08-01T02:53:52.5Z nor nanoseconds since 1970"),
        })
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a time such as 2026-08-01T02:53:52Z, or nanoseconds since 1970")]
        enum Raw {
            Nanos(i64),
            Text(String),
        }
        match Raw::deserialize(deserializer)? {
            Raw::Nanos(nanos) => Ok(Moment(Time(nanos))),
            Raw::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

/// How fast a recording is replayed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Speed {
    /// So many times as fast as it was recorded; 1 is the recorded speed.
    Times(f64),
    /// As fast as it is taken.
    Max,
}

/// Slowest and fastest replay that waits between frames at all.
const SPEED_RANGE: std::ops::RangeInclusive<f64> = 0.001..=1_000_000.0;

impl Default for Speed {
    fn default() -> Self {
        Speed::Times(1.0)
    }
}

impl FromStr for Speed {
    type Err = IngestError;

    fn from_str(text: &str) -> Result<Self, IngestError> {
        if text == "max" {
            return Ok(Speed::Max);
        }
        let times = text.parse().ok().filter(|times| SPEED_RANGE.contains(times));
        times.map(Speed::Times).ok_or_else(|| IngestError::Setting {
            setting: "speed".to_owned(),
            why: format!("`{text}` is neither `max` nor a number from 0.001 to 1000000"),
        })
    }
}

impl<'de> Deserialize<'de> for Speed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "`max` or a number")]
        enum Raw {
            Number(f64),
            Text(String),
        }
        let text = match Raw::deserialize(deserializer)? {
            Raw::Number(number) => number.to_string(),
            Raw::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Limits of what waits for the fanout. When they are reached, sources stop reading.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes that wait to be sent.
    pub queue_bytes_max: usize,
    /// Batches that are sent and not yet on the tape.
    pub unacked_batches_max: usize,
    /// Bytes that are sent and not yet on the tape.
    pub unacked_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { queue_bytes_max: 16 << 20, unacked_batches_max: 1_024, unacked_bytes_max: 32 << 20 }
    }
}

/// What a venue is asked for where nobody says: the instruments that most people watch.
pub fn default_symbols(venue: &str) -> Vec<String> {
    const BASES: [&str; 10] = ["BTC", "ETH", "SOL", "XRP", "DOGE", "ADA", "LTC", "LINK", "AVAX", "DOT"];
    let with = |quote: &'static str| move |base: &&str| format!("{base}-{quote}");
    match venue {
        "binance" | "bitget" | "bybit-spot" | "gateio" | "kucoin" | "okx" => BASES.iter().map(with("USDT")).collect(),
        "binance-usdm" | "bybit-linear" => BASES.iter().map(with("USDT-PERP")).collect(),
        "binance-coinm" | "bitmex" | "bybit-inverse" => BASES.iter().map(with("USD-PERP")).collect(),
        // All but two of its perpetual swaps are paid in USDC.
        "deribit" => {
            let usdc = BASES[2..].iter().map(with("USDC-PERP"));
            BASES[..2].iter().map(with("USD-PERP")).chain(usdc).collect()
        }
        _ => BASES.iter().map(with("USD")).collect(),
    }
}

impl Config {
    /// Refuses what cannot run, before anything is started.
    pub(crate) fn check(&self) -> Result<(), IngestError> {
        let setting = |setting: &str, why: String| Err(IngestError::Setting { setting: setting.to_owned(), why });
        if !(1..=64).contains(&self.name.len())
            || !self.name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
        {
            return setting("name", format!("`{}` is not 1 to 64 of a-z, 0-9 and `-`", self.name));
        }
        if self.venues.is_empty() && self.synthetic.is_none() && self.replay.is_none() {
            return Err(IngestError::NoSource);
        }
        for (i, venue) in self.venues.iter().enumerate() {
            if !ticker_feeds::VENUES.contains(&venue.as_str()) {
                return Err(IngestError::UnknownVenue { venue: venue.clone() });
            }
            if self.venues[..i].contains(venue) {
                return setting("venues", format!("{venue} is named twice"));
            }
        }
        for (venue, particular) in &self.venue {
            if !ticker_feeds::VENUES.contains(&venue.as_str()) {
                return Err(IngestError::UnknownVenue { venue: venue.clone() });
            }
            let name = format!("venue.{venue}.symbols");
            if particular.symbols.len() > SYMBOLS_MAX {
                return setting(&name, format!("{} symbols, at most {SYMBOLS_MAX}", particular.symbols.len()));
            }
            if let Some(bad) = particular.symbols.iter().find(|s| !ticker_market::topic::is_symbol(s)) {
                return setting(&name, format!("`{bad}` is not a symbol such as BTC-USD"));
            }
            if particular.connection.symbols_max == Some(0) {
                return setting(&format!("venue.{venue}.connection.symbols_max"), "at least one is needed".to_owned());
            }
        }
        if let Some(market) = &self.synthetic {
            market.check()?;
        }
        if self.replay.as_ref().is_some_and(|r| r.paths.is_empty()) {
            return setting("replay.paths", "no file or folder is named".to_owned());
        }
        if let Some(ReplayConfig { from: Some(from), to: Some(to), .. }) = &self.replay
            && from.0 > to.0
        {
            return setting("replay.to", "it lies before `from`".to_owned());
        }
        let Limits { queue_bytes_max: queue, unacked_batches_max: batches, unacked_bytes_max: bytes } = self.limits;
        if queue < 1 << 16 || bytes < 1 << 16 || batches < 2 || queue > u32::MAX as usize {
            let why = "at least 64 KiB (at most 4 GiB) of bytes and 2 batches are needed";
            return setting("limits", why.to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config { venues: vec!["kraken".to_owned()], ..Config::default() };
        change(&mut config);
        config.check().map_or_else(|e| e.to_string(), |()| "fine".to_owned())
    }

    #[test]
    fn what_cannot_run_is_told_by_name() {
        assert_eq!(check(|_| {}), "fine");
        assert!(check(|c| c.venues.clear()).contains("nothing to ingest"));
        assert!(check(|c| c.venues.push("nyse".to_owned())).contains("`nyse`"));
        assert!(check(|c| c.venues.push("kraken".to_owned())).contains("twice"));
        assert!(check(|c| c.name = "A b".to_owned()).contains("`A b`"));
        let synthetic = SyntheticConfig { instruments: 0, ..SyntheticConfig::default() };
        assert!(check(|c| c.synthetic = Some(synthetic)).contains("synthetic.instruments"));
        assert!(check(|c| c.replay = Some(ReplayConfig::default())).contains("replay.paths"));
        assert!(check(|c| c.limits.unacked_batches_max = 0).contains("limits"));
        let bad = VenueConfig { symbols: vec!["btc/usd".to_owned()], ..VenueConfig::default() };
        assert!(check(|c| _ = c.venue.insert("kraken".to_owned(), bad)).contains("btc/usd"));
        let none = ConnectionConfig { symbols_max: Some(0), ..ConnectionConfig::default() };
        let none = VenueConfig { connection: none, ..VenueConfig::default() };
        assert!(check(|c| _ = c.venue.insert("kraken".to_owned(), none)).contains("kraken.connection.symbols_max"));
    }

    #[test]
    fn a_moment_is_a_time_or_nanoseconds() {
        let at = Moment(Time(1_785_552_832_500_000_000));
        assert_eq!("2026-08-01T02:53:52.5Z".parse::<Moment>().expect("a time"), at);
        assert_eq!("1785552832500000000".parse::<Moment>().expect("a time"), at);
        assert!("yesterday".parse::<Moment>().is_err());
    }

    #[test]
    fn a_speed_is_a_number_or_max() {
        assert_eq!("max".parse::<Speed>().expect("a speed"), Speed::Max);
        assert_eq!("2.5".parse::<Speed>().expect("a speed"), Speed::Times(2.5));
        for bad in ["", "fast", "0", "-1", "NaN", "inf"] {
            assert!(bad.parse::<Speed>().is_err(), "{bad}");
        }
    }
}
