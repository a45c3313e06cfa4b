//! What a subscriber is told, as the body of a message.

use bytes::Bytes;
use model::object::{ObjectEvent, ObjectUpdate};
use model::{ObjectName, Version};

use super::wire::{self, ObjectMessage, WireEvent, Writer};
use super::{status, value};
use crate::event::ObjectEncoding;

/// The body of a message of type 19 (`Amf0`) or 16 (`Amf3`). It is the same for every
/// subscriber of that encoding, so it is drawn once for all of them.
///
/// For `Amf0`, AMF3 in values and messages is put into AMF0.
#[must_use]
pub fn body(update: &ObjectUpdate, encoding: ObjectEncoding) -> Bytes {
    let flags = wire::flags(update.kind);
    let mut out = Writer::new(encoding, update.name.as_str(), update.version.0, flags);
    let readable = |bytes: &Bytes| match encoding {
        ObjectEncoding::Amf0 => value::plain(bytes),
        ObjectEncoding::Amf3 => bytes.clone(),
    };
    for event in &update.events {
        match event {
            ObjectEvent::UseSuccess => out.empty(11),
            ObjectEvent::Clear => out.empty(8),
            ObjectEvent::Change { slot, value } => out.pair(4, slot, &readable(&value.0)),
            ObjectEvent::Success { slot } => out.slot(5, slot),
            ObjectEvent::Remove { slot } => out.slot(9, slot),
            ObjectEvent::Send(payload) => out.send(&readable(payload)),
            ObjectEvent::Sent { seq } => out.status(status::SENT, &seq.to_string()),
            ObjectEvent::Status(what) => out.status(status::code(*what), status::LEVEL),
        }
    }
    out.finish()
}

/// A server's message as an update. `None` when its name is no name of ours. Events that
/// have no place in an update are left out: those of a client, those between servers, and
/// statuses that we do not send.
#[must_use]
pub fn from_message(message: &ObjectMessage) -> Option<ObjectUpdate> {
    let events = message.events.iter().filter_map(|event| match event {
        WireEvent::UseSuccess => Some(ObjectEvent::UseSuccess),
        WireEvent::Clear => Some(ObjectEvent::Clear),
        WireEvent::Change { slot, value } => Some(ObjectEvent::Change {
            slot: slot.clone(),
            value: value.clone(),
        }),
        WireEvent::Success { slot } | WireEvent::ChangeEcho { slot, .. } => {
            Some(ObjectEvent::Success { slot: slot.clone() })
        }
        WireEvent::Remove { slot } => Some(ObjectEvent::Remove { slot: slot.clone() }),
        WireEvent::Send(payload) => Some(ObjectEvent::Send(payload.clone())),
        WireEvent::Status { code, level } if code.as_ref() == status::SENT => {
            let seq = level.as_ref().parse().ok()?;
            Some(ObjectEvent::Sent { seq })
        }
        WireEvent::Status { code, .. } => status::from_code(code).map(ObjectEvent::Status),
        WireEvent::Use
        | WireEvent::Release
        | WireEvent::RequestChange { .. }
        | WireEvent::RequestRemove { .. }
        | WireEvent::RequestClear
        | WireEvent::SlotNumber { .. }
        | WireEvent::Unreadable { .. } => None,
    });
    Some(ObjectUpdate {
        name: ObjectName::new(&message.name).ok()?,
        kind: message.kind(),
        version: Version(message.version),
        events: events.collect(),
    })
}
