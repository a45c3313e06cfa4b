//! Headers of the PROXY protocol of any bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| proxy::fuzzing::run(input));
