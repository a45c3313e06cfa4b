//! What a sending flow repeats, gives up and lets pass.

use super::*;

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
fn a_bitmap_says_the_same_as_ranges() {
    // 1 to 2 are here, 3 is not, 4 is, 5 is not, 6 to 8 are.
    let mut left = Vec::new();
    for (form, beyond) in [
        (AckForm::Ranges, &[0, 0, 0, 2][..]),
        (AckForm::Bitmap, &[0b0001_1101]),
    ] {
        let mut played = Played::new();
        let flow = played.open();
        for number in 0..10 {
            played.write(flow, b"x");
            played.sent();
            // Nothing else goes out after six without an acknowledgement.
            if number == 4 {
                played.ack(flow, 64, 1, &[]);
            }
        }
        played.receive(&[Chunk::Ack(Ack {
            flow: flow.0,
            buffer_blocks: 64,
            cumulative: 2,
            form,
            beyond,
        })]);
        let stats = played.session.flow_stats(flow).unwrap();
        assert_eq!((stats.delivered, stats.queued_bytes), (6, 4), "{form:?}");
        left.push(played.session.in_flight());
    }
    assert_eq!(left[0], left[1]);
}

#[test]
fn no_more_than_six_packets_go_out_between_acknowledgements() {
    let mut played = Played::new();
    let flow = played.open();
    for _ in 0..20 {
        played.write(flow, b"x");
        played.sent();
    }
    let stats = played.session.stats();
    assert_eq!(stats.packets_sent, 6);
    played.ack(flow, 64, 1, &[]);
    assert_eq!(played.sent().len(), 1, "all that wait fit one packet");
}

#[test]
fn timeouts_grow_by_the_root_of_two_up_to_ten_seconds() {
    let mut played = Played::new();
    let flow = played.open();
    played.write(flow, b"x");
    played.sent();
    let mut times = vec![played.now];
    while times.len() < 8 {
        let due = played.session.next_deadline().unwrap();
        let sent = played.wait(u64::try_from((due.at - played.now).as_millis()).unwrap() + 1);
        // The far end is there, and does not acknowledge.
        played.receive(&[Chunk::PingReply(b"")]);
        if sent
            .concat()
            .iter()
            .any(|it| matches!(it, Seen::Data { .. }))
        {
            times.push(played.now);
        }
    }
    let waits: Vec<_> = times.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(waits[0] >= Duration::from_secs(3), "{waits:?}");
    for two in waits.windows(2) {
        let longest = Duration::from_millis(10_100);
        assert!(two[1] <= longest, "{waits:?}");
        assert!(
            two[1] >= two[0] * 13 / 10 || two[1] > Duration::from_millis(9_900),
            "{waits:?}"
        );
    }
}
