//! The vocabulary of Selvage: the nouns that every other crate speaks, and no logic.
//!
//! * [`name`] and [`key`]: what things are called (`AppName`, `StreamKey`, …), validated
//!   once at the border and cheap to clone afterwards.
//! * [`id`]: who is who (`EdgeId`, `SessionId`, `Epoch`).
//! * [`frame`]: one media message with the verdict about it, [`Frame`].
//! * [`object`]: what a remote SharedObject is made of.
//! * [`time`]: media time, and the single place where the 32-bit wire clock is unwrapped.

pub mod frame;
pub mod id;
pub mod key;
pub mod name;
pub mod object;
pub mod time;

pub use frame::{Class, FourCc, Frame, Kind, Position, Sequenced, Slot};
pub use id::{EdgeId, EdgeLife, Epoch, LogIndex, NodeId, OriginId, SessionId};
pub use key::{AppInstance, StreamKey};
pub use name::{AppName, InstanceName, NameError, StreamName, VhostName};
pub use object::{ObjectKey, ObjectKind, ObjectName, Policy, SlotName, SlotOp, SlotValue, Version};
pub use time::{MediaTime, Unwrapper};
