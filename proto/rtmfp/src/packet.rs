//! Packets: the session id before them and the header of the plain text (RFC 7016 §2.2).
//!
//! ```text
//!  datagram   │ scrambled session id │ sealed packet …
//!  plain      │ flags │ timestamp? │ timestamp echo? │ chunks … │ padding
//! ```
//!
//! Writing goes through [`PacketWriter`] into a buffer of the caller's; sealing happens in
//! place afterwards ([`crate::crypto`]).

use crate::chunk::{Chunk, Chunks};
use crate::error::Error;
use crate::wire::{NoRoom, Reader, Writer};

/// The length of the scrambled session id that a datagram begins with.
pub const SESSION_ID_LEN: usize = 4;

/// The session id of packets before there is a session.
pub const STARTUP_SESSION: u32 = 0;

/// The longest header of a plain packet.
pub const HEADER_MAX: usize = 5;

/// What the first eight bytes of a sealed packet add to the session id (§2.2.2). A shorter
/// packet counts as though zeros followed.
fn scramble(sealed: &[u8]) -> u32 {
    let mut words = [0; 8];
    let len = sealed.len().min(words.len());
    words[..len].copy_from_slice(&sealed[..len]);
    let [a, b, c, d, e, f, g, h] = words;
    u32::from_be_bytes([a, b, c, d]) ^ u32::from_be_bytes([e, f, g, h])
}

/// Which session a datagram belongs to, and its sealed packet.
///
/// # Errors
/// [`Error::PacketTooShort`] when it has no session id or nothing after it.
pub fn open_multiplex(datagram: &mut [u8]) -> Result<(u32, &mut [u8]), Error> {
    let len = datagram.len();
    match datagram.split_first_chunk_mut::<SESSION_ID_LEN>() {
        Some((id, sealed)) if !sealed.is_empty() => {
            Ok((u32::from_be_bytes(*id) ^ scramble(sealed), sealed))
        }
        Some(_) | None => Err(Error::PacketTooShort { len }),
    }
}

/// Which session a datagram belongs to. Nothing when it has no session id or nothing after
/// it.
#[must_use]
pub fn session_of(datagram: &[u8]) -> Option<u32> {
    let (id, sealed) = datagram.split_first_chunk::<SESSION_ID_LEN>()?;
    (!sealed.is_empty()).then(|| u32::from_be_bytes(*id) ^ scramble(sealed))
}

/// Writes `session` to the first four bytes of `datagram`, scrambled by the sealed packet
/// after them. A datagram without room for it stays as it is.
pub fn seal_multiplex(datagram: &mut [u8], session: u32) {
    if let Some((id, sealed)) = datagram.split_first_chunk_mut::<SESSION_ID_LEN>() {
        *id = (session ^ scramble(sealed)).to_be_bytes();
    }
}

/// Who sends a packet, or that there is no session yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The one who began the session sends it.
    Initiator = 1,
    /// The one who answered sends it.
    Responder = 2,
    /// It belongs to a session's startup.
    Startup = 3,
}

impl Mode {
    /// The mode that a session's other end uses; startup stays startup.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Initiator => Self::Responder,
            Self::Responder => Self::Initiator,
            Self::Startup => Self::Startup,
        }
    }
}

/// The header of a plain packet (§2.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Who sends it.
    pub mode: Mode,
    /// It carries data of real time.
    pub time_critical: bool,
    /// Its sender receives data of real time from others.
    pub time_critical_reverse: bool,
    /// When it was sent: the low 16 bits of a clock of 4 ms.
    pub timestamp: Option<u16>,
    /// What the receiver's own timestamp is taken to be at that moment.
    pub timestamp_echo: Option<u16>,
}

const TIME_CRITICAL: u8 = 0x80;
const TIME_CRITICAL_REVERSE: u8 = 0x40;
const TIMESTAMP: u8 = 0x08;
const TIMESTAMP_ECHO: u8 = 0x04;

impl Header {
    /// A header of `mode` without any flag.
    #[must_use]
    pub const fn new(mode: Mode) -> Self {
        Self {
            mode,
            time_critical: false,
            time_critical_reverse: false,
            timestamp: None,
            timestamp_echo: None,
        }
    }

    /// The header of a startup packet. Its first byte is 0x0b, as some clients demand.
    #[must_use]
    pub const fn startup(timestamp: u16) -> Self {
        let mut header = Self::new(Mode::Startup);
        header.timestamp = Some(timestamp);
        header
    }

    /// Takes a header off the front of `reader`.
    fn take(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let too_short = Error::PacketTooShort {
            len: reader.rest().len(),
        };
        let flags = reader.u8().ok_or(too_short)?;
        let mode = match flags & 3 {
            1 => Mode::Initiator,
            2 => Mode::Responder,
            3 => Mode::Startup,
            _ => return Err(Error::PacketMode),
        };
        let mut optional = |bit| {
            if flags & bit == 0 {
                Ok(None)
            } else {
                reader.u16().ok_or(too_short).map(Some)
            }
        };
        Ok(Self {
            mode,
            time_critical: flags & TIME_CRITICAL != 0,
            time_critical_reverse: flags & TIME_CRITICAL_REVERSE != 0,
            timestamp: optional(TIMESTAMP)?,
            timestamp_echo: optional(TIMESTAMP_ECHO)?,
        })
    }

    /// How many bytes it takes on the wire, 1 to [`HEADER_MAX`].
    #[must_use]
    pub const fn wire_len(&self) -> usize {
        1 + 2 * (self.timestamp.is_some() as usize + self.timestamp_echo.is_some() as usize)
    }

    fn flags(&self) -> u8 {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        flag(self.time_critical, TIME_CRITICAL)
            | flag(self.time_critical_reverse, TIME_CRITICAL_REVERSE)
            | flag(self.timestamp.is_some(), TIMESTAMP)
            | flag(self.timestamp_echo.is_some(), TIMESTAMP_ECHO)
            | self.mode as u8
    }

    fn write(&self, out: &mut Writer<'_>) -> Result<(), NoRoom> {
        if out.room() < self.wire_len() {
            return Err(NoRoom);
        }
        out.u8(self.flags())?;
        for word in [self.timestamp, self.timestamp_echo].into_iter().flatten() {
            out.u16(word)?;
        }
        Ok(())
    }
}

/// A plain packet that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Its header.
    pub header: Header,
    body: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads the header of a plain packet.
    ///
    /// # Errors
    /// [`Error::PacketTooShort`] when it ends inside its header, [`Error::PacketMode`] when
    /// it has the forbidden mode 0.
    pub fn parse(plain: &'a [u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(plain);
        Ok(Self {
            header: Header::take(&mut reader)?,
            body: reader.rest(),
        })
    }

    /// The chunks that are understood and have a place in a packet of this mode.
    #[must_use]
    pub const fn chunks(&self) -> Chunks<'a> {
        Chunks::new(self.header.mode, self.body)
    }
}

/// Writes one plain packet into a buffer of the caller's.
#[derive(Debug)]
pub struct PacketWriter<'a> {
    out: Writer<'a>,
    header_len: usize,
}

impl<'a> PacketWriter<'a> {
    /// Begins a packet in `buffer`, which is as long as the packet may become.
    ///
    /// # Errors
    /// When not even the header has room.
    pub fn new(buffer: &'a mut [u8], header: &Header) -> Result<Self, NoRoom> {
        let mut out = Writer::new(buffer);
        header.write(&mut out)?;
        let header_len = out.len();
        Ok(Self { out, header_len })
    }

    /// Appends a chunk.
    ///
    /// # Errors
    /// When there is no room for all of it; nothing is written then.
    pub fn chunk(&mut self, chunk: &Chunk<'_>) -> Result<(), NoRoom> {
        chunk.write(&mut self.out)
    }

    /// What is behind it, for [`crate::chunk::write_ack`].
    pub const fn writer(&mut self) -> &mut Writer<'a> {
        &mut self.out
    }

    /// How many bytes more there is room for, chunk headers included.
    #[must_use]
    pub const fn room(&self) -> usize {
        self.out.room()
    }

    /// Whether there is no chunk in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.out.len() == self.header_len
    }

    /// Says that the packet carries data of real time, which is often known only when
    /// its chunks are chosen.
    pub fn mark_time_critical(&mut self) {
        self.out.patch_u8(0, |flags| flags | TIME_CRITICAL);
    }

    /// The length of the packet.
    #[must_use]
    pub const fn finish(self) -> usize {
        self.out.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_id_survives_packets_of_every_length() {
        for len in 1..12 {
            let mut datagram: Vec<u8> = (0..4 + len).map(|n: u8| n.wrapping_mul(29)).collect();
            seal_multiplex(&mut datagram, 0x0102_0304);
            let (session, sealed) = open_multiplex(&mut datagram).unwrap();
            assert_eq!((session, sealed.len()), (0x0102_0304, usize::from(len)));
        }
    }

    #[test]
    fn a_session_id_is_scrambled_by_the_first_two_words() {
        let mut datagram = [0, 0, 0, 0, 1, 2, 3, 4, 0x10, 0x20, 0x30, 0x40, 99];
        seal_multiplex(&mut datagram, 0xff00_0000);
        assert_eq!(datagram[..4], [0xff ^ 0x11, 0x22, 0x33, 0x44]);
    }

    #[test]
    fn a_datagram_without_a_packet_has_no_session() {
        for len in 0..=4 {
            let wrong = open_multiplex(&mut [0; 4][..len]).unwrap_err();
            assert_eq!(wrong, Error::PacketTooShort { len });
        }
    }

    #[test]
    fn every_header_is_written_and_read() {
        for bits in 0..64_u16 {
            let header = Header {
                mode: [Mode::Initiator, Mode::Responder, Mode::Startup][usize::from(bits % 3)],
                time_critical: bits & 4 != 0,
                time_critical_reverse: bits & 8 != 0,
                timestamp: (bits & 16 != 0).then_some(0x1234),
                timestamp_echo: (bits & 32 != 0).then_some(0xabcd),
            };
            let mut buffer = [0; HEADER_MAX + 3];
            let mut packet = PacketWriter::new(&mut buffer, &header).unwrap();
            if bits % 3 != 2 {
                packet.chunk(&Chunk::Close).unwrap();
            }
            let len = packet.finish();
            let read = Packet::parse(&buffer[..len]).unwrap();
            assert_eq!(read.header, header);
            for cut in 0..header.wire_len() {
                assert_eq!(
                    Packet::parse(&buffer[..cut]),
                    Err(Error::PacketTooShort { len: cut })
                );
            }
        }
    }

    #[test]
    fn a_startup_packet_begins_with_0x0b() {
        let mut buffer = [0; 3];
        let packet = PacketWriter::new(&mut buffer, &Header::startup(0xc429)).unwrap();
        assert_eq!(packet.finish(), 3);
        assert_eq!(buffer, [0x0b, 0xc4, 0x29]);
    }

    #[test]
    fn mode_zero_is_refused() {
        assert_eq!(Packet::parse(&[0x80]), Err(Error::PacketMode));
    }
}
