//! How long entries take from the leader's log to being carried out, and what came of them.
//!
//! Only the leader knows when an entry began. What it gives to the disk at once began at once: of
//! each such run the ends and the time are kept, so that an entry costs nothing.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::Instant;

use ledger::{Applied, Effect};
use model::LogIndex;
use node::metrics::{Counter, Histogram};

use crate::limits::COMMITS_MAX;

/// See the [module](self). Clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Commits {
    /// Runs, and when they were given to the disk.
    under_way: VecDeque<(RangeInclusive<LogIndex>, Instant)>,
    /// What was in the log when the member began is not counted: nearly all of it was, by the
    /// process before.
    replayed: LogIndex,
    seconds: Histogram,
    objects: Counter,
}

impl Commits {
    pub(crate) fn new(seconds: Histogram, objects: Counter) -> Self {
        Self {
            under_way: VecDeque::new(),
            replayed: LogIndex(0),
            seconds,
            objects,
        }
    }

    /// For a member whose log ends there.
    pub(super) fn of(&self, replayed: LogIndex) -> Self {
        Self {
            under_way: VecDeque::new(),
            replayed,
            ..self.clone()
        }
    }

    /// Entries are given to the disk; `leads` if they are the leader's own.
    pub(super) fn given(&mut self, entries: &[consensus::Entry], leads: bool, now: Instant) {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return;
        };
        // Those that had these numbers are void.
        while self
            .under_way
            .pop_back_if(|(run, _)| *run.end() >= first.index)
            .is_some()
        {}
        if leads {
            if self.under_way.len() == COMMITS_MAX {
                self.under_way.pop_front();
            }
            self.under_way.push_back((first.index..=last.index, now));
        }
    }

    /// It does not lead, or no longer: what it gave may be decided by another.
    pub(super) fn follow(&mut self) {
        self.under_way.clear();
    }

    /// An entry is carried out.
    pub(super) fn applied(&mut self, applied: &Applied, now: Instant) {
        if applied.index <= self.replayed {
            return;
        }
        let changed = |effect: &&Effect| matches!(effect, Effect::Object { .. });
        let changes = applied.effects.iter().filter(changed).count();
        self.objects.inc_by(changes as u64);
        while self
            .under_way
            .pop_front_if(|(run, _)| *run.end() < applied.index)
            .is_some()
        {}
        if let Some((run, given)) = self.under_way.front()
            && run.contains(&applied.index)
        {
            let took = now.saturating_duration_since(*given);
            self.seconds.observe(took.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use consensus::EntryKind;
    use node::metrics::Metrics;

    use super::*;

    fn commits() -> Commits {
        crate::metrics::commits(&Metrics::new("origin", "origin-0")).of(LogIndex(10))
    }

    fn entries(indexes: std::ops::RangeInclusive<u64>) -> Vec<consensus::Entry> {
        let entry = |index| consensus::Entry {
            index: LogIndex(index),
            term: 1,
            kind: EntryKind::Command,
            data: Bytes::new(),
        };
        indexes.map(entry).collect()
    }

    fn applied(index: u64) -> Applied {
        Applied {
            index: LogIndex(index),
            trace: Bytes::new(),
            effects: Vec::new(),
        }
    }

    #[test]
    fn every_entry_of_a_run_took_since_the_run_began() {
        let (mut commits, start) = (commits(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        commits.given(&entries(11..=13), true, at(0));
        commits.given(&entries(14..=14), true, at(4));
        for index in 11..=13 {
            commits.applied(&applied(index), at(5));
        }
        assert_eq!(commits.seconds.get_sample_count(), 3);
        commits.applied(&applied(14), at(5));
        // Three times five seconds, and one.
        assert!((commits.seconds.get_sample_sum() - 16.0).abs() < 1e-6);
    }

    #[test]
    fn nobody_measures_what_began_elsewhere_or_before() {
        let (mut commits, now) = (commits(), Instant::now());
        commits.given(&entries(11..=12), false, now);
        commits.applied(&applied(9), now);
        commits.applied(&applied(11), now);
        commits.given(&entries(13..=14), true, now);
        commits.follow();
        commits.applied(&applied(13), now);
        // What it found when it began to lead.
        commits.given(&entries(15..=15), false, now);
        commits.given(&entries(16..=16), true, now);
        commits.applied(&applied(15), now);
        // What another leader wrote in its place.
        commits.given(&entries(16..=17), true, now);
        commits.given(&entries(16..=16), false, now);
        commits.applied(&applied(16), now);
        assert_eq!(commits.seconds.get_sample_count(), 0);
    }

    #[test]
    fn what_is_never_decided_is_not_remembered_for_ever() {
        let (mut commits, now) = (commits(), Instant::now());
        for index in 11..20_000 {
            commits.given(&entries(index..=index), true, now);
        }
        assert_eq!(commits.under_way.len(), COMMITS_MAX);
    }
}
