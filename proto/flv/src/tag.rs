//! One tag of an FLV file: FLV 10.1 §E.4.1.

use bytes::Bytes;
use model::Kind;

use crate::error::{Error, Feature, Limit};
use crate::limits::{TAG_FORMAT_MAX, TAG_MAX};

/// One tag: a message with its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    /// The tag type: 8 audio, 9 video, 18 data; the same numbers as RTMP's message types.
    pub type_id: u8,
    /// Milliseconds, all 32 bits. The format calls them signed; a recording longer than 24
    /// days goes on above.
    pub time: u32,
    /// The message body.
    pub payload: Bytes,
}

impl Tag {
    /// Bytes of the header in front of the payload.
    pub const HEADER_LEN: usize = 11;

    /// The kind of message, if the tag is one of the three that the format knows.
    #[must_use]
    pub const fn kind(&self) -> Option<Kind> {
        match self.type_id {
            8 => Some(Kind::Audio),
            9 => Some(Kind::Video),
            18 => Some(Kind::Data),
            _ => None,
        }
    }
}

/// What a tag's header says.
pub(crate) struct Header {
    pub(crate) type_id: u8,
    pub(crate) time: u32,
    pub(crate) len: usize,
}

impl Header {
    /// Reads a header. The reserved bits and the stream id are not looked at.
    pub(crate) fn decode(bytes: &[u8; Tag::HEADER_LEN]) -> Result<Self, Error> {
        let [kind, l2, l1, l0, t2, t1, t0, t3, ..] = *bytes;
        if kind & FILTER != 0 {
            return Err(Error::Unsupported(Feature::FilteredTag));
        }
        let len = u32::from_be_bytes([0, l2, l1, l0]) as usize;
        if len > TAG_MAX {
            return Err(Error::LimitExceeded(Limit::TagSize { len, max: TAG_MAX }));
        }
        Ok(Self {
            type_id: kind & 0x1f,
            time: u32::from_be_bytes([t3, t2, t1, t0]),
            len,
        })
    }

    /// The header's bytes.
    pub(crate) fn encode(&self) -> Result<[u8; Tag::HEADER_LEN], Error> {
        let too_long = Error::LimitExceeded(Limit::TagSize {
            len: self.len,
            max: TAG_FORMAT_MAX,
        });
        let Ok([0, l2, l1, l0]) = u32::try_from(self.len).map(u32::to_be_bytes) else {
            return Err(too_long);
        };
        let [t3, t2, t1, t0] = self.time.to_be_bytes();
        Ok([self.type_id & 0x1f, l2, l1, l0, t2, t1, t0, t3, 0, 0, 0])
    }
}

const FILTER: u8 = 0x20;
