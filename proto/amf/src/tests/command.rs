//! The place of `rml_amf0`: what it reads, what it is kept from.

use std::collections::HashMap;

use super::hex;
use crate::error::Unwritable;
use crate::{Error, Value, amf0, command};
use rml_amf0::Amf0Value;

#[test]
fn a_connect_command_keeps_the_order_of_its_keys() {
    let object = Value::object([
        ("tcUrl", Value::from("rtmp://host/live")),
        ("app", Value::from("live")),
        ("fpad", Value::from(false)),
        (
            "nested",
            Value::object([("z", Value::Null), ("a", Value::Undefined)]),
        ),
        (
            "list",
            Value::array([Value::object([("q", Value::from(1.0)), ("b", Value::Null)])]),
        ),
        ("capabilities", Value::from(239.0)),
    ]);
    let values = vec![Value::from("connect"), Value::from(1.0), object];
    let body = amf0::write_all(&values).unwrap();
    assert!(rml_amf0::deserialize(&mut &body[..]).is_ok());
    assert_eq!(command::read(&body), Ok(values));
}

#[test]
fn what_rml_amf0_reads_wrongly_is_read_rightly() {
    for (what, digits) in [
        ("a boolean of 2", "01 02"),
        ("a truncated string", "02 000A 6162"),
        ("a stray object end", "05 09 05"),
        ("a short strict array", "0A 00000002 05 09"),
        ("a repeated key", "03 0001 61 05 0001 61 06 000009"),
        (
            "a repeated key with objects",
            "03 0001 61 03 0001 62 05 000009 0001 61 05 000009",
        ),
        ("an ECMA array", "08 00000001 0001 61 05 000009"),
        ("an empty key", "03 0000 05 000009"),
        ("a reference", "03 000009 070000"),
        ("a date", "0B 0000000000000000 0000"),
        ("a long string", "0C 00000001 61"),
        ("broken text", "02 0001 FF"),
        ("AMF3", "11 04 01"),
    ] {
        let body = hex(digits);
        assert_eq!(command::read(&body), amf0::read_all(&body), "{what}");
    }
}

#[test]
fn nesting_beyond_the_plain_depth_is_read_all_the_same() {
    for depth in [1, 31, 32, 33, 64, 65] {
        let body = [hex("0A 00000001").repeat(depth), hex("05")].concat();
        assert_eq!(command::read(&body), amf0::read_all(&body));
        assert_eq!(command::read(&body).is_ok(), depth <= 64);
    }
}

#[test]
fn values_convert_to_those_of_rml_amf0_and_back() {
    let value = Value::object([
        ("b", Value::array([Value::Null, Value::Undefined])),
        ("a", Value::from("text")),
        ("c", Value::Integer(3)),
    ]);
    let theirs = Amf0Value::try_from(&value).unwrap();
    let expected = HashMap::from([
        ("a".to_owned(), Amf0Value::Utf8String("text".into())),
        (
            "b".to_owned(),
            Amf0Value::StrictArray(vec![Amf0Value::Null, Amf0Value::Undefined]),
        ),
        ("c".to_owned(), Amf0Value::Number(3.0)),
    ]);
    assert_eq!(theirs, Amf0Value::Object(expected));
    let back = Value::object([
        ("a", Value::from("text")),
        ("b", Value::array([Value::Null, Value::Undefined])),
        ("c", Value::Number(3.0)),
    ]);
    assert_eq!(Value::from(theirs), back, "in the order of the keys");
}

#[test]
fn what_rml_amf0_cannot_hold_is_not_converted() {
    for value in [
        Value::Unsupported,
        Value::ecma_array([("a", Value::Null)]),
        Value::Date {
            millis: 0.0,
            zone: 0,
        },
        Value::object([("a", Value::Null), ("a", Value::Null)]),
        Value::object([("", Value::Null)]),
        Value::object([("k".repeat(70_000), Value::Null)]),
        Value::from("x".repeat(70_000)),
    ] {
        let error: Error = Amf0Value::try_from(&value).unwrap_err();
        assert_eq!(error, Unwritable::NotPlain.into());
    }
}
