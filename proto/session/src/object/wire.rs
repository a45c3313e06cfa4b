//! The body of a shared-object message: one object's name, its version, and events.
//!
//! ```text
//!   [00]                        type 16 only: the format of names (00 plain, 03 AMF3 strings)
//!   name     u16 length, UTF-8
//!   version  u32                client: what it has (0 nothing); server: what it is after this
//!   flags    u32                2: persistent
//!   reserved u32                0
//!   events   { type u8, length u32, data }*
//! ```
//!
//! Values stand as AMF0 with their marker in both message types; an AMF3 value is announced
//! by the marker 0x11. Each has reference tables of its own.

use std::fmt;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use model::{ObjectKind, SlotName, SlotValue};

use super::value;
use crate::event::ObjectEncoding;
use crate::limits::{
    ECHO_MAX, OBJECT_ASK_BYTES_MAX, OBJECT_ASK_EVENTS_MAX, OBJECT_NAME_BYTES_MAX,
    OBJECT_UPDATE_BYTES_MAX, OBJECT_UPDATE_EVENTS_MAX,
};

/// The flag of an object that is kept.
pub const PERSISTENT: u32 = 2;

/// One message about one object: a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectMessage {
    /// The object's name as it stands, checked only for its length.
    pub name: Arc<str>,
    /// From a client the version it has, from a server the version after the events.
    pub version: u32,
    /// [`PERSISTENT`]; unknown bits are kept and mean nothing.
    pub flags: u32,
    /// In order.
    pub events: Vec<WireEvent>,
}

/// One event. The number is its type on the wire.
#[derive(Clone, Debug, PartialEq)]
pub enum WireEvent {
    /// 1: subscribe.
    Use,
    /// 2: unsubscribe.
    Release,
    /// 3: give the slot this value.
    RequestChange {
        /// Which.
        slot: SlotName,
        /// What.
        value: SlotValue,
    },
    /// 4: the slot has this value.
    Change {
        /// Which.
        slot: SlotName,
        /// What.
        value: SlotValue,
    },
    /// 5: the change of the slot is accepted.
    Success {
        /// Which.
        slot: SlotName,
    },
    /// 6: a message to all: handler and arguments, AMF values.
    Send(Bytes),
    /// 7: something failed.
    Status {
        /// `SharedObject.BadPersistence` and the like.
        code: Arc<str>,
        /// `error`.
        level: Arc<str>,
    },
    /// 8: every slot is gone.
    Clear,
    /// 9: the slot is gone.
    Remove {
        /// Which.
        slot: SlotName,
    },
    /// 10: take the slot away.
    RequestRemove {
        /// Which.
        slot: SlotName,
    },
    /// 11: the subscription is accepted.
    UseSuccess,
    /// 12: between servers, a number that goes with a slot; its meaning is not known.
    SlotNumber {
        /// Which.
        slot: SlotName,
        /// What.
        number: u32,
    },
    /// 13: between servers, as [`Self::Success`] with the value.
    ChangeEcho {
        /// Which.
        slot: SlotName,
        /// What.
        value: SlotValue,
    },
    /// 14: take every slot away. Adobe's servers know it between servers; ours from anybody.
    RequestClear,
    /// A value of a type 3, 4, 11 or 13 that cannot be read or is too large. Nothing more of
    /// that event is known. Never written.
    Unreadable {
        /// The type of the event.
        event: u8,
        /// Which slot.
        slot: SlotName,
    },
}

/// Why a body cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// It ends inside of something.
    Truncated,
    /// The first byte of a type 16 is neither 0 nor 3.
    Format(u8),
    /// The object's name is longer than [`OBJECT_NAME_BYTES_MAX`].
    NameTooLong {
        /// Bytes it has.
        len: usize,
    },
    /// A slot's name is longer than [`SlotName::MAX_LEN`].
    SlotTooLong {
        /// Bytes it has.
        len: usize,
    },
    /// A name refers to one that did not come before (format 3).
    NoSuchName,
    /// It has too many bytes.
    TooLong {
        /// Bytes it has.
        len: usize,
    },
    /// It has too many events.
    TooManyEvents,
}

/// What a reader takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of a body.
    pub bytes: usize,
    /// Events of a body; each name or pair counts.
    pub events: usize,
}

impl Bounds {
    /// For what clients send.
    pub const ASKS: Self = Self {
        bytes: OBJECT_ASK_BYTES_MAX,
        events: OBJECT_ASK_EVENTS_MAX,
    };

    /// For what servers send.
    pub const UPDATES: Self = Self {
        bytes: OBJECT_UPDATE_BYTES_MAX,
        events: OBJECT_UPDATE_EVENTS_MAX,
    };
}

impl ObjectMessage {
    /// A message without events yet.
    #[must_use]
    pub fn new(name: &str, kind: ObjectKind, version: u32) -> Self {
        Self {
            name: name.into(),
            version,
            flags: flags(kind),
            events: Vec::new(),
        }
    }

    /// The kind that the flags say.
    #[must_use]
    pub const fn kind(&self) -> ObjectKind {
        if self.flags & PERSISTENT == 0 {
            ObjectKind::Temporary
        } else {
            ObjectKind::Persistent
        }
    }

    /// Reads the body of a type 19 (`Amf0`) or 16 (`Amf3`). Values are slices of it.
    ///
    /// Events of unknown types are skipped, and so is what stands in an event that has no
    /// data. An event with several names or pairs is read as several events.
    ///
    /// # Errors
    /// The body ends too early or exceeds the bounds.
    pub fn decode(body: &Bytes, encoding: ObjectEncoding, bounds: Bounds) -> Result<Self, Error> {
        if body.len() > bounds.bytes {
            return Err(Error::TooLong { len: body.len() });
        }
        let mut body = Reader::new(body.clone());
        let mut names = Names::Plain;
        if encoding == ObjectEncoding::Amf3 {
            match body.u8()? {
                0 => {}
                3 => names = Names::Amf3(Vec::new()),
                other => return Err(Error::Format(other)),
            }
        }
        let name = names.next(&mut body)?;
        if name.len() > OBJECT_NAME_BYTES_MAX {
            return Err(Error::NameTooLong { len: name.len() });
        }
        let version = body.u32()?;
        let flags = body.u32()?;
        body.u32()?;
        let mut events = Events {
            list: Vec::new(),
            most: bounds.events,
        };
        while !body.is_empty() {
            let number = body.u8()?;
            let len = size(body.u32()?);
            let data = Reader::new(body.take(len)?);
            events.read(number, data, &mut names)?;
        }
        Ok(Self {
            name,
            version,
            flags,
            events: events.list,
        })
    }

    /// The body of a type 19 (`Amf0`) or 16 (`Amf3`). Values are written as they are: see
    /// [`body`](super::body) for what a client of AMF0 can read.
    #[must_use]
    pub fn encode(&self, encoding: ObjectEncoding) -> Bytes {
        let mut writer = Writer::new(encoding, &self.name, self.version, self.flags);
        for event in &self.events {
            writer.event(event);
        }
        writer.finish()
    }
}

/// The flags of a kind.
pub(crate) const fn flags(kind: ObjectKind) -> u32 {
    match kind {
        ObjectKind::Temporary => 0,
        ObjectKind::Persistent => PERSISTENT,
    }
}

struct Events {
    list: Vec<WireEvent>,
    most: usize,
}

impl Events {
    fn push(&mut self, event: WireEvent) -> Result<(), Error> {
        if self.list.len() >= self.most {
            return Err(Error::TooManyEvents);
        }
        self.list.push(event);
        Ok(())
    }

    fn read(&mut self, number: u8, mut data: Reader, names: &mut Names) -> Result<(), Error> {
        match number {
            1 => self.push(WireEvent::Use),
            2 => self.push(WireEvent::Release),
            3 => self.pairs(number, data, names, |slot, value| {
                WireEvent::RequestChange { slot, value }
            }),
            4 => self.pairs(number, data, names, |slot, value| WireEvent::Change {
                slot,
                value,
            }),
            5 => self.slots(data, names, |slot| WireEvent::Success { slot }),
            6 => self.push(WireEvent::Send(data.rest())),
            7 => {
                let code = data.plain()?;
                // Seen without a level.
                let level = if data.is_empty() {
                    "".into()
                } else {
                    data.plain()?
                };
                self.push(WireEvent::Status { code, level })
            }
            8 => self.push(WireEvent::Clear),
            9 => self.slots(data, names, |slot| WireEvent::Remove { slot }),
            10 => self.slots(data, names, |slot| WireEvent::RequestRemove { slot }),
            11 => {
                self.push(WireEvent::UseSuccess)?;
                // crtmpserver takes pairs here.
                self.pairs(number, data, names, |slot, value| WireEvent::Change {
                    slot,
                    value,
                })
            }
            12 => {
                let slot = names.slot(&mut data)?;
                let number = data.u32()?;
                self.push(WireEvent::SlotNumber { slot, number })
            }
            13 => self.pairs(number, data, names, |slot, value| WireEvent::ChangeEcho {
                slot,
                value,
            }),
            14 => self.push(WireEvent::RequestClear),
            _ => Ok(()),
        }
    }

    fn slots(
        &mut self,
        mut data: Reader,
        names: &mut Names,
        event: impl Fn(SlotName) -> WireEvent,
    ) -> Result<(), Error> {
        while !data.is_empty() {
            self.push(event(names.slot(&mut data)?))?;
        }
        Ok(())
    }

    fn pairs(
        &mut self,
        number: u8,
        mut data: Reader,
        names: &mut Names,
        event: impl Fn(SlotName, SlotValue) -> WireEvent,
    ) -> Result<(), Error> {
        while !data.is_empty() {
            let slot = names.slot(&mut data)?;
            let Some((value, len)) = value::read(&data.0) else {
                let event = number;
                return self.push(WireEvent::Unreadable { event, slot });
            };
            data.take(len)?;
            self.push(event(slot, value))?;
        }
        Ok(())
    }
}

/// How names are written.
enum Names {
    /// A u16 length.
    Plain,
    /// AMF3 strings, with what they may refer back to.
    Amf3(Vec<Arc<str>>),
}

impl Names {
    fn next(&mut self, data: &mut Reader) -> Result<Arc<str>, Error> {
        let Self::Amf3(known) = self else {
            return data.plain();
        };
        // AMF3 §1.3.2: the low bit says whether the text follows.
        let header = data.u29()?;
        let number = size(header >> 1);
        if header & 1 == 0 {
            return known.get(number).cloned().ok_or(Error::NoSuchName);
        }
        let name = data.text(number)?;
        // AMF3 §1.3.2: the empty string is never referred to.
        if !name.is_empty() {
            known.push(name.clone());
        }
        Ok(name)
    }

    fn slot(&mut self, data: &mut Reader) -> Result<SlotName, Error> {
        let name = self.next(data)?;
        SlotName::new(&name).map_err(|_| Error::SlotTooLong { len: name.len() })
    }
}

/// What is left to read.
struct Reader(Bytes);

impl Reader {
    const fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn rest(self) -> Bytes {
        self.0
    }

    fn take(&mut self, len: usize) -> Result<Bytes, Error> {
        if len > self.0.len() {
            return Err(Error::Truncated);
        }
        Ok(self.0.split_to(len))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let array = *self.0.first_chunk::<N>().ok_or(Error::Truncated)?;
        self.take(N)?;
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, Error> {
        self.array().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_be_bytes)
    }

    /// AMF3 §1.3.1: seven bits in each of three bytes, eight in the fourth.
    fn u29(&mut self) -> Result<u32, Error> {
        let mut number = 0;
        for _ in 0..3 {
            let byte = self.u8()?;
            number = number << 7 | u32::from(byte & 0x7f);
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Ok(number << 8 | u32::from(self.u8()?))
    }

    fn plain(&mut self) -> Result<Arc<str>, Error> {
        let len = self.array().map(u16::from_be_bytes)?;
        self.text(usize::from(len))
    }

    /// Text that is not UTF-8 is taken with U+FFFD in place of the broken sequences, as
    /// everywhere in AMF.
    fn text(&mut self, len: usize) -> Result<Arc<str>, Error> {
        Ok(String::from_utf8_lossy(&self.take(len)?).as_ref().into())
    }
}

fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Writes a body, event by event.
pub(crate) struct Writer {
    out: BytesMut,
}

impl Writer {
    pub(crate) fn new(encoding: ObjectEncoding, name: &str, version: u32, flags: u32) -> Self {
        let mut out = BytesMut::with_capacity(256);
        if encoding == ObjectEncoding::Amf3 {
            out.put_u8(0);
        }
        put_text(&mut out, name);
        out.put_u32(version);
        out.put_u32(flags);
        out.put_u32(0);
        Self { out }
    }

    pub(crate) fn event(&mut self, event: &WireEvent) {
        match event {
            WireEvent::Use => self.empty(1),
            WireEvent::Release => self.empty(2),
            WireEvent::RequestChange { slot, value } => self.pair(3, slot, &value.0),
            WireEvent::Change { slot, value } => self.pair(4, slot, &value.0),
            WireEvent::Success { slot } => self.slot(5, slot),
            WireEvent::Send(payload) => self.send(payload),
            WireEvent::Status { code, level } => self.status(code, level),
            WireEvent::Clear => self.empty(8),
            WireEvent::Remove { slot } => self.slot(9, slot),
            WireEvent::RequestRemove { slot } => self.slot(10, slot),
            WireEvent::UseSuccess => self.empty(11),
            WireEvent::SlotNumber { slot, number } => self.pair(12, slot, &number.to_be_bytes()),
            WireEvent::ChangeEcho { slot, value } => self.pair(13, slot, &value.0),
            WireEvent::RequestClear => self.empty(14),
            WireEvent::Unreadable { .. } => {}
        }
    }

    pub(crate) fn empty(&mut self, number: u8) {
        self.put(number, |_| {});
    }

    pub(crate) fn slot(&mut self, number: u8, slot: &SlotName) {
        self.put(number, |out| put_text(out, slot.as_str()));
    }

    pub(crate) fn pair(&mut self, number: u8, slot: &SlotName, value: &[u8]) {
        self.put(number, |out| {
            put_text(out, slot.as_str());
            out.put_slice(value);
        });
    }

    pub(crate) fn send(&mut self, payload: &[u8]) {
        self.put(6, |out| out.put_slice(payload));
    }

    pub(crate) fn status(&mut self, code: &str, level: &str) {
        self.put(7, |out| {
            put_text(out, crate::status::cut(code));
            put_text(out, crate::status::cut(level));
        });
    }

    pub(crate) fn finish(self) -> Bytes {
        self.out.freeze()
    }

    fn put(&mut self, number: u8, data: impl FnOnce(&mut BytesMut)) {
        self.out.put_u8(number);
        let at = self.out.len();
        self.out.put_u32(0);
        data(&mut self.out);
        // What is written is bounded far below 4 GiB by what is held.
        let len = u32::try_from(self.out.len() - at - 4).unwrap_or(u32::MAX);
        if let Some(place) = self.out.get_mut(at..at + 4) {
            place.copy_from_slice(&len.to_be_bytes());
        }
    }
}

/// A name with its length. Names are bounded far below 64 KiB where they are made; one that
/// is not is cut.
fn put_text(out: &mut BytesMut, text: &str) {
    let text = &text[..text.floor_char_boundary(usize::from(u16::MAX))];
    out.put_u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
    out.put_slice(text.as_bytes());
}

const _: () = assert!(SlotName::MAX_LEN <= 0xFFFF && OBJECT_NAME_BYTES_MAX <= 0xFFFF);
const _: () = assert!(ECHO_MAX <= 0xFFFF);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the body ends inside of something"),
            Self::Format(format) => write!(f, "format {format} of names does not exist"),
            Self::NameTooLong { len } => write!(
                f,
                "the object's name has {len} bytes, at most {OBJECT_NAME_BYTES_MAX} are allowed"
            ),
            Self::SlotTooLong { len } => write!(
                f,
                "a slot's name has {len} bytes, at most {} are allowed",
                SlotName::MAX_LEN
            ),
            Self::NoSuchName => f.write_str("a name refers to one that did not come before"),
            Self::TooLong { len } => write!(f, "{len} bytes are too many"),
            Self::TooManyEvents => f.write_str("there are too many events"),
        }
    }
}

impl std::error::Error for Error {}
