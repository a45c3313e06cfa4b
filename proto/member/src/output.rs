//! What a member is made with, what it gives out, and what it says of itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use consensus::{About, Entry, HardState, Membership, Role, Ticket, Write};
use ledger::watchers::{AttachId, Refusal};
use ledger::{Applied, Ledger, LogName};
use model::{LogIndex, NodeId};

use crate::state;

/// Who a member is, and when it does what.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its number, its seed and its patience.
    pub consensus: consensus::Setup,
    /// The stamp of its data folder: drawn at random when the folder was made. Not 0.
    pub stamp: u64,
    /// How long an edge may be unheard of.
    pub edge_lease: Duration,
    /// How often a follower tells the leader which edges it hears of. Well below the lease.
    pub contacts_every: Duration,
    /// The state is saved when this many entries were applied since the last time.
    pub snapshot_entries: u64,
    /// The state is saved when entries with this many bytes were applied since the last time.
    pub snapshot_bytes: u64,
    /// Entries that are kept though the state was saved, for those who are a little behind.
    pub tail_entries: u64,
}

impl Setup {
    /// The usual.
    #[must_use]
    pub fn new(id: NodeId, stamp: u64, seed: u64) -> Self {
        Self {
            consensus: consensus::Setup::new(id, seed),
            stamp,
            edge_lease: ledger::leases::EDGE_LEASE,
            contacts_every: Duration::from_millis(500),
            snapshot_entries: 100_000,
            snapshot_bytes: 64 << 20,
            tail_entries: 10_000,
        }
    }
}

/// A state that was saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The last entry it includes.
    pub index: LogIndex,
    /// Of that entry.
    pub term: u64,
    /// Everything, in a form that only [`Member`](crate::Member) reads.
    pub contents: Bytes,
}

/// What the disk holds. The default is a newcomer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// The newest that was written.
    pub hard_state: HardState,
    /// The newest that was saved.
    pub saved: Option<Saved>,
    /// In order, without a gap; those that the saved state includes may be among them.
    pub entries: Vec<Entry>,
}

impl Restored {
    /// The first of a cluster, or one of the first: all must be given the same founders, each
    /// with the stamp of its folder. What `saved` holds must be saved before the member runs.
    #[must_use]
    pub fn founding(founders: impl IntoIterator<Item = (NodeId, About)>) -> Self {
        let founders = Membership::of(founders);
        let stamps = founders
            .about
            .iter()
            .map(|(id, about)| (id.0.get(), about.stamp));
        let name = LogName::founded_by(stamps);
        let founding = consensus::Restored::founding(founders);
        let saved = founding.snapshot.map(|meta| {
            let mut ledger = Ledger::founded(name);
            ledger.skip(meta.index);
            Saved {
                index: meta.index,
                term: meta.term,
                contents: state::encode(&meta, &ledger),
            }
        });
        Self {
            hard_state: founding.hard_state,
            saved,
            entries: Vec::new(),
        }
    }
}

/// What a member's shell must do, in order.
#[derive(Clone, Debug)]
pub enum Output {
    /// Bring this to that member's [`handle_peer`](crate::Member::handle_peer). It may be
    /// lost; it must not overtake an earlier one to the same member.
    ToPeer {
        /// To whom.
        to: NodeId,
        /// What.
        message: Bytes,
    },
    /// Bring this to that member's [`handle_snapshot`](crate::Member::handle_snapshot), beside
    /// the other messages. Whatever becomes of it must be told to
    /// [`handle_snapshot_sent`](crate::Member::handle_snapshot_sent): until then, or until the
    /// state is given up as stuck, it is sent nothing else but heartbeats. Another one to the
    /// same member takes its place: what becomes of this one then is of no interest.
    SnapshotToPeer {
        /// To whom.
        to: NodeId,
        /// The message.
        message: Bytes,
        /// The state, which may be large.
        contents: Bytes,
        /// What the state includes.
        index: LogIndex,
    },
    /// Write this behind what was to be written before, and say
    /// [`handle_persisted`](crate::Member::handle_persisted); one may be said for many. A
    /// failure is final: the process must end.
    Persist {
        /// What to say then.
        ticket: Ticket,
        /// What to write.
        write: Write,
        /// The state that belongs to `write.snapshot`, to be saved first.
        contents: Option<Bytes>,
    },
    /// Save this state, then say
    /// [`handle_snapshot_saved`](crate::Member::handle_snapshot_saved).
    SaveSnapshot {
        /// The last entry it includes.
        index: LogIndex,
        /// Of that entry.
        term: u64,
        /// Who belongs to the cluster; `contents` holds it as well.
        membership: Membership,
        /// Everything.
        contents: Bytes,
    },
    /// Entries before this one are not needed any more: the log on the disk may forget them.
    Compacted {
        /// The first that must stay.
        first: LogIndex,
    },
    /// Send this to the edge, in order.
    ToEdge {
        /// Which attachment.
        attach: AttachId,
        /// A [`ToEdge`](ledger::wire::ToEdge) in its form, shared by all that are told the
        /// same.
        message: Bytes,
    },
    /// End the attachment.
    RefuseEdge {
        /// Which.
        attach: AttachId,
        /// Why.
        why: Refusal,
    },
    /// An entry did something.
    Applied(Arc<Applied>),
    /// The state was replaced by one from the leader, up to this entry. What an
    /// [`Applied`](Self::Applied) would have said is in [`ledger`](crate::Member::ledger).
    Restored {
        /// What it includes.
        index: LogIndex,
    },
    /// Who belongs to the cluster has changed.
    Membership(Membership),
    /// Who leads, as far as this member knows, and what it is itself.
    Role {
        /// What it is.
        role: Role,
        /// Since which term.
        term: u64,
        /// Who leads.
        leader: Option<NodeId>,
    },
}

/// How a member stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The log.
    pub log: consensus::Status,
    /// Commands that wait to be proposed.
    pub waiting: usize,
    /// Whether the member leaves.
    pub leaving: bool,
    /// Others know this member's number with another data folder, so nothing it says counts:
    /// it must be removed, and added under a new number.
    pub disowned: bool,
}
