//! Vectors for every form a media message has: FLV 10.1 §E.4.2 and §E.4.3, enhanced RTMP
//! v2 "Enhanced Audio" and "Enhanced Video".

use model::Class::{self, Audio, Config, Delta, Key};
use model::{FourCc, Slot};
use selvage_flv::slot::{BUNDLE, SIDE};
use selvage_flv::{Verdict, classify_audio, classify_video};

const NONE: [u8; 4] = FourCc::NONE.0;

fn verdict(class: Class, codec: [u8; 4], slot: u32) -> Verdict {
    Verdict {
        class,
        codec: FourCc(codec),
        slot: Slot(slot),
    }
}

#[track_caller]
fn video(payload: &[u8], class: Class, codec: &[u8; 4], slot: u32) {
    assert_eq!(
        classify_video(payload),
        verdict(class, *codec, slot),
        "{payload:02x?}"
    );
}

#[track_caller]
fn audio(payload: &[u8], class: Class, codec: &[u8; 4], slot: u32) {
    assert_eq!(
        classify_audio(payload),
        verdict(class, *codec, slot),
        "{payload:02x?}"
    );
}

/// Joins parts of a payload.
macro_rules! bytes {
    ($($part:expr),* $(,)?) => { [$(&$part[..]),*].concat() };
}

#[test]
fn legacy_avc_is_a_key_only_if_it_is_a_nalu_of_a_key_frame() {
    video(&[0x17, 0, 0, 0, 0, 1, 0x64], Config, b"avc1", 0);
    video(&[0x17, 1, 0, 0, 0, 0, 0], Key, b"avc1", 0);
    video(&[0x27, 1, 0, 0, 80, 0, 0], Delta, b"avc1", 0);
    video(&[0x37, 1, 0, 0, 0], Delta, b"avc1", 0);
    video(&[0x47, 1, 0, 0, 0], Key, b"avc1", 0);
    // The end of the sequence is marked as a key frame by encoders.
    video(&[0x17, 2, 0, 0, 0], Delta, b"avc1", 0);
    // A sequence header is one whatever the frame type says.
    video(&[0x27, 0, 0, 0, 0, 1], Config, b"avc1", 0);
}

#[test]
fn other_legacy_codecs_have_key_frames_and_no_configuration() {
    for (id, codec) in [
        (2, b"FLV1"),
        (3, b"FSV1"),
        (4, b"VP6F"),
        (5, b"VP6A"),
        (6, b"FSV2"),
    ] {
        video(&[0x10 | id, 0], Key, codec, 0);
        video(&[0x20 | id, 0], Delta, codec, 0);
        video(&[0x30 | id, 0], Delta, codec, 0);
        video(&[0x40 | id, 0], Key, codec, 0);
        video(&[0x50 | id, 0], Delta, codec, 0);
    }
    video(&[0x18, 0], Key, b"FLV\x08", 0);
}

#[test]
fn hevc_and_av1_under_the_numbers_used_before_enhanced_rtmp_are_laid_out_like_avc() {
    video(&[0x1c, 0, 0, 0, 0, 1], Config, b"hvc1", 0);
    video(&[0x1c, 1, 0, 0, 0, 1], Key, b"hvc1", 0);
    video(&[0x2d, 1, 0, 0, 0, 1], Delta, b"av01", 0);
}

#[test]
fn a_command_frame_is_never_a_key() {
    for command in [0, 1] {
        video(&[0x57, command], Delta, b"avc1", 0);
        video(&[0x52, command], Delta, b"FLV1", 0);
        // Enhanced: no FourCC follows.
        video(&[0xd1, command], Delta, &NONE, 0);
        video(&[0xd0, command], Delta, &NONE, 0);
    }
}

#[test]
fn enhanced_video_of_every_codec() {
    for codec in [b"avc1", b"hvc1", b"vvc1", b"av01", b"vp09", b"vp08"] {
        video(&bytes!([0x90], codec, [1]), Config, codec, 0);
        video(&bytes!([0x91], codec, [0, 0, 0, 1]), Key, codec, 0);
        video(&bytes!([0xa1], codec, [0, 0, 0, 1]), Delta, codec, 0);
        video(&bytes!([0x92], codec), Delta, codec, 0);
        video(&bytes!([0x93], codec, [1]), Key, codec, 0);
        video(&bytes!([0xa3], codec, [1]), Delta, codec, 0);
        video(&bytes!([0xc3], codec, [1]), Key, codec, 0);
        video(&bytes!([0x95], codec, [1]), Config, codec, 0);
        // Types that do not exist yet.
        video(&bytes!([0x98], codec, [1]), Delta, codec, 0);
    }
}

#[test]
fn video_metadata_is_a_configuration_of_its_own_whatever_the_frame_type() {
    for frame_type in 0..8 {
        let first = 0x80 | frame_type << 4 | 4;
        video(
            &bytes!([first], b"hvc1", b"\x02\0\x09colorInfo"),
            Config,
            b"hvc1",
            SIDE,
        );
    }
}

#[test]
fn mod_ex_is_skipped_to_find_the_real_packet() {
    // Three bytes of nanoseconds, then CodedFrames.
    video(
        &bytes!([0x97, 2, 0, 1, 2, 0x01], b"av01", [9]),
        Key,
        b"av01",
        0,
    );
    // Two of them, then a SequenceStart.
    video(
        &bytes!([0x97, 0, 7, 0x07, 0, 7, 0x00], b"av01", [9]),
        Config,
        b"av01",
        0,
    );
    // 256 and more bytes have a 16-bit length.
    video(
        &bytes!([0xa7, 255, 0x01, 0x00], [0; 257], [0x03], b"hvc1"),
        Delta,
        b"hvc1",
        0,
    );
    // Metadata behind it.
    video(&bytes!([0xd7, 0, 0, 0x04], b"hvc1"), Config, b"hvc1", SIDE);
    // A command behind it.
    video(&[0xd7, 0, 0, 0x01, 0], Delta, &NONE, 0);
    audio(
        &bytes!([0x97, 2, 0, 0, 0, 0x00], b"mp4a", [0x12, 0x10]),
        Config,
        b"mp4a",
        0,
    );
    audio(
        &bytes!([0x97, 2, 0, 0, 0, 0x01], b"Opus", [1]),
        Audio,
        b"Opus",
        0,
    );
    // Behind it, several tracks.
    video(
        &bytes!([0x97, 0, 0, 0x06, 0x00], b"av01", [4]),
        Config,
        b"av01",
        4,
    );
    // Cut short anywhere: nothing to join at.
    let whole = bytes!([0x97, 2, 0, 1, 2, 0x01], b"av01");
    for len in 1..whole.len() {
        video(&whole[..len], Delta, &NONE, 0);
    }
}

#[test]
fn one_track_has_its_id_as_slot() {
    for id in [0, 1, 255] {
        let slot = u32::from(id);
        video(
            &bytes!([0x96, 0x00], b"avc1", [id, 1, 0x64]),
            Config,
            b"avc1",
            slot,
        );
        video(
            &bytes!([0x96, 0x01], b"avc1", [id, 0, 0, 0]),
            Key,
            b"avc1",
            slot,
        );
        video(
            &bytes!([0xa6, 0x01], b"avc1", [id, 0, 0, 0]),
            Delta,
            b"avc1",
            slot,
        );
        video(&bytes!([0x96, 0x02], b"avc1", [id]), Delta, b"avc1", slot);
        video(
            &bytes!([0x96, 0x04], b"avc1", [id]),
            Config,
            b"avc1",
            slot | SIDE,
        );
        audio(
            &bytes!([0x95, 0x00], b"mp4a", [id, 0x12]),
            Config,
            b"mp4a",
            slot,
        );
        audio(
            &bytes!([0x95, 0x01], b"mp4a", [id, 0x12]),
            Audio,
            b"mp4a",
            slot,
        );
        audio(
            &bytes!([0x95, 0x04], b"mp4a", [id, 0, 6]),
            Config,
            b"mp4a",
            slot | SIDE,
        );
    }
}

#[test]
fn several_tracks_in_one_message_are_a_bundle() {
    let two = |kinds: [u8; 2], ids: [u8; 2]| {
        bytes!(kinds, b"hvc1", [ids[0], 0, 0, 2, 9, 9, ids[1], 0, 0, 1, 9])
    };
    video(&two([0x96, 0x11], [0, 1]), Key, b"hvc1", BUNDLE);
    video(&two([0xa6, 0x11], [0, 1]), Delta, b"hvc1", BUNDLE);
    video(&two([0xa6, 0x11], [3, 1]), Delta, b"hvc1", BUNDLE | 3);

    // Configurations of different tracks stay apart, those of the same replace each other.
    let slot = |ids| classify_video(&two([0x96, 0x10], ids)).slot;
    assert_eq!(classify_video(&two([0x96, 0x10], [0, 1])).class, Config);
    assert_eq!(slot([0, 1]), slot([0, 1]));
    assert_ne!(slot([0, 1]), slot([0, 2]));
    assert_ne!(slot([0, 1]), slot([1, 2]));
    assert_ne!(slot([0, 1]).0 & BUNDLE, 0);
}

#[test]
fn many_codecs_are_told_by_the_first() {
    let many = bytes!(
        [0x95, 0x20],
        b"mp4a",
        [0, 0, 0, 2, 0x12, 0x10],
        b"Opus",
        [1, 0, 0, 1, 9]
    );
    let Verdict { class, codec, slot } = classify_audio(&many);
    assert_eq!((class, codec), (Config, FourCc(*b"mp4a")));
    assert_eq!(slot.0 & 0x3ff, BUNDLE);
    let other = bytes!([0x95, 0x20], b"mp4a", [0, 0, 0, 0], b"Opus", [2, 0, 0, 0]);
    assert_ne!(classify_audio(&other).slot, slot);
}

#[test]
fn a_form_for_many_tracks_that_carries_one_is_that_track() {
    video(
        &bytes!([0x96, 0x11], b"av01", [2, 0, 0, 1, 9]),
        Key,
        b"av01",
        2,
    );
    video(
        &bytes!([0x96, 0x21], b"av01", [2, 0, 0, 1, 9]),
        Key,
        b"av01",
        2,
    );
    // A size that leads past the end.
    video(
        &bytes!([0x96, 0x11], b"av01", [2, 0, 9, 1, 9]),
        Key,
        b"av01",
        2,
    );
}

#[test]
fn legacy_audio_has_a_configuration_only_for_aac() {
    audio(&[0xaf, 0, 0x12, 0x10], Config, b"mp4a", 0);
    audio(&[0xaf, 1, 0x21], Audio, b"mp4a", 0);
    audio(&[0xaf], Audio, b"mp4a", 0);
    for (format, codec) in [
        (0, b"lpcm"),
        (1, b"adpc"),
        (2, b".mp3"),
        (3, b"lpcm"),
        (4, b"nmos"),
        (5, b"nmos"),
        (6, b"nmos"),
        (7, b"alaw"),
        (8, b"ulaw"),
        (11, b"spex"),
        (12, b"FLA\x0c"),
        (13, b"Opus"),
        (14, b".mp3"),
        (15, b"devs"),
    ] {
        audio(&[format << 4 | 0xf, 0, 1], Audio, codec, 0);
    }
}

#[test]
fn enhanced_audio_of_every_codec() {
    for codec in [b"Opus", b"fLaC", b"ac-3", b"ec-3", b".mp3", b"mp4a"] {
        audio(&bytes!([0x90], codec, [1]), Config, codec, 0);
        audio(&bytes!([0x91], codec, [1]), Audio, codec, 0);
        audio(&bytes!([0x92], codec), Audio, codec, 0);
        audio(
            &bytes!([0x94], codec, [1, 6, 0, 0, 0, 0x3f]),
            Config,
            codec,
            SIDE,
        );
        audio(&bytes!([0x93], codec), Audio, codec, 0);
    }
}

#[test]
fn what_is_cut_short_is_relayed_and_nobody_joins_there() {
    audio(&[], Audio, &NONE, 0);
    video(&[], Delta, &NONE, 0);
    video(&[0x17], Delta, b"avc1", 0);
    for packet in [
        bytes!([0x90], b"hvc"),
        bytes!([0x96]),
        bytes!([0x96, 0x00]),
        bytes!([0x96, 0x00], b"hvc1"),
        bytes!([0x96, 0x21], b"hvc1"),
    ] {
        video(&packet, Delta, &NONE, 0);
    }
    for packet in [
        bytes!([0x90], b"mp4"),
        bytes!([0x95, 0x00], b"mp4a"),
        bytes!([0x97, 255, 0]),
    ] {
        audio(&packet, Audio, &NONE, 0);
    }
}
