//! Who may change an object now, and who waits for it.
//!
//! A lock is a lease that keeps honest clients apart, and no fence. While one session holds it,
//! what others ask of the object waits; when its lease is over the lock is gone, whether or not
//! its holder knows: nobody tells it, and what it asks afterwards is an ordinary request. A
//! [`Request::Batch`] carries no token, so a holder that was paused for longer than its lease,
//! while another locked, wrote and unlocked, may still write. What it cannot do is to undo the
//! other's write unseen: under [`Policy::Optimistic`](model::Policy::Optimistic) a batch carries
//! the version that its client had seen, and each slot that somebody changed since is refused.
//!
//! That leaves three things which a lock does not give:
//!
//! * where the last writer wins, the late write takes the place of the other's;
//! * slots that the other left alone, and messages, are not refused. Two slots that belong
//!   together can be torn apart like that: who relies on them being changed together puts them
//!   into one slot, or writes in each batch a slot that every holder of the lock writes too;
//! * a client that reads what has come meanwhile before it goes on has seen the newer version.
//!   It must judge anew by what it then sees, and not by what it saw when it took the lock.
//!
//! The token tells one lock of an object from the next, so that a late timeout never ends the
//! wrong one. It grows with every lock and would do for a fence, but it stays between the
//! ledger and the edge: the protocol has no place for it in a write.

use std::collections::{BTreeSet, VecDeque};

use model::{LogIndex, SessionId, SlotOp};

use crate::command::Request;
use crate::limits::{LOCK_QUEUE_BYTES_MAX, LOCK_QUEUE_MAX};

/// An object's door: open, or locked by a session with others waiting in front of it.
/// Nobody waits in front of an open door.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Door {
    lock: Option<Lock>,
    queue: VecDeque<Waiting>,
    bytes: usize,
    /// The token of the newest lock.
    newest: u64,
}

/// A lock that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lock {
    pub(crate) session: SessionId,
    /// The index of the entry that gave it, or more, if that entry gave several.
    pub(crate) token: u64,
    /// How often the session took it, at least once.
    pub(crate) depth: u32,
    pub(crate) lease_ms: u32,
}

/// A request that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) session: SessionId,
    pub(crate) seq: u64,
    pub(crate) request: Request,
}

impl Door {
    /// From a snapshot; `None` if it could not have come to be.
    pub(crate) fn restored(newest: u64, lock: Option<Lock>, queue: Vec<Waiting>) -> Option<Self> {
        let sound = match &lock {
            None => queue.is_empty(),
            Some(lock) => {
                lock.depth > 0 && queue.iter().all(|waiting| waiting.session != lock.session)
            }
        };
        let bytes = queue.iter().map(|waiting| weight(&waiting.request)).sum();
        sound.then(|| Self {
            lock,
            queue: queue.into(),
            bytes,
            newest,
        })
    }

    pub(crate) fn newest_token(&self) -> u64 {
        self.newest
    }

    pub(crate) fn lock(&self) -> Option<&Lock> {
        self.lock.as_ref()
    }

    pub(crate) fn queue(&self) -> &VecDeque<Waiting> {
        &self.queue
    }

    /// Bytes of what waits.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the session must wait.
    pub(crate) fn is_shut_for(&self, session: SessionId) -> bool {
        self.lock.is_some_and(|lock| lock.session != session)
    }

    /// Whether a request of the session waits.
    pub(crate) fn has_waiting(&self, session: SessionId) -> bool {
        self.queue.iter().any(|waiting| waiting.session == session)
    }

    /// Whether the session has the lock or waits.
    pub(crate) fn concerns(&self, session: SessionId) -> bool {
        self.lock.is_some_and(|lock| lock.session == session) || self.has_waiting(session)
    }

    /// Lets a request wait, unless a limit forbids it, which is named.
    pub(crate) fn wait(&mut self, waiting: Waiting, room: usize) -> Result<(), &'static str> {
        let bytes = weight(&waiting.request);
        if self.queue.len() >= LOCK_QUEUE_MAX {
            return Err("requests waiting for the lock");
        }
        if self.bytes + bytes > LOCK_QUEUE_BYTES_MAX {
            return Err("bytes waiting for the lock");
        }
        if bytes > room {
            return Err("bytes of all objects");
        }
        self.bytes += bytes;
        self.queue.push_back(waiting);
        Ok(())
    }

    /// The first that need not wait any more.
    pub(crate) fn next(&mut self) -> Option<Waiting> {
        let place = match self.lock {
            None => 0,
            Some(lock) => self.queue.iter().position(|w| w.session == lock.session)?,
        };
        let waiting = self.queue.remove(place)?;
        self.bytes -= weight(&waiting.request);
        Some(waiting)
    }

    /// Takes the lock, or takes it once more; whether it was free. The session need not
    /// wait.
    pub(crate) fn take(
        &mut self,
        session: SessionId,
        index: LogIndex,
        lease_ms: u32,
    ) -> (bool, u64) {
        match &mut self.lock {
            Some(lock) => {
                lock.depth = lock.depth.saturating_add(1);
                (false, lock.token)
            }
            None => {
                let token = index.0.max(self.newest.saturating_add(1));
                self.newest = token;
                self.lock = Some(Lock {
                    session,
                    token,
                    depth: 1,
                    lease_ms,
                });
                (true, token)
            }
        }
    }

    /// Gives back one level of the lock: `Err` if the session has none, the token if it
    /// was the last.
    pub(crate) fn give_back(&mut self, session: SessionId) -> Result<Option<u64>, ()> {
        match &mut self.lock {
            Some(lock) if lock.session == session => {
                lock.depth -= 1;
                let last = lock.depth == 0;
                Ok(if last { self.free() } else { None })
            }
            Some(_) | None => Err(()),
        }
    }

    /// Ends the lock, whoever has it; its token.
    pub(crate) fn free(&mut self) -> Option<u64> {
        self.lock.take().map(|lock| lock.token)
    }

    /// Forgets what these sessions wait for.
    pub(crate) fn drop_waiting(&mut self, sessions: &BTreeSet<SessionId>) {
        let bytes = &mut self.bytes;
        self.queue.retain(|waiting| {
            let keep = !sessions.contains(&waiting.session);
            if !keep {
                *bytes -= weight(&waiting.request);
            }
            keep
        });
    }
}

/// What a waiting request weighs: what it carries, and the request itself.
fn weight(request: &Request) -> usize {
    const REQUEST: usize = 64;
    REQUEST
        + match request {
            Request::Batch { ops, .. } => ops.iter().map(weight_of_op).sum(),
            Request::Send { payload, .. } => payload.len(),
            Request::Register
            | Request::Open { .. }
            | Request::Close { .. }
            | Request::EndSessions(_)
            | Request::Claim { .. }
            | Request::Affirm { .. }
            | Request::Release { .. }
            | Request::Place { .. }
            | Request::Home { .. }
            | Request::Lock { .. }
            | Request::Unlock { .. }
            | Request::Void => 0,
        }
}

fn weight_of_op(op: &SlotOp) -> usize {
    const OP: usize = 48;
    OP + match op {
        SlotOp::Set { slot, value } => slot.as_str().len() + value.0.len(),
        SlotOp::Remove { slot } => slot.as_str().len(),
        SlotOp::Clear => 0,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use model::{AppInstance, AppName, InstanceName, ObjectKey, ObjectName, VhostName};

    use super::*;

    #[test]
    fn a_queue_is_bounded_in_requests_and_in_bytes() {
        let send = |len| Waiting {
            session: SessionId(2),
            seq: 1,
            request: Request::Send {
                key: ObjectKey {
                    at: AppInstance {
                        vhost: VhostName::default_vhost(),
                        app: AppName::new("a").unwrap(),
                        instance: InstanceName::default_instance(),
                    },
                    name: ObjectName::new("o").unwrap(),
                },
                payload: Bytes::from(vec![0; len]),
            },
        };
        let mut door = Door::default();
        door.take(SessionId(1), LogIndex(1), 1);
        for _ in 0..LOCK_QUEUE_MAX {
            assert_eq!(door.wait(send(1), usize::MAX), Ok(()));
        }
        assert_eq!(
            door.wait(send(1), usize::MAX),
            Err("requests waiting for the lock")
        );
        door.drop_waiting(&BTreeSet::from([SessionId(2)]));
        assert_eq!(door.bytes(), 0);
        let half = send(LOCK_QUEUE_BYTES_MAX / 2);
        assert_eq!(door.wait(half.clone(), 10), Err("bytes of all objects"));
        assert_eq!(door.wait(half.clone(), usize::MAX), Ok(()));
        assert_eq!(
            door.wait(half, usize::MAX),
            Err("bytes waiting for the lock")
        );
        assert_eq!(door.free(), Some(1));
        assert!(door.next().is_some() && door.next().is_none());
        assert_eq!(door.bytes(), 0);
    }
}
