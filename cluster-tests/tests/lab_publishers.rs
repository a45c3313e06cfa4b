//! One publisher holds a name in the whole cluster, also while origins die; and nobody's
//! connection is closed by that.
//!
//! The long form, which takes an hour: `SELVAGE_LONG=1 cargo test --release -p
//! selvage-cluster-tests --test lab_publishers -- --nocapture --test-threads 1`. It races
//! for ten minutes, and kills the owning origin 50 times under 200 viewers of 5 FFmpeg
//! publishers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use selvage_cluster_tests::fixture::Fixture;
use selvage_cluster_tests::lab::live::is_key;
use selvage_cluster_tests::lab::raw::{Message, Raw, kind};
use selvage_cluster_tests::lab::{
    Cluster, Live, PLAYER, Pace, SOON, Viewer, pace, peer, until, until_some,
};

const START: &str = "NetStream.Publish.Start";
const BAD_NAME: &str = "NetStream.Publish.BadName";

/// How much is asked of the machine.
struct Form {
    racers: usize,
    race: Duration,
    kills: usize,
    viewers: usize,
    publishers: usize,
}

fn form() -> Form {
    if std::env::var_os("SELVAGE_LONG").is_some() {
        return Form {
            racers: 200,
            race: Duration::from_secs(600),
            kills: 50,
            viewers: 200,
            publishers: 5,
        };
    }
    Form {
        racers: 200,
        race: Duration::from_secs(20),
        kills: 3,
        viewers: 20,
        publishers: 2,
    }
}

/// What the nodes wrote to their logs about who may publish.
#[derive(Default)]
struct Grants {
    /// By stream and epoch: the edge's client, by the word of edges.
    held: BTreeMap<(String, String), BTreeSet<String>>,
    /// By stream and epoch: the edge, by the word of origins.
    taken: BTreeMap<(String, String), BTreeSet<String>>,
}

impl Grants {
    /// What an edge said.
    fn edge(&mut self, id: &str, log: &str) {
        for line in log.lines().filter(|line| line.contains(" publishing")) {
            if let (Some(stream), Some(epoch), Some(client)) = (
                field(line, "stream"),
                field(line, "epoch"),
                field(line, "client"),
            ) {
                let key = (stream.to_owned(), epoch.to_owned());
                let who = format!("{id} client {client}");
                self.held.entry(key).or_default().insert(who);
            }
        }
    }

    /// What an origin said.
    fn origin(&mut self, log: &str) {
        for line in log.lines().filter(|line| line.contains(" granted")) {
            if let (Some(stream), Some(epoch), Some(edge)) = (
                field(line, "stream"),
                field(line, "epoch"),
                field(line, "edge"),
            ) {
                let key = (stream.to_owned(), epoch.to_owned());
                self.taken.entry(key).or_default().insert(edge.to_owned());
            }
        }
    }

    #[track_caller]
    fn judge(&self, at_least: usize) {
        for (what, grants) in [("edges", &self.held), ("origins", &self.taken)] {
            for ((stream, epoch), holders) in grants {
                assert_eq!(
                    holders.len(),
                    1,
                    "by the word of the {what}, epoch {epoch} of {stream} was held by {holders:?}"
                );
            }
        }
        println!(
            "{} epochs by the word of edges, {} by that of origins, each with one holder",
            self.held.len(),
            self.taken.len()
        );
        assert!(
            self.held.len() >= at_least,
            "only {} grants",
            self.held.len()
        );
        // What a client was told was taken by an origin for that edge.
        let strange = self.held.iter().find(|(key, who)| {
            let edges = self.taken.get(*key);
            !edges.is_some_and(|edges| {
                who.iter()
                    .all(|who| edges.iter().any(|e| who.starts_with(&**e)))
            })
        });
        let said = strange.map(|(key, _)| self.taken.get(key));
        assert!(
            strange.is_none(),
            "no origin took {strange:?}, but {said:?}"
        );
    }
}

/// `key=value` of a line of a log.
fn field<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.split([' ', '{', '}', ','])
        .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        .map(|value| value.trim_matches('"'))
}

#[test]
fn of_200_publishers_that_race_for_20_names_while_origins_die_none_shares_an_epoch() {
    let form = form();
    let mut cluster = Cluster::start(3, 3);
    let edges: Vec<_> = cluster.edges.iter().map(|edge| edge.addr).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let holders: Arc<Vec<AtomicUsize>> = Arc::new((0..20).map(|_| AtomicUsize::new(0)).collect());
    let answers: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
    let racers: Vec<_> = (0..form.racers)
        .map(|racer| {
            let (stop, holders, answers) = (
                Arc::clone(&stop),
                Arc::clone(&holders),
                Arc::clone(&answers),
            );
            let edge = edges[racer % edges.len()];
            std::thread::spawn(move || {
                let mut dice = racer.wrapping_mul(0x9e37_79b9) | 1;
                while !stop.load(Ordering::Relaxed) {
                    dice ^= dice << 13;
                    dice ^= dice >> 7;
                    dice ^= dice << 17;
                    let answer = run(edge, dice % 20, &holders, Duration::from_millis(50));
                    *answers
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .entry(answer)
                        .or_default() += 1;
                    pace(Duration::from_millis(200));
                }
            })
        })
        .collect();
    let mut grants = Grants::default();
    let started = Instant::now();
    let mut kills = 0;
    while started.elapsed() < form.race {
        pace(Duration::from_secs(3));
        let victim = kills % 3;
        cluster.origins[victim].process.kill();
        pace(Duration::from_secs(1));
        grants.origin(&cluster.origins[victim].process.stderr());
        cluster.origins[victim].start_again();
        kills += 1;
    }
    stop.store(true, Ordering::Relaxed);
    for racer in racers {
        racer.join().expect("a racer was let down; see above");
    }
    for edge in &cluster.edges {
        grants.edge(&edge.id, &edge.process.stderr());
    }
    for origin in &cluster.origins {
        grants.origin(&origin.process.stderr());
    }
    let answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
    println!("{kills} kills of origins; the racers were told {answers:?}");
    grants.judge(20);
}

/// Asks for a name once; gives the answer. Whoever has it holds it for a while.
fn run(edge: SocketAddr, name: usize, holders: &[AtomicUsize], hold: Duration) -> String {
    let mut raw = match Raw::connect(edge, "live") {
        Ok(raw) => raw,
        Err(error) => return format!("no connection: {error}"),
    };
    let stream = match raw.create_stream() {
        Ok(stream) => stream,
        Err(error) => return format!("no stream: {error}"),
    };
    let code = match raw.publish(stream, &format!("raced{name}")) {
        Ok(code) => code,
        Err(error) => return format!("no answer: {error}"),
    };
    if code == START {
        let before = holders[name].fetch_add(1, Ordering::SeqCst);
        assert_eq!(before, 0, "two hold raced{name} at once");
        let _may_be_closed = raw.send(kind::VIDEO, stream, 0, &[0x17, 1, 0, 0, 0, 1]);
        pace(hold);
        holders[name].fetch_sub(1, Ordering::SeqCst);
    }
    code
}

/// A viewer that keeps no pictures, only when they came.
struct Watcher {
    seen: Arc<Mutex<Watched>>,
    socket: TcpStream,
    stream: usize,
}

#[derive(Clone, Debug, Default)]
struct Watched {
    pictures: usize,
    last: Option<(Instant, u32)>,
    /// Pauses that are longer than from picture to picture, with their beginnings.
    pauses: Vec<(Instant, Duration)>,
    /// The longest step of the stream's clock, milliseconds.
    step: u32,
    statuses: Vec<String>,
    ended: Option<String>,
}

impl Watcher {
    fn play(edge: SocketAddr, stream: usize, name: &str) -> Self {
        let mut raw = Raw::connect(edge, "live").expect("the edge takes a viewer");
        let id = raw.create_stream().expect("the edge gives a stream");
        assert_eq!(raw.play(id, name).unwrap(), "NetStream.Play.Start");
        let socket = raw.socket().try_clone().unwrap();
        let seen: Arc<Mutex<Watched>> = Arc::default();
        let kept = Arc::clone(&seen);
        std::thread::spawn(move || {
            let _bad_socket_shows_below = raw.socket().set_read_timeout(Some(PLAYER * 2));
            loop {
                let message = raw.read();
                let mut seen = kept.lock().unwrap_or_else(PoisonError::into_inner);
                match message {
                    Ok(message) => seen.take(&message),
                    Err(error) => {
                        seen.ended = Some(error.to_string());
                        return;
                    }
                }
            }
        });
        Self {
            seen,
            socket,
            stream,
        }
    }

    fn look(&self) -> Watched {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Watched {
    fn take(&mut self, message: &Message) {
        self.statuses.extend(message.status());
        if message.kind != kind::VIDEO || message.body.get(1) != Some(&1) {
            return;
        }
        let now = Instant::now();
        if let Some((at, time)) = self.last {
            let pause = now - at;
            if pause > Duration::from_millis(60) {
                self.pauses.push((at, pause));
            }
            self.step = self.step.max(message.time.saturating_sub(time));
        }
        self.last = Some((now, message.time));
        self.pictures += 1;
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _already_closed = self.socket.shutdown(Shutdown::Both);
    }
}

#[test]
fn the_owning_origin_is_killed_again_and_again_and_nobodys_connection_is_closed() {
    let form = form();
    let mut cluster = Cluster::start(3, 2);
    let names: Vec<String> = (0..form.publishers).map(|n| format!("show{n}")).collect();
    let mut publishers: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(number, name)| peer::publish(Fixture::H264, &cluster.url(number % 2, "live", name)))
        .collect();
    let watchers: Vec<Watcher> = (0..form.viewers)
        .map(|number| {
            let stream = number % names.len();
            let edge = cluster.edges[number / names.len() % 2].addr;
            Watcher::play(edge, stream, &names[stream])
        })
        .collect();
    until("everybody watches", PLAYER, || {
        watchers.iter().all(|watcher| watcher.look().pictures > 25)
    });
    let mut stalls = Vec::new();
    for round in 0..form.kills {
        let stream = round % names.len();
        let owner = owner_of(&cluster, &names[stream]);
        let killed = Instant::now();
        println!(
            "round {round}: killing origin-{owner}, which owns {}",
            names[stream]
        );
        cluster.origins[owner].process.kill();
        let pictures: Vec<usize> = watchers.iter().map(|w| w.look().pictures).collect();
        until("everybody plays on", PLAYER, || {
            for publisher in &mut publishers {
                assert!(publisher.ended().is_none(), "{}", publisher.tail());
            }
            watchers.iter().zip(&pictures).all(|(watcher, before)| {
                let seen = watcher.look();
                assert_eq!(
                    seen.ended, None,
                    "round {round}: a viewer's connection was closed"
                );
                seen.pictures > before + 50
            })
        });
        for watcher in watchers.iter().filter(|watcher| watcher.stream == stream) {
            let seen = watcher.look();
            let pauses = seen.pauses.iter();
            let longest = pauses
                .filter(|(at, pause)| *at + *pause > killed)
                .map(|(_, pause)| *pause)
                .max();
            stalls.push(longest.unwrap_or_default());
        }
        cluster.origins[owner].start_again();
        until("the origin is back", SOON, || {
            cluster.edges.iter().all(|edge| edge.links() > 3 + round)
        });
    }
    stalls.sort();
    let at = |part: usize| stalls[(stalls.len() - 1) * part / 100];
    let step = watchers.iter().map(|w| w.look().step).max().unwrap();
    println!(
        "{} kills of the owning origin, {} viewers, {} FFmpeg publishers: 0 connections closed; \
         the stall was p50 {:?}, p99 {:?}, at most {:?}; at most {step} ms of pictures missing",
        form.kills,
        form.viewers,
        form.publishers,
        at(50),
        at(99),
        at(100)
    );
    for watcher in &watchers {
        let seen = watcher.look();
        assert!(
            !seen.statuses.iter().any(|code| code.contains("Unpublish")),
            "{:?}",
            seen.statuses
        );
        // A key frame every second.
        assert!(seen.step <= 1_100, "{} ms are missing", seen.step);
    }
    assert!(at(99) < Duration::from_secs(8), "{:?}", at(99));
}

/// Which origin has granted the stream last, by what the origins say in their logs.
#[track_caller]
fn owner_of(cluster: &Cluster, name: &str) -> usize {
    let stream = format!("live/_definst_/{name}");
    until_some("an origin says that it owns the stream", SOON, || {
        let grants = cluster
            .origins
            .iter()
            .enumerate()
            .filter_map(|(number, origin)| {
                let log = origin.process.stderr();
                let mut lines = log.lines().rev();
                let line =
                    lines.find(|line| line.contains(" granted") && line.contains(&stream))?;
                Some((line.split(' ').next()?.to_owned(), number))
            });
        // Lines begin with the time.
        grants.max().map(|(_, number)| number)
    })
}

/// In real time, with pictures that no other pace makes.
fn pace_of(key_bytes: u32) -> Pace {
    Pace {
        key_bytes,
        ..Pace::real()
    }
}

#[test]
fn a_standby_with_the_same_token_takes_over_and_the_viewers_see_the_stream_go_on() {
    let cluster = Cluster::start(3, 2);
    let edges = [cluster.edges[0].addr, cluster.edges[1].addr];
    for (round, (first, second)) in [(0, 1), (0, 0), (1, 0)].into_iter().enumerate() {
        let name = format!("stood{round}");
        let token = format!("{name}?publisher=studio");
        let main = Live::publish(edges[first], "live", &token, pace_of(4_000));
        let viewers = edges.map(|edge| Viewer::play(edge, "live", &name));
        main.go_on(50);
        let standby = Live::publish(edges[second], "live", &token, pace_of(6_000));
        standby.go_on(100);
        // A stranger is refused, and the viewers see the first.
        let mut stranger = Raw::connect(edges[second], "live").unwrap();
        let stream = stranger.create_stream().unwrap();
        assert_eq!(stranger.publish(stream, &name).unwrap(), BAD_NAME);
        let theirs = standby.sent();
        for viewer in &viewers {
            viewer.look(|seen| {
                let strange = seen.media.iter().filter(|(_, m)| is_of(&theirs, m)).count();
                assert_eq!(strange, 0, "the standby shows while the first is there");
            });
        }
        let sent = main.sent();
        drop(main);
        let lost = Instant::now();
        until("the viewers see the standby", SOON, || {
            let theirs = standby.sent();
            viewers.iter().all(|viewer| {
                viewer.look(|seen| {
                    assert_eq!(seen.ended, None, "a viewer's connection was closed");
                    seen.media
                        .iter()
                        .rev()
                        .take(5)
                        .any(|(_, m)| is_of(&theirs, m) && !is_of(&sent, m))
                })
            })
        });
        println!(
            "round {round}: the standby shows after {:?}",
            lost.elapsed()
        );
        standby.go_on(100);
        let theirs = standby.leave();
        for viewer in &viewers {
            viewer.until_got(theirs.last().unwrap());
            viewer.look(|seen| {
                let first = seen
                    .media
                    .iter()
                    .map(|(_, message)| message)
                    .find(|m| is_picture(m) && is_of(&theirs, m) && !is_of(&sent, m))
                    .expect("a picture of the standby");
                assert!(
                    is_key(first),
                    "the standby begins within a group of pictures"
                );
                let left = seen
                    .statuses
                    .iter()
                    .filter(|code| code.contains("Unpublish"));
                // The standby itself has left by now.
                assert!(left.count() <= 1, "{:?}", seen.statuses);
            });
        }
    }
}

fn is_picture(message: &Message) -> bool {
    message.kind == kind::VIDEO && message.body.get(1) == Some(&1)
}

fn is_of(sent: &[Message], message: &Message) -> bool {
    is_picture(message)
        && sent
            .iter()
            .rev()
            .any(|sent| (sent.kind, &sent.body) == (message.kind, &message.body))
}

#[test]
fn a_publisher_that_stands_still_loses_its_name_to_who_asks_and_a_live_one_does_not() {
    let cluster = Cluster::start(3, 2);
    let url = cluster.url(0, "live", "still");
    let mut dead = peer::publish(Fixture::H264, &url);
    let viewer = Viewer::play(cluster.edges[1].addr, "live", "still");
    until("it is on air", PLAYER, || viewer.count() > 50);
    let ask = |edge: usize| {
        let mut raw = Raw::connect(cluster.edges[edge].addr, "live").unwrap();
        let stream = raw.create_stream().unwrap();
        let asked = Instant::now();
        let code = raw.publish(stream, "still").unwrap();
        (raw, code, asked.elapsed())
    };
    for edge in [0, 1, 0, 1] {
        let (_raw, code, took) = ask(edge);
        assert_eq!(code, BAD_NAME, "a live publisher lost its name");
        println!("a live publisher keeps its name: {took:?}");
    }
    let before = viewer.count();
    until("the publisher was not disturbed", SOON, || {
        viewer.count() > before + 25
    });

    dead.freeze();
    let frozen = Instant::now();
    let mut told = Vec::new();
    let taken = until_some("the name is given to who asks", SOON, || {
        let (raw, code, took) = ask(told.len() % 2);
        told.push((code.clone(), took));
        (code == START).then_some(raw)
    });
    println!(
        "a publisher that stands still lost its name {:?} after: {told:?}",
        frozen.elapsed()
    );
    assert!(frozen.elapsed() < Duration::from_secs(10), "{told:?}");
    drop(taken);
    // When it wakes up it learns that it was replaced.
    dead.thaw();
    until("the old publisher ends", PLAYER, || dead.ended().is_some());
}
