//! A client's object, word by word, and many of them against a server that is right.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a broken test is to end at once"
)]

use std::collections::{BTreeMap, VecDeque};

use amf::Value;
use model::object::{ObjectEvent, ObjectUpdate};
use model::{ObjectKind, ObjectName, SlotName, SlotValue, Version};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use selvage_session::ObjectEncoding::Amf3;
use selvage_session::client::object::{Event, Output, RemoteObject, Sync, SyncCode};
use selvage_session::object::{
    Bounds, Collapse, ObjectMessage, WireEvent, body, decode_value, encode_value,
};

fn slot(name: &str) -> SlotName {
    SlotName::new(name).unwrap()
}

fn wire(to: impl Into<Value>) -> SlotValue {
    encode_value(&to.into()).unwrap()
}

fn change(name: &str, to: impl Into<Value>) -> WireEvent {
    WireEvent::Change {
        slot: slot(name),
        value: wire(to),
    }
}

fn set(name: &str, to: impl Into<Value>) -> WireEvent {
    WireEvent::RequestChange {
        slot: slot(name),
        value: wire(to),
    }
}

fn removed(name: &str) -> WireEvent {
    WireEvent::Remove { slot: slot(name) }
}

fn success(name: &str) -> WireEvent {
    WireEvent::Success { slot: slot(name) }
}

fn status(code: &str) -> WireEvent {
    WireEvent::Status {
        code: code.into(),
        level: "error".into(),
    }
}

fn message(version: u32, events: Vec<WireEvent>) -> ObjectMessage {
    let mut message = ObjectMessage::new("chat", ObjectKind::Temporary, version);
    message.events = events;
    message
}

fn object() -> RemoteObject {
    RemoteObject::new(ObjectName::new("chat").unwrap(), ObjectKind::Temporary)
}

/// An object in use at version 7, with `count` 3.
fn used() -> RemoteObject {
    let mut object = object();
    object.use_it();
    let first = vec![
        WireEvent::UseSuccess,
        WireEvent::Clear,
        change("count", 3.0),
    ];
    object.handle_update(&message(7, first)).unwrap();
    drain(&mut object);
    object
}

fn drain(object: &mut RemoteObject) -> Vec<Output> {
    std::iter::from_fn(|| object.poll_output()).collect()
}

fn says(version: u32, events: Vec<WireEvent>) -> Output {
    Output::Message(message(version, events))
}

fn sync(list: &[(SyncCode, &str, Option<Value>)]) -> Output {
    let list = list.iter().map(|(code, name, old)| Sync {
        code: *code,
        name: (!name.is_empty()).then(|| slot(name)),
        old_value: old.clone(),
    });
    Output::Event(Event::Sync(list.collect()))
}

fn get(object: &RemoteObject, name: &str) -> Option<Value> {
    object.get(&slot(name)).cloned()
}

use SyncCode::{Change, Clear, Delete, Reject, Success};

#[test]
fn the_first_sync_clears_and_has_what_there_is() {
    let mut object = object();
    object.use_it();
    assert_eq!(drain(&mut object), [says(0, vec![WireEvent::Use])]);
    let first = vec![WireEvent::UseSuccess, WireEvent::Clear, change("a", 1.0)];
    object.handle_update(&message(7, first)).unwrap();
    let expected = sync(&[(Clear, "", None), (Change, "a", None)]);
    assert_eq!(drain(&mut object), [expected]);
    assert!(object.is_used() && object.version() == 7);
    assert_eq!(get(&object, "a"), Some(1.0.into()));
}

#[test]
fn the_first_sync_comes_even_when_there_is_nothing_to_say() {
    let mut object = object();
    object.use_it();
    drain(&mut object);
    let first = message(1, vec![WireEvent::UseSuccess]);
    object.handle_update(&first).unwrap();
    assert_eq!(drain(&mut object), [sync(&[])]);
}

#[test]
fn only_the_last_value_of_a_slot_is_sent_and_one_batch_at_a_time() {
    let mut object = used();
    object.set(slot("count"), 4.0.into()).unwrap();
    object.set(slot("count"), 5.0.into()).unwrap();
    object.remove(slot("who")).unwrap();
    object.flush();
    let batch = vec![
        set("count", 5.0),
        WireEvent::RequestRemove { slot: slot("who") },
    ];
    assert_eq!(drain(&mut object), [says(7, batch)]);
    // Own writes are read at once.
    assert_eq!(get(&object, "count"), Some(5.0.into()));

    object.set(slot("count"), 6.0.into()).unwrap();
    object.flush();
    object.set(slot("more"), "x".into()).unwrap();
    assert_eq!(drain(&mut object), []);

    let half = message(8, vec![success("count")]);
    object.handle_update(&half).unwrap();
    assert_eq!(drain(&mut object), [sync(&[(Success, "count", None)])]);
    let rest = message(8, vec![removed("who")]);
    object.handle_update(&rest).unwrap();
    let next = vec![set("count", 6.0), set("more", "x")];
    assert_eq!(
        drain(&mut object),
        [sync(&[(Delete, "who", None)]), says(8, next)]
    );
}

#[test]
fn a_refusal_shows_the_winners_value() {
    let mut object = used();
    object.set(slot("count"), 5.0.into()).unwrap();
    object.set(slot("new"), 1.0.into()).unwrap();
    object.flush();
    drain(&mut object);
    let refused = vec![change("count", 6.0), removed("new")];
    object.handle_update(&message(9, refused)).unwrap();
    let list = [
        (Reject, "count", Some(5.0.into())),
        (Reject, "new", Some(1.0.into())),
    ];
    assert_eq!(drain(&mut object), [sync(&list)]);
    assert_eq!(get(&object, "count"), Some(6.0.into()));
    assert_eq!(get(&object, "new"), None);
    assert!(!object.is_waiting());
}

#[test]
fn what_others_do_is_told_with_what_was_before() {
    let mut object = used();
    object
        .handle_update(&message(8, vec![change("count", 4.0)]))
        .unwrap();
    object
        .handle_update(&message(9, vec![removed("count")]))
        .unwrap();
    object
        .handle_update(&message(10, vec![WireEvent::Clear]))
        .unwrap();
    assert_eq!(
        drain(&mut object),
        [
            sync(&[(Change, "count", Some(3.0.into()))]),
            sync(&[(Delete, "count", Some(4.0.into()))]),
            sync(&[(Clear, "", None)]),
        ]
    );
    let other = ObjectMessage::new("other", ObjectKind::Temporary, 99);
    object.handle_update(&other).unwrap();
    assert_eq!(object.version(), 10);
}

#[test]
fn null_takes_a_slot_away_and_a_clear_all_of_them() {
    let mut object = used();
    object.set(slot("count"), Value::Null).unwrap();
    assert_eq!(get(&object, "count"), None);
    object.flush();
    let remove = WireEvent::RequestRemove {
        slot: slot("count"),
    };
    assert_eq!(drain(&mut object), [says(7, vec![remove])]);
    object
        .handle_update(&message(8, vec![removed("count")]))
        .unwrap();
    let gone = sync(&[(Delete, "count", Some(3.0.into()))]);
    assert_eq!(drain(&mut object), [gone]);

    object.set(slot("a"), 1.0.into()).unwrap();
    object.clear();
    object.set(slot("b"), 1.0.into()).unwrap();
    assert_eq!(object.slots().count(), 1);
    object.flush();
    let batch = vec![WireEvent::RequestClear, set("b", 1.0)];
    assert_eq!(drain(&mut object), [says(8, batch)]);
    let answer = vec![WireEvent::Clear, success("b")];
    object.handle_update(&message(9, answer)).unwrap();
    let list = [(Clear, "", None), (Success, "b", None)];
    assert_eq!(drain(&mut object), [sync(&list)]);
    assert!(!object.is_waiting());
}

#[test]
fn a_change_that_crossed_a_request_does_not_hide_that_it_was_accepted() {
    let mut object = used();
    object.set(slot("count"), 5.0.into()).unwrap();
    object.flush();
    drain(&mut object);
    object
        .handle_update(&message(8, vec![change("count", 4.0)]))
        .unwrap();
    object
        .handle_update(&message(9, vec![success("count")]))
        .unwrap();
    let list = [
        sync(&[(Reject, "count", Some(5.0.into()))]),
        sync(&[(Success, "count", None)]),
    ];
    assert_eq!(drain(&mut object), list);
    assert_eq!(get(&object, "count"), Some(5.0.into()));
}

#[test]
fn messages_are_not_gathered_and_come_back() {
    let mut object = used();
    object.send("onMsg", ["hello".into()]).unwrap();
    object.send("onMsg", ["hello".into()]).unwrap();
    let sent = drain(&mut object);
    assert_eq!(sent.len(), 2);
    let Output::Message(first) = &sent[0] else {
        panic!("{sent:?}");
    };
    // The version of a message to all says nothing.
    let mut echo = first.clone();
    echo.version = 0;
    echo.events.insert(0, change("count", 4.0));
    object.handle_update(&echo).unwrap();
    let heard = Output::Event(Event::Message {
        handler: "onMsg".into(),
        args: vec!["hello".into()],
    });
    let before = sync(&[(Change, "count", Some(3.0.into()))]);
    assert_eq!(drain(&mut object), [before, heard]);
}

#[test]
fn a_write_that_could_not_be_decided_is_refused_with_a_status() {
    let mut object = used();
    object.set(slot("count"), 5.0.into()).unwrap();
    object.flush();
    drain(&mut object);
    let told = vec![change("count", 3.0), status("SharedObject.Undecided")];
    object.handle_update(&message(7, told)).unwrap();
    let failed = Output::Event(Event::Status {
        code: "SharedObject.Undecided".into(),
        level: "error".into(),
    });
    let rejected = sync(&[(Reject, "count", Some(5.0.into()))]);
    assert_eq!(drain(&mut object), [failed, rejected]);
    // It turns out to be made.
    object
        .handle_update(&message(8, vec![change("count", 5.0)]))
        .unwrap();
    let made = sync(&[(Change, "count", Some(3.0.into()))]);
    assert_eq!(drain(&mut object), [made]);
}

#[test]
fn a_use_that_is_refused_leaves_it_unused() {
    let mut object = object();
    object.use_it();
    drain(&mut object);
    object
        .handle_update(&message(0, vec![status("SharedObject.BadPersistence")]))
        .unwrap();
    assert!(!object.is_used());
    object.set(slot("a"), 1.0.into()).unwrap();
    object.flush();
    assert_eq!(drain(&mut object).len(), 1, "the status alone");
}

#[test]
fn what_was_under_way_when_the_connection_broke_is_written_anew() {
    let mut object = used();
    object.set(slot("count"), 5.0.into()).unwrap();
    object.set(slot("a"), 1.0.into()).unwrap();
    object.flush();
    object.set(slot("a"), 2.0.into()).unwrap();
    drain(&mut object);
    object.lost();
    object.use_it();
    assert_eq!(drain(&mut object), [says(7, vec![WireEvent::Use])]);
    let resumed = vec![WireEvent::UseSuccess, change("count", 9.0)];
    object.handle_update(&message(8, resumed)).unwrap();
    let batch = vec![set("a", 2.0), set("count", 5.0)];
    let news = sync(&[(Change, "count", Some(5.0.into()))]);
    assert_eq!(drain(&mut object), [news, says(8, batch)]);
}

#[test]
fn a_batch_is_no_larger_than_a_server_takes() {
    for (count, text) in [(2500, "x"), (12, &"x".repeat(50_000)[..])] {
        let mut object = used();
        for i in 0..count {
            object.set(slot(&format!("s{i:04}")), text.into()).unwrap();
        }
        object.flush();
        let mut sent = 0;
        while let Some(output) = object.poll_output() {
            let Output::Message(asked) = output else {
                continue;
            };
            let bytes = asked.encode(Amf3);
            let read = ObjectMessage::decode(&bytes, Amf3, Bounds::ASKS).unwrap();
            sent += read.events.len();
            let answer = read.events.iter().map(|event| match event {
                WireEvent::RequestChange { slot, .. } => WireEvent::Success { slot: slot.clone() },
                other => panic!("{other:?}"),
            });
            let answer = answer.collect();
            assert!(object.is_waiting());
            object.handle_update(&message(8, answer)).unwrap();
        }
        assert_eq!(sent, count);
        assert!(!object.is_dirty() && !object.is_waiting());
    }
}

#[test]
fn a_value_that_cannot_be_written_is_not_taken() {
    let mut object = used();
    object.set(slot("count"), Value::Reference(7)).unwrap_err();
    assert!(!object.is_dirty());
    assert_eq!(get(&object, "count"), Some(3.0.into()));
}

// ----- many clients and a server that is right

#[derive(Debug, Default)]
struct Server {
    version: u32,
    slots: BTreeMap<SlotName, (SlotValue, u32, usize)>,
    tombs: BTreeMap<SlotName, (u32, usize)>,
    accepted: Vec<usize>,
}

impl Server {
    fn name() -> ObjectName {
        ObjectName::new("chat").unwrap()
    }

    fn update(&self, events: Vec<ObjectEvent>) -> ObjectUpdate {
        ObjectUpdate {
            name: Self::name(),
            kind: ObjectKind::Persistent,
            version: Version(self.version),
            events,
        }
    }

    /// The rule of resynchronisation, with everything remembered.
    fn welcome(&self, have: u32) -> ObjectUpdate {
        let mut events = vec![ObjectEvent::UseSuccess];
        if have == 0 {
            events.push(ObjectEvent::Clear);
        }
        let gone = self
            .tombs
            .iter()
            .filter(|(_, (at, _))| *at > have && have > 0);
        events.extend(gone.map(|(slot, _)| ObjectEvent::Remove { slot: slot.clone() }));
        let new = self.slots.iter().filter(|(_, (_, at, _))| *at > have);
        events.extend(new.map(|(slot, (value, _, _))| ObjectEvent::Change {
            slot: slot.clone(),
            value: value.clone(),
        }));
        self.update(events)
    }

    /// One batch: the answer, and what the others are told.
    fn write(&mut self, who: usize, asked: &ObjectMessage) -> (ObjectUpdate, ObjectUpdate) {
        let (mut answer, mut others) = (Vec::new(), Vec::new());
        self.version += 1;
        for event in &asked.events {
            let (slot, value) = match event {
                WireEvent::RequestChange { slot, value } => (slot, Some(value)),
                WireEvent::RequestRemove { slot } => (slot, None),
                other => panic!("{other:?}"),
            };
            let last = match (self.slots.get(slot), self.tombs.get(slot)) {
                (Some((_, at, by)), _) | (None, Some((at, by))) => (*at, *by),
                (None, None) => (0, who),
            };
            let gone = ObjectEvent::Remove { slot: slot.clone() };
            if last.0 > asked.version && last.1 != who {
                answer.push(self.slots.get(slot).map_or(gone, |(value, _, _)| {
                    let (slot, value) = (slot.clone(), value.clone());
                    ObjectEvent::Change { slot, value }
                }));
                continue;
            }
            self.tombs.remove(slot);
            self.slots.remove(slot);
            self.accepted[who] += 1;
            if let Some(value) = value {
                let kept = (value.clone(), self.version, who);
                self.slots.insert(slot.clone(), kept);
                answer.push(ObjectEvent::Success { slot: slot.clone() });
                others.push(ObjectEvent::Change {
                    slot: slot.clone(),
                    value: value.clone(),
                });
            } else {
                self.tombs.insert(slot.clone(), (self.version, who));
                answer.push(gone.clone());
                others.push(gone);
            }
        }
        (self.update(answer), self.update(others))
    }
}

struct Client {
    object: RemoteObject,
    up: VecDeque<ObjectMessage>,
    down: VecDeque<ObjectUpdate>,
    /// Instead of `down`, while its socket is blocked.
    slow: Option<Collapse>,
    sets: usize,
    successes: usize,
    rejects: usize,
    deletes: usize,
    broken: bool,
}

struct World {
    server: Server,
    clients: Vec<Client>,
}

#[derive(Clone, Debug)]
enum Step {
    Set(usize, u8, u8),
    Remove(usize, u8),
    Flush(usize),
    Up(usize),
    Down(usize),
    Block(usize),
    Break(usize),
}

const CLIENTS: usize = 3;

impl World {
    fn new() -> Self {
        let client = |_| Client {
            object: RemoteObject::new(Server::name(), ObjectKind::Persistent),
            up: VecDeque::new(),
            down: VecDeque::new(),
            slow: None,
            sets: 0,
            successes: 0,
            rejects: 0,
            deletes: 0,
            broken: false,
        };
        let mut world = Self {
            server: Server {
                accepted: vec![0; CLIENTS],
                version: 1,
                ..Server::default()
            },
            clients: (0..CLIENTS).map(client).collect(),
        };
        for who in 0..CLIENTS {
            world.clients[who].object.use_it();
            world.drain(who);
        }
        world
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Set(who, name, to) => {
                let name = slot(&format!("s{name}"));
                self.clients[who]
                    .object
                    .set(name, f64::from(to).into())
                    .unwrap();
            }
            Step::Remove(who, name) => {
                self.clients[who]
                    .object
                    .remove(slot(&format!("s{name}")))
                    .unwrap();
            }
            Step::Flush(who) => {
                self.clients[who].object.flush();
                self.drain(who);
            }
            Step::Up(who) => self.up(who),
            Step::Down(who) => self.down(who),
            Step::Block(who) => {
                let client = &mut self.clients[who];
                client.slow.get_or_insert_default();
            }
            Step::Break(who) => {
                let client = &mut self.clients[who];
                client.up.clear();
                client.down.clear();
                client.slow = None;
                client.broken = true;
                client.object.lost();
                client.object.use_it();
                self.drain(who);
            }
        }
    }

    fn up(&mut self, who: usize) {
        let Some(asked) = self.clients[who].up.pop_front() else {
            return;
        };
        if asked.events == [WireEvent::Use] {
            let welcome = self.server.welcome(asked.version);
            self.clients[who].tell(welcome, true);
            return;
        }
        let (answer, others) = self.server.write(who, &asked);
        for (other, client) in self.clients.iter_mut().enumerate() {
            if other == who {
                client.tell(answer.clone(), true);
            } else if !others.events.is_empty() && client.is_served() {
                client.tell(others.clone(), false);
            }
        }
    }

    /// One update through the bytes of the wire.
    fn down(&mut self, who: usize) {
        let client = &mut self.clients[who];
        if let Some(told) = client.slow.take().and_then(|mut slow| slow.take()) {
            client.down.push_back(told);
        }
        let Some(update) = client.down.pop_front() else {
            return;
        };
        let read = ObjectMessage::decode(&body(&update, Amf3), Amf3, Bounds::UPDATES).unwrap();
        let before = client.object.version();
        client.object.handle_update(&read).unwrap();
        assert!(client.object.version() >= before, "back in time");
        self.drain(who);
    }

    fn drain(&mut self, who: usize) {
        let client = &mut self.clients[who];
        for output in drain(&mut client.object) {
            match output {
                Output::Message(message) => {
                    for event in &message.events {
                        client.sets +=
                            usize::from(matches!(event, WireEvent::RequestChange { .. }));
                    }
                    client.up.push_back(message);
                }
                Output::Event(Event::Sync(list)) => {
                    for sync in list {
                        client.successes += usize::from(sync.code == Success);
                        client.rejects += usize::from(sync.code == Reject);
                        client.deletes += usize::from(sync.code == Delete);
                    }
                }
                Output::Event(other) => panic!("{other:?}"),
            }
        }
    }

    /// Everything that is under way arrives.
    fn settle(&mut self) {
        for _ in 0..1000 {
            for who in 0..CLIENTS {
                self.step(Step::Flush(who));
                self.up(who);
                self.down(who);
            }
        }
    }

    fn judge(&self) -> Result<(), TestCaseError> {
        let there: BTreeMap<SlotName, Value> = self
            .server
            .slots
            .iter()
            .map(|(slot, (value, _, _))| (slot.clone(), decode_value(value).unwrap()))
            .collect();
        for (who, client) in self.clients.iter().enumerate() {
            prop_assert!(!client.object.is_waiting() && !client.object.is_dirty());
            let here: BTreeMap<SlotName, Value> = client
                .object
                .slots()
                .map(|(slot, value)| (slot.clone(), value.clone()))
                .collect();
            prop_assert_eq!(&here, &there, "client {}", who);
            // Every write was answered. A Reject may be taken back by a Success, never the
            // other way round.
            if !client.broken {
                let accepted = self.server.accepted[who];
                prop_assert!(client.successes <= accepted);
                prop_assert!(client.successes + client.rejects + client.deletes >= client.sets);
            }
        }
        Ok(())
    }
}

impl Client {
    /// Whether a Use of this connection has been served.
    fn is_served(&self) -> bool {
        !self.up.iter().any(|asked| asked.events == [WireEvent::Use])
    }

    fn tell(&mut self, update: ObjectUpdate, answer: bool) {
        match &mut self.slow {
            Some(slow) if answer => drop(slow.push_answer(update)),
            Some(slow) => drop(slow.push(update)),
            None => self.down.push_back(update),
        }
    }
}

#[test]
fn all_clients_end_with_what_the_server_has() {
    let who = || 0..CLIENTS;
    let step = prop_oneof![
        6 => (who(), 0..4_u8, any::<u8>()).prop_map(|(who, name, to)| Step::Set(who, name, to)),
        2 => (who(), 0..4_u8).prop_map(|(who, name)| Step::Remove(who, name)),
        5 => who().prop_map(Step::Flush),
        6 => who().prop_map(Step::Up),
        6 => who().prop_map(Step::Down),
        1 => who().prop_map(Step::Block),
        1 => who().prop_map(Step::Break),
    ];
    let config = Config {
        cases: 150,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[4; 32]);
    TestRunner::new_with_rng(config, rng)
        .run(&vec(step, 1..120), |steps| {
            let mut world = World::new();
            for step in steps {
                world.step(step);
            }
            world.settle();
            world.judge()
        })
        .unwrap();
}
