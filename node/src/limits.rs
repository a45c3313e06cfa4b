//! What a process holds for its links and listeners, and why that much.

use std::time::Duration;

/// HTTP/2 window of one gRPC stream. Media links carry gigabits; the default of 64 KiB would wait
/// for the round trip, and 4 MiB measured best on the loopback.
pub const STREAM_WINDOW: u32 = 4 << 20;

/// HTTP/2 window of one connection. It exceeds three whole stream windows, so that readers of two
/// streams can stall and the third is served at full speed.
pub const CONNECTION_WINDOW: u32 = 16 << 20;

const _: () = assert!(CONNECTION_WINDOW >= 4 * STREAM_WINDOW);

/// Largest HTTP/2 frame: a batch of media travels in one or two. The default of 16 KiB doubles
/// the cost per byte.
pub const FRAME_SIZE: u32 = 1 << 20;

/// gRPC streams that one connection may open. A link and its control calls need a handful; a
/// peer that wants more than this is broken.
pub const STREAMS_PER_CONNECTION: u32 = 1024;

/// Connections that were accepted and not yet taken by the server. More wait in the listener's
/// backlog, in the kernel.
pub const ACCEPTED_WAITING: usize = 64;

/// TLS handshakes under way on one listener. Each holds some tens of kilobytes until
/// [`HANDSHAKE_TIME`] is over.
pub const HANDSHAKES: usize = 256;

/// Time that a peer has for its TLS handshake.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// Pause after a failed accept: without it, a process that has run out of file descriptors spins.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bytes in flight each way on an in-process link, as a socket's buffers would hold.
pub const DUPLEX_BUFFER: usize = 1 << 20;

/// Addresses that one name may resolve to. A larger answer is cut, in the order of the addresses.
pub const ADDRESSES_PER_NAME: usize = 256;

/// Largest certificate or key file that is read: a chain with its key is some kilobytes.
pub const PEM_FILE: u64 = 1 << 20;

/// Largest file of a token that is read: a token is some tens of bytes.
pub const TOKEN_FILE: u64 = 4096;

/// Spans that wait for export. The default of 2048 overflows at a thousand sessions a second and
/// drops what does not fit.
pub const SPANS_WAITING: usize = 16 * 1024;

/// How often spans leave. Whoever looks for a stream that has just begun finds it; the default
/// of five seconds is longer than it takes to wonder.
pub const SPANS_EVERY: Duration = Duration::from_secs(1);
