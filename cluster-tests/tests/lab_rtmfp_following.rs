//! Clients by RTMFP follow a ReconnectRequest from an edge that drains to another, and lose and
//! double nothing, neither as publishers nor as viewers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::{Error, Fallback, Item, Options, Player, Publisher, Scheme, Target};
use rtmp::MessageKind;
use selvage_cluster_tests::lab::cluster::Node;
use selvage_cluster_tests::lab::{SOON, ports, until, until_async};
use tokio::task::JoinHandle;

/// Who come by RTMFP. As many come by RTMP, of the same stream.
const VIEWERS: usize = 12;

/// From picture to picture, on both clocks.
const PICTURE: Duration = Duration::from_millis(40);

/// Pictures between key frames.
const KEY_EVERY: u32 = 10;

/// Of a key frame, bytes: so many packets that sounds overtake it.
const KEY_BYTES: usize = 60_000;

/// How long clients may stay at an edge that drains.
const GRACE: Duration = Duration::from_secs(8);

/// What all clients share.
struct Stage {
    edges: Vec<[SocketAddr; 2]>,
    /// The number of the picture that the stream is at.
    sent: AtomicU32,
    over: AtomicBool,
}

impl Stage {
    /// Both edges, the first one first.
    fn targets(&self, scheme: Scheme) -> Vec<Target> {
        let urls = self.edges.iter().map(|[rtmp, rtmfp]| {
            if scheme == Scheme::Rtmfp {
                format!("rtmfp://{rtmfp}/live/a")
            } else {
                format!("rtmp://{rtmp}/live/a")
            }
        });
        urls.map(|url| url.parse().expect("an address")).collect()
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// A client that goes from edge to edge as it is asked, and never another way than the one it
/// came by.
fn following(options: Options, others: &[Target]) -> Options {
    let options = options.with_fallback(Fallback::Never).following();
    options.with_others(others.iter().cloned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_by_rtmfp_follow_from_edge_to_edge_and_lose_and_double_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("edge.toml");
    std::fs::write(&config, format!("drain_grace = \"{}s\"\n", GRACE.as_secs())).unwrap();
    let (origin, mut edges) = nodes(config.to_str().unwrap());
    let at = |edge: &mut Node| {
        let id = edge.id.clone();
        [edge.addr, edge.process.listening(&id, "rtmfp")]
    };
    let stage = Arc::new(Stage {
        edges: edges.iter_mut().map(at).collect(),
        sent: AtomicU32::new(0),
        over: AtomicBool::new(false),
    });
    let publisher = tokio::spawn(publish(Arc::clone(&stage)));
    until_async("it publishes", SOON, || {
        stage.sent.load(Ordering::Relaxed) > KEY_EVERY
    })
    .await;
    let viewers: Vec<_> = (0..VIEWERS)
        .flat_map(|_| [Scheme::Rtmfp, Scheme::Rtmp])
        .map(|scheme| Viewer::start(&stage, scheme))
        .collect();
    let reach = async |what: &str, number: u32| {
        until_async(what, SOON, || {
            viewers.iter().all(|viewer| viewer.newest() >= number)
        })
        .await;
    };
    reach("all watch", 1).await;

    // Away from the first, and from the second back to it.
    for edge in &mut edges {
        let asked = Instant::now();
        edge.process.terminate();
        until_async("it has ended", GRACE * 2, || edge.process.ended().is_some()).await;
        let took = asked.elapsed();
        println!("{} ended after {took:?}", edge.id);
        assert!(took < GRACE, "somebody stayed at {}: {took:?}", edge.id);
        let now = stage.sent.load(Ordering::Relaxed);
        reach("all watch elsewhere", now + KEY_EVERY).await;
        edge.start_again();
        until_async("it is ready again", SOON, || edge.is_ready()).await;
        until_async("it has its link", SOON, || edge.links() == 1).await;
    }

    stage.over.store(true, Ordering::Relaxed);
    let (sent, scheme) = publisher.await.expect("the publisher does not panic");
    assert_eq!(scheme, Scheme::Rtmfp);
    reach("all have seen the end", sent - 1).await;
    let mut all = [0, 0];
    let mut faults = Vec::new();
    for (number, viewer) in viewers.iter().enumerate() {
        let [pictures, sounds] = viewer.judge(number, &mut faults);
        all = [all[0] + pictures, all[1] + sounds];
    }
    assert!(faults.is_empty(), "{faults:#?}");
    println!(
        "{sent} pictures sent, {} and {} sounds at {} viewers",
        all[0],
        all[1],
        viewers.len()
    );
    drop(origin);
}

fn nodes(config: &str) -> (Node, Vec<Node>) {
    let addrs = ports::free(1);
    let origin = Node::founding(0, &addrs, &[]);
    until("the origin is ready", SOON, || origin.is_ready());
    let edge = |number: usize| {
        let rtmfp = ports::free(1)[0].to_string();
        let args = ["--config", config, "--rtmfp", &rtmfp];
        Node::lasting_edge(number, &[origin.addr], &args)
    };
    let edges: Vec<_> = (0..2).map(edge).collect();
    for edge in &edges {
        until("every edge is ready", SOON, || edge.is_ready());
        until("every edge has its link", SOON, || edge.links() == 1);
    }
    (origin, edges)
}

/// Numbers and times.
type Seen = Vec<(u32, u32)>;

struct Viewer {
    scheme: Scheme,
    /// Pictures and sounds.
    seen: Arc<Mutex<[Seen; 2]>>,
    error: Arc<Mutex<Option<String>>>,
    _task: JoinHandle<()>,
}

impl Viewer {
    fn start(stage: &Arc<Stage>, scheme: Scheme) -> Self {
        let seen = Arc::<Mutex<[Seen; 2]>>::default();
        let error = Arc::<Mutex<Option<String>>>::default();
        let targets = stage.targets(scheme);
        let (kept, told) = (Arc::clone(&seen), Arc::clone(&error));
        let task = async move {
            let [first, others @ ..] = &targets[..] else {
                return;
            };
            let options = following(Options::player(), others);
            let error: Error = match Player::open(first, &options).await {
                Ok(player) => watch(player, &kept).await,
                Err(error) => error,
            };
            *told.lock().unwrap() = Some(error.to_string());
        };
        Self {
            scheme,
            seen,
            error,
            _task: tokio::spawn(task),
        }
    }

    #[track_caller]
    fn newest(&self) -> u32 {
        let error = self.error.lock().unwrap().clone();
        assert_eq!(error, None, "a viewer by {:?}", self.scheme);
        let [pictures, _] = &*self.seen.lock().unwrap();
        pictures.last().map_or(0, |(number, _)| *number)
    }

    /// It was shown every picture and told every sound once, in their order and at their times:
    /// where not. Gives their numbers.
    #[track_caller]
    fn judge(&self, viewer: usize, faults: &mut Vec<String>) -> [usize; 2] {
        let seen = self.seen.lock().unwrap();
        let step = u32::try_from(PICTURE.as_millis()).unwrap();
        for (what, seen) in ["picture", "sound"].iter().zip(&*seen) {
            for pair in seen.windows(2) {
                let [(before, then), (after, now)] = *pair else {
                    continue;
                };
                if after != before + 1 || now.wrapping_sub(then) != step {
                    let scheme = self.scheme;
                    faults.push(format!(
                        "viewer {viewer} by {scheme:?} had {what} {after} at {now} ms after \
                         {before} at {then} ms"
                    ));
                }
            }
        }
        let counts = seen.each_ref().map(Vec::len);
        assert!(counts[1] > 100, "{counts:?}");
        counts
    }
}

/// Writes down what it is shown until the connection ends: why.
async fn watch(mut player: Player, seen: &Mutex<[Seen; 2]>) -> Error {
    loop {
        let message = match player.next().await {
            Ok(Item::Message(arrival)) => arrival.message,
            Ok(_) => continue,
            Err(error) => return error,
        };
        let kinds = [MessageKind::Video, MessageKind::Audio];
        let Some(place) = kinds.iter().position(|kind| *kind == message.kind) else {
            continue;
        };
        if message.payload.get(1) == Some(&1) {
            let number = message.payload.get(5..9).unwrap();
            let number = u32::from_be_bytes(number.try_into().unwrap());
            seen.lock().unwrap()[place].push((number, message.time));
        }
    }
}

/// Publishes numbered pictures and sounds until the test is over: how many, and how it was
/// carried in the end.
async fn publish(stage: Arc<Stage>) -> (u32, Scheme) {
    let targets = stage.targets(Scheme::Rtmfp);
    let options = following(Options::publisher(), &targets[1..]);
    let mut publisher = Publisher::open(&targets[0], &options).await.unwrap();
    let step = u32::try_from(PICTURE.as_millis()).unwrap();
    let avc = Bytes::from_static(&[0x17, 0, 0, 0, 0, 1, 0x42, 0, 0x1f, 0xff, 0xe0, 0]);
    let aac = Bytes::from_static(&[0xaf, 0, 0x12, 0x10]);
    publisher.send(MessageKind::Video, 0, avc).await.unwrap();
    publisher.send(MessageKind::Audio, 0, aac).await.unwrap();
    let mut due = tokio::time::interval(PICTURE);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut number = 0;
    while !stage.is_over() {
        tokio::select! {
            biased;
            ended = publisher.idle() => match ended.unwrap() {},
            _ = due.tick() => {}
        }
        let is_key = number % KEY_EVERY == 0;
        let mut picture = vec![if is_key { 0x17 } else { 0x27 }, 1, 0, 0, 0];
        picture.extend(u32::to_be_bytes(number));
        picture.resize(if is_key { KEY_BYTES } else { 300 }, 0x5a);
        let mut sound = vec![0xaf, 1, 0x21, 0, 3];
        sound.extend(u32::to_be_bytes(number));
        for (kind, body) in [(MessageKind::Video, picture), (MessageKind::Audio, sound)] {
            let sent = publisher.send(kind, number * step, body.into()).await;
            sent.unwrap();
        }
        stage.sent.store(number, Ordering::Relaxed);
        number += 1;
    }
    publisher.flush().await.unwrap();
    let scheme = publisher.connection().scheme();
    publisher.close().await.unwrap();
    (number, scheme)
}
