//! The bytes of shared-object messages, both ways: worked examples, and any message.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a broken example is to end the test at once"
)]

use amf::Value;
use bytes::Bytes;
use model::object::{ObjectEvent, ObjectStatus, ObjectUpdate};
use model::{ObjectKind, ObjectName, SlotName, SlotValue, Version};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use selvage_session::ObjectEncoding::{self, Amf0, Amf3};
use selvage_session::object::wire::{Bounds, Error, ObjectMessage, WireEvent};
use selvage_session::object::{body, encode_value, from_message, status};

fn unhex(text: &str) -> Bytes {
    let digits: Vec<u8> = text
        .bytes()
        .filter(u8::is_ascii_hexdigit)
        .map(|c| u8::try_from(char::from(c).to_digit(16).unwrap()).unwrap())
        .collect();
    let (pairs, rest) = digits.as_chunks::<2>();
    assert!(rest.is_empty(), "half a byte in {text}");
    pairs.iter().map(|[high, low]| high << 4 | low).collect()
}

fn slot(name: &str) -> SlotName {
    SlotName::new(name).unwrap()
}

fn value(value: impl Into<Value>) -> SlotValue {
    encode_value(&value.into()).unwrap()
}

fn chat(version: u32, kind: ObjectKind, events: Vec<WireEvent>) -> ObjectMessage {
    let mut message = ObjectMessage::new("chat", kind, version);
    message.events = events;
    message
}

fn set(name: &str, to: impl Into<Value>) -> WireEvent {
    WireEvent::RequestChange {
        slot: slot(name),
        value: value(to),
    }
}

fn change(name: &str, to: impl Into<Value>) -> WireEvent {
    WireEvent::Change {
        slot: slot(name),
        value: value(to),
    }
}

/// Its bytes, and the message that they are, each made of the other.
#[track_caller]
fn example(hex: &str, len: usize, encoding: ObjectEncoding, message: &ObjectMessage) {
    let bytes = unhex(hex);
    assert_eq!(bytes.len(), len, "the example itself");
    let read = ObjectMessage::decode(&bytes, encoding, Bounds::ASKS);
    assert_eq!(read.as_ref(), Ok(message));
    assert_eq!(message.encode(encoding), bytes);
    // What a subscriber is told has the same bytes when it is drawn as an update.
    let update = from_message(message).unwrap();
    if update.events.len() == message.events.len() {
        assert_eq!(body(&update, encoding), bytes);
    }
}

use ObjectKind::{Persistent, Temporary};

#[test]
fn use_with_nothing_known() {
    let hex = "0004 63686174 00000000 00000000 00000000 01 00000000";
    example(hex, 23, Amf0, &chat(0, Temporary, vec![WireEvent::Use]));
}

#[test]
fn the_answer_to_use_is_everything_in_one_message() {
    let hex = "0004 63686174 00000007 00000000 00000000 0b 00000000 08 00000000 \
        04 00000010 0005 636f756e74 00 4008000000000000 04 0000000b 0003 77686f 02 0003 616d79";
    let events = vec![
        WireEvent::UseSuccess,
        WireEvent::Clear,
        change("count", 3.0),
        change("who", "amy"),
    ];
    example(hex, 65, Amf0, &chat(7, Temporary, events));
}

#[test]
fn a_batch_of_two_and_its_answers() {
    let hex = "0004 63686174 00000007 00000000 00000000 \
        03 00000010 0005 636f756e74 00 4014000000000000 03 0000000b 0003 77686f 02 0003 626f62";
    let asked = vec![set("count", 5.0), set("who", "bob")];
    example(hex, 55, Amf0, &chat(7, Temporary, asked));

    let success = |name| WireEvent::Success { slot: slot(name) };
    let hex = "0004 63686174 00000008 00000000 00000000 \
        05 00000007 0005 636f756e74 05 00000005 0003 77686f";
    let accepted = vec![success("count"), success("who")];
    example(hex, 40, Amf0, &chat(8, Temporary, accepted));

    let hex = "0004 63686174 00000008 00000000 00000000 \
        04 00000010 0005 636f756e74 00 4014000000000000 04 0000000b 0003 77686f 02 0003 626f62";
    let others = vec![change("count", 5.0), change("who", "bob")];
    example(hex, 55, Amf0, &chat(8, Temporary, others));

    let hex = "0004 63686174 00000009 00000000 00000000 \
        05 00000005 0003 77686f 04 00000010 0005 636f756e74 00 4018000000000000";
    let refused = vec![success("who"), change("count", 6.0)];
    example(hex, 49, Amf0, &chat(9, Temporary, refused));
}

#[test]
fn a_slot_is_taken_away() {
    let hex = "0004 63686174 00000009 00000000 00000000 0a 00000005 0003 77686f";
    let asked = vec![WireEvent::RequestRemove { slot: slot("who") }];
    example(hex, 28, Amf0, &chat(9, Temporary, asked));
    let hex = "0004 63686174 0000000a 00000000 00000000 09 00000005 0003 77686f";
    let told = vec![WireEvent::Remove { slot: slot("who") }];
    example(hex, 28, Amf0, &chat(10, Temporary, told));
}

#[test]
fn a_message_to_all() {
    let hex = "0004 63686174 00000000 00000000 00000000 \
        06 00000010 02 0005 6f6e4d7367 02 0005 68656c6c6f";
    let payload = amf::amf0::write_all(&["onMsg".into(), "hello".into()]).unwrap();
    example(
        hex,
        39,
        Amf0,
        &chat(0, Temporary, vec![WireEvent::Send(payload)]),
    );
}

#[test]
fn a_status() {
    let hex = "0004 63686174 00000000 00000000 00000000 \
        07 00000024 001b 5368617265644f626a6563742e426164506572736973 74656e6365 0005 6572726f72";
    let events = vec![WireEvent::Status {
        code: status::code(ObjectStatus::BadPersistence).into(),
        level: status::LEVEL.into(),
    }];
    example(hex, 59, Amf0, &chat(0, Temporary, events));
}

#[test]
fn a_value_of_amf3() {
    let hex = "00 0004 63686174 00000007 00000000 00000000 03 0000000a 0005 636f756e74 11 04 05";
    let events = vec![WireEvent::RequestChange {
        slot: slot("count"),
        value: SlotValue(Bytes::from_static(&[0x11, 4, 5])),
    }];
    example(hex, 34, Amf3, &chat(7, Temporary, events));
}

#[test]
fn a_persistent_object_is_resumed() {
    let hex = "0004 63686174 0000002a 00000002 00000000 01 00000000";
    example(hex, 23, Amf0, &chat(42, Persistent, vec![WireEvent::Use]));
    let hex = "0004 63686174 0000002d 00000002 00000000 0b 00000000 \
        09 00000005 0003 77686f 04 00000010 0005 636f756e74 00 4020000000000000";
    let told = vec![
        WireEvent::UseSuccess,
        WireEvent::Remove { slot: slot("who") },
        change("count", 8.0),
    ];
    example(hex, 54, Amf0, &chat(45, Persistent, told));
}

#[test]
fn what_only_servers_say_to_each_other_is_understood() {
    let hex = "0004 63686174 00000001 00000010 00000000 \
        04 0000000c 0001 61 00 3ff0000000000000 0c 00000007 0001 61 00000001 \
        0d 0000000c 0001 61 00 3ff0000000000000 0e 00000000";
    let mut message = chat(
        1,
        Temporary,
        vec![
            change("a", 1.0),
            WireEvent::SlotNumber {
                slot: slot("a"),
                number: 1,
            },
            WireEvent::ChangeEcho {
                slot: slot("a"),
                value: value(1.0),
            },
            WireEvent::RequestClear,
        ],
    );
    message.flags = 0x10;
    example(hex, 69, Amf0, &message);
    // The bit of servers is not told to players.
    let update = from_message(&message).unwrap();
    let told = ObjectMessage::decode(&body(&update, Amf0), Amf0, Bounds::UPDATES);
    assert_eq!(told.unwrap().flags, 0);
}

#[test]
fn an_event_may_hold_several_names_or_pairs() {
    let header = "0001 61 00000001 00000000 00000000";
    let hex = format!(
        "{header} 05 00000006 0001 78 0001 79 09 00000006 0001 78 0001 79 \
         0a 00000006 0001 78 0001 79 03 00000008 0001 78 05 0001 79 06 \
         0b 00000008 0001 78 05 0001 79 06"
    );
    let read = ObjectMessage::decode(&unhex(&hex), Amf0, Bounds::ASKS).unwrap();
    let (x, y) = (slot("x"), slot("y"));
    let expected = [
        WireEvent::Success { slot: x.clone() },
        WireEvent::Success { slot: y.clone() },
        WireEvent::Remove { slot: x.clone() },
        WireEvent::Remove { slot: y.clone() },
        WireEvent::RequestRemove { slot: x },
        WireEvent::RequestRemove { slot: y },
        set("x", Value::Null),
        set("y", Value::Undefined),
        WireEvent::UseSuccess,
        change("x", Value::Null),
        change("y", Value::Undefined),
    ];
    assert_eq!(read.events, expected);
}

#[test]
fn a_value_is_a_slice_of_the_message() {
    let bytes = chat(1, Temporary, vec![set("text", "a long text")]).encode(Amf0);
    let read = ObjectMessage::decode(&bytes, Amf0, Bounds::ASKS).unwrap();
    let WireEvent::RequestChange { value, .. } = &read.events[0] else {
        panic!("{read:?}");
    };
    assert!(bytes.as_ptr_range().contains(&value.0.as_ptr()));
}

#[test]
fn a_value_that_only_the_events_end_ends_is_written_with_an_end() {
    // An ECMA array of one pair without its end marker; the same inside of a strict array.
    let open = "08 00000001 0001 78 05";
    let header = "0001 61 00000001 00000000 00000000";
    for (open, len) in [(open.to_owned(), 9), (format!("0a 00000001 {open}"), 14)] {
        let hex = format!("{header} 03 000000{:02x} 0001 78 {open}", len + 3);
        let read = ObjectMessage::decode(&unhex(&hex), Amf0, Bounds::ASKS).unwrap();
        let closed = unhex(&format!("{open} 0000 09"));
        let expected = WireEvent::RequestChange {
            slot: slot("x"),
            value: SlotValue(closed),
        };
        assert_eq!(read.events, [expected]);
    }
}

#[test]
fn values_do_not_share_references() {
    // {p: {}} and then a reference to the second container there is: in the same value it
    // is one, in a value of its own it is none.
    let header = "0001 61 00000001 00000000 00000000";
    let object = "03 0001 70 03 000009 0001 71 07 0001 000009";
    let hex = format!("{header} 03 00000014 0001 78 {object} 03 00000006 0001 79 07 0001");
    let read = ObjectMessage::decode(&unhex(&hex), Amf0, Bounds::ASKS).unwrap();
    let expected = [
        WireEvent::RequestChange {
            slot: slot("x"),
            value: SlotValue(unhex(object)),
        },
        WireEvent::Unreadable {
            event: 3,
            slot: slot("y"),
        },
    ];
    assert_eq!(read.events, expected);
}

#[test]
fn values_are_bounded_in_size_and_depth() {
    let of = |value: &Value| {
        let bytes = chat(1, Temporary, vec![set("x", value.clone())]).encode(Amf0);
        let read = ObjectMessage::decode(&bytes, Amf0, Bounds::ASKS).unwrap();
        !matches!(read.events[..], [WireEvent::Unreadable { .. }])
    };
    let nested = |depth| (0..depth).fold(Value::Null, |inner, _| Value::array([inner]));
    assert!(of(&nested(32)) && !of(&nested(33)));
    // Marker, length of 32 bits.
    assert!(of(&"x".repeat(60_000).into()) && !of(&"x".repeat(65_536).into()));
    let many = |count| Value::array((0..count).map(|_| Value::Null));
    assert!(of(&many(16_000)) && !of(&many(16_400)));
}

#[test]
fn bodies_are_bounded() {
    let bytes = chat(1, Temporary, vec![WireEvent::Use; 3]).encode(Amf0);
    let of = |bytes_max, events_max| {
        let bounds = Bounds {
            bytes: bytes_max,
            events: events_max,
        };
        ObjectMessage::decode(&bytes, Amf0, bounds).map(|message| message.events.len())
    };
    let len = bytes.len();
    assert_eq!(of(len, 3), Ok(3));
    assert_eq!(of(len, 2), Err(Error::TooManyEvents));
    assert_eq!(of(len - 1, 3), Err(Error::TooLong { len }));

    let long = ObjectMessage::new(&"n".repeat(1025), Temporary, 0).encode(Amf0);
    let read = ObjectMessage::decode(&long, Amf0, Bounds::ASKS);
    assert_eq!(read, Err(Error::NameTooLong { len: 1025 }));
    let name = "73".repeat(1025);
    let hex = format!("0001 61 00000001 00000000 00000000 05 00000403 0401 {name}");
    let read = ObjectMessage::decode(&unhex(&hex), Amf0, Bounds::ASKS);
    assert_eq!(read, Err(Error::SlotTooLong { len: 1025 }));
}

#[test]
fn every_beginning_of_a_body_is_refused_or_is_shorter() {
    let whole = chat(7, Temporary, vec![WireEvent::Use, set("a", 1.0)]).encode(Amf3);
    for len in 0..whole.len() {
        match ObjectMessage::decode(&whole.slice(..len), Amf3, Bounds::ASKS) {
            Ok(read) => assert!(read.events.len() < 2, "{len} bytes"),
            Err(error) => assert_eq!(error, Error::Truncated, "{len} bytes"),
        }
    }
}

#[test]
fn a_client_of_amf0_gets_everything_that_amf0_can_say() {
    let amf3 = |value: &Value| {
        let mut bytes = vec![0x11];
        bytes.extend_from_slice(&amf::amf3::write_all(std::slice::from_ref(value)).unwrap());
        SlotValue(bytes.into())
    };
    let told = |value: SlotValue| {
        let update = ObjectUpdate {
            name: ObjectName::new("chat").unwrap(),
            kind: Temporary,
            version: Version(1),
            events: vec![ObjectEvent::Change {
                slot: slot("x"),
                value,
            }],
        };
        let message = ObjectMessage::decode(&body(&update, Amf0), Amf0, Bounds::UPDATES).unwrap();
        let WireEvent::Change { value, .. } = &message.events[0] else {
            panic!("{message:?}");
        };
        let (read, len) = amf::amf0::read_prefix(&value.0).unwrap();
        assert_eq!(len, value.0.len());
        assert!(!value.0.contains(&0x11), "{value:?}");
        read
    };
    let object = Value::object([("a", Value::Integer(5)), ("b", "text".into())]);
    let expected = Value::object([("a", Value::Number(5.0)), ("b", "text".into())]);
    assert_eq!(told(amf3(&object)), expected);
    // Inside of AMF0 as well.
    let mixed = Value::array([Value::ByteArray(Bytes::from_static(b"x")), 1.0.into()]);
    let expected = Value::array([Value::Unsupported, 1.0.into()]);
    assert_eq!(told(value(mixed)), expected);
    let vector = Value::Vector(std::sync::Arc::new(amf::value::Vector::Int(
        vec![1, -2],
        false,
    )));
    assert_eq!(
        told(value(vector)),
        Value::array([1.0.into(), Value::Number(-2.0)])
    );
    let dictionary = amf::value::Dictionary {
        weak: false,
        entries: vec![
            ("k".into(), Value::Integer(1)),
            (Value::Integer(2), true.into()),
            (Value::object::<&str>([]), 3.0.into()),
        ],
    };
    assert_eq!(
        told(value(Value::Dictionary(std::sync::Arc::new(dictionary)))),
        Value::object([("k", Value::Number(1.0)), ("2", true.into())])
    );
    // A cycle: {self: itself, data: bytes}. The words of AMF0 for what it cannot say.
    let cycle = Value::object([
        ("me", Value::Reference(0)),
        ("data", Value::ByteArray(Bytes::from_static(b"x"))),
    ]);
    let expected = Value::object([("me", Value::Unsupported), ("data", Value::Unsupported)]);
    assert_eq!(told(amf3(&cycle)), expected);
    // A byte that looks like the marker is no harm.
    assert_eq!(told(value("a\n")), "a\n".into());
}

fn runner(cases: u32) -> TestRunner {
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[19; 32]);
    TestRunner::new_with_rng(config, rng)
}

fn any_value() -> impl Strategy<Value = SlotValue> {
    let leaf = prop_oneof![
        Just(Value::Null),
        Just(Value::Undefined),
        any::<f64>().prop_map(Value::Number),
        any::<bool>().prop_map(Value::Boolean),
        ".{0,20}".prop_map(Value::from),
        vec(any::<u8>(), 0..9).prop_map(|bytes| Value::ByteArray(bytes.into())),
    ];
    let tree = leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::array),
            vec((".{0,5}", inner.clone()), 0..4).prop_map(Value::object),
            vec((".{0,5}", inner), 0..4).prop_map(Value::ecma_array),
        ]
    });
    tree.prop_map(value)
}

fn any_event() -> impl Strategy<Value = WireEvent> {
    let name = || ".{0,12}".prop_map(|name: String| slot(&name));
    let text = || ".{0,20}".prop_map(|text: String| std::sync::Arc::from(text));
    let pair = move || (name(), any_value());
    prop_oneof![
        Just(WireEvent::Use),
        Just(WireEvent::Release),
        pair().prop_map(|(slot, value)| WireEvent::RequestChange { slot, value }),
        pair().prop_map(|(slot, value)| WireEvent::Change { slot, value }),
        name().prop_map(|slot| WireEvent::Success { slot }),
        vec(any::<u8>(), 0..30).prop_map(|bytes| WireEvent::Send(bytes.into())),
        (text(), text()).prop_map(|(code, level)| WireEvent::Status { code, level }),
        Just(WireEvent::Clear),
        name().prop_map(|slot| WireEvent::Remove { slot }),
        name().prop_map(|slot| WireEvent::RequestRemove { slot }),
        Just(WireEvent::UseSuccess),
        (name(), any::<u32>()).prop_map(|(slot, number)| WireEvent::SlotNumber { slot, number }),
        pair().prop_map(|(slot, value)| WireEvent::ChangeEcho { slot, value }),
        Just(WireEvent::RequestClear),
    ]
}

#[test]
fn whatever_is_written_is_read() {
    let messages = (
        ".{0,20}",
        any::<u32>(),
        any::<u32>(),
        vec(any_event(), 0..8),
    );
    let any = (messages, any::<bool>());
    runner(400)
        .run(&any, |((name, version, flags, events), amf3)| {
            let message = ObjectMessage {
                name: name.as_str().into(),
                version,
                flags,
                events,
            };
            let encoding = if amf3 { Amf3 } else { Amf0 };
            let bytes = message.encode(encoding);
            let read = ObjectMessage::decode(&bytes, encoding, Bounds::ASKS);
            prop_assert_eq!(read, Ok(message));
            Ok(())
        })
        .unwrap();
}

#[test]
fn whatever_is_told_to_a_client_of_amf0_has_no_amf3() {
    runner(300)
        .run(&any_value(), |value| {
            let update = ObjectUpdate {
                name: ObjectName::new("chat").unwrap(),
                kind: Persistent,
                version: Version(3),
                events: vec![
                    ObjectEvent::Send(value.0.clone()),
                    ObjectEvent::Change {
                        slot: slot("x"),
                        value: value.clone(),
                    },
                ],
            };
            let told = ObjectMessage::decode(&body(&update, Amf0), Amf0, Bounds::UPDATES);
            let told = told.unwrap();
            let WireEvent::Change { value: plain, .. } = &told.events[1] else {
                panic!("{told:?}");
            };
            let (plain, _) = amf::amf0::read_prefix(&plain.0).unwrap();
            prop_assert!(!format!("{plain:?}").contains("ByteArray"), "{:?}", plain);
            // What has no AMF3 is what it was.
            if !value.0.contains(&0x11) {
                prop_assert_eq!(body(&update, Amf0), body(&update, Amf3).slice(1..));
            }
            Ok(())
        })
        .unwrap();
}
