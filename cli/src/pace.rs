//! When a tag of a file is due, and at which time on the wire.

use std::time::{Duration, Instant};

use model::{MediaTime, Unwrapper};

/// Puts the tags of a file, played once or over and over, onto one line of time.
///
/// The first round keeps the file's timestamps as they are. Each further round begins one
/// step (the last distance between two tags of different times) after the end of the one
/// before, so that a player sees no jump.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    clock: Unwrapper,
    shift: u64,
    /// The first and the greatest time of this round.
    span: Option<(u64, u64)>,
    step: u64,
}

impl Timeline {
    /// The time of a tag on the line.
    pub(crate) fn place(&mut self, time: u32) -> MediaTime {
        let time = self.clock.unwrap(time).0;
        self.span = Some(match self.span {
            None => (time, time),
            Some((first, last)) => {
                if time > last {
                    self.step = time - last;
                }
                (first.min(time), last.max(time))
            }
        });
        MediaTime(time.saturating_add(self.shift))
    }

    /// The file begins again.
    pub(crate) fn again(&mut self) {
        if let Some((first, last)) = self.span.take() {
            self.shift += last - first + self.step.max(1);
        }
        self.clock = Unwrapper::default();
    }
}

/// When a media time is due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    began: Instant,
    first: Option<MediaTime>,
}

impl Pace {
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            began: now,
            first: None,
        }
    }

    /// The moment at which this time is due. The first one is due at once; one that lies
    /// before it, too. Whoever is late sends without waiting until it has caught up.
    pub(crate) fn due(&mut self, time: MediaTime) -> Instant {
        let first = *self.first.get_or_insert(time);
        self.began + Duration::from_millis(time.0.saturating_sub(first.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_follow_each_other_by_one_step() {
        let mut line = Timeline::default();
        let mut round = || -> Vec<u64> {
            let times = [0, 0, 40, 23, 80].map(|time| line.place(time).0);
            line.again();
            times.to_vec()
        };
        assert_eq!(round(), [0, 0, 40, 23, 80]);
        assert_eq!(round(), [120, 120, 160, 143, 200]);
        assert_eq!(round()[0], 240);
    }

    #[test]
    fn a_file_that_begins_late_keeps_its_times_and_repeats_without_a_jump() {
        let mut line = Timeline::default();
        assert_eq!([5000, 5033].map(|time| line.place(time).0), [5000, 5033]);
        line.again();
        assert_eq!([5000, 5033].map(|time| line.place(time).0), [5066, 5099]);
    }

    #[test]
    fn an_empty_round_moves_nothing() {
        let mut line = Timeline::default();
        line.again();
        assert_eq!(line.place(7), MediaTime(7));
    }

    #[test]
    fn a_tag_is_due_as_far_from_the_beginning_as_its_time_from_the_first() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        assert_eq!(pace.due(MediaTime(5000)), now);
        assert_eq!(pace.due(MediaTime(5040)), now + Duration::from_millis(40));
        assert_eq!(pace.due(MediaTime(4990)), now, "the past is due at once");
    }
}
