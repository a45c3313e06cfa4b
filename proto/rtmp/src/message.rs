//! The message: what any carrier yields (RTMP 1.0 §6, §7).

use bytes::{BufMut, Bytes, BytesMut};

use crate::Error;

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

impl Message {
    /// A user control message, on message stream 0 as §6.2 asks.
    #[must_use]
    pub fn user_control(event: UserControl) -> Self {
        Self {
            kind: MessageKind::UserControl,
            stream: StreamId::CONNECTION,
            time: 0,
            payload: event.encode(),
        }
    }
}

impl UserControl {
    /// The number of the event on the wire.
    #[must_use]
    pub const fn event(self) -> u16 {
        match self {
            Self::StreamBegin(_) => 0,
            Self::StreamEof(_) => 1,
            Self::StreamDry(_) => 2,
            Self::SetBufferLength(..) => 3,
            Self::StreamIsRecorded(_) => 4,
            Self::PingRequest(_) => 6,
            Self::PingResponse(_) => 7,
            Self::BufferEmpty(_) => 31,
            Self::BufferReady(_) => 32,
            Self::Other(event) => event,
        }
    }

    /// The body of a type 4 message: the event's number and its data (§6.2). The data
    /// of [`Self::Other`] is not known, so it has none.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut body = BytesMut::with_capacity(10);
        body.put_u16(self.event());
        match *self {
            Self::StreamBegin(StreamId(number))
            | Self::StreamEof(StreamId(number))
            | Self::StreamDry(StreamId(number))
            | Self::StreamIsRecorded(StreamId(number))
            | Self::BufferEmpty(StreamId(number))
            | Self::BufferReady(StreamId(number))
            | Self::PingRequest(number)
            | Self::PingResponse(number) => body.put_u32(number),
            Self::SetBufferLength(StreamId(number), milliseconds) => {
                body.put_u32(number);
                body.put_u32(milliseconds);
            }
            Self::Other(_) => {}
        }
        body.freeze()
    }

    /// Reads the body of a type 4 message. Bytes behind the event's data are ignored,
    /// as other implementations do.
    ///
    /// # Errors
    /// [`Error::UserControlTooShort`] if the body ends before the event's data does.
    pub fn decode(body: &[u8]) -> Result<Self, Error> {
        let short = || Error::UserControlTooShort { len: body.len() };
        let word = |at: usize| -> Result<u32, Error> {
            let bytes = body
                .get(at..)
                .and_then(<[u8]>::first_chunk::<4>)
                .ok_or_else(short)?;
            Ok(u32::from_be_bytes(*bytes))
        };
        let event = u16::from_be_bytes(*body.first_chunk::<2>().ok_or_else(short)?);
        Ok(match event {
            0 => Self::StreamBegin(StreamId(word(2)?)),
            1 => Self::StreamEof(StreamId(word(2)?)),
            2 => Self::StreamDry(StreamId(word(2)?)),
            3 => Self::SetBufferLength(StreamId(word(2)?), word(6)?),
            4 => Self::StreamIsRecorded(StreamId(word(2)?)),
            6 => Self::PingRequest(word(2)?),
            7 => Self::PingResponse(word(2)?),
            31 => Self::BufferEmpty(StreamId(word(2)?)),
            32 => Self::BufferReady(StreamId(word(2)?)),
            other => Self::Other(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_control_events_have_the_bytes_of_the_specification() {
        let cases: [(UserControl, &[u8]); 5] = [
            (UserControl::StreamBegin(StreamId(0)), &[0, 0, 0, 0, 0, 0]),
            (UserControl::StreamEof(StreamId(1)), &[0, 1, 0, 0, 0, 1]),
            (
                UserControl::SetBufferLength(StreamId(1), 3000),
                &[0, 3, 0, 0, 0, 1, 0, 0, 0x0b, 0xb8],
            ),
            (UserControl::PingRequest(0x0102_0304), &[0, 6, 1, 2, 3, 4]),
            (UserControl::BufferReady(StreamId(7)), &[0, 32, 0, 0, 0, 7]),
        ];
        for (event, bytes) in cases {
            assert_eq!(event.encode(), bytes);
            assert_eq!(UserControl::decode(bytes), Ok(event));
        }
    }

    #[test]
    fn every_user_control_event_survives_encoding() {
        for number in 0..64 {
            let mut body = vec![0, number];
            body.extend_from_slice(&[0, 0, 1, 2, 0, 0, 3, 4]);
            let event = UserControl::decode(&body).expect("long enough for each event");
            assert_eq!(event.event(), u16::from(number));
            assert_eq!(UserControl::decode(&event.encode()), Ok(event));
        }
    }

    #[test]
    fn a_user_control_body_that_ends_too_early_is_refused() {
        for body in [
            &[][..],
            &[0],
            &[0, 6],
            &[0, 6, 0, 0, 0],
            &[0, 3, 0, 0, 0, 1, 0, 0, 0],
        ] {
            assert_eq!(
                UserControl::decode(body),
                Err(Error::UserControlTooShort { len: body.len() })
            );
        }
        assert_eq!(UserControl::decode(&[0, 26]), Ok(UserControl::Other(26)));
    }

    #[test]
    fn kinds_and_type_ids_name_each_other() {
        for id in 0..=255 {
            if let Some(kind) = MessageKind::from_type_id(id) {
                assert_eq!(kind.type_id(), id);
            }
        }
        for control in [1, 2, 3, 5, 6, 22] {
            assert_eq!(MessageKind::from_type_id(control), None);
        }
    }
}
