use std::ops::RangeInclusive;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::address::{Address, Origin};
use crate::option::Options;

fn parse(mode: Mode, bytes: &[u8]) -> (Vec<Chunk<'_>>, u32) {
    let mut chunks = Chunks::new(mode, bytes);
    let all = chunks.by_ref().collect();
    (all, chunks.skipped())
}

fn write(chunk: &Chunk<'_>) -> Vec<u8> {
    let mut buffer = [0; 4096];
    let mut out = Writer::new(&mut buffer);
    chunk.write(&mut out).unwrap();
    out.written().to_vec()
}

#[track_caller]
fn both_ways(mode: Mode, chunk: Chunk<'_>, wire: &[u8]) {
    assert_eq!(write(&chunk), wire);
    assert_eq!(parse(mode, wire), (vec![chunk], 0));
    for len in 0..wire.len() {
        assert_eq!(parse(mode, &wire[..len]).0, [], "cut to {len}");
        let mut buffer = vec![0; len];
        let mut out = Writer::new(&mut buffer);
        assert_eq!(chunk.write(&mut out), Err(NoRoom));
        assert!(out.is_empty());
    }
}

#[test]
fn startup_chunks_are_laid_out_as_specified() {
    let (discriminator, tag) = (&[0x02, 0x0a, b'x'][..], &b"tag"[..]);
    both_ways(
        Mode::Startup,
        Chunk::InitiatorHello(InitiatorHello { discriminator, tag }),
        b"\x30\x00\x07\x03\x02\x0axtag",
    );
    let reply = Address {
        at: "10.0.0.1:1935".parse().unwrap(),
        origin: Origin::Observed,
    };
    both_ways(
        Mode::Responder,
        Chunk::ForwardedHello(ForwardedHello {
            discriminator,
            reply,
            tag,
        }),
        b"\x0f\x00\x0e\x03\x02\x0ax\x02\x0a\0\0\x01\x07\x8ftag",
    );
    both_ways(
        Mode::Startup,
        Chunk::ResponderHello(ResponderHello {
            tag,
            cookie: b"ck",
            certificate: b"cert",
        }),
        b"\x70\x00\x0b\x03tag\x02ckcert",
    );
    both_ways(
        Mode::Startup,
        Chunk::CookieChange(ResponderHelloCookieChange {
            old: b"old",
            new: b"newer",
        }),
        b"\x79\x00\x09\x03oldnewer",
    );
    both_ways(
        Mode::Startup,
        Chunk::InitiatorKeying(InitiatorKeying {
            session: 0x0102_0304,
            cookie: b"ck",
            certificate: b"cert",
            component: b"key",
            signature: b"X",
        }),
        b"\x38\x00\x11\x01\x02\x03\x04\x02ck\x04cert\x03keyX",
    );
    both_ways(
        Mode::Startup,
        Chunk::ResponderKeying(ResponderKeying {
            session: 0x0102_0304,
            component: b"key",
            signature: b"X",
        }),
        b"\x78\x00\x09\x01\x02\x03\x04\x03keyX",
    );
    both_ways(
        Mode::Startup,
        Chunk::PacketFragment(PacketFragment {
            more: true,
            packet: 300,
            index: 1,
            bytes: b"part",
        }),
        b"\x7f\x00\x08\x80\x82\x2c\x01part",
    );
}

#[test]
fn a_redirect_lists_addresses_or_means_its_source() {
    let list = [Address {
        at: "10.0.0.1:1935".parse().unwrap(),
        origin: Origin::Reported,
    }];
    let wire = b"\x71\x00\x09\x01t\x01\x0a\0\0\x01\x07\x8f";
    let tag = &b"t"[..];
    let written = write(&Chunk::Redirect(Redirect {
        tag,
        to: Redirects::List(&list),
    }));
    assert_eq!(written, wire);
    let read = Chunk::Redirect(Redirect {
        tag,
        to: Redirects::Wire(&wire[5..]),
    });
    both_ways(Mode::Startup, read, wire);
    assert!(Redirects::Wire(&wire[5..]).iter().eq(list));
    let implied = Chunk::Redirect(Redirect {
        tag,
        to: Redirects::Wire(&[]),
    });
    both_ways(Mode::Startup, implied, b"\x71\x00\x02\x01t");
    let cut = b"\x71\x00\x08\x01t\x01\x0a\0\0\x01\x07";
    assert_eq!(parse(Mode::Startup, cut), (vec![], 1));
}

#[test]
fn session_chunks_are_laid_out_as_specified() {
    let mode = Mode::Initiator;
    both_ways(mode, Chunk::Ping(b"hi"), b"\x01\x00\x02hi");
    both_ways(mode, Chunk::PingReply(b""), b"\x41\x00\x00");
    both_ways(
        mode,
        Chunk::BufferProbe { flow: 200 },
        b"\x18\x00\x02\x81\x48",
    );
    let exception = Chunk::FlowException { flow: 2, code: 0 };
    both_ways(mode, exception, b"\x5e\x00\x02\x02\x00");
    both_ways(mode, Chunk::Close, b"\x0c\x00\x00");
    both_ways(mode, Chunk::CloseAck, b"\x4c\x00\x00");
}

/// Figure 3 of RFC 7016.
#[test]
fn the_next_user_data_counts_on_from_the_one_before() {
    let wire =
        b"\x10\0\x07\0\x02\x05\x03\x00\x01\x02\x11\0\x04\0\x03\x04\x05\x11\0\x04\0\x06\x07\x08";
    let data = |sequence, data| UserData {
        flow: 2,
        sequence,
        forward: 2,
        fragment: Fragment::Whole,
        abandoned: false,
        last: false,
        options: None,
        data,
    };
    let expected = [
        Chunk::UserData(data(5, &[0, 1, 2])),
        Chunk::NextUserData(data(6, &[3, 4, 5])),
        Chunk::NextUserData(data(7, &[6, 7, 8])),
    ];
    assert_eq!(parse(Mode::Responder, wire), (expected.to_vec(), 0));
    assert_eq!(expected.iter().flat_map(write).collect::<Vec<_>>(), wire);
    assert_eq!(parse(Mode::Responder, &wire[10..]), (vec![], 2), "alone");
}

#[test]
fn flags_and_options_of_user_data_are_kept() {
    let wire = b"\x10\0\x0d\xb3\x05\x01\x00\x03\0TC\x02\x0a\x02\0d";
    let (chunks, _) = parse(Mode::Initiator, wire);
    let [Chunk::UserData(data)] = chunks[..] else {
        panic!("{chunks:?}");
    };
    assert_eq!((data.flow, data.sequence, data.forward), (5, 1, 1));
    assert_eq!(data.fragment, Fragment::Middle);
    assert!(data.abandoned && data.last);
    assert_eq!(data.options.unwrap().count(), 2);
    assert_eq!(data.data, b"d");
    assert_eq!(write(&chunks[0]), wire);
}

#[test]
fn user_data_with_impossible_numbers_is_ignored() {
    let ignored: [&[u8]; 3] = [
        b"\x10\0\x04\0\x02\x05\x06",   // fsnOffset beyond the sequence number
        b"\x10\0\x04\0\x02\x05\x00",   // fsnOffset 0, not abandoned
        b"\x10\0\x04\x02\x02\x00\x00", // sequence number 0
    ];
    for wire in ignored {
        assert_eq!(parse(Mode::Initiator, wire), (vec![], 1), "{wire:x?}");
    }
}

#[test]
fn a_bad_chunk_does_not_harm_the_others() {
    let wire =
        b"\x01\0\0\x4d\0\x01x\x18\0\x01\x80\x30\0\x01\0\0\0\x02zz\xff\0\0\x0c\0\0\xff\xff\xff\xff";
    let (chunks, skipped) = parse(Mode::Initiator, wire);
    assert_eq!(chunks, [Chunk::Ping(b""), Chunk::Close]);
    assert_eq!(skipped, 3, "unknown, broken, and one of another mode");
}

/// Figure 4 of RFC 7016.
#[test]
fn a_bitmap_begins_with_the_second_number_after_the_cumulative_one() {
    let wire = b"\x50\0\x05\x05\x7f\x10\x79\x06";
    let (chunks, _) = parse(Mode::Initiator, wire);
    let [Chunk::Ack(ack)] = chunks[..] else {
        panic!("{chunks:?}");
    };
    assert_eq!(
        (ack.flow, ack.buffer_bytes(), ack.cumulative),
        (5, 127 * 1024, 16)
    );
    let ranges: Vec<_> = ack.received().collect();
    assert_eq!(ranges, [18..=18, 21..=24, 27..=28]);
    assert_eq!(write(&chunks[0]), wire);
    assert_eq!(written_ack(16, &ranges, 100), (3, wire.to_vec()));
}

/// Figures 5 and 6 of RFC 7016.
#[test]
fn ranges_end_before_the_first_incomplete_one() {
    for (wire, expected) in [
        (
            &b"\x51\0\x07\x05\x7f\x10\x00\x00\x01\x03"[..],
            vec![18..=18, 21..=24],
        ),
        (b"\x51\0\x07\x05\x7f\x10\x00\x00\x01\x83", vec![18..=18]),
    ] {
        let (chunks, _) = parse(Mode::Initiator, wire);
        let [Chunk::Ack(ack)] = chunks[..] else {
            panic!("{chunks:?}");
        };
        assert_eq!(ack.received().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn ranges_beyond_64_bits_end_the_list() {
    let mut wire = vec![0x05, 0x7f, 0x10, 0, 0];
    let mut vlu = [0; 10];
    assert_eq!(crate::vlu::write(u64::MAX, &mut vlu), Some(10));
    wire.extend(vlu);
    wire.push(0);
    let ack = Ack::parse(AckForm::Ranges, &mut Reader::new(&wire)).unwrap();
    assert_eq!(ack.received().collect::<Vec<_>>(), [18..=18]);
    let bitmap = Ack {
        cumulative: u64::MAX - 3,
        form: AckForm::Bitmap,
        beyond: &[0xff],
        ..ack
    };
    let received: Vec<_> = bitmap.received().collect();
    assert_eq!(received, [u64::MAX - 1..=u64::MAX]);
}

fn written_ack(cumulative: u64, ranges: &[RangeInclusive<u64>], room: usize) -> (usize, Vec<u8>) {
    let mut buffer = vec![0; room];
    let mut out = Writer::new(&mut buffer);
    let count = write_ack(&mut out, 5, 127, cumulative, ranges.iter().cloned()).unwrap();
    (count, out.written().to_vec())
}

#[test]
fn an_acknowledgement_takes_the_shorter_form_and_leaves_out_what_has_no_room() {
    let far = [1000..=2000, 5000..=5000];
    let (count, wire) = written_ack(10, &far, 100);
    assert_eq!((count, wire[0]), (2, kind::ACK_RANGES));
    let (count, wire) = written_ack(10, &far, 11);
    assert_eq!((count, wire.len()), (1, 10));
    assert_eq!(
        written_ack(10, &[], 6),
        (0, b"\x51\0\x03\x05\x7f\x0a".to_vec())
    );
    let (count, wire) = written_ack(10, &[12..=12], 100);
    assert_eq!((count, &wire[..]), (1, &b"\x50\0\x04\x05\x7f\x0a\x01"[..]));
    let mut out = Writer::new(&mut []);
    assert_eq!(write_ack(&mut out, 5, 1, 1, [].into_iter()), Err(NoRoom));
}

#[test]
fn an_acknowledgement_without_bounds_costs_no_more_than_its_room() {
    let huge = [12..=u64::MAX - 5];
    let (count, wire) = written_ack(10, &huge, 200);
    assert_eq!((count, wire[0]), (1, kind::ACK_RANGES));
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..40)
}

proptest! {
    #[test]
    fn acknowledgements_say_what_was_received(
        cumulative in 0..1_u64 << 40,
        steps in vec((0..20_u64, 0..20_u64), 0..40),
        room in 16..200_usize,
    ) {
        let mut cursor = cumulative;
        let mut ranges = Vec::new();
        for (missing, run) in steps {
            ranges.push(cursor + missing + 2..=cursor + missing + 2 + run);
            cursor += missing + 2 + run;
        }
        let (count, wire) = written_ack(cumulative, &ranges, room);
        let (chunks, skipped) = parse(Mode::Initiator, &wire);
        prop_assert_eq!(skipped, 0);
        let [Chunk::Ack(ack)] = chunks[..] else {
            panic!("{chunks:?}");
        };
        prop_assert_eq!(ack.received().collect::<Vec<_>>(), &ranges[..count]);
        prop_assert!(count == ranges.len() || wire.len() + 2 * 2 + 20 / 8 + 6 > room);
    }

    #[test]
    fn user_data_is_read_as_written(
        numbers in (any::<u64>(), 1..=u64::MAX, any::<u64>()),
        flags in (0..4_usize, any::<bool>(), any::<bool>()),
        metadata in option::of(bytes()),
        data in bytes(),
    ) {
        let (flow, sequence, offset) = numbers;
        let (fragment, abandoned, last) = flags;
        let mut buffer = [0; 64];
        let mut list = Writer::new(&mut buffer);
        if let Some(metadata) = &metadata {
            crate::option::write_flow_options(&mut list, metadata, Some(flow)).unwrap();
        }
        let options = Options::parse_all(list.written());
        let chunk = Chunk::UserData(UserData {
            flow,
            sequence,
            forward: sequence - 1 - offset % sequence,
            fragment: [Fragment::Whole, Fragment::Begin, Fragment::End, Fragment::Middle][fragment],
            abandoned,
            last,
            options: options.filter(|_| metadata.is_some()),
            data: &data,
        });
        let wire = write(&chunk);
        prop_assert_eq!(parse(Mode::Responder, &wire), (vec![chunk], 0));
    }

    #[test]
    fn whatever_comes_is_read_without_harm(mode in 0..3_usize, bytes in vec(any::<u8>(), 0..300)) {
        let mode = [Mode::Initiator, Mode::Responder, Mode::Startup][mode];
        let (chunks, _) = parse(mode, &bytes);
        for chunk in &chunks {
            if let Chunk::Ack(ack) = chunk {
                prop_assert!(ack.received().count() <= 4 * bytes.len());
            }
            if !matches!(chunk, Chunk::NextUserData(_)) {
                let again = write(chunk);
                prop_assert_eq!(parse(mode, &again).0, vec![*chunk]);
            }
        }
    }
}
