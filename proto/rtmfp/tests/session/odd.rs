//! What is allowed and rare: unknown chunks, padding, packets in fragments, time critical
//! traffic, clocks that jump.

use super::*;
use selvage_rtmfp::chunk::PacketFragment;

/// A packet of the initiator with these bytes after its header.
fn raw(played: &mut Played, body: &[u8]) {
    let mut packet = vec![0x01];
    packet.extend(body);
    let far = played.far;
    played.session.handle_packet(far, &packet, played.now);
}

#[test]
fn unknown_chunks_and_padding_are_stepped_over() {
    let ping = [0x01, 0, 1, b'x'];
    let unknown = [0x4d, 0, 3, 1, 2, 3];
    let zeros = [0, 0, 2, 0, 0];
    let ones = [0xff, 0, 1, 9];
    // A chunk that is longer than the packet is padding, and so are too few bytes for one.
    let long = [0x18, 0xff, 0xff, 1];
    for body in [
        &[&unknown[..], &ping].concat(),
        &[&zeros[..], &ping].concat(),
        &[&ones[..], &ping].concat(),
        &[&ping[..], &long].concat(),
        &[&ping[..], &[0xff]].concat(),
        &[&ping[..], &[0xff; 15]].concat(),
        // One that has no place in a session, and one that is cut short.
        &[&[0x30, 0, 2, 1, 0][..], &ping].concat(),
        &[&[0x10, 0, 2, 0, 0x80][..], &ping].concat(),
    ] {
        let mut played = Played::new();
        raw(&mut played, body);
        assert_eq!(
            played.sent(),
            [[Seen::PingReply(b"x".to_vec())]],
            "{body:?}"
        );
        assert!(played.events().is_empty());
    }
}

/// A packet with a ping, in three fragments.
fn fragments(more: [bool; 3]) -> [Vec<u8>; 3] {
    let inner = [0x01, 0x01, 0, 5, b'h', b'e', b'l', b'l', b'o'];
    let mut parts = inner.chunks(3).zip(more).enumerate();
    std::array::from_fn(|_| {
        let (index, (bytes, more)) = parts.next().unwrap();
        let mut buffer = [0; 40];
        let header = Header::new(Mode::Initiator);
        let mut packet = PacketWriter::new(&mut buffer, &header).unwrap();
        let part = PacketFragment {
            more,
            packet: 5,
            index: index as u64,
            bytes,
        };
        packet.chunk(&Chunk::PacketFragment(part)).unwrap();
        let len = packet.finish();
        buffer[1..len].to_vec()
    })
}

#[test]
fn a_packet_in_fragments_is_put_together_in_any_order() {
    let parts = fragments([true, true, false]);
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let mut played = Played::new();
        for at in order {
            assert!(played.sent().is_empty());
            raw(&mut played, &parts[at]);
            // Again, once it is not the last that was missing.
            if at != order[2] {
                raw(&mut played, &parts[at]);
            }
        }
        assert_eq!(played.sent(), [[Seen::PingReply(b"hello".to_vec())]]);
    }
}

#[test]
fn fragments_with_a_gap_that_nothing_fills_are_forgotten() {
    let parts = fragments([true, true, false]);
    let mut played = Played::new();
    raw(&mut played, &parts[0]);
    played.now += Duration::from_millis(1001);
    raw(&mut played, &parts[1]);
    raw(&mut played, &parts[2]);
    assert!(played.sent().is_empty());
    // A last one that others are behind ends nothing.
    let mut played = Played::new();
    for part in fragments([true, false, false]) {
        raw(&mut played, &part);
    }
    assert!(played.sent().is_empty());
}

#[test]
fn a_packet_in_fragments_is_of_the_mode_of_its_fragments() {
    let mut inner = [0x02, 0x0c, 0, 0];
    for (mode, open) in [(1, false), (2, true), (3, true)] {
        inner[0] = mode;
        let mut played = Played::new();
        let part = PacketFragment {
            more: false,
            packet: 1,
            index: 0,
            bytes: &inner,
        };
        played.receive(&[Chunk::PacketFragment(part)]);
        assert_eq!(played.session.is_open(), open, "mode {mode}");
    }
}

#[test]
fn fragments_in_fragments_are_not_unpacked() {
    let mut bytes = vec![0x01, 0x0c, 0, 0];
    for _ in 0..2 {
        let mut buffer = [0; 100];
        let header = Header::new(Mode::Initiator);
        let mut packet = PacketWriter::new(&mut buffer, &header).unwrap();
        let part = PacketFragment {
            more: false,
            packet: 1,
            index: 0,
            bytes: &bytes,
        };
        packet.chunk(&Chunk::PacketFragment(part)).unwrap();
        let len = packet.finish();
        bytes = buffer[..len].to_vec();
    }
    let mut played = Played::new();
    raw(&mut played, &bytes[1..]);
    assert!(played.session.is_open());
    assert_eq!(played.session.stats().chunks_ignored, 1);
}

/// The header of the next packet that goes out.
fn header(played: &mut Played) -> Header {
    let mut buffer = [0; DATAGRAM_MAX];
    let packet = played.session.poll_transmit(&mut buffer, played.now);
    let len = packet.unwrap().len;
    Packet::parse(&buffer[..len]).unwrap().header
}

#[test]
fn packets_with_time_critical_data_say_so() {
    let mut played = Played::new();
    let critical = Options {
        time_critical: true,
        ..Options::default()
    };
    let flow = played.session.open_flow(b"v", critical).unwrap();
    let other = played.open();
    played.write(other, b"x");
    assert!(!header(&mut played).time_critical);
    played.write(flow, b"x");
    assert!(header(&mut played).time_critical);
    played.write(other, b"x");
    assert!(!header(&mut played).time_critical, "each packet by itself");
}

#[test]
fn who_receives_time_critical_data_of_one_asks_others_to_yield() {
    let mut played = Played::new();
    let flow = played.open();
    let neighbours = selvage_rtmfp::congestion::Neighbours {
        received: Some(played.now),
        ..selvage_rtmfp::congestion::Neighbours::default()
    };
    played.session.set_neighbours(neighbours);
    played.write(flow, b"x");
    assert!(header(&mut played).time_critical_reverse);
    played.now += Duration::from_millis(800);
    played.write(flow, b"x");
    assert!(!header(&mut played).time_critical_reverse);
}

#[test]
fn who_is_asked_to_yield_grows_more_slowly() {
    // What an acknowledged round of the first window makes of it.
    let grown = |ask: bool| {
        let mut played = Played::new();
        let flow = played.open();
        let now = played.now;
        played
            .session
            .write(flow, vec![0; 60_000], Priority::Data, None, now)
            .unwrap();
        let sent = played.sent().concat();
        let last = sent
            .iter()
            .filter(|it| matches!(it, Seen::Data { .. }))
            .count();
        let mut buffer = [0; 100];
        let mut header = Header::new(Mode::Initiator);
        header.time_critical_reverse = ask;
        let mut packet = PacketWriter::new(&mut buffer, &header).unwrap();
        packet
            .chunk(&Chunk::Ack(Ack {
                flow: flow.0,
                buffer_blocks: 64,
                cumulative: last as u64,
                form: AckForm::Ranges,
                beyond: &[],
            }))
            .unwrap();
        let len = packet.finish();
        let far = played.far;
        played.session.handle_packet(far, &buffer[..len], now);
        played.session.in_flight().0
    };
    assert_eq!(grown(false), 4800, "slow start");
    assert!(grown(true) < 4100, "{}", grown(true));
}

#[test]
fn a_far_clock_that_jumps_and_wraps_is_only_repeated() {
    let mut played = Played::new();
    for timestamp in [5, 0xffff, 0, 0x8000, 4, 3] {
        let mut buffer = [0; 100];
        let mut said = Header::new(Mode::Initiator);
        said.timestamp = Some(timestamp);
        // An echo of what was never said is no measurement, or a harmless one.
        said.timestamp_echo = Some(timestamp ^ 0x9000);
        let mut packet = PacketWriter::new(&mut buffer, &said).unwrap();
        packet.chunk(&Chunk::Ping(b"")).unwrap();
        let len = packet.finish();
        let far = played.far;
        played
            .session
            .handle_packet(far, &buffer[..len], played.now);
        played.now += Duration::from_millis(40);
        assert_eq!(
            header(&mut played).timestamp_echo,
            Some(timestamp.wrapping_add(10))
        );
    }
    // After 128 seconds it would be ambiguous.
    played.now += Duration::from_secs(129);
    let flow = played.open();
    played.write(flow, b"x");
    assert_eq!(header(&mut played).timestamp_echo, None);
}
