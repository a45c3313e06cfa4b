//! Histories that hold, and for each violation one that does not.

use std::collections::BTreeMap;

use super::*;

/// A history with a clock that ticks with each record.
struct Story {
    history: History,
    at: u64,
    asks: u64,
}

const MS: u64 = 1_000_000;

fn chat() -> Object {
    Object {
        name: "chat".to_owned(),
        incarnation: 0,
    }
}

fn set(slot: &str, value: &str) -> Op {
    Op::Set {
        slot: slot.to_owned(),
        value: value.to_owned(),
    }
}

fn remove(slot: &str) -> Op {
    let slot = slot.to_owned();
    Op::Remove { slot }
}

fn news(slot: &str, value: &str) -> Event {
    told(slot, value, Why::Changed)
}

fn told(slot: &str, value: &str, why: Why) -> Event {
    Event::Set {
        slot: slot.to_owned(),
        value: value.to_owned(),
        why,
    }
}

fn slots(pairs: &[(&str, &str)]) -> Slots {
    let pairs = pairs.iter();
    pairs
        .map(|(slot, value)| ((*slot).to_owned(), (*value).to_owned()))
        .collect()
}

fn written(version: u32) -> Answer {
    let refused = BTreeMap::new();
    Answer::Written { version, refused }
}

fn refused(version: u32, holds: Option<&str>) -> Answer {
    let refused = BTreeMap::from([(0, holds.map(str::to_owned))]);
    Answer::Written { version, refused }
}

impl Story {
    /// Connections of as many clients, all of which know the empty object.
    fn of(connections: u32) -> Self {
        let mut story = Self {
            history: History::new("story", 1),
            at: 0,
            asks: 0,
        };
        for connection in 0..connections {
            story.open(connection, None);
            story.subscribe(connection, 1, &[]);
        }
        story
    }

    fn tick(&mut self) -> u64 {
        self.at += MS;
        self.at
    }

    fn open(&mut self, connection: u32, resumes: Option<u32>) {
        let at = self.tick();
        self.history.push(Record::Open {
            at,
            connection,
            client: connection,
            resumes,
        });
    }

    fn close(&mut self, connection: u32) {
        let at = self.tick();
        self.history.push(Record::Close { at, connection });
    }

    fn ask(&mut self, connection: u32, what: Ask) -> u64 {
        let at = self.tick();
        self.asks += 1;
        self.history.push(Record::Ask {
            at,
            connection,
            ask: self.asks,
            object: chat(),
            what,
        });
        self.asks
    }

    fn answer(&mut self, ask: u64, answer: Answer) {
        let at = self.tick();
        self.history.push(Record::Answer { at, ask, answer });
    }

    fn subscribe(&mut self, connection: u32, version: u32, pairs: &[(&str, &str)]) {
        let ask = self.ask(connection, Ask::Use);
        let slots = slots(pairs);
        self.answer(ask, Answer::Used { version, slots });
    }

    fn write(&mut self, connection: u32, base: u32, ops: &[Op], answer: Answer) -> u64 {
        let ops = ops.to_vec();
        let base = Some(base);
        let ask = self.ask(connection, Ask::Write { base, ops });
        self.answer(ask, answer);
        ask
    }

    fn send(&mut self, connection: u32, id: &str, answer: Answer) {
        let ask = self.ask(connection, Ask::Send { id: id.to_owned() });
        self.answer(ask, answer);
    }

    fn lock(&mut self, connection: u32, answer: Answer) {
        let ask = self.ask(connection, Ask::Lock { lease_ms: 1_000 });
        self.answer(ask, answer);
    }

    fn unlock(&mut self, connection: u32, answer: Answer) {
        let ask = self.ask(connection, Ask::Unlock);
        self.answer(ask, answer);
    }

    fn see(&mut self, connection: u32, version: u32, events: &[Event]) {
        let at = self.tick();
        self.history.push(Record::Seen {
            at,
            connection,
            object: chat(),
            version,
            events: events.to_vec(),
        });
    }

    fn hear(&mut self, connection: u32, version: u32, id: &str) {
        self.see(connection, version, &[Event::Send { id: id.to_owned() }]);
    }

    #[track_caller]
    fn holds(&self) {
        let verdict = judge(&self.history);
        assert!(verdict.holds() && verdict.undecided.is_empty(), "{verdict}");
    }

    /// All that is found is of this kind, and something is.
    #[track_caller]
    fn shows(&self, kind: impl Fn(&Violation) -> bool) {
        let verdict = judge(&self.history);
        assert!(verdict.violations.iter().any(kind), "{verdict}");
    }

    #[track_caller]
    fn shows_only(&self, kind: impl Fn(&Violation) -> bool) {
        let verdict = judge(&self.history);
        let all = verdict.violations.iter().all(&kind);
        assert!(all && !verdict.holds(), "{verdict}");
    }
}

#[test]
fn two_clients_who_write_and_are_refused_hold() {
    let mut story = Story::of(2);
    story.write(0, 1, &[set("a", "1"), set("b", "2")], written(2));
    story.see(
        0,
        2,
        &[told("a", "1", Why::Accepted), told("b", "2", Why::Accepted)],
    );
    story.write(1, 1, &[set("a", "3")], refused(2, Some("1")));
    story.see(1, 2, &[news("a", "1"), news("b", "2")]);
    story.see(1, 2, &[told("a", "1", Why::Refused)]);
    story.write(1, 2, &[remove("b")], written(3));
    story.see(1, 3, &[Event::Remove { slot: "b".into() }]);
    story.see(0, 3, &[Event::Remove { slot: "b".into() }]);
    // Writing what is there changes nothing.
    story.write(0, 2, &[set("a", "1")], written(3));
    story.write(0, 3, &[Op::Clear], written(4));
    story.see(0, 4, &[Event::Clear]);
    story.see(1, 4, &[Event::Clear]);
    story.holds();
}

#[test]
fn an_undecided_write_may_or_may_not_have_happened() {
    let mut story = Story::of(2);
    story.write(0, 1, &[set("a", "1")], Answer::Undecided);
    story.write(0, 1, &[set("b", "2")], Answer::Undecided);
    story.write(1, 1, &[set("c", "3")], written(3));
    story.see(1, 2, &[news("a", "1")]);
    story.see(1, 3, &[told("c", "3", Why::Accepted)]);
    story.see(0, 3, &[news("c", "3"), news("a", "1")]);
    story.holds();
    // Its connection is lost: so it is undecided as well.
    let ops = vec![set("d", "4")];
    let _lost = story.ask(0, Ask::Write { base: None, ops });
    story.close(0);
    story.see(1, 4, &[news("d", "4")]);
    story.holds();
}

#[test]
fn every_request_is_answered_exactly_once() {
    let mut story = Story::of(1);
    let _silence = story.ask(0, Ask::Unlock);
    story.shows_only(|found| matches!(found, Violation::NotAnswered { .. }));
    let mut story = Story::of(1);
    let ask = story.write(0, 1, &[set("a", "1")], written(2));
    story.see(0, 2, &[told("a", "1", Why::Accepted)]);
    story.answer(ask, written(2));
    story.shows_only(|found| matches!(found, Violation::AnsweredTwice { .. }));
    story.answer(ask + 1, written(2));
    story.shows(|found| matches!(found, Violation::Malformed(_)));
}

#[test]
fn versions_never_go_back() {
    let mut story = Story::of(2);
    story.write(0, 1, &[set("a", "1")], written(2));
    story.see(0, 2, &[told("a", "1", Why::Accepted)]);
    story.see(1, 2, &[news("a", "1")]);
    story.see(1, 1, &[]);
    story.shows(|found| matches!(found, Violation::WentBack { .. }));
    // Over to the connection that resumes.
    let mut story = Story::of(2);
    story.write(0, 1, &[set("a", "1")], written(2));
    story.see(0, 2, &[told("a", "1", Why::Accepted)]);
    story.open(2, Some(0));
    story.subscribe(2, 1, &[]);
    story.shows(|found| matches!(found, Violation::WentBack { from: 2, to: 1, .. }));
}

#[test]
fn equal_versions_are_equal_slots() {
    let mut story = Story::of(2);
    for value in ["1", "2"] {
        story.write(0, 1, &[set("a", value)], Answer::Undecided);
    }
    story.see(0, 2, &[news("a", "1")]);
    story.see(1, 2, &[news("a", "2")]);
    story.shows(|found| matches!(found, Violation::NotTheSame { version: 2, .. }));
}

#[test]
fn an_acknowledged_write_is_not_lost() {
    let mut story = Story::of(2);
    story.write(0, 1, &[set("a", "1")], written(2));
    story.write(1, 1, &[set("b", "2")], written(3));
    story.see(1, 3, &[told("b", "2", Why::Accepted)]);
    story.shows_only(|found| matches!(found, Violation::Lost { ask: 3, .. }));
    // Nobody ever gets as far.
    let mut story = Story::of(2);
    story.write(0, 1, &[set("a", "1")], written(2));
    story.shows_only(|found| matches!(found, Violation::NeverSeen { written: 2, .. }));
}

#[test]
fn a_refused_write_is_never_seen() {
    for answer in [refused(2, Some("1")), Answer::Unavailable] {
        let mut story = Story::of(2);
        story.write(0, 1, &[set("a", "1")], written(2));
        story.see(0, 2, &[told("a", "1", Why::Accepted)]);
        story.write(1, 1, &[set("a", "2")], answer);
        story.see(0, 3, &[news("a", "2")]);
        story.shows(|found| matches!(found, Violation::RefusedButSeen { ask: 4, .. }));
    }
}

#[test]
fn nothing_is_seen_from_nowhere_too_early_or_twice() {
    let mut story = Story::of(1);
    story.see(0, 2, &[news("a", "1")]);
    story.shows_only(|found| matches!(found, Violation::FromNowhere { .. }));

    let mut story = Story::of(2);
    story.write(0, 1, &[set("a", "1")], written(5));
    story.see(1, 2, &[news("a", "1")]);
    story.see(1, 5, &[]);
    story.shows(|found| matches!(found, Violation::TooEarly { written: 5, .. }));

    let mut story = Story::of(2);
    story.write(0, 1, &[set("a", "1")], written(2));
    story.see(1, 2, &[news("a", "1")]);
    story.see(1, 3, &[news("a", "1")]);
    story.shows_only(|found| matches!(found, Violation::ToldTwice { version: 3, .. }));
}

#[test]
fn an_older_state_is_not_read_after_a_newer_one() {
    let mut story = Story::of(2);
    story.write(0, 1, &[set("a", "1")], written(2));
    story.see(0, 2, &[told("a", "1", Why::Accepted)]);
    story.open(2, None);
    story.subscribe(2, 1, &[]);
    story.shows(|found| {
        matches!(
            found,
            Violation::AgainstTime {
                earlier_version: 2,
                later_version: 1,
                ..
            }
        )
    });
}

#[test]
fn the_first_writer_wins() {
    // Both are accepted although the second had not seen the first.
    let mut story = Story::of(2);
    story.write(0, 1, &[set("a", "1")], written(2));
    story.see(0, 2, &[told("a", "1", Why::Accepted)]);
    story.see(1, 2, &[news("a", "1")]);
    story.write(1, 1, &[set("a", "2")], written(3));
    story.see(0, 3, &[news("a", "2")]);
    story.see(1, 3, &[told("a", "2", Why::Accepted)]);
    story.shows_only(|found| matches!(found, Violation::NotLinearizable { .. }));
    // A refusal without a reason.
    let mut story = Story::of(2);
    story.write(0, 1, &[set("a", "1")], written(2));
    story.see(0, 2, &[told("a", "1", Why::Accepted)]);
    story.see(1, 2, &[news("a", "1")]);
    story.write(1, 2, &[set("a", "2")], refused(2, Some("1")));
    story.shows_only(|found| matches!(found, Violation::NotLinearizable { .. }));
    // His own write is no reason.
    let mut story = Story::of(1);
    story.write(0, 1, &[set("a", "1")], written(2));
    story.write(0, 1, &[set("a", "2")], refused(2, Some("1")));
    story.see(0, 2, &[told("a", "1", Why::Accepted)]);
    story.shows_only(|found| matches!(found, Violation::NotLinearizable { .. }));
}

#[test]
fn a_clear_needs_not_to_have_seen_anything() {
    let mut story = Story::of(2);
    story.write(0, 1, &[set("a", "x")], written(2));
    story.write(1, 1, &[Op::Clear, set("b", "y")], written(3));
    story.subscribe(0, 3, &[("b", "y")]);
    story.holds();
}

#[test]
fn a_write_of_an_earlier_version_than_its_answer_may_be_written_over_and_not_lost() {
    let mut story = Story::of(2);
    let ask = story.ask(
        0,
        Ask::Write {
            base: None,
            ops: vec![set("a", "1")],
        },
    );
    story.write(1, 2, &[set("a", "2")], written(3));
    story.answer(ask, Answer::Made { version: 3 });
    story.subscribe(1, 3, &[("a", "2")]);
    story.holds();
    let mut story = Story::of(2);
    let ask = story.ask(
        0,
        Ask::Write {
            base: None,
            ops: vec![set("a", "1")],
        },
    );
    story.answer(ask, Answer::Made { version: 3 });
    story.subscribe(1, 3, &[]);
    story.shows_only(|found| matches!(found, Violation::NotLinearizable { .. }));
}

#[test]
fn two_writes_of_a_slot_have_two_versions() {
    let mut story = Story::of(2);
    story.write(0, 1, &[set("a", "1")], written(2));
    story.write(1, 2, &[set("a", "2")], written(2));
    story.see(0, 2, &[news("a", "2")]);
    story.shows(|found| matches!(found, Violation::NotLinearizable { .. }));
}

#[test]
fn a_long_history_is_searched_in_windows_and_faults_are_found_in_each() {
    const WRITES: u32 = 2_500;
    let mut story = Story::of(2);
    let long = |story: &mut Story, wrong: u32| {
        for write in 2..WRITES {
            let value = write.to_string();
            let by = write % 2;
            let base = if write == wrong { write - 2 } else { write - 1 };
            story.write(by, base, &[set("a", &value)], written(write));
            story.see(by, write, &[told("a", &value, Why::Accepted)]);
            story.see(1 - by, write, &[news("a", &value)]);
        }
    };
    long(&mut story, 0);
    let verdict = judge(&story.history);
    assert!(verdict.holds() && verdict.undecided.is_empty(), "{verdict}");
    assert!(verdict.searches >= 3, "{verdict}");
    for wrong in [10, 1_002, 2_490] {
        let mut story = Story::of(2);
        long(&mut story, wrong);
        story.shows_only(|found| matches!(found, Violation::NotLinearizable { .. }));
    }
}

#[test]
fn what_happens_at_once_is_ordered_somehow() {
    let mut story = Story::of(8);
    let write = |value: u32| Ask::Write {
        base: None,
        ops: vec![set("a", &value.to_string())],
    };
    for round in 0..40 {
        let asks: Vec<u64> = (0..8)
            .map(|by| story.ask(by, write(round * 8 + by)))
            .collect();
        for (by, ask) in (0..8).rev().zip(asks.into_iter().rev()) {
            story.answer(ask, written(2 + round * 8 + by));
        }
    }
    story.see(0, 321, &[news("a", "319")]);
    story.holds();
    story.subscribe(1, 321, &[("a", "318")]);
    story.shows(|found| matches!(found, Violation::Lost { .. }));
    story.shows(|found| matches!(found, Violation::NotLinearizable { .. }));
}

#[test]
fn locks_exclude_nest_and_end() {
    let locked = |token| Answer::Locked { token };
    let mut story = Story::of(3);
    story.lock(0, locked(7));
    story.lock(0, locked(7));
    story.unlock(0, Answer::Done);
    story.unlock(1, Answer::NotLocked);
    story.unlock(0, Answer::Done);
    story.unlock(0, Answer::NotLocked);
    story.lock(1, locked(8));
    story.close(1);
    story.lock(2, locked(9));
    story.at += 1_000 * MS;
    story.lock(0, locked(10));
    story.unlock(2, Answer::NotLocked);
    story.holds();

    let mut story = Story::of(2);
    story.lock(0, locked(7));
    story.lock(1, locked(8));
    story.shows_only(|found| matches!(found, Violation::NotLinearizable { .. }));

    let mut story = Story::of(2);
    story.lock(0, locked(7));
    story.write(1, 1, &[set("a", "1")], written(2));
    story.see(0, 2, &[news("a", "1")]);
    story.see(1, 2, &[told("a", "1", Why::Accepted)]);
    story.shows_only(|found| matches!(found, Violation::WrittenUnderLock { .. }));
}

#[test]
fn messages_have_one_order_and_come_once() {
    let mut story = Story::of(2);
    for (by, id) in [(0, "x"), (1, "y")] {
        story.send(by, id, Answer::Done);
    }
    let good = story.history.clone();
    for by in [0, 1] {
        story.hear(by, 1, "x");
        story.hear(by, 1, "y");
    }
    story.holds();
    story.hear(0, 1, "y");
    story.shows_only(|found| matches!(found, Violation::SendTwice { .. }));

    story.history = good.clone();
    for (by, id) in [(0, "x"), (0, "y"), (1, "y"), (1, "x")] {
        story.hear(by, 1, id);
    }
    story.shows_only(|found| matches!(found, Violation::SendOrder { .. }));

    story.history = good;
    for (by, id) in [(0, "x"), (0, "y"), (1, "y")] {
        story.hear(by, 1, id);
    }
    story.shows_only(
        |found| matches!(found, Violation::SendLost { connection: 1, id } if id == "x"),
    );
    story.hear(1, 1, "z");
    story.shows(|found| matches!(found, Violation::SendFromNowhere { .. }));
    story.send(0, "no", Answer::Unavailable);
    story.hear(1, 1, "no");
    story.shows(|found| matches!(found, Violation::SendRefusedButSeen { .. }));
}

#[test]
fn a_history_that_does_not_hold_is_kept_and_judged_again() {
    let recorder = Recorder::new("kept", 42);
    let connection = recorder.open(0, None);
    let ask = connection.ask(&chat(), Ask::Use);
    let slots = slots(&[("a", "1")]);
    connection.answer(ask, Answer::Used { version: 1, slots });
    let ops = vec![set("a", "2")];
    let ask = connection.ask(&chat(), Ask::Write { base: None, ops });
    connection.answer(ask, refused(1, Some("1")));
    connection.seen(&chat(), 1, vec![news("b", "2"), Event::Clear]);
    connection.close();
    let history = recorder.history();
    let failure = std::panic::catch_unwind(|| demand(&history)).unwrap_err();
    let text = failure.downcast_ref::<String>().unwrap();
    assert!(
        text.contains("seed 42") && text.contains("kept-42.jsonl"),
        "{text}"
    );
    let path = crate::lab::process::target_dir().join("judge/kept-42.jsonl");
    let again = History::read(&path).unwrap();
    assert_eq!(again, history);
    assert_eq!(judge(&again).violations, judge(&history).violations);
}
