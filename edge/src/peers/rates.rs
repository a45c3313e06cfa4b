//! How often something may be done for each of many.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// A bucket for each key, which fills with time and holds what a second brings.
#[derive(Debug)]
pub(super) struct Rates<K> {
    cost: Duration,
    keys_max: usize,
    /// When each bucket would have been empty.
    empty_at: BTreeMap<K, Instant>,
    /// When full buckets, which are like those that never were, were let go of.
    swept: Option<Instant>,
}

impl<K: Ord> Rates<K> {
    pub(super) fn new(per_second: u32, keys_max: usize) -> Self {
        Self {
            cost: SECOND / per_second.max(1),
            keys_max,
            empty_at: BTreeMap::new(),
            swept: None,
        }
    }

    /// Whether it may be done once more for `key`.
    pub(super) fn take(&mut self, key: K, now: Instant) -> bool {
        let oldest = now.checked_sub(SECOND).unwrap_or(now);
        if let Some(empty_at) = self.empty_at.get_mut(&key) {
            let after = (*empty_at).max(oldest) + self.cost;
            let allowed = after <= now;
            if allowed {
                *empty_at = after;
            }
            return allowed;
        }
        if self.empty_at.len() >= self.keys_max && self.swept.is_none_or(|at| at <= oldest) {
            self.swept = Some(now);
            self.empty_at.retain(|_, empty_at| *empty_at > oldest);
        }
        // So many at once are one flood.
        let room = self.empty_at.len() < self.keys_max;
        if room {
            self.empty_at.insert(key, oldest + self.cost);
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_what_a_second_brings() {
        let start = Instant::now() + SECOND;
        let mut rates = Rates::new(10, 100);
        let mut taken = |key, now| (0..50).filter(|_| rates.take(key, now)).count();
        assert_eq!(taken(1, start), 10);
        assert_eq!(taken(2, start), 10);
        assert_eq!(taken(1, start + SECOND / 2), 5);
        assert_eq!(taken(1, start + SECOND * 9), 10);
    }

    #[test]
    fn more_keys_than_are_kept_are_refused_until_others_are_full_again() {
        let start = Instant::now() + SECOND;
        let mut rates = Rates::new(10, 3);
        let taken = (0..9).filter(|key| rates.take(*key, start)).count();
        assert_eq!(taken, 3);
        assert!(!rates.take(9, start + SECOND / 2));
        let taken = (10..19).filter(|key| rates.take(*key, start + SECOND * 2));
        assert_eq!(taken.count(), 3);
    }
}
