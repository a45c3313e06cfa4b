//! What a facade knows of one of its servers.

use std::collections::BTreeMap;
use std::time::Instant;

use model::ObjectName;

use crate::multi::limits::{ANSWER_PATIENCE, PING_AFTER, SILENCE_MAX};
use crate::multi::mirror::Mirror;

#[derive(Debug)]
pub(super) struct Server {
    pub(super) link: Link,
    pub(super) attempts: u32,
    /// It has answered a ping before, so its silence means something.
    pub(super) answers: bool,
    pub(super) mirrors: BTreeMap<ObjectName, Mirror>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Dialling,
    Up {
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

    pub(super) fn deadline(&self) -> Option<Instant> {
        let Link::Up {
            heard,
            pinged,
            resume,
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
