//! How much may be in flight, and for how long (RFC 7016 §3.5.2 and its appendix A).
//!
//! [`Congestion`] is the window of one session, [`RoundTrip`] its measure of time. Both are
//! numbers only: who sends, and what, is not known here.
//!
//! The window is the one of appendix A, with one rule more: losses of what was sent before
//! the last decrease are the same event and do not decrease it again. A session that sends
//! time critical data yields an eighth where others yield half, and grows a quarter as fast.

use std::time::{Duration, Instant};

/// The sender's maximum segment size in bytes: what a packet of ours holds at most.
pub const SEGMENT: u64 = 1200;

/// The window at the start in bytes: three segments (RFC 5681 §3.1, for segments between
/// 1095 and 2190 bytes).
pub const WINDOW_INITIAL: u64 = 3 * SEGMENT;

/// The window after a timeout with loss, in bytes.
pub const WINDOW_TIMED_OUT: u64 = SEGMENT;

/// No more packets with user data than this at once between acknowledgements (§3.5.2.3).
///
/// A far end that takes many packets in at a time answers them with one acknowledgement. So
/// that this does not come to six packets a round trip, what the window has room for beyond
/// a burst goes out evenly over the round trip: see [`Congestion::pace`].
pub const BURST: u8 = 6;

/// Where packets come back within this time, so many more make no burst. What §3.5.2.3 is
/// about, links and buffers that are jammed, shows as time; one network's own is far less
/// than this, which the clock of timestamps can just tell from nothing. As many as one
/// system call sends.
pub const NEAR: Duration = Duration::from_micros(4500);

/// [`BURST`], where the far end is [`NEAR`].
pub const BURST_NEAR: u8 = 48;

/// For how long a time critical notification counts (§3.5.2.1).
pub const TIME_CRITICAL_FOR: Duration = Duration::from_millis(800);

/// Above this many bytes in flight the window grows and shrinks in proportion: 7/8 of the
/// 76,800 bytes where one per cent is more than 768 bytes a round trip.
const SCALABLE_FROM: u64 = 67_200;

/// By how much the window grows at a time, in bytes: a sixteenth of 768.
const STEP: u64 = 48;

/// What a received packet told about what is in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Bytes that were in flight before the packet.
    pub outstanding_before: u64,
    /// Bytes that the packet acknowledged.
    pub acknowledged: u64,
    /// Whether it held an acknowledgement at all.
    pub any_acknowledgement: bool,
    /// Whether something sent earlier than what it acknowledged is still missing.
    pub any_negative: bool,
    /// The newest transmission that it showed to be lost.
    pub lost: Option<u64>,
}

/// What the session sends and hears of its surroundings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// Time critical data was sent in this session within [`TIME_CRITICAL_FOR`].
    pub sends_time_critical: bool,
    /// Within the same time the far end asked to yield, or time critical data was sent in
    /// any session.
    pub must_yield: bool,
}

/// The congestion window of one session.
#[derive(Clone, Debug)]
pub struct Congestion {
    window: u64,
    threshold: u64,
    accumulated: u64,
    burst: u8,
    /// Losses of transmissions below this were answered by the last decrease.
    recovered_at: u64,
}

impl Default for Congestion {
    fn default() -> Self {
        Self {
            window: WINDOW_INITIAL,
            threshold: u64::MAX,
            accumulated: 0,
            burst: 0,
            recovered_at: 0,
        }
    }
}

impl Congestion {
    /// The window in bytes.
    #[must_use]
    pub const fn window(&self) -> u64 {
        self.window
    }

    /// Below this many bytes the window grows as slow start does.
    #[must_use]
    pub const fn threshold(&self) -> u64 {
        self.threshold
    }

    /// Whether user data may be sent while `outstanding` bytes are in flight, to one who is
    /// [`NEAR`] or not.
    #[must_use]
    pub const fn allows(&self, outstanding: u64, near: bool) -> bool {
        outstanding < self.window && self.burst < if near { BURST_NEAR } else { BURST }
    }

    /// Whether the window has room while `outstanding` bytes are in flight, be it after a
    /// burst.
    #[must_use]
    pub const fn has_room(&self, outstanding: u64) -> bool {
        outstanding < self.window
    }

    /// How long after a burst the next packet may go out, if a window goes out evenly
    /// over a round trip.
    #[must_use]
    pub fn pace(&self, round_trip: Duration) -> Duration {
        let window = u32::try_from(self.window / SEGMENT).unwrap_or(u32::MAX);
        round_trip / window.max(1)
    }

    /// So many packets may follow a burst.
    pub const fn handle_pace(&mut self, packets: u8) {
        self.burst = self.burst.saturating_sub(packets);
    }

    /// A packet with user data went out.
    pub const fn handle_sent(&mut self) {
        self.burst = self.burst.saturating_add(1);
    }

    /// A packet was received and all its chunks were processed. `next` is the number that
    /// the next transmission will get.
    pub fn handle_news(&mut self, news: News, around: Circumstances, next: u64) {
        if news.any_acknowledgement {
            self.burst = 0;
        }
        if let Some(lost) = news.lost {
            if lost >= self.recovered_at {
                self.recovered_at = next;
                self.shrink(news.outstanding_before, around);
            }
        } else if news.any_acknowledgement
            && !news.any_negative
            && news.outstanding_before >= self.window
        {
            let increase = self.increase(news.acknowledged, around);
            self.window = (self.window + increase.min(SEGMENT)).max(WINDOW_INITIAL);
        }
    }

    /// The retransmission timer fired; `lost` says whether anything was in flight. `next`
    /// is the number that the next transmission will get.
    pub fn handle_timeout(&mut self, lost: bool, next: u64) {
        self.threshold = self.threshold.max(self.window / 4 * 3);
        self.accumulated = 0;
        self.burst = 0;
        self.recovered_at = next;
        self.window = if lost {
            WINDOW_TIMED_OUT
        } else {
            WINDOW_INITIAL
        };
    }

    /// The path is another one: what was learned of the old one does not count.
    pub fn reset(&mut self, next: u64) {
        *self = Self {
            recovered_at: next,
            ..Self::default()
        };
    }

    fn shrink(&mut self, outstanding: u64, around: Circumstances) {
        let gentle =
            around.sends_time_critical || (outstanding > SCALABLE_FROM && !around.must_yield);
        let rest = if gentle {
            outstanding / 8 * 7
        } else {
            outstanding / 2
        };
        self.threshold = rest.max(WINDOW_INITIAL);
        self.window = self.threshold;
        self.accumulated = 0;
    }

    fn increase(&mut self, acknowledged: u64, around: Circumstances) -> u64 {
        let slow_start = self.window < self.threshold;
        let (step, cap) = match (around.must_yield, around.sends_time_critical) {
            (false, _) if slow_start => return acknowledged,
            (true, true) if slow_start => return acknowledged.div_ceil(4),
            (false, _) => (STEP, 4800),
            (true, true) => (STEP / 2, 2400),
            (true, false) => (STEP / 2, 4800),
        };
        self.accumulated += acknowledged;
        let every = (self.window / 16).max(64).min(cap);
        let steps = self.accumulated / every;
        self.accumulated %= every;
        steps * step
    }
}

/// The retransmission timeout before the first measurement (§3.5.2.2).
const TIMEOUT_INITIAL: Duration = Duration::from_secs(3);

/// The least retransmission timeout. It allows for an acknowledgement that waits 200 ms.
pub const TIMEOUT_MIN: Duration = Duration::from_millis(250);

/// Backing off ends here.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(10);

/// How long the far end may hold back an acknowledgement.
pub const ACKNOWLEDGEMENT_DELAY: Duration = Duration::from_millis(200);

/// Round-trip time and what follows from it (§3.5.2.2).
#[derive(Clone, Debug)]
pub struct RoundTrip {
    smoothed: Option<Duration>,
    variance: Duration,
    measured_timeout: Duration,
    timeout: Duration,
}

impl Default for RoundTrip {
    fn default() -> Self {
        Self {
            smoothed: None,
            variance: Duration::ZERO,
            measured_timeout: TIMEOUT_MIN,
            timeout: TIMEOUT_INITIAL,
        }
    }
}

impl RoundTrip {
    /// The smoothed round-trip time, once one was measured.
    #[must_use]
    pub const fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// Whether the far end is [`NEAR`].
    #[must_use]
    pub fn is_near(&self) -> bool {
        self.smoothed.is_some_and(|smoothed| smoothed < NEAR)
    }

    /// Its mean deviation.
    #[must_use]
    pub const fn variance(&self) -> Duration {
        self.variance
    }

    /// The effective retransmission timeout, backing off included.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Takes a measurement in. It ends backing off.
    pub fn handle_sample(&mut self, sample: Duration) {
        let smoothed = if let Some(smoothed) = self.smoothed {
            self.variance = (self.variance * 3 + smoothed.abs_diff(sample)) / 4;
            (smoothed * 7 + sample) / 8
        } else {
            self.variance = sample / 2;
            sample
        };
        self.smoothed = Some(smoothed);
        self.measured_timeout = smoothed + self.variance * 4 + ACKNOWLEDGEMENT_DELAY;
        self.timeout = self.measured_timeout.max(TIMEOUT_MIN);
    }

    /// A timeout passed without an answer: the next one is longer by the root of two.
    pub fn back_off(&mut self) {
        let longer = self.timeout * 14_142 / 10_000;
        self.timeout = longer.min(TIMEOUT_MAX).max(self.measured_timeout);
    }

    /// Ends backing off without a measurement: the path is another one.
    pub fn restore(&mut self) {
        self.timeout = self.measured_timeout.max(TIMEOUT_MIN);
    }
}

/// What is known of time critical traffic beyond one session (§3.5.2.1). Whoever owns the
/// sessions keeps one for all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Neighbours {
    /// When time critical data was last sent in any session.
    pub sent: Option<Instant>,
    /// When time critical data was last received in another session.
    pub received: Option<Instant>,
}

/// Whether `at` is no longer ago than [`TIME_CRITICAL_FOR`].
#[must_use]
pub fn is_recent(at: Option<Instant>, now: Instant) -> bool {
    at.is_some_and(|at| now.saturating_duration_since(at) < TIME_CRITICAL_FOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acknowledged(congestion: &Congestion, bytes: u64) -> News {
        News {
            outstanding_before: congestion.window(),
            acknowledged: bytes,
            any_acknowledgement: true,
            ..News::default()
        }
    }

    fn lost(outstanding_before: u64, lost: u64) -> News {
        News {
            outstanding_before,
            lost: Some(lost),
            any_acknowledgement: true,
            any_negative: true,
            ..News::default()
        }
    }

    const ALONE: Circumstances = Circumstances {
        sends_time_critical: false,
        must_yield: false,
    };
    const CRITICAL: Circumstances = Circumstances {
        sends_time_critical: true,
        must_yield: true,
    };
    const YIELDING: Circumstances = Circumstances {
        sends_time_critical: false,
        must_yield: true,
    };

    #[test]
    fn slow_start_adds_what_was_acknowledged_but_no_more_than_a_segment() {
        let mut congestion = Congestion::default();
        assert_eq!(congestion.window(), 3600);
        congestion.handle_news(acknowledged(&congestion, 700), ALONE, 1);
        assert_eq!(congestion.window(), 4300);
        congestion.handle_news(acknowledged(&congestion, 2400), ALONE, 1);
        assert_eq!(congestion.window(), 5500);
    }

    #[test]
    fn time_critical_slow_start_adds_a_quarter_and_yielding_has_none() {
        let mut congestion = Congestion::default();
        congestion.handle_news(acknowledged(&congestion, 801), CRITICAL, 1);
        assert_eq!(congestion.window(), 3801);
        let mut congestion = Congestion::default();
        congestion.handle_news(acknowledged(&congestion, 3600), YIELDING, 1);
        // 3600 / 225 = 16 steps of 24 bytes: 384 a round trip.
        assert_eq!(congestion.window(), 3984);
    }

    #[test]
    fn a_window_that_is_not_full_does_not_grow() {
        let mut congestion = Congestion::default();
        let news = News {
            outstanding_before: 3599,
            ..acknowledged(&congestion, 3599)
        };
        congestion.handle_news(news, ALONE, 1);
        assert_eq!(congestion.window(), WINDOW_INITIAL);
    }

    #[test]
    fn avoidance_adds_768_bytes_a_round_trip() {
        let mut congestion = Congestion::default();
        congestion.handle_news(lost(40_000, 5), ALONE, 50);
        assert_eq!(congestion.window(), 20_000);
        let mut left = 20_000;
        while left > 0 {
            congestion.handle_news(acknowledged(&congestion, 1250), ALONE, 50);
            left -= 1250;
        }
        assert_eq!(
            congestion.window(),
            20_000 + 16 * 48 - 48,
            "within one step"
        );
    }

    #[test]
    fn loss_halves_or_takes_an_eighth() {
        for (outstanding, around, rest) in [
            (40_000, ALONE, 20_000),
            (40_000, CRITICAL, 35_000),
            (80_000, ALONE, 70_000),
            (80_000, YIELDING, 40_000),
            (4_000, ALONE, WINDOW_INITIAL),
        ] {
            let mut congestion = Congestion::default();
            congestion.handle_news(lost(outstanding, 7), around, 50);
            assert_eq!(congestion.window(), rest, "{outstanding} {around:?}");
            assert_eq!(congestion.threshold(), rest);
        }
    }

    #[test]
    fn losses_of_one_window_count_once() {
        let mut congestion = Congestion::default();
        congestion.handle_news(lost(40_000, 7), ALONE, 50);
        congestion.handle_news(lost(30_000, 49), ALONE, 60);
        assert_eq!(congestion.window(), 20_000);
        congestion.handle_news(lost(20_000, 50), ALONE, 70);
        assert_eq!(congestion.window(), 10_000);
    }

    #[test]
    fn a_timeout_leaves_one_segment() {
        let mut congestion = Congestion::default();
        congestion.handle_timeout(true, 9);
        assert_eq!(congestion.window(), WINDOW_TIMED_OUT);
        congestion.handle_news(acknowledged(&congestion, 1200), ALONE, 9);
        assert_eq!(congestion.window(), WINDOW_INITIAL);
        congestion.handle_timeout(false, 9);
        assert_eq!(congestion.window(), WINDOW_INITIAL);
    }

    #[test]
    fn six_packets_go_out_between_acknowledgements() {
        let mut congestion = Congestion::default();
        for _ in 0..6 {
            assert!(congestion.allows(0, false));
            congestion.handle_sent();
        }
        assert!(!congestion.allows(0, false));
        assert!(congestion.allows(0, true));
        congestion.handle_news(acknowledged(&congestion, 0), ALONE, 7);
        assert!(congestion.allows(0, false));
    }

    #[test]
    fn a_window_follows_its_burst_evenly_over_the_round_trip() {
        let mut congestion = Congestion::default();
        let second = Duration::from_secs(1);
        assert_eq!(congestion.pace(second), second / 3);
        for _ in 0..BURST {
            congestion.handle_sent();
        }
        assert!(!congestion.allows(3599, false));
        assert!(congestion.has_room(3599));
        assert!(!congestion.has_room(3600));
        congestion.handle_pace(2);
        for _ in 0..2 {
            assert!(congestion.allows(0, false));
            congestion.handle_sent();
        }
        assert!(!congestion.allows(0, false));
    }

    #[test]
    fn the_timeout_follows_measurements_and_backs_off_to_ten_seconds() {
        let mut trip = RoundTrip::default();
        assert_eq!(trip.timeout(), Duration::from_secs(3));
        trip.handle_sample(Duration::from_millis(100));
        assert_eq!(trip.timeout(), Duration::from_millis(500));
        trip.handle_sample(Duration::from_millis(180));
        assert_eq!(trip.smoothed(), Some(Duration::from_millis(110)));
        assert_eq!(trip.variance(), Duration::from_micros(57_500));
        trip.back_off();
        assert_eq!(trip.timeout(), Duration::from_millis(540) * 14_142 / 10_000);
        for _ in 0..20 {
            trip.back_off();
        }
        assert_eq!(trip.timeout(), TIMEOUT_MAX);
        trip.handle_sample(Duration::from_millis(100));
        assert!(trip.timeout() < Duration::from_secs(1));
    }
}
