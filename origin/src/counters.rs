//! What an origin counts. Each figure only grows.

use std::sync::atomic::{AtomicU64, Ordering};

/// The counters of one origin.
#[derive(Debug, Default)]
pub struct Counters {
    /// Frames taken into a backlog.
    pub frames_in: Counter,
    /// Bytes of payload received in frames, taken or not.
    pub bytes_in: Counter,
    /// Frames for publications that are unknown or over, and frames that were there already.
    pub frames_ignored: Counter,
    /// Frames sent, configurations in force included.
    pub frames_out: Counter,
    /// Bytes of payload sent.
    pub bytes_out: Counter,
    /// Frames that subscriptions lost because they lagged.
    pub frames_skipped: Counter,
    /// Batches sent.
    pub batches_out: Counter,
    /// Backlogs dropped because the node's memory was used up.
    pub backlogs_shed: Counter,
    /// Links ended because of what the edge sent.
    pub links_faulted: Counter,
}

/// A figure that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The sum so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
