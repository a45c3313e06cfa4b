//! Media time.

use std::fmt;

/// Milliseconds on a stream's own clock, wide enough never to wrap.
///
/// The wire clock has 32 bits and wraps after 49.7 days. It is unwrapped once, by
/// [`Unwrapper`], where a message enters; `wire()` gives back the 32 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediaTime(pub u64);

impl MediaTime {
    /// The timestamp as RTMP carries it.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the wire clock is the low 32 bits"
    )]
    pub const fn wire(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Display for MediaTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0 / 1000, self.0 % 1000)
    }
}

/// Unwraps one stream's 32-bit timestamps.
///
/// RTMP 1.0 §3: timestamps are compared by serial number arithmetic, so a step of less
/// than 2^31 forwards or backwards is taken as that step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwrapper {
    last: Option<MediaTime>,
}

impl Unwrapper {
    /// The media time of a wire timestamp, by the nearest step from the one before.
    pub fn unwrap(&mut self, wire: u32) -> MediaTime {
        let time = match self.last {
            None => MediaTime(u64::from(wire)),
            Some(last) => {
                let step = wire.wrapping_sub(last.wire()).cast_signed();
                // Before the first timestamp there is nothing: clamp at the wire value.
                last.0
                    .checked_add_signed(i64::from(step))
                    .map_or(MediaTime(u64::from(wire)), MediaTime)
            }
        };
        self.last = Some(time);
        time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_on_across_the_wrap_and_back() {
        let mut clock = Unwrapper::default();
        assert_eq!(clock.unwrap(0xffff_fff0), MediaTime(0xffff_fff0));
        assert_eq!(clock.unwrap(0x10), MediaTime(0x1_0000_0010));
        // A B-frame's audio may lie a little in the past, across the same wrap.
        assert_eq!(clock.unwrap(0xffff_fffa), MediaTime(0xffff_fffa));
        assert_eq!(clock.unwrap(0x20).wire(), 0x20);
    }

    #[test]
    fn a_step_before_the_beginning_is_taken_as_it_stands() {
        let mut clock = Unwrapper::default();
        assert_eq!(clock.unwrap(5), MediaTime(5));
        assert_eq!(clock.unwrap(0xffff_fffe), MediaTime(0xffff_fffe));
    }
}
