//! Many clients, three edges, three origins that lag as they like, lost and doubled
//! proposals, edges that are detached, attached elsewhere and declared lost. Every client is
//! a judge: it folds what it is told and compares.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use model::object::{ObjectAsk, ObjectEvent, ObjectStatus, ObjectUpdate};
use model::{ObjectKind, Policy, SlotName, SlotOp, SlotValue, Version};
use selvage_ledger::Command;
use selvage_ledger::replica::Access;

use crate::lab::{Lab, Slots, Who, key, remove, set, text};

/// What a client asked and has no answer about.
#[derive(Debug)]
enum Pending {
    Write(Vec<SlotOp>),
    Send(Bytes),
}

/// A client that keeps books.
struct Judge {
    who: Who,
    policy: Policy,
    using: bool,
    asked_use: bool,
    state: Slots,
    version: Version,
    pending: VecDeque<Pending>,
    /// What was said of each value that it wrote.
    accepted: Vec<SlotValue>,
    refused: Vec<SlotValue>,
    undecided: Vec<SlotValue>,
    /// Messages, by what was said of them.
    heard: Vec<Bytes>,
    not_sent: Vec<Bytes>,
    answers: usize,
}

impl Judge {
    fn new(who: Who, policy: Policy) -> Self {
        Self {
            who,
            policy,
            using: false,
            asked_use: false,
            state: Slots::new(),
            version: Version(0),
            pending: VecDeque::new(),
            accepted: Vec::new(),
            refused: Vec::new(),
            undecided: Vec::new(),
            heard: Vec::new(),
            not_sent: Vec::new(),
            answers: 0,
        }
    }

    fn is_pending(&self, slot: &SlotName) -> bool {
        self.pending.iter().any(|pending| match pending {
            Pending::Write(ops) => ops.iter().any(|op| named(op) == Some(slot)),
            Pending::Send(_) => false,
        })
    }

    fn told(&mut self, update: &ObjectUpdate, lab: &Lab) {
        let line = text(update);
        println!("{} < {line}", self.who.id.0);
        assert!(self.asked_use, "{:?}: {line} after a release", self.who);
        let failed = ObjectEvent::Status(ObjectStatus::CreationFailed);
        if !self.using && update.events == [failed] {
            // The subscription took too long.
            self.asked_use = false;
            return;
        }
        assert!(
            update.version >= self.version,
            "{:?}: {line} after {}",
            self.who,
            self.version
        );
        let status = update.events.iter().find_map(|event| match event {
            ObjectEvent::Status(status) => Some(*status),
            _ => None,
        });
        if update.events.contains(&ObjectEvent::UseSuccess) {
            assert!(!self.using, "{:?}: {line} twice", self.who);
            self.using = true;
        }
        assert!(self.using, "{:?}: {line} without a subscription", self.who);
        self.version = update.version;
        let is_reset = update.events.contains(&ObjectEvent::Clear);
        let about: Vec<&SlotName> = update.events.iter().filter_map(slot_of).collect();
        let is_answer = !is_reset && about.iter().any(|slot| self.is_pending(slot));
        if is_answer {
            self.answered(update, status, &line);
        } else if let Some(status) = status {
            // A status alone is about a message.
            let place = self
                .pending
                .iter()
                .position(|pending| matches!(pending, Pending::Send(_)));
            let place = place.unwrap_or_else(|| panic!("{:?}: {line} unasked", self.who));
            if let Some(Pending::Send(payload)) = self.pending.remove(place)
                && status != ObjectStatus::Undecided
            {
                self.not_sent.push(payload);
            }
            self.answers += 1;
            return;
        }
        for event in &update.events {
            match event {
                ObjectEvent::Clear => self.state.clear(),
                ObjectEvent::Change { slot, value } => {
                    self.state.insert(slot.clone(), value.clone());
                }
                ObjectEvent::Remove { slot } => {
                    self.state.remove(slot);
                }
                ObjectEvent::Send(payload) => self.hear(payload, &line),
                ObjectEvent::Success { slot } => {
                    assert!(is_answer, "{:?}: {line}: {slot} was not asked", self.who);
                }
                ObjectEvent::UseSuccess | ObjectEvent::Sent { .. } | ObjectEvent::Status(_) => {}
            }
        }
        self.compare(lab, &line);
    }

    fn answered(&mut self, update: &ObjectUpdate, status: Option<ObjectStatus>, line: &str) {
        let place = self
            .pending
            .iter()
            .position(|pending| matches!(pending, Pending::Write(_)));
        let Some(Pending::Write(ops)) = place.and_then(|place| self.pending.remove(place)) else {
            panic!("{:?}: {line} unasked", self.who);
        };
        self.answers += 1;
        for op in &ops {
            let SlotOp::Set { slot, value } = op else {
                continue;
            };
            let success = ObjectEvent::Success { slot: slot.clone() };
            if update.events.contains(&success) {
                self.state.insert(slot.clone(), value.clone());
                self.accepted.push(value.clone());
            } else if status == Some(ObjectStatus::Undecided) {
                self.undecided.push(value.clone());
            } else {
                self.refused.push(value.clone());
            }
        }
        for op in &ops {
            let Some(slot) = named(op) else { continue };
            let is_told = update
                .events
                .iter()
                .any(|event| slot_of(event) == Some(slot));
            assert!(is_told, "{:?}: {line}: nothing about {slot}", self.who);
        }
    }

    fn hear(&mut self, payload: &Bytes, line: &str) {
        assert!(
            !self.heard.contains(payload),
            "{:?}: {line} twice",
            self.who
        );
        self.heard.push(payload.clone());
        let place = self
            .pending
            .iter()
            .position(|pending| matches!(pending, Pending::Send(asked) if asked == payload));
        if let Some(place) = place {
            self.pending.remove(place);
            self.answers += 1;
        }
    }

    /// What it believes is what the object was in this version. Who is writing may have
    /// been told more than the version says.
    fn compare(&self, lab: &Lab, line: &str) {
        let believed = self.sure(&self.state);
        let matches = lab.history.iter().any(|((_, _, version), slots)| {
            (*version == self.version || (*version > self.version && !self.pending.is_empty()))
                && self.sure(slots) == believed
        });
        assert!(
            matches,
            "{:?}: {line}: believes {believed:?} in {}, pending {:?}",
            self.who, self.version, self.pending
        );
    }

    fn sure(&self, slots: &Slots) -> Slots {
        let slots = slots.iter().filter(|(slot, _)| !self.is_pending(slot));
        slots
            .map(|(slot, value)| (slot.clone(), value.clone()))
            .collect()
    }
}

fn named(op: &SlotOp) -> Option<&SlotName> {
    match op {
        SlotOp::Set { slot, .. } | SlotOp::Remove { slot } => Some(slot),
        SlotOp::Clear => None,
    }
}

fn slot_of(event: &ObjectEvent) -> Option<&SlotName> {
    match event {
        ObjectEvent::Change { slot, .. }
        | ObjectEvent::Success { slot }
        | ObjectEvent::Remove { slot } => Some(slot),
        ObjectEvent::UseSuccess
        | ObjectEvent::Clear
        | ObjectEvent::Send(_)
        | ObjectEvent::Sent { .. }
        | ObjectEvent::Status(_) => None,
    }
}

struct World {
    lab: Lab,
    judges: Vec<Judge>,
    gone: Vec<Judge>,
    kind: ObjectKind,
    clients: u64,
    values: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            lab: Lab::attached(seed, 3, 3),
            judges: Vec::new(),
            gone: Vec::new(),
            kind: if seed.is_multiple_of(2) {
                ObjectKind::Temporary
            } else {
                ObjectKind::Persistent
            },
            clients: 0,
            values: 0,
        };
        world.lab.lose = seed % 4 * 5;
        world.lab.twice = seed % 3 * 5;
        for edge in [0, 0, 0, 1, 1, 1, 2, 2, 2] {
            world.comes(edge);
        }
        world
    }

    fn comes(&mut self, edge: usize) {
        self.clients += 1;
        let mut who = Who::new(edge, self.clients);
        who.kind = self.kind;
        let policy = if self.clients.is_multiple_of(3) {
            Policy::LastWriterWins
        } else {
            Policy::Optimistic
        };
        self.judges.push(Judge::new(who, policy));
    }

    fn judge(&mut self) {
        for edge in 0..self.lab.edges.len() {
            for (id, update) in self.lab.updates(edge) {
                let Some(judge) = self.judges.iter_mut().find(|judge| judge.who.id == id) else {
                    panic!("client {id:?} is gone and is told {}", text(&update));
                };
                judge.told(&update, &self.lab);
            }
        }
    }

    fn client_acts(&mut self) {
        let at = usize::try_from(self.lab.dice.below(self.judges.len() as u64)).unwrap();
        let what = self.lab.dice.below(100);
        let judge = &mut self.judges[at];
        let version = judge.version.0;
        let mut asks = Vec::new();
        if !judge.asked_use {
            judge.asked_use = true;
            asks.push(ObjectAsk::Use);
        } else if !judge.using || judge.pending.len() >= 3 {
            return;
        } else if what < 70 {
            let mut ops = Vec::new();
            for _ in 0..=self.lab.dice.below(2) {
                self.values += 1;
                let name = ["a", "b", "c", "d"][usize::try_from(self.lab.dice.below(4)).unwrap()];
                if ops
                    .iter()
                    .any(|op| named(op).map(SlotName::as_str) == Some(name))
                {
                    continue;
                }
                ops.push(if self.lab.dice.percent(20) {
                    remove(name)
                } else {
                    set(name, &self.values.to_string())
                });
            }
            judge.pending.push_back(Pending::Write(ops.clone()));
            asks.push(ObjectAsk::Write(ops));
        } else if what < 95 {
            self.values += 1;
            let payload = Bytes::from(format!("{} {}", judge.who.id.0, self.values));
            judge.pending.push_back(Pending::Send(payload.clone()));
            asks.push(ObjectAsk::Send(payload));
        } else if what < 98 {
            judge.asked_use = false;
            judge.using = false;
            judge.pending.clear();
            asks.push(ObjectAsk::Release);
        } else {
            let judge = self.judges.remove(at);
            let now = self.lab.now;
            let edge = judge.who.edge;
            self.lab.edges[edge].replica.handle_left(judge.who.id, now);
            self.gone.push(judge);
            self.comes(edge);
            return;
        }
        let (who, policy) = (judge.who, judge.policy);
        println!("{} > v{version} {asks:?}", who.id.0);
        self.lab.ask_as(who, version, Access::FULL, policy, asks);
    }

    fn something_fails(&mut self) {
        let edge = usize::try_from(self.lab.dice.below(3)).unwrap();
        let origin = usize::try_from(self.lab.dice.below(3)).unwrap();
        match self.lab.dice.below(10) {
            0..4 => self.lab.attach(edge, origin),
            4 => self.lab.detach(edge),
            5..7 => {
                let leads = self.lab.dice.percent(50);
                for origin in 0..3 {
                    self.lab.set_leader(origin, leads);
                }
            }
            7 => {
                let life = self.lab.edges[edge].replica.life().clone();
                self.lab.commit(Command::EdgeLost(life).encode());
            }
            _ => {
                for origin in 0..3 {
                    self.lab.set_leader(origin, true);
                }
            }
        }
        self.judge();
    }

    fn step(&mut self) {
        let one = usize::try_from(self.lab.dice.below(3)).unwrap();
        match self.lab.dice.below(1000) {
            0..300 => {
                self.lab.step_up(one);
            }
            300..600 => {
                self.lab.step_down(one);
            }
            600..850 => {
                self.lab.apply_one(one);
            }
            850..940 => self.client_acts(),
            940..993 => {
                let ms = self.lab.dice.below(200);
                self.lab.now += Duration::from_millis(ms);
                self.lab.due();
            }
            993..996 => {
                if self.lab.edges[one].link.is_none() {
                    let origin = usize::try_from(self.lab.dice.below(3)).unwrap();
                    self.lab.attach(one, origin);
                }
            }
            _ => self.something_fails(),
        }
        self.judge();
    }

    /// Everything heals, and everybody is told.
    fn heal(&mut self) {
        self.lab.lose = 0;
        for origin in 0..3 {
            self.lab.set_leader(origin, true);
        }
        for edge in 0..3 {
            self.lab.attach(edge, edge);
        }
        for _ in 0..60 {
            self.lab.pass(Duration::from_secs(1));
            self.judge();
        }
    }

    fn verdict(&self) {
        let truth = self.lab.truth.sync(&key("chat"), None);
        for judge in &self.judges {
            assert!(
                judge.pending.is_empty(),
                "{:?}: no answer about {:?}",
                judge.who,
                judge.pending
            );
            assert_eq!(judge.asked_use, judge.using, "{:?}", judge.who);
            if judge.using {
                let truth = truth.as_ref().unwrap();
                assert_eq!(judge.version, truth.version, "{:?}", judge.who);
                let slots: Slots = truth
                    .slots
                    .iter()
                    .map(|(slot, value, _)| (slot.clone(), value.clone()))
                    .collect();
                assert_eq!(judge.state, slots, "{:?}", judge.who);
            }
        }
        let mut times: BTreeMap<&Bytes, usize> = BTreeMap::new();
        for (_, payload) in &self.lab.sends {
            *times.entry(payload).or_default() += 1;
        }
        assert!(times.values().all(|times| *times == 1), "a message twice");
        for judge in self.judges.iter().chain(&self.gone) {
            let applied = |value: &SlotValue| self.lab.values.get(value).copied().unwrap_or(0);
            for value in &judge.accepted {
                assert_eq!(applied(value), 1, "{:?}: {value:?} accepted", judge.who);
            }
            for value in &judge.refused {
                assert_eq!(applied(value), 0, "{:?}: {value:?} refused", judge.who);
            }
            for value in &judge.undecided {
                assert!(applied(value) <= 1, "{:?}: {value:?} twice", judge.who);
            }
            for payload in &judge.not_sent {
                assert!(!times.contains_key(payload), "{payload:?} was sent");
            }
            // Those of one sender are heard in his order.
            let mut last: BTreeMap<String, u64> = BTreeMap::new();
            for payload in &judge.heard {
                let text = String::from_utf8(payload.to_vec()).unwrap();
                let (sender, number) = text.split_once(' ').unwrap();
                let number: u64 = number.parse().unwrap();
                let before = last.insert(sender.into(), number);
                // A message that its edge missed is its sender's answer, late as it is.
                let own = sender == judge.who.id.0.to_string();
                assert!(
                    before < Some(number) || own,
                    "{:?}: {text} out of order",
                    judge.who
                );
            }
        }
    }
}

#[test]
fn every_client_sees_one_history_and_gets_every_answer() {
    let (mut answers, mut accepted, mut undecided, mut refused) = (0, 0, 0, 0);
    for seed in 0..20 {
        println!("seed {seed}");
        let mut world = World::new(seed);
        for _ in 0..3000 {
            world.step();
        }
        world.heal();
        world.verdict();
        for judge in &world.judges {
            answers += judge.answers;
            accepted += judge.accepted.len();
            undecided += judge.undecided.len();
            refused += judge.refused.len();
        }
    }
    // The judge has had something to judge.
    println!("{answers} answers: {accepted} accepted, {refused} refused, {undecided} undecided");
    assert!(accepted > 500 && refused > 100 && undecided > 10 && answers > 2000);
}
