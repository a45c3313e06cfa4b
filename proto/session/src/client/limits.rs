//! What a server can make a client session hold.

/// Calls of ours that wait for an answer. A server that answers none of them must not
/// make us remember without end; no program has this many questions open.
pub const CALLS_OPEN_MAX: usize = 4096;

/// Streams of one session. Servers allow fewer.
pub const STREAMS_MAX: usize = 1024;

/// Slots of one shared object. Our servers hold 4096, others hold what they like.
pub const SLOTS_MAX: usize = 64 * 1024;
