//! The one binary: `ticker up` runs everything in one process, `ingest`, `fanout` and `edge` one service each, `tail` prints
//! live events, `record`, `replay` and `venue` write, play and serve recordings. Main configures, builds and drains; what a service does is in its crate.

mod cli;
mod output;
mod pipe;
mod recordings;
mod services;
mod settings;
mod status;
mod tail;
mod up;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use cli::{Cli, Command};

/// Much of what a service does is short-lived pieces of memory, made by one thread and freed by another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match start(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match cli.command {
            Command::Up(args) => up::run(args).await,
            Command::Ingest(args) => services::ingest(args).await,
            Command::Fanout(args) => services::fanout(args).await,
            Command::Edge(args) => services::edge(args).await,
            Command::Tail(args) => tail::run(args).await,
            Command::Record(args) => recordings::record(args).await,
            Command::Replay(args) => recordings::replay(args).await,
            Command::Venue(args) => recordings::venue(args).await,
        }
    })
}

/// A line for the person who started us.
fn say(text: &str) {
    // If even stderr is gone there is nobody left to tell.
    let _ = writeln!(std::io::stderr(), "{text}");
}
