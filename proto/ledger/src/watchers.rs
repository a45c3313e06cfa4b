//! The origin's half of the conversation with edges: who is attached here, and what each
//! must be told, in the order of the log.
//!
//! Effects are sent to whom they concern and to nobody else, all of one entry in one
//! message; who is told the same is sent the same bytes. Nothing is kept for edges that are
//! not attached: who comes back says what it has and is told the difference.

mod parts;
mod recent;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::{EdgeLife, LogIndex, NodeId, StreamKey};

use self::parts::Holds;
use crate::Ledger;
use crate::command::Command;
use crate::effect::{Applied, Effect};
use crate::name::{LogName, Standing};
use crate::wire::{ToEdge, ToOrigin};

/// How long an edge may take to say who it is.
pub const HELLO_WAIT: Duration = Duration::from_secs(5);

/// How long this origin may take to catch up with what an edge has seen elsewhere. Longer
/// than an election, shorter than what the edge itself waits.
pub const CATCH_UP_WAIT: Duration = Duration::from_secs(2);

/// After this a read index is asked for again: without a leader the question is dropped.
pub const READ_AGAIN: Duration = Duration::from_millis(500);

/// Streams that one edge may follow: those of its viewers and those of its publishers.
pub const FOLLOWED_MAX: usize = 131_072;

/// Barriers that one edge may wait for: it asks for one after the other.
pub const BARRIERS_MAX: usize = 64;

/// One attachment, numbered by the shell. A number is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttachId(pub u64);

/// What the shell must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this to the edge, in order: an encoded [`ToEdge`](crate::wire::ToEdge).
    ToEdge {
        /// Which attachment.
        id: AttachId,
        /// The bytes, shared by all that are told the same.
        message: Bytes,
    },
    /// Propose this command: it is valid and in its canonical form.
    Propose(Bytes),
    /// Ask the log for a read index, and give it to
    /// [`handle_read_index`](Watchers::handle_read_index).
    ReadIndex {
        /// To be given back. Unique in this process only: make it unique in the cluster.
        ctx: u64,
    },
    /// End the attachment. [`handle_detach`](Watchers::handle_detach) need not be called.
    Refuse {
        /// Which.
        id: AttachId,
        /// Why.
        why: Refusal,
    },
}

/// Why an attachment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Here: this origin is behind what the edge has seen, for too long. Try another.
    Behind,
    /// Here: this origin was given a state and cannot say how it came about. Attach anew.
    Restored,
    /// The edge attached a second time.
    Superseded,
    /// The edge did not say who it is, or not in time.
    NotAttached,
    /// The edge said that it is another edge. (Another life of the same is fine.)
    AttachedTwice,
    /// The edge proposed what is not a command, or not in its own name.
    BadCommand,
    /// The edge asks for more than an edge may.
    TooMany,
}

/// Who is attached here, and what each must be told.
#[derive(Debug, Default)]
pub struct Watchers {
    attachments: BTreeMap<AttachId, Attachment>,
    /// What an edge said that it has, before it attaches.
    saying: BTreeMap<AttachId, Holds>,
    /// Those of them that are told of what is applied.
    attached: BTreeMap<EdgeLife, AttachId>,
    followers: BTreeMap<StreamKey, BTreeSet<AttachId>>,
    barriers: Barriers,
    recent: recent::Recent,
    applied: LogIndex,
    leader: Option<NodeId>,
    leaving: bool,
    outputs: VecDeque<Output>,
}

/// An edge's stream.
#[derive(Debug)]
enum Attachment {
    /// It has not said who it is.
    New { until: Instant },
    /// This origin is behind what the edge has seen.
    Waiting { until: Instant, hello: Hello },
    /// It is told of what is applied.
    Attached {
        edge: EdgeLife,
        follows: BTreeSet<StreamKey>,
        barriers: usize,
    },
}

/// What an edge says first.
#[derive(Debug)]
struct Hello {
    edge: EdgeLife,
    log: LogName,
    seen: LogIndex,
    holds: Holds,
}

/// Questions for how far the log has come, at most one under way.
#[derive(Debug, Default)]
struct Barriers {
    last: u64,
    asked: Vec<(AttachId, u64)>,
    reading: Option<Reading>,
    /// Those that wait for an entry to be applied here.
    settling: BTreeMap<LogIndex, Vec<(AttachId, u64)>>,
}

#[derive(Debug)]
struct Reading {
    ctx: u64,
    again: Instant,
    for_whom: Vec<(AttachId, u64)>,
}

impl Hello {
    /// How this state stands to what the edge has seen.
    fn finds(&self, ledger: &Ledger) -> Standing {
        Standing::of((ledger.name(), ledger.applied()), (self.log, self.seen))
    }
}

impl Barriers {
    /// The edge does not wait any more.
    fn forget(&mut self, id: AttachId) {
        self.asked.retain(|(who, _)| *who != id);
        if let Some(reading) = &mut self.reading {
            reading.for_whom.retain(|(who, _)| *who != id);
        }
        for waiting in self.settling.values_mut() {
            waiting.retain(|(who, _)| *who != id);
        }
    }
}

impl Watchers {
    /// Nobody is attached.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An edge opened a stream.
    pub fn handle_attach(&mut self, id: AttachId, now: Instant) {
        let until = now + HELLO_WAIT;
        self.attachments.insert(id, Attachment::New { until });
    }

    /// The stream has ended.
    pub fn handle_detach(&mut self, id: AttachId) {
        self.barriers.forget(id);
        self.saying.remove(&id);
        let edge = match self.attachments.remove(&id) {
            Some(Attachment::Attached { edge, follows, .. }) => {
                for key in follows {
                    self.no_follower(&key, id);
                }
                edge
            }
            Some(Attachment::New { .. } | Attachment::Waiting { .. }) | None => return,
        };
        if self.attached.get(&edge) == Some(&id) {
            self.attached.remove(&edge);
        }
    }

    /// The edge says something.
    pub fn handle_message(
        &mut self,
        id: AttachId,
        message: ToOrigin,
        ledger: &Ledger,
        now: Instant,
    ) {
        self.applied = ledger.applied();
        if !self.attachments.contains_key(&id) {
            // It was refused, and this was on its way.
            return;
        }
        let done = match message {
            ToOrigin::Attach {
                edge,
                log,
                seen,
                objects,
                streams,
            } => {
                let mut holds = self.saying.remove(&id).unwrap_or_default();
                holds.extend(objects, streams).and_then(|()| {
                    let hello = Hello {
                        edge,
                        log,
                        seen,
                        holds,
                    };
                    self.hello(id, hello, ledger, now)
                })
            }
            ToOrigin::Holds { objects, streams } => {
                let saying = self.saying.entry(id).or_default();
                saying.extend(objects, streams)
            }
            ToOrigin::Propose(command) => self.propose(id, command),
            ToOrigin::Barrier { id: number } => self.barrier(id, number, now),
            ToOrigin::Follow(key) => self.follow(id, key, ledger),
            ToOrigin::Unfollow(key) => self.unfollow(id, &key),
        };
        if let Err(why) = done {
            self.refuse(id, why);
        }
    }

    /// An entry was applied: to be called at once after [`Ledger::apply`].
    pub fn handle_applied(&mut self, ledger: &Ledger, applied: &Applied) {
        if !applied.effects.is_empty() {
            self.recent.push(applied);
        }
        self.tell(ledger, applied);
        self.handle_progress(ledger);
    }

    /// The ledger [went on](Ledger::skip) without effects: an entry of the log's own. What
    /// waits for it may go on.
    pub fn handle_progress(&mut self, ledger: &Ledger) {
        self.applied = ledger.applied();
        self.settle();
        self.attach_those_that_wait(ledger);
    }

    /// The ledger was replaced by one from a snapshot. What happened in between is not
    /// known here, so every edge must attach anew and be told the difference.
    pub fn handle_restored(&mut self, ledger: &Ledger) {
        self.recent.restart(ledger.applied());
        let ids: Vec<AttachId> = self.attached.values().copied().collect();
        for id in ids {
            self.refuse(id, Refusal::Restored);
        }
        self.handle_progress(ledger);
    }

    /// The log has answered a read index.
    pub fn handle_read_index(&mut self, ctx: u64, index: LogIndex, now: Instant) {
        match self.barriers.reading.take() {
            Some(reading) if reading.ctx == ctx => {
                let settling = self.barriers.settling.entry(index).or_default();
                settling.extend(reading.for_whom);
                self.settle();
                self.read(now);
            }
            // An answer to a question that was given up.
            other => self.barriers.reading = other,
        }
    }

    /// Who leads, as far as this origin knows.
    pub fn handle_leader(&mut self, leader: Option<NodeId>) {
        if self.leader != leader {
            self.leader = leader;
            self.tell_all(&ToEdge::Leader(leader));
        }
    }

    /// This origin leaves: every edge is asked to attach elsewhere.
    pub fn leaving(&mut self) {
        if !self.leaving {
            self.leaving = true;
            self.tell_all(&ToEdge::Leaving);
        }
    }

    /// The edges that are attached here: who is heard of.
    #[must_use]
    pub fn contacts(&self) -> Vec<EdgeLife> {
        self.attached.keys().cloned().collect()
    }

    /// What is due is done.
    pub fn handle_timeout(&mut self, now: Instant) {
        let late: Vec<(AttachId, Refusal)> = self
            .attachments
            .iter()
            .filter_map(|(id, attachment)| match attachment {
                Attachment::New { until } if *until <= now => Some((*id, Refusal::NotAttached)),
                Attachment::Waiting { until, .. } if *until <= now => Some((*id, Refusal::Behind)),
                Attachment::New { .. }
                | Attachment::Waiting { .. }
                | Attachment::Attached { .. } => None,
            })
            .collect();
        for (id, why) in late {
            self.refuse(id, why);
        }
        if let Some(reading) = self
            .barriers
            .reading
            .take_if(|reading| reading.again <= now)
        {
            // What has come since may share it: it is asked later than all of them.
            self.barriers.asked.splice(..0, reading.for_whom);
            self.read(now);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let waiting = self.attachments.values().filter_map(|one| match one {
            Attachment::New { until } | Attachment::Waiting { until, .. } => Some(*until),
            Attachment::Attached { .. } => None,
        });
        let reading = self.barriers.reading.as_ref().map(|reading| reading.again);
        waiting.chain(reading).min()
    }

    /// What the shell must do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    // ----- who is there

    fn refuse(&mut self, id: AttachId, why: Refusal) {
        self.handle_detach(id);
        self.outputs.push_back(Output::Refuse { id, why });
    }

    fn hello(
        &mut self,
        id: AttachId,
        hello: Hello,
        ledger: &Ledger,
        now: Instant,
    ) -> Result<(), Refusal> {
        // An edge that begins another life says so where it is.
        match self.attachments.get(&id) {
            Some(Attachment::Attached { edge, .. }) if edge.edge != hello.edge.edge => {
                return Err(Refusal::AttachedTwice);
            }
            Some(Attachment::Waiting { hello: first, .. })
                if first.edge.edge != hello.edge.edge =>
            {
                return Err(Refusal::AttachedTwice);
            }
            Some(
                Attachment::New { .. } | Attachment::Waiting { .. } | Attachment::Attached { .. },
            )
            | None => {}
        }
        self.handle_detach(id);
        let until = now + CATCH_UP_WAIT;
        let is_behind = hello.finds(ledger) == Standing::Behind;
        self.attachments
            .insert(id, Attachment::Waiting { until, hello });
        if !is_behind {
            self.attach(id, ledger);
        }
        Ok(())
    }

    fn attach_those_that_wait(&mut self, ledger: &Ledger) {
        if self.attached.len() == self.attachments.len() {
            return;
        }
        let ready: Vec<AttachId> = self
            .attachments
            .iter()
            .filter(|(_, one)| match one {
                Attachment::Waiting { hello, .. } => hello.finds(ledger) != Standing::Behind,
                Attachment::New { .. } | Attachment::Attached { .. } => false,
            })
            .map(|(id, _)| *id)
            .collect();
        for id in ready {
            self.attach(id, ledger);
        }
    }

    fn attach(&mut self, id: AttachId, ledger: &Ledger) {
        let Some(Attachment::Waiting { hello, .. }) = self.attachments.remove(&id) else {
            return;
        };
        let is_other = hello.finds(ledger) == Standing::Other;
        let Hello {
            edge, seen, holds, ..
        } = hello;
        if let Some(old) = self.attached.get(&edge).copied() {
            self.refuse(old, Refusal::Superseded);
        }
        self.attached.insert(edge.clone(), id);
        for key in &holds.streams {
            self.followers.entry(key.clone()).or_default().insert(id);
        }
        let follows: BTreeSet<StreamKey> = holds.streams.iter().cloned().collect();
        // What was seen of another log says nothing of this one.
        let missed = (!is_other).then(|| self.missed(&edge, seen, &follows, ledger));
        let missed = missed.flatten();
        let known = !is_other && ledger.knows(&edge);
        self.attachments.insert(
            id,
            Attachment::Attached {
                edge: edge.clone(),
                follows,
                barriers: 0,
            },
        );
        match missed {
            Some(missed) => {
                self.send(id, &ToEdge::Resumed { index: seen });
                for applied in missed {
                    for message in parts::applied(applied) {
                        self.outputs.push_back(Output::ToEdge { id, message });
                    }
                }
            }
            None => {
                for message in parts::attached(ledger, &edge, known, &holds) {
                    self.send(id, &message);
                }
            }
        }
        self.send(id, &ToEdge::Leader(self.leader));
        if self.leaving {
            self.send(id, &ToEdge::Leaving);
        }
    }

    /// What concerns the edge of what was applied behind what it has seen, if all of it is
    /// remembered. An edge that this state does not know is told the state.
    fn missed(
        &self,
        edge: &EdgeLife,
        seen: LogIndex,
        follows: &BTreeSet<StreamKey>,
        ledger: &Ledger,
    ) -> Option<Vec<Applied>> {
        if seen == LogIndex(0) || !ledger.knows(edge) {
            return None;
        }
        let concerns = |effect: &Effect| match effect {
            Effect::Answer { to, .. }
            | Effect::Challenge { to, .. }
            | Effect::Claim { to, .. }
            | Effect::EdgeLost { edge: to } => to == edge,
            // Of an object that it has opened or closed meanwhile it hears in the answers.
            Effect::Object { key, .. } => ledger.has_open(key, edge),
            Effect::Stream { key, .. } => follows.contains(key),
            Effect::Locked { .. } | Effect::Unlocked { .. } | Effect::Home { .. } => false,
        };
        let missed = self.recent.since(seen)?.filter_map(|applied| {
            let effects: Vec<Effect> = applied
                .effects
                .iter()
                .filter(|effect| concerns(effect))
                .cloned()
                .collect();
            (!effects.is_empty()).then(|| Applied {
                index: applied.index,
                trace: applied.trace.clone(),
                effects,
            })
        });
        Some(missed.collect())
    }

    // ----- what they ask

    fn propose(&mut self, id: AttachId, command: Bytes) -> Result<(), Refusal> {
        let Some(Attachment::Attached { edge, .. }) = self.attachments.get(&id) else {
            return Err(Refusal::NotAttached);
        };
        // What stands in the log must be valid, and an edge speaks for itself only.
        match Command::decode(&command) {
            Ok(Command::Propose(proposal)) if proposal.edge == *edge => {
                self.outputs.push_back(Output::Propose(command));
                Ok(())
            }
            Ok(_) | Err(_) => Err(Refusal::BadCommand),
        }
    }

    fn barrier(&mut self, id: AttachId, number: u64, now: Instant) -> Result<(), Refusal> {
        let Some(Attachment::Attached { barriers, .. }) = self.attachments.get_mut(&id) else {
            return Err(Refusal::NotAttached);
        };
        if *barriers >= BARRIERS_MAX {
            return Err(Refusal::TooMany);
        }
        *barriers += 1;
        self.barriers.asked.push((id, number));
        self.read(now);
        Ok(())
    }

    fn follow(&mut self, id: AttachId, key: StreamKey, ledger: &Ledger) -> Result<(), Refusal> {
        match self.attachments.get_mut(&id) {
            Some(Attachment::Attached { follows, .. }) => {
                if follows.len() >= FOLLOWED_MAX {
                    return Err(Refusal::TooMany);
                }
                follows.insert(key.clone());
                self.followers.entry(key.clone()).or_default().insert(id);
                let state = ledger.stream(&key);
                self.send(id, &ToEdge::Stream { key, state });
                Ok(())
            }
            Some(Attachment::Waiting { hello, .. }) => {
                if hello.holds.streams.len() >= FOLLOWED_MAX {
                    return Err(Refusal::TooMany);
                }
                if !hello.holds.streams.contains(&key) {
                    hello.holds.streams.push(key);
                }
                Ok(())
            }
            Some(Attachment::New { .. }) | None => Err(Refusal::NotAttached),
        }
    }

    fn unfollow(&mut self, id: AttachId, key: &StreamKey) -> Result<(), Refusal> {
        match self.attachments.get_mut(&id) {
            Some(Attachment::Attached { follows, .. }) => {
                follows.remove(key);
                self.no_follower(key, id);
                Ok(())
            }
            Some(Attachment::Waiting { hello, .. }) => {
                hello.holds.streams.retain(|other| other != key);
                Ok(())
            }
            Some(Attachment::New { .. }) | None => Err(Refusal::NotAttached),
        }
    }

    fn no_follower(&mut self, key: &StreamKey, id: AttachId) {
        if let Some(followers) = self.followers.get_mut(key) {
            followers.remove(&id);
            if followers.is_empty() {
                self.followers.remove(key);
            }
        }
    }

    // ----- how far the log has come

    /// Asks for all that have come since the last question.
    fn read(&mut self, now: Instant) {
        if self.barriers.reading.is_some() || self.barriers.asked.is_empty() {
            return;
        }
        self.barriers.last += 1;
        let ctx = self.barriers.last;
        self.barriers.reading = Some(Reading {
            ctx,
            again: now + READ_AGAIN,
            for_whom: std::mem::take(&mut self.barriers.asked),
        });
        self.outputs.push_back(Output::ReadIndex { ctx });
    }

    /// Answers the barriers whose entry is applied.
    fn settle(&mut self) {
        while let Some(entry) = self.barriers.settling.first_entry()
            && *entry.key() <= self.applied
        {
            for (id, number) in entry.remove() {
                if let Some(Attachment::Attached { barriers, .. }) = self.attachments.get_mut(&id) {
                    *barriers = barriers.saturating_sub(1);
                    self.send(id, &ToEdge::Barrier { id: number });
                }
            }
        }
    }

    // ----- what they are told

    fn tell(&mut self, ledger: &Ledger, applied: &Applied) {
        let mut concerned: BTreeMap<AttachId, Vec<usize>> = BTreeMap::new();
        for (place, effect) in applied.effects.iter().enumerate() {
            let mut concern = |id: AttachId| concerned.entry(id).or_default().push(place);
            match effect {
                Effect::Answer { to, .. }
                | Effect::Challenge { to, .. }
                | Effect::Claim { to, .. }
                | Effect::EdgeLost { edge: to } => {
                    self.attached.get(to).copied().map(&mut concern);
                }
                Effect::Object { key, .. } => ledger
                    .opened_by(key)
                    .filter_map(|edge| self.attached.get(edge).copied())
                    .for_each(&mut concern),
                Effect::Stream { key, .. } => self
                    .followers
                    .get(key)
                    .into_iter()
                    .flatten()
                    .copied()
                    .for_each(&mut concern),
                Effect::Locked { .. } | Effect::Unlocked { .. } | Effect::Home { .. } => {}
            }
        }
        let mut alike: BTreeMap<Vec<usize>, Vec<AttachId>> = BTreeMap::new();
        for (id, places) in concerned {
            alike.entry(places).or_default().push(id);
        }
        for (places, ids) in alike {
            let effects = places
                .iter()
                .filter_map(|place| applied.effects.get(*place).cloned())
                .collect();
            let messages = parts::applied(Applied {
                index: applied.index,
                trace: applied.trace.clone(),
                effects,
            });
            for id in ids {
                for message in messages.iter().cloned() {
                    self.outputs.push_back(Output::ToEdge { id, message });
                }
            }
        }
    }

    fn tell_all(&mut self, message: &ToEdge) {
        let message = message.encode();
        for id in self.attached.values() {
            let (id, message) = (*id, message.clone());
            self.outputs.push_back(Output::ToEdge { id, message });
        }
    }

    fn send(&mut self, id: AttachId, message: &ToEdge) {
        let message = message.encode();
        self.outputs.push_back(Output::ToEdge { id, message });
    }
}
