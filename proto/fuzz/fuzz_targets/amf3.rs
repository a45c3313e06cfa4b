//! Any bytes as a sequence of AMF3 values.
#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| amf::fuzzing::amf3(body));
