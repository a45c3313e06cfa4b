//! How soon a client that is sent elsewhere, or turned away there, tries again.

use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use crate::limits::{FOLLOW_PAUSE, FOLLOW_PAUSE_MAX};

/// What the attempts of one client to go elsewhere are spaced by. It is handed on from each
/// attempt to the next, also to those of a later request, so that servers that accept a client
/// and then turn it away do not have it at their doors all the time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    /// What the next attempt waits; nothing before the first.
    pause: Duration,
    /// Since when there is what the last attempt made.
    since: Option<Instant>,
}

impl Pace {
    /// A request of a server: the first attempt waits for nothing, if all went well for a while.
    pub(super) fn asked(self, now: Instant) -> Self {
        if self.is_well(now) {
            return Self::default();
        }
        self
    }

    /// What the last attempt made is of no use. The next one waits, however long it lasted.
    pub(super) fn failed(self, now: Instant) -> Self {
        let pause = if self.is_well(now) {
            FOLLOW_PAUSE
        } else {
            self.pause.max(FOLLOW_PAUSE)
        };
        Self { pause, since: None }
    }

    /// An attempt is about to be made: what it waits, before it is [`jittered`].
    pub(super) fn attempt(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).clamp(FOLLOW_PAUSE, FOLLOW_PAUSE_MAX);
        self.since = None;
        pause
    }

    /// The attempt was accepted.
    pub(super) const fn accepted(&mut self, now: Instant) {
        self.since = Some(now);
    }

    /// As long as the longest pause: a server that accepts and turns away at once is never
    /// taken for a good one, and one that does so later is not tried more often for it.
    fn is_well(self, now: Instant) -> bool {
        let lasted = |since| now.saturating_duration_since(since);
        self.since
            .is_some_and(|since| lasted(since) >= FOLLOW_PAUSE_MAX)
    }
}

/// Between half of it and all of it, so that those who were turned away together do not come
/// back together.
pub(super) fn jittered(pause: Duration) -> Duration {
    let share = RandomState::new().hash_one(0_u8) % 512;
    pause / 2 + pause * u32::try_from(share).unwrap_or_default() / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One attempt that is accepted, after what it waited for.
    fn accepted(pace: &mut Pace, now: &mut Instant) -> Duration {
        let pause = pace.attempt();
        *now += pause;
        pace.accepted(*now);
        pause
    }

    #[test]
    fn each_attempt_waits_longer_however_it_came_about() {
        let mut now = Instant::now();
        let mut pace = Pace::default().asked(now);
        assert_eq!(accepted(&mut pace, &mut now), Duration::ZERO);
        // Turned away at once.
        pace = pace.failed(now);
        assert_eq!(accepted(&mut pace, &mut now), FOLLOW_PAUSE);
        // Sent elsewhere at once.
        pace = pace.asked(now);
        assert_eq!(accepted(&mut pace, &mut now), FOLLOW_PAUSE * 2);
        pace = pace.failed(now);
        // Not let in at all.
        assert_eq!(pace.attempt(), FOLLOW_PAUSE * 4);
        for _ in 0..10 {
            accepted(&mut pace, &mut now);
            pace = pace.failed(now);
        }
        assert_eq!(pace.attempt(), FOLLOW_PAUSE_MAX);
    }

    #[test]
    fn only_a_while_of_health_makes_it_forget() {
        let mut now = Instant::now();
        let mut pace = Pace::default();
        for _ in 0..3 {
            accepted(&mut pace, &mut now);
            pace = pace.failed(now);
        }
        accepted(&mut pace, &mut now);
        let short = now + FOLLOW_PAUSE_MAX - Duration::from_millis(1);
        assert_eq!(pace.asked(short).attempt(), FOLLOW_PAUSE * 8);
        assert_eq!(pace.failed(short).attempt(), FOLLOW_PAUSE * 8);
        let long = now + FOLLOW_PAUSE_MAX;
        assert_eq!(pace.asked(long).attempt(), Duration::ZERO);
        assert_eq!(pace.failed(long).attempt(), FOLLOW_PAUSE);
    }

    #[test]
    fn pauses_differ_and_are_bounded() {
        let pause = Duration::from_secs(1);
        for _ in 0..100 {
            let jittered = jittered(pause);
            assert!(jittered >= pause / 2 && jittered <= pause);
        }
    }
}
