#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rtmp::fuzzing::chunk(data));
