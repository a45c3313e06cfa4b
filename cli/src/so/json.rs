//! AMF values as JSON, and back.

use amf::Value;
use serde_json::{Map, Number, Value as Json, json};

/// Reads a value as it is typed.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map(to_amf).map_err(|error| {
        format!("'{text}' is not JSON ({error}); a text needs quotes: '\"{text}\"'")
    })
}

fn to_amf(json: Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(bool) => bool.into(),
        Json::Number(number) => number.as_f64().unwrap_or(f64::NAN).into(),
        Json::String(text) => text.into(),
        Json::Array(values) => Value::array(values.into_iter().map(to_amf)),
        Json::Object(pairs) => Value::object(pairs.into_iter().map(|(k, v)| (k, to_amf(v)))),
    }
}

/// A value as it is printed. What JSON does not have is an object whose key says what it is.
pub(crate) fn show(value: &Value) -> Json {
    match value {
        Value::Undefined | Value::Null | Value::Unsupported => Json::Null,
        Value::Boolean(bool) => Json::Bool(*bool),
        Value::Number(number) => show_number(*number),
        Value::Integer(number) => Json::from(*number),
        Value::String(text) => Json::from(text.as_ref()),
        Value::XmlDocument(text) | Value::Xml(text) => json!({ "$xml": text.as_ref() }),
        Value::Object(pairs) => show_pairs(pairs.iter().map(|(k, v)| (k.as_ref(), v))),
        Value::EcmaArray(array) => {
            let pairs = array.pairs.iter().map(|(k, v)| (k.as_ref(), v));
            let mut shown = show_pairs(pairs);
            if let Json::Object(shown) = &mut shown {
                let dense = array.dense.iter().enumerate();
                shown.extend(dense.map(|(index, value)| (index.to_string(), show(value))));
            }
            shown
        }
        Value::StrictArray(values) => values.iter().map(show).collect(),
        Value::Date { millis, .. } => json!({ "$date": show_number(*millis) }),
        Value::TypedObject(object) => {
            let pairs = object.pairs.iter().map(|(k, v)| (k.as_ref(), v));
            let mut shown = show_pairs(pairs);
            if let Json::Object(shown) = &mut shown {
                shown.insert("$class".to_owned(), object.class.as_ref().into());
                if let Some(body) = &object.external {
                    shown.insert("$external".to_owned(), show(body));
                }
            }
            shown
        }
        Value::ByteArray(bytes) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({ "$bytes": hex })
        }
        Value::Vector(vector) => match vector.as_ref() {
            amf::value::Vector::Int(values, _) => Json::from(values.clone()),
            amf::value::Vector::Uint(values, _) => Json::from(values.clone()),
            amf::value::Vector::Double(values, _) => {
                values.iter().map(|n| show_number(*n)).collect()
            }
            amf::value::Vector::Object(_, values, _) => values.iter().map(show).collect(),
        },
        Value::Dictionary(dictionary) => {
            let entries = dictionary.entries.iter();
            let entries: Json = entries.map(|(k, v)| json!([show(k), show(v)])).collect();
            json!({ "$dictionary": entries })
        }
        Value::Reference(number) => json!({ "$reference": number }),
    }
}

fn show_pairs<'a>(pairs: impl Iterator<Item = (&'a str, &'a Value)>) -> Json {
    Json::Object(Map::from_iter(
        pairs.map(|(key, value)| (key.to_owned(), show(value))),
    ))
}

/// Whole numbers are shown as such.
fn show_number(number: f64) -> Json {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= EXACT {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "it is whole and within 2^53"
        )]
        return Json::from(number as i64);
    }
    Number::from_f64(number).map_or_else(|| json!({ "$number": number.to_string() }), Json::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_what_is_shown() {
        for text in [
            "1",
            "-0.5",
            "true",
            "\"a\"",
            "[1,\"b\"]",
            "{\"k\":{\"l\":null}}",
        ] {
            assert_eq!(show(&parse(text).unwrap()).to_string(), text);
        }
        let error = parse("amy").unwrap_err();
        assert!(error.contains("'\"amy\"'"), "{error}");
    }

    #[test]
    fn what_json_does_not_have_says_what_it_is() {
        let date = Value::Date {
            millis: 5.0,
            zone: 0,
        };
        assert_eq!(show(&date).to_string(), "{\"$date\":5}");
        assert_eq!(show(&f64::NAN.into()).to_string(), "{\"$number\":\"NaN\"}");
        let bytes = Value::ByteArray(vec![1, 255].into());
        assert_eq!(show(&bytes).to_string(), "{\"$bytes\":\"01ff\"}");
    }
}
