//! The loss of an origin is a pause for its streams, not the end of anybody's connection.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::time::{Duration, Instant};

use selvage_cluster_tests::lab::live::is_key;
use selvage_cluster_tests::lab::raw::Message;
use selvage_cluster_tests::lab::{Cluster, Live, Pace, Viewer, until, until_some};

/// How many watch.
const VIEWERS: usize = 50;

/// How long the pictures may stand still. What an operator would call a hiccup.
const LONGEST_GAP: Duration = Duration::from_secs(10);

/// In real time, with small pictures: fifty viewers keep everything they get.
fn small() -> Pace {
    Pace {
        key_bytes: 4_000,
        ..Pace::real()
    }
}

#[test]
fn fifty_viewers_play_on_when_the_owning_origin_is_killed() {
    let mut cluster = Cluster::start(2, 2);
    let edges = [cluster.edges[0].addr, cluster.edges[1].addr];
    let live = Live::publish(edges[0], "live", "a", small());
    let viewers: Vec<Viewer> = (0..VIEWERS)
        .map(|number| Viewer::play(edges[number % 2], "live", "a"))
        .collect();
    until("everybody watches", Duration::from_secs(20), || {
        viewers.iter().all(|viewer| viewer.count() > 40)
    });

    let owner = owner_of(&cluster, "a");
    let killed = Instant::now();
    cluster.origins[owner].process.kill();
    println!("killed origin-{owner}");

    // Everybody is to see what is sent long after the kill.
    let plays_on = |viewer: &Viewer| {
        viewer.look(|seen| {
            assert_eq!(seen.ended, None, "a viewer's connection was closed");
            let Some((at, last)) = seen.media.last() else {
                return false;
            };
            at.duration_since(killed) > LONGEST_GAP / 4 && live.sent_lately(last, 40)
        })
    };
    until("everybody plays on", LONGEST_GAP * 3, || {
        assert!(!live.is_over(), "the publisher's connection was closed");
        viewers.iter().all(plays_on)
    });
    live.go_on(100);
    let sent = live.leave();
    let mut longest = Duration::ZERO;
    let mut missed_most = 0;
    for viewer in &viewers {
        viewer.until_got(sent.last().unwrap());
        assert_eq!(viewer.ended(), None, "a viewer's connection was closed");
        longest = longest.max(viewer.look(|seen| longest_gap(&seen.media)));
        viewer.look(|seen| is_in_order(&seen.media, &sent));
        missed_most = missed_most.max(viewer.look(|seen| missed(&seen.media, &sent)));
    }
    println!(
        "kill -9 of the owning origin with {VIEWERS} viewers: the longest gap was {} ms, \
         the most messages missed by a viewer were {missed_most}",
        longest.as_millis()
    );
    assert!(longest < LONGEST_GAP, "{longest:?}");
    assert_eq!(missed_most, 0, "the publisher's edge repeats what was lost");
}

#[test]
fn an_origin_that_leaves_in_good_order_hands_its_streams_over() {
    let mut cluster = Cluster::start(2, 2);
    let edges = [cluster.edges[0].addr, cluster.edges[1].addr];
    let live = Live::publish(edges[0], "live", "a", small());
    let viewers = edges.map(|edge| Viewer::play(edge, "live", "a"));
    until("both watch", Duration::from_secs(20), || {
        viewers.iter().all(|viewer| viewer.count() > 40)
    });
    let owner = owner_of(&cluster, "a");
    cluster.origins[owner].process.terminate();
    until("the origin is gone", Duration::from_secs(60), || {
        cluster.origins[owner].process.ended().is_some()
    });
    assert_eq!(
        cluster.origins[owner].process.ended().unwrap().code(),
        Some(0)
    );
    live.go_on(100);
    let sent = live.leave();
    for viewer in &viewers {
        viewer.until_got(sent.last().unwrap());
        assert_eq!(viewer.ended(), None, "a viewer's connection was closed");
        let longest = viewer.look(|seen| longest_gap(&seen.media));
        println!("the longest gap was {} ms", longest.as_millis());
        assert!(longest < LONGEST_GAP, "{longest:?}");
        viewer.judge(&sent);
    }
}

#[test]
fn viewers_stay_when_no_origin_is_left_and_play_on_when_one_is_back() {
    let mut cluster = Cluster::start(1, 2);
    let edges = [cluster.edges[0].addr, cluster.edges[1].addr];
    let live = Live::publish(edges[0], "live", "a", small());
    let viewers = edges.map(|edge| Viewer::play(edge, "live", "a"));
    until("both watch", Duration::from_secs(20), || {
        viewers.iter().all(|viewer| viewer.count() > 40)
    });
    // Frozen, not killed: a new process could not have the same port for sure.
    cluster.origins[0].process.freeze();
    let before = live.count();
    until(
        "some time passes at the publisher",
        Duration::from_secs(20),
        || live.count() > before + 100,
    );
    cluster.origins[0].process.thaw();
    live.go_on(100);
    let sent = live.leave();
    for viewer in &viewers {
        viewer.until_got(sent.last().unwrap());
        assert_eq!(viewer.ended(), None, "a viewer's connection was closed");
    }
}

#[test]
fn an_edge_that_is_killed_takes_only_its_own_people_with_it() {
    let mut cluster = Cluster::start(2, 2);
    let edges = [cluster.edges[0].addr, cluster.edges[1].addr];
    let live = Live::publish(edges[0], "live", "a", small());
    let stays = Viewer::play(edges[0], "live", "a");
    let goes = Viewer::play(edges[1], "live", "a");
    until("both watch", Duration::from_secs(20), || {
        stays.count() > 40 && goes.count() > 40
    });
    cluster.edges[1].process.kill();
    until("its viewer is gone", Duration::from_secs(20), || {
        goes.ended().is_some()
    });
    live.go_on(100);
    let sent = live.leave();
    stays.until_got(sent.last().unwrap());
    stays.judge(&sent);
}

/// Which origin has granted the stream, by what it says in its log.
#[track_caller]
fn owner_of(cluster: &Cluster, name: &str) -> usize {
    let stream = format!("live/_definst_/{name}");
    until_some(
        "an origin says that it owns the stream",
        Duration::from_secs(5),
        || {
            cluster.origins.iter().position(|origin| {
                let log = origin.process.stderr();
                log.lines()
                    .any(|line| line.contains("granted") && line.contains(&stream))
            })
        },
    )
}

/// The longest time between two messages.
fn longest_gap(media: &[(Instant, Message)]) -> Duration {
    let steps = media
        .windows(2)
        .map(|two| two[1].0.duration_since(two[0].0));
    steps.max().unwrap_or_default()
}

/// From the first picture on, nothing came twice, nothing before what was sent earlier,
/// nothing that was never sent.
#[track_caller]
fn is_in_order(media: &[(Instant, Message)], sent: &[Message]) {
    let first = media.iter().position(|(_, message)| is_key(message));
    let mut after = 0;
    for (number, (_, message)) in media.iter().enumerate().skip(first.unwrap_or(0)) {
        let place = sent[after..]
            .iter()
            .position(|sent| (sent.kind, &sent.body) == (message.kind, &message.body));
        let place = place.unwrap_or_else(|| {
            let place = sent.iter().position(|sent| sent.body == message.body);
            panic!("message {number} is {place:?} of what was sent, and came behind {after}")
        });
        after += place + 1;
    }
}

/// How many messages behind the first key frame a viewer did not get.
fn missed(media: &[(Instant, Message)], sent: &[Message]) -> usize {
    let first = media.iter().find(|(_, message)| is_key(message));
    let first = first.and_then(|(_, key)| sent.iter().position(|message| message.body == key.body));
    let Some(first) = first else {
        return sent.len();
    };
    let got: std::collections::BTreeSet<&[u8]> =
        media.iter().map(|(_, message)| &message.body[..]).collect();
    sent[first..]
        .iter()
        .filter(|message| !got.contains(&message.body[..]))
        .count()
}
