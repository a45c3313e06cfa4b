//! Arbitrary packets to an open RTMFP session.
#![no_main]

use std::sync::LazyLock;
use std::time::Instant;

/// The session's time is an argument; where it starts makes no difference.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rtmfp::session::fuzzing::session(bytes, *START));
