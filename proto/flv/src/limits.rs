//! What is accepted, and why.

/// Bytes of one tag's payload. A message of the RTMP carrier has no more either, so what
/// was recorded can be played; the format's own bound is [`TAG_FORMAT_MAX`].
pub const TAG_MAX: usize = 8 * 1024 * 1024;

/// Bytes that the 24-bit length field of a tag can express.
pub const TAG_FORMAT_MAX: usize = 0xff_ffff;

/// Bytes of a file's header. Version 1 has 9; the field that allows for longer ones has 32
/// bits, and a reader must not wait for 4 GiB.
pub const FILE_HEADER_MAX: u32 = 64 * 1024;

/// Tracks looked at in one message that carries several: track ids have 8 bits.
pub const TRACKS_MAX: usize = 256;

const _: () = assert!(TAG_MAX <= TAG_FORMAT_MAX);
