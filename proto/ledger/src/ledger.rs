//! The state machine.

mod sharing;

use std::collections::{BTreeMap, BTreeSet};

use model::{
    AppInstance, EdgeLife, Epoch, LogIndex, ObjectKey, OriginId, SessionId, StreamKey, Version,
};

use crate::claim::{Claims, Name, Party};
use crate::command::{Command, Proposal, Request};
use crate::dedup::{Kept, Moved, Place, Sessions};
use crate::effect::{Answer, Applied, Effect, ObjectSync, StreamState};
use crate::graveyard::Graveyard;
use crate::home::Homes;
use crate::instance::Instances;
use crate::interest::{Edges, number_of};
use crate::limits::EDGES_MAX;
use crate::name::LogName;
use crate::object::Object;

/// What every origin knows.
///
/// It is a function of the log: the same entries give the same effects, the same
/// [snapshot](Self::snapshot) and the same [digest](Self::digest) everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    pub(crate) name: LogName,
    pub(crate) applied: LogIndex,
    pub(crate) edges: Edges,
    pub(crate) sessions: Sessions,
    pub(crate) objects: BTreeMap<ObjectKey, Object>,
    pub(crate) graves: Graveyard,
    pub(crate) claims: Claims,
    pub(crate) homes: Homes,
    /// Objects that a session has locked or waits for.
    pub(crate) doors: BTreeMap<SessionId, BTreeSet<ObjectKey>>,
    /// Bytes of all objects.
    pub(crate) weight: usize,
    /// What of that each instance has.
    pub(crate) instances: Instances,
}

/// How much of everything there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Registered edges.
    pub edges: usize,
    /// Sessions that are remembered.
    pub sessions: usize,
    /// SharedObjects.
    pub objects: usize,
    /// What they weigh, in bytes.
    pub object_bytes: usize,
    /// Streams that somebody publishes.
    pub streams: usize,
    /// Application instances that have a home.
    pub instances: usize,
}

impl Ledger {
    /// Before the first entry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Before the first entry of the log with this name.
    #[must_use]
    pub fn founded(name: LogName) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }

    /// Which log this is the state of. Part of the state: whoever is given one knows.
    #[must_use]
    pub fn name(&self) -> LogName {
        self.name
    }

    /// Applies an entry. Indexes that are left out had no command.
    ///
    /// The answer to a request stands before what else it did. What waited for a lock and
    /// waits no more follows in the order of the queue, each with its answer first.
    ///
    /// # Panics
    /// If the entry, or one behind it, was applied before: whoever drives the ledger is
    /// broken, and going on would break the state.
    pub fn apply(&mut self, index: LogIndex, command: &Command) -> Applied {
        self.skip(index);
        let mut effects = Vec::new();
        let mut trace = bytes::Bytes::new();
        match command {
            Command::Propose(proposal) => {
                trace = proposal.trace.clone();
                self.propose(proposal, &mut effects);
            }
            Command::EdgeLost(edge) => self.lose(edge, &mut effects),
            Command::LockExpired { key, token } => self.expire(key, *token, &mut effects),
            Command::OriginRemoved(origin) => {
                self.claims.vacate(origin, &mut effects);
                let homeless = self.homes.leave(origin).into_iter();
                effects.extend(homeless.map(|at| Effect::Home { at, origin: None }));
            }
        }
        Applied {
            index,
            trace,
            effects,
        }
    }

    /// Passes over an entry that carries no command.
    ///
    /// # Panics
    /// If the entry, or one behind it, was applied before.
    pub fn skip(&mut self, index: LogIndex) {
        assert!(
            index > self.applied,
            "entry {index} after entry {}: the log goes forward",
            self.applied
        );
        self.applied = index;
    }

    /// The newest entry that is part of this state.
    #[must_use]
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// How much of everything there is.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            edges: self.edges.len(),
            sessions: self.sessions.all().len(),
            objects: self.objects.len(),
            object_bytes: self.weight,
            streams: self.claims.all().len() - self.claims.ended(),
            instances: self.homes.table.len(),
        }
    }

    /// What somebody must be told who has this much of an object; `None` if there is no
    /// such object.
    #[must_use]
    pub fn sync(&self, key: &ObjectKey, have: Option<(Epoch, Version)>) -> Option<ObjectSync> {
        self.objects.get(key).map(|object| object.sync(have))
    }

    /// The edges that have the object open, in order.
    pub fn opened_by(&self, key: &ObjectKey) -> impl Iterator<Item = &EdgeLife> {
        self.objects
            .get(key)
            .into_iter()
            .flat_map(|object| &object.opened)
    }

    /// Whether the edge has the object open.
    #[must_use]
    pub fn has_open(&self, key: &ObjectKey, edge: &EdgeLife) -> bool {
        self.objects
            .get(key)
            .is_some_and(|object| object.opened.contains(edge))
    }

    /// The objects that the edge has open, in order.
    pub fn objects_of(&self, edge: &EdgeLife) -> impl Iterator<Item = &ObjectKey> {
        self.edges
            .get(edge)
            .into_iter()
            .flat_map(|edge| &edge.opened)
    }

    /// Whether this life of the edge is registered.
    #[must_use]
    pub fn knows(&self, edge: &EdgeLife) -> bool {
        self.edges.get(edge).is_some()
    }

    /// The registered edges, in order.
    pub fn edges(&self) -> impl Iterator<Item = &EdgeLife> {
        self.edges.all().map(|edge| &edge.life)
    }

    /// The locks that are held, in order: object, token, lease in milliseconds.
    pub fn locks(&self) -> impl Iterator<Item = (&ObjectKey, u64, u32)> {
        self.objects.iter().filter_map(|(key, object)| {
            let lock = object.door.lock()?;
            Some((key, lock.token, lock.lease_ms))
        })
    }

    /// How a stream stands.
    #[must_use]
    pub fn stream(&self, key: &StreamKey) -> StreamState {
        self.claims.state(key)
    }

    /// The streams that are published and those whose last publish is remembered, in order.
    pub fn streams(&self) -> impl Iterator<Item = (&StreamKey, StreamState)> {
        self.claims
            .all()
            .iter()
            .map(|(key, name): (_, &Name)| (key, name.state()))
    }

    /// Where an instance lives.
    #[must_use]
    pub fn home(&self, at: &AppInstance) -> Option<&OriginId> {
        self.homes.table.get(at)
    }

    /// Where all instances live, in order.
    pub fn homes(&self) -> impl Iterator<Item = (&AppInstance, &OriginId)> {
        self.homes.table.iter()
    }

    // ----- requests

    fn propose(&mut self, proposal: &Proposal, effects: &mut Vec<Effect>) {
        let Proposal {
            session, seq, edge, ..
        } = proposal;
        let say = |answer| Effect::Answer {
            to: edge.clone(),
            session: *session,
            seq: *seq,
            answer,
        };
        let known = self.knows(edge);
        if !known {
            if proposal.request != Request::Register {
                return effects.push(say(Answer::UnknownEdge));
            }
            if let Some(incarnation) = self.edges.outlives(edge) {
                return effects.push(say(Answer::Outlived { incarnation }));
            }
            if self.edges.len() >= EDGES_MAX && self.edges.of_name(&edge.edge).is_none() {
                return effects.push(say(Answer::Full { limit: "edges" }));
            }
        }
        if self.is_over(proposal) {
            return effects.push(say(Answer::Forgotten));
        }
        let again = match self.sessions.place(*session, *seq) {
            Place::Next => {
                let answer = self.begin(proposal, effects);
                if let Some(answer) = answer {
                    let opened = what_opens(&proposal.request).map(|(key, _)| key);
                    self.sessions
                        .answered(*session, *seq, Kept::of(&answer, opened));
                    // The answer stands before what else the request did.
                    effects.insert(0, say(answer));
                }
                if let Some(silent) = self.sessions.surplus(self.applied) {
                    self.mark_over(silent);
                    self.end_sessions(&BTreeSet::from([silent]), effects);
                }
                return;
            }
            Place::Gap { expected } => Some(Answer::OutOfOrder { expected }),
            Place::Duplicate(_) if !known => Some(Answer::UnknownEdge),
            Place::Duplicate(None) => Some(Answer::Forgotten),
            Place::Duplicate(Some(Kept::Opened(key))) => {
                let have = what_opens(&proposal.request).and_then(|(_, have)| have);
                let sync = self.sync(key, have).map(Answer::Opened);
                Some(sync.unwrap_or(Answer::Forgotten))
            }
            Place::Duplicate(Some(kept)) => kept.answer(),
        };
        // Who asks again through another edge is answered there.
        if known && !matches!(again, Some(Answer::OutOfOrder { .. })) {
            let moved = self.sessions.move_to(*session, edge);
            self.follow(*session, moved, edge);
        }
        effects.extend(again.map(say));
    }

    /// The next request of its session. `None` if it waits.
    fn begin(&mut self, proposal: &Proposal, effects: &mut Vec<Effect>) -> Option<Answer> {
        let Proposal {
            session,
            seq,
            edge,
            durable,
            ..
        } = proposal;
        let index = self.applied;
        if proposal.request == Request::Register {
            self.register(edge, *session, effects);
        }
        let moved = self.sessions.begin((*session, *seq), edge, *durable, index);
        self.follow(*session, moved, edge);
        Some(match &proposal.request {
            Request::Register => {
                self.sessions.set_own(*session);
                Answer::Done
            }
            Request::Open { key, kind, have } => self.open(key, *kind, *have, edge),
            Request::Close { key } => {
                self.close(key, edge, effects);
                Answer::Done
            }
            Request::EndSessions(sessions) => {
                // A session that went on elsewhere is not this edge's to end.
                let theirs = |id: &SessionId| {
                    let session = self.sessions.get(*id);
                    session
                        .is_some_and(|session| session.edge.as_ref() == Some(edge) && !session.own)
                };
                let over: BTreeSet<_> = sessions.iter().copied().filter(theirs).collect();
                // One that never asked for anything does not begin either, if it is one of
                // those that the edge counts.
                let own = self.edges.get(edge).map(|edge| edge.session.0 >> 64);
                let counted = |id: &&SessionId| {
                    let session = self.sessions.get(**id);
                    own == Some(id.0 >> 64)
                        && session.is_none_or(|session| over.contains(*id) && !session.durable)
                };
                let counted: Vec<u64> = sessions
                    .iter()
                    .filter(counted)
                    .map(|id| number_of(*id))
                    .collect();
                if let Some(edge) = self.edges.get_mut(edge) {
                    counted
                        .into_iter()
                        .for_each(|number| edge.ended.insert(number));
                }
                self.end_sessions(&over, effects);
                Answer::Done
            }
            Request::Claim {
                key,
                publication,
                token,
                above,
            } => {
                let party = Party {
                    edge: edge.clone(),
                    publication: *publication,
                    token: token.clone(),
                };
                self.claims.claim(key, party, *above, index, effects)
            }
            Request::Affirm { key, epoch } => self.claims.affirm(key, edge, *epoch, effects),
            Request::Release { key, publication } => {
                self.claims.release(key, edge, *publication, index, effects);
                Answer::Done
            }
            Request::Place { key, epoch, origin } => {
                self.claims.place(key, edge, *epoch, origin, effects)
            }
            Request::Home { at, origin } => match self.homes.settle(at, origin) {
                Ok(origin) => {
                    effects.push(Effect::Home {
                        at: at.clone(),
                        origin: Some(origin),
                    });
                    Answer::Done
                }
                Err(limit) => Answer::Full { limit },
            },
            Request::Batch { key, .. }
            | Request::Send { key, .. }
            | Request::Lock { key, .. }
            | Request::Unlock { key } => {
                return self.ask(key, (*session, *seq), edge, &proposal.request, effects);
            }
            Request::Void => Answer::Nothing,
        })
    }

    /// Whether the request is of a session that an edge numbers itself and that is over: a
    /// copy of what was applied, that was under way for too long.
    fn is_over(&self, proposal: &Proposal) -> bool {
        !proposal.durable
            && self.sessions.get(proposal.session).is_none()
            && self
                .edges
                .get(&proposal.edge)
                .is_some_and(|edge| edge.ended.contains(number_of(proposal.session)))
    }

    /// A session that is forgotten does not begin anew by what is left of it under way.
    fn mark_over(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get(id)
            && !session.durable
            && let Some(life) = &session.edge
            && let Some(edge) = self.edges.get_mut(life)
        {
            edge.ended.insert(number_of(id));
        }
    }

    /// A life of an edge begins, or says again that it lives. An earlier life of the edge
    /// ends by it.
    fn register(&mut self, life: &EdgeLife, session: SessionId, effects: &mut Vec<Effect>) {
        if let Some(edge) = self.edges.of_name(&life.edge) {
            let (old, own) = (edge.life.clone(), edge.session);
            if old != *life {
                self.lose(&old, effects);
            } else if own == session {
                return;
            } else {
                // It speaks in a new session of its own.
                self.end_sessions(&BTreeSet::from([own]), effects);
                if let Some(edge) = self.edges.get_mut(life) {
                    edge.session = session;
                }
                return;
            }
        }
        self.edges.insert(life.clone(), session);
    }

    /// A life of an edge is over: its sessions that are not durable, its interests and its
    /// claims end.
    fn lose(&mut self, life: &EdgeLife, effects: &mut Vec<Effect>) {
        effects.push(Effect::EdgeLost { edge: life.clone() });
        let Some(edge) = self.edges.get(life) else {
            return;
        };
        let dies = |id: &SessionId| self.sessions.get(*id).is_some_and(|s| !s.durable);
        let mut over: BTreeSet<_> = edge.sessions.iter().copied().filter(dies).collect();
        over.insert(edge.session);
        self.end_sessions(&over, effects);
        let Some(edge) = self.edges.remove(life) else {
            return;
        };
        for id in edge.sessions {
            self.sessions.detach(id);
        }
        for key in edge.opened {
            self.lose_interest(&key, life, effects);
        }
        self.claims.lose(life, self.applied, effects);
    }

    /// Sessions are over: what they wait for is dropped, and what they locked is free.
    fn end_sessions(&mut self, over: &BTreeSet<SessionId>, effects: &mut Vec<Effect>) {
        let mut keys = BTreeSet::new();
        for id in over {
            keys.extend(self.doors.remove(id).unwrap_or_default());
            if let Some(session) = self.sessions.remove(*id)
                && let Some(life) = &session.edge
                && let Some(edge) = self.edges.get_mut(life)
            {
                edge.sessions.remove(id);
            }
        }
        for key in keys {
            self.leave_door(&key, over, effects);
        }
    }

    /// The edges know which sessions speak through them.
    fn follow(&mut self, session: SessionId, moved: Moved, to: &EdgeLife) {
        match moved {
            Moved::No => return,
            Moved::New => {}
            Moved::From(old) => {
                if let Some(edge) = old.and_then(|old| self.edges.get_mut(&old)) {
                    edge.sessions.remove(&session);
                }
            }
        }
        if let Some(edge) = self.edges.get_mut(to) {
            edge.sessions.insert(session);
        }
    }
}

/// What a request opens, and what is known of that.
fn what_opens(request: &Request) -> Option<(&ObjectKey, Option<(Epoch, Version)>)> {
    if let Request::Open { key, have, .. } = request {
        Some((key, *have))
    } else {
        None
    }
}
