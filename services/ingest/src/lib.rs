//! The ingest service: sockets to venues, replays of recordings, the synthetic market; publishes what they tell over one
//! gRPC stream to a fanout.
//!
//! Layout, in the order in which an event goes: [`venue`](crate::config::Config::venues), `replay` and `synthetic` are
//! the sources, each of which drives a decoder of `ticker-feeds`; `feed` encodes what a source tells and waits for room;
//! `publisher` numbers batches, keeps them until they are on the tape, and sends them again where a stream broke.
//! [`record`] writes down what the sockets carry; [`stand_in`] is the other end of them, for tests and for trying things out.
//! [`config`] says which sources run; [`progress`] shows how they do.
//!
//! Deliberately absent: decoding (in `ticker-feeds`, without I/O), the tape, readers. Nothing here grows without limit:
//! when the fanout is away or slow, sources stop reading.

mod backoff;
pub mod config;
mod error;
mod feed;
mod log_limit;
mod passed_over;
pub mod progress;
mod publisher;
pub mod record;
mod replay;
mod service;
pub mod stand_in;
mod synthetic;
mod venue;

pub use config::Config;
pub use error::IngestError;
pub use progress::{Progress, PublisherSummary, SourceKind, SourceSummary, Summary};
pub use record::{RecordConfig, Recorder};
pub use service::{Ingest, connect, describe_metrics, run};
