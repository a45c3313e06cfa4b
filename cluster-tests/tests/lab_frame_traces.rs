//! The way of single frames from a publisher to viewers, as a collector of others sees it: span
//! by span, without a gap, and as long as the clients say that it took.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::{Fallback, Options, Player, Publisher, Target};
use rtmp::MessageKind;
use selvage_cluster_tests::lab::cluster::Node;
use selvage_cluster_tests::lab::live::is_key;
use selvage_cluster_tests::lab::raw::{Message, Raw};
use selvage_cluster_tests::lab::{
    Cluster, Collector, Live, Pace, Process, Span, Viewer, http, until, until_some,
};
use tempfile::TempDir;

/// Spans leave a process every few seconds.
const SPANS: Duration = Duration::from_secs(30);

/// By how much spans and clients may differ, nanoseconds.
const WITHIN: i64 = 5_000_000;

/// Viewers that are watched for one frame, in one shard.
const WATCHED: usize = 8;

/// The hops of a frame, in their order.
const HOPS: [&str; 7] = [
    "frame.read",
    "frame.edge.queue",
    "frame.hop.origin",
    "frame.origin.backlog",
    "frame.hop.edge",
    "frame.edge.backlog",
    "frame.viewer.write",
];

struct Traced {
    collector: Collector,
    cluster: Cluster,
    _config: TempDir,
}

impl Traced {
    /// A cluster that sends its spans to a collector; edges trace one in so many key frames.
    fn start(origins: usize, edges: usize, every: u32) -> Self {
        let collector = Collector::start();
        let told = std::fs::read_to_string(collector.config()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("edge.toml");
        std::fs::write(&path, format!("shards = 1\n{told}frames = {every}\n")).unwrap();
        let (edge, origin) = (path.to_str().unwrap(), collector.config());
        let cluster = Cluster::start_configured(
            origins,
            &["--config", &origin],
            edges,
            &[
                "--config",
                edge,
                "--admin",
                "127.0.0.1:0",
                "--rtmfp",
                "127.0.0.1:0",
            ],
        );
        Self {
            collector,
            cluster,
            _config: folder,
        }
    }

    /// All traces of frames, and what is known of each.
    fn traces(&self) -> Vec<Trace> {
        let spans = self.collector.spans();
        let roots = spans.iter().filter(|span| span.name == "frame");
        roots
            .map(|root| Trace {
                root: root.clone(),
                spans: spans
                    .iter()
                    .filter(|span| span.is_part_of(root))
                    .cloned()
                    .collect(),
            })
            .collect()
    }
}

/// The spans of one frame.
#[derive(Clone, Debug)]
struct Trace {
    root: Span,
    spans: Vec<Span>,
}

impl Trace {
    fn named(&self, name: &str) -> impl Iterator<Item = &Span> {
        self.spans.iter().filter(move |span| span.name == name)
    }

    /// The hops that end with this one, back to the first: each begins where the one before it
    /// ended, in the same place.
    #[track_caller]
    fn back_from(&self, last: &Span) -> Vec<Span> {
        let mut way = vec![last.clone()];
        while way[0].times.0 > self.root.times.0 || way[0].name != "frame.read" {
            let next = way[0].clone();
            let place = |span: &Span| {
                let same = |key: &str| {
                    let (one, other) = (span.says(key), next.says(key));
                    one.is_empty() || other.is_empty() || one == other
                };
                // Between edge and edge lies an origin.
                let edges = next.name == "frame.origin.backlog" || same("selvage.edge");
                // What is sent again was sent to another.
                let origins = next.name == "frame.edge.resend" || same("selvage.owner");
                edges && origins && same("selvage.shard")
            };
            let mut before = self
                .spans
                .iter()
                .filter(|span| span.times.1 == next.times.0 && span.id != next.id && place(span))
                .filter(|span| span.name != next.name);
            let found = before.next();
            let found = found.unwrap_or_else(|| panic!("a gap before {next:?} in {self:#?}"));
            way.insert(0, found.clone());
        }
        way
    }

    /// All hops to a viewer whom a walk wrote to, who came by this protocol: they follow one
    /// another, and say how long it took.
    #[track_caller]
    fn way(&self, write: &Span, protocol: &str) -> Option<Vec<Span>> {
        assert_eq!(
            (write.status.as_str(), write.says("network.protocol.name")),
            ("UNSET", protocol)
        );
        let way = self.back_from(write);
        let names: Vec<_> = way.iter().map(|span| span.name.as_str()).collect();
        // Whose client spoke at that moment is written to before the walk.
        if names.len() < HOPS.len() {
            let [start @ .., _walk, write] = HOPS;
            assert_eq!(names, [&start[..], &[write]].concat());
            return None;
        }
        assert_eq!(names, HOPS);
        let to = write.says("selvage.edge");
        let owner = way[2].says("selvage.owner");
        let nodes: Vec<_> = way.iter().map(|span| span.node.as_str()).collect();
        assert_eq!(nodes, ["edge-0", "edge-0", owner, owner, to, to, to]);
        let sum: i64 = way.iter().map(|span| length(span, span)).sum();
        assert_eq!(sum, length(&self.root, write));
        let said = write.says("selvage.frame.delay_us").parse::<i64>().unwrap();
        assert_eq!(said, sum / 1000);
        Some(way)
    }

    /// The message of a publisher that it is about.
    fn frame<'a>(&self, sent: &'a [(Instant, Message)]) -> Option<&'a (Instant, Message)> {
        let bytes = self
            .root
            .says("selvage.frame.bytes")
            .parse::<usize>()
            .unwrap();
        let mut same = sent
            .iter()
            .filter(|(_, message)| is_key(message) && message.body.len() == bytes);
        // Of two frames of one length nobody knows which it is.
        same.next().filter(|_| same.next().is_none())
    }
}

/// In real time, with pictures of some kilobytes: they come in several chunks.
fn small() -> Pace {
    Pace {
        key_bytes: 12_000,
        ..Pace::real()
    }
}

/// From the publisher's socket to the viewer, as the clients saw it, nanoseconds.
fn took(viewer: &Viewer, frame: &(Instant, Message)) -> Option<i64> {
    viewer.look(|seen| {
        let mut got = seen.media.iter();
        let (at, _) = got.find(|(_, got)| got.body == frame.1.body)?;
        i64::try_from(at.duration_since(frame.0).as_nanos()).ok()
    })
}

fn length(from: &Span, to: &Span) -> i64 {
    i64::try_from(to.times.1 - from.times.0).unwrap()
}

fn middle(mut values: Vec<i64>) -> i64 {
    values.sort_unstable();
    values[values.len() / 2]
}

#[test]
fn the_spans_of_a_frame_join_without_a_gap_and_take_as_long_as_it_did() {
    let traced = Traced::start(2, 2, 1);
    let edges = [traced.cluster.edges[0].addr, traced.cluster.edges[1].addr];
    let live = Live::publish(edges[0], "live", "a", small());
    let viewer = Viewer::play(edges[1], "live", "a");
    let crowd: Vec<_> = (0..WATCHED * 2)
        .map(|_| Viewer::play(edges[0], "live", "a"))
        .collect();
    until("everybody watches", SPANS, || {
        viewer.count() > 40 && crowd.iter().all(|viewer| viewer.count() > 40)
    });
    let from = live.count();
    live.go_on(10 * 80);
    let sent = live.sent_when();
    let keys = sent[from..sent.len() - 100]
        .iter()
        .filter(|(_, message)| is_key(message))
        .count();
    assert!(keys >= 5, "{keys} key frames");

    // The last that are complete, and nobody joins meanwhile.
    let traces = until_some("the traces of all key frames are there", SPANS, || {
        let mut traces = traced.traces();
        traces.retain(|trace| {
            let began = trace.frame(&sent[from..]).is_some();
            began && trace.named("frame.viewer.write").count() == WATCHED + 1
        });
        (traces.len() >= keys - 1).then_some(traces)
    });
    let (mut differ, mut walked) = (Vec::new(), Vec::new());
    for trace in &traces {
        let root = &trace.root;
        assert_eq!(root.says("selvage.stream.key"), "live/_definst_/a");
        assert_eq!((root.node.as_str(), root.parent.as_str()), ("edge-0", ""));
        assert_eq!(root.links.len(), 1, "its publish: {root:?}");
        for write in trace.named("frame.viewer.write") {
            let Some(way) = trace.way(write, "rtmp") else {
                continue;
            };
            let to = write.says("selvage.edge");
            let sum = length(root, write);
            if to == "edge-1" {
                let frame = trace.frame(&sent).expect("it was sent");
                let took = took(&viewer, frame).expect("the viewer has it");
                println!(
                    "{} us in spans, {} us between clients",
                    sum / 1000,
                    took / 1000
                );
                differ.push(took - sum);
                walked.push(length(root, &way[5]));
            }
        }
    }
    assert!(differ.len() * 2 > traces.len(), "most come by a walk");
    assert!(differ.iter().all(|differ| *differ > -WITHIN), "{differ:?}");
    let middle_differ = middle(differ);
    assert!(middle_differ.abs() < WITHIN, "{middle_differ} ns");

    // The histogram counts the oldest frame of every batch, which a key frame of Live's is.
    let (_, page) = http::get(traced.cluster.edges[1].http, "/metrics").unwrap();
    let figure = |name: &str| {
        let name = format!("selvage_media_delivery_seconds_{name} ");
        let mut lines = page.lines();
        let value = lines
            .find_map(|line| line.strip_prefix(&name))
            .expect("a figure");
        value.parse::<f64>().unwrap()
    };
    let mean_ms = figure("sum") / figure("count") * 1e3;
    let traced_ms = middle(walked) as f64 / 1e6;
    println!("delivery {mean_ms} ms in metrics, {traced_ms} ms in traces");
    assert!((mean_ms - traced_ms).abs() < 15.0, "{mean_ms} {traced_ms}");
}

/// Pictures of a publisher by RTMFP, and between key frames.
const PICTURES: usize = 200;
const KEY_EVERY: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_rtmfp_the_spans_of_a_frame_join_and_take_as_long_as_it_did() {
    let mut traced = Traced::start(2, 2, 1);
    let target = |edge: &mut Node| -> Target {
        let id = edge.id.clone();
        let addr = edge.process.listening(&id, "rtmfp");
        format!("rtmfp://{addr}/live/a").parse().unwrap()
    };
    let targets = traced.cluster.edges.iter_mut().map(target);
    let [near, far] = &targets.collect::<Vec<_>>()[..] else {
        panic!("two edges")
    };
    let only = |options: Options| options.with_fallback(Fallback::Never);
    let mut player = Player::open(far, &only(Options::player())).await.unwrap();
    let got = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&got);
    tokio::spawn(async move {
        while let Ok(Some(arrival)) = player.next_message().await {
            let mut kept = kept.lock().unwrap();
            kept.push((arrival.at, arrival.message.payload));
        }
    });
    let options = only(Options::publisher());
    let mut publisher = Publisher::open(near, &options).await.unwrap();
    let avc = Bytes::from_static(&[0x17, 0, 0, 0, 0, 1, 2, 3, 4]);
    publisher.send(MessageKind::Video, 0, avc).await.unwrap();
    let mut sent = Vec::new();
    let mut due = tokio::time::interval(Duration::from_millis(40));
    for (number, time) in (0..PICTURES).zip((0..).step_by(40)) {
        tokio::select! {
            biased;
            ended = publisher.idle() => match ended.unwrap() {},
            _ = due.tick() => {}
        }
        let is_key = number % KEY_EVERY == 0;
        let mut picture = vec![if is_key { 0x17 } else { 0x27 }, 1, 0, 0, 0];
        // No two key frames have one length.
        picture.resize(if is_key { 12_000 + number } else { 1_200 }, 0x5a);
        let picture = Bytes::from(picture);
        sent.push((Instant::now(), picture.clone()));
        let done = publisher.send(MessageKind::Video, time, picture).await;
        done.unwrap();
    }
    publisher.flush().await.unwrap();

    // The viewer may have come to the first key frame when it was there already.
    let keys = PICTURES / KEY_EVERY - 1;
    let find = || {
        let mut traces = traced.traces();
        traces.retain(|trace| trace.named("frame.viewer.write").count() == 1);
        (traces.len() >= keys).then_some(traces)
    };
    let traces = until_some("the traces of all key frames are there", SPANS, find);
    let mut differ = Vec::new();
    for trace in &traces {
        let write = trace.named("frame.viewer.write").next().unwrap();
        let Some(way) = trace.way(write, "rtmfp") else {
            continue;
        };
        let length_of = |span: &Span| span.says("selvage.frame.bytes").parse::<usize>().unwrap();
        let of = length_of(&trace.root);
        let (began, frame) = sent.iter().find(|(_, it)| it.len() == of).unwrap();
        let got = got.lock().unwrap();
        let (ended, _) = got.iter().find(|(_, it)| it == frame).unwrap();
        let took = i64::try_from(ended.duration_since(*began).as_nanos()).unwrap();
        let sum = length(&trace.root, write);
        let hops: Vec<_> = way.iter().map(|span| length(span, span) / 1000).collect();
        println!(
            "{} us in spans {hops:?}, {} us between clients",
            sum / 1000,
            took / 1000
        );
        differ.push(took - sum);
    }
    publisher.close().await.unwrap();
    assert!(differ.len() * 2 > traces.len(), "most come by a walk");
    assert!(differ.iter().all(|differ| *differ > -WITHIN), "{differ:?}");
    let middle_differ = middle(differ);
    assert!(middle_differ.abs() < WITHIN, "{middle_differ} ns");
}

#[test]
fn a_trace_goes_on_with_a_link_when_the_owner_is_lost() {
    let mut traced = Traced::start(3, 2, 1);
    let edges = [traced.cluster.edges[0].addr, traced.cluster.edges[1].addr];
    let live = Live::publish(edges[0], "live", "a", small());
    let viewer = Viewer::play(edges[1], "live", "a");
    until("the viewer watches", SPANS, || viewer.count() > 100);
    let whole = |trace: &Trace| trace.named("frame.viewer.write").next().cloned();
    let before = until_some("a frame is traced", SPANS, || {
        traced
            .traces()
            .into_iter()
            .find(|trace| whole(trace).is_some())
    });
    let lost = before.back_from(&whole(&before).unwrap())[2]
        .says("selvage.owner")
        .to_owned();
    let owner = traced
        .cluster
        .origins
        .iter_mut()
        .find(|origin| origin.id == lost)
        .unwrap();

    // It takes frames, and nothing comes of them.
    owner.process.freeze();
    let frozen = live.count();
    live.go_on(100);
    owner.process.kill();
    let killed = live.count();
    let lost_keys = |sent: &[(Instant, Message)]| -> Vec<(Instant, Message)> {
        let lost = sent[frozen + 10..killed - 10].iter();
        lost.filter(|(_, message)| is_key(message))
            .cloned()
            .collect()
    };
    assert!(!lost_keys(&live.sent_when()).is_empty());
    live.go_on(300);
    viewer.until_got(&live.sent().pop().unwrap());

    let sent = live.sent_when();
    let again = until_some(
        "a frame that was lost is traced to its viewer",
        SPANS,
        || {
            let mut traces = traced.traces().into_iter();
            traces.find(|trace| {
                trace.frame(&lost_keys(&sent)).is_some()
                    && trace.named("frame.edge.resend").next().is_some()
                    && whole(trace).is_some()
            })
        },
    );
    let write = whole(&again).unwrap();
    let way = again.back_from(&write);
    let names: Vec<_> = way.iter().map(|span| span.name.as_str()).collect();
    let [first, second, rest @ ..] = HOPS;
    assert_eq!(
        names,
        [&[first, second, "frame.edge.resend"], &rest[..]].concat()
    );
    assert!(way[2].is_linked_to(&way[1]), "{:?}", way[2]);
    assert_eq!(way[1].says("selvage.owner"), lost);
    let heir = way[2].says("selvage.owner").to_owned();
    assert_ne!(heir, lost);
    assert_eq!(way[3].node, heir);
    let frame = again.frame(&sent).expect("it was sent");
    let (sum, took) = (length(&again.root, &write), took(&viewer, frame).unwrap());
    println!(
        "{} us in spans, {} us between clients",
        sum / 1000,
        took / 1000
    );
    assert!((took - sum).abs() < WITHIN, "{sum} {took}");

    // The first frame that only the new owner has had names the last one of the old.
    let next = until_some("a new frame is traced", SPANS, || {
        let mut traces = traced.traces().into_iter();
        traces.find(|trace| trace.root.says("selvage.publish.reattached") == "true")
    });
    let linked = traced
        .traces()
        .into_iter()
        .find(|trace| next.root.is_linked_to(&trace.root));
    let linked = linked.expect("it is linked to a frame before it");
    assert!(linked.root.times < next.root.times);
}

#[test]
fn an_operator_follows_the_next_frames_of_a_stream() {
    let mut traced = Traced::start(1, 2, 0);
    let addr = traced.cluster.edges[0].addr;
    let heavy = Pace {
        every: Duration::from_millis(20),
        key_bytes: 300_000,
        ..Pace::default()
    };
    let live = Live::publish(addr, "live", "a", heavy);
    let viewer = Viewer::play(addr, "live", "a");
    // One that takes nothing is as far behind as its buffers allow.
    let mut stalled = Raw::connect(addr, "live").unwrap();
    let stream = stalled.create_stream().unwrap();
    assert_eq!(stalled.play(stream, "a").unwrap(), "NetStream.Play.Start");
    until("the viewer watches", SPANS, || viewer.count() > 1_500);
    assert!(traced.traces().is_empty(), "nobody asked");

    let admin = |traced: &mut Traced, edge: usize| {
        let id = traced.cluster.edges[edge].id.clone();
        traced.cluster.edges[edge]
            .process
            .listening(&id, "admin")
            .to_string()
    };
    let at = admin(&mut traced, 0);
    let ask = |stream: &str, frames: &str, at: &str| {
        let args = ["trace", stream, "--frames", frames, "--admin", at];
        Process::selvage("trace", args).wait(SPANS)
    };
    let told = ask("live/a", "6", &at).well("trace");
    let numbers: Vec<_> = told.stdout.lines().map(str::to_owned).collect();
    assert_eq!(numbers.len(), 6, "{}", told.stdout);
    let traces = until_some("the frames are traced", SPANS, || {
        let traces = traced.traces();
        let written = |trace: &&Trace| trace.named("frame.viewer.write").count() >= 1;
        let stuck = traces.iter().flat_map(|trace| &trace.spans);
        let stuck = stuck.filter(|span| span.status == "ERROR").count();
        (traces.iter().filter(written).count() == 6 && stuck > 0).then_some(traces)
    });
    let mut found: Vec<_> = traces
        .iter()
        .map(|trace| trace.root.trace.clone())
        .collect();
    let mut numbers = numbers;
    found.sort();
    numbers.sort();
    assert_eq!(found, numbers);
    let mut lagging = traces.iter().flat_map(|trace| &trace.spans);
    let lagging = lagging.find(|span| span.status == "ERROR").unwrap();
    assert_eq!(lagging.name, "frame.viewer.write");

    live.go_on(200);
    assert_eq!(traced.traces().len(), 6, "no more than were asked for");
    let elsewhere = admin(&mut traced, 1);
    let unknown = ask("live/a", "1", &elsewhere);
    assert_eq!(unknown.status.code(), Some(1), "{}", unknown.stderr);
    assert!(
        unknown.stderr.contains("not published at edge-1"),
        "{}",
        unknown.stderr
    );
    let none = ask("live/a", "0", &at);
    assert!(none.stderr.contains("1 to 100"), "{}", none.stderr);
}
