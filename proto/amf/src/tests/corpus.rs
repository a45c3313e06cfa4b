//! What fuzzing has found and what it starts from, run again.

use std::path::Path;

use crate::fuzzing;

fn replay(name: &str, run: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(name);
    let mut files: Vec<_> = std::fs::read_dir(&corpus)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(
        files.len() >= 24,
        "the corpus of {name} has {} files",
        files.len()
    );
    for file in files {
        println!("{}", file.display());
        run(&std::fs::read(&file).unwrap());
    }
}

#[test]
fn the_corpus_of_amf0_holds() {
    replay("amf0", fuzzing::amf0);
}

#[test]
fn the_corpus_of_amf3_holds() {
    replay("amf3", fuzzing::amf3);
}
