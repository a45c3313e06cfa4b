//! A decoder that refuses, behind everything that media passes on its way to a player:
//!
//! ```text
//! publisher -> replay buffer -> uplink -> origin -> downlink -> cache -> views
//!              (Backlog)                (Backlog)             (Backlog)
//! ```
//!
//! Links break, origins are replaced by empty ones, readers lag, join and resume. A decoder
//! refuses a picture without its key frame, a picture with another configuration than the
//! publisher had in force there, and time that runs back.

use std::collections::BTreeMap;

use crate::publisher::{Dice, Publisher, Set, apply};
use model::{Class, Frame, Kind, Position, Sequenced, Slot};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, RngSeed};
use selvage_media::{Backlog, Cursor, Limits, Read, Selection, View};

#[derive(Clone, Debug)]
enum Op {
    Frame {
        kind: Kind,
        class: Class,
        slot: u32,
        step_ms: u64,
        len: usize,
    },
    Epoch {
        time: u64,
    },
    Uplink {
        reads: usize,
    },
    Downlink {
        reads: usize,
    },
    UplinkBreaks,
    DownlinkBreaks,
    OriginLost,
    Play {
        view: usize,
        reads: usize,
    },
    Join {
        view: usize,
    },
    Rejoin {
        view: usize,
    },
    Video {
        view: usize,
        wanted: bool,
    },
    Audio {
        view: usize,
        wanted: bool,
    },
}

const VIEWS: usize = 3;

const FRAMES: [(u64, Kind, Class, u64); 8] = [
    (2, Kind::Data, Class::Config, 3),
    (1, Kind::Data, Class::Clear, 3),
    (1, Kind::Data, Class::Data, 1),
    (2, Kind::Video, Class::Config, 2),
    (1, Kind::Audio, Class::Config, 1),
    (4, Kind::Audio, Class::Audio, 1),
    (3, Kind::Video, Class::Key, 2),
    (9, Kind::Video, Class::Delta, 2),
];

/// An operation from 64 random bits.
fn op(bits: u64) -> Op {
    let mut dice = Dice(bits);
    match dice.weighted([24, 1, 6, 6, 1, 1, 1, 9, 1, 1, 1, 1]) {
        0 => {
            let (_, kind, class, slots) = FRAMES[dice.weighted(FRAMES.map(|frame| frame.0))];
            let slot = u32::try_from(dice.below(slots)).unwrap();
            Op::Frame {
                kind,
                class,
                slot,
                step_ms: dice.below(120),
                len: dice.index(300),
            }
        }
        1 => Op::Epoch {
            time: dice.below(3_000),
        },
        2 => Op::Uplink {
            reads: 1 + dice.index(8),
        },
        3 => Op::Downlink {
            reads: 1 + dice.index(8),
        },
        4 => Op::UplinkBreaks,
        5 => Op::DownlinkBreaks,
        6 => Op::OriginLost,
        7 => Op::Play {
            view: dice.index(VIEWS),
            reads: 1 + dice.index(8),
        },
        8 => Op::Join {
            view: dice.index(VIEWS),
        },
        9 => Op::Rejoin {
            view: dice.index(VIEWS),
        },
        10 => Op::Video {
            view: dice.index(VIEWS),
            wanted: dice.below(2) == 0,
        },
        _ => Op::Audio {
            view: dice.index(VIEWS),
            wanted: dice.below(2) == 0,
        },
    }
}

fn limits() -> impl Strategy<Value = Limits> {
    (
        1_500..12_000_usize,
        4..40_usize,
        100..1_500_u64,
        50..600_u64,
    )
        .prop_map(|(bytes, frames, time_ms, video_silence_ms)| Limits {
            bytes,
            frames,
            time_ms,
            video_silence_ms,
            ..Limits::DEFAULT
        })
}

/// What a link carries: a reader at one end, a backlog at the other.
fn carry(from: &Backlog, cursor: &mut Cursor, to: &mut Backlog, judge: &mut Judge, reads: usize) {
    for _ in 0..reads {
        match judge.saw(from.read(cursor)) {
            Read::InForce { frame, at, .. } => to.prime_at(at, frame.clone()),
            Read::Frame(item) => {
                to.push(item.at, item.frame.clone()).unwrap();
            }
            Read::Skipped { .. } => {}
            Read::Pending => return,
        }
    }
}

/// Judges what the reader of a link gets: nothing may be missing, and the configurations it
/// was given are those of the publisher, no more and no fewer.
#[derive(Default)]
struct Judge {
    set: Set,
    joining: Option<Position>,
    next: Option<Position>,
    skipped: Option<u64>,
    seen: Vec<(Set, Sequenced)>,
}

impl Judge {
    fn saw<'a>(&mut self, read: Read<'a>) -> Read<'a> {
        match read {
            Read::Skipped { frames } => {
                assert!(frames > 0, "nothing was skipped");
                *self.skipped.get_or_insert(0) += frames;
            }
            Read::InForce { frame, at, .. } => {
                assert_eq!(frame.class, Class::Config);
                assert!(
                    self.next.is_none_or(|next| next <= at),
                    "{at:?} lies behind"
                );
                if self.joining != Some(at) {
                    self.set = Set::default();
                    self.joining = Some(at);
                }
                apply(&mut self.set, frame);
            }
            Read::Frame(item) => {
                if self.joining.or(self.next) != Some(item.at) {
                    self.set = Set::default();
                }
                self.joining = None;
                if let (Some(next), true) = (self.next, self.next != Some(item.at)) {
                    assert!(next < item.at, "{:?} after {next:?}", item.at);
                    if next.epoch == item.at.epoch
                        && let Some(skipped) = self.skipped
                    {
                        assert_eq!(skipped, item.at.seq - next.seq);
                    }
                }
                self.skipped = None;
                self.next = Some(Position {
                    seq: item.at.seq + 1,
                    ..item.at
                });
                self.seen.push((self.set, item.clone()));
                apply(&mut self.set, &item.frame);
            }
            Read::Pending => {}
        }
        read
    }

    fn check(&mut self, publisher: &Publisher) {
        for (set, item) in self.seen.drain(..) {
            assert_eq!(
                set,
                publisher.needs(&item.frame).set,
                "configurations at {item:?}"
            );
        }
    }
}

/// A player's decoder.
#[derive(Default)]
struct Decoder {
    set: Set,
    joining: bool,
    pictures: BTreeMap<Slot, (u32, u32)>,
    last: Option<Position>,
}

impl Decoder {
    fn handle(&mut self, read: Read<'_>, publisher: &Publisher) {
        match read {
            Read::Skipped { .. } => self.pictures.clear(),
            Read::InForce { frame, .. } => {
                if !self.joining {
                    self.joining = true;
                    self.set = Set::default();
                    self.pictures.clear();
                }
                apply(&mut self.set, frame);
            }
            Read::Frame(item) => {
                self.joining = false;
                assert!(
                    self.last.is_none_or(|last| last < item.at),
                    "{item:?} comes again"
                );
                if self.last.is_some_and(|last| last.epoch != item.at.epoch) {
                    self.pictures.clear();
                }
                self.last = Some(item.at);
                self.decode(&item.frame, publisher);
            }
            Read::Pending => {}
        }
    }

    fn decode(&mut self, frame: &Frame, publisher: &Publisher) {
        let needs = publisher.needs(frame);
        match frame.class {
            Class::Config => apply(&mut self.set, frame),
            Class::Clear => panic!("a player was given {frame:?}"),
            Class::Data => {}
            Class::Audio => self.check(Kind::Audio, &needs.set, frame),
            Class::Key => {
                self.check(Kind::Video, &needs.set, frame);
                self.pictures.insert(frame.slot, needs.picture);
            }
            Class::Delta => {
                self.check(Kind::Video, &needs.set, frame);
                let last = self.pictures.insert(frame.slot, needs.picture);
                let (group, index) = needs.picture;
                assert_eq!(
                    last,
                    Some((group, index - 1)),
                    "{frame:?} lacks what it leans on"
                );
            }
        }
    }

    fn check(&self, kind: Kind, needs: &Set, frame: &Frame) {
        for (needed, present) in needs[kind as usize].iter().zip(&self.set[kind as usize]) {
            // What was cleared may linger: a player is told nothing of it.
            assert!(
                *needed == 0 || needed == present,
                "{frame:?} needs another configuration"
            );
        }
    }
}

struct Player {
    view: View,
    decoder: Decoder,
    audio: bool,
    video: bool,
}

impl Player {
    fn join() -> Self {
        Self {
            view: View::join(),
            decoder: Decoder::default(),
            audio: true,
            video: true,
        }
    }

    fn play(&mut self, cache: &Backlog, publisher: &Publisher, reads: usize) {
        for _ in 0..reads {
            let read = self.view.read(cache);
            if let Read::Frame(item) = read {
                let class = item.frame.class;
                assert!(self.audio || class != Class::Audio);
                assert!(self.video || !matches!(class, Class::Key | Class::Delta));
            }
            self.decoder.handle(read, publisher);
            if read == Read::Pending {
                return;
            }
        }
    }
}

struct Chain {
    limits: Limits,
    publisher: Publisher,
    replay: Backlog,
    uplink: (Cursor, Judge),
    origin: Backlog,
    downlink: (Cursor, Judge),
    cache: Backlog,
    players: [Player; VIEWS],
}

impl Chain {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            publisher: Publisher::new(),
            replay: Backlog::new(limits),
            uplink: Default::default(),
            origin: Backlog::new(limits),
            downlink: Default::default(),
            cache: Backlog::new(limits),
            players: std::array::from_fn(|_| Player::join()),
        }
    }

    fn publish(&mut self, kind: Kind, class: Class, slot: u32, step_ms: u64, len: usize) {
        let (at, frame) = self.publisher.frame(kind, class, slot, step_ms, len);
        assert_eq!(self.replay.append(at.epoch, frame), at);
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Frame {
                kind,
                class,
                slot,
                step_ms,
                len,
            } => {
                self.publish(kind, class, slot, step_ms, len);
            }
            Op::Epoch { time } => {
                self.publisher.new_epoch(time);
                self.publish(Kind::Audio, Class::Config, 0, 0, 0);
            }
            Op::Uplink { reads } => {
                let (cursor, judge) = &mut self.uplink;
                carry(&self.replay, cursor, &mut self.origin, judge, reads);
            }
            Op::Downlink { reads } => {
                let (cursor, judge) = &mut self.downlink;
                carry(&self.origin, cursor, &mut self.cache, judge, reads);
            }
            Op::UplinkBreaks => self.uplink = resume(&self.origin),
            Op::DownlinkBreaks => self.downlink = resume(&self.cache),
            Op::OriginLost => {
                self.origin = Backlog::new(self.limits);
                self.uplink = resume(&self.origin);
                self.downlink = resume(&self.cache);
            }
            Op::Play { view, reads } => {
                self.players[view].play(&self.cache, &self.publisher, reads);
            }
            Op::Join { view } => self.players[view] = Player::join(),
            Op::Rejoin { view } => self.players[view].view.rejoin(),
            Op::Video { view, wanted } => {
                self.players[view].video = wanted;
                self.players[view].view.receive_video(wanted);
            }
            Op::Audio { view, wanted } => {
                self.players[view].audio = wanted;
                self.players[view].view.receive_audio(wanted);
            }
        }
        self.uplink.1.check(&self.publisher);
        self.downlink.1.check(&self.publisher);
        for backlog in [&self.replay, &self.origin, &self.cache] {
            assert!(backlog.len() <= self.limits.frames);
            assert!(backlog.bytes() <= self.limits.bytes || backlog.len() == 1);
        }
    }
}

/// After a link broke: go on behind what the other end has.
fn resume(to: &Backlog) -> (Cursor, Judge) {
    let cursor = to.head().map_or_else(Cursor::join, Cursor::resume_after);
    // What the other end has in force it keeps, if the link goes on exactly.
    let mut judge = Judge {
        next: to.head(),
        ..Judge::default()
    };
    if let Some(next) = &mut judge.next {
        next.seq += 1;
    }
    for frame in to.in_force() {
        apply(&mut judge.set, frame);
    }
    (cursor, judge)
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
    fn no_decoder_is_given_what_it_must_refuse_and_none_is_left_behind(
        limits in limits(),
        ops in prop::collection::vec(any::<u64>(), 1..160),
    ) {
        let mut chain = Chain::new(limits);
        for op in ops.into_iter().map(op) {
            chain.run(op);
        }
        // A key frame on every track frees whoever waits.
        for slot in [0, 1] {
            chain.publish(Kind::Video, Class::Key, slot, 1, 0);
        }
        chain.run(Op::Uplink { reads: usize::MAX });
        chain.run(Op::Downlink { reads: usize::MAX });
        for view in 0..VIEWS {
            chain.run(Op::Video { view, wanted: true });
            chain.run(Op::Play { view, reads: usize::MAX });
            prop_assert_eq!(chain.players[view].view.lag(&chain.cache).frames, 0);
        }
        prop_assert_eq!(chain.cache.head(), chain.replay.head());
        chain.publish(Kind::Video, Class::Key, 0, 1, 0);
        chain.run(Op::Uplink { reads: usize::MAX });
        chain.run(Op::Downlink { reads: usize::MAX });
        for view in 0..VIEWS {
            chain.run(Op::Play { view, reads: usize::MAX });
            prop_assert_eq!(chain.players[view].decoder.last, chain.replay.head());
        }
    }
}

#[test]
fn a_bundle_opens_every_track_and_leans_on_any() {
    let mut publisher = Publisher::new();
    let mut selection = Selection::all();
    let mut admits = |class, slot| {
        let (at, frame) = publisher.frame(Kind::Video, class, slot, 1, 0);
        selection.admits(&Sequenced { at, frame })
    };
    assert!(admits(Class::Key, 512));
    assert!(admits(Class::Delta, 512));
    assert!(admits(Class::Key, 3));
    assert!(admits(Class::Delta, 3));
}
