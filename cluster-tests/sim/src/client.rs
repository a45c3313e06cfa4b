//! A client: it uses some objects, writes one batch at a time to each, folds what it is
//! told, and knows what it must never be told.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use ledger::replica::SubscriberId;
use model::object::{ObjectAsk, ObjectEvent, ObjectStatus, ObjectUpdate};
use model::{ObjectKey, ObjectKind, SessionId, SlotName, SlotOp, SlotValue, Version};

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
}

#[derive(Debug)]
struct Used {
    kind: ObjectKind,
    /// Whether it was told the first state since it connected.
    synced: bool,
    version: Version,
    slots: Slots,
    /// The place of the last message it was told.
    last_send: Option<usize>,
    /// More than one only when it asks again at another edge.
    waiting: VecDeque<Waiting>,
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
    since: Duration,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Write(Vec<SlotOp>),
    Send(Bytes),
}

/// What the client wants of its edge.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    /// One message about one object.
    Ask {
        /// Which.
        key: ObjectKey,
        /// Its kind.
        kind: ObjectKind,
        /// What the header says.
        version: Version,
        /// What is asked.
        asks: Vec<ObjectAsk>,
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
        objects: impl IntoIterator<Item = (ObjectKey, ObjectKind)>,
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
                .map(|(key, kind)| (key, Used::new(kind)))
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
            used.last_send = None;
            let lost = used.waiting.drain(..).count() as u64;
            if !self.habits.durable {
                self.tally.lost += lost;
            }
        }
    }

    /// It has a connection: what it says first.
    pub(super) fn handle_connected(&mut self, edge: usize, id: SubscriberId) -> Vec<Wish> {
        self.connection = Some((edge, id));
        let mut wishes: Vec<_> = self
            .objects
            .iter()
            .map(|(key, used)| Wish::Ask {
                key: key.clone(),
                kind: used.kind,
                version: used.version,
                asks: vec![ObjectAsk::Use],
            })
            .collect();
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
                wishes.push(Wish::Ask {
                    key: key.clone(),
                    kind: used.kind,
                    version: used.version,
                    asks: vec![waiting.what.ask()],
                });
                used.waiting.push_back(waiting.clone());
            }
        }
        wishes
    }

    /// A thought: what it wants now.
    pub(super) fn think(&mut self, now: Duration, leave: bool) -> Vec<Wish> {
        if self.connection.is_none() {
            return Vec::new();
        }
        if leave && self.dice.in_thousand(4) && self.objects.values().all(|u| u.waiting.is_empty())
        {
            return vec![Wish::Leave];
        }
        let free: Vec<_> = self
            .objects
            .iter()
            .filter(|(_, used)| used.synced && used.waiting.is_empty())
            .map(|(key, _)| key.clone())
            .collect();
        if free.is_empty() {
            return Vec::new();
        }
        let key = free[self.dice.below(free.len())].clone();
        let what = match self.dice.below(100) {
            0..70 => What::Write(self.writes()),
            70..80 => What::Write(vec![SlotOp::Remove { slot: self.slot() }]),
            // By one client only: others' clears could not be told from the answer to its own.
            80..83 if self.name == "c0" => What::Write(vec![SlotOp::Clear]),
            _ => What::Send(self.unique()),
        };
        let seq = self.next_seq;
        self.next_seq += 1;
        let Some(used) = self.objects.get_mut(&key) else {
            return Vec::new();
        };
        let asks = vec![what.ask()];
        let waiting = Waiting {
            seq,
            known: false,
            since: now,
            what,
        };
        if self.habits.durable {
            self.asked.push_back((key.clone(), waiting.clone()));
        }
        used.waiting.push_back(waiting);
        vec![Wish::Ask {
            key,
            kind: used.kind,
            version: used.version,
            asks,
        }]
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

    /// Its edge tells it something.
    ///
    /// # Errors
    /// It must not be told that.
    pub(super) fn handle_update(
        &mut self,
        key: &ObjectKey,
        update: &ObjectUpdate,
        truth: &Truth,
        verdicts: &mut Vec<Verdict>,
    ) -> Result<(), String> {
        let name = &self.name;
        let Some(used) = self.objects.get_mut(key) else {
            return Err(format!("{name} is told of {key}, which it does not use"));
        };
        let version = update.version;
        let has_status = update
            .events
            .iter()
            .any(|event| matches!(event, ObjectEvent::Status(_)));
        let first = update
            .events
            .iter()
            .any(|event| matches!(event, ObjectEvent::UseSuccess));
        if !used.synced && !first && !has_status {
            return Err(format!(
                "{name} is told of {key} before its first state: {update:?}"
            ));
        }
        if version < used.version && !has_status {
            return Err(format!(
                "{name} goes from version {} of {key} back to {version}: {update:?}",
                used.version
            ));
        }
        let changes = update.events.iter().any(|event| {
            matches!(
                event,
                ObjectEvent::Change { .. } | ObjectEvent::Remove { .. } | ObjectEvent::Clear
            )
        });
        // What a subscription begins with answers nothing, though it may tell of the same slots.
        let answered = used.answered_by(update).filter(|_| !first);
        // Others' changes of a slot that the client is writing are kept from it until its answer,
        // and so is the version that includes them; what else changed it is told.
        let behind = !used.waiting.is_empty() && answered.is_none() && version == used.version;
        let mut status = None;
        let mut succeeded = Vec::new();
        for event in &update.events {
            match event {
                ObjectEvent::UseSuccess => used.synced = true,
                ObjectEvent::Clear => used.slots.clear(),
                ObjectEvent::Change { slot, value } => {
                    used.slots.insert(slot.clone(), value.clone());
                }
                ObjectEvent::Remove { slot } => {
                    used.slots.remove(slot);
                }
                ObjectEvent::Success { slot } => {
                    succeeded.push(slot.clone());
                    let own = answered
                        .as_ref()
                        .and_then(|waiting| waiting.what.value_of(slot));
                    if let Some(value) = own {
                        used.slots.insert(slot.clone(), value.clone());
                    }
                }
                ObjectEvent::Send(payload) => {
                    let Some(place) = truth.place_of(key, payload) else {
                        return Err(format!("{name} is told of a message that nobody sent"));
                    };
                    // The answer to a message that is asked again elsewhere comes late.
                    if answered.is_some() && place <= used.last_send.unwrap_or_default() {
                        continue;
                    }
                    if used.last_send.is_some_and(|last| last >= place) {
                        return Err(format!(
                            "{name} is told message {place} of {key} behind {:?}",
                            used.last_send
                        ));
                    }
                    used.last_send = Some(place);
                }
                ObjectEvent::Status(code) => status = Some(*code),
            }
        }
        let answered_now = answered.is_some();
        if let Some(waiting) = answered {
            used.waiting.pop_front();
            if let Some((_, asked)) = self
                .asked
                .iter_mut()
                .find(|(_, asked)| asked.seq == waiting.seq)
            {
                asked.known = true;
            }
            while self.asked.front().is_some_and(|(_, asked)| asked.known) {
                self.asked.pop_front();
            }
            match (&waiting.what, status) {
                // What it was told before counts.
                _ if waiting.known => {}
                (What::Send(_), None) => self.tally.sent += 1,
                (What::Write(ops), None) => {
                    let mut accepted = 0;
                    for op in ops {
                        if let SlotOp::Set { slot, value } = op {
                            let written = succeeded.contains(slot);
                            accepted += u64::from(written);
                            verdicts.push(Verdict {
                                who: name.clone(),
                                key: key.clone(),
                                value: value.clone(),
                                written,
                            });
                        }
                    }
                    if accepted > 0 {
                        self.tally.accepted += 1;
                    } else {
                        self.tally.refused += 1;
                    }
                }
                (_, Some(ObjectStatus::Unavailable)) => {
                    // It was not made, and will not be.
                    if let What::Write(ops) = &waiting.what {
                        verdicts.extend(ops.iter().filter_map(|op| match op {
                            SlotOp::Set { value, .. } => Some(Verdict {
                                who: name.clone(),
                                key: key.clone(),
                                value: value.clone(),
                                written: false,
                            }),
                            SlotOp::Remove { .. } | SlotOp::Clear => None,
                        }));
                    }
                    self.tally.undecided += 1;
                }
                (_, Some(_)) => self.tally.undecided += 1,
            }
        } else if !succeeded.is_empty() {
            return Err(format!(
                "{name} is told of a success in {key} that it does not wait for: {update:?}"
            ));
        }
        if behind && changes {
            used.ahead = true;
        } else if version > used.version || first || answered_now {
            used.ahead = false;
        }
        let told = changes || first || !succeeded.is_empty();
        if told && !used.ahead && version >= used.version {
            used.version = version;
            used.unchecked.push_back((version, used.slots.clone()));
        }
        self.check_told(truth)
    }

    /// Holds what it was told against what happened.
    ///
    /// # Errors
    /// It was told of a state that never was.
    pub(super) fn check_told(&mut self, truth: &Truth) -> Result<(), String> {
        for (key, used) in &mut self.objects {
            while let Some((version, slots)) = used.unchecked.pop_front() {
                match truth.at(key, version) {
                    Some(right) if *right == slots => {}
                    Some(right) => {
                        return Err(format!(
                            "{} sees {key} at version {version} as {slots:?}, it is {right:?}",
                            self.name
                        ));
                    }
                    // The version it was made with: it holds nothing, and no change made it.
                    None if slots.is_empty() => {}
                    None => {
                        return Err(format!(
                            "{} sees version {version} of {key}, which never was",
                            self.name
                        ));
                    }
                }
            }
        }
        Ok(())
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
            if !used.synced {
                return Err(format!("{} waits for the first state of {key}", self.name));
            }
        }
        Ok(())
    }

    /// What it sees of an object.
    pub(super) fn sees(&self) -> impl Iterator<Item = (&ObjectKey, Version, &Slots)> {
        self.objects
            .iter()
            .map(|(key, used)| (key, used.version, &used.slots))
    }

    /// What it is called.
    #[must_use]
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Used {
    fn new(kind: ObjectKind) -> Self {
        Self {
            kind,
            synced: false,
            version: Version(0),
            slots: Slots::new(),
            last_send: None,
            waiting: VecDeque::new(),
            ahead: false,
            unchecked: VecDeque::new(),
        }
    }

    /// The request that an update answers: it has a success, an echo of the message, or says
    /// something about each slot that was asked for.
    fn answered_by(&self, update: &ObjectUpdate) -> Option<Waiting> {
        let waiting = self.waiting.front()?;
        let says = |wanted: &SlotOp| {
            update.events.iter().any(|event| match (wanted, event) {
                (SlotOp::Set { slot, .. }, ObjectEvent::Success { slot: told }) => slot == told,
                (SlotOp::Set { slot, .. }, ObjectEvent::Change { slot: told, .. })
                | (
                    SlotOp::Set { slot, .. } | SlotOp::Remove { slot },
                    ObjectEvent::Remove { slot: told },
                )
                | (SlotOp::Remove { slot }, ObjectEvent::Change { slot: told, .. }) => slot == told,
                (SlotOp::Clear, ObjectEvent::Clear) => true,
                _ => false,
            })
        };
        let failed = update
            .events
            .iter()
            .any(|event| matches!(event, ObjectEvent::Status(_)));
        let answered = failed
            || match &waiting.what {
                What::Write(ops) => ops.iter().all(says),
                What::Send(payload) => update
                    .events
                    .iter()
                    .any(|event| matches!(event, ObjectEvent::Send(told) if told == payload)),
            };
        answered.then(|| waiting.clone())
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
            Self::Send(_) => None,
        }
    }

    fn ask(&self) -> ObjectAsk {
        match self {
            Self::Write(ops) => ObjectAsk::Write(ops.clone()),
            Self::Send(payload) => ObjectAsk::Send(payload.clone()),
        }
    }
}
