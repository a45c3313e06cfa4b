//! The stream that is measured with: shaped like H.264 and AAC, and every message says
//! when it was published.

use bytes::{BufMut, Bytes, BytesMut};
use rtmp::MessageKind;

/// Pictures per second.
const FRAME_RATE: u64 = 30;
/// Pictures from one key frame to the next: two seconds.
const GROUP: u64 = 60;
/// A key frame is so many times as large as the others.
const KEY_WEIGHT: u64 = 5;
/// Audio bits per second, within the whole.
const AUDIO_BITS: u64 = 128_000;
/// AAC has 1024 samples in a frame, here 44,100 a second: 43 frames.
const AUDIO_SAMPLES: u64 = 1024;
const AUDIO_RATE: u64 = 44_100;

/// Marks the place of the publishing time in a payload.
const MARK: &[u8; 8] = b"SELVAGE\0";
const VIDEO_HEAD: usize = 10;
const AUDIO_HEAD: usize = 2;

/// When to send the next message, and which.
#[derive(Debug)]
pub(super) struct Synthetic {
    delta: usize,
    audio: usize,
    pictures: u64,
    sounds: u64,
}

/// A message to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub kind: MessageKind,
    /// Microseconds since the beginning of the stream.
    pub at_micros: u64,
    key: bool,
    len: usize,
}

impl Synthetic {
    pub(super) fn new(bits_per_second: u64) -> Self {
        let audio = AUDIO_BITS * AUDIO_SAMPLES / AUDIO_RATE / 8;
        let video = bits_per_second.saturating_sub(AUDIO_BITS) / 8;
        let delta = video * GROUP / FRAME_RATE / (GROUP - 1 + KEY_WEIGHT);
        let least = (VIDEO_HEAD + MARK.len() + 8) as u64;
        let size = |bytes: u64| usize::try_from(bytes.max(least)).unwrap_or(usize::MAX);
        Self {
            delta: size(delta),
            audio: size(audio),
            pictures: 0,
            sounds: 0,
        }
    }

    /// What a decoder would need first.
    pub(super) fn configs() -> [(MessageKind, Bytes); 2] {
        // A baseline configuration with tiny parameter sets; AAC-LC, 44,100 Hz, stereo.
        const AVC: &[u8] =
            b"\x17\0\0\0\0\x01\x42\xc0\x1f\xff\xe1\0\x04\x67\x42\xc0\x1f\x01\0\x02\x68\xce";
        const AAC: &[u8] = b"\xaf\0\x12\x10";
        [
            (MessageKind::Video, Bytes::from_static(AVC)),
            (MessageKind::Audio, Bytes::from_static(AAC)),
        ]
    }

    /// The next message in order of time.
    pub(super) fn next(&mut self) -> Due {
        let video = self.pictures * 1_000_000 / FRAME_RATE;
        let audio = self.sounds * AUDIO_SAMPLES * 1_000_000 / AUDIO_RATE;
        if video <= audio {
            let key = self.pictures.is_multiple_of(GROUP);
            self.pictures += 1;
            let len = if key {
                self.delta * usize::try_from(KEY_WEIGHT).unwrap_or(1)
            } else {
                self.delta
            };
            Due {
                kind: MessageKind::Video,
                at_micros: video,
                key,
                len,
            }
        } else {
            self.sounds += 1;
            Due {
                kind: MessageKind::Audio,
                at_micros: audio,
                key: false,
                len: self.audio,
            }
        }
    }
}

impl Due {
    /// The RTMP timestamp.
    pub(super) fn time(&self) -> u32 {
        // The wire clock wraps, after 49 days.
        u32::try_from((self.at_micros / 1000) & u64::from(u32::MAX)).unwrap_or_default()
    }

    /// The body, published at `stamp` (microseconds of the wall clock).
    pub(super) fn payload(&self, stamp: u64) -> Bytes {
        let mut body = BytesMut::with_capacity(self.len);
        if self.kind == MessageKind::Video {
            // Frame type and codec, NALU, composition time 0, NALU length, NALU type.
            body.put_u8(if self.key { 0x17 } else { 0x27 });
            body.put_slice(&[1, 0, 0, 0]);
            body.put_u32(u32::try_from(self.len.saturating_sub(9)).unwrap_or_default());
            body.put_u8(if self.key { 0x65 } else { 0x41 });
        } else {
            body.put_slice(&[0xaf, 1]);
        }
        body.put_slice(MARK);
        body.put_u64(stamp);
        body.resize(self.len.max(body.len()), 0x55);
        body.freeze()
    }
}

/// When a message was published; `None` for a configuration, or a message of another
/// stream.
pub(super) fn stamp_of(kind: MessageKind, payload: &[u8]) -> Option<u64> {
    let head = if kind == MessageKind::Video {
        VIDEO_HEAD
    } else {
        AUDIO_HEAD
    };
    let rest = payload.get(head..)?.strip_prefix(MARK)?;
    Some(u64::from_be_bytes(*rest.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_seconds_have_the_bits_the_pictures_and_the_sounds_asked_for() {
        let mut stream = Synthetic::new(2_500_000);
        let (mut bytes, mut pictures, mut keys, mut sounds) = (0, 0, 0, 0);
        let mut last = 0;
        loop {
            let due = stream.next();
            assert!(due.at_micros >= last);
            last = due.at_micros;
            if last >= 10_000_000 {
                break;
            }
            let payload = due.payload(0);
            assert_eq!(payload.len(), due.len);
            bytes += payload.len();
            if due.kind == MessageKind::Video {
                let frame = flv::classify_video(&payload);
                keys += usize::from(frame.class == model::Class::Key);
                pictures += 1;
            } else {
                sounds += 1;
            }
        }
        assert_eq!((pictures, keys, sounds), (300, 5, 431));
        let bits = bytes as f64 * 8.0 / 10.0;
        assert!((bits - 2_500_000.0).abs() < 25_000.0, "{bits}");
    }

    #[test]
    fn a_message_says_when_it_was_published_and_a_configuration_does_not() {
        let mut stream = Synthetic::new(100_000);
        for _ in 0..10 {
            let due = stream.next();
            assert_eq!(stamp_of(due.kind, &due.payload(77)), Some(77));
        }
        for (kind, payload) in Synthetic::configs() {
            assert_eq!(stamp_of(kind, &payload), None);
        }
        assert_eq!(stamp_of(MessageKind::Video, b"\x17"), None);
    }
}
