//! What another member, or the disk, did wrong.

use std::fmt;

use model::NodeId;

/// What another member did wrong. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The log refuses it.
    Consensus(consensus::Error),
    /// Bytes that no member sends.
    Malformed(NodeId),
    /// A state that no member sends.
    State(NodeId),
    /// It speaks to a node of this number whose data folder was another one: this node has
    /// lost what it had promised. It must be removed, and added under a new number.
    NotMe(NodeId),
    /// The cluster knows a node of this number whose data folder was another one.
    NotHim(NodeId),
}

impl From<consensus::Error> for Error {
    fn from(error: consensus::Error) -> Self {
        Self::Consensus(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Consensus(error) => error.fmt(f),
            Self::Malformed(from) => write!(f, "node {from} sent bytes that are no message"),
            Self::State(from) => write!(f, "node {from} sent a state that cannot be"),
            Self::NotMe(from) => write!(
                f,
                "node {from} knows this node's number with another data folder"
            ),
            Self::NotHim(from) => write!(
                f,
                "node {from} is known with another data folder: it must be added anew"
            ),
        }
    }
}

impl std::error::Error for Error {}

/// Why a member cannot be made of what the disk holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreError {
    /// The log.
    Log(consensus::RestoreError),
    /// The saved state is none, or not the one it is said to be.
    State,
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(error) => error.fmt(f),
            Self::State => f.write_str("the saved state cannot be read"),
        }
    }
}

impl std::error::Error for RestoreError {}
