//! What may stand in the log.

use bytes::Bytes;
use model::{
    AppInstance, EdgeLife, Epoch, ObjectKey, ObjectKind, OriginId, Policy, SessionId, SlotOp,
    StreamKey, Version,
};

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Somebody asks for something; at most once and in order, by its session and number.
    Propose(Proposal),
    /// The leader found that nobody has heard of this life of an edge for too long. Its
    /// interests, sessions and claims end.
    EdgeLost(EdgeLife),
    /// The leader found that a lock's lease is over.
    LockExpired {
        /// The object.
        key: ObjectKey,
        /// The lock.
        token: u64,
    },
    /// An origin is gone for good: instances that lived there have no home, and no stream's
    /// media is there.
    OriginRemoved(OriginId),
}

/// A numbered request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Whose request. An edge has a session of its own, for what it asks in its own name.
    pub session: SessionId,
    /// Its number in the session, from 1.
    pub seq: u64,
    /// Where the answer goes. It must have registered with [`Request::Register`].
    pub edge: EdgeLife,
    /// Whether the session survives the loss of its edge, because its client may come back
    /// at another one and ask again.
    pub durable: bool,
    /// W3C traceparent of the span it belongs to, or empty. It is handed on with the effects
    /// and changes nothing.
    pub trace: Bytes,
    /// What is asked.
    pub request: Request,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    // ----- an edge in its own name, in its own session
    /// The edge lives. The first request of the edge's own session. An earlier life of the
    /// same edge, with a smaller incarnation, ends by it; it does not come back, however late
    /// what it said arrives.
    Register,
    /// The edge has at least one subscriber of the object. Creates it if nobody has.
    Open {
        /// Which.
        key: ObjectKey,
        /// The kind it must have, or is given.
        kind: ObjectKind,
        /// What the edge, or its subscriber, has of it already.
        have: Option<(Epoch, Version)>,
    },
    /// The edge has no subscriber of the object any more.
    Close {
        /// Which.
        key: ObjectKey,
    },
    /// These sessions are over and will ask nothing again. One that spoke through another
    /// edge since is not ended by this.
    ///
    /// A session that is not durable is numbered by its edge: the lower half of its id counts
    /// the sessions of a life of the edge, each of which is ended, whether or not it asked
    /// for anything. What is under way of one that is over is not applied again, however late
    /// it arrives.
    EndSessions(Vec<SessionId>),
    /// A publisher at this edge wants the name.
    Claim {
        /// Which.
        key: StreamKey,
        /// The edge's number for it, unique in the life of the edge.
        publication: u64,
        /// Who the publisher is, if it says so: one with the same token stands by instead of
        /// being refused. At most [`TOKEN_BYTES_MAX`](crate::limits::TOKEN_BYTES_MAX).
        token: Bytes,
        /// The epoch must be greater than this: what the edge knows of the name.
        above: Epoch,
    },
    /// The publisher that holds the name is alive: those who wait for it are refused.
    Affirm {
        /// Which.
        key: StreamKey,
        /// Its epoch.
        epoch: Epoch,
    },
    /// A publication is over, whether it holds the name, stands by or waits.
    Release {
        /// Which.
        key: StreamKey,
        /// The edge's number for it.
        publication: u64,
    },
    /// The media of the publish goes to this origin.
    Place {
        /// Which.
        key: StreamKey,
        /// The publish.
        epoch: Epoch,
        /// Where.
        origin: OriginId,
    },
    /// The instance needs a home; if it has none, it is this one.
    Home {
        /// Which.
        at: AppInstance,
        /// Where.
        origin: OriginId,
    },

    // ----- a client, through its edge
    /// Changes of one object, all in one version.
    Batch {
        /// Which.
        key: ObjectKey,
        /// The incarnation that was seen.
        epoch: Epoch,
        /// The version that was seen.
        base: Version,
        /// Who wins.
        policy: Policy,
        /// In order.
        ops: Vec<SlotOp>,
    },
    /// A message to all subscribers, ordered with the changes.
    Send {
        /// Which.
        key: ObjectKey,
        /// The handler and its arguments as they came: AMF values.
        payload: Bytes,
    },
    /// The object is held for this session: others' changes wait. Nests.
    Lock {
        /// Which.
        key: ObjectKey,
        /// How long at most, in milliseconds, as the leader counts.
        lease_ms: u32,
    },
    /// Gives back one level of the lock.
    Unlock {
        /// Which.
        key: ObjectKey,
    },
    /// Takes the number and does nothing: a request whose asker was told that it is refused
    /// must not be applied later.
    Void,
}
