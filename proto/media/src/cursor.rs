//! What a reader remembers.

use model::Position;

use crate::backlog::Backlog;

/// Where a reader begins when it joins, or has to join again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JoinAt {
    /// At the newest key frame; where the stream has no video, at the head.
    #[default]
    Key,
    /// At the head, whatever the stream carries: a reader that does not want video.
    Head,
}

/// A reader's place in one [`Backlog`].
///
/// It is a value of a few words; the backlog knows nothing of its readers. A cursor belongs
/// to the backlog it was first read with: to go on elsewhere, make a new one with
/// [`Cursor::resume_after`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub(crate) join_at: JoinAt,
    /// The run of the backlog in which it was first seen, or last joined.
    pub(crate) run: Option<u64>,
    pub(crate) state: State,
}

/// Where a cursor is between two reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Looks for a place to begin.
    Seeking {
        /// The next frame it would have got: it never goes back behind it.
        next: Option<Position>,
        /// What it accepts.
        how: Seek,
    },
    /// Is being given the configuration in force at its join point.
    Joining {
        /// Which configuration.
        from: Pinned,
        /// The first frame it gets afterwards.
        at: Position,
        /// How many configurations it has.
        given: usize,
    },
    /// Reads on from `next`.
    Following {
        /// The next frame.
        next: Position,
    },
}

/// What a seeking cursor accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seek {
    /// Exactly the next frame, else a join; what is lost is reported.
    Resume,
    /// Only a join; what is lost is reported.
    Join,
    /// A join if that leads forward, else the next frame. Nothing is reported: the reader
    /// asked for it.
    Live,
}

/// Which set of configurations belongs to a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pinned {
    /// The one the run began with.
    Start,
    /// The one pinned to the key frame.
    Key,
    /// The present one, in this version.
    Head(u64),
}

/// How far a reader is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Frames in the backlog that it has not read.
    pub frames: u64,
    /// Their payload in bytes.
    pub bytes: u64,
}

impl Cursor {
    /// A reader that begins live: at the newest key frame, with the configuration that was
    /// in force there.
    #[must_use]
    pub const fn join() -> Self {
        Self {
            join_at: JoinAt::Key,
            run: None,
            state: State::Seeking {
                next: None,
                how: Seek::Join,
            },
        }
    }

    /// A reader that has every frame up to and including `last` and goes on behind it.
    ///
    /// If the backlog lacks what follows, it gets `Skipped` and joins at the newest key
    /// frame behind `last`; if that has not come yet, it waits. While the backlog has less
    /// than the reader, it waits as well.
    #[must_use]
    pub const fn resume_after(last: Position) -> Self {
        Self::resume_at(Position {
            epoch: last.epoch,
            seq: last.seq.saturating_add(1),
        })
    }

    /// A reader whose next frame is `next`; otherwise as [`Self::resume_after`]. With
    /// `seq` 0 it reads an epoch from its very beginning.
    #[must_use]
    pub const fn resume_at(next: Position) -> Self {
        Self {
            join_at: JoinAt::Key,
            run: None,
            state: State::Seeking {
                next: Some(next),
                how: Seek::Resume,
            },
        }
    }

    /// Says where to begin at the next join. It does not move a reader that follows.
    pub const fn set_join_at(&mut self, join_at: JoinAt) {
        self.join_at = join_at;
    }

    /// Goes to the live end: to the newest key frame if that lies ahead (at the head, for
    /// [`JoinAt::Head`] and streams without video), else it reads on where it is. What is
    /// left out on the way is not reported as skipped.
    pub const fn rejoin(&mut self) {
        self.state = match self.state {
            State::Following { next } => State::Seeking {
                next: Some(next),
                how: Seek::Live,
            },
            State::Seeking {
                next,
                how: Seek::Resume,
            } => State::Seeking {
                next,
                how: Seek::Live,
            },
            State::Seeking { next, how } => State::Seeking { next, how },
            // It has only a part of the configuration: it must join.
            State::Joining { at, .. } => State::Seeking {
                next: Some(at),
                how: Seek::Join,
            },
        };
    }

    /// The next frame this reader would get, once it has been given a place: every frame
    /// before it was delivered or skipped.
    #[must_use]
    pub const fn next(&self) -> Option<Position> {
        match self.state {
            State::Seeking { next, .. } => next,
            State::Joining { at, .. } => Some(at),
            State::Following { next } => Some(next),
        }
    }

    /// How much of the backlog it has not read. Everything, for a reader that has no place
    /// yet or lost it.
    #[must_use]
    pub fn lag(&self, backlog: &Backlog) -> Lag {
        backlog.lag_behind(self.next())
    }

    /// The frames of [`Self::lag`].
    #[must_use]
    pub fn lag_frames(&self, backlog: &Backlog) -> u64 {
        self.lag(backlog).frames
    }
}

impl Default for Cursor {
    fn default() -> Self {
        Self::join()
    }
}
