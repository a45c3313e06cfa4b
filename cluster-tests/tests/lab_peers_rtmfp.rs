//! RTMFP clients at real edges are introduced to one another, at whichever edges they are.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use selvage_cluster_tests::lab::cluster::Node;
use selvage_cluster_tests::lab::datagrams::Datagrams;
use selvage_cluster_tests::lab::raw::Raw;
use selvage_cluster_tests::lab::raw::amf::Amf;
use selvage_cluster_tests::lab::{Cluster, SOON};

/// How soon a change is known everywhere.
const KNOWN: Duration = Duration::from_secs(2);

/// The longest time that one client is waited for before the next has its turn.
const TURN: Duration = Duration::from_millis(2);

fn rtmfp(edge: &mut Node) -> SocketAddr {
    let id = edge.id.clone();
    edge.process.listening(&id, "rtmfp")
}

fn doors(cluster: &mut Cluster) -> Vec<SocketAddr> {
    cluster.edges.iter_mut().map(rtmfp).collect()
}

/// Lets both go on until each has a session with the other. Says how long that took; nothing
/// when it took longer than `patience`.
fn meet(a: &mut Datagrams, b: &mut Datagrams, patience: Duration) -> Option<Duration> {
    let started = Instant::now();
    let (ids, at) = (
        (a.peer_id(), b.peer_id()),
        (a.local_addr().unwrap(), b.local_addr().unwrap()),
    );
    while started.elapsed() < patience {
        a.turn(TURN).unwrap();
        b.turn(TURN).unwrap();
        let met = (a.is_talking_with(&ids.1), b.is_talking_with(&ids.0));
        if let (Some(there), Some(here)) = met {
            assert_eq!((here, there), at, "they talk directly");
            return Some(started.elapsed());
        }
    }
    None
}

/// As [`meet`], asking anew again and again, as somebody does who waits for a peer to come.
#[track_caller]
fn meet_at_last(a: &mut Datagrams, b: &mut Datagrams, via: SocketAddr) -> Duration {
    let (started, peer) = (Instant::now(), b.peer_id());
    while started.elapsed() < SOON {
        a.seek(&peer, via);
        if meet(a, b, Duration::from_millis(700)).is_some() {
            return started.elapsed();
        }
    }
    panic!("they were not introduced in {SOON:?}");
}

#[test]
fn clients_are_introduced_at_one_edge_and_across_edges() {
    let mut cluster = Cluster::start(2, 2);
    let doors = doors(&mut cluster);
    let mut took = Vec::new();
    // Some of each, so that they come to several shards.
    for (here, there) in [(0, 0), (0, 1), (1, 0), (0, 0), (0, 1), (1, 0)] {
        let mut a = Datagrams::connect(doors[here], "live").unwrap();
        let mut b = Datagrams::connect(doors[there], "live").unwrap();
        let at = b.local_addr().unwrap();
        b.set_peer_info(&[at, ([192, 0, 2, 1], 9).into()]).unwrap();
        let took_these = meet_at_last(&mut a, &mut b, doors[here]);
        took.push(took_these.as_millis());
        // And the other way round, with somebody new.
        let mut c = Datagrams::connect(doors[there], "other").unwrap();
        meet_at_last(&mut c, &mut a, doors[there]);
    }
    println!("introduced after (ms): {took:?}");
}

#[test]
fn who_is_nowhere_is_not_found_and_a_stranger_is_introduced_as_well() {
    let mut cluster = Cluster::start(1, 2);
    let doors = doors(&mut cluster);
    let mut a = Datagrams::connect(doors[0], "live").unwrap();
    let mut b = Datagrams::connect(doors[1], "live").unwrap();
    a.seek(&[7; 32], doors[0]);
    // It knows the peer's ID, and asks an edge that it is not connected to.
    let mut c = Datagrams::connect(doors[1], "live").unwrap();
    meet_at_last(&mut c, &mut b, doors[0]);
    assert_eq!(meet(&mut a, &mut b, Duration::from_millis(300)), None);
    assert_eq!(a.is_talking_with(&[7; 32]), None);
}

#[test]
fn a_peer_is_gone_with_its_edge_and_found_where_it_comes_back() {
    let mut cluster = Cluster::start(2, 3);
    let doors = doors(&mut cluster);
    let identity = Datagrams::identity().unwrap();
    let connect = |door| Datagrams::connect_as(identity.clone(), door, "live", &[]).unwrap();
    let mut b = connect(doors[1]);
    let mut a = Datagrams::connect(doors[0], "live").unwrap();
    meet_at_last(&mut a, &mut b, doors[0]);

    cluster.edges[1].process.kill();
    let peer = b.peer_id();
    let mut other = Datagrams::connect(doors[0], "live").unwrap();
    other.seek(&peer, doors[0]);
    // It is still there, but nobody has a session with it who could tell it.
    assert_eq!(meet(&mut other, &mut b, KNOWN), None);

    let mut b = connect(doors[2]);
    let came = Instant::now();
    let mut other = Datagrams::connect(doors[0], "live").unwrap();
    meet_at_last(&mut other, &mut b, doors[0]);
    println!("found {} ms after it came back", came.elapsed().as_millis());
    assert!(came.elapsed() < KNOWN, "{:?}", came.elapsed());
}

#[test]
fn a_frozen_edge_does_not_hide_where_its_peer_is_now() {
    let mut cluster = Cluster::start(1, 3);
    let doors = doors(&mut cluster);
    let identity = Datagrams::identity().unwrap();
    let connect = |door| Datagrams::connect_as(identity.clone(), door, "live", &[]).unwrap();
    let _old = connect(doors[1]);
    cluster.edges[1].process.freeze();
    let mut b = connect(doors[2]);
    let mut a = Datagrams::connect(doors[0], "live").unwrap();
    let took = meet_at_last(&mut a, &mut b, doors[0]);
    println!("found after {} ms", took.as_millis());
    assert!(took < KNOWN, "{took:?}");
}

#[test]
fn peers_are_found_through_whichever_origin_is_left() {
    let mut cluster = Cluster::start(2, 2);
    let doors = doors(&mut cluster);
    let mut a = Datagrams::connect(doors[0], "live").unwrap();
    let mut b = Datagrams::connect(doors[1], "live").unwrap();
    // Both are told again by everybody after they come back with nothing.
    for (lost, back) in [(0, true), (1, true), (0, false)] {
        cluster.origins[lost].process.kill();
        let mut c = Datagrams::connect(doors[0], "live").unwrap();
        meet_at_last(&mut c, &mut b, doors[0]);
        if back {
            cluster.origins[lost].start_again();
        }
    }
    let took = meet_at_last(&mut a, &mut b, doors[0]);
    println!("with one origin left, found after {} ms", took.as_millis());
}

#[test]
fn the_edge_of_a_peer_decides_who_is_introduced_and_a_key_who_comes_in() {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(b"[rtmfp]\npeers = 'same-app'\ndeveloper_key = 'k3y'\n")
        .unwrap();
    let path = file.path().display().to_string();
    let mut cluster = Cluster::start_with(1, 2, &["--config", &path]);
    let doors = doors(&mut cluster);
    let connect = |door, app, args: &[Amf]| {
        Datagrams::connect_as(Datagrams::identity().unwrap(), door, app, args)
    };
    for args in [&[][..], &[Amf::text("other")]] {
        let refused = connect(doors[0], "live", args).unwrap_err().to_string();
        let code = "NetConnection.Connect.Rejected";
        assert!(refused.contains(code), "{refused}");
        assert!(refused.contains("developer key"), "{refused}");
    }
    // It is for those who come by datagrams.
    Raw::connect(cluster.edges[0].addr, "live").unwrap();

    let key = [Amf::text("k3y")];
    let mut b = connect(doors[1], "live", &key).unwrap();
    let mut same = connect(doors[0], "live/k3y", &[]).unwrap();
    let peer = b.peer_id();
    same.seek(&peer, doors[0]);
    assert_eq!(meet(&mut same, &mut b, KNOWN), None, "another instance");
    let mut a = connect(doors[0], "live", &key).unwrap();
    meet_at_last(&mut a, &mut b, doors[0]);
    // A stranger is of no application.
    let mut c = connect(doors[1], "live", &key).unwrap();
    c.seek(&peer, doors[0]);
    assert_eq!(meet(&mut c, &mut b, KNOWN), None);
}
