//! Which session sequence numbers came (RFC 7425 §4.7.3.3).

use crate::error::Error;
use crate::limits::REPLAY_WINDOW;

const BITS: u64 = u64::BITS as u64;
#[allow(clippy::cast_possible_truncation, reason = "a small constant")]
const WORDS: usize = (REPLAY_WINDOW / BITS) as usize + 1;

/// A window over the newest numbers that came, as a ring of bits (RFC 6479).
#[derive(Clone, Debug, Default)]
pub(super) struct ReplayWindow {
    /// One more than the highest number that came.
    next: u64,
    words: [u64; WORDS],
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "the remainder is below the count of words"
)]
const fn place(sequence: u64) -> (usize, u64) {
    (
        ((sequence / BITS) % WORDS as u64) as usize,
        1 << (sequence % BITS),
    )
}

impl ReplayWindow {
    /// Notes that the packet `sequence`, known to be authentic, came.
    pub(super) fn accept(&mut self, sequence: u64) -> Result<(), Error> {
        let replayed = Err(Error::Replayed { sequence });
        // The last number of all would leave no room for a next one.
        let Some(after) = sequence.checked_add(1) else {
            return replayed;
        };
        if after.saturating_add(REPLAY_WINDOW) <= self.next {
            return replayed;
        }
        if sequence >= self.next {
            let newest = self.next.saturating_sub(1) / BITS;
            for word in (newest + 1..=sequence / BITS).take(WORDS) {
                self.words[place(word * BITS).0] = 0;
            }
            // After a jump the loop cleared every word, whichever it began with.
            self.next = after;
        }
        let (word, bit) = place(sequence);
        if self.words[word] & bit != 0 {
            return replayed;
        }
        self.words[word] |= bit;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_number_is_taken_once() {
        let mut window = ReplayWindow::default();
        for sequence in [0, 1, 5, 3, 2, 4, 6] {
            assert_eq!(window.accept(sequence), Ok(()));
        }
        for sequence in 0..7 {
            assert_eq!(window.accept(sequence), Err(Error::Replayed { sequence }));
        }
    }

    #[test]
    fn what_is_behind_the_window_is_refused() {
        let mut window = ReplayWindow::default();
        window.accept(1000).unwrap();
        let oldest = 1001 - REPLAY_WINDOW;
        assert!(window.accept(oldest - 1).is_err());
        assert_eq!(window.accept(oldest), Ok(()));
        assert!(window.accept(u64::MAX).is_err());
        assert_eq!(window.accept(u64::MAX - 1), Ok(()));
        assert!(window.accept(1001).is_err());
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_set_of_all_numbers(steps in vec(-200..300_i64, 1..400)) {
            let (mut window, mut seen) = (ReplayWindow::default(), BTreeSet::new());
            let (mut highest, mut at) = (0, 0_u64);
            for step in steps {
                at = at.saturating_add_signed(step);
                let new = at + REPLAY_WINDOW > highest && !seen.contains(&at);
                prop_assert_eq!(window.accept(at).is_ok(), new, "{} after {}", at, highest);
                seen.insert(at);
                highest = highest.max(at);
            }
        }
    }
}
