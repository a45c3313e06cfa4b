//! The head of a video message: FLV 10.1 §E.4.3.1, enhanced RTMP v2 "Enhanced Video".

use model::{Class, FourCc, Slot};

use crate::verdict::{Head, Verdict, slot};

/// Classifies a video message. Whatever is cut short or unknown is a `Delta`: it is
/// relayed, and nobody begins there.
#[must_use]
pub fn classify_video(payload: &[u8]) -> Verdict {
    let unknown = Verdict {
        class: Class::Delta,
        codec: FourCc::NONE,
        slot: Slot(0),
    };
    let mut head = Head::new(payload);
    let Some((high, low)) = head.nibbles() else {
        return unknown;
    };
    if high & 0x8 == 0 {
        legacy(high, low, &mut head)
    } else {
        enhanced(high & 0x7, low, &mut head).unwrap_or(unknown)
    }
}

fn legacy(frame_type: u8, codec_id: u8, head: &mut Head<'_>) -> Verdict {
    let codec = legacy_codec(codec_id);
    let class = match codec_id {
        _ if frame_type == COMMAND => Class::Delta,
        AVC | HEVC | AV1 => match head.byte() {
            Some(AVC_SEQUENCE_HEADER) => Class::Config,
            Some(AVC_NALU) => picture(frame_type),
            // The end of the sequence, or nothing.
            Some(_) | None => Class::Delta,
        },
        _ => picture(frame_type),
    };
    Verdict {
        class,
        codec,
        slot: Slot(0),
    }
}

fn enhanced(frame_type: u8, packet_type: u8, head: &mut Head<'_>) -> Option<Verdict> {
    let packet_type = head.skip_mod_ex(packet_type)?;
    // A command has no FourCC; "frameType is ignored if videoPacketType is Metadata".
    if frame_type == COMMAND && packet_type != METADATA {
        return None;
    }
    let (packet_type, codec, tracks) = if packet_type == MULTITRACK {
        let tracks = head.tracks()?;
        (tracks.packet_type, tracks.codec, Some(tracks))
    } else {
        (packet_type, head.fourcc()?, None)
    };
    let class = match packet_type {
        // The two starts exclude each other, so they share a slot.
        SEQUENCE_START | MPEG2_TS_SEQUENCE_START | METADATA => Class::Config,
        CODED_FRAMES | CODED_FRAMES_X => picture(frame_type),
        // The end of the sequence, or a type that does not exist yet.
        _ => Class::Delta,
    };
    let Slot(track) = tracks.map_or(Slot(0), |tracks| tracks.slot(class));
    let side = if packet_type == METADATA {
        slot::SIDE
    } else {
        0
    };
    Some(Verdict {
        class,
        codec,
        slot: Slot(track | side),
    })
}

const fn picture(frame_type: u8) -> Class {
    match frame_type {
        KEY_FRAME | GENERATED_KEY_FRAME => Class::Key,
        _ => Class::Delta,
    }
}

/// The FourCC of a legacy codec id: enhanced RTMP's where it has one, else the one that
/// media frameworks use.
const fn legacy_codec(id: u8) -> FourCc {
    FourCc(match id {
        2 => *b"FLV1",
        3 => *b"FSV1",
        4 => *b"VP6F",
        5 => *b"VP6A",
        6 => *b"FSV2",
        AVC => *b"avc1",
        HEVC => *b"hvc1",
        AV1 => *b"av01",
        _ => [b'F', b'L', b'V', id],
    })
}

const KEY_FRAME: u8 = 1;
const GENERATED_KEY_FRAME: u8 = 4;
const COMMAND: u8 = 5;

const AVC: u8 = 7;
/// Not in the specification: what encoders and CDNs used for HEVC and AV1 before enhanced
/// RTMP, laid out like AVC.
const HEVC: u8 = 12;
const AV1: u8 = 13;

const AVC_SEQUENCE_HEADER: u8 = 0;
const AVC_NALU: u8 = 1;

const SEQUENCE_START: u8 = 0;
const CODED_FRAMES: u8 = 1;
const CODED_FRAMES_X: u8 = 3;
const METADATA: u8 = 4;
const MPEG2_TS_SEQUENCE_START: u8 = 5;
const MULTITRACK: u8 = 6;
