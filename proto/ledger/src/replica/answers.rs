//! What became of requests.

use std::time::Instant;

use bytes::Bytes;
use model::object::{ObjectEvent, ObjectStatus};
use model::{ObjectKey, SessionId};

use super::interface::{CallResult, Misbehaviour, Output, Recipients, SubscriberId};
use super::object::{Held, Object};
use super::session::{Gap, Session, What};
use super::timers::Timer;
use super::{Replica, events, limits};
use crate::command::Request;
use crate::effect::{Answer, ObjectSync};

impl Replica {
    /// What became of a request.
    pub(super) fn answered(
        &mut self,
        id: SessionId,
        seq: u64,
        answer: Answer,
        now: Instant,
    ) -> Result<(), Misbehaviour> {
        if let Answer::OutOfOrder { expected } = answer {
            self.expected(id, expected, now);
            return Ok(());
        }
        if answer == Answer::UnknownEdge {
            if self.registered {
                self.begin_life(now);
            }
            return Ok(());
        }
        if let Answer::Outlived { incarnation } = answer {
            if id == self.own && !self.registered {
                self.life.incarnation = self.life.incarnation.max(incarnation);
                self.begin_life(now);
            }
            return Ok(());
        }
        let Some(session) = self.sessions.get_mut(&id) else {
            return Ok(());
        };
        let Some(answer) = session.hold(seq, answer) else {
            return Ok(());
        };
        let Some((who, what)) = self.take(id, seq, now) else {
            return Ok(());
        };
        match what {
            What::Edge(request) => {
                if !self.own_answered(seq, request, answer, now) {
                    return Err(Misbehaviour::WrongAnswer { session: id, seq });
                }
            }
            What::Write { .. } => {
                if let Some(who) = who {
                    self.write_answered(who, what, &answer);
                }
            }
            What::Send { key, payload } => {
                if let Some(who) = who {
                    self.send_answered(who, (id, seq), &key, payload, &answer);
                }
            }
            What::Lock { key, call, .. } => {
                if let Some(subscriber) = who {
                    let result = locked(&answer);
                    self.outputs.push_back(Output::CallAnswer {
                        subscriber,
                        call,
                        result,
                    });
                } else if matches!(answer, Answer::Locked { .. }) {
                    self.give_back(id, key);
                }
            }
            What::Unlock { call, .. } => {
                if let (Some(subscriber), Some(call)) = (who, call) {
                    let result = unlocked(&answer);
                    self.outputs.push_back(Output::CallAnswer {
                        subscriber,
                        call,
                        result,
                    });
                }
            }
            What::Void { lock } => {
                if let (Some(key), Answer::Locked { .. }) = (lock, &answer) {
                    self.give_back(id, key);
                }
            }
        }
        self.pump(id, now);
        self.finish_if_drained(id, now);
        self.answer_those_behind(id, now)
    }

    /// Tells what became of requests whose answers came too early.
    pub(super) fn answer_those_behind(
        &mut self,
        id: SessionId,
        now: Instant,
    ) -> Result<(), Misbehaviour> {
        match self.sessions.get_mut(&id).and_then(Session::next_early) {
            Some((seq, answer)) => self.answered(id, seq, answer, now),
            None => Ok(()),
        }
    }

    /// A message was told to all, the sender among them. That is its answer, but for one who
    /// counts its requests: what settles a number must not be somebody else's same words.
    pub(super) fn send_decided(
        &mut self,
        id: SessionId,
        seq: u64,
        answer: Answer,
        now: Instant,
    ) -> Result<(), Misbehaviour> {
        if answer == Answer::Done {
            if let Some((Some(who), What::Send { key, .. })) = self.take(id, seq, now) {
                self.tell_sent(who, (id, seq), &key);
            }
            self.pump(id, now);
            self.finish_if_drained(id, now);
            return self.answer_those_behind(id, now);
        }
        self.answered(id, seq, answer, now)
    }

    /// The request is not under way any more.
    fn take(
        &mut self,
        id: SessionId,
        seq: u64,
        now: Instant,
    ) -> Option<(Option<SubscriberId>, What)> {
        let session = self.sessions.get_mut(&id)?;
        let who = session.asker(seq);
        let asked = session.answered(seq);
        match session.due() {
            Some(due) => self.timers.set(Timer::Due(id), due),
            None => self.timers.cancel(&Timer::Due(id)),
        }
        self.progressed(id, now);
        Some((who, asked?.what))
    }

    /// The ledger expects this number.
    fn expected(&mut self, id: SessionId, expected: u64, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        match session.gap(expected) {
            Gap::Known => {}
            Gap::Again => self.pump(id, now),
            Gap::Lost if id == self.own => self.begin_life(now),
            Gap::Lost => self.lose_session(id, now),
        }
    }

    /// A lock that was granted when its client had been told that it takes too long. The
    /// numbers of a durable session are its client's own: one that is used up here would be
    /// its client's next, so there the lock ends with its lease.
    fn give_back(&mut self, id: SessionId, key: ObjectKey) {
        if let Some(session) = self.sessions.get_mut(&id)
            && !session.durable
        {
            session.push(What::Unlock { key, call: None }, None, Bytes::new());
        }
    }

    fn write_answered(&mut self, who: SubscriberId, what: What, answer: &Answer) {
        let status = match answer {
            Answer::Written { refused, .. } => {
                if let What::Write { key, ops, .. } = what {
                    self.written(who, &key, &ops, refused);
                }
                return;
            }
            Answer::Full { .. } => ObjectStatus::CreationFailed,
            Answer::NotOpen => {
                if let Some(key) = what.object().cloned() {
                    self.reopen(&key);
                }
                ObjectStatus::Unavailable
            }
            // The number was used up, by this edge or another.
            Answer::Nothing => ObjectStatus::Unavailable,
            Answer::Done
            | Answer::Opened(_)
            | Answer::OtherKind { .. }
            | Answer::Locked { .. }
            | Answer::NotLocked
            | Answer::Granted { .. }
            | Answer::Contending
            | Answer::Standby
            | Answer::NotHolder
            | Answer::OutOfOrder { .. }
            | Answer::Forgotten
            | Answer::UnknownEdge
            | Answer::Outlived { .. } => ObjectStatus::Undecided,
        };
        self.tell_refused(who, what, status, CallResult::Undecided);
    }

    fn written(
        &mut self,
        who: SubscriberId,
        key: &ObjectKey,
        ops: &[model::SlotOp],
        refused: &[u16],
    ) {
        let Some(object) = self.objects.get_mut(key) else {
            return;
        };
        object.end_write(who, ops);
        let Some(held) = object.told(who) else {
            return;
        };
        let events = events::written(ops, refused, held, |slot| object.is_writing(who, slot));
        self.tell(Recipients::One(who), key, events);
    }

    /// Tells one who counts its requests that its message was given out. Whether it does.
    fn tell_sent(&mut self, who: SubscriberId, request: (SessionId, u64), key: &ObjectKey) -> bool {
        let (id, seq) = request;
        if !self
            .sessions
            .get(&id)
            .is_some_and(|session| session.durable)
        {
            return false;
        }
        let concerned = self
            .objects
            .get(key)
            .is_some_and(|object| object.told(who).is_some() || object.awaits(who));
        if concerned {
            self.tell(Recipients::One(who), key, vec![ObjectEvent::Sent { seq }]);
        }
        true
    }

    fn send_answered(
        &mut self,
        who: SubscriberId,
        request: (SessionId, u64),
        key: &ObjectKey,
        payload: Bytes,
        answer: &Answer,
    ) {
        let status = match answer {
            // It was applied before: through another edge, or while this one was not attached.
            // Whoever is here has heard it, or what follows it; the sender has its answer.
            Answer::Done => {
                if self.tell_sent(who, request, key) {
                    return;
                }
                let event = ObjectEvent::Send(payload);
                let object = self.objects.get(key);
                if object.is_some_and(|object| object.told(who).is_some()) {
                    self.tell(Recipients::One(who), key, vec![event]);
                }
                return;
            }
            Answer::Full { .. } => ObjectStatus::CreationFailed,
            Answer::NotOpen => {
                self.reopen(key);
                ObjectStatus::Unavailable
            }
            // The number was used up, by this edge or another.
            Answer::Nothing => ObjectStatus::Unavailable,
            Answer::Opened(_)
            | Answer::OtherKind { .. }
            | Answer::Written { .. }
            | Answer::Locked { .. }
            | Answer::NotLocked
            | Answer::Granted { .. }
            | Answer::Contending
            | Answer::Standby
            | Answer::NotHolder
            | Answer::OutOfOrder { .. }
            | Answer::Forgotten
            | Answer::UnknownEdge
            | Answer::Outlived { .. } => ObjectStatus::Undecided,
        };
        let what = What::Send {
            key: key.clone(),
            payload,
        };
        self.tell_refused(who, what, status, CallResult::Undecided);
    }

    /// What became of a request of the edge's own. Whether it can be that.
    fn own_answered(&mut self, seq: u64, request: Request, answer: Answer, now: Instant) -> bool {
        match (request, answer) {
            (Request::Register, Answer::Done) => {
                self.registered = true;
                self.pump_all(now);
                true
            }
            (Request::Register, Answer::Full { .. }) => {
                self.timers.set(Timer::Register, now + limits::RETRY_LAST);
                true
            }
            (Request::Open { key, .. }, answer) => self.open_answered(seq, &key, answer, now),
            (Request::Claim { publication, .. }, answer) => {
                self.claim_answered(publication, seq, &answer)
            }
            (Request::Affirm { key, epoch } | Request::Place { key, epoch, .. }, answer) => {
                if answer == Answer::NotHolder {
                    self.not_holder(&key, epoch);
                }
                true
            }
            // Whatever became of them: there is nothing left to do.
            (
                Request::Register
                | Request::Close { .. }
                | Request::EndSessions(_)
                | Request::Release { .. }
                | Request::Home { .. }
                | Request::Batch { .. }
                | Request::Send { .. }
                | Request::Lock { .. }
                | Request::Unlock { .. }
                | Request::Void,
                _,
            ) => true,
        }
    }

    fn open_answered(&mut self, seq: u64, key: &ObjectKey, answer: Answer, now: Instant) -> bool {
        // Another question about the object may have followed, whose answer counts.
        let is_newest = self
            .objects
            .get(key)
            .is_some_and(|object| !object.open && object.open_seq == seq);
        if !is_newest {
            return true;
        }
        match answer {
            Answer::Opened(sync) => self.opened(key, sync, now),
            Answer::OtherKind { kind } => {
                self.other_kind(key, kind, now);
                self.pump_own(now);
            }
            Answer::Full { .. } => self.fail_object(key, ObjectStatus::CreationFailed, now),
            Answer::Forgotten => {
                self.propose_open(key);
                self.pump_own(now);
            }
            Answer::Done
            | Answer::Written { .. }
            | Answer::NotOpen
            | Answer::Locked { .. }
            | Answer::NotLocked
            | Answer::Granted { .. }
            | Answer::Contending
            | Answer::Standby
            | Answer::NotHolder
            | Answer::OutOfOrder { .. }
            | Answer::UnknownEdge
            | Answer::Nothing
            | Answer::Outlived { .. } => return false,
        }
        true
    }

    fn opened(&mut self, key: &ObjectKey, sync: ObjectSync, now: Instant) {
        let Some(object) = self.objects.get_mut(key) else {
            return;
        };
        object.open = true;
        let mut waiting = object.take_held_up();
        if object.held.is_some() {
            self.catch_up(key, sync);
        } else {
            object.kind = sync.kind;
            object.held = Some(Held::new(sync));
        }
        let subscribers = self.objects.get(key).into_iter();
        waiting.extend(
            subscribers
                .flat_map(|object| &object.subscribers)
                .filter_map(|who| self.subscribers.get(who)?.session),
        );
        for session in waiting {
            self.pump(session, now);
        }
        self.settle_uses(key, now);
    }

    /// The object exists with another kind than the one that was asked for first.
    fn other_kind(&mut self, key: &ObjectKey, kind: model::ObjectKind, now: Instant) {
        let Some(object) = self.objects.get_mut(key) else {
            return;
        };
        object.kind = kind;
        let held_up = object.take_held_up();
        let uses = std::mem::take(&mut object.uses);
        let (right, wrong): (Vec<_>, Vec<_>) =
            uses.into_iter().partition(|waiting| waiting.kind == kind);
        object.uses = right.into();
        let nobody = object.is_unused();
        let had_other = !object.subscribers.is_empty();
        self.uses_waiting -= wrong.len();
        for waiting in wrong {
            self.fail_use(&waiting, key, ObjectStatus::BadPersistence);
        }
        if had_other {
            self.fail_object(key, ObjectStatus::BadPersistence, now);
        } else if nobody {
            self.objects.remove(key);
            self.timers.cancel(&Timer::Uses(key.clone()));
        } else if self
            .objects
            .get(key)
            .is_some_and(|object| !Object::is_unused(object))
        {
            self.propose_open(key);
        }
        for session in held_up {
            self.pump(session, now);
        }
    }
}

fn locked(answer: &Answer) -> CallResult {
    match answer {
        Answer::Locked { token } => CallResult::Locked { token: *token },
        Answer::NotLocked => CallResult::NotLocked,
        Answer::Full { .. } => CallResult::Full,
        Answer::NotOpen | Answer::Nothing => CallResult::Unavailable,
        Answer::Done
        | Answer::Opened(_)
        | Answer::OtherKind { .. }
        | Answer::Written { .. }
        | Answer::Granted { .. }
        | Answer::Contending
        | Answer::Standby
        | Answer::NotHolder
        | Answer::OutOfOrder { .. }
        | Answer::Forgotten
        | Answer::UnknownEdge
        | Answer::Outlived { .. } => CallResult::Undecided,
    }
}

fn unlocked(answer: &Answer) -> CallResult {
    match answer {
        Answer::Done => CallResult::Unlocked,
        Answer::NotLocked | Answer::NotOpen => CallResult::NotLocked,
        Answer::Full { .. } => CallResult::Full,
        Answer::Nothing
        | Answer::Locked { .. }
        | Answer::Opened(_)
        | Answer::OtherKind { .. }
        | Answer::Written { .. }
        | Answer::Granted { .. }
        | Answer::Contending
        | Answer::Standby
        | Answer::NotHolder
        | Answer::OutOfOrder { .. }
        | Answer::Forgotten
        | Answer::UnknownEdge
        | Answer::Outlived { .. } => CallResult::Undecided,
    }
}
