//! The machine against a ledger and its edges.

mod lab;

use std::time::Duration;

use super::super::limits::{BACKOFF_MAX, BACKOFF_MIN, SETTLE_PATIENCE};
use super::*;
use lab::{Lab, Ledger, object, slot, update, value};
use model::object::ObjectStatus;

#[test]
fn a_write_that_was_applied_before_its_server_died_is_not_applied_again() {
    let mut lab = Lab::running(2);
    let ticket = lab.set("a", "x");
    lab.read(0);
    lab.lose(0);
    assert_eq!(lab.settled.get(&ticket), None);
    lab.settle_all();
    assert_eq!(lab.settled[&ticket], Settled::Success(Version(2)));
    assert_eq!(lab.ledger.version, 2);
    lab.is(&[(1, "clear"), (2, "success a")]);
    lab.judge();
}

#[test]
fn a_write_that_was_not_applied_when_its_server_died_is_applied_by_the_next() {
    let mut lab = Lab::running(2);
    let ticket = lab.set("a", "x");
    lab.lose(0);
    lab.settle_all();
    assert_eq!(lab.settled[&ticket], Settled::Success(Version(2)));
    lab.is(&[(1, "clear"), (2, "success a")]);
    let next = lab.set("a", "y");
    lab.settle_all();
    assert_eq!(lab.settled[&next], Settled::Success(Version(3)));
    lab.judge();
}

#[test]
fn what_was_written_over_before_the_answer_came_is_told_in_full() {
    let mut lab = Lab::running(2);
    let ticket = lab.set("a", "ours");
    lab.read(0);
    lab.other("a", "theirs");
    lab.lose(0);
    lab.settle_all();
    assert_eq!(lab.settled[&ticket], Settled::Success(Version(3)));
    lab.is(&[(1, "clear"), (3, "success a"), (3, "change a")]);
    lab.judge();
}

#[test]
fn a_change_that_every_server_reports_is_told_once() {
    let mut lab = Lab::running(3);
    lab.other("a", "x");
    lab.settle_all();
    lab.lose(0);
    lab.settle_all();
    lab.lose(1);
    lab.settle_all();
    lab.is(&[(1, "clear"), (2, "change a")]);
    lab.judge();
}

#[test]
fn a_server_that_lags_is_waited_for() {
    let mut lab = Lab::running(2);
    for text in ["1", "2", "3"] {
        lab.other("a", text);
    }
    lab.catch_up(0);
    while !lab.edges[0].said.is_empty() {
        lab.hear(0);
    }
    lab.lose(0);
    lab.step(1);
    lab.hear(1);
    assert_eq!(lab.steps().len(), 4, "it went back");
    lab.other("b", "4");
    lab.settle_all();
    let steps = lab.steps();
    assert_eq!(steps[4..], [(5, "change b".to_owned())]);
    lab.judge();
}

#[test]
fn who_comes_second_is_refused_and_told_what_there_is() {
    let mut lab = Lab::running(1);
    let ticket = lab.set("a", "ours");
    lab.other("a", "theirs");
    lab.read(0);
    lab.settle_all();
    assert_eq!(lab.settled[&ticket], Settled::Reject(Some(value("theirs"))));
    // The news comes before the refusal and is held for it, so it is told once.
    lab.is(&[(1, "clear"), (2, "reject a")]);
    lab.judge();
}

#[test]
fn a_refusal_that_was_merged_with_its_reason_is_understood_in_time() {
    let mut lab = Lab::running(1);
    let ticket = lab.set("a", "ours");
    lab.other("a", "theirs");
    lab.read(0);
    lab.edges[0].said.pop_back();
    lab.settle_all();
    assert_eq!(lab.settled.get(&ticket), None);
    lab.pass(Duration::from_secs(2));
    assert_eq!(lab.settled[&ticket], Settled::Reject(Some(value("theirs"))));
    lab.judge();
}

#[test]
fn what_is_set_again_before_it_is_asked_for_is_asked_for_once() {
    let mut lab = Lab::running(1);
    let first = lab.set("a", "1");
    let second = lab.set("a", "2");
    let third = lab.set("a", "3");
    assert_eq!(lab.machine.value(&object(), &slot("a")), Some(value("3")));
    lab.settle_all();
    assert_eq!(lab.settled[&first], Settled::Success(Version(2)));
    assert_eq!(lab.settled[&second], Settled::Replaced);
    assert_eq!(lab.settled[&third], Settled::Success(Version(3)));
    let gone = lab.set("a", "");
    lab.settle_all();
    assert_eq!(lab.settled[&gone], Settled::Success(Version(4)));
    assert_eq!(lab.machine.value(&object(), &slot("a")), None);
    lab.judge();
}

#[test]
fn what_the_servers_could_not_decide_uses_its_number_up() {
    for status in [ObjectStatus::Unavailable, ObjectStatus::Undecided] {
        let mut lab = Lab::running(2);
        let ticket = lab.set("a", "x");
        lab.edges[0].asks.clear();
        let refusal = vec![
            ObjectEvent::Remove { slot: slot("a") },
            ObjectEvent::Status(status),
        ];
        lab.edges[0].said.push_back(update(1, refusal));
        lab.hear(0);
        let settled = lab.settled[&ticket].clone();
        assert!(matches!(
            settled,
            Settled::Undecided | Settled::Refused(ObjectStatus::Unavailable)
        ));
        // The edge dies before it has used the number up itself.
        lab.lose(0);
        lab.settle_all();
        assert!(lab.ledger.slots.is_empty(), "it was made after all");
        let next = lab.set("b", "y");
        lab.settle_all();
        assert_eq!(lab.settled[&next], Settled::Success(Version(2)));
        lab.judge();
    }
}

#[test]
fn what_was_answered_is_not_asked_for_again_in_its_words_because_of_an_older_request() {
    let mut lab = Lab::running(2);
    lab.send("older");
    let ticket = lab.set("a", "x");
    // The older one waits, as one of another object may for a lock.
    lab.edges[0].asks.clear();
    let success = vec![ObjectEvent::Success { slot: slot("a") }];
    lab.edges[0].said.push_back(update(2, success));
    lab.hear(0);
    assert_eq!(lab.settled[&ticket], Settled::Success(Version(2)));
    lab.lose(0);
    let asked: Vec<&ObjectAsk> = lab.edges[1].asks.iter().map(|(ask, _)| ask).collect();
    let [ObjectAsk::Send(_), ObjectAsk::Write(ops)] = asked.as_slice() else {
        panic!("{asked:?}");
    };
    assert!(
        matches!(ops.as_slice(), [model::SlotOp::Remove { slot }] if slot.as_str() != "a"),
        "{ops:?}"
    );
}

#[test]
fn messages_are_told_once_whichever_server_dies() {
    let mut lab = Lab::running(2);
    let first = lab.send("one");
    lab.settle_all();
    let second = lab.send("two");
    lab.read(0);
    let third = lab.send("three");
    lab.lose(0);
    lab.settle_all();
    for ticket in [first, second, third] {
        assert!(
            matches!(lab.settled[&ticket], Settled::Success(_)),
            "{ticket}"
        );
    }
    lab.up(0);
    lab.settle_all();
    lab.send("four");
    lab.read(1);
    lab.lose(1);
    lab.settle_all();
    lab.judge();
}

#[test]
fn a_message_is_not_settled_by_the_same_words_of_somebody_else() {
    let mut lab = Lab::running(2);
    let ticket = lab.send("tick");
    // Theirs is given out first, and the primary dies before it hands ours on.
    lab.other_send("tick");
    lab.catch_up(0);
    lab.hear(0);
    assert_eq!(lab.settled.get(&ticket), None, "it was theirs");
    lab.lose(0);
    assert_eq!(lab.machine.requests.first(), 1);
    lab.settle_all();
    assert!(matches!(lab.settled[&ticket], Settled::Success(_)));
    assert_eq!(lab.ledger.sends.len(), 2, "ours is lost");
    lab.judge();
}

#[test]
fn a_facade_takes_its_session_along_though_it_has_nothing_to_ask() {
    let mut lab = Lab::running(3);
    lab.set("a", "1");
    lab.settle_all();
    let asked = lab.ledger.done.len();
    for lost in 0..2 {
        lab.lose(lost);
        lab.settle_all();
        assert_eq!(lab.ledger.done.len(), asked + 1, "the same nothing, once");
    }
    let ticket = lab.set("a", "2");
    lab.settle_all();
    assert!(matches!(lab.settled[&ticket], Settled::Success(_)));
    lab.judge();
}

#[test]
fn what_a_busy_room_said_while_the_server_was_silent_is_told_by_the_next() {
    let mut lab = Lab::running(2);
    for number in 0..400 {
        lab.other_send(&format!("line {number}"));
    }
    // The other server's connection keeps up.
    lab.catch_up(1);
    while !lab.edges[1].said.is_empty() {
        lab.hear(1);
    }
    lab.lose(0);
    lab.settle_all();
    lab.judge();
}

#[test]
fn two_programs_that_say_the_same_are_each_heard_when_their_server_dies() {
    // Each facade of the two sees the other's messages as somebody's.
    for read_before in 0..=3 {
        let mut lab = Lab::running(2);
        let mut tickets = Vec::new();
        for _ in 0..3 {
            tickets.push(lab.send("tick"));
            lab.other_send("tick");
        }
        for _ in 0..read_before {
            lab.read(0);
        }
        lab.catch_up(0);
        while !lab.edges[0].said.is_empty() {
            lab.hear(0);
        }
        let settled = lab.settled.len();
        assert_eq!(settled, read_before, "of {read_before} that were applied");
        lab.lose(0);
        lab.settle_all();
        for ticket in tickets {
            assert!(matches!(lab.settled[&ticket], Settled::Success(_)));
        }
        assert_eq!(lab.ledger.sends.len(), 6);
        lab.judge();
    }
}

#[test]
fn a_message_that_was_given_out_when_nobody_listened_comes_with_its_answer() {
    let mut lab = Lab::running(2);
    let ticket = lab.send("tick");
    lab.read(0);
    lab.lose(1);
    // The one that comes back was not subscribed when it was given out.
    lab.up(1);
    lab.lose(0);
    lab.settle_all();
    assert!(matches!(lab.settled[&ticket], Settled::Success(_)));
    assert_eq!(lab.ledger.sends.len(), 1);
    lab.judge();
}

#[test]
fn where_requests_are_not_counted_what_comes_back_is_the_answer() {
    let mut lab = Lab::running(1);
    lab.answer_resumes = false;
    lab.lose(0);
    lab.up(0);
    lab.machine.resumed(0, Err("it cannot".to_owned()), lab.now);
    lab.drain();
    while lab.machine.objects[&object()].behind {
        lab.read(0);
        lab.hear(0);
    }
    let ticket = lab.send("tick");
    lab.edges[0].asks.clear();
    let echo = ObjectEvent::Send(Bytes::from_static(b"tick"));
    lab.edges[0].said.push_back(update(0, vec![echo]));
    lab.hear(0);
    assert!(matches!(lab.settled[&ticket], Settled::Success(_)));
}

#[test]
fn a_setup_fails_as_a_whole_and_who_comes_late_is_sent_away() {
    let mut lab = Lab::new(2);
    lab.up(0);
    lab.pass(Duration::from_millis(2999));
    assert_eq!(lab.told.len(), 1, "{:?}", lab.told);
    lab.pass(Duration::from_millis(1));
    assert!(lab.told.contains(&Told::Setup { complete: false }));
    assert_eq!(lab.hung_up, [0, 1]);
    // The one that was on its way arrives.
    lab.machine.up(1, lab.now);
    lab.drain();
    assert_eq!(lab.hung_up, [0, 1, 1]);
    assert_eq!(lab.machine.deadline(), None);
}

#[test]
fn a_setup_is_complete_when_the_last_server_is_there() {
    let mut lab = Lab::new(2);
    lab.machine.down(1, "refused", lab.now);
    lab.drain();
    lab.up(0);
    assert_eq!(lab.machine.primary(), None);
    lab.pass(Duration::from_millis(300));
    assert_eq!(lab.dials, [0, 1, 1], "it is dialled again");
    lab.up(1);
    assert!(lab.told.contains(&Told::Setup { complete: true }));
    assert_eq!(lab.machine.primary(), Some(0));
}

#[test]
fn where_one_server_is_enough_the_others_may_come_later() {
    let mut lab = Lab::new(2);
    lab.machine.need = Need::One;
    lab.up(1);
    assert!(lab.told.contains(&Told::Setup { complete: true }));
    assert_eq!(lab.machine.primary(), Some(1));
    lab.up(0);
    assert_eq!(lab.machine.primary(), Some(1));
}

#[test]
fn without_servers_writes_wait_for_a_while_and_not_without_end() {
    let mut lab = Lab::running(2);
    let asked = lab.set("a", "x");
    lab.lose(0);
    lab.lose(1);
    let waiting = lab.set("b", "y");
    let mut taken = 1;
    let full = loop {
        let name = slot(&format!("s{taken}"));
        match lab
            .machine
            .set(&object(), name, Some(value("z")), 1000 + taken, lab.now)
        {
            Ok(()) => taken += 1,
            Err(full) => break full,
        }
        assert!(taken < 10_000, "there is no end");
    };
    assert_eq!((full, taken), (Full, WAITING_MAX as u64));
    lab.pass(SETTLE_PATIENCE);
    assert_eq!(lab.settled[&asked], Settled::Undecided);
    assert_eq!(lab.settled[&waiting], Settled::Unreachable);
    // When one comes back, what was under way is decided, and new writes go.
    lab.up(1);
    lab.settle_all();
    let last = lab.set("c", "x");
    lab.settle_all();
    assert!(matches!(lab.settled[&last], Settled::Success(_)));
    assert!(lab.ledger.slots.contains_key(&slot("a")));
    lab.judge();
}

#[test]
fn a_server_that_falls_silent_is_given_up_if_it_used_to_answer() {
    for answers in [true, false] {
        let mut lab = Lab::running(2);
        lab.machine.heard(0, answers, lab.now);
        lab.machine.heard(1, true, lab.now);
        for _ in 0..10 {
            lab.pass(Duration::from_millis(500));
            lab.machine.heard(1, true, lab.now);
        }
        assert_eq!(lab.hung_up.contains(&0), answers);
        let primary = if answers { 1 } else { 0 };
        assert_eq!(lab.machine.primary(), Some(primary));
    }
}

/// The server is lost, and comes back as soon as it is dialled: after how long that was.
fn back(lab: &mut Lab, server: usize) -> Duration {
    let (dials, before) = (lab.dials.len(), lab.now);
    lab.lose(server);
    while lab.dials.len() == dials {
        lab.pass(BACKOFF_MIN);
    }
    lab.up(server);
    lab.now - before
}

#[test]
fn a_server_that_accepts_and_sends_away_is_dialled_ever_later() {
    let mut lab = Lab::running(2);
    for times in 0..5 {
        assert_eq!(back(&mut lab, 0), BACKOFF_MIN * 2_u32.pow(times));
    }
    for _ in 0..5 {
        assert_eq!(back(&mut lab, 0), BACKOFF_MAX);
        // Almost good enough.
        lab.pass(BACKOFF_MAX - Duration::from_millis(1));
    }
    lab.pass(Duration::from_millis(1));
    assert_eq!(back(&mut lab, 0), BACKOFF_MIN, "it has stood");
    assert_eq!(back(&mut lab, 0), BACKOFF_MIN * 2);
}

#[test]
fn a_server_that_asks_to_be_left_is_left_once_there_is_another() {
    let mut lab = Lab::running(2);
    lab.lose(1);
    lab.leave(0);
    assert_eq!(lab.hung_up, []);
    let ticket = lab.set("a", "x");
    lab.up(1);
    assert_eq!(lab.hung_up, [0]);
    assert_eq!(lab.machine.primary(), Some(1));
    lab.settle_all();
    assert_eq!(lab.settled[&ticket], Settled::Success(Version(2)));
    // It is there again, and has not asked again.
    lab.up(0);
    lab.leave(1);
    assert_eq!(lab.hung_up, [0, 1]);
    assert_eq!(lab.machine.primary(), Some(0));
    lab.judge();
}

#[test]
fn a_server_that_asks_to_be_left_is_kept_while_the_setup_needs_it() {
    let mut lab = Lab::new(3);
    lab.up(0);
    lab.up(1);
    lab.leave(0);
    assert_eq!(lab.hung_up, []);
    lab.up(2);
    assert!(lab.told.contains(&Told::Setup { complete: true }));
    assert_eq!(lab.hung_up, [0]);
    let primary = |told: &&Told| {
        matches!(
            told,
            Told::Server {
                state: ServerState::Primary,
                ..
            }
        )
    };
    assert_eq!(lab.machine.primary(), Some(1));
    assert_eq!(lab.told.iter().filter(primary).count(), 1);
    lab.pass(Duration::from_secs(3));
    assert!(!lab.told.contains(&Told::Setup { complete: false }));
}

#[test]
fn the_server_that_a_publish_goes_through_is_left_when_that_is_over() {
    let mut lab = Lab::running(3);
    lab.machine.publishes(true, lab.now);
    lab.leave(0);
    lab.leave(1);
    assert_eq!(lab.hung_up, [1], "nothing goes through that one");
    assert_eq!(lab.machine.primary(), Some(0));
    lab.machine.publishes(false, lab.now);
    lab.drain();
    assert_eq!(lab.hung_up, [1, 0]);
    assert_eq!(lab.machine.primary(), Some(2));
}

#[test]
fn a_primary_that_does_not_answer_requests_is_left() {
    let mut lab = Lab::running(2);
    let ticket = lab.set("a", "x");
    lab.pass(Duration::from_secs(11));
    assert_eq!(lab.machine.primary(), Some(1));
    lab.settle_all();
    assert_eq!(lab.settled[&ticket], Settled::Success(Version(2)));
    lab.judge();
}

#[test]
fn an_object_that_all_servers_have_lost_begins_anew() {
    let mut lab = Lab::running(1);
    lab.other("a", "x");
    lab.settle_all();
    lab.lose(0);
    lab.ledger = Ledger {
        version: 1,
        ..Ledger::default()
    };
    lab.up(0);
    lab.settle_all();
    lab.is(&[(1, "clear"), (2, "change a"), (1, "clear")]);
}

mod chance {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Act {
        Set(u8, u8),
        Remove(u8),
        Send,
        Other(u8, u8),
        Read(u8),
        Step(u8),
        Hear(u8),
        Lose(u8),
        Up(u8),
        Leave(u8),
        Wait,
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            3 => (0..3u8, 0..4u8).prop_map(|(s, v)| Act::Set(s, v)),
            1 => (0..3u8).prop_map(Act::Remove),
            1 => Just(Act::Send),
            2 => (0..3u8, 4..8u8).prop_map(|(s, v)| Act::Other(s, v)),
            6 => (0..3u8).prop_map(Act::Read),
            4 => (0..3u8).prop_map(Act::Step),
            8 => (0..3u8).prop_map(Act::Hear),
            1 => (0..3u8).prop_map(Act::Lose),
            2 => (0..3u8).prop_map(Act::Up),
            1 => (0..3u8).prop_map(Act::Leave),
            1 => Just(Act::Wait),
        ];
        proptest::collection::vec(act, 1..120)
    }

    fn run(acts: &[Act], last_wins: bool) {
        let mut lab = Lab::running(3);
        lab.ledger.policy_last_wins = last_wins;
        let mut tickets = Vec::new();
        let mut sends = 0;
        for act in acts {
            match *act {
                Act::Set(s, v) => tickets.push(lab.set(&s.to_string(), &v.to_string())),
                Act::Remove(s) => tickets.push(lab.set(&s.to_string(), "")),
                Act::Send => {
                    // Each its own words: equal ones cannot be told apart by anybody.
                    sends += 1;
                    tickets.push(lab.send(&format!("m{sends}")));
                }
                Act::Other(s, v) => lab.other(&s.to_string(), &v.to_string()),
                Act::Read(e) => lab.read(e.into()),
                Act::Step(e) => lab.step(e.into()),
                Act::Hear(e) => lab.hear(e.into()),
                Act::Lose(e) => {
                    if lab.machine.servers[usize::from(e)].is_up() {
                        lab.lose(e.into());
                    }
                }
                Act::Up(e) => {
                    if !lab.machine.servers[usize::from(e)].is_up() {
                        lab.up(e.into());
                    }
                }
                Act::Leave(e) => lab.leave(e.into()),
                Act::Wait => lab.pass(Duration::from_millis(100)),
            }
        }
        if lab.machine.primary().is_none() {
            lab.up(0);
        }
        lab.settle_all();
        lab.pass(Duration::from_secs(2));
        lab.settle_all();
        lab.judge_all_but_order();
        // Whatever was asked has one number and one end.
        lab.pass(SETTLE_PATIENCE);
        for ticket in tickets {
            assert!(lab.settled.contains_key(&ticket), "{ticket} is forgotten");
        }
    }

    impl Lab {
        /// Messages may be missed between subscriptions, as a player may miss them, and come
        /// late by another server; but none is told twice.
        fn judge_all_but_order(&mut self) {
            let mut rest = self.ledger.sends.clone();
            for told in &self.told {
                if let Told::Send { payload, .. } = told {
                    let at = rest.iter().position(|sent| sent == payload);
                    rest.swap_remove(at.expect("a message is told twice"));
                }
            }
            self.told.retain(|told| !matches!(told, Told::Send { .. }));
            self.ledger.sends.clear();
            self.judge();
        }
    }

    #[test]
    fn whatever_happens_there_is_one_history() {
        let mut config = Config::with_cases(200);
        config.failure_persistence = None;
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
        let mut runner = TestRunner::new_with_rng(config, rng);
        runner
            .run(&(acts(), any::<bool>()), |(acts, last_wins)| {
                run(&acts, last_wins);
                Ok(())
            })
            .unwrap();
    }
}
