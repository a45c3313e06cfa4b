//! Members that share a ledger, and edges that speak by hand.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test may fail loudly, and looks at what it wants to see"
)]

mod cluster;

use bytes::Bytes;
use cluster::{Cluster, about, command, id, life, stamp};
use consensus::{Change, Role};
use ledger::wire::{ToEdge, ToOrigin};
use ledger::{Effect, Request};
use model::{
    AppInstance, AppName, Epoch, InstanceName, ObjectKey, ObjectKind, ObjectName, OriginId, Policy,
    SlotName, SlotOp, SlotValue, StreamKey, StreamName, Version, VhostName,
};
use selvage_member::{Error, Member, Restored};

fn key() -> ObjectKey {
    ObjectKey {
        at: AppInstance {
            vhost: VhostName::new("host").unwrap(),
            app: AppName::new("chat").unwrap(),
            instance: InstanceName::new("room").unwrap(),
        },
        name: ObjectName::new("users").unwrap(),
    }
}

fn open() -> Request {
    Request::Open {
        key: key(),
        kind: ObjectKind::Persistent,
        have: None,
    }
}

fn set(cluster: &Cluster, at: u64, slot: &str, value: u8) -> Request {
    let sync = cluster.member(at).ledger().sync(&key(), None);
    let (epoch, base) = sync.map_or((Epoch(0), Version(0)), |sync| (sync.epoch, sync.version));
    Request::Batch {
        key: key(),
        epoch,
        base,
        policy: Policy::LastWriterWins,
        ops: vec![SlotOp::Set {
            slot: SlotName::new(slot).unwrap(),
            value: SlotValue(Bytes::copy_from_slice(&[5, value])),
        }],
    }
}

fn follower(leader: u64) -> u64 {
    1 + leader % 3
}

/// All members have the same state.
fn agree(cluster: &mut Cluster, members: &[u64]) {
    cluster.until("agreement", |cluster| {
        let newest = cluster.member(members[0]).ledger().applied();
        let applied = |one: &u64| cluster.member(*one).ledger().applied() == newest;
        members.iter().all(applied)
    });
    let digest = cluster.change(members[0], Member::digest);
    for one in members {
        assert_eq!(cluster.change(*one, Member::digest), digest);
    }
}

#[test]
fn a_batch_that_is_proposed_at_a_follower_is_answered_there() {
    let (mut cluster, leader) = Cluster::elected(3);
    let at = follower(leader);
    cluster.edge(7, "edge-0", at);
    cluster.ask(at, 7, "edge-0", 7, 2, open());
    cluster.until("opened", |cluster| cluster.answer(7, 7, 2).is_some());
    let batch = set(&cluster, at, "x", 1);
    cluster.ask(at, 7, "edge-0", 2, 1, batch);
    cluster.until("written", |cluster| cluster.answer(7, 2, 1).is_some());
    let answer = cluster.answer(7, 2, 1).unwrap();
    assert!(answer.starts_with("Written"), "{answer}");
    agree(&mut cluster, &[1, 2, 3]);
    assert!(cluster.errors.is_empty(), "{:?}", cluster.errors);
}

#[test]
fn commands_that_come_together_are_proposed_together() {
    let (mut cluster, leader) = Cluster::elected(3);
    cluster.edge(7, "edge-0", leader);
    cluster.ask(leader, 7, "edge-0", 7, 2, open());
    cluster.until("opened", |cluster| cluster.answer(7, 7, 2).is_some());
    cluster.batches.clear();
    let batches: Vec<_> = (0..20)
        .map(|value| set(&cluster, leader, "x", value))
        .collect();
    let now = cluster.now;
    cluster.change(leader, |member| {
        for (place, batch) in batches.into_iter().enumerate() {
            let seq = place as u64 + 1;
            let message = ToOrigin::Propose(command("edge-0", 2, seq, batch)).encode();
            let attach = ledger::watchers::AttachId(7);
            member.handle_edge(attach, message, now).unwrap();
        }
    });
    assert!(cluster.batches.contains(&20), "{:?}", cluster.batches);
    assert!(cluster.answer(7, 2, 20).is_some());
}

#[test]
fn a_barrier_comes_behind_what_was_acknowledged_elsewhere() {
    let (mut cluster, leader) = Cluster::elected(3);
    let at = follower(leader);
    cluster.edge(7, "edge-0", leader);
    cluster.edge(8, "edge-1", at);
    cluster.ask(leader, 7, "edge-0", 7, 2, open());
    cluster.ask(at, 8, "edge-1", 8, 2, open());
    cluster.run(100);
    let batch = set(&cluster, leader, "x", 1);
    cluster.ask(leader, 7, "edge-0", 2, 1, batch);
    cluster.until("acknowledged", |cluster| cluster.answer(7, 2, 1).is_some());
    cluster.say(at, 8, &ToOrigin::Barrier { id: 3 });
    let passed = |told: &ToEdge| matches!(told, ToEdge::Barrier { id: 3 });
    cluster.until("passed", |cluster| cluster.told[&8].iter().any(passed));
    let told = &cluster.told[&8];
    let barrier = told.iter().position(passed).unwrap();
    let change = told.iter().position(|told| match told {
        ToEdge::Applied(applied) => {
            let object = |effect: &Effect| matches!(effect, Effect::Object { .. });
            applied.effects.iter().any(object)
        }
        _ => false,
    });
    assert!(change.unwrap() < barrier);
}

#[test]
fn a_barrier_does_not_pass_without_a_majority() {
    let (mut cluster, leader) = Cluster::elected(3);
    cluster.edge(7, "edge-0", leader);
    cluster.cut(leader);
    cluster.say(leader, 7, &ToOrigin::Barrier { id: 3 });
    cluster.run(3_000);
    let passed = |told: &ToEdge| matches!(told, ToEdge::Barrier { .. });
    assert!(!cluster.told[&7].iter().any(passed));
    cluster.heal();
    cluster.until("passed", |cluster| cluster.told[&7].iter().any(passed));
}

#[test]
fn an_edge_that_nobody_hears_of_is_lost_and_one_at_a_follower_is_not() {
    let (mut cluster, leader) = Cluster::elected(3);
    let at = follower(leader);
    cluster.edge(7, "edge-0", at);
    cluster.edge(8, "edge-1", leader);
    cluster.run(8_000);
    for name in ["edge-0", "edge-1"] {
        assert!(cluster.member(leader).ledger().knows(&life(name)));
    }
    let attach = ledger::watchers::AttachId(7);
    cluster.change(at, |member| member.handle_detach(attach));
    cluster.run(4_000);
    assert!(cluster.member(leader).ledger().knows(&life("edge-0")));
    cluster.run(2_000);
    assert!(!cluster.member(leader).ledger().knows(&life("edge-0")));
    assert!(cluster.member(leader).ledger().knows(&life("edge-1")));
    agree(&mut cluster, &[1, 2, 3]);
}

#[test]
fn a_member_that_lags_is_given_the_state() {
    let (mut cluster, leader) = Cluster::elected(3);
    let lagging = follower(leader);
    cluster.stop(lagging);
    cluster.snapshot_entries = 20;
    // Thresholds are those of a life.
    for one in (1..=3).filter(|one| *one != lagging) {
        cluster.stop(one);
        cluster.start(one);
    }
    cluster.until("a leader", |cluster| cluster.leader().is_some());
    let leader = cluster.leader().unwrap();
    cluster.edge(7, "edge-0", leader);
    cluster.ask(leader, 7, "edge-0", 7, 2, open());
    for seq in 1..=60 {
        let batch = set(&cluster, leader, "x", 1);
        cluster.ask(leader, 7, "edge-0", 2, seq, batch);
    }
    cluster.until("written", |cluster| cluster.answer(7, 2, 60).is_some());
    assert!(cluster.member(leader).status().log.first.0 > 20);
    cluster.start(lagging);
    agree(&mut cluster, &[1, 2, 3]);
    assert!(cluster.snapshots >= 1);
    // What it was given it keeps.
    cluster.stop(lagging);
    cluster.start(lagging);
    agree(&mut cluster, &[1, 2, 3]);
    assert!(cluster.errors.is_empty(), "{:?}", cluster.errors);
}

#[test]
fn all_that_was_answered_is_there_after_all_have_crashed() {
    let (mut cluster, leader) = Cluster::elected(3);
    cluster.edge(7, "edge-0", leader);
    cluster.ask(leader, 7, "edge-0", 7, 2, open());
    let batch = set(&cluster, leader, "x", 9);
    cluster.ask(leader, 7, "edge-0", 2, 1, batch);
    cluster.until("written", |cluster| cluster.answer(7, 2, 1).is_some());
    agree(&mut cluster, &[1, 2, 3]);
    for one in 1..=3 {
        cluster.stop(one);
    }
    for one in 1..=3 {
        cluster.start(one);
    }
    cluster.until("a leader", |cluster| cluster.leader().is_some());
    cluster.run(1_000);
    agree(&mut cluster, &[1, 2, 3]);
    let sync = cluster.member(1).ledger().sync(&key(), None).unwrap();
    assert_eq!(sync.slots[0].1, SlotValue(Bytes::from_static(&[5, 9])));
}

#[test]
fn a_newcomer_is_given_the_state_and_votes_by_itself_when_it_has_caught_up() {
    let (mut cluster, leader) = Cluster::elected(1);
    cluster.edge(7, "edge-0", leader);
    cluster.ask(leader, 7, "edge-0", 7, 2, open());
    for newcomer in [2, 3] {
        cluster.seat(newcomer, stamp(newcomer), Restored::default());
        let add = Change::AddLearner {
            id: id(newcomer),
            about: about(newcomer),
        };
        cluster
            .change(leader, |member| member.propose_membership(&[add]))
            .unwrap();
        cluster.until("a voter", |cluster| {
            let status = cluster.member(newcomer).status();
            status.log.membership.voters.contains(&id(newcomer))
        });
    }
    agree(&mut cluster, &[1, 2, 3]);
    cluster.stop(1);
    cluster.until("a successor", |cluster| cluster.leader().is_some());
    assert!(cluster.errors.is_empty(), "{:?}", cluster.errors);
}

/// An empty node that votes under a voter's number could elect a leader that lacks what was
/// decided: with one of three cut off, the two others are a majority only on paper.
#[test]
fn a_node_that_lost_its_folder_does_not_vote_and_joins_under_a_new_number() {
    let (mut cluster, leader) = Cluster::elected(3);
    let lost = follower(leader);
    let other = follower(lost);
    cluster.cut(other);
    cluster.edge(7, "edge-0", leader);
    let decided = cluster.member(leader).ledger().applied();
    cluster.stop(leader);
    // The only other one who knows what was decided loses it.
    cluster.seat(lost, 0xbad, Restored::default());
    cluster.heal();
    cluster.run(10_000);
    assert_eq!(cluster.leader(), None);
    assert!(cluster.member(lost).status().disowned);
    assert!(cluster.errors.contains(&Error::NotMe(id(other))));
    // Who remembers comes back, and the loss is made good.
    cluster.start(leader);
    cluster.until("a leader", |cluster| cluster.leader().is_some());
    cluster.run(1_000);
    let leader = cluster.leader().unwrap();
    assert!(cluster.member(leader).ledger().applied() > decided);
    assert!(cluster.member(leader).ledger().knows(&life("edge-0")));
    cluster.stop(lost);
    cluster.seat(4, 0xbad, Restored::default());
    let mut anew = about(4);
    anew.stamp = 0xbad;
    let replace = [
        Change::Remove { id: id(lost) },
        Change::AddLearner {
            id: id(4),
            about: anew,
        },
    ];
    cluster
        .change(leader, |member| member.propose_membership(&replace))
        .unwrap();
    cluster.until("replaced", |cluster| {
        let membership = cluster.member(4).status().log.membership;
        membership.voters.contains(&id(4)) && !membership.has(id(lost))
    });
}

/// Asks an edge's questions in its own session, and waits for each answer.
fn ask_all(cluster: &mut Cluster, at: u64, name: &str, from: u64, requests: Vec<Request>) {
    for (seq, request) in (from..).zip(requests) {
        cluster.ask(at, 7, name, 7, seq, request);
        cluster.until("answered", |cluster| cluster.answer(7, 7, seq).is_some());
    }
}

fn remove(cluster: &mut Cluster, leader: u64, gone: u64) {
    let remove = [Change::Remove { id: id(gone) }];
    cluster
        .change(leader, |member| member.propose_membership(&remove))
        .unwrap();
}

#[test]
fn what_was_placed_at_an_origin_that_is_removed_has_no_place_though_the_leader_is_lost() {
    let (mut cluster, leader) = Cluster::elected(3);
    let gone = follower(leader);
    let stays = follower(gone);
    cluster.edge(7, "edge-0", stays);
    let stream = StreamKey {
        at: key().at,
        name: StreamName::new("camera").unwrap(),
    };
    let claim = Request::Claim {
        key: stream.clone(),
        publication: 1,
        token: Bytes::new(),
        above: Epoch(0),
    };
    ask_all(&mut cluster, stays, "edge-0", 2, vec![claim]);
    let epoch = cluster.member(stays).ledger().stream(&stream).epoch;
    let origin = OriginId::new(&format!("origin-{gone}")).unwrap();
    let place = Request::Place {
        key: stream.clone(),
        epoch,
        origin: origin.clone(),
    };
    let home = Request::Home {
        at: key().at,
        origin: origin.clone(),
    };
    ask_all(&mut cluster, stays, "edge-0", 3, vec![place, home]);
    let placed = |cluster: &Cluster| cluster.member(stays).ledger().stream(&stream).origin;
    assert_eq!(placed(&cluster), Some(origin));
    remove(&mut cluster, leader, gone);
    // Before it has told the ledger anything.
    cluster.stop(leader);
    cluster.start(leader);
    cluster.until("no place", |cluster| placed(cluster).is_none());
    let homes = cluster.member(stays).ledger().home(&key().at).cloned();
    assert_eq!(homes, None);
    // It is said once.
    cluster.run(2_000);
    let said = cluster.member(stays).ledger().applied();
    cluster.run(2_000);
    assert_eq!(cluster.member(stays).ledger().applied(), said);
}

#[test]
fn a_member_that_was_given_a_state_keeps_the_membership_in_it() {
    let (mut cluster, leader) = Cluster::elected(3);
    let lagging = follower(leader);
    cluster.stop(lagging);
    cluster.snapshot_entries = 20;
    // Thresholds are those of a life.
    for one in (1..=3).filter(|one| *one != lagging) {
        cluster.stop(one);
        cluster.start(one);
    }
    cluster.until("a leader", |cluster| cluster.leader().is_some());
    let leader = cluster.leader().unwrap();
    cluster.edge(7, "edge-0", leader);
    cluster.seat(9, stamp(9), Restored::default());
    let add = Change::AddLearner {
        id: id(9),
        about: about(9),
    };
    cluster
        .change(leader, |member| member.propose_membership(&[add]))
        .unwrap();
    let votes = |cluster: &Cluster, at| {
        let membership = cluster.member(at).status().log.membership;
        membership.voters.contains(&id(9))
    };
    cluster.until("a voter", |cluster| votes(cluster, leader));
    ask_all(&mut cluster, leader, "edge-0", 2, vec![open(); 60]);
    assert!(cluster.member(leader).status().log.first.0 > 20);
    cluster.start(lagging);
    agree(&mut cluster, &[1, 2, 3, 9]);
    assert!(cluster.snapshots >= 1);
    // It saves a state of its own, and begins with it.
    ask_all(&mut cluster, leader, "edge-0", 62, vec![open(); 30]);
    agree(&mut cluster, &[1, 2, 3, 9]);
    cluster.stop(lagging);
    cluster.start(lagging);
    assert!(votes(&cluster, lagging));
}

#[test]
fn a_state_that_gets_stuck_on_its_way_is_sent_anew() {
    let (mut cluster, leader) = Cluster::elected(1);
    cluster.edge(7, "edge-0", leader);
    cluster.stuck = Some(2);
    cluster.seat(2, stamp(2), Restored::default());
    let add = Change::AddLearner {
        id: id(2),
        about: about(2),
    };
    cluster
        .change(leader, |member| member.propose_membership(&[add]))
        .unwrap();
    cluster.until("sent", |cluster| cluster.snapshots == 1);
    // Its time is not over.
    cluster.run(8_000);
    assert_eq!(cluster.snapshots, 1);
    cluster.run(4_000);
    assert_eq!(cluster.snapshots, 2);
    cluster.stuck = None;
    cluster.until("a voter", |cluster| {
        let membership = cluster.member(2).status().log.membership;
        membership.voters.contains(&id(2))
    });
    assert_eq!(cluster.snapshots, 3);
    // What is said of the first one now is of no interest.
    cluster.change(leader, |member| member.handle_snapshot_sent(id(2), false));
    agree(&mut cluster, &[1, 2]);
}

#[test]
fn who_leaves_hands_over_the_lead_and_says_so_to_its_edges() {
    let (mut cluster, leader) = Cluster::elected(3);
    cluster.edge(7, "edge-0", leader);
    cluster.change(leader, Member::start_leaving);
    assert!(cluster.told[&7].contains(&ToEdge::Leaving));
    cluster.until("another leader", |cluster| {
        cluster.leader().is_some_and(|one| one != leader)
    });
    assert_eq!(cluster.member(leader).role().0, Role::Follower);
}

#[test]
fn a_leader_that_was_stopped_ends_nobody_whom_it_could_not_hear() {
    let (mut cluster, leader) = Cluster::elected(1);
    cluster.edge(7, "edge-0", leader);
    cluster.edge(8, "edge-1", leader);
    cluster.ask(leader, 7, "edge-0", 7, 2, open());
    let lock = Request::Lock {
        key: key(),
        lease_ms: 2_000,
    };
    cluster.ask(leader, 7, "edge-0", 2, 1, lock);
    cluster.until("locked", |cluster| {
        cluster.member(leader).ledger().locks().count() == 1
    });
    // One of them comes back after the pause and needs its time for that.
    let attach = ledger::watchers::AttachId(8);
    cluster.change(leader, |member| member.handle_detach(attach));
    for _ in 0..3 {
        cluster.now += std::time::Duration::from_secs(7);
        cluster.run(10);
        let ledger = cluster.member(leader).ledger();
        assert!(ledger.knows(&life("edge-0")) && ledger.knows(&life("edge-1")));
        assert_eq!(ledger.locks().count(), 1);
    }
    // A pause is not for ever.
    cluster.until("expired", |cluster| {
        cluster.member(leader).ledger().locks().count() == 0
    });
    cluster.run(5_100);
    let ledger = cluster.member(leader).ledger();
    assert!(ledger.knows(&life("edge-0")) && !ledger.knows(&life("edge-1")));
}

#[test]
fn bytes_that_are_no_message_end_nothing() {
    let (mut cluster, leader) = Cluster::elected(3);
    let now = cluster.now;
    for len in 0..64 {
        let bytes = Bytes::from(vec![1; len]);
        let handled = cluster.change(leader, |member| {
            let peer = member.handle_peer(id(2), &bytes, now);
            let state = member.handle_snapshot(id(2), &bytes, &bytes, now);
            (peer, state)
        });
        assert!(handled.0.is_err() && handled.1.is_err());
    }
    assert_eq!(cluster.leader(), Some(leader));
}
