//! Chunk headers: the basic header, the message header, the extended timestamp
//! (§5.3.1.1 to §5.3.1.3).

use bytes::BufMut;

/// A 24-bit time of this value says that the time follows in 32 bits.
pub(super) const EXTENDED: u32 = 0xff_ffff;

/// How much of a message header is there; the rest is that of the chunk before on the
/// same chunk stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// 0: all of it.
    Full,
    /// 1: all but the message stream.
    SameStream,
    /// 2: only the time.
    SameLength,
    /// 3: none of it.
    Same,
}

impl Format {
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Full => 0,
            Self::SameStream => 1,
            Self::SameLength => 2,
            Self::Same => 3,
        }
    }
}

/// The basic header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Basic {
    pub(super) format: Format,
    pub(super) chunk_stream: u32,
    /// How many bytes it has, 1 to 3.
    pub(super) len: usize,
}

impl Basic {
    /// Reads it from the front of `bytes`; `None` if it is not there as a whole.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let first = *bytes.first()?;
        let format = match first >> 6 {
            0 => Format::Full,
            1 => Format::SameStream,
            2 => Format::SameLength,
            _ => Format::Same,
        };
        let (chunk_stream, len) = match first & 0x3f {
            0 => (64 + u32::from(*bytes.get(1)?), 2),
            1 => {
                let (low, high) = (*bytes.get(1)?, *bytes.get(2)?);
                (64 + u32::from(low) + 256 * u32::from(high), 3)
            }
            id => (u32::from(id), 1),
        };
        Some(Self {
            format,
            chunk_stream,
            len,
        })
    }
}

/// The message header of a chunk of format 0, 1 or 2, extended timestamp included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fields {
    /// The time (format 0) or the step from the message before (1, 2).
    pub(super) time: u32,
    /// Whether the time had to be extended.
    pub(super) extended: bool,
    /// Length and type id (formats 0, 1).
    pub(super) body: Option<(usize, u8)>,
    /// The message stream (format 0).
    pub(super) stream: Option<u32>,
    /// How many bytes the header has behind the basic header.
    pub(super) len: usize,
}

impl Fields {
    /// Reads what a chunk of this format carries behind its basic header; `None` if it is
    /// not there as a whole. Format 3 carries nothing.
    pub(super) fn parse(format: Format, bytes: &[u8]) -> Option<Self> {
        let (body, stream, len) = match format {
            Format::Full => {
                let id = *bytes.get(7..)?.first_chunk::<4>()?;
                // The one little-endian number of the protocol.
                (
                    Some(length_and_type(bytes)?),
                    Some(u32::from_le_bytes(id)),
                    11,
                )
            }
            Format::SameStream => (Some(length_and_type(bytes)?), None, 7),
            Format::SameLength => (None, None, 3),
            Format::Same => (None, None, 0),
        };
        if format == Format::Same {
            return Some(Self {
                time: 0,
                extended: false,
                body,
                stream,
                len,
            });
        }
        let short = be24(bytes)?;
        if short < EXTENDED {
            return Some(Self {
                time: short,
                extended: false,
                body,
                stream,
                len,
            });
        }
        let time = u32::from_be_bytes(*bytes.get(len..)?.first_chunk::<4>()?);
        Some(Self {
            time,
            extended: true,
            body,
            stream,
            len: len + 4,
        })
    }
}

fn length_and_type(bytes: &[u8]) -> Option<(usize, u8)> {
    Some((be24(bytes.get(3..)?)? as usize, *bytes.get(6)?))
}

fn be24(bytes: &[u8]) -> Option<u32> {
    let [a, b, c] = *bytes.first_chunk::<3>()?;
    Some(u32::from_be_bytes([0, a, b, c]))
}

/// Writes a basic header in its shortest form (§5.3.1.1). Ids above 65599 do not exist.
pub(super) fn put_basic(out: &mut impl BufMut, format: Format, chunk_stream: u32) {
    let format = format.number() << 6;
    match chunk_stream {
        0..=63 => out.put_u8(format | low_byte(chunk_stream)),
        64..=319 => out.put_slice(&[format, low_byte(chunk_stream - 64)]),
        _ => {
            let id = chunk_stream - 64;
            out.put_slice(&[format | 1, low_byte(id), low_byte(id >> 8)]);
        }
    }
}

/// Writes a chunk header of format 0.
pub(super) fn put_full(
    out: &mut impl BufMut,
    chunk_stream: u32,
    time: u32,
    len: usize,
    type_id: u8,
    stream: u32,
) {
    put_basic(out, Format::Full, chunk_stream);
    out.put_uint(u64::from(time.min(EXTENDED)), 3);
    out.put_uint(len as u64, 3);
    out.put_u8(type_id);
    out.put_u32_le(stream);
    if time >= EXTENDED {
        out.put_u32(time);
    }
}

/// Writes the header of a chunk that continues a message which began with [`put_full`].
pub(super) fn put_continuation(out: &mut impl BufMut, chunk_stream: u32, time: u32) {
    put_basic(out, Format::Same, chunk_stream);
    if time >= EXTENDED {
        out.put_u32(time);
    }
}

const fn low_byte(number: u32) -> u8 {
    number.to_le_bytes()[0]
}
