//! Names of streams.
