//! The edge's half of the replicated state.

mod interface;

pub use interface::{
    Access, CallId, CallResult, ClaimOutcome, Misbehaviour, Output, Recipients, Setup, Subscriber,
    SubscriberId,
};

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use model::object::ObjectAsk;
use model::{
    EdgeLife, Epoch, ObjectKey, ObjectKind, OriginId, Policy, SessionId, StreamKey, Version,
};

use crate::wire::ToEdge;

/// One edge's half: one per edge process.
#[derive(Debug)]
pub struct Replica {
    life: EdgeLife,
    outputs: VecDeque<Output>,
}

impl Replica {
    /// An edge that is not attached yet.
    #[must_use]
    pub fn new(setup: Setup, now: Instant) -> Self {
        let _ = now;
        Self {
            life: EdgeLife {
                edge: setup.edge,
                incarnation: setup.seed,
            },
            outputs: VecDeque::new(),
        }
    }

    /// The life under which the edge is known.
    #[must_use]
    pub fn life(&self) -> &EdgeLife {
        &self.life
    }

    // ----- from clients

    /// One message of a client about one object: its asks in order. `version` is what the
    /// message's header says.
    #[expect(
        clippy::too_many_arguments,
        reason = "a message and what the edge knows of who sent it"
    )]
    pub fn handle_ask(
        &mut self,
        subscriber: Subscriber,
        key: ObjectKey,
        kind: ObjectKind,
        version: Version,
        access: Access,
        policy: Policy,
        asks: Vec<ObjectAsk>,
        trace: Bytes,
        now: Instant,
    ) {
        let _ = (
            subscriber, key, kind, version, access, policy, asks, trace, now,
        );
    }

    /// A client's connection is gone.
    pub fn handle_left(&mut self, subscriber: SubscriberId, now: Instant) {
        let _ = (subscriber, now);
    }

    /// A client speaks under its own identity: its next request in the durable session has
    /// this number.
    pub fn handle_resume(
        &mut self,
        subscriber: SubscriberId,
        session: SessionId,
        next_seq: u64,
        now: Instant,
    ) {
        let _ = (subscriber, session, next_seq, now);
    }

    /// A client wants the object for itself.
    #[expect(
        clippy::too_many_arguments,
        reason = "a call and what the edge knows of who made it"
    )]
    pub fn handle_lock(
        &mut self,
        subscriber: Subscriber,
        key: ObjectKey,
        access: Access,
        lease_ms: u32,
        call: CallId,
        trace: Bytes,
        now: Instant,
    ) {
        let _ = (subscriber, key, access, lease_ms, call, trace, now);
    }

    /// A client gives one level of its lock back.
    pub fn handle_unlock(
        &mut self,
        subscriber: Subscriber,
        key: ObjectKey,
        call: CallId,
        trace: Bytes,
        now: Instant,
    ) {
        let _ = (subscriber, key, call, trace, now);
    }

    // ----- from publishers and players

    /// A publisher wants the name. `publication` is chosen by the shell and never used
    /// twice.
    pub fn claim(
        &mut self,
        publication: u64,
        key: StreamKey,
        token: Bytes,
        above: Epoch,
        trace: Bytes,
        now: Instant,
    ) {
        let _ = (publication, key, token, above, trace, now);
    }

    /// The challenged publisher is alive.
    pub fn affirm(&mut self, publication: u64, now: Instant) {
        let _ = (publication, now);
    }

    /// The publisher is gone, whatever became of its claim.
    pub fn release(&mut self, publication: u64, now: Instant) {
        let _ = (publication, now);
    }

    /// The media of the publish goes to this origin.
    pub fn place(&mut self, publication: u64, origin: OriginId, now: Instant) {
        let _ = (publication, origin, now);
    }

    /// Say how the stream stands, now and at every change.
    pub fn follow(&mut self, key: StreamKey, now: Instant) {
        let _ = (key, now);
    }

    /// No longer.
    pub fn unfollow(&mut self, key: &StreamKey, now: Instant) {
        let _ = (key, now);
    }

    // ----- from the origin

    /// A new stream to an origin is open. What was under way on another is forgotten.
    pub fn handle_attached_link(&mut self, now: Instant) {
        let _ = now;
    }

    /// The stream to the origin has ended.
    pub fn handle_detached(&mut self, now: Instant) {
        let _ = now;
    }

    /// The origin says something.
    ///
    /// # Errors
    /// It must not say that. End the attachment and attach anew.
    pub fn handle_message(&mut self, message: ToEdge, now: Instant) -> Result<(), Misbehaviour> {
        let _ = (message, now);
        Ok(())
    }

    // ----- time and output

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
