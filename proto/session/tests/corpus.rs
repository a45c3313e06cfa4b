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
fn the_corpus_of_object_messages_holds_and_so_does_what_is_near_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/object");
    let mut inputs: Vec<Vec<u8>> = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        inputs.push(std::fs::read(entry.unwrap().path()).unwrap());
    }
    assert!(
        inputs.len() >= 20,
        "{}: the corpus is missing",
        inputs.len()
    );
    // The same whatever the order of the folder.
    inputs.sort();
    for bytes in &inputs {
        selvage_session::fuzzing::object(bytes);
    }
    let near = (
        prop::sample::select(inputs),
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    );
    runner(2000)
        .run(&near, |(mut bytes, changes)| {
            for (at, to) in changes {
                let at = at.index(bytes.len());
                bytes[at] = to;
            }
            selvage_session::fuzzing::object(&bytes);
            Ok(())
        })
        .unwrap();
}

#[test]
fn random_operations_keep_the_contract() {
    runner(300)
        .run(&prop::collection::vec(any::<u8>(), 0..600), |bytes| {
            selvage_session::fuzzing::session(&bytes, start());
            Ok(())
        })
        .unwrap();
}

fn runner(cases: u32) -> TestRunner {
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    TestRunner::new_with_rng(config, rng)
}
