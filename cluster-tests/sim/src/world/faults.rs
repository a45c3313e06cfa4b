//! What goes wrong, and how it is mended.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Event, Mend, Outcome, World};
use crate::net::Host;

impl World {
    pub(super) fn fault(&mut self) -> Outcome {
        let origins = self.present();
        let origin = origins[self.dice.below(origins.len())];
        let edge = self.dice.below(self.edges.len());
        let soon = match self.dice.below(4) {
            0 => self
                .dice
                .between(Duration::from_millis(1), Duration::from_millis(60)),
            _ => self
                .dice
                .between(Duration::from_millis(50), Duration::from_secs(4)),
        };
        match self.dice.below(16) {
            0 | 1 => {
                self.kill_origin(origin);
                self.at(soon, Event::Mend(Mend::Restart(Host::Origin(origin))));
            }
            2 => {
                // Whoever leads.
                let origin = self.leader().unwrap_or(origin);
                self.kill_origin(origin);
                self.at(soon, Event::Mend(Mend::Restart(Host::Origin(origin))));
            }
            3 if self.dice.in_thousand(300) => {
                for origin in origins {
                    self.kill_origin(origin);
                    let soon = self.dice.between(Duration::ZERO, Duration::from_secs(2));
                    self.at(soon, Event::Mend(Mend::Restart(Host::Origin(origin))));
                }
            }
            4 => {
                self.kill_edge(edge);
                self.at(soon, Event::Mend(Mend::Restart(Host::Edge(edge))));
            }
            5 => {
                if self.origins[origin].member.is_some() && self.origins[origin].paused.is_none() {
                    self.trace(format_args!("o{origin} is stopped"));
                    self.origins[origin].paused = Some(VecDeque::new());
                    self.at(soon, Event::Mend(Mend::Resume(Host::Origin(origin))));
                }
            }
            6 => {
                if self.edges[edge].replica.is_some() && self.edges[edge].paused.is_none() {
                    self.trace(format_args!("e{edge} is stopped"));
                    self.edges[edge].paused = Some(VecDeque::new());
                    self.at(soon, Event::Mend(Mend::Resume(Host::Edge(edge))));
                }
            }
            7 | 8 => {
                self.cut();
                self.at(soon, Event::Mend(Mend::Heal));
            }
            9 => {
                self.net.loss = self.dice.draw() % 200;
                self.net.delay = (
                    Duration::from_micros(100),
                    Duration::from_micros(200 + self.dice.draw() % 50_000),
                );
                self.at(soon, Event::Mend(Mend::Heal));
            }
            12 | 13 => self.plan(),
            14 if self.dice.in_thousand(500) => self.lose_disk(origin),
            14 => {
                // It is told to stop, hands over, and is gone a little later.
                if self.origins[origin].paused.is_none()
                    && let Some(member) = &mut self.origins[origin].member
                {
                    member.start_leaving();
                    self.drain_origin(origin)?;
                    let pause = self.dice.between(Duration::ZERO, Duration::from_secs(1));
                    let life = self.origins[origin].life;
                    self.at(pause, Event::Mend(Mend::Stop(origin, life)));
                    let restart = Event::Mend(Mend::Restart(Host::Origin(origin)));
                    self.at(pause + soon, restart);
                }
            }
            15 => {
                if let Some(leader) = self.leader()
                    && let Some(member) = &mut self.origins[leader].member
                    && member.transfer_leadership(None).is_ok()
                {
                    self.report.transfers += 1;
                    self.drain_origin(leader)?;
                }
            }
            _ => {
                self.origins[origin].sync = (Duration::from_millis(1), Duration::from_millis(200));
                self.at(soon, Event::Mend(Mend::Disk(origin)));
            }
        }
        Ok(())
    }

    /// Cuts: one side from the other, in both directions or in one, or one pair.
    pub(super) fn cut(&mut self) {
        let hosts: Vec<_> = (0..self.origins.len())
            .map(Host::Origin)
            .chain((0..self.edges.len()).map(Host::Edge))
            .collect();
        let alone: Vec<_> = hosts
            .iter()
            .copied()
            .filter(|_| self.dice.in_thousand(400))
            .collect();
        let both = self.dice.in_thousand(600);
        let single = self.dice.in_thousand(300);
        let pair = (
            hosts[self.dice.below(hosts.len())],
            hosts[self.dice.below(hosts.len())],
        );
        self.trace(format_args!(
            "cut: {alone:?}, both ways {both}, or only {pair:?} {single}"
        ));
        for &here in &hosts {
            for &there in &hosts {
                let crosses = if single {
                    (here, there) == pair || (both && (there, here) == pair)
                } else {
                    alone.contains(&here) && !alone.contains(&there)
                        || (both && alone.contains(&there) && !alone.contains(&here))
                };
                if crosses && here != there {
                    self.net.cut(here, there);
                }
            }
        }
        self.report.partitions += 1;
        // Connections that are silent across a cut break as well: their keep-alive fails.
        let crossing: Vec<_> = self
            .conns
            .iter()
            .filter(|(_, conn)| {
                let (edge, origin) = (Host::Edge(conn.edge), Host::Origin(conn.origin));
                self.net.is_cut(edge, origin) || self.net.is_cut(origin, edge)
            })
            .map(|(id, _)| *id)
            .collect();
        for conn in crossing {
            if let Some(conn) = self.conns.get_mut(&conn) {
                let (edge, origin) = (Host::Edge(conn.edge), Host::Origin(conn.origin));
                conn.doomed.0 |= self.net.is_cut(edge, origin);
                conn.doomed.1 |= self.net.is_cut(origin, edge);
            }
            self.doom(conn);
        }
    }

    pub(super) fn mend(&mut self, mend: Mend) {
        match mend {
            Mend::Stop(place, life) => {
                if self.origins[place].life == life {
                    self.kill_origin(place);
                }
            }
            Mend::Restart(Host::Origin(place)) => {
                if self.origins[place].member.is_none() && !self.origins[place].gone {
                    self.start_origin(place);
                }
            }
            Mend::Restart(Host::Edge(place)) => {
                if self.edges[place].replica.is_none() {
                    self.start_edge(place);
                }
            }
            Mend::Resume(host) => {
                let waiting = match host {
                    Host::Origin(place) => self.origins[place].paused.take(),
                    Host::Edge(place) => self.edges[place].paused.take(),
                };
                if let Some(waiting) = waiting {
                    self.trace(format_args!("{host} goes on"));
                    for event in waiting {
                        self.at(Duration::ZERO, event);
                    }
                }
            }
            Mend::Heal => {
                self.trace(format_args!("the network heals"));
                self.net.heal();
            }
            Mend::Disk(place) => {
                self.origins[place].sync = (Duration::from_micros(100), Duration::from_micros(900));
            }
        }
    }
}
