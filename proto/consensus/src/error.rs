//! What can go wrong, and whose fault it is.

use std::fmt;

use model::{LogIndex, NodeId};

use crate::membership::Refusal;

/// Why something was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Nobody leads as far as this node knows: nothing was handed to anybody.
    NoLeader,
    /// This node does not lead; who does is known or not.
    NotLeader(Option<NodeId>),
    /// The leader takes nothing right now: too much is undecided, or it hands over its lead.
    Busy,
    /// The proposal is empty or longer than
    /// [`ENTRY_BYTES_MAX`](crate::limits::ENTRY_BYTES_MAX).
    Size(usize),
    /// The membership cannot be changed like this.
    Membership(Refusal),
    /// Another node sent what it must not send.
    Misbehaved(NodeId, Misbehaviour),
}

/// What another node must not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misbehaviour {
    /// Bytes that are no message.
    Malformed,
    /// More than a limit allows.
    TooMuch,
    /// A kind of message, or of entry, that does not exist or is not for others.
    Kind,
    /// It is for another node, or does not say truly whom it is from.
    Address,
    /// It says its number is one that does not count, or answers without being a member.
    NotMember,
    /// A term that cannot be.
    Term,
    /// An index that cannot be.
    Index,
    /// Entries that are not in order, or not what such a message may have.
    Entries,
    /// A snapshot that cannot be, or one without its state.
    Snapshot,
    /// It says we have acknowledged entries that we do not have: one of us has lost data.
    Lost {
        /// What it says.
        said: LogIndex,
        /// What there is.
        last: LogIndex,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLeader => f.write_str("nobody leads"),
            Self::NotLeader(Some(id)) => write!(f, "node {id} leads"),
            Self::NotLeader(None) => f.write_str("this node does not lead"),
            Self::Busy => f.write_str("the leader takes nothing right now"),
            Self::Size(len) => write!(f, "a proposal of {len} bytes"),
            Self::Membership(refusal) => refusal.fmt(f),
            Self::Misbehaved(from, what) => write!(f, "node {from} sent {what}"),
        }
    }
}

impl fmt::Display for Misbehaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("bytes that are no message"),
            Self::TooMuch => f.write_str("more than a message may have"),
            Self::Kind => f.write_str("a kind of message or entry that is not for others"),
            Self::Address => f.write_str("a message that is not from it, or not for us"),
            Self::NotMember => f.write_str("an answer without being a member"),
            Self::Term => f.write_str("a term that cannot be"),
            Self::Index => f.write_str("an index that cannot be"),
            Self::Entries => f.write_str("entries that cannot be"),
            Self::Snapshot => f.write_str("a snapshot that cannot be"),
            Self::Lost { said, last } => write!(
                f,
                "that entry {said} is here, where {last} is the last: data was lost"
            ),
        }
    }
}

impl std::error::Error for Error {}

/// Why a node cannot be made of what was restored: the disk does not hold what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreError {
    /// The entries are not in order or leave a gap behind the snapshot.
    Gap {
        /// The entry that should have stood there.
        at: LogIndex,
    },
    /// Entries that were decided are missing.
    Missing {
        /// Up to here they were decided.
        commit: LogIndex,
        /// The last that is there.
        last: LogIndex,
    },
    /// A number that cannot be.
    Number,
    /// A membership that cannot be.
    Membership,
    /// The times of [`Setup`](crate::Setup) do not fit together.
    Setup,
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gap { at } => write!(f, "the log has no entry {at}"),
            Self::Missing { commit, last } => {
                write!(
                    f,
                    "entries up to {commit} were decided, the log ends at {last}"
                )
            }
            Self::Number => f.write_str("a number in the log cannot be"),
            Self::Membership => f.write_str("the membership cannot be"),
            Self::Setup => f.write_str("the election must take longer than two heartbeats"),
        }
    }
}

impl std::error::Error for RestoreError {}
