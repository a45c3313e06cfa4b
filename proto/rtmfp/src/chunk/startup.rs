//! Chunks of the startup, and the fragments of large packets (RFC 7016 §2.3.1 to §2.3.8).

use crate::address::Address;
use crate::wire::{NoRoom, Reader, Writer};

/// A part of a packet that was too large for the path (§2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketFragment<'a> {
    /// Whether more parts follow this one.
    pub more: bool,
    /// Which packet it is a part of.
    pub packet: u64,
    /// Which part it is; the first is 0.
    pub index: u64,
    /// The bytes; never empty.
    pub bytes: &'a [u8],
}

const MORE_FRAGMENTS: u8 = 0x80;

impl<'a> PacketFragment<'a> {
    pub(super) fn parse(reader: &mut Reader<'a>) -> Option<Self> {
        let chunk = Self {
            more: reader.u8()? & MORE_FRAGMENTS != 0,
            packet: reader.vlu()?,
            index: reader.vlu()?,
            bytes: reader.take_rest(),
        };
        (!chunk.bytes.is_empty()).then_some(chunk)
    }

    pub(super) fn write(&self, out: &mut Writer<'_>) -> Result<(), NoRoom> {
        out.u8(if self.more { MORE_FRAGMENTS } else { 0 })?;
        out.vlu(self.packet)?;
        out.vlu(self.index)?;
        out.bytes(self.bytes)
    }
}

/// Who wants to talk with whom (§2.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitiatorHello<'a> {
    /// Whom it is for.
    pub discriminator: &'a [u8],
    /// What the answer is to repeat.
    pub tag: &'a [u8],
}

impl<'a> InitiatorHello<'a> {
    pub(super) fn parse(reader: &mut Reader<'a>) -> Option<Self> {
        Some(Self {
            discriminator: reader.counted()?,
            tag: reader.take_rest(),
        })
    }

    pub(super) fn write(&self, out: &mut Writer<'_>) -> Result<(), NoRoom> {
        out.counted(self.discriminator)?;
        out.bytes(self.tag)
    }
}

/// An [`InitiatorHello`] forwarded over an established session (§2.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardedHello<'a> {
    /// Whom it is for.
    pub discriminator: &'a [u8],
    /// Where the initiator was seen, and where to answer.
    pub reply: Address,
    /// What the answer is to repeat.
    pub tag: &'a [u8],
}

impl<'a> ForwardedHello<'a> {
    pub(super) fn parse(reader: &mut Reader<'a>) -> Option<Self> {
        Some(Self {
            discriminator: reader.counted()?,
            reply: Address::take(reader)?,
            tag: reader.take_rest(),
        })
    }

    pub(super) fn write(&self, out: &mut Writer<'_>) -> Result<(), NoRoom> {
        out.counted(self.discriminator)?;
        self.reply.write(out)?;
        out.bytes(self.tag)
    }
}

/// The one who is wanted is here (§2.3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponderHello<'a> {
    /// The tag of the hello that it answers.
    pub tag: &'a [u8],
    /// What the initiator is to repeat, and all that the responder remembers of it.
    pub cookie: &'a [u8],
    /// Who the responder is.
    pub certificate: &'a [u8],
}

impl<'a> ResponderHello<'a> {
    pub(super) fn parse(reader: &mut Reader<'a>) -> Option<Self> {
        Some(Self {
            tag: reader.counted()?,
            cookie: reader.counted()?,
            certificate: reader.take_rest(),
        })
    }

    pub(super) fn write(&self, out: &mut Writer<'_>) -> Result<(), NoRoom> {
        out.counted(self.tag)?;
        out.counted(self.cookie)?;
        out.bytes(self.certificate)
    }
}

/// Addresses in a [`Redirect`], in the wire's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redirects<'a> {
    /// As they were received. Their syntax was found right.
    Wire(&'a [u8]),
    /// To be written.
    List(&'a [Address]),
}

impl<'a> Redirects<'a> {
    /// The addresses, in order.
    pub fn iter(&self) -> impl Iterator<Item = Address> + use<'a> {
        let (mut wire, list): (Reader<'a>, &'a [Address]) = match *self {
            Self::Wire(bytes) => (Reader::new(bytes), &[]),
            Self::List(list) => (Reader::new(&[]), list),
        };
        std::iter::from_fn(move || Address::take(&mut wire)).chain(list.iter().copied())
    }
}

/// The one who is wanted is elsewhere (§2.3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirect<'a> {
    /// The tag of the hello that it answers.
    pub tag: &'a [u8],
    /// Where to ask. With none, the address that this packet came from is meant: an
    /// *implied redirect*, which opens a NAT on both sides.
    pub to: Redirects<'a>,
}

impl<'a> Redirect<'a> {
    pub(super) fn parse(reader: &mut Reader<'a>) -> Option<Self> {
        let tag = reader.counted()?;
        let to = reader.rest();
        while !reader.is_empty() {
            Address::take(reader)?;
        }
        Some(Self {
            tag,
            to: Redirects::Wire(to),
        })
    }

    pub(super) fn write(&self, out: &mut Writer<'_>) -> Result<(), NoRoom> {
        out.counted(self.tag)?;
        match self.to {
            Redirects::Wire(bytes) => out.bytes(bytes),
            Redirects::List(list) => list.iter().try_for_each(|address| address.write(out)),
        }
    }
}

/// The cookie was made for another address; here is a new one (§2.3.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponderHelloCookieChange<'a> {
    /// The cookie that was refused.
    pub old: &'a [u8],
    /// The one to use and sign instead.
    pub new: &'a [u8],
}

impl<'a> ResponderHelloCookieChange<'a> {
    pub(super) fn parse(reader: &mut Reader<'a>) -> Option<Self> {
        Some(Self {
            old: reader.counted()?,
            new: reader.take_rest(),
        })
    }

    pub(super) fn write(&self, out: &mut Writer<'_>) -> Result<(), NoRoom> {
        out.counted(self.old)?;
        out.bytes(self.new)
    }
}

/// The initiator's part of the keys (§2.3.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitiatorKeying<'a> {
    /// The id that packets to the initiator are to carry.
    pub session: u32,
    /// The responder's cookie.
    pub cookie: &'a [u8],
    /// Who the initiator is.
    pub certificate: &'a [u8],
    /// Its part of the key agreement.
    pub component: &'a [u8],
    /// Its signature of all of the above.
    pub signature: &'a [u8],
}

impl<'a> InitiatorKeying<'a> {
    pub(super) fn parse(reader: &mut Reader<'a>) -> Option<Self> {
        Some(Self {
            session: reader.u32()?,
            cookie: reader.counted()?,
            certificate: reader.counted()?,
            component: reader.counted()?,
            signature: reader.take_rest(),
        })
    }

    /// Writes what the signature is of.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn write_signed(&self, out: &mut Writer<'_>) -> Result<(), NoRoom> {
        out.u32(self.session)?;
        out.counted(self.cookie)?;
        out.counted(self.certificate)?;
        out.counted(self.component)
    }

    pub(super) fn write(&self, out: &mut Writer<'_>) -> Result<(), NoRoom> {
        self.write_signed(out)?;
        out.bytes(self.signature)
    }
}

/// The responder's part of the keys (§2.3.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponderKeying<'a> {
    /// The id that packets to the responder are to carry.
    pub session: u32,
    /// Its part of the key agreement.
    pub component: &'a [u8],
    /// Its signature of the above and of the initiator's component.
    pub signature: &'a [u8],
}

impl<'a> ResponderKeying<'a> {
    pub(super) fn parse(reader: &mut Reader<'a>) -> Option<Self> {
        Some(Self {
            session: reader.u32()?,
            component: reader.counted()?,
            signature: reader.take_rest(),
        })
    }

    pub(super) fn write(&self, out: &mut Writer<'_>) -> Result<(), NoRoom> {
        out.u32(self.session)?;
        out.counted(self.component)?;
        out.bytes(self.signature)
    }
}
