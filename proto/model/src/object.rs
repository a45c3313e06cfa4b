//! What a remote SharedObject is made of.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::key::AppInstance;
use crate::name::{NameError, name_type};

name_type! {
    /// A SharedObject's name. It may hold slashes, which form folders for access rights.
    ObjectName, max = 255, slashes = true
}

/// A SharedObject: `chat/room1/users`. Persistence is not identity: the first creator
/// fixes the kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Its name there; first in the order of keys, since it tells most of them apart.
    pub name: ObjectName,
    /// Where it is.
    pub at: AppInstance,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.at, self.name)
    }
}

/// Whether an object outlives its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// It vanishes when no client in the whole cluster uses it.
    Temporary,
    /// It is kept.
    Persistent,
}

/// An object's version: one for each batch that changed something. The first is 1; 0 is
/// what a client says that knows nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A slot's name: any text that a script can write behind `data.`, so unlike other names
/// it is only bounded, not checked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotName(Arc<str>);

impl SlotName {
    /// The most bytes it may have.
    pub const MAX_LEN: usize = 1024;

    /// Takes a name.
    ///
    /// # Errors
    /// It is too long.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.len() > Self::MAX_LEN {
            return Err(NameError::TooLong {
                len: text.len(),
                max: Self::MAX_LEN,
            });
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A slot's value: one AMF0 value with its marker (which may be `0x11` and an AMF3 value),
/// with no reference to anything outside of it. Opaque below the session: it is compared,
/// kept and handed on byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotValue(pub Bytes);

/// One step of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotOp {
    /// Give the slot this value.
    Set {
        /// Which.
        slot: SlotName,
        /// What.
        value: SlotValue,
    },
    /// Take the slot away.
    Remove {
        /// Which.
        slot: SlotName,
    },
    /// Take every slot away, whatever they are: never refused.
    Clear,
}

/// Who wins when two write the same slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Policy {
    /// The first: who has not seen the slot's newest value is refused.
    #[default]
    Optimistic,
    /// The last.
    LastWriterWins,
}

/// One thing that a client asks of an object, in the order of its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectAsk {
    /// Subscribe; the header's version is what the client has.
    Use,
    /// Unsubscribe.
    Release,
    /// Change slots: neighbouring steps of one message are one batch.
    Write(Vec<SlotOp>),
    /// A message to all subscribers: handler and arguments as they came, AMF values.
    Send(Bytes),
}

/// What a subscriber is told in one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectUpdate {
    /// The object's name.
    pub name: ObjectName,
    /// Its kind.
    pub kind: ObjectKind,
    /// Its version after the events.
    pub version: Version,
    /// In order.
    pub events: Vec<ObjectEvent>,
}

/// One event of an [`ObjectUpdate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectEvent {
    /// The subscription is accepted.
    UseSuccess,
    /// Every slot is gone.
    Clear,
    /// A slot has this value: another wrote it, or the subscriber's own write of it was
    /// refused.
    Change {
        /// Which.
        slot: SlotName,
        /// What.
        value: SlotValue,
    },
    /// The subscriber's own write of the slot is accepted.
    Success {
        /// Which.
        slot: SlotName,
    },
    /// A slot is gone; also the answer to the subscriber who removed it.
    Remove {
        /// Which.
        slot: SlotName,
    },
    /// A message to all subscribers: handler and arguments, AMF values.
    Send(Bytes),
    /// The subscriber's own message was given out. Told to one that counts its requests: the
    /// message as it comes to all does not say whose it is.
    Sent {
        /// The number of the request.
        seq: u64,
    },
    /// Something failed.
    Status(ObjectStatus),
}

/// What can fail about an object. All are of the level `error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectStatus {
    /// `SharedObject.BadPersistence`: it exists with the other kind.
    BadPersistence,
    /// `SharedObject.NoReadAccess`.
    NoReadAccess,
    /// `SharedObject.NoWriteAccess`.
    NoWriteAccess,
    /// `SharedObject.ObjectCreationFailed`: a limit, or it cannot be created now.
    CreationFailed,
    /// `SharedObject.Unavailable`: the change was not made, because no majority of the
    /// origins is in reach.
    Unavailable,
    /// `SharedObject.Undecided`: the change could not be decided in time. It is not made
    /// here; if it turns out to be made, it comes as a change like another's.
    Undecided,
}
