//! Why a value could not be read or written.

use std::fmt;
use std::sync::Arc;

use crate::limits::Limit;

/// Why a value could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The input ends inside a value.
    Truncated {
        /// Where the missing part begins.
        at: usize,
        /// How many bytes were wanted from there.
        wanted: usize,
    },
    /// A marker that is reserved or does not exist.
    UnknownMarker {
        /// The offset of the marker.
        at: usize,
        /// The format it was read in.
        format: Format,
        /// The marker.
        marker: u8,
    },
    /// An object end (AMF0 0x09) where a value was expected.
    StrayObjectEnd {
        /// The offset of the marker.
        at: usize,
    },
    /// A reference to something the message has not mentioned.
    NoSuchReference {
        /// The offset of the reference.
        at: usize,
        /// The table it points into.
        table: Table,
        /// The index.
        index: u32,
    },
    /// An externalizable class (AMF3 §3.12) whose body is known to its own code only, so that
    /// nothing after it can be found.
    UnknownExternalizable {
        /// The offset of the object.
        at: usize,
        /// The class.
        class: Arc<str>,
    },
    /// The message costs more than the limits allow.
    Exceeds {
        /// Where the limit was reached.
        at: usize,
        /// Which one.
        limit: Limit,
    },
    /// The value cannot be written.
    Unwritable(Unwritable),
}

/// Why a value cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unwritable {
    /// It costs more than the limits allow.
    Exceeds(Limit),
    /// An AMF0 key or class name of more than 65 535 bytes.
    NameTooLong(usize),
    /// A length or a count that the format has no room for.
    LengthTooLong(usize),
    /// An empty key in an AMF3 object or array, where it means the end.
    EmptyKey,
    /// A [`Value::Reference`](crate::Value::Reference) to a container that is not open here.
    DanglingReference(u32),
    /// A [`Value::Reference`](crate::Value::Reference) to a container that is written in the
    /// other format, or whose index does not fit in 16 bits.
    UnreachableReference(u32),
    /// A [`TypedObject`](crate::value::TypedObject) that says it has more sealed members than
    /// it has pairs, or has members beside an externalizable body.
    BadTraits(Arc<str>),
    /// An externalizable body of a class that nobody could read back.
    UnknownExternalizable(Arc<str>),
    /// A kind of value the target cannot hold (conversion to `rml_amf0`).
    NotPlain,
}

/// Who made the mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The sender of the bytes.
    Peer,
    /// The caller who wants a value written.
    Caller,
}

/// The two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// AMF0.
    Amf0,
    /// AMF3.
    Amf3,
}

/// The reference tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Complex objects (AMF0 §2.9, AMF3 §2.2).
    Objects,
    /// Strings (AMF3).
    Strings,
    /// Traits (AMF3).
    Traits,
}

impl Error {
    /// Who made the mistake.
    #[must_use]
    pub const fn blame(&self) -> Blame {
        match self {
            Self::Truncated { .. }
            | Self::UnknownMarker { .. }
            | Self::StrayObjectEnd { .. }
            | Self::NoSuchReference { .. }
            | Self::UnknownExternalizable { .. }
            | Self::Exceeds { .. } => Blame::Peer,
            Self::Unwritable(_) => Blame::Caller,
        }
    }
}

impl From<Unwritable> for Error {
    fn from(why: Unwritable) -> Self {
        Self::Unwritable(why)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { at, wanted } => {
                write!(
                    f,
                    "input ends at offset {at} where {wanted} more bytes were expected"
                )
            }
            Self::UnknownMarker { at, format, marker } => {
                write!(f, "unknown {format} marker {marker:#04x} at offset {at}")
            }
            Self::StrayObjectEnd { at } => {
                write!(f, "object end outside of an object at offset {at}")
            }
            Self::NoSuchReference { at, table, index } => {
                write!(
                    f,
                    "reference to {table} {index} at offset {at}, which does not exist"
                )
            }
            Self::UnknownExternalizable { at, class } => {
                write!(
                    f,
                    "unknown externalizable class {:?} at offset {at}",
                    shortened(class)
                )
            }
            Self::Exceeds { at, limit } => write!(f, "{limit} at offset {at}"),
            Self::Unwritable(why) => why.fmt(f),
        }
    }
}

impl fmt::Display for Unwritable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exceeds(limit) => write!(f, "cannot write: {limit}"),
            Self::NameTooLong(len) => {
                write!(f, "cannot write a name of {len} bytes, AMF0 ends at 65535")
            }
            Self::LengthTooLong(len) => write!(f, "cannot write a length of {len}"),
            Self::EmptyKey => f.write_str("cannot write an empty key to AMF3"),
            Self::DanglingReference(ordinal) => {
                write!(
                    f,
                    "cannot write a reference to container {ordinal}, which is not open"
                )
            }
            Self::UnreachableReference(ordinal) => {
                write!(
                    f,
                    "cannot write a reference to container {ordinal} from here"
                )
            }
            Self::BadTraits(class) => {
                write!(
                    f,
                    "members of class {:?} contradict its traits",
                    shortened(class)
                )
            }
            Self::UnknownExternalizable(class) => {
                write!(
                    f,
                    "cannot write externalizable class {:?}",
                    shortened(class)
                )
            }
            Self::NotPlain => f.write_str("the value is not one of the plain AMF0 kinds"),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Depth => "nested too deeply",
            Self::Values => "too many values in one message",
            Self::Bytes => "too many bytes in one message",
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Amf0 => "AMF0",
            Self::Amf3 => "AMF3",
        })
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Objects => "object",
            Self::Strings => "string",
            Self::Traits => "traits",
        })
    }
}

impl std::error::Error for Error {}

/// The beginning of a name a peer chose, short enough for one line of a log.
fn shortened(name: &str) -> &str {
    const SHOWN: usize = 80;
    &name[..name.floor_char_boundary(SHOWN)]
}
