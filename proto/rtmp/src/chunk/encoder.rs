//! An encoder that does everything the format allows and our writer does not: all header
//! formats, all basic headers, interleaving, changes of the chunk size anywhere. The
//! reader is tested against it.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes};

use super::header::{EXTENDED, Format, put_basic};
use super::reader::RawMessage;

/// What old encoders do with the extended timestamp of format 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Habit {
    /// As §5.3.1.3 says: the field again.
    Repeat,
    /// The message's own time, even if the field was a step.
    OwnTime,
    /// Nothing.
    LeaveOut,
}

#[derive(Debug)]
pub(super) struct Encoder {
    pub(super) chunk_size: usize,
    pub(super) habit: Habit,
    /// Three bytes of basic header where two would do.
    pub(super) wide: bool,
    pub(super) out: Vec<u8>,
    /// Whole messages, in the order in which their last chunks were written.
    pub(super) done: Vec<RawMessage>,
    streams: BTreeMap<u32, Last>,
}

#[derive(Debug)]
struct Last {
    len: usize,
    type_id: u8,
    stream: u32,
    time: u32,
    step: u32,
    field: Option<u32>,
    open: Option<(RawMessage, usize)>,
}

impl Encoder {
    pub(super) const fn new() -> Self {
        Self {
            chunk_size: 128,
            habit: Habit::Repeat,
            wide: false,
            out: Vec::new(),
            done: Vec::new(),
            streams: BTreeMap::new(),
        }
    }

    /// Writes a whole message.
    pub(super) fn message(&mut self, id: u32, most: Format, message: RawMessage) -> Format {
        let used = self.begin(id, most, message);
        while self.go_on(id) {}
        used
    }

    /// Writes the first chunk of a message, with the shortest header that can say it and
    /// is not shorter than `most`. Gives the format used.
    pub(super) fn begin(&mut self, id: u32, most: Format, message: RawMessage) -> Format {
        let (format, field) = match self.streams.get(&id) {
            None => (Format::Full, message.time),
            Some(last) => {
                assert!(
                    last.open.is_none(),
                    "one message at a time on a chunk stream"
                );
                let step = message.time.wrapping_sub(last.time);
                let same_stream = last.stream == message.stream;
                let same_body =
                    (last.len, last.type_id) == (message.payload.len(), message.type_id);
                let least = match (same_stream, same_body, last.step == step) {
                    (false, ..) => Format::Full,
                    (true, false, _) => Format::SameStream,
                    (true, true, false) => Format::SameLength,
                    (true, true, true) => Format::Same,
                };
                let format = if most.number() < least.number() {
                    most
                } else {
                    least
                };
                (
                    format,
                    if format == Format::Full {
                        message.time
                    } else {
                        step
                    },
                )
            }
        };
        let len = message.payload.len();
        self.basic(format, id);
        if format != Format::Same {
            self.out.put_uint(u64::from(field.min(EXTENDED)), 3);
        }
        if matches!(format, Format::Full | Format::SameStream) {
            self.out.put_uint(len as u64, 3);
            self.out.put_u8(message.type_id);
        }
        if format == Format::Full {
            self.out.put_u32_le(message.stream);
        }
        let extended = if format == Format::Same {
            let extended = self.streams[&id].field;
            self.repeated(extended, message.time);
            extended
        } else if field >= EXTENDED {
            self.out.put_u32(field);
            Some(field)
        } else {
            None
        };
        let last = Last {
            len,
            type_id: message.type_id,
            stream: message.stream,
            time: message.time,
            step: field,
            field: extended,
            open: Some((message, 0)),
        };
        self.streams.insert(id, last);
        self.body(id);
        format
    }

    /// Writes one more chunk of the open message. `false` if there is none.
    pub(super) fn go_on(&mut self, id: u32) -> bool {
        let Some(Last {
            open: Some(_),
            field,
            time,
            ..
        }) = self.streams.get(&id)
        else {
            return false;
        };
        let (field, time) = (*field, *time);
        self.basic(Format::Same, id);
        self.repeated(field, time);
        self.body(id);
        true
    }

    /// Writes an Abort, which ends the open message.
    pub(super) fn abort(&mut self, id: u32) {
        self.control(2, &id.to_be_bytes());
        if let Some(last) = self.streams.get_mut(&id) {
            last.open = None;
        }
    }

    pub(super) fn set_chunk_size(&mut self, size: u32) {
        self.control(1, &size.to_be_bytes());
        self.chunk_size = size as usize;
    }

    fn control(&mut self, type_id: u8, body: &[u8]) {
        let payload = Bytes::copy_from_slice(body);
        self.message(
            2,
            Format::Full,
            RawMessage {
                type_id,
                stream: 0,
                time: 0,
                payload,
                stamp: 0,
            },
        );
    }

    fn basic(&mut self, format: Format, id: u32) {
        if self.wide && (64..320).contains(&id) {
            let low = u8::try_from(id - 64).unwrap();
            self.out.put_slice(&[format.number() << 6 | 1, low, 0]);
        } else {
            put_basic(&mut self.out, format, id);
        }
    }

    fn repeated(&mut self, field: Option<u32>, time: u32) {
        match (field, self.habit) {
            (None, _) | (Some(_), Habit::LeaveOut) => {}
            (Some(field), Habit::Repeat) => self.out.put_u32(field),
            (Some(_), Habit::OwnTime) => self.out.put_u32(time),
        }
    }

    fn body(&mut self, id: u32) {
        let last = self.streams.get_mut(&id).unwrap();
        let (message, at) = last.open.take().unwrap();
        let end = message.payload.len().min(at + self.chunk_size);
        self.out.extend_from_slice(&message.payload[at..end]);
        if end < message.payload.len() {
            last.open = Some((message, end));
        } else {
            self.done.push(message);
        }
    }
}
