//! Any bytes as a plain RTMFP packet.
#![no_main]

libfuzzer_sys::fuzz_target!(|plain: &[u8]| rtmfp::fuzzing::packet(plain));
