//! Continuous time for a player across publishes.

use model::{Epoch, MediaTime};

/// Milliseconds between the last frame sent of one epoch and the first of the next. One is
/// enough to keep time strictly growing; the true pause between two publishes is unknown,
/// and a player would only show it as a stall.
pub const STEP_MS: u64 = 1;

/// A publish whose clock begins so little behind the end of the one before goes on with that
/// clock: the same encoder, which came by another edge. Pictures at ten in a second are less
/// apart.
pub const CONTINUES_MS: u64 = 250;

/// Maps the publisher's clock to one player's clock.
///
/// Every publish begins its clock where it likes, often at 0; a player must never see time
/// jump back by an hour because the encoder was restarted or the backup took over. The
/// first epoch is mapped as it is, so most players share the stream's clock and its wire
/// images. In each later epoch the first frame follows the latest time sent by
/// [`STEP_MS`] unless its clock goes on ([`CONTINUES_MS`]), and the shift stays the same for the whole epoch, because audio and video
/// must keep their distance.
///
/// ```
/// # use selvage_media as media;
/// use media::Rebase;
/// use model::{Epoch, MediaTime};
///
/// let mut rebase = Rebase::default();
/// assert_eq!(rebase.map(Epoch(1), MediaTime(5_000)), MediaTime(5_000));
/// assert_eq!(rebase.map(Epoch(1), MediaTime(5_040)), MediaTime(5_040));
/// assert!(rebase.is_identity());
/// // The encoder came back and counts from 0.
/// assert_eq!(rebase.map(Epoch(2), MediaTime(0)), MediaTime(5_041));
/// assert_eq!(rebase.map(Epoch(2), MediaTime(40)), MediaTime(5_081));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Rebase {
    epoch: Option<Epoch>,
    /// Added to the publisher's time, modulo 2^64: a negative shift is a large number.
    shift: u64,
    /// The greatest time given so far.
    sent: MediaTime,
}

impl Rebase {
    /// The player's time of a frame of `epoch` at `time`.
    ///
    /// A frame earlier than the first of its epoch (audio a little behind its picture) keeps
    /// its distance to it, down to 0.
    pub fn map(&mut self, epoch: Epoch, time: MediaTime) -> MediaTime {
        match self.epoch {
            Some(current) if current == epoch => {}
            None => self.epoch = Some(epoch),
            Some(_) if self.continues(time) => self.epoch = Some(epoch),
            Some(_) => {
                self.epoch = Some(epoch);
                self.shift = self.sent.0.saturating_add(STEP_MS).wrapping_sub(time.0);
            }
        }
        let mapped = self.shifted(time);
        self.sent = self.sent.max(mapped);
        mapped
    }

    /// Whether the first frame of an epoch goes on where the last one ended.
    fn continues(&self, time: MediaTime) -> bool {
        let ahead = self.shifted(time).0.checked_sub(self.sent.0);
        ahead.is_some_and(|ahead| (STEP_MS..=CONTINUES_MS).contains(&ahead))
    }

    fn shifted(&self, time: MediaTime) -> MediaTime {
        MediaTime(if self.shift.cast_signed() < 0 {
            time.0.saturating_sub(self.shift.wrapping_neg())
        } else {
            time.0.saturating_add(self.shift)
        })
    }

    /// Whether the player's clock is the publisher's: then its wire images can be shared.
    #[must_use]
    pub const fn is_identity(&self) -> bool {
        self.shift == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_when_the_next_publish_starts_later_or_earlier() {
        let mut rebase = Rebase::default();
        assert_eq!(rebase.map(Epoch(1), MediaTime(100)), MediaTime(100));
        assert_eq!(rebase.map(Epoch(2), MediaTime(1_000_000)), MediaTime(101));
        assert_eq!(rebase.map(Epoch(2), MediaTime(1_000_020)), MediaTime(121));
        assert_eq!(rebase.map(Epoch(3), MediaTime(0)), MediaTime(122));
        assert!(!rebase.is_identity());
    }

    #[test]
    fn a_publish_that_goes_on_where_the_last_one_ended_keeps_its_clock() {
        let mut rebase = Rebase::default();
        rebase.map(Epoch(1), MediaTime(100));
        assert_eq!(rebase.map(Epoch(2), MediaTime(140)), MediaTime(140));
        assert!(rebase.is_identity());
        assert_eq!(rebase.map(Epoch(3), MediaTime(0)), MediaTime(141));
        assert_eq!(rebase.map(Epoch(4), MediaTime(40)), MediaTime(181));
        assert_eq!(rebase.map(Epoch(5), MediaTime(290)), MediaTime(431));
        assert_eq!(rebase.map(Epoch(6), MediaTime(541)), MediaTime(432));
    }

    #[test]
    fn the_latest_time_counts_and_not_the_last() {
        let mut rebase = Rebase::default();
        rebase.map(Epoch(1), MediaTime(100));
        rebase.map(Epoch(1), MediaTime(90));
        assert_eq!(rebase.map(Epoch(2), MediaTime(0)), MediaTime(101));
    }

    #[test]
    fn a_frame_before_the_first_of_its_epoch_keeps_its_distance() {
        let mut rebase = Rebase::default();
        rebase.map(Epoch(1), MediaTime(100));
        assert_eq!(rebase.map(Epoch(2), MediaTime(500)), MediaTime(101));
        assert_eq!(rebase.map(Epoch(2), MediaTime(490)), MediaTime(91));
        assert_eq!(rebase.map(Epoch(2), MediaTime(0)), MediaTime(0));
        assert_eq!(rebase.map(Epoch(2), MediaTime(501)), MediaTime(102));
    }
}
