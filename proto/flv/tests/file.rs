//! FLV files: FLV 10.1 §E.2 to §E.4.1.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use bytes::{Bytes, BytesMut};
use model::Kind;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use selvage_flv::file::{Reader, Tag, Writer};
use selvage_flv::limits::{TAG_FORMAT_MAX, TAG_MAX};
use selvage_flv::{Error, Feature, Limit, Misbehaviour};

const HEADER: &[u8] = b"FLV\x01\x05\0\0\0\x09\0\0\0\0";

fn read(bytes: &[u8]) -> Result<Vec<Tag>, Error> {
    let (mut reader, mut input) = (Reader::new(), BytesMut::from(bytes));
    let mut tags = Vec::new();
    while let Some(tag) = reader.handle_bytes(&mut input)? {
        tags.push(tag);
    }
    Ok(tags)
}

#[test]
fn a_file_is_written_as_the_specification_lays_it_out() {
    assert_eq!(Writer::header(true, true), HEADER);
    assert_eq!(Writer::header(true, false)[4], 4);
    assert_eq!(Writer::header(false, true)[4], 1);
    assert_eq!(
        Writer::tag(9, 0x0102_0304, b"\x17\x02").unwrap(),
        b"\x09\0\0\x02\x02\x03\x04\x01\0\0\0\x17\x02\0\0\0\x0d"[..]
    );
    let (front, back) = Writer::around(18, 0, 300).unwrap();
    assert_eq!(front, *b"\x12\0\x01\x2c\0\0\0\0\0\0\0");
    assert_eq!(back, 311_u32.to_be_bytes());
    let max = TAG_FORMAT_MAX;
    assert_eq!(
        Writer::around(9, 0, max + 1),
        Err(Error::LimitExceeded(Limit::TagSize { len: max + 1, max }))
    );
}

#[test]
fn wrong_back_pointers_long_headers_and_unknown_tags_are_tolerated() {
    let file = [
        b"FLV\x01\xff\0\0\0\x0bxx\x01\x02\x03\x04",
        &b"\x08\0\0\x01\0\0\x05\0\x07\x07\x07\xaf\xff\xff\xff\xff"[..],
        b"\xcf\0\0\0\0\0\x06\0\0\0\0\0\0\0\0",
    ]
    .concat();
    let tags = read(&file).unwrap();
    assert_eq!(
        tags,
        [
            Tag {
                type_id: 8,
                time: 5,
                payload: Bytes::from_static(b"\xaf")
            },
            Tag {
                type_id: 15,
                time: 6,
                payload: Bytes::new()
            },
        ]
    );
    assert_eq!((tags[0].kind(), tags[1].kind()), (Some(Kind::Audio), None));
}

#[test]
fn the_extended_timestamp_is_the_high_byte() {
    let file = [HEADER, b"\x09\0\0\0\0\0\x01\x80\0\0\0"].concat();
    assert_eq!(read(&file).unwrap()[0].time, 0x8000_0001);
}

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    assert_eq!(
        read(b"GIF89a..."),
        Err(Error::PeerMisbehaved(Misbehaviour::NotFlv))
    );
    assert_eq!(
        read(b"FLV\x02\0\0\0\0\x09"),
        Err(Error::Unsupported(Feature::Version(2)))
    );
    assert_eq!(
        read(b"FLV\x01\0\0\0\0\x08"),
        Err(Error::PeerMisbehaved(Misbehaviour::ShortHeader {
            claimed: 8
        }))
    );
    assert!(matches!(
        read(b"FLV\x01\0\x7f\0\0\x08"),
        Err(Error::LimitExceeded(Limit::HeaderSize { .. }))
    ));
    let encrypted = [HEADER, b"\x29\0\0\0\0\0\0\0\0\0\0"].concat();
    assert_eq!(
        read(&encrypted),
        Err(Error::Unsupported(Feature::FilteredTag))
    );
    let large = [HEADER, b"\x09\xff\xff\xff\0\0\0\0\0\0\0"].concat();
    assert_eq!(
        read(&large),
        Err(Error::LimitExceeded(Limit::TagSize {
            len: TAG_FORMAT_MAX,
            max: TAG_MAX
        }))
    );
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(7), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_however_the_bytes_come(
        tags in prop::collection::vec(
            (prop::sample::select(vec![8_u8, 9, 18]), any::<u32>(), prop::collection::vec(any::<u8>(), 0..40)),
            0..8,
        ),
        piece in 1..50_usize,
    ) {
        let mut file = Writer::header(true, true).to_vec();
        for (type_id, time, payload) in &tags {
            file.extend_from_slice(&Writer::tag(*type_id, *time, payload).unwrap());
        }
        let (mut reader, mut input) = (Reader::new(), BytesMut::new());
        let mut got = Vec::new();
        for piece in file.chunks(piece) {
            input.extend_from_slice(piece);
            while let Some(tag) = reader.handle_bytes(&mut input).unwrap() {
                got.push((tag.type_id, tag.time, tag.payload.to_vec()));
            }
        }
        prop_assert_eq!(got, tags);
        prop_assert!(input.is_empty());
    }
}
