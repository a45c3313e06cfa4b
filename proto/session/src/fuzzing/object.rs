//! What must hold for any body of a shared-object message.

use bytes::Bytes;
use model::object::ObjectUpdate;
use model::{ObjectKind, ObjectName, SlotName, SlotValue, Version};
use rtmp::{Message, MessageKind, StreamId};

use super::input::Input;
use crate::event::ObjectEncoding;
use crate::object::ask::Asks;
use crate::object::{
    Bounds, Collapse, ObjectMessage, WireEvent, body, decode_value, encode_value, from_message,
};

/// Reads the bytes as a body: the first byte says in which encoding.
pub fn object(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else {
        return;
    };
    let encoding = if first & 1 == 0 {
        ObjectEncoding::Amf0
    } else {
        ObjectEncoding::Amf3
    };
    let rest = Bytes::copy_from_slice(rest);
    let Ok(message) = ObjectMessage::decode(&rest, encoding, Bounds::ASKS) else {
        return;
    };
    assert!(message.events.len() <= Bounds::ASKS.events, "many events");
    for event in &message.events {
        if let WireEvent::RequestChange { value, .. }
        | WireEvent::Change { value, .. }
        | WireEvent::ChangeEcho { value, .. } = event
        {
            check_value(value);
        }
    }
    check_round_trip(&message);
    if let Some(update) = from_message(&message) {
        check_update(&update);
    }
    let asked = message.events.len();
    let asks = Asks::of(message);
    assert!(
        asks.asks.len() + asks.unreadable.len() <= asked,
        "more is asked than was said"
    );
}

/// A value is whole, and it is itself wherever it stands.
fn check_value(value: &SlotValue) {
    let mut followed = value.0.to_vec();
    followed.push(0x05);
    let len = amf::amf0::read_prefix(&followed).map(|(_, len)| len);
    assert_eq!(len, Ok(value.0.len()), "{value:?} ends elsewhere");
    assert!(decode_value(value).is_ok(), "unreadable: {value:?}");
}

fn check_round_trip(message: &ObjectMessage) {
    let readable = message
        .events
        .iter()
        .filter(|event| !matches!(event, WireEvent::Unreadable { .. }))
        .cloned();
    let mut expected = ObjectMessage {
        events: readable.collect(),
        ..message.clone()
    };
    for encoding in [ObjectEncoding::Amf0, ObjectEncoding::Amf3] {
        let bytes = expected.encode(encoding);
        let bounds = Bounds {
            bytes: usize::MAX,
            ..Bounds::ASKS
        };
        let read = ObjectMessage::decode(&bytes, encoding, bounds);
        let mut read = read.unwrap_or_else(|error| unreachable!("{error}: {expected:?}"));
        // Statuses are cut.
        for events in [&mut read.events, &mut expected.events] {
            events.retain(|event| !matches!(event, WireEvent::Status { .. }));
        }
        assert_eq!(read, expected);
    }
}

fn check_update(update: &ObjectUpdate) {
    for encoding in [ObjectEncoding::Amf0, ObjectEncoding::Amf3] {
        let bytes = body(update, encoding);
        let bounds = Bounds {
            bytes: usize::MAX,
            ..Bounds::UPDATES
        };
        let read = ObjectMessage::decode(&bytes, encoding, bounds);
        let read = read.unwrap_or_else(|error| unreachable!("{error}: {update:?}"));
        assert_eq!(read.events.len(), update.events.len(), "{update:?}");
    }
    let mut collapse = Collapse::default();
    collapse.push(update.clone());
    collapse.push_answer(update.clone());
    collapse.push(update.clone());
    let told = collapse.take().map_or(0, |told| told.events.len());
    assert!(told <= 3 * update.events.len(), "more is told than was");
    assert_eq!(collapse.bytes(), 0);
}

const NAMES: [&str; 8] = ["a", "b", "c", "chat", "", "a/b", "é", "a//b"];

impl Input<'_> {
    /// A client's message, or one that only a server sends.
    pub(super) fn object(&mut self) -> Message {
        let shape = self.byte().unwrap_or(0);
        let message = self.object_message();
        let (kind, encoding) = if shape & 1 == 0 {
            (MessageKind::SharedObjectAmf0, ObjectEncoding::Amf0)
        } else {
            (MessageKind::SharedObjectAmf3, ObjectEncoding::Amf3)
        };
        Message {
            kind,
            stream: StreamId::CONNECTION,
            time: 0,
            payload: message.encode(encoding),
        }
    }

    pub(super) fn object_update(&mut self) -> ObjectUpdate {
        let message = self.object_message();
        from_message(&message).unwrap_or_else(|| ObjectUpdate {
            name: ObjectName::new("chat").unwrap_or_else(|error| unreachable!("{error}")),
            kind: message.kind(),
            version: Version(message.version),
            events: Vec::new(),
        })
    }

    fn object_message(&mut self) -> ObjectMessage {
        let shape = self.byte().unwrap_or(0);
        let kind = if shape & 1 == 0 {
            ObjectKind::Temporary
        } else {
            ObjectKind::Persistent
        };
        let name = self.of(&NAMES).unwrap_or_default();
        let mut message = ObjectMessage::new(name, kind, u32::from(shape >> 5));
        for _ in 0..1 + (shape >> 1 & 7) {
            message.events.push(self.object_event());
        }
        message
    }

    fn object_event(&mut self) -> WireEvent {
        let slot = |input: &mut Self| {
            let name = input.of(&NAMES).unwrap_or_default();
            SlotName::new(name).unwrap_or_else(|error| unreachable!("{error}"))
        };
        let value = |input: &mut Self| {
            let value = input.value(2);
            encode_value(&value).unwrap_or_else(|_| SlotValue(Bytes::from_static(&[5])))
        };
        match self.below(14) {
            0 | 1 => WireEvent::Use,
            2 => WireEvent::Release,
            3 | 4 => WireEvent::RequestChange {
                slot: slot(self),
                value: value(self),
            },
            5 => WireEvent::RequestRemove { slot: slot(self) },
            6 => WireEvent::Send(value(self).0),
            7 => WireEvent::RequestClear,
            8 => WireEvent::Change {
                slot: slot(self),
                value: value(self),
            },
            9 => WireEvent::Success { slot: slot(self) },
            10 => WireEvent::Clear,
            11 => WireEvent::Remove { slot: slot(self) },
            12 => WireEvent::UseSuccess,
            _ => WireEvent::Status {
                code: "SharedObject.NoReadAccess".into(),
                level: "error".into(),
            },
        }
    }
}
