//! What the leader adds: edges that nobody hears of and locks that nobody gives back end
//! by an entry, never by a clock.
//!
//! This is soft state. It belongs to nobody but the leader, it is not replicated, and a new
//! leader begins with full leases: an edge or a lock may live longer because of it, never
//! shorter.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use model::{EdgeLife, ObjectKey};

use crate::command::Command;
use crate::effect::{Answer, Applied, Effect};
use crate::ledger::Ledger;

/// How long an edge may be unheard of.
pub const EDGE_LEASE: Duration = Duration::from_secs(5);

/// After this a proposed end is proposed again: the proposal may have been lost.
pub const AGAIN: Duration = Duration::from_secs(1);

/// The leader's leases.
#[derive(Debug)]
pub struct Leases {
    edge_lease: Duration,
    leader: bool,
    edges: BTreeMap<EdgeLife, Instant>,
    locks: BTreeMap<(ObjectKey, u64), Instant>,
}

impl Leases {
    /// Of one who does not lead.
    #[must_use]
    pub fn new(edge_lease: Duration) -> Self {
        Self {
            edge_lease,
            leader: false,
            edges: BTreeMap::new(),
            locks: BTreeMap::new(),
        }
    }

    /// Somebody heard of these edges. Edges that the ledger does not know are passed over.
    pub fn handle_contact(&mut self, edges: &[EdgeLife], now: Instant) {
        for edge in edges {
            if let Some(end) = self.edges.get_mut(edge) {
                *end = now + self.edge_lease;
            }
        }
    }

    /// This origin leads, or not. Every edge and lock that the ledger has begins a full
    /// lease.
    pub fn handle_role(&mut self, leader: bool, ledger: &Ledger, now: Instant) {
        self.leader = leader;
        self.edges.clear();
        self.locks.clear();
        if leader {
            self.edges = ledger
                .edges()
                .map(|edge| (edge.clone(), now + self.edge_lease))
                .collect();
            self.locks = ledger
                .locks()
                .map(|(key, token, lease_ms)| ((key.clone(), token), now + millis(lease_ms)))
                .collect();
        }
    }

    /// An entry was applied.
    pub fn handle_applied(&mut self, applied: &Applied, now: Instant) {
        if !self.leader {
            return;
        }
        for effect in &applied.effects {
            match effect {
                // Whoever is answered is registered, unless the answer says otherwise.
                Effect::Answer { to, answer, .. } => {
                    if !matches!(
                        answer,
                        Answer::UnknownEdge | Answer::Outlived { .. } | Answer::Full { .. }
                    ) && !self.edges.contains_key(to)
                    {
                        self.edges.insert(to.clone(), now + self.edge_lease);
                    }
                }
                Effect::EdgeLost { edge } => {
                    self.edges.remove(edge);
                }
                Effect::Locked {
                    key,
                    token,
                    lease_ms,
                } => {
                    self.locks
                        .insert((key.clone(), *token), now + millis(*lease_ms));
                }
                Effect::Unlocked { key, token } => {
                    self.locks.remove(&(key.clone(), *token));
                }
                Effect::Object { .. }
                | Effect::Stream { .. }
                | Effect::Challenge { .. }
                | Effect::Claim { .. }
                | Effect::Home { .. } => {}
            }
        }
    }

    /// What the leader must propose: what is over, and again what was proposed and is not
    /// applied.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Command> {
        let mut over = Vec::new();
        for (edge, end) in &mut self.edges {
            if *end <= now {
                *end = now + AGAIN;
                over.push(Command::EdgeLost(edge.clone()));
            }
        }
        for ((key, token), end) in &mut self.locks {
            if *end <= now {
                *end = now + AGAIN;
                over.push(Command::LockExpired {
                    key: key.clone(),
                    token: *token,
                });
            }
        }
        over
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.edges
            .values()
            .chain(self.locks.values())
            .min()
            .copied()
    }
}

impl Default for Leases {
    fn default() -> Self {
        Self::new(EDGE_LEASE)
    }
}

fn millis(lease_ms: u32) -> Duration {
    Duration::from_millis(lease_ms.into())
}
