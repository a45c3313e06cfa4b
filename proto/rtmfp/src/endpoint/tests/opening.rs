//! What is said before there is a session, datagram by datagram.

use super::*;
use crate::chunk::{InitiatorHello, PacketFragment};
use crate::crypto::Suite as _;
use crate::crypto::identity::Certificate;
use crate::limits::{COOKIE_LEN, TAG_MAX};
use crate::packet::{Header, Mode, Packet, PacketWriter, open_multiplex};
use crate::packet::{SESSION_ID_LEN, seal_multiplex};

/// One endpoint, and a far end that is played by hand.
pub(super) struct Alone {
    pub(super) end: Endpoint,
    pub(super) now: Instant,
}

impl Alone {
    pub(super) fn new(config: Config) -> Self {
        let now = start();
        let cookies = Cookies::new([9; 32], now);
        let end = Endpoint::new(config, cookies, Box::new(entropy(4)), now);
        Self { end, now }
    }

    pub(super) fn server() -> Self {
        Self::new(Config::new(ephemeral(2)))
    }

    /// Hands a datagram over, and gives what is sent for it.
    pub(super) fn give(&mut self, from: SocketAddr, datagram: &[u8]) -> Vec<(SocketAddr, Vec<u8>)> {
        self.end
            .handle_datagram(from, &mut datagram.to_vec(), self.now);
        self.sent()
    }

    pub(super) fn sent(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let (sent, _) = self.run();
        sent
    }

    pub(super) fn run(&mut self) -> (Vec<(SocketAddr, Vec<u8>)>, Vec<Event>) {
        let mut buffer = [0; limits::STARTUP_DATAGRAM_MAX];
        let (mut sent, mut events) = (Vec::new(), Vec::new());
        loop {
            match self.end.poll_output(self.now, &mut buffer) {
                Output::Transmit { to, len } => sent.push((to, buffer[..len].to_vec())),
                Output::Event(event) => events.push(event),
                Output::Timeout(_) => return (sent, events),
            }
        }
    }
}

pub(super) fn sealed(to: u32, chunk: &Chunk<'_>) -> Vec<u8> {
    let mut buffer = [0; limits::STARTUP_DATAGRAM_MAX];
    let suite = &mut FlashSuite::startup();
    let len = startup::write_datagram(suite, &mut buffer, to, 1, chunk).unwrap();
    buffer[..len].to_vec()
}

pub(super) fn hello(wanted: &[u8], tag: &[u8]) -> Vec<u8> {
    sealed(
        0,
        &Chunk::InitiatorHello(InitiatorHello {
            discriminator: wanted,
            tag,
        }),
    )
}

/// A startup datagram's session, the first byte of its packet, and its one chunk.
pub(super) fn read<T>(datagram: &[u8], then: impl FnOnce(u32, u8, Chunk<'_>) -> T) -> T {
    let mut datagram = datagram.to_vec();
    let (id, sealed) = open_multiplex(&mut datagram).unwrap();
    let mut suite = FlashSuite::startup();
    let plain = suite.open(sealed).unwrap();
    let packet = Packet::parse(plain).unwrap();
    let chunks: Vec<_> = packet.chunks().collect();
    let [chunk] = chunks[..] else {
        panic!("{chunks:?}");
    };
    then(id, plain[0], chunk)
}

/// Plays a client up to its keying, and gives its endpoint and that datagram.
pub(super) fn keying_of(
    server: &mut Alone,
    from: SocketAddr,
    identity: Identity,
) -> (Alone, Vec<u8>) {
    let mut client = Alone::new(Config::new(identity));
    client.now = server.now;
    let url = Discriminator::server(b"rtmfp://h/app");
    client.end.open(&url, &[at(1935)], client.now);
    let hello = client.sent().remove(0).1;
    let answer = server.give(from, &hello).remove(0).1;
    let keying = client.give(at(1935), &answer).remove(0).1;
    (client, keying)
}

#[test]
fn a_hello_is_answered_with_its_tag_and_a_cookie_of_64_bytes() {
    let mut server = Alone::server();
    let url = Discriminator::server(b"rtmfp://h/app");
    for tag in [&[][..], &[7], &[8; 16], &[9; TAG_MAX]] {
        let answers = server.give(at(5000), &hello(&url, tag));
        let [(to, answer)] = &answers[..] else {
            panic!("{answers:?}");
        };
        assert_eq!(*to, at(5000));
        read(answer, |session, flags, chunk| {
            let Chunk::ResponderHello(answer) = chunk else {
                panic!("{chunk:?}");
            };
            assert_eq!((session, flags), (0, 0x0b));
            assert_eq!(answer.tag, tag);
            assert_eq!(answer.cookie.len(), COOKIE_LEN);
            let certificate = Certificate::parse(answer.certificate).unwrap();
            assert_eq!(
                certificate.fingerprint(),
                *server.end.identity().fingerprint()
            );
        });
    }
    assert!(
        server
            .give(at(5000), &hello(&url, &[9; TAG_MAX + 1]))
            .is_empty()
    );
    assert!(server.end.is_empty());
}

#[test]
fn a_hello_for_a_path_an_address_or_our_own_fingerprint_is_for_us() {
    let mut server = Alone::server();
    let own = Discriminator::canonical(server.end.identity().fingerprint());
    for (wanted, answered) in [
        (&Discriminator::server(b"rtmfp://h/app")[..], true),
        (&Discriminator::server(b"live"), true),
        (&own, true),
        // Somebody else's name, somebody else's fingerprint, and neither.
        (b"\x02\0h", false),
        (&Discriminator::canonical(&[1; 32]), false),
        (b"", false),
        (b"\x05\x0aabc", false),
    ] {
        let answers = server.give(at(5000), &hello(wanted, &[3; 16]));
        assert_eq!(answers.len(), usize::from(answered), "{wanted:?}");
    }
}

#[test]
fn a_keying_from_another_address_gets_a_cookie_for_it_and_then_a_session() {
    let mut server = Alone::server();
    let (mut client, keying) = keying_of(&mut server, at(5000), ephemeral(1));
    let answers = server.give(at(6000), &keying);
    let [(to, change)] = &answers[..] else {
        panic!("{answers:?}");
    };
    assert_eq!(*to, at(6000));
    assert!(change.len() <= keying.len());
    read(change, |_, flags, chunk| {
        let Chunk::CookieChange(change) = chunk else {
            panic!("{chunk:?}");
        };
        assert_eq!(flags, 0x0b);
        assert_ne!(change.old, change.new);
    });
    assert!(server.end.is_empty(), "nothing is kept of it");
    let again = client.give(at(1935), change).remove(0).1;
    let answer = server.give(at(6000), &again).remove(0).1;
    client.give(at(1935), &answer);
    assert_eq!((client.end.len(), server.end.len()), (1, 1));
}

#[test]
fn a_cookie_that_is_forged_or_old_meets_silence() {
    let mut server = Alone::server();
    let (_, keying) = keying_of(&mut server, at(5000), ephemeral(1));
    let mut other = Alone::new(Config::new(ephemeral(2)));
    other.end.cookies = Cookies::new([8; 32], other.now);
    assert!(other.give(at(5000), &keying).is_empty());
    assert_eq!(other.end.stats().cookies_refused, 1);
    server.now += Duration::from_millis(95_001);
    for from in [at(5000), at(6000)] {
        assert!(server.give(from, &keying).is_empty());
    }
    assert!(server.end.is_empty() && other.end.is_empty());
}

#[test]
fn a_keying_is_put_together_from_fragments_in_any_order() {
    let cut = |keying: &[u8]| {
        let mut keying = keying.to_vec();
        let (_, inside) = open_multiplex(&mut keying).unwrap();
        let plain = FlashSuite::startup().open(inside).unwrap().to_vec();
        let len = plain.len().div_ceil(3);
        let parts = plain.chunks(len).zip(0..);
        let parts = parts.map(|(bytes, index)| {
            let more = index < 2;
            let packet = 77;
            sealed(
                0,
                &Chunk::PacketFragment(PacketFragment {
                    more,
                    packet,
                    index,
                    bytes,
                }),
            )
        });
        parts.collect::<Vec<_>>()
    };
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
        let mut server = Alone::server();
        let (_, keying) = keying_of(&mut server, at(5000), ephemeral(1));
        let parts = cut(&keying);
        for part in &order[..2] {
            assert!(server.give(at(5000), &parts[*part]).is_empty());
            // Twice, and from where it does not belong.
            assert!(server.give(at(5000), &parts[*part]).is_empty());
            assert!(server.give(at(5001), &parts[order[2]]).is_empty());
        }
        assert_eq!(server.give(at(5000), &parts[order[2]]).len(), 1);
        assert_eq!(server.end.len(), 1);
    }
    let mut server = Alone::server();
    let (_, keying) = keying_of(&mut server, at(5000), ephemeral(1));
    let parts = cut(&keying);
    server.give(at(5000), &parts[0]);
    server.now += Duration::from_millis(1001);
    server.give(at(5000), &parts[1]);
    assert!(
        server.give(at(5000), &parts[2]).is_empty(),
        "it stood still"
    );
}

#[test]
fn a_packet_that_is_not_for_a_startup_is_none() {
    let mut server = Alone::server();
    for mode in [Mode::Initiator, Mode::Responder] {
        let mut buffer = [0; 64];
        let mut suite = FlashSuite::startup();
        let head = SESSION_ID_LEN + suite.head_len();
        let mut packet = PacketWriter::new(&mut buffer[head..], &Header::new(mode)).unwrap();
        packet.chunk(&Chunk::Ping(b"x")).unwrap();
        let len = packet.finish();
        let len = SESSION_ID_LEN + suite.seal(&mut buffer[SESSION_ID_LEN..], len).unwrap();
        seal_multiplex(&mut buffer[..len], 0);
        assert!(server.give(at(5000), &buffer[..len]).is_empty());
    }
    assert_eq!(server.end.stats().dropped, 2);
}

#[test]
fn a_peer_is_introduced_so_often_in_a_second_and_no_more() {
    let mut server = Alone::server();
    let wanted = Discriminator::canonical(&[5; 32]);
    let mut told = 0;
    for port in 0..3000 {
        let (sent, events) = {
            server
                .end
                .handle_datagram(at(port), &mut hello(&wanted, &[1; 16]), server.now);
            server.run()
        };
        assert!(sent.is_empty());
        told += events.len();
    }
    assert_eq!(told, 1000);
    assert_eq!(server.end.stats().limited, 2000);
}
