//! Any log, applied everywhere, with the books kept beside it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ledger::fuzzing::ledger(bytes));
