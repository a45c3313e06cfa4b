//! What the origin says of entries that were applied.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use model::object::{ObjectEvent, ObjectStatus};
use model::{Epoch, ObjectKey, SessionId, StreamKey, Version};

use super::interface::{Misbehaviour, Output, Recipients, SubscriberId};
use super::object::{Change, Transition};
use super::session::What;
use super::timers::Timer;
use super::{Replica, events};
use crate::effect::{Answer, Applied, Effect, ObjectChange, ObjectSync, StreamState};

/// Whose request, and its number.
type Asker = (SessionId, u64);

impl Replica {
    /// An entry was applied: all of it that concerns the edge.
    pub(super) fn applied(&mut self, applied: Applied, now: Instant) -> Result<(), Misbehaviour> {
        if applied.index <= self.seen {
            return Ok(());
        }
        self.seen = applied.index;
        let life = self.life.clone();
        if applied
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::EdgeLost { edge } if *edge == life))
        {
            self.begin_life(now);
            return Ok(());
        }

        // An answer is told together with the change that it is about.
        let mut changing: BTreeSet<Asker> = BTreeSet::new();
        for effect in &applied.effects {
            if let Effect::Object { by: Some(by), .. } = effect {
                changing.insert(*by);
            }
        }
        let mut answers: BTreeMap<Asker, Answer> = BTreeMap::new();
        let mut effects = Vec::with_capacity(applied.effects.len());
        for effect in applied.effects {
            if let Effect::Answer {
                to,
                session,
                seq,
                answer,
            } = &effect
                && *to == life
                && changing.contains(&(*session, *seq))
            {
                answers.insert((*session, *seq), answer.clone());
            } else {
                effects.push(effect);
            }
        }
        for effect in effects {
            match effect {
                Effect::Answer {
                    to,
                    session,
                    seq,
                    answer,
                } => {
                    if to == self.life {
                        self.answered(session, seq, answer, now)?;
                    }
                }
                Effect::Object {
                    key,
                    epoch,
                    by,
                    change,
                } => {
                    let answer = by.and_then(|by| {
                        let answer = match answers.remove(&by) {
                            None if self.is_sending(by, &key, &change) => Some(Answer::Done),
                            answer => answer,
                        };
                        answer.map(|answer| (by, answer))
                    });
                    self.object_changed(&key, epoch, change, answer, now)?;
                }
                Effect::Stream { key, state } => self.stream_is(key, state),
                Effect::Challenge {
                    to,
                    epoch,
                    publication,
                    ..
                } => {
                    if to == self.life {
                        self.challenged(publication, epoch);
                    }
                }
                Effect::Claim {
                    to,
                    publication,
                    decision,
                    ..
                } => {
                    if to == self.life {
                        self.claim_decided(publication, decision);
                    }
                }
                Effect::EdgeLost { .. }
                | Effect::Locked { .. }
                | Effect::Unlocked { .. }
                | Effect::Home { .. } => {}
            }
        }
        for ((session, seq), answer) in answers {
            self.answered(session, seq, answer, now)?;
        }
        self.pump_own(now);
        Ok(())
    }

    fn object_changed(
        &mut self,
        key: &ObjectKey,
        epoch: Epoch,
        change: ObjectChange,
        answer: Option<(Asker, Answer)>,
        now: Instant,
    ) -> Result<(), Misbehaviour> {
        let held = self
            .objects
            .get_mut(key)
            .filter(|object| object.open)
            .and_then(|object| object.held.as_mut())
            .filter(|held| held.epoch == epoch);
        let Some(held) = held else {
            // It is being opened, and what it is then includes this.
            self.reopen(key);
            return match answer {
                Some(((session, seq), answer)) => self.answered(session, seq, answer, now),
                None => Ok(()),
            };
        };
        match change {
            ObjectChange::Slots {
                version,
                cleared,
                slots,
            } => {
                let before = held.version;
                if version > before {
                    held.apply(version, cleared, &slots);
                    let requester = answer
                        .as_ref()
                        .and_then(|((session, seq), _)| self.writer(*session, *seq));
                    self.tell_changes(key, before, cleared, slots, requester);
                }
                match answer {
                    Some(((session, seq), answer)) => self.answered(session, seq, answer, now),
                    None => Ok(()),
                }
            }
            ObjectChange::Send { payload } => {
                self.tell_everybody(key, ObjectEvent::Send(payload));
                match answer {
                    Some(((session, seq), answer)) => self.send_decided(session, seq, answer, now),
                    None => Ok(()),
                }
            }
        }
    }

    /// Whether this is a message that a client here has asked for, and that was made by the
    /// edge where it was before: it hears it with the others, which is its answer.
    fn is_sending(&self, (session, seq): Asker, key: &ObjectKey, change: &ObjectChange) -> bool {
        let Some(session) = self.sessions.get(&session) else {
            return false;
        };
        matches!(change, ObjectChange::Send { .. })
            && session.get(seq).is_some_and(|asked| {
                matches!(asked.what, What::Send { .. }) && !session.is_behind(asked)
            })
            && session.asker(seq).is_some_and(|who| {
                let object = self.objects.get(key);
                object.is_some_and(|object| object.told(who).is_some())
            })
    }

    /// The subscriber who waits for what becomes of a write.
    fn writer(&self, session: SessionId, seq: u64) -> Option<SubscriberId> {
        let session = self.sessions.get(&session)?;
        match session.get(seq)?.what {
            What::Write { .. } => session.asker(seq),
            What::Send { .. }
            | What::Lock { .. }
            | What::Unlock { .. }
            | What::Void { .. }
            | What::Edge(_) => None,
        }
    }

    /// Tells all subscribers of what changes nothing.
    pub(super) fn tell_everybody(&mut self, key: &ObjectKey, event: ObjectEvent) {
        let Some(object) = self.objects.get_mut(key) else {
            return;
        };
        if object.subscribers.is_empty() {
            return;
        }
        let lagging: BTreeSet<SubscriberId> = object.lagging().collect();
        if lagging.is_empty() {
            let to = object.everybody(None);
            self.tell(to, key, vec![event]);
            return;
        }
        let rest = object.subscribers.difference(&lagging).copied();
        let to = Recipients::Many {
            subscribers: rest.collect(),
            except: None,
        };
        if to.iter().next().is_some() {
            self.tell(to, key, vec![event.clone()]);
        }
        for who in lagging {
            self.tell(Recipients::One(who), key, vec![event.clone()]);
        }
    }

    /// Tells all subscribers of changes, but for one, who is answered.
    fn tell_changes(
        &mut self,
        key: &ObjectKey,
        before: Version,
        cleared: bool,
        slots: Vec<Change>,
        requester: Option<SubscriberId>,
    ) {
        let Some(object) = self.objects.get_mut(key) else {
            return;
        };
        if object.subscribers.is_empty() {
            return;
        }
        let mut writers = object.writers_of(&slots);
        writers.retain(|who| object.subscribers.contains(who) && requester != Some(*who));
        for who in &writers {
            object.leave_behind(*who, before, &slots);
        }
        writers.extend(object.lagging().filter(|who| requester != Some(*who)));
        let mut special = Vec::new();
        for who in &writers {
            let rest = slots
                .iter()
                .filter(|(slot, _)| !object.is_writing(*who, slot))
                .cloned()
                .map(events::change);
            let clear = cleared.then_some(ObjectEvent::Clear);
            special.push((*who, clear.into_iter().chain(rest).collect()));
        }
        let to = if writers.is_empty() {
            object.everybody(requester)
        } else {
            Recipients::Many {
                subscribers: object
                    .subscribers
                    .iter()
                    .copied()
                    .filter(|who| !writers.contains(who))
                    .collect(),
                except: requester,
            }
        };
        if to.iter().next().is_some() {
            let clear = cleared.then_some(ObjectEvent::Clear);
            let events = clear
                .into_iter()
                .chain(slots.into_iter().map(events::change))
                .collect();
            self.tell(to, key, events);
        }
        for (who, rest) in special {
            self.tell(Recipients::One(who), key, rest);
        }
    }

    /// Takes over what happened while nobody told of it.
    pub(super) fn catch_up(&mut self, key: &ObjectKey, sync: ObjectSync) {
        let Some(object) = self.objects.get_mut(key) else {
            return;
        };
        object.kind = sync.kind;
        let Some(held) = object.held.as_mut() else {
            return;
        };
        let before = held.version;
        match held.catch_up(sync) {
            Transition::Same => {}
            Transition::Changed(changes) => self.tell_changes(key, before, false, changes, None),
            Transition::Reset => {
                let all = held.all().collect();
                // A log that was lost counts anew: nothing of the former one goes before it.
                let before = Some(before).filter(|before| *before <= held.version);
                self.tell_changes(key, before.unwrap_or_default(), true, all, None);
            }
        }
    }

    /// Answers the subscriptions that can be answered.
    pub(super) fn settle_uses(&mut self, key: &ObjectKey, now: Instant) {
        while let Some(object) = self.objects.get_mut(key)
            && object.open
            && let Some(at) = object.uses.iter().position(|waiting| waiting.fresh)
            && let Some(waiting) = object.uses.remove(at)
        {
            self.uses_waiting -= 1;
            let Some(held) = &object.held else {
                continue;
            };
            if waiting.kind != object.kind {
                self.fail_use(&waiting, key, ObjectStatus::BadPersistence);
                continue;
            }
            let who = waiting.subscriber;
            let base = match held.since(object.kind, waiting.version) {
                Some(_) => waiting.version,
                None => Version(0),
            };
            let seen = (held.epoch, base);
            let events = events::accepted(held, object.kind, waiting.version);
            object.accept(who);
            self.tell(Recipients::One(who), key, events);
            self.release_writes(who, key, seen, now);
        }
        if self
            .objects
            .get(key)
            .is_some_and(|object| object.uses.is_empty())
        {
            self.timers.cancel(&Timer::Uses(key.clone()));
        }
        self.linger_if_unused(key, now);
    }

    /// What a client wrote while it waited for its subscription may go.
    fn release_writes(
        &mut self,
        who: SubscriberId,
        key: &ObjectKey,
        base: (Epoch, Version),
        now: Instant,
    ) {
        let Some(member) = self.subscribers.get(&who) else {
            return;
        };
        let Some(id) = member.session else {
            return;
        };
        if let Some(session) = self.sessions.get_mut(&id) {
            for asked in &mut session.requests {
                if let What::Write {
                    key: about,
                    seen: seen @ None,
                    ops,
                    ..
                } = &mut asked.what
                    && about == key
                {
                    *seen = Some(base);
                    if let Some(object) = self.objects.get_mut(key) {
                        object.begin_write(who, ops);
                    }
                }
            }
        }
        self.pump(id, now);
    }

    /// The object cannot be had: nobody subscribes to it any more.
    pub(super) fn fail_object(&mut self, key: &ObjectKey, status: ObjectStatus, now: Instant) {
        let Some(mut object) = self.objects.remove(key) else {
            return;
        };
        self.timers.cancel(&Timer::Uses(key.clone()));
        self.uses_waiting -= object.uses.len();
        for waiting in std::mem::take(&mut object.uses) {
            self.fail_use(&waiting, key, status);
        }
        let (kind, version) = (object.kind, object.version());
        let to = object.everybody(None);
        if to.iter().next().is_some() {
            self.tell_as(to, key, kind, version, vec![ObjectEvent::Status(status)]);
        }
        let held_up = object.take_held_up();
        for who in object.subscribers {
            self.drop_subscription(who, key, status);
        }
        for session in held_up {
            self.pump(session, now);
        }
    }

    /// A stream stands like this.
    pub(super) fn stream_is(&mut self, key: StreamKey, state: StreamState) {
        if let Some(known) = self.followed.get_mut(&key)
            && known.as_ref() != Some(&state)
        {
            *known = Some(state.clone());
            self.outputs.push_back(Output::Stream { key, state });
        }
    }
}
