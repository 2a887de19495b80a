//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};
use ticker_client::market::Pattern;
use ticker_ingest::config::{Moment, Speed};
use ticker_ingest::stand_in::Injection;
use ticker_runtime::LogFormat;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const EXAMPLES: &str = "\
Examples:
  ticker up                                      a synthetic market on http://127.0.0.1:8080
  ticker up --venues kraken,coinbase             live prices of two venues
  ticker up --replay recordings/kraken --loop    a recording, over and over
  ticker tail quote/synthetic/'*'                best bid and ask of every instrument
  ticker tail trade/kraken/BTC-USD --json        one JSON object a line

A topic is channel/venue/symbol; * stands for one whole part.";

const VENUE_EXAMPLES: &str = "\
Examples:
  ticker venue recordings/kraken --fault drop:100       Kraken, with a hole after 99 frames
  ticker venue --synthetic 5 --as binance --drop 1000   an invented Binance that loses one frame of a thousand
  ticker up --venues kraken --symbols BTC-USD --venue-at kraken=127.0.0.1:9100

Every venue is played by subscription, with a snapshot at any time.

GET /stand-in on the same port shows how it does; POST /stand-in/fault/KIND spoils the next frame.";

const CONFIGURATION: &str = "\
Every key of the configuration file is also an environment variable: [edge] listen is TICKER_EDGE_LISTEN.
Flags go before the environment, the environment before the file.";

/// Live market data: from venues to screens, with a cursor that carries on anywhere.
#[derive(Parser, Debug)]
#[command(name = "ticker", version, about, after_help = EXAMPLES, styles = STYLES, max_term_width = 110)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run everything in one process: ingest, fanout, edge and the page
    ///
    /// Without a source it runs a synthetic market, which needs no network. Ctrl-C ends it in good order.
    #[command(after_help = CONFIGURATION)]
    Up(Up),
    /// Run the ingest service alone: reads venues, publishes to a fanout
    #[command(after_help = CONFIGURATION)]
    Ingest(Ingest),
    /// Run the fanout service alone: orders events, keeps the tape, serves gRPC
    #[command(after_help = CONFIGURATION)]
    Fanout(Fanout),
    /// Run the edge service alone: serves readers over HTTP and WebSocket
    #[command(after_help = CONFIGURATION)]
    Edge(Edge),
    /// Print live events of some topics
    Tail(Tail),
    /// Write venues' raw frames to files
    ///
    /// Files are mdrec/1, zstd, one frame a flush: a kill loses at most what came since the last flush, and the next
    /// recorder goes on in the same file.
    #[command(after_help = CONFIGURATION)]
    Record(Record),
    /// Play recordings into a running fanout, and end
    ///
    /// To play and serve them in one process: ticker up --replay PATH.
    #[command(after_help = CONFIGURATION)]
    Replay(Replay),
    /// Stand in for a venue, over its own protocol
    ///
    /// Plays a recording, or the synthetic market, to whoever subscribes, with the venue's acknowledgements, snapshots and
    /// REST answers; it stands still while nobody is subscribed.
    #[command(after_help = VENUE_EXAMPLES)]
    Venue(Venue),
}

/// What every service takes.
#[derive(Args, Debug)]
pub(crate) struct Common {
    /// Read this configuration file (TOML)
    #[arg(long, value_name = "FILE", env = "TICKER_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Admin address: /livez, /readyz, /metrics
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin: Option<SocketAddr>,
    /// Listen beyond this machine without tokens and TLS
    #[arg(long)]
    pub(crate) insecure: bool,
    /// How log lines are written: text or json
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
}

/// Where events come from.
#[derive(Args, Debug, Default)]
pub(crate) struct Sources {
    /// A synthetic market: N instruments, at R updates a second each
    #[arg(long, value_name = "N[@R]", help_heading = "Sources")]
    pub(crate) synthetic: Option<Synthetic>,
    /// Seed of the synthetic market: the same seed, the same market
    #[arg(long, value_name = "N", help_heading = "Sources")]
    pub(crate) seed: Option<u64>,
    /// Connect to live venues, such as coinbase,kraken,binance (the README lists all)
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', help_heading = "Sources")]
    pub(crate) venues: Vec<String>,
    /// Ask each of those venues for these instruments, such as BTC-USD
    #[arg(long, value_name = "SYMBOL,…", value_delimiter = ',', requires = "venues", help_heading = "Sources")]
    pub(crate) symbols: Vec<String>,
    /// Connect to this server instead of a venue's own, such as kraken=127.0.0.1:9100 (see ticker venue)
    #[arg(long, value_name = "NAME=HOST:PORT", requires = "venues", help_heading = "Sources")]
    pub(crate) venue_at: Vec<VenueAt>,
    /// Play recordings: files, or folders of them
    #[arg(long, value_name = "PATH", num_args = 1.., help_heading = "Sources")]
    pub(crate) replay: Vec<PathBuf>,
    /// How fast recordings are played: 1 as recorded, 10 ten times as fast, max as fast as possible
    #[arg(long, value_name = "N|max", requires = "replay", help_heading = "Sources")]
    pub(crate) speed: Option<Speed>,
    /// Begin recordings with the state at this time, such as 2026-08-01T02:53:52Z
    #[arg(long, value_name = "TIME", requires = "replay", help_heading = "Sources")]
    pub(crate) from: Option<Moment>,
    /// End recordings after this time
    #[arg(long, value_name = "TIME", requires = "replay", help_heading = "Sources")]
    pub(crate) to: Option<Moment>,
    /// Play recordings over and over
    #[arg(long = "loop", requires = "replay", help_heading = "Sources")]
    pub(crate) repeat: bool,
    /// Play recordings as if it all happened now
    #[arg(long, requires = "replay", help_heading = "Sources")]
    pub(crate) shift_to_now: bool,
}

/// `ticker up`.
#[derive(Args, Debug)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) sources: Sources,
    /// HTTP address: the page, WebSocket, server-sent events, polls [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// TLS and QUIC address: HTTP/1.1, 2 and 3, WebTransport [default: 127.0.0.1:8443, if it is free]
    #[arg(long, value_name = "ADDR")]
    pub(crate) tls_listen: Option<SocketAddr>,
    /// No TLS address
    #[arg(long, conflicts_with = "tls_listen")]
    pub(crate) no_tls: bool,
    /// UDP address of WebRTC [default: 127.0.0.1:8444, if it is free]
    #[arg(long, value_name = "ADDR")]
    pub(crate) rtc_listen: Option<SocketAddr>,
    /// No WebRTC
    #[arg(long, conflicts_with = "rtc_listen")]
    pub(crate) no_rtc: bool,
    /// gRPC address [default: 127.0.0.1:50051]
    #[arg(long, value_name = "ADDR")]
    pub(crate) grpc: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// `ticker ingest`.
#[derive(Args, Debug)]
pub(crate) struct Ingest {
    #[command(flatten)]
    pub(crate) sources: Sources,
    /// The fanout's gRPC port [default: http://127.0.0.1:50051]
    #[arg(long, value_name = "URL")]
    pub(crate) fanout: Option<String>,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// `ticker fanout`.
#[derive(Args, Debug)]
pub(crate) struct Fanout {
    /// gRPC address [default: 127.0.0.1:50051]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// `ticker edge`.
#[derive(Args, Debug)]
pub(crate) struct Edge {
    /// HTTP address [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// TLS and QUIC address: HTTP/1.1, 2 and 3, WebTransport [default: none]
    #[arg(long, value_name = "ADDR")]
    pub(crate) tls_listen: Option<SocketAddr>,
    /// UDP address of WebRTC [default: none]
    #[arg(long, value_name = "ADDR")]
    pub(crate) rtc_listen: Option<SocketAddr>,
    /// The fanout's gRPC port [default: http://127.0.0.1:50051]
    #[arg(long, value_name = "URL")]
    pub(crate) fanout: Option<String>,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// `ticker tail`.
#[derive(Args, Debug)]
pub(crate) struct Tail {
    /// Topics such as quote/kraken/BTC-USD; * stands for one whole part
    #[arg(value_name = "TOPIC", required = true, value_parser = topic)]
    pub(crate) topics: Vec<String>,
    /// Transport
    #[arg(long, value_enum, default_value_t = Transport::Ws)]
    pub(crate) over: Transport,
    /// The edge's HTTP address, or https:// and its TLS address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// The gRPC address; by TLS, https:// and the edge's TLS address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:50051")]
    pub(crate) grpc: String,
    /// The edge's TLS and QUIC address
    #[arg(long, value_name = "URL", default_value = "https://127.0.0.1:8443")]
    pub(crate) quic: String,
    /// Over TLS: trust those for whom the authorities in this PEM file vouch, and no others
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Over TLS: trust this certificate alone, by the Base64 of its SHA-256, as /v1/certificate-hashes tells it [over QUIC the
    /// edge at --url is asked]
    #[arg(long, value_name = "BASE64", conflicts_with = "ca")]
    pub(crate) certificate_hash: Option<String>,
    /// How states come; `datagram`: the newest value, whatever became of those before (over wt, quic and rtc)
    #[arg(long, value_name = "WAY", value_parser = ["stream", "datagram"])]
    pub(crate) delivery: Option<String>,
    /// Sent as Authorization: Bearer
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// Go on from a cursor; `earliest`: from the beginning of what is still held
    #[arg(long, value_name = "CURSOR", value_parser = start)]
    pub(crate) from: Option<String>,
    /// So many past trades first
    #[arg(long, value_name = "N")]
    pub(crate) recent: Option<u32>,
    /// Updates a second for each state or book topic, at most
    #[arg(long, value_name = "RATE")]
    pub(crate) max_rate: Option<f64>,
    /// Kilobits a second, at most
    #[arg(long, value_name = "KBPS")]
    pub(crate) max_kbps: Option<f64>,
    /// Only these fields, such as bid,ask
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', requires = "json")]
    pub(crate) fields: Vec<String>,
    /// Every event of every channel, even if that is more than can be shown
    #[arg(long)]
    pub(crate) no_conflate: bool,
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
    /// With --json: the session's notices too, not events alone
    #[arg(long, requires = "json")]
    pub(crate) notices: bool,
    /// End after so many events
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// End when the connection is lost, instead of going on from the cursor
    #[arg(long)]
    pub(crate) no_resume: bool,
    /// Check every promise of the contract (order, no holes, books that add up); end at the first that is broken
    #[arg(long)]
    pub(crate) verify: bool,
}

/// `ticker record`.
#[derive(Args, Debug)]
pub(crate) struct Record {
    /// The venues
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', required = true)]
    pub(crate) venues: Vec<String>,
    /// Ask each of those venues for these instruments, such as BTC-USD
    #[arg(long, value_name = "SYMBOL,…", value_delimiter = ',')]
    pub(crate) symbols: Vec<String>,
    /// Connect to this server instead of the venue's own, such as kraken=127.0.0.1:9100 (see ticker venue)
    #[arg(long, value_name = "NAME=HOST:PORT")]
    pub(crate) venue_at: Vec<VenueAt>,
    /// The folder that the files go to; one recorder at a time
    #[arg(long, value_name = "FOLDER", default_value = "recordings")]
    pub(crate) out: PathBuf,
    /// Write to the disk every so many milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub(crate) flush_ms: u64,
    /// Begin a new file after so many MiB
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    pub(crate) rotate_mib: u64,
    /// Begin a new file after so many minutes
    #[arg(long, value_name = "MINUTES", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=44_640))]
    pub(crate) rotate_minutes: u64,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// `ticker replay`.
#[derive(Args, Debug)]
pub(crate) struct Replay {
    /// Files, or folders of them; several venues are merged by time
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) playing: Playing,
    /// The fanout's gRPC port [default: http://127.0.0.1:50051]
    #[arg(long, value_name = "URL")]
    pub(crate) fanout: Option<String>,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// How recordings are played.
#[derive(Args, Debug, Default)]
pub(crate) struct Playing {
    /// 1 as recorded, 10 ten times as fast, max as fast as possible [default: 1]
    #[arg(long, value_name = "N|max")]
    pub(crate) speed: Option<Speed>,
    /// Begin with the state at this time, such as 2026-08-01T02:53:52Z
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<Moment>,
    /// End after this time
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<Moment>,
    /// Over and over
    #[arg(long = "loop")]
    pub(crate) repeat: bool,
    /// As if it all happened now
    #[arg(long)]
    pub(crate) shift_to_now: bool,
}

/// `ticker venue`.
#[derive(Args, Debug)]
pub(crate) struct Venue {
    /// Recordings of one venue: files, or folders of them
    #[arg(value_name = "PATH", required_unless_present = "synthetic")]
    pub(crate) paths: Vec<PathBuf>,
    /// Instead: the synthetic market, N instruments at R updates a second each
    #[arg(long, value_name = "N[@R]", conflicts_with = "paths", requires = "venue")]
    pub(crate) synthetic: Option<Synthetic>,
    /// The venue that the synthetic market is played as: binance, bitfinex, bitget, bitmex, bitstamp, bybit-spot, coinbase,
    /// coinbase-exchange, deribit, gateio, gemini, kraken, kucoin, okx
    #[arg(long = "as", id = "venue", value_name = "NAME", requires = "synthetic")]
    pub(crate) venue: Option<String>,
    /// WebSocket and REST address; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9100")]
    pub(crate) listen: SocketAddr,
    /// How fast recordings are played: 1 as recorded, 10 ten times as fast, max as fast as readers take it
    #[arg(long, value_name = "N|max", default_value = "1")]
    pub(crate) speed: Speed,
    /// Play recordings over and over
    #[arg(long = "loop")]
    pub(crate) repeat: bool,
    /// Spoil a frame: drop:17 the 17th, drop:1/500 one of 500 on average; also double, reorder, corrupt, alter, stall,
    /// disconnect
    #[arg(long, value_name = "KIND:WHICH", value_delimiter = ',', help_heading = "Faults")]
    pub(crate) fault: Vec<Injection>,
    /// Short for --fault drop:1/N
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Faults")]
    pub(crate) drop: Option<u64>,
    /// Of faults and the synthetic market: the same seed, the same run
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Listen beyond this machine
    #[arg(long)]
    pub(crate) insecure: bool,
    /// How log lines are written: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
}

/// `kraken=127.0.0.1:9100`: another server than the venue's own, without TLS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct VenueAt {
    pub(crate) venue: String,
    pub(crate) server: String,
}

impl FromStr for VenueAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}`: expected a venue and a server, such as kraken=127.0.0.1:9100");
        let (venue, server) = text.split_once('=').ok_or_else(wrong)?;
        let has_port =
            server.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if venue.is_empty() || !has_port || server.contains('/') {
            return Err(wrong());
        }
        Ok(Self { venue: venue.to_owned(), server: server.to_owned() })
    }
}

/// The ways of the contract.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Transport {
    /// WebSocket
    Ws,
    /// WebSocket with Protobuf
    WsProto,
    /// Server-sent events
    Sse,
    /// One JSON object a line, over HTTP
    Ndjson,
    /// Long polling
    Poll,
    /// gRPC, one subscription
    Grpc,
    /// gRPC, a session
    GrpcSession,
    /// One JSON object a line, over HTTP/3
    H3,
    /// WebTransport
    Wt,
    /// QUIC without HTTP, Protobuf
    Quic,
    /// WebRTC data channels
    Rtc,
}

/// `200@25`: 200 instruments at 25 updates a second each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Synthetic {
    pub(crate) instruments: usize,
    pub(crate) updates_per_second: Option<u32>,
}

impl FromStr for Synthetic {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}`: expected instruments, or instruments@updates a second, such as 200@25");
        let (instruments, rate) = match text.split_once('@') {
            Some((instruments, rate)) => (instruments, Some(rate)),
            None => (text, None),
        };
        let number = |text: &str| text.parse::<u32>().ok().filter(|n| *n > 0).ok_or_else(wrong);
        Ok(Self { instruments: number(instruments)? as usize, updates_per_second: rate.map(number).transpose()? })
    }
}

fn topic(text: &str) -> Result<String, String> {
    text.parse::<Pattern>().map(|_| text.to_owned()).map_err(|e| e.to_string())
}

fn start(text: &str) -> Result<String, String> {
    text.parse::<ticker_client::market::From>().map(|_| text.to_owned()).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_synthetic_market_is_named_by_two_numbers() {
        let both = Synthetic { instruments: 200, updates_per_second: Some(25) };
        assert_eq!("200@25".parse(), Ok(both));
        assert_eq!("7".parse(), Ok(Synthetic { instruments: 7, updates_per_second: None }));
        for bad in ["", "0", "5@0", "a@b", "5@", "-1", "5@2.5"] {
            assert!(bad.parse::<Synthetic>().is_err(), "{bad}");
        }
    }

    #[test]
    fn wrong_topics_and_flags_are_refused_before_anything_is_sent() {
        let parse = |args: &[&str]| Cli::try_parse_from([&["ticker"], args].concat());
        for (args, says) in [
            (&["tail", "qoute/kraken/BTC-USD"][..], "is not a channel"),
            (&["tail", "quote/kraken"], "is not a topic"),
            (&["tail"], "TOPIC"),
            (&["tail", "quote/x/A", "--from", "yesterday"], "is not a cursor"),
            (&["up", "--sythetic", "5"], "--synthetic"),
            (&["up", "--speed", "max"], "--replay"),
            (&["upp"], "up"),
            (&["record"], "--venues"),
            (&["record", "--venues", "kraken", "--venue-at", "kraken"], "kraken=127.0.0.1:9100"),
            (&["replay"], "PATH"),
            (&["replay", "x", "--from", "yesterday"], "2026-08-01T02:53:52.5Z"),
            (&["venue"], "PATH"),
            (&["venue", "--synthetic", "5"], "--as"),
            (&["venue", "x", "--fault", "lose:5"], "drop:17"),
        ] {
            let error = parse(args).expect_err("refused").to_string();
            assert!(error.contains(says), "{args:?}: {error}");
        }
        parse(&["tail", "quote/*/BTC-USD", "--from", "earliest", "--over", "poll"]).expect("well formed");
        parse(&["record", "--venues", "kraken", "--out", "x", "--venue-at", "kraken=127.0.0.1:1"])
            .expect("well formed");
        parse(&["replay", "x", "y", "--speed", "max", "--from", "2026-08-01T02:53:52Z"]).expect("well formed");
        parse(&["venue", "x", "--fault", "drop:17,corrupt:1/9", "--drop", "5"]).expect("well formed");
        parse(&["venue", "--synthetic", "5@10", "--as", "kraken"]).expect("well formed");
    }
}
