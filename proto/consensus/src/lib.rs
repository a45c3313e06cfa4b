//! The replicated log: raft-rs behind one door.
//!
//! ```text
//!      proposals, reads, changes of the membership
//!                        │
//!  messages ──▶ handle_* ▼                    ┌─▶ Send, SendSnapshot
//!      time ──▶ ╔════════════════╗            ├─▶ Persist ──▶ handle_persisted
//!               ║      Node      ║ ── poll_output ─▶ Apply, Skip, Membership, Restore
//!  acknowledged ╚════════════════╝            ├─▶ ReadReady
//!   writes  ──▶                               └─▶ Role
//! ```
//!
//! No other crate names `raft`. [`Node`] performs the duties that raft-rs lists for its
//! `Ready` once, and keeps from it what would end the process.
//!
//! # How a node is driven
//!
//! 1. Call one method that changes it.
//! 2. Do everything that [`poll_output`](Node::poll_output) gives, in order, before the next
//!    call. [`Output::Apply`] and its kind are carried out at once: [`Output::SendSnapshot`]
//!    means the state as it is at that place among the outputs.
//! 3. Call [`handle_timeout`](Node::handle_timeout) at the [`deadline`](Node::deadline).
//!
//! Writes are asked for with [`Output::Persist`] and acknowledged whenever they are on the
//! disk. Several may be under way; one acknowledgement counts for all before it. What must
//! not be said before a write is said after its acknowledgement; a leader's entries go to its
//! followers while it still writes them itself. While the state of a received snapshot is
//! being written the node does nothing: what arrives meanwhile is lost, as messages may be.
//!
//! ```
//! # use std::{num::NonZeroU64, time::Instant};
//! # use bytes::Bytes;
//! # use model::NodeId;
//! use selvage_consensus::{About, Membership, Node, Output, Restored, Setup};
//!
//! # #[expect(clippy::disallowed_methods)]
//! # let now = Instant::now();
//! let id = NodeId(NonZeroU64::MIN);
//! let alone = Membership::of([(id, About::default())]);
//! let mut node = Node::new(&Setup::new(id, 7), Restored::founding(alone), now)?;
//! let mut applied = Vec::new();
//! let mut proposed = false;
//! while applied.is_empty() {
//!     node.handle_timeout(node.deadline());
//!     if !proposed {
//!         proposed = node.handle_proposal(Bytes::from("hello")).is_ok();
//!     }
//!     while let Some(output) = node.poll_output() {
//!         match output {
//!             Output::Persist { ticket, .. } => node.handle_persisted(ticket),
//!             Output::Apply { data, .. } => applied.push(data),
//!             _ => {}
//!         }
//!     }
//! }
//! assert_eq!(applied, ["hello"]);
//! # Ok::<(), selvage_consensus::RestoreError>(())
//! ```
//!
//! # What is promised
//!
//! * All nodes apply the same entries in the same order, and what one has applied no later
//!   leader lacks, as long as no voter loses what it has acknowledged. `tests/cluster.rs`
//!   judges that.
//! * The same seed, inputs and times give the same outputs, bit by bit.
//! * Nothing that another node sends makes a node panic; what no node of ours sends is an
//!   error that names the sender.
//! * A proposal may be lost, and may be applied more than once if it is proposed more than
//!   once. Whoever needs better numbers them, as `ledger` does.
//!
//! # Memberships and the disk
//!
//! raft's memberships take effect when they are applied, so a node writes that one is decided
//! before it lets it take effect: after a restart it is in effect again. A snapshot holds the
//! membership. A number belongs to one data folder: who loses the folder has lost what it had
//! promised, and a voter that votes again can undo what was decided. `member` tells by the
//! folder's stamp ([`About`]), and such a node is removed and added under a new number.
//!
//! # Building
//!
//! raft-proto's build script asks for `protoc`. `tools/protoc.sh` stands in for it, named in
//! `.cargo/config.toml`, and brings `eraftpb.desc`; `tests/descriptor.rs` makes that file
//! anew, compares, and says what to copy when raft-proto has changed.

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
