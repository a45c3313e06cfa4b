//! The one source of chance of a run.

use std::time::Duration;

/// SplitMix64: the same seed gives the same run on every machine.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Chance from a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 bits.
    pub const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which must not be 0.
    pub const fn below(&mut self, end: usize) -> usize {
        assert!(end > 0);
        (self.draw() % end as u64) as usize
    }

    /// True in so many of a thousand cases.
    pub const fn in_thousand(&mut self, cases: u64) -> bool {
        self.draw() % 1000 < cases
    }

    /// A time of at least `from` and less than `to`.
    pub fn between(&mut self, from: Duration, to: Duration) -> Duration {
        let span = (to.saturating_sub(from)).as_nanos().max(1);
        let more = u128::from(self.draw()) % span;
        from + Duration::from_nanos(u64::try_from(more).unwrap_or(u64::MAX))
    }

    /// A source of chance for somebody else.
    pub const fn split(&mut self) -> Self {
        Self(self.draw())
    }
}
