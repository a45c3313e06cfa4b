//! The machine by itself, with a clock that is moved by hand.

use std::sync::Mutex;

use bytes::Bytes;
use model::{Class, FourCc, Kind, MediaTime, Slot};

use model::EdgeId;

use super::*;

const GRACE: Duration = Duration::from_secs(3);
const MICROS: u64 = 1_800_000_000_000_000;
const PLENTY: u64 = 1 << 30;

fn stream() -> Stream {
    Stream::new(media::Limits::DEFAULT)
}

fn at(link: u64, id: u32) -> OnLink {
    OnLink {
        link: LinkId(link),
        id,
    }
}

fn claimed(life: EdgeLife, epoch: u64) -> Claimed {
    let epoch = Epoch(epoch);
    Claimed {
        life,
        epoch,
        began: epoch,
        trace: None,
    }
}

fn life(edge: &str, incarnation: u64) -> EdgeLife {
    EdgeLife {
        edge: EdgeId::new(edge).unwrap(),
        incarnation,
    }
}

fn frame(class: Class, seq: u64, len: usize) -> Frame {
    let kind = match class {
        Class::Config | Class::Clear | Class::Key | Class::Delta => Kind::Video,
        Class::Audio => Kind::Audio,
        Class::Data => Kind::Data,
    };
    Frame {
        kind,
        class,
        slot: Slot(0),
        codec: FourCc(*b"avc1"),
        time: MediaTime(seq * 40),
        payload: Bytes::from(vec![seq.to_le_bytes()[0]; len]),
    }
}

/// A configuration, then a key frame every five frames.
fn usual(seq: u64, len: usize) -> Arrival {
    let class = match seq {
        0 => Class::Config,
        seq if seq % 5 == 1 => Class::Key,
        _ => Class::Delta,
    };
    Arrival::Numbered {
        seq,
        frame: frame(class, seq, len),
    }
}

/// Writes down what a subscriber gets: `published:e`, `c` for a configuration in force, a
/// frame's number, `skip:n`.
#[derive(Default)]
struct Log(Vec<String>);

impl Sink for Log {
    fn published(&mut self, _: u32, epoch: Epoch, began: Epoch, _: Option<SpanPlace>) {
        self.0.push(if began == epoch {
            format!("published:{}", epoch.0)
        } else {
            format!("published:{}<{}", epoch.0, began.0)
        });
    }
    fn source(&mut self, _: u32, state: State, _: Epoch) {
        self.0.push(state.as_str_name().to_lowercase());
    }
    fn in_force(&mut self, _: u32, _: u64, _: &Frame) {
        self.0.push("c".into());
    }
    fn frame(&mut self, _: u32, frame: &Sequenced, _: u64) {
        self.0.push(frame.at.seq.to_string());
    }
    fn skipped(&mut self, _: u32, frames: u64) {
        self.0.push(format!("skip:{frames}"));
    }
    fn traced(&mut self, _: u32, frame: &Sequenced, _: &Passing, behind: u64) {
        self.0.push(format!("traced:{}+{behind}", frame.at.seq));
    }
}

#[derive(Default)]
struct Rings(Mutex<Vec<u32>>);

impl Wake for Rings {
    fn ready(&self, id: u32) {
        self.0.lock().unwrap().push(id);
    }
}

impl Rings {
    fn take(&self) -> Vec<u32> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn subscribe(stream: &mut Stream, by: OnLink, credit: u64) -> Arc<Rings> {
    let rings = Arc::new(Rings::default());
    let wake: Arc<dyn Wake> = Arc::clone(&rings) as _;
    stream.subscribe(by, None, credit, wake);
    rings
}

/// Everything there is for a subscriber.
fn read(stream: &mut Stream, by: OnLink) -> String {
    let mut log = Log::default();
    while stream.read(by, 1000, &mut log) == Turn::More {}
    log.0.join(" ")
}

fn append(stream: &mut Stream, by: OnLink, seqs: std::ops::Range<u64>) -> Taken {
    stream
        .append(by, seqs.map(|seq| usual(seq, 100)), MICROS)
        .unwrap()
}

#[test]
fn a_watcher_waits_sees_the_publish_from_its_first_frame_and_its_end_in_order() {
    let (mut stream, publisher, watcher) = (stream(), at(1, 1), at(2, 1));
    subscribe(&mut stream, watcher, PLENTY);
    assert_eq!(read(&mut stream, watcher), "waiting");
    assert_eq!(read(&mut stream, watcher), "");
    stream.publish(publisher, claimed(life("a", 1), 7)).unwrap();
    append(&mut stream, publisher, 0..4);
    assert!(stream.unpublish(publisher, false));
    assert_eq!(
        read(&mut stream, watcher),
        "published:7 0 1 2 3 unpublished"
    );
    assert!(!stream.is_idle());
    stream.unsubscribe(watcher);
    assert!(stream.is_idle());
    assert_eq!(stream.bytes(), 0);
}

#[test]
fn each_watcher_is_told_which_frames_are_traced_as_long_as_they_are_kept() {
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let passing = Passing::received(trace, (1, 2), 3).unwrap();
    let (mut stream, publisher) = (stream(), at(1, 1));
    let (near, late) = (at(2, 1), at(2, 2));
    assert_eq!(stream.trace(publisher, 1, passing), None);
    stream.publish(publisher, claimed(life("a", 1), 7)).unwrap();
    subscribe(&mut stream, near, PLENTY);
    let epoch = stream.trace(publisher, 1, passing);
    assert_eq!(epoch, Some(Epoch(7)));
    append(&mut stream, publisher, 0..4);
    assert_eq!(read(&mut stream, near), "published:7 0 1 traced:1+2 2 3");
    subscribe(&mut stream, late, PLENTY);
    assert_eq!(read(&mut stream, late), "published:7 c 1 traced:1+2 2 3");
    // The publisher of another link does not have a say.
    assert_eq!(stream.trace(near, 6, passing), None);
    append(&mut stream, publisher, 4..7);
    assert_eq!(read(&mut stream, near), "4 5 6");
}

#[test]
fn who_comes_later_joins_at_the_newest_key_frame_with_what_is_in_force() {
    let (mut stream, publisher, watcher) = (stream(), at(1, 1), at(2, 1));
    stream.publish(publisher, claimed(life("a", 1), 7)).unwrap();
    append(&mut stream, publisher, 0..9);
    subscribe(&mut stream, watcher, PLENTY);
    assert_eq!(read(&mut stream, watcher), "published:7 c 6 7 8");
    append(&mut stream, publisher, 9..10);
    assert_eq!(read(&mut stream, watcher), "9");
    stream.unpublish(publisher, true);
    assert_eq!(read(&mut stream, watcher), "moved");
}

#[test]
fn a_watcher_that_knows_the_stream_goes_on_exactly_where_it_was() {
    let (mut stream, publisher, watcher) = (stream(), at(1, 1), at(2, 1));
    stream.publish(publisher, claimed(life("a", 1), 7)).unwrap();
    append(&mut stream, publisher, 0..9);
    let next = Position {
        epoch: Epoch(7),
        seq: 3,
    };
    stream.subscribe(watcher, Some(next), PLENTY, Arc::new(Rings::default()));
    assert_eq!(read(&mut stream, watcher), "published:7 3 4 5 6 7 8");
    // A place in a publish that is over is no place in this one.
    let other = at(2, 2);
    let next = Position {
        epoch: Epoch(6),
        seq: 3,
    };
    stream.subscribe(other, Some(next), PLENTY, Arc::new(Rings::default()));
    assert_eq!(read(&mut stream, other), "published:7 c 6 7 8");
}

#[test]
fn a_name_has_one_publisher_and_is_free_the_moment_it_leaves() {
    let mut stream = stream();
    stream.publish(at(1, 1), claimed(life("a", 1), 7)).unwrap();
    for another in [life("b", 1), life("a", 2)] {
        assert_eq!(
            stream.publish(at(2, 1), claimed(another, 7)),
            Err(Reason::Superseded)
        );
    }
    assert!(!stream.unpublish(at(2, 1), false), "not its own");
    assert!(stream.unpublish(at(1, 1), false));
    let grant = stream.publish(at(2, 2), claimed(life("b", 1), 8)).unwrap();
    assert_eq!(
        grant,
        Grant {
            epoch: Epoch(8),
            next: 0,
            superseded: None
        }
    );
    assert_eq!(stream.append(at(1, 1), [usual(0, 1)], 0), Err(NotHolder));
    assert_eq!(
        stream.publish(at(1, 2), claimed(life("a", 1), 7)),
        Err(Reason::Superseded)
    );
}

#[test]
fn a_publish_again_at_once_costs_nobody_the_last_frames() {
    let (mut stream, publisher, watcher) = (stream(), at(1, 1), at(2, 1));
    subscribe(&mut stream, watcher, PLENTY);
    for (epoch, frames) in [(7, 3), (8, 2), (9, 1)] {
        stream
            .publish(publisher, claimed(life("a", 1), epoch))
            .unwrap();
        append(&mut stream, publisher, 0..frames);
        stream.unpublish(publisher, false);
    }
    assert_eq!(
        read(&mut stream, watcher),
        "published:7 0 1 2 unpublished published:8 0 1 unpublished published:9 0 unpublished"
    );
    assert_eq!(stream.bytes(), 0, "what all have read is gone");
}

#[test]
fn publishes_that_nobody_reads_to_their_end_are_kept_up_to_a_bound() {
    let (mut stream, publisher, watcher) = (stream(), at(1, 1), at(2, 1));
    subscribe(&mut stream, watcher, 1);
    for epoch in 10..110 {
        stream
            .publish(publisher, claimed(life("a", 1), epoch))
            .unwrap();
        append(&mut stream, publisher, 0..3);
        // It has no credit for more than the first frame of the first publish.
        read(&mut stream, watcher);
        stream.unpublish(publisher, false);
        assert!(stream.incarnations.len() <= INCARNATIONS_MAX);
    }
    stream.give(watcher, PLENTY);
    let expected = [
        "0 1 2 unpublished",
        "published:107 0 1 2 unpublished",
        "published:108 0 1 2 unpublished",
        "published:109 0 1 2 unpublished",
    ];
    assert_eq!(read(&mut stream, watcher), expected.join(" "));
}

#[test]
fn a_lost_link_keeps_the_name_until_the_grace_ends() {
    let (mut stream, watcher, start) = (stream(), at(2, 1), Instant::now());
    subscribe(&mut stream, watcher, PLENTY);
    stream.publish(at(1, 1), claimed(life("a", 1), 7)).unwrap();
    append(&mut stream, at(1, 1), 0..2);
    assert_eq!(
        stream.link_lost(at(1, 1), start, GRACE),
        Some(start + GRACE)
    );
    assert_eq!(
        stream.publish(at(2, 9), claimed(life("b", 1), 7)),
        Err(Reason::Superseded)
    );
    assert!(!stream.handle_timeout(start + GRACE - Duration::from_millis(1)));
    assert_eq!(
        read(&mut stream, watcher),
        "waiting published:7 0 1".replace("waiting ", "")
    );
    assert!(stream.handle_timeout(start + GRACE));
    assert_eq!(read(&mut stream, watcher), "unpublished");
    assert!(!stream.is_held());
}

#[test]
fn a_name_in_grace_is_given_to_a_later_publish_and_its_watchers_see_a_new_epoch() {
    for again in [life("a", 1), life("a", 2), life("b", 1)] {
        let (mut stream, watcher) = (stream(), at(2, 1));
        subscribe(&mut stream, watcher, PLENTY);
        stream.publish(at(1, 1), claimed(life("a", 1), 7)).unwrap();
        append(&mut stream, at(1, 1), 0..2);
        stream.link_lost(at(1, 1), Instant::now(), GRACE);
        assert_eq!(
            stream.publish(at(3, 1), claimed(again, 9)).unwrap().epoch,
            Epoch(9)
        );
        append(&mut stream, at(3, 1), 0..1);
        assert_eq!(read(&mut stream, watcher), "published:7 0 1 published:9 0");
    }
}

#[test]
fn a_resume_over_a_new_link_takes_over_and_watchers_notice_nothing() {
    // The old link may be known to be dead or not.
    for known in [true, false] {
        let (mut stream, watcher, start) = (stream(), at(2, 1), Instant::now());
        subscribe(&mut stream, watcher, PLENTY);
        stream.publish(at(1, 1), claimed(life("a", 1), 7)).unwrap();
        append(&mut stream, at(1, 1), 0..3);
        if known {
            stream.link_lost(at(1, 1), start, GRACE);
        }
        let grant = stream.publish(at(3, 5), claimed(life("a", 1), 7)).unwrap();
        assert_eq!(
            grant,
            Grant {
                epoch: Epoch(7),
                next: 3,
                superseded: None
            }
        );
        assert_eq!(stream.link_lost(at(1, 1), start, GRACE), None);
        assert!(!stream.handle_timeout(start + GRACE));
        assert_eq!(stream.append(at(1, 1), [usual(3, 1)], 0), Err(NotHolder));
        append(&mut stream, at(3, 5), 3..5);
        assert_eq!(read(&mut stream, watcher), "published:7 0 1 2 3 4");
    }
}

#[test]
fn what_is_sent_twice_after_a_resume_is_taken_once() {
    let (mut stream, watcher) = (stream(), at(2, 1));
    subscribe(&mut stream, watcher, PLENTY);
    stream.publish(at(1, 1), claimed(life("a", 1), 7)).unwrap();
    append(&mut stream, at(1, 1), 0..3);
    let taken = append(&mut stream, at(1, 1), 1..5);
    assert_eq!((taken.frames, taken.duplicates), (2, 2));
    assert_eq!(read(&mut stream, watcher), "published:7 0 1 2 3 4");
}

#[test]
fn a_stream_counts_what_it_was_brought_and_who_takes_it() {
    let mut stream = stream();
    subscribe(&mut stream, at(2, 1), PLENTY);
    assert_eq!(
        stream.figures(),
        Figures {
            edges: 1,
            ..Figures::default()
        }
    );
    stream.publish(at(1, 1), claimed(life("a", 1), 7)).unwrap();
    let first = append(&mut stream, at(1, 1), 0..3);
    assert!(first.bytes > 0);
    // What comes twice counts once, and another publisher of the name goes on counting.
    let again = append(&mut stream, at(1, 1), 2..5);
    stream.publish(at(3, 1), claimed(life("b", 1), 9)).unwrap();
    let other = append(&mut stream, at(3, 1), 0..1);
    let counted = Figures {
        published: true,
        edges: 1,
        frames: 6,
        bytes: first.bytes + again.bytes + other.bytes,
    };
    assert_eq!(stream.figures(), counted);
    stream.unsubscribe(at(2, 1));
    stream.unpublish(at(3, 1), false);
    let left = Figures {
        published: false,
        edges: 0,
        ..counted
    };
    assert_eq!(stream.figures(), left);
}

#[test]
fn a_resume_is_judged_by_its_epoch() {
    let mut stream = stream();
    stream.publish(at(1, 1), claimed(life("a", 1), 7)).unwrap();
    let resume = |stream: &mut Stream, edge: &str, epoch| {
        stream.publish(at(2, 2), claimed(life(edge, 1), epoch))
    };
    assert_eq!(resume(&mut stream, "b", 6), Err(Reason::Superseded));
    assert_eq!(
        resume(&mut stream, "b", 7),
        Err(Reason::Superseded),
        "another has this epoch"
    );
    assert_eq!(
        resume(&mut stream, "b", 8),
        Ok(Grant {
            epoch: Epoch(8),
            next: 0,
            superseded: Some(at(1, 1))
        })
    );
    assert_eq!(stream.append(at(1, 1), [usual(0, 1)], 0), Err(NotHolder));
}

#[test]
fn an_origin_that_knows_nothing_adopts_the_publish_and_its_watchers() {
    let (mut stream, watcher) = (stream(), at(2, 1));
    // The watcher has frames up to 11 from the origin that is lost.
    let next = Position {
        epoch: Epoch(7),
        seq: 12,
    };
    stream.subscribe(watcher, Some(next), PLENTY, Arc::new(Rings::default()));
    assert_eq!(read(&mut stream, watcher), "waiting");
    let grant = stream.publish(at(1, 1), claimed(life("a", 1), 7)).unwrap();
    assert_eq!(
        grant,
        Grant {
            epoch: Epoch(7),
            next: 0,
            superseded: None
        }
    );
    // The edge begins at its newest key frame, with the configuration in force there.
    let config = Arrival::InForce {
        seq: 11,
        frame: frame(Class::Config, 0, 10),
    };
    let frames = std::iter::once(config).chain((11..14).map(|seq| usual(seq, 100)));
    stream.append(at(1, 1), frames, 0).unwrap();
    assert_eq!(read(&mut stream, watcher), "published:7 12 13");
    let newcomer = at(3, 1);
    subscribe(&mut stream, newcomer, PLENTY);
    assert_eq!(read(&mut stream, newcomer), "published:7 c 11 12 13");
}

#[test]
fn a_publish_that_comes_back_after_its_grace_goes_on_with_its_epoch() {
    let (mut stream, watcher, start) = (stream(), at(2, 1), Instant::now());
    subscribe(&mut stream, watcher, PLENTY);
    stream.publish(at(1, 1), claimed(life("a", 1), 7)).unwrap();
    append(&mut stream, at(1, 1), 0..3);
    stream.link_lost(at(1, 1), start, GRACE);
    stream.handle_timeout(start + GRACE);
    assert_eq!(read(&mut stream, watcher), "published:7 0 1 2 unpublished");
    assert_eq!(
        stream
            .publish(at(3, 1), claimed(life("a", 1), 7))
            .unwrap()
            .next,
        0
    );
    let config = Arrival::InForce {
        seq: 6,
        frame: frame(Class::Config, 0, 10),
    };
    let frames = std::iter::once(config).chain((6..8).map(|seq| usual(seq, 100)));
    stream.append(at(3, 1), frames, 0).unwrap();
    assert_eq!(read(&mut stream, watcher), "published:7 skip:3 c 6 7");
}

#[test]
fn without_credit_a_watcher_lags_alone_and_joins_again_when_it_has_some() {
    let limits = media::Limits {
        bytes: 4000,
        ..media::Limits::DEFAULT
    };
    let mut stream = Stream::new(limits);
    let (publisher, slow, quick) = (at(1, 1), at(2, 1), at(2, 2));
    subscribe(&mut stream, quick, PLENTY);
    let rings = subscribe(&mut stream, slow, 150);
    stream.publish(publisher, claimed(life("a", 1), 7)).unwrap();
    append(&mut stream, publisher, 0..4);
    // 150 bytes: after the second frame of 100 nothing is left.
    assert_eq!(read(&mut stream, slow), "published:7 0 1");
    assert_eq!(read(&mut stream, quick), "published:7 0 1 2 3");
    for seq in 4..100 {
        append(&mut stream, publisher, seq..seq + 1);
        assert_eq!(read(&mut stream, quick), seq.to_string());
        assert_eq!(read(&mut stream, slow), "");
    }
    assert!(stream.bytes() <= 4000 + 1000, "{}", stream.bytes());
    rings.take();
    stream.give(slow, 40);
    assert_eq!(rings.take(), Vec::<u32>::new(), "it is still in debt");
    stream.give(slow, PLENTY);
    assert_eq!(rings.take(), [1]);
    assert_eq!(read(&mut stream, slow), "skip:94 c 96 97 98 99");
}

#[test]
fn a_batch_wakes_a_watcher_once_and_not_again_before_it_has_read() {
    let (mut stream, publisher, watcher) = (stream(), at(1, 1), at(2, 9));
    let rings = subscribe(&mut stream, watcher, PLENTY);
    assert_eq!(rings.take(), [9]);
    read(&mut stream, watcher);
    stream.publish(publisher, claimed(life("a", 1), 7)).unwrap();
    append(&mut stream, publisher, 0..50);
    append(&mut stream, publisher, 50..60);
    assert_eq!(rings.take(), [9]);
    read(&mut stream, watcher);
    append(&mut stream, publisher, 60..61);
    assert_eq!(rings.take(), [9]);
}

#[test]
fn a_turn_ends_after_its_quantum_even_for_empty_frames() {
    let (mut stream, publisher, watcher) = (stream(), at(1, 1), at(2, 9));
    let rings = subscribe(&mut stream, watcher, PLENTY);
    stream.publish(publisher, claimed(life("a", 1), 7)).unwrap();
    stream
        .append(publisher, (0..100).map(|seq| usual(seq, 0)), 0)
        .unwrap();
    let mut log = Log::default();
    rings.take();
    assert_eq!(stream.read(watcher, 640, &mut log), Turn::More);
    assert_eq!(log.0.len(), 1 + 10);
    append(&mut stream, publisher, 100..101);
    assert_eq!(rings.take(), Vec::<u32>::new(), "its turn will come anyway");
}

#[test]
fn a_stream_that_sheds_its_past_costs_nothing_to_those_who_have_it() {
    let (mut stream, publisher, quick, slow) = (stream(), at(1, 1), at(2, 1), at(2, 2));
    subscribe(&mut stream, quick, PLENTY);
    subscribe(&mut stream, slow, PLENTY);
    stream.publish(publisher, claimed(life("a", 1), 7)).unwrap();
    append(&mut stream, publisher, 0..9);
    assert_eq!(read(&mut stream, quick), "published:7 0 1 2 3 4 5 6 7 8");
    stream.shed();
    assert_eq!(stream.bytes(), 0);
    append(&mut stream, publisher, 9..13);
    assert_eq!(read(&mut stream, quick), "9 10 11 12");
    assert_eq!(read(&mut stream, slow), "published:7 c 11 12");
}

#[test]
fn the_time_of_receipt_is_that_of_the_frames_batch() {
    struct Times(Vec<u64>);
    impl Sink for Times {
        fn published(&mut self, _: u32, _: Epoch, _: Epoch, _: Option<SpanPlace>) {}
        fn source(&mut self, _: u32, _: State, _: Epoch) {}
        fn in_force(&mut self, _: u32, _: u64, _: &Frame) {}
        fn frame(&mut self, _: u32, _: &Sequenced, ingest_micros: u64) {
            self.0.push(ingest_micros);
        }
        fn skipped(&mut self, _: u32, _: u64) {}
    }
    let (mut stream, publisher, watcher) = (stream(), at(1, 1), at(2, 1));
    subscribe(&mut stream, watcher, PLENTY);
    stream.publish(publisher, claimed(life("a", 1), 7)).unwrap();
    for (seqs, micros) in [(0..2, 10), (2..3, 20), (3..5, 30)] {
        stream
            .append(publisher, seqs.map(|seq| usual(seq, 1)), micros)
            .unwrap();
    }
    let mut times = Times(vec![]);
    stream.read(watcher, usize::MAX, &mut times);
    assert_eq!(times.0, [10, 10, 20, 30, 30]);
}

#[test]
fn small_payloads_do_not_keep_their_batch_alive() {
    let (mut stream, publisher) = (stream(), at(1, 1));
    stream.publish(publisher, claimed(life("a", 1), 7)).unwrap();
    let batch = Bytes::from(vec![1; 1 << 20]);
    let frames = [(Class::Config, 5000), (Class::Key, 100), (Class::Key, 5000)]
        .into_iter()
        .zip(0..)
        .map(|((class, len), seq)| Arrival::Numbered {
            seq,
            frame: Frame {
                payload: batch.slice(..len),
                ..frame(class, seq, 0)
            },
        })
        .collect::<Vec<_>>();
    stream.append(publisher, frames, 0).unwrap();
    let shared = |seq| {
        let at = Position {
            epoch: Epoch(7),
            seq,
        };
        let kept = &stream.incarnations[0]
            .backlog
            .get(at)
            .unwrap()
            .frame
            .payload;
        batch.as_ptr_range().contains(&kept.as_ptr())
    };
    assert_eq!([shared(0), shared(1), shared(2)], [false, false, true]);
}

#[test]
fn the_last_frames_of_a_publish_are_told_though_the_log_was_faster() {
    // Released, or already published anew, over the same link.
    for (newest, held) in [(7, false), (8, true)] {
        let (mut stream, watcher, start) = (stream(), at(2, 1), Instant::now());
        subscribe(&mut stream, watcher, PLENTY);
        stream.publish(at(1, 1), claimed(life("a", 1), 7)).unwrap();
        append(&mut stream, at(1, 1), 0..2);
        let until = start + LAST_FRAMES_GRACE;
        let leaving = stream.decided(Epoch(newest), held, start);
        assert_eq!(
            leaving,
            Some(Leaving {
                by: at(1, 1),
                until
            })
        );
        // It is told once.
        assert_eq!(stream.decided(Epoch(8), true, start), None);
        append(&mut stream, at(1, 1), 2..4);
        assert!(stream.unpublish(at(1, 1), false));
        stream.publish(at(1, 2), claimed(life("a", 1), 8)).unwrap();
        append(&mut stream, at(1, 2), 0..1);
        assert_eq!(
            read(&mut stream, watcher),
            "published:7 0 1 2 3 unpublished published:8 0"
        );
    }
}

#[test]
fn what_the_log_ended_ends_with_its_link_or_the_next_publish_or_the_grace() {
    let ends = |how: fn(&mut Stream, Instant)| {
        let (mut stream, watcher, start) = (stream(), at(2, 1), Instant::now());
        subscribe(&mut stream, watcher, PLENTY);
        stream.publish(at(1, 1), claimed(life("a", 1), 7)).unwrap();
        append(&mut stream, at(1, 1), 0..1);
        assert!(stream.decided(Epoch(7), false, start).is_some());
        how(&mut stream, start);
        assert_eq!(stream.append(at(1, 1), [usual(1, 1)], 0), Err(NotHolder));
        read(&mut stream, watcher)
    };
    let by_link = ends(|stream, start| {
        assert_eq!(stream.link_lost(at(1, 1), start, GRACE), None);
    });
    assert_eq!(by_link, "published:7 0 unpublished");
    let by_next = ends(|stream, _| {
        let grant = stream.publish(at(3, 1), claimed(life("b", 1), 9)).unwrap();
        // It was told so before.
        assert_eq!(grant.superseded, None);
    });
    assert_eq!(by_next, "published:7 0 published:9");
    let by_time = ends(|stream, start| {
        let until = start + LAST_FRAMES_GRACE;
        assert!(!stream.handle_timeout(until.checked_sub(Duration::from_millis(1)).unwrap()));
        assert!(stream.is_held());
        stream.handle_timeout(until);
        assert!(!stream.is_held());
    });
    assert_eq!(by_time, "published:7 0 unpublished");
    // One whose link is lost anyway has nothing more to say.
    let (mut stream, start) = (stream(), Instant::now());
    stream.publish(at(1, 1), claimed(life("a", 1), 7)).unwrap();
    stream.link_lost(at(1, 1), start, GRACE);
    assert_eq!(stream.decided(Epoch(8), true, start), None);
    assert!(!stream.is_held());
}

#[test]
fn watchers_are_told_since_when_it_is_one_stream() {
    let (mut stream, watcher) = (stream(), at(2, 1));
    subscribe(&mut stream, watcher, PLENTY);
    stream.publish(at(1, 1), claimed(life("a", 1), 7)).unwrap();
    let follower = Claimed {
        began: Epoch(7),
        ..claimed(life("b", 1), 9)
    };
    stream.publish(at(3, 1), follower).unwrap();
    assert_eq!(read(&mut stream, watcher), "published:7 published:9<7");
}
