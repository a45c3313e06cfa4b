//! Chance that can be repeated.

/// A sequence of numbers that follows from a seed alone (splitmix64, by Steele, Lea and
/// Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    /// The dice of one link: the same for the same seed and the same names, whatever
    /// else is in the lab.
    pub(crate) fn of_link(seed: u64, from: &str, to: &str) -> Self {
        let words = [from.as_bytes(), b">", to.as_bytes()];
        let mut dice = Self(seed);
        for byte in words.into_iter().flatten() {
            dice.0 = dice.roll() ^ u64::from(*byte);
        }
        dice
    }

    /// The next share of one: at least 0, less than 1.
    pub(crate) fn share(&mut self) -> f64 {
        // The upper 32 bits; all of them fit a float.
        let upper = u32::try_from(self.roll() >> 32).unwrap_or(u32::MAX);
        f64::from(upper) / (f64::from(u32::MAX) + 1.0)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_rolls_the_same_for_the_same_seed_and_else_differently() {
        let rolls = |seed, from, to| {
            let mut dice = Dice::of_link(seed, from, to);
            (0..8).map(|_| dice.roll()).collect::<Vec<_>>()
        };
        assert_eq!(rolls(7, "o1", "o2"), rolls(7, "o1", "o2"));
        assert_ne!(rolls(7, "o1", "o2"), rolls(8, "o1", "o2"));
        assert_ne!(rolls(7, "o1", "o2"), rolls(7, "o2", "o1"));
    }

    #[test]
    fn shares_are_even() {
        let mut dice = Dice::of_link(1, "a", "b");
        let below = (0..10_000).filter(|_| dice.share() < 0.2).count();
        assert!(
            (1_900..2_100).contains(&below),
            "{below} of 10000 below 0.2"
        );
    }
}
