//! Flows: sequences of messages in one direction of a session (RFC 7016 §3.6).
//!
//! A message is cut into fragments when its turn to be sent comes, not before, so that
//! fragments fill packets and a message that is given up in time takes no more than one
//! number. What the far end delivers is in the order it was written, unless one chose the
//! order of arrival.

mod fragment;
mod outstanding;
mod queue;
mod receive;
mod seen;
mod send;

use std::fmt;

pub use fragment::Payload;
pub(crate) use outstanding::{Lost, Outstanding};
pub use receive::{Delivered, Order};
pub(crate) use receive::{Receive, Told};
pub(crate) use send::{Filled, Send};

/// A flow that we send. Its number is of our choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SendId(pub u64);

impl fmt::Display for SendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sending flow {}", self.0)
    }
}

/// A flow that we receive. Its number is of the far end's choice and means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReceiveId(pub u64);

impl fmt::Display for ReceiveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "receiving flow {}", self.0)
    }
}

/// A message of one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u64);

/// What a new flow is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The flow of the far end that this one answers. It must be open.
    pub association: Option<ReceiveId>,
    /// What it carries is of real time: its packets say so, others yield to the session,
    /// and it yields less to losses.
    pub time_critical: bool,
}

/// What became of the messages of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendStats {
    /// Messages that the far end has whole.
    pub delivered: u64,
    /// Messages that were given up, by their deadline or by a call.
    pub abandoned: u64,
    /// Bytes of messages that are neither.
    pub queued_bytes: usize,
    /// Bytes in flight, chunk headers included.
    pub outstanding_bytes: u64,
    /// Fragments that were sent again.
    pub resent: u64,
}

/// Which of several flows of a session is sent first. A flow has the priority of the
/// message whose turn it is; flows of the same priority take turns packet by packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// What nobody waits for.
    Background,
    /// Data and shared objects.
    Data,
    /// Video that others do not depend on.
    Delta,
    /// Video that others depend on.
    Key,
    /// Sound: small, and a gap is heard.
    Audio,
    /// Commands, few and small.
    Control,
}

impl Priority {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 6] = [
        Self::Control,
        Self::Audio,
        Self::Key,
        Self::Delta,
        Self::Data,
        Self::Background,
    ];

    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}
