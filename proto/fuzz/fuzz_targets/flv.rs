//! Media messages and FLV files of any bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| flv::fuzzing::run(input));
