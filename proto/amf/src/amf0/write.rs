//! Writing AMF0.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::marker;
use crate::amf3;
use crate::error::{Error, Unwritable};
use crate::graph::{Identity, Indices, Sharing, Visits};
use crate::limits::{Limits, SHORT_STRING};
use crate::meter::Meter;
use crate::value::{TypedObject, Value};

/// The [`Visits`] scope of everything outside of AMF3 parts.
const SCOPE: u32 = 0;

/// Appends one value, containers that appear again in full: equal values have equal bytes,
/// wherever in a message they stand.
///
/// # Errors
/// As [`Encoder::write`]. The buffer is then as it was.
pub fn write(value: &Value, out: &mut BytesMut) -> Result<(), Error> {
    Encoder::with(Limits::DEFAULT, Sharing::Repeat).write(value, out)
}

/// The body of a message of these values, containers that appear again by reference.
///
/// # Errors
/// As [`Encoder::write`].
pub fn write_all(values: &[Value]) -> Result<Bytes, Error> {
    let mut encoder = Encoder::new();
    let mut out = BytesMut::new();
    for value in values {
        encoder.write(value, &mut out)?;
    }
    Ok(out.freeze())
}

/// Writes the values of one message, which share a reference table and the limits.
///
/// A container whose handle appears again is written as a reference (§2.9).
#[derive(Debug)]
pub struct Encoder {
    meter: Meter,
    visits: Visits,
    indices: Indices,
    sharing: Sharing,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// Begins a message within [`Limits::DEFAULT`].
    #[must_use]
    pub fn new() -> Self {
        Self::with_limits(Limits::DEFAULT)
    }

    /// Begins a message within these limits.
    #[must_use]
    pub fn with_limits(limits: Limits) -> Self {
        Self::with(limits, Sharing::Refer)
    }

    fn with(limits: Limits, sharing: Sharing) -> Self {
        Self {
            meter: Meter::new(limits),
            visits: Visits::default(),
            indices: Indices::default(),
            sharing,
        }
    }

    /// Appends a value. Everything that was appended is one message.
    ///
    /// # Errors
    /// When the message costs more than the limits, a key or a class name is longer than
    /// 65 535 bytes, a [`Value::Reference`] has no open container to point to, or a part that
    /// has to be AMF3 cannot be written there (see [`crate::amf3::Encoder::write`]). Nothing is appended
    /// then, and the message should be given up.
    pub fn write(&mut self, value: &Value, out: &mut BytesMut) -> Result<(), Error> {
        let len = out.len();
        self.visits.renumber();
        self.value(value, out).inspect_err(|_| out.truncate(len))
    }

    fn value(&mut self, value: &Value, out: &mut BytesMut) -> Result<(), Error> {
        self.meter.pay_values(1).map_err(Unwritable::Exceeds)?;
        match value {
            Value::Undefined => out.put_u8(marker::UNDEFINED),
            Value::Null => out.put_u8(marker::NULL),
            Value::Boolean(truth) => out.put_slice(&[marker::BOOLEAN, u8::from(*truth)]),
            Value::Number(number) => put_number(*number, out),
            Value::Integer(number) => put_number(f64::from(*number), out),
            Value::String(text) if text.len() <= SHORT_STRING => {
                out.put_u8(marker::STRING);
                self.name(text, out)?;
            }
            Value::String(text) => {
                out.put_u8(marker::LONG_STRING);
                self.long_text(text, out)?;
            }
            Value::XmlDocument(text) | Value::Xml(text) => {
                out.put_u8(marker::XML_DOCUMENT);
                self.long_text(text, out)?;
            }
            Value::Date { millis, zone } => {
                out.put_u8(marker::DATE);
                out.put_u64(millis.to_bits());
                out.put_i16(*zone);
            }
            Value::Unsupported => out.put_u8(marker::UNSUPPORTED),
            Value::Reference(ordinal) => self.reference(*ordinal, out)?,
            Value::Object(pairs) => self.container(value, Identity::of(pairs), out)?,
            Value::StrictArray(values) => self.container(value, Identity::of(values), out)?,
            Value::EcmaArray(array) if array.dense.is_empty() => {
                self.container(value, Identity::of(array), out)?;
            }
            Value::TypedObject(object) if !has_traits(object) => {
                self.container(value, Identity::of(object), out)?;
            }
            Value::EcmaArray(_)
            | Value::TypedObject(_)
            | Value::ByteArray(_)
            | Value::Vector(_)
            | Value::Dictionary(_) => self.switched(value, out)?,
        }
        Ok(())
    }

    /// A container: by reference if it was written, in AMF0 if it can be, else in AMF3.
    fn container(
        &mut self,
        value: &Value,
        identity: Identity,
        out: &mut BytesMut,
    ) -> Result<(), Error> {
        if self.sharing == Sharing::Refer
            && let Some(index) = self.indices.find(identity)
            && let Ok(index) = u16::try_from(index)
        {
            put_reference(index, out);
            return Ok(());
        }
        let (len, depth) = (out.len(), self.meter.depth());
        let entered = self.meter.enter().map_err(Unwritable::Exceeds)?;
        let index = self.indices.push(identity);
        let open = self.visits.enter(identity, SCOPE, index);
        match self.elements(value, out) {
            // An AMF3 part inside refers back to this container, which a reference cannot do
            // from one format to the other. In AMF3 as a whole it can.
            Err(Error::Unwritable(Unwritable::UnreachableReference(ordinal)))
                if ordinal == open.ordinal =>
            {
                out.truncate(len);
                self.meter.climb_to(depth);
                self.indices.truncate(index);
                self.visits.abandon(&open);
                self.switched(value, out)
            }
            Err(error) => Err(error),
            Ok(()) => {
                self.meter.leave(&entered);
                self.visits.leave(&open);
                Ok(())
            }
        }
    }

    fn elements(&mut self, value: &Value, out: &mut BytesMut) -> Result<(), Error> {
        if let Value::StrictArray(values) = value {
            out.put_u8(marker::STRICT_ARRAY);
            put_count(values.len(), out)?;
            return values.iter().try_for_each(|value| self.value(value, out));
        }
        if let Value::EcmaArray(array) = value {
            out.put_u8(marker::ECMA_ARRAY);
            put_count(array.pairs.len(), out)?;
        } else if let Value::TypedObject(object) = value {
            out.put_u8(marker::TYPED_OBJECT);
            self.name(&object.class, out)?;
        } else {
            out.put_u8(marker::OBJECT);
        }
        for (key, value) in value.pairs().unwrap_or_default() {
            self.name(key, out)?;
            self.value(value, out)?;
        }
        out.put_slice(&[0, 0, marker::OBJECT_END]);
        Ok(())
    }

    /// A value in AMF3 (§3.1), with its own tables.
    fn switched(&mut self, value: &Value, out: &mut BytesMut) -> Result<(), Error> {
        out.put_u8(marker::AVMPLUS);
        amf3::write_switched(value, &mut self.meter, &mut self.visits, self.sharing, out)
    }

    fn reference(&self, ordinal: u32, out: &mut BytesMut) -> Result<(), Error> {
        let open = self
            .visits
            .find(ordinal)
            .ok_or(Unwritable::DanglingReference(ordinal))?;
        let index =
            u16::try_from(open.index).map_err(|_| Unwritable::UnreachableReference(ordinal))?;
        put_reference(index, out);
        Ok(())
    }

    fn name(&mut self, name: &Arc<str>, out: &mut BytesMut) -> Result<(), Error> {
        self.meter
            .pay_bytes(name.len())
            .map_err(Unwritable::Exceeds)?;
        let len = u16::try_from(name.len()).map_err(|_| Unwritable::NameTooLong(name.len()))?;
        out.put_u16(len);
        out.put_slice(name.as_bytes());
        Ok(())
    }

    fn long_text(&mut self, text: &Arc<str>, out: &mut BytesMut) -> Result<(), Error> {
        self.meter
            .pay_bytes(text.len())
            .map_err(Unwritable::Exceeds)?;
        put_count(text.len(), out)?;
        out.put_slice(text.as_bytes());
        Ok(())
    }
}

/// Whether an object says something about its members that AMF0 has no place for.
const fn has_traits(object: &TypedObject) -> bool {
    object.sealed > 0 || object.dynamic || object.external.is_some()
}

fn put_number(number: f64, out: &mut BytesMut) {
    out.put_u8(marker::NUMBER);
    out.put_u64(number.to_bits());
}

fn put_reference(index: u16, out: &mut BytesMut) {
    out.put_u8(marker::REFERENCE);
    out.put_u16(index);
}

fn put_count(count: usize, out: &mut BytesMut) -> Result<(), Error> {
    out.put_u32(u32::try_from(count).map_err(|_| Unwritable::LengthTooLong(count))?);
    Ok(())
}
