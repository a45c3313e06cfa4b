//! What can go wrong, and whose fault it is.

use std::fmt;

use rtmp::StreamId;

use crate::event::RequestId;

/// Why a `handle_*` failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The peer broke the protocol. The session is over: write what is queued, then
    /// close the connection.
    PeerMisbehaved(Misbehaviour),
    /// The peer wants more than it may have. The session is over, as above.
    LimitExceeded(Limit),
    /// The shell called out of order. Nothing happened.
    ApiMisuse(Misuse),
}

impl Error {
    /// Whether the session is over.
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        match self {
            Self::PeerMisbehaved(_) | Self::LimitExceeded(_) => true,
            Self::ApiMisuse(_) => false,
        }
    }
}

/// What the peer did wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misbehaviour {
    /// It sent something else before `connect`.
    BeforeConnect {
        /// The command, or the message kind.
        what: String,
    },
    /// It sent `connect` twice.
    SecondConnect,
    /// A command's body is not readable.
    MalformedCommand {
        /// The message stream it came on.
        stream: StreamId,
        /// What the decoder says.
        cause: String,
    },
    /// A shared-object message is not readable.
    MalformedObject {
        /// What the decoder says.
        cause: crate::object::wire::Error,
    },
}

/// Which bound was hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// A command has too many bytes.
    CommandBytes {
        /// Bytes it has.
        len: usize,
    },
    /// Too many commands, or too many bytes of them, arrived while `connect` was being
    /// decided.
    WaitingForConnect,
    /// A shared-object message has too many bytes.
    ObjectBytes {
        /// Bytes it has.
        len: usize,
    },
    /// A shared-object message has too many events.
    ObjectEvents,
}

/// What the shell did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misuse {
    /// A reply to a request that was never made.
    UnknownRequest(RequestId),
    /// A reply of a kind that the request does not take.
    WrongReply(RequestId),
    /// The session is not connected (any more).
    NotConnected,
    /// A value cannot be written in AMF.
    Unwritable,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerMisbehaved(what) => write!(f, "the peer misbehaved: {what}"),
            Self::LimitExceeded(what) => write!(f, "the peer exceeded a limit: {what}"),
            Self::ApiMisuse(what) => write!(f, "the session was misused: {what}"),
        }
    }
}

impl fmt::Display for Misbehaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BeforeConnect { what } => write!(f, "{what} before connect"),
            Self::SecondConnect => f.write_str("connect for the second time"),
            Self::MalformedCommand { stream, cause } => {
                write!(f, "unreadable command on stream {}: {cause}", stream.0)
            }
            Self::MalformedObject { cause } => {
                write!(f, "unreadable shared-object message: {cause}")
            }
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandBytes { len } => write!(
                f,
                "a command has {len} bytes, at most {} are allowed",
                crate::limits::COMMAND_BYTES_MAX
            ),
            Self::WaitingForConnect => f.write_str("too much sent before the answer to connect"),
            Self::ObjectBytes { len } => write!(
                f,
                "a shared-object message has {len} bytes, at most {} are allowed",
                crate::limits::OBJECT_ASK_BYTES_MAX
            ),
            Self::ObjectEvents => write!(
                f,
                "a shared-object message has more than {} events",
                crate::limits::OBJECT_ASK_EVENTS_MAX
            ),
        }
    }
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownRequest(request) => write!(f, "request {} was never made", request.0),
            Self::WrongReply(request) => {
                write!(f, "request {} does not take this kind of reply", request.0)
            }
            Self::NotConnected => f.write_str("the session is not connected"),
            Self::Unwritable => f.write_str("the value cannot be written in AMF"),
        }
    }
}

impl std::error::Error for Error {}
