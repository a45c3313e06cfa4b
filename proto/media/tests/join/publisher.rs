//! A publisher whose every frame knows what a decoder must have before it.

use std::collections::BTreeMap;

use bytes::Bytes;
use model::{Class, Epoch, FourCc, Frame, Kind, MediaTime, Position, Slot};

/// Configurations in force: the frame's id by kind and slot, 0 for none.
pub(crate) type Set = [[u32; SLOTS]; 3];

/// Slots 0 to 2 are used.
pub(crate) const SLOTS: usize = 3;

/// What a decoder must have before a frame.
#[derive(Clone, Debug)]
pub(crate) struct Needs {
    /// The configurations in force, in the publisher's order.
    pub(crate) set: Set,
    /// For pictures: the group and the place in it.
    pub(crate) picture: (u32, u32),
}

#[derive(Debug)]
pub(crate) struct Publisher {
    needs: Vec<Needs>,
    set: Set,
    groups: BTreeMap<Slot, (u32, u32)>,
    next: Position,
    time: u64,
}

impl Publisher {
    pub(crate) fn new() -> Self {
        Self {
            needs: Vec::new(),
            set: Set::default(),
            groups: BTreeMap::new(),
            next: Position {
                epoch: Epoch(1),
                seq: 0,
            },
            time: 1_000,
        }
    }

    pub(crate) fn new_epoch(&mut self, time: u64) {
        self.set = Set::default();
        self.groups.clear();
        self.next = Position {
            epoch: Epoch(self.next.epoch.0 + 1),
            seq: 0,
        };
        self.time = time;
    }

    /// Makes the next frame. A delta whose track has no key frame yet becomes one.
    pub(crate) fn frame(
        &mut self,
        kind: Kind,
        class: Class,
        slot: u32,
        step_ms: u64,
        len: usize,
    ) -> (Position, Frame) {
        let slot = Slot(slot);
        let class = if class == Class::Delta && !self.groups.contains_key(&slot) {
            Class::Key
        } else {
            class
        };
        let id = u32::try_from(self.needs.len()).unwrap() + 1;
        let picture = match class {
            Class::Key => (id, 0),
            Class::Delta => {
                let (group, index) = self.groups[&slot];
                (group, index + 1)
            }
            Class::Config | Class::Clear | Class::Audio | Class::Data => (0, 0),
        };
        if matches!(class, Class::Key | Class::Delta) {
            self.groups.insert(slot, picture);
        }
        self.needs.push(Needs {
            set: self.set,
            picture,
        });
        self.time += step_ms;
        let mut payload = id.to_be_bytes().to_vec();
        payload.resize(4 + len, 0);
        let payload = Bytes::from(payload);
        let frame = Frame {
            kind,
            class,
            slot,
            codec: FourCc::NONE,
            time: MediaTime(self.time),
            payload,
        };
        apply(&mut self.set, &frame);
        let at = self.next;
        self.next.seq += 1;
        (at, frame)
    }

    pub(crate) fn needs(&self, frame: &Frame) -> &Needs {
        &self.needs[id(frame) as usize - 1]
    }
}

/// The number the publisher gave a frame, from 1.
pub(crate) fn id(frame: &Frame) -> u32 {
    u32::from_be_bytes(*frame.payload.first_chunk().unwrap())
}

/// What a frame does to a decoder's configurations.
pub(crate) fn apply(set: &mut Set, frame: &Frame) {
    let slot = frame.slot.0 as usize;
    match frame.class {
        Class::Config => set[frame.kind as usize][slot] = id(frame),
        Class::Clear => set[frame.kind as usize][slot] = 0,
        Class::Key | Class::Delta | Class::Audio | Class::Data => {}
    }
}

/// Draws small numbers from 64 random bits. (A strategy for each number, combined, makes
/// the generator ten times as slow as all that is tested.)
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, count: u64) -> u64 {
        let drawn = self.0 % count;
        self.0 /= count;
        drawn
    }

    pub(crate) fn index(&mut self, count: usize) -> usize {
        usize::try_from(self.below(count as u64)).unwrap()
    }

    pub(crate) fn weighted<const N: usize>(&mut self, weights: [u64; N]) -> usize {
        let mut drawn = self.below(weights.iter().sum());
        weights
            .iter()
            .position(|weight| {
                let here = drawn < *weight;
                drawn = drawn.saturating_sub(*weight);
                here
            })
            .unwrap()
    }
}
