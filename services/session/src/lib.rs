//! One reader's subscriptions, backlog, conflation, resume and limits, as a state machine without I/O.
//!
//! A [`Hub`] holds the topics that some readers want and the sessions of those readers. Its owner (a shard of an edge, a
//! gRPC stream of a fanout, a test, a fuzzer)
//!
//! - tells it what comes from upstream: [`Hub::opened`], [`Hub::added`], [`Hub::publish`], [`Hub::progress`], …;
//! - tells it what comes from readers: [`Hub::open`], [`Hub::request`], [`Hub::close`];
//! - asks it what to send: [`Hub::take_ready`], then for each of those sessions [`Hub::plan`] and [`Hub::commit`];
//! - does what it needs from upstream: [`Hub::take_needs`];
//! - calls it when time has come: [`Hub::next_timer`], [`Hub::tick`].
//!
//! No queue belongs to a reader. A topic keeps its last events once ([`topic`]); a reader keeps its place in each topic,
//! and a mark where there is news. A state channel is conflated by sending its newest event only, a book by merging what
//! lies between the reader's place and the end, so that a slow reader costs as little as a fast one.
//!
//! Layout: [`hub`], the whole; [`topic`], a topic's ring, last value, book; [`session`], one reader, and [`subs`], its
//! subscriptions; [`request`], what readers ask for; [`join`], how a subscription begins or resumes; [`collect`], what is
//! due, and [`plan`], what of it is sent next, and in which order; [`unreliable`], what may be lost; [`signal`], readers who reach each other; [`catalogue`], which topics exist; [`limits`]; [`audit`], for tests.
//!
//! Deliberately absent: sockets, clocks, threads; time is always an argument.

mod audit;
pub mod catalogue;
mod collect;
pub mod hub;
mod join;
pub mod limits;
pub mod plan;
mod request;
pub mod session;
pub mod signal;
mod subs;
mod topic;
mod unreliable;

pub use hub::{Hub, Need, Page, SessionId};
pub use limits::Limits;
pub use plan::{Closing, Outgoing};
pub use session::{Ending, Mode, Opening};
pub use signal::Beyond;
