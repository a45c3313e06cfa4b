//! Registered edges, and what hangs on each of them.

use std::collections::{BTreeMap, BTreeSet};

use model::{EdgeId, EdgeLife, ObjectKey, SessionId};

/// All registered edges: of each edge one life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Edges {
    table: BTreeMap<EdgeId, Edge>,
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

    /// Registers a life. No other of that edge is registered.
    pub(crate) fn insert(&mut self, life: EdgeLife, session: SessionId) {
        let edge = Edge {
            life: life.clone(),
            session,
            opened: BTreeSet::new(),
            sessions: BTreeSet::new(),
        };
        self.table.insert(life.edge, edge);
    }

    /// Forgets a life, if it is registered.
    pub(crate) fn remove(&mut self, life: &EdgeLife) -> Option<Edge> {
        self.get(life)?;
        self.table.remove(&life.edge)
    }
}
