//! Where a trace ends: a frame at the viewers that are watched for it.

use std::cell::Cell;
use std::rc::Rc;

use media::limits::MARKS_MAX;
use model::Position;
use node::telemetry::frames::{KeyValue, Outcome, Passing, figure, hop, wall_micros};
use rtmp::StreamId;

use crate::metrics::Protocol;

/// A frame that has come to a shard.
#[derive(Debug)]
pub(crate) struct Viewed {
    /// Where it is.
    pub(crate) at: Position,
    /// When it came to the edge.
    pub(crate) passing: Passing,
    /// When the shard's walk came to it, or 0. A viewer whose client speaks meanwhile, or whose
    /// socket has room again, is written to before.
    pub(crate) walked_micros: Cell<u64>,
    /// What the edge is called.
    pub(crate) edge: String,
    /// Which shard.
    pub(crate) shard: usize,
}

impl Viewed {
    /// When it came to whoever reads it now: a span begins where the one before it ended.
    fn came_micros(&self) -> u64 {
        self.walked_micros.get().max(self.passing.until_micros)
    }
}

/// The traced frames that one client is watched for. Empty for nearly everybody.
#[derive(Debug, Default)]
pub(crate) struct Followed(Vec<Follow>);

#[derive(Debug)]
struct Follow {
    viewed: Rc<Viewed>,
    /// The client's number, and how it came.
    client: (u64, Protocol),
    stream: StreamId,
    /// Bytes up to the frame's last that the socket has not taken, once they are queued.
    left: Option<usize>,
    /// Frames that the viewer had still to read, and bytes that waited, when it got the frame.
    lag: (u64, usize),
    /// When the write began, once the frame is queued.
    from_micros: u64,
    over: bool,
}

impl Followed {
    /// Whether no frame is followed here.
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Watches a client for a frame that it plays on a message stream.
    pub(crate) fn follow(&mut self, viewed: Rc<Viewed>, client: (u64, Protocol), stream: StreamId) {
        // A viewer that is so far behind misses what it was watched for first.
        if self.0.len() == MARKS_MAX {
            self.0
                .remove(0)
                .end(Outcome::Failed("the viewer is too far behind"));
        }
        self.0.push(Follow {
            viewed,
            client,
            stream,
            left: None,
            lag: (0, 0),
            from_micros: 0,
            over: false,
        });
    }

    /// The viewer on `stream` has read on, up to `next`, and lags so many frames. What it read
    /// is queued behind `waiting` bytes; `end` says where in it a frame ends.
    pub(crate) fn read(
        &mut self,
        stream: StreamId,
        next: Option<Position>,
        (lag, waiting): (u64, usize),
        end: impl Fn(Position) -> Option<usize>,
    ) {
        let passed = |at: Position| next.is_some_and(|next| next > at);
        self.0.retain_mut(|follow| {
            if follow.stream != stream || follow.left.is_some() || !passed(follow.viewed.at) {
                return true;
            }
            follow.lag = (lag, waiting);
            follow.from_micros = follow.viewed.came_micros();
            match end(follow.viewed.at) {
                Some(end) => {
                    follow.left = Some(waiting + end);
                    true
                }
                None => {
                    follow.close(Outcome::Failed("the viewer skipped the frame"));
                    false
                }
            }
        });
    }

    /// The client has taken so many bytes of what waited.
    pub(crate) fn written(&mut self, bytes: usize) {
        self.0.retain_mut(|follow| match follow.left {
            Some(left) if left <= bytes => {
                follow.close(Outcome::Done);
                false
            }
            Some(left) => {
                follow.left = Some(left - bytes);
                true
            }
            None => true,
        });
    }

    /// The client plays on `stream` no more: what it has not read it will never read.
    pub(crate) fn play_ends(&mut self, stream: StreamId) {
        self.0
            .retain(|follow| follow.stream != stream || follow.left.is_some());
    }

    /// What the client wants of a stream has changed: it is watched no more for what it has
    /// not read.
    pub(crate) fn let_go(&mut self, stream: StreamId) {
        self.0.retain_mut(|follow| {
            let stays = follow.stream != stream || follow.left.is_some();
            follow.over |= !stays;
            stays
        });
    }
}

impl Follow {
    fn end(mut self, outcome: Outcome) {
        self.close(outcome);
    }

    fn close(&mut self, outcome: Outcome) {
        self.over = true;
        let Viewed {
            passing,
            edge,
            shard,
            ..
        } = &*self.viewed;
        let now = wall_micros();
        let about = vec![
            KeyValue::new("selvage.edge", edge.clone()),
            figure("selvage.shard", *shard),
            figure("selvage.viewer.client", self.client.0),
            KeyValue::new("network.protocol.name", self.client.1.name()),
            figure("selvage.viewer.lag.frames", self.lag.0),
            figure("selvage.viewer.waiting.bytes", self.lag.1),
            figure(
                "selvage.frame.delay_us",
                now.saturating_sub(passing.read_micros),
            ),
        ];
        let from = match self.from_micros {
            0 => self.viewed.came_micros(),
            queued => queued,
        };
        let span = (from, now);
        hop(passing.root, "frame.viewer.write", span, about, outcome);
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        if !self.over {
            self.close(Outcome::Failed("the viewer left"));
        }
    }
}

#[cfg(test)]
mod tests {
    use model::Epoch;
    use node::telemetry::SpanPlace;

    use super::*;

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn at(seq: u64) -> Position {
        let epoch = Epoch(1);
        Position { epoch, seq }
    }

    fn follow(followed: &mut Followed, seq: u64) {
        let passing = Passing {
            root: SpanPlace::parse(TRACE.as_bytes()).unwrap(),
            read_micros: 1,
            until_micros: 2,
        };
        let viewed = Rc::new(Viewed {
            at: at(seq),
            passing,
            walked_micros: Cell::new(0),
            edge: "edge-0".into(),
            shard: 0,
        });
        followed.follow(viewed, (7, Protocol::Rtmp), StreamId(1));
    }

    fn left(followed: &Followed) -> Vec<Option<usize>> {
        followed.0.iter().map(|follow| follow.left).collect()
    }

    #[test]
    fn a_frame_is_written_with_its_own_last_byte() {
        let mut followed = Followed::default();
        follow(&mut followed, 5);
        followed.read(StreamId(1), Some(at(5)), (0, 100), |_| None);
        assert_eq!(left(&followed), [None], "it is not read yet");
        followed.read(StreamId(2), Some(at(9)), (0, 100), |_| None);
        assert_eq!(left(&followed), [None], "another stream");
        followed.read(StreamId(1), Some(at(8)), (0, 100), |_| Some(50));
        assert_eq!(left(&followed), [Some(150)]);
        followed.written(149);
        assert_eq!(left(&followed), [Some(1)]);
        followed.written(1);
        assert!(followed.is_empty());
    }

    #[test]
    fn who_skips_a_frame_or_lags_too_far_is_watched_no_more() {
        let mut followed = Followed::default();
        follow(&mut followed, 5);
        followed.read(StreamId(1), Some(at(60)), (0, 0), |_| None);
        assert!(followed.is_empty());
        for seq in 0..10 {
            follow(&mut followed, seq);
        }
        assert_eq!(followed.0.len(), MARKS_MAX);
        followed.let_go(StreamId(1));
        assert!(followed.is_empty());
        follow(&mut followed, 5);
        followed.play_ends(StreamId(2));
        assert!(!followed.is_empty(), "another stream");
        followed.play_ends(StreamId(1));
        assert!(followed.is_empty());
    }
}
