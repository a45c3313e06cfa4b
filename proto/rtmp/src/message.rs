//! The message: what any carrier yields (RTMP 1.0 §6, §7).

use bytes::Bytes;

/// A message stream's number within one connection. 0 is the connection itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

impl StreamId {
    /// Message stream 0, NetConnection.
    pub const CONNECTION: Self = Self(0);
}

/// What a message is. Protocol control messages (types 1, 2, 3, 5, 6) never leave the
/// carrier; aggregates (22) are split by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageKind {
    /// Type 4, see [`UserControl`].
    UserControl,
    /// Type 8.
    Audio,
    /// Type 9.
    Video,
    /// Type 15: data with a leading encoding selector byte.
    DataAmf3,
    /// Type 16.
    SharedObjectAmf3,
    /// Type 17: a command with a leading encoding selector byte.
    CommandAmf3,
    /// Type 18.
    DataAmf0,
    /// Type 19.
    SharedObjectAmf0,
    /// Type 20.
    CommandAmf0,
}

impl MessageKind {
    /// The message type id on the wire.
    #[must_use]
    pub const fn type_id(self) -> u8 {
        match self {
            Self::UserControl => 4,
            Self::Audio => 8,
            Self::Video => 9,
            Self::DataAmf3 => 15,
            Self::SharedObjectAmf3 => 16,
            Self::CommandAmf3 => 17,
            Self::DataAmf0 => 18,
            Self::SharedObjectAmf0 => 19,
            Self::CommandAmf0 => 20,
        }
    }

    /// The kind of a message type id, if it is one that leaves the carrier.
    #[must_use]
    pub const fn from_type_id(id: u8) -> Option<Self> {
        Some(match id {
            4 => Self::UserControl,
            8 => Self::Audio,
            9 => Self::Video,
            15 => Self::DataAmf3,
            16 => Self::SharedObjectAmf3,
            17 => Self::CommandAmf3,
            18 => Self::DataAmf0,
            19 => Self::SharedObjectAmf0,
            20 => Self::CommandAmf0,
            _ => return None,
        })
    }
}

/// One whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: MessageKind,
    /// The message stream it belongs to.
    pub stream: StreamId,
    /// Milliseconds on the wire clock; wraps at 2^32.
    pub time: u32,
    /// The body.
    pub payload: Bytes,
}

/// User control events (RTMP 1.0 §7.1.7, and the ones Flash Media Server added).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserControl {
    /// 0: the stream can be used.
    StreamBegin(StreamId),
    /// 1: playback is over.
    StreamEof(StreamId),
    /// 2: there is no data for now.
    StreamDry(StreamId),
    /// 3: the client's buffer, in milliseconds.
    SetBufferLength(StreamId, u32),
    /// 4: the stream is a recording.
    StreamIsRecorded(StreamId),
    /// 6: asks for a [`Self::PingResponse`] with the same number.
    PingRequest(u32),
    /// 7: the answer.
    PingResponse(u32),
    /// 31: the server's buffer for the stream ran dry.
    BufferEmpty(StreamId),
    /// 32: the server's buffer for the stream is filled again.
    BufferReady(StreamId),
    /// Any other event; ignored by those who do not know it.
    Other(u16),
}
