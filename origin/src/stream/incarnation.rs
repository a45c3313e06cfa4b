//! One publish of a stream, from its grant to its end.

use std::collections::VecDeque;

use fabric::Arrival;
use media::{Backlog, Cursor, Marks, Pushed};
use model::{Epoch, Position};
use node::telemetry::SpanPlace;
use node::telemetry::frames::Passing;

use super::Taken;
use fabric::convert::owned;

use crate::limits::INGEST_TIMES_MAX;

/// How a publish ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The publisher left.
    Unpublished,
    /// It goes on at another origin.
    Moved,
    /// Another took its place.
    Superseded,
}

#[derive(Debug)]
pub(super) struct Incarnation {
    pub(super) epoch: Epoch,
    /// The epoch from which on it is one stream to its viewers.
    pub(super) began: Epoch,
    /// Where the publish stands in a trace.
    pub(super) trace: Option<SpanPlace>,
    pub(super) backlog: Backlog,
    /// The frames among them that are traced.
    pub(super) traced: Marks<Passing>,
    /// None while it goes on.
    pub(super) end: Option<End>,
    /// A cursor that saw the backlog when it was empty: for those who watched before.
    pub(super) birth: Cursor,
    /// When batches were received from the publisher: the first frame's number and the
    /// time in microseconds since 1970, oldest first.
    ///
    /// A batch's time stands for all of its frames. It is that of its oldest frame, so a
    /// measured latency is never too small.
    ingest: VecDeque<(u64, u64)>,
}

impl Incarnation {
    pub(super) fn new(
        epoch: Epoch,
        began: Epoch,
        trace: Option<SpanPlace>,
        limits: media::Limits,
    ) -> Self {
        let backlog = Backlog::new(limits);
        let mut birth = Cursor::join();
        // A cursor's place in time is where it was first read with.
        let _ = backlog.read(&mut birth);
        Self {
            epoch,
            began,
            trace,
            backlog,
            traced: Marks::new(),
            end: None,
            birth,
            ingest: VecDeque::new(),
        }
    }

    /// The first frame number that is lacking.
    pub(super) fn next(&self) -> u64 {
        self.backlog
            .head()
            .map_or(0, |head| head.seq.saturating_add(1))
    }

    pub(super) fn append(
        &mut self,
        frames: impl IntoIterator<Item = Arrival>,
        ingest_micros: u64,
    ) -> Taken {
        let mut taken = Taken::default();
        let mut first = None;
        for arrival in frames {
            match arrival {
                Arrival::InForce { seq, frame } => {
                    let at = Position {
                        epoch: self.epoch,
                        seq,
                    };
                    self.backlog.prime_at(at, owned(frame));
                }
                Arrival::Numbered { seq, frame } => {
                    let at = Position {
                        epoch: self.epoch,
                        seq,
                    };
                    let bytes = frame.payload.len() as u64;
                    match self.backlog.push(at, owned(frame)) {
                        Ok(Pushed::Appended | Pushed::Restarted) => {
                            taken.frames += 1;
                            taken.bytes += bytes;
                            first.get_or_insert(seq);
                        }
                        // The epoch is our own, so nothing can have superseded it.
                        Ok(Pushed::Duplicate) | Err(_) => taken.duplicates += 1,
                    }
                }
            }
        }
        self.traced.forget_before(self.backlog.tail());
        if let Some(first) = first
            && ingest_micros != 0
        {
            if self.ingest.len() == INGEST_TIMES_MAX {
                self.ingest.pop_front();
            }
            self.ingest.push_back((first, ingest_micros));
        }
        taken
    }

    /// When a frame's batch was received from the publisher; 0 if that is not known any
    /// more. Constant for readers near the head.
    pub(super) fn ingest_micros(&self, seq: u64) -> u64 {
        match self.ingest.back() {
            Some(&(first, micros)) if first <= seq => micros,
            Some(_) => {
                let behind = self.ingest.partition_point(|&(first, _)| first <= seq);
                behind
                    .checked_sub(1)
                    .and_then(|at| self.ingest.get(at))
                    .map_or(0, |&(_, m)| m)
            }
            None => 0,
        }
    }

    pub(super) fn shed(&mut self) {
        let in_force = self.backlog.in_force().to_vec();
        self.backlog.end();
        for frame in in_force {
            self.backlog.prime(frame);
        }
    }
}
