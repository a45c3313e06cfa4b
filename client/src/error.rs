//! What can go wrong, and who is to blame.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use session::client::{Closed, Rejection, Status};

use crate::UrlError;

/// A client's error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is wrong.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The host has no address.
    #[error("cannot find the address of {host}")]
    Resolve {
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: Option<io::Error>,
    },
    /// No address of the host accepts a connection.
    #[error("cannot connect to {addr}")]
    Connect {
        /// The last address tried.
        addr: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// TLS cannot be set up on our side.
    #[error("cannot set up TLS: {what}")]
    TlsSetup {
        /// What failed.
        what: String,
        /// Why.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// TLS failed, or the certificate is not trusted.
    #[error("no TLS with {host}")]
    Tls {
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The server took too long.
    #[error("no answer to {step} within {} s", patience.as_secs_f64())]
    Timeout {
        /// What was waited for.
        step: &'static str,
        /// How long.
        patience: Duration,
    },
    /// The server refused `connect`.
    #[error("the server refused the connection: {} {}", .0.status.code, .0.status.description)]
    Rejected(Box<Rejection>),
    /// The server refused `createStream`, `publish` or `play`, or ended it with an error.
    #[error("the server refused {step}: {} {}", status.code, status.description)]
    Refused {
        /// What was refused.
        step: &'static str,
        /// The server's words.
        status: Box<Status>,
    },
    /// The server answered a call with an error.
    #[error("the call failed: {} {}", .0.code, .0.description)]
    CallFailed(Box<Status>),
    /// The server refused a shared object, or a change of it.
    #[error("the server refused the shared object: {0}")]
    Object(String),
    /// A shared object's name, or a slot's, that is none.
    #[error("not a name of a shared object or a slot")]
    Name(#[from] model::NameError),
    /// A path to a slot that is none.
    #[error("'{0}' is not of the form name.data.key")]
    Path(String),
    /// The shared object is not set up.
    #[error("the shared object {0} is not set up")]
    NoObject(String),
    /// There is no such server.
    #[error("there is no server {0}")]
    NoServer(usize),
    /// Peers are for connections by RTMFP.
    #[error("the connection is not by RTMFP, which peers need")]
    NoPeers,
    /// Nothing is published.
    #[error("nothing is published")]
    NotPublishing,
    /// A limit of ours.
    #[error("too many {0}, or none")]
    Overloaded(&'static str),
    /// The connection uses the shared object already.
    #[error("the shared object {0} is in use on this connection")]
    InUse(String),
    /// The server took the publish away without an error of its own.
    #[error("the server ended the publish: {0}")]
    Unpublished(String),
    /// The session is over.
    #[error("the session is over: {}", reason(.0))]
    Closed(Closed),
    /// The connection ended without a word.
    #[error("the server closed the connection")]
    Disconnected,
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[source] io::Error),
    /// The server's bytes make no sense.
    #[error("the server's bytes are not RTMP")]
    Carrier(#[source] rtmp::Error),
    /// The server's messages make no sense, or we asked for something that cannot be.
    #[error(transparent)]
    Session(#[from] session::client::Error),
    /// The server's media makes no sense.
    #[error("the server's media cannot be read")]
    Media(#[source] flv::Error),
}

/// Who must act for it to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The one who calls: a wrong address, a value that cannot be sent, a bad CA file.
    Caller,
    /// No connection came about: the network, the certificate, a refused `connect`.
    Connection,
    /// The server said no to the stream.
    Stream,
    /// What was running ended: the connection broke, the server closed it or misbehaved.
    Interruption,
}

impl Error {
    /// Who must act.
    #[must_use]
    pub const fn blame(&self) -> Blame {
        match self {
            Self::Url(_)
            | Self::TlsSetup { .. }
            | Self::Name(_)
            | Self::Path(_)
            | Self::NoObject(_)
            | Self::NoServer(_)
            | Self::NoPeers
            | Self::NotPublishing
            | Self::Overloaded(_)
            | Self::InUse(_) => Blame::Caller,
            Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::Tls { .. }
            | Self::Timeout { .. }
            | Self::Rejected(_) => Blame::Connection,
            Self::Refused { .. } | Self::CallFailed(_) | Self::Object(_) => Blame::Stream,
            Self::Unpublished(_)
            | Self::Closed(_)
            | Self::Disconnected
            | Self::Io(_)
            | Self::Carrier(_)
            | Self::Media(_) => Blame::Interruption,
            Self::Session(cause) => match cause {
                session::client::Error::PeerMisbehaved(_) => Blame::Interruption,
                session::client::Error::ApiMisuse(_)
                | session::client::Error::Unwritable(_)
                | session::client::Error::LimitExceeded(_) => Blame::Caller,
            },
        }
    }

    /// The server's status code, if it gave one: `NetStream.Publish.BadName`.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Rejected(rejection) => Some(&rejection.status.code),
            Self::Refused { status, .. } | Self::CallFailed(status) => Some(&status.code),
            Self::Unpublished(code) | Self::Object(code) | Self::Closed(Closed::ByServer(code)) => {
                Some(code)
            }
            Self::Closed(Closed::Here | Closed::Rejected | Closed::ConnectTimeout)
            | Self::Url(_)
            | Self::Name(_)
            | Self::InUse(_)
            | Self::Path(_)
            | Self::NoObject(_)
            | Self::NoServer(_)
            | Self::NoPeers
            | Self::NotPublishing
            | Self::Overloaded(_)
            | Self::TlsSetup { .. }
            | Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::Tls { .. }
            | Self::Timeout { .. }
            | Self::Disconnected
            | Self::Io(_)
            | Self::Carrier(_)
            | Self::Media(_)
            | Self::Session(_) => None,
        }
    }
}

fn reason(closed: &Closed) -> &str {
    match closed {
        Closed::Here => "it was closed here",
        Closed::Rejected => "the server refused it",
        Closed::ByServer(code) => code,
        Closed::ConnectTimeout => "the server did not answer connect",
    }
}
