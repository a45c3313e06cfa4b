//! A process that stands still for a while and goes on, as on a machine that was paused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::collections::BTreeSet;
use std::time::Duration;

use selvage_cluster_tests::judge::{self, Recorder};
use selvage_cluster_tests::lab::objects::{Member, is_made};
use selvage_cluster_tests::lab::{Cluster, Live, Pace, pace};

/// The epochs that were granted to a stream, by the word of a log.
fn epochs(log: &str, what: &str, stream: &str) -> BTreeSet<String> {
    let lines = log.lines().filter(|line| line.contains(what));
    lines
        .filter(|line| line.contains(stream))
        .filter_map(|line| {
            let (_, epoch) = line.split_once("epoch=")?;
            let digits = epoch.split(|c: char| !c.is_ascii_digit());
            Some(digits.into_iter().next()?.to_owned())
        })
        .collect()
}

async fn wait(time: Duration) {
    tokio::task::spawn_blocking(move || pace(time))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_stood_still_longer_than_a_lease_takes_nothing_from_its_edges() {
    let mut cluster = Cluster::start(1, 2);
    let recorder = Recorder::new("pause", 0);
    let edges = [cluster.edges[0].addr, cluster.edges[1].addr];
    let a = Member::join(edges[0], "still", 0, &recorder).await.unwrap();
    let b = Member::join(edges[1], "still", 1, &recorder).await.unwrap();
    assert!(is_made(&b.set("slot", "before").await));
    a.lock(60_000).await.unwrap();
    let live = tokio::task::spawn_blocking(move || {
        let live = Live::publish(edges[0], "live", "still", Pace::real());
        live.go_on(10);
        live
    });
    let live = live.await.unwrap();

    cluster.origins[0].process.freeze();
    wait(Duration::from_secs(7)).await;
    cluster.origins[0].process.thaw();
    // By then an end that was proposed would have been carried out.
    wait(Duration::from_secs(3)).await;

    let (waiting, ()) = tokio::join!(b.set("slot", "waits"), async {
        wait(Duration::from_millis(500)).await;
        assert_eq!(b.slot("slot").as_deref(), Some("before"), "b did not wait");
        assert!(is_made(&a.set("other", "a").await));
        a.unlock().await.unwrap();
    });
    assert!(is_made(&waiting), "{waiting:?}");
    let live = tokio::task::spawn_blocking(move || {
        live.go_on(10);
        live
    });
    let live = live.await.unwrap();
    assert!(!live.is_over());
    let granted = epochs(&cluster.edges[0].process.stderr(), " publishing", "still");
    assert_eq!(granted.len(), 1, "{granted:?}");
    let taken = epochs(&cluster.origins[0].process.stderr(), " granted", "still");
    assert_eq!(taken, granted);
    judge::demand(&recorder.history());
}
