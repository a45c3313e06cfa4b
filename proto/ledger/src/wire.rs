//! What an edge and the origin it is attached to say to each other about the ledger.
//!
//! The messages travel as bytes in one gRPC stream, in order. Commands are in the form
//! they have in the log, so an origin validates them and hands them on as they are.

use bytes::Bytes;
use model::{EdgeLife, Epoch, LogIndex, NodeId, ObjectKey, StreamKey, Version};

use crate::effect::{Applied, ObjectSync, StreamState};
use crate::name::LogName;

/// From an edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToOrigin {
    /// The first message. The origin answers [`ToEdge::Attached`] when its state is as new
    /// as the newest that the edge has seen.
    Attach {
        /// Who.
        edge: EdgeLife,
        /// The log that it was told of.
        log: LogName,
        /// The newest entry it has seen the effects of, at any origin.
        seen: LogIndex,
        /// The objects it holds, and how much of each.
        objects: Vec<(ObjectKey, Epoch, Version)>,
        /// The streams it follows.
        streams: Vec<StreamKey>,
    },
    /// A part of what the edge will [attach](Self::Attach) with, when it is too much for one
    /// message.
    Holds {
        /// Objects it holds.
        objects: Vec<(ObjectKey, Epoch, Version)>,
        /// Streams it follows.
        streams: Vec<StreamKey>,
    },
    /// A command for the log, in its canonical form.
    Propose(Bytes),
    /// Answer [`ToEdge::Barrier`] behind the effects of everything that was acknowledged
    /// anywhere when this was asked.
    Barrier {
        /// Chosen by the edge.
        id: u64,
    },
    /// Say how this stream stands, now and at every change.
    Follow(StreamKey),
    /// No longer.
    Unfollow(StreamKey),
}

/// To an edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToEdge {
    /// The edge is attached. What follows continues from here.
    Attached {
        /// The log. When it is not the one that the edge named, nothing that the edge has
        /// of that one counts.
        log: LogName,
        /// What this state includes.
        index: LogIndex,
        /// Whether the ledger knows this life of the edge. When not, everything must be
        /// opened anew, and everything that was claimed is lost.
        known: bool,
        /// Objects the edge holds, brought up to date. What is not among them is no longer
        /// open for the edge.
        objects: Vec<(ObjectKey, ObjectSync)>,
        /// Streams it follows.
        streams: Vec<(StreamKey, StreamState)>,
    },
    /// A part of what the edge will be [attached](Self::Attached) with, when it is too much
    /// for one message.
    Holds {
        /// Objects the edge holds.
        objects: Vec<(ObjectKey, ObjectSync)>,
        /// Streams it follows.
        streams: Vec<(StreamKey, StreamState)>,
    },
    /// The edge is attached, as [`Self::Attached`], and knows nothing anew: all that happened
    /// behind what it has seen follows.
    /// How a stream stands that it began to follow in between it must ask: it asks to
    /// [follow](ToOrigin::Follow) it once more.
    Resumed {
        /// What it has seen.
        index: LogIndex,
    },
    /// How a stream stands that the edge began to follow.
    Stream {
        /// Which.
        key: StreamKey,
        /// How.
        state: StreamState,
    },
    /// The first of what an entry did, when it is too much for one message. The rest
    /// follows, and counts with it as one step.
    Part(Applied),
    /// What an entry did, as far as it concerns the edge.
    Applied(Applied),
    /// The effects of everything that was acknowledged before the question stand before
    /// this.
    Barrier {
        /// The edge's number.
        id: u64,
    },
    /// Who leads, as far as this origin knows; `None` while there is no majority in reach.
    Leader(Option<NodeId>),
    /// This origin leaves: attach elsewhere.
    Leaving,
}
