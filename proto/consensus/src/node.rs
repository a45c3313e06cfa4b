//! One node of the log.

mod steps;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::{LogIndex, NodeId};
use raft::eraftpb::{self, MessageType};
use raft::{Config, RawNode, ReadOnlyOption, SnapshotStatus, StateRole};

use crate::check::{self, Hearer, Verdict};
use crate::error::{Error, Misbehaviour, RestoreError};
use crate::limits::{
    APPEND_BYTES, APPLY_BYTES, ENTRY_BYTES_MAX, INFLIGHT_MAX, MESSAGE_ENTRIES_MAX,
    UNCOMMITTED_BYTES,
};
use crate::log::Log;
use crate::membership::{Change, Membership, Refusal, encode_changes};
use crate::output::{Entry, Output, Peer, Progress, Role, SnapshotMeta, Status, Ticket};
use crate::setup::{Restored, Setup};
use steps::Writing;

/// One node of the log. The crate's manual says how it is driven.
pub struct Node {
    raft: RawNode<Log>,
    id: NodeId,
    seed: u64,
    tick: Duration,
    next_tick: Instant,
    election_ticks: usize,
    /// How often this node has asked to be elected.
    attempts: u64,
    ticks: u64,
    /// At which tick each member was last heard of.
    heard: BTreeMap<NodeId, u64>,
    outputs: VecDeque<Output>,
    tickets: u64,
    /// What was asked to be written and waits to be acknowledged, oldest first.
    writing: VecDeque<Writing>,
    /// Decided entries that are not handed on yet.
    decided: VecDeque<Entry>,
    /// Up to here it is on the disk that entries are decided, or will be before the next
    /// change of the membership takes effect.
    durable_commit: u64,
    /// A snapshot whose state is being written. Nothing else happens meanwhile.
    restoring: Option<SnapshotMeta>,
    /// Questions that a majority has answered, by what must be applied first.
    reads: BTreeSet<(u64, u64)>,
    told: (Role, u64, Option<NodeId>),
}

impl Node {
    /// A node as its disk remembers it.
    ///
    /// # Errors
    /// The disk does not hold what was written to it, or the times do not fit together.
    pub fn new(setup: &Setup, restored: Restored, now: Instant) -> Result<Self, RestoreError> {
        let log = Log::new(restored)?;
        let applied = log.applied().index.0;
        let durable_commit = log.hard_state().commit.0;
        let heartbeat_tick = setup.ticks(setup.heartbeat);
        let election_tick = setup.ticks(setup.election);
        if election_tick <= 2 * heartbeat_tick || election_tick > usize::from(u16::MAX) {
            return Err(RestoreError::Setup);
        }
        let config = Config {
            id: setup.id.0.get(),
            election_tick,
            heartbeat_tick,
            applied,
            max_size_per_msg: APPEND_BYTES as u64,
            max_inflight_msgs: INFLIGHT_MAX,
            // A leader without a majority stops, and a node that was away disturbs nobody.
            check_quorum: true,
            pre_vote: true,
            // Reads must not depend on clocks.
            read_only_option: ReadOnlyOption::Safe,
            // Messages that were closed because they are full would be glued together again,
            // without any bound. Whoever has many proposals hands them over at once.
            batch_append: false,
            max_uncommitted_size: UNCOMMITTED_BYTES as u64,
            max_committed_size_per_ready: APPLY_BYTES as u64,
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raft = RawNode::new(&config, log, &logger).map_err(|_| RestoreError::Number)?;
        let mut node = Self {
            raft,
            id: setup.id,
            seed: setup.seed,
            tick: setup.tick,
            next_tick: now + setup.tick,
            election_ticks: election_tick,
            attempts: 0,
            ticks: 0,
            heard: BTreeMap::new(),
            outputs: VecDeque::new(),
            tickets: 0,
            writing: VecDeque::new(),
            decided: VecDeque::new(),
            durable_commit,
            restoring: None,
            reads: BTreeSet::new(),
            told: (Role::Follower, 0, None),
        };
        node.settle();
        Ok(node)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.next_tick
    }

    /// Time passes. However late it comes, it counts as one tick: a process that was stopped
    /// hears what was said meanwhile before it thinks that nobody spoke.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now < self.next_tick {
            return;
        }
        self.ticks += 1;
        self.next_tick += self.tick;
        if self.next_tick <= now {
            self.next_tick = now + self.tick;
        }
        if self.restoring.is_some() {
            return;
        }
        let raft = &self.raft.raft;
        let elects = raft.state != StateRole::Leader
            && raft.election_elapsed + 1 >= raft.randomized_election_timeout();
        if elects {
            if !self.settled() {
                // raft's leader begins with a log that is written; a node whose disk is stuck
                // had better not lead.
                return;
            }
            self.attempts += 1;
        }
        self.raft.tick();
        self.settle();
    }

    /// What another node sent with [`Output::Send`].
    ///
    /// # Errors
    /// [`Error::Misbehaved`]: nothing of ours sends this. Nothing has changed.
    pub fn handle_message(&mut self, from: NodeId, message: &[u8]) -> Result<(), Error> {
        self.handle(from, message, None).map(|_| ())
    }

    /// What another node sent with [`Output::SendSnapshot`], after the state has arrived,
    /// which includes everything up to `index`. Says whether the state is used: then [`Output::Restore`] follows when the snapshot is
    /// written. If not, it is not needed any more.
    ///
    /// # Errors
    /// [`Error::Misbehaved`]: nothing of ours sends this. Nothing has changed.
    pub fn handle_snapshot(
        &mut self,
        from: NodeId,
        message: &[u8],
        index: LogIndex,
    ) -> Result<bool, Error> {
        self.handle(from, message, Some(index))
    }

    fn handle(
        &mut self,
        from: NodeId,
        message: &[u8],
        snapshot: Option<LogIndex>,
    ) -> Result<bool, Error> {
        let blame = |what| Error::Misbehaved(from, what);
        let message = check::decode(message).map_err(blame)?;
        let meta = message.snapshot.as_ref().and_then(|s| s.metadata.as_ref());
        if snapshot != meta.map(|meta| LogIndex(meta.index)) {
            return Err(blame(Misbehaviour::Snapshot));
        }
        let raft = &self.raft.raft;
        let matched = |id| raft.prs().get(id).map(|progress| progress.matched);
        let hearer = Hearer {
            id: self.id,
            role: raft.state,
            term: raft.term,
            leader: raft.leader_id,
            last: raft.raft_log.last_index(),
            membership: &raft.store().applied().membership,
            settled: self.settled(),
            reads: raft.read_only.pending_read_count(),
            matched: &matched,
        };
        let verdict = check::check(&hearer, from, &message).map_err(blame)?;
        if self.membership().has(from) {
            self.heard.insert(from, self.ticks);
        }
        if self.restoring.is_some() {
            // raft cannot do anything while a state is being written.
            return Ok(false);
        }
        match verdict {
            Verdict::Step => {
                // What raft refuses it only does not want: a member that has left, a proposal
                // that comes too early.
                let _ = self.raft.step(message);
            }
            Verdict::Drop => {}
        }
        self.settle();
        Ok(self.restoring.is_some())
    }

    /// Proposes an entry; a follower hands it on to the leader. It can be lost on its way:
    /// whoever wants it asks again until it is applied.
    ///
    /// # Errors
    /// [`Error::NoLeader`], [`Error::Busy`] or [`Error::Size`]: it was handed to nobody.
    pub fn handle_proposal(&mut self, data: Bytes) -> Result<(), Error> {
        self.handle_proposals([data])
    }

    /// Proposes entries that follow each other.
    ///
    /// # Errors
    /// Like [`handle_proposal`](Self::handle_proposal). [`Error::Size`] means none was
    /// proposed; otherwise those at the beginning may have been.
    pub fn handle_proposals(
        &mut self,
        batch: impl IntoIterator<Item = Bytes>,
    ) -> Result<(), Error> {
        let batch: Vec<Bytes> = batch.into_iter().collect();
        let wrong = |data: &&Bytes| data.is_empty() || data.len() > ENTRY_BYTES_MAX;
        if let Some(wrong) = batch.iter().find(wrong) {
            return Err(Error::Size(wrong.len()));
        }
        if self.restoring.is_some() || self.raft.raft.leader_id == raft::INVALID_ID {
            return Err(Error::NoLeader);
        }
        let mut rest = batch.into_iter().peekable();
        let mut result = Ok(());
        while rest.peek().is_some() && result.is_ok() {
            let mut message = self.to_self(MessageType::MsgPropose);
            let mut bytes = 0;
            while let Some(data) = rest.next_if(|data| {
                bytes == 0
                    || bytes + data.len() <= APPEND_BYTES
                        && message.entries.len() < MESSAGE_ENTRIES_MAX
            }) {
                bytes += data.len();
                message.entries.push(eraftpb::Entry {
                    data: data.into(),
                    ..eraftpb::Entry::default()
                });
            }
            result = self.raft.raft.step(message).map_err(|_| Error::Busy);
        }
        self.settle();
        result
    }

    /// Asks when the state includes everything that was acknowledged anywhere until now:
    /// [`Output::ReadReady`] tells. The question can be lost; ask again with another number.
    ///
    /// # Errors
    /// [`Error::NoLeader`]: it was asked of nobody. [`Error::Busy`]: the leader has only
    /// begun, or too many ask.
    pub fn handle_read(&mut self, ctx: u64) -> Result<(), Error> {
        let raft = &self.raft.raft;
        if self.restoring.is_some() || raft.leader_id == raft::INVALID_ID {
            return Err(Error::NoLeader);
        }
        let leads = raft.state == StateRole::Leader;
        let full = raft.read_only.pending_read_count() >= crate::limits::READS_MAX;
        if leads && (full || !raft.commit_to_current_term()) {
            return Err(Error::Busy);
        }
        self.raft
            .read_index(check::write_context(self.id, self.seed, ctx));
        self.settle();
        Ok(())
    }

    /// Everything up to this ticket is on the disk.
    pub fn handle_persisted(&mut self, ticket: Ticket) {
        let mut messages = Vec::new();
        let mut number = None;
        while let Some(first) = self.writing.front() {
            // What needs no disk only waits for what was before it.
            if first.ticket > ticket && first.must_sync {
                break;
            }
            let Some(written) = self.writing.pop_front() else {
                break;
            };
            messages.extend(written.messages);
            number = Some(written.number);
            if written.ticket <= ticket {
                self.durable_commit = self.durable_commit.max(written.commit);
            }
        }
        if let Some(number) = number {
            self.raft.on_persist_ready(number);
        }
        // While a state is being written nothing else is asked for, so its write is the last.
        if self.writing.is_empty()
            && let Some(snapshot) = self.restoring.take()
        {
            self.raft.advance_apply_to(snapshot.index.0);
            self.raft.mut_store().restore(snapshot.clone());
            self.outputs.push_back(Output::Restore { snapshot });
        }
        for message in messages {
            self.send(message);
        }
        self.settle();
    }

    /// Something sent to this node was lost.
    pub fn handle_unreachable(&mut self, to: NodeId) {
        if self.restoring.is_none() {
            self.raft.report_unreachable(to.0.get());
            self.settle();
        }
    }

    /// What became of [`Output::SendSnapshot`].
    pub fn handle_snapshot_sent(&mut self, to: NodeId, arrived: bool) {
        if self.restoring.is_none() {
            let status = match arrived {
                true => SnapshotStatus::Finish,
                false => SnapshotStatus::Failure,
            };
            self.raft.report_snapshot(to.0.get(), status);
            self.settle();
        }
    }

    /// Changes who belongs to the cluster; several steps are one change, through a joint
    /// majority of before and after. [`Output::Membership`] tells when it is done, and may
    /// never come.
    ///
    /// # Errors
    /// [`Error::NotLeader`], [`Error::Busy`], or [`Error::Membership`] with the reason.
    pub fn propose_membership(&mut self, changes: &[Change]) -> Result<(), Error> {
        self.must_lead()?;
        let raft = &self.raft.raft;
        self.membership()
            .check(changes)
            .map_err(Error::Membership)?;
        if raft.has_pending_conf() {
            return Err(Error::Membership(Refusal::Pending));
        }
        let steps = changes.iter().map(|change| {
            let kind = match change {
                Change::AddLearner { .. } => eraftpb::ConfChangeType::AddLearnerNode,
                Change::Promote { .. } => eraftpb::ConfChangeType::AddNode,
                Change::Remove { .. } => eraftpb::ConfChangeType::RemoveNode,
            };
            eraftpb::ConfChangeSingle {
                change_type: kind.into(),
                node_id: change.id().0.get(),
            }
        });
        let change = eraftpb::ConfChangeV2 {
            transition: eraftpb::ConfChangeTransition::Auto.into(),
            changes: steps.collect(),
            context: encode_changes(changes).into(),
        };
        let proposed = self.raft.propose_conf_change(Vec::new(), change);
        self.settle();
        proposed.map_err(|_| Error::Busy)
    }

    /// Hands the lead to another voter. [`Output::Role`] tells; if it does not within an
    /// election timeout, this node leads on.
    ///
    /// # Errors
    /// [`Error::NotLeader`], or [`Error::Membership`] if it cannot lead.
    pub fn transfer_leadership(&mut self, to: NodeId) -> Result<(), Error> {
        self.must_lead()?;
        if !self.membership().voters.contains(&to) {
            return Err(Error::Membership(Refusal::NotMember(to)));
        }
        self.raft.transfer_leader(to.0.get());
        self.settle();
        Ok(())
    }

    /// Forgets entries up to this one, as far as they are applied: the state that includes
    /// them is saved. Whoever lacks them is sent the state.
    pub fn compact(&mut self, index: LogIndex) {
        self.raft.mut_store().compact(index);
    }

    /// How the node stands.
    #[must_use]
    pub fn status(&self) -> Status {
        let raft = &self.raft.raft;
        let (role, term, leader) = self.role();
        let mut peers: Vec<Peer> = Vec::new();
        if role == Role::Leader {
            for (&id, progress) in raft.prs().iter() {
                if let Some(id) = node_id(id).filter(|id| *id != self.id) {
                    peers.push(Peer {
                        id,
                        matched: LogIndex(progress.matched),
                        progress: match progress.state {
                            raft::ProgressState::Probe => Progress::Probing,
                            raft::ProgressState::Replicate => Progress::Replicating,
                            raft::ProgressState::Snapshot => Progress::Snapshot,
                        },
                        // raft forgets this whenever it counts whom it has heard of.
                        active: self
                            .heard
                            .get(&id)
                            .is_some_and(|at| self.ticks - at <= self.election_ticks as u64),
                    });
                }
            }
            peers.sort_by_key(|peer| peer.id);
        }
        Status {
            id: self.id,
            role,
            term,
            leader,
            commit: LogIndex(raft.raft_log.committed),
            applied: self.applied().index,
            last: LogIndex(raft.raft_log.last_index()),
            first: LogIndex(raft.store().first()),
            membership: self.membership().clone(),
            peers,
        }
    }

    /// Where the state stands.
    #[must_use]
    pub fn applied(&self) -> &SnapshotMeta {
        self.raft.store().applied()
    }

    /// Who belongs to the cluster, as of what is applied.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        &self.applied().membership
    }

    /// What this node is, in which term, and who leads as far as it knows.
    #[must_use]
    pub fn role(&self) -> (Role, u64, Option<NodeId>) {
        let raft = &self.raft.raft;
        let role = match raft.state {
            StateRole::Follower => Role::Follower,
            StateRole::PreCandidate => Role::PreCandidate,
            StateRole::Candidate => Role::Candidate,
            StateRole::Leader => Role::Leader,
        };
        (role, raft.term, node_id(raft.leader_id))
    }

    /// What must be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn must_lead(&self) -> Result<(), Error> {
        let (role, _, leader) = self.role();
        match role {
            Role::Leader if self.restoring.is_none() => Ok(()),
            Role::Leader | Role::Follower | Role::PreCandidate | Role::Candidate => {
                Err(Error::NotLeader(leader))
            }
        }
    }

    /// Whether everything in the log is on the disk.
    fn settled(&self) -> bool {
        let log = &self.raft.raft.raft_log;
        log.persisted == log.last_index() && self.writing.iter().all(|one| !one.must_sync)
    }

    fn to_self(&self, kind: MessageType) -> eraftpb::Message {
        eraftpb::Message {
            msg_type: kind.into(),
            from: self.id.0.get(),
            ..eraftpb::Message::default()
        }
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (role, term, leader) = self.role();
        f.debug_struct("Node")
            .field("id", &self.id)
            .field("role", &role)
            .field("term", &term)
            .field("leader", &leader)
            .field("applied", &self.applied().index)
            .finish_non_exhaustive()
    }
}

fn node_id(id: u64) -> Option<NodeId> {
    std::num::NonZeroU64::new(id).map(NodeId)
}
