//! What the fuzz targets begin with and what they found worth keeping, played in every run.
#![allow(
    clippy::unwrap_used,
    reason = "a failed run is to end the test at once"
)]

use std::path::Path;
use std::time::Instant;

use selvage_rtmfp::{fuzzing, session};

fn replay(target: &str, play: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    let mut played = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        play(&std::fs::read(entry.unwrap().path()).unwrap());
        played += 1;
    }
    assert!(
        played >= 20,
        "{target}: {played} inputs: the corpus is missing"
    );
}

#[allow(clippy::disallowed_methods, reason = "any instant will do")]
fn start() -> Instant {
    Instant::now()
}

#[test]
fn the_corpus_of_packets_holds() {
    replay("rtmfp_packet", fuzzing::packet);
}

#[test]
fn the_corpus_of_startups_holds() {
    replay("rtmfp_startup", fuzzing::startup);
}

#[test]
fn the_corpus_of_sessions_holds() {
    let start = start();
    replay("rtmfp_session", |bytes| {
        session::fuzzing::session(bytes, start);
    });
}

#[test]
fn the_corpus_of_flows_holds() {
    let start = start();
    replay("rtmfp_flow", |bytes| session::fuzzing::flow(bytes, start));
}
