//! Edges: a replica, and its attachment to an origin.

use std::time::Duration;

use bytes::Bytes;
use ledger::replica::{Output as ToShell, Replica, Setup as ReplicaSetup};
use ledger::watchers::AttachId;
use ledger::wire::ToOrigin;
use model::EdgeId;

use super::{Conn, Event, Outcome, World};
use crate::net::Host;

impl World {
    pub(super) fn start_edge(&mut self, place: usize) {
        let seed = self.dice.draw();
        let now = self.instant(Host::Edge(place));
        let edge = &mut self.edges[place];
        let id = EdgeId::new(&format!("edge-{place}")).unwrap();
        let mut setup = ReplicaSetup::new(id, seed);
        setup.linger = Duration::from_secs(1);
        setup.write_wait = Duration::from_secs(3);
        edge.replica = Some(Replica::new(setup, now));
        let life = edge.life;
        edge.dialling = true;
        self.trace(format_args!("e{place} starts"));
        self.at(Duration::from_millis(1), Event::Dial { edge: place, life });
    }

    pub(super) fn kill_edge(&mut self, place: usize) {
        if self.edges[place].replica.take().is_none() {
            return;
        }
        self.trace(format_args!("e{place} is killed"));
        self.report.kills += 1;
        let edge = &mut self.edges[place];
        edge.life += 1;
        edge.paused = None;
        edge.dialling = false;
        edge.publishers.clear();
        if let Some(conn) = edge.conn.take() {
            self.at(Duration::from_millis(1), Event::Break { conn });
        }
        let clients = std::mem::take(&mut self.edges[place].subscribers);
        for client in clients.into_values() {
            self.clients[client].handle_lost();
            let pause = self
                .dice
                .between(Duration::from_millis(1), Duration::from_millis(400));
            self.at(pause, Event::Connect { client });
        }
    }

    pub(super) fn dial(&mut self, place: usize, life: u64) -> Outcome {
        let edge = &mut self.edges[place];
        if edge.life != life || edge.replica.is_none() || edge.conn.is_some() {
            return Ok(());
        }
        edge.dialling = false;
        let origin = self.dice.below(self.origins.len());
        let (here, there) = (Host::Edge(place), Host::Origin(origin));
        let runs = self.origins[origin].member.is_some();
        if !runs || self.net.is_cut(here, there) || self.net.is_cut(there, here) {
            return self.redial(place);
        }
        self.next_conn += 1;
        let conn = self.next_conn;
        self.trace(format_args!("e{place} attaches to o{origin} by {conn}"));
        let lives = (life, self.origins[origin].life);
        self.conns.insert(
            conn,
            Conn {
                edge: place,
                origin,
                lives,
                doomed: (false, false),
            },
        );
        self.edges[place].conn = Some(conn);
        let at = self.net.in_order(here, there, self.now);
        self.at(at.saturating_sub(self.now), Event::Accepted { conn });
        let now = self.instant(here);
        if let Some(replica) = &mut self.edges[place].replica {
            replica.handle_attached_link(now);
        }
        self.drain_edge(place)
    }

    pub(super) fn redial(&mut self, place: usize) -> Outcome {
        let edge = &mut self.edges[place];
        if edge.dialling || edge.replica.is_none() {
            return Ok(());
        }
        edge.dialling = true;
        let life = edge.life;
        let pause = self
            .dice
            .between(Duration::from_millis(20), Duration::from_millis(200));
        self.at(pause, Event::Dial { edge: place, life });
        Ok(())
    }

    pub(super) fn break_conn(&mut self, id: u64) -> Outcome {
        let Some(conn) = self.conns.remove(&id) else {
            return Ok(());
        };
        self.trace(format_args!("attachment {id} breaks"));
        let now = self.instant(Host::Edge(conn.edge));
        if let Some(member) = self.living(conn.origin, conn.lives.1) {
            member.handle_detach(AttachId(id));
            self.drain_origin(conn.origin)?;
        }
        let edge = &mut self.edges[conn.edge];
        if edge.life == conn.lives.0 && edge.conn == Some(id) {
            edge.conn = None;
            if let Some(replica) = &mut edge.replica {
                replica.handle_detached(now);
            }
            self.drain_edge(conn.edge)?;
            self.redial(conn.edge)?;
        }
        Ok(())
    }

    /// Sends on a connection: what cannot pass dooms it.
    pub(super) fn send_up(&mut self, id: u64, message: Bytes) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let (here, there) = (Host::Edge(conn.edge), Host::Origin(conn.origin));
        if conn.doomed.0 {
            return;
        }
        if self.net.is_cut(here, there) {
            conn.doomed.0 = true;
            return self.doom(id);
        }
        let at = self.net.in_order(here, there, self.now);
        self.at(at.saturating_sub(self.now), Event::Up { conn: id, message });
    }

    pub(super) fn send_down(&mut self, id: u64, message: Bytes) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let (here, there) = (Host::Origin(conn.origin), Host::Edge(conn.edge));
        if conn.doomed.1 {
            return;
        }
        if self.net.is_cut(here, there) {
            conn.doomed.1 = true;
            return self.doom(id);
        }
        let at = self.net.in_order(here, there, self.now);
        self.at(
            at.saturating_sub(self.now),
            Event::Down { conn: id, message },
        );
    }

    pub(super) fn doom(&mut self, conn: u64) {
        let pause = self
            .dice
            .between(Duration::from_millis(500), Duration::from_secs(3));
        self.at(pause, Event::Break { conn });
    }

    pub(super) fn drain_edge(&mut self, place: usize) -> Outcome {
        while let Some(output) = self.edges[place]
            .replica
            .as_mut()
            .and_then(Replica::poll_output)
        {
            match output {
                ToShell::ToOrigin(message) => {
                    self.trace(format_args!("e{place} says {message:?}"));
                    if let ToOrigin::Attach { seen, .. } = &message {
                        self.edges[place].seen = *seen;
                    }
                    if let Some(conn) = self.edges[place].conn {
                        self.send_up(conn, message.encode());
                    }
                }
                ToShell::Update { to, key, update } => {
                    self.trace(format_args!("e{place} tells {to:?} of {key}: {update:?}"));
                    let edge = &self.edges[place];
                    // Another life of the edge begins with what is there.
                    let life = edge.replica.as_ref().map(|r| r.life().incarnation);
                    let holes = (life.unwrap_or_default(), edge.holes);
                    for id in to.iter() {
                        let Some(&client) = self.edges[place].subscribers.get(&id) else {
                            continue;
                        };
                        self.report.updates += 1;
                        self.clients[client].handle_update(
                            &key,
                            &update,
                            holes,
                            &mut self.truth,
                            &mut self.verdicts,
                        )?;
                    }
                }
                ToShell::CallAnswer {
                    subscriber,
                    call,
                    result,
                } => {
                    self.trace(format_args!("e{place} answers {call:?}: {result:?}"));
                    if let Some(&client) = self.edges[place].subscribers.get(&subscriber) {
                        let session = self.session(client, subscriber);
                        self.clients[client].handle_call(
                            call.0,
                            result,
                            session,
                            &mut self.truth,
                        )?;
                    }
                }
                ToShell::Stream { .. } => {}
                ToShell::Claim {
                    publication,
                    outcome,
                } => self.claimed(place, publication, outcome)?,
                ToShell::Dismiss(id) => {
                    if let Some(client) = self.edges[place].subscribers.remove(&id) {
                        let now = self.instant(Host::Edge(place));
                        if let Some(replica) = &mut self.edges[place].replica {
                            replica.handle_left(id, now);
                        }
                        self.clients[client].handle_lost();
                        let pause = Duration::from_millis(100);
                        self.at(pause, Event::Connect { client });
                    }
                }
                ToShell::Challenged { publication } => {
                    let now = self.instant(Host::Edge(place));
                    let edge = &mut self.edges[place];
                    let publisher = edge
                        .publishers
                        .iter()
                        .find(|p| p.publication == publication);
                    let alive = publisher.is_some_and(|publisher| publisher.alive);
                    if let Some(replica) = &mut edge.replica {
                        if alive {
                            replica.affirm(publication, now);
                        } else {
                            replica.release(publication, now);
                            edge.publishers.retain(|p| p.publication != publication);
                        }
                    }
                }
                ToShell::Reattach => {
                    if let Some(conn) = self.edges[place].conn {
                        self.at(Duration::from_micros(1), Event::Break { conn });
                    }
                }
            }
        }
        Ok(())
    }
}
