//! What happens, and to whom.

use ledger::watchers::AttachId;
use ledger::wire::ToEdge;
use member::Member;

use super::{Event, FAULTS_EVERY, Outcome, World};
use crate::net::Host;
use std::time::Duration;

impl World {
    pub(super) fn handle(&mut self, event: Event) -> Outcome {
        // Whoever is stopped hears it later.
        let host = match &event {
            Event::Peer { to, .. } => Some(Host::Origin(*to)),
            Event::Up { conn, .. } | Event::Accepted { conn } => {
                self.conns.get(conn).map(|conn| Host::Origin(conn.origin))
            }
            Event::Down { conn, .. } => self.conns.get(conn).map(|conn| Host::Edge(conn.edge)),
            Event::Synced { origin, .. }
            | Event::StateSaved { origin, .. }
            | Event::StateSent { origin, .. } => Some(Host::Origin(*origin)),
            Event::Dial { edge, .. } => Some(Host::Edge(*edge)),
            Event::Break { .. }
            | Event::Connect { .. }
            | Event::Think { .. }
            | Event::Publishers
            | Event::Fault
            | Event::Operate
            | Event::Mend(_) => None,
        };
        let paused = match host {
            Some(Host::Origin(place)) => self.origins[place].paused.as_mut(),
            Some(Host::Edge(place)) => self.edges[place].paused.as_mut(),
            None => None,
        };
        if let Some(waiting) = paused {
            waiting.push_back(event);
            return Ok(());
        }
        let now = host.map_or(self.base, |host| self.instant(host));
        match event {
            Event::Peer {
                from,
                to,
                message,
                state,
            } => {
                let sender = self.origins[from].id;
                let arrived = self.origins[to].member.is_some();
                if let Some(member) = &mut self.origins[to].member {
                    let taken = match &state {
                        None => member.handle_peer(sender, &message, now),
                        Some((contents, _)) => {
                            member.handle_snapshot(sender, &message, contents, now)
                        }
                    };
                    // Who was removed, or comes back with another folder, is told so.
                    let strangers = matches!(
                        taken,
                        Err(member::Error::NotMe(_)
                            | member::Error::NotHim(_)
                            | member::Error::Consensus(consensus::Error::Misbehaved(
                                _,
                                consensus::Misbehaviour::NotMember
                            )))
                    );
                    if let Err(error) = taken
                        && !strangers
                    {
                        return Err(format!("o{to} refuses what o{from} sent: {error}"));
                    }
                    self.drain_origin(to)?;
                }
                if let Some((_, life)) = state {
                    let to = self.origins[to].id;
                    let event = Event::StateSent {
                        origin: from,
                        life,
                        to,
                        arrived,
                    };
                    self.at(Duration::from_millis(1), event);
                }
            }
            Event::StateSent {
                origin,
                life,
                to,
                arrived,
            } => {
                if let Some(member) = self.living(origin, life) {
                    member.handle_snapshot_sent(to, arrived);
                    self.drain_origin(origin)?;
                }
            }
            Event::Synced { origin, life } => {
                if self.living(origin, life).is_some() {
                    let last = self.origins[origin].disk.end_sync();
                    self.origins[origin].syncing = false;
                    if let (Some(ticket), Some(member)) = (last, self.living(origin, life)) {
                        member.handle_persisted(ticket, now);
                    }
                    self.drain_origin(origin)?;
                }
            }
            Event::StateSaved {
                origin,
                life,
                saved,
            } => {
                if self.living(origin, life).is_some() {
                    let index = saved.index;
                    self.origins[origin].disk.save(saved);
                    if let Some(member) = self.living(origin, life) {
                        member.handle_snapshot_saved(index);
                    }
                    self.drain_origin(origin)?;
                }
            }
            Event::Accepted { conn } => {
                if let Some((origin, member)) = self.attached(conn) {
                    member.handle_attach(AttachId(conn), now);
                    self.drain_origin(origin)?;
                }
            }
            Event::Up { conn, message } => {
                if let Some((origin, member)) = self.attached(conn) {
                    member
                        .handle_edge(AttachId(conn), message, now)
                        .map_err(|error| format!("o{origin} cannot read an edge: {error}"))?;
                    self.drain_origin(origin)?;
                }
            }
            Event::Down { conn, message } => {
                let Some((edge, lives)) = self.conns.get(&conn).map(|c| (c.edge, c.lives)) else {
                    return Ok(());
                };
                if self.edges[edge].conn == Some(conn) && self.edges[edge].life == lives.0 {
                    let message = ToEdge::decode(message)
                        .map_err(|error| format!("e{edge} cannot read an origin: {error}"))?;
                    self.trace(format_args!("e{edge} hears {message:?}"));
                    if let ToEdge::Attached { known, .. } = &message {
                        self.check_resumed(conn, *known)?;
                        self.edges[edge].holes += 1;
                    }
                    if let Some(replica) = &mut self.edges[edge].replica {
                        replica
                            .handle_message(message, now)
                            .map_err(|error| format!("e{edge} blames its origin: {error}"))?;
                    }
                    self.drain_edge(edge)?;
                }
            }
            Event::Break { conn } => self.break_conn(conn)?,
            Event::Dial { edge, life } => self.dial(edge, life)?,
            Event::Connect { client } => self.connect(client)?,
            Event::Think { client } => {
                if !self.healed {
                    let wishes = self.clients[client].think(self.now, &self.truth);
                    self.grant(client, wishes)?;
                    let pause = self.clients[client].pause();
                    self.at(pause, Event::Think { client });
                }
            }
            Event::Publishers => self.publish()?,
            Event::Operate => self.operate()?,
            Event::Fault => {
                if !self.healed {
                    self.fault()?;
                    let pause = self.dice.between(Duration::from_millis(50), FAULTS_EVERY);
                    self.at(pause, Event::Fault);
                }
            }
            Event::Mend(mend) => self.mend(mend),
        }
        Ok(())
    }

    pub(super) fn living(&mut self, origin: usize, life: u64) -> Option<&mut Member> {
        let origin = &mut self.origins[origin];
        origin.member.as_mut().filter(|_| origin.life == life)
    }

    pub(super) fn attached(&mut self, conn: u64) -> Option<(usize, &mut Member)> {
        let conn = self.conns.get(&conn)?;
        let (origin, life) = (conn.origin, conn.lives.1);
        Some((origin, self.living(origin, life)?))
    }
}
