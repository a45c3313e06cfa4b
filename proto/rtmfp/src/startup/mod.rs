//! From nothing to a session's keys (RFC 7016 §3.5.1).
//!
//! ```text
//!  Opening (initiator)                      Cookies, respond (responder)
//!     │ hello ─────────────────────────────────▶ │  nothing is remembered
//!     │ ◀──────────────── hello with a cookie ── │
//!     │ keying, with the cookie ───────────────▶ │  Opened
//!  Opened ◀──────────────────────────── keying ── │
//! ```
//!
//! Everything here travels under a key that everybody knows. Until a cookie came back, its
//! sender's address is not proved and nothing is stored for it.

mod cookie;
mod initiator;
mod responder;

use std::net::SocketAddr;

pub use cookie::{Cookie, Cookies};
pub use initiator::{Opening, Step};
pub use responder::{Request, answer, write_hello};
pub(crate) use responder::{keying_chunk, request_of};

use crate::chunk::Chunk;
use crate::crypto::keying::SessionKeys;
use crate::crypto::{FlashSuite, Suite};
use crate::error::Error;
use crate::packet::{self, Header, PacketWriter, SESSION_ID_LEN};

/// What a startup ends with.
#[derive(Debug)]
pub struct Opened {
    /// The session's keys.
    pub keys: SessionKeys,
    /// The id of packets to us.
    pub near_id: u32,
    /// The id of packets to the far end.
    pub far_id: u32,
    /// Where the far end is.
    pub far: SocketAddr,
    /// The far end's certificate.
    pub certificate: Vec<u8>,
}

/// The signature that says there is none. Some clients want exactly this.
pub const NO_SIGNATURE: &[u8] = b"X";

/// Writes the datagram of a startup packet with one chunk, to the session `to`.
///
/// # Errors
/// [`Error::NoRoom`] when `buffer` is too short.
pub fn write_datagram(
    suite: &mut FlashSuite,
    buffer: &mut [u8],
    to: u32,
    timestamp: u16,
    chunk: &Chunk<'_>,
) -> Result<usize, Error> {
    let sealed = buffer.get_mut(SESSION_ID_LEN..).ok_or(Error::NoRoom)?;
    let head = suite.head_len();
    let plain_max = suite.plain_max(sealed.len());
    let plain = sealed
        .get_mut(head..head + plain_max)
        .ok_or(Error::NoRoom)?;
    let mut packet = PacketWriter::new(plain, &Header::startup(timestamp))?;
    packet.chunk(chunk)?;
    let plain_len = packet.finish();
    let len = SESSION_ID_LEN + suite.seal(sealed, plain_len)?;
    packet::seal_multiplex(&mut buffer[..len], to);
    Ok(len)
}

#[cfg(test)]
mod tests;
