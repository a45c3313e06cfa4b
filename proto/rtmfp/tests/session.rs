//! The life of a session, packet by packet.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a broken example is to end the test at once"
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use selvage_rtmfp::chunk::{Ack, AckForm, Chunk, Fragment, UserData};
use selvage_rtmfp::flow::{Options, Order, Priority, ReceiveId, SendId};
use selvage_rtmfp::limits::DATAGRAM_MAX;
use selvage_rtmfp::option::Options as WireOptions;
use selvage_rtmfp::packet::{Header, Mode, Packet, PacketWriter};
use selvage_rtmfp::session::{Closed, Config, Event, Manners, Refused, Session};

/// A session and a far end that is played by hand.
struct Played {
    session: Session,
    now: Instant,
    far: SocketAddr,
}

/// A chunk as the test reads it: its type code and some of what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Data {
        sequence: u64,
        forward: u64,
        abandoned: bool,
        last: bool,
        len: usize,
    },
    Ack {
        flow: u64,
        blocks: u64,
        cumulative: u64,
        beyond: Vec<(u64, u64)>,
    },
    Exception {
        flow: u64,
        code: u64,
    },
    Probe,
    Ping(Vec<u8>),
    PingReply(Vec<u8>),
    Close,
    CloseAck,
}

fn seen(chunk: Chunk<'_>) -> Seen {
    match chunk {
        Chunk::UserData(data) | Chunk::NextUserData(data) => Seen::Data {
            sequence: data.sequence,
            forward: data.forward,
            abandoned: data.abandoned,
            last: data.last,
            len: data.data.len(),
        },
        Chunk::Ack(ack) => Seen::Ack {
            flow: ack.flow,
            blocks: ack.buffer_blocks,
            cumulative: ack.cumulative,
            beyond: ack
                .received()
                .map(|range| (*range.start(), *range.end()))
                .collect(),
        },
        Chunk::FlowException { flow, code } => Seen::Exception { flow, code },
        Chunk::BufferProbe { .. } => Seen::Probe,
        Chunk::Ping(message) => Seen::Ping(message.to_vec()),
        Chunk::PingReply(message) => Seen::PingReply(message.to_vec()),
        Chunk::Close => Seen::Close,
        Chunk::CloseAck => Seen::CloseAck,
        other => panic!("not expected: {other:?}"),
    }
}

impl Played {
    fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        #[allow(
            clippy::disallowed_methods,
            reason = "a test needs some instant to start from"
        )]
        let start = Instant::now();
        let far = SocketAddr::from(([192, 0, 2, 1], 5000));
        Self {
            session: Session::new(config, Mode::Responder, far, [1; 32], start),
            now: start,
            far,
        }
    }

    fn receive(&mut self, chunks: &[Chunk<'_>]) {
        self.receive_from(self.far, chunks);
    }

    fn receive_from(&mut self, from: SocketAddr, chunks: &[Chunk<'_>]) {
        let mut buffer = [0; 4096];
        let header = Header::new(Mode::Initiator);
        let mut packet = PacketWriter::new(&mut buffer, &header).unwrap();
        for chunk in chunks {
            packet.chunk(chunk).unwrap();
        }
        let len = packet.finish();
        self.session.handle_packet(from, &buffer[..len], self.now);
    }

    /// The packets that go out, with where they go.
    fn sent_to(&mut self) -> Vec<(SocketAddr, Vec<Seen>)> {
        let mut buffer = [0; DATAGRAM_MAX];
        let mut sent = Vec::new();
        while let Some(packet) = self.session.poll_transmit(&mut buffer, self.now) {
            let read = Packet::parse(&buffer[..packet.len]).unwrap();
            assert_eq!(read.header.mode, Mode::Responder);
            assert!(
                read.header.timestamp.is_some(),
                "every packet has a timestamp"
            );
            sent.push((packet.to, read.chunks().map(seen).collect()));
        }
        sent
    }

    fn sent(&mut self) -> Vec<Vec<Seen>> {
        self.sent_to()
            .into_iter()
            .map(|(_, chunks)| chunks)
            .collect()
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.session.poll_event()).collect()
    }

    /// Lets time pass, and what is due happen. Returns what is sent meanwhile.
    fn wait(&mut self, ms: u64) -> Vec<Vec<Seen>> {
        let until = self.now + Duration::from_millis(ms);
        let mut sent = Vec::new();
        while let Some(due) = self.session.next_deadline()
            && due.at <= until
        {
            self.now = self.now.max(due.at);
            self.session.handle_timeout(self.now);
            sent.extend(self.sent());
        }
        self.now = until;
        sent
    }

    fn write(&mut self, flow: SendId, bytes: &'static [u8]) {
        let written = self
            .session
            .write(flow, bytes, Priority::Data, None, self.now);
        written.unwrap();
    }

    fn open(&mut self) -> SendId {
        self.session.open_flow(b"m", Options::default()).unwrap()
    }

    fn ack(&mut self, flow: SendId, blocks: u64, cumulative: u64, ranges: &[u8]) {
        self.receive(&[Chunk::Ack(Ack {
            flow: flow.0,
            buffer_blocks: blocks,
            cumulative,
            form: AckForm::Ranges,
            beyond: ranges,
        })]);
    }
}

/// Metadata `m` as an option.
const METADATA: &[u8] = &[2, 0, b'm'];

fn data(sequence: u64, forward: u64, bytes: &[u8]) -> UserData<'_> {
    UserData {
        flow: 9,
        sequence,
        forward,
        fragment: Fragment::Whole,
        abandoned: false,
        last: false,
        options: WireOptions::parse_all(METADATA),
        data: bytes,
    }
}

fn ack(cumulative: u64, beyond: &[(u64, u64)]) -> Seen {
    Seen::Ack {
        flow: 9,
        blocks: 512,
        cumulative,
        beyond: beyond.to_vec(),
    }
}

#[test]
fn the_receiver_of_figure_23_acknowledges_as_it_says() {
    let mut played = Played::new();
    let mut step = |sequence, offset| {
        played.receive(&[Chunk::UserData(data(sequence, sequence - offset, b"x"))]);
        played.sent()
    };
    // The first packet of a flow, and what is before 29 given up.
    assert_eq!(step(1, 1), [[ack(1, &[])]]);
    assert!(step(29, 1).is_empty(), "one packet alone waits");
    assert_eq!(step(30, 12), [[ack(30, &[])]]);
    assert_eq!(step(32, 12), [[ack(30, &[(32, 32)])]]);
    assert_eq!(step(34, 12), [[ack(30, &[(32, 32), (34, 34)])]]);
    for sequence in 35..46 {
        step(sequence, 16);
    }
    assert_eq!(step(46, 16), [[ack(30, &[(32, 32), (34, 46)])]]);
    assert_eq!(step(47, 15), [[ack(32, &[(34, 47)])]]);
    assert_eq!(step(33, 1), [[ack(47, &[])]]);
    assert!(step(48, 16).is_empty());
    assert_eq!(step(49, 17), [[ack(49, &[])]]);
}

#[test]
fn a_lone_packet_is_acknowledged_within_200_ms() {
    let mut played = Played::new();
    played.receive(&[Chunk::UserData(data(1, 0, b"x"))]);
    assert_eq!(played.sent().len(), 1);
    played.receive(&[Chunk::UserData(data(2, 0, b"x"))]);
    assert!(played.wait(199).is_empty());
    assert_eq!(played.wait(1), [[ack(2, &[])]]);
}

#[test]
fn duplicates_abandoned_numbers_and_the_end_are_acknowledged_at_once() {
    let mut played = Played::new();
    played.receive(&[Chunk::UserData(data(1, 0, b"x"))]);
    played.sent();
    played.receive(&[Chunk::UserData(data(1, 0, b"x"))]);
    assert_eq!(played.sent(), [[ack(1, &[])]], "a duplicate");
    let abandoned = UserData {
        abandoned: true,
        ..data(2, 2, b"")
    };
    played.receive(&[Chunk::UserData(abandoned)]);
    assert_eq!(played.sent(), [[ack(2, &[])]], "an abandoned number");
    let last = UserData {
        last: true,
        ..data(3, 2, b"y")
    };
    played.receive(&[Chunk::UserData(last)]);
    assert_eq!(played.sent(), [[ack(3, &[])]], "the end");
    let events = played.events();
    assert_eq!(
        events.len(),
        4,
        "opened, two messages, complete: {events:?}"
    );
    let flow = ReceiveId(9);
    assert_eq!(events[3], Event::FlowComplete { flow });
}

#[test]
fn an_end_that_the_forward_number_covers_is_the_end() {
    let mut played = Played::new();
    played.receive(&[Chunk::UserData(data(1, 0, b"x"))]);
    let end = UserData {
        abandoned: true,
        last: true,
        ..data(5, 5, b"")
    };
    played.receive(&[Chunk::UserData(end)]);
    let flow = ReceiveId(9);
    assert!(played.events().contains(&Event::FlowComplete { flow }));
}

#[test]
fn the_number_of_a_flow_is_taken_for_two_minutes_after_its_end() {
    let mut played = Played::new();
    let whole = UserData {
        last: true,
        ..data(1, 0, b"x")
    };
    let opened = |played: &mut Played| {
        played.receive(&[Chunk::UserData(whole)]);
        let is_opened = |event: &Event| matches!(event, Event::FlowOpened { .. });
        played.events().iter().any(is_opened)
    };
    assert!(opened(&mut played));
    for _ in 0..11 {
        played.wait(10_000);
        assert!(!opened(&mut played), "a repetition is no new flow");
    }
    played.wait(10_000);
    assert!(opened(&mut played));
}

#[test]
fn flows_without_metadata_or_with_a_wrong_association_are_rejected() {
    for options in [&b""[..], &[2, 0, b'm', 2, 0x0a, 77], &[2, 0, b'm', 1, 0x1e]] {
        let mut played = Played::new();
        let wrong = UserData {
            options: WireOptions::parse_all(options),
            ..data(1, 0, b"x")
        };
        played.receive(&[Chunk::UserData(wrong)]);
        let sent = played.sent();
        assert_eq!(sent[0][0], Seen::Exception { flow: 9, code: 0 });
        assert!(matches!(sent[0][1], Seen::Ack { cumulative: 1, .. }));
        assert!(played.events().is_empty());
    }
}

#[test]
fn a_rejection_stands_before_every_acknowledgement() {
    let mut played = Played::new();
    played.receive(&[Chunk::UserData(data(1, 0, b"x"))]);
    played.session.reject(ReceiveId(9), 7);
    for sequence in 2..4 {
        let sent = played.sent();
        assert_eq!(sent[0][0], Seen::Exception { flow: 9, code: 7 });
        played.receive(&[Chunk::UserData(data(sequence, 0, b"x"))]);
    }
}

#[test]
fn in_the_order_of_arrival_a_whole_message_passes_a_gap() {
    let mut played = Played::new();
    played.receive(&[Chunk::UserData(data(1, 0, b"1"))]);
    played.session.set_order(ReceiveId(9), Order::Arrival);
    let part = |sequence, fragment, bytes| {
        Chunk::UserData(UserData {
            fragment,
            ..data(sequence, 0, bytes)
        })
    };
    played.events();
    played.receive(&[part(5, Fragment::End, b"c"), part(3, Fragment::Begin, b"a")]);
    assert!(played.events().is_empty());
    played.receive(&[part(4, Fragment::Middle, b"b")]);
    let events = played.events();
    assert!(
        matches!(&events[..], [Event::Message { message, .. }] if &message.bytes[..] == b"abc")
    );
    played.receive(&[part(2, Fragment::Whole, b"2")]);
    assert_eq!(played.events().len(), 1);
}

#[test]
fn a_suspended_flow_closes_its_window_and_opens_it_again() {
    let mut played = Played::with(Config {
        receive_buffer: 2048,
        ..Config::default()
    });
    played.receive(&[Chunk::UserData(data(1, 0, b"x"))]);
    played.session.suspend(ReceiveId(9), true);
    played.sent();
    for sequence in 2..5 {
        played.receive(&[Chunk::UserData(data(sequence, 0, &[0; 1000]))]);
    }
    let blocks = |sent: &[Vec<Seen>]| match sent.last().and_then(|chunks| chunks.last()) {
        Some(Seen::Ack { blocks, .. }) => *blocks,
        other => panic!("{other:?}"),
    };
    assert_eq!(blocks(&played.sent()), 0);
    played.session.suspend(ReceiveId(9), false);
    assert_eq!(blocks(&played.sent()), 2);
    assert_eq!(played.events().len(), 5);
}

#[test]
fn metadata_go_with_every_packet_until_the_first_acknowledgement() {
    let mut played = Played::new();
    let flow = played.open();
    let with_options = |played: &mut Played| {
        let mut buffer = [0; DATAGRAM_MAX];
        let packet = played
            .session
            .poll_transmit(&mut buffer, played.now)
            .unwrap();
        let read = Packet::parse(&buffer[..packet.len]).unwrap();
        let first = read.chunks().next();
        matches!(first, Some(Chunk::UserData(data)) if data.options.is_some())
    };
    played.write(flow, b"one");
    assert!(with_options(&mut played));
    played.write(flow, b"two");
    assert!(with_options(&mut played));
    played.ack(flow, 64, 2, &[]);
    played.write(flow, b"three");
    assert!(!with_options(&mut played));
}

#[test]
fn a_fragment_goes_again_after_three_later_acknowledgements() {
    let mut played = Played::new();
    let flow = played.open();
    for _ in 0..6 {
        played.write(flow, b"x");
        played.sent();
    }
    played.ack(flow, 64, 0, &[0, 0]);
    assert!(played.sent().is_empty());
    played.ack(flow, 64, 0, &[0, 1]);
    assert!(played.sent().is_empty());
    played.ack(flow, 64, 0, &[0, 2]);
    let sent = played.sent();
    assert!(matches!(
        sent[0][0],
        Seen::Data {
            sequence: 1,
            forward: 0,
            ..
        }
    ));
    assert_eq!(sent.concat().len(), 1, "and nothing else");
}

#[test]
fn an_abandoned_tail_is_announced_until_it_is_acknowledged() {
    let mut played = Played::new();
    let flow = played.open();
    let late = Some(played.now + Duration::from_millis(100));
    let now = played.now;
    for bytes in [&b"1"[..], b"2", b"3", b"4"] {
        let deadline = if bytes == b"1" { late } else { None };
        played
            .session
            .write(flow, bytes.to_vec(), Priority::Data, deadline, now)
            .unwrap();
        played.sent();
    }
    // 1 is lost; the others came. Nothing else will be sent that could carry the news.
    played.wait(100);
    assert!(matches!(played.events()[..], [Event::Late { .. }]));
    for to in 0..3 {
        played.ack(flow, 64, 0, &[0, to]);
    }
    let update = Seen::Data {
        sequence: 1,
        forward: 1,
        abandoned: true,
        last: false,
        len: 0,
    };
    assert_eq!(played.sent(), [[update.clone()]]);
    let again = played.wait(4000).concat();
    assert!(again.contains(&update), "{again:?}");
    played.ack(flow, 64, 4, &[]);
    let after = played.wait(10_000).concat();
    assert!(!after.contains(&update));
    assert_eq!(played.session.flow_stats(flow).unwrap().delivered, 3);
}

#[test]
fn news_of_a_gap_are_repeated_when_an_older_transmission_was_the_one_that_came() {
    let mut played = Played::new();
    let flow = played.open();
    let late = Some(played.now + Duration::from_millis(100));
    let now = played.now;
    for deadline in [late, None] {
        let written = played
            .session
            .write(flow, &b"x"[..], Priority::Data, deadline, now);
        written.unwrap();
        played.sent();
    }
    let again = played.wait(3000).concat();
    let carrier = Seen::Data {
        sequence: 2,
        forward: 1,
        abandoned: false,
        last: false,
        len: 1,
    };
    assert!(again.contains(&carrier), "{again:?}");
    // The far end has 2 from its first transmission, and waits for 1.
    played.ack(flow, 64, 0, &[0, 0]);
    let update = Seen::Data {
        sequence: 2,
        forward: 2,
        abandoned: true,
        last: false,
        len: 0,
    };
    assert!(played.sent().concat().contains(&update));
    played.ack(flow, 64, 2, &[]);
    assert_eq!(played.session.in_flight().1, 0);
}

#[test]
fn a_closed_window_is_probed_and_touchy_peers_get_no_probe() {
    for (manners, probe) in [
        (Manners::Standard, Seen::Probe),
        (
            Manners::Touchy,
            Seen::Data {
                sequence: 1,
                forward: 1,
                abandoned: true,
                last: false,
                len: 0,
            },
        ),
    ] {
        let mut played = Played::with(Config {
            manners,
            ..Config::default()
        });
        let flow = played.open();
        played.write(flow, b"one");
        played.sent();
        played.ack(flow, 0, 1, &[]);
        played.write(flow, b"two");
        assert!(played.sent().is_empty());
        let probes = |sent: Vec<Vec<Seen>>| sent.concat().iter().filter(|it| **it == probe).count();
        let first = played.wait(3500);
        assert_eq!(probes(first), 1);
        played.receive(&[Chunk::Ping(b"")]);
        let second = played.wait(6500);
        assert_eq!(probes(second), 1, "the distance grows");
        played.ack(flow, 1, 1, &[]);
        assert!(matches!(
            played.sent()[0][..],
            [.., Seen::Data { sequence: 2, .. }]
        ));
    }
}

#[test]
fn no_more_is_in_flight_than_the_far_end_takes() {
    let mut played = Played::new();
    let flow = played.open();
    played.write(flow, b"x");
    played.sent();
    played.ack(flow, 1, 1, &[]);
    played
        .session
        .write(flow, vec![0; 9000], Priority::Data, None, played.now)
        .unwrap();
    assert_eq!(
        played.sent().len(),
        1,
        "one fragment while the window is 1024 bytes"
    );
}

#[test]
fn an_exception_closes_the_flow_and_gives_up_what_waits() {
    let mut played = Played::new();
    let flow = played.open();
    played.write(flow, b"x");
    played.sent();
    played.receive(&[Chunk::FlowException {
        flow: flow.0,
        code: 3,
    }]);
    assert_eq!(played.events(), [Event::FlowRejected { flow, code: 3 }]);
    let sent = played.sent();
    assert!(matches!(
        sent[0][0],
        Seen::Data {
            sequence: 2,
            abandoned: true,
            last: true,
            ..
        }
    ));
    let refused = played
        .session
        .write(flow, &b"y"[..], Priority::Data, None, played.now);
    assert_eq!(refused, Err(Refused::NoFlow));
    played.ack(flow, 64, 2, &[]);
    assert_eq!(played.events(), [Event::FlowFinished { flow }]);
}

#[test]
fn audio_goes_before_key_frames_before_deltas_before_data() {
    let mut played = Played::new();
    let order = [
        Priority::Data,
        Priority::Delta,
        Priority::Key,
        Priority::Audio,
    ];
    let flows = order.map(|priority| {
        let flow = played.open();
        let now = played.now;
        played
            .session
            .write(flow, vec![0; 900], priority, None, now)
            .unwrap();
        flow
    });
    let mut buffer = [0; DATAGRAM_MAX];
    let mut got = Vec::new();
    while let Some(packet) = played.session.poll_transmit(&mut buffer, played.now) {
        let read = Packet::parse(&buffer[..packet.len]).unwrap();
        for chunk in read.chunks() {
            if let Chunk::UserData(data) = chunk
                && !got.contains(&data.flow)
            {
                got.push(data.flow);
            }
        }
    }
    let expected: Vec<u64> = flows.iter().rev().map(|flow| flow.0).collect();
    assert_eq!(got, expected);
}

#[test]
fn a_full_queue_refuses_and_tells_when_there_is_room() {
    let mut played = Played::with(Config {
        queue_max: 1000,
        ..Config::default()
    });
    let flow = played.open();
    let (big, small) = (vec![0; 5000], vec![0; 900]);
    let now = played.now;
    assert!(
        played
            .session
            .write(flow, big, Priority::Data, None, now)
            .is_ok(),
        "alone"
    );
    let refused = played.session.write(flow, small, Priority::Data, None, now);
    assert_eq!(refused, Err(Refused::Full));
    played.sent();
    for _ in 0..5 {
        played.ack(flow, 64, 5, &[]);
        played.sent();
    }
    assert_eq!(played.events(), [Event::Writable { flow }]);
}

#[test]
fn acknowledgements_of_what_was_never_sent_change_nothing() {
    let mut played = Played::new();
    let flow = played.open();
    played.write(flow, b"x");
    played.sent();
    played.ack(flow, 64, 0, &[50, 90]);
    played.ack(SendId(77), 64, u64::MAX, &[]);
    assert_ne!(played.session.in_flight().1, 0);
    played.ack(flow, u64::MAX, u64::MAX, &[0, 0]);
    assert_eq!(played.session.in_flight().1, 0);
    played.write(flow, b"y");
    assert!(matches!(
        played.sent()[0][..],
        [Seen::Data { sequence: 2, .. }]
    ));
}

#[test]
fn a_ping_is_answered_with_its_message() {
    let mut played = Played::new();
    played.receive(&[Chunk::Ping(b"hello")]);
    assert_eq!(played.sent(), [[Seen::PingReply(b"hello".to_vec())]]);
}

#[test]
fn silence_is_pinged_and_then_is_the_end() {
    let mut played = Played::new();
    let pings = played.wait(14_999);
    assert!(pings.is_empty());
    let pings = played.wait(45_000).concat();
    assert!(
        pings.len() >= 4 && pings.iter().all(|it| *it == Seen::Ping(vec![])),
        "{pings:?}"
    );
    played.wait(2);
    assert_eq!(
        played.events(),
        [Event::Closed {
            why: Closed::Silent
        }]
    );
    assert!(played.session.is_closed());
}

#[test]
fn media_without_an_answer_are_followed_by_a_ping_within_a_second() {
    let mut played = Played::new();
    let flow = played.open();
    played.write(flow, b"x");
    played.sent();
    let sent = played.wait(1000).concat();
    assert!(sent.contains(&Seen::Ping(vec![])), "{sent:?}");
}

#[test]
fn closing_is_repeated_every_five_seconds_for_ninety() {
    let mut played = Played::new();
    played.open();
    played.session.close(played.now);
    assert_eq!(played.events(), [Event::Closed { why: Closed::Here }]);
    assert_eq!(played.sent(), [[Seen::Close]]);
    let repeated = played.wait(89_999);
    assert_eq!(repeated.len(), 17);
    assert!(!played.session.is_closed());
    played.wait(1);
    assert!(played.session.is_closed());
    let refused = played.session.open_flow(b"", Options::default());
    assert_eq!(refused, Err(Refused::Closed));
}

#[test]
fn a_close_that_is_answered_is_the_end() {
    let mut played = Played::new();
    played.session.close(played.now);
    played.sent();
    played.receive(&[Chunk::CloseAck]);
    assert!(played.session.is_closed());
}

#[test]
fn a_far_end_that_closes_is_answered_for_nineteen_seconds() {
    let mut played = Played::new();
    played.receive(&[Chunk::Close]);
    assert_eq!(played.sent(), [[Seen::CloseAck]]);
    assert_eq!(played.events(), [Event::Closed { why: Closed::There }]);
    for _ in 0..3 {
        played.wait(5000);
        played.receive(&[Chunk::Close]);
        assert_eq!(played.sent(), [[Seen::CloseAck]]);
    }
    assert!(!played.session.is_closed());
    played.wait(4000);
    assert!(played.session.is_closed());
}

#[test]
fn a_new_address_is_checked_before_anything_else_goes_there() {
    let mut played = Played::new();
    let (home, new, liar) = (
        played.far,
        SocketAddr::from(([192, 0, 2, 1], 6000)),
        SocketAddr::from(([203, 0, 113, 6], 1)),
    );
    played.receive_from(new, &[Chunk::Ping(b"k")]);
    let sent = played.sent_to();
    let [(to, check), (still, _reply)] = &sent[..] else {
        panic!("{sent:?}")
    };
    assert_eq!((*to, *still), (new, home));
    let [Seen::Ping(message)] = &check[..] else {
        panic!("{check:?}")
    };
    assert_eq!(message[0], b'M');
    // The answer from another place, or a changed one, proves nothing.
    played.receive_from(liar, &[Chunk::PingReply(message)]);
    let mut changed = message.clone();
    changed[10] ^= 1;
    played.receive_from(new, &[Chunk::PingReply(&changed)]);
    played.receive_from(new, &[Chunk::PingReply(&message[..9])]);
    assert_eq!(played.session.far(), home);
    played.receive_from(new, &[Chunk::PingReply(message)]);
    assert_eq!(played.session.far(), new);
    assert_eq!(
        played.events(),
        [Event::Moved {
            from: home,
            to: new
        }]
    );
    // The same answer again, from where the far end was, does not move it back.
    played.receive_from(home, &[Chunk::PingReply(message)]);
    assert_eq!(played.session.far(), new);
}

#[test]
fn checks_of_addresses_are_few() {
    let mut played = Played::new();
    let mut checks = 0;
    for port in 0..1000 {
        let from = SocketAddr::from(([203, 0, 113, 6], port));
        played.receive_from(from, &[Chunk::Ping(b"")]);
        checks += played
            .sent_to()
            .iter()
            .filter(|(to, _)| *to != played.far)
            .count();
        played.wait(1);
    }
    assert!(checks <= 5, "{checks} in a second");
}

#[test]
fn what_is_in_flight_goes_to_the_new_address_at_once() {
    let mut played = Played::new();
    let flow = played.open();
    played.write(flow, b"x");
    played.sent();
    let new = SocketAddr::from(([192, 0, 2, 1], 6000));
    played.receive_from(new, &[Chunk::Ping(b"")]);
    let sent = played.sent_to();
    let check = sent.iter().find(|(to, _)| *to == new).unwrap();
    let Seen::Ping(message) = &check.1[0] else {
        panic!()
    };
    played.receive_from(new, &[Chunk::PingReply(message)]);
    let sent = played.sent_to();
    assert_eq!(sent[0].0, new);
    assert!(matches!(sent[0].1[0], Seen::Data { sequence: 1, .. }));
}

#[test]
fn packets_of_our_own_mode_and_garbage_are_ignored() {
    let mut played = Played::new();
    for packet in [
        &[][..],
        &[0x02, 0x0c, 0, 0],
        &[0x00, 0x0c, 0, 0],
        &[0x03, 0x0c, 0, 0],
    ] {
        played.session.handle_packet(played.far, packet, played.now);
    }
    assert!(played.session.is_open());
    assert_eq!(played.session.stats().packets_ignored, 4);
}

#[test]
fn nothing_acknowledged_for_too_long_is_the_end() {
    let mut played = Played::new();
    let flow = played.open();
    played.write(flow, b"x");
    played.sent();
    for _ in 0..59 {
        played.wait(1000);
        played.receive(&[Chunk::PingReply(b"")]);
        played.sent();
    }
    assert!(played.session.is_open());
    played.wait(1001);
    let why = Closed::Unacknowledged;
    assert_eq!(played.events(), [Event::Closed { why }]);
}

#[test]
fn an_idle_session_is_small() {
    // Five thousand idle sessions have 40 MB. What is on the heap comes to it: a list of
    // four flows each way.
    let inline = size_of::<Session>();
    assert!(inline < 2048, "{inline} bytes");
}

#[test]
fn chance_finds_nothing_that_the_fuzz_targets_object_to() {
    let start = Played::new().now;
    let mut state = 1_u64;
    let mut byte = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        u8::try_from(state >> 56).unwrap()
    };
    for _ in 0..150 {
        let operations: Vec<u8> = (0..120).map(|_| byte()).collect();
        selvage_rtmfp::session::fuzzing::flow(&operations, start);
        selvage_rtmfp::session::fuzzing::session(&operations, start);
    }
}
