//! The origin's half of the conversation with edges.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use model::{EdgeLife, LogIndex, NodeId};

use crate::Ledger;
use crate::effect::Applied;
use crate::wire::ToOrigin;

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
    /// The edge said twice who it is.
    AttachedTwice,
    /// The edge proposed what is not a command, or not in its own name.
    BadCommand,
    /// The edge asks for more than an edge may.
    TooMany,
}

/// Who is attached here, and what each must be told.
#[derive(Debug, Default)]
pub struct Watchers {
    outputs: VecDeque<Output>,
}

impl Watchers {
    /// Nobody is attached.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An edge opened a stream.
    pub fn handle_attach(&mut self, id: AttachId, now: Instant) {
        let _ = (id, now);
    }

    /// The stream has ended.
    pub fn handle_detach(&mut self, id: AttachId) {
        let _ = id;
    }

    /// The edge says something.
    pub fn handle_message(
        &mut self,
        id: AttachId,
        message: ToOrigin,
        ledger: &Ledger,
        now: Instant,
    ) {
        let _ = (id, message, ledger, now);
    }

    /// An entry was applied: to be called at once after [`Ledger::apply`], and after
    /// [`Ledger::skip`] with no effects.
    pub fn handle_applied(&mut self, ledger: &Ledger, applied: &Applied) {
        let _ = (ledger, applied);
    }

    /// The ledger was replaced by one from a snapshot.
    pub fn handle_restored(&mut self, ledger: &Ledger) {
        let _ = ledger;
    }

    /// The log has answered a read index.
    pub fn handle_read_index(&mut self, ctx: u64, index: LogIndex, now: Instant) {
        let _ = (ctx, index, now);
    }

    /// Who leads, as far as this origin knows.
    pub fn handle_leader(&mut self, leader: Option<NodeId>) {
        let _ = leader;
    }

    /// This origin leaves: every edge is asked to attach elsewhere.
    pub fn leaving(&mut self) {}

    /// The edges that are attached here: who is heard of.
    #[must_use]
    pub fn contacts(&self) -> Vec<EdgeLife> {
        Vec::new()
    }

    /// What is due is done.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        None
    }

    /// What the shell must do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}
