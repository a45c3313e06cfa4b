//! What another node may send. raft ends the process over much of what is refused here.

use std::collections::BTreeSet;

use model::{LogIndex, NodeId};
use prost011::Message as _;
use raft::StateRole;
use raft::eraftpb::{EntryType, Message, MessageType, Snapshot};

use crate::error::Misbehaviour;
use crate::limits::{
    ENTRY_BYTES_MAX, MEMBERS_MAX, MESSAGE_BYTES_MAX, MESSAGE_ENTRIES_MAX, NUMBER_MAX, READS_MAX,
};
use crate::membership::{Membership, decode_changes};

/// What of a node decides what may be said to it.
pub(crate) struct Hearer<'a> {
    pub(crate) id: NodeId,
    pub(crate) role: StateRole,
    pub(crate) term: u64,
    pub(crate) leader: u64,
    pub(crate) last: u64,
    pub(crate) membership: &'a Membership,
    /// Everything in the log is on the disk.
    pub(crate) settled: bool,
    pub(crate) reads: usize,
    /// How far a member's log is known to match, for the leader.
    pub(crate) matched: &'a dyn Fn(u64) -> Option<u64>,
}

/// What to do with a message that is none of a misbehaving node.
pub(crate) enum Verdict {
    /// raft may have it.
    Step,
    /// It is late, or cannot be served now. It is lost, as messages may be.
    Drop,
}

/// Bytes of a message, which are bounded before anything is made of them.
pub(crate) fn decode(bytes: &[u8]) -> Result<Message, Misbehaviour> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(Misbehaviour::TooMuch);
    }
    if entries_in(bytes).ok_or(Misbehaviour::Malformed)? > MESSAGE_ENTRIES_MAX {
        return Err(Misbehaviour::TooMuch);
    }
    Message::decode(bytes).map_err(|_| Misbehaviour::Malformed)
}

/// Whether raft may have a message that came from a node.
pub(crate) fn check(
    hearer: &Hearer<'_>,
    from: NodeId,
    message: &Message,
) -> Result<Verdict, Misbehaviour> {
    use MessageType as M;
    let kind = M::from_i32(message.msg_type).ok_or(Misbehaviour::Kind)?;
    if message.to != hearer.id.0.get() || message.from != from.0.get() || from == hearer.id {
        return Err(Misbehaviour::Address);
    }
    numbers(message)?;
    // Neither is ever set by us; each leads raft along a path that nobody else takes.
    if message.request_snapshot != 0 || message.deprecated_priority != 0 || message.priority != 0 {
        return Err(Misbehaviour::Kind);
    }
    if !matches!(
        kind,
        M::MsgAppend | M::MsgPropose | M::MsgReadIndex | M::MsgReadIndexResp
    ) && !message.entries.is_empty()
    {
        return Err(Misbehaviour::Entries);
    }
    if (kind == M::MsgSnapshot) != message.snapshot.is_some() {
        return Err(Misbehaviour::Snapshot);
    }
    let local = matches!(kind, M::MsgPropose | M::MsgReadIndex);
    if local != (message.term == 0) {
        return Err(Misbehaviour::Term);
    }
    let answer_of_member = || match hearer.membership.has(from) {
        true => Ok(()),
        false => Err(Misbehaviour::NotMember),
    };
    // What is old is answered or ignored by raft without a look at the rest, and what is
    // newer makes a follower of this node first.
    let current = message.term == hearer.term;
    let leads = hearer.role == StateRole::Leader;
    match kind {
        M::MsgAppend => entries(message)?,
        M::MsgSnapshot => snapshot(hearer, message)?,
        M::MsgHeartbeat => {
            if message.commit > hearer.last && message.term >= hearer.term {
                return Err(Misbehaviour::Lost {
                    said: LogIndex(message.commit),
                    last: LogIndex(hearer.last),
                });
            }
        }
        M::MsgAppendResponse => {
            answer_of_member()?;
            if current && leads {
                if message.index > hearer.last || message.reject_hint > hearer.last {
                    return Err(Misbehaviour::Index);
                }
                // A rejection of what is known to match is older than that knowledge; raft
                // 0.7 would look for the end of the log behind the match.
                let matched = (hearer.matched)(message.from);
                if message.reject && matched.is_some_and(|at| message.index <= at) {
                    return Ok(Verdict::Drop);
                }
            }
        }
        M::MsgHeartbeatResponse => {
            answer_of_member()?;
            context(&message.context)?;
        }
        M::MsgRequestVote | M::MsgRequestPreVote => {}
        M::MsgRequestVoteResponse | M::MsgRequestPreVoteResponse => {
            answer_of_member()?;
            // The wish to be elected is told when all is written; an answer before that
            // answers another one's wish.
            if !hearer.settled {
                return Ok(Verdict::Drop);
            }
        }
        M::MsgTimeoutNow => {
            if !current || message.from != hearer.leader || !hearer.settled {
                return Ok(Verdict::Drop);
            }
        }
        M::MsgPropose => {
            answer_of_member()?;
            proposals(message)?;
            if !leads {
                return Ok(Verdict::Drop);
            }
        }
        M::MsgReadIndex => {
            answer_of_member()?;
            question(message, message.from)?;
            if !leads || hearer.reads >= READS_MAX {
                return Ok(Verdict::Drop);
            }
        }
        M::MsgReadIndexResp => {
            question(message, hearer.id.0.get())?;
            if !current || message.from != hearer.leader {
                return Ok(Verdict::Drop);
            }
        }
        M::MsgHup
        | M::MsgBeat
        | M::MsgUnreachable
        | M::MsgSnapStatus
        | M::MsgCheckQuorum
        | M::MsgTransferLeader => return Err(Misbehaviour::Kind),
    }
    Ok(Verdict::Step)
}

fn numbers(message: &Message) -> Result<(), Misbehaviour> {
    if message.term > NUMBER_MAX
        || message.log_term > NUMBER_MAX
        || message.commit_term > NUMBER_MAX
    {
        return Err(Misbehaviour::Term);
    }
    let indexes = [message.index, message.commit, message.reject_hint];
    if indexes.into_iter().any(|index| index > NUMBER_MAX) {
        return Err(Misbehaviour::Index);
    }
    Ok(())
}

/// Entries of a leader: without a gap, with terms that grow, of kinds that we write.
fn entries(message: &Message) -> Result<(), Misbehaviour> {
    let mut index = message.index;
    let mut term = message.log_term;
    if term > message.term || (index == 0) != (term == 0) {
        return Err(Misbehaviour::Term);
    }
    for entry in &message.entries {
        index += 1;
        if entry.index != index || !entry.context.is_empty() || entry.sync_log {
            return Err(Misbehaviour::Entries);
        }
        if entry.term < term.max(1) || entry.term > message.term {
            return Err(Misbehaviour::Term);
        }
        term = entry.term;
        match EntryType::from_i32(entry.entry_type) {
            Some(EntryType::EntryNormal) => {}
            Some(EntryType::EntryConfChangeV2) => {
                let change = raft::eraftpb::ConfChangeV2::decode(entry.data.as_slice())
                    .map_err(|_| Misbehaviour::Entries)?;
                conf_change(&change)?;
            }
            Some(EntryType::EntryConfChange) | None => return Err(Misbehaviour::Kind),
        }
        if entry.data.len() > ENTRY_BYTES_MAX {
            return Err(Misbehaviour::TooMuch);
        }
    }
    Ok(())
}

fn conf_change(change: &raft::eraftpb::ConfChangeV2) -> Result<(), Misbehaviour> {
    use raft::eraftpb::{ConfChangeTransition, ConfChangeType};
    if ConfChangeTransition::from_i32(change.transition).is_none() {
        return Err(Misbehaviour::Kind);
    }
    if change.changes.len() > MEMBERS_MAX {
        return Err(Misbehaviour::TooMuch);
    }
    for step in &change.changes {
        if step.node_id == 0 || ConfChangeType::from_i32(step.change_type).is_none() {
            return Err(Misbehaviour::Kind);
        }
    }
    match decode_changes(&change.context) {
        Some(_) => Ok(()),
        None => Err(Misbehaviour::Entries),
    }
}

/// Proposals that a follower hands on: there is one, and they are commands. What concerns
/// the membership is proposed by the leader alone.
fn proposals(message: &Message) -> Result<(), Misbehaviour> {
    if message.entries.is_empty() {
        return Err(Misbehaviour::Entries);
    }
    for entry in &message.entries {
        if EntryType::from_i32(entry.entry_type) != Some(EntryType::EntryNormal) {
            return Err(Misbehaviour::Kind);
        }
        if entry.data.is_empty() || !entry.context.is_empty() || entry.sync_log {
            return Err(Misbehaviour::Entries);
        }
        if entry.data.len() > ENTRY_BYTES_MAX {
            return Err(Misbehaviour::TooMuch);
        }
    }
    Ok(())
}

/// A question when something can be read has one entry, which says whose question it is.
fn question(message: &Message, asker: u64) -> Result<(), Misbehaviour> {
    let [entry] = message.entries.as_slice() else {
        return Err(Misbehaviour::Entries);
    };
    if read_context(&entry.data).is_none_or(|(id, ..)| id != asker) {
        return Err(Misbehaviour::Entries);
    }
    Ok(())
}

fn context(context: &[u8]) -> Result<(), Misbehaviour> {
    if context.is_empty() || read_context(context).is_some() {
        return Ok(());
    }
    Err(Misbehaviour::Malformed)
}

/// A question's name, which no other has: who asks, in which of his lives, and his number
/// for it. An answer to an earlier life's question would be too old.
pub(crate) fn write_context(id: NodeId, life: u64, ctx: u64) -> Vec<u8> {
    [id.0.get(), life, ctx].map(u64::to_be_bytes).concat()
}

/// Who asks, in which life, and the number.
pub(crate) fn read_context(bytes: &[u8]) -> Option<(u64, u64, u64)> {
    let (words, rest) = bytes.as_chunks::<8>();
    let [id, life, ctx] = words else { return None };
    let number = |word: &[u8; 8]| u64::from_be_bytes(*word);
    rest.is_empty()
        .then(|| (number(id), number(life), number(ctx)))
}

/// A snapshot says who belongs to the cluster twice, once as raft knows it, and this node
/// is among them.
fn snapshot(hearer: &Hearer<'_>, message: &Message) -> Result<(), Misbehaviour> {
    let membership = message.snapshot.as_ref().and_then(snapshot_membership);
    let membership = membership.ok_or(Misbehaviour::Snapshot)?;
    let meta = message.snapshot.as_ref().and_then(|s| s.metadata.as_ref());
    let (index, term) = meta.map_or((0, 0), |meta| (meta.index, meta.term));
    let possible = index > 0 && index <= NUMBER_MAX && term > 0 && term <= message.term;
    if !possible || !membership.has(hearer.id) {
        return Err(Misbehaviour::Snapshot);
    }
    Ok(())
}

/// Who belongs to the cluster as of a snapshot, if it is one of ours.
pub(crate) fn snapshot_membership(snapshot: &Snapshot) -> Option<Membership> {
    let membership = Membership::decode(&snapshot.data)?;
    let said = snapshot.metadata.as_ref()?.conf_state.as_ref()?;
    let ours = crate::log::conf_state(&membership);
    let same = |a: &[u64], b: &[u64]| {
        // Whoever is named twice is not the same as whoever is named once.
        a.len() == b.len() && a.iter().collect::<BTreeSet<_>>() == b.iter().collect()
    };
    (same(&said.voters, &ours.voters)
        && same(&said.learners, &ours.learners)
        && same(&said.voters_outgoing, &ours.voters_outgoing)
        && same(&said.learners_next, &ours.learners_next)
        && said.auto_leave == ours.auto_leave)
        .then_some(membership)
}

/// How many entries the bytes of a message have; `None` if they are no message.
fn entries_in(mut bytes: &[u8]) -> Option<usize> {
    /// `repeated Entry entries = 7`, length-delimited.
    const ENTRIES: u64 = 7 << 3 | 2;
    let mut entries = 0;
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        entries += usize::from(key == ENTRIES);
        let skip = match key & 7 {
            0 => {
                varint(&mut bytes)?;
                0
            }
            1 => 8,
            2 => varint(&mut bytes)?,
            5 => 4,
            // Groups: no message of ours has any.
            _ => return None,
        };
        bytes = bytes.get(usize::try_from(skip).ok()?..)?;
    }
    Some(entries)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
