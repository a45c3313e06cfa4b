//! How often something may be done for those who have proved nothing.

use std::time::{Duration, Instant};

/// A bucket that fills with time. It holds what a second brings.
#[derive(Clone, Debug)]
pub(super) struct Rate {
    per_second: u32,
    /// When the bucket would have been empty.
    empty_at: Instant,
}

impl Rate {
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        Self {
            per_second,
            empty_at: now.checked_sub(SECOND).unwrap_or(now),
        }
    }

    /// Whether it may be done once more at `now`.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let Some(cost) = SECOND.checked_div(self.per_second) else {
            return false;
        };
        let oldest = now.checked_sub(SECOND).unwrap_or(self.empty_at);
        let after = self.empty_at.max(oldest) + cost;
        let allowed = after <= now;
        if allowed {
            self.empty_at = after;
        }
        allowed
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "any instant will do")]
    fn no_more_than_so_many_in_a_second_after_a_burst_of_as_many() {
        let start = Instant::now() + SECOND;
        let mut rate = Rate::new(10, start);
        let mut taken = |now| (0..100).filter(|_| rate.take(now)).count();
        assert_eq!(taken(start), 10);
        assert_eq!(taken(start), 0);
        assert_eq!(taken(start + SECOND / 2), 5);
        assert_eq!(taken(start + SECOND * 100), 10);
        assert!(!Rate::new(0, start).take(start));
    }
}
