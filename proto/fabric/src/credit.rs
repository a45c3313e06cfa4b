//! Credits: how much payload may be under way for one publication or subscription.
//!
//! The sender holds a [`Credit`] and may send a frame, of any size, while it is positive;
//! so the largest frame always gets through, and what is under way is at most the credit
//! plus one frame. The reader holds an [`Owed`] and gives back what it has consumed in
//! lumps of a quarter of the window: one small message for a quarter of the window
//! instead of one per batch, while three quarters remain to keep the sender busy.

use crate::limits::FRAME_PAYLOAD_MAX;

/// The sender's side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credit {
    left: i64,
}

impl Credit {
    /// What the reader granted, in bytes. Figures above `i64::MAX` are taken as that.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self {
            left: i64::try_from(bytes).unwrap_or(i64::MAX),
        }
    }

    /// Whether the next frame may be sent.
    #[must_use]
    pub const fn is_open(self) -> bool {
        self.left > 0
    }

    /// A frame with so many bytes of payload was sent.
    pub fn spend(&mut self, bytes: usize) {
        self.left = self
            .left
            .saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// The reader gave bytes back. Returns whether this opened a credit that was closed.
    pub fn give(&mut self, bytes: u64) -> bool {
        let was_open = self.is_open();
        self.left = self
            .left
            .saturating_add(i64::try_from(bytes).unwrap_or(i64::MAX));
        !was_open && self.is_open()
    }
}

/// The reader's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owed {
    window: u64,
    /// Bytes received and not yet given back.
    consumed: u64,
}

/// The sender sent more than it was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overdrawn;

impl Owed {
    /// For a sender who was granted `window` bytes.
    #[must_use]
    pub const fn new(window: u64) -> Self {
        Self {
            window,
            consumed: 0,
        }
    }

    /// A frame with so many bytes of payload arrived.
    ///
    /// # Errors
    /// When the sender cannot have had credit for it: every honest frame begins within the
    /// window, so no more than the window and one largest frame can be outstanding.
    pub fn receive(&mut self, bytes: usize) -> Result<(), Overdrawn> {
        self.consumed = self.consumed.saturating_add(bytes as u64);
        if self.consumed > self.window.saturating_add(FRAME_PAYLOAD_MAX as u64) {
            return Err(Overdrawn);
        }
        Ok(())
    }

    /// The bytes to give back now, if it is time. What is returned counts as given back.
    pub fn take_due(&mut self) -> Option<u64> {
        if self.consumed == 0 || self.consumed < self.window / 4 {
            return None;
        }
        Some(std::mem::take(&mut self.consumed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_larger_than_the_credit_gets_through_and_is_paid_back_before_the_next() {
        let mut credit = Credit::new(10);
        assert!(credit.is_open());
        credit.spend(100);
        assert!(!credit.is_open());
        assert!(!credit.give(90));
        assert!(!credit.is_open(), "exactly zero is closed");
        assert!(credit.give(1));
        assert!(!credit.give(1), "it was open before");
    }

    #[test]
    fn absurd_figures_saturate() {
        let mut credit = Credit::new(u64::MAX);
        assert!(!credit.give(u64::MAX));
        assert!(credit.is_open());
    }

    #[test]
    fn credit_comes_back_in_quarters_of_the_window() {
        let mut owed = Owed::new(400);
        assert_eq!(owed.take_due(), None);
        assert_eq!(owed.receive(99), Ok(()));
        assert_eq!(owed.take_due(), None);
        assert_eq!(owed.receive(1), Ok(()));
        assert_eq!(owed.take_due(), Some(100));
        assert_eq!(owed.take_due(), None);
    }

    #[test]
    fn a_sender_that_ignores_its_credit_is_found_out() {
        let mut owed = Owed::new(10);
        assert_eq!(owed.receive(FRAME_PAYLOAD_MAX), Ok(()));
        assert_eq!(owed.receive(11), Err(Overdrawn));
    }

    /// Whatever the sizes of the frames, the two sides never block each other: while the
    /// sender is closed, the reader owes enough to open it.
    #[test]
    fn the_quarter_that_the_reader_keeps_back_never_stalls_the_sender() {
        for window in [1, 3, 4, 100, 1000] {
            let (mut credit, mut owed) = (Credit::new(window), Owed::new(window));
            let mut size = 1usize;
            for step in 0..1000usize {
                assert!(credit.is_open(), "window {window}, step {step}");
                size = (size * 7 + step) % 577;
                credit.spend(size);
                owed.receive(size).unwrap();
                if let Some(bytes) = owed.take_due() {
                    credit.give(bytes);
                }
            }
        }
    }
}
