//! A client: it uses some objects, writes one batch at a time to each, folds what it is
//! told, and knows what it must never be told.

mod told;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use ledger::replica::{CallId, SubscriberId};
use model::object::ObjectAsk;
use model::{ObjectKey, ObjectKind, Policy, SessionId, SlotName, SlotOp, SlotValue, Version};

use super::dice::Dice;
use super::truth::{Slots, Truth};

/// How it goes about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habits {
    /// The pause between two thoughts, at least and at most.
    pub(super) think: (Duration, Duration),
    /// Whether it comes back at another edge with the same session and asks again what was
    /// not answered.
    pub(super) durable: bool,
    /// Slots of an object.
    pub(super) slots: usize,
}

/// An object, as the whole world knows it.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    /// Which.
    pub(super) key: ObjectKey,
    /// Its kind.
    pub(super) kind: ObjectKind,
    /// Who wins.
    pub(super) policy: Policy,
}

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    name: String,
    dice: Dice,
    /// How it goes about.
    pub(super) habits: Habits,
    /// Its own session, if it is durable.
    pub(super) session: SessionId,
    /// The number of its next request in that session.
    next_seq: u64,
    /// Which edge, and as whom.
    pub(super) connection: Option<(usize, SubscriberId)>,
    objects: BTreeMap<ObjectKey, Used>,
    /// What it asked, from the first that has no answer; only if it is durable.
    asked: VecDeque<(ObjectKey, Waiting)>,
    unique: u64,
    /// What became of its requests.
    pub(super) tally: Tally,
}

/// What became of requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Writes that were accepted, at least in part.
    pub accepted: u64,
    /// Writes of which nothing was accepted.
    pub refused: u64,
    /// Requests of which it was said that they are not decided, or cannot be made.
    pub undecided: u64,
    /// Requests whose connection was lost.
    pub lost: u64,
    /// Messages that came back.
    pub sent: u64,
    /// Locks that were got.
    pub locked: u64,
}

#[derive(Debug)]
struct Used {
    subject: Subject,
    /// Whether it was told the first state since it connected.
    synced: bool,
    /// It does not use it for now.
    released: bool,
    /// What somebody had been told is written, when it asked for the first state.
    floor: Version,
    /// How often it has the lock, as far as it knows.
    locks: u32,
    version: Version,
    slots: Slots,
    /// The place of the last message it was told, which life its edge had then, and how many
    /// holes that knew of.
    last_send: Option<(usize, (u64, u64))>,
    /// More than one only when it asks again at another edge.
    waiting: VecDeque<Waiting>,
    /// It asked more than one thing again, and has not all the answers.
    catching_up: bool,
    /// It sees some slots as they were after `version`.
    ahead: bool,
    /// What it was told is right, but cannot be compared before the truth is known.
    unchecked: VecDeque<(Version, Slots)>,
}

/// A request without an answer.
#[derive(Clone, Debug)]
struct Waiting {
    seq: u64,
    /// It was answered before, and is asked again because an earlier one was not.
    known: bool,
    /// The version that it had seen when it asked, the last time.
    seen: Version,
    since: Duration,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Write(Vec<SlotOp>),
    Send(Bytes),
    Lock(u32),
    Unlock,
}

/// What the client wants of its edge.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    /// One message about one object.
    Ask {
        /// Which.
        subject: Subject,
        /// What the header says.
        version: Version,
        /// What is asked.
        asks: Vec<ObjectAsk>,
    },
    /// The object for itself.
    Lock {
        /// Which.
        key: ObjectKey,
        /// For how long at most.
        lease_ms: u32,
        /// The client's number for it.
        call: CallId,
    },
    /// One level of the lock is given back.
    Unlock {
        /// Which.
        key: ObjectKey,
        /// The client's number for it.
        call: CallId,
    },
    /// The next request has this number.
    Resume {
        /// The number.
        next: u64,
    },
    /// Leave.
    Leave,
}

/// A refusal or a success that can be judged only when all is known.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    who: String,
    key: ObjectKey,
    value: SlotValue,
    /// Whether it was said that it is written.
    written: bool,
}

impl Verdict {
    /// Holds it against what happened.
    ///
    /// # Errors
    /// It is not so.
    pub(super) fn check(&self, truth: &Truth) -> Result<(), String> {
        let Self {
            who,
            key,
            value,
            written,
        } = self;
        match (written, truth.written(value)) {
            (true, None) => Err(format!(
                "{who} was told that {value:?} is written to {key}; no origin applied it"
            )),
            (false, Some((_, version))) => Err(format!(
                "{who} was told that {value:?} is refused for {key}; it was written at version {version}"
            )),
            (true, Some(_)) | (false, None) => Ok(()),
        }
    }
}

impl Client {
    /// A client that uses these objects.
    #[must_use]
    pub(super) fn new(
        name: String,
        mut dice: Dice,
        habits: Habits,
        objects: impl IntoIterator<Item = Subject>,
    ) -> Self {
        let session = SessionId(u128::from(dice.draw()) << 64 | u128::from(dice.draw()));
        Self {
            name,
            dice,
            habits,
            session,
            next_seq: 1,
            connection: None,
            objects: objects
                .into_iter()
                .map(|subject| (subject.key.clone(), Used::new(subject)))
                .collect(),
            asked: VecDeque::new(),
            unique: 0,
            tally: Tally::default(),
        }
    }

    /// The pause until its next thought.
    pub(super) fn pause(&mut self) -> Duration {
        let (from, to) = self.habits.think;
        self.dice.between(from, to)
    }

    /// Its connection is gone.
    pub(super) fn handle_lost(&mut self) {
        self.connection = None;
        for used in self.objects.values_mut() {
            used.synced = false;
            used.catching_up = false;
            used.last_send = None;
            used.locks = 0;
            let lost = used.waiting.drain(..).count() as u64;
            if !self.habits.durable {
                self.tally.lost += lost;
            }
        }
    }

    /// It has a connection: what it says first.
    pub(super) fn handle_connected(
        &mut self,
        edge: usize,
        id: SubscriberId,
        truth: &Truth,
    ) -> Vec<Wish> {
        self.connection = Some((edge, id));
        let used = self.objects.values_mut().filter(|used| !used.released);
        let mut wishes: Vec<_> = used.map(|used| used.ask_use(truth)).collect();
        if self.habits.durable {
            // From the first that has no answer, everything, in the same words.
            let next = self
                .asked
                .front()
                .map_or(self.next_seq, |(_, first)| first.seq);
            wishes.push(Wish::Resume { next });
            for (key, waiting) in &self.asked {
                let Some(used) = self.objects.get_mut(key) else {
                    continue;
                };
                wishes.push(waiting.wish(used));
                let mut waiting = waiting.clone();
                waiting.seen = used.version;
                used.waiting.push_back(waiting);
            }
        }
        wishes
    }

    /// A thought: what it wants now.
    pub(super) fn think(&mut self, now: Duration, truth: &Truth) -> Vec<Wish> {
        if self.connection.is_none() {
            return Vec::new();
        }
        if self.dice.in_thousand(4) && self.objects.values().all(|u| u.waiting.is_empty()) {
            return vec![Wish::Leave];
        }
        let free: Vec<_> = self
            .objects
            .iter()
            .filter(|(_, used)| (used.synced || used.released) && used.waiting.is_empty())
            .map(|(key, _)| key.clone())
            .collect();
        if free.is_empty() {
            return Vec::new();
        }
        let key = free[self.dice.below(free.len())].clone();
        let Some(used) = self.objects.get_mut(&key) else {
            return Vec::new();
        };
        if used.released {
            // Sometimes everybody is away for long enough that the object dies.
            let returns = self.dice.in_thousand(15);
            used.released = !returns;
            return returns.then(|| used.ask_use(truth)).into_iter().collect();
        }
        if self.dice.in_thousand(6) {
            used.released = true;
            used.synced = false;
            used.locks = 0;
            used.last_send = None;
            return vec![used.wish(vec![ObjectAsk::Release])];
        }
        let locks = used.locks;
        let what = match self.dice.below(100) {
            ..30 if locks > 0 => What::Unlock,
            30..33 => What::Lock([50, 200, 1000][self.dice.below(3)]),
            33..43 => What::Write(vec![SlotOp::Remove { slot: self.slot() }]),
            // By one client only: others' clears could not be told from the answer to its own.
            43..46 if self.name == "c0" => What::Write(vec![SlotOp::Clear]),
            46..64 => What::Send(self.unique()),
            _ => What::Write(self.writes()),
        };
        let seq = self.next_seq;
        self.next_seq += 1;
        let Some(used) = self.objects.get_mut(&key) else {
            return Vec::new();
        };
        let waiting = Waiting {
            seq,
            known: false,
            seen: used.version,
            since: now,
            what,
        };
        let wish = waiting.wish(used);
        if self.habits.durable {
            self.asked.push_back((key, waiting.clone()));
        }
        used.waiting.push_back(waiting);
        vec![wish]
    }

    fn writes(&mut self) -> Vec<SlotOp> {
        let mut ops: Vec<SlotOp> = Vec::new();
        for _ in 0..=self.dice.below(3) {
            let slot = self.slot();
            let value = SlotValue(self.unique());
            // A player sends each slot once: the last value.
            ops.retain(|op| !matches!(op, SlotOp::Set { slot: other, .. } if *other == slot));
            ops.push(SlotOp::Set { slot, value });
        }
        ops
    }

    fn slot(&mut self) -> SlotName {
        let slots = self.habits.slots;
        SlotName::new(&format!("s{}", self.dice.below(slots))).unwrap()
    }

    /// An AMF0 string that nobody else writes.
    fn unique(&mut self) -> Bytes {
        self.unique += 1;
        let text = format!("{}.{}", self.name, self.unique);
        let mut bytes = vec![2, 0, u8::try_from(text.len()).unwrap()];
        bytes.extend(text.as_bytes());
        bytes.into()
    }

    /// Whether nothing waits and everything it uses is known to it.
    ///
    /// # Errors
    /// What waits, and since when.
    pub(super) fn check_quiet(&self) -> Result<(), String> {
        for (key, used) in &self.objects {
            if let Some(waiting) = used.waiting.front() {
                return Err(format!(
                    "{} waits since {:?} for an answer to request {} to {key}: {:?}",
                    self.name, waiting.since, waiting.seq, waiting.what
                ));
            }
            if !used.synced && !used.released {
                return Err(format!("{} waits for the first state of {key}", self.name));
            }
        }
        Ok(())
    }

    /// Whether it uses the object.
    pub(super) fn uses(&self, key: &ObjectKey) -> bool {
        self.connection.is_some() && self.objects.get(key).is_some_and(|used| !used.released)
    }

    /// What it sees of the objects that it uses.
    pub(super) fn sees(&self) -> impl Iterator<Item = (&ObjectKey, Version, &Slots)> {
        self.objects
            .iter()
            .filter(|(_, used)| !used.released)
            .map(|(key, used)| (key, used.version, &used.slots))
    }

    /// What it is called.
    #[must_use]
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Used {
    fn new(subject: Subject) -> Self {
        Self {
            subject,
            synced: false,
            released: false,
            floor: Version(0),
            locks: 0,
            version: Version(0),
            slots: Slots::new(),
            last_send: None,
            waiting: VecDeque::new(),
            catching_up: false,
            ahead: false,
            unchecked: VecDeque::new(),
        }
    }

    fn wish(&self, asks: Vec<ObjectAsk>) -> Wish {
        Wish::Ask {
            subject: self.subject.clone(),
            version: self.version,
            asks,
        }
    }

    fn ask_use(&mut self, truth: &Truth) -> Wish {
        self.floor = truth.acknowledged(&self.subject.key);
        self.wish(vec![ObjectAsk::Use])
    }
}

impl Waiting {
    fn wish(&self, used: &Used) -> Wish {
        let key = used.subject.key.clone();
        let call = CallId(self.seq);
        match &self.what {
            What::Write(ops) => used.wish(vec![ObjectAsk::Write(ops.clone())]),
            What::Send(payload) => used.wish(vec![ObjectAsk::Send(payload.clone())]),
            What::Lock(lease_ms) => Wish::Lock {
                key,
                lease_ms: *lease_ms,
                call,
            },
            What::Unlock => Wish::Unlock { key, call },
        }
    }
}

impl What {
    /// What it gives the slot, if it does.
    fn value_of(&self, wanted: &SlotName) -> Option<&SlotValue> {
        match self {
            Self::Write(ops) => ops.iter().find_map(|op| match op {
                SlotOp::Set { slot, value } if slot == wanted => Some(value),
                _ => None,
            }),
            Self::Send(_) | Self::Lock(_) | Self::Unlock => None,
        }
    }
}
