//! Writing AMF3.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::tables::{Traits, WriteTables};
use super::{SINGLE_VALUE_CLASSES, marker};
use crate::error::{Error, Unwritable};
use crate::graph::{Identity, Sharing, Visits};
use crate::limits::{Limits, MAX_SEALED, MAX_U28};
use crate::meter::Meter;
use crate::value::{Dictionary, EcmaArray, TypedObject, Value, Vector};

/// Appends one value with reference tables of its own, containers that appear again in full:
/// equal values have equal bytes.
///
/// # Errors
/// As [`Encoder::write`]. The buffer is then as it was.
pub fn write(value: &Value, out: &mut BytesMut) -> Result<(), Error> {
    Encoder::with(Limits::DEFAULT, Sharing::Repeat).write(value, out)
}

/// These values with common reference tables, containers that appear again by reference.
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

/// Writes values that share their reference tables and the limits.
///
/// Strings and traits that are equal to earlier ones are written as references, and so is a
/// container whose handle appears again.
#[derive(Debug)]
pub struct Encoder {
    meter: Meter,
    visits: Visits,
    tables: WriteTables,
    sharing: Sharing,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// The [`Visits`] scope of values that are not inside AMF0.
    const SCOPE: u32 = 0;

    /// Begins within [`Limits::DEFAULT`].
    #[must_use]
    pub fn new() -> Self {
        Self::with_limits(Limits::DEFAULT)
    }

    /// Begins within these limits.
    #[must_use]
    pub fn with_limits(limits: Limits) -> Self {
        Self::with(limits, Sharing::Refer)
    }

    fn with(limits: Limits, sharing: Sharing) -> Self {
        Self {
            meter: Meter::new(limits),
            visits: Visits::default(),
            tables: WriteTables::default(),
            sharing,
        }
    }

    /// Appends a value.
    ///
    /// # Errors
    /// When the values cost more than the limits, a length or a count has more than 28 bits,
    /// a key of an object or array is empty, the traits of a typed object contradict its
    /// members, an externalizable body is of an unknown class, or a [`Value::Reference`] has
    /// no open container to point to. Nothing is appended then, and what was begun should be
    /// given up.
    pub fn write(&mut self, value: &Value, out: &mut BytesMut) -> Result<(), Error> {
        let len = out.len();
        self.visits.renumber();
        let mut writer = Writer {
            meter: &mut self.meter,
            visits: &mut self.visits,
            tables: &mut self.tables,
            scope: Self::SCOPE,
            sharing: self.sharing,
            out,
        };
        let written = writer.pay(1).and_then(|()| writer.value(value));
        written.inspect_err(|_| out.truncate(len))
    }
}

/// Writes the value after the AMF0 marker 0x11, with tables of its own. It is already paid for.
pub(crate) fn write_switched(
    value: &Value,
    meter: &mut Meter,
    visits: &mut Visits,
    sharing: Sharing,
    out: &mut BytesMut,
) -> Result<(), Error> {
    let scope = visits.new_scope();
    let tables = &mut WriteTables::default();
    Writer {
        meter,
        visits,
        tables,
        scope,
        sharing,
        out,
    }
    .value(value)
}

struct Writer<'m> {
    meter: &'m mut Meter,
    visits: &'m mut Visits,
    tables: &'m mut WriteTables,
    scope: u32,
    sharing: Sharing,
    out: &'m mut BytesMut,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value) -> Result<(), Error> {
        match value {
            // AMF3 has no marker for what could not be serialized (§2.1).
            Value::Undefined | Value::Unsupported => self.out.put_u8(marker::UNDEFINED),
            Value::Null => self.out.put_u8(marker::NULL),
            Value::Boolean(false) => self.out.put_u8(marker::FALSE),
            Value::Boolean(true) => self.out.put_u8(marker::TRUE),
            Value::Number(number) => self.number(*number),
            Value::Integer(number) => self.integer(*number),
            Value::String(text) => {
                self.out.put_u8(marker::STRING);
                self.string(text)?;
            }
            Value::XmlDocument(text) => self.leaf(marker::XML_DOCUMENT, text.as_bytes())?,
            Value::Xml(text) => self.leaf(marker::XML, text.as_bytes())?,
            Value::ByteArray(bytes) => self.leaf(marker::BYTE_ARRAY, bytes)?,
            Value::Date { millis, zone: _ } => {
                self.tables.objects.push(Identity::LEAF);
                self.out.put_slice(&[marker::DATE, 1]);
                self.out.put_u64(millis.to_bits());
            }
            Value::Object(pairs) => {
                self.container(marker::OBJECT, Identity::of(pairs), |writer| {
                    writer.object(pairs)
                })?;
            }
            Value::EcmaArray(array) => {
                let EcmaArray { pairs, dense } = &**array;
                self.container(marker::ARRAY, Identity::of(array), |writer| {
                    writer.array(pairs, dense)
                })?;
            }
            Value::StrictArray(dense) => {
                self.container(marker::ARRAY, Identity::of(dense), |writer| {
                    writer.array(&[], dense)
                })?;
            }
            Value::TypedObject(object) => {
                self.container(marker::OBJECT, Identity::of(object), |writer| {
                    writer.typed_object(object)
                })?;
            }
            Value::Vector(vector) => {
                self.container(vector_marker(vector), Identity::of(vector), |writer| {
                    writer.vector(vector)
                })?;
            }
            Value::Dictionary(dictionary) => {
                self.container(marker::DICTIONARY, Identity::of(dictionary), |writer| {
                    writer.dictionary(dictionary)
                })?;
            }
            Value::Reference(ordinal) => self.reference(*ordinal)?,
        }
        Ok(())
    }

    fn number(&mut self, number: f64) {
        self.out.put_u8(marker::DOUBLE);
        self.out.put_u64(number.to_bits());
    }

    /// §3.6: an integer that does not fit in 29 bits becomes a double.
    fn integer(&mut self, number: i32) {
        const LIMIT: i32 = 1 << 28;
        if (-LIMIT..LIMIT).contains(&number) {
            self.out.put_u8(marker::INTEGER);
            self.u29(number.cast_unsigned() & 0x1FFF_FFFF);
        } else {
            self.number(f64::from(number));
        }
    }

    fn container(
        &mut self,
        marker: u8,
        identity: Identity,
        body: impl FnOnce(&mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.put_u8(marker);
        if self.sharing == Sharing::Refer
            && let Some(index) = self.tables.objects.find(identity)
        {
            return self.flagged(index, 0);
        }
        let entered = self.meter.enter().map_err(Unwritable::Exceeds)?;
        let index = self.tables.objects.push(identity);
        let open = self.visits.enter(identity, self.scope, index);
        body(self)?;
        self.visits.leave(&open);
        self.meter.leave(&entered);
        Ok(())
    }

    fn object(&mut self, pairs: &[(Arc<str>, Value)]) -> Result<(), Error> {
        self.traits(&Traits {
            class: Arc::default(),
            sealed: Vec::new(),
            dynamic: true,
            externalizable: false,
        })?;
        self.dynamic_pairs(pairs)
    }

    fn typed_object(&mut self, object: &TypedObject) -> Result<(), Error> {
        let TypedObject {
            class,
            pairs,
            sealed,
            dynamic,
            external,
        } = object;
        if let Some(external) = external {
            return self.externalizable(class, pairs, external);
        }
        let Some((sealed, others)) = pairs.split_at_checked(*sealed) else {
            return Err(Unwritable::BadTraits(class.clone()).into());
        };
        // An object that comes from AMF0 has members that were never sealed.
        let dynamic = *dynamic || !others.is_empty();
        self.traits(&Traits {
            class: class.clone(),
            sealed: sealed.iter().map(|(name, _)| name.clone()).collect(),
            dynamic,
            externalizable: false,
        })?;
        self.pay(sealed.len())?;
        for (_, value) in sealed {
            self.value(value)?;
        }
        if dynamic {
            self.dynamic_pairs(others)
        } else {
            Ok(())
        }
    }

    fn externalizable(
        &mut self,
        class: &Arc<str>,
        pairs: &[(Arc<str>, Value)],
        external: &Value,
    ) -> Result<(), Error> {
        if !SINGLE_VALUE_CLASSES.contains(&&**class) {
            return Err(Unwritable::UnknownExternalizable(class.clone()).into());
        }
        if !pairs.is_empty() {
            return Err(Unwritable::BadTraits(class.clone()).into());
        }
        self.traits(&Traits {
            class: class.clone(),
            sealed: Vec::new(),
            dynamic: false,
            externalizable: true,
        })?;
        self.pay(1)?;
        self.value(external)
    }

    /// The header of an object: its traits, or a reference to them (§3.12).
    fn traits(&mut self, traits: &Traits) -> Result<(), Error> {
        let count = traits.sealed.len();
        if count > MAX_SEALED {
            return Err(Unwritable::LengthTooLong(count).into());
        }
        if let Some(index) = self.tables.traits(traits) {
            self.pay_bytes(traits.text_len())?;
            return self.flagged(index.saturating_mul(2), 1);
        }
        let flags = if traits.externalizable {
            0b11
        } else {
            count << 3 | usize::from(traits.dynamic) << 2 | 0b01
        };
        self.flagged(flags, 1)?;
        self.string(&traits.class)?;
        traits.sealed.iter().try_for_each(|name| self.string(name))
    }

    fn array(&mut self, pairs: &[(Arc<str>, Value)], dense: &[Value]) -> Result<(), Error> {
        self.flagged(dense.len(), 1)?;
        self.pay(dense.len())?;
        self.dynamic_pairs(pairs)?;
        dense.iter().try_for_each(|value| self.value(value))
    }

    fn dynamic_pairs(&mut self, pairs: &[(Arc<str>, Value)]) -> Result<(), Error> {
        self.pay(pairs.len())?;
        for (key, value) in pairs {
            if key.is_empty() {
                return Err(Unwritable::EmptyKey.into());
            }
            self.string(key)?;
            self.value(value)?;
        }
        self.string(&Arc::default())
    }

    fn vector(&mut self, vector: &Vector) -> Result<(), Error> {
        match vector {
            Vector::Int(items, fixed) => {
                self.numbers(items.len(), size_of::<i32>(), *fixed)?;
                items.iter().for_each(|item| self.out.put_i32(*item));
            }
            Vector::Uint(items, fixed) => {
                self.numbers(items.len(), size_of::<u32>(), *fixed)?;
                items.iter().for_each(|item| self.out.put_u32(*item));
            }
            Vector::Double(items, fixed) => {
                self.numbers(items.len(), size_of::<f64>(), *fixed)?;
                items
                    .iter()
                    .for_each(|item| self.out.put_u64(item.to_bits()));
            }
            Vector::Object(class, items, fixed) => {
                self.flagged(items.len(), 1)?;
                self.pay(items.len())?;
                self.out.put_u8(u8::from(*fixed));
                self.string(class)?;
                items.iter().try_for_each(|item| self.value(item))?;
            }
        }
        Ok(())
    }

    fn numbers(&mut self, count: usize, size: usize, fixed: bool) -> Result<(), Error> {
        self.flagged(count, 1)?;
        self.pay_bytes(count.saturating_mul(size))?;
        self.out.put_u8(u8::from(fixed));
        Ok(())
    }

    fn dictionary(&mut self, dictionary: &Dictionary) -> Result<(), Error> {
        let Dictionary { weak, entries } = dictionary;
        self.flagged(entries.len(), 1)?;
        self.pay(entries.len().saturating_mul(2))?;
        self.out.put_u8(u8::from(*weak));
        for (key, value) in entries {
            self.value(key)?;
            self.value(value)?;
        }
        Ok(())
    }

    /// XML or bytes: a complex value without elements.
    fn leaf(&mut self, marker: u8, bytes: &[u8]) -> Result<(), Error> {
        self.pay_bytes(bytes.len())?;
        self.tables.objects.push(Identity::LEAF);
        self.out.put_u8(marker);
        self.flagged(bytes.len(), 1)?;
        self.out.put_slice(bytes);
        Ok(())
    }

    fn reference(&mut self, ordinal: u32) -> Result<(), Error> {
        let open = self
            .visits
            .find(ordinal)
            .ok_or(Unwritable::DanglingReference(ordinal))?;
        if open.scope != self.scope {
            return Err(Unwritable::UnreachableReference(ordinal).into());
        }
        let index = open.index;
        // Of the markers that a reference can follow, every decoder expects this one.
        self.out.put_u8(marker::OBJECT);
        self.flagged(index, 0)
    }

    /// A string, or a reference to an equal one (§1.3.2, UTF-8-vr).
    fn string(&mut self, text: &Arc<str>) -> Result<(), Error> {
        self.pay_bytes(text.len())?;
        if text.is_empty() {
            return self.flagged(0, 1);
        }
        if let Some(index) = self.tables.string(text) {
            return self.flagged(index, 0);
        }
        self.flagged(text.len(), 1)?;
        self.out.put_slice(text.as_bytes());
        Ok(())
    }

    /// A number of 28 bits and a flag below it.
    fn flagged(&mut self, number: usize, flag: u32) -> Result<(), Error> {
        let fitting = u32::try_from(number).ok().filter(|_| number <= MAX_U28);
        let number = fitting.ok_or(Unwritable::LengthTooLong(number))?;
        self.u29(number << 1 | flag);
        Ok(())
    }

    /// A number of 29 bits in as few bytes as it takes (§1.3.1).
    fn u29(&mut self, number: u32) {
        let [a, b, c, d] = if number < 1 << 21 {
            [0, number >> 14, number >> 7 & 0x7F, number & 0x7F]
        } else {
            [
                number >> 22 & 0x7F,
                number >> 15 & 0x7F,
                number >> 8 & 0x7F,
                number & 0xFF,
            ]
        }
        .map(|part| part.to_le_bytes()[0]);
        if number >= 1 << 21 {
            self.out.put_slice(&[a | 0x80, b | 0x80, c | 0x80, d]);
        } else if number >= 1 << 14 {
            self.out.put_slice(&[b | 0x80, c | 0x80, d]);
        } else if number >= 1 << 7 {
            self.out.put_slice(&[c | 0x80, d]);
        } else {
            self.out.put_u8(d);
        }
    }

    fn pay(&mut self, values: usize) -> Result<(), Error> {
        Ok(self.meter.pay_values(values).map_err(Unwritable::Exceeds)?)
    }

    fn pay_bytes(&mut self, bytes: usize) -> Result<(), Error> {
        Ok(self.meter.pay_bytes(bytes).map_err(Unwritable::Exceeds)?)
    }
}

const fn vector_marker(vector: &Vector) -> u8 {
    match vector {
        Vector::Int(..) => marker::VECTOR_INT,
        Vector::Uint(..) => marker::VECTOR_UINT,
        Vector::Double(..) => marker::VECTOR_DOUBLE,
        Vector::Object(..) => marker::VECTOR_OBJECT,
    }
}
