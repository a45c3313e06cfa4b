//! A publisher's way to the owning origin.
//!
//! Frames are numbered here and kept in a bounded replay, so that when the link breaks
//! or the origin dies the publish is carried on at another origin without the publisher
//! or the viewers noticing more than a pause. What is sent is bounded by the origin's
//! credit; when the origin does not take it, the publisher's socket is not read, and TCP
//! slows the encoder.

use std::sync::Arc;
use std::time::Instant;

use fabric::Credit;
use media::{Backlog, Cursor, Marks, Read};
use model::{Class, Epoch, Frame, Position, StreamKey};
use node::telemetry::frames::wall_micros;
use node::telemetry::{Kind, Phase, SpanPlace};
use tracing::{debug, info};

use crate::follow::{Arrived, Asked, Chooser, Departure, Leaving};
use crate::limits::{REPLAY_BYTES, REPLAY_TIME_MS, UPLINK_LAG_MAX};
use crate::link::{Command, Grant, LinkId};
use crate::shard::PublicationId;

/// An accepted publish.
pub(crate) struct Uplink {
    publication: PublicationId,
    key: StreamKey,
    /// The span of the wish to publish, and what was published.
    span: Option<SpanPlace>,
    since: Instant,
    frames: u64,
    bytes: u64,
    epoch: Epoch,
    next: u64,
    replay: Backlog,
    cursor: Cursor,
    /// Bytes in the replay that are not sent yet.
    unsent: u64,
    attached: Option<Attached>,
    detached_since: Option<Instant>,
    /// When the oldest unsent frame was read.
    ingest_micros: u64,
    /// Which frames are traced, and those among the replay's that are.
    chooser: Chooser,
    traced: Marks<Arc<Departure>>,
}

struct Attached {
    grant: Grant,
    credit: Credit,
}

impl Uplink {
    /// An uplink that begins with its first grant.
    pub(crate) fn new(
        publication: PublicationId,
        key: StreamKey,
        span: Option<SpanPlace>,
        chooser: Chooser,
        grant: Grant,
    ) -> Self {
        let credit = Credit::new(grant.credit);
        Self {
            epoch: grant.epoch,
            // Not a join: everything from the first frame on is wanted, however much of it
            // the first read brings.
            cursor: Cursor::resume_at(Position {
                epoch: grant.epoch,
                seq: 0,
            }),
            attached: Some(Attached { grant, credit }),
            ..Self::standby(publication, key, span, chooser)
        }
    }

    /// An uplink that stands by for another publisher: its frames are only kept, until
    /// [`Self::incarnate`].
    pub(crate) fn standby(
        publication: PublicationId,
        key: StreamKey,
        span: Option<SpanPlace>,
        chooser: Chooser,
    ) -> Self {
        Self {
            publication,
            key,
            span,
            since: Instant::now(),
            frames: 0,
            bytes: 0,
            epoch: Epoch::default(),
            next: 0,
            replay: replay(),
            cursor: Cursor::join(),
            unsent: 0,
            attached: None,
            detached_since: None,
            ingest_micros: 0,
            chooser,
            traced: Marks::new(),
        }
    }

    /// The publish goes on as a new one, from its newest key frame: it took over from
    /// another, or the ledger had lost sight of the edge and it had to claim the name anew.
    pub(crate) fn incarnate(&mut self, epoch: Epoch, now: Instant) {
        if let Some(old) = self.attached.take() {
            old.grant.decline(true);
        }
        let old = std::mem::replace(&mut self.replay, replay());
        let mut cursor = Cursor::join();
        self.epoch = epoch;
        self.next = 0;
        self.chooser.owner_changes();
        self.traced = Marks::new();
        loop {
            let frame = match old.read(&mut cursor) {
                // What was in force is what a new publish begins with.
                Read::InForce { frame, time, .. } => Frame {
                    time,
                    ..frame.clone()
                },
                Read::Frame(item) => item.frame.clone(),
                Read::Skipped { .. } => continue,
                Read::Pending => break,
            };
            self.next = self.replay.append(epoch, frame).seq + 1;
        }
        if self.next == 0 {
            // Without video a reader joins at the head, behind which there is nothing yet.
            let time = old
                .head()
                .and_then(|at| old.get(at))
                .map(|item| item.frame.time);
            for frame in old.in_force() {
                let frame = Frame {
                    time: time.unwrap_or(frame.time),
                    ..frame.clone()
                };
                self.next = self.replay.append(epoch, frame).seq + 1;
            }
        }
        self.cursor = Cursor::resume_at(Position { epoch, seq: 0 });
        self.unsent = self.replay.bytes() as u64;
        self.ingest_micros = 0;
        self.detached_since = Some(now);
    }

    /// Which publication.
    pub(crate) fn publication(&self) -> PublicationId {
        self.publication
    }

    /// Where the publish stands: its incarnation and the next frame number.
    pub(crate) fn position(&self) -> (Epoch, u64) {
        (self.epoch, self.next)
    }

    /// Since when no origin has held it.
    pub(crate) fn detached_since(&self) -> Option<Instant> {
        self.detached_since
    }

    /// Whether the publisher may be read. While nobody holds the publish it is read on:
    /// the replay keeps the newest frames.
    pub(crate) fn wants_frames(&self) -> bool {
        self.attached.is_none() || self.unsent < UPLINK_LAG_MAX
    }

    /// Takes a frame whose first byte was read then, if that is known: microseconds since 1970,
    /// or 0.
    pub(crate) fn push(&mut self, frame: Frame, read_micros: u64) {
        if self.unsent == 0 {
            self.ingest_micros = wall_micros();
        }
        let bytes = frame.payload.len();
        self.unsent += bytes as u64;
        self.frames += 1;
        self.bytes += bytes as u64;
        // What one sends that stands by goes nowhere yet.
        let stands_by = self.epoch == Epoch::default();
        let chosen = frame.class == Class::Key && !stands_by && self.chooser.chooses();
        let at = self.replay.append(self.epoch, frame);
        self.next = at.seq + 1;
        if chosen {
            self.trace(at, bytes, read_micros);
        }
    }

    fn trace(&mut self, at: Position, bytes: usize, read_micros: u64) {
        let accepted_micros = wall_micros();
        let frame = Arrived {
            key: &self.key,
            at,
            bytes,
            read_micros: match read_micros {
                0 => accepted_micros,
                known => known,
            },
            accepted_micros,
        };
        self.traced.forget_before(self.replay.tail());
        if let Some(departure) = self.chooser.begin(&frame, self.span) {
            self.traced.note(at, Arc::new(departure));
        }
    }

    /// An operator wants to see its next key frames. Says whether it may.
    pub(crate) fn ask_for_traces(&mut self, asked: Asked) -> bool {
        self.epoch != Epoch::default() && self.chooser.ask(asked)
    }

    /// Whether frames of it may be traced.
    pub(crate) fn is_watched(&self) -> bool {
        self.chooser.is_watching()
    }

    /// What it is called.
    pub(crate) fn key(&self) -> &StreamKey {
        &self.key
    }

    /// Sends what the credit allows.
    pub(crate) fn pump(&mut self) {
        let Some(attached) = &mut self.attached else {
            return;
        };
        let mut frames = Vec::new();
        let mut traced = Vec::new();
        let mut bytes = 0;
        while attached.credit.is_open() {
            let id = attached.grant.wire_id;
            let wire = match self.replay.read(&mut self.cursor) {
                Read::InForce { frame, at, .. } => fabric::convert::in_force(id, at.seq, frame),
                Read::Frame(frame) => {
                    if !self.traced.is_empty()
                        && let Some(departure) = self.traced.get(frame.at)
                    {
                        traced.push(Leaving {
                            id,
                            seq: frame.at.seq,
                            departure: departure.clone(),
                        });
                    }
                    fabric::convert::sequenced(id, frame)
                }
                Read::Skipped { frames } => {
                    debug!(stream = %self.key, frames, "the replay did not reach back far enough");
                    continue;
                }
                Read::Pending => {
                    self.unsent = 0;
                    break;
                }
            };
            attached.credit.spend(wire.payload.len());
            if !wire.in_force {
                self.unsent = self.unsent.saturating_sub(wire.payload.len() as u64);
            }
            bytes += wire.payload.len();
            frames.push(wire);
            // One message never carries much more than one frame may have, however much
            // was read at once.
            if bytes >= fabric::BATCH_BYTES || frames.len() >= fabric::BATCH_FRAMES_MAX {
                attached.grant.link.send(Command::Frames {
                    frames: std::mem::take(&mut frames),
                    ingest_micros: self.ingest_micros,
                    traced: std::mem::take(&mut traced),
                });
                bytes = 0;
            }
        }
        if !frames.is_empty() {
            attached.grant.link.send(Command::Frames {
                frames,
                ingest_micros: self.ingest_micros,
                traced,
            });
        }
    }

    /// The origin took bytes.
    pub(crate) fn credit(&mut self, link: LinkId, bytes: u64) {
        if let Some(attached) = &mut self.attached
            && attached.grant.link.id() == link
        {
            attached.credit.give(bytes);
            self.pump();
        }
    }

    /// Another origin, or another link, carries it on.
    pub(crate) fn attach(&mut self, grant: Grant) {
        if grant.epoch != self.epoch {
            // It was asked for before the publish began anew.
            grant.decline(true);
            return;
        }
        if let Some(old) = self.attached.take() {
            old.grant.decline(true);
        }
        self.chooser.owner_changes();
        if let Some(since) = self.detached_since.take() {
            info!(stream = %self.key, pause_ms = since.elapsed().as_millis(), "publish re-attached");
        }
        // An origin that knows the stream continues where it stopped; one that does not
        // gets all that is kept, so that its subscribers find the frame they lack.
        let mut credit = Credit::new(grant.credit);
        let next = match self.replay.tail() {
            Some(tail) if grant.next == 0 => {
                // At frame 0 the cursor itself finds what was in force.
                if tail.seq > 0 {
                    self.prime(&grant, tail.seq, &mut credit);
                }
                tail
            }
            Some(_) | None => Position {
                epoch: self.epoch,
                seq: grant.next,
            },
        };
        self.cursor = Cursor::resume_at(next);
        self.unsent = self.replay.bytes() as u64;
        self.attached = Some(Attached { grant, credit });
        self.pump();
    }

    /// Sends what was in force before the oldest frame of the replay.
    fn prime(&self, grant: &Grant, seq: u64, credit: &mut Credit) {
        let configs = self.replay.in_force_at_tail().iter();
        let frames: Vec<_> = configs
            .map(|frame| fabric::convert::in_force(grant.wire_id, seq, frame))
            .collect();
        if !frames.is_empty() {
            credit.spend(fabric::convert::payload_bytes(&frames));
            grant.link.send(Command::Frames {
                frames,
                ingest_micros: 0,
                traced: Vec::new(),
            });
        }
    }

    /// The link that held it is gone.
    pub(crate) fn detach(&mut self, link: LinkId, now: Instant) {
        // Another link may have taken it over while the news of the loss was under way.
        if self
            .attached
            .as_ref()
            .is_some_and(|attached| attached.grant.link.id() == link)
        {
            self.attached = None;
            self.detached_since = Some(now);
        }
    }

    /// The publisher is done; `why` is a word for it.
    pub(crate) fn unpublish(self, why: &'static str) {
        let mut phase = Phase::child("unpublish", Kind::Server, self.span);
        phase.show("selvage.stream.key", &self.key);
        phase.count("selvage.epoch", self.epoch.0);
        phase.count("selvage.frames", self.frames);
        phase.count("selvage.bytes", self.bytes);
        phase.set("selvage.duration", self.since.elapsed().as_secs_f64());
        phase.set("selvage.reason", why);
        if let Some(Attached { grant, .. }) = self.attached {
            grant.decline(false);
        }
    }
}

fn replay() -> Backlog {
    Backlog::new(media::Limits {
        bytes: REPLAY_BYTES,
        time_ms: REPLAY_TIME_MS,
        ..media::Limits::default()
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use model::{
        AppInstance, AppName, EdgeId, FourCc, InstanceName, Kind, MediaTime, Slot, StreamName,
        VhostName,
    };

    use super::*;
    use crate::follow::Tracing;

    fn frame(class: Class, time: u64) -> Frame {
        Frame {
            kind: Kind::Video,
            class,
            codec: FourCc(*b"avc1"),
            slot: Slot(0),
            time: MediaTime(time),
            payload: Bytes::from_static(&[0x17, 1, 0, 0, 0, 9]),
        }
    }

    #[test]
    fn a_takeover_begins_with_what_is_in_force_and_the_newest_key_frame() {
        let at = AppInstance {
            vhost: VhostName::default_vhost(),
            app: AppName::new("live").unwrap(),
            instance: InstanceName::default_instance(),
        };
        let name = StreamName::new("a").unwrap();
        let key = StreamKey { at, name };
        let tracing = Tracing {
            edge: EdgeId::new("edge-0").unwrap(),
            every: 0,
        };
        let chooser = Chooser::new(tracing, PublicationId(1));
        let mut uplink = Uplink::standby(PublicationId(1), key, None, chooser);
        for (class, time) in [
            (Class::Config, 0),
            (Class::Key, 0),
            (Class::Delta, 40),
            (Class::Key, 80),
            (Class::Delta, 120),
        ] {
            uplink.push(frame(class, time), 0);
        }
        uplink.pump();
        uplink.incarnate(Epoch(7), Instant::now());
        assert_eq!(uplink.position(), (Epoch(7), 3));
        let kept: Vec<_> = (0..3)
            .map(|seq| {
                uplink
                    .replay
                    .get(Position {
                        epoch: Epoch(7),
                        seq,
                    })
                    .unwrap()
            })
            .map(|item| (item.frame.class, item.frame.time.0))
            .collect();
        assert_eq!(
            kept,
            [(Class::Config, 80), (Class::Key, 80), (Class::Delta, 120)]
        );
        uplink.push(frame(Class::Delta, 160), 0);
        assert_eq!(uplink.position(), (Epoch(7), 4));
    }
}
