//! Timestamps and their echoes (RFC 7016 §3.5.2.2).

use std::time::{Duration, Instant};

/// One tick of the clock of timestamps.
const TICK_MS: u128 = 4;

/// An echo of a timestamp that came longer ago than this would be ambiguous.
const ECHO_FOR: Duration = Duration::from_secs(128);

/// The clock of one end, and what it knows of the other end's.
#[derive(Debug)]
pub(super) struct Clock {
    origin: Instant,
    /// The last timestamp of the far end that differed from the one before, and when it came.
    far: Option<(u16, Instant)>,
    last_echo: Option<u16>,
}

impl Clock {
    /// A clock that begins at `origin`.
    pub(super) const fn new(origin: Instant) -> Self {
        Self {
            origin,
            far: None,
            last_echo: None,
        }
    }

    /// The timestamp of a packet that is sent at `now`.
    pub(super) fn timestamp(&self, now: Instant) -> u16 {
        ticks(now.saturating_duration_since(self.origin))
    }

    /// The echo in a packet that is sent at `now`. It stands in every packet; the far end
    /// measures only by those that differ.
    pub(super) fn echo(&self, now: Instant) -> Option<u16> {
        let (timestamp, at) = self.far?;
        let elapsed = now.saturating_duration_since(at);
        (elapsed <= ECHO_FOR).then(|| timestamp.wrapping_add(ticks(elapsed)))
    }

    /// A packet came with this timestamp.
    pub(super) fn handle_timestamp(&mut self, timestamp: u16, now: Instant) {
        let known = self
            .far
            .filter(|(_, at)| now.saturating_duration_since(*at) <= ECHO_FOR);
        if known.is_none_or(|(last, _)| last != timestamp) {
            self.far = Some((timestamp, now));
        }
    }

    /// A packet came with this echo. Returns the round-trip time that it shows.
    pub(super) fn handle_echo(&mut self, echo: u16, now: Instant) -> Option<Duration> {
        if self.last_echo == Some(echo) {
            return None;
        }
        self.last_echo = Some(echo);
        let ticks = self.timestamp(now).wrapping_sub(echo);
        // A larger difference is an echo from the future.
        (ticks <= 0x7fff).then(|| Duration::from_millis(u64::from(ticks) * 4))
    }
}

fn ticks(elapsed: Duration) -> u16 {
    u16::try_from((elapsed.as_millis() / TICK_MS) & 0xffff).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(
        clippy::disallowed_methods,
        reason = "a test needs some instant to start from"
    )]
    fn start() -> Instant {
        Instant::now()
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn an_echo_counts_on_from_when_the_timestamp_came() {
        let start = start();
        let mut clock = Clock::new(start);
        assert_eq!(clock.echo(start), None);
        clock.handle_timestamp(0xfffe, start + ms(10));
        assert_eq!(clock.echo(start + ms(13)), Some(0xfffe));
        assert_eq!(clock.echo(start + ms(26)), Some(2), "it wraps around");
        clock.handle_timestamp(0xfffe, start + ms(30));
        assert_eq!(clock.echo(start + ms(30)), Some(3), "the same one again");
        assert_eq!(clock.echo(start + ms(128_011)), None);
    }

    #[test]
    fn an_echo_tells_the_round_trip_once() {
        let start = start();
        let mut clock = Clock::new(start);
        let sent = clock.timestamp(start + ms(400));
        assert_eq!(sent, 100);
        assert_eq!(clock.handle_echo(sent, start + ms(480)), Some(ms(80)));
        assert_eq!(clock.handle_echo(sent, start + ms(900)), None);
        assert_eq!(clock.handle_echo(300, start + ms(900)), None, "the future");
    }

    #[test]
    fn timestamps_wrap_after_262_seconds() {
        let start = start();
        let mut clock = Clock::new(start);
        assert_eq!(clock.timestamp(start + ms(262_143)), 0xffff);
        assert_eq!(clock.timestamp(start + ms(262_144)), 0);
        let sent = clock.timestamp(start + ms(262_140));
        assert_eq!(clock.handle_echo(sent, start + ms(262_240)), Some(ms(100)));
    }
}
