//! Flow Synchronization (RFC 7425 §5.2): flows that wait for each other.
//!
//! A flow that came to a barrier is held until as many flows as the barrier counts have come
//! to it. Messages of it that were already handed out are kept here meanwhile. A barrier that
//! cannot be reached, because a flow that would have come to it is gone, opens at once; one
//! that is just not reached opens after a while, as the far end may count flows that we
//! never get to see.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::flow::ReceiveId;

/// How long flows wait for each other at most. It is for flows of one stream, which are sent
/// at the same time; a lost packet comes again within this.
const WAIT_MAX: Duration = Duration::from_secs(3);

/// A message, and when it began to come.
type Kept = (Bytes, Instant);

#[derive(Debug)]
struct Barrier {
    count: usize,
    come: BTreeSet<ReceiveId>,
    until: Instant,
}

/// The barriers of one connection. There are no more than flows, each with one that waits.
#[derive(Debug, Default)]
pub(super) struct Barriers {
    open_after: BTreeMap<u32, Barrier>,
    /// Flows that wait, and what they have handed out since.
    kept: BTreeMap<ReceiveId, VecDeque<Kept>>,
}

impl Barriers {
    /// Whether a flow waits.
    pub(super) fn holds(&self, flow: ReceiveId) -> bool {
        self.kept.contains_key(&flow)
    }

    /// Keeps a message of a flow that waits, which began to come then.
    pub(super) fn keep(&mut self, flow: ReceiveId, message: Bytes, began: Instant) {
        if let Some(kept) = self.kept.get_mut(&flow) {
            kept.push_back((message, began));
        }
    }

    /// A flow came to the barrier `id` of `count`. It waits from now on, unless it was the
    /// last: see [`Self::poll_opened`].
    pub(super) fn come(&mut self, flow: ReceiveId, id: u32, count: u32, now: Instant) {
        let barrier = self.open_after.entry(id).or_insert(Barrier {
            count: 0,
            come: BTreeSet::new(),
            until: now + WAIT_MAX,
        });
        barrier.count = usize::try_from(count).unwrap_or(usize::MAX);
        barrier.come.insert(flow);
        self.kept.entry(flow).or_default();
    }

    /// A barrier that opens: the flows that waited there, and what each handed out
    /// meanwhile. `flows` are all that are open.
    pub(super) fn poll_opened<'a>(
        &mut self,
        flows: impl Iterator<Item = &'a ReceiveId> + Clone,
        now: Instant,
    ) -> Option<Vec<(ReceiveId, VecDeque<Kept>)>> {
        let opens = |barrier: &Barrier| {
            let others = flows.clone().filter(|flow| !barrier.come.contains(flow));
            barrier.come.len() >= barrier.count
                || barrier.come.len() + others.count() < barrier.count
                || barrier.until <= now
        };
        let id = self.open_after.iter().find(|(_, barrier)| opens(barrier));
        let id = id.map(|(id, _)| *id)?;
        let barrier = self.open_after.remove(&id)?;
        let freed = barrier.come.into_iter();
        Some(
            freed
                .filter_map(|flow| Some((flow, self.kept.remove(&flow)?)))
                .collect(),
        )
    }
}
