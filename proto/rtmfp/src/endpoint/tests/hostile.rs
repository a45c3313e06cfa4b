//! What no honest end sends, and what it costs.

use super::opening::{Alone, hello, keying_of, read, sealed};
use super::*;
use crate::chunk::{Fragment, InitiatorKeying, PacketFragment, UserData};
use crate::crypto::Suite as _;
use crate::crypto::keying::{Policy, Wish};
use crate::flow::MessageId;

/// How packets of a session may be verified.
fn verified() -> [(&'static str, Policy); 4] {
    let policy = |hmac, sequence| Policy {
        hmac,
        hmac_len: 10,
        sequence,
    };
    [
        ("checksum", policy(Wish::Never, Wish::Never)),
        ("numbers", policy(Wish::Never, Wish::Always)),
        ("code", policy(Wish::Always, Wish::Never)),
        ("code and numbers", policy(Wish::Always, Wish::Always)),
    ]
}

/// A client and a server with a session, and the client's packets since.
struct Pair {
    client: Alone,
    server: Alone,
}

impl Pair {
    fn open(policy: Policy) -> Self {
        let mut server = Alone::server();
        let mut config = Config::new(ephemeral(1));
        config.begin.1 = policy;
        let mut client = Alone::new(config);
        client.now = server.now;
        let url = Discriminator::server(b"rtmfp://h/app");
        client.end.open(&url, &[at(1935)], client.now);
        for _ in 0..2 {
            for (_, datagram) in client.sent() {
                for (_, answer) in server.give(at(5000), &datagram) {
                    client
                        .end
                        .handle_datagram(at(1935), &mut answer.clone(), client.now);
                }
            }
        }
        assert_eq!((client.end.len(), server.end.len()), (1, 1));
        Self { client, server }
    }

    fn session(end: &mut Alone) -> &mut Session {
        let id = *end.end.sessions.keys().next().unwrap();
        end.end.session_mut(SessionId(id)).unwrap()
    }

    fn write(&mut self, bytes: &'static [u8]) -> MessageId {
        let now = self.client.now;
        let session = Self::session(&mut self.client);
        let flow = session.open_flow(b"x", Options::default()).unwrap();
        session
            .write(flow, bytes, Priority::Data, None, now)
            .unwrap()
    }

    fn messages(events: &[Event]) -> usize {
        let is_message = |event: &&Event| {
            matches!(
                event,
                Event::Session {
                    event: session::Event::Message { .. },
                    ..
                }
            )
        };
        events.iter().filter(is_message).count()
    }
}

#[test]
fn a_packet_that_is_cut_or_changed_anywhere_is_dropped_and_nothing_is_said_to_it() {
    for (name, policy) in verified() {
        let mut pair = Pair::open(policy);
        pair.write(b"a message of more than one block");
        let packet = pair.client.sent().remove(0).1;
        let server = &mut pair.server;
        server.run();
        let before = server.end.stats();
        let mut given = 0;
        for len in 0..packet.len() {
            assert!(server.give(at(5000), &packet[..len]).is_empty());
            given += 1;
        }
        for bit in 0..packet.len() * 8 {
            let mut changed = packet.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(
                server.give(at(5000), &changed).is_empty(),
                "{name}: bit {bit}"
            );
            given += 1;
        }
        for longer in 1..40 {
            let mut changed = packet.clone();
            changed.resize(packet.len() + longer, 0);
            assert!(
                server.give(at(5000), &changed).is_empty(),
                "{name}: {longer}"
            );
            given += 1;
        }
        let after = server.end.stats();
        let counted =
            after.dropped - before.dropped + after.unknown_session - before.unknown_session;
        assert_eq!(counted, given, "{name}: all of them are counted");
        assert_eq!(Pair::session(server).stats().packets_received, 0);
        server
            .end
            .handle_datagram(at(5000), &mut packet.clone(), server.now);
        let (_, events) = server.run();
        assert_eq!(Pair::messages(&events), 1, "{name}");
    }
}

#[test]
fn what_comes_again_changes_nothing_with_numbers_and_without() {
    for (name, policy) in verified() {
        let mut pair = Pair::open(policy);
        let mut packets = Vec::new();
        let mut messages = 0;
        for _ in 0..300 {
            pair.write(b"once");
            for (_, packet) in pair.client.sent() {
                pair.server
                    .end
                    .handle_datagram(at(5000), &mut packet.clone(), pair.server.now);
                packets.push(packet);
                let (answers, events) = pair.server.run();
                messages += Pair::messages(&events);
                for (_, answer) in answers {
                    pair.client
                        .end
                        .handle_datagram(at(1935), &mut answer.clone(), pair.client.now);
                }
            }
        }
        assert_eq!(messages, 300);
        let before = Pair::session(&mut pair.server).stats();
        // The oldest are far behind the window of numbers.
        for packet in &packets {
            pair.server
                .end
                .handle_datagram(at(5000), &mut packet.clone(), pair.server.now);
            let (_, events) = pair.server.run();
            assert_eq!(Pair::messages(&events), 0, "{name}");
            assert!(events.is_empty(), "{name}: {events:?}");
        }
        let received = Pair::session(&mut pair.server).stats().packets_received;
        let expected = if policy.sequence == Wish::Always {
            0
        } else {
            packets.len() as u64
        };
        assert_eq!(received - before.packets_received, expected, "{name}");
    }
}

#[test]
fn the_first_packet_of_a_flow_that_is_over_opens_nothing() {
    let mut pair = Pair::open(verified()[0].1);
    let now = pair.client.now;
    let session = Pair::session(&mut pair.client);
    let flow = session.open_flow(b"x", Options::default()).unwrap();
    session
        .write(flow, &b"m"[..], Priority::Data, None, now)
        .unwrap();
    let first = pair.client.sent().remove(0).1;
    pair.server.give(at(5000), &first);
    Pair::session(&mut pair.client).finish(flow, now);
    for (_, packet) in pair.client.sent() {
        pair.server.give(at(5000), &packet);
    }
    for _ in 0..11 {
        pair.server.now += Duration::from_secs(10);
        pair.server
            .end
            .handle_datagram(at(5000), &mut first.clone(), pair.server.now);
        let (_, events) = pair.server.run();
        assert!(events.is_empty(), "{events:?}");
    }
}

#[test]
fn a_packet_to_a_session_that_is_gone_meets_silence() {
    let mut pair = Pair::open(verified()[3].1);
    pair.write(b"m");
    let packet = pair.client.sent().remove(0).1;
    Pair::session(&mut pair.server).abort();
    pair.server.run();
    assert!(pair.server.end.is_empty());
    assert!(pair.server.give(at(5000), &packet).is_empty());
    assert_eq!(pair.server.end.stats().unknown_session, 1);
}

#[test]
fn nobody_is_told_more_than_it_said_before_it_is_proved_but_a_cookie() {
    let mut server = Alone::server();
    let url = Discriminator::server(b"rtmfp://h/app");
    let request = hello(&url, &[1; 16]);
    let answer = server.give(at(1), &request).remove(0).1;
    // A Responder Hello holds a cookie of 64 bytes and our certificate, and that is all.
    let certificate = server.end.identity().as_bytes().len();
    assert!(answer.len() <= 4 + 16 + 16 + 64 + 16 + certificate);
    let cookie = read(&answer, |_, _, chunk| {
        let Chunk::ResponderHello(hello) = chunk else {
            panic!("{chunk:?}");
        };
        hello.cookie.to_vec()
    });
    // A cookie of one's own does not help to make us say more to another.
    for padding in 0..200 {
        let component = vec![0; padding];
        let keying = sealed(
            0,
            &Chunk::InitiatorKeying(InitiatorKeying {
                session: 9,
                cookie: &cookie,
                certificate: b"",
                component: &component,
                signature: b"",
            }),
        );
        let said: usize = server
            .give(at(2), &keying)
            .iter()
            .map(|(_, answer)| answer.len())
            .sum();
        assert!(said <= keying.len(), "{said} for {}", keying.len());
        assert!(
            said > 0 || padding < 64,
            "{padding}: a key is longer than that"
        );
    }
    let wanted = Discriminator::canonical(&[1; 32]);
    assert!(server.give(at(2), &hello(&wanted, &[1; 16])).is_empty());
}

#[test]
fn a_million_hellos_leave_nothing_behind() {
    let mut server = Alone::server();
    let url = Discriminator::server(b"rtmfp://h/app");
    let request = hello(&url, &[1; 16]);
    let answered = server.give(at(1), &request).len();
    assert_eq!(answered, 1);
    // Without time the answers end, and so does the work for them.
    for number in 0..1_000_000_u32 {
        let [a, b, c, d] = number.to_be_bytes();
        let from = SocketAddr::from(([10, b, c, d], 1000 + u16::from(a)));
        server
            .end
            .handle_datagram(from, &mut request.clone(), server.now);
        if number % 64 == 0 {
            server.run();
        }
    }
    server.run();
    let stats = server.end.stats();
    assert_eq!(stats.hellos, 20_000);
    assert_eq!(stats.limited, 1_000_001 - 20_000);
    let end = &server.end;
    assert!(end.is_empty() && end.by_address.is_empty() && end.timers.is_empty());
    assert!(end.outbox.capacity() <= 2 * limits::STARTUP_QUEUE_MAX);
}

#[test]
fn one_whose_address_is_forged_is_not_shouted_at() {
    let mut server = Alone::server();
    let url = Discriminator::server(b"rtmfp://h/app");
    let request = hello(&url, &[1; 16]);
    let victim = SocketAddr::from(([198, 51, 100, 1], 53));
    let mut answers = 0;
    for _ in 0..20_000 {
        answers += server.give(victim, &request).len();
    }
    assert_eq!(answers, 2500);
    assert_eq!(server.give(at(1), &request).len(), 1, "others are answered");
}

#[test]
fn sessions_whose_keys_nobody_shows_are_not_told_of_and_do_not_last() {
    let mut config = Config::new(ephemeral(2));
    config.sessions_max = 16;
    config.keyings_per_second = 1000;
    let mut server = Alone::new(config);
    let (mut honest, keying) = keying_of(&mut server, at(1), ephemeral(7));
    let answer = server.give(at(1), &keying).remove(0).1;
    honest.give(at(1935), &answer);
    let session = Pair::session(&mut honest);
    let flow = session.open_flow(b"x", Options::default()).unwrap();
    let now = server.now;
    session
        .write(flow, &b"m"[..], Priority::Data, None, now)
        .unwrap();
    let packet = honest.sent().remove(0).1;
    server.end.handle_datagram(at(1), &mut packet.clone(), now);
    let (_, events) = server.run();
    assert!(matches!(events[0], Event::Opened { far, .. } if far == at(1)));
    for port in 100..140 {
        let (_, keying) = keying_of(&mut server, at(port), ephemeral(u64::from(port)));
        assert_eq!(server.give(at(port), &keying).len(), 1);
        let (_, events) = server.run();
        assert!(events.is_empty(), "{events:?}");
        assert!(server.end.len() <= 1 + 16 / 4, "{}", server.end.len());
    }
    for _ in 0..25 {
        server.now += Duration::from_secs(1);
        let (_, events) = server.run();
        assert!(events.is_empty(), "{events:?}");
    }
    assert_eq!(server.end.len(), 1, "the one who showed its keys");
}

#[test]
fn sessions_that_only_wait_for_the_answer_to_their_end_make_room() {
    let mut config = Config::new(ephemeral(2));
    config.sessions_max = 8;
    let mut server = Alone::new(config);
    for port in 100..130 {
        let (mut client, keying) = keying_of(&mut server, at(port), ephemeral(u64::from(port)));
        let answer = server.give(at(port), &keying).remove(0).1;
        client.give(at(1935), &answer);
        let now = server.now;
        let session = Pair::session(&mut client);
        let flow = session.open_flow(b"x", Options::default()).unwrap();
        session
            .write(flow, &b"m"[..], Priority::Data, None, now)
            .unwrap();
        let packet = client.sent().remove(0).1;
        server
            .end
            .handle_datagram(at(port), &mut packet.clone(), now);
        let (_, events) = server.run();
        let Some(Event::Opened { session, .. }) = events.first() else {
            panic!("{events:?}");
        };
        // It is told to go and does not answer.
        server.end.session_mut(*session).unwrap().close(now);
        server.run();
        assert!(server.end.len() <= 8);
    }
}

#[test]
fn one_address_leaves_key_agreements_to_others() {
    let mut config = Config::new(ephemeral(2));
    config.keyings_per_second = 16;
    let mut server = Alone::new(config);
    let from = |host, port| SocketAddr::new([192, 0, 2, host].into(), port);
    let agreed = |server: &mut Alone, host, port| {
        let (_, keying) = keying_of(server, from(host, port), ephemeral(u64::from(port)));
        server.give(from(host, port), &keying).len()
    };
    let greedy: usize = (0..40).map(|port| agreed(&mut server, 1, 100 + port)).sum();
    assert_eq!(greedy, 8, "half of what there is");
    let others: usize = (2..6).map(|host| agreed(&mut server, host, 100)).sum();
    assert_eq!(others, 4);
}

#[test]
fn whoever_has_a_session_cannot_make_us_shout_at_others() {
    let mut pair = Pair::open(verified()[3].1);
    let chunk = Chunk::ForwardedHello(ForwardedHello {
        discriminator: &Discriminator::server(b"rtmfp://h/app"),
        reply: Address {
            at: at(7),
            origin: Origin::Observed,
        },
        tag: &[1; 16],
    });
    let mut buffer = [0; 200];
    let mut out = Writer::new(&mut buffer);
    chunk.write(&mut out).unwrap();
    let chunk = bytes::Bytes::copy_from_slice(out.written());
    let mut said = 0;
    for _ in 0..1000 {
        assert!(Pair::session(&mut pair.client).send_chunk(chunk.clone()));
        for (_, packet) in pair.client.sent() {
            let answers = pair.server.give(at(5000), &packet);
            said += answers.iter().filter(|(to, _)| *to == at(7)).count();
        }
    }
    assert_eq!(said, 100, "as many as are forwarded to us in a second");
}

#[test]
fn fragments_of_startup_packets_are_few_and_forgotten() {
    let mut server = Alone::server();
    for number in 0..100_000_u32 {
        let [_, a, b, c] = number.to_be_bytes();
        let from = SocketAddr::from(([10, a, b, c], 1000));
        let part = sealed(
            0,
            &Chunk::PacketFragment(PacketFragment {
                more: true,
                packet: 1,
                index: u64::from(number % 1000),
                bytes: &[1],
            }),
        );
        server
            .end
            .handle_datagram(from, &mut part.clone(), server.now);
    }
    assert!(server.sent().is_empty());
    // A while later there is room for another.
    server.now += Duration::from_secs(2);
    let url = Discriminator::server(b"rtmfp://h/app");
    let mut whole = hello(&url, &[1; 16]);
    let (_, inside) = crate::packet::open_multiplex(&mut whole).unwrap();
    let plain = FlashSuite::startup().open(inside).unwrap().to_vec();
    let part = |index: usize| PacketFragment {
        more: index == 0,
        packet: 2,
        index: index as u64,
        bytes: if index == 0 { &plain[..9] } else { &plain[9..] },
    };
    let give = |server: &mut Alone, index| {
        server.give(at(1), &sealed(0, &Chunk::PacketFragment(part(index))))
    };
    assert!(give(&mut server, 1).is_empty());
    assert_eq!(give(&mut server, 0).len(), 1);
}

#[test]
fn flows_without_end_are_not_taken_note_of() {
    let mut pair = Pair::open(verified()[3].1);
    let id = *pair.client.end.sessions.keys().next().unwrap();
    for flow in 0..3000_u64 {
        let options = crate::option::Options::parse_all(&[2, 0, b'm']);
        let data = Chunk::UserData(UserData {
            flow,
            sequence: 1,
            forward: 0,
            fragment: Fragment::Begin,
            abandoned: false,
            last: false,
            options,
            data: b"never whole",
        });
        let mut buffer = [0; 200];
        let mut out = Writer::new(&mut buffer);
        data.write(&mut out).unwrap();
        let chunk = bytes::Bytes::copy_from_slice(out.written());
        let session = pair.client.end.session_mut(SessionId(id)).unwrap();
        assert!(session.send_chunk(chunk));
        for (_, packet) in pair.client.sent() {
            pair.server
                .end
                .handle_datagram(at(5000), &mut packet.clone(), pair.server.now);
        }
        pair.server.run();
    }
    let stats = Pair::session(&mut pair.server).stats();
    let beyond = 3000 - limits::RECEIVE_FLOWS_MAX as u64;
    assert_eq!(stats.fragments_dropped, beyond);
}
