//! Data messages, as publishers send them.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use bytes::Bytes;
use model::{Class, FourCc, Frame, Kind, MediaTime};
use selvage_flv::{Error, Misbehaviour, frame, slot_of};

fn string(text: &str) -> Vec<u8> {
    let len = u16::try_from(text.len()).unwrap();
    [&[2], &len.to_be_bytes()[..], text.as_bytes()].concat()
}

fn long_string(text: &str) -> Vec<u8> {
    let len = u32::try_from(text.len()).unwrap();
    [&[12], &len.to_be_bytes()[..], text.as_bytes()].concat()
}

/// An ECMA array with one property.
const ARRAY: &[u8] = b"\x08\0\0\0\x01\0\x05width\0\x40\x9e\0\0\0\0\0\0\0\0\x09";

fn data(parts: &[&[u8]]) -> Frame {
    frame(Kind::Data, MediaTime(7), Bytes::from(parts.concat()))
        .unwrap()
        .unwrap()
}

#[test]
fn set_data_frame_is_cut_off_and_the_rest_is_kept_by_its_name() {
    let rest = [&string("onMetaData")[..], ARRAY].concat();
    for command in [string("@setDataFrame"), long_string("@setDataFrame")] {
        let body = Bytes::from([&command[..], &rest].concat());
        let made = frame(Kind::Data, MediaTime(7), body.clone())
            .unwrap()
            .unwrap();
        assert_eq!(
            made,
            Frame {
                kind: Kind::Data,
                class: Class::Config,
                slot: slot_of(b"onMetaData"),
                codec: FourCc::NONE,
                time: MediaTime(7),
                payload: Bytes::from(rest.clone()),
            }
        );
        // A slice, not a copy.
        assert_eq!(made.payload.as_ptr(), body[command.len()..].as_ptr());
    }
}

#[test]
fn a_type_15_body_loses_its_selector() {
    let made = data(&[&[0], &string("@setDataFrame"), &string("onMetaData"), ARRAY]);
    assert_eq!(made.class, Class::Config);
    assert_eq!(made.payload, [&string("onMetaData")[..], ARRAY].concat());

    let made = data(&[&[0], &string("chat"), &[0x11, 0x06, 0x03, b'a']]);
    assert_eq!(made.class, Class::Data);
    assert_eq!(
        made.payload,
        [&string("chat")[..], &[0x11, 0x06, 0x03, b'a']].concat()
    );
}

#[test]
fn names_keep_data_frames_apart() {
    let one = data(&[&string("@setDataFrame"), &string("onMetaData"), ARRAY]);
    let other = data(&[&string("@setDataFrame"), &string("onTitle"), ARRAY]);
    let long = data(&[&string("@setDataFrame"), &long_string("onTitle"), ARRAY]);
    assert_ne!(one.slot, other.slot);
    assert_eq!(other.slot, long.slot);
    // FNV-1a of "a" is a published constant: slots mean the same in every process.
    assert_eq!(slot_of(b"a").0, 0xe40c_292c);
}

#[test]
fn clear_data_frame_names_the_slot_it_ends() {
    let made = data(&[&string("@clearDataFrame"), &string("onMetaData")]);
    assert_eq!(
        (made.class, made.slot),
        (Class::Clear, slot_of(b"onMetaData"))
    );
}

#[test]
fn metadata_sent_without_being_set_is_kept_all_the_same() {
    let made = data(&[&string("onMetaData"), ARRAY]);
    assert_eq!(
        (made.class, made.slot),
        (Class::Config, slot_of(b"onMetaData"))
    );
    assert_eq!(made.payload, [&string("onMetaData")[..], ARRAY].concat());
}

#[test]
fn other_data_is_delivered_once() {
    for name in [
        "onTextData",
        "onCuePoint",
        "|RtmpSampleAccess",
        "@set",
        "chat",
    ] {
        assert_eq!(data(&[&string(name), ARRAY]).class, Class::Data);
    }
    // No name at all, and a string that is cut short.
    assert_eq!(data(&[&[5]]).class, Class::Data);
    assert_eq!(data(&[b"\x02\0\x0donMetaData"]).class, Class::Data);
    assert_eq!(
        data(&[b"\x0c\xff\xff\xff\xffonMetaData"]).class,
        Class::Data
    );
}

#[test]
fn a_data_frame_without_a_name_is_the_publishers_fault() {
    let unnamed = Err(Error::PeerMisbehaved(Misbehaviour::UnnamedDataFrame));
    let set = [&string("@setDataFrame")[..], ARRAY].concat();
    assert_eq!(frame(Kind::Data, MediaTime(0), set.into()), unnamed);
    let clear = string("@clearDataFrame");
    assert_eq!(frame(Kind::Data, MediaTime(0), clear.into()), unnamed);
}

#[test]
fn nothing_is_no_frame_except_silence() {
    assert_eq!(frame(Kind::Video, MediaTime(0), Bytes::new()), Ok(None));
    assert_eq!(frame(Kind::Data, MediaTime(0), Bytes::new()), Ok(None));
    assert_eq!(
        frame(Kind::Data, MediaTime(0), Bytes::from_static(&[0])),
        Ok(None)
    );
    assert_eq!(
        frame(Kind::Data, MediaTime(0), string("@setDataFrame").into()),
        Ok(None)
    );
    let silence = frame(Kind::Audio, MediaTime(0), Bytes::new())
        .unwrap()
        .unwrap();
    assert_eq!((silence.class, silence.payload.len()), (Class::Audio, 0));
}
