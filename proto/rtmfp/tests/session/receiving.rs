//! What a receiving flow acknowledges, keeps and rejects.

use super::*;

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
fn a_message_says_when_its_first_fragment_came() {
    let part = |sequence, fragment| {
        Chunk::UserData(UserData {
            fragment,
            ..data(sequence, 0, b"x")
        })
    };
    let (begin, middle) = (part(2, Fragment::Begin), part(3, Fragment::Middle));
    let end = part(4, Fragment::End);
    for (order, first, second, third, began) in [
        (Order::Original, &begin, &middle, &end, 0),
        // What comes first waits for the beginning.
        (Order::Original, &middle, &begin, &end, 10),
        (Order::Arrival, &end, &begin, &middle, 10),
        (Order::Original, &end, &middle, &begin, 20),
    ] {
        let mut played = Played::new();
        played.receive(&[Chunk::UserData(data(1, 0, b"1"))]);
        played.session.set_order(ReceiveId(9), order);
        played.events();
        let start = played.now;
        for fragment in [first, second, third] {
            assert!(played.events().is_empty());
            played.receive(std::slice::from_ref(fragment));
            played.wait(10);
        }
        let events = played.events();
        let [Event::Message { message, .. }] = &events[..] else {
            panic!("{events:?}")
        };
        assert_eq!(message.began, start + Duration::from_millis(began));
    }
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
