//! How a session behaves where the specification leaves a choice.

use std::time::Duration;

use crate::limits;

/// What a far end takes amiss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manners {
    /// It follows RFC 7016.
    #[default]
    Standard,
    /// It gives the session up at a Buffer Probe and at an acknowledgement that closes the
    /// window. A common family of clients does: it gets neither.
    Touchy,
}

/// See the fields. [`Config::default`] is for a server with clients of all kinds.
#[derive(Clone, Debug)]
pub struct Config {
    /// The longest plain packet in bytes: what a datagram of [`limits::DATAGRAM_MAX`] bytes
    /// leaves after its session id, padding and authentication.
    pub packet_max: usize,
    /// What the far end takes amiss.
    pub manners: Manners,
    /// A ping goes out when nothing came for so long.
    pub keepalive: Duration,
    /// When what was sent is not answered, or data stop coming, for so long, a ping goes
    /// out: it shows the far end where we are if our address changed, and it finds out
    /// where the far end is long before a keepalive would.
    pub stall: Duration,
    /// The session is dead when nothing came for so long.
    pub silence_max: Duration,
    /// The session is dead when data in flight are not acknowledged for so long, though
    /// packets come.
    pub unacknowledged_max: Duration,
    /// What each receiving flow may buffer before its sender has to wait, in bytes.
    pub receive_buffer: usize,
    /// What may wait in one sending flow in bytes, unless it is a single message.
    pub queue_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            packet_max: PACKET_MAX,
            manners: Manners::Standard,
            keepalive: Duration::from_secs(15),
            stall: Duration::from_millis(500),
            silence_max: Duration::from_secs(60),
            unacknowledged_max: Duration::from_secs(60),
            receive_buffer: 512 * 1024,
            queue_max: 4 << 20,
        }
    }
}

/// A packet that has room in a datagram under any authentication: the session id, a code
/// of 32 bytes, whole blocks of 16, and a sequence number and checksum within.
const PACKET_MAX: usize = (limits::DATAGRAM_MAX - 4 - 32) / 16 * 16 - 12;

const _: () = assert!(PACKET_MAX > 2 * limits::METADATA_MAX);
