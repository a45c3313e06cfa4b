//! What a client is told, and what it must never be told.

use std::collections::VecDeque;

use ledger::replica::CallResult;
use model::object::{ObjectEvent, ObjectStatus, ObjectUpdate};
use model::{ObjectKey, Policy, SessionId, SlotOp};

use super::{Client, Used, Verdict, Waiting, What};
use crate::truth::Truth;

impl Client {
    /// Its edge tells it something.
    ///
    /// # Errors
    /// It must not be told that.
    pub(crate) fn handle_update(
        &mut self,
        key: &ObjectKey,
        update: &ObjectUpdate,
        holes: (u64, u64),
        truth: &mut Truth,
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
            .any(|event| matches!(event, ObjectEvent::Status(_) | ObjectEvent::Sent { .. }));
        let first = update
            .events
            .iter()
            .any(|event| matches!(event, ObjectEvent::UseSuccess));
        let failed = ObjectEvent::Status(ObjectStatus::CreationFailed);
        if !used.synced && update.events.contains(&failed) {
            // No origin was in reach for too long. It may ask again later.
            used.released = true;
            return Ok(());
        }
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
        if first && !has_status && version < used.floor {
            return Err(format!(
                "{name} begins with version {version} of {key}, but somebody had been told of a \
                 write at version {} before it asked",
                used.floor
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
                    let last = used.last_send;
                    let again = last.is_some_and(|(last, _)| last >= place);
                    if answered.is_some() && again {
                        continue;
                    }
                    if again {
                        return Err(format!(
                            "{name} is told message {place} of {key} behind {last:?}"
                        ));
                    }
                    if answered.is_some() && last.is_none_or(|last| last.0 + 1 != place) {
                        // It may have been sent long ago, when others' were not heard.
                        continue;
                    }
                    if last.is_some_and(|last| (last.0 + 1 < place) && last.1 == holes) {
                        return Err(format!(
                            "{name} is told message {place} of {key} after {last:?}: it missed some"
                        ));
                    }
                    // The answer comes late: there may still be a hole behind it.
                    let holes = last
                        .filter(|_| answered.is_some())
                        .map_or(holes, |last| last.1);
                    used.last_send = Some((place, holes));
                }
                // It is the answer, if the message itself was not.
                ObjectEvent::Sent { .. } => {}
                ObjectEvent::Status(code) => status = Some(*code),
            }
        }
        let answered_now = answered.is_some();
        if let Some(waiting) = answered {
            used.waiting.retain(|other| other.seq != waiting.seq);
            note_known(&mut self.asked, waiting.seq);
            match (&waiting.what, status) {
                // What it was told before counts.
                _ if waiting.known => {}
                (What::Send(_), None) => self.tally.sent += 1,
                (What::Lock(_) | What::Unlock, _) => {}
                (What::Write(ops), None) => {
                    let mut accepted = 0;
                    for op in ops {
                        if let SlotOp::Set { slot, value } = op {
                            let written = succeeded.contains(slot);
                            accepted += u64::from(written);
                            if !written && used.subject.policy == Policy::LastWriterWins {
                                return Err(format!(
                                    "{name} is refused {slot} of {key}, where the last writer wins"
                                ));
                            }
                            if written {
                                truth.acknowledge(value);
                            }
                            if written && used.subject.policy == Policy::Optimistic {
                                truth.check_seen(name, slot, value, waiting.seen)?;
                            }
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
        // Of slots that it asks again about it is told with the last answer.
        let writes = used.writes_waiting();
        used.catching_up |= writes + usize::from(answered_now) > 1;
        if (behind && changes) || (used.catching_up && writes > 0) {
            used.ahead = true;
        } else if version > used.version || first || answered_now {
            used.ahead = false;
        }
        used.catching_up &= writes > 0;
        let done = answered_now && writes == 0 && !has_status;
        let told = changes || first || done || !succeeded.is_empty();
        if told && !used.ahead && version >= used.version {
            used.version = version;
            used.unchecked.push_back((version, used.slots.clone()));
        }
        self.check_told(truth)
    }

    /// A call is answered.
    ///
    /// # Errors
    /// It must not be answered so.
    pub(crate) fn handle_call(
        &mut self,
        call: u64,
        result: CallResult,
        session: SessionId,
        truth: &mut Truth,
    ) -> Result<(), String> {
        let name = &self.name;
        // The answer to what was asked before it, and is asked again, may be lost on the way.
        let asked = self.objects.iter_mut().find_map(|(key, used)| {
            let at = used.waiting.iter().position(|it| it.seq == call)?;
            Some((key, used.waiting.remove(at)?, used))
        });
        let Some((key, waiting, used)) = asked else {
            return Err(format!(
                "{name} is answered call {call} with {result:?}; it does not wait for that"
            ));
        };
        note_known(&mut self.asked, call);
        match (&waiting.what, result) {
            (What::Lock(_), CallResult::Locked { token }) => {
                // An edge that was forgotten goes on in other sessions, but for durable ones.
                let session = Some(session).filter(|_| self.habits.durable);
                truth.lock_told(key, token, session, name)?;
                used.locks += 1;
                self.tally.locked += 1;
            }
            (What::Unlock, CallResult::Unlocked) => used.locks = used.locks.saturating_sub(1),
            (What::Unlock, CallResult::NotLocked) => used.locks = 0,
            (What::Lock(_) | What::Unlock, CallResult::Unavailable | CallResult::Undecided) => {
                self.tally.undecided += 1;
            }
            // Its edge was forgotten, and has not opened the object again yet.
            (What::Lock(_) | What::Unlock, CallResult::NotSubscribed) => {}
            (what, result) => {
                return Err(format!(
                    "{name} is answered {what:?} of {key} with {result:?}"
                ));
            }
        }
        Ok(())
    }

    /// Holds what it was told against what happened.
    ///
    /// # Errors
    /// It was told of a state that never was.
    pub(crate) fn check_told(&mut self, truth: &Truth) -> Result<(), String> {
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
}

impl Used {
    fn writes_waiting(&self) -> usize {
        let is_write = |waiting: &&Waiting| matches!(waiting.what, What::Write(_));
        self.waiting.iter().filter(is_write).count()
    }

    /// The request that an update answers: it has a success, an echo of the message, or says
    /// something about each slot that was asked for.
    fn answered_by(&self, update: &ObjectUpdate) -> Option<Waiting> {
        // Calls are answered apart.
        let is_call = |waiting: &Waiting| matches!(waiting.what, What::Lock(_) | What::Unlock);
        let waiting = self.waiting.iter().find(|it| !is_call(it))?;
        // Messages are told when they are made. Of what was asked before they were, and is
        // asked again, the answer may be lost on the way and come later.
        let sent = |waiting: &&Waiting| match &waiting.what {
            What::Send(payload) => update.events.iter().any(|event| match event {
                ObjectEvent::Send(told) => told == payload,
                ObjectEvent::Sent { seq } => *seq == waiting.seq,
                _ => false,
            }),
            What::Write(_) | What::Lock(_) | What::Unlock => false,
        };
        if let Some(sent) = self.waiting.iter().find(sent) {
            return Some(sent.clone());
        }
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
                What::Send(_) | What::Lock(_) | What::Unlock => false,
            };
        answered.then(|| waiting.clone())
    }
}

/// What was answered need not be asked again, once everything before it is answered.
fn note_known(asked: &mut VecDeque<(ObjectKey, Waiting)>, seq: u64) {
    if let Some((_, asked)) = asked.iter_mut().find(|(_, asked)| asked.seq == seq) {
        asked.known = true;
    }
    while asked.front().is_some_and(|(_, asked)| asked.known) {
        asked.pop_front();
    }
}
