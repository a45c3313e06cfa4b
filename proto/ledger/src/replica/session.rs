//! Numbered requests: in order, each until it is answered.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::{Epoch, ObjectKey, Policy, SlotOp, Version};

use super::interface::{CallId, SubscriberId};
use super::limits::RETRY_FIRST;
use crate::command::Request;
use crate::effect::Answer;
use crate::limits::WINDOW;

/// One session's requests.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) durable: bool,
    /// Who is told; nobody for the edge's own, or when the client has left.
    pub(super) subscriber: Option<SubscriberId>,
    /// Not answered yet, ascending and without a gap behind the first that was not sent.
    pub(super) requests: VecDeque<Asked>,
    /// Bytes of `requests`.
    pub(super) bytes: usize,
    /// The number of the next new request.
    next: u64,
    /// The number of the next request to send; those below it were sent to this origin.
    cursor: u64,
    /// Numbers below this were applied, as far as is known.
    floor: u64,
    /// The gap that the ledger told of last, until there is progress: it tells of it once
    /// for each request behind the gap.
    gap: Option<u64>,
    /// How long to wait before proposing again.
    pub(super) pause: Duration,
}

/// One request.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) seq: u64,
    pub(super) what: What,
    /// Whether any origin was ever given it.
    pub(super) handed: bool,
    /// When the client is told that it takes too long; `None` if nobody waits.
    pub(super) due: Option<Instant>,
    /// The client has released the object since: what becomes of it is told to nobody.
    pub(super) silent: bool,
    /// What became of it, when that is known before what became of an earlier one.
    pub(super) early: Option<Answer>,
    pub(super) trace: Bytes,
}

/// What is asked.
#[derive(Debug)]
pub(super) enum What {
    /// The edge's own request.
    Edge(Request),
    /// A client's batch.
    Write {
        key: ObjectKey,
        /// What the client had seen; `None` until its subscription is answered.
        seen: Option<(Epoch, Version)>,
        policy: Policy,
        ops: Vec<SlotOp>,
    },
    /// A client's message.
    Send { key: ObjectKey, payload: Bytes },
    /// A client's lock.
    Lock {
        key: ObjectKey,
        lease_ms: u32,
        call: CallId,
    },
    /// A client's unlock; without a call if the edge gives back what came too late.
    Unlock {
        key: ObjectKey,
        call: Option<CallId>,
    },
    /// Nothing any more. If the original was a lock, it may still be granted and must be
    /// given back.
    Void { lock: Option<ObjectKey> },
}

impl What {
    /// The object a client's request is about.
    pub(super) fn object(&self) -> Option<&ObjectKey> {
        match self {
            Self::Write { key, .. }
            | Self::Send { key, .. }
            | Self::Lock { key, .. }
            | Self::Unlock { key, .. } => Some(key),
            Self::Edge(_) | Self::Void { .. } => None,
        }
    }

    /// As it stands in a proposal.
    pub(super) fn request(&self) -> Request {
        match self {
            Self::Edge(request) => request.clone(),
            Self::Write {
                key,
                seen,
                policy,
                ops,
            } => {
                let (epoch, base) = seen.unwrap_or_default();
                Request::Batch {
                    key: key.clone(),
                    epoch,
                    base,
                    policy: *policy,
                    ops: ops.clone(),
                }
            }
            Self::Send { key, payload } => Request::Send {
                key: key.clone(),
                payload: payload.clone(),
            },
            Self::Lock { key, lease_ms, .. } => Request::Lock {
                key: key.clone(),
                lease_ms: *lease_ms,
            },
            Self::Unlock { key, .. } => Request::Unlock { key: key.clone() },
            Self::Void { .. } => Request::Void,
        }
    }

    /// Bytes, roughly, that a client makes the edge keep.
    fn bytes(&self) -> usize {
        match self {
            Self::Write { ops, .. } => ops.iter().map(op_bytes).sum(),
            Self::Send { payload, .. } => payload.len(),
            Self::Edge(_) | Self::Lock { .. } | Self::Unlock { .. } | Self::Void { .. } => 0,
        }
    }
}

/// Bytes of one step, with what it costs around them.
pub(super) fn op_bytes(op: &SlotOp) -> usize {
    16 + match op {
        SlotOp::Set { slot, value } => slot.as_str().len() + value.0.len(),
        SlotOp::Remove { slot } => slot.as_str().len(),
        SlotOp::Clear => 0,
    }
}

/// What to do about a gap that the ledger told of.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Gap {
    /// Nothing: it is being filled.
    Known,
    /// Send again what is not answered.
    Again,
    /// The ledger knows the session no more.
    Lost,
}

impl Session {
    pub(super) fn new(durable: bool, subscriber: Option<SubscriberId>, next: u64) -> Self {
        Self {
            durable,
            subscriber,
            requests: VecDeque::new(),
            bytes: 0,
            next,
            cursor: next,
            floor: 1,
            gap: None,
            pause: RETRY_FIRST,
        }
    }

    /// Takes the next number.
    pub(super) fn push(&mut self, what: What, due: Option<Instant>, trace: Bytes) -> u64 {
        let seq = self.next;
        self.bytes += what.bytes();
        self.requests.push_back(Asked {
            seq,
            what,
            handed: false,
            due,
            silent: false,
            early: None,
            trace,
        });
        self.next += 1;
        seq
    }

    /// The client releases the object: it is told nothing of what it wrote and sent.
    pub(super) fn silence(&mut self, key: &ObjectKey) {
        for asked in &mut self.requests {
            if let What::Write { key: about, .. } | What::Send { key: about, .. } = &asked.what
                && about == key
            {
                asked.silent = true;
            }
        }
    }

    /// Whether the client waits for an earlier answer about the same object. It is told in
    /// order what became of its requests; answers come in another order when what asks
    /// for one again is lost.
    pub(super) fn is_behind(&self, asked: &Asked) -> bool {
        let concerned = |asked: &Asked| match &asked.what {
            What::Write { key, .. } | What::Send { key, .. } if !asked.silent => Some(key.clone()),
            What::Write { .. }
            | What::Send { .. }
            | What::Lock { .. }
            | What::Unlock { .. }
            | What::Void { .. }
            | What::Edge(_) => None,
        };
        concerned(asked).is_some_and(|key| {
            self.requests
                .iter()
                .take_while(|earlier| earlier.seq < asked.seq)
                .any(|earlier| concerned(earlier).as_ref() == Some(&key))
        })
    }

    /// Keeps an answer until the earlier ones are there. Gives it back if they are.
    pub(super) fn hold(&mut self, seq: u64, answer: Answer) -> Option<Answer> {
        let is_behind = self.get(seq).is_some_and(|asked| self.is_behind(asked));
        if !is_behind {
            return Some(answer);
        }
        if let Some(asked) = self.place(seq).and_then(|at| self.requests.get_mut(at)) {
            asked.early = Some(answer);
        }
        None
    }

    /// A kept answer that need not wait any more.
    pub(super) fn next_early(&mut self) -> Option<(u64, Answer)> {
        let first = self
            .requests
            .iter()
            .find(|asked| asked.early.is_some() && !self.is_behind(asked))?
            .seq;
        let at = self.place(first)?;
        let answer = self.requests.get_mut(at)?.early.take()?;
        Some((first, answer))
    }

    /// Who is told what becomes of the request.
    pub(super) fn asker(&self, seq: u64) -> Option<SubscriberId> {
        let is_silent = self.get(seq).is_some_and(|asked| asked.silent);
        self.subscriber.filter(|_| !is_silent)
    }

    /// Whether any request was counted in it, here or where its client was before.
    pub(super) fn has_counted(&self) -> bool {
        self.next > 1
    }

    /// Whether the request may be in the log, now or later. One of a client that comes back
    /// with its numbers may have been handed over by the edge where it was before.
    pub(super) fn may_be_made(&self, seq: u64) -> bool {
        self.durable || self.get(seq).is_some_and(|asked| asked.handed)
    }

    pub(super) fn get(&self, seq: u64) -> Option<&Asked> {
        let at = self.place(seq)?;
        self.requests.get(at)
    }

    fn place(&self, seq: u64) -> Option<usize> {
        self.requests
            .binary_search_by_key(&seq, |asked| asked.seq)
            .ok()
    }

    /// The next request to send, if the window has room for it.
    pub(super) fn next_to_send(&mut self) -> Option<&mut Asked> {
        let first = self.requests.front()?.seq;
        let at = self
            .requests
            .partition_point(|asked| asked.seq < self.cursor);
        self.requests
            .get_mut(at)
            .filter(|asked| asked.seq - first < WINDOW)
    }

    /// It was sent.
    pub(super) fn sent(&mut self, seq: u64) {
        self.cursor = seq + 1;
    }

    /// Everything is to be sent again, from the first that is not answered.
    pub(super) fn rewind(&mut self) {
        self.cursor = 0;
        self.gap = None;
    }

    /// Whether anything was sent to this origin and is not answered.
    pub(super) fn is_under_way(&self) -> bool {
        self.requests
            .front()
            .is_some_and(|asked| asked.seq < self.cursor)
    }

    /// The request was applied.
    pub(super) fn answered(&mut self, seq: u64) -> Option<Asked> {
        self.floor = self.floor.max(seq + 1);
        let at = self.place(seq)?;
        self.gap = None;
        self.pause = RETRY_FIRST;
        let asked = self.requests.remove(at)?;
        self.bytes -= asked.what.bytes();
        Some(asked)
    }

    /// Nobody waits for the request any more. What no origin was given is gone, and what
    /// was has its number used up. A client's own numbers are used up in any case.
    pub(super) fn withdraw(&mut self, seq: u64) -> Option<What> {
        let durable = self.durable;
        let at = self.place(seq)?;
        let asked = self.requests.get_mut(at)?;
        self.bytes -= asked.what.bytes();
        if !asked.handed && !durable {
            let asked = self.requests.remove(at)?;
            for later in self.requests.range_mut(at..) {
                later.seq -= 1;
            }
            self.next -= 1;
            return Some(asked.what);
        }
        let lock = match (&asked.what, asked.handed) {
            (What::Lock { key, .. }, true) => Some(key.clone()),
            (What::Void { lock }, _) => lock.clone(),
            _ => None,
        };
        asked.due = None;
        self.cursor = self.cursor.min(seq);
        Some(std::mem::replace(&mut asked.what, What::Void { lock }))
    }

    /// The ledger expects this number.
    pub(super) fn gap(&mut self, expected: u64) -> Gap {
        let Some(first) = self.requests.front().map(|asked| asked.seq) else {
            return Gap::Known;
        };
        if expected < self.floor || first.saturating_sub(expected) > WINDOW {
            return Gap::Lost;
        }
        if self.gap == Some(expected) {
            return Gap::Known;
        }
        // A client that came back said a number, and what it asked before was never
        // applied: it does not want it any more, or it would have asked again.
        for seq in (expected..first).rev() {
            self.requests.push_front(Asked {
                seq,
                what: What::Void { lock: None },
                handed: false,
                due: None,
                silent: false,
                early: None,
                trace: Bytes::new(),
            });
        }
        self.rewind();
        self.gap = Some(expected);
        Gap::Again
    }

    /// When the first client is told that it takes too long.
    pub(super) fn due(&self) -> Option<Instant> {
        self.requests.iter().find_map(|asked| asked.due)
    }

    /// The numbers of those that take too long.
    pub(super) fn overdue(&self, now: Instant) -> Vec<u64> {
        self.requests
            .iter()
            .filter(|asked| asked.due.is_some_and(|due| due <= now))
            .map(|asked| asked.seq)
            .collect()
    }

    /// The session goes on under another name, since the ledger forgot it. What was handed
    /// to an origin is returned: nobody can know what became of it.
    pub(super) fn reborn(&mut self) -> Vec<Asked> {
        let old = std::mem::replace(self, Self::new(false, self.subscriber, 1));
        let mut lost = Vec::new();
        for asked in old.requests {
            if asked.handed || matches!(asked.what, What::Void { .. }) {
                lost.push(asked);
            } else {
                self.push(asked.what, asked.due, asked.trace);
                if let Some(again) = self.requests.back_mut() {
                    again.silent = asked.silent;
                }
            }
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(durable: bool, requests: u64) -> Session {
        let mut session = Session::new(durable, None, 1);
        for _ in 0..requests {
            session.push(What::Void { lock: None }, None, Bytes::new());
        }
        session
    }

    fn send_all(session: &mut Session) -> Vec<u64> {
        let mut sent = Vec::new();
        while let Some(asked) = session.next_to_send() {
            asked.handed = true;
            let seq = asked.seq;
            session.sent(seq);
            sent.push(seq);
        }
        sent
    }

    #[test]
    fn no_more_than_the_window_is_under_way() {
        let mut session = session(false, WINDOW + 10);
        assert_eq!(send_all(&mut session), (1..=WINDOW).collect::<Vec<_>>());
        session.answered(2);
        assert_eq!(send_all(&mut session), [], "1 holds the window");
        session.answered(1);
        assert_eq!(send_all(&mut session), [WINDOW + 1, WINDOW + 2]);
    }

    #[test]
    fn a_gap_is_filled_once_however_often_it_is_told() {
        let mut session = session(false, 5);
        send_all(&mut session);
        assert_eq!(session.gap(1), Gap::Again);
        assert_eq!(send_all(&mut session), [1, 2, 3, 4, 5]);
        assert_eq!(session.gap(1), Gap::Known);
        assert_eq!(send_all(&mut session), []);
        session.answered(1);
        assert_eq!(session.gap(2), Gap::Again);
        assert_eq!(send_all(&mut session), [2, 3, 4, 5]);
    }

    #[test]
    fn a_ledger_that_expects_an_answered_number_has_forgotten_the_session() {
        let mut session = session(false, 5);
        send_all(&mut session);
        session.answered(1);
        session.answered(2);
        assert_eq!(session.gap(1), Gap::Lost);
        let lost = session.reborn();
        assert_eq!(lost.len(), 3);
    }

    #[test]
    fn numbers_that_a_client_left_out_are_used_up() {
        let mut session = Session::new(true, None, 4);
        session.push(What::Void { lock: None }, None, Bytes::new());
        send_all(&mut session);
        assert_eq!(session.gap(2), Gap::Again);
        assert_eq!(send_all(&mut session), [2, 3, 4]);
    }

    #[test]
    fn what_no_origin_was_given_leaves_no_gap_when_it_is_withdrawn() {
        let mut session = session(false, 3);
        session.withdraw(2);
        assert_eq!(send_all(&mut session), [1, 2]);
        session.withdraw(1);
        assert_eq!(
            send_all(&mut session),
            [1, 2],
            "a number that was given is used up"
        );
    }
}
