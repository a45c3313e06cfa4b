//! What can go wrong in a client session, and who is to blame.

use std::fmt;

/// A client session's error.
#[derive(Clone, Debug, PartialEq)]
pub enum Error {
    /// The server sent something that cannot be. The session is of no use any more.
    PeerMisbehaved(Misbehaviour),
    /// The caller asked for something that cannot be. Nothing was sent.
    ApiMisuse(Misuse),
    /// The caller's value cannot be written.
    Unwritable(amf::Error),
    /// The caller has more open at once than the session keeps account of.
    LimitExceeded(&'static str),
}

/// What a server did wrong.
#[derive(Clone, Debug, PartialEq)]
pub enum Misbehaviour {
    /// A command cannot be read.
    Command(amf::Error),
    /// A command has no name.
    NamelessCommand,
    /// A user control message is too short for its event.
    UserControl(rtmp::Error),
    /// `createStream` was answered by something that is no stream id.
    NotAStreamId,
    /// A shared-object message cannot be read.
    Object(crate::object::wire::Error),
}

/// What the caller did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misuse {
    /// The session is not connected yet.
    NotConnected,
    /// The session is over.
    Closed,
    /// The stream was not created in this session, or was deleted.
    NoSuchStream,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerMisbehaved(what) => write!(f, "the server misbehaved: {what}"),
            Self::ApiMisuse(what) => write!(f, "{what}"),
            Self::Unwritable(_) => f.write_str("a value cannot be written as AMF"),
            Self::LimitExceeded(what) => write!(f, "too many {what} are open"),
        }
    }
}

impl fmt::Display for Misbehaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Command(_) => "a command cannot be read",
            Self::NamelessCommand => "a command has no name",
            Self::UserControl(_) => "a user control message cannot be read",
            Self::NotAStreamId => "createStream was answered without a stream id",
            Self::Object(_) => "a shared-object message cannot be read",
        })
    }
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotConnected => "the session is not connected",
            Self::Closed => "the session is closed",
            Self::NoSuchStream => "the session has no such stream",
        })
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::PeerMisbehaved(Misbehaviour::Command(cause)) | Self::Unwritable(cause) => {
                Some(cause)
            }
            Self::PeerMisbehaved(Misbehaviour::UserControl(cause)) => Some(cause),
            Self::PeerMisbehaved(Misbehaviour::Object(cause)) => Some(cause),
            Self::PeerMisbehaved(Misbehaviour::NamelessCommand | Misbehaviour::NotAStreamId)
            | Self::ApiMisuse(_)
            | Self::LimitExceeded(_) => None,
        }
    }
}
