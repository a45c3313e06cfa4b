//! One origin's seat in the cluster: the log, the ledger and the edges that are attached, as
//! one machine. The origin's process runs it, and so does the simulator.
//!
//! ```text
//!   edges ◀══ ToEdge ══ Watchers ◀── Applied ── Ledger ◀── decided ── consensus::Node ◀═▶ peers
//!         ══ handle_edge ══▶ │                                           ▲   │
//!                            └────────── commands, all that wait ────────┘   └─▶ Persist
//!                                 Leases (at the leader) ──┘
//! ```
//!
//! # How a member is driven
//!
//! As every machine here: one call that changes it, then everything that
//! [`poll_output`](Member::poll_output) gives, in order. Several calls before a drain are
//! fine, and better: commands that wait are proposed together when the rest of the outputs
//! is taken. [`handle_timeout`](Member::handle_timeout) is due at the
//! [`deadline`](Member::deadline).
//!
//! * [`Output::Persist`] is written in order; a failure ends the process.
//! * [`Output::SnapshotToPeer`] is always answered with
//!   [`handle_snapshot_sent`](Member::handle_snapshot_sent): until then the peer is sent nothing
//!   else. What is not answered in time is given up, and sent anew.
//! * Between two members messages keep their order. They may be lost.
//!
//! # Who may vote
//!
//! An empty node that votes under a voter's number can elect a leader that lacks what was
//! decided. So every data folder has a stamp, drawn when it is made; the membership holds the
//! stamp of each member, and every message between members carries the stamp of both folders.
//! A member listens only to what is meant for its own folder, and only to the folder that it
//! knows. A node that comes back with another folder hears nothing, says nothing, and says so
//! in [`Status::disowned`]; it must be removed, and added as a learner under a number that
//! nobody ever had. A member of whom no stamp is known (0) is believed.
//!
//! What a stamp cannot tell: a folder that was put back to an earlier state. When the leader
//! speaks of entries that such a node had acknowledged, they are refused as
//! [`Lost`](consensus::Misbehaviour::Lost).
//!
//! A newcomer starts with [`Restored::default`], is added by the leader
//! ([`propose_membership`](Member::propose_membership)), is sent the state, and votes by
//! itself when it has caught up.
//!
//! When a name is no member's any more, whoever leads tells the ledger so
//! ([`Command::OriginRemoved`](ledger::Command::OriginRemoved)): what was placed there has no
//! place then.

pub mod about;
pub mod limits;

mod error;
mod level;
mod member;
mod output;
mod peer;
mod state;

pub use error::{Error, RestoreError};
pub use member::Member;
pub use output::{Output, Restored, Saved, Setup, Status};
