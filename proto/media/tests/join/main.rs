//! Joins, losses and resumptions of random readers of random streams: judged by a decoder
//! that refuses, and compared with a reference that is too simple to be wrong.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]

mod decoder;
mod publisher;
mod reference;
