//! Counters that speak at most once a second.
//!
//! What happens a thousand times a second must not be a thousand log lines. A [`Counter`] logs its
//! first event at once and what came since once a second after that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

const QUIET: Duration = Duration::from_secs(1);

/// Counts events and reports them, at most once a second. Clones count together.
#[derive(Debug, Clone)]
pub struct Counter {
    shared: Arc<Shared>,
    _reporting: Arc<Reporting>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: AtomicU64,
    some: Notify,
}

/// Ends the task when the last clone is gone.
#[derive(Debug)]
struct Reporting(JoinHandle<()>);

impl Drop for Reporting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Counter {
    /// A counter that logs warnings such as `what="frames skipped" count=17`. Must be called
    /// within a tokio runtime.
    pub fn new(what: &'static str) -> Self {
        Self::reporting(move |count| tracing::warn!(what, count, "in the last second"))
    }

    /// A counter that gives its counts to `report`.
    pub fn reporting(report: impl Fn(u64) + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                loop {
                    shared.some.notified().await;
                    let count = shared.waiting.swap(0, Ordering::Relaxed);
                    if count > 0 {
                        report(count);
                        tokio::time::sleep(QUIET).await;
                    }
                }
            }
        });
        Self {
            shared,
            _reporting: Arc::new(Reporting(task)),
        }
    }

    /// Counts `events` more. Costs an atomic addition, and a wake-up at most once a second.
    pub fn add(&self, events: u64) {
        if events > 0 && self.shared.waiting.fetch_add(events, Ordering::Relaxed) == 0 {
            self.shared.some.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_one_report_now_and_one_a_second_later() {
        let (reports, mut reported) = tokio::sync::mpsc::unbounded_channel();
        let counter = Counter::reporting(move |count| {
            reports.send((Instant::now(), count)).unwrap();
        });
        let start = Instant::now();
        counter.add(3);
        assert_eq!(reported.recv().await, Some((start, 3)));
        for _ in 0..1000 {
            counter.clone().add(2);
        }
        assert_eq!(reported.recv().await, Some((start + QUIET, 2000)));
        // Silence is not reported, and ends with the next event.
        tokio::time::advance(10 * QUIET).await;
        counter.add(0);
        counter.add(1);
        assert_eq!(reported.recv().await, Some((start + 11 * QUIET, 1)));
        drop(counter);
        assert_eq!(reported.recv().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn no_event_is_lost_between_two_reports() {
        let total = Arc::new(Mutex::new(0));
        let (all, mut seen_all) = tokio::sync::mpsc::unbounded_channel();
        let counter = Counter::reporting({
            let total = Arc::clone(&total);
            move |count| {
                *total.lock().unwrap() += count;
                if *total.lock().unwrap() == 1234 {
                    all.send(()).unwrap();
                }
            }
        });
        for _ in 0..1234 {
            counter.add(1);
            tokio::time::advance(Duration::from_millis(7)).await;
        }
        seen_all.recv().await.unwrap();
    }
}
