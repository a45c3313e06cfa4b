//! The history sorted by request.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Answer, Ask, Event, History, Object, Op, Record};
use super::verdict::{Verdict, Violation};

/// Every request with what became of it, and which values were seen where.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) requests: BTreeMap<u64, Request>,
    /// When connections were over.
    pub(super) closed: BTreeMap<u32, u64>,
    /// By object and slot.
    pub(super) slots: BTreeMap<(Object, String), SlotAccount>,
}

#[derive(Debug)]
pub(super) struct Request {
    pub(super) number: u64,
    pub(super) connection: u32,
    pub(super) object: Object,
    pub(super) what: Ask,
    pub(super) called: u64,
    /// `u64::MAX` as long as it is undecided.
    pub(super) returned: u64,
    /// `Undecided` also if its connection was lost.
    pub(super) answer: Answer,
}

/// What is known of one slot.
#[derive(Debug, Default)]
pub(super) struct SlotAccount {
    /// What requests wrote that are acknowledged: by version, what the slot held then
    /// and whose request it was.
    pub(super) acknowledged: BTreeMap<u32, (Option<String>, u64)>,
    /// Which requests wanted to write a value; `None` is removal.
    pub(super) wanted: BTreeMap<Option<String>, Vec<Want>>,
    /// When and at which version a value was first seen.
    pub(super) first_seen: BTreeMap<String, Sighting>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Want {
    pub(super) ask: u64,
    pub(super) fate: Fate,
}

/// What became of one step of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Written {
        version: u32,
    },
    /// In this version at the latest.
    Made {
        version: u32,
    },
    Refused,
    Undecided,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Sighting {
    pub(super) at: u64,
    pub(super) version: u32,
}

impl Account {
    pub(super) fn of(history: &History, verdict: &mut Verdict) -> Self {
        let mut account = Self::default();
        account.collect_requests(history, verdict);
        account.collect_sightings(history);
        account.collect_wants();
        verdict.asks = account.requests.len();
        account
    }

    /// What was answered before something else was asked has no greater version.
    pub(super) fn judge_real_time(&self, verdict: &mut Verdict) {
        let mut by_object: BTreeMap<&Object, Vec<(&Request, u32)>> = BTreeMap::new();
        for request in self.requests.values() {
            if let Some(version) = request.version() {
                by_object
                    .entry(&request.object)
                    .or_default()
                    .push((request, version));
            }
        }
        for mut called in by_object.into_values() {
            let mut returned = called.clone();
            called.sort_by_key(|(request, _)| request.called);
            returned.sort_by_key(|(request, _)| request.returned);
            let mut returned = returned.into_iter().peekable();
            let mut greatest: Option<(&Request, u32)> = None;
            for (later, later_version) in called {
                while let Some(earlier) =
                    returned.next_if(|(earlier, _)| earlier.returned < later.called)
                {
                    if greatest.is_none_or(|greatest| greatest.1 < earlier.1) {
                        greatest = Some(earlier);
                    }
                }
                if let Some((earlier, earlier_version)) = greatest
                    && earlier_version > later_version
                {
                    verdict.found(Violation::AgainstTime {
                        earlier: earlier.number,
                        earlier_version,
                        later: later.number,
                        later_version,
                    });
                }
            }
        }
    }

    fn collect_requests(&mut self, history: &History, verdict: &mut Verdict) {
        let mut answered = BTreeSet::new();
        let malformed = |text: String| Violation::Malformed(text);
        for record in &history.records {
            match record {
                Record::Ask {
                    at,
                    connection,
                    ask,
                    object,
                    what,
                } => {
                    let request = Request {
                        number: *ask,
                        connection: *connection,
                        object: object.clone(),
                        what: what.clone(),
                        called: *at,
                        returned: u64::MAX,
                        answer: Answer::Undecided,
                    };
                    if self.requests.insert(*ask, request).is_some() {
                        verdict.found(malformed(format!("two requests have the number {ask}")));
                    }
                }
                Record::Answer { at, ask, answer } => {
                    let Some(request) = self.requests.get_mut(ask) else {
                        verdict.found(malformed(format!("{ask} is answered and was not asked")));
                        continue;
                    };
                    if !answered.insert(*ask) {
                        verdict.found(Violation::AnsweredTwice { ask: *ask });
                        continue;
                    }
                    if !fits(&request.what, answer) {
                        let text = format!("{ask}: {answer:?} is no answer to {:?}", request.what);
                        verdict.found(malformed(text));
                        continue;
                    }
                    if *answer != Answer::Undecided {
                        request.returned = *at;
                    }
                    request.answer = answer.clone();
                }
                Record::Close { at, connection } => {
                    self.closed.entry(*connection).or_insert(*at);
                }
                Record::Open { .. } | Record::Seen { .. } => {}
            }
        }
        for request in self.requests.values() {
            if !answered.contains(&request.number) && !self.closed.contains_key(&request.connection)
            {
                let ask = request.number;
                verdict.found(Violation::NotAnswered { ask });
            }
        }
    }

    fn collect_sightings(&mut self, history: &History) {
        let mut sightings = Vec::new();
        for record in &history.records {
            let Record::Seen {
                at,
                object,
                version,
                events,
                ..
            } = record
            else {
                continue;
            };
            for event in events {
                if let Event::Set { slot, value, .. } = event {
                    sightings.push((object, slot, value, *at, *version));
                }
            }
        }
        for request in self.requests.values() {
            match (&request.answer, &request.what) {
                (Answer::Used { version, slots }, _) => {
                    for (slot, value) in slots {
                        let at = request.returned;
                        sightings.push((&request.object, slot, value, at, *version));
                    }
                }
                (Answer::Written { version, refused }, Ask::Write { ops, .. }) => {
                    for (place, value) in refused {
                        if let (Some(slot), Some(value)) = (slot_of(ops.get(*place)), value) {
                            let at = request.returned;
                            sightings.push((&request.object, slot, value, at, *version));
                        }
                    }
                }
                _ => {}
            }
        }
        for (object, slot, value, at, version) in sightings {
            let slot = self
                .slots
                .entry((object.clone(), slot.clone()))
                .or_default();
            let first = slot
                .first_seen
                .entry(value.clone())
                .or_insert(Sighting { at, version });
            first.at = first.at.min(at);
            first.version = first.version.min(version);
        }
    }

    fn collect_wants(&mut self) {
        // A clear concerns every slot that there ever is.
        let mut names: BTreeMap<&Object, BTreeSet<&str>> = BTreeMap::new();
        for (object, slot) in self.slots.keys() {
            names.entry(object).or_default().insert(slot);
        }
        for request in self.requests.values() {
            if let Ask::Write { ops, .. } = &request.what {
                let slots = ops.iter().filter_map(|op| slot_of(Some(op)));
                let known = names.entry(&request.object).or_default();
                known.extend(slots.map(String::as_str));
            }
        }
        let mut wants = Vec::new();
        for request in self.requests.values() {
            for slot in names.get(&request.object).into_iter().flatten() {
                let key = (request.object.clone(), (*slot).to_owned());
                for step in request.steps_of(slot) {
                    wants.push((key.clone(), request.number, step));
                }
            }
        }
        for (key, ask, step) in wants {
            let slot = self.slots.entry(key).or_default();
            if let Fate::Written { version } = step.fate
                && step.last
            {
                // Two in one version are found by the search.
                slot.acknowledged.insert(version, (step.value.clone(), ask));
            }
            let fate = step.fate;
            slot.wanted
                .entry(step.value)
                .or_default()
                .push(Want { ask, fate });
        }
    }
}

/// One step of a write, as one slot sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// What the slot should hold.
    pub(super) value: Option<String>,
    pub(super) fate: Fate,
    /// Whether the request's word about the slot ends here: what it wrote before in the same
    /// version nobody sees.
    pub(super) last: bool,
}

impl Request {
    /// The version at which it was applied, if it was answered with one.
    pub(super) fn version(&self) -> Option<u32> {
        match &self.answer {
            Answer::Used { version, .. }
            | Answer::Written { version, .. }
            | Answer::Made { version } => Some(*version),
            Answer::Done
            | Answer::Locked { .. }
            | Answer::NotLocked
            | Answer::Unavailable
            | Answer::Undecided => None,
        }
    }

    /// What it does to a slot, in order.
    pub(super) fn steps_of(&self, slot: &str) -> Vec<Step> {
        let Ask::Write { ops, .. } = &self.what else {
            return Vec::new();
        };
        let mut steps = Vec::new();
        for (place, op) in ops.iter().enumerate() {
            let value = match op {
                Op::Set { slot: named, value } if named == slot => Some(value.clone()),
                Op::Remove { slot: named } if named == slot => None,
                Op::Clear => None,
                Op::Set { .. } | Op::Remove { .. } => continue,
            };
            let fate = match &self.answer {
                Answer::Written { refused, .. } if refused.contains_key(&place) => Fate::Refused,
                Answer::Written { version, .. } => Fate::Written { version: *version },
                Answer::Made { version } => Fate::Made { version: *version },
                Answer::Undecided => Fate::Undecided,
                Answer::Unavailable
                | Answer::Used { .. }
                | Answer::Done
                | Answer::Locked { .. }
                | Answer::NotLocked => Fate::Refused,
            };
            let last = false;
            steps.push(Step { value, fate, last });
        }
        let word = steps
            .iter_mut()
            .rev()
            .find(|step| step.fate != Fate::Refused);
        if let Some(step) = word {
            step.last = true;
        }
        steps
    }

    /// What its refusal says of a slot.
    pub(super) fn refusal_of(&self, slot: &str) -> Option<&Option<String>> {
        let (Answer::Written { refused, .. }, Ask::Write { ops, .. }) = (&self.answer, &self.what)
        else {
            return None;
        };
        let mut named = refused.iter();
        let (_, value) = named
            .find(|(place, _)| slot_of(ops.get(**place)).is_some_and(|named| named == slot))?;
        Some(value)
    }
}

/// The slot that a step names; a clear names none.
pub(super) fn slot_of(op: Option<&Op>) -> Option<&String> {
    match op? {
        Op::Set { slot, .. } | Op::Remove { slot } => Some(slot),
        Op::Clear => None,
    }
}

fn fits(what: &Ask, answer: &Answer) -> bool {
    match answer {
        Answer::Unavailable | Answer::Undecided => true,
        Answer::Used { .. } => matches!(what, Ask::Use),
        Answer::Written { .. } | Answer::Made { .. } => matches!(what, Ask::Write { .. }),
        Answer::Done => matches!(what, Ask::Send { .. } | Ask::Unlock | Ask::Release),
        Answer::Locked { .. } => matches!(what, Ask::Lock { .. }),
        Answer::NotLocked => matches!(what, Ask::Unlock),
    }
}
