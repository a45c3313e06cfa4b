//! Names of streams: at most one publisher has one, and each is told how it stands.

use std::time::Duration;

use bytes::Bytes;
use model::{Epoch, OriginId, StreamKey, StreamName};
use selvage_ledger::Command;
use selvage_ledger::replica::{ClaimOutcome, Output};

use crate::lab::{Lab, at};

fn stream() -> StreamKey {
    StreamKey {
        at: at(),
        name: StreamName::new("live").unwrap(),
    }
}

fn claim(lab: &mut Lab, edge: usize, publication: u64, token: &'static str) {
    let now = lab.now;
    lab.edges[edge].replica.claim(
        publication,
        stream(),
        Bytes::from_static(token.as_bytes()),
        Epoch(0),
        Bytes::new(),
        now,
    );
    lab.run();
}

fn outcomes(lab: &mut Lab, edge: usize) -> Vec<(u64, ClaimOutcome)> {
    let rest = lab.rest(edge).into_iter();
    rest.filter_map(|output| match output {
        Output::Claim {
            publication,
            outcome,
        } => Some((publication, outcome)),
        _ => None,
    })
    .collect()
}

fn granted(outcomes: &[(u64, ClaimOutcome)], who: u64) -> Epoch {
    match outcomes {
        [(publication, ClaimOutcome::Granted { epoch, .. })] if *publication == who => *epoch,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_second_publisher_is_refused_when_the_first_lives() {
    let mut lab = Lab::attached(1, 2, 2);
    claim(&mut lab, 0, 1, "");
    granted(&outcomes(&mut lab, 0), 1);
    claim(&mut lab, 1, 2, "");
    assert_eq!(lab.rest(0), [Output::Challenged { publication: 1 }]);
    assert_eq!(outcomes(&mut lab, 1), []);
    let now = lab.now;
    lab.edges[0].replica.affirm(1, now);
    lab.run();
    assert_eq!(outcomes(&mut lab, 1), [(2, ClaimOutcome::Refused)]);
}

#[test]
fn a_second_publisher_gets_the_name_when_the_first_does_not_answer() {
    let mut lab = Lab::attached(1, 2, 2);
    claim(&mut lab, 0, 1, "");
    let first = granted(&outcomes(&mut lab, 0), 1);
    claim(&mut lab, 1, 2, "");
    let now = lab.now;
    lab.edges[0].replica.release(1, now);
    lab.run();
    let second = granted(&outcomes(&mut lab, 1), 2);
    assert!(second > first);
}

#[test]
fn one_with_the_same_token_stands_by_and_takes_over() {
    let mut lab = Lab::attached(1, 2, 2);
    claim(&mut lab, 0, 1, "cam");
    granted(&outcomes(&mut lab, 0), 1);
    claim(&mut lab, 1, 2, "cam");
    assert_eq!(outcomes(&mut lab, 1), [(2, ClaimOutcome::Standby)]);
    let life = lab.edges[0].replica.life().clone();
    lab.detach(0);
    lab.commit(Command::EdgeLost(life).encode());
    lab.run();
    let told = outcomes(&mut lab, 1);
    assert!(
        matches!(
            told[..],
            [(2, ClaimOutcome::Granted { takeover: true, .. })]
        ),
        "{told:?}"
    );
}

#[test]
fn an_edge_that_was_declared_lost_claims_anew_and_says_so() {
    let mut lab = Lab::attached(1, 1, 1);
    claim(&mut lab, 0, 1, "");
    let first = granted(&outcomes(&mut lab, 0), 1);
    let life = lab.edges[0].replica.life().clone();
    lab.commit(Command::EdgeLost(life).encode());
    lab.run();
    let told = outcomes(&mut lab, 0);
    assert_eq!(told[0], (1, ClaimOutcome::Lost));
    assert!(granted(&told[1..], 1) > first);
}

#[test]
fn a_decision_that_was_missed_is_found_out() {
    let mut lab = Lab::attached(1, 2, 2);
    claim(&mut lab, 0, 1, "");
    granted(&outcomes(&mut lab, 0), 1);
    claim(&mut lab, 1, 2, "");
    lab.rest(0);
    lab.detach(1);
    let now = lab.now;
    lab.edges[0].replica.release(1, now);
    lab.run();
    lab.attach(1, 0);
    lab.run();
    granted(&outcomes(&mut lab, 1), 2);
}

#[test]
fn a_challenge_that_was_missed_is_made_up_for() {
    let mut lab = Lab::attached(1, 2, 2);
    claim(&mut lab, 0, 1, "");
    granted(&outcomes(&mut lab, 0), 1);
    lab.detach(0);
    claim(&mut lab, 1, 2, "");
    lab.attach(0, 1);
    lab.run();
    assert_eq!(lab.rest(0), [Output::Challenged { publication: 1 }]);
}

#[test]
fn a_grant_that_ended_while_nobody_could_say_so_has_ended() {
    let mut lab = Lab::attached(1, 2, 2);
    claim(&mut lab, 0, 1, "");
    let epoch = granted(&outcomes(&mut lab, 0), 1);
    let life = lab.edges[0].replica.life().clone();
    lab.detach(0);
    lab.commit(Command::EdgeLost(life).encode());
    claim(&mut lab, 1, 2, "");
    granted(&outcomes(&mut lab, 1), 2);
    lab.attach(0, 1);
    lab.run();
    let told = outcomes(&mut lab, 0);
    assert_eq!(told, [(1, ClaimOutcome::Lost)]);
    assert_eq!(lab.rest(1), [Output::Challenged { publication: 2 }]);
    let _ = epoch;
}

#[test]
fn who_follows_a_stream_is_told_where_it_is() {
    let mut lab = Lab::attached(1, 2, 2);
    let now = lab.now;
    lab.edges[1].replica.follow(stream(), now);
    lab.run();
    claim(&mut lab, 0, 1, "");
    let epoch = granted(&outcomes(&mut lab, 0), 1);
    let origin = OriginId::new("origin-1").unwrap();
    lab.edges[0].replica.place(1, origin.clone(), now);
    lab.run();
    let states: Vec<_> = lab
        .rest(1)
        .into_iter()
        .map(|output| match output {
            Output::Stream { state, .. } => (state.epoch, state.holder.is_some(), state.origin),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        states,
        [
            (Epoch(0), false, None),
            (epoch, true, None),
            (epoch, true, Some(origin)),
        ]
    );
    lab.detach(1);
    lab.edges[0].replica.release(1, now);
    lab.run();
    lab.attach(1, 0);
    lab.run();
    let rest = lab.rest(1);
    assert!(
        matches!(&rest[..], [Output::Stream { state, .. }] if state.holder.is_none()),
        "{rest:?}"
    );
    lab.edges[1].replica.unfollow(&stream(), now);
    lab.run();
    claim(&mut lab, 0, 3, "");
    lab.pass(Duration::from_secs(1));
    assert_eq!(lab.rest(1), []);
}

#[test]
fn a_refusal_of_a_claim_that_was_made_once_more_leaves_no_holder_that_nobody_knows() {
    let mut lab = Lab::attached(1, 2, 2);
    claim(&mut lab, 0, 1, "");
    granted(&outcomes(&mut lab, 0), 1);
    claim(&mut lab, 1, 2, "");
    // It claims once more when it is attached again, and only then the holder's word comes.
    lab.detach(1);
    let now = lab.now;
    lab.edges[0].replica.affirm(1, now);
    lab.attach(1, 1);
    lab.run();
    let now = lab.now;
    lab.edges[0].replica.release(1, now);
    lab.run();
    let told = outcomes(&mut lab, 1);
    let holds = matches!(told.last(), Some((2, ClaimOutcome::Granted { .. })));
    let held = lab.truth.stream(&stream()).holder.is_some();
    assert_eq!(holds, held, "{told:?}");
}

#[test]
fn who_begins_to_follow_while_nobody_can_say_is_told_when_the_edge_resumes() {
    let mut lab = Lab::attached(1, 2, 2);
    let now = lab.now;
    lab.edges[1].replica.follow(stream(), now);
    claim(&mut lab, 0, 1, "");
    let epoch = granted(&outcomes(&mut lab, 0), 1);
    // It has seen the grant, so what it resumes with does not tell of it once more.
    lab.edges[1].replica.unfollow(&stream(), now);
    lab.run();
    lab.rest(1);
    lab.detach(1);
    lab.edges[1].replica.follow(stream(), now);
    lab.attach(1, 0);
    lab.run();
    let rest = lab.rest(1);
    assert!(
        matches!(&rest[..], [Output::Stream { state, .. }] if state.epoch == epoch),
        "{rest:?}"
    );
}
