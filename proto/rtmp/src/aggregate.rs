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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::RawMessage;

    fn part(type_id: u8, time: u32, body: &[u8], back_pointer: u32) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(body.len()).unwrap().to_be_bytes();
        let [t0, t1, t2, t3] = time.to_be_bytes();
        let mut part = vec![type_id, a, b, c, t1, t2, t3, t0, 9, 9, 9];
        part.extend_from_slice(body);
        part.extend_from_slice(&back_pointer.to_be_bytes());
        part
    }

    fn aggregate(time: u32, payload: Vec<u8>) -> Result<Aggregate, Error> {
        Aggregate::new(RawMessage {
            type_id: 22,
            stream: 5,
            time,
            payload: payload.into(),
            stamp: 0,
        })
    }

    fn parts(mut aggregate: Aggregate) -> (Vec<Message>, u64) {
        let mut ignored = 0;
        let messages = std::iter::from_fn(|| aggregate.next(&mut ignored)).collect();
        (messages, ignored)
    }

    #[test]
    fn parts_come_on_the_aggregates_stream_and_clock() {
        let body = [
            part(8, 1000, b"one", 14),
            part(9, 1020, b"", 11),
            part(18, 990, b"x", 12),
        ];
        let (messages, ignored) = parts(aggregate(5000, body.concat()).unwrap());
        let expected = [
            (MessageKind::Audio, 5000, &b"one"[..]),
            (MessageKind::Video, 5020, b""),
            (MessageKind::DataAmf0, 4990, b"x"),
        ]
        .map(|(kind, time, payload)| Message {
            kind,
            stream: StreamId(5),
            time,
            payload: Bytes::from_static(payload),
        });
        assert_eq!(messages, expected);
        assert_eq!(ignored, 0);
    }

    #[test]
    fn the_high_byte_of_a_time_comes_last_and_the_offset_wraps() {
        let body = [part(8, 0x0100_0000, b"a", 0), part(8, 0x0100_0014, b"b", 0)];
        let (messages, _) = parts(aggregate(5, body.concat()).unwrap());
        assert_eq!(
            messages.iter().map(|part| part.time).collect::<Vec<_>>(),
            [5, 25]
        );
    }

    #[test]
    fn back_pointers_may_be_wrong_and_the_last_one_may_be_missing() {
        let mut body = [part(8, 0, b"one", 0xffff_ffff), part(8, 0, b"two", 0)].concat();
        for _ in 0..=BACK_POINTER_LEN {
            let (messages, _) = parts(aggregate(0, body.clone()).unwrap());
            assert_eq!(messages.len(), 2);
            assert_eq!(messages[1].payload, "two");
            body.pop();
        }
        assert_eq!(
            aggregate(0, body).unwrap_err(),
            Error::AggregateTruncated { at: 18 }
        );
    }

    #[test]
    fn control_messages_and_aggregates_inside_are_left_out_and_counted() {
        let body = [
            part(1, 0, &[0; 4], 15),
            part(22, 0, b"", 11),
            part(8, 0, b"a", 12),
        ];
        let (messages, ignored) = parts(aggregate(0, body.concat()).unwrap());
        assert_eq!((messages.len(), ignored), (1, 2));
    }

    #[test]
    fn an_empty_aggregate_is_nothing_and_a_cut_one_is_refused() {
        assert_eq!(parts(aggregate(0, Vec::new()).unwrap()), (Vec::new(), 0));
        let whole = part(8, 0, b"abc", 14);
        for end in 1..14 {
            let cut = whole[..end].to_vec();
            assert_eq!(
                aggregate(0, cut).unwrap_err(),
                Error::AggregateTruncated { at: 0 }
            );
        }
    }
}
