//! The state machine.

use bytes::Bytes;
use model::{
    AppInstance, EdgeLife, Epoch, LogIndex, ObjectKey, OriginId, StreamKey, Version,
};

use crate::codec::Error;
use crate::command::Command;
use crate::effect::{Applied, ObjectSync, StreamState};

/// What every origin knows.
#[derive(Debug, Default)]
pub struct Ledger {
    applied: LogIndex,
}

impl Ledger {
    /// Before the first entry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies an entry.
    ///
    /// # Panics
    /// If the entry, or one behind it, was applied before.
    pub fn apply(&mut self, index: LogIndex, command: &Command) -> Applied {
        self.skip(index);
        let _ = command;
        Applied {
            index,
            trace: Bytes::new(),
            effects: Vec::new(),
        }
    }

    /// Passes over an entry that carries no command.
    ///
    /// # Panics
    /// If the entry, or one behind it, was applied before.
    pub fn skip(&mut self, index: LogIndex) {
        assert!(index > self.applied, "the log goes forward");
        self.applied = index;
    }

    /// The newest entry that is part of this state.
    #[must_use]
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// Everything, as bytes in one canonical form.
    #[must_use]
    pub fn snapshot(&self) -> Bytes {
        Bytes::new()
    }

    /// The state that a snapshot holds.
    ///
    /// # Errors
    /// The bytes are not a snapshot.
    pub fn restore(snapshot: Bytes) -> Result<Self, Error> {
        let _ = snapshot;
        Ok(Self::default())
    }

    /// A hash of the state: the same log gives the same digest everywhere.
    #[must_use]
    pub fn digest(&self) -> u128 {
        0
    }

    /// What somebody must be told who has this much of an object; `None` if there is no
    /// such object.
    #[must_use]
    pub fn sync(&self, key: &ObjectKey, have: Option<(Epoch, Version)>) -> Option<ObjectSync> {
        let _ = (key, have);
        None
    }

    /// The edges that have the object open, in order.
    pub fn opened_by(&self, key: &ObjectKey) -> impl Iterator<Item = &EdgeLife> {
        let _ = key;
        std::iter::empty()
    }

    /// Whether the edge has the object open.
    #[must_use]
    pub fn has_open(&self, key: &ObjectKey, edge: &EdgeLife) -> bool {
        let _ = (key, edge);
        false
    }

    /// The objects that the edge has open, in order.
    pub fn objects_of(&self, edge: &EdgeLife) -> impl Iterator<Item = &ObjectKey> {
        let _ = edge;
        std::iter::empty()
    }

    /// Whether this life of the edge is registered.
    #[must_use]
    pub fn knows(&self, edge: &EdgeLife) -> bool {
        let _ = edge;
        false
    }

    /// The registered edges, in order.
    pub fn edges(&self) -> impl Iterator<Item = &EdgeLife> {
        std::iter::empty()
    }

    /// The locks that are held, in order: object, token, lease in milliseconds.
    pub fn locks(&self) -> impl Iterator<Item = (&ObjectKey, u64, u32)> {
        std::iter::empty()
    }

    /// How a stream stands.
    #[must_use]
    pub fn stream(&self, key: &StreamKey) -> StreamState {
        let _ = key;
        StreamState::default()
    }

    /// The streams that are published or whose last publish is remembered, in order.
    pub fn streams(&self) -> impl Iterator<Item = (&StreamKey, StreamState)> {
        std::iter::empty()
    }

    /// Where an instance lives.
    #[must_use]
    pub fn home(&self, at: &AppInstance) -> Option<&OriginId> {
        let _ = at;
        None
    }
}
