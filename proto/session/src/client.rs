//! The client role of a session: connect, publish, play, call, share objects.
//!
//! [`ClientSession`] is driven like its counterpart, the server session: every method
//! that takes something in is followed by draining [`ClientSession::poll_output`], and
//! [`ClientSession::handle_timeout`] is called when [`ClientSession::deadline`] has come.
//!
//! ```text
//!   new ─────────────▶ connect ··· Connected ─▶ create_stream ··· StreamReady{stream}
//!                              └·· Rejected, Closed        │
//!                                                          ├─▶ publish(stream, ..) ··· Status Publish.Start
//!                                                          │      send(message) ...
//!                                                          └─▶ play(stream, ..) ··· Status Play.Start, Message ...
//!   close ─▶ FCUnpublish, deleteStream, Closed
//! ```
//!
//! Nothing is queued for later: a method that needs a connection says
//! [`Misuse::NotConnected`] before [`Event::Connected`]. Calls may be pipelined after it;
//! answers come back by [`CallId`] in any order.

mod commands;
mod error;
mod event;
pub mod limits;
pub mod object;
mod setup;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use amf::Value;
use bytes::Bytes;
use rtmp::{Message, MessageKind, StreamId, UserControl};

pub use commands::PlayRequest;
pub use error::{Error, Misbehaviour, Misuse};
pub use event::{CallId, Closed, Event, Output, Progress, Rejection, Status, Welcome};
pub use object::RemoteObject;
pub use setup::{MOD_EX, MULTITRACK, RECONNECT, Setup};

use crate::event::{Capabilities, ObjectEncoding, RequestId};
use crate::object::{Bounds, ObjectMessage};

/// One connection's NetConnection and NetStreams, seen from the client.
#[derive(Debug)]
pub struct ClientSession {
    phase: Phase,
    check_bandwidth: bool,
    encoding: ObjectEncoding,
    next_call: u32,
    calls: BTreeMap<CallId, Purpose>,
    streams: BTreeMap<StreamId, Use>,
    /// How often the server measured the bandwidth; its calls are answered by the count.
    checks: u32,
    output: VecDeque<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// `connect` is sent.
    Connecting {
        call: CallId,
        until: Instant,
    },
    Connected,
    Closed,
}

/// What a call of ours was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Connect,
    CreateStream,
    /// The caller wants the answer.
    Call,
    /// Nobody waits for the answer.
    Courtesy,
}

/// What a stream is used for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Use {
    Idle,
    Publishing { name: String },
    Playing,
}

impl ClientSession {
    /// Begins a session; `connect` is the first output.
    ///
    /// # Errors
    /// [`Error::Unwritable`] if a value of the setup cannot be written.
    pub fn new(setup: &Setup, now: Instant) -> Result<Self, Error> {
        let mut session = Self {
            phase: Phase::Closed,
            check_bandwidth: setup.check_bandwidth,
            encoding: setup.encoding,
            next_call: 1,
            calls: BTreeMap::new(),
            streams: BTreeMap::new(),
            checks: 0,
            output: VecDeque::new(),
        };
        let object = setup.command_object();
        // RTMP 1.0 §7.2.1.1: the transaction id of connect is always 1.
        let call = session.invoke(
            StreamId::CONNECTION,
            "connect",
            Purpose::Connect,
            object,
            setup.args.iter().cloned(),
        )?;
        session.phase = Phase::Connecting {
            call,
            until: now + setup.patience,
        };
        Ok(session)
    }

    /// Takes in one message of the server.
    ///
    /// # Errors
    /// [`Error::PeerMisbehaved`]: the connection should be closed.
    pub fn handle_message(&mut self, message: Message) -> Result<(), Error> {
        if self.phase == Phase::Closed {
            return Ok(());
        }
        match message.kind {
            MessageKind::CommandAmf0 => self.handle_command(message.stream, &message.payload),
            MessageKind::CommandAmf3 => {
                // One selector byte stands before the values; 0 is the only one in use.
                let body = message.payload.slice(1.min(message.payload.len())..);
                self.handle_command(message.stream, &body)
            }
            MessageKind::UserControl => self.handle_control(&message.payload),
            MessageKind::DataAmf0 | MessageKind::DataAmf3 => {
                self.notice_play_status(&message);
                self.event(Event::Message(message));
                Ok(())
            }
            MessageKind::Audio | MessageKind::Video => {
                self.event(Event::Message(message));
                Ok(())
            }
            MessageKind::SharedObjectAmf0 => {
                self.handle_object(&message.payload, ObjectEncoding::Amf0)
            }
            MessageKind::SharedObjectAmf3 => {
                self.handle_object(&message.payload, ObjectEncoding::Amf3)
            }
        }
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Connecting { until, .. } => Some(until),
            Phase::Connected | Phase::Closed => None,
        }
    }

    /// Acts upon the time.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline().is_some_and(|until| until <= now) {
            self.end(Closed::ConnectTimeout);
        }
    }

    /// The next thing to write or to act upon.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    /// Whether `connect` was accepted and the session is not over.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.phase == Phase::Connected
    }

    /// Whether the session is over.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Ends the session: every stream is closed in the server's words, then `Closed`.
    pub fn close(&mut self) {
        if self.phase == Phase::Connected {
            let streams: Vec<StreamId> = self.streams.keys().copied().collect();
            for stream in streams {
                // The streams are ours and their ids can be written: this cannot fail.
                let _ = self.delete_stream(stream);
            }
        }
        self.end(Closed::Here);
    }

    fn handle_command(&mut self, stream: StreamId, body: &[u8]) -> Result<(), Error> {
        let values = amf::command::read(body)
            .map_err(|cause| Error::PeerMisbehaved(Misbehaviour::Command(cause)))?;
        let mut values = values.into_iter();
        let name = values.next();
        let Some(name) = name.as_ref().and_then(Value::as_str) else {
            return Err(Error::PeerMisbehaved(Misbehaviour::NamelessCommand));
        };
        // Servers have been seen to leave the transaction id out of onStatus.
        let transaction = values
            .next()
            .and_then(|value| value.as_f64())
            .unwrap_or(0.0);
        let object = values.next().unwrap_or_default();
        let args: Vec<Value> = values.collect();
        match name {
            "_result" => self.handle_answer(transaction, object, args, Answer::Result),
            "_error" => self.handle_answer(transaction, object, args, Answer::Error),
            "onStatus" => {
                self.handle_status(stream, Status::of(first(args)));
                Ok(())
            }
            "close" => {
                self.end(Closed::ByServer("NetConnection.Connect.Closed".to_owned()));
                Ok(())
            }
            "onBWDone" if self.check_bandwidth && self.phase == Phase::Connected => {
                self.check_bandwidth = false;
                let none: [Value; 0] = [];
                self.invoke(
                    StreamId::CONNECTION,
                    "_checkbw",
                    Purpose::Courtesy,
                    Value::Null,
                    none,
                )?;
                Ok(())
            }
            // The server measures: it sends payload and wants a number back.
            "onBWCheck" | "_onbwcheck" => {
                self.checks = self.checks.wrapping_add(1);
                self.command(
                    StreamId::CONNECTION,
                    "_result",
                    transaction,
                    [Value::Null, f64::from(self.checks).into()],
                )
            }
            _ => {
                let request = (transaction != 0.0).then(|| RequestId(transaction.to_bits()));
                self.event(Event::Call {
                    request,
                    name: name.to_owned(),
                    args,
                });
                Ok(())
            }
        }
    }

    fn handle_answer(
        &mut self,
        transaction: f64,
        object: Value,
        args: Vec<Value>,
        answer: Answer,
    ) -> Result<(), Error> {
        let Some((call, purpose)) = self.take_call(transaction) else {
            // Late, invented, or the answer to a publish or play, which go by number 0.
            if answer == Answer::Error {
                self.handle_status(StreamId::CONNECTION, Status::of(first(args)));
            }
            return Ok(());
        };
        match (purpose, answer) {
            (Purpose::Connect, Answer::Result) => self.welcome(object, first(args)),
            (Purpose::Connect, Answer::Error) => self.reject(first(args)),
            (Purpose::CreateStream, Answer::Result) => {
                let stream = first(args)
                    .as_f64()
                    .and_then(whole)
                    .filter(|id| *id != 0)
                    .map(StreamId)
                    .ok_or(Error::PeerMisbehaved(Misbehaviour::NotAStreamId))?;
                self.streams.insert(stream, Use::Idle);
                self.event(Event::StreamReady { call, stream });
            }
            (Purpose::Call, Answer::Result) => {
                self.event(Event::Result {
                    call,
                    value: first(args),
                });
            }
            (Purpose::Call | Purpose::CreateStream, Answer::Error) => {
                let status = Box::new(Status::of(first(args)));
                self.event(Event::Failed { call, status });
            }
            (Purpose::Courtesy, Answer::Result | Answer::Error) => {}
        }
        Ok(())
    }

    fn take_call(&mut self, transaction: f64) -> Option<(CallId, Purpose)> {
        let call = CallId(whole(transaction)?);
        Some((call, self.calls.remove(&call)?))
    }

    fn welcome(&mut self, properties: Value, info: Value) {
        let status = Status::of(info);
        if status.is_error() {
            return self.reject(status.info);
        }
        self.phase = Phase::Connected;
        if let Some(number) = status.info.get("objectEncoding").and_then(Value::as_f64) {
            self.encoding = if number == 3.0 {
                ObjectEncoding::Amf3
            } else {
                ObjectEncoding::Amf0
            };
        }
        let capabilities = capabilities(&properties, &status.info);
        self.event(Event::Connected(Box::new(Welcome {
            properties,
            info: status.info,
            encoding: self.encoding,
            capabilities,
        })));
    }

    fn reject(&mut self, info: Value) {
        let application = info.get("application").cloned().unwrap_or_default();
        let redirect = info
            .get("ex")
            .and_then(|ex| ex.get("redirect"))
            .and_then(Value::as_str)
            .map(ToOwned::to_owned);
        let status = Status::of(info);
        self.event(Event::Rejected(Box::new(Rejection {
            status,
            application,
            redirect,
        })));
        self.end(Closed::Rejected);
    }

    fn handle_status(&mut self, stream: StreamId, status: Status) {
        let over = matches!(
            status.code.as_str(),
            "NetConnection.Connect.Closed"
                | "NetConnection.Connect.AppShutdown"
                | "NetConnection.Connect.IdleTimeout"
        );
        let code = status.code.clone();
        self.event(Event::Status {
            stream,
            status: Box::new(status),
        });
        if over && stream == StreamId::CONNECTION {
            self.end(Closed::ByServer(code));
        }
    }

    /// Reads the status that travels among the data. A data message is not otherwise
    /// opened, and one that cannot be read is no status.
    fn notice_play_status(&mut self, message: &Message) {
        // The selector byte of AMF3 data, a string marker, and a length of twelve.
        const START: &[u8] = b"\x02\x00\x0conPlayStatus";
        let body = match message.payload.first() {
            Some(0) => message.payload.get(1..).unwrap_or_default(),
            _ => &message.payload,
        };
        if !body.starts_with(START) {
            return;
        }
        let Ok(values) = amf::command::read(body) else {
            return;
        };
        if let Some(info) = values
            .into_iter()
            .skip(1)
            .find(|value| value.pairs().is_some())
        {
            self.handle_status(message.stream, Status::of(info));
        }
    }

    fn handle_control(&mut self, payload: &Bytes) -> Result<(), Error> {
        let control = UserControl::decode(payload)
            .map_err(|cause| Error::PeerMisbehaved(Misbehaviour::UserControl(cause)))?;
        let (stream, progress) = match control {
            UserControl::StreamBegin(stream) => (stream, Progress::Begin),
            UserControl::StreamEof(stream) => (stream, Progress::Eof),
            UserControl::StreamDry(stream) => (stream, Progress::Dry),
            UserControl::StreamIsRecorded(stream) => (stream, Progress::Recorded),
            UserControl::PingRequest(stamp) => {
                self.control(UserControl::PingResponse(stamp));
                return Ok(());
            }
            UserControl::SetBufferLength(..)
            | UserControl::PingResponse(_)
            | UserControl::BufferEmpty(_)
            | UserControl::BufferReady(_)
            | UserControl::Other(_) => return Ok(()),
        };
        self.event(Event::Progress { stream, progress });
        Ok(())
    }

    fn handle_object(&mut self, body: &Bytes, encoding: ObjectEncoding) -> Result<(), Error> {
        let message = ObjectMessage::decode(body, encoding, Bounds::UPDATES)
            .map_err(|cause| Error::PeerMisbehaved(Misbehaviour::Object(cause)))?;
        self.event(Event::Object(Box::new(message)));
        Ok(())
    }

    fn end(&mut self, reason: Closed) {
        if self.phase != Phase::Closed {
            self.phase = Phase::Closed;
            self.calls.clear();
            self.streams.clear();
            self.event(Event::Closed { reason });
        }
    }

    fn event(&mut self, event: Event) {
        self.output.push_back(Output::Event(event));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Result,
    Error,
}

fn first(args: Vec<Value>) -> Value {
    args.into_iter().next().unwrap_or_default()
}

/// A number that is a 32-bit id.
fn whole(number: f64) -> Option<u32> {
    let id = u64::from(u32::MAX);
    (number >= 0.0 && number <= id as f64 && number.fract() == 0.0).then(|| {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked: a whole number within the range"
        )]
        let id = number as u32;
        id
    })
}

/// What an enhanced-RTMP server announces, in whichever of the two objects it does, and
/// also with the capital that Red5 gives `capsEx`.
fn capabilities(properties: &Value, info: &Value) -> Capabilities {
    let find = |key: &str| info.get(key).or_else(|| properties.get(key));
    let mut codecs: Vec<String> = Vec::new();
    if let Some(Value::StrictArray(list)) = find("fourCcList") {
        codecs.extend(list.iter().filter_map(Value::as_str).map(ToOwned::to_owned));
    }
    for map in ["videoFourCcInfoMap", "audioFourCcInfoMap"] {
        let pairs = find(map).and_then(Value::pairs).unwrap_or_default();
        codecs.extend(pairs.iter().map(|(name, _)| name.to_string()));
    }
    codecs.sort();
    codecs.dedup();
    let caps_ex = find("capsEx")
        .or_else(|| find("CapsEx"))
        .and_then(Value::as_f64)
        .and_then(whole)
        .unwrap_or(0);
    Capabilities { codecs, caps_ex }
}
