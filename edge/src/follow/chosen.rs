//! Where a trace begins: which frames of a publisher are chosen, and how they leave.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use model::{EdgeId, OriginId, Position, StreamKey};
use node::telemetry::frames::{KeyValue, Outcome, Passing, Root, figure, hop};
use node::telemetry::{SpanPlace, is_traced};
use tokio::sync::mpsc;

use crate::limits::{TRACES_APART, TRACES_ASKED_MAX};
use crate::shard::PublicationId;

/// How an edge traces frames.
#[derive(Clone, Debug)]
pub(crate) struct Tracing {
    /// What the edge is called.
    pub(crate) edge: EdgeId,
    /// One in so many key frames; 0 is none.
    pub(crate) every: u32,
}

/// An operator wants to see the next key frames of a stream.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// How many.
    pub(crate) frames: u32,
    /// Told the number of each trace.
    pub(crate) tell: mpsc::UnboundedSender<String>,
}

/// Chooses among the key frames of one publish.
#[derive(Debug)]
pub(crate) struct Chooser {
    tracing: Tracing,
    /// Key frames up to and including the next one that is chosen.
    left: u32,
    /// When the last one was that nobody asked for.
    last_regular: Option<Instant>,
    asked: VecDeque<Asked>,
    /// The newest trace.
    last: Option<SpanPlace>,
    /// The newest trace of the owner before, until the next one names it.
    before: Option<SpanPlace>,
}

impl Chooser {
    pub(crate) fn new(tracing: Tracing, publication: PublicationId) -> Self {
        // Streams that begin together are not traced together.
        let phase = publication.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let phase = u32::try_from(phase).unwrap_or_default();
        Self {
            left: phase
                .checked_rem(tracing.every)
                .map_or(0, |phase| phase + 1),
            tracing,
            last_regular: None,
            asked: VecDeque::new(),
            last: None,
            before: None,
        }
    }

    /// An operator asks. Refused if too many others have.
    pub(crate) fn ask(&mut self, asked: Asked) -> bool {
        self.asked.retain(|asked| !asked.tell.is_closed());
        let taken = self.asked.len() < TRACES_ASKED_MAX && asked.frames > 0;
        if taken {
            self.asked.push_back(asked);
        }
        taken
    }

    /// Whether any frame may be chosen, so that it is worth knowing when bytes are read.
    pub(crate) fn is_watching(&self) -> bool {
        (self.tracing.every > 0 || !self.asked.is_empty()) && is_traced()
    }

    /// Whether the next key frame is to be traced. To be asked for each.
    pub(crate) fn chooses(&mut self) -> bool {
        let regular = self.tracing.every > 0 && {
            self.left = self.left.saturating_sub(1);
            self.left == 0
        };
        if regular {
            self.left = self.tracing.every;
        }
        // The publisher says what is a key frame; it does not say how much we trace.
        let regular = regular && {
            let now = Instant::now();
            let early = |last: Instant| now.saturating_duration_since(last) < TRACES_APART;
            let due = !self.last_regular.is_some_and(early);
            if due {
                self.last_regular = Some(now);
            }
            due
        };
        if !self.asked.is_empty() {
            // Who has given up is not waited for.
            self.asked.retain(|asked| !asked.tell.is_closed());
        }
        (regular || !self.asked.is_empty()) && is_traced()
    }

    /// Another origin goes on with the publish: the next trace names the last.
    pub(crate) fn owner_changes(&mut self) {
        self.before = self.last.take().or_else(|| self.before.take());
    }

    /// Begins the trace of a frame that was accepted at a moment.
    pub(crate) fn begin(
        &mut self,
        frame: &Arrived<'_>,
        publish: Option<SpanPlace>,
    ) -> Option<Departure> {
        let Arrived {
            key,
            at,
            bytes,
            read_micros,
            accepted_micros,
        } = *frame;
        let mut about = vec![
            KeyValue::new("selvage.stream.key", key.to_string()),
            KeyValue::new("selvage.edge", self.tracing.edge.to_string()),
            figure("selvage.epoch", at.epoch.0),
            figure("selvage.frame.seq", at.seq),
            figure("selvage.frame.bytes", bytes),
        ];
        let before = self.before.take();
        if before.is_some() {
            about.push(KeyValue::new("selvage.publish.reattached", true));
        }
        let links = before.into_iter().chain(publish);
        let read_micros = read_micros.min(accepted_micros);
        let root = Root::begin(read_micros, about, links)?;
        let place = root.place();
        self.last = Some(place);
        if let Some(asked) = self.asked.front_mut() {
            // Who has asked may have gone meanwhile.
            let _ = asked.tell.send(place.trace_id());
            asked.frames -= 1;
            if asked.frames == 0 {
                self.asked.pop_front();
            }
        }
        let span = (read_micros, accepted_micros);
        let edge = self.tracing.edge.to_string();
        let by = edge_id(edge.clone());
        hop(place, "frame.read", span, by, Outcome::Done);
        Some(Departure {
            edge,
            place,
            read_micros,
            so_far: Mutex::new(SoFar {
                until_micros: accepted_micros,
                sent: None,
                root: Some(root),
            }),
        })
    }
}

/// A frame of a publisher that was accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived<'a> {
    pub(crate) key: &'a StreamKey,
    pub(crate) at: Position,
    pub(crate) bytes: usize,
    /// When its first byte was read.
    pub(crate) read_micros: u64,
    /// When it was.
    pub(crate) accepted_micros: u64,
}

/// A traced frame in its publisher's replay, which may leave more than once.
#[derive(Debug)]
pub(crate) struct Departure {
    edge: String,
    place: SpanPlace,
    read_micros: u64,
    so_far: Mutex<SoFar>,
}

#[derive(Debug)]
struct SoFar {
    /// When it was accepted, or left last.
    until_micros: u64,
    /// How it left last.
    sent: Option<SpanPlace>,
    root: Option<Root>,
}

impl Departure {
    /// It leaves for an origin, with so many commands waiting behind it.
    pub(crate) fn leave(&self, now: u64, origin: &OriginId, waiting: usize) -> Passing {
        let mut so_far = self.so_far.lock().unwrap_or_else(PoisonError::into_inner);
        let (from, to) = (so_far.until_micros, now.max(so_far.until_micros));
        let mut about = edge_id(self.edge.clone());
        about.push(KeyValue::new("selvage.owner", origin.to_string()));
        about.push(figure("selvage.queue.commands", waiting));
        let (name, outcome) = match so_far.sent {
            None => ("frame.edge.queue", Outcome::Done),
            // Its owner was lost, or has changed: it was sent before, perhaps in vain.
            Some(before) => ("frame.edge.resend", Outcome::Again(before)),
        };
        let sent = hop(self.place, name, (from, to), about, outcome);
        so_far.until_micros = to;
        so_far.sent = sent;
        if let Some(root) = so_far.root.take() {
            root.end(to);
        }
        Passing {
            root: self.place,
            read_micros: self.read_micros,
            until_micros: to,
        }
    }
}

fn edge_id(edge: String) -> Vec<KeyValue> {
    vec![KeyValue::new("selvage.edge", edge)]
}

/// A traced frame in a command to an origin.
#[derive(Clone, Debug)]
pub(crate) struct Leaving {
    /// The publication's number on the link.
    pub(crate) id: u32,
    /// The frame's number.
    pub(crate) seq: u64,
    /// The rest.
    pub(crate) departure: Arc<Departure>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chooser(every: u32, publication: u64) -> Chooser {
        let edge = EdgeId::new("edge-0").unwrap();
        Chooser::new(Tracing { edge, every }, PublicationId(publication))
    }

    #[test]
    fn nothing_is_chosen_where_nothing_leaves_the_process() {
        let mut chooser = chooser(1, 1);
        let (tell, _told) = mpsc::unbounded_channel();
        assert!(chooser.ask(Asked { frames: 1, tell }));
        assert!(!chooser.is_watching() && !chooser.chooses());
    }

    #[test]
    fn one_in_so_many_is_due_and_streams_differ_in_which() {
        let due = |publication| {
            let mut chooser = chooser(10, publication);
            let regular = |_: &u32| {
                chooser.chooses();
                chooser.left == 10
            };
            (0..40).filter(regular).collect::<Vec<_>>()
        };
        let mut first = Vec::new();
        for publication in 1..20 {
            let due = due(publication);
            assert_eq!(due.len(), 4);
            assert!(due.windows(2).all(|pair| pair[1] == pair[0] + 10));
            first.push(due[0]);
        }
        first.sort_unstable();
        first.dedup();
        assert!(first.len() > 5, "{first:?}");
    }

    #[test]
    fn those_who_ask_are_few_and_forgotten_when_they_go() {
        let mut chooser = chooser(0, 1);
        let ask = |tell: &mpsc::UnboundedSender<String>| Asked {
            frames: 3,
            tell: tell.clone(),
        };
        let (tell, told) = mpsc::unbounded_channel();
        for _ in 0..TRACES_ASKED_MAX {
            assert!(chooser.ask(ask(&tell)));
        }
        assert!(!chooser.ask(ask(&tell)));
        drop(told);
        let (tell, _told) = mpsc::unbounded_channel();
        assert!(chooser.ask(ask(&tell)));
        assert_eq!(chooser.asked.len(), 1);
    }
}
