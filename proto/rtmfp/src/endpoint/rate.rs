//! How often something may be done for those who have proved nothing.

use std::net::IpAddr;
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
        self.take_above(Duration::ZERO, now)
    }

    /// Whether it may be done once more at `now` and leave what `reserve` brings.
    fn take_above(&mut self, reserve: Duration, now: Instant) -> bool {
        let Some(cost) = SECOND.checked_div(self.per_second) else {
            return false;
        };
        let oldest = now.checked_sub(SECOND).unwrap_or(self.empty_at);
        let after = self.empty_at.max(oldest) + cost;
        let allowed = after + reserve <= now;
        if allowed {
            self.empty_at = after;
        }
        allowed
    }
}

/// How often something may be done for all, so that one who asks for more than others do not
/// go without.
///
/// Whoever has taken more than an eighth is given more only as long as half of a second's
/// worth is left for those who have not. Who is who is told by a hash of the address: two
/// may share a place, which costs one of them its modesty.
#[derive(Clone, Debug)]
pub(super) struct Shares {
    all: Rate,
    each: Vec<Rate>,
    secret: u64,
}

/// Places for addresses.
const PLACES: usize = 256;

impl Shares {
    /// `secret` is random: nobody can choose whose place to take.
    pub(super) fn new(per_second: u32, secret: u64, now: Instant) -> Self {
        let share = Rate::new((per_second / 8).max(1), now);
        Self {
            all: Rate::new(per_second, now),
            each: vec![share; PLACES],
            secret,
        }
    }

    /// Whether it may be done once more for one at `from`.
    pub(super) fn take(&mut self, from: IpAddr, now: Instant) -> bool {
        let place = self.place(from);
        let is_modest = self.each.get_mut(place).is_some_and(|rate| rate.take(now));
        let reserve = if is_modest {
            Duration::ZERO
        } else {
            SECOND / 2
        };
        self.all.take_above(reserve, now)
    }

    /// Whether it may be done once more for one who may not be at `from` at all: an eighth of
    /// what there is and no more, so that nobody is shouted at in the name of another.
    pub(super) fn take_own(&mut self, from: IpAddr, now: Instant) -> bool {
        let place = self.place(from);
        let is_modest = self.each.get_mut(place).is_some_and(|rate| rate.take(now));
        is_modest && self.all.take(now)
    }

    fn place(&self, from: IpAddr) -> usize {
        let number = match from.to_canonical() {
            IpAddr::V4(ip) => u64::from(ip.to_bits()),
            // A network has a prefix of 56 bits at least, and one that wants has them all.
            IpAddr::V6(ip) => (ip.to_bits() >> 72) as u64 | 1 << 63,
        };
        let mut mixed = number ^ self.secret;
        for shift in [33, 29, 32] {
            mixed = (mixed ^ mixed >> shift).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ self.secret | 1);
        }
        (mixed >> 56) as usize
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

    #[test]
    #[allow(clippy::disallowed_methods, reason = "any instant will do")]
    fn one_who_asks_for_all_there_is_leaves_half_to_the_others() {
        let start = Instant::now() + SECOND;
        let mut shares = Shares::new(100, 0x1234_5678_9abc_def0, start);
        let [greedy, other] = ["192.0.2.1", "198.51.100.9"].map(|text| text.parse().unwrap());
        assert_ne!(shares.place(greedy), shares.place(other));
        let mut taken = |from, now| (0..1000).filter(|_| shares.take(from, now)).count();
        assert_eq!(taken(greedy, start), 50);
        // The other has its share at once, and is no better than the first beyond it.
        assert_eq!(taken(other, start), 12);
        // What comes with time fills the reserve before the greedy one is given any.
        assert_eq!(taken(greedy, start + SECOND / 20), 0);
        let later = start + SECOND;
        assert_eq!(taken(greedy, later), 50);
        assert_eq!(taken(other, later), 12);
        let much_later = later + SECOND;
        let own = (0..1000).filter(|_| shares.take_own(greedy, much_later));
        assert_eq!(own.count(), 12);
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "any instant will do")]
    fn addresses_are_spread_over_all_places() {
        let shares = Shares::new(100, 7, Instant::now());
        let places: std::collections::BTreeSet<_> = (0..4096_u32)
            .map(|n| shares.place(IpAddr::from(n.to_be_bytes())))
            .collect();
        assert_eq!(places.len(), PLACES);
        let mapped = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(
            shares.place(mapped),
            shares.place("192.0.2.1".parse().unwrap())
        );
    }
}
