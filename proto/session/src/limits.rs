//! What one peer may make a session hold, and why that much.

/// Message streams of one connection. Flash Media Server starts collecting at 100
/// (`MaxStreamsBeforeGC`); conference applications keep one per participant. A client
/// that leaks streams hits this bound instead of our memory.
pub const STREAMS_MAX: usize = 256;

/// Bytes of one command message. A carrier allows megabytes because of video; no
/// command needs them, and the arguments of open calls are held by the shell.
pub const COMMAND_BYTES_MAX: usize = 256 * 1024;

/// Remote calls without an answer. An ActionScript client rarely has more than a
/// handful open.
pub const OPEN_CALLS_MAX: usize = 64;

/// What the open calls of one connection can make the shell hold.
pub const OPEN_CALL_BYTES_MAX: usize = OPEN_CALLS_MAX * COMMAND_BYTES_MAX;

const _: () = assert!(OPEN_CALL_BYTES_MAX <= 16 * 1024 * 1024);

/// Bytes of a remote method's name: a dotted path of identifiers.
pub const METHOD_NAME_MAX: usize = 255;

/// Commands that wait while the shell decides about `connect`. Clients that start fast
/// send createStream and play without waiting for the answer; they send three to six.
pub const WAITING_MESSAGES_MAX: usize = 32;

/// Bytes of those commands.
pub const WAITING_BYTES_MAX: usize = 64 * 1024;

/// Codecs that are remembered of an enhanced-RTMP client. The specification names
/// fewer than twenty.
pub const CODECS_MAX: usize = 64;

/// Bytes of one codec's name: a FourCC, or `*`.
pub const CODEC_NAME_MAX: usize = 4;

/// Bytes of a peer's text that we put into a description or a status. Longer texts are
/// cut: the peer must not make us write much more than it sent.
pub const ECHO_MAX: usize = 512;
