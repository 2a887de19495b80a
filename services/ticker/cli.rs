//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};
use ticker_client::market::Pattern;
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
    /// Write raw venue frames to a file (comes later)
    #[command(hide = true)]
    Record(Later),
    /// Play a recording into a running fanout (comes later)
    #[command(hide = true)]
    Replay(Later),
    /// Stand in for a venue, over its own protocol (comes later)
    #[command(hide = true)]
    Venue(Later),
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
    /// Connect to live venues: binance, coinbase, kraken
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', help_heading = "Sources")]
    pub(crate) venues: Vec<String>,
    /// Ask each of those venues for these instruments, such as BTC-USD
    #[arg(long, value_name = "SYMBOL,…", value_delimiter = ',', requires = "venues", help_heading = "Sources")]
    pub(crate) symbols: Vec<String>,
    /// Play recordings: files, or folders of them
    #[arg(long, value_name = "PATH", num_args = 1.., help_heading = "Sources")]
    pub(crate) replay: Vec<PathBuf>,
    /// How fast recordings are played: 1 as recorded, 10 ten times as fast, max as fast as possible
    #[arg(long, value_name = "N|max", requires = "replay", help_heading = "Sources")]
    pub(crate) speed: Option<ticker_ingest::config::Speed>,
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
    /// The edge's HTTP address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// The gRPC address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:50051")]
    pub(crate) grpc: String,
    /// The edge's TLS and QUIC address
    #[arg(long, value_name = "URL", default_value = "https://127.0.0.1:8443")]
    pub(crate) quic: String,
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

/// A command that comes later: it takes anything.
#[derive(Args, Debug)]
pub(crate) struct Later {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub(crate) anything: Vec<String>,
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
    /// WebRTC (comes later)
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
        ] {
            let error = parse(args).expect_err("refused").to_string();
            assert!(error.contains(says), "{args:?}: {error}");
        }
        parse(&["tail", "quote/*/BTC-USD", "--from", "earliest", "--over", "poll"]).expect("well formed");
        parse(&["record", "--anything", "goes"]).expect("answered later");
    }
}
