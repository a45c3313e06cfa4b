//! The client role against a server that follows a script, and against ours.
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test looks for the one variant it expects"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "virtual time begins at some instant, and there is no other way to make one"
)]

mod pair;

use std::time::{Duration, Instant};

use amf::Value;
use bytes::Bytes;
use rtmp::{Message, MessageKind, StreamId, UserControl};

use super::{ClientSession, Closed, Error, Event, Misbehaviour, Misuse, Output, Setup};

/// A client alone, with a server that says what the test says.
struct Scripted {
    client: ClientSession,
}

impl Scripted {
    fn new(setup: &Setup) -> Self {
        Self {
            client: ClientSession::new(setup, Instant::now()).unwrap(),
        }
    }

    fn connected() -> Self {
        let mut this = Self::new(&Setup::new("live", "rtmp://h/live"));
        this.commands();
        this.says(
            0,
            [Value::from("_result"), 1.0.into(), Value::Null, success()],
        );
        assert!(matches!(this.events().as_slice(), [Event::Connected(_)]));
        this
    }

    fn says(&mut self, stream: u32, values: impl IntoIterator<Item = Value>) {
        self.try_says(stream, values).unwrap();
    }

    fn try_says(
        &mut self,
        stream: u32,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<(), Error> {
        let values: Vec<Value> = values.into_iter().collect();
        let payload = amf::amf0::write_all(&values).unwrap();
        self.client
            .handle_message(message(MessageKind::CommandAmf0, stream, payload))
    }

    fn messages_and_events(&mut self) -> (Vec<Message>, Vec<Event>) {
        let (mut messages, mut events) = (Vec::new(), Vec::new());
        while let Some(output) = self.client.poll_output() {
            match output {
                Output::Message(message) => messages.push(message),
                Output::Event(event) => events.push(event),
            }
        }
        (messages, events)
    }

    fn events(&mut self) -> Vec<Event> {
        self.messages_and_events().1
    }

    /// The commands sent, as stream and values.
    fn commands(&mut self) -> Vec<(u32, Vec<Value>)> {
        let (messages, _) = self.messages_and_events();
        messages
            .iter()
            .filter(|message| message.kind == MessageKind::CommandAmf0)
            .map(|message| {
                (
                    message.stream.0,
                    amf::amf0::read_all(&message.payload).unwrap(),
                )
            })
            .collect()
    }
}

fn message(kind: MessageKind, stream: u32, payload: Bytes) -> Message {
    Message {
        kind,
        stream: StreamId(stream),
        time: 0,
        payload,
    }
}

fn success() -> Value {
    info("status", "NetConnection.Connect.Success")
}

fn info(level: &str, code: &str) -> Value {
    Value::object([("level", Value::from(level)), ("code", code.into())])
}

#[test]
fn connect_says_what_flash_player_says_and_what_enhanced_rtmp_adds() {
    let setup = Setup {
        args: vec![7.0.into()],
        extra: vec![
            ("capabilities".into(), 15.0.into()),
            ("token".into(), "t".into()),
        ],
        ..Setup::publisher("live/room?x=1", "rtmp://h/live/room?x=1")
    };
    let commands = Scripted::new(&setup).commands();
    let [(0, values)] = commands.as_slice() else {
        panic!("{commands:?}")
    };
    let [name, transaction, object, argument] = values.as_slice() else {
        panic!("{values:?}")
    };
    assert_eq!((name, transaction), (&"connect".into(), &1.0.into()));
    assert_eq!(argument, &7.0.into());
    let get = |key| object.get(key).cloned().unwrap_or_default();
    assert_eq!(get("app"), "live/room?x=1".into());
    assert_eq!(get("tcUrl"), "rtmp://h/live/room?x=1".into());
    assert_eq!(get("flashVer"), "FMLE/3.0 (compatible; FMSc/1.0)".into());
    assert_eq!(get("type"), "nonprivate".into());
    assert_eq!(get("fpad"), false.into());
    assert_eq!(get("audioCodecs"), 3575.0.into());
    assert_eq!(get("videoCodecs"), 252.0.into());
    assert_eq!(get("videoFunction"), 1.0.into());
    assert_eq!(get("objectEncoding"), 0.0.into());
    assert_eq!(get("capabilities"), 15.0.into(), "replaced");
    assert_eq!(get("token"), "t".into(), "added");
    assert_eq!(
        get("videoFourCcInfoMap"),
        Value::object([("*", Value::from(2.0))])
    );
    assert!(matches!(get("fourCcList"), Value::StrictArray(list) if list.len() == 12));
    assert_eq!(get("capsEx"), 6.0.into());
}

#[test]
fn nothing_can_be_asked_before_the_answer_to_connect() {
    let mut this = Scripted::new(&Setup::new("live", "rtmp://h/live"));
    assert_eq!(
        this.client.create_stream(),
        Err(Error::ApiMisuse(Misuse::NotConnected))
    );
    this.client.close();
    assert_eq!(
        this.client.create_stream(),
        Err(Error::ApiMisuse(Misuse::Closed))
    );
}

#[test]
fn a_server_that_does_not_answer_connect_is_given_up() {
    let now = Instant::now();
    let setup = Setup {
        patience: Duration::from_secs(3),
        ..Setup::new("live", "rtmp://h/live")
    };
    let mut this = Scripted {
        client: ClientSession::new(&setup, now).unwrap(),
    };
    assert_eq!(this.client.deadline(), Some(now + Duration::from_secs(3)));
    this.client
        .handle_timeout(now + Duration::from_millis(2999));
    assert_eq!(this.events(), []);
    this.client.handle_timeout(now + Duration::from_secs(3));
    assert_eq!(
        this.events(),
        [Event::Closed {
            reason: Closed::ConnectTimeout
        }]
    );
    assert_eq!(this.client.deadline(), None);
}

#[test]
fn a_refusal_carries_the_scripts_value_and_the_other_address() {
    let mut this = Scripted::new(&Setup::new("live", "rtmp://h/live"));
    let info = Value::object([
        ("level", Value::from("error")),
        ("code", "NetConnection.Connect.Rejected".into()),
        ("description", "[ Server.Reject ] : (go)".into()),
        ("application", 42.0.into()),
        (
            "ex",
            Value::object([
                ("code", Value::from(302.0)),
                ("redirect", "rtmp://o/live".into()),
            ]),
        ),
    ]);
    this.says(0, [Value::from("_error"), 1.0.into(), Value::Null, info]);
    let events = this.events();
    let [
        Event::Rejected(rejection),
        Event::Closed {
            reason: Closed::Rejected,
        },
    ] = events.as_slice()
    else {
        panic!("{events:?}")
    };
    assert_eq!(rejection.status.code, "NetConnection.Connect.Rejected");
    assert_eq!(rejection.status.description, "[ Server.Reject ] : (go)");
    assert_eq!(rejection.application, 42.0.into());
    assert_eq!(rejection.redirect.as_deref(), Some("rtmp://o/live"));
}

#[test]
fn what_a_server_announces_is_read_in_either_object_and_spelling() {
    let mut this = Scripted::new(&Setup::new("live", "rtmp://h/live"));
    let properties = Value::object([("CapsEx", Value::from(1.0))]);
    let info = Value::object([
        ("code", Value::from("NetConnection.Connect.Success")),
        ("objectEncoding", 3.0.into()),
        (
            "videoFourCcInfoMap",
            Value::object([("av01", Value::from(4.0))]),
        ),
        ("fourCcList", Value::array([Value::from("hvc1")])),
    ]);
    this.says(0, [Value::from("_result"), 1.0.into(), properties, info]);
    let events = this.events();
    let [Event::Connected(welcome)] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(welcome.capabilities.codecs, ["av01", "hvc1"]);
    assert!(welcome.capabilities.reconnect());
    assert_eq!(welcome.encoding, crate::ObjectEncoding::Amf3);
}

#[test]
fn answers_find_their_calls_in_any_order_and_strangers_are_ignored() {
    let mut this = Scripted::connected();
    let a = this.client.call("a", [Value::from(1.0)]).unwrap();
    let b = this.client.call("b", []).unwrap();
    let stream = this.client.create_stream().unwrap();
    this.says(
        0,
        [
            Value::from("_result"),
            f64::from(stream.0).into(),
            Value::Null,
            5.0.into(),
        ],
    );
    let failed = info("error", "NetConnection.Call.Failed");
    this.says(
        0,
        [
            Value::from("_error"),
            f64::from(b.0).into(),
            Value::Null,
            failed,
        ],
    );
    this.says(
        0,
        [
            Value::from("_result"),
            f64::from(a.0).into(),
            Value::Null,
            "x".into(),
        ],
    );
    for nonsense in [f64::NAN, -1.0, 1.5, 1e300, f64::from(a.0)] {
        this.says(
            0,
            [
                Value::from("_result"),
                nonsense.into(),
                Value::Null,
                "y".into(),
            ],
        );
    }
    let events = this.events();
    let [
        Event::StreamReady {
            call,
            stream: StreamId(5),
        },
        Event::Failed {
            call: second,
            status,
        },
        Event::Result { call: first, value },
    ] = events.as_slice()
    else {
        panic!("{events:?}")
    };
    assert_eq!((*call, *second, *first), (stream, b, a));
    assert_eq!(status.code, "NetConnection.Call.Failed");
    assert_eq!(value, &"x".into());
}

#[test]
fn a_stream_that_is_no_number_is_the_servers_fault() {
    for answer in [
        Value::Null,
        0.0.into(),
        (-3.0).into(),
        "1".into(),
        f64::NAN.into(),
    ] {
        let mut this = Scripted::connected();
        let call = this.client.create_stream().unwrap();
        let said = this.try_says(
            0,
            [
                Value::from("_result"),
                f64::from(call.0).into(),
                Value::Null,
                answer,
            ],
        );
        assert_eq!(said, Err(Error::PeerMisbehaved(Misbehaviour::NotAStreamId)));
    }
}

#[test]
fn a_ping_is_answered_by_its_number() {
    let mut this = Scripted::connected();
    let ping = UserControl::PingRequest(77).encode();
    this.client
        .handle_message(message(MessageKind::UserControl, 0, ping))
        .unwrap();
    let (messages, events) = this.messages_and_events();
    assert_eq!(events, []);
    assert_eq!(
        messages,
        [message(
            MessageKind::UserControl,
            0,
            UserControl::PingResponse(77).encode()
        )]
    );
}

#[test]
fn bandwidth_checks_are_answered_by_counting() {
    let mut this = Scripted::connected();
    for (transaction, count) in [(2.0, 1.0), (3.0, 2.0)] {
        let payload = "x".repeat(1000);
        this.says(
            0,
            [
                Value::from("onBWCheck"),
                Value::from(transaction),
                Value::Null,
                payload.as_str().into(),
            ],
        );
        let answer = vec![
            Value::from("_result"),
            transaction.into(),
            Value::Null,
            count.into(),
        ];
        assert_eq!(this.commands(), [(0, answer)]);
    }
}

#[test]
fn on_bw_done_is_followed_by_checkbw_only_when_asked_for() {
    let setup = Setup {
        check_bandwidth: true,
        ..Setup::new("live", "rtmp://h/live")
    };
    let done = [Value::from("onBWDone"), 0.0.into(), Value::Null];
    let mut this = Scripted::new(&setup);
    this.commands();
    this.says(
        0,
        [Value::from("_result"), 1.0.into(), Value::Null, success()],
    );
    this.says(0, done.clone());
    let sent = this.commands();
    assert!(
        matches!(sent.as_slice(), [(0, values)] if values[0] == "_checkbw".into()),
        "{sent:?}"
    );
    this.says(0, done.clone());
    assert_eq!(this.commands(), []);

    let mut this = Scripted::connected();
    this.says(0, done);
    let (messages, events) = this.messages_and_events();
    assert_eq!(messages, []);
    assert!(
        matches!(events.as_slice(), [Event::Call { request: None, .. }]),
        "{events:?}"
    );
}

#[test]
fn a_call_of_the_server_is_answered_with_its_own_number() {
    let mut this = Scripted::connected();
    this.says(
        0,
        [Value::from("hello"), 9.0.into(), Value::Null, "you".into()],
    );
    let events = this.events();
    let [
        Event::Call {
            request: Some(request),
            name,
            args,
        },
    ] = events.as_slice()
    else {
        panic!("{events:?}")
    };
    assert_eq!(
        (name.as_str(), args.as_slice()),
        ("hello", &["you".into()][..])
    );
    this.client.answer(*request, Ok(3.0.into())).unwrap();
    this.client.answer(*request, Err("no".into())).unwrap();
    let sent = this.commands();
    assert_eq!(
        sent[0].1,
        [Value::from("_result"), 9.0.into(), Value::Null, 3.0.into()]
    );
    assert_eq!(
        sent[1].1[..3],
        [Value::from("_error"), 9.0.into(), Value::Null]
    );
    assert_eq!(sent[1].1[3].get("description"), Some(&"no".into()));
}

#[test]
fn a_status_among_the_data_is_also_a_status() {
    let mut this = Scripted::connected();
    let body = amf::amf0::write_all(&[
        Value::from("onPlayStatus"),
        info("status", "NetStream.Play.Complete"),
    ])
    .unwrap();
    let data = message(MessageKind::DataAmf0, 1, body.clone());
    this.client.handle_message(data.clone()).unwrap();
    let events = this.events();
    assert!(
        matches!(&events[..], [Event::Status { stream: StreamId(1), status }, Event::Message(m)]
            if status.code == "NetStream.Play.Complete" && *m == data),
        "{events:?}"
    );
    // Cut anywhere it is data, and never an error.
    for len in 0..body.len() {
        let cut = message(MessageKind::DataAmf0, 1, body.slice(..len));
        this.client.handle_message(cut.clone()).unwrap();
        assert_eq!(this.events().pop(), Some(Event::Message(cut)));
    }
}

#[test]
fn commands_with_a_selector_byte_are_commands() {
    let mut this = Scripted::connected();
    let call = this.client.call("a", []).unwrap();
    let body = amf::amf0::write_all(&[
        Value::from("_result"),
        f64::from(call.0).into(),
        Value::Null,
        1.0.into(),
    ])
    .unwrap();
    let body = Bytes::from([&[0][..], &body].concat());
    this.client
        .handle_message(message(MessageKind::CommandAmf3, 0, body))
        .unwrap();
    assert!(matches!(this.events().as_slice(), [Event::Result { .. }]));
}

#[test]
fn unreadable_commands_are_the_servers_fault_and_never_a_panic() {
    for body in [
        &[][..],
        &[5],
        &[2, 0],
        &[2, 0, 9, b'x'],
        &[0x0a, 0xff, 0xff, 0xff, 0xff],
    ] {
        for kind in [MessageKind::CommandAmf0, MessageKind::CommandAmf3] {
            let mut this = Scripted::connected();
            let said = this
                .client
                .handle_message(message(kind, 0, Bytes::copy_from_slice(body)));
            assert!(
                matches!(said, Err(Error::PeerMisbehaved(_))),
                "{body:?}: {said:?}"
            );
        }
    }
}

#[test]
fn a_server_that_answers_nothing_cannot_make_us_remember_without_end() {
    let mut this = Scripted::connected();
    for _ in 0..super::limits::CALLS_OPEN_MAX {
        this.client.call("a", []).unwrap();
    }
    assert_eq!(
        this.client.call("a", []),
        Err(Error::LimitExceeded("calls"))
    );
    let mut this = Scripted::connected();
    for _ in 0..super::limits::CALLS_OPEN_MAX * 2 {
        this.client.release_stream("a").unwrap();
    }
    this.client.call("a", []).unwrap();
    assert_eq!(this.client.calls.len(), super::limits::CALLS_OPEN_MAX);
}

#[test]
fn the_server_may_say_goodbye_in_three_ways() {
    let status = |code: &str| {
        [
            Value::from("onStatus"),
            0.0.into(),
            Value::Null,
            info("status", code),
        ]
        .to_vec()
    };
    for (values, code) in [
        (
            vec![Value::from("close"), 0.0.into(), Value::Null],
            "NetConnection.Connect.Closed",
        ),
        (
            status("NetConnection.Connect.Closed"),
            "NetConnection.Connect.Closed",
        ),
        (
            status("NetConnection.Connect.AppShutdown"),
            "NetConnection.Connect.AppShutdown",
        ),
    ] {
        let mut this = Scripted::connected();
        this.says(0, values);
        let closed = Event::Closed {
            reason: Closed::ByServer(code.into()),
        };
        assert_eq!(this.events().pop(), Some(closed));
        assert!(this.client.is_closed());
    }
}
