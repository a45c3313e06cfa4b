//! From bytes to messages.
//!
//! The reader holds no bytes but those of incomplete messages: a chunk header that is not
//! there as a whole stays in the caller's buffer (at most 17 bytes), and a body is taken
//! as it comes. So each byte is looked at once, however the stream is cut.

use bytes::{Buf, Bytes, BytesMut};

use super::header::{Basic, Fields, Format};
use crate::{Error, limits};

/// One whole message of any type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawMessage {
    pub(crate) type_id: u8,
    pub(crate) stream: u32,
    pub(crate) time: u32,
    pub(crate) payload: Bytes,
    /// What its first chunk was stamped with.
    pub(crate) stamp: u64,
}

/// Takes chunks off a byte stream and puts their messages together.
#[derive(Debug)]
pub(crate) struct Reader {
    chunk_size: usize,
    /// In the order of their first chunks. There are few, so finding one is a walk.
    streams: Vec<ChunkStream>,
    /// The chunk whose header is read and whose body is not there yet as a whole.
    chunk: Option<Chunk>,
    /// How many streams hold an incomplete message.
    incomplete: usize,
    /// How many bytes they hold.
    held: usize,
    /// What messages that begin now are stamped with.
    stamp: u64,
}

/// What later chunks of a chunk stream refer to, and its incomplete message.
#[derive(Debug)]
struct ChunkStream {
    id: u32,
    len: usize,
    type_id: u8,
    stream: u32,
    time: u32,
    /// What a header of format 3 adds to the time when it begins a message.
    step: u32,
    /// The extended timestamp of the last header of format 0, 1 or 2, if it had one.
    extended: Option<u32>,
    /// What is there of an incomplete message; empty if there is none.
    partial: Vec<u8>,
    /// What the message was stamped with when it began.
    stamp: u64,
}

#[derive(Clone, Copy, Debug)]
struct Chunk {
    /// Index into the streams.
    at: usize,
    /// How many bytes of its body are still to come.
    left: usize,
}

impl Reader {
    pub(crate) const fn new() -> Self {
        Self {
            chunk_size: limits::CHUNK_SIZE_DEFAULT as usize,
            streams: Vec::new(),
            chunk: None,
            incomplete: 0,
            held: 0,
            stamp: 0,
        }
    }

    /// Takes bytes off the front of `input` up to the end of the next message. `None`
    /// when more bytes are needed.
    pub(crate) fn next(&mut self, input: &mut BytesMut) -> Result<Option<RawMessage>, Error> {
        loop {
            let chunk = match self.chunk {
                Some(chunk) => chunk,
                None => match self.header(input)? {
                    Some(chunk) => chunk,
                    None => return Ok(None),
                },
            };
            if chunk.left > 0 && input.is_empty() {
                self.chunk = Some(chunk);
                return Ok(None);
            }
            if let Some(message) = self.body(chunk, input)? {
                return Ok(Some(message));
            }
        }
    }

    /// For the chunks behind a Set Chunk Size (§5.4.1).
    pub(crate) fn set_chunk_size(&mut self, size: u32) {
        self.chunk_size = size as usize;
    }

    /// Forgets the incomplete message of a chunk stream (§5.4.2), if there is one.
    pub(crate) fn abort(&mut self, chunk_stream: u32) {
        if let Some(stream) = self
            .streams
            .iter_mut()
            .find(|stream| stream.id == chunk_stream)
            && !stream.partial.is_empty()
        {
            self.incomplete -= 1;
            self.held -= stream.partial.len();
            stream.partial = Vec::new();
        }
    }

    /// Stamps the messages that begin from now on.
    pub(crate) const fn set_stamp(&mut self, stamp: u64) {
        self.stamp = stamp;
    }

    /// Bytes that incomplete messages hold.
    pub(crate) const fn held(&self) -> usize {
        self.held
    }

    /// Takes a chunk header off the front, if it is there as a whole.
    fn header(&mut self, input: &mut BytesMut) -> Result<Option<Chunk>, Error> {
        let Some(basic) = Basic::parse(input) else {
            return Ok(None);
        };
        let rest = &input[basic.len..];
        let known = self
            .streams
            .iter()
            .position(|stream| stream.id == basic.chunk_stream);
        let (at, len) = match (known, basic.format) {
            (Some(at), Format::Same) => match self.streams[at].repeat(rest) {
                Some(len) => (at, len),
                None => return Ok(None),
            },
            (Some(at), Format::Full | Format::SameStream | Format::SameLength) => {
                let Some(fields) = Fields::parse(basic.format, rest) else {
                    return Ok(None);
                };
                self.streams[at].update(&fields)?;
                (at, fields.len)
            }
            // Format 1 begins a chunk stream in librtmp's answer to a ping, and means
            // message stream 0.
            (None, Format::Full | Format::SameStream) => {
                let Some(fields) = Fields::parse(basic.format, rest) else {
                    return Ok(None);
                };
                if self.streams.len() == limits::CHUNK_STREAMS_MAX {
                    return Err(Error::TooManyChunkStreams {
                        chunk_stream: basic.chunk_stream,
                    });
                }
                let mut stream = ChunkStream::new(basic.chunk_stream);
                stream.update(&fields)?;
                self.streams.push(stream);
                (self.streams.len() - 1, fields.len)
            }
            (None, Format::SameLength | Format::Same) => {
                return Err(Error::NoHeaderBefore {
                    chunk_stream: basic.chunk_stream,
                    format: basic.format.number(),
                });
            }
        };
        input.advance(basic.len + len);
        let stream = &mut self.streams[at];
        if stream.partial.is_empty() {
            stream.stamp = self.stamp;
        }
        Ok(Some(Chunk {
            at,
            left: self.chunk_size.min(stream.len - stream.partial.len()),
        }))
    }

    /// Takes what is there of a chunk's body. Gives the message if it is complete.
    fn body(&mut self, chunk: Chunk, input: &mut BytesMut) -> Result<Option<RawMessage>, Error> {
        let stream = &mut self.streams[chunk.at];
        let here = chunk.left.min(input.len());
        if stream.partial.is_empty() {
            if here == stream.len {
                self.chunk = None;
                return Ok(Some(stream.message(take(input, here))));
            }
            if self.incomplete == limits::OPEN_ASSEMBLIES_MAX {
                return Err(Error::TooManyIncomplete {
                    chunk_stream: stream.id,
                });
            }
            self.incomplete += 1;
        }
        if self.held + here > limits::ASSEMBLY_BYTES_MAX {
            return Err(Error::IncompleteTooLarge {
                chunk_stream: stream.id,
            });
        }
        self.held += here;
        stream.append(&input[..here]);
        input.advance(here);
        let left = chunk.left - here;
        self.chunk = (left > 0).then_some(Chunk { left, ..chunk });
        if stream.partial.len() < stream.len {
            return Ok(None);
        }
        self.incomplete -= 1;
        self.held -= stream.len;
        let payload = Bytes::from(std::mem::take(&mut stream.partial));
        Ok(Some(stream.message(payload)))
    }
}

impl ChunkStream {
    const fn new(id: u32) -> Self {
        Self {
            id,
            len: 0,
            type_id: 0,
            stream: 0,
            time: 0,
            step: 0,
            extended: None,
            partial: Vec::new(),
            stamp: 0,
        }
    }

    /// Follows a header of format 0, 1 or 2.
    fn update(&mut self, fields: &Fields) -> Result<(), Error> {
        let (len, type_id) = fields.body.unwrap_or((self.len, self.type_id));
        self.extended = fields.extended.then_some(fields.time);
        if !self.partial.is_empty() {
            // §5.3.1.2.4 says that a continuation SHOULD have format 3, so another one is
            // allowed as long as it speaks of the same message.
            if (len, type_id) == (self.len, self.type_id) {
                return Ok(());
            }
            return Err(Error::Interrupted {
                chunk_stream: self.id,
                len: self.len,
                received: self.partial.len(),
            });
        }
        if len > limits::MESSAGE_MAX {
            return Err(Error::MessageTooLong {
                chunk_stream: self.id,
                len,
            });
        }
        self.len = len;
        self.type_id = type_id;
        self.step = fields.time;
        if let Some(stream) = fields.stream {
            self.stream = stream;
            // The step of format 3 behind format 0 is the time itself (§5.3.1.2.4).
            self.time = fields.time;
        } else {
            self.time = self.time.wrapping_add(fields.time);
        }
        Ok(())
    }

    /// Follows a header of format 3, with `rest` behind its basic header. Gives the length
    /// of its extended timestamp, `None` if that is not to be told yet.
    fn repeat(&mut self, rest: &[u8]) -> Option<usize> {
        let begins = self.partial.is_empty();
        let time = if begins {
            self.time.wrapping_add(self.step)
        } else {
            self.time
        };
        let len = match self.extended {
            None => 0,
            Some(field) => extended_len(rest, [field, time])?,
        };
        self.time = time;
        Some(len)
    }

    /// Grows with what was received, not with what was announced.
    fn append(&mut self, bytes: &[u8]) {
        let needed = self.partial.len() + bytes.len();
        if needed > self.partial.capacity() {
            let wanted = needed
                .max(2 * self.partial.len())
                .max(limits::ASSEMBLY_START);
            self.partial
                .reserve_exact(wanted.min(self.len) - self.partial.len());
        }
        self.partial.extend_from_slice(bytes);
    }

    const fn message(&self, payload: Bytes) -> RawMessage {
        RawMessage {
            type_id: self.type_id,
            stream: self.stream,
            time: self.time,
            payload,
            stamp: self.stamp,
        }
    }
}

/// How long the extended timestamp of a format 3 header is: 4 or 0 bytes. It is there
/// whenever the header before had one (§5.3.1.3), but old encoders leave it out. So it is
/// one if it repeats the field before, or, as some write it, the message's own time.
/// `None` if there are too few bytes to tell.
fn extended_len(rest: &[u8], candidates: [u32; 2]) -> Option<usize> {
    let seen = &rest[..rest.len().min(4)];
    // The first byte that differs settles it, so that a body that ends within these four
    // bytes is not held back until the next chunk comes.
    if !candidates
        .iter()
        .any(|field| field.to_be_bytes().starts_with(seen))
    {
        return Some(0);
    }
    (seen.len() == 4).then_some(4)
}

/// Takes a whole body off the front of the read buffer.
fn take(input: &mut BytesMut, len: usize) -> Bytes {
    if len < limits::COPY_BELOW {
        let body = Bytes::copy_from_slice(&input[..len]);
        input.advance(len);
        body
    } else {
        input.split_to(len).freeze()
    }
}

/// A slice of a larger body, as a message of its own.
pub(crate) fn own(slice: Bytes) -> Bytes {
    if slice.len() < limits::COPY_BELOW {
        Bytes::copy_from_slice(&slice)
    } else {
        slice
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_follows_what_was_received_and_not_what_was_announced() {
        let mut reader = Reader::new();
        reader.set_chunk_size(limits::CHUNK_SIZE_MAX);
        let mut input = BytesMut::from(&[6, 0, 0, 0, 0x80, 0, 0, 9, 1, 0, 0, 0][..]);
        let mut received = 0;
        for len in [1, 10, 5000, 1, 70_000, 65_536] {
            input.extend_from_slice(&vec![0; len]);
            assert_eq!(reader.next(&mut input), Ok(None));
            received += len;
            let reserved = reader.streams[0].partial.capacity();
            assert!(
                reserved <= (2 * received).max(limits::ASSEMBLY_START),
                "{reserved} bytes"
            );
            assert_eq!(reader.held(), received);
        }
    }

    #[test]
    fn a_complete_message_keeps_no_more_memory_than_it_has_bytes() {
        let mut reader = Reader::new();
        reader.set_chunk_size(10_000);
        let mut input = BytesMut::from(&[6, 0, 0, 0, 0, 0x27, 0x10, 9, 1, 0, 0, 0][..]);
        for _ in 0..9 {
            input.extend_from_slice(&[7; 1000]);
            assert_eq!(reader.next(&mut input), Ok(None));
        }
        assert_eq!(reader.streams[0].partial.capacity(), 10_000);
        input.extend_from_slice(&[7; 1000]);
        assert_eq!(
            reader.next(&mut input).unwrap().unwrap().payload.len(),
            10_000
        );
        assert_eq!(reader.streams[0].partial.capacity(), 0);
    }
}
