//! Origins as an orchestrator runs them: one configuration for all, disks that stay when there
//! are fewer, and a probe that says when one can be counted on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use selvage_cluster_tests::judge::Recorder;
use selvage_cluster_tests::lab::cluster::Node;
use selvage_cluster_tests::lab::objects::{Member, is_made};
use selvage_cluster_tests::lab::origins::{command, leader_of, standing, until_voters};
use selvage_cluster_tests::lab::process::Finished;
use selvage_cluster_tests::lab::{Cluster, SOON, ports, until};

/// Patience for a change of the members.
const CHANGE: Duration = Duration::from_secs(60);

/// A configuration in which who was removed comes back soon.
struct Alike {
    file: tempfile::NamedTempFile,
    addrs: Vec<SocketAddr>,
}

impl Alike {
    fn new(origins: usize) -> Self {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"[cluster]\nrejoin_after = '500ms'\n")
            .unwrap();
        let addrs = ports::free(origins);
        Self { file, addrs }
    }

    /// The origin of this number, as it is configured while there are so many.
    #[track_caller]
    fn start(&self, number: usize, of: usize) -> Node {
        let config = self.file.path().display().to_string();
        Node::alike(number, 1, &self.addrs[..of], &["--config", &config])
    }
}

#[track_caller]
fn until_ready(origins: &[Node]) {
    for origin in origins {
        until(&format!("{} is ready", origin.id), CHANGE, || {
            origin.readiness().is_ok()
        });
    }
}

#[track_caller]
fn until_not_ready(origin: &Node, why: &str) {
    until(&format!("{} says {why:?}", origin.id), CHANGE, || {
        origin.readiness().is_err_and(|said| said.contains(why))
    });
}

#[track_caller]
fn done(said: &Finished, words: &str) {
    assert!(said.status.success(), "{}{}", said.stdout, said.stderr);
    assert_eq!(said.stdout, words);
}

#[track_caller]
fn refused(said: &Finished, code: i32, words: &str) {
    assert_eq!(
        said.status.code(),
        Some(code),
        "{}{}",
        said.stdout,
        said.stderr
    );
    assert!(said.stderr.contains(words), "{}", said.stderr);
}

async fn write(edge: SocketAddr, client: u32, recorder: &Recorder) {
    let member = Member::join_kept(edge, "scale", client, recorder).await;
    let member = member.unwrap_or_else(|error| panic!("client {client}: {error}"));
    let answer = member.set("last", &client.to_string()).await;
    assert!(is_made(&answer), "client {client}: {answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_configuration_goes_from_1_to_3_to_1_and_back_over_the_old_disks() {
    let alike = Alike::new(3);
    let mut origins = vec![alike.start(0, 1)];
    let edge = Node::edge(0, &alike.addrs[..1], &[]);
    until_ready(&origins);
    let recorder = Recorder::new("scale", 0);
    write(edge.addr, 0, &recorder).await;

    origins.extend([alike.start(1, 3), alike.start(2, 3)]);
    until_voters(&origins, 3, CHANGE);
    until_ready(&origins);
    write(edge.addr, 1, &recorder).await;

    // One that leads is among those who go.
    let number = |origin: &Node| standing(origin.addr).unwrap().node;
    let (one, two) = (number(&origins[1]), number(&origins[2]));
    let at = origins[0].addr;
    assert!(
        command(at, &["transfer", &one.to_string()])
            .status
            .success()
    );
    until("origin-1 leads", SOON, || leader_of(&origins) == 1);
    let said = command(at, &["remove", "origin-2", "origin-1"]);
    let removed = format!("removed node={two} name=origin-2\nremoved node={one} name=origin-1\n");
    done(&said, &removed);
    until_voters(&origins[..1], 1, CHANGE);
    // A job that is tried again does nothing.
    let gone = removed.replace("removed", "gone");
    done(
        &command(at, &["remove", "origin-2", &one.to_string()]),
        &gone,
    );
    refused(
        &command(at, &["remove", "origin-3"]),
        4,
        "no origin origin-3",
    );
    refused(
        &command(at, &["remove", "origin-0"]),
        1,
        "the last origin stays",
    );
    for removed in &origins[1..] {
        until_not_ready(removed, "it was removed from the cluster");
        let said = command(removed.addr, &["status"]).stdout;
        assert!(said.contains("until it is started again"), "{said}");
    }
    write(edge.addr, 2, &recorder).await;
    for removed in &mut origins[1..] {
        removed.process.terminate();
        until("it has ended", CHANGE, || removed.process.ended().is_some());
    }
    write(edge.addr, 3, &recorder).await;

    for removed in &mut origins[1..] {
        removed.start_again();
    }
    until_voters(&origins, 3, CHANGE);
    until_ready(&origins);
    for (origin, was) in origins[1..].iter().zip([one, two]) {
        assert!(number(origin) > one.max(two), "a number was given twice");
        let aside = format!(".removed-{was}-");
        let files = origin.data_files();
        assert!(
            files
                .iter()
                .any(|name| name.starts_with("stamp.") && name.contains(&aside))
        );
        assert!(
            files
                .iter()
                .any(|name| name.contains(&format!(".log{aside}"))),
            "{files:?}"
        );
    }
    write(edge.addr, 4, &recorder).await;
    // They are three again: one may be missing.
    origins[0].process.kill();
    until_voters(&origins[1..], 3, CHANGE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dead_are_removed_without_losing_the_majority_and_stay_out() {
    let mut cluster = Cluster::start(3, 1);
    let leader = leader_of(&cluster.origins);
    let (dead, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let at = cluster.origins[leader].addr;
    cluster.origins[dead].process.kill();
    // Two would be left of which one is dead.
    let other_name = format!("origin-{other}");
    let too_few = format!("not {} (origin-{dead})", dead + 1);
    until("the leader has missed it", SOON, || {
        let said = command(at, &["status"]).stdout;
        said.lines().any(|line| {
            line.starts_with(&format!("member={} ", dead + 1)) && line.contains("active=no")
        })
    });
    refused(&command(at, &["remove", &other_name]), 1, &too_few);
    // Both at once leave one that is there.
    let said = command(at, &["remove", &other_name, &format!("origin-{dead}")]);
    assert!(said.status.success(), "{}{}", said.stdout, said.stderr);
    let recorder = Recorder::new("dead", 0);
    write(cluster.edges[0].addr, 0, &recorder).await;
    // It knows nothing of its removal, and has nowhere to join.
    cluster.origins[dead].start_again();
    until_not_ready(&cluster.origins[dead], "it was removed from the cluster");
    let said = command(cluster.origins[dead].addr, &["status"]).stdout;
    assert!(
        said.contains("empty its folder, or name cluster.join"),
        "{said}"
    );
    write(cluster.edges[0].addr, 1, &recorder).await;
    let members = standing(at).unwrap().members;
    assert_eq!(members.len(), 1, "{members:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_ready_without_a_majority_and_an_election_makes_nobody_unready() {
    let mut cluster = Cluster::start(3, 0);
    until_ready(&cluster.origins);
    let leader = leader_of(&cluster.origins);
    let (next, last) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.origins[leader].process.kill();
    let mut unready = Vec::new();
    until("another leads", SOON, || {
        unready.extend(cluster.origins[next].readiness().err());
        let standing = standing(cluster.origins[last].addr);
        standing.is_some_and(|s| s.leader != 0 && s.leader != leader as u64 + 1)
    });
    assert_eq!(unready, Vec::<String>::new());
    cluster.origins[next].process.kill();
    until_not_ready(&cluster.origins[last], "no leader is known");
    // However often it is asked.
    for _ in 0..50 {
        assert!(cluster.origins[last].readiness().is_err());
    }
    cluster.origins[next].start_again();
    until_ready(std::slice::from_ref(&cluster.origins[next]));
    until_ready(std::slice::from_ref(&cluster.origins[last]));
}
