//! A client's object, word by word.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a broken test is to end at once"
)]

use amf::Value;
use model::{ObjectKind, ObjectName, SlotName, SlotValue};
use selvage_session::ObjectEncoding::Amf3;
use selvage_session::client::object::{Event, Output, RemoteObject, Sync, SyncCode};
use selvage_session::object::{Bounds, ObjectMessage, WireEvent, encode_value};

fn slot(name: &str) -> SlotName {
    SlotName::new(name).unwrap()
}

fn wire(to: impl Into<Value>) -> SlotValue {
    encode_value(&to.into()).unwrap()
}

fn change(name: &str, to: impl Into<Value>) -> WireEvent {
    WireEvent::Change {
        slot: slot(name),
        value: wire(to),
    }
}

fn set(name: &str, to: impl Into<Value>) -> WireEvent {
    WireEvent::RequestChange {
        slot: slot(name),
        value: wire(to),
    }
}

fn removed(name: &str) -> WireEvent {
    WireEvent::Remove { slot: slot(name) }
}

fn success(name: &str) -> WireEvent {
    WireEvent::Success { slot: slot(name) }
}

fn status(code: &str) -> WireEvent {
    WireEvent::Status {
        code: code.into(),
        level: "error".into(),
    }
}

fn message(version: u32, events: Vec<WireEvent>) -> ObjectMessage {
    let mut message = ObjectMessage::new("chat", ObjectKind::Temporary, version);
    message.events = events;
    message
}

fn object() -> RemoteObject {
    RemoteObject::new(ObjectName::new("chat").unwrap(), ObjectKind::Temporary)
}

/// An object in use at version 7, with `count` 3.
fn used() -> RemoteObject {
    let mut object = object();
    object.use_it();
    let first = vec![
        WireEvent::UseSuccess,
        WireEvent::Clear,
        change("count", 3.0),
    ];
    object.handle_update(&message(7, first)).unwrap();
    drain(&mut object);
    object
}

fn drain(object: &mut RemoteObject) -> Vec<Output> {
    std::iter::from_fn(|| object.poll_output()).collect()
}

fn says(version: u32, events: Vec<WireEvent>) -> Output {
    Output::Message(message(version, events))
}

fn sync(list: &[(SyncCode, &str, Option<Value>)]) -> Output {
    let list = list.iter().map(|(code, name, old)| Sync {
        code: *code,
        name: (!name.is_empty()).then(|| slot(name)),
        old_value: old.clone(),
    });
    Output::Event(Event::Sync(list.collect()))
}

fn get(object: &RemoteObject, name: &str) -> Option<Value> {
    object.get(&slot(name)).cloned()
}

use SyncCode::{Change, Clear, Delete, Reject, Success};

#[test]
fn the_first_sync_clears_and_has_what_there_is() {
    let mut object = object();
    object.use_it();
    assert_eq!(drain(&mut object), [says(0, vec![WireEvent::Use])]);
    let first = vec![WireEvent::UseSuccess, WireEvent::Clear, change("a", 1.0)];
    object.handle_update(&message(7, first)).unwrap();
    let expected = sync(&[(Clear, "", None), (Change, "a", None)]);
    assert_eq!(drain(&mut object), [expected]);
    assert!(object.is_used() && object.version() == 7);
    assert_eq!(get(&object, "a"), Some(1.0.into()));
}

#[test]
fn the_first_sync_comes_even_when_there_is_nothing_to_say() {
    let mut object = object();
    object.use_it();
    drain(&mut object);
    let first = message(1, vec![WireEvent::UseSuccess]);
    object.handle_update(&first).unwrap();
    assert_eq!(drain(&mut object), [sync(&[])]);
}

#[test]
fn only_the_last_value_of_a_slot_is_sent_and_one_batch_at_a_time() {
    let mut object = used();
    object.set(slot("count"), 4.0.into()).unwrap();
    object.set(slot("count"), 5.0.into()).unwrap();
    object.remove(slot("who")).unwrap();
    object.flush();
    let batch = vec![
        set("count", 5.0),
        WireEvent::RequestRemove { slot: slot("who") },
    ];
    assert_eq!(drain(&mut object), [says(7, batch)]);
    // Own writes are read at once.
    assert_eq!(get(&object, "count"), Some(5.0.into()));

    object.set(slot("count"), 6.0.into()).unwrap();
    object.flush();
    object.set(slot("more"), "x".into()).unwrap();
    assert_eq!(drain(&mut object), []);

    let half = message(8, vec![success("count")]);
    object.handle_update(&half).unwrap();
    assert_eq!(drain(&mut object), [sync(&[(Success, "count", None)])]);
    let rest = message(8, vec![removed("who")]);
    object.handle_update(&rest).unwrap();
    let next = vec![set("count", 6.0), set("more", "x")];
    assert_eq!(
        drain(&mut object),
        [sync(&[(Delete, "who", None)]), says(8, next)]
    );
}

#[test]
fn a_refusal_shows_the_winners_value() {
    let mut object = used();
    object.set(slot("count"), 5.0.into()).unwrap();
    object.set(slot("new"), 1.0.into()).unwrap();
    object.flush();
    drain(&mut object);
    let refused = vec![change("count", 6.0), removed("new")];
    object.handle_update(&message(9, refused)).unwrap();
    let list = [
        (Reject, "count", Some(5.0.into())),
        (Reject, "new", Some(1.0.into())),
    ];
    assert_eq!(drain(&mut object), [sync(&list)]);
    assert_eq!(get(&object, "count"), Some(6.0.into()));
    assert_eq!(get(&object, "new"), None);
    assert!(!object.is_waiting());
}

#[test]
fn what_others_do_is_told_with_what_was_before() {
    let mut object = used();
    object
        .handle_update(&message(8, vec![change("count", 4.0)]))
        .unwrap();
    object
        .handle_update(&message(9, vec![removed("count")]))
        .unwrap();
    object
        .handle_update(&message(10, vec![WireEvent::Clear]))
        .unwrap();
    assert_eq!(
        drain(&mut object),
        [
            sync(&[(Change, "count", Some(3.0.into()))]),
            sync(&[(Delete, "count", Some(4.0.into()))]),
            sync(&[(Clear, "", None)]),
        ]
    );
    let other = ObjectMessage::new("other", ObjectKind::Temporary, 99);
    object.handle_update(&other).unwrap();
    assert_eq!(object.version(), 10);
}

#[test]
fn null_takes_a_slot_away_and_a_clear_all_of_them() {
    let mut object = used();
    object.set(slot("count"), Value::Null).unwrap();
    assert_eq!(get(&object, "count"), None);
    object.flush();
    let remove = WireEvent::RequestRemove {
        slot: slot("count"),
    };
    assert_eq!(drain(&mut object), [says(7, vec![remove])]);
    object
        .handle_update(&message(8, vec![removed("count")]))
        .unwrap();
    let gone = sync(&[(Delete, "count", Some(3.0.into()))]);
    assert_eq!(drain(&mut object), [gone]);

    object.set(slot("a"), 1.0.into()).unwrap();
    object.clear();
    object.set(slot("b"), 1.0.into()).unwrap();
    assert_eq!(object.slots().count(), 1);
    object.flush();
    let batch = vec![WireEvent::RequestClear, set("b", 1.0)];
    assert_eq!(drain(&mut object), [says(8, batch)]);
    let answer = vec![WireEvent::Clear, success("b")];
    object.handle_update(&message(9, answer)).unwrap();
    let list = [(Clear, "", None), (Success, "b", None)];
    assert_eq!(drain(&mut object), [sync(&list)]);
    assert!(!object.is_waiting());
}

#[test]
fn a_change_that_crossed_a_request_does_not_hide_that_it_was_accepted() {
    let mut object = used();
    object.set(slot("count"), 5.0.into()).unwrap();
    object.flush();
    drain(&mut object);
    object
        .handle_update(&message(8, vec![change("count", 4.0)]))
        .unwrap();
    object
        .handle_update(&message(9, vec![success("count")]))
        .unwrap();
    let list = [
        sync(&[(Reject, "count", Some(5.0.into()))]),
        sync(&[(Success, "count", None)]),
    ];
    assert_eq!(drain(&mut object), list);
    assert_eq!(get(&object, "count"), Some(5.0.into()));
}

#[test]
fn messages_are_not_gathered_and_come_back() {
    let mut object = used();
    object.send("onMsg", ["hello".into()]).unwrap();
    object.send("onMsg", ["hello".into()]).unwrap();
    let sent = drain(&mut object);
    assert_eq!(sent.len(), 2);
    let Output::Message(first) = &sent[0] else {
        panic!("{sent:?}");
    };
    // The version of a message to all says nothing.
    let mut echo = first.clone();
    echo.version = 0;
    echo.events.insert(0, change("count", 4.0));
    object.handle_update(&echo).unwrap();
    let heard = Output::Event(Event::Message {
        handler: "onMsg".into(),
        args: vec!["hello".into()],
    });
    let before = sync(&[(Change, "count", Some(3.0.into()))]);
    assert_eq!(drain(&mut object), [before, heard]);
}

#[test]
fn a_write_that_could_not_be_decided_is_refused_with_a_status() {
    let mut object = used();
    object.set(slot("count"), 5.0.into()).unwrap();
    object.flush();
    drain(&mut object);
    let told = vec![change("count", 3.0), status("SharedObject.Undecided")];
    object.handle_update(&message(7, told)).unwrap();
    let failed = Output::Event(Event::Status {
        code: "SharedObject.Undecided".into(),
        level: "error".into(),
    });
    let rejected = sync(&[(Reject, "count", Some(5.0.into()))]);
    assert_eq!(drain(&mut object), [failed, rejected]);
    // It turns out to be made.
    object
        .handle_update(&message(8, vec![change("count", 5.0)]))
        .unwrap();
    let made = sync(&[(Change, "count", Some(3.0.into()))]);
    assert_eq!(drain(&mut object), [made]);
}

#[test]
fn a_use_that_is_refused_leaves_it_unused() {
    let mut object = object();
    object.use_it();
    drain(&mut object);
    object
        .handle_update(&message(0, vec![status("SharedObject.BadPersistence")]))
        .unwrap();
    assert!(!object.is_used());
    object.set(slot("a"), 1.0.into()).unwrap();
    object.flush();
    assert_eq!(drain(&mut object).len(), 1, "the status alone");
}

#[test]
fn what_was_under_way_when_the_connection_broke_is_written_anew() {
    let mut object = used();
    object.set(slot("count"), 5.0.into()).unwrap();
    object.set(slot("a"), 1.0.into()).unwrap();
    object.flush();
    object.set(slot("a"), 2.0.into()).unwrap();
    drain(&mut object);
    object.lost();
    object.use_it();
    assert_eq!(drain(&mut object), [says(7, vec![WireEvent::Use])]);
    let resumed = vec![WireEvent::UseSuccess, change("count", 9.0)];
    object.handle_update(&message(8, resumed)).unwrap();
    let batch = vec![set("a", 2.0), set("count", 5.0)];
    let news = sync(&[(Change, "count", Some(5.0.into()))]);
    assert_eq!(drain(&mut object), [news, says(8, batch)]);
}

#[test]
fn a_batch_is_no_larger_than_a_server_takes() {
    for (count, text) in [(2500, "x"), (12, &"x".repeat(50_000)[..])] {
        let mut object = used();
        for i in 0..count {
            object.set(slot(&format!("s{i:04}")), text.into()).unwrap();
        }
        object.flush();
        let mut sent = 0;
        while let Some(output) = object.poll_output() {
            let Output::Message(asked) = output else {
                continue;
            };
            let bytes = asked.encode(Amf3);
            let read = ObjectMessage::decode(&bytes, Amf3, Bounds::ASKS).unwrap();
            sent += read.events.len();
            let answer = read.events.iter().map(|event| match event {
                WireEvent::RequestChange { slot, .. } => WireEvent::Success { slot: slot.clone() },
                other => panic!("{other:?}"),
            });
            let answer = answer.collect();
            assert!(object.is_waiting());
            object.handle_update(&message(8, answer)).unwrap();
        }
        assert_eq!(sent, count);
        assert!(!object.is_dirty() && !object.is_waiting());
    }
}

#[test]
fn a_value_that_cannot_be_written_is_not_taken() {
    let mut object = used();
    object.set(slot("count"), Value::Reference(7)).unwrap_err();
    assert!(!object.is_dirty());
    assert_eq!(get(&object, "count"), Some(3.0.into()));
}
