//! The head of an audio message: FLV 10.1 §E.4.2.1, enhanced RTMP v2 "Enhanced Audio".

use model::{Class, FourCc, Slot};

use crate::verdict::{Head, Verdict, slot};

/// Classifies an audio message. An empty one means silence and is `Audio`, as is whatever
/// is cut short or unknown.
#[must_use]
pub fn classify_audio(payload: &[u8]) -> Verdict {
    let unknown = Verdict {
        class: Class::Audio,
        codec: FourCc::NONE,
        slot: Slot(0),
    };
    let mut head = Head::new(payload);
    let Some((format, low)) = head.nibbles() else {
        return unknown;
    };
    if format == EX_HEADER {
        enhanced(low, &mut head).unwrap_or(unknown)
    } else {
        let config = format == AAC && head.byte() == Some(AAC_SEQUENCE_HEADER);
        let class = if config { Class::Config } else { Class::Audio };
        Verdict {
            class,
            codec: legacy_codec(format),
            slot: Slot(0),
        }
    }
}

fn enhanced(packet_type: u8, head: &mut Head<'_>) -> Option<Verdict> {
    let packet_type = head.skip_mod_ex(packet_type)?;
    let (packet_type, codec, tracks) = if packet_type == MULTITRACK {
        let tracks = head.tracks()?;
        (tracks.packet_type, tracks.codec, Some(tracks))
    } else {
        (packet_type, head.fourcc()?, None)
    };
    let class = match packet_type {
        SEQUENCE_START | MULTICHANNEL_CONFIG => Class::Config,
        _ => Class::Audio,
    };
    let Slot(track) = tracks.map_or(Slot(0), |tracks| tracks.slot(class));
    let side = if packet_type == MULTICHANNEL_CONFIG {
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

/// The FourCC of a legacy sound format: enhanced RTMP's where it has one.
const fn legacy_codec(format: u8) -> FourCc {
    FourCc(match format {
        0 | 3 => *b"lpcm",
        1 => *b"adpc",
        2 | 14 => *b".mp3",
        4..=6 => *b"nmos",
        7 => *b"alaw",
        8 => *b"ulaw",
        AAC => *b"mp4a",
        11 => *b"spex",
        // Not in the specification: what some encoders used for Opus before enhanced RTMP.
        13 => *b"Opus",
        15 => *b"devs",
        _ => [b'F', b'L', b'A', format],
    })
}

const EX_HEADER: u8 = 9;
const AAC: u8 = 10;
const AAC_SEQUENCE_HEADER: u8 = 0;

const SEQUENCE_START: u8 = 0;
const MULTICHANNEL_CONFIG: u8 = 4;
const MULTITRACK: u8 = 5;
