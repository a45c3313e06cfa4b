//! The whole state as bytes, in one canonical form, and their hash.
//!
//! What can be derived (who speaks through an edge, what a session waits for, what all
//! objects weigh) is not written down but found again, so it cannot contradict the rest.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use model::{EdgeLife, LogIndex, SessionId, Version};

use crate::claim::{Claims, Name, Party};
use crate::codec::{Coded, Error, Reader, decode, encode, put_bytes, put_len, put_several};
use crate::dedup::{Kept, Refused, Session, Sessions};
use crate::effect::Answer;
use crate::graveyard::{Grave, Graveyard};
use crate::home::Homes;
use crate::interest::{Edges, Ranges};
use crate::ledger::Ledger;
use crate::limits::{BATCH_OPS_MAX, CONTENDERS_MAX, LOCK_QUEUE_MAX, TOKEN_BYTES_MAX, WINDOW};
use crate::lock::{Door, Lock, Waiting};
use crate::object::{Object, Slot, Stamp};

impl Ledger {
    /// Everything, as bytes in one canonical form.
    #[must_use]
    pub fn snapshot(&self) -> Bytes {
        encode(self)
    }

    /// The state that a snapshot holds.
    ///
    /// # Errors
    /// The bytes are not a snapshot, or its parts contradict each other.
    pub fn restore(snapshot: Bytes) -> Result<Self, Error> {
        decode(Reader::copying(&snapshot), usize::MAX)
    }

    /// A hash of the [snapshot](Self::snapshot): two ledgers that have applied the same
    /// log, from the first entry or from a snapshot, have the same. Costs as much as a
    /// snapshot.
    #[must_use]
    pub fn digest(&self) -> u128 {
        fnv1a(&self.snapshot())
    }
}

/// FNV-1a with 128 bits: a few lines that are the same on every machine and for ever. It
/// finds differences that came by accident; nobody attacks his own state.
fn fnv1a(bytes: &[u8]) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(OFFSET, |hash, byte| {
        (hash ^ u128::from(*byte)).wrapping_mul(PRIME)
    })
}

impl Coded for Ledger {
    fn put(&self, to: &mut Vec<u8>) {
        self.name.put(to);
        self.applied.put(to);
        put_len(to, self.edges.len());
        for edge in self.edges.all() {
            edge.life.put(to);
            edge.session.put(to);
            put_map(to, &edge.ended.0);
        }
        let (over, floor) = self.edges.over();
        put_map(to, over);
        floor.put(to);
        put_map(to, self.sessions.all());
        put_map(to, &self.objects);
        put_map(to, self.graves.all());
        self.graves.floor().put(to);
        put_map(to, self.claims.all());
        self.claims.floor().put(to);
        put_map(to, &self.homes.table);
    }

    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        let name = Coded::take(from)?;
        let applied = LogIndex::take(from)?;
        let lives: Vec<(EdgeLife, OwnSession)> = from.several("edges", usize::MAX)?;
        let mut edges = Edges::default();
        let names = lives.iter().map(|(life, _)| &life.edge);
        if !names.is_sorted_by(|a, b| a < b) {
            return Err(Error::Contradiction("edges out of order"));
        }
        for (life, OwnSession { session, ended }) in lives {
            edges.insert(life.clone(), session);
            if let Some(edge) = edges.get_mut(&life) {
                edge.ended = ended;
            }
        }
        if !edges.restore_over(take_map(from)?, Coded::take(from)?) {
            return Err(Error::Contradiction("an edge that is gone and is not"));
        }
        let sessions = Sessions::restored(take_map(from)?)
            .ok_or(Error::Contradiction("two sessions in one entry"))?;
        let mut ledger = Self {
            name,
            applied,
            edges,
            sessions,
            objects: take_map(from)?,
            graves: Graveyard::default(),
            claims: Claims::default(),
            homes: Homes::default(),
            ..Self::default()
        };
        for (key, grave) in take_map(from)? {
            ledger.graves.bury(key, grave);
        }
        ledger.graves.raise(Coded::take(from)?);
        let names = take_map(from)?;
        ledger.claims = Claims::restored(names, Coded::take(from)?)
            .ok_or(Error::Contradiction("somebody waits for a free name"))?;
        ledger.homes.table = take_map(from)?;
        ledger.relate()?;
        Ok(ledger)
    }
}

impl Ledger {
    /// Finds again what a snapshot does not say.
    fn relate(&mut self) -> Result<(), Error> {
        for (id, session) in self.sessions.all() {
            if session.own {
                let edge = self.edges.all().find(|edge| edge.session == *id);
                edge.ok_or(Error::Contradiction("an edge's session without the edge"))?;
            }
            if let Some(life) = &session.edge {
                let edge = self.edges.get_mut(life);
                let edge = edge.ok_or(Error::Contradiction("a session at no edge"))?;
                edge.sessions.insert(*id);
            }
        }
        for (key, object) in &self.objects {
            self.weight += object.weight();
            self.instances.add(&key.at, object.weight());
            for life in &object.opened {
                let edge = self.edges.get_mut(life);
                let edge = edge.ok_or(Error::Contradiction("opened by nobody"))?;
                edge.opened.insert(key.clone());
            }
            let holder = object.door.lock().map(|lock| lock.session);
            let waiting = object.door.queue().iter().map(|waiting| waiting.session);
            for session in holder.into_iter().chain(waiting) {
                if self.sessions.get(session).is_none() {
                    return Err(Error::Contradiction("a lock of no session"));
                }
                self.doors.entry(session).or_default().insert(key.clone());
            }
        }
        Ok(())
    }
}

/// What an edge has of its own.
struct OwnSession {
    session: SessionId,
    ended: Ranges,
}

impl Coded for OwnSession {
    fn put(&self, to: &mut Vec<u8>) {
        self.session.put(to);
        put_map(to, &self.ended.0);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        let session = Coded::take(from)?;
        let ended = Ranges(take_map(from)?);
        if !ended.is_canonical() {
            return Err(Error::Contradiction("ranges that touch"));
        }
        Ok(Self { session, ended })
    }
}

/// A table is its rows in the order of their keys.
fn put_map<K: Coded, V: Coded>(to: &mut Vec<u8>, map: &BTreeMap<K, V>) {
    put_len(to, map.len());
    for (key, value) in map {
        key.put(to);
        value.put(to);
    }
}

fn take_map<K: Coded + Ord, V: Coded>(from: &mut Reader<'_>) -> Result<BTreeMap<K, V>, Error> {
    let rows: Vec<(K, V)> = from.several("rows", usize::MAX)?;
    if !rows.is_sorted_by(|(a, _), (b, _)| a < b) {
        return Err(Error::Contradiction("rows out of order"));
    }
    Ok(rows.into_iter().collect())
}

impl Coded for Session {
    fn put(&self, to: &mut Vec<u8>) {
        self.last.put(to);
        self.touched.put(to);
        self.edge.put(to);
        self.durable.put(to);
        self.own.put(to);
        put_several(to, self.answers.iter());
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        let window = usize::try_from(WINDOW).unwrap_or(usize::MAX);
        Ok(Self {
            last: Coded::take(from)?,
            touched: Coded::take(from)?,
            edge: Coded::take(from)?,
            durable: Coded::take(from)?,
            own: Coded::take(from)?,
            answers: VecDeque::from(from.several::<Kept>("answers", window)?),
        })
    }
}

/// An answer that is kept is written as an answer; two cases are only here.
impl Coded for Kept {
    fn put(&self, to: &mut Vec<u8>) {
        match self {
            Self::Waits => to.push(0),
            Self::Opened(key) => {
                to.push(1);
                key.put(to);
            }
            Self::Written(version, refused) => {
                to.push(2);
                version.put(to);
                put_bytes(to, refused.bits());
            }
            Self::Forgotten => to.push(4),
            Self::Done
            | Self::OtherKind(_)
            | Self::Full(_)
            | Self::NotOpen
            | Self::Locked(_)
            | Self::NotLocked
            | Self::Granted(_)
            | Self::Contending
            | Self::Standby
            | Self::NotHolder
            | Self::Nothing => {
                to.push(3);
                self.answer().unwrap_or(Answer::Done).put(to);
            }
        }
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(match from.u8()? {
            0 => Self::Waits,
            1 => Self::Opened(Box::new(Coded::take(from)?)),
            2 => Self::Written(
                Coded::take(from)?,
                Refused::from_bits(&from.bytes("refused", BATCH_OPS_MAX / 8)?)
                    .ok_or(Error::Contradiction("a refusal of nothing"))?,
            ),
            4 => Self::Forgotten,
            3 => match Coded::take(from)? {
                Answer::Opened(_)
                | Answer::Written { .. }
                | Answer::OutOfOrder { .. }
                | Answer::Forgotten
                | Answer::UnknownEdge
                | Answer::Outlived { .. } => {
                    return Err(Error::Contradiction("an answer that is not kept"));
                }
                answer @ (Answer::Done
                | Answer::OtherKind { .. }
                | Answer::Full { .. }
                | Answer::NotOpen
                | Answer::Locked { .. }
                | Answer::NotLocked
                | Answer::Granted { .. }
                | Answer::Contending
                | Answer::Standby
                | Answer::NotHolder
                | Answer::Nothing) => Self::of(&answer, None),
            },
            tag => return Reader::no_case("kept answer", tag),
        })
    }
}

impl Coded for Object {
    fn put(&self, to: &mut Vec<u8>) {
        self.kind.put(to);
        self.epoch.put(to);
        self.version.put(to);
        self.born.put(to);
        self.pruned.put(to);
        self.cleared.put(to);
        put_map(to, &self.slots);
        put_map(to, &self.removed);
        put_several(to, self.opened.iter());
        self.door.put(to);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        let mut object = Self::new(Coded::take(from)?, Coded::take(from)?, Version::take(from)?);
        object.born = Coded::take(from)?;
        object.pruned = Coded::take(from)?;
        object.cleared = Coded::take(from)?;
        object.slots = take_map(from)?;
        object.removed = take_map(from)?;
        let opened: Vec<EdgeLife> = from.several("edges", usize::MAX)?;
        if !opened.is_sorted_by(|a, b| a < b) {
            return Err(Error::Contradiction("edges out of order"));
        }
        object.opened = opened.into_iter().collect();
        object.door = Coded::take(from)?;
        let stamps = object.slots.values().map(|slot| slot.stamp);
        let mut stamps = stamps.chain(object.removed.values().copied());
        if object.forgotten() > object.version || stamps.any(|stamp| stamp.version > object.version)
        {
            return Err(Error::Contradiction("a version from the future"));
        }
        object.weigh();
        Ok(object)
    }
}

impl Coded for Slot {
    fn put(&self, to: &mut Vec<u8>) {
        self.value.put(to);
        self.stamp.put(to);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Self {
            value: Coded::take(from)?,
            stamp: Coded::take(from)?,
        })
    }
}

impl Coded for Stamp {
    fn put(&self, to: &mut Vec<u8>) {
        self.version.put(to);
        self.by.put(to);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Self {
            version: Coded::take(from)?,
            by: Coded::take(from)?,
        })
    }
}

impl Coded for Door {
    fn put(&self, to: &mut Vec<u8>) {
        self.newest_token().put(to);
        self.lock().copied().put(to);
        put_several(to, self.queue().iter());
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        Self::restored(
            Coded::take(from)?,
            Coded::take(from)?,
            from.several("waiting requests", LOCK_QUEUE_MAX)?,
        )
        .ok_or(Error::Contradiction(
            "somebody waits in front of an open door",
        ))
    }
}

impl Coded for Lock {
    fn put(&self, to: &mut Vec<u8>) {
        self.session.put(to);
        self.token.put(to);
        self.depth.put(to);
        self.lease_ms.put(to);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Self {
            session: Coded::take(from)?,
            token: Coded::take(from)?,
            depth: Coded::take(from)?,
            lease_ms: Coded::take(from)?,
        })
    }
}

impl Coded for Waiting {
    fn put(&self, to: &mut Vec<u8>) {
        self.session.put(to);
        self.seq.put(to);
        self.request.put(to);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Self {
            session: Coded::take(from)?,
            seq: Coded::take(from)?,
            request: Coded::take(from)?,
        })
    }
}

impl Coded for Grave {
    fn put(&self, to: &mut Vec<u8>) {
        self.version.put(to);
        self.at.put(to);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Self {
            version: Coded::take(from)?,
            at: Coded::take(from)?,
        })
    }
}

impl Coded for Name {
    fn put(&self, to: &mut Vec<u8>) {
        self.epoch.put(to);
        self.origin.put(to);
        self.holder.put(to);
        put_several(to, self.standbys.iter());
        put_several(to, self.contenders.iter());
        self.ended.put(to);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Self {
            epoch: Coded::take(from)?,
            origin: Coded::take(from)?,
            holder: Coded::take(from)?,
            standbys: from.several("standbys", CONTENDERS_MAX)?,
            contenders: from.several("contenders", CONTENDERS_MAX)?,
            ended: Coded::take(from)?,
        })
    }
}

impl Coded for Party {
    fn put(&self, to: &mut Vec<u8>) {
        self.edge.put(to);
        self.publication.put(to);
        put_bytes(to, &self.token);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Self {
            edge: Coded::take(from)?,
            publication: Coded::take(from)?,
            token: from.bytes("token", TOKEN_BYTES_MAX)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv1a(b""), 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
        assert_eq!(fnv1a(b"a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
        assert_eq!(fnv1a(b"foobar"), 0x343e_1662_793c_64bf_6f0d_3597_ba44_6f18);
    }
}
