//! raft-rs behind one door.

pub mod limits;

mod chance;
mod check;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod log;
mod membership;
mod node;
mod output;
mod setup;

pub use error::{Error, Misbehaviour, RestoreError};
pub use membership::{About, Change, Membership, Refusal};
pub use node::Node;
pub use output::{
    Entry, EntryKind, HardState, Output, Peer, Progress, Role, SnapshotMeta, Status, Ticket, Write,
};
pub use setup::{Restored, Setup};
