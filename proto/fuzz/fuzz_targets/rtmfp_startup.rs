//! Any bytes as what is inside the startup datagrams that an endpoint is sent.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rtmfp::fuzzing::startup(data));
