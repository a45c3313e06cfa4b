//! What a client session tells its shell.

use amf::Value;
use rtmp::{Message, StreamId};

use crate::event::{Capabilities, ObjectEncoding, RequestId};
use crate::object::ObjectMessage;

/// Names a call of ours until it is answered: its transaction id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u32);

/// The one door out of a client session. Drain it after every call of a method.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// To be written to the server, in this order.
    Message(Message),
    /// To be acted upon.
    Event(Event),
}

/// What the server said or did.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// `connect` was accepted.
    Connected(Box<Welcome>),
    /// `connect` was refused. `Closed` follows.
    Rejected(Box<Rejection>),
    /// A `createStream` was answered.
    StreamReady {
        /// The call.
        call: CallId,
        /// The message stream to publish or play on.
        stream: StreamId,
    },
    /// `onStatus` of a stream, or of the connection (stream 0); also `onPlayStatus`, which
    /// travels among the data and is given out as a message besides.
    Status {
        /// Whose.
        stream: StreamId,
        /// What.
        status: Box<Status>,
    },
    /// Audio, video or data on a stream, as it came.
    Message(Message),
    /// A message about a shared object. See [`RemoteObject`](super::object::RemoteObject)
    /// for what it means.
    Object(Box<ObjectMessage>),
    /// The server has begun, ended or run dry of a stream (user control 0, 1, 2 and 4).
    Progress {
        /// Whose.
        stream: StreamId,
        /// What.
        progress: Progress,
    },
    /// A call of ours was answered by `_result`.
    Result {
        /// The call.
        call: CallId,
        /// The first argument; `Undefined` when there is none.
        value: Value,
    },
    /// A call of ours was answered by `_error`.
    Failed {
        /// The call.
        call: CallId,
        /// The info object.
        status: Box<Status>,
    },
    /// The server calls a method of ours. Answer with `ClientSession::answer` if it
    /// carries a request.
    Call {
        /// To be answered; absent when the server wants no answer (transaction id 0).
        request: Option<RequestId>,
        /// The method's name.
        name: String,
        /// The arguments behind the command object.
        args: Vec<Value>,
    },
    /// The session is over: write what is queued, then close the connection.
    Closed {
        /// Why.
        reason: Closed,
    },
}

/// What an accepted `connect` was answered with.
#[derive(Clone, Debug, PartialEq)]
pub struct Welcome {
    /// The properties object (`fmsVer`, `capabilities`, ...).
    pub properties: Value,
    /// The info object (`code`, `description`, `data`, ...).
    pub info: Value,
    /// The AMF version the server agreed to.
    pub encoding: ObjectEncoding,
    /// What an enhanced-RTMP server said it can do.
    pub capabilities: Capabilities,
}

/// What a refused `connect` was answered with.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection {
    /// The info object.
    pub status: Status,
    /// The `application` value that a script gave along; `Undefined` when there is none.
    pub application: Value,
    /// Where to go instead (`ex.code` 302).
    pub redirect: Option<String>,
}

/// An info object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// `NetStream.Play.Start` and the like; empty when the object has none.
    pub code: String,
    /// `status`, `warning` or `error`; empty when the object has none.
    pub level: String,
    /// For people.
    pub description: String,
    /// The whole object.
    pub info: Value,
}

impl Status {
    pub(super) fn of(info: Value) -> Self {
        let text = |key| {
            info.get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        Self {
            code: text("code"),
            level: text("level"),
            description: text("description"),
            info,
        }
    }

    /// Whether it reports a failure.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.level == "error"
    }
}

/// The state of a stream at the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The stream can be used.
    Begin,
    /// Playback is over.
    Eof,
    /// There is no data for now.
    Dry,
    /// The stream is a recording.
    Recorded,
}

/// Why a client session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// We closed it.
    Here,
    /// The server refused `connect`.
    Rejected,
    /// The server asked to close (`close`, or a status that says so): the status code.
    ByServer(String),
    /// The server did not answer `connect` in time.
    ConnectTimeout,
}
