//! A ledger and its edges, with the network in the test's hands.

use std::collections::BTreeMap;
use std::time::Duration;

use model::SlotOp;

use super::super::*;

/// What all edges agree on: one object, requests applied once and in their order.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) version: u32,
    pub(super) slots: BTreeMap<SlotName, (SlotValue, u32)>,
    pub(super) removed: BTreeMap<SlotName, u32>,
    /// By number: which slots were refused.
    pub(super) done: BTreeMap<u64, Vec<SlotName>>,
    pub(super) sends: Vec<Bytes>,
    pub(super) log: Vec<Entry>,
    pub(super) policy_last_wins: bool,
}

/// What every edge gives out, in order.
#[derive(Clone)]
pub(super) enum Entry {
    Slots {
        version: u32,
        slots: Vec<(SlotName, Option<SlotValue>)>,
    },
    Send(Bytes),
}

/// One edge as the client is connected to it.
#[derive(Default)]
pub(super) struct Edge {
    /// How much of the ledger's log it has applied.
    pub(super) seen: usize,
    pub(super) subscribed: bool,
    pub(super) next: u64,
    /// What the client has asked and the edge has not read.
    pub(super) asks: VecDeque<(ObjectAsk, Version)>,
    /// What the edge has said and the client has not read.
    pub(super) said: VecDeque<ObjectUpdate>,
}

pub(super) struct Lab {
    pub(super) machine: Machine,
    pub(super) now: Instant,
    pub(super) ledger: Ledger,
    pub(super) edges: Vec<Edge>,
    pub(super) dials: Vec<usize>,
    pub(super) hung_up: Vec<usize>,
    pub(super) told: Vec<Told>,
    pub(super) settled: BTreeMap<Ticket, Settled>,
    /// Resumes that the test answers itself.
    pub(super) resumes: Vec<usize>,
    pub(super) answer_resumes: bool,
    pub(super) tickets: Ticket,
}

pub(super) fn object() -> ObjectName {
    ObjectName::new("o").unwrap()
}

pub(super) fn slot(name: &str) -> SlotName {
    SlotName::new(name).unwrap()
}

pub(super) fn value(text: &str) -> SlotValue {
    SlotValue(Bytes::from(text.as_bytes().to_vec()))
}

impl Lab {
    pub(super) fn new(edges: usize) -> Self {
        let now = Instant::now();
        let mut lab = Self {
            machine: Machine::new(edges, Need::All, now),
            now,
            ledger: Ledger::default(),
            edges: (0..edges).map(|_| Edge::default()).collect(),
            dials: Vec::new(),
            hung_up: Vec::new(),
            told: Vec::new(),
            settled: BTreeMap::new(),
            resumes: Vec::new(),
            answer_resumes: true,
            tickets: 0,
        };
        lab.ledger.version = 1;
        lab.drain();
        lab
    }

    /// All connected and the object in use.
    pub(super) fn running(edges: usize) -> Self {
        let mut lab = Self::new(edges);
        for edge in 0..edges {
            lab.up(edge);
        }
        lab.machine.object(&object(), ObjectKind::Temporary);
        lab.drain();
        lab.settle_all();
        lab
    }

    pub(super) fn drain(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Dial(server) => self.dials.push(server),
                Output::HangUp(server) => {
                    self.hung_up.push(server);
                    self.edges[server] = Edge::default();
                }
                Output::Ping(_) => {}
                Output::Resume { server, next } => {
                    self.edges[server].next = next;
                    if self.answer_resumes {
                        self.machine.resumed(server, Ok(()), self.now);
                    } else {
                        self.resumes.push(server);
                    }
                }
                Output::Ask {
                    server,
                    ask,
                    version,
                    ..
                } => self.edges[server].asks.push_back((ask, version)),
                Output::Tell(told) => self.told.push(told),
                Output::Settle(ticket, settled) => {
                    assert!(
                        self.settled.insert(ticket, settled).is_none(),
                        "{ticket} is settled twice"
                    );
                }
            }
        }
    }

    pub(super) fn up(&mut self, server: usize) {
        self.edges[server] = Edge {
            // A young edge has caught up before it serves.
            seen: self.ledger.log.len(),
            ..Edge::default()
        };
        self.machine.up(server, self.now);
        self.drain();
    }

    pub(super) fn lose(&mut self, server: usize) {
        self.edges[server] = Edge::default();
        self.machine.down(server, "it is gone", self.now);
        self.drain();
    }

    /// The server asks us to leave.
    pub(super) fn leave(&mut self, server: usize) {
        self.machine.asked_to_leave(server, self.now);
        self.drain();
    }

    pub(super) fn set(&mut self, name: &str, text: &str) -> Ticket {
        self.tickets += 1;
        let wanted = (!text.is_empty()).then(|| value(text));
        self.machine
            .set(&object(), slot(name), wanted, self.tickets, self.now)
            .unwrap();
        self.drain();
        self.tickets
    }

    pub(super) fn send(&mut self, text: &str) -> Ticket {
        self.tickets += 1;
        let payload = Bytes::from(text.as_bytes().to_vec());
        self.machine
            .send(&object(), payload, self.tickets, self.now)
            .unwrap();
        self.drain();
        self.tickets
    }

    /// Somebody else's write.
    pub(super) fn other(&mut self, name: &str, text: &str) {
        self.ledger.version += 1;
        let version = self.ledger.version;
        self.ledger.slots.insert(slot(name), (value(text), version));
        self.ledger.log.push(Entry::Slots {
            version,
            slots: vec![(slot(name), Some(value(text)))],
        });
    }

    /// Somebody else's message.
    pub(super) fn other_send(&mut self, text: &str) {
        let payload = Bytes::from(text.as_bytes().to_vec());
        self.ledger.sends.push(payload.clone());
        self.ledger.log.push(Entry::Send(payload));
    }

    /// An edge reads one message of the client.
    pub(super) fn read(&mut self, server: usize) {
        let Some((ask, base)) = self.edges[server].asks.pop_front() else {
            return;
        };
        match ask {
            ObjectAsk::Use => {
                // It serves what it has seen, and waits until that is what the client has.
                self.catch_up(server);
                let mut events = vec![ObjectEvent::UseSuccess];
                if base.0 == 0 {
                    events.push(ObjectEvent::Clear);
                }
                for (slot, at) in &self.ledger.removed {
                    if *at > base.0 && base.0 > 0 {
                        events.push(ObjectEvent::Remove { slot: slot.clone() });
                    }
                }
                for (slot, (value, at)) in &self.ledger.slots {
                    if *at > base.0 {
                        events.push(ObjectEvent::Change {
                            slot: slot.clone(),
                            value: value.clone(),
                        });
                    }
                }
                self.edges[server].subscribed = true;
                self.say(server, events);
            }
            ObjectAsk::Release => {}
            ObjectAsk::Write(ops) => {
                let seq = self.edges[server].next;
                self.edges[server].next += 1;
                self.write(server, seq, base, &ops);
            }
            ObjectAsk::Send(payload) => {
                let seq = self.edges[server].next;
                self.edges[server].next += 1;
                if !self.ledger.done.contains_key(&seq) {
                    self.in_order(seq);
                    self.ledger.sends.push(payload.clone());
                    self.ledger.log.push(Entry::Send(payload));
                }
                // Told when it is applied here, and behind the message itself.
                self.catch_up(server);
                self.say(server, vec![ObjectEvent::Sent { seq }]);
            }
        }
    }

    pub(super) fn in_order(&mut self, seq: u64) {
        let expected = self.ledger.done.len() as u64 + 1;
        assert_eq!(seq, expected, "a number is left out");
        self.ledger.done.insert(seq, Vec::new());
    }

    pub(super) fn write(&mut self, server: usize, seq: u64, base: Version, ops: &[SlotOp]) {
        if let Some(refused) = self.ledger.done.get(&seq).cloned() {
            self.catch_up(server);
            self.answer(server, ops, &refused);
            return;
        }
        self.in_order(seq);
        let mut refused = Vec::new();
        let mut changed = Vec::new();
        for op in ops {
            let (of, wanted) = match op {
                SlotOp::Set { slot, value } => (slot, Some(value)),
                SlotOp::Remove { slot } => (slot, None),
                SlotOp::Clear => continue,
            };
            let now = self.ledger.slots.get(of);
            let at = now
                .map(|(_, at)| *at)
                .or(self.ledger.removed.get(of).copied());
            if at.is_some_and(|at| at > base.0) && !self.ledger.policy_last_wins {
                refused.push(of.clone());
            } else if now.map(|(value, _)| value) != wanted {
                changed.push((of.clone(), wanted.cloned()));
            }
        }
        self.ledger.done.insert(seq, refused.clone());
        if changed.is_empty() {
            self.catch_up(server);
            self.answer(server, ops, &refused);
            return;
        }
        self.ledger.version += 1;
        let version = self.ledger.version;
        for (slot, wanted) in &changed {
            match wanted {
                Some(value) => {
                    self.ledger.removed.remove(slot);
                    self.ledger
                        .slots
                        .insert(slot.clone(), (value.clone(), version));
                }
                None => {
                    self.ledger.slots.remove(slot);
                    self.ledger.removed.insert(slot.clone(), version);
                }
            }
        }
        self.catch_up(server);
        self.ledger.log.push(Entry::Slots {
            version,
            slots: changed,
        });
        self.edges[server].seen += 1;
        self.answer(server, ops, &refused);
    }

    pub(super) fn answer(&mut self, server: usize, ops: &[SlotOp], refused: &[SlotName]) {
        let events = ops
            .iter()
            .filter_map(|op| {
                let (of, set) = match op {
                    SlotOp::Set { slot, .. } => (slot, true),
                    SlotOp::Remove { slot } => (slot, false),
                    SlotOp::Clear => return None,
                };
                let of = of.clone();
                Some(if !refused.contains(&of) {
                    if set {
                        ObjectEvent::Success { slot: of }
                    } else {
                        ObjectEvent::Remove { slot: of }
                    }
                } else if let Some((value, _)) = self.ledger.slots.get(&of) {
                    let value = value.clone();
                    ObjectEvent::Change { slot: of, value }
                } else {
                    ObjectEvent::Remove { slot: of }
                })
            })
            .collect();
        self.say(server, events);
    }

    /// An edge applies what it has not seen of the log, and tells its subscriber.
    pub(super) fn catch_up(&mut self, server: usize) {
        while self.edges[server].seen < self.ledger.log.len() {
            self.step(server);
        }
    }

    pub(super) fn step(&mut self, server: usize) {
        let Some(entry) = self.ledger.log.get(self.edges[server].seen).cloned() else {
            return;
        };
        self.edges[server].seen += 1;
        if !self.edges[server].subscribed {
            return;
        }
        let (version, events) = match entry {
            Entry::Send(payload) => (0, vec![ObjectEvent::Send(payload)]),
            Entry::Slots { version, slots, .. } => {
                let events = slots.into_iter().map(|(slot, value)| match value {
                    Some(value) => ObjectEvent::Change { slot, value },
                    None => ObjectEvent::Remove { slot },
                });
                (version, events.collect())
            }
        };
        self.edges[server].said.push_back(update(version, events));
    }

    pub(super) fn say(&mut self, server: usize, events: Vec<ObjectEvent>) {
        let version = self.ledger.version;
        self.edges[server].said.push_back(update(version, events));
    }

    /// The client reads one message of an edge.
    pub(super) fn hear(&mut self, server: usize) {
        if let Some(said) = self.edges[server].said.pop_front() {
            self.machine.update(server, &said, self.now);
            self.drain();
        }
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.edges.iter().enumerate().all(|(index, edge)| {
            let up = self.machine.servers[index].is_up();
            !up || (edge.asks.is_empty()
                && edge.said.is_empty()
                && edge.seen == self.ledger.log.len())
        })
    }

    /// Everybody reads everything.
    pub(super) fn settle_all(&mut self) {
        while !self.is_quiet() {
            for server in 0..self.edges.len() {
                if self.machine.servers[server].is_up() {
                    self.read(server);
                    self.catch_up(server);
                    self.hear(server);
                }
            }
        }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.machine.deadline().filter(|at| *at <= until) {
            self.now = at.max(self.now);
            self.machine.handle_timeout(self.now);
            self.drain();
        }
        self.now = until;
    }

    /// The steps that were told, in short: `success a`, with the version.
    pub(super) fn steps(&self) -> Vec<(u32, String)> {
        let mut all = Vec::new();
        for told in &self.told {
            if let Told::Sync { version, steps, .. } = told {
                for step in steps {
                    let slot = step.slot.as_ref().map_or("", SlotName::as_str);
                    let text = format!("{:?} {slot}", step.code).to_lowercase();
                    all.push((version.0, text.trim_end().to_owned()));
                }
            }
        }
        all
    }

    pub(super) fn is(&self, steps: &[(u32, &str)]) {
        let expected: Vec<_> = steps.iter().map(|(v, s)| (*v, (*s).to_owned())).collect();
        assert_eq!(self.steps(), expected);
    }

    pub(super) fn judge(&self) {
        let mut version = 0;
        let mut folded: BTreeMap<SlotName, SlotValue> = BTreeMap::new();
        for told in &self.told {
            let Told::Sync {
                version: at, steps, ..
            } = told
            else {
                continue;
            };
            assert!(at.0 >= version, "the history goes back to {at}");
            version = at.0;
            for step in steps {
                match (&step.slot, &step.value) {
                    (Some(slot), Some(value)) => drop(folded.insert(slot.clone(), value.clone())),
                    (Some(slot), None) => drop(folded.remove(slot)),
                    (None, _) => folded.clear(),
                }
            }
        }
        let truth: BTreeMap<SlotName, SlotValue> = self
            .ledger
            .slots
            .iter()
            .map(|(slot, (value, _))| (slot.clone(), value.clone()))
            .collect();
        assert_eq!(folded, truth, "what was told is not what there is");
        let told: Vec<&Bytes> = self
            .told
            .iter()
            .filter_map(|told| match told {
                Told::Send { payload, .. } => Some(payload),
                Told::Setup { .. }
                | Told::Server { .. }
                | Told::Sync { .. }
                | Told::Status { .. } => None,
            })
            .collect();
        assert_eq!(told, self.ledger.sends.iter().collect::<Vec<_>>());
    }
}

pub(super) fn update(version: u32, events: Vec<ObjectEvent>) -> ObjectUpdate {
    ObjectUpdate {
        name: object(),
        kind: ObjectKind::Temporary,
        version: Version(version),
        events,
    }
}
