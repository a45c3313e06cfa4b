//! One object as the edge holds it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use model::{Epoch, ObjectKind, SessionId, SlotName, SlotOp, SlotValue, Version};

use super::interface::{Recipients, SubscriberId};
use crate::effect::ObjectSync;
use crate::limits::TOMBSTONES_MAX;

/// What became of a slot: its value, or that it is gone.
pub(super) type Change = (SlotName, Option<SlotValue>);

/// An object that has subscribers here, or had some a moment ago.
#[derive(Debug)]
pub(super) struct Object {
    /// The kind it has, or that is asked for.
    pub(super) kind: ObjectKind,
    /// Whether the ledger has it open for this edge, and tells of its changes. When not,
    /// it is being opened.
    pub(super) open: bool,
    /// The number of the request that opens it.
    pub(super) open_seq: u64,
    /// What is known of it. Every subscriber was told all of it.
    pub(super) held: Option<Held>,
    /// Who has been told that the subscription is accepted.
    pub(super) subscribers: BTreeSet<SubscriberId>,
    /// Who waits for that, in order.
    pub(super) uses: VecDeque<Use>,
    /// The slots that somebody here has asked to change and has no answer about, and who.
    writing: BTreeMap<SlotName, BTreeMap<SubscriberId, usize>>,
    /// Who was not told of changes of slots that it is writing. Until it is told, it must not
    /// be told a version that includes them: it may come back and say that it has that.
    lagging: BTreeMap<SubscriberId, Lag>,
    /// Sessions whose next request waits until the object is open, though perhaps nobody in
    /// them uses it any more.
    held_up: BTreeSet<SessionId>,
    /// `subscribers`, for as long as nobody comes or goes.
    recipients: Option<Arc<[SubscriberId]>>,
}

/// What a subscriber was not told.
#[derive(Debug)]
struct Lag {
    /// The newest version of which it was told everything.
    version: Version,
    slots: BTreeSet<SlotName>,
}

/// A subscription that waits for an answer.
#[derive(Debug)]
pub(super) struct Use {
    /// Unique in the edge.
    pub(super) number: u64,
    pub(super) subscriber: SubscriberId,
    pub(super) version: Version,
    pub(super) kind: ObjectKind,
    pub(super) due: Instant,
    /// Whether what is held, or is about to be opened, includes everything that was
    /// acknowledged before the client asked.
    pub(super) fresh: bool,
}

impl Object {
    pub(super) fn opening(kind: ObjectKind) -> Self {
        Self {
            kind,
            open: false,
            open_seq: 0,
            held: None,
            subscribers: BTreeSet::new(),
            uses: VecDeque::new(),
            writing: BTreeMap::new(),
            lagging: BTreeMap::new(),
            held_up: BTreeSet::new(),
            recipients: None,
        }
    }

    /// The session's next request waits for the object.
    pub(super) fn held_up(&mut self, session: SessionId) {
        if !self.open {
            self.held_up.insert(session);
        }
    }

    /// Who was held up.
    pub(super) fn take_held_up(&mut self) -> BTreeSet<SessionId> {
        std::mem::take(&mut self.held_up)
    }

    pub(super) fn is_unused(&self) -> bool {
        self.subscribers.is_empty() && self.uses.is_empty()
    }

    pub(super) fn awaits(&self, subscriber: SubscriberId) -> bool {
        self.uses
            .iter()
            .any(|waiting| waiting.subscriber == subscriber)
    }

    pub(super) fn accept(&mut self, subscriber: SubscriberId) {
        self.lagging.remove(&subscriber);
        if self.subscribers.insert(subscriber) {
            self.recipients = None;
        }
    }

    /// The subscriber is told nothing more.
    pub(super) fn release(&mut self, subscriber: SubscriberId) {
        self.lagging.remove(&subscriber);
        if self.subscribers.remove(&subscriber) {
            self.recipients = None;
        }
        self.uses.retain(|waiting| waiting.subscriber != subscriber);
    }

    /// What is held, if the subscriber was told it.
    pub(super) fn told(&self, subscriber: SubscriberId) -> Option<&Held> {
        self.held
            .as_ref()
            .filter(|_| self.subscribers.contains(&subscriber))
    }

    pub(super) fn version(&self) -> Version {
        self.held.as_ref().map_or(Version(0), |held| held.version)
    }

    /// The version that a subscriber is told.
    pub(super) fn version_for(&self, subscriber: SubscriberId) -> Version {
        match self.lagging.get(&subscriber) {
            Some(lag) => lag.version,
            None => self.version(),
        }
    }

    /// The subscribers that are told an older version than the others.
    pub(super) fn lagging(&self) -> impl Iterator<Item = SubscriberId> {
        self.lagging.keys().copied()
    }

    /// The subscriber is not told of some of these changes, that come after `before`.
    pub(super) fn leave_behind(
        &mut self,
        subscriber: SubscriberId,
        before: Version,
        changes: &[Change],
    ) {
        let slots = changes
            .iter()
            .map(|(slot, _)| slot)
            .filter(|slot| self.is_writing(subscriber, slot))
            .cloned()
            .collect::<Vec<_>>();
        let lag = self.lagging.entry(subscriber).or_insert_with(|| Lag {
            version: before,
            slots: BTreeSet::new(),
        });
        lag.slots.extend(slots);
    }

    /// All subscribers but one.
    pub(super) fn everybody(&mut self, except: Option<SubscriberId>) -> Recipients {
        let subscribers = self
            .recipients
            .get_or_insert_with(|| self.subscribers.iter().copied().collect())
            .clone();
        Recipients::Many {
            subscribers,
            except,
        }
    }

    // ----- who is writing what

    /// The subscriber waits for an answer about these.
    pub(super) fn begin_write(&mut self, subscriber: SubscriberId, ops: &[SlotOp]) {
        for slot in ops.iter().filter_map(slot_of) {
            *self
                .writing
                .entry(slot.clone())
                .or_default()
                .entry(subscriber)
                .or_default() += 1;
        }
    }

    /// Not any more.
    pub(super) fn end_write(&mut self, subscriber: SubscriberId, ops: &[SlotOp]) {
        for slot in ops.iter().filter_map(slot_of) {
            let Some(writers) = self.writing.get_mut(slot) else {
                continue;
            };
            if let Some(times) = writers.get_mut(&subscriber) {
                *times -= 1;
                if *times == 0 {
                    writers.remove(&subscriber);
                }
            }
            if writers.is_empty() {
                self.writing.remove(slot);
            }
        }
        // The answer tells of the slots that are not written any more.
        if let Some(mut lag) = self.lagging.remove(&subscriber) {
            lag.slots.retain(|slot| self.is_writing(subscriber, slot));
            if !lag.slots.is_empty() {
                self.lagging.insert(subscriber, lag);
            }
        }
    }

    /// The subscriber waits for no answers any more.
    pub(super) fn forget_writer(&mut self, subscriber: SubscriberId) {
        self.writing.retain(|_, writers| {
            writers.remove(&subscriber);
            !writers.is_empty()
        });
    }

    pub(super) fn is_writing(&self, subscriber: SubscriberId, slot: &SlotName) -> bool {
        self.writing
            .get(slot)
            .is_some_and(|writers| writers.contains_key(&subscriber))
    }

    /// Who waits for an answer about one of these slots. They are not told of the change:
    /// to a player a change of a slot that it has asked to change means that it was
    /// refused. The answer tells them how the slot stands.
    pub(super) fn writers_of(&self, changes: &[Change]) -> BTreeSet<SubscriberId> {
        if self.writing.is_empty() {
            return BTreeSet::new();
        }
        changes
            .iter()
            .filter_map(|(slot, _)| self.writing.get(slot))
            .flat_map(|writers| writers.keys().copied())
            .collect()
    }
}

fn slot_of(op: &SlotOp) -> Option<&SlotName> {
    match op {
        SlotOp::Set { slot, .. } | SlotOp::Remove { slot } => Some(slot),
        SlotOp::Clear => None,
    }
}

/// The state of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) epoch: Epoch,
    pub(super) version: Version,
    pub(super) slots: BTreeMap<SlotName, (SlotValue, Version)>,
    /// Slots that were removed, and in which version.
    removed: BTreeMap<SlotName, Version>,
    /// Removals up to this version are not remembered.
    forgotten: Version,
}

/// How a state became another.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Transition {
    /// It is what it was.
    Same,
    /// These slots changed.
    Changed(Vec<Change>),
    /// It is another incarnation.
    Reset,
}

impl Held {
    pub(super) fn new(sync: ObjectSync) -> Self {
        Self {
            epoch: sync.epoch,
            version: sync.version,
            slots: sync
                .slots
                .into_iter()
                .map(|(slot, value, version)| (slot, (value, version)))
                .collect(),
            removed: sync.removed.into_iter().collect(),
            forgotten: sync.forgotten,
        }
    }

    pub(super) fn get(&self, slot: &SlotName) -> Option<&SlotValue> {
        self.slots.get(slot).map(|(value, _)| value)
    }

    /// One batch was applied.
    pub(super) fn apply(&mut self, version: Version, cleared: bool, slots: &[Change]) {
        self.version = version;
        if cleared {
            for slot in std::mem::take(&mut self.slots).into_keys() {
                self.removed.insert(slot, version);
            }
        }
        for (slot, value) in slots {
            if let Some(value) = value {
                self.removed.remove(slot);
                self.slots.insert(slot.clone(), (value.clone(), version));
            } else {
                self.slots.remove(slot);
                self.removed.insert(slot.clone(), version);
            }
        }
        self.forget();
    }

    /// Takes over what the ledger says of the time since.
    pub(super) fn catch_up(&mut self, sync: ObjectSync) -> Transition {
        if sync.epoch != self.epoch {
            *self = Self::new(sync);
            return Transition::Reset;
        }
        if sync.version <= self.version {
            return Transition::Same;
        }
        if sync.reset {
            // Everything there is, because the removals are forgotten there. Here it is
            // known what there was, so nobody needs to be reset.
            let old = std::mem::replace(self, Self::new(sync));
            let gone = old
                .slots
                .keys()
                .filter(|slot| !self.slots.contains_key(*slot))
                .map(|slot| (slot.clone(), None));
            let news = self
                .slots
                .iter()
                .filter(|(slot, (value, _))| old.get(slot) != Some(value))
                .map(|(slot, (value, _))| (slot.clone(), Some(value.clone())));
            return Transition::Changed(gone.chain(news).collect());
        }
        let mut changes = Vec::new();
        for (slot, version) in sync.removed {
            if self.slots.remove(&slot).is_some() {
                changes.push((slot.clone(), None));
            }
            self.removed.insert(slot, version);
        }
        for (slot, value, version) in sync.slots {
            self.removed.remove(&slot);
            changes.push((slot.clone(), Some(value.clone())));
            self.slots.insert(slot, (value, version));
        }
        self.version = sync.version;
        self.forgotten = self.forgotten.max(sync.forgotten);
        self.forget();
        Transition::Changed(changes)
    }

    /// What somebody must be told who has this version; `None` if he must be reset.
    pub(super) fn since(&self, kind: ObjectKind, version: Version) -> Option<Vec<Change>> {
        if kind == ObjectKind::Temporary
            || version == Version(0)
            || version > self.version
            || version < self.forgotten
        {
            return None;
        }
        let removed = self
            .removed
            .iter()
            .filter(|(_, at)| **at > version)
            .map(|(slot, _)| (slot.clone(), None));
        let changed = self
            .slots
            .iter()
            .filter(|(_, (_, at))| *at > version)
            .map(|(slot, (value, _))| (slot.clone(), Some(value.clone())));
        Some(removed.chain(changed).collect())
    }

    /// Every slot.
    pub(super) fn all(&self) -> impl Iterator<Item = Change> {
        self.slots
            .iter()
            .map(|(slot, (value, _))| (slot.clone(), Some(value.clone())))
    }

    /// Keeps the removals within their limit: the older half goes, so that this is rare.
    fn forget(&mut self) {
        if self.removed.len() <= TOMBSTONES_MAX {
            return;
        }
        let mut versions: Vec<Version> = self.removed.values().copied().collect();
        versions.sort_unstable();
        if let Some(middle) = versions.get(versions.len() / 2) {
            self.forgotten = self.forgotten.max(*middle);
        }
        let forgotten = self.forgotten;
        self.removed.retain(|_, version| *version > forgotten);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn slot(name: &str) -> SlotName {
        SlotName::new(name).unwrap()
    }

    fn value(text: &'static str) -> SlotValue {
        SlotValue(Bytes::from_static(text.as_bytes()))
    }

    fn held() -> Held {
        Held::new(ObjectSync {
            epoch: Epoch(1),
            version: Version(1),
            kind: ObjectKind::Persistent,
            reset: true,
            slots: Vec::new(),
            removed: Vec::new(),
            forgotten: Version(0),
        })
    }

    #[test]
    fn who_knows_a_version_is_told_what_is_new_since() {
        let mut held = held();
        held.apply(Version(2), false, &[(slot("a"), Some(value("1")))]);
        held.apply(Version(3), false, &[(slot("b"), Some(value("2")))]);
        held.apply(Version(4), false, &[(slot("a"), None)]);
        let kind = ObjectKind::Persistent;
        assert_eq!(
            held.since(kind, Version(2)),
            Some(vec![(slot("a"), None), (slot("b"), Some(value("2")))])
        );
        assert_eq!(held.since(kind, Version(4)), Some(vec![]));
        assert_eq!(held.since(kind, Version(5)), None, "from another life");
        assert_eq!(held.since(kind, Version(0)), None);
        assert_eq!(held.since(ObjectKind::Temporary, Version(2)), None);
    }

    #[test]
    fn who_knows_less_than_the_forgotten_is_reset() {
        let mut held = held();
        for n in 0..=u32::try_from(TOMBSTONES_MAX).unwrap() {
            let name = slot(&n.to_string());
            held.apply(Version(2 + n), false, &[(name, None)]);
        }
        assert!(held.removed.len() <= TOMBSTONES_MAX);
        assert_eq!(held.since(ObjectKind::Persistent, Version(3)), None);
        let newest = held.since(ObjectKind::Persistent, Version(1020)).unwrap();
        assert_eq!(newest.len(), 6);
    }

    #[test]
    fn a_reset_of_what_is_known_becomes_the_difference() {
        let mut old = held();
        old.apply(
            Version(2),
            false,
            &[
                (slot("a"), Some(value("1"))),
                (slot("b"), Some(value("1"))),
                (slot("c"), Some(value("1"))),
            ],
        );
        let mut new = old.clone();
        new.apply(
            Version(3),
            false,
            &[(slot("a"), None), (slot("b"), Some(value("2")))],
        );
        let transition = old.catch_up(ObjectSync {
            epoch: new.epoch,
            version: new.version,
            kind: ObjectKind::Persistent,
            reset: true,
            slots: new
                .slots
                .iter()
                .map(|(slot, (value, version))| (slot.clone(), value.clone(), *version))
                .collect(),
            removed: vec![(slot("a"), Version(3))],
            forgotten: Version(0),
        });
        assert_eq!(
            transition,
            Transition::Changed(vec![(slot("a"), None), (slot("b"), Some(value("2")))])
        );
        assert_eq!(old, new);
    }
}
