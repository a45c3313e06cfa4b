//! Round trips of arbitrary values, and agreement with `rml_amf0`.

use std::sync::Arc;

use crate::value::{Dictionary, EcmaArray, TypedObject, Vector};
use crate::{Value, amf0, amf3, command, fuzzing};
use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rml_amf0::Amf0Value;

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 96,
        rng_seed: RngSeed::Fixed(0x5E1A),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn text() -> impl Strategy<Value = Arc<str>> {
    prop_oneof![4 => "[a-c]{1,2}", 2 => "\\PC{1,12}", 1 => "x{120,140}"]
        .prop_map(|text: String| Arc::from(text))
}

fn number() -> impl Strategy<Value = f64> {
    any::<f64>().prop_filter("NaN does not equal itself", |number| !number.is_nan())
}

fn pairs(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Vec<(Arc<str>, Value)>> {
    vec((text(), value), 0..5)
}

/// Kinds that both formats and `rml_amf0` have.
fn plain_leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Undefined),
        Just(Value::Null),
        any::<bool>().prop_map(Value::Boolean),
        number().prop_map(Value::Number),
        prop_oneof![text(), Just(Arc::from(""))].prop_map(Value::String),
    ]
}

/// Distinct keys in an order of their own.
fn plain() -> impl Strategy<Value = Value> {
    plain_leaf().prop_recursive(4, 40, 5, |value| {
        prop_oneof![
            vec(value.clone(), 0..5).prop_map(Value::array),
            pairs(value).prop_map(|mut pairs| {
                let mut seen = std::collections::BTreeSet::new();
                pairs.retain(|(key, _)| seen.insert(key.clone()));
                Value::Object(Arc::new(pairs))
            }),
        ]
    })
}

/// Everything that AMF0 holds without loss, AMF3 parts included.
fn for_amf0() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        4 => plain_leaf(),
        1 => Just(Value::Unsupported),
        1 => (number(), any::<i16>()).prop_map(|(millis, zone)| Value::Date { millis, zone }),
        1 => text().prop_map(Value::XmlDocument),
        1 => vec(any::<u8>(), 0..9).prop_map(|bytes| Value::ByteArray(Bytes::from(bytes))),
        1 => numeric_vector(),
        1 => for_amf3_only(plain_leaf().boxed()),
    ];
    leaf.prop_recursive(5, 60, 6, |value| {
        prop_oneof![
            vec(value.clone(), 0..5).prop_map(Value::array),
            pairs(value.clone()).prop_map(|pairs| Value::Object(Arc::new(pairs))),
            pairs(value.clone()).prop_map(|pairs| {
                Value::EcmaArray(Arc::new(EcmaArray {
                    pairs,
                    dense: Vec::new(),
                }))
            }),
            (text(), pairs(value.clone())).prop_map(|(class, pairs)| {
                let object = TypedObject {
                    class,
                    pairs,
                    ..TypedObject::default()
                };
                Value::TypedObject(Arc::new(object))
            }),
            value.prop_map(|value| Value::object([("", value.clone()), ("", value)])),
        ]
    })
}

fn numeric_vector() -> impl Strategy<Value = Value> {
    prop_oneof![
        (vec(any::<i32>(), 0..4), any::<bool>()).prop_map(|(v, fixed)| Vector::Int(v, fixed)),
        (vec(any::<u32>(), 0..4), any::<bool>()).prop_map(|(v, fixed)| Vector::Uint(v, fixed)),
        (vec(number(), 0..4), any::<bool>()).prop_map(|(v, fixed)| Vector::Double(v, fixed)),
    ]
    .prop_map(|vector| Value::Vector(Arc::new(vector)))
}

/// Containers that AMF0 does not have.
fn for_amf3_only(value: BoxedStrategy<Value>) -> impl Strategy<Value = Value> {
    prop_oneof![
        (pairs(value.clone()), vec(value.clone(), 1..4)).prop_map(|(pairs, dense)| {
            if pairs.is_empty() {
                return Value::array(dense);
            }
            Value::EcmaArray(Arc::new(EcmaArray { pairs, dense }))
        }),
        (text(), pairs(value.clone()), any::<bool>()).prop_map(|(class, pairs, dynamic)| {
            let sealed = if dynamic {
                pairs.len() / 2
            } else {
                pairs.len()
            };
            let dynamic = dynamic || sealed == 0;
            let external = None;
            Value::TypedObject(Arc::new(TypedObject {
                class,
                pairs,
                sealed,
                dynamic,
                external,
            }))
        }),
        value.clone().prop_map(|value| {
            let class = amf3::SINGLE_VALUE_CLASSES[0].into();
            let external = Some(value);
            let object = TypedObject {
                class,
                external,
                ..TypedObject::default()
            };
            Value::TypedObject(Arc::new(object))
        }),
        (text(), vec(value.clone(), 0..4), any::<bool>()).prop_map(|(class, values, fixed)| {
            Value::Vector(Arc::new(Vector::Object(class, values, fixed)))
        }),
        (vec((value.clone(), value), 0..4), any::<bool>()).prop_map(|(entries, weak)| {
            Value::Dictionary(Arc::new(Dictionary { weak, entries }))
        }),
    ]
}

/// Everything that AMF3 holds without loss.
fn for_amf3() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        4 => plain_leaf(),
        2 => (-(1_i32 << 28)..1 << 28).prop_map(Value::Integer),
        1 => number().prop_map(|millis| Value::Date { millis, zone: 0 }),
        1 => text().prop_map(Value::XmlDocument),
        1 => text().prop_map(Value::Xml),
        1 => vec(any::<u8>(), 0..9).prop_map(|bytes| Value::ByteArray(Bytes::from(bytes))),
        1 => numeric_vector(),
    ];
    leaf.prop_recursive(5, 60, 6, |value| {
        prop_oneof![
            vec(value.clone(), 0..5).prop_map(Value::array),
            pairs(value.clone()).prop_map(|pairs| Value::Object(Arc::new(pairs))),
            for_amf3_only(value),
        ]
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn amf0_reads_what_it_writes(values in vec(for_amf0(), 0..4)) {
        let bytes = amf0::write_all(&values).unwrap();
        let again = amf0::read_all(&bytes).unwrap();
        prop_assert_eq!(&again, &values);
        prop_assert_eq!(amf0::write_all(&again).unwrap(), &bytes);
        prop_assert_eq!(command::read(&bytes).unwrap(), values);
        fuzzing::amf0(&bytes);
    }

    #[test]
    fn amf3_reads_what_it_writes(values in vec(for_amf3(), 0..4)) {
        let bytes = amf3::write_all(&values).unwrap();
        let again = amf3::read_all(&bytes).unwrap();
        prop_assert_eq!(&again, &values);
        prop_assert_eq!(amf3::write_all(&again).unwrap(), &bytes);
        fuzzing::amf3(&bytes);
    }

    #[test]
    fn equal_values_have_equal_bytes_however_they_are_shared(value in for_amf0()) {
        let shared = Value::array([value.clone(), value.clone()]);
        let apart = amf0::read_all(&{
            let mut out = BytesMut::new();
            amf0::write(&shared, &mut out).unwrap();
            out
        }).unwrap();
        prop_assert_eq!(&apart[0], &shared);
        let (mut one, mut other) = (BytesMut::new(), BytesMut::new());
        amf0::write(&shared, &mut one).unwrap();
        amf0::write(&apart[0], &mut other).unwrap();
        prop_assert_eq!(one, other);
        // In a message the second handle is a reference, and reads as the same value.
        let message = amf0::write_all(std::slice::from_ref(&shared)).unwrap();
        prop_assert_eq!(amf0::read_all(&message).unwrap(), vec![shared]);
    }

    #[test]
    fn rml_amf0_reads_what_we_write(values in vec(plain(), 0..4)) {
        let bytes = amf0::write_all(&values).unwrap();
        let theirs = rml_amf0::deserialize(&mut &bytes[..]).unwrap();
        let ours: Vec<_> = values.iter().map(|v| Amf0Value::try_from(v).unwrap()).collect();
        prop_assert_eq!(theirs, ours);
        prop_assert_eq!(command::read(&bytes).unwrap(), values);
    }

    #[test]
    fn we_read_what_rml_amf0_writes(values in vec(plain(), 0..4)) {
        let theirs: Vec<_> = values.iter().map(|v| Amf0Value::try_from(v).unwrap()).collect();
        let bytes = rml_amf0::serialize(&theirs).unwrap();
        let read = amf0::read_all(&bytes).unwrap();
        let back: Vec<_> = read.iter().map(|v| Amf0Value::try_from(v).unwrap()).collect();
        prop_assert_eq!(back, theirs);
    }

    #[test]
    fn any_bytes_are_harmless(bytes in vec(any::<u8>(), 0..64)) {
        fuzzing::amf0(&bytes);
        fuzzing::amf3(&bytes);
    }

    #[test]
    fn bytes_that_look_like_markers_are_harmless(
        bytes in vec(prop_oneof![0_u8..0x13, Just(0x13), Just(0x1B), Just(0xFF)], 0..48),
    ) {
        fuzzing::amf0(&bytes);
        fuzzing::amf3(&bytes);
        fuzzing::amf0(&[&[0x11], &bytes[..]].concat());
    }
}
