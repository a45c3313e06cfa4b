//! What becomes of commands that belong to a trace, as spans.
//!
//! ```text
//!   attached here        leader                       every origin
//!   ledger.propose ──▶ (raft.forward ──▶) raft.propose
//!        │                                raft.persist ── raft.persist
//!        │                                raft.commit
//!        └◀─ answer ◀──────────────────────────────────── raft.apply
//! ```
//!
//! A command carries its context only when its trace is wanted, and nothing of it is looked at
//! where none leave the process. Beginnings and ends are those of the driver's turns: a turn
//! takes what waits, and ends when all that follows from it is handed out.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::SystemTime;

use consensus::{EntryKind, Ticket};
use ledger::watchers::AttachId;
use ledger::wire::ToOrigin;
use ledger::{Applied, Command};
use model::NodeId;
use node::telemetry::{Kind, Phase, SpanPlace, is_traced};

use super::driver::Lead;
use crate::limits::TRACED_COMMANDS_MAX;

/// See the [module](self).
pub(super) struct Traces {
    on: bool,
    node: NodeId,
    /// What was in the log when the process began was told by the process before.
    replayed: u64,
    /// When the turn began.
    turn: SystemTime,
    /// What edges that are attached here asked, by its context, and in order.
    asked: HashMap<SpanPlace, Asked>,
    order: VecDeque<(SpanPlace, u64)>,
    /// How many were asked.
    count: u64,
    /// Asked, and not handed to whoever leads.
    fresh: Vec<SpanPlace>,
    entries: BTreeMap<u64, Entry>,
    /// Applied in this turn.
    applied: Vec<(SpanPlace, u64, Option<u64>)>,
    /// To be ended with the turn.
    answered: Vec<Phase>,
}

struct Asked {
    phase: Phase,
    /// Which in the order of all.
    number: u64,
    attach: AttachId,
    came: SystemTime,
}

struct Entry {
    place: SpanPlace,
    term: u64,
    ticket: Ticket,
    /// When it was given to the disk.
    given: SystemTime,
    leads: bool,
    written: bool,
}

impl Traces {
    pub(super) fn new(node: NodeId, replayed: u64) -> Self {
        Self {
            on: is_traced(),
            node,
            replayed,
            turn: SystemTime::UNIX_EPOCH,
            asked: HashMap::new(),
            order: VecDeque::new(),
            count: 0,
            fresh: Vec::new(),
            entries: BTreeMap::new(),
            applied: Vec::new(),
            answered: Vec::new(),
        }
    }

    /// A turn begins.
    pub(super) fn begin(&mut self) {
        if self.on {
            self.turn = SystemTime::now();
        }
    }

    /// An edge says something.
    pub(super) fn heard(&mut self, attach: AttachId, message: &[u8], lead: Lead) {
        if !self.on {
            return;
        }
        let Some(place) = wanted(ToOrigin::trace_of(message)) else {
            return;
        };
        // Whoever asks again waits since the first time.
        if self.asked.contains_key(&place) {
            return;
        }
        while self.asked.len() >= TRACED_COMMANDS_MAX
            && let Some((oldest, number)) = self.order.pop_front()
        {
            // It may have been answered, and asked anew under the same context.
            if self
                .asked
                .get(&oldest)
                .is_some_and(|one| one.number == number)
            {
                self.asked.remove(&oldest);
            }
        }
        let mut phase = Phase::since("ledger.propose", Kind::Server, Some(place), self.turn);
        phase.set("rpc.system.name", "grpc");
        phase.set("rpc.method", "selvage.fabric.v1.Shared/Attach");
        phase.count("selvage.bytes", message.len() as u64);
        self.place(&mut phase);
        phase.set("selvage.raft.role", role(lead));
        let came = self.turn;
        self.count += 1;
        let number = self.count;
        let asked = Asked {
            phase,
            number,
            attach,
            came,
        };
        self.asked.insert(place, asked);
        self.order.push_back((place, number));
        if self.order.len() > 2 * TRACED_COMMANDS_MAX {
            let asked = &self.asked;
            self.order.retain(|(place, number)| {
                asked.get(place).is_some_and(|one| one.number == *number)
            });
        }
        self.fresh.push(place);
    }

    /// An edge is not attached any more: it asks elsewhere.
    pub(super) fn detached(&mut self, attach: AttachId) {
        for (_, mut asked) in self.asked.extract_if(|_, asked| asked.attach == attach) {
            asked
                .phase
                .fail("the edge was detached before it was decided");
        }
    }

    /// Entries are to be written.
    pub(super) fn persist(&mut self, ticket: Ticket, write: &consensus::Write, lead: Lead) {
        if !self.on {
            return;
        }
        for entry in &write.entries {
            if entry.kind != EntryKind::Command {
                continue;
            }
            let Some(place) = wanted(Command::trace_of(&entry.data)) else {
                // What was here under this number before is void.
                self.entries.remove(&entry.index.0);
                continue;
            };
            let given = SystemTime::now();
            if lead.here {
                let came = self.asked.get(&place).map_or(self.turn, |asked| asked.came);
                let mut phase = Phase::since("raft.propose", Kind::Internal, Some(place), came);
                self.at(&mut phase, entry.index.0, Some(entry.term));
                phase.count("selvage.bytes", entry.data.len() as u64);
                phase.end_at(given);
            }
            let remembered = Entry {
                place,
                term: entry.term,
                ticket,
                given,
                leads: lead.here,
                written: false,
            };
            self.entries.insert(entry.index.0, remembered);
            if self.entries.len() > TRACED_COMMANDS_MAX {
                self.entries.pop_first();
            }
        }
    }

    /// All up to this ticket is on the disk; the last write began then.
    pub(super) fn written(&mut self, ticket: Ticket, began: SystemTime) {
        if self.entries.is_empty() {
            return;
        }
        let mut written = Vec::new();
        for (index, entry) in &mut self.entries {
            if !entry.written && entry.ticket <= ticket {
                entry.written = true;
                written.push((*index, entry.term, entry.place, entry.given, entry.leads));
            }
        }
        for (index, term, place, given, leads) in written {
            let mut phase = Phase::since("raft.persist", Kind::Internal, Some(place), given);
            self.at(&mut phase, index, Some(term));
            phase.set(
                "selvage.raft.role",
                if leads { "leader" } else { "follower" },
            );
            let queued = began.duration_since(given).unwrap_or_default();
            phase.set("selvage.queue.duration", queued.as_secs_f64());
            phase.end_at(self.turn);
        }
    }

    /// An entry is applied.
    pub(super) fn applied(&mut self, applied: &Applied) {
        if !self.on || applied.index.0 <= self.replayed {
            return;
        }
        let index = applied.index.0;
        if let Some(place) = wanted(&applied.trace) {
            let entry = self
                .entries
                .get(&index)
                .filter(|entry| entry.place == place);
            let term = entry.map(|entry| entry.term);
            if let Some(entry) = entry
                && entry.leads
            {
                let (given, parent) = (entry.given, Some(place));
                let mut phase = Phase::since("raft.commit", Kind::Internal, parent, given);
                self.at(&mut phase, index, term);
                phase.end_at(self.turn.max(given));
            }
            if let Some(mut asked) = self.asked.remove(&place) {
                self.at(&mut asked.phase, index, term);
                self.answered.push(asked.phase);
            }
            self.applied.push((place, index, term));
        }
        // The leader may know that an entry is decided before its own disk has it.
        self.entries
            .retain(|entry, one| *entry > index || !one.written);
    }

    /// All that followed is handed out.
    pub(super) fn end(&mut self, lead: Lead) {
        let idle = self.applied.is_empty() && self.fresh.is_empty();
        if !self.on || idle {
            return;
        }
        let now = SystemTime::now();
        for (place, index, term) in std::mem::take(&mut self.applied) {
            let mut phase = Phase::since("raft.apply", Kind::Internal, Some(place), self.turn);
            self.at(&mut phase, index, term);
            phase.set("selvage.raft.role", role(lead));
            phase.end_at(now);
        }
        for phase in self.answered.drain(..) {
            phase.end_at(now);
        }
        if lead.here {
            self.fresh.clear();
        } else if let Some(leader) = lead.leader {
            for place in std::mem::take(&mut self.fresh) {
                let Some(asked) = self.asked.get(&place) else {
                    continue;
                };
                let parent = asked.phase.place();
                let mut phase = Phase::since("raft.forward", Kind::Producer, parent, asked.came);
                self.place(&mut phase);
                phase.count("selvage.raft.leader", leader.0.get());
                phase.end_at(now);
            }
        } else {
            let asked = &self.asked;
            self.fresh.retain(|place| asked.contains_key(place));
        }
    }

    fn at(&self, phase: &mut Phase, index: u64, term: Option<u64>) {
        self.place(phase);
        phase.count("selvage.raft.index", index);
        if let Some(term) = term {
            phase.count("selvage.raft.term", term);
        }
    }

    fn place(&self, phase: &mut Phase) {
        phase.count("selvage.raft.node", self.node.0.get());
    }
}

const fn role(lead: Lead) -> &'static str {
    if lead.here { "leader" } else { "follower" }
}

fn wanted(trace: &[u8]) -> Option<SpanPlace> {
    SpanPlace::parse(trace).and_then(SpanPlace::sampled)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use bytes::Bytes;
    use ledger::{Proposal, Request};
    use model::{EdgeId, EdgeLife, LogIndex, SessionId};

    use super::super::driver::Standing;
    use super::*;

    const LEADS: Lead = Lead {
        leader: None,
        here: true,
        standing: Standing::Level,
    };

    fn traces(replayed: u64) -> Traces {
        Traces {
            on: true,
            ..Traces::new(NodeId(NonZeroU64::MIN), replayed)
        }
    }

    fn context(number: u64) -> Bytes {
        Bytes::from(format!(
            "00-{:032x}-{:016x}-01",
            u128::from(number) + 1,
            number + 1
        ))
    }

    fn command(number: u64) -> Bytes {
        let proposal = Proposal {
            session: SessionId(1),
            seq: number,
            edge: EdgeLife {
                edge: EdgeId::new("edge-0").unwrap(),
                incarnation: 1,
            },
            durable: false,
            trace: context(number),
            request: Request::Void,
        };
        Command::Propose(proposal).encode()
    }

    fn write(indexes: std::ops::Range<u64>) -> consensus::Write {
        let entries = indexes.map(|index| consensus::Entry {
            index: LogIndex(index),
            term: 7,
            kind: EntryKind::Command,
            data: command(index),
        });
        consensus::Write {
            entries: entries.collect(),
            ..consensus::Write::default()
        }
    }

    fn applied(index: u64) -> Applied {
        Applied {
            index: LogIndex(index),
            trace: context(index),
            effects: Vec::new(),
        }
    }

    #[test]
    fn however_much_is_under_way_so_much_is_remembered_and_no_more() {
        let mut traces = traces(0);
        for number in 1..5000 {
            let message = ToOrigin::Propose(command(number)).encode();
            // Asked twice, it is one.
            for _ in 0..2 {
                traces.heard(AttachId(number % 2), &message, LEADS);
            }
        }
        traces.persist(Ticket::default(), &write(1..5000), LEADS);
        assert_eq!(traces.asked.len(), TRACED_COMMANDS_MAX);
        assert!(traces.order.len() <= 2 * TRACED_COMMANDS_MAX);
        assert_eq!(traces.entries.len(), TRACED_COMMANDS_MAX);
        traces.end(LEADS);
        assert!(traces.fresh.is_empty());
        traces.detached(AttachId(0));
        assert_eq!(traces.asked.len(), TRACED_COMMANDS_MAX / 2);
        traces.detached(AttachId(1));
        assert!(traces.asked.is_empty());
    }

    #[test]
    fn who_asks_again_and_again_in_one_trace_is_remembered_once() {
        let mut traces = traces(0);
        let message = ToOrigin::Propose(command(1)).encode();
        for _ in 0..10_000 {
            traces.heard(AttachId(1), &message, LEADS);
            traces.applied(&applied(1));
            traces.end(LEADS);
            traces.heard(AttachId(1), &message, LEADS);
            assert!(traces.order.len() <= 2 * TRACED_COMMANDS_MAX + 1);
        }
        assert_eq!(traces.asked.len(), 1);
    }

    #[test]
    fn what_is_decided_and_written_is_forgotten_in_either_order() {
        let mut traces = traces(0);
        traces.persist(Ticket::default(), &write(1..3), LEADS);
        traces.applied(&applied(1));
        assert_eq!(traces.entries.len(), 2, "the disk does not have it");
        traces.written(Ticket::default(), SystemTime::now());
        traces.applied(&applied(2));
        assert!(traces.entries.is_empty());
        assert_eq!(traces.applied.len(), 2);
        traces.end(LEADS);
        assert!(traces.applied.is_empty());
    }

    #[test]
    fn what_was_in_the_log_at_the_start_was_told_before() {
        let mut traces = traces(7);
        traces.applied(&applied(7));
        assert!(traces.applied.is_empty());
        traces.applied(&applied(8));
        assert_eq!(traces.applied.len(), 1);
    }

    #[test]
    fn an_entry_that_took_the_place_of_another_has_its_own_trace_or_none() {
        let mut traces = traces(0);
        traces.persist(Ticket::default(), &write(1..2), LEADS);
        let mut other = write(1..2);
        other.entries[0].data = Bytes::new();
        traces.persist(Ticket::default(), &other, LEADS);
        assert!(traces.entries.is_empty());
    }
}
