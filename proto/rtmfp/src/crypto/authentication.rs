//! Authentication codes of packets: HMAC-SHA256, cut to a negotiated length.
//!
//! What the key alone makes of the hash is kept, not the key. A processor without
//! instructions for the hash computes the codes of several packets side by side.

use sha2::block_api::compress256;
use zeroize::Zeroizing;

use super::HMAC_LEN_MAX;

/// A block of the hash.
const BLOCK: usize = 64;

/// The hash of nothing yet (FIPS 180-4 §5.3.3).
const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

type State = [u32; 8];

/// A key, and how long codes are.
#[derive(Clone)]
pub(super) struct Authentication {
    /// The hash behind the key's inner and outer block (RFC 2104 §4).
    inner: Zeroizing<State>,
    outer: Zeroizing<State>,
    pub(super) len: usize,
}

impl Authentication {
    pub(super) fn new(key: &[u8; 32], len: u8) -> Self {
        let begin = |pad: u8| {
            let mut block = Zeroizing::new([pad; BLOCK]);
            for (to, from) in block.iter_mut().zip(key) {
                *to ^= from;
            }
            let mut state = Zeroizing::new(INITIAL);
            compress256(&mut state, std::slice::from_ref(&*block));
            state
        };
        Self {
            inner: begin(0x36),
            outer: begin(0x5c),
            len: usize::from(len).min(HMAC_LEN_MAX),
        }
    }

    /// The code of a message.
    pub(super) fn code(&self, message: &[u8]) -> [u8; 32] {
        let (blocks, rest) = message.as_chunks();
        let mut state = *self.inner;
        compress256(&mut state, blocks);
        let (tail, count) = end(rest, message.len());
        compress256(&mut state, &tail[..count]);
        let (tail, count) = end(&digest(state), 32);
        let mut state = *self.outer;
        compress256(&mut state, &tail[..count]);
        digest(state)
    }

    /// The codes of messages, each given to `take` with its place.
    pub(super) fn codes(&self, messages: &[&[u8]], mut take: impl FnMut(usize, [u8; 32])) {
        let mut alone = 0;
        if !has_instructions() {
            for four in messages.chunks(side::LANES) {
                let len = four.first().map_or(0, |message| message.len());
                // All but the last of a row are of one length.
                let Ok(four) = <&[&[u8]; side::LANES]>::try_from(four) else {
                    break;
                };
                if four.iter().any(|message| message.len() != len) {
                    break;
                }
                for (place, state) in self.side_by_side(four, len).into_iter().enumerate() {
                    take(alone + place, digest(state));
                }
                alone += side::LANES;
            }
        }
        for (place, message) in messages.iter().enumerate().skip(alone) {
            take(place, self.code(message));
        }
    }

    fn side_by_side(&self, messages: &[&[u8]; side::LANES], len: usize) -> [State; side::LANES] {
        let mut states = side::spread(&self.inner);
        let split = messages.map(|message| message.as_chunks::<BLOCK>());
        for at in 0..len / BLOCK {
            side::compress(&mut states, split.map(|(blocks, _)| &blocks[at]));
        }
        let tails = split.map(|(_, rest)| end(rest, len));
        for at in 0..tails[0].1 {
            side::compress(&mut states, tails.each_ref().map(|(tail, _)| &tail[at]));
        }
        let tails = side::gather(&states).map(|state| end(&digest(state), 32).0[0]);
        let mut states = side::spread(&self.outer);
        side::compress(&mut states, tails.each_ref());
        side::gather(&states)
    }
}

/// The last blocks of a message of `len` bytes behind a block of key, of which `rest` fills
/// no block, and how many they are (FIPS 180-4 §5.1.1).
fn end(rest: &[u8], len: usize) -> ([[u8; BLOCK]; 2], usize) {
    let mut tail = [[0; BLOCK]; 2];
    let count = (rest.len() + 9).div_ceil(BLOCK);
    let bytes = tail.as_flattened_mut();
    bytes[..rest.len()].copy_from_slice(rest);
    bytes[rest.len()] = 0x80;
    let bits = (BLOCK + len) as u64 * 8;
    bytes[count * BLOCK - 8..count * BLOCK].copy_from_slice(&bits.to_be_bytes());
    (tail, count)
}

fn digest(state: State) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (to, word) in bytes.chunks_exact_mut(4).zip(state) {
        to.copy_from_slice(&word.to_be_bytes());
    }
    bytes
}

/// Whether the processor has instructions for the hash: one message at a time is faster then.
fn has_instructions() -> bool {
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    return std::arch::is_x86_feature_detected!("sha");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("sha2");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
    return false;
}

/// The hash of several messages side by side, a word of each in one register.
mod side {
    use std::array::from_fn;

    use wide::u32x4;

    use super::{BLOCK, State};

    /// Registers of 128 bits are everywhere.
    pub(super) const LANES: usize = 4;

    /// The same state for every message.
    pub(super) fn spread(state: &State) -> [u32x4; 8] {
        state.map(u32x4::splat)
    }

    /// The state of each message.
    pub(super) fn gather(states: &[u32x4; 8]) -> [State; LANES] {
        let words = states.map(u32x4::to_array);
        from_fn(|lane| words.map(|word| word[lane]))
    }

    #[inline(always)]
    fn turn<const BITS: u32>(x: u32x4) -> u32x4 {
        (x >> BITS) | (x << (32 - BITS))
    }

    /// A block of each message (FIPS 180-4 §6.2.2).
    pub(super) fn compress(states: &mut [u32x4; 8], blocks: [&[u8; BLOCK]; LANES]) {
        let words = blocks.map(|block| block.as_chunks::<4>().0);
        let mut schedule = [u32x4::splat(0); 64];
        for at in 0..16 {
            schedule[at] = u32x4::new(words.map(|words| u32::from_be_bytes(words[at])));
        }
        for at in 16..64 {
            let (x, y) = (schedule[at - 15], schedule[at - 2]);
            let s0 = turn::<7>(x) ^ turn::<18>(x) ^ (x >> 3);
            let s1 = turn::<17>(y) ^ turn::<19>(y) ^ (y >> 10);
            schedule[at] = schedule[at - 16] + s0 + schedule[at - 7] + s1;
        }
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *states;
        for (word, constant) in schedule.into_iter().zip(CONSTANTS) {
            let s1 = turn::<6>(e) ^ turn::<11>(e) ^ turn::<25>(e);
            let choice = (e & (f ^ g)) ^ g;
            let t1 = h + word + u32x4::splat(constant) + choice + s1;
            let s0 = turn::<2>(a) ^ turn::<13>(a) ^ turn::<22>(a);
            let majority = (a & (b ^ c)) ^ (b & c);
            (h, g, f, e) = (g, f, e, d + t1);
            (d, c, b, a) = (c, b, a, t1 + s0 + majority);
        }
        for (state, word) in states.iter_mut().zip([a, b, c, d, e, f, g, h]) {
            *state += word;
        }
    }

    /// FIPS 180-4 §4.2.2.
    const CONSTANTS: [u32; 64] = [
        0x428a_2f98,
        0x7137_4491,
        0xb5c0_fbcf,
        0xe9b5_dba5,
        0x3956_c25b,
        0x59f1_11f1,
        0x923f_82a4,
        0xab1c_5ed5,
        0xd807_aa98,
        0x1283_5b01,
        0x2431_85be,
        0x550c_7dc3,
        0x72be_5d74,
        0x80de_b1fe,
        0x9bdc_06a7,
        0xc19b_f174,
        0xe49b_69c1,
        0xefbe_4786,
        0x0fc1_9dc6,
        0x240c_a1cc,
        0x2de9_2c6f,
        0x4a74_84aa,
        0x5cb0_a9dc,
        0x76f9_88da,
        0x983e_5152,
        0xa831_c66d,
        0xb003_27c8,
        0xbf59_7fc7,
        0xc6e0_0bf3,
        0xd5a7_9147,
        0x06ca_6351,
        0x1429_2967,
        0x27b7_0a85,
        0x2e1b_2138,
        0x4d2c_6dfc,
        0x5338_0d13,
        0x650a_7354,
        0x766a_0abb,
        0x81c2_c92e,
        0x9272_2c85,
        0xa2bf_e8a1,
        0xa81a_664b,
        0xc24b_8b70,
        0xc76c_51a3,
        0xd192_e819,
        0xd699_0624,
        0xf40e_3585,
        0x106a_a070,
        0x19a4_c116,
        0x1e37_6c08,
        0x2748_774c,
        0x34b0_bcb5,
        0x391c_0cb3,
        0x4ed8_aa4a,
        0x5b9c_ca4f,
        0x682e_6ff3,
        0x748f_82ee,
        0x78a5_636f,
        0x84c8_7814,
        0x8cc7_0208,
        0x90be_fffa,
        0xa450_6ceb,
        0xbef9_a3f7,
        0xc671_78f2,
    ];
}

#[cfg(test)]
mod tests {
    use hmac::{Hmac, KeyInit, Mac};
    use proptest::prelude::*;
    use sha2::Sha256;

    use super::*;

    fn expected(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.update(message);
        mac.finalize().into_bytes().into()
    }

    proptest! {
        #[test]
        fn a_code_is_that_of_rfc_2104(key: [u8; 32], message in proptest::collection::vec(any::<u8>(), 0..300)) {
            let authentication = Authentication::new(&key, 32);
            prop_assert_eq!(authentication.code(&message), expected(&key, &message));
        }

        #[test]
        fn side_by_side_is_the_same_as_alone(
            key: [u8; 32],
            bytes in proptest::collection::vec(any::<u8>(), 4 * 130),
            len in 0_usize..130,
        ) {
            let authentication = Authentication::new(&key, 32);
            let messages: [&[u8]; 4] = std::array::from_fn(|at| &bytes[at * 130..at * 130 + len]);
            let states = authentication.side_by_side(&messages, len);
            for (state, message) in states.into_iter().zip(messages) {
                prop_assert_eq!(digest(state), expected(&key, message));
            }
        }

        #[test]
        fn every_message_of_a_row_gets_its_own_code(count in 0_usize..11, last in 1_usize..64) {
            let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(11 * 64).collect();
            let mut messages: Vec<&[u8]> = bytes.chunks(64).take(count).collect();
            if let Some(message) = messages.last_mut() {
                *message = &message[..last];
            }
            let authentication = Authentication::new(&[9; 32], 16);
            let mut codes = vec![None; count];
            authentication.codes(&messages, |place, code| codes[place] = Some(code));
            for (code, message) in codes.into_iter().zip(messages) {
                prop_assert_eq!(code, Some(expected(&[9; 32], message)));
            }
        }
    }
}
