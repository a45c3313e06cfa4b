//! Publishers and clients, and what they want.

use std::time::Duration;

use bytes::Bytes;
use ledger::replica::{Access, ClaimOutcome, Subscriber, SubscriberId};
use model::{Epoch, OriginId, SessionId};

use super::{Event, Outcome, World};
use crate::client::{Subject, Wish};
use crate::net::Host;
use crate::publisher::Publisher;

impl World {
    pub(super) fn publish(&mut self) -> Outcome {
        for place in 0..self.edges.len() {
            let now = self.instant(Host::Edge(place));
            let time = self.now;
            let healed = self.healed;
            if self.edges[place].replica.is_none() || self.edges[place].paused.is_some() {
                continue;
            }
            if !healed && self.edges[place].publishers.len() < 2 && self.dice.in_thousand(300) {
                self.next_subscriber += 1;
                let key = self.streams[self.dice.below(self.streams.len())].clone();
                // Its edge may have seen a publish that the ledger has not.
                let newest = self.grants.keys().filter(|(of, _)| *of == key);
                let newest = newest.map(|(_, epoch)| epoch.0).max().unwrap_or_default();
                let above = match self.dice.below(4) {
                    0 => Epoch(newest + self.dice.below(500) as u64),
                    _ => Epoch(0),
                };
                let id = self.next_subscriber;
                let publisher = Publisher::new(id, key.clone(), above, time, &mut self.dice);
                let token = match self.dice.below(3) {
                    0 => Bytes::from_static(b"same"),
                    _ => Bytes::new(),
                };
                let edge = &mut self.edges[place];
                if let Some(replica) = &mut edge.replica {
                    let publication = publisher.publication;
                    replica.claim(publication, key, token, above, Bytes::new(), now);
                }
                edge.publishers.push(publisher);
            }
            let edge = &mut self.edges[place];
            let over: Vec<_> = edge
                .publishers
                .iter()
                .filter(|publisher| publisher.until <= time || healed)
                .map(|publisher| publisher.publication)
                .collect();
            edge.publishers.retain(|p| !over.contains(&p.publication));
            if let Some(replica) = &mut edge.replica {
                for publication in over {
                    replica.release(publication, now);
                }
            }
            self.drain_edge(place)?;
        }
        if !self.healed {
            self.at(Duration::from_millis(100), Event::Publishers);
        }
        Ok(())
    }

    pub(super) fn claimed(
        &mut self,
        place: usize,
        publication: u64,
        outcome: ClaimOutcome,
    ) -> Outcome {
        self.trace(format_args!("e{place}: claim {publication} is {outcome:?}"));
        let now = self.instant(Host::Edge(place));
        let edge = &mut self.edges[place];
        let Some(publisher) = edge
            .publishers
            .iter_mut()
            .find(|p| p.publication == publication)
        else {
            return Ok(());
        };
        match outcome {
            ClaimOutcome::Granted { epoch, .. } => {
                if publisher.holds.is_some_and(|before| before >= epoch) {
                    return Err(format!(
                        "e{place}: {} is granted publish {epoch} behind {:?}",
                        publisher.key, publisher.holds
                    ));
                }
                if epoch <= publisher.above {
                    return Err(format!(
                        "e{place}: {} is granted publish {epoch}, not above {}",
                        publisher.key, publisher.above
                    ));
                }
                publisher.holds = Some(epoch);
                let to = (place, edge.life, publication);
                let key = publisher.key.clone();
                if let Some(other) = self.grants.insert((key.clone(), epoch), to)
                    && other != to
                {
                    return Err(format!(
                        "publish {epoch} of {key} is granted to {to:?} and to {other:?}"
                    ));
                }
                self.report.granted += 1;
                if let Some(replica) = &mut edge.replica {
                    replica.place(publication, OriginId::new("origin-0").unwrap(), now);
                }
            }
            ClaimOutcome::Standby | ClaimOutcome::Lost => {}
            ClaimOutcome::Refused | ClaimOutcome::Ended { .. } => {
                edge.publishers.retain(|p| p.publication != publication);
            }
        }
        Ok(())
    }

    pub(super) fn connect(&mut self, client: usize) -> Outcome {
        if self.clients[client].connection.is_some() {
            return Ok(());
        }
        let place = self.dice.below(self.edges.len());
        if self.edges[place].replica.is_none() || self.edges[place].paused.is_some() {
            self.at(Duration::from_millis(100), Event::Connect { client });
            return Ok(());
        }
        self.next_subscriber += 1;
        let id = SubscriberId(self.next_subscriber);
        self.edges[place].subscribers.insert(id, client);
        let wishes = self.clients[client].handle_connected(place, id, &self.truth);
        self.trace(format_args!("c{client} connects to e{place} as {id:?}"));
        self.grant(client, wishes)?;
        let pause = self.clients[client].pause();
        self.at(pause, Event::Think { client });
        Ok(())
    }

    pub(super) fn grant(&mut self, client: usize, wishes: Vec<Wish>) -> Outcome {
        for wish in wishes {
            let Some((place, id)) = self.clients[client].connection else {
                return Ok(());
            };
            let now = self.instant(Host::Edge(place));
            self.trace(format_args!("c{client} at e{place}: {wish:?}"));
            let durable = self.clients[client].habits.durable;
            let session = self.session(client, id);
            let subscriber = Subscriber {
                id,
                session,
                durable,
            };
            let access = Access::FULL;
            let trace = Bytes::new();
            let Some(replica) = &mut self.edges[place].replica else {
                return Ok(());
            };
            match wish {
                Wish::Ask {
                    subject: Subject { key, kind, policy },
                    version,
                    asks,
                } => replica.handle_ask(
                    subscriber, key, kind, version, access, policy, asks, trace, now,
                ),
                Wish::Lock {
                    key,
                    lease_ms,
                    call,
                } => replica.handle_lock(subscriber, key, access, lease_ms, call, trace, now),
                Wish::Unlock { key, call } => {
                    replica.handle_unlock(subscriber, key, call, trace, now);
                }
                Wish::Resume { next } => replica.handle_resume(id, session, next, now),
                Wish::Leave => {
                    replica.handle_left(id, now);
                    self.edges[place].subscribers.remove(&id);
                    self.clients[client].handle_lost();
                    let pause = self
                        .dice
                        .between(Duration::from_millis(1), Duration::from_secs(3));
                    self.at(pause, Event::Connect { client });
                }
            }
            // A stopped edge does nothing yet, but its clients' bytes wait in its sockets;
            // here they are taken at once and answered later.
            if self.edges[place].paused.is_none() {
                self.drain_edge(place)?;
            }
        }
        Ok(())
    }

    /// The session that a client's requests are numbered in.
    pub(super) fn session(&self, client: usize, id: SubscriberId) -> SessionId {
        let client = &self.clients[client];
        if client.habits.durable {
            client.session
        } else {
            SessionId(u128::from(self.options.seed) << 64 | u128::from(id.0))
        }
    }
}
