//! What waits in a sending flow: messages, and the fragments that were cut off them.

use std::time::Instant;

use super::{Payload, Priority};
use crate::chunk::Fragment;

#[derive(Debug)]
pub(super) struct Message {
    pub(super) payload: Payload,
    pub(super) len: usize,
    pub(super) priority: Priority,
    pub(super) deadline: Option<Instant>,
    /// The number of its first fragment, once it was cut.
    pub(super) first: Option<u64>,
    /// Fragments that are not acknowledged yet.
    pub(super) open: usize,
    pub(super) wholly_cut: bool,
    pub(super) abandoned: bool,
}

impl Message {
    pub(super) fn is_over(&self) -> bool {
        self.abandoned || (self.wholly_cut && self.open == 0)
    }

    pub(super) fn is_late(&self, now: Instant) -> bool {
        !self.is_over() && self.deadline.is_some_and(|deadline| deadline <= now)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// To be sent, for the first time or again.
    Waiting,
    /// Sent, by this transmission.
    InFlight(u64),
    /// Acknowledged.
    Done,
}

#[derive(Debug)]
pub(super) struct Piece {
    pub(super) message: u64,
    pub(super) offset: u32,
    pub(super) len: u16,
    pub(super) fragment: Fragment,
    pub(super) state: State,
    pub(super) ever_sent: bool,
    pub(super) abandoned: bool,
    pub(super) sent_abandoned: bool,
}

/// How far a sending flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Open,
    /// No message follows; waiting for the last acknowledgement.
    Closing,
    /// All is acknowledged. Numbers of flows are never used again, so that there is
    /// nothing to wait for (§3.6.2.11 keeps a number for 130 seconds).
    Over,
}

impl Piece {
    /// A number that stands for messages that were given up before they were cut.
    pub(super) const fn gap() -> Self {
        Self {
            message: u64::MAX,
            offset: 0,
            len: 0,
            fragment: Fragment::Whole,
            state: State::Waiting,
            ever_sent: false,
            abandoned: true,
            sent_abandoned: false,
        }
    }
}

/// Where `number` is in a list that begins with `first`.
pub(super) fn position(number: u64, first: u64) -> Option<usize> {
    number
        .checked_sub(first)
        .and_then(|at| usize::try_from(at).ok())
}
