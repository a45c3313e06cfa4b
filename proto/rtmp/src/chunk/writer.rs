//! From messages to bytes.
//!
//! Every message begins with a header of format 0, which refers to nothing before it. That
//! costs up to eleven bytes for each message, and makes its bytes the same for all who
//! read it with the same chunk size: an [`image`] is built once and shared.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

use super::CONTROL_CHUNK_STREAM;
use super::header::{put_continuation, put_full};
use crate::limits;
use crate::message::{Message, MessageKind, StreamId};

/// The chunk stream a message is written on: 2 control, 3 commands and shared objects of
/// the connection, 5 commands and data of a stream, 4 audio, 6 video. Nothing may depend
/// on these but 2; old players are used to them.
#[must_use]
pub const fn chunk_stream(kind: MessageKind, stream: StreamId) -> u32 {
    match kind {
        MessageKind::UserControl => CONTROL_CHUNK_STREAM,
        MessageKind::Audio => 4,
        MessageKind::Video => 6,
        MessageKind::SharedObjectAmf0 | MessageKind::SharedObjectAmf3 => 3,
        MessageKind::CommandAmf0
        | MessageKind::CommandAmf3
        | MessageKind::DataAmf0
        | MessageKind::DataAmf3 => {
            if stream.0 == 0 {
                3
            } else {
                5
            }
        }
    }
}

/// Appends a message to `out` as the chunks that any reader with this chunk size
/// understands, whatever came before.
///
/// A payload longer than [`limits::MESSAGE_LENGTH_MAX`] has no such form: `out` stays as
/// it is. A chunk size of 0 is taken as 1.
pub fn image(
    kind: MessageKind,
    stream: StreamId,
    time: u32,
    payload: &[u8],
    chunk_size: u32,
    out: &mut BytesMut,
) {
    if payload.len() > limits::MESSAGE_LENGTH_MAX {
        debug_assert!(
            false,
            "a message of {} bytes cannot be written",
            payload.len()
        );
        return;
    }
    out.reserve(image_len(time, payload.len(), chunk_size));
    let head = Head {
        chunk_stream: chunk_stream(kind, stream),
        type_id: kind.type_id(),
        time,
    };
    head.put(payload.len(), stream, out);
    for (index, part) in payload.chunks(chunk_size.max(1) as usize).enumerate() {
        if index > 0 {
            put_continuation(out, head.chunk_stream, time);
        }
        out.put_slice(part);
    }
}

/// How many bytes an [`image`] of a payload of `len` bytes has.
#[must_use]
pub const fn image_len(time: u32, len: usize, chunk_size: u32) -> usize {
    let extended = if time >= super::header::EXTENDED {
        4
    } else {
        0
    };
    let size = if chunk_size == 0 {
        1
    } else {
        chunk_size as usize
    };
    let continuations = len.saturating_sub(1) / size;
    12 + extended + len + continuations * (1 + extended)
}

/// What every chunk of a message has in common.
#[derive(Clone, Copy)]
struct Head {
    chunk_stream: u32,
    type_id: u8,
    time: u32,
}

impl Head {
    fn put(self, len: usize, stream: StreamId, out: &mut BytesMut) {
        put_full(
            out,
            self.chunk_stream,
            self.time,
            len,
            self.type_id,
            stream.0,
        );
    }
}

/// The outgoing queue of a connection.
#[derive(Debug)]
pub(crate) struct Writer {
    chunk_size: u32,
    /// What is to be written before `tail`.
    queue: VecDeque<Bytes>,
    /// Headers and small bodies, gathered.
    tail: BytesMut,
    /// Bytes in `queue` and `tail`.
    len: usize,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self {
            chunk_size: limits::CHUNK_SIZE_DEFAULT,
            queue: VecDeque::new(),
            tail: BytesMut::new(),
            len: 0,
        }
    }

    pub(crate) const fn chunk_size(&self) -> u32 {
        self.chunk_size
    }

    /// Applies to what is written from here on; the message that says so is the caller's.
    pub(crate) const fn set_chunk_size(&mut self, size: u32) {
        self.chunk_size = size;
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Queues a message. `false` if it is too long to be written.
    pub(crate) fn message(&mut self, message: &Message) -> bool {
        if message.payload.len() > limits::MESSAGE_LENGTH_MAX {
            return false;
        }
        let head = Head {
            chunk_stream: chunk_stream(message.kind, message.stream),
            type_id: message.kind.type_id(),
            time: message.time,
        };
        self.chunks(head, message.stream, &message.payload);
        true
    }

    /// Queues a protocol control message.
    pub(crate) fn control(&mut self, type_id: u8, body: &[u8]) {
        debug_assert!(body.len() <= limits::CHUNK_SIZE_DEFAULT as usize);
        let before = self.tail.len();
        put_full(
            &mut self.tail,
            CONTROL_CHUNK_STREAM,
            0,
            body.len(),
            type_id,
            0,
        );
        // A chunk size below five bytes may have been asked for; then even these are cut.
        for (index, part) in body.chunks(self.chunk_size as usize).enumerate() {
            if index > 0 {
                put_continuation(&mut self.tail, CONTROL_CHUNK_STREAM, 0);
            }
            self.tail.put_slice(part);
        }
        self.len += self.tail.len() - before;
    }

    /// Queues bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: Bytes) {
        self.len += bytes.len();
        if bytes.len() < limits::REFERENCE_FROM {
            self.tail.put_slice(&bytes);
        } else {
            self.refer(bytes);
        }
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Bytes> {
        let bytes = match self.queue.pop_front() {
            Some(bytes) => bytes,
            None if self.tail.is_empty() => return None,
            None => self.tail.split().freeze(),
        };
        self.len -= bytes.len();
        Some(bytes)
    }

    fn chunks(&mut self, head: Head, stream: StreamId, payload: &Bytes) {
        self.len += image_len(head.time, payload.len(), self.chunk_size);
        head.put(payload.len(), stream, &mut self.tail);
        let size = self.chunk_size as usize;
        let mut at = 0;
        while at < payload.len() {
            if at > 0 {
                put_continuation(&mut self.tail, head.chunk_stream, head.time);
            }
            let end = payload.len().min(at.saturating_add(size));
            if end - at < limits::REFERENCE_FROM {
                self.tail.put_slice(&payload[at..end]);
            } else {
                self.refer(payload.slice(at..end));
            }
            at = end;
        }
    }

    fn refer(&mut self, bytes: Bytes) {
        if !self.tail.is_empty() {
            self.queue.push_back(self.tail.split().freeze());
        }
        self.queue.push_back(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn video(time: u32, payload: Bytes) -> Message {
        Message {
            kind: MessageKind::Video,
            stream: StreamId(1),
            time,
            payload,
        }
    }

    fn drain(writer: &mut Writer) -> Vec<Bytes> {
        let parts: Vec<_> = std::iter::from_fn(|| writer.poll_transmit()).collect();
        assert_eq!(writer.len(), 0);
        parts
    }

    #[test]
    fn an_image_has_the_bytes_of_the_specification() {
        let mut out = BytesMut::new();
        image(
            MessageKind::Video,
            StreamId(1),
            0x0001_0203,
            b"abcdefg",
            3,
            &mut out,
        );
        let expected = b"\x06\x01\x02\x03\x00\x00\x07\x09\x01\x00\x00\x00abc\xc6def\xc6g";
        assert_eq!(out[..], expected[..]);
        out.clear();
        image(
            MessageKind::Audio,
            StreamId(1),
            0x0100_0000,
            b"abcd",
            3,
            &mut out,
        );
        let expected = b"\x04\xff\xff\xff\x00\x00\x04\x08\x01\x00\x00\x00\x01\x00\x00\x00abc\
            \xc4\x01\x00\x00\x00d";
        assert_eq!(out[..], expected[..]);
    }

    #[test]
    fn messages_go_out_on_the_habitual_chunk_streams() {
        let id = |kind, stream| chunk_stream(kind, StreamId(stream));
        assert_eq!(id(MessageKind::UserControl, 0), 2);
        assert_eq!(id(MessageKind::CommandAmf0, 0), 3);
        assert_eq!(id(MessageKind::CommandAmf0, 1), 5);
        assert_eq!(id(MessageKind::DataAmf0, 1), 5);
        assert_eq!(id(MessageKind::SharedObjectAmf3, 0), 3);
        assert_eq!(id(MessageKind::Audio, 1), 4);
        assert_eq!(id(MessageKind::Video, 1), 6);
    }

    #[test]
    fn a_long_payload_in_one_chunk_is_not_copied() {
        let mut writer = Writer::new();
        writer.set_chunk_size(65536);
        let payload = Bytes::from(vec![7; limits::REFERENCE_FROM]);
        assert!(writer.message(&video(0, payload.slice(..10))));
        assert!(writer.message(&video(0, payload.clone())));
        assert!(writer.message(&video(0, payload.slice(..10))));
        assert_eq!(writer.len(), 3 * 12 + 20 + payload.len());
        let parts = drain(&mut writer);
        assert_eq!(
            parts.iter().map(Bytes::len).collect::<Vec<_>>(),
            [34, payload.len(), 22]
        );
        assert_eq!(parts[1].as_ptr(), payload.as_ptr());
    }

    #[test]
    fn what_is_queued_by_reference_keeps_its_place() {
        let payload: Bytes = (0..=252).cycle().take(50_000).collect();
        for chunk_size in [1, 100, 8191, 8192, 20_000, 50_000] {
            for time in [5, 0xffff_fff0] {
                let mut writer = Writer::new();
                writer.set_chunk_size(chunk_size);
                let mut expected = BytesMut::new();
                for end in [50_000, 0, 8192, 3] {
                    let payload = payload.slice(..end);
                    assert!(writer.message(&video(time, payload.clone())));
                    image(
                        MessageKind::Video,
                        StreamId(1),
                        time,
                        &payload,
                        chunk_size,
                        &mut expected,
                    );
                }
                assert_eq!(writer.len(), expected.len());
                assert_eq!(drain(&mut writer).concat(), expected);
            }
        }
    }

    #[test]
    fn a_payload_that_cannot_be_written_is_said_to_be() {
        let mut writer = Writer::new();
        let payload = Bytes::from(vec![0; limits::MESSAGE_LENGTH_MAX + 1]);
        assert!(!writer.message(&video(0, payload)));
        assert!(drain(&mut writer).is_empty());
    }

    #[test]
    fn control_messages_obey_a_chunk_size_below_their_own() {
        let mut writer = Writer::new();
        writer.set_chunk_size(2);
        writer.control(6, &[1, 2, 3, 4, 5]);
        let expected = [
            2, 0, 0, 0, 0, 0, 5, 6, 0, 0, 0, 0, 1, 2, 0xc2, 3, 4, 0xc2, 5,
        ];
        assert_eq!(writer.len(), expected.len());
        assert_eq!(drain(&mut writer).concat(), expected);
    }
}
