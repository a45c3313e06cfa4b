//! The replicated log, as this edge speaks to it: one task per process.
//!
//! The task reads what shards and the upstream task want, feeds it to the
//! [`ledger::Replica`], and carries out what that says: messages to the origin that the
//! edge is attached to ([`attach`]), updates to the shards whose clients use an object, and
//! news about streams to the upstream task. It decides nothing itself.
//!
//! What changes is handed to each shard once, with the list of all subscribers; a shard
//! finds its own in it, because a client's number begins with its shard's.

mod attach;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ledger::Effect;
use ledger::Replica;
use ledger::effect::StreamState;
use ledger::replica::{
    Access, CallId, ClaimOutcome, Output, Recipients, Setup, Subscriber, SubscriberId,
};
use ledger::wire::ToEdge;
use model::{Epoch, ObjectKey, OriginId, Policy, SessionId, StreamKey};
use node::resolve::Addresses;
use node::telemetry::{Kind, Phase, SpanPlace, is_traced};
use session::object::ObjectRequest;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{debug, warn};

use self::attach::{Attach, Way};
use crate::limits::INBOX_BATCH;
use crate::link::LinkSetup;
use crate::shard::{PublicationId, ShardHandle, ToShard};
use crate::traces::Fanout;
use crate::upstream::sleep_until;

/// What the task is told.
pub(crate) enum ToShared {
    /// A client asks something of an object.
    Ask {
        /// Who.
        by: Subscriber,
        /// Which object.
        key: ObjectKey,
        /// What.
        request: Box<ObjectRequest>,
        /// Who wins.
        policy: Policy,
        /// Trace context, or empty.
        trace: Bytes,
    },
    /// A client goes on with a session it has at another edge, or had here.
    Resume {
        /// Who.
        client: SubscriberId,
        /// The session.
        session: SessionId,
        /// The number of what it asks next.
        next: u64,
    },
    /// A client wants an object for itself.
    Lock {
        /// Who.
        by: Subscriber,
        /// Which object.
        key: ObjectKey,
        /// What it may do.
        access: Access,
        /// For how long at most.
        lease_ms: u32,
        /// To be answered with [`ToShard::Called`].
        call: CallId,
        /// Trace context, or empty.
        trace: Bytes,
    },
    /// A client gives one level of its lock back.
    Unlock {
        /// Who.
        by: Subscriber,
        /// Which object.
        key: ObjectKey,
        /// To be answered with [`ToShard::Called`].
        call: CallId,
        /// Trace context, or empty.
        trace: Bytes,
    },
    /// A client is gone.
    Left(SubscriberId),
    /// A publisher wants a name. Answered by [`News::Claim`].
    Claim {
        /// The publish.
        publication: PublicationId,
        /// The name.
        key: StreamKey,
        /// Who it says it is, or empty.
        token: Bytes,
        /// The newest publish of the name that is known here.
        above: Epoch,
        /// Trace context.
        trace: Bytes,
    },
    /// A challenged publisher is alive.
    Affirm(PublicationId),
    /// A publish is over.
    Release(PublicationId),
    /// The media of a publish is at this origin.
    Place(PublicationId, OriginId),
    /// Say how a stream stands, now and at every change: [`News::Stream`].
    Follow(StreamKey),
    /// No longer.
    Unfollow(StreamKey),
}

/// The way to the task.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    inbox: mpsc::UnboundedSender<ToShared>,
}

impl Handle {
    /// Queues a message. What clients ask is bounded by what each may have under way, the
    /// rest by the number of streams and connections.
    pub(crate) fn send(&self, message: ToShared) {
        let _ = self.inbox.send(message);
    }
}

impl std::fmt::Debug for ToShared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ToShared")
    }
}

/// What the log says about streams.
#[derive(Debug)]
pub(crate) enum News {
    /// A claim is decided.
    Claim {
        /// Which.
        publication: PublicationId,
        /// How.
        outcome: ClaimOutcome,
    },
    /// Somebody else wants the name of this publish: say whether the publisher is alive.
    Challenged {
        /// Which.
        publication: PublicationId,
    },
    /// How a followed stream stands.
    Stream {
        /// Which.
        key: StreamKey,
        /// How.
        state: StreamState,
    },
}

/// The way to the task, and what it will read.
pub(crate) fn inbox() -> (Handle, mpsc::UnboundedReceiver<ToShared>) {
    let (inbox, receiver) = mpsc::unbounded_channel();
    (Handle { inbox }, receiver)
}

/// What the edge still has to say when it ends is given this long.
const PARTING: Duration = Duration::from_millis(300);

/// The task.
pub(crate) struct Shared {
    replica: Replica,
    attach: Attach,
    inbox: mpsc::UnboundedReceiver<ToShared>,
    shards: Vec<ShardHandle>,
    news: mpsc::UnboundedSender<News>,
    /// Encoded, and not sent yet.
    ready: Vec<Bytes>,
    /// The span of what is being told, where anybody wants to see it.
    telling: Option<Arc<Fanout>>,
}

impl Shared {
    /// A task that attaches to one of the addresses.
    pub(crate) fn new(
        setup: Setup,
        inbox: mpsc::UnboundedReceiver<ToShared>,
        link: LinkSetup,
        addresses: watch::Receiver<Addresses>,
        shards: Vec<ShardHandle>,
        news: mpsc::UnboundedSender<News>,
    ) -> Self {
        let attach = Attach::new(link, addresses);
        Self {
            replica: Replica::new(setup, Instant::now().into()),
            attach,
            inbox,
            shards,
            news,
            ready: Vec::new(),
            telling: None,
        }
    }

    /// Runs until nobody is left who could tell it anything, and says the last of it.
    pub(crate) async fn run(mut self) {
        self.attach.dial();
        let mut batch = Vec::with_capacity(INBOX_BATCH);
        let mut until = None;
        loop {
            self.carry_out();
            let deadline = self.replica.deadline().map(Instant::from);
            tokio::select! {
                count = self.inbox.recv_many(&mut batch, INBOX_BATCH), if until.is_none() => {
                    if count == 0 {
                        until = Some(Instant::now() + PARTING);
                    }
                    for message in batch.drain(..) {
                        self.handle(message);
                    }
                }
                way = self.attach.happens(&mut self.ready) => self.handle_way(way),
                () = sleep_until(deadline) => self.replica.handle_timeout(now()),
                () = sleep_until(until) => return,
            }
        }
    }

    fn handle(&mut self, message: ToShared) {
        let now = now();
        let replica = &mut self.replica;
        match message {
            ToShared::Ask {
                by,
                key,
                request,
                policy,
                trace,
            } => {
                let access = Access {
                    read: request.access.read,
                    write: request.access.write,
                };
                replica.handle_ask(
                    by,
                    key,
                    request.kind,
                    request.version,
                    access,
                    policy,
                    request.asks,
                    trace,
                    now,
                );
            }
            ToShared::Resume {
                client,
                session,
                next,
            } => replica.handle_resume(client, session, next, now),
            ToShared::Lock {
                by,
                key,
                access,
                lease_ms,
                call,
                trace,
            } => replica.handle_lock(by, key, access, lease_ms, call, trace, now),
            ToShared::Unlock {
                by,
                key,
                call,
                trace,
            } => replica.handle_unlock(by, key, call, trace, now),
            ToShared::Left(client) => replica.handle_left(client, now),
            ToShared::Claim {
                publication,
                key,
                token,
                above,
                trace,
            } => replica.claim(publication.0, key, token, above, trace, now),
            ToShared::Affirm(publication) => replica.affirm(publication.0, now),
            ToShared::Release(publication) => replica.release(publication.0, now),
            ToShared::Place(publication, origin) => replica.place(publication.0, origin, now),
            ToShared::Follow(key) => replica.follow(key, now),
            ToShared::Unfollow(key) => replica.unfollow(&key, now),
        }
    }

    fn handle_way(&mut self, way: Way) {
        let now = now();
        match way {
            Way::Open => {
                // What was meant for another origin.
                self.ready.clear();
                self.replica.handle_attached_link(now);
            }
            Way::Heard(messages) => {
                for message in messages {
                    let heard = ToEdge::decode(message)
                        .map_err(|error| error.to_string())
                        .and_then(|message| {
                            let telling = telling(&message);
                            let heard = self.replica.handle_message(message, now);
                            if telling.is_some() {
                                self.telling = telling;
                                self.carry_out();
                                self.telling = None;
                            }
                            heard.map_err(|error| error.to_string())
                        });
                    if let Err(error) = heard {
                        warn!(error, "detaching from an origin that misbehaves");
                        self.detach();
                        return;
                    }
                }
                self.attach.serves();
            }
            Way::Broken => self.detach(),
        }
    }

    fn detach(&mut self) {
        self.ready.clear();
        self.replica.handle_detached(now());
        self.attach.next();
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.replica.poll_output() {
            match output {
                Output::ToOrigin(message) => self.ready.push(message.encode()),
                Output::Update { to, update, .. } => self.tell(to, &update),
                Output::CallAnswer {
                    subscriber,
                    call,
                    result,
                } => {
                    if let Some(shard) = self.shards.get(shard_of(subscriber)) {
                        shard.send(ToShard::Called {
                            client: subscriber,
                            call,
                            result,
                        });
                    }
                }
                Output::Dismiss(client) => {
                    if let Some(shard) = self.shards.get(shard_of(client)) {
                        shard.send(ToShard::Dismiss(client));
                    }
                }
                Output::Claim {
                    publication,
                    outcome,
                } => self.report(News::Claim {
                    publication: PublicationId(publication),
                    outcome,
                }),
                Output::Challenged { publication } => self.report(News::Challenged {
                    publication: PublicationId(publication),
                }),
                Output::Stream { key, state } => self.report(News::Stream { key, state }),
                Output::Reattach => {
                    if self.attach.has_choice() {
                        debug!("attaching to another origin");
                        self.detach();
                    }
                }
            }
        }
    }

    fn report(&self, news: News) {
        let _ = self.news.send(news);
    }

    /// Hands an update to each shard that has somebody who is told.
    fn tell(&self, to: Recipients, update: &Arc<model::object::ObjectUpdate>) {
        match &to {
            Recipients::One(one) => {
                if let Some(shard) = self.shards.get(shard_of(*one)) {
                    let (update, told) = (update.clone(), self.telling.clone());
                    shard.send(ToShard::Object { to, update, told });
                }
            }
            Recipients::Many { subscribers, .. } => {
                // Ascending, and so shard by shard.
                let mut rest = &subscribers[..];
                while let Some(first) = rest.first() {
                    let index = shard_of(*first);
                    rest = &rest[rest.partition_point(|one| shard_of(*one) == index)..];
                    if let Some(shard) = self.shards.get(index) {
                        let (to, update) = (to.clone(), update.clone());
                        let told = self.telling.clone();
                        shard.send(ToShard::Object { to, update, told });
                    }
                }
            }
        }
    }
}

/// A change that belongs to a trace, and what this edge tells of it.
fn telling(message: &ToEdge) -> Option<Arc<Fanout>> {
    let ToEdge::Applied(applied) = message else {
        return None;
    };
    if applied.trace.is_empty() || !is_traced() {
        return None;
    }
    let about = applied.effects.iter().find_map(|effect| {
        if let Effect::Object { key, .. } = effect {
            Some(key)
        } else {
            None
        }
    })?;
    let parent = SpanPlace::parse(&applied.trace);
    let mut phase = Phase::child("object.deliver", Kind::Consumer, parent);
    phase.show("selvage.object.key", about);
    phase.count("selvage.raft.index", applied.index.0);
    Fanout::new(phase, "selvage.subscribers")
}

/// Which shard holds a client.
pub(crate) fn shard_of(client: SubscriberId) -> usize {
    usize::try_from(client.0 >> crate::shard::NUMBER_BITS).unwrap_or(usize::MAX)
}

fn now() -> std::time::Instant {
    Instant::now().into()
}
