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

pub mod dh;
pub mod identity;
pub mod keying;
mod replay;

use aes::Aes128;
use aes::cipher::{Array, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyInit};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

pub use dh::{Entropy, Group, KeyPair};

use crate::error::Error;
use crate::vlu;
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

#[derive(Clone)]
struct Authentication {
    keyed: Hmac<Sha256>,
    len: usize,
}

impl Authentication {
    fn new(key: &[u8; 32], len: u8) -> Self {
        Self {
            keyed: keyed(key),
            len: usize::from(len).min(HMAC_LEN_MAX),
        }
    }

    fn code(&self, blocks: &[u8]) -> [u8; 32] {
        let mut mac = self.keyed.clone();
        mac.update(blocks);
        mac.finalize().into_bytes().into()
    }
}

/// An HMAC-SHA256 with this key.
pub(crate) fn keyed(key: &[u8]) -> Hmac<Sha256> {
    match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mac) => mac,
        Err(_) => unreachable!("an HMAC takes keys of every length"),
    }
}

/// The ones' complement sum of RFC 1071. A byte left over counts as the low half of a word.
fn checksum(bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<2>();
    let sum = words
        .iter()
        .map(|word| u64::from(u16::from_be_bytes(*word)))
        .sum::<u64>()
        + rest.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    let mut folded = sum;
    while folded > 0xffff {
        folded = (folded & 0xffff) + (folded >> 16);
    }
    #[allow(clippy::cast_possible_truncation, reason = "folded to 16 bits")]
    let folded = folded as u16;
    !folded
}

/// Seals the packets of one direction.
#[derive(Clone)]
pub struct Sealer {
    cipher: Aes128,
    authentication: Option<Authentication>,
    sequence: Option<u64>,
}

impl Sealer {
    /// Seals with the first half of `key`, and authenticates with `hmac_key`.
    #[must_use]
    pub fn new(key: &[u8; 16], hmac_key: &[u8; 32], verification: Verification) -> Self {
        Self {
            cipher: Aes128::new(&Array(*key)),
            authentication: verification
                .hmac_len
                .map(|len| Authentication::new(hmac_key, len)),
            sequence: verification.sequence.then_some(0),
        }
    }

    fn tail_len(&self) -> usize {
        self.authentication.as_ref().map_or(0, |a| a.len)
    }

    fn head_len(&self) -> usize {
        self.sequence.map_or(0, vlu::len)
            + if self.authentication.is_some() {
                0
            } else {
                CHECKSUM_LEN
            }
    }

    fn plain_max(&self, max: usize) -> usize {
        let blocks = max.saturating_sub(self.tail_len()) / BLOCK_LEN;
        (blocks * BLOCK_LEN).saturating_sub(self.head_len())
    }

    fn seal(&mut self, packet: &mut [u8], plain_len: usize) -> Result<usize, Error> {
        let plain_end = self.head_len() + plain_len;
        let blocks_len = plain_end.next_multiple_of(BLOCK_LEN);
        let packet = packet
            .get_mut(..blocks_len + self.tail_len())
            .ok_or(Error::NoRoom)?;
        let (blocks, tail) = packet.split_at_mut(blocks_len);
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
        let mut encryptor = cbc::Encryptor::inner_iv_init(&self.cipher, &Array([0; BLOCK_LEN]));
        encryptor.encrypt_blocks(Array::cast_slice_from_core_mut(as_blocks(blocks)));
        if let Some(authentication) = &self.authentication {
            let code = authentication.code(blocks);
            tail.copy_from_slice(&code[..authentication.len]);
        }
        Ok(blocks_len + tail.len())
    }
}

fn as_blocks(bytes: &mut [u8]) -> &mut [[u8; BLOCK_LEN]] {
    bytes.as_chunks_mut().0
}

/// Opens the packets of one direction.
#[derive(Clone)]
pub struct Opener {
    cipher: Aes128,
    authentication: Option<Authentication>,
    window: Option<ReplayWindow>,
}

impl Opener {
    /// Opens with the first half of `key`, and authenticates with `hmac_key`.
    #[must_use]
    pub fn new(key: &[u8; 16], hmac_key: &[u8; 32], verification: Verification) -> Self {
        Self {
            cipher: Aes128::new(&Array(*key)),
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
