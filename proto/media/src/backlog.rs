//! The ring with a pinned join point.

use std::collections::VecDeque;
use std::fmt;

use model::{Class, Epoch, Frame, Kind, MediaTime, Position, Sequenced};

use crate::config::Configs;
use crate::cursor::{Cursor, JoinAt, Lag, Pinned, Seek, State};
use crate::keys::Video;
use crate::limits::{FRAME_COST, Limits};

/// The recent past of one stream. See the [crate's documentation](crate).
#[derive(Clone, Debug)]
pub struct Backlog {
    limits: Limits,
    /// The greatest epoch seen.
    epoch: Epoch,
    /// Contiguous frames of `epoch`.
    ring: VecDeque<Entry>,
    /// What `ring` costs, see [`Limits::bytes`].
    bytes: usize,
    /// Payload bytes ever pushed.
    pushed: u64,
    /// In force behind the newest frame.
    configs: Configs,
    /// Supplied by `prime` since the last frame.
    primed: Vec<Frame>,
    /// The frame it was supplied for.
    primed_for: Option<Position>,
    /// In force before the oldest frame kept.
    base: Configs,
    /// Counts the runs: the contiguous sequences of frames. 0 before the first.
    run: u64,
    /// The number of the run's first frame.
    run_first: u64,
    /// The last frame of the run before.
    ended: Option<Position>,
    video: Video,
}

#[derive(Clone, Debug)]
struct Entry {
    item: Sequenced,
    /// Payload bytes pushed before it.
    before: u64,
    cost: usize,
}

/// What became of a frame that was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It follows the newest frame.
    Appended,
    /// It begins a new run: the first frame at all, a newer epoch, or a gap. Everything
    /// older is gone.
    Restarted,
    /// The backlog has, or had, this frame; nothing changed.
    Duplicate,
}

/// Why a frame was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushError {
    /// It belongs to a publish that is over: its sender is from the dead.
    Superseded {
        /// The epoch of the publish that took its place.
        by: Epoch,
    },
}

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Superseded { by } => write!(f, "the publish was superseded by epoch {by}"),
        }
    }
}

impl std::error::Error for PushError {}

/// What a reader gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read<'a> {
    /// A configuration in force at the place where the reader joins. It is not numbered and
    /// not part of what follows.
    InForce {
        /// The configuration, as it was published.
        frame: &'a Frame,
        /// Where the reader joins: the first frame it will be given.
        at: Position,
        /// The time there. A player is given the configuration at this time, since the
        /// frame's own lies in the past, perhaps by hours.
        time: MediaTime,
    },
    /// The next frame.
    Frame(&'a Sequenced),
    /// The reader lost its place, and with it `frames` frames; a join follows.
    Skipped {
        /// How many it did not get.
        frames: u64,
    },
    /// There is nothing for it yet.
    Pending,
}

impl Backlog {
    /// An empty backlog.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            epoch: Epoch(0),
            ring: VecDeque::new(),
            bytes: 0,
            pushed: 0,
            configs: Configs::new(),
            primed: Vec::new(),
            primed_for: None,
            base: Configs::new(),
            run: 0,
            run_first: 0,
            ended: None,
            video: Video::default(),
        }
    }

    /// Supplies a configuration that is in force before the frame `at`, as the other end of
    /// a link sends them before a join ([`Read::InForce`]).
    ///
    /// It matters only if that frame is the next one pushed and begins a run; if it
    /// continues one, the backlog knows better. A join that was broken off leaves nothing
    /// behind: what was supplied for another frame is dropped.
    pub fn prime_at(&mut self, at: Position, frame: Frame) {
        self.prime_for(Some(at), frame);
    }

    /// As [`Self::prime_at`], for whichever frame is pushed next. The caller vouches that
    /// everything supplied belongs to one join.
    pub fn prime(&mut self, frame: Frame) {
        self.prime_for(None, frame);
    }

    fn prime_for(&mut self, at: Option<Position>, frame: Frame) {
        if self.primed_for != at {
            self.primed.clear();
            self.primed_for = at;
        }
        if frame.class == Class::Config && self.primed.len() < self.limits.configs {
            self.primed.push(frame);
        }
    }

    /// Takes a frame and numbers it: for the edge that holds the publisher. A newer epoch
    /// begins with number 0.
    ///
    /// The caller holds the right to publish in `epoch`, and such rights only grow.
    pub fn append(&mut self, epoch: Epoch, frame: Frame) -> Position {
        debug_assert!(epoch >= self.epoch, "rights to publish only grow");
        let seq = match self.head().or(self.ended) {
            Some(last) if last.epoch == epoch => last.seq + 1,
            Some(_) | None => 0,
        };
        let at = Position { epoch, seq };
        if self.is_empty() || seq == 0 {
            self.restart(at, frame.time);
        }
        self.primed.clear();
        self.take(Sequenced { at, frame });
        at
    }

    /// Takes a numbered frame.
    ///
    /// What follows the newest frame is appended. A gap or a newer epoch drops everything
    /// older and resets the configuration to what [`Self::prime`] supplied since the last
    /// frame.
    ///
    /// # Errors
    /// [`PushError::Superseded`] if the frame's epoch is older than the backlog's.
    pub fn push(&mut self, at: Position, frame: Frame) -> Result<Pushed, PushError> {
        if at.epoch < self.epoch {
            self.primed.clear();
            return Err(PushError::Superseded { by: self.epoch });
        }
        let pushed = match self.head() {
            Some(head) if head.epoch == at.epoch && at.seq <= head.seq => Pushed::Duplicate,
            Some(head) if head.epoch == at.epoch && at.seq == head.seq + 1 => Pushed::Appended,
            Some(_) | None => Pushed::Restarted,
        };
        if pushed == Pushed::Restarted {
            self.restart(at, frame.time);
        }
        self.primed.clear();
        if pushed != Pushed::Duplicate {
            self.take(Sequenced { at, frame });
        }
        Ok(pushed)
    }

    /// The publish is over: forgets its frames and its configuration, so that nobody joins
    /// a stream that has ended. Its epoch still fences older ones; if the same publish goes
    /// on after all, its next frame begins a new run.
    pub fn end(&mut self) {
        if let Some(head) = self.head() {
            self.ended = Some(head);
        }
        self.forget();
    }

    /// What the reader gets next. Constant time, no allocation.
    pub fn read(&self, cursor: &mut Cursor) -> Read<'_> {
        let run = *cursor.run.get_or_insert(self.run);
        loop {
            match cursor.state {
                State::Following { next } => {
                    if let Some(entry) = self.entry(next) {
                        let following = Position {
                            seq: next.seq + 1,
                            ..next
                        };
                        cursor.state = State::Following { next: following };
                        return Read::Frame(&entry.item);
                    }
                    if self.will_have(next) {
                        return Read::Pending;
                    }
                    cursor.state = State::Seeking {
                        next: Some(next),
                        how: Seek::Resume,
                    };
                }
                State::Joining { from, at, given } => {
                    let Some((configs, time)) = self.pinned(from, at, run) else {
                        cursor.state = State::Seeking {
                            next: Some(at),
                            how: Seek::Join,
                        };
                        continue;
                    };
                    let Some(frame) = configs.get(given) else {
                        cursor.state = State::Following { next: at };
                        continue;
                    };
                    cursor.state = State::Joining {
                        from,
                        at,
                        given: given + 1,
                    };
                    return Read::InForce { frame, at, time };
                }
                State::Seeking { next, how } => {
                    let present = run < self.run;
                    match self.seek(next, how, cursor.join_at, present) {
                        Found::Nothing => return Read::Pending,
                        Found::Exact(next) => {
                            cursor.run = Some(self.run);
                            cursor.state = State::Following { next };
                        }
                        Found::Join(from, at) => {
                            cursor.run = Some(self.run);
                            cursor.state = State::Joining { from, at, given: 0 };
                            let frames = self.lost(next, at);
                            if frames > 0 && how != Seek::Live {
                                return Read::Skipped { frames };
                            }
                            return self.read(cursor);
                        }
                    }
                }
            }
        }
    }

    /// The newest frame's place.
    #[must_use]
    pub fn head(&self) -> Option<Position> {
        self.ring.back().map(|entry| entry.item.at)
    }

    /// The oldest kept frame's place.
    #[must_use]
    pub fn tail(&self) -> Option<Position> {
        self.ring.front().map(|entry| entry.item.at)
    }

    /// The newest key frame a reader can join at.
    #[must_use]
    pub fn join_point(&self) -> Option<Position> {
        self.video.join_point().map(|key| Position {
            epoch: self.epoch,
            seq: key.seq,
        })
    }

    /// The frame at a place, if it is kept.
    #[must_use]
    pub fn get(&self, at: Position) -> Option<&Sequenced> {
        self.entry(at).map(|entry| &entry.item)
    }

    /// The configuration in force behind the newest frame: data first, then video, then
    /// audio.
    #[must_use]
    pub fn in_force(&self) -> &[Frame] {
        self.configs.frames()
    }

    /// The configuration in force before the oldest frame kept: what a receiver that is
    /// given everything from [`Backlog::tail`] on must have been primed with.
    #[must_use]
    pub fn in_force_at_tail(&self) -> &[Frame] {
        self.base.frames()
    }

    /// The greatest epoch seen; smaller ones are refused.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Frames kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// What the frames kept cost, as [`Limits::bytes`] counts.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn lag_behind(&self, next: Option<Position>) -> Lag {
        let Some(front) = self.ring.front() else {
            return Lag::default();
        };
        let first = match next {
            Some(next) if next.epoch > self.epoch => return Lag::default(),
            Some(next) if next.epoch == self.epoch => next.seq.max(front.item.at.seq),
            Some(_) | None => front.item.at.seq,
        };
        match self.entry(Position {
            epoch: self.epoch,
            seq: first,
        }) {
            Some(entry) => Lag {
                frames: front.item.at.seq + self.ring.len() as u64 - first,
                bytes: self.pushed - entry.before,
            },
            None => Lag::default(),
        }
    }

    fn entry(&self, at: Position) -> Option<&Entry> {
        if at.epoch != self.epoch {
            return None;
        }
        let index = at.seq.checked_sub(self.ring.front()?.item.at.seq)?;
        self.ring.get(usize::try_from(index).ok()?)
    }

    /// Whether a frame is still to come.
    fn will_have(&self, next: Position) -> bool {
        match self.head() {
            Some(head) => next > head,
            None => true,
        }
    }

    /// Where a reader that has no place finds one.
    fn seek(&self, next: Option<Position>, how: Seek, join_at: JoinAt, present: bool) -> Found {
        let (Some(tail), Some(head)) = (self.tail(), self.head()) else {
            return Found::Nothing;
        };
        // The least number it may be given, and whether the backlog has exactly that.
        let (floor, exact) = match next {
            Some(next) if next.epoch > self.epoch => return Found::Nothing,
            Some(next) if next.epoch == self.epoch => (
                next.seq,
                (tail.seq <= next.seq && how != Seek::Join).then_some(next),
            ),
            Some(_) | None => (0, None),
        };
        if floor > head.seq + 1 {
            return Found::Nothing;
        }
        let at = |seq| Position {
            epoch: self.epoch,
            seq,
        };
        if let Some(next) = exact
            && how == Seek::Resume
        {
            // Nothing can have been told to a reader of the whole epoch.
            return if next.seq == 0 {
                Found::Join(Pinned::Start, next)
            } else {
                Found::Exact(next)
            };
        }
        if present && tail.seq == 0 && floor == 0 {
            return Found::Join(Pinned::Start, at(0));
        }
        let head_next = Found::Join(Pinned::Head(self.configs.version()), at(head.seq + 1));
        if join_at == JoinAt::Head {
            return head_next;
        }
        match self.video.join_point() {
            Some(key) if key.seq > floor || (key.seq == floor && exact.is_none()) => {
                Found::Join(Pinned::Key, at(key.seq))
            }
            Some(_) => exact.map_or(Found::Nothing, Found::Exact),
            None if self.video_is_live() => exact.map_or(Found::Nothing, Found::Exact),
            None if present && tail.seq == self.run_first && floor <= tail.seq => {
                Found::Join(Pinned::Start, tail)
            }
            None => head_next,
        }
    }

    /// The configuration for a join, and its time; `None` if the join point is gone.
    fn pinned(&self, from: Pinned, at: Position, run: u64) -> Option<(&[Frame], MediaTime)> {
        match from {
            Pinned::Start => {
                let entry = self.entry(at)?;
                (run == self.run).then_some((&**self.base.frames(), entry.item.frame.time))
            }
            Pinned::Key => {
                let key = self.video.key(self.entry(at)?.item.frame.slot, at.seq)?;
                Some((&*key.configs, key.time))
            }
            Pinned::Head(version) => {
                let head = self.ring.back()?;
                let same = run == self.run && version == self.configs.version();
                same.then(|| (&**self.configs.frames(), head.item.frame.time))
            }
        }
    }

    /// How many frames a reader loses that wanted `next` and joins at `at`.
    fn lost(&self, next: Option<Position>, at: Position) -> u64 {
        match (next, self.ended) {
            (None, _) => 0,
            (Some(next), _) if next.epoch == at.epoch => at.seq.saturating_sub(next.seq),
            (Some(next), Some(ended)) if next.epoch == ended.epoch => {
                (ended.seq + 1).saturating_sub(next.seq) + at.seq
            }
            (Some(_), _) => at.seq,
        }
    }

    /// Whether a key frame may be expected.
    fn video_is_live(&self) -> bool {
        match (self.video.last, self.ring.back()) {
            (Some(last), Some(head)) => {
                head.item.frame.time.0.saturating_sub(last.0) <= self.limits.video_silence_ms
            }
            (None, _) | (_, None) => false,
        }
    }

    /// Begins a run with the configuration that was primed.
    fn restart(&mut self, at: Position, time: MediaTime) {
        if let Some(head) = self.head() {
            self.ended = Some(head);
        }
        self.forget_frames();
        if self.primed_for.is_some_and(|primed_for| primed_for != at) {
            self.primed.clear();
        }
        for frame in std::mem::take(&mut self.primed) {
            self.configs.note(&frame, &self.limits);
            if frame.kind == Kind::Video {
                self.video.last = Some(time);
            }
        }
        self.base = self.configs.clone();
        self.epoch = at.epoch;
        self.run += 1;
        self.run_first = at.seq;
    }

    fn forget(&mut self) {
        self.forget_frames();
        self.primed.clear();
        self.base = self.configs.clone();
    }

    fn forget_frames(&mut self) {
        self.ring.clear();
        self.bytes = 0;
        self.video = Video::default();
        self.configs.clear();
    }

    /// Takes the frame that follows.
    fn take(&mut self, item: Sequenced) {
        self.configs.note(&item.frame, &self.limits);
        if item.frame.kind == Kind::Video {
            self.video.note(&item, self.configs.frames());
        }
        let mut cost = FRAME_COST + item.frame.payload.len();
        if item.frame.class == Class::Config {
            // The new set that key frames will pin.
            cost += self.configs.frames().len() * size_of::<Frame>();
        }
        self.bytes += cost;
        let before = self.pushed;
        self.pushed += item.frame.payload.len() as u64;
        self.ring.push_back(Entry { item, before, cost });
        self.evict();
    }

    fn evict(&mut self) {
        while self.ring.len() > 1 && (self.is_over() || self.is_stale()) {
            let Some(old) = self.ring.pop_front() else {
                return;
            };
            self.bytes -= old.cost;
            self.video.forget(&old.item);
            self.base.note(&old.item.frame, &self.limits);
        }
    }

    /// Whether the backlog is too large.
    fn is_over(&self) -> bool {
        self.bytes > self.limits.bytes || self.ring.len() > self.limits.frames
    }

    /// Whether the oldest frame is past its time and no join needs it.
    fn is_stale(&self) -> bool {
        let (Some(front), Some(head)) = (self.ring.front(), self.ring.back()) else {
            return false;
        };
        let age = head
            .item
            .frame
            .time
            .0
            .saturating_sub(front.item.frame.time.0);
        let needed = self
            .video
            .join_point()
            .is_some_and(|key| key.seq <= front.item.at.seq);
        age > self.limits.time_ms && !needed
    }
}

impl Default for Backlog {
    fn default() -> Self {
        Self::new(Limits::DEFAULT)
    }
}

/// What a seeking reader finds.
enum Found {
    Nothing,
    Exact(Position),
    Join(Pinned, Position),
}
