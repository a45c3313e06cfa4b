//! What a client says: the commands of NetConnection and NetStream.

use std::collections::btree_map::Entry;

use amf::Value;
use model::SessionId;
use rtmp::{Message, MessageKind, StreamId, UserControl};

use super::limits::{CALLS_OPEN_MAX, STREAMS_MAX};
use super::{CallId, ClientSession, Error, Misuse, Output, Phase, Purpose, Use};
use crate::event::{ObjectEncoding, PlayStart, PublishMode, RequestId};
use crate::object::ObjectMessage;

/// The arguments of `play`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlayRequest {
    /// Where from.
    pub start: PlayStart,
    /// Seconds to play; `None` plays to the end.
    pub seconds: Option<f64>,
    /// Whether it replaces what the stream plays; otherwise it is appended.
    pub reset: bool,
}

impl Default for PlayRequest {
    fn default() -> Self {
        Self {
            start: PlayStart::LiveOrRecorded,
            seconds: None,
            reset: true,
        }
    }
}

impl ClientSession {
    /// `createStream`; [`Event::StreamReady`] answers.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] when not connected, [`Error::LimitExceeded`] when too many
    /// streams or calls are open.
    pub fn create_stream(&mut self) -> Result<CallId, Error> {
        self.check_connected()?;
        if self.streams.len() >= STREAMS_MAX {
            return Err(Error::LimitExceeded("streams"));
        }
        let none: [Value; 0] = [];
        self.invoke(
            StreamId::CONNECTION,
            "createStream",
            Purpose::CreateStream,
            Value::Null,
            none,
        )
    }

    /// `releaseStream`, as encoders say before `publish`. The answer is dropped.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn release_stream(&mut self, name: &str) -> Result<(), Error> {
        self.courtesy("releaseStream", name)
    }

    /// `FCPublish`, as encoders say before `publish`. The server may call `onFCPublish`.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn fc_publish(&mut self, name: &str) -> Result<(), Error> {
        self.courtesy("FCPublish", name)
    }

    /// `FCSubscribe`, as players of some networks say before `play`. The server may call
    /// `onFCSubscribe`.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn fc_subscribe(&mut self, name: &str) -> Result<(), Error> {
        self.courtesy("FCSubscribe", name)
    }

    /// `publish` on a stream; a [`Event::Status`] answers. `name` may carry a type prefix
    /// and a query.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] when not connected or the stream is not ours.
    pub fn publish(
        &mut self,
        stream: StreamId,
        name: &str,
        mode: PublishMode,
    ) -> Result<(), Error> {
        let mode = match mode {
            PublishMode::Live => "live",
            PublishMode::Record => "record",
            PublishMode::Append => "append",
            PublishMode::AppendWithGap => "appendWithGap",
        };
        *self.stream_mut(stream)? = Use::Publishing {
            name: name.to_owned(),
        };
        self.command(
            stream,
            "publish",
            0.0,
            [Value::Null, name.into(), mode.into()],
        )
    }

    /// `play` on a stream; a [`Event::Status`] answers, and messages follow.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] when not connected or the stream is not ours.
    pub fn play(
        &mut self,
        stream: StreamId,
        name: &str,
        request: PlayRequest,
    ) -> Result<(), Error> {
        // RTMP 1.0 §7.2.2.1 counts in seconds; Flash Player, librtmp and FFmpeg put
        // milliseconds on the wire, so servers expect them.
        let start = match request.start {
            PlayStart::LiveOrRecorded => -2000.0,
            PlayStart::Live => -1000.0,
            PlayStart::Recorded(second) => second * 1000.0,
        };
        *self.stream_mut(stream)? = Use::Playing;
        let args = [
            Value::Null,
            name.into(),
            start.into(),
            request
                .seconds
                .map_or(-1000.0, |seconds| seconds * 1000.0)
                .into(),
            request.reset.into(),
        ];
        self.command(stream, "play", 0.0, args)
    }

    /// `closeStream`: ends what the stream does and keeps it for another use.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] when not connected or the stream is not ours.
    pub fn close_stream(&mut self, stream: StreamId) -> Result<(), Error> {
        *self.stream_mut(stream)? = Use::Idle;
        self.command(stream, "closeStream", 0.0, [Value::Null])
    }

    /// `FCUnpublish` if the stream publishes, then `deleteStream`.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] when not connected or the stream is not ours.
    pub fn delete_stream(&mut self, stream: StreamId) -> Result<(), Error> {
        self.check_connected()?;
        let Entry::Occupied(entry) = self.streams.entry(stream) else {
            return Err(Error::ApiMisuse(Misuse::NoSuchStream));
        };
        match entry.remove() {
            Use::Publishing { name } => self.courtesy("FCUnpublish", &name)?,
            Use::Idle | Use::Playing => {}
        }
        let id = f64::from(stream.0).into();
        self.command(StreamId::CONNECTION, "deleteStream", 0.0, [Value::Null, id])
    }

    /// `pause` or its end, at a position in milliseconds.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] when not connected or the stream is not ours.
    pub fn pause(&mut self, stream: StreamId, pause: bool, millis: f64) -> Result<(), Error> {
        self.stream_mut(stream)?;
        self.command(
            stream,
            "pause",
            0.0,
            [Value::Null, pause.into(), millis.into()],
        )
    }

    /// `receiveAudio`.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] when not connected or the stream is not ours.
    pub fn receive_audio(&mut self, stream: StreamId, wanted: bool) -> Result<(), Error> {
        self.stream_mut(stream)?;
        self.command(stream, "receiveAudio", 0.0, [Value::Null, wanted.into()])
    }

    /// `receiveVideo`.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] when not connected or the stream is not ours.
    pub fn receive_video(&mut self, stream: StreamId, wanted: bool) -> Result<(), Error> {
        self.stream_mut(stream)?;
        self.command(stream, "receiveVideo", 0.0, [Value::Null, wanted.into()])
    }

    /// Tells the server how many milliseconds of the stream we hold.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] when not connected or the stream is not ours.
    pub fn set_buffer_length(&mut self, stream: StreamId, millis: u32) -> Result<(), Error> {
        self.stream_mut(stream)?;
        self.control(UserControl::SetBufferLength(stream, millis));
        Ok(())
    }

    /// Calls a method of the server's; [`Event::Result`] or [`Event::Failed`] answers.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] when not connected, [`Error::LimitExceeded`] when too many
    /// calls are open, [`Error::Unwritable`] for a value that AMF0 cannot carry.
    pub fn call(
        &mut self,
        name: &str,
        args: impl IntoIterator<Item = Value>,
    ) -> Result<CallId, Error> {
        self.check_connected()?;
        self.invoke(StreamId::CONNECTION, name, Purpose::Call, Value::Null, args)
    }

    /// Calls a method of the server's without wanting an answer.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn notify(
        &mut self,
        name: &str,
        args: impl IntoIterator<Item = Value>,
    ) -> Result<(), Error> {
        self.check_connected()?;
        let args = std::iter::once(Value::Null).chain(args);
        self.command(StreamId::CONNECTION, name, 0.0, args)
    }

    /// Answers a call of the server's: `_result` with a value, or `_error` with
    /// `NetConnection.Call.Failed` and a description.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn answer(
        &mut self,
        request: RequestId,
        answer: Result<Value, String>,
    ) -> Result<(), Error> {
        self.check_connected()?;
        let (name, value) = match answer {
            Ok(value) => ("_result", value),
            Err(description) => (
                "_error",
                Value::object([
                    ("level", Value::from("error")),
                    ("code", "NetConnection.Call.Failed".into()),
                    ("description", description.into()),
                ]),
            ),
        };
        let transaction = f64::from_bits(request.0);
        self.command(
            StreamId::CONNECTION,
            name,
            transaction,
            [Value::Null, value],
        )
    }

    /// Sends audio, video or data on a stream, as it stands. The stream of the message is
    /// the one to send on.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] when not connected or the stream is not ours.
    pub fn send(&mut self, message: Message) -> Result<(), Error> {
        self.stream_mut(message.stream)?;
        self.output.push_back(Output::Message(message));
        Ok(())
    }

    /// Sends a data message (`NetStream.send`): the handler's name, then values.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] when not connected or the stream is not ours,
    /// [`Error::Unwritable`] for a value that AMF0 cannot carry.
    pub fn send_data(
        &mut self,
        stream: StreamId,
        time: u32,
        handler: &str,
        args: impl IntoIterator<Item = Value>,
    ) -> Result<(), Error> {
        self.stream_mut(stream)?;
        let values: Vec<Value> = std::iter::once(handler.into()).chain(args).collect();
        let payload = amf::amf0::write_all(&values).map_err(Error::Unwritable)?;
        self.output.push_back(Output::Message(Message {
            kind: MessageKind::DataAmf0,
            stream,
            time,
            payload,
        }));
        Ok(())
    }

    /// Tells one of our servers that what this connection asks of objects continues a
    /// session that other connections share, at this number (from 1). Answered as a call.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn resume(&mut self, session: SessionId, next: u64) -> Result<CallId, Error> {
        #[allow(
            clippy::cast_precision_loss,
            reason = "numbers of requests stay far below 2^53"
        )]
        let next = next as f64;
        self.call(
            "selvage.resume",
            [session.to_string().into(), Value::from(next)],
        )
    }

    /// Sends a message about a shared object: type 16 if the connection is of AMF3, else 19.
    /// [`RemoteObject`](super::RemoteObject) makes such messages.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] when not connected.
    pub fn send_object(&mut self, message: &ObjectMessage) -> Result<(), Error> {
        self.check_connected()?;
        let kind = match self.encoding {
            ObjectEncoding::Amf0 => MessageKind::SharedObjectAmf0,
            ObjectEncoding::Amf3 => MessageKind::SharedObjectAmf3,
        };
        self.output.push_back(Output::Message(Message {
            kind,
            stream: StreamId::CONNECTION,
            time: 0,
            payload: message.encode(self.encoding),
        }));
        Ok(())
    }

    fn courtesy(&mut self, method: &str, name: &str) -> Result<(), Error> {
        self.check_connected()?;
        let args = [Value::from(name)];
        self.invoke(
            StreamId::CONNECTION,
            method,
            Purpose::Courtesy,
            Value::Null,
            args,
        )?;
        Ok(())
    }

    /// Writes a command that wants an answer.
    pub(super) fn invoke(
        &mut self,
        stream: StreamId,
        name: &str,
        purpose: Purpose,
        object: Value,
        args: impl IntoIterator<Item = Value>,
    ) -> Result<CallId, Error> {
        if self.calls.len() >= CALLS_OPEN_MAX {
            // Courtesies are forgotten first: some servers never answer them.
            let Some(oldest) = self
                .calls
                .iter()
                .find(|(_, p)| **p == Purpose::Courtesy)
                .map(|(call, _)| *call)
            else {
                return Err(Error::LimitExceeded("calls"));
            };
            self.calls.remove(&oldest);
        }
        let call = CallId(self.next_call);
        let args = std::iter::once(object).chain(args);
        self.command(stream, name, f64::from(call.0), args)?;
        // 0 means that no answer is wanted.
        self.next_call = self.next_call.checked_add(1).unwrap_or(1);
        self.calls.insert(call, purpose);
        Ok(call)
    }

    pub(super) fn command(
        &mut self,
        stream: StreamId,
        name: &str,
        transaction: f64,
        args: impl IntoIterator<Item = Value>,
    ) -> Result<(), Error> {
        let values: Vec<Value> = [name.into(), transaction.into()]
            .into_iter()
            .chain(args)
            .collect();
        let payload = amf::amf0::write_all(&values).map_err(Error::Unwritable)?;
        self.output.push_back(Output::Message(Message {
            kind: MessageKind::CommandAmf0,
            stream,
            time: 0,
            payload,
        }));
        Ok(())
    }

    pub(super) fn control(&mut self, control: UserControl) {
        self.output.push_back(Output::Message(Message {
            kind: MessageKind::UserControl,
            stream: StreamId::CONNECTION,
            time: 0,
            payload: control.encode(),
        }));
    }

    fn check_connected(&self) -> Result<(), Error> {
        match self.phase {
            Phase::Connected => Ok(()),
            Phase::Connecting { .. } => Err(Error::ApiMisuse(Misuse::NotConnected)),
            Phase::Closed => Err(Error::ApiMisuse(Misuse::Closed)),
        }
    }

    fn stream_mut(&mut self, stream: StreamId) -> Result<&mut Use, Error> {
        self.check_connected()?;
        self.streams
            .get_mut(&stream)
            .ok_or(Error::ApiMisuse(Misuse::NoSuchStream))
    }
}
