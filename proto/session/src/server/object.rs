//! The server role's half of shared objects.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use model::object::{ObjectAsk, ObjectEvent, ObjectStatus, ObjectUpdate};
use model::{ObjectName, SlotName, SlotOp, Version};
use rtmp::{Message, MessageKind, StreamId};

use super::{Phase, ServerSession};
use crate::error::{Error, Limit, Misbehaviour};
use crate::event::{Event, ObjectEncoding};
use crate::limits::OBJECTS_PER_CLIENT_MAX;
use crate::object::access::Prefixes;
use crate::object::ask::Asks;
use crate::object::wire::{self, Bounds, ObjectMessage, WireEvent};
use crate::object::{ObjectAccess, ObjectRequest, body, status};

/// What a session knows of its client's objects.
#[derive(Debug)]
pub(super) struct Objects {
    /// How the client speaks of objects, and is spoken to.
    encoding: ObjectEncoding,
    read: Prefixes,
    write: Prefixes,
    used: BTreeMap<ObjectName, Use>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Asked,
    Accepted,
}

impl Default for Objects {
    fn default() -> Self {
        Self {
            encoding: ObjectEncoding::Amf0,
            read: Prefixes::everything(),
            write: Prefixes::everything(),
            used: BTreeMap::new(),
        }
    }
}

impl ServerSession {
    /// Which objects the client may use and which it may change: names and folders, as
    /// `Client.readAccess` and `Client.writeAccess` of the server's scripts have them.
    /// `/` is everything, which is also the default; nothing, or the empty text, is
    /// nothing.
    pub fn set_object_access(&mut self, read: Vec<String>, write: Vec<String>) {
        self.objects.read = Prefixes::new(read);
        self.objects.write = Prefixes::new(write);
    }

    /// The encoding that the client is told about objects in: of the bodies for
    /// [`Self::handle_object_body`]. It can change from `Amf0` to `Amf3` with a message of
    /// the client.
    #[must_use]
    pub const fn object_encoding(&self) -> ObjectEncoding {
        self.objects.encoding
    }

    /// How many objects the client uses, or has asked to use.
    #[must_use]
    pub fn objects_used(&self) -> usize {
        self.objects.used.len()
    }

    /// Tells the client about an object.
    pub fn handle_object(&mut self, update: &ObjectUpdate, now: Instant) {
        if !self.is_connected() {
            return;
        }
        self.objects.note(update);
        let encoding = self.objects.encoding;
        self.handle_object_body(body(update, encoding), encoding, now);
    }

    /// Tells the client about an object, in a body that [`body`] drew in this encoding,
    /// once for all subscribers that have it. It is for what all are told; answers to this
    /// client go through [`Self::handle_object`].
    pub fn handle_object_body(&mut self, body: Bytes, encoding: ObjectEncoding, _now: Instant) {
        if !self.is_connected() {
            return;
        }
        let kind = match encoding {
            ObjectEncoding::Amf0 => MessageKind::SharedObjectAmf0,
            ObjectEncoding::Amf3 => MessageKind::SharedObjectAmf3,
        };
        self.out.message(Message {
            kind,
            stream: StreamId::CONNECTION,
            time: 0,
            payload: body,
        });
    }

    /// A message of type 19 or 16. False when it was of no use.
    pub(super) fn take_object(&mut self, message: &Message, now: Instant) -> Result<bool, Error> {
        if let Phase::Connected(connection) = &mut self.phase {
            connection.ping.heard(now);
        }
        let encoding = if message.kind == MessageKind::SharedObjectAmf3 {
            ObjectEncoding::Amf3
        } else {
            ObjectEncoding::Amf0
        };
        let read =
            ObjectMessage::decode(&message.payload, encoding, Bounds::ASKS).map_err(blame)?;
        if encoding == ObjectEncoding::Amf3 && self.out.encoding == ObjectEncoding::Amf3 {
            self.objects.encoding = ObjectEncoding::Amf3;
        }
        let Ok(name) = ObjectName::new(&read.name) else {
            return Ok(self.refuse_name(&read, now));
        };
        let (kind, version) = (read.kind(), Version(read.version));
        let access = self.objects.access(&name);
        let Asks {
            mut asks,
            unreadable,
        } = Asks::of(read);
        if asks.is_empty() && unreadable.is_empty() {
            return Ok(false);
        }
        let asked = asks.len();
        asks.retain(|ask| self.objects.take(&name, ask));
        if asks.len() < asked {
            let refused = ObjectUpdate {
                name: name.clone(),
                kind,
                version: Version(0),
                events: vec![ObjectEvent::Status(ObjectStatus::CreationFailed)],
            };
            let encoding = self.objects.encoding;
            self.handle_object_body(body(&refused, encoding), encoding, now);
        }
        let mut ask = |asks: Vec<ObjectAsk>, access| {
            if !asks.is_empty() {
                self.out.event(Event::Object(Box::new(ObjectRequest {
                    name: name.clone(),
                    kind,
                    version,
                    access,
                    asks,
                })));
            }
        };
        ask(asks, access);
        let denied = ObjectAccess {
            write: false,
            ..access
        };
        ask(refusable(unreadable), denied);
        Ok(true)
    }

    /// What is asked of an object whose name is none. It is not there, so its slots are
    /// not; saying so answers what the client waits for.
    fn refuse_name(&mut self, asked: &ObjectMessage, now: Instant) -> bool {
        let mut answer = ObjectMessage::new(&asked.name, asked.kind(), 0);
        for event in &asked.events {
            match event {
                WireEvent::RequestChange { slot, .. }
                | WireEvent::RequestRemove { slot }
                | WireEvent::Unreadable { event: 3, slot } => {
                    answer.events.push(WireEvent::Remove { slot: slot.clone() });
                }
                WireEvent::RequestClear => answer.events.push(WireEvent::Clear),
                WireEvent::Use
                | WireEvent::Release
                | WireEvent::Change { .. }
                | WireEvent::Success { .. }
                | WireEvent::Send(_)
                | WireEvent::Status { .. }
                | WireEvent::Clear
                | WireEvent::Remove { .. }
                | WireEvent::UseSuccess
                | WireEvent::SlotNumber { .. }
                | WireEvent::ChangeEcho { .. }
                | WireEvent::Unreadable { .. } => {}
            }
        }
        answer.events.push(WireEvent::Status {
            code: status::code(ObjectStatus::CreationFailed).into(),
            level: status::LEVEL.into(),
        });
        let encoding = self.objects.encoding;
        self.handle_object_body(answer.encode(encoding), encoding, now);
        false
    }
}

impl Objects {
    fn access(&self, name: &ObjectName) -> ObjectAccess {
        ObjectAccess {
            read: self.read.allow(name.as_str()),
            write: self.write.allow(name.as_str()),
        }
    }

    /// Keeps account of what is used. False when there is no room for one more.
    fn take(&mut self, name: &ObjectName, ask: &ObjectAsk) -> bool {
        match ask {
            ObjectAsk::Use => {
                let known = self.used.contains_key(name);
                if !known && self.used.len() >= OBJECTS_PER_CLIENT_MAX {
                    return false;
                }
                self.used.entry(name.clone()).or_insert(Use::Asked);
            }
            ObjectAsk::Release => {
                self.used.remove(name);
            }
            ObjectAsk::Write(_) | ObjectAsk::Send(_) => {}
        }
        true
    }

    /// A use that fails is none. What fails once it is accepted is something else.
    fn note(&mut self, update: &ObjectUpdate) {
        for event in &update.events {
            match event {
                ObjectEvent::UseSuccess => {
                    if let Some(used) = self.used.get_mut(&update.name) {
                        *used = Use::Accepted;
                    }
                }
                ObjectEvent::Status(
                    ObjectStatus::BadPersistence
                    | ObjectStatus::NoReadAccess
                    | ObjectStatus::CreationFailed,
                ) => {
                    if self.used.get(&update.name) == Some(&Use::Asked) {
                        self.used.remove(&update.name);
                    }
                }
                ObjectEvent::Status(
                    ObjectStatus::NoWriteAccess
                    | ObjectStatus::Unavailable
                    | ObjectStatus::Undecided,
                )
                | ObjectEvent::Clear
                | ObjectEvent::Change { .. }
                | ObjectEvent::Success { .. }
                | ObjectEvent::Remove { .. }
                | ObjectEvent::Send(_)
                | ObjectEvent::Sent { .. } => {}
            }
        }
    }
}

/// A batch about these slots that is to be refused: the steps only name them.
fn refusable(slots: Vec<SlotName>) -> Vec<ObjectAsk> {
    if slots.is_empty() {
        return Vec::new();
    }
    let steps = slots.into_iter().map(|slot| SlotOp::Remove { slot });
    vec![ObjectAsk::Write(steps.collect())]
}

fn blame(cause: wire::Error) -> Error {
    match cause {
        wire::Error::TooLong { len } => Error::LimitExceeded(Limit::ObjectBytes { len }),
        wire::Error::TooManyEvents => Error::LimitExceeded(Limit::ObjectEvents),
        wire::Error::Truncated
        | wire::Error::Format(_)
        | wire::Error::NameTooLong { .. }
        | wire::Error::SlotTooLong { .. }
        | wire::Error::NoSuchName => Error::PeerMisbehaved(Misbehaviour::MalformedObject { cause }),
    }
}
