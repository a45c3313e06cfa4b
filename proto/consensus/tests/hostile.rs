//! Whatever another node sends, nothing but an error comes of it.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::fs;
use std::path::Path;
use std::time::Instant;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, RngSeed};

fn config(cases: u32) -> Config {
    Config {
        cases,
        failure_persistence: None,
        rng_algorithm: RngAlgorithm::ChaCha,
        rng_seed: RngSeed::Fixed(0x5e1a),
        ..Config::default()
    }
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "any instant is a start")]
    Instant::now()
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn messages_that_are_almost_right_end_no_node(
        input in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        selvage_consensus::fuzzing::run(&input, now());
    }
}

#[test]
fn every_input_of_the_corpus_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/consensus_message");
    let mut inputs = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        let input = fs::read(entry.unwrap().path()).unwrap();
        for len in 0..=input.len() {
            selvage_consensus::fuzzing::run(&input[..len], now());
        }
        inputs += 1;
    }
    assert!(inputs > 0, "the corpus is missing");
}
