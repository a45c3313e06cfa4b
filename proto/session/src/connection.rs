//! An accepted connection: NetConnection's commands and the streams by number.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use amf::Value;
use model::{AppInstance, Kind};
use rtmp::{Message, MessageKind, StreamId, UserControl};

use crate::call::Requests;
use crate::command::{Command, whole};
use crate::connect::session_id;
use crate::error::{Error, Misbehaviour};
use crate::event::{Capabilities, Event, Notice, Reply, RequestId};
use crate::limits::{METHOD_NAME_MAX, PEER_ADDRESSES_MAX, RESUME_NEXT_MAX, STREAMS_MAX};
use crate::name;
use crate::outbox::Outbox;
use crate::ping::{Due, Ping};
use crate::server::{SampleAccess, is_command, read_command};
use crate::status::{Code, Status};
use crate::stream::{Desk, End, Stream};

/// One accepted connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) at: AppInstance,
    pub(crate) capabilities: Capabilities,
    sample_access: SampleAccess,
    pub(crate) ping: Ping,
    /// PingRequest counts milliseconds from here.
    since: Instant,
    streams: BTreeMap<StreamId, Stream>,
}

impl Connection {
    pub(crate) const fn new(
        at: AppInstance,
        capabilities: Capabilities,
        sample_access: SampleAccess,
        ping: Ping,
        since: Instant,
    ) -> Self {
        Self {
            at,
            capabilities,
            sample_access,
            ping,
            since,
            streams: BTreeMap::new(),
        }
    }

    /// True when the peer is gone.
    pub(crate) fn handle_timeout(&mut self, out: &mut Outbox, now: Instant) -> bool {
        match self.ping.handle_timeout(now) {
            Due::Nothing => false,
            Due::Ask => {
                let millis = now.saturating_duration_since(self.since).as_millis();
                let wire = u32::try_from(millis & u128::from(u32::MAX)).unwrap_or_default();
                out.control(UserControl::PingRequest(wire));
                false
            }
            Due::Lost => true,
        }
    }

    /// A message. False when it was of no use.
    pub(crate) fn handle_message(
        &mut self,
        message: Message,
        out: &mut Outbox,
        requests: &mut Requests,
        now: Instant,
    ) -> Result<bool, Error> {
        self.ping.heard(now);
        if is_command(message.kind) {
            let command = read_command(&message)?;
            return self
                .handle_command(message.stream, &command, out, requests)
                .map(|()| true);
        }
        Ok(match message.kind {
            MessageKind::UserControl => self.handle_control(&message, out, requests),
            MessageKind::Audio => self.handle_media(Kind::Audio, message, out, requests),
            MessageKind::Video => self.handle_media(Kind::Video, message, out, requests),
            MessageKind::DataAmf0 | MessageKind::DataAmf3 => {
                self.handle_media(Kind::Data, message, out, requests)
            }
            MessageKind::CommandAmf0
            | MessageKind::CommandAmf3
            | MessageKind::SharedObjectAmf0
            | MessageKind::SharedObjectAmf3 => false,
        })
    }

    /// The shell's decision about a publish or a play.
    pub(crate) fn decide(
        &mut self,
        stream: StreamId,
        request: RequestId,
        reply: Reply,
        out: &mut Outbox,
        requests: &mut Requests,
    ) {
        self.with_stream(stream, out, requests, |stream, desk| match reply {
            Reply::Accept => stream.accept(request, desk),
            Reply::Refuse(refusal) => stream.refuse(request, refusal, desk),
            Reply::Result(_) | Reply::Failed(_) => {}
        });
    }

    pub(crate) fn handle_notice(
        &mut self,
        stream: StreamId,
        notice: Notice,
        out: &mut Outbox,
        requests: &mut Requests,
    ) {
        self.with_stream(stream, out, requests, |s, desk| {
            s.handle_notice(notice, desk);
        });
    }

    fn handle_control(
        &mut self,
        message: &Message,
        out: &mut Outbox,
        requests: &mut Requests,
    ) -> bool {
        match UserControl::decode(&message.payload) {
            Ok(UserControl::SetBufferLength(stream, millis)) => self
                .with_stream(stream, out, requests, |s, desk| s.set_buffer(millis, desk))
                .is_some(),
            Ok(UserControl::PingRequest(time)) => {
                out.control(UserControl::PingResponse(time));
                true
            }
            // A response is a sign of life like anything else; the rest is a server's.
            Ok(
                UserControl::PingResponse(_)
                | UserControl::StreamBegin(_)
                | UserControl::StreamEof(_)
                | UserControl::StreamDry(_)
                | UserControl::StreamIsRecorded(_)
                | UserControl::BufferEmpty(_)
                | UserControl::BufferReady(_)
                | UserControl::Other(_),
            ) => true,
            Err(_) => false,
        }
    }

    fn handle_media(
        &mut self,
        kind: Kind,
        message: Message,
        out: &mut Outbox,
        requests: &mut Requests,
    ) -> bool {
        self.with_stream(message.stream, out, requests, |stream, desk| {
            stream.handle_media(kind, message.time, message.payload, desk)
        })
        .unwrap_or(false)
    }

    /// NetConnection's commands are known by their names on any stream, because clients
    /// differ in where they send them; the rest belongs to the stream it comes on.
    fn handle_command(
        &mut self,
        stream: StreamId,
        command: &Command,
        out: &mut Outbox,
        requests: &mut Requests,
    ) -> Result<(), Error> {
        match command.name.as_str() {
            "connect" => return Err(Error::PeerMisbehaved(Misbehaviour::SecondConnect)),
            "createStream" => self.create_stream(stream, command, out),
            "deleteStream" => self.delete_stream(stream, command, out, requests),
            // Of no meaning over RTMP, or answers to what we did not ask.
            "initStream" | "close" | "_result" | "_error" | "onStatus" => {}
            "setPeerInfo" => out.event(Event::PeerInfo {
                addresses: peer_addresses(command),
            }),
            "FCPublish" => {
                announce(stream, command, out, "onFCPublish", Code::PublishStart);
            }
            "FCUnpublish" => {
                announce(
                    stream,
                    command,
                    out,
                    "onFCUnpublish",
                    Code::UnpublishSuccess,
                );
            }
            "FCSubscribe" => announce(stream, command, out, "onFCSubscribe", Code::PlayStart),
            "FCUnsubscribe" => announce(stream, command, out, "onFCUnsubscribe", Code::PlayStop),
            // Encoders release what an earlier life of theirs may hold. A name that is
            // held by someone stays held: the answer is only polite.
            "releaseStream" | "_checkbw" => reply(stream, command, out, Value::Null),
            "checkBandwidth" => {
                reply(stream, command, out, Value::Null);
                out.command(StreamId::CONNECTION, "onBWDone", []);
            }
            // Live streams have no length.
            "getStreamLength" => reply(stream, command, out, Value::Number(0.0)),
            "selvage.resume" if stream == StreamId::CONNECTION => {
                resume(stream, command, out, requests);
            }
            name if is_stream_command(name) => {
                self.handle_stream_command(stream, command, out, requests);
            }
            name if stream == StreamId::CONNECTION && !is_reserved(name) => {
                call(stream, command, out, requests);
            }
            name => {
                let text = Code::CallFailed.description(name);
                failed(stream, command, out, text);
            }
        }
        Ok(())
    }

    /// The lowest free number, so that clients which count on small numbers are served.
    fn create_stream(&mut self, on: StreamId, command: &Command, out: &mut Outbox) {
        if self.streams.len() >= STREAMS_MAX {
            return failed(
                on,
                command,
                out,
                format!("More than {STREAMS_MAX} streams."),
            );
        }
        let mut id = StreamId(1);
        for taken in self.streams.keys() {
            if *taken != id {
                break;
            }
            id.0 += 1;
        }
        self.streams.insert(id, Stream::new(id));
        reply(on, command, out, Value::Number(f64::from(id.0)));
    }

    /// RTMP 1.0 §7.2.2.3: on stream 0 with the number as argument (errata), or on the
    /// stream itself.
    fn delete_stream(
        &mut self,
        on: StreamId,
        command: &Command,
        out: &mut Outbox,
        requests: &mut Requests,
    ) {
        let named = command.number(0).map(|n| whole(n).map(StreamId));
        let Some(id) = named.unwrap_or(Some(on)) else {
            return;
        };
        self.with_stream(id, out, requests, |stream, desk| {
            stream.end(End::Delete, desk);
        });
        self.streams.remove(&id);
    }

    fn handle_stream_command(
        &mut self,
        id: StreamId,
        command: &Command,
        out: &mut Outbox,
        requests: &mut Requests,
    ) {
        let known = self.with_stream(id, out, requests, |stream, desk| {
            stream.handle_command(command, desk)
        });
        // To close what is not there is no mistake: deleteStream and closeStream cross.
        if known.is_none() && command.name != "closeStream" {
            let text = format!("{}: there is no stream {}.", command.name, id.0);
            out.status(id, Status::connection(Code::Failed).describe(text));
        }
    }

    fn with_stream<T>(
        &mut self,
        id: StreamId,
        out: &mut Outbox,
        requests: &mut Requests,
        act: impl FnOnce(&mut Stream, &mut Desk<'_>) -> T,
    ) -> Option<T> {
        let stream = self.streams.get_mut(&id)?;
        let mut desk = Desk {
            out,
            requests,
            at: &self.at,
            sample_access: self.sample_access,
        };
        Some(act(stream, &mut desk))
    }
}

/// The commands that belong to a stream.
fn is_stream_command(name: &str) -> bool {
    matches!(
        name,
        "publish"
            | "play"
            | "play2"
            | "pause"
            | "pauseRaw"
            | "seek"
            | "receiveAudio"
            | "receiveVideo"
            | "closeStream"
    )
}

/// Names that Flash Media Server keeps from applications.
fn is_reserved(name: &str) -> bool {
    matches!(
        name,
        "getBandwidthLimit" | "setBandwidthLimit" | "getStats" | "ping"
    )
}

/// FCPublish and its kin: an answer, and a call back that encoders wait for.
fn announce(stream: StreamId, command: &Command, out: &mut Outbox, callback: &str, code: Code) {
    let Some(text) = command.text(0) else {
        return failed(
            stream,
            command,
            out,
            format!("{} needs a name.", command.name),
        );
    };
    reply(stream, command, out, Value::Null);
    let name = crate::status::cut(name::shown(text));
    let info = Status::connection(code)
        .describe(name)
        .info(out.client_id());
    out.command(StreamId::CONNECTION, callback, [info]);
}

fn call(stream: StreamId, command: &Command, out: &mut Outbox, requests: &mut Requests) {
    if command.name.is_empty() || command.name.len() > METHOD_NAME_MAX {
        return failed(
            stream,
            command,
            out,
            Code::CallFailed.description(&command.name),
        );
    }
    let Some(request) = open(stream, command, out, requests) else {
        return;
    };
    out.event(Event::Call {
        request,
        name: command.name.clone(),
        args: command.args.clone(),
    });
}

/// `ip:port` or `[ip]:port` each. What is neither is left out, as a peer may report names of
/// its own network.
fn peer_addresses(command: &Command) -> Vec<SocketAddr> {
    let texts = command.args.iter().filter_map(Value::as_str);
    let addresses = texts.filter_map(|text| text.parse().ok());
    addresses.take(PEER_ADDRESSES_MAX).collect()
}

/// `selvage.resume(session, next)`: 32 hexadecimal digits and a number from 1.
fn resume(stream: StreamId, command: &Command, out: &mut Outbox, requests: &mut Requests) {
    let session = command.text(0).and_then(session_id);
    let next = command.number(1).and_then(resume_number);
    let (Some(session), Some(next)) = (session, next) else {
        let text = "selvage.resume needs 32 hexadecimal digits and a number from 1.";
        return failed(stream, command, out, text.to_owned());
    };
    if let Some(request) = open(stream, command, out, requests) {
        out.event(Event::Resume {
            request,
            session,
            next,
        });
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "checked to be whole and in the range where doubles are exact"
)]
fn resume_number(number: f64) -> Option<u64> {
    let fits = number.fract() == 0.0 && (1.0..=RESUME_NEXT_MAX as f64).contains(&number);
    fits.then_some(number as u64)
}

/// Opens the question that a call is; the inner `None` wants no answer. The outer `None`,
/// and the answer is given, when there are too many.
#[allow(
    clippy::option_option,
    reason = "two things may be absent, for two reasons"
)]
fn open(
    stream: StreamId,
    command: &Command,
    out: &mut Outbox,
    requests: &mut Requests,
) -> Option<Option<RequestId>> {
    let Some(transaction) = command.transaction else {
        return Some(None);
    };
    let request = requests.open_call(stream, transaction);
    if request.is_none() {
        failed(stream, command, out, "Too many calls are open.".to_owned());
    }
    request.map(Some)
}

fn reply(stream: StreamId, command: &Command, out: &mut Outbox, value: Value) {
    out.result(stream, command.transaction, Value::Null, value);
}

fn failed(stream: StreamId, command: &Command, out: &mut Outbox, why: String) {
    let status = Status::connection(Code::CallFailed).describe(why);
    out.error(stream, command.transaction, Value::Null, status);
}
