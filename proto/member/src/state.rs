//! A saved state in bytes: where it stands, who belongs to the cluster, and the ledger.

use bytes::{BufMut, Bytes, BytesMut};
use consensus::{Membership, SnapshotMeta};
use ledger::Ledger;
use model::LogIndex;

/// A state, as it is saved and sent.
///
/// ```text
///   format u8 | index u64 | term u64 | length u32 | membership | ledger
/// ```
pub(crate) struct State {
    pub(crate) meta: SnapshotMeta,
    pub(crate) ledger: Ledger,
}

const FORMAT: u8 = 1;

pub(crate) fn encode(meta: &SnapshotMeta, ledger: &Ledger) -> Bytes {
    let membership = meta.membership.encode();
    let ledger = ledger.snapshot();
    let mut out = BytesMut::with_capacity(21 + membership.len() + ledger.len());
    out.put_u8(FORMAT);
    out.put_u64(meta.index.0);
    out.put_u64(meta.term);
    // Limits keep a membership far below.
    out.put_u32(u32::try_from(membership.len()).unwrap_or(u32::MAX));
    out.put_slice(&membership);
    out.put_slice(&ledger);
    out.freeze()
}

pub(crate) fn decode(bytes: &Bytes) -> Option<State> {
    let (head, rest) = bytes.split_first_chunk::<21>()?;
    let (format, head) = head.split_first()?;
    let (index, head) = head.split_first_chunk::<8>()?;
    let (term, len) = head.split_first_chunk::<8>()?;
    let len = u32::from_be_bytes(len.try_into().ok()?);
    let (membership, ledger) = rest.split_at_checked(usize::try_from(len).ok()?)?;
    if *format != FORMAT {
        return None;
    }
    let meta = SnapshotMeta {
        index: LogIndex(u64::from_be_bytes(*index)),
        term: u64::from_be_bytes(*term),
        membership: Membership::decode(membership)?,
    };
    let ledger = Ledger::restore(bytes.slice_ref(ledger)).ok()?;
    (ledger.applied() == meta.index).then_some(State { meta, ledger })
}
