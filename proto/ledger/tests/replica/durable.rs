//! Sessions that clients bring with them.

use std::time::Duration;

use model::SessionId;
use model::object::ObjectAsk;
use selvage_ledger::replica::{Output, SubscriberId, limits};
use selvage_ledger::{Command, Request};

use crate::lab::{Lab, Who, send, set, write};

/// A connection of a client that has a session of its own.
fn connection(edge: usize, id: u64) -> Who {
    Who {
        session: SessionId(0x00aa),
        durable: true,
        ..Who::new(edge, id)
    }
}

fn resume(lab: &mut Lab, who: Who, next: u64) {
    let now = lab.now;
    let replica = &mut lab.edges[who.edge].replica;
    replica.handle_resume(who.id, who.session, next, now);
}

fn leave(lab: &mut Lab, who: Who) {
    let now = lab.now;
    lab.edges[who.edge].replica.handle_left(who.id, now);
    lab.run();
}

/// What connections of one edge were told, each with its number.
fn told(lab: &mut Lab, edge: usize) -> Vec<(SubscriberId, String)> {
    let updates = lab.updates(edge).into_iter();
    updates
        .map(|(who, update)| (who, crate::lab::text(&update)))
        .collect()
}

#[test]
fn an_earlier_connection_that_ends_late_takes_nothing_from_the_one_that_resumed() {
    let mut lab = Lab::attached(7, 1, 2);
    // The primary is elsewhere; this edge has a connection that stands by, and that is
    // replaced before its end is noticed.
    let (primary, early, late) = (connection(1, 1), connection(0, 2), connection(0, 3));
    resume(&mut lab, primary, 1);
    for who in [primary, early, late] {
        lab.ask(who, 0, vec![ObjectAsk::Use]);
        lab.run();
    }
    lab.ask(primary, 1, write(vec![set("a", "1")]));
    lab.run();
    leave(&mut lab, primary);
    resume(&mut lab, late, 2);
    lab.ask(late, 2, write(vec![set("b", "2")]));
    leave(&mut lab, early);
    told(&mut lab, 0);
    lab.ask(late, 3, write(vec![set("c", "3")]));
    lab.run();
    assert_eq!(told(&mut lab, 0), [(late.id, "v4 ok:c".to_owned())]);
    assert_eq!(lab.values.len(), 3, "and it was made");
}

#[test]
fn who_uses_an_object_without_having_resumed_takes_no_numbers() {
    let mut lab = Lab::attached(7, 1, 1);
    let (first, second) = (connection(0, 1), connection(0, 2));
    resume(&mut lab, first, 1);
    lab.ask(first, 0, vec![ObjectAsk::Use]);
    lab.run();
    lab.ask(first, 1, write(vec![set("a", "1")]));
    lab.ask(second, 0, vec![ObjectAsk::Use]);
    told(&mut lab, 0);
    lab.run();
    assert!(told(&mut lab, 0).contains(&(first.id, "v2 ok:a".to_owned())));
    lab.ask(first, 2, write(vec![set("b", "2")]));
    lab.run();
    assert!(lab.answers.contains_key(&(first.session, 2)));
    // It dies, unheard, and its last request is asked again on the other.
    leave(&mut lab, first);
    resume(&mut lab, second, 2);
    lab.ask(second, 2, write(vec![set("b", "2")]));
    lab.run();
    assert!(lab.values.values().all(|times| *times == 1));
    assert_eq!(told(&mut lab, 0).last().unwrap().1, "v3 ok:b");
}

#[test]
fn who_loses_the_session_is_told_that_nobody_knows_what_becomes_of_it() {
    let mut lab = Lab::attached(7, 1, 1);
    let (first, second) = (connection(0, 1), connection(0, 2));
    resume(&mut lab, first, 1);
    for who in [first, second] {
        lab.ask(who, 0, vec![ObjectAsk::Use]);
        lab.run();
    }
    lab.lose = 100;
    lab.ask(first, 1, write(vec![set("a", "1")]));
    lab.run();
    told(&mut lab, 0);
    resume(&mut lab, second, 1);
    assert_eq!(
        told(&mut lab, 0),
        [(first.id, "v1 Undecided -a".to_owned())]
    );
    lab.lose = 0;
    lab.ask(second, 1, write(vec![set("a", "1")]));
    lab.pass(Duration::from_secs(10));
    assert_eq!(
        told(&mut lab, 0),
        [
            (first.id, "v2 a=1".to_owned()),
            (second.id, "v2 ok:a".to_owned())
        ]
    );
}

#[test]
fn what_was_asked_before_the_client_resumed_is_decided_without_it() {
    let mut lab = Lab::attached(7, 1, 1);
    let who = connection(0, 1);
    lab.ask(who, 0, vec![ObjectAsk::Use]);
    lab.run();
    lab.lose = 100;
    lab.ask(who, 1, write(vec![set("a", "1")]));
    lab.run();
    told(&mut lab, 0);
    resume(&mut lab, who, 1);
    assert_eq!(told(&mut lab, 0), [(who.id, "v1 Undecided -a".to_owned())]);
    lab.lose = 0;
    lab.pass(Duration::from_secs(10));
    lab.ask(who, 1, write(vec![set("a", "2")]));
    lab.run();
    assert_eq!(told(&mut lab, 0), [(who.id, "v2 ok:a".to_owned())]);
}

#[test]
fn a_request_that_is_refused_for_its_number_of_companions_is_counted() {
    let mut lab = Lab::attached(7, 1, 1);
    let early = connection(0, 1);
    resume(&mut lab, early, 1);
    lab.ask(early, 0, vec![ObjectAsk::Use]);
    lab.run();
    lab.lose = 100;
    for n in 1..=limits::REQUESTS_MAX + 1 {
        lab.ask(early, 1, write(vec![set("a", &n.to_string())]));
    }
    lab.lose = 0;
    lab.ask(early, 1, write(vec![set("b", "last")]));
    lab.pass(Duration::from_secs(20));
    // What comes behind it has the number that the client gave it.
    lab.ask(early, 1, write(vec![set("c", "next")]));
    lab.run();
    let next = limits::REQUESTS_MAX as u64 + 3;
    assert!(lab.answers.contains_key(&(early.session, next)));
}

#[test]
fn a_client_of_which_too_many_numbers_wait_is_sent_away_and_not_heard() {
    let mut lab = Lab::attached(7, 1, 2);
    let (early, late) = (connection(0, 1), connection(1, 2));
    resume(&mut lab, early, 1);
    lab.ask(early, 0, vec![ObjectAsk::Use]);
    lab.run();
    lab.set_leader(0, false);
    for _ in 0..limits::NUMBERS_MAX + 10 {
        lab.ask(early, 1, write(vec![set("a", "1")]));
    }
    lab.run();
    assert_eq!(lab.rest(0), [Output::Dismiss(early.id)]);
    lab.set_leader(0, true);
    lab.run();
    resume(&mut lab, early, 1);
    lab.ask(early, 1, write(vec![set("a", "2")]));
    lab.run();
    assert_eq!(lab.values.len(), 0);
    leave(&mut lab, early);
    resume(&mut lab, late, 1);
    lab.ask(late, 0, vec![ObjectAsk::Use]);
    lab.ask(late, 0, write(vec![set("a", "3")]));
    lab.run();
    assert_eq!(lab.values.len(), 1);
}

#[test]
fn who_counts_its_requests_is_told_which_of_its_messages_was_given_out() {
    let mut lab = Lab::attached(7, 1, 2);
    let (first, second) = (connection(0, 1), connection(1, 2));
    let other = Who {
        session: SessionId(0x00bb),
        ..Who::new(0, 3)
    };
    resume(&mut lab, first, 1);
    for who in [first, second, other] {
        lab.ask(who, 0, vec![ObjectAsk::Use]);
        lab.run();
    }
    told(&mut lab, 0);
    lab.ask(other, 1, send("tick"));
    lab.ask(first, 1, send("tick"));
    lab.run();
    let all = told(&mut lab, 0);
    let of = |who: Who| -> Vec<&str> {
        let to = all.iter().filter(|(to, _)| *to == who.id);
        to.map(|(_, text)| text.as_str()).collect()
    };
    // The words alone do not say whose they are.
    assert_eq!(of(first), ["v1 send:tick", "v1 send:tick", "v1 sent:1"]);
    assert_eq!(of(other), ["v1 send:tick", "v1 send:tick"]);
    // Asked again elsewhere it is answered, and not given out again.
    leave(&mut lab, first);
    told(&mut lab, 1);
    resume(&mut lab, second, 1);
    lab.ask(second, 1, send("tick"));
    lab.run();
    assert_eq!(told(&mut lab, 1), [(second.id, "v1 sent:1".to_owned())]);
    assert_eq!(told(&mut lab, 0), []);
}

#[test]
fn a_message_whose_number_was_used_up_by_nothing_is_not_said_to_be_given_out() {
    let mut lab = Lab::attached(7, 1, 2);
    let (first, second) = (connection(0, 1), connection(1, 2));
    resume(&mut lab, first, 1);
    for who in [first, second] {
        lab.ask(who, 0, vec![ObjectAsk::Use]);
        lab.run();
    }
    // No origin hears of it in time, and then its number is used up.
    lab.lose = 100;
    lab.ask(first, 1, send("tick"));
    lab.pass(Duration::from_secs(6));
    lab.lose = 0;
    lab.pass(Duration::from_secs(10));
    assert!(lab.answers.contains_key(&(first.session, 1)));
    // Its client was told, but never heard it.
    leave(&mut lab, first);
    told(&mut lab, 1);
    resume(&mut lab, second, 1);
    lab.ask(second, 1, send("tick"));
    lab.run();
    assert_eq!(
        told(&mut lab, 1),
        [(second.id, "v1 Unavailable".to_owned())]
    );
}

/// How often the log says that the session of these clients is over.
fn ends(lab: &Lab) -> usize {
    let commands = lab.log.iter().map(|bytes| Command::decode(bytes).unwrap());
    let ends = |command: &Command| match command {
        Command::Propose(proposal) => match &proposal.request {
            Request::EndSessions(sessions) => sessions.contains(&SessionId(0x00aa)),
            _ => false,
        },
        _ => false,
    };
    commands.filter(ends).count()
}

#[test]
fn the_session_of_a_client_that_comes_back_nowhere_is_ended_in_the_end() {
    let mut lab = Lab::attached(7, 1, 1);
    let who = connection(0, 1);
    resume(&mut lab, who, 1);
    lab.ask(who, 0, vec![ObjectAsk::Use]);
    lab.ask(who, 0, write(vec![set("a", "1")]));
    lab.run();
    leave(&mut lab, who);
    lab.pass(limits::DEPARTED_KEPT - Duration::from_secs(1));
    assert_eq!(ends(&lab), 0);
    // It comes back once more in time, and its number counts.
    let back = connection(0, 2);
    resume(&mut lab, back, 2);
    lab.pass(Duration::from_secs(2));
    assert_eq!(ends(&lab), 0);
    leave(&mut lab, back);
    lab.pass(limits::DEPARTED_KEPT * 2);
    assert_eq!(ends(&lab), 1);
    // One that counted nothing leaves nothing to be ended.
    let other = connection(0, 3);
    resume(&mut lab, other, 1);
    leave(&mut lab, other);
    lab.pass(limits::DEPARTED_KEPT * 2);
    assert_eq!(ends(&lab), 1);
}
