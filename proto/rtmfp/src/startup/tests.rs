use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::address::{Address, Origin};
use crate::chunk::{Redirect, Redirects, ResponderHello};
use crate::crypto::Group;
use crate::crypto::identity::{Discriminator, Identity};
use crate::crypto::keying::Policy;
use crate::packet::{Mode, Packet, open_multiplex};

#[allow(clippy::disallowed_methods, reason = "any instant will do")]
fn start() -> Instant {
    Instant::now()
}

fn entropy(mut seed: u8) -> impl FnMut(&mut [u8]) {
    move |out: &mut [u8]| {
        for byte in out {
            seed = seed.wrapping_mul(181).wrapping_add(97);
            *byte = seed;
        }
    }
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn identity(seed: u8) -> Identity {
    Identity::ephemeral(&[Group::Modp1024], true, None, &mut entropy(seed)).unwrap()
}

fn opening(to: &[SocketAddr], now: Instant) -> Opening {
    let wanted = Discriminator::server(b"rtmfp://host/app");
    let choice = (Group::Modp1024, Policy::ALWAYS);
    Opening::new(&wanted, to, 77, choice, &mut entropy(9), now)
}

/// All that is due now, as datagrams.
fn sends(opening: &mut Opening, near: &Identity, now: Instant) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut suite = FlashSuite::startup();
    let mut all = Vec::new();
    while opening.next_send(near, now, |to, chunk| {
        let mut buffer = [0; 1200];
        let len = write_datagram(&mut suite, &mut buffer, 0, 5, &chunk).unwrap();
        all.push((to, buffer[..len].to_vec()));
    }) {}
    all
}

/// Opens a datagram and hands out its session id and its one chunk.
fn read<T>(datagram: &[u8], then: impl FnOnce(u32, Chunk<'_>) -> T) -> T {
    let mut datagram = datagram.to_vec();
    let (id, sealed) = open_multiplex(&mut datagram).unwrap();
    let mut suite = FlashSuite::startup();
    let packet = Packet::parse(suite.open(sealed).unwrap()).unwrap();
    assert_eq!(packet.header.mode, Mode::Startup);
    let chunks: Vec<_> = packet.chunks().collect();
    let [chunk] = chunks[..] else {
        panic!("{chunks:?}");
    };
    then(id, chunk)
}

fn hello_answer(
    datagram: &[u8],
    from: SocketAddr,
    near: &Identity,
    cookies: &Cookies,
    now: Instant,
) -> Vec<u8> {
    read(datagram, |id, chunk| {
        let Chunk::InitiatorHello(hello) = chunk else {
            panic!("{chunk:?}");
        };
        assert_eq!(id, 0);
        let wanted = Discriminator::parse(hello.discriminator).unwrap();
        assert!(wanted.selects_identity(near));
        let mut buffer = vec![0; 1200];
        write_hello(&hello, from, near, cookies, now, |chunk| {
            let suite = &mut FlashSuite::startup();
            let len = write_datagram(suite, &mut buffer, 0, 5, &chunk).unwrap();
            buffer.truncate(len);
        });
        buffer
    })
}

#[track_caller]
fn take_hello(
    opening: &mut Opening,
    from: SocketAddr,
    datagram: &[u8],
    near: &Identity,
    now: Instant,
) -> Result<Step, Error> {
    read(datagram, |_, chunk| {
        let Chunk::ResponderHello(hello) = chunk else {
            panic!("{chunk:?}");
        };
        opening.handle_hello(from, &hello, near, &mut entropy(3), now)
    })
}

#[test]
fn two_ends_open_a_session_in_two_round_trips() {
    let now = start();
    let (client, server) = (identity(1), identity(2));
    let (here, there) = (at("192.0.2.1:5000"), at("192.0.2.2:1935"));
    let cookies = Cookies::new([4; 32], now);
    let mut opening = opening(&[there], now);

    let hellos = sends(&mut opening, &client, now);
    assert_eq!(hellos.len(), 1);
    let answer_hello = hello_answer(&hellos[0].1, here, &server, &cookies, now);
    assert_eq!(
        take_hello(&mut opening, there, &answer_hello, &client, now),
        Ok(Step::Taken)
    );
    let again = take_hello(&mut opening, there, &answer_hello, &client, now);
    assert_eq!(again, Ok(Step::Ignored), "the first answer is chosen");

    let keyings = sends(&mut opening, &client, now);
    assert_eq!((keyings.len(), keyings[0].0), (1, there));
    let (far, component) = read(&keyings[0].1, |id, chunk| {
        let Chunk::InitiatorKeying(request) = chunk else {
            panic!("{chunk:?}");
        };
        assert_eq!((id, request.session), (0, 77));
        assert_eq!(cookies.check(request.cookie, here, now), Cookie::Good);
        answer(
            &request,
            here,
            &server,
            88,
            &Policy::MIRROR,
            &mut entropy(6),
        )
        .unwrap()
    });
    let Chunk::ResponderKeying(keying) = keying_chunk(88, &component) else {
        unreachable!();
    };
    assert_eq!(keying.signature[0], 0x58);
    let near = opening.handle_keying(there, &keying).unwrap().unwrap();
    assert_eq!((near.near_id, near.far_id), (77, 88));
    assert_eq!((far.near_id, far.far_id), (88, 77));
    assert_eq!(near.certificate, server.as_bytes());
    assert_eq!(far.certificate, client.as_bytes());
    assert_eq!(near.keys.near_nonce(), far.keys.far_nonce());
    let (mut a, mut b) = (near.keys.suite(), far.keys.suite());
    let mut packet = [0; 64];
    let head = a.head_len();
    packet[head] = 0x0d;
    let len = a.seal(&mut packet, 1).unwrap();
    assert_eq!(b.open(&mut packet[..len]).unwrap()[0], 0x0d);
}

#[test]
fn a_hello_is_sent_again_ever_more_slowly_and_then_given_up() {
    let begin = start();
    let mut opening = opening(&[at("192.0.2.2:1935")], begin);
    let near = identity(1);
    let mut times = Vec::new();
    while !opening.has_failed(opening.next_deadline()) {
        let now = opening.next_deadline();
        assert_eq!(sends(&mut opening, &near, now).len(), 1);
        times.push(now.duration_since(begin).as_millis());
    }
    assert_eq!(times[..5], [0, 1500, 4500, 9000, 15_000]);
    assert_eq!(opening.next_deadline() - begin, Duration::from_secs(95));
    assert!(times.len() < 13);
}

#[test]
fn a_redirect_adds_candidates_up_to_a_bound() {
    let now = start();
    let mut opening = opening(&[at("192.0.2.2:1935")], now);
    let near = identity(1);
    sends(&mut opening, &near, now);
    let tag = opening.tag().to_vec();
    let list: Vec<_> = (1..60)
        .map(|port| Address {
            at: SocketAddr::new([192, 0, 2, 9].into(), port),
            origin: Origin::Observed,
        })
        .collect();
    let redirect = |tag, to| Redirect { tag, to };
    let from = at("192.0.2.77:1");
    let foreign = redirect(b"other", Redirects::List(&list));
    assert_eq!(opening.handle_redirect(from, &foreign, now), Step::Ignored);
    let implied = redirect(&tag, Redirects::List(&[]));
    assert_eq!(opening.handle_redirect(from, &implied, now), Step::Taken);
    assert_eq!(sends(&mut opening, &near, now)[0].0, from);
    let many = redirect(&tag, Redirects::List(&list));
    assert_eq!(opening.handle_redirect(from, &many, now), Step::Taken);
    assert_eq!(sends(&mut opening, &near, now).len(), 22, "24 in all");
    assert_eq!(opening.handle_redirect(from, &many, now), Step::Ignored);
}

#[test]
fn only_the_one_who_was_asked_for_may_answer() {
    let now = start();
    let near = identity(1);
    let wanted = Discriminator::canonical(identity(2).fingerprint());
    let choice = (Group::Modp1024, Policy::MIRROR);
    let there = at("192.0.2.2:1935");
    let mut opening = Opening::new(&wanted, &[there], 7, choice, &mut entropy(9), now);
    let tag = opening.tag().to_vec();
    let mut answer_of = |seed, tag: &[u8]| {
        let far = identity(seed);
        let certificate = far.as_bytes();
        let cookie = &[1; 64];
        let hello = ResponderHello {
            tag,
            cookie,
            certificate,
        };
        opening.handle_hello(there, &hello, &near, &mut entropy(3), now)
    };
    assert_eq!(answer_of(3, &tag), Err(Error::OtherCertificate));
    assert_eq!(answer_of(2, b"other"), Ok(Step::Ignored));
    assert_eq!(answer_of(2, &tag), Ok(Step::Taken));
}

#[test]
fn a_cookie_is_changed_once() {
    let now = start();
    let (client, server) = (identity(1), identity(2));
    let there = at("192.0.2.2:1935");
    let [ix, iy] = ["192.0.2.100:50000", "198.51.100.101:50001"].map(at);
    let cookies = Cookies::new([4; 32], now);
    let mut opening = opening(&[there], now);
    let hello = sends(&mut opening, &client, now).remove(0).1;
    let answer_hello = hello_answer(&hello, ix, &server, &cookies, now);
    take_hello(&mut opening, there, &answer_hello, &client, now).unwrap();
    let cookie_in = |datagram: &[u8]| {
        read(datagram, |_, chunk| {
            let Chunk::InitiatorKeying(request) = chunk else {
                panic!("{chunk:?}");
            };
            request.cookie.to_vec()
        })
    };
    let old = cookie_in(&sends(&mut opening, &client, now)[0].1);
    assert_eq!(cookies.check(&old, iy, now), Cookie::OtherAddress);
    let new = cookies.make(iy, now);
    let change = |old, new| crate::chunk::ResponderHelloCookieChange { old, new };
    assert_eq!(
        opening.handle_cookie_change(&change(&new, &new), now),
        Step::Ignored
    );
    assert_eq!(
        opening.handle_cookie_change(&change(&old, &new), now),
        Step::Taken
    );
    let used = cookie_in(&sends(&mut opening, &client, now)[0].1);
    assert_eq!(cookies.check(&used, iy, now), Cookie::Good);
    assert_eq!(
        opening.handle_cookie_change(&change(&new, &old), now),
        Step::Ignored
    );
}

#[test]
fn the_same_keying_is_known_again() {
    let request = crate::chunk::InitiatorKeying {
        session: 1,
        cookie: b"a",
        certificate: b"cert",
        component: b"key",
        signature: b"X",
    };
    let mark = request_of(&request);
    let again = crate::chunk::InitiatorKeying {
        cookie: b"b",
        signature: b"",
        ..request
    };
    assert_eq!(request_of(&again), mark);
    let other = crate::chunk::InitiatorKeying {
        certificate: b"certk",
        component: b"ey",
        ..request
    };
    assert_ne!(request_of(&other), mark);
}

proptest! {
    #[test]
    fn whatever_a_responder_says_is_borne(bytes in vec(any::<u8>(), 0..200)) {
        let now = start();
        let near = identity(1);
        let mut opening = opening(&[at("192.0.2.2:1935")], now);
        let tag = opening.tag().to_vec();
        let hello = ResponderHello { tag: &tag, cookie: b"c", certificate: &bytes };
        let from = at("192.0.2.2:1935");
        let _ = opening.handle_hello(from, &hello, &near, &mut entropy(3), now);
        let keying = crate::chunk::ResponderKeying { session: 1, component: &bytes, signature: b"" };
        prop_assert!(!matches!(opening.handle_keying(from, &keying), Ok(Some(_))));
    }
}
