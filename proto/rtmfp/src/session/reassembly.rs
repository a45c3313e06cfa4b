//! Packets that came in fragments (RFC 7016 §3.4).
//!
//! Only startup has reason to send them, but an open session may. What is kept is bounded
//! in number, in size and in time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::chunk::PacketFragment;
use crate::limits;

/// A packet that gets no new fragment for so long is given up.
const PROGRESS_WITHIN: Duration = Duration::from_secs(1);

/// A packet has to be whole after so long.
const WHOLE_WITHIN: Duration = Duration::from_secs(60);

/// Packets in parts.
#[derive(Debug, Default)]
pub(super) struct Reassembly {
    packets: Vec<Partial>,
}

#[derive(Debug)]
struct Partial {
    packet: u64,
    begun: Instant,
    progress: Instant,
    bytes: usize,
    /// How many fragments there are, once the last one came.
    count: Option<u64>,
    parts: BTreeMap<u64, Vec<u8>>,
}

impl Partial {
    fn is_late(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.progress) >= PROGRESS_WITHIN
            || now.saturating_duration_since(self.begun) >= WHOLE_WITHIN
    }
}

impl Reassembly {
    /// Takes a fragment in. Returns the packet that it makes whole.
    pub(super) fn handle_fragment(
        &mut self,
        fragment: &PacketFragment<'_>,
        now: Instant,
    ) -> Option<Vec<u8>> {
        self.packets.retain(|partial| !partial.is_late(now));
        let at = match self
            .packets
            .iter()
            .position(|partial| partial.packet == fragment.packet)
        {
            Some(at) => at,
            None if self.packets.len() >= limits::FRAGMENTED_PACKETS_MAX => return None,
            None => {
                self.packets.push(Partial {
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
        let too_much = partial.bytes + fragment.bytes.len() > limits::FRAGMENTED_PACKET_MAX;
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
    pub(super) fn expire(&mut self, now: Instant) {
        self.packets.retain(|partial| !partial.is_late(now));
        if self.packets.is_empty() {
            self.packets = Vec::new();
        }
    }
}
