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

/// Objects that one connection may use at once. A room has a handful: its users, its
/// chat, its settings. Each costs a subscription at the edge.
pub const OBJECTS_PER_CLIENT_MAX: usize = 256;

/// Bytes of one shared-object message of a client. The replicated state takes 512 KiB at
/// a time, names and numbering included.
pub const OBJECT_ASK_BYTES_MAX: usize = 256 * 1024;

/// Events of one shared-object message of a client, each name or pair counted: more
/// than a script sets between two frames, and as many as the replicated state takes.
pub const OBJECT_ASK_EVENTS_MAX: usize = 1024;

/// Bytes of one shared-object message of a server: a whole object of 1 MiB, and the
/// messages of others that gathered meanwhile.
pub const OBJECT_UPDATE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Events of one shared-object message of a server: every slot, every removal that is
/// remembered, and the messages of others that gathered meanwhile.
pub const OBJECT_UPDATE_EVENTS_MAX: usize = 64 * 1024;

/// Bytes of an object's name on the wire. Longer ones are not even answered; those that
/// are no [`model::ObjectName`] are answered by a status.
pub const OBJECT_NAME_BYTES_MAX: usize = 1024;

/// Bytes of one slot's value: a nested object with a few thousand fields.
pub const OBJECT_VALUE_BYTES_MAX: usize = 64 * 1024;

/// AMF values in one slot's value, references expanded: as many as can be written into
/// so many bytes.
pub const OBJECT_VALUES_MAX: usize = 16 * 1024;

/// Containers inside one another in a slot's value. Scripts keep to a few.
pub const OBJECT_VALUE_DEPTH_MAX: usize = 32;

/// Bytes that one slow subscriber may have waiting of one object before its slots are
/// given up and sent anew: an object's largest size, so a whole object always fits.
pub const COLLAPSE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Addresses that a peer may report of itself: those of a machine with many interfaces, each
/// in both families.
pub const PEER_ADDRESSES_MAX: usize = 16;

/// The largest number that a client may resume from: beyond it the doubles of AMF are
/// not exact.
pub const RESUME_NEXT_MAX: u64 = 1 << 53;

const _: () = assert!(OBJECT_VALUE_BYTES_MAX < OBJECT_ASK_BYTES_MAX);
const _: () = assert!(COLLAPSE_BYTES_MAX < OBJECT_UPDATE_BYTES_MAX);
