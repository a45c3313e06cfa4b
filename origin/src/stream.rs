//! One stream: who may publish it, what is kept of it, who watches it.
//!
//! A synchronous machine: the time is an argument, waking somebody is a call to a
//! [`Wake`], and the hub holds it behind a mutex that is never held across an await.
//!
//! ```text
//!             publish, resume
//!   free ─────────────────────▶ held ──link_lost──▶ in grace ──handle_timeout──▶ free
//!    ▲                          │  ▲                    │
//!    └────────unpublish─────────┘  └──────resume────────┘
//! ```
//!
//! The log may say that a publish is over before its link does, whose last frames are then
//! still on their way: it is `leaving`, until its link says so too, the next publish begins
//! here, or [`LAST_FRAMES_GRACE`] is over.
//!
//! Every publish is an [`Incarnation`] with a backlog of its own. One that has ended is
//! kept until those who watch have read it to its end, so that a name that is published
//! again at once costs nobody the last frames.

mod incarnation;
mod subscriber;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fabric::v1::refused::Reason;
use fabric::v1::source::State;
use fabric::{Arrival, Credit};
use model::{EdgeLife, Epoch, Frame, Position, Sequenced};
use node::telemetry::SpanPlace;
use node::telemetry::frames::Passing;

use incarnation::{End, Incarnation};
use subscriber::{Place, Subscriber, Told};

use crate::limits::{INCARNATIONS_MAX, LAST_FRAMES_GRACE};

/// One link of one edge, unique in the life of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// A publication or subscription: the number its edge gave it on its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OnLink {
    /// Which link.
    pub link: LinkId,
    /// Which number on it.
    pub id: u32,
}

/// A publish that the replicated log granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The edge that holds the name.
    pub life: EdgeLife,
    /// Under this epoch.
    pub epoch: Epoch,
    /// The epoch from which on it is one stream to its viewers; its own, unless it follows
    /// another publish without a break.
    pub began: Epoch,
    /// Where the publish stands in a trace.
    pub trace: Option<SpanPlace>,
}

/// The right to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The epoch of the publish.
    pub epoch: Epoch,
    /// The first frame number that is lacking here.
    pub next: u64,
    /// Whose publication was ended by this one, if that one was alive.
    pub superseded: Option<OnLink>,
}

/// Told that a subscription has something to read.
pub trait Wake: Send + Sync {
    /// Subscription `id` of the link has something to read. Called with the stream locked:
    /// it must not come back to the stream.
    fn ready(&self, id: u32);
}

/// Where a subscription's output goes, in order.
pub trait Sink {
    /// The stream is published, and has been without a break since `began`. `trace` is where
    /// the publish stands in a trace.
    fn published(&mut self, id: u32, epoch: Epoch, began: Epoch, trace: Option<SpanPlace>);
    /// What else became of the stream.
    fn source(&mut self, id: u32, state: State, epoch: Epoch);
    /// A configuration in force.
    fn in_force(&mut self, id: u32, seq: u64, frame: &Frame);
    /// The next frame and when its batch was received from the publisher, in
    /// microseconds since 1970 or 0.
    fn frame(&mut self, id: u32, frame: &Sequenced, ingest_micros: u64);
    /// The frame that was given last is traced; the subscriber has so many behind it to read.
    fn traced(&mut self, id: u32, frame: &Sequenced, passing: &Passing, behind: u64) {
        let _not_wanted = (id, frame, passing, behind);
    }
    /// So many frames were lost because the subscriber lagged.
    fn skipped(&mut self, id: u32, frames: u64);
}

/// Why a [`Stream::read`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// There is more, but others wait too: read again.
    More,
    /// There is nothing, or no credit: [`Wake::ready`] will be called.
    Done,
}

/// What became of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Numbered frames that are in the backlog.
    pub frames: u64,
    /// Their payload.
    pub bytes: u64,
    /// Frames that were there already.
    pub duplicates: u64,
}

/// How a stream stands, for who looks at it alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Whether it is published, or in its grace.
    pub published: bool,
    /// Edges that take it.
    pub edges: usize,
    /// Numbered frames that it was brought since it began.
    pub frames: u64,
    /// Their payload.
    pub bytes: u64,
}

/// The publication does not hold the stream, or no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotHolder;

#[derive(Debug)]
struct Holder {
    by: OnLink,
    life: EdgeLife,
    epoch: Epoch,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It publishes.
    Live,
    /// Its link is lost; it may come back until then.
    Lost(Instant),
    /// The log says that it is over; what its link still brings is taken until then.
    Leaving(Instant),
}

/// A publication that the log says is over, and whose link is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// Whose it is.
    pub by: OnLink,
    /// When it ends if its link does not end it before; [`Stream::handle_timeout`] is to be
    /// called then.
    pub until: Instant,
}

/// One stream. See the [module](self).
pub struct Stream {
    limits: media::Limits,
    holder: Option<Holder>,
    /// The newest epoch known; older ones are from the dead.
    epoch: Epoch,
    /// Oldest first; at most the last is not ended.
    incarnations: VecDeque<Incarnation>,
    /// The serial number of `incarnations[0]`.
    first: u64,
    subscribers: BTreeMap<OnLink, Subscriber>,
    /// Frames and bytes that were taken.
    taken: (u64, u64),
}

impl Stream {
    /// A stream that nobody publishes and nobody watches.
    #[must_use]
    pub const fn new(limits: media::Limits) -> Self {
        Self {
            limits,
            holder: None,
            epoch: Epoch(0),
            incarnations: VecDeque::new(),
            first: 0,
            subscribers: BTreeMap::new(),
            taken: (0, 0),
        }
    }

    /// A publish that the replicated log granted, under this epoch, begins here, or goes on
    /// from another origin or another link.
    ///
    /// # Errors
    /// A later publish of the name is known, or another holds this very epoch.
    pub fn publish(&mut self, by: OnLink, claimed: Claimed) -> Result<Grant, Reason> {
        let epoch = claimed.epoch;
        if epoch < self.epoch {
            return Err(Reason::Superseded);
        }
        if let Some(holder) = &mut self.holder
            && epoch == holder.epoch
        {
            if holder.life != claimed.life {
                return Err(Reason::Superseded);
            }
            *holder = Holder {
                by,
                life: claimed.life,
                epoch,
                standing: Standing::Live,
            };
            let last = self.incarnations.back_mut();
            let next = last.map_or(0, |last| {
                last.trace = claimed.trace;
                last.next()
            });
            return Ok(Grant {
                epoch,
                next,
                superseded: None,
            });
        }
        let superseded = self
            .holder
            .as_ref()
            .filter(|holder| holder.standing == Standing::Live)
            .map(|holder| holder.by);
        if self.holder.is_some() {
            self.end(End::Superseded);
        }
        self.begin(by, claimed);
        Ok(Grant {
            epoch,
            next: 0,
            superseded,
        })
    }

    /// The replicated log says that the newest publish of the name is `epoch`, and whether
    /// somebody still holds it. What is older here, or is over, ends: at once if its link is
    /// lost, else when its last frames are here. Returns the latter, the first time.
    pub fn decided(&mut self, epoch: Epoch, held: bool, now: Instant) -> Option<Leaving> {
        self.epoch = self.epoch.max(epoch);
        let holder = self.holder.as_mut()?;
        if holder.epoch > epoch || (holder.epoch == epoch && held) {
            return None;
        }
        match holder.standing {
            Standing::Live => {
                let until = now + LAST_FRAMES_GRACE;
                holder.standing = Standing::Leaving(until);
                Some(Leaving {
                    by: holder.by,
                    until,
                })
            }
            Standing::Lost(_) => {
                self.end_by_log();
                None
            }
            Standing::Leaving(_) => None,
        }
    }

    /// The replicated log knows of no publish of the name, up to this epoch. Returns whose
    /// publication ended by it, if its link is alive.
    pub fn unknown(&mut self, through: Epoch) -> Option<OnLink> {
        let holder = self.holder.as_ref()?;
        let by = (holder.standing == Standing::Live).then_some(holder.by);
        if self.epoch > through {
            return None;
        }
        self.end(End::Unpublished);
        by
    }

    /// The publication is over: the name is free at once. Returns whether it held it.
    pub fn unpublish(&mut self, by: OnLink, moved: bool) -> bool {
        let held = self.is_held_by(by);
        if held {
            self.end(if moved { End::Moved } else { End::Unpublished });
        }
        held
    }

    /// The link of a publication is lost: the name is kept until the instant returned.
    pub fn link_lost(&mut self, by: OnLink, now: Instant, grace: Duration) -> Option<Instant> {
        let holder = self.holder.as_mut().filter(|holder| holder.by == by)?;
        if let Standing::Leaving(_) = holder.standing {
            self.end_by_log();
            return None;
        }
        let until = now + grace;
        holder.standing = Standing::Lost(until);
        Some(until)
    }

    /// Frees the name if its grace is over. Returns whether a publisher did not come back.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        match self.holder.as_ref().map(|holder| holder.standing) {
            Some(Standing::Lost(until)) if until <= now => {
                self.end(End::Unpublished);
                true
            }
            Some(Standing::Leaving(until)) if until <= now => {
                self.end_by_log();
                false
            }
            Some(Standing::Live | Standing::Lost(_) | Standing::Leaving(_)) | None => false,
        }
    }

    /// Takes frames of a publication. Those who watch are woken once.
    ///
    /// # Errors
    /// The publication does not hold the stream; nothing is taken.
    pub fn append(
        &mut self,
        by: OnLink,
        frames: impl IntoIterator<Item = Arrival>,
        ingest_micros: u64,
    ) -> Result<Taken, NotHolder> {
        if !self.is_held_by(by) {
            return Err(NotHolder);
        }
        let Some(incarnation) = self.incarnations.back_mut() else {
            return Err(NotHolder);
        };
        let taken = incarnation.append(frames, ingest_micros);
        self.taken.0 += taken.frames;
        self.taken.1 += taken.bytes;
        self.wake_all();
        Ok(taken)
    }

    /// The frame with this number, which a publication is about to bring, is traced. Says in
    /// which epoch it is; `None` if the publication does not hold the stream.
    pub fn trace(&mut self, by: OnLink, seq: u64, passing: Passing) -> Option<Epoch> {
        if !self.is_held_by(by) {
            return None;
        }
        let incarnation = self.incarnations.back_mut()?;
        let epoch = incarnation.epoch;
        incarnation.traced.note(Position { epoch, seq }, passing);
        Some(epoch)
    }

    /// Forgets the past: the frames, not what is in force. Readers who have everything go on,
    /// the others join at the next key frame.
    pub fn shed(&mut self) {
        for incarnation in &mut self.incarnations {
            incarnation.shed();
        }
    }

    /// Somebody watches. `resume` is the first frame that the subscriber lacks, if it has
    /// seen the stream before.
    pub fn subscribe(
        &mut self,
        by: OnLink,
        resume: Option<Position>,
        credit: u64,
        wake: Arc<dyn Wake>,
    ) {
        let live = self.incarnations.back().filter(|last| last.end.is_none());
        let place = match live {
            Some(live) => Place::Before {
                serial: self.serial_behind() - 1,
                witness: live.backlog.is_empty(),
            },
            None => Place::Before {
                serial: self.serial_behind(),
                witness: true,
            },
        };
        let subscriber = Subscriber {
            wake,
            queued: false,
            credit: Credit::new(credit),
            told: Told::Nothing,
            place,
            next: resume,
        };
        let replaced = self.subscribers.insert(by, subscriber);
        debug_assert!(
            replaced.is_none(),
            "an edge's numbers are checked by its session"
        );
        self.wake(by);
    }

    /// Somebody no longer watches.
    pub fn unsubscribe(&mut self, by: OnLink) {
        self.subscribers.remove(&by);
        self.forget_what_all_have_read();
    }

    /// A subscriber gave back credit.
    pub fn give(&mut self, by: OnLink, bytes: u64) {
        if let Some(subscriber) = self.subscribers.get_mut(&by)
            && subscriber.credit.give(bytes)
        {
            subscriber.ring(by.id);
        }
    }

    /// Gives a subscriber what there is for it, in order, until about `quantum` bytes are
    /// read. The reader does not come back before [`Wake::ready`], except for
    /// [`Turn::More`].
    pub fn read(&mut self, by: OnLink, quantum: usize, sink: &mut impl Sink) -> Turn {
        let Some(subscriber) = self.subscribers.get_mut(&by) else {
            return Turn::Done;
        };
        let (turn, left_one) =
            subscriber.read(by.id, &self.incarnations, self.first, quantum, sink);
        subscriber.queued = turn == Turn::More;
        if left_one {
            self.forget_what_all_have_read();
        }
        turn
    }

    /// Whether somebody has the right to publish, be it in its grace.
    #[must_use]
    pub const fn is_held(&self) -> bool {
        self.holder.is_some()
    }

    /// Whether this publication has the right to publish.
    #[must_use]
    pub fn is_held_by(&self, by: OnLink) -> bool {
        self.holder.as_ref().is_some_and(|holder| holder.by == by)
    }

    /// Whether nobody publishes and nobody watches.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.holder.is_none() && self.subscribers.is_empty()
    }

    /// How it stands.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let (frames, bytes) = self.taken;
        Figures {
            published: self.is_held(),
            edges: self.subscribers.len(),
            frames,
            bytes,
        }
    }

    /// What the backlogs cost, as [`media::Limits::bytes`] counts.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.incarnations
            .iter()
            .map(|incarnation| incarnation.backlog.bytes())
            .sum()
    }

    fn begin(&mut self, by: OnLink, claimed: Claimed) {
        let Claimed {
            life,
            epoch,
            began,
            trace,
        } = claimed;
        self.epoch = epoch;
        self.holder = Some(Holder {
            by,
            life,
            epoch,
            standing: Standing::Live,
        });
        self.incarnations
            .push_back(Incarnation::new(epoch, began, trace, self.limits));
        while self.incarnations.len() > INCARNATIONS_MAX {
            self.incarnations.pop_front();
            self.first += 1;
        }
        self.forget_what_all_have_read();
        self.wake_all();
    }

    /// What the log says is over ends: by the next publish, or because it was released.
    fn end_by_log(&mut self) {
        let last = self.holder.as_ref().map(|holder| holder.epoch);
        self.end(match last {
            Some(last) if last < self.epoch => End::Superseded,
            Some(_) | None => End::Unpublished,
        });
    }

    fn end(&mut self, how: End) {
        self.holder = None;
        if let Some(last) = self.incarnations.back_mut() {
            last.end = Some(how);
        }
        self.forget_what_all_have_read();
        self.wake_all();
    }

    /// The serial number that the next incarnation will have.
    fn serial_behind(&self) -> u64 {
        self.first + self.incarnations.len() as u64
    }

    fn forget_what_all_have_read(&mut self) {
        let behind = self.serial_behind();
        let needed = self
            .subscribers
            .values()
            .map(Subscriber::serial)
            .min()
            .unwrap_or(behind);
        while self.first < needed
            && self
                .incarnations
                .front()
                .is_some_and(|oldest| oldest.end.is_some())
        {
            self.incarnations.pop_front();
            self.first += 1;
        }
    }

    fn wake(&mut self, by: OnLink) {
        if let Some(subscriber) = self.subscribers.get_mut(&by) {
            subscriber.ring(by.id);
        }
    }

    fn wake_all(&mut self) {
        for (by, subscriber) in &mut self.subscribers {
            subscriber.ring(by.id);
        }
    }
}

#[cfg(test)]
mod tests;
