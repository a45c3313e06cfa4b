//! A remote SharedObject as its client has it.
//!
//! [`RemoteObject`] is a machine beside the session: it makes messages for
//! [`ClientSession::send_object`](super::ClientSession::send_object) and takes in those of
//! [`Event::Object`](super::Event::Object).
//!
//! ```text
//!   use_it ─▶ Use ··· UseSuccess, Clear, Change … ··· Sync[Clear, Change …]
//!   set, remove, clear ─▶ (gathered) ─ flush ─▶ one batch ··· Sync[Success | Reject | Delete …]
//!                                                        └─▶ the next batch, if one was flushed
//!   others' changes ··· Sync[Change | Delete | Clear …]
//!   send ─▶ at once ··· Message
//! ```
//!
//! # What a slot has
//!
//! What the server said last, and above it what we wrote and it has not answered, so a
//! script reads its own writes. A write that is refused falls away, and the winner's value
//! shows.
//!
//! # Stop and wait
//!
//! While one batch is not answered no other is sent; writes gather, and only the last of a
//! slot is kept. An answer to a slot is Success; or a Change or Remove of it, which is a
//! refusal, except that the answer to our Remove is a Remove.
//!
//! Another's Change that crosses our request looks like a refusal, and with the usual policy
//! foretells one: who is first wins. A server that lets the last win accepts the request all
//! the same, and then a Reject is followed by a Success. What was sent is remembered for
//! that, so the slot ends with the value that the server has.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use amf::Value;
use model::{ObjectKind, ObjectName, SlotName};

use super::error::Error;
use super::limits::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX, SLOTS_MAX};
use crate::object::wire::{ObjectMessage, WireEvent};
use crate::object::{decode_value, encode_value, status};

/// What happened to a slot: `code` of a SyncEvent's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncCode {
    /// Every slot is gone. The first contact begins with it, if nothing was known.
    Clear,
    /// Our write is accepted.
    Success,
    /// Our write is refused: another was first, and the object has that one's value.
    Reject,
    /// Another wrote it.
    Change,
    /// It is gone, by us or by another.
    Delete,
}

/// One thing that happened, of a SyncEvent's list.
#[derive(Clone, Debug, PartialEq)]
pub struct Sync {
    /// What.
    pub code: SyncCode,
    /// Which slot; `None` for all.
    pub name: Option<SlotName>,
    /// What the slot had before, as a script saw it: with `Reject`, `Change` and `Delete`.
    pub old_value: Option<Value>,
}

/// What an object has to say.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// To be sent.
    Message(ObjectMessage),
    /// To be acted upon.
    Event(Event),
}

/// What happened to an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Slots changed, or writes were answered: everything of one message. The first is the
    /// word that the object can be used, and may be empty.
    Sync(Vec<Sync>),
    /// Somebody, perhaps we, sent a message to all.
    Message {
        /// The method.
        handler: Arc<str>,
        /// Its arguments.
        args: Vec<Value>,
    },
    /// Something failed. With `SharedObject.Unavailable` and `SharedObject.Undecided` the
    /// same message refuses what could not be written; after the latter it may still come
    /// as a change.
    Status {
        /// `SharedObject.BadPersistence` and the like.
        code: Arc<str>,
        /// `error`.
        level: Arc<str>,
    },
}

/// How far an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    /// Use is sent.
    Asked,
    /// The first sync was there.
    Used,
}

/// What we want of a slot: a value, or that it is gone.
type Wish = Option<Value>;

/// A remote SharedObject, and what is under way to the server about it.
#[derive(Debug)]
pub struct RemoteObject {
    name: ObjectName,
    kind: ObjectKind,
    phase: Phase,
    version: u32,
    /// What the server said.
    slots: BTreeMap<SlotName, Value>,
    /// Sent and not answered.
    pending: BTreeMap<SlotName, Wish>,
    pending_clear: bool,
    /// Sent and refused, as it seems: what a late Success means.
    refused: BTreeMap<SlotName, Wish>,
    /// Written and not sent.
    dirty: BTreeMap<SlotName, Wish>,
    dirty_clear: bool,
    /// A flush waits for the answer to what is pending.
    flush: bool,
    output: VecDeque<Output>,
}

impl RemoteObject {
    /// An object of which nothing is known.
    #[must_use]
    pub const fn new(name: ObjectName, kind: ObjectKind) -> Self {
        Self {
            name,
            kind,
            phase: Phase::Idle,
            version: 0,
            slots: BTreeMap::new(),
            pending: BTreeMap::new(),
            pending_clear: false,
            refused: BTreeMap::new(),
            dirty: BTreeMap::new(),
            dirty_clear: false,
            flush: false,
            output: VecDeque::new(),
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &ObjectName {
        &self.name
    }

    /// The version that the slots are of; 0 when nothing is known.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// Whether the server accepted the Use.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.phase == Phase::Used
    }

    /// Whether a batch is under way.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.pending_clear || !self.pending.is_empty()
    }

    /// Whether something was written that is not sent.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.dirty_clear || !self.dirty.is_empty()
    }

    /// The value of a slot, our own writes included.
    #[must_use]
    pub fn get(&self, slot: &SlotName) -> Option<&Value> {
        if let Some(wish) = self.dirty.get(slot) {
            return wish.as_ref();
        }
        if self.dirty_clear {
            return None;
        }
        if let Some(wish) = self.pending.get(slot) {
            return wish.as_ref();
        }
        if self.pending_clear {
            return None;
        }
        self.slots.get(slot)
    }

    /// Every slot with its value, our own writes included, by name.
    pub fn slots(&self) -> impl Iterator<Item = (&SlotName, &Value)> {
        let names: BTreeSet<&SlotName> = self
            .slots
            .keys()
            .chain(self.pending.keys())
            .chain(self.dirty.keys())
            .collect();
        names
            .into_iter()
            .filter_map(|name| Some((name, self.get(name)?)))
    }

    /// The next message or event.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    /// Subscribes, saying which version we have. Also on a new connection, at this server
    /// or another, after [`Self::lost`].
    pub fn use_it(&mut self) {
        self.phase = Phase::Asked;
        self.emit(vec![WireEvent::Use]);
    }

    /// Unsubscribes. The slots stay as they are; what was not answered never will be.
    pub fn release(&mut self) {
        self.lost();
        self.phase = Phase::Idle;
        self.emit(vec![WireEvent::Release]);
    }

    /// The connection is gone. Whether what was under way was done is not known: it is
    /// written anew, unless it was written over since, and the version that it was based on
    /// lets a server refuse it if another was first.
    pub fn lost(&mut self) {
        self.phase = Phase::Idle;
        self.refused.clear();
        let dirty = std::mem::take(&mut self.dirty);
        let clear = std::mem::take(&mut self.pending_clear);
        if self.dirty_clear {
            self.pending.clear();
        }
        self.dirty_clear |= clear;
        self.dirty = std::mem::take(&mut self.pending);
        self.dirty.extend(dirty);
        self.flush = self.is_dirty();
    }

    /// Gives a slot a value; null and undefined take it away, as in a script.
    ///
    /// # Errors
    /// The value cannot be written, or there are too many slots; nothing is changed.
    pub fn set(&mut self, slot: SlotName, value: Value) -> Result<(), Error> {
        if value.is_nothing() {
            return self.remove(slot);
        }
        encode_value(&value).map_err(Error::Unwritable)?;
        self.wish(slot, Some(value))
    }

    /// Takes a slot away.
    ///
    /// # Errors
    /// There are too many slots; nothing is changed.
    pub fn remove(&mut self, slot: SlotName) -> Result<(), Error> {
        self.wish(slot, None)
    }

    /// Takes every slot away. Only our servers know this request from a client.
    pub fn clear(&mut self) {
        self.dirty.clear();
        self.dirty_clear = true;
    }

    /// Sends what was written since the last time, as one batch (as several, one after the
    /// other, if it is more than a server takes at once); or as soon as the batch
    /// before is answered and the object is used.
    pub fn flush(&mut self) {
        if !self.is_dirty() {
            return;
        }
        if self.phase != Phase::Used || self.is_waiting() {
            self.flush = true;
            return;
        }
        self.flush = false;
        let mut events = Vec::new();
        let mut bytes = 0;
        self.pending_clear = std::mem::take(&mut self.dirty_clear);
        if self.pending_clear {
            events.push(WireEvent::RequestClear);
        }
        while let Some((slot, wish)) = self.dirty.pop_first() {
            // What cannot be written was refused by `set`.
            let value = wish.as_ref().and_then(|value| encode_value(value).ok());
            bytes += slot.as_str().len() + value.as_ref().map_or(0, |value| value.0.len());
            let full = events.len() >= BATCH_EVENTS_MAX || bytes > BATCH_BYTES_MAX;
            if full && !events.is_empty() {
                self.dirty.insert(slot, wish);
                self.flush = true;
                break;
            }
            events.push(match value {
                Some(value) => WireEvent::RequestChange {
                    slot: slot.clone(),
                    value,
                },
                None => WireEvent::RequestRemove { slot: slot.clone() },
            });
            self.pending.insert(slot, wish);
        }
        self.emit(events);
    }

    /// Calls a method of the object at everybody who uses it, ourselves included. Not
    /// gathered and not merged.
    ///
    /// # Errors
    /// An argument cannot be written.
    pub fn send(
        &mut self,
        handler: &str,
        args: impl IntoIterator<Item = Value>,
    ) -> Result<(), Error> {
        let values: Vec<Value> = std::iter::once(handler.into()).chain(args).collect();
        let payload = amf::amf0::write_all(&values).map_err(Error::Unwritable)?;
        self.emit(vec![WireEvent::Send(payload)]);
        Ok(())
    }

    /// Takes in a message of the server. One about another object is ignored.
    ///
    /// # Errors
    /// The server gives it too many slots; those above the limit are left out.
    pub fn handle_update(&mut self, update: &ObjectMessage) -> Result<(), Error> {
        if *update.name != *self.name.as_str() {
            return Ok(());
        }
        let mut list = Vec::new();
        let mut first = false;
        let mut changed = false;
        let mut full = false;
        let mut failed = false;
        for event in &update.events {
            match event {
                WireEvent::UseSuccess => {
                    first |= self.phase != Phase::Used;
                    self.phase = Phase::Used;
                    changed = true;
                }
                WireEvent::Clear => {
                    self.cleared(&mut list);
                    changed = true;
                }
                WireEvent::Change { slot, value } => {
                    let Ok(value) = decode_value(value) else {
                        continue;
                    };
                    full |= !self.changed(slot, value, &mut list);
                    changed = true;
                }
                WireEvent::Success { slot } | WireEvent::ChangeEcho { slot, .. } => {
                    self.succeeded(slot, &mut list);
                    changed = true;
                }
                WireEvent::Remove { slot } => {
                    self.removed(slot, &mut list);
                    changed = true;
                }
                WireEvent::Send(payload) => {
                    self.tell(&mut list);
                    self.message(payload);
                }
                WireEvent::Status { code, .. } if code.as_ref() == status::SENT => {}
                WireEvent::Status { code, level } => {
                    failed = true;
                    self.output.push_back(Output::Event(Event::Status {
                        code: code.clone(),
                        level: level.clone(),
                    }));
                }
                WireEvent::Use
                | WireEvent::Release
                | WireEvent::RequestChange { .. }
                | WireEvent::RequestRemove { .. }
                | WireEvent::RequestClear
                | WireEvent::SlotNumber { .. }
                | WireEvent::Unreadable { .. } => {}
            }
        }
        // Messages and statuses carry any version.
        if changed {
            self.version = update.version;
        }
        // A Clear that is refused has no slot to say so; a status says it.
        if failed {
            self.pending_clear = false;
            if self.phase == Phase::Asked {
                self.phase = Phase::Idle;
            }
        }
        if first && list.is_empty() {
            self.output.push_back(Output::Event(Event::Sync(list)));
        } else {
            self.tell(&mut list);
        }
        if self.flush {
            self.flush();
        }
        if full {
            return Err(Error::LimitExceeded("slots"));
        }
        Ok(())
    }

    fn tell(&mut self, list: &mut Vec<Sync>) {
        if !list.is_empty() {
            let list = std::mem::take(list);
            self.output.push_back(Output::Event(Event::Sync(list)));
        }
    }

    /// Our wishes stay: what is pending is still to be answered.
    fn cleared(&mut self, list: &mut Vec<Sync>) {
        self.slots.clear();
        self.pending_clear = false;
        list.push(Sync {
            code: SyncCode::Clear,
            name: None,
            old_value: None,
        });
    }

    /// False when there is no room for the slot.
    fn changed(&mut self, slot: &SlotName, value: Value, list: &mut Vec<Sync>) -> bool {
        let old_value = self.get(slot).cloned();
        let code = if self.refuse(slot) {
            SyncCode::Reject
        } else {
            SyncCode::Change
        };
        if self.slots.len() >= SLOTS_MAX && !self.slots.contains_key(slot) {
            return false;
        }
        self.slots.insert(slot.clone(), value);
        list.push(Sync {
            code,
            name: Some(slot.clone()),
            old_value,
        });
        true
    }

    fn succeeded(&mut self, slot: &SlotName, list: &mut Vec<Sync>) {
        let wish = self.pending.remove(slot);
        let seeming = self.refused.remove(slot);
        match wish.or(seeming) {
            Some(Some(value)) => {
                self.slots.insert(slot.clone(), value);
            }
            Some(None) => {
                self.slots.remove(slot);
            }
            None => return,
        }
        list.push(Sync {
            code: SyncCode::Success,
            name: Some(slot.clone()),
            old_value: None,
        });
    }

    fn removed(&mut self, slot: &SlotName, list: &mut Vec<Sync>) {
        let old_value = self.get(slot).cloned();
        let ours = self.pending.get(slot).is_some_and(Option::is_none);
        let code = if self.refuse(slot) && !ours {
            SyncCode::Reject
        } else {
            SyncCode::Delete
        };
        let old_value = if code == SyncCode::Delete {
            // Our own removal hid it already.
            old_value.or_else(|| self.slots.get(slot).cloned())
        } else {
            old_value
        };
        self.slots.remove(slot);
        list.push(Sync {
            code,
            name: Some(slot.clone()),
            old_value,
        });
    }

    /// Whether the slot was under way.
    fn refuse(&mut self, slot: &SlotName) -> bool {
        let Some(wish) = self.pending.remove(slot) else {
            return false;
        };
        // So many words that are owed are none.
        if self.refused.len() >= SLOTS_MAX {
            self.refused.clear();
        }
        self.refused.insert(slot.clone(), wish);
        true
    }

    fn message(&mut self, payload: &[u8]) {
        let Ok(values) = amf::amf0::read_all(payload) else {
            return;
        };
        let mut values = values.into_iter();
        if let Some(Value::String(handler)) = values.next() {
            self.output.push_back(Output::Event(Event::Message {
                handler,
                args: values.collect(),
            }));
        }
    }

    fn wish(&mut self, slot: SlotName, wish: Wish) -> Result<(), Error> {
        if self.dirty.len() >= SLOTS_MAX && !self.dirty.contains_key(&slot) {
            return Err(Error::LimitExceeded("slots"));
        }
        self.dirty.insert(slot, wish);
        Ok(())
    }

    fn emit(&mut self, events: Vec<WireEvent>) {
        let mut message = ObjectMessage::new(self.name.as_str(), self.kind, self.version);
        message.events = events;
        self.output.push_back(Output::Message(message));
    }
}
