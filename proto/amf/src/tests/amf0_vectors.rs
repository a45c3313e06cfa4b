//! AMF0 by the specification: every marker, and what is said about each.

use std::sync::Arc;

use super::hex;
use crate::error::{Blame, Format, Table, Unwritable};
use crate::value::{Dictionary, EcmaArray, TypedObject, Vector};
use crate::{Error, Value, amf0};
use bytes::{Bytes, BytesMut};

/// The bytes are read as the value, and the value is written as the bytes, in either way.
fn same(digits: &str, value: Value) {
    let bytes = hex(digits);
    assert_eq!(
        amf0::read_prefix(&bytes),
        Ok((value.clone(), bytes.len())),
        "reading {digits}"
    );
    let mut out = BytesMut::new();
    amf0::write(&value, &mut out).unwrap();
    assert_eq!(out, bytes, "writing {value:?}");
    assert_eq!(amf0::write_all(&[value]).unwrap(), bytes);
}

fn written(value: &Value) -> Result<Bytes, Error> {
    amf0::write_all(std::slice::from_ref(value))
}

#[test]
fn every_marker_without_elements_is_read_and_written() {
    same("00 3FF8000000000000", Value::Number(1.5));
    same("00 8000000000000000", Value::Number(-0.0));
    same("01 00", Value::Boolean(false));
    same("01 01", Value::Boolean(true));
    same("02 0000", Value::from(""));
    same("02 0003 C3A962", Value::from("éb"));
    same("05", Value::Null);
    same("06", Value::Undefined);
    same(
        "0B 4074 6800 0000 0000 FFC4",
        Value::Date {
            millis: 326.5,
            zone: -60,
        },
    );
    same(
        "0B C074 6800 0000 0000 0000",
        Value::Date {
            millis: -326.5,
            zone: 0,
        },
    );
    same("0D", Value::Unsupported);
    same("0F 00000004 3C612F3E", Value::XmlDocument("<a/>".into()));
}

#[test]
fn every_container_is_read_and_written() {
    same("03 000009", Value::object([("", Value::Null); 0]));
    same(
        "03 0001 62 05 0001 61 0100 000009",
        Value::object([("b", Value::Null), ("a", Value::Boolean(false))]),
    );
    same(
        "08 00000000 000009",
        Value::ecma_array([("", Value::Null); 0]),
    );
    same(
        "08 00000001 0001 30 06 000009",
        Value::ecma_array([("0", Value::Undefined)]),
    );
    same("0A 00000000", Value::array([]));
    same(
        "0A 00000002 05 0A 00000000",
        Value::array([Value::Null, Value::array([])]),
    );
    let class = TypedObject {
        class: "C".into(),
        pairs: vec![("x".into(), Value::Boolean(true))],
        ..TypedObject::default()
    };
    same(
        "10 0001 43 0001 78 0101 000009",
        Value::TypedObject(Arc::new(class)),
    );
}

#[test]
fn a_not_a_number_keeps_its_bits() {
    let bytes = hex("00 7FF8000000001234");
    assert_eq!(
        amf0::write_all(&amf0::read_all(&bytes).unwrap()).unwrap(),
        bytes
    );
}

#[test]
fn any_byte_but_zero_is_true() {
    assert_eq!(
        amf0::read_all(&hex("01 02")),
        Ok(vec![Value::Boolean(true)])
    );
}

#[test]
fn an_empty_key_is_a_key_unless_the_end_follows() {
    same("03 0000 05 0001 61 05 0000 05 000009", {
        Value::object([("", Value::Null), ("a", Value::Null), ("", Value::Null)])
    });
}

#[test]
fn keys_appear_twice_and_the_last_counts() {
    let value = Value::object([("a", Value::from(1.0)), ("a", Value::from(2.0))]);
    same(
        "03 0001 61 00 3FF0000000000000 0001 61 00 4000000000000000 000009",
        value.clone(),
    );
    assert_eq!(value.get("a"), Some(&Value::Number(2.0)));
}

#[test]
fn the_count_of_an_ecma_array_decides_nothing() {
    for count in ["00000000", "00000007", "FFFFFFFF"] {
        let bytes = hex(&format!("08 {count} 0001 61 05 000009 05"));
        let array = Value::ecma_array([("a", Value::Null)]);
        assert_eq!(amf0::read_all(&bytes), Ok(vec![array, Value::Null]));
    }
}

#[test]
fn an_ecma_array_at_the_end_of_a_body_may_lack_its_end() {
    let array = Value::ecma_array([("a", Value::Null)]);
    assert_eq!(
        amf0::read_all(&hex("08 00000001 0001 61 05")),
        Ok(vec![array])
    );
    let short = amf0::read_all(&hex("08 00000002 0001 61 05"));
    assert_eq!(short, Err(Error::Truncated { at: 9, wanted: 2 }));
    assert!(
        amf0::read_all(&hex("03 0001 61 05")).is_err(),
        "an object may not"
    );
}

#[test]
fn a_string_becomes_long_with_its_65536th_byte() {
    let text = |len: usize| Value::from("x".repeat(len));
    let short = written(&text(65_535)).unwrap();
    assert_eq!(short[..3], hex("02 FFFF"));
    let long = written(&text(65_536)).unwrap();
    assert_eq!(long[..5], hex("0C 00010000"));
    for (bytes, len) in [(short, 65_535), (long, 65_536)] {
        assert_eq!(amf0::read_all(&bytes), Ok(vec![text(len)]));
    }
    assert_eq!(amf0::read_all(&hex("0C 00000001 61")), Ok(vec!["a".into()]));
}

#[test]
fn a_name_has_at_most_65535_bytes() {
    let named = |len: usize| Value::object([("k".repeat(len), Value::Null)]);
    assert_eq!(
        written(&named(65_535)).map(|bytes| bytes.len()),
        Ok(1 + 2 + 65_535 + 1 + 3)
    );
    let error = written(&named(65_536)).unwrap_err();
    assert_eq!(error, Unwritable::NameTooLong(65_536).into());
    assert_eq!(error.blame(), Blame::Caller);
}

#[test]
fn a_failed_write_leaves_the_buffer_as_it_was() {
    let mut out = BytesMut::from(&b"before"[..]);
    let value = Value::array([Value::Null, Value::Reference(7)]);
    assert_eq!(
        amf0::write(&value, &mut out),
        Err(Unwritable::DanglingReference(7).into())
    );
    assert_eq!(&out[..], b"before");
}

#[test]
fn broken_text_is_read_with_replacement_characters() {
    assert_eq!(
        amf0::read_all(&hex("02 0003 61 FF 62")),
        Ok(vec!["a\u{FFFD}b".into()])
    );
    let object = Value::object([("\u{FFFD}", Value::Null)]);
    assert_eq!(
        amf0::read_all(&hex("03 0001 E9 05 000009")),
        Ok(vec![object])
    );
}

#[test]
fn a_reference_is_another_handle_of_the_same_container() {
    // Index 0 is the first object, 1 the array, 2 the object inside it.
    let bytes = hex("03 000009 0A 00000002 03 000009 070000 070002 070001");
    let values = amf0::read_all(&bytes).unwrap();
    let handle = |value: &Value| {
        if let Value::Object(pairs) = value {
            Arc::as_ptr(pairs).addr()
        } else if let Value::StrictArray(values) = value {
            Arc::as_ptr(values).addr()
        } else {
            panic!("{value:?}")
        }
    };
    let Value::StrictArray(elements) = &values[1] else {
        panic!("{values:?}")
    };
    assert_eq!(handle(&elements[1]), handle(&values[0]));
    assert_eq!(handle(&values[2]), handle(&elements[0]));
    assert_eq!(handle(&values[3]), handle(&values[1]));
    assert_eq!(
        amf0::write_all(&values).unwrap(),
        bytes,
        "handles are references again"
    );

    let mut alone = BytesMut::new();
    amf0::write(&values[1], &mut alone).unwrap();
    assert_eq!(
        alone,
        hex("0A 00000002 03 000009 03 000009"),
        "alone it stands in full"
    );
}

#[test]
fn a_reference_to_an_open_container_is_a_cycle() {
    let cycle = Value::object([("me", Value::Reference(0))]);
    same("03 0002 6D65 070000 000009", cycle.clone());
    // Behind another container the index on the wire differs, the value does not.
    let bytes = hex("0A 00000000 03 0002 6D65 070001 000009");
    let values = vec![Value::array([]), cycle];
    assert_eq!(amf0::read_all(&bytes), Ok(values.clone()));
    assert_eq!(amf0::write_all(&values).unwrap(), bytes);
}

#[test]
fn a_repeated_container_takes_its_cycles_along() {
    let inner = Value::object([("me", Value::Reference(1)), ("top", Value::Reference(0))]);
    let value = Value::array([inner.clone(), inner]);
    let mut out = BytesMut::new();
    amf0::write(&value, &mut out).unwrap();
    let copy = |index: u8| format!("03 0002 6D65 0700{index:02} 0003 746F70 070000 000009");
    assert_eq!(out, hex(&format!("0A 00000002 {} {}", copy(1), copy(2))));
}

#[test]
fn a_reference_to_nothing_is_the_peers_mistake() {
    let error = amf0::read_all(&hex("03 000009 070001")).unwrap_err();
    assert_eq!(
        error,
        Error::NoSuchReference {
            at: 4,
            table: Table::Objects,
            index: 1
        }
    );
    assert_eq!(error.blame(), Blame::Peer);
}

#[test]
fn reserved_and_unknown_markers_are_refused() {
    for marker in [0x04, 0x0E, 0x12, 0xFF] {
        let error = Error::UnknownMarker {
            at: 1,
            format: Format::Amf0,
            marker,
        };
        assert_eq!(amf0::read_all(&[0x05, marker]), Err(error));
    }
    assert_eq!(
        amf0::read_all(&[0x05, 0x09]),
        Err(Error::StrayObjectEnd { at: 1 })
    );
    assert_eq!(
        amf0::read_all(&hex("03 0001 61 09")),
        Err(Error::StrayObjectEnd { at: 4 }),
        "an end under a name ends nothing"
    );
}

#[test]
fn an_error_comes_again() {
    let mut decoder = amf0::Decoder::new(&[0x05, 0x04, 0x05]);
    assert_eq!(decoder.next_value(), Ok(Some(Value::Null)));
    let error = decoder.next_value().unwrap_err();
    assert_eq!(decoder.next_value(), Err(error));
}

#[test]
fn the_switch_to_amf3_begins_with_empty_tables() {
    let bytes = hex("11 06 03 61 11 06 03 61");
    assert_eq!(amf0::read_all(&bytes), Ok(vec!["a".into(), "a".into()]));
    let error = amf0::read_all(&hex("11 06 03 61 11 06 00")).unwrap_err();
    assert_eq!(
        error,
        Error::NoSuchReference {
            at: 6,
            table: Table::Strings,
            index: 0
        }
    );
    // AMF0 references do not count what is inside.
    let bytes = hex("11 0A 0B 01 01 070000");
    let error = amf0::read_all(&bytes).unwrap_err();
    assert_eq!(
        error,
        Error::NoSuchReference {
            at: 5,
            table: Table::Objects,
            index: 0
        }
    );
}

#[test]
fn kinds_of_amf3_alone_are_switched() {
    same(
        "11 0C 05 0102",
        Value::ByteArray(Bytes::from_static(&[1, 2])),
    );
    same(
        "11 0D 03 01 FFFFFFFF",
        Value::Vector(Arc::new(Vector::Int(vec![-1], true))),
    );
    same(
        "11 11 01 00",
        Value::Dictionary(Arc::new(Dictionary::default())),
    );
    let array = EcmaArray {
        pairs: vec![("k".into(), Value::Null)],
        dense: vec![Value::Null],
    };
    same("11 09 03 03 6B 01 01 01", Value::EcmaArray(Arc::new(array)));
    let sealed = TypedObject {
        class: "C".into(),
        pairs: vec![("x".into(), Value::Boolean(true))],
        sealed: 1,
        ..TypedObject::default()
    };
    same(
        "11 0A 13 03 43 03 78 03",
        Value::TypedObject(Arc::new(sealed)),
    );
    same(
        "03 0001 62 11 0C 01 000009",
        Value::object([("b", Value::ByteArray(Bytes::new()))]),
    );
}

#[test]
fn integers_and_xml_have_no_kind_of_their_own() {
    assert_eq!(
        written(&Value::Integer(-2)).unwrap(),
        hex("00 C000000000000000")
    );
    assert_eq!(
        written(&Value::Xml("<a/>".into())).unwrap(),
        hex("0F 00000004 3C612F3E")
    );
}

#[test]
fn a_container_that_amf3_refers_back_to_is_amf3_too() {
    let to = |ordinal| {
        let entries = vec![(Value::from("up"), Value::Reference(ordinal))];
        Value::Dictionary(Arc::new(Dictionary {
            weak: false,
            entries,
        }))
    };
    same(
        "11 0A 0B 01 03 64 11 03 00 06 05 7570 0A 00 01",
        Value::object([("d", to(0))]),
    );
    // The array around it stays what it is, and keeps counting behind it.
    same(
        "0A 00000002 11 0A 0B 01 03 64 11 03 00 06 05 7570 0A 00 01
         03 0002 6D65 070001 000009",
        Value::array([
            Value::object([("d", to(1))]),
            Value::object([("me", Value::Reference(3))]),
        ]),
    );
    // With an AMF3 part between two containers, both are switched.
    same(
        "11 09 03 01 0A 0B 01 03 64 11 03 00 06 05 7570 0A 00 01",
        Value::array([Value::object([("d", to(0))])]),
    );
}
