//! Chance that can be repeated.

/// How many ticks a follower waits before it asks to be elected: from `election` to just
/// below twice that.
///
/// raft draws this from ambient randomness whenever its term or role changes. It is drawn
/// again from the node's seed after every step, as a function of what the draw is for, so
/// that it makes no difference whether raft has drawn in between.
pub(crate) fn patience(seed: u64, id: u64, term: u64, attempt: u64, election: usize) -> usize {
    let mut state = seed;
    for word in [id, term, attempt] {
        state = mix(state ^ mix(word));
    }
    let span = election as u64;
    // The rest is below `election`, which is a usize.
    election + usize::try_from(state % span.max(1)).unwrap_or_default()
}

/// One step of SplitMix64.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::patience;

    #[test]
    fn patience_is_spread_over_its_range_and_repeats() {
        let drawn: std::collections::BTreeSet<_> =
            (0..200).map(|term| patience(7, 1, term, 0, 10)).collect();
        assert_eq!(drawn, (10..20).collect());
        assert_eq!(patience(7, 1, 3, 4, 10), patience(7, 1, 3, 4, 10));
    }
}
