//! A name has one publisher at a time, whoever asks and wherever.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use selvage_cluster_tests::lab::cluster::Node;
use selvage_cluster_tests::lab::raw::Raw;
use selvage_cluster_tests::lab::raw::amf::Amf;
use selvage_cluster_tests::lab::{Cluster, SOON, until};

/// How many want the same name.
const RACERS: usize = 200;

/// How often everybody starts at once.
const ROUNDS: usize = 5;

const START: &str = "NetStream.Publish.Start";
const BAD_NAME: &str = "NetStream.Publish.BadName";

#[test]
fn of_200_racing_publishers_at_two_edges_one_is_accepted_and_the_rest_get_bad_name() {
    let cluster = Cluster::start(2, 2);
    let edges: Vec<_> = cluster.edges.iter().map(|edge| edge.addr).collect();
    let line = Arc::new(Barrier::new(RACERS));
    let holders = Arc::new(AtomicUsize::new(0));
    let racers: Vec<_> = (0..RACERS)
        .map(|number| {
            let (edge, line, holders) =
                (edges[number % 2], Arc::clone(&line), Arc::clone(&holders));
            std::thread::spawn(move || {
                let mut accepted = 0;
                for round in 0..ROUNDS {
                    let mut raw = Raw::connect(edge, "live").expect("the edge takes a publisher");
                    let stream = raw.create_stream().expect("the edge gives a stream");
                    line.wait();
                    let name = format!("raced{round}");
                    let code = raw.publish(stream, &name).expect("the edge answers");
                    match code.as_str() {
                        START => {
                            accepted += 1;
                            let before = holders.fetch_add(1, Ordering::SeqCst);
                            assert_eq!(before, 0, "two hold {name} at once");
                        }
                        BAD_NAME => {}
                        other => panic!("{name} was answered with {other}"),
                    }
                    // Nobody leaves before everybody has been answered.
                    if line.wait().is_leader() {
                        assert_eq!(holders.swap(0, Ordering::SeqCst), 1, "one holds {name}");
                    }
                    line.wait();
                }
                accepted
            })
        })
        .collect();
    let accepted: usize = racers
        .into_iter()
        .map(|racer| racer.join().expect("no fault"))
        .sum();
    assert_eq!(accepted, ROUNDS);
}

#[test]
fn a_name_changes_hands_and_never_has_two_holders() {
    let cluster = Cluster::start(2, 2);
    let edges: Vec<_> = cluster.edges.iter().map(|edge| edge.addr).collect();
    let holders = Arc::new(AtomicUsize::new(0));
    let changes = Arc::new(AtomicUsize::new(0));
    let goal = 40;
    let rivals: Vec<_> = (0..16)
        .map(|number| {
            let edge = edges[number % 2];
            let (holders, changes) = (Arc::clone(&holders), Arc::clone(&changes));
            std::thread::spawn(move || {
                while changes.load(Ordering::SeqCst) < goal {
                    let mut raw = Raw::connect(edge, "live").expect("the edge takes a publisher");
                    let stream = raw.create_stream().expect("the edge gives a stream");
                    match raw.publish(stream, "a").expect("the edge answers").as_str() {
                        START => {
                            let before = holders.fetch_add(1, Ordering::SeqCst);
                            assert_eq!(before, 0, "two hold the name at once");
                            changes.fetch_add(1, Ordering::SeqCst);
                            raw.send(9, stream, 0, &[0x17, 0, 0, 0, 0, 1])
                                .expect("it is open");
                            holders.fetch_sub(1, Ordering::SeqCst);
                            // Dropping the connection gives the name back.
                        }
                        code => assert_eq!(code, BAD_NAME),
                    }
                }
            })
        })
        .collect();
    rivals
        .into_iter()
        .for_each(|rival| rival.join().expect("no fault"));
}

#[test]
fn when_the_holder_leaves_the_name_is_free_at_once() {
    let cluster = Cluster::start(2, 2);
    let mut longest = Duration::ZERO;
    for (round, how) in [Leave::CloseStream, Leave::DeleteStream, Leave::Disconnect]
        .into_iter()
        .cycle()
        .take(12)
        .enumerate()
    {
        let name = format!("held{round}");
        let (here, there) = (
            cluster.edges[round % 2].addr,
            cluster.edges[(round + 1) % 2].addr,
        );
        let mut holder = Raw::connect(here, "live").unwrap();
        let stream = holder.create_stream().unwrap();
        assert_eq!(holder.publish(stream, &name).unwrap(), START);
        let mut next = Raw::connect(there, "live").unwrap();
        let next_stream = next.create_stream().unwrap();
        assert_eq!(next.publish(next_stream, &name).unwrap(), BAD_NAME);
        let left = Instant::now();
        let kept = how.act(holder, stream);
        until("the name is free", Duration::from_secs(2), || {
            let stream = next.create_stream().unwrap();
            next.publish(stream, &name).unwrap() == START
        });
        longest = longest.max(left.elapsed());
        drop(kept);
    }
    println!("a name was free {longest:?} after its holder had left, at the latest");
    assert!(longest < Duration::from_secs(1), "{longest:?}");
}

#[test]
fn an_edge_that_has_not_heard_of_every_origin_yet_does_not_give_a_held_name_away() {
    let mut cluster = Cluster::start(2, 1);
    // Of a few names, some are owned by the origin that will answer late.
    let names: Vec<String> = (0..8).map(|number| format!("held{number}")).collect();
    let holders: Vec<Raw> = names
        .iter()
        .map(|name| {
            let mut holder = Raw::connect(cluster.edges[0].addr, "live").unwrap();
            let stream = holder.create_stream().unwrap();
            assert_eq!(holder.publish(stream, name).unwrap(), START);
            holder
        })
        .collect();
    let origins: Vec<_> = cluster.origins.iter().map(|origin| origin.addr).collect();
    cluster.origins[1].process.freeze();
    let young = Node::edge(1, &origins, &[]);
    until("the new edge has a link to one origin", SOON, || {
        young.links() == 1
    });
    let mut asking: Vec<Raw> = names
        .iter()
        .map(|name| {
            let mut raw = Raw::connect(young.addr, "live").unwrap();
            let stream = raw.create_stream().unwrap();
            let args = [Amf::Null, Amf::text(name), Amf::text("live")];
            raw.command(stream, "publish", 0.0, &args).unwrap();
            raw
        })
        .collect();
    cluster.origins[1].process.thaw();
    for (name, raw) in names.iter().zip(&mut asking) {
        assert_eq!(
            raw.next_status().unwrap(),
            BAD_NAME,
            "{name} has two holders"
        );
    }
    drop(holders);
}

/// How a publisher leaves.
#[derive(Clone, Copy, Debug)]
enum Leave {
    CloseStream,
    DeleteStream,
    Disconnect,
}

impl Leave {
    /// What remains of the publisher is given back.
    fn act(self, mut holder: Raw, stream: u32) -> Option<Raw> {
        match self {
            Self::CloseStream => {
                holder
                    .command(stream, "closeStream", 0.0, &[Amf::Null])
                    .unwrap();
                Some(holder)
            }
            Self::DeleteStream => {
                let args = [Amf::Null, Amf::Number(stream.into())];
                holder.command(0, "deleteStream", 0.0, &args).unwrap();
                Some(holder)
            }
            Self::Disconnect => None,
        }
    }
}
