//! The backlog against a reference that keeps everything and searches it from the front.

use std::collections::VecDeque;

use crate::publisher::{Dice, Publisher};
use media::limits::FRAME_COST;
use media::{Backlog, Cursor, JoinAt, Limits, PushError, Pushed, Read};
use model::{Class, Epoch, Frame, Kind, MediaTime, Position, Sequenced};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, RngSeed};
use selvage_media as media;

/// A run, with nothing ever dropped.
#[derive(Default)]
struct Reference {
    epoch: Epoch,
    base: Vec<Frame>,
    run: usize,
    frames: Vec<Sequenced>,
    /// How many of `frames` are gone.
    gone: usize,
    ended: Option<Position>,
}

impl Reference {
    /// The configurations in force behind the first `count` frames.
    fn in_force(&self, count: usize) -> Vec<Frame> {
        let mut set: Vec<Frame> = Vec::new();
        let frames = self.frames[..count].iter().map(|item| &item.frame);
        for frame in self.base.iter().chain(frames) {
            if matches!(frame.class, Class::Config | Class::Clear) {
                set.retain(|old| (old.kind, old.slot) != (frame.kind, frame.slot));
            }
            if frame.class == Class::Config {
                set.push(frame.clone());
            }
        }
        let mut ordered = Vec::new();
        for kind in [Kind::Data, Kind::Video, Kind::Audio] {
            ordered.extend(set.iter().filter(|frame| frame.kind == kind).cloned());
        }
        ordered
    }

    fn kept(&self) -> &[Sequenced] {
        &self.frames[self.gone..]
    }

    fn restart(&mut self, epoch: Epoch, base: Vec<Frame>) {
        self.ended = self.frames.last().map(|item| item.at).or(self.ended);
        let run = self.run + 1;
        *self = Self {
            epoch,
            base,
            run,
            ended: self.ended,
            ..Self::default()
        };
    }

    fn push(&mut self, at: Position, frame: Frame, base: Vec<Frame>, limits: &Limits) {
        let follows = self
            .frames
            .last()
            .is_some_and(|last| last.at.epoch == at.epoch && last.at.seq + 1 == at.seq);
        if !follows {
            self.restart(at.epoch, base);
        }
        self.frames.push(Sequenced { at, frame });
        let costs: Vec<usize> = (self.gone..self.frames.len())
            .map(|index| {
                let frame = &self.frames[index].frame;
                let set = if frame.class == Class::Config {
                    self.in_force(index + 1).len()
                } else {
                    0
                };
                FRAME_COST + frame.payload.len() + set * size_of::<Frame>()
            })
            .collect();
        let mut total: usize = costs.iter().sum();
        for cost in costs {
            let kept = self.kept();
            let head = kept.last().unwrap();
            let age = head.frame.time.0.saturating_sub(kept[0].frame.time.0);
            let needed = self.join_point().is_some_and(|key| key.at <= kept[0].at);
            let over = total > limits.bytes || kept.len() > limits.frames;
            let stale = age > limits.time_ms && !needed;
            if kept.len() == 1 || !(over || stale) {
                break;
            }
            total -= cost;
            self.gone += 1;
        }
    }

    /// The newest key frame of the least track.
    fn join_point(&self) -> Option<&Sequenced> {
        let keys = || {
            self.kept()
                .iter()
                .filter(|item| item.frame.class == Class::Key)
        };
        let track = keys().map(|item| item.frame.slot).min()?;
        keys().rfind(|item| item.frame.slot == track)
    }

    fn video_is_live(&self, limits: &Limits) -> bool {
        let video = |frame: &&Frame| frame.kind == Kind::Video && frame.class != Class::Clear;
        let Some(head) = self.frames.last() else {
            return false;
        };
        let primed = self
            .base
            .iter()
            .find(video)
            .map(|_| self.frames[0].frame.time);
        let last = self
            .frames
            .iter()
            .map(|item| &item.frame)
            .rfind(video)
            .map(|frame| frame.time);
        last.or(primed).is_some_and(|MediaTime(last)| {
            head.frame.time.0.saturating_sub(last) <= limits.video_silence_ms
        })
    }
}

/// A reader of the reference, which only joins: live, or behind `next`.
struct Reader {
    next: Option<Position>,
    /// The run in which it was seen first or joined last.
    run: Option<usize>,
    exactly: bool,
    join_at: JoinAt,
    waiting: VecDeque<Got>,
}

/// What was read, as values.
#[derive(Clone, Debug, PartialEq)]
enum Got {
    InForce(Frame, Position, MediaTime),
    Frame(Sequenced),
    Skipped(u64),
    Pending,
}

impl Reader {
    /// Everything it can read now.
    fn drain(&mut self, reference: &Reference, limits: &Limits) -> Vec<Got> {
        let run = *self.run.get_or_insert(reference.run);
        let mut got = Vec::new();
        if let Some(tail) = reference.kept().first() {
            let here = self.next.filter(|next| next.epoch == reference.epoch);
            let end = reference.frames.last().unwrap().at.seq + 1;
            let early = self.next.is_some_and(|next| next.epoch > reference.epoch)
                || here.is_some_and(|next| next.seq > end);
            let follows = here.is_some_and(|next| self.exactly && tail.at.seq <= next.seq);
            let at_start = here.is_some_and(|next| next.seq == 0);
            if !early && (!follows || at_start) {
                self.join(reference, limits, here, run < reference.run, end);
            }
        }
        got.extend(self.waiting.drain(..));
        let tail = reference.kept().first().map(|item| item.at);
        let placed = |next: &Position| self.exactly && tail.is_some_and(|tail| tail <= *next);
        if let Some(next) = self.next.filter(placed) {
            for item in reference.kept().iter().filter(|item| item.at >= next) {
                got.push(Got::Frame(item.clone()));
                self.next = Some(Position {
                    seq: item.at.seq + 1,
                    ..item.at
                });
            }
        }
        got.push(Got::Pending);
        got
    }

    fn join(
        &mut self,
        reference: &Reference,
        limits: &Limits,
        here: Option<Position>,
        present: bool,
        end: u64,
    ) {
        let (tail, head) = (&reference.kept()[0], reference.frames.last().unwrap());
        let floor = here.map_or(0, |next| next.seq);
        let start = || (tail.at.seq, reference.in_force(0), tail.frame.time);
        let live = || {
            (
                end,
                reference.in_force(reference.frames.len()),
                head.frame.time,
            )
        };
        let resumed = here.is_some() && self.exactly;
        let (seq, set, time) = match reference.join_point() {
            _ if tail.at.seq == 0 && floor == 0 && (present || resumed) => start(),
            _ if self.join_at == JoinAt::Head => live(),
            Some(key) if key.at.seq >= floor => {
                let index = reference
                    .frames
                    .iter()
                    .position(|item| item.at == key.at)
                    .unwrap();
                (key.at.seq, reference.in_force(index), key.frame.time)
            }
            Some(_) => return,
            None if reference.video_is_live(limits) => return,
            None if present && reference.gone == 0 && floor <= tail.at.seq => start(),
            None => live(),
        };
        let at = Position {
            epoch: reference.epoch,
            seq,
        };
        let skipped = match (self.next, reference.ended) {
            (None, _) => 0,
            (Some(next), _) if next.epoch == at.epoch => seq - next.seq,
            (Some(next), Some(ended)) if next.epoch == ended.epoch => {
                (ended.seq + 1).saturating_sub(next.seq) + seq
            }
            (Some(_), _) => seq,
        };
        if skipped > 0 {
            self.waiting.push_back(Got::Skipped(skipped));
        }
        self.waiting
            .extend(set.into_iter().map(|frame| Got::InForce(frame, at, time)));
        self.next = Some(at);
        self.run = Some(reference.run);
        self.exactly = true;
    }
}

fn drain(backlog: &Backlog, cursor: &mut Cursor) -> Vec<Got> {
    let mut got = Vec::new();
    loop {
        got.push(match backlog.read(cursor) {
            Read::InForce { frame, at, time } => Got::InForce(frame.clone(), at, time),
            Read::Frame(item) => Got::Frame(item.clone()),
            Read::Skipped { frames } => Got::Skipped(frames),
            Read::Pending => Got::Pending,
        });
        if got.last() == Some(&Got::Pending) {
            return got;
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Push {
        what: usize,
        step_ms: u64,
        len: usize,
    },
    /// Frames that do not arrive.
    Lose {
        frames: usize,
    },
    Again {
        back: u64,
    },
    Epoch,
    Read {
        reader: usize,
    },
    Join {
        reader: usize,
        join_at: JoinAt,
    },
    Resume {
        reader: usize,
        back: u64,
        epochs: u64,
    },
}

const KINDS: [(Kind, Class, u32); 12] = [
    (Kind::Data, Class::Config, 0),
    (Kind::Data, Class::Clear, 0),
    (Kind::Data, Class::Data, 0),
    (Kind::Video, Class::Config, 0),
    (Kind::Video, Class::Key, 0),
    (Kind::Video, Class::Key, 1),
    (Kind::Video, Class::Delta, 0),
    (Kind::Video, Class::Delta, 1),
    (Kind::Audio, Class::Config, 0),
    (Kind::Audio, Class::Audio, 0),
    (Kind::Audio, Class::Audio, 0),
    (Kind::Audio, Class::Audio, 0),
];

const READERS: usize = 3;

/// An operation from 64 random bits.
fn op(bits: u64) -> Op {
    let mut dice = Dice(bits);
    match dice.weighted([20, 1, 1, 1, 8, 1, 2]) {
        0 => Op::Push {
            what: dice.index(KINDS.len()),
            step_ms: dice.below(150),
            len: dice.index(200),
        },
        1 => Op::Lose {
            frames: 1 + dice.index(8),
        },
        2 => Op::Again {
            back: dice.below(9),
        },
        3 => Op::Epoch,
        4 => Op::Read {
            reader: dice.index(READERS),
        },
        5 => Op::Join {
            reader: dice.index(READERS),
            join_at: [JoinAt::Key, JoinAt::Head][dice.index(2)],
        },
        _ => Op::Resume {
            reader: dice.index(READERS),
            back: dice.below(12),
            epochs: dice.below(2),
        },
    }
}

fn readers(next: Option<Position>, join_at: JoinAt) -> (Cursor, Reader) {
    let mut cursor = next.map_or_else(Cursor::join, Cursor::resume_at);
    cursor.set_join_at(join_at);
    let exactly = next.is_some();
    (
        cursor,
        Reader {
            next,
            run: None,
            exactly,
            join_at,
            waiting: VecDeque::new(),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4_000,
        rng_algorithm: RngAlgorithm::XorShift,
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn readers_get_what_the_reference_gives(
        (bytes, frames) in (800..6_000_usize, 1..30_usize),
        (time_ms, video_silence_ms) in (50..1_500_u64, 50..600_u64),
        video in any::<bool>(),
        ops in prop::collection::vec(any::<u64>(), 1..100),
    ) {
        let limits = Limits { bytes, frames, time_ms, video_silence_ms, ..Limits::DEFAULT };
        let mut publisher = Publisher::new();
        let (mut backlog, mut reference) = (Backlog::new(limits), Reference::default());
        let mut pairs: Vec<_> = (0..READERS).map(|_| readers(None, JoinAt::Key)).collect();
        // What the other end of the link has in force.
        let mut in_force: Vec<Frame> = Vec::new();
        for op in ops.into_iter().map(op) {
            let (pushes, arrives) = match op {
                Op::Push { what, step_ms, len } => (vec![(what, step_ms, len)], true),
                Op::Lose { frames } => ([(9, 10, 0), (6, 10, 0), (0, 0, 0)].repeat(frames), false),
                Op::Epoch => {
                    publisher.new_epoch(500);
                    in_force.clear();
                    continue;
                }
                Op::Again { back } => {
                    if let Some(head) = backlog.head() {
                        let at = Position { seq: head.seq.saturating_sub(back), ..head };
                        let frame = reference.frames[0].frame.clone();
                        prop_assert_eq!(backlog.push(at, frame.clone()), Ok(Pushed::Duplicate));
                        let old = Position { epoch: Epoch(head.epoch.0 - 1), ..at };
                        let by = head.epoch;
                        prop_assert_eq!(backlog.push(old, frame), Err(PushError::Superseded { by }));
                    }
                    continue;
                }
                Op::Read { reader } => {
                    let (cursor, reader) = &mut pairs[reader];
                    let got = drain(&backlog, cursor);
                    prop_assert_eq!(got, reader.drain(&reference, &limits));
                    continue;
                }
                Op::Join { reader, join_at } => {
                    pairs[reader] = readers(None, join_at);
                    continue;
                }
                Op::Resume { reader, back, epochs } => {
                    if let Some(head) = backlog.head() {
                        let epoch = Epoch(head.epoch.0 - epochs);
                        let seq = (head.seq + 3).saturating_sub(back);
                        pairs[reader] = readers(Some(Position { epoch, seq }), JoinAt::Key);
                    }
                    continue;
                }
            };
            for (what, step_ms, len) in pushes {
                let (kind, class, slot) = KINDS[what];
                if kind == Kind::Video && !video {
                    continue;
                }
                let (at, frame) = publisher.frame(kind, class, slot, step_ms, len);
                if arrives {
                    for config in &in_force {
                        backlog.prime_at(at, config.clone());
                    }
                    backlog.push(at, frame.clone()).unwrap();
                    reference.push(at, frame.clone(), in_force.clone(), &limits);
                    prop_assert_eq!(backlog.tail(), reference.kept().first().map(|item| item.at));
                    prop_assert_eq!(backlog.in_force_at_tail(), reference.in_force(reference.gone));
                    prop_assert_eq!(backlog.head(), Some(at));
                    prop_assert_eq!(backlog.len(), reference.kept().len());
                    prop_assert_eq!(backlog.join_point(), reference.join_point().map(|key| key.at));
                    prop_assert_eq!(backlog.in_force(), reference.in_force(reference.frames.len()));
                }
                if matches!(class, Class::Config | Class::Clear) {
                    in_force.retain(|old| (old.kind, old.slot) != (kind, frame.slot));
                    if class == Class::Config {
                        in_force.push(frame);
                    }
                }
            }
        }
    }
}
