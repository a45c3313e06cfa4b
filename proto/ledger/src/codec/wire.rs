//! What an edge and its origin say to each other.

use bytes::Bytes;

use super::{Coded, Error, Reader, decode, encode, put_bytes, put_several};
use crate::limits::{COMMAND_BYTES_MAX, MESSAGE_BYTES_MAX};
use crate::wire::{ToEdge, ToOrigin};

impl ToOrigin {
    /// The message as it travels.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    /// The message that these bytes are. Byte strings are slices of them.
    ///
    /// # Errors
    /// They are not the canonical form of a message within the [limits](crate::limits).
    pub fn decode(bytes: Bytes) -> Result<Self, Error> {
        decode(Reader::sharing(&bytes), MESSAGE_BYTES_MAX)
    }
}

impl ToEdge {
    /// The message as it travels.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    /// The message that these bytes are. Byte strings are slices of them.
    ///
    /// # Errors
    /// They are not the canonical form of a message within the [limits](crate::limits).
    pub fn decode(bytes: Bytes) -> Result<Self, Error> {
        decode(Reader::sharing(&bytes), MESSAGE_BYTES_MAX)
    }
}

impl Coded for ToOrigin {
    fn put(&self, to: &mut Vec<u8>) {
        match self {
            Self::Attach {
                edge,
                log,
                seen,
                objects,
                streams,
            } => {
                to.push(0);
                edge.put(to);
                log.put(to);
                seen.put(to);
                put_several(to, objects.iter());
                put_several(to, streams.iter());
            }
            Self::Propose(command) => {
                to.push(1);
                put_bytes(to, command);
            }
            Self::Barrier { id } => {
                to.push(2);
                id.put(to);
            }
            Self::Follow(key) => {
                to.push(3);
                key.put(to);
            }
            Self::Unfollow(key) => {
                to.push(4);
                key.put(to);
            }
            Self::Holds { objects, streams } => {
                to.push(5);
                put_several(to, objects.iter());
                put_several(to, streams.iter());
            }
        }
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(match from.u8()? {
            0 => Self::Attach {
                edge: Coded::take(from)?,
                log: Coded::take(from)?,
                seen: Coded::take(from)?,
                objects: from.several("objects", MESSAGE_BYTES_MAX)?,
                streams: from.several("streams", MESSAGE_BYTES_MAX)?,
            },
            1 => Self::Propose(from.bytes("command", COMMAND_BYTES_MAX)?),
            2 => Self::Barrier {
                id: Coded::take(from)?,
            },
            3 => Self::Follow(Coded::take(from)?),
            4 => Self::Unfollow(Coded::take(from)?),
            5 => Self::Holds {
                objects: from.several("objects", MESSAGE_BYTES_MAX)?,
                streams: from.several("streams", MESSAGE_BYTES_MAX)?,
            },
            tag => return Reader::no_case("message of an edge", tag),
        })
    }
}

impl Coded for ToEdge {
    fn put(&self, to: &mut Vec<u8>) {
        match self {
            Self::Attached {
                log,
                index,
                known,
                objects,
                streams,
            } => {
                to.push(0);
                log.put(to);
                index.put(to);
                known.put(to);
                put_several(to, objects.iter());
                put_several(to, streams.iter());
            }
            Self::Stream { key, state } => {
                to.push(1);
                key.put(to);
                state.put(to);
            }
            Self::Applied(applied) => {
                to.push(2);
                applied.put(to);
            }
            Self::Barrier { id } => {
                to.push(3);
                id.put(to);
            }
            Self::Leader(node) => {
                to.push(4);
                node.put(to);
            }
            Self::Leaving => to.push(5),
            Self::Resumed { index } => {
                to.push(6);
                index.put(to);
            }
            Self::Holds { objects, streams } => {
                to.push(7);
                put_several(to, objects.iter());
                put_several(to, streams.iter());
            }
            Self::Part(applied) => {
                to.push(8);
                applied.put(to);
            }
        }
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(match from.u8()? {
            0 => Self::Attached {
                log: Coded::take(from)?,
                index: Coded::take(from)?,
                known: Coded::take(from)?,
                objects: from.several("objects", MESSAGE_BYTES_MAX)?,
                streams: from.several("streams", MESSAGE_BYTES_MAX)?,
            },
            1 => Self::Stream {
                key: Coded::take(from)?,
                state: Coded::take(from)?,
            },
            2 => Self::Applied(Coded::take(from)?),
            3 => Self::Barrier {
                id: Coded::take(from)?,
            },
            4 => Self::Leader(Coded::take(from)?),
            5 => Self::Leaving,
            6 => Self::Resumed {
                index: Coded::take(from)?,
            },
            7 => Self::Holds {
                objects: from.several("objects", MESSAGE_BYTES_MAX)?,
                streams: from.several("streams", MESSAGE_BYTES_MAX)?,
            },
            8 => Self::Part(Coded::take(from)?),
            tag => return Reader::no_case("message of an origin", tag),
        })
    }
}
