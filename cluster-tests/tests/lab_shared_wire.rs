//! Shared objects byte for byte, as players of all ages know them, through a cluster of
//! three origins.
//!
//! The bytes are the worked examples of the published descriptions of the format: an
//! object `chat` with the slots `count` and `who`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::io::Write;
use std::time::{Duration, Instant};

use selvage_cluster_tests::lab::Cluster;
use selvage_cluster_tests::lab::raw::Raw;
use selvage_cluster_tests::lab::raw::amf::Amf;
use selvage_cluster_tests::lab::raw::object::Batch;

/// Event types.
const CHANGE: u8 = 4;
const SUCCESS: u8 = 5;
const SEND: u8 = 6;
const CLEAR: u8 = 8;
const REMOVE: u8 = 9;
const USED: u8 = 11;

/// Message types.
const AMF0: u8 = 19;
const AMF3: u8 = 16;

/// `00 04 63 …`, with any white space and bars.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(char::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|two| u8::from_str_radix(&two.iter().collect::<String>(), 16).unwrap())
        .collect()
}

/// The body of the next shared object message must be these bytes.
#[track_caller]
fn expect(raw: &mut Raw, what: &str, kind: u8, bytes: &str) {
    let message = raw.hear_message().unwrap_or_else(|e| panic!("{what}: {e}"));
    let text = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|b| format!("{b:02x} "))
            .collect::<String>()
    };
    assert_eq!(message.kind, kind, "{what}: {message:?}");
    assert_eq!((message.stream, message.time), (0, 0), "{what}");
    assert_eq!(text(&message.body), text(&hex(bytes)), "{what}");
}

/// Sends these bytes as a shared object message.
fn say(raw: &mut Raw, kind: u8, bytes: &str) {
    raw.send(kind, 0, 0, &hex(bytes)).unwrap();
}

/// A client that uses `chat` in an instance of its own, at version 7: count=3, who="amy".
fn amy(cluster: &Cluster, instance: &str) -> Raw {
    let mut raw = Raw::connect(cluster.edges[0].addr, instance).unwrap();
    // (1) of the examples.
    say(
        &mut raw,
        AMF0,
        "00 04 63 68 61 74 | 00 00 00 00 | 00 00 00 00 | 00 00 00 00 | 01 00 00 00 00",
    );
    expect(
        &mut raw,
        "the answer to the first use",
        AMF0,
        "00 04 63 68 61 74 00 00 00 01 00 00 00 00 00 00 00 00 0b 00 00 00 00 08 00 00 00 00",
    );
    let mut version = 1;
    for (slot, value) in [
        ("count", Amf::Number(1.0)),
        ("who", Amf::text("eve")),
        ("who", Amf::text("ann")),
        ("count", Amf::Number(2.0)),
        ("count", Amf::Number(3.0)),
        ("who", Amf::text("amy")),
    ] {
        let told = raw.ask(&Batch::new("chat", version).set(slot, &value));
        let told = told.unwrap();
        version += 1;
        let expected = Batch::new("chat", version).with(SUCCESS, &name(slot));
        assert_eq!(told, expected, "the answer to {slot}={value:?}");
    }
    raw
}

fn name(slot: &str) -> Vec<u8> {
    let length = u16::try_from(slot.len()).unwrap();
    [&length.to_be_bytes(), slot.as_bytes()].concat()
}

/// (2): what a newcomer is told.
const WELCOME: &str = "
    00 04 63 68 61 74 00 00 00 07 00 00 00 00 00 00 00 00
    0b 00 00 00 00   08 00 00 00 00
    04 00 00 00 10 00 05 63 6f 75 6e 74 00 40 08 00 00 00 00 00 00
    04 00 00 00 0b 00 03 77 68 6f 02 00 03 61 6d 79";

/// (3): count=5 and who="bob", based on version 7.
const BOB: &str = "
    00 04 63 68 61 74 00 00 00 07 00 00 00 00 00 00 00 00
    03 00 00 00 10 00 05 63 6f 75 6e 74 00 40 14 00 00 00 00 00 00
    03 00 00 00 0b 00 03 77 68 6f 02 00 03 62 6f 62";

#[test]
fn what_is_answered_is_the_bytes_of_the_worked_examples() {
    let cluster = Cluster::start(3, 2);
    let there = cluster.edges[1].addr;
    let mut amy = amy(&cluster, "live/one");
    let mut bob = Raw::connect(there, "live/one").unwrap();
    bob.say(&Batch::new("chat", 0).use_it()).unwrap();
    expect(&mut bob, "(2) a newcomer at another edge", AMF0, WELCOME);

    say(&mut bob, AMF0, BOB);
    expect(
        &mut bob,
        "(3) the requester",
        AMF0,
        "00 04 63 68 61 74 00 00 00 08 00 00 00 00 00 00 00 00
         05 00 00 00 07 00 05 63 6f 75 6e 74   05 00 00 00 05 00 03 77 68 6f",
    );
    expect(
        &mut amy,
        "(3) the others",
        AMF0,
        "00 04 63 68 61 74 00 00 00 08 00 00 00 00 00 00 00 00
         04 00 00 00 10 00 05 63 6f 75 6e 74 00 40 14 00 00 00 00 00 00
         04 00 00 00 0b 00 03 77 68 6f 02 00 03 62 6f 62",
    );
    // (4): who is removed, in the version after.
    bob.say(&Batch::new("chat", 8).remove("who")).unwrap();
    for raw in [&mut bob, &mut amy] {
        expect(
            raw,
            "(4) everybody",
            AMF0,
            "00 04 63 68 61 74 00 00 00 09 00 00 00 00 00 00 00 00 09 00 00 00 05 00 03 77 68 6f",
        );
    }
    // (5): a message to all, the sender among them.
    say(
        &mut amy,
        AMF0,
        "00 04 63 68 61 74 00 00 00 00 00 00 00 00 00 00 00 00
         06 00 00 00 10 02 00 05 6f 6e 4d 73 67 02 00 05 68 65 6c 6c 6f",
    );
    let payload = hex("02 00 05 6f 6e 4d 73 67 02 00 05 68 65 6c 6c 6f");
    for raw in [&mut amy, &mut bob] {
        let told = raw.hear().unwrap();
        assert_eq!(told.events, [(SEND, payload.clone())], "{told:?}");
    }
    // (6): it is temporary.
    let mut eve = Raw::connect(there, "live/one").unwrap();
    let told = eve.ask(&Batch::new("chat", 0).kept().use_it()).unwrap();
    let status = hex("00 1b 53 68 61 72 65 64 4f 62 6a 65 63 74 2e
        42 61 64 50 65 72 73 69 73 74 65 6e 63 65 00 05 65 72 72 6f 72");
    assert_eq!(told.events, [(7, status)], "{told:?}");
}

#[test]
fn who_was_second_is_refused_in_the_bytes_of_the_worked_example() {
    let cluster = Cluster::start(3, 2);
    let mut amy = amy(&cluster, "live/two");
    let mut bob = Raw::connect(cluster.edges[1].addr, "live/two").unwrap();
    bob.say(&Batch::new("chat", 0).use_it()).unwrap();
    expect(&mut bob, "(2) a newcomer at another edge", AMF0, WELCOME);
    // Somebody else set 6 first.
    let first = Batch::new("chat", 7).set("count", &Amf::Number(6.0));
    assert_eq!(amy.ask(&first).unwrap().slots(SUCCESS), ["count"]);
    let told = bob.hear().unwrap();
    assert_eq!(
        (told.version, told.slots(CHANGE)),
        (8, vec!["count".into()])
    );
    say(&mut bob, AMF0, BOB);
    expect(
        &mut bob,
        "(3) with count refused",
        AMF0,
        "00 04 63 68 61 74 00 00 00 09 00 00 00 00 00 00 00 00
         05 00 00 00 05 00 03 77 68 6f   04 00 00 00 10 00 05 63 6f 75 6e 74 00 40 18 00 00 00 00 00 00",
    );
    // The others learn of what was accepted, and of nothing else.
    let told = amy.hear().unwrap();
    assert_eq!((told.version, told.slots(CHANGE)), (9, vec!["who".into()]));
    // A write that changes nothing is answered, and no news.
    let same = Batch::new("chat", 9).set("count", &Amf::Number(6.0));
    let told = bob.ask(&same).unwrap();
    assert_eq!(
        (told.version, told.slots(SUCCESS)),
        (9, vec!["count".into()])
    );
    let gone = bob.ask(&Batch::new("chat", 9).remove("nothing")).unwrap();
    assert_eq!(
        (gone.version, gone.slots(REMOVE)),
        (9, vec!["nothing".into()])
    );
}

#[test]
fn clients_of_amf3_and_of_amf0_share_an_object() {
    let cluster = Cluster::start(3, 2);
    let mut amy = amy(&cluster, "live/three");
    let mut new = Raw::connect_amf3(cluster.edges[1].addr, "live/three").unwrap();
    new.say_amf3(&Batch::new("chat", 0).use_it()).unwrap();
    expect(&mut new, "(2) over AMF3", AMF3, &format!("00 {WELCOME}"));
    // (7): an AMF3 integer.
    say(
        &mut new,
        AMF3,
        "00 | 00 04 63 68 61 74 00 00 00 07 00 00 00 00 00 00 00 00
         03 00 00 00 0a 00 05 63 6f 75 6e 74 11 04 05",
    );
    expect(
        &mut new,
        "(7) the requester",
        AMF3,
        "00 | 00 04 63 68 61 74 00 00 00 08 00 00 00 00 00 00 00 00 05 00 00 00 07 00 05 63 6f 75 6e 74",
    );
    expect(
        &mut amy,
        "(7) who speaks AMF0",
        AMF0,
        "00 04 63 68 61 74 00 00 00 08 00 00 00 00 00 00 00 00
         04 00 00 00 10 00 05 63 6f 75 6e 74 00 40 14 00 00 00 00 00 00",
    );
    let mut third = Raw::connect_amf3(cluster.edges[0].addr, "live/three").unwrap();
    third.say_amf3(&Batch::new("chat", 0).use_it()).unwrap();
    let told = third.hear().unwrap();
    assert_eq!(told.version, 8, "{told:?}");
    assert_eq!(told.slots(CHANGE), ["count", "who"], "{told:?}");
    // A client that speaks AMF3 may use either message.
    let told = new.ask(&Batch::new("chat", 8).set("who", &Amf::text("bob")));
    assert_eq!(told.unwrap().slots(SUCCESS), ["who"]);
    assert_eq!(amy.hear().unwrap().slots(CHANGE), ["who"]);
}

#[test]
fn who_comes_back_is_told_the_difference_in_the_bytes_of_the_worked_example() {
    let cluster = Cluster::start(3, 2);
    let mut raw = Raw::connect(cluster.edges[0].addr, "live/four").unwrap();
    raw.ask(&Batch::new("chat", 0).kept().use_it()).unwrap();
    let mut version = 1;
    let mut write = |batch: Batch| {
        version += 1;
        let told = raw.ask(&batch).unwrap();
        assert_eq!(told.version, version, "{told:?}");
    };
    write(Batch::new("chat", 1).kept().set("who", &Amf::text("amy")));
    for round in 2..42_u32 {
        let value = Amf::Number(round.into());
        write(Batch::new("chat", round).kept().set("count", &value));
    }
    write(Batch::new("chat", 42).kept().remove("who"));
    for (base, count) in [(43, 7.0), (44, 8.0)] {
        let value = Amf::Number(count);
        write(Batch::new("chat", base).kept().set("count", &value));
    }
    let mut back = Raw::connect(cluster.edges[1].addr, "live/four").unwrap();
    say(
        &mut back,
        AMF0,
        "00 04 63 68 61 74 00 00 00 2a 00 00 00 02 00 00 00 00 01 00 00 00 00",
    );
    expect(
        &mut back,
        "(8)",
        AMF0,
        "00 04 63 68 61 74 00 00 00 2d 00 00 00 02 00 00 00 00 0b 00 00 00 00
         09 00 00 00 05 00 03 77 68 6f   04 00 00 00 10 00 05 63 6f 75 6e 74 00 40 20 00 00 00 00 00 00",
    );
}

#[test]
fn a_client_may_ask_to_clear_and_release_and_everybody_is_told() {
    for amf3 in [false, true] {
        let cluster = Cluster::start(3, 2);
        let connect = |edge: usize| {
            let addr = cluster.edges[edge].addr;
            if amf3 {
                Raw::connect_amf3(addr, "live").unwrap()
            } else {
                Raw::connect(addr, "live").unwrap()
            }
        };
        let say = |raw: &mut Raw, batch: &Batch| {
            if amf3 {
                raw.say_amf3(batch).unwrap();
            } else {
                raw.say(batch).unwrap();
            }
        };
        let (mut a, mut b) = (connect(0), connect(1));
        for raw in [&mut a, &mut b] {
            say(raw, &Batch::new("wiped", 0).use_it());
            assert!(raw.hear().unwrap().has(USED));
        }
        let three = Batch::new("wiped", 1)
            .set("a", &Amf::Number(1.0))
            .set("b", &Amf::Boolean(false))
            .set("c", &Amf::text(""));
        say(&mut a, &three);
        assert_eq!(a.hear().unwrap().slots(SUCCESS), ["a", "b", "c"]);
        assert_eq!(b.hear().unwrap().slots(CHANGE), ["a", "b", "c"]);
        // 14: request clear.
        say(&mut b, &Batch::new("wiped", 2).with(14, &[]));
        for raw in [&mut b, &mut a] {
            let told = raw.hear().unwrap();
            assert_eq!(told.version, 3, "{told:?}");
            assert!(told.has(CLEAR) && told.slots(CHANGE).is_empty(), "{told:?}");
        }
        // Who has released it is told nothing any more.
        say(&mut b, &Batch::new("wiped", 3).release());
        say(&mut b, &Batch::new("other", 0).use_it());
        assert_eq!(b.hear().unwrap().name, "other");
        say(&mut a, &Batch::new("wiped", 3).set("a", &Amf::Number(2.0)));
        assert_eq!(a.hear().unwrap().slots(SUCCESS), ["a"]);
        say(&mut b, &Batch::new("other", 1).set("x", &Amf::Null));
        let told = b.hear().unwrap();
        assert_eq!(told.name, "other", "{told:?}");
    }
}

/// What an edge is told besides.
fn config(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn who_may_not_read_or_write_is_told_so() {
    let file = config("[objects]\nread = ['open', 'shown']\nwrite = ['open']\n");
    let path = file.path().display().to_string();
    let cluster = Cluster::start_with(1, 1, &["--config", &path]);
    let mut raw = Raw::connect(cluster.edges[0].addr, "live").unwrap();
    let told = raw.ask(&Batch::new("secret", 0).use_it()).unwrap();
    assert_eq!(
        told.status().as_deref(),
        Some("SharedObject.NoReadAccess"),
        "{told:?}"
    );
    let mut told = raw.ask(&Batch::new("shown/a", 0).use_it()).unwrap();
    if !told.has(USED) {
        // It must exist for one who may not write it.
        println!("shown/a cannot be used before it exists: {told:?}");
        told = raw.ask(&Batch::new("shown/a", 0).use_it()).unwrap();
    }
    println!("shown/a: {told:?}");
    let told = raw
        .ask(&Batch::new("shown/a", 1).set("a", &Amf::Number(1.0)))
        .unwrap();
    assert_eq!(
        told.status().as_deref(),
        Some("SharedObject.NoWriteAccess"),
        "{told:?}"
    );
    let told = raw.ask(&Batch::new("open/a", 0).use_it()).unwrap();
    assert!(told.has(USED), "{told:?}");
    let told = raw
        .ask(&Batch::new("open/a", 1).set("a", &Amf::Number(1.0)))
        .unwrap();
    assert_eq!(told.slots(SUCCESS), ["a"], "{told:?}");
}

#[test]
fn what_is_above_a_limit_is_refused_and_nothing_else_suffers() {
    let cluster = Cluster::start(3, 1);
    let mut raw = Raw::connect(cluster.edges[0].addr, "live").unwrap();
    raw.set_chunk_size(65_536).unwrap();
    raw.ask(&Batch::new("full", 0).use_it()).unwrap();
    // 4096 slots fit, in batches of 512.
    let mut version = 1;
    for first in (0..4096_u32).step_by(512) {
        let mut batch = Batch::new("full", version);
        for slot in first..first + 512 {
            batch = batch.set(&format!("s{slot}"), &Amf::Number(slot.into()));
        }
        let told = raw.ask(&batch).unwrap();
        assert_eq!(told.slots(SUCCESS).len(), 512, "{:?}", told.status());
        version = told.version;
    }
    let told = raw
        .ask(&Batch::new("full", version).set("more", &Amf::Number(1.0)))
        .unwrap();
    assert_eq!(
        told.status().as_deref(),
        Some("SharedObject.ObjectCreationFailed"),
        "{told:?}"
    );
    assert_eq!(
        told.slots(REMOVE),
        ["more"],
        "the slot is as it was: {told:?}"
    );
    let told = raw
        .ask(&Batch::new("full", version).set("s7", &Amf::Number(1.0)))
        .unwrap();
    assert_eq!(told.slots(SUCCESS), ["s7"], "{told:?}");
    // A client uses 256 objects at most.
    let mut refused = None;
    for number in 1..=256 {
        let told = raw
            .ask(&Batch::new(&format!("o{number}"), 0).use_it())
            .unwrap();
        if let Some(status) = told.status() {
            refused = Some((number, status));
            break;
        }
        assert!(told.has(USED), "{told:?}");
    }
    assert_eq!(
        refused,
        Some((256, "SharedObject.ObjectCreationFailed".to_owned()))
    );
    let told = raw
        .ask(&Batch::new("o1", 1).set("a", &Amf::Number(1.0)))
        .unwrap();
    assert_eq!(told.slots(SUCCESS), ["a"], "{told:?}");
}

#[test]
fn locks_are_called_for_and_hold_others_up_and_run_out() {
    let cluster = Cluster::start(3, 2);
    let [mut a, mut b] = [0, 1].map(|edge: usize| {
        let mut raw = Raw::connect(cluster.edges[edge].addr, "live").unwrap();
        assert!(raw.ask(&Batch::new("held", 0).use_it()).unwrap().has(USED));
        raw
    });
    let held = [Amf::Null, Amf::text("held"), Amf::Number(60_000.0)];
    let locked = a.call(0, "selvage.lock", &held).unwrap();
    assert_eq!(locked[3], Amf::Boolean(true), "{locked:?}");
    let again = a.call(0, "selvage.lock", &held).unwrap();
    assert_eq!(again[3], Amf::Boolean(true), "locks nest: {again:?}");
    b.say(&Batch::new("held", 1).set("b", &Amf::Number(1.0)))
        .unwrap();
    // The holder's own writes are made; the other's wait, and so come after.
    let told = a
        .ask(&Batch::new("held", 1).set("a", &Amf::Number(1.0)))
        .unwrap();
    assert_eq!(told.slots(SUCCESS), ["a"], "{told:?}");
    let told = b.hear().unwrap();
    assert_eq!(
        told.slots(CHANGE),
        ["a"],
        "the write did not wait: {told:?}"
    );
    let mut heard = Vec::new();
    for _ in 0..2 {
        let (freed, told) = a.call_hearing("selvage.unlock", &held[..2]).unwrap();
        assert_eq!(freed, Amf::Boolean(true));
        heard.extend(told);
    }
    let told = b.hear().unwrap();
    assert_eq!(told.slots(SUCCESS), ["b"], "{told:?}");
    if heard.is_empty() {
        heard.push(a.hear().unwrap());
    }
    assert_eq!(heard[0].slots(CHANGE), ["b"], "{heard:?}");
    let freed = a.call(0, "selvage.unlock", &held[..2]).unwrap();
    assert_eq!(freed[3], Amf::Boolean(false), "nobody holds it: {freed:?}");
    // A lease of a second.
    let brief = [Amf::Null, Amf::text("held"), Amf::Number(1000.0)];
    a.call(0, "selvage.lock", &brief).unwrap();
    let since = Instant::now();
    let told = b
        .ask(&Batch::new("held", 3).set("b", &Amf::Number(2.0)))
        .unwrap();
    let waited = since.elapsed();
    println!("a lease of 1 s held a write up for {waited:?}");
    assert_eq!(told.slots(SUCCESS), ["b"], "{told:?}");
    assert!(waited > Duration::from_millis(500), "{waited:?}");
    // Who goes takes its lock with it.
    a.call(0, "selvage.lock", &held).unwrap();
    drop(a);
    let told = b
        .ask(&Batch::new("held", 4).set("b", &Amf::Number(3.0)))
        .unwrap();
    assert_eq!(told.slots(SUCCESS), ["b"], "{told:?}");
}

#[test]
fn of_a_question_asked_many_times_one_is_answered_and_what_was_released_holds_nothing_up() {
    let cluster = Cluster::start(3, 1);
    let _amy = amy(&cluster, "live/many");
    let mut bob = Raw::connect(cluster.edges[0].addr, "live/many").unwrap();
    let uses = "01 00 00 00 00".repeat(1000);
    let chat = "00 04 63 68 61 74 00 00 00 00 00 00 00 00 00 00 00 00";
    say(&mut bob, AMF0, &format!("{chat} {uses}"));
    expect(&mut bob, "the one answer", AMF0, WELCOME);
    let made = |version| Batch::new("chat", version).with(SUCCESS, &name("count"));
    let count = |version, value| Batch::new("chat", version).set("count", &Amf::Number(value));
    assert_eq!(bob.ask(&count(7, 4.0)).unwrap(), made(8));
    // Nobody is told of these any more, and nothing waits for them.
    bob.say(&Batch::new("other", 0).use_it()).unwrap();
    let one = Amf::Number(1.0);
    bob.say(&Batch::new("other", 0).set("a", &one)).unwrap();
    bob.say(&Batch::new("other", 0).release()).unwrap();
    assert_eq!(bob.ask(&count(8, 5.0)).unwrap(), made(9));
}
