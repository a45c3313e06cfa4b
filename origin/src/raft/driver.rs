//! The task that owns the member: everything that happens to it happens here, one after
//! another, and what it wants done is given to the log's thread, the peers and the edges.
//!
//! It takes whatever waits before it looks at the outputs, so that under load one write
//! serves many proposals.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use consensus::{Role, Ticket};
use fabric::v1;
use ledger::Effect;
use ledger::watchers::{AttachId, Refusal};
use member::{Member, Output, about};
use model::NodeId;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tonic::Status;

use super::commits::Commits;
use super::desk::{Change, Changed, Desk, Input, Refused};
use super::patience::Patience;
use super::peers::{Peers, SnapshotSent};
use super::queue::{End, Queue};
use super::traces::Traces;
use super::{Error, gone, record, removal, roster};
use crate::hub::Hub;
use crate::log::worker::{Done, Job, Worker};
use crate::log::{Log, Snapshot};

/// Inputs that are taken before the outputs are looked at.
const INPUTS_MAX: usize = 256;

/// What became of the member's lead, and how it stands to the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lead {
    /// Who leads, as far as this origin knows.
    pub leader: Option<NodeId>,
    /// Whether it is this one.
    pub here: bool,
    /// Whether it can be counted on.
    pub standing: Standing,
}

/// Whether an origin can be counted on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It has not come to a cluster yet.
    #[default]
    Outside,
    /// It was removed.
    Removed,
    /// It is told everything and does not vote.
    Learning,
    /// It votes, and has not applied what was decided lately, as far as can be told: with
    /// nobody to lead it cannot.
    Behind,
    /// It votes, and has applied what was decided lately.
    Level,
}

/// Why a driver has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was told to.
    Told,
    /// This member was removed.
    Removed,
}

pub(super) struct Driver {
    pub(super) member: Member,
    pub(super) membership: consensus::Membership,
    pub(super) node: NodeId,
    pub(super) desk: Desk,
    pub(super) inputs: mpsc::Receiver<Input>,
    pub(super) worker: Worker<Ticket>,
    pub(super) done: mpsc::UnboundedReceiver<Done<Ticket>>,
    pub(super) peers: Peers,
    pub(super) sent: mpsc::UnboundedReceiver<SnapshotSent>,
    pub(super) hub: Arc<Hub>,
    pub(super) lead: watch::Sender<Lead>,
    pub(super) edges: BTreeMap<AttachId, Queue>,
    pub(super) changes: Vec<Pending>,
    pub(super) disowned: bool,
    pub(super) disk: Patience,
    pub(super) traces: Traces,
    pub(super) commits: Commits,
}

/// A change that was proposed and is not decided.
pub(super) struct Pending {
    goal: Goal,
    answer: oneshot::Sender<Result<Changed, Refused>>,
}

enum Goal {
    In(NodeId),
    /// All of them, and what is answered then.
    Out(BTreeSet<NodeId>, Vec<v1::Removed>),
}

impl Driver {
    /// Runs until `stop`, or until this member is removed. Gives the log back, unless it failed.
    pub(super) async fn run(
        mut self,
        stop: impl Future<Output = Ended>,
    ) -> Result<(Ended, Option<Log>), Error> {
        tokio::pin!(stop);
        let ledger = self.member.ledger();
        self.hub
            .ledger_restored(ledger.applied(), ledger.streams(), now());
        self.membership(self.membership.clone());
        self.carry_out();
        let mut batch = Vec::with_capacity(INPUTS_MAX);
        let ended = loop {
            let deadline = Instant::from_std(self.member.deadline());
            tokio::select! {
                ended = &mut stop => break Ok(ended),
                Some(done) = self.done.recv() => {
                    self.traces.begin();
                    if let Err(error) = self.done(done) {
                        break Err(error);
                    }
                }
                count = self.inputs.recv_many(&mut batch, INPUTS_MAX) => {
                    if count == 0 {
                        break Ok(Ended::Told);
                    }
                    self.traces.begin();
                    for input in batch.drain(..) {
                        self.input(input);
                    }
                }
                Some(sent) = self.sent.recv() => {
                    // Another one may have taken its place meanwhile.
                    if self.peers.is_last(&sent) {
                        self.member.handle_snapshot_sent(sent.to, sent.arrived);
                    }
                }
                () = tokio::time::sleep_until(deadline) => {
                    self.traces.begin();
                    self.member.handle_timeout(now());
                    self.hub.expire(now());
                }
            }
            if self.disk.look(self.worker.appending(), Instant::now()) {
                break Err(Error::Hung(self.disk.limit()));
            }
            self.carry_out();
            if self.membership.removed.contains(&self.node) && !self.membership.has(self.node) {
                break Ok(Ended::Removed);
            }
            self.tell_standing();
        };
        for queue in self.edges.values() {
            queue.end(End::Broken(super::desk::gone()));
        }
        let worker = self.worker;
        if let Err(Error::Hung(_)) = ended {
            worker.desert();
            return Err(ended.err().unwrap_or(Error::Unknown));
        }
        // The thread may be at a sync, which takes as long as it takes.
        let log = tokio::task::spawn_blocking(move || worker.finish()).await;
        ended.map(|ended| (ended, log.ok().flatten()))
    }

    fn tell_standing(&mut self) {
        let level = self.member.is_level();
        let standing = match (self.membership.is_voter(self.node), level) {
            (true, true) => Standing::Level,
            (true, false) => Standing::Behind,
            (false, _) => Standing::Learning,
        };
        self.lead.send_if_modified(|lead| {
            let changed = lead.standing != standing;
            lead.standing = standing;
            changed
        });
    }

    fn done(&mut self, done: Done<Ticket>) -> Result<(), Error> {
        match done {
            Done::Written { ticket, began } => {
                self.traces.written(ticket, began);
                self.member.handle_persisted(ticket, now());
            }
            Done::Saved { index } => {
                tracing::info!(index, "state saved");
                self.member.handle_snapshot_saved(model::LogIndex(index));
            }
            Done::Failed(error) => return Err(Error::Log(error)),
        }
        Ok(())
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Peer {
                from,
                messages,
                fault,
            } => {
                for message in messages {
                    if let Err(error) = self.member.handle_peer(from, &message, now()) {
                        if matches!(error, member::Error::NotMe(_)) {
                            self.disown();
                        }
                        tracing::warn!(%from, %error, "messages of origin refused");
                        // One word is enough; the others of the stream are dropped with it.
                        let _ = fault.try_send(Status::invalid_argument(error.to_string()));
                        break;
                    }
                }
            }
            Input::Snapshot {
                from,
                message,
                contents,
                answer,
            } => {
                let bytes = contents.len();
                tracing::info!(%from, bytes, "a state arrived");
                let taken = self
                    .member
                    .handle_snapshot(from, &message, &contents, now())
                    .map_err(|error| {
                        tracing::warn!(%from, %error, "the state is refused");
                        Status::invalid_argument(error.to_string())
                    });
                let _ = answer.send(taken);
            }
            Input::Attach { attach, queue } => {
                self.edges.insert(attach, queue);
                self.member.handle_attach(attach, now());
            }
            Input::Edge { attach, messages } => {
                if !self.edges.contains_key(&attach) {
                    return;
                }
                let lead = *self.lead.borrow();
                for message in messages {
                    self.traces.heard(attach, &message, lead);
                    if let Err(error) = self.member.handle_edge(attach, message, now()) {
                        tracing::warn!(attach = attach.0, %error, "message of an edge refused");
                        self.detach(attach, Status::invalid_argument(error.to_string()));
                        break;
                    }
                }
            }
            Input::Detach { attach } => {
                if self.edges.remove(&attach).is_some() {
                    self.traces.detached(attach);
                    self.member.handle_detach(attach);
                }
            }
            Input::Status { digest, answer } => {
                let mut status = self.status();
                if digest {
                    status.digest = format!("{:032x}", self.member.digest());
                }
                let _ = answer.send(status);
            }
            Input::Streams { max, answer } => {
                let streams = self.member.ledger().streams();
                let held = streams.filter(|(_, state)| state.holder.is_some());
                let named = held.map(|(key, state)| (key.clone(), state));
                let _ = answer.send(named.take(max).collect());
            }
            Input::Change { change, answer } => self.change(change, answer),
            Input::Leave => self.member.start_leaving(),
        }
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.member.poll_output() {
            match output {
                Output::ToPeer { to, message } => {
                    if !self.peers.send(to, message) {
                        self.member.handle_unreachable(to);
                    }
                }
                Output::SnapshotToPeer {
                    to,
                    message,
                    contents,
                    index,
                } => self.peers.send_snapshot(to, message, index.0, contents),
                Output::Persist {
                    ticket,
                    write,
                    contents,
                } => {
                    let lead = *self.lead.borrow();
                    self.traces.persist(ticket, &write, lead);
                    self.commits.given(&write.entries, lead.here, now());
                    let write = record::write(&write, contents);
                    self.worker.give(Job::Write { ticket, write });
                }
                Output::SaveSnapshot {
                    index,
                    term,
                    contents,
                    ..
                } => self.worker.give(Job::Save(Snapshot {
                    index: index.0,
                    term,
                    data: contents,
                })),
                // The log keeps what its older state needs, which is more.
                Output::Compacted { .. } => {}
                Output::ToEdge { attach, message } => self.tell_edge(attach, message),
                Output::RefuseEdge { attach, why } => {
                    tracing::info!(attach = attach.0, ?why, "edge detached");
                    self.traces.detached(attach);
                    if let Some(queue) = self.edges.remove(&attach) {
                        queue.end(End::Broken(refusal(why)));
                    }
                }
                Output::Applied(applied) => {
                    self.traces.applied(&applied);
                    self.commits.applied(&applied, now());
                    for effect in &applied.effects {
                        if let Effect::Stream { key, state } = effect {
                            self.hub.ledger_says(key, state, now());
                        }
                    }
                    self.hub.ledger_reached(applied.index);
                }
                Output::Restored { index } => {
                    tracing::info!(%index, "the state was replaced by the leader's");
                    self.hub
                        .ledger_restored(index, self.member.ledger().streams(), now());
                }
                Output::Membership(membership) => self.membership(membership),
                Output::Role { role, term, leader } => self.role(role, term, leader),
            }
        }
        self.traces.end(*self.lead.borrow());
    }

    fn disown(&mut self) {
        if !std::mem::replace(&mut self.disowned, true) {
            tracing::error!(
                node = %self.node,
                "the cluster knows this origin's number with another data folder: \
                 empty this one, and the origin joins anew"
            );
        }
    }

    fn tell_edge(&mut self, attach: AttachId, message: Bytes) {
        let Some(queue) = self.edges.get(&attach) else {
            return;
        };
        if queue.push(message).is_err() {
            tracing::warn!(attach = attach.0, "edge does not read, and is detached");
            let status = Status::resource_exhausted("the edge does not read what it is told");
            self.detach(attach, status);
        }
    }

    fn detach(&mut self, attach: AttachId, status: Status) {
        if let Some(queue) = self.edges.remove(&attach) {
            queue.end(End::Broken(status));
            self.traces.detached(attach);
            self.member.handle_detach(attach);
        }
    }

    fn role(&mut self, role: Role, term: u64, leader: Option<NodeId>) {
        let leads = leader.map(|leader| leader.to_string()).unwrap_or_default();
        match role {
            Role::Leader => tracing::info!(node = %self.node, term, "leader"),
            Role::Follower => tracing::info!(node = %self.node, term, leader = leads, "follower"),
            Role::PreCandidate | Role::Candidate => {
                tracing::info!(node = %self.node, term, "candidate");
            }
        }
        let here = role == Role::Leader;
        self.lead.send_modify(|lead| {
            lead.leader = leader;
            lead.here = here;
        });
        if !here {
            self.commits.follow();
            for pending in self.changes.drain(..) {
                let status = Status::unavailable("the lead was lost before it was decided");
                let _ = pending.answer.send(Err(Refused::Status(status)));
            }
        }
    }

    fn membership(&mut self, membership: consensus::Membership) {
        let known: BTreeMap<_, _> = membership
            .about
            .iter()
            .map(|(id, about)| (*id, about::read(&about.text)))
            .collect();
        let numbers = |ids: &std::collections::BTreeSet<NodeId>| {
            ids.iter()
                .map(NodeId::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        };
        tracing::info!(
            voters = numbers(&membership.voters),
            learners = numbers(&membership.learners),
            "membership"
        );
        let addresses = known
            .iter()
            .map(|(id, (_, address))| (*id, (*address).to_owned()));
        self.desk.book().members(addresses);
        self.peers.retain(|id| membership.has(id));
        self.membership = membership;
        self.answer_changes();
    }

    /// Answers those whose change is made.
    fn answer_changes(&mut self) {
        let membership = &self.membership;
        let reached = |goal: &Goal| match goal {
            Goal::In(id) => membership.has(*id),
            Goal::Out(ids, _) => !ids.iter().any(|id| membership.has(*id)),
        };
        for Pending { goal, answer } in self.changes.extract_if(.., |one| reached(&one.goal)) {
            let changed = match goal {
                Goal::In(id) => Changed::Added(v1::AddReply {
                    members: roster(membership),
                    cluster: self.desk.cluster(),
                    node: id.0.get(),
                }),
                Goal::Out(_, removed) => Changed::Removed(v1::RemoveReply { removed }),
            };
            let _ = answer.send(Ok(changed));
        }
    }

    fn status(&self) -> v1::ClusterStatus {
        let status = self.member.status();
        let mut members = roster(&status.log.membership);
        for member in &mut members {
            let peer = |peer: &&consensus::Peer| peer.id.0.get() == member.node;
            if let Some(peer) = status.log.peers.iter().find(peer) {
                member.matched = peer.matched.0;
                member.active = peer.active;
            } else if member.node == self.node.0.get() {
                member.matched = status.log.last.0;
                member.active = true;
            }
        }
        v1::ClusterStatus {
            node: self.node.0.get(),
            leader: status.log.leader.map_or(0, |leader| leader.0.get()),
            term: status.log.term,
            last: status.log.last.0,
            committed: status.log.commit.0,
            applied: status.log.applied.0,
            members,
            departed: gone(&status.log.membership),
            counts: Some(counts(self.member.ledger().counts())),
            queued: status.waiting as u64,
            attached: self.edges.len() as u64,
            ..v1::ClusterStatus::default()
        }
    }

    fn change(&mut self, change: Change, answer: oneshot::Sender<Result<Changed, Refused>>) {
        let goal = match self.propose(change) {
            Ok(Some(goal)) => goal,
            Ok(None) => {
                let _ = answer.send(Ok(Changed::Asked));
                return;
            }
            Err(refused) => {
                let _ = answer.send(Err(refused));
                return;
            }
        };
        self.changes.push(Pending { goal, answer });
        // It may be made already.
        self.answer_changes();
    }

    fn remove(&mut self, request: &v1::RemoveRequest) -> Result<Goal, Refused> {
        let status = self.member.status().log;
        if status.role != Role::Leader {
            return Err(consensus::Error::NotLeader(status.leader).into());
        }
        let active = |id: NodeId| {
            let mut peers = status.peers.iter();
            let peer = peers.find(|peer| peer.id == id && peer.active);
            peer.map(|peer| peer.matched.0)
        };
        let known = removal::Known {
            me: self.node,
            membership: &status.membership,
            active: &active,
        };
        let plan = removal::plan(&known, &request.origins, request.force);
        match plan.map_err(Refused::Status)? {
            removal::Plan::HandOver(next) => {
                self.member.transfer_leadership(Some(next))?;
                let why = format!("node {} hands the lead over to {next} first", self.node);
                Err(Refused::Status(Status::unavailable(why)))
            }
            removal::Plan::Remove(leaving, told) => {
                let steps: Vec<_> = leaving
                    .iter()
                    .map(|id| consensus::Change::Remove { id: *id })
                    .collect();
                if !steps.is_empty() {
                    self.member.propose_membership(&steps)?;
                    tracing::info!(?leaving, "origins are being removed");
                }
                Ok(Goal::Out(leaving, told))
            }
        }
    }

    fn propose(&mut self, change: Change) -> Result<Option<Goal>, Refused> {
        use consensus::Change as Step;
        match change {
            Change::Transfer(to) => {
                self.member.transfer_leadership(to)?;
                Ok(None)
            }
            Change::Remove(request) => self.remove(&request).map(Some),
            Change::Add(request) => {
                let status = self.member.status().log;
                if status.role != Role::Leader {
                    return Err(consensus::Error::NotLeader(status.leader).into());
                }
                let membership = status.membership;
                let mut steps = Vec::new();
                for (id, about) in &membership.about {
                    if about::read(&about.text).0 != request.name {
                        continue;
                    }
                    if about.stamp == request.stamp {
                        return Ok(Some(Goal::In(*id)));
                    }
                    // It has lost its folder, and what it had promised.
                    steps.push(Step::Remove { id: *id });
                }
                let used = membership.about.keys().chain(&membership.removed);
                let next = used.map(|id| id.0.get()).max().unwrap_or(0) + 1;
                let number = std::num::NonZeroU64::new(request.node)
                    .or(std::num::NonZeroU64::new(next))
                    .unwrap_or(std::num::NonZeroU64::MIN);
                let id = NodeId(number);
                let about = about::write(request.stamp, &request.name, &request.address);
                steps.push(Step::AddLearner { id, about });
                self.member.propose_membership(&steps)?;
                tracing::info!(%id, name = request.name, "origin is being added");
                Ok(Some(Goal::In(id)))
            }
        }
    }
}

impl From<consensus::Error> for Refused {
    fn from(error: consensus::Error) -> Self {
        let text = error.to_string();
        match error {
            consensus::Error::NotLeader(Some(leader)) => Self::Leads(leader),
            consensus::Error::NotLeader(None)
            | consensus::Error::NoLeader
            | consensus::Error::Busy
            | consensus::Error::Membership(consensus::Refusal::Pending) => {
                Self::Status(Status::unavailable(text))
            }
            consensus::Error::Size(_)
            | consensus::Error::Membership(_)
            | consensus::Error::Misbehaved(..) => Self::Status(Status::failed_precondition(text)),
        }
    }
}

fn refusal(why: Refusal) -> Status {
    match why {
        Refusal::Behind => Status::unavailable("this origin is behind what the edge has seen"),
        Refusal::Restored => Status::unavailable("this origin was given a state: attach anew"),
        Refusal::Superseded => Status::aborted("the edge attached a second time"),
        Refusal::NotAttached => Status::failed_precondition("the first message must be Attach"),
        Refusal::AttachedTwice => Status::failed_precondition("a second Attach"),
        Refusal::BadCommand => {
            Status::invalid_argument("what was proposed is no command of this edge")
        }
        Refusal::TooMany => Status::resource_exhausted("more than an edge may ask for"),
    }
}

fn counts(counts: ledger::Counts) -> v1::Counts {
    v1::Counts {
        edges: counts.edges as u64,
        sessions: counts.sessions as u64,
        objects: counts.objects as u64,
        object_bytes: counts.object_bytes as u64,
        streams: counts.streams as u64,
        instances: counts.instances as u64,
    }
}

/// The time as tokio sees it, which tests can stop.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}
