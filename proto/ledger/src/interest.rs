//! Registered edges, and what hangs on each of them.

use std::collections::{BTreeMap, BTreeSet};

use model::{EdgeId, EdgeLife, ObjectKey, SessionId};

use crate::limits::LIVES_OVER_MAX;

/// All registered edges: of each edge one life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Edges {
    table: BTreeMap<EdgeId, Edge>,
    /// Of edges that are not registered, the last life that was. No earlier one and not that
    /// one itself registers again.
    over: BTreeMap<EdgeId, u64>,
    /// The highest life that was dropped from `over`: nobody who is not registered and not
    /// in there registers with one up to it.
    floor: u64,
}

/// One edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edge {
    pub(crate) life: EdgeLife,
    /// In which it speaks in its own name.
    pub(crate) session: SessionId,
    /// Objects that it has open: the other direction of what the objects know.
    pub(crate) opened: BTreeSet<ObjectKey>,
    /// Sessions that last spoke through it: the other direction of what they know.
    pub(crate) sessions: BTreeSet<SessionId>,
    /// The numbers of those of its sessions that are over.
    pub(crate) ended: Ranges,
}

impl Edges {
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// The life of the edge that is registered, which may be another.
    pub(crate) fn of_name(&self, name: &EdgeId) -> Option<&Edge> {
        self.table.get(name)
    }

    /// This life of the edge, if it is registered.
    pub(crate) fn get(&self, life: &EdgeLife) -> Option<&Edge> {
        self.table
            .get(&life.edge)
            .filter(|edge| edge.life.incarnation == life.incarnation)
    }

    pub(crate) fn get_mut(&mut self, life: &EdgeLife) -> Option<&mut Edge> {
        self.table
            .get_mut(&life.edge)
            .filter(|edge| edge.life.incarnation == life.incarnation)
    }

    /// All, in order.
    pub(crate) fn all(&self) -> impl ExactSizeIterator<Item = &Edge> {
        self.table.values()
    }

    /// Asked of a life that is not registered: the one that it must exceed and does not.
    /// What it says of itself was under way for too long.
    pub(crate) fn outlives(&self, life: &EdgeLife) -> Option<u64> {
        let newest = self.table.get(&life.edge).map(|edge| edge.life.incarnation);
        let newest = newest.or_else(|| self.over.get(&life.edge).copied());
        let least = newest.unwrap_or(self.floor);
        // The first life of all is above nothing.
        (life.incarnation <= least && (newest.is_some() || self.floor > 0)).then_some(least)
    }

    /// The last lives of edges that are not registered.
    pub(crate) fn over(&self) -> (&BTreeMap<EdgeId, u64>, u64) {
        (&self.over, self.floor)
    }

    /// Puts back what a snapshot holds of them.
    pub(crate) fn restore_over(&mut self, over: BTreeMap<EdgeId, u64>, floor: u64) -> bool {
        let apart = over.keys().all(|name| !self.table.contains_key(name));
        let fits = over.len() <= LIVES_OVER_MAX;
        (self.over, self.floor) = (over, floor);
        apart && fits
    }

    /// Registers a life. No other of that edge is registered.
    pub(crate) fn insert(&mut self, life: EdgeLife, session: SessionId) {
        self.over.remove(&life.edge);
        let edge = Edge {
            life: life.clone(),
            session,
            opened: BTreeSet::new(),
            sessions: BTreeSet::new(),
            ended: Ranges::default(),
        };
        self.table.insert(life.edge, edge);
    }

    /// Forgets a life, if it is registered.
    pub(crate) fn remove(&mut self, life: &EdgeLife) -> Option<Edge> {
        self.get(life)?;
        let edge = self.table.remove(&life.edge)?;
        self.over.insert(life.edge.clone(), life.incarnation);
        if self.over.len() > LIVES_OVER_MAX
            && let Some((incarnation, name)) = self
                .over
                .iter()
                .map(|(name, incarnation)| (*incarnation, name.clone()))
                .min()
        {
            self.floor = self.floor.max(incarnation);
            self.over.remove(&name);
        }
        Some(edge)
    }
}

/// Numbers, as ranges: those of sessions come without holes, so there are no more ranges
/// than sessions that live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges(
    /// From the first of each range to its last.
    pub(crate) BTreeMap<u64, u64>,
);

impl Ranges {
    pub(crate) fn contains(&self, number: u64) -> bool {
        let before = self.0.range(..=number).next_back();
        before.is_some_and(|(_, last)| number <= *last)
    }

    pub(crate) fn insert(&mut self, number: u64) {
        if self.contains(number) {
            return;
        }
        let (mut first, mut last) = (number, number);
        if let Some(below) = number.checked_sub(1)
            && let Some((start, _)) = self.0.range(..=below).next_back()
            && self.contains(below)
        {
            first = *start;
        }
        if let Some(end) = number
            .checked_add(1)
            .and_then(|above| self.0.remove(&above))
        {
            last = end;
        }
        self.0.insert(first, last);
    }

    /// Whether they are ranges that do not touch.
    pub(crate) fn is_canonical(&self) -> bool {
        let mut free = Some(0);
        self.0.iter().all(|(first, last)| {
            let apart = free.is_some_and(|free| free <= *first) && first <= last;
            free = last.checked_add(2);
            apart
        })
    }
}

/// The number of a session that an edge numbers itself, within a life of the edge.
pub(crate) fn number_of(session: SessionId) -> u64 {
    // The lower half.
    u64::try_from(session.0 & u128::from(u64::MAX)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_touch_are_one_range() {
        let mut ranges = Ranges::default();
        for number in [5, 3, 9, 4, 0, 1, u64::MAX, 4] {
            ranges.insert(number);
            assert!(ranges.is_canonical(), "{ranges:?}");
        }
        let all: Vec<_> = ranges.0.iter().map(|(a, b)| (*a, *b)).collect();
        assert_eq!(all, [(0, 1), (3, 5), (9, 9), (u64::MAX, u64::MAX)]);
        assert!(ranges.contains(4) && !ranges.contains(2) && !ranges.contains(10));
    }

    #[test]
    fn a_life_that_is_over_never_comes_back_however_many_others_end() {
        let life = |name: usize, incarnation| EdgeLife {
            edge: EdgeId::new(&format!("edge-{name}")).unwrap(),
            incarnation,
        };
        let mut edges = Edges::default();
        assert_eq!(edges.outlives(&life(0, 0)), None);
        for name in 0..=LIVES_OVER_MAX {
            let life = life(name, 10 + name as u64);
            edges.insert(life.clone(), SessionId(name as u128));
            edges.remove(&life);
        }
        assert_eq!(edges.over.len(), LIVES_OVER_MAX);
        assert_eq!(edges.outlives(&life(0, 10)), Some(10), "it was dropped");
        assert_eq!(edges.outlives(&life(0, 11)), None);
        assert_eq!(edges.outlives(&life(7, 17)), Some(17));
        assert_eq!(edges.outlives(&life(7, 18)), None);
    }
}
