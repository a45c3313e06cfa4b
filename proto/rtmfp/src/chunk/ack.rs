//! Acknowledgements of flows, as a bitmap and as ranges (RFC 7016 §2.3.13, §2.3.14).

use std::ops::RangeInclusive;

use super::{kind, write_chunk};
use crate::vlu;
use crate::wire::{NoRoom, Reader, Writer};

/// How an acknowledgement says what was received beyond its cumulative number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckForm {
    /// One bit a number.
    Bitmap,
    /// Lengths of gaps and runs.
    Ranges,
}

/// What a receiver has of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// The flow.
    pub flow: u64,
    /// What the receiver can still take, in blocks of 1024 bytes.
    pub buffer_blocks: u64,
    /// Everything up to and including this number is received or given up.
    pub cumulative: u64,
    /// How `beyond` is written.
    pub form: AckForm,
    /// What was received beyond, in the wire's form. See [`Ack::received`].
    pub beyond: &'a [u8],
}

impl<'a> Ack<'a> {
    pub(super) fn parse(form: AckForm, reader: &mut Reader<'a>) -> Option<Self> {
        Some(Self {
            flow: reader.vlu()?,
            buffer_blocks: reader.vlu()?,
            cumulative: reader.vlu()?,
            form,
            beyond: reader.take_rest(),
        })
    }

    /// What the receiver can still take, in bytes.
    #[must_use]
    pub const fn buffer_bytes(&self) -> u64 {
        self.buffer_blocks.saturating_mul(1024)
    }

    /// The ranges of numbers received beyond the cumulative one, rising, none empty and no
    /// two touching. There are at most four for each byte of a bitmap. Ranges end
    /// before the first one that is incomplete (§2.3.14) or beyond 64 bits.
    #[must_use]
    pub const fn received(&self) -> Received<'a> {
        Received {
            form: self.form,
            bytes: self.beyond,
            bit: 0,
            // The bit field begins with the second number after the cumulative one: the
            // first is known to be missing.
            cursor: match self.form {
                AckForm::Bitmap => self.cumulative.checked_add(2),
                AckForm::Ranges => Some(self.cumulative),
            },
        }
    }

    pub(super) fn write(&self, out: &mut Writer<'_>) -> Result<(), NoRoom> {
        out.vlu(self.flow)?;
        out.vlu(self.buffer_blocks)?;
        out.vlu(self.cumulative)?;
        out.bytes(self.beyond)
    }
}

/// See [`Ack::received`].
#[derive(Clone, Debug)]
pub struct Received<'a> {
    form: AckForm,
    bytes: &'a [u8],
    /// The next bit of the first byte of a bitmap.
    bit: u8,
    /// The number of the next bit, or the last number of the range before.
    cursor: Option<u64>,
}

impl Received<'_> {
    fn next_bit(&mut self) -> Option<bool> {
        let set = self.bytes.first()? >> self.bit & 1 != 0;
        self.bit = (self.bit + 1) % 8;
        if self.bit == 0 {
            self.bytes = &self.bytes[1..];
        }
        Some(set)
    }

    fn next_of_bitmap(&mut self) -> Option<RangeInclusive<u64>> {
        let mut range: Option<RangeInclusive<u64>> = None;
        while let Some(number) = self.cursor {
            let Some(set) = self.next_bit() else { break };
            self.cursor = number.checked_add(1);
            match (&range, set) {
                (None, false) => {}
                (None, true) => range = Some(number..=number),
                (Some(begun), true) => range = Some(*begun.start()..=number),
                (Some(_), false) => break,
            }
        }
        range
    }

    fn next_of_ranges(&mut self) -> Option<RangeInclusive<u64>> {
        let mut reader = Reader::new(self.bytes);
        let missing_less_one = reader.vlu()?;
        let received_less_one = reader.vlu()?;
        let from = self
            .cursor
            .take()?
            .checked_add(missing_less_one)?
            .checked_add(2)?;
        let to = from.checked_add(received_less_one)?;
        self.bytes = reader.rest();
        self.cursor = Some(to);
        Some(from..=to)
    }
}

impl Iterator for Received<'_> {
    type Item = RangeInclusive<u64>;

    fn next(&mut self) -> Option<RangeInclusive<u64>> {
        match self.form {
            AckForm::Bitmap => self.next_of_bitmap(),
            AckForm::Ranges => self.next_of_ranges(),
        }
    }
}

/// Writes an acknowledgement chunk with its header, in the form that takes fewer bytes.
///
/// `received` are the ranges beyond `cumulative`: rising, none empty, no two touching, the
/// first at least two beyond `cumulative`. One that is not so ends the list. When there is
/// no room for all, the last ones are left out (§3.6.3.4.2), in whole ranges. Returns how
/// many ranges were written.
///
/// # Errors
/// When there is no room for an acknowledgement without ranges; nothing is written then.
pub fn write_ack(
    out: &mut Writer<'_>,
    flow: u64,
    buffer_blocks: u64,
    cumulative: u64,
    received: impl Iterator<Item = RangeInclusive<u64>> + Clone,
) -> Result<usize, NoRoom> {
    let fixed = super::HEADER_LEN + vlu::len(flow) + vlu::len(buffer_blocks) + vlu::len(cumulative);
    let room = out
        .room()
        .checked_sub(fixed)
        .ok_or(NoRoom)?
        .min(usize::from(u16::MAX) + super::HEADER_LEN - fixed);
    let steps = Steps {
        cursor: cumulative,
        ranges: received,
    };
    // What each form would need up to each range, to know how many fit and which is shorter.
    let (mut as_ranges, mut count_ranges, mut more_ranges) = (0, 0, true);
    let (mut as_bitmap, mut count_bitmap, mut more_bitmap) = (0, 0, true);
    for (missing, run, to) in steps.clone() {
        let pair = vlu::len(missing) + vlu::len(run);
        more_ranges &= as_ranges + pair <= room;
        if more_ranges {
            as_ranges += pair;
            count_ranges += 1;
        }
        let bitmap = usize::try_from((to - cumulative - 2) / 8).unwrap_or(usize::MAX - 1) + 1;
        more_bitmap &= bitmap <= room;
        if more_bitmap {
            as_bitmap = bitmap;
            count_bitmap += 1;
        }
        if !more_ranges && !more_bitmap {
            break;
        }
    }
    let bitmap = count_bitmap > count_ranges
        || count_bitmap == count_ranges && count_bitmap > 0 && as_bitmap < as_ranges;
    let (kind, count) = if bitmap {
        (kind::ACK_BITMAP, count_bitmap)
    } else {
        (kind::ACK_RANGES, count_ranges)
    };
    write_chunk(out, kind, |out| {
        out.vlu(flow)?;
        out.vlu(buffer_blocks)?;
        out.vlu(cumulative)?;
        let mut byte = 0_u8;
        let mut at = 0;
        for (missing, run, to) in steps.take(count) {
            if !bitmap {
                out.vlu(missing)?;
                out.vlu(run)?;
                continue;
            }
            for number in to - run..=to {
                let bit = number - cumulative - 2;
                while at < bit / 8 {
                    out.u8(byte)?;
                    byte = 0;
                    at += 1;
                }
                byte |= 1 << (bit % 8);
            }
        }
        if bitmap { out.u8(byte) } else { Ok(()) }
    })?;
    Ok(count)
}

/// Ranges as the wire counts them: missing less one, received less one, the last number.
#[derive(Clone)]
struct Steps<I> {
    cursor: u64,
    ranges: I,
}

impl<I: Iterator<Item = RangeInclusive<u64>>> Iterator for Steps<I> {
    type Item = (u64, u64, u64);

    fn next(&mut self) -> Option<(u64, u64, u64)> {
        let (from, to) = self.ranges.next()?.into_inner();
        let missing = from.checked_sub(self.cursor)?.checked_sub(2)?;
        let run = to.checked_sub(from)?;
        self.cursor = to;
        Some((missing, run, to))
    }
}
