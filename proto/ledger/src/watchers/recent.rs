//! What was applied last, so that an edge that changes its origin misses nothing of it: not
//! the messages to all either, which no state holds.

use std::collections::VecDeque;

use model::LogIndex;

use crate::effect::{Answer, Applied, Effect, ObjectChange};

/// Entries that are remembered: at ten thousand a second, what an edge misses while it finds
/// another origin at once.
const ENTRIES_MAX: usize = 16 * 1024;

/// Their bytes, roughly.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// The newest entries with effects, without a hole.
#[derive(Debug, Default)]
pub(super) struct Recent {
    entries: VecDeque<(Applied, usize)>,
    bytes: usize,
    /// Everything behind this is here; `None` before the first entry of this process, which
    /// may begin with a saved state.
    from: Option<LogIndex>,
}

impl Recent {
    /// An entry was applied.
    pub(super) fn push(&mut self, applied: &Applied) {
        let before = LogIndex(applied.index.0.saturating_sub(1));
        self.from.get_or_insert(before);
        let weight = weight(applied);
        self.bytes += weight;
        self.entries.push_back((applied.clone(), weight));
        while self.entries.len() > ENTRIES_MAX || self.bytes > BYTES_MAX {
            let Some((oldest, weight)) = self.entries.pop_front() else {
                break;
            };
            self.bytes -= weight;
            self.from = Some(oldest.index);
        }
    }

    /// What happened up to this entry is not known here.
    pub(super) fn restart(&mut self, at: LogIndex) {
        self.entries.clear();
        self.bytes = 0;
        self.from = Some(at);
    }

    /// What was applied behind this entry; `None` if not all of it is remembered.
    pub(super) fn since(&self, seen: LogIndex) -> Option<impl Iterator<Item = &Applied>> {
        let first = self
            .entries
            .partition_point(|(applied, _)| applied.index <= seen);
        let newer = self.entries.range(first..).map(|(applied, _)| applied);
        self.from.is_some_and(|from| from <= seen).then_some(newer)
    }
}

fn weight(applied: &Applied) -> usize {
    let effects = applied.effects.iter().map(|effect| match effect {
        Effect::Object {
            change: ObjectChange::Slots { slots, .. },
            ..
        } => slots
            .iter()
            .map(|(name, value)| {
                64 + name.as_str().len() + value.as_ref().map_or(0, |value| value.0.len())
            })
            .sum(),
        Effect::Object {
            change: ObjectChange::Send { payload },
            ..
        } => payload.len(),
        Effect::Answer {
            answer: Answer::Opened(sync),
            ..
        } => sync
            .slots
            .iter()
            .map(|(name, value, _)| 64 + name.as_str().len() + value.0.len())
            .sum::<usize>(),
        Effect::Answer { .. }
        | Effect::Stream { .. }
        | Effect::Challenge { .. }
        | Effect::Claim { .. }
        | Effect::EdgeLost { .. }
        | Effect::Locked { .. }
        | Effect::Unlocked { .. }
        | Effect::Home { .. } => 0,
    });
    effects.map(|bytes| 128 + bytes).sum::<usize>() + 128
}
