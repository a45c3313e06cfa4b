//! Why a carrier gives up, and who is to blame.

use std::fmt;

use crate::limits;

/// Who has to change something for this not to happen again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The peer broke the protocol, or a limit.
    PeerMisbehaved,
    /// The peer speaks something that is no fault of it, and that we do not speak.
    PeerIncompatible,
}

/// What a peer did. Each of these ends the connection, except where a function says
/// otherwise; nothing that is merely unknown is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The first byte asks for RTMPE (6, 8 or 9), the encrypted variant.
    Encrypted {
        /// The first byte.
        version: u8,
    },
    /// The first byte is a version that nobody speaks, or not RTMP at all.
    Version {
        /// The first byte.
        version: u8,
    },
    /// The first chunk of a chunk stream has a header of format 2 or 3, which refers to
    /// a header before it.
    NoHeaderBefore {
        /// The chunk stream.
        chunk_stream: u32,
        /// The format, 2 or 3.
        format: u8,
    },
    /// A new message began on a chunk stream before the one there was complete, without
    /// an Abort.
    Interrupted {
        /// The chunk stream.
        chunk_stream: u32,
        /// How long the incomplete message was to be, in bytes.
        len: usize,
        /// How much of it had come, in bytes.
        received: usize,
    },
    /// A message is longer than [`limits::MESSAGE_MAX`].
    MessageTooLong {
        /// The chunk stream.
        chunk_stream: u32,
        /// The announced length in bytes.
        len: usize,
    },
    /// More than [`limits::CHUNK_STREAMS_MAX`] chunk streams.
    TooManyChunkStreams {
        /// The one that is too many.
        chunk_stream: u32,
    },
    /// More than [`limits::OPEN_ASSEMBLIES_MAX`] incomplete messages.
    TooManyIncomplete {
        /// The chunk stream of the one that is too many.
        chunk_stream: u32,
    },
    /// Incomplete messages hold more than [`limits::ASSEMBLY_BYTES_MAX`].
    IncompleteTooLarge {
        /// The chunk stream whose bytes are too many.
        chunk_stream: u32,
    },
    /// Set Chunk Size names 0, or has its highest bit set (§5.4.1).
    ChunkSize {
        /// What it names.
        size: u32,
    },
    /// A protocol control message ends before its fields do.
    ControlTooShort {
        /// The message type id: 1, 2, 3, 5 or 6.
        type_id: u8,
        /// The length of its body in bytes.
        len: usize,
    },
    /// A user control message ends before its event's data does. It does not end the
    /// connection by itself: the carrier does not look into them.
    UserControlTooShort {
        /// The length of its body in bytes.
        len: usize,
    },
    /// An aggregate message ends inside one of its parts.
    AggregateTruncated {
        /// Where in the body the part begins.
        at: usize,
    },
}

impl Error {
    /// Who is to blame.
    #[must_use]
    pub const fn blame(&self) -> Blame {
        match self {
            Self::Encrypted { .. } | Self::Version { .. } => Blame::PeerIncompatible,
            Self::NoHeaderBefore { .. }
            | Self::Interrupted { .. }
            | Self::MessageTooLong { .. }
            | Self::TooManyChunkStreams { .. }
            | Self::TooManyIncomplete { .. }
            | Self::IncompleteTooLarge { .. }
            | Self::ChunkSize { .. }
            | Self::ControlTooShort { .. }
            | Self::UserControlTooShort { .. }
            | Self::AggregateTruncated { .. } => Blame::PeerMisbehaved,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Encrypted { version } => {
                write!(
                    f,
                    "unsupported: the peer asks for RTMPE (version {version})"
                )
            }
            // 32 and above are kept free so that text protocols can be told apart (§5.2.2).
            Self::Version {
                version: version @ 32..,
            } => {
                write!(f, "not RTMP: the first byte is 0x{version:02x}")
            }
            Self::Version { version: 22 } => {
                f.write_str("not RTMP: the first byte is that of a TLS record")
            }
            Self::Version { version } => write!(f, "unsupported RTMP version {version}"),
            Self::NoHeaderBefore {
                chunk_stream,
                format,
            } => write!(
                f,
                "chunk stream {chunk_stream} begins with a header of format {format}, \
                 which repeats one that never was"
            ),
            Self::Interrupted {
                chunk_stream,
                len,
                received,
            } => write!(
                f,
                "a new message on chunk stream {chunk_stream} after {received} of {len} bytes \
                 of the one before"
            ),
            Self::MessageTooLong { chunk_stream, len } => write!(
                f,
                "a message of {len} bytes on chunk stream {chunk_stream}, the limit is {}",
                limits::MESSAGE_MAX
            ),
            Self::TooManyChunkStreams { chunk_stream } => write!(
                f,
                "chunk stream {chunk_stream} is one more than the {} allowed",
                limits::CHUNK_STREAMS_MAX
            ),
            Self::TooManyIncomplete { chunk_stream } => write!(
                f,
                "the incomplete message on chunk stream {chunk_stream} is one more than the {} \
                 allowed",
                limits::OPEN_ASSEMBLIES_MAX
            ),
            Self::IncompleteTooLarge { chunk_stream } => write!(
                f,
                "incomplete messages hold more than {} bytes (the last on chunk stream \
                 {chunk_stream})",
                limits::ASSEMBLY_BYTES_MAX
            ),
            Self::ChunkSize { size } => write!(f, "Set Chunk Size names {size}"),
            Self::ControlTooShort { type_id, len } => {
                write!(
                    f,
                    "a protocol control message of type {type_id} has only {len} bytes"
                )
            }
            Self::UserControlTooShort { len } => {
                write!(f, "a user control message has only {len} bytes")
            }
            Self::AggregateTruncated { at } => {
                write!(f, "an aggregate message ends inside the part at byte {at}")
            }
        }
    }
}

impl std::error::Error for Error {}
