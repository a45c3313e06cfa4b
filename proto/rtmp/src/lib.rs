//! The RTMP byte carrier: handshake, chunks, messages.

pub mod message;

pub use message::{Message, MessageKind, StreamId, UserControl};
