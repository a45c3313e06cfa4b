//! What many are told, as one span.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use node::telemetry::Phase;

/// A span that ends when the last shard has told its own, and says how many they were. It
/// travels with what they are told, where its trace is wanted.
pub(crate) struct Fanout {
    phase: Mutex<Phase>,
    told: AtomicU64,
    bytes: AtomicU64,
    /// What those who are told are called.
    who: &'static str,
}

impl Fanout {
    /// None, when nobody wants to see it.
    pub(crate) fn new(phase: Phase, who: &'static str) -> Option<Arc<Self>> {
        phase.is_wanted().then(|| {
            Arc::new(Self {
                phase: Mutex::new(phase),
                told: AtomicU64::new(0),
                bytes: AtomicU64::new(0),
                who,
            })
        })
    }

    /// So many were told, with so many bytes together.
    pub(crate) fn told(&self, count: usize, bytes: usize) {
        self.told.fetch_add(count as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Drop for Fanout {
    fn drop(&mut self) {
        let phase = self.phase.get_mut().unwrap_or_else(PoisonError::into_inner);
        phase.count(self.who, *self.told.get_mut());
        let bytes = *self.bytes.get_mut();
        if bytes > 0 {
            phase.count("selvage.bytes", bytes);
        }
    }
}

impl std::fmt::Debug for Fanout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fanout")
    }
}
