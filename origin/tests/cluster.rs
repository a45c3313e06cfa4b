//! Three origins in this process, on disks in memory that forget what was not synced, and
//! edges that speak the wire.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "tests fail by panicking, in their helpers too"
)]

mod fake_cluster;

use std::collections::BTreeSet;
use std::time::Duration;

use fake_cluster::{Attached, Cluster, node_id, stream};
use ledger::{Answer, Request};
use model::Epoch;
use selvage_origin::Config;
use selvage_origin::log::{Crash, Faults, Ram};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_proposed_at_a_follower_is_decided_and_told() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let follower = (leader + 1) % 3;
    let mut edge = Attached::new(&cluster, follower, "edge-0").await;
    assert_eq!(edge.ask(1, Request::Register).await, Answer::Done);
    let answer = edge.ask(2, claim("a", 1)).await;
    let Answer::Granted { epoch } = answer else {
        panic!("{answer:?}");
    };
    assert!(epoch > Epoch(0));
    // Another edge, at another origin, finds the name taken.
    let mut other = Attached::new(&cluster, leader, "edge-1").await;
    assert_eq!(other.ask(1, Request::Register).await, Answer::Done);
    assert_eq!(other.ask(2, claim("a", 1)).await, Answer::Contending);
    cluster.agree().await;
    // The state is looked through for nobody who did not ask for it.
    assert_eq!(cluster.plain_status(leader).await.digest, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_replaced_and_comes_back_with_what_its_disk_has() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let mut edge = Attached::new(&cluster, (leader + 1) % 3, "edge-0").await;
    assert_eq!(edge.ask(1, Request::Register).await, Answer::Done);
    let mut granted = BTreeSet::new();
    for seq in 2..20 {
        let answer = edge.ask(seq, claim(&format!("s{seq}"), seq)).await;
        if let Answer::Granted { epoch } = answer {
            granted.insert(epoch);
        }
        if seq == 10 {
            cluster.kill(leader);
        }
    }
    assert_eq!(granted.len(), 18);
    assert_ne!(cluster.leader().await, leader);
    cluster.restart(leader).await;
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_hangs_ends_and_the_others_serve_on() {
    let impatient = |config: &mut Config| config.cluster.disk_patience = Duration::from_secs(1);
    let mut cluster = Cluster::with(3, impatient).await;
    let leader = cluster.leader().await;
    let mut there = Attached::new(&cluster, leader, "edge-0").await;
    assert_eq!(there.ask(1, Request::Register).await, Answer::Done);
    cluster.disks[leader].set_faults(Faults {
        hanging_syncs: true,
        ..Faults::default()
    });
    // The leader proposes it, cannot write it down, and is told that the others have it.
    let mut edge = Attached::new(&cluster, (leader + 1) % 3, "edge-1").await;
    assert_eq!(edge.ask(1, Request::Register).await, Answer::Done);
    let ended = cluster.ended(leader).await.unwrap_err();
    let why = node::process::chain(&ended);
    assert!(why.contains("not come back from a write"), "{why}");
    // Who was attached there is sent away.
    there.end().await;
    assert!(matches!(
        edge.ask(2, claim("a", 1)).await,
        Answer::Granted { .. }
    ));
    assert_ne!(cluster.leader().await, leader);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_killed_at_once_come_back_with_everything_that_was_answered() {
    let mut cluster = Cluster::start(3).await;
    let mut edge = Attached::new(&cluster, 0, "edge-0").await;
    assert_eq!(edge.ask(1, Request::Register).await, Answer::Done);
    let answer = edge.ask(2, claim("a", 1)).await;
    assert!(matches!(answer, Answer::Granted { .. }));
    drop(edge);
    for origin in 0..3 {
        cluster.kill(origin);
    }
    for origin in 0..3 {
        cluster.restart(origin).await;
    }
    let mut edge = Attached::new(&cluster, 1, "edge-0").await;
    // It is answered again as it was answered then.
    assert_eq!(edge.ask(2, claim("a", 1)).await, answer);
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_joins_by_the_state_and_votes() {
    let mut cluster = Cluster::with(1, |config| config.cluster.snapshot_entries = 8).await;
    let mut edge = Attached::new(&cluster, 0, "edge-0").await;
    assert_eq!(edge.ask(1, Request::Register).await, Answer::Done);
    for seq in 2..40 {
        edge.ask(seq, claim(&format!("s{seq}"), seq)).await;
    }
    for _ in 0..2 {
        cluster.join().await;
    }
    cluster.until_voters(3).await;
    cluster.agree().await;
    // Now one of three may be missing.
    cluster.kill(0);
    let mut edge = Attached::new(&cluster, 2, "edge-1").await;
    assert_eq!(edge.ask(1, Request::Register).await, Answer::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_lost_its_disk_joins_anew_under_another_number() {
    let mut cluster = Cluster::start(3).await;
    let mut edge = Attached::new(&cluster, 0, "edge-0").await;
    assert_eq!(edge.ask(1, Request::Register).await, Answer::Done);
    cluster.kill(2);
    cluster.disks[2] = Ram::new();
    cluster.restart(2).await;
    // Three vote before, too: what tells is who.
    cluster.until_voting(&[1, 2, 4]).await;
    assert_eq!(cluster.status(2).await.unwrap().node, 4);
    cluster.agree().await;
    // And it keeps that number.
    cluster.kill(2);
    cluster.restart(2).await;
    cluster.agree().await;
    assert_eq!(cluster.status(2).await.unwrap().node, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_is_told_to_end_hands_over_its_lead() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let mut edge = Attached::new(&cluster, leader, "edge-0").await;
    cluster.leave(leader).await;
    edge.until_leaving().await;
    assert_ne!(cluster.leader().await, leader);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_sends_rubbish_loses_its_stream_and_nothing_else() {
    let cluster = Cluster::start(1).await;
    let mut good = Attached::new(&cluster, 0, "edge-0").await;
    let mut bad = Attached::new(&cluster, 0, "edge-1").await;
    bad.say_bytes(b"\xff\xfe no message");
    assert_eq!(bad.end().await, tonic::Code::InvalidArgument);
    assert_eq!(good.ask(1, Request::Register).await, Answer::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_ends_the_origin_and_not_the_cluster() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let survivor = (leader + 1) % 3;
    cluster.disks[leader].set_faults(selvage_origin::log::Faults {
        failing_syncs: true,
        ..selvage_origin::log::Faults::default()
    });
    let mut edge = Attached::new(&cluster, survivor, "edge-0").await;
    edge.ask(1, Request::Register).await;
    let error = cluster.ended(leader).await.unwrap_err();
    assert!(error.to_string().contains("cluster failed"), "{error}");
    cluster.disks[leader] = cluster.disks[leader].crash(Crash::Keeps(0));
    cluster.restart(leader).await;
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn founders_that_start_in_any_order_found_one_cluster() {
    for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
        let (mut cluster, listeners) = Cluster::planned(3, |_| {}).await;
        let mut listeners: Vec<_> = listeners.into_iter().map(Some).collect();
        let [first, second, late] = order;
        for index in [first, second] {
            let listener = listeners[index].take().unwrap();
            cluster.spawn(index, listener, Vec::new());
        }
        // Nobody listens where the third one will be.
        listeners[late] = None;
        let missing = format!("peer {} at", late + 1);
        for index in [first, second] {
            cluster.until_waiting(index, &missing).await;
        }
        cluster.restart(late).await;
        cluster.leader().await;
        cluster.agree().await;
        let status = cluster.status(late).await.unwrap();
        let numbers: Vec<_> = status.members.iter().map(|one| one.node).collect();
        assert_eq!(numbers, [1, 2, 3]);
        assert!(status.members.iter().all(|member| member.voter));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_founder_with_other_peers_founds_nothing_and_everybody_says_why() {
    let (mut cluster, listeners) = Cluster::planned(3, |_| {}).await;
    let right = cluster.founders().clone();
    for (index, listener) in listeners.into_iter().enumerate() {
        if index == 2 {
            // It knows of no second one.
            cluster.founders().remove(&node_id(2));
        }
        cluster.spawn(index, listener, Vec::new());
    }
    cluster
        .until_waiting(0, "is configured with other peers")
        .await;
    cluster
        .until_waiting(2, "is configured with other peers")
        .await;
    for index in 0..3 {
        assert!(cluster.status(index).await.is_none(), "{index} founded one");
    }
    *cluster.founders() = right;
    cluster.kill(2);
    cluster.restart(2).await;
    cluster.leader().await;
    cluster.until_voters(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_configuration_founds_with_the_founder_and_joins_with_the_others() {
    let (mut cluster, listeners) = Cluster::planned(3, |_| {}).await;
    drop(listeners);
    // Those who are no founders found nothing, whoever is there.
    cluster.start_alike(1).await;
    cluster.start_alike(2).await;
    cluster.until_waiting(1, "no cluster to join yet").await;
    cluster.start_alike(0).await;
    cluster.until_voting(&[1, 2, 3]).await;
    assert_eq!(cluster.status(0).await.unwrap().node, 1);
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_founder_that_lost_its_disk_founds_no_second_cluster() {
    let (mut cluster, listeners) = Cluster::planned(3, |_| {}).await;
    drop(listeners);
    for index in 0..3 {
        cluster.start_alike(index).await;
    }
    cluster.until_voting(&[1, 2, 3]).await;
    let mut edge = Attached::new(&cluster, 1, "edge-0").await;
    assert_eq!(edge.ask(1, Request::Register).await, Answer::Done);
    drop(edge);
    for index in 0..3 {
        cluster.kill(index);
    }
    cluster.disks[0] = Ram::new();
    cluster.start_alike(0).await;
    // Nobody is there to say that there is a cluster.
    cluster
        .until_waiting(0, "does not answer, and may belong to a cluster")
        .await;
    assert!(cluster.status(0).await.is_none());
    cluster.start_alike(1).await;
    cluster.start_alike(2).await;
    cluster.until_voting(&[2, 3, 4]).await;
    let status = cluster.status(0).await.unwrap();
    assert_eq!(status.node, 4);
    assert_eq!(
        status.counts.unwrap().edges,
        1,
        "it has what the others knew"
    );
    cluster.agree().await;
}

fn claim(name: &str, publication: u64) -> Request {
    Request::Claim {
        key: stream(name),
        publication,
        token: bytes::Bytes::new(),
        above: Epoch(0),
    }
}
