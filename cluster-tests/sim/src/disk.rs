//! An origin's disk: what was written in order, and how much of it is safe.

use bytes::Bytes;
use consensus::{Entry, HardState, Ticket, Write};
use member::{Restored, Saved};
use model::LogIndex;

/// A log that is appended to, and one saved state that is replaced.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    safe: State,
    /// Written and not synced, oldest first.
    pending: Vec<Pending>,
    /// How many of `pending` the sync that is under way will make safe.
    pub(super) syncing: usize,
}

#[derive(Clone, Debug, Default)]
struct State {
    hard_state: HardState,
    saved: Option<Saved>,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Pending {
    ticket: Ticket,
    write: Write,
    contents: Option<Bytes>,
}

impl Disk {
    /// A disk with what somebody begins with.
    #[must_use]
    pub(super) fn new(restored: Restored) -> Self {
        Self {
            safe: State {
                hard_state: restored.hard_state,
                saved: restored.saved,
                entries: restored.entries,
            },
            pending: Vec::new(),
            syncing: 0,
        }
    }

    /// Appends.
    pub(super) fn write(&mut self, ticket: Ticket, write: Write, contents: Option<Bytes>) {
        self.pending.push(Pending {
            ticket,
            write,
            contents,
        });
    }

    /// A sync begins: what is written so far. Says whether there is anything to do.
    pub(super) fn begin_sync(&mut self) -> bool {
        self.syncing = self.pending.len();
        self.syncing > 0
    }

    /// The sync is done. The last ticket that is safe.
    pub(super) fn end_sync(&mut self) -> Option<Ticket> {
        let mut last = None;
        for pending in self.pending.drain(..self.syncing) {
            last = Some(pending.ticket);
            self.safe.take(pending);
        }
        self.syncing = 0;
        last
    }

    /// Replaces the saved state, safely.
    pub(super) fn save(&mut self, saved: Saved) {
        if self
            .safe
            .saved
            .as_ref()
            .is_none_or(|has| has.index < saved.index)
        {
            self.safe.saved = Some(saved);
        }
    }

    /// Entries before `first` are not needed.
    pub(super) fn compact(&mut self, first: LogIndex) {
        self.safe.entries.retain(|entry| entry.index >= first);
    }

    /// The process died: of what was not synced, the first `kept` writes are there all the
    /// same. A write that was torn is not there at all, as with the frames of the real log.
    pub(super) fn crash(&mut self, kept: usize) {
        self.syncing = kept.min(self.pending.len());
        self.end_sync();
        self.pending.clear();
    }

    /// What it has promised, and will not forget.
    #[must_use]
    pub(super) fn promised(&self) -> HardState {
        self.safe.hard_state
    }

    /// Whether everything up to this entry is safe.
    #[must_use]
    pub(super) fn reaches(&self, index: LogIndex) -> bool {
        let saved = self.safe.saved.as_ref().map(|saved| saved.index);
        let last = self.safe.entries.last().map(|entry| entry.index);
        saved.max(last) >= Some(index)
    }

    /// How many writes are not safe.
    #[must_use]
    pub(super) fn unsynced(&self) -> usize {
        self.pending.len()
    }

    /// What a process finds that starts.
    #[must_use]
    pub(super) fn restored(&self) -> Restored {
        Restored {
            hard_state: self.safe.hard_state,
            saved: self.safe.saved.clone(),
            entries: self.safe.entries.clone(),
        }
    }
}

impl State {
    fn take(&mut self, pending: Pending) {
        let Pending {
            write, contents, ..
        } = pending;
        if let Some(meta) = write.snapshot {
            // The log before it, and what stood behind it, is void.
            self.entries.clear();
            let contents = contents.expect("a snapshot is written with its state");
            self.saved = Some(Saved {
                index: meta.index,
                term: meta.term,
                contents,
            });
        }
        if let Some(first) = write.entries.first() {
            let first = first.index;
            self.entries.retain(|entry| entry.index < first);
            self.entries.extend(write.entries);
        }
        if let Some(hard_state) = write.hard_state {
            self.hard_state = hard_state;
        }
    }
}
