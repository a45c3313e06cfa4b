//! What a connection holds at most, and how long it waits.

use std::time::Duration;

/// Bytes that a publisher leaves unsent before it waits: half a second of a 2.5 Mbit/s
/// stream, so that a short stall of the network does not stop the encoder.
pub const UNSENT_MAX: usize = 160 * 1024;

/// Events that wait to be fetched. When there are more, the socket is not read, and TCP
/// slows the server down.
pub const EVENTS_WAITING_MAX: usize = 1024;

/// Room made for one read. A 2.5 Mbit/s key frame is about this big.
pub const READ_SIZE: usize = 32 * 1024;

/// Slices of one vectored write; Linux takes at most 1024.
pub const SLICES_MAX: usize = 64;

/// How long a graceful close waits for the server to close its side. Long enough for a
/// far server; a server that takes longer misses nothing.
pub const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

const _: () = assert!(SLICES_MAX <= 1024);

/// Pieces of work that wait for a connection's task. One may be a key frame; whoever has
/// more waits.
pub const TURNS_MAX: usize = 16;

/// Events that wait for the one who asked for them. When there are more, those behind
/// wait in the connection ([`EVENTS_WAITING_MAX`]).
pub const EVENTS_MAX: usize = 256;
