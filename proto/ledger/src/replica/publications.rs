//! Claims on names of streams, and streams that are followed.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use model::{Epoch, OriginId, StreamKey};

use super::interface::{ClaimOutcome, Output};
use super::{Link, Replica, limits};
use crate::command::Request;
use crate::effect::{Answer, Decision, StreamState};
use crate::limits::{TOKEN_BYTES_MAX, TRACE_BYTES_MAX};
use crate::wire::ToOrigin;

/// A publisher that wants a name, or has it.
#[derive(Debug)]
pub(super) struct Publication {
    pub(super) key: StreamKey,
    token: Bytes,
    above: Epoch,
    trace: Bytes,
    /// The number of the request that claims it.
    asked: u64,
    stage: Stage,
    /// Whether it was told that it stands by: a grant after that is a takeover.
    stood_by: bool,
}

/// How far a claim is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Not answered.
    Asked,
    /// The holder is asked whether it lives.
    Contending,
    /// Behind one with the same token.
    Standby,
    /// It has the name.
    Held(Epoch),
}

impl Replica {
    /// A publisher wants the name. `publication` is chosen by the shell and never used
    /// twice; it is over after [`ClaimOutcome::Refused`], [`ClaimOutcome::Ended`] or
    /// [`release`](Self::release).
    pub fn claim(
        &mut self,
        publication: u64,
        key: StreamKey,
        token: Bytes,
        above: Epoch,
        trace: Bytes,
        now: Instant,
    ) {
        if self.publications.len() >= limits::PUBLICATIONS_MAX
            || self.own_is_full()
            || token.len() > TOKEN_BYTES_MAX
        {
            self.outcome(publication, ClaimOutcome::Refused);
            return;
        }
        let trace = if trace.len() > TRACE_BYTES_MAX {
            Bytes::new()
        } else {
            trace
        };
        self.publications.insert(
            publication,
            Publication {
                key,
                token,
                above,
                trace,
                asked: 0,
                stage: Stage::Asked,
                stood_by: false,
            },
        );
        self.propose_claim(publication);
        self.pump_own(now);
    }

    /// The challenged publisher is alive.
    pub fn affirm(&mut self, publication: u64, now: Instant) {
        if let Some((key, epoch)) = self.holding(publication) {
            self.push_own(Request::Affirm { key, epoch }, Bytes::new());
            self.pump_own(now);
        }
    }

    /// The publisher is gone, whatever became of its claim.
    pub fn release(&mut self, publication: u64, now: Instant) {
        if let Some(one) = self.publications.remove(&publication) {
            let key = one.key;
            self.push_own(Request::Release { key, publication }, one.trace);
            self.pump_own(now);
        }
    }

    /// The media of the publish goes to this origin.
    pub fn place(&mut self, publication: u64, origin: OriginId, now: Instant) {
        if let Some((key, epoch)) = self.holding(publication) {
            let request = Request::Place { key, epoch, origin };
            self.push_own(request, Bytes::new());
            self.pump_own(now);
        }
    }

    /// Say how the stream stands, now and at every change.
    pub fn follow(&mut self, key: StreamKey, _now: Instant) {
        if self.followed.contains_key(&key) || self.followed.len() >= limits::FOLLOWED_MAX {
            return;
        }
        self.followed.insert(key.clone(), None);
        // When the edge is not attached, it is asked for behind the attachment.
        if self.link != Link::Detached {
            self.outputs
                .push_back(Output::ToOrigin(ToOrigin::Follow(key)));
        }
    }

    /// No longer.
    pub fn unfollow(&mut self, key: &StreamKey, _now: Instant) {
        if self.followed.remove(key).is_some() && self.link != Link::Detached {
            self.outputs
                .push_back(Output::ToOrigin(ToOrigin::Unfollow(key.clone())));
        }
    }

    /// Asks how the streams stand of which nothing is known.
    pub(super) fn ask_streams(&mut self) {
        for (key, state) in &self.followed {
            if state.is_none() {
                let key = key.clone();
                self.outputs
                    .push_back(Output::ToOrigin(ToOrigin::Follow(key)));
            }
        }
    }

    fn holding(&self, publication: u64) -> Option<(StreamKey, Epoch)> {
        let one = self.publications.get(&publication)?;
        match one.stage {
            Stage::Held(epoch) => Some((one.key.clone(), epoch)),
            Stage::Asked | Stage::Contending | Stage::Standby => None,
        }
    }

    fn propose_claim(&mut self, publication: u64) {
        let Some(one) = self.publications.get(&publication) else {
            return;
        };
        let request = Request::Claim {
            key: one.key.clone(),
            publication,
            token: one.token.clone(),
            above: one.above,
        };
        let trace = one.trace.clone();
        let asked = self.push_own(request, trace);
        if let Some(one) = self.publications.get_mut(&publication) {
            one.asked = asked;
            one.stage = Stage::Asked;
        }
    }

    fn outcome(&mut self, publication: u64, outcome: ClaimOutcome) {
        self.outputs.push_back(Output::Claim {
            publication,
            outcome,
        });
    }

    /// What became of a claim at once. Whether it can be that.
    pub(super) fn claim_answered(&mut self, publication: u64, seq: u64, answer: &Answer) -> bool {
        let Some(one) = self
            .publications
            .get_mut(&publication)
            .filter(|one| one.asked == seq && one.stage == Stage::Asked)
        else {
            return true;
        };
        match answer {
            Answer::Granted { epoch } => {
                let takeover = one.stood_by;
                self.granted(publication, *epoch, takeover);
            }
            Answer::Contending => one.stage = Stage::Contending,
            Answer::Standby => {
                one.stage = Stage::Standby;
                if !std::mem::replace(&mut one.stood_by, true) {
                    self.outcome(publication, ClaimOutcome::Standby);
                }
            }
            Answer::NotHolder | Answer::Full { .. } => self.refused(publication),
            Answer::Forgotten => self.propose_claim(publication),
            Answer::Done
            | Answer::Opened(_)
            | Answer::OtherKind { .. }
            | Answer::Written { .. }
            | Answer::NotOpen
            | Answer::Locked { .. }
            | Answer::NotLocked
            | Answer::OutOfOrder { .. }
            | Answer::UnknownEdge
            | Answer::Nothing
            | Answer::Outlived { .. } => return false,
        }
        true
    }

    /// What became of it later.
    pub(super) fn claim_decided(&mut self, publication: u64, decision: Decision) {
        match decision {
            Decision::Granted { epoch, takeover } => self.granted(publication, epoch, takeover),
            Decision::Refused => {
                // If it has claimed once more since, as after a gap, that begins anew.
                let asked = self.publications.get(&publication);
                if asked.is_none_or(|one| one.stage != Stage::Asked) {
                    self.refused(publication);
                }
            }
            Decision::Ended { epoch } => {
                if self
                    .holding(publication)
                    .is_some_and(|(_, held)| held == epoch)
                {
                    self.publications.remove(&publication);
                    self.outcome(publication, ClaimOutcome::Ended { epoch });
                }
            }
        }
    }

    fn granted(&mut self, publication: u64, epoch: Epoch, takeover: bool) {
        if let Some(one) = self.publications.get_mut(&publication)
            && one.stage != Stage::Held(epoch)
        {
            one.stage = Stage::Held(epoch);
            self.outcome(publication, ClaimOutcome::Granted { epoch, takeover });
        }
    }

    fn refused(&mut self, publication: u64) {
        if self.publications.remove(&publication).is_some() {
            self.outcome(publication, ClaimOutcome::Refused);
        }
    }

    /// Somebody else wants the name.
    pub(super) fn challenged(&mut self, publication: u64, epoch: Epoch) {
        if self
            .holding(publication)
            .is_some_and(|(_, held)| held == epoch)
        {
            self.outputs.push_back(Output::Challenged { publication });
        }
    }

    /// The ledger says that the name is not held with this epoch.
    pub(super) fn not_holder(&mut self, key: &StreamKey, epoch: Epoch) {
        let ended: Vec<u64> = self
            .publications
            .iter()
            .filter(|(_, one)| one.key == *key && one.stage == Stage::Held(epoch))
            .map(|(publication, _)| *publication)
            .collect();
        for publication in ended {
            self.claim_decided(publication, Decision::Ended { epoch });
        }
    }

    /// Another life of the edge begins: nothing is held.
    pub(super) fn claims_anew(&mut self) {
        let all: Vec<u64> = self.publications.keys().copied().collect();
        for publication in all {
            if let Some((_, epoch)) = self.holding(publication) {
                if let Some(one) = self.publications.get_mut(&publication) {
                    one.above = one.above.max(epoch);
                }
                self.outcome(publication, ClaimOutcome::Lost);
            }
            if let Some(one) = self.publications.get_mut(&publication) {
                one.stood_by = false;
            }
            self.propose_claim(publication);
        }
    }

    /// Nobody told this edge of decisions and challenges for a while. Who held a name and
    /// holds it still is asked whether it lives. Who waited claims once more: that is
    /// answered with what became of the claim, and begins it anew if it was refused.
    pub(super) fn claims_after_gap(&mut self, streams: &[(StreamKey, StreamState)]) {
        let held_here: BTreeMap<&StreamKey, Epoch> = streams
            .iter()
            .filter(|(_, state)| state.holder.as_ref() == Some(&self.life))
            .map(|(key, state)| (key, state.epoch))
            .collect();
        let all: Vec<u64> = self.publications.keys().copied().collect();
        for publication in all {
            let Some(one) = self.publications.get(&publication) else {
                continue;
            };
            match (one.stage, held_here.get(&one.key)) {
                (Stage::Held(epoch), Some(now)) if *now == epoch => {
                    self.outputs.push_back(Output::Challenged { publication });
                }
                (Stage::Held(epoch), _) => {
                    self.claim_decided(publication, Decision::Ended { epoch });
                }
                (Stage::Contending | Stage::Standby, _) => self.propose_claim(publication),
                (Stage::Asked, _) => {
                    if self.was_handed(publication) {
                        self.propose_claim(publication);
                    }
                }
            }
        }
    }

    /// Whether an origin was given the claim.
    fn was_handed(&self, publication: u64) -> bool {
        let asked = self.publications.get(&publication).map(|one| one.asked);
        let own = self.sessions.get(&self.own);
        asked
            .zip(own)
            .and_then(|(seq, own)| own.get(seq))
            .is_none_or(|asked| asked.handed)
    }
}
