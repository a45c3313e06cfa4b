//! What somebody who only sees the log and its effects can know, and what must follow.

use std::collections::{BTreeMap, BTreeSet};

use model::{Epoch, ObjectKey, Policy, SessionId, SlotName, SlotOp, SlotValue, StreamKey, Version};

use super::input::slot;
use crate::command::{Command, Proposal, Request};
use crate::effect::{Answer, Applied, Decision, Effect, ObjectChange};
use crate::ledger::Ledger;

#[derive(Default)]
pub(super) struct Books {
    /// Requests that were applied and are not answered.
    open: BTreeSet<(SessionId, u64)>,
    objects: BTreeMap<ObjectKey, Seen>,
    epochs: BTreeMap<StreamKey, Epoch>,
}

/// An object as its subscribers see it.
#[derive(Default)]
struct Seen {
    epoch: Epoch,
    slots: Slots,
    /// Who changed a slot last, and in which version.
    stamps: BTreeMap<SlotName, (Version, SessionId)>,
    /// Every version that there was.
    history: BTreeMap<Version, Slots>,
    /// The greatest version of all incarnations.
    newest: Version,
}

type Slots = BTreeMap<SlotName, SlotValue>;

impl Books {
    /// After an entry.
    pub(super) fn check(
        &mut self,
        before: &Ledger,
        command: &Command,
        applied: &Applied,
        ledger: &Ledger,
    ) {
        self.check_accepted(before, command, applied);
        for effect in &applied.effects {
            match effect {
                Effect::Object {
                    key,
                    epoch,
                    by,
                    change,
                } => {
                    self.fold(key, *epoch, *by, change);
                }
                Effect::Stream { key, state } => {
                    let seen = self.epochs.entry(key.clone()).or_default();
                    let granted = before.stream(key).epoch < state.epoch;
                    assert!(*seen <= state.epoch, "epochs of {key} never go back");
                    assert!(!granted || *seen < state.epoch, "a grant has its own epoch");
                    assert!(
                        granted
                            || state.holder.is_none()
                            || state.holder == before.stream(key).holder,
                        "another holder has another epoch"
                    );
                    *seen = state.epoch;
                }
                Effect::Claim {
                    key,
                    decision: Decision::Ended { epoch },
                    ..
                } => {
                    assert_eq!(*epoch, before.stream(key).epoch, "what ended was held");
                }
                _ => {}
            }
        }
        self.check_answers(before, command, applied, ledger);
        self.check_objects(ledger);
    }

    /// Every request that is applied is answered once: at once, or when it waits no more.
    fn check_answers(
        &mut self,
        before: &Ledger,
        command: &Command,
        applied: &Applied,
        ledger: &Ledger,
    ) {
        let last = |ledger: &Ledger, id| ledger.sessions.get(id).map_or(0, |s| s.last);
        let asked = match command {
            Command::Propose(proposal) => Some((proposal.session, proposal.seq)),
            _ => None,
        };
        let mut again = None;
        if let Some((session, seq)) = asked {
            if last(before, session) < seq && last(ledger, session) >= seq {
                assert_eq!(last(before, session) + 1, seq, "no gaps");
                assert!(self.open.insert((session, seq)));
            } else {
                again = asked;
            }
        }
        for effect in &applied.effects {
            let Effect::Answer { session, seq, .. } = effect else {
                continue;
            };
            let by = (*session, *seq);
            // A session may end by its own request, which is answered all the same.
            if !self.open.remove(&by) {
                let own_end = ledger.sessions.get(*session).is_none() && asked == Some(by);
                assert!(
                    again.take() == Some(by) || own_end,
                    "answered twice: {by:?}"
                );
            }
        }
        let waiting: BTreeSet<_> = ledger
            .objects
            .values()
            .flat_map(|object| object.door.queue().iter().map(|w| (w.session, w.seq)))
            .collect();
        // Nobody is told who is not there: the answer is kept until the session asks again.
        self.open.retain(|by| {
            let session = ledger.sessions.get(by.0);
            session.is_some_and(|session| session.edge.is_some() || waiting.contains(by))
        });
        assert_eq!(self.open, waiting, "what is not answered waits for a lock");
    }

    /// An operation is refused if, and only if, another session changed the slot after the
    /// version that was seen.
    fn check_accepted(&self, before: &Ledger, command: &Command, applied: &Applied) {
        let Command::Propose(Proposal {
            session,
            seq,
            request:
                Request::Batch {
                    key,
                    epoch,
                    base,
                    policy,
                    ops,
                },
            ..
        }) = command
        else {
            return;
        };
        let fresh = before.sessions.get(*session).map_or(0, |s| s.last) < *seq;
        let Some(Effect::Answer {
            answer: Answer::Written { refused, .. },
            ..
        }) = applied.effects.first().filter(|_| fresh)
        else {
            return;
        };
        let nobody = Seen::default();
        let seen = self.objects.get(key).unwrap_or(&nobody);
        let now = before.sync(key, None).unwrap();
        let base = if *epoch == now.epoch {
            *base
        } else {
            Version(0)
        };
        let mut mine: BTreeSet<SlotName> = BTreeSet::new();
        let mut present: BTreeSet<SlotName> = now.slots.iter().map(|(n, ..)| n.clone()).collect();
        let mut expected = Vec::new();
        for (place, op) in (0..).zip(ops) {
            let free = |name: &SlotName, mine: &BTreeSet<SlotName>| {
                let stamp = seen.stamps.get(name).filter(|_| seen.epoch == now.epoch);
                *policy == Policy::LastWriterWins
                    || mine.contains(name)
                    || stamp.is_none_or(|(version, by)| *version <= base || by == session)
            };
            let _ = match op {
                SlotOp::Set { slot, .. } if free(slot, &mine) => {
                    present.insert(slot.clone());
                    mine.insert(slot.clone())
                }
                SlotOp::Remove { slot } if free(slot, &mine) => {
                    present.remove(slot);
                    mine.insert(slot.clone())
                }
                SlotOp::Clear => {
                    present.clear();
                    mine.extend((0..4).map(slot));
                    true
                }
                _ => {
                    expected.push(place);
                    continue;
                }
            };
        }
        assert_eq!(refused, &expected, "{ops:?} on {base} of {key}");
    }

    fn fold(
        &mut self,
        key: &ObjectKey,
        epoch: Epoch,
        by: Option<(SessionId, u64)>,
        change: &ObjectChange,
    ) {
        let ObjectChange::Slots {
            version,
            cleared,
            slots,
        } = change
        else {
            return;
        };
        let seen = self.objects.entry(key.clone()).or_default();
        if seen.epoch != epoch {
            assert!(seen.epoch < epoch, "incarnations go forward");
            assert!(
                *version > seen.newest,
                "versions of a new incarnation lie above the old"
            );
            let newest = seen.newest;
            *seen = Seen {
                epoch,
                newest,
                ..Seen::default()
            };
            // The first change follows the empty beginning.
            seen.history.insert(Version(version.0 - 1), Slots::new());
        } else {
            assert_eq!(version.0, seen.newest.0 + 1, "one version for each change");
        }
        let session = by.unwrap().0;
        if *cleared {
            assert!(!seen.slots.is_empty(), "there was something to clear");
            seen.slots.clear();
            seen.stamps = (0..4).map(|n| (slot(n), (*version, session))).collect();
        }
        for (name, value) in slots {
            let old = match value {
                Some(value) => seen.slots.insert(name.clone(), value.clone()),
                None => seen.slots.remove(name),
            };
            assert!(*cleared || old != *value, "what changes, changes");
            seen.stamps.insert(name.clone(), (*version, session));
        }
        seen.newest = *version;
        seen.history.insert(*version, seen.slots.clone());
    }

    /// Who followed the changes has what a newcomer is told.
    fn check_objects(&mut self, ledger: &Ledger) {
        for (key, object) in &ledger.objects {
            let sync = object.sync(None);
            assert!(sync.reset);
            let slots: Slots = sync.slots.into_iter().map(|(n, v, _)| (n, v)).collect();
            match self
                .objects
                .get(key)
                .filter(|seen| seen.epoch == sync.epoch)
            {
                Some(seen) => {
                    assert_eq!(seen.slots, slots);
                    assert_eq!(seen.newest, sync.version);
                }
                None => assert!(slots.is_empty(), "a new object is empty"),
            }
        }
    }

    /// Whoever comes back, with whatever he has, has everything after he was told: by what
    /// he is told himself, and by what his edge can tell him that was told everything.
    pub(super) fn check_every_absence(&self, ledger: &Ledger) {
        for (key, seen) in &self.objects {
            let Some(newest) = ledger.sync(key, None).filter(|s| s.epoch == seen.epoch) else {
                continue;
            };
            for (version, slots) in &seen.history {
                let sync = ledger.sync(key, Some((seen.epoch, *version))).unwrap();
                assert_eq!(sync.reset, *version < newest.forgotten);
                let mut mine = if sync.reset {
                    Slots::new()
                } else {
                    slots.clone()
                };
                mine.extend(sync.slots.iter().map(|(n, v, _)| (n.clone(), v.clone())));
                if !sync.reset {
                    mine.retain(|name, _| !sync.removed.iter().any(|(gone, _)| gone == name));
                }
                assert_eq!(mine, seen.slots, "{key} from {version}");
                if *version < newest.forgotten {
                    continue;
                }
                let mut mine = slots.clone();
                let newer = newest.slots.iter().filter(|(.., v)| v > version);
                mine.extend(newer.map(|(n, v, _)| (n.clone(), v.clone())));
                let gone = newest.removed.iter().filter(|(_, v)| v > version);
                gone.for_each(|(name, _)| drop(mine.remove(name)));
                assert_eq!(mine, seen.slots, "{key} from {version} by its edge");
            }
            let future = Version(newest.version.0 + 1);
            assert!(
                ledger
                    .sync(key, Some((newest.epoch, future)))
                    .unwrap()
                    .reset
            );
            assert!(
                ledger
                    .sync(key, Some((Epoch(newest.epoch.0 + 1), newest.version)))
                    .unwrap()
                    .reset
            );
        }
    }
}
