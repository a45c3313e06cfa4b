//! What an edge does when the log was lost with all its origins.

use std::time::Duration;

use bytes::Bytes;
use model::object::ObjectAsk;
use model::{Epoch, LogIndex, ObjectKind, StreamKey, StreamName};
use selvage_ledger::LogName;
use selvage_ledger::replica::{ClaimOutcome, Output};
use selvage_ledger::watchers::Refusal;

use crate::lab::{Lab, Who, at, key, set, write};

/// Two clients of one persistent object at one edge, some versions behind its beginning.
fn pair() -> (Lab, Who, Who) {
    let mut lab = Lab::attached(7, 2, 1);
    let persistent = |id| Who {
        kind: ObjectKind::Persistent,
        ..Who::new(0, id)
    };
    let (amy, bob) = (persistent(1), persistent(2));
    for who in [amy, bob] {
        lab.ask(who, 0, vec![ObjectAsk::Use]);
        lab.run();
    }
    for n in 1..=5 {
        lab.ask(amy, n, write(vec![set("a", "old")]));
        lab.ask(amy, n, write(vec![set("b", &n.to_string())]));
        lab.run();
    }
    lab.updates(0);
    (lab, amy, bob)
}

fn outcomes(lab: &mut Lab) -> Vec<ClaimOutcome> {
    let rest = lab.rest(0).into_iter();
    rest.filter_map(|output| match output {
        Output::Claim { outcome, .. } => Some(outcome),
        _ => None,
    })
    .collect()
}

#[test]
fn an_edge_serves_on_in_a_log_that_is_shorter_than_what_it_saw() {
    let (mut lab, amy, bob) = pair();
    lab.lose_log(LogName(2));
    lab.attach(0, 0);
    lab.run();
    assert_eq!(lab.edges[0].refusals, [], "another log is not behind");
    assert_eq!(lab.edges[0].replica.log(), LogName(2));
    // What was lost is gone for those who use it too.
    assert_eq!(lab.told(bob), ["v1 clear"]);
    lab.ask(amy, 1, write(vec![set("a", "new")]));
    lab.run();
    let told = lab.updates(0);
    assert_eq!(told.len(), 2, "amy's answer, bob's change");
    let held = lab.edges[0].replica.held(&key("chat"));
    let truth = lab.truth.sync(&key("chat"), None).unwrap();
    assert_eq!(held, Some((truth.epoch, truth.version)));
}

#[test]
fn numbers_of_two_logs_that_happen_to_be_equal_are_not_mixed() {
    let (mut lab, amy, bob) = pair();
    let before = lab.edges[0].replica.held(&key("chat")).unwrap();
    let length = lab.log.len();
    lab.lose_log(LogName(2));
    // The same happens in the other log, at another edge, with other values.
    let mut twin = Lab::attached(7, 2, 1);
    let cat = Who {
        kind: ObjectKind::Persistent,
        ..Who::new(0, 3)
    };
    twin.ask(cat, 0, vec![ObjectAsk::Use]);
    twin.run();
    for n in 1..=6 {
        twin.ask(cat, n, write(vec![set("a", &format!("new {n}"))]));
        twin.run();
    }
    assert_eq!(
        twin.edges[0].replica.held(&key("chat")).unwrap().0,
        before.0
    );
    for command in twin.log.clone() {
        lab.commit(command);
    }
    assert!(lab.log.len() < length, "and it is shorter still");
    lab.attach(0, 0);
    lab.run();
    let version = lab.truth.sync(&key("chat"), None).unwrap().version;
    assert_eq!(lab.told(bob), [format!("v{version} clear a=new 6")]);
    // What was seen of the lost one is not seen of this one.
    lab.updates(0);
    lab.ask(amy, version.0, write(vec![set("a", "mine")]));
    lab.run();
    assert_eq!(lab.told(amy), [format!("v{} ok:a", version.0 + 1)]);
}

#[test]
fn a_write_that_was_under_way_is_undecided_and_conflicts_with_what_is_there() {
    let (mut lab, amy, _) = pair();
    lab.lose = 100;
    lab.ask(amy, 10, write(vec![set("a", "under way")]));
    lab.run();
    lab.lose = 0;
    lab.lose_log(LogName(2));
    lab.ask(amy, 10, write(vec![set("b", "not handed over")]));
    lab.attach(0, 1);
    lab.pass(Duration::from_secs(1));
    let told = lab.told(amy).join("; ");
    assert!(told.contains("Undecided"), "{told}");
    assert!(told.contains("ok:b"), "{told}");
}

#[test]
fn what_is_published_is_claimed_anew_above_what_it_was() {
    let (mut lab, ..) = pair();
    let stream = StreamKey {
        at: at(),
        name: StreamName::new("live").unwrap(),
    };
    let now = lab.now;
    let replica = &mut lab.edges[0].replica;
    replica.follow(stream.clone(), now);
    replica.claim(1, stream, Bytes::new(), Epoch(0), Bytes::new(), now);
    lab.run();
    let first = match outcomes(&mut lab)[..] {
        [ClaimOutcome::Granted { epoch, .. }] => epoch,
        ref other => panic!("{other:?}"),
    };
    lab.lose_log(LogName(2));
    lab.attach(0, 0);
    lab.run();
    match outcomes(&mut lab)[..] {
        [ClaimOutcome::Lost, ClaimOutcome::Granted { epoch, .. }] => assert!(epoch > first),
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn an_origin_that_knows_no_log_yet_is_behind_and_not_another() {
    let (mut lab, amy, _) = pair();
    lab.detach(0);
    lab.origins[1].ledger = selvage_ledger::Ledger::new();
    lab.origins[1].keeps_up = false;
    lab.attach(0, 1);
    lab.pass(Duration::from_millis(2500));
    assert_eq!(lab.edges[0].refusals, [Refusal::Behind]);
    lab.attach(0, 0);
    lab.run();
    assert_eq!(lab.edges[0].replica.log(), LogName(1));
    assert_eq!(lab.told(amy), Vec::<String>::new(), "nothing was lost");
    assert!(lab.origins[0].ledger.applied() > LogIndex(5));
}
