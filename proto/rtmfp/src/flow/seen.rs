//! Which numbers of a receiving flow were seen.

use std::ops::RangeInclusive;

/// The most runs of numbers beyond a gap. A peer that sends every other number makes one a
/// fragment; real loss makes a few dozen.
pub(super) const RUNS_MAX: usize = 1024;

/// What became of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It was not seen before.
    New,
    /// It was.
    Before,
}

/// A set of sequence numbers that has every number from 0 to some number.
#[derive(Clone, Debug, Default)]
pub(super) struct SequenceSet {
    cumulative: u64,
    /// Runs beyond a gap: rising, never touching each other or `cumulative`.
    beyond: Vec<(u64, u64)>,
}

impl SequenceSet {
    /// The last of the numbers without a gap.
    pub(super) const fn cumulative(&self) -> u64 {
        self.cumulative
    }

    pub(super) const fn has_gaps(&self) -> bool {
        !self.beyond.is_empty()
    }

    pub(super) fn beyond(&self) -> impl Iterator<Item = RangeInclusive<u64>> + Clone {
        self.beyond.iter().map(|(from, to)| *from..=*to)
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        number <= self.cumulative
            || self
                .beyond
                .get(self.beyond.partition_point(|(_, to)| *to < number))
                .is_some_and(|(from, _)| *from <= number)
    }

    /// Whether a number that was not seen can be remembered without ever more runs.
    pub(super) fn has_room(&self, number: u64) -> bool {
        self.beyond.len() < RUNS_MAX
            || self.contains(number.saturating_sub(1))
            || self.contains(number.saturating_add(1))
    }

    pub(super) fn insert(&mut self, number: u64) -> Seen {
        if number <= self.cumulative {
            return Seen::Before;
        }
        if number == self.cumulative + 1 {
            self.cumulative = number;
            self.swallow();
            return Seen::New;
        }
        // The first run that does not end before the number.
        let at = self.beyond.partition_point(|(_, to)| *to < number);
        if self.beyond.get(at).is_some_and(|(from, _)| *from <= number) {
            return Seen::Before;
        }
        let joins_before = at > 0 && self.beyond[at - 1].1 + 1 == number;
        let joins_after = self
            .beyond
            .get(at)
            .is_some_and(|(from, _)| *from - 1 == number);
        match (joins_before, joins_after) {
            (true, true) => {
                self.beyond[at - 1].1 = self.beyond[at].1;
                self.beyond.remove(at);
            }
            (true, false) => self.beyond[at - 1].1 = number,
            (false, true) => self.beyond[at].0 = number,
            (false, false) => self.beyond.insert(at, (number, number)),
        }
        Seen::New
    }

    /// Every number up to `number` counts as seen.
    pub(super) fn advance(&mut self, number: u64) {
        if number > self.cumulative {
            self.cumulative = number;
            self.swallow();
        }
    }

    fn swallow(&mut self) {
        let mut swallowed = 0;
        for (from, to) in &self.beyond {
            if *from > self.cumulative.saturating_add(1) {
                break;
            }
            self.cumulative = self.cumulative.max(*to);
            swallowed += 1;
        }
        self.beyond.drain(..swallowed);
        if self.beyond.is_empty() {
            self.beyond = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set_of_numbers(steps in proptest::collection::vec((any::<bool>(), 0_u64..60), 0..80)) {
            let mut set = SequenceSet::default();
            let mut model = BTreeSet::from([0_u64]);
            for (advance, number) in steps {
                if advance && number % 7 == 0 {
                    set.advance(number / 3);
                    model.extend(0..=number / 3);
                } else {
                    let new = model.insert(number);
                    prop_assert_eq!(set.insert(number), if new { Seen::New } else { Seen::Before });
                }
                let cumulative = (0..).find(|n| !model.contains(n)).unwrap() - 1;
                prop_assert_eq!(set.cumulative(), cumulative);
                let beyond: Vec<u64> = set.beyond().flatten().collect();
                let expected: Vec<u64> = model.range(cumulative + 1..).copied().collect();
                prop_assert_eq!(beyond, expected);
                for number in 0..70 {
                    prop_assert_eq!(set.contains(number), model.contains(&number));
                }
                let runs: Vec<_> = set.beyond().collect();
                prop_assert!(runs.windows(2).all(|two| two[0].end() + 1 < *two[1].start()));
            }
        }
    }

    #[test]
    fn gaps_are_bounded_and_the_largest_numbers_do_no_harm() {
        let mut set = SequenceSet::default();
        for number in 1..=RUNS_MAX as u64 {
            assert_eq!(set.insert(number * 2), Seen::New);
        }
        assert!(!set.has_room(9_999_999));
        assert!(set.has_room(3), "filling a gap needs no room");
        assert_eq!(set.insert(3), Seen::New);
        set.advance(u64::MAX);
        assert_eq!(set.insert(u64::MAX), Seen::Before);
        assert!(!set.has_gaps());
    }
}
