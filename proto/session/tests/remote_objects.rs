//! Many clients of one object, against a server that is right.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
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
use selvage_session::client::object::SyncCode::{Delete, Reject, Success};
use selvage_session::client::object::{Event, Output, RemoteObject};
use selvage_session::object::{Bounds, Collapse, ObjectMessage, WireEvent, body, decode_value};

fn slot(name: &str) -> SlotName {
    SlotName::new(name).unwrap()
}

fn drain(object: &mut RemoteObject) -> Vec<Output> {
    std::iter::from_fn(|| object.poll_output()).collect()
}

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
