//! Where a session puts what leaves it, in order.

use std::collections::VecDeque;
use std::sync::Arc;

use amf::Value;
use rtmp::{Message, MessageKind, StreamId, UserControl};

use crate::command::{self, Transaction};
use crate::event::{Event, ObjectEncoding, Output};
use crate::status::Status;

/// The queue behind `poll_output`, with a word for each thing a server says.
#[derive(Debug)]
pub(crate) struct Outbox {
    queue: VecDeque<Output>,
    client_id: Arc<str>,
    /// What the client understands; known once `connect` is read.
    pub(crate) encoding: ObjectEncoding,
}

impl Outbox {
    pub(crate) fn new(client_id: Arc<str>) -> Self {
        Self {
            queue: VecDeque::new(),
            client_id,
            encoding: ObjectEncoding::Amf0,
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Output> {
        self.queue.pop_front()
    }

    pub(crate) fn client_id(&self) -> &str {
        &self.client_id
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.queue.push_back(Output::Event(event));
    }

    /// A message that is ready.
    pub(crate) fn message(&mut self, message: Message) {
        self.queue.push_back(Output::Message(message));
    }

    /// A user control message; those travel on stream 0 (RTMP 1.0 §6.2).
    pub(crate) fn control(&mut self, event: UserControl) {
        self.queue.push_back(Output::Message(Message {
            kind: MessageKind::UserControl,
            stream: StreamId::CONNECTION,
            time: 0,
            payload: event.encode(),
        }));
    }

    /// A command that wants no answer and has no command object. False when an argument
    /// cannot be written.
    pub(crate) fn command(
        &mut self,
        stream: StreamId,
        name: &str,
        args: impl IntoIterator<Item = Value>,
    ) -> bool {
        self.write(stream, name, 0.0, Value::Null, args)
    }

    /// `onStatus`. A value of the application that cannot be written is left out.
    pub(crate) fn status(&mut self, stream: StreamId, status: Status) {
        let plain = status.plain();
        let info = status.info(&self.client_id);
        if !self.command(stream, "onStatus", [info]) {
            let info = plain.info(&self.client_id);
            self.command(stream, "onStatus", [info]);
        }
    }

    /// `_result`, if one is wanted. False when the value cannot be written.
    pub(crate) fn result(
        &mut self,
        stream: StreamId,
        transaction: Option<Transaction>,
        object: Value,
        value: Value,
    ) -> bool {
        transaction.is_none_or(|t| self.write(stream, "_result", t.number(), object, [value]))
    }

    /// `_error`, if an answer is wanted; otherwise as [`Self::status`].
    pub(crate) fn error(
        &mut self,
        stream: StreamId,
        transaction: Option<Transaction>,
        object: Value,
        status: Status,
    ) {
        if let Some(transaction) = transaction {
            let number = transaction.number();
            let plain = status.plain();
            let info = status.info(&self.client_id);
            if !self.write(stream, "_error", number, object.clone(), [info]) {
                let info = plain.info(&self.client_id);
                self.write(stream, "_error", number, object, [info]);
            }
        }
    }

    /// A data message.
    pub(crate) fn data(&mut self, stream: StreamId, values: &[Value]) {
        if let Some(message) = command::data(stream, values) {
            self.queue.push_back(Output::Message(message));
        }
    }

    fn write(
        &mut self,
        stream: StreamId,
        name: &str,
        transaction: f64,
        object: Value,
        args: impl IntoIterator<Item = Value>,
    ) -> bool {
        let message = command::command(stream, self.encoding, name, transaction, object, args);
        let written = message.is_some();
        self.queue.extend(message.map(Output::Message));
        written
    }
}
