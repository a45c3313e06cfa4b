//! Fragments of flows (RFC 7016 §2.3.11, §2.3.12).

use crate::option::Options;
use crate::wire::{NoRoom, Reader, Writer};

/// How a fragment is put together with others to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// It is the whole message.
    Whole = 0,
    /// It is the first of several.
    Begin = 1,
    /// It is the last of several.
    End = 2,
    /// It is between the first and the last.
    Middle = 3,
}

/// A fragment of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserData<'a> {
    /// The flow.
    pub flow: u64,
    /// The fragment's number in its flow, at least 1.
    pub sequence: u64,
    /// Nothing up to and including this number will be sent any more. At most
    /// `sequence`, and below it unless the fragment is abandoned.
    pub forward: u64,
    /// How it is put together with others.
    pub fragment: Fragment,
    /// The sender gave this number up; its data mean nothing.
    pub abandoned: bool,
    /// No number follows this one in the flow.
    pub last: bool,
    /// Options of the flow, when the chunk has a list of them (which may be empty).
    pub options: Option<Options<'a>>,
    /// The data.
    pub data: &'a [u8],
}

const OPTIONS: u8 = 0x80;
const FRAGMENT_SHIFT: u32 = 4;
const ABANDONED: u8 = 0x02;
const LAST: u8 = 0x01;

impl<'a> UserData<'a> {
    pub(super) fn parse(reader: &mut Reader<'a>) -> Option<Self> {
        let flags = reader.u8()?;
        let flow = reader.vlu()?;
        let sequence = reader.vlu()?;
        let offset = reader.vlu()?;
        let forward = sequence.checked_sub(offset)?;
        let chunk = Self::after_numbers(reader, flags, [flow, sequence, forward])?;
        (sequence > 0 && (offset > 0 || chunk.abandoned)).then_some(chunk)
    }

    pub(super) fn parse_next(reader: &mut Reader<'a>, before: &Self) -> Option<Self> {
        let flags = reader.u8()?;
        let sequence = before.sequence.checked_add(1)?;
        Self::after_numbers(reader, flags, [before.flow, sequence, before.forward])
    }

    fn after_numbers(
        reader: &mut Reader<'a>,
        flags: u8,
        [flow, sequence, forward]: [u64; 3],
    ) -> Option<Self> {
        let options = if flags & OPTIONS == 0 {
            None
        } else {
            Some(Options::take_list(reader)?)
        };
        let fragment = match flags >> FRAGMENT_SHIFT & 3 {
            0 => Fragment::Whole,
            1 => Fragment::Begin,
            2 => Fragment::End,
            _ => Fragment::Middle,
        };
        Some(Self {
            flow,
            sequence,
            forward,
            fragment,
            abandoned: flags & ABANDONED != 0,
            last: flags & LAST != 0,
            options,
            data: reader.take_rest(),
        })
    }

    /// Whether this can be written as a Next User Data chunk after `before`.
    #[must_use]
    pub const fn follows(&self, before: &UserData<'_>) -> bool {
        self.flow == before.flow
            && self.forward == before.forward
            && matches!(before.sequence.checked_add(1), Some(next) if next == self.sequence)
    }

    fn write_flags(&self, out: &mut Writer<'_>) -> Result<(), NoRoom> {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        out.u8(flag(self.options.is_some(), OPTIONS)
            | (self.fragment as u8) << FRAGMENT_SHIFT
            | flag(self.abandoned, ABANDONED)
            | flag(self.last, LAST))
    }

    fn write_data(&self, out: &mut Writer<'_>) -> Result<(), NoRoom> {
        if let Some(options) = &self.options {
            out.bytes(options.as_bytes())?;
            out.u8(0)?;
        }
        out.bytes(self.data)
    }

    pub(super) fn write(&self, out: &mut Writer<'_>) -> Result<(), NoRoom> {
        self.write_flags(out)?;
        out.vlu(self.flow)?;
        out.vlu(self.sequence)?;
        out.vlu(self.sequence.saturating_sub(self.forward))?;
        self.write_data(out)
    }

    pub(super) fn write_next(&self, out: &mut Writer<'_>) -> Result<(), NoRoom> {
        self.write_flags(out)?;
        self.write_data(out)
    }
}
