//! The handshake of the specification (§5.2.3, §5.2.4).

use super::{BLOCK_LEN, Block, Noise};

/// S1: time zero, the zero word, random bytes. The zero word is what tells a client that
/// there is no digest.
pub(super) fn greeting(noise: &mut Noise) -> Block {
    let mut block = [0; BLOCK_LEN];
    noise.fill(&mut block[8..]);
    block
}

/// C2 or S2: the peer's block as it came. §5.2.4 wants the time of reading in bytes 4 to 7,
/// but there are peers who compare the whole block with what they sent, and none who
/// reads that time.
pub(super) const fn answer(block: &Block) -> &Block {
    block
}
