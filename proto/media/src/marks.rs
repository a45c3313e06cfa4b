//! Notes about few frames.

use std::collections::VecDeque;

use model::Position;

use crate::limits::MARKS_MAX;

/// What is noted about a few frames of a stream, beside its backlog: a frame has no room for
/// what concerns one in thousands.
///
/// An empty set has no memory of its own, so a loop asks [`Self::is_empty`] for each frame and
/// looks no further. A full one forgets its oldest note.
#[derive(Clone, Debug)]
pub struct Marks<T> {
    /// In the order in which they were made.
    notes: VecDeque<(Position, T)>,
}

impl<T> Marks<T> {
    /// Nothing is noted.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            notes: VecDeque::new(),
        }
    }

    /// Whether nothing is noted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.notes.is_empty()
    }

    /// Notes something about a frame, in place of what was noted about it before. Of more than
    /// [`MARKS_MAX`] frames the one that was noted first is forgotten.
    pub fn note(&mut self, at: Position, what: T) {
        self.notes.retain(|(other, _)| *other != at);
        if self.notes.len() == MARKS_MAX {
            self.notes.pop_front();
        }
        self.notes.push_back((at, what));
    }

    /// What is noted about a frame.
    #[must_use]
    pub fn get(&self, at: Position) -> Option<&T> {
        let mut notes = self.notes.iter();
        notes.find(|(other, _)| *other == at).map(|(_, what)| what)
    }

    /// All notes, in the order in which they were made.
    pub fn iter(&self) -> impl Iterator<Item = (Position, &T)> {
        self.notes.iter().map(|(at, what)| (*at, what))
    }

    /// Forgets what lies before a place, which is the tail of the backlog: nobody reads that any
    /// more. Without a place, everything.
    pub fn forget_before(&mut self, tail: Option<Position>) {
        if !self.notes.is_empty() {
            self.notes
                .retain(|(at, _)| tail.is_some_and(|tail| *at >= tail));
            if self.notes.is_empty() {
                self.notes = VecDeque::new();
            }
        }
    }
}

impl<T> Default for Marks<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use model::Epoch;

    use super::*;

    fn at(epoch: u64, seq: u64) -> Position {
        let epoch = Epoch(epoch);
        Position { epoch, seq }
    }

    #[test]
    fn the_newest_notes_are_kept_and_one_for_each_frame() {
        let mut marks = Marks::new();
        for seq in 0..10 {
            marks.note(at(1, seq), seq);
            assert!(marks.iter().count() <= MARKS_MAX);
        }
        assert_eq!(marks.get(at(1, 5)), None);
        for seq in 6..10 {
            assert_eq!(marks.get(at(1, seq)), Some(&seq));
        }
        marks.note(at(1, 7), 70);
        assert_eq!(marks.iter().count(), MARKS_MAX);
        assert_eq!(marks.get(at(1, 7)), Some(&70));
        assert_eq!(marks.get(at(1, 6)), Some(&6));
    }

    #[test]
    fn what_nobody_reads_any_more_is_forgotten() {
        let mut marks = Marks::new();
        for (epoch, seq) in [(1, 90), (2, 3), (2, 8)] {
            marks.note(at(epoch, seq), seq);
        }
        marks.forget_before(Some(at(2, 3)));
        let kept: Vec<_> = marks.iter().map(|(at, _)| at).collect();
        assert_eq!(kept, [at(2, 3), at(2, 8)]);
        marks.forget_before(None);
        assert!(marks.is_empty());
    }
}
