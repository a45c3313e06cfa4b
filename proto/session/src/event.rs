//! What a server session tells the shell, and what the shell answers.
//!
//! The session owns the protocol (command names, transaction ids, order of status
//! messages). Whatever can only be decided elsewhere leaves as an [`Event`] with a
//! [`RequestId`] and comes back as a [`Reply`].

use std::net::SocketAddr;

use amf::Value;
use model::{AppInstance, Frame, SessionId, StreamKey};
use rtmp::{Message, StreamId};

use crate::object::ObjectRequest;

/// Names a question of the session until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// The one door out of a session. Drain it after every `handle_*`.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// To be written to the peer, in this order.
    Message(Message),
    /// To be acted upon, in this order with the messages.
    Event(Event),
}

/// What the peer wants or did.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// `connect`. Reply: `Accept` or `Refuse`.
    Connect {
        /// To be answered.
        request: RequestId,
        /// What it said.
        connect: Box<Connect>,
    },
    /// A remote call that NetConnection does not know. Reply: `Result` or `Failed`.
    /// `request` is absent when the peer wants no answer (transaction id 0).
    Call {
        /// To be answered.
        request: Option<RequestId>,
        /// The method's name.
        name: String,
        /// The arguments behind the command object.
        args: Vec<Value>,
    },
    /// `publish`. Reply: `Accept` or `Refuse`. No frame is given out before `Accept`.
    Publish {
        /// To be answered.
        request: RequestId,
        /// The message stream it publishes on.
        stream: StreamId,
        /// What it publishes.
        key: StreamKey,
        /// The query string behind the name, without `?`; empty when there is none.
        query: String,
        /// How.
        mode: PublishMode,
    },
    /// `play`. Reply: `Accept` or `Refuse`. After `Accept` (and its messages) the shell
    /// sends media on the stream, until `Finished`.
    Play {
        /// To be answered.
        request: RequestId,
        /// The message stream it plays on.
        stream: StreamId,
        /// What it plays.
        key: StreamKey,
        /// The query string behind the name, without `?`; empty when there is none.
        query: String,
        /// Which part.
        window: PlayWindow,
        /// Whether it replaces what the stream played before.
        reset: bool,
    },
    /// One frame of an accepted publish.
    Frame {
        /// The message stream.
        stream: StreamId,
        /// The frame.
        frame: Frame,
    },
    /// A player changes what it wants of a stream it plays.
    Playback {
        /// The message stream.
        stream: StreamId,
        /// The change.
        change: Playback,
    },
    /// The peer ended a publish or a play (asked for or accepted) on this stream. An
    /// open request of it needs no answer any more.
    Finished {
        /// The message stream.
        stream: StreamId,
    },
    /// What the peer asks of a shared object. It is answered by
    /// [`ServerSession::handle_object`](crate::ServerSession::handle_object), and every
    /// write must be: the peer sends no other of that object before.
    Object(Box<ObjectRequest>),
    /// The call `selvage.resume(session, next)`: the peer speaks to several edges under
    /// one identity, and what it asks of objects from here on continues that session at
    /// this number. In order with [`Self::Object`]. Reply: `Result` or `Failed`.
    /// `request` is absent when the peer wants no answer (transaction id 0).
    Resume {
        /// To be answered.
        request: Option<RequestId>,
        /// Who it says it is. Whoever knows this number is that client.
        session: SessionId,
        /// The number of what it asks next; from 1.
        next: u64,
    },
    /// `setPeerInfo` (RFC 7425 §5.3.4): where the peer says it can be reached by other
    /// peers, in place of what it said before. It wants no answer.
    PeerInfo {
        /// Those of its addresses that can be read, no more than
        /// [`PEER_ADDRESSES_MAX`](crate::limits::PEER_ADDRESSES_MAX).
        addresses: Vec<SocketAddr>,
    },
    /// The session is over: write what is queued, then close the connection.
    Closed {
        /// Why.
        reason: CloseReason,
    },
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The shell refused its connect.
    Refused,
    /// The shell closed it.
    Closed,
    /// It did not connect in time.
    ConnectTimeout,
    /// It did not answer a ping in time.
    PingTimeout,
}

/// What `connect` said.
#[derive(Clone, Debug, PartialEq)]
pub struct Connect {
    /// The application instance (the default virtual host; the shell may map `host`).
    pub at: AppInstance,
    /// The host in `tcUrl`, without port; empty when there is none.
    pub host: String,
    /// The query string of the application, without `?`.
    pub query: String,
    /// `tcUrl` as it was sent.
    pub tc_url: String,
    /// `pageUrl`.
    pub page_url: String,
    /// `swfUrl`.
    pub swf_url: String,
    /// `flashVer`.
    pub flash_ver: String,
    /// AMF version for what we send.
    pub encoding: ObjectEncoding,
    /// What an enhanced-RTMP client said it can do.
    pub capabilities: Capabilities,
    /// The identity that the client speaks to several edges under: `selvageSession` (32
    /// hexadecimal digits) of the first argument behind the command object.
    pub session: Option<SessionId>,
    /// The whole command object.
    pub object: Value,
    /// The arguments behind it.
    pub args: Vec<Value>,
}

/// `objectEncoding`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ObjectEncoding {
    /// 0.
    #[default]
    Amf0,
    /// 3.
    Amf3,
}

/// Enhanced RTMP v2: what the client announced in `connect`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// `fourCcList`, or the keys of the two info maps.
    pub codecs: Vec<String>,
    /// `capsEx`: bit 0 reconnect, 1 multitrack, 2 ModEx, 3 nanosecond offset.
    pub caps_ex: u32,
}

impl Capabilities {
    /// Whether the client follows a ReconnectRequest.
    #[must_use]
    pub const fn reconnect(&self) -> bool {
        self.caps_ex & 1 != 0
    }
}

/// The third argument of `publish`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishMode {
    /// Live only.
    Live,
    /// Live and recorded from the start.
    Record,
    /// Live and appended to the recording.
    Append,
    /// As `Append`, keeping the gap in time.
    AppendWithGap,
}

impl PublishMode {
    /// Whether the publish is recorded.
    #[must_use]
    pub const fn records(self) -> bool {
        match self {
            Self::Live => false,
            Self::Record | Self::Append | Self::AppendWithGap => true,
        }
    }
}

/// `start` and `len` of `play`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlayWindow {
    /// Where from.
    pub start: PlayStart,
    /// Seconds to play; `None` plays to the end.
    pub seconds: Option<f64>,
}

/// `start` of `play`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PlayStart {
    /// -2: live if there is one, else recorded, else wait for live.
    LiveOrRecorded,
    /// -1: live only.
    Live,
    /// A recording from this second.
    Recorded(f64),
}

/// What a player changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Playback {
    /// `receiveAudio`.
    Audio(bool),
    /// `receiveVideo`.
    Video(bool),
    /// `pause`, already answered. When it ends, play on at the live point.
    Paused(bool),
    /// SetBufferLength, milliseconds.
    Buffer(u32),
}

/// The answer to a [`RequestId`].
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// Connect, Publish, Play: yes.
    Accept,
    /// Connect, Publish, Play: no, with a status of the table.
    Refuse(Refusal),
    /// Call: its result.
    Result(Value),
    /// Call: it failed, with a description.
    Failed(String),
}

/// Why something was refused, and so which status the peer gets.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// `NetConnection.Connect.Rejected` with a description and the `application` value.
    Rejected {
        /// Human-readable.
        description: String,
        /// Handed to the client as `info.application`; `Undefined` leaves it out.
        application: Value,
    },
    /// `NetConnection.Connect.Rejected` with `ex.code` 302 and `ex.redirect`.
    Redirected {
        /// Where to.
        url: String,
    },
    /// `NetConnection.Connect.InvalidApp`.
    InvalidApp,
    /// `NetConnection.Connect.AppShutdown`.
    AppShutdown,
    /// `NetStream.Publish.BadName`.
    BadName,
    /// `NetStream.Play.StreamNotFound`.
    StreamNotFound,
    /// `NetStream.Play.Failed`, `NetStream.Record.NoAccess` and the like: refused with
    /// this description.
    Failed {
        /// Human-readable.
        description: String,
    },
}

/// What the fabric has to say to a stream of the session. The session turns it into
/// status messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// To a player: `NetStream.Play.PublishNotify`.
    Published,
    /// To a player: `NetStream.Play.UnpublishNotify`.
    Unpublished,
    /// To a player: `NetStream.Play.InsufficientBW`.
    InsufficientBandwidth,
    /// To a player: the asked-for length is played (`onPlayStatus` Play.Complete,
    /// StreamEOF, Play.Stop). The play is over; no `Finished` follows.
    Complete,
    /// To a publisher: the publish is over by the fabric's decision
    /// (`NetStream.Publish.BadName`). No `Finished` follows.
    Superseded,
    /// To a publisher: the fabric could not keep the publish (`NetStream.Failed`, then
    /// `NetStream.Unpublish.Success`). No `Finished` follows.
    Lost,
}
