//! What is due when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use model::{ObjectKey, SessionId};

/// What a timer is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The origin is without a leader, or does not answer the attachment.
    Reattach,
    /// The cluster was full; the edge registers again.
    Register,
    /// What is not answered in the session is proposed again.
    Retry(SessionId),
    /// The oldest request of the session whose client is waiting.
    Due(SessionId),
    /// The oldest subscription that waits for the object.
    Uses(ObjectKey),
    /// The object has had no subscriber for long enough.
    Linger(ObjectKey),
    /// The client of the session has been gone for long enough.
    Departed(SessionId),
}

/// Timers, each at most once.
#[derive(Debug, Default)]
pub(super) struct Timers {
    at: BTreeMap<Timer, Instant>,
    order: BTreeSet<(Instant, Timer)>,
}

impl Timers {
    pub(super) fn set(&mut self, timer: Timer, at: Instant) {
        self.cancel(&timer);
        self.order.insert((at, timer.clone()));
        self.at.insert(timer, at);
    }

    pub(super) fn is_set(&self, timer: &Timer) -> bool {
        self.at.contains_key(timer)
    }

    pub(super) fn cancel(&mut self, timer: &Timer) {
        if let Some(at) = self.at.remove(timer) {
            self.order.remove(&(at, timer.clone()));
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        let (_, timer) = self.order.pop_first()?;
        self.at.remove(&timer);
        Some(timer)
    }
}
