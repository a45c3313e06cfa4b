//! What a node gives out, and what it says of itself.

use bytes::Bytes;
use model::{LogIndex, NodeId};

use crate::membership::Membership;

/// What a node's owner must do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Bring this to that node. It may be lost; it must not overtake an earlier one to the
    /// same node.
    Send {
        /// To whom.
        to: NodeId,
        /// For its `handle_message`.
        message: Bytes,
    },
    /// Bring the state as it is right now, and this message, to that node. Say
    /// [`handle_snapshot_sent`](crate::Node::handle_snapshot_sent) when it is done or has
    /// failed: until then nothing else is sent there but heartbeats.
    SendSnapshot {
        /// To whom.
        to: NodeId,
        /// For its `handle_snapshot`.
        message: Bytes,
        /// What the state includes: everything that was applied before this.
        index: LogIndex,
    },
    /// Write this down behind what was to be written before, then say
    /// [`handle_persisted`](crate::Node::handle_persisted). One may be said for many.
    Persist {
        /// What to say then.
        ticket: Ticket,
        /// What to write.
        write: Write,
    },
    /// The entry is decided: carry it out.
    Apply {
        /// Which.
        index: LogIndex,
        /// The term it was proposed in.
        term: u64,
        /// What was proposed.
        data: Bytes,
    },
    /// The entry is decided and concerns only the log.
    Skip {
        /// Which.
        index: LogIndex,
        /// The term it was proposed in.
        term: u64,
    },
    /// The entry is decided, and the membership is this. Part of the state.
    Membership {
        /// Which.
        index: LogIndex,
        /// The term it was proposed in.
        term: u64,
        /// Who belongs to the cluster.
        membership: Membership,
    },
    /// The state is the one that came with this snapshot.
    Restore {
        /// Which.
        snapshot: SnapshotMeta,
    },
    /// Everything that was acknowledged anywhere before the question is applied.
    ReadReady {
        /// The question's number.
        ctx: u64,
        /// What had been decided then.
        index: LogIndex,
    },
    /// Who leads, as far as this node knows, and what it is itself.
    Role {
        /// What it is.
        role: Role,
        /// Since which term.
        term: u64,
        /// Who leads.
        leader: Option<NodeId>,
    },
}

/// A write that was asked for. Later ones are greater; the default is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(crate) u64);

/// What to write, in this order: the snapshot, the entries, the hard state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Write {
    /// The state that came with this snapshot; the log before it, and any entry behind it
    /// that was written before, is void.
    pub snapshot: Option<SnapshotMeta>,
    /// Entries, without a gap. Those that were written before with the same or greater
    /// numbers are void.
    pub entries: Vec<Entry>,
    /// What the node has promised.
    pub hard_state: Option<HardState>,
    /// Whether it must be on the disk before it is acknowledged. If not, it only spares work
    /// after a restart.
    pub must_sync: bool,
}

/// What a node has promised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// It has seen this term.
    pub term: u64,
    /// It has voted for this node in the term.
    pub vote: Option<NodeId>,
    /// Up to here entries are decided.
    pub commit: LogIndex,
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place.
    pub index: LogIndex,
    /// The term it was proposed in.
    pub term: u64,
    /// Whom it concerns.
    pub kind: EntryKind,
    /// What it says.
    pub data: Bytes,
}

/// Whom an entry concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// The state; or nobody, if it is empty.
    Command,
    /// The membership.
    Membership,
}

impl HardState {
    /// Its one form in bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let vote = self.vote.map_or(0, |id| id.0.get());
        let words = [self.term, vote, self.commit.0].map(u64::to_be_bytes);
        Bytes::copy_from_slice(words.as_flattened())
    }

    /// Reads what [`encode`](Self::encode) wrote.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (words, rest) = bytes.as_chunks::<8>();
        let &[term, vote, commit] = words else {
            return None;
        };
        rest.is_empty().then(|| Self {
            term: u64::from_be_bytes(term),
            vote: std::num::NonZeroU64::new(u64::from_be_bytes(vote)).map(NodeId),
            commit: LogIndex(u64::from_be_bytes(commit)),
        })
    }
}

impl EntryKind {
    /// Its number, for a log on a disk.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::Command => 0,
            Self::Membership => 1,
        }
    }

    /// Reads what [`to_byte`](Self::to_byte) wrote.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Command),
            1 => Some(Self::Membership),
            _ => None,
        }
    }
}

/// Where a snapshot stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The last entry it includes.
    pub index: LogIndex,
    /// Of that entry.
    pub term: u64,
    /// Of that entry.
    pub membership: Membership,
}

/// What a node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// It listens.
    #[default]
    Follower,
    /// It asks whether it would be elected.
    PreCandidate,
    /// It wants to be elected.
    Candidate,
    /// It leads, unless another does of whom it has not heard.
    Leader,
}

/// How a node stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its number.
    pub id: NodeId,
    /// What it is.
    pub role: Role,
    /// The term it has seen.
    pub term: u64,
    /// Who leads, as far as it knows.
    pub leader: Option<NodeId>,
    /// Up to here entries are known to be decided.
    pub commit: LogIndex,
    /// Up to here they are handed out.
    pub applied: LogIndex,
    /// The last entry it has, decided or not.
    pub last: LogIndex,
    /// The first entry it can still send.
    pub first: LogIndex,
    /// Who belongs to the cluster, as of `applied`.
    pub membership: Membership,
    /// How the others stand, when this node leads; in the order of their numbers.
    pub peers: Vec<Peer>,
}

/// How another node stands, seen by the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Which.
    pub id: NodeId,
    /// Up to here it has what the leader has, on its disk.
    pub matched: LogIndex,
    /// How it is sent to.
    pub progress: Progress,
    /// Whether it was heard of within an election timeout.
    pub active: bool,
}

/// How another node is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Its log's end is being looked for.
    Probing,
    /// It is sent entries as they come.
    Replicating,
    /// It is sent a snapshot.
    Snapshot,
}
