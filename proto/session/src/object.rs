//! Remote SharedObjects on the wire, for both roles.
//!
//! A message of type 19, or 16 from who speaks AMF3, is a batch of events about one
//! object ([`wire`]). To a server it is an [`ObjectRequest`]; what a subscriber is told is
//! a [`model::object::ObjectUpdate`], drawn by [`body`]. The values of slots pass through
//! as bytes.
//!
//! Which of the two types a client is told in: type 16 if it has `objectEncoding` 3 and
//! has sent a type 16 itself, which every player of AMF3 does with its first Use; type 19
//! otherwise. In type 19 nothing is AMF3.
//!
//! Who wrote what and who is told is decided elsewhere. A session only answers what never
//! gets there: the Use of more objects than a client may have
//! ([`OBJECTS_PER_CLIENT_MAX`](crate::limits::OBJECTS_PER_CLIENT_MAX)), and names that are
//! none.

pub(crate) mod access;
pub(crate) mod ask;
pub mod collapse;
pub mod status;
mod update;
mod value;
pub mod wire;

use model::object::ObjectAsk;
use model::{ObjectKind, ObjectName, Version};

pub use collapse::{Collapse, Pressure};
pub use update::{body, from_message};
pub use value::{decode as decode_value, encode as encode_value};
pub use wire::{Bounds, ObjectMessage, WireEvent};

/// What a client asks of one object, in one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRequest {
    /// Which.
    pub name: ObjectName,
    /// The kind it takes the object for.
    pub kind: ObjectKind,
    /// The version it has; 0 is nothing.
    pub version: Version,
    /// What it may do. What it may not do is asked all the same, and refused by whoever
    /// knows the values that a refusal must carry.
    pub access: ObjectAccess,
    /// In order.
    pub asks: Vec<ObjectAsk>,
}

/// What a client may do with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectAccess {
    /// Use it.
    pub read: bool,
    /// Change it, and send messages through it. A request whose values cannot be read or
    /// are too large comes without it as well: it is refused in the same way.
    pub write: bool,
}
