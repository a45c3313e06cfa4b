//! Requests about shared objects.

use std::collections::BTreeSet;

use model::{EdgeLife, Epoch, ObjectKey, ObjectKind, SessionId, Version};

use super::Ledger;
use crate::command::Request;
use crate::dedup::Kept;
use crate::effect::{Answer, Effect, ObjectChange};
use crate::graveyard::Grave;
use crate::instance::Instances;
use crate::limits::{OBJECTS_MAX, TOTAL_BYTES_MAX, VALUE_BYTES_MAX};
use crate::lock::Waiting;
use crate::object::{Batch, Object};

/// What has no room, as the objects name it.
const OF_ALL: &str = "bytes of all objects";

/// Bytes by which an object may still grow, and who sets that limit.
fn room(weight: usize, instances: &Instances, key: &ObjectKey) -> (usize, &'static str) {
    let (all, own) = (
        TOTAL_BYTES_MAX.saturating_sub(weight),
        instances.room(&key.at),
    );
    if own < all {
        (own, "bytes of the instance")
    } else {
        (all, OF_ALL)
    }
}

/// The limit with the name of whose it is.
fn by_whom(limit: &'static str, of_whom: &'static str) -> &'static str {
    if limit == OF_ALL { of_whom } else { limit }
}

impl Ledger {
    /// The edge has a subscriber of the object.
    pub(super) fn open(
        &mut self,
        key: &ObjectKey,
        kind: ObjectKind,
        have: Option<(Epoch, Version)>,
        edge: &EdgeLife,
    ) -> Answer {
        if !self.objects.contains_key(key) {
            if self.objects.len() >= OBJECTS_MAX {
                return Answer::Full { limit: "objects" };
            }
            if self.instances.is_full(&key.at) {
                return Answer::Full {
                    limit: "objects of the instance",
                };
            }
            let version = self.graves.leave(key);
            self.instances.add(&key.at, 0);
            let object = Object::new(kind, Epoch(self.applied.0), version);
            self.objects.insert(key.clone(), object);
        }
        let Some(object) = self.objects.get_mut(key) else {
            return Answer::NotOpen;
        };
        if object.kind != kind {
            return Answer::OtherKind { kind: object.kind };
        }
        object.opened.insert(edge.clone());
        if let Some(edge) = self.edges.get_mut(edge) {
            edge.opened.insert(key.clone());
        }
        Answer::Opened(object.sync(have))
    }

    /// The edge has no subscriber of the object.
    pub(super) fn close(&mut self, key: &ObjectKey, life: &EdgeLife, effects: &mut Vec<Effect>) {
        let edge = self.edges.get_mut(life);
        if edge.is_some_and(|edge| edge.opened.remove(key)) {
            self.lose_interest(key, life, effects);
        }
    }

    /// An object in which no edge is interested is buried, unless it is persistent and has
    /// something: one that has nothing is as good as one that is not there.
    pub(super) fn lose_interest(
        &mut self,
        key: &ObjectKey,
        life: &EdgeLife,
        effects: &mut Vec<Effect>,
    ) {
        let Some(object) = self.objects.get_mut(key) else {
            return;
        };
        object.opened.remove(life);
        let is_kept = object.kind == ObjectKind::Persistent && !object.slots.is_empty();
        if is_kept || !object.opened.is_empty() {
            return;
        }
        let Some((key, mut object)) = self.objects.remove_entry(key) else {
            return;
        };
        self.weight -= object.weight();
        self.instances.remove(&key.at, object.weight());
        if let Some(lock) = object.door.lock().copied() {
            self.leave_doorstep(lock.session, &key);
            effects.push(Effect::Unlocked {
                key: key.clone(),
                token: lock.token,
            });
            object.door.free();
        }
        // Nobody is left to be told but those who waited.
        while let Some(waiting) = object.door.next() {
            self.leave_doorstep(waiting.session, &key);
            let at = effects.len();
            self.answer_waiting(&waiting, Answer::NotOpen, at, effects);
        }
        let grave = Grave {
            version: object.version,
            at: self.applied,
        };
        self.graves.bury(key, grave);
    }

    /// A request about an object that the edge has open: it is carried out, or waits, which
    /// gives `None`.
    pub(super) fn ask(
        &mut self,
        key: &ObjectKey,
        (session, seq): (SessionId, u64),
        edge: &EdgeLife,
        request: &Request,
        effects: &mut Vec<Effect>,
    ) -> Option<Answer> {
        let Some(object) = self
            .objects
            .get_mut(key)
            .filter(|o| o.opened.contains(edge))
        else {
            return Some(Answer::NotOpen);
        };
        if !object.door.is_shut_for(session) {
            return Some(self.perform(key, (session, seq), request, effects));
        }
        if matches!(request, Request::Unlock { .. }) && !object.door.has_waiting(session) {
            return Some(Answer::NotLocked);
        }
        let before = object.weight();
        let waiting = Waiting {
            session,
            seq,
            request: request.clone(),
        };
        let (room, of_whom) = room(self.weight, &self.instances, key);
        if let Err(limit) = object.door.wait(waiting, room) {
            let limit = by_whom(limit, of_whom);
            return Some(Answer::Full { limit });
        }
        let after = object.weight();
        self.reweigh(key, before, after);
        self.doors.entry(session).or_default().insert(key.clone());
        None
    }

    /// Carries out a request that need not wait.
    fn perform(
        &mut self,
        key: &ObjectKey,
        by: (SessionId, u64),
        request: &Request,
        effects: &mut Vec<Effect>,
    ) -> Answer {
        let Some(object) = self.objects.get_mut(key) else {
            return Answer::NotOpen;
        };
        let (session, index) = (by.0, self.applied);
        match request {
            Request::Batch {
                epoch,
                base,
                policy,
                ops,
                ..
            } => {
                let before = object.weight();
                let (room, of_whom) = room(self.weight, &self.instances, key);
                let written = object.write(&Batch {
                    session,
                    index,
                    epoch: *epoch,
                    base: *base,
                    policy: *policy,
                    ops,
                    room,
                });
                let written = match written {
                    Ok(written) => written,
                    Err(limit) => {
                        let limit = by_whom(limit, of_whom);
                        return Answer::Full { limit };
                    }
                };
                let (epoch, version, after) = (object.epoch, object.version, object.weight());
                self.reweigh(key, before, after);
                effects.extend(written.change.map(|change| Effect::Object {
                    key: key.clone(),
                    epoch,
                    by: Some(by),
                    change,
                }));
                Answer::Written {
                    version,
                    refused: written.refused,
                }
            }
            Request::Send { payload, .. } => {
                if payload.len() > VALUE_BYTES_MAX {
                    return Answer::Full {
                        limit: "bytes of the message",
                    };
                }
                effects.push(Effect::Object {
                    key: key.clone(),
                    epoch: object.epoch,
                    by: Some(by),
                    change: ObjectChange::Send {
                        payload: payload.clone(),
                    },
                });
                Answer::Done
            }
            Request::Lock { lease_ms, .. } => {
                let (fresh, token) = object.door.take(session, index, *lease_ms);
                if fresh {
                    self.doors.entry(session).or_default().insert(key.clone());
                    effects.push(Effect::Locked {
                        key: key.clone(),
                        token,
                        lease_ms: *lease_ms,
                    });
                }
                Answer::Locked { token }
            }
            Request::Unlock { .. } => match object.door.give_back(session) {
                Err(()) => Answer::NotLocked,
                Ok(None) => Answer::Done,
                Ok(Some(token)) => {
                    self.unlocked(key, session, token, effects);
                    Answer::Done
                }
            },
            Request::Register
            | Request::Open { .. }
            | Request::Close { .. }
            | Request::EndSessions(_)
            | Request::Claim { .. }
            | Request::Affirm { .. }
            | Request::Release { .. }
            | Request::Place { .. }
            | Request::Home { .. }
            | Request::Void => Answer::Done,
        }
    }

    /// The lease of a lock is over, if it is still the same lock.
    pub(super) fn expire(&mut self, key: &ObjectKey, token: u64, effects: &mut Vec<Effect>) {
        let Some(object) = self.objects.get_mut(key) else {
            return;
        };
        if let Some(lock) = object.door.lock().copied()
            && lock.token == token
        {
            object.door.free();
            self.unlocked(key, lock.session, token, effects);
        }
    }

    /// These sessions neither hold the object's lock nor wait for it any more.
    pub(super) fn leave_door(
        &mut self,
        key: &ObjectKey,
        over: &BTreeSet<SessionId>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(object) = self.objects.get_mut(key) else {
            return;
        };
        let before = object.weight();
        object.door.drop_waiting(over);
        let after = object.weight();
        self.reweigh(key, before, after);
        let Some(object) = self.objects.get_mut(key) else {
            return;
        };
        if let Some(lock) = object.door.lock().copied()
            && over.contains(&lock.session)
        {
            object.door.free();
            self.unlocked(key, lock.session, lock.token, effects);
        }
    }

    /// A lock was given back: who waited is let in.
    fn unlocked(
        &mut self,
        key: &ObjectKey,
        session: SessionId,
        token: u64,
        effects: &mut Vec<Effect>,
    ) {
        effects.push(Effect::Unlocked {
            key: key.clone(),
            token,
        });
        self.leave_doorstep(session, key);
        // What is let in may lock and unlock in its turn. That is no recursion: the lock is
        // given back below, and the loop goes on with whoever is next.
        while let Some(waiting) = self.next_waiting(key) {
            let by = (waiting.session, waiting.seq);
            let at = effects.len();
            let answer = if matches!(waiting.request, Request::Unlock { .. }) {
                self.unlock_in_turn(key, waiting.session, effects)
            } else {
                self.perform(key, by, &waiting.request, effects)
            };
            self.leave_doorstep(waiting.session, key);
            self.answer_waiting(&waiting, answer, at, effects);
        }
    }

    fn unlock_in_turn(
        &mut self,
        key: &ObjectKey,
        session: SessionId,
        effects: &mut Vec<Effect>,
    ) -> Answer {
        let object = self.objects.get_mut(key);
        match object.map(|object| object.door.give_back(session)) {
            None | Some(Err(())) => Answer::NotLocked,
            Some(Ok(token)) => {
                effects.extend(token.map(|token| Effect::Unlocked {
                    key: key.clone(),
                    token,
                }));
                Answer::Done
            }
        }
    }

    fn next_waiting(&mut self, key: &ObjectKey) -> Option<Waiting> {
        let object = self.objects.get_mut(key)?;
        let before = object.weight();
        let waiting = object.door.next();
        let after = object.weight();
        self.reweigh(key, before, after);
        waiting
    }

    /// An object weighs something else.
    fn reweigh(&mut self, key: &ObjectKey, before: usize, after: usize) {
        self.weight = self.weight + after - before;
        self.instances.reweigh(&key.at, before, after);
    }

    /// The session may have nothing to do with the object's door any more.
    fn leave_doorstep(&mut self, session: SessionId, key: &ObjectKey) {
        let object = self.objects.get(key);
        if object.is_some_and(|object| object.door.concerns(session)) {
            return;
        }
        if let Some(keys) = self.doors.get_mut(&session) {
            keys.remove(key);
            if keys.is_empty() {
                self.doors.remove(&session);
            }
        }
    }

    /// What waited is answered, where its session speaks now, before what it did.
    fn answer_waiting(
        &mut self,
        waiting: &Waiting,
        answer: Answer,
        at: usize,
        effects: &mut Vec<Effect>,
    ) {
        let Some(session) = self.sessions.get(waiting.session) else {
            return;
        };
        let kept = Kept::of(&answer, None);
        // Who has lost his edge asks again at another.
        if let Some(to) = session.edge.clone() {
            let effect = Effect::Answer {
                to,
                session: waiting.session,
                seq: waiting.seq,
                answer,
            };
            effects.insert(at, effect);
        }
        self.sessions.answered(waiting.session, waiting.seq, kept);
    }
}
