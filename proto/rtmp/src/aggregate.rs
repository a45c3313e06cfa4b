//! Aggregate messages, type 22 (RTMP 1.0 §7.1.6): a row of messages in one.
//!
//! ```text
//! | type·1 | length·3 | time·3 time high·1 | stream·3 | body | back pointer·4 | type …
//! ```

use bytes::{Buf, Bytes};

use crate::chunk::own;
use crate::message::{Message, MessageKind, StreamId};
use crate::{Error, chunk};

const HEADER_LEN: usize = 11;
const BACK_POINTER_LEN: usize = 4;

/// Gives the parts of one aggregate as messages, one at a time, so that many small parts
/// cost memory only while somebody looks at them.
#[derive(Debug)]
pub(crate) struct Aggregate {
    stream: StreamId,
    /// Added to each part's time: the aggregate's time less that of its first part.
    offset: u32,
    rest: Bytes,
}

impl Aggregate {
    /// Checks that the body is a row of whole parts. The last back pointer may be missing,
    /// and what the others say is not looked at: encoders get them wrong.
    pub(crate) fn new(message: chunk::RawMessage) -> Result<Self, Error> {
        let body = message.payload;
        let mut at = 0;
        while at < body.len() {
            let part = Part::parse(&body[at..]).ok_or(Error::AggregateTruncated { at })?;
            at += part.len + HEADER_LEN + BACK_POINTER_LEN;
        }
        let first = Part::parse(&body).map_or(message.time, |part| part.time);
        Ok(Self {
            stream: StreamId(message.stream),
            offset: message.time.wrapping_sub(first),
            rest: body,
        })
    }

    /// The next part. Types that do not leave the carrier are left out and counted in
    /// `ignored`: a protocol control message takes effect where it arrives, which inside
    /// an aggregate has no meaning, and aggregates do not nest.
    pub(crate) fn next(&mut self, ignored: &mut u64) -> Option<Message> {
        loop {
            let part = Part::parse(&self.rest)?;
            self.rest.advance(HEADER_LEN);
            let payload = self.rest.split_to(part.len);
            self.rest.advance(BACK_POINTER_LEN.min(self.rest.len()));
            if let Some(kind) = MessageKind::from_type_id(part.type_id) {
                return Some(Message {
                    kind,
                    // The parts' own stream ids do not count (§7.1.6).
                    stream: self.stream,
                    time: part.time.wrapping_add(self.offset),
                    payload: own(payload),
                });
            }
            *ignored += 1;
        }
    }
}

struct Part {
    type_id: u8,
    len: usize,
    time: u32,
}

impl Part {
    /// The part at the front, `None` if it is not there as a whole.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let [type_id, a, b, c, t1, t2, t3, t0, ..] = *bytes.first_chunk::<HEADER_LEN>()?;
        let len = u32::from_be_bytes([0, a, b, c]) as usize;
        let time = u32::from_be_bytes([t0, t1, t2, t3]);
        (bytes.len() - HEADER_LEN >= len).then_some(Self { type_id, len, time })
    }
}
