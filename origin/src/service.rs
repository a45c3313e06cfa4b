//! What edges, other origins and people call.

pub(crate) mod cluster;
pub mod media;
pub(crate) mod peers;
pub(crate) mod raft;
pub(crate) mod shared;
