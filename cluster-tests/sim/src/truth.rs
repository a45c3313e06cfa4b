//! What really happened, as the origins applied it; and what clients were told, held
//! against it.
//!
//! Every written value and every message is unique in a run, so that it can be traced.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use ledger::effect::{ObjectChange, ObjectSync, StreamState};
use ledger::{Applied, Effect};
use model::{Epoch, LogIndex, ObjectKey, SessionId, SlotName, SlotValue, StreamKey, Version};

use super::locks::Locks;

/// The slots of an object.
pub(super) type Slots = BTreeMap<SlotName, SlotValue>;

/// What was applied, by all origins together.
#[derive(Debug, Default)]
pub(super) struct Truth {
    /// By place in the log: a fingerprint of what the entry did.
    entries: BTreeMap<LogIndex, Applied>,
    /// The newest entry that is folded into `objects`.
    folded: LogIndex,
    /// Versions are not used again, not even by a later life of the object.
    objects: BTreeMap<ObjectKey, BTreeMap<Version, Moment>>,
    streams: BTreeMap<StreamKey, StreamState>,
    /// Where each value was written.
    written: BTreeMap<SlotValue, (ObjectKey, Version)>,
    /// How many messages each object has had.
    sent: BTreeMap<ObjectKey, usize>,
    /// The place of each message among those of its object.
    places: BTreeMap<Bytes, (ObjectKey, usize)>,
    /// The newest version of each object of which a client was told that it wrote it.
    acknowledged: BTreeMap<ObjectKey, Version>,
    locks: Locks,
}

/// What an object was at one version.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Moment {
    epoch: Epoch,
    slots: Slots,
}

impl Truth {
    /// An origin applied an entry. Whether it is the first to do so.
    ///
    /// # Errors
    /// Another origin applied something else there, or the entry cannot follow what was.
    pub(super) fn handle_applied(
        &mut self,
        who: impl std::fmt::Display,
        applied: &Applied,
        now: Duration,
    ) -> Result<bool, String> {
        if let Some(before) = self.entries.get(&applied.index) {
            if before != applied {
                return Err(format!(
                    "{who} applied entry {} with other effects:\n  {applied:?}\nthan another did:\n  {before:?}",
                    applied.index
                ));
            }
            return Ok(false);
        }
        if applied.index <= self.folded {
            return Err(format!(
                "{who} applied entry {}, where others had none with effects, behind {}",
                applied.index, self.folded
            ));
        }
        self.folded = applied.index;
        self.entries.insert(applied.index, applied.clone());
        let located = |error| format!("{who}, entry {}: {error}", applied.index);
        for effect in &applied.effects {
            self.fold(effect).map_err(located)?;
        }
        self.locks.handle_applied(applied, now).map_err(located)?;
        Ok(true)
    }

    fn fold(&mut self, effect: &Effect) -> Result<(), String> {
        match effect {
            Effect::Object {
                key, epoch, change, ..
            } => match change {
                ObjectChange::Slots {
                    version,
                    cleared,
                    slots,
                } => {
                    let past = self.objects.entry(key.clone()).or_default();
                    let last = past.last_key_value();
                    if last.is_some_and(|(last, _)| last >= version) {
                        return Err(format!(
                            "{key} changes to version {version} behind {last:?}"
                        ));
                    }
                    let mut now = match last {
                        Some((_, before)) if before.epoch == *epoch && !cleared => {
                            before.slots.clone()
                        }
                        // All was taken away, or nothing was there.
                        _ => Slots::new(),
                    };
                    for (slot, value) in slots {
                        match value {
                            Some(value) => now.insert(slot.clone(), value.clone()),
                            None => now.remove(slot),
                        };
                    }
                    past.insert(
                        *version,
                        Moment {
                            epoch: *epoch,
                            slots: now,
                        },
                    );
                    for (_, value) in slots {
                        let Some(value) = value else { continue };
                        let written = (key.clone(), *version);
                        if let Some(before) = self.written.insert(value.clone(), written) {
                            return Err(format!(
                                "{value:?} was written to {key} at version {version}, and before to {before:?}"
                            ));
                        }
                    }
                }
                ObjectChange::Send { payload } => {
                    let sent = self.sent.entry(key.clone()).or_default();
                    let place = (key.clone(), *sent);
                    if self.places.insert(payload.clone(), place).is_some() {
                        return Err(format!("a message of {key} was sent twice: {payload:?}"));
                    }
                    *sent += 1;
                }
            },
            Effect::Stream { key, state } => {
                let before = self.streams.entry(key.clone()).or_default();
                if state.epoch < before.epoch {
                    return Err(format!(
                        "{key} goes from publish {} to {}",
                        before.epoch, state.epoch
                    ));
                }
                if state.epoch == before.epoch
                    && before.holder != state.holder
                    && state.holder.is_some()
                {
                    return Err(format!(
                        "publish {} of {key} is held by {:?} and by {:?}",
                        state.epoch, before.holder, state.holder
                    ));
                }
                let origin = state.origin.as_ref().filter(|_| state.holder.is_none());
                if let Some(origin) = origin {
                    return Err(format!(
                        "{key} has media at {origin}, and nobody publishes it"
                    ));
                }
                *before = state.clone();
            }
            Effect::Answer { .. }
            | Effect::Challenge { .. }
            | Effect::Claim { .. }
            | Effect::EdgeLost { .. }
            | Effect::Locked { .. }
            | Effect::Unlocked { .. }
            | Effect::Home { .. } => {}
        }
        Ok(())
    }

    /// An origin's state of an object right behind an entry.
    ///
    /// # Errors
    /// Another origin has other slots at the same version.
    pub(super) fn handle_state(
        &mut self,
        who: impl std::fmt::Display,
        key: &ObjectKey,
        sync: &ObjectSync,
    ) -> Result<(), String> {
        let moment = Moment {
            epoch: sync.epoch,
            slots: sync
                .slots
                .iter()
                .map(|(slot, value, _)| (slot.clone(), value.clone()))
                .collect(),
        };
        let past = self.objects.entry(key.clone()).or_default();
        let known = past.entry(sync.version).or_insert_with(|| moment.clone());
        if *known != moment {
            return Err(format!(
                "{who} has {key} at version {} as {moment:?}, another had {known:?}",
                sync.version
            ));
        }
        Ok(())
    }

    /// What the object was at this version, in whichever life: versions are not used again.
    #[must_use]
    pub(super) fn at(&self, key: &ObjectKey, version: Version) -> Option<&Slots> {
        Some(&self.objects.get(key)?.get(&version)?.slots)
    }

    /// Where a value was written, if it was.
    #[must_use]
    pub(super) fn written(&self, value: &SlotValue) -> Option<&(ObjectKey, Version)> {
        self.written.get(value)
    }

    /// The place of a message among those of its object.
    #[must_use]
    pub(super) fn place_of(&self, key: &ObjectKey, payload: &Bytes) -> Option<usize> {
        let (object, place) = self.places.get(payload)?;
        (object == key).then_some(*place)
    }

    /// A client is told that it wrote this.
    pub(super) fn acknowledge(&mut self, value: &SlotValue) {
        if let Some((key, version)) = self.written.get(value) {
            let newest = self.acknowledged.entry(key.clone()).or_default();
            *newest = (*newest).max(*version);
        }
    }

    /// A client is told that a value is written, which it asked for when it had seen this
    /// version. Where nobody may overwrite what he has not seen, it has not.
    ///
    /// # Errors
    /// It has overwritten what another wrote meanwhile.
    pub(super) fn check_seen(
        &self,
        name: &str,
        slot: &SlotName,
        value: &SlotValue,
        seen: Version,
    ) -> Result<(), String> {
        let Some((key, version)) = self.written.get(value) else {
            return Ok(());
        };
        let Some(past) = self.objects.get(key) else {
            return Ok(());
        };
        // A temporary object that died began anew without slots, which nothing here tells of.
        let life = past.get(version).map(|moment| moment.epoch);
        let was = past.range(..version).next_back();
        let was = was.filter(|(_, moment)| Some(moment.epoch) == life);
        let Some(overwritten) = was.and_then(|(_, moment)| moment.slots.get(slot)) else {
            return Ok(());
        };
        let known = past.get(&seen).and_then(|moment| moment.slots.get(slot));
        // The name stands behind the head of the string.
        let own = overwritten.0.get(3..).unwrap_or_default();
        if known != Some(overwritten) && !own.starts_with(format!("{name}.").as_bytes()) {
            return Err(format!(
                "{name} wrote {value:?} to {slot} of {key} at version {version}, over {overwritten:?}, \
                 when it had seen version {seen}"
            ));
        }
        Ok(())
    }

    /// The newest version of which a client was told that it wrote it: nobody who asks from
    /// now on may be shown less.
    #[must_use]
    pub(super) fn acknowledged(&self, key: &ObjectKey) -> Version {
        self.acknowledged.get(key).copied().unwrap_or_default()
    }

    /// A client is told that it has a lock.
    ///
    /// # Errors
    /// There is no such lock, or it is another session's.
    pub(super) fn lock_told(
        &mut self,
        key: &ObjectKey,
        token: u64,
        session: Option<SessionId>,
        name: &str,
    ) -> Result<(), String> {
        self.locks.told(key, token, session, name)
    }

    /// What the object was at its greatest version.
    #[must_use]
    pub(super) fn newest(&self, key: &ObjectKey) -> Option<(Version, &Slots)> {
        let (version, moment) = self.objects.get(key)?.last_key_value()?;
        Some((*version, &moment.slots))
    }

    /// Entries with effects.
    #[must_use]
    pub(super) fn entries(&self) -> usize {
        self.entries.len()
    }
}
