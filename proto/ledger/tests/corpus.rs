//! What the fuzzer found worth keeping, played in every run, and some chance besides.

#![allow(
    clippy::unwrap_used,
    reason = "a failed run is to end the test at once"
)]

use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use selvage_ledger::fuzzing;

#[test]
fn the_corpora_hold() {
    for (name, play, least) in [
        ("ledger", fuzzing::ledger as fn(&[u8]), 20),
        ("ledger_wire", fuzzing::wire, 20),
    ] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        let mut played = 0;
        for entry in std::fs::read_dir(folder.join(name)).unwrap() {
            play(&std::fs::read(entry.unwrap().path()).unwrap());
            played += 1;
        }
        assert!(
            played >= least,
            "{name}: {played} inputs: the corpus is missing"
        );
    }
}

#[test]
fn random_logs_keep_the_promises() {
    run(60, 0..1500, fuzzing::ledger);
}

#[test]
fn random_bytes_are_refused_or_canonical() {
    run(2000, 0..200, fuzzing::wire);
}

fn run(cases: u32, len: std::ops::Range<usize>, play: fn(&[u8])) {
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    TestRunner::new_with_rng(config, rng)
        .run(&prop::collection::vec(any::<u8>(), len), |bytes| {
            play(&bytes);
            Ok(())
        })
        .unwrap();
}
