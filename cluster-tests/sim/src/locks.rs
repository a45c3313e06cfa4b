//! Who held which lock, as the origins applied it.

use std::collections::BTreeMap;
use std::time::Duration;

use ledger::{Answer, Applied, Effect};
use model::{ObjectKey, SessionId};

/// A leader's clock may be this much faster than the one of the simulation, in percent.
const SLACK: u32 = 25;

/// All locks that were ever given.
#[derive(Debug, Default)]
pub(super) struct Locks {
    /// Whose each lock is, as far as an answer told.
    given: BTreeMap<(ObjectKey, u64), Option<SessionId>>,
    held: BTreeMap<ObjectKey, Held>,
    /// Who was told that he has it.
    told: BTreeMap<(ObjectKey, u64), String>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    token: u64,
    by: Option<SessionId>,
    since: Duration,
    lease: Duration,
}

impl Locks {
    /// An entry was applied for the first time, by anybody.
    ///
    /// # Errors
    /// Two have a lock at once, one lost it too early, or somebody who does not have it
    /// changed the object.
    pub(super) fn handle_applied(
        &mut self,
        applied: &Applied,
        now: Duration,
    ) -> Result<(), String> {
        // A lock that is given back by an entry that answers nobody has expired.
        let expired = matches!(applied.effects.first(), Some(Effect::Unlocked { .. }));
        let mut before: Option<&Effect> = None;
        for (place, effect) in applied.effects.iter().enumerate() {
            match effect {
                Effect::Locked {
                    key,
                    token,
                    lease_ms,
                } => {
                    // The answer stands right before what the request did.
                    let by = match before {
                        Some(Effect::Answer {
                            session,
                            answer: Answer::Locked { token: told },
                            ..
                        }) if told == token => Some(*session),
                        _ => None,
                    };
                    let held = Held {
                        token: *token,
                        by,
                        since: now,
                        lease: Duration::from_millis(u64::from(*lease_ms)),
                    };
                    if let Some(other) = self.held.insert(key.clone(), held) {
                        return Err(format!("{key} is locked by {held:?} and by {other:?}"));
                    }
                    if self.given.insert((key.clone(), *token), by).is_some() {
                        return Err(format!("lock {token} of {key} was given twice"));
                    }
                }
                Effect::Unlocked { key, token } => {
                    let Some(held) = self.held.remove(key).filter(|held| held.token == *token)
                    else {
                        return Err(format!("lock {token} of {key} ends; nobody has it"));
                    };
                    let least = held.lease * (100 - SLACK) / 100;
                    if expired && place == 0 && now < held.since + least {
                        return Err(format!(
                            "lock {token} of {key} expires after {:?}: {held:?}",
                            now.saturating_sub(held.since)
                        ));
                    }
                }
                Effect::Object { key, by, .. } => {
                    let holder = self.held.get(key).and_then(|held| held.by);
                    if let (Some(holder), Some((session, seq))) = (holder, by)
                        && holder != *session
                    {
                        return Err(format!(
                            "request {seq} of {session:?} changes {key}, which {holder:?} has locked"
                        ));
                    }
                }
                Effect::Answer { .. }
                | Effect::Stream { .. }
                | Effect::Challenge { .. }
                | Effect::Claim { .. }
                | Effect::EdgeLost { .. }
                | Effect::Home { .. } => {}
            }
            before = Some(effect);
        }
        Ok(())
    }

    /// Somebody is told that he has a lock.
    ///
    /// # Errors
    /// There never was one, or it is another's.
    pub(super) fn told(
        &mut self,
        key: &ObjectKey,
        token: u64,
        session: Option<SessionId>,
        name: &str,
    ) -> Result<(), String> {
        let lock = (key.clone(), token);
        match (self.given.get(&lock), session) {
            (None, _) => {
                return Err(format!(
                    "{name} is told that it has lock {token} of {key}, which was never given"
                ));
            }
            (Some(Some(holder)), Some(session)) if *holder != session => {
                return Err(format!(
                    "{name} is told that it has lock {token} of {key}; {holder:?} has"
                ));
            }
            (Some(_), _) => {}
        }
        let first = self.told.entry(lock).or_insert_with(|| name.to_owned());
        if first != name {
            return Err(format!(
                "{name} is told that it has lock {token} of {key}, and so was {first}"
            ));
        }
        Ok(())
    }
}
