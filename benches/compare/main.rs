//! The comparisons: our edge beside a bare loop of write(), Bun's publish/subscribe and nginx nchan.
//!
//! `cargo bench --bench compare` installs the peers where they are missing, runs all workloads and writes
//! `benches/RESULTS.md`. `-- --only fanout,market` runs some of them and replaces their sections; `-- --quick` runs each
//! once and for a short time; `-- --no-peers` leaves the peers out.

#[allow(dead_code, reason = "shared with the load generator, which needs more of it")]
#[path = "../load/histogram.rs"]
mod histogram;
#[allow(dead_code, reason = "shared with the load generator, which starts its server with it")]
#[path = "../load/server.rs"]
mod server;
#[allow(dead_code, reason = "shared with the load generator, which reads gRPC too")]
#[path = "../load/wire.rs"]
mod wire;

mod bare;
mod crowd;
mod feed;
mod flows;
mod frozen;
mod many;
mod measure;
mod process;
mod publish;
mod report;
mod rtc_reader;
mod secure;
mod secure_crowd;
mod servers;
mod tally;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use flows::Plan;
use measure::Times;
use report::Section;
use servers::Places;
use wire::Over;

/// In the order in which they are run and written.
const WORKLOADS: [&str; 12] =
    ["fanout", "sse", "market", "busy", "frozen", "idle", "hundred", "cold", "growth", "light", "secure", "rtc"];

/// Only where it is named: it takes seven edges, as many processes of readers, and some 2 GiB.
const NAMED_ONLY: &str = "hundred";

/// Our edge beside its peers.
#[derive(clap::Parser, Debug)]
struct Args {
    /// Only these workloads: fanout, sse, market, busy, frozen, idle, cold, growth, light, secure, rtc, and hundred, which
    /// runs only if it is named (100,000 idle readers on seven edges)
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Runs of each measurement (1 to 9); the median counts
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// How long each run measures, in seconds (1 to 60)
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
    /// How long idle readers are looked at, in seconds (5 to 300)
    #[arg(long, default_value_t = 32.0)]
    idle_seconds: f64,
    /// One run of five seconds each: to see where one stands
    #[arg(long)]
    quick: bool,
    /// Of secure and rtc, only what an idle reader costs; give `--results` too, or this is all that their sections have
    #[arg(long)]
    idle_only: bool,
    /// Ours and the bare loop only; nothing is installed
    #[arg(long)]
    no_peers: bool,
    /// More lines of the edge's configuration, such as `heartbeat_ms = 10000`
    #[arg(long = "edge", value_name = "LINE")]
    edge_lines: Vec<String>,
    /// Our binary
    #[arg(long, default_value = env!("CARGO_BIN_EXE_ticker"), hide_default_value = true)]
    ticker: String,
    /// Where to write, instead of benches/RESULTS.md
    #[arg(long)]
    results: Option<PathBuf>,
    /// Cargo says this
    #[arg(long, hide = true)]
    bench: bool,
    /// This process is readers of an edge: the address, and how many
    #[arg(long, hide = true, num_args = 2)]
    crowd: Vec<String>,
    /// This process is the bare loop
    #[arg(long, hide = true, requires_all = ["bare_listen", "bare_over"])]
    bare: bool,
    #[arg(long, hide = true)]
    bare_listen: Option<SocketAddr>,
    #[arg(long, hide = true)]
    bare_over: Option<String>,
    #[arg(long, hide = true, default_value_t = 0)]
    bare_readers: usize,
    #[arg(long, hide = true, default_value_t = 1.0)]
    bare_rate: f64,
    #[arg(long, hide = true, default_value_t = 1)]
    bare_messages: usize,
    #[arg(long, hide = true)]
    bare_send: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if !args.bench && !args.bare && args.crowd.is_empty() {
        // `cargo test --all-targets` runs benches too, and must not wait for a measurement.
        process::say("this is a measurement: run it with `cargo bench --bench compare`");
        return ExitCode::SUCCESS;
    }
    if let [at, readers] = &args.crowd[..] {
        return match many::crowd(at, readers) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                process::say(&format!("error: {error}"));
                ExitCode::FAILURE
            }
        };
    }
    let result = match args.bare_listen {
        Some(listen) => bare::run(bare::Order {
            listen,
            over: if args.bare_over.as_deref() == Some("ws") { Over::Ws } else { Over::Sse },
            readers: args.bare_readers,
            events_per_second: args.bare_rate,
            messages_per_write: args.bare_messages,
            send: args.bare_send,
        }),
        None => run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            process::say(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    histogram::check();
    if let Some(unknown) = args.only.iter().find(|name| !WORKLOADS.contains(&name.as_str())) {
        return Err(format!("`{unknown}` is none of {}", WORKLOADS.join(", ")));
    }
    if !(1..=9).contains(&args.runs)
        || !(1.0..=60.0).contains(&args.seconds)
        || !(5.0..=300.0).contains(&args.idle_seconds)
    {
        return Err("runs must be 1 to 9, seconds 1 to 60, idle seconds 5 to 300".to_owned());
    }
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        return Err("two cores are needed: one for the server, one for its load".to_owned());
    }
    let _alone = process::alone()?;
    process::pin_self()?;
    let _priority = process::Priority::raise();
    // 15,000 readers need as many files, here and in the servers, which inherit the limit.
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit);

    let benches = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/benches"));
    let scratch = PathBuf::from(concat!(env!("CARGO_TARGET_TMPDIR"), "/compare"));
    std::fs::create_dir_all(&scratch).map_err(|e| format!("{}: {e}", scratch.display()))?;
    let at = Places { scratch, benches, ticker: args.ticker.clone(), edge_lines: args.edge_lines.clone() };
    let (runs, seconds) = if args.quick { (1, 5.0) } else { (args.runs, args.seconds) };
    let plan = Plan {
        runs,
        times: Times { warm_up: Duration::from_secs(2), measure: Duration::from_secs_f64(seconds) },
        peers: !args.no_peers,
        idle_only: args.idle_only,
    };
    if plan.peers {
        at.install()?;
    }
    let (machine, versions) = (process::machine(), at.versions());
    process::say(&format!("{machine}; {}", versions.join("; ")));
    let results = args.results.clone().unwrap_or_else(|| at.benches.join("RESULTS.md"));
    let mut failed = Vec::new();
    for name in WORKLOADS {
        let named = args.only.iter().any(|only| only == name);
        if !named && (!args.only.is_empty() || name == NAMED_ONLY) {
            continue;
        }
        match workload(name, plan, Duration::from_secs_f64(args.idle_seconds), &at) {
            Ok(section) => {
                let how = how(args, name);
                report::write(&section, &results, &WORKLOADS, (&machine, &versions, &how))?;
            }
            Err(error) => {
                // The others still can be measured.
                process::say(&format!("  {name} failed: {error}"));
                failed.push(name);
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("without a result: {}", failed.join(", "))) }
}

fn workload(name: &str, plan: Plan, idle: Duration, at: &Places) -> Result<Section, String> {
    match name {
        "fanout" => flows::fanout(Over::Ws, plan, at),
        "sse" => flows::fanout(Over::Sse, plan, at),
        "market" => flows::market(plan, at),
        "busy" => flows::busy(plan, at),
        "frozen" => frozen::frozen(plan, at),
        "idle" => many::idle(plan, idle, at),
        "hundred" => many::hundred(idle, at),
        "cold" => many::cold(plan, at),
        "growth" => flows::growth(plan, at),
        "secure" => secure::secure(plan, at),
        "rtc" => secure::rtc(plan, at),
        _ => flows::light(plan, at),
    }
}

/// The command that does this workload again, without what names places of this machine.
fn how(args: &Args, name: &str) -> String {
    let mut how = format!("cargo bench --bench compare -- --only {name}");
    if args.quick {
        how.push_str(" --quick");
    } else {
        how.push_str(&format!(" --runs {} --seconds {}", args.runs, args.seconds));
    }
    if matches!(name, "idle" | "hundred") {
        how.push_str(&format!(" --idle-seconds {}", args.idle_seconds));
    }
    if args.idle_only {
        how.push_str(" --idle-only");
    }
    if args.no_peers {
        how.push_str(" --no-peers");
    }
    if args.ticker != env!("CARGO_BIN_EXE_ticker") {
        how.push_str(" --ticker …");
    }
    for line in &args.edge_lines {
        how.push_str(&format!(" --edge '{line}'"));
    }
    how
}
