//! Names and frames, to and from their wire form.
//!
//! What leaves is converted without a check, because its types are the check. What comes
//! in is checked, and refused with the name of the field. Payloads are moved or shared,
//! never copied.

use std::fmt;

use bytes::Bytes;
use model::{
    AppInstance, AppName, Class, FourCc, Frame, InstanceName, Kind, MediaTime, NameError,
    Sequenced, Slot, StreamKey, StreamName, VhostName,
};

use crate::limits::{COPY_BELOW, FRAME_PAYLOAD_MAX};
use crate::v1;

/// What is wrong with a message from the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// A field that must be there is not.
    Missing {
        /// The field, as `Message.field`.
        field: &'static str,
    },
    /// A name breaks its rule.
    Name {
        /// The field, as `Message.field`.
        field: &'static str,
        /// What is wrong with it.
        error: NameError,
    },
    /// `Frame.verdict` names no kind and class that exist.
    Verdict {
        /// The verdict as it came.
        verdict: u32,
    },
    /// `Frame.payload` is larger than a frame may be.
    Payload {
        /// Bytes it has.
        len: usize,
    },
    /// A field has a length that it may not have.
    Length {
        /// The field, as `Message.field`.
        field: &'static str,
        /// Bytes it has.
        len: usize,
    },
    /// An enumeration's value that does not exist.
    Enumeration {
        /// The field, as `Message.field`.
        field: &'static str,
        /// The value as it came.
        value: i32,
    },
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { field } => write!(f, "{field} is missing"),
            Self::Name { field, error } => write!(f, "{field}: {error}"),
            Self::Verdict { verdict } => {
                write!(
                    f,
                    "Frame.verdict: {verdict:#06x} is no known kind and class"
                )
            }
            Self::Payload { len } => write!(
                f,
                "Frame.payload has {len} bytes, at most {FRAME_PAYLOAD_MAX} are allowed"
            ),
            Self::Length { field, len } => write!(f, "{field} has {len} bytes, which it may not"),
            Self::Enumeration { field, value } => {
                write!(f, "{field}: {value} is no value of the enumeration")
            }
        }
    }
}

impl std::error::Error for Invalid {}

/// A frame as it comes from the wire, without the id it was addressed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A configuration that was in force where the reader joins.
    InForce {
        /// The number of the first frame the reader is given.
        seq: u64,
        /// The configuration.
        frame: Frame,
    },
    /// A frame of the stream.
    Numbered {
        /// Its number in the epoch of the publication or subscription.
        seq: u64,
        /// The frame.
        frame: Frame,
    },
}

/// A numbered frame for publication or subscription `id`.
#[must_use]
pub fn numbered(id: u32, seq: u64, frame: &Frame) -> v1::Frame {
    v1::Frame {
        seq,
        ..wire(id, frame)
    }
}

/// A numbered frame for publication or subscription `id`; its epoch is the one that
/// `Granted` or `Source` told.
#[must_use]
pub fn sequenced(id: u32, frame: &Sequenced) -> v1::Frame {
    numbered(id, frame.at.seq, &frame.frame)
}

/// A configuration in force for publication or subscription `id`, before frame `seq`.
#[must_use]
pub fn in_force(id: u32, seq: u64, frame: &Frame) -> v1::Frame {
    v1::Frame {
        seq,
        in_force: true,
        ..wire(id, frame)
    }
}

fn wire(id: u32, frame: &Frame) -> v1::Frame {
    v1::Frame {
        id,
        seq: 0,
        time: frame.time.0,
        verdict: verdict(frame.kind, frame.class),
        slot: frame.slot.0,
        codec: u32::from_be_bytes(frame.codec.0),
        payload: frame.payload.clone(),
        in_force: false,
    }
}

/// Takes a frame from the wire. Its `id` is to be read before.
///
/// # Errors
/// An unknown verdict or a payload that is too large.
pub fn arrival(wire: v1::Frame) -> Result<Arrival, Invalid> {
    let (kind, class) = kind_and_class(wire.verdict)?;
    if wire.payload.len() > FRAME_PAYLOAD_MAX {
        return Err(Invalid::Payload {
            len: wire.payload.len(),
        });
    }
    let frame = Frame {
        kind,
        class,
        slot: Slot(wire.slot),
        codec: FourCc(wire.codec.to_be_bytes()),
        time: MediaTime(wire.time),
        payload: wire.payload,
    };
    Ok(if wire.in_force {
        Arrival::InForce {
            seq: wire.seq,
            frame,
        }
    } else {
        Arrival::Numbered {
            seq: wire.seq,
            frame,
        }
    })
}

/// `kind << 8 | class`. Kinds are RTMP's message types; classes are counted from 1, so
/// that a verdict that was never set is no verdict.
#[must_use]
pub const fn verdict(kind: Kind, class: Class) -> u32 {
    let kind = match kind {
        Kind::Audio => 8,
        Kind::Video => 9,
        Kind::Data => 18,
    };
    let class = match class {
        Class::Config => 1,
        Class::Clear => 2,
        Class::Key => 3,
        Class::Delta => 4,
        Class::Audio => 5,
        Class::Data => 6,
    };
    kind << 8 | class
}

/// The inverse of [`verdict`].
///
/// # Errors
/// The figure is no verdict.
pub const fn kind_and_class(verdict: u32) -> Result<(Kind, Class), Invalid> {
    let kind = match verdict >> 8 {
        8 => Kind::Audio,
        9 => Kind::Video,
        18 => Kind::Data,
        _ => return Err(Invalid::Verdict { verdict }),
    };
    let class = match verdict & 0xff {
        1 => Class::Config,
        2 => Class::Clear,
        3 => Class::Key,
        4 => Class::Delta,
        5 => Class::Audio,
        6 => Class::Data,
        _ => return Err(Invalid::Verdict { verdict }),
    };
    Ok((kind, class))
}

impl From<&StreamKey> for v1::StreamKey {
    fn from(key: &StreamKey) -> Self {
        Self {
            vhost: key.at.vhost.to_string(),
            app: key.at.app.to_string(),
            instance: key.at.instance.to_string(),
            name: key.name.to_string(),
        }
    }
}

impl TryFrom<v1::StreamKey> for StreamKey {
    type Error = Invalid;

    fn try_from(wire: v1::StreamKey) -> Result<Self, Invalid> {
        let named = |field| move |error| Invalid::Name { field, error };
        Ok(Self {
            at: AppInstance {
                vhost: VhostName::new(&wire.vhost).map_err(named("StreamKey.vhost"))?,
                app: AppName::new(&wire.app).map_err(named("StreamKey.app"))?,
                instance: InstanceName::new(&wire.instance).map_err(named("StreamKey.instance"))?,
            },
            name: StreamName::new(&wire.name).map_err(named("StreamKey.name"))?,
        })
    }
}

/// The key of a `Publish` or `Subscribe`, which must be there.
///
/// # Errors
/// It is missing, or one of its names breaks its rule.
pub fn key(wire: Option<v1::StreamKey>, field: &'static str) -> Result<StreamKey, Invalid> {
    wire.ok_or(Invalid::Missing { field })?.try_into()
}

/// A frame that may be kept for long. Payloads are slices of the buffer in which their whole
/// batch arrived: what is small, or a configuration, which stays as long as the stream lives,
/// gets memory of its own.
#[must_use]
pub fn owned(mut frame: Frame) -> Frame {
    if frame.class == Class::Config || frame.payload.len() < COPY_BELOW {
        frame.payload = Bytes::copy_from_slice(&frame.payload);
    }
    frame
}

/// The bytes of payload of a batch, which is what credits count.
#[must_use]
pub fn payload_bytes(frames: &[v1::Frame]) -> usize {
    frames.iter().map(|frame| Bytes::len(&frame.payload)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Epoch, Position};
    use prost::Message as _;

    const KINDS: [Kind; 3] = [Kind::Audio, Kind::Video, Kind::Data];
    const CLASSES: [Class; 6] = [
        Class::Config,
        Class::Clear,
        Class::Key,
        Class::Delta,
        Class::Audio,
        Class::Data,
    ];

    fn frame() -> Frame {
        Frame {
            kind: Kind::Video,
            class: Class::Key,
            slot: Slot(3),
            codec: FourCc(*b"hvc1"),
            time: MediaTime(0x1_0000_0010),
            payload: Bytes::from_static(b"payload"),
        }
    }

    fn key() -> StreamKey {
        StreamKey {
            at: AppInstance {
                vhost: VhostName::default_vhost(),
                app: AppName::new("live").unwrap(),
                instance: InstanceName::new("room/1").unwrap(),
            },
            name: StreamName::new("кино").unwrap(),
        }
    }

    #[test]
    fn every_verdict_comes_back_and_nothing_else_is_one() {
        let mut known = std::collections::BTreeSet::new();
        for kind in KINDS {
            for class in CLASSES {
                assert_eq!(kind_and_class(verdict(kind, class)), Ok((kind, class)));
                known.insert(verdict(kind, class));
            }
        }
        assert_eq!(known.len(), 18);
        for figure in 0..0x2000 {
            assert_eq!(
                kind_and_class(figure).is_ok(),
                known.contains(&figure),
                "{figure:#x}"
            );
        }
        assert_eq!(
            kind_and_class(u32::MAX),
            Err(Invalid::Verdict { verdict: u32::MAX })
        );
    }

    #[test]
    fn a_frame_comes_back_as_it_was_without_a_copy() {
        let at = Position {
            epoch: Epoch(1),
            seq: u64::MAX,
        };
        let sent = Sequenced { at, frame: frame() };
        let wire = sequenced(9, &sent);
        assert_eq!((wire.id, wire.seq, wire.in_force), (9, u64::MAX, false));
        assert_eq!(wire.codec, 0x6876_6331);
        assert_eq!(wire.payload.as_ptr(), sent.frame.payload.as_ptr());
        let Ok(Arrival::Numbered { seq, frame: got }) = arrival(wire) else {
            panic!()
        };
        assert_eq!((seq, &got), (u64::MAX, &sent.frame));
        assert_eq!(got.payload.as_ptr(), sent.frame.payload.as_ptr());
        assert_eq!(
            arrival(in_force(9, 5, &got)),
            Ok(Arrival::InForce { seq: 5, frame: got })
        );
    }

    #[test]
    fn decoding_takes_slices_of_the_receive_buffer() {
        let batch = v1::Frames {
            frames: vec![numbered(1, 2, &frame())],
            ingest_micros: 3,
            traces: Vec::new(),
        };
        let buffer = Bytes::from(batch.encode_to_vec());
        let got = v1::Frames::decode(buffer.clone()).unwrap();
        let range = buffer.as_ptr_range();
        assert!(range.contains(&got.frames[0].payload.as_ptr()));
    }

    #[test]
    fn a_key_comes_back_and_a_bad_name_is_told_by_its_field() {
        let good = v1::StreamKey::from(&key());
        assert_eq!(StreamKey::try_from(good.clone()), Ok(key()));
        let bad = |change: fn(&mut v1::StreamKey)| {
            let mut wire = good.clone();
            change(&mut wire);
            StreamKey::try_from(wire).unwrap_err().to_string()
        };
        assert_eq!(
            bad(|w| w.vhost.clear()),
            "StreamKey.vhost: the name is empty"
        );
        assert_eq!(
            bad(|w| w.app = "a/b".into()),
            "StreamKey.app: the name holds the character '/'"
        );
        assert_eq!(
            bad(|w| w.instance = "a//b".into()),
            "StreamKey.instance: a path segment is empty, '.' or '..'"
        );
        assert_eq!(
            bad(|w| w.name = "x".repeat(300)),
            "StreamKey.name: the name has 300 bytes, at most 255 are allowed"
        );
        assert_eq!(
            super::key(None, "Publish.key").unwrap_err().to_string(),
            "Publish.key is missing"
        );
    }

    #[test]
    fn an_oversized_payload_and_an_unknown_verdict_are_refused() {
        let mut wire = numbered(1, 0, &frame());
        wire.payload = Bytes::from(vec![0; FRAME_PAYLOAD_MAX + 1]);
        assert_eq!(
            arrival(wire.clone()).unwrap_err(),
            Invalid::Payload {
                len: FRAME_PAYLOAD_MAX + 1
            }
        );
        wire.verdict = 0;
        assert_eq!(arrival(wire).unwrap_err(), Invalid::Verdict { verdict: 0 });
    }
}
