//! Any bytes as the body of an AMF0 message.
#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| amf::fuzzing::amf0(body));
