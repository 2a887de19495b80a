//! What both ends of a WebRTC connection need, the edge and the Rust client: the SDP of a connection that carries data
//! channels and nothing else, whom a packet on a shared socket is for, packets over TCP, and cryptography.
//!
//! Layout: [`sdp`], offers and answers; [`stun`], the addressee; [`framing`], packets on a stream; [`crypto`], ring behind str0m, which is ICE, DTLS and SCTP
//! as state machines; `flight` and `association`, how DTLS and SCTP begin
//! where packets are lost; [`agent`], one end of a connection.
//!
//! Deliberately absent: sockets, clocks, media.

pub mod agent;
mod association;
pub mod crypto;
mod flight;
pub mod framing;
pub mod sdp;
pub mod stun;

pub use str0m;
