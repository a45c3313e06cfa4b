//! What the fuzz target `consensus_message` does with its input, here so that ordinary
//! tests replay its corpus and draw inputs of their own.

use std::num::NonZeroU64;
use std::time::Instant;

use bytes::Bytes;
use model::{LogIndex, NodeId};
use prost011::Message as _;
use raft::eraftpb::{self, Message};

use crate::membership::{About, Membership};
use crate::node::Node;
use crate::output::Output;
use crate::setup::{Restored, Setup};

/// Gives the input to a node in each of its roles, as bytes and as a script of messages
/// that are almost right.
///
/// # Panics
/// If anything but an error comes of it.
pub fn run(input: &[u8], now: Instant) {
    for role in 0..3 {
        let mut node = stage(role, now);
        let _ = node.handle_message(number(2), input);
        drain(&mut node);
        script(&mut node, input, now);
    }
}

/// A node that waits for a leader, one that follows node 2, or one that leads.
fn stage(role: u8, now: Instant) -> Node {
    let founders = (1..=3).map(|id| (number(id), About::default()));
    let restored = match role {
        0 => Restored::default(),
        _ => Restored::founding(Membership::of(founders)),
    };
    let Ok(mut node) = Node::new(&Setup::new(number(1), 1), restored, now) else {
        unreachable!("the stage stands")
    };
    match role {
        1 => give(
            &mut node,
            Message {
                msg_type: 8,
                term: 2,
                ..Message::default()
            },
        ),
        2 => {
            while node.role().0 != crate::Role::Leader {
                node.handle_timeout(node.deadline());
                drain(&mut node);
                let term = node.role().1;
                for (msg_type, term) in [(18, term + 1), (6, term)] {
                    let yes = Message {
                        msg_type,
                        term,
                        ..Message::default()
                    };
                    give(&mut node, yes);
                }
            }
        }
        _ => {}
    }
    node
}

/// Each step of the input is a kind of message and small numbers for its fields: what
/// chance alone never finds in the encoding of one.
fn script(node: &mut Node, input: &[u8], now: Instant) {
    let mut now = now;
    for step in input.chunks_exact(12).take(64) {
        let near = |byte: u8, value: u64| match byte {
            0..=200 => u64::from(byte % 8),
            201..=250 => (value + u64::from(byte % 5)).saturating_sub(2),
            251..=253 => u64::MAX - u64::from(byte),
            254 => crate::limits::NUMBER_MAX,
            255 => 0,
        };
        let status = node.status();
        let term = near(step[1], status.term);
        let index = near(step[2], status.last.0);
        let entries = (0..u64::from(step[5] % 4)).map(|place| eraftpb::Entry {
            entry_type: i32::from(step[6] % 4),
            term: near(step[7], term),
            index: index.wrapping_add(1 + place),
            data: match step[8] % 4 {
                0 => Vec::new(),
                1 => crate::check::write_context(number(2), 1, 1),
                2 => eraftpb::ConfChangeV2 {
                    changes: vec![eraftpb::ConfChangeSingle {
                        change_type: i32::from(step[9] % 4),
                        node_id: u64::from(step[10] % 5),
                    }],
                    ..eraftpb::ConfChangeV2::default()
                }
                .encode_to_vec(),
                _ => step.to_vec(),
            },
            ..eraftpb::Entry::default()
        });
        let members = (1..=1 + u64::from(step[9] % 4)).map(|id| (number(id), About::default()));
        let membership = Membership::of(members);
        let snapshot = (step[0] % 20 == 7).then(|| eraftpb::Snapshot {
            data: membership.encode().to_vec(),
            metadata: Some(eraftpb::SnapshotMetadata {
                conf_state: Some(crate::log::conf_state(&membership)),
                index,
                term: near(step[3], term),
            }),
        });
        let message = Message {
            msg_type: i32::from(step[0] % 20),
            term,
            index,
            log_term: near(step[3], status.term),
            commit: near(step[4], status.commit.0),
            commit_term: near(step[7], status.term),
            reject: step[11] & 1 == 1,
            reject_hint: near(step[10], status.last.0),
            entries: entries.collect(),
            context: match step[11] & 2 {
                0 => Vec::new(),
                _ => b"CampaignTransfer".to_vec(),
            },
            snapshot,
            ..Message::default()
        };
        // Some of what is written is acknowledged late.
        let late = step[11] & 4 == 4;
        send(node, 2 + u64::from(step[11] >> 7), message);
        if !late {
            drain(node);
        }
        if step[11] & 8 == 8 {
            let _ = node.handle_proposal(Bytes::copy_from_slice(step));
        }
        if step[11] & 16 == 16 {
            let _ = node.handle_read(u64::from(step[2]));
        }
        for _ in 0..(step[11] >> 5) & 3 {
            now = now.max(node.deadline());
            node.handle_timeout(now);
        }
    }
    drain(node);
}

fn give(node: &mut Node, message: Message) {
    send(node, 2, message);
    drain(node);
}

fn send(node: &mut Node, from: u64, mut message: Message) {
    message.to = 1;
    message.from = from;
    let meta = message.snapshot.as_ref().and_then(|s| s.metadata.as_ref());
    let index = meta.map(|meta| LogIndex(meta.index));
    let bytes = message.encode_to_vec();
    let _ = match index {
        Some(index) => node
            .handle_snapshot(number(from), &bytes, index)
            .map(|_| ()),
        None => node.handle_message(number(from), &bytes),
    };
}

/// A disk that is done at once.
fn drain(node: &mut Node) {
    while let Some(output) = node.poll_output() {
        if let Output::Persist { ticket, .. } = output {
            node.handle_persisted(ticket);
        }
    }
}

fn number(id: u64) -> NodeId {
    NodeId(NonZeroU64::new(id).unwrap_or(NonZeroU64::MIN))
}
