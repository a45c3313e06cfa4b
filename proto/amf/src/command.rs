//! Command bodies, and `rml_amf0`.
//!
//! Almost every command (`connect`, `createStream`, `publish`, `_result`, `onStatus`) holds
//! nothing but numbers, booleans, strings, objects, nulls and strict arrays. Such a body is
//! read by the `rml_amf0` crate, every other one by [`crate::amf0`].
//!
//! `rml_amf0` trusts its input: it recurses without a limit, fills a truncated string with
//! zeros, takes a boolean of 2 for false, ends the message at a stray object end, and keeps
//! objects in a hash map, which loses their order. A scan comes first, therefore. It lets
//! through only bodies on which none of this can happen, and notes the order of the keys, so
//! that which of the two readers was at work cannot be told from the result.

use std::collections::BTreeMap;
use std::sync::Arc;

use rml_amf0::Amf0Value;

use crate::amf0;
use crate::error::{Error, Unwritable};
use crate::input::{Input, size};
use crate::limits::{Limits, PLAIN_DEPTH, SHORT_STRING};
use crate::meter::Meter;
use crate::value::Value;

/// Reads all values of a command body.
///
/// The result is that of [`amf0::read_all`], whichever reader is at work.
///
/// # Errors
/// As [`amf0::read_all`].
pub fn read(body: &[u8]) -> Result<Vec<Value>, Error> {
    match read_plain(body) {
        Some(values) => Ok(values),
        None => amf0::read_all(body),
    }
}

/// Reads a body through `rml_amf0`, if it is plain.
pub(crate) fn read_plain(body: &[u8]) -> Option<Vec<Value>> {
    let mut orders = scan(body)?.into_iter();
    let values = rml_amf0::deserialize(&mut &*body).ok()?;
    values
        .into_iter()
        .map(|value| in_order(value, &mut orders))
        .collect()
}

/// The keys of an object, in order.
type Order<'a> = Vec<&'a str>;

/// A container the scan is inside of.
enum Within {
    /// An object: the place of its keys.
    Object(usize),
    /// A strict array: how many elements are to come.
    Array(usize),
}

/// The keys of every object in order of appearance, if the body is plain: valid, within the
/// limits, of kinds and lengths that `rml_amf0` reads as the specification has them.
fn scan(body: &[u8]) -> Option<Vec<Order<'_>>> {
    let mut input = Input::new(body);
    let mut meter = Meter::new(Limits::DEFAULT);
    let mut orders: Vec<Order<'_>> = Vec::new();
    let mut within: Vec<Within> = Vec::new();
    loop {
        match within.last_mut() {
            None if input.is_empty() => return Some(orders),
            None => meter.pay_values(1).ok()?,
            Some(Within::Array(0)) => {
                within.pop();
                continue;
            }
            Some(Within::Array(left)) => *left -= 1,
            Some(Within::Object(order)) => {
                let key = short_text(&mut input, &mut meter)?;
                if key.is_empty() {
                    // An empty key that does not end the object is an error to `rml_amf0`.
                    if input.u8().ok()? != 0x09 {
                        return None;
                    }
                    within.pop();
                    continue;
                }
                orders.get_mut(*order)?.push(key);
                meter.pay_values(1).ok()?;
            }
        }
        match input.u8().ok()? {
            0x00 => drop(input.f64().ok()?),
            0x01 if input.u8().ok()? <= 1 => {}
            0x02 => drop(short_text(&mut input, &mut meter)?),
            0x03 if within.len() < PLAIN_DEPTH => {
                within.push(Within::Object(orders.len()));
                orders.push(Order::new());
            }
            0x05 | 0x06 => {}
            0x0A if within.len() < PLAIN_DEPTH => {
                let count = size(input.u32().ok()?);
                meter.pay_values(count).ok()?;
                within.push(Within::Array(count));
            }
            _ => return None,
        }
    }
}

fn short_text<'a>(input: &mut Input<'a>, meter: &mut Meter) -> Option<&'a str> {
    let len = input.u16().ok()?;
    let text = str::from_utf8(input.take(usize::from(len)).ok()?).ok()?;
    meter.pay_bytes(text.len()).ok()?;
    Some(text)
}

/// A value with its keys in the order that was noted. `None` if a key appeared twice, of which
/// a hash map keeps one.
fn in_order<'a>(value: Amf0Value, orders: &mut impl Iterator<Item = Order<'a>>) -> Option<Value> {
    Some(match value {
        Amf0Value::Object(mut members) => {
            let order = orders.next()?;
            let mut pairs = Vec::with_capacity(order.len());
            for key in order {
                let (key, value) = members.remove_entry(key)?;
                pairs.push((Arc::from(key), in_order(value, orders)?));
            }
            Value::Object(Arc::new(pairs))
        }
        Amf0Value::StrictArray(values) => Value::StrictArray(Arc::new(
            values
                .into_iter()
                .map(|value| in_order(value, orders))
                .collect::<Option<_>>()?,
        )),
        Amf0Value::Number(number) => Value::Number(number),
        Amf0Value::Boolean(truth) => Value::Boolean(truth),
        Amf0Value::Utf8String(text) => Value::from(text),
        Amf0Value::Null => Value::Null,
        Amf0Value::Undefined => Value::Undefined,
    })
}

/// The pairs of an object come in the order of their keys: the hash map has none of its own.
/// Recurses as deep as the value is; one from [`rml_amf0::deserialize`] on unscanned bytes has
/// no limit.
impl From<Amf0Value> for Value {
    fn from(value: Amf0Value) -> Self {
        match value {
            Amf0Value::Number(number) => Self::Number(number),
            Amf0Value::Boolean(truth) => Self::Boolean(truth),
            Amf0Value::Utf8String(text) => Self::from(text),
            Amf0Value::Object(members) => {
                let members: BTreeMap<String, Amf0Value> = members.into_iter().collect();
                Self::object(
                    members
                        .into_iter()
                        .map(|(key, value)| (key, Self::from(value))),
                )
            }
            Amf0Value::StrictArray(values) => Self::array(values.into_iter().map(Self::from)),
            Amf0Value::Null => Self::Null,
            Amf0Value::Undefined => Self::Undefined,
        }
    }
}

/// Fails with [`Unwritable::NotPlain`] for a kind `rml_amf0` does not have and for keys it
/// would lose or write wrongly: repeated, empty, or of more than 65 535 bytes. Such a long
/// string fails too.
impl TryFrom<&Value> for Amf0Value {
    type Error = Error;

    fn try_from(value: &Value) -> Result<Self, Error> {
        plain(value, &mut Meter::new(Limits::DEFAULT))
    }
}

fn plain(value: &Value, meter: &mut Meter) -> Result<Amf0Value, Error> {
    meter.pay_values(1).map_err(Unwritable::Exceeds)?;
    Ok(match value {
        Value::Undefined => Amf0Value::Undefined,
        Value::Null => Amf0Value::Null,
        Value::Boolean(truth) => Amf0Value::Boolean(*truth),
        Value::Number(number) => Amf0Value::Number(*number),
        Value::Integer(number) => Amf0Value::Number(f64::from(*number)),
        Value::String(text) => Amf0Value::Utf8String(plain_text(text, meter)?),
        Value::Object(pairs) => {
            let entered = meter.enter().map_err(Unwritable::Exceeds)?;
            let mut members = std::collections::HashMap::new();
            for (key, value) in pairs.iter() {
                let (key, value) = (plain_text(key, meter)?, plain(value, meter)?);
                if key.is_empty() || members.insert(key, value).is_some() {
                    return Err(Unwritable::NotPlain.into());
                }
            }
            meter.leave(&entered);
            Amf0Value::Object(members)
        }
        Value::StrictArray(values) => {
            let entered = meter.enter().map_err(Unwritable::Exceeds)?;
            let values = values
                .iter()
                .map(|value| plain(value, meter))
                .collect::<Result<_, _>>()?;
            meter.leave(&entered);
            Amf0Value::StrictArray(values)
        }
        Value::EcmaArray(_)
        | Value::Date { .. }
        | Value::XmlDocument(_)
        | Value::Xml(_)
        | Value::TypedObject(_)
        | Value::ByteArray(_)
        | Value::Vector(_)
        | Value::Dictionary(_)
        | Value::Unsupported
        | Value::Reference(_) => return Err(Unwritable::NotPlain.into()),
    })
}

fn plain_text(text: &str, meter: &mut Meter) -> Result<String, Error> {
    meter.pay_bytes(text.len()).map_err(Unwritable::Exceeds)?;
    if text.len() > SHORT_STRING {
        return Err(Unwritable::NotPlain.into());
    }
    Ok(text.to_owned())
}
