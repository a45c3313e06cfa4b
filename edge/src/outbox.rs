//! Bytes on their way to one client.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

use crate::limits::WRITE_SLICES;

/// A queue of shared byte strings, the first of which may be partly written.
#[derive(Default)]
pub(crate) struct Outbox {
    queue: VecDeque<Bytes>,
    len: usize,
}

impl Outbox {
    /// Bytes queued.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is queued.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether one vectored write can take no more than what is queued.
    pub(crate) fn fills_a_write(&self) -> bool {
        self.queue.len() >= WRITE_SLICES
    }

    /// Queues bytes.
    pub(crate) fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.len += bytes.len();
            self.queue.push_back(bytes);
        }
    }

    /// The front of the queue as slices for one vectored write; gives how many.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; WRITE_SLICES]) -> usize {
        let mut count = 0;
        for (slot, bytes) in slices.iter_mut().zip(&self.queue) {
            *slot = IoSlice::new(bytes);
            count += 1;
        }
        count
    }

    /// Forgets what was written.
    pub(crate) fn advance(&mut self, mut written: usize) {
        self.len = self.len.saturating_sub(written);
        while let Some(front) = self.queue.front_mut() {
            if written < front.len() {
                front.advance(written);
                return;
            }
            written -= front.len();
            self.queue.pop_front();
        }
        // A join leaves room for a whole group of pictures behind; most viewers need a
        // handful of slots afterwards.
        if self.queue.capacity() > WRITE_SLICES {
            self.queue.shrink_to(8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_forgotten_at_any_cut() {
        let all: Vec<u8> = (0..=255).collect();
        for step in 1..40 {
            let mut outbox = Outbox::default();
            for part in all.chunks(7) {
                outbox.push(Bytes::copy_from_slice(part));
            }
            outbox.push(Bytes::new());
            let mut seen = Vec::new();
            while !outbox.is_empty() {
                let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
                let count = outbox.slices(&mut slices);
                let flat: Vec<u8> = slices[..count]
                    .iter()
                    .flat_map(|s| s.iter().copied())
                    .take(step)
                    .collect();
                seen.extend_from_slice(&flat);
                outbox.advance(flat.len());
            }
            assert_eq!(seen, all);
            assert_eq!(outbox.len(), 0);
        }
    }
}
