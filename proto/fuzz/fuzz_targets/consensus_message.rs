//! Messages between nodes of the log, of any bytes and almost right.
#![no_main]

use std::time::Instant;

libfuzzer_sys::fuzz_target!(|input: &[u8]| consensus::fuzzing::run(input, Instant::now()));
