//! Whether a member is level with its cluster: it asks the leader again and again how far the
//! cluster is, and sees when it has applied that.
//!
//! The answer needs a majority, so it covers everything that may be wrong: nobody leads, this
//! member is cut off, it is far behind, or it was removed and nobody told it.

use std::time::{Duration, Instant};

/// What was asked and is not answered is asked again after this: it can be lost.
const AGAIN: Duration = Duration::from_secs(2);

/// Who is not level must be at least this close to be: what was asked so long ago is applied.
pub(crate) const LEVEL_WITHIN: Duration = Duration::from_secs(1);

/// Who is level is so until it lacks something that was decided so long ago, or heard of no
/// majority for so long: several elections, and what a slow disk may take now and then.
pub(crate) const LEVEL_PATIENCE: Duration = Duration::from_secs(5);

/// Marks the numbers of these questions, among those of edges.
const MARK: u64 = 1 << 63;

#[derive(Debug, Default)]
pub(crate) struct Level {
    questions: u64,
    /// The newest, and since when it is asked.
    asked: Option<Instant>,
    /// When the newest was asked whose answer is applied.
    proved: Option<Instant>,
    level: bool,
}

impl Level {
    /// The question that is due, if one is. What is asked of nobody counts as lost.
    pub(crate) fn due(&mut self, now: Instant) -> Option<u64> {
        let waits = |asked| now.saturating_duration_since(asked) < AGAIN;
        if self.asked.is_some_and(waits) {
            return None;
        }
        self.questions += 1;
        self.asked = Some(now);
        Some(MARK | self.questions)
    }

    /// Nobody could be asked.
    pub(crate) fn unasked(&mut self) {
        self.asked = None;
    }

    /// What was decided when this was asked is applied. Says whether it was one of ours.
    pub(crate) fn handle_answer(&mut self, question: u64, now: Instant) -> bool {
        if question & MARK == 0 {
            return false;
        }
        if question == MARK | self.questions
            && let Some(asked) = self.asked.take()
        {
            self.proved = Some(asked);
            self.level |= now.saturating_duration_since(asked) <= LEVEL_WITHIN;
        }
        true
    }

    /// Whether the member is level.
    pub(crate) fn handle_time(&mut self, now: Instant) -> bool {
        let old = |proved| now.saturating_duration_since(proved) > LEVEL_PATIENCE;
        self.level &= !self.proved.is_none_or(old);
        self.level
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn who_applies_what_was_decided_lately_is_level_and_stays_so_over_an_election() {
        let start = Instant::now();
        let mut level = Level::default();
        assert!(!level.handle_time(start));
        let first = level.due(start).unwrap();
        assert_eq!(level.due(start + seconds(0.5)), None, "one at a time");
        assert!(level.handle_answer(first, start + seconds(0.9)));
        assert!(level.handle_time(start + seconds(0.9)));
        // Nobody leads for four seconds.
        for tenths in 10..50 {
            let now = start + seconds(f64::from(tenths) / 10.0);
            if level.due(now).is_some() {
                level.unasked();
            }
            assert!(level.handle_time(now));
        }
        let now = start + seconds(5.0);
        let question = level.due(now).unwrap();
        level.handle_answer(question, now + seconds(0.2));
        assert!(level.handle_time(start + seconds(9.9)));
        assert!(!level.handle_time(start + seconds(10.1)), "for too long");
    }

    #[test]
    fn who_is_behind_is_not_level_before_it_has_caught_up() {
        let start = Instant::now();
        let mut level = Level::default();
        // The state takes a minute; what is asked meanwhile is answered when it is there.
        let mut questions = Vec::new();
        for second in 0..60 {
            let now = start + seconds(f64::from(second));
            questions.extend(level.due(now));
            assert!(!level.handle_time(now));
        }
        assert_eq!(questions.len(), 30);
        let now = start + seconds(60.5);
        for question in questions {
            level.handle_answer(question, now);
        }
        assert!(
            !level.handle_time(now),
            "it was behind by more than a second"
        );
        let question = level.due(now).unwrap();
        level.handle_answer(question, now + seconds(0.1));
        assert!(level.handle_time(now + seconds(0.1)));
    }

    #[test]
    fn the_questions_of_edges_and_old_ones_are_none_of_ours() {
        let start = Instant::now();
        let mut level = Level::default();
        let old = level.due(start).unwrap();
        let new = level.due(start + AGAIN).unwrap();
        assert!(!level.handle_answer(1, start + AGAIN));
        assert!(level.handle_answer(old, start + AGAIN));
        assert!(!level.handle_time(start + AGAIN));
        assert!(level.handle_answer(new, start + AGAIN));
        assert!(level.handle_time(start + AGAIN));
    }
}
