//! A cluster of origins grows, shrinks and is restarted under writers who notice nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use selvage_cluster_tests::judge::{self, Recorder};
use selvage_cluster_tests::lab::cluster::Node;
use selvage_cluster_tests::lab::objects::{Member, is_made, until_level, with_exact_versions};
use selvage_cluster_tests::lab::origins::{command, leader_of, standing, until_voters};
use selvage_cluster_tests::lab::{Cluster, SOON, pace, until};

/// Patience for a change of the members.
const CHANGE: Duration = Duration::from_secs(60);

/// Origins by themselves, and edges that are told where all of them will be.
struct Grown {
    origins: Vec<Node>,
    edges: Vec<Node>,
}

/// Writers none of whose writes may fail, and none of whose connections may end.
struct Calm {
    recorder: Recorder,
    stop: Arc<AtomicBool>,
    made: Arc<AtomicUsize>,
    writers: Vec<tokio::task::JoinHandle<(Member, Duration)>>,
}

impl Calm {
    async fn start(edges: &[SocketAddr], count: u32, title: &str) -> Self {
        let recorder = Recorder::new(title, 0);
        let stop = Arc::new(AtomicBool::new(false));
        let made = Arc::new(AtomicUsize::new(0));
        let mut writers = Vec::new();
        for client in 0..count {
            let edge = edges[client as usize % edges.len()];
            let member = Member::join_kept(edge, "calm", client, &recorder).await;
            let member = member.unwrap_or_else(|error| panic!("client {client}: {error}"));
            let (stop, made) = (Arc::clone(&stop), Arc::clone(&made));
            writers.push(tokio::spawn(async move {
                let mut slowest = Duration::ZERO;
                for round in 0_usize.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let asked = Instant::now();
                    let value = format!("{client}.{round}");
                    let answer = member.set(&format!("own{client}"), &value).await;
                    let took = asked.elapsed();
                    assert!(
                        is_made(&answer),
                        "the write {value} became {answer:?} after {took:?}; {:?}",
                        member.look(|seen| (seen.statuses.clone(), seen.over.clone()))
                    );
                    slowest = slowest.max(took);
                    made.fetch_add(1, Ordering::Relaxed);
                    tokio::task::spawn_blocking(|| pace(Duration::from_millis(10)))
                        .await
                        .expect("no fault");
                }
                (member, slowest)
            }));
        }
        Self {
            recorder,
            stop,
            made,
            writers,
        }
    }

    /// Waits until so many more writes are made.
    #[track_caller]
    fn go_on(&self, what: &str, count: usize) {
        let before = self.made.load(Ordering::Relaxed);
        until(&format!("{what}: more writes are made"), CHANGE, || {
            self.watch(what);
            self.made.load(Ordering::Relaxed) >= before + count
        });
    }

    #[track_caller]
    fn watch(&self, what: &str) {
        let ended = self.writers.iter().position(|writer| writer.is_finished());
        if let Some(ended) = ended {
            panic!("{what}: writer {ended} has failed");
        }
    }

    async fn judge(self) {
        self.stop.store(true, Ordering::Relaxed);
        let mut members = Vec::new();
        let mut slowest = Duration::ZERO;
        for writer in self.writers {
            let (member, took) = writer.await.expect("no fault");
            assert_eq!(member.over(), None, "a connection was closed");
            slowest = slowest.max(took);
            members.push(member);
        }
        until_level(&members.iter().collect::<Vec<_>>()).await;
        println!(
            "{} writes, none failed; the slowest answer after {slowest:?}",
            self.made.load(Ordering::Relaxed)
        );
        judge::demand(&with_exact_versions(self.recorder.history()));
    }
}

/// All of these have applied the same log to the same end.
#[track_caller]
fn agree(origins: &[Node]) {
    until("all origins have one digest", SOON, || {
        let states: Vec<_> = origins
            .iter()
            .map(|origin| standing(origin.addr).map(|s| (s.applied, s.digest)))
            .collect();
        println!("the origins are at {states:?}");
        states[0].is_some() && states.windows(2).all(|two| two[0] == two[1])
    });
}

impl Grown {
    fn start(edges: usize) -> Self {
        let first = Node::origin(0);
        let edges = (0..edges)
            .map(|number| Node::edge(number, &[first.addr], &[]))
            .collect::<Vec<_>>();
        for edge in &edges {
            until("every edge has a link", SOON, || edge.links() > 0);
        }
        Self {
            origins: vec![first],
            edges,
        }
    }

    /// Another origin, which adds itself.
    #[track_caller]
    fn join(&mut self) -> Duration {
        let started = Instant::now();
        let known: Vec<SocketAddr> = self.origins.iter().map(|origin| origin.addr).collect();
        let node = Node::joining(self.origins.len(), &known, &[]);
        self.origins.push(node);
        until_voters(&self.origins, self.origins.len(), CHANGE);
        started.elapsed()
    }

    /// Removes the one that stands last, and ends it.
    #[track_caller]
    fn shrink(&mut self) {
        let mut last = self.origins.pop().expect("an origin");
        let number = standing(last.addr).expect("it answers").node;
        let said = command(self.origins[0].addr, &["remove", &number.to_string()]);
        assert!(said.status.success(), "{}{}", said.stdout, said.stderr);
        until_voters(&self.origins, self.origins.len(), CHANGE);
        last.process.terminate();
        until("the removed origin is gone", CHANGE, || {
            last.process.ended().is_some()
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_grows_from_1_to_3_to_5_and_shrinks_to_3_under_writers() {
    let mut grown = Grown::start(2);
    let edges: Vec<_> = grown.edges.iter().map(|edge| edge.addr).collect();
    let calm = Calm::start(&edges, 8, "grow and shrink").await;
    calm.go_on("one origin", 50);
    for goal in [3, 5] {
        while grown.origins.len() < goal {
            let took = grown.join();
            let now = grown.origins.len();
            println!("{now} voters {took:?} after the new one was started");
            calm.watch("growing");
        }
        calm.go_on(&format!("{goal} origins"), 100);
    }
    agree_when_quiet(&calm, &grown.origins);
    while grown.origins.len() > 3 {
        grown.shrink();
        calm.go_on(&format!("{} origins", grown.origins.len()), 50);
    }
    // The three can lose one of them, so they are three. The edges know only the first.
    let mut lost = grown.origins.remove(1);
    lost.process.kill();
    calm.go_on("two of three", 50);
    calm.judge().await;
    agree(&grown.origins);
}

/// Under load digests differ by what is under way; they are only looked at.
fn agree_when_quiet(calm: &Calm, origins: &[Node]) {
    calm.watch("looking at the origins");
    for origin in origins {
        println!("{:?}", standing(origin.addr));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_lost_its_disk_comes_back_as_a_new_member_by_snapshot() {
    // So few entries that the new one cannot be brought up by them.
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"[cluster]\nsnapshot_entries = 50\n")
        .unwrap();
    let config = file.path().display().to_string();
    let mut cluster = Cluster::start_configured(3, &["--config", &config], 2, &[]);
    let edges: Vec<_> = cluster.edges.iter().map(|edge| edge.addr).collect();
    let calm = Calm::start(&edges, 6, "lost disk").await;
    calm.go_on("three origins", 400);
    let victim = (leader_of(&cluster.origins) + 1) % 3;
    let number = standing(cluster.origins[victim].addr).unwrap().node;
    cluster.origins[victim].process.kill();
    cluster.origins[victim].lose_data();
    let lost = cluster.origins.remove(victim);
    calm.go_on("one is dead", 50);
    let said = command(cluster.origins[0].addr, &["remove", &number.to_string()]);
    assert!(said.status.success(), "{}{}", said.stdout, said.stderr);
    until_voters(&cluster.origins, 2, CHANGE);
    let known: Vec<_> = cluster.origins.iter().map(|origin| origin.addr).collect();
    let back = Node::joining(victim, &known, &["--config", &config]);
    cluster.origins.push(back);
    let standing = until_voters(&cluster.origins, 3, CHANGE);
    assert!(!standing.members.contains_key(&number), "{standing:?}");
    let log = cluster.origins[2].process.stderr();
    assert!(log.contains("a state arrived"), "no snapshot came:\n{log}");
    calm.go_on("three origins again", 100);
    calm.judge().await;
    agree(&cluster.origins);
    drop(lost);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_all_origins_closes_no_client_and_fails_no_write() {
    let mut cluster = Cluster::start(3, 2);
    let edges: Vec<_> = cluster.edges.iter().map(|edge| edge.addr).collect();
    let calm = Calm::start(&edges, 8, "rolling restart").await;
    calm.go_on("the beginning", 50);
    for origin in 0..3 {
        let started = Instant::now();
        let node = &mut cluster.origins[origin];
        node.process.terminate();
        until("the origin has left", CHANGE, || {
            calm.watch("an origin leaves");
            node.process.ended().is_some()
        });
        println!("origin-{origin} took {:?} to leave", started.elapsed());
        calm.go_on("one has left", 50);
        cluster.origins[origin].start_again();
        until_voters(&cluster.origins, 3, CHANGE);
        calm.go_on("it is back", 100);
    }
    calm.judge().await;
    agree(&cluster.origins);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_goes_on_when_the_only_origin_comes_back_with_an_empty_disk() {
    let mut cluster = Cluster::start(1, 1);
    let edge = cluster.edges[0].addr;
    let recorder = Recorder::new("lost log", 0);
    let first = Member::join_kept(edge, "kept", 0, &recorder).await.unwrap();
    for n in 0..50 {
        let answer = first.set("a", &n.to_string()).await;
        assert!(is_made(&answer), "{answer:?}");
    }
    cluster.origins[0].process.kill();
    cluster.origins[0].lose_data();
    cluster.origins[0].start_again();
    // Its log is shorter than what the edge has seen, and has other entries.
    let mut second = None;
    for client in 1..20 {
        if let Ok(member) = Member::join_kept(edge, "kept", client, &recorder).await {
            second = Some(member);
            break;
        }
    }
    let second = second.expect("the edge serves again");
    let answer = second.set("b", "new").await;
    assert!(is_made(&answer), "{answer:?}");
    until("who was there hears of it", SOON, || {
        first.slot("b").as_deref() == Some("new")
    });
    assert_eq!(first.over(), None, "a connection was closed");
    assert_eq!(first.slot("a"), None, "what was lost is gone");
}
