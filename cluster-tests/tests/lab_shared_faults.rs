//! Origins and edges die under writers: every request is answered, what was acknowledged is
//! there, and nobody sees an object go back.
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
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use model::ObjectKind;
use rustix::process::Signal;
use selvage_cluster_tests::judge::{self, Answer, Recorder};
use selvage_cluster_tests::lab::cluster::Node;
use selvage_cluster_tests::lab::objects::{Member, is_made, set, until_level, with_exact_versions};
use selvage_cluster_tests::lab::origins::leader_of;
use selvage_cluster_tests::lab::{Cluster, SOON, pace, until};

/// What an edge is told besides.
fn config(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// How long an edge of these tests lets a write wait.
const WRITE_WAIT: Duration = Duration::from_secs(2);

/// How much longer an answer may take: the machine is busy.
const SLACK: Duration = Duration::from_secs(2);

/// A cluster whose edges let writes wait for [`WRITE_WAIT`].
fn cluster(edges: usize) -> (Cluster, tempfile::NamedTempFile) {
    let file = config("[objects]\nwrite_wait = '2s'\n");
    let path = file.path().display().to_string();
    (Cluster::start_with(3, edges, &["--config", &path]), file)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_a_write_is_refused_in_time_and_later_writes_are_made() {
    let (mut cluster, _file) = cluster(2);
    let recorder = Recorder::new("no majority", 0);
    let edges = [cluster.edges[0].addr, cluster.edges[1].addr];
    let a = Member::join_kept(edges[0], "minor", 0, &recorder)
        .await
        .unwrap();
    let b = Member::join_kept(edges[1], "minor", 1, &recorder)
        .await
        .unwrap();
    assert!(is_made(&a.set("slot", "before").await));

    // The leader and another; so the one that is left cannot know at once.
    let leader = leader_of(&cluster.origins);
    let other = (leader + 1) % 3;
    for origin in [leader, other] {
        cluster.origins[origin].process.signal(Signal::KILL);
    }
    for origin in [leader, other] {
        cluster.origins[origin].process.kill();
    }
    for round in 0..4 {
        let asked = Instant::now();
        let value = format!("minority {round}");
        let answers = tokio::join!(a.set("slot", &value), b.set("other", &value));
        let took = asked.elapsed();
        println!("without a majority: {answers:?} after {took:?}");
        for answer in [answers.0, answers.1] {
            assert!(
                matches!(answer, Answer::Unavailable | Answer::Undecided),
                "round {round}: {answer:?} after {took:?}"
            );
        }
        assert!(took < WRITE_WAIT + SLACK, "answered after {took:?}");
        assert_eq!(
            a.slot("slot").as_deref(),
            Some("before"),
            "the current value"
        );
    }
    let told = [&a, &b].map(|member| member.look(|seen| seen.statuses.clone()));
    println!("they were told {told:?}");

    for origin in [leader, other] {
        cluster.origins[origin].start_again();
    }
    until_made(&a, "slot", "after").await;
    until_made(&b, "other", "after").await;
    until_level(&[&a, &b]).await;
    // What was undecided shows at most once, and stays or is gone.
    for member in [&a, &b] {
        for round in 0..4 {
            let value = format!("minority {round}");
            let times = member.look(|seen| {
                let events = seen.events.iter().flat_map(|(_, _, events)| events);
                events
                    .filter(|event| {
                        matches!(event, judge::Event::Set { value: v, why: judge::Why::Changed, .. }
                            if *v == value)
                    })
                    .count()
            });
            // Both clients wrote the value, each to a slot of its own.
            assert!(times <= 2, "{value} was told {times} times");
        }
        assert_eq!(member.over(), None);
    }
    judge::demand(&with_exact_versions(recorder.history()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_leader_is_killed_under_20_writers_no_acknowledged_write_is_lost() {
    let (mut cluster, _file) = cluster(2);
    let load = Load::start(&cluster, 20, "leader killed").await;
    for round in 0..3 {
        load.until_more(150);
        let leader = leader_of(&cluster.origins);
        println!("round {round}: killing the leader, origin-{leader}");
        cluster.origins[leader].process.kill();
        load.until_more(150);
        cluster.origins[leader].start_again();
    }
    load.until_more(150);
    load.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_follower_or_all_origins_are_killed_under_writers_nothing_is_lost() {
    let (mut cluster, _file) = cluster(2);
    let load = Load::start(&cluster, 12, "followers killed").await;
    load.until_more(100);
    let follower = (leader_of(&cluster.origins) + 1) % 3;
    cluster.origins[follower].process.kill();
    load.until_more(100);
    cluster.origins[follower].start_again();
    load.until_more(100);
    for origin in &mut cluster.origins {
        origin.process.signal(Signal::KILL);
    }
    for origin in &mut cluster.origins {
        origin.process.kill();
    }
    for origin in &mut cluster.origins {
        origin.start_again();
    }
    load.until_more(200);
    // One that stands still and comes back late.
    let leader = leader_of(&cluster.origins);
    cluster.origins[leader].process.freeze();
    load.until_more(100);
    cluster.origins[leader].process.thaw();
    load.until_more(100);
    load.judge().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clients_of_a_killed_edge_go_on_at_another_and_never_go_back() {
    let (mut cluster, _file) = cluster(3);
    let load = Load::start(&cluster, 12, "edge killed").await;
    load.until_more(150);
    cluster.edges[2].process.kill();
    load.until_more(300);
    assert!(
        load.reconnected() >= 4,
        "only {} clients came back",
        load.reconnected()
    );
    load.judge().await;
}

/// Clients that write as long as they are told to, each to a slot of its own and sometimes
/// to one of all; a client whose connection ends goes on at another edge.
struct Load {
    recorder: Recorder,
    shared: Arc<Shared>,
    writers: Vec<tokio::task::JoinHandle<Writer>>,
}

struct Shared {
    stop: AtomicBool,
    made: std::sync::atomic::AtomicUsize,
    reconnected: std::sync::atomic::AtomicUsize,
    edges: Vec<SocketAddr>,
    recorder: Recorder,
}

#[derive(Default)]
struct Writer {
    member: Option<Member>,
    made: usize,
    refused: usize,
    unavailable: usize,
    undecided: usize,
    slowest: Duration,
    last: Option<String>,
}

impl Load {
    async fn start(cluster: &Cluster, writers: u32, title: &str) -> Self {
        let recorder = Recorder::new(title, 0);
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            made: 0.into(),
            reconnected: 0.into(),
            edges: cluster.edges.iter().map(|edge| edge.addr).collect(),
            recorder: recorder.clone(),
        });
        let mut handles = Vec::new();
        for client in 0..writers {
            let edge = shared.edges[client as usize % shared.edges.len()];
            let member = Member::join_kept(edge, "loaded", client, &recorder).await;
            let member = member.unwrap_or_else(|error| panic!("client {client}: {error}"));
            handles.push(tokio::spawn(write(member, client, Arc::clone(&shared))));
        }
        Self {
            recorder,
            shared,
            writers: handles,
        }
    }

    fn made(&self) -> usize {
        self.shared.made.load(Ordering::Relaxed)
    }

    fn reconnected(&self) -> usize {
        self.shared.reconnected.load(Ordering::Relaxed)
    }

    /// Waits until so many more writes are made.
    fn until_more(&self, count: usize) {
        let before = self.made();
        tokio::task::block_in_place(|| {
            until("more writes are made", Duration::from_secs(60), || {
                if let Some(ended) = self.writers.iter().position(|w| w.is_finished()) {
                    panic!("writer {ended} ended; {} writes were made", self.made());
                }
                self.made() >= before + count
            });
        });
    }

    /// Ends it, and judges what all have seen.
    async fn judge(self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut done = Vec::new();
        for writer in self.writers {
            done.push(writer.await.expect("no fault"));
        }
        let members: Vec<&Member> = done.iter().filter_map(|w| w.member.as_ref()).collect();
        assert_eq!(members.len(), done.len(), "some could not come back");
        until_level(&members).await;
        let slots = members[0].look(|seen| seen.slots.clone());
        for (client, writer) in done.iter().enumerate() {
            let own = slots.get(&format!("own{client}"));
            // An undecided write behind it may have been made as well.
            if writer.undecided == 0 {
                assert_eq!(own, writer.last.as_ref(), "of client {client}");
            }
        }
        let sum = |count: fn(&Writer) -> usize| done.iter().map(count).sum::<usize>();
        println!(
            "{} writers: {} writes made, {} steps refused, {} unavailable, {} undecided, \
             {} reconnects, the slowest answer after {:?}",
            done.len(),
            sum(|w| w.made),
            sum(|w| w.refused),
            sum(|w| w.unavailable),
            sum(|w| w.undecided),
            self.shared.reconnected.load(Ordering::Relaxed),
            done.iter().map(|w| w.slowest).max().unwrap_or_default()
        );
        judge::demand(&with_exact_versions(self.recorder.history()));
    }
}

async fn write(member: Member, client: u32, shared: Arc<Shared>) -> Writer {
    let mut writer = Writer::default();
    let mut member = member;
    let own = format!("own{client}");
    for round in 0_usize.. {
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        if member.over().is_some() {
            match come_back(&member, client, &shared).await {
                Some(again) => member = again,
                None => return writer,
            }
            shared.reconnected.fetch_add(1, Ordering::Relaxed);
        }
        let value = format!("{client}.{round}");
        let mut ops = vec![set(&own, &value)];
        if round % 5 == 0 {
            ops.push(set("all", &value));
        }
        let asked = Instant::now();
        let answer = member.write(ops).await;
        let took = asked.elapsed();
        assert!(
            took < WRITE_WAIT + SLACK,
            "client {client} got {answer:?} for {value} after {took:?}; it was told {:?}",
            since(&member, asked)
        );
        writer.slowest = writer.slowest.max(took);
        match answer {
            Answer::Written { refused, .. } => {
                assert!(
                    !refused.contains_key(&0),
                    "nobody else writes {own}, and {value} was refused: {refused:?}"
                );
                writer.made += 1;
                writer.refused += refused.len();
                writer.last = Some(value);
                shared.made.fetch_add(1, Ordering::Relaxed);
            }
            Answer::Unavailable => writer.unavailable += 1,
            Answer::Used { .. }
            | Answer::Made { .. }
            | Answer::Done
            | Answer::Locked { .. }
            | Answer::NotLocked
            | Answer::Undecided => writer.undecided += 1,
        }
        // People do not write as fast as they can.
        tokio::task::spawn_blocking(|| pace(Duration::from_millis(10)))
            .await
            .expect("no fault");
    }
    writer.member = Some(member);
    writer
}

/// What a client was told since then, and after how long; and its statuses altogether.
fn since(member: &Member, then: Instant) -> (Vec<(Duration, u32, String)>, Vec<String>) {
    member.look(|seen| {
        let told = seen.events.iter().filter(|(at, ..)| *at >= then);
        let told = told.map(|(at, version, events)| (*at - then, *version, format!("{events:?}")));
        let told: Vec<_> = told.collect();
        let shown = told.len().min(12);
        let ends = told[..shown / 2]
            .iter()
            .chain(&told[told.len() - shown / 2..]);
        (ends.cloned().collect(), seen.statuses.clone())
    })
}

/// The client on a new connection, at the first edge that takes it.
async fn come_back(member: &Member, client: u32, shared: &Shared) -> Option<Member> {
    let started = Instant::now();
    let first = client as usize;
    for turn in first.. {
        let edge = shared.edges[turn % shared.edges.len()];
        let again = member.again(edge, ObjectKind::Persistent, &shared.recorder);
        match again.await {
            Ok(again) => return Some(again),
            Err(error) if started.elapsed() > SOON => {
                println!("client {client} cannot come back: {error}");
                return None;
            }
            Err(_) => {}
        }
    }
    None
}

/// Writes until it succeeds; each time another value.
async fn until_made(member: &Member, slot: &str, value: &str) {
    let mut answers = Vec::new();
    for round in 0..10 {
        let answer = member.set(slot, &format!("{value}.{round}")).await;
        let made = is_made(&answer);
        answers.push(answer);
        if made {
            println!("{slot} is written again: {answers:?}");
            return;
        }
    }
    panic!("no write was made: {answers:?}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_never_reached_an_origin_refuses_a_use_in_time() {
    // Nobody listens there any more.
    let gone = {
        let mut origin = Node::origin(0);
        origin.process.kill();
        origin.addr
    };
    let edge = Node::edge(0, &[gone], &[]);
    let recorder = Recorder::new("nobody", 0);
    let asked = Instant::now();
    let refused = Member::join(edge.addr, "far", 0, &recorder).await.err();
    let took = asked.elapsed();
    let text = refused.map(|error| error.to_string());
    println!("a use without any origin: {text:?} after {took:?}");
    assert!(
        text.as_deref()
            .is_some_and(|text| text.contains("SharedObject.")),
        "{text:?}"
    );
    assert!(took < Duration::from_secs(15), "{took:?}");
}
