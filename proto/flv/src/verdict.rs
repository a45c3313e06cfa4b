//! The verdict, and what audio and video have in common in enhanced RTMP.

use model::{Class, FourCc, Slot};

use crate::limits::TRACKS_MAX;

/// What a media message is, read from its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What a cache must know.
    pub class: Class,
    /// The codec; of several in one message, the first. [`FourCc::NONE`] when the message
    /// is too short to say, or is a command.
    pub codec: FourCc,
    /// Which track, see [`slot`].
    pub slot: Slot,
}

/// How the slots of audio and video frames are laid out.
///
/// Bits 0 to 7 are the track id (0 without multitrack), so a slot below 256 is a single
/// track. The other bits keep apart what may be in force side by side on one track.
pub mod slot {
    /// Configuration beside the codec's own: video metadata (`colorInfo`) and the channel
    /// map of multichannel audio.
    pub const SIDE: u32 = 1 << 8;
    /// The message carries several tracks; the track id is that of the first. For
    /// configurations the bits from 10 up are a hash of all ids.
    pub const BUNDLE: u32 = 1 << 9;
}

/// A cursor over the first bytes of a payload; what is missing is `None`.
pub(crate) struct Head<'a>(&'a [u8]);

impl<'a> Head<'a> {
    pub(crate) const fn new(payload: &'a [u8]) -> Self {
        Self(payload)
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// Two halves of a byte, the high one first.
    pub(crate) fn nibbles(&mut self) -> Option<(u8, u8)> {
        self.byte().map(|byte| (byte >> 4, byte & 0xf))
    }

    pub(crate) fn skip(&mut self, len: usize) -> Option<()> {
        self.0 = self.0.get(len..)?;
        Some(())
    }

    pub(crate) fn fourcc(&mut self) -> Option<FourCc> {
        let (code, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(FourCc(*code))
    }

    fn u24(&mut self) -> Option<usize> {
        let ([a, b, c], rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes([0, *a, *b, *c]) as usize)
    }

    /// Skips the `ModEx` packets in front of the real one and gives its type
    /// (enhanced RTMP v2, ExVideoTagHeader and ExAudioTagHeader: the same in both).
    pub(crate) fn skip_mod_ex(&mut self, mut packet_type: u8) -> Option<u8> {
        while packet_type == MOD_EX {
            let mut len = usize::from(self.byte()?) + 1;
            if len == 256 {
                len = (usize::from(self.byte()?) << 8 | usize::from(self.byte()?)) + 1;
            }
            self.skip(len)?;
            (_, packet_type) = self.nibbles()?;
        }
        Some(packet_type)
    }

    /// Reads what follows a packet type of `Multitrack`.
    pub(crate) fn tracks(&mut self) -> Option<Tracks> {
        let (layout, packet_type) = self.nibbles()?;
        let shared = if layout == MANY_TRACKS_MANY_CODECS {
            None
        } else {
            Some(self.fourcc()?)
        };
        let own = |head: &mut Self| shared.map_or_else(|| head.fourcc(), Some);
        let codec = own(self)?;
        let first = self.byte()?;
        let mut tracks = Tracks {
            packet_type,
            codec,
            first,
            ids: None,
        };
        if layout == ONE_TRACK {
            return Some(tracks);
        }
        let mut ids = Fnv::new().byte(first);
        for _ in 1..TRACKS_MAX {
            // A size that leads past the end is the last track's; a receiver cannot find
            // another one behind it either.
            let next = self.u24().and_then(|len| self.skip(len)).and_then(|()| {
                own(self)?;
                self.byte()
            });
            let Some(id) = next else { break };
            ids = ids.byte(id);
            tracks.ids = Some(ids);
        }
        Some(tracks)
    }
}

/// The head of a multitrack message.
pub(crate) struct Tracks {
    pub(crate) packet_type: u8,
    pub(crate) codec: FourCc,
    /// The first track's id.
    first: u8,
    /// A hash over all ids, if there are several.
    ids: Option<Fnv>,
}

impl Tracks {
    pub(crate) fn slot(&self, class: Class) -> Slot {
        let first = u32::from(self.first);
        match (self.ids, class) {
            (None, _) => Slot(first),
            // Two bundles with different tracks must not replace each other.
            (Some(ids), Class::Config) => Slot((ids.finish() << 10) | slot::BUNDLE | first),
            (Some(_), Class::Clear | Class::Key | Class::Delta | Class::Audio | Class::Data) => {
                Slot(slot::BUNDLE | first)
            }
        }
    }
}

/// FNV-1a with 32 bits: the same everywhere and always, since slots travel between
/// processes.
#[derive(Clone, Copy)]
pub(crate) struct Fnv(u32);

impl Fnv {
    pub(crate) const fn new() -> Self {
        Self(0x811c_9dc5)
    }

    pub(crate) const fn byte(self, byte: u8) -> Self {
        Self((self.0 ^ byte as u32).wrapping_mul(0x0100_0193))
    }

    pub(crate) fn bytes(self, bytes: &[u8]) -> Self {
        bytes.iter().fold(self, |hash, byte| hash.byte(*byte))
    }

    pub(crate) const fn finish(self) -> u32 {
        self.0
    }
}

/// The packet type that stands for an extension in front of the real one.
pub(crate) const MOD_EX: u8 = 7;
const ONE_TRACK: u8 = 0;
const MANY_TRACKS_MANY_CODECS: u8 = 2;
