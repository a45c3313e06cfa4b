//! What the fuzzer found worth keeping, played in every run, and some chance besides.

use std::path::Path;
use std::time::Instant;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

#[allow(
    clippy::disallowed_methods,
    reason = "a test needs some instant to start from"
)]
fn start() -> Instant {
    Instant::now()
}

#[test]
fn the_corpus_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/session");
    let mut played = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        selvage_session::fuzzing::session(&bytes, start());
        played += 1;
    }
    assert!(played >= 20, "{played} inputs: the corpus is missing");
}

#[test]
fn random_operations_keep_the_contract() {
    let config = Config {
        cases: 300,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    TestRunner::new_with_rng(config, rng)
        .run(&prop::collection::vec(any::<u8>(), 0..600), |bytes| {
            selvage_session::fuzzing::session(&bytes, start());
            Ok(())
        })
        .unwrap();
}
