//! Members in one memory: what one sends the other has at once and in order, what one
//! writes is on its disk at once. Time passes in ticks.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test uses its own part of it"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use bytes::Bytes;
use consensus::{About, Role};
use ledger::watchers::{AttachId, Refusal};
use ledger::wire::{ToEdge, ToOrigin};
use ledger::{Command, Effect, LogName, Proposal, Request};
use model::{EdgeId, EdgeLife, LogIndex, NodeId, SessionId};
use selvage_member::{Error, Member, Output, Restored, Saved, Setup};

pub fn id(number: u64) -> NodeId {
    NodeId(NonZeroU64::new(number).unwrap())
}

pub fn stamp(number: u64) -> u64 {
    0xf01d_0000 + number
}

pub fn life(name: &str) -> EdgeLife {
    EdgeLife {
        edge: EdgeId::new(name).unwrap(),
        incarnation: 1,
    }
}

pub struct Cluster {
    pub now: Instant,
    seats: BTreeMap<u64, Seat>,
    mail: VecDeque<(u64, u64, Bytes, Option<Bytes>)>,
    cut: BTreeSet<u64>,
    pub told: BTreeMap<u64, Vec<ToEdge>>,
    pub refused: BTreeMap<u64, Refusal>,
    pub errors: Vec<Error>,
    pub snapshots: u64,
    /// States to this member get stuck on their way.
    pub stuck: Option<u64>,
    pub snapshot_entries: u64,
    pub batches: Vec<usize>,
}

pub struct Seat {
    member: Option<Member>,
    disk: Restored,
    stamp: u64,
    lives: u64,
}

impl Cluster {
    pub fn of(members: u64) -> Self {
        #[expect(clippy::disallowed_methods, reason = "any instant is a start")]
        let now = Instant::now();
        let mut cluster = Self {
            now,
            seats: BTreeMap::new(),
            mail: VecDeque::new(),
            cut: BTreeSet::new(),
            told: BTreeMap::new(),
            refused: BTreeMap::new(),
            errors: Vec::new(),
            snapshots: 0,
            stuck: None,
            snapshot_entries: 1_000_000,
            batches: Vec::new(),
        };
        let founders = (1..=members).map(|number| (id(number), about(number)));
        let disk = Restored::founding(founders);
        for number in 1..=members {
            cluster.seat(number, stamp(number), disk.clone());
        }
        cluster
    }

    /// One whose members have elected a leader.
    pub fn elected(members: u64) -> (Self, u64) {
        let mut cluster = Self::of(members);
        cluster.until("a leader", |cluster| {
            let leads = cluster.leader();
            leads.is_some() && (1..=members).all(|one| cluster.member(one).role().2.is_some())
        });
        let leader = cluster.leader().unwrap();
        (cluster, leader)
    }

    pub fn seat(&mut self, number: u64, stamp: u64, disk: Restored) {
        let seat = Seat {
            member: None,
            disk,
            stamp,
            lives: 0,
        };
        self.seats.insert(number, seat);
        self.start(number);
    }

    pub fn start(&mut self, number: u64) {
        let seat = self.seats.get_mut(&number).unwrap();
        seat.lives += 1;
        let mut setup = Setup::new(id(number), seat.stamp, number * 100 + seat.lives);
        setup.snapshot_entries = self.snapshot_entries;
        setup.tail_entries = 5;
        seat.member = Some(Member::new(setup, seat.disk.clone(), self.now).unwrap());
        self.take(number);
    }

    pub fn stop(&mut self, number: u64) {
        self.seats.get_mut(&number).unwrap().member = None;
    }

    pub fn cut(&mut self, number: u64) {
        self.cut.insert(number);
    }

    pub fn heal(&mut self) {
        self.cut.clear();
    }

    pub fn member(&self, number: u64) -> &Member {
        self.seats[&number].member.as_ref().unwrap()
    }

    pub fn change<T>(&mut self, number: u64, change: impl FnOnce(&mut Member) -> T) -> T {
        let seat = self.seats.get_mut(&number).unwrap();
        let result = change(seat.member.as_mut().unwrap());
        self.take(number);
        self.carry();
        result
    }

    pub fn leader(&self) -> Option<u64> {
        let leads = |seat: &Seat| {
            let member = seat.member.as_ref();
            member.is_some_and(|member| member.role().0 == Role::Leader)
        };
        let mut leading = self.seats.iter().filter(|(_, seat)| leads(seat));
        leading.next().map(|(number, _)| *number)
    }

    pub fn run(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        while self.now < end {
            self.now += Duration::from_millis(10);
            let numbers: Vec<u64> = self.seats.keys().copied().collect();
            for number in numbers {
                let now = self.now;
                let seat = self.seats.get_mut(&number).unwrap();
                if let Some(member) = &mut seat.member
                    && member.deadline() <= now
                {
                    member.handle_timeout(now);
                    self.take(number);
                }
                self.carry();
            }
        }
    }

    pub fn until(&mut self, what: &str, so: impl Fn(&Self) -> bool) {
        for _ in 0..2_000 {
            if so(self) {
                return;
            }
            self.run(10);
        }
        let states: Vec<_> = self
            .seats
            .values()
            .filter_map(|seat| seat.member.as_ref().map(|member| member.status().log))
            .collect();
        panic!("never {what}: {states:#?} {:?}", self.errors);
    }

    fn carry(&mut self) {
        while let Some((from, to, message, contents)) = self.mail.pop_front() {
            let now = self.now;
            let lost = self.cut.contains(&from) || self.cut.contains(&to);
            let seat = self.seats.get_mut(&to).filter(|_| !lost);
            let member = seat.and_then(|seat| seat.member.as_mut());
            let arrived = member.is_some();
            let snapshot = contents.is_some();
            if let Some(member) = member {
                let handled = match contents {
                    Some(contents) => member.handle_snapshot(id(from), &message, &contents, now),
                    None => member.handle_peer(id(from), &message, now),
                };
                self.errors.extend(handled.err());
                self.take(to);
            }
            if snapshot {
                let seat = self.seats.get_mut(&from).unwrap();
                if let Some(member) = &mut seat.member {
                    member.handle_snapshot_sent(id(to), arrived);
                    self.take(from);
                }
            }
        }
    }

    fn take(&mut self, number: u64) {
        loop {
            let seat = self.seats.get_mut(&number).unwrap();
            let Some(member) = seat.member.as_mut() else {
                return;
            };
            let Some(output) = member.poll_output() else {
                return;
            };
            match output {
                Output::ToPeer { to, message } => {
                    self.mail.push_back((number, to.0.get(), message, None));
                }
                Output::SnapshotToPeer {
                    to,
                    message,
                    contents,
                    ..
                } => {
                    self.snapshots += 1;
                    if self.stuck != Some(to.0.get()) {
                        let mail = (number, to.0.get(), message, Some(contents));
                        self.mail.push_back(mail);
                    }
                }
                Output::Persist {
                    ticket,
                    write,
                    contents,
                } => {
                    let disk = &mut seat.disk;
                    if let Some(snapshot) = write.snapshot {
                        disk.saved = Some(Saved {
                            index: snapshot.index,
                            term: snapshot.term,
                            contents: contents.unwrap(),
                        });
                        disk.entries.clear();
                    }
                    if let Some(first) = write.entries.first() {
                        disk.entries.retain(|entry| entry.index < first.index);
                        self.batches.push(write.entries.len());
                    }
                    disk.entries.extend(write.entries);
                    disk.hard_state = write.hard_state.unwrap_or(disk.hard_state);
                    member.handle_persisted(ticket, self.now);
                }
                Output::SaveSnapshot {
                    index,
                    term,
                    contents,
                    ..
                } => {
                    seat.disk.saved = Some(Saved {
                        index,
                        term,
                        contents,
                    });
                    member.handle_snapshot_saved(index);
                }
                Output::Compacted { first } => {
                    seat.disk.entries.retain(|entry| entry.index >= first);
                }
                Output::ToEdge { attach, message } => {
                    let message = ToEdge::decode(message).unwrap();
                    self.told.entry(attach.0).or_default().push(message);
                }
                Output::RefuseEdge { attach, why } => {
                    self.refused.insert(attach.0, why);
                }
                Output::Applied(_)
                | Output::Restored { .. }
                | Output::Membership(_)
                | Output::Role { .. } => {}
            }
        }
    }

    // Edges.

    /// An edge attaches at a member and registers, in a session with the attachment's number.
    pub fn edge(&mut self, attach: u64, name: &str, at: u64) {
        let now = self.now;
        self.change(at, |member| member.handle_attach(AttachId(attach), now));
        self.say(
            at,
            attach,
            &ToOrigin::Attach {
                edge: life(name),
                log: LogName::default(),
                seen: LogIndex(0),
                objects: Vec::new(),
                streams: Vec::new(),
            },
        );
        self.ask(at, attach, name, attach.into(), 1, Request::Register);
        self.until("registered", |cluster| {
            cluster.member(at).ledger().knows(&life(name))
        });
    }

    pub fn say(&mut self, at: u64, attach: u64, message: &ToOrigin) {
        let now = self.now;
        self.change(at, |member| {
            member.handle_edge(AttachId(attach), message.encode(), now)
        })
        .unwrap();
    }

    pub fn ask(
        &mut self,
        at: u64,
        attach: u64,
        name: &str,
        session: u128,
        seq: u64,
        request: Request,
    ) {
        let command = command(name, session, seq, request);
        self.say(at, attach, &ToOrigin::Propose(command));
    }

    /// What an edge was answered, by session and number.
    pub fn answer(&self, attach: u64, session: u128, seq: u64) -> Option<String> {
        let told = self.told.get(&attach)?;
        let effects = told.iter().filter_map(|message| match message {
            ToEdge::Applied(applied) => Some(&applied.effects),
            _ => None,
        });
        effects.flatten().find_map(|effect| match effect {
            Effect::Answer {
                session: one,
                seq: number,
                answer,
                ..
            } if *one == SessionId(session) && *number == seq => Some(format!("{answer:?}")),
            _ => None,
        })
    }
}

/// An edge's session is named after the edge and a number.
pub fn command(name: &str, session: u128, seq: u64, request: Request) -> Bytes {
    Command::Propose(Proposal {
        session: SessionId(session),
        seq,
        edge: life(name),
        durable: false,
        trace: Bytes::new(),
        request,
    })
    .encode()
}

pub fn about(number: u64) -> About {
    let name = format!("origin-{number}");
    selvage_member::about::write(stamp(number), &name, "somewhere:1")
}
