//! What a message is made of, and pieces of it.

use std::ops::Range;

use bytes::Bytes;

use crate::wire::{NoRoom, Writer};

/// The bytes of a message to send, in up to any number of parts that follow each other.
///
/// Parts are shared, not copied: the same body can wait in the flows of thousands of
/// sessions behind a header of each one's own.
#[derive(Clone, Debug)]
pub enum Payload {
    /// One part.
    One(Bytes),
    /// A header and a body.
    Two([Bytes; 2]),
    /// Any number of parts.
    Many(Box<[Bytes]>),
}

impl Payload {
    /// A message without bytes.
    pub const EMPTY: Self = Self::One(Bytes::new());

    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts().iter().map(Bytes::len).sum()
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its parts in order.
    #[must_use]
    pub fn parts(&self) -> &[Bytes] {
        match self {
            Self::One(part) => std::slice::from_ref(part),
            Self::Two(parts) => parts,
            Self::Many(parts) => parts,
        }
    }

    /// Writes the bytes of `range`, across parts.
    ///
    /// # Errors
    /// When there is no room for all of them; some may be written then.
    pub fn write(&self, range: Range<usize>, out: &mut Writer<'_>) -> Result<(), NoRoom> {
        let (mut skip, mut left) = (range.start, range.len());
        for part in self.parts() {
            if left == 0 {
                break;
            }
            let Some(rest) = part.get(skip..) else {
                skip -= part.len();
                continue;
            };
            let taken = &rest[..rest.len().min(left)];
            out.bytes(taken)?;
            left -= taken.len();
            skip = 0;
        }
        Ok(())
    }
}

impl From<Bytes> for Payload {
    fn from(part: Bytes) -> Self {
        Self::One(part)
    }
}

impl From<&'static [u8]> for Payload {
    fn from(part: &'static [u8]) -> Self {
        Self::One(Bytes::from_static(part))
    }
}

impl From<Vec<u8>> for Payload {
    fn from(part: Vec<u8>) -> Self {
        Self::One(part.into())
    }
}

impl From<[Bytes; 2]> for Payload {
    fn from(parts: [Bytes; 2]) -> Self {
        Self::Two(parts)
    }
}

impl From<Vec<Bytes>> for Payload {
    fn from(parts: Vec<Bytes>) -> Self {
        Self::Many(parts.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_range_is_the_same_in_one_part_and_in_many(
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..6),
            from in 0_usize..40,
            len in 0_usize..40,
        ) {
            let whole = parts.concat();
            let payload = Payload::from(parts.into_iter().map(Bytes::from).collect::<Vec<_>>());
            prop_assert_eq!(payload.len(), whole.len());
            let from = from.min(whole.len());
            let to = (from + len).min(whole.len());
            let mut buffer = [0; 64];
            let mut out = Writer::new(&mut buffer);
            payload.write(from..to, &mut out).unwrap();
            prop_assert_eq!(out.written(), &whole[from..to]);
        }
    }

    #[test]
    fn a_header_and_a_shared_body_are_written_as_one() {
        let body = Bytes::from_static(b"body");
        let payload = Payload::from([Bytes::from_static(b"head"), body.clone()]);
        let mut buffer = [0; 6];
        let mut out = Writer::new(&mut buffer);
        payload.write(2..8, &mut out).unwrap();
        assert_eq!(out.written(), b"adbody");
        assert_eq!(payload.parts()[1].as_ptr(), body.as_ptr());
    }
}
