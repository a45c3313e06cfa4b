//! The edge's half of the replicated state.
//!
//! One [`Replica`] per edge process. It holds every object that has a subscriber here, and
//! all subscribers of an object have been told all of what is held: a version is one thing
//! for all of them.
//!
//! Feed it with what clients ask, what the origin says and the time; then take
//! [`poll_output`](Replica::poll_output) until there is nothing, and call
//! [`handle_timeout`](Replica::handle_timeout) at the [`deadline`](Replica::deadline).
//!
//! # What a client can rely on
//!
//! * Every request gets one answer, in one update: `Success` for a value that was set,
//!   `Remove` for a slot that was removed, and for what was refused how the slot stands. A
//!   message to all is answered by itself.
//! * An update without a status that tells how a slot stands which the client asked to
//!   change means that the change was not made. Until it is answered the client is not told
//!   of others' changes of that slot, nor a version that includes them; the answer says how
//!   it stands.
//! * What became of a client's requests about one object is told in their order.
//! * `Unavailable` means that no origin was ever given the request. `Undecided` means that
//!   one was: the edge uses up the request's number, so that it is decided once and for
//!   all, and if it was made the client sees it as a change like another's.
//! * Nothing is told after `Release`, also no answers.
//!
//! # Numbers
//!
//! Each write, message, lock and unlock takes the next number of the client's session, in
//! the order of arrival; so a client that comes to another edge can say which number its
//! next request has ([`handle_resume`](Replica::handle_resume)) and ask again what was not
//! answered. It is answered with what became of it, and not applied twice.
//!
//! Only that call makes the client's own session the one that a connection speaks in, and it
//! takes it from whichever connection had it: a client may have several at one edge, of which
//! one is the one that asks. What a connection asks before is numbered in a session that is
//! drawn for it and ends with it.
//!
//! # What is lost
//!
//! Messages to all that are applied while an edge is not attached are told to its clients
//! when it attaches and the origin still remembers them, which it does for a while; the
//! ledger itself keeps slots, not messages. A sender is told in any case.
//!
//! A log itself may be lost with all its origins. Where the edge attaches then, another is
//! named, and nothing of what the edge has seen counts: it begins a life in the new log,
//! opens there what its clients use, and claims what they publish. They go on.

mod answers;
mod asks;
mod barriers;
mod departed;
mod events;
mod interface;
mod life;
pub mod limits;
mod object;
mod parts;
mod publications;
mod session;
mod timers;
mod told;

pub use interface::{
    Access, CallId, CallResult, ClaimOutcome, Misbehaviour, Output, Recipients, Setup, Subscriber,
    SubscriberId,
};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use model::object::{ObjectEvent, ObjectUpdate};
use model::{
    EdgeLife, Epoch, LogIndex, NodeId, ObjectKey, ObjectKind, SessionId, StreamKey, Version,
};

use crate::command::{Command, Proposal, Request};
use crate::effect::StreamState;
use crate::name::LogName;
use crate::wire::{ToEdge, ToOrigin};
use barriers::Barriers;
use departed::Departed;
use life::Dice;
use object::Object;
use parts::Parts;
use publications::Publication;
use session::{Session, What};
use timers::{Timer, Timers};

/// One edge's half: one per edge process.
#[derive(Debug)]
pub struct Replica {
    setup: Setup,
    dice: Dice,
    life: EdgeLife,
    /// Whether the ledger knows this life.
    registered: bool,
    link: Link,
    leader: Option<NodeId>,
    /// The log that the edge was told of.
    log: LogName,
    /// The newest entry of it whose effects were seen.
    seen: LogIndex,
    /// The edge's own session.
    own: SessionId,
    /// Sessions that began in this life, beside that.
    begun: u64,
    sessions: BTreeMap<SessionId, Session>,
    /// Sessions whose clients left, and that the ledger has not been told of.
    ending: Vec<SessionId>,
    /// Sessions whose clients left and may come back, here or elsewhere.
    departed: Departed,
    subscribers: BTreeMap<SubscriberId, Member>,
    /// Those whose connections are being closed.
    dismissed: BTreeSet<SubscriberId>,
    objects: BTreeMap<ObjectKey, Object>,
    /// Objects that the ledger has open for the edge, and that it does not want any more.
    closing: BTreeSet<ObjectKey>,
    uses_waiting: usize,
    uses_asked: u64,
    barriers: Barriers,
    publications: BTreeMap<u64, Publication>,
    followed: BTreeMap<StreamKey, Option<StreamState>>,
    timers: Timers,
    outputs: VecDeque<Output>,
    parts: Parts,
}

/// How the edge is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Detached,
    /// Asked, not answered. `again` if it was attached here before, under an earlier life:
    /// what is said until the answer is not for this one.
    Attaching {
        again: bool,
    },
    Attached,
}

/// A client.
#[derive(Debug)]
struct Member {
    /// In which its requests are numbered, from the first on. No two members have the same.
    session: Option<SessionId>,
    /// What it subscribes to, or asks to.
    keys: BTreeSet<ObjectKey>,
}

impl Replica {
    /// An edge that is not attached yet.
    #[must_use]
    pub fn new(setup: Setup, _now: Instant) -> Self {
        let mut dice = Dice::new(setup.seed);
        let life = EdgeLife {
            edge: setup.edge.clone(),
            // Chance tells lives apart that begin in one second, or without a clock.
            incarnation: u64::from(setup.born) << 32 | dice.draw() >> 32,
        };
        let own = dice.family();
        let mut replica = Self {
            setup,
            dice,
            life,
            registered: false,
            link: Link::Detached,
            leader: None,
            log: LogName::default(),
            seen: LogIndex(0),
            own,
            begun: 0,
            sessions: BTreeMap::new(),
            ending: Vec::new(),
            departed: Departed::default(),
            subscribers: BTreeMap::new(),
            dismissed: BTreeSet::new(),
            objects: BTreeMap::new(),
            closing: BTreeSet::new(),
            parts: Parts::default(),
            uses_waiting: 0,
            uses_asked: 0,
            barriers: Barriers::default(),
            publications: BTreeMap::new(),
            followed: BTreeMap::new(),
            timers: Timers::default(),
            outputs: VecDeque::new(),
        };
        replica.sessions.insert(own, Session::new(false, None, 1));
        replica.push_own(Request::Register, Bytes::new());
        replica
    }

    /// The log that the edge was told of last.
    #[must_use]
    pub fn log(&self) -> LogName {
        self.log
    }

    /// The life under which the edge is known.
    #[must_use]
    pub fn life(&self) -> &EdgeLife {
        &self.life
    }

    /// Whether the edge is attached to an origin that knows a leader.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.link == Link::Attached && self.leader.is_some()
    }

    /// What is held of an object.
    #[must_use]
    pub fn held(&self, key: &ObjectKey) -> Option<(Epoch, Version)> {
        let held = self.objects.get(key)?.held.as_ref()?;
        Some((held.epoch, held.version))
    }

    // ----- from the origin

    /// A new stream to an origin is open. What was under way on another is asked again.
    pub fn handle_attached_link(&mut self, now: Instant) {
        self.handle_detached(now);
        self.attach(false, now);
    }

    /// The stream to the origin has ended.
    pub fn handle_detached(&mut self, _now: Instant) {
        self.link = Link::Detached;
        self.leader = None;
        self.parts = Parts::default();
        self.barriers.interrupted();
        self.timers.cancel(&Timer::Reattach);
    }

    /// The origin says something.
    ///
    /// # Errors
    /// It must not say that. End the attachment and attach anew.
    pub fn handle_message(&mut self, message: ToEdge, now: Instant) -> Result<(), Misbehaviour> {
        match (&self.link, &message) {
            (_, ToEdge::Leaving) => {
                self.outputs.push_back(Output::Reattach);
                return Ok(());
            }
            (
                Link::Attached,
                ToEdge::Holds { .. } | ToEdge::Attached { .. } | ToEdge::Resumed { .. },
            ) => {
                return Err(Misbehaviour::AttachedTwice);
            }
            (Link::Attached, _)
            | (
                Link::Attaching { .. },
                ToEdge::Holds { .. } | ToEdge::Attached { .. } | ToEdge::Resumed { .. },
            ) => {}
            (Link::Attaching { again: true }, _) => return Ok(()),
            (Link::Attaching { again: false } | Link::Detached, _) => {
                return Err(Misbehaviour::NotAttached);
            }
        }
        match message {
            ToEdge::Attached {
                log,
                index,
                known,
                objects,
                streams,
            } => self.attached((log, index), known, objects, streams, now),
            ToEdge::Resumed { index } => self.resumed(index, now),
            ToEdge::Stream { key, state } => {
                self.stream_is(key, state);
                Ok(())
            }
            ToEdge::Holds { objects, streams } => self.holds(objects, streams),
            ToEdge::Part(part) => self.part(part),
            ToEdge::Applied(applied) => {
                let applied = self.whole(applied);
                self.applied(applied, now)
            }
            ToEdge::Barrier { id } => self.barrier_passed(id, now),
            ToEdge::Leader(leader) => {
                self.leader_is(leader, now);
                Ok(())
            }
            ToEdge::Leaving => Ok(()),
        }
    }

    // ----- time and output

    /// What is due is done.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Reattach => {
                    self.outputs.push_back(Output::Reattach);
                    self.timers
                        .set(Timer::Reattach, now + limits::REATTACH_AGAIN);
                }
                Timer::Register => self.begin_life(now),
                Timer::Retry(session) => self.retry(session, now),
                Timer::Due(session) => self.give_up_overdue(session, now),
                Timer::Uses(key) => self.give_up_uses(&key, now),
                Timer::Linger(key) => self.close_unused(key, now),
                Timer::Departed(session) => self.end_departed(session, now),
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// What the shell must do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    // ----- requests on their way

    /// Asks for something in the edge's own name. Returns its number.
    fn push_own(&mut self, request: Request, trace: Bytes) -> u64 {
        let own = self.own;
        self.sessions
            .entry(own)
            .or_insert_with(|| Session::new(false, None, 1))
            .push(What::Edge(request), None, trace)
    }

    /// Whether the edge may ask for more in its own name.
    fn own_is_full(&self) -> bool {
        self.sessions
            .get(&self.own)
            .is_some_and(|own| own.requests.len() >= limits::OWN_REQUESTS_MAX)
    }

    fn pump_own(&mut self, now: Instant) {
        if self.is_connected() && self.registered {
            while !self.ending.is_empty() {
                let some = self.ending.len().min(limits::ENDS_PER_REQUEST);
                let sessions = self.ending.drain(..some).collect();
                self.push_own(Request::EndSessions(sessions), Bytes::new());
            }
            for key in std::mem::take(&mut self.closing) {
                self.push_own(Request::Close { key }, Bytes::new());
            }
        }
        self.pump(self.own, now);
    }

    fn pump_all(&mut self, now: Instant) {
        self.pump_own(now);
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        for id in ids {
            self.pump(id, now);
        }
    }

    /// Sends what may be sent of a session.
    fn pump(&mut self, id: SessionId, now: Instant) {
        // An origin without a leader is given nothing: what it was not given has certainly
        // not happened.
        if !self.is_connected() || !(self.registered || id == self.own) {
            return;
        }
        let mut refused = Vec::new();
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let subscriber = session.subscriber;
        let durable = session.durable;
        while let Some(asked) = session.next_to_send() {
            let seq = asked.seq;
            if !self.registered && !matches!(asked.what, What::Edge(Request::Register)) {
                break;
            }
            match gate(&self.objects, subscriber, &asked.what) {
                Gate::Wait => {
                    let object = asked.what.object();
                    if let Some(object) = object.and_then(|key| self.objects.get_mut(key)) {
                        object.held_up(id);
                    }
                    break;
                }
                Gate::Never => {
                    let handed = asked.handed;
                    let who = session.asker(seq);
                    if let Some(what) = session.withdraw(seq) {
                        refused.push((who, what, handed));
                    }
                }
                Gate::Open => {
                    asked.handed = true;
                    let proposal = Proposal {
                        session: id,
                        seq,
                        edge: self.life.clone(),
                        durable,
                        trace: asked.trace.clone(),
                        request: asked.what.request(),
                    };
                    session.sent(seq);
                    let bytes = Command::Propose(proposal).encode();
                    self.outputs
                        .push_back(Output::ToOrigin(ToOrigin::Propose(bytes)));
                }
            }
        }
        if session.is_under_way() && !self.timers.is_set(&Timer::Retry(id)) {
            let at = now + session.pause;
            self.timers.set(Timer::Retry(id), at);
        }
        for (who, what, handed) in refused {
            self.refuse_unsubscribed(who, what, handed);
        }
        self.finish_if_drained(id, now);
    }

    /// Everything that is not answered is proposed again.
    fn retry(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        if self.link != Link::Attached || !session.is_under_way() {
            return;
        }
        session.pause = (session.pause * 2).min(limits::RETRY_LAST);
        session.rewind();
        self.pump(id, now);
    }

    /// The number was applied.
    fn progressed(&mut self, id: SessionId, now: Instant) {
        let timer = Timer::Retry(id);
        self.timers.cancel(&timer);
        if let Some(session) = self.sessions.get(&id)
            && session.is_under_way()
        {
            self.timers.set(timer, now + session.pause);
        }
    }

    fn rewind_all(&mut self, now: Instant) {
        for session in self.sessions.values_mut() {
            session.rewind();
        }
        self.pump_all(now);
    }

    /// A session without a client ends when its last request is decided.
    fn finish_if_drained(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        if id == self.own || session.subscriber.is_some() || !session.requests.is_empty() {
            return;
        }
        if !session.durable {
            self.ending.push(id);
        }
        if let Some(session) = self.drop_session(id)
            && session.durable
        {
            // Its client speaks under another name, or left.
            self.depart(id, &session, now);
        }
    }

    fn drop_session(&mut self, id: SessionId) -> Option<Session> {
        self.timers.cancel(&Timer::Retry(id));
        self.timers.cancel(&Timer::Due(id));
        self.sessions.remove(&id)
    }

    // ----- telling

    fn tell(&mut self, to: Recipients, key: &ObjectKey, events: Vec<ObjectEvent>) {
        if events.is_empty() {
            return;
        }
        let object = self.objects.get(key);
        let kind = object.map_or(ObjectKind::Temporary, |object| object.kind);
        let version = object.map_or(Version(0), |object| match to {
            Recipients::One(who) => object.version_for(who),
            Recipients::Many { .. } => object.version(),
        });
        self.tell_as(to, key, kind, version, events);
    }

    fn tell_as(
        &mut self,
        to: Recipients,
        key: &ObjectKey,
        kind: ObjectKind,
        version: Version,
        events: Vec<ObjectEvent>,
    ) {
        self.outputs.push_back(Output::Update {
            to,
            key: key.clone(),
            update: Arc::new(ObjectUpdate {
                name: key.name.clone(),
                kind,
                version,
                events,
            }),
        });
    }
}

/// Whether a request may be proposed.
enum Gate {
    Open,
    /// Its object is being opened, or its subscriber waits for it.
    Wait,
    /// There is no subscription.
    Never,
}

fn gate(objects: &BTreeMap<ObjectKey, Object>, who: Option<SubscriberId>, what: &What) -> Gate {
    let Some(key) = what.object() else {
        return Gate::Open;
    };
    let Some(object) = objects.get(key) else {
        return Gate::Never;
    };
    let awaits = who.is_some_and(|who| object.awaits(who) && object.told(who).is_none());
    if !object.open || awaits {
        return Gate::Wait;
    }
    if matches!(what, What::Write { seen: None, .. }) {
        return Gate::Never;
    }
    Gate::Open
}
