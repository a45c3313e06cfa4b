//! One session on a stage: carries out the commands of a script and writes down what
//! the session says.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use amf::Value;
use bytes::Bytes;
use rtmp::{Message, MessageKind, StreamId, UserControl};
use selvage_session::{
    Event, Notice, ObjectEncoding, Output, Refusal, Reply, RequestId, ServerSession, ServerSetup,
};

use crate::amf_text::{hex, read_all, show, unhex};
use crate::object_text;

pub(crate) struct Stage {
    session: ServerSession,
    now: Instant,
}

impl Stage {
    #[allow(
        clippy::disallowed_methods,
        reason = "a test needs some instant to start from"
    )]
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            session: ServerSession::new(setup(), now),
            now,
        }
    }

    /// Carries out one command; `"text"` and other values are AMF as text.
    ///
    /// | command | meaning |
    /// |---|---|
    /// | `new` | a new session |
    /// | `connected [object]` | a new session whose connect is accepted; prints nothing |
    /// | `streams N` | N times createStream; prints nothing |
    /// | `call S NAME TXN VALUES…` | a command message (type 20) on stream S |
    /// | `call17 S NAME TXN VALUES…` | the same as type 17 |
    /// | `data S TIME VALUES…`, `data15 …` | a data message |
    /// | `audio S TIME HEX`, `video S TIME HEX` | media |
    /// | `raw TYPE S HEX` | any message |
    /// | `control NAME NUMBERS…` | a user control message |
    /// | `repeat N COMMAND` | N times the command; prints what the last one says |
    /// | `accept R`, `refuse R KIND [VALUES…]`, `result R VALUE`, `failed R "text"` | replies |
    /// | `notice S KIND` | a notice |
    /// | `after MS` | time passes |
    /// | `close KIND [VALUES…]`, `reconnect [url]`, `invoke NAME VALUES…` | the shell's wishes |
    /// | `object NAME vN EVENTS…`, `object16 …` | a shared-object message (type 19, 16) |
    /// | `tell NAME vN EVENTS…` | a subscriber is told; `told …` in a body drawn beforehand |
    /// | `statuses NAME` | a subscriber is told each status there is |
    /// | `many N` | N different objects are used; prints nothing |
    /// | `flood N` | N removals of one slot in one message |
    /// | `access READ WRITE` | what the client may do: folders with `;` between, `-` is none |
    /// | `state` | what the session says of itself |
    pub(crate) fn run(&mut self, command: &str) -> String {
        let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
        let mut words = Words(rest);
        let result = match verb {
            "new" => {
                *self = Self::new();
                Ok(())
            }
            "connected" => return self.connected(rest),
            "streams" => {
                for _ in 0..words.number() {
                    self.run("call 0 createStream 2 null");
                }
                return String::new();
            }
            "repeat" => {
                let count = words.number();
                return (0..count)
                    .map(|_| self.run(words.0))
                    .last()
                    .unwrap_or_default();
            }
            "call" | "call17" => self.handle(call(verb == "call17", &mut words)),
            "data" | "data15" => self.handle(data(verb == "data15", &mut words)),
            "audio" => self.handle(media(MessageKind::Audio, &mut words)),
            "video" => self.handle(media(MessageKind::Video, &mut words)),
            "raw" => {
                let kind = MessageKind::from_type_id(words.word().parse().unwrap()).unwrap();
                let stream = words.stream();
                self.handle(message(kind, stream, 0, unhex(words.word())))
            }
            "control" => self.handle(control(&mut words)),
            "accept" => self.reply(words.number(), Reply::Accept),
            "refuse" => {
                let request = words.number();
                self.reply(request, Reply::Refuse(refusal(&mut words)))
            }
            "result" => {
                let request = words.number();
                self.reply(request, Reply::Result(words.values().remove(0)))
            }
            "failed" => {
                let request = words.number();
                self.reply(request, Reply::Failed(words.text()))
            }
            "notice" => {
                let stream = words.stream();
                self.session
                    .handle_notice(stream, notice(words.word()), self.now);
                Ok(())
            }
            "after" => {
                self.now += Duration::from_millis(u64::from(words.number()));
                self.session.handle_timeout(self.now);
                Ok(())
            }
            "close" => {
                self.session.close(refusal(&mut words), self.now);
                Ok(())
            }
            "reconnect" => {
                let url = if words.0.is_empty() {
                    None
                } else {
                    Some(words.word())
                };
                let asked = self.session.request_reconnect(url, self.now);
                return format!("{}asked: {asked}\n", self.drain());
            }
            "invoke" => {
                let name = words.word();
                self.session.call(name, words.values(), self.now)
            }
            "object" => self.handle(object(false, words.0)),
            "object16" => self.handle(object(true, words.0)),
            "tell" => {
                let update = object_text::read_update(words.0);
                self.session.handle_object(&update, self.now);
                Ok(())
            }
            "told" => {
                let update = object_text::read_update(words.0);
                let encoding = self.session.object_encoding();
                let body = selvage_session::object::body(&update, encoding);
                self.session.handle_object_body(body, encoding, self.now);
                Ok(())
            }
            "many" => {
                for number in 1..=words.number() {
                    self.run(&format!("object o{number} v0 use"));
                }
                return String::new();
            }
            "flood" => {
                let uses = vec!["remove a"; words.number() as usize].join(" | ");
                let said = self.run(&format!("object chat v0 {uses}"));
                return said.replace(&"remove a, ".repeat(1023), "1023 times remove a, ");
            }
            "statuses" => {
                for update in object_text::statuses(words.0) {
                    self.session.handle_object(&update, self.now);
                }
                Ok(())
            }
            "access" => {
                let list = |word: &str| -> Vec<String> {
                    let folders = word.split(';').filter(|folder| *folder != "-");
                    folders.map(ToOwned::to_owned).collect()
                };
                let (read, write) = (list(words.word()), list(words.word()));
                self.session.set_object_access(read, write);
                Ok(())
            }
            "state" => return self.state(),
            other => panic!("{other} is no command"),
        };
        let mut said = self.drain();
        if let Err(error) = result {
            writeln!(said, "error: {error}").unwrap();
        }
        said
    }

    fn connected(&mut self, object: &str) -> String {
        *self = Self::new();
        let object = if object.is_empty() {
            "{app: \"live\"}"
        } else {
            object
        };
        self.run(&format!("call 0 connect 1 {object}"));
        self.run("accept 0");
        assert!(self.session.is_connected());
        String::new()
    }

    fn handle(&mut self, message: Message) -> Result<(), selvage_session::Error> {
        self.session.handle_message(message, self.now)
    }

    fn reply(&mut self, request: u32, reply: Reply) -> Result<(), selvage_session::Error> {
        self.session
            .handle_reply(RequestId(request.into()), reply, self.now)
    }

    fn drain(&mut self) -> String {
        let mut said = String::new();
        while let Some(output) = self.session.poll_output() {
            let line = match output {
                Output::Message(message) => format!("<- {}", show_message(&message)),
                Output::Event(event) => format!("** {}", show_event(&event)),
            };
            writeln!(said, "{line}").unwrap();
        }
        said
    }

    fn state(&self) -> String {
        let due = self.session.deadline().map_or("never".into(), |at| {
            format!(
                "in {} ms",
                at.saturating_duration_since(self.now).as_millis()
            )
        });
        let phase = match (self.session.is_connected(), self.session.is_closed()) {
            (true, _) => "connected",
            (_, true) => "closed",
            _ => "not connected",
        };
        format!("{phase}, due {due}, {} dropped\n", self.session.dropped())
    }
}

fn setup() -> ServerSetup {
    ServerSetup::new(1)
}

struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn word(&mut self) -> &'a str {
        let (word, rest) = self.0.split_once(' ').unwrap_or((self.0, ""));
        self.0 = rest;
        word
    }

    fn number(&mut self) -> u32 {
        let word = self.word();
        word.parse()
            .unwrap_or_else(|_| panic!("{word} is no number"))
    }

    fn stream(&mut self) -> StreamId {
        StreamId(self.number())
    }

    fn values(&mut self) -> Vec<Value> {
        read_all(std::mem::take(&mut self.0))
    }

    fn text(&mut self) -> String {
        self.values().remove(0).as_str().unwrap().to_owned()
    }
}

fn message(kind: MessageKind, stream: StreamId, time: u32, payload: Vec<u8>) -> Message {
    Message {
        kind,
        stream,
        time,
        payload: payload.into(),
    }
}

fn call(with_selector: bool, words: &mut Words<'_>) -> Message {
    let stream = words.stream();
    let name = words.word();
    let mut values = vec![Value::from(name)];
    values.extend(words.values());
    let body = amf::amf0::write_all(&values).unwrap();
    if with_selector {
        message(
            MessageKind::CommandAmf3,
            stream,
            0,
            [&[0], &body[..]].concat(),
        )
    } else {
        message(MessageKind::CommandAmf0, stream, 0, body.to_vec())
    }
}

fn data(with_selector: bool, words: &mut Words<'_>) -> Message {
    let (stream, time) = (words.stream(), words.number());
    let body = amf::amf0::write_all(&words.values()).unwrap();
    if with_selector {
        message(
            MessageKind::DataAmf3,
            stream,
            time,
            [&[0], &body[..]].concat(),
        )
    } else {
        message(MessageKind::DataAmf0, stream, time, body.to_vec())
    }
}

fn media(kind: MessageKind, words: &mut Words<'_>) -> Message {
    let (stream, time) = (words.stream(), words.number());
    message(kind, stream, time, unhex(words.word()))
}

fn object(with_selector: bool, text: &str) -> Message {
    let (kind, encoding) = if with_selector {
        (MessageKind::SharedObjectAmf3, ObjectEncoding::Amf3)
    } else {
        (MessageKind::SharedObjectAmf0, ObjectEncoding::Amf0)
    };
    let body = object_text::read(text).encode(encoding);
    message(kind, StreamId(0), 0, body.to_vec())
}

fn control(words: &mut Words<'_>) -> Message {
    let event = match words.word() {
        "SetBufferLength" => UserControl::SetBufferLength(words.stream(), words.number()),
        "PingRequest" => UserControl::PingRequest(words.number()),
        "PingResponse" => UserControl::PingResponse(words.number()),
        "StreamBegin" => UserControl::StreamBegin(words.stream()),
        other => panic!("{other} is no user control event"),
    };
    message(
        MessageKind::UserControl,
        StreamId(0),
        0,
        event.encode().to_vec(),
    )
}

fn refusal(words: &mut Words<'_>) -> Refusal {
    match words.word() {
        "Rejected" => {
            let mut values = words.values().into_iter();
            Refusal::Rejected {
                description: values.next().unwrap().as_str().unwrap().to_owned(),
                application: values.next().unwrap_or_default(),
            }
        }
        "Redirected" => Refusal::Redirected { url: words.text() },
        "InvalidApp" => Refusal::InvalidApp,
        "AppShutdown" => Refusal::AppShutdown,
        "BadName" => Refusal::BadName,
        "StreamNotFound" => Refusal::StreamNotFound,
        "Failed" => Refusal::Failed {
            description: words.text(),
        },
        other => panic!("{other} is no refusal"),
    }
}

fn notice(word: &str) -> Notice {
    match word {
        "Published" => Notice::Published,
        "Unpublished" => Notice::Unpublished,
        "InsufficientBandwidth" => Notice::InsufficientBandwidth,
        "Complete" => Notice::Complete,
        "Superseded" => Notice::Superseded,
        "Lost" => Notice::Lost,
        other => panic!("{other} is no notice"),
    }
}

fn show_message(message: &Message) -> String {
    let stream = message.stream.0;
    match message.kind {
        MessageKind::UserControl => {
            assert_eq!(stream, 0, "user control travels on stream 0");
            let event = format!("{:?}", UserControl::decode(&message.payload).unwrap());
            event.replace("StreamId(", "").replace("))", ")")
        }
        MessageKind::CommandAmf0 => format!("{stream} {}", show_values(&message.payload)),
        MessageKind::CommandAmf3 => {
            assert_eq!(message.payload.first(), Some(&0), "the selector");
            format!("{stream} (17) {}", show_values(&message.payload[1..]))
        }
        MessageKind::DataAmf0 => format!("{stream} data {}", show_values(&message.payload)),
        MessageKind::SharedObjectAmf0 => {
            assert_eq!(
                (stream, message.time),
                (0, 0),
                "objects are the connection's"
            );
            object_text::show_body(&message.payload, ObjectEncoding::Amf0)
        }
        MessageKind::SharedObjectAmf3 => {
            assert_eq!(
                (stream, message.time),
                (0, 0),
                "objects are the connection's"
            );
            let body = object_text::show_body(&message.payload, ObjectEncoding::Amf3);
            format!("(16) {body}")
        }
        other => panic!("a server does not send {other:?}"),
    }
}

/// A command's or data message's values; the first is a name and stands without quotes.
fn show_values(body: &[u8]) -> String {
    let values = amf::amf0::read_all(body).unwrap();
    let name = values[0].as_str().unwrap();
    let rest: String = values[1..]
        .iter()
        .map(|v| format!(" {}", show(v)))
        .collect();
    format!("{name}{rest}")
}

fn show_event(event: &Event) -> String {
    match event {
        Event::Connect { request, connect } => {
            let mut line = format!(
                "Connect #{} {} host={:?}",
                request.0, connect.at, connect.host
            );
            if !connect.query.is_empty() {
                write!(line, " query={:?}", connect.query).unwrap();
            }
            if let Some(session) = connect.session {
                write!(line, " session={session}").unwrap();
            }
            if connect.encoding == ObjectEncoding::Amf3 {
                line.push_str(" AMF3");
            }
            if connect.capabilities != selvage_session::Capabilities::default() {
                let caps = &connect.capabilities;
                write!(line, " codecs={:?} capsEx={}", caps.codecs, caps.caps_ex).unwrap();
            }
            for (name, value) in [
                ("flashVer", &connect.flash_ver),
                ("pageUrl", &connect.page_url),
                ("swfUrl", &connect.swf_url),
            ] {
                if !value.is_empty() {
                    write!(line, " {name}={value:?}").unwrap();
                }
            }
            for arg in &connect.args {
                write!(line, " {}", show(arg)).unwrap();
            }
            line
        }
        Event::Call {
            request,
            name,
            args,
        } => {
            let request = request.map_or("-".into(), |r| format!("#{}", r.0));
            let args: String = args.iter().map(|v| format!(" {}", show(v))).collect();
            format!("Call {request} {name}{args}")
        }
        Event::Publish {
            request,
            stream,
            key,
            query,
            mode,
        } => {
            format!(
                "Publish #{} on {} {key} query={query:?} {mode:?}",
                request.0, stream.0
            )
        }
        Event::Play {
            request,
            stream,
            key,
            query,
            window,
            reset,
        } => format!(
            "Play #{} on {} {key} query={query:?} {:?} seconds={:?} reset={reset}",
            request.0, stream.0, window.start, window.seconds
        ),
        Event::Frame { stream, frame } => {
            let payload: &Bytes = &frame.payload;
            let body = if frame.kind == model::Kind::Data {
                show_values(payload)
            } else {
                hex(payload)
            };
            format!(
                "Frame on {} {:?} {:?} {} {body}",
                stream.0, frame.kind, frame.class, frame.time
            )
        }
        Event::Playback { stream, change } => format!("Playback on {} {change:?}", stream.0),
        Event::Finished { stream } => format!("Finished {}", stream.0),
        Event::Object(request) => object_text::show_request(request),
        Event::Resume {
            request,
            session,
            next,
        } => {
            let request = request.map_or("-".into(), |r| format!("#{}", r.0));
            format!("Resume {request} {session} at {next}")
        }
        Event::PeerInfo { addresses } => format!("PeerInfo {addresses:?}"),
        Event::Closed { reason } => format!("Closed {reason:?}"),
    }
}
