//! FLV files, read and written piece by piece: FLV 10.1 §E.2, §E.3.
//!
//! ```
//! # use selvage_flv as flv;
//! use bytes::BytesMut;
//! use flv::file::{Reader, Writer};
//!
//! let mut file = BytesMut::new();
//! file.extend_from_slice(&Writer::header(true, false));
//! file.extend_from_slice(&Writer::tag(8, 40, b"\xaf\x01")?);
//!
//! let mut reader = Reader::new();
//! let tag = reader.handle_bytes(&mut file)?.ok_or("no tag")?;
//! assert_eq!((tag.type_id, tag.time, &tag.payload[..]), (8, 40, &b"\xaf\x01"[..]));
//! assert_eq!(reader.handle_bytes(&mut file)?, None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::{Error, Feature, Limit, Misbehaviour};
use crate::limits::FILE_HEADER_MAX;
use crate::tag::Header as TagHeader;
pub use crate::tag::Tag;

/// Reads a file as its bytes come.
///
/// The back-pointers between the tags are skipped unread: writers that crashed, and some
/// that did not, leave wrong ones. Bytes that stay in the buffer at the end of the file are
/// a tag that was cut short.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    state: State,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// Awaits the file's header.
    #[default]
    Header,
    /// Awaits that many bytes nobody needs: the rest of a long header and a back-pointer.
    Skip(usize),
    /// Awaits a tag.
    Tag,
}

impl Reader {
    /// A reader at the beginning of a file.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next tag out of `input`; `None` if there are too few bytes. The payload is
    /// a slice of the input, not a copy.
    ///
    /// # Errors
    /// The bytes are no FLV file, are encrypted, or a tag has more than
    /// [`TAG_MAX`](crate::limits::TAG_MAX) bytes. The reader cannot go on after an error.
    pub fn handle_bytes(&mut self, input: &mut BytesMut) -> Result<Option<Tag>, Error> {
        loop {
            match self.state {
                State::Header => {
                    let Some(bytes) = input.first_chunk() else {
                        return Ok(None);
                    };
                    let rest = header_rest(bytes)?;
                    input.advance(FILE_HEADER_LEN);
                    self.state = State::Skip(rest + BACK_POINTER_LEN);
                }
                State::Skip(len) => {
                    let here = len.min(input.len());
                    input.advance(here);
                    if here < len {
                        self.state = State::Skip(len - here);
                        return Ok(None);
                    }
                    self.state = State::Tag;
                }
                State::Tag => {
                    let Some(bytes) = input.first_chunk() else {
                        return Ok(None);
                    };
                    let header = TagHeader::decode(bytes)?;
                    if input.len() - Tag::HEADER_LEN < header.len {
                        input.reserve(Tag::HEADER_LEN + header.len - input.len());
                        return Ok(None);
                    }
                    input.advance(Tag::HEADER_LEN);
                    let payload = input.split_to(header.len).freeze();
                    self.state = State::Skip(BACK_POINTER_LEN);
                    return Ok(Some(Tag {
                        type_id: header.type_id,
                        time: header.time,
                        payload,
                    }));
                }
            }
        }
    }
}

/// How many bytes a file's header has beyond the usual ones.
fn header_rest(bytes: &[u8; FILE_HEADER_LEN]) -> Result<usize, Error> {
    let [b'F', b'L', b'V', version, _, o3, o2, o1, o0] = *bytes else {
        return Err(Error::PeerMisbehaved(Misbehaviour::NotFlv));
    };
    if version != 1 {
        return Err(Error::Unsupported(Feature::Version(version)));
    }
    let claimed = u32::from_be_bytes([o3, o2, o1, o0]);
    if claimed > FILE_HEADER_MAX {
        return Err(Error::LimitExceeded(Limit::HeaderSize {
            len: claimed,
            max: FILE_HEADER_MAX,
        }));
    }
    (claimed as usize)
        .checked_sub(FILE_HEADER_LEN)
        .ok_or(Error::PeerMisbehaved(Misbehaviour::ShortHeader { claimed }))
}

/// Makes the pieces of a file; writing them is somebody else's work.
#[derive(Clone, Copy, Debug)]
pub struct Writer;

impl Writer {
    /// The file's header with the back-pointer behind it.
    #[must_use]
    pub fn header(audio: bool, video: bool) -> Bytes {
        let mut out = BytesMut::with_capacity(FILE_HEADER_LEN + BACK_POINTER_LEN);
        out.put_slice(b"FLV\x01");
        out.put_u8(u8::from(audio) << 2 | u8::from(video));
        out.put_slice(&[0, 0, 0, 9]);
        out.put_u32(0);
        out.freeze()
    }

    /// A whole tag with the back-pointer behind it.
    ///
    /// # Errors
    /// The payload has more than 2^24 − 1 bytes.
    pub fn tag(type_id: u8, time: u32, payload: &[u8]) -> Result<Bytes, Error> {
        let (front, back) = Self::around(type_id, time, payload.len())?;
        let mut out = BytesMut::with_capacity(front.len() + payload.len() + back.len());
        out.put_slice(&front);
        out.put_slice(payload);
        out.put_slice(&back);
        Ok(out.freeze())
    }

    /// What stands in front of and behind a payload of `len` bytes: for a recorder that
    /// writes the three parts with one call and copies nothing.
    ///
    /// # Errors
    /// As [`Self::tag`].
    pub fn around(
        type_id: u8,
        time: u32,
        len: usize,
    ) -> Result<([u8; Tag::HEADER_LEN], [u8; BACK_POINTER_LEN]), Error> {
        let front = TagHeader { type_id, time, len }.encode()?;
        let [_, l2, l1, l0, ..] = front;
        let size = u32::from_be_bytes([0, l2, l1, l0]) + 11;
        Ok((front, size.to_be_bytes()))
    }
}

const FILE_HEADER_LEN: usize = 9;
const BACK_POINTER_LEN: usize = 4;
