//! RTMFP peers behind address translators, at different edges of a cluster: those whose
//! translators allow it are brought together by the edges and go on without them.
//!
//! Who can meet whom follows from what translators do (RFC 4787): one that gives another
//! port for each far end cannot be told to others, so it can only meet those who let in an
//! address whatever the port.
//!
//! It needs what a netlab needs (see the manual of `selvage-netlab`), and fails without.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use netlab::{Host, Nat};
use rtmfp::session;
use selvage_cluster_tests::lab::SOON;
use selvage_cluster_tests::lab::datagrams::Datagrams;
use selvage_cluster_tests::lab::field::Field;

/// The longest time that a client waits for something to come.
const TURN: Duration = Duration::from_millis(2);

/// How soon peers are to be together, nearly always.
const MEET: Duration = Duration::from_secs(1);

/// How long peers who cannot meet try.
const PATIENCE: Duration = Duration::from_secs(4);

/// How soon a client is to be found again that came to another edge.
const FOUND: Duration = Duration::from_secs(5);

/// How often each pair of kinds meets.
const ROUNDS: usize = 3;

/// A client at home, at an edge.
fn visit(home: &Host, door: SocketAddr, habits: session::Config) -> Datagrams {
    let socket = home
        .inside(|| UdpSocket::bind((home.addr(), 0)))
        .unwrap()
        .unwrap();
    let identity = Datagrams::identity().unwrap();
    let client = Datagrams::connect_from(socket, habits, identity, door, "live", &[]);
    let mut client = client.unwrap();
    // As clients do: where they are by their own account.
    let own = client.local_addr().unwrap();
    client.set_peer_info(&[own]).unwrap();
    client
}

/// Lets both go on, each by itself, until they have sessions with each other. Says how long
/// that took; nothing when it took longer than `patience`.
fn meet(a: &mut Datagrams, b: &mut Datagrams, patience: Duration) -> Option<Duration> {
    let (started, ids) = (Instant::now(), (a.peer_id(), b.peer_id()));
    let met = AtomicU64::new(0);
    let go_on = |one: &mut Datagrams, other| {
        let mut talks = false;
        while started.elapsed() < patience && met.load(Ordering::Relaxed) < 2 {
            one.turn(TURN).unwrap();
            if !talks && one.is_talking_with(other).is_some() {
                talks = true;
                met.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| go_on(b, &ids.0));
        go_on(a, &ids.1);
    });
    (met.load(Ordering::Relaxed) == 2).then(|| started.elapsed())
}

/// Somebody whom everybody can reach waits until an edge knows where a peer is.
#[track_caller]
fn until_known(scout: &mut Datagrams, peer: &mut Datagrams, door: SocketAddr) {
    let started = Instant::now();
    let id = peer.peer_id();
    while started.elapsed() < SOON {
        scout.seek(&id, door);
        if meet(scout, peer, Duration::from_millis(300)).is_some() {
            return;
        }
    }
    panic!("the edge does not know the peer after {SOON:?}");
}

const fn can_meet(one: Nat, other: Nat) -> bool {
    !matches!(
        (one, other),
        (Nat::Symmetric, Nat::PortRestricted | Nat::Symmetric)
            | (Nat::PortRestricted, Nat::Symmetric)
    )
}

/// The edges' doors for datagrams.
fn doors(field: &Field) -> Vec<SocketAddr> {
    field.edges.iter().map(|edge| edge.addr).collect()
}

#[test]
fn peers_meet_where_their_translators_allow_it() {
    let field = Field::start(1, 3, 11, false);
    let doors = doors(&field);
    let home = |side: &str, kind: Nat| {
        let name = format!("{side}-{}", format!("{kind:?}").to_lowercase());
        field.lab.host(&name).unwrap()
    };
    let homes = Nat::ALL.map(|kind| {
        let homes = (home("a", kind), home("b", kind));
        let outside = [&homes.0, &homes.1].map(|home| field.lab.translate(kind, &[home]).unwrap());
        (kind, homes, outside)
    });
    let mut took = Vec::new();
    for round in 0..ROUNDS {
        let (here, there) = (doors[round % 3], doors[(round + 1) % 3]);
        for (one, (home, _), _) in &homes {
            for (other, (_, far_home), outside) in &homes {
                let mut b = visit(far_home, there, session::Config::default());
                let mut scout = visit(&field.here, here, session::Config::default());
                until_known(&mut scout, &mut b, here);
                let mut a = visit(home, here, session::Config::default());
                a.seek(&b.peer_id(), here);
                if can_meet(*one, *other) {
                    let met = meet(&mut a, &mut b, SOON);
                    let met = met.unwrap_or_else(|| panic!("{one:?} never met {other:?}"));
                    println!("{one:?} met {other:?} after {} ms", met.as_millis());
                    let at = a.is_talking_with(&b.peer_id()).unwrap();
                    assert_eq!(at.ip(), IpAddr::from(outside[1]), "{one:?} {other:?}");
                    took.push(met);
                } else if round == 0 {
                    let met = meet(&mut a, &mut b, PATIENCE);
                    assert_eq!(met, None, "{one:?} {other:?}: what let them through?");
                }
            }
        }
    }
    took.sort();
    let nearly_all = took[took.len() * 95 / 100];
    println!(
        "{} meetings: half within {} ms, 95 % within {} ms, all within {} ms",
        took.len(),
        took[took.len() / 2].as_millis(),
        nearly_all.as_millis(),
        took[took.len() - 1].as_millis()
    );
    assert!(nearly_all <= MEET, "{took:?}");
}

#[test]
fn peers_behind_one_translator_meet_at_home() {
    let field = Field::start(1, 3, 12, false);
    let doors = doors(&field);
    for kind in Nat::ALL {
        let name = |side: &str| format!("{side}-{}", format!("{kind:?}").to_lowercase());
        let (home, next) = (
            field.lab.host(&name("a")).unwrap(),
            field.lab.host(&name("b")).unwrap(),
        );
        field.lab.translate(kind, &[&home, &next]).unwrap();
        let mut b = visit(&next, doors[1], session::Config::default());
        let mut scout = visit(&field.here, doors[0], session::Config::default());
        until_known(&mut scout, &mut b, doors[0]);
        let mut a = visit(&home, doors[0], session::Config::default());
        a.seek(&b.peer_id(), doors[0]);
        let met = meet(&mut a, &mut b, SOON);
        let met = met.unwrap_or_else(|| panic!("behind one {kind:?}"));
        println!("behind one {kind:?}: met after {} ms", met.as_millis());
        assert!(met <= MEET, "{kind:?}: {met:?}");
        let at = a.is_talking_with(&b.peer_id()).unwrap();
        assert_eq!(at.ip(), IpAddr::from(next.addr()), "{kind:?}");
    }
}

/// Clients that notice soon when nobody is there any more.
fn watchful() -> session::Config {
    session::Config {
        keepalive: Duration::from_secs(1),
        silence_max: Duration::from_secs(3),
        ..session::Config::default()
    }
}

/// How often peers say something.
const SAY_EVERY: Duration = Duration::from_millis(50);

/// How long a peer may hear nothing while edges die. One that comes to another edge says
/// nothing until it is there.
const TALK_GAP: Duration = Duration::from_secs(3);

#[test]
fn peers_talk_on_without_their_edges_and_are_found_where_they_come_back() {
    let mut field = Field::start(1, 3, 13, false);
    let doors = doors(&field);
    let homes = [Nat::PortRestricted, Nat::AddressRestricted].map(|kind| {
        let home = field.lab.host(&format!("{kind:?}").to_lowercase()).unwrap();
        field.lab.translate(kind, &[&home]).unwrap();
        home
    });
    let mut b = visit(&homes[1], doors[1], watchful());
    let mut scout = visit(&field.here, doors[0], watchful());
    until_known(&mut scout, &mut b, doors[0]);
    let mut a = visit(&homes[0], doors[0], watchful());
    let (a_id, b_id) = (a.peer_id(), b.peer_id());
    a.seek(&b_id, doors[0]);
    meet(&mut a, &mut b, SOON).expect("they meet");

    // Each says a word now and then.
    let over = Arc::new(AtomicBool::new(false));
    let heard = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let longest = Arc::new(AtomicU64::new(0));
    let spare = doors[2];
    let talk = |mut one: Datagrams, other, place: usize| {
        let (over, heard, longest) = (over.clone(), heard.clone(), longest.clone());
        std::thread::spawn(move || {
            let (mut last, mut said) = (Instant::now(), Instant::now());
            while !over.load(Ordering::Relaxed) {
                one.turn(Duration::from_millis(20)).unwrap();
                if said.elapsed() >= SAY_EVERY {
                    said = Instant::now();
                    one.tell(&other, b"word").unwrap();
                }
                while let Some((who, what)) = one.listen() {
                    assert_eq!((who, &what[..]), (other, &b"word"[..]));
                    let gap = u64::try_from(last.elapsed().as_millis()).unwrap();
                    longest.fetch_max(gap, Ordering::Relaxed);
                    last = Instant::now();
                    heard[place].fetch_add(1, Ordering::Relaxed);
                }
                if one.is_closed() {
                    one.come_to(spare, "live").unwrap();
                    let own = one.local_addr().unwrap();
                    one.set_peer_info(&[own]).unwrap();
                }
            }
        })
    };
    let talking = [talk(a, b_id, 0), talk(b, a_id, 1)];
    for (lost, id) in [(0, a_id), (1, b_id)] {
        field.edges[lost].kill();
        let killed = Instant::now();
        // Somebody new looks for it at the edge that is left.
        let mut scout = visit(&field.here, spare, watchful());
        while scout.is_talking_with(&id).is_none() {
            assert!(killed.elapsed() < SOON, "nobody finds it");
            scout.seek(&id, spare);
            let asked = Instant::now();
            while asked.elapsed() < Duration::from_millis(200) {
                scout.turn(TURN).unwrap();
            }
        }
        let found = killed.elapsed();
        println!("found {} ms after its edge was killed", found.as_millis());
        assert!(found <= FOUND, "{found:?}");
    }
    let words = || {
        let [a, b] = [0, 1].map(|place| heard[place].load(Ordering::Relaxed));
        (a, b)
    };
    let before = words();
    let asked = Instant::now();
    while words().0 < before.0 + 10 || words().1 < before.1 + 10 {
        assert!(asked.elapsed() < SOON, "they talk no more");
        selvage_cluster_tests::lab::pace(TURN);
    }
    over.store(true, Ordering::Relaxed);
    for thread in talking {
        thread.join().unwrap();
    }
    let longest = Duration::from_millis(longest.load(Ordering::Relaxed));
    println!("words: {:?}, {longest:?} between two at most", words());
    assert!(longest < TALK_GAP, "{longest:?} without a word");
}
