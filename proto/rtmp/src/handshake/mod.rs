//! The handshake (RTMP 1.0 §5.2), both roles, plain and with digests.
//!
//! ```text
//! client  C0 C1 ─────────────▶ server       C0, S0   one byte, the version: 3
//!         ◀───────────── S0 S1 S2           C1, S1   1536 bytes, the digest hides in them
//!         C2 ─────────────────▶             C2, S2   1536 bytes, the answer to S1, C1
//! ```
//!
//! The server looks for a digest in C1 and answers in kind; a client without one gets the
//! plain handshake of the specification. Our client always sends a digest, because servers
//! of the Flash family need one, and plain servers take it for random bytes. Whether C2 and
//! S2 answer what they should is not checked: nothing depends on it, and real peers differ.

mod digest;
mod plain;

use bytes::{Buf, BytesMut};

use crate::Error;

pub use digest::Scheme;

/// C1, S1, C2 and S2 have this many bytes.
const BLOCK_LEN: usize = 1536;

/// One of C1, S1, C2, S2.
type Block = [u8; BLOCK_LEN];

/// The version byte that says RTMP without encryption.
const VERSION: u8 = 3;

/// How the two sides greeted each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As in the specification.
    Plain,
    /// With digests, as Flash Player and Flash Media Server do.
    Digest(Scheme),
}

/// One side of a handshake.
#[derive(Debug)]
pub(crate) struct Handshake {
    step: Step,
    noise: Noise,
    kind: Kind,
}

/// What is awaited next.
#[derive(Debug)]
enum Step {
    C0,
    C1,
    C2,
    S0,
    S1,
    S2,
    Done,
}

impl Handshake {
    pub(crate) const fn server(seed: u64) -> Self {
        Self {
            step: Step::C0,
            noise: Noise(seed),
            kind: Kind::Plain,
        }
    }

    /// The client speaks first: C0 and C1 are appended to `out`.
    pub(crate) fn client(seed: u64, scheme: Scheme, out: &mut BytesMut) -> Self {
        let mut noise = Noise(seed);
        out.extend_from_slice(&[VERSION]);
        out.extend_from_slice(&digest::client_greeting(scheme, &mut noise));
        Self {
            step: Step::S0,
            noise,
            kind: Kind::Plain,
        }
    }

    /// How the peers greeted each other; final once the handshake is done.
    pub(crate) const fn kind(&self) -> Kind {
        self.kind
    }

    /// Takes whole parts of the handshake off the front of `input` and appends the answers
    /// to `out`. Says whether it is done; what is left in `input` are chunks then.
    pub(crate) fn handle_bytes(
        &mut self,
        input: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<bool, Error> {
        loop {
            self.step = match self.step {
                Step::C0 | Step::S0 => {
                    let Some(&version) = input.first() else {
                        return Ok(false);
                    };
                    check_version(version)?;
                    input.advance(1);
                    if matches!(self.step, Step::C0) {
                        Step::C1
                    } else {
                        Step::S1
                    }
                }
                Step::C1 => {
                    let Some(c1) = take_block(input) else {
                        return Ok(false);
                    };
                    out.extend_from_slice(&[VERSION]);
                    if let Some((scheme, client_digest)) = digest::find_in_client(&c1) {
                        self.kind = Kind::Digest(scheme);
                        out.extend_from_slice(&digest::server_greeting(scheme, &mut self.noise));
                        out.extend_from_slice(&digest::server_answer(
                            &client_digest,
                            &mut self.noise,
                        ));
                    } else {
                        out.extend_from_slice(&plain::greeting(&mut self.noise));
                        out.extend_from_slice(plain::answer(&c1));
                    }
                    Step::C2
                }
                Step::S1 => {
                    let Some(s1) = take_block(input) else {
                        return Ok(false);
                    };
                    if let Some((scheme, server_digest)) = digest::find_in_server(&s1) {
                        self.kind = Kind::Digest(scheme);
                        out.extend_from_slice(&digest::client_answer(
                            &server_digest,
                            &mut self.noise,
                        ));
                    } else {
                        out.extend_from_slice(plain::answer(&s1));
                    }
                    Step::S2
                }
                Step::C2 | Step::S2 => {
                    if input.len() < BLOCK_LEN {
                        return Ok(false);
                    }
                    input.advance(BLOCK_LEN);
                    Step::Done
                }
                Step::Done => return Ok(true),
            }
        }
    }
}

fn check_version(version: u8) -> Result<(), Error> {
    match version {
        VERSION => Ok(()),
        6 | 8 | 9 => Err(Error::Encrypted { version }),
        _ => Err(Error::Version { version }),
    }
}

fn take_block(input: &mut BytesMut) -> Option<Block> {
    let block = *input.first_chunk::<BLOCK_LEN>()?;
    input.advance(BLOCK_LEN);
    Some(block)
}

/// Filling for the blocks (splitmix64). It only has to differ from connection to
/// connection (§5.2.3); it guards no secret.
#[derive(Debug)]
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(8) {
            let random = self.next().to_le_bytes();
            part.copy_from_slice(&random[..part.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets both sides talk until nothing moves, `cut` bytes at a time.
    fn talk(client: &mut Handshake, first: BytesMut, server: &mut Handshake, cut: usize) {
        let (mut up, mut down) = (first, BytesMut::new());
        let (mut to_server, mut to_client) = (BytesMut::new(), BytesMut::new());
        let (mut server_done, mut client_done) = (false, false);
        while !(up.is_empty() && down.is_empty()) {
            to_server.extend_from_slice(&up.split_to(cut.min(up.len())));
            server_done = server.handle_bytes(&mut to_server, &mut down).unwrap();
            to_client.extend_from_slice(&down.split_to(cut.min(down.len())));
            client_done = client.handle_bytes(&mut to_client, &mut up).unwrap();
        }
        assert!(server_done && client_done);
        assert!(to_server.is_empty() && to_client.is_empty());
    }

    #[test]
    fn our_client_and_our_server_agree_in_both_schemes_however_it_is_cut() {
        for scheme in [Scheme::DigestFirst, Scheme::KeyFirst] {
            for cut in [1, 7, 1536, 1537, 10_000] {
                for seed in 0..4 {
                    let mut first = BytesMut::new();
                    let mut client = Handshake::client(seed, scheme, &mut first);
                    let mut server = Handshake::server(seed + 100);
                    talk(&mut client, first, &mut server, cut);
                    assert_eq!(client.kind(), Kind::Digest(scheme));
                    assert_eq!(server.kind(), Kind::Digest(scheme));
                }
            }
        }
    }

    #[test]
    fn a_plain_client_gets_the_handshake_of_the_specification() {
        let mut c1 = [0x5a; BLOCK_LEN];
        c1[..8].copy_from_slice(&[0, 0, 1, 2, 0, 0, 0, 0]);
        let mut input = BytesMut::from(&[&[3][..], &c1].concat()[..]);
        let mut server = Handshake::server(1);
        let mut out = BytesMut::new();
        assert_eq!(server.handle_bytes(&mut input, &mut out), Ok(false));
        assert_eq!(out.len(), 1 + 2 * BLOCK_LEN);
        assert_eq!(out[0], 3);
        assert_eq!(out[5..9], [0; 4], "the zero word of S1");
        assert_eq!(out[1 + BLOCK_LEN..], c1, "S2 echoes C1");
        // A C2 that echoes nothing, and a first chunk right behind it.
        input.extend_from_slice(&[7; BLOCK_LEN]);
        input.extend_from_slice(&[0x03, 1]);
        assert_eq!(server.handle_bytes(&mut input, &mut out), Ok(true));
        assert_eq!(input[..], [0x03, 1]);
        assert_eq!(server.kind(), Kind::Plain);
    }

    #[test]
    fn our_client_is_content_with_a_plain_server() {
        let mut out = BytesMut::new();
        let mut client = Handshake::client(1, Scheme::DigestFirst, &mut out);
        out.clear();
        let s1 = [9; BLOCK_LEN];
        let mut input = BytesMut::from(&[&[3][..], &s1].concat()[..]);
        assert_eq!(client.handle_bytes(&mut input, &mut out), Ok(false));
        assert_eq!(out[..], s1, "C2 echoes S1 and does not wait for S2");
        input.extend_from_slice(&[1; BLOCK_LEN]);
        assert_eq!(client.handle_bytes(&mut input, &mut out), Ok(true));
        assert_eq!(client.kind(), Kind::Plain);
    }

    #[test]
    fn other_versions_are_told_apart() {
        for (version, expected) in [
            (6, Error::Encrypted { version: 6 }),
            (8, Error::Encrypted { version: 8 }),
            (b'G', Error::Version { version: b'G' }),
            (0, Error::Version { version: 0 }),
        ] {
            let (mut input, mut out) = (BytesMut::from(&[version][..]), BytesMut::new());
            let mut server = Handshake::server(1);
            assert_eq!(server.handle_bytes(&mut input, &mut out), Err(expected));
            assert!(out.is_empty());
            let mut client = Handshake::client(1, Scheme::DigestFirst, &mut out);
            assert_eq!(
                client.handle_bytes(&mut input, &mut BytesMut::new()),
                Err(expected)
            );
        }
        assert!(
            Error::Encrypted { version: 8 }
                .to_string()
                .contains("RTMPE")
        );
        assert!(
            Error::Version { version: b'G' }
                .to_string()
                .contains("not RTMP")
        );
    }

    #[test]
    fn greetings_differ_with_the_seed() {
        let (mut one, mut two) = (BytesMut::new(), BytesMut::new());
        let _ = Handshake::client(1, Scheme::DigestFirst, &mut one);
        let _ = Handshake::client(2, Scheme::DigestFirst, &mut two);
        assert_ne!(one, two);
    }
}
