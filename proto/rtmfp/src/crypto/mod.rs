//! Sealing and opening packets in place, and what the keys come from (RFC 7425 §4).
//!
//! ```text
//!  datagram  │ session id │ sealed packet                              │
//!  sealed    │            │ AES-128-CBC, zero IV                │ HMAC? │
//!  inside    │            │ sequence? │ checksum? │ plain packet │ 0xff… │
//! ```
//!
//! A packet is either authenticated by an HMAC of its cipher text, cut to a negotiated
//! length, or holds a checksum of its plain text. With session sequence numbers, a packet
//! that came before is refused.

mod authentication;
pub mod dh;
pub mod identity;
pub mod keying;
mod lanes;
mod powers;
mod replay;

use aes::cipher::{Array, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyInit};
use aes::{Aes128Dec, Aes128Enc};
use hmac::Hmac;
use sha2::Sha256;
use subtle::ConstantTimeEq;

pub use dh::{Entropy, Group, KeyPair};

use crate::error::Error;
use crate::vlu;
use authentication::Authentication;
use replay::ReplayWindow;

/// The key of packets before there is a session (§4.1).
pub const DEFAULT_KEY: &[u8; 16] = b"Adobe Systems 02";

/// The length of a cipher block.
pub const BLOCK_LEN: usize = 16;

/// The longest authentication code.
pub const HMAC_LEN_MAX: usize = 32;

const CHECKSUM_LEN: usize = 2;

/// Seals and opens the packets of one session.
///
/// Both work on a sealed packet: what follows the session id of a datagram.
pub trait Suite {
    /// How many bytes the next packet to be sealed needs before its plain text.
    fn head_len(&self) -> usize;

    /// How long the plain text of the next packet may be so that the sealed packet has at
    /// most `max` bytes.
    fn plain_max(&self, max: usize) -> usize;

    /// Seals the plain packet of `plain_len` bytes that begins at
    /// [`head_len`](Self::head_len) of `packet`. Returns the length of the sealed packet.
    ///
    /// # Errors
    /// [`Error::NoRoom`] when `packet` is too short for padding and authentication.
    fn seal(&mut self, packet: &mut [u8], plain_len: usize) -> Result<usize, Error>;

    /// Opens `packet` in place and returns its plain packet. After an error the session is
    /// as before.
    ///
    /// # Errors
    /// [`Error::PacketLength`], [`Error::PacketTooShort`], [`Error::NotAuthentic`],
    /// [`Error::Replayed`].
    fn open<'a>(&mut self, packet: &'a mut [u8]) -> Result<&'a [u8], Error>;
}

/// How packets of one direction are verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verification {
    /// The length of the authentication code, 4 to 32; without one, packets hold a
    /// checksum.
    pub hmac_len: Option<u8>,
    /// Whether packets are numbered.
    pub sequence: bool,
}

impl Verification {
    /// A checksum and no numbers, as before there is a session.
    pub const CHECKSUM: Self = Self {
        hmac_len: None,
        sequence: false,
    };
}

/// An HMAC-SHA256 with this key.
pub(crate) fn keyed(key: &[u8]) -> Hmac<Sha256> {
    match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mac) => mac,
        Err(_) => unreachable!("an HMAC takes keys of every length"),
    }
}

/// The ones' complement sum of RFC 1071. A byte left over counts as the low half of a word.
///
/// The sum is the same in either order of bytes, but for the order of its own (§2 (B)), and
/// whether words are added one or two at a time.
fn checksum(bytes: &[u8]) -> u16 {
    let (pairs, rest) = bytes.as_chunks::<4>();
    let (words, last) = rest.as_chunks::<2>();
    let sum = pairs
        .iter()
        .map(|pair| u64::from(u32::from_le_bytes(*pair)))
        .sum::<u64>()
        + words
            .iter()
            .map(|word| u64::from(u16::from_le_bytes(*word)))
            .sum::<u64>()
        + last.iter().map(|byte| u64::from(*byte) << 8).sum::<u64>();
    let mut folded = sum;
    while folded > 0xffff {
        folded = (folded & 0xffff) + (folded >> 16);
    }
    #[allow(clippy::cast_possible_truncation, reason = "folded to 16 bits")]
    let folded = folded as u16;
    !folded.swap_bytes()
}

/// Seals the packets of one direction.
#[derive(Clone)]
pub struct Sealer {
    cipher: Aes128Enc,
    authentication: Option<Authentication>,
    sequence: Option<u64>,
}

impl Sealer {
    /// Seals with the first half of `key`, and authenticates with `hmac_key`.
    #[must_use]
    pub fn new(key: &[u8; 16], hmac_key: &[u8; 32], verification: Verification) -> Self {
        Self {
            cipher: Aes128Enc::new(&Array(*key)),
            authentication: verification
                .hmac_len
                .map(|len| Authentication::new(hmac_key, len)),
            sequence: verification.sequence.then_some(0),
        }
    }

    fn tail_len(&self) -> usize {
        self.authentication.as_ref().map_or(0, |a| a.len)
    }

    fn plain_max(&self, max: usize) -> usize {
        let blocks = max.saturating_sub(self.tail_len()) / BLOCK_LEN;
        (blocks * BLOCK_LEN).saturating_sub(self.head_len())
    }

    fn head_len(&self) -> usize {
        self.head_len_ahead(0)
    }

    /// The same for the packet that is so many after the next one.
    fn head_len_ahead(&self, ahead: u64) -> usize {
        self.sequence
            .map_or(0, |next| vlu::len(next.wrapping_add(ahead)))
            + if self.authentication.is_some() {
                0
            } else {
                CHECKSUM_LEN
            }
    }

    fn sealed_len(&self, ahead: u64, plain_len: usize) -> usize {
        let inside = self.head_len_ahead(ahead) + plain_len;
        inside.next_multiple_of(BLOCK_LEN) + self.tail_len()
    }

    fn seal(&mut self, packet: &mut [u8], plain_len: usize) -> Result<usize, Error> {
        let len = self.sealed_len(0, plain_len);
        let packet = packet.get_mut(..len).ok_or(Error::NoRoom)?;
        let (blocks, tail) = packet.split_at_mut(len - self.tail_len());
        self.complete(blocks, plain_len)?;
        let mut encryptor = cbc::Encryptor::inner_iv_init(&self.cipher, &Array([0; BLOCK_LEN]));
        encryptor.encrypt_blocks(Array::cast_slice_from_core_mut(as_blocks(blocks)));
        self.authenticate(blocks, tail);
        Ok(len)
    }

    fn seal_row(&mut self, row: &mut [u8], shape: Shape, plain: &[usize]) -> Result<usize, Error> {
        let Shape { stride, skip } = shape;
        let tail_len = self.tail_len();
        let mut total = 0;
        let groups = row.chunks_mut(stride * lanes::LANES);
        for (slots, plain) in groups.zip(plain.chunks(lanes::LANES)) {
            let mut lens = [0; lanes::LANES];
            let mut blocks: [&mut [[u8; BLOCK_LEN]]; lanes::LANES] = Default::default();
            for (index, slot) in slots.chunks_mut(stride).enumerate().take(plain.len()) {
                lens[index] = self.sealed_len(0, plain[index]);
                let end = skip + lens[index] - tail_len;
                let slot = slot.get_mut(skip..end).ok_or(Error::NoRoom)?;
                self.complete(slot, plain[index])?;
                blocks[index] = as_blocks(slot);
            }
            lanes::encrypt(&self.cipher, &mut blocks[..plain.len()]);
            total += lens
                .iter()
                .take(plain.len())
                .map(|len| skip + len)
                .sum::<usize>();
            if let Some(authentication) = &self.authentication {
                let mut messages: [&[u8]; lanes::LANES] = Default::default();
                let mut tails: [&mut [u8]; lanes::LANES] = Default::default();
                for (index, slot) in slots.chunks_mut(stride).enumerate().take(plain.len()) {
                    let sealed = slot.get_mut(skip..skip + lens[index]);
                    let sealed = sealed.ok_or(Error::NoRoom)?;
                    let (blocks, tail) = sealed.split_at_mut(lens[index] - tail_len);
                    (messages[index], tails[index]) = (blocks, tail);
                }
                authentication.codes(&messages[..plain.len()], |index, code| {
                    tails[index].copy_from_slice(&code[..tail_len]);
                });
            }
        }
        Ok(total)
    }

    /// Puts what belongs around the plain text: number, checksum, padding.
    fn complete(&mut self, blocks: &mut [u8], plain_len: usize) -> Result<(), Error> {
        let plain_end = self.head_len() + plain_len;
        blocks[plain_end..].fill(0xff);
        let mut at = 0;
        if let Some(sequence) = &mut self.sequence {
            at = vlu::write(*sequence, blocks).ok_or(Error::NoRoom)?;
            // 2^64 packets will not be sent.
            *sequence = sequence.wrapping_add(1);
        }
        if self.authentication.is_none() {
            let sum = checksum(&blocks[at + CHECKSUM_LEN..]);
            blocks[at..at + CHECKSUM_LEN].copy_from_slice(&sum.to_be_bytes());
        }
        Ok(())
    }

    fn authenticate(&self, blocks: &[u8], tail: &mut [u8]) {
        if let Some(authentication) = &self.authentication {
            let code = authentication.code(blocks);
            tail.copy_from_slice(&code[..authentication.len]);
        }
    }
}

/// Where packets that are sealed together stand in a row of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// From the beginning of one to that of the next.
    pub stride: usize,
    /// Bytes at the beginning of each that are not its own.
    pub skip: usize,
}

fn as_blocks(bytes: &mut [u8]) -> &mut [[u8; BLOCK_LEN]] {
    bytes.as_chunks_mut().0
}

/// Opens the packets of one direction.
#[derive(Clone)]
pub struct Opener {
    cipher: Aes128Dec,
    authentication: Option<Authentication>,
    window: Option<ReplayWindow>,
}

impl Opener {
    /// Opens with the first half of `key`, and authenticates with `hmac_key`.
    #[must_use]
    pub fn new(key: &[u8; 16], hmac_key: &[u8; 32], verification: Verification) -> Self {
        Self {
            cipher: Aes128Dec::new(&Array(*key)),
            authentication: verification
                .hmac_len
                .map(|len| Authentication::new(hmac_key, len)),
            window: verification.sequence.then(ReplayWindow::default),
        }
    }

    fn open<'a>(&mut self, packet: &'a mut [u8]) -> Result<&'a [u8], Error> {
        let wrong_len = Error::PacketLength { len: packet.len() };
        let tail_len = self.authentication.as_ref().map_or(0, |a| a.len);
        let blocks_len = packet.len().checked_sub(tail_len).ok_or(wrong_len)?;
        if blocks_len == 0 || blocks_len % BLOCK_LEN != 0 {
            return Err(wrong_len);
        }
        let (blocks, tail) = packet.split_at_mut(blocks_len);
        if let Some(authentication) = &self.authentication {
            let code = authentication.code(blocks);
            if !bool::from(code[..authentication.len].ct_eq(tail)) {
                return Err(Error::NotAuthentic);
            }
        }
        let mut decryptor = cbc::Decryptor::inner_iv_init(&self.cipher, &Array([0; BLOCK_LEN]));
        decryptor.decrypt_blocks(Array::cast_slice_from_core_mut(as_blocks(blocks)));
        let mut plain = &*blocks;
        let sequence = if self.window.is_some() {
            let too_short = Error::PacketTooShort { len: plain.len() };
            let (sequence, len) = vlu::parse(plain).ok_or(too_short)?;
            plain = &plain[len..];
            sequence
        } else {
            0
        };
        if self.authentication.is_none() {
            let too_short = Error::PacketTooShort { len: plain.len() };
            let (sum, rest) = plain.split_first_chunk().ok_or(too_short)?;
            if u16::from_be_bytes(*sum) != checksum(rest) {
                return Err(Error::NotAuthentic);
            }
            plain = rest;
        }
        if let Some(window) = &mut self.window {
            window.accept(sequence)?;
        }
        Ok(plain)
    }
}

/// The suite of RFC 7425: AES-128-CBC with a checksum or an HMAC.
#[derive(Clone)]
pub struct FlashSuite {
    sealer: Sealer,
    opener: Opener,
}

impl FlashSuite {
    /// A suite of two directions.
    #[must_use]
    pub const fn new(sealer: Sealer, opener: Opener) -> Self {
        Self { sealer, opener }
    }

    /// How many bytes the packet that is `ahead` after the next one needs before its plain
    /// text.
    #[must_use]
    pub fn head_len_ahead(&self, ahead: usize) -> usize {
        self.sealer.head_len_ahead(ahead as u64)
    }

    /// How long the packet that is `ahead` after the next one is once it is sealed.
    #[must_use]
    pub fn sealed_len(&self, ahead: usize, plain_len: usize) -> usize {
        self.sealer.sealed_len(ahead as u64, plain_len)
    }

    /// Seals the next packets, which stand in a row, faster than one by one. `plain` says how
    /// long the plain text of each is; it begins where [`Self::head_len_ahead`] says, behind
    /// what is skipped. Sealed, all but the last are as long as the stride leaves. Returns
    /// the length of the row.
    ///
    /// # Errors
    /// [`Error::NoRoom`] when a packet does not fit the stride, or the last one the row.
    pub fn seal_row(
        &mut self,
        row: &mut [u8],
        shape: Shape,
        plain: &[usize],
    ) -> Result<usize, Error> {
        self.sealer.seal_row(row, shape, plain)
    }

    /// The suite of packets before there is a session. It keeps nothing of the packets it
    /// sees, and one serves for all.
    #[must_use]
    pub fn startup() -> Self {
        let verification = Verification::CHECKSUM;
        Self {
            sealer: Sealer::new(DEFAULT_KEY, &[0; 32], verification),
            opener: Opener::new(DEFAULT_KEY, &[0; 32], verification),
        }
    }
}

impl std::fmt::Debug for FlashSuite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlashSuite").finish_non_exhaustive()
    }
}

impl Suite for FlashSuite {
    fn head_len(&self) -> usize {
        self.sealer.head_len()
    }

    fn plain_max(&self, max: usize) -> usize {
        self.sealer.plain_max(max)
    }

    fn seal(&mut self, packet: &mut [u8], plain_len: usize) -> Result<usize, Error> {
        self.sealer.seal(packet, plain_len)
    }

    fn open<'a>(&mut self, packet: &'a mut [u8]) -> Result<&'a [u8], Error> {
        self.opener.open(packet)
    }
}

#[cfg(test)]
mod tests;
