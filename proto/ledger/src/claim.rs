//! Who publishes which stream.
//!
//! A name has at most one holder. Who wants it while another holds it either **stands by**,
//! because it brings the holder's token, or **contends**: the holder's edge is asked
//! whether its publisher lives. A contender waits until the holder affirms, and is refused
//! then, or until the name is free. Who stands by comes first when the name is free.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use model::{EdgeLife, Epoch, LogIndex, OriginId, StreamKey};

use crate::effect::{Answer, Decision, Effect, StreamState};
use crate::limits::{
    CONTENDERS_MAX, ENDED_STREAMS_MAX, EPOCH_ABOVE_MAX, STREAMS_MAX, TOKEN_BYTES_MAX,
};

/// All names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims {
    names: BTreeMap<StreamKey, Name>,
    /// The names that an edge holds or waits for.
    of: BTreeMap<EdgeLife, BTreeSet<StreamKey>>,
    /// Names that nobody holds, the oldest first.
    ended: BTreeSet<(LogIndex, StreamKey)>,
    /// No epoch that was forgotten is greater, and none that somebody who waited demanded to
    /// be exceeded.
    floor: Epoch,
}

/// One name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Name {
    /// The newest publish.
    pub(crate) epoch: Epoch,
    pub(crate) origin: Option<OriginId>,
    pub(crate) holder: Option<Party>,
    /// In the order in which they came. Nobody waits when nobody holds the name.
    pub(crate) standbys: Vec<Party>,
    pub(crate) contenders: Vec<Party>,
    /// When it was last held, if nobody holds it.
    pub(crate) ended: LogIndex,
}

/// A publisher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Party {
    pub(crate) edge: EdgeLife,
    pub(crate) publication: u64,
    pub(crate) token: Bytes,
}

impl Claims {
    /// Names that nobody holds and that are remembered.
    pub(crate) fn ended(&self) -> usize {
        self.ended.len()
    }

    /// Puts back what a snapshot holds; `None` if it could not have come to be.
    pub(crate) fn restored(names: BTreeMap<StreamKey, Name>, floor: Epoch) -> Option<Self> {
        let mut claims = Self {
            floor,
            ..Self::default()
        };
        for (key, name) in &names {
            if name.holder.is_none() {
                if !name.standbys.is_empty() || !name.contenders.is_empty() {
                    return None;
                }
                claims.ended.insert((name.ended, key.clone()));
            }
            for party in name.parties() {
                claims
                    .of
                    .entry(party.edge.clone())
                    .or_default()
                    .insert(key.clone());
            }
        }
        claims.names = names;
        Some(claims)
    }

    /// All names, in order, with what is remembered of those that nobody holds.
    pub(crate) fn all(&self) -> &BTreeMap<StreamKey, Name> {
        &self.names
    }

    pub(crate) fn floor(&self) -> Epoch {
        self.floor
    }

    pub(crate) fn state(&self, key: &StreamKey) -> StreamState {
        self.names.get(key).map(Name::state).unwrap_or_default()
    }

    /// A publisher wants the name.
    pub(crate) fn claim(
        &mut self,
        key: &StreamKey,
        party: Party,
        above: Epoch,
        index: LogIndex,
        effects: &mut Vec<Effect>,
    ) -> Answer {
        if party.token.len() > TOKEN_BYTES_MAX {
            return Answer::Full {
                limit: "bytes of the token",
            };
        }
        if above.0 > EPOCH_ABOVE_MAX {
            return Answer::Full { limit: "epochs" };
        }
        let held = self.names.len() - self.ended.len();
        let name = match self.names.get_mut(key) {
            Some(name) => name,
            None => {
                let fresh = Name {
                    epoch: self.floor,
                    ..Name::default()
                };
                if held >= STREAMS_MAX {
                    return Answer::Full { limit: "streams" };
                }
                self.names.entry(key.clone()).or_insert(fresh)
            }
        };
        let Some(holder) = &name.holder else {
            if held >= STREAMS_MAX {
                return Answer::Full { limit: "streams" };
            }
            self.ended.remove(&(name.ended, key.clone()));
            self.of
                .entry(party.edge.clone())
                .or_default()
                .insert(key.clone());
            let epoch = name.give(party, above, index);
            effects.push(name.told(key));
            return Answer::Granted { epoch };
        };
        if holder.is(&party.edge, party.publication) {
            return Answer::Granted { epoch: name.epoch };
        }
        let is_it = |waiting: &Party| waiting.is(&party.edge, party.publication);
        if name.standbys.iter().any(is_it) {
            return Answer::Standby;
        }
        if name.contenders.iter().any(is_it) {
            return Answer::Contending;
        }
        if name.standbys.len() + name.contenders.len() >= CONTENDERS_MAX {
            return Answer::NotHolder;
        }
        self.of
            .entry(party.edge.clone())
            .or_default()
            .insert(key.clone());
        // When it is its turn, its publish must be newer than what it knows of.
        self.floor = self.floor.max(above);
        if holder.shares_token(&party) {
            name.standbys.push(party);
            return Answer::Standby;
        }
        name.contenders.push(party);
        if name.contenders.len() == 1 {
            name.challenge(key, effects);
        }
        Answer::Contending
    }

    /// The holder lives: who contends is refused.
    pub(crate) fn affirm(
        &mut self,
        key: &StreamKey,
        edge: &EdgeLife,
        epoch: Epoch,
        effects: &mut Vec<Effect>,
    ) -> Answer {
        let Some(name) = self
            .names
            .get_mut(key)
            .filter(|name| name.is_held(edge, epoch))
        else {
            return Answer::NotHolder;
        };
        for party in std::mem::take(&mut name.contenders) {
            effects.push(party.told(key, Decision::Refused));
            self.unlink(&party.edge, key);
        }
        Answer::Done
    }

    /// The media of a publish goes to this origin.
    pub(crate) fn place(
        &mut self,
        key: &StreamKey,
        edge: &EdgeLife,
        epoch: Epoch,
        origin: &OriginId,
        effects: &mut Vec<Effect>,
    ) -> Answer {
        let Some(name) = self
            .names
            .get_mut(key)
            .filter(|name| name.is_held(edge, epoch))
        else {
            return Answer::NotHolder;
        };
        if name.origin.as_ref() != Some(origin) {
            name.origin = Some(origin.clone());
            effects.push(name.told(key));
        }
        Answer::Done
    }

    /// A publication is over.
    pub(crate) fn release(
        &mut self,
        key: &StreamKey,
        edge: &EdgeLife,
        publication: u64,
        index: LogIndex,
        effects: &mut Vec<Effect>,
    ) {
        self.leave(key, index, effects, |party| party.is(edge, publication));
        self.unlink(edge, key);
    }

    /// All publications of an edge are over, and it is told which grants have ended.
    pub(crate) fn lose(&mut self, edge: &EdgeLife, index: LogIndex, effects: &mut Vec<Effect>) {
        for key in self.of.remove(edge).unwrap_or_default() {
            if let Some(name) = self.names.get(&key)
                && let Some(holder) = name.holder.as_ref().filter(|party| party.edge == *edge)
            {
                effects.push(holder.told(&key, Decision::Ended { epoch: name.epoch }));
            }
            self.leave(&key, index, effects, |party| party.edge == *edge);
        }
    }

    /// The origin is gone: no stream's media is there.
    pub(crate) fn vacate(&mut self, origin: &OriginId, effects: &mut Vec<Effect>) {
        for (key, name) in &mut self.names {
            if name.origin.as_ref() == Some(origin) {
                name.origin = None;
                effects.push(name.told(key));
            }
        }
    }

    /// Takes publishers away from a name. If the holder is among them, the next one holds
    /// it.
    fn leave(
        &mut self,
        key: &StreamKey,
        index: LogIndex,
        effects: &mut Vec<Effect>,
        goes: impl Fn(&Party) -> bool,
    ) {
        let Some(name) = self.names.get_mut(key) else {
            return;
        };
        name.standbys.retain(|party| !goes(party));
        name.contenders.retain(|party| !goes(party));
        if !name.holder.as_ref().is_some_and(goes) {
            return;
        }
        if name.hand_on(key, self.floor, index, effects) {
            return;
        }
        name.ended = index;
        self.ended.insert((index, key.clone()));
        while self.ended.len() > ENDED_STREAMS_MAX {
            let Some(name) = self
                .ended
                .pop_first()
                .and_then(|(_, k)| self.names.remove(&k))
            else {
                break;
            };
            self.floor = self.floor.max(name.epoch);
        }
    }

    /// The name is not among the edge's any more, unless another of its publishers is
    /// there.
    fn unlink(&mut self, edge: &EdgeLife, key: &StreamKey) {
        let name = self.names.get(key);
        if name.is_some_and(|name| name.parties().any(|party| party.edge == *edge)) {
            return;
        }
        if let Some(keys) = self.of.get_mut(edge) {
            keys.remove(key);
            if keys.is_empty() {
                self.of.remove(edge);
            }
        }
    }
}

impl Name {
    fn parties(&self) -> impl Iterator<Item = &Party> {
        self.holder
            .iter()
            .chain(&self.standbys)
            .chain(&self.contenders)
    }

    fn is_held(&self, edge: &EdgeLife, epoch: Epoch) -> bool {
        self.epoch == epoch
            && self
                .holder
                .as_ref()
                .is_some_and(|party| party.edge == *edge)
    }

    pub(crate) fn state(&self) -> StreamState {
        StreamState {
            epoch: self.epoch,
            holder: self.holder.as_ref().map(|party| party.edge.clone()),
            origin: self.origin.clone(),
        }
    }

    fn told(&self, key: &StreamKey) -> Effect {
        Effect::Stream {
            key: key.clone(),
            state: self.state(),
        }
    }

    /// A new publish. Its epoch is the place in the log, unless somebody has seen a
    /// greater one.
    fn give(&mut self, party: Party, above: Epoch, index: LogIndex) -> Epoch {
        let least = self.epoch.max(above).0.saturating_add(1);
        self.epoch = Epoch(index.0.max(least));
        self.holder = Some(party);
        self.origin = None;
        self.ended = LogIndex(0);
        self.epoch
    }

    /// The holder is gone: the next holds the name, if there is one.
    fn hand_on(
        &mut self,
        key: &StreamKey,
        above: Epoch,
        index: LogIndex,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let takeover = !self.standbys.is_empty();
        let waiting = if takeover {
            &mut self.standbys
        } else {
            &mut self.contenders
        };
        if waiting.is_empty() {
            self.holder = None;
            self.origin = None;
            effects.push(self.told(key));
            return false;
        }
        let next = waiting.remove(0);
        let (epoch, told) = (self.give(next.clone(), above, index), next);
        effects.push(told.told(key, Decision::Granted { epoch, takeover }));
        effects.push(self.told(key));
        // Those who share the new holder's token need not ask whether it lives.
        let friends = self
            .contenders
            .extract_if(.., |party| told.shares_token(party));
        self.standbys.extend(friends);
        if !self.contenders.is_empty() {
            self.challenge(key, effects);
        }
        true
    }

    fn challenge(&self, key: &StreamKey, effects: &mut Vec<Effect>) {
        if let Some(holder) = &self.holder {
            effects.push(Effect::Challenge {
                to: holder.edge.clone(),
                key: key.clone(),
                epoch: self.epoch,
                publication: holder.publication,
            });
        }
    }
}

impl Party {
    fn is(&self, edge: &EdgeLife, publication: u64) -> bool {
        self.publication == publication && self.edge == *edge
    }

    fn shares_token(&self, other: &Self) -> bool {
        !self.token.is_empty() && self.token == other.token
    }

    fn told(&self, key: &StreamKey, decision: Decision) -> Effect {
        Effect::Claim {
            to: self.edge.clone(),
            key: key.clone(),
            publication: self.publication,
            decision,
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{AppInstance, AppName, EdgeId, InstanceName, StreamName, VhostName};

    use super::*;

    fn key(number: usize) -> StreamKey {
        StreamKey {
            at: AppInstance {
                vhost: VhostName::default_vhost(),
                app: AppName::new("live").unwrap(),
                instance: InstanceName::default_instance(),
            },
            name: StreamName::new(&number.to_string()).unwrap(),
        }
    }

    fn party(publication: u64) -> Party {
        Party {
            edge: EdgeLife {
                edge: EdgeId::new("edge-0").unwrap(),
                incarnation: 1,
            },
            publication,
            token: Bytes::new(),
        }
    }

    #[test]
    fn an_epoch_does_not_go_back_when_its_name_was_forgotten() {
        let (mut claims, mut effects) = (Claims::default(), Vec::new());
        let mut index = LogIndex(1);
        let far = Epoch(1_000_000);
        claims.claim(&key(0), party(1), far, index, &mut effects);
        claims.release(&key(0), &party(1).edge, 1, index, &mut effects);
        for number in 1..=ENDED_STREAMS_MAX {
            index.0 += 1;
            claims.claim(&key(number), party(1), Epoch(0), index, &mut effects);
            claims.release(&key(number), &party(1).edge, 1, index, &mut effects);
        }
        assert_eq!(claims.state(&key(0)), StreamState::default());
        assert_eq!(claims.all().len(), ENDED_STREAMS_MAX);
        let answer = claims.claim(&key(0), party(1), Epoch(0), index, &mut effects);
        assert_eq!(
            answer,
            Answer::Granted {
                epoch: Epoch(far.0 + 2)
            }
        );
    }

    #[test]
    fn who_waited_is_granted_an_epoch_above_what_it_demanded() {
        for token in ["", "same"] {
            let (mut claims, mut effects) = (Claims::default(), Vec::new());
            let party = |publication| Party {
                token: Bytes::from_static(token.as_bytes()),
                ..party(publication)
            };
            claims.claim(&key(0), party(1), Epoch(0), LogIndex(1), &mut effects);
            claims.claim(&key(0), party(2), Epoch(700), LogIndex(2), &mut effects);
            claims.release(&key(0), &party(1).edge, 1, LogIndex(3), &mut effects);
            assert_eq!(claims.state(&key(0)).epoch, Epoch(701));
        }
    }

    #[test]
    fn only_so_many_wait_for_a_name() {
        let (mut claims, mut effects) = (Claims::default(), Vec::new());
        let mut ask = |publication| {
            claims.claim(
                &key(0),
                party(publication),
                Epoch(0),
                LogIndex(1),
                &mut effects,
            )
        };
        assert_eq!(ask(0), Answer::Granted { epoch: Epoch(1) });
        for publication in 1..=CONTENDERS_MAX as u64 {
            assert_eq!(ask(publication), Answer::Contending);
        }
        assert_eq!(ask(1), Answer::Contending);
        assert_eq!(ask(CONTENDERS_MAX as u64 + 1), Answer::NotHolder);
        let asked = effects
            .iter()
            .filter(|e| matches!(e, Effect::Challenge { .. }));
        assert_eq!(asked.count(), 1);
    }
}
