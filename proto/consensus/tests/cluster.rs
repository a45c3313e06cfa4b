//! What a cluster promises, in all weathers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking, in their helpers too"
)]

mod world;

use bytes::Bytes;
use selvage_consensus::{About, Change, Error, Progress, Refusal, Role};
use world::{ROUGH, World, id};

fn elected(seed: u64, nodes: u64) -> (World, u64) {
    let mut world = World::founded_by(seed, nodes);
    world.until("a leader", |world| world.leader().is_some());
    world.until("heard of", |world| {
        (1..=nodes).all(|number| world.status(number).leader.is_some())
    });
    let leader = world.leader().unwrap();
    (world, leader)
}

fn other_than(leader: u64) -> u64 {
    if leader == 1 { 2 } else { 1 }
}

fn number(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

#[test]
fn what_is_proposed_at_any_node_is_applied_by_all_in_one_order() {
    let (mut world, leader) = elected(1, 3);
    for turn in 0..30 {
        world.propose(1 + turn % 3, number(turn)).unwrap();
    }
    world.until("applied", |world| {
        (1..=3).all(|number| world.state(number).len() == 30)
    });
    assert_eq!(world.state(1), world.state(2));
    assert_eq!(world.state(1), world.state(3));
    assert_eq!(world.status(leader).role, Role::Leader);
    assert!(world.misbehaved.is_empty(), "{:?}", world.misbehaved);
}

#[test]
fn a_node_alone_leads_and_decides() {
    let (mut world, leader) = elected(2, 1);
    world.propose(leader, "alone").unwrap();
    world.until("applied", |world| world.state(1).len() == 1);
    world.crash(1);
    world.start(1);
    world.until("applied again", |world| world.state(1).len() == 1);
}

/// Pitfalls 1 to 6 and 9 of raft 0.7 all lie on this path: loss, partitions, slow disks,
/// crashes at any place, followers that propose.
fn storm(seed: u64, nodes: u64, tracing: bool) -> World {
    let mut world = World::founded_by(seed, nodes);
    world.tracing = tracing;
    world.weather = ROUGH;
    for turn in 0..300 {
        let pause = world.roll(120);
        world.run(pause);
        if turn % 20 == 0 {
            world.judge_logs();
        }
        let someone = 1 + world.roll(nodes);
        match world.roll(40) {
            0 => {
                let other = 1 + world.roll(nodes);
                world.part(&[someone, other]);
            }
            1..4 => world.heal(),
            4 if world.is_up(someone) => world.crash(someone),
            5..15 if !world.is_up(someone) => world.start(someone),
            15 if world.is_up(someone) => world.compact_some(someone),
            16 if world.is_up(someone) => {
                let _ = world.read(someone, turn);
            }
            17 if world.is_up(someone) => {
                let to = 1 + world.roll(nodes);
                let _ = world.transfer(someone, to);
            }
            _ if world.is_up(someone) => {
                let batch = (0..5).map(|step| number(turn * 5 + step)).collect();
                // Without a leader nothing is proposed.
                let _ = world.propose_all(someone, batch);
            }
            _ => {}
        }
    }
    world.heal();
    world.weather = world::CALM;
    for number in 1..=nodes {
        if !world.is_up(number) {
            world.start(number);
        }
    }
    world.until("a leader", |world| world.leader().is_some());
    world.run(3_000);
    let leader = world.leader().unwrap();
    world.propose(leader, "after the storm").unwrap();
    world.until("peace", World::settled);
    assert!(
        world.state(1).len() > 200 && world.leaders() > 0,
        "seed {seed}: a storm in a teacup"
    );
    world.judge_logs();
    for number in 1..=nodes {
        let last = world.state(number).last().map(|(_, data)| data.clone());
        assert_eq!(last, Some(Bytes::from("after the storm")), "seed {seed}");
        assert_eq!(world.state(number), world.state(1), "seed {seed}");
    }
    assert!(world.misbehaved.is_empty(), "{:?}", world.misbehaved);
    world
}

#[test]
fn three_nodes_lose_nothing_in_a_storm() {
    for seed in 0..12 {
        storm(seed, 3, false);
    }
}

#[test]
fn five_nodes_lose_nothing_in_a_storm() {
    for seed in 100..105 {
        storm(seed, 5, false);
    }
}

#[test]
fn the_same_seed_is_the_same_history_bit_by_bit() {
    let traces: Vec<u64> = [7, 7, 8].map(|seed| storm(seed, 3, true).trace()).into();
    assert_eq!(traces[0], traces[1]);
    assert_ne!(traces[1], traces[2]);
}

#[test]
fn a_leader_without_a_majority_steps_down_and_disturbs_nobody_when_it_returns() {
    let (mut world, leader) = elected(3, 3);
    world.part(&[leader]);
    world.until("a step down", |world| {
        world.status(leader).role != Role::Leader
    });
    let term_alone = world.status(leader).term;
    world.until("a successor", |world| world.leader().is_some());
    let successor = world.leader().unwrap();
    let term = world.status(successor).term;
    // Alone for long, it asks and asks and never raises its term: pre-vote.
    world.run(10_000);
    assert_eq!(world.status(leader).term, term_alone);
    assert!(matches!(
        world.propose(leader, "alone"),
        Err(Error::NoLeader)
    ));
    world.heal();
    world.run(3_000);
    assert_eq!(world.leader(), Some(successor));
    assert_eq!(world.status(successor).term, term);
    assert_eq!(world.status(leader).leader, Some(id(successor)));
}

#[test]
fn a_leader_without_a_majority_does_not_fill_its_memory() {
    let (mut world, leader) = elected(4, 3);
    world.part(&[leader]);
    let big = Bytes::from(vec![7; 1 << 20]);
    let taken = (0..64)
        .take_while(|_| world.propose(leader, big.clone()).is_ok())
        .count();
    assert!((8..=17).contains(&taken), "{taken} MiB were taken");
    assert_eq!(world.propose(leader, big), Err(Error::Busy));
}

#[test]
fn the_lead_is_handed_over() {
    let (mut world, leader) = elected(5, 3);
    let heir = other_than(leader);
    world.transfer(leader, heir).unwrap();
    world.until("handed over", |world| {
        world.status(leader).leader == Some(id(heir))
    });
    assert_eq!(
        world.transfer(leader, heir),
        Err(Error::NotLeader(Some(id(heir))))
    );
    world.propose(leader, "still here").unwrap();
    world.until("applied", |world| world.state(leader).len() == 1);
}

#[test]
fn a_read_is_answered_behind_what_was_acknowledged_before_it() {
    let (mut world, leader) = elected(6, 3);
    let follower = other_than(leader);
    world.propose(leader, "written").unwrap();
    world.until("acknowledged", |world| world.state(leader).len() == 1);
    let written = world.state(leader)[0].0;
    world.read(follower, 1).unwrap();
    world.read(leader, 2).unwrap();
    world.until("answered", |world| world.reads.len() == 2);
    assert!(world.reads.values().all(|index| *index >= written));
}

/// raft drops a question whose name is that of one that is asked at present, and says nothing.
#[test]
fn questions_with_one_number_are_told_apart_by_who_asks_and_in_which_life() {
    let (mut world, leader) = elected(27, 3);
    for number in 1..=3 {
        world.read(number, 1).unwrap();
    }
    world.until("all answered", |world| world.reads.len() == 3);
    // While nobody else is there the leader keeps the question, and cannot answer it.
    let asker = other_than(leader);
    let third = 6 - leader - asker;
    world.crash(third);
    world.reads.clear();
    world.read(asker, 2).unwrap();
    world.run(2);
    world.crash(asker);
    world.start(asker);
    world.until("a leader", |world| world.status(asker).leader.is_some());
    world.read(asker, 2).unwrap();
    world.until("answered in this life", |world| {
        world.reads.contains_key(&(asker, 2))
    });
}

#[test]
fn a_read_without_a_majority_is_never_answered() {
    let (mut world, leader) = elected(7, 3);
    world.part(&[leader]);
    world.read(leader, 1).unwrap();
    world.run(5_000);
    assert!(world.reads.is_empty());
    assert_eq!(world.read(leader, 2), Err(Error::NoLeader));
    // It was lost, as raft loses it; the next one under another number is answered.
    world.heal();
    world.until("a leader again", |world| {
        world.status(leader).leader.is_some()
    });
    world.run(500);
    world.read(leader, 3).unwrap();
    world.until("answered", |world| world.reads.contains_key(&(leader, 3)));
    assert!(!world.reads.contains_key(&(leader, 1)));
}

#[test]
fn a_cluster_grows_from_one_to_five_and_shrinks_to_three() {
    let (mut world, leader) = elected(8, 1);
    for turn in 0..10 {
        world.propose(leader, number(turn)).unwrap();
    }
    for newcomer in 2..=5 {
        world.newcomer(newcomer);
        let about = About {
            stamp: newcomer,
            text: Bytes::from("somewhere"),
        };
        let add = Change::AddLearner {
            id: id(newcomer),
            about,
        };
        world.change(leader, std::slice::from_ref(&add)).unwrap();
        world.until("caught up", |world| {
            let status = world.status(leader);
            status.membership.learners.contains(&id(newcomer))
                && status.peers.iter().any(|peer| {
                    peer.id == id(newcomer)
                        && peer.progress == Progress::Replicating
                        && peer.matched == status.last
                })
        });
        assert_eq!(
            world.change(leader, &[add]),
            Err(Error::Membership(Refusal::NumberTaken(id(newcomer))))
        );
        world
            .change(leader, &[Change::Promote { id: id(newcomer) }])
            .unwrap();
        world.until("promoted", |world| {
            let membership = world.status(newcomer).membership;
            membership.voters.contains(&id(newcomer)) && membership.outgoing.is_empty()
        });
    }
    // Two leave at once, the leader among them, through a joint majority.
    let gone = [leader, 5];
    let remove = gone.map(|gone| Change::Remove { id: id(gone) });
    world.change(leader, &remove).unwrap();
    world.until("removed", |world| {
        (2..=4).all(|number| {
            let membership = world.status(number).membership;
            membership.voters.len() == 3 && membership.outgoing.is_empty()
        })
    });
    // Whoever led does so no more, though nobody has stopped it.
    world.until("a step down", |world| {
        world.status(leader).role != Role::Leader
    });
    world.until("a leader of three", |world| world.leader().is_some());
    world.run(1_500);
    for gone in gone {
        assert!(world.leader() != Some(gone));
        world.crash(gone);
    }
    let leader = world.leader().unwrap();
    world.propose(leader, "three").unwrap();
    world.until("applied", |world| {
        (2..=4).all(|number| world.state(number).last().unwrap().1 == "three")
    });
    let membership = world.status(leader).membership;
    assert_eq!(membership.about[&id(4)].stamp, 4);
    assert_eq!(membership.removed.len(), 2);
    let again = Change::AddLearner {
        id: id(5),
        about: About::default(),
    };
    assert_eq!(
        world.change(leader, &[again]),
        Err(Error::Membership(Refusal::NumberTaken(id(5))))
    );
}

/// Pitfall 2: raft must not be given anything between a snapshot and its write.
#[test]
fn who_lags_behind_the_log_is_given_the_state_however_slow_its_disk() {
    let (mut world, leader) = elected(9, 3);
    let lagging = other_than(leader);
    world.crash(lagging);
    for turn in 0..50 {
        world.propose(leader, number(turn)).unwrap();
    }
    world.run(500);
    for number in (1..=3).filter(|number| *number != lagging) {
        world.compact(number);
    }
    assert!(world.status(leader).first.0 > 50);
    world.weather.sync_max = 3_000;
    world.start(lagging);
    world.until("caught up", |world| world.state(lagging).len() == 50);
    assert!(world.snapshots_sent >= 1);
    assert_eq!(world.state(lagging), world.state(leader));
    // It remembers it.
    world.run(5_000);
    world.crash(lagging);
    world.start(lagging);
    assert_eq!(world.state(lagging).len(), 50);
}

#[test]
fn a_membership_is_remembered_through_a_crash_as_soon_as_it_counts() {
    for seed in 0..20 {
        let (mut world, leader) = elected(20 + seed, 3);
        world.weather.sync_max = 40;
        let gone = other_than(leader);
        world
            .change(leader, &[Change::Remove { id: id(gone) }])
            .unwrap();
        world.until("removed", |world| {
            !world.status(leader).membership.has(id(gone))
        });
        world.crash(leader);
        world.start(leader);
        assert!(!world.status(leader).membership.has(id(gone)));
    }
}

#[test]
fn a_second_change_waits_for_the_first() {
    let (mut world, leader) = elected(50, 3);
    let (one, other) = match leader {
        1 => (2, 3),
        2 => (1, 3),
        _ => (1, 2),
    };
    world
        .change(leader, &[Change::Remove { id: id(one) }])
        .unwrap();
    assert_eq!(
        world.change(leader, &[Change::Remove { id: id(other) }]),
        Err(Error::Membership(Refusal::Pending))
    );
}

#[test]
fn proposals_of_no_size_and_of_too_much_are_refused() {
    let (mut world, leader) = elected(51, 1);
    assert_eq!(world.propose(leader, ""), Err(Error::Size(0)));
    let huge = vec![0; selvage_consensus::limits::ENTRY_BYTES_MAX + 1];
    assert_eq!(world.propose(leader, huge), Err(Error::Size((1 << 20) + 1)));
}

#[test]
fn what_does_not_fit_into_one_message_is_proposed_in_several() {
    let (mut world, leader) = elected(52, 3);
    let follower = other_than(leader);
    let batch = vec![Bytes::from(vec![1; 300_000]); 12];
    world.propose_all(follower, batch).unwrap();
    world.until("applied", |world| world.state(follower).len() == 12);
    assert!(world.misbehaved.is_empty(), "{:?}", world.misbehaved);
}
