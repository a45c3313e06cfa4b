//! Is the peer still there? Silence is answered with a question, and a question
//! without any sign of life ends the session.

use std::time::{Duration, Instant};

/// Watches one peer.
///
/// ```text
///   heard ── interval ──▶ PingRequest ── timeout ──▶ lost
///     ▲                        │
///     └──── anything at all ◀──┘
/// ```
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ping {
    interval: Duration,
    timeout: Duration,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Heard of the peer at this time.
    Heard(Instant),
    /// Asked at this time; nothing since.
    Asked(Instant),
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing.
    Nothing,
    /// A PingRequest is to be sent.
    Ask,
    /// The peer is gone.
    Lost,
}

impl Ping {
    pub(crate) const fn new(interval: Duration, timeout: Duration, now: Instant) -> Self {
        Self {
            interval,
            timeout,
            state: State::Heard(now),
        }
    }

    /// Anything that came from the peer is a sign of life, not only a PingResponse.
    pub(crate) const fn heard(&mut self, now: Instant) {
        self.state = State::Heard(now);
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Heard(at) => at.checked_add(self.interval),
            State::Asked(at) => at.checked_add(self.timeout),
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Due {
        if self.deadline().is_none_or(|at| now < at) {
            return Due::Nothing;
        }
        match self.state {
            State::Heard(_) => {
                self.state = State::Asked(now);
                Due::Ask
            }
            State::Asked(_) => Due::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(
        clippy::disallowed_methods,
        reason = "a test needs some instant to start from"
    )]
    fn silence_is_asked_once_and_then_is_the_end() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut ping = Ping::new(Duration::from_secs(10), Duration::from_secs(5), start);
        assert_eq!(ping.handle_timeout(at(9)), Due::Nothing);
        assert_eq!(ping.handle_timeout(at(10)), Due::Ask);
        assert_eq!(ping.deadline(), Some(at(15)));
        assert_eq!(ping.handle_timeout(at(14)), Due::Nothing);
        ping.heard(at(14));
        assert_eq!(ping.handle_timeout(at(24)), Due::Ask);
        assert_eq!(ping.handle_timeout(at(29)), Due::Lost);
    }
}
