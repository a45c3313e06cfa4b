//! What must be on the disks before something may happen.

use std::time::Duration;

use model::{LogIndex, NodeId};

use super::{Outcome, World};

impl World {
    /// An origin leads. In a term only one does, and a majority has written down that it
    /// voted for it.
    pub(super) fn check_elected(&mut self, place: usize, term: u64) -> Outcome {
        let id = self.origins[place].id;
        if let Some(other) = self.leaders.insert(term, id)
            && other != id
        {
            return Err(format!("{other} and {id} lead in term {term}"));
        }
        let voted = |disk: &crate::disk::Disk| {
            let promised = disk.promised();
            promised.term > term || (promised.term == term && promised.vote == Some(id))
        };
        self.check_majority(place, |world, voter| {
            voter == id || world.has_on_disk(voter, voted)
        })
        .map_err(|error| format!("o{place} leads in term {term}, but its votes are lost: {error}"))
    }

    /// An entry is applied for the first time: a majority has it on its disks.
    pub(super) fn check_decided(&self, place: usize, index: LogIndex) -> Outcome {
        if self.is_changing() || self.now < self.changed + Duration::from_secs(2) {
            // Who the majority was is not known any more.
            return Ok(());
        }
        self.check_majority(place, |world, voter| {
            world.has_on_disk(voter, |disk| disk.reaches(index))
        })
        .map_err(|error| {
            format!("o{place} applies entry {index}, which is not on the disks: {error}")
        })
    }

    /// An edge was told the state, and with it misses what no state holds, though its origin
    /// remembers all that it has not seen.
    pub(super) fn check_resumed(&self, conn: u64, known: bool) -> Outcome {
        let Some(conn) = self.conns.get(&conn) else {
            return Ok(());
        };
        let (edge, origin) = (&self.edges[conn.edge], &self.origins[conn.origin]);
        let remembers =
            origin.life == conn.lives.1 && origin.remembers.is_some_and(|from| from <= edge.seen);
        if known && remembers && edge.seen > LogIndex(0) {
            return Err(format!(
                "e{} has seen entry {}, and is told the state by o{}, which remembers since {:?}",
                conn.edge, edge.seen, conn.origin, origin.remembers
            ));
        }
        Ok(())
    }

    /// Something holds for a majority of the voters that an origin knows.
    fn check_majority(&self, place: usize, holds: impl Fn(&Self, NodeId) -> bool) -> Outcome {
        let Some(membership) = &self.origins[place].membership else {
            return Ok(());
        };
        for voters in [&membership.voters, &membership.outgoing] {
            let having: Vec<_> = voters.iter().filter(|voter| holds(self, **voter)).collect();
            if !voters.is_empty() && having.len() <= voters.len() / 2 {
                return Err(format!("only {having:?} of {voters:?}"));
            }
        }
        Ok(())
    }

    /// Whether it holds for the disk of an origin. Of a disk that was lost nobody knows.
    fn has_on_disk(&self, id: NodeId, holds: impl Fn(&crate::disk::Disk) -> bool) -> bool {
        self.origins
            .iter()
            .find(|origin| origin.id == id)
            .is_some_and(|origin| origin.disk_lost || origin.gone || holds(&origin.disk))
    }
}
