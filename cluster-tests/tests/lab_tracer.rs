//! `selvage so trace`: tracers at several edges print one history, and go on while servers
//! are killed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use selvage_cluster_tests::lab::{Cluster, Dev, Process, until};

/// Patience for what tracers do now and then.
const LONG: Duration = Duration::from_secs(60);

/// Four tracers, each with a slot of its own.
struct Tracers {
    processes: Vec<Process>,
}

/// A line of a tracer.
#[derive(Clone, Debug, PartialEq)]
struct Line {
    version: u32,
    code: String,
    slot: String,
    value: Option<f64>,
}

impl Tracers {
    /// Tracers whose addresses are these.
    fn start(addresses: &[Vec<String>]) -> Self {
        let processes = addresses
            .iter()
            .enumerate()
            .map(|(number, urls)| {
                let slot = format!("Object_{number}");
                let mut args = vec!["so".to_owned(), "trace".to_owned()];
                args.extend_from_slice(urls);
                args.extend(["--slot", &slot, "--every", "0.25"].map(str::to_owned));
                Process::selvage(&format!("tracer {number}"), &args)
            })
            .collect();
        Self { processes }
    }

    fn lines(&self, tracer: usize) -> Vec<Line> {
        let said = self.processes[tracer].stdout();
        let whole = &said[..said.rfind('\n').map_or(0, |end| end + 1)];
        whole.lines().map(parse).collect()
    }

    /// Waits until every tracer has written so many stamps of its own since now, and has
    /// seen as many of each of the others.
    #[track_caller]
    fn go_on(&mut self, what: &str, stamps: usize) -> Duration {
        let started = Instant::now();
        let before: Vec<_> = (0..4).map(|tracer| self.counts(tracer)).collect();
        until(&format!("{what}: all tracers go on"), LONG, || {
            for process in &mut self.processes {
                let ended = process.ended();
                assert!(ended.is_none(), "{what}: {ended:?}\n{}", process.tail());
            }
            (0..4).all(|tracer| {
                let now = self.counts(tracer);
                (0..4).all(|slot| now[slot] >= before[tracer][slot] + stamps)
            })
        });
        started.elapsed()
    }

    /// How many stamps of each slot a tracer has seen.
    fn counts(&self, tracer: usize) -> [usize; 4] {
        let mut counts = [0; 4];
        for line in self.lines(tracer) {
            let number = line.slot.strip_prefix("Object_");
            if let Some(number) = number.and_then(|number| number.parse::<usize>().ok()) {
                counts[number] += usize::from(line.code == "change" || line.code == "success");
            }
        }
        counts
    }

    /// No tracer saw a version or a stamp go back, nor a stamp twice; and what two of them
    /// saw as a version was one thing.
    ///
    /// What a tracer is told while its own write is under way has the version before that
    /// write, so only versions are looked at that have one line, and one behind the last.
    #[track_caller]
    fn judge(&self) {
        let mut known: BTreeMap<u32, (Line, usize)> = BTreeMap::new();
        let mut versions = Vec::new();
        let mut agreed = 0;
        for tracer in 0..4 {
            let lines = self.lines(tracer);
            let mut newest: BTreeMap<&str, f64> = BTreeMap::new();
            let mut last = 0;
            for (place, line) in lines.iter().enumerate() {
                let around = &lines[place.saturating_sub(3)..=place];
                assert!(
                    line.version >= last,
                    "tracer {tracer} went back: {around:?}"
                );
                let alone = line.version == last + 1
                    && lines
                        .get(place + 1)
                        .is_some_and(|next| next.version > line.version);
                last = line.version;
                let Some(value) = line.value else {
                    continue;
                };
                let before = newest.insert(&line.slot, value);
                assert!(
                    before.is_none_or(|before| before < value),
                    "tracer {tracer} saw {value} after {before:?}: {around:?}"
                );
                if !alone {
                    continue;
                }
                let (first, other) = known.entry(last).or_insert_with(|| (line.clone(), tracer));
                assert_eq!(
                    (&first.slot, first.value),
                    (&line.slot, line.value),
                    "version {last} at tracer {other} and at tracer {tracer}: {around:?}"
                );
                agreed += usize::from(*other != tracer);
            }
            versions.push(last);
        }
        println!("the tracers are at the versions {versions:?}; {agreed} lines agree");
        assert!(agreed > 100, "hardly anything could be compared");
    }
}

/// `12 change Object_7 1700000000000 (was 1600000000000)`.
fn parse(line: &str) -> Line {
    let words: Vec<&str> = line.split(' ').collect();
    let word = |place: usize| words.get(place).copied().unwrap_or_default();
    Line {
        version: word(0)
            .parse()
            .unwrap_or_else(|_| panic!("what is {line:?}?")),
        code: word(1).to_owned(),
        slot: word(2).to_owned(),
        value: word(3).parse().ok(),
    }
}

#[test]
fn four_tracers_at_two_edges_of_a_development_cluster_print_one_history() {
    let mut dev = Dev::start(3, 2);
    let urls: Vec<Vec<String>> = (0..4)
        .map(|tracer| vec![format!("rtmp://{}/live", dev.rtmp(tracer % 2))])
        .collect();
    let mut tracers = Tracers::start(&urls);
    tracers.go_on("the beginning", 1);
    // From here on all are there, so each sees every version by itself.
    let from = (0..4)
        .filter_map(|tracer| tracers.lines(tracer).last().map(|line| line.version))
        .max()
        .unwrap();
    tracers.go_on("the middle", 20);
    let to = (0..4)
        .filter_map(|tracer| tracers.lines(tracer).last().map(|line| line.version))
        .min()
        .unwrap();
    let history = |tracer: usize| -> Vec<(u32, String)> {
        tracers
            .lines(tracer)
            .into_iter()
            .filter(|line| line.version > from && line.version < to)
            .map(|line| (line.version, line.slot))
            .collect()
    };
    let first = history(0);
    assert!(first.len() > 40, "{first:?}");
    for tracer in 1..4 {
        assert_eq!(history(tracer), first, "of tracer {tracer}");
    }
    println!("{} versions are one history for all four", first.len());
    tracers.judge();
}

#[test]
fn tracers_go_on_when_any_origin_or_one_edge_is_killed() {
    let mut cluster = Cluster::start(3, 2);
    let urls: Vec<Vec<String>> = (0..4)
        .map(|tracer| {
            [tracer % 2, (tracer + 1) % 2]
                .map(|edge| format!("rtmp://{}/live", cluster.edges[edge].addr))
                .to_vec()
        })
        .collect();
    let mut tracers = Tracers::start(&urls);
    tracers.go_on("the beginning", 3);
    for origin in 0..3 {
        cluster.origins[origin].process.kill();
        let what = format!("origin-{origin} is killed");
        let took = tracers.go_on(&what, 3);
        println!("{what}: three more stamps of each at each after {took:?}");
        cluster.origins[origin].start_again();
        tracers.go_on(&format!("origin-{origin} is back"), 3);
    }
    cluster.edges[1].process.kill();
    let took = tracers.go_on("edge-1 is killed", 5);
    println!("edge-1 is killed: five more stamps of each at each after {took:?}");
    tracers.judge();
}
