//! Reading from borrowed bytes and writing into borrowed room.

use std::fmt;

use crate::vlu;

/// What is left of borrowed bytes. Every function takes from the front, or gives nothing
/// and takes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads `bytes` from their beginning.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// What was not read yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// Whether all was read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next `len` bytes.
    #[must_use]
    pub fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    /// The next `N` bytes.
    #[must_use]
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    /// The next byte.
    #[must_use]
    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    /// The next two bytes as a number, most significant first.
    #[must_use]
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// The next four bytes as a number, most significant first.
    #[must_use]
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// The next number of variable length.
    #[must_use]
    pub fn vlu(&mut self) -> Option<u64> {
        let (value, len) = vlu::parse(self.0)?;
        self.0 = &self.0[len..];
        Some(value)
    }

    /// A length as a number of variable length, and that many bytes.
    #[must_use]
    pub fn counted(&mut self) -> Option<&'a [u8]> {
        let before = *self;
        let taken = self
            .vlu()
            .and_then(|len| usize::try_from(len).ok())
            .and_then(|len| self.bytes(len));
        if taken.is_none() {
            *self = before;
        }
        taken
    }

    /// All that is left.
    #[must_use]
    pub const fn take_rest(&mut self) -> &'a [u8] {
        let rest = self.0;
        self.0 = &[];
        rest
    }
}

/// The caller's buffer has no room for what was to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no room left in the packet")
    }
}

impl std::error::Error for NoRoom {}

/// Writes into a buffer of the caller's, from its beginning.
#[derive(Debug)]
pub struct Writer<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl<'a> Writer<'a> {
    /// Writes into `buffer` from its beginning.
    #[must_use]
    pub const fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, len: 0 }
    }

    /// How many bytes were written.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was written.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes can still be written.
    #[must_use]
    pub const fn room(&self) -> usize {
        self.buffer.len() - self.len
    }

    /// What was written.
    #[must_use]
    pub fn written(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// Forgets what was written beyond the first `len` bytes.
    pub const fn truncate(&mut self, len: usize) {
        if len < self.len {
            self.len = len;
        }
    }

    /// Writes `bytes`.
    ///
    /// # Errors
    /// When there is no room for all of them; nothing is written then.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        let room = self
            .buffer
            .get_mut(self.len..)
            .and_then(|rest| rest.get_mut(..bytes.len()))
            .ok_or(NoRoom)?;
        room.copy_from_slice(bytes);
        self.len += bytes.len();
        Ok(())
    }

    /// Writes one byte.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn u8(&mut self, value: u8) -> Result<(), NoRoom> {
        self.bytes(&[value])
    }

    /// Writes two bytes, most significant first.
    ///
    /// # Errors
    /// When there is no room for them.
    pub fn u16(&mut self, value: u16) -> Result<(), NoRoom> {
        self.bytes(&value.to_be_bytes())
    }

    /// Writes four bytes, most significant first.
    ///
    /// # Errors
    /// When there is no room for them.
    pub fn u32(&mut self, value: u32) -> Result<(), NoRoom> {
        self.bytes(&value.to_be_bytes())
    }

    /// Writes a number of variable length.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn vlu(&mut self, value: u64) -> Result<(), NoRoom> {
        self.len += vlu::write(value, &mut self.buffer[self.len..]).ok_or(NoRoom)?;
        Ok(())
    }

    /// Writes the length of `bytes` as a number of variable length, and `bytes`.
    ///
    /// # Errors
    /// When there is no room for both; nothing is written then.
    pub fn counted(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        let before = self.len;
        self.vlu(bytes.len() as u64)?;
        self.bytes(bytes).inspect_err(|_| self.len = before)
    }

    /// Puts two bytes in place of two that were written at `at`.
    pub(crate) fn patch_u16(&mut self, at: usize, value: u16) {
        if let Some(place) = self.buffer[..self.len].get_mut(at..at + 2) {
            place.copy_from_slice(&value.to_be_bytes());
        }
    }

    /// Changes a byte that was written at `at`.
    pub(crate) fn patch_u8(&mut self, at: usize, change: impl FnOnce(u8) -> u8) {
        if let Some(place) = self.buffer[..self.len].get_mut(at) {
            *place = change(*place);
        }
    }
}
