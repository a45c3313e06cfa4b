//! What a peer may ask of our memory, and why not more.

/// The longest message that is accepted, in bytes. A key frame of 4K video at
/// 100 Mbit/s has about 2 MiB; the format itself would allow 16 MiB.
pub const MESSAGE_MAX: usize = 8 << 20;

/// The longest message that can be written: its length has 24 bits on the wire.
pub const MESSAGE_LENGTH_MAX: usize = 0xff_ffff;

/// How many chunk streams a peer may use. The format allows 65597, each of which would
/// cost us its last header for the life of the connection. Players use about five per
/// NetStream, encoders five in all.
pub const CHUNK_STREAMS_MAX: usize = 64;

/// How many messages may be incomplete at once. One for each of the few priorities an
/// encoder interleaves (control, command, audio, video, data), some times over.
pub const OPEN_ASSEMBLIES_MAX: usize = 16;

/// How many bytes all incomplete messages of a connection may hold together: the longest
/// message, and as much again for what is interleaved with it.
pub const ASSEMBLY_BYTES_MAX: usize = 2 * MESSAGE_MAX;

/// What an incomplete message may reserve before its bytes are there. Beyond it, memory
/// at most doubles what was received, whatever length the header announces.
pub const ASSEMBLY_START: usize = 4096;

/// A body shorter than this is copied out of the read buffer. Handing out a slice would
/// keep the whole read buffer (64 KiB) alive for as long as the message lives.
pub const COPY_BELOW: usize = 512;

/// A part of a body at least this long is queued for writing by reference. Below it a
/// copy costs less than one more element in the vectored write.
pub const REFERENCE_FROM: usize = 8192;

/// The chunk size of both directions until a Set Chunk Size says otherwise (§5.4.1).
pub const CHUNK_SIZE_DEFAULT: u32 = 128;

/// The largest chunk size that Set Chunk Size can name (§5.4.1). It is no memory: a chunk
/// is never longer than its message.
pub const CHUNK_SIZE_MAX: u32 = 0x7fff_ffff;

/// Bytes between two acknowledgements of ours until the peer names its window. It is what
/// Flash Media Server uses; a peer that never names one may still wait for it.
pub const WINDOW_DEFAULT: u32 = 2_500_000;

/// All that a peer sends before chunks begin: the version byte and two blocks (§5.2).
pub const HANDSHAKE_BYTES: usize = 1 + 2 * 1536;

/// The queue of complete messages keeps room for this many when it is empty again. A read
/// buffer full of empty messages makes it far longer, once.
pub const QUEUE_KEPT: usize = 256;

const _: () = assert!(MESSAGE_MAX <= MESSAGE_LENGTH_MAX);
const _: () = assert!(MESSAGE_MAX <= ASSEMBLY_BYTES_MAX);
const _: () = assert!(OPEN_ASSEMBLIES_MAX <= CHUNK_STREAMS_MAX);
const _: () = assert!(OPEN_ASSEMBLIES_MAX * ASSEMBLY_START <= ASSEMBLY_BYTES_MAX);
