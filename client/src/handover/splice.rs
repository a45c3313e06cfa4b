//! How what one connection gives of a stream follows what another gave of it.
//!
//! ```text
//!   old   V7 A7 V8 A8 A9 V9        seen
//!   new      A7 V7 A8 V8 A9        fresh: it joins at V8, the seam, and at A9
//!   then                    V9     had already
//!                              V10 follows
//! ```
//!
//! Only messages of one kind come in the order in which they were published: by datagrams
//! sounds overtake pictures, and on each connection others. So each kind has a joint of its own.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use model::Class;
use rtmfp::tc::flows::Lane;
use rtmp::{Message, MessageKind};

use crate::Arrival;
use crate::limits::SEAM_PATIENCE;

/// One for each kind of messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kinds<T> {
    data: T,
    audio: T,
    video: T,
}

impl<T> Kinds<T> {
    fn of(&self, message: &Message) -> &T {
        match Lane::of(message.kind, message.stream) {
            Lane::Data => &self.data,
            Lane::Audio => &self.audio,
            Lane::Video => &self.video,
        }
    }

    pub(crate) fn of_mut(&mut self, message: &Message) -> &mut T {
        match Lane::of(message.kind, message.stream) {
            Lane::Data => &mut self.data,
            Lane::Audio => &mut self.audio,
            Lane::Video => &mut self.video,
        }
    }
}

/// The time of the last message of each kind that was given out, configurations apart: the
/// frame that follows one has its time.
pub(crate) type Lasts = Kinds<Option<u32>>;

impl Lasts {
    pub(crate) fn note(&mut self, message: &Message) {
        if !is_config(message) {
            *self.of_mut(message) = Some(message.time);
        }
    }

    /// Whether nothing was given out that is as late.
    pub(crate) fn are_before(&self, message: &Message) -> bool {
        self.newest()
            .is_none_or(|last| is_later(message.time, last))
    }

    /// The latest of them.
    fn newest(&self) -> Option<u32> {
        let all = [self.data, self.audio, self.video].into_iter().flatten();
        all.reduce(|one, other| if is_later(one, other) { one } else { other })
    }

    /// Whether what was in force at this time is so for what was given out: the slowest kind has
    /// come as far. Configurations concern their own kind, data both.
    fn reach(&self, message: &Message) -> bool {
        let not_before = |last: &Option<u32>| last.is_none_or(|last| !is_later(message.time, last));
        match Lane::of(message.kind, message.stream) {
            Lane::Data => not_before(&self.audio) && not_before(&self.video),
            Lane::Audio | Lane::Video => self.of(message).is_some() && not_before(self.of(message)),
        }
    }
}

/// A frame that has come by both: its place in what was seen, and in what is fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seam {
    pub(crate) seen: usize,
    pub(crate) fresh: usize,
}

/// How the messages of the new connection follow those of the old.
#[derive(Debug, Default)]
pub(crate) struct Splice {
    /// Added to their times.
    shift: u32,
    /// Nothing when all that comes is new.
    open: Option<Box<Open>>,
}

#[derive(Debug)]
struct Open {
    joints: Kinds<Joint>,
    /// The latest that was given out.
    newest: u32,
    /// Nothing has come by both, so the clocks may differ.
    apart: bool,
    /// When the newest came of what came before it was gone over.
    since: Option<Instant>,
}

/// How the messages of one kind follow. Data have no order that could be judged by their times:
/// of them, copies alone are left out.
#[derive(Debug, Default)]
struct Joint {
    /// What is still to come and was given out already.
    had: VecDeque<Message>,
    /// The time of the last of what was given out, while nothing has come by both.
    apart: Option<u32>,
    /// Whether configurations are wanted meanwhile.
    anew: bool,
}

impl Splice {
    /// Joins what is fresh to what was seen: at the seam, or if there is none, behind what is
    /// `last`. Gives what follows.
    pub(crate) fn join(
        seam: Option<Seam>,
        seen: VecDeque<Message>,
        fresh: VecDeque<Arrival>,
        last: Lasts,
    ) -> (Self, Vec<Arrival>) {
        let Some(newest) = last.newest() else {
            return (Self::default(), fresh.into());
        };
        let found = seam.and_then(|seam| {
            let there = &fresh.get(seam.fresh)?.message;
            Some((seen.get(seam.seen)?, there))
        });
        let shift = found.map_or(0, |(seen, there)| seen.time.wrapping_sub(there.time));
        let mut pairs = Kinds::<Option<Seam>>::default();
        if let (Some(seam), Some((of, _))) = (seam, found) {
            *pairs.of_mut(of) = Some(seam);
            // The newest that has come by both, of the other kinds.
            for (at, arrival) in fresh.iter().enumerate().rev() {
                let pair = pairs.of_mut(&arrival.message);
                if pair.is_none() {
                    let same = |seen: &Message| is_same(seen, &arrival.message, shift);
                    let seen = seen.iter().rposition(same);
                    *pair = seen.map(|seen| Seam { seen, fresh: at });
                }
            }
        }
        let mut joints = Kinds::<Joint>::default();
        for (at, message) in seen.into_iter().enumerate() {
            if pairs.of(&message).is_none_or(|pair| at > pair.seen) {
                joints.of_mut(&message).had.push_back(message);
            }
        }
        let anew = seam.is_none();
        for (joint, pair, last) in [
            (&mut joints.audio, pairs.audio, last.audio),
            (&mut joints.video, pairs.video, last.video),
        ] {
            joint.apart = last.filter(|_| pair.is_none());
            joint.anew = anew;
        }
        // Before the first frame comes what is in force there.
        let begins = fresh.iter().position(|arrival| is_frame(&arrival.message));
        let begins = begins.unwrap_or(fresh.len());
        let open = Some(Box::new(Open {
            joints,
            newest,
            apart: anew,
            since: fresh.back().map(|arrival| arrival.at),
        }));
        let mut splice = Self { shift, open };
        if anew && let Some(first) = fresh.get(begins) {
            splice.judge_clock(first.message.time);
        }
        let mut follows = Vec::new();
        for (at, arrival) in fresh.into_iter().enumerate() {
            let mut there = arrival.message.clone();
            there.time = there.time.wrapping_add(shift);
            let is_old = pairs.of(&there).map_or_else(
                || !anew && at < begins && last.reach(&there),
                |pair| at <= pair.fresh,
            );
            if !is_old {
                follows.extend(splice.pass(arrival));
            }
        }
        (splice, follows)
    }

    /// The first frame of the new connection, by which nothing has come that came by the old: if
    /// it is from long before, servers count differently, and the times go on from here.
    fn judge_clock(&mut self, first: u32) {
        let Some(open) = &mut self.open else {
            return;
        };
        open.apart = false;
        if is_later(open.newest, first.wrapping_add(patience())) {
            self.shift = open.newest.wrapping_add(1).wrapping_sub(first);
            self.open = None;
        }
    }

    /// The message as the player is to get it, if it has not had it.
    pub(crate) fn pass(&mut self, mut arrival: Arrival) -> Option<Arrival> {
        let message = &mut arrival.message;
        if self.open.as_ref().is_some_and(|open| open.apart) && is_frame(message) {
            self.judge_clock(message.time);
        }
        message.time = message.time.wrapping_add(self.shift);
        let Some(open) = &mut self.open else {
            return Some(arrival);
        };
        // What is much later is new, whatever was not heard of by then; and whatever the times
        // say, nothing of the old connection comes any more.
        let since = *open.since.get_or_insert(arrival.at);
        let long = arrival.at.saturating_duration_since(since) > SEAM_PATIENCE;
        if long || is_later(message.time, open.newest.wrapping_add(patience())) {
            self.open = None;
            return Some(arrival);
        }
        open.joints.of_mut(message).pass(message).then_some(arrival)
    }
}

impl Joint {
    /// Whether it was not given out already.
    fn pass(&mut self, message: &Message) -> bool {
        if let Some(last) = self.apart {
            if let Some(at) = self.had.iter().position(|had| is_same(had, message, 0)) {
                self.had.drain(..=at);
                self.apart = None;
                return false;
            }
            if is_config(message) {
                let was_given = self.had.iter().any(|had| is_copy(had, message, 0));
                return !was_given && (self.anew || is_later(message.time, last));
            }
            if !is_later(message.time, last) {
                return false;
            }
            *self = Self::default();
            return true;
        }
        if let Some(at) = self.had.iter().position(|had| is_copy(had, message, 0)) {
            self.had.drain(..=at);
            return false;
        }
        match self.had.back().map(|had| had.time) {
            Some(last) if is_later(message.time, last) => {
                // The new server has left some of it out.
                self.had.clear();
                true
            }
            // The old one had left it out, and has given what is behind it.
            Some(last) => !(is_frame(message) && is_later(last, message.time)),
            None => true,
        }
    }
}

/// [`SEAM_PATIENCE`], in milliseconds.
fn patience() -> u32 {
    u32::try_from(SEAM_PATIENCE.as_millis()).unwrap_or(u32::MAX)
}

/// Whether it is a picture or a sound.
fn is_frame(message: &Message) -> bool {
    Lane::of(message.kind, message.stream) != Lane::Data && !is_config(message)
}

/// Whether both are the same frame of one stream. Sounds may repeat themselves, so their times
/// have to agree; of pictures that is not asked, because servers may have shifted them.
pub(crate) fn is_seam(seen: &Message, fresh: &Message) -> bool {
    seen.kind == fresh.kind
        && matches!(seen.kind, MessageKind::Audio | MessageKind::Video)
        && (seen.time == fresh.time || seen.kind == MessageKind::Video)
        && seen.payload == fresh.payload
        && !is_config(fresh)
}

/// As [`is_seam`], of any kind, where it is known by how much the clocks differ.
fn is_same(seen: &Message, fresh: &Message, shift: u32) -> bool {
    is_copy(seen, fresh, shift) && !is_config(fresh)
}

/// As [`is_same`], also of configurations, which may come again and again.
fn is_copy(seen: &Message, fresh: &Message, shift: u32) -> bool {
    seen.kind == fresh.kind
        && seen.time == fresh.time.wrapping_add(shift)
        && seen.payload == fresh.payload
}

fn is_config(message: &Message) -> bool {
    let class = |payload: &Bytes| match message.kind {
        MessageKind::Audio => flv::classify_audio(payload).class,
        MessageKind::Video => flv::classify_video(payload).class,
        MessageKind::UserControl
        | MessageKind::DataAmf3
        | MessageKind::SharedObjectAmf3
        | MessageKind::CommandAmf3
        | MessageKind::DataAmf0
        | MessageKind::SharedObjectAmf0
        | MessageKind::CommandAmf0 => Class::Data,
    };
    class(&message.payload) == Class::Config
}

/// The clock of the wire runs around.
fn is_later(time: u32, than: u32) -> bool {
    time.wrapping_sub(than).cast_signed() > 0
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rtmp::StreamId;

    use super::*;

    /// `V7` is the picture number 7, `A7` the sound of its time, `C` what both need.
    fn message(word: &str) -> Message {
        let number = word.get(1..).unwrap().parse().unwrap_or(0_u32);
        let (kind, payload) = match word.get(..1) {
            // Silence: it is the same each time.
            Some("A") => (MessageKind::Audio, vec![0xaf, 1, 0x21]),
            Some("C") => (MessageKind::Video, vec![0x17, 0, 0, 0, 0]),
            // Said at no time.
            Some("D") => {
                let [.., low] = number.to_be_bytes();
                let payload = vec![2, 0, 1, b'd', 5, low];
                return Message {
                    kind: MessageKind::DataAmf0,
                    stream: StreamId(1),
                    time: 0,
                    payload: payload.into(),
                };
            }
            _ => {
                let [.., low] = number.to_be_bytes();
                (MessageKind::Video, vec![0x27, 1, 0, 0, 0, low])
            }
        };
        Message {
            kind,
            stream: StreamId(1),
            time: number * 40,
            payload: payload.into(),
        }
    }

    fn messages(words: &str) -> impl Iterator<Item = Message> {
        words.split_whitespace().map(message)
    }

    fn arrival(mut message: Message, shift: u32) -> Arrival {
        message.time = message.time.wrapping_sub(shift);
        let at = Instant::now();
        Arrival { message, at }
    }

    fn word(arrival: &Arrival) -> String {
        let Arrival { message, .. } = arrival;
        let letter = if message.kind == MessageKind::Audio {
            "A"
        } else if message.kind == MessageKind::DataAmf0 {
            return format!("D{}", message.payload[5]);
        } else if is_config(message) {
            "C"
        } else {
            "V"
        };
        format!("{letter}{}", message.time / 40)
    }

    /// What is given out of the new connection: `fresh` when it goes over, and then the rest.
    fn joined(old: &str, fresh: &str, rest: &str, shift: u32) -> String {
        let seen: VecDeque<_> = messages(old).collect();
        let fresh: VecDeque<_> = messages(fresh).map(|it| arrival(it, shift)).collect();
        let mut last = Lasts::default();
        for message in &seen {
            last.note(message);
        }
        let seam = fresh.iter().enumerate().rev().find_map(|(at, arrival)| {
            let seen = seen.iter().rposition(|it| is_seam(it, &arrival.message))?;
            Some(Seam { seen, fresh: at })
        });
        let (mut splice, mut follows) = Splice::join(seam, seen, fresh, last);
        let rest = messages(rest).filter_map(|it| splice.pass(arrival(it, shift)));
        follows.extend(rest);
        let words: Vec<_> = follows.iter().map(word).collect();
        words.join(" ")
    }

    #[test]
    fn each_kind_is_joined_where_it_was_left_whatever_overtook_it() {
        for shift in [0, 7] {
            for (old, fresh, rest, follows) in [
                ("V1 A1 V2 A2", "C0 V1 A1", "V2 A2 V3 A3", "V3 A3"),
                // A sound that was not seen yet stands before the seam.
                ("V1 A1 V2", "V1 A1 A2 V2", "V3 A3", "A2 V3 A3"),
                // One that was seen comes behind it.
                ("V1 A1 A2 V2", "C0 V1 V2", "A1 A2 V3 A3", "V3 A3"),
                // None has come by both.
                ("A1 V1 A2 V2", "V2", "A3 V3", "A3 V3"),
                ("V8 A8 V9", "A7 V9", "A8 A9 V10", "A9 V10"),
                // It has left something out.
                ("V1 A1 V2 A2 V3 A3", "V1 A1", "V3 V4 A4", "V4 A4"),
                // The old one had left V8 out, and nothing goes back in time.
                ("V7 V9", "V7", "V8 V9 V10", "V10"),
            ] {
                let got = joined(old, fresh, rest, shift);
                assert_eq!(got, follows, "{old} | {fresh} | {rest}, {shift} ms");
            }
        }
    }

    #[test]
    fn what_a_publish_begins_with_is_not_taken_for_the_frame_of_its_time() {
        let got = joined("V1 A1 C2 A2", "C2 A2", "V2 V3 A3", 0);
        assert_eq!(got, "V2 V3 A3");
    }

    #[test]
    fn a_new_configuration_that_a_sound_overtook_comes_with_its_picture() {
        let got = joined("V9 A9 A10", "C10 V10 A10", "V11 A11", 0);
        assert_eq!(got, "C10 V10 V11 A11");
    }

    #[test]
    fn without_a_seam_what_is_later_follows_in_each_kind() {
        let got = joined("V1 A1 V2 A2 A3", "C0 V3", "A3 A4 V4", 0);
        assert_eq!(got, "C0 V3 A4 V4");
    }

    /// Both kinds from their first numbers to their last, each in order; which comes next is
    /// drawn.
    fn merged(
        pictures: std::ops::Range<usize>,
        sounds: std::ops::Range<usize>,
        drawn: &[bool],
    ) -> Vec<String> {
        let (mut pictures, mut sounds) = (pictures.peekable(), sounds.peekable());
        let mut words = Vec::new();
        let mut drawn = drawn.iter().cycle();
        while pictures.peek().is_some() || sounds.peek().is_some() {
            let picture = drawn.next() == Some(&true);
            let next = if picture {
                pictures.next().map(|number| format!("V{number}"))
            } else {
                sounds.next().map(|number| format!("A{number}"))
            };
            words.extend(next);
        }
        words
    }

    proptest::proptest! {
        /// Wherever the old one ended and the new one began in each kind, and whatever overtook
        /// what on either: nothing is lost, nothing comes twice or in another order.
        #[test]
        fn nothing_is_lost_or_doubled(
            joins in 1..20_usize,
            more in (0..12_usize, 0..12_usize),
            before in 0..3_usize,
            shifted in proptest::bool::ANY,
            old_drawn in proptest::collection::vec(proptest::bool::ANY, 1..20),
            new_drawn in proptest::collection::vec(proptest::bool::ANY, 1..20),
        ) {
            const END: usize = 48;
            // A cycle of one kind alone would never come to the other.
            let both = |mut drawn: Vec<bool>| {
                drawn.extend([true, false]);
                drawn
            };
            let (old_drawn, new_drawn) = (both(old_drawn), both(new_drawn));
            let ends = (joins + 1 + more.0, joins + 1 + more.1);
            let old = merged(1..ends.0, 1..ends.1, &old_drawn);
            let from = joins.saturating_sub(before).max(1);
            let new = merged(joins..END, from..END, &new_drawn);
            let shift = if shifted { 7 } else { 0 };
            let seen: Vec<_> = old.iter().map(|word| message(word)).collect();
            let meets = |word: &String| {
                let fresh = arrival(message(word), shift).message;
                seen.iter().any(|seen| is_seam(seen, &fresh))
            };
            let at = new.iter().position(meets).expect("they overlap");
            let (fresh, rest) = new.split_at(at + 1);
            let fresh = format!("C{joins} {}", fresh.join(" "));
            let got = joined(&old.join(" "), &fresh, &rest.join(" "), shift);
            for (kind, end) in [("V", ends.0), ("A", ends.1)] {
                let numbers: Vec<usize> = got
                    .split(' ')
                    .filter_map(|word| word.strip_prefix(kind)?.parse().ok())
                    .collect();
                let follow: Vec<_> = (end..END).collect();
                proptest::prop_assert_eq!(numbers, follow, "{}: {:?} | {:?}", kind, &old, &new);
            }
        }
    }

    #[test]
    fn data_without_times_go_on() {
        for (old, fresh) in [("V1 D1 D2", "V1 D1"), ("D1 D2", ""), ("V1 D2", "A3")] {
            let got = joined(old, fresh, "D2 D3 D4", 0);
            assert!(
                got.ends_with("D3 D4") && !got.contains("D2"),
                "{old}: {got}"
            );
        }
    }

    #[test]
    fn a_server_with_another_clock_goes_on_where_the_other_was() {
        let hour = 90_000;
        for (fresh, rest) in [("A7 A8", "A9"), ("", "A7 A8 A9")] {
            let old = format!("A{} A{hour}", hour - 1);
            let got = joined(&old, fresh, rest, 0);
            let last = hour * 40;
            let times: Vec<_> = got.split(' ').collect();
            assert_eq!(times.len(), 3, "{got}");
            assert_eq!(
                got,
                format!("A{hour} A{} A{}", hour + 1, hour + 2),
                "{last}"
            );
        }
    }

    #[test]
    fn whatever_the_times_say_it_is_not_silent_for_long() {
        let mut last = Lasts::default();
        let seen: VecDeque<_> = messages("A200 V200").collect();
        seen.iter().for_each(|message| last.note(message));
        let (mut splice, _) = Splice::join(None, seen, VecDeque::new(), last);
        let start = Instant::now();
        let mut pass = |word, at| {
            let mut arrival = arrival(message(word), 0);
            arrival.at = start + at;
            splice.pass(arrival).is_some()
        };
        assert!(!pass("A100", std::time::Duration::ZERO));
        assert!(!pass("A101", SEAM_PATIENCE));
        assert!(pass("A102", SEAM_PATIENCE * 2));
    }

    #[test]
    fn what_is_long_past_is_not_kept() {
        let mut last = Lasts::default();
        let seen: VecDeque<_> = messages("A1 V1").collect();
        seen.iter().for_each(|message| last.note(message));
        let (mut splice, _) = Splice::join(None, seen, VecDeque::new(), last);
        let patience = u32::try_from(SEAM_PATIENCE.as_millis()).unwrap();
        let then = message(&format!("V{}", 2 + patience / 40));
        assert!(splice.pass(arrival(then, 0)).is_some());
        assert!(splice.open.is_none());
    }
}
