//! What raft gives after every step, and what becomes of it.

use bytes::Bytes;
use model::LogIndex;
use prost011::Message as _;
use raft::eraftpb::{self, MessageType};
use raft::{SnapshotStatus, StateRole};

use super::{Node, node_id};
use crate::chance::patience;
use crate::check;
use crate::limits::NUMBER_MAX;
use crate::log::from_raft;
use crate::membership::decode_changes;
use crate::output::{Entry, EntryKind, HardState, Output, SnapshotMeta, Ticket, Write};

/// What one step of raft wants to be acknowledged.
pub(super) struct Writing {
    pub(super) ticket: Ticket,
    /// raft's number of the step.
    pub(super) number: u64,
    /// Whether anything stands in the way of the messages.
    pub(super) must_sync: bool,
    /// To be sent when it is written.
    pub(super) messages: Vec<eraftpb::Message>,
    /// Decided up to here, according to the write.
    pub(super) commit: u64,
}

impl Node {
    /// After every step: takes from raft what there is, until there is no more.
    pub(super) fn settle(&mut self) {
        loop {
            let raft = &self.raft.raft;
            let term = raft.term;
            let patience = patience(
                self.seed,
                self.id.0.get(),
                term,
                self.attempts,
                self.election_ticks,
            );
            self.raft.raft.set_randomized_election_timeout(patience);
            if self.raft.has_ready() {
                self.take_ready();
            } else if !self.hand_on() {
                break;
            }
        }
        self.tell();
    }

    /// Takes one step's results from raft and gives them back to it at once: what must be
    /// written is acknowledged later.
    fn take_ready(&mut self) {
        let mut ready = self.raft.ready();
        let number = ready.number();
        let at_once = ready.take_messages();
        let after = ready.take_persisted_messages();
        let committed = ready.take_committed_entries();
        let reads = ready.take_read_states();
        let must_sync = ready.must_sync();
        let entries: Vec<Entry> = ready
            .take_entries()
            .into_iter()
            .filter_map(from_raft)
            .collect();
        let snapshot = (!ready.snapshot().is_empty())
            .then(|| snapshot_meta(ready.snapshot()))
            .flatten();
        let hard_state = ready.hs().map(|hs| HardState {
            term: hs.term,
            vote: node_id(hs.vote),
            commit: LogIndex(hs.commit),
        });

        // raft reads its log as soon as it has the step back.
        let log = self.raft.mut_store();
        if let Some(snapshot) = &snapshot {
            log.reset(snapshot);
        }
        log.append(&entries);
        if let Some(hard_state) = hard_state {
            log.set_hard_state(hard_state);
        }
        let commit = log.hard_state().commit.0;
        self.raft.advance_append_async(ready);

        // The state that a snapshot message needs is the one before what this step decides.
        for message in at_once {
            self.send(message);
        }
        if let Some(snapshot) = &snapshot {
            self.decided.clear();
            self.restoring = Some(snapshot.clone());
        }
        let write = Write {
            snapshot,
            entries,
            hard_state,
            must_sync,
        };
        if write.hard_state.is_some() || must_sync {
            self.write(write, number, after, commit);
        } else {
            // Nothing to write: it waits for what was before it, if anything.
            let ticket = Ticket(self.tickets);
            self.enqueue(ticket, number, false, after, commit);
        }
        self.decided
            .extend(committed.into_iter().filter_map(|entry| {
                // The log's own copy, which shares its bytes.
                let own = self.raft.store().get(entry.index);
                own.cloned().or_else(|| from_raft(entry))
            }));
        for read in reads {
            if let Some((_, life, ctx)) = check::read_context(&read.request_ctx)
                && life == self.seed
            {
                self.reads.insert((read.index, ctx));
            }
        }
    }

    fn write(&mut self, write: Write, number: u64, after: Vec<eraftpb::Message>, commit: u64) {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let must_sync = write.must_sync;
        self.outputs.push_back(Output::Persist { ticket, write });
        self.enqueue(ticket, number, must_sync, after, commit);
    }

    fn enqueue(
        &mut self,
        ticket: Ticket,
        number: u64,
        must_sync: bool,
        messages: Vec<eraftpb::Message>,
        commit: u64,
    ) {
        if self.writing.is_empty() && !must_sync {
            self.raft.on_persist_ready(number);
            for message in messages {
                self.send(message);
            }
            return;
        }
        self.writing.push_back(Writing {
            ticket,
            number,
            must_sync,
            messages,
            commit,
        });
    }

    /// Hands on what is decided, up to a change of the membership. Says whether raft may
    /// have more to say.
    fn hand_on(&mut self) -> bool {
        if self.restoring.is_some() {
            return false;
        }
        let mut applied = None;
        let mut changed = false;
        while let Some(entry) = self.decided.front() {
            let (index, term) = (entry.index, entry.term);
            if entry.kind == EntryKind::Membership {
                if self.durable_commit < index.0 {
                    self.remember_commit(index.0);
                    break;
                }
                changed = true;
            }
            let Some(entry) = self.decided.pop_front() else {
                break;
            };
            applied = Some(index.0);
            self.raft.mut_store().apply(index, term);
            let output = match entry.kind {
                EntryKind::Command if entry.data.is_empty() => Output::Skip { index, term },
                EntryKind::Command => Output::Apply {
                    index,
                    term,
                    data: entry.data,
                },
                EntryKind::Membership => self.change(index, term, &entry.data),
            };
            self.outputs.push_back(output);
            if changed {
                break;
            }
        }
        if let Some(applied) = applied {
            self.raft.advance_apply_to(applied);
        }
        self.answer_reads();
        if changed {
            self.step_down_if_removed();
        }
        changed
    }

    /// raft lets a leader that was removed lead on, and refuses every proposal.
    fn step_down_if_removed(&mut self) {
        let raft = &mut self.raft.raft;
        if raft.state == StateRole::Leader && !raft.promotable() {
            raft.become_follower(raft.term, raft::INVALID_ID);
        }
    }

    /// A membership that took effect must be in effect again after a restart, before this
    /// node takes part in anything: raft's memberships take effect when they are applied,
    /// and only neighbouring ones have a majority in common. What is applied after a restart
    /// is what is known to be decided, so that is written first.
    fn remember_commit(&mut self, index: u64) {
        let hard_state = self.raft.store().hard_state();
        if self
            .writing
            .iter()
            .any(|one| one.must_sync && one.commit >= index)
        {
            return;
        }
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let write = Write {
            hard_state: Some(hard_state),
            must_sync: true,
            ..Write::default()
        };
        self.outputs.push_back(Output::Persist { ticket, write });
        let number = self.writing.back().map_or(0, |last| last.number);
        self.writing.push_back(Writing {
            ticket,
            number,
            must_sync: true,
            messages: Vec::new(),
            commit: hard_state.commit.0,
        });
    }

    fn change(&mut self, index: LogIndex, term: u64, data: &[u8]) -> Output {
        let change = eraftpb::ConfChangeV2::decode(data).unwrap_or_default();
        let mut membership = self.membership().clone();
        // A newcomer is written to at once, but the state that it needs includes it.
        self.raft.mut_store().withhold_snapshot(true);
        let state = self.raft.apply_conf_change(&change);
        self.raft.mut_store().withhold_snapshot(false);
        // What raft refuses it refuses everywhere, since all have applied the same.
        if let Ok(state) = state {
            let nodes = |ids: &[u64]| ids.iter().copied().filter_map(node_id).collect();
            membership.voters = nodes(&state.voters);
            membership.learners = nodes(&state.learners);
            membership.outgoing = nodes(&state.voters_outgoing);
            membership.learners_next = nodes(&state.learners_next);
            membership.auto_leave = state.auto_leave;
            membership.note(&decode_changes(&change.context).unwrap_or_default());
            membership.settle();
            self.heard.retain(|id, _| membership.has(*id));
            self.raft.mut_store().set_membership(membership.clone());
        }
        Output::Membership {
            index,
            term,
            membership,
        }
    }

    fn answer_reads(&mut self) {
        let applied = self.applied().index.0;
        while let Some((index, ctx)) = self.reads.first().copied() {
            if index > applied {
                break;
            }
            self.reads.pop_first();
            let index = LogIndex(index);
            self.outputs.push_back(Output::ReadReady { ctx, index });
        }
    }

    pub(super) fn send(&mut self, message: eraftpb::Message) {
        let Some(to) = node_id(message.to) else {
            return;
        };
        let bytes = Bytes::from(message.encode_to_vec());
        if message.msg_type != i32::from(MessageType::MsgSnapshot) {
            self.outputs.push_back(Output::Send { to, message: bytes });
            return;
        }
        let snapshot = message.snapshot.and_then(|snapshot| snapshot.metadata);
        let index = LogIndex(snapshot.map_or(0, |meta| meta.index));
        if index == self.applied().index {
            self.outputs.push_back(Output::SendSnapshot {
                to,
                message: bytes,
                index,
            });
        } else {
            // It waited while the state went on, because this node led no more.
            self.raft
                .report_snapshot(to.0.get(), SnapshotStatus::Failure);
        }
    }

    fn tell(&mut self) {
        let role = self.role();
        if role != self.told {
            self.told = role;
            let (role, term, leader) = role;
            self.outputs.push_back(Output::Role { role, term, leader });
        }
    }
}

fn snapshot_meta(snapshot: &eraftpb::Snapshot) -> Option<SnapshotMeta> {
    let membership = check::snapshot_membership(snapshot)?;
    let meta = snapshot.metadata.as_ref()?;
    Some(SnapshotMeta {
        index: LogIndex(meta.index.min(NUMBER_MAX)),
        term: meta.term,
        membership,
    })
}
