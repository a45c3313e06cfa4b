//! One who watches a stream: a cursor, a credit, and what it was told.

use std::collections::VecDeque;
use std::sync::Arc;

use fabric::Credit;
use fabric::v1::source::State;
use media::{Cursor, Read};
use model::{Epoch, Position};

use super::incarnation::{End, Incarnation};
use super::{Sink, Turn, Wake};
use crate::limits::FRAME_OVERHEAD;

pub(super) struct Subscriber {
    pub(super) wake: Arc<dyn Wake>,
    /// It was woken and has not read since.
    pub(super) queued: bool,
    pub(super) credit: Credit,
    pub(super) told: Told,
    pub(super) place: Place,
    /// The first frame it lacks of the epoch it saw last.
    pub(super) next: Option<Position>,
}

/// What it was told last about the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    Published(Epoch),
    Vacant,
}

/// Where it is in the row of incarnations.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// It waits for, or is about to begin, the incarnation with this serial number.
    Before {
        serial: u64,
        /// It watched before that incarnation had its first frame, so it gets all of it.
        witness: bool,
    },
    /// It reads this incarnation.
    In { serial: u64, cursor: Cursor },
}

impl Subscriber {
    pub(super) const fn serial(&self) -> u64 {
        match self.place {
            Place::Before { serial, .. } | Place::In { serial, .. } => serial,
        }
    }

    pub(super) fn ring(&mut self, id: u32) {
        if !self.queued {
            self.queued = true;
            self.wake.ready(id);
        }
    }

    /// Reads on. Also says whether it left an incarnation behind.
    pub(super) fn read(
        &mut self,
        id: u32,
        incarnations: &VecDeque<Incarnation>,
        first: u64,
        quantum: usize,
        sink: &mut impl Sink,
    ) -> (Turn, bool) {
        let at = |serial: u64| {
            let index = serial.checked_sub(first)?;
            incarnations.get(usize::try_from(index).ok()?)
        };
        let mut read = 0;
        let mut left_one = false;
        loop {
            match &mut self.place {
                Place::Before { serial, witness } => {
                    // What it never began and what is gone is nothing to it.
                    if *serial < first {
                        (*serial, *witness) = (first, true);
                    }
                    let Some(incarnation) = at(*serial) else {
                        if self.told == Told::Nothing {
                            sink.source(id, State::Waiting, Epoch(0));
                            self.told = Told::Vacant;
                        }
                        return (Turn::Done, left_one);
                    };
                    let epoch = incarnation.epoch;
                    let cursor = match self.next {
                        Some(next) if next.epoch == epoch => Cursor::resume_at(next),
                        Some(_) | None if *witness => incarnation.birth.clone(),
                        Some(_) | None => Cursor::join(),
                    };
                    self.place = Place::In {
                        serial: *serial,
                        cursor,
                    };
                    if self.told != Told::Published(epoch) {
                        sink.published(id, epoch, incarnation.began, incarnation.trace);
                        self.told = Told::Published(epoch);
                    }
                }
                Place::In { serial, cursor } => {
                    let Some(incarnation) = at(*serial) else {
                        // It lagged by whole publishes. There is nothing to count: what it
                        // lost is gone.
                        self.leave(id, End::Unpublished, sink);
                        left_one = true;
                        continue;
                    };
                    if !self.credit.is_open() {
                        return (Turn::Done, left_one);
                    }
                    if read >= quantum {
                        return (Turn::More, left_one);
                    }
                    let bytes = match incarnation.backlog.read(cursor) {
                        Read::InForce { frame, at, .. } => {
                            sink.in_force(id, at.seq, frame);
                            frame.payload.len()
                        }
                        Read::Frame(frame) => {
                            sink.frame(id, frame, incarnation.ingest_micros(frame.at.seq));
                            if !incarnation.traced.is_empty()
                                && let Some(passing) = incarnation.traced.get(frame.at)
                            {
                                let behind = cursor.lag_frames(&incarnation.backlog);
                                sink.traced(id, frame, passing, behind);
                            }
                            frame.frame.payload.len()
                        }
                        Read::Skipped { frames } => {
                            sink.skipped(id, frames);
                            0
                        }
                        Read::Pending => match incarnation.end {
                            None => return (Turn::Done, left_one),
                            Some(end) => {
                                self.leave(id, end, sink);
                                left_one = true;
                                continue;
                            }
                        },
                    };
                    self.credit.spend(bytes);
                    read += bytes + FRAME_OVERHEAD;
                }
            }
        }
    }

    fn leave(&mut self, id: u32, end: End, sink: &mut impl Sink) {
        let Place::In { serial, cursor } = &self.place else {
            return;
        };
        let next = cursor.next();
        self.place = Place::Before {
            serial: serial + 1,
            witness: true,
        };
        if next.is_some() {
            self.next = next;
        }
        let state = match end {
            End::Unpublished => State::Unpublished,
            End::Moved => State::Moved,
            // The one who took its place is told instead.
            End::Superseded => return,
        };
        let epoch = match self.told {
            Told::Published(epoch) => epoch,
            Told::Nothing | Told::Vacant => Epoch(0),
        };
        sink.source(id, state, epoch);
        self.told = Told::Vacant;
    }
}
