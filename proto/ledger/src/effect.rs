//! What an applied entry means to those who look on.

use bytes::Bytes;
use model::{
    AppInstance, EdgeLife, Epoch, LogIndex, ObjectKey, ObjectKind, OriginId, SessionId, SlotName,
    SlotValue, StreamKey, Version,
};

/// What one entry did. Whoever is told of it is told all of it that concerns him, in one
/// step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Which entry.
    pub index: LogIndex,
    /// The traceparent of the proposal, or empty.
    pub trace: Bytes,
    /// In order.
    pub effects: Vec<Effect>,
}

/// One effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// To one edge: what became of a request.
    Answer {
        /// Who asked.
        to: EdgeLife,
        /// Whose request.
        session: SessionId,
        /// Its number.
        seq: u64,
        /// What became of it.
        answer: Answer,
    },
    /// To all edges that have the object open: it changed.
    Object {
        /// Which.
        key: ObjectKey,
        /// Its incarnation.
        epoch: Epoch,
        /// Whose request it was; the answer to it stands in the same [`Applied`]. A request
        /// that waited for a lock is answered when it is applied.
        by: Option<(SessionId, u64)>,
        /// How.
        change: ObjectChange,
    },
    /// To all who follow the stream: where it is.
    Stream {
        /// Which.
        key: StreamKey,
        /// How it stands.
        state: StreamState,
    },
    /// To one edge: somebody else wants the name; is your publisher alive? Say
    /// [`Affirm`](crate::Request::Affirm) or [`Release`](crate::Request::Release).
    Challenge {
        /// Who.
        to: EdgeLife,
        /// Which name.
        key: StreamKey,
        /// The publish that holds it.
        epoch: Epoch,
        /// The edge's number for it.
        publication: u64,
    },
    /// To one edge: a claim that waited or stood by is decided, or a grant has ended.
    Claim {
        /// Who.
        to: EdgeLife,
        /// Which name.
        key: StreamKey,
        /// The edge's number for it.
        publication: u64,
        /// How.
        decision: Decision,
    },
    /// To that edge, and to the leader: this life of it counts no more.
    EdgeLost {
        /// Who.
        edge: EdgeLife,
    },
    /// To the leader: a lock was taken, and its lease begins.
    Locked {
        /// Which object.
        key: ObjectKey,
        /// The lock.
        token: u64,
        /// Milliseconds.
        lease_ms: u32,
    },
    /// To the leader: a lock was given back.
    Unlocked {
        /// Which object.
        key: ObjectKey,
        /// The lock.
        token: u64,
    },
    /// To all: an instance has a home, or none.
    Home {
        /// Which.
        at: AppInstance,
        /// Where.
        origin: Option<OriginId>,
    },
}

/// How an object changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectChange {
    /// One batch, in one version.
    ///
    /// When an object's versions are used up, the effect has a greater epoch than the one
    /// before it and `cleared`, and names every slot there is: a new incarnation begins.
    Slots {
        /// The version after it.
        version: Version,
        /// Whether all slots were taken away first.
        cleared: bool,
        /// What the slots are now; `None` is removed. Each slot once, in the order of the
        /// batch's last word about it.
        slots: Vec<(SlotName, Option<SlotValue>)>,
    },
    /// A message to all subscribers. The version is what it was.
    Send {
        /// The handler and its arguments.
        payload: Bytes,
    },
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Register, Close, EndSessions, Affirm, Release, Place, Home, Send, Unlock, Void: done.
    Done,
    /// Open: here it is.
    Opened(ObjectSync),
    /// Open: it is of the other kind.
    OtherKind {
        /// Which it has.
        kind: ObjectKind,
    },
    /// A limit of the ledger; nothing happened, also not a part of a batch. An edge that
    /// is told so about [`Register`](crate::Request::Register) has not used the number.
    Full {
        /// Which, for people.
        limit: &'static str,
    },
    /// Batch: done, but for these.
    Written {
        /// The object's version after it, whether or not it changed by it.
        version: Version,
        /// Places in `ops` of what was refused: somebody else wrote first. Ascending.
        refused: Vec<u16>,
    },
    /// Batch, Send, Lock, Unlock: the edge does not have the object open.
    NotOpen,
    /// Lock: it is yours.
    Locked {
        /// The lock.
        token: u64,
    },
    /// Unlock: it is not yours (any more).
    NotLocked,
    /// Claim: the name is yours.
    Granted {
        /// The publish.
        epoch: Epoch,
    },
    /// Claim: another holds it and is asked whether it lives. An
    /// [`Effect::Claim`] follows.
    Contending,
    /// Claim: another with the same token holds it. An [`Effect::Claim`] follows when it is
    /// your turn.
    Standby,
    /// Claim: another holds it, and too many wait. Affirm, Place: another holds it, or it
    /// is over.
    NotHolder,
    /// The request was not applied, because the one before it is not known here. Not an
    /// answer to the request: ask again from this number on.
    OutOfOrder {
        /// The number that must come next.
        expected: u64,
    },
    /// The request was applied long ago, and what became of it is not remembered.
    Forgotten,
    /// The edge is not registered, or this life of it is over. Not an answer to the request:
    /// register anew, open what is open, ask again.
    UnknownEdge,
    /// Nothing was asked under this number, and it is used up: what else may be asked under
    /// it is not made.
    Nothing,
    /// Register: a life of the edge that is not earlier than this one was registered, or may
    /// have been; the number is not used. Register with a greater one.
    Outlived {
        /// What must be exceeded.
        incarnation: u64,
    },
}

/// What became of a claim that was not decided at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It holds the name.
    Granted {
        /// The publish.
        epoch: Epoch,
        /// Whether it stood by for a publisher with the same token, whose viewers go on.
        takeover: bool,
    },
    /// The holder is alive.
    Refused,
    /// It held the name and holds it no more.
    Ended {
        /// The publish.
        epoch: Epoch,
    },
}

/// How a stream stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamState {
    /// The newest publish; 0 if there was none.
    pub epoch: Epoch,
    /// Who publishes, if anybody.
    pub holder: Option<EdgeLife>,
    /// Where the media is, if the publisher's edge said so.
    pub origin: Option<OriginId>,
}

/// An object as somebody must be told it who knows a part of it, or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectSync {
    /// Its incarnation.
    pub epoch: Epoch,
    /// Its version.
    pub version: Version,
    /// Its kind.
    pub kind: ObjectKind,
    /// What is known must be dropped: `slots` is everything there is.
    pub reset: bool,
    /// Slots that are new or have changed, each with the version of its last change.
    pub slots: Vec<(SlotName, SlotValue, Version)>,
    /// Slots that were removed since, each with the version of its removal. With `reset`
    /// they serve those who know a part: nothing newer than `forgotten` is missing.
    pub removed: Vec<(SlotName, Version)>,
    /// Removals up to this version are not remembered: who knows less must be reset.
    pub forgotten: Version,
}
