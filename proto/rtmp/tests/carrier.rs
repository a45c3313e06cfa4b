//! Two carriers, or a carrier and bytes written by hand.

use bytes::{BufMut, Bytes, BytesMut};
use selvage_rtmp as rtmp;

use rtmp::handshake::{Kind, Scheme};
use rtmp::{Blame, Carrier, Error, Message, MessageKind, StreamId, UserControl, limits};

/// Two carriers and what is under way between them.
struct Pair {
    client: Carrier,
    server: Carrier,
    up: BytesMut,
    down: BytesMut,
}

impl Pair {
    fn new() -> Self {
        Self {
            client: Carrier::client(1),
            server: Carrier::server(2),
            up: BytesMut::new(),
            down: BytesMut::new(),
        }
    }

    fn open() -> Self {
        let mut pair = Self::new();
        pair.drive();
        assert!(pair.client.is_open() && pair.server.is_open());
        pair
    }

    /// Carries bytes both ways until nobody has anything to say.
    fn drive(&mut self) {
        loop {
            let up = carry(&mut self.client, &mut self.server, &mut self.up);
            let down = carry(&mut self.server, &mut self.client, &mut self.down);
            if up + down == 0 {
                return;
            }
        }
    }
}

fn carry(from: &mut Carrier, to: &mut Carrier, wire: &mut BytesMut) -> usize {
    let bytes = sent(from);
    wire.extend_from_slice(&bytes);
    assert_eq!(to.handle_bytes(wire), Ok(()));
    bytes.len()
}

fn sent(carrier: &mut Carrier) -> Vec<u8> {
    let len = carrier.transmit_len();
    let bytes = std::iter::from_fn(|| carrier.poll_transmit())
        .collect::<Vec<_>>()
        .concat();
    if carrier.is_open() {
        assert_eq!(bytes.len(), len);
        assert_eq!(carrier.transmit_len(), 0);
    }
    bytes
}

/// A protocol control message as it lies on the wire.
fn control(type_id: u8, body: &[u8]) -> Vec<u8> {
    let len = body.len().to_le_bytes()[0];
    let mut wire = vec![2, 0, 0, 0, 0, 0, len, type_id, 0, 0, 0, 0];
    wire.extend_from_slice(body);
    wire
}

fn give(carrier: &mut Carrier, bytes: &[u8]) -> Result<(), Error> {
    carrier.handle_bytes(&mut BytesMut::from(bytes))
}

fn video(time: u32, len: usize) -> Message {
    let payload = (0..=250).cycle().take(len).collect();
    Message {
        kind: MessageKind::Video,
        stream: StreamId(1),
        time,
        payload,
    }
}

#[test]
fn our_client_and_our_server_open_with_digests() {
    let pair = Pair::open();
    assert_eq!(
        pair.client.handshake(),
        Some(Kind::Digest(Scheme::DigestFirst))
    );
    assert_eq!(
        pair.server.handshake(),
        Some(Kind::Digest(Scheme::DigestFirst))
    );
    assert_eq!(pair.server.bytes_received(), limits::HANDSHAKE_BYTES as u64);
    assert_eq!(pair.client.bytes_sent(), limits::HANDSHAKE_BYTES as u64);
}

#[test]
fn messages_go_both_ways_and_those_written_early_wait_for_the_handshake() {
    let mut pair = Pair::new();
    pair.client.write_message(&video(1, 1000));
    assert_eq!(sent(&mut pair.client).len(), 1537, "C0 and C1 alone");
    let mut pair = Pair::new();
    pair.client.write_message(&video(1, 1000));
    pair.server.write_message(&video(2, 100_000));
    pair.drive();
    assert_eq!(pair.server.poll_message(), Some(video(1, 1000)));
    assert_eq!(pair.client.poll_message(), Some(video(2, 100_000)));
    assert_eq!(pair.server.poll_message(), None);
}

#[test]
fn every_chunk_size_carries_every_length() {
    for chunk_size in [1, 2, 127, 128, 4096, 65536, u32::MAX] {
        let mut pair = Pair::open();
        pair.server.set_chunk_size(chunk_size);
        let lengths = [0, 1, 127, 128, 129, 511, 512, 5000, 70_000];
        let messages = lengths.map(|len| video(0xff_fff0 + u32::try_from(len).unwrap(), len));
        for message in &messages {
            pair.server.write_message(message);
        }
        pair.drive();
        for message in messages {
            assert_eq!(pair.client.poll_message(), Some(message));
        }
    }
}

#[test]
fn a_chunk_size_applies_from_its_message_on() {
    let mut pair = Pair::open();
    pair.server.write_message(&video(0, 300));
    pair.server.set_chunk_size(4096);
    pair.server.set_chunk_size(4096);
    pair.server.write_message(&video(0, 300));
    assert_eq!(pair.server.send_chunk_size(), 4096);
    // Header, three chunks; Set Chunk Size, once; header, one chunk.
    assert_eq!(pair.server.transmit_len(), 12 + 302 + 16 + 12 + 300);
    pair.drive();
    assert_eq!(pair.client.poll_message(), Some(video(0, 300)));
    assert_eq!(pair.client.poll_message(), Some(video(0, 300)));
}

#[test]
fn an_image_is_read_like_a_message() {
    let mut pair = Pair::open();
    pair.server.set_chunk_size(4096);
    for len in [100, 50_000] {
        let Message {
            kind,
            stream,
            time,
            payload,
        } = video(0x0200_0000, len);
        let mut image = BytesMut::new();
        rtmp::chunk::image(
            kind,
            stream,
            time,
            &payload,
            pair.server.send_chunk_size(),
            &mut image,
        );
        pair.server.write_image(image.freeze());
        pair.drive();
        assert_eq!(pair.client.poll_message(), Some(video(0x0200_0000, len)));
    }
}

#[test]
fn a_chunk_size_out_of_range_ends_the_connection() {
    for size in [0, 0x8000_0000, u32::MAX] {
        let mut carrier = rtmp::fuzzing::opened();
        let error = Error::ChunkSize { size };
        assert_eq!(
            give(&mut carrier, &control(1, &size.to_be_bytes())),
            Err(error)
        );
        assert_eq!(error.blame(), Blame::PeerMisbehaved);
        assert_eq!(give(&mut carrier, &[]), Err(error), "an error is final");
    }
    let mut carrier = rtmp::fuzzing::opened();
    assert_eq!(
        give(&mut carrier, &control(1, &0x7fff_ffffu32.to_be_bytes())),
        Ok(())
    );
}

#[test]
fn messages_before_an_error_can_still_be_polled() {
    let mut carrier = rtmp::fuzzing::opened();
    let mut wire = BytesMut::new();
    rtmp::chunk::image(
        MessageKind::Video,
        StreamId(1),
        7,
        b"\x17\x01",
        128,
        &mut wire,
    );
    wire.extend_from_slice(&control(1, &[0; 4]));
    assert_eq!(
        carrier.handle_bytes(&mut wire),
        Err(Error::ChunkSize { size: 0 })
    );
    assert_eq!(carrier.poll_message().map(|message| message.time), Some(7));
}

#[test]
fn a_control_message_without_its_fields_ends_the_connection() {
    for type_id in [1, 2, 3, 5, 6] {
        let mut carrier = rtmp::fuzzing::opened();
        let error = Error::ControlTooShort { type_id, len: 3 };
        assert_eq!(
            give(&mut carrier, &control(type_id, &[1, 2, 3])),
            Err(error)
        );
    }
}

#[test]
fn set_chunk_size_takes_effect_inside_an_interleaved_message() {
    let mut carrier = rtmp::fuzzing::opened();
    let body: Bytes = (0..=250).cycle().take(400).collect();
    let mut wire = vec![6, 0, 0, 0, 0, 1, 0x90, 9, 1, 0, 0, 0];
    wire.extend_from_slice(&body[..128]);
    wire.extend_from_slice(&control(1, &200u32.to_be_bytes()));
    wire.push(0xc6);
    wire.extend_from_slice(&body[128..328]);
    wire.push(0xc6);
    wire.extend_from_slice(&body[328..]);
    assert_eq!(give(&mut carrier, &wire), Ok(()));
    assert_eq!(carrier.poll_message().unwrap().payload, body);
    assert_eq!(carrier.bytes_held(), 0);
}

#[test]
fn half_a_window_is_acknowledged_with_the_running_total() {
    let mut pair = Pair::open();
    // The handshake counts: it is about 3,100 bytes.
    pair.client.announce_window(8000, 2_500_000);
    pair.drive();
    assert_eq!(pair.client.acknowledged(), None);
    pair.client.write_message(&video(0, 1500));
    pair.drive();
    let total = u32::try_from(pair.client.bytes_sent()).unwrap();
    assert_eq!(pair.client.acknowledged(), Some(total));
}

#[test]
fn set_peer_bandwidth_is_answered_with_a_window_when_it_differs() {
    let mut carrier = rtmp::fuzzing::opened();
    let ask = |size: u32| [&size.to_be_bytes()[..], &[2]].concat();
    give(&mut carrier, &control(6, &ask(2_500_000))).unwrap();
    assert_eq!(sent(&mut carrier), control(5, &2_500_000u32.to_be_bytes()));
    give(&mut carrier, &control(6, &ask(2_500_000))).unwrap();
    assert_eq!(sent(&mut carrier), []);
}

#[test]
fn announcing_a_window_writes_what_flash_media_server_writes() {
    let mut carrier = rtmp::fuzzing::opened();
    carrier.announce_window(2_500_000, 2_500_000);
    let window = 2_500_000u32.to_be_bytes();
    let bandwidth = [&window[..], &[2]].concat();
    assert_eq!(
        sent(&mut carrier),
        [control(5, &window), control(6, &bandwidth)].concat()
    );
}

#[test]
fn unknown_types_are_counted_and_forgotten() {
    let mut carrier = rtmp::fuzzing::opened();
    give(&mut carrier, &control(99, b"what")).unwrap();
    give(&mut carrier, &control(7, b"")).unwrap();
    assert_eq!(carrier.poll_message(), None);
    assert_eq!(carrier.ignored(), 2);
}

#[test]
fn user_control_messages_leave_the_carrier_undecoded() {
    let mut pair = Pair::open();
    let ping = Message::user_control(UserControl::PingRequest(77));
    pair.server.write_message(&ping);
    pair.drive();
    let message = pair.client.poll_message().unwrap();
    assert_eq!(message, ping);
    assert_eq!(
        UserControl::decode(&message.payload),
        Ok(UserControl::PingRequest(77))
    );
}

#[test]
fn an_aggregate_leaves_as_its_parts() {
    let mut wire = vec![6, 0, 0, 100, 0, 0, 34, 22, 1, 0, 0, 0];
    for (type_id, time) in [(8, 10), (9, 30)] {
        wire.extend_from_slice(&[type_id, 0, 0, 2, 0, 0, time, 0, 0, 0, 0, 0xaf, type_id]);
        wire.put_u32(13);
    }
    let mut carrier = rtmp::fuzzing::opened();
    give(&mut carrier, &wire).unwrap();
    let message = |kind, time, byte| Message {
        kind,
        stream: StreamId(1),
        time,
        payload: Bytes::copy_from_slice(&[0xaf, byte]),
    };
    assert_eq!(
        carrier.poll_message(),
        Some(message(MessageKind::Audio, 100, 8))
    );
    assert_eq!(
        carrier.poll_message(),
        Some(message(MessageKind::Video, 120, 9))
    );
    assert_eq!(carrier.poll_message(), None);
}

#[test]
fn a_message_too_long_for_the_format_is_counted_and_left_out() {
    let mut carrier = rtmp::fuzzing::opened();
    let payload = Bytes::from(vec![0; limits::MESSAGE_LENGTH_MAX + 1]);
    carrier.write_message(&Message {
        payload,
        ..video(0, 0)
    });
    carrier.write_message(&video(0, 1));
    assert_eq!(carrier.unwritable(), 1);
    assert_eq!(sent(&mut carrier).len(), 13);
}

#[test]
fn an_encrypted_client_is_told_to_be_unsupported_and_not_to_misbehave() {
    let error = give(&mut Carrier::server(1), &[6]).unwrap_err();
    assert_eq!(error, Error::Encrypted { version: 6 });
    assert_eq!(error.blame(), Blame::PeerIncompatible);
}

#[test]
fn a_message_has_the_stamp_of_the_bytes_that_it_began_with() {
    let mut pair = Pair::open();
    let message = |kind, len| Message {
        kind,
        stream: StreamId(1),
        time: 0,
        payload: Bytes::from(vec![7; len]),
    };
    // A picture in several chunks, and a sound behind it.
    pair.client
        .write_message(&message(MessageKind::Video, 1_000));
    pair.client.write_message(&message(MessageKind::Audio, 50));
    let bytes = sent(&mut pair.client);
    let mut wire = BytesMut::new();
    for (stamp, part) in (1..).zip(bytes.chunks(600)) {
        pair.server.stamp(stamp);
        wire.extend_from_slice(part);
        assert_eq!(pair.server.handle_bytes(&mut wire), Ok(()));
    }
    for (kind, stamp) in [(MessageKind::Video, 1), (MessageKind::Audio, 2)] {
        assert_eq!(pair.server.poll_message().unwrap().kind, kind);
        assert_eq!(pair.server.polled_stamp(), stamp);
    }
    // A message that begins without a stamp has none.
    pair.server.stamp(0);
    pair.client.write_message(&message(MessageKind::Audio, 50));
    pair.drive();
    assert!(pair.server.poll_message().is_some());
    assert_eq!(pair.server.polled_stamp(), 0);
}
