//! What a viewer gets is what was published: every message from the point of joining on,
//! byte for byte, with the same steps of time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::net::SocketAddr;

use selvage_cluster_tests::lab::{Cluster, Live, Pace, SOON, Viewer, until};

/// Messages in about three seconds of the stream's clock.
const A_WHILE: usize = 240;

#[test]
fn viewers_at_either_edge_get_what_was_published_wherever_they_join() {
    let cluster = Cluster::start(2, 2);
    // Several names, so that both origins own some of them.
    for name in ["a", "b", "c", "d"] {
        viewers_get_what_is_published(cluster.edges[0].addr, cluster.edges[1].addr, name);
    }
}

#[test]
fn viewers_at_either_edge_of_one_process_get_what_was_published() {
    let mut dev = selvage_cluster_tests::lab::Dev::start(2, 2);
    viewers_get_what_is_published(dev.rtmp(0), dev.rtmp(1), "a");
}

#[test]
fn the_clock_may_wrap_while_people_watch() {
    let cluster = Cluster::start(1, 2);
    let pace = Pace {
        from: u32::MAX - 2_000,
        ..Pace::default()
    };
    let live = Live::publish(cluster.edges[0].addr, "live", "a", pace);
    let viewers = [0, 1].map(|edge| Viewer::play(cluster.edges[edge].addr, "live", "a"));
    live.go_on(2 * A_WHILE);
    let late = Viewer::play(cluster.edges[1].addr, "live", "a");
    live.go_on(A_WHILE);
    let sent = live.leave();
    assert!(sent.last().unwrap().time < 100_000, "the clock has wrapped");
    for viewer in viewers.iter().chain([&late]) {
        viewer.until_got(sent.last().unwrap());
        viewer.judge(&sent);
    }
}

#[test]
fn a_second_publish_of_the_name_reaches_the_viewers_who_stayed() {
    let cluster = Cluster::start(2, 2);
    let edge = |number: usize| cluster.edges[number].addr;
    let viewers = [0, 1].map(|number| Viewer::play(edge(number), "live", "a"));
    let first = Live::publish(edge(0), "live", "a", Pace::default());
    first.go_on(A_WHILE);
    let sent = first.leave();
    for viewer in &viewers {
        viewer.until_got(sent.last().unwrap());
        viewer.judge(&sent);
        until("the viewer is told", SOON, || {
            viewer.was_told("NetStream.Play.UnpublishNotify")
        });
    }
    let second = Live::publish(
        edge(1),
        "live",
        "a",
        Pace {
            key_bytes: 20_000,
            ..Pace::default()
        },
    );
    second.go_on(A_WHILE);
    let sent = second.leave();
    for viewer in &viewers {
        viewer.until_got(sent.last().unwrap());
        assert_eq!(viewer.ended(), None);
    }
}

/// One publisher at the first edge; viewers who were there before it, and who come in
/// mid-stream, at both edges.
#[track_caller]
fn viewers_get_what_is_published(here: SocketAddr, there: SocketAddr, name: &str) {
    let early = [here, there].map(|edge| Viewer::play(edge, "live", name));
    let live = Live::publish(here, "live", name, Pace::default());
    live.go_on(A_WHILE);
    let late = [here, there].map(|edge| Viewer::play(edge, "live", name));
    live.go_on(A_WHILE);
    let later = [here, there].map(|edge| Viewer::play(edge, "live", name));
    live.go_on(A_WHILE);
    let sent = live.leave();
    let viewers = || early.iter().chain(&late).chain(&later);
    viewers().for_each(|viewer| viewer.until_got(sent.last().unwrap()));
    let joins: Vec<usize> = viewers().map(|viewer| viewer.judge(&sent)).collect();
    println!(
        "{name}: of {} messages, viewers joined at {joins:?}",
        sent.len()
    );
    assert_eq!(
        joins[..2],
        [3, 3],
        "who was there first missed the beginning"
    );
    assert!(
        joins[2..].iter().all(|join| *join > 3),
        "{joins:?}: nobody joined in mid-stream"
    );
}
