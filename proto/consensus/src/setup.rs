//! What a node starts with.

use std::time::Duration;

use model::{LogIndex, NodeId};

use crate::membership::Membership;
use crate::output::{Entry, HardState, SnapshotMeta};

/// Who a node is and how patient.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its number. It belongs to one data folder.
    pub id: NodeId,
    /// Where its chance comes from: the same seed, inputs and times give the same outputs.
    /// Another one in every life of the node, since it also tells its lives apart.
    pub seed: u64,
    /// The grain of its time.
    pub tick: Duration,
    /// How often a leader says that it lives: at least one `tick`.
    pub heartbeat: Duration,
    /// A follower that hears nothing for between one and two of these asks to be elected. A
    /// leader that hears of no majority for one steps down.
    pub election: Duration,
}

impl Setup {
    /// The usual times: a lost leader is replaced after half a second to a second.
    #[must_use]
    pub fn new(id: NodeId, seed: u64) -> Self {
        Self {
            id,
            seed,
            tick: Duration::from_millis(50),
            heartbeat: Duration::from_millis(100),
            election: Duration::from_millis(500),
        }
    }

    /// Ticks of a time, at least one.
    pub(crate) fn ticks(&self, time: Duration) -> usize {
        let ticks = time.as_nanos().div_ceil(self.tick.as_nanos().max(1));
        usize::try_from(ticks).unwrap_or(usize::MAX).max(1)
    }
}

/// What the disk holds. The default is a newcomer, which waits to be told by a leader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// The newest that was written.
    pub hard_state: HardState,
    /// The newest whose state was saved.
    pub snapshot: Option<SnapshotMeta>,
    /// In order. They may begin before the snapshot, which serves slow followers.
    pub entries: Vec<Entry>,
}

impl Restored {
    /// The first node, or the first nodes, of a cluster that does not exist yet. All founders
    /// must be given the same; whoever comes later is [`Default`] and is added.
    ///
    /// The founding is entry 1: an empty state with this membership. It must be saved like a
    /// snapshot before the node runs.
    #[must_use]
    pub fn founding(membership: Membership) -> Self {
        Self {
            hard_state: HardState {
                term: 1,
                vote: None,
                commit: LogIndex(1),
            },
            snapshot: Some(SnapshotMeta {
                index: LogIndex(1),
                term: 1,
                membership,
            }),
            entries: Vec::new(),
        }
    }
}
