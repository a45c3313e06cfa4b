//! People who talk with each other directly: real `selvage peer chat` processes, which real
//! edges introduce to each other.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use selvage_cluster_tests::fixture::Fixture;
use selvage_cluster_tests::lab::cluster::Node;
use selvage_cluster_tests::lab::process::selvage;
use selvage_cluster_tests::lab::{Cluster, PLAYER, Process, SOON, http, pace, until, until_some};

/// How often somebody looks who is there.
const LOOK: Duration = Duration::from_millis(250);

/// Messages of sound and pictures that everybody is to get from each who shows a film: some
/// five seconds of it.
const FILM: u64 = 300;

/// The longest that a word may be under way while an edge is lost.
const GAP: Duration = Duration::from_secs(2);

/// How soon one whose edge was lost is found at another.
const FOUND: Duration = Duration::from_secs(5);

/// Somebody in a chat.
struct Person {
    name: &'static str,
    id: String,
    process: Process,
}

/// Where and how somebody comes in.
#[derive(Clone, Copy, Default)]
struct Coming<'a> {
    to: Option<&'a str>,
    film: Option<&'a Path>,
    max: Option<&'a str>,
    /// All edges are given, not only the first one.
    anywhere: bool,
}

impl Person {
    #[track_caller]
    fn comes(name: &'static str, cluster: &mut Cluster, edge: usize, how: Coming<'_>) -> Self {
        let mut command = selvage();
        command.args(["peer", "chat", "--name", name]);
        let count = if how.anywhere { cluster.edges.len() } else { 1 };
        for at in 0..count {
            let edge = (edge + at) % cluster.edges.len();
            let edge = &mut cluster.edges[edge];
            let door = edge.process.listening(&edge.id, "rtmfp");
            command.arg(format!("rtmfp://{door}/chat"));
        }
        if let Some(id) = how.to {
            command.args(["--connect", id]);
        }
        if let Some(film) = how.film {
            command.arg("--file").arg(film);
        }
        if let Some(max) = how.max {
            command.args(["--max-peers", max]);
        }
        let process = Process::converse(name, &command);
        let id = until_some(&format!("{name} is told its ID"), SOON, || {
            let said = process.stdout();
            let first = said.lines().find_map(|line| line.strip_prefix("id "));
            first.map(str::to_owned)
        });
        Self { name, id, process }
    }

    fn was_told(&self, line: &str) -> bool {
        self.process.stdout().lines().any(|said| said == line)
    }

    #[track_caller]
    fn is_with(&self, other: &Self) {
        let what = format!("{} has joined {}", self.name, other.name);
        let line = format!("joined {}", other.id);
        until(&what, SOON, || self.was_told(&line));
    }

    #[track_caller]
    fn hears(&self, other: &Self, text: &str) {
        let what = format!("{} hears {} say {text}", self.name, other.name);
        let line = format!("{}: {text}", other.name);
        until(&what, SOON, || self.was_told(&line));
    }

    /// What has come of another's film: messages and bytes.
    #[track_caller]
    fn sees(&mut self, other: &Self, at_least: u64) -> u64 {
        let prefix = format!("with {} ", other.id);
        let what = format!("{} sees the film of {}", self.name, other.name);
        until_some(&what, PLAYER, || {
            self.process.say("/who");
            pace(LOOK);
            let said = self.process.stdout();
            let mut lines = said.lines().filter_map(|line| line.strip_prefix(&prefix));
            let numbers: Vec<u64> = lines
                .next_back()?
                .split_whitespace()
                .filter_map(|word| word.parse().ok())
                .collect();
            let [messages, bytes] = numbers[..] else {
                return None;
            };
            (messages >= at_least).then_some(bytes)
        })
    }

    #[track_caller]
    fn leaves(mut self) {
        self.process.hang_up();
        self.process.wait(SOON).well(self.name);
    }
}

/// All of them say something, and all others hear it.
#[track_caller]
fn all_talk(room: &mut [Person], text: &str) {
    for (at, person) in room.iter().enumerate() {
        let others = room.iter().enumerate().filter(|(other, _)| *other != at);
        others.for_each(|(_, other)| person.is_with(other));
    }
    for person in &mut *room {
        person.process.say(text);
    }
    for (at, person) in room.iter().enumerate() {
        let others = room.iter().enumerate().filter(|(other, _)| *other != at);
        others.for_each(|(_, other)| person.hears(other, text));
        assert!(!person.process.stdout().contains("failed "));
    }
}

/// Bytes of datagrams that all edges took and gave so far.
fn carried(cluster: &Cluster) -> u64 {
    let count = |line: &str| {
        let (name, count) = line.split_once(' ')?;
        let counts = name.starts_with("selvage_client_bytes_total{") && name.contains("\"rtmfp\"");
        counts.then(|| count.parse::<u64>().expect("a number"))
    };
    let of_edge = |edge: &Node| {
        let (_, page) = http::get(edge.http, "/metrics").expect("metrics");
        let counts: Vec<u64> = page.lines().filter_map(count).collect();
        assert_eq!(counts.len(), 2, "in and out: {page}");
        counts.iter().sum::<u64>()
    };
    cluster.edges.iter().map(of_edge).sum()
}

#[test]
fn five_talk_and_two_show_a_film_and_the_edges_carry_none_of_it() {
    let mut cluster = Cluster::start(2, 3);
    let film = Fixture::H264.path();
    let names = ["amy", "ben", "cat", "dan", "eve"];
    let mut room: Vec<Person> = Vec::new();
    for (at, name) in names.into_iter().enumerate() {
        let to = room.first().map(|first| first.id.clone());
        let how = Coming {
            to: to.as_deref(),
            film: (at < 2).then_some(&*film),
            ..Coming::default()
        };
        room.push(Person::comes(name, &mut cluster, at % 3, how));
    }
    all_talk(&mut room, "hello");

    let before = carried(&cluster);
    let mut shown = 0;
    for film in 0..2 {
        for person in 0..room.len() {
            if person != film {
                let (a, b) = room.split_at_mut(person.max(film));
                let (person, film) = if person > film {
                    (&mut b[0], &a[film])
                } else {
                    (&mut a[person], &b[0])
                };
                shown += person.sees(film, FILM);
            }
        }
    }

    let meanwhile = carried(&cluster) - before;
    println!(
        "{shown} bytes of film went from peer to peer; edges: {before}, then {meanwhile} more"
    );
    assert!(before > 1000, "it was they who introduced them");
    assert!(meanwhile * 50 < shown, "{meanwhile} of {shown} bytes");

    // The sixth is let in by nobody, as everybody has the others already.
    let how = Coming {
        to: Some(&room[1].id),
        ..Coming::default()
    };
    let sixth = Person::comes("fay", &mut cluster, 2, how);
    let refused = format!("failed {}", room[1].id);
    until("the sixth is refused", SOON, || {
        sixth.process.stdout().contains(&refused)
    });
    assert!(
        sixth
            .process
            .stdout()
            .contains("NetStream.Connect.Rejected")
    );
    sixth.leaves();
    // The others have not noticed.
    all_talk(&mut room, "still here");

    room.into_iter().for_each(Person::leaves);
}

#[test]
fn six_talk_where_twelve_peer_connections_are_allowed() {
    let mut cluster = Cluster::start(1, 2);
    let names = ["amy", "ben", "cat", "dan", "eve", "fay"];
    let mut room: Vec<Person> = Vec::new();
    for (at, name) in names.into_iter().enumerate() {
        // Each comes to the one before, not all to the same one.
        let to = room.last().map(|last| last.id.clone());
        let how = Coming {
            to: to.as_deref(),
            max: Some("12"),
            ..Coming::default()
        };
        room.push(Person::comes(name, &mut cluster, at % 2, how));
        if let [.., before, new] = &room[..] {
            new.is_with(before);
        }
    }
    all_talk(&mut room, "hello");
    let fay = room.pop().unwrap();
    let left = format!("left {}", fay.id);
    fay.leaves();
    for person in &room {
        until("all notice who leaves", SOON, || {
            person.process.stdout().contains(&left)
        });
    }
    all_talk(&mut room, "five again");
}

#[test]
fn talk_goes_on_when_an_edge_is_killed_and_its_person_is_found_at_another_by_the_same_id() {
    let mut cluster = Cluster::start(1, 3);
    let mut room: Vec<Person> = Vec::new();
    for (at, name) in ["amy", "ben", "cat"].into_iter().enumerate() {
        let to = room.first().map(|first| first.id.clone());
        let how = Coming {
            to: to.as_deref(),
            anywhere: true,
            ..Coming::default()
        };
        room.push(Person::comes(name, &mut cluster, at, how));
    }
    all_talk(&mut room, "hello");
    let mut dan = Person::comes("dan", &mut cluster, 1, Coming::default());

    let killed = Instant::now();
    cluster.edges[0].process.kill();
    let (mut longest, mut words) = (Duration::ZERO, 0);
    loop {
        let back = room[0].process.stdout().contains("\nrejoined ");
        words += 1;
        let text = format!("word {words}");
        let said = Instant::now();
        room.iter_mut().for_each(|it| it.process.say(&text));
        for (at, person) in room.iter().enumerate() {
            for (_, other) in room.iter().enumerate().filter(|(other, _)| *other != at) {
                let line = format!("{}: {text}", other.name);
                until("a word is heard", GAP, || person.was_told(&line));
            }
        }
        longest = longest.max(said.elapsed());
        if back {
            break;
        }
        assert!(killed.elapsed() < SOON, "amy finds another edge");
        pace(LOOK);
    }
    let back = killed.elapsed();
    dan.process.say(&format!("/connect {}", room[0].id));
    dan.is_with(&room[0]);
    let found = killed.elapsed();
    println!("back after {back:?}, found after {found:?}; {words} words, the longest {longest:?}");
    assert!(found < FOUND, "{found:?}");
    // She tells of the others as ever.
    room.push(dan);
    all_talk(&mut room, "four");
    room.into_iter().for_each(Person::leaves);
}
