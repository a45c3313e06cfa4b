//! The machine against a ledger and its edges, with the network in the test's hands.

use std::collections::BTreeMap;
use std::time::Duration;

use model::SlotOp;

use super::super::limits::SETTLE_PATIENCE;
use super::*;

/// What all edges agree on: one object, requests applied once and in their order.
#[derive(Default)]
struct Ledger {
    version: u32,
    slots: BTreeMap<SlotName, (SlotValue, u32)>,
    removed: BTreeMap<SlotName, u32>,
    /// By number: which slots were refused.
    done: BTreeMap<u64, Vec<SlotName>>,
    sends: Vec<Bytes>,
    log: Vec<Entry>,
    policy_last_wins: bool,
}

/// What every edge gives out, in order.
#[derive(Clone)]
enum Entry {
    Slots {
        version: u32,
        slots: Vec<(SlotName, Option<SlotValue>)>,
    },
    Send(Bytes),
}

/// One edge as the client is connected to it.
#[derive(Default)]
struct Edge {
    /// How much of the ledger's log it has applied.
    seen: usize,
    subscribed: bool,
    next: u64,
    /// What the client has asked and the edge has not read.
    asks: VecDeque<(ObjectAsk, Version)>,
    /// What the edge has said and the client has not read.
    said: VecDeque<ObjectUpdate>,
}

struct Lab {
    machine: Machine,
    now: Instant,
    ledger: Ledger,
    edges: Vec<Edge>,
    dials: Vec<usize>,
    hung_up: Vec<usize>,
    told: Vec<Told>,
    settled: BTreeMap<Ticket, Settled>,
    /// Resumes that the test answers itself.
    resumes: Vec<usize>,
    answer_resumes: bool,
    tickets: Ticket,
}

fn object() -> ObjectName {
    ObjectName::new("o").unwrap()
}

fn slot(name: &str) -> SlotName {
    SlotName::new(name).unwrap()
}

fn value(text: &str) -> SlotValue {
    SlotValue(Bytes::from(text.as_bytes().to_vec()))
}

impl Lab {
    fn new(edges: usize) -> Self {
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
    fn running(edges: usize) -> Self {
        let mut lab = Self::new(edges);
        for edge in 0..edges {
            lab.up(edge);
        }
        lab.machine.object(&object(), ObjectKind::Temporary);
        lab.drain();
        lab.settle_all();
        lab
    }

    fn drain(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Dial(server) => self.dials.push(server),
                Output::HangUp(server) => self.hung_up.push(server),
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

    fn up(&mut self, server: usize) {
        self.edges[server] = Edge {
            // A young edge has caught up before it serves.
            seen: self.ledger.log.len(),
            ..Edge::default()
        };
        self.machine.up(server, self.now);
        self.drain();
    }

    fn lose(&mut self, server: usize) {
        self.edges[server] = Edge::default();
        self.machine.down(server, "it is gone", self.now);
        self.drain();
    }

    fn set(&mut self, name: &str, text: &str) -> Ticket {
        self.tickets += 1;
        let wanted = (!text.is_empty()).then(|| value(text));
        self.machine
            .set(&object(), slot(name), wanted, self.tickets, self.now)
            .unwrap();
        self.drain();
        self.tickets
    }

    fn send(&mut self, text: &str) -> Ticket {
        self.tickets += 1;
        let payload = Bytes::from(text.as_bytes().to_vec());
        self.machine
            .send(&object(), payload, self.tickets, self.now)
            .unwrap();
        self.drain();
        self.tickets
    }

    /// Somebody else's write.
    fn other(&mut self, name: &str, text: &str) {
        self.ledger.version += 1;
        let version = self.ledger.version;
        self.ledger.slots.insert(slot(name), (value(text), version));
        self.ledger.log.push(Entry::Slots {
            version,
            slots: vec![(slot(name), Some(value(text)))],
        });
    }

    /// An edge reads one message of the client.
    fn read(&mut self, server: usize) {
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
            }
        }
    }

    fn in_order(&mut self, seq: u64) {
        let expected = self.ledger.done.len() as u64 + 1;
        assert_eq!(seq, expected, "a number is left out");
        self.ledger.done.insert(seq, Vec::new());
    }

    fn write(&mut self, server: usize, seq: u64, base: Version, ops: &[SlotOp]) {
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

    fn answer(&mut self, server: usize, ops: &[SlotOp], refused: &[SlotName]) {
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
    fn catch_up(&mut self, server: usize) {
        while self.edges[server].seen < self.ledger.log.len() {
            self.step(server);
        }
    }

    fn step(&mut self, server: usize) {
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

    fn say(&mut self, server: usize, events: Vec<ObjectEvent>) {
        let version = self.ledger.version;
        self.edges[server].said.push_back(update(version, events));
    }

    /// The client reads one message of an edge.
    fn hear(&mut self, server: usize) {
        if let Some(said) = self.edges[server].said.pop_front() {
            self.machine.update(server, &said, self.now);
            self.drain();
        }
    }

    fn is_quiet(&self) -> bool {
        self.edges.iter().enumerate().all(|(index, edge)| {
            let up = self.machine.servers[index].is_up();
            !up || (edge.asks.is_empty()
                && edge.said.is_empty()
                && edge.seen == self.ledger.log.len())
        })
    }

    /// Everybody reads everything.
    fn settle_all(&mut self) {
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

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.machine.deadline().filter(|at| *at <= until) {
            self.now = at.max(self.now);
            self.machine.handle_timeout(self.now);
            self.drain();
        }
        self.now = until;
    }

    /// The steps that were told, in short: `success a`, with the version.
    fn steps(&self) -> Vec<(u32, String)> {
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

    fn is(&self, steps: &[(u32, &str)]) {
        let expected: Vec<_> = steps.iter().map(|(v, s)| (*v, (*s).to_owned())).collect();
        assert_eq!(self.steps(), expected);
    }

    fn judge(&self) {
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

fn update(version: u32, events: Vec<ObjectEvent>) -> ObjectUpdate {
    ObjectUpdate {
        name: object(),
        kind: ObjectKind::Temporary,
        version: Version(version),
        events,
    }
}

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
