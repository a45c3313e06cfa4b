//! From messages to the tags of a file that begins at 0.

use bytes::Bytes;
use model::{Class, Kind, MediaTime, Unwrapper};
use rtmp::{Message, MessageKind};

/// Gives messages their place in a file.
///
/// Who joins a running stream is given configurations and metadata first, with times of
/// their own; the file begins with the first audio or picture behind them.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    clock: Unwrapper,
    base: Option<u64>,
}

/// A tag to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    /// 8, 9 or 18.
    pub type_id: u8,
    /// Since the beginning of the file.
    pub time: MediaTime,
    /// The body.
    pub payload: Bytes,
}

impl Recording {
    /// Whether audio or video has come.
    pub(crate) const fn has_begun(&self) -> bool {
        self.base.is_some()
    }

    /// The tag of a message; `None` for one that does not belong into a file.
    pub(crate) fn place(&mut self, message: &Message) -> Option<Placed> {
        let (type_id, kind, payload) = match message.kind {
            MessageKind::Audio => (8, Kind::Audio, message.payload.clone()),
            MessageKind::Video => (9, Kind::Video, message.payload.clone()),
            MessageKind::DataAmf0 => (18, Kind::Data, message.payload.clone()),
            // Files have no selector byte.
            MessageKind::DataAmf3 => (
                18,
                Kind::Data,
                message.payload.slice(1.min(message.payload.len())..),
            ),
            MessageKind::UserControl
            | MessageKind::SharedObjectAmf3
            | MessageKind::CommandAmf3
            | MessageKind::SharedObjectAmf0
            | MessageKind::CommandAmf0 => return None,
        };
        if payload.is_empty() || (kind == Kind::Data && is_for_the_player(&payload)) {
            return None;
        }
        let config = match kind {
            Kind::Audio => flv::classify_audio(&payload).class == Class::Config,
            Kind::Video => flv::classify_video(&payload).class == Class::Config,
            Kind::Data => true,
        };
        let time = match self.base {
            None if config => 0,
            None => {
                let time = self.clock.unwrap(message.time).0;
                self.base = Some(time);
                0
            }
            Some(base) => self.clock.unwrap(message.time).0.saturating_sub(base),
        };
        Some(Placed {
            type_id,
            time: MediaTime(time),
            payload,
        })
    }
}

/// Data that a server says to the player rather than about the stream.
fn is_for_the_player(payload: &[u8]) -> bool {
    const NAMES: [&[u8]; 3] = [
        b"\x02\x00\x11|RtmpSampleAccess",
        b"\x02\x00\x08onStatus",
        b"\x02\x00\x0conPlayStatus",
    ];
    NAMES.iter().any(|name| payload.starts_with(name))
}

#[cfg(test)]
mod tests {
    use rtmp::StreamId;

    use super::*;

    fn message(kind: MessageKind, time: u32, payload: &'static [u8]) -> Message {
        Message {
            kind,
            stream: StreamId(1),
            time,
            payload: Bytes::from_static(payload),
        }
    }

    const CONFIG: &[u8] = &[0x17, 0, 0, 0, 0, 1];
    const KEY: &[u8] = &[0x17, 1, 0, 0, 0, 1];
    const META: &[u8] = b"\x02\x00\x0aonMetaData\x05";

    #[test]
    fn a_file_begins_at_zero_with_the_configurations_in_front() {
        let mut recording = Recording::default();
        let mut place = |kind, time, payload| {
            recording
                .place(&message(kind, time, payload))
                .map(|placed| placed.time.0)
        };
        assert_eq!(place(MessageKind::DataAmf0, 0, META), Some(0));
        assert_eq!(place(MessageKind::Video, 17, CONFIG), Some(0));
        assert_eq!(place(MessageKind::Video, 0xffff_fff0, KEY), Some(0));
        assert_eq!(
            place(MessageKind::Audio, 0xffff_ffe0, &[0xaf, 1]),
            Some(0),
            "before it"
        );
        assert_eq!(
            place(MessageKind::Audio, 0x10, &[0xaf, 1]),
            Some(0x20),
            "across the wrap"
        );
        assert_eq!(
            place(MessageKind::Video, 0x20, CONFIG),
            Some(0x30),
            "a later one"
        );
    }

    #[test]
    fn what_the_server_says_to_the_player_is_not_recorded() {
        let mut recording = Recording::default();
        let mut place = |kind, payload| recording.place(&message(kind, 0, payload));
        assert_eq!(
            place(
                MessageKind::DataAmf0,
                b"\x02\x00\x11|RtmpSampleAccess\x01\x00"
            ),
            None
        );
        assert_eq!(
            place(MessageKind::DataAmf0, b"\x02\x00\x08onStatus\x05"),
            None
        );
        assert_eq!(place(MessageKind::Audio, b""), None);
        let placed = place(MessageKind::DataAmf3, b"\x00\x02\x00\x0aonMetaData\x05").unwrap();
        assert_eq!((placed.type_id, &placed.payload[..]), (18, META));
    }
}
