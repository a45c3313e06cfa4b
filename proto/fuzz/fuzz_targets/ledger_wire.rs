//! Any bytes, read as commands, as messages between edge and origin, and as snapshots.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ledger::fuzzing::wire(bytes));
