//! What must hold for any sequence of operations on a server session. The fuzz target
//! and the replay of its corpus run this.
//!
//! The bytes are read as operations: a client's messages, the shell's replies and
//! notices, and time. A model beside the session keeps the books.

mod input;
mod object;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use amf::Value;
use rtmp::{Message, MessageKind, StreamId};

use self::input::{Input, command};
use crate::error::Error;
use crate::event::{Event, Notice, ObjectEncoding, Output, Reply, RequestId};
use crate::limits::{
    OBJECTS_PER_CLIENT_MAX, OPEN_CALLS_MAX, PEER_ADDRESSES_MAX, STREAMS_MAX, WAITING_MESSAGES_MAX,
};
use crate::object::{Bounds, ObjectMessage};
use crate::server::{ServerSession, ServerSetup};

/// The most outputs one operation may cause: an accepted `connect` with all that waited
/// for it, each with its handful of messages.
const OUTPUTS_MAX: usize = 16 * (WAITING_MESSAGES_MAX + 1);

pub use self::object::object;

/// Runs the operations that the bytes stand for. When a session is over, the next one
/// begins.
pub fn session(bytes: &[u8], start: Instant) {
    let mut input = Input(bytes);
    let mut now = start;
    while !input.0.is_empty() {
        one_session(&mut input, &mut now);
    }
}

fn one_session(input: &mut Input<'_>, now: &mut Instant) {
    let mut books = Books::default();
    let mut session = ServerSession::new(ServerSetup::new(1), *now);
    // Most sessions are spared the way to their first stream.
    if input.byte().is_some_and(|byte| byte % 4 != 0) {
        books.begin(&mut session, *now);
    }
    while !books.over {
        let Some(operation) = input.byte() else {
            return;
        };
        let result = operate(operation, input, &mut session, &mut books, now);
        let over = result.is_err_and(|error| error.is_fatal());
        books.drain(&mut session);
        if over {
            assert!(session.is_closed(), "a fatal error ends the session");
        }
        books.over |= session.is_closed();
    }
    // Over is over.
    let _ = operate(
        input.byte().unwrap_or(0),
        input,
        &mut session,
        &mut books,
        now,
    );
    assert_eq!(session.poll_output(), None, "a word after the end");
    assert_eq!(session.deadline(), None, "a deadline after the end");
}

fn operate(
    operation: u8,
    input: &mut Input<'_>,
    session: &mut ServerSession,
    books: &mut Books,
    now: &mut Instant,
) -> Result<(), Error> {
    match operation % 16 {
        0..=6 => session.handle_message(input.command(), *now),
        7 => session.handle_message(input.connect(), *now),
        8 | 9 => session.handle_message(input.media(), *now),
        10 => session.handle_message(input.raw(), *now),
        11 | 12 => {
            // Drawn from what was asked, but of any kind.
            let (request, reply) = input.reply(&books.open(), books.next);
            books.answered(request, &reply);
            session.handle_reply(request, reply, *now)
        }
        13 => {
            let (stream, notice) = (input.stream(), input.notice());
            books.noticed(stream, notice);
            session.handle_notice(stream, notice, *now);
            Ok(())
        }
        14 => {
            *now += Duration::from_millis(100 * u64::from(input.byte().unwrap_or(1)));
            session.handle_timeout(*now);
            let due = session.deadline();
            assert!(
                due.is_none_or(|at| at > *now),
                "a deadline stays due: a busy loop"
            );
            Ok(())
        }
        _ => {
            match input.byte().unwrap_or(0) % 8 {
                0 => session.close(input.refusal(), *now),
                1 | 2 => session.handle_traffic(*now),
                3 => return session.handle_message(input.object(), *now),
                4 => session.handle_object(&input.object_update(), *now),
                _ => drop(session.request_reconnect(Some("rtmp://h/a"), *now)),
            }
            Ok(())
        }
    }
}

/// What a shell would know.
#[derive(Debug, Default)]
struct Books {
    asked: BTreeMap<RequestId, Question>,
    /// Streams with a publish or a play of which the shell must hear the end.
    held: BTreeMap<StreamId, Role>,
    next: u64,
    over: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Connect,
    Call,
    Publish(StreamId),
    Play(StreamId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Asked with this request.
    Asking(RequestId),
    Publishing,
    Playing,
}

impl Books {
    /// Connects, and makes two streams.
    fn begin(&mut self, session: &mut ServerSession, now: Instant) {
        let connect = command(
            0,
            "connect",
            1.0,
            Value::object([("app", Value::from("live"))]),
            [],
        );
        let create = || command(0, "createStream", 2.0, Value::Null, []);
        for message in [connect, create(), create()] {
            let taken = session.handle_message(message, now);
            assert_eq!(taken, Ok(()), "a plain beginning");
        }
        self.drain(session);
        self.answered(RequestId(0), &Reply::Accept);
        let accepted = session.handle_reply(RequestId(0), Reply::Accept, now);
        assert_eq!(accepted, Ok(()), "the commands that waited");
        self.drain(session);
    }

    fn open(&self) -> Vec<u64> {
        self.asked.keys().map(|id| id.0).collect()
    }

    fn answered(&mut self, request: RequestId, reply: &Reply) {
        let Some(question) = self.asked.get(&request).copied() else {
            return;
        };
        let yes = match (question, reply) {
            (Question::Call, Reply::Result(_) | Reply::Failed(_)) => false,
            (
                Question::Connect | Question::Publish(_) | Question::Play(_),
                Reply::Accept | Reply::Refuse(_),
            ) => matches!(reply, Reply::Accept),
            // A misuse: the question stays open.
            (Question::Call, Reply::Accept | Reply::Refuse(_))
            | (
                Question::Connect | Question::Publish(_) | Question::Play(_),
                Reply::Result(_) | Reply::Failed(_),
            ) => return,
        };
        self.asked.remove(&request);
        let (stream, role) = match question {
            Question::Publish(stream) => (stream, Role::Publishing),
            Question::Play(stream) => (stream, Role::Playing),
            Question::Connect | Question::Call => return,
        };
        if yes {
            self.held.insert(stream, role);
        } else {
            self.held.remove(&stream);
        }
    }

    fn noticed(&mut self, stream: StreamId, notice: Notice) {
        let ends = match notice {
            Notice::Complete => Some(Role::Playing),
            Notice::Superseded | Notice::Lost => Some(Role::Publishing),
            Notice::Published | Notice::Unpublished | Notice::InsufficientBandwidth => None,
        };
        if ends.is_some() && self.held.get(&stream).copied() == ends {
            self.held.remove(&stream);
        }
    }

    fn drain(&mut self, session: &mut ServerSession) {
        let mut outputs = 0;
        while let Some(output) = session.poll_output() {
            outputs += 1;
            assert!(!self.over, "{output:?} after the end");
            match output {
                Output::Message(message) => check_message(&message),
                Output::Event(event) => self.note(event),
            }
        }
        assert!(outputs <= OUTPUTS_MAX, "{outputs} outputs of one operation");
        assert!(self.held.len() <= STREAMS_MAX, "too many streams");
        assert!(
            session.objects_used() <= OBJECTS_PER_CLIENT_MAX,
            "too many objects"
        );
        let calls = self
            .asked
            .values()
            .filter(|q| **q == Question::Call)
            .count();
        assert!(calls <= OPEN_CALLS_MAX, "{calls} open calls");
    }

    fn ask(&mut self, request: RequestId, question: Question) {
        assert!(request.0 >= self.next, "a request's number appears twice");
        self.next = request.0 + 1;
        self.asked.insert(request, question);
    }

    fn hold(&mut self, stream: StreamId, request: RequestId) {
        let before = self.held.insert(stream, Role::Asking(request));
        assert_eq!(
            before, None,
            "stream {} is asked for twice without an end",
            stream.0
        );
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::Connect { request, .. } => self.ask(request, Question::Connect),
            Event::Call {
                request: Some(request),
                ..
            } => self.ask(request, Question::Call),
            Event::Resume {
                request: Some(request),
                next,
                ..
            } => {
                assert!(next >= 1, "a number that no request has");
                self.ask(request, Question::Call);
            }
            Event::Call { request: None, .. } | Event::Resume { request: None, .. } => {}
            Event::PeerInfo { addresses } => assert!(addresses.len() <= PEER_ADDRESSES_MAX),
            Event::Object(asked) => {
                assert!(!asked.asks.is_empty(), "nothing is asked of an object");
            }
            Event::Publish {
                request, stream, ..
            } => {
                self.ask(request, Question::Publish(stream));
                self.hold(stream, request);
            }
            Event::Play {
                request, stream, ..
            } => {
                self.ask(request, Question::Play(stream));
                self.hold(stream, request);
            }
            Event::Frame { stream, .. } => {
                let role = self.held.get(&stream).copied();
                assert_eq!(
                    role,
                    Some(Role::Publishing),
                    "a frame without an accepted publish"
                );
            }
            Event::Playback { stream, .. } => {
                let role = self.held.get(&stream).copied();
                assert_eq!(
                    role,
                    Some(Role::Playing),
                    "a change without an accepted play"
                );
            }
            Event::Finished { stream } => match self.held.remove(&stream) {
                Some(Role::Asking(request)) => {
                    self.asked.remove(&request);
                }
                Some(Role::Publishing | Role::Playing) => {}
                None => unreachable!("stream {} ended twice", stream.0),
            },
            Event::Closed { .. } => self.over = true,
        }
    }
}

/// What goes to a client can be read by a client.
fn check_message(message: &Message) {
    let read = match message.kind {
        MessageKind::CommandAmf0 | MessageKind::DataAmf0 => {
            amf::amf0::read_all(&message.payload).is_ok()
        }
        MessageKind::CommandAmf3 => {
            amf::amf0::read_all(message.payload.get(1..).unwrap_or_default()).is_ok()
        }
        MessageKind::UserControl => rtmp::UserControl::decode(&message.payload).is_ok(),
        MessageKind::SharedObjectAmf0 => is_object(message, ObjectEncoding::Amf0),
        MessageKind::SharedObjectAmf3 => is_object(message, ObjectEncoding::Amf3),
        MessageKind::Audio | MessageKind::Video | MessageKind::DataAmf3 => false,
    };
    assert!(read, "an unreadable message leaves: {message:?}");
}

fn is_object(message: &Message, encoding: ObjectEncoding) -> bool {
    ObjectMessage::decode(&message.payload, encoding, Bounds::UPDATES).is_ok()
}
