//! The words of the model.

use std::num::NonZeroU64;

use model::{
    AppInstance, AppName, EdgeId, EdgeLife, Epoch, InstanceName, LogIndex, NodeId, ObjectKey,
    ObjectKind, ObjectName, OriginId, Policy, SessionId, SlotName, SlotOp, SlotValue, StreamKey,
    StreamName, Version, VhostName,
};

use super::{Coded, Error, Reader, put_bytes, put_u64};
use crate::limits::COMMAND_BYTES_MAX;
use crate::name::LogName;

/// Names are their text.
macro_rules! name {
    ($($name:ident),*) => {$(
        impl Coded for $name {
            fn put(&self, to: &mut Vec<u8>) {
                put_bytes(to, self.as_str().as_bytes());
            }
            fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
                Ok(Self::new(from.text(Self::MAX_LEN)?)?)
            }
        }
    )*};
}
name!(
    VhostName,
    AppName,
    InstanceName,
    StreamName,
    ObjectName,
    SlotName,
    EdgeId,
    OriginId
);

/// Numbers are numbers.
macro_rules! number {
    ($($name:ident),*) => {$(
        impl Coded for $name {
            fn put(&self, to: &mut Vec<u8>) {
                put_u64(to, self.0.into());
            }
            fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
                Ok(Self(from.u64()?.try_into().map_err(|_| Error::Number)?))
            }
        }
    )*};
}
number!(Epoch, LogIndex, LogName, Version);

/// Products are their fields.
macro_rules! product {
    ($($name:ident { $($field:ident),* })*) => {$(
        impl Coded for $name {
            fn put(&self, to: &mut Vec<u8>) {
                $(self.$field.put(to);)*
            }
            fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
                Ok(Self { $($field: Coded::take(from)?),* })
            }
        }
    )*};
}
product! {
    AppInstance { vhost, app, instance }
    StreamKey { at, name }
    ObjectKey { at, name }
    EdgeLife { edge, incarnation }
}

impl Coded for u64 {
    fn put(&self, to: &mut Vec<u8>) {
        put_u64(to, *self);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        from.u64()
    }
}

impl Coded for u32 {
    fn put(&self, to: &mut Vec<u8>) {
        put_u64(to, (*self).into());
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        from.u64()?.try_into().map_err(|_| Error::Number)
    }
}

impl Coded for u16 {
    fn put(&self, to: &mut Vec<u8>) {
        put_u64(to, (*self).into());
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        from.u64()?.try_into().map_err(|_| Error::Number)
    }
}

impl Coded for bool {
    fn put(&self, to: &mut Vec<u8>) {
        to.push((*self).into());
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        match from.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            tag => Reader::no_case("bool", tag),
        }
    }
}

impl<T: Coded> Coded for Option<T> {
    fn put(&self, to: &mut Vec<u8>) {
        self.is_some().put(to);
        if let Some(value) = self {
            value.put(to);
        }
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        bool::take(from)?.then(|| T::take(from)).transpose()
    }
}

impl<A: Coded, B: Coded> Coded for (A, B) {
    fn put(&self, to: &mut Vec<u8>) {
        self.0.put(to);
        self.1.put(to);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        Ok((A::take(from)?, B::take(from)?))
    }
}

impl<A: Coded, B: Coded, C: Coded> Coded for (A, B, C) {
    fn put(&self, to: &mut Vec<u8>) {
        self.0.put(to);
        self.1.put(to);
        self.2.put(to);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        Ok((A::take(from)?, B::take(from)?, C::take(from)?))
    }
}

/// Drawn at random, so all sixteen bytes.
impl Coded for SessionId {
    fn put(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.0.to_be_bytes());
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Self(u128::from_be_bytes(from.array()?)))
    }
}

impl Coded for NodeId {
    fn put(&self, to: &mut Vec<u8>) {
        put_u64(to, self.0.get());
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Self(NonZeroU64::new(from.u64()?).ok_or(Error::Number)?))
    }
}

impl Coded for SlotValue {
    fn put(&self, to: &mut Vec<u8>) {
        put_bytes(to, &self.0);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        // Whether it is too large for a slot is the ledger's answer, not a fault of the
        // bytes.
        Ok(Self(from.bytes("value", COMMAND_BYTES_MAX)?))
    }
}

impl Coded for ObjectKind {
    fn put(&self, to: &mut Vec<u8>) {
        to.push(match self {
            Self::Temporary => 0,
            Self::Persistent => 1,
        });
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        match from.u8()? {
            0 => Ok(Self::Temporary),
            1 => Ok(Self::Persistent),
            tag => Reader::no_case("kind", tag),
        }
    }
}

impl Coded for Policy {
    fn put(&self, to: &mut Vec<u8>) {
        to.push(match self {
            Self::Optimistic => 0,
            Self::LastWriterWins => 1,
        });
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        match from.u8()? {
            0 => Ok(Self::Optimistic),
            1 => Ok(Self::LastWriterWins),
            tag => Reader::no_case("policy", tag),
        }
    }
}

impl Coded for SlotOp {
    fn put(&self, to: &mut Vec<u8>) {
        match self {
            Self::Set { slot, value } => {
                to.push(0);
                slot.put(to);
                value.put(to);
            }
            Self::Remove { slot } => {
                to.push(1);
                slot.put(to);
            }
            Self::Clear => to.push(2),
        }
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(match from.u8()? {
            0 => Self::Set {
                slot: Coded::take(from)?,
                value: Coded::take(from)?,
            },
            1 => Self::Remove {
                slot: Coded::take(from)?,
            },
            2 => Self::Clear,
            tag => return Reader::no_case("operation", tag),
        })
    }
}
