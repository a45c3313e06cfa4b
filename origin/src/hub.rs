//! The streams of this node, and the bounds on all of them together.
//!
//! Every operation is a short critical section. What changes who publishes or who watches
//! holds the map and then the stream; frames and credits hold the stream alone. No lock
//! is held across an await, and a stream may call an [`Outbox`], never the reverse.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fabric::v1::refused::Reason;
use fabric::v1::{self, to_edge::Body};
use fabric::{Arrival, LinkError};
use ledger::effect::StreamState;
use model::{EdgeId, Epoch, LogIndex, Position, StreamKey};
use node::telemetry::frames::Passing;
use tokio::sync::Notify;

use crate::counters::Counters;
use crate::limits::Limits;
use crate::outbox::{End, Outbox};
use crate::stream::{
    Claimed, Figures, Grant, Leaving, LinkId, NotHolder, OnLink, Sink, Stream, Taken, Turn,
};

/// See the [module](self).
pub struct Hub {
    limits: Limits,
    grace: Duration,
    streams: Mutex<Streams>,
    links: Mutex<BTreeMap<LinkId, Arc<Outbox>>>,
    /// What edges say of themselves.
    loads: Mutex<BTreeMap<LinkId, (EdgeId, v1::Load)>>,
    next_link: AtomicU64,
    /// What all backlogs cost.
    bytes: AtomicUsize,
    /// Streams that are published, or in their grace.
    published: AtomicUsize,
    /// `published` became less.
    freed: Notify,
    draining: AtomicBool,
    counters: Counters,
}

#[derive(Default)]
struct Streams {
    by_key: HashMap<StreamKey, Arc<Cell>>,
    /// Who holds which name, as far as the log is applied here.
    claims: BTreeMap<StreamKey, Epoch>,
    /// How far that is.
    applied: LogIndex,
    /// When graces end. An entry may be out of date; the stream knows better.
    graces: BTreeSet<(Instant, StreamKey)>,
}

impl Streams {
    /// Whether the log has decided that this publish is over. An epoch is the number of the
    /// entry that granted it, or greater: one that is not known and could be by now is over,
    /// one that could not may only be not applied here yet.
    fn is_over(&self, key: &StreamKey, epoch: Epoch) -> bool {
        match self.claims.get(key) {
            Some(holder) => epoch < *holder,
            None => epoch.0 <= self.applied.0,
        }
    }
}

/// A stream and its lock.
pub struct Cell {
    key: StreamKey,
    stream: Mutex<Stream>,
}

impl Cell {
    /// What it is called.
    #[must_use]
    pub const fn key(&self) -> &StreamKey {
        &self.key
    }
}

/// Why a publish or a subscription is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For the program.
    pub reason: Reason,
    /// For people.
    pub text: &'static str,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        let text = match reason {
            Reason::Unspecified => "",
            Reason::InUse => "somebody else publishes this name",
            Reason::Superseded => "a later publish of this name is known",
            Reason::Limit => "this origin holds as many streams as it may",
            Reason::Invalid => "the request is wrong",
            Reason::Draining => "this origin is leaving",
        };
        Self { reason, text }
    }
}

impl Hub {
    /// A hub without streams. A publication whose link is lost keeps its name for `grace`.
    #[must_use]
    pub fn new(limits: Limits, grace: Duration) -> Self {
        Self {
            limits,
            grace,
            streams: Mutex::default(),
            links: Mutex::default(),
            loads: Mutex::default(),
            next_link: AtomicU64::new(1),
            bytes: AtomicUsize::new(0),
            published: AtomicUsize::new(0),
            freed: Notify::new(),
            draining: AtomicBool::new(false),
            counters: Counters::default(),
        }
    }

    /// The bounds.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What was counted.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Streams that are published, or in their grace.
    #[must_use]
    pub fn published(&self) -> usize {
        self.published.load(Ordering::Relaxed)
    }

    /// Streams that are published or watched.
    #[must_use]
    pub fn streams(&self) -> usize {
        lock(&self.streams).by_key.len()
    }

    /// Every stream that is published or watched, and how it stands.
    #[must_use]
    pub fn each_stream(&self) -> Vec<(StreamKey, Figures)> {
        // Nobody waits for the map while streams are looked at.
        let cells: Vec<_> = lock(&self.streams).by_key.values().cloned().collect();
        let figures = |cell: Arc<Cell>| (cell.key.clone(), lock(&cell.stream).figures());
        cells.into_iter().map(figures).collect()
    }

    /// What all backlogs cost, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Links at present.
    #[must_use]
    pub fn links(&self) -> usize {
        lock(&self.links).len()
    }

    /// A link begins; what is to be sent on it goes to `outbox`.
    ///
    /// # Errors
    /// There are as many as there may be.
    pub fn connect(&self, outbox: Arc<Outbox>) -> Result<LinkId, LinkError> {
        let mut links = lock(&self.links);
        if links.len() >= self.limits.links {
            return Err(LinkError::LimitExceeded(format!(
                "{} links",
                self.limits.links
            )));
        }
        let link = LinkId(self.next_link.fetch_add(1, Ordering::Relaxed));
        links.insert(link, outbox);
        Ok(link)
    }

    /// A link is gone. Its publications and subscriptions are told by
    /// [`Self::link_lost`] and [`Self::unsubscribe`].
    pub fn disconnect(&self, link: LinkId) {
        lock(&self.loads).remove(&link);
        lock(&self.links).remove(&link);
    }

    /// An edge says how much it has to do.
    pub fn heard_of(&self, link: LinkId, edge: &EdgeId, load: v1::Load) {
        lock(&self.loads).insert(link, (edge.clone(), load));
    }

    /// Whose link it is, if that edge has said how much it has to do.
    #[must_use]
    pub fn edge_of(&self, link: LinkId) -> Option<EdgeId> {
        lock(&self.loads).get(&link).map(|(edge, _)| edge.clone())
    }

    /// The edges that have a link here, in the order of their names, and how much each has to
    /// do as far as it has said.
    #[must_use]
    pub fn edges(&self) -> BTreeMap<EdgeId, v1::Load> {
        // An edge that comes back may have two links for a moment: the newer one counts.
        lock(&self.loads).values().cloned().collect()
    }

    /// Takes a publish that the replicated log has granted, under its epoch.
    ///
    /// # Errors
    /// Why not.
    pub fn publish(
        &self,
        by: OnLink,
        key: StreamKey,
        claimed: Claimed,
    ) -> Result<(Arc<Cell>, Grant), Refusal> {
        let mut streams = lock(&self.streams);
        if self.draining.load(Ordering::Relaxed) {
            return Err(Reason::Draining.into());
        }
        if streams.is_over(&key, claimed.epoch) {
            return Err(Reason::Superseded.into());
        }
        let cell = self.cell(&mut streams, key)?;
        let answer = self.with(&cell, |stream| stream.publish(by, claimed));
        drop(streams);
        let grant = answer?;
        if let Some(loser) = grant.superseded {
            self.tell_ended(loser);
        }
        Ok((cell, grant))
    }

    /// What the log says of a stream: what is older here than its newest publish ends, and
    /// so does that one when nobody holds it any more. [`Self::expire`] is to be called now
    /// and then, for what a link leaves unfinished.
    pub fn ledger_says(&self, key: &StreamKey, state: &StreamState, now: Instant) {
        let mut streams = lock(&self.streams);
        let held = state.holder.is_some();
        if held {
            streams.claims.insert(key.clone(), state.epoch);
        } else {
            streams.claims.remove(key);
        }
        let Some(cell) = streams.by_key.get(key).cloned() else {
            return;
        };
        let leaving = self.with(&cell, |stream| stream.decided(state.epoch, held, now));
        if let Some(Leaving { until, .. }) = leaving {
            streams.graces.insert((until, key.clone()));
        }
        self.drop_if_idle(&mut streams, &cell);
        drop(streams);
        if let Some(Leaving { by, .. }) = leaving {
            self.tell_ended(by);
        }
    }

    /// The log is applied up to here.
    pub fn ledger_reached(&self, index: LogIndex) {
        lock(&self.streams).applied = index;
    }

    /// The state of the log was replaced: this is who holds which name.
    pub fn ledger_restored<'a>(
        &self,
        index: LogIndex,
        claims: impl Iterator<Item = (&'a StreamKey, StreamState)>,
        now: Instant,
    ) {
        let claims: Vec<_> = claims.collect();
        {
            let mut streams = lock(&self.streams);
            streams.applied = index;
            streams.claims.clear();
        }
        for (key, state) in claims {
            self.ledger_says(key, &state, now);
        }
        // What is published here and not among them is over.
        let over: Vec<_> = {
            let streams = lock(&self.streams);
            let cells = streams.by_key.values();
            cells
                .filter(|cell| !streams.claims.contains_key(&cell.key))
                .cloned()
                .collect()
        };
        for cell in over {
            let mut streams = lock(&self.streams);
            let loser = self.with(&cell, |stream| stream.unknown(Epoch(index.0)));
            self.drop_if_idle(&mut streams, &cell);
            drop(streams);
            if let Some(loser) = loser {
                self.tell_ended(loser);
            }
        }
    }

    fn tell_ended(&self, loser: OnLink) {
        if let Some(outbox) = lock(&self.links).get(&loser.link) {
            outbox.push(Body::Ended(v1::Ended {
                id: loser.id,
                reason: Reason::Superseded.into(),
            }));
        }
    }

    /// A publication is over. Returns whether it held its name.
    pub fn unpublish(&self, cell: &Arc<Cell>, by: OnLink, moved: bool) -> bool {
        let mut streams = lock(&self.streams);
        let held = self.with(cell, |stream| stream.unpublish(by, moved));
        self.drop_if_idle(&mut streams, cell);
        held
    }

    /// The link of a publication is lost. Returns when its grace ends: [`Self::expire`] is
    /// to be called then.
    pub fn link_lost(&self, cell: &Arc<Cell>, by: OnLink, now: Instant) -> Option<Instant> {
        let mut streams = lock(&self.streams);
        let until = self.with(cell, |stream| stream.link_lost(by, now, self.grace))?;
        streams.graces.insert((until, cell.key.clone()));
        Some(until)
    }

    /// Frees the names whose grace is over.
    pub fn expire(&self, now: Instant) {
        let mut streams = lock(&self.streams);
        while let Some((until, _)) = streams.graces.first()
            && *until <= now
            && let Some((_, key)) = streams.graces.pop_first()
        {
            if let Some(cell) = streams.by_key.get(&key).cloned() {
                if self.with(&cell, |stream| stream.handle_timeout(now)) {
                    tracing::info!(stream = %key, "publisher did not come back");
                }
                self.drop_if_idle(&mut streams, &cell);
            }
        }
    }

    /// Takes frames of a publication.
    ///
    /// # Errors
    /// It does not hold its name, or no longer.
    pub fn append(
        &self,
        cell: &Cell,
        by: OnLink,
        frames: impl IntoIterator<Item = Arrival>,
        ingest_micros: u64,
    ) -> Result<Taken, NotHolder> {
        let shed = self.bytes() > self.limits.backlog_total;
        self.with(cell, |stream| {
            if shed && stream.bytes() > self.limits.backlog_total / self.published().max(1) {
                stream.shed();
                self.counters.backlogs_shed.add(1);
            }
            stream.append(by, frames, ingest_micros)
        })
    }

    /// A frame that a publication is about to bring is traced, see [`Stream::trace`].
    pub fn trace(&self, cell: &Cell, by: OnLink, seq: u64, passing: Passing) -> Option<Epoch> {
        lock(&cell.stream).trace(by, seq, passing)
    }

    /// Whether a publication still holds its name.
    #[must_use]
    pub fn is_held_by(&self, cell: &Cell, by: OnLink) -> bool {
        lock(&cell.stream).is_held_by(by)
    }

    /// Watches a stream, be it published or not. `resume` is the first frame that is
    /// lacking, if the subscriber has seen the stream before.
    ///
    /// # Errors
    /// There are as many streams as there may be.
    pub fn subscribe(
        &self,
        by: OnLink,
        key: StreamKey,
        resume: Option<Position>,
        credit: u64,
        outbox: &Arc<Outbox>,
    ) -> Result<Arc<Cell>, Refusal> {
        let mut streams = lock(&self.streams);
        let cell = self.cell(&mut streams, key)?;
        // First the way back, then what may ring at once.
        outbox.register(by.id, Arc::clone(&cell));
        let wake = Arc::clone(outbox);
        self.with(&cell, |stream| stream.subscribe(by, resume, credit, wake));
        Ok(cell)
    }

    /// No longer watches a stream.
    pub fn unsubscribe(&self, cell: &Arc<Cell>, by: OnLink, outbox: &Outbox) {
        outbox.unregister(by.id);
        let mut streams = lock(&self.streams);
        self.with(cell, |stream| stream.unsubscribe(by));
        self.drop_if_idle(&mut streams, cell);
    }

    /// A subscription gave back credit.
    pub fn give(&self, cell: &Cell, by: OnLink, bytes: u64) {
        self.with(cell, |stream| stream.give(by, bytes));
    }

    /// Reads for a subscription, see [`Stream::read`].
    pub fn read(&self, cell: &Cell, by: OnLink, quantum: usize, sink: &mut impl Sink) -> Turn {
        self.with(cell, |stream| stream.read(by, quantum, sink))
    }

    /// Grants nothing from now on, and tells every link so.
    pub fn drain(&self) {
        {
            // Under the lock of the map, so that no grant is on its way behind this.
            let _streams = lock(&self.streams);
            self.draining.store(true, Ordering::Relaxed);
        }
        for outbox in lock(&self.links).values() {
            outbox.push(Body::Draining(v1::Draining {}));
        }
    }

    /// Whether [`Self::drain`] was called.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Resolves when nothing is published.
    pub async fn until_unpublished(&self) {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // It counts from here, not from the first poll.
            freed.as_mut().enable();
            if self.published() == 0 {
                return;
            }
            freed.await;
        }
    }

    /// Ends every link.
    pub fn close_links(&self) {
        for outbox in lock(&self.links).values() {
            outbox.end(End::Error(LinkError::Leaving));
        }
    }

    fn cell(&self, streams: &mut Streams, key: StreamKey) -> Result<Arc<Cell>, Refusal> {
        if let Some(cell) = streams.by_key.get(&key) {
            return Ok(Arc::clone(cell));
        }
        if streams.by_key.len() >= self.limits.streams {
            return Err(Reason::Limit.into());
        }
        let stream = Mutex::new(Stream::new(self.limits.backlog()));
        let cell = Arc::new(Cell {
            key: key.clone(),
            stream,
        });
        streams.by_key.insert(key, Arc::clone(&cell));
        Ok(cell)
    }

    fn drop_if_idle(&self, streams: &mut Streams, cell: &Arc<Cell>) {
        let current = streams
            .by_key
            .get(&cell.key)
            .is_some_and(|now| Arc::ptr_eq(now, cell));
        if current && lock(&cell.stream).is_idle() {
            streams.by_key.remove(&cell.key);
        }
    }

    /// Changes a stream and keeps the sums.
    fn with<R>(&self, cell: &Cell, change: impl FnOnce(&mut Stream) -> R) -> R {
        let mut stream = lock(&cell.stream);
        let (bytes, held) = (stream.bytes(), stream.is_held());
        let answer = change(&mut stream);
        match stream.bytes() {
            now if now > bytes => self.bytes.fetch_add(now - bytes, Ordering::Relaxed),
            now => self.bytes.fetch_sub(bytes - now, Ordering::Relaxed),
        };
        match (held, stream.is_held()) {
            (false, true) => {
                self.published.fetch_add(1, Ordering::Relaxed);
            }
            (true, false) => {
                self.published.fetch_sub(1, Ordering::Relaxed);
                self.freed.notify_waiters();
            }
            (false, false) | (true, true) => {}
        }
        answer
    }
}

/// A panic in another critical section ended one connection; what it guarded is judged by
/// its own rules, so the others go on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
