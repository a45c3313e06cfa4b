//! Reading AMF0.

use std::sync::Arc;

use super::marker;
use crate::amf3;
use crate::error::{Error, Format, Table};
use crate::graph::Referents;
use crate::input::{Input, size, text};
use crate::limits::{Limit, Limits};
use crate::meter::{Entered, Meter};
use crate::value::{EcmaArray, TypedObject, Value};

/// Reads all values of a message body.
///
/// # Errors
/// When the body is not AMF0, ends inside a value, or costs more than [`Limits::DEFAULT`].
pub fn read_all(body: &[u8]) -> Result<Vec<Value>, Error> {
    let mut decoder = Decoder::new(body);
    let mut values = Vec::new();
    while let Some(value) = decoder.next_value()? {
        values.push(value);
    }
    Ok(values)
}

/// Reads the value a buffer begins with, and its length in bytes.
///
/// # Errors
/// As [`read_all`]; an empty buffer is truncated.
pub fn read_prefix(bytes: &[u8]) -> Result<(Value, usize), Error> {
    let mut decoder = Decoder::new(bytes);
    match decoder.next_value()? {
        Some(value) => Ok((value, decoder.position())),
        None => Err(Error::Truncated { at: 0, wanted: 1 }),
    }
}

/// Reads the values of one message, which share a reference table and the limits.
#[derive(Debug)]
pub struct Decoder<'a> {
    input: Input<'a>,
    meter: Meter,
    referents: Referents,
    failed: Option<Error>,
}

impl<'a> Decoder<'a> {
    /// Reads this message body within [`Limits::DEFAULT`].
    #[must_use]
    pub fn new(body: &'a [u8]) -> Self {
        Self::with_limits(body, Limits::DEFAULT)
    }

    /// Reads this message body within these limits.
    #[must_use]
    pub fn with_limits(body: &'a [u8], limits: Limits) -> Self {
        Self {
            input: Input::new(body),
            meter: Meter::new(limits),
            referents: Referents::default(),
            failed: None,
        }
    }

    /// The next value, `None` at the end of the body.
    ///
    /// # Errors
    /// When the body is not AMF0, ends inside a value, or costs more than the limits. Where
    /// the next value begins is then unknown: the same error comes again.
    pub fn next_value(&mut self) -> Result<Option<Value>, Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.input.is_empty() {
            return Ok(None);
        }
        self.meter.renumber();
        let read = self.pay(1).and_then(|()| self.value());
        read.map(Some)
            .inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// How many bytes were read.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.input.at()
    }

    fn value(&mut self) -> Result<Value, Error> {
        let at = self.input.at();
        match self.input.u8()? {
            marker::NUMBER => Ok(Value::Number(self.input.f64()?)),
            // §2.3: any byte but zero is true.
            marker::BOOLEAN => Ok(Value::Boolean(self.input.u8()? != 0)),
            marker::STRING => Ok(Value::String(self.short_text()?)),
            marker::OBJECT => self.object(),
            marker::NULL => Ok(Value::Null),
            marker::UNDEFINED => Ok(Value::Undefined),
            marker::REFERENCE => self.reference(at),
            marker::ECMA_ARRAY => self.ecma_array(),
            marker::OBJECT_END => Err(Error::StrayObjectEnd { at }),
            marker::STRICT_ARRAY => self.strict_array(),
            marker::DATE => Ok(Value::Date {
                millis: self.input.f64()?,
                zone: self.input.i16()?,
            }),
            marker::LONG_STRING => Ok(Value::String(self.long_text()?)),
            marker::UNSUPPORTED => Ok(Value::Unsupported),
            marker::XML_DOCUMENT => Ok(Value::XmlDocument(self.long_text()?)),
            marker::TYPED_OBJECT => self.typed_object(),
            marker::AVMPLUS => amf3::read_switched(&mut self.input, &mut self.meter),
            // The movie clip (0x04) and the record set (0x0E) are reserved (§2.6, §2.16).
            marker => Err(Error::UnknownMarker {
                at,
                format: Format::Amf0,
                marker,
            }),
        }
    }

    fn object(&mut self) -> Result<Value, Error> {
        let open = self.open()?;
        let pairs = self.pairs(None)?;
        Ok(self.close(&open, Value::Object(Arc::new(pairs))))
    }

    fn ecma_array(&mut self) -> Result<Value, Error> {
        let open = self.open()?;
        let count = self.input.u32()?;
        let pairs = self.pairs(Some(size(count)))?;
        Ok(self.close(
            &open,
            Value::EcmaArray(Arc::new(EcmaArray {
                pairs,
                dense: Vec::new(),
            })),
        ))
    }

    fn typed_object(&mut self) -> Result<Value, Error> {
        let open = self.open()?;
        let class = self.short_text()?;
        let pairs = self.pairs(None)?;
        let object = TypedObject {
            class,
            pairs,
            ..TypedObject::default()
        };
        Ok(self.close(&open, Value::TypedObject(Arc::new(object))))
    }

    fn strict_array(&mut self) -> Result<Value, Error> {
        let open = self.open()?;
        let count = size(self.input.u32()?);
        self.pay(count)?;
        let mut values = Vec::with_capacity(count.min(self.input.remaining()));
        for _ in 0..count {
            values.push(self.value()?);
        }
        Ok(self.close(&open, Value::StrictArray(Arc::new(values))))
    }

    /// The properties of an object and its end.
    ///
    /// The count of an ECMA array is what encoders guessed before they knew, so it decides
    /// nothing but this: an array that has as many pairs and is the last thing in the body
    /// may lack its end (§2.10 does not demand one, and some muxers leave it out of
    /// `onMetaData`).
    fn pairs(&mut self, count: Option<usize>) -> Result<Vec<(Arc<str>, Value)>, Error> {
        let mut pairs = Vec::new();
        loop {
            if self.input.is_empty() && count == Some(pairs.len()) {
                return Ok(pairs);
            }
            let key = self.short_text()?;
            // An empty key is a key like any other, unless an end marker follows (§2.11).
            if key.is_empty() && self.input.peek() == Some(marker::OBJECT_END) {
                self.input.u8()?;
                return Ok(pairs);
            }
            self.pay(1)?;
            pairs.push((key, self.value()?));
        }
    }

    fn reference(&mut self, at: usize) -> Result<Value, Error> {
        let index = self.input.u16()?;
        let Some((value, weight)) = self.referents.resolve(usize::from(index)) else {
            let index = u32::from(index);
            return Err(Error::NoSuchReference {
                at,
                table: Table::Objects,
                index,
            });
        };
        self.meter
            .pay_again(weight)
            .map_err(|limit| self.exceeds(limit))?;
        Ok(value)
    }

    fn short_text(&mut self) -> Result<Arc<str>, Error> {
        let len = self.input.u16()?;
        self.text(usize::from(len))
    }

    fn long_text(&mut self) -> Result<Arc<str>, Error> {
        let len = self.input.u32()?;
        self.text(size(len))
    }

    fn text(&mut self, len: usize) -> Result<Arc<str>, Error> {
        let text = text(self.input.take(len)?);
        self.meter
            .pay_bytes(text.len())
            .map_err(|limit| self.exceeds(limit))?;
        Ok(text)
    }

    fn open(&mut self) -> Result<(usize, Entered), Error> {
        let entered = self.meter.enter().map_err(|limit| self.exceeds(limit))?;
        Ok((self.referents.open(entered.ordinal), entered))
    }

    fn close(&mut self, (index, entered): &(usize, Entered), value: Value) -> Value {
        let weight = self.meter.leave(entered);
        self.referents.close(*index, &value, weight);
        value
    }

    fn pay(&mut self, values: usize) -> Result<(), Error> {
        self.meter
            .pay_values(values)
            .map_err(|limit| self.exceeds(limit))
    }

    const fn exceeds(&self, limit: Limit) -> Error {
        Error::Exceeds {
            at: self.input.at(),
            limit,
        }
    }
}
