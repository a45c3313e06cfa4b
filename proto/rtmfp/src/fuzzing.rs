//! Bodies of the fuzz targets.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::chunk::Chunk;
use crate::crypto::identity::{Discriminator, Identity};
use crate::crypto::{FlashSuite, Group, Suite};
use crate::endpoint::{Config, Endpoint, OpeningId, Output};
use crate::limits;
use crate::packet::{Packet, PacketWriter, SESSION_ID_LEN, seal_multiplex};
use crate::startup::Cookies;

/// Arbitrary bytes as a plain packet: what is read can be written and read again.
///
/// # Panics
/// When it cannot.
pub fn packet(plain: &[u8]) {
    let Ok(packet) = Packet::parse(plain) else {
        return;
    };
    let chunks: Vec<_> = packet.chunks().collect();
    for chunk in &chunks {
        if let Chunk::Ack(ack) = chunk {
            assert!(ack.received().count() <= 4 * plain.len());
        }
        if let Chunk::Redirect(redirect) = chunk {
            assert!(redirect.to.iter().count() <= plain.len());
        }
    }
    // Numbers may have had leading zeros, and chunks that were stepped over are gone, so
    // that what is written is never longer.
    let mut buffer = vec![0; plain.len()];
    let again = PacketWriter::new(&mut buffer, &packet.header).and_then(|mut again| {
        for chunk in &chunks {
            again.chunk(chunk)?;
        }
        Ok(again.finish())
    });
    let len = again.unwrap_or(0);
    assert_ne!(len, 0, "it is longer than what was read");
    let read = Packet::parse(&buffer[..len]);
    assert!(
        read.is_ok_and(|read| read.chunks().eq(chunks)),
        "it differs"
    );
}

/// An endpoint that is opening a session, as [`startup`] plays it: everything follows from
/// constants, so that a seed can hold the cookie and the tag that are right.
#[must_use]
pub fn startup_endpoint(now: Instant) -> Option<(Endpoint, OpeningId)> {
    let mut seed = 1_u8;
    let mut entropy = move |out: &mut [u8]| {
        for byte in out {
            seed = seed.wrapping_mul(181).wrapping_add(97);
            *byte = seed;
        }
    };
    let identity = Identity::ephemeral(&[Group::Modp1024], true, None, &mut entropy).ok()?;
    let cookies = Cookies::new([1; 32], now);
    let mut endpoint = Endpoint::new(Config::new(identity), cookies, Box::new(entropy), now);
    let opening = endpoint.open(&Discriminator::server(b"rtmfp://h/a"), &[far(0)], now);
    Some((endpoint, opening))
}

/// The addresses that datagrams come from in [`startup`]; the first is the one asked.
#[must_use]
pub fn far(index: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 1935 + u16::from(index & 3)))
}

/// The longest answer to a hello of [`startup_endpoint`], with a tag as long as is taken.
const HELLO_ANSWER_MAX: usize = 256;

/// Arbitrary plain packets, sealed for the startup, to an endpoint that is opening a
/// session. Each is a byte that says which session it is to, where it comes from and how
/// long to wait before it, a length of two bytes, and as many bytes.
///
/// # Panics
/// When one who may be lying about its address makes the endpoint say more than it was told.
#[allow(clippy::disallowed_methods, reason = "any instant will do")]
pub fn startup(data: &[u8]) {
    let mut now = Instant::now();
    let Some((mut endpoint, opening)) = startup_endpoint(now) else {
        return;
    };
    let mut suite = FlashSuite::startup();
    let mut buffer = [0; limits::STARTUP_DATAGRAM_MAX];
    let mut rest = data;
    let mut packets = 0;
    while let Some(([what, high, low], after)) = rest.split_first_chunk::<3>() {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let begin = SESSION_ID_LEN + suite.head_len();
        let room = suite.plain_max(buffer.len() - SESSION_ID_LEN);
        let (plain, after) = after.split_at(len.min(after.len()).min(room));
        rest = after;
        now += Duration::from_millis(u64::from(what >> 3) * 250);
        drain(&mut endpoint, now, &mut buffer);
        buffer[begin..begin + plain.len()].copy_from_slice(plain);
        let Ok(len) = suite.seal(&mut buffer[SESSION_ID_LEN..], plain.len()) else {
            return;
        };
        let len = SESSION_ID_LEN + len;
        let datagram = &mut buffer[..len];
        seal_multiplex(datagram, if what & 1 == 0 { 0 } else { opening.0 });
        let keyings = endpoint.stats().keyings;
        endpoint.handle_datagram(far(what >> 1), datagram, now);
        let proved = endpoint.stats().keyings > keyings;
        let sent = drain(&mut endpoint, now, &mut buffer);
        let first = Packet::parse(plain).ok().and_then(|it| it.chunks().next());
        match first {
            Some(Chunk::InitiatorHello(_)) => assert!(sent <= len.max(HELLO_ANSWER_MAX)),
            // A keying that came before is answered as it was.
            Some(Chunk::InitiatorKeying(_)) if !proved => {
                assert!(sent <= len.max(HELLO_ANSWER_MAX), "{sent} for {len}");
            }
            Some(_) | None => {}
        }
        packets += 1;
        assert!(endpoint.len() <= packets, "sessions without a keying");
    }
}

/// Lets an endpoint do what it has to, and counts the bytes that it sends.
fn drain(endpoint: &mut Endpoint, now: Instant, buffer: &mut [u8]) -> usize {
    let mut sent = 0;
    for _ in 0..1000 {
        match endpoint.poll_output(now, buffer) {
            Output::Transmit { len, .. } => sent += len,
            Output::Event(_) => {}
            Output::Timeout(_) => return sent,
        }
    }
    unreachable!("it never comes to rest");
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn packets_hold(data in vec(any::<u8>(), 0..200)) {
            super::packet(&data);
        }

        #[test]
        fn startups_hold(data in vec(any::<u8>(), 0..600)) {
            super::startup(&data);
        }
    }
}
