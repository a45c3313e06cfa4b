//! The consensus' words as they stand in the log.
//!
//! ```text
//!   entry      = kind u8  data
//!   hard state = term u64  vote u64 (0: none)  commit u64        big endian
//! ```

use std::num::NonZeroU64;

use bytes::{BufMut, Bytes, BytesMut};
use consensus::{Entry, EntryKind, HardState};
use member::{Restored, Saved};
use model::{LogIndex, NodeId};

use crate::log::{self, Recovered, Snapshot};

const COMMAND: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// A write for the log.
pub(super) fn write(write: &consensus::Write, contents: Option<Bytes>) -> log::Write {
    let snapshot = write.snapshot.as_ref().map(|meta| Snapshot {
        index: meta.index.0,
        term: meta.term,
        data: contents.unwrap_or_default(),
    });
    log::Write {
        snapshot,
        entries: write.entries.iter().map(entry).collect(),
        hard_state: write.hard_state.as_ref().map(hard_state),
        lazy: !write.must_sync,
    }
}

fn entry(entry: &Entry) -> log::Entry {
    let mut payload = BytesMut::with_capacity(1 + entry.data.len());
    payload.put_u8(match entry.kind {
        EntryKind::Command => COMMAND,
        EntryKind::Membership => MEMBERSHIP,
    });
    payload.put_slice(&entry.data);
    log::Entry {
        index: entry.index.0,
        term: entry.term,
        payload: payload.freeze(),
    }
}

fn hard_state(hard_state: &HardState) -> Bytes {
    let mut out = BytesMut::with_capacity(24);
    out.put_u64(hard_state.term);
    out.put_u64(hard_state.vote.map_or(0, |vote| vote.0.get()));
    out.put_u64(hard_state.commit.0);
    out.freeze()
}

/// What a founding must have written before it runs.
pub(super) fn founding(restored: &Restored) -> log::Write {
    log::Write {
        snapshot: restored.saved.as_ref().map(|saved| Snapshot {
            index: saved.index.0,
            term: saved.term,
            data: saved.contents.clone(),
        }),
        hard_state: Some(hard_state(&restored.hard_state)),
        ..log::Write::default()
    }
}

/// What a member begins with; `None` if the log holds what we never write.
pub(super) fn restored(recovered: Recovered) -> Option<Restored> {
    let entries = recovered.entries.into_iter().map(|entry| {
        let mut data = entry.payload;
        let kind = match *data.first()? {
            COMMAND => EntryKind::Command,
            MEMBERSHIP => EntryKind::Membership,
            _ => return None,
        };
        let data = data.split_off(1);
        Some(Entry {
            index: LogIndex(entry.index),
            term: entry.term,
            kind,
            data,
        })
    });
    let hard_state = match recovered.hard_state {
        None => HardState::default(),
        Some(bytes) => {
            let words: [u8; 24] = bytes.as_ref().try_into().ok()?;
            let (term, rest) = words.split_first_chunk::<8>()?;
            let (vote, commit) = rest.split_first_chunk::<8>()?;
            HardState {
                term: u64::from_be_bytes(*term),
                vote: NonZeroU64::new(u64::from_be_bytes(*vote)).map(NodeId),
                commit: LogIndex(u64::from_be_bytes(commit.try_into().ok()?)),
            }
        }
    };
    Some(Restored {
        hard_state,
        saved: recovered.snapshot.map(|snapshot| Saved {
            index: LogIndex(snapshot.index),
            term: snapshot.term,
            contents: snapshot.data,
        }),
        entries: entries.collect::<Option<Vec<_>>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_comes_back_as_it_was() {
        let entries: Vec<_> = [EntryKind::Command, EntryKind::Membership]
            .into_iter()
            .zip(1..)
            .map(|(kind, index)| Entry {
                index: LogIndex(index),
                term: 3,
                kind,
                data: Bytes::from(vec![7; 9]),
            })
            .collect();
        let hard_state = HardState {
            term: 3,
            vote: NonZeroU64::new(2).map(NodeId),
            commit: LogIndex(1),
        };
        let written = write(
            &consensus::Write {
                snapshot: None,
                entries: entries.clone(),
                hard_state: Some(hard_state),
                must_sync: true,
            },
            None,
        );
        let restored = restored(Recovered {
            hard_state: written.hard_state,
            entries: written.entries,
            ..Recovered::default()
        });
        let expected = Restored {
            hard_state,
            saved: None,
            entries,
        };
        assert_eq!(restored, Some(expected));
    }

    #[test]
    fn what_we_never_write_is_not_taken() {
        let entry = log::Entry {
            index: 1,
            term: 1,
            payload: Bytes::from_static(b"\x09x"),
        };
        let recovered = Recovered {
            entries: vec![entry],
            ..Recovered::default()
        };
        assert_eq!(restored(recovered), None);
        let recovered = Recovered {
            hard_state: Some(Bytes::from_static(b"short")),
            ..Recovered::default()
        };
        assert_eq!(restored(recovered), None);
    }
}
