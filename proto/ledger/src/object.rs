//! One shared object: its slots, who wrote them when, and what it remembers of removals.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    EdgeLife, Epoch, LogIndex, ObjectKind, Policy, SessionId, SlotName, SlotOp, SlotValue, Version,
};

use crate::effect::{ObjectChange, ObjectSync};
use crate::limits::{BATCH_OPS_MAX, OBJECT_BYTES_MAX, SLOTS_MAX, TOMBSTONES_MAX, VALUE_BYTES_MAX};
use crate::lock::Door;

/// One object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) kind: ObjectKind,
    pub(crate) epoch: Epoch,
    pub(crate) version: Version,
    /// The version it began with. Who has less has it from an earlier incarnation.
    pub(crate) born: Version,
    /// Removals up to this version are not remembered.
    pub(crate) pruned: Version,
    /// The newest removal of everything, which stands for a removal of every name.
    pub(crate) cleared: Option<Stamp>,
    pub(crate) slots: BTreeMap<SlotName, Slot>,
    /// Removed slots. All are newer than [`Object::forgotten`].
    pub(crate) removed: BTreeMap<SlotName, Stamp>,
    /// Bytes of the slots, names and values.
    bytes: usize,
    /// Bytes of the names of removed slots.
    removed_bytes: usize,
    /// Edges that have it open.
    pub(crate) opened: BTreeSet<EdgeLife>,
    pub(crate) door: Door,
}

/// One slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) value: SlotValue,
    pub(crate) stamp: Stamp,
}

/// Who changed something, and in which version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) version: Version,
    pub(crate) by: SessionId,
}

/// A batch that is to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch<'a> {
    pub(crate) session: SessionId,
    pub(crate) index: LogIndex,
    pub(crate) epoch: Epoch,
    pub(crate) base: Version,
    pub(crate) policy: Policy,
    pub(crate) ops: &'a [SlotOp],
    /// Bytes by which all objects together may still grow.
    pub(crate) room: usize,
}

/// What a batch did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// Places of the refused operations, ascending.
    pub(crate) refused: Vec<u16>,
    /// What changed, if anything did.
    pub(crate) change: Option<ObjectChange>,
}

/// What a batch means for one slot, while the batch is being looked at.
struct Staged<'batch, 'object> {
    /// The operation that said the last word about it.
    place: usize,
    value: Option<&'batch SlotValue>,
    /// What the slot was before the batch.
    before: Option<&'object Slot>,
}

impl Object {
    /// An empty object whose versions lie above those of earlier incarnations.
    pub(crate) fn new(kind: ObjectKind, epoch: Epoch, version: Version) -> Self {
        Self {
            kind,
            epoch,
            version,
            born: version,
            pruned: Version(0),
            cleared: None,
            slots: BTreeMap::new(),
            removed: BTreeMap::new(),
            bytes: 0,
            removed_bytes: 0,
            opened: BTreeSet::new(),
            door: Door::default(),
        }
    }

    /// Counts anew what the slots and the removals weigh, after they were read from a
    /// snapshot.
    pub(crate) fn weigh(&mut self) {
        self.bytes = self.slots.iter().map(|(n, s)| weight(n, &s.value)).sum();
        self.removed_bytes = self.removed.keys().map(|n| n.as_str().len()).sum();
    }

    /// Bytes that it holds.
    pub(crate) fn weight(&self) -> usize {
        self.bytes + self.removed_bytes + self.door.bytes()
    }

    /// Writes a batch, or refuses all of it because of a limit, which is named.
    ///
    /// An operation is accepted if the last writer wins, if the session has seen the slot's
    /// newest change, or if that change is its own; a clear always is. A batch that changes something makes
    /// one version. A value that is there already and a removal of what is not there are
    /// accepted and change nothing.
    pub(crate) fn write(&mut self, batch: &Batch<'_>) -> Result<Written, &'static str> {
        if batch.ops.len() > BATCH_OPS_MAX {
            return Err("operations of the batch");
        }
        let mut refused = Vec::new();
        let mut staged: BTreeMap<&SlotName, Staged<'_, '_>> = BTreeMap::new();
        let mut cleared = false;
        let seen = self.seen(batch);
        for (place, op) in batch.ops.iter().enumerate() {
            let (slot, value) = match op {
                SlotOp::Set { value, .. } if value.0.len() > VALUE_BYTES_MAX => {
                    return Err("bytes of the value");
                }
                SlotOp::Set { slot, value } => (slot, Some(value)),
                SlotOp::Remove { slot } => (slot, None),
                // It does not depend on what was seen, and a client that asks for it could not
                // be told of a refusal: there is no slot that the answer could name.
                SlotOp::Clear => {
                    cleared = true;
                    staged.clear();
                    continue;
                }
            };
            if let Some(staged) = staged.get_mut(slot) {
                (staged.place, staged.value) = (place, value);
                continue;
            }
            let before = self.slots.get(slot);
            if cleared || self.accepts_at(batch, seen, slot, before) {
                staged.insert(
                    slot,
                    Staged {
                        place,
                        value,
                        before: before.filter(|_| !cleared),
                    },
                );
            } else {
                refuse(&mut refused, place);
            }
        }
        let cleared = cleared && !self.slots.is_empty();
        staged.retain(|_, staged| staged.value != staged.before.map(|slot| &slot.value));
        if staged.is_empty() && !cleared {
            return Ok(Written {
                refused,
                change: None,
            });
        }
        self.check_room(batch, cleared, &staged)?;
        let mut slots: Vec<_> = staged
            .into_iter()
            .map(|(n, s)| (s.place, n, s.value))
            .collect();
        slots.sort_unstable_by_key(|(place, ..)| *place);
        Ok(Written {
            refused,
            change: Some(self.commit(batch, cleared, &slots)),
        })
    }

    /// The version of this incarnation that the batch's session has seen; 0 if it speaks
    /// of another incarnation, or of a version that does not exist.
    fn seen(&self, batch: &Batch<'_>) -> Version {
        if batch.epoch == self.epoch && batch.base <= self.version {
            batch.base
        } else {
            Version(0)
        }
    }

    fn accepts_at(
        &self,
        batch: &Batch<'_>,
        seen: Version,
        name: &SlotName,
        slot: Option<&Slot>,
    ) -> bool {
        match slot
            .map(|slot| slot.stamp)
            .or_else(|| self.removed.get(name).copied())
        {
            Some(stamp) => accepts(batch, seen, Some(stamp)),
            // Nothing is remembered about the slot itself. Whatever removed it is not newer
            // than the newest removal of everything, or than the newest that was forgotten.
            None => match self.cleared {
                Some(stamp) if stamp.version >= self.pruned => accepts(batch, seen, Some(stamp)),
                Some(_) | None => self.pruned <= seen || accepts(batch, seen, None),
            },
        }
    }

    /// Whether the slots as they would be are within the limits.
    fn check_room(
        &self,
        batch: &Batch<'_>,
        cleared: bool,
        staged: &BTreeMap<&SlotName, Staged<'_, '_>>,
    ) -> Result<(), &'static str> {
        let (mut count, mut bytes) = if cleared {
            (0, 0)
        } else {
            (self.slots.len(), self.bytes)
        };
        for (name, staged) in staged {
            if let Some(before) = staged.before {
                count -= 1;
                bytes -= weight(name, &before.value);
            }
            if let Some(value) = staged.value {
                count += 1;
                bytes += weight(name, value);
            }
        }
        if count > SLOTS_MAX {
            Err("slots of the object")
        } else if bytes > OBJECT_BYTES_MAX {
            Err("bytes of the object")
        } else if bytes > self.bytes && bytes - self.bytes > batch.room {
            Err("bytes of all objects")
        } else {
            Ok(())
        }
    }

    /// Makes a version of what was accepted.
    fn commit(
        &mut self,
        batch: &Batch<'_>,
        cleared: bool,
        slots: &[(usize, &SlotName, Option<&SlotValue>)],
    ) -> ObjectChange {
        let next = self.version.0.checked_add(1);
        let version = Version(next.unwrap_or(1));
        let stamp = Stamp {
            version,
            by: batch.session,
        };
        if cleared {
            self.slots.clear();
            self.removed.clear();
            (self.bytes, self.removed_bytes) = (0, 0);
            self.cleared = Some(stamp);
        }
        for (_, name, value) in slots {
            match value {
                Some(value) => self.put(name, value, stamp),
                None => self.take(name, stamp),
            }
        }
        self.version = version;
        if next.is_none() {
            return self.start_again(batch.index);
        }
        self.prune();
        let slots = slots.iter();
        ObjectChange::Slots {
            version,
            cleared,
            slots: slots
                .map(|(_, name, value)| ((*name).clone(), value.cloned()))
                .collect(),
        }
    }

    fn put(&mut self, name: &SlotName, value: &SlotValue, stamp: Stamp) {
        self.bytes += weight(name, value);
        let value = value.clone();
        if let Some(slot) = self.slots.get_mut(name) {
            self.bytes -= weight(name, &slot.value);
            *slot = Slot { value, stamp };
            return;
        }
        if self.removed.remove(name).is_some() {
            self.removed_bytes -= name.as_str().len();
        }
        self.slots.insert(name.clone(), Slot { value, stamp });
    }

    fn take(&mut self, name: &SlotName, stamp: Stamp) {
        if let Some((name, slot)) = self.slots.remove_entry(name) {
            self.bytes -= weight(&name, &slot.value);
            self.removed_bytes += name.as_str().len();
            self.removed.insert(name, stamp);
        }
    }

    /// The versions are used up: a new incarnation with the same slots begins at 1, and
    /// everybody is told all of it.
    fn start_again(&mut self, index: LogIndex) -> ObjectChange {
        self.epoch = Epoch(index.0.max(self.epoch.0.saturating_add(1)));
        self.born = self.version;
        self.pruned = Version(0);
        self.cleared = None;
        self.removed.clear();
        self.removed_bytes = 0;
        for slot in self.slots.values_mut() {
            slot.stamp.version = self.version;
        }
        let slots = self.slots.iter();
        ObjectChange::Slots {
            version: self.version,
            cleared: true,
            slots: slots
                .map(|(n, s)| (n.clone(), Some(s.value.clone())))
                .collect(),
        }
    }

    /// Forgets the older half of the removals when there are too many.
    fn prune(&mut self) {
        if self.removed.len() <= TOMBSTONES_MAX {
            return;
        }
        let mut versions: Vec<_> = self.removed.values().map(|stamp| stamp.version).collect();
        let middle = versions.len() / 2;
        let (_, newest, _) = versions.select_nth_unstable(middle);
        let newest = *newest;
        self.pruned = newest;
        let bytes = &mut self.removed_bytes;
        self.removed.retain(|name, stamp| {
            let keep = stamp.version > newest;
            if !keep {
                *bytes -= name.as_str().len();
            }
            keep
        });
    }

    /// Who has less than this must be told everything.
    pub(crate) fn forgotten(&self) -> Version {
        let cleared = self.cleared.map_or(Version(0), |stamp| stamp.version);
        self.born.max(self.pruned).max(cleared)
    }

    /// What somebody must be told who has this much.
    pub(crate) fn sync(&self, have: Option<(Epoch, Version)>) -> ObjectSync {
        let forgotten = self.forgotten();
        let known = have.filter(|(epoch, version)| {
            *epoch == self.epoch && (forgotten..=self.version).contains(version)
        });
        let above = known.map_or(Version(0), |(_, version)| version);
        let slots = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.stamp.version > above);
        let removed = self
            .removed
            .iter()
            .filter(|(_, stamp)| stamp.version > above);
        ObjectSync {
            epoch: self.epoch,
            version: self.version,
            kind: self.kind,
            reset: known.is_none(),
            slots: slots
                .map(|(name, slot)| (name.clone(), slot.value.clone(), slot.stamp.version))
                .collect(),
            removed: removed
                .map(|(name, stamp)| (name.clone(), stamp.version))
                .collect(),
            forgotten,
        }
    }
}

/// Whether the batch may change what has this stamp, or what never had one.
fn accepts(batch: &Batch<'_>, seen: Version, stamp: Option<Stamp>) -> bool {
    match batch.policy {
        Policy::LastWriterWins => true,
        Policy::Optimistic => {
            stamp.is_some_and(|stamp| stamp.version <= seen || stamp.by == batch.session)
        }
    }
}

fn refuse(refused: &mut Vec<u16>, place: usize) {
    // A batch has fewer operations than that.
    refused.push(u16::try_from(place).unwrap_or(u16::MAX));
}

const _: () = assert!(BATCH_OPS_MAX <= u16::MAX as usize);

fn weight(name: &SlotName, value: &SlotValue) -> usize {
    name.as_str().len() + value.0.len()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn name(text: &str) -> SlotName {
        SlotName::new(text).unwrap()
    }

    fn set(slot: &str) -> SlotOp {
        SlotOp::Set {
            slot: name(slot),
            value: SlotValue(Bytes::from_static(b"v")),
        }
    }

    fn write(object: &mut Object, index: u64, session: u128, base: u32, ops: &[SlotOp]) -> Written {
        let batch = Batch {
            session: SessionId(session),
            index: LogIndex(index),
            epoch: object.epoch,
            base: Version(base),
            policy: Policy::Optimistic,
            ops,
            room: usize::MAX,
        };
        object.write(&batch).unwrap()
    }

    #[test]
    fn used_up_versions_begin_again_in_a_new_incarnation_that_everybody_is_told() {
        let mut object = Object::new(ObjectKind::Persistent, Epoch(1), Version(u32::MAX - 1));
        write(&mut object, 2, 1, 0, &[set("a")]);
        assert_eq!(object.version, Version(u32::MAX));
        let written = write(&mut object, 3, 1, u32::MAX, &[set("b")]);
        assert_eq!((object.epoch, object.version), (Epoch(3), Version(1)));
        let all = ["a", "b"].map(|slot| (name(slot), Some(SlotValue(Bytes::from_static(b"v")))));
        assert_eq!(
            written.change,
            Some(ObjectChange::Slots {
                version: Version(1),
                cleared: true,
                slots: all.to_vec(),
            })
        );
        assert!(object.sync(Some((Epoch(1), Version(u32::MAX)))).reset);
        assert!(!object.sync(Some((Epoch(3), Version(1)))).reset);
    }

    #[test]
    fn removals_are_forgotten_oldest_first_and_who_missed_them_is_told_everything() {
        let mut object = Object::new(ObjectKind::Temporary, Epoch(1), Version(1));
        for number in 0..=TOMBSTONES_MAX {
            let slot = number.to_string();
            let base = object.version.0;
            write(&mut object, 2, 1, base, &[set(&slot)]);
            let base = object.version.0;
            write(
                &mut object,
                2,
                1,
                base,
                &[SlotOp::Remove { slot: name(&slot) }],
            );
        }
        let floor = object.forgotten();
        assert!(object.removed.len() <= TOMBSTONES_MAX / 2);
        assert!(object.removed.values().all(|stamp| stamp.version > floor));
        assert!(object.sync(Some((Epoch(1), Version(floor.0 - 1)))).reset);
        let sync = object.sync(Some((Epoch(1), floor)));
        assert!(!sync.reset);
        assert_eq!(sync.removed.len(), object.removed.len());
        // Another session that saw less may not bring a forgotten slot back.
        assert_eq!(
            write(&mut object, 3, 2, floor.0 - 1, &[set("0")]).refused,
            [0]
        );
        assert!(
            write(&mut object, 3, 2, floor.0, &[set("0")])
                .refused
                .is_empty()
        );
        let (bytes, removed) = (object.bytes, object.removed_bytes);
        object.weigh();
        assert_eq!((object.bytes, object.removed_bytes), (bytes, removed));
    }

    #[test]
    fn a_batch_that_breaks_a_limit_leaves_no_trace() {
        let mut object = Object::new(ObjectKind::Temporary, Epoch(1), Version(1));
        for part in 0..SLOTS_MAX / BATCH_OPS_MAX {
            let first = part * BATCH_OPS_MAX;
            let names = first..first + BATCH_OPS_MAX;
            let ops: Vec<_> = names.map(|number| set(&number.to_string())).collect();
            write(&mut object, 2, 1, 1, &ops);
        }
        let before = object.clone();
        let ops = [SlotOp::Remove { slot: name("0") }, set("x"), set("y")];
        let mut batch = Batch {
            session: SessionId(1),
            index: LogIndex(3),
            epoch: Epoch(1),
            base: Version(2),
            policy: Policy::LastWriterWins,
            ops: &ops,
            room: usize::MAX,
        };
        assert_eq!(object.write(&batch), Err("slots of the object"));
        assert_eq!(object, before);
        batch.ops = &ops[..2];
        assert!(object.clone().write(&batch).is_ok());
        let large = |len| SlotOp::Set {
            slot: name("0"),
            value: SlotValue(Bytes::from(vec![0; len])),
        };
        let ops = [large(VALUE_BYTES_MAX + 1)];
        batch.ops = &ops;
        assert_eq!(object.write(&batch), Err("bytes of the value"));
        let ops = [large(10)];
        (batch.ops, batch.room) = (&ops, 5);
        assert_eq!(object.write(&batch), Err("bytes of all objects"));
        assert_eq!(object, before);
    }
}
