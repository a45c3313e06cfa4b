//! The machine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use consensus::{Change, Membership, Node, Peer, Progress, Role, SnapshotMeta, Ticket};
use ledger::watchers::{self, AttachId, Watchers};
use ledger::wire::ToOrigin;
use ledger::{Command, Leases, Ledger};
use model::{LogIndex, NodeId, OriginId};

use crate::about;
use crate::error::{Error, RestoreError};
use crate::level::Level;
use crate::limits::{
    PROMOTE_LAG, STATE_BYTES_PER_SECOND, STATE_PATIENCE, WAITING_BYTES_MAX, WAITING_MAX,
};
use crate::output::{Output, Restored, Setup, Status};
use crate::peer::{self, Kind, Stamps};
use crate::state::{self, State};

/// One origin's seat in the cluster. The crate's manual says how it is driven.
#[derive(Debug)]
pub struct Member {
    setup: Setup,
    now: Instant,
    /// Time in which nobody could be heard of, because this process was stopped. Leases do
    /// not run then.
    stopped: Duration,
    node: Node,
    ledger: Ledger,
    /// Where the ledger stands. The node is ahead while its outputs are being taken.
    at: SnapshotMeta,
    watchers: Watchers,
    leases: Leases,
    outputs: VecDeque<Output>,
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
    /// The state that belongs to a snapshot which is being written.
    incoming: Option<(Ledger, Bytes)>,
    /// Entries and bytes that were applied since the state was saved.
    since_saved: (u64, u64),
    saving: Option<LogIndex>,
    /// Those who are being sent a state, and when it is given up.
    sending: BTreeMap<NodeId, Instant>,
    leads: bool,
    next_contacts: Instant,
    /// The newest that was asked for, and of which state.
    digest: Option<(LogIndex, u128)>,
    /// Names that are no member's any more, and of which the ledger was not told.
    gone: BTreeSet<OriginId>,
    leaving: bool,
    disowned: bool,
    level: Level,
}

impl Member {
    /// A member as its disk remembers it.
    ///
    /// # Errors
    /// The disk does not hold what was written to it.
    pub fn new(setup: Setup, restored: Restored, now: Instant) -> Result<Self, RestoreError> {
        let mut ledger = Ledger::new();
        let mut snapshot = None;
        if let Some(saved) = &restored.saved {
            let state = state::decode(&saved.contents).ok_or(RestoreError::State)?;
            if (state.meta.index, state.meta.term) != (saved.index, saved.term) {
                return Err(RestoreError::State);
            }
            ledger = state.ledger;
            snapshot = Some(state.meta);
        }
        let log = consensus::Restored {
            hard_state: restored.hard_state,
            snapshot,
            entries: restored.entries,
        };
        let at = log.snapshot.clone().unwrap_or(SnapshotMeta {
            index: LogIndex(0),
            term: 0,
            membership: Membership::default(),
        });
        let node = Node::new(&setup.consensus, log, now).map_err(RestoreError::Log)?;
        let mut member = Self {
            now,
            stopped: Duration::ZERO,
            node,
            ledger,
            at,
            watchers: Watchers::new(),
            leases: Leases::new(setup.edge_lease),
            outputs: VecDeque::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            incoming: None,
            since_saved: head_start(&setup),
            saving: None,
            sending: BTreeMap::new(),
            leads: false,
            next_contacts: now + setup.contacts_every,
            digest: None,
            gone: BTreeSet::new(),
            leaving: false,
            disowned: false,
            level: Level::default(),
            setup,
        };
        member.drain();
        Ok(member)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let leases = self.leases.deadline().map(|end| end + self.stopped);
        let others = [leases, self.watchers.deadline()];
        let states = self.sending.values().copied();
        let own = self.node.deadline().min(self.next_contacts);
        let others = others.into_iter().flatten().chain(states);
        others.fold(own, Instant::min)
    }

    /// What is due is done.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.wake(now);
        self.node.handle_timeout(now);
        self.give_up_states(now);
        self.watchers.handle_timeout(now);
        if self.next_contacts <= now {
            self.next_contacts = now + self.setup.contacts_every;
            self.ask_level();
            self.tell_contacts();
            self.promote();
            self.tell_gone();
        }
        // Behind the contacts: an edge that is attached here is heard of.
        for command in self.leases.handle_timeout(self.lease_time()) {
            self.wait(command.encode());
        }
        self.drain();
    }

    /// What another member sent with [`Output::ToPeer`].
    ///
    /// # Errors
    /// No member of ours sends this, or it is not who it says it is.
    pub fn handle_peer(
        &mut self,
        from: NodeId,
        message: &Bytes,
        now: Instant,
    ) -> Result<(), Error> {
        self.wake(now);
        let (kind, body) = self.open(from, message)?;
        match kind {
            Kind::Log => self.node.handle_message(from, &body)?,
            Kind::State => return Err(Error::Malformed(from)),
            Kind::Contacts => {
                let edges = peer::decode_contacts(&body).ok_or(Error::Malformed(from))?;
                if self.leads && self.node.membership().has(from) {
                    self.leases.handle_contact(&edges, self.lease_time());
                }
            }
        }
        self.drain();
        Ok(())
    }

    /// What another member sent with [`Output::SnapshotToPeer`].
    ///
    /// # Errors
    /// No member of ours sends this, or it is not who it says it is.
    pub fn handle_snapshot(
        &mut self,
        from: NodeId,
        message: &Bytes,
        contents: &Bytes,
        now: Instant,
    ) -> Result<(), Error> {
        self.wake(now);
        let (kind, body) = self.open(from, message)?;
        if kind != Kind::State {
            return Err(Error::Malformed(from));
        }
        if self.incoming.is_some() {
            // One is being written; the sender will ask what is here.
            return Ok(());
        }
        let State { meta, ledger } = state::decode(contents).ok_or(Error::State(from))?;
        // The outputs that this makes need the state.
        self.incoming = Some((ledger, contents.clone()));
        let taken = self.node.handle_snapshot(from, &body, meta.index);
        if taken != Ok(true) {
            self.incoming = None;
        }
        self.drain();
        taken?;
        Ok(())
    }

    /// Everything up to this ticket is on the disk.
    pub fn handle_persisted(&mut self, ticket: Ticket, now: Instant) {
        self.wake(now);
        self.node.handle_persisted(ticket);
        self.drain();
    }

    /// A state from [`Output::SaveSnapshot`] is on the disk.
    pub fn handle_snapshot_saved(&mut self, index: LogIndex) {
        if self.saving == Some(index) {
            self.saving = None;
            self.compact(index);
        }
    }

    /// Something sent to that member was lost.
    pub fn handle_unreachable(&mut self, peer: NodeId) {
        self.node.handle_unreachable(peer);
        self.drain();
    }

    /// What became of the newest [`Output::SnapshotToPeer`] to that member. It is passed over
    /// if the state was given up before.
    pub fn handle_snapshot_sent(&mut self, peer: NodeId, arrived: bool) {
        if self.sending.remove(&peer).is_some() {
            self.node.handle_snapshot_sent(peer, arrived);
            self.drain();
        }
    }

    /// An edge opened a stream. No number is used twice.
    pub fn handle_attach(&mut self, attach: AttachId, now: Instant) {
        self.wake(now);
        self.watchers.handle_attach(attach, now);
        self.drain();
    }

    /// An edge says something.
    ///
    /// # Errors
    /// It is not a message: the attachment has ended.
    pub fn handle_edge(
        &mut self,
        attach: AttachId,
        message: Bytes,
        now: Instant,
    ) -> Result<(), ledger::codec::Error> {
        self.wake(now);
        let message = ToOrigin::decode(message);
        let result = match message {
            Ok(message) => {
                self.watchers
                    .handle_message(attach, message, &self.ledger, now);
                Ok(())
            }
            Err(error) => {
                self.watchers.handle_detach(attach);
                Err(error)
            }
        };
        self.drain();
        result
    }

    /// The stream of an edge has ended.
    pub fn handle_detach(&mut self, attach: AttachId) {
        self.watchers.handle_detach(attach);
        self.drain();
    }

    /// Changes who belongs to the cluster. A learner that was added votes by itself when it
    /// has caught up.
    ///
    /// # Errors
    /// Why not; above all, that another member leads.
    pub fn propose_membership(&mut self, changes: &[Change]) -> Result<(), consensus::Error> {
        let proposed = self.node.propose_membership(changes);
        self.drain();
        proposed
    }

    /// Hands the lead to another voter, or to the one that is furthest.
    ///
    /// # Errors
    /// Why not; above all, that another member leads.
    pub fn transfer_leadership(&mut self, to: Option<NodeId>) -> Result<(), consensus::Error> {
        let furthest = || {
            let status = self.node.status();
            let voters = status.membership.voters;
            let able = status
                .peers
                .iter()
                .filter(|peer| peer.active && voters.contains(&peer.id));
            able.max_by_key(|peer| peer.matched).map(|peer| peer.id)
        };
        let (_, _, leader) = self.node.role();
        let to = to
            .or_else(furthest)
            .ok_or(consensus::Error::NotLeader(leader))?;
        let transferred = self.node.transfer_leadership(to);
        self.drain();
        transferred
    }

    /// The process is about to end: edges are asked to attach elsewhere, and another leads.
    pub fn start_leaving(&mut self) {
        self.leaving = true;
        self.watchers.leaving();
        // Whoever is alone, or follows, has nothing to hand over.
        let _ = self.transfer_leadership(None);
        self.drain();
    }

    /// How the member stands.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            log: self.node.status(),
            waiting: self.waiting.len(),
            leaving: self.leaving,
            disowned: self.disowned,
        }
    }

    /// A hash of the state as of `status().log.applied`: equal on all members that have
    /// applied the same. It is a walk through the state, once for every entry after which it
    /// is asked for.
    pub fn digest(&mut self) -> u128 {
        let at = self.ledger.applied();
        match self.digest {
            Some((of, digest)) if of == at => digest,
            Some(_) | None => {
                let digest = self.ledger.digest();
                self.digest = Some((at, digest));
                digest
            }
        }
    }

    /// Whether it has applied what the cluster had decided lately, by the leader's word.
    pub fn is_level(&mut self) -> bool {
        self.level.handle_time(self.now)
    }

    /// The state.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What it is, in which term, and who leads as far as it knows.
    #[must_use]
    pub fn role(&self) -> (Role, u64, Option<NodeId>) {
        self.node.role()
    }

    /// What must be done next. Commands that have come since the last time are proposed
    /// together when everything else is done.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.outputs.is_empty() {
            self.propose();
        }
        self.outputs.pop_front()
    }

    /// Time has passed. There is something due at least as often as contacts are told, so
    /// what is missing beyond that is a time in which the process was stopped, or its machine.
    fn wake(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.now);
        self.stopped += passed.saturating_sub(self.setup.contacts_every);
        self.now = self.now.max(now);
    }

    /// The clock of the leases, which stands still while nobody can be heard of: what an edge
    /// has told by then waits in a socket.
    fn lease_time(&self) -> Instant {
        self.now.checked_sub(self.stopped).unwrap_or(self.now)
    }

    /// Whether a message is between these two folders.
    fn open(&mut self, from: NodeId, message: &Bytes) -> Result<(Kind, Bytes), Error> {
        let (kind, stamps, body) = peer::decode(message).ok_or(Error::Malformed(from))?;
        if stamps.to != 0 && stamps.to != self.setup.stamp {
            self.disowned = true;
            return Err(Error::NotMe(from));
        }
        let known = self.stamp_of(from);
        if known != 0 && stamps.from != known {
            return Err(Error::NotHim(from));
        }
        Ok((kind, body))
    }

    /// The stamp of a member's folder; 0 if it is not known.
    fn stamp_of(&self, id: NodeId) -> u64 {
        let about = self.node.membership().about.get(&id);
        about.map_or(0, |about| about.stamp)
    }

    fn to_peer(&self, kind: Kind, to: NodeId, body: &[u8]) -> Bytes {
        let stamps = Stamps {
            from: self.setup.stamp,
            to: self.stamp_of(to),
        };
        peer::encode(kind, stamps, body)
    }

    /// A command waits to be proposed. One that finds no place is lost, as commands may be.
    fn wait(&mut self, command: Bytes) {
        if self.waiting.len() < WAITING_MAX
            && self.waiting_bytes + command.len() <= WAITING_BYTES_MAX
        {
            self.waiting_bytes += command.len();
            self.waiting.push_back(command);
        }
    }

    fn propose(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        match self.node.handle_proposals(self.waiting.iter().cloned()) {
            // Whoever asked finds out in time, and asks again.
            Ok(()) | Err(consensus::Error::Size(_) | consensus::Error::Busy) => {
                self.waiting.clear();
                self.waiting_bytes = 0;
            }
            // Until somebody leads.
            Err(
                consensus::Error::NoLeader
                | consensus::Error::NotLeader(_)
                | consensus::Error::Membership(_)
                | consensus::Error::Misbehaved(..),
            ) => return,
        }
        self.drain();
    }

    fn ask_level(&mut self) {
        if let Some(question) = self.level.due(self.now)
            && self.node.handle_read(question).is_err()
        {
            self.level.unasked();
        }
    }

    /// Takes what the machines have to say until they have no more.
    fn drain(&mut self) {
        loop {
            if let Some(output) = self.node.poll_output() {
                self.handle_node(output);
            } else if let Some(output) = self.watchers.poll_output() {
                self.handle_watchers(output);
            } else {
                break;
            }
        }
    }

    fn handle_node(&mut self, output: consensus::Output) {
        use consensus::Output as O;
        match output {
            O::Send { to, message } => {
                let message = self.to_peer(Kind::Log, to, &message);
                self.outputs.push_back(Output::ToPeer { to, message });
            }
            O::SendSnapshot { to, message, index } => {
                debug_assert_eq!(index, self.ledger.applied());
                let message = self.to_peer(Kind::State, to, &message);
                let contents = state::encode(&self.at, &self.ledger);
                let seconds = contents.len() as u64 / STATE_BYTES_PER_SECOND;
                let until = self.now + STATE_PATIENCE + Duration::from_secs(seconds);
                self.sending.insert(to, until);
                self.outputs.push_back(Output::SnapshotToPeer {
                    to,
                    message,
                    contents,
                    index,
                });
            }
            O::Persist { ticket, write } => {
                let incoming = self.incoming.as_ref();
                let contents = incoming
                    .filter(|_| write.snapshot.is_some())
                    .map(|(_, contents)| contents.clone());
                self.outputs.push_back(Output::Persist {
                    ticket,
                    write,
                    contents,
                });
            }
            O::Apply { index, term, data } => match Command::decode(&data) {
                Ok(command) => self.apply(index, term, &command, data.len()),
                // No member proposes this. All pass over it alike.
                Err(_) => self.passed_over(index, term, data.len()),
            },
            O::Skip { index, term } => self.passed_over(index, term, 0),
            O::Membership {
                index,
                term,
                membership,
            } => {
                self.now_belong(membership.clone());
                self.passed_over(index, term, 0);
                self.outputs.push_back(Output::Membership(membership));
            }
            O::Restore { snapshot } => self.restore(snapshot),
            O::ReadReady { ctx, .. } if self.level.handle_answer(ctx, self.now) => {}
            O::ReadReady { ctx, index } => {
                self.watchers.handle_read_index(ctx, index, self.now);
            }
            O::Role { role, term, leader } => {
                let leads = role == Role::Leader;
                if leads != self.leads {
                    self.leads = leads;
                    let now = self.lease_time();
                    self.leases.handle_role(leads, &self.ledger, now);
                }
                self.watchers.handle_leader(leader);
                self.ask_level();
                self.outputs.push_back(Output::Role { role, term, leader });
            }
        }
    }

    fn handle_watchers(&mut self, output: watchers::Output) {
        match output {
            watchers::Output::ToEdge { id, message } => self.outputs.push_back(Output::ToEdge {
                attach: id,
                message,
            }),
            watchers::Output::Propose(command) => self.wait(command),
            watchers::Output::ReadIndex { ctx } => {
                // While nobody leads there is no answer, and it is asked again.
                let _ = self.node.handle_read(ctx);
            }
            watchers::Output::Refuse { id, why } => {
                self.outputs
                    .push_back(Output::RefuseEdge { attach: id, why });
            }
        }
    }

    fn apply(&mut self, index: LogIndex, term: u64, command: &Command, bytes: usize) {
        let applied = self.ledger.apply(index, command);
        self.watchers.handle_applied(&self.ledger, &applied);
        self.leases.handle_applied(&applied, self.lease_time());
        if let Command::OriginRemoved(origin) = command {
            self.gone.remove(origin);
        }
        if !applied.effects.is_empty() {
            self.outputs.push_back(Output::Applied(Arc::new(applied)));
        }
        self.went_on(index, term, bytes);
    }

    fn passed_over(&mut self, index: LogIndex, term: u64, bytes: usize) {
        self.ledger.skip(index);
        self.watchers.handle_progress(&self.ledger);
        self.went_on(index, term, bytes);
    }

    fn went_on(&mut self, index: LogIndex, term: u64, bytes: usize) {
        self.at.index = index;
        self.at.term = term;
        self.since_saved.0 += 1;
        self.since_saved.1 += bytes as u64;
        let (entries, bytes) = self.since_saved;
        let enough = entries >= self.setup.snapshot_entries || bytes >= self.setup.snapshot_bytes;
        if enough && self.saving.is_none() {
            self.save();
        }
    }

    fn save(&mut self) {
        self.since_saved = (0, 0);
        self.saving = Some(self.at.index);
        self.outputs.push_back(Output::SaveSnapshot {
            index: self.at.index,
            term: self.at.term,
            membership: self.at.membership.clone(),
            contents: state::encode(&self.at, &self.ledger),
        });
    }

    fn compact(&mut self, saved: LogIndex) {
        let tail = saved.0.saturating_sub(self.setup.tail_entries);
        self.node.compact(LogIndex(tail));
        // The node may stand at a state of the leader's that is not written down yet.
        let first = self.node.status().first.min(LogIndex(tail + 1));
        self.outputs.push_back(Output::Compacted { first });
    }

    fn restore(&mut self, snapshot: SnapshotMeta) {
        let Some((ledger, _)) = self.incoming.take() else {
            return;
        };
        self.ledger = ledger;
        self.since_saved = head_start(&self.setup);
        self.saving = None;
        self.watchers.handle_restored(&self.ledger);
        let now = self.lease_time();
        self.leases.handle_role(self.leads, &self.ledger, now);
        let SnapshotMeta {
            index,
            term,
            membership,
        } = snapshot;
        (self.at.index, self.at.term) = (index, term);
        self.now_belong(membership.clone());
        self.outputs.push_back(Output::Restored { index });
        self.outputs.push_back(Output::Membership(membership));
    }

    /// Whoever is not told of a state for too long is sent another one.
    fn give_up_states(&mut self, now: Instant) {
        let stuck = self.sending.extract_if(.., |_, until| *until <= now);
        for (peer, _) in stuck {
            self.node.handle_snapshot_sent(peer, false);
        }
    }

    /// Who belongs to the cluster has changed.
    fn now_belong(&mut self, membership: Membership) {
        let names = about::names(&membership);
        self.gone.extend(about::names(&self.at.membership));
        self.gone.retain(|name| !names.contains(name));
        self.at.membership = membership;
    }

    /// Every member keeps the names until the ledger was told, so that the next leader tells
    /// it what the one before did not.
    fn tell_gone(&mut self) {
        if self.leads {
            for origin in self.gone.clone() {
                self.wait(Command::OriginRemoved(origin).encode());
            }
        }
    }

    /// The leader must know of every edge that any member hears of.
    fn tell_contacts(&mut self) {
        let contacts = self.watchers.contacts();
        if self.leads {
            self.leases.handle_contact(&contacts, self.lease_time());
        } else if let (_, _, Some(leader)) = self.node.role()
            && !contacts.is_empty()
        {
            let body = peer::encode_contacts(&contacts);
            let message = self.to_peer(Kind::Contacts, leader, &body);
            self.outputs.push_back(Output::ToPeer {
                to: leader,
                message,
            });
        }
    }

    /// A learner that has caught up votes.
    fn promote(&mut self) {
        if !self.leads || self.node.membership().learners.is_empty() {
            return;
        }
        let status = self.node.status();
        let caught_up = |peer: &Peer| match peer.progress {
            Progress::Replicating => peer.matched.0 + PROMOTE_LAG >= status.commit.0,
            // One that was sent the state is sent nothing else while nothing is written,
            // and lacks nothing then.
            Progress::Probing => peer.matched >= status.last,
            Progress::Snapshot => false,
        };
        let ready = status.peers.iter().find(|peer| {
            status.membership.learners.contains(&peer.id) && peer.active && caught_up(peer)
        });
        if let Some(ready) = ready {
            // Another change may be under way; then it is this one's turn later.
            let _ = self
                .node
                .propose_membership(&[Change::Promote { id: ready.id }]);
        }
    }
}

/// Members that were founded together would all save their states at the same entry, and
/// while its state is saved a member is slow: each begins at another place.
fn head_start(setup: &Setup) -> (u64, u64) {
    let eighths = (setup.consensus.id.0.get() - 1) % 8;
    let part = |of: u64| of / 8 * eighths;
    (part(setup.snapshot_entries), part(setup.snapshot_bytes))
}
