//! A reader of the ticker service, the same over every transport.
//!
//! [`connect`] opens a subscription and gives a [`Reader`]; [`Reader::next`] gives its messages, in order;
//! [`Reader::cursor`] is the place from which any transport can go on. `ticker tail`, the tests and the benches are built
//! on this crate.
//!
//! Layout, from the caller inwards:
//! - [`options`]: where to connect, over what, for which topics;
//! - [`reader`]: the messages, the cursor, and going on after a lost connection;
//! - `cursor`: when the cursor moves (a state machine without I/O);
//! - `transport`: what the ways have in common; `ws`, `lines` (server-sent events and NDJSON), `poll`, `grpc`, `quic`,
//!   `rtc`: one file a way; `newest`: states by an unreliable way; `http`: the requests that some of them are made of;
//!   [`trust`]: whose certificates are good;
//! - [`board`]: the state that a reader rebuilds from the messages, and the checker of the service's promises;
//! - [`error`]: what can go wrong.

pub mod board;
mod cursor;
pub mod error;
mod grpc;
pub mod http;
mod lines;
mod newest;
pub mod options;
mod poll;
mod quic;
pub mod reader;
mod rtc;
mod transport;
pub mod trust;
mod ws;

pub use board::{Applied, Board, Violation};
pub use error::Error;
pub use options::{Options, Over, Resume, Subscription};
pub use reader::{Reader, Step, connect};
pub use trust::Trust;

/// The market's types, as they appear in messages.
pub use ticker_market as market;
/// The wire's types: [`proto::Message`], [`proto::Notice`], [`proto::Request`].
pub use ticker_proto as proto;
