//! The values of slots: taken out of messages as they stand, and put into words that a
//! client of AMF0 understands.

use std::sync::Arc;

use amf::limits::Limits;
use amf::value::{EcmaArray, TypedObject, Vector};
use amf::{Value, amf0};
use bytes::{Bytes, BytesMut};
use model::SlotValue;

use crate::limits::{
    OBJECT_ASK_BYTES_MAX, OBJECT_VALUE_BYTES_MAX, OBJECT_VALUE_DEPTH_MAX, OBJECT_VALUES_MAX,
};

/// AMF0 markers (§2.1).
const NULL: u8 = 0x05;
const UNDEFINED: u8 = 0x06;
const UNSUPPORTED: u8 = 0x0D;
const AVMPLUS: u8 = 0x11;

const LIMITS: Limits = Limits {
    depth: OBJECT_VALUE_DEPTH_MAX,
    values: OBJECT_VALUES_MAX,
    bytes: OBJECT_VALUE_BYTES_MAX,
};

/// Takes the value that the bytes begin with, and says how many bytes that was. `None`
/// when it is not readable, exceeds the limits, or refers to something outside of itself.
///
/// The value is a slice, unless it ends only because the bytes do (the one thing in AMF0
/// that may: an ECMA array without its end marker). Such a value is written anew.
pub(crate) fn read(bytes: &Bytes) -> Option<(SlotValue, usize)> {
    let mut decoder = amf0::Decoder::with_limits(bytes, LIMITS);
    let value = decoder.next_value().ok()??;
    let len = decoder.position();
    if len > OBJECT_VALUE_BYTES_MAX {
        return None;
    }
    let slice = bytes.slice(..len);
    if len < bytes.len() || stands_alone(&value, &slice) {
        return Some((SlotValue(slice), len));
    }
    let mut whole = BytesMut::with_capacity(len + 3);
    amf0::write(&value, &mut whole).ok()?;
    Some((SlotValue(whole.freeze()), len))
}

/// Whether the bytes are a message to all: the name of a handler, and values. Only such are
/// handed on, because whoever uses the object gets to read them.
pub(crate) fn is_call(payload: &[u8]) -> bool {
    let limits = Limits {
        bytes: OBJECT_ASK_BYTES_MAX,
        ..LIMITS
    };
    let mut decoder = amf0::Decoder::with_limits(payload, limits);
    let Ok(Some(Value::String(_))) = decoder.next_value() else {
        return false;
    };
    loop {
        match decoder.next_value() {
            Ok(Some(_)) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// The value of a slot.
///
/// # Errors
/// It cannot be read.
pub fn decode(value: &SlotValue) -> Result<Value, amf::Error> {
    amf0::read_prefix(&value.0).map(|(value, _)| value)
}

/// A value as a slot holds it, in the canonical form: equal values have equal bytes.
///
/// # Errors
/// It cannot be written.
pub fn encode(value: &Value) -> Result<SlotValue, amf::Error> {
    let mut out = BytesMut::new();
    amf0::write(value, &mut out)?;
    Ok(SlotValue(out.freeze()))
}

/// Whether it is null or undefined, in either format.
pub(crate) fn is_nothing(value: &SlotValue) -> bool {
    // AMF3 §3.2, §3.3: 0 is undefined, 1 is null.
    matches!(&value.0[..], [NULL | UNDEFINED] | [AVMPLUS, 0 | 1])
}

/// AMF values without anything of AMF3, for a client that has only AMF0: the same bytes
/// if there is nothing, else written anew.
///
/// Numbers, text, dates, arrays and objects survive; vectors become arrays, dictionaries
/// with plain keys become objects, and what AMF0 has no word for becomes its word for
/// that, `unsupported`.
pub(crate) fn plain(values: &Bytes) -> Bytes {
    // The marker is rare in what AMF0 writes, and without the marker there is no AMF3.
    if !values.contains(&AVMPLUS) {
        return values.clone();
    }
    let Ok(read) = amf0::read_all(values) else {
        return Bytes::from_static(&[UNSUPPORTED]);
    };
    let mut out = BytesMut::with_capacity(values.len());
    for value in &read {
        let mut bent = false;
        let mut flat = flatten(value, &mut bent);
        if bent {
            // References count containers, and those are not what they were.
            flat = cut_cycles(&flat);
        }
        if amf0::write(&flat, &mut out).is_err() {
            out.extend_from_slice(&[UNSUPPORTED]);
        }
    }
    out.freeze()
}

/// Whether the value's bytes say by themselves where it ends.
fn stands_alone(value: &Value, slice: &Bytes) -> bool {
    if !may_lack_its_end(value) {
        return true;
    }
    let mut followed = BytesMut::from(&slice[..]);
    followed.extend_from_slice(&[NULL]);
    let mut decoder = amf0::Decoder::with_limits(&followed, LIMITS);
    decoder.next_value().is_ok() && decoder.position() == slice.len()
}

fn may_lack_its_end(value: &Value) -> bool {
    if let Value::StrictArray(values) = value {
        return values.last().is_some_and(may_lack_its_end);
    }
    matches!(value, Value::EcmaArray(_))
}

type Pairs = Vec<(Arc<str>, Value)>;

/// The value with AMF0's kinds only. `bent` says whether the count of containers changed.
fn flatten(value: &Value, bent: &mut bool) -> Value {
    let mut all = |values: &[Value]| -> Vec<Value> {
        values.iter().map(|value| flatten(value, bent)).collect()
    };
    match value {
        Value::Object(pairs) => Value::Object(Arc::new(flat_pairs(pairs, bent))),
        Value::StrictArray(values) => Value::array(all(values)),
        Value::EcmaArray(array) => {
            let dense = (0..).zip(&array.dense);
            let mut pairs: Pairs = dense
                .map(|(index, value)| (i32::to_string(&index).into(), flatten(value, bent)))
                .collect();
            pairs.extend(flat_pairs(&array.pairs, bent));
            Value::EcmaArray(Arc::new(EcmaArray {
                pairs,
                dense: Vec::new(),
            }))
        }
        Value::TypedObject(object) => {
            if let Some(inner) = &object.external {
                *bent = true;
                return flatten(inner, bent);
            }
            Value::TypedObject(Arc::new(TypedObject {
                class: object.class.clone(),
                pairs: flat_pairs(&object.pairs, bent),
                ..TypedObject::default()
            }))
        }
        Value::Vector(vector) => {
            // A vector is a container as an array is.
            match &**vector {
                Vector::Int(numbers, _) => {
                    Value::array(numbers.iter().map(|n| f64::from(*n).into()))
                }
                Vector::Uint(numbers, _) => {
                    Value::array(numbers.iter().map(|n| f64::from(*n).into()))
                }
                Vector::Double(numbers, _) => Value::array(numbers.iter().map(|n| (*n).into())),
                Vector::Object(_, values, _) => Value::array(all(values)),
            }
        }
        Value::Dictionary(dictionary) => {
            let mut pairs = Pairs::new();
            for (key, value) in &dictionary.entries {
                let flat = flatten(value, bent);
                match plain_key(key) {
                    Some(key) => pairs.push((key, flat)),
                    None => *bent = true,
                }
            }
            Value::Object(Arc::new(pairs))
        }
        Value::ByteArray(_) => {
            *bent = true;
            Value::Unsupported
        }
        Value::Undefined
        | Value::Null
        | Value::Boolean(_)
        | Value::Number(_)
        | Value::Integer(_)
        | Value::String(_)
        | Value::Date { .. }
        | Value::XmlDocument(_)
        | Value::Xml(_)
        | Value::Unsupported
        | Value::Reference(_) => value.clone(),
    }
}

fn flat_pairs(pairs: &[(Arc<str>, Value)], bent: &mut bool) -> Pairs {
    pairs
        .iter()
        .map(|(key, value)| (key.clone(), flatten(value, bent)))
        .collect()
}

/// A dictionary's key as the name of a member, if it can be one.
fn plain_key(key: &Value) -> Option<Arc<str>> {
    if let Some(text) = key.as_str() {
        return Some(text.into());
    }
    if let Some(number) = key.as_f64() {
        return Some(number.to_string().into());
    }
    key.as_bool().map(|truth| truth.to_string().into())
}

/// The flat value with `unsupported` in place of references to what is still open.
fn cut_cycles(value: &Value) -> Value {
    let cut = |pairs: &[(Arc<str>, Value)]| -> Pairs {
        pairs
            .iter()
            .map(|(key, value)| (key.clone(), cut_cycles(value)))
            .collect()
    };
    match value {
        Value::Reference(_) => Value::Unsupported,
        Value::Object(pairs) => Value::Object(Arc::new(cut(pairs))),
        Value::StrictArray(values) => Value::array(values.iter().map(cut_cycles)),
        Value::EcmaArray(array) => Value::EcmaArray(Arc::new(EcmaArray {
            pairs: cut(&array.pairs),
            dense: Vec::new(),
        })),
        Value::TypedObject(object) => Value::TypedObject(Arc::new(TypedObject {
            class: object.class.clone(),
            pairs: cut(&object.pairs),
            ..TypedObject::default()
        })),
        Value::Undefined
        | Value::Null
        | Value::Boolean(_)
        | Value::Number(_)
        | Value::Integer(_)
        | Value::String(_)
        | Value::Date { .. }
        | Value::XmlDocument(_)
        | Value::Xml(_)
        | Value::ByteArray(_)
        | Value::Vector(_)
        | Value::Dictionary(_)
        | Value::Unsupported => value.clone(),
    }
}
