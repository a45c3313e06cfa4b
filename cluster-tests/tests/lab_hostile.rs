//! What no honest client sends. Each attack ends in a clear close or error, memory stays
//! bounded, and somebody who watches on the same edge does not miss a byte.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use selvage_cluster_tests::lab::arena::is_free;
use selvage_cluster_tests::lab::raw::amf::{self, Amf};
use selvage_cluster_tests::lab::raw::{Raw, dial, header, is_timeout, kind, until_closed};
use selvage_cluster_tests::lab::{Arena, Cluster, SOON, until};

/// Time to finish the handshake and `connect`, as these tests set it.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// How long we wait for the edge to be rid of us.
const CLOSED_BY: Duration = Duration::from_secs(30);

// Handshakes.

#[test]
fn handshakes_that_end_early_leave_nothing_behind() {
    let arena = Arena::open();
    let bytes = [&[3_u8][..], &[0; 1536], &[0; 1536]].concat();
    for length in [0, 1, 2, 9, 1536, 1537, 1538, 3072, 3073] {
        for _ in 0..20 {
            let mut socket = arena.dial();
            socket.write_all(&bytes[..length]).unwrap();
            socket.shutdown(Shutdown::Write).unwrap();
            until_closed(&mut socket, CLOSED_BY);
        }
    }
    arena.is_unharmed();
}

#[test]
fn another_protocol_is_shown_the_door() {
    let arena = Arena::open();
    for hello in [
        &b"GET / HTTP/1.1\r\nHost: example\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        &[0xff; 64],
    ] {
        let mut socket = arena.dial();
        socket.write_all(hello).unwrap();
        until_closed(&mut socket, CLOSED_BY);
    }
    arena.is_unharmed();
}

#[test]
fn slow_handshakes_are_ended_in_time_and_keep_nobody_out() {
    let arena = Arena::open();
    let started = Instant::now();
    let mut slow: Vec<TcpStream> = (0..200).map(|_| arena.dial()).collect();
    let mut silent: Vec<Raw> = (0..50).map(|_| arena.open_raw()).collect();
    // A byte now and then does not buy more time.
    let mut sent = 0;
    until("the slow ones are gone", CONNECT_TIME + CLOSED_BY, || {
        let byte = if sent == 0 { 3 } else { 0 };
        sent += 1;
        slow.retain_mut(|socket| socket.write_all(&[byte]).is_ok());
        slow.is_empty()
    });
    silent
        .iter_mut()
        .for_each(|raw| until_closed(raw.socket(), CLOSED_BY));
    assert!(
        started.elapsed() > Duration::from_secs(2),
        "an honest client needs some time"
    );
    arena.is_unharmed();
}

// Chunks.

#[test]
fn messages_that_end_early_leave_nothing_behind() {
    let arena = Arena::open();
    for length in [0, 1, 127, 128, 129, 900] {
        for _ in 0..20 {
            let mut raw = arena.open_raw();
            let mut bytes = header(6, kind::VIDEO, 1, 0, 1000);
            bytes.extend(vec![0; length]);
            raw.socket().write_all(&bytes).unwrap();
            raw.socket().shutdown(Shutdown::Write).unwrap();
            until_closed(raw.socket(), CLOSED_BY);
        }
    }
    arena.is_unharmed();
}

#[test]
fn a_message_beyond_the_limit_closes_the_connection() {
    let arena = Arena::open();
    let mut raw = arena.open_raw();
    raw.set_chunk_size(0x00ff_ffff).unwrap();
    let body = vec![0x27; 0xff_ffff];
    let mut bytes = header(6, kind::VIDEO, 1, 0, body.len());
    bytes.extend(body);
    // The edge may close while we are still writing.
    let _closed_early = raw.socket().write_all(&bytes);
    until_closed(raw.socket(), CLOSED_BY);
    arena.is_unharmed();
}

#[test]
fn promises_of_long_messages_cost_no_memory() {
    let arena = Arena::open();
    let mut holders = Vec::new();
    for _ in 0..100 {
        let mut raw = arena.connect();
        for chunk_stream in 3..13 {
            let mut bytes = header(chunk_stream, kind::VIDEO, 1, 0, 7 << 20);
            bytes.extend([0; 128]);
            let _closed_early = raw.socket().write_all(&bytes);
        }
        holders.push(raw);
    }
    arena.is_unharmed();
}

#[test]
fn too_many_open_messages_close_the_connection() {
    let arena = Arena::open();
    let mut raw = arena.open_raw();
    let mut bytes = Vec::new();
    for chunk_stream in 64..10_000_u16 {
        // A two-byte basic header says 64 to 65599, little endian.
        bytes.push(1);
        bytes.extend((chunk_stream - 64).to_le_bytes());
        bytes.extend([0, 0, 0, 0x10, 0, 0, kind::VIDEO, 1, 0, 0, 0]);
        bytes.extend([0; 128]);
    }
    let _closed_early = raw.socket().write_all(&bytes);
    until_closed(raw.socket(), CLOSED_BY);
    arena.is_unharmed();
}

#[test]
fn too_many_chunk_streams_close_the_connection() {
    let arena = Arena::open();
    let mut raw = arena.open_raw();
    let mut bytes = Vec::new();
    for chunk_stream in 64..20_000_u16 {
        bytes.push(1);
        bytes.extend((chunk_stream - 64).to_le_bytes());
        bytes.extend([0, 0, 0, 0, 0, 1, kind::VIDEO, 1, 0, 0, 0, 0x27]);
    }
    let _closed_early = raw.socket().write_all(&bytes);
    until_closed(raw.socket(), CLOSED_BY);
    arena.is_unharmed();
}

#[test]
fn continuing_a_chunk_stream_that_never_began_closes_the_connection() {
    let arena = Arena::open();
    for format in [1_u8, 2, 3] {
        let mut raw = arena.open_raw();
        let mut bytes = vec![format << 6 | 9];
        bytes.extend([0; 200]);
        let _closed_early = raw.socket().write_all(&bytes);
        until_closed(raw.socket(), CLOSED_BY);
    }
    arena.is_unharmed();
}

#[test]
fn impossible_chunk_sizes_and_short_control_messages_close_or_are_ignored() {
    let arena = Arena::open();
    let bodies: [&[u8]; 6] = [
        &[],
        &[0],
        &[0, 0, 0],
        &[0, 0, 0, 0],
        &[0xff, 0xff, 0xff, 0xff],
        &[0x80, 0, 0, 0],
    ];
    let kinds = [
        kind::SET_CHUNK_SIZE,
        kind::ABORT,
        kind::ACKNOWLEDGEMENT,
        kind::USER_CONTROL,
        kind::WINDOW,
        kind::PEER_BANDWIDTH,
        kind::AGGREGATE,
        kind::SHARED_OBJECT,
        kind::DATA,
        kind::COMMAND,
        kind::COMMAND_AMF3,
        0,
        7,
        100,
        255,
    ];
    for kind in kinds {
        for body in bodies {
            let mut raw = arena.connect();
            let _closed_early = raw.send(kind, 0, 0, body);
            let _closed_early = raw.send(kind, 1, 0, body);
        }
    }
    arena.is_unharmed();
}

#[test]
fn random_bytes_in_every_place_do_no_harm() {
    let arena = Arena::open();
    let mut dice = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |length: usize| -> Vec<u8> {
        let mut throw = || {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            dice.to_be_bytes()[3]
        };
        (0..length).map(|_| throw()).collect()
    };
    for round in 0..150_usize {
        let bytes = random(20_000);
        match round % 3 {
            0 => {
                let mut socket = arena.dial();
                let _closed_early = socket.write_all(&bytes);
            }
            1 => {
                let mut raw = arena.open_raw();
                let _closed_early = raw.socket().write_all(&bytes);
            }
            _ => {
                // Whole messages of random kinds and bodies behind an honest connect.
                let mut raw = arena.connect();
                for part in bytes.chunks(97) {
                    let _closed_early = raw.send(part[0] % 24, u32::from(part[1] % 3), 0, part);
                }
            }
        }
    }
    arena.is_unharmed();
}

// AMF.

#[test]
fn amf_bombs_close_the_connection_or_are_answered_with_an_error() {
    let arena = Arena::open();
    let command = |bomb: &[u8]| {
        let mut body = amf::bytes(&[Amf::text("connect"), Amf::Number(1.0)]);
        body.extend(bomb);
        body
    };
    let deep = |opening: &[u8]| command(&opening.repeat(200_000 / opening.len()));
    let bombs: Vec<(&str, Vec<u8>)> = vec![
        ("nested objects", deep(b"\x03\x00\x01a")),
        ("nested arrays", deep(b"\x0a\x00\x00\x00\x01")),
        (
            "nested associative arrays",
            deep(b"\x08\x00\x00\x00\x01\x00\x01a"),
        ),
        ("nested typed objects", deep(b"\x10\x00\x01t\x00\x01a")),
        ("an array of four billion", command(b"\x0a\xff\xff\xff\xff")),
        (
            "many arrays of four billion",
            command(&b"\x0a\xff\xff\xff\xff".repeat(1000)),
        ),
        (
            "an associative array of four billion",
            command(b"\x08\xff\xff\xff\xff"),
        ),
        (
            "a string longer than its message",
            command(b"\x02\xff\xffshort"),
        ),
        (
            "a long string of four gigabytes",
            command(b"\x0c\xff\xff\xff\xffshort"),
        ),
        (
            "xml of four gigabytes",
            command(b"\x0f\xff\xff\xff\xffshort"),
        ),
        (
            "references to nowhere",
            command(&b"\x07\xff\xff".repeat(10_000)),
        ),
        (
            "an object that contains itself",
            command(b"\x03\x00\x01a\x07\x00\x00\x00\x00\x09"),
        ),
        ("amf3 nested arrays", deep(b"\x11\x09\x03\x01")),
        (
            "amf3 array of 2^28",
            command(b"\x11\x09\xff\xff\xff\xff\x01"),
        ),
        (
            "amf3 byte array of 2^28",
            command(b"\x11\x0c\xff\xff\xff\xff"),
        ),
        (
            "amf3 vector of 2^28",
            command(b"\x11\x0d\xff\xff\xff\xff\x00"),
        ),
        (
            "amf3 sealed members of 2^25",
            command(b"\x11\x0a\xff\xff\xff\xf3\x01"),
        ),
        ("a million nulls", command(&[5; 1_000_000])),
        ("doubling references", command(&doubling())),
    ];
    for (what, bomb) in bombs {
        for kind in [kind::COMMAND, kind::DATA, kind::COMMAND_AMF3] {
            let body = if kind == kind::COMMAND_AMF3 {
                [&[0], &bomb[..]].concat()
            } else {
                bomb.clone()
            };
            for connected in [false, true] {
                let mut raw = if connected {
                    arena.connect()
                } else {
                    arena.open_raw()
                };
                let _closed_early = raw.send(kind, 0, 0, &body);
                let _closed_early = raw.send(kind, 1, 0, &body);
            }
        }
        // In the place of an honest connect: refused in words, or closed.
        let mut raw = arena.open_raw();
        let _closed_early = raw.send(kind::COMMAND, 0, 0, &bomb);
        assert!(
            is_refused(&mut raw),
            "{what}: nothing was said and nothing was closed"
        );
        let grown = arena.grown();
        assert!(
            grown[0] < 192 << 20,
            "{what}: the edge grew by {} MB",
            grown[0] >> 20
        );
    }
    arena.is_unharmed();
}

/// Whether `_error` comes or the connection is closed.
fn is_refused(raw: &mut Raw) -> bool {
    loop {
        match raw.read() {
            Ok(message) => {
                let values = message.command().unwrap_or_default();
                if values.first().and_then(Amf::as_text) == Some("_error") {
                    return true;
                }
            }
            Err(error) => return !is_timeout(&error),
        }
    }
}

/// Arrays of which each names the one before it twice: small on the wire, 2^40 values
/// when they are written out.
fn doubling() -> Vec<u8> {
    let mut bytes = vec![0x0a, 0, 0, 0, 1, 5];
    for level in 0..40_u16 {
        bytes.extend([0x0a, 0, 0, 0, 2]);
        for _ in 0..2 {
            bytes.push(7);
            bytes.extend(level.to_be_bytes());
        }
    }
    bytes
}

// Commands.

#[test]
fn before_connect_nothing_can_be_published_or_played() {
    let arena = Arena::open();
    let says: [fn(&mut Raw) -> std::io::Result<()>; 5] = [
        |raw| raw.command(0, "createStream", 1.0, &[Amf::Null]),
        |raw| {
            raw.command(
                1,
                "publish",
                0.0,
                &[Amf::Null, Amf::text("early"), Amf::text("live")],
            )
        },
        |raw| raw.command(1, "play", 0.0, &[Amf::Null, Amf::text("bystander")]),
        |raw| raw.send(kind::VIDEO, 1, 0, &[0x17, 1, 0, 0, 0, 0]),
        |raw| raw.send(kind::DATA, 1, 0, &amf::bytes(&[Amf::text("onMetaData")])),
    ];
    for say in says {
        let mut raw = arena.open_raw();
        say(&mut raw).unwrap();
        raw.socket().set_read_timeout(Some(SOON)).unwrap();
        // Closed, or told off; never served.
        while let Ok(message) = raw.read() {
            assert!(!message.is_media(), "media without connect");
            assert!(
                !message
                    .status()
                    .is_some_and(|code| code.ends_with(".Start")),
                "served"
            );
            let refused = message.command().and_then(|values| values.first().cloned());
            if refused == Some(Amf::text("_error")) {
                break;
            }
        }
        assert!(is_free(arena.edge(), "early"));
    }
    arena.is_unharmed();
}

#[test]
fn stream_0_cannot_publish_or_play() {
    let arena = Arena::open();
    let mut raw = arena.connect();
    raw.command(
        0,
        "publish",
        2.0,
        &[Amf::Null, Amf::text("zero"), Amf::text("live")],
    )
    .unwrap();
    let _closed_early = raw.send(kind::VIDEO, 0, 0, &[0x17, 1, 0, 0, 0, 0]);
    assert!(is_free(arena.edge(), "zero"), "stream 0 publishes");
    let mut raw = arena.connect();
    raw.command(0, "play", 2.0, &[Amf::Null, Amf::text("bystander")])
        .unwrap();
    // An answer to a later call shows that the play has been dealt with.
    let _closed_early = raw.command(0, "createStream", 9.0, &[Amf::Null]);
    while let Ok(message) = raw.read() {
        assert!(!message.is_media(), "stream 0 plays");
        let values = message.command().unwrap_or_default();
        if values.get(1).and_then(Amf::as_number) == Some(9.0) {
            break;
        }
    }
    arena.is_unharmed();
}

#[test]
fn thousands_of_streams_are_refused_in_words_and_do_not_cost_memory() {
    let arena = Arena::open();
    let mut raw = arena.connect();
    let mut given = 0;
    let mut refused = 0;
    for _ in 0..5000 {
        match raw.create_stream() {
            Ok(_) => given += 1,
            Err(error) if error.to_string().contains("_error") => refused += 1,
            Err(_) => break,
        }
    }
    println!("{given} streams were given, {refused} refused");
    assert!(
        (2..=1000).contains(&given),
        "{given} streams for one connection"
    );
    // Those who ask without reading the answers are stopped as well.
    let mut deaf = arena.connect();
    deaf.socket()
        .set_write_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    for _ in 0..200_000 {
        if deaf.command(0, "createStream", 5.0, &[Amf::Null]).is_err() {
            break;
        }
    }
    arena.is_unharmed();
}

#[test]
fn names_beyond_the_limits_are_refused() {
    let arena = Arena::open();
    let long = "n".repeat(60_000);
    for name in [
        long.as_str(),
        "",
        "../../etc/passwd",
        "a\0b",
        "a\nb",
        "a//b",
    ] {
        let mut raw = arena.connect();
        let stream = raw.create_stream().unwrap();
        let answer = raw.publish(stream, name);
        assert_ne!(
            answer.ok().as_deref(),
            Some("NetStream.Publish.Start"),
            "{name:?}"
        );
        let mut raw = arena.connect();
        let stream = raw.create_stream().unwrap();
        let answer = raw.play(stream, name);
        assert_ne!(
            answer.ok().as_deref(),
            Some("NetStream.Play.Start"),
            "{name:?}"
        );
    }
    for app in [long.as_str(), "", "..", "a\nb"] {
        let mut raw = arena.open_raw();
        assert!(raw.connect_app(arena.edge(), app).is_err(), "app {app:?}");
    }
    arena.is_unharmed();
}

#[test]
fn calls_without_end_are_bounded() {
    let arena = Arena::open();
    let mut raw = arena.connect();
    raw.socket()
        .set_write_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let blob = Amf::text(&"x".repeat(50_000));
    for call in 0..5000_u32 {
        let sent = raw.command(
            0,
            "nobodyKnowsThis",
            f64::from(call),
            std::slice::from_ref(&blob),
        );
        if sent.is_err() {
            break;
        }
    }
    arena.is_unharmed();
}

// Floods.

#[test]
fn a_publisher_that_is_faster_than_the_fabric_is_slowed_by_tcp_and_not_by_memory() {
    let arena = Arena::open();
    let mut raw = arena.connect();
    let stream = raw.create_stream().unwrap();
    assert_eq!(
        raw.publish(stream, "flood").unwrap(),
        "NetStream.Publish.Start"
    );
    raw.set_chunk_size(65_536).unwrap();
    let mut body = vec![0x27; 60_000];
    body[..5].copy_from_slice(&[0x27, 1, 0, 0, 0]);
    let started = Instant::now();
    let mut sent = 0_u64;
    let mut time = 0;
    while started.elapsed() < Duration::from_secs(4) && sent < 4 << 30 {
        // Frame after frame of one picture that never ends.
        if raw.send(kind::VIDEO, stream, time, &body).is_err() {
            break;
        }
        time += 1;
        sent += 60_000;
    }
    println!("{} MB were taken in {:?}", sent >> 20, started.elapsed());
    arena.is_unharmed();
}

#[test]
fn a_viewer_who_does_not_read_costs_nobody_else_anything() {
    let arena = Arena::open();
    let mut publisher = arena.connect();
    let stream = publisher.create_stream().unwrap();
    assert_eq!(
        publisher.publish(stream, "big").unwrap(),
        "NetStream.Publish.Start"
    );
    publisher.set_chunk_size(65_536).unwrap();
    let deaf: Vec<Raw> = (0..20)
        .map(|_| {
            let mut raw = arena.connect();
            let stream = raw.create_stream().unwrap();
            assert_eq!(raw.play(stream, "big").unwrap(), "NetStream.Play.Start");
            raw
        })
        .collect();
    for number in 0..2000_u32 {
        let head = if number % 25 == 0 { 0x17 } else { 0x27 };
        let body = [&[head, 1, 0, 0, 0][..], &[7; 60_000]].concat();
        publisher
            .send(kind::VIDEO, stream, number * 40, &body)
            .unwrap();
    }
    drop(deaf);
    arena.is_unharmed();
}

#[test]
fn connections_that_come_and_go_leave_nothing_behind() {
    let arena = Arena::open();
    for _ in 0..10 {
        let many: Vec<Raw> = (0..50)
            .map(|_| {
                let mut raw = arena.connect();
                let stream = raw.create_stream().unwrap();
                raw.command(stream, "play", 0.0, &[Amf::Null, Amf::text("bystander")])
                    .unwrap();
                raw
            })
            .collect();
        drop(many);
    }
    arena.is_unharmed();
}

// The other doors.

#[test]
fn an_origin_is_not_disturbed_by_strangers() {
    let arena = Arena::open();
    for hello in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 4096],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        for _ in 0..20 {
            let mut socket = dial(arena.origin()).unwrap();
            let _closed_early = socket.write_all(hello);
        }
    }
    arena.is_unharmed();
}

#[test]
fn the_health_page_is_not_disturbed_by_strangers() {
    let arena = Arena::open();
    let address = arena.edge_http();
    for hello in [&[0xff; 4096][..], &b"GET /".repeat(50_000)] {
        let mut socket = dial(address).unwrap();
        let _closed_early = socket.write_all(hello);
    }
    let mut socket = dial(address).unwrap();
    socket
        .write_all(b"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    arena.is_unharmed();
}

#[test]
fn too_many_connections_of_one_address_are_turned_away_and_others_stay() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.toml");
    std::fs::write(&file, "[limits]\nconnections_per_address = 20\n").unwrap();
    let cluster = Cluster::start_with(1, 1, &["--config", file.to_str().unwrap()]);
    let edge = cluster.edges[0].addr;
    let kept: Vec<Raw> = (0..20)
        .map(|_| Raw::connect(edge, "live").unwrap())
        .collect();
    for _ in 0..20 {
        assert!(
            Raw::connect(edge, "live").is_err(),
            "the 21st connection was taken"
        );
    }
    drop(kept);
    until("there is room again", SOON, || {
        Raw::connect(edge, "live").is_ok()
    });
}
