//! What clients ask.

use std::collections::BTreeSet;
use std::time::Instant;

use bytes::Bytes;
use model::object::{ObjectAsk, ObjectEvent, ObjectStatus};
use model::{ObjectKey, ObjectKind, Policy, SessionId, SlotOp, Version};

use super::interface::{Access, CallId, CallResult, Output, Recipients, Subscriber, SubscriberId};
use super::object::{Object, Use};
use super::session::{Session, What, op_bytes};
use super::timers::Timer;
use super::{Member, Replica, events, limits};
use crate::command::Request;
use crate::limits::{BATCH_OPS_MAX, COMMAND_BYTES_MAX, TRACE_BYTES_MAX, VALUE_BYTES_MAX};

/// What a command needs beside the client's bytes: names, numbers, a trace.
const COMMAND_OVERHEAD: usize = 4096;

impl Replica {
    /// One message of a client about one object: its asks in order. `kind` and `version`
    /// are what the message's header says: `version` is what the client has seen.
    #[expect(
        clippy::too_many_arguments,
        reason = "a message and what the edge knows of who sent it"
    )]
    pub fn handle_ask(
        &mut self,
        subscriber: Subscriber,
        key: ObjectKey,
        kind: ObjectKind,
        version: Version,
        access: Access,
        policy: Policy,
        asks: Vec<ObjectAsk>,
        trace: Bytes,
        now: Instant,
    ) {
        if !self.admit(subscriber) {
            return;
        }
        let who = subscriber.id;
        for ask in asks {
            match ask {
                ObjectAsk::Use => self.ask_use(who, &key, kind, version, access, now),
                ObjectAsk::Release => self.ask_release(who, &key, now),
                ObjectAsk::Write(ops) if ops.is_empty() => {}
                ObjectAsk::Write(ops) => {
                    let seen = self.objects.get(&key).and_then(|object| {
                        let held = object.told(who)?;
                        Some((held.epoch, version.min(object.version_for(who))))
                    });
                    let what = What::Write {
                        key: key.clone(),
                        seen,
                        policy,
                        ops,
                    };
                    self.ask(who, access, what, trace.clone(), now);
                }
                ObjectAsk::Send(payload) => {
                    let what = What::Send {
                        key: key.clone(),
                        payload,
                    };
                    self.ask(who, access, what, trace.clone(), now);
                }
            }
        }
        self.pump_client(who, now);
    }

    /// A client wants the object for itself.
    #[expect(
        clippy::too_many_arguments,
        reason = "a call and what the edge knows of who made it"
    )]
    pub fn handle_lock(
        &mut self,
        subscriber: Subscriber,
        key: ObjectKey,
        access: Access,
        lease_ms: u32,
        call: CallId,
        trace: Bytes,
        now: Instant,
    ) {
        if !self.admit(subscriber) {
            return;
        }
        let what = What::Lock {
            key,
            lease_ms,
            call,
        };
        self.ask(subscriber.id, access, what, trace, now);
        self.pump_client(subscriber.id, now);
    }

    /// A client gives one level of its lock back.
    pub fn handle_unlock(
        &mut self,
        subscriber: Subscriber,
        key: ObjectKey,
        call: CallId,
        trace: Bytes,
        now: Instant,
    ) {
        if !self.admit(subscriber) {
            return;
        }
        let what = What::Unlock {
            key,
            call: Some(call),
        };
        self.ask(subscriber.id, Access::FULL, what, trace, now);
        self.pump_client(subscriber.id, now);
    }

    /// A client speaks under its own identity: its next request in the durable session has
    /// this number, from 1. Whichever connection had the session here loses it. What it or
    /// this one asked and is not answered is answered now: undecided, if it may be made.
    pub fn handle_resume(
        &mut self,
        subscriber: SubscriberId,
        session: SessionId,
        next_seq: u64,
        now: Instant,
    ) {
        if self.dismissed.contains(&subscriber) {
            return;
        }
        self.evict(session);
        let member = self.subscribers.entry(subscriber).or_insert(Member {
            session: None,
            keys: BTreeSet::new(),
        });
        self.departed.remove(&session);
        self.timers.cancel(&Timer::Departed(session));
        if let Some(before) = member.session.replace(session) {
            self.abandon(before, now);
        }
        self.sessions.insert(
            session,
            Session::new(true, Some(subscriber), next_seq.max(1)),
        );
    }

    /// A client's connection is gone.
    pub fn handle_left(&mut self, subscriber: SubscriberId, now: Instant) {
        self.dismissed.remove(&subscriber);
        let Some(member) = self.subscribers.remove(&subscriber) else {
            return;
        };
        if let Some(id) = member.session
            && let Some(session) = self.sessions.get_mut(&id)
            && session.subscriber == Some(subscriber)
        {
            session.subscriber = None;
            if session.durable {
                // The client may ask again elsewhere, where it is known what it wants.
                if let Some(session) = self.drop_session(id) {
                    self.forget_writes_of(subscriber, &session);
                    self.depart(id, &session, now);
                }
            } else {
                let session = self.sessions.remove(&id);
                if let Some(session) = session {
                    self.forget_writes_of(subscriber, &session);
                    self.sessions.insert(id, session);
                }
                self.finish_if_drained(id, now);
            }
        }
        for key in member.keys {
            self.unsubscribe(subscriber, &key, now);
        }
        self.pump_own(now);
    }

    /// Takes note of a client that is new. Whether it is heard.
    fn admit(&mut self, subscriber: Subscriber) -> bool {
        if self.dismissed.contains(&subscriber.id) {
            return false;
        }
        if self.subscribers.contains_key(&subscriber.id) {
            return true;
        }
        self.subscribers.insert(
            subscriber.id,
            Member {
                // The numbers of its own session are another connection's until this one resumes.
                session: None,
                keys: BTreeSet::new(),
            },
        );
        true
    }

    /// Whichever connection has the session here loses it to another of its client.
    fn evict(&mut self, session: SessionId) {
        let Some(old) = self.drop_session(session) else {
            return;
        };
        let Some(who) = old.subscriber else {
            return;
        };
        if let Some(member) = self.subscribers.get_mut(&who) {
            member.session = None;
        }
        // The requests may be asked again by the other, under their numbers.
        for asked in old.requests {
            if !asked.silent {
                self.refuse(Some(who), asked.what, true);
            }
        }
    }

    /// A connection speaks in another session. What it asked in this one is answered, and
    /// the session ends when its numbers are used up.
    fn abandon(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let asked: Vec<u64> = session
            .requests
            .iter()
            .filter(|asked| !matches!(asked.what, What::Void { .. }))
            .map(|asked| asked.seq)
            .collect();
        self.give_up(id, asked);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.subscriber = None;
        }
        // While nobody decides, one client may leave behind as many as it likes to name.
        if self.sessions.len() > self.subscribers.len() + limits::DEPARTED_MAX {
            self.drop_session(id);
            return;
        }
        self.pump(id, now);
        self.finish_if_drained(id, now);
    }

    fn forget_writes_of(&mut self, who: SubscriberId, session: &Session) {
        for asked in &session.requests {
            if let What::Write { key, ops, .. } = &asked.what
                && let Some(object) = self.objects.get_mut(key)
            {
                object.end_write(who, ops);
            }
        }
    }

    fn pump_client(&mut self, who: SubscriberId, now: Instant) {
        self.pump_own(now);
        if let Some(id) = self.subscribers.get(&who).and_then(|one| one.session) {
            self.pump(id, now);
        }
    }

    // ----- subscriptions

    fn ask_use(
        &mut self,
        who: SubscriberId,
        key: &ObjectKey,
        kind: ObjectKind,
        version: Version,
        access: Access,
        now: Instant,
    ) {
        if !access.read {
            self.refuse_use(who, key, kind, ObjectStatus::NoReadAccess);
            return;
        }
        let exists = self.objects.contains_key(key);
        let is_full = self.uses_waiting >= limits::USES_WAITING_MAX
            || (!exists
                && (self.objects.len() + self.closing.len() >= limits::OBJECTS_HELD_MAX
                    || self.own_is_full()));
        let Some(member) = self.subscribers.get_mut(&who) else {
            return;
        };
        let has_many = member.keys.len() >= limits::OBJECTS_PER_SUBSCRIBER_MAX;
        if is_full || (has_many && !member.keys.contains(key)) {
            self.refuse_use(who, key, kind, ObjectStatus::CreationFailed);
            return;
        }
        member.keys.insert(key.clone());
        self.timers.cancel(&Timer::Linger(key.clone()));
        if !exists {
            self.objects.insert(key.clone(), Object::opening(kind));
            self.closing.remove(key);
            self.propose_open(key);
        }
        self.uses_asked += 1;
        let number = self.uses_asked;
        let due = now + self.setup.open_wait;
        if let Some(object) = self.objects.get_mut(key) {
            object.uses.push_back(Use {
                number,
                subscriber: who,
                version,
                kind,
                due,
                // The entry that opens the object is behind everything that was
                // acknowledged before it was proposed.
                fresh: !exists,
            });
            self.uses_waiting += 1;
        }
        let timer = Timer::Uses(key.clone());
        if !self.timers.is_set(&timer) {
            self.timers.set(timer, due);
        }
        if exists {
            self.await_barrier(key.clone(), number);
        }
    }

    fn refuse_use(
        &mut self,
        who: SubscriberId,
        key: &ObjectKey,
        kind: ObjectKind,
        status: ObjectStatus,
    ) {
        let object = self.objects.get(key);
        let kind = object.map_or(kind, |object| object.kind);
        let version = object
            .filter(|object| object.told(who).is_some())
            .map_or(Version(0), |object| object.version_for(who));
        let events = vec![ObjectEvent::Status(status)];
        self.tell_as(Recipients::One(who), key, kind, version, events);
    }

    fn ask_release(&mut self, who: SubscriberId, key: &ObjectKey, now: Instant) {
        if let Some(member) = self.subscribers.get_mut(&who)
            && member.keys.remove(key)
        {
            let session = member.session.and_then(|id| self.sessions.get_mut(&id));
            if let Some(session) = session {
                session.silence(key);
            }
            if let Some(object) = self.objects.get_mut(key) {
                object.forget_writer(who);
            }
            self.unsubscribe(who, key, now);
        }
    }

    fn unsubscribe(&mut self, who: SubscriberId, key: &ObjectKey, now: Instant) {
        let Some(object) = self.objects.get_mut(key) else {
            return;
        };
        let before = object.uses.len();
        object.release(who);
        self.uses_waiting -= before - object.uses.len();
        self.linger_if_unused(key, now);
    }

    pub(super) fn linger_if_unused(&mut self, key: &ObjectKey, now: Instant) {
        let timer = Timer::Linger(key.clone());
        if self.objects.get(key).is_some_and(Object::is_unused) && !self.timers.is_set(&timer) {
            self.timers.set(timer, now + self.setup.linger);
        }
    }

    /// Nobody has come back in time.
    pub(super) fn close_unused(&mut self, key: ObjectKey, now: Instant) {
        let Some(object) = self.objects.get(&key).filter(|object| object.is_unused()) else {
            return;
        };
        // What no origin was asked to open costs a place here and nothing when the edge
        // attaches. It may be wanted again, and opens would pile up.
        let is_asked = object.held.is_some() || self.was_given(object.open_seq);
        if !is_asked && !self.is_connected() {
            self.timers.set(Timer::Linger(key), now + self.setup.linger);
            return;
        }
        let mut held_up = self.objects.remove(&key);
        self.timers.cancel(&Timer::Uses(key.clone()));
        self.closing.insert(key);
        self.pump_own(now);
        for session in held_up.iter_mut().flat_map(Object::take_held_up) {
            self.pump(session, now);
        }
    }

    /// Whether an origin was given a request of the edge's own.
    fn was_given(&self, seq: u64) -> bool {
        let asked = self.sessions.get(&self.own).and_then(|own| own.get(seq));
        asked.is_none_or(|asked| asked.handed)
    }

    /// Asks the ledger for the object, and says what of it is known.
    pub(super) fn propose_open(&mut self, key: &ObjectKey) {
        let Some(object) = self.objects.get_mut(key) else {
            return;
        };
        object.open = false;
        let request = Request::Open {
            key: key.clone(),
            kind: object.kind,
            have: object.held.as_ref().map(|held| (held.epoch, held.version)),
        };
        let seq = self.push_own(request, Bytes::new());
        if let Some(object) = self.objects.get_mut(key) {
            object.open_seq = seq;
        }
    }

    /// The ledger does not have the object open for this edge.
    pub(super) fn reopen(&mut self, key: &ObjectKey) {
        if self.objects.get(key).is_some_and(|object| object.open) {
            self.propose_open(key);
        }
    }

    /// The subscriptions that have waited too long.
    pub(super) fn give_up_uses(&mut self, key: &ObjectKey, now: Instant) {
        while let Some(object) = self.objects.get_mut(key)
            && let Some(waiting) = object.uses.front()
        {
            if waiting.due > now {
                let due = waiting.due;
                self.timers.set(Timer::Uses(key.clone()), due);
                break;
            }
            if let Some(waiting) = object.uses.pop_front() {
                self.uses_waiting -= 1;
                self.fail_use(&waiting, key, ObjectStatus::CreationFailed);
            }
        }
        self.linger_if_unused(key, now);
    }

    /// The subscription is refused, and with it what was asked behind it.
    pub(super) fn fail_use(&mut self, failed: &Use, key: &ObjectKey, status: ObjectStatus) {
        let who = failed.subscriber;
        self.refuse_use(who, key, failed.kind, status);
        let goes_on = self
            .objects
            .get(key)
            .is_some_and(|object| object.subscribers.contains(&who) || object.awaits(who));
        if !goes_on {
            self.drop_subscription(who, key, status);
        }
    }

    /// There is no subscription, so what was asked behind it is refused.
    pub(super) fn drop_subscription(
        &mut self,
        who: SubscriberId,
        key: &ObjectKey,
        status: ObjectStatus,
    ) {
        let Some(member) = self.subscribers.get_mut(&who) else {
            return;
        };
        member.keys.remove(key);
        let session = member.session.and_then(|id| self.sessions.get_mut(&id));
        let Some(session) = session else {
            return;
        };
        let behind: Vec<u64> = session
            .requests
            .iter()
            .filter(|asked| asked.what.object() == Some(key) && !asked.silent)
            .map(|asked| asked.seq)
            .collect();
        let mut refused = Vec::new();
        for seq in behind.into_iter().rev() {
            let handed = session.may_be_made(seq);
            refused.extend(session.withdraw(seq).map(|what| (what, handed)));
        }
        for (what, handed) in refused.into_iter().rev() {
            let status = if handed {
                ObjectStatus::Undecided
            } else {
                status
            };
            self.answer_unsubscribed(who, what, status);
        }
    }

    // ----- numbered requests

    /// Takes a request, or refuses it at once.
    fn ask(&mut self, who: SubscriberId, access: Access, what: What, trace: Bytes, now: Instant) {
        let Some(member) = self.subscribers.get(&who) else {
            return;
        };
        let subscribed = what.object().is_some_and(|key| member.keys.contains(key));
        let id = match member.session {
            Some(id) => id,
            None => self.give_session(who),
        };
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let is_full = session.requests.len() >= limits::REQUESTS_MAX
            || session.bytes >= limits::REQUEST_BYTES_MAX;
        let status = if !access.write || !subscribed {
            Some(ObjectStatus::NoWriteAccess)
        } else if is_full || is_too_big(&what) {
            Some(ObjectStatus::CreationFailed)
        } else {
            None
        };
        if let Some(status) = status {
            if session.durable {
                // The client counts it, whatever we say.
                if session.requests.len() >= limits::NUMBERS_MAX {
                    self.handle_left(who, now);
                    self.dismissed.insert(who);
                    self.outputs.push_back(Output::Dismiss(who));
                    return;
                }
                session.push(What::Void { lock: None }, None, Bytes::new());
            }
            if subscribed {
                let call = if status == ObjectStatus::NoWriteAccess {
                    CallResult::NoAccess
                } else {
                    CallResult::Full
                };
                self.tell_refused(who, what, status, call);
            } else {
                self.answer_unsubscribed(who, what, status);
            }
            return;
        }
        if let What::Write { key, ops, seen, .. } = &what
            && seen.is_some()
            && let Some(object) = self.objects.get_mut(key)
        {
            object.begin_write(who, ops);
        }
        let due = now + self.setup.write_wait;
        let trace = if trace.len() > TRACE_BYTES_MAX {
            Bytes::new()
        } else {
            trace
        };
        session.push(what, Some(due), trace);
        let timer = Timer::Due(id);
        if !self.timers.is_set(&timer) {
            self.timers.set(timer, due);
        }
    }

    /// A session for a client that has none.
    fn give_session(&mut self, who: SubscriberId) -> SessionId {
        let id = self.next_session();
        if let Some(member) = self.subscribers.get_mut(&who) {
            member.session = Some(id);
        }
        self.sessions.insert(id, Session::new(false, Some(who), 1));
        id
    }

    /// Clients that have waited too long are told so, and the numbers of their requests are
    /// used up.
    pub(super) fn give_up_overdue(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let overdue = session.overdue(now);
        self.give_up(id, overdue);
        self.pump(id, now);
        // A client's requests have no wrong answers.
        let _ = self.answer_those_behind(id, now);
        self.finish_if_drained(id, now);
    }

    /// Nobody waits for these requests any more, and who did is told so.
    fn give_up(&mut self, id: SessionId, seqs: Vec<u64>) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let mut late = Vec::new();
        // From the last: what is taken out renumbers what stands behind it.
        for seq in seqs.into_iter().rev() {
            let handed = session.may_be_made(seq);
            let who = session.asker(seq);
            late.extend(session.withdraw(seq).map(|what| (who, what, handed)));
        }
        if let Some(due) = session.due() {
            self.timers.set(Timer::Due(id), due);
        }
        for (who, what, handed) in late.into_iter().rev() {
            self.refuse(who, what, handed);
        }
    }

    /// A request is not answered in time.
    pub(super) fn refuse(&mut self, who: Option<SubscriberId>, what: What, handed: bool) {
        let (status, call) = if handed {
            (ObjectStatus::Undecided, CallResult::Undecided)
        } else {
            (ObjectStatus::Unavailable, CallResult::Unavailable)
        };
        if let Some(who) = who {
            self.tell_refused(who, what, status, call);
        }
    }

    /// The subscription that the request needs has gone.
    pub(super) fn refuse_unsubscribed(
        &mut self,
        who: Option<SubscriberId>,
        what: What,
        handed: bool,
    ) {
        if let Some(who) = who {
            let call = if handed {
                CallResult::Undecided
            } else {
                CallResult::NotSubscribed
            };
            self.tell_refused(who, what, ObjectStatus::NoWriteAccess, call);
        }
    }

    /// Tells one who subscribes, or asks to. Who has released the object is told nothing.
    pub(super) fn tell_refused(
        &mut self,
        who: SubscriberId,
        what: What,
        status: ObjectStatus,
        call: CallResult,
    ) {
        match what {
            What::Write { key, ops, .. } => {
                let Some(object) = self.objects.get_mut(&key) else {
                    return;
                };
                object.end_write(who, &ops);
                let told = object.told(who);
                if told.is_some() || object.awaits(who) {
                    let events = events::refused(&ops, status, told);
                    self.tell(Recipients::One(who), &key, events);
                }
            }
            What::Send { key, .. } => {
                let concerned = self
                    .objects
                    .get(&key)
                    .is_some_and(|object| object.told(who).is_some() || object.awaits(who));
                if concerned {
                    let events = vec![ObjectEvent::Status(status)];
                    self.tell(Recipients::One(who), &key, events);
                }
            }
            What::Lock { call: id, .. } | What::Unlock { call: Some(id), .. } => {
                self.outputs.push_back(Output::CallAnswer {
                    subscriber: who,
                    call: id,
                    result: call,
                });
            }
            What::Unlock { call: None, .. } | What::Void { .. } | What::Edge(_) => {}
        }
    }

    /// Tells one who does not subscribe.
    fn answer_unsubscribed(&mut self, who: SubscriberId, what: What, status: ObjectStatus) {
        match what {
            What::Write { key, .. } | What::Send { key, .. } => {
                let kind = self
                    .objects
                    .get(&key)
                    .map_or(ObjectKind::Temporary, |object| object.kind);
                let events = vec![ObjectEvent::Status(status)];
                self.tell_as(Recipients::One(who), &key, kind, Version(0), events);
            }
            What::Lock { .. } | What::Unlock { .. } => {
                self.tell_refused(who, what, status, CallResult::NotSubscribed);
            }
            What::Void { .. } | What::Edge(_) => {}
        }
    }
}

/// Whether the ledger would not take it.
fn is_too_big(what: &What) -> bool {
    match what {
        What::Write { ops, .. } => {
            ops.len() > BATCH_OPS_MAX
                || ops.iter().map(op_bytes).sum::<usize>() > COMMAND_BYTES_MAX - COMMAND_OVERHEAD
                || ops.iter().any(
                    |op| matches!(op, SlotOp::Set { value, .. } if value.0.len() > VALUE_BYTES_MAX),
                )
        }
        What::Send { payload, .. } => payload.len() > VALUE_BYTES_MAX,
        What::Lock { .. } | What::Unlock { .. } | What::Void { .. } | What::Edge(_) => false,
    }
}
