//! Tests of the whole: real processes on the loopback, real players and publishers of
//! others, and the shape of the source tree.
//!
//! * [`lab`]: starts clusters of the real binaries, drives foreign programs, speaks raw
//!   RTMP, waits for states.
//! * [`fixture`]: the streams that are published.
//! * [`judge`]: whether what clients saw of shared objects is what one object would show.
//! * `tests/architecture.rs`: the arrows between the crates and other habits that a
//!   machine can check.
//! * `tests/lab_*.rs`: one file per promise of the product.
//!
//! `cluster-tests/run` installs the foreign programs and runs everything. No test
//! sleeps, uses a fixed port, or is skipped when something is missing: it fails and says
//! what to install.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "this library is only linked into tests, whose failures are panics"
)]

pub mod dice;
pub mod fixture;
pub mod judge;
pub mod lab;
pub mod nemesis;
