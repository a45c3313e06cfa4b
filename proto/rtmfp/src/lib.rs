//! The RTMFP datagram carrier: packets, startup, crypto, sessions, flows.
//!
//! RTMFP (RFC 7016) carries messages in encrypted datagrams, in as many flows as one likes,
//! each of which may be in order or not and give up what is late. Two ends that cannot
//! reach each other are introduced by a third. The profile for RTMP messages is RFC 7425.
//!
//! Nothing here owns a socket, a clock or a source of randomness.
//!
//! ```text
//!  datagram ─▶ packet (session id) ─▶ crypto (open in place) ─▶ packet (header) ─▶ chunk
//!                                                                                  │
//!                      startup: hello, keying ◀───── mode 3 ──────────────────────┤
//!                      session: ping, close, mobility ◀── modes 1 and 2 ──────────┤
//!                      flow: data, acknowledgements ◀─────────────────────────────┘
//! ```

pub mod address;
pub mod chunk;
pub mod congestion;
pub mod crypto;
pub mod endpoint;
mod error;
pub mod flow;
#[doc(hidden)]
pub mod fuzzing;
pub mod limits;
pub mod option;
pub mod packet;
mod reassembly;
pub mod session;
pub mod startup;
pub mod tc;
pub mod vlu;
pub mod wire;

pub use error::{Blame, Error};
