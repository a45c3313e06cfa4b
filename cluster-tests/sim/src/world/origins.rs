//! Origins: a member, its disk, and the way to the others.

use std::time::Duration;

use bytes::Bytes;
use consensus::Role;
use member::{Member, Output, Saved, Setup};
use model::{LogIndex, NodeId};

use super::{Event, Outcome, World};
use crate::client::Subject;
use crate::net::Host;

impl World {
    pub(super) fn start_origin(&mut self, place: usize) {
        let seed = self.dice.draw();
        let now = self.instant(Host::Origin(place));
        let saves = self.saves;
        let origin = &mut self.origins[place];
        let mut setup = Setup::new(origin.id, origin.stamp, seed);
        // Small, so that states are saved and sent often.
        (setup.snapshot_entries, setup.tail_entries) = saves;
        setup.edge_lease = Duration::from_secs(3);
        let member = Member::new(setup, origin.disk.restored(), now);
        let member = member.unwrap_or_else(|error| panic!("o{place}: {error}"));
        origin.membership = Some(member.status().log.membership);
        origin.member = Some(member);
        origin.syncing = false;
        origin.remembers = None;
        self.trace(format_args!("o{place} starts"));
        self.drain_origin(place)
            .unwrap_or_else(|error| panic!("o{place}: {error}"));
    }

    pub(super) fn drain_origin(&mut self, place: usize) -> Outcome {
        while let Some(output) = self.origins[place]
            .member
            .as_mut()
            .and_then(Member::poll_output)
        {
            self.carry_out(place, output)?;
        }
        let origin = &mut self.origins[place];
        if origin.member.is_some() && !origin.syncing && origin.disk.begin_sync() {
            origin.syncing = true;
            let (from, to) = origin.sync;
            let life = origin.life;
            let pause = self.dice.between(from, to);
            self.at(
                pause,
                Event::Synced {
                    origin: place,
                    life,
                },
            );
        }
        Ok(())
    }

    pub(super) fn carry_out(&mut self, place: usize, output: Output) -> Outcome {
        match output {
            Output::ToPeer { to, message } => self.send_peer(place, to, message, None),
            Output::SnapshotToPeer {
                to,
                message,
                contents,
                index,
            } => {
                self.trace(format_args!(
                    "o{place} sends its state as of {index} to {to}"
                ));
                let life = self.origins[place].life;
                self.send_peer(place, to, message, Some((contents, life)));
            }
            Output::Persist {
                ticket,
                write,
                contents,
            } => self.origins[place].disk.write(ticket, write, contents),
            Output::SaveSnapshot {
                index,
                term,
                contents,
                ..
            } => {
                let saved = Saved {
                    index,
                    term,
                    contents,
                };
                let life = self.origins[place].life;
                let pause = self.dice.between(Duration::ZERO, Duration::from_millis(50));
                let origin = place;
                self.at(
                    pause,
                    Event::StateSaved {
                        origin,
                        life,
                        saved,
                    },
                );
            }
            Output::Compacted { first } => self.origins[place].disk.compact(first),
            Output::ToEdge { attach, message } => self.send_down(attach.0, message),
            Output::RefuseEdge { attach, why } => {
                self.trace(format_args!(
                    "o{place} refuses attachment {}: {why:?}",
                    attach.0
                ));
                self.at(Duration::from_micros(100), Event::Break { conn: attach.0 });
            }
            Output::Applied(applied) => {
                self.trace(format_args!("o{place} applies {applied:?}"));
                let before = LogIndex(applied.index.0.saturating_sub(1));
                self.origins[place].remembers.get_or_insert(before);
                let who = format_args!("o{place}");
                if self.truth.handle_applied(who, &applied, self.now)? {
                    self.check_decided(place, applied.index)?;
                }
                // Several entries are applied at once: the state is that behind the last.
                let member = self.origins[place].member.as_ref();
                if member.is_some_and(|member| member.ledger().applied() == applied.index) {
                    self.compare_states(place)?;
                }
            }
            Output::Restored { index } => {
                self.trace(format_args!("o{place} is given the state as of {index}"));
                self.origins[place].remembers = Some(index);
                self.compare_states(place)?;
            }
            Output::Membership(membership) => {
                self.trace(format_args!("o{place} knows {membership:?}"));
                self.origins[place].membership = Some(membership);
                self.changed = self.now;
            }
            Output::Role { role, term, leader } => {
                self.trace(format_args!(
                    "o{place} is {role:?} in term {term} of {leader:?}"
                ));
                if role == Role::Leader && self.origins[place].leader_seen != leader {
                    self.report.elections += 1;
                }
                self.origins[place].leader_seen = leader;
                if role == Role::Leader {
                    self.check_elected(place, term)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn compare_states(&mut self, place: usize) -> Outcome {
        let Some(member) = &self.origins[place].member else {
            return Ok(());
        };
        for Subject { key, .. } in &self.objects {
            if let Some(sync) = member.ledger().sync(key, None) {
                self.truth
                    .handle_state(format_args!("o{place}"), key, &sync)?;
            }
        }
        Ok(())
    }

    pub(super) fn send_peer(
        &mut self,
        from: usize,
        to: NodeId,
        message: Bytes,
        state: Option<(Bytes, u64)>,
    ) {
        let Some(to) = self.origins.iter().position(|origin| origin.id == to) else {
            return;
        };
        let (here, there) = (Host::Origin(from), Host::Origin(to));
        match self.net.arrival(here, there, self.now) {
            Some(at) => {
                let event = Event::Peer {
                    from,
                    to,
                    message,
                    state,
                };
                self.at(at.saturating_sub(self.now), event);
            }
            None => {
                if let Some((_, life)) = state {
                    let to = self.origins[to].id;
                    let event = Event::StateSent {
                        origin: from,
                        life,
                        to,
                        arrived: false,
                    };
                    self.at(Duration::from_millis(300), event);
                }
            }
        }
    }

    pub(super) fn kill_origin(&mut self, place: usize) {
        if self.origins[place].member.take().is_none() {
            return;
        }
        self.report.kills += 1;
        let unsynced = self.origins[place].disk.unsynced();
        let kept = self.dice.below(unsynced + 1);
        let origin = &mut self.origins[place];
        origin.disk.crash(kept);
        origin.life += 1;
        origin.paused = None;
        self.trace(format_args!(
            "o{place} is killed; of {unsynced} unsynced writes {kept} are kept"
        ));
        let conns: Vec<_> = self
            .conns
            .iter()
            .filter(|(_, conn)| conn.origin == place)
            .map(|(id, _)| *id)
            .collect();
        for conn in conns {
            let pause = self
                .dice
                .between(Duration::from_micros(100), Duration::from_millis(5));
            self.at(pause, Event::Break { conn });
        }
    }
}
