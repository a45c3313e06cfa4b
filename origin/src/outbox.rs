//! What waits to be sent on one link.
//!
//! Whoever has something for an edge leaves it here and goes on; the link's writer takes
//! it when the transport has room. Answers wait as messages, with a bound. Media does not
//! wait here at all: a subscription that has something to read leaves its number, once,
//! and the writer reads from the stream itself.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fabric::LinkError;
use fabric::v1::to_edge::Body;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::hub::Cell;
use crate::stream::Wake;

/// See the [module](self).
pub struct Outbox {
    waiting: Mutex<Waiting>,
    filled: Notify,
    over: CancellationToken,
    control_max: usize,
}

#[derive(Default)]
struct Waiting {
    control: VecDeque<Body>,
    /// Subscriptions that have something to read. May hold numbers that are gone.
    ready: VecDeque<u32>,
    streams: HashMap<u32, Arc<Cell>>,
    end: Option<End>,
}

/// How a link ends.
#[derive(Clone, Debug)]
pub enum End {
    /// Both sides agree.
    Closed,
    /// This side ends it.
    Error(LinkError),
    /// The transport broke, or what came is no message.
    Broken(Status),
}

/// What the writer does next.
pub enum Next {
    /// Send this.
    Control(Body),
    /// Read from this stream for this subscription.
    Read(u32, Arc<Cell>),
    /// End the link; nothing is left to send.
    End(End),
    /// Wait.
    Nothing,
}

impl Outbox {
    /// An empty one that holds up to `control_max` messages.
    #[must_use]
    pub fn new(control_max: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            filled: Notify::new(),
            over: CancellationToken::new(),
            control_max,
        }
    }

    /// Leaves a message. If too many wait, the edge does not read and the link ends.
    pub fn push(&self, body: Body) {
        let mut waiting = self.lock();
        if waiting.control.len() < self.control_max {
            waiting.control.push_back(body);
            drop(waiting);
            self.filled.notify_one();
        } else {
            drop(waiting);
            let limit = format!("{} messages wait to be read by the edge", self.control_max);
            self.end(End::Error(LinkError::LimitExceeded(limit)));
        }
    }

    /// Ends the link: the writer sends what waits and then says so. The first end counts.
    pub fn end(&self, end: End) {
        self.lock().end.get_or_insert(end);
        self.over.cancel();
        self.filled.notify_one();
    }

    /// Resolves when the link has ended.
    pub async fn ended(&self) {
        self.over.cancelled().await;
    }

    /// How the link ended, if it has.
    #[must_use]
    pub fn how(&self) -> Option<End> {
        self.lock().end.clone()
    }

    /// A subscription may become ready from now on.
    pub fn register(&self, id: u32, stream: Arc<Cell>) {
        self.lock().streams.insert(id, stream);
    }

    /// A subscription is gone.
    pub fn unregister(&self, id: u32) {
        let mut waiting = self.lock();
        let Waiting { ready, streams, .. } = &mut *waiting;
        streams.remove(&id);
        // An edge that comes and goes without reading must not make the queue grow.
        if ready.len() > 2 * streams.len() + 64 {
            ready.retain(|id| streams.contains_key(id));
        }
    }

    /// What to do next: answers before media, since they are small and others wait for
    /// them.
    #[must_use]
    pub fn next(&self) -> Next {
        let mut waiting = self.lock();
        if let Some(body) = waiting.control.pop_front() {
            return Next::Control(body);
        }
        if let Some(end) = &waiting.end {
            return Next::End(end.clone());
        }
        while let Some(id) = waiting.ready.pop_front() {
            if let Some(stream) = waiting.streams.get(&id) {
                return Next::Read(id, Arc::clone(stream));
            }
        }
        Next::Nothing
    }

    /// The next subscription that has something to read.
    #[must_use]
    pub fn next_ready(&self) -> Option<(u32, Arc<Cell>)> {
        let mut waiting = self.lock();
        while let Some(id) = waiting.ready.pop_front() {
            if let Some(stream) = waiting.streams.get(&id) {
                return Some((id, Arc::clone(stream)));
            }
        }
        None
    }

    /// Resolves when something was left since the last time. To be called by one task.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Every change leaves it whole, so a panic elsewhere does not matter.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Outbox {
    fn ready(&self, id: u32) {
        self.lock().ready.push_back(id);
        self.filled.notify_one();
    }
}
