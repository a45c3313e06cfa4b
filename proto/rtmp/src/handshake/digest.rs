//! The handshake with digests that Flash Player 9.0.115 introduced. It is not in the
//! specification; players of that family accept H.264 only from a server that does it.
//!
//! A greeting (C1, S1) is a time, a version that is not zero, and two halves of 764 bytes:
//! one for a Diffie-Hellman key (used by RTMPE only, random otherwise), one for a digest.
//! Their order is the [`Scheme`]. Where the digest lies in its half is told by the sum of
//! four bytes in it.
//!
//! ```text
//! DigestFirst  | time | version | offset·4 … digest·32 … | … key … |
//!              0      4         8                        772       1536
//! KeyFirst     | time | version | … key … | offset·4 … digest·32 … |
//! ```
//!
//! * digest of a greeting = HMAC-SHA256(sender's key, the 1504 bytes around it)
//! * answer (C2, S2) = 1504 random bytes, and their HMAC-SHA256 with the key
//!   HMAC-SHA256(sender's long key, the digest that is answered)

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::{BLOCK_LEN, Block, Noise};

/// Which half of a greeting holds the digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// The digest lies in bytes 8 to 771.
    DigestFirst,
    /// The digest lies in bytes 772 to 1535.
    KeyFirst,
}

const DIGEST_LEN: usize = 32;

/// An answer's signature covers what lies before it.
const SIGNED_LEN: usize = BLOCK_LEN - DIGEST_LEN;

/// The version in our C1: a Flash Player that knows digests.
const CLIENT_VERSION: [u8; 4] = [9, 0, 124, 2];

/// The version in our S1: a Flash Media Server that knows digests.
const SERVER_VERSION: [u8; 4] = [4, 5, 0, 1];

/// Both keys are public knowledge: text, and the same 32 bytes.
const CLIENT_KEY: &[u8; 62] = b"Genuine Adobe Flash Player 001\
    \xf0\xee\xc2\x4a\x80\x68\xbe\xe8\x2e\x00\xd0\xd1\x02\x9e\x7e\x57\
    \x6e\xec\x5d\x2d\x29\x80\x6f\xab\x93\xb8\xe6\x36\xcf\xeb\x31\xae";
const SERVER_KEY: &[u8; 68] = b"Genuine Adobe Flash Media Server 001\
    \xf0\xee\xc2\x4a\x80\x68\xbe\xe8\x2e\x00\xd0\xd1\x02\x9e\x7e\x57\
    \x6e\xec\x5d\x2d\x29\x80\x6f\xab\x93\xb8\xe6\x36\xcf\xeb\x31\xae";

/// The part of the key that digests use: the text.
const CLIENT_TEXT_LEN: usize = 30;
const SERVER_TEXT_LEN: usize = 36;

type Digest32 = [u8; DIGEST_LEN];

/// C1.
pub(super) fn client_greeting(scheme: Scheme, noise: &mut Noise) -> Block {
    greeting(
        scheme,
        CLIENT_VERSION,
        &CLIENT_KEY[..CLIENT_TEXT_LEN],
        noise,
    )
}

/// S1.
pub(super) fn server_greeting(scheme: Scheme, noise: &mut Noise) -> Block {
    greeting(
        scheme,
        SERVER_VERSION,
        &SERVER_KEY[..SERVER_TEXT_LEN],
        noise,
    )
}

/// The digest of a C1, if it has one.
pub(super) fn find_in_client(c1: &Block) -> Option<(Scheme, Digest32)> {
    find(c1, &CLIENT_KEY[..CLIENT_TEXT_LEN])
}

/// The digest of an S1, if it has one.
pub(super) fn find_in_server(s1: &Block) -> Option<(Scheme, Digest32)> {
    find(s1, &SERVER_KEY[..SERVER_TEXT_LEN])
}

/// C2, to the digest of an S1.
pub(super) fn client_answer(server_digest: &Digest32, noise: &mut Noise) -> Block {
    answer(CLIENT_KEY, server_digest, noise)
}

/// S2, to the digest of a C1.
pub(super) fn server_answer(client_digest: &Digest32, noise: &mut Noise) -> Block {
    answer(SERVER_KEY, client_digest, noise)
}

fn greeting(scheme: Scheme, version: [u8; 4], key: &[u8], noise: &mut Noise) -> Block {
    let mut block = [0; BLOCK_LEN];
    block[4..8].copy_from_slice(&version);
    noise.fill(&mut block[8..]);
    let at = scheme.digest_at(&block);
    let digest = digest_around(&block, at, key);
    block[at..at + DIGEST_LEN].copy_from_slice(&digest);
    block
}

fn find(block: &Block, key: &[u8]) -> Option<(Scheme, Digest32)> {
    [Scheme::DigestFirst, Scheme::KeyFirst]
        .into_iter()
        .find_map(|scheme| {
            let at = scheme.digest_at(block);
            let digest = digest_around(block, at, key);
            (block[at..at + DIGEST_LEN] == digest).then_some((scheme, digest))
        })
}

fn answer(key: &[u8], digest: &Digest32, noise: &mut Noise) -> Block {
    let mut block = [0; BLOCK_LEN];
    noise.fill(&mut block[..SIGNED_LEN]);
    let signature = sign(&block[..SIGNED_LEN], key, digest);
    block[SIGNED_LEN..].copy_from_slice(&signature);
    block
}

fn sign(signed: &[u8], key: &[u8], digest: &Digest32) -> Digest32 {
    mac(&mac(key, &[digest]), &[signed])
}

impl Scheme {
    /// Where the digest lies.
    fn digest_at(self, block: &Block) -> usize {
        let half = match self {
            Self::DigestFirst => 8,
            Self::KeyFirst => 772,
        };
        let sum: usize = block[half..half + 4].iter().copied().map(usize::from).sum();
        half + 4 + sum % 728
    }
}

// The digest never leaves its half.
const _: () = assert!(772 + 4 + 727 + DIGEST_LEN <= BLOCK_LEN);

fn digest_around(block: &Block, at: usize, key: &[u8]) -> Digest32 {
    mac(key, &[&block[..at], &block[at + DIGEST_LEN..]])
}

/// HMAC-SHA256. The key is fitted to the hash's block here, as RFC 2104 §2 says, because
/// that constructor cannot fail.
fn mac(key: &[u8], parts: &[&[u8]]) -> Digest32 {
    let mut block = [0; 64];
    if key.len() <= block.len() {
        block[..key.len()].copy_from_slice(key);
    } else {
        block[..DIGEST_LEN].copy_from_slice(&Sha256::digest(key));
    }
    let mut mac = <Hmac<Sha256> as KeyInit>::new(&block.into());
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block that is no greeting of anybody; the expected digests below were computed
    /// from the formulas by another HMAC.
    fn block() -> Block {
        std::array::from_fn(|at| (at * at + 3 * at).to_le_bytes()[0])
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    struct Vector {
        scheme: Scheme,
        at: usize,
        client: &'static str,
        server: &'static str,
        c2: &'static str,
        s2: &'static str,
    }

    const VECTORS: [Vector; 2] = [
        Vector {
            scheme: Scheme::DigestFirst,
            at: 492,
            client: "92939260dcd0f78d88b241920b146e48d00ac86642e7e6da6aa9e02b8cd04e66",
            server: "e5f64ffd87cc4b6311d93f3badbca5c5ca155382b4c4a0d964d702a3b929c249",
            c2: "5207b9897c7f87d8f17048d30ffe0965dfecd0ad9a031746303b3cca7d21cebf",
            s2: "20437eb737deca540a738c356f129f219355929a48ee4f085703bbc52f2cb122",
        },
        Vector {
            scheme: Scheme::KeyFirst,
            at: 968,
            client: "e4c2e7bf93d46e86febd88f7995a959a6f53e691cd805fe92d4d2d98d95d5c8e",
            server: "1bad3f6dc9f58183d8576bc3e1d176cc55d2f33287e6a94188640a0e675a957e",
            c2: "70013752a19136ed675617c40863db069059e5100f2ad5cd8f01280afa6daa1f",
            s2: "45cedc384d07eea4666da67624ca82bd5303cbaa4ca576a61c5efe5bf7d79542",
        },
    ];

    #[test]
    fn digests_and_signatures_are_those_of_the_formulas() {
        for vector in VECTORS {
            let block = block();
            let at = vector.scheme.digest_at(&block);
            assert_eq!(at, vector.at);
            let client = digest_around(&block, at, &CLIENT_KEY[..CLIENT_TEXT_LEN]);
            let server = digest_around(&block, at, &SERVER_KEY[..SERVER_TEXT_LEN]);
            assert_eq!(hex(&client), vector.client);
            assert_eq!(hex(&server), vector.server);
            assert_eq!(
                hex(&sign(&block[..SIGNED_LEN], CLIENT_KEY, &server)),
                vector.c2
            );
            assert_eq!(
                hex(&sign(&block[..SIGNED_LEN], SERVER_KEY, &client)),
                vector.s2
            );
        }
    }

    #[test]
    fn a_greeting_is_found_in_its_scheme_and_by_its_key_only() {
        for scheme in [Scheme::DigestFirst, Scheme::KeyFirst] {
            for seed in 0..50 {
                let c1 = client_greeting(scheme, &mut Noise(seed));
                let s1 = server_greeting(scheme, &mut Noise(seed));
                assert_eq!(find_in_client(&c1).unwrap().0, scheme);
                assert_eq!(find_in_server(&s1).unwrap().0, scheme);
                assert_eq!(find_in_client(&s1), None);
                assert_eq!(find_in_server(&c1), None);
            }
        }
    }

    #[test]
    fn one_changed_byte_leaves_no_digest() {
        let c1 = client_greeting(Scheme::KeyFirst, &mut Noise(3));
        for at in [0, 4, 8, 700, 800, 1535] {
            let mut changed = c1;
            changed[at] ^= 1;
            assert_eq!(find_in_client(&changed), None);
        }
    }

    #[test]
    fn the_digest_stays_in_its_half_whatever_the_offset_bytes_are() {
        for byte in 0..=255 {
            let block = [byte; BLOCK_LEN];
            let first = Scheme::DigestFirst.digest_at(&block);
            let second = Scheme::KeyFirst.digest_at(&block);
            assert!((12..=772 - DIGEST_LEN).contains(&first));
            assert!((776..=BLOCK_LEN - DIGEST_LEN).contains(&second));
        }
    }

    #[test]
    fn answers_are_signed_with_the_digest_they_answer() {
        let digest = [7; DIGEST_LEN];
        let s2 = server_answer(&digest, &mut Noise(1));
        assert_eq!(
            s2[SIGNED_LEN..],
            sign(&s2[..SIGNED_LEN], SERVER_KEY, &digest)
        );
        let c2 = client_answer(&digest, &mut Noise(1));
        assert_eq!(
            c2[SIGNED_LEN..],
            sign(&c2[..SIGNED_LEN], CLIENT_KEY, &digest)
        );
        assert_ne!(s2[SIGNED_LEN..], c2[SIGNED_LEN..]);
    }
}
