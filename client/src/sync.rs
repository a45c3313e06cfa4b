//! What happened to a shared object, for a program.

use std::collections::BTreeMap;

use amf::Value;
use model::{SlotName, SlotValue, Version};

pub use session::client::object::SyncCode;

/// Everything that one message of the server did to an object: the `list` of ActionScript's
/// SyncEvent, and the version after it.
#[derive(Clone, Debug, PartialEq)]
pub struct SyncEvent {
    /// In order. May be empty in the first event, which says that the object can be used.
    pub list: Vec<Change>,
    /// The object's version after it.
    pub version: u32,
}

/// One change of a [`SyncEvent`].
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What happened.
    pub code: SyncCode,
    /// The slot; empty with [`SyncCode::Clear`].
    pub name: String,
    /// What the slot has after it; `None` when it is gone.
    pub value: Option<Value>,
    /// What it had before. With [`SyncCode::Reject`] it is what this program had tried to
    /// give it.
    pub old_value: Option<Value>,
}

/// The code as ActionScript writes it: `change`.
#[must_use]
pub const fn code_name(code: SyncCode) -> &'static str {
    match code {
        SyncCode::Clear => "clear",
        SyncCode::Success => "success",
        SyncCode::Reject => "reject",
        SyncCode::Change => "change",
        SyncCode::Delete => "delete",
    }
}

/// An object as a program sees it at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Data {
    /// The slots by name.
    pub slots: BTreeMap<String, Value>,
    /// The version they are of; 0 when nothing is known.
    pub version: u32,
}

/// A value as it was told. One that cannot be read is undefined.
pub(crate) fn read(value: &SlotValue) -> Value {
    session::object::decode_value(value).unwrap_or_default()
}

/// Slots as they were told.
pub(crate) fn data(version: Version, slots: &BTreeMap<SlotName, SlotValue>) -> Data {
    let slots = slots
        .iter()
        .map(|(slot, value)| (slot.as_str().to_owned(), read(value)));
    Data {
        slots: slots.collect(),
        version: version.0,
    }
}
