//! What a subscriber is told, as events.

use std::collections::{BTreeMap, BTreeSet};

use model::object::{ObjectEvent, ObjectStatus};
use model::{ObjectKind, SlotName, SlotOp, SlotValue, Version};

use super::object::{Change, Held};

/// A slot is this now.
pub(super) fn change((slot, value): Change) -> ObjectEvent {
    match value {
        Some(value) => ObjectEvent::Change { slot, value },
        None => ObjectEvent::Remove { slot },
    }
}

/// A subscription is accepted, from one who has this version.
pub(super) fn accepted(held: &Held, kind: ObjectKind, version: Version) -> Vec<ObjectEvent> {
    let mut events = vec![ObjectEvent::UseSuccess];
    match held.since(kind, version) {
        Some(changes) => events.extend(changes.into_iter().map(change)),
        None => events.extend(reset(held)),
    }
    events
}

/// Everything anew.
pub(super) fn reset(held: &Held) -> impl Iterator<Item = ObjectEvent> {
    std::iter::once(ObjectEvent::Clear).chain(held.all().map(change))
}

/// A batch was applied, but for the refused places. `held` is how the object stands now,
/// which may be later; `is_writing` tells of slots that a later request of the same
/// subscriber is about, whose answer will tell how they stand.
pub(super) fn written(
    ops: &[SlotOp],
    refused: &[u16],
    held: &Held,
    is_writing: impl Fn(&SlotName) -> bool,
) -> Vec<ObjectEvent> {
    let mut events = Vec::with_capacity(ops.len());
    // What the subscriber believes after these events, of what they are about.
    let mut belief: BTreeMap<&SlotName, Option<&SlotValue>> = BTreeMap::new();
    let mut unsure: BTreeSet<&SlotName> = BTreeSet::new();
    let mut order: Vec<&SlotName> = Vec::new();
    let mut all = false;
    let mut cleared = false;
    for (place, op) in ops.iter().enumerate() {
        let is_refused = refused.iter().any(|at| usize::from(*at) == place);
        match op {
            SlotOp::Set { slot, value } => {
                order.push(slot);
                if is_refused {
                    unsure.insert(slot);
                } else {
                    events.push(ObjectEvent::Success { slot: slot.clone() });
                    belief.insert(slot, Some(value));
                }
            }
            SlotOp::Remove { slot } => {
                order.push(slot);
                if is_refused {
                    unsure.insert(slot);
                } else {
                    events.push(ObjectEvent::Remove { slot: slot.clone() });
                    belief.insert(slot, None);
                }
            }
            SlotOp::Clear if is_refused => all = true,
            SlotOp::Clear => {
                events.push(ObjectEvent::Clear);
                belief.clear();
                cleared = true;
            }
        }
    }
    let mut told = BTreeSet::new();
    for slot in order {
        if !told.insert(slot) {
            continue;
        }
        let now = held.get(slot);
        let believed = belief.get(slot).copied().unwrap_or_default();
        let is_sure = believed == now || is_writing(slot);
        if unsure.contains(slot) || !is_sure {
            events.push(change((slot.clone(), now.cloned())));
        }
    }
    if all || cleared {
        let rest = held.all().filter(|(slot, _)| !told.contains(slot));
        events.extend(rest.map(change));
    }
    events
}

/// A batch is not applied, for this reason if it is not a conflict.
pub(super) fn refused(
    ops: &[SlotOp],
    status: ObjectStatus,
    held: Option<&Held>,
) -> Vec<ObjectEvent> {
    let mut events = vec![ObjectEvent::Status(status)];
    if let Some(held) = held {
        let places: Vec<u16> = (0..ops.len()).filter_map(|at| at.try_into().ok()).collect();
        events.extend(written(ops, &places, held, |_| false));
    }
    events
}
