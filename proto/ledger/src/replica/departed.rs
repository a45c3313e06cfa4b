//! Sessions whose clients left and may come back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use model::SessionId;

/// The sessions, by name and by when they were left.
#[derive(Debug, Default)]
pub(super) struct Departed {
    since: BTreeMap<SessionId, Instant>,
    by_age: BTreeSet<(Instant, SessionId)>,
}

impl Departed {
    pub(super) fn len(&self) -> usize {
        self.since.len()
    }

    /// The one that was left the longest ago.
    pub(super) fn first(&self) -> Option<SessionId> {
        self.by_age.first().map(|(_, id)| *id)
    }

    pub(super) fn insert(&mut self, id: SessionId, now: Instant) {
        self.remove(&id);
        self.since.insert(id, now);
        self.by_age.insert((now, id));
    }

    /// Whether it was among them.
    pub(super) fn remove(&mut self, id: &SessionId) -> bool {
        let since = self.since.remove(id);
        since.is_some_and(|since| self.by_age.remove(&(since, *id)))
    }

    pub(super) fn all(self) -> impl Iterator<Item = SessionId> {
        self.since.into_keys()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    #[allow(
        clippy::disallowed_methods,
        reason = "an Instant must come from somewhere"
    )]
    fn who_left_first_goes_first_whatever_its_name() {
        let (mut departed, start) = (Departed::default(), Instant::now());
        for (number, name) in [5, 9, 1].into_iter().enumerate() {
            let at = start + Duration::from_secs(number as u64);
            departed.insert(SessionId(name), at);
        }
        assert_eq!(departed.first(), Some(SessionId(5)));
        departed.insert(SessionId(5), start + Duration::from_secs(9));
        assert_eq!((departed.first(), departed.len()), (Some(SessionId(9)), 3));
        assert!(departed.remove(&SessionId(9)));
        assert!(!departed.remove(&SessionId(9)));
        assert_eq!(departed.first(), Some(SessionId(1)));
        assert_eq!(departed.all().count(), 2);
    }
}
