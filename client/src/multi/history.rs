//! One object as the program is told it: one history, whichever servers it comes from.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use model::{ObjectKind, SlotName, SlotValue, Version};

use super::machine::{Step, StepCode, Ticket};
use super::mirror::{self, Mirror};

/// What was told of an object, and what is to be asked of it.
#[derive(Debug)]
pub(super) struct History {
    pub(super) kind: ObjectKind,
    pub(super) told: BTreeMap<SlotName, SlotValue>,
    pub(super) version: Version,
    /// The first sync event was told.
    begun: bool,
    /// The primary's copy is older than what was told: nothing is told until it is not.
    pub(super) behind: bool,
    /// Answers that came meanwhile.
    held: Vec<Verdict>,
    sends: VecDeque<Bytes>,
    /// How many messages were told.
    pub(super) messages: u64,
    /// Messages that were told already and that the primary will give out again.
    awaited: VecDeque<Bytes>,
    /// Changes that wait to be asked for; the last of each slot.
    pub(super) dirty: Vec<Dirty>,
    /// Messages that wait to be asked for.
    pub(super) queue: VecDeque<Queued>,
}

/// A change that waits.
#[derive(Clone, Debug)]
pub(super) struct Dirty {
    pub(super) slot: SlotName,
    /// `None` takes it away.
    pub(super) value: Option<SlotValue>,
    pub(super) ticket: Ticket,
    pub(super) since: Instant,
}

/// A message that waits.
#[derive(Clone, Debug)]
pub(super) struct Queued {
    pub(super) payload: Bytes,
    pub(super) ticket: Ticket,
    pub(super) since: Instant,
}

/// What became of a change.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    pub(super) slot: SlotName,
    /// What was asked for; `None` takes it away.
    pub(super) wanted: Option<SlotValue>,
    pub(super) accepted: bool,
}

impl History {
    pub(super) const fn new(kind: ObjectKind) -> Self {
        Self {
            kind,
            told: BTreeMap::new(),
            version: Version(0),
            begun: false,
            behind: true,
            held: Vec::new(),
            sends: VecDeque::new(),
            messages: 0,
            awaited: VecDeque::new(),
            dirty: Vec::new(),
            queue: VecDeque::new(),
        }
    }

    /// Another server is the primary. Returns the messages that the last one owed.
    pub(super) fn switch(&mut self, to: &Mirror) -> Vec<Bytes> {
        self.behind = true;
        // What was told before the subscription began does not come by it.
        let since = usize::try_from(self.messages - to.passed).unwrap_or(usize::MAX);
        let over = self.sends.len().saturating_sub(since);
        let told = self.sends.iter().skip(over).cloned().collect();
        let joint = mirror::join(&told, &to.sends);
        self.awaited = joint.awaited;
        for payload in &joint.missed {
            self.keep(payload);
        }
        joint.missed
    }

    /// Whether a message that the primary gives out is to be told.
    pub(super) fn is_news(&mut self, payload: &Bytes) -> bool {
        // One that is not awaited was missed before, or the awaited ones do not come: in
        // either case it is better told late than not at all.
        if let Some(at) = self.awaited.iter().position(|awaited| awaited == payload) {
            self.awaited.drain(..=at);
            return false;
        }
        self.keep(payload);
        true
    }

    /// Counts a message that is told.
    pub(super) fn keep(&mut self, payload: &Bytes) {
        self.messages += 1;
        mirror::keep(&mut self.sends, payload.clone());
    }

    /// Takes over what the primary's copy has and was not told: of the slots that are named,
    /// or of all. Slots whose own change is not answered are left for the answer.
    ///
    /// `None` when there is nothing to tell.
    pub(super) fn follow(
        &mut self,
        mirror: &Mirror,
        named: Option<&[SlotName]>,
        cleared: bool,
        verdicts: Vec<Verdict>,
        open: &BTreeSet<SlotName>,
    ) -> Option<Vec<Step>> {
        self.held.extend(verdicts);
        let mut named = named;
        let mut cleared = cleared;
        if self.behind {
            let reborn = mirror.reborn && mirror.version < self.version;
            if !mirror.live || (mirror.version < self.version && !reborn) {
                return None;
            }
            self.behind = false;
            named = None;
            // To a program that has seen the object, another server's copy is no reset.
            cleared = reborn;
        }
        let mut steps = Vec::new();
        let first = !self.begun;
        if first || cleared {
            self.begun = true;
            self.told.clear();
            named = None;
            steps.push(Step {
                code: StepCode::Clear,
                slot: None,
                value: None,
                old: None,
            });
        }
        for verdict in std::mem::take(&mut self.held) {
            steps.push(self.settle(mirror, &verdict));
        }
        match named {
            Some(named) => {
                for slot in named {
                    self.compare(mirror, slot, open, &mut steps);
                }
            }
            None => {
                let all: BTreeSet<SlotName> = self
                    .told
                    .keys()
                    .chain(mirror.slots.keys())
                    .cloned()
                    .collect();
                for slot in &all {
                    self.compare(mirror, slot, open, &mut steps);
                }
            }
        }
        self.version = mirror.version;
        (first || !steps.is_empty()).then_some(steps)
    }

    fn settle(&mut self, mirror: &Mirror, verdict: &Verdict) -> Step {
        let slot = verdict.slot.clone();
        let before = self.told.get(&slot).cloned();
        let (code, value, old) = match (verdict.accepted, &verdict.wanted) {
            (true, Some(wanted)) => (StepCode::Success, Some(wanted.clone()), before),
            (true, None) => (StepCode::Delete, None, before),
            // What this program tried to make of it is what it sees replaced.
            (false, wanted) => {
                let now = mirror.slots.get(&slot).cloned();
                (StepCode::Reject, now, wanted.clone())
            }
        };
        match &value {
            Some(value) => self.told.insert(slot.clone(), value.clone()),
            None => self.told.remove(&slot),
        };
        Step {
            code,
            slot: Some(slot),
            value,
            old,
        }
    }

    fn compare(
        &mut self,
        mirror: &Mirror,
        slot: &SlotName,
        open: &BTreeSet<SlotName>,
        steps: &mut Vec<Step>,
    ) {
        let now = mirror.slots.get(slot);
        if open.contains(slot) || self.told.get(slot) == now {
            return;
        }
        let (code, old) = match now {
            Some(value) => (
                StepCode::Change,
                self.told.insert(slot.clone(), value.clone()),
            ),
            None => (StepCode::Delete, self.told.remove(slot)),
        };
        steps.push(Step {
            code,
            slot: Some(slot.clone()),
            value: now.cloned(),
            old,
        });
    }

    /// Remembers a change that is to be asked for, and gives back the ticket of the one that
    /// it replaces.
    pub(super) fn want(&mut self, change: Dirty) -> Option<Ticket> {
        match self.dirty.iter_mut().find(|d| d.slot == change.slot) {
            Some(before) => Some(std::mem::replace(before, change).ticket),
            None => {
                self.dirty.push(change);
                None
            }
        }
    }
}
