//! What one server has said about an object: a copy that is exact at its version.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use model::object::{ObjectEvent, ObjectUpdate};
use model::{SlotName, SlotOp, SlotValue, Version};

use super::limits::{SENDS_KEPT_BYTES, SENDS_KEPT_MAX};

/// A server's copy of an object, kept by what the server says and nothing else.
#[derive(Clone, Debug, Default)]
pub(super) struct Mirror {
    pub(super) slots: BTreeMap<SlotName, SlotValue>,
    pub(super) version: Version,
    /// The subscription is accepted.
    pub(super) live: bool,
    /// The version went back: another incarnation of the object, which was lost meanwhile.
    pub(super) reborn: bool,
    /// The newest messages to all subscribers, the oldest first.
    pub(super) sends: VecDeque<Bytes>,
    /// How many messages had been told when the subscription was asked for: those are over.
    pub(super) passed: u64,
}

/// What an update did to a mirror.
#[derive(Debug, Default)]
pub(super) struct Folded {
    /// It has a version that the copy did not have.
    pub(super) grown: bool,
    /// Everything was taken away first.
    pub(super) cleared: bool,
    /// What it names, in order.
    pub(super) named: Vec<SlotName>,
    /// The messages in it.
    pub(super) sends: Vec<Bytes>,
}

impl Mirror {
    /// A copy that another server continues: it is told the version, and tells what changed
    /// since.
    pub(super) fn handed_on(&self) -> Self {
        // Its messages are not, because a subscription begins with none.
        Self {
            slots: self.slots.clone(),
            version: self.version,
            ..Self::default()
        }
    }

    /// Takes in an update. `own` is what we asked this server for and have no answer to:
    /// an acceptance names a slot and not its value.
    pub(super) fn fold(&mut self, update: &ObjectUpdate, own: &[SlotOp]) -> Folded {
        // Messages and statuses carry any version.
        let spoken = update.events.iter().any(|event| {
            !matches!(
                event,
                ObjectEvent::Send(_) | ObjectEvent::Sent { .. } | ObjectEvent::Status(_)
            )
        });
        let grown = spoken && update.version > self.version;
        let mut folded = Folded {
            grown,
            ..Folded::default()
        };
        for event in &update.events {
            match event {
                ObjectEvent::UseSuccess => {
                    self.live = true;
                    // It knew our version: had it the same object, it would not be behind.
                    if update.version < self.version {
                        self.reborn = true;
                        self.slots.clear();
                        folded.cleared = true;
                    }
                }
                ObjectEvent::Clear => {
                    self.slots.clear();
                    folded.cleared = true;
                    folded.named.clear();
                }
                ObjectEvent::Change { slot, value } => {
                    self.slots.insert(slot.clone(), value.clone());
                    folded.named.push(slot.clone());
                }
                ObjectEvent::Success { slot } => {
                    // Without a new version it is the answer to a request that was applied
                    // before, and the copy has what became of it.
                    if grown && let Some(value) = last_value(own, slot) {
                        self.slots.insert(slot.clone(), value.clone());
                    }
                    folded.named.push(slot.clone());
                }
                ObjectEvent::Remove { slot } => {
                    if grown || !removes(own, slot) {
                        self.slots.remove(slot);
                    }
                    folded.named.push(slot.clone());
                }
                ObjectEvent::Send(payload) => {
                    keep(&mut self.sends, payload.clone());
                    folded.sends.push(payload.clone());
                }
                ObjectEvent::Sent { .. } | ObjectEvent::Status(_) => {}
            }
        }
        if spoken {
            self.version = update.version;
        }
        folded
    }
}

/// Appends to the newest messages.
pub(super) fn keep(sends: &mut VecDeque<Bytes>, payload: Bytes) {
    sends.push_back(payload);
    let mut bytes: usize = sends.iter().map(Bytes::len).sum();
    while (sends.len() > SENDS_KEPT_MAX || bytes > SENDS_KEPT_BYTES)
        && let Some(oldest) = sends.pop_front()
    {
        bytes -= oldest.len();
    }
}

fn last_value<'a>(ops: &'a [SlotOp], of: &SlotName) -> Option<&'a SlotValue> {
    ops.iter().rev().find_map(|op| match op {
        SlotOp::Set { slot, value } if slot == of => Some(value),
        SlotOp::Set { .. } | SlotOp::Remove { .. } | SlotOp::Clear => None,
    })
}

fn removes(ops: &[SlotOp], of: &SlotName) -> bool {
    ops.iter().any(|op| match op {
        SlotOp::Remove { slot } => slot == of,
        SlotOp::Set { .. } | SlotOp::Clear => false,
    })
}

/// How the messages of two servers continue each other.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Joint {
    /// What the new server has given out and the old one has not.
    pub(super) missed: Vec<Bytes>,
    /// What the old server has given out and the new one still will.
    pub(super) awaited: VecDeque<Bytes>,
}

/// Joins what was `told` by one server with what another has given out. Both are the newest
/// pieces of one sequence, in which nothing is numbered: they are laid over each other where
/// they agree for the longest stretch. Where they never do, all that is given is new; and if
/// nothing is given, all that was told still comes.
pub(super) fn join(told: &VecDeque<Bytes>, given: &VecDeque<Bytes>) -> Joint {
    // `given[i]` is laid upon `told[i + told.len() - shift]`, or beyond its end.
    let agreement = |shift: usize| {
        let (skip_told, skip_given) = offsets(told.len(), shift);
        let mut pairs = told
            .iter()
            .skip(skip_told)
            .zip(given.iter().skip(skip_given));
        let length = pairs.len();
        (length > 0 && pairs.all(|(a, b)| a == b)).then_some(length)
    };
    let best = (1..told.len() + given.len())
        .filter_map(|shift| agreement(shift).map(|length| (length, shift)))
        // Of equal stretches the one that tells least anew.
        .max();
    let Some((_, shift)) = best else {
        let awaited = if given.is_empty() {
            told
        } else {
            &VecDeque::new()
        };
        return Joint {
            missed: given.iter().cloned().collect(),
            awaited: awaited.clone(),
        };
    };
    let (skip_told, skip_given) = offsets(told.len(), shift);
    let over_told = told.len() - skip_told;
    let over_given = given.len() - skip_given;
    Joint {
        missed: given.iter().skip(skip_given + over_told).cloned().collect(),
        awaited: told.iter().skip(skip_told + over_given).cloned().collect(),
    }
}

/// Where the overlap begins in each, when the first of `given` stands `shift` before the end
/// of `told`.
const fn offsets(told: usize, shift: usize) -> (usize, usize) {
    if shift <= told {
        (told - shift, 0)
    } else {
        (0, shift - told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: &str) -> VecDeque<Bytes> {
        text.chars()
            .map(|c| Bytes::from(c.to_string().into_bytes()))
            .collect()
    }

    fn text<'a>(row: impl IntoIterator<Item = &'a Bytes>) -> String {
        row.into_iter()
            .map(|b| String::from_utf8(b.to_vec()).unwrap())
            .collect()
    }

    fn joined(told: &str, given: &str) -> (String, String) {
        let joint = join(&row(told), &row(given));
        (text(&joint.missed), text(&joint.awaited))
    }

    fn is(missed: &str, awaited: &str) -> (String, String) {
        (missed.to_owned(), awaited.to_owned())
    }

    #[test]
    fn messages_of_two_servers_are_laid_over_each_other() {
        assert_eq!(joined("abcd", "abcd"), is("", ""));
        assert_eq!(joined("abcd", "bcdef"), is("ef", ""));
        assert_eq!(joined("abcd", "ab"), is("", "cd"));
        assert_eq!(joined("cd", "abcdef"), is("ef", ""));
        assert_eq!(joined("abcdef", "cd"), is("", "ef"));
        assert_eq!(joined("", "ab"), is("ab", ""));
        assert_eq!(joined("ab", ""), is("", "ab"));
        assert_eq!(joined("", ""), is("", ""));
        assert_eq!(joined("ab", "xy"), is("xy", ""));
        // The same thing said three times, all of it heard.
        assert_eq!(joined("aaa", "aaa"), is("", ""));
        assert_eq!(joined("baa", "baaa"), is("a", ""));
    }

    fn update(version: u32, events: Vec<ObjectEvent>) -> ObjectUpdate {
        ObjectUpdate {
            name: model::ObjectName::new("o").unwrap(),
            kind: model::ObjectKind::Temporary,
            version: Version(version),
            events,
        }
    }

    fn slot(name: &str) -> SlotName {
        SlotName::new(name).unwrap()
    }

    fn value(text: &'static str) -> SlotValue {
        SlotValue(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn an_acceptance_of_what_was_applied_before_changes_nothing() {
        let mut mirror = Mirror::default();
        let own = [SlotOp::Set {
            slot: slot("a"),
            value: value("ours"),
        }];
        let success = || vec![ObjectEvent::Success { slot: slot("a") }];
        mirror.fold(&update(1, success()), &own);
        assert_eq!(mirror.slots[&slot("a")], value("ours"));
        let (slot_a, theirs) = (slot("a"), value("theirs"));
        let change = vec![ObjectEvent::Change {
            slot: slot_a,
            value: theirs,
        }];
        mirror.fold(&update(2, change), &[]);
        mirror.fold(&update(2, success()), &own);
        assert_eq!(mirror.slots[&slot("a")], value("theirs"));
    }

    #[test]
    fn an_object_that_was_lost_is_another_one() {
        let mut mirror = Mirror::default();
        let (slot, value) = (slot("a"), value("v"));
        let change = ObjectEvent::Change { slot, value };
        mirror.fold(&update(7, vec![ObjectEvent::UseSuccess, change]), &[]);
        let mut next = mirror.handed_on();
        assert_eq!((next.live, next.slots.len()), (false, 1));
        next.fold(&update(1, vec![ObjectEvent::UseSuccess]), &[]);
        assert!(next.reborn && next.live && next.slots.is_empty());
    }
}
