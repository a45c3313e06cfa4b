//! Bodies of the fuzz targets.

use std::time::Instant;

use crate::chunk::Chunk;
use crate::crypto::identity::{Discriminator, Identity};
use crate::crypto::{FlashSuite, Group, Suite};
use crate::endpoint::{Config, Endpoint, Output};
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

/// Arbitrary plain packets, sealed for the startup, to an endpoint that is opening a
/// session: each is a length of two bytes and as many bytes.
#[allow(clippy::disallowed_methods, reason = "any instant will do")]
pub fn startup(data: &[u8]) {
    let now = Instant::now();
    let mut seed = 1_u8;
    let mut entropy = move |out: &mut [u8]| {
        for byte in out {
            seed = seed.wrapping_mul(181).wrapping_add(97);
            *byte = seed;
        }
    };
    let Ok(identity) = Identity::ephemeral(&[Group::Modp1024], true, None, &mut entropy) else {
        return;
    };
    let cookies = Cookies::new([1; 32], now);
    let mut endpoint = Endpoint::new(Config::new(identity), cookies, Box::new(entropy), now);
    let from = std::net::SocketAddr::from(([192, 0, 2, 1], 1935));
    let opening = endpoint.open(&Discriminator::server(b"rtmfp://h/a"), &[from], now);
    let mut suite = FlashSuite::startup();
    let mut buffer = [0; limits::STARTUP_DATAGRAM_MAX];
    let mut rest = data;
    while let Some(([id, len], after)) = rest.split_first_chunk::<2>() {
        let (plain, after) = after.split_at(usize::from(*len).min(after.len()));
        rest = after;
        let begin = SESSION_ID_LEN + suite.head_len();
        buffer[begin..begin + plain.len()].copy_from_slice(plain);
        let Ok(len) = suite.seal(&mut buffer[SESSION_ID_LEN..], plain.len()) else {
            return;
        };
        let datagram = &mut buffer[..SESSION_ID_LEN + len];
        seal_multiplex(datagram, if id & 1 == 0 { 0 } else { opening.0 });
        endpoint.handle_datagram(from, datagram, now);
        while !matches!(endpoint.poll_output(now, &mut buffer), Output::Timeout(_)) {}
    }
    assert!(endpoint.len() <= 1, "nobody has shown a cookie");
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
