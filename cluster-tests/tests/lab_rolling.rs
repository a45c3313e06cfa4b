//! Every process is started anew, one after the other, as a rolling update does it, under
//! viewers, publishers and somebody who writes to a shared object.
//!
//! The edges stand behind one address ([`Front`]). Whose client follows a ReconnectRequest loses
//! no picture, neither as a viewer nor as a publisher; a plain viewer comes back once for each
//! restart of the edge it is at, and is left alone by all others.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::{Connection, Error, Item, Options, PlayRequest, Player, Publisher, Target};
use rtmp::MessageKind;
use selvage_cluster_tests::judge::{self, Answer, Recorder};
use selvage_cluster_tests::lab::cluster::Node;
use selvage_cluster_tests::lab::objects::Member;
use selvage_cluster_tests::lab::{Front, Process, SOON, ports, until, until_async};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

const VIEWERS: usize = 200;
const STREAMS: usize = 5;

/// The publisher of this stream is an encoder that knows nothing of ReconnectRequests.
const PLAIN: usize = 4;

/// From picture to picture, on both clocks.
const PICTURE: Duration = Duration::from_millis(100);

/// Pictures between key frames.
const KEY_EVERY: u32 = 10;

/// How long clients may stay at an edge that drains, and publishes at an origin.
const GRACE: Duration = Duration::from_secs(8);

/// What may come on top of it until a process has ended: goodbyes, and a machine that has other
/// things to do.
const END: Duration = Duration::from_secs(15);

/// What all clients share.
struct Stage {
    front: Front,
    /// The number of the picture that each stream is at.
    sent: [AtomicU32; STREAMS],
    /// Counts the restarts.
    phase: AtomicUsize,
    over: AtomicBool,
    /// When a plain viewer was closed: the phase, the edge and the viewer.
    closed: Mutex<Vec<(usize, usize, usize)>>,
    faults: Mutex<Vec<String>>,
}

impl Stage {
    fn target(&self, stream: usize) -> Target {
        let url = format!("rtmp://{}/live/s{stream}", self.front.addr);
        url.parse().expect("an address")
    }

    fn fault(&self, what: String) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        println!("phase {}: {what}", self.phase.load(Ordering::Relaxed));
        faults.push(what);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_process_is_started_anew_under_200_viewers_and_5_publishers() {
    let started = Instant::now();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("node.toml");
    std::fs::write(&config, format!("drain_grace = \"{}s\"\n", GRACE.as_secs())).unwrap();
    let config = ["--config", config.to_str().unwrap()];
    let mut nodes = Nodes::start(&config);
    let doors = nodes.edges.iter().map(|edge| (edge.addr, edge.http));
    let stage = Arc::new(Stage {
        front: Front::start(doors).await,
        sent: Default::default(),
        phase: AtomicUsize::new(0),
        over: AtomicBool::new(false),
        closed: Mutex::default(),
        faults: Mutex::default(),
    });
    let publishers: Vec<_> = (0..STREAMS)
        .map(|stream| tokio::spawn(publish(Arc::clone(&stage), stream)))
        .collect();
    until_async("all publish", SOON, || {
        let mut sent = stage.sent.iter();
        sent.all(|sent| sent.load(Ordering::Relaxed) > KEY_EVERY)
    })
    .await;
    let viewers: Vec<_> = (0..VIEWERS)
        .map(|number| Viewer::start(&stage, number))
        .collect();
    until_async("all watch", SOON, || {
        viewers.iter().all(|viewer| viewer.newest() > 0)
    })
    .await;
    let recorder = Recorder::new("rolling", 0);
    let edges: Vec<_> = nodes.edges.iter().map(|edge| edge.addr).collect();
    let writer = tokio::spawn(write(Arc::clone(&stage), edges.clone(), recorder.clone()));
    println!("all are there after {:?}", started.elapsed());

    for phase in 0..nodes.edges.len() + nodes.origins.len() {
        stage.phase.store(phase, Ordering::Relaxed);
        nodes.restart(phase).await;
    }

    let ends: Vec<u32> = stage
        .sent
        .iter()
        .map(|s| s.load(Ordering::Relaxed))
        .collect();
    until_async("all have seen the end", SOON, || {
        viewers
            .iter()
            .all(|viewer| viewer.newest() >= ends[viewer.stream])
    })
    .await;
    stage.over.store(true, Ordering::Relaxed);
    for publisher in publishers {
        publisher.await.expect("no publisher panics");
    }
    let writes = writer.await.expect("the writer does not panic");
    for (edge, number) in edges.iter().zip(1_000..) {
        let reader = Member::join_kept(*edge, "board", number, &recorder);
        reader.await.expect("every edge has the object");
    }
    judge::demand(&recorder.history());
    let closed = stage.closed.lock().unwrap().clone();
    judge_closed(&closed, nodes.edges.len());
    let mut pictures = 0;
    for viewer in &viewers {
        pictures += viewer.judge();
    }
    let faults = stage.faults.lock().unwrap().clone();
    assert!(faults.is_empty(), "{faults:#?}");
    println!(
        "{pictures} pictures at {VIEWERS} viewers, {} times a plain one was closed, {} connections \
         in all, {writes} writes acknowledged, after {:?}",
        closed.len(),
        stage.front.taken(),
        started.elapsed()
    );
    assert!(writes > 50, "only {writes} writes were acknowledged");
}

/// Plain viewers are closed by a restart of their own edge alone, and once.
#[track_caller]
fn judge_closed(closed: &[(usize, usize, usize)], edges: usize) {
    let mut times = BTreeMap::new();
    for (phase, edge, viewer) in closed {
        assert_eq!(
            phase, edge,
            "viewer {viewer} at edge {edge} was closed in phase {phase}; phases from {edges} on \
             restart origins"
        );
        *times.entry((phase, viewer)).or_insert(0) += 1;
    }
    let more = times.iter().find(|(_, times)| **times > 1);
    assert_eq!(more, None, "a viewer came back more than once");
    assert!(!closed.is_empty(), "no plain viewer was at any edge");
}

struct Nodes {
    origins: Vec<Node>,
    edges: Vec<Node>,
}

impl Nodes {
    #[track_caller]
    fn start(config: &[&str]) -> Self {
        let addrs = ports::free(3);
        let origins: Vec<_> = (0..3)
            .map(|number| Node::founding(number, &addrs, config))
            .collect();
        let operated = [config, &["--admin", "127.0.0.1:0"]].concat();
        let edges: Vec<_> = (0..3)
            .map(|number| Node::lasting_edge(number, &addrs, &operated))
            .collect();
        for node in origins.iter().chain(&edges) {
            until("every process is ready", SOON, || node.is_ready());
        }
        for edge in &edges {
            until("every edge has a link to every origin", SOON, || {
                edge.links() == addrs.len()
            });
        }
        Self { origins, edges }
    }

    /// Has a process end as it is asked to, and starts it again: the edges first.
    async fn restart(&mut self, phase: usize) {
        let edges = self.edges.len();
        let node = match phase.checked_sub(edges) {
            None => &mut self.edges[phase],
            Some(origin) => &mut self.origins[origin],
        };
        let asked = Instant::now();
        // The last edge is drained by an operator, the others by a signal.
        if phase + 1 == edges {
            let id = node.id.clone();
            let admin = node.process.listening(&id, "admin").to_string();
            Process::selvage("drain", ["drain", "--admin", &admin, "--wait", "1s"]).wait(END);
        } else {
            node.process.terminate();
        }
        let what = format!("{} has ended", node.id);
        until_async(&what, GRACE + END, || node.process.ended().is_some()).await;
        let took = asked.elapsed();
        let status = node.process.ended();
        assert!(
            status.is_some_and(|status| status.success()),
            "{status:?}: {}",
            node.process.tail()
        );
        node.start_again();
        until_async("it is ready again", SOON, || node.is_ready()).await;
        println!(
            "{} ended after {took:?} and was ready again after {:?}",
            node.id,
            asked.elapsed()
        );
    }
}

/// For each connection that a viewer made by itself, the numbers of the pictures and their times.
type Seen = Vec<Vec<(u32, u32)>>;

/// What one viewer is shown.
struct Viewer {
    stream: usize,
    number: usize,
    follows: bool,
    seen: Arc<Mutex<Seen>>,
    _task: JoinHandle<()>,
}

impl Viewer {
    fn start(stage: &Arc<Stage>, number: usize) -> Self {
        let stream = number % STREAMS;
        // As many of one kind as of the other, of each stream.
        let follows = (number / STREAMS).is_multiple_of(2);
        let seen = Arc::default();
        let (stage, kept) = (Arc::clone(stage), Arc::clone(&seen));
        let task = async move {
            while !stage.is_over() {
                let (place, error) = if follows {
                    let options = Options::player().following();
                    match Player::open(&stage.target(stream), &options).await {
                        Ok(player) => (0, watch(player, &kept).await),
                        Err(error) => (0, error),
                    }
                } else {
                    plain(&stage, stream, &kept).await
                };
                if stage.is_over() {
                    return;
                }
                if follows {
                    stage.fault(format!("viewer {number} of s{stream}: {error}"));
                } else {
                    let phase = stage.phase.load(Ordering::Relaxed);
                    println!("phase {phase}: plain viewer {number} at edge {place}: {error}");
                    let mut closed = stage.closed.lock().unwrap();
                    closed.push((phase, place, number));
                }
            }
        };
        Self {
            stream,
            number,
            follows,
            seen,
            _task: tokio::spawn(task),
        }
    }

    fn newest(&self) -> u32 {
        let seen = self.seen.lock().unwrap();
        let last = seen.last().and_then(|seen| seen.last());
        last.map_or(0, |(number, _)| *number)
    }

    /// On each connection it was shown every picture once, at its time. Gives their number.
    #[track_caller]
    fn judge(&self) -> usize {
        let seen = self.seen.lock().unwrap();
        assert!(!self.follows || seen.len() == 1, "it had one connection");
        let who = format!(
            "viewer {} of s{}, which {}",
            self.number,
            self.stream,
            if self.follows { "follows" } else { "is plain" }
        );
        for seen in seen.iter() {
            for pair in seen.windows(2) {
                let [(before, then), (after, now)] = *pair else {
                    continue;
                };
                if self.stream == PLAIN {
                    assert!(after > before, "{who} was shown {after} after {before}");
                    continue;
                }
                assert_eq!(after, before + 1, "{who} was shown {after} after {before}");
                let step = u32::try_from(PICTURE.as_millis()).unwrap();
                assert_eq!(now.wrapping_sub(then), step, "{who}: the time of {after}");
            }
        }
        seen.iter().map(Vec::len).sum()
    }
}

/// Plays as somebody who knows nothing of ReconnectRequests, until it is closed: at which edge,
/// and why.
async fn plain(stage: &Stage, stream: usize, seen: &Mutex<Seen>) -> (usize, Error) {
    let place = AtomicUsize::new(usize::MAX);
    let played = async {
        let target = stage.target(stream);
        let socket = TcpStream::connect(stage.front.addr)
            .await
            .map_err(Error::Io)?;
        let from = socket.local_addr().map_err(Error::Io)?;
        let connection = Connection::over(Box::new(socket), &target, &Options::player()).await?;
        place.store(stage.front.edge_of(from).unwrap(), Ordering::Relaxed);
        connection
            .play(target.stream()?, PlayRequest::default())
            .await
    };
    let error = match played.await {
        Ok(player) => watch(player, seen).await,
        Err(error) => error,
    };
    (place.into_inner(), error)
}

/// Writes down what it is shown until the connection ends: why.
async fn watch(mut player: Player, seen: &Mutex<Seen>) -> Error {
    let place = {
        let mut seen = seen.lock().unwrap();
        seen.push(Vec::new());
        seen.len() - 1
    };
    loop {
        let message = match player.next().await {
            Ok(Item::Message(arrival)) => arrival.message,
            Ok(_) => continue,
            Err(error) => return error,
        };
        if message.kind == MessageKind::Video && message.payload.get(1) == Some(&1) {
            let number = message.payload.get(5..9).unwrap();
            let number = u32::from_be_bytes(number.try_into().unwrap());
            seen.lock().unwrap()[place].push((number, message.time));
        }
    }
}

/// Publishes numbered pictures until the test is over.
async fn publish(stage: Arc<Stage>, stream: usize) {
    let mut options = Options::publisher();
    if stream != PLAIN {
        options = options.following();
    }
    let mut number = 0;
    let mut tries = 0;
    while !stage.is_over() {
        tries += 1;
        let published = async {
            let mut publisher = Publisher::open(&stage.target(stream), &options).await?;
            publish_on(&stage, stream, &mut publisher, &mut number).await?;
            publisher.close().await
        };
        if let Err(error) = published.await {
            if stream != PLAIN {
                stage.fault(format!("the publisher of s{stream}: {error}"));
            } else {
                println!("the plain publisher: {error}");
            }
        }
    }
    println!("s{stream} was published {tries} times and has {number} pictures");
}

async fn publish_on(
    stage: &Stage,
    stream: usize,
    publisher: &mut Publisher,
    number: &mut u32,
) -> Result<(), Error> {
    let time = |number: u32| u32::try_from(PICTURE.as_millis()).unwrap() * number;
    let config = Bytes::from_static(&[0x17, 0, 0, 0, 0, 1, 0x42, 0, 0x1f, 0xff, 0xe0, 0]);
    publisher
        .send(MessageKind::Video, time(*number), config)
        .await?;
    // Whoever comes late is shown nothing before the next key frame anyway.
    *number = number.next_multiple_of(KEY_EVERY);
    let mut due = tokio::time::interval(PICTURE);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !stage.is_over() {
        tokio::select! {
            biased;
            ended = publisher.idle() => match ended? {},
            _ = due.tick() => {}
        }
        let is_key = number.is_multiple_of(KEY_EVERY);
        let mut picture = vec![if is_key { 0x17 } else { 0x27 }, 1, 0, 0, 0];
        picture.extend(number.to_be_bytes());
        picture.resize(if is_key { 2_000 } else { 300 }, 0x5a);
        publisher
            .send(MessageKind::Video, time(*number), picture.into())
            .await?;
        // Silence: it is the same each time.
        publisher
            .send(
                MessageKind::Audio,
                time(*number),
                Bytes::from_static(&[0xaf, 1, 0x21, 0, 3]),
            )
            .await?;
        stage.sent[stream].store(*number, Ordering::Relaxed);
        *number += 1;
    }
    Ok(())
}

/// Writes to one object, one value after the other, at whichever edge takes it. Gives how many
/// writes were acknowledged.
async fn write(stage: Arc<Stage>, edges: Vec<SocketAddr>, recorder: Recorder) -> usize {
    let mut made = 0;
    let mut round = 0;
    let mut pause = tokio::time::interval(Duration::from_millis(20));
    let mut seats = (0_u32..).zip(edges.iter().cycle());
    while !stage.is_over() {
        let Some((seat, edge)) = seats.next() else {
            break;
        };
        pause.tick().await;
        let Ok(member) = Member::join_kept(*edge, "board", seat, &recorder).await else {
            continue;
        };
        while !stage.is_over() && member.over().is_none() {
            pause.tick().await;
            let answer = member.set("slot", &round.to_string()).await;
            made += usize::from(matches!(answer, Answer::Written { .. }));
            round += 1;
        }
    }
    made
}
