//! What must hold for any bytes. The fuzz targets and the replay of their corpora run this.

use bytes::{Bytes, BytesMut};

use crate::error::{Error, Unwritable};
use crate::limits::{Limits, MAX_DEPTH};
use crate::value::{TypedObject, Value, Vector};
use crate::{amf0, amf3, command};

/// What is examined further. References make a few hundred bytes cost whatever the limits
/// allow, and everything below walks the value many times.
const LIMITS: Limits = Limits {
    depth: MAX_DEPTH,
    values: 4096,
    bytes: 1 << 18,
};

/// A message body that may be AMF0.
pub fn amf0(body: &[u8]) {
    if let Some(plain) = command::read_plain(body) {
        let own = amf0::read_all(body);
        let Ok(own) = &own else {
            return assert!(
                own.is_ok(),
                "rml_amf0 read what our reader refuses: {own:?}"
            );
        };
        // Bytes are compared, since a NaN does not equal itself.
        assert_eq!(
            amf0::write_all(&plain),
            amf0::write_all(own),
            "the two readers differ"
        );
    }
    let mut decoder = amf0::Decoder::with_limits(body, LIMITS);
    let mut values = Vec::new();
    while let Ok(Some(value)) = decoder.next_value() {
        values.push(value);
    }
    stable_everywhere(&values);
}

/// A body that may be AMF3.
pub fn amf3(body: &[u8]) {
    let mut decoder = amf3::Decoder::with_limits(body, LIMITS);
    let mut values = Vec::new();
    while let Ok(Some(value)) = decoder.next_value() {
        values.push(value);
    }
    stable_everywhere(&values);
}

/// Values that were read are written in either format, together and one by one.
fn stable_everywhere(values: &[Value]) {
    stable(values, amf0::write_all, amf0::read_all);
    stable(values, amf3::write_all, amf3::read_all);
    for value in values {
        let value = std::slice::from_ref(value);
        stable(value, |values| alone(values, amf0::write), amf0::read_all);
        stable(value, |values| alone(values, amf3::write), amf3::read_all);
    }
}

/// What is written is read back, and written again is the same bytes.
fn stable(
    values: &[Value],
    write: impl Fn(&[Value]) -> Result<Bytes, Error>,
    read: impl Fn(&[u8]) -> Result<Vec<Value>, Error>,
) {
    let bytes = match write(values) {
        Ok(bytes) => bytes,
        Err(error) => return assert!(may_refuse(&error, values), "{error}: {values:?}"),
    };
    let again = read(&bytes);
    let Ok(again) = &again else {
        return assert!(
            again.is_ok(),
            "cannot read what was written: {again:?}: {values:?}"
        );
    };
    assert_eq!(
        again.len(),
        values.len(),
        "values were lost or found: {values:?}"
    );
    assert_eq!(write(again), Ok(bytes), "writing is not stable: {values:?}");
}

fn alone(
    values: &[Value],
    write: fn(&Value, &mut BytesMut) -> Result<(), Error>,
) -> Result<Bytes, Error> {
    let mut out = BytesMut::new();
    values.iter().try_for_each(|value| write(value, &mut out))?;
    Ok(out.freeze())
}

/// Whether a value that was read may be refused by a writer: for what the formats cannot share
/// (long names, empty keys), and for what a cycle costs that passes between them.
fn may_refuse(error: &Error, values: &[Value]) -> bool {
    let Error::Unwritable(why) = error else {
        return false;
    };
    match why {
        Unwritable::NameTooLong(_) | Unwritable::EmptyKey => true,
        Unwritable::Exceeds(_)
        | Unwritable::DanglingReference(_)
        | Unwritable::UnreachableReference(_) => values.iter().any(has_cycle),
        Unwritable::LengthTooLong(_)
        | Unwritable::BadTraits(_)
        | Unwritable::UnknownExternalizable(_)
        | Unwritable::NotPlain => false,
    }
}

fn has_cycle(value: &Value) -> bool {
    let in_pairs = value
        .pairs()
        .is_some_and(|pairs| pairs.iter().any(|(_, v)| has_cycle(v)));
    in_pairs
        || match value {
            Value::Reference(_) => true,
            Value::StrictArray(values) => values.iter().any(has_cycle),
            Value::EcmaArray(array) => array.dense.iter().any(has_cycle),
            Value::TypedObject(object) => {
                let TypedObject { external, .. } = &**object;
                external.as_ref().is_some_and(has_cycle)
            }
            Value::Vector(vector) => match &**vector {
                Vector::Object(_, values, _) => values.iter().any(has_cycle),
                Vector::Int(..) | Vector::Uint(..) | Vector::Double(..) => false,
            },
            Value::Dictionary(dictionary) => dictionary
                .entries
                .iter()
                .any(|(key, value)| has_cycle(key) || has_cycle(value)),
            Value::Undefined
            | Value::Null
            | Value::Boolean(_)
            | Value::Number(_)
            | Value::Integer(_)
            | Value::String(_)
            | Value::Object(_)
            | Value::Date { .. }
            | Value::XmlDocument(_)
            | Value::Xml(_)
            | Value::ByteArray(_)
            | Value::Unsupported => false,
        }
}
