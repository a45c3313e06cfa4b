//! Waiting for a state, never for a time.
//!
//! A condition is looked at again and again until it holds (level-triggered: it does not
//! matter when it became true). Patience is how long a test waits before it calls the
//! state unreachable; it is generous, because a slow machine is no failure.

use std::time::{Duration, Instant};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Patience for what a process of ours does at once.
pub const SOON: Duration = Duration::from_secs(20);

/// Patience for what a foreign player does (it probes, buffers and decodes first).
pub const PLAYER: Duration = Duration::from_secs(60);

/// Waits until `look` gives a value.
///
/// # Panics
/// When it has not after `patience`; `what` is named.
#[track_caller]
pub fn until_some<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(
            started.elapsed() < patience,
            "waited {patience:?} in vain until {what}"
        );
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Waits until `holds` is true.
///
/// # Panics
/// When it is not after `patience`; `what` is named.
#[track_caller]
pub fn until(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) {
    until_some(what, patience, || holds().then_some(()));
}

/// As [`until`], for tests whose clients are tasks: the wait lets them run.
///
/// # Panics
/// When it does not hold after `patience`; `what` is named.
pub async fn until_async(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(
            started.elapsed() < patience,
            "waited {patience:?} in vain until {what}"
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The pace of a peer that is slow on purpose: between two pieces that it writes or reads.
/// Never a way to wait for something to happen.
pub fn pace(pause: Duration) {
    std::thread::sleep(pause);
}
