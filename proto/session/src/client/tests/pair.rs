//! The two roles against each other, in virtual time.

use std::time::Instant;

use amf::Value;
use bytes::Bytes;
use model::object::{ObjectAsk, ObjectEvent, ObjectUpdate};
use model::{ObjectKind, ObjectName, SessionId, SlotName, SlotOp, Version};
use rtmp::{Message, MessageKind, StreamId};

use super::super::{
    ClientSession, Closed, Event, Output, PlayRequest, Progress, RemoteObject, Setup, object,
};
use crate::event::{
    CloseReason, Event as ServerEvent, Notice, ObjectEncoding, Output as ServerOutput, PlayStart,
    PublishMode, Refusal, Reply,
};
use crate::object::ObjectRequest;
use crate::{ServerSession, ServerSetup};

/// A client and a server session, and a clock that the test moves.
struct Pair {
    client: ClientSession,
    server: ServerSession,
    now: Instant,
    at_client: Vec<Event>,
    at_server: Vec<ServerEvent>,
}

impl Pair {
    fn new(setup: &Setup) -> Self {
        let now = Instant::now();
        let mut pair = Self {
            client: ClientSession::new(setup, now).unwrap(),
            server: ServerSession::new(ServerSetup::new(1), now),
            now,
            at_client: Vec::new(),
            at_server: Vec::new(),
        };
        pair.drive();
        pair
    }

    fn connected() -> Self {
        let mut pair = Self::new(&Setup::new("live/room", "rtmp://h/live/room"));
        let request = match pair.at_server.remove(0) {
            ServerEvent::Connect { request, connect } => {
                assert_eq!(connect.at.to_string(), "live/room");
                request
            }
            other => panic!("{other:?}"),
        };
        pair.reply(request, Reply::Accept);
        assert!(
            pair.at_client
                .iter()
                .any(|event| matches!(event, Event::Connected(_)))
        );
        pair.at_client.clear();
        pair
    }

    fn reply(&mut self, request: crate::RequestId, reply: Reply) {
        self.server.handle_reply(request, reply, self.now).unwrap();
        self.drive();
    }

    /// Carries messages to and fro until both sides are silent.
    fn drive(&mut self) {
        loop {
            let mut moved = false;
            while let Some(output) = self.client.poll_output() {
                moved = true;
                match output {
                    Output::Message(message) => {
                        self.server.handle_message(message, self.now).unwrap();
                    }
                    Output::Event(event) => self.at_client.push(event),
                }
            }
            while let Some(output) = self.server.poll_output() {
                moved = true;
                match output {
                    ServerOutput::Message(message) => self.client.handle_message(message).unwrap(),
                    ServerOutput::Event(event) => self.at_server.push(event),
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn stream(&mut self) -> StreamId {
        self.client.create_stream().unwrap();
        self.drive();
        match self.at_client.pop() {
            Some(Event::StreamReady { stream, .. }) => stream,
            other => panic!("{other:?}"),
        }
    }

    fn codes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.at_client)
            .into_iter()
            .filter_map(|event| match event {
                Event::Status { status, .. } => Some(status.code),
                _ => None,
            })
            .collect()
    }
}

#[test]
fn a_pair_publishes_and_says_goodbye() {
    let mut pair = Pair::connected();
    pair.client.release_stream("a").unwrap();
    pair.client.fc_publish("a").unwrap();
    let stream = pair.stream();
    pair.client
        .publish(stream, "a?key=k", PublishMode::Live)
        .unwrap();
    pair.drive();
    let request = match pair.at_server.pop() {
        Some(ServerEvent::Publish {
            request,
            key,
            query,
            mode: PublishMode::Live,
            ..
        }) => {
            assert_eq!(
                (key.to_string().as_str(), query.as_str()),
                ("live/room/a", "key=k")
            );
            request
        }
        other => panic!("{other:?}"),
    };
    pair.reply(request, Reply::Accept);
    assert_eq!(pair.codes(), ["NetStream.Publish.Start"]);

    pair.at_server.clear();
    let payload = Bytes::from_static(&[0x17, 1, 0, 0, 0, 9, 9]);
    let sent = Message {
        kind: MessageKind::Video,
        stream,
        time: 40,
        payload: payload.clone(),
    };
    pair.client.send(sent).unwrap();
    let meta = Value::object([("width", Value::from(640.0))]);
    pair.client
        .send_data(stream, 40, "@setDataFrame", ["onMetaData".into(), meta])
        .unwrap();
    pair.drive();
    let [
        ServerEvent::Frame { frame: video, .. },
        ServerEvent::Frame { frame: data, .. },
    ] = pair.at_server.as_slice()
    else {
        panic!("{:?}", pair.at_server)
    };
    assert_eq!((video.class, &video.payload), (model::Class::Key, &payload));
    assert_eq!(data.class, model::Class::Config);

    pair.at_server.clear();
    pair.client.close();
    pair.drive();
    assert_eq!(pair.at_server, [ServerEvent::Finished { stream }]);
    assert_eq!(
        pair.at_client.pop(),
        Some(Event::Closed {
            reason: Closed::Here
        })
    );
}

#[test]
fn a_pair_refuses_a_name_that_is_taken() {
    let mut pair = Pair::connected();
    let stream = pair.stream();
    pair.client.publish(stream, "a", PublishMode::Live).unwrap();
    pair.drive();
    let Some(ServerEvent::Publish { request, .. }) = pair.at_server.pop() else {
        panic!()
    };
    pair.reply(request, Reply::Refuse(Refusal::BadName));
    assert_eq!(pair.codes(), ["NetStream.Publish.BadName"]);
}

#[test]
fn a_pair_plays_what_it_asked_for() {
    let mut pair = Pair::connected();
    let stream = pair.stream();
    let request = PlayRequest {
        start: PlayStart::Live,
        seconds: Some(2.5),
        reset: true,
    };
    pair.client.play(stream, "flv:a", request).unwrap();
    pair.client.set_buffer_length(stream, 500).unwrap();
    pair.drive();
    let request = pair
        .at_server
        .iter()
        .find_map(|event| match event {
            ServerEvent::Play {
                request,
                key,
                window,
                reset: true,
                ..
            } => {
                assert_eq!(key.to_string(), "live/room/a");
                assert_eq!((window.start, window.seconds), (PlayStart::Live, Some(2.5)));
                Some(*request)
            }
            _ => None,
        })
        .unwrap();
    pair.reply(request, Reply::Accept);
    let begun = Event::Progress {
        stream,
        progress: Progress::Begin,
    };
    assert!(pair.at_client.contains(&begun), "{:?}", pair.at_client);
    assert_eq!(
        pair.codes(),
        ["NetStream.Play.Reset", "NetStream.Play.Start"]
    );
    for (notice, code) in [
        (Notice::Unpublished, "NetStream.Play.UnpublishNotify"),
        (Notice::Published, "NetStream.Play.PublishNotify"),
        (
            Notice::InsufficientBandwidth,
            "NetStream.Play.InsufficientBW",
        ),
    ] {
        pair.server.handle_notice(stream, notice, pair.now);
        pair.drive();
        assert_eq!(pair.codes(), [code]);
    }
    pair.server
        .handle_notice(stream, Notice::Complete, pair.now);
    pair.drive();
    assert_eq!(
        pair.codes(),
        ["NetStream.Play.Complete", "NetStream.Play.Stop"]
    );
}

#[test]
fn a_pair_calls_and_a_method_that_is_not_there_fails() {
    let mut pair = Pair::connected();
    let good = pair
        .client
        .call("sum", [Value::from(1.0), 2.0.into()])
        .unwrap();
    let bad = pair.client.call("no", []).unwrap();
    pair.client.notify("quiet", [Value::from("x")]).unwrap();
    pair.drive();
    let calls: Vec<_> = std::mem::take(&mut pair.at_server)
        .into_iter()
        .map(|event| match event {
            ServerEvent::Call {
                request,
                name,
                args,
            } => (request, name, args),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(calls[0].2, [Value::from(1.0), 2.0.into()]);
    assert_eq!((calls[2].0, calls[2].1.as_str()), (None, "quiet"));
    pair.reply(
        calls[1].0.unwrap(),
        Reply::Failed("Method not found (no).".into()),
    );
    pair.reply(calls[0].0.unwrap(), Reply::Result(3.0.into()));
    let [
        Event::Failed {
            call: failed,
            status,
        },
        Event::Result { call, value },
    ] = pair.at_client.as_slice()
    else {
        panic!("{:?}", pair.at_client)
    };
    assert_eq!((*failed, *call, value), (bad, good, &3.0.into()));
    assert_eq!(status.description, "Method not found (no).");
}

#[test]
fn a_pair_that_is_refused_is_over_on_both_sides() {
    let mut pair = Pair::new(&Setup::new("live", "rtmp://h/live"));
    let Some(ServerEvent::Connect { request, .. }) = pair.at_server.pop() else {
        panic!()
    };
    pair.reply(request, Reply::Refuse(Refusal::InvalidApp));
    let [
        Event::Rejected(rejection),
        Event::Closed {
            reason: Closed::Rejected,
        },
    ] = &pair.at_client[..]
    else {
        panic!("{:?}", pair.at_client)
    };
    assert_eq!(rejection.status.code, "NetConnection.Connect.InvalidApp");
    assert!(
        matches!(
            &pair.at_server[..],
            [ServerEvent::Closed {
                reason: CloseReason::Refused
            }]
        ),
        "{:?}",
        pair.at_server
    );
}

#[test]
fn a_pair_stays_alive_by_pings_in_virtual_time() {
    let mut pair = Pair::connected();
    for _ in 0..10 {
        let due = pair.server.deadline().unwrap();
        assert!(due > pair.now, "the clock moves on");
        pair.now = due;
        pair.server.handle_timeout(pair.now);
        pair.drive();
    }
    assert!(pair.server.is_connected());
    assert_eq!((pair.at_client.len(), pair.at_server.len()), (0, 0));
}

#[test]
fn a_pair_shares_an_object_in_either_encoding() {
    for encoding in [ObjectEncoding::Amf0, ObjectEncoding::Amf3] {
        let setup = Setup {
            encoding,
            ..Setup::new("chat", "rtmp://h/chat")
        };
        let mut pair = Pair::new(&setup);
        let Some(ServerEvent::Connect { request, .. }) = pair.at_server.pop() else {
            panic!()
        };
        pair.reply(request, Reply::Accept);
        pair.at_client.clear();

        let name = ObjectName::new("users").unwrap();
        let mut object = RemoteObject::new(name.clone(), ObjectKind::Temporary);
        let bytes = Value::ByteArray(Bytes::from_static(b"x"));
        let slots = ["bytes", "count"].map(|name| SlotName::new(name).unwrap());
        object.use_it();
        object.set(slots[0].clone(), bytes.clone()).unwrap();
        object.set(slots[1].clone(), 5.0.into()).unwrap();
        object.flush();

        // The Use, and its answer.
        share(&mut pair, &mut object);
        let asked = asked_object(&mut pair);
        assert_eq!(
            (&asked.name, &asked.asks[..]),
            (&name, &[ObjectAsk::Use][..])
        );
        assert_eq!(pair.server.object_encoding(), encoding);
        let tell = |pair: &mut Pair, version, events| {
            let update = ObjectUpdate {
                name: name.clone(),
                kind: ObjectKind::Temporary,
                version: Version(version),
                events,
            };
            pair.server.handle_object(&update, pair.now);
        };
        let first = vec![ObjectEvent::UseSuccess, ObjectEvent::Clear];
        tell(&mut pair, 1, first);
        share(&mut pair, &mut object);
        assert!(object.is_used() && object.is_waiting());

        // The batch, and its answers: one is accepted, the other refused.
        let asked = asked_object(&mut pair);
        let [ObjectAsk::Write(ops)] = &asked.asks[..] else {
            panic!("{asked:?}")
        };
        let Some(SlotOp::Set { value, .. }) = ops.first() else {
            panic!("{ops:?}")
        };
        let answer = vec![
            ObjectEvent::Change {
                slot: slots[0].clone(),
                value: value.clone(),
            },
            ObjectEvent::Success {
                slot: slots[1].clone(),
            },
        ];
        tell(&mut pair, 2, answer);
        share(&mut pair, &mut object);
        assert!(!object.is_waiting());
        assert_eq!(object.get(&slots[1]), Some(&5.0.into()));
        // In AMF0 there are no byte arrays.
        let expected = match encoding {
            ObjectEncoding::Amf0 => Value::Unsupported,
            ObjectEncoding::Amf3 => bytes,
        };
        assert_eq!(object.get(&slots[0]), Some(&expected));
    }
}

#[test]
fn a_pair_knows_the_session_that_a_client_of_several_edges_has() {
    let session = SessionId(7);
    let setup = Setup::new("chat", "rtmp://h/chat").identify(session);
    let mut pair = Pair::new(&setup);
    let Some(ServerEvent::Connect { request, connect }) = pair.at_server.pop() else {
        panic!()
    };
    assert_eq!(connect.session, Some(session));
    pair.reply(request, Reply::Accept);
    pair.at_client.clear();

    let call = pair.client.resume(session, 12).unwrap();
    pair.drive();
    let Some(ServerEvent::Resume { request, .. }) = pair.at_server.last() else {
        panic!("{:?}", pair.at_server)
    };
    let request = *request;
    let resume = ServerEvent::Resume {
        request,
        session,
        next: 12,
    };
    assert_eq!(pair.at_server.pop(), Some(resume));
    pair.reply(request.unwrap(), Reply::Result(Value::Null));
    let answered = Event::Result {
        call,
        value: Value::Null,
    };
    assert_eq!(pair.at_client, [answered]);
}

/// Carries what the object says to the server, and what it is told to the object.
fn share(pair: &mut Pair, object: &mut RemoteObject) {
    loop {
        while let Some(output) = object.poll_output() {
            if let object::Output::Message(message) = output {
                pair.client.send_object(&message).unwrap();
            }
        }
        pair.drive();
        if pair.at_client.is_empty() {
            return;
        }
        for event in std::mem::take(&mut pair.at_client) {
            match event {
                Event::Object(update) => object.handle_update(&update).unwrap(),
                other => panic!("{other:?}"),
            }
        }
    }
}

fn asked_object(pair: &mut Pair) -> ObjectRequest {
    match pair.at_server.remove(0) {
        ServerEvent::Object(asked) => *asked,
        other => panic!("{other:?}"),
    }
}
