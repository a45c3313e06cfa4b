//! Several packets of one session, encrypted side by side.
//!
//! In a chain each block waits for the one before it, and the processor with it. The chains
//! of different packets do not wait for each other.

use aes::Aes128Enc;
use aes::cipher::{Array, BlockCipherEncrypt};

use super::BLOCK_LEN;

/// So many blocks at a time keep the cipher's units busy.
pub(super) const LANES: usize = 8;

/// Encrypts up to [`LANES`] packets, each a chain that begins with zeros.
pub(super) fn encrypt(cipher: &Aes128Enc, lanes: &mut [&mut [[u8; BLOCK_LEN]]]) {
    debug_assert!(lanes.len() <= LANES);
    let common = lanes.iter().map(|lane| lane.len()).min().unwrap_or(0);
    let mut chains = [Array([0; BLOCK_LEN]); LANES];
    for at in 0..common {
        for (chain, lane) in chains.iter_mut().zip(lanes.iter()) {
            add(&mut chain.0, &lane[at]);
        }
        // Those without a packet cost nothing more.
        cipher.encrypt_blocks(&mut chains);
        for (chain, lane) in chains.iter().zip(lanes.iter_mut()) {
            lane[at] = chain.0;
        }
    }
    for (chain, lane) in chains.iter_mut().zip(lanes.iter_mut()) {
        for block in &mut lane[common..] {
            add(&mut chain.0, block);
            cipher.encrypt_block(chain);
            *block = chain.0;
        }
    }
}

fn add(chain: &mut [u8; BLOCK_LEN], block: &[u8; BLOCK_LEN]) {
    *chain = (u128::from_ne_bytes(*chain) ^ u128::from_ne_bytes(*block)).to_ne_bytes();
}

#[cfg(test)]
mod tests {
    use aes::cipher::{BlockModeEncrypt, InnerIvInit, KeyInit};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_lane_is_what_it_would_be_alone(
            lens in proptest::collection::vec(0_usize..6, 0..=LANES),
            key: [u8; 16],
            seed: u8,
        ) {
            let cipher = Aes128Enc::new(&Array(key));
            let mut byte = seed;
            let mut packets: Vec<Vec<[u8; 16]>> = lens
                .iter()
                .map(|len| {
                    (0..*len)
                        .map(|_| {
                            byte = byte.wrapping_mul(29).wrapping_add(7);
                            [byte; 16]
                        })
                        .collect()
                })
                .collect();
            let mut alone = packets.clone();
            for packet in &mut alone {
                let mut chain = cbc::Encryptor::inner_iv_init(&cipher, &Array([0; 16]));
                chain.encrypt_blocks(Array::cast_slice_from_core_mut(packet));
            }
            let mut lanes: Vec<_> = packets.iter_mut().map(|packet| &mut packet[..]).collect();
            encrypt(&cipher, &mut lanes);
            prop_assert_eq!(packets, alone);
        }
    }
}
