//! Shared-object messages as text: `chat v7 change count 5 | success who`. A persistent
//! object has `chat! v7`.

use bytes::Bytes;
use model::object::{ObjectAsk, ObjectEvent, ObjectUpdate};
use model::{ObjectKind, ObjectName, SlotName, SlotOp, SlotValue, Version};
use selvage_session::object::{
    Bounds, ObjectMessage, ObjectRequest, WireEvent, decode_value, encode_value, status,
};
use selvage_session::{ObjectEncoding, object};

use crate::amf_text::{hex, read_all, show, unhex};

/// Reads a message of either side.
pub(crate) fn read(text: &str) -> ObjectMessage {
    let (name, rest) = text.split_once(" v").unwrap();
    let (version, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let (name, kind) = match name.strip_suffix('!') {
        Some(name) => (name, ObjectKind::Persistent),
        None => (name, ObjectKind::Temporary),
    };
    let mut message = ObjectMessage::new(name, kind, version.parse().unwrap());
    let events = rest.split(" | ").filter(|event| !event.is_empty());
    message.events = events.map(read_event).collect();
    message
}

/// Reads what a subscriber is to be told.
pub(crate) fn read_update(text: &str) -> ObjectUpdate {
    object::from_message(&read(text)).unwrap()
}

fn read_event(text: &str) -> WireEvent {
    let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
    let slot = || SlotName::new(rest).unwrap();
    let pair = || {
        let (slot, value) = rest.split_once(' ').unwrap();
        (SlotName::new(slot).unwrap(), read_value(value))
    };
    match verb {
        "use" => WireEvent::Use,
        "release" => WireEvent::Release,
        "set" => {
            let (slot, value) = pair();
            WireEvent::RequestChange { slot, value }
        }
        "change" => {
            let (slot, value) = pair();
            WireEvent::Change { slot, value }
        }
        "success" => WireEvent::Success { slot: slot() },
        "send" => WireEvent::Send(amf::amf0::write_all(&read_all(rest)).unwrap()),
        "status" => WireEvent::Status {
            code: format!("SharedObject.{rest}").as_str().into(),
            level: "error".into(),
        },
        "clear" => WireEvent::Clear,
        "removed" => WireEvent::Remove { slot: slot() },
        "remove" => WireEvent::RequestRemove { slot: slot() },
        "used" => WireEvent::UseSuccess,
        "wipe" => WireEvent::RequestClear,
        other => panic!("{other} is no event"),
    }
}

/// A value as AMF text, or its bytes as `hex(1104)`.
fn read_value(text: &str) -> SlotValue {
    if let Some(digits) = text.strip_prefix("hex(") {
        return SlotValue(unhex(digits.trim_end_matches(')')).into());
    }
    encode_value(&read_all(text)[0]).unwrap()
}

/// Writes the body of a server's message.
pub(crate) fn show_body(body: &Bytes, encoding: ObjectEncoding) -> String {
    show_message(&ObjectMessage::decode(body, encoding, Bounds::UPDATES).unwrap())
}

pub(crate) fn show_message(message: &ObjectMessage) -> String {
    let events: Vec<String> = message.events.iter().map(show_event).collect();
    let kind = show_kind(message.kind());
    format!(
        "{}{kind} v{} {}",
        message.name,
        message.version,
        events.join(" | ")
    )
}

const fn show_kind(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Temporary => "",
        ObjectKind::Persistent => "!",
    }
}

fn show_event(event: &WireEvent) -> String {
    match event {
        WireEvent::Use => "use".into(),
        WireEvent::Release => "release".into(),
        WireEvent::RequestChange { slot, value } => format!("set {slot} {}", show_value(value)),
        WireEvent::Change { slot, value } => format!("change {slot} {}", show_value(value)),
        WireEvent::Success { slot } => format!("success {slot}"),
        WireEvent::Send(payload) => format!("send {}", show_values(payload)),
        WireEvent::Status { code, level } => format!("status {code} {level}"),
        WireEvent::Clear => "clear".into(),
        WireEvent::Remove { slot } => format!("removed {slot}"),
        WireEvent::RequestRemove { slot } => format!("remove {slot}"),
        WireEvent::UseSuccess => "used".into(),
        WireEvent::RequestClear => "wipe".into(),
        other => format!("{other:?}"),
    }
}

/// A value, with the marker that says in which format it stands.
fn show_value(value: &SlotValue) -> String {
    let text = show(&decode_value(value).unwrap());
    if value.0[0] == 0x11 {
        format!("amf3:{text}")
    } else {
        text
    }
}

fn show_values(payload: &Bytes) -> String {
    amf::amf0::read_all(payload).map_or_else(
        |_| format!("unreadable({})", hex(payload)),
        |values| values.iter().map(show).collect::<Vec<_>>().join(" "),
    )
}

/// Writes what a client asks.
pub(crate) fn show_request(request: &ObjectRequest) -> String {
    let mut line = format!(
        "Object {}{} v{}",
        request.name,
        show_kind(request.kind),
        request.version
    );
    if !request.access.read {
        line.push_str(" (may not read)");
    }
    if !request.access.write {
        line.push_str(" (may not write)");
    }
    for ask in &request.asks {
        line.push_str(&match ask {
            ObjectAsk::Use => " Use".into(),
            ObjectAsk::Release => " Release".into(),
            ObjectAsk::Send(payload) => format!(" Send({})", show_values(payload)),
            ObjectAsk::Write(ops) => {
                let ops: Vec<String> = ops.iter().map(show_op).collect();
                format!(" Write({})", ops.join(", "))
            }
        });
    }
    line
}

fn show_op(op: &SlotOp) -> String {
    match op {
        SlotOp::Set { slot, value } => format!("{slot} = {}", show_value(value)),
        SlotOp::Remove { slot } => format!("remove {slot}"),
        SlotOp::Clear => "clear".into(),
    }
}

/// An update with one status, by the status' name in the model.
pub(crate) fn statuses(name: &str) -> Vec<ObjectUpdate> {
    let update = |status| ObjectUpdate {
        name: ObjectName::new(name).unwrap(),
        kind: ObjectKind::Temporary,
        version: Version(0),
        events: vec![ObjectEvent::Status(status)],
    };
    status::ALL.into_iter().map(update).collect()
}
