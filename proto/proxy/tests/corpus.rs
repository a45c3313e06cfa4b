//! Replays the fuzzer's corpus.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::fs;
use std::path::Path;

#[test]
fn every_input_of_the_corpus_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/proxy");
    let mut inputs = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        let input = fs::read(entry.unwrap().path()).unwrap();
        // Cut short anywhere, it must hold as well.
        for len in 0..=input.len() {
            selvage_proxy::fuzzing::run(&input[..len]);
        }
        inputs += 1;
    }
    assert!(inputs > 0, "the corpus is missing");
}
