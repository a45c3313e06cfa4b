//! The writing half of a link: answers first, then batches of whatever the subscriptions
//! have to read.
//!
//! It is pulled by the transport: while an edge's window is closed nothing is read and
//! nothing is assembled, and what piles up meanwhile is in the backlogs.

use std::collections::VecDeque;
use std::sync::Arc;

use fabric::v1::source::State;
use fabric::v1::{self, ToEdge, to_edge::Body};
use fabric::{BATCH_BYTES, BATCH_FRAMES_MAX, convert};
use model::{Epoch, Frame, OriginId, Sequenced};
use node::telemetry::SpanPlace;
use node::telemetry::frames::{KeyValue, Passing, figure, wall_micros};
use tokio_stream::Stream;
use tonic::Status;

use crate::hub::{Cell, Hub};
use crate::limits::{FRAME_OVERHEAD, QUANTUM};
use crate::outbox::{End, Next, Outbox};
use crate::stream::{LinkId, OnLink, Sink, Turn, Wake as _};

/// See the [module](self).
pub(super) struct Writer {
    id: OriginId,
    hub: Arc<Hub>,
    link: LinkId,
    outbox: Arc<Outbox>,
    assembly: Assembly,
    done: bool,
}

impl Writer {
    pub(super) fn new(id: OriginId, hub: Arc<Hub>, link: LinkId, outbox: Arc<Outbox>) -> Self {
        Self {
            id,
            hub,
            link,
            outbox,
            assembly: Assembly::default(),
            done: false,
        }
    }

    pub(super) fn into_stream(self) -> impl Stream<Item = Result<ToEdge, Status>> + Send {
        futures_util::stream::unfold(self, |mut writer| async move {
            let next = writer.next().await?;
            Some((next, writer))
        })
    }

    /// The next message, or None after the end.
    async fn next(&mut self) -> Option<Result<ToEdge, Status>> {
        while !self.done {
            if let Some(mut body) = self.assembly.out.pop_front() {
                if let Body::Frames(batch) = &mut body
                    && !batch.traces.is_empty()
                {
                    self.passes(batch);
                }
                return Some(Ok(ToEdge { body: Some(body) }));
            }
            match self.outbox.next() {
                Next::Control(body) => return Some(Ok(ToEdge { body: Some(body) })),
                Next::Read(id, cell) => self.assemble(id, cell),
                Next::Nothing => self.outbox.filled().await,
                Next::End(End::Closed) => self.done = true,
                Next::End(End::Error(error)) => {
                    self.done = true;
                    return Some(Err(error.into()));
                }
                Next::End(End::Broken(status)) => {
                    self.done = true;
                    return Some(Err(status));
                }
            }
        }
        None
    }

    /// A batch with traced frames goes into the transport.
    fn passes(&mut self, batch: &mut v1::Frames) {
        let now = wall_micros();
        let edge = self.hub.edge_of(self.link);
        let edge = edge.map_or_else(String::new, |edge| edge.to_string());
        for trace in &mut batch.traces {
            let Some((mut passing, behind)) = self.assembly.traced.pop_front() else {
                return;
            };
            passing.pass(
                "frame.origin.backlog",
                now,
                vec![
                    KeyValue::new("selvage.owner", self.id.to_string()),
                    KeyValue::new("selvage.edge", edge.clone()),
                    figure("selvage.queue.frames", behind),
                    figure("selvage.queue.batches", self.assembly.out.len()),
                ],
            );
            trace.until_micros = passing.until_micros;
        }
    }

    /// Reads from one ready subscription after the other until a batch is full or none is
    /// left. One that has more goes to the end of the row.
    fn assemble(&mut self, id: u32, cell: Arc<Cell>) {
        let mut next = Some((id, cell));
        while let Some((id, cell)) = next {
            let by = OnLink {
                link: self.link,
                id,
            };
            match self.hub.read(&cell, by, QUANTUM, &mut self.assembly) {
                Turn::More => self.outbox.ready(id),
                Turn::Done => {}
            }
            next = if self.assembly.is_full() {
                None
            } else {
                self.outbox.next_ready()
            };
        }
        self.assembly.finish();
        let counters = self.hub.counters();
        let counted = std::mem::take(&mut self.assembly.counted);
        counters.frames_out.add(counted.frames);
        counters.bytes_out.add(counted.bytes);
        counters.frames_skipped.add(counted.skipped);
        counters.batches_out.add(counted.batches);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.outbox.end(End::Closed);
    }
}

/// Messages in the making.
#[derive(Default)]
struct Assembly {
    /// Whole messages, in order.
    out: VecDeque<Body>,
    /// The batch that is open.
    frames: Vec<v1::Frame>,
    /// Those among them that are traced.
    traces: Vec<v1::FrameTrace>,
    /// All that are traced and not sent, and how many frames were behind each.
    traced: VecDeque<(Passing, u64)>,
    /// The oldest time of receipt in it, as far as known.
    ingest_micros: u64,
    /// What was read since the transport asked, about as it is on the wire.
    size: usize,
    counted: Counted,
}

#[derive(Default)]
struct Counted {
    frames: u64,
    bytes: u64,
    skipped: u64,
    batches: u64,
}

/// Messages assembled before the transport is asked again: when a thousand subscriptions
/// are told the same at once, they do not wait here.
const MESSAGES_MAX: usize = 64;

impl Assembly {
    fn is_full(&self) -> bool {
        self.size >= BATCH_BYTES
            || self.frames.len() >= BATCH_FRAMES_MAX
            || self.out.len() >= MESSAGES_MAX
    }

    fn push(&mut self, frame: v1::Frame) {
        self.counted.frames += 1;
        self.counted.bytes += frame.payload.len() as u64;
        self.size += frame.payload.len() + FRAME_OVERHEAD;
        self.frames.push(frame);
    }

    fn close_batch(&mut self) {
        if !self.frames.is_empty() {
            let frames = std::mem::take(&mut self.frames);
            let ingest_micros = std::mem::take(&mut self.ingest_micros);
            self.counted.batches += 1;
            self.out.push_back(Body::Frames(v1::Frames {
                frames,
                ingest_micros,
                traces: std::mem::take(&mut self.traces),
            }));
        }
    }

    fn tell_source(&mut self, source: v1::Source) {
        // It is in order with the frames, so what was read before it goes before it.
        self.close_batch();
        self.out.push_back(Body::Source(source));
    }

    fn finish(&mut self) {
        self.close_batch();
        self.size = 0;
    }
}

impl Sink for Assembly {
    fn published(&mut self, id: u32, epoch: Epoch, began: Epoch, trace: Option<SpanPlace>) {
        self.tell_source(v1::Source {
            id,
            state: State::Published.into(),
            epoch: epoch.0,
            began: began.0,
            traceparent: trace.map_or_else(String::new, |place| place.text()),
        });
    }

    fn source(&mut self, id: u32, state: State, epoch: Epoch) {
        self.tell_source(v1::Source {
            id,
            state: state.into(),
            epoch: epoch.0,
            ..v1::Source::default()
        });
    }

    fn in_force(&mut self, id: u32, seq: u64, frame: &Frame) {
        self.push(convert::in_force(id, seq, frame));
    }

    fn frame(&mut self, id: u32, frame: &Sequenced, ingest_micros: u64) {
        self.ingest_micros = match (self.ingest_micros, ingest_micros) {
            (0, known) | (known, 0) => known,
            (one, other) => one.min(other),
        };
        self.push(convert::sequenced(id, frame));
    }

    fn traced(&mut self, id: u32, frame: &Sequenced, passing: &Passing, behind: u64) {
        self.traces.push(v1::FrameTrace {
            id,
            seq: frame.at.seq,
            traceparent: passing.root.text(),
            read_micros: passing.read_micros,
            until_micros: passing.until_micros,
        });
        self.traced.push_back((*passing, behind));
    }

    fn skipped(&mut self, _id: u32, frames: u64) {
        self.counted.skipped += frames;
    }
}
