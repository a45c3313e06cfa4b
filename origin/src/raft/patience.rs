//! Finds out that the disk hangs.
//!
//! A member whose writes do not come back applies nothing, and those who are attached here
//! would wait for it though the others could serve them; if it leads, everybody would.

use std::time::Duration;

use tokio::time::Instant;

/// The most that counts between two looks; there is a look at every tick.
const LOOK_MAX: Duration = Duration::from_secs(1);

/// How long one append is seen to go on. Time in which this process was stopped does not
/// count.
#[derive(Debug)]
pub(super) struct Patience {
    limit: Duration,
    append: Option<u64>,
    seen: Duration,
    last: Instant,
}

impl Patience {
    pub(super) const fn new(limit: Duration, now: Instant) -> Self {
        Self {
            limit,
            append: None,
            seen: Duration::ZERO,
            last: now,
        }
    }

    /// How long an append may go on.
    pub(super) const fn limit(&self) -> Duration {
        self.limit
    }

    /// Which append goes on now, if one does. Says whether it has for too long.
    pub(super) fn look(&mut self, append: Option<u64>, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.last).min(LOOK_MAX);
        self.last = now;
        if append.is_none() || append != self.append {
            self.append = append;
            self.seen = Duration::ZERO;
            return false;
        }
        self.seen += passed;
        self.seen >= self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(3);

    #[test]
    fn one_append_may_go_on_for_so_long_and_many_for_ever() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut patience = Patience::new(LIMIT, start);
        for append in 0..20 {
            assert!(!patience.look(Some(append), at(append)));
        }
        let hung: Vec<bool> = (20..24).map(|n| patience.look(Some(19), at(n))).collect();
        assert_eq!(hung, [false, false, true, true]);
        assert!(!patience.look(None, at(24)), "it came back");
        assert!(!patience.look(Some(20), at(30)));
    }

    #[test]
    fn a_process_that_was_stopped_was_not_waiting() {
        let start = Instant::now();
        let mut patience = Patience::new(LIMIT, start);
        assert!(!patience.look(Some(1), start));
        assert!(!patience.look(Some(1), start + Duration::from_secs(600)));
    }
}
