//! What a peer may ask of our memory and time, and why not more.

use std::time::Duration;

/// The longest datagram we send once a session is open, in bytes. It passes a path of 1280
/// bytes (the least that IPv6 guarantees) with tunnels on the way, and known peers read no
/// more.
pub const DATAGRAM_MAX: usize = 1200;

/// The longest startup datagram that is accepted, in bytes. A certificate with three static
/// keys and a keying component with a 4096-bit key have about 2000.
pub const STARTUP_DATAGRAM_MAX: usize = 4096;

/// The longest tag of a hello. Known clients send 16 bytes; what is longer makes our answer
/// longer, at no cost to one who forges its address.
pub const TAG_MAX: usize = 64;

/// The longest endpoint discriminator: a fingerprint, or a URL of some length.
pub const DISCRIMINATOR_MAX: usize = 1024;

/// The longest certificate. Three static keys of known servers have 908 bytes.
pub const CERTIFICATE_MAX: usize = 2048;

/// The longest session keying component: the key of the largest group, and options.
pub const COMPONENT_MAX: usize = 1024;

/// Every cookie of ours has this length. Some clients read exactly so many bytes.
pub const COOKIE_LEN: usize = 64;

/// How long a cookie of ours is good (RFC 7016 §3.5.1.1.2: 95 seconds, which is the
/// longest time that an initiator goes on trying).
pub const COOKIE_LIFETIME: Duration = Duration::from_secs(95);

/// The longest cookie of others. It goes back to them in our keying.
pub const FAR_COOKIE_MAX: usize = 256;

/// How many packets behind the newest one a packet may be (RFC 7425 §4.7.3.3 asks for at
/// least 32). Paths of several links reorder by more when a burst is in flight.
pub const REPLAY_WINDOW: u64 = 128;

/// The longest metadata of a flow (RFC 7016 §2.3.11.1.1: no more than 512 bytes).
pub const METADATA_MAX: usize = 512;

/// The longest message: one of RTMP, whose length has 24 bits, and the header that it has
/// in a flow.
pub const MESSAGE_MAX: usize = 0xff_ffff + 16;

/// The most messages that wait in one sending flow, whatever their size. At 60 frames a
/// second it is over a minute.
pub const QUEUED_MESSAGES_MAX: usize = 4096;

/// The most sending flows of a session. A client plays some dozen streams with three each.
pub const SEND_FLOWS_MAX: usize = 1024;

/// The most receiving flows of a session that are not over. More are not taken note of.
pub const RECEIVE_FLOWS_MAX: usize = 512;

/// The most receiving flows that are over and whose numbers are kept for two minutes.
pub const RECEIVE_FLOWS_ENDED_MAX: usize = 1024;

/// What all receiving flows of a session hold together, in bytes. There is room for one
/// message of the greatest length beside what a few flows buffer.
pub const RECEIVED_MAX: usize = 32 << 20;

/// Pings that wait for their reply to go out. A peer has no more than a few under way.
pub const CONTROL_MAX: usize = 8;

/// Chunks of the owner's that wait to go out: hellos for a peer that many want to talk with
/// at once, of some 80 bytes each. Who is left out asks again.
pub const OWNERS_CHUNKS_MAX: usize = 128;

/// Packets of an open session that are put together from fragments at a time. None are
/// expected: fragments are for startup (RFC 7016 §3.4).
pub const FRAGMENTED_PACKETS_MAX: usize = 4;

/// The longest packet that is put together from fragments (§3.4 suggests as much).
pub const FRAGMENTED_PACKET_MAX: usize = 65_536;

/// The fragments of one packet. A packet of the greatest length in fragments of 512 bytes has
/// so many; each costs far more to remember than its bytes when they are few.
pub const FRAGMENTS_MAX: usize = 128;

/// Startup packets that are put together from fragments at a time, of all who have proved
/// nothing. Known endpoints send large startup packets whole.
pub const FRAGMENTED_STARTUPS_MAX: usize = 16;

const _: () = assert!(MESSAGE_MAX * 3 / 2 < RECEIVED_MAX);
const _: () = assert!(REPLAY_WINDOW >= 32);
const _: () = assert!(CERTIFICATE_MAX + COMPONENT_MAX + FAR_COOKIE_MAX < STARTUP_DATAGRAM_MAX);

/// The most addresses that one attempt to open a session asks at (RFC 7016 §3.5.1.1.1:
/// no more than 24). Whoever answers a hello can name some.
pub const CANDIDATES_MAX: usize = 24;

/// Startup datagrams that wait to be sent. A burst of hellos beyond it is not answered;
/// whoever meant it will ask again.
pub const STARTUP_QUEUE_MAX: usize = 256;

/// The addresses that a peer may report of itself.
pub const REPORTED_MAX: usize = 16;

/// How long a session that we answered may be without a packet that shows that its keys are
/// held. The initiator has every reason to send one at once.
pub const HALF_OPEN_FOR: Duration = Duration::from_secs(20);

/// Sessions without such a packet. With one more, the oldest is dropped: it has had longest.
pub const HALF_OPEN_MAX: usize = 4096;
