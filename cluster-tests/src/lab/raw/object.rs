//! Shared object messages, written from the published descriptions of the format and apart
//! from the product's code.

use std::io;
use std::net::SocketAddr;

use super::amf::Amf;
use super::{Message, Raw, kind};

/// The message of clients that speak AMF3: a byte 0, then as the other.
const SHARED_OBJECT_AMF3: u8 = 16;

/// What servers and clients say of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The object.
    pub name: String,
    /// The version in the header.
    pub version: u32,
    /// 2 for a persistent object.
    pub flags: u32,
    /// Events: type and data.
    pub events: Vec<(u8, Vec<u8>)>,
}

impl Batch {
    /// A message about a temporary object.
    #[must_use]
    pub fn new(name: &str, version: u32) -> Self {
        Self {
            name: name.to_owned(),
            version,
            flags: 0,
            events: Vec::new(),
        }
    }

    /// About a persistent one.
    #[must_use]
    pub fn kept(mut self) -> Self {
        self.flags = 2;
        self
    }

    /// With another event.
    #[must_use]
    pub fn with(mut self, kind: u8, data: &[u8]) -> Self {
        self.events.push((kind, data.to_owned()));
        self
    }

    /// Use.
    #[must_use]
    pub fn use_it(self) -> Self {
        self.with(1, &[])
    }

    /// Release.
    #[must_use]
    pub fn release(self) -> Self {
        self.with(2, &[])
    }

    /// Request Change.
    #[must_use]
    pub fn set(self, slot: &str, value: &Amf) -> Self {
        let mut data = text(slot);
        value.write(&mut data);
        self.with(3, &data)
    }

    /// Request Remove.
    #[must_use]
    pub fn remove(self, slot: &str) -> Self {
        let data = text(slot);
        self.with(10, &data)
    }

    /// The body of a message of type 19.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = text(&self.name);
        for number in [self.version, self.flags, 0] {
            out.extend(number.to_be_bytes());
        }
        for (kind, data) in &self.events {
            out.push(*kind);
            out.extend(u32::try_from(data.len()).unwrap_or(0).to_be_bytes());
            out.extend(data);
        }
        out
    }

    /// What a body of a message of type 19 says.
    #[must_use]
    pub fn read(mut body: &[u8]) -> Option<Self> {
        let name = take_text(&mut body)?;
        let version = number(&mut body)?;
        let flags = number(&mut body)?;
        let _reserved = number(&mut body)?;
        let mut events = Vec::new();
        while let Some((kind, rest)) = body.split_first() {
            body = rest;
            let length = usize::try_from(number(&mut body)?).ok()?;
            let (data, rest) = body.split_at_checked(length)?;
            body = rest;
            events.push((*kind, data.to_owned()));
        }
        Some(Self {
            name,
            version,
            flags,
            events,
        })
    }

    /// The slots that events of a type name, in order.
    #[must_use]
    pub fn slots(&self, kind: u8) -> Vec<String> {
        let of_kind = self.events.iter().filter(|event| event.0 == kind);
        of_kind
            .filter_map(|(_, data)| take_text(&mut &data[..]))
            .collect()
    }

    /// The code of the first status.
    #[must_use]
    pub fn status(&self) -> Option<String> {
        let (_, data) = self.events.iter().find(|event| event.0 == 7)?;
        take_text(&mut &data[..])
    }

    /// Whether an event of this type is there.
    #[must_use]
    pub fn has(&self, kind: u8) -> bool {
        self.events.iter().any(|event| event.0 == kind)
    }
}

impl Raw {
    /// Connects to an application as a client that speaks AMF3.
    ///
    /// # Errors
    /// When the connection breaks or the application is refused.
    pub fn connect_amf3(addr: SocketAddr, app: &str) -> io::Result<Self> {
        let mut raw = Self::open(addr)?;
        let object = Amf::Object(vec![
            ("app".into(), Amf::text(app)),
            ("flashVer".into(), Amf::text("LNX 11,2,202,635")),
            ("tcUrl".into(), Amf::text(&format!("rtmp://{addr}/{app}"))),
            ("objectEncoding".into(), Amf::Number(3.0)),
        ]);
        raw.call(0, "connect", &[object])?;
        Ok(raw)
    }

    /// Sends a shared object message.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn say(&mut self, batch: &Batch) -> io::Result<()> {
        self.send(kind::SHARED_OBJECT, 0, 0, &batch.bytes())
    }

    /// Sends a shared object message as clients do that speak AMF3.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn say_amf3(&mut self, batch: &Batch) -> io::Result<()> {
        let body = [&[0][..], &batch.bytes()].concat();
        self.send(SHARED_OBJECT_AMF3, 0, 0, &body)
    }

    /// The next shared object message, of either type, as it came.
    ///
    /// # Errors
    /// When the connection breaks, or nothing comes for long.
    pub fn hear_message(&mut self) -> io::Result<Message> {
        loop {
            let message = self.read()?;
            if [kind::SHARED_OBJECT, SHARED_OBJECT_AMF3].contains(&message.kind) {
                return Ok(message);
            }
        }
    }

    /// The next shared object message.
    ///
    /// # Errors
    /// When the connection breaks, nothing comes for long, or it is malformed.
    pub fn hear(&mut self) -> io::Result<Batch> {
        let message = self.hear_message()?;
        let body = if message.kind == SHARED_OBJECT_AMF3 {
            message.body.get(1..).unwrap_or_default()
        } else {
            &message.body
        };
        Batch::read(body).ok_or_else(|| io::Error::other(format!("malformed: {message:?}")))
    }

    /// A remote call and its result, with the shared object messages that came before it.
    ///
    /// # Errors
    /// When the connection breaks, or with the text of an `_error`.
    pub fn call_hearing(&mut self, name: &str, args: &[Amf]) -> io::Result<(Amf, Vec<Batch>)> {
        self.transaction += 1.0;
        let transaction = self.transaction;
        self.command(0, name, transaction, args)?;
        let mut heard = Vec::new();
        loop {
            let message = self.read()?;
            if message.kind == kind::SHARED_OBJECT {
                heard.extend(Batch::read(&message.body));
                continue;
            }
            let Some(values) = message.command() else {
                continue;
            };
            if values.get(1).and_then(Amf::as_number) != Some(transaction) {
                continue;
            }
            if values.first().and_then(Amf::as_text) != Some("_result") {
                return Err(io::Error::other(format!("{values:?}")));
            }
            let result = values.get(3).cloned().unwrap_or(Amf::Undefined);
            return Ok((result, heard));
        }
    }

    /// Says it and gives what comes next.
    ///
    /// # Errors
    /// As [`Self::say`] and [`Self::hear`].
    pub fn ask(&mut self, batch: &Batch) -> io::Result<Batch> {
        self.say(batch)?;
        self.hear()
    }
}

/// A text without a marker.
fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), text.as_bytes()].concat()
}

fn take_text(body: &mut &[u8]) -> Option<String> {
    let (length, rest) = body.split_first_chunk()?;
    let length = u16::from_be_bytes(*length);
    let (text, rest) = rest.split_at_checked(length.into())?;
    *body = rest;
    String::from_utf8(text.to_owned()).ok()
}

fn number(body: &mut &[u8]) -> Option<u32> {
    let (number, rest) = body.split_first_chunk()?;
    *body = rest;
    Some(u32::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_the_bytes_of_the_published_example() {
        let batch = Batch::new("chat", 7)
            .set("count", &Amf::Number(5.0))
            .set("who", &Amf::text("bob"));
        let bytes = batch.bytes();
        assert_eq!(bytes.len(), 55);
        assert_eq!(bytes[..6], [0, 4, b'c', b'h', b'a', b't']);
        assert_eq!(bytes[18..23], [3, 0, 0, 0, 0x10]);
        assert_eq!(Batch::read(&bytes), Some(batch));
    }
}
