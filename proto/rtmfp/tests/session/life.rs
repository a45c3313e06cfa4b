//! How a session lives, moves and ends.

use super::*;

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
