//! Many clients of one cluster, under everything that can befall it: what they saw is what
//! one object in one place would have shown them.
//!
//! Every origin and edge is a process of its own on a network of its own, with a disk of
//! its own ([`Field`]). Thirty clients, three of them facades over all edges, set, remove,
//! clear, send, lock and unlock a handful of objects, while a [`Nemesis`] kills processes
//! (kill -9), stops them, parts the network (two sides, one way, the leader alone, two
//! sides with a bridge), delays and loses packets, and fills and slows disks. Then
//! everything is well again, and it is judged:
//!
//! * each slot is linearizable, each lock a mutex (`selvage_cluster_tests::judge`);
//! * every request is answered exactly once, also those that were under way;
//! * no acknowledged write is lost: at the end others read all objects at every edge;
//! * no version goes back on a connection, and equal versions are equal slots;
//! * all origins have the same digest;
//! * no process ended that was not killed (on a full disk it may).
//!
//! Messages to all come once and in one order; and none is lost to a client that stays, in
//! the runs in which origins never save their states. In the others an origin that was
//! started again does not know the messages before the state that it began with: an edge
//! that was attached elsewhere until then and comes to it is told the state alone. How many
//! were lost so is printed.
//!
//! A failure names the seed, what befell the cluster, and the file with the history, which
//! `cargo run -p selvage-cluster-tests --bin judge -- FILE` judges again. What the processes
//! said lies beside it.
//!
//! The long form, with one run after the other, each with the next seed:
//!
//! ```text
//! SELVAGE_LINEAR_SECONDS=60 SELVAGE_LINEAR_SEED=1 SELVAGE_LINEAR_RUNS=15 nice -n 5 \
//!   cargo test --release -p selvage-cluster-tests --test lab_linear -- --nocapture
//! ```
//!
//! * `SELVAGE_LINEAR_SECONDS`: how long the clients work in each run (short form: 12).
//! * `SELVAGE_LINEAR_SEED`: the first seed, from which the nemesis' plan, the clients'
//!   requests and the chances of the network follow.
//! * `SELVAGE_LINEAR_RUNS`: how many runs of each size of cluster.
//! * `SELVAGE_LINEAR_FACADES=strict`: a facade that was told of a refusal or of a message is
//!   taken at its word. It cannot be yet: which of an edge's words answers a request it must
//!   guess, and just after a fail-over it guesses wrong now and then. Otherwise its refusals
//!   count as undecided, and messages that it was told twice are counted and printed. What it
//!   is told was made must have been made in any case, it never goes back, and it ends with
//!   what all others have.
//!
//! It needs what a netlab needs (see the manual of `selvage-netlab`), and fails without.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use selvage_cluster_tests::judge::{
    self, Answer, Ask, History, Record, Recorder, Verdict, Violation,
};
use selvage_cluster_tests::lab::crowd::{Crowd, FACADES_FROM, Remaining, Size, object_name};
use selvage_cluster_tests::lab::field::{Field, Word};
use selvage_cluster_tests::lab::objects::{Member, with_exact_versions};
use selvage_cluster_tests::lab::process::target_dir;
use selvage_cluster_tests::lab::{pace, until_some};
use selvage_cluster_tests::nemesis::{Nemesis, Tempo};

const EDGES: usize = 3;

const SIZE: Size = Size {
    clients: 30,
    facades: 3,
    objects: 8,
    each: 2,
    think: 8,
};

/// To the judge, the last readers are clients with this number and those above it.
const READERS_FROM: u32 = 1 << 30;

/// How long clients may take to end what is under way when everything is well again.
const END: Duration = Duration::from_secs(50);

/// How long it may take until all have been told the same and all origins have applied it.
const LEVEL: Duration = Duration::from_secs(20);

#[test]
fn what_clients_of_three_origins_saw_is_linearizable_whatever_befalls_them() {
    runs(3);
}

#[test]
fn what_clients_of_five_origins_saw_is_linearizable_whatever_befalls_them() {
    runs(5);
}

/// Clusters of two sizes would only be in each other's way.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn runs(origins: usize) {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let number = |name: &str, usual: u64| match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text:?}")),
        Err(_) => usual,
    };
    let first = number("SELVAGE_LINEAR_SEED", 1);
    let seconds = number("SELVAGE_LINEAR_SECONDS", 12);
    let time = Duration::from_secs(seconds);
    let mut sum = 0;
    for seed in first..first + number("SELVAGE_LINEAR_RUNS", 1) {
        sum += Run::of(origins, seed, time);
        println!("{origins} origins: {sum} requests so far, up to seed {seed}");
    }
}

/// One cluster, and what is known of it.
struct Run {
    title: String,
    seed: u64,
    recorder: Recorder,
    nemesis: Nemesis,
    field: Field,
    saved_often: bool,
}

/// Takes what facades were told of refusals for undecided; gives their connections, unless they
/// are to be taken at their word.
fn doubt_facades(mut history: History) -> (History, BTreeSet<u32>) {
    if std::env::var("SELVAGE_LINEAR_FACADES").is_ok_and(|how| how == "strict") {
        return (history, BTreeSet::new());
    }
    let mut facades = BTreeSet::new();
    let mut asks = BTreeSet::new();
    for record in &mut history.records {
        match record {
            Record::Open {
                connection, client, ..
            } if (FACADES_FROM..READERS_FROM).contains(client) => {
                facades.insert(*connection);
            }
            Record::Ask {
                connection,
                ask,
                what: Ask::Write { .. },
                ..
            } if facades.contains(connection) => {
                asks.insert(*ask);
            }
            Record::Answer { ask, answer, .. }
                if *answer == Answer::Unavailable && asks.contains(ask) =>
            {
                *answer = Answer::Undecided;
            }
            Record::Open { .. }
            | Record::Close { .. }
            | Record::Ask { .. }
            | Record::Answer { .. }
            | Record::Seen { .. } => {}
        }
    }
    (history, facades)
}

/// One of two clusters of a seed, and one of two seeds.
fn saved_often(origins: usize, seed: u64) -> bool {
    (seed + u64::from(origins > 3)).is_multiple_of(2)
}

impl Run {
    /// Gives the number of requests.
    fn of(origins: usize, seed: u64, time: Duration) -> usize {
        let started = Instant::now();
        let title = format!("linear-{origins}");
        let tempo = Tempo {
            lasts: (300, 2_500),
            between: (300, 1_500),
        };
        let recorder = Recorder::new(&title, seed);
        let mut run = Self {
            nemesis: Nemesis::new(seed, origins, EDGES, time, tempo),
            field: Field::start(origins, EDGES, seed, saved_often(origins, seed)),
            saved_often: saved_often(origins, seed),
            title,
            seed,
            recorder,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let edges = run.field.edges.iter().map(|edge| edge.addr).collect();
        let crowd = {
            let _within = runtime.enter();
            Crowd::start(SIZE, edges, &run.recorder, seed)
        };
        let set_up = started.elapsed();
        let asked = runtime.block_on(run.go(crowd, time));
        println!(
            "{}: set up in {set_up:?}, altogether {:?}",
            run.title,
            started.elapsed()
        );
        asked
    }

    async fn go(&mut self, mut crowd: Crowd, time: Duration) -> usize {
        tokio::task::block_in_place(|| self.nemesis.haunt(&mut self.field, time));
        if !self.nemesis.fallen.is_empty() {
            let fallen = self.nemesis.fallen.join("\n");
            self.fail(&format!("processes ended that nobody killed:\n{fallen}"));
        }
        self.nemesis.calm(&mut self.field);
        let calm = Instant::now();
        let ready = tokio::task::block_in_place(|| self.field.until_ready());
        if let Err(who) = ready {
            self.fail(&format!("not all are ready when everything is well: {who}"));
        }
        let remaining = match crowd.stop(END).await {
            Ok(remaining) => remaining,
            Err(why) => self.fail(&format!("{why}; {:?}", crowd.complaints())),
        };
        let complaints = crowd.complaints();
        if !complaints.is_empty() {
            self.fail(&format!("clients complain: {complaints:#?}"));
        }
        let ended = calm.elapsed();
        let readers = self.read_everywhere().await;
        self.level(&remaining, &readers).await;
        let word = self.until_digests_agree();
        let level = calm.elapsed();

        let history = with_exact_versions(self.recorder.history());
        let (history, facades) = doubt_facades(history);
        let mut verdict = judge::judge(&history);
        if !facades.is_empty() {
            let all = verdict.violations.len();
            verdict.violations.retain(|found| {
                !matches!(found, Violation::SendTwice { connection, .. }
                    if facades.contains(connection))
            });
            let twice = all - verdict.violations.len();
            println!(
                "{}: {twice} messages were told twice to a facade",
                self.title
            );
        }
        if self.saved_often {
            let all = verdict.violations.len();
            let lost = |found: &Violation| matches!(found, Violation::SendLost { .. });
            verdict.violations.retain(|found| !lost(found));
            let lost = all - verdict.violations.len();
            println!(
                "{}: {lost} messages were not told to one client each",
                self.title
            );
        }
        self.tell(&crowd, &verdict, &word, [ended, level]);
        if !verdict.holds() {
            self.fail(&format!("the history does not hold: {verdict}"));
        }
        let undecided = verdict.undecided.len();
        assert!(
            undecided * 20 <= verdict.searches,
            "{undecided} of {} searches were not decided in their time",
            verdict.searches
        );
        for facade in remaining.facades {
            facade.leave().await;
        }
        verdict.asks
    }

    /// New clients use every object at every edge: the last reads.
    async fn read_everywhere(&self) -> Vec<Member> {
        let mut readers = Vec::new();
        for (edge, number) in self.field.edges.iter().zip(0_u32..) {
            for object in 0..SIZE.objects {
                let client = READERS_FROM + number;
                let name = object_name(object);
                match Member::join_kept(edge.addr, &name, client, &self.recorder).await {
                    Ok(reader) => readers.push(reader),
                    Err(error) => self.fail(&format!(
                        "{name} cannot be read at {} although everything is well: {error}",
                        edge.id
                    )),
                }
            }
        }
        readers
    }

    /// Waits until all clients have been told the same version of each object.
    async fn level(&self, remaining: &Remaining, readers: &[Member]) {
        let started = Instant::now();
        loop {
            let mut behind = Vec::new();
            for object in (0..SIZE.objects).map(object_name) {
                let members = remaining.members.get(&object).into_iter().flatten();
                let here = readers.iter().filter(|reader| reader.object() == object);
                let members = members.chain(here);
                let mut versions: Vec<(String, u32)> = members
                    .filter(|member| member.over().is_none())
                    .map(|member| (format!("client {}", member.client()), member.version()))
                    .collect();
                for (number, facade) in remaining.facades.iter().enumerate() {
                    if facade.objects.contains(&object) {
                        let version = facade.version(&object).await.unwrap_or_default();
                        versions.push((format!("facade {number}"), version));
                        let slots = facade.slots(&object).await;
                        let found = readers.iter().find(|reader| reader.object() == object);
                        let found = found.map(|reader| reader.look(|seen| seen.slots.clone()));
                        if slots != found {
                            behind.push(format!("facade {number}: {slots:?} and not {found:?}"));
                        }
                        if let Some(back) = facade.went_back() {
                            self.fail(&format!("facade {number}: {back}"));
                        }
                    }
                }
                let newest = versions.iter().map(|(_, version)| *version).max();
                versions.retain(|(_, version)| Some(*version) != newest);
                if !versions.is_empty() {
                    behind.push(format!("{object} is at {newest:?}, but {versions:?}"));
                }
            }
            if behind.is_empty() {
                return;
            }
            if started.elapsed() > LEVEL {
                self.fail(&format!("some stay behind: {behind:#?}"));
            }
            tokio::task::block_in_place(|| pace(Duration::from_millis(20)));
        }
    }

    /// Waits until all origins have applied the same and come to the same.
    fn until_digests_agree(&self) -> Word {
        let started = Instant::now();
        let agreed = tokio::task::block_in_place(|| {
            until_some("digests", LEVEL * 2, || {
                let words: Vec<Option<Word>> = self
                    .field
                    .origins
                    .iter()
                    .map(|origin| origin.word())
                    .collect();
                let first = words.first().cloned().flatten();
                let same = |word: &Option<Word>| {
                    word.as_ref()
                        .zip(first.as_ref())
                        .is_some_and(|(word, first)| {
                            (word.applied, &word.digest) == (first.applied, &first.digest)
                        })
                };
                if words.iter().all(same) {
                    return Some(Ok(first));
                }
                (started.elapsed() > LEVEL).then_some(Err(words))
            })
        });
        match agreed {
            Ok(word) => word.unwrap_or_default(),
            Err(words) => self.fail(&format!("the origins come to different states: {words:#?}")),
        }
    }

    fn tell(&self, crowd: &Crowd, verdict: &Verdict, word: &Word, times: [Duration; 2]) {
        let tally = crowd.tally();
        let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        println!(
            "{} with seed {}: {} requests: {} writes made, {} refused, {} messages, {} locks, {} \
             unavailable, {} undecided, {} of facades; {} reconnects; the last leader is of term \
             {}, the log of {} entries, digest {}; befallen by {:?}; all answered after {:?}, \
             level after {:?}",
            self.title,
            self.seed,
            verdict.asks,
            count(&tally.made),
            count(&tally.refused),
            count(&tally.sent),
            count(&tally.locked),
            count(&tally.unavailable),
            count(&tally.undecided),
            count(&tally.faced),
            count(&tally.reconnects),
            word.term,
            word.applied,
            word.digest,
            self.nemesis.counts,
            times[0],
            times[1],
        );
        println!("judged: {verdict}");
    }

    /// Keeps everything that tells what happened, the data of the origins as well.
    fn fail(&self, why: &str) -> ! {
        let name = format!("{}-{}", self.title, self.seed);
        let folder: PathBuf = target_dir().join("judge");
        let path = folder.join(format!("{name}.jsonl"));
        let history = with_exact_versions(self.recorder.history());
        let kept = std::fs::create_dir_all(&folder).and_then(|()| history.write(&path));
        self.field.keep(&folder.join(&name));
        panic!(
            "{}, seed {}: {why}\nthe history: {} ({kept:?})\nwhat befell it:\n{}",
            self.title,
            self.seed,
            path.display(),
            self.nemesis.log.join("\n")
        );
    }
}
