//! Which origin carries what: one task per edge that knows the links, the publications
//! and the channels, and brings each stream to where it belongs.
//!
//! Only control passes here. Frames go straight from a publisher's shard to its link
//! and from a link to its channel.
//!
//! *A publication* is claimed first: the replicated log says who holds a name, and in
//! which incarnation ([`publications`]). Its media then goes to the owner of the name
//! among the origins that are up, which is recorded in the log. When its link breaks or
//! its origin drains, its shard is asked to re-attach it at the next owner, and the log
//! hears of it afterwards; media does not wait for the log. When the true owner is (back)
//! up and has stayed up for [`SETTLE`], it moves there, so that edges agree again.
//!
//! *A channel* follows its stream ([`channels`]): it goes where the log says that the
//! media is, or to the owner when it says nothing, stays where the stream is published,
//! and looks again whenever it is not (or no longer) published there.

mod channels;
mod publications;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use model::{Epoch, OriginId, StreamKey};
use node::telemetry::SpanPlace;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::info;

use self::channels::Subscribed;
use self::publications::Publication;
use crate::channel::ChannelId;
use crate::link::{Dialling, LinkEvent, LinkHandle, LinkId, LinkSetup};
use crate::route::owner;
use crate::shard::{PublicationId, ShardHandle};
use crate::shared::{Handle, News, ToShared};

/// An origin that has been up for this long draws its streams back to itself. Long
/// enough for the other edges to have seen it too.
pub(crate) const SETTLE: Duration = Duration::from_secs(2);

/// An edge that has just started sees some origins before others, and would place streams
/// where no other edge looks. It places none until it has seen all it knows of, or until
/// this time has passed and those that answer must do.
pub(crate) const FIRST_SIGHT: Duration = Duration::from_secs(3);

/// What shards ask.
#[derive(Debug)]
pub(crate) enum Ask {
    /// A client wants to publish.
    Publish {
        /// Its number.
        publication: PublicationId,
        /// What.
        key: StreamKey,
        /// Who it says it is, or empty.
        token: Bytes,
        /// Who holds the client.
        shard: ShardHandle,
        /// The span of the wish.
        span: Option<SpanPlace>,
    },
    /// Answers [`ToShard::Reattach`](crate::shard::ToShard::Reattach) and
    /// [`ToShard::Incarnate`](crate::shard::ToShard::Incarnate): where the publish stands.
    Reattach {
        /// Which.
        publication: PublicationId,
        /// Its incarnation.
        epoch: Epoch,
        /// The next frame number.
        next: u64,
    },
    /// Answers [`ToShard::Challenged`](crate::shard::ToShard::Challenged): the publisher is
    /// alive.
    Affirm {
        /// Which.
        publication: PublicationId,
    },
    /// A publish is over. The shard has told the link that granted it, if any.
    Unpublish {
        /// Which.
        publication: PublicationId,
    },
    /// A shard's first viewer of a stream came.
    Join {
        /// The stream.
        key: StreamKey,
        /// Who.
        shard: ShardHandle,
        /// The span of the viewer's wish.
        span: Option<SpanPlace>,
    },
    /// A shard's last viewer of a stream left.
    Leave {
        /// The stream.
        channel: ChannelId,
        /// Who.
        shard: usize,
    },
}

/// How long things are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// A channel without viewers.
    pub(crate) linger: Duration,
    /// Viewers of a stream whose publisher is being re-attached somewhere.
    pub(crate) interrupted: Duration,
}

/// The origins that can be given streams.
pub(crate) type Reachable = BTreeSet<OriginId>;

/// The task's state.
pub(crate) struct Upstream {
    setup: LinkSetup,
    patience: Patience,
    asks: mpsc::UnboundedReceiver<Ask>,
    events: (
        mpsc::UnboundedSender<LinkEvent>,
        mpsc::UnboundedReceiver<LinkEvent>,
    ),
    shared: Handle,
    news: mpsc::UnboundedReceiver<News>,
    dialling: Dialling,
    link_ids: Arc<AtomicU64>,
    links: BTreeMap<LinkId, Link>,
    publications: HashMap<PublicationId, Publication>,
    channels: HashMap<ChannelId, Subscribed>,
    by_key: HashMap<StreamKey, ChannelId>,
    next_channel: u64,
    /// Whether streams are placed yet, see [`FIRST_SIGHT`].
    open: bool,
    wake_at: Option<Instant>,
    reachable: watch::Sender<Reachable>,
}

/// What the task listens to.
pub(crate) struct Sources {
    /// From the shards.
    pub(crate) asks: mpsc::UnboundedReceiver<Ask>,
    /// From the replicated log.
    pub(crate) news: mpsc::UnboundedReceiver<News>,
    /// Where origins are.
    pub(crate) addresses: watch::Receiver<node::resolve::Addresses>,
}

struct Link {
    handle: LinkHandle,
    origin: OriginId,
    /// When it may draw streams that others hold.
    settled: Instant,
    draining: bool,
}

impl Upstream {
    /// A task that will dial the addresses of `sources`. `reachable` tells which origins
    /// can be given streams.
    pub(crate) fn new(
        setup: LinkSetup,
        patience: Patience,
        sources: Sources,
        shared: Handle,
        reachable: watch::Sender<Reachable>,
    ) -> Self {
        let Sources {
            asks,
            news,
            addresses,
        } = sources;
        Self {
            setup,
            patience,
            asks,
            events: mpsc::unbounded_channel(),
            shared,
            news,
            dialling: Dialling::new(addresses),
            link_ids: Arc::default(),
            links: BTreeMap::new(),
            publications: HashMap::new(),
            channels: HashMap::new(),
            by_key: HashMap::new(),
            next_channel: 0,
            open: false,
            wake_at: None,
            reachable,
        }
    }

    /// Runs until no shard is left.
    pub(crate) async fn run(mut self) {
        self.dial();
        let first_sight = Instant::now() + FIRST_SIGHT;
        self.wake_by(first_sight);
        loop {
            let deadline = self.wake_at;
            tokio::select! {
                ask = self.asks.recv() => match ask {
                    Some(ask) => self.handle_ask(ask),
                    None => break,
                },
                Some(event) = self.events.1.recv() => self.handle_event(event),
                Some(news) = self.news.recv() => self.handle_news(news),
                Ok(()) = self.dialling.changed() => self.dial(),
                () = sleep_until(deadline) => {
                    let now = Instant::now();
                    self.open |= now >= first_sight;
                    self.handle_timeout(now);
                }
            }
        }
    }

    /// Dials what is new in the list and lets go of what has left it.
    fn dial(&mut self) {
        let (setup, ids, events) = (&self.setup, &self.link_ids, &self.events.0);
        self.dialling.dial(|address, wanted| {
            crate::link::keep(setup.clone(), address, wanted, ids.clone(), events.clone())
        });
    }

    fn handle_ask(&mut self, ask: Ask) {
        match ask {
            Ask::Publish {
                publication,
                key,
                token,
                shard,
                span,
            } => self.publish(publication, key, token, shard, span),
            Ask::Reattach {
                publication,
                epoch,
                next,
            } => self.reattach(publication, epoch, next),
            Ask::Affirm { publication } => self.shared.send(ToShared::Affirm(publication)),
            Ask::Unpublish { publication } => self.unpublish(publication),
            Ask::Join { key, shard, span } => self.join(key, &shard, span),
            Ask::Leave { channel, shard } => self.leave(channel, shard),
        }
    }

    fn handle_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up { link, origin } => {
                let id = link.id();
                // Origins that an edge finds when it starts are what it starts from.
                let now = Instant::now();
                let settled = if self.open { now + SETTLE } else { now };
                self.links.insert(
                    id,
                    Link {
                        handle: link,
                        origin,
                        settled,
                        draining: false,
                    },
                );
                self.count();
                self.place_all();
                self.wake_by(settled);
            }
            LinkEvent::Down { link } => {
                self.links.remove(&link);
                self.count();
                self.detach_publications(link);
                self.detach_channels(link);
                self.place_all();
                self.wake_by(Instant::now() + self.patience.interrupted);
            }
            LinkEvent::Draining { link } => {
                if let Some(entry) = self.links.get_mut(&link) {
                    info!(origin = %entry.origin, "origin drains: moving its streams");
                    entry.draining = true;
                }
                self.count();
                self.place_all();
            }
            LinkEvent::Granted {
                link,
                id,
                publication,
                span,
            } => self.granted((link, id), publication, span),
            LinkEvent::Refused {
                link,
                id,
                publication,
                reason,
            } => self.refused((link, id), publication, reason),
            LinkEvent::Ended {
                link,
                id,
                publication,
                reason,
            } => self.ended((link, id), publication, reason),
            LinkEvent::Vacant {
                link,
                channel,
                epoch,
                how,
            } => self.vacant(link, channel, epoch, how),
        }
    }

    fn handle_news(&mut self, news: News) {
        match news {
            News::Claim {
                publication,
                outcome,
            } => self.claimed(publication, outcome),
            News::Challenged { publication } => self.challenged(publication),
            News::Stream { key, state } => self.stream_stands(&key, state),
        }
    }

    /// Looks at everything again after the set of origins changed.
    fn place_all(&mut self) {
        if !self.open {
            return;
        }
        let publications: Vec<_> = self.publications.keys().copied().collect();
        for publication in publications {
            self.place(publication);
        }
        let channels: Vec<_> = self.channels.keys().copied().collect();
        for channel in channels {
            self.subscribe(channel);
        }
    }

    /// The link to the owner of a stream among the origins that are settled, and the one
    /// that holds it now; among all, when none is.
    fn owner(&self, key: &StreamKey, held: Option<LinkId>) -> Option<(LinkId, &Link)> {
        if !self.open {
            return None;
        }
        let now = Instant::now();
        let usable = || self.links.iter().filter(|(_, link)| !link.draining);
        let settled = usable().filter(|(id, link)| held == Some(**id) || now >= link.settled);
        let name = owner(key, settled.map(|(_, link)| &link.origin))
            .or_else(|| owner(key, usable().map(|(_, link)| &link.origin)))?;
        self.link_to(name)
    }

    /// The link to an origin that can be given streams. The same origin under two
    /// addresses, or its next incarnation before the loss of the last was noticed: the
    /// newest link counts.
    fn link_to(&self, origin: &OriginId) -> Option<(LinkId, &Link)> {
        let usable = |(_, link): &(&LinkId, &Link)| !link.draining && link.origin == *origin;
        let newest = self.links.iter().rfind(usable);
        newest.map(|(id, link)| (*id, link))
    }

    /// Notes how many origins are up, of how many addresses.
    fn count(&mut self) {
        let usable = self.links.values().filter(|link| !link.draining);
        let up: Reachable = usable.map(|link| link.origin.clone()).collect();
        self.open |= up.len() >= self.dialling.len();
        self.reachable
            .send_replace(if self.open { up } else { Reachable::new() });
    }

    /// Looks at everything again by `at` at the latest.
    fn wake_by(&mut self, at: Instant) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.settle_channels(now);
        self.count();
        self.place_all();
        let settling = self.links.values().map(|link| link.settled);
        let channels = self.channel_deadlines();
        self.wake_at = settling.chain(channels).filter(|at| *at > now).min();
    }
}

/// Resolves then; never, when there is no then.
pub(crate) async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
