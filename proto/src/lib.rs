//! The wire: protobuf (`ticker/v1/*.proto`), JSON, and frames that are encoded once for all readers.
//!
//! Layout: [`v1`], the generated code; [`convert`], from and to the market's types; [`message`], the messages of a
//! session, and their JSON; [`json`], events as JSON; [`frame`], an event encoded once for each form of each transport;
//! [`deflate`], large ones compressed for WebSockets; [`encoded`], such a message on its way out of a gRPC server; [`code`], the error codes of the contract on every transport.
//!
//! Deliberately absent: sockets, and what a session does with these messages.

pub mod code;
pub mod convert;
pub mod deflate;
pub mod encoded;
pub mod frame;
pub mod json;
pub mod message;

pub use code::Code;
pub use encoded::EncodedMessage;
pub use frame::{Encoded, Fields, Form, Frame};
pub use message::{Message, Notice, Part, Request};

/// The generated code of the package `ticker.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated; the .proto files carry the documentation")]
pub mod v1 {
    tonic::include_proto!("ticker.v1");
    include!(concat!(env!("OUT_DIR"), "/servers/ticker.v1.rs"));
}

/// The compiled descriptors of the package, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// No message to a reader is larger: a larger book comes in parts.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// The version of the session's messages, told by `welcome`.
pub const VERSION: &str = "1";
