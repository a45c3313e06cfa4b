//! Open questions: what was handed to the shell and is not answered yet.

use std::collections::BTreeMap;

use rtmp::StreamId;

use crate::command::Transaction;
use crate::error::Misuse;
use crate::event::RequestId;
use crate::limits::OPEN_CALLS_MAX;

/// What a [`RequestId`] stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Asked {
    /// `connect`.
    Connect,
    /// A remote call on this stream, to be answered with this transaction.
    Call(StreamId, Transaction),
    /// `publish` on this stream.
    Publish(StreamId),
    /// `play` on this stream.
    Play(StreamId),
}

/// The open questions of one session. At most one per message stream, one for
/// `connect`, and [`OPEN_CALLS_MAX`] calls.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    next: u64,
    open: BTreeMap<RequestId, Asked>,
    calls: usize,
}

impl Requests {
    /// Opens a question about the connection or one of its streams.
    pub(crate) fn open(&mut self, asked: Asked) -> RequestId {
        let id = RequestId(self.next);
        self.next += 1;
        self.open.insert(id, asked);
        id
    }

    /// Opens a remote call, if one more may be open.
    pub(crate) fn open_call(
        &mut self,
        stream: StreamId,
        transaction: Transaction,
    ) -> Option<RequestId> {
        if self.calls >= OPEN_CALLS_MAX {
            return None;
        }
        self.calls += 1;
        Some(self.open(Asked::Call(stream, transaction)))
    }

    /// What is asked under this id. `None` when it is answered or withdrawn: an answer
    /// may cross the peer's change of mind.
    pub(crate) fn get(&self, id: RequestId) -> Result<Option<Asked>, Misuse> {
        if id.0 >= self.next {
            return Err(Misuse::UnknownRequest(id));
        }
        Ok(self.open.get(&id).copied())
    }

    /// Ends a question: it is answered, or the peer withdrew it.
    pub(crate) fn close(&mut self, id: RequestId) {
        if let Some(Asked::Call(..)) = self.open.remove(&id) {
            self.calls -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answered_question_is_known_and_an_unasked_one_is_not() {
        let mut requests = Requests::default();
        let id = requests.open(Asked::Connect);
        assert_eq!(requests.get(id), Ok(Some(Asked::Connect)));
        requests.close(id);
        assert_eq!(requests.get(id), Ok(None));
        assert_eq!(
            requests.get(RequestId(1)),
            Err(Misuse::UnknownRequest(RequestId(1)))
        );
    }

    #[test]
    fn only_so_many_calls_are_open_at_a_time() {
        let mut requests = Requests::default();
        let transaction = Transaction::new(5.0).unwrap();
        let ids: Vec<_> = (0..OPEN_CALLS_MAX)
            .filter_map(|_| requests.open_call(StreamId(0), transaction))
            .collect();
        assert_eq!(ids.len(), OPEN_CALLS_MAX);
        assert_eq!(requests.open_call(StreamId(0), transaction), None);
        requests.close(ids[0]);
        assert!(requests.open_call(StreamId(0), transaction).is_some());
    }
}
