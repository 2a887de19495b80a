//! What every service needs to run, and nothing of what any service does.
//!
//! Layout: [`config`], one TOML file and the environment into a typed configuration; [`clock`], the wall clock;
//! [`telemetry`], logs and metrics; [`process`], what `/proc` says of this process; [`health`], what is ready and what
//! it waits for; [`admin`], the listener that shows both; [`drain`], ending in good order.
//!
//! Deliberately absent: anything of the market. This crate imports none of ours.

pub mod admin;
pub mod clock;
pub mod config;
pub mod drain;
pub mod health;
pub mod process;
pub mod telemetry;

pub use admin::BindError;
pub use config::ConfigError;
pub use drain::Drain;
pub use health::{Component, Health};
pub use telemetry::{LogFormat, Metrics, TelemetryError};
