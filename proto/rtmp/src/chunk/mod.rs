//! Chunks: how messages share the connection (RTMP 1.0 §5.3).

#[cfg(test)]
mod encoder;
mod header;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use writer::{chunk_stream, image, image_len};

pub(crate) use reader::{RawMessage, Reader, own};
pub(crate) use writer::Writer;

/// Chunk stream 2 belongs to protocol control messages (§5.3.1.1).
pub const CONTROL_CHUNK_STREAM: u32 = 2;
