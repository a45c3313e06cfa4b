//! A slow subscriber is left where all that it was to be told would have left it.

#![allow(clippy::unwrap_used, reason = "a broken test is to end at once")]

use std::collections::BTreeMap;

use bytes::Bytes;
use model::object::{ObjectEvent, ObjectStatus, ObjectUpdate};
use model::{ObjectKind, ObjectName, SlotName, SlotValue, Version};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use selvage_session::object::{Collapse, Pressure};

fn slot(name: &str) -> SlotName {
    SlotName::new(name).unwrap()
}

fn change(name: &str, to: u8) -> ObjectEvent {
    ObjectEvent::Change {
        slot: slot(name),
        value: SlotValue(vec![1, to].into()),
    }
}

fn removed(name: &str) -> ObjectEvent {
    ObjectEvent::Remove { slot: slot(name) }
}

fn success(name: &str) -> ObjectEvent {
    ObjectEvent::Success { slot: slot(name) }
}

fn send(text: &'static str) -> ObjectEvent {
    ObjectEvent::Send(Bytes::from_static(text.as_bytes()))
}

fn update(version: u32, events: Vec<ObjectEvent>) -> ObjectUpdate {
    ObjectUpdate {
        name: ObjectName::new("chat").unwrap(),
        kind: ObjectKind::Temporary,
        version: Version(version),
        events,
    }
}

/// Pushes one event after the other, with versions from 1, and takes.
fn collapsed(events: Vec<ObjectEvent>) -> Vec<ObjectEvent> {
    let mut collapse = Collapse::default();
    for (version, event) in (1..).zip(events) {
        assert_eq!(collapse.push(update(version, vec![event])), Pressure::Fine);
    }
    collapse.take().map(|u| u.events).unwrap_or_default()
}

#[test]
fn only_the_last_value_of_a_slot_is_told() {
    let told = collapsed(vec![
        change("a", 1),
        change("b", 1),
        send("x"),
        change("a", 2),
        removed("b"),
    ]);
    assert_eq!(told, [change("a", 2), removed("b"), send("x")]);
}

#[test]
fn a_slot_that_went_and_came_again_is_told_both() {
    // The removal may be what the subscriber waits for.
    let told = collapsed(vec![
        change("a", 1),
        removed("a"),
        change("a", 2),
        change("a", 3),
    ]);
    assert_eq!(told, [removed("a"), change("a", 3)]);
    let told = collapsed(vec![removed("a"), change("a", 2), removed("a")]);
    assert_eq!(told, [removed("a")]);
}

#[test]
fn what_was_cleared_is_told_without_its_values() {
    let told = collapsed(vec![
        change("a", 1),
        ObjectEvent::Clear,
        change("b", 1),
        ObjectEvent::Clear,
        change("a", 2),
    ]);
    assert_eq!(
        told,
        [
            removed("a"),
            removed("b"),
            ObjectEvent::Clear,
            change("a", 2)
        ]
    );
}

#[test]
fn a_change_behind_the_acceptance_of_a_write_stays_behind_it() {
    let told = collapsed(vec![
        change("a", 1),
        success("a"),
        change("a", 2),
        change("a", 3),
    ]);
    assert_eq!(told, [change("a", 1), success("a"), change("a", 3)]);
}

#[test]
fn an_answer_is_not_merged_and_nothing_crosses_it() {
    let mut collapse = Collapse::default();
    collapse.push(update(1, vec![change("a", 1)]));
    collapse.push(update(2, vec![change("a", 2)]));
    // A refusal: it looks like any other change.
    collapse.push_answer(update(3, vec![change("a", 2), removed("b")]));
    collapse.push(update(4, vec![change("a", 4)]));
    collapse.push(update(5, vec![change("a", 5), removed("b")]));
    let told = collapse.take().unwrap();
    assert_eq!(told.version, Version(5));
    assert_eq!(
        told.events,
        [
            change("a", 2),
            change("a", 2),
            removed("b"),
            change("a", 5),
            removed("b"),
        ]
    );
    assert!(collapse.is_empty() && collapse.bytes() == 0);
    assert_eq!(collapse.take(), None);
}

#[test]
fn the_version_is_that_of_the_last_change() {
    let mut collapse = Collapse::default();
    collapse.push(update(7, vec![change("a", 1)]));
    collapse.push(update(
        0,
        vec![ObjectEvent::Status(ObjectStatus::Undecided)],
    ));
    collapse.push(update(7, vec![send("x")]));
    assert_eq!(collapse.take().unwrap().version, Version(7));
    // A counter that began anew.
    collapse.push(update(1, vec![ObjectEvent::Clear, change("a", 1)]));
    assert_eq!(collapse.take().unwrap().version, Version(1));
}

#[test]
fn without_room_slots_are_given_up_until_the_whole_object_comes() {
    let mut collapse = Collapse::new(1000);
    collapse.push(update(3, vec![change("a", 1)]));
    assert_eq!(collapse.take().unwrap().version, Version(3));

    collapse.push(update(4, vec![success("mine")]));
    let names: Vec<String> = (0..10).map(|i| format!("s{i}")).collect();
    let many = || names.iter().map(|name| change(name, 1)).collect::<Vec<_>>();
    assert_eq!(collapse.push(update(5, many())), Pressure::Resync);
    assert!(collapse.needs_resync());
    assert_eq!(
        collapse.push(update(6, vec![send("x"), change("a", 2)])),
        Pressure::Resync
    );
    // It is told what it waits for, and does not believe to have what it lacks.
    let told = collapse.take().unwrap();
    assert_eq!(told.events, [success("mine"), send("x")]);
    assert_eq!(told.version, Version(3));
    assert!(collapse.needs_resync());

    let whole = vec![ObjectEvent::Clear, change("a", 2), change("s1", 1)];
    assert_eq!(collapse.push(update(6, whole.clone())), Pressure::Fine);
    let told = collapse.take().unwrap();
    assert_eq!((told.version, told.events), (Version(6), whole));
}

#[test]
fn what_may_not_be_given_up_can_be_too_much() {
    let mut collapse = Collapse::new(1000);
    let mut pressures = (0..8).map(|_| collapse.push(update(1, vec![send("x")])));
    assert!(pressures.by_ref().take(7).all(|p| p == Pressure::Fine));
    assert_eq!(pressures.next(), Some(Pressure::Overflow));
}

/// What a subscriber has: each slot's value, 0 being its own that was accepted.
#[derive(Debug, Default, PartialEq)]
struct Subscriber {
    slots: BTreeMap<SlotName, Vec<u8>>,
    /// In order: what may not be lost.
    heard: Vec<ObjectEvent>,
}

impl Subscriber {
    fn hear(&mut self, events: &[ObjectEvent]) {
        for event in events {
            match event {
                ObjectEvent::Clear => self.slots.clear(),
                ObjectEvent::Change { slot, value } => {
                    self.slots.insert(slot.clone(), value.0.to_vec());
                }
                ObjectEvent::Remove { slot } => {
                    self.slots.remove(slot);
                }
                ObjectEvent::Success { slot } => {
                    self.slots.insert(slot.clone(), vec![0]);
                    self.heard.push(event.clone());
                }
                ObjectEvent::UseSuccess
                | ObjectEvent::Send(_)
                | ObjectEvent::Sent { .. }
                | ObjectEvent::Status(_) => {
                    self.heard.push(event.clone());
                }
            }
        }
    }
}

fn mentioned(events: &[ObjectEvent]) -> Vec<SlotName> {
    let slots = events.iter().filter_map(|event| match event {
        ObjectEvent::Change { slot, .. } | ObjectEvent::Remove { slot } => Some(slot.clone()),
        ObjectEvent::UseSuccess
        | ObjectEvent::Clear
        | ObjectEvent::Success { .. }
        | ObjectEvent::Send(_)
        | ObjectEvent::Sent { .. }
        | ObjectEvent::Status(_) => None,
    });
    slots.collect()
}

fn any_event() -> impl Strategy<Value = ObjectEvent> {
    let name = || (0..4_u8).prop_map(|number| format!("s{number}"));
    prop_oneof![
        8 => (name(), 1..200_u8).prop_map(|(name, to)| change(&name, to)),
        3 => name().prop_map(|name| removed(&name)),
        2 => name().prop_map(|name| success(&name)),
        1 => Just(ObjectEvent::Clear),
        1 => Just(ObjectEvent::UseSuccess),
        2 => any::<u8>().prop_map(|byte| ObjectEvent::Send(vec![byte].into())),
        1 => any::<u8>().prop_map(|seq| ObjectEvent::Sent { seq: seq.into() }),
        1 => Just(ObjectEvent::Status(ObjectStatus::Undecided)),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Push(Vec<ObjectEvent>),
    Answer(Vec<ObjectEvent>),
    Take,
}

fn runner() -> TestRunner {
    let config = Config {
        cases: 400,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[8; 32]);
    TestRunner::new_with_rng(config, rng)
}

#[test]
fn the_slow_end_where_the_fast_end() {
    let steps = prop_oneof![
        10 => vec(any_event(), 1..4).prop_map(Step::Push),
        2 => vec(any_event(), 1..4).prop_map(Step::Answer),
        1 => Just(Step::Take),
    ];
    runner()
        .run(&vec(steps, 1..30), |steps| {
            let mut collapse = Collapse::default();
            let (mut fast, mut slow) = (Subscriber::default(), Subscriber::default());
            let mut version = 0;
            // What was said of slots since the last take, and how much.
            let mut said = Vec::new();
            for step in steps.into_iter().chain([Step::Take]) {
                version += 1;
                match step {
                    Step::Push(events) => {
                        fast.hear(&events);
                        said.extend(mentioned(&events));
                        prop_assert_eq!(collapse.push(update(version, events)), Pressure::Fine);
                    }
                    Step::Answer(events) => {
                        fast.hear(&events);
                        said.extend(mentioned(&events));
                        collapse.push_answer(update(version, events));
                    }
                    Step::Take => {
                        let told = collapse.take();
                        let events = told.map(|told| told.events).unwrap_or_default();
                        slow.hear(&events);
                        prop_assert_eq!(&slow, &fast);
                        let heard = mentioned(&events);
                        prop_assert!(said.iter().all(|slot| heard.contains(slot)));
                        prop_assert!(heard.len() <= said.len());
                        prop_assert_eq!(collapse.bytes(), 0);
                        said.clear();
                    }
                }
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn any_lack_of_room_is_made_good_by_the_whole_object() {
    runner()
        .run(&vec(vec(any_event(), 1..5), 1..40), |batches| {
            let mut collapse = Collapse::new(1500);
            let (mut fast, mut slow) = (Subscriber::default(), Subscriber::default());
            for (version, events) in (1..).zip(batches) {
                fast.hear(&events);
                match collapse.push(update(version, events)) {
                    Pressure::Fine => {}
                    Pressure::Overflow => return Ok(()),
                    Pressure::Resync => {
                        slow.hear(&collapse.take().map(|t| t.events).unwrap_or_default());
                        let slots = fast.slots.iter().map(|(slot, value)| ObjectEvent::Change {
                            slot: slot.clone(),
                            value: SlotValue(value.clone().into()),
                        });
                        let whole = std::iter::once(ObjectEvent::Clear).chain(slots).collect();
                        let pressure = collapse.push(update(version, whole));
                        prop_assert_eq!(pressure, Pressure::Fine);
                    }
                }
                prop_assert!(collapse.bytes() <= 1500);
            }
            slow.hear(&collapse.take().map(|t| t.events).unwrap_or_default());
            prop_assert_eq!(slow, fast);
            Ok(())
        })
        .unwrap();
}
