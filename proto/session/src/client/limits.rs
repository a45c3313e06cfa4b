//! What a server can make a client session hold.

/// Calls of ours that wait for an answer. A server that answers none of them must not
/// make us remember without end; no program has this many questions open.
pub const CALLS_OPEN_MAX: usize = 4096;

/// Streams of one session. Servers allow fewer.
pub const STREAMS_MAX: usize = 1024;

/// Slots of one shared object. Our servers hold 4096, others hold what they like.
pub const SLOTS_MAX: usize = 64 * 1024;

/// Events of one batch of ours: what our servers take.
pub const BATCH_EVENTS_MAX: usize = crate::limits::OBJECT_ASK_EVENTS_MAX;

/// Bytes of names and values in one batch of ours. Each event costs seven bytes more, and
/// our servers take no more than [`crate::limits::OBJECT_ASK_BYTES_MAX`].
pub const BATCH_BYTES_MAX: usize = 128 * 1024;

const _: () = assert!(
    BATCH_BYTES_MAX + crate::limits::OBJECT_VALUE_BYTES_MAX + 16 * BATCH_EVENTS_MAX
        < crate::limits::OBJECT_ASK_BYTES_MAX
);
