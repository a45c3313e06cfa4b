//! Whoever runs the cluster: members are added, removed and exchanged, one step after the
//! other, and what has lost its disk is replaced under a new number.

use std::time::Duration;

use bytes::Bytes;
use consensus::{About, Change, Membership, Role};
use member::Restored;

use super::{Event, Origin, Outcome, World, node};
use crate::clock::Clock;
use crate::disk::Disk;
use crate::net::Host;

/// Voters at most.
const MEMBERS_MAX: usize = 5;

/// What is to be done, by places of origins.
#[derive(Clone, Copy, Debug)]
pub(super) enum Task {
    Add(usize),
    Remove(usize),
    /// The first comes, the second goes, in one change.
    Exchange(usize, usize),
}

impl World {
    /// Something is to be changed, if nothing is.
    pub(super) fn plan(&mut self) {
        if !self.tasks.is_empty() {
            return;
        }
        let present = self.present();
        let victim = present[self.dice.below(present.len())];
        match self.dice.below(3) {
            0 if present.len() < MEMBERS_MAX => {
                let new = self.newcomer();
                self.tasks.push_back(Task::Add(new));
            }
            1 if present.len() > 1 => self.tasks.push_back(Task::Remove(victim)),
            _ => {
                let new = self.newcomer();
                self.tasks.push_back(Task::Exchange(new, victim));
            }
        }
        let task = self.tasks.front().copied();
        self.trace(format_args!("to be done: {task:?}"));
    }

    /// An origin loses its disk, if the others can do without it.
    pub(super) fn lose_disk(&mut self, place: usize) {
        let Some(leader) = self.leader() else { return };
        let Some(membership) = self.membership_of(leader) else {
            return;
        };
        let whole = membership.voters.len() >= 3 && membership.learners.is_empty();
        if !self.tasks.is_empty() || !whole || !self.present().contains(&place) {
            return;
        }
        self.kill_origin(place);
        self.report.disks_lost += 1;
        self.trace(format_args!("o{place} has lost its disk"));
        let origin = &mut self.origins[place];
        origin.disk = Disk::new(Restored::default());
        origin.disk_lost = true;
        // Somebody starts it again, as if nothing had happened: with a new folder.
        origin.stamp += 5000;
        if self.dice.in_thousand(500) {
            let soon = self.dice.between(Duration::ZERO, Duration::from_secs(2));
            let mend = super::Mend::Restart(Host::Origin(place));
            self.at(soon, Event::Mend(mend));
        }
        let new = self.newcomer();
        if self.dice.in_thousand(500) {
            self.tasks.push_back(Task::Exchange(new, place));
        } else {
            self.tasks.push_back(Task::Remove(place));
            self.tasks.push_back(Task::Add(new));
        }
    }

    /// The first task is proposed until it is done.
    pub(super) fn operate(&mut self) -> Outcome {
        self.at(Duration::from_millis(150), Event::Operate);
        let Some(&task) = self.tasks.front() else {
            return Ok(());
        };
        let Some(leader) = self.leader() else {
            return Ok(());
        };
        let Some(now) = self.membership_of(leader) else {
            return Ok(());
        };
        let (new, old) = match task {
            Task::Add(new) => (Some(new), None),
            Task::Remove(old) => (None, Some(old)),
            Task::Exchange(new, old) => (Some(new), Some(old)),
        };
        let came = new.is_none_or(|place| now.has(node(place)));
        let went = old.is_none_or(|place| now.removed.contains(&node(place)));
        if came && went {
            if !now.outgoing.is_empty() {
                return Ok(());
            }
            self.tasks.pop_front();
            self.report.memberships += 1;
            self.trace(format_args!("done: {task:?}"));
            if let Some(old) = old {
                self.kill_origin(old);
                self.origins[old].gone = true;
            }
            return Ok(());
        }
        let mut changes = Vec::new();
        changes.extend(new.map(|place| Change::AddLearner {
            id: node(place),
            about: About {
                stamp: self.origins[place].stamp,
                text: Bytes::new(),
            },
        }));
        changes.extend(old.map(|place| Change::Remove { id: node(place) }));
        if let Some(member) = &mut self.origins[leader].member {
            // It is refused while another change is under way, or nobody would be left.
            let proposed = member.propose_membership(&changes);
            if let Err(consensus::Error::Membership(consensus::Refusal::LastVoter)) = proposed {
                self.tasks.pop_front();
                if let Some(new) = new {
                    self.kill_origin(new);
                    self.origins[new].gone = true;
                }
            }
        }
        self.drain_origin(leader)
    }

    /// Nothing is left to do, and everybody votes.
    pub(super) fn check_settled(&self) -> Outcome {
        if let Some(task) = self.tasks.front() {
            return Err(format!("{task:?} is not done"));
        }
        let leader = self.leader().ok_or("nobody leads")?;
        let membership = self.membership_of(leader).ok_or("nobody leads")?;
        if !membership.learners.is_empty() || !membership.outgoing.is_empty() {
            return Err(format!("not everybody votes: {membership:?}"));
        }
        Ok(())
    }

    /// Whether the membership is about to change.
    pub(super) fn is_changing(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// Origins that belong to the cluster, or will.
    pub(super) fn present(&self) -> Vec<usize> {
        let here = |place: &usize| !self.origins[*place].gone;
        (0..self.origins.len()).filter(here).collect()
    }

    /// The origin that leads; of several that think so, the one of the newest term.
    pub(super) fn leader(&self) -> Option<usize> {
        let role = |origin: &Origin| origin.member.as_ref().map(member::Member::role);
        self.origins
            .iter()
            .enumerate()
            .filter(|(_, origin)| origin.paused.is_none())
            .filter_map(|(place, origin)| Some((place, role(origin)?)))
            .filter(|(_, (role, ..))| *role == Role::Leader)
            .max_by_key(|(_, (_, term, _))| *term)
            .map(|(place, _)| place)
    }

    pub(super) fn membership_of(&self, place: usize) -> Option<Membership> {
        let member = self.origins[place].member.as_ref()?;
        Some(member.status().log.membership)
    }

    /// An origin with an empty disk, which waits to be told.
    fn newcomer(&mut self) -> usize {
        let place = self.origins.len();
        let clock = Clock::new(self.base, &mut self.dice);
        self.origins
            .push(Origin::new(place, Restored::default(), clock));
        self.start_origin(place);
        place
    }
}
