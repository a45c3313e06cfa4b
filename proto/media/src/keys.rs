//! The key frames of a run: where readers can join.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use model::{Class, Frame, MediaTime, Sequenced, Slot};

/// What is known of the run's video.
#[derive(Clone, Debug, Default)]
pub(crate) struct Video {
    /// When any was seen last.
    pub(crate) last: Option<MediaTime>,
    /// The key frames in the ring by track, oldest first. No queue is empty. Readers join
    /// at the newest one of the least slot, which by convention is the default track.
    keys: BTreeMap<Slot, VecDeque<Key>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) seq: u64,
    pub(crate) time: MediaTime,
    /// In force at this frame. A configuration that came later must not be given to a
    /// reader that joins here: it would decode this group of pictures with it.
    pub(crate) configs: Arc<[Frame]>,
}

impl Video {
    pub(crate) fn note(&mut self, item: &Sequenced, configs: &Arc<[Frame]>) {
        let frame = &item.frame;
        match frame.class {
            Class::Clear => return,
            Class::Config | Class::Delta | Class::Audio | Class::Data => {}
            Class::Key => {
                let configs = Arc::clone(configs);
                let key = Key {
                    seq: item.at.seq,
                    time: frame.time,
                    configs,
                };
                self.keys.entry(frame.slot).or_default().push_back(key);
            }
        }
        self.last = Some(frame.time);
    }

    /// A frame leaves the ring, the oldest one.
    pub(crate) fn forget(&mut self, item: &Sequenced) {
        if item.frame.class != Class::Key {
            return;
        }
        if let Some(keys) = self.keys.get_mut(&item.frame.slot) {
            keys.pop_front();
            if keys.is_empty() {
                self.keys.remove(&item.frame.slot);
            }
        }
    }

    pub(crate) fn join_point(&self) -> Option<&Key> {
        self.keys
            .first_key_value()
            .and_then(|(_, keys)| keys.back())
    }

    pub(crate) fn key(&self, slot: Slot, seq: u64) -> Option<&Key> {
        let keys = self.keys.get(&slot)?;
        keys.get(keys.partition_point(|key| key.seq < seq))
            .filter(|key| key.seq == seq)
    }
}
