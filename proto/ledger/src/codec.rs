//! The one canonical form of everything that leaves the process.
//!
//! A value has exactly one form, and bytes that are not the form of a value are refused:
//! numbers are LEB128 without padding, text and bytes carry their length, a sum carries its
//! tag, and nothing may follow. The first byte of a whole message is its [`FORMAT`].
//!
//! What is taken is bounded by what is there: a count never reserves more than the bytes
//! that stand behind it could fill.

mod command;
mod effect;
mod names;
mod trace;
mod wire;

use std::fmt;

use bytes::Bytes;
use model::NameError;

use crate::limits::PART_BYTES;

/// The format that is written and the only one that is read.
pub const FORMAT: u8 = 2;

/// Why bytes were refused. Whoever sent them is to blame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The first byte names another format.
    Format(u8),
    /// The bytes end too early.
    Short,
    /// This many bytes stand behind the end.
    Trailing(usize),
    /// A sum has no such case.
    Tag {
        /// Which sum.
        of: &'static str,
        /// The case.
        tag: u8,
    },
    /// A number is padded or does not fit.
    Number,
    /// Text is not UTF-8.
    Text,
    /// A name may not be one.
    Name(NameError),
    /// Something is longer than it may be.
    TooLong {
        /// What.
        what: &'static str,
        /// How long it is.
        len: usize,
        /// How long it may be.
        max: usize,
    },
    /// Parts of a snapshot contradict each other, or do not stand in order.
    Contradiction(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format(format) => write!(f, "format {format} is not known"),
            Self::Short => f.write_str("the bytes end too early"),
            Self::Trailing(len) => write!(f, "{len} bytes stand behind the end"),
            Self::Tag { of, tag } => write!(f, "{of} has no case {tag}"),
            Self::Number => f.write_str("a number is padded or too large"),
            Self::Text => f.write_str("text is not UTF-8"),
            Self::Name(error) => write!(f, "a name is refused: {error}"),
            Self::TooLong { what, len, max } => {
                write!(f, "{what}: {len} where at most {max} are allowed")
            }
            Self::Contradiction(what) => write!(f, "the snapshot contradicts itself: {what}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<NameError> for Error {
    fn from(error: NameError) -> Self {
        Self::Name(error)
    }
}

/// What has a canonical form.
pub(crate) trait Coded: Sized {
    /// Writes it.
    fn put(&self, to: &mut Vec<u8>);
    /// Reads it.
    fn take(from: &mut Reader<'_>) -> Result<Self, Error>;
}

/// A whole message: its format, and it.
pub(crate) fn encode<T: Coded>(value: &T) -> Bytes {
    let mut to = Vec::with_capacity(128);
    to.push(FORMAT);
    value.put(&mut to);
    Bytes::from(to)
}

/// The bytes of one thing in a message.
pub(crate) fn size<T: Coded>(value: &T) -> usize {
    let mut to = Vec::new();
    value.put(&mut to);
    to.len()
}

/// These in their order, in parts none of which is empty. A part is closed when it holds
/// `PART_BYTES`.
pub(crate) fn parts<T: Coded>(all: impl IntoIterator<Item = T>) -> Vec<Vec<T>> {
    let mut parts = Vec::new();
    let mut room = 0;
    for one in all {
        let size = size(&one);
        if room == 0 {
            room = PART_BYTES;
            parts.push(Vec::new());
        }
        room = room.saturating_sub(size);
        if let Some(part) = parts.last_mut() {
            part.push(one);
        }
    }
    parts
}

/// A whole message, and nothing behind it.
pub(crate) fn decode<T: Coded>(mut from: Reader<'_>, max: usize) -> Result<T, Error> {
    from.at_most("message", from.rest.len(), max)?;
    match from.u8()? {
        FORMAT => {}
        other => return Err(Error::Format(other)),
    }
    let value = T::take(&mut from)?;
    match from.rest.len() {
        0 => Ok(value),
        len => Err(Error::Trailing(len)),
    }
}

/// Bytes that are being read.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    /// Whose bytes they are, if byte strings may share them.
    owner: Option<&'a Bytes>,
}

impl<'a> Reader<'a> {
    /// Byte strings are copied: what is kept for long does not keep its message.
    pub(crate) fn copying(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            owner: None,
        }
    }

    /// Byte strings are slices of the message.
    pub(crate) fn sharing(bytes: &'a Bytes) -> Self {
        Self {
            rest: bytes,
            owner: Some(bytes),
        }
    }

    fn raw(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(Error::Short)?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(Error::Short)?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Error> {
        Ok(self.array::<1>()?[0])
    }

    /// LEB128 in its shortest form.
    pub(crate) fn u64(&mut self) -> Result<u64, Error> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if shift == 63 && bits > 1 {
                return Err(Error::Number);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                // A last byte of zero says nothing, unless it is the only one.
                return if bits == 0 && shift > 0 {
                    Err(Error::Number)
                } else {
                    Ok(value)
                };
            }
        }
        Err(Error::Number)
    }

    /// How many of something follow, each of at least one byte.
    pub(crate) fn count(&mut self, what: &'static str, max: usize) -> Result<usize, Error> {
        let len = usize::try_from(self.u64()?).map_err(|_| Error::Number)?;
        self.at_most(what, len, max)?;
        if len > self.rest.len() {
            return Err(Error::Short);
        }
        Ok(len)
    }

    fn at_most(&self, what: &'static str, len: usize, max: usize) -> Result<(), Error> {
        if len > max {
            return Err(Error::TooLong { what, len, max });
        }
        Ok(())
    }

    /// Bytes with their length.
    pub(crate) fn bytes(&mut self, what: &'static str, max: usize) -> Result<Bytes, Error> {
        let len = self.count(what, max)?;
        let bytes = self.raw(len)?;
        Ok(match self.owner {
            Some(owner) => owner.slice_ref(bytes),
            None => Bytes::copy_from_slice(bytes),
        })
    }

    /// Text with its length.
    pub(crate) fn text(&mut self, max: usize) -> Result<&'a str, Error> {
        let len = self.count("text", max)?;
        std::str::from_utf8(self.raw(len)?).map_err(|_| Error::Text)
    }

    /// Several of a kind, with their count.
    pub(crate) fn several<T: Coded>(
        &mut self,
        what: &'static str,
        max: usize,
    ) -> Result<Vec<T>, Error> {
        let count = self.count(what, max)?;
        let mut items = Vec::with_capacity(count.min(1024));
        for _ in 0..count {
            items.push(T::take(self)?);
        }
        Ok(items)
    }

    /// Says that a sum has no such case.
    pub(crate) fn no_case<T>(of: &'static str, tag: u8) -> Result<T, Error> {
        Err(Error::Tag { of, tag })
    }
}

/// LEB128 in its shortest form.
pub(crate) fn put_u64(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    to.push(value.to_le_bytes()[0]);
}

/// A length or a count.
pub(crate) fn put_len(to: &mut Vec<u8>, len: usize) {
    put_u64(to, len as u64);
}

/// Bytes with their length.
pub(crate) fn put_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    put_len(to, bytes.len());
    to.extend_from_slice(bytes);
}

/// Several of a kind, with their count.
pub(crate) fn put_several<'a, T: Coded + 'a>(
    to: &mut Vec<u8>,
    items: impl ExactSizeIterator<Item = &'a T>,
) {
    put_len(to, items.len());
    for item in items {
        item.put(to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_form() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put_u64(&mut bytes, value);
            assert_eq!(Reader::copying(&bytes).u64(), Ok(value));
        }
        for padded in [&[0x80, 0][..], &[0xff, 0x80, 0], &[0xff; 10], &[0xff; 11]] {
            assert_eq!(Reader::copying(padded).u64(), Err(Error::Number));
        }
    }

    #[test]
    fn a_message_names_its_format_and_ends_where_it_ends() {
        let message = encode(&7u64);
        assert_eq!(message, &[FORMAT, 7][..]);
        let read = |bytes: &[u8]| decode::<u64>(Reader::copying(bytes), 8);
        assert_eq!(read(&[FORMAT, 7]), Ok(7));
        assert_eq!(read(&[FORMAT - 1, 7]), Err(Error::Format(FORMAT - 1)));
        assert_eq!(read(&[FORMAT]), Err(Error::Short));
        assert_eq!(read(&[FORMAT, 7, 0]), Err(Error::Trailing(1)));
        assert!(matches!(read(&[FORMAT; 9]), Err(Error::TooLong { .. })));
    }

    #[test]
    fn parts_have_everything_in_order_and_room_for_one_more() {
        // From a seed, so that a failure comes again.
        let mut seed = 7_u64;
        let mut draw = || {
            seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            seed >> 33
        };
        for _ in 0..20 {
            let all: Vec<_> = (0..draw() % 40)
                .map(|_| {
                    let len = usize::try_from(draw() % 500_000).unwrap();
                    model::SlotValue(Bytes::from(vec![0; len]))
                })
                .collect();
            let parts = parts(all.clone());
            assert_eq!(parts.concat(), all);
            for (place, part) in parts.iter().enumerate() {
                let bytes: usize = part.iter().map(size).sum();
                let last = part.last().map(size).unwrap();
                assert!(bytes - last < PART_BYTES, "it was closed in time");
                assert!(bytes >= PART_BYTES || place + 1 == parts.len());
            }
        }
    }

    #[test]
    fn a_count_reserves_no_more_than_is_there() {
        let bytes = [0xff, 0xff, 0xff, 0xff, 0x0f, 1];
        let read = Reader::copying(&bytes).several::<u64>("numbers", usize::MAX);
        assert_eq!(read, Err(Error::Short));
    }

    #[test]
    fn byte_strings_of_a_shared_message_are_slices_of_it() {
        let message = Bytes::from_static(&[3, 1, 2, 3]);
        let slice = Reader::sharing(&message).bytes("bytes", 8);
        assert_eq!(
            slice.as_ref().map(|bytes| bytes.as_ptr()),
            Ok(message[1..].as_ptr())
        );
        let copy = Reader::copying(&message).bytes("bytes", 8);
        assert_eq!(slice, copy);
    }
}
