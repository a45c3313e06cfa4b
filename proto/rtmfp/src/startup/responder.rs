//! The one who answers (RFC 7016 §3.5.1.1.2).

use std::net::SocketAddr;
use std::time::Instant;

use sha2::{Digest, Sha256};

use super::{Cookies, NO_SIGNATURE, Opened};
use crate::chunk::{Chunk, InitiatorHello, InitiatorKeying, ResponderHello, ResponderKeying};
use crate::crypto::Entropy;
use crate::crypto::identity::{Certificate, Identity};
use crate::crypto::keying::{self, Policy};
use crate::error::Error;

/// What makes two keyings of an initiator the same one, sent again: its session id, its
/// certificate and its component.
pub type Request = [u8; 32];

/// Hands the answer to a hello from `from` to `send`. Nothing is remembered of it.
pub fn write_hello(
    hello: &InitiatorHello<'_>,
    from: SocketAddr,
    near: &Identity,
    cookies: &Cookies,
    now: Instant,
    send: impl FnOnce(Chunk<'_>),
) {
    let cookie = cookies.make(from, now);
    send(Chunk::ResponderHello(ResponderHello {
        tag: hello.tag,
        cookie: &cookie,
        certificate: near.as_bytes(),
    }));
}

/// The mark of a keying, to know it again.
#[must_use]
pub(crate) fn request_of(keying: &InitiatorKeying<'_>) -> Request {
    let mut hash = Sha256::new();
    hash.update(keying.session.to_be_bytes());
    hash.update((keying.certificate.len() as u64).to_be_bytes());
    hash.update(keying.certificate);
    hash.update(keying.component);
    hash.finalize().into()
}

/// Answers a keying whose cookie is good. Returns the session, and our component, which is
/// to be sent again whenever the same keying comes again.
///
/// # Errors
/// What [`Certificate::parse`] and [`keying::respond`] refuse.
pub fn answer(
    request: &InitiatorKeying<'_>,
    from: SocketAddr,
    near: &Identity,
    near_id: u32,
    policy: &Policy,
    entropy: &mut dyn Entropy,
) -> Result<(Opened, Vec<u8>), Error> {
    let far = Certificate::parse(request.certificate)?;
    let (component, keys) = keying::respond(near, &far, request.component, policy, entropy)?;
    let opened = Opened {
        keys,
        near_id,
        far_id: request.session,
        far: from,
        certificate: request.certificate.to_vec(),
    };
    Ok((opened, component))
}

/// The chunk that carries our component.
#[must_use]
pub(crate) const fn keying_chunk(near_id: u32, component: &[u8]) -> Chunk<'_> {
    Chunk::ResponderKeying(ResponderKeying {
        session: near_id,
        component,
        signature: NO_SIGNATURE,
    })
}
