//! What is told when something fails.

use std::time::Duration;

use model::ObjectKind;
use model::object::ObjectAsk;
use selvage_ledger::Command;
use selvage_ledger::replica::Output;
use selvage_ledger::watchers::Refusal;

use crate::lab::{Lab, Who, key, remove, send, set, write};

fn pair() -> (Lab, Who, Who) {
    let mut lab = Lab::attached(7, 2, 2);
    let (amy, bob) = (Who::new(0, 1), Who::new(1, 2));
    for who in [amy, bob] {
        lab.ask(who, 0, vec![ObjectAsk::Use]);
        lab.run();
        lab.told(who);
    }
    (lab, amy, bob)
}

#[test]
fn without_a_leader_a_write_is_refused_for_certain() {
    let (mut lab, amy, bob) = pair();
    lab.set_leader(0, false);
    lab.run();
    lab.ask(amy, 1, write(vec![set("a", "1")]));
    lab.ask(amy, 1, send("hello"));
    lab.pass(Duration::from_secs(4));
    assert_eq!(lab.told(amy), Vec::<String>::new());
    lab.pass(Duration::from_secs(2));
    assert_eq!(lab.told(amy), ["v1 Unavailable -a", "v1 Unavailable"]);
    let before = lab.log.len();
    lab.set_leader(0, true);
    lab.pass(Duration::from_secs(10));
    assert_eq!(lab.log.len(), before, "nothing of it reaches the log");
    lab.ask(amy, 1, write(vec![set("a", "2")]));
    lab.run();
    assert_eq!(lab.told(amy), ["v2 ok:a"]);
    assert_eq!(lab.told(bob), ["v2 a=2"]);
}

#[test]
fn a_write_that_was_handed_over_is_undecided_and_its_number_used_up() {
    let (mut lab, amy, bob) = pair();
    lab.lose = 100;
    lab.ask(amy, 1, write(vec![set("a", "1")]));
    lab.pass(Duration::from_secs(6));
    assert_eq!(lab.told(amy), ["v1 Undecided -a"]);
    lab.lose = 0;
    lab.pass(Duration::from_secs(10));
    lab.ask(amy, 1, write(vec![set("a", "2")]));
    lab.run();
    assert_eq!(lab.told(amy), ["v2 ok:a"]);
    assert_eq!(lab.told(bob), ["v2 a=2"], "the first was never made");
}

#[test]
fn an_undecided_write_that_turns_out_to_be_made_is_seen_as_a_change() {
    let (mut lab, amy, bob) = pair();
    lab.origins[0].keeps_up = false;
    lab.ask(amy, 1, write(vec![set("a", "1")]));
    lab.pass(Duration::from_secs(6));
    assert_eq!(lab.told(amy), ["v1 Undecided -a"]);
    assert_eq!(lab.told(bob), ["v2 a=1"]);
    lab.origins[0].keeps_up = true;
    lab.pass(Duration::from_secs(1));
    assert_eq!(lab.told(amy), ["v2 a=1"]);
}

#[test]
fn a_lost_proposal_is_proposed_again_and_those_behind_it_follow() {
    let (mut lab, amy, bob) = pair();
    lab.lose = 100;
    lab.ask(amy, 1, write(vec![set("a", "1")]));
    lab.run();
    lab.lose = 0;
    lab.ask(amy, 1, write(vec![set("b", "2")]));
    lab.ask(amy, 1, write(vec![set("c", "3")]));
    lab.run();
    assert_eq!(lab.told(amy), ["v2 ok:a", "v3 ok:b", "v4 ok:c"]);
    assert_eq!(lab.told(bob), ["v2 a=1", "v3 b=2", "v4 c=3"]);
}

#[test]
fn an_answer_that_was_lost_with_the_attachment_is_given_at_the_next() {
    let (mut lab, amy, bob) = pair();
    lab.ask(amy, 1, write(vec![set("a", "1"), remove("b")]));
    lab.step_up(0);
    while lab.step_up(0) {}
    assert_eq!(lab.values.len(), 1, "it is committed");
    lab.detach(0);
    lab.run();
    lab.ask(bob, 2, write(vec![set("c", "3")]));
    lab.run();
    lab.attach(0, 1);
    lab.run();
    assert_eq!(lab.told(amy), ["v2 ok:a -b", "v3 c=3"]);
}

#[test]
fn an_answer_tells_how_a_slot_stands_that_was_changed_again_in_between() {
    let (mut lab, amy, bob) = pair();
    lab.ask(amy, 1, write(vec![set("a", "amy")]));
    while lab.step_up(0) {}
    lab.detach(0);
    lab.run();
    lab.ask(bob, 2, write(vec![set("a", "bob")]));
    lab.run();
    lab.attach(0, 1);
    lab.run();
    assert_eq!(lab.told(amy), ["v2 ok:a", "v3 a=bob"]);
}

#[test]
fn an_origin_that_is_behind_is_waited_for_and_then_left() {
    let (mut lab, amy, _) = pair();
    lab.origins[1].keeps_up = false;
    lab.ask(amy, 1, write(vec![set("a", "1")]));
    lab.run();
    assert_eq!(lab.told(amy), ["v2 ok:a"]);
    lab.attach(0, 1);
    lab.pass(Duration::from_secs(1));
    assert!(!lab.edges[0].replica.is_connected());
    lab.pass(Duration::from_millis(1100));
    assert_eq!(lab.edges[0].refusals, [Refusal::Behind]);
    lab.attach(0, 1);
    lab.origins[1].keeps_up = true;
    lab.run();
    assert!(lab.edges[0].replica.is_connected());
    assert_eq!(lab.told(amy), Vec::<String>::new());
}

#[test]
fn an_edge_that_was_declared_lost_begins_another_life() {
    let (mut lab, amy, bob) = pair();
    lab.ask(amy, 1, write(vec![set("a", "1")]));
    lab.run();
    lab.updates(0);
    lab.updates(1);
    lab.lose = 100;
    lab.ask(amy, 2, write(vec![set("a", "2")]));
    lab.run();
    lab.lose = 0;
    let life = lab.edges[0].replica.life().clone();
    lab.commit(Command::EdgeLost(life.clone()).encode());
    lab.run();
    assert_ne!(*lab.edges[0].replica.life(), life);
    assert_eq!(
        lab.told(amy),
        ["v2 Undecided a=1"],
        "its session ended with the edge"
    );
    lab.ask(amy, 2, write(vec![set("a", "3")]));
    lab.ask(bob, 2, write(vec![set("b", "4")]));
    lab.run();
    assert!(lab.truth.knows(lab.edges[0].replica.life()));
    assert_eq!(lab.told(amy).len(), 2);
    assert_eq!(lab.told(bob).len(), 2);
}

#[test]
fn a_temporary_object_that_was_lost_with_its_only_edge_is_reset() {
    let mut lab = Lab::attached(7, 1, 1);
    let (amy, eve) = (Who::new(0, 1), Who::new(0, 2));
    for who in [amy, eve] {
        lab.ask(who, 0, vec![ObjectAsk::Use]);
    }
    lab.ask(amy, 0, write(vec![set("a", "1")]));
    lab.run();
    lab.updates(0);
    let life = lab.edges[0].replica.life().clone();
    lab.commit(Command::EdgeLost(life).encode());
    lab.run();
    let told: Vec<String> = lab
        .updates(0)
        .iter()
        .flat_map(|(who, update)| [format!("{} {}", who.0, crate::lab::text(update))])
        .collect();
    assert_eq!(told, ["1 v3 clear", "2 v3 clear"]);
}

#[test]
fn a_client_that_comes_to_another_edge_is_answered_and_not_applied_twice() {
    let (mut lab, _, bob) = pair();
    let mut amy = Who::new(0, 10);
    amy.durable = true;
    let now = lab.now;
    lab.edges[0]
        .replica
        .handle_resume(amy.id, amy.session, 1, now);
    lab.ask(amy, 0, vec![ObjectAsk::Use]);
    lab.run();
    lab.ask(amy, 1, write(vec![set("a", "1")]));
    lab.run();
    assert_eq!(lab.told(amy), ["v1 use clear", "v2 ok:a"]);
    // The second is applied, and the answer never comes.
    lab.ask(amy, 2, write(vec![set("b", "2")]));
    while lab.step_up(0) {}
    lab.detach(0);
    let now = lab.now;
    lab.edges[0].replica.handle_left(amy.id, now);
    lab.run();
    let mut again = amy;
    again.edge = 1;
    again.id = selvage_ledger::replica::SubscriberId(20);
    lab.edges[1]
        .replica
        .handle_resume(again.id, amy.session, 2, now);
    lab.ask(again, 2, vec![ObjectAsk::Use]);
    lab.ask(again, 2, write(vec![set("b", "2")]));
    lab.ask(again, 2, write(vec![set("c", "3")]));
    lab.run();
    let told: Vec<String> = lab
        .updates(1)
        .iter()
        .filter(|(who, _)| *who == again.id)
        .map(|(_, update)| crate::lab::text(update))
        .collect();
    assert_eq!(told, ["v3 use clear a=1 b=2", "v3 ok:b", "v4 ok:c"]);
    assert!(lab.values.values().all(|times| *times == 1));
    let _ = bob;
}

#[test]
fn numbers_that_a_client_does_not_ask_again_are_used_up() {
    let (mut lab, _, _) = pair();
    let mut amy = Who::new(1, 10);
    amy.durable = true;
    let now = lab.now;
    lab.edges[1]
        .replica
        .handle_resume(amy.id, amy.session, 4, now);
    lab.ask(amy, 0, vec![ObjectAsk::Use]);
    lab.ask(amy, 0, write(vec![set("a", "1")]));
    lab.run();
    assert_eq!(lab.told(amy), ["v1 use clear", "v2 ok:a"]);
    assert!(lab.answers.contains_key(&(amy.session, 4)));
}

#[test]
fn a_client_whose_session_was_forgotten_goes_on_in_another() {
    let (mut lab, _, _) = pair();
    let mut amy = Who::new(1, 10);
    amy.durable = true;
    let now = lab.now;
    lab.edges[1]
        .replica
        .handle_resume(amy.id, amy.session, 10_000, now);
    lab.ask(amy, 0, vec![ObjectAsk::Use]);
    lab.ask(amy, 0, write(vec![set("a", "1")]));
    lab.run();
    assert_eq!(
        lab.told(amy),
        ["v1 use clear", "v1 Undecided -a"],
        "nobody knows what became of it elsewhere"
    );
    lab.ask(amy, 1, write(vec![set("a", "2")]));
    lab.run();
    assert_eq!(lab.told(amy), ["v2 ok:a"]);
}

#[test]
fn a_subscription_that_cannot_be_had_in_time_is_refused() {
    let mut lab = Lab::new(7, 1, 1);
    let amy = Who::new(0, 1);
    lab.ask(amy, 0, vec![ObjectAsk::Use]);
    lab.ask(amy, 0, write(vec![set("a", "1")]));
    lab.pass(Duration::from_secs(6));
    assert_eq!(lab.told(amy), ["v0 Unavailable"]);
    lab.pass(Duration::from_secs(5));
    assert_eq!(lab.told(amy), ["v0 CreationFailed"]);
    lab.attach(0, 0);
    lab.pass(Duration::from_secs(1));
    lab.ask(amy, 0, vec![ObjectAsk::Use]);
    lab.run();
    assert_eq!(lab.told(amy), ["v1 use clear"]);
}

#[test]
fn another_origin_is_asked_for_when_this_one_has_no_leader() {
    let (mut lab, _, _) = pair();
    lab.set_leader(0, false);
    lab.pass(Duration::from_millis(900));
    assert_eq!(lab.rest(0), []);
    lab.pass(Duration::from_millis(200));
    assert_eq!(lab.rest(0), [Output::Reattach]);
    lab.set_leader(0, true);
    lab.pass(Duration::from_secs(20));
    assert_eq!(lab.rest(0), []);
    lab.origins[0].watchers.leaving();
    lab.run();
    assert_eq!(lab.rest(0), [Output::Reattach]);
}

#[test]
fn clients_that_leave_end_their_sessions_when_all_is_decided() {
    let (mut lab, amy, bob) = pair();
    lab.ask(amy, 1, write(vec![set("a", "1")]));
    lab.run();
    lab.ask(amy, 2, write(vec![set("a", "bye")]));
    let now = lab.now;
    lab.edges[0].replica.handle_left(amy.id, now);
    lab.pass(Duration::from_secs(1));
    assert_eq!(lab.told(bob), ["v2 a=1", "v3 a=bye"]);
    let log = lab.log.iter();
    let ended = log
        .filter_map(|bytes| match Command::decode(bytes).unwrap() {
            Command::Propose(proposal) => Some(proposal.request),
            _ => None,
        })
        .any(|request| matches!(request, selvage_ledger::Request::EndSessions(some) if some.len() == 1));
    assert!(ended);
    // Copies of all that was ever asked, which were stuck somewhere, change nothing.
    let before = lab.truth.sync(&key("chat"), None).unwrap().version;
    for bytes in lab.log.clone() {
        lab.commit(bytes);
    }
    assert_eq!(lab.truth.sync(&key("chat"), None).unwrap().version, before);
    assert!(lab.values.values().all(|times| *times == 1));
}

#[test]
fn a_client_that_was_told_a_version_has_seen_all_of_it() {
    // Amy waits for an answer about a slot that bob changes: she is not told of it, and so
    // not of the version, with which she may come back.
    let (mut lab, mut amy, mut bob) = {
        let lab = Lab::attached(7, 2, 2);
        (lab, Who::new(0, 1), Who::new(1, 2))
    };
    for who in [&mut amy, &mut bob] {
        who.kind = ObjectKind::Persistent;
        lab.ask(*who, 0, vec![ObjectAsk::Use]);
        lab.run();
        lab.told(*who);
    }
    lab.lose = 100;
    lab.ask(amy, 1, write(vec![set("a", "amy")]));
    lab.run();
    lab.lose = 0;
    lab.ask(bob, 1, write(vec![set("a", "bob")]));
    lab.ask(bob, 2, write(vec![set("b", "bob")]));
    lab.ask(bob, 3, send("hello"));
    // Amy's proposal is made again only after a second.
    lab.run();
    assert_eq!(lab.told(amy), ["v1 b=bob", "v1 send:hello"]);
    lab.ask(amy, 1, vec![ObjectAsk::Release, ObjectAsk::Use]);
    lab.run();
    assert_eq!(lab.told(amy), ["v3 use a=bob b=bob"]);
    assert!(lab.truth.sync(&key("chat"), None).is_some());
}
