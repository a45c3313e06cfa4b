//! Messages of RTMP in flows (RFC 7425 §5.1).
//!
//! A flow carries the messages of one stream, which its metadata names. A message is its
//! type, its time and its body; there is no chunk stream below it, and none of the protocol
//! control messages (types 1, 2, 3, 5 and 6), which are ignored.
//!
//! The flow that answers another says so by a return association: a server's first flow of
//! stream 0 answers the client's, and the flows of a stream answer the flow that the
//! stream's commands came on.

pub mod flows;

use bytes::{BufMut, Bytes, BytesMut};
use rtmp::{Message, MessageKind, StreamId};

use crate::error::Error;
use crate::flow::{Order, Payload, Priority};
use crate::vlu;
use crate::wire::Reader;

const SIGNATURE: &[u8; 2] = b"TC";
const STREAM_PRESENT: u8 = 0x04;
const NETWORK_ORDER: u8 = 0x01;

/// The bytes of a message before its body: the type and the time.
pub const HEADER_LEN: usize = 5;

/// The user control event that holds flows up until all of a set have come so far (§5.2).
pub const FLOW_SYNC: u16 = 34;

/// The user control event by which a server sets a client's keepalive intervals (§5.3.4).
pub const KEEPALIVE: u16 = 41;

/// What a flow's metadata say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The stream whose messages it carries.
    pub stream: StreamId,
    /// The order in which its sender would hand its messages out.
    pub order: Order,
}

impl Metadata {
    /// Reads a flow's metadata. The flow is to be rejected when this is an error; the
    /// session is not to be closed.
    ///
    /// # Errors
    /// [`Error::Malformed`] for another signature, for a flow of no stream and for a stream
    /// beyond 24 bits.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let read = || {
            let mut reader = Reader::new(bytes);
            let signature = reader.array::<2>()?;
            let flags = reader.u8()?;
            let stream = u32::try_from(reader.vlu()?).ok()?;
            let known = signature == *SIGNATURE && flags & STREAM_PRESENT != 0;
            (known && stream <= STREAM_MAX).then_some(Self {
                stream: StreamId(stream),
                order: if flags & NETWORK_ORDER == 0 {
                    Order::Original
                } else {
                    Order::Arrival
                },
            })
        };
        read().ok_or(Error::Malformed {
            what: "metadata of a flow",
        })
    }

    /// The metadata of a flow.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(3 + vlu::LEN_MAX);
        bytes.put_slice(SIGNATURE);
        bytes.put_u8(match self.order {
            Order::Original => STREAM_PRESENT,
            Order::Arrival => STREAM_PRESENT | NETWORK_ORDER,
        });
        let mut number = [0; vlu::LEN_MAX];
        let len = vlu::write(u64::from(self.stream.0), &mut number).unwrap_or(0);
        bytes.put_slice(&number[..len]);
        bytes.freeze()
    }
}

/// Streams have 24 bits.
const STREAM_MAX: u32 = 0xff_ffff;

/// A message for a flow of its stream. Its body is not copied.
#[must_use]
pub fn encode(message: &Message) -> Payload {
    let mut header = BytesMut::with_capacity(HEADER_LEN);
    header.put_u8(message.kind.type_id());
    header.put_u32(message.time);
    Payload::Two([header.freeze(), message.payload.clone()])
}

/// The message that came in a flow of `stream`. Nothing when its type is not known or has no
/// place in a flow: it is to be ignored.
///
/// # Errors
/// [`Error::Malformed`] when it is too short for its type and time.
pub fn decode(stream: StreamId, bytes: &Bytes) -> Result<Option<Message>, Error> {
    let mut reader = Reader::new(bytes);
    let (Some(kind), Some(time)) = (reader.u8(), reader.u32()) else {
        return Err(Error::Malformed {
            what: "message of a flow",
        });
    };
    Ok(MessageKind::from_type_id(kind).map(|kind| Message {
        kind,
        stream,
        time,
        payload: bytes.slice(HEADER_LEN..),
    }))
}

/// Which flow goes first, by what is in it: commands, sound, video that other video needs,
/// the rest. `is_key` says whether a video message is needed by those after it.
#[must_use]
pub const fn priority(kind: MessageKind, is_key: bool) -> Priority {
    match kind {
        MessageKind::UserControl | MessageKind::CommandAmf0 | MessageKind::CommandAmf3 => {
            Priority::Control
        }
        MessageKind::Audio => Priority::Audio,
        MessageKind::Video if is_key => Priority::Key,
        MessageKind::Video => Priority::Delta,
        MessageKind::DataAmf0
        | MessageKind::DataAmf3
        | MessageKind::SharedObjectAmf0
        | MessageKind::SharedObjectAmf3 => Priority::Data,
    }
}

/// The body of user control 41: how often a client is to ask the server, and other peers,
/// whether they are there, in milliseconds (§5.3.4).
#[must_use]
pub fn keepalive(server_ms: u32, peer_ms: u32) -> Message {
    user_control(KEEPALIVE, server_ms, peer_ms)
}

/// The intervals of a [`keepalive`], if a message is one.
#[must_use]
pub fn read_keepalive(message: &Message) -> Option<(u32, u32)> {
    read_user_control(message, KEEPALIVE)
}

fn read_user_control(message: &Message, event: u16) -> Option<(u32, u32)> {
    if message.kind != MessageKind::UserControl {
        return None;
    }
    let mut reader = Reader::new(&message.payload);
    (reader.u16()? == event).then_some(())?;
    Some((reader.u32()?, reader.u32()?))
}

/// The barrier of a [`flow_sync`], and how many flows come to it, if a message is one.
#[must_use]
pub fn read_flow_sync(message: &Message) -> Option<(u32, u32)> {
    read_user_control(message, FLOW_SYNC)
}

/// One of `count` flows has come to the barrier `id` (§5.2).
#[must_use]
pub fn flow_sync(id: u32, count: u32) -> Message {
    user_control(FLOW_SYNC, id, count)
}

fn user_control(event: u16, a: u32, b: u32) -> Message {
    let mut payload = BytesMut::with_capacity(10);
    payload.put_u16(event);
    payload.put_u32(a);
    payload.put_u32(b);
    Message {
        kind: MessageKind::UserControl,
        stream: StreamId::CONNECTION,
        time: 0,
        payload: payload.freeze(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_name_the_stream_and_the_order() {
        for (stream, order, wire) in [
            (0, Order::Original, &b"TC\x04\0"[..]),
            (1, Order::Arrival, b"TC\x05\x01"),
            (STREAM_MAX, Order::Original, b"TC\x04\x87\xff\xff\x7f"),
        ] {
            let stream = StreamId(stream);
            let metadata = Metadata { stream, order };
            assert_eq!(metadata.encode(), wire);
            assert_eq!(Metadata::parse(wire), Ok(metadata));
            for len in 0..wire.len() {
                assert!(Metadata::parse(&wire[..len]).is_err());
            }
        }
        for wrong in [&b"GC\x04\0"[..], b"TC\0\0", b"TC\x04\x88\x80\x80\0"] {
            assert!(Metadata::parse(wrong).is_err());
        }
    }

    #[test]
    fn a_message_keeps_all_that_it_has() {
        let message = Message {
            kind: MessageKind::Video,
            stream: StreamId(7),
            time: 0xfffe_0001,
            payload: Bytes::from_static(&[0x17, 1]),
        };
        let wire = Bytes::from(encode(&message).parts().concat());
        assert_eq!(wire[..], [9, 0xff, 0xfe, 0, 1, 0x17, 1]);
        assert_eq!(decode(message.stream, &wire), Ok(Some(message)));
        for len in 0..HEADER_LEN {
            assert!(decode(StreamId(7), &wire.slice(..len)).is_err());
        }
        let control = Bytes::from_static(&[1, 0, 0, 0, 0, 0, 0, 0, 128]);
        assert_eq!(decode(StreamId(0), &control), Ok(None));
    }

    #[test]
    fn keepalive_and_barrier_are_user_control() {
        let message = keepalive(15_000, 10_000);
        let wire = &message.payload;
        assert_eq!(wire[..], [0, 41, 0, 0, 0x3a, 0x98, 0, 0, 0x27, 0x10]);
        assert_eq!(read_keepalive(&message), Some((15_000, 10_000)));
        assert_eq!(read_keepalive(&flow_sync(8, 2)), None);
        assert_eq!(flow_sync(8, 2).payload[..], [0, 34, 0, 0, 0, 8, 0, 0, 0, 2]);
    }
}
