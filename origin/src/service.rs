//! What edges call.

pub mod media;
