//! The line on standard error that says how it goes.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use model::MediaTime;

/// How often the line changes; the bit rate is that of the time since the last change.
const INTERVAL: Duration = Duration::from_millis(500);

/// Counts messages and draws the line. Draws nothing if standard error is no terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    meter: Meter,
    bar: ProgressBar,
}

impl Progress {
    pub(crate) fn new(now: Instant) -> Self {
        let bar = ProgressBar::new_spinner();
        // The template is a constant and is known to be right; the default one would do.
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        Self {
            meter: Meter::new(now),
            bar,
        }
    }

    /// One message was sent or has arrived.
    pub(crate) fn count(&mut self, now: Instant, time: MediaTime, bytes: usize) {
        self.meter.count(now, time, bytes);
        if let Some(line) = self.meter.line(now) {
            self.bar.set_message(line);
            self.bar.tick();
        }
    }

    /// Says something in the line's place until the next message.
    pub(crate) fn say(&self, text: &'static str) {
        self.bar.set_message(text);
        self.bar.tick();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        // The last line stays on the screen.
        self.bar.abandon();
    }
}

/// The figures behind the line.
#[derive(Debug)]
struct Meter {
    /// The first message: when it came and its media time.
    first: Option<(Instant, MediaTime)>,
    last: MediaTime,
    frames: u64,
    /// Since when `bytes` are counted.
    since: Instant,
    bytes: u64,
}

impl Meter {
    const fn new(now: Instant) -> Self {
        Self {
            first: None,
            last: MediaTime(0),
            frames: 0,
            since: now,
            bytes: 0,
        }
    }

    fn count(&mut self, now: Instant, time: MediaTime, bytes: usize) {
        self.first.get_or_insert((now, time));
        self.last = self.last.max(time);
        self.frames += 1;
        self.bytes += bytes as u64;
    }

    /// The line, when it is time for another one.
    fn line(&mut self, now: Instant) -> Option<String> {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed < INTERVAL {
            return None;
        }
        let (began, first) = self.first?;
        let kbits = self.bytes as f64 * 8.0 / 1000.0 / elapsed.as_secs_f64();
        (self.since, self.bytes) = (now, 0);
        let media = self.last.0.saturating_sub(first.0);
        // Positive: the wall clock is ahead, media is late.
        let wall = now.saturating_duration_since(began).as_millis();
        let drift = i128::try_from(wall).unwrap_or(i128::MAX) - i128::from(media);
        let (minutes, millis) = (media / 60_000, media % 60_000);
        Some(format!(
            "{minutes:02}:{:02}.{:01}  {kbits:.0} kbit/s  {} frames  drift {drift:+} ms",
            millis / 1000,
            millis % 1000 / 100,
            self.frames,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_time_bit_rate_frames_and_drift() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        meter.count(start, MediaTime(1000), 50_000);
        assert_eq!(meter.line(start + Duration::from_millis(499)), None);
        let later = start + Duration::from_secs(1);
        meter.count(later, MediaTime(1960), 50_000);
        let line = meter.line(later).unwrap();
        assert_eq!(line, "00:00.9  800 kbit/s  2 frames  drift +40 ms");
        meter.count(later, MediaTime(1000 + 61_300), 1);
        let line = meter.line(later + Duration::from_secs(1)).unwrap();
        assert_eq!(line, "01:01.3  0 kbit/s  3 frames  drift -59300 ms");
    }
}
