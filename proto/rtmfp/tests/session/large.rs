//! Messages of every length, over a network that is unkind to each in the same way.

use super::*;
use bytes::Bytes;
use selvage_rtmfp::limits::MESSAGE_MAX;

/// Two sessions and what is between them. Every seventh packet with data is lost, every
/// fifth comes twice, and packets overtake each other.
struct Pair {
    now: Instant,
    ends: [Session; 2],
    flying: Vec<(usize, Vec<u8>)>,
    sent: u32,
    held_max: usize,
}

const HERE: usize = 0;
const THERE: usize = 1;

impl Pair {
    fn new(receive_buffer: usize) -> Self {
        let now = Played::new().now;
        let config = || Config {
            receive_buffer,
            queue_max: 2 * MESSAGE_MAX,
            ..Config::default()
        };
        let far = SocketAddr::from(([192, 0, 2, 1], 5000));
        let end = |mode| Session::new(config(), mode, far, [1; 32], now);
        Self {
            now,
            ends: [end(Mode::Initiator), end(Mode::Responder)],
            flying: Vec::new(),
            sent: 0,
            held_max: 0,
        }
    }

    fn step(&mut self, unkind: bool) -> Vec<Bytes> {
        let mut buffer = [0; DATAGRAM_MAX];
        for end in [HERE, THERE] {
            if self.ends[end]
                .next_deadline()
                .is_some_and(|due| due.at <= self.now)
            {
                self.ends[end].handle_timeout(self.now);
            }
            while let Some(packet) = self.ends[end].poll_transmit(&mut buffer, self.now) {
                let bytes = buffer[..packet.len].to_vec();
                self.sent += 1;
                if unkind && end == HERE && self.sent.is_multiple_of(7) {
                    continue;
                }
                if unkind && self.sent.is_multiple_of(5) {
                    self.flying.push((1 - end, bytes.clone()));
                }
                self.flying.push((1 - end, bytes));
            }
        }
        if unkind {
            self.flying.reverse();
        }
        if self.flying.is_empty() {
            let due = self.ends.each_ref().map(Session::next_deadline);
            let due = due.into_iter().flatten().map(|due| due.at).min();
            self.now = self.now.max(due.unwrap());
        }
        self.now += Duration::from_millis(5);
        let mut messages = Vec::new();
        for (to, packet) in std::mem::take(&mut self.flying) {
            let far = self.ends[to].far();
            self.ends[to].handle_packet(far, &packet, self.now);
            self.held_max = self.held_max.max(self.ends[THERE].buffered());
        }
        for end in [HERE, THERE] {
            while let Some(event) = self.ends[end].poll_event() {
                if let Event::Message { message, .. } = event {
                    messages.push(message.bytes);
                }
                assert!(self.ends[end].is_open());
            }
        }
        messages
    }

    /// Sends messages of these lengths in one flow, and gets them there.
    fn carry(&mut self, lens: &[usize], unkind: bool) {
        let flow = self.ends[HERE].open_flow(b"m", Options::default()).unwrap();
        for len in lens {
            let now = self.now;
            self.ends[HERE]
                .write(flow, body(*len), Priority::Data, None, now)
                .unwrap();
        }
        let mut got = Vec::new();
        for _ in 0..200_000 {
            got.extend(self.step(unkind));
            if got.len() == lens.len() {
                break;
            }
        }
        let lengths: Vec<_> = got.iter().map(Bytes::len).collect();
        assert_eq!(lengths, lens);
        assert!(got.iter().all(|bytes| *bytes == body(bytes.len())));
    }
}

fn body(len: usize) -> Bytes {
    (0..len)
        .map(|at| (at * 7 + len + at / 251).to_le_bytes()[0])
        .collect()
}

#[test]
fn messages_of_every_length_around_a_packets_come_whole_and_in_order() {
    let lens: Vec<_> = (0..40)
        .chain(1050..1200)
        .chain([2400, 65_535, 65_536])
        .collect();
    for unkind in [false, true] {
        Pair::new(512 * 1024).carry(&lens, unkind);
    }
}

#[test]
fn a_message_of_16_megabytes_is_held_and_hardly_more() {
    for receive_buffer in [1, 64 * 1024, 512 * 1024] {
        // A closed window lets one packet through at a time: that is for shorter ones.
        let (len, unkind) = match receive_buffer {
            1 => (70_000, true),
            _ => (0xff_ffff, false),
        };
        let mut pair = Pair::new(receive_buffer);
        pair.carry(&[len], unkind);
        let most = len + 4 * receive_buffer.max(65_536);
        assert!(pair.held_max <= most, "{} of {len}", pair.held_max);
        assert_eq!(pair.ends[THERE].buffered(), 0);
    }
}

#[test]
fn a_message_that_is_too_long_is_not_begun_and_one_that_grows_too_long_is_rejected() {
    let mut played = Played::new();
    let flow = played.open();
    let now = played.now;
    let len = MESSAGE_MAX + 1;
    let refused = played
        .session
        .write(flow, vec![0; len], Priority::Data, None, now);
    assert_eq!(refused, Err(Refused::TooLong { len }));

    let part = vec![0; 4000];
    let mut sequence = 0;
    let broken = loop {
        sequence += 1;
        played.receive(&[Chunk::UserData(UserData {
            fragment: if sequence == 1 {
                Fragment::Begin
            } else {
                Fragment::Middle
            },
            ..data(sequence, 0, &part)
        })]);
        played.sent();
        let events = played.events();
        if events
            .iter()
            .any(|it| matches!(it, Event::FlowBroken { .. }))
        {
            break sequence;
        }
        assert!(played.session.buffered() <= MESSAGE_MAX);
    };
    assert_eq!(broken, MESSAGE_MAX as u64 / 4000 + 1);
    assert_eq!(played.session.buffered(), 0);
    assert!(played.session.is_open());
}
