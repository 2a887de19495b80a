//! What prices are made of, before any transport: instruments, topics, events, order books and positions on the tape.
//!
//! Layout, in the order in which an event meets it:
//! - [`decimal`]: exact numbers and their one canonical text;
//! - [`topic`]: `channel/venue/symbol`, patterns with `*`;
//! - [`instrument`]: what a venue trades;
//! - [`event`]: one thing that happened to one topic;
//! - [`book`]: all price levels of an instrument, with the two sums that prove them;
//! - [`bar`], [`stats`], [`best`]: what is derived from trades and quotes: bars, rolling statistics, the consolidated quote;
//! - [`position`]: epoch, sequence number, cursor.
//!
//! Deliberately absent: I/O, clocks, threads, encodings. Time is always an argument.

pub mod bar;
pub mod best;
pub mod book;
pub mod decimal;
pub mod event;
pub mod instrument;
pub mod position;
pub mod stats;
pub mod time;
pub mod topic;

pub use bar::Bar;
pub use book::{Book, BookError};
pub use event::{Data, Event, Integrity, Kind, Level, Levels, Quote, Side, State, Status, Trade};
pub use instrument::Instrument;
pub use position::{Cursor, CursorError, Epoch, From};
pub use rust_decimal::Decimal;
pub use stats::Stats;
pub use time::Time;
pub use topic::{Channel, Class, Interval, Pattern, Topic, TopicError};
