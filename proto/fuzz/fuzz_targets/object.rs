//! Any bytes as the body of a shared-object message; the first byte says of which type.
#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| session::fuzzing::object(body));
