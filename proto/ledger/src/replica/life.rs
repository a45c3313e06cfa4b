//! The edge in the ledger: its lives, and its attachment.

use std::time::Instant;

use bytes::Bytes;
use model::{EdgeLife, Epoch, LogIndex, NodeId, ObjectKey, SessionId, StreamKey, Version};

use super::interface::{Misbehaviour, Output};
use super::parts::Parts;
use super::session::{Session, What};
use super::timers::Timer;
use super::{Link, Replica, limits};
use crate::codec::{parts, size};
use crate::command::Request;
use crate::effect::{ObjectSync, StreamState};
use crate::limits::PART_BYTES;
use crate::name::{LogName, Standing};
use crate::wire::ToOrigin;

/// Numbers that look like chance, from a seed (SplitMix64).
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The first session of a life of an edge, its own. The others are counted from it.
    pub(super) fn family(&mut self) -> SessionId {
        SessionId(u128::from(self.draw()) << 64)
    }
}

/// Takes out what is said before the edge attaches, if all of it is too much for one message.
fn in_parts(
    objects: &mut Vec<(ObjectKey, Epoch, Version)>,
    streams: &mut Vec<StreamKey>,
) -> Vec<ToOrigin> {
    let bytes = objects.iter().map(size).chain(streams.iter().map(size));
    if bytes.sum::<usize>() <= PART_BYTES {
        return Vec::new();
    }
    let objects = parts(std::mem::take(objects)).into_iter();
    let streams = parts(std::mem::take(streams)).into_iter();
    let objects = objects.map(|objects| ToOrigin::Holds {
        objects,
        streams: Vec::new(),
    });
    let streams = streams.map(|streams| ToOrigin::Holds {
        objects: Vec::new(),
        streams,
    });
    objects.chain(streams).collect()
}

impl Replica {
    /// A session that is new, and counted.
    pub(super) fn next_session(&mut self) -> SessionId {
        self.begun += 1;
        SessionId(self.own.0 | u128::from(self.begun))
    }

    /// Says who the edge is and what it has.
    pub(super) fn attach(&mut self, again: bool, now: Instant) {
        self.link = Link::Attaching { again };
        self.barriers.interrupted();
        self.parts = Parts::default();
        self.timers.set(Timer::Reattach, now + limits::ATTACH_WAIT);
        let mut objects = self
            .objects
            .iter()
            .filter_map(|(key, object)| {
                let held = object.held.as_ref()?;
                Some((key.clone(), held.epoch, held.version))
            })
            .collect();
        let mut streams: Vec<StreamKey> = self.followed.keys().cloned().collect();
        // Not followed, but to know what became of the claims in the meantime.
        streams.extend(self.publications.values().map(|one| one.key.clone()));
        streams.sort_unstable();
        streams.dedup();
        for part in in_parts(&mut objects, &mut streams) {
            self.outputs.push_back(Output::ToOrigin(part));
        }
        self.outputs.push_back(Output::ToOrigin(ToOrigin::Attach {
            edge: self.life.clone(),
            log: self.log,
            seen: self.seen,
            objects,
            streams,
        }));
    }

    /// The edge is attached.
    pub(super) fn attached(
        &mut self,
        (log, index): (LogName, LogIndex),
        known: bool,
        objects: Vec<(ObjectKey, ObjectSync)>,
        streams: Vec<(StreamKey, StreamState)>,
        now: Instant,
    ) -> Result<(), Misbehaviour> {
        let standing = Standing::of((log, index), (self.log, self.seen));
        if standing == Standing::Behind {
            return Err(Misbehaviour::Behind);
        }
        self.log = log;
        self.seen = index;
        self.link = Link::Attached;
        self.leader = None;
        self.timers
            .set(Timer::Reattach, now + limits::REATTACH_AFTER);
        if standing == Standing::Other {
            self.log_lost();
            self.begin_life(now);
            return Ok(());
        }
        if !known && self.registered {
            self.begin_life(now);
            return Ok(());
        }
        let earlier = std::mem::take(&mut self.parts);
        let mut listed = earlier.objects;
        listed.extend(objects);
        let mut streams = streams;
        streams.extend(earlier.streams);
        let keys: Vec<ObjectKey> = self.objects.keys().cloned().collect();
        for key in keys {
            match listed.remove(&key) {
                Some(sync) => self.catch_up(&key, sync),
                None => self.reopen(&key),
            }
        }
        self.claims_after_gap(&streams);
        for (key, state) in streams {
            self.stream_is(key, state);
        }
        for session in self.sessions.values_mut() {
            session.rewind();
        }
        self.ask_barrier();
        self.pump_all(now);
        Ok(())
    }

    /// The log was lost, and another counts from 1: what its numbers meant is over. What is
    /// held was told to subscribers, and is replaced when the object is opened anew.
    fn log_lost(&mut self) {
        for object in self.objects.values_mut() {
            if let Some(held) = &mut object.held {
                held.epoch = Epoch(0);
            }
        }
        for session in self.sessions.values_mut() {
            for asked in &mut session.requests {
                if let What::Write {
                    seen: Some((epoch, _)),
                    ..
                } = &mut asked.what
                {
                    *epoch = Epoch(0);
                }
            }
        }
    }

    /// The origin goes on where the last one stopped.
    pub(super) fn resumed(&mut self, index: LogIndex, now: Instant) -> Result<(), Misbehaviour> {
        if index != self.seen {
            return Err(Misbehaviour::Behind);
        }
        self.link = Link::Attached;
        self.leader = None;
        self.timers
            .set(Timer::Reattach, now + limits::REATTACH_AFTER);
        // What happens is told from here on, but not how that stands of which nothing was
        // ever told.
        self.ask_streams();
        for session in self.sessions.values_mut() {
            session.rewind();
        }
        self.ask_barrier();
        self.pump_all(now);
        Ok(())
    }

    /// Who leads, as far as the origin knows.
    pub(super) fn leader_is(&mut self, leader: Option<NodeId>, now: Instant) {
        let before = std::mem::replace(&mut self.leader, leader);
        if leader.is_none() {
            if !self.timers.is_set(&Timer::Reattach) {
                self.timers
                    .set(Timer::Reattach, now + limits::REATTACH_AFTER);
            }
            return;
        }
        self.timers.cancel(&Timer::Reattach);
        if leader != before {
            // What the earlier leader was given may be lost with it.
            self.rewind_all(now);
        }
    }

    /// The ledger does not know this life of the edge (any more): another begins. What is
    /// open is opened anew, what is claimed is claimed anew. Sessions that end with their
    /// edge have ended: what was under way in them cannot be known.
    pub(super) fn begin_life(&mut self, now: Instant) {
        self.life = EdgeLife {
            edge: self.life.edge.clone(),
            incarnation: self.life.incarnation.saturating_add(1),
        };
        self.registered = false;
        self.timers.cancel(&Timer::Register);
        self.drop_session(self.own);
        self.own = self.dice.family();
        self.begun = 0;
        let own = self.own;
        self.sessions.insert(own, Session::new(false, None, 1));
        self.push_own(Request::Register, Bytes::new());
        self.ending.clear();
        self.closing.clear();
        for id in std::mem::take(&mut self.departed).all() {
            self.timers.cancel(&Timer::Departed(id));
        }

        let keys: Vec<ObjectKey> = self.objects.keys().cloned().collect();
        for key in keys {
            self.propose_open(&key);
        }
        self.claims_anew();

        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        for id in ids {
            if id == own {
                continue;
            }
            match self.sessions.get_mut(&id) {
                Some(session) if session.durable => session.rewind(),
                Some(_) => self.lose_session(id, now),
                None => {}
            }
        }
        if self.link != Link::Detached {
            self.attach(true, now);
        }
    }

    /// The ledger knows the session no more: it goes on under another name.
    pub(super) fn lose_session(&mut self, id: SessionId, now: Instant) {
        let Some(mut session) = self.drop_session(id) else {
            return;
        };
        let Some(subscriber) = session.subscriber else {
            // The client left. What it asked and no origin was given is dropped with it.
            return;
        };
        let new = self.next_session();
        let lost = session.reborn();
        if let Some(member) = self.subscribers.get_mut(&subscriber) {
            member.session = Some(new);
        }
        let due = session.due();
        self.sessions.insert(new, session);
        if let Some(due) = due {
            self.timers.set(Timer::Due(new), due);
        }
        for asked in lost {
            if !asked.silent && !matches!(asked.what, What::Void { .. }) {
                self.refuse(Some(subscriber), asked.what, true);
            }
        }
        self.pump(new, now);
    }

    /// The client of a session that it counts has left. When it comes back nowhere, the
    /// ledger need not remember what was answered.
    pub(super) fn depart(&mut self, id: SessionId, session: &Session, now: Instant) {
        if !session.has_counted() {
            return;
        }
        if self.departed.len() >= limits::DEPARTED_MAX
            && let Some(other) = self.departed.first()
        {
            self.end_departed(other, now);
        }
        self.departed.insert(id, now);
        let timer = Timer::Departed(id);
        self.timers.set(timer, now + limits::DEPARTED_KEPT);
    }

    /// One that went on elsewhere is not ended by this.
    pub(super) fn end_departed(&mut self, id: SessionId, now: Instant) {
        self.timers.cancel(&Timer::Departed(id));
        // What finds no room while no origin is in reach, the ledger forgets in its time.
        if self.departed.remove(&id) && self.ending.len() < limits::DEPARTED_MAX {
            self.ending.push(id);
            self.pump_own(now);
        }
    }
}
