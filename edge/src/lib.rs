//! The edge: where players and publishers come in.
//!
//! ```text
//!  client ── socket ── connection ─┬─ publish ──▶ link ──▶ origin
//!                      (a shard)   └─ play ◀── channel ◀── link ◀── origin
//!                                              upstream: which origin carries what
//! ```
//!
//! * `accept` hands sockets to shards; a shard is a thread that owns its
//!   connections whole, so that nothing of a connection is locked.
//! * `datagram` is RTMFP: a socket and an endpoint per shard, and flows for its clients.
//! * `peers` introduces clients that came by RTMFP to one another, at whichever edges they are.
//! * `connection` drives one client: bytes to the carrier, messages to the session, events
//!   to publish and play.
//! * `publish` numbers a publisher's frames, keeps a replay and sends them to the owner.
//! * `channel` is a stream as the edge receives it, once; `play` fans it out in a shard.
//! * `follow` traces a few frames on their way to viewers.
//! * `link` is the gRPC stream to one origin; `upstream` decides which stream goes where.
//!
//! An [`Edge`] is built first, with every listener bound, and run then:
//! `Edge::build(config, ..).await?.run(drain).await`.

mod accept;
mod channel;
pub mod config;
mod connection;
mod datagram;
mod flags;
mod follow;
mod io;
pub mod limits;
mod link;
mod metrics;
mod outbox;
mod peers;
mod play;
pub mod proxy;
mod publish;
pub mod route;
mod shard;
mod shared;
mod status;
mod traces;
mod upstream;

mod assembly;

pub use assembly::{BuildError, Edge, Listeners, Origins};
pub use config::Config;
pub use flags::{Flags, main};
