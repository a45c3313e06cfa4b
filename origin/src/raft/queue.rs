//! What waits to be sent on one stream.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use fabric::limits::{LEDGER_BATCH_BYTES, LEDGER_MESSAGES_MAX};
use tokio::sync::{Notify, watch};

/// Messages in order, bounded in bytes and in number. Clones are the same queue.
#[derive(Clone, Debug)]
pub(crate) struct Queue(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    changed: Notify,
    ended: watch::Sender<bool>,
    bytes_max: usize,
    count_max: usize,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Bytes>,
    bytes: usize,
    /// Nothing more will come, and this is why.
    end: Option<End>,
}

/// Why a queue has ended.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// All is said, once what waits is sent.
    Finished,
    /// At once.
    Broken(tonic::Status),
}

/// There is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Queue {
    pub(crate) fn new(bytes_max: usize, count_max: usize) -> Self {
        Self(Arc::new(Inner {
            state: Mutex::default(),
            changed: Notify::new(),
            ended: watch::Sender::new(false),
            bytes_max,
            count_max,
        }))
    }

    /// Adds a message. What has ended takes everything and keeps nothing.
    pub(crate) fn push(&self, message: Bytes) -> Result<(), Full> {
        {
            let mut state = self.lock();
            if state.end.is_some() {
                return Ok(());
            }
            let full = state.bytes.saturating_add(message.len()) > self.0.bytes_max
                || state.waiting.len() >= self.0.count_max;
            if full && !state.waiting.is_empty() {
                return Err(Full);
            }
            state.bytes += message.len();
            state.waiting.push_back(message);
        }
        self.0.changed.notify_one();
        Ok(())
    }

    /// Forgets what waits: whom it was for is not there any more.
    pub(crate) fn clear(&self) {
        let mut state = self.lock();
        state.waiting.clear();
        state.bytes = 0;
    }

    /// Ends it. The first end counts.
    pub(crate) fn end(&self, how: End) {
        self.lock().end.get_or_insert(how);
        self.0.changed.notify_one();
        self.0.ended.send_replace(true);
    }

    /// Resolves when it has ended.
    pub(crate) async fn ended(&self) {
        let mut ended = self.0.ended.subscribe();
        // The sender is here, so it does not close.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// All that waits, as far as it fits into one message on the wire. `None` at the end.
    pub(crate) async fn next(&self) -> Option<Result<Vec<Bytes>, tonic::Status>> {
        loop {
            {
                let mut state = self.lock();
                if let Some(End::Broken(status)) = &state.end {
                    let status = status.clone();
                    state.waiting.clear();
                    state.end = Some(End::Finished);
                    return Some(Err(status));
                }
                let batch = state.batch();
                if !batch.is_empty() {
                    return Some(Ok(batch));
                }
                if state.end.is_some() {
                    return None;
                }
            }
            self.0.changed.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn batch(&mut self) -> Vec<Bytes> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(next) = self.waiting.front()
            && (batch.is_empty()
                || bytes + next.len() <= LEDGER_BATCH_BYTES && batch.len() < LEDGER_MESSAGES_MAX)
            && let Some(next) = self.waiting.pop_front()
        {
            bytes += next.len();
            self.bytes = self.bytes.saturating_sub(next.len());
            batch.push(next);
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_waits_leaves_together_and_in_order() {
        let queue = Queue::new(1000, 10);
        for byte in 0..5u8 {
            queue.push(Bytes::from(vec![byte])).unwrap();
        }
        let batch = queue.next().await.unwrap().unwrap();
        assert_eq!(batch.concat(), [0, 1, 2, 3, 4]);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_one_message_always_fits() {
        let queue = Queue::new(10, 3);
        queue.push(Bytes::from(vec![0; 50])).unwrap();
        assert_eq!(queue.push(Bytes::from_static(b"x")), Err(Full));
        assert_eq!(queue.next().await.unwrap().unwrap().len(), 1);
        for _ in 0..3 {
            queue.push(Bytes::from_static(b"x")).unwrap();
        }
        assert_eq!(queue.push(Bytes::from_static(b"x")), Err(Full));
    }

    #[tokio::test]
    async fn a_finished_queue_is_sent_to_its_end_and_a_broken_one_is_not() {
        let queue = Queue::new(10, 3);
        queue.push(Bytes::from_static(b"x")).unwrap();
        queue.end(End::Finished);
        assert!(queue.next().await.unwrap().is_ok());
        assert!(queue.next().await.is_none());

        let queue = Queue::new(10, 3);
        queue.push(Bytes::from_static(b"x")).unwrap();
        queue.end(End::Broken(tonic::Status::unavailable("gone")));
        assert!(queue.next().await.unwrap().is_err());
        assert!(queue.next().await.is_none());
    }
}
