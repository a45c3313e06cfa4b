//! What a slow subscriber is to be told of one object, kept small.
//!
//! While a subscriber's socket is blocked, updates go in here instead of onto its queue.
//! When it has room, one update comes out that leaves it where all of them would have:
//! of several values of a slot only the last is sent, of what a Clear takes away only
//! that it is gone.
//!
//! Kept whole and in their order are the messages of others ([`ObjectEvent::Send`]), and
//! all that the subscriber may wait for:
//!
//! * `UseSuccess`, `Success`, `Sent` and `Status`, always;
//! * everything that is pushed as an answer ([`Collapse::push_answer`]): a refusal looks
//!   like any other Change or Remove, so only who pushes it knows;
//! * in every case, one word about each slot that was spoken of since the last answer,
//!   and a Remove before a Change. So a player, which waits for the answer to one batch
//!   before it sends another, is answered about each of its slots even by somebody who
//!   pushes everything with [`Collapse::push`].

use std::collections::BTreeMap;

use model::object::{ObjectEvent, ObjectUpdate};
use model::{ObjectKind, ObjectName, SlotName, Version};

use crate::limits::COLLAPSE_BYTES_MAX;

/// How it stands with the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// There is room.
    Fine,
    /// There was none: slots are given up. The subscriber goes on from where it was with
    /// an update that begins with a Clear and has the whole object, so push one. What may
    /// not be given up is still taken, and slots of other updates are left out.
    Resync,
    /// What may not be given up alone is too much: close the connection.
    Overflow,
}

/// Updates of one object for one subscriber, merged.
#[derive(Debug)]
pub struct Collapse {
    capacity: usize,
    bytes: usize,
    head: Option<Head>,
    /// The version of what was taken last: where the subscriber is.
    told: Version,
    /// In order, by a number that only grows.
    events: BTreeMap<u64, Kept>,
    next: u64,
    /// What may be merged: the places of each slot's newest words since the last barrier.
    slots: BTreeMap<SlotName, Places>,
    clear: Option<u64>,
    lost: bool,
}

#[derive(Clone, Debug)]
struct Head {
    name: ObjectName,
    kind: ObjectKind,
    version: Version,
}

#[derive(Debug)]
struct Kept {
    event: ObjectEvent,
    /// Given up when there is no room.
    state: bool,
}

/// A slot has at most a Remove and, behind it, a Change.
#[derive(Clone, Copy, Debug, Default)]
struct Places {
    remove: Option<u64>,
    change: Option<u64>,
}

/// What an event costs beside the bytes it holds: its place in the list and in the index.
const EVENT_BYTES: usize = 128;

impl Default for Collapse {
    fn default() -> Self {
        Self::new(COLLAPSE_BYTES_MAX)
    }
}

impl Collapse {
    /// With room for so many bytes.
    #[must_use]
    pub const fn new(capacity: usize) -> Self {
        Self {
            capacity,
            bytes: 0,
            head: None,
            told: Version(0),
            events: BTreeMap::new(),
            next: 0,
            slots: BTreeMap::new(),
            clear: None,
            lost: false,
        }
    }

    /// Whether there is nothing to take.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Bytes that are held.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether slots were given up and the whole object must be pushed.
    #[must_use]
    pub const fn needs_resync(&self) -> bool {
        self.lost
    }

    /// Takes in what all subscribers are told, or the whole object.
    pub fn push(&mut self, update: ObjectUpdate) -> Pressure {
        self.admit(&update);
        for event in update.events {
            match event {
                ObjectEvent::Change { .. } | ObjectEvent::Remove { .. } if self.lost => {}
                ObjectEvent::Clear => {
                    self.lost = false;
                    self.clear();
                }
                ObjectEvent::Change { ref slot, .. } => {
                    let slot = slot.clone();
                    self.change(slot, event);
                }
                ObjectEvent::Remove { ref slot } => {
                    let slot = slot.clone();
                    self.remove(slot, event);
                }
                // What comes behind the acceptance of a write must stay behind it.
                ObjectEvent::Success { ref slot } => {
                    self.slots.remove(slot);
                    self.keep(event, false);
                }
                ObjectEvent::UseSuccess => {
                    self.barrier();
                    self.keep(event, false);
                }
                ObjectEvent::Send(_) | ObjectEvent::Sent { .. } | ObjectEvent::Status(_) => {
                    self.keep(event, false);
                }
            }
        }
        self.pressure()
    }

    /// Takes in the answer to this subscriber: nothing of it is merged, and nothing is
    /// moved across it.
    pub fn push_answer(&mut self, update: ObjectUpdate) -> Pressure {
        self.admit(&update);
        self.barrier();
        for event in update.events {
            // From a Clear on, everything that there is has been told.
            self.lost &= event != ObjectEvent::Clear;
            self.keep(event, false);
        }
        self.pressure()
    }

    /// Everything as one update, if there is anything.
    pub fn take(&mut self) -> Option<ObjectUpdate> {
        if self.events.is_empty() {
            return None;
        }
        let head = self.head.clone()?;
        self.barrier();
        self.bytes = 0;
        // Who lacks slots may not believe to have the newest.
        let version = if self.lost { self.told } else { head.version };
        self.told = version;
        let events = std::mem::take(&mut self.events);
        Some(ObjectUpdate {
            name: head.name,
            kind: head.kind,
            version,
            events: events.into_values().map(|kept| kept.event).collect(),
        })
    }

    /// Messages and statuses do not change the object, and some carry no version.
    fn admit(&mut self, update: &ObjectUpdate) {
        let changes = update.events.iter().any(|event| match event {
            ObjectEvent::UseSuccess
            | ObjectEvent::Clear
            | ObjectEvent::Change { .. }
            | ObjectEvent::Success { .. }
            | ObjectEvent::Remove { .. } => true,
            ObjectEvent::Send(_) | ObjectEvent::Sent { .. } | ObjectEvent::Status(_) => false,
        });
        let known = self.head.as_ref().map_or(Version(0), |head| head.version);
        self.head = Some(Head {
            name: update.name.clone(),
            kind: update.kind,
            version: if changes {
                update.version
            } else {
                known.max(update.version)
            },
        });
    }

    fn change(&mut self, slot: SlotName, event: ObjectEvent) {
        let mut places = self.slots.get(&slot).copied().unwrap_or_default();
        if let Some(at) = places.change {
            self.replace(at, event);
        } else {
            places.change = Some(self.keep(event, true));
        }
        self.slots.insert(slot, places);
    }

    fn remove(&mut self, slot: SlotName, event: ObjectEvent) {
        let mut places = self.slots.get(&slot).copied().unwrap_or_default();
        match (places.remove, places.change.take()) {
            (Some(_), Some(change)) => self.forget(change),
            (Some(_), None) => {}
            (None, Some(change)) => {
                self.replace(change, event);
                places.remove = Some(change);
            }
            (None, None) => places.remove = Some(self.keep(event, true)),
        }
        self.slots.insert(slot, places);
    }

    /// Of what was said about a slot remains that it is gone, because that may be what the
    /// subscriber waits for.
    fn clear(&mut self) {
        let mut slots = std::mem::take(&mut self.slots);
        for (slot, places) in &mut slots {
            match (places.remove, places.change.take()) {
                (Some(_), Some(change)) => self.forget(change),
                (None, Some(change)) => {
                    self.replace(change, ObjectEvent::Remove { slot: slot.clone() });
                    places.remove = Some(change);
                }
                (Some(_) | None, None) => {}
            }
        }
        self.slots = slots;
        if let Some(before) = self.clear.take() {
            self.forget(before);
        }
        self.clear = Some(self.keep(ObjectEvent::Clear, true));
    }

    fn barrier(&mut self) {
        self.slots.clear();
        self.clear = None;
    }

    fn keep(&mut self, event: ObjectEvent, state: bool) -> u64 {
        let at = self.next;
        self.next += 1;
        self.bytes += cost(&event);
        self.events.insert(at, Kept { event, state });
        at
    }

    fn replace(&mut self, at: u64, event: ObjectEvent) {
        if let Some(kept) = self.events.get_mut(&at) {
            self.bytes = self.bytes + cost(&event) - cost(&kept.event);
            kept.event = event;
        }
    }

    fn forget(&mut self, at: u64) {
        if let Some(kept) = self.events.remove(&at) {
            self.bytes -= cost(&kept.event);
        }
    }

    fn pressure(&mut self) -> Pressure {
        if self.bytes > self.capacity {
            self.lost = true;
            self.barrier();
            self.events.retain(|_, kept| !kept.state);
            self.bytes = self.events.values().map(|kept| cost(&kept.event)).sum();
        }
        if self.bytes > self.capacity {
            Pressure::Overflow
        } else if self.lost {
            Pressure::Resync
        } else {
            Pressure::Fine
        }
    }
}

fn cost(event: &ObjectEvent) -> usize {
    EVENT_BYTES
        + match event {
            ObjectEvent::Change { slot, value } => slot.as_str().len() + value.0.len(),
            ObjectEvent::Success { slot } | ObjectEvent::Remove { slot } => slot.as_str().len(),
            ObjectEvent::Send(payload) => payload.len(),
            ObjectEvent::UseSuccess
            | ObjectEvent::Clear
            | ObjectEvent::Sent { .. }
            | ObjectEvent::Status(_) => 0,
        }
}
