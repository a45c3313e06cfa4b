//! One object in one place, with clients who ask at random and hear late: what the judge
//! must let pass, whatever the seed, and must not when it is spoiled.

use std::collections::{BTreeMap, VecDeque};

use super::*;

const CLIENTS: usize = 4;
const SLOTS: [&str; 3] = ["a", "b", "c"];

/// The object, its clients, and the wires between them.
struct World {
    history: History,
    dice: u64,
    at: u64,
    asks: u64,
    version: u32,
    /// Value, version of the last change, and who made it.
    slots: BTreeMap<&'static str, (Option<String>, u32, usize)>,
    asked: VecDeque<(u64, usize, u32, Ask)>,
    clients: Vec<Client>,
}

#[derive(Default)]
struct Client {
    /// What it has been told.
    version: u32,
    waits: bool,
    coming: VecDeque<News>,
}

/// A message on its way: the version, what it says, and what it answers.
type News = (u32, Vec<Event>, Option<(u64, Answer)>);

fn chat() -> Object {
    let name = "chat".to_owned();
    let incarnation = 0;
    Object { name, incarnation }
}

impl World {
    fn run(seed: u64, steps: u32) -> History {
        let mut world = Self {
            history: History::new("random", seed),
            dice: seed.wrapping_mul(2).wrapping_add(1),
            at: 0,
            asks: 0,
            version: 1,
            slots: SLOTS.map(|slot| (slot, (None, 0, usize::MAX))).into(),
            asked: VecDeque::new(),
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
        };
        for client in 0..CLIENTS {
            let connection = u32::try_from(client).unwrap();
            let at = world.tick();
            world.history.push(Record::Open {
                at,
                connection,
                client: connection,
                resumes: None,
            });
            world.ask(client, Ask::Use);
        }
        for _ in 0..steps {
            world.step(true);
        }
        while !world.asked.is_empty() || world.clients.iter().any(|c| !c.coming.is_empty()) {
            world.step(false);
        }
        world.history
    }

    fn roll(&mut self, sides: usize) -> usize {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        usize::try_from(self.dice >> 33).unwrap() % sides
    }

    fn tick(&mut self) -> u64 {
        self.at += 1;
        self.at
    }

    /// Somebody asks, something asked is done, or somebody hears.
    fn step(&mut self, more: bool) {
        let client = self.roll(CLIENTS);
        match self.roll(3) {
            0 if more && !self.clients[client].waits => {
                let what = self.wish();
                self.ask(client, what);
            }
            0 | 1 => {
                if let Some(asked) = self.asked.pop_front() {
                    self.apply(asked);
                }
            }
            _ => self.hear(client),
        }
    }

    fn wish(&mut self) -> Ask {
        let number = self.asks;
        let ops = (0..=self.roll(2)).map(|op| {
            let slot = SLOTS[self.roll(SLOTS.len())].to_owned();
            match self.roll(6) {
                0 => Op::Remove { slot },
                _ => Op::Set {
                    slot,
                    value: format!("{number}.{op}"),
                },
            }
        });
        let ops = ops.collect();
        match self.roll(12) {
            0 => Ask::Use,
            1 => Ask::Send {
                id: number.to_string(),
            },
            // Filled in when it is asked.
            _ => Ask::Write { base: None, ops },
        }
    }

    fn ask(&mut self, client: usize, mut what: Ask) {
        let seen = self.clients[client].version;
        if let Ask::Write { base, .. } = &mut what {
            *base = Some(seen);
        }
        self.clients[client].waits = true;
        self.asks += 1;
        let at = self.tick();
        self.history.push(Record::Ask {
            at,
            connection: u32::try_from(client).unwrap(),
            ask: self.asks,
            object: chat(),
            what: what.clone(),
        });
        self.asked.push_back((self.asks, client, seen, what));
    }

    fn apply(&mut self, (ask, client, base, what): (u64, usize, u32, Ask)) {
        let (answer, mut own, others) = match what {
            Ask::Use => {
                let held = self.slots.iter();
                let slots: Slots = held
                    .filter_map(|(slot, (value, ..))| Some(((*slot).to_owned(), value.clone()?)))
                    .collect();
                let version = self.version;
                (Answer::Used { version, slots }, Vec::new(), Vec::new())
            }
            Ask::Send { id } => {
                let heard = vec![Event::Send { id }];
                (Answer::Done, heard.clone(), heard)
            }
            Ask::Write { ops, .. } => self.write(client, base, ops),
            Ask::Release | Ask::Lock { .. } | Ask::Unlock => unreachable!(),
        };
        // Now and then the answer is lost, and what was done comes as news.
        let write = matches!(answer, Answer::Written { .. });
        let answer = if write && self.roll(8) == 0 {
            own.clone_from(&others);
            Answer::Undecided
        } else {
            answer
        };
        for other in 0..CLIENTS {
            let news = if other == client {
                (self.version, own.clone(), Some((ask, answer.clone())))
            } else if others.is_empty() {
                continue;
            } else {
                (self.version, others.clone(), None)
            };
            self.clients[other].coming.push_back(news);
        }
    }

    fn write(
        &mut self,
        client: usize,
        base: u32,
        ops: Vec<Op>,
    ) -> (Answer, Vec<Event>, Vec<Event>) {
        let next = self.version + 1;
        let (mut own, mut others) = (Vec::new(), Vec::new());
        let mut refused = BTreeMap::new();
        for (place, op) in ops.into_iter().enumerate() {
            let (name, value) = match op {
                Op::Set { slot, value } => (slot, Some(value)),
                Op::Remove { slot } => (slot, None),
                Op::Clear => unreachable!(),
            };
            let told = |value: &Option<String>, why| match value.clone() {
                Some(value) => Event::Set {
                    slot: name.clone(),
                    value,
                    why,
                },
                None => Event::Remove { slot: name.clone() },
            };
            let held = self.slots.get_mut(name.as_str()).unwrap();
            if held.1 > base && held.1 < next && held.2 != client {
                own.push(told(&held.0, Why::Refused));
                refused.insert(place, held.0.clone());
                continue;
            }
            own.push(told(&value, Why::Accepted));
            if held.0 != value {
                others.push(told(&value, Why::Changed));
                *held = (value, next, client);
                self.version = next;
            }
        }
        let version = self.version;
        (Answer::Written { version, refused }, own, others)
    }

    fn hear(&mut self, client: usize) {
        let Some((version, events, answers)) = self.clients[client].coming.pop_front() else {
            return;
        };
        self.clients[client].version = version;
        let connection = u32::try_from(client).unwrap();
        if version > 0 {
            let at = self.tick();
            self.history.push(Record::Seen {
                at,
                connection,
                object: chat(),
                version,
                events,
            });
        }
        if let Some((ask, answer)) = answers {
            self.clients[client].waits = false;
            let at = self.tick();
            self.history.push(Record::Answer { at, ask, answer });
        }
    }
}

#[test]
fn whatever_one_object_shows_holds() {
    for seed in 0..60 {
        let verdict = judge(&World::run(seed, 400));
        assert!(verdict.holds(), "seed {seed}: {verdict}");
        assert!(verdict.undecided.is_empty(), "seed {seed}: {verdict}");
    }
}

#[test]
fn whatever_is_spoiled_is_found() {
    let mut spoiled = 0;
    for seed in 0..60 {
        let mut history = World::run(seed, 400);
        // An accepted write claims another version, an accepted one to be refused, a
        // value seen is another, in turn.
        let records = history.records.iter_mut().skip(100);
        let hit = records.into_iter().any(|record| match record {
            Record::Answer {
                answer: Answer::Written { version, refused },
                ..
            } if seed % 3 < 2 && refused.is_empty() && *version > 20 => {
                if seed % 3 == 0 {
                    *version += 1;
                } else {
                    refused.insert(0, Some("nobody's".to_owned()));
                }
                true
            }
            Record::Seen { events, .. } if seed % 3 == 2 => events.iter_mut().any(|event| {
                if let Event::Set { value, .. } = event {
                    "1.0".clone_into(value);
                    return true;
                }
                false
            }),
            Record::Open { .. }
            | Record::Close { .. }
            | Record::Ask { .. }
            | Record::Answer { .. }
            | Record::Seen { .. } => false,
        });
        spoiled += u32::from(hit);
        assert!(!hit || !judge(&history).holds(), "seed {seed} holds");
    }
    assert!(spoiled > 50, "{spoiled} of 60 were spoiled");
}
