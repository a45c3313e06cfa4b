//! What a shard is told, and the way to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fabric::v1::refused::Reason;
use ledger::replica::{CallId, CallResult, Recipients, SubscriberId};
use media::Backlog;
use model::object::ObjectUpdate;
use model::{Epoch, Position, StreamKey};
use node::telemetry::SpanPlace;
use node::telemetry::frames::Passing;
use tokio::sync::{mpsc, oneshot};

use super::PublicationId;
use crate::accept::Accepted;
use crate::channel::{Change, ChannelId, Item};
use crate::datagram::Handshakes;
use crate::follow::Asked;
use crate::link::{Grant, LinkId};
use crate::peers::Introduce;
use crate::traces::Fanout;

/// What the edge tells a shard.
pub(crate) enum ToShard {
    /// A client came.
    Accept(Box<Accepted>),
    /// A datagram for a session of this shard came to another.
    Datagram {
        /// Who sent it.
        from: std::net::SocketAddr,
        /// All of it.
        bytes: Vec<u8>,
    },
    /// All shards of the edge, this one among them.
    Others(Vec<ShardHandle>),
    /// Answers [`Ask::Join`].
    Joined {
        /// The channel's number.
        channel: ChannelId,
        /// The stream.
        key: StreamKey,
        /// What a viewer may join at.
        backlog: Box<Backlog>,
        /// Where the publish stands in a trace.
        publish: Option<SpanPlace>,
    },
    /// Frames of a stream.
    Media {
        /// Which.
        channel: ChannelId,
        /// The frames.
        items: Arc<[Item]>,
        /// Those among them that are traced.
        traced: Vec<(Position, Passing)>,
        /// When the oldest of them came from its publisher: microseconds since 1970, or 0.
        ingest_micros: u64,
        /// Dropped when they are taken.
        credit: Arc<dyn Send + Sync>,
    },
    /// A stream's publisher came or left.
    Source {
        /// Which.
        channel: ChannelId,
        /// How.
        change: Change,
    },
    /// A publish whose trace is wanted, or follows one whose was, has reached this edge.
    Notified {
        /// Which stream.
        channel: ChannelId,
        /// Where it stands.
        publish: Option<SpanPlace>,
        /// Told how many watch.
        told: Option<Arc<Fanout>>,
    },
    /// A publish is granted, for the first time or again.
    Granted {
        /// Which.
        publication: PublicationId,
        /// By whom.
        grant: Grant,
    },
    /// The origin took bytes.
    Credit {
        /// Which.
        publication: PublicationId,
        /// On which link.
        link: LinkId,
        /// How many.
        bytes: u64,
    },
    /// The link that held a publish is gone.
    Detached {
        /// Which.
        publication: PublicationId,
        /// The link.
        link: LinkId,
    },
    /// Another with the same token holds the name: the publish is accepted, and waits.
    Standby {
        /// Which.
        publication: PublicationId,
    },
    /// The publish begins anew under this epoch. Say where it stands then.
    Incarnate {
        /// Which.
        publication: PublicationId,
        /// Its new epoch.
        epoch: Epoch,
    },
    /// Somebody else wants the name: say whether the publisher is alive.
    Challenged {
        /// Which.
        publication: PublicationId,
    },
    /// Say where a publish stands, so that it can be carried on elsewhere.
    Reattach {
        /// Which.
        publication: PublicationId,
    },
    /// A publish is refused, or over by the fabric's decision.
    Ended {
        /// Which.
        publication: PublicationId,
        /// Why.
        reason: Reason,
    },
    /// What subscribers of an object are told.
    Object {
        /// Whom, in all shards.
        to: Recipients,
        /// What.
        update: Arc<ObjectUpdate>,
        /// Told how many were told, where anybody wants to see it.
        told: Option<Arc<Fanout>>,
    },
    /// Answers [`ToShared::Lock`](crate::shared::ToShared::Lock) and
    /// [`ToShared::Unlock`](crate::shared::ToShared::Unlock).
    Called {
        /// Whose.
        client: SubscriberId,
        /// Which.
        call: CallId,
        /// How.
        result: CallResult,
    },
    /// Clients that came by datagrams are to be introduced.
    Introduce(Introduce),
    /// So much of what this client numbers itself waits that it must come back.
    Dismiss(SubscriberId),
    /// Somebody scrapes: add up what was counted, and say how the shard stands.
    Count(oneshot::Sender<Standing>),
    /// Somebody scrapes single streams: how many watch which.
    Audience(oneshot::Sender<Vec<(StreamKey, usize)>>),
    /// An operator wants to see frames of a stream.
    Trace {
        /// The stream, as people write it.
        stream: Arc<str>,
        /// How many, and where they are told.
        asked: Asked,
        /// Whether it is published here.
        answer: oneshot::Sender<bool>,
    },
    /// The edge drains: ask clients that can to go elsewhere, all of them within this time.
    Drain(Duration),
    /// Close every connection with a status, then end.
    Close,
}

impl std::fmt::Debug for ToShard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ToShard")
    }
}

/// How a shard stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Plays of clients.
    pub(crate) viewers: usize,
    /// Publishes asked for or granted.
    pub(crate) published: usize,
    /// Streams watched.
    pub(crate) watched: usize,
    /// What their backlogs cost, in bytes.
    pub(crate) backlog: usize,
    /// How far clients have come that came by datagrams.
    pub(crate) handshakes: Handshakes,
}

/// The way to a shard.
#[derive(Clone, Debug)]
pub(crate) struct ShardHandle {
    pub(super) index: usize,
    pub(super) inbox: mpsc::UnboundedSender<ToShard>,
    pub(super) load: Arc<AtomicUsize>,
    /// Datagrams from other shards in the inbox.
    pub(super) strays: Arc<AtomicUsize>,
}

impl ShardHandle {
    /// Which shard.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Queues a message. Media is bounded by the credits of its subscriptions and
    /// accepted connections by the permits of the listeners; the rest is small change
    /// per stream.
    pub(crate) fn send(&self, message: ToShard) {
        let _ = self.inbox.send(message);
    }

    /// Counts a connection that is about to be sent.
    pub(crate) fn expect(&self) {
        self.load.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections on the shard or on their way to it.
    pub(crate) fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }
}
