//! The rules while nothing fails.

use std::time::Duration;

use bytes::Bytes;
use model::object::ObjectAsk;
use model::{ObjectKind, Policy, SlotOp};
use selvage_ledger::replica::{Access, CallId, CallResult, Output, Recipients};

use crate::lab::{Lab, Who, key, remove, send, set, write};

fn pair() -> (Lab, Who, Who) {
    let mut lab = Lab::attached(1, 2, 2);
    let (amy, bob) = (Who::new(0, 1), Who::new(1, 2));
    for who in [amy, bob] {
        lab.ask(who, 0, vec![ObjectAsk::Use]);
        lab.run();
        assert_eq!(lab.told(who), ["v1 use clear"]);
    }
    (lab, amy, bob)
}

#[test]
fn the_writer_is_told_success_and_all_others_the_change() {
    let (mut lab, amy, bob) = pair();
    lab.ask(amy, 1, write(vec![set("a", "1"), set("b", "2")]));
    lab.run();
    assert_eq!(lab.told(amy), ["v2 ok:a ok:b"]);
    assert_eq!(lab.told(bob), ["v2 a=1 b=2"]);
    lab.ask(bob, 2, write(vec![remove("a"), set("c", "3")]));
    lab.run();
    assert_eq!(lab.told(amy), ["v3 -a c=3"]);
    assert_eq!(lab.told(bob), ["v3 -a ok:c"]);
    lab.ask(bob, 3, write(vec![SlotOp::Clear, set("d", "4")]));
    lab.run();
    assert_eq!(lab.told(amy), ["v4 clear d=4"]);
    assert_eq!(lab.told(bob), ["v4 clear ok:d"]);
}

#[test]
fn who_has_not_seen_the_newest_is_refused_and_told_how_it_stands() {
    let (mut lab, amy, bob) = pair();
    lab.ask(amy, 1, write(vec![set("a", "amy")]));
    lab.ask(bob, 1, write(vec![set("a", "bob"), set("b", "bob")]));
    lab.run();
    assert_eq!(lab.told(amy), ["v2 ok:a", "v3 b=bob"]);
    assert_eq!(
        lab.told(bob),
        ["v3 ok:b a=amy"],
        "nothing of the slot before the answer"
    );
}

#[test]
fn a_write_that_changes_nothing_is_accepted_and_nobody_hears_of_it() {
    let (mut lab, amy, bob) = pair();
    lab.ask(amy, 1, write(vec![set("a", "1")]));
    lab.run();
    lab.ask(amy, 2, write(vec![set("a", "1"), remove("none")]));
    lab.run();
    assert_eq!(lab.told(amy), ["v2 ok:a", "v2 ok:a -none"]);
    assert_eq!(lab.told(bob), ["v2 a=1"]);
}

#[test]
fn the_last_writer_wins_where_that_is_the_policy() {
    let (mut lab, amy, bob) = pair();
    for (who, value) in [(amy, "amy"), (bob, "bob")] {
        let ops = write(vec![set("a", value)]);
        lab.ask_as(who, 1, Access::FULL, Policy::LastWriterWins, ops);
    }
    lab.run();
    assert_eq!(lab.told(amy), ["v2 ok:a", "v3 a=bob"]);
    assert_eq!(lab.told(bob), ["v3 ok:a"]);
}

#[test]
fn who_is_writing_a_slot_learns_of_a_clear_but_not_what_the_slot_is_before_its_answer() {
    let (mut lab, amy, bob) = pair();
    lab.ask(amy, 1, write(vec![set("b", "2")]));
    lab.run();
    assert_eq!(lab.told(bob), ["v2 b=2"]);
    lab.updates(0);
    let ops = write(vec![SlotOp::Clear, set("a", "amy"), set("c", "3")]);
    lab.ask(amy, 2, ops);
    let ops = write(vec![set("a", "bob")]);
    lab.ask_as(bob, 2, Access::FULL, Policy::LastWriterWins, ops);
    lab.run();
    assert_eq!(lab.told(amy), ["v3 clear ok:a ok:c", "v4 a=bob"]);
    assert_eq!(lab.told(bob), ["v2 clear c=3", "v4 ok:a"]);
    // Refused, it is told how the slot stands.
    lab.ask(amy, 4, write(vec![SlotOp::Clear, set("a", "new")]));
    lab.ask(bob, 3, write(vec![set("a", "old")]));
    lab.run();
    assert_eq!(lab.told(bob), ["v4 clear", "v5 a=new"]);
}

#[test]
fn who_releases_an_object_before_it_is_open_is_not_held_up_by_it() {
    let (mut lab, amy, _) = pair();
    let mut passing = amy;
    for (at, what) in [write(vec![set("a", "1")]), send("hello")]
        .into_iter()
        .enumerate()
    {
        passing.object = ["passing", "another"][at];
        for asks in [vec![ObjectAsk::Use], what, vec![ObjectAsk::Release]] {
            lab.ask(passing, 0, asks);
        }
        let version = u32::try_from(at).unwrap() + 1;
        lab.ask(amy, version, write(vec![set("a", &version.to_string())]));
        lab.run();
        assert_eq!(lab.told(amy), [format!("v{} ok:a", version + 1)]);
    }
    // The same of one that exists as another kind.
    let mut other = Who::new(1, 3);
    (other.object, other.kind) = ("chat", ObjectKind::Persistent);
    let mut third = other;
    third.object = "third";
    lab.ask(other, 0, vec![ObjectAsk::Use]);
    lab.ask(other, 0, write(vec![set("a", "1")]));
    lab.ask(other, 0, vec![ObjectAsk::Release]);
    lab.ask(third, 0, vec![ObjectAsk::Use]);
    lab.run();
    lab.ask(third, 1, write(vec![set("a", "2")]));
    lab.run();
    assert_eq!(lab.told(third).last().unwrap(), "v2 ok:a");
}

#[test]
fn a_message_goes_to_all_and_to_its_sender_in_one_order() {
    let (mut lab, amy, bob) = pair();
    lab.ask(amy, 1, send("hello"));
    lab.ask(amy, 1, write(vec![set("a", "1")]));
    lab.run();
    lab.ask(bob, 2, send("hi"));
    lab.run();
    assert_eq!(lab.told(amy), ["v1 send:hello", "v2 ok:a", "v2 send:hi"]);
    assert_eq!(lab.told(bob), ["v1 send:hello", "v2 a=1", "v2 send:hi"]);
}

#[test]
fn without_access_nothing_happens_and_the_client_is_told_why() {
    let (mut lab, amy, bob) = pair();
    lab.ask(amy, 1, write(vec![set("a", "1")]));
    lab.run();
    lab.updates(0);
    lab.updates(1);
    let no_write = Access {
        read: true,
        write: false,
    };
    let ops = write(vec![set("a", "2"), set("b", "2")]);
    lab.ask_as(bob, 2, no_write, Policy::Optimistic, ops);
    lab.ask_as(bob, 2, no_write, Policy::Optimistic, send("no"));
    let eve = Who::new(1, 3);
    let no_read = Access {
        read: false,
        write: true,
    };
    lab.ask_as(eve, 0, no_read, Policy::Optimistic, vec![ObjectAsk::Use]);
    lab.run();
    let updates = lab.updates(1);
    let told: Vec<_> = updates
        .iter()
        .map(|(who, update)| (who.0, crate::lab::text(update)))
        .collect();
    assert_eq!(
        told,
        [
            (2, "v2 NoWriteAccess a=1 -b".into()),
            (2, "v2 NoWriteAccess".into()),
            (3, "v0 NoReadAccess".into()),
        ]
    );
    assert_eq!(lab.updates(0), []);
}

#[test]
fn the_first_creator_fixes_the_kind() {
    let (mut lab, _, _) = pair();
    let mut eve = Who::new(0, 3);
    eve.kind = ObjectKind::Persistent;
    lab.ask(eve, 0, vec![ObjectAsk::Use]);
    lab.ask(eve, 0, write(vec![set("a", "1")]));
    lab.run();
    assert_eq!(
        lab.told(eve),
        ["v1 BadPersistence", "v1 BadPersistence"].map(|line| line.replace("v1", "v0"))
    );
}

#[test]
fn the_first_creator_fixes_the_kind_for_an_edge_that_opens_it_otherwise() {
    let mut lab = Lab::attached(1, 1, 2);
    let amy = Who::new(0, 1);
    lab.ask(amy, 0, vec![ObjectAsk::Use]);
    lab.run();
    let (mut wrong, right) = (Who::new(1, 2), Who::new(1, 3));
    wrong.kind = ObjectKind::Persistent;
    lab.ask(wrong, 0, vec![ObjectAsk::Use]);
    lab.ask(right, 0, vec![ObjectAsk::Use]);
    lab.run();
    let told = lab.updates(1);
    assert_eq!(crate::lab::text(&told[0].1), "v0 BadPersistence");
    assert_eq!(told[0].0, wrong.id);
    assert_eq!(crate::lab::text(&told[1].1), "v1 use clear");
    assert_eq!(told[1].0, right.id);
}

#[test]
fn who_knows_a_version_of_a_persistent_object_is_told_the_difference() {
    let mut lab = Lab::attached(1, 1, 2);
    let mut amy = Who::new(0, 1);
    amy.kind = ObjectKind::Persistent;
    lab.ask(amy, 0, vec![ObjectAsk::Use]);
    lab.ask(amy, 0, write(vec![set("a", "1"), set("who", "amy")]));
    lab.run();
    lab.ask(
        amy,
        2,
        write(vec![remove("who"), set("a", "2"), set("b", "3")]),
    );
    lab.run();
    for (id, version, expected) in [
        (11, 0, "v3 use clear a=2 b=3"),
        (12, 2, "v3 use -who a=2 b=3"),
        (13, 3, "v3 use"),
        (14, 9, "v3 use clear a=2 b=3"),
    ] {
        for edge in [0, 1] {
            let mut who = Who::new(edge, id + 100 * edge as u64);
            who.kind = ObjectKind::Persistent;
            lab.ask(who, version, vec![ObjectAsk::Use]);
            lab.run();
            assert_eq!(lab.told(who), [expected], "edge {edge}, version {version}");
        }
    }
}

#[test]
fn a_use_of_an_open_object_waits_for_what_was_acknowledged_elsewhere() {
    let mut lab = Lab::attached(1, 2, 2);
    let (amy, bob) = (Who::new(0, 1), Who::new(1, 2));
    lab.ask(bob, 0, vec![ObjectAsk::Use]);
    lab.ask(amy, 0, vec![ObjectAsk::Use]);
    lab.run();
    lab.told(bob);
    lab.origins[1].keeps_up = false;
    lab.ask(amy, 1, write(vec![set("a", "1")]));
    lab.run();
    let eve = Who::new(1, 3);
    lab.ask(eve, 0, vec![ObjectAsk::Use]);
    lab.run();
    assert_eq!(lab.told(eve), Vec::<String>::new());
    lab.origins[1].keeps_up = true;
    lab.run();
    let told = lab.updates(1);
    assert_eq!(told[0].0, bob.id);
    assert_eq!(crate::lab::text(&told[0].1), "v2 a=1");
    assert_eq!(told[1].0, eve.id);
    assert_eq!(crate::lab::text(&told[1].1), "v2 use clear a=1");
}

#[test]
fn nothing_is_told_after_a_release_not_even_an_answer() {
    let (mut lab, amy, bob) = pair();
    let mut asks = write(vec![set("a", "1")]);
    asks.push(ObjectAsk::Release);
    lab.ask(amy, 1, asks);
    lab.run();
    assert_eq!(lab.told(amy), Vec::<String>::new());
    assert_eq!(lab.told(bob), ["v2 a=1"], "what was asked before is done");
    lab.ask(amy, 2, write(vec![set("a", "2")]));
    lab.run();
    assert_eq!(lab.told(amy), ["v0 NoWriteAccess"]);
}

#[test]
fn an_object_stays_open_for_a_while_and_a_temporary_one_dies_then() {
    let (mut lab, amy, bob) = pair();
    lab.ask(amy, 1, write(vec![set("a", "1")]));
    lab.run();
    for who in [amy, bob] {
        lab.ask(who, 2, vec![ObjectAsk::Release]);
    }
    lab.pass(Duration::from_secs(4));
    assert!(lab.truth.sync(&key("chat"), None).is_some());
    lab.ask(amy, 0, vec![ObjectAsk::Use]);
    lab.run();
    assert_eq!(lab.told(amy), ["v2 ok:a", "v2 use clear a=1"]);
    lab.ask(amy, 2, vec![ObjectAsk::Release]);
    lab.pass(Duration::from_secs(6));
    assert!(lab.truth.sync(&key("chat"), None).is_none());
    assert!(lab.edges[0].replica.held(&key("chat")).is_none());
    lab.ask(bob, 0, vec![ObjectAsk::Use]);
    lab.run();
    let told = lab.told(bob);
    let last = told.last().unwrap();
    assert_eq!(
        last, "v3 use clear",
        "above the versions of the earlier one"
    );
}

#[test]
fn a_thousand_subscribers_share_one_list_and_one_update() {
    let mut lab = Lab::attached(1, 1, 1);
    for id in 0..1000 {
        lab.ask(Who::new(0, id), 0, vec![ObjectAsk::Use]);
    }
    lab.run();
    assert_eq!(lab.updates(0).len(), 1000);
    let mut lists = Vec::new();
    for round in 0..3 {
        lab.ask(
            Who::new(0, round),
            u32::MAX,
            write(vec![set("a", "x"), set("b", &round.to_string())]),
        );
        lab.run();
        for output in std::mem::take(&mut lab.edges[0].told) {
            if let Output::Update {
                to: to @ Recipients::Many { .. },
                ..
            } = output
            {
                assert_eq!(to.iter().count(), 999);
                if let Recipients::Many { subscribers, .. } = to {
                    lists.push(subscribers);
                }
            }
        }
    }
    assert!(!lists.is_empty());
    assert!(
        lists
            .iter()
            .all(|list| std::sync::Arc::ptr_eq(list, &lists[0]))
    );
}

#[test]
fn uses_that_come_together_share_a_barrier() {
    let mut lab = Lab::attached(1, 1, 1);
    lab.ask(Who::new(0, 0), 0, vec![ObjectAsk::Use]);
    lab.run();
    for id in 1..100 {
        lab.ask(Who::new(0, id), 0, vec![ObjectAsk::Use]);
    }
    let mut barriers = 0;
    while lab.step_up(0) || lab.step_down(0) {
        let link = lab.edges[0].link.as_ref().unwrap();
        barriers += link
            .down
            .iter()
            .filter(|bytes| {
                let message = selvage_ledger::wire::ToEdge::decode(Bytes::clone(bytes)).unwrap();
                matches!(message, selvage_ledger::wire::ToEdge::Barrier { .. })
            })
            .count();
    }
    assert_eq!(lab.updates(0).len(), 100);
    assert!(barriers <= 4, "{barriers}");
}

#[test]
fn others_wait_for_the_lock_and_are_answered_when_it_is_given_back() {
    let (mut lab, amy, bob) = pair();
    let now = lab.now;
    let lock = |lab: &mut Lab, who: Who, call| {
        lab.edges[who.edge].replica.handle_lock(
            who.subscriber(),
            key("chat"),
            Access::FULL,
            10_000,
            CallId(call),
            Bytes::new(),
            now,
        );
        lab.run();
    };
    lock(&mut lab, amy, 1);
    let rest = lab.rest(0);
    assert!(
        matches!(
            rest[..],
            [Output::CallAnswer {
                call: CallId(1),
                result: CallResult::Locked { .. },
                ..
            }]
        ),
        "{rest:?}"
    );
    lab.ask(bob, 1, write(vec![set("a", "bob")]));
    lab.run();
    assert_eq!(lab.told(bob), Vec::<String>::new());
    lab.ask(amy, 1, write(vec![set("b", "amy")]));
    lab.run();
    assert_eq!(lab.told(amy), ["v2 ok:b"]);
    lab.edges[0]
        .replica
        .handle_unlock(amy.subscriber(), key("chat"), CallId(2), Bytes::new(), now);
    lab.run();
    assert_eq!(lab.told(bob), ["v2 b=amy", "v3 ok:a"]);
    assert_eq!(lab.told(amy), ["v3 a=bob"]);
    let rest = lab.rest(0);
    assert!(
        matches!(
            rest[..],
            [Output::CallAnswer {
                call: CallId(2),
                result: CallResult::Unlocked,
                ..
            }]
        ),
        "{rest:?}"
    );
    lab.edges[1]
        .replica
        .handle_unlock(bob.subscriber(), key("chat"), CallId(3), Bytes::new(), now);
    lab.run();
    let rest = lab.rest(1);
    assert!(
        matches!(
            rest[..],
            [Output::CallAnswer {
                result: CallResult::NotLocked,
                ..
            }]
        ),
        "{rest:?}"
    );
}

#[test]
fn a_lock_that_is_granted_too_late_is_given_back() {
    let (mut lab, amy, bob) = pair();
    for (who, call) in [(amy, 1), (bob, 2)] {
        let now = lab.now;
        lab.edges[who.edge].replica.handle_lock(
            who.subscriber(),
            key("chat"),
            Access::FULL,
            60_000,
            CallId(call),
            Bytes::new(),
            now,
        );
        lab.run();
    }
    lab.pass(Duration::from_secs(6));
    let rest = lab.rest(1);
    assert!(
        matches!(
            rest[..],
            [Output::CallAnswer {
                result: CallResult::Undecided,
                ..
            }]
        ),
        "{rest:?}"
    );
    let now = lab.now;
    lab.edges[0].replica.handle_left(amy.id, now);
    lab.pass(Duration::from_secs(10));
    assert_eq!(lab.truth.locks().count(), 0);
    lab.ask(bob, 1, write(vec![set("a", "1")]));
    lab.run();
    assert_eq!(lab.told(bob), ["v2 ok:a"]);
}

#[test]
fn who_floods_is_refused_and_not_remembered() {
    let (mut lab, amy, _) = pair();
    lab.set_leader(0, false);
    for _ in 0..1000 {
        lab.ask(amy, 1, write(vec![set("a", "1")]));
    }
    lab.run();
    let refused = lab.told(amy);
    assert_eq!(
        refused.len(),
        1000 - selvage_ledger::replica::limits::REQUESTS_MAX
    );
    assert!(refused.iter().all(|line| line == "v1 CreationFailed -a"));
}

#[test]
fn what_the_ledger_would_not_take_is_refused_here() {
    let (mut lab, amy, _) = pair();
    let long = "x".repeat(selvage_ledger::limits::VALUE_BYTES_MAX + 1);
    lab.ask(amy, 1, write(vec![set("a", &long)]));
    let many = (0..=selvage_ledger::limits::BATCH_OPS_MAX)
        .map(|_| remove("a"))
        .collect();
    lab.ask(amy, 1, write(many));
    lab.run();
    assert_eq!(
        lab.told(amy),
        ["v1 CreationFailed -a", "v1 CreationFailed -a"]
    );
}

#[test]
fn a_lock_that_is_granted_too_late_takes_no_number_of_a_durable_session() {
    let (mut lab, mut amy, bob) = pair();
    amy.durable = true;
    let now = lab.now;
    let replica = &mut lab.edges[amy.edge].replica;
    replica.handle_resume(amy.id, amy.session, 1, now);
    for (who, call) in [(bob, 1), (amy, 2)] {
        let now = lab.now;
        lab.edges[who.edge].replica.handle_lock(
            who.subscriber(),
            key("chat"),
            Access::FULL,
            60_000,
            CallId(call),
            Bytes::new(),
            now,
        );
        lab.run();
    }
    lab.pass(Duration::from_secs(6));
    lab.rest(0);
    let now = lab.now;
    lab.edges[bob.edge].replica.handle_left(bob.id, now);
    lab.pass(Duration::from_secs(10));
    // It comes back and asks its second request, which is no other's.
    let now = lab.now;
    let replica = &mut lab.edges[amy.edge].replica;
    replica.handle_resume(amy.id, amy.session, 2, now);
    lab.ask(amy, 1, write(vec![set("a", "1")]));
    lab.run();
    assert_eq!(lab.told(amy), ["v2 ok:a"]);
    assert_eq!(lab.truth.sync(&key("chat"), None).unwrap().slots.len(), 1);
}
