//! Reading AMF3.

use std::sync::Arc;

use bytes::Bytes;

use super::tables::{ReadTables, Traits};
use super::{SINGLE_VALUE_CLASSES, marker};
use crate::error::{Error, Format, Table};
use crate::input::{Input, size, text};
use crate::limits::{Limit, Limits};
use crate::meter::{Entered, Meter, Weight};
use crate::value::{Dictionary, EcmaArray, TypedObject, Value, Vector};

/// Reads all values of a body, which share their reference tables.
///
/// # Errors
/// When the body is not AMF3, ends inside a value, holds an externalizable object that is not
/// understood, or costs more than [`Limits::DEFAULT`].
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

/// Reads values that share their reference tables and the limits.
#[derive(Debug)]
pub struct Decoder<'a> {
    input: Input<'a>,
    meter: Meter,
    tables: ReadTables,
    failed: Option<Error>,
}

impl<'a> Decoder<'a> {
    /// Reads this body within [`Limits::DEFAULT`].
    #[must_use]
    pub fn new(body: &'a [u8]) -> Self {
        Self::with_limits(body, Limits::DEFAULT)
    }

    /// Reads this body within these limits.
    #[must_use]
    pub fn with_limits(body: &'a [u8], limits: Limits) -> Self {
        Self {
            input: Input::new(body),
            meter: Meter::new(limits),
            tables: ReadTables::default(),
            failed: None,
        }
    }

    /// The next value, `None` at the end of the body.
    ///
    /// # Errors
    /// As [`read_all`], within the limits of this decoder. Where the next value begins is
    /// then unknown: the same error comes again.
    pub fn next_value(&mut self) -> Result<Option<Value>, Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.input.is_empty() {
            return Ok(None);
        }
        self.meter.renumber();
        let mut reader = Reader {
            input: &mut self.input,
            meter: &mut self.meter,
            tables: &mut self.tables,
        };
        let read = reader.pay(1).and_then(|()| reader.value());
        read.map(Some)
            .inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// How many bytes were read.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.input.at()
    }
}

/// Reads the value after the AMF0 marker 0x11, with tables of its own. It is already paid for.
pub(crate) fn read_switched(input: &mut Input<'_>, meter: &mut Meter) -> Result<Value, Error> {
    Reader {
        input,
        meter,
        tables: &mut ReadTables::default(),
    }
    .value()
}

struct Reader<'m, 'a> {
    input: &'m mut Input<'a>,
    meter: &'m mut Meter,
    tables: &'m mut ReadTables,
}

/// What the first number of a complex value says: its lowest bit is 0 for a reference.
enum Header {
    /// What the object table has at this index.
    Known(Value),
    /// A value follows; the other 28 bits are its length or its count.
    Follows(usize),
}

impl Reader<'_, '_> {
    fn value(&mut self) -> Result<Value, Error> {
        let at = self.input.at();
        match self.input.u8()? {
            marker::UNDEFINED => Ok(Value::Undefined),
            marker::NULL => Ok(Value::Null),
            marker::FALSE => Ok(Value::Boolean(false)),
            marker::TRUE => Ok(Value::Boolean(true)),
            marker::INTEGER => Ok(Value::Integer(sign_extended(self.u29()?))),
            marker::DOUBLE => Ok(Value::Number(self.input.f64()?)),
            marker::STRING => Ok(Value::String(self.string()?)),
            marker::XML_DOCUMENT => self.xml(Value::XmlDocument),
            marker::DATE => self.date(),
            marker::ARRAY => self.array(),
            marker::OBJECT => self.object(at),
            marker::XML => self.xml(Value::Xml),
            marker::BYTE_ARRAY => self.byte_array(),
            marker::VECTOR_INT => {
                self.number_vector(|item, fixed| Vector::Int(map(item, i32::from_be_bytes), fixed))
            }
            marker::VECTOR_UINT => {
                self.number_vector(|item, fixed| Vector::Uint(map(item, u32::from_be_bytes), fixed))
            }
            marker::VECTOR_DOUBLE => self
                .number_vector(|item, fixed| Vector::Double(map(item, f64::from_be_bytes), fixed)),
            marker::VECTOR_OBJECT => self.object_vector(),
            marker::DICTIONARY => self.dictionary(),
            marker => Err(Error::UnknownMarker {
                at,
                format: Format::Amf3,
                marker,
            }),
        }
    }

    fn xml(&mut self, kind: fn(Arc<str>) -> Value) -> Result<Value, Error> {
        let len = match self.header()? {
            Header::Known(value) => return Ok(value),
            Header::Follows(len) => len,
        };
        let text = text(self.input.take(len)?);
        self.pay_bytes(text.len())?;
        let weight = Weight::leaf(text.len());
        Ok(self.leaf(kind(text), weight))
    }

    fn date(&mut self) -> Result<Value, Error> {
        if let Header::Known(value) = self.header()? {
            return Ok(value);
        }
        let value = Value::Date {
            millis: self.input.f64()?,
            zone: 0,
        };
        Ok(self.leaf(value, Weight::leaf(0)))
    }

    fn byte_array(&mut self) -> Result<Value, Error> {
        let len = match self.header()? {
            Header::Known(value) => return Ok(value),
            Header::Follows(len) => len,
        };
        let bytes = self.input.take(len)?;
        self.pay_bytes(len)?;
        Ok(self.leaf(
            Value::ByteArray(Bytes::copy_from_slice(bytes)),
            Weight::leaf(len),
        ))
    }

    fn array(&mut self) -> Result<Value, Error> {
        let count = match self.header()? {
            Header::Known(value) => return Ok(value),
            Header::Follows(count) => count,
        };
        let open = self.open()?;
        self.pay(count)?;
        let pairs = self.dynamic_pairs(Vec::new())?;
        let dense = self.values(count)?;
        let value = if pairs.is_empty() {
            Value::StrictArray(Arc::new(dense))
        } else {
            Value::EcmaArray(Arc::new(EcmaArray { pairs, dense }))
        };
        Ok(self.close(&open, value))
    }

    fn object(&mut self, at: usize) -> Result<Value, Error> {
        let flags = match self.header()? {
            Header::Known(value) => return Ok(value),
            Header::Follows(flags) => flags,
        };
        let open = self.open()?;
        let traits = self.traits(at, flags)?;
        let value = if traits.externalizable {
            self.externalizable(at, &traits)?
        } else {
            self.members(&traits)?
        };
        Ok(self.close(&open, value))
    }

    fn members(&mut self, traits: &Traits) -> Result<Value, Error> {
        let sealed = traits.sealed.len();
        let mut pairs = Vec::with_capacity(sealed.min(self.input.remaining()));
        for name in &traits.sealed {
            pairs.push((name.clone(), self.value()?));
        }
        let pairs = if traits.dynamic {
            self.dynamic_pairs(pairs)?
        } else {
            pairs
        };
        if traits.class.is_empty() && sealed == 0 && traits.dynamic {
            return Ok(Value::Object(Arc::new(pairs)));
        }
        Ok(Value::TypedObject(Arc::new(TypedObject {
            class: traits.class.clone(),
            pairs,
            sealed,
            dynamic: traits.dynamic,
            external: None,
        })))
    }

    fn externalizable(&mut self, at: usize, traits: &Traits) -> Result<Value, Error> {
        let class = traits.class.clone();
        if !SINGLE_VALUE_CLASSES.contains(&&*class) {
            return Err(Error::UnknownExternalizable { at, class });
        }
        self.pay(1)?;
        let external = Some(self.value()?);
        Ok(Value::TypedObject(Arc::new(TypedObject {
            class,
            external,
            ..TypedObject::default()
        })))
    }

    /// The traits of an object whose header, without its lowest bit, is this, and payment for
    /// the sealed members: before their names are kept, since there is a value for each.
    fn traits(&mut self, at: usize, flags: usize) -> Result<Arc<Traits>, Error> {
        if flags & 1 == 0 {
            let index = flags >> 1;
            let Some(traits) = self.tables.traits.get(index).cloned() else {
                return Err(no_such(at, Table::Traits, index));
            };
            self.pay(traits.sealed.len())?;
            self.pay_bytes(traits.text_len())?;
            return Ok(traits);
        }
        let externalizable = flags & 2 != 0;
        let dynamic = !externalizable && flags & 4 != 0;
        // The count of an externalizable class is not significant.
        let count = if externalizable { 0 } else { flags >> 3 };
        let class = self.string()?;
        self.pay(count)?;
        let mut sealed = Vec::with_capacity(count.min(self.input.remaining()));
        for _ in 0..count {
            sealed.push(self.string()?);
        }
        let traits = Arc::new(Traits {
            class,
            sealed,
            dynamic,
            externalizable,
        });
        self.tables.traits.push(traits.clone());
        Ok(traits)
    }

    /// Adds pairs up to the empty name.
    fn dynamic_pairs(
        &mut self,
        mut pairs: Vec<(Arc<str>, Value)>,
    ) -> Result<Vec<(Arc<str>, Value)>, Error> {
        loop {
            let key = self.string()?;
            if key.is_empty() {
                return Ok(pairs);
            }
            self.pay(1)?;
            pairs.push((key, self.value()?));
        }
    }

    fn number_vector<const N: usize>(
        &mut self,
        vector: fn(&[[u8; N]], bool) -> Vector,
    ) -> Result<Value, Error> {
        let count = match self.header()? {
            Header::Known(value) => return Ok(value),
            Header::Follows(count) => count,
        };
        let open = self.open()?;
        let fixed = self.input.u8()? != 0;
        let len = count.saturating_mul(N);
        let items = self.input.take(len)?;
        self.pay_bytes(len)?;
        let value = Value::Vector(Arc::new(vector(items.as_chunks().0, fixed)));
        Ok(self.close(&open, value))
    }

    fn object_vector(&mut self) -> Result<Value, Error> {
        let count = match self.header()? {
            Header::Known(value) => return Ok(value),
            Header::Follows(count) => count,
        };
        let open = self.open()?;
        self.pay(count)?;
        let fixed = self.input.u8()? != 0;
        let class = self.string()?;
        let values = self.values(count)?;
        Ok(self.close(
            &open,
            Value::Vector(Arc::new(Vector::Object(class, values, fixed))),
        ))
    }

    fn dictionary(&mut self) -> Result<Value, Error> {
        let count = match self.header()? {
            Header::Known(value) => return Ok(value),
            Header::Follows(count) => count,
        };
        let open = self.open()?;
        self.pay(count.saturating_mul(2))?;
        let weak = self.input.u8()? != 0;
        let mut entries = Vec::with_capacity(count.min(self.input.remaining()));
        for _ in 0..count {
            entries.push((self.value()?, self.value()?));
        }
        Ok(self.close(
            &open,
            Value::Dictionary(Arc::new(Dictionary { weak, entries })),
        ))
    }

    /// Values that are paid for.
    fn values(&mut self, count: usize) -> Result<Vec<Value>, Error> {
        let mut values = Vec::with_capacity(count.min(self.input.remaining()));
        for _ in 0..count {
            values.push(self.value()?);
        }
        Ok(values)
    }

    /// The first number of a complex value. A reference is resolved whichever marker it comes
    /// with: what it points to has its own.
    fn header(&mut self) -> Result<Header, Error> {
        let at = self.input.at();
        let number = size(self.u29()?);
        if number & 1 == 1 {
            return Ok(Header::Follows(number >> 1));
        }
        let index = number >> 1;
        let Some((value, weight)) = self.tables.objects.resolve(index) else {
            return Err(no_such(at, Table::Objects, index));
        };
        self.meter
            .pay_again(weight)
            .map_err(|limit| self.exceeds(limit))?;
        Ok(Header::Known(value))
    }

    /// A string or a reference to one (§1.3.2, UTF-8-vr). The empty one is not in the table.
    fn string(&mut self) -> Result<Arc<str>, Error> {
        let at = self.input.at();
        let number = size(self.u29()?);
        if number & 1 == 0 {
            let index = number >> 1;
            let Some(text) = self.tables.strings.get(index).cloned() else {
                return Err(no_such(at, Table::Strings, index));
            };
            self.pay_bytes(text.len())?;
            return Ok(text);
        }
        let text = text(self.input.take(number >> 1)?);
        self.pay_bytes(text.len())?;
        if !text.is_empty() {
            self.tables.strings.push(text.clone());
        }
        Ok(text)
    }

    /// A number of up to 29 bits (§1.3.1): seven bits in each byte whose highest bit says that
    /// another follows, all eight in the fourth.
    fn u29(&mut self) -> Result<u32, Error> {
        let mut number = 0;
        for _ in 0..3 {
            let byte = self.input.u8()?;
            number = number << 7 | u32::from(byte & 0x7F);
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Ok(number << 8 | u32::from(self.input.u8()?))
    }

    fn open(&mut self) -> Result<(usize, Entered), Error> {
        let entered = self.meter.enter().map_err(|limit| self.exceeds(limit))?;
        Ok((self.tables.objects.open(entered.ordinal), entered))
    }

    fn close(&mut self, (index, entered): &(usize, Entered), value: Value) -> Value {
        let weight = self.meter.leave(entered);
        self.tables.objects.close(*index, &value, weight);
        value
    }

    fn leaf(&mut self, value: Value, weight: Weight) -> Value {
        self.tables.objects.leaf(&value, weight);
        value
    }

    fn pay(&mut self, values: usize) -> Result<(), Error> {
        self.meter
            .pay_values(values)
            .map_err(|limit| self.exceeds(limit))
    }

    fn pay_bytes(&mut self, bytes: usize) -> Result<(), Error> {
        self.meter
            .pay_bytes(bytes)
            .map_err(|limit| self.exceeds(limit))
    }

    const fn exceeds(&self, limit: Limit) -> Error {
        Error::Exceeds {
            at: self.input.at(),
            limit,
        }
    }
}

/// An integer is the 29-bit number with its highest bit as the sign (§3.6).
const fn sign_extended(number: u32) -> i32 {
    (number << 3).cast_signed() >> 3
}

fn map<T, const N: usize>(items: &[[u8; N]], read: fn([u8; N]) -> T) -> Vec<T> {
    items.iter().copied().map(read).collect()
}

fn no_such(at: usize, table: Table, index: usize) -> Error {
    Error::NoSuchReference {
        at,
        table,
        index: u32::try_from(index).unwrap_or(u32::MAX),
    }
}
