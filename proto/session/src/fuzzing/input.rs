//! Operations drawn from bytes.

use amf::Value;
use bytes::Bytes;
use rtmp::{Message, MessageKind, StreamId};

use crate::event::{Notice, Refusal, Reply, RequestId};

pub(super) fn command(
    stream: u32,
    name: &str,
    transaction: f64,
    object: Value,
    args: impl IntoIterator<Item = Value>,
) -> Message {
    let mut values = vec![name.into(), Value::Number(transaction), object];
    values.extend(args);
    let payload = amf::amf0::write_all(&values).unwrap_or_default();
    Message {
        kind: MessageKind::CommandAmf0,
        stream: StreamId(stream),
        time: 0,
        payload,
    }
}

/// Draws operations from bytes. What is missing is zero.
#[derive(Debug)]
pub(super) struct Input<'a>(pub(super) &'a [u8]);

const COMMANDS: [&str; 32] = [
    "createStream",
    "publish",
    "play",
    "deleteStream",
    "closeStream",
    "pause",
    "seek",
    "play2",
    "receiveAudio",
    "receiveVideo",
    "releaseStream",
    "FCPublish",
    "FCUnpublish",
    "FCSubscribe",
    "FCUnsubscribe",
    "getStreamLength",
    "_checkbw",
    "checkBandwidth",
    "initStream",
    "setPeerInfo",
    "pauseRaw",
    "_result",
    "_error",
    "onStatus",
    "close",
    "ping",
    "method",
    "a.b.c",
    "connect",
    "createStream",
    "publish",
    "play",
];

const TEXTS: [&str; 16] = [
    "a",
    "b",
    "mp4:a/b.f4v?x=1",
    "",
    "../a",
    "live",
    "record",
    "append",
    "appendWithGap",
    "switch",
    "stop",
    "reset",
    "flv:a",
    "live/room",
    "é?\u{1}",
    "streamName",
];

const NUMBERS: [f64; 16] = [
    0.0,
    1.0,
    -1.0,
    -2.0,
    -2000.0,
    2.0,
    3.0,
    0.5,
    1e300,
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    4_294_967_295.0,
    256.0,
    9_007_199_254_740_993.0,
    -0.0,
];

const KEYS: [&str; 16] = [
    "app",
    "tcUrl",
    "objectEncoding",
    "fourCcList",
    "videoFourCcInfoMap",
    "capsEx",
    "CapsEx",
    "streamName",
    "oldStreamName",
    "transition",
    "start",
    "len",
    "flashVer",
    "pageUrl",
    "swfUrl",
    "audioFourCcInfoMap",
];

impl Input<'_> {
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte().unwrap_or(0)) % bound
    }

    pub(super) fn of<T: Copy>(&mut self, table: &[T]) -> Option<T> {
        let index = self.below(table.len());
        table.get(index).copied()
    }

    fn text(&mut self) -> &'static str {
        self.of(&TEXTS).unwrap_or_default()
    }

    pub(super) fn stream(&mut self) -> StreamId {
        StreamId(u32::try_from(self.below(5)).unwrap_or(0))
    }

    pub(super) fn value(&mut self, depth: usize) -> Value {
        match self.below(if depth == 0 { 6 } else { 10 }) {
            0 => Value::Null,
            1 => Value::Undefined,
            2 => Value::Boolean(self.below(2) == 1),
            3 | 4 => Value::from(self.text()),
            5 => Value::Number(self.of(&NUMBERS).unwrap_or_default()),
            6 => Value::array(
                (0..self.below(3))
                    .map(|_| self.value(depth - 1))
                    .collect::<Vec<_>>(),
            ),
            7 => Value::ByteArray(Bytes::from_static(b"bytes")),
            _ => {
                let count = self.below(4);
                Value::object(
                    (0..count)
                        .map(|_| (self.of(&KEYS).unwrap_or_default(), self.value(depth - 1)))
                        .collect::<Vec<_>>(),
                )
            }
        }
    }

    pub(super) fn command(&mut self) -> Message {
        let stream = self.stream();
        let name = self.of(&COMMANDS).unwrap_or_default();
        let mut values = vec![name.into()];
        let shape = self.byte().unwrap_or(0);
        values.push(if shape & 1 == 0 {
            Value::Number(f64::from(shape))
        } else {
            self.value(0)
        });
        values.push(Value::Null);
        for _ in 0..(shape >> 1) % 5 {
            values.push(self.value(2));
        }
        let payload = amf::amf0::write_all(&values).unwrap_or_default();
        if shape & 0x80 == 0 {
            return Message {
                kind: MessageKind::CommandAmf0,
                stream,
                time: 0,
                payload,
            };
        }
        let payload = Bytes::from([&[0], &payload[..]].concat());
        Message {
            kind: MessageKind::CommandAmf3,
            stream,
            time: 0,
            payload,
        }
    }

    /// A `connect` that has a chance.
    pub(super) fn connect(&mut self) -> Message {
        let mut object = vec![("app", Value::from(self.text()))];
        for _ in 0..self.below(5) {
            object.push((self.of(&KEYS).unwrap_or_default(), self.value(2)));
        }
        command(0, "connect", 1.0, Value::object(object), [])
    }

    pub(super) fn media(&mut self) -> Message {
        let stream = self.stream();
        let kind = self
            .of(&[
                MessageKind::Audio,
                MessageKind::Video,
                MessageKind::DataAmf0,
            ])
            .unwrap_or(MessageKind::Audio);
        let time = u32::from(self.byte().unwrap_or(0)) << 24;
        let payload = if kind == MessageKind::DataAmf0 {
            let name = self.of(&["@setDataFrame", "@clearDataFrame", "onMetaData", "x"]);
            let values = [
                Value::from(name.unwrap_or_default()),
                self.value(1),
                self.value(1),
            ];
            amf::amf0::write_all(&values).unwrap_or_default()
        } else {
            self.slice()
        };
        Message {
            kind,
            stream,
            time,
            payload,
        }
    }

    pub(super) fn raw(&mut self) -> Message {
        let type_id = self.byte().unwrap_or(0) % 24;
        let kind = MessageKind::from_type_id(type_id).unwrap_or(MessageKind::UserControl);
        let stream = self.stream();
        Message {
            kind,
            stream,
            time: 0,
            payload: self.slice(),
        }
    }

    fn slice(&mut self) -> Bytes {
        let len = self.below(32).min(self.0.len());
        let (slice, rest) = self.0.split_at(len);
        self.0 = rest;
        Bytes::copy_from_slice(slice)
    }

    pub(super) fn reply(&mut self, open: &[u64], next: u64) -> (RequestId, Reply) {
        let index = self.below(open.len() + 2);
        // Now and then a number that is answered already, or was never asked.
        let request = open
            .iter()
            .copied()
            .nth(index)
            .unwrap_or(next / 2 + index as u64);
        let reply = match self.below(6) {
            0..=2 => Reply::Accept,
            3 => Reply::Refuse(self.refusal()),
            4 => Reply::Result(self.value(2)),
            _ => Reply::Failed(self.text().into()),
        };
        (RequestId(request), reply)
    }

    pub(super) fn refusal(&mut self) -> Refusal {
        match self.below(7) {
            0 => Refusal::Rejected {
                description: self.text().into(),
                application: self.value(2),
            },
            1 => Refusal::Redirected {
                url: self.text().into(),
            },
            2 => Refusal::InvalidApp,
            3 => Refusal::AppShutdown,
            4 => Refusal::BadName,
            5 => Refusal::StreamNotFound,
            _ => Refusal::Failed {
                description: self.text().into(),
            },
        }
    }

    pub(super) fn notice(&mut self) -> Notice {
        let notices = [
            Notice::Published,
            Notice::Unpublished,
            Notice::InsufficientBandwidth,
            Notice::Complete,
            Notice::Superseded,
            Notice::Lost,
        ];
        self.of(&notices).unwrap_or(Notice::Published)
    }
}
