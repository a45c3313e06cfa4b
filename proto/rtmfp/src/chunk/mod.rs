//! The chunks of a packet (RFC 7016 §2.3).
//!
//! [`Chunks`] walks over what follows a packet's header. It gives what it understands and
//! counts what it steps over: a chunk of an unknown type, one whose payload is not what its
//! type says, and one that has no place in a packet of this mode are as though they were not
//! there, and never harm the chunks after them. All parsed chunks borrow from the packet.
//!
//! [`Chunk::write`] puts one into a caller's buffer, whole or not at all.

mod ack;
mod flow;
mod startup;

pub use ack::{Ack, AckForm, Received, write_ack};
pub use flow::{Fragment, UserData};
pub use startup::{
    ForwardedHello, InitiatorHello, InitiatorKeying, PacketFragment, Redirect, Redirects,
    ResponderHello, ResponderHelloCookieChange, ResponderKeying,
};

use crate::packet::Mode;
use crate::wire::{NoRoom, Reader, Writer};

/// The type codes of chunks.
pub mod kind {
    /// Packet Fragment (§2.3.1).
    pub const PACKET_FRAGMENT: u8 = 0x7f;
    /// Initiator Hello (§2.3.2).
    pub const INITIATOR_HELLO: u8 = 0x30;
    /// Forwarded Initiator Hello (§2.3.3).
    pub const FORWARDED_HELLO: u8 = 0x0f;
    /// Responder Hello (§2.3.4).
    pub const RESPONDER_HELLO: u8 = 0x70;
    /// Responder Redirect (§2.3.5).
    pub const REDIRECT: u8 = 0x71;
    /// Responder Hello Cookie Change (§2.3.6).
    pub const COOKIE_CHANGE: u8 = 0x79;
    /// Initiator Initial Keying (§2.3.7).
    pub const INITIATOR_KEYING: u8 = 0x38;
    /// Responder Initial Keying (§2.3.8).
    pub const RESPONDER_KEYING: u8 = 0x78;
    /// Ping (§2.3.9).
    pub const PING: u8 = 0x01;
    /// Ping Reply (§2.3.10).
    pub const PING_REPLY: u8 = 0x41;
    /// User Data (§2.3.11).
    pub const USER_DATA: u8 = 0x10;
    /// Next User Data (§2.3.12).
    pub const NEXT_USER_DATA: u8 = 0x11;
    /// Data Acknowledgement Bitmap (§2.3.13).
    pub const ACK_BITMAP: u8 = 0x50;
    /// Data Acknowledgement Ranges (§2.3.14).
    pub const ACK_RANGES: u8 = 0x51;
    /// Buffer Probe (§2.3.15).
    pub const BUFFER_PROBE: u8 = 0x18;
    /// Flow Exception Report (§2.3.16).
    pub const FLOW_EXCEPTION: u8 = 0x5e;
    /// Session Close Request (§2.3.17).
    pub const CLOSE: u8 = 0x0c;
    /// Session Close Acknowledgement (§2.3.18).
    pub const CLOSE_ACK: u8 = 0x4c;
    /// Padding of zeros.
    pub const PADDING_ZERO: u8 = 0x00;
    /// Padding of ones.
    pub const PADDING_ONES: u8 = 0xff;
}

/// The bytes before a chunk's payload: its type and the payload's length.
pub const HEADER_LEN: usize = 3;

/// One chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunk<'a> {
    /// A part of a packet that was too large for the path.
    PacketFragment(PacketFragment<'a>),
    /// Who wants to talk with whom.
    InitiatorHello(InitiatorHello<'a>),
    /// The same, forwarded by one who knows whom it is for.
    ForwardedHello(ForwardedHello<'a>),
    /// The one who is wanted is here.
    ResponderHello(ResponderHello<'a>),
    /// The one who is wanted is elsewhere.
    Redirect(Redirect<'a>),
    /// The cookie was for another address; here is a new one.
    CookieChange(ResponderHelloCookieChange<'a>),
    /// The initiator's part of the keys.
    InitiatorKeying(InitiatorKeying<'a>),
    /// The responder's part of the keys.
    ResponderKeying(ResponderKeying<'a>),
    /// Asks for its message to be sent back.
    Ping(&'a [u8]),
    /// The message of a ping.
    PingReply(&'a [u8]),
    /// A fragment of a flow.
    UserData(UserData<'a>),
    /// The fragment after the one before it in the same packet. What the wire leaves out
    /// (flow, sequence number, forward sequence number) is filled in.
    NextUserData(UserData<'a>),
    /// What a receiver has of a flow, in either form.
    Ack(Ack<'a>),
    /// Asks for an acknowledgement at once.
    BufferProbe {
        /// The flow.
        flow: u64,
    },
    /// The receiver wants the flow to end.
    FlowException {
        /// The flow.
        flow: u64,
        /// Why; zero when no application said why.
        code: u64,
    },
    /// The session ends.
    Close,
    /// The session has ended.
    CloseAck,
}

impl<'a> Chunk<'a> {
    /// Its type code.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        match self {
            Self::PacketFragment(_) => kind::PACKET_FRAGMENT,
            Self::InitiatorHello(_) => kind::INITIATOR_HELLO,
            Self::ForwardedHello(_) => kind::FORWARDED_HELLO,
            Self::ResponderHello(_) => kind::RESPONDER_HELLO,
            Self::Redirect(_) => kind::REDIRECT,
            Self::CookieChange(_) => kind::COOKIE_CHANGE,
            Self::InitiatorKeying(_) => kind::INITIATOR_KEYING,
            Self::ResponderKeying(_) => kind::RESPONDER_KEYING,
            Self::Ping(_) => kind::PING,
            Self::PingReply(_) => kind::PING_REPLY,
            Self::UserData(_) => kind::USER_DATA,
            Self::NextUserData(_) => kind::NEXT_USER_DATA,
            Self::Ack(ack) => match ack.form {
                AckForm::Bitmap => kind::ACK_BITMAP,
                AckForm::Ranges => kind::ACK_RANGES,
            },
            Self::BufferProbe { .. } => kind::BUFFER_PROBE,
            Self::FlowException { .. } => kind::FLOW_EXCEPTION,
            Self::Close => kind::CLOSE,
            Self::CloseAck => kind::CLOSE_ACK,
        }
    }

    /// Whether it may stand in a packet of this mode (§2.2.4).
    #[must_use]
    pub const fn allowed_in(&self, mode: Mode) -> bool {
        match self {
            // A fragment carries a packet of any mode; what is in it is judged when whole.
            Self::PacketFragment(_) => true,
            Self::InitiatorHello(_)
            | Self::ResponderHello(_)
            | Self::Redirect(_)
            | Self::CookieChange(_)
            | Self::InitiatorKeying(_)
            | Self::ResponderKeying(_) => matches!(mode, Mode::Startup),
            Self::ForwardedHello(_)
            | Self::Ping(_)
            | Self::PingReply(_)
            | Self::UserData(_)
            | Self::NextUserData(_)
            | Self::Ack(_)
            | Self::BufferProbe { .. }
            | Self::FlowException { .. }
            | Self::Close
            | Self::CloseAck => matches!(mode, Mode::Initiator | Mode::Responder),
        }
    }

    /// Writes it with its header.
    ///
    /// # Errors
    /// When there is no room for all of it, or its payload is longer than 65535 bytes;
    /// nothing is written then.
    pub fn write(&self, out: &mut Writer<'_>) -> Result<(), NoRoom> {
        write_chunk(out, self.kind(), |out| match self {
            Self::PacketFragment(chunk) => chunk.write(out),
            Self::InitiatorHello(chunk) => chunk.write(out),
            Self::ForwardedHello(chunk) => chunk.write(out),
            Self::ResponderHello(chunk) => chunk.write(out),
            Self::Redirect(chunk) => chunk.write(out),
            Self::CookieChange(chunk) => chunk.write(out),
            Self::InitiatorKeying(chunk) => chunk.write(out),
            Self::ResponderKeying(chunk) => chunk.write(out),
            Self::Ping(message) | Self::PingReply(message) => out.bytes(message),
            Self::UserData(chunk) => chunk.write(out),
            Self::NextUserData(chunk) => chunk.write_next(out),
            Self::Ack(chunk) => chunk.write(out),
            Self::BufferProbe { flow } => out.vlu(*flow),
            Self::FlowException { flow, code } => {
                out.vlu(*flow)?;
                out.vlu(*code)
            }
            Self::Close | Self::CloseAck => Ok(()),
        })
    }

    /// `None` when the payload is not what the type says, or the type is not known.
    fn parse(kind: u8, payload: &'a [u8], before: Option<&UserData<'a>>) -> Option<Self> {
        let mut reader = Reader::new(payload);
        let reader = &mut reader;
        Some(match kind {
            kind::PACKET_FRAGMENT => Self::PacketFragment(PacketFragment::parse(reader)?),
            kind::INITIATOR_HELLO => Self::InitiatorHello(InitiatorHello::parse(reader)?),
            kind::FORWARDED_HELLO => Self::ForwardedHello(ForwardedHello::parse(reader)?),
            kind::RESPONDER_HELLO => Self::ResponderHello(ResponderHello::parse(reader)?),
            kind::REDIRECT => Self::Redirect(Redirect::parse(reader)?),
            kind::COOKIE_CHANGE => Self::CookieChange(ResponderHelloCookieChange::parse(reader)?),
            kind::INITIATOR_KEYING => Self::InitiatorKeying(InitiatorKeying::parse(reader)?),
            kind::RESPONDER_KEYING => Self::ResponderKeying(ResponderKeying::parse(reader)?),
            kind::PING => Self::Ping(payload),
            kind::PING_REPLY => Self::PingReply(payload),
            kind::USER_DATA => Self::UserData(UserData::parse(reader)?),
            kind::NEXT_USER_DATA => Self::NextUserData(UserData::parse_next(reader, before?)?),
            kind::ACK_BITMAP => Self::Ack(Ack::parse(AckForm::Bitmap, reader)?),
            kind::ACK_RANGES => Self::Ack(Ack::parse(AckForm::Ranges, reader)?),
            kind::BUFFER_PROBE => Self::BufferProbe {
                flow: reader.vlu()?,
            },
            kind::FLOW_EXCEPTION => Self::FlowException {
                flow: reader.vlu()?,
                code: reader.vlu()?,
            },
            kind::CLOSE => Self::Close,
            kind::CLOSE_ACK => Self::CloseAck,
            _ => return None,
        })
    }
}

/// Writes a chunk's header, and its payload by `payload`; nothing when that has no room.
fn write_chunk(
    out: &mut Writer<'_>,
    kind: u8,
    payload: impl FnOnce(&mut Writer<'_>) -> Result<(), NoRoom>,
) -> Result<(), NoRoom> {
    let before = out.len();
    let result = out
        .bytes(&[kind, 0, 0])
        .and_then(|()| payload(out))
        .and_then(|()| u16::try_from(out.len() - before - HEADER_LEN).map_err(|_| NoRoom));
    match result {
        Ok(len) => {
            out.patch_u16(before + 1, len);
            Ok(())
        }
        Err(NoRoom) => {
            out.truncate(before);
            Err(NoRoom)
        }
    }
}

/// Walks over the chunks of one packet.
#[derive(Clone, Debug)]
pub struct Chunks<'a> {
    rest: Reader<'a>,
    mode: Mode,
    before: Option<UserData<'a>>,
    skipped: u32,
}

impl<'a> Chunks<'a> {
    /// Walks over `bytes`, which follow the header of a packet of `mode`.
    #[must_use]
    pub const fn new(mode: Mode, bytes: &'a [u8]) -> Self {
        Self {
            rest: Reader::new(bytes),
            mode,
            before: None,
            skipped: 0,
        }
    }

    /// How many chunks were stepped over so far, padding not counted.
    #[must_use]
    pub const fn skipped(&self) -> u32 {
        self.skipped
    }

    /// The next chunk, whatever it holds.
    fn next_raw(&mut self) -> Option<(u8, &'a [u8])> {
        let kind = self.rest.u8()?;
        let len = self.rest.u16()?;
        Some((kind, self.rest.bytes(usize::from(len))?))
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Chunk<'a>;

    fn next(&mut self) -> Option<Chunk<'a>> {
        loop {
            // What does not fit is padding (§2.2.4): the end.
            let (kind, payload) = self.next_raw()?;
            if kind == kind::PADDING_ZERO || kind == kind::PADDING_ONES {
                continue;
            }
            let chunk = Chunk::parse(kind, payload, self.before.as_ref())
                .filter(|chunk| chunk.allowed_in(self.mode));
            match &chunk {
                Some(Chunk::UserData(data) | Chunk::NextUserData(data)) => {
                    self.before = Some(*data);
                }
                // A Next User Data counts on from the chunk before it. If that could not be
                // read, the numbers would belong to other fragments.
                None if kind == kind::USER_DATA || kind == kind::NEXT_USER_DATA => {
                    self.before = None;
                }
                Some(_) | None => {}
            }
            match chunk {
                Some(chunk) => return Some(chunk),
                None => self.skipped = self.skipped.saturating_add(1),
            }
        }
    }
}

#[cfg(test)]
mod tests;
