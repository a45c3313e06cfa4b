//! Everything a client or an origin can make an edge hold has a bound here.

use std::time::Duration;

/// Bytes waiting for one client above which nothing more is read from it and no more
/// media is taken for it: its lag stays in its cursor, where it costs nothing.
pub const OUTBOX_HIGH_WATER: usize = 256 * 1024;

/// Bytes waiting for one client above which it is closed. Media stops at the high-water mark
/// and the one frame that crosses it; what goes beyond are replies to its own commands.
pub const OUTBOX_MAX: usize = 16 * 1024 * 1024;
const _: () = assert!(OUTBOX_HIGH_WATER + rtmp::limits::MESSAGE_MAX < OUTBOX_MAX);

/// Bytes waiting for one client above which changes of its objects are merged instead of
/// queued. Below it everybody is given the same bytes.
pub const OBJECTS_HIGH_WATER: usize = 64 * 1024;
const _: () = assert!(OBJECTS_HIGH_WATER < OUTBOX_HIGH_WATER);

// What a publisher may send in one message must fit into one frame of the fabric.
const _: () = assert!(rtmp::limits::MESSAGE_MAX <= fabric::limits::FRAME_PAYLOAD_MAX);

/// Slices handed to one `writev`. Linux takes 1,024; beyond some dozens nothing is won.
pub const WRITE_SLICES: usize = 64;

/// The shared read buffer of a shard. One read takes at most this.
pub const READ_BUFFER: usize = 64 * 1024;

/// A client that takes no byte for this long while we have some for it is gone.
pub const WRITE_STALL: Duration = Duration::from_secs(30);

/// Bytes of a publisher that are read but not yet given to an origin, above which its
/// socket is not read: TCP then slows the encoder.
pub const UPLINK_LAG_MAX: u64 = 4 * 1024 * 1024;

/// What a publisher's replay keeps: enough to bridge the loss of an origin.
pub const REPLAY_BYTES: usize = 16 * 1024 * 1024;

/// How far back the replay reaches before the newest key frame, milliseconds of media. A
/// hung origin is noticed after the link's ping interval and timeout, 5 s by default; the
/// replay must reach further back, or its subscribers lack frames.
pub const REPLAY_TIME_MS: u64 = 8_000;

/// Messages a shard takes from its inbox before it looks at its viewers: bounds the
/// delay that a flood of one stream can cause to another.
pub const INBOX_BATCH: usize = 256;

/// Connections that the kernel has completed and that are not accepted yet.
pub const ACCEPT_QUEUE: u32 = 1024;

/// What may wait in one flow to a client, in bytes: two seconds of a good picture, after
/// which what is late is given up. More waits where it is read from.
pub const FLOW_QUEUE: usize = 1024 * 1024;

/// Datagrams that came to another shard than their session's and wait to be taken. A client
/// whose address changed sends some dozen at once.
pub const STRAYS_MAX: usize = 1024;
