//! The nine promises of a subscription, held against a model that knows the whole tape.
//!
//! [`tape`] makes events up and remembers them; [`upstream`] tells a hub of them as a fanout would; a [`reader`] takes what
//! the hub sends and [`check`]s every promise at every message; a [`world`] holds them together. On it stand the scenarios
//! ([`beginning`], [`keeping`], [`changing`], [`limits`]) and the [`simulation`], which chooses among [`operation`]s.

#![allow(
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test says what it found, and dies of it"
)]

mod beginning;
mod changing;

mod check;
mod datagrams;
mod keeping;
mod limits;
mod operation;
mod reader;
mod scene;
mod simulation;
mod tape;
mod upstream;
mod world;
