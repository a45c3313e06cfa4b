//! What a facade knows of one of its servers.

use std::collections::BTreeMap;
use std::time::Instant;

use model::ObjectName;

use crate::multi::limits::{ANSWER_PATIENCE, BACKOFF_MAX, BACKOFF_MIN, PING_AFTER, SILENCE_MAX};
use crate::multi::mirror::Mirror;

#[derive(Debug)]
pub(super) struct Server {
    pub(super) link: Link,
    /// How often it was lost or could not be reached since a link to it last stood.
    pub(super) attempts: u32,
    /// It has answered a ping before, so its silence means something.
    pub(super) answers: bool,
    pub(super) mirrors: BTreeMap<ObjectName, Mirror>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Dialling,
    Up {
        since: Instant,
        /// It has asked us to leave.
        leaving: bool,
        heard: Instant,
        pinged: bool,
        resume: Resume,
    },
    Down {
        again: Instant,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resume {
    No,
    Asked { at: Instant },
    Done { numbered: bool },
}

impl Server {
    pub(super) const fn is_up(&self) -> bool {
        matches!(self.link, Link::Up { .. })
    }

    /// There is no link any more, or none came about. Only one that stood as long as the longest
    /// pause makes it begin with the shortest again: a server that accepts us and then sends us
    /// away does not have us at its door all the time.
    pub(super) fn lost(&mut self, now: Instant) {
        if let Link::Up { since, .. } = self.link
            && since + BACKOFF_MAX <= now
        {
            self.attempts = 0;
        }
        let pause = BACKOFF_MIN
            .saturating_mul(1 << self.attempts.min(8))
            .min(BACKOFF_MAX);
        self.attempts = self.attempts.saturating_add(1);
        self.link = Link::Down { again: now + pause };
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let Link::Up {
            heard,
            pinged,
            resume,
            ..
        } = self.link
        else {
            return match self.link {
                Link::Down { again } => Some(again),
                Link::Dialling | Link::Up { .. } => None,
            };
        };
        let ping = (!pinged).then_some(heard + PING_AFTER);
        let silence = self.answers.then_some(heard + SILENCE_MAX);
        let mute = match resume {
            Resume::Asked { at } => Some(at + ANSWER_PATIENCE),
            Resume::No | Resume::Done { .. } => None,
        };
        [ping, silence, mute].into_iter().flatten().min()
    }
}
