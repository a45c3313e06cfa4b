//! Input that means harm: depth, counts, references, truncation.

use std::sync::Arc;

use super::{follows, hex};
use crate::error::Unwritable;
use crate::limits::{Limit, Limits, MAX_DEPTH, MAX_VALUES};
use crate::{Error, Value, amf0, amf3, command, fuzzing};
use bytes::BytesMut;

type Read = fn(&[u8]) -> Result<Vec<Value>, Error>;

fn limit(read: Result<Vec<Value>, Error>) -> Option<Limit> {
    match read {
        Err(Error::Exceeds { limit, .. }) => Some(limit),
        _ => None,
    }
}

/// Runs on a quarter of the stack that threads have by default.
fn on_a_small_stack(run: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new()
        .stack_size(512 * 1024)
        .spawn(run)
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn depth_ends_at_the_limit() {
    let bombs: [(Read, &str); 9] = [
        (amf0::read_all, "03 0000"),
        (amf0::read_all, "08 00000000 0000"),
        (amf0::read_all, "0A 00000001"),
        (amf0::read_all, "10 0000 0000"),
        (amf3::read_all, "09 03 01"),
        (amf3::read_all, "0A 0B 01 03 61"),
        (amf3::read_all, "0A 13 01 03 61"),
        (amf3::read_all, "10 03 00 01"),
        (amf3::read_all, "11 03 00"),
    ];
    for (read, level) in bombs {
        assert_eq!(
            limit(read(&hex(level).repeat(100_000))),
            Some(Limit::Depth),
            "{level}"
        );
    }
    assert_eq!(
        limit(command::read(&hex("0A 00000001").repeat(100_000))),
        Some(Limit::Depth)
    );
    let switched = [hex("11"), hex("09 03 01").repeat(100_000)].concat();
    assert_eq!(limit(amf0::read_all(&switched)), Some(Limit::Depth));
    let collection = [
        hex("0A 07 43"),
        b"flex.messaging.io.ArrayCollection".to_vec(),
    ]
    .concat();
    assert_eq!(
        limit(amf3::read_all(&collection.repeat(100_000))),
        Some(Limit::Depth)
    );
}

#[test]
fn the_deepest_message_needs_little_stack() {
    on_a_small_stack(|| {
        for (level, end) in [("03 0001 61", "000009"), ("08 00000001 0001 61", "000009")] {
            let body = [
                hex(level).repeat(MAX_DEPTH),
                hex("05"),
                hex(end).repeat(MAX_DEPTH),
            ]
            .concat();
            assert!(amf0::read_all(&body).is_ok());
            fuzzing::amf0(&body);
        }
        for (level, end) in [
            ("09 03 01", ""),
            ("0A 0B 01 03 61", "01"),
            ("11 03 00 01", ""),
        ] {
            let body = [
                hex(level).repeat(MAX_DEPTH),
                hex("01"),
                hex(end).repeat(MAX_DEPTH),
            ]
            .concat();
            assert!(amf3::read_all(&body).is_ok());
            fuzzing::amf3(&body);
            fuzzing::amf0(&[hex("11"), body].concat());
        }
    });
}

#[test]
fn references_do_not_stack_containers_beyond_the_depth() {
    // Every element is 40 levels around a reference to the element before.
    let mut body = hex("0A 00000002");
    body.extend([hex("0A 00000001").repeat(40), hex("05")].concat());
    body.extend([hex("0A 00000001").repeat(40), hex("070001")].concat());
    assert_eq!(limit(amf0::read_all(&body)), Some(Limit::Depth));
}

#[test]
fn a_count_beyond_the_input_allocates_nothing() {
    for digits in [
        "0A FFFFFFFF",
        "0A 00020001 05",
        "11 09 FFFFFFFF 01",
        "11 11 FFFFFFFF 00",
    ] {
        assert_eq!(
            limit(amf0::read_all(&hex(digits))),
            Some(Limit::Values),
            "{digits}"
        );
    }
    for digits in [
        "0A 0001FFFF 05",
        "02 FFFF 61",
        "0C FFFFFFFF 61",
        "0F FFFFFFFF 61",
        "11 06 FFFFFFFF 61",
        "11 0C FFFFFFFF 61",
        "11 0D FFFFFFFF 00 61",
        "11 0F FFFFFFFF 00 61",
        "11 09 87FF7F 01 01",
    ] {
        let error = amf0::read_all(&hex(digits)).unwrap_err();
        assert!(
            matches!(error, Error::Truncated { .. }),
            "{digits}: {error}"
        );
    }
}

#[test]
fn references_are_charged_as_if_repeated() {
    // Twenty arrays, each of ten references to the one before: 10^20 values in 700 bytes.
    let mut body = hex("0A 00000014 0A 00000001 05");
    for index in 1..20_u8 {
        body.extend(hex("0A 0000000A"));
        body.extend([0x07, 0x00, index].repeat(10));
    }
    assert!(body.len() < 1000);
    assert_eq!(limit(amf0::read_all(&body)), Some(Limit::Values));

    let mut body = hex("09 29 01 09 03 01 01");
    for index in 1..20_u8 {
        body.extend(hex("09 15 01"));
        body.extend([0x09, index << 1].repeat(10));
    }
    assert_eq!(limit(amf3::read_all(&body)), Some(Limit::Values));
}

#[test]
fn references_to_text_are_charged_with_its_bytes() {
    const LEN: u32 = 200_000;
    let content = vec![b'x'; LEN as usize];
    let text = [
        &[0x06],
        &follows(LEN)[..],
        &content,
        &hex("06 00").repeat(100),
    ]
    .concat();
    assert_eq!(limit(amf3::read_all(&text)), Some(Limit::Bytes));

    let blob = [
        &[0x0C],
        &follows(LEN)[..],
        &content,
        &hex("0C 00").repeat(100),
    ]
    .concat();
    assert_eq!(limit(amf3::read_all(&blob)), Some(Limit::Bytes));

    // A long member name in traits that many objects refer to.
    let first = [&hex("0A 13 01"), &follows(LEN)[..], &content, &[0x01]].concat();
    let objects = [first, hex("0A 01 01").repeat(100)].concat();
    assert_eq!(limit(amf3::read_all(&objects)), Some(Limit::Bytes));
}

#[test]
fn the_writers_charge_what_they_repeat() {
    // Each level holds the one below twice: 2^40 values behind 40 handles.
    let mut value = Value::array([]);
    for _ in 0..40 {
        value = Value::array([value.clone(), value]);
    }
    let mut out = BytesMut::new();
    let too_many = Err(Unwritable::Exceeds(Limit::Values).into());
    assert_eq!(amf0::write(&value, &mut out), too_many);
    assert_eq!(amf3::write(&value, &mut out), too_many);
    assert!(out.is_empty());
    // As references it is short.
    assert!(amf0::write_all(std::slice::from_ref(&value)).unwrap().len() < 500);
    assert!(amf3::write_all(&[value]).unwrap().len() < 500);

    let text: Arc<str> = "x".repeat(1 << 20).into();
    let value = Value::array((0..17).map(|_| Value::String(text.clone())));
    let too_long = Err(Unwritable::Exceeds(Limit::Bytes).into());
    assert_eq!(amf0::write(&value, &mut out), too_long);
    assert_eq!(
        amf3::write(&value, &mut out),
        too_long,
        "references to text count too"
    );
}

#[test]
fn the_writers_end_at_the_depth() {
    let mut value = Value::Null;
    for _ in 0..=MAX_DEPTH {
        value = Value::array([value]);
    }
    let mut out = BytesMut::new();
    let too_deep = Err(Unwritable::Exceeds(Limit::Depth).into());
    assert_eq!(amf0::write(&value, &mut out), too_deep);
    assert_eq!(amf3::write(&value, &mut out), too_deep);
}

#[test]
fn the_number_of_values_is_limited_across_a_message() {
    assert!(amf0::read_all(&vec![0x05; MAX_VALUES]).is_ok());
    assert_eq!(
        limit(amf0::read_all(&vec![0x05; MAX_VALUES + 1])),
        Some(Limit::Values)
    );
    assert_eq!(
        limit(command::read(&vec![0x05; MAX_VALUES + 1])),
        Some(Limit::Values)
    );
    assert_eq!(
        limit(amf3::read_all(&vec![0x01; MAX_VALUES + 1])),
        Some(Limit::Values)
    );
}

#[test]
fn limits_can_be_tightened() {
    let limits = Limits {
        depth: 1,
        values: 3,
        bytes: 4,
    };
    let read = |digits: &str| amf0::Decoder::with_limits(&hex(digits), limits).next_value();
    assert!(read("0A 00000002 05 05").is_ok());
    assert!(read("0A 00000003 05 05 05").is_err());
    assert!(read("0A 00000001 0A 00000000").is_err());
    assert!(read("02 0004 61616161").is_ok());
    assert!(read("02 0005 6161616161").is_err());
}

/// One of everything, nested.
const EVERYTHING: &str = "
    03 0001 61 00 3FF0000000000000 0001 62 0101 0001 63 02 0001 78 0001 64 05 0001 65 06
       0001 66 0A 00000002 070000 0D 0001 67 0B 0000000000000000 0000
       0001 68 0C 00000001 78 0001 69 0F 00000001 78 0001 6A 10 0001 43 000009
       0001 6B 11 09 09 03 6E 01 01 0A 1B 03 43 03 73 04 8001 03 64 06 00 01
                  0C 03 00 11 03 00 06 00 10 03 00 01 0D 03 00 00000001 08 04 000009";

#[test]
fn a_message_cut_anywhere_is_an_error() {
    let body = hex(EVERYTHING);
    assert_eq!(amf0::read_all(&body).map(|values| values.len()), Ok(1));
    fuzzing::amf0(&body);
    for end in 1..body.len() {
        assert!(amf0::read_all(&body[..end]).is_err(), "cut at {end}");
        assert!(command::read(&body[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn a_message_with_any_byte_changed_breaks_nothing() {
    let body = hex(EVERYTHING);
    for at in 0..body.len() {
        for byte in [0x00, 0x01, 0x07, 0x09, 0x11, 0x7F, 0x80, 0xFF, body[at] ^ 1] {
            let mut body = body.clone();
            body[at] = byte;
            fuzzing::amf0(&body);
            fuzzing::amf3(&body);
        }
    }
}
