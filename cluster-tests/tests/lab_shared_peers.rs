//! A client that others wrote shares an object with ours.
//!
//! The rtmp-client of npm speaks of shared objects as one media server does to another: it
//! asks for changes one slot at a time, and may ask to clear all of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::path::Path;

use selvage_cluster_tests::judge::Recorder;
use selvage_cluster_tests::lab::objects::{Member, is_made};
use selvage_cluster_tests::lab::peer::program;
use selvage_cluster_tests::lab::process::target_dir;
use selvage_cluster_tests::lab::{Cluster, Process, SOON, until};

/// Starts the client of others.
#[track_caller]
fn client(url: &str, name: &str, steps: &[&str]) -> Process {
    let modules = target_dir().join("peers/node/node_modules");
    assert!(
        modules.join("rtmp-client").is_dir(),
        "{} is missing: run cluster-tests/peers/install",
        modules.display()
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/node/object.js");
    let mut command = program("node", "nodejs");
    command.env("NODE_PATH", modules);
    command.arg(script).args([url, name]).args(steps);
    Process::spawn("rtmp-client", &command)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rtmp_client_of_npm_shares_an_object_with_ours() {
    let cluster = Cluster::start(3, 2);
    let recorder = Recorder::new("npm", 0);
    let ours = Member::join(cluster.edges[1].addr, "both", 0, &recorder)
        .await
        .unwrap();
    assert!(is_made(&ours.set("first", "ours").await));
    let url = format!("rtmp://{}/live", cluster.edges[0].addr);
    let theirs = client(&url, "both", &["second=\"theirs\"", "second=null", "clear"]);
    tokio::task::block_in_place(|| {
        let says = |what: &str, text: &str| {
            until(what, SOON, || theirs.stdout().contains(text));
        };
        says(
            "they can use it",
            "\"version\":2,\"list\":[{\"code\":\"clear\"},{\"code\":\"change\",\"name\":\"first\",\"newValue\":\"ours\"}]",
        );
        until("their value is here", SOON, || {
            ours.slot("second").as_deref() == Some("theirs")
        });
    });
    // Their next steps follow what they are told.
    assert!(is_made(&ours.set("third", "ours").await));
    tokio::task::block_in_place(|| {
        until("they have taken theirs away", SOON, || {
            ours.slot("second").is_none() && ours.version() > 4
        });
        until("they have cleared it", SOON, || {
            ours.look(|seen| seen.slots.is_empty())
        });
        until("they were told so", SOON, || {
            theirs.stdout().matches("\"code\":\"clear\"").count() == 2
        });
    });
    println!("{}", theirs.stdout());
    assert_eq!(ours.over(), None);
}
