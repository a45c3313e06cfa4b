//! Packets that came in fragments (RFC 7016 §3.4).
//!
//! Only startup has reason to send them, but an open session may. What is kept is bounded
//! in number, in size and in time. Packets are known by their number and by who sends them:
//! in a startup by the address, in a session there is but one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::chunk::PacketFragment;
use crate::limits;
use crate::packet::Mode;

/// A packet that gets no new fragment for so long is given up.
const PROGRESS_WITHIN: Duration = Duration::from_secs(1);

/// A packet has to be whole after so long.
const WHOLE_WITHIN: Duration = Duration::from_secs(60);

/// Packets in parts.
#[derive(Debug)]
pub(crate) struct Reassembly<From> {
    packets: Vec<Partial<From>>,
    packets_max: usize,
    len_max: usize,
}

#[derive(Debug)]
struct Partial<From> {
    from: From,
    mode: Mode,
    packet: u64,
    begun: Instant,
    progress: Instant,
    bytes: usize,
    /// How many fragments there are, once the last one came.
    count: Option<u64>,
    parts: BTreeMap<u64, Vec<u8>>,
}

impl<From> Partial<From> {
    fn is_late(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.progress) >= PROGRESS_WITHIN
            || now.saturating_duration_since(self.begun) >= WHOLE_WITHIN
    }
}

impl<From: PartialEq> Reassembly<From> {
    /// Keeps no more than `packets_max` packets of `len_max` bytes at a time.
    pub(crate) const fn new(packets_max: usize, len_max: usize) -> Self {
        Self {
            packets: Vec::new(),
            packets_max,
            len_max,
        }
    }

    /// Takes a fragment in, which came in a packet of `mode`. Returns the packet that it
    /// makes whole.
    pub(crate) fn handle_fragment(
        &mut self,
        from: From,
        mode: Mode,
        fragment: &PacketFragment<'_>,
        now: Instant,
    ) -> Option<Vec<u8>> {
        self.packets.retain(|partial| !partial.is_late(now));
        let at = match self
            .packets
            .iter()
            .position(|partial| partial.packet == fragment.packet && partial.from == from)
        {
            Some(at) if self.packets[at].mode != mode => return None,
            Some(at) => at,
            None if self.packets.len() >= self.packets_max => return None,
            None => {
                self.packets.push(Partial {
                    from,
                    mode,
                    packet: fragment.packet,
                    begun: now,
                    progress: now,
                    bytes: 0,
                    count: None,
                    parts: BTreeMap::new(),
                });
                self.packets.len() - 1
            }
        };
        let partial = &mut self.packets[at];
        let known = partial.parts.contains_key(&fragment.index);
        let beyond = partial.count.is_some_and(|count| fragment.index >= count);
        let too_much = partial.bytes + fragment.bytes.len() > self.len_max
            || partial.parts.len() >= limits::FRAGMENTS_MAX;
        if known || beyond || too_much {
            return None;
        }
        if !fragment.more && partial.count.is_none() {
            partial.count = fragment.index.checked_add(1);
        }
        partial.bytes += fragment.bytes.len();
        partial.progress = now;
        partial
            .parts
            .insert(fragment.index, fragment.bytes.to_vec());
        let whole = partial.count == Some(partial.parts.len() as u64);
        let last = partial
            .parts
            .keys()
            .next_back()
            .map(|last| last.saturating_add(1));
        (whole && last == partial.count).then(|| {
            let partial = self.packets.swap_remove(at);
            partial.parts.into_values().flatten().collect()
        })
    }

    /// Gives memory back that late packets hold.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.packets.retain(|partial| !partial.is_late(now));
        if self.packets.is_empty() {
            self.packets = Vec::new();
        }
    }
}
