//! What is done for a client is one trace across all processes, as a collector of others sees
//! it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::collections::BTreeSet;
use std::net::TcpListener;

use selvage_cluster_tests::fixture::Fixture;
use selvage_cluster_tests::lab::cluster::Node;
use selvage_cluster_tests::lab::process::selvage;
use selvage_cluster_tests::lab::raw::Raw;
use selvage_cluster_tests::lab::raw::amf::Amf;
use selvage_cluster_tests::lab::raw::object::Batch;
use selvage_cluster_tests::lab::{
    Cluster, Collector, Dev, Live, PLAYER, Pace, Process, SOON, Span, Viewer, until, until_some,
};

/// A success of a write, in shared object messages.
const SUCCESS: u8 = 5;

/// Three origins and two edges that send their spans to a collector.
fn traced() -> (Collector, Cluster) {
    let collector = Collector::start();
    let config = collector.config();
    let args = ["--config", &config];
    let cluster = Cluster::start_configured(3, &args, 2, &args);
    (collector, cluster)
}

/// One origin, and two edges, of which the second lets clients say which trace they belong to.
fn half_trusting() -> (Collector, Cluster) {
    let collector = Collector::start();
    let (config, trusting) = (collector.config(), collector.config_with_clients());
    let args = ["--config", &config];
    let mut cluster = Cluster::start_configured(1, &args, 1, &args);
    let origins = [cluster.origins[0].addr];
    let trusting = ["--config", &trusting];
    cluster.edges.push(Node::edge(1, &origins, &trusting));
    (collector, cluster)
}

/// In real time, with small pictures.
fn small() -> Pace {
    Pace {
        key_bytes: 4_000,
        ..Pace::real()
    }
}

#[test]
fn a_publish_is_one_trace_and_goes_on_in_it_when_its_origin_is_killed() {
    let (collector, mut cluster) = traced();
    let live = Live::publish(cluster.edges[0].addr, "live", "a", small());
    let viewer = Viewer::play(cluster.edges[1].addr, "live", "a");
    until("the viewer watches", SOON, || viewer.count() > 10);

    // The wish, at the publisher's edge: over when it is answered, not when the stream is.
    let publish = collector.until("the wish to publish is there", |span| {
        span.name == "publish"
    });
    is(&publish, "selvage-edge", "edge-0", "SERVER");
    assert_eq!(publish.parent, "");
    assert_eq!(publish.says("selvage.stream.key"), "live/_definst_/a");
    assert_eq!(publish.says("network.protocol.name"), "rtmp");
    let epoch = publish.says("selvage.epoch").to_owned();
    assert_ne!(epoch, "");
    let claim = part(&collector, "fabric.claim", &publish);
    is(&claim, "selvage-edge", "edge-0", "CLIENT");
    decided(&collector, &claim, 3);
    let asked = part(&collector, "fabric.publish", &publish);
    is(&asked, "selvage-edge", "edge-0", "CLIENT");
    let held = part(&collector, "origin.publish", &asked);
    is(
        &held,
        "selvage-origin",
        held.says("selvage.owner"),
        "SERVER",
    );
    assert_eq!(held.says("selvage.epoch"), epoch);
    assert_eq!(held.says("selvage.edge"), "edge-0");
    let first = part(&collector, "origin.first_frame", &held);
    is(&first, "selvage-origin", &held.node, "INTERNAL");
    assert!(first.says("selvage.bytes").parse::<u64>().unwrap() > 0);

    // The viewer's wish is a trace of its own, and the two know of each other.
    let play = collector.until("the wish to play is there", |span| span.name == "play");
    is(&play, "selvage-edge", "edge-1", "SERVER");
    assert_eq!(play.parent, "");
    assert_ne!(play.trace, publish.trace);
    assert_eq!(play.says("selvage.play.media"), "true");
    assert!(
        play.is_linked_to(&held),
        "{play:?} is not linked to {held:?}"
    );
    let pulled = collector.until("the edge asks the owner", |span| {
        span.name == "fabric.subscribe"
            && span.is_part_of(&play)
            && span.says("selvage.owner") == held.node
    });
    is(&pulled, "selvage-edge", "edge-1", "CLIENT");
    let served = part(&collector, "origin.subscribe", &pulled);
    is(&served, "selvage-origin", &held.node, "SERVER");
    let notified = part(&collector, "stream.notify", &held);
    is(&notified, "selvage-edge", "edge-1", "CONSUMER");
    assert_eq!(notified.says("selvage.viewers"), "1");
    assert_eq!(notified.says("selvage.owner"), held.node);
    assert_eq!(notified.says("selvage.epoch"), epoch);
    assert!(notified.is_linked_to(&pulled), "{notified:?}");
    is_in_order(&publish, &[&claim, &asked, &held]);
    println!("{}", collector.table(&publish.trace));

    // The owner is lost.
    let owner = cluster.origins.iter().position(|one| one.id == held.node);
    cluster.origins[owner.unwrap()].process.kill();
    let again = collector.until("another origin goes on with it", |span| {
        span.name == "origin.publish" && span.trace == publish.trace && span.node != held.node
    });
    assert!(again.is_linked_to(&held), "{again:?}");
    assert_eq!(again.says("selvage.epoch"), epoch);
    let moved = collector.until("the publisher's edge asked it", |span| {
        again.is_part_of(span)
    });
    assert!(
        moved.is_part_of(&publish) && moved.is_linked_to(&held),
        "{moved:?}"
    );
    let renewed = collector.until("the viewer's edge asked it", |span| {
        span.name == "fabric.subscribe"
            && span.is_part_of(&play)
            && span.says("selvage.owner") == again.node
    });
    assert!(renewed.is_linked_to(&held), "{renewed:?}");
    let _ = part(&collector, "origin.subscribe", &renewed);
    let resumed = part(&collector, "stream.notify", &again);
    assert_eq!(resumed.node, "edge-1");
    assert_eq!(resumed.says("selvage.resumed"), "true");
    until("the viewer plays on", SOON, || {
        viewer.look(|seen| {
            let last = seen.media.last();
            last.is_some_and(|(_, last)| live.sent_lately(last, 40))
        })
    });

    let sent = live.leave();
    let over = part(&collector, "unpublish", &publish);
    is(&over, "selvage-edge", "edge-0", "SERVER");
    let frames = over.says("selvage.frames").parse::<usize>().unwrap();
    assert!(
        frames >= sent.len() / 2 && frames <= 2 * sent.len(),
        "{frames}"
    );
    assert!(over.says("selvage.duration").parse::<f64>().unwrap() > 0.0);
    assert_ne!(over.says("selvage.reason"), "");
    // The name is given back through the log, by those that are left.
    collector.until_all("the name is given back", 3 + 2, |span| {
        span.name == "raft.apply" && span.is_part_of(&claim)
    });
    println!("{}", collector.table(&publish.trace));
    println!("{}", collector.table(&play.trace));
}

#[test]
fn a_write_is_one_trace_from_its_message_to_those_who_are_told() {
    let (collector, cluster) = traced();
    let mut writer = Raw::connect(cluster.edges[0].addr, "live").unwrap();
    let mut reader = Raw::connect(cluster.edges[1].addr, "live").unwrap();
    writer.ask(&Batch::new("score", 0).use_it()).unwrap();
    reader.ask(&Batch::new("score", 0).use_it()).unwrap();
    let set = Batch::new("score", 1).set("home", &Amf::Number(1.0));
    let told = writer.ask(&set).unwrap();
    assert_eq!(told.slots(SUCCESS), ["home"]);
    reader.hear().unwrap();

    let write = collector.until("the write is there", |span| span.name == "object.write");
    is(&write, "selvage-edge", "edge-0", "SERVER");
    assert_eq!(write.parent, "");
    assert_eq!(write.says("selvage.object.key"), "live/_definst_/score");
    assert_eq!(write.says("selvage.object.operations"), "1");
    assert_eq!(
        write.says("selvage.object.version"),
        told.version.to_string()
    );
    decided(&collector, &write, 3);
    let told = collector.until_all("both edges tell of it", 2, |span| {
        span.name == "object.deliver" && span.is_part_of(&write)
    });
    for (edge, count) in [("edge-0", "1"), ("edge-1", "1")] {
        let told = told.iter().find(|span| span.node == edge).unwrap();
        is(told, "selvage-edge", edge, "CONSUMER");
        assert_eq!(told.says("selvage.subscribers"), count, "{told:?}");
    }
    let there = told.iter().find(|span| span.node == "edge-1").unwrap();
    assert!(there.says("selvage.bytes").parse::<u64>().unwrap() > 0);
    println!("{}", collector.table(&write.trace));

    // A call goes the same way, and one that there is not says so.
    writer
        .call(0, "selvage.lock", &[Amf::Null, Amf::text("score")])
        .unwrap();
    let call = collector.until("the call is there", |span| {
        span.name == "call" && span.says("rpc.method") == "selvage.lock"
    });
    is(&call, "selvage-edge", "edge-0", "SERVER");
    assert_eq!(call.status, "UNSET");
    decided(&collector, &call, 3);
    let long = "x".repeat(100);
    writer.call(0, &long, &[Amf::Null]).unwrap_err();
    let call = collector.until("the other call is there", |span| {
        span.name == "call" && span.says("rpc.method") == "_OTHER"
    });
    assert_eq!(call.says("rpc.method_original"), &long[..64]);
    assert_eq!(
        (&call.status[..], call.says("error.type")),
        ("ERROR", "not_found")
    );
}

#[test]
fn the_wait_for_a_first_frame_that_never_comes_ends_with_the_publish() {
    let (collector, cluster) = traced();
    let key = |name: &str| format!("live/_definst_/{name}");
    let publish = |edge: usize, name: &str| {
        let mut raw = Raw::connect(cluster.edges[edge].addr, "live").unwrap();
        let stream = raw.create_stream().unwrap();
        let code = raw.publish(stream, name).unwrap();
        assert_eq!(code, "NetStream.Publish.Start");
        raw
    };
    let wait = |name: &str| {
        let held = collector.until("the origin has it", |span| {
            span.name == "origin.publish" && span.says("selvage.stream.key") == key(name)
        });
        part(&collector, "origin.first_frame", &held)
    };

    // It is unpublished by a word, and by a client that is gone.
    for (name, gone) in [("quiet", false), ("gone", true)] {
        let mut raw = publish(0, name);
        if !gone {
            raw.command(0, "deleteStream", 0.0, &[Amf::Null, Amf::Number(1.0)])
                .unwrap();
        }
        let kept = (!gone).then_some(raw);
        let first = wait(name);
        is(&first, "selvage-origin", &first.node, "INTERNAL");
        assert_eq!(
            (&first.status[..], first.says("error.type")),
            ("ERROR", "unpublished"),
            "{first:?}"
        );
        assert_eq!(first.says("selvage.reason"), "unpublished");
        assert_eq!(first.says("selvage.frames"), "0");
        drop(kept);
    }

    // The edge is lost: nobody knows yet whether the publish is over.
    let _held = publish(1, "lost");
    let mut cluster = cluster;
    collector.until("the origin has it", |span| {
        span.name == "origin.publish" && span.says("selvage.stream.key") == key("lost")
    });
    cluster.edges[1].process.kill();
    let first = collector.until("the wait is over", |span| {
        span.name == "origin.first_frame" && span.says("selvage.reason") == "link_lost"
    });
    assert_eq!((&first.status[..], first.says("error.type")), ("UNSET", ""));
}

#[test]
fn a_client_says_which_trace_it_belongs_to_only_where_it_may() {
    let (collector, cluster) = half_trusting();
    let context = |trace: char, flags: &str| {
        let trace = trace.to_string().repeat(32);
        format!("00-{trace}-b7ad6b7169203331-{flags}")
    };
    let publish = |edge: usize, name: &str, contexts: &[String]| {
        let mut raw = Raw::connect(cluster.edges[edge].addr, "live").unwrap();
        for context in contexts {
            let args = [Amf::Null, Amf::text(context)];
            raw.command(0, "traceparent", 0.0, &args).unwrap();
        }
        for name in [name.to_owned(), format!("{name}-next")] {
            let stream = raw.create_stream().unwrap();
            let code = raw.publish(stream, &name).unwrap();
            assert_eq!(code, "NetStream.Publish.Start");
        }
        raw
    };
    let of = |name: &str| {
        collector.until(&format!("the publish of {name} is there"), |span| {
            let key = format!("live/_definst_/{name}");
            span.name == "publish" && span.says("selvage.stream.key") == key
        })
    };

    let _held = publish(1, "trusted", &[context('a', "01")]);
    let span = of("trusted");
    assert_eq!(span.trace, "a".repeat(32));
    assert_eq!(span.parent, "b7ad6b7169203331");
    let _ = part(&collector, "fabric.claim", &span);
    // It is said of one request, and the newest counts.
    let next = of("trusted-next");
    assert_ne!(next.trace, span.trace);
    assert_eq!(next.parent, "");
    let _held = publish(1, "newer", &[context('c', "01"), context('d', "01")]);
    assert_eq!(of("newer").trace, "d".repeat(32));
    // What is none is none.
    let broken = [context('e', "01") + "x"];
    let _held = publish(1, "broken", &broken);
    assert_eq!(of("broken").parent, "");
    // Whoever does not want to be seen is not.
    let _held = publish(1, "unseen", &[context('f', "00")]);
    let _ = of("unseen-next");
    let _held = publish(0, "stranger", &[context('b', "01")]);
    let span = of("stranger");
    assert_ne!(span.trace, "b".repeat(32));
    assert_eq!(span.parent, "");
    let spans = collector.spans();
    let odd = |span: &&Span| {
        ["b", "c", "e", "f"]
            .iter()
            .any(|c| span.trace == c.repeat(32))
    };
    let odd: Vec<_> = spans.iter().filter(odd).collect();
    assert!(odd.is_empty(), "{odd:?}");
}

#[test]
fn our_clients_begin_traces_that_go_on_where_they_may() {
    let (collector, cluster) = half_trusting();
    let client = |name: &str, args: &[&str]| {
        let mut command = selvage();
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint());
        command.args(args);
        Process::spawn(name, &command)
    };
    let film = Fixture::H264.path();
    let film = film.to_str().unwrap();
    let url = |edge: usize, name: &str| cluster.url(edge, "live", name);
    let _publisher = client("publisher", &["publish", "--loop", film, &url(1, "film")]);
    let asked = collector.until("the publisher's wish", |span| span.name == "client.publish");
    assert_eq!(
        (&asked.service[..], &asked.kind[..]),
        ("selvage-client", "CLIENT")
    );
    assert_eq!(asked.says("selvage.stream.name"), "film");
    let publish = part(&collector, "publish", &asked);
    is(&publish, "selvage-edge", "edge-1", "SERVER");
    let play = ["play", "--duration", "1", &url(1, "film")];
    client("player", &play).wait(PLAYER).well("the player");
    let asked = collector.until("the player's wish", |span| span.name == "client.play");
    let play = part(&collector, "play", &asked);
    is(&play, "selvage-edge", "edge-1", "SERVER");
    let app = |edge: usize| format!("rtmp://{}/live", cluster.edges[edge].addr);
    let set = ["so", "set", &app(1), "score", "home=1"];
    client("writer", &set).wait(PLAYER).well("the writer");
    let asked = collector.until("the writer's wish", |span| span.name == "client.write");
    assert_eq!(asked.says("selvage.object.name"), "score");
    let write = part(&collector, "object.write", &asked);
    let _ = part(&collector, "raft.apply", &write);
    let _ = part(&collector, "object.deliver", &write);

    // The other edge makes traces of its own, and is not even told.
    let play = ["play", "--duration", "1", &url(0, "film")];
    client("player", &play).wait(PLAYER).well("the player");
    let play = collector.until("the other edge's play", |span| {
        span.name == "play" && span.node == "edge-0"
    });
    assert_eq!(play.parent, "");
    let asked = collector.until_all("the second wish", 2, |span| span.name == "client.play");
    assert!(asked.iter().all(|span| span.trace != play.trace));
}

#[test]
fn people_who_talk_directly_make_spans_of_what_they_do() {
    let collector = Collector::start();
    let mut dev = Dev::start(1, 1);
    let door = dev.process.listening("edge-0", "rtmfp");
    let url = format!("rtmfp://{door}/chat");
    let comes = |name: &str, more: &[&str], traced: bool| {
        let mut command = selvage();
        if traced {
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint());
        }
        command.args(["peer", "chat", "--patience", "5"]);
        command.args(["--name", name]).args(more).arg(&url);
        let process = Process::converse(name, &command);
        let id = until_some("somebody is told the ID", SOON, || {
            let said = process.stdout();
            let id = said.lines().find_map(|line| line.strip_prefix("id "));
            id.map(str::to_owned)
        });
        (process, id)
    };
    let (quiet, ann) = comes("ann", &[], false);
    let (mut bob, id) = comes("bob", &["--connect", &ann], true);
    until("they have joined", SOON, || {
        bob.stdout().contains(&format!("joined {ann}"))
    });
    bob.say("hello");
    until("it is heard", SOON, || {
        quiet.stdout().contains("bob: hello")
    });
    let nobody = "ab".repeat(32);
    bob.say(&format!("/connect {nobody}"));
    let named = |name: &str, key: &str, value: &str| {
        collector.until(&format!("{name} of {value}"), |span| {
            span.name == name && span.says(key) == value
        })
    };
    let connected = named("client.connect", "selvage.peer.id", &id);
    is(&connected, "selvage-client", &connected.node, "CLIENT");
    assert_eq!(connected.says("server.address"), "127.0.0.1");
    assert_eq!(connected.status, "UNSET");
    let reached = named("client.reach", "selvage.peer.id", &ann);
    is(&reached, "selvage-client", &connected.node, "CLIENT");
    assert_eq!(reached.status, "UNSET");
    let sent = named("client.send", "selvage.bytes", "5");
    is(&sent, "selvage-client", &connected.node, "PRODUCER");
    assert_eq!(sent.says("selvage.peers"), "1");
    let failed = named("client.reach", "selvage.peer.id", &nobody);
    assert_eq!(failed.status, "ERROR", "{failed:?}");
    // Whose variables say nothing is not seen.
    let spans = collector.spans();
    assert!(spans.iter().all(|span| span.node == connected.node));
}

#[test]
fn a_whole_cluster_in_one_process_exports_where_the_variables_say() {
    let collector = Collector::start();
    let mut command = selvage();
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint());
    command.args(["dev", "--origins", "1", "--edges", "2"]);
    command.args(["--trace-frames", "1"]);
    command.args(["--rtmp-port", "0", "--rtmps-port", "0", "--http-port", "0"]);
    let mut dev = Process::spawn("dev", &command);
    let [near, far] = ["edge-0", "edge-1"].map(|edge| dev.listening(edge, "rtmp"));
    let live = Live::publish(near, "live", "a", small());
    let viewer = Viewer::play(far, "live", "a");
    until("the viewer watches", SOON, || viewer.count() > 10);
    let publish = collector.until("the wish to publish is there", |span| {
        span.name == "publish"
    });
    is(&publish, "selvage-dev", "dev", "SERVER");
    let claim = part(&collector, "fabric.claim", &publish);
    let _ = part(&collector, "raft.apply", &claim);
    let asked = part(&collector, "fabric.publish", &publish);
    let held = part(&collector, "origin.publish", &asked);
    is(&held, "selvage-dev", "dev", "SERVER");
    let play = collector.until("the wish to play is there", |span| span.name == "play");
    assert!(play.is_linked_to(&held), "{play:?}");
    let frame = collector.until("a frame is traced", |span| span.name == "frame");
    let written = part(&collector, "frame.viewer.write", &frame);
    assert_eq!(written.says("selvage.edge"), "edge-1");
    // What was not sent yet leaves with the end of the process.
    live.leave();
    dev.terminate();
    let _ = part(&collector, "unpublish", &publish);
}

#[test]
fn a_collector_that_is_gone_or_hangs_costs_nobody_anything() {
    // One takes connections and never says a word; at the other nobody listens.
    let hung = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let taken = hung.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for socket in hung.incoming().flatten() {
            kept.push(socket);
        }
    });
    let folder = tempfile::tempdir().unwrap();
    for (name, at) in [("gone", gone), ("hung", taken)] {
        let config = folder.path().join(name);
        std::fs::write(&config, format!("[trace]\nendpoint = \"http://{at}\"\n")).unwrap();
        let config = config.to_str().unwrap();
        let cluster = Cluster::start_configured(1, &["--config", config], 1, &["--config", config]);
        let edge = &cluster.edges[0];
        let live = Live::publish(edge.addr, "live", "a", small());
        let viewer = Viewer::play(edge.addr, "live", "a");
        let mut raw = Raw::connect(edge.addr, "live").unwrap();
        raw.ask(&Batch::new("score", 0).use_it()).unwrap();
        // So many of one client in a row are shown.
        let calls = |count: usize| {
            for _ in 0..count / 64 {
                let mut raw = Raw::connect(edge.addr, "live").unwrap();
                for _ in 0..64 {
                    raw.call(0, "nothing", &[Amf::Null]).unwrap_err();
                }
            }
        };
        // More spans than may wait, and then as many again.
        calls(40_000);
        let before = edge.process.resident();
        calls(40_000);
        let after = edge.process.resident();
        println!("{name}: {before} bytes after 40,000 spans, {after} after 80,000");
        assert!(
            after < before + (16 << 20),
            "{name}: {before} bytes, then {after}"
        );
        let mut raw = Raw::connect(edge.addr, "live").unwrap();
        raw.ask(&Batch::new("score", 0).use_it()).unwrap();
        let told = raw
            .ask(&Batch::new("score", 1).set("home", &Amf::Number(1.0)))
            .unwrap();
        assert_eq!(told.slots(SUCCESS), ["home"]);
        until("the viewer watches", SOON, || viewer.count() > 20);
        let sent = live.leave();
        viewer.until_got(sent.last().unwrap());
        viewer.judge(&sent);
    }
}

/// The span of this name whose parent is that one.
#[track_caller]
fn part(collector: &Collector, name: &str, parent: &Span) -> Span {
    let what = format!("{name} is there, a part of {}", parent.name);
    collector.until(&what, |span| span.name == name && span.is_part_of(parent))
}

#[track_caller]
fn is(span: &Span, service: &str, node: &str, kind: &str) {
    let seen = (&span.service[..], &span.node[..], &span.kind[..]);
    assert_eq!(seen, (service, node, kind), "{span:?}");
    assert!(span.times.0 <= span.times.1, "{span:?}");
}

/// A command went through the log: proposed and committed by one, written by a majority at
/// least, applied by all.
#[track_caller]
fn decided(collector: &Collector, asked: &Span, origins: usize) {
    let entry = part(collector, "ledger.propose", asked);
    is(&entry, "selvage-origin", &entry.node, "SERVER");
    let index = entry.says("selvage.raft.index").to_owned();
    let all = |name: &str, count: usize| {
        let what = format!("{count} times {name} for {}", asked.name);
        let spans = collector.until_all(&what, count, |span| {
            span.name == name && span.is_part_of(asked) && span.says("selvage.raft.index") == index
        });
        let nodes: BTreeSet<_> = spans.iter().map(|span| span.node.clone()).collect();
        assert_eq!(
            (nodes.len(), spans.len()),
            (count, count),
            "{what}: {spans:?}"
        );
        spans
    };
    let proposed = all("raft.propose", 1);
    let leader = &proposed[0].node;
    let term = proposed[0].says("selvage.raft.term");
    assert_ne!((term, &index[..]), ("", ""));
    let committed = all("raft.commit", 1);
    assert_eq!(&committed[0].node, leader);
    for written in all("raft.persist", origins) {
        is(&written, "selvage-origin", &written.node, "INTERNAL");
        assert_eq!(written.says("selvage.raft.term"), term);
        assert!(
            written
                .says("selvage.queue.duration")
                .parse::<f64>()
                .is_ok()
        );
        let role = if written.node == *leader {
            "leader"
        } else {
            "follower"
        };
        assert_eq!(written.says("selvage.raft.role"), role);
    }
    for applied in all("raft.apply", origins) {
        assert_eq!(applied.says("selvage.raft.term"), term);
    }
    if entry.node != *leader {
        let _ = part(collector, "raft.forward", &entry);
    }
}

/// Each begins within the first, and no earlier than the one before.
#[track_caller]
fn is_in_order(whole: &Span, parts: &[&Span]) {
    let mut last = whole.times.0;
    for part in parts {
        assert!(
            part.times.0 >= last && part.times.1 <= whole.times.1,
            "{part:?}"
        );
        last = part.times.0;
    }
}
