//! The clock of one host: it began at another time than the others', and runs faster or
//! slower.

use std::time::{Duration, Instant};

use super::dice::Dice;

/// Parts of a million.
const MILLION: u128 = 1_000_000;

/// How a host tells the time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    zero: Instant,
    /// How far it goes in a million of the simulation's parts of time.
    rate: u128,
}

impl Clock {
    /// A clock that is wrong by up to a fifth.
    pub(super) fn new(base: Instant, dice: &mut Dice) -> Self {
        let ahead = dice.between(Duration::ZERO, Duration::from_secs(3600));
        let rate = 800_000 + dice.below(400_001) as u128;
        Self {
            zero: base + ahead,
            rate,
        }
    }

    /// What it shows.
    #[must_use]
    pub(super) fn at(&self, now: Duration) -> Instant {
        self.zero + nanos(now.as_nanos() * self.rate / MILLION)
    }

    /// When it shows this, or more.
    #[must_use]
    pub(super) fn when(&self, shown: Instant) -> Duration {
        let gone = shown.saturating_duration_since(self.zero).as_nanos();
        nanos((gone * MILLION).div_ceil(self.rate))
    }
}

fn nanos(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_is_due_when_the_clock_shows_it() {
        let base = Instant::now();
        let mut dice = Dice::new(1);
        for _ in 0..1000 {
            let clock = Clock::new(base, &mut dice);
            let due = clock.at(Duration::ZERO) + Duration::from_nanos(dice.draw() >> 30);
            assert!(clock.at(clock.when(due)) >= due);
        }
    }
}
