//! The log in memory, as raft reads it.

use std::collections::VecDeque;

use model::{LogIndex, NodeId};
use raft::eraftpb;
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use crate::error::RestoreError;
use crate::limits::NUMBER_MAX;
use crate::membership::Membership;
use crate::output::{Entry, EntryKind, HardState, SnapshotMeta};
use crate::setup::Restored;

/// Entries since some place, what was promised, and where the state stands. The data of an
/// entry is one byte string, shared with whoever writes and applies it.
#[derive(Debug)]
pub(crate) struct Log {
    hard_state: HardState,
    /// The place and term before the first entry.
    before: (u64, u64),
    entries: VecDeque<Entry>,
    /// What a snapshot would be that is taken now.
    applied: SnapshotMeta,
    withheld: bool,
}

impl Log {
    pub(crate) fn new(restored: Restored) -> Result<Self, RestoreError> {
        let Restored {
            mut hard_state,
            snapshot,
            mut entries,
        } = restored;
        let snapshot = snapshot.unwrap_or(SnapshotMeta {
            index: LogIndex(0),
            term: 0,
            membership: Membership::default(),
        });
        if snapshot.index.0 > 0 && !snapshot.membership.is_sound() {
            return Err(RestoreError::Membership);
        }
        check(&hard_state, &snapshot, &entries)?;
        // Entries are only those that the snapshot's own history goes on with.
        let at = |entry: &Entry| entry.index == snapshot.index;
        let continues = match entries.iter().find(|entry| at(entry)) {
            Some(entry) => entry.term == snapshot.term,
            None => entries
                .first()
                .is_some_and(|first| first.index.0 == snapshot.index.0 + 1),
        };
        if let Some(first) = entries.first()
            && first.index.0 > snapshot.index.0 + 1
        {
            return Err(RestoreError::Gap {
                at: LogIndex(snapshot.index.0 + 1),
            });
        }
        if !continues {
            entries.clear();
        }
        let before = match entries.first() {
            Some(first) if first.index <= snapshot.index => {
                let before = (first.index.0, first.term);
                entries.remove(0);
                before
            }
            _ => (snapshot.index.0, snapshot.term),
        };
        let (last, term) = match entries.last() {
            Some(last) => (last.index.0, last.term),
            None => before,
        };
        if hard_state.commit.0 > last {
            return Err(RestoreError::Missing {
                commit: hard_state.commit,
                last: LogIndex(last),
            });
        }
        hard_state.commit = hard_state.commit.max(snapshot.index);
        // What was written before the hard state may be newer than it. Nothing was said in
        // that term: what is said waits for the hard state.
        if hard_state.term < term {
            hard_state.term = term;
            hard_state.vote = None;
        }
        Ok(Self {
            hard_state,
            before,
            entries: entries.into(),
            applied: snapshot,
            withheld: false,
        })
    }

    pub(crate) fn hard_state(&self) -> HardState {
        self.hard_state
    }

    pub(crate) fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    /// Where the state stands, and who belongs to the cluster as of there.
    pub(crate) fn applied(&self) -> &SnapshotMeta {
        &self.applied
    }

    pub(crate) fn apply(&mut self, index: LogIndex, term: u64) {
        self.applied.index = index;
        self.applied.term = term;
    }

    pub(crate) fn set_membership(&mut self, membership: Membership) {
        self.applied.membership = membership;
    }

    /// While an entry is half applied there is no state to be sent.
    pub(crate) fn withhold_snapshot(&mut self, withheld: bool) {
        self.withheld = withheld;
    }

    pub(crate) fn first(&self) -> u64 {
        self.before.0 + 1
    }

    pub(crate) fn last(&self) -> u64 {
        self.entries
            .back()
            .map_or(self.before.0, |last| last.index.0)
    }

    pub(crate) fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.before.0 {
            return Some(self.before.1);
        }
        self.get(index).map(|entry| entry.term)
    }

    pub(crate) fn get(&self, index: u64) -> Option<&Entry> {
        let place = usize::try_from(index.checked_sub(self.first())?).ok()?;
        self.entries.get(place)
    }

    /// Entries as raft made them, in order, perhaps in place of others.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let keep = first.index.0.saturating_sub(self.first());
        self.entries
            .truncate(usize::try_from(keep).unwrap_or(usize::MAX));
        self.entries.extend(entries.iter().cloned());
    }

    /// Nothing is left but what a snapshot says.
    pub(crate) fn reset(&mut self, snapshot: &SnapshotMeta) {
        self.entries.clear();
        self.before = (snapshot.index.0, snapshot.term);
    }

    /// The state is the snapshot's.
    pub(crate) fn restore(&mut self, snapshot: SnapshotMeta) {
        self.applied = snapshot;
    }

    /// Forgets entries up to a place that was applied.
    pub(crate) fn compact(&mut self, index: LogIndex) {
        let index = index.0.min(self.applied.index.0);
        if let Some(term) = self.term_at(index) {
            let forget = index.saturating_sub(self.before.0);
            let forget = usize::try_from(forget).unwrap_or(usize::MAX);
            self.entries.drain(..forget.min(self.entries.len()));
            self.before = (index, term);
        }
    }
}

/// Numbers are in order and can be.
fn check(
    hard_state: &HardState,
    snapshot: &SnapshotMeta,
    entries: &[Entry],
) -> Result<(), RestoreError> {
    let numbers = [
        hard_state.term,
        hard_state.commit.0,
        snapshot.index.0,
        snapshot.term,
    ];
    let of_entries = entries.iter().flat_map(|entry| [entry.index.0, entry.term]);
    if numbers
        .into_iter()
        .chain(of_entries)
        .any(|n| n > NUMBER_MAX)
    {
        return Err(RestoreError::Number);
    }
    if entries.first().is_some_and(|first| first.index.0 == 0) {
        return Err(RestoreError::Number);
    }
    for pair in entries.windows(2) {
        if pair[1].index.0 != pair[0].index.0 + 1 {
            return Err(RestoreError::Gap {
                at: LogIndex(pair[0].index.0 + 1),
            });
        }
        if pair[1].term < pair[0].term {
            return Err(RestoreError::Number);
        }
    }
    Ok(())
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let hard_state = eraftpb::HardState {
            term: self.hard_state.term,
            vote: self.hard_state.vote.map_or(0, |id| id.0.get()),
            commit: self.hard_state.commit.0,
        };
        let conf_state = conf_state(&self.applied.membership);
        Ok(RaftState::new(hard_state, conf_state))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<eraftpb::Entry>> {
        if low < self.first() {
            return Err(StorageError::Compacted.into());
        }
        if high > self.last() + 1 {
            return Err(StorageError::Unavailable.into());
        }
        let max = max_size.into().unwrap_or(u64::MAX);
        let mut bytes = 0_u64;
        let mut entries = Vec::new();
        for index in low..high {
            let Some(entry) = self.get(index) else { break };
            // As raft counts them: the data and some bytes of numbers.
            bytes = bytes.saturating_add(entry.data.len() as u64 + 12);
            if bytes > max && !entries.is_empty() {
                break;
            }
            entries.push(to_raft(entry));
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.term_at(index).ok_or_else(|| {
            if index < self.before.0 {
                StorageError::Compacted.into()
            } else {
                StorageError::Unavailable.into()
            }
        })
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// Where the state stands; the state itself travels beside the message.
    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<eraftpb::Snapshot> {
        if self.withheld || self.applied.index.0 < request_index.max(1) {
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        Ok(eraftpb::Snapshot {
            data: self.applied.membership.encode().to_vec(),
            metadata: Some(eraftpb::SnapshotMetadata {
                conf_state: Some(conf_state(&self.applied.membership)),
                index: self.applied.index.0,
                term: self.applied.term,
            }),
        })
    }
}

fn to_raft(entry: &Entry) -> eraftpb::Entry {
    let kind = match entry.kind {
        EntryKind::Command => eraftpb::EntryType::EntryNormal,
        EntryKind::Membership => eraftpb::EntryType::EntryConfChangeV2,
    };
    eraftpb::Entry {
        entry_type: kind.into(),
        term: entry.term,
        index: entry.index.0,
        data: entry.data.to_vec(),
        ..eraftpb::Entry::default()
    }
}

/// `None` for a kind that does not stand in our logs.
pub(crate) fn from_raft(entry: eraftpb::Entry) -> Option<Entry> {
    let kind = match eraftpb::EntryType::from_i32(entry.entry_type)? {
        eraftpb::EntryType::EntryNormal => EntryKind::Command,
        eraftpb::EntryType::EntryConfChangeV2 => EntryKind::Membership,
        eraftpb::EntryType::EntryConfChange => return None,
    };
    Some(Entry {
        index: LogIndex(entry.index),
        term: entry.term,
        kind,
        data: entry.data.into(),
    })
}

pub(crate) fn conf_state(membership: &Membership) -> eraftpb::ConfState {
    let numbers = |set: &std::collections::BTreeSet<NodeId>| {
        set.iter().map(|id| id.0.get()).collect::<Vec<_>>()
    };
    eraftpb::ConfState {
        voters: numbers(&membership.voters),
        learners: numbers(&membership.learners),
        voters_outgoing: numbers(&membership.outgoing),
        learners_next: numbers(&membership.learners_next),
        auto_leave: membership.auto_leave,
    }
}
