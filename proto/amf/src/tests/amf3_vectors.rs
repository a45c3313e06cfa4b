//! AMF3 by the specification: every marker, and what is said about each.

use std::sync::Arc;

use super::hex;
use crate::error::{Format, Table, Unwritable};
use crate::value::{Dictionary, EcmaArray, TypedObject, Vector};
use crate::{Error, Value, amf3};
use bytes::{Bytes, BytesMut};

/// The bytes are read as the value, and the value is written as the bytes, in either way.
fn same(digits: &str, value: Value) {
    let bytes = hex(digits);
    assert_eq!(
        amf3::read_prefix(&bytes),
        Ok((value.clone(), bytes.len())),
        "reading {digits}"
    );
    let mut out = BytesMut::new();
    amf3::write(&value, &mut out).unwrap();
    assert_eq!(out, bytes, "writing {value:?}");
    assert_eq!(amf3::write_all(&[value]).unwrap(), bytes);
}

fn written(value: &Value) -> Result<Bytes, Error> {
    amf3::write_all(std::slice::from_ref(value))
}

fn typed(class: &str, pairs: &[(&str, Value)], sealed: usize, dynamic: bool) -> Value {
    Value::TypedObject(Arc::new(TypedObject {
        class: class.into(),
        pairs: pairs
            .iter()
            .map(|(key, value)| ((*key).into(), value.clone()))
            .collect(),
        sealed,
        dynamic,
        external: None,
    }))
}

#[test]
fn every_marker_without_elements_is_read_and_written() {
    same("00", Value::Undefined);
    same("01", Value::Null);
    same("02", Value::Boolean(false));
    same("03", Value::Boolean(true));
    same("05 3FF8000000000000", Value::Number(1.5));
    same("06 01", Value::from(""));
    same("06 07 C3A962", Value::from("éb"));
    same("07 09 3C612F3E", Value::XmlDocument("<a/>".into()));
    same(
        "08 01 4074680000000000",
        Value::Date {
            millis: 326.5,
            zone: 0,
        },
    );
    same("0B 09 3C612F3E", Value::Xml("<a/>".into()));
    same(
        "0C 05 00FF",
        Value::ByteArray(Bytes::from_static(&[0, 255])),
    );
}

#[test]
fn integers_take_one_to_four_bytes() {
    // The edges of the table in §1.3.1, and the sign of §3.6.
    same("04 00", Value::Integer(0));
    same("04 7F", Value::Integer(0x7F));
    same("04 8100", Value::Integer(0x80));
    same("04 FF7F", Value::Integer(0x3FFF));
    same("04 818000", Value::Integer(0x4000));
    same("04 FFFF7F", Value::Integer(0x1F_FFFF));
    same("04 80C08000", Value::Integer(0x20_0000));
    same("04 BFFFFFFF", Value::Integer(0x0FFF_FFFF));
    same("04 C0808000", Value::Integer(-0x1000_0000));
    same("04 FFFFFFFF", Value::Integer(-1));
}

#[test]
fn integers_of_more_than_29_bits_become_doubles() {
    assert_eq!(
        written(&Value::Integer(0x1000_0000)).unwrap(),
        hex("05 41B0000000000000")
    );
    assert_eq!(
        written(&Value::Integer(-0x1000_0001)).unwrap(),
        hex("05 C1B0000001000000")
    );
}

#[test]
fn a_number_in_more_bytes_than_it_takes_is_read() {
    assert_eq!(
        amf3::read_all(&hex("04 80808001")),
        Ok(vec![Value::Integer(1)])
    );
}

#[test]
fn arrays_have_a_named_and_a_dense_part() {
    same("09 01 01", Value::array([]));
    same(
        "09 05 01 01 00",
        Value::array([Value::Null, Value::Undefined]),
    );
    same("09 01 03 6B 01 01", Value::ecma_array([("k", Value::Null)]));
    let both = EcmaArray {
        pairs: vec![("k".into(), Value::Null)],
        dense: vec![Value::Null],
    };
    same("09 03 03 6B 01 01 01", Value::EcmaArray(Arc::new(both)));
}

#[test]
fn objects_have_sealed_and_dynamic_members() {
    same("0A 0B 01 01", Value::object([("", Value::Null); 0]));
    same("0A 0B 01 03 61 01 01", Value::object([("a", Value::Null)]));
    same("0A 03 01", typed("", &[], 0, false));
    same(
        "0A 13 01 03 61 01",
        typed("", &[("a", Value::Null)], 1, false),
    );
    same(
        "0A 13 03 43 03 61 01",
        typed("C", &[("a", Value::Null)], 1, false),
    );
    same(
        "0A 1B 03 43 03 61 01 01",
        typed("C", &[("a", Value::Null)], 1, true),
    );
    let members = [("a", Value::Null), ("b", Value::Undefined)];
    same(
        "0A 1B 03 43 03 61 01 03 62 00 01",
        typed("C", &members, 1, true),
    );
    same(
        "0A 13 03 43 01 01",
        typed("C", &[("", Value::Null)], 1, false),
    );
}

#[test]
fn members_of_an_object_from_amf0_are_dynamic() {
    let from_amf0 = typed("C", &[("a", Value::Null)], 0, false);
    assert_eq!(written(&from_amf0).unwrap(), hex("0A 0B 03 43 03 61 01 01"));
}

#[test]
fn vectors_of_all_four_kinds_are_read_and_written() {
    same(
        "0D 05 00 00000001 FFFFFFFF",
        Value::Vector(Arc::new(Vector::Int(vec![1, -1], false))),
    );
    same(
        "0E 03 01 FFFFFFFF",
        Value::Vector(Arc::new(Vector::Uint(vec![u32::MAX], true))),
    );
    same("0F 03 00 3FF8000000000000", {
        Value::Vector(Arc::new(Vector::Double(vec![1.5], false)))
    });
    same("10 05 00 03 2A 01 04 01", {
        let items = vec![Value::Null, Value::Integer(1)];
        Value::Vector(Arc::new(Vector::Object("*".into(), items, false)))
    });
}

#[test]
fn dictionaries_have_values_as_keys() {
    let entries = vec![
        (Value::from("k"), Value::Null),
        (Value::array([]), Value::Integer(1)),
    ];
    same("11 05 01 06 03 6B 01 09 01 01 04 01", {
        Value::Dictionary(Arc::new(Dictionary {
            weak: true,
            entries,
        }))
    });
}

#[test]
fn externalizable_collections_hold_one_value() {
    for class in amf3::SINGLE_VALUE_CLASSES {
        let object = TypedObject {
            class: class.into(),
            external: Some(Value::array([Value::Integer(5)])),
            ..TypedObject::default()
        };
        let mut bytes = hex("0A 07");
        bytes.push(u8::try_from(class.len() << 1 | 1).unwrap());
        bytes.extend(class.as_bytes());
        bytes.extend(hex("09 03 01 04 05"));
        let value = Value::TypedObject(Arc::new(object));
        assert_eq!(amf3::read_all(&bytes), Ok(vec![value.clone()]));
        assert_eq!(written(&value).unwrap(), bytes);
    }
}

#[test]
fn an_unknown_externalizable_class_is_named() {
    let error = amf3::read_all(&hex("01 0A 07 03 58 0102")).unwrap_err();
    assert_eq!(
        error,
        Error::UnknownExternalizable {
            at: 1,
            class: "X".into()
        }
    );
    let object = TypedObject {
        class: "X".into(),
        external: Some(Value::Null),
        ..TypedObject::default()
    };
    let error = written(&Value::TypedObject(Arc::new(object))).unwrap_err();
    assert_eq!(error, Unwritable::UnknownExternalizable("X".into()).into());
}

#[test]
fn equal_strings_are_references_wherever_they_stand() {
    // A key, a value, a class name and a vector's class name share the table.
    let value = Value::array([
        Value::from("a"),
        Value::object([("a", Value::from("a"))]),
        typed("a", &[("a", Value::Null)], 1, false),
        Value::Vector(Arc::new(Vector::Object("a".into(), vec![], false))),
    ]);
    same(
        "09 09 01 06 03 61 0A 0B 01 00 06 00 01 0A 13 00 00 01 10 01 00 00",
        value,
    );
}

#[test]
fn the_empty_string_is_not_in_the_table() {
    let values = vec![Value::from(""), "a".into(), "".into(), "a".into()];
    let bytes = hex("06 01 06 03 61 06 01 06 00");
    assert_eq!(amf3::read_all(&bytes), Ok(values.clone()));
    assert_eq!(amf3::write_all(&values).unwrap(), bytes);
}

#[test]
fn equal_traits_are_references() {
    let point = |x| typed("P", &[("x", Value::Integer(x))], 1, false);
    let values = vec![
        point(1),
        point(2),
        Value::object([("", Value::Null); 0]),
        point(3),
    ];
    let bytes = hex("0A 13 03 50 03 78 04 01 0A 01 04 02 0A 0B 01 01 0A 01 04 03");
    assert_eq!(amf3::read_all(&bytes), Ok(values.clone()));
    assert_eq!(amf3::write_all(&values).unwrap(), bytes);
}

#[test]
fn every_complex_kind_takes_a_place_in_the_object_table() {
    let kinds = [
        "07 01",
        "08 01 0000000000000000",
        "09 01 01",
        "0A 0B 01 01",
        "0B 01",
        "0C 01",
        "0D 01 00",
        "0E 01 00",
        "0F 01 00",
        "10 01 00 01",
        "11 01 00",
    ];
    for (index, kind) in kinds.iter().enumerate() {
        // All kinds, then a reference to this one with its own marker.
        let mut bytes = hex(&kinds.concat());
        bytes.extend([hex(kind)[0], u8::try_from(index << 1).unwrap()]);
        let values = amf3::read_all(&bytes).unwrap();
        assert_eq!(values[kinds.len()], values[index], "a reference to {kind}");
    }
}

#[test]
fn a_repeated_handle_is_a_reference_in_a_message_and_in_full_alone() {
    let shared = Value::array([Value::Integer(1)]);
    let value = Value::array([shared.clone(), shared]);
    assert_eq!(
        written(&value).unwrap(),
        hex("09 05 01 09 03 01 04 01 09 02")
    );
    let mut out = BytesMut::new();
    amf3::write(&value, &mut out).unwrap();
    assert_eq!(out, hex("09 05 01 09 03 01 04 01 09 03 01 04 01"));
}

#[test]
fn a_cycle_counts_containers_and_its_index_counts_dates_too() {
    let date = Value::Date {
        millis: 0.0,
        zone: 0,
    };
    let inner = Value::object([("me", Value::Reference(1))]);
    same(
        "09 05 01 08 01 0000000000000000 0A 0B 01 05 6D65 0A 04 01",
        Value::array([date, inner]),
    );
}

#[test]
fn references_to_nothing_are_refused() {
    let no_such = |at, table, index| Err(Error::NoSuchReference { at, table, index });
    assert_eq!(amf3::read_all(&hex("06 00")), no_such(1, Table::Strings, 0));
    assert_eq!(amf3::read_all(&hex("09 02")), no_such(1, Table::Objects, 1));
    assert_eq!(amf3::read_all(&hex("0A 05")), no_such(0, Table::Traits, 1));
}

#[test]
fn unknown_markers_are_refused() {
    for marker in [0x12, 0xFF] {
        let error = Error::UnknownMarker {
            at: 0,
            format: Format::Amf3,
            marker,
        };
        assert_eq!(amf3::read_all(&[marker]), Err(error));
    }
}

#[test]
fn contradictory_values_are_not_written() {
    let empty_key = Value::object([("", Value::Null)]);
    assert_eq!(written(&empty_key), Err(Unwritable::EmptyKey.into()));
    let too_sealed = typed("C", &[], 1, false);
    assert_eq!(
        written(&too_sealed),
        Err(Unwritable::BadTraits("C".into()).into())
    );
    assert_eq!(
        written(&Value::Reference(0)),
        Err(Unwritable::DanglingReference(0).into())
    );
    assert_eq!(written(&Value::Unsupported).unwrap(), hex("00"));
}
